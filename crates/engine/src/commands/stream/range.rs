//! XRANGE and XREVRANGE.

use super::super::prelude::*;
use super::{args, reply_entry};
use kara_keyspace::value::stream::{Entry, Stream};
use kara_resp::Writer;

pub(super) const XRANGE: Spec = Spec {
    name: "xrange",
    arity: Arity::AtLeast(4),
    flags: Flags::READONLY,
    acl: Acl::STREAM,
    group: Group::Stream,
    since: "5.0.0",
    summary: "Returns the entries of a stream between two ids.",
    complexity: "O(N) for N returned entries.",
    key_specs: &[KeySpec::key(1, KeyFlags::RO.union(KeyFlags::ACCESS))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "start", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "end", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "count", kind: ArgKind::Integer, token: Some("COUNT"), optional: true, ..Arg::NEW },
    ],
    handler: Some(xrange),
    ..Spec::NEW
};

fn xrange(cx: &mut Cx) -> Outcome {
    range(cx, false)
}

pub(super) const XREVRANGE: Spec = Spec {
    name: "xrevrange",
    arity: Arity::AtLeast(4),
    flags: Flags::READONLY,
    acl: Acl::STREAM,
    group: Group::Stream,
    since: "5.0.0",
    summary: "Returns the entries of a stream between two ids, newest first.",
    complexity: "O(N) for N returned entries.",
    key_specs: &[KeySpec::key(1, KeyFlags::RO.union(KeyFlags::ACCESS))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "end", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "start", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "count", kind: ArgKind::Integer, token: Some("COUNT"), optional: true, ..Arg::NEW },
    ],
    handler: Some(xrevrange),
    ..Spec::NEW
};

fn xrevrange(cx: &mut Cx) -> Outcome {
    range(cx, true)
}

fn range(cx: &mut Cx, reverse: bool) -> Outcome {
    let (start, end) = if reverse { (cx.arg(3), cx.arg(2)) } else { (cx.arg(2), cx.arg(3)) };
    let (start, end) = (args::interval_start(start)?, args::interval_end(end)?);
    let mut count = None;
    let mut at = 4;
    while at < cx.args.len() {
        if !cx.is_word(at, "count") || at + 1 == cx.args.len() {
            return Err(CommandError::Syntax);
        }
        count = Some(usize::try_from(cx.int(at + 1)?).unwrap_or(0));
        at += 2;
    }

    let Some(stream) = cx.keys.read_as::<Stream>(cx.arg(1))? else {
        cx.reply.array(0);
        return Ok(Effect::None);
    };
    let log = stream.log();
    match count {
        Some(0) => cx.reply.null_array(),
        _ if reverse => reply_entries(cx.reply, log.range_rev(start, end), count),
        _ => reply_entries(cx.reply, log.range(start, end), count),
    }
    Ok(Effect::None)
}

/// Up to `count` entries as one array.
pub(super) fn reply_entries<'a>(
    reply: &mut Writer,
    entries: impl Iterator<Item = Entry<'a>>,
    count: Option<usize>,
) {
    let mark = reply.defer();
    let mut written = 0;
    for entry in entries.take(count.unwrap_or(usize::MAX)) {
        reply_entry(reply, &entry);
        written += 1;
    }
    reply.end_array(mark, written);
}
