//! Positions in sorted sets, whose scores are geohashes of 52 bits: adding, positions, distances. The searches are in
//! `search`, the arithmetic in `kara_encoding::geohash`.

mod radius;
mod search;

use super::prelude::*;
use super::shared::{KEY, ONE_READ};
use kara_encoding::geohash::{self, Point};
use kara_keyspace::value::zset::{AddFlags, ZSet};
use kara_resp::Writer;

/// The family's commands.
pub const COMMANDS: &[Spec] = &[
    GEOADD,
    GEODIST,
    GEOHASH,
    GEOPOS,
    radius::GEORADIUS,
    radius::GEORADIUSBYMEMBER,
    radius::GEORADIUSBYMEMBER_RO,
    radius::GEORADIUS_RO,
    search::GEOSEARCH,
    search::GEOSEARCHSTORE,
];

/// A word of its own among the documented arguments.
const fn word(name: &'static str, token: &'static str, optional: bool) -> Arg {
    Arg { name, kind: ArgKind::PureToken, token: Some(token), optional, ..Arg::NEW }
}

const UNIT: Arg = Arg {
    name: "unit",
    kind: ArgKind::Oneof,
    args: &[word("m", "M", false), word("km", "KM", false), word("ft", "FT", false), word("mi", "MI", false)],
    ..Arg::NEW
};
/// GEODIST's, metres where it is left out.
const OPTIONAL_UNIT: Arg = Arg { optional: true, ..UNIT };
const LONGITUDE: Arg = Arg { name: "longitude", kind: ArgKind::Double, ..Arg::NEW };
const LATITUDE: Arg = Arg { name: "latitude", kind: ArgKind::Double, ..Arg::NEW };

/// Metres in a unit of length.
fn parse_unit_m(text: &[u8]) -> Result<f64, CommandError> {
    match text.to_ascii_lowercase().as_slice() {
        b"m" => Ok(1.0),
        b"km" => Ok(1000.0),
        b"ft" => Ok(0.3048),
        b"mi" => Ok(1609.34),
        _ => Err(CommandError::text("ERR unsupported unit provided. please use M, KM, FT, MI")),
    }
}

/// A position on the map from longitude and latitude.
fn parse_point(lon: &[u8], lat: &[u8]) -> Result<Point, CommandError> {
    let point = Point { lon: parse_float(lon)?, lat: parse_float(lat)? };
    if !point.is_valid() {
        return Err(CommandError::owned(format!(
            "ERR invalid longitude,latitude pair {:.6},{:.6}",
            point.lon, point.lat
        )));
    }
    Ok(point)
}

/// The position that a member's score stands for.
fn position(score: f64) -> Point {
    geohash::decode(hash_of(score))
}

/// A score's hash. Scores that ZADD put outside a hash's range become what the reference's processor makes of them:
/// negative ones wrap around, and 2^63 stands for what is too large.
fn hash_of(score: f64) -> u64 {
    const TOP: f64 = 9_223_372_036_854_775_808.0;
    let convert = |score: f64| if score.abs() < TOP { score as i64 } else { i64::MIN } as u64;
    if score < TOP { convert(score) } else { convert(score - TOP) ^ 1 << 63 }
}

/// A distance with four digits after the point.
fn reply_distance(reply: &mut Writer, distance: f64) {
    let scaled = (distance * 10_000.0).round_ties_even();
    if scaled.abs() < 9e15 {
        let scaled = scaled as i64;
        let sign = if scaled < 0 { "-" } else { "" };
        let scaled = scaled.unsigned_abs();
        reply.bulk(format!("{sign}{}.{:04}", scaled / 10_000, scaled % 10_000).as_bytes());
    } else {
        reply.bulk(format!("{distance:.4}").as_bytes());
    }
}

/// Longitude and latitude with up to 17 digits after the point.
fn reply_point(reply: &mut Writer, point: Point) {
    reply.array(2);
    for degrees in [point.lon, point.lat] {
        let text = format!("{degrees:.17}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        if reply.is_resp3() {
            reply.raw(format!(",{text}\r\n").as_bytes());
        } else {
            reply.bulk(text.as_bytes());
        }
    }
}

const GEOADD: Spec = Spec {
    name: "geoadd",
    arity: Arity::AtLeast(5),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::GEO,
    group: Group::Geo,
    since: "3.2.0",
    summary: "Adds members with their positions to a sorted set, or moves them.",
    complexity: "O(log N) for each member, N being the size of the set.",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::UPDATE))],
    args: &[
        KEY,
        Arg {
            name: "condition",
            kind: ArgKind::Oneof,
            since: "6.2.0",
            optional: true,
            args: &[Arg::word("nx", "NX"), Arg::word("xx", "XX")],
            ..Arg::NEW
        },
        Arg::word("change", "CH").since("6.2.0").optional(),
        Arg {
            name: "data",
            kind: ArgKind::Block,
            multiple: true,
            args: &[LONGITUDE, LATITUDE, Arg { name: "member", kind: ArgKind::String, ..Arg::NEW }],
            ..Arg::NEW
        },
    ],
    handler: Some(geoadd),
    ..Spec::NEW
};

fn geoadd(cx: &mut Cx) -> Outcome {
    let (mut flags, mut count_changed) = (AddFlags::default(), false);
    let mut first = 2;
    while let Some(word) = cx.args.get(first) {
        if word.eq_ignore_ascii_case(b"nx") {
            flags.nx = true;
        } else if word.eq_ignore_ascii_case(b"xx") {
            flags.xx = true;
        } else if word.eq_ignore_ascii_case(b"ch") {
            count_changed = true;
        } else {
            break;
        }
        first += 1;
    }
    let triples = cx.args.get(first..).unwrap_or_default();
    if triples.is_empty() || triples.len() % 3 != 0 || flags.nx && flags.xx {
        return Err(CommandError::Syntax);
    }
    let mut scores = Vec::with_capacity(triples.len() / 3);
    for triple in triples.chunks_exact(3) {
        scores.push(geohash::encode(parse_point(triple[0], triple[1])?).to_string());
    }
    let pairs: Vec<&[u8]> = scores
        .iter()
        .zip(triples.chunks_exact(3))
        .flat_map(|(score, triple)| [score.as_bytes(), triple[2]])
        .collect();
    let effect = super::zset::add(cx, &pairs, flags, count_changed)?;
    if !effect.changed() {
        return Ok(effect);
    }
    Ok(Effect::rewrite(cx.journal_on(), || {
        let options = cx.args.get(2..first).unwrap_or_default();
        options
            .iter()
            .chain(&pairs)
            .fold(OwnedCommand::new("ZADD").arg(cx.arg(1)), |command, arg| command.arg(arg))
    }))
}

const GEOPOS: Spec = Spec {
    name: "geopos",
    arity: Arity::AtLeast(2),
    flags: Flags::READONLY,
    acl: Acl::GEO,
    group: Group::Geo,
    since: "3.2.0",
    summary: "Gives the positions of members.",
    complexity: "O(1) for each member.",
    key_specs: ONE_READ,
    args: &[KEY, Arg { name: "member", kind: ArgKind::String, optional: true, multiple: true, ..Arg::NEW }],
    handler: Some(geopos),
    ..Spec::NEW
};

fn geopos(cx: &mut Cx) -> Outcome {
    let members = cx.args.get(2..).unwrap_or_default();
    let set = cx.keys.read_as::<ZSet>(cx.arg(1))?;
    cx.reply.array(members.len());
    for member in members {
        match set.and_then(|set| set.score(member)) {
            Some(score) => reply_point(cx.reply, position(score)),
            None => cx.reply.null_array(),
        }
    }
    Ok(Effect::None)
}

const GEOHASH: Spec = Spec {
    name: "geohash",
    arity: Arity::AtLeast(2),
    flags: Flags::READONLY,
    acl: Acl::GEO,
    group: Group::Geo,
    since: "3.2.0",
    summary: "Gives the positions of members as standard geohash strings.",
    complexity: "O(1) for each member.",
    key_specs: ONE_READ,
    args: &[KEY, Arg { name: "member", kind: ArgKind::String, optional: true, multiple: true, ..Arg::NEW }],
    handler: Some(geohash),
    ..Spec::NEW
};

fn geohash(cx: &mut Cx) -> Outcome {
    let members = cx.args.get(2..).unwrap_or_default();
    let set = cx.keys.read_as::<ZSet>(cx.arg(1))?;
    cx.reply.array(members.len());
    for member in members {
        match set.and_then(|set| set.score(member)) {
            Some(score) => cx.reply.bulk(&geohash::geohash_string(hash_of(score))),
            None => cx.reply.null(),
        }
    }
    Ok(Effect::None)
}

const GEODIST: Spec = Spec {
    name: "geodist",
    arity: Arity::AtLeast(4),
    flags: Flags::READONLY,
    acl: Acl::GEO,
    group: Group::Geo,
    since: "3.2.0",
    summary: "Gives the distance between two members.",
    complexity: "O(1)",
    key_specs: ONE_READ,
    args: &[
        KEY,
        Arg { name: "member1", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "member2", kind: ArgKind::String, ..Arg::NEW },
        OPTIONAL_UNIT,
    ],
    handler: Some(geodist),
    ..Spec::NEW
};

fn geodist(cx: &mut Cx) -> Outcome {
    let unit_m = match cx.args.len() {
        0..=4 => 1.0,
        5 => parse_unit_m(cx.arg(4))?,
        _ => return Err(CommandError::Syntax),
    };
    let set = cx.keys.read_as::<ZSet>(cx.arg(1))?;
    let point = |member: &[u8]| set.and_then(|set| set.score(member)).map(position);
    match (point(cx.args[2]), point(cx.args[3])) {
        (Some(a), Some(b)) => reply_distance(cx.reply, geohash::distance_m(a, b) / unit_m),
        _ => cx.reply.null(),
    }
    Ok(Effect::None)
}
