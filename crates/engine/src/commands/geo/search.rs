//! Searching positions by area: the way through the arguments and the cells, GEOSEARCH and its storing form.

use super::super::prelude::*;
use super::super::shared::{KEY, ONE_READ, delete};
use super::super::zset::{config, store};
use super::{
    LATITUDE, LONGITUDE, UNIT, parse_point, parse_unit_m, position, reply_distance, reply_point, word,
};
use kara_encoding::geohash::{Area, Point};
use kara_keyspace::value::zset::{ScoreRange, ZSet};

pub(super) const WITHCOORD: Arg = word("withcoord", "WITHCOORD", true);
pub(super) const WITHDIST: Arg = word("withdist", "WITHDIST", true);
pub(super) const WITHHASH: Arg = word("withhash", "WITHHASH", true);
pub(super) const ORDER: Arg = Arg {
    name: "order",
    kind: ArgKind::Oneof,
    optional: true,
    args: &[word("asc", "ASC", false), word("desc", "DESC", false)],
    ..Arg::NEW
};
pub(super) const COUNT: Arg = Arg {
    name: "count-block",
    kind: ArgKind::Block,
    optional: true,
    args: &[
        Arg { name: "count", kind: ArgKind::Integer, token: Some("COUNT"), ..Arg::NEW },
        word("any", "ANY", true),
    ],
    ..Arg::NEW
};
/// Where a command's arguments come from.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Form {
    /// GEORADIUS: key, longitude, latitude, radius, unit
    Radius,
    /// GEORADIUSBYMEMBER: key, member, radius, unit
    RadiusByMember,
    /// GEOSEARCH: key, then everything as options
    Search,
    /// GEOSEARCHSTORE: destination, key, options
    SearchStore,
}

impl Form {
    fn key_at(self) -> usize {
        if self == Form::SearchStore { 2 } else { 1 }
    }

    /// Where the options begin.
    pub(super) fn options_at(self) -> usize {
        match self {
            Form::Radius => 6,
            Form::RadiusByMember => 5,
            Form::Search => 2,
            Form::SearchStore => 3,
        }
    }

    fn searches(self) -> bool {
        matches!(self, Form::Search | Form::SearchStore)
    }
}

#[derive(Clone, Copy)]
enum Shape {
    Circle { radius: f64 },
    Box { width: f64, height: f64 },
    Polygon,
}

/// Everything that the arguments say.
#[derive(Default)]
struct Query<'a> {
    center: Option<Point>,
    /// FROMMEMBER was given; where the key isn't there, without a centre.
    from_member: bool,
    shape: Option<Shape>,
    vertices: Vec<Point>,
    unit_m: f64,
    with_dist: bool,
    with_hash: bool,
    with_coord: bool,
    any: bool,
    /// 0: no limit
    count: usize,
    descending: Option<bool>,
    store: Option<&'a [u8]>,
    store_dist: bool,
}

/// A member inside the area.
struct Found {
    member: Vec<u8>,
    score: f64,
    point: Point,
    distance_m: f64,
}

fn parse_number(text: &[u8], error: &'static str) -> Result<f64, CommandError> {
    parse_float(text).map_err(|_| CommandError::text(error))
}

fn parse_radius(text: &[u8]) -> Result<f64, CommandError> {
    let radius = parse_number(text, "ERR need numeric radius")?;
    if radius < 0.0 {
        return Err(CommandError::text("ERR radius cannot be negative"));
    }
    Ok(radius)
}

fn parse_box(width: &[u8], height: &[u8]) -> Result<Shape, CommandError> {
    let width = parse_number(width, "ERR need numeric width")?;
    let height = parse_number(height, "ERR need numeric height")?;
    if width < 0.0 || height < 0.0 {
        return Err(CommandError::text("ERR height or width cannot be negative"));
    }
    Ok(Shape::Box { width, height })
}

/// A polygon's vertices from their number and what follows it; with the number of arguments used.
fn parse_polygon(args: &[&[u8]]) -> Result<(Vec<Point>, usize), CommandError> {
    let [count, rest @ ..] = args else { return Err(CommandError::Syntax) };
    let count = kara_base::number::parse_i64(count)
        .and_then(|count| i32::try_from(count).ok())
        .ok_or(CommandError::text("ERR invalid number of vertices"))?;
    let coordinates = usize::try_from(count)
        .ok()
        .filter(|count| *count >= 3)
        .and_then(|count| rest.get(..count.checked_mul(2)?));
    let coordinates =
        coordinates.ok_or(CommandError::text("ERR GEOSEARCH BYPOLYGON must have at least 3 vertices"))?;
    let vertices =
        coordinates.chunks_exact(2).map(|pair| parse_point(pair[0], pair[1])).collect::<Result<_, _>>()?;
    Ok((vertices, 1 + coordinates.len()))
}

/// The position of a member that must be there.
fn member_point(set: &ZSet, member: &[u8]) -> Result<Point, CommandError> {
    set.score(member)
        .map(position)
        .ok_or_else(|| CommandError::quoting("ERR member {} does not exist", &[member]))
}

impl<'a> Query<'a> {
    fn parse(
        args: &[&'a [u8]],
        form: Form,
        may_store: bool,
        set: Option<&ZSet>,
    ) -> Result<Query<'a>, CommandError> {
        let mut query = Query { unit_m: 1.0, ..Query::default() };
        let arg = |at: usize| args.get(at).copied().unwrap_or_default();
        match form {
            Form::Radius => {
                query.center = Some(parse_point(arg(2), arg(3))?);
                query.shape = Some(Shape::Circle { radius: parse_radius(arg(4))? });
                query.unit_m = parse_unit_m(arg(5))?;
            }
            Form::RadiusByMember => {
                if let Some(set) = set {
                    query.center = Some(member_point(set, arg(2))?);
                    query.shape = Some(Shape::Circle { radius: parse_radius(arg(3))? });
                    query.unit_m = parse_unit_m(arg(4))?;
                }
            }
            Form::Search => {}
            Form::SearchStore => query.store = Some(arg(1)),
        }
        let mut rest = args.get(form.options_at()..).unwrap_or_default();
        while let [word, tail @ ..] = rest {
            let used = query.option(word, tail, form, may_store, set)?;
            rest = tail.get(used..).unwrap_or_default();
        }
        Ok(query)
    }

    /// Takes in one option; the number of arguments it used from those behind it.
    fn option(
        &mut self,
        word: &'a [u8],
        tail: &[&'a [u8]],
        form: Form,
        may_store: bool,
        set: Option<&ZSet>,
    ) -> Result<usize, CommandError> {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        let from = self.center.is_some() || self.from_member;
        let polygon = matches!(self.shape, Some(Shape::Polygon));
        match tail {
            _ if is("withdist") => self.with_dist = true,
            _ if is("withhash") => self.with_hash = true,
            _ if is("withcoord") => self.with_coord = true,
            _ if is("any") => self.any = true,
            _ if is("asc") => self.descending = Some(false),
            _ if is("desc") => self.descending = Some(true),
            [count, ..] if is("count") => {
                let count = parse_int(count)?;
                self.count = usize::try_from(count)
                    .ok()
                    .filter(|count| *count > 0)
                    .ok_or(CommandError::text("ERR COUNT must be > 0"))?;
                return Ok(1);
            }
            [key, ..] if may_store && !form.searches() && (is("store") || is("storedist")) => {
                self.store = Some(key);
                self.store_dist = is("storedist");
                return Ok(1);
            }
            _ if form == Form::SearchStore && is("storedist") => self.store_dist = true,
            _ if !form.searches() => return Err(CommandError::Syntax),
            [member, ..] if is("frommember") && !polygon && !self.centre_is_fixed() => {
                if let Some(set) = set {
                    self.center = Some(member_point(set, member)?);
                }
                self.from_member = true;
                return Ok(1);
            }
            [lon, lat, ..] if is("fromlonlat") && !polygon && !self.from_member => {
                self.center = Some(parse_point(lon, lat)?);
                return Ok(2);
            }
            [radius, unit, ..]
                if is("byradius") && matches!(self.shape, None | Some(Shape::Circle { .. })) =>
            {
                self.shape = Some(Shape::Circle { radius: parse_radius(radius)? });
                self.unit_m = parse_unit_m(unit)?;
                return Ok(2);
            }
            [width, height, unit, ..]
                if is("bybox") && matches!(self.shape, None | Some(Shape::Box { .. })) =>
            {
                self.shape = Some(parse_box(width, height)?);
                self.unit_m = parse_unit_m(unit)?;
                return Ok(3);
            }
            [_, _, ..] if is("bypolygon") && !from && (self.shape.is_none() || polygon) => {
                let (vertices, used) = parse_polygon(tail)?;
                self.vertices = vertices;
                self.shape = Some(Shape::Polygon);
                return Ok(used);
            }
            _ => return Err(CommandError::Syntax),
        }
        Ok(0)
    }

    fn centre_is_fixed(&self) -> bool {
        self.center.is_some() && !self.from_member
    }

    /// What the options forbid together.
    fn check(&self, form: Form, name: &[u8]) -> Result<(), CommandError> {
        if self.store.is_some() && (self.with_dist || self.with_hash || self.with_coord) {
            let who = if form.searches() { "GEOSEARCHSTORE" } else { "STORE option in GEORADIUS" };
            return Err(CommandError::owned(format!(
                "ERR {who} is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
            )));
        }
        let polygon = matches!(self.shape, Some(Shape::Polygon));
        if form.searches() && !polygon && self.center.is_none() && !self.from_member {
            return Err(CommandError::quoting(
                "ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for {}",
                &[name],
            ));
        }
        if form.searches() && self.shape.is_none() {
            return Err(CommandError::quoting(
                "ERR exactly one of BYRADIUS, BYBOX and BYPOLYGON can be specified for {}",
                &[name],
            ));
        }
        if self.any && self.count == 0 {
            return Err(CommandError::text("ERR the ANY argument requires COUNT argument"));
        }
        Ok(())
    }

    fn area(&mut self) -> Option<Area> {
        let unit_m = self.unit_m;
        Some(match self.shape? {
            Shape::Circle { radius } => Area::circle(self.center?, radius * unit_m),
            Shape::Box { width, height } => Area::rectangle(self.center?, width * unit_m, height * unit_m),
            Shape::Polygon => Area::polygon(std::mem::take(&mut self.vertices)),
        })
    }
}

/// The members inside, in the order in which the cells give them; at most `limit` of them.
fn collect(set: &ZSet, area: &Area, limit: usize) -> Vec<Found> {
    let mut found = Vec::new();
    for (first, end) in area.score_ranges() {
        let range =
            ScoreRange { min: first as f64, max: end as f64, min_exclusive: false, max_exclusive: true };
        for (member, score) in set.range(set.ranks_by_score(&range), false) {
            let point = position(score);
            if let Some(distance_m) = area.distance_if_inside(point) {
                found.push(Found { member: member.to_bytes(), score, point, distance_m });
                if found.len() >= limit {
                    return found;
                }
            }
        }
    }
    found
}

pub(super) fn search(cx: &mut Cx, form: Form, may_store: bool) -> Outcome {
    let key = cx.arg(form.key_at());
    let set = cx.keys.read_as::<ZSet>(key)?;
    let mut query = Query::parse(cx.args, form, may_store, set)?;
    query.check(form, cx.args[0])?;
    let Some((set, area)) = set.zip(query.area()) else {
        return Ok(match query.store {
            Some(destination) => {
                cx.reply.integer(0);
                delete(cx, destination)
            }
            None => {
                cx.reply.array(0);
                Effect::None
            }
        });
    };
    // The closest members can only be told after all were seen.
    let order = query.descending.or((query.count > 0 && !query.any).then_some(false));
    let limit = if query.any { query.count } else { usize::MAX };
    let mut found = collect(set, &area, limit);
    if let Some(descending) = order {
        found.sort_by(|a, b| {
            let order = a.distance_m.total_cmp(&b.distance_m);
            if descending { order.reverse() } else { order }
        });
    }
    if query.count > 0 {
        found.truncate(query.count);
    }
    match query.store {
        Some(destination) => Ok(store_found(cx, destination, &query, form, found)),
        None => {
            reply_found(cx.reply, &query, &found);
            Ok(Effect::None)
        }
    }
}

fn reply_found(reply: &mut kara_resp::Writer, query: &Query<'_>, found: &[Found]) {
    let extras = usize::from(query.with_dist) + usize::from(query.with_hash) + usize::from(query.with_coord);
    reply.array(found.len());
    for item in found {
        if extras > 0 {
            reply.array(1 + extras);
        }
        reply.bulk(&item.member);
        if query.with_dist {
            reply_distance(reply, item.distance_m / query.unit_m);
        }
        if query.with_hash {
            reply.integer(item.score as i64);
        }
        if query.with_coord {
            reply_point(reply, item.point);
        }
    }
}

fn store_found(cx: &mut Cx, destination: &[u8], query: &Query<'_>, form: Form, found: Vec<Found>) -> Effect {
    let score = |item: &Found| if query.store_dist { item.distance_m / query.unit_m } else { item.score };
    let items = found.into_iter().map(|item| (score(&item), item.member)).collect::<Vec<_>>();
    let changes = (items.len() as u64).saturating_sub(1);
    let result = ZSet::from_items(items, &config(cx));
    let effect =
        store(cx, destination, result, if form.searches() { "geosearchstore" } else { "georadiusstore" });
    cx.extra_changes += changes;
    effect
}

const BY: Arg = Arg {
    name: "by",
    kind: ArgKind::Oneof,
    args: &[
        Arg {
            name: "circle",
            kind: ArgKind::Block,
            args: &[Arg { name: "radius", kind: ArgKind::Double, token: Some("BYRADIUS"), ..Arg::NEW }, UNIT],
            ..Arg::NEW
        },
        Arg {
            name: "box",
            kind: ArgKind::Block,
            args: &[
                Arg { name: "width", kind: ArgKind::Double, token: Some("BYBOX"), ..Arg::NEW },
                Arg { name: "height", kind: ArgKind::Double, ..Arg::NEW },
                UNIT,
            ],
            ..Arg::NEW
        },
        Arg {
            name: "polygon",
            kind: ArgKind::Block,
            since: "9.0.0",
            args: &[
                Arg { name: "num-vertices", kind: ArgKind::Integer, token: Some("BYPOLYGON"), ..Arg::NEW },
                Arg {
                    name: "vertices",
                    kind: ArgKind::Block,
                    multiple: true,
                    args: &[LONGITUDE, LATITUDE],
                    ..Arg::NEW
                },
            ],
            ..Arg::NEW
        },
    ],
    ..Arg::NEW
};

const FROM: Arg = Arg {
    name: "from",
    kind: ArgKind::Oneof,
    optional: true,
    args: &[
        Arg { name: "member", kind: ArgKind::String, token: Some("FROMMEMBER"), ..Arg::NEW },
        Arg {
            name: "fromlonlat",
            kind: ArgKind::Block,
            token: Some("FROMLONLAT"),
            args: &[LONGITUDE, LATITUDE],
            ..Arg::NEW
        },
    ],
    ..Arg::NEW
};

pub(super) const GEOSEARCH: Spec = Spec {
    name: "geosearch",
    arity: Arity::AtLeast(7),
    flags: Flags::READONLY,
    acl: Acl::GEO,
    group: Group::Geo,
    since: "6.2.0",
    summary: "Gives the members in a circle, a box or a polygon.",
    complexity: "O(N + log M), N being the number of members in the cells that cover the area and M the size of the set.",
    key_specs: ONE_READ,
    args: &[KEY, FROM, BY, ORDER, COUNT, WITHCOORD, WITHDIST, WITHHASH],
    handler: Some(geosearch),
    ..Spec::NEW
};

fn geosearch(cx: &mut Cx) -> Outcome {
    search(cx, Form::Search, false)
}

pub(super) const GEOSEARCHSTORE: Spec = Spec {
    name: "geosearchstore",
    arity: Arity::AtLeast(8),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::GEO,
    group: Group::Geo,
    since: "6.2.0",
    summary: "Stores the members in a circle, a box or a polygon under another key.",
    complexity: "O(N + log M), N being the number of members in the cells that cover the area and M the size of the set.",
    key_specs: &[
        KeySpec::key(1, KeyFlags::OW.union(KeyFlags::UPDATE)),
        KeySpec::key(2, KeyFlags::RO.union(KeyFlags::ACCESS)),
    ],
    args: &[
        Arg { name: "destination", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "source", kind: ArgKind::Key, key_spec: Some(1), ..Arg::NEW },
        FROM,
        BY,
        ORDER,
        COUNT,
        Arg::word("storedist", "STOREDIST").optional(),
    ],
    handler: Some(geosearchstore),
    ..Spec::NEW
};

fn geosearchstore(cx: &mut Cx) -> Outcome {
    search(cx, Form::SearchStore, true)
}
