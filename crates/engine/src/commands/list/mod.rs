//! Lists. The data operations are `List`'s; here are arguments, replies, events and effects.

mod edit;
mod pop;
mod push;
mod read;
#[cfg(test)]
mod tests;
mod transfer;

use super::prelude::*;
use crate::config::Config;
use crate::shared::Shared;
use kara_encoding::listpack::Element;
use kara_keyspace::value::list::{End, ListLimits};
use kara_resp::Writer;
use std::sync::atomic::Ordering::Relaxed;

/// The family's commands.
pub const COMMANDS: &[Spec] = &[
    transfer::BLMOVE,
    pop::BLMPOP,
    pop::BLPOP,
    pop::BRPOP,
    transfer::BRPOPLPUSH,
    read::LINDEX,
    edit::LINSERT,
    read::LLEN,
    transfer::LMOVE,
    pop::LMPOP,
    pop::LPOP,
    read::LPOS,
    push::LPUSH,
    push::LPUSHX,
    read::LRANGE,
    edit::LREM,
    edit::LSET,
    edit::LTRIM,
    pop::RPOP,
    transfer::RPOPLPUSH,
    push::RPUSH,
    push::RPUSHX,
];

const KEY: Arg = Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW };
const LEFT: Arg = Arg::word("left", "LEFT");
const RIGHT: Arg = Arg::word("right", "RIGHT");

/// The settings that decide a list's shape now.
pub(crate) fn limits(config: &Config, shared: &Shared) -> ListLimits {
    ListLimits {
        max_listpack_size: config.list_max_listpack_size,
        compress_depth: u32::try_from(config.list_compress_depth).unwrap_or(u32::MAX),
        packed_threshold: shared.quicklist_packed_threshold.load(Relaxed),
    }
}

/// Writes an element as a bulk reply.
#[inline]
fn reply_element(reply: &mut Writer, element: Element<'_>) {
    match element {
        Element::Int(value) => reply.bulk_i64(value),
        Element::Str(text) => reply.bulk(text),
    }
}

/// The event of a push at this end.
fn push_event(end: End) -> &'static str {
    match end {
        End::Front => "lpush",
        End::Back => "rpush",
    }
}

/// The event of a pop at this end.
fn pop_event(end: End) -> &'static str {
    match end {
        End::Front => "lpop",
        End::Back => "rpop",
    }
}

/// LEFT or RIGHT.
fn parse_end(word: &[u8]) -> Result<End, CommandError> {
    if word.eq_ignore_ascii_case(b"left") {
        Ok(End::Front)
    } else if word.eq_ignore_ascii_case(b"right") {
        Ok(End::Back)
    } else {
        Err(CommandError::Syntax)
    }
}

/// An integer of which the smallest is refused: it has no positive counterpart.
fn parse_symmetric(text: &[u8]) -> Result<i64, CommandError> {
    const TOO_LOW: CommandError = CommandError::text(
        "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
    );
    parse_int(text).and_then(|n| if n == i64::MIN { Err(TOO_LOW) } else { Ok(n) })
}

/// An integer of at least `min`, or the given error.
fn parse_at_least(text: &[u8], min: usize, error: CommandError) -> Result<usize, CommandError> {
    kara_base::number::parse_i64(text)
        .and_then(|n| usize::try_from(n).ok())
        .filter(|n| *n >= min)
        .ok_or(error)
}

/// The first place and the number of the elements between two indexes, both included; negative ones count from the
/// end.
fn span(start: i64, stop: i64, len: usize) -> (usize, usize) {
    let len_signed = i64::try_from(len).unwrap_or(i64::MAX);
    let absolute = |index: i64| if index < 0 { index.saturating_add(len_signed) } else { index };
    let start = absolute(start).max(0);
    let stop = absolute(stop).min(len_signed - 1);
    if start > stop {
        return (0, 0);
    }
    (start as usize, (stop - start) as usize + 1)
}

/// Tells of elements that were removed, and deletes the key if none is left.
fn removed(cx: &mut Cx, key: &[u8], event: &'static str, empty: bool, count: usize) {
    cx.keys.changed(key, Class::LIST, event);
    if empty {
        cx.keys.delete(key);
        cx.keys.notify(Class::GENERIC, "del", key);
    }
    cx.extra_changes += (count as u64).saturating_sub(1);
}
