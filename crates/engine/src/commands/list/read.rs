//! Looking at elements.

use super::super::prelude::*;
use super::{KEY, parse_at_least, parse_symmetric, reply_element, span};
use kara_keyspace::value::list::{End, List, Needle};

pub(super) const LLEN: Spec = Spec {
    name: "llen",
    arity: Arity::Exactly(2),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::LIST,
    group: Group::List,
    since: "1.0.0",
    summary: "Gives the length of a list.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(1, KeyFlags::RO)],
    args: &[KEY],
    handler: Some(llen),
    ..Spec::NEW
};

fn llen(cx: &mut Cx) -> Outcome {
    let len = cx.keys.read_as::<List>(cx.arg(1))?.map_or(0, List::len);
    cx.reply.integer(len as i64);
    Ok(Effect::None)
}

pub(super) const LINDEX: Spec = Spec {
    name: "lindex",
    arity: Arity::Exactly(3),
    flags: Flags::READONLY,
    acl: Acl::LIST,
    group: Group::List,
    since: "1.0.0",
    summary: "Gives the element at an index of a list.",
    complexity: "O(log N) far from both ends, N being the length of the list.",
    key_specs: &[KeySpec::key(1, KeyFlags::RO.union(KeyFlags::ACCESS))],
    args: &[KEY, Arg { name: "index", kind: ArgKind::Integer, ..Arg::NEW }],
    handler: Some(lindex),
    ..Spec::NEW
};

fn lindex(cx: &mut Cx) -> Outcome {
    let Some(list) = cx.keys.read_as::<List>(cx.args[1])? else {
        cx.reply.null();
        return Ok(Effect::None);
    };
    let place = list.place(parse_int(cx.args[2])?);
    let reply = &mut *cx.reply;
    if place.and_then(|place| list.with(place, |element| reply_element(reply, element))).is_none() {
        reply.null();
    }
    Ok(Effect::None)
}

pub(super) const LRANGE: Spec = Spec {
    name: "lrange",
    arity: Arity::Exactly(4),
    flags: Flags::READONLY,
    acl: Acl::LIST,
    group: Group::List,
    since: "1.0.0",
    summary: "Gives the elements between two indexes of a list.",
    complexity: "O(N), N being the number of elements given.",
    key_specs: &[KeySpec::key(1, KeyFlags::RO.union(KeyFlags::ACCESS))],
    args: &[
        KEY,
        Arg { name: "start", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "stop", kind: ArgKind::Integer, ..Arg::NEW },
    ],
    handler: Some(lrange),
    ..Spec::NEW
};

fn lrange(cx: &mut Cx) -> Outcome {
    let (start, stop) = (cx.int(2)?, cx.int(3)?);
    let Some(list) = cx.keys.read_as::<List>(cx.args[1])? else {
        cx.reply.array(0);
        return Ok(Effect::None);
    };
    let (start, count) = span(start, stop, list.len());
    cx.reply.array(count);
    if count > 0 {
        let mut walk = list.walk(start, End::Back);
        for _ in 0..count {
            let Some(element) = walk.next() else { break };
            reply_element(cx.reply, element);
        }
    }
    Ok(Effect::None)
}

pub(super) const LPOS: Spec = Spec {
    name: "lpos",
    arity: Arity::AtLeast(3),
    flags: Flags::READONLY,
    acl: Acl::LIST,
    group: Group::List,
    since: "6.0.6",
    summary: "Gives the indexes of the elements of a list that equal the given one.",
    complexity: "O(N), N being the length of the list.",
    key_specs: &[KeySpec::key(1, KeyFlags::RO.union(KeyFlags::ACCESS))],
    args: &[
        KEY,
        Arg { name: "element", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "rank", kind: ArgKind::Integer, token: Some("RANK"), optional: true, ..Arg::NEW },
        Arg { name: "num-matches", kind: ArgKind::Integer, token: Some("COUNT"), optional: true, ..Arg::NEW },
        Arg { name: "len", kind: ArgKind::Integer, token: Some("MAXLEN"), optional: true, ..Arg::NEW },
    ],
    handler: Some(lpos),
    ..Spec::NEW
};

/// What to look for, and how far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Search {
    pub(super) towards: End,
    /// Matches to pass over.
    pub(super) skip: u64,
    /// How many matches are wanted, 0 for all; `None` for one that is answered by itself.
    pub(super) count: Option<usize>,
    /// How many elements to compare at most; 0: all.
    pub(super) max_compared: usize,
}

impl Search {
    pub(super) fn parse(options: &[&[u8]]) -> Result<Self, CommandError> {
        let mut search = Search { towards: End::Back, skip: 0, count: None, max_compared: 0 };
        let (pairs, rest) = options.as_chunks::<2>();
        for [word, value] in pairs {
            if word.eq_ignore_ascii_case(b"rank") {
                let rank = parse_symmetric(value)?;
                search.towards = if rank < 0 { End::Front } else { End::Back };
                search.skip = rank.unsigned_abs().checked_sub(1).ok_or(CommandError::text(
                    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use \
                     negative to start from the end of the list",
                ))?;
            } else if word.eq_ignore_ascii_case(b"count") {
                let negative = CommandError::text("ERR COUNT can't be negative");
                search.count = Some(parse_at_least(value, 0, negative)?);
            } else if word.eq_ignore_ascii_case(b"maxlen") {
                let negative = CommandError::text("ERR MAXLEN can't be negative");
                search.max_compared = parse_at_least(value, 0, negative)?;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        if rest.is_empty() { Ok(search) } else { Err(CommandError::Syntax) }
    }

    /// The places of the matches, in the order in which they are met.
    pub(super) fn run(&self, list: &List, text: &[u8]) -> Vec<usize> {
        let needle = Needle::new(text);
        let wanted = match self.count {
            None => 1,
            Some(0) => usize::MAX,
            Some(count) => count,
        };
        let last = list.len().saturating_sub(1);
        let compared = if self.max_compared == 0 { list.len() } else { self.max_compared.min(list.len()) };
        let mut walk = list.walk(if self.towards == End::Back { 0 } else { last }, self.towards);
        let mut skip = self.skip;
        let mut found = Vec::new();
        for step in 0..compared {
            let Some(element) = walk.next() else { break };
            if !needle.is(element) {
                continue;
            }
            if skip > 0 {
                skip -= 1;
                continue;
            }
            found.push(if self.towards == End::Back { step } else { last - step });
            if found.len() >= wanted {
                break;
            }
        }
        found
    }
}

fn lpos(cx: &mut Cx) -> Outcome {
    let search = Search::parse(cx.args.get(3..).unwrap_or_default())?;
    let found = match cx.keys.read_as::<List>(cx.args[1])? {
        Some(list) => search.run(list, cx.args[2]),
        None => Vec::new(),
    };
    if search.count.is_some() {
        cx.reply.array(found.len());
        for place in found {
            cx.reply.integer(place as i64);
        }
    } else {
        match found.first() {
            Some(&place) => cx.reply.integer(place as i64),
            None => cx.reply.null(),
        }
    }
    Ok(Effect::None)
}
