//! TIME, LASTSAVE and SHUTDOWN.

use crate::blocking::{AtTimeout, WaitFor};
use crate::commands::prelude::*;
use crate::replication::farewell::{self, By};
use crate::session::Origin;
use crate::shared::ShutdownOptions;
use kara_keyspace::Kind;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) const TIME: Spec = Spec {
    name: "time",
    arity: Arity::Exactly(1),
    flags: Flags::FAST.union(Flags::LOADING).union(Flags::STALE),
    group: Group::Server,
    since: "2.6.0",
    summary: "Returns the server's time.",
    complexity: "O(1)",
    tips: &["nondeterministic_output"],
    handler: Some(time),
    ..Spec::NEW
};

fn time(cx: &mut Cx) -> Outcome {
    let since = if cx.origin == crate::session::Origin::Script {
        // Time stands still within a script.
        std::time::Duration::from_millis(u64::try_from(cx.now_ms).unwrap_or(0))
    } else {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    };
    cx.reply.array(2);
    cx.reply.bulk_u64(since.as_secs());
    cx.reply.bulk_u64(u64::from(since.subsec_micros()));
    Ok(Effect::None)
}

pub(super) const LASTSAVE: Spec = Spec {
    name: "lastsave",
    arity: Arity::Exactly(1),
    flags: Flags::FAST.union(Flags::LOADING).union(Flags::STALE),
    acl: Acl::ADMIN.union(Acl::DANGEROUS),
    group: Group::Server,
    since: "1.0.0",
    summary: "Returns when the data was last saved.",
    complexity: "O(1)",
    tips: &["nondeterministic_output"],
    handler: Some(lastsave),
    ..Spec::NEW
};

/// Before the first save this is the time of the start, as in the reference.
fn lastsave(cx: &mut Cx) -> Outcome {
    cx.reply.integer(cx.shared.persist.last_save_s.load(Relaxed));
    Ok(Effect::None)
}

pub(super) const SHUTDOWN: Spec = Spec {
    name: "shutdown",
    arity: Arity::AtLeast(1),
    flags: Flags::ADMIN
        .union(Flags::ALLOW_BUSY)
        .union(Flags::LOADING)
        .union(Flags::NO_MULTI)
        .union(Flags::NOSCRIPT)
        .union(Flags::STALE),
    group: Group::Server,
    since: "1.0.0",
    summary: "Ends the server, after a save where that is wanted.",
    complexity: "O(N) for N keys when saving, else O(1)",
    args: &[Arg {
        name: "abort-selector",
        kind: ArgKind::Oneof,
        optional: true,
        args: &[
            Arg {
                name: "save-selector-block",
                kind: ArgKind::Block,
                args: &[
                    Arg {
                        name: "save-selector",
                        kind: ArgKind::Oneof,
                        optional: true,
                        args: &[Arg::word("nosave", "NOSAVE"), Arg::word("save", "SAVE")],
                        ..Arg::NEW
                    },
                    Arg::word("now", "NOW").since("7.0.0").optional(),
                    Arg::word("force", "FORCE").since("7.0.0").optional(),
                    Arg::word("safe", "SAFE").since("9.0.0").optional(),
                    Arg::word("failover", "FAILOVER").since("9.0.0").optional(),
                ],
                ..Arg::NEW
            },
            Arg::word("abort", "ABORT").since("7.0.0"),
        ],
        ..Arg::NEW
    }],
    handler: Some(shutdown),
    ..Spec::NEW
};

fn shutdown(cx: &mut Cx) -> Outcome {
    let mut options = ShutdownOptions::default();
    let mut abort = false;
    for word in cx.args.iter().skip(1) {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        if is("NOSAVE") && options.save != Some(true) {
            options.save = Some(false);
        } else if is("SAVE") && options.save != Some(false) {
            options.save = Some(true);
        } else if is("NOW") {
            options.now = true;
        } else if is("FORCE") {
            options.force = true;
        } else if is("SAFE") {
            options.safe = true;
        } else if is("FAILOVER") {
            options.failover = true;
        } else if is("ABORT") {
            abort = true;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    if abort {
        if options != ShutdownOptions::default() {
            return Err(CommandError::Syntax);
        }
        if !cx.shared.replication.shutdown.abort(cx.shared) {
            return Err(CommandError::text("ERR No shutdown in progress."));
        }
        cx.reply.ok();
        return Ok(Effect::None);
    }
    if cx.shared.scripts.is_busy() {
        // A script holds the locks: only what needs none can be done.
        if options.save != Some(false) {
            return Err(cx.shared.scripts.busy_error());
        }
        cx.shared.host.exit();
    }
    if !cx.keys.space.try_relock_all() {
        return Err(cx.shared.scripts.busy_error());
    }
    let shutdown = &cx.shared.replication.shutdown;
    let by = By::Client(cx.session.info.clone());
    if cx.origin == Origin::Client && shutdown.begin(cx.shared, cx.config, options, by, cx.now_ms) {
        let key = WaitFor::key(Kind::Stream, 0..0, 0);
        cx.wait(WaitFor { at_timeout: AtTimeout::Never, ..key });
        return Ok(Effect::None);
    }
    farewell::finish(cx.shared, cx.keys.space, options).map_err(CommandError::owned)?;
    // No answer: the end of the connection is the answer. The locks are never given back.
    cx.shared.host.exit()
}
