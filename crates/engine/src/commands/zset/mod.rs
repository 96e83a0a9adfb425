//! Sorted sets. The data operations are `ZSet`'s; here are arguments, replies, events and effects.

mod add;
mod algebra;
mod pop;
mod range;
mod read;
mod remove;

use super::prelude::*;
use kara_encoding::listpack::Element;
use kara_keyspace::Collection;
use kara_keyspace::value::zset::{Iter, ZSet, ZSetConfig};
use kara_resp::Writer;

pub(super) use add::add;

/// The family's commands.
pub const COMMANDS: &[Spec] = &[
    pop::BZMPOP,
    pop::BZPOPMAX,
    pop::BZPOPMIN,
    add::ZADD,
    read::ZCARD,
    read::ZCOUNT,
    algebra::ZDIFF,
    algebra::ZDIFFSTORE,
    add::ZINCRBY,
    algebra::ZINTER,
    algebra::ZINTERCARD,
    algebra::ZINTERSTORE,
    read::ZLEXCOUNT,
    pop::ZMPOP,
    read::ZMSCORE,
    pop::ZPOPMAX,
    pop::ZPOPMIN,
    read::ZRANDMEMBER,
    range::ZRANGE,
    range::ZRANGEBYLEX,
    range::ZRANGEBYSCORE,
    range::ZRANGESTORE,
    read::ZRANK,
    remove::ZREM,
    remove::ZREMRANGEBYLEX,
    remove::ZREMRANGEBYRANK,
    remove::ZREMRANGEBYSCORE,
    range::ZREVRANGE,
    range::ZREVRANGEBYLEX,
    range::ZREVRANGEBYSCORE,
    read::ZREVRANK,
    read::ZSCAN,
    read::ZSCORE,
    algebra::ZUNION,
    algebra::ZUNIONSTORE,
];

/// The first argument is a key that is read.
pub(super) const ONE_READ: &[KeySpec] = &[KeySpec {
    notes: "",
    flags: KeyFlags::RO.union(KeyFlags::ACCESS),
    begin: Begin::Index(1),
    find: Find::Range { last: 0, step: 1, limit: 0 },
}];

/// The first argument is a key from which members are removed.
const ONE_REMOVE: &[KeySpec] = &[KeySpec {
    notes: "",
    flags: KeyFlags::RW.union(KeyFlags::DELETE),
    begin: Begin::Index(1),
    find: Find::Range { last: 0, step: 1, limit: 0 },
}];

pub(super) const KEY: Arg = Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW };

const WITHSCORES: Arg = Arg {
    name: "withscores",
    kind: ArgKind::PureToken,
    token: Some("WITHSCORES"),
    optional: true,
    ..Arg::NEW
};

const NOT_SCORE_RANGE: CommandError = CommandError::text("ERR min or max is not a float");
const NOT_LEX_RANGE: CommandError = CommandError::text("ERR min or max not valid string range item");
const NAN_SCORE: CommandError = CommandError::text("ERR resulting score is not a number (NaN)");

/// The thresholds as they are set now.
pub(super) fn config(cx: &Cx) -> ZSetConfig {
    ZSetConfig {
        max_listpack_entries: usize::try_from(cx.config.zset_max_listpack_entries).unwrap_or(usize::MAX),
        max_listpack_value: usize::try_from(cx.config.zset_max_listpack_value).unwrap_or(usize::MAX),
        seed: cx.keys.space.keyspace().seed(),
    }
}

fn reply_element(reply: &mut Writer, element: Element<'_>) {
    match element {
        Element::Int(value) => reply.bulk_i64(value),
        Element::Str(bytes) => reply.bulk(bytes),
    }
}

/// Members, with their scores if wanted: pairs in RESP3, one flat array in RESP2.
fn reply_items(reply: &mut Writer, items: Iter<'_>, with_scores: bool) {
    let pairs = with_scores && reply.is_resp3();
    reply.array(if with_scores && !pairs { items.len().saturating_mul(2) } else { items.len() });
    for (member, score) in items {
        if pairs {
            reply.array(2);
        }
        reply_element(reply, member);
        if with_scores {
            reply.double(score);
        }
    }
}

/// Puts a result under `key` in the place of what was there, or deletes the key where the result is empty. Replies
/// the number of members.
pub(super) fn store(cx: &mut Cx, key: &[u8], result: ZSet, event: &'static str) -> Effect {
    let len = result.len();
    cx.reply.integer(i64::try_from(len).unwrap_or(i64::MAX));
    if len > 0 {
        cx.keys.set_value(key, result.into_value());
        cx.keys.changed(key, Class::ZSET, event);
        return Effect::Verbatim;
    }
    delete(cx, key)
}

/// Deletes a key where it is there, and tells.
pub(super) fn delete(cx: &mut Cx, key: &[u8]) -> Effect {
    let deleted = cx.keys.delete(key);
    if deleted {
        cx.keys.changed(key, Class::GENERIC, "del");
    }
    Effect::verbatim_if(deleted)
}

/// Tells of members that were removed, and deletes the key if none is left.
fn removed(cx: &mut Cx, key: &[u8], event: &'static str, empty: bool, count: usize) {
    cx.keys.changed(key, Class::ZSET, event);
    if empty {
        cx.keys.delete(key);
        cx.keys.notify(Class::GENERIC, "del", key);
    }
    cx.extra_changes += (count as u64).saturating_sub(1);
}
