//! The figures about memory that INFO and MEMORY share.

use super::info::View;
use crate::clients::ClientKind;
use crate::config::Config;
use crate::evict::gauge;
use crate::observe::note_peak;
use kara_base::usage::{self, AllocatorStats};
use kara_keyspace::DbStats;
use std::sync::atomic::Ordering::Relaxed;

/// Bytes, unless another unit is told.
pub(super) struct MemoryUse {
    pub used: u64,
    pub peak: u64,
    pub startup: u64,
    pub resident: u64,
    /// Without figures of the allocator's own the process's stand for them, as in the reference.
    pub allocator: AllocatorStats,
    allocator_known: bool,
    /// Of clients that aren't replicas.
    pub clients: u64,
    pub replicas: u64,
    /// The replication log: what the backlog's size covers, and all of it.
    pub backlog: u64,
    pub replication_log: u64,
    pub aof_buffer: u64,
    pub keys: u64,
    /// The tables of all databases, without the entries.
    pub index: u64,
    /// All but the data: start-up, clients, index.
    pub overhead: u64,
}

fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

fn difference(a: u64, b: u64) -> i64 {
    i64::try_from(i128::from(a) - i128::from(b)).unwrap_or(0)
}

impl MemoryUse {
    /// The figures as of now.
    pub fn now(cx: View, dbs: &[DbStats]) -> Self {
        let shared = cx.shared;
        let used = note_peak(&shared.stats, cx.now_ms);
        let resident = usage::resident_memory();
        let allocator = usage::allocator_stats();
        let (mut clients, mut replicas) = (0, 0);
        let mut has_replicas = false;
        for client in shared.clients.all().iter().filter(|client| !client.kill.load(Relaxed)) {
            let is_replica = client.kind() == ClientKind::Replica;
            has_replicas |= is_replica;
            let sum = if is_replica { &mut replicas } else { &mut clients };
            *sum += client.total_bytes.load(Relaxed);
        }
        let log = &shared.replication.backlog;
        let (replication_log, excess) = (log.memory() as u64, log.excess());
        let backlog = replication_log - excess.min(replication_log);
        // Replicas read the one log: what is kept for them beyond its size is theirs.
        replicas += if has_replicas { excess } else { 0 };
        let aof_buffer = gauge::aof_buffer(&shared.persist);
        let scripts = shared.scripts.usage();
        let scripts = scripts.cached_bytes + scripts.library_bytes;
        let keys = dbs.iter().map(|db| db.keys as u64).sum();
        let index = dbs.iter().map(|db| db.index_bytes as u64).sum::<u64>();
        let startup = shared.startup_memory.load(Relaxed);
        MemoryUse {
            used,
            peak: shared.stats.peak_memory.load(Relaxed),
            startup,
            resident,
            allocator_known: allocator.is_some(),
            allocator: allocator.unwrap_or(AllocatorStats {
                allocated: used,
                active: resident,
                resident,
                muzzy: 0,
            }),
            clients,
            replicas,
            backlog,
            replication_log,
            aof_buffer,
            keys,
            index,
            overhead: startup + clients + replicas + backlog + aof_buffer + scripts + index,
        }
    }

    pub fn dataset(&self) -> u64 {
        self.used.saturating_sub(self.overhead)
    }

    /// Of what was added since the start.
    pub fn dataset_percentage(&self) -> f64 {
        (100.0 * ratio(self.dataset(), self.used.saturating_sub(self.startup))).min(100.0)
    }

    pub fn peak_percentage(&self) -> f64 {
        100.0 * ratio(self.used, self.peak)
    }

    pub fn bytes_per_key(&self) -> u64 {
        self.used.saturating_sub(self.startup).checked_div(self.keys).unwrap_or(0)
    }

    pub fn fragmentation_ratio(&self) -> f64 {
        if self.allocator_known { ratio(self.allocator.active, self.allocator.allocated) } else { 1.0 }
    }

    pub fn fragmentation_bytes(&self) -> i64 {
        if self.allocator_known { difference(self.allocator.active, self.allocator.allocated) } else { 0 }
    }

    pub fn allocator_rss_ratio(&self) -> f64 {
        ratio(self.allocator.resident, self.allocator.active)
    }

    pub fn allocator_rss_bytes(&self) -> i64 {
        difference(self.allocator.resident, self.allocator.active)
    }

    pub fn rss_overhead_ratio(&self) -> f64 {
        ratio(self.resident, self.allocator.resident)
    }

    pub fn rss_overhead_bytes(&self) -> i64 {
        difference(self.resident, self.allocator.resident)
    }

    pub fn total_fragmentation_ratio(&self) -> f64 {
        ratio(self.resident, self.used)
    }

    pub fn total_fragmentation_bytes(&self) -> i64 {
        difference(self.resident, self.used)
    }
}

/// The eviction policy as its setting names it.
pub(super) fn policy_name(config: &Config) -> &'static str {
    config.maxmemory_policy.as_str()
}
