//! SAVE, BGSAVE and BGREWRITEAOF.

use crate::commands::prelude::*;
use crate::persist::aof;
use crate::persist::jobs::JobKind;
use crate::persist::save;
use crate::session::Origin;
use std::sync::atomic::Ordering::Relaxed;

pub(super) const SAVE: Spec = Spec {
    name: "save",
    arity: Arity::Exactly(1),
    flags: Flags::ADMIN.union(Flags::NO_ASYNC_LOADING).union(Flags::NO_MULTI).union(Flags::NOSCRIPT),
    group: Group::Server,
    since: "1.0.0",
    summary: "Saves the data to disk, while everybody waits.",
    complexity: "O(N) for N keys",
    locks: Locks::All,
    handler: Some(save),
    ..Spec::NEW
};

fn save(cx: &mut Cx) -> Outcome {
    if running(cx) == Some(JobKind::Rdb) {
        return Err(CommandError::text("ERR Background save already in progress"));
    }
    save::save(cx.shared, cx.config, cx.keys.space).map_err(|_| CommandError::text("ERR"))?;
    cx.reply.ok();
    Ok(Effect::None)
}

/// What a job under way is for.
fn running(cx: &Cx) -> Option<JobKind> {
    cx.shared.persist.job.lock().as_ref().map(|job| job.kind)
}

pub(super) const BGSAVE: Spec = Spec {
    name: "bgsave",
    arity: Arity::AtLeast(1),
    flags: Flags::ADMIN.union(Flags::NO_ASYNC_LOADING).union(Flags::NOSCRIPT),
    group: Group::Server,
    since: "1.0.0",
    summary: "Saves the data to disk in the background.",
    complexity: "O(1); O(N) for N keys in the background",
    args: &[Arg {
        name: "operation",
        kind: ArgKind::Oneof,
        optional: true,
        args: &[
            Arg::word("schedule", "SCHEDULE").since("3.2.2"),
            Arg::word("cancel", "CANCEL").since("8.1.0"),
        ],
        ..Arg::NEW
    }],
    locks: Locks::All,
    handler: Some(bgsave),
    ..Spec::NEW
};

fn bgsave(cx: &mut Cx) -> Outcome {
    let mut schedule = false;
    match cx.args {
        [_] => {}
        [_, word] if word.eq_ignore_ascii_case(b"SCHEDULE") => schedule = true,
        [_, word] if word.eq_ignore_ascii_case(b"CANCEL") => return cancel(cx),
        _ => return Err(CommandError::Syntax),
    }
    let in_exec = cx.origin == Origin::Exec;
    match running(cx) {
        Some(JobKind::Rdb) => {
            return Err(CommandError::text("ERR Background save already in progress"));
        }
        Some(JobKind::AofRewrite) if !schedule && !in_exec => {
            return Err(CommandError::text(
                "ERR Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE SCHEDULE in order to \
                 schedule a BGSAVE whenever possible.",
            ));
        }
        other if other.is_some() || in_exec => {
            cx.shared.persist.rdb_scheduled.store(true, Relaxed);
            cx.reply.simple("Background saving scheduled");
        }
        _ => {
            save::start_bgsave(cx.shared, cx.config, cx.keys.space).map_err(|_| CommandError::text("ERR"))?;
            cx.reply.simple("Background saving started");
        }
    }
    Ok(Effect::None)
}

fn cancel(cx: &mut Cx) -> Outcome {
    let persist = &cx.shared.persist;
    if running(cx) == Some(JobKind::Rdb) {
        if let Some(job) = &*persist.job.lock() {
            cx.shared
                .host
                .log(crate::log::Level::Notice, "Background saving will be aborted due to user request");
            job.cancel();
        }
        cx.reply.simple("Background saving cancelled");
    } else if persist.rdb_scheduled.swap(false, Relaxed) {
        cx.reply.simple("Scheduled background saving cancelled");
    } else {
        return Err(CommandError::text("ERR Background saving is currently not in progress or scheduled"));
    }
    Ok(Effect::None)
}

pub(super) const BGREWRITEAOF: Spec = Spec {
    name: "bgrewriteaof",
    arity: Arity::Exactly(1),
    flags: Flags::ADMIN.union(Flags::NO_ASYNC_LOADING).union(Flags::NOSCRIPT),
    group: Group::Server,
    since: "1.0.0",
    summary: "Rewrites the append-only file in the background.",
    complexity: "O(N) for N keys, in the background",
    handler: Some(bgrewriteaof),
    ..Spec::NEW
};

/// The job under way was given up.
fn is_ending(cx: &Cx) -> bool {
    cx.shared.persist.job.lock().as_ref().is_some_and(|job| job.is_cancelled())
}

fn bgrewriteaof(cx: &mut Cx) -> Outcome {
    match running(cx) {
        Some(JobKind::AofRewrite) if is_ending(cx) => {
            // One that was given up has yet to end: this one begins then.
            cx.shared.persist.aof.rewrite_scheduled.store(true, Relaxed);
            cx.reply.simple("Background append only file rewriting started");
        }
        Some(JobKind::AofRewrite) => {
            return Err(CommandError::text("ERR Background append only file rewriting already in progress"));
        }
        other if other.is_some() || cx.origin == Origin::Exec => {
            let aof = &cx.shared.persist.aof;
            aof.rewrite_scheduled.store(true, Relaxed);
            // Asked for by hand, it doesn't wait for earlier failures.
            aof.rewrite_failures.store(0, Relaxed);
            cx.reply.simple("Background append only file rewriting scheduled");
        }
        _ => {
            if aof::start_rewrite(cx.shared, cx.config, cx.keys.space).is_err() {
                return Err(CommandError::text(
                    "ERR Can't execute an AOF background rewriting. Please check the server logs for more information.",
                ));
            }
            cx.reply.simple("Background append only file rewriting started");
        }
    }
    Ok(Effect::None)
}
