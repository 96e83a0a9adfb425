//! Sets. The data operations are `Set`'s; here are arguments, replies, events and effects.

mod algebra;
mod basic;
mod random;

use super::prelude::*;
use super::shared::as_len;
use kara_keyspace::value::set::SetConfig;

/// The family's commands.
pub const COMMANDS: &[Spec] = &[
    basic::SADD,
    basic::SCARD,
    algebra::SDIFF,
    algebra::SDIFFSTORE,
    algebra::SINTER,
    algebra::SINTERCARD,
    algebra::SINTERSTORE,
    basic::SISMEMBER,
    algebra::SMEMBERS,
    basic::SMISMEMBER,
    basic::SMOVE,
    random::SPOP,
    random::SRANDMEMBER,
    basic::SREM,
    basic::SSCAN,
    algebra::SUNION,
    algebra::SUNIONSTORE,
];

/// The thresholds as they are set now.
pub(super) fn config(cx: &Cx) -> SetConfig {
    SetConfig {
        max_intset_entries: as_len(cx.config.set_max_intset_entries),
        max_listpack_entries: as_len(cx.config.set_max_listpack_entries),
        max_listpack_value: as_len(cx.config.set_max_listpack_value),
        seed: cx.keys.space.keyspace().seed(),
    }
}
