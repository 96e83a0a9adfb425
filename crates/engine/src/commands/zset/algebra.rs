//! Union, intersection and difference of sorted sets and plain sets, whose members count with score 1.

use super::super::prelude::*;
use super::{WITHSCORES, config, reply_items, store};
use kara_encoding::listpack::Element;
use kara_encoding::sorted_set::SortedSet;
use kara_keyspace::value::set::Set;
use kara_keyspace::value::zset::{ZSet, ZSetConfig};
use kara_keyspace::{Entry, Kind};
use std::borrow::Cow;

#[derive(Clone, Copy, PartialEq)]
enum Op {
    Union,
    Inter,
    Diff,
}

#[derive(Clone, Copy)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    /// Two scores as one. A sum that is not a number counts as 0; otherwise such a `b` (0 times inf) is ignored. Of two
    /// zeros the first stays.
    fn join(self, a: f64, b: f64) -> f64 {
        match self {
            Aggregate::Sum => not_nan(a + b),
            Aggregate::Min if b < a => b,
            Aggregate::Max if b > a => b,
            Aggregate::Min | Aggregate::Max => a,
        }
    }
}

fn not_nan(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

/// One of the sets that are combined.
#[derive(Clone, Copy)]
enum Source<'a> {
    Empty,
    Set(&'a Set),
    ZSet(&'a ZSet),
}

impl<'a> Source<'a> {
    fn new(entry: &'a Entry) -> Source<'a> {
        match entry.get::<ZSet>() {
            Some(set) => Source::ZSet(set),
            None => entry.get::<Set>().map_or(Source::Empty, Source::Set),
        }
    }

    fn len(&self) -> usize {
        match self {
            Source::Empty => 0,
            Source::Set(set) => set.len(),
            Source::ZSet(set) => set.len(),
        }
    }

    fn score(&self, member: &[u8]) -> Option<f64> {
        match self {
            Source::Empty => None,
            Source::Set(set) => set.contains(member).then_some(1.0),
            Source::ZSet(set) => set.score(member),
        }
    }

    fn items(&self) -> Box<dyn Iterator<Item = (Element<'a>, f64)> + 'a> {
        match *self {
            Source::Empty => Box::new(std::iter::empty()),
            Source::Set(set) => Box::new(set.iter().map(|member| (member, 1.0))),
            Source::ZSet(set) => Box::new(set.iter()),
        }
    }
}

/// The arguments from the number of keys on.
struct Query<'a> {
    keys: &'a [&'a [u8]],
    weights: Vec<f64>,
    aggregate: Aggregate,
    with_scores: bool,
    limit: usize,
}

/// Which options a command has.
#[derive(Clone, Copy)]
struct Options {
    /// WEIGHTS and AGGREGATE
    weighs: bool,
    /// WITHSCORES
    scores: bool,
    /// LIMIT
    limits: bool,
}

type Words<'a> = &'a [&'a [u8]];

/// The keys that `args`, beginning with their number, name, and the rest.
fn split_keys<'a>(cx: &Cx, args: Words<'a>) -> Result<(Words<'a>, Words<'a>), CommandError> {
    let [count, rest @ ..] = args else { return Err(CommandError::Syntax) };
    let count = parse_int(count)?;
    if count < 1 {
        return Err(CommandError::owned(format!(
            "ERR at least 1 input key is needed for '{}' command",
            cx.command.full_name
        )));
    }
    let count = usize::try_from(count).map_err(|_| CommandError::Syntax)?;
    rest.split_at_checked(count).ok_or(CommandError::Syntax)
}

impl<'a> Query<'a> {
    fn parse(keys: &'a [&'a [u8]], mut rest: &[&[u8]], options: Options) -> Result<Self, CommandError> {
        let mut query = Query {
            keys,
            weights: Vec::new(),
            aggregate: Aggregate::Sum,
            with_scores: false,
            limit: usize::MAX,
        };
        while let [word, tail @ ..] = rest {
            let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
            if options.weighs && is("weights") && tail.len() >= keys.len() {
                let (weights, tail) = tail.split_at(keys.len());
                query.weights = weights
                    .iter()
                    .map(|text| {
                        parse_float(text).map_err(|_| CommandError::text("ERR weight value is not a float"))
                    })
                    .collect::<Result<_, _>>()?;
                rest = tail;
            } else if options.weighs
                && is("aggregate")
                && let [how, tail @ ..] = tail
            {
                query.aggregate = match how.to_ascii_lowercase().as_slice() {
                    b"sum" => Aggregate::Sum,
                    b"min" => Aggregate::Min,
                    b"max" => Aggregate::Max,
                    _ => return Err(CommandError::Syntax),
                };
                rest = tail;
            } else if options.scores && is("withscores") {
                query.with_scores = true;
                rest = tail;
            } else if options.limits
                && is("limit")
                && let [limit, tail @ ..] = tail
            {
                let limit = kara_base::number::parse_i64(limit)
                    .and_then(|limit| usize::try_from(limit).ok())
                    .ok_or(CommandError::text("ERR LIMIT can't be negative"))?;
                query.limit = if limit == 0 { usize::MAX } else { limit };
                rest = tail;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(query)
    }
}

/// The sets under the keys, with their weights. They were checked and counted as reads before.
fn sources<'x>(cx: &'x Cx, query: &Query<'_>, present: &[bool]) -> Vec<(Source<'x>, f64)> {
    let weight = |i: usize| query.weights.get(i).copied().unwrap_or(1.0);
    let source = |(i, (key, there)): (usize, (&&[u8], &bool))| {
        let entry = there.then(|| cx.keys.space.find(cx.keys.db, &cx.keys.key(key))).flatten();
        (entry.map_or(Source::Empty, Source::new), weight(i))
    };
    query.keys.iter().zip(present).enumerate().map(source).collect()
}

/// Reads the keys: which of them are there. Each must hold a set or a sorted set.
fn read_all(cx: &mut Cx, keys: &[&[u8]]) -> Result<Vec<bool>, CommandError> {
    keys.iter()
        .map(|key| match cx.keys.read(key) {
            None => Ok(false),
            Some(entry) if matches!(entry.kind(), Kind::Set | Kind::ZSet) => Ok(true),
            Some(_) => Err(CommandError::WrongType),
        })
        .collect()
}

fn union(mut sources: Vec<(Source<'_>, f64)>, aggregate: Aggregate, config: &ZSetConfig) -> ZSet {
    // The order decides how sums are rounded.
    sources.sort_by_key(|(source, _)| source.len());
    let mut result = SortedSet::new(config.seed);
    let mut buffer = itoa::Buffer::new();
    for (source, weight) in sources {
        for (member, score) in source.items() {
            let score = not_nan(score * weight);
            let join = |old: Option<f64>| Some(old.map_or(score, |old| aggregate.join(old, score)));
            result.upsert(member.as_bytes(&mut buffer), join);
        }
    }
    let mut result = ZSet::large(Box::new(result));
    result.compact(config);
    result
}

/// Calls `found` with each common member and its score until that says stop.
fn inter(
    mut sources: Vec<(Source<'_>, f64)>,
    aggregate: Aggregate,
    mut found: impl FnMut(Element<'_>, f64) -> bool,
) {
    sources.sort_by_key(|(source, _)| source.len());
    let Some(((smallest, weight), others)) = sources.split_first() else { return };
    let mut buffer = itoa::Buffer::new();
    for (member, score) in smallest.items() {
        let bytes = member.as_bytes(&mut buffer);
        let joined = others.iter().try_fold(not_nan(score * weight), |sum, (source, weight)| {
            source.score(bytes).map(|score| aggregate.join(sum, score * weight))
        });
        if joined.is_some_and(|score| !found(member, score)) {
            return;
        }
    }
}

fn diff(sources: &[(Source<'_>, f64)], config: &ZSetConfig) -> ZSet {
    let Some(((first, _), others)) = sources.split_first() else {
        return ZSet::from_items::<Vec<u8>>(Vec::new(), config);
    };
    let mut items: Vec<(f64, Cow<'_, [u8]>)> = Vec::new();
    for (member, score) in first.items() {
        let bytes = match member {
            Element::Int(value) => Cow::Owned(value.to_string().into_bytes()),
            Element::Str(bytes) => Cow::Borrowed(bytes),
        };
        if !others.iter().any(|(source, _)| source.score(&bytes).is_some()) {
            items.push((score, bytes));
        }
    }
    ZSet::from_items(items, config)
}

fn combine(cx: &Cx, op: Op, query: &Query<'_>, present: &[bool], config: &ZSetConfig) -> ZSet {
    let sources = sources(cx, query, present);
    match op {
        Op::Union => union(sources, query.aggregate, config),
        Op::Diff => diff(&sources, config),
        Op::Inter => {
            let mut items = Vec::new();
            inter(sources, query.aggregate, |member, score| {
                items.push((score, member.to_bytes()));
                true
            });
            ZSet::from_items(items, config)
        }
    }
}

fn answer(cx: &mut Cx, op: Op) -> Outcome {
    let (keys, rest) = split_keys(cx, cx.args.get(1..).unwrap_or_default())?;
    let present = read_all(cx, keys)?;
    let query = Query::parse(keys, rest, Options { weighs: op != Op::Diff, scores: true, limits: false })?;
    // A listpack would forget the sign of a zero, which the reference keeps in replies.
    let config = ZSetConfig { max_listpack_entries: 0, ..config(cx) };
    let result = combine(cx, op, &query, &present, &config);
    reply_items(cx.reply, result.iter(), query.with_scores);
    Ok(Effect::None)
}

fn answer_stored(cx: &mut Cx, op: Op, event: &'static str) -> Outcome {
    let (keys, rest) = split_keys(cx, cx.args.get(2..).unwrap_or_default())?;
    let present = read_all(cx, keys)?;
    let query = Query::parse(keys, rest, Options { weighs: op != Op::Diff, scores: false, limits: false })?;
    let result = combine(cx, op, &query, &present, &config(cx));
    Ok(store(cx, cx.args[1], result, event))
}

const AGGREGATE: Arg = Arg {
    name: "aggregate",
    kind: ArgKind::Oneof,
    token: Some("AGGREGATE"),
    optional: true,
    args: &[Arg::word("sum", "SUM"), Arg::word("min", "MIN"), Arg::word("max", "MAX")],
    ..Arg::NEW
};

const WEIGHT: Arg = Arg {
    name: "weight",
    kind: ArgKind::Integer,
    token: Some("WEIGHTS"),
    optional: true,
    multiple: true,
    ..Arg::NEW
};

pub(super) const ZUNION: Spec = Spec {
    name: "zunion",
    arity: Arity::AtLeast(3),
    flags: Flags::READONLY,
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "6.2.0",
    summary: "Gives the union of sorted sets.",
    complexity: "O(N log M), N being the number of members of all sets and M that of the result.",
    key_specs: &[KeySpec::counted(1, KeyFlags::RO.union(KeyFlags::ACCESS))],
    args: &[
        Arg { name: "numkeys", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), multiple: true, ..Arg::NEW },
        WEIGHT,
        AGGREGATE,
        WITHSCORES,
    ],
    handler: Some(zunion),
    ..Spec::NEW
};

fn zunion(cx: &mut Cx) -> Outcome {
    answer(cx, Op::Union)
}

pub(super) const ZUNIONSTORE: Spec = Spec {
    name: "zunionstore",
    arity: Arity::AtLeast(4),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "2.0.0",
    summary: "Stores the union of sorted sets under a key.",
    complexity: "O(N log M), N being the number of members of all sets and M that of the result.",
    key_specs: &[
        KeySpec::key(1, KeyFlags::OW.union(KeyFlags::UPDATE)),
        KeySpec::counted(2, KeyFlags::RO.union(KeyFlags::ACCESS)),
    ],
    args: &[
        Arg { name: "destination", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "numkeys", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(1), multiple: true, ..Arg::NEW },
        WEIGHT,
        AGGREGATE,
    ],
    handler: Some(zunionstore),
    ..Spec::NEW
};

fn zunionstore(cx: &mut Cx) -> Outcome {
    answer_stored(cx, Op::Union, "zunionstore")
}

pub(super) const ZINTER: Spec = Spec {
    name: "zinter",
    arity: Arity::AtLeast(3),
    flags: Flags::READONLY,
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "6.2.0",
    summary: "Gives the intersection of sorted sets.",
    complexity: "O(N K + M log M), N being the size of the smallest set, K the number of sets and M the size of the result.",
    key_specs: &[KeySpec::counted(1, KeyFlags::RO.union(KeyFlags::ACCESS))],
    args: &[
        Arg { name: "numkeys", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), multiple: true, ..Arg::NEW },
        WEIGHT,
        AGGREGATE,
        WITHSCORES,
    ],
    handler: Some(zinter),
    ..Spec::NEW
};

fn zinter(cx: &mut Cx) -> Outcome {
    answer(cx, Op::Inter)
}

pub(super) const ZINTERSTORE: Spec = Spec {
    name: "zinterstore",
    arity: Arity::AtLeast(4),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "2.0.0",
    summary: "Stores the intersection of sorted sets under a key.",
    complexity: "O(N K + M log M), N being the size of the smallest set, K the number of sets and M the size of the result.",
    key_specs: &[
        KeySpec::key(1, KeyFlags::OW.union(KeyFlags::UPDATE)),
        KeySpec::counted(2, KeyFlags::RO.union(KeyFlags::ACCESS)),
    ],
    args: &[
        Arg { name: "destination", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "numkeys", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(1), multiple: true, ..Arg::NEW },
        WEIGHT,
        AGGREGATE,
    ],
    handler: Some(zinterstore),
    ..Spec::NEW
};

fn zinterstore(cx: &mut Cx) -> Outcome {
    answer_stored(cx, Op::Inter, "zinterstore")
}

pub(super) const ZDIFF: Spec = Spec {
    name: "zdiff",
    arity: Arity::AtLeast(3),
    flags: Flags::READONLY,
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "6.2.0",
    summary: "Gives the members of the first sorted set that no other has.",
    complexity: "O(N K + M log M), N being the size of the first set, K the number of sets and M the size of the result.",
    key_specs: &[KeySpec::counted(1, KeyFlags::RO.union(KeyFlags::ACCESS))],
    args: &[
        Arg { name: "numkeys", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), multiple: true, ..Arg::NEW },
        WITHSCORES,
    ],
    handler: Some(zdiff),
    ..Spec::NEW
};

fn zdiff(cx: &mut Cx) -> Outcome {
    answer(cx, Op::Diff)
}

pub(super) const ZDIFFSTORE: Spec = Spec {
    name: "zdiffstore",
    arity: Arity::AtLeast(4),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "6.2.0",
    summary: "Stores the members of the first sorted set that no other has under a key.",
    complexity: "O(N K + M log M), N being the size of the first set, K the number of sets and M the size of the result.",
    key_specs: &[
        KeySpec::key(1, KeyFlags::OW.union(KeyFlags::UPDATE)),
        KeySpec::counted(2, KeyFlags::RO.union(KeyFlags::ACCESS)),
    ],
    args: &[
        Arg { name: "destination", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "numkeys", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(1), multiple: true, ..Arg::NEW },
    ],
    handler: Some(zdiffstore),
    ..Spec::NEW
};

fn zdiffstore(cx: &mut Cx) -> Outcome {
    answer_stored(cx, Op::Diff, "zdiffstore")
}

pub(super) const ZINTERCARD: Spec = Spec {
    name: "zintercard",
    arity: Arity::AtLeast(3),
    flags: Flags::READONLY,
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "7.0.0",
    summary: "Counts the members that all sorted sets have.",
    complexity: "O(N K), N being the size of the smallest set and K the number of sets.",
    key_specs: &[KeySpec::counted(1, KeyFlags::RO.union(KeyFlags::ACCESS))],
    args: &[
        Arg { name: "numkeys", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), multiple: true, ..Arg::NEW },
        Arg { name: "limit", kind: ArgKind::Integer, token: Some("LIMIT"), optional: true, ..Arg::NEW },
    ],
    handler: Some(zintercard),
    ..Spec::NEW
};

fn zintercard(cx: &mut Cx) -> Outcome {
    let (keys, rest) = split_keys(cx, cx.args.get(1..).unwrap_or_default())?;
    let present = read_all(cx, keys)?;
    let query = Query::parse(keys, rest, Options { weighs: false, scores: false, limits: true })?;
    let mut count = 0;
    inter(sources(cx, &query, &present), Aggregate::Sum, |_, _| {
        count += 1;
        count < query.limit
    });
    cx.reply.integer(count as i64);
    Ok(Effect::None)
}
