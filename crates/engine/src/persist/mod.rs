//! Saving and loading as the engine sees it: what is under way, what became of the last time, and the settings that
//! decide the form of values.
//!
//! Boundary: formats and files are the crate `persist`'s; threads are started here, sockets don't occur.

pub mod aof;
pub mod jobs;
pub mod load;
mod replay;
pub mod save;
pub mod shutdown;

use crate::access::Access;
use crate::config::{Config, RdbVersionCheck};
use crate::log::Level;
use crate::shared::Shared;
use jobs::Job;
use kara_keyspace::value::hash::HashConfig;
use kara_keyspace::value::set::SetConfig;
use kara_keyspace::value::zset::ZSetConfig;
use kara_persist::fault::Faults;
use kara_persist::rdb::decode::ValueLimits;
use kara_persist::rdb::file::{AccessNote, Annotate};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};

/// What is known about saving and loading.
#[derive(Debug)]
pub struct Persist {
    me: OnceLock<Weak<Shared>>,
    /// DEBUG SET-SKIP-CHECKSUM-VALIDATION.
    pub skip_checksum: AtomicBool,
    /// Packed values of payloads that were looked through.
    pub sanitizations: AtomicU64,
    /// The workers' count of changes at the last save.
    changes_saved: AtomicI64,
    /// Unix seconds; the start's before the first save.
    pub last_save_s: AtomicI64,
    /// Unix seconds of the last attempt in the background.
    pub last_try_s: AtomicI64,
    pub last_bgsave_ok: AtomicBool,
    /// Seconds, -1 before the first.
    pub last_bgsave_took_s: AtomicI64,
    pub rdb_saves: AtomicU64,
    pub rdb_scheduled: AtomicBool,
    /// Snapshots that began: what the reference forks for.
    pub snapshots: AtomicU64,
    /// Bytes that the last BGSAVE and the last rewrite had handed over because they were about to change.
    pub rdb_last_copied: AtomicU64,
    pub aof_last_copied: AtomicU64,
    /// The snapshot that is being written.
    pub job: Mutex<Option<Arc<Job>>>,
    /// Why writes are refused; 0: they aren't. See [`Persist::refusal`].
    pub stopped: AtomicU8,
    /// When a replica last said in the log that it goes on without its disk, ms.
    pub told_ms: AtomicI64,
    pub aof: aof::Aof,
    pub loading: load::Figures,
    /// DEBUG KARA-FAULT.
    pub faults: Arc<Faults>,
}

/// A bit of `stopped`.
pub const STOPPED_BY_RDB: u8 = 1;

impl Default for Persist {
    fn default() -> Self {
        Persist {
            me: OnceLock::new(),
            skip_checksum: AtomicBool::new(false),
            sanitizations: AtomicU64::new(0),
            changes_saved: AtomicI64::new(0),
            last_save_s: AtomicI64::new(0),
            last_try_s: AtomicI64::new(0),
            last_bgsave_ok: AtomicBool::new(true),
            last_bgsave_took_s: AtomicI64::new(-1),
            rdb_saves: AtomicU64::new(0),
            rdb_scheduled: AtomicBool::new(false),
            snapshots: AtomicU64::new(0),
            rdb_last_copied: AtomicU64::new(0),
            aof_last_copied: AtomicU64::new(0),
            job: Mutex::new(None),
            stopped: AtomicU8::new(0),
            told_ms: AtomicI64::new(0),
            aof: aof::Aof::new(),
            loading: load::Figures::default(),
            faults: Arc::default(),
        }
    }
}

impl Persist {
    /// Lets threads that are started here hold on to what all share. To be called once, at the start.
    pub fn attach(&self, shared: &Arc<Shared>) {
        self.last_save_s.store(shared.started_ms / 1000, Relaxed);
        // A second call changes nothing.
        let _ = self.me.set(Arc::downgrade(shared));
    }

    fn shared(&self) -> Option<Arc<Shared>> {
        self.me.get()?.upgrade()
    }

    /// Changes since the last save.
    pub fn dirty(&self, shared: &Shared) -> i64 {
        changes(shared) - self.changes_saved.load(Relaxed)
    }

    /// A save holds everything up to that many changes.
    fn saved(&self, changes: i64, now_s: i64) {
        self.changes_saved.store(changes, Relaxed);
        self.last_save_s.store(now_s, Relaxed);
        self.rdb_saves.fetch_add(1, Relaxed);
    }

    /// The last save holds so many changes more, which are yet to be counted.
    pub(crate) fn saved_ahead(&self, changes: u64) {
        self.changes_saved.fetch_add(i64::try_from(changes).unwrap_or(0), Relaxed);
    }

    /// What changed so far came from a file.
    fn forget_changes(&self, shared: &Shared) {
        self.changes_saved.store(changes(shared), Relaxed);
    }

    /// The workers' counters are about to start over.
    pub fn before_counters_reset(&self, shared: &Shared) {
        let dirty = self.dirty(shared);
        self.changes_saved.store(-dirty, Relaxed);
    }

    fn set_bgsave_result(&self, ok: bool) {
        self.last_bgsave_ok.store(ok, Relaxed);
        if ok {
            self.stopped.fetch_and(!STOPPED_BY_RDB, Relaxed);
        } else {
            self.stopped.fetch_or(STOPPED_BY_RDB, Relaxed);
        }
    }

    /// Why a write is refused now, if it is.
    #[cold]
    pub fn refusal(&self, config: &Config) -> Option<String> {
        let stopped = self.stopped.load(Relaxed);
        if stopped & aof::STOPPED_BY_AOF != 0 && config.appendonly {
            return Some(format!("MISCONF Errors writing to the AOF file: {}", self.aof.last_error()));
        }
        let by_rdb = stopped & STOPPED_BY_RDB != 0
            && config.stop_writes_on_bgsave_error
            && !config.save.points.is_empty();
        by_rdb.then(|| {
            "MISCONF Valkey is configured to save RDB snapshots, but it's currently unable to persist to disk. \
             Commands that may modify the data set are disabled, because this instance is configured to report \
             errors during writes if RDB snapshotting fails (stop-writes-on-bgsave-error option). Please check the \
             Valkey logs for details about the RDB error."
                .to_owned()
        })
    }
}

/// How many changes there were, since the counters began.
fn changes(shared: &Shared) -> i64 {
    shared.stats.changes() as i64
}

fn log(shared: &Shared, level: Level, text: impl AsRef<str>) {
    shared.host.log(level, text.as_ref());
}

fn is_relaxed(config: &Config) -> bool {
    config.rdb_version_check == RdbVersionCheck::Relaxed
}

/// What files note about a key's last use: that which the eviction policy asks for.
fn annotate(config: &Config, now_ms: i64) -> Annotate {
    let access = Access::new(now_ms, crate::pipeline::lfu_settings(config));
    if config.maxmemory_policy.is_lfu() {
        Arc::new(move |record| AccessNote::Frequency(access.frequency(record)))
    } else if config.maxmemory_policy.is_lru() {
        Arc::new(move |record| AccessNote::IdleSeconds(access.idle_s(record)))
    } else {
        Arc::new(|_| AccessNote::None)
    }
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
