//! Removing members by name and by range.

use super::super::prelude::*;
use super::super::shared::{KEY, ONE_REMOVE, as_i64, removed};
use super::range::{parse_lex_range, parse_score_range, rank_range};
use kara_keyspace::value::zset::ZSet;
use std::ops::Range;

pub(super) const ZREM: Spec = Spec {
    name: "zrem",
    arity: Arity::AtLeast(3),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "1.2.0",
    summary: "Removes members from a sorted set.",
    complexity: "O(M log N), N being the size of the set and M the number of members.",
    key_specs: ONE_REMOVE,
    args: &[KEY, Arg { name: "member", kind: ArgKind::String, multiple: true, ..Arg::NEW }],
    handler: Some(zrem),
    ..Spec::NEW
};

fn zrem(cx: &mut Cx) -> Outcome {
    let key = cx.arg(1);
    let mut count = 0;
    let mut empty = false;
    if let Some(set) = cx.keys.write_as::<ZSet>(key)? {
        for member in cx.args.get(2..).unwrap_or_default() {
            count += usize::from(set.remove(member).is_some());
        }
        empty = set.is_empty();
    }
    if count > 0 {
        removed(cx, key, Class::ZSET, "zrem", empty, count);
    }
    cx.reply.integer(as_i64(count));
    Ok(Effect::verbatim_if(count > 0))
}

pub(super) const ZREMRANGEBYRANK: Spec = Spec {
    name: "zremrangebyrank",
    arity: Arity::Exactly(4),
    flags: Flags::WRITE,
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "2.0.0",
    summary: "Removes the members in a range of ranks.",
    complexity: "O(log N + M), N being the size of the set and M the number of members removed.",
    key_specs: ONE_REMOVE,
    args: &[
        KEY,
        Arg { name: "start", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "stop", kind: ArgKind::Integer, ..Arg::NEW },
    ],
    handler: Some(zremrangebyrank),
    ..Spec::NEW
};

fn zremrangebyrank(cx: &mut Cx) -> Outcome {
    let (start, stop) = (cx.int(2)?, cx.int(3)?);
    remove_range(cx, "zremrangebyrank", |set| rank_range(start, stop, set.len()))
}

pub(super) const ZREMRANGEBYSCORE: Spec = Spec {
    name: "zremrangebyscore",
    arity: Arity::Exactly(4),
    flags: Flags::WRITE,
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "1.2.0",
    summary: "Removes the members whose scores lie in an interval.",
    complexity: "O(log N + M), N being the size of the set and M the number of members removed.",
    key_specs: ONE_REMOVE,
    args: &[
        KEY,
        Arg { name: "min", kind: ArgKind::Double, ..Arg::NEW },
        Arg { name: "max", kind: ArgKind::Double, ..Arg::NEW },
    ],
    handler: Some(zremrangebyscore),
    ..Spec::NEW
};

fn zremrangebyscore(cx: &mut Cx) -> Outcome {
    let range = parse_score_range(cx.arg(2), cx.arg(3))?;
    remove_range(cx, "zremrangebyscore", |set| set.ranks_by_score(&range))
}

pub(super) const ZREMRANGEBYLEX: Spec = Spec {
    name: "zremrangebylex",
    arity: Arity::Exactly(4),
    flags: Flags::WRITE,
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "2.8.9",
    summary: "Removes the members in an interval of names, in a set of equal scores.",
    complexity: "O(log N + M), N being the size of the set and M the number of members removed.",
    key_specs: ONE_REMOVE,
    args: &[
        KEY,
        Arg { name: "min", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "max", kind: ArgKind::String, ..Arg::NEW },
    ],
    handler: Some(zremrangebylex),
    ..Spec::NEW
};

fn zremrangebylex(cx: &mut Cx) -> Outcome {
    let range = parse_lex_range(cx.arg(2), cx.arg(3))?;
    remove_range(cx, "zremrangebylex", |set| set.ranks_by_lex(&range))
}

fn remove_range(cx: &mut Cx, event: &'static str, ranks: impl FnOnce(&ZSet) -> Range<usize>) -> Outcome {
    let key = cx.arg(1);
    let mut count = 0;
    let mut empty = false;
    if let Some(set) = cx.keys.write_as::<ZSet>(key)? {
        let ranks = ranks(set);
        count = set.remove_ranks(ranks, |_, _| ());
        empty = set.is_empty();
    }
    if count > 0 {
        removed(cx, key, Class::ZSET, event, empty, count);
    }
    cx.reply.integer(as_i64(count));
    Ok(Effect::verbatim_if(count > 0))
}
