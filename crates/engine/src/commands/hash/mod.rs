//! Hashes. The data operations are `Hash`'s; here are arguments, replies, events and effects.

mod expire;
mod fields;
mod incr;
mod read;
mod sweep;
mod write;

use super::prelude::*;
use super::shared::as_len;
use kara_keyspace::value::hash::HashConfig;

pub use sweep::expire_due_fields;

/// The family's commands.
pub const COMMANDS: &[Spec] = &[
    write::HDEL,
    read::HEXISTS,
    expire::HEXPIRE,
    expire::HEXPIREAT,
    expire::HEXPIRETIME,
    read::HGET,
    read::HGETALL,
    write::HGETDEL,
    expire::HGETEX,
    incr::HINCRBY,
    incr::HINCRBYFLOAT,
    read::HKEYS,
    read::HLEN,
    read::HMGET,
    write::HMSET,
    expire::HPERSIST,
    expire::HPEXPIRE,
    expire::HPEXPIREAT,
    expire::HPEXPIRETIME,
    expire::HPTTL,
    read::HRANDFIELD,
    read::HSCAN,
    write::HSET,
    write::HSETEX,
    write::HSETNX,
    read::HSTRLEN,
    expire::HTTL,
    read::HVALS,
];

/// The thresholds as they are set now.
pub(super) fn config(cx: &Cx) -> HashConfig {
    HashConfig {
        max_listpack_entries: as_len(cx.config.hash_max_listpack_entries),
        max_listpack_value: as_len(cx.config.hash_max_listpack_value),
        seed: cx.keys.space.keyspace().seed(),
    }
}

/// The time that fields are measured by: where expired keys are visible, so are expired fields.
fn field_now_ms(cx: &Cx) -> i64 {
    if cx.keys.policy.see_expired { i64::MIN } else { cx.now_ms }
}

/// Whether a field that is given this expiry is removed instead. What comes from elsewhere is taken as it is.
fn expires_at_once(cx: &Cx, at_ms: i64) -> bool {
    at_ms <= cx.now_ms && !cx.keys.policy.see_expired
}

/// Tells of fields that ceased to exist because their time was over.
fn fields_expired(cx: &mut Cx, key: &[u8], count: usize) {
    if count > 0 {
        cx.stats.expired_fields.add(count as u64);
        cx.keys.notify(Class::HASH, "hexpired", key);
    }
}

/// Lets the keyspace see whether a hash has expiring fields, where that may have changed.
fn note_volatile(cx: &mut Cx, key: &[u8], may_have_changed: bool) {
    if may_have_changed {
        let key = cx.keys.key(key);
        cx.keys.space.note_fields(cx.keys.db, &key);
    }
}

/// Deletes a hash whose last field is gone, and tells.
fn delete_if_empty(cx: &mut Cx, key: &[u8], empty: bool) {
    if empty {
        cx.keys.delete(key);
        cx.keys.notify(Class::GENERIC, "del", key);
    }
}
