//! Scores, ranks, counts, random members and the scan.

use super::super::prelude::*;
use super::super::shared::{
    COUNT_OUT_OF_RANGE, KEY, ONE_READ, OUT_OF_RANGE, ScanExtra, ScanOptions, as_i64, parse_cursor,
    repeated_picks, reply_element, reply_scan,
};
use super::range::{parse_lex_range, parse_score_range};
use super::{WITHSCORES, reply_items};
use kara_encoding::listpack::Element;
use kara_keyspace::value::zset::ZSet;
use kara_resp::Writer;
use std::collections::HashSet;

pub(super) const ZCARD: Spec = Spec {
    name: "zcard",
    arity: Arity::Exactly(2),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "1.2.0",
    summary: "Gives the number of members of a sorted set.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(1, KeyFlags::RO)],
    args: &[KEY],
    handler: Some(zcard),
    ..Spec::NEW
};

fn zcard(cx: &mut Cx) -> Outcome {
    let len = cx.keys.read_as::<ZSet>(cx.arg(1))?.map_or(0, ZSet::len);
    cx.reply.integer(as_i64(len));
    Ok(Effect::None)
}

pub(super) const ZCOUNT: Spec = Spec {
    name: "zcount",
    arity: Arity::Exactly(4),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "2.0.0",
    summary: "Counts the members whose scores lie in an interval.",
    complexity: "O(log N), N being the size of the set.",
    key_specs: ONE_READ,
    args: &[
        KEY,
        Arg { name: "min", kind: ArgKind::Double, ..Arg::NEW },
        Arg { name: "max", kind: ArgKind::Double, ..Arg::NEW },
    ],
    handler: Some(zcount),
    ..Spec::NEW
};

fn zcount(cx: &mut Cx) -> Outcome {
    let range = parse_score_range(cx.arg(2), cx.arg(3))?;
    let count = cx.keys.read_as::<ZSet>(cx.arg(1))?.map_or(0, |set| set.ranks_by_score(&range).len());
    cx.reply.integer(as_i64(count));
    Ok(Effect::None)
}

pub(super) const ZLEXCOUNT: Spec = Spec {
    name: "zlexcount",
    arity: Arity::Exactly(4),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "2.8.9",
    summary: "Counts the members in an interval of names, in a set of equal scores.",
    complexity: "O(log N), N being the size of the set.",
    key_specs: ONE_READ,
    args: &[
        KEY,
        Arg { name: "min", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "max", kind: ArgKind::String, ..Arg::NEW },
    ],
    handler: Some(zlexcount),
    ..Spec::NEW
};

fn zlexcount(cx: &mut Cx) -> Outcome {
    let range = parse_lex_range(cx.arg(2), cx.arg(3))?;
    let count = cx.keys.read_as::<ZSet>(cx.arg(1))?.map_or(0, |set| set.ranks_by_lex(&range).len());
    cx.reply.integer(as_i64(count));
    Ok(Effect::None)
}

fn reply_score(cx: &mut Cx, score: Option<f64>) {
    match score {
        Some(score) => cx.reply.double(score),
        None => cx.reply.null(),
    }
}

pub(super) const ZSCORE: Spec = Spec {
    name: "zscore",
    arity: Arity::Exactly(3),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "1.2.0",
    summary: "Gives the score of a member.",
    complexity: "O(1)",
    key_specs: ONE_READ,
    args: &[KEY, Arg { name: "member", kind: ArgKind::String, ..Arg::NEW }],
    handler: Some(zscore),
    ..Spec::NEW
};

fn zscore(cx: &mut Cx) -> Outcome {
    let score = cx.keys.read_as::<ZSet>(cx.arg(1))?.and_then(|set| set.score(cx.args[2]));
    reply_score(cx, score);
    Ok(Effect::None)
}

pub(super) const ZMSCORE: Spec = Spec {
    name: "zmscore",
    arity: Arity::AtLeast(3),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "6.2.0",
    summary: "Gives the scores of several members.",
    complexity: "O(N), N being the number of members asked for.",
    key_specs: ONE_READ,
    args: &[KEY, Arg { name: "member", kind: ArgKind::String, multiple: true, ..Arg::NEW }],
    handler: Some(zmscore),
    ..Spec::NEW
};

fn zmscore(cx: &mut Cx) -> Outcome {
    let members = cx.args.get(2..).unwrap_or_default();
    let set = cx.keys.read_as::<ZSet>(cx.arg(1))?;
    cx.reply.array(members.len());
    for member in members {
        match set.and_then(|set| set.score(member)) {
            Some(score) => cx.reply.double(score),
            None => cx.reply.null(),
        }
    }
    Ok(Effect::None)
}

pub(super) const ZRANK: Spec = Spec {
    name: "zrank",
    arity: Arity::AtLeast(3),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "2.0.0",
    summary: "Gives the place of a member, counted from the lowest score.",
    complexity: "O(log N), N being the size of the set.",
    key_specs: ONE_READ,
    args: &[
        KEY,
        Arg { name: "member", kind: ArgKind::String, ..Arg::NEW },
        Arg::word("withscore", "WITHSCORE").optional(),
    ],
    handler: Some(zrank),
    ..Spec::NEW
};

fn zrank(cx: &mut Cx) -> Outcome {
    rank(cx, false)
}

pub(super) const ZREVRANK: Spec = Spec {
    name: "zrevrank",
    arity: Arity::AtLeast(3),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "2.0.0",
    summary: "Gives the place of a member, counted from the highest score.",
    complexity: "O(log N), N being the size of the set.",
    key_specs: ONE_READ,
    args: &[
        KEY,
        Arg { name: "member", kind: ArgKind::String, ..Arg::NEW },
        Arg::word("withscore", "WITHSCORE").optional(),
    ],
    handler: Some(zrevrank),
    ..Spec::NEW
};

fn zrevrank(cx: &mut Cx) -> Outcome {
    rank(cx, true)
}

fn rank(cx: &mut Cx, reverse: bool) -> Outcome {
    let with_score = match cx.args.len() {
        0..=3 => false,
        4 if cx.is_word(3, "withscore") => true,
        4 => return Err(CommandError::Syntax),
        _ => return Err(cx.arity_error()),
    };
    let found = cx.keys.read_as::<ZSet>(cx.arg(1))?.and_then(|set| set.rank(cx.args[2], reverse));
    match found {
        Some((rank, score)) if with_score => {
            cx.reply.array(2);
            cx.reply.integer(as_i64(rank));
            cx.reply.double(score);
        }
        Some((rank, _)) => cx.reply.integer(as_i64(rank)),
        None if with_score => cx.reply.null_array(),
        None => cx.reply.null(),
    }
    Ok(Effect::None)
}

pub(super) const ZRANDMEMBER: Spec = Spec {
    name: "zrandmember",
    arity: Arity::AtLeast(2),
    flags: Flags::READONLY,
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "6.2.0",
    summary: "Gives random members of a sorted set.",
    complexity: "O(N), N being the number of members asked for.",
    tips: &["nondeterministic_output"],
    key_specs: ONE_READ,
    args: &[
        KEY,
        Arg {
            name: "options",
            kind: ArgKind::Block,
            optional: true,
            args: &[Arg { name: "count", kind: ArgKind::Integer, ..Arg::NEW }, WITHSCORES],
            ..Arg::NEW
        },
    ],
    handler: Some(zrandmember),
    ..Spec::NEW
};

fn zrandmember(cx: &mut Cx) -> Outcome {
    let key = cx.arg(1);
    if cx.args.len() < 3 {
        let mut rng = cx.keys.rng.clone();
        match cx.keys.read_as::<ZSet>(key)?.and_then(|set| set.random(&mut rng)) {
            Some((member, _)) => reply_element(cx.reply, member),
            None => cx.reply.null(),
        }
        *cx.keys.rng = rng;
        return Ok(Effect::None);
    }
    let count = cx.int(2)?;
    if count == i64::MIN {
        return Err(COUNT_OUT_OF_RANGE);
    }
    let with_scores = cx.args.len() > 3;
    if cx.args.len() > 4 || with_scores && !cx.is_word(3, "withscores") {
        return Err(CommandError::Syntax);
    }
    if with_scores && count.unsigned_abs() > (i64::MAX / 2).unsigned_abs() {
        return Err(OUT_OF_RANGE);
    }
    let mut rng = cx.keys.rng.clone();
    let done = match cx.keys.read_as::<ZSet>(key)? {
        None => {
            cx.reply.array(0);
            Ok(())
        }
        Some(set) => random_members(cx.reply, set, count, with_scores, &mut rng),
    };
    *cx.keys.rng = rng;
    done.map(|()| Effect::None)
}

fn random_members(
    reply: &mut Writer,
    set: &ZSet,
    count: i64,
    with_scores: bool,
    rng: &mut kara_base::rng::Rng,
) -> Result<(), CommandError> {
    let len = set.len();
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    let pairs = with_scores && reply.is_resp3();
    let item = |reply: &mut Writer, (member, score): (Element<'_>, f64)| {
        if pairs {
            reply.array(2);
        }
        reply_element(reply, member);
        if with_scores {
            reply.double(score);
        }
    };
    if count >= 0 && wanted >= len {
        reply_items(reply, set.iter(), with_scores);
        return Ok(());
    }
    // A listpack's walk to a rank is long: it is read into a vector once.
    let small: Vec<_> = if set.as_listpack().is_some() { set.iter().collect() } else { Vec::new() };
    let get = |rank: usize| small.get(rank).copied().or_else(|| set.get(rank));
    if count < 0 {
        repeated_picks(count, set.get(0).map_or(0, |(member, _)| member.len()))?;
    }
    reply.array(if with_scores && !pairs { wanted.saturating_mul(2) } else { wanted });
    if count < 0 {
        for _ in 0..wanted {
            get(rng.below(len as u64) as usize).into_iter().for_each(|found| item(reply, found));
        }
    } else if wanted > len / 3 {
        // Each item is taken with the chance that what is still wanted has among what is still to come.
        let (mut left, mut rest) = (wanted as u64, len as u64);
        for found in set.iter() {
            if rng.below(rest) < left {
                item(reply, found);
                left -= 1;
            }
            rest -= 1;
        }
    } else {
        let mut ranks = HashSet::with_capacity(wanted);
        while ranks.len() < wanted {
            let rank = rng.below(len as u64) as usize;
            if ranks.insert(rank) {
                get(rank).into_iter().for_each(|found| item(reply, found));
            }
        }
    }
    Ok(())
}

pub(super) const ZSCAN: Spec = Spec {
    name: "zscan",
    arity: Arity::AtLeast(3),
    flags: Flags::READONLY,
    acl: Acl::SORTEDSET,
    group: Group::SortedSet,
    since: "2.8.0",
    summary: "Walks through the members and scores of a sorted set, some per call.",
    complexity: "O(1) per call, O(N) for a whole pass.",
    tips: &["nondeterministic_output"],
    key_specs: ONE_READ,
    args: &[
        KEY,
        Arg { name: "cursor", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "pattern", kind: ArgKind::Pattern, token: Some("MATCH"), optional: true, ..Arg::NEW },
        Arg { name: "count", kind: ArgKind::Integer, token: Some("COUNT"), optional: true, ..Arg::NEW },
        Arg::word("noscores", "NOSCORES").optional(),
    ],
    handler: Some(zscan),
    ..Spec::NEW
};

fn zscan(cx: &mut Cx) -> Outcome {
    let cursor = parse_cursor(cx.arg(2))?;
    let Some(set) = cx.keys.read_as::<ZSet>(cx.arg(1))? else {
        cx.reply.array(2);
        cx.reply.bulk(b"0");
        cx.reply.array(0);
        return Ok(Effect::None);
    };
    let options = ScanOptions::parse(cx.args.get(3..).unwrap_or_default(), ScanExtra::Score)?;
    reply_scan(cx.reply, |reply| {
        let mut count = 0;
        let mut keep = |member: Element<'_>, score: &dyn Fn(&mut Writer)| {
            if options.wants(member) {
                reply_element(reply, member);
                count += 1;
                if !options.bare {
                    score(reply);
                    count += 1;
                }
            }
        };
        let next = if let Some(list) = set.as_listpack() {
            // What the listpack holds is shown as it is; scores of the large form get the reference's other format.
            let mut elements = list.iter();
            while let (Some(member), Some(score)) = (elements.next(), elements.next()) {
                keep(member, &|reply| reply_element(reply, score));
            }
            0
        } else {
            set.scan(cursor, options.count, |member, score| {
                keep(Element::Str(member), &|reply| reply.bulk(format_general(score).as_bytes()));
            })
        };
        (next, count)
    });
    Ok(Effect::None)
}

/// A score as C's `%.17g` prints it: what ZSCAN shows of large sets.
fn format_general(score: f64) -> String {
    if !score.is_finite() {
        return score.to_string();
    }
    let scientific = format!("{score:.16e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| {
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_string()
        } else {
            text.to_string()
        }
    };
    if (-4..17).contains(&exponent) {
        return trim(&format!("{score:.*}", usize::try_from(16 - exponent).unwrap_or(0)));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trim(mantissa), exponent.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn general_format() {
        for (score, text) in [
            (0.1, "0.10000000000000001"),
            (1e22, "1e+22"),
            (123456789.12345679, "123456789.12345679"),
            (-0.0, "-0"),
            (1e-5, "1.0000000000000001e-05"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (f64::NEG_INFINITY, "-inf"),
            (3.0, "3"),
        ] {
            assert_eq!(format_general(score), text);
        }
    }
}
