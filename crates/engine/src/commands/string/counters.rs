//! Counters in strings: INCR and its relatives.

use crate::commands::prelude::*;
use crate::commands::string::values::peek_string;
use kara_base::long_double::LongDouble;
use kara_keyspace::{ExpiryUpdate, StrValue};

/// Adds to the integer that a key holds; a missing key counts as 0. The expiry stays. The event is the same whether it
/// grows or shrinks.
fn add(cx: &mut Cx, delta: i64) -> Outcome {
    let key = cx.args[1];
    let new = cx.keys.add_int(key, delta)?;
    cx.keys.changed(key, Class::STRING, "incrby");
    cx.reply.integer(new);
    Ok(Effect::Verbatim)
}

pub(super) const INCR: Spec = Spec {
    name: "incr",
    arity: Arity::Exactly(2),
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    acl: Acl::STRING,
    group: Group::String,
    since: "1.0.0",
    summary: "Adds one to the integer of a key.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::UPDATE))],
    args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW }],
    handler: Some(incr),
    ..Spec::NEW
};

fn incr(cx: &mut Cx) -> Outcome {
    add(cx, 1)
}

pub(super) const DECR: Spec = Spec {
    name: "decr",
    arity: Arity::Exactly(2),
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    acl: Acl::STRING,
    group: Group::String,
    since: "1.0.0",
    summary: "Subtracts one from the integer of a key.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::UPDATE))],
    args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW }],
    handler: Some(decr),
    ..Spec::NEW
};

fn decr(cx: &mut Cx) -> Outcome {
    add(cx, -1)
}

pub(super) const INCRBY: Spec = Spec {
    name: "incrby",
    arity: Arity::Exactly(3),
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    acl: Acl::STRING,
    group: Group::String,
    since: "1.0.0",
    summary: "Adds to the integer of a key.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::UPDATE))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "increment", kind: ArgKind::Integer, ..Arg::NEW },
    ],
    handler: Some(incrby),
    ..Spec::NEW
};

fn incrby(cx: &mut Cx) -> Outcome {
    let delta = cx.int(2)?;
    add(cx, delta)
}

pub(super) const DECRBY: Spec = Spec {
    name: "decrby",
    arity: Arity::Exactly(3),
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    acl: Acl::STRING,
    group: Group::String,
    since: "1.0.0",
    summary: "Subtracts from the integer of a key.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::UPDATE))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "decrement", kind: ArgKind::Integer, ..Arg::NEW },
    ],
    handler: Some(decrby),
    ..Spec::NEW
};

fn decrby(cx: &mut Cx) -> Outcome {
    let delta = cx.int(2)?;
    let delta = delta.checked_neg().ok_or(CommandError::text("ERR decrement would overflow"))?;
    add(cx, delta)
}

pub(super) const INCRBYFLOAT: Spec = Spec {
    name: "incrbyfloat",
    arity: Arity::Exactly(3),
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    acl: Acl::STRING,
    group: Group::String,
    since: "2.6.0",
    summary: "Adds to the floating-point number of a key.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::UPDATE))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "increment", kind: ArgKind::Double, ..Arg::NEW },
    ],
    handler: Some(incrbyfloat),
    ..Spec::NEW
};

fn incrbyfloat(cx: &mut Cx) -> Outcome {
    let key = cx.arg(1);
    let old = match peek_string(&mut cx.keys, key)? {
        None => LongDouble::from_f64(0.0),
        Some(value) => LongDouble::parse(&value.to_cow()).ok_or(CommandError::NotFloat)?,
    };
    let delta = LongDouble::parse(cx.arg(2)).ok_or(CommandError::NotFloat)?;
    let new = old + delta;
    if !new.is_finite() {
        return Err(CommandError::text("ERR increment would produce NaN or Infinity"));
    }
    let text = new.to_text();
    // Never as an integer: the reference keeps the text.
    cx.keys.set_string_value(key, StrValue::Bytes(text.as_bytes()), ExpiryUpdate::Keep);
    cx.keys.changed(key, Class::STRING, "incrbyfloat");
    cx.reply.bulk(text.as_bytes());
    Ok(Effect::rewrite(cx.journal_on(), || {
        OwnedCommand::new("SET").arg(key).arg(text.as_bytes()).arg(b"KEEPTTL")
    }))
}
