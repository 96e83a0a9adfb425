//! Active expiry: each worker removes what is due in its share of the shards, a bounded time per tick.

use crate::commands::hash::expire_due_fields;
use crate::keys::Keys;
use crate::pipeline::Engine;
use crate::shared::PauseMode;
use kara_base::ids::{DbIndex, ShardId};
use kara_keyspace::{Entry, ExpireProgress};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Entries and segments looked at under one lock: some tens of microseconds.
const STEP: usize = 500;

impl Engine {
    /// One tick's share of active expiry. At most a quarter of the tick at `active-expire-effort` 1, as in the
    /// reference, and 2 % more of it for each step of effort.
    pub(crate) fn expire_cycle(&mut self) {
        let shared = self.shared.clone();
        let paused = shared.pause.mode(self.now_ms) != PauseMode::Off;
        let off =
            !shared.active_expire.load(Relaxed) || shared.loading.load(Relaxed) || self.config.import_mode;
        if paused || off || !self.deletes_expired() {
            return;
        }
        let start = Instant::now();
        let percent = 25 + 2 * (self.config.active_expire_effort.clamp(1, 10) - 1);
        let limit = Duration::from_millis(1000 / self.config.hz.max(1)) * percent as u32 / 100;
        let (index, workers) = (self.worker, shared.workers);
        let own = shared.keyspace.shard_ids().filter(|id| id.0 as usize % workers == index);
        let mut capped = false;
        'shards: for shard in own {
            for db in 0..shared.keyspace.databases() {
                while self.expire_some(shard, DbIndex(db as u32)) {
                    if start.elapsed() >= limit {
                        capped = true;
                        break 'shards;
                    }
                }
            }
        }
        let stats = shared.stats.worker(self.worker);
        stats.expired_time_cap_reached.add(u64::from(capped));
        let took = start.elapsed();
        stats.expire_cycle_ns.add(took.as_nanos() as u64);
        shared.observe.note_event(&self.config, "expire-cycle", took, self.now_ms);
    }

    /// One step in one database of one shard; `true` while there may be more.
    fn expire_some(&mut self, shard: ShardId, db: DbIndex) -> bool {
        let shared = self.shared.clone();
        // Whoever holds it may do so for long; the next cycle will find it free.
        let Some(mut space) = shared.keyspace.try_lock_one(shard) else { return false };
        let lazy = self.config.lazyfree_lazy_expire;
        let mut keys = self.keys_outside_commands(&shared, &mut space, db);
        let whole = expire_due_keys(&mut keys, STEP, lazy);
        let fields = expire_due_fields(&mut keys, STEP);
        let more = |progress: ExpireProgress| !progress.finished && progress.expired > 0;
        self.journal_preceding();
        self.deliver_events(&space, None);
        if !self.ready.is_empty() {
            self.serve_ready(&mut space);
        }
        self.post_messages();
        more(whole) || more(fields)
    }
}

/// Goes on with the walk over the keys of `keys.db` and removes those whose time is over.
fn expire_due_keys(keys: &mut Keys<'_, '_>, budget: usize, lazy: bool) -> ExpireProgress {
    let mut gone: Vec<Entry> = Vec::new();
    let progress = keys.space.expire_step(keys.db, keys.now_ms, budget, |entry| gone.push(entry));
    for entry in gone {
        keys.note_expired(keys.db, entry.key());
        keys.reclaim(entry, lazy);
    }
    progress
}
