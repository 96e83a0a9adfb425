//! WAIT and WAITAOF. As long as there are no replicas and no append-only file, nothing is ever acknowledged: they wait
//! their time out, unless nothing was asked for.

use crate::blocking::{AtTimeout, WaitFor};
use crate::commands::prelude::*;
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

/// Waits for no key until the time is over; answers at once where nothing is asked for or nobody can wait.
fn wait_for_replicas(cx: &mut Cx, replicas: i64, timeout_ms: i64, at_timeout: AtTimeout) -> Outcome {
    let wait = WaitFor { at_timeout, ..WaitFor::key(Kind::Stream, 0..0, timeout_ms) };
    if replicas <= 0 || !cx.wait(wait) {
        at_timeout.write(cx.shared, cx.reply);
    }
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
    let replication = &cx.shared.replication;
    if replication.is_replica() {
        return Err(CommandError::text(
            "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica is \
             configured to be writable (which is not the default) writes to replicas are just local and are not propagated.",
        ));
    }
    let offset = cx.session.written;
    let acknowledged = replication.acknowledged(offset);
    let enough = i64::try_from(acknowledged).is_ok_and(|n| n >= replicas);
    let wait =
        WaitFor { at_timeout: AtTimeout::Replicas(offset), ..WaitFor::key(Kind::Stream, 0..0, timeout_ms) };
    if enough || !cx.wait(wait) {
        cx.reply.integer(acknowledged as i64);
        return Ok(Effect::None);
    }
    let wanted = usize::try_from(replicas).unwrap_or(usize::MAX);
    replication.waits().add(cx.session.info.clone(), offset, wanted);
    replication.backlog.append_plain(&[b"REPLCONF", b"GETACK", b"*"]);
    Ok(Effect::None)
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
    if local > 0 {
        return Err(CommandError::text(
            "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
        ));
    }
    wait_for_replicas(cx, replicas, timeout_ms, AtTimeout::NoDisks)
}
