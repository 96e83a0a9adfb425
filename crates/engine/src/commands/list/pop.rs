//! Taking elements from either end.

use super::super::prelude::*;
use super::{KEY, LEFT, RIGHT, limits, parse_at_least, parse_end, pop_event, removed, reply_element};
use crate::blocking::WaitFor;
use crate::cx::parse_timeout_ms;
use kara_keyspace::Kind;
use kara_keyspace::value::list::{End, List};

/// The command that takes from this end, as the journal spells it.
pub(super) fn pop_command(end: End) -> &'static str {
    match end {
        End::Front => "LPOP",
        End::Back => "RPOP",
    }
}

pub(super) const LPOP: Spec = Spec {
    name: "lpop",
    arity: Arity::AtLeast(2),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::LIST,
    group: Group::List,
    since: "1.0.0",
    summary: "Removes the first elements of a list and gives them.",
    complexity: "O(N), N being the number of elements popped.",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE))],
    args: &[KEY, Arg { name: "count", kind: ArgKind::Integer, since: "6.2.0", optional: true, ..Arg::NEW }],
    handler: Some(lpop),
    ..Spec::NEW
};

fn lpop(cx: &mut Cx) -> Outcome {
    pop_one_key(cx, End::Front)
}

pub(super) const RPOP: Spec = Spec {
    name: "rpop",
    arity: Arity::AtLeast(2),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::LIST,
    group: Group::List,
    since: "1.0.0",
    summary: "Removes the last elements of a list and gives them.",
    complexity: "O(N), N being the number of elements popped.",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE))],
    args: &[KEY, Arg { name: "count", kind: ArgKind::Integer, since: "6.2.0", optional: true, ..Arg::NEW }],
    handler: Some(rpop),
    ..Spec::NEW
};

fn rpop(cx: &mut Cx) -> Outcome {
    pop_one_key(cx, End::Back)
}

fn pop_one_key(cx: &mut Cx, end: End) -> Outcome {
    const NOT_POSITIVE: CommandError = CommandError::text("ERR value is out of range, must be positive");
    let key = cx.arg(1);
    let count = match cx.args.len() {
        0..=2 => None,
        3 => Some(parse_at_least(cx.arg(2), 0, NOT_POSITIVE)?),
        _ => return Err(cx.arity_error()),
    };
    let popped = match count {
        None => pop_single(cx, key, end)?,
        Some(count) => pop_many(cx, key, end, count)?,
    };
    match popped {
        Some(popped) => Ok(Effect::verbatim_if(popped > 0)),
        None => {
            if count.is_some() {
                cx.reply.null_array();
            } else {
                cx.reply.null();
            }
            Ok(Effect::None)
        }
    }
}

/// Pops one element and answers it by itself; `None`, without an answer, if there is no list.
fn pop_single(cx: &mut Cx, key: &[u8], end: End) -> Result<Option<usize>, CommandError> {
    let limits = limits(cx.config, cx.shared);
    let Some(list) = cx.keys.write_as::<List>(key)? else { return Ok(None) };
    let reply = &mut *cx.reply;
    list.pop_with(end, &limits, |element| reply_element(reply, element));
    let empty = list.is_empty();
    removed(cx, key, pop_event(end), empty, 1);
    Ok(Some(1))
}

/// Pops up to `count` elements and answers an array; `None`, without an answer, if there is no list.
fn pop_many(cx: &mut Cx, key: &[u8], end: End, count: usize) -> Result<Option<usize>, CommandError> {
    if count == 0 {
        // Nothing is changed, so that it doesn't count as a write access either.
        let exists = cx.keys.check_kind(key, Kind::List)?;
        if exists {
            cx.reply.array(0);
        }
        return Ok(exists.then_some(0));
    }
    let limits = limits(cx.config, cx.shared);
    let Some(list) = cx.keys.write_as::<List>(key)? else { return Ok(None) };
    let reply = &mut *cx.reply;
    reply.array(count.min(list.len()));
    let popped = list.pop_many(end, count, &limits, |element| reply_element(reply, element));
    let empty = list.is_empty();
    removed(cx, key, pop_event(end), empty, popped);
    Ok(Some(popped))
}

/// The first of the keys that is there; it must hold a list.
fn first_list<'a>(cx: &mut Cx, keys: &[&'a [u8]]) -> Result<Option<&'a [u8]>, CommandError> {
    for key in keys {
        if cx.keys.check_kind(key, Kind::List)? {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

/// What LMPOP and BLMPOP are told after the timeout.
#[derive(Debug, PartialEq)]
pub(super) struct Multiple<'a> {
    pub(super) keys: &'a [&'a [u8]],
    pub(super) end: End,
    pub(super) count: usize,
}

impl<'a> Multiple<'a> {
    /// `args` begin with the number of keys.
    pub(super) fn parse(args: &'a [&'a [u8]]) -> Result<Self, CommandError> {
        const NO_KEYS: CommandError = CommandError::text("ERR numkeys should be greater than 0");
        const NO_COUNT: CommandError = CommandError::text("ERR count should be greater than 0");
        let [count, rest @ ..] = args else { return Err(CommandError::Syntax) };
        let keys = parse_at_least(count, 1, NO_KEYS)?;
        let (keys, rest) = rest.split_at_checked(keys).ok_or(CommandError::Syntax)?;
        let [end, options @ ..] = rest else { return Err(CommandError::Syntax) };
        let end = parse_end(end)?;
        let count = match options {
            [] => 1,
            [word, count, rest @ ..] if word.eq_ignore_ascii_case(b"count") => {
                let count = parse_at_least(count, 1, NO_COUNT)?;
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

/// Pops from the first key that holds a list; `None`, without an answer, if none does.
fn pop_multiple(cx: &mut Cx, multiple: &Multiple<'_>) -> Result<Option<Effect>, CommandError> {
    let Some(key) = first_list(cx, multiple.keys)? else { return Ok(None) };
    cx.reply.array(2);
    cx.reply.bulk(key);
    let popped = pop_many(cx, key, multiple.end, multiple.count)?.unwrap_or(0);
    Ok(Some(Effect::rewrite(cx.journal_on(), || {
        OwnedCommand::new(pop_command(multiple.end)).arg(key).arg_i64(popped as i64)
    })))
}

fn or_null_array(cx: &mut Cx, effect: Option<Effect>) -> Outcome {
    Ok(effect.unwrap_or_else(|| {
        cx.reply.null_array();
        Effect::None
    }))
}

pub(super) const LMPOP: Spec = Spec {
    name: "lmpop",
    arity: Arity::AtLeast(4),
    flags: Flags::WRITE,
    acl: Acl::LIST,
    group: Group::List,
    since: "7.0.0",
    summary: "Removes elements from one end of the first list that exists, and gives them.",
    complexity: "O(N+M), N being the number of keys and M the number of elements popped.",
    key_specs: &[KeySpec::counted(1, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE))],
    args: &[
        Arg { name: "numkeys", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), multiple: true, ..Arg::NEW },
        Arg { name: "where", kind: ArgKind::Oneof, args: &[LEFT, RIGHT], ..Arg::NEW },
        Arg { name: "count", kind: ArgKind::Integer, token: Some("COUNT"), optional: true, ..Arg::NEW },
    ],
    handler: Some(lmpop),
    ..Spec::NEW
};

fn lmpop(cx: &mut Cx) -> Outcome {
    let multiple = Multiple::parse(cx.args.get(1..).unwrap_or_default())?;
    let effect = pop_multiple(cx, &multiple)?;
    or_null_array(cx, effect)
}

pub(super) const BLMPOP: Spec = Spec {
    name: "blmpop",
    arity: Arity::AtLeast(5),
    flags: Flags::BLOCKING.union(Flags::WRITE),
    acl: Acl::LIST,
    group: Group::List,
    since: "7.0.0",
    summary: "Removes elements from one end of the first list that exists, and gives them; waits for one if there is none.",
    complexity: "O(N+M), N being the number of keys and M the number of elements popped.",
    key_specs: &[KeySpec::counted(2, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE))],
    args: &[
        Arg { name: "timeout", kind: ArgKind::Double, ..Arg::NEW },
        Arg { name: "numkeys", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), multiple: true, ..Arg::NEW },
        Arg { name: "where", kind: ArgKind::Oneof, args: &[LEFT, RIGHT], ..Arg::NEW },
        Arg { name: "count", kind: ArgKind::Integer, token: Some("COUNT"), optional: true, ..Arg::NEW },
    ],
    handler: Some(blmpop),
    ..Spec::NEW
};

fn blmpop(cx: &mut Cx) -> Outcome {
    let multiple = Multiple::parse(cx.args.get(2..).unwrap_or_default())?;
    let timeout_ms = parse_timeout_ms(cx.arg(1), cx.now_ms)?;
    let effect = pop_multiple(cx, &multiple)?;
    if effect.is_none() && cx.wait(WaitFor::key(Kind::List, 3..3 + multiple.keys.len(), timeout_ms)) {
        return Ok(Effect::None);
    }
    or_null_array(cx, effect)
}

pub(super) const BLPOP: Spec = Spec {
    name: "blpop",
    arity: Arity::AtLeast(3),
    flags: Flags::BLOCKING.union(Flags::WRITE),
    acl: Acl::LIST,
    group: Group::List,
    since: "2.0.0",
    summary: "Removes the first element of the first list that exists, and gives it; waits for one if there is none.",
    complexity: "O(N), N being the number of keys.",
    key_specs: &[KeySpec::keys(1, -2, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), multiple: true, ..Arg::NEW },
        Arg { name: "timeout", kind: ArgKind::Double, ..Arg::NEW },
    ],
    handler: Some(blpop),
    ..Spec::NEW
};

fn blpop(cx: &mut Cx) -> Outcome {
    blocking_pop(cx, End::Front)
}

pub(super) const BRPOP: Spec = Spec {
    name: "brpop",
    arity: Arity::AtLeast(3),
    flags: Flags::BLOCKING.union(Flags::WRITE),
    acl: Acl::LIST,
    group: Group::List,
    since: "2.0.0",
    summary: "Removes the last element of the first list that exists, and gives it; waits for one if there is none.",
    complexity: "O(N), N being the number of keys.",
    key_specs: &[KeySpec::keys(1, -2, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), multiple: true, ..Arg::NEW },
        Arg { name: "timeout", kind: ArgKind::Double, ..Arg::NEW },
    ],
    handler: Some(brpop),
    ..Spec::NEW
};

fn brpop(cx: &mut Cx) -> Outcome {
    blocking_pop(cx, End::Back)
}

fn blocking_pop(cx: &mut Cx, end: End) -> Outcome {
    let [_, keys @ .., timeout] = cx.args else { return Err(cx.arity_error()) };
    let timeout_ms = parse_timeout_ms(timeout, cx.now_ms)?;
    let effect = match first_list(cx, keys)? {
        None => None,
        Some(key) => {
            cx.reply.array(2);
            cx.reply.bulk(key);
            pop_single(cx, key, end)?;
            Some(Effect::rewrite(cx.journal_on(), || OwnedCommand::new(pop_command(end)).arg(key)))
        }
    };
    if effect.is_none() && cx.wait(WaitFor::key(Kind::List, 1..1 + keys.len(), timeout_ms)) {
        return Ok(Effect::None);
    }
    or_null_array(cx, effect)
}
