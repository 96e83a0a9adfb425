//! Adding members and changing scores.

use super::super::prelude::*;
use super::super::shared::KEY;
use super::{NAN_SCORE, config};
use kara_keyspace::value::zset::{AddFlags, Added, ZSet};
use smallvec::SmallVec;

pub(super) const ZADD: Spec = Spec {
    name: "zadd",
    arity: Arity::AtLeast(4),
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "1.2.0",
    summary: "Adds members to a sorted set, or changes their scores.",
    complexity: "O(log N) for each member, N being the size of the set.",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::UPDATE))],
    args: &[
        KEY,
        Arg {
            name: "condition",
            kind: ArgKind::Oneof,
            since: "3.0.2",
            optional: true,
            args: &[Arg::word("nx", "NX"), Arg::word("xx", "XX")],
            ..Arg::NEW
        },
        Arg {
            name: "comparison",
            kind: ArgKind::Oneof,
            since: "6.2.0",
            optional: true,
            args: &[Arg::word("gt", "GT"), Arg::word("lt", "LT")],
            ..Arg::NEW
        },
        Arg::word("change", "CH").since("3.0.2").optional(),
        Arg::word("increment", "INCR").since("3.0.2").optional(),
        Arg {
            name: "data",
            kind: ArgKind::Block,
            multiple: true,
            args: &[
                Arg { name: "score", kind: ArgKind::Double, ..Arg::NEW },
                Arg { name: "member", kind: ArgKind::String, ..Arg::NEW },
            ],
            ..Arg::NEW
        },
    ],
    handler: Some(zadd),
    ..Spec::NEW
};

fn zadd(cx: &mut Cx) -> Outcome {
    let (mut flags, mut count_changed) = (AddFlags::default(), false);
    let mut first = 2;
    while let Some(word) = cx.args.get(first) {
        let is = |name: &str, flag: &mut bool| {
            let found = word.eq_ignore_ascii_case(name.as_bytes());
            *flag |= found;
            found
        };
        let known = is("nx", &mut flags.nx)
            || is("xx", &mut flags.xx)
            || is("gt", &mut flags.gt)
            || is("lt", &mut flags.lt)
            || is("ch", &mut count_changed)
            || is("incr", &mut flags.incr);
        if !known {
            break;
        }
        first += 1;
    }
    let pairs = cx.args.get(first..).unwrap_or_default();
    if pairs.is_empty() || pairs.len() % 2 != 0 {
        return Err(CommandError::Syntax);
    }
    if flags.nx && flags.xx {
        return Err(CommandError::text("ERR XX and NX options at the same time are not compatible"));
    }
    if flags.nx && (flags.gt || flags.lt) || flags.gt && flags.lt {
        return Err(CommandError::text("ERR GT, LT, and/or NX options at the same time are not compatible"));
    }
    if flags.incr && pairs.len() > 2 {
        return Err(CommandError::text("ERR INCR option supports a single increment-element pair"));
    }
    add(cx, pairs, flags, count_changed)
}

pub(super) const ZINCRBY: Spec = Spec {
    name: "zincrby",
    arity: Arity::Exactly(4),
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "1.2.0",
    summary: "Adds a number to the score of a member, which is added to the set if it is missing.",
    complexity: "O(log N), N being the size of the set.",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::UPDATE))],
    args: &[
        KEY,
        Arg { name: "increment", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "member", kind: ArgKind::String, ..Arg::NEW },
    ],
    handler: Some(zincrby),
    ..Spec::NEW
};

fn zincrby(cx: &mut Cx) -> Outcome {
    let pair = cx.args.get(2..).unwrap_or_default();
    add(cx, pair, AddFlags { incr: true, ..AddFlags::default() }, false)
}

/// Adds pairs of score and member to the key that is the first argument. Replies the number of new members (with
/// `count_changed`: of new and changed ones), or with INCR the new score.
pub(in super::super) fn add(cx: &mut Cx, pairs: &[&[u8]], flags: AddFlags, count_changed: bool) -> Outcome {
    let key = cx.arg(1);
    let scores =
        pairs.iter().step_by(2).map(|text| parse_float(text)).collect::<Result<SmallVec<[f64; 8]>, _>>()?;
    let members = pairs.iter().skip(1).step_by(2);
    let config = config(cx);
    let longest = members.clone().map(|member| member.len()).max().unwrap_or(0);
    let set = if flags.xx {
        match cx.keys.write_as::<ZSet>(key)? {
            Some(set) => set,
            None => {
                if flags.incr {
                    cx.reply.null();
                } else {
                    cx.reply.integer(0);
                }
                return Ok(Effect::None);
            }
        }
    } else {
        cx.keys.write_or_create(key, || ZSet::with_hints(scores.len(), longest, &config))?.0
    };
    set.expect(scores.len(), longest, &config);
    let (mut added, mut changed, mut last) = (0, 0, None);
    for (&score, member) in scores.iter().zip(members) {
        last = match set.add(member, score, flags, &config).map_err(|_| NAN_SCORE)? {
            Added::New(score) => {
                added += 1;
                Some(score)
            }
            Added::Changed(score) => {
                changed += 1;
                Some(score)
            }
            Added::Same(score) => Some(score),
            Added::Refused => None,
        };
    }
    match last {
        _ if !flags.incr => cx.reply.integer(if count_changed { added + changed } else { added }),
        Some(score) => cx.reply.double(score),
        None => cx.reply.null(),
    }
    let touched = added + changed;
    if touched > 0 {
        cx.keys.changed(key, Class::ZSET, if flags.incr { "zincr" } else { "zadd" });
        cx.extra_changes += touched.unsigned_abs() - 1;
    }
    Ok(Effect::verbatim_if(touched > 0))
}
