//! COMMANDLOG and SLOWLOG: what `crate::commandlog` keeps.

use crate::commandlog::{LogEntry, LogKind};
use crate::commands::prelude::*;

const TYPE: Arg = Arg {
    name: "type",
    kind: ArgKind::Oneof,
    args: &[
        Arg::word("slow", "SLOW"),
        Arg::word("large-request", "LARGE-REQUEST"),
        Arg::word("large-reply", "LARGE-REPLY"),
    ],
    ..Arg::NEW
};

pub(super) const COMMANDLOG: Spec = Spec {
    name: "commandlog",
    arity: Arity::AtLeast(2),
    group: Group::Server,
    since: "8.1.0",
    summary: "A container for commands about the log of unusual commands.",
    complexity: "Depends on subcommand.",
    subcommands: &[
        Spec {
            name: "get",
            arity: Arity::Exactly(4),
            flags: Flags::ADMIN.union(Flags::LOADING).union(Flags::STALE),
            group: Group::Server,
            since: "8.1.0",
            summary: "Returns entries of one of the logs.",
            complexity: "O(N) for N entries returned",
            tips: &["request_policy:all_nodes", "nondeterministic_output"],
            args: &[Arg { name: "count", kind: ArgKind::Integer, ..Arg::NEW }, TYPE],
            handler: Some(commandlog_get),
            ..Spec::NEW
        },
        Spec {
            name: "help",
            arity: Arity::Exactly(2),
            flags: Flags::LOADING.union(Flags::STALE),
            group: Group::Server,
            since: "8.1.0",
            summary: "Explains the subcommands.",
            complexity: "O(1)",
            handler: Some(commandlog_help),
            ..Spec::NEW
        },
        Spec {
            name: "len",
            arity: Arity::Exactly(3),
            flags: Flags::ADMIN.union(Flags::LOADING).union(Flags::STALE),
            group: Group::Server,
            since: "8.1.0",
            summary: "Returns the number of entries of one of the logs.",
            complexity: "O(1)",
            tips: &["request_policy:all_nodes", "response_policy:agg_sum", "nondeterministic_output"],
            args: &[TYPE],
            handler: Some(commandlog_len),
            ..Spec::NEW
        },
        Spec {
            name: "reset",
            arity: Arity::Exactly(3),
            flags: Flags::ADMIN.union(Flags::LOADING).union(Flags::STALE),
            group: Group::Server,
            since: "8.1.0",
            summary: "Empties one of the logs.",
            complexity: "O(N) for N entries",
            tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
            args: &[TYPE],
            handler: Some(commandlog_reset),
            ..Spec::NEW
        },
    ],
    ..Spec::NEW
};

pub(super) const SLOWLOG: Spec = Spec {
    name: "slowlog",
    arity: Arity::AtLeast(2),
    group: Group::Server,
    since: "2.2.12",
    summary: "A container for commands about the log of slow commands.",
    complexity: "Depends on subcommand.",
    subcommands: &[
        Spec {
            name: "get",
            arity: Arity::AtLeast(2),
            flags: Flags::ADMIN.union(Flags::LOADING).union(Flags::STALE),
            group: Group::Server,
            since: "2.2.12",
            summary: "Returns entries of the slow log.",
            complexity: "O(N) for N entries returned",
            tips: &["request_policy:all_nodes", "nondeterministic_output"],
            args: &[Arg { name: "count", kind: ArgKind::Integer, optional: true, ..Arg::NEW }],
            handler: Some(slowlog_get),
            ..Spec::NEW
        },
        Spec {
            name: "help",
            arity: Arity::Exactly(2),
            flags: Flags::LOADING.union(Flags::STALE),
            group: Group::Server,
            since: "6.2.0",
            summary: "Explains the subcommands.",
            complexity: "O(1)",
            handler: Some(slowlog_help),
            ..Spec::NEW
        },
        Spec {
            name: "len",
            arity: Arity::Exactly(2),
            flags: Flags::ADMIN.union(Flags::LOADING).union(Flags::STALE),
            group: Group::Server,
            since: "2.2.12",
            summary: "Returns the number of entries of the slow log.",
            complexity: "O(1)",
            tips: &["request_policy:all_nodes", "response_policy:agg_sum", "nondeterministic_output"],
            handler: Some(slowlog_len),
            ..Spec::NEW
        },
        Spec {
            name: "reset",
            arity: Arity::Exactly(2),
            flags: Flags::ADMIN.union(Flags::LOADING).union(Flags::STALE),
            group: Group::Server,
            since: "2.2.12",
            summary: "Empties the slow log.",
            complexity: "O(N) for N entries",
            tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
            handler: Some(slowlog_reset),
            ..Spec::NEW
        },
    ],
    ..Spec::NEW
};

/// SLOWLOG GET without a count.
const DEFAULT_COUNT: usize = 10;

fn kind(word: &[u8]) -> Result<LogKind, CommandError> {
    let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    if is("slow") {
        Ok(LogKind::Slow)
    } else if is("large-request") {
        Ok(LogKind::LargeRequest)
    } else if is("large-reply") {
        Ok(LogKind::LargeReply)
    } else {
        Err(CommandError::text("ERR type should be one of the following: slow, large-request, large-reply"))
    }
}

/// -1 means all.
fn count(word: &[u8]) -> Result<usize, CommandError> {
    match kara_base::number::parse_i64(word) {
        Some(-1) => Ok(usize::MAX),
        Some(count @ 0..) => Ok(usize::try_from(count).unwrap_or(usize::MAX)),
        _ => Err(CommandError::text("ERR count should be greater than or equal to -1")),
    }
}

fn reply_entries(cx: &mut Cx, kind: LogKind, count: usize) -> Outcome {
    let entries = cx.shared.observe.commandlog.newest(kind, count);
    cx.reply.array(entries.len());
    entries.iter().for_each(|entry| reply_entry(cx, entry));
    Ok(Effect::None)
}

fn reply_entry(cx: &mut Cx, entry: &LogEntry) {
    cx.reply.array(6);
    cx.reply.integer(entry.id as i64);
    cx.reply.integer(entry.at_s);
    cx.reply.integer(i64::try_from(entry.value).unwrap_or(i64::MAX));
    cx.reply.array(entry.args.len());
    entry.args.iter().for_each(|arg| cx.reply.bulk(arg));
    cx.reply.bulk(entry.client_addr.as_bytes());
    cx.reply.bulk(&entry.client_name);
}

fn commandlog_get(cx: &mut Cx) -> Outcome {
    let count = count(cx.arg(2))?;
    let kind = kind(cx.arg(3))?;
    reply_entries(cx, kind, count)
}

fn commandlog_len(cx: &mut Cx) -> Outcome {
    let kind = kind(cx.arg(2))?;
    cx.reply.integer(cx.shared.observe.commandlog.len(kind) as i64);
    Ok(Effect::None)
}

fn commandlog_reset(cx: &mut Cx) -> Outcome {
    cx.shared.observe.commandlog.reset(kind(cx.arg(2))?);
    cx.reply.ok();
    Ok(Effect::None)
}

fn commandlog_help(cx: &mut Cx) -> Outcome {
    cx.reply_help(&[
        "GET <count> <type>",
        "    Return top <count> entries of the specified <type> from the commandlog (-1 mean all).",
        "    Entries are made of:",
        "    id, timestamp,",
        "        time in microseconds for type of slow,",
        "        or size in bytes for type of large-request,",
        "        or size in bytes for type of large-reply",
        "    arguments array, client IP and port,",
        "    client name",
        "LEN <type>",
        "    Return the length of the specified type of commandlog.",
        "RESET <type>",
        "    Reset the specified type of commandlog.",
    ]);
    Ok(Effect::None)
}

fn slowlog_get(cx: &mut Cx) -> Outcome {
    let count = match cx.args {
        [_, _] => DEFAULT_COUNT,
        [_, _, word] => count(word)?,
        [_, name, ..] => {
            let name = name.get(..128).unwrap_or(name);
            return Err(CommandError::quoting(
                "ERR unknown subcommand or wrong number of arguments for '{}'. Try SLOWLOG HELP.",
                &[name],
            ));
        }
        _ => return Err(cx.arity_error()),
    };
    reply_entries(cx, LogKind::Slow, count)
}

fn slowlog_len(cx: &mut Cx) -> Outcome {
    cx.reply.integer(cx.shared.observe.commandlog.len(LogKind::Slow) as i64);
    Ok(Effect::None)
}

fn slowlog_reset(cx: &mut Cx) -> Outcome {
    cx.shared.observe.commandlog.reset(LogKind::Slow);
    cx.reply.ok();
    Ok(Effect::None)
}

fn slowlog_help(cx: &mut Cx) -> Outcome {
    cx.reply_help(&[
        "GET [<count>]",
        "    Return top <count> entries from the slowlog (default: 10, -1 mean all).",
        "    Entries are made of:",
        "    id, timestamp, time in microseconds, arguments array, client IP and port,",
        "    client name",
        "LEN",
        "    Return the length of the slowlog.",
        "RESET",
        "    Reset the slowlog.",
    ]);
    Ok(Effect::None)
}
