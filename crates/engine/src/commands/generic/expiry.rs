//! Expiries of keys: EXPIRE and its relatives, TTL and its relatives, PERSIST.

use crate::commands::prelude::*;

const CONDITION: Arg = Arg {
    name: "condition",
    kind: ArgKind::Oneof,
    since: "7.0.0",
    optional: true,
    args: &[Arg::word("nx", "NX"), Arg::word("xx", "XX"), Arg::word("gt", "GT"), Arg::word("lt", "LT")],
    ..Arg::NEW
};

pub(super) const EXPIRE: Spec = Spec {
    name: "expire",
    arity: Arity::AtLeast(3),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::KEYSPACE,
    group: Group::Generic,
    since: "1.0.0",
    summary: "Sets a key's time to live in seconds.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::UPDATE))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "seconds", kind: ArgKind::Integer, ..Arg::NEW },
        CONDITION,
    ],
    handler: Some(expire),
    ..Spec::NEW
};

fn expire(cx: &mut Cx) -> Outcome {
    let now_ms = cx.now_ms;
    set_expiry(cx, "expire", 1000, now_ms)
}

pub(super) const PEXPIRE: Spec = Spec {
    name: "pexpire",
    arity: Arity::AtLeast(3),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::KEYSPACE,
    group: Group::Generic,
    since: "2.6.0",
    summary: "Sets a key's time to live in milliseconds.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::UPDATE))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "milliseconds", kind: ArgKind::Integer, ..Arg::NEW },
        CONDITION,
    ],
    handler: Some(pexpire),
    ..Spec::NEW
};

fn pexpire(cx: &mut Cx) -> Outcome {
    let now_ms = cx.now_ms;
    set_expiry(cx, "pexpire", 1, now_ms)
}

pub(super) const EXPIREAT: Spec = Spec {
    name: "expireat",
    arity: Arity::AtLeast(3),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::KEYSPACE,
    group: Group::Generic,
    since: "1.2.0",
    summary: "Sets a key's expiry as Unix time in seconds.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::UPDATE))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "unix-time-seconds", kind: ArgKind::UnixTime, ..Arg::NEW },
        CONDITION,
    ],
    handler: Some(expireat),
    ..Spec::NEW
};

fn expireat(cx: &mut Cx) -> Outcome {
    set_expiry(cx, "expireat", 1000, 0)
}

pub(super) const PEXPIREAT: Spec = Spec {
    name: "pexpireat",
    arity: Arity::AtLeast(3),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::KEYSPACE,
    group: Group::Generic,
    since: "2.6.0",
    summary: "Sets a key's expiry as Unix time in milliseconds.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::UPDATE))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "unix-time-milliseconds", kind: ArgKind::UnixTime, ..Arg::NEW },
        CONDITION,
    ],
    handler: Some(pexpireat),
    ..Spec::NEW
};

fn pexpireat(cx: &mut Cx) -> Outcome {
    set_expiry(cx, "pexpireat", 1, 0)
}

/// Under which condition an expiry is set; none is `Default`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ExpiryCondition {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl ExpiryCondition {
    /// Reads one option word; `false` where it is none.
    pub(crate) fn read(&mut self, word: &[u8]) -> bool {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        match () {
            () if is("NX") => self.nx = true,
            () if is("XX") => self.xx = true,
            () if is("GT") => self.gt = true,
            () if is("LT") => self.lt = true,
            () => return false,
        }
        true
    }

    /// Refuses combinations that contradict each other.
    pub(crate) fn check(&self) -> Result<(), CommandError> {
        if self.nx && (self.xx || self.gt || self.lt) {
            return Err(CommandError::text(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if self.gt && self.lt {
            return Err(CommandError::text("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(())
    }

    /// Whether `at_ms` may take the place of the current expiry. No expiry counts as endless.
    pub(crate) fn allows(&self, current: Option<i64>, at_ms: i64) -> bool {
        match current {
            None => !self.xx && !self.gt,
            Some(current) => !self.nx && (!self.gt || at_ms > current) && (!self.lt || at_ms < current),
        }
    }
}

/// Whether a key that is given this expiry is gone at once (on a primary).
pub(crate) fn is_past(cx: &Cx, at_ms: i64) -> bool {
    at_ms <= cx.now_ms && cx.keys.policy.delete_expired && !cx.keys.policy.see_expired
}

/// Removes a key that was given an expiry in the past, if it is there.
pub(crate) fn expire_at_once(cx: &mut Cx, key: &[u8]) -> Effect {
    let lazy = cx.keys.policy.lazy_expire;
    if !cx.keys.delete_with(key, lazy) {
        return Effect::None;
    }
    cx.stats.expired_keys.add(1);
    cx.keys.changed(key, Class::EXPIRED, "expired");
    let verb = if lazy { "UNLINK" } else { "DEL" };
    Effect::rewrite(cx.journal_on(), || OwnedCommand::new(verb).arg(key))
}

fn set_expiry(cx: &mut Cx, name: &'static str, unit_ms: i64, base_ms: i64) -> Outcome {
    let key = cx.arg(1);
    let mut condition = ExpiryCondition::default();
    for word in &cx.args[3..] {
        if !condition.read(word) {
            return Err(CommandError::quoting("ERR Unsupported option {}", &[word]));
        }
    }
    condition.check()?;
    let at_ms = cx
        .int(2)?
        .checked_mul(unit_ms)
        .and_then(|ms| ms.checked_add(base_ms))
        .ok_or(CommandError::InvalidExpire(name.into()))?;
    let Some(entry) = cx.keys.peek(key) else {
        cx.reply.integer(0);
        return Ok(Effect::None);
    };
    if !condition.allows(entry.expire_at_ms(), at_ms) {
        cx.reply.integer(0);
        return Ok(Effect::None);
    }
    cx.reply.integer(1);
    if is_past(cx, at_ms) {
        return Ok(expire_at_once(cx, key));
    }
    cx.keys.set_expiry(key, Some(at_ms));
    cx.keys.changed(key, Class::GENERIC, "expire");
    Ok(Effect::rewrite(cx.journal_on(), || OwnedCommand::new("PEXPIREAT").arg(key).arg_i64(at_ms)))
}

pub(super) const PERSIST: Spec = Spec {
    name: "persist",
    arity: Arity::Exactly(2),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::KEYSPACE,
    group: Group::Generic,
    since: "2.2.0",
    summary: "Takes away a key's expiry.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::UPDATE))],
    args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW }],
    handler: Some(persist),
    ..Spec::NEW
};

fn persist(cx: &mut Cx) -> Outcome {
    let key = cx.arg(1);
    let had = cx.keys.expiry(key).is_some();
    if had {
        cx.keys.set_expiry(key, None);
        cx.keys.changed(key, Class::GENERIC, "persist");
    }
    cx.reply.integer(i64::from(had));
    Ok(Effect::verbatim_if(had))
}

/// -2 without the key, -1 without an expiry, else what `show` makes of the expiry.
fn reply_expiry(cx: &mut Cx, show: impl FnOnce(i64, i64) -> i64) -> Outcome {
    let touch = std::mem::replace(&mut cx.keys.policy.touch, false);
    let expiry = cx.keys.read(cx.args[1]).map(|entry| entry.expire_at_ms());
    cx.keys.policy.touch = touch;
    cx.reply.integer(match expiry {
        None => -2,
        Some(None) => -1,
        Some(Some(at_ms)) => show(at_ms, cx.now_ms),
    });
    Ok(Effect::None)
}

fn rounded_s(ms: i64) -> i64 {
    ms.saturating_add(500) / 1000
}

pub(super) const TTL: Spec = Spec {
    name: "ttl",
    arity: Arity::Exactly(2),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::KEYSPACE,
    group: Group::Generic,
    since: "1.0.0",
    summary: "Returns a key's time to live in seconds.",
    complexity: "O(1)",
    tips: &["nondeterministic_output"],
    key_specs: &[KeySpec::key(1, KeyFlags::RO.union(KeyFlags::ACCESS))],
    args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW }],
    handler: Some(ttl),
    ..Spec::NEW
};

fn ttl(cx: &mut Cx) -> Outcome {
    reply_expiry(cx, |at_ms, now_ms| rounded_s((at_ms - now_ms).max(0)))
}

pub(super) const PTTL: Spec = Spec {
    name: "pttl",
    arity: Arity::Exactly(2),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::KEYSPACE,
    group: Group::Generic,
    since: "2.6.0",
    summary: "Returns a key's time to live in milliseconds.",
    complexity: "O(1)",
    tips: &["nondeterministic_output"],
    key_specs: &[KeySpec::key(1, KeyFlags::RO.union(KeyFlags::ACCESS))],
    args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW }],
    handler: Some(pttl),
    ..Spec::NEW
};

fn pttl(cx: &mut Cx) -> Outcome {
    reply_expiry(cx, |at_ms, now_ms| (at_ms - now_ms).max(0))
}

pub(super) const EXPIRETIME: Spec = Spec {
    name: "expiretime",
    arity: Arity::Exactly(2),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::KEYSPACE,
    group: Group::Generic,
    since: "7.0.0",
    summary: "Returns a key's expiry as Unix time in seconds.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(1, KeyFlags::RO.union(KeyFlags::ACCESS))],
    args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW }],
    handler: Some(expiretime),
    ..Spec::NEW
};

fn expiretime(cx: &mut Cx) -> Outcome {
    reply_expiry(cx, |at_ms, _| rounded_s(at_ms))
}

pub(super) const PEXPIRETIME: Spec = Spec {
    name: "pexpiretime",
    arity: Arity::Exactly(2),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::KEYSPACE,
    group: Group::Generic,
    since: "7.0.0",
    summary: "Returns a key's expiry as Unix time in milliseconds.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(1, KeyFlags::RO.union(KeyFlags::ACCESS))],
    args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW }],
    handler: Some(pexpiretime),
    ..Spec::NEW
};

fn pexpiretime(cx: &mut Cx) -> Outcome {
    reply_expiry(cx, |at_ms, _| at_ms)
}
