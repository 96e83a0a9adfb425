//! EVAL, EVALSHA, FCALL and their read-only forms.

use crate::commands::prelude::*;
use crate::scripting::Running;
use crate::scripting::cache::parse_sha;
use crate::scripting::run::{Call, run};
use crate::scripting::shebang::ScriptFlags;
use kara_script::{Kind, LoadError};

const KEY: Arg =
    Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), optional: true, multiple: true, ..Arg::NEW };

pub(super) const EVAL: Spec = Spec {
    name: "eval",
    arity: Arity::AtLeast(3),
    flags: Flags::MAY_REPLICATE
        .union(Flags::NO_MANDATORY_KEYS)
        .union(Flags::NOSCRIPT)
        .union(Flags::SKIP_MONITOR)
        .union(Flags::STALE),
    acl: Acl::SCRIPTING,
    group: Group::Scripting,
    since: "2.6.0",
    summary: "Runs a script.",
    complexity: "Depends on the script.",
    key_specs: &[KeySpec::counted(2, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::UPDATE))
        .noted("We cannot tell how the keys will be used so we assume the worst, RW and UPDATE")],
    args: &[
        Arg { name: "script", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "numkeys", kind: ArgKind::Integer, ..Arg::NEW },
        KEY,
        Arg { name: "arg", kind: ArgKind::String, optional: true, multiple: true, ..Arg::NEW },
    ],
    handler: Some(eval),
    ..Spec::NEW
};

pub(super) const EVAL_RO: Spec = Spec {
    name: "eval_ro",
    arity: Arity::AtLeast(3),
    flags: Flags::NO_MANDATORY_KEYS
        .union(Flags::NOSCRIPT)
        .union(Flags::READONLY)
        .union(Flags::SKIP_MONITOR)
        .union(Flags::STALE),
    acl: Acl::SCRIPTING,
    group: Group::Scripting,
    since: "7.0.0",
    summary: "Runs a script that only reads.",
    complexity: "Depends on the script.",
    key_specs: &[KeySpec::counted(2, KeyFlags::RO.union(KeyFlags::ACCESS))
        .noted("We cannot tell how the keys will be used so we assume the worst, RO and ACCESS")],
    args: &[
        Arg { name: "script", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "numkeys", kind: ArgKind::Integer, ..Arg::NEW },
        KEY,
        Arg { name: "arg", kind: ArgKind::String, optional: true, multiple: true, ..Arg::NEW },
    ],
    handler: Some(eval_ro),
    ..Spec::NEW
};

pub(super) const EVALSHA: Spec = Spec {
    name: "evalsha",
    arity: Arity::AtLeast(3),
    flags: Flags::MAY_REPLICATE
        .union(Flags::NO_MANDATORY_KEYS)
        .union(Flags::NOSCRIPT)
        .union(Flags::SKIP_MONITOR)
        .union(Flags::STALE),
    acl: Acl::SCRIPTING,
    group: Group::Scripting,
    since: "2.6.0",
    summary: "Runs a cached script by its SHA1.",
    complexity: "Depends on the script.",
    key_specs: &[KeySpec::counted(2, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::UPDATE))],
    args: &[
        Arg { name: "sha1", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "numkeys", kind: ArgKind::Integer, ..Arg::NEW },
        KEY,
        Arg { name: "arg", kind: ArgKind::String, optional: true, multiple: true, ..Arg::NEW },
    ],
    handler: Some(evalsha),
    ..Spec::NEW
};

pub(super) const EVALSHA_RO: Spec = Spec {
    name: "evalsha_ro",
    arity: Arity::AtLeast(3),
    flags: Flags::NO_MANDATORY_KEYS
        .union(Flags::NOSCRIPT)
        .union(Flags::READONLY)
        .union(Flags::SKIP_MONITOR)
        .union(Flags::STALE),
    acl: Acl::SCRIPTING,
    group: Group::Scripting,
    since: "7.0.0",
    summary: "Runs a cached script that only reads by its SHA1.",
    complexity: "Depends on the script.",
    key_specs: &[KeySpec::counted(2, KeyFlags::RO.union(KeyFlags::ACCESS))],
    args: &[
        Arg { name: "sha1", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "numkeys", kind: ArgKind::Integer, ..Arg::NEW },
        KEY,
        Arg { name: "arg", kind: ArgKind::String, optional: true, multiple: true, ..Arg::NEW },
    ],
    handler: Some(evalsha_ro),
    ..Spec::NEW
};

pub(super) const FCALL: Spec = Spec {
    name: "fcall",
    arity: Arity::AtLeast(3),
    flags: Flags::MAY_REPLICATE
        .union(Flags::NO_MANDATORY_KEYS)
        .union(Flags::NOSCRIPT)
        .union(Flags::SKIP_MONITOR)
        .union(Flags::STALE),
    acl: Acl::SCRIPTING,
    group: Group::Scripting,
    since: "7.0.0",
    summary: "Calls a function.",
    complexity: "Depends on the function.",
    key_specs: &[KeySpec::counted(2, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::UPDATE))
        .noted("We cannot tell how the keys will be used so we assume the worst, RW and UPDATE")],
    args: &[
        Arg { name: "function", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "numkeys", kind: ArgKind::Integer, ..Arg::NEW },
        KEY,
        Arg { name: "arg", kind: ArgKind::String, optional: true, multiple: true, ..Arg::NEW },
    ],
    handler: Some(fcall),
    ..Spec::NEW
};

pub(super) const FCALL_RO: Spec = Spec {
    name: "fcall_ro",
    arity: Arity::AtLeast(3),
    flags: Flags::NO_MANDATORY_KEYS
        .union(Flags::NOSCRIPT)
        .union(Flags::READONLY)
        .union(Flags::SKIP_MONITOR)
        .union(Flags::STALE),
    acl: Acl::SCRIPTING,
    group: Group::Scripting,
    since: "7.0.0",
    summary: "Calls a function that only reads.",
    complexity: "Depends on the function.",
    key_specs: &[KeySpec::counted(2, KeyFlags::RO.union(KeyFlags::ACCESS))
        .noted("We cannot tell how the keys will be used so we assume the worst, RO and ACCESS")],
    args: &[
        Arg { name: "function", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "numkeys", kind: ArgKind::Integer, ..Arg::NEW },
        KEY,
        Arg { name: "arg", kind: ArgKind::String, optional: true, multiple: true, ..Arg::NEW },
    ],
    handler: Some(fcall_ro),
    ..Spec::NEW
};

const NO_SCRIPT: CommandError = CommandError::text("NOSCRIPT No matching script.");

fn eval(cx: &mut Cx) -> Outcome {
    run_script(cx, false, false)
}

fn eval_ro(cx: &mut Cx) -> Outcome {
    run_script(cx, false, true)
}

fn evalsha(cx: &mut Cx) -> Outcome {
    run_script(cx, true, false)
}

fn evalsha_ro(cx: &mut Cx) -> Outcome {
    run_script(cx, true, true)
}

/// Arguments that a client sent.
type Words<'a> = &'a [&'a [u8]];

/// The number of keys behind position 2, and the arguments split there.
fn split<'a>(cx: &Cx<'a, '_>, numkeys: i64) -> Result<(Words<'a>, Words<'a>), CommandError> {
    let rest = cx.args.get(3..).unwrap_or_default();
    let count =
        usize::try_from(numkeys).map_err(|_| CommandError::text("ERR Number of keys can't be negative"))?;
    rest.split_at_checked(count)
        .ok_or(CommandError::text("ERR Number of keys can't be greater than number of args"))
}

fn run_script(cx: &mut Cx, by_sha: bool, read_only: bool) -> Outcome {
    crate::told::show_script(cx);
    let numkeys = cx.int(2)?;
    let (keys, args) = split(cx, numkeys)?;
    let (machines, shared) = (cx.machines, cx.shared);
    let cache = &shared.scripts.cache;
    let vm = machines.vm(Kind::Eval, cx.config)?;
    let compiled = if by_sha {
        let sha = parse_sha(cx.arg(1)).ok_or(NO_SCRIPT)?;
        machines.by_sha(&vm, cache, &sha)?.ok_or(NO_SCRIPT)?
    } else {
        let (compiled, evicted) = machines.by_body(&vm, cache, cx.arg(1))?;
        cx.stats.evicted_scripts.add(evicted);
        compiled
    };
    cache.touch(&compiled.script);
    let script = &*compiled.script;
    let call = Call {
        flags: script.flags,
        read_only,
        needs_all: &script.needs_all,
        what: Running::Script,
        name: &script.sha,
    };
    run(cx, call, |host, reply| vm.eval(&compiled.chunk, keys, args, host, reply), || vm.stopped_at())
}

fn fcall(cx: &mut Cx) -> Outcome {
    call_function(cx, false)
}

fn fcall_ro(cx: &mut Cx) -> Outcome {
    call_function(cx, true)
}

fn call_function(cx: &mut Cx, read_only: bool) -> Outcome {
    crate::told::show_script(cx);
    let (machines, shared) = (cx.machines, cx.shared);
    let set = shared.scripts.libraries.now();
    machines.keep_only(&set);
    let (library, function) = set.function(cx.arg(1)).ok_or(CommandError::text("ERR Function not found"))?;
    let numkeys = cx.int(2).map_err(|_| CommandError::text("ERR Bad number of keys provided"))?;
    let (keys, args) = split(cx, numkeys)?;
    let vm = machines.vm(Kind::Functions, cx.config)?;
    let chunk = match machines.function(&vm, library, &function.name) {
        Ok(Some(chunk)) => chunk,
        Ok(None) => return Err(CommandError::text("ERR Function not found")),
        Err(LoadError::Failed(failure)) => return Err(CommandError::Bytes(failure.text)),
        Err(LoadError::Aborted) => {
            return Err(CommandError::text("ERR The function's library can't be loaded"));
        }
    };
    let call = Call {
        flags: function.flags,
        read_only,
        needs_all: &library.needs_all,
        what: Running::Function,
        name: &function.name,
    };
    run(cx, call, |host, reply| vm.call(&chunk, keys, args, host, reply), || vm.stopped_at())
}

/// The flags of a running command that its script or function states for itself; `None`: those of its spec hold.
pub(crate) fn stated_flags(
    cx: &crate::shared::Shared,
    full_name: &str,
    args: &[&[u8]],
) -> Option<ScriptFlags> {
    let named = args.get(1)?;
    let flags = match full_name {
        "eval" | "eval_ro" => crate::scripting::shebang::script(named).ok()?.0,
        "evalsha" | "evalsha_ro" => cx.scripts.cache.get(&parse_sha(named)?)?.flags,
        "fcall" | "fcall_ro" => cx.scripts.libraries.now().function(named)?.1.flags,
        _ => return None,
    };
    Some(flags).filter(|flags| !flags.contains(ScriptFlags::UNSTATED))
}

/// The flags that count for a command's admission: a script with a first line states its own.
pub(crate) fn flags_of(
    cx: &crate::shared::Shared,
    command: crate::registry::Command,
    args: &[&[u8]],
) -> Flags {
    let mut flags = command.spec.flags;
    if let Some(stated) = stated_flags(cx, command.full_name, args) {
        let reads = stated.contains(ScriptFlags::NO_WRITES);
        flags.set(Flags::WRITE, !reads);
        flags.set(Flags::DENYOOM, !reads && !stated.contains(ScriptFlags::ALLOW_OOM));
        flags.set(Flags::STALE, stated.contains(ScriptFlags::ALLOW_STALE));
    }
    flags
}
