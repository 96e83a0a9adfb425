//! MODULE: what is built in. Libraries can't be loaded: they would run with the reference's structures in their hands.

use crate::commands::prelude::*;
use crate::log::Level;

const LOADING: Flags = Flags::ADMIN.union(Flags::NO_ASYNC_LOADING).union(Flags::NOSCRIPT);

pub(super) const MODULE: Spec = Spec {
    name: "module",
    arity: Arity::AtLeast(2),
    group: Group::Server,
    since: "4.0.0",
    summary: "Modules, of which only the built-in one is there.",
    complexity: "Depends on the subcommand.",
    subcommands: &[HELP, LIST, LOAD, LOADEX, UNLOAD],
    ..Spec::NEW
};

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
        "LIST",
        "    The modules that are there.",
        "LOAD <path> [<arg> ...]",
        "LOADEX <path> [CONFIG <name> <value> ...] [ARGS <arg> ...]",
        "    Refused: this server loads no modules.",
        "UNLOAD <name>",
        "    Refused: what is built in stays.",
    ]);
    Ok(Effect::None)
}

const LIST: Spec = Spec {
    name: "list",
    arity: Arity::Exactly(2),
    flags: Flags::ADMIN.union(Flags::NOSCRIPT),
    group: Group::Server,
    since: "4.0.0",
    summary: "The modules that are there.",
    complexity: "O(N) for N modules",
    tips: &["nondeterministic_output_order"],
    handler: Some(list),
    ..Spec::NEW
};

fn list(cx: &mut Cx) -> Outcome {
    cx.reply.array(1);
    describe_scripts(cx);
    Ok(Effect::None)
}

/// The module that the reference's scripts are; clients may look for it.
pub(crate) fn describe_scripts(cx: &mut Cx) {
    cx.reply.map(4);
    cx.reply.bulk(b"name");
    cx.reply.bulk(b"lua");
    cx.reply.bulk(b"ver");
    cx.reply.integer(1);
    cx.reply.bulk(b"path");
    cx.reply.bulk(b"lua");
    cx.reply.bulk(b"args");
    cx.reply.array(0);
}

const LOAD: Spec = Spec {
    name: "load",
    arity: Arity::AtLeast(3),
    flags: LOADING,
    group: Group::Server,
    since: "4.0.0",
    summary: "Refused: this server loads no modules.",
    complexity: "O(1)",
    args: &[
        Arg { name: "path", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "arg", kind: ArgKind::String, optional: true, multiple: true, ..Arg::NEW },
    ],
    handler: Some(load),
    ..Spec::NEW
};

const LOADEX: Spec = Spec {
    name: "loadex",
    arity: Arity::AtLeast(3),
    flags: LOADING,
    group: Group::Server,
    since: "7.0.0",
    summary: "Refused: this server loads no modules.",
    complexity: "O(1)",
    args: &[
        Arg { name: "path", kind: ArgKind::String, ..Arg::NEW },
        Arg {
            name: "configs",
            kind: ArgKind::Block,
            token: Some("CONFIG"),
            optional: true,
            multiple: true,
            multiple_token: true,
            args: &[
                Arg { name: "name", kind: ArgKind::String, ..Arg::NEW },
                Arg { name: "value", kind: ArgKind::String, ..Arg::NEW },
            ],
            ..Arg::NEW
        },
        Arg {
            name: "args",
            kind: ArgKind::String,
            token: Some("ARGS"),
            optional: true,
            multiple: true,
            ..Arg::NEW
        },
    ],
    handler: Some(load),
    ..Spec::NEW
};

fn load(cx: &mut Cx) -> Outcome {
    let path = String::from_utf8_lossy(cx.arg(2));
    cx.shared.host.log(Level::Warning, &format!("Module {path} is not loaded: this server loads no modules"));
    Err(CommandError::text("ERR Error loading the extension. Please check the server logs."))
}

const UNLOAD: Spec = Spec {
    name: "unload",
    arity: Arity::Exactly(3),
    flags: LOADING,
    group: Group::Server,
    since: "4.0.0",
    summary: "Refused: what is built in stays.",
    complexity: "O(1)",
    args: &[Arg { name: "name", kind: ArgKind::String, ..Arg::NEW }],
    handler: Some(unload),
    ..Spec::NEW
};

fn unload(cx: &mut Cx) -> Outcome {
    let reason = if cx.arg(2) == b"lua" { "the module is built in" } else { "no such module with that name" };
    Err(CommandError::owned(format!("ERR Error unloading module: {reason}")))
}
