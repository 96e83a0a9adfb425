//! Several string values at once: MGET, MSET and their relatives.

use super::values::{Accepts, Condition, parse_options, reply_str};
use crate::commands::prelude::*;
use kara_keyspace::ExpiryUpdate;

const DATA: Arg = Arg {
    name: "data",
    kind: ArgKind::Block,
    multiple: true,
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "value", kind: ArgKind::String, ..Arg::NEW },
    ],
    ..Arg::NEW
};

pub(super) const MGET: Spec = Spec {
    name: "mget",
    arity: Arity::AtLeast(2),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::STRING,
    group: Group::String,
    since: "1.0.0",
    summary: "Returns the string values of several keys.",
    complexity: "O(N) for N keys",
    tips: &["request_policy:multi_shard"],
    key_specs: &[KeySpec::keys(1, -1, KeyFlags::RO.union(KeyFlags::ACCESS))],
    args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), multiple: true, ..Arg::NEW }],
    handler: Some(mget),
    ..Spec::NEW
};

fn mget(cx: &mut Cx) -> Outcome {
    cx.reply.array(cx.args.len() - 1);
    for key in &cx.args[1..] {
        match cx.keys.read(key).and_then(|entry| entry.string()) {
            None => cx.reply.null(),
            Some(value) => reply_str(cx.reply, value),
        }
    }
    Ok(Effect::None)
}

/// Key and value pairs, in the order given.
fn pairs<'a>(words: &'a [&'a [u8]]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    words.chunks_exact(2).map(|pair| (pair[0], pair[1]))
}

fn set_pairs(cx: &mut Cx, words: &[&[u8]], expiry: ExpiryUpdate) {
    for (key, value) in pairs(words) {
        cx.keys.set_string(key, value, expiry);
        cx.keys.changed(key, Class::STRING, "set");
        if let ExpiryUpdate::At(_) = expiry {
            cx.keys.notify(Class::GENERIC, "expire", key);
        }
        cx.extra_changes += 1;
    }
    cx.extra_changes = cx.extra_changes.saturating_sub(1);
}

pub(super) const MSET: Spec = Spec {
    name: "mset",
    arity: Arity::AtLeast(3),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::STRING,
    group: Group::String,
    since: "1.0.1",
    summary: "Sets the string values of several keys.",
    complexity: "O(N) for N keys",
    tips: &["request_policy:multi_shard", "response_policy:all_succeeded"],
    key_specs: &[KeySpec {
        notes: "",
        flags: KeyFlags::OW.union(KeyFlags::UPDATE),
        begin: Begin::Index(1),
        find: Find::Range { last: -1, step: 2, limit: 0 },
    }],
    args: &[DATA],
    handler: Some(mset),
    ..Spec::NEW
};

fn mset(cx: &mut Cx) -> Outcome {
    if cx.args.len().is_multiple_of(2) {
        return Err(cx.arity_error());
    }
    set_pairs(cx, &cx.args[1..], ExpiryUpdate::Clear);
    cx.reply.ok();
    Ok(Effect::Verbatim)
}

pub(super) const MSETNX: Spec = Spec {
    name: "msetnx",
    arity: Arity::AtLeast(3),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::STRING,
    group: Group::String,
    since: "1.0.1",
    summary: "Sets the string values of several keys, if none of them exists.",
    complexity: "O(N) for N keys",
    key_specs: &[KeySpec {
        notes: "",
        flags: KeyFlags::OW.union(KeyFlags::INSERT),
        begin: Begin::Index(1),
        find: Find::Range { last: -1, step: 2, limit: 0 },
    }],
    args: &[DATA],
    handler: Some(msetnx),
    ..Spec::NEW
};

fn msetnx(cx: &mut Cx) -> Outcome {
    if cx.args.len().is_multiple_of(2) {
        return Err(cx.arity_error());
    }
    let words = &cx.args[1..];
    let free = pairs(words).all(|(key, _)| !cx.keys.exists(key));
    if free {
        set_pairs(cx, words, ExpiryUpdate::Clear);
    }
    cx.reply.integer(i64::from(free));
    Ok(Effect::verbatim_if(free))
}

pub(super) const MSETEX: Spec = Spec {
    name: "msetex",
    arity: Arity::AtLeast(4),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::STRING,
    group: Group::String,
    since: "9.1.0",
    summary: "Sets the string values of several keys, with a condition and an expiry for all of them.",
    complexity: "O(N) for N keys",
    tips: &["request_policy:multi_shard", "response_policy:all_succeeded"],
    key_specs: &[KeySpec {
        notes: "",
        flags: KeyFlags::OW.union(KeyFlags::UPDATE),
        begin: Begin::Index(1),
        find: Find::KeyNum { num_index: 0, first: 1, step: 2 },
    }],
    args: &[
        Arg { name: "numkeys", kind: ArgKind::Integer, ..Arg::NEW },
        DATA,
        Arg {
            name: "condition",
            kind: ArgKind::Oneof,
            optional: true,
            args: &[Arg::word("nx", "NX"), Arg::word("xx", "XX")],
            ..Arg::NEW
        },
        Arg {
            name: "expiration",
            kind: ArgKind::Oneof,
            optional: true,
            args: &[
                Arg { name: "seconds", kind: ArgKind::Integer, token: Some("EX"), ..Arg::NEW },
                Arg { name: "milliseconds", kind: ArgKind::Integer, token: Some("PX"), ..Arg::NEW },
                Arg { name: "unix-time-seconds", kind: ArgKind::UnixTime, token: Some("EXAT"), ..Arg::NEW },
                Arg {
                    name: "unix-time-milliseconds",
                    kind: ArgKind::UnixTime,
                    token: Some("PXAT"),
                    ..Arg::NEW
                },
                Arg::word("keepttl", "KEEPTTL"),
            ],
            ..Arg::NEW
        },
    ],
    handler: Some(msetex),
    ..Spec::NEW
};

fn msetex(cx: &mut Cx) -> Outcome {
    let bad_count = CommandError::text("ERR invalid numkeys value or out of range");
    let count = parse_int(cx.arg(1))
        .ok()
        .and_then(|n| usize::try_from(n).ok())
        .filter(|n| *n > 0 && *n <= i32::MAX as usize)
        .ok_or(bad_count)?;
    let words_end = count.checked_mul(2).and_then(|n| n.checked_add(2)).filter(|end| *end <= cx.args.len());
    let words_end = words_end.ok_or(CommandError::Syntax)?;
    let words = &cx.args[2..words_end];
    let options = parse_options(&cx.args[words_end..], Accepts::MSetEx)?;
    let expiry = options.expiry_update(cx, "msetex")?;
    let wanted = match options.condition {
        Condition::Missing => pairs(words).all(|(key, _)| !cx.keys.exists(key)),
        Condition::Present => pairs(words).all(|(key, _)| cx.keys.exists(key)),
        _ => true,
    };
    if !wanted {
        cx.reply.integer(0);
        return Ok(Effect::None);
    }
    if expiry == ExpiryUpdate::Keep {
        // Those that have passed are none to be kept.
        pairs(words).for_each(|(key, _)| {
            cx.keys.exists(key);
        });
    }
    set_pairs(cx, words, expiry);
    cx.reply.integer(1);
    if options.is_absolute() {
        return Ok(Effect::Verbatim);
    }
    Ok(Effect::rewrite(cx.journal_on(), || {
        let mut command = OwnedCommand::new("MSETEX").arg(cx.args[1]);
        words.iter().for_each(|word| command.push(word));
        match expiry {
            ExpiryUpdate::Clear => command,
            ExpiryUpdate::Keep => command.arg(b"KEEPTTL"),
            ExpiryUpdate::At(at_ms) => command.arg(b"PXAT").arg_i64(at_ms),
        }
    }))
}
