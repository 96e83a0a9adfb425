//! One set and members that are named: adding, removing, moving, asking, walking.

use super::super::prelude::*;
use super::super::shared::{
    KEY, ONE_INSERT, ONE_LOOK, ONE_READ, ONE_REMOVE, ScanExtra, ScanOptions, as_i64, parse_cursor, removed,
    reply_element, reply_scan,
};
use super::config;
use kara_keyspace::Kind;
use kara_keyspace::value::set::Set;

pub(super) const SADD: Spec = Spec {
    name: "sadd",
    arity: Arity::AtLeast(3),
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    acl: Acl::SET,
    group: Group::Set,
    since: "1.0.0",
    summary: "Adds members to a set, which is created if it is missing.",
    complexity: "O(1) for each member.",
    key_specs: ONE_INSERT,
    args: &[KEY, Arg { name: "member", kind: ArgKind::String, multiple: true, ..Arg::NEW }],
    handler: Some(sadd),
    ..Spec::NEW
};

fn sadd(cx: &mut Cx) -> Outcome {
    let config = config(cx);
    let key = cx.arg(1);
    let members = cx.args.get(2..).unwrap_or_default();
    let (set, created) =
        cx.keys.write_or_create(key, || Set::for_members(cx.args[2].into(), members.len(), &config))?;
    if !created {
        set.expect(members.len(), &config);
    }
    let added = members.iter().filter(|member| set.add(**member, &config)).count();
    cx.reply.integer(as_i64(added));
    if added > 0 {
        cx.keys.changed(key, Class::SET, "sadd");
        cx.extra_changes += added as u64 - 1;
    }
    Ok(Effect::verbatim_if(added > 0))
}

pub(super) const SREM: Spec = Spec {
    name: "srem",
    arity: Arity::AtLeast(3),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::SET,
    group: Group::Set,
    since: "1.0.0",
    summary: "Removes members from a set, and the set with the last of them.",
    complexity: "O(N), N being the number of members to remove.",
    key_specs: ONE_REMOVE,
    args: &[KEY, Arg { name: "member", kind: ArgKind::String, multiple: true, ..Arg::NEW }],
    handler: Some(srem),
    ..Spec::NEW
};

fn srem(cx: &mut Cx) -> Outcome {
    let key = cx.arg(1);
    let (mut gone, mut empty) = (0, false);
    if let Some(set) = cx.keys.write_as::<Set>(key)? {
        for member in cx.args.iter().skip(2) {
            gone += usize::from(set.remove(member));
            if set.is_empty() {
                empty = true;
                break;
            }
        }
    }
    cx.reply.integer(as_i64(gone));
    if gone > 0 {
        removed(cx, key, Class::SET, "srem", empty, gone);
    }
    Ok(Effect::verbatim_if(gone > 0))
}

pub(super) const SMOVE: Spec = Spec {
    name: "smove",
    arity: Arity::Exactly(4),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::SET,
    group: Group::Set,
    since: "1.0.0",
    summary: "Moves a member from one set to another.",
    complexity: "O(1)",
    key_specs: &[
        KeySpec::key(1, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE)),
        KeySpec::key(2, KeyFlags::RW.union(KeyFlags::INSERT)),
    ],
    args: &[
        Arg { name: "source", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "destination", kind: ArgKind::Key, key_spec: Some(1), ..Arg::NEW },
        Arg { name: "member", kind: ArgKind::String, ..Arg::NEW },
    ],
    handler: Some(smove),
    ..Spec::NEW
};

fn smove(cx: &mut Cx) -> Outcome {
    let config = config(cx);
    let (from, to, member) = (cx.arg(1), cx.arg(2), cx.arg(3));
    if !cx.keys.check_kind(from, Kind::Set)? {
        cx.reply.integer(0);
        return Ok(Effect::None);
    }
    cx.keys.check_kind(to, Kind::Set)?;
    let Some(set) = cx.keys.write_as::<Set>(from)? else { return Err(CommandError::WrongType) };
    if from == to {
        let there = set.contains(member);
        cx.reply.integer(i64::from(there));
        return Ok(Effect::None);
    }
    if !set.remove(member) {
        cx.reply.integer(0);
        return Ok(Effect::None);
    }
    let empty = set.is_empty();
    removed(cx, from, Class::SET, "srem", empty, 1);
    let (set, _) = cx.keys.write_or_create(to, || Set::for_members(member.into(), 1, &config))?;
    if set.add(member, &config) {
        cx.keys.changed(to, Class::SET, "sadd");
        cx.extra_changes += 1;
    }
    cx.reply.integer(1);
    Ok(Effect::Verbatim)
}

pub(super) const SISMEMBER: Spec = Spec {
    name: "sismember",
    arity: Arity::Exactly(3),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::SET,
    group: Group::Set,
    since: "1.0.0",
    summary: "Tells whether a set has a member.",
    complexity: "O(1)",
    key_specs: ONE_LOOK,
    args: &[KEY, Arg { name: "member", kind: ArgKind::String, ..Arg::NEW }],
    handler: Some(sismember),
    ..Spec::NEW
};

fn sismember(cx: &mut Cx) -> Outcome {
    let member = cx.arg(2);
    let there = cx.keys.read_as::<Set>(cx.arg(1))?.is_some_and(|set| set.contains(member));
    cx.reply.integer(i64::from(there));
    Ok(Effect::None)
}

pub(super) const SMISMEMBER: Spec = Spec {
    name: "smismember",
    arity: Arity::AtLeast(3),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::SET,
    group: Group::Set,
    since: "6.2.0",
    summary: "Tells for several members whether a set has them.",
    complexity: "O(N), N being the number of members asked for.",
    key_specs: ONE_READ,
    args: &[KEY, Arg { name: "member", kind: ArgKind::String, multiple: true, ..Arg::NEW }],
    handler: Some(smismember),
    ..Spec::NEW
};

fn smismember(cx: &mut Cx) -> Outcome {
    let set = cx.keys.read_as::<Set>(cx.arg(1))?;
    let members = cx.args.get(2..).unwrap_or_default();
    cx.reply.array(members.len());
    for member in members {
        cx.reply.integer(i64::from(set.is_some_and(|set| set.contains(member))));
    }
    Ok(Effect::None)
}

pub(super) const SCARD: Spec = Spec {
    name: "scard",
    arity: Arity::Exactly(2),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::SET,
    group: Group::Set,
    since: "1.0.0",
    summary: "Returns the number of members of a set.",
    complexity: "O(1)",
    key_specs: ONE_LOOK,
    args: &[KEY],
    handler: Some(scard),
    ..Spec::NEW
};

fn scard(cx: &mut Cx) -> Outcome {
    let len = cx.keys.read_as::<Set>(cx.arg(1))?.map_or(0, Set::len);
    cx.reply.integer(as_i64(len));
    Ok(Effect::None)
}

pub(super) const SSCAN: Spec = Spec {
    name: "sscan",
    arity: Arity::AtLeast(3),
    flags: Flags::READONLY,
    acl: Acl::SET,
    group: Group::Set,
    since: "2.8.0",
    summary: "Walks through the members of a set step by step.",
    complexity: "O(1) for a call, O(N) for a whole walk, N being the size of the set.",
    tips: &["nondeterministic_output"],
    key_specs: ONE_READ,
    args: &[
        KEY,
        Arg { name: "cursor", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "pattern", kind: ArgKind::Pattern, token: Some("MATCH"), optional: true, ..Arg::NEW },
        Arg { name: "count", kind: ArgKind::Integer, token: Some("COUNT"), optional: true, ..Arg::NEW },
    ],
    handler: Some(sscan),
    ..Spec::NEW
};

fn sscan(cx: &mut Cx) -> Outcome {
    let cursor = parse_cursor(cx.arg(2))?;
    let Some(set) = cx.keys.read_as::<Set>(cx.arg(1))? else {
        reply_scan(cx.reply, |_| (0, 0));
        return Ok(Effect::None);
    };
    let options = ScanOptions::parse(cx.args.get(3..).unwrap_or_default(), ScanExtra::Nothing)?;
    reply_scan(cx.reply, |elements| {
        let mut found = 0;
        let next = set.scan(cursor, options.count, |member| {
            if options.wants(member) {
                reply_element(elements, member);
                found += 1;
            }
        });
        (next, found)
    });
    Ok(Effect::None)
}
