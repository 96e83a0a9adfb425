//! SCRIPT and its subcommands.

use crate::commands::prelude::*;
use crate::scripting::cache::{parse_sha, sha_of};
use kara_script::Kind;

pub(super) const SCRIPT: Spec = Spec {
    name: "script",
    arity: Arity::AtLeast(2),
    group: Group::Scripting,
    since: "2.6.0",
    summary: "A container for commands on scripts.",
    complexity: "Depends on the subcommand.",
    subcommands: &[
        Spec {
            name: "debug",
            arity: Arity::AtLeast(3),
            flags: Flags::NOSCRIPT,
            acl: Acl::SCRIPTING,
            group: Group::Scripting,
            since: "3.2.0",
            summary: "Sets the debug mode of later scripts.",
            complexity: "O(1)",
            args: &[
                Arg {
                    name: "mode",
                    kind: ArgKind::Oneof,
                    args: &[Arg::word("yes", "YES"), Arg::word("sync", "SYNC"), Arg::word("no", "NO")],
                    ..Arg::NEW
                },
                Arg { name: "engine", kind: ArgKind::String, since: "9.1.0", optional: true, ..Arg::NEW },
            ],
            handler: Some(script_debug),
            ..Spec::NEW
        },
        Spec {
            name: "exists",
            arity: Arity::AtLeast(3),
            flags: Flags::NOSCRIPT.union(Flags::STALE),
            acl: Acl::SCRIPTING,
            group: Group::Scripting,
            since: "2.6.0",
            summary: "Which scripts are cached.",
            complexity: "O(N) for N SHA1s",
            tips: &["request_policy:all_shards", "response_policy:agg_logical_and"],
            args: &[Arg { name: "sha1", kind: ArgKind::String, multiple: true, ..Arg::NEW }],
            handler: Some(script_exists),
            ..Spec::NEW
        },
        Spec {
            name: "flush",
            arity: Arity::AtLeast(2),
            flags: Flags::NOSCRIPT.union(Flags::STALE),
            acl: Acl::SCRIPTING,
            group: Group::Scripting,
            since: "2.6.0",
            summary: "Forgets all cached scripts.",
            complexity: "O(N) for N cached scripts",
            tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
            args: &[Arg {
                name: "flush-type",
                kind: ArgKind::Oneof,
                since: "6.2.0",
                optional: true,
                args: &[Arg::word("async", "ASYNC"), Arg::word("sync", "SYNC")],
                ..Arg::NEW
            }],
            handler: Some(script_flush),
            ..Spec::NEW
        },
        Spec {
            name: "help",
            arity: Arity::Exactly(2),
            flags: Flags::LOADING.union(Flags::STALE),
            acl: Acl::SCRIPTING,
            group: Group::Scripting,
            since: "5.0.0",
            summary: "Describes the subcommands.",
            complexity: "O(1)",
            handler: Some(script_help),
            ..Spec::NEW
        },
        Spec {
            name: "kill",
            arity: Arity::Exactly(2),
            flags: Flags::ALLOW_BUSY.union(Flags::NOSCRIPT),
            acl: Acl::SCRIPTING,
            group: Group::Scripting,
            since: "2.6.0",
            summary: "Ends the running script.",
            complexity: "O(1)",
            tips: &["request_policy:all_shards", "response_policy:one_succeeded"],
            handler: Some(script_kill),
            ..Spec::NEW
        },
        Spec {
            name: "load",
            arity: Arity::Exactly(3),
            flags: Flags::NOSCRIPT.union(Flags::STALE),
            acl: Acl::SCRIPTING,
            group: Group::Scripting,
            since: "2.6.0",
            summary: "Caches a script.",
            complexity: "O(N) for N bytes of the script",
            tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
            args: &[Arg { name: "script", kind: ArgKind::String, ..Arg::NEW }],
            handler: Some(script_load),
            ..Spec::NEW
        },
        Spec {
            name: "show",
            arity: Arity::Exactly(3),
            flags: Flags::NOSCRIPT.union(Flags::STALE),
            acl: Acl::SCRIPTING,
            group: Group::Scripting,
            since: "8.0.0",
            summary: "A cached script's text.",
            complexity: "O(1)",
            args: &[Arg { name: "sha1", kind: ArgKind::String, ..Arg::NEW }],
            handler: Some(script_show),
            ..Spec::NEW
        },
    ],
    ..Spec::NEW
};

fn script_load(cx: &mut Cx) -> Outcome {
    let body = cx.arg(2);
    let (machines, cache) = (cx.machines, &cx.shared.scripts.cache);
    let vm = machines.vm(Kind::Eval, cx.config)?;
    let sha = sha_of(body);
    let known = machines.by_sha(&vm, cache, &sha)?.is_some();
    if known {
        let (flags, _) = crate::scripting::shebang::script(body)?;
        cache.add(sha, body, flags, true);
    } else {
        machines.add(&vm, cache, sha, body, true)?;
    }
    cx.reply.bulk(&sha);
    Ok(Effect::None)
}

fn script_exists(cx: &mut Cx) -> Outcome {
    let asked = cx.args.get(2..).unwrap_or_default();
    cx.reply.array(asked.len());
    for text in asked {
        let known = parse_sha(text).is_some_and(|sha| cx.shared.scripts.cache.get(&sha).is_some());
        cx.reply.integer(i64::from(known));
    }
    Ok(Effect::None)
}

fn script_flush(cx: &mut Cx) -> Outcome {
    // Freeing is quick either way: the texts are small, and other workers' machines let go of theirs by and by.
    if cx.args.len() > 3 || cx.args.len() == 3 && !cx.is_word(2, "SYNC") && !cx.is_word(2, "ASYNC") {
        return Err(CommandError::text("ERR SCRIPT FLUSH only support SYNC|ASYNC option"));
    }
    cx.shared.scripts.cache.flush();
    cx.machines.flush_scripts();
    cx.reply.ok();
    Ok(Effect::None)
}

fn script_show(cx: &mut Cx) -> Outcome {
    let script = parse_sha(cx.arg(2)).and_then(|sha| cx.shared.scripts.cache.get(&sha));
    let script = script.ok_or(CommandError::text("NOSCRIPT No matching script."))?;
    cx.reply.bulk(&script.body);
    Ok(Effect::None)
}

fn script_kill(cx: &mut Cx) -> Outcome {
    cx.shared.scripts.kill(crate::scripting::Running::Script)?;
    cx.reply.ok();
    Ok(Effect::None)
}

fn script_debug(cx: &mut Cx) -> Outcome {
    if cx.is_word(2, "NO") {
        cx.reply.ok();
        return Ok(Effect::None);
    }
    if cx.is_word(2, "YES") || cx.is_word(2, "SYNC") {
        // A debugger would hold the worker, or a copy of the data set that this server has no fork for.
        return Err(CommandError::text("ERR This server has no debugger for scripts"));
    }
    Err(CommandError::text("ERR Use SCRIPT DEBUG YES/SYNC/NO"))
}

fn script_help(cx: &mut Cx) -> Outcome {
    cx.reply_help(&[
        "DEBUG (YES|SYNC|NO) [<engine_name>]",
        "    Turn the debugger on or off. This server has none: only NO is accepted.",
        "EXISTS <sha1> [<sha1> ...]",
        "    Tell which of the scripts are cached.",
        "FLUSH [ASYNC|SYNC]",
        "    Forget all cached scripts.",
        "KILL",
        "    End the script that is running, unless it has written.",
        "LOAD <script>",
        "    Cache a script without running it.",
        "SHOW <sha1>",
        "    Answer a cached script's text.",
    ]);
    Ok(Effect::None)
}
