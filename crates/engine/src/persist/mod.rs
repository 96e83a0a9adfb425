//! Saving and loading as the engine sees it: what is under way, what became of the last time, and the settings that
//! decide the form of loaded values.
//!
//! Boundary: formats and files are the crate `persist`'s; threads are started here, sockets don't occur.

use crate::config::Config;
use crate::shared::Shared;
use kara_keyspace::value::hash::HashConfig;
use kara_keyspace::value::set::SetConfig;
use kara_keyspace::value::zset::ZSetConfig;
use kara_persist::rdb::decode::ValueLimits;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// What is known about saving and loading.
#[derive(Debug, Default)]
pub struct Persist {
    /// DEBUG SET-SKIP-CHECKSUM-VALIDATION.
    pub skip_checksum: AtomicBool,
    /// Packed values of payloads that were looked through.
    pub sanitizations: AtomicU64,
}

/// The settings that decide which form a loaded value takes.
pub fn value_limits(config: &Config, shared: &Shared) -> ValueLimits {
    let len = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let seed = shared.keyspace.seed();
    ValueLimits {
        list: crate::commands::list::limits(config, shared),
        set: SetConfig {
            max_intset_entries: len(config.set_max_intset_entries),
            max_listpack_entries: len(config.set_max_listpack_entries),
            max_listpack_value: len(config.set_max_listpack_value),
            seed,
        },
        hash: HashConfig {
            max_listpack_entries: len(config.hash_max_listpack_entries),
            max_listpack_value: len(config.hash_max_listpack_value),
            seed,
        },
        zset: ZSetConfig {
            max_listpack_entries: len(config.zset_max_listpack_entries),
            max_listpack_value: len(config.zset_max_listpack_value),
            seed,
        },
    }
}
