//! Taking members from either end.

use super::super::prelude::*;
use super::super::shared::{KEY, removed, reply_element};
use crate::blocking::WaitFor;
use crate::cx::parse_timeout_ms;
use kara_keyspace::Kind;
use kara_keyspace::value::zset::ZSet;

#[derive(Clone, Copy, PartialEq)]
enum End {
    Min,
    Max,
}

impl End {
    /// The command that takes from this end, as the journal spells it.
    fn command(self) -> &'static str {
        match self {
            End::Min => "ZPOPMIN",
            End::Max => "ZPOPMAX",
        }
    }

    fn event(self) -> &'static str {
        match self {
            End::Min => "zpopmin",
            End::Max => "zpopmax",
        }
    }
}

/// How the popped items are answered.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// Members and scores in turn.
    Flat,
    /// Pairs.
    Pairs,
    /// The key, then members and scores in turn.
    KeyFlat,
    /// The key, and the pairs.
    KeyPairs,
}

/// Pops up to `count` (at least 1) items from a key that holds a sorted set; the number popped.
fn pop(cx: &mut Cx, key: &[u8], end: End, count: usize, form: Form) -> Result<usize, CommandError> {
    let Some(set) = cx.keys.write_as::<ZSet>(key)? else { return Ok(0) };
    let len = set.len();
    let n = count.min(len);
    let ranks = match end {
        End::Min => 0..n,
        End::Max => len - n..len,
    };
    let reply = &mut *cx.reply;
    match form {
        Form::Flat => reply.array(n * 2),
        Form::Pairs => reply.array(n),
        Form::KeyFlat => {
            reply.array(n * 2 + 1);
            reply.bulk(key);
        }
        Form::KeyPairs => {
            reply.array(2);
            reply.bulk(key);
            reply.array(n);
        }
    }
    for (member, score) in set.range(ranks.clone(), end == End::Max) {
        if matches!(form, Form::Pairs | Form::KeyPairs) {
            reply.array(2);
        }
        reply_element(reply, member);
        reply.double(score);
    }
    set.remove_ranks(ranks, |_, _| ());
    let empty = set.is_empty();
    removed(cx, key, Class::ZSET, end.event(), empty, n);
    Ok(n)
}

/// The first of the keys that is there; it must hold a sorted set.
fn first_set<'a>(cx: &mut Cx, keys: &[&'a [u8]]) -> Result<Option<&'a [u8]>, CommandError> {
    for key in keys {
        if cx.keys.check_kind(key, Kind::ZSet)? {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

pub(super) const ZPOPMIN: Spec = Spec {
    name: "zpopmin",
    arity: Arity::AtLeast(2),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "5.0.0",
    summary: "Removes the members with the lowest scores and gives them.",
    complexity: "O(M log N), N being the size of the set and M the number of members popped.",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE))],
    args: &[KEY, Arg { name: "count", kind: ArgKind::Integer, optional: true, ..Arg::NEW }],
    handler: Some(zpopmin),
    ..Spec::NEW
};

fn zpopmin(cx: &mut Cx) -> Outcome {
    pop_one_key(cx, End::Min)
}

pub(super) const ZPOPMAX: Spec = Spec {
    name: "zpopmax",
    arity: Arity::AtLeast(2),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "5.0.0",
    summary: "Removes the members with the highest scores and gives them.",
    complexity: "O(M log N), N being the size of the set and M the number of members popped.",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE))],
    args: &[KEY, Arg { name: "count", kind: ArgKind::Integer, optional: true, ..Arg::NEW }],
    handler: Some(zpopmax),
    ..Spec::NEW
};

fn zpopmax(cx: &mut Cx) -> Outcome {
    pop_one_key(cx, End::Max)
}

fn pop_one_key(cx: &mut Cx, end: End) -> Outcome {
    let key = cx.arg(1);
    let count = match cx.args.len() {
        0..=2 => None,
        3 => Some(
            kara_base::number::parse_i64(cx.arg(2))
                .and_then(|n| usize::try_from(n).ok())
                .ok_or(CommandError::text("ERR value is out of range, must be positive"))?,
        ),
        _ => return Err(CommandError::Syntax),
    };
    let form = if count.is_some() && cx.reply.is_resp3() { Form::Pairs } else { Form::Flat };
    if !cx.keys.check_kind(key, Kind::ZSet)? || count == Some(0) {
        cx.reply.array(0);
        return Ok(Effect::None);
    }
    let popped = pop(cx, key, end, count.unwrap_or(1), form)?;
    Ok(Effect::verbatim_if(popped > 0))
}

/// What ZMPOP and BZMPOP are told after the timeout.
struct Multiple<'a> {
    keys: &'a [&'a [u8]],
    end: End,
    count: usize,
}

impl<'a> Multiple<'a> {
    /// `args` begin with the number of keys.
    fn parse(args: &'a [&'a [u8]]) -> Result<Self, CommandError> {
        let positive = |text: &[u8]| {
            kara_base::number::parse_i64(text).and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0)
        };
        let [count, rest @ ..] = args else { return Err(CommandError::Syntax) };
        let keys = positive(count).ok_or(CommandError::text("ERR numkeys should be greater than 0"))?;
        let (keys, rest) = rest.split_at_checked(keys).ok_or(CommandError::Syntax)?;
        let [end, options @ ..] = rest else { return Err(CommandError::Syntax) };
        let end = if end.eq_ignore_ascii_case(b"min") {
            End::Min
        } else if end.eq_ignore_ascii_case(b"max") {
            End::Max
        } else {
            return Err(CommandError::Syntax);
        };
        let count = match options {
            [] => 1,
            [word, count, rest @ ..] if word.eq_ignore_ascii_case(b"count") => {
                let count =
                    positive(count).ok_or(CommandError::text("ERR count should be greater than 0"))?;
                if !rest.is_empty() {
                    return Err(CommandError::Syntax);
                }
                count
            }
            _ => return Err(CommandError::Syntax),
        };
        Ok(Multiple { keys, end, count })
    }
}

/// Pops from the first key that holds anything; `None` if none does.
fn pop_multiple(cx: &mut Cx, multiple: &Multiple<'_>) -> Result<Option<Effect>, CommandError> {
    let Some(key) = first_set(cx, multiple.keys)? else { return Ok(None) };
    let popped = pop(cx, key, multiple.end, multiple.count, Form::KeyPairs)?;
    let end = multiple.end;
    Ok(Some(Effect::rewrite(cx.journal_on(), || {
        OwnedCommand::new(end.command()).arg(key).arg_i64(popped as i64)
    })))
}

pub(super) const ZMPOP: Spec = Spec {
    name: "zmpop",
    arity: Arity::AtLeast(4),
    flags: Flags::WRITE,
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "7.0.0",
    summary: "Removes members from an end of the first sorted set that isn't empty, and gives them.",
    complexity: "O(K + M log N), K being the number of keys, N the size of the set and M the number of members popped.",
    key_specs: &[KeySpec::counted(1, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE))],
    args: &[
        Arg { name: "numkeys", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), multiple: true, ..Arg::NEW },
        Arg {
            name: "where",
            kind: ArgKind::Oneof,
            args: &[Arg::word("min", "MIN"), Arg::word("max", "MAX")],
            ..Arg::NEW
        },
        Arg { name: "count", kind: ArgKind::Integer, token: Some("COUNT"), optional: true, ..Arg::NEW },
    ],
    handler: Some(zmpop),
    ..Spec::NEW
};

fn zmpop(cx: &mut Cx) -> Outcome {
    let multiple = Multiple::parse(cx.args.get(1..).unwrap_or_default())?;
    match pop_multiple(cx, &multiple)? {
        Some(effect) => Ok(effect),
        None => {
            cx.reply.null_array();
            Ok(Effect::None)
        }
    }
}

pub(super) const BZMPOP: Spec = Spec {
    name: "bzmpop",
    arity: Arity::AtLeast(5),
    flags: Flags::BLOCKING.union(Flags::WRITE),
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "7.0.0",
    summary: "Removes members from an end of the first sorted set that isn't empty, and gives them; waits for one if there is none.",
    complexity: "O(K + M log N), K being the number of keys, N the size of the set and M the number of members popped.",
    key_specs: &[KeySpec::counted(2, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE))],
    args: &[
        Arg { name: "timeout", kind: ArgKind::Double, ..Arg::NEW },
        Arg { name: "numkeys", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), multiple: true, ..Arg::NEW },
        Arg {
            name: "where",
            kind: ArgKind::Oneof,
            args: &[Arg::word("min", "MIN"), Arg::word("max", "MAX")],
            ..Arg::NEW
        },
        Arg { name: "count", kind: ArgKind::Integer, token: Some("COUNT"), optional: true, ..Arg::NEW },
    ],
    handler: Some(bzmpop),
    ..Spec::NEW
};

fn bzmpop(cx: &mut Cx) -> Outcome {
    let multiple = Multiple::parse(cx.args.get(2..).unwrap_or_default())?;
    let timeout_ms = parse_timeout_ms(cx.arg(1), cx.now_ms)?;
    if let Some(effect) = pop_multiple(cx, &multiple)? {
        return Ok(effect);
    }
    if !cx.wait(WaitFor::key(Kind::ZSet, 3..3 + multiple.keys.len(), timeout_ms)) {
        cx.reply.null_array();
    }
    Ok(Effect::None)
}

pub(super) const BZPOPMIN: Spec = Spec {
    name: "bzpopmin",
    arity: Arity::AtLeast(3),
    flags: Flags::BLOCKING.union(Flags::FAST).union(Flags::WRITE),
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "5.0.0",
    summary: "Removes the member with the lowest score from the first sorted set that isn't empty, and gives it; waits for one if there is none.",
    complexity: "O(log N), N being the size of the set.",
    key_specs: &[KeySpec::keys(1, -2, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), multiple: true, ..Arg::NEW },
        Arg { name: "timeout", kind: ArgKind::Double, ..Arg::NEW },
    ],
    handler: Some(bzpopmin),
    ..Spec::NEW
};

fn bzpopmin(cx: &mut Cx) -> Outcome {
    blocking_pop(cx, End::Min)
}

pub(super) const BZPOPMAX: Spec = Spec {
    name: "bzpopmax",
    arity: Arity::AtLeast(3),
    flags: Flags::BLOCKING.union(Flags::FAST).union(Flags::WRITE),
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "5.0.0",
    summary: "Removes the member with the highest score from the first sorted set that isn't empty, and gives it; waits for one if there is none.",
    complexity: "O(log N), N being the size of the set.",
    key_specs: &[KeySpec::keys(1, -2, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), multiple: true, ..Arg::NEW },
        Arg { name: "timeout", kind: ArgKind::Double, ..Arg::NEW },
    ],
    handler: Some(bzpopmax),
    ..Spec::NEW
};

fn bzpopmax(cx: &mut Cx) -> Outcome {
    blocking_pop(cx, End::Max)
}

fn blocking_pop(cx: &mut Cx, end: End) -> Outcome {
    let [_, keys @ .., timeout] = cx.args else { return Err(cx.arity_error()) };
    let timeout_ms = parse_timeout_ms(timeout, cx.now_ms)?;
    let Some(key) = first_set(cx, keys)? else {
        if !cx.wait(WaitFor::key(Kind::ZSet, 1..1 + keys.len(), timeout_ms)) {
            cx.reply.null_array();
        }
        return Ok(Effect::None);
    };
    pop(cx, key, end, 1, Form::KeyFlat)?;
    Ok(Effect::rewrite(cx.journal_on(), || OwnedCommand::new(end.command()).arg(key)))
}
