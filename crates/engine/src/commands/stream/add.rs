//! XADD, XTRIM, XDEL, XSETID and XLEN: what changes the entries themselves.

use super::super::prelude::*;
use super::{args, reply_id};
use crate::session::Origin;
use kara_keyspace::value::stream::{BlockLimits, LogState, NewId, Stream, StreamId, Trim, TrimTo};
use smallvec::SmallVec;

/// What XADD's and XTRIM's options say.
struct Options {
    /// How to trim, and the position of its threshold.
    trim: Option<(Trim, usize)>,
    no_mkstream: bool,
    id: NewId,
    /// The position of the id, or behind the last option.
    end: usize,
}

/// Reads the options from position 2 on; for XADD, up to the id.
fn options(cx: &Cx, is_add: bool) -> Result<Options, CommandError> {
    let mut to = None;
    let mut threshold_at = 0;
    let mut approximate = false;
    let mut limit = None;
    let mut options = Options { trim: None, no_mkstream: false, id: NewId::Auto, end: 0 };
    let mut at = 2;
    while at < cx.args.len() {
        let more = cx.args.len() - 1 - at;
        if is_add && cx.args[at] == b"*" {
            break;
        } else if more > 0 && (cx.is_word(at, "maxlen") || cx.is_word(at, "minid")) {
            if to.is_some() {
                return Err(CommandError::text(
                    "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
                ));
            }
            let is_len = cx.is_word(at, "maxlen");
            approximate = more >= 2 && cx.args[at + 1] == b"~";
            at += if approximate || (more >= 2 && cx.args[at + 1] == b"=") { 2 } else { 1 };
            to = Some(if is_len {
                let keep = u64::try_from(cx.int(at)?)
                    .map_err(|_| CommandError::text("ERR The MAXLEN argument must be >= 0."))?;
                TrimTo::MaxLen(keep)
            } else {
                TrimTo::MinId(args::strict_id(cx.arg(at), 0)?)
            });
            threshold_at = at;
        } else if more > 0 && cx.is_word(at, "limit") {
            at += 1;
            let given = u64::try_from(cx.int(at)?)
                .map_err(|_| CommandError::text("ERR The LIMIT argument must be >= 0."))?;
            limit = Some(given);
        } else if is_add && cx.is_word(at, "nomkstream") {
            options.no_mkstream = true;
        } else if is_add {
            options.id = args::new_id(cx.args[at])?;
            break;
        } else {
            return Err(CommandError::Syntax);
        }
        at += 1;
    }
    options.end = at;

    if to.is_none() && limit.is_some_and(|limit| limit > 0) {
        return Err(CommandError::text(
            "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
        ));
    }
    if to.is_none() && !is_add {
        return Err(CommandError::text("ERR syntax error, XTRIM must be called with a trimming strategy"));
    }
    let limit = match limit {
        // The journal's thresholds are exact, whatever LIMIT still stands beside them.
        _ if matches!(cx.origin, Origin::Primary | Origin::AofLoad) => 0,
        Some(_) if !approximate => {
            return Err(CommandError::text(
                "ERR syntax error, LIMIT cannot be used without the special ~ option",
            ));
        }
        Some(limit) => limit,
        None if approximate => match cx.config.stream_node_max_entries.saturating_mul(100) {
            0 => 10_000,
            entries => entries.min(1_000_000),
        },
        None => 0,
    };
    options.trim = to.map(|to| (Trim { to, approximate, limit }, threshold_at));
    Ok(options)
}

/// The effect of a command that trimmed or made an id: where a replica, repeating it, might come to something else,
/// an approximate threshold becomes the exact one that was reached, and a made id stands in the text.
fn effect(
    journal_on: bool,
    args: &[&[u8]],
    trim: Option<(Trim, usize)>,
    stream: &Stream,
    made_id: Option<(usize, StreamId)>,
) -> Effect {
    let trim = trim.filter(|(trim, _)| trim.approximate);
    if trim.is_none() && made_id.is_none() {
        return Effect::Verbatim;
    }
    Effect::rewrite(journal_on, || {
        let mut command = OwnedCommand::default();
        for (at, arg) in args.iter().enumerate() {
            match (trim, made_id) {
                (_, Some((id_at, id))) if at == id_at => command.push(id.text().as_bytes()),
                (Some((_, threshold)), _) if at + 1 == threshold => command.push(b"="),
                (Some((trim, threshold)), _) if at == threshold => match trim.to {
                    TrimTo::MaxLen(_) => command.push(stream.len().to_string().as_bytes()),
                    // An empty stream has lost everything, whatever the ids.
                    TrimTo::MinId(_) if stream.is_empty() => command.push(StreamId::MAX.text().as_bytes()),
                    TrimTo::MinId(_) => command.push(stream.log().first_id().text().as_bytes()),
                },
                _ => command.push(arg),
            }
        }
        command
    })
}

const STRATEGY: Arg = Arg {
    name: "strategy",
    kind: ArgKind::Oneof,
    args: &[Arg::word("maxlen", "MAXLEN"), Arg::word("minid", "MINID").since("6.2.0")],
    ..Arg::NEW
};

pub(super) const XADD: Spec = Spec {
    name: "xadd",
    arity: Arity::AtLeast(5),
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    acl: Acl::STREAM,
    group: Group::Stream,
    since: "5.0.0",
    summary: "Appends an entry to a stream, creating the stream if there is none.",
    complexity: "O(1), and O(N) for N entries dropped by trimming.",
    tips: &["nondeterministic_output"],
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::UPDATE))
        .noted("UPDATE instead of INSERT because of the optional trimming feature")],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg::word("nomkstream", "NOMKSTREAM").since("6.2.0").optional(),
        Arg {
            name: "trim",
            kind: ArgKind::Block,
            optional: true,
            args: &[
                STRATEGY,
                Arg {
                    name: "operator",
                    kind: ArgKind::Oneof,
                    optional: true,
                    args: &[Arg::word("equal", "="), Arg::word("approximately", "~")],
                    ..Arg::NEW
                },
                Arg { name: "threshold", kind: ArgKind::String, ..Arg::NEW },
                Arg {
                    name: "count",
                    kind: ArgKind::Integer,
                    token: Some("LIMIT"),
                    since: "6.2.0",
                    optional: true,
                    ..Arg::NEW
                },
            ],
            ..Arg::NEW
        },
        Arg {
            name: "id-selector",
            kind: ArgKind::Oneof,
            args: &[Arg::word("auto-id", "*"), Arg { name: "id", kind: ArgKind::String, ..Arg::NEW }],
            ..Arg::NEW
        },
        Arg::FIELDS,
    ],
    handler: Some(xadd),
    ..Spec::NEW
};

fn xadd(cx: &mut Cx) -> Outcome {
    let options = options(cx, true)?;
    let pairs = cx.args.get(options.end + 1..).unwrap_or_default();
    if pairs.is_empty() || !pairs.len().is_multiple_of(2) {
        return Err(cx.arity_error());
    }
    if options.id == NewId::Exact(StreamId::MIN) {
        return Err(CommandError::text("ERR The ID specified in XADD must be greater than 0-0"));
    }
    let fields: SmallVec<[(&[u8], &[u8]); 8]> =
        pairs.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    let key = cx.arg(1);
    let limits = BlockLimits {
        max_bytes: usize::try_from(cx.config.stream_node_max_bytes).unwrap_or(usize::MAX),
        max_entries: cx.config.stream_node_max_entries,
    };
    if options.no_mkstream && cx.keys.write_as::<Stream>(key)?.is_none() {
        cx.reply.null();
        return Ok(Effect::None);
    }
    let (now_ms, journal_on) = (cx.now_ms.max(0) as u64, cx.journal_on());
    let (stream, created) = cx.keys.write_or_create(key, Stream::new)?;
    let id = match stream.add(options.id, &fields, now_ms, limits) {
        Ok(id) => id,
        Err(error) => {
            if created {
                cx.keys.delete(key);
            }
            return Err(CommandError::owned(format!("ERR {}", error.message())));
        }
    };
    let trimmed = options.trim.map_or(0, |(trim, _)| stream.trim(trim));
    let made = !matches!(options.id, NewId::Exact(_));
    let effect = effect(journal_on, cx.args, options.trim, stream, made.then_some((options.end, id)));
    reply_id(cx.reply, id);
    cx.keys.changed(key, Class::STREAM, "xadd");
    if trimmed > 0 {
        cx.keys.notify(Class::STREAM, "xtrim", key);
    }
    cx.keys.ready(key);
    Ok(effect)
}

pub(super) const XTRIM: Spec = Spec {
    name: "xtrim",
    arity: Arity::AtLeast(4),
    flags: Flags::WRITE,
    acl: Acl::STREAM,
    group: Group::Stream,
    since: "5.0.0",
    summary: "Drops the oldest entries of a stream.",
    complexity: "O(N) for N dropped entries, most of them in whole blocks.",
    tips: &["nondeterministic_output"],
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::DELETE))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg {
            name: "trim",
            kind: ArgKind::Block,
            args: &[
                STRATEGY,
                Arg {
                    name: "operator",
                    kind: ArgKind::Oneof,
                    optional: true,
                    args: &[Arg::word("equal", "="), Arg::word("approximately", "~")],
                    ..Arg::NEW
                },
                Arg { name: "threshold", kind: ArgKind::String, ..Arg::NEW },
                Arg {
                    name: "count",
                    kind: ArgKind::Integer,
                    token: Some("LIMIT"),
                    since: "6.2.0",
                    optional: true,
                    ..Arg::NEW
                },
            ],
            ..Arg::NEW
        },
    ],
    handler: Some(xtrim),
    ..Spec::NEW
};

fn xtrim(cx: &mut Cx) -> Outcome {
    let options = options(cx, false)?;
    let (key, journal_on) = (cx.arg(1), cx.journal_on());
    let (Some(stream), Some((trim, _))) = (cx.keys.write_as::<Stream>(key)?, options.trim) else {
        cx.reply.integer(0);
        return Ok(Effect::None);
    };
    let trimmed = stream.trim(trim);
    cx.reply.integer(trimmed as i64);
    if trimmed == 0 {
        return Ok(Effect::None);
    }
    let effect = effect(journal_on, cx.args, options.trim, stream, None);
    cx.keys.changed(key, Class::STREAM, "xtrim");
    cx.extra_changes += trimmed - 1;
    Ok(effect)
}

pub(super) const XDEL: Spec = Spec {
    name: "xdel",
    arity: Arity::AtLeast(3),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::STREAM,
    group: Group::Stream,
    since: "5.0.0",
    summary: "Deletes entries of a stream by their ids.",
    complexity: "O(1) for each id, whatever the length of the stream.",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::DELETE))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "id", kind: ArgKind::String, multiple: true, ..Arg::NEW },
    ],
    handler: Some(xdel),
    ..Spec::NEW
};

fn xdel(cx: &mut Cx) -> Outcome {
    let key = cx.arg(1);
    let Some(stream) = cx.keys.write_as::<Stream>(key)? else {
        cx.reply.integer(0);
        return Ok(Effect::None);
    };
    // All ids are checked before the first deletion.
    let ids = cx.args[2..].iter().map(|id| args::strict_id(id, 0)).collect::<Result<Vec<_>, _>>()?;
    let deleted = ids.into_iter().filter(|&id| stream.delete(id)).count() as u64;
    cx.reply.integer(deleted as i64);
    if deleted > 0 {
        cx.keys.changed(key, Class::STREAM, "xdel");
        cx.extra_changes += deleted - 1;
    }
    Ok(Effect::verbatim_if(deleted > 0))
}

pub(super) const XSETID: Spec = Spec {
    name: "xsetid",
    arity: Arity::AtLeast(3),
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    acl: Acl::STREAM,
    group: Group::Stream,
    since: "5.0.0",
    summary: "Sets the last id and the counters of a stream.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::UPDATE))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "last-id", kind: ArgKind::String, ..Arg::NEW },
        Arg {
            name: "entries-added",
            kind: ArgKind::Integer,
            token: Some("ENTRIESADDED"),
            since: "7.0.0",
            optional: true,
            ..Arg::NEW
        },
        Arg {
            name: "max-deleted-id",
            kind: ArgKind::String,
            token: Some("MAXDELETEDID"),
            since: "7.0.0",
            optional: true,
            ..Arg::NEW
        },
    ],
    handler: Some(xsetid),
    ..Spec::NEW
};

fn xsetid(cx: &mut Cx) -> Outcome {
    let last_id = args::strict_id(cx.arg(2), 0)?;
    let mut entries_added = None;
    let mut max_deleted_id = None;
    let mut at = 3;
    while at < cx.args.len() {
        if at + 1 == cx.args.len() {
            return Err(CommandError::Syntax);
        }
        if cx.is_word(at, "entriesadded") {
            let added = u64::try_from(cx.int(at + 1)?)
                .map_err(|_| CommandError::text("ERR entries_added must be positive"))?;
            entries_added = Some(added);
        } else if cx.is_word(at, "maxdeletedid") {
            let id = args::strict_id(cx.arg(at + 1), 0)?;
            if last_id < id {
                return Err(CommandError::text(
                    "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
                ));
            }
            max_deleted_id = Some(id).filter(|id| !id.is_zero());
        } else {
            return Err(CommandError::Syntax);
        }
        at += 2;
    }

    let key = cx.arg(1);
    let stream = cx.keys.write_as::<Stream>(key)?.ok_or(CommandError::NoSuchKey)?;
    let before = stream.log().state();
    if last_id < before.max_deleted_id {
        return Err(CommandError::text(
            "ERR The ID specified in XSETID is smaller than current max_deleted_entry_id",
        ));
    }
    if !stream.is_empty() {
        if last_id < stream.log().last_entry_id() {
            return Err(CommandError::text(
                "ERR The ID specified in XSETID is smaller than the target stream top item",
            ));
        }
        if entries_added.is_some_and(|added| added < stream.len()) {
            return Err(CommandError::text(
                "ERR The entries_added specified in XSETID is smaller than the target stream length",
            ));
        }
    }
    stream.set_state(LogState {
        last_id,
        max_deleted_id: max_deleted_id.unwrap_or(before.max_deleted_id),
        entries_added: entries_added.unwrap_or(before.entries_added),
    });
    cx.keys.notify(Class::STREAM, "xsetid", key);
    cx.reply.ok();
    Ok(Effect::Verbatim)
}

pub(super) const XLEN: Spec = Spec {
    name: "xlen",
    arity: Arity::Exactly(2),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::STREAM,
    group: Group::Stream,
    since: "5.0.0",
    summary: "Counts the entries of a stream.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(1, KeyFlags::RO)],
    args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW }],
    handler: Some(xlen),
    ..Spec::NEW
};

fn xlen(cx: &mut Cx) -> Outcome {
    let len = cx.keys.read_as::<Stream>(cx.arg(1))?.map_or(0, Stream::len);
    cx.reply.integer(len as i64);
    Ok(Effect::None)
}
