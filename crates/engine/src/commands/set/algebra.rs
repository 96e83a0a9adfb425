//! Intersection, union and difference of sets.

use super::super::prelude::*;
use super::super::shared::{KEY, ONE_READ, as_i64, delete, reply_element};
use super::config;
use kara_encoding::large_set::LargeSet;
use kara_keyspace::Collection;
use kara_keyspace::value::set::{Element, Set, SetConfig};
use kara_resp::Writer;

/// All arguments are keys that are read.
const ALL_READ: &[KeySpec] = &[KeySpec::keys(1, -1, KeyFlags::RO.union(KeyFlags::ACCESS))];

/// The first argument is the result's key, the others are keys that are read.
const STORE_SPECS: &[KeySpec] = &[
    KeySpec::key(1, KeyFlags::OW.union(KeyFlags::UPDATE)),
    KeySpec::keys(2, -1, KeyFlags::RO.union(KeyFlags::ACCESS)),
];

#[derive(Clone, Copy, PartialEq)]
enum Op {
    Inter,
    Union,
    Diff,
}

/// Reads the keys, counting each as read, and checks that they hold sets: which of them are there.
fn read_all(cx: &mut Cx, keys: &[&[u8]]) -> Result<Vec<bool>, CommandError> {
    keys.iter().map(|key| Ok(cx.keys.read_as::<Set>(key)?.is_some())).collect()
}

/// The sets under keys that were read; missing ones are `None`.
fn sets<'x>(cx: &'x Cx, keys: &[&[u8]], present: &[bool]) -> Vec<Option<&'x Set>> {
    let find = |(key, there): (&&[u8], &bool)| {
        let entry = there.then(|| cx.keys.space.find(cx.keys.db, &cx.keys.key(key))).flatten()?;
        entry.get::<Set>()
    };
    keys.iter().zip(present).map(find).collect()
}

/// Shows the members that all sets have, until `visit` has had enough (false).
fn each_common<'x>(sets: &[Option<&'x Set>], mut visit: impl FnMut(Element<'x>) -> bool) {
    let Some(mut sets) = sets.iter().copied().collect::<Option<Vec<&Set>>>() else { return };
    sets.sort_by_key(|set| set.len());
    let Some((smallest, others)) = sets.split_first() else { return };
    for member in smallest.iter() {
        let common = others.iter().all(|set| std::ptr::eq(*set, *smallest) || set.contains_element(member));
        if common && !visit(member) {
            return;
        }
    }
}

/// Shows the members of the first set that no other has.
fn each_rest<'x>(sets: &[Option<&'x Set>], mut visit: impl FnMut(Element<'x>)) {
    let Some((Some(first), others)) = sets.split_first() else { return };
    let mut others: Vec<&Set> = others.iter().copied().flatten().collect();
    // The larger a set, the more likely it has the member: the search ends sooner.
    others.sort_by_key(|set| std::cmp::Reverse(set.len()));
    for member in first.iter() {
        if !others.iter().any(|set| set.contains_element(member)) {
            visit(member);
        }
    }
}

/// Whether a difference is cheaper made by taking the others' members off a copy of the first set than by asking the
/// others for each member of the first. The reference chooses so, and what it stores shows it: a set that held a
/// string for a moment is no intset.
fn takes_off(sets: &[Option<&Set>]) -> bool {
    let Some(Some(first)) = sets.first() else { return false };
    let there = || sets.iter().copied().flatten();
    let asking = there().count().saturating_mul(first.len()) / 2;
    let taking = there().map(|set| set.len()).fold(0, usize::saturating_add);
    asking > taking && !there().skip(1).any(|set| std::ptr::eq(set, *first))
}

/// The members of the first set without those of the others.
fn taken_off(sets: &[Option<&Set>], config: &SetConfig) -> Set {
    let mut result = Set::new();
    let mut sets = sets.iter().copied().flatten();
    for member in sets.next().into_iter().flat_map(Set::iter) {
        result.add(member, config);
    }
    for set in sets {
        for member in set.iter() {
            result.remove(&member.to_bytes());
        }
        if result.is_empty() {
            break;
        }
    }
    result
}

/// Shows each member of any set once.
fn each_of_any<'x>(sets: &[Option<&'x Set>], cx: &Cx, mut visit: impl FnMut(Element<'x>)) {
    let mut sets: Vec<&Set> = sets.iter().copied().flatten().collect();
    // Members of the largest set are told apart by asking it; only those of the others are kept.
    sets.sort_by_key(|set| std::cmp::Reverse(set.len()));
    let Some((largest, others)) = sets.split_first() else { return };
    largest.iter().for_each(&mut visit);
    let mut seen = LargeSet::new(config(cx).seed);
    for (i, set) in others.iter().enumerate() {
        let last = i + 1 == others.len();
        for member in set.iter().filter(|member| !largest.contains_element(*member)) {
            let new = if last { !seen.contains_element(member) } else { seen.insert(member) };
            if new {
                visit(member);
            }
        }
    }
}

/// Shows the result of an operation.
fn each<'x>(cx: &Cx, op: Op, sets: &[Option<&'x Set>], mut visit: impl FnMut(Element<'x>)) {
    match op {
        Op::Inter => each_common(sets, |member| {
            visit(member);
            true
        }),
        Op::Union => each_of_any(sets, cx, visit),
        Op::Diff => each_rest(sets, visit),
    }
}

fn answer(cx: &mut Cx, op: Op) -> Outcome {
    let keys = cx.args.get(1..).unwrap_or_default();
    let present = read_all(cx, keys)?;
    let mut members = Writer::new(cx.reply.protocol());
    let mut count = 0;
    each(cx, op, &sets(cx, keys, &present), |member| {
        reply_element(&mut members, member);
        count += 1;
    });
    cx.reply.set(count);
    cx.reply.raw(members.as_bytes());
    Ok(Effect::None)
}

fn answer_stored(cx: &mut Cx, op: Op, event: &'static str) -> Outcome {
    let keys = cx.args.get(2..).unwrap_or_default();
    let present = read_all(cx, keys)?;
    let config = config(cx);
    let sets = sets(cx, keys, &present);
    let smallest = sets.iter().copied().flatten().min_by_key(|set| set.len());
    // An intersection starts as a listpack, unless its members can only be integers.
    let listpack = op == Op::Inter && !matches!(smallest, Some(Set::Intset(_)));
    let mut result = if listpack { Set::new_listpack() } else { Set::new() };
    if op == Op::Diff && takes_off(&sets) {
        result = taken_off(&sets, &config);
    } else {
        each(cx, op, &sets, |member| {
            result.add(member, &config);
        });
    }
    if listpack {
        result.compact_integers(&config);
    }
    let key = cx.arg(1);
    cx.reply.integer(as_i64(result.len()));
    if result.is_empty() {
        return Ok(delete(cx, key));
    }
    cx.keys.set_value(key, result.into_value());
    cx.keys.changed(key, Class::SET, event);
    Ok(Effect::Verbatim)
}

pub(super) const SINTER: Spec = Spec {
    name: "sinter",
    arity: Arity::AtLeast(2),
    flags: Flags::READONLY,
    acl: Acl::SET,
    group: Group::Set,
    since: "1.0.0",
    summary: "Returns the members that all sets have.",
    complexity: "O(N*M), N being the size of the smallest set and M the number of sets.",
    tips: &["nondeterministic_output_order"],
    key_specs: ALL_READ,
    args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), multiple: true, ..Arg::NEW }],
    handler: Some(sinter),
    ..Spec::NEW
};

fn sinter(cx: &mut Cx) -> Outcome {
    answer(cx, Op::Inter)
}

pub(super) const SMEMBERS: Spec = Spec {
    name: "smembers",
    arity: Arity::Exactly(2),
    flags: Flags::READONLY,
    acl: Acl::SET,
    group: Group::Set,
    since: "1.0.0",
    summary: "Returns all members of a set.",
    complexity: "O(N), N being the size of the set.",
    tips: &["nondeterministic_output_order"],
    key_specs: ONE_READ,
    args: &[KEY],
    handler: Some(smembers),
    ..Spec::NEW
};

fn smembers(cx: &mut Cx) -> Outcome {
    let set = cx.keys.read_as::<Set>(cx.arg(1))?;
    cx.reply.set(set.map_or(0, Set::len));
    set.into_iter().flat_map(Set::iter).for_each(|member| reply_element(cx.reply, member));
    Ok(Effect::None)
}

pub(super) const SINTERSTORE: Spec = Spec {
    name: "sinterstore",
    arity: Arity::AtLeast(3),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::SET,
    group: Group::Set,
    since: "1.0.0",
    summary: "Stores the members that all sets have.",
    complexity: "O(N*M), N being the size of the smallest set and M the number of sets.",
    key_specs: STORE_SPECS,
    args: &[
        Arg { name: "destination", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(1), multiple: true, ..Arg::NEW },
    ],
    handler: Some(sinterstore),
    ..Spec::NEW
};

fn sinterstore(cx: &mut Cx) -> Outcome {
    answer_stored(cx, Op::Inter, "sinterstore")
}

pub(super) const SUNION: Spec = Spec {
    name: "sunion",
    arity: Arity::AtLeast(2),
    flags: Flags::READONLY,
    acl: Acl::SET,
    group: Group::Set,
    since: "1.0.0",
    summary: "Returns the members that at least one of the sets has.",
    complexity: "O(N), N being the members of all sets.",
    tips: &["nondeterministic_output_order"],
    key_specs: ALL_READ,
    args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), multiple: true, ..Arg::NEW }],
    handler: Some(sunion),
    ..Spec::NEW
};

fn sunion(cx: &mut Cx) -> Outcome {
    answer(cx, Op::Union)
}

pub(super) const SUNIONSTORE: Spec = Spec {
    name: "sunionstore",
    arity: Arity::AtLeast(3),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::SET,
    group: Group::Set,
    since: "1.0.0",
    summary: "Stores the members that at least one of the sets has.",
    complexity: "O(N), N being the members of all sets.",
    key_specs: STORE_SPECS,
    args: &[
        Arg { name: "destination", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(1), multiple: true, ..Arg::NEW },
    ],
    handler: Some(sunionstore),
    ..Spec::NEW
};

fn sunionstore(cx: &mut Cx) -> Outcome {
    answer_stored(cx, Op::Union, "sunionstore")
}

pub(super) const SDIFF: Spec = Spec {
    name: "sdiff",
    arity: Arity::AtLeast(2),
    flags: Flags::READONLY,
    acl: Acl::SET,
    group: Group::Set,
    since: "1.0.0",
    summary: "Returns the members of the first set that none of the others has.",
    complexity: "O(N), N being the members of all sets.",
    tips: &["nondeterministic_output_order"],
    key_specs: ALL_READ,
    args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), multiple: true, ..Arg::NEW }],
    handler: Some(sdiff),
    ..Spec::NEW
};

fn sdiff(cx: &mut Cx) -> Outcome {
    answer(cx, Op::Diff)
}

pub(super) const SDIFFSTORE: Spec = Spec {
    name: "sdiffstore",
    arity: Arity::AtLeast(3),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::SET,
    group: Group::Set,
    since: "1.0.0",
    summary: "Stores the members of the first set that none of the others has.",
    complexity: "O(N), N being the members of all sets.",
    key_specs: STORE_SPECS,
    args: &[
        Arg { name: "destination", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(1), multiple: true, ..Arg::NEW },
    ],
    handler: Some(sdiffstore),
    ..Spec::NEW
};

fn sdiffstore(cx: &mut Cx) -> Outcome {
    answer_stored(cx, Op::Diff, "sdiffstore")
}

pub(super) const SINTERCARD: Spec = Spec {
    name: "sintercard",
    arity: Arity::AtLeast(3),
    flags: Flags::READONLY,
    acl: Acl::SET,
    group: Group::Set,
    since: "7.0.0",
    summary: "Returns the number of members that all sets have.",
    complexity: "O(N*M), N being the size of the smallest set and M the number of sets.",
    key_specs: &[KeySpec::counted(1, KeyFlags::RO.union(KeyFlags::ACCESS))],
    args: &[
        Arg { name: "numkeys", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), multiple: true, ..Arg::NEW },
        Arg { name: "limit", kind: ArgKind::Integer, token: Some("LIMIT"), optional: true, ..Arg::NEW },
    ],
    handler: Some(sintercard),
    ..Spec::NEW
};

fn sintercard(cx: &mut Cx) -> Outcome {
    let count = parse_int(cx.arg(1))
        .ok()
        .filter(|count| *count > 0)
        .and_then(|count| usize::try_from(count).ok())
        .ok_or(CommandError::text("ERR numkeys should be greater than 0"))?;
    let rest = cx.args.get(2..).unwrap_or_default();
    let Some((keys, mut options)) = rest.split_at_checked(count) else {
        return Err(CommandError::text("ERR Number of keys can't be greater than number of args"));
    };
    let mut limit = 0;
    while let [word, tail @ ..] = options {
        let (true, [value, tail @ ..]) = (word.eq_ignore_ascii_case(b"limit"), tail) else {
            return Err(CommandError::Syntax);
        };
        limit = parse_int(value)
            .ok()
            .and_then(|limit| usize::try_from(limit).ok())
            .ok_or(CommandError::text("ERR LIMIT can't be negative"))?;
        options = tail;
    }
    let present = read_all(cx, keys)?;
    let mut common = 0;
    each_common(&sets(cx, keys, &present), |_| {
        common += 1;
        common != limit
    });
    cx.reply.integer(as_i64(common));
    Ok(Effect::None)
}
