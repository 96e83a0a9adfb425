//! Whole keys: existence, types, deletion, renaming, copies, moves, and what OBJECT tells.

use crate::commands::prelude::*;
use kara_base::ids::DbIndex;
use kara_keyspace::value::hash::Hash;
use kara_keyspace::value::list::List;
use kara_keyspace::value::set::Set;
use kara_keyspace::value::zset::ZSet;
use kara_keyspace::{Entry, Kind, StringEncoding};

pub(super) const DEL: Spec = Spec {
    name: "del",
    arity: Arity::AtLeast(2),
    flags: Flags::WRITE,
    acl: Acl::KEYSPACE,
    group: Group::Generic,
    since: "1.0.0",
    summary: "Deletes keys.",
    complexity: "O(N) for N keys, plus the elements of large values",
    tips: &["request_policy:multi_shard", "response_policy:agg_sum"],
    key_specs: &[KeySpec::keys(1, -1, KeyFlags::RM.union(KeyFlags::DELETE))],
    args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), multiple: true, ..Arg::NEW }],
    handler: Some(del),
    ..Spec::NEW
};

fn del(cx: &mut Cx) -> Outcome {
    let lazy = cx.keys.policy.lazy_delete;
    delete_all(cx, lazy)
}

pub(super) const UNLINK: Spec = Spec {
    name: "unlink",
    arity: Arity::AtLeast(2),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::KEYSPACE,
    group: Group::Generic,
    since: "4.0.0",
    summary: "Deletes keys, freeing large values in the background.",
    complexity: "O(1) per key",
    tips: &["request_policy:multi_shard", "response_policy:agg_sum"],
    key_specs: &[KeySpec::keys(1, -1, KeyFlags::RM.union(KeyFlags::DELETE))],
    args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), multiple: true, ..Arg::NEW }],
    handler: Some(unlink),
    ..Spec::NEW
};

fn unlink(cx: &mut Cx) -> Outcome {
    delete_all(cx, true)
}

fn delete_all(cx: &mut Cx, lazy: bool) -> Outcome {
    let mut deleted = 0u64;
    for key in &cx.args[1..] {
        if cx.keys.delete_with(key, lazy) {
            cx.keys.changed(key, Class::GENERIC, "del");
            deleted += 1;
        }
    }
    cx.extra_changes = deleted.saturating_sub(1);
    cx.reply.integer(deleted as i64);
    Ok(Effect::verbatim_if(deleted > 0))
}

pub(super) const EXISTS: Spec = Spec {
    name: "exists",
    arity: Arity::AtLeast(2),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::KEYSPACE,
    group: Group::Generic,
    since: "1.0.0",
    summary: "Counts how many of the keys exist.",
    complexity: "O(N) for N keys",
    tips: &["request_policy:multi_shard", "response_policy:agg_sum"],
    key_specs: &[KeySpec::keys(1, -1, KeyFlags::RO)],
    args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), multiple: true, ..Arg::NEW }],
    handler: Some(exists),
    ..Spec::NEW
};

fn exists(cx: &mut Cx) -> Outcome {
    let touch = std::mem::replace(&mut cx.keys.policy.touch, false);
    let count = cx.args[1..].iter().filter(|key| cx.keys.read(key).is_some()).count();
    cx.keys.policy.touch = touch;
    cx.reply.integer(count as i64);
    Ok(Effect::None)
}

pub(super) const TOUCH: Spec = Spec {
    name: "touch",
    arity: Arity::AtLeast(2),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::KEYSPACE,
    group: Group::Generic,
    since: "3.2.1",
    summary: "Counts how many of the keys exist, as an access to each.",
    complexity: "O(N) for N keys",
    tips: &["request_policy:multi_shard", "response_policy:agg_sum"],
    key_specs: &[KeySpec::keys(1, -1, KeyFlags::RO)],
    args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), multiple: true, ..Arg::NEW }],
    handler: Some(touch),
    ..Spec::NEW
};

fn touch(cx: &mut Cx) -> Outcome {
    let count = cx.args[1..].iter().filter(|key| cx.keys.read(key).is_some()).count();
    cx.reply.integer(count as i64);
    Ok(Effect::None)
}

pub(super) const TYPE: Spec = Spec {
    name: "type",
    arity: Arity::Exactly(2),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::KEYSPACE,
    group: Group::Generic,
    since: "1.0.0",
    summary: "Returns the type of a key's value.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(1, KeyFlags::RO)],
    args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW }],
    handler: Some(type_),
    ..Spec::NEW
};

fn type_(cx: &mut Cx) -> Outcome {
    let touch = std::mem::replace(&mut cx.keys.policy.touch, false);
    let name = cx.keys.read(cx.args[1]).map_or("none", |entry| entry.kind().name());
    cx.keys.policy.touch = touch;
    cx.reply.simple(name);
    Ok(Effect::None)
}

/// RENAME and RENAMENX; what the reply is where the new name is taken or free.
fn rename_key(cx: &mut Cx, only_if_free: bool) -> Outcome {
    let (from, to) = (cx.arg(1), cx.arg(2));
    if !cx.keys.exists(from) {
        return Err(CommandError::NoSuchKey);
    }
    let taken = cx.keys.exists(to);
    if from == to || only_if_free && taken {
        if only_if_free {
            cx.reply.integer(0)
        } else {
            cx.reply.ok()
        }
        return Ok(Effect::None);
    }
    if taken {
        cx.keys.delete(to);
    }
    let (old, new) = (cx.keys.key(from), cx.keys.key(to));
    cx.keys.space.rename(cx.keys.db, &old, &new);
    cx.keys.notify(Class::NEW, "new", to);
    cx.keys.changed(from, Class::GENERIC, "rename_from");
    cx.keys.events.gone(cx.keys.db, from);
    cx.keys.changed(to, Class::GENERIC, "rename_to");
    cx.keys.ready(to);
    if only_if_free {
        cx.reply.integer(1)
    } else {
        cx.reply.ok()
    }
    Ok(Effect::Verbatim)
}

pub(super) const RENAME: Spec = Spec {
    name: "rename",
    arity: Arity::Exactly(3),
    flags: Flags::WRITE,
    acl: Acl::KEYSPACE,
    group: Group::Generic,
    since: "1.0.0",
    summary: "Renames a key, over what has the new name.",
    complexity: "O(1), plus the elements of an overwritten value",
    key_specs: &[
        KeySpec::key(1, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE)),
        KeySpec::key(2, KeyFlags::OW.union(KeyFlags::UPDATE)),
    ],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "newkey", kind: ArgKind::Key, key_spec: Some(1), ..Arg::NEW },
    ],
    handler: Some(rename),
    ..Spec::NEW
};

fn rename(cx: &mut Cx) -> Outcome {
    rename_key(cx, false)
}

pub(super) const RENAMENX: Spec = Spec {
    name: "renamenx",
    arity: Arity::Exactly(3),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::KEYSPACE,
    group: Group::Generic,
    since: "1.0.0",
    summary: "Renames a key, if the new name is free.",
    complexity: "O(1)",
    key_specs: &[
        KeySpec::key(1, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE)),
        KeySpec::key(2, KeyFlags::OW.union(KeyFlags::INSERT)),
    ],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "newkey", kind: ArgKind::Key, key_spec: Some(1), ..Arg::NEW },
    ],
    handler: Some(renamenx),
    ..Spec::NEW
};

fn renamenx(cx: &mut Cx) -> Outcome {
    rename_key(cx, true)
}

fn parse_db(cx: &Cx, word: &[u8]) -> Result<DbIndex, CommandError> {
    let number = parse_i32(word)?;
    u64::try_from(number)
        .ok()
        .and_then(|n| cx.shared.keyspace.db(n))
        .ok_or(CommandError::text("ERR DB index is out of range"))
}

fn same_objects() -> CommandError {
    CommandError::text("ERR source and destination objects are the same")
}

pub(super) const COPY: Spec = Spec {
    name: "copy",
    arity: Arity::AtLeast(3),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::KEYSPACE,
    group: Group::Generic,
    since: "6.2.0",
    summary: "Copies a key's value to another key or database.",
    complexity: "O(N) for the N elements of a collection",
    key_specs: &[
        KeySpec::key(1, KeyFlags::RO.union(KeyFlags::ACCESS)),
        KeySpec::key(2, KeyFlags::OW.union(KeyFlags::UPDATE)),
    ],
    args: &[
        Arg { name: "source", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "destination", kind: ArgKind::Key, key_spec: Some(1), ..Arg::NEW },
        Arg { name: "destination-db", kind: ArgKind::Integer, token: Some("DB"), optional: true, ..Arg::NEW },
        Arg::word("replace", "REPLACE").optional(),
    ],
    handler: Some(copy),
    ..Spec::NEW
};

fn copy(cx: &mut Cx) -> Outcome {
    let (from, to) = (cx.arg(1), cx.arg(2));
    let (mut db, mut replace) = (cx.keys.db, false);
    let mut words = cx.args[3..].iter();
    while let Some(word) = words.next() {
        if word.eq_ignore_ascii_case(b"REPLACE") {
            replace = true;
        } else if word.eq_ignore_ascii_case(b"DB") {
            db = parse_db(cx, words.next().ok_or(CommandError::Syntax)?)?;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    if from == to && db == cx.keys.db {
        return Err(same_objects());
    }
    let taken = cx.keys.peek_in(db, to).is_some();
    if cx.keys.read(from).is_none() || taken && !replace {
        cx.reply.integer(0);
        return Ok(Effect::None);
    }
    let (source, target) = (cx.keys.key(from), cx.keys.key(to));
    if taken && let Some(old) = cx.keys.space.remove(db, &target) {
        cx.keys.reclaim(old, cx.keys.policy.lazy_overwrite);
    }
    cx.keys.space.copy(cx.keys.db, &source, db, &target);
    let own = std::mem::replace(&mut cx.keys.db, db);
    cx.keys.notify(Class::NEW, "new", to);
    cx.keys.changed(to, Class::GENERIC, "copy_to");
    cx.keys.ready(to);
    cx.keys.db = own;
    cx.reply.integer(1);
    Ok(Effect::Verbatim)
}

pub(super) const MOVE: Spec = Spec {
    name: "move",
    arity: Arity::Exactly(3),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::KEYSPACE,
    group: Group::Generic,
    since: "1.0.0",
    summary: "Moves a key to another database.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::UPDATE))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "db", kind: ArgKind::Integer, ..Arg::NEW },
    ],
    handler: Some(move_),
    ..Spec::NEW
};

fn move_(cx: &mut Cx) -> Outcome {
    let key = cx.arg(1);
    let db = parse_db(cx, cx.arg(2))?;
    if db == cx.keys.db {
        return Err(same_objects());
    }
    if !cx.keys.exists(key) || cx.keys.peek_in(db, key).is_some() {
        cx.reply.integer(0);
        return Ok(Effect::None);
    }
    let hashed = cx.keys.key(key);
    cx.keys.space.move_to_db(cx.keys.db, db, &hashed);
    cx.keys.events.notify(db, Class::NEW, "new", key);
    cx.keys.changed(key, Class::GENERIC, "move_from");
    cx.keys.events.gone(cx.keys.db, key);
    let own = std::mem::replace(&mut cx.keys.db, db);
    cx.keys.changed(key, Class::GENERIC, "move_to");
    cx.keys.ready(key);
    cx.keys.db = own;
    cx.reply.integer(1);
    Ok(Effect::Verbatim)
}

pub(super) const OBJECT: Spec = Spec {
    name: "object",
    arity: Arity::AtLeast(2),
    group: Group::Generic,
    since: "2.2.3",
    summary: "Holds the commands that look into values.",
    complexity: "Depends on the subcommand.",
    subcommands: &[
        Spec {
            name: "encoding",
            arity: Arity::Exactly(3),
            flags: Flags::READONLY,
            acl: Acl::KEYSPACE,
            group: Group::Generic,
            since: "2.2.3",
            summary: "Tells how a value is stored.",
            complexity: "O(1)",
            tips: &["nondeterministic_output"],
            key_specs: &[KeySpec::key(2, KeyFlags::RO)],
            args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW }],
            handler: Some(object_encoding),
            ..Spec::NEW
        },
        Spec {
            name: "freq",
            arity: Arity::Exactly(3),
            flags: Flags::READONLY,
            acl: Acl::KEYSPACE,
            group: Group::Generic,
            since: "4.0.0",
            summary: "Returns how often a value was used, logarithmically.",
            complexity: "O(1)",
            tips: &["nondeterministic_output"],
            key_specs: &[KeySpec::key(2, KeyFlags::RO)],
            args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW }],
            handler: Some(object_freq),
            ..Spec::NEW
        },
        Spec {
            name: "help",
            arity: Arity::Exactly(2),
            flags: Flags::LOADING.union(Flags::STALE),
            acl: Acl::KEYSPACE,
            group: Group::Generic,
            since: "6.2.0",
            summary: "Explains the subcommands.",
            complexity: "O(1)",
            handler: Some(object_help),
            ..Spec::NEW
        },
        Spec {
            name: "idletime",
            arity: Arity::Exactly(3),
            flags: Flags::READONLY,
            acl: Acl::KEYSPACE,
            group: Group::Generic,
            since: "2.2.3",
            summary: "Returns for how many seconds a value was not used.",
            complexity: "O(1)",
            tips: &["nondeterministic_output"],
            key_specs: &[KeySpec::key(2, KeyFlags::RO)],
            args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW }],
            handler: Some(object_idletime),
            ..Spec::NEW
        },
        Spec {
            name: "refcount",
            arity: Arity::Exactly(3),
            flags: Flags::READONLY,
            acl: Acl::KEYSPACE,
            group: Group::Generic,
            since: "2.2.3",
            summary: "Returns how many references a value has.",
            complexity: "O(1)",
            tips: &["nondeterministic_output"],
            key_specs: &[KeySpec::key(2, KeyFlags::RO)],
            args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW }],
            handler: Some(object_refcount),
            ..Spec::NEW
        },
    ],
    ..Spec::NEW
};

/// Answers what `show` makes of the key, or null.
fn reply_object(cx: &mut Cx, show: impl FnOnce(&mut kara_resp::Writer, &Entry)) -> Outcome {
    match cx.keys.peek(cx.args[2]) {
        None => cx.reply.null(),
        Some(entry) => show(cx.reply, entry),
    }
    Ok(Effect::None)
}

fn object_encoding(cx: &mut Cx) -> Outcome {
    reply_object(cx, |reply, entry| reply.bulk(encoding_name(entry).as_bytes()))
}

/// The name that OBJECT ENCODING shows.
pub(crate) fn encoding_name(entry: &Entry) -> &'static str {
    match entry.kind() {
        Kind::String => match entry.string_encoding() {
            Some(StringEncoding::Int) => "int",
            Some(StringEncoding::Embstr) => "embstr",
            _ => "raw",
        },
        Kind::List => entry.get::<List>().map_or("", List::encoding_name),
        Kind::Set => entry.get::<Set>().map_or("", Set::encoding_name),
        Kind::ZSet => entry.get::<ZSet>().map_or("", ZSet::encoding_name),
        Kind::Hash => entry.get::<Hash>().map_or("", Hash::encoding_name),
        Kind::Stream => "stream",
    }
}

fn object_refcount(cx: &mut Cx) -> Outcome {
    reply_object(cx, |reply, _| reply.integer(1))
}

fn object_idletime(cx: &mut Cx) -> Outcome {
    if cx.keys.access.lfu.is_some() && cx.keys.exists(cx.arg(2)) {
        return Err(CommandError::text(
            "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between \
             policies at runtime LRU and LFU data will take some time to adjust.",
        ));
    }
    let access = cx.keys.access;
    reply_object(cx, |reply, entry| reply.integer(access.idle_s(entry.lru()) as i64))
}

fn object_freq(cx: &mut Cx) -> Outcome {
    if cx.keys.access.lfu.is_none() && cx.keys.exists(cx.arg(2)) {
        return Err(CommandError::text(
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when \
             switching between policies at runtime LRU and LFU data will take some time to adjust.",
        ));
    }
    let access = cx.keys.access;
    reply_object(cx, |reply, entry| reply.integer(i64::from(access.frequency(entry.lru()))))
}

fn object_help(cx: &mut Cx) -> Outcome {
    cx.reply_help(&[
        "ENCODING <key>",
        "    Return how the value of <key> is represented inside.",
        "FREQ <key>",
        "    Return the access frequency counter of <key>, which grows with the logarithm of the accesses.",
        "IDLETIME <key>",
        "    Return the seconds since the last access to <key>.",
        "REFCOUNT <key>",
        "    Return the number of references to the value of <key>: always 1.",
    ]);
    Ok(Effect::None)
}
