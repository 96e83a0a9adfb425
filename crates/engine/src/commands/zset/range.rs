//! Ranges by rank, score and name: one way of reading the arguments for all their commands.

use super::super::prelude::*;
use super::super::shared::{KEY, ONE_READ};
use super::{NAN_SCORE, NOT_LEX_RANGE, NOT_SCORE_RANGE, WITHSCORES, config, reply_items, store};
use kara_keyspace::value::zset::{AddFlags, LexBound, LexRange, ScoreRange, ZSet, ZSetConfig};
use std::ops::Range;

/// A score limit: a number with `(` in front if it is exclusive itself. Empty text means 0 to the reference, and what is
/// too large for a double is infinite.
fn parse_score_bound(text: &[u8]) -> Result<(f64, bool), CommandError> {
    let (number, exclusive) = match text {
        [b'(', rest @ ..] => (rest, true),
        _ => (text, false),
    };
    if number.is_empty() {
        return Ok((0.0, exclusive));
    }
    let number = std::str::from_utf8(number).ok().and_then(|number| number.parse::<f64>().ok());
    Ok((number.filter(|number| !number.is_nan()).ok_or(NOT_SCORE_RANGE)?, exclusive))
}

/// An interval of scores from two arguments.
pub(super) fn parse_score_range(min: &[u8], max: &[u8]) -> Result<ScoreRange, CommandError> {
    let (min, min_exclusive) = parse_score_bound(min)?;
    let (max, max_exclusive) = parse_score_bound(max)?;
    Ok(ScoreRange { min, max, min_exclusive, max_exclusive })
}

fn parse_lex_bound(text: &[u8]) -> Result<LexBound<'_>, CommandError> {
    match text {
        b"-" => Ok(LexBound::Lowest),
        b"+" => Ok(LexBound::Highest),
        [b'[', member @ ..] => Ok(LexBound::Inclusive(member)),
        [b'(', member @ ..] => Ok(LexBound::Exclusive(member)),
        _ => Err(NOT_LEX_RANGE),
    }
}

/// An interval of names from two arguments.
pub(super) fn parse_lex_range<'a>(min: &'a [u8], max: &'a [u8]) -> Result<LexRange<'a>, CommandError> {
    Ok(LexRange { min: parse_lex_bound(min)?, max: parse_lex_bound(max)? })
}

/// Ranks from two indexes of which negative ones count from the end.
pub(super) fn rank_range(start: i64, stop: i64, len: usize) -> Range<usize> {
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    let from_end = |index: i64| if index < 0 { index.saturating_add(len) } else { index };
    let start = from_end(start).max(0);
    let end = from_end(stop).saturating_add(1).min(len);
    if start >= end { 0..0 } else { start as usize..end as usize }
}

/// What a range command selects by.
enum Interval<'a> {
    Ranks { start: i64, stop: i64 },
    Scores(ScoreRange),
    Names(LexRange<'a>),
}

#[derive(Clone, Copy, PartialEq)]
enum By {
    Rank,
    Score,
    Name,
}

/// What the command's name leaves open: `None` is for options to decide.
#[derive(Clone, Copy)]
struct Form {
    by: Option<By>,
    reverse: Option<bool>,
    stores: bool,
}

/// A range command's arguments.
struct Query<'a> {
    interval: Interval<'a>,
    reverse: bool,
    offset: i64,
    /// Negative: no limit.
    limit: i64,
    with_scores: bool,
}

impl<'a> Query<'a> {
    /// `args` begin with the interval's two ends.
    fn parse(args: &[&'a [u8]], form: Form) -> Result<Query<'a>, CommandError> {
        let (Some(&first), Some(&second)) = (args.first(), args.get(1)) else {
            return Err(CommandError::Syntax);
        };
        let (mut by, mut reverse, mut with_scores, mut offset, mut limit) =
            (form.by, form.reverse, false, 0, -1);
        let mut rest = args.get(2..).unwrap_or_default();
        while let [word, tail @ ..] = rest {
            rest = tail;
            let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
            if is("withscores") && !form.stores {
                with_scores = true;
            } else if is("limit")
                && let [from, count, tail @ ..] = tail
            {
                (offset, limit) = (parse_int(from)?, parse_int(count)?);
                rest = tail;
            } else if is("rev") && reverse.is_none() {
                reverse = Some(true);
            } else if is("bylex") && by.is_none() {
                by = Some(By::Name);
            } else if is("byscore") && by.is_none() {
                by = Some(By::Score);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        let (by, reverse) = (by.unwrap_or(By::Rank), reverse.unwrap_or(false));
        if limit != -1 && by == By::Rank {
            return Err(CommandError::text(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ));
        }
        if with_scores && by == By::Name {
            return Err(CommandError::text(
                "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            ));
        }
        let (min, max) = if reverse && by != By::Rank { (second, first) } else { (first, second) };
        let interval = match by {
            By::Rank => Interval::Ranks { start: parse_int(min)?, stop: parse_int(max)? },
            By::Score => Interval::Scores(parse_score_range(min, max)?),
            By::Name => Interval::Names(parse_lex_range(min, max)?),
        };
        Ok(Query { interval, reverse, offset, limit, with_scores })
    }

    /// The selected ranks, counted from the lowest whatever the direction.
    fn ranks(&self, set: &ZSet) -> Range<usize> {
        let all = match &self.interval {
            Interval::Ranks { start, stop } => {
                let len = set.len();
                let ranks = rank_range(*start, *stop, len);
                return if self.reverse { len - ranks.end..len - ranks.start } else { ranks };
            }
            Interval::Scores(range) => set.ranks_by_score(range),
            Interval::Names(range) => set.ranks_by_lex(range),
        };
        // A negative offset counts from the end of what is selected: in the reference's large form only, whose search
        // for the n-th item in a range knows both directions.
        let offset = match usize::try_from(self.offset) {
            Ok(offset) => Some(offset),
            Err(_) if set.as_listpack().is_some() => None,
            Err(_) => {
                usize::try_from(self.offset.unsigned_abs()).ok().and_then(|back| all.len().checked_sub(back))
            }
        };
        let Some(offset) = offset else { return 0..0 };
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        if self.reverse {
            let end = all.end.saturating_sub(offset).max(all.start);
            end.saturating_sub(limit).max(all.start)..end
        } else {
            let start = all.start.saturating_add(offset).min(all.end);
            start..start.saturating_add(limit).min(all.end)
        }
    }
}

fn range(cx: &mut Cx, by: Option<By>, reverse: Option<bool>) -> Outcome {
    let form = Form { by, reverse, stores: false };
    let query = Query::parse(cx.args.get(2..).unwrap_or_default(), form)?;
    match cx.keys.read_as::<ZSet>(cx.arg(1))? {
        Some(set) => reply_items(cx.reply, set.range(query.ranks(set), query.reverse), query.with_scores),
        None => cx.reply.array(0),
    }
    Ok(Effect::None)
}

pub(super) const ZRANGE: Spec = Spec {
    name: "zrange",
    arity: Arity::AtLeast(4),
    flags: Flags::READONLY,
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "1.2.0",
    summary: "Gives the members in a range of ranks, scores or names.",
    complexity: "O(log N + M), N being the size of the set and M the number of members returned.",
    key_specs: ONE_READ,
    args: &[
        KEY,
        Arg { name: "start", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "stop", kind: ArgKind::String, ..Arg::NEW },
        Arg {
            name: "sortby",
            kind: ArgKind::Oneof,
            since: "6.2.0",
            optional: true,
            args: &[Arg::word("byscore", "BYSCORE"), Arg::word("bylex", "BYLEX")],
            ..Arg::NEW
        },
        Arg::word("rev", "REV").since("6.2.0").optional(),
        Arg {
            name: "limit",
            kind: ArgKind::Block,
            token: Some("LIMIT"),
            since: "6.2.0",
            optional: true,
            args: &[
                Arg { name: "offset", kind: ArgKind::Integer, ..Arg::NEW },
                Arg { name: "count", kind: ArgKind::Integer, ..Arg::NEW },
            ],
            ..Arg::NEW
        },
        WITHSCORES,
    ],
    handler: Some(zrange),
    ..Spec::NEW
};

fn zrange(cx: &mut Cx) -> Outcome {
    range(cx, None, None)
}

pub(super) const ZREVRANGE: Spec = Spec {
    name: "zrevrange",
    arity: Arity::AtLeast(4),
    flags: Flags::READONLY,
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "1.2.0",
    summary: "Gives the members in a range of ranks, highest score first.",
    complexity: "O(log N + M), N being the size of the set and M the number of members returned.",
    key_specs: ONE_READ,
    args: &[
        KEY,
        Arg { name: "start", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "stop", kind: ArgKind::Integer, ..Arg::NEW },
        WITHSCORES,
    ],
    handler: Some(zrevrange),
    ..Spec::NEW
};

fn zrevrange(cx: &mut Cx) -> Outcome {
    range(cx, Some(By::Rank), Some(true))
}

pub(super) const ZRANGEBYSCORE: Spec = Spec {
    name: "zrangebyscore",
    arity: Arity::AtLeast(4),
    flags: Flags::READONLY,
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "1.0.5",
    summary: "Gives the members whose scores lie in an interval.",
    complexity: "O(log N + M), N being the size of the set and M the number of members returned.",
    key_specs: ONE_READ,
    args: &[
        KEY,
        Arg { name: "min", kind: ArgKind::Double, ..Arg::NEW },
        Arg { name: "max", kind: ArgKind::Double, ..Arg::NEW },
        Arg { since: "2.0.0", ..WITHSCORES },
        Arg::LIMIT,
    ],
    handler: Some(zrangebyscore),
    ..Spec::NEW
};

fn zrangebyscore(cx: &mut Cx) -> Outcome {
    range(cx, Some(By::Score), Some(false))
}

pub(super) const ZREVRANGEBYSCORE: Spec = Spec {
    name: "zrevrangebyscore",
    arity: Arity::AtLeast(4),
    flags: Flags::READONLY,
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "2.2.0",
    summary: "Gives the members whose scores lie in an interval, highest score first.",
    complexity: "O(log N + M), N being the size of the set and M the number of members returned.",
    key_specs: ONE_READ,
    args: &[
        KEY,
        Arg { name: "max", kind: ArgKind::Double, ..Arg::NEW },
        Arg { name: "min", kind: ArgKind::Double, ..Arg::NEW },
        WITHSCORES,
        Arg::LIMIT,
    ],
    handler: Some(zrevrangebyscore),
    ..Spec::NEW
};

fn zrevrangebyscore(cx: &mut Cx) -> Outcome {
    range(cx, Some(By::Score), Some(true))
}

pub(super) const ZRANGEBYLEX: Spec = Spec {
    name: "zrangebylex",
    arity: Arity::AtLeast(4),
    flags: Flags::READONLY,
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "2.8.9",
    summary: "Gives the members in an interval of names, in a set of equal scores.",
    complexity: "O(log N + M), N being the size of the set and M the number of members returned.",
    key_specs: ONE_READ,
    args: &[
        KEY,
        Arg { name: "min", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "max", kind: ArgKind::String, ..Arg::NEW },
        Arg::LIMIT,
    ],
    handler: Some(zrangebylex),
    ..Spec::NEW
};

fn zrangebylex(cx: &mut Cx) -> Outcome {
    range(cx, Some(By::Name), Some(false))
}

pub(super) const ZREVRANGEBYLEX: Spec = Spec {
    name: "zrevrangebylex",
    arity: Arity::AtLeast(4),
    flags: Flags::READONLY,
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "2.8.9",
    summary: "Gives the members in an interval of names, last name first, in a set of equal scores.",
    complexity: "O(log N + M), N being the size of the set and M the number of members returned.",
    key_specs: ONE_READ,
    args: &[
        KEY,
        Arg { name: "max", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "min", kind: ArgKind::String, ..Arg::NEW },
        Arg::LIMIT,
    ],
    handler: Some(zrevrangebylex),
    ..Spec::NEW
};

fn zrevrangebylex(cx: &mut Cx) -> Outcome {
    range(cx, Some(By::Name), Some(true))
}

pub(super) const ZRANGESTORE: Spec = Spec {
    name: "zrangestore",
    arity: Arity::AtLeast(5),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "6.2.0",
    summary: "Stores the members in a range of ranks, scores or names under another key.",
    complexity: "O(log N + M), N being the size of the set and M the number of members stored.",
    key_specs: &[
        KeySpec::key(1, KeyFlags::OW.union(KeyFlags::UPDATE)),
        KeySpec::key(2, KeyFlags::RO.union(KeyFlags::ACCESS)),
    ],
    args: &[
        Arg { name: "dst", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "src", kind: ArgKind::Key, key_spec: Some(1), ..Arg::NEW },
        Arg { name: "min", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "max", kind: ArgKind::String, ..Arg::NEW },
        Arg {
            name: "sortby",
            kind: ArgKind::Oneof,
            optional: true,
            args: &[Arg::word("byscore", "BYSCORE"), Arg::word("bylex", "BYLEX")],
            ..Arg::NEW
        },
        Arg::word("rev", "REV").optional(),
        Arg::LIMIT,
    ],
    handler: Some(zrangestore),
    ..Spec::NEW
};

fn zrangestore(cx: &mut Cx) -> Outcome {
    let form = Form { by: None, reverse: None, stores: true };
    let query = Query::parse(cx.args.get(3..).unwrap_or_default(), form)?;
    let config = config(cx);
    let items: Vec<(f64, Vec<u8>)> = match cx.keys.read_as::<ZSet>(cx.arg(2))? {
        Some(set) => {
            set.range(query.ranks(set), false).map(|(member, score)| (score, member.to_bytes())).collect()
        }
        None => Vec::new(),
    };
    let result = if items.len() > config.max_listpack_entries {
        ZSet::from_sorted(&items, &config)
    } else {
        one_by_one(&items, query.reverse, &config)?
    };
    Ok(store(cx, cx.args[1], result, "zrangestore"))
}

/// A set made in the order in which the range was read: a listpack forgets the sign of a zero, even if a long member
/// makes a larger form of it later.
fn one_by_one(items: &[(f64, Vec<u8>)], reverse: bool, config: &ZSetConfig) -> Result<ZSet, CommandError> {
    let mut result = ZSet::with_hints(items.len(), 0, config);
    let mut add = |(score, member): &(f64, Vec<u8>)| {
        result.add(member, *score, AddFlags::default(), config).map(|_| ()).map_err(|_| NAN_SCORE)
    };
    if reverse {
        items.iter().rev().try_for_each(&mut add)?;
    } else {
        items.iter().try_for_each(&mut add)?;
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_from_both_ends() {
        for (start, stop, want) in [
            (0, -1, 0..5),
            (-2, -1, 3..5),
            (1, 100, 1..5),
            (-100, 0, 0..1),
            (3, 2, 0..0),
            (5, 9, 0..0),
            (i64::MIN, i64::MAX, 0..5),
            (i64::MAX, i64::MIN, 0..0),
        ] {
            assert_eq!(rank_range(start, stop, 5), want, "{start} {stop}");
        }
        assert_eq!(rank_range(0, -1, 0), 0..0);
    }

    #[test]
    fn score_bounds() {
        assert_eq!(parse_score_bound(b"(1.5"), Ok((1.5, true)));
        assert_eq!(parse_score_bound(b"-inf"), Ok((f64::NEG_INFINITY, false)));
        assert_eq!(parse_score_bound(b"1e400"), Ok((f64::INFINITY, false)));
        assert_eq!(parse_score_bound(b"("), Ok((0.0, true)));
        for bad in [&b"nan"[..], b" 1", b"0x1", b"((1", b"1 ", b"\xff"] {
            assert_eq!(parse_score_bound(bad), Err(NOT_SCORE_RANGE));
        }
    }
}
