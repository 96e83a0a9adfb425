//! How full memory is: when a worker has to add up what all threads use, and how long `maxmemory` has been exceeded.

use crate::persist::Persist;
use crate::reclaim::Reclaimer;
use crate::shared::Shared;
use kara_base::alloc::{thread_balance, used_memory};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Of `maxmemory`: what a worker may add before it looks again, however full memory is. All workers together stay within
/// an eight-thousandth.
const GRAIN: u64 = 8192;
/// Of `maxmemory`: how much may be on its way to being freed by the freeing thread and counts as freed already.
const PENDING: u64 = 256;

/// One worker's view. While it stays below what it may add, all that a command pays is one comparison.
#[derive(Debug)]
pub(crate) struct Gauge {
    /// The worker's own balance at which it adds up again.
    until: i64,
    /// When it last did, Unix ms.
    looked_ms: i64,
}

impl Default for Gauge {
    fn default() -> Self {
        Gauge { until: i64::MIN, looked_ms: 0 }
    }
}

impl Gauge {
    /// Whether nothing need be added up.
    #[inline]
    pub fn has_room(&self) -> bool {
        thread_balance().is_some_and(|balance| balance < self.until)
    }

    /// A new millisecond: threads that aren't workers may have added something.
    #[inline]
    pub fn begin_turn(&mut self, now_ms: i64) {
        if self.looked_ms != now_ms {
            self.look_again();
        }
    }

    /// Adds up with the next command.
    pub fn look_again(&mut self) {
        self.until = i64::MIN;
    }

    /// Shares what is left until `limit` among the workers, half of it: others allocate, too.
    pub fn share(&mut self, used: u64, limit: u64, workers: usize, now_ms: i64) {
        let workers = workers.max(1) as u64;
        let share = (limit.saturating_sub(used) / 2).max(limit / GRAIN) / workers;
        let share = i64::try_from(share).unwrap_or(i64::MAX);
        self.until = thread_balance().map_or(i64::MIN, |balance| balance.saturating_add(share));
        self.looked_ms = now_ms;
    }
}

/// Bytes in use that count against `maxmemory`.
pub(crate) fn counted(shared: &Shared, limit: u64) -> u64 {
    let used = used_memory();
    if used <= limit {
        return used;
    }
    let freed = pending(&shared.reclaimer, limit) + shared.clients.evicted_bytes();
    used.saturating_sub(not_counted(shared)).saturating_sub(freed)
}

/// The part of what waits to be freed that counts as freed.
fn pending(reclaimer: &Reclaimer, limit: u64) -> u64 {
    reclaimer.pending_bytes().min(limit / PENDING)
}

/// Bytes that don't count, as they would only grow by evicting, or are gone in a moment: what replicas have yet to read
/// beyond the backlog's size, what is on its way into the append-only file, or from one worker to another's clients.
pub(crate) fn not_counted(shared: &Shared) -> u64 {
    let replication = &shared.replication;
    let links = replication.backlog.excess() + replication.link_bytes.load(Relaxed);
    links + aof_buffer(&shared.persist) + shared.host.mail_bytes()
}

/// Bytes that wait to be written to the append-only file.
pub(crate) fn aof_buffer(persist: &Persist) -> u64 {
    if persist.aof.is_on() { persist.aof.log().map_or(0, |log| log.buffered()) } else { 0 }
}

/// How long `maxmemory` has been exceeded.
#[derive(Debug)]
pub struct Exceeded {
    started: Instant,
    /// Since when, in microseconds from `started` on; 0: it isn't.
    since_us: AtomicU64,
    /// Of times that are over.
    past_us: AtomicU64,
    /// The longest eviction before one command, of processor time.
    longest_ns: AtomicU64,
    /// How many took more than a millisecond.
    long: AtomicU64,
}

impl Default for Exceeded {
    fn default() -> Self {
        let zero = AtomicU64::default;
        Exceeded {
            started: Instant::now(),
            since_us: zero(),
            past_us: zero(),
            longest_ns: zero(),
            long: zero(),
        }
    }
}

impl Exceeded {
    fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
    }

    /// A worker found it exceeded, or not.
    pub fn note(&self, exceeded: bool) {
        let since_us = self.since_us.load(Relaxed);
        if exceeded == (since_us != 0) {
            return;
        }
        let now_us = self.now_us();
        if exceeded {
            let _ = self.since_us.compare_exchange(0, now_us, Relaxed, Relaxed);
        } else if self.since_us.compare_exchange(since_us, 0, Relaxed, Relaxed).is_ok() {
            self.past_us.fetch_add(now_us.saturating_sub(since_us), Relaxed);
        }
    }

    /// A command, or a turn of the loop, was held up by eviction.
    pub fn note_eviction(&self, ns: u64) {
        self.longest_ns.fetch_max(ns, Relaxed);
        if ns > 1_000_000 {
            self.long.fetch_add(1, Relaxed);
        }
    }

    /// The longest of them since this was asked last, ns, and how many took more than a millisecond.
    pub fn take_longest(&self) -> (u64, u64) {
        (self.longest_ns.swap(0, Relaxed), self.long.swap(0, Relaxed))
    }

    /// In all and now, ms.
    pub fn times_ms(&self) -> (u64, u64) {
        let current_us = match self.since_us.load(Relaxed) {
            0 => 0,
            since_us => self.now_us().saturating_sub(since_us),
        };
        ((self.past_us.load(Relaxed) + current_us) / 1000, current_us / 1000)
    }

    /// CONFIG RESETSTAT.
    pub fn reset(&self) {
        self.past_us.store(0, Relaxed);
        self.since_us.store(0, Relaxed);
    }
}
