//! Sorted sets. The data operations are `ZSet`'s; here are arguments, replies, events and effects.

mod add;
mod algebra;
mod pop;
mod range;
mod read;
mod remove;

use super::prelude::*;
use super::shared::{as_i64, as_len, delete, reply_element};
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

const WITHSCORES: Arg = Arg::word("withscores", "WITHSCORES").optional();

const NOT_SCORE_RANGE: CommandError = CommandError::text("ERR min or max is not a float");
const NOT_LEX_RANGE: CommandError = CommandError::text("ERR min or max not valid string range item");
const NAN_SCORE: CommandError = CommandError::text("ERR resulting score is not a number (NaN)");

/// The thresholds as they are set now.
pub(super) fn config(cx: &Cx) -> ZSetConfig {
    ZSetConfig {
        max_listpack_entries: as_len(cx.config.zset_max_listpack_entries),
        max_listpack_value: as_len(cx.config.zset_max_listpack_value),
        seed: cx.keys.space.keyspace().seed(),
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
    cx.reply.integer(as_i64(len));
    if len > 0 {
        cx.keys.set_value(key, result.into_value());
        cx.keys.changed(key, Class::ZSET, event);
        return Effect::Verbatim;
    }
    delete(cx, key)
}
