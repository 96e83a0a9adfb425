//! Counting in fields.

use super::super::prelude::*;
use super::super::shared::{KEY, ONE_COUNT};
use super::fields::journal_command;
use super::{config, field_now_ms, fields_expired, note_volatile};
use kara_base::long_double::LongDouble;
use kara_keyspace::value::hash::{Hash, SetExpiry};

pub(super) const HINCRBY: Spec = Spec {
    name: "hincrby",
    arity: Arity::Exactly(4),
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    acl: Acl::HASH,
    group: Group::Hash,
    since: "2.0.0",
    summary: "Adds an integer to the value of a field, which counts as 0 if it is missing.",
    complexity: "O(1)",
    key_specs: ONE_COUNT,
    args: &[
        KEY,
        Arg { name: "field", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "increment", kind: ArgKind::Integer, ..Arg::NEW },
    ],
    handler: Some(hincrby),
    ..Spec::NEW
};

fn hincrby(cx: &mut Cx) -> Outcome {
    let by = cx.int(3)?;
    let (key, field) = (cx.arg(1), cx.arg(2));
    let now = field_now_ms(cx);
    let old = match current(cx, key, field, now)? {
        None => 0,
        Some((text, _)) => {
            parse_int(&text).map_err(|_| CommandError::text("ERR hash value is not an integer"))?
        }
    };
    let sum = old.checked_add(by).ok_or(CommandError::text("ERR increment or decrement would overflow"))?;
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(sum).as_bytes();
    let over_expired = store(cx, key, field, text, "hincrby")?;
    cx.reply.integer(sum);
    if over_expired {
        // Elsewhere the expired field may still be seen: its value is not to be added.
        return Ok(Effect::rewrite(cx.journal_on(), || {
            OwnedCommand::new("HSET").arg(key).arg(field).arg(text)
        }));
    }
    Ok(Effect::Verbatim)
}

pub(super) const HINCRBYFLOAT: Spec = Spec {
    name: "hincrbyfloat",
    arity: Arity::Exactly(4),
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    acl: Acl::HASH,
    group: Group::Hash,
    since: "2.6.0",
    summary: "Adds a floating point number to the value of a field, which counts as 0 if it is missing.",
    complexity: "O(1)",
    key_specs: ONE_COUNT,
    args: &[
        KEY,
        Arg { name: "field", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "increment", kind: ArgKind::Double, ..Arg::NEW },
    ],
    handler: Some(hincrbyfloat),
    ..Spec::NEW
};

fn hincrbyfloat(cx: &mut Cx) -> Outcome {
    let by = LongDouble::parse(cx.arg(3)).ok_or(CommandError::NotFloat)?;
    if !by.is_finite() {
        return Err(CommandError::text("ERR value is NaN or Infinity"));
    }
    let (key, field) = (cx.arg(1), cx.arg(2));
    let now = field_now_ms(cx);
    let (old, expiry) = match current(cx, key, field, now)? {
        None => (LongDouble::ZERO, None),
        Some((text, expiry)) => {
            (LongDouble::parse(&text).ok_or(CommandError::text("ERR hash value is not a float"))?, expiry)
        }
    };
    let sum = old + by;
    if !sum.is_finite() {
        return Err(CommandError::text("ERR increment would produce NaN or Infinity"));
    }
    let text = sum.to_text();
    store(cx, key, field, text.as_bytes(), "hincrbyfloat")?;
    cx.reply.bulk(text.as_bytes());
    // Sums of floats depend on the platform: the result is what replicas get.
    Ok(Effect::rewrite(cx.journal_on(), || match expiry {
        None => OwnedCommand::new("HSET").arg(key).arg(field).arg(text.as_bytes()),
        Some(at) => {
            let mut buffer = itoa::Buffer::new();
            let options = [&b"PXAT"[..], buffer.format(at).as_bytes()];
            journal_command("HSETEX", key, &options, 1, &[field, text.as_bytes()])
        }
    }))
}

/// A field's text and expiry.
type Current = Option<(Vec<u8>, Option<i64>)>;

fn current(cx: &mut Cx, key: &[u8], field: &[u8], now: i64) -> Result<Current, CommandError> {
    let hash = cx.keys.write_as::<Hash>(key)?;
    let pair = hash.as_deref().and_then(|hash| hash.get(field, now));
    Ok(pair.map(|pair| (pair.value.to_bytes(), pair.expiry_ms)))
}

/// Sets the field to its new value and keeps its expiry; whether it had been there, expired.
fn store(
    cx: &mut Cx,
    key: &[u8],
    field: &[u8],
    text: &[u8],
    event: &'static str,
) -> Result<bool, CommandError> {
    let (config, now) = (config(cx), field_now_ms(cx));
    let (hash, _) = cx.keys.write_or_create(key, Hash::new)?;
    let (before, volatile) = (hash.len(), hash.expiring() > 0);
    let over_expired = hash.set(field, text, SetExpiry::Keep, now, &config) && hash.len() == before;
    fields_expired(cx, key, usize::from(over_expired));
    note_volatile(cx, key, volatile);
    cx.keys.changed(key, Class::HASH, event);
    Ok(over_expired)
}
