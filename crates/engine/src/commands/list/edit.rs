//! Changing elements amid a list.

use super::super::prelude::*;
use super::{KEY, limits, parse_symmetric, removed, span};
use kara_keyspace::value::list::{End, List};

pub(super) const LSET: Spec = Spec {
    name: "lset",
    arity: Arity::Exactly(4),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::LIST,
    group: Group::List,
    since: "1.0.0",
    summary: "Puts another element in the place of the one at an index of a list.",
    complexity: "O(log N) far from both ends, N being the length of the list.",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::UPDATE))],
    args: &[
        KEY,
        Arg { name: "index", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "element", kind: ArgKind::String, ..Arg::NEW },
    ],
    handler: Some(lset),
    ..Spec::NEW
};

fn lset(cx: &mut Cx) -> Outcome {
    let key = cx.args[1];
    let limits = limits(cx.config, cx.shared);
    let Some(list) = cx.keys.write_as::<List>(key)? else { return Err(CommandError::NoSuchKey) };
    let place = list.place(parse_int(cx.args[2])?);
    // The list changes its form for the new element even if the index is wrong, as in the reference.
    list.grow_for([cx.args[3].len()], &limits);
    if !place.is_some_and(|place| list.set(place, cx.args[3], &limits)) {
        return Err(CommandError::OutOfRange);
    }
    cx.keys.changed(key, Class::LIST, "lset");
    cx.reply.ok();
    Ok(Effect::Verbatim)
}

pub(super) const LINSERT: Spec = Spec {
    name: "linsert",
    arity: Arity::Exactly(5),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::LIST,
    group: Group::List,
    since: "2.2.0",
    summary: "Inserts an element in front of or behind another one of a list.",
    complexity: "O(N), N being the number of elements in front of the pivot.",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::INSERT))],
    args: &[
        KEY,
        Arg {
            name: "where",
            kind: ArgKind::Oneof,
            args: &[Arg::word("before", "BEFORE"), Arg::word("after", "AFTER")],
            ..Arg::NEW
        },
        Arg { name: "pivot", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "element", kind: ArgKind::String, ..Arg::NEW },
    ],
    handler: Some(linsert),
    ..Spec::NEW
};

fn linsert(cx: &mut Cx) -> Outcome {
    let (key, pivot, text) = (cx.args[1], cx.args[3], cx.args[4]);
    let after = if cx.is_word(2, "after") {
        true
    } else if cx.is_word(2, "before") {
        false
    } else {
        return Err(CommandError::Syntax);
    };
    let limits = limits(cx.config, cx.shared);
    let Some(list) = cx.keys.write_as::<List>(key)? else {
        cx.reply.integer(0);
        return Ok(Effect::None);
    };
    if !list.insert(pivot, text, after, &limits) {
        cx.reply.integer(-1);
        return Ok(Effect::None);
    }
    let len = list.len();
    cx.keys.changed(key, Class::LIST, "linsert");
    cx.reply.integer(len as i64);
    Ok(Effect::Verbatim)
}

pub(super) const LREM: Spec = Spec {
    name: "lrem",
    arity: Arity::Exactly(4),
    flags: Flags::WRITE,
    acl: Acl::LIST,
    group: Group::List,
    since: "1.0.0",
    summary: "Removes elements of a list that equal the given one.",
    complexity: "O(N), N being the length of the list.",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::DELETE))],
    args: &[
        KEY,
        Arg { name: "count", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "element", kind: ArgKind::String, ..Arg::NEW },
    ],
    handler: Some(lrem),
    ..Spec::NEW
};

fn lrem(cx: &mut Cx) -> Outcome {
    let key = cx.args[1];
    let count = parse_symmetric(cx.args[2])?;
    let limit =
        if count == 0 { usize::MAX } else { usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX) };
    let from = if count < 0 { End::Back } else { End::Front };
    let limits = limits(cx.config, cx.shared);
    let Some(list) = cx.keys.write_as::<List>(key)? else {
        cx.reply.integer(0);
        return Ok(Effect::None);
    };
    let count = list.remove_equal(cx.args[3], limit, from, &limits);
    let empty = list.is_empty();
    if count > 0 {
        removed(cx, key, "lrem", empty, count);
    }
    cx.reply.integer(count as i64);
    Ok(Effect::verbatim_if(count > 0))
}

pub(super) const LTRIM: Spec = Spec {
    name: "ltrim",
    arity: Arity::Exactly(4),
    flags: Flags::WRITE,
    acl: Acl::LIST,
    group: Group::List,
    since: "1.0.0",
    summary: "Removes all elements of a list but those between two indexes.",
    complexity: "O(N), N being the number of elements removed.",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::DELETE))],
    args: &[
        KEY,
        Arg { name: "start", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "stop", kind: ArgKind::Integer, ..Arg::NEW },
    ],
    handler: Some(ltrim),
    ..Spec::NEW
};

fn ltrim(cx: &mut Cx) -> Outcome {
    let key = cx.args[1];
    let (start, stop) = (cx.int(2)?, cx.int(3)?);
    let limits = limits(cx.config, cx.shared);
    let Some(list) = cx.keys.write_as::<List>(key)? else {
        cx.reply.ok();
        return Ok(Effect::None);
    };
    let (start, kept) = span(start, stop, list.len());
    let count = list.trim(start, kept, &limits);
    let empty = list.is_empty();
    // Told even if nothing had to go, as in the reference.
    removed(cx, key, "ltrim", empty, count);
    cx.reply.ok();
    Ok(Effect::verbatim_if(count > 0))
}
