//! WAIT and WAITAOF: what they ask for is a goal, which [`crate::replication`] watches.

use crate::blocking::{AtTimeout, WaitFor};
use crate::commands::prelude::*;
use crate::replication::{Goal, NO_APPEND_ONLY};
use kara_keyspace::Kind;

const TIMEOUT: Arg = Arg { name: "timeout", kind: ArgKind::Integer, ..Arg::NEW };

/// A timeout in whole milliseconds.
fn parse_timeout_ms(cx: &Cx, position: usize) -> Result<i64, CommandError> {
    let timeout_ms =
        cx.int(position).map_err(|_| CommandError::text("ERR timeout is not an integer or out of range"))?;
    if timeout_ms < 0 {
        return Err(CommandError::text("ERR timeout is negative"));
    }
    if timeout_ms.checked_add(cx.now_ms).is_none() {
        return Err(CommandError::text("ERR timeout is out of range"));
    }
    Ok(timeout_ms)
}

/// Answers where the goal is reached or nobody can wait; else waits for no key until it is, or the time is over.
fn wait_for(cx: &mut Cx, goal: Goal, timeout_ms: i64) -> Outcome {
    let wait = WaitFor { at_timeout: AtTimeout::Goal(goal), ..WaitFor::key(Kind::Stream, 0..0, timeout_ms) };
    if goal.is_reached(cx.shared) || !cx.wait(wait) {
        goal.write(cx.shared, cx.reply);
        return Ok(Effect::None);
    }
    let replication = &cx.shared.replication;
    replication.waits().add(cx.session.info.clone(), goal);
    replication.backlog.append_plain(&[b"REPLCONF", b"GETACK", b"*"]);
    Ok(Effect::None)
}

pub(super) const WAIT: Spec = Spec {
    name: "wait",
    arity: Arity::Exactly(3),
    flags: Flags::BLOCKING,
    acl: Acl::CONNECTION,
    group: Group::Generic,
    since: "3.0.0",
    summary: "Waits until so many replicas have acknowledged the connection's writes.",
    complexity: "O(1)",
    tips: &["request_policy:all_shards", "response_policy:agg_min"],
    args: &[Arg { name: "numreplicas", kind: ArgKind::Integer, ..Arg::NEW }, TIMEOUT],
    handler: Some(wait),
    ..Spec::NEW
};

fn wait(cx: &mut Cx) -> Outcome {
    let replicas = cx.int(1)?;
    let timeout_ms = parse_timeout_ms(cx, 2)?;
    if cx.shared.replication.is_replica() {
        return Err(CommandError::text(
            "ERR WAIT cannot be used with replica instances. Please also note that if a replica is configured to be \
             writable (which is not the default) writes to replicas are just local and are not propagated.",
        ));
    }
    let offset = cx.session.written;
    let count = usize::try_from(replicas).unwrap_or(0);
    wait_for(cx, Goal::Replicas { offset, count }, timeout_ms)
}

pub(super) const WAITAOF: Spec = Spec {
    name: "waitaof",
    arity: Arity::Exactly(4),
    flags: Flags::BLOCKING,
    acl: Acl::CONNECTION,
    group: Group::Generic,
    since: "7.2.0",
    summary: "Waits until the connection's writes are on the disks of this server and of so many replicas.",
    complexity: "O(1)",
    tips: &["request_policy:all_shards", "response_policy:agg_min"],
    args: &[
        Arg { name: "numlocal", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "numreplicas", kind: ArgKind::Integer, ..Arg::NEW },
        TIMEOUT,
    ],
    handler: Some(waitaof),
    ..Spec::NEW
};

fn waitaof(cx: &mut Cx) -> Outcome {
    let local = cx.int(1)?;
    if !(0..=1).contains(&local) {
        return Err(CommandError::text("ERR value is out of range, value must between 0 and 1"));
    }
    let replicas = cx.int(2).ok().filter(|n| *n >= 0);
    let replicas = replicas.ok_or(CommandError::text("ERR value is out of range, must be positive"))?;
    let timeout_ms = parse_timeout_ms(cx, 3)?;
    if cx.shared.replication.is_replica() {
        return Err(CommandError::text(
            "ERR WAITAOF cannot be used with replica instances. Please also note that writes to replicas are just local and \
             are not propagated.",
        ));
    }
    if local > 0 && !cx.config.appendonly {
        return Err(CommandError::text(NO_APPEND_ONLY));
    }
    let goal = Goal::Disks {
        offset: cx.session.written,
        count: usize::try_from(replicas).unwrap_or(usize::MAX),
        local: local > 0,
        // Everybody's records up to now: whose they are isn't noted.
        logged: cx.shared.persist.aof.appended(),
    };
    wait_for(cx, goal, timeout_ms)
}
