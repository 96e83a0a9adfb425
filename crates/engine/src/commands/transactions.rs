//! MULTI, EXEC, DISCARD, WATCH, UNWATCH.

use super::prelude::*;
use crate::acl::{self, Context};
use crate::pipeline::run_queued;

/// The family's commands.
pub const COMMANDS: &[Spec] = &[DISCARD, EXEC, MULTI, UNWATCH, WATCH];

pub(super) const MULTI: Spec = Spec {
    name: "multi",
    arity: Arity::Exactly(1),
    flags: Flags::ALLOW_BUSY
        .union(Flags::FAST)
        .union(Flags::LOADING)
        .union(Flags::NO_MULTI)
        .union(Flags::NOSCRIPT)
        .union(Flags::STALE),
    acl: Acl::TRANSACTION,
    group: Group::Transactions,
    since: "1.2.0",
    summary: "Begins a transaction.",
    complexity: "O(1)",
    handler: Some(multi),
    ..Spec::NEW
};

fn multi(cx: &mut Cx) -> Outcome {
    if cx.session.multi.is_some() {
        return Err(CommandError::text("ERR MULTI calls can not be nested"));
    }
    cx.session.begin_multi();
    cx.reply.ok();
    Ok(Effect::None)
}

pub(super) const DISCARD: Spec = Spec {
    name: "discard",
    arity: Arity::Exactly(1),
    flags: Flags::ALLOW_BUSY
        .union(Flags::FAST)
        .union(Flags::LOADING)
        .union(Flags::NOSCRIPT)
        .union(Flags::STALE),
    acl: Acl::TRANSACTION,
    group: Group::Transactions,
    since: "2.0.0",
    summary: "Gives up a transaction.",
    complexity: "O(N) for N queued commands",
    handler: Some(discard),
    ..Spec::NEW
};

fn discard(cx: &mut Cx) -> Outcome {
    if cx.session.multi.is_none() {
        return Err(CommandError::text("ERR DISCARD without MULTI"));
    }
    cx.session.end_multi();
    cx.session.unwatch(&cx.shared.watches);
    cx.reply.ok();
    Ok(Effect::None)
}

pub(super) const WATCH: Spec = Spec {
    name: "watch",
    arity: Arity::AtLeast(2),
    flags: Flags::ALLOW_BUSY
        .union(Flags::FAST)
        .union(Flags::LOADING)
        .union(Flags::NO_MULTI)
        .union(Flags::NOSCRIPT)
        .union(Flags::STALE),
    acl: Acl::TRANSACTION,
    group: Group::Transactions,
    since: "2.2.0",
    summary: "Watches keys: EXEC runs only if none of them has changed.",
    complexity: "O(1) per key",
    key_specs: &[KeySpec::keys(1, -1, KeyFlags::RO)],
    args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), multiple: true, ..Arg::NEW }],
    handler: Some(watch),
    ..Spec::NEW
};

fn watch(cx: &mut Cx) -> Outcome {
    if cx.session.multi.is_some() {
        return Err(CommandError::text("ERR WATCH inside MULTI is not allowed"));
    }
    let db = cx.keys.db;
    for key in &cx.args[1..] {
        let existed = cx.keys.exists(key);
        cx.session.watch(&cx.shared.watches, (db, key.to_vec()), existed);
    }
    cx.reply.ok();
    Ok(Effect::None)
}

pub(super) const UNWATCH: Spec = Spec {
    name: "unwatch",
    arity: Arity::Exactly(1),
    flags: Flags::ALLOW_BUSY
        .union(Flags::FAST)
        .union(Flags::LOADING)
        .union(Flags::NOSCRIPT)
        .union(Flags::STALE),
    acl: Acl::TRANSACTION,
    group: Group::Transactions,
    since: "2.2.0",
    summary: "Forgets all watched keys.",
    complexity: "O(N) for N watched keys",
    handler: Some(unwatch),
    ..Spec::NEW
};

fn unwatch(cx: &mut Cx) -> Outcome {
    cx.session.unwatch(&cx.shared.watches);
    cx.reply.ok();
    Ok(Effect::None)
}

pub(super) const EXEC: Spec = Spec {
    name: "exec",
    arity: Arity::Exactly(1),
    flags: Flags::LOADING.union(Flags::NOSCRIPT).union(Flags::SKIP_COMMANDLOG).union(Flags::STALE),
    acl: Acl::TRANSACTION,
    group: Group::Transactions,
    since: "1.2.0",
    summary: "Runs the queued commands.",
    complexity: "Depends on the queued commands.",
    handler: Some(exec),
    ..Spec::NEW
};

fn exec(cx: &mut Cx) -> Outcome {
    let Some(multi) = cx.session.end_multi() else {
        return Err(CommandError::text("ERR EXEC without MULTI"));
    };
    let untouched = watched_keys_hold(cx);
    cx.session.unwatch(&cx.shared.watches);
    if multi.aborted {
        return Err(CommandError::text("EXECABORT Transaction discarded because of previous errors."));
    }
    if !untouched {
        cx.reply.null_array();
        return Ok(Effect::None);
    }
    cx.reply.array(multi.queue.len());
    let before = cx.nested.len();
    for queued in multi.queue.iter() {
        match acl::may(
            cx.shared,
            cx.config,
            cx.stats,
            cx.session,
            queued.command,
            &queued.args,
            Context::Multi,
            cx.now_ms,
        ) {
            Ok(()) => run_queued(cx, &queued),
            Err(denied) => {
                let text = format!(
                    "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. \
                     This command is no longer allowed for the following reason: {}",
                    denied.reason_in_exec()
                );
                cx.reply.error(&text);
                cx.stats.error_replies.add(1);
                cx.shared.stats.count_error(text.as_bytes());
            }
        }
    }
    // What the commands did stands in `nested` already, and is journaled as one transaction.
    let changed = cx.nested.len() > before || cx.nested_changes > 0;
    cx.extra_changes = cx.nested_changes.saturating_sub(1);
    Ok(if changed { Effect::Rewrite(Default::default()) } else { Effect::None })
}

/// Whether no watched key changed or expired since.
fn watched_keys_hold(cx: &mut Cx) -> bool {
    if cx.session.is_watch_broken() {
        return false;
    }
    let watched = std::mem::take(&mut cx.session.watched);
    let expired = watched.iter().any(|((db, key), existed)| *existed && cx.keys.peek_in(*db, key).is_none());
    cx.session.watched = watched;
    !expired
}
