//! CONFIG GET, SET, REWRITE, RESETSTAT: the registry behind them is `crate::config`.

use super::prelude::*;
use crate::config::{Access, Config, RewriteError, SetContext};
use crate::log::Level;
use crate::persist::aof;
use crate::pipeline::is_local;
use crate::session::Origin;
use std::sync::atomic::Ordering::Relaxed;

/// The family's commands.
pub const COMMANDS: &[Spec] = &[CONFIG];

const CONFIG: Spec = Spec {
    name: "config",
    arity: Arity::AtLeast(2),
    group: Group::Server,
    since: "2.0.0",
    summary: "A container for commands about the configuration.",
    complexity: "Depends on subcommand.",
    subcommands: &[GET, HELP, RESETSTAT, REWRITE, SET],
    ..Spec::NEW
};

/// What all subcommands except HELP share.
const GUARDED: Flags = Flags::ADMIN.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE);

/// For those that act on the node they are sent to.
const EVERY_NODE: &[&str] = &["request_policy:all_nodes", "response_policy:all_succeeded"];

const GET: Spec = Spec {
    name: "get",
    arity: Arity::AtLeast(3),
    flags: GUARDED,
    group: Group::Server,
    since: "2.0.0",
    summary: "Returns the values of the settings that match.",
    complexity: "O(N) when N is the number of configuration parameters provided",
    args: &[Arg { name: "parameter", kind: ArgKind::String, multiple: true, ..Arg::NEW }],
    handler: Some(get),
    ..Spec::NEW
};

fn get(cx: &mut Cx) -> Outcome {
    let patterns = cx.args.get(2..).unwrap_or_default();
    let found = cx.shared.config.get(patterns);
    cx.reply.map(found.len());
    for (name, value) in &found {
        cx.reply.bulk(name);
        cx.reply.bulk(value);
    }
    Ok(Effect::None)
}

const HELP: Spec = Spec {
    name: "help",
    arity: Arity::Exactly(2),
    flags: Flags::LOADING.union(Flags::STALE),
    group: Group::Server,
    since: "5.0.0",
    summary: "Explains the subcommands.",
    complexity: "O(1)",
    handler: Some(help),
    ..Spec::NEW
};

fn help(cx: &mut Cx) -> Outcome {
    cx.reply_help(&[
        "GET <pattern>",
        "    Return parameters matching the glob-like <pattern> and their values.",
        "SET <directive> <value>",
        "    Set the configuration <directive> to <value>.",
        "RESETSTAT",
        "    Reset statistics reported by the INFO command.",
        "REWRITE",
        "    Rewrite the configuration file.",
    ]);
    Ok(Effect::None)
}

const RESETSTAT: Spec = Spec {
    name: "resetstat",
    arity: Arity::Exactly(2),
    flags: GUARDED,
    group: Group::Server,
    since: "2.0.0",
    summary: "Sets the counters of INFO back to zero.",
    complexity: "O(1)",
    tips: EVERY_NODE,
    handler: Some(resetstat),
    ..Spec::NEW
};

fn resetstat(cx: &mut Cx) -> Outcome {
    cx.shared.persist.before_counters_reset(cx.shared);
    cx.shared.stats.reset();
    cx.shared.exceeded.reset();
    cx.shared.reclaimer.reset_freed();
    cx.shared.observe.rates.reset();
    cx.shared.observe.turns.reset();
    cx.shared.replication.reset_counters();
    cx.reply.ok();
    Ok(Effect::None)
}

const REWRITE: Spec = Spec {
    name: "rewrite",
    arity: Arity::Exactly(2),
    flags: GUARDED,
    group: Group::Server,
    since: "2.8.0",
    summary: "Writes the settings in force to the configuration file.",
    complexity: "O(1)",
    tips: EVERY_NODE,
    handler: Some(rewrite),
    ..Spec::NEW
};

fn rewrite(cx: &mut Cx) -> Outcome {
    // Where a file keeps the users, they don't stand in the configuration.
    let users = cx.config.aclfile.is_empty().then(|| cx.shared.acl.lines());
    match cx.shared.config.rewrite(users.as_deref(), false) {
        Ok(()) => {
            cx.shared.host.log(Level::Notice, "CONFIG REWRITE executed with success.");
            cx.reply.ok();
            Ok(Effect::None)
        }
        Err(RewriteError::NoFile) => {
            Err(CommandError::text("ERR The server is running without a config file"))
        }
        Err(error) => {
            cx.shared.host.log(Level::Warning, &format!("CONFIG REWRITE failed: {error}"));
            Err(CommandError::owned(format!("ERR Rewriting config file: {error}")))
        }
    }
}

const SET: Spec = Spec {
    name: "set",
    arity: Arity::AtLeast(4),
    flags: GUARDED,
    group: Group::Server,
    since: "2.0.0",
    summary: "Changes settings, all of the given ones or none.",
    complexity: "O(N) when N is the number of configuration parameters provided",
    tips: EVERY_NODE,
    args: &[Arg {
        name: "data",
        kind: ArgKind::Block,
        multiple: true,
        args: &[
            Arg { name: "parameter", kind: ArgKind::String, ..Arg::NEW },
            Arg { name: "value", kind: ArgKind::String, ..Arg::NEW },
        ],
        ..Arg::NEW
    }],
    handler: Some(set),
    ..Spec::NEW
};

fn set(cx: &mut Cx) -> Outcome {
    let words = cx.args.get(2..).unwrap_or_default();
    if !words.len().is_multiple_of(2) {
        return Err(CommandError::Syntax);
    }
    let pairs: Vec<(&[u8], &[u8])> =
        words.chunks_exact(2).filter_map(|pair| Some((*pair.first()?, *pair.get(1)?))).collect();
    let aside = cx.shared.replication.gate() & crate::replication::gate::ASYNC_LOADING != 0;
    let loading = cx.shared.loading.load(Relaxed) || aside;
    let context = SetContext { loading, protected: may_set_protected(cx) };
    let shared = cx.shared;
    let mut apply = |old: &Config, new: &mut Config, changes: &_| shared.host.apply_config(old, new, changes);
    match shared.config.set(&pairs, context, &mut apply) {
        Ok(changes) => {
            if let Some(log) = cx.shared.persist.aof.log() {
                log.set_timestamps(cx.shared.config.load().aof_timestamp_enabled);
            }
            if changes.contains("requirepass") {
                let password = &cx.shared.config.load().requirepass;
                cx.shared.acl.set_default_password(&cx.shared.registry, password);
            }
            if changes.contains("maxmemory") {
                warn_of_excess(cx);
            }
            if changes.contains("aof-disable-auto-gc") {
                aof::drop_history(cx.shared, &cx.shared.config.load());
            }
            if changes.contains("appendonly") {
                switch_aof(cx)?;
            }
            cx.reply.ok();
            Ok(Effect::None)
        }
        Err(error) => Err(CommandError::owned(error.to_string())),
    }
}

/// The new `maxmemory` is less than what is in use.
fn warn_of_excess(cx: &Cx) {
    let limit = cx.shared.config.load().maxmemory;
    let used = crate::evict::gauge::counted(cx.shared, limit);
    if limit > 0 && used > limit {
        let text = format!(
            "WARNING: the new maxmemory value set via CONFIG SET ({limit}) is smaller than the current memory usage \
             ({used}). This will result in key eviction and/or the inability to accept new write commands depending \
             on the maxmemory-policy."
        );
        cx.shared.host.log(Level::Warning, &text);
    }
}

/// Begins or ends the append-only file, as the new setting says. What can't begin is taken back.
fn switch_aof(cx: &mut Cx) -> Result<(), CommandError> {
    let config = cx.shared.config.load();
    cx.keys.space.relock_all();
    if !config.appendonly {
        aof::switch_off(cx.shared);
        return Ok(());
    }
    if aof::switch_on(cx.shared, &config, cx.keys.space, cx.origin == Origin::Exec).is_ok() {
        return Ok(());
    }
    aof::switch_off(cx.shared);
    let context = SetContext { loading: false, protected: true };
    let taken_back = cx.shared.config.set(&[(b"appendonly", b"no")], context, &mut |_, _, _| Ok(()));
    debug_assert!(taken_back.is_ok(), "a switch can be set to no");
    Err(CommandError::text(
        "ERR CONFIG SET failed (possibly related to argument 'appendonly') - Unable to turn on AOF. Check server logs.",
    ))
}

/// Whether `enable-protected-configs` lets this client at what could reach files.
fn may_set_protected(cx: &Cx) -> bool {
    match cx.config.enable_protected_configs {
        Access::Yes => true,
        Access::Local => is_local(cx.session),
        Access::No => false,
    }
}
