//! Setting and removing fields.

use super::super::prelude::*;
use super::super::shared::{
    KEY, ONE_INSERT, ONE_REMOVE, ONE_TAKE, ONE_UPDATE, as_i64, removed, reply_element,
};
use super::fields::{Expiry, FIELDS, Options, after_options, directly, journal_command, journal_removal};
use super::{config, delete_if_empty, expires_at_once, field_now_ms, fields_expired, note_volatile};
use kara_keyspace::Kind;
use kara_keyspace::value::hash::{Hash, SetExpiry};
use smallvec::SmallVec;

/// Fields and values by turns, as pairs.
fn pairs<'a>(words: &'a [&'a [u8]]) -> impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone {
    words.chunks_exact(2).map(|pair| (pair[0], pair[1]))
}

pub(super) const HSET: Spec = Spec {
    name: "hset",
    arity: Arity::AtLeast(4),
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    acl: Acl::HASH,
    group: Group::Hash,
    since: "2.0.0",
    summary: "Sets fields of a hash, which is created if it is missing.",
    complexity: "O(1) for each field.",
    key_specs: ONE_UPDATE,
    args: &[KEY, Arg::FIELDS],
    handler: Some(hset),
    ..Spec::NEW
};

fn hset(cx: &mut Cx) -> Outcome {
    let new = set_fields(cx)?;
    cx.reply.integer(as_i64(new));
    Ok(Effect::Verbatim)
}

pub(super) const HMSET: Spec = Spec {
    name: "hmset",
    arity: Arity::AtLeast(4),
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    acl: Acl::HASH,
    group: Group::Hash,
    since: "2.0.0",
    summary: "Sets fields of a hash.",
    complexity: "O(N), N being the number of fields to set.",
    key_specs: ONE_UPDATE,
    args: &[KEY, Arg::FIELDS],
    handler: Some(hmset),
    ..Spec::NEW
};

fn hmset(cx: &mut Cx) -> Outcome {
    set_fields(cx)?;
    cx.reply.ok();
    Ok(Effect::Verbatim)
}

/// Sets all fields of the arguments; how many are new.
fn set_fields(cx: &mut Cx) -> Result<usize, CommandError> {
    let words = cx.args.get(2..).unwrap_or_default();
    if words.len() % 2 != 0 {
        return Err(cx.arity_error());
    }
    let (config, now) = (config(cx), field_now_ms(cx));
    let key = cx.arg(1);
    let (hash, _) = cx.keys.write_or_create(key, Hash::new)?;
    hash.expect(pairs(words), &config);
    let (before, volatile) = (hash.len(), hash.expiring() > 0);
    let new =
        pairs(words).filter(|(field, value)| hash.set(field, value, SetExpiry::Clear, now, &config)).count();
    let over_expired = new - (hash.len() - before);
    fields_expired(cx, key, over_expired);
    note_volatile(cx, key, volatile);
    cx.keys.changed(key, Class::HASH, "hset");
    cx.extra_changes += (words.len() / 2) as u64 - 1;
    Ok(new)
}

pub(super) const HSETNX: Spec = Spec {
    name: "hsetnx",
    arity: Arity::Exactly(4),
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    acl: Acl::HASH,
    group: Group::Hash,
    since: "2.0.0",
    summary: "Sets a field of a hash unless it is there.",
    complexity: "O(1)",
    key_specs: ONE_INSERT,
    args: &[
        KEY,
        Arg { name: "field", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "value", kind: ArgKind::String, ..Arg::NEW },
    ],
    handler: Some(hsetnx),
    ..Spec::NEW
};

fn hsetnx(cx: &mut Cx) -> Outcome {
    let (config, now) = (config(cx), field_now_ms(cx));
    let (key, field, value) = (cx.arg(1), cx.arg(2), cx.arg(3));
    let (hash, _) = cx.keys.write_or_create(key, Hash::new)?;
    if hash.contains(field, now) {
        cx.reply.integer(0);
        return Ok(Effect::None);
    }
    hash.expect([(field, value)].into_iter(), &config);
    let (before, volatile) = (hash.len(), hash.expiring() > 0);
    hash.set(field, value, SetExpiry::Clear, now, &config);
    let over_expired = hash.len() == before;
    fields_expired(cx, key, usize::from(over_expired));
    note_volatile(cx, key, volatile);
    cx.reply.integer(1);
    cx.keys.changed(key, Class::HASH, "hset");
    if over_expired {
        // Elsewhere the expired field may still be seen: set it in any case.
        return Ok(Effect::rewrite(cx.journal_on(), || {
            OwnedCommand::new("HSET").arg(key).arg(field).arg(value)
        }));
    }
    Ok(Effect::Verbatim)
}

pub(super) const HDEL: Spec = Spec {
    name: "hdel",
    arity: Arity::AtLeast(3),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::HASH,
    group: Group::Hash,
    since: "2.0.0",
    summary: "Removes fields from a hash, and the hash with the last of them.",
    complexity: "O(N), N being the number of fields to remove.",
    key_specs: ONE_REMOVE,
    args: &[KEY, Arg { name: "field", kind: ArgKind::String, multiple: true, ..Arg::NEW }],
    handler: Some(hdel),
    ..Spec::NEW
};

fn hdel(cx: &mut Cx) -> Outcome {
    let now = field_now_ms(cx);
    let key = cx.arg(1);
    let (mut gone, mut empty, mut volatile) = (0, false, false);
    if let Some(hash) = cx.keys.write_as::<Hash>(key)? {
        volatile = hash.expiring() > 0;
        for field in cx.args.iter().skip(2) {
            gone += usize::from(hash.remove(field, now));
            if hash.is_empty() {
                empty = true;
                break;
            }
        }
    }
    cx.reply.integer(as_i64(gone));
    if gone > 0 {
        note_volatile(cx, key, volatile);
        removed(cx, key, Class::HASH, "hdel", empty, gone);
    }
    Ok(Effect::verbatim_if(gone > 0))
}

pub(super) const HGETDEL: Spec = Spec {
    name: "hgetdel",
    arity: Arity::AtLeast(5),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::HASH,
    group: Group::Hash,
    since: "9.1.0",
    summary: "Returns the values of fields and removes the fields.",
    complexity: "O(N), N being the number of fields named.",
    key_specs: ONE_TAKE,
    args: &[KEY, FIELDS],
    handler: Some(hgetdel),
    ..Spec::NEW
};

fn hgetdel(cx: &mut Cx) -> Outcome {
    let now = field_now_ms(cx);
    let key = cx.arg(1);
    let fields = directly(cx.args, None)?;
    let (mut gone, mut empty) = (0, false);
    let mut hash = cx.keys.write_as::<Hash>(key)?;
    let volatile = hash.as_deref().is_some_and(|hash| hash.expiring() > 0);
    cx.reply.array(fields.len());
    for field in fields {
        let found = hash.as_deref().and_then(|hash| hash.get(field, now));
        match found {
            Some(pair) => reply_element(cx.reply, pair.value),
            None => cx.reply.null(),
        }
        if found.is_some()
            && let Some(hash) = &mut hash
        {
            gone += usize::from(hash.remove(field, now));
            empty = hash.is_empty();
        }
    }
    if gone > 0 {
        note_volatile(cx, key, volatile);
        removed(cx, key, Class::HASH, "hdel", empty, gone);
    }
    Ok(Effect::verbatim_if(gone > 0))
}

pub(super) const HSETEX: Spec = Spec {
    name: "hsetex",
    arity: Arity::AtLeast(6),
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    acl: Acl::HASH,
    group: Group::Hash,
    since: "9.0.0",
    summary: "Sets fields of a hash with conditions and an expiry.",
    complexity: "O(N), N being the number of fields to set.",
    key_specs: ONE_INSERT,
    args: &[
        KEY,
        Arg {
            name: "key-condition",
            kind: ArgKind::Oneof,
            optional: true,
            args: &[Arg::word("nx", "NX"), Arg::word("xx", "XX")],
            ..Arg::NEW
        },
        Arg {
            name: "fields-condition",
            kind: ArgKind::Oneof,
            optional: true,
            args: &[Arg::word("fnx", "FNX"), Arg::word("fxx", "FXX")],
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
        Arg {
            name: "fields",
            kind: ArgKind::Block,
            token: Some("FIELDS"),
            args: &[
                Arg { name: "numfields", kind: ArgKind::Integer, key_spec: Some(0), ..Arg::NEW },
                Arg::FIELDS,
            ],
            ..Arg::NEW
        },
    ],
    handler: Some(hsetex),
    ..Spec::NEW
};

fn hsetex(cx: &mut Cx) -> Outcome {
    let key = cx.arg(1);
    let (options, words) = after_options(cx.args, 2, 2, |options| Options::parse(options, true))?;
    let there = cx.keys.check_kind(key, Kind::Hash)?;
    if options.key_there.is_some_and(|wanted| wanted != there) {
        cx.reply.integer(0);
        return Ok(Effect::None);
    }
    let expiry = match options.expiry {
        Expiry::At(time) => SetExpiry::At(time.to_ms(cx)?),
        Expiry::Keep => SetExpiry::Keep,
        Expiry::Unsaid | Expiry::Remove => SetExpiry::Clear,
    };
    if !fields_allow(cx, options.fields_there, words)? {
        cx.reply.integer(0);
        return Ok(Effect::None);
    }
    cx.reply.integer(1);
    match expiry {
        SetExpiry::At(at) if expires_at_once(cx, at) => set_in_the_past(cx, words),
        _ => set_with_expiry(cx, words, expiry),
    }
}

/// Whether FNX or FXX lets the command go on.
fn fields_allow(cx: &mut Cx, wanted: Option<bool>, words: &[&[u8]]) -> Result<bool, CommandError> {
    let Some(wanted) = wanted else { return Ok(true) };
    let now = field_now_ms(cx);
    let hash = cx.keys.write_as::<Hash>(cx.arg(1))?;
    Ok(pairs(words).all(|(field, _)| hash.as_deref().is_some_and(|hash| hash.contains(field, now)) == wanted))
}

fn set_with_expiry(cx: &mut Cx, words: &[&[u8]], expiry: SetExpiry) -> Outcome {
    let (config, now) = (config(cx), field_now_ms(cx));
    let key = cx.arg(1);
    let (hash, _) = cx.keys.write_or_create(key, Hash::new)?;
    hash.expect(pairs(words), &config);
    let volatile = hash.expiring() > 0 || matches!(expiry, SetExpiry::At(_));
    let mut over_expired: SmallVec<[&[u8]; 4]> = SmallVec::new();
    for (field, value) in pairs(words) {
        let before = hash.len();
        if hash.set(field, value, expiry, now, &config) && hash.len() == before {
            over_expired.push(field);
        }
    }
    fields_expired(cx, key, over_expired.len());
    note_volatile(cx, key, volatile);
    cx.keys.changed(key, Class::HASH, "hset");
    if matches!(expiry, SetExpiry::At(_)) {
        cx.keys.notify(Class::HASH, "hexpire", key);
    }
    cx.extra_changes += (words.len() / 2) as u64 - 1;
    Ok(Effect::rewrite_many(cx.journal_on(), || {
        let mut commands = SmallVec::new();
        // Elsewhere KEEPTTL would find the expired field and keep its time.
        if expiry == SetExpiry::Keep && !over_expired.is_empty() {
            commands.push(journal_removal(key, &over_expired));
        }
        let mut buffer = itoa::Buffer::new();
        let options: SmallVec<[&[u8]; 2]> = match expiry {
            SetExpiry::At(at) => SmallVec::from_slice(&[&b"PXAT"[..], buffer.format(at).as_bytes()]),
            SetExpiry::Keep => SmallVec::from_slice(&[&b"KEEPTTL"[..]]),
            SetExpiry::Clear => SmallVec::new(),
        };
        commands.push(journal_command("HSETEX", key, &options, words.len() / 2, words));
        commands
    }))
}

/// Fields whose expiry lies in the past are removed instead of set. The events are those of a set all the same.
fn set_in_the_past(cx: &mut Cx, words: &[&[u8]]) -> Outcome {
    let key = cx.arg(1);
    let mut gone: SmallVec<[&[u8]; 4]> = SmallVec::new();
    let mut empty = true;
    if let Some(hash) = cx.keys.write_as::<Hash>(key)? {
        // Expired fields that nobody removed yet go as well.
        gone.extend(pairs(words).map(|(field, _)| field).filter(|field| hash.remove(field, i64::MIN)));
        empty = hash.is_empty();
    } else {
        cx.keys.notify(Class::NEW, "new", key);
    }
    note_volatile(cx, key, true);
    cx.keys.notify(Class::HASH, "hset", key);
    cx.keys.notify(Class::HASH, "hexpire", key);
    fields_expired(cx, key, words.len() / 2);
    delete_if_empty(cx, key, empty);
    if gone.is_empty() {
        return Ok(Effect::None);
    }
    cx.keys.touched(key);
    cx.extra_changes += gone.len() as u64 - 1;
    Ok(Effect::rewrite(cx.journal_on(), || journal_removal(key, &gone)))
}
