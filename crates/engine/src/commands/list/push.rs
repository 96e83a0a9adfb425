//! Adding at either end.

use super::super::prelude::*;
use super::{KEY, limits, push_event};
use kara_keyspace::value::list::{End, List, ListLimits};

pub(super) const LPUSH: Spec = Spec {
    name: "lpush",
    arity: Arity::AtLeast(3),
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    acl: Acl::LIST,
    group: Group::List,
    since: "1.0.0",
    summary: "Puts elements in front of a list, which is created if it doesn't exist.",
    complexity: "O(N), N being the number of elements added.",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::INSERT))],
    args: &[KEY, Arg { name: "element", kind: ArgKind::String, multiple: true, ..Arg::NEW }],
    handler: Some(lpush),
    ..Spec::NEW
};

fn lpush(cx: &mut Cx) -> Outcome {
    push(cx, End::Front, true)
}

pub(super) const RPUSH: Spec = Spec {
    name: "rpush",
    arity: Arity::AtLeast(3),
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    acl: Acl::LIST,
    group: Group::List,
    since: "1.0.0",
    summary: "Appends elements to a list, which is created if it doesn't exist.",
    complexity: "O(N), N being the number of elements added.",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::INSERT))],
    args: &[KEY, Arg { name: "element", kind: ArgKind::String, multiple: true, ..Arg::NEW }],
    handler: Some(rpush),
    ..Spec::NEW
};

fn rpush(cx: &mut Cx) -> Outcome {
    push(cx, End::Back, true)
}

pub(super) const LPUSHX: Spec = Spec {
    name: "lpushx",
    arity: Arity::AtLeast(3),
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    acl: Acl::LIST,
    group: Group::List,
    since: "2.2.0",
    summary: "Puts elements in front of a list that exists.",
    complexity: "O(N), N being the number of elements added.",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::INSERT))],
    args: &[KEY, Arg { name: "element", kind: ArgKind::String, multiple: true, ..Arg::NEW }],
    handler: Some(lpushx),
    ..Spec::NEW
};

fn lpushx(cx: &mut Cx) -> Outcome {
    push(cx, End::Front, false)
}

pub(super) const RPUSHX: Spec = Spec {
    name: "rpushx",
    arity: Arity::AtLeast(3),
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    acl: Acl::LIST,
    group: Group::List,
    since: "2.2.0",
    summary: "Appends elements to a list that exists.",
    complexity: "O(N), N being the number of elements added.",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::INSERT))],
    args: &[KEY, Arg { name: "element", kind: ArgKind::String, multiple: true, ..Arg::NEW }],
    handler: Some(rpushx),
    ..Spec::NEW
};

fn rpushx(cx: &mut Cx) -> Outcome {
    push(cx, End::Back, false)
}

fn push(cx: &mut Cx, end: End, create: bool) -> Outcome {
    let [_, key, texts @ ..] = cx.args else { return Err(cx.arity_error()) };
    let limits = limits(cx.config, cx.shared);
    let list = if create {
        cx.keys.write_or_create(key, List::new)?.0
    } else {
        match cx.keys.write_as::<List>(key)? {
            Some(list) => list,
            None => {
                cx.reply.integer(0);
                return Ok(Effect::None);
            }
        }
    };
    add(list, end, texts, &limits);
    let len = list.len();
    cx.keys.changed(key, Class::LIST, push_event(end));
    cx.extra_changes += (texts.len() as u64).saturating_sub(1);
    cx.reply.integer(len as i64);
    Ok(Effect::Verbatim)
}

fn add(list: &mut List, end: End, texts: &[&[u8]], limits: &ListLimits) {
    match texts {
        [text] => list.push(end, text, limits),
        _ => list.push_all(end, texts.iter().copied(), limits),
    }
}
