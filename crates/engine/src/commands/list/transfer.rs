//! Moving an element from one list's end to another's, or around within one list.

use super::super::prelude::*;
use super::{LEFT, RIGHT, limits, parse_end, pop_event, push_event, removed};
use crate::blocking::WaitFor;
use crate::cx::parse_timeout_ms;
use kara_keyspace::Kind;
use kara_keyspace::value::list::{End, List};

pub(super) const LMOVE: Spec = Spec {
    name: "lmove",
    arity: Arity::Exactly(5),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::LIST,
    group: Group::List,
    since: "6.2.0",
    summary: "Moves an element from one end of a list to one end of another, and gives it.",
    complexity: "O(1)",
    key_specs: &[
        KeySpec::key(1, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE)),
        KeySpec::key(2, KeyFlags::RW.union(KeyFlags::INSERT)),
    ],
    args: &[
        Arg { name: "source", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "destination", kind: ArgKind::Key, key_spec: Some(1), ..Arg::NEW },
        Arg { name: "wherefrom", kind: ArgKind::Oneof, args: &[LEFT, RIGHT], ..Arg::NEW },
        Arg { name: "whereto", kind: ArgKind::Oneof, args: &[LEFT, RIGHT], ..Arg::NEW },
    ],
    handler: Some(lmove),
    ..Spec::NEW
};

fn lmove(cx: &mut Cx) -> Outcome {
    let (from, to) = (parse_end(cx.args[3])?, parse_end(cx.args[4])?);
    let moved = transfer(cx, from, to)?;
    Ok(Effect::verbatim_if(moved))
}

pub(super) const RPOPLPUSH: Spec = Spec {
    name: "rpoplpush",
    arity: Arity::Exactly(3),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::LIST,
    group: Group::List,
    since: "1.2.0",
    summary: "Moves the last element of a list to the front of another, and gives it.",
    complexity: "O(1)",
    key_specs: &[
        KeySpec::key(1, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE)),
        KeySpec::key(2, KeyFlags::RW.union(KeyFlags::INSERT)),
    ],
    args: &[
        Arg { name: "source", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "destination", kind: ArgKind::Key, key_spec: Some(1), ..Arg::NEW },
    ],
    handler: Some(rpoplpush),
    ..Spec::NEW
};

fn rpoplpush(cx: &mut Cx) -> Outcome {
    let moved = transfer(cx, End::Back, End::Front)?;
    Ok(Effect::verbatim_if(moved))
}

pub(super) const BLMOVE: Spec = Spec {
    name: "blmove",
    arity: Arity::Exactly(6),
    flags: Flags::BLOCKING.union(Flags::DENYOOM).union(Flags::WRITE),
    acl: Acl::LIST,
    group: Group::List,
    since: "6.2.0",
    summary: "Moves an element from one end of a list to one end of another, and gives it; waits for one if there is none.",
    complexity: "O(1)",
    key_specs: &[
        KeySpec::key(1, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE)),
        KeySpec::key(2, KeyFlags::RW.union(KeyFlags::INSERT)),
    ],
    args: &[
        Arg { name: "source", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "destination", kind: ArgKind::Key, key_spec: Some(1), ..Arg::NEW },
        Arg { name: "wherefrom", kind: ArgKind::Oneof, args: &[LEFT, RIGHT], ..Arg::NEW },
        Arg { name: "whereto", kind: ArgKind::Oneof, args: &[LEFT, RIGHT], ..Arg::NEW },
        Arg { name: "timeout", kind: ArgKind::Double, ..Arg::NEW },
    ],
    handler: Some(blmove),
    ..Spec::NEW
};

fn blmove(cx: &mut Cx) -> Outcome {
    let (from, to) = (parse_end(cx.args[3])?, parse_end(cx.args[4])?);
    let timeout_ms = parse_timeout_ms(cx.args[5], cx.now_ms)?;
    if !transfer(cx, from, to)? {
        cx.wait(WaitFor::key(Kind::List, 1..2, timeout_ms));
        return Ok(Effect::None);
    }
    Ok(Effect::rewrite(cx.journal_on(), || {
        cx.args[1..5].iter().fold(OwnedCommand::new("LMOVE"), |command, arg| command.arg(arg))
    }))
}

pub(super) const BRPOPLPUSH: Spec = Spec {
    name: "brpoplpush",
    arity: Arity::Exactly(4),
    flags: Flags::BLOCKING.union(Flags::DENYOOM).union(Flags::WRITE),
    acl: Acl::LIST,
    group: Group::List,
    since: "2.2.0",
    summary: "Moves the last element of a list to the front of another, and gives it; waits for one if there is none.",
    complexity: "O(1)",
    key_specs: &[
        KeySpec::key(1, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE)),
        KeySpec::key(2, KeyFlags::RW.union(KeyFlags::INSERT)),
    ],
    args: &[
        Arg { name: "source", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "destination", kind: ArgKind::Key, key_spec: Some(1), ..Arg::NEW },
        Arg { name: "timeout", kind: ArgKind::Double, ..Arg::NEW },
    ],
    handler: Some(brpoplpush),
    ..Spec::NEW
};

fn brpoplpush(cx: &mut Cx) -> Outcome {
    let timeout_ms = parse_timeout_ms(cx.args[3], cx.now_ms)?;
    if !transfer(cx, End::Back, End::Front)? {
        cx.wait(WaitFor::key(Kind::List, 1..2, timeout_ms));
        return Ok(Effect::None);
    }
    Ok(Effect::rewrite(cx.journal_on(), || OwnedCommand::new("RPOPLPUSH").arg(cx.args[1]).arg(cx.args[2])))
}

/// Moves an element between the lists that the first two arguments name; answers it, or null if there is none.
fn transfer(cx: &mut Cx, from: End, to: End) -> Result<bool, CommandError> {
    let (source, destination) = (cx.args[1], cx.args[2]);
    let limits = limits(cx.config, cx.shared);
    if !cx.keys.check_kind(source, Kind::List)? {
        cx.reply.null();
        return Ok(false);
    }
    cx.keys.check_kind(destination, Kind::List)?;
    let Some(list) = cx.keys.write_as::<List>(source)? else { return Err(CommandError::NoSuchKey) };
    let text = if source == destination { list.rotate(from, to, &limits) } else { list.pop(from, &limits) };
    let text = text.unwrap_or_default();
    let empty = list.is_empty();
    if source != destination {
        let (list, _) = cx.keys.write_or_create(destination, List::new)?;
        list.push(to, &text, &limits);
    }
    cx.keys.changed(destination, Class::LIST, push_event(to));
    removed(cx, source, pop_event(from), empty, 1);
    cx.reply.bulk(&text);
    Ok(true)
}
