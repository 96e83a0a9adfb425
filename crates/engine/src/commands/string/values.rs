//! GET, SET and their relatives: whole values with conditions and expiries, one key at a time.

use crate::commands::generic::expiry::{expire_at_once, is_past};
use crate::commands::prelude::*;
use crate::keys::Keys;
use kara_keyspace::{ExpiryUpdate, StrRef};

/// Writes a string value as a bulk reply.
#[inline]
pub(crate) fn reply_str(reply: &mut kara_resp::Writer, value: StrRef<'_>) {
    match value {
        StrRef::Int(n) => reply.bulk_i64(n),
        StrRef::Bytes(bytes) => reply.bulk(bytes),
    }
}

/// Answers the value of a key as GET does. `false`: there is none.
fn reply_value(cx: &mut Cx, key: &[u8]) -> Result<bool, CommandError> {
    match cx.keys.read_str(key)? {
        None => {
            cx.reply.null();
            Ok(false)
        }
        Some(value) => {
            reply_str(cx.reply, value);
            Ok(true)
        }
    }
}

/// How a time was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeUnit {
    Seconds,
    Milliseconds,
    UnixSeconds,
    UnixMilliseconds,
}

impl TimeUnit {
    /// `EX`, `PX`, `EXAT` or `PXAT`, in any case.
    pub(crate) fn from_option(word: &[u8]) -> Option<Self> {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        match word.len() {
            2 if is("EX") => Some(TimeUnit::Seconds),
            2 if is("PX") => Some(TimeUnit::Milliseconds),
            4 if is("EXAT") => Some(TimeUnit::UnixSeconds),
            4 if is("PXAT") => Some(TimeUnit::UnixMilliseconds),
            _ => None,
        }
    }

    /// The Unix time in ms that a positive value of this unit means.
    pub(crate) fn resolve(self, value: i64, now_ms: i64, command: &'static str) -> Result<i64, CommandError> {
        let invalid = || CommandError::InvalidExpire(command.into());
        if value <= 0 {
            return Err(invalid());
        }
        let ms = match self {
            TimeUnit::Seconds | TimeUnit::UnixSeconds => value.checked_mul(1000).ok_or_else(invalid)?,
            TimeUnit::Milliseconds | TimeUnit::UnixMilliseconds => value,
        };
        match self {
            TimeUnit::Seconds | TimeUnit::Milliseconds => ms.checked_add(now_ms).ok_or_else(invalid),
            TimeUnit::UnixSeconds | TimeUnit::UnixMilliseconds => Ok(ms),
        }
    }
}

/// When SET writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition<'a> {
    Always,
    Missing,
    Present,
    Equals(&'a [u8]),
}

/// The options of SET, GETEX and MSETEX.
#[derive(Debug)]
pub(super) struct Options<'a> {
    pub(super) condition: Condition<'a>,
    get: bool,
    persist: bool,
    keep_ttl: bool,
    expiry: Option<(TimeUnit, &'a [u8])>,
}

/// Which options a command knows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepts {
    Set,
    GetEx,
    MSetEx,
}

pub(super) fn parse_options<'a>(words: &[&'a [u8]], accepts: Accepts) -> Result<Options<'a>, CommandError> {
    let mut options =
        Options { condition: Condition::Always, get: false, persist: false, keep_ttl: false, expiry: None };
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        // The same option again is let through (IFEQ apart), another one of its kind isn't.
        let unless = |other: Condition| options.condition == Condition::Always || options.condition == other;
        let writes = accepts != Accepts::GetEx;
        if writes && unless(Condition::Missing) && is("NX") {
            options.condition = Condition::Missing;
        } else if writes && unless(Condition::Present) && is("XX") {
            options.condition = Condition::Present;
        } else if accepts == Accepts::Set && options.condition == Condition::Always && is("IFEQ") {
            options.condition = Condition::Equals(words.next().ok_or(CommandError::Syntax)?);
        } else if accepts == Accepts::Set && is("GET") {
            options.get = true;
        } else if writes && options.expiry.is_none() && is("KEEPTTL") {
            options.keep_ttl = true;
        } else if accepts == Accepts::GetEx && options.expiry.is_none() && is("PERSIST") {
            options.persist = true;
        } else if let Some(unit) = TimeUnit::from_option(word).filter(|unit| options.may_expire(*unit)) {
            options.expiry = Some((unit, words.next().ok_or(CommandError::Syntax)?));
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Ok(options)
}

impl Options<'_> {
    /// Whether an expiry of this unit fits what was given so far.
    fn may_expire(&self, unit: TimeUnit) -> bool {
        !self.keep_ttl && !self.persist && self.expiry.is_none_or(|(known, _)| known == unit)
    }

    /// Whether the options mean the same whenever they are read.
    pub(super) fn is_absolute(&self) -> bool {
        self.expiry.is_none_or(|(unit, _)| unit == TimeUnit::UnixMilliseconds)
    }

    pub(super) fn expiry_update(&self, cx: &Cx, command: &'static str) -> Result<ExpiryUpdate, CommandError> {
        match self.expiry {
            Some((unit, value)) => unit.resolve(parse_int(value)?, cx.now_ms, command).map(ExpiryUpdate::At),
            None if self.keep_ttl => Ok(ExpiryUpdate::Keep),
            None => Ok(ExpiryUpdate::Clear),
        }
    }
}

pub(super) const GET: Spec = Spec {
    name: "get",
    arity: Arity::Exactly(2),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::STRING,
    group: Group::String,
    since: "1.0.0",
    summary: "Returns the string value of a key.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(1, KeyFlags::RO.union(KeyFlags::ACCESS))],
    args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW }],
    handler: Some(get),
    ..Spec::NEW
};

fn get(cx: &mut Cx) -> Outcome {
    reply_value(cx, cx.arg(1))?;
    Ok(Effect::None)
}

pub(super) const SET: Spec = Spec {
    name: "set",
    arity: Arity::AtLeast(3),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::STRING,
    group: Group::String,
    since: "1.0.0",
    summary: "Sets the string value of a key; conditions, expiry and the old value on demand.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(
        1,
        KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::UPDATE).union(KeyFlags::VARIABLE_FLAGS),
    )
    .noted("RW and ACCESS due to the optional `GET` argument")],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "value", kind: ArgKind::String, ..Arg::NEW },
        Arg {
            name: "condition",
            kind: ArgKind::Oneof,
            optional: true,
            args: &[
                Arg::word("nx", "NX").since("2.6.12"),
                Arg::word("xx", "XX").since("2.6.12"),
                Arg {
                    name: "comparison-value",
                    kind: ArgKind::String,
                    token: Some("IFEQ"),
                    since: "8.1.0",
                    ..Arg::NEW
                },
            ],
            ..Arg::NEW
        },
        Arg::word("get", "GET").since("6.2.0").optional(),
        Arg {
            name: "expiration",
            kind: ArgKind::Oneof,
            optional: true,
            args: &[
                Arg {
                    name: "seconds",
                    kind: ArgKind::Integer,
                    token: Some("EX"),
                    since: "2.6.12",
                    ..Arg::NEW
                },
                Arg {
                    name: "milliseconds",
                    kind: ArgKind::Integer,
                    token: Some("PX"),
                    since: "2.6.12",
                    ..Arg::NEW
                },
                Arg {
                    name: "unix-time-seconds",
                    kind: ArgKind::UnixTime,
                    token: Some("EXAT"),
                    since: "6.2.0",
                    ..Arg::NEW
                },
                Arg {
                    name: "unix-time-milliseconds",
                    kind: ArgKind::UnixTime,
                    token: Some("PXAT"),
                    since: "6.2.0",
                    ..Arg::NEW
                },
                Arg::word("keepttl", "KEEPTTL").since("6.0.0"),
            ],
            ..Arg::NEW
        },
    ],
    handler: Some(set),
    ..Spec::NEW
};

fn set(cx: &mut Cx) -> Outcome {
    let (key, value) = (cx.arg(1), cx.arg(2));
    if cx.args.len() == 3 {
        cx.keys.set_string(key, value, ExpiryUpdate::Clear);
        cx.keys.changed(key, Class::STRING, "set");
        cx.reply.ok();
        return Ok(Effect::Verbatim);
    }
    let options = parse_options(&cx.args[3..], Accepts::Set)?;
    let expiry = options.expiry_update(cx, "set")?;
    if options.get {
        reply_value(cx, key)?;
    }
    if !condition_holds(cx, key, options.condition)? {
        if !options.get {
            cx.reply.null();
        }
        return Ok(Effect::None);
    }
    if !options.get {
        cx.reply.ok();
    }
    if let ExpiryUpdate::At(at_ms) = expiry
        && is_past(cx, at_ms)
    {
        return Ok(expire_at_once(cx, key));
    }
    if expiry == ExpiryUpdate::Keep {
        // One that has passed is none to be kept.
        cx.keys.exists(key);
    }
    cx.keys.set_string(key, value, expiry);
    cx.keys.changed(key, Class::STRING, "set");
    if let ExpiryUpdate::At(_) = expiry {
        cx.keys.notify(Class::GENERIC, "expire", key);
    }
    if !options.get && options.is_absolute() {
        return Ok(Effect::Verbatim);
    }
    Ok(set_effect(cx, key, value, expiry))
}

fn condition_holds(cx: &mut Cx, key: &[u8], condition: Condition) -> Result<bool, CommandError> {
    Ok(match condition {
        Condition::Always => true,
        Condition::Missing => !cx.keys.exists(key),
        Condition::Present => cx.keys.exists(key),
        Condition::Equals(expected) => match cx.keys.peek(key) {
            None => false,
            Some(entry) => {
                let value = entry.string().ok_or(CommandError::WrongType)?;
                value.to_cow().as_ref() == expected
            }
        },
    })
}

/// What replicas execute: the value with its absolute expiry, whatever the conditions were.
fn set_effect(cx: &Cx, key: &[u8], value: &[u8], expiry: ExpiryUpdate) -> Effect {
    Effect::rewrite(cx.journal_on(), || {
        let command = OwnedCommand::new("SET").arg(key).arg(value);
        match expiry {
            ExpiryUpdate::Clear => command,
            ExpiryUpdate::Keep => command.arg(b"KEEPTTL"),
            ExpiryUpdate::At(at_ms) => command.arg(b"PXAT").arg_i64(at_ms),
        }
    })
}

pub(super) const SETNX: Spec = Spec {
    name: "setnx",
    arity: Arity::Exactly(3),
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    acl: Acl::STRING,
    group: Group::String,
    since: "1.0.0",
    summary: "Sets the string value of a key that doesn't exist yet.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(1, KeyFlags::OW.union(KeyFlags::INSERT))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "value", kind: ArgKind::String, ..Arg::NEW },
    ],
    handler: Some(setnx),
    ..Spec::NEW
};

fn setnx(cx: &mut Cx) -> Outcome {
    let (key, value) = (cx.arg(1), cx.arg(2));
    let missing = !cx.keys.exists(key);
    if missing {
        cx.keys.set_string(key, value, ExpiryUpdate::Clear);
        cx.keys.changed(key, Class::STRING, "set");
    }
    cx.reply.integer(i64::from(missing));
    Ok(Effect::verbatim_if(missing))
}

pub(super) const SETEX: Spec = Spec {
    name: "setex",
    arity: Arity::Exactly(4),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::STRING,
    group: Group::String,
    since: "2.0.0",
    summary: "Sets the string value of a key with an expiry in seconds.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(1, KeyFlags::OW.union(KeyFlags::UPDATE))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "seconds", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "value", kind: ArgKind::String, ..Arg::NEW },
    ],
    handler: Some(setex),
    ..Spec::NEW
};

fn setex(cx: &mut Cx) -> Outcome {
    set_with_ttl(cx, TimeUnit::Seconds, "setex")
}

pub(super) const PSETEX: Spec = Spec {
    name: "psetex",
    arity: Arity::Exactly(4),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::STRING,
    group: Group::String,
    since: "2.6.0",
    summary: "Sets the string value of a key with an expiry in milliseconds.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(1, KeyFlags::OW.union(KeyFlags::UPDATE))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "milliseconds", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "value", kind: ArgKind::String, ..Arg::NEW },
    ],
    handler: Some(psetex),
    ..Spec::NEW
};

fn psetex(cx: &mut Cx) -> Outcome {
    set_with_ttl(cx, TimeUnit::Milliseconds, "psetex")
}

fn set_with_ttl(cx: &mut Cx, unit: TimeUnit, command: &'static str) -> Outcome {
    let (key, value) = (cx.arg(1), cx.arg(3));
    let expiry = ExpiryUpdate::At(unit.resolve(cx.int(2)?, cx.now_ms, command)?);
    cx.keys.set_string(key, value, expiry);
    cx.keys.changed(key, Class::STRING, "set");
    cx.keys.notify(Class::GENERIC, "expire", key);
    cx.reply.ok();
    Ok(set_effect(cx, key, value, expiry))
}

pub(super) const GETSET: Spec = Spec {
    name: "getset",
    arity: Arity::Exactly(3),
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    acl: Acl::STRING,
    group: Group::String,
    since: "1.0.0",
    summary: "Sets a key's string value and returns the one before.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::UPDATE))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "value", kind: ArgKind::String, ..Arg::NEW },
    ],
    handler: Some(getset),
    ..Spec::NEW
};

fn getset(cx: &mut Cx) -> Outcome {
    let (key, value) = (cx.arg(1), cx.arg(2));
    reply_value(cx, key)?;
    cx.keys.set_string(key, value, ExpiryUpdate::Clear);
    cx.keys.changed(key, Class::STRING, "set");
    Ok(set_effect(cx, key, value, ExpiryUpdate::Clear))
}

pub(super) const GETDEL: Spec = Spec {
    name: "getdel",
    arity: Arity::Exactly(2),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::STRING,
    group: Group::String,
    since: "6.2.0",
    summary: "Returns a key's string value and deletes the key.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE))],
    args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW }],
    handler: Some(getdel),
    ..Spec::NEW
};

fn getdel(cx: &mut Cx) -> Outcome {
    let key = cx.arg(1);
    let found = reply_value(cx, key)?;
    if found {
        cx.keys.delete(key);
        cx.keys.changed(key, Class::GENERIC, "del");
    }
    if !found {
        return Ok(Effect::None);
    }
    Ok(Effect::rewrite(cx.journal_on(), || OwnedCommand::new("DEL").arg(key)))
}

pub(super) const GETEX: Spec = Spec {
    name: "getex",
    arity: Arity::AtLeast(2),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::STRING,
    group: Group::String,
    since: "6.2.0",
    summary: "Returns a key's string value and sets or clears its expiry.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::UPDATE))
        .noted("RW and UPDATE because it changes the TTL")],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
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
                Arg::word("persist", "PERSIST"),
            ],
            ..Arg::NEW
        },
    ],
    handler: Some(getex),
    ..Spec::NEW
};

fn getex(cx: &mut Cx) -> Outcome {
    let key = cx.arg(1);
    let options = parse_options(cx.args.get(2..).unwrap_or_default(), Accepts::GetEx)?;
    let expiry = options.expiry_update(cx, "getex")?;
    if !reply_value(cx, key)? {
        return Ok(Effect::None);
    }
    match expiry {
        ExpiryUpdate::At(at_ms) if is_past(cx, at_ms) => Ok(expire_at_once(cx, key)),
        ExpiryUpdate::At(at_ms) => {
            cx.keys.set_expiry(key, Some(at_ms));
            cx.keys.changed(key, Class::GENERIC, "expire");
            Ok(Effect::rewrite(cx.journal_on(), || OwnedCommand::new("PEXPIREAT").arg(key).arg_i64(at_ms)))
        }
        _ if options.persist && cx.keys.expiry(key).is_some() => {
            cx.keys.set_expiry(key, None);
            cx.keys.changed(key, Class::GENERIC, "persist");
            Ok(Effect::rewrite(cx.journal_on(), || OwnedCommand::new("PERSIST").arg(key)))
        }
        _ => Ok(Effect::None),
    }
}

pub(super) const DELIFEQ: Spec = Spec {
    name: "delifeq",
    arity: Arity::Exactly(3),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::STRING,
    group: Group::String,
    since: "9.0.0",
    summary: "Deletes a key if its string value equals the given one.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(1, KeyFlags::RM.union(KeyFlags::DELETE))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "value", kind: ArgKind::String, ..Arg::NEW },
    ],
    handler: Some(delifeq),
    ..Spec::NEW
};

fn delifeq(cx: &mut Cx) -> Outcome {
    let key = cx.arg(1);
    let equal = match peek_string(&mut cx.keys, key)? {
        None => false,
        Some(value) => value.to_cow().as_ref() == cx.args[2],
    };
    if equal {
        cx.keys.delete(key);
        cx.keys.changed(key, Class::GENERIC, "del");
    }
    cx.reply.integer(i64::from(equal));
    if !equal {
        return Ok(Effect::None);
    }
    Ok(Effect::rewrite(cx.journal_on(), || OwnedCommand::new("DEL").arg(key)))
}

/// Looks at a string, or at nothing, without counting a hit or a miss.
pub(super) fn peek_string<'v>(keys: &'v mut Keys, key: &[u8]) -> Result<Option<StrRef<'v>>, CommandError> {
    match keys.peek(key) {
        None => Ok(None),
        Some(entry) => entry.string().map(Some).ok_or(CommandError::WrongType),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_times_that_overflow_are_invalid() {
        assert!(TimeUnit::Seconds.resolve(i64::MAX / 1000 + 1, 5, "set").is_err());
        assert!(TimeUnit::Milliseconds.resolve(i64::MAX, 5, "set").is_err());
        assert_eq!(TimeUnit::UnixSeconds.resolve(2, 5, "set"), Ok(2000));
        assert!(TimeUnit::Seconds.resolve(0, 5, "set").is_err());
    }
}
