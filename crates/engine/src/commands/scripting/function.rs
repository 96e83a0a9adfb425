//! FUNCTION and its subcommands.

use crate::commands::prelude::*;
use crate::scripting::libraries::{Library, Set};
use crate::scripting::load;
use kara_base::crc64::crc64;
use kara_base::glob::{Case, matches};
use kara_persist::rdb::encode::{EncodeOptions, Encoder};
use kara_persist::rdb::opcodes;
use kara_persist::rdb::payload::Payload;
use kara_persist::rdb::source::{Bytes, Reader};
use std::sync::Arc;

pub(super) const FUNCTION: Spec = Spec {
    name: "function",
    arity: Arity::AtLeast(2),
    group: Group::Scripting,
    since: "7.0.0",
    summary: "A container for commands on functions.",
    complexity: "Depends on the subcommand.",
    subcommands: &[
        Spec {
            name: "delete",
            arity: Arity::Exactly(3),
            flags: Flags::NOSCRIPT.union(Flags::WRITE),
            acl: Acl::SCRIPTING,
            group: Group::Scripting,
            since: "7.0.0",
            summary: "Removes a library.",
            complexity: "O(1)",
            tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
            args: &[Arg { name: "library-name", kind: ArgKind::String, ..Arg::NEW }],
            locks: Locks::All,
            handler: Some(function_delete),
            ..Spec::NEW
        },
        Spec {
            name: "dump",
            arity: Arity::Exactly(2),
            flags: Flags::NOSCRIPT,
            acl: Acl::SCRIPTING,
            group: Group::Scripting,
            since: "7.0.0",
            summary: "All libraries as one payload.",
            complexity: "O(N) for N libraries",
            handler: Some(function_dump),
            ..Spec::NEW
        },
        Spec {
            name: "flush",
            arity: Arity::AtLeast(2),
            flags: Flags::NOSCRIPT.union(Flags::WRITE),
            acl: Acl::SCRIPTING,
            group: Group::Scripting,
            since: "7.0.0",
            summary: "Removes all libraries.",
            complexity: "O(N) for N libraries",
            tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
            args: &[Arg {
                name: "flush-type",
                kind: ArgKind::Oneof,
                optional: true,
                args: &[Arg::word("async", "ASYNC"), Arg::word("sync", "SYNC")],
                ..Arg::NEW
            }],
            locks: Locks::All,
            handler: Some(function_flush),
            ..Spec::NEW
        },
        Spec {
            name: "help",
            arity: Arity::Exactly(2),
            flags: Flags::LOADING.union(Flags::STALE),
            acl: Acl::SCRIPTING,
            group: Group::Scripting,
            since: "7.0.0",
            summary: "Describes the subcommands.",
            complexity: "O(1)",
            handler: Some(function_help),
            ..Spec::NEW
        },
        Spec {
            name: "kill",
            arity: Arity::Exactly(2),
            flags: Flags::ALLOW_BUSY.union(Flags::NOSCRIPT),
            acl: Acl::SCRIPTING,
            group: Group::Scripting,
            since: "7.0.0",
            summary: "Ends the running function.",
            complexity: "O(1)",
            tips: &["request_policy:all_shards", "response_policy:one_succeeded"],
            handler: Some(function_kill),
            ..Spec::NEW
        },
        Spec {
            name: "list",
            arity: Arity::AtLeast(2),
            flags: Flags::NOSCRIPT,
            acl: Acl::SCRIPTING,
            group: Group::Scripting,
            since: "7.0.0",
            summary: "Describes libraries.",
            complexity: "O(N) for N libraries",
            tips: &["nondeterministic_output_order"],
            args: &[
                Arg {
                    name: "library-name-pattern",
                    kind: ArgKind::String,
                    token: Some("LIBRARYNAME"),
                    optional: true,
                    ..Arg::NEW
                },
                Arg::word("withcode", "WITHCODE").optional(),
            ],
            handler: Some(function_list),
            ..Spec::NEW
        },
        Spec {
            name: "load",
            arity: Arity::AtLeast(3),
            flags: Flags::DENYOOM.union(Flags::NOSCRIPT).union(Flags::WRITE),
            acl: Acl::SCRIPTING,
            group: Group::Scripting,
            since: "7.0.0",
            summary: "Adds a library.",
            complexity: "O(N) for N bytes of the library",
            tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
            args: &[
                Arg::word("replace", "REPLACE").optional(),
                Arg { name: "function-code", kind: ArgKind::String, ..Arg::NEW },
            ],
            locks: Locks::All,
            handler: Some(function_load),
            ..Spec::NEW
        },
        Spec {
            name: "restore",
            arity: Arity::AtLeast(3),
            flags: Flags::DENYOOM.union(Flags::NOSCRIPT).union(Flags::WRITE),
            acl: Acl::SCRIPTING,
            group: Group::Scripting,
            since: "7.0.0",
            summary: "Adds the libraries of a payload.",
            complexity: "O(N) for N libraries in the payload",
            tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
            args: &[
                Arg { name: "serialized-value", kind: ArgKind::String, ..Arg::NEW },
                Arg {
                    name: "policy",
                    kind: ArgKind::Oneof,
                    optional: true,
                    args: &[
                        Arg::word("flush", "FLUSH"),
                        Arg::word("append", "APPEND"),
                        Arg::word("replace", "REPLACE"),
                    ],
                    ..Arg::NEW
                },
            ],
            locks: Locks::All,
            handler: Some(function_restore),
            ..Spec::NEW
        },
        Spec {
            name: "stats",
            arity: Arity::Exactly(2),
            flags: Flags::ALLOW_BUSY.union(Flags::NOSCRIPT),
            acl: Acl::SCRIPTING,
            group: Group::Scripting,
            since: "7.0.0",
            summary: "The running function and the engines.",
            complexity: "O(1)",
            tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
            handler: Some(function_stats),
            ..Spec::NEW
        },
    ],
    ..Spec::NEW
};

fn function_load(cx: &mut Cx) -> Outcome {
    let mut replace = false;
    let options = cx.args.get(2..cx.args.len() - 1).unwrap_or_default();
    for option in options {
        if !option.eq_ignore_ascii_case(b"REPLACE") {
            return Err(CommandError::quoting("ERR Unknown option given: {}", &[option]));
        }
        replace = true;
    }
    let code = cx.arg(cx.args.len() - 1);
    let (library, functions) = load::load(cx, code)?;
    cx.shared.scripts.libraries.change(|set| set.add(library.clone(), replace))?;
    cx.reply.bulk(&library.name);
    cx.machines.loaded(library, functions);
    Ok(Effect::Verbatim)
}

fn function_delete(cx: &mut Cx) -> Outcome {
    let name = cx.arg(2);
    let libraries = &cx.shared.scripts.libraries;
    libraries.change(|set| {
        if set.remove(name) { Ok(()) } else { Err(CommandError::text("ERR Library not found")) }
    })?;
    cx.machines.forget(name);
    cx.reply.ok();
    Ok(Effect::Verbatim)
}

fn function_flush(cx: &mut Cx) -> Outcome {
    if cx.args.len() > 3 {
        return Err(CommandError::text(
            "ERR unknown subcommand or wrong number of arguments for 'flush'. Try FUNCTION HELP.",
        ));
    }
    if cx.args.len() == 3 && !cx.is_word(2, "SYNC") && !cx.is_word(2, "ASYNC") {
        return Err(CommandError::text("ERR FUNCTION FLUSH only supports SYNC|ASYNC option"));
    }
    cx.shared.scripts.libraries.change(|set| {
        *set = Set::default();
        Ok(())
    })?;
    cx.machines.flush_functions();
    cx.reply.ok();
    Ok(Effect::Verbatim)
}

fn function_kill(cx: &mut Cx) -> Outcome {
    cx.shared.scripts.kill(crate::scripting::Running::Function)?;
    cx.reply.ok();
    Ok(Effect::None)
}

fn function_list(cx: &mut Cx) -> Outcome {
    let (mut pattern, mut with_code) = (None, false);
    let mut at = 2;
    while at < cx.args.len() {
        if cx.is_word(at, "WITHCODE") && !with_code {
            with_code = true;
        } else if cx.is_word(at, "LIBRARYNAME") && pattern.is_none() {
            at += 1;
            let given =
                cx.args.get(at).ok_or(CommandError::text("ERR library name argument was not given"))?;
            pattern = Some(*given);
        } else {
            return Err(CommandError::quoting("ERR Unknown argument {}", &[cx.arg(at)]));
        }
        at += 1;
    }
    let set = cx.shared.scripts.libraries.now();
    let wanted = |library: &&Arc<Library>| {
        pattern.is_none_or(|pattern| matches(pattern, &library.name, Case::Insensitive))
    };
    let mark = cx.reply.defer();
    let mut count = 0;
    for library in set.libraries.values().filter(wanted) {
        count += 1;
        describe(cx, library, with_code);
    }
    cx.reply.end_array(mark, count);
    Ok(Effect::None)
}

fn describe(cx: &mut Cx, library: &Library, with_code: bool) {
    let reply = &mut *cx.reply;
    reply.map(if with_code { 4 } else { 3 });
    reply.bulk(b"library_name");
    reply.bulk(&library.name);
    reply.bulk(b"engine");
    reply.bulk(b"LUA");
    reply.bulk(b"functions");
    reply.array(library.functions.len());
    for function in &library.functions {
        reply.map(3);
        reply.bulk(b"name");
        reply.bulk(&function.name);
        reply.bulk(b"description");
        reply.bulk_or_null(function.description.as_deref());
        reply.bulk(b"flags");
        reply.set(function.flags.names().count());
        function.flags.names().for_each(|name| reply.simple(name));
    }
    if with_code {
        reply.bulk(b"library_code");
        reply.bulk(&library.code);
    }
}

fn function_stats(cx: &mut Cx) -> Outcome {
    let set = cx.shared.scripts.libraries.now();
    let running = cx.shared.scripts.running_now();
    if running.as_ref().is_some_and(|running| running.what == crate::scripting::Running::Script) {
        return Err(cx.shared.scripts.busy_error());
    }
    let reply = &mut *cx.reply;
    reply.map(2);
    reply.bulk(b"running_script");
    match running {
        None => reply.null(),
        Some(running) => {
            reply.map(3);
            reply.bulk(b"name");
            reply.bulk(&running.name);
            reply.bulk(b"command");
            reply.array(running.command.len());
            running.command.iter().for_each(|word| reply.bulk(word));
            reply.bulk(b"duration_ms");
            reply.integer(running.since.elapsed().as_millis() as i64);
        }
    }
    reply.bulk(b"engines");
    reply.map(1);
    reply.bulk(b"LUA");
    reply.map(2);
    reply.bulk(b"libraries_count");
    reply.integer(set.libraries.len() as i64);
    reply.bulk(b"functions_count");
    reply.integer(set.functions_len() as i64);
    Ok(Effect::None)
}

fn function_dump(cx: &mut Cx) -> Outcome {
    let options = EncodeOptions { compress: cx.config.rdbcompression, ..EncodeOptions::default() };
    let version = options.version.number();
    let mut encoder = Encoder::new(options);
    for library in cx.shared.scripts.libraries.now().libraries.values() {
        encoder.u8(opcodes::FUNCTION2);
        encoder.string(&library.code);
    }
    let mut payload = encoder.out;
    payload.extend_from_slice(&version.to_le_bytes());
    let crc = crc64(0, &payload);
    payload.extend_from_slice(&crc.to_le_bytes());
    cx.reply.bulk(&payload);
    Ok(Effect::None)
}

/// What FUNCTION RESTORE does with the libraries that are there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Restore {
    Flush,
    Append,
    Replace,
}

fn function_restore(cx: &mut Cx) -> Outcome {
    if cx.args.len() > 4 {
        return Err(CommandError::text(
            "ERR unknown subcommand or wrong number of arguments for 'restore'. Try FUNCTION HELP.",
        ));
    }
    let policy = match cx.args.get(3) {
        None => Restore::Append,
        Some(_) if cx.is_word(3, "APPEND") => Restore::Append,
        Some(_) if cx.is_word(3, "REPLACE") => Restore::Replace,
        Some(_) if cx.is_word(3, "FLUSH") => Restore::Flush,
        Some(_) => {
            return Err(CommandError::text(
                "ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.",
            ));
        }
    };
    let payload = Payload::check(cx.arg(2), false, false)
        .ok_or(CommandError::text("ERR DUMP payload version or checksum are wrong"))?;
    let mut loaded = Vec::new();
    for code in codes(payload.body())? {
        loaded.push(load::load(cx, &code)?);
    }
    cx.shared.scripts.libraries.change(|set| {
        if policy == Restore::Flush {
            *set = Set::default();
        }
        loaded.iter().try_for_each(|(library, _)| {
            if policy != Restore::Replace && set.libraries.contains_key(&library.name) {
                return Err(CommandError::quoting("ERR Library {} already exists", &[&library.name]));
            }
            set.add(library.clone(), policy == Restore::Replace)
        })
    })?;
    for (library, functions) in loaded {
        cx.machines.loaded(library, functions);
    }
    cx.reply.ok();
    Ok(Effect::Verbatim)
}

/// The libraries' texts in a payload.
fn codes(body: &[u8]) -> Result<Vec<Vec<u8>>, CommandError> {
    let mut reader = Reader::new(Bytes::new(body));
    let mut codes = Vec::new();
    while !reader.source.rest().is_empty() {
        let kind = reader.u8();
        if !kind.is_ok_and(|kind| kind == opcodes::FUNCTION2) {
            return Err(CommandError::text("ERR given type is not a function"));
        }
        let code = reader.string_vec();
        codes.push(code.map_err(|_| CommandError::text("ERR Failed loading library data"))?);
    }
    Ok(codes)
}

fn function_help(cx: &mut Cx) -> Outcome {
    cx.reply_help(&[
        "LOAD [REPLACE] <FUNCTION CODE>",
        "    Add a library; its first line gives the name.",
        "DELETE <LIBRARY NAME>",
        "    Remove a library.",
        "LIST [LIBRARYNAME PATTERN] [WITHCODE]",
        "    Describe the libraries: name, engine, functions, with WITHCODE the code.",
        "STATS",
        "    The function that is running (name, command, duration in ms) and the engines.",
        "KILL",
        "    End the function that is running, unless it has written.",
        "FLUSH [ASYNC|SYNC]",
        "    Remove all libraries.",
        "DUMP",
        "    All libraries as one payload for RESTORE.",
        "RESTORE <PAYLOAD> [FLUSH|APPEND|REPLACE]",
        "    Add a payload's libraries: in the place of all, beside them (the default), or over those of the same name.",
    ]);
    Ok(Effect::None)
}
