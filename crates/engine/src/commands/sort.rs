//! SORT and SORT_RO: the elements of a list, set or sorted set in another order, or what keys made from them hold.
//!
//! BY and GET patterns read keys that no key spec can name, so these commands hold every shard's lock.

use super::prelude::*;
use super::shared::{KEY, as_i64, delete};
use crate::acl;
use kara_keyspace::value::hash::Hash;
use kara_keyspace::value::list::List;
use kara_keyspace::value::set::Set;
use kara_keyspace::value::zset::ZSet;
use kara_keyspace::{Collection, Entry, Kind};
use std::cmp::Ordering;
use std::ops::Range;

/// The family's commands.
pub const COMMANDS: &[Spec] = &[SORT, SORT_RO];

/// What the options say.
#[derive(Default)]
struct Query<'a> {
    by: Option<&'a [u8]>,
    /// BY without a star: leave the order as it is.
    unsorted: bool,
    gets: Vec<&'a [u8]>,
    limit: Option<(i64, i64)>,
    descending: bool,
    alpha: bool,
    store: Option<&'a [u8]>,
}

/// One element on its way to its place.
struct Item {
    element: Vec<u8>,
    score: f64,
    /// What ALPHA compares under BY.
    weight: Option<Vec<u8>>,
}

impl<'a> Query<'a> {
    fn parse(mut rest: &[&'a [u8]], may_store: bool) -> Result<Query<'a>, CommandError> {
        let mut query = Query::default();
        while let [word, tail @ ..] = rest {
            let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
            rest = tail;
            match tail {
                _ if is("asc") => query.descending = false,
                _ if is("desc") => query.descending = true,
                _ if is("alpha") => query.alpha = true,
                [offset, count, tail @ ..] if is("limit") => {
                    query.limit = Some((parse_int(offset)?, parse_int(count)?));
                    rest = tail;
                }
                [key, tail @ ..] if is("store") && may_store => {
                    query.store = Some(key);
                    rest = tail;
                }
                [pattern, tail @ ..] if is("by") => {
                    query.by = Some(pattern);
                    // One such pattern is enough, wherever it stands.
                    query.unsorted |= !pattern.contains(&b'*');
                    rest = tail;
                }
                [pattern, tail @ ..] if is("get") => {
                    query.gets.push(pattern);
                    rest = tail;
                }
                _ => return Err(CommandError::Syntax),
            }
        }
        Ok(query)
    }

    /// The places that the limit selects among `len`.
    fn places(&self, len: usize) -> Range<usize> {
        let (offset, count) = self.limit.unwrap_or((0, -1));
        let start = usize::try_from(offset.max(0)).unwrap_or(usize::MAX).min(len);
        match usize::try_from(count) {
            Ok(count) => start..start.saturating_add(count).min(len),
            Err(_) => start..len,
        }
    }
}

/// The elements of an entry in their own order; `descending` turns the order of those that have one. Only the given
/// places are read where the order is final already.
fn elements(
    entry: &Entry,
    descending: bool,
    places: impl FnOnce(usize) -> Range<usize>,
) -> Option<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    if let Some(list) = entry.get::<List>() {
        let places = places(list.len());
        let mut walk = if descending { list.iter_rev() } else { list.iter() };
        let mut at = 0;
        while at < places.end
            && let Some(element) = walk.next()
        {
            if at >= places.start {
                found.push(element.to_bytes());
            }
            at += 1;
        }
    } else if let Some(set) = entry.get::<ZSet>() {
        let (len, places) = (set.len(), places(set.len()));
        let ranks = if descending { len - places.end..len - places.start } else { places };
        found.extend(set.range(ranks, descending).map(|(member, _)| member.to_bytes()));
    } else if let Some(set) = entry.get::<Set>() {
        found.extend(set.iter().map(|member| member.to_bytes()));
        let places = places(found.len());
        found.truncate(places.end);
        found.drain(..places.start);
    } else {
        return None;
    }
    Some(found)
}

/// What the key (or, behind `->`, the field of a hash) that `pattern` makes from an element holds. `#` is the element.
fn look_up(cx: &mut Cx, pattern: &[u8], element: &[u8]) -> Option<Vec<u8>> {
    if pattern == b"#" {
        return Some(element.to_vec());
    }
    let star = pattern.iter().position(|byte| *byte == b'*')?;
    let (before, after) = (&pattern[..star], &pattern[star + 1..]);
    let arrow = after.windows(2).position(|pair| pair == b"->").filter(|at| at + 2 < after.len());
    let (after, field) = match arrow {
        Some(at) => (&after[..at], Some(&after[at + 2..])),
        None => (after, None),
    };
    let key = [before, element, after].concat();
    let now_ms = cx.keys.now_ms;
    let entry = cx.keys.read(&key)?;
    match field {
        Some(field) => entry.get::<Hash>()?.get(field, now_ms).map(|pair| pair.value.to_bytes()),
        None => entry.string().map(|value| value.to_cow().into_owned()),
    }
}

fn numeric(text: &[u8]) -> Result<f64, CommandError> {
    parse_float(text).map_err(|_| CommandError::text("ERR One or more scores can't be converted into double"))
}

/// Brings the elements into the order that the options ask for.
fn arrange(
    cx: &mut Cx,
    query: &Query<'_>,
    by: Option<&[u8]>,
    elements: Vec<Vec<u8>>,
) -> Result<Vec<Vec<u8>>, CommandError> {
    let mut items = Vec::with_capacity(elements.len());
    for element in elements {
        let mut item = Item { element, score: 0.0, weight: None };
        if let Some(pattern) = by {
            // Without a weight an element counts as 0, or as less than any text.
            item.weight = look_up(cx, pattern, &item.element);
            if let Some(weight) = item.weight.as_deref().filter(|_| !query.alpha) {
                item.score = numeric(weight)?;
            }
        } else if !query.alpha {
            item.score = numeric(&item.element)?;
        }
        items.push(item);
    }
    let compare = |a: &Item, b: &Item| match (query.alpha, by) {
        (false, _) => {
            a.score.partial_cmp(&b.score).unwrap_or(Ordering::Equal).then_with(|| a.element.cmp(&b.element))
        }
        (true, Some(_)) => a.weight.cmp(&b.weight),
        (true, None) => a.element.cmp(&b.element),
    };
    items.sort_by(|a, b| if query.descending { compare(b, a) } else { compare(a, b) });
    Ok(items.into_iter().map(|item| item.element).collect())
}

/// The patterns of BY and GET reach keys that nobody can name before: only for who may read them all.
fn check_patterns(cx: &mut Cx, query: &Query) -> Result<(), CommandError> {
    let by = query.by.is_some_and(|pattern| pattern.contains(&b'*'));
    if !by && query.gets.is_empty() || cx.origin == crate::session::Origin::AofLoad {
        return Ok(());
    }
    let db = cx.session.db;
    match cx.session.restrictions(&cx.shared.acl) {
        Some(rights) if !acl::check_every_key(rights, cx.command, cx.args, db) => {
            let option = if by { "BY" } else { "GET" };
            let text = format!("ERR {option} option of SORT denied due to insufficient ACL permissions.");
            Err(CommandError::owned(text))
        }
        _ => Ok(()),
    }
}

fn sort_generic(cx: &mut Cx, may_store: bool) -> Outcome {
    let mut query = Query::parse(cx.args.get(2..).unwrap_or_default(), may_store)?;
    check_patterns(cx, &query)?;
    let in_script = matches!(cx.origin, crate::session::Origin::Script);
    let small_zset = |entry: &Entry| entry.get::<ZSet>().is_some_and(|set| set.as_listpack().is_some());
    if cx.keys.peek(cx.args[1]).is_some_and(small_zset) {
        // The reference converts what it sorts, and OBJECT ENCODING, ZSCAN and negative offsets show it.
        let config = super::zset::config(cx);
        if let Some(set) = cx.keys.write_as::<ZSet>(cx.args[1])? {
            set.grow(&config);
        }
    }
    let sorted = match cx.keys.read(cx.args[1]) {
        None => Vec::new(),
        Some(entry) => {
            // A set has no order that two servers would share: where others see the result, it gets one.
            if query.unsorted && entry.kind() == Kind::Set && (query.store.is_some() || in_script) {
                (query.unsorted, query.alpha, query.by) = (false, true, None);
            }
            let found = if query.unsorted {
                elements(entry, query.descending, |len| query.places(len))
            } else {
                elements(entry, false, |len| 0..len)
            };
            let found = found.ok_or(CommandError::WrongType)?;
            if query.unsorted {
                found
            } else {
                let mut sorted = arrange(cx, &query, query.by, found)?;
                let places = query.places(sorted.len());
                sorted.truncate(places.end);
                sorted.drain(..places.start);
                sorted
            }
        }
    };
    match query.store {
        Some(destination) => Ok(store(cx, destination, &query, &sorted)),
        None => {
            cx.reply.array(sorted.len() * query.gets.len().max(1));
            for element in &sorted {
                if query.gets.is_empty() {
                    cx.reply.bulk(element);
                }
                for pattern in &query.gets {
                    match look_up(cx, pattern, element) {
                        Some(value) => cx.reply.bulk(&value),
                        None => cx.reply.null(),
                    }
                }
            }
            Ok(Effect::None)
        }
    }
}

/// Stores the result as a list; what GET doesn't find becomes an empty element.
fn store(cx: &mut Cx, destination: &[u8], query: &Query<'_>, sorted: &[Vec<u8>]) -> Effect {
    let limits = super::list::limits(cx.config, cx.shared);
    let mut list = List::for_many(&limits);
    for element in sorted {
        if query.gets.is_empty() {
            list.push_back(element, &limits);
        }
        for pattern in &query.gets {
            let value = look_up(cx, pattern, element).unwrap_or_default();
            list.push_back(&value, &limits);
        }
    }
    list.settle(&limits);
    let len = list.len();
    cx.reply.integer(as_i64(len));
    if len == 0 {
        return delete(cx, destination);
    }
    cx.keys.set_value(destination, list.into_value());
    cx.keys.changed(destination, Class::LIST, "sortstore");
    cx.extra_changes += len as u64 - 1;
    Effect::Verbatim
}

/// The key that is sorted, and the destination: the last one given, which is the one that the handler uses.
fn sort_keys(args: &[&[u8]], found: &mut Vec<(usize, KeyFlags)>) -> Result<(), ()> {
    found.push((1, KeyFlags::RO.union(KeyFlags::ACCESS)));
    let mut destination = None;
    let mut at = 2;
    while let Some(word) = args.get(at) {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        if is("limit") {
            at += 2;
        } else if is("get") || is("by") {
            at += 1;
        } else if is("store") && at + 1 < args.len() {
            destination = Some(at + 1);
            at += 1;
        }
        at += 1;
    }
    found.extend(destination.map(|at| (at, KeyFlags::OW.union(KeyFlags::UPDATE))));
    Ok(())
}

const GET_PATTERN: Arg = Arg {
    name: "get-pattern",
    kind: ArgKind::Pattern,
    display: "pattern",
    token: Some("GET"),
    key_spec: Some(1),
    optional: true,
    multiple: true,
    multiple_token: true,
    ..Arg::NEW
};

const SORT: Spec = Spec {
    name: "sort",
    arity: Arity::AtLeast(2),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::DANGEROUS.union(Acl::LIST).union(Acl::SET).union(Acl::SORTEDSET),
    group: Group::Generic,
    since: "1.0.0",
    summary: "Sorts the elements of a list, a set or a sorted set; can store the result.",
    complexity: "O(N log N), N being the number of elements, and O(N) more for each pattern.",
    key_specs: &[
        KeySpec::key(1, KeyFlags::RO.union(KeyFlags::ACCESS)),
        KeySpec {
            notes: "For the optional BY/GET keyword. It is marked 'unknown' because the key names derive from the content of the key we sort",
            flags: KeyFlags::RO.union(KeyFlags::ACCESS),
            begin: Begin::Unknown,
            find: Find::Unknown,
        },
        KeySpec {
            notes: "For the optional STORE keyword. It is marked 'unknown' because the keyword can appear anywhere in the argument array",
            flags: KeyFlags::OW.union(KeyFlags::UPDATE),
            begin: Begin::Unknown,
            find: Find::Unknown,
        },
    ],
    args: &[
        KEY,
        Arg {
            name: "by-pattern",
            kind: ArgKind::Pattern,
            display: "pattern",
            token: Some("BY"),
            key_spec: Some(1),
            optional: true,
            ..Arg::NEW
        },
        Arg::LIMIT,
        GET_PATTERN,
        Arg {
            name: "order",
            kind: ArgKind::Oneof,
            optional: true,
            args: &[Arg::word("asc", "ASC"), Arg::word("desc", "DESC")],
            ..Arg::NEW
        },
        Arg::word("sorting", "ALPHA").optional(),
        Arg {
            name: "destination",
            kind: ArgKind::Key,
            token: Some("STORE"),
            key_spec: Some(2),
            optional: true,
            ..Arg::NEW
        },
    ],
    get_keys: Some(sort_keys),
    locks: Locks::All,
    handler: Some(sort),
    ..Spec::NEW
};

fn sort(cx: &mut Cx) -> Outcome {
    sort_generic(cx, true)
}

const SORT_RO: Spec = Spec {
    name: "sort_ro",
    arity: Arity::AtLeast(2),
    flags: Flags::READONLY,
    acl: Acl::DANGEROUS.union(Acl::LIST).union(Acl::SET).union(Acl::SORTEDSET),
    group: Group::Generic,
    since: "7.0.0",
    summary: "Sorts the elements of a list, a set or a sorted set.",
    complexity: "O(N log N), N being the number of elements, and O(N) more for each pattern.",
    key_specs: &[
        KeySpec::key(1, KeyFlags::RO.union(KeyFlags::ACCESS)),
        KeySpec {
            notes: "For the optional BY/GET keyword. It is marked 'unknown' because the key names derive from the content of the key we sort",
            flags: KeyFlags::RO.union(KeyFlags::ACCESS),
            begin: Begin::Unknown,
            find: Find::Unknown,
        },
    ],
    args: &[
        KEY,
        Arg {
            name: "by-pattern",
            kind: ArgKind::Pattern,
            display: "pattern",
            token: Some("BY"),
            key_spec: Some(1),
            optional: true,
            ..Arg::NEW
        },
        Arg::LIMIT,
        GET_PATTERN,
        Arg {
            name: "order",
            kind: ArgKind::Oneof,
            optional: true,
            args: &[Arg::word("asc", "ASC"), Arg::word("desc", "DESC")],
            ..Arg::NEW
        },
        Arg::word("sorting", "ALPHA").optional(),
    ],
    locks: Locks::All,
    handler: Some(sort_ro),
    ..Spec::NEW
};

fn sort_ro(cx: &mut Cx) -> Outcome {
    sort_generic(cx, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(args: &[&str]) -> Vec<usize> {
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        let mut found = Vec::new();
        sort_keys(&args, &mut found).unwrap();
        found.into_iter().map(|(at, _)| at).collect()
    }

    #[test]
    fn the_last_destination_counts_and_patterns_are_no_options() {
        assert_eq!(keys(&["sort", "k"]), [1]);
        assert_eq!(keys(&["sort", "k", "store", "a", "STORE", "b"]), [1, 5]);
        assert_eq!(keys(&["sort", "k", "get", "store", "by", "store", "limit", "store", "store"]), [1]);
        let args: [&[u8]; 4] = [b"store", b"a", b"store", b"b"];
        assert_eq!(Query::parse(&args, true).map(|query| query.store), Ok(Some(&b"b"[..])));
    }

    #[test]
    fn limits_select_places() {
        for (limit, want) in [
            (None, 0..4),
            (Some((1, 2)), 1..3),
            (Some((-5, -1)), 0..4),
            (Some((9, 1)), 4..4),
            (Some((i64::MAX, i64::MAX)), 4..4),
            (Some((i64::MIN, i64::MIN)), 0..4),
        ] {
            assert_eq!(Query { limit, ..Query::default() }.places(4), want);
        }
    }
}
