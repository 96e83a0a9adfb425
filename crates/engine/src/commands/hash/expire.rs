//! Fields' expiries: setting, removing and asking for them.

use super::super::prelude::*;
use super::super::shared::{KEY, ONE_COUNT, ONE_READ, ONE_UPDATE, reply_element};
use super::fields::{
    Expiry, FIELDS, FIELDS_UNLINKED, Options, Time, after_options, directly, journal_command, journal_removal,
};
use super::{config, delete_if_empty, expires_at_once, field_now_ms, fields_expired, note_volatile};
use kara_keyspace::Kind;
use kara_keyspace::value::hash::Hash;
use smallvec::SmallVec;
use std::collections::HashSet;

/// What the replies say of a field.
const NO_FIELD: i64 = -2;
const NO_EXPIRY: i64 = -1;
const REFUSED: i64 = 0;
const DONE: i64 = 1;
const REMOVED: i64 = 2;

/// Conditions of HEXPIRE and its kin.
#[derive(Clone, Copy, Default)]
struct Conditions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Conditions {
    fn parse(args: &[&[u8]]) -> Result<Self, CommandError> {
        let mut c = Conditions::default();
        for word in args {
            match word.to_ascii_lowercase().as_slice() {
                b"nx" => c.nx = true,
                b"xx" => c.xx = true,
                b"gt" => c.gt = true,
                b"lt" => c.lt = true,
                _ => return Err(CommandError::quoting("ERR Unsupported option {}", &[word])),
            }
        }
        if c.nx && (c.xx || c.gt || c.lt) {
            return Err(CommandError::text(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if c.gt && c.lt {
            return Err(CommandError::text("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(c)
    }

    /// Whether `new` may take the place of `old`. No expiry counts as one in the infinite.
    fn allow(self, old: Option<i64>, new: i64) -> bool {
        !(self.nx && old.is_some()
            || self.xx && old.is_none()
            || self.gt && old.is_none_or(|old| new <= old)
            || self.lt && old.is_some_and(|old| new >= old))
    }
}

fn expire(cx: &mut Cx, seconds: bool, relative: bool) -> Outcome {
    let (conditions, fields) = after_options(cx.args, 3, 1, Conditions::parse)?;
    let at = Time { text: cx.arg(2), seconds, relative }.to_ms(cx)?;
    let key = cx.arg(1);
    if !cx.keys.check_kind(key, Kind::Hash)? {
        cx.reply.array(fields.len());
        fields.iter().for_each(|_| cx.reply.integer(NO_FIELD));
        return Ok(Effect::None);
    }
    let done = Change::to_expiry(cx, fields, at, conditions)?;
    cx.reply.array(done.answers.len());
    done.answers.iter().for_each(|answer| cx.reply.integer(*answer));
    Ok(done.finish(cx))
}

/// What became of the fields of one command.
struct Change<'a> {
    /// One per field, in order.
    answers: SmallVec<[i64; 8]>,
    /// Fields that got the expiry, or lost theirs.
    updated: SmallVec<[&'a [u8]; 8]>,
    /// Fields that were removed because the expiry lies in the past.
    gone: SmallVec<[&'a [u8]; 8]>,
    /// The new expiry; `None`: it was removed.
    at: Option<i64>,
    empty: bool,
}

impl<'a> Change<'a> {
    fn new(at: Option<i64>) -> Self {
        Change { answers: SmallVec::new(), updated: SmallVec::new(), gone: SmallVec::new(), at, empty: false }
    }

    /// Gives the fields of the hash under the first argument an expiry.
    fn to_expiry(
        cx: &mut Cx<'a, '_>,
        fields: &[&'a [u8]],
        at: i64,
        conditions: Conditions,
    ) -> Result<Self, CommandError> {
        let (config, now) = (config(cx), field_now_ms(cx));
        let past = expires_at_once(cx, at);
        let mut done = Change::new(Some(at));
        let Some(hash) = cx.keys.write_as::<Hash>(cx.arg(1))? else { return Ok(done) };
        for field in fields {
            let answer = match hash.get(field, now).map(|pair| pair.expiry_ms) {
                None => NO_FIELD,
                Some(old) if !conditions.allow(old, at) => REFUSED,
                Some(_) if past => {
                    hash.remove(field, now);
                    done.gone.push(field);
                    REMOVED
                }
                Some(_) => {
                    hash.set_expiry(field, Some(at), now, &config);
                    done.updated.push(field);
                    DONE
                }
            };
            done.answers.push(answer);
        }
        done.empty = hash.is_empty();
        Ok(done)
    }

    /// Takes the fields' expiries away.
    fn to_none(cx: &mut Cx<'a, '_>, fields: &[&'a [u8]]) -> Result<Self, CommandError> {
        let (config, now) = (config(cx), field_now_ms(cx));
        let mut done = Change::new(None);
        let mut hash = cx.keys.write_as::<Hash>(cx.arg(1))?;
        for field in fields {
            let found = hash.as_deref().and_then(|hash| hash.get(field, now)).map(|pair| pair.expiry_ms);
            done.answers.push(match (found, &mut hash) {
                (Some(Some(_)), Some(hash)) => {
                    hash.set_expiry(field, None, now, &config);
                    done.updated.push(field);
                    DONE
                }
                (Some(_), _) => NO_EXPIRY,
                (None, _) => NO_FIELD,
            });
        }
        Ok(done)
    }

    /// Tells of the change.
    fn finish(self, cx: &mut Cx) -> Effect {
        let key = cx.arg(1);
        let changes = self.updated.len() + self.gone.len();
        if changes == 0 {
            return Effect::None;
        }
        note_volatile(cx, key, true);
        cx.keys.touched(key);
        cx.extra_changes += changes as u64 - 1;
        if !self.updated.is_empty() {
            cx.keys.notify(Class::HASH, if self.at.is_some() { "hexpire" } else { "hpersist" }, key);
        }
        fields_expired(cx, key, self.gone.len());
        delete_if_empty(cx, key, self.empty);
        Effect::rewrite(cx.journal_on(), || match self.at {
            _ if !self.gone.is_empty() => journal_removal(key, &self.gone),
            None => journal_command("HPERSIST", key, &[], self.updated.len(), &self.updated),
            Some(at) => {
                let mut buffer = itoa::Buffer::new();
                let at = buffer.format(at).as_bytes();
                journal_command("HPEXPIREAT", key, &[at], self.updated.len(), &self.updated)
            }
        })
    }
}

const CONDITION: Arg = Arg {
    name: "condition",
    kind: ArgKind::Oneof,
    since: "9.0.0",
    optional: true,
    args: &[Arg::word("nx", "NX"), Arg::word("xx", "XX"), Arg::word("gt", "GT"), Arg::word("lt", "LT")],
    ..Arg::NEW
};

pub(super) const HEXPIRE: Spec = Spec {
    name: "hexpire",
    arity: Arity::AtLeast(6),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::HASH,
    group: Group::Hash,
    since: "9.0.0",
    summary: "Sets fields' time to live in seconds.",
    complexity: "O(N), N being the number of fields named.",
    key_specs: ONE_UPDATE,
    args: &[
        KEY,
        Arg { name: "seconds", kind: ArgKind::Integer, ..Arg::NEW },
        Arg {
            name: "condition",
            kind: ArgKind::Oneof,
            optional: true,
            args: &[
                Arg::word("nx", "NX"),
                Arg::word("xx", "XX"),
                Arg::word("gt", "GT"),
                Arg::word("lt", "LT"),
            ],
            ..Arg::NEW
        },
        FIELDS_UNLINKED,
    ],
    handler: Some(hexpire),
    ..Spec::NEW
};

fn hexpire(cx: &mut Cx) -> Outcome {
    expire(cx, true, true)
}

pub(super) const HPEXPIRE: Spec = Spec {
    name: "hpexpire",
    arity: Arity::AtLeast(6),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::HASH,
    group: Group::Hash,
    since: "9.0.0",
    summary: "Sets fields' time to live in milliseconds.",
    complexity: "O(N), N being the number of fields named.",
    key_specs: ONE_UPDATE,
    args: &[KEY, Arg { name: "milliseconds", kind: ArgKind::Integer, ..Arg::NEW }, CONDITION, FIELDS],
    handler: Some(hpexpire),
    ..Spec::NEW
};

fn hpexpire(cx: &mut Cx) -> Outcome {
    expire(cx, false, true)
}

pub(super) const HEXPIREAT: Spec = Spec {
    name: "hexpireat",
    arity: Arity::AtLeast(6),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::HASH,
    group: Group::Hash,
    since: "9.0.0",
    summary: "Sets the Unix time in seconds at which fields expire.",
    complexity: "O(N), N being the number of fields named.",
    key_specs: ONE_UPDATE,
    args: &[KEY, Arg { name: "unix-time-seconds", kind: ArgKind::Integer, ..Arg::NEW }, CONDITION, FIELDS],
    handler: Some(hexpireat),
    ..Spec::NEW
};

fn hexpireat(cx: &mut Cx) -> Outcome {
    expire(cx, true, false)
}

pub(super) const HPEXPIREAT: Spec = Spec {
    name: "hpexpireat",
    arity: Arity::AtLeast(6),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::HASH,
    group: Group::Hash,
    since: "9.0.0",
    summary: "Sets the Unix time in milliseconds at which fields expire.",
    complexity: "O(N), N being the number of fields named.",
    key_specs: ONE_UPDATE,
    args: &[
        KEY,
        Arg { name: "unix-time-milliseconds", kind: ArgKind::Integer, ..Arg::NEW },
        CONDITION,
        FIELDS,
    ],
    handler: Some(hpexpireat),
    ..Spec::NEW
};

fn hpexpireat(cx: &mut Cx) -> Outcome {
    expire(cx, false, false)
}

pub(super) const HPERSIST: Spec = Spec {
    name: "hpersist",
    arity: Arity::AtLeast(5),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::HASH,
    group: Group::Hash,
    since: "9.0.0",
    summary: "Removes the expiry of fields.",
    complexity: "O(N), N being the number of fields named.",
    key_specs: ONE_UPDATE,
    args: &[KEY, FIELDS],
    handler: Some(hpersist),
    ..Spec::NEW
};

fn hpersist(cx: &mut Cx) -> Outcome {
    let fields = directly(cx.args, None)?;
    let done = Change::to_none(cx, fields)?;
    cx.reply.array(done.answers.len());
    done.answers.iter().for_each(|answer| cx.reply.integer(*answer));
    Ok(done.finish(cx))
}

pub(super) const HGETEX: Spec = Spec {
    name: "hgetex",
    arity: Arity::AtLeast(5),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::HASH,
    group: Group::Hash,
    since: "9.0.0",
    summary: "Returns the values of fields and sets or removes their expiry.",
    complexity: "O(N), N being the number of fields named.",
    key_specs: ONE_COUNT,
    args: &[
        KEY,
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
        FIELDS,
    ],
    handler: Some(hgetex),
    ..Spec::NEW
};

fn hgetex(cx: &mut Cx) -> Outcome {
    let key = cx.arg(1);
    let now = field_now_ms(cx);
    let (options, fields) = after_options(cx.args, 2, 1, |options| Options::parse(options, false))?;
    let there = cx.keys.check_kind(key, Kind::Hash)?;
    if !there {
        // A missing key counts as a miss, whatever comes of the expiry.
        cx.keys.read(key);
    }
    let at = match options.expiry {
        Expiry::At(time) => Some(time.to_ms(cx)?),
        _ => None,
    };
    let past = at.is_some_and(|at| expires_at_once(cx, at));
    let hash = if there { cx.keys.read_as::<Hash>(key)? } else { None };
    let mut seen = HashSet::new();
    cx.reply.array(fields.len());
    for field in fields {
        // A field that its first mention removes is gone at the second.
        let gone = past && !seen.insert(*field);
        match hash.and_then(|hash| hash.get(field, now)).filter(|_| !gone) {
            Some(pair) => reply_element(cx.reply, pair.value),
            None => cx.reply.null(),
        }
    }
    match (options.expiry, at) {
        _ if !there => Ok(Effect::None),
        (Expiry::Remove, _) => Ok(Change::to_none(cx, fields)?.finish(cx)),
        (_, Some(at)) => Ok(Change::to_expiry(cx, fields, at, Conditions::default())?.finish(cx)),
        _ => Ok(Effect::None),
    }
}

/// Answers for each field with what `show` makes of its expiry.
fn ask(cx: &mut Cx, show: impl Fn(i64) -> i64) -> Outcome {
    let now = field_now_ms(cx);
    let fields = directly(cx.args, Some(CommandError::Syntax))?;
    let hash = cx.keys.read_as::<Hash>(cx.arg(1))?;
    cx.reply.array(fields.len());
    for field in fields {
        let expiry = hash.and_then(|hash| hash.get(field, now)).map(|pair| pair.expiry_ms);
        cx.reply.integer(match expiry {
            None => NO_FIELD,
            Some(None) => NO_EXPIRY,
            Some(Some(at)) => show(at),
        });
    }
    Ok(Effect::None)
}

/// Milliseconds as seconds, rounded.
fn to_seconds(ms: i64) -> i64 {
    ms / 1000 + i64::from(ms % 1000 >= 500)
}

pub(super) const HTTL: Spec = Spec {
    name: "httl",
    arity: Arity::AtLeast(5),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::HASH,
    group: Group::Hash,
    since: "9.0.0",
    summary: "Returns fields' time to live in seconds.",
    complexity: "O(N), N being the number of fields named.",
    key_specs: ONE_READ,
    args: &[KEY, FIELDS],
    handler: Some(httl),
    ..Spec::NEW
};

fn httl(cx: &mut Cx) -> Outcome {
    let now = cx.now_ms;
    ask(cx, |at| to_seconds(at.saturating_sub(now).max(0)))
}

pub(super) const HPTTL: Spec = Spec {
    name: "hpttl",
    arity: Arity::AtLeast(5),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::HASH,
    group: Group::Hash,
    since: "9.0.0",
    summary: "Returns fields' time to live in milliseconds.",
    complexity: "O(N), N being the number of fields named.",
    key_specs: ONE_READ,
    args: &[KEY, FIELDS],
    handler: Some(hpttl),
    ..Spec::NEW
};

fn hpttl(cx: &mut Cx) -> Outcome {
    let now = cx.now_ms;
    ask(cx, |at| at.saturating_sub(now).max(0))
}

pub(super) const HEXPIRETIME: Spec = Spec {
    name: "hexpiretime",
    arity: Arity::AtLeast(5),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::HASH,
    group: Group::Hash,
    since: "9.0.0",
    summary: "Returns the Unix times in seconds at which fields expire.",
    complexity: "O(N), N being the number of fields named.",
    key_specs: ONE_READ,
    args: &[KEY, FIELDS],
    handler: Some(hexpiretime),
    ..Spec::NEW
};

fn hexpiretime(cx: &mut Cx) -> Outcome {
    ask(cx, to_seconds)
}

pub(super) const HPEXPIRETIME: Spec = Spec {
    name: "hpexpiretime",
    arity: Arity::AtLeast(5),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::HASH,
    group: Group::Hash,
    since: "9.0.0",
    summary: "Returns the Unix times in milliseconds at which fields expire.",
    complexity: "O(N), N being the number of fields named.",
    key_specs: ONE_READ,
    args: &[KEY, FIELDS],
    handler: Some(hpexpiretime),
    ..Spec::NEW
};

fn hpexpiretime(cx: &mut Cx) -> Outcome {
    ask(cx, |at| at)
}
