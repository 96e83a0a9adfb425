//! Eviction: `used_memory` stays within `maxmemory`. Each worker looks before each of its commands, and frees what is too
//! much itself: by samples and a pool, as the reference, one shard locked at a time. Clients that take too much are
//! `clients`' business.
//!
//! Boundary: what is evicted goes the way of every deletion (`Keys::evict`): the snapshot's guard, the journal, events.
//! Nothing here runs under a command's locks.

mod clients;
pub mod gauge;
mod pool;

use crate::config::{Config, MaxmemoryPolicy};
use crate::error::CommandError;
use crate::pipeline::Engine;
use crate::session::Session;
use crate::shared::Shared;
use gauge::{Gauge, counted};
use kara_base::alloc::thread_balance;
use kara_base::clock::thread_cpu_ns;
use kara_base::ids::{DbIndex, ShardId};
use kara_keyspace::{Entry, HashedKey, Locked};
use kara_resp::Writer;
use pool::Pool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Of the limit: how far above it memory may be while commands that need more go on all the same.
const TOLERANCE: u64 = 400;
/// How long at most a command looks for the first key to evict.
const FIRST_KEY: Duration = Duration::from_micros(500);
/// How long a worker naps while the freeing thread may still free enough.
const NAP: Duration = Duration::from_micros(100);

/// A worker's part in it.
#[derive(Debug, Default)]
pub(crate) struct Evictor {
    gauge: Gauge,
    pool: Pool,
    /// Which database a random key is taken from next.
    next_db: u32,
    /// Memory was full before the command at hand, and nothing could be freed: what needs more of it is refused.
    pub full: bool,
    /// More than the time allowed is needed: the loop goes on with it.
    pub more: bool,
    /// What eviction has taken in this turn.
    spent: Duration,
    /// The worker's balance when it looked last.
    left_off: Option<i64>,
    /// Bytes that its commands have added and that it has yet to evict others for.
    owed: u64,
    /// It owes something, and memory is well above the limit: what needs more of it waits until the next turn.
    pub behind: bool,
}

/// The client before whose command memory is freed, and its output.
pub(crate) type Before<'a> = Option<(&'a Session, &'a mut Writer)>;

/// How far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relief {
    /// Within the limit.
    Done,
    /// Out of time; there is more to evict.
    More,
    /// Nothing can be evicted.
    Full,
}

/// What one try did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A key that took so many bytes.
    Evicted(u64),
    /// The samples held nothing, or other threads held the shards.
    Missed,
    /// There is no key that may go.
    NoKeys,
}

impl Evictor {
    /// Settings have changed.
    pub fn configure(&mut self, old: &Config, new: &Config) {
        if old.maxmemory_policy != new.maxmemory_policy {
            self.pool.clear();
        }
        self.gauge.look_again();
        if old.maxmemory != new.maxmemory || old.maxmemory_policy != new.maxmemory_policy {
            self.more = new.maxmemory > 0;
        }
        if new.maxmemory == 0 {
            (self.full, self.more, self.behind) = (false, false, false);
        }
    }

    #[inline]
    pub fn begin_turn(&mut self, now_ms: i64) {
        self.gauge.begin_turn(now_ms);
        self.spent = Duration::ZERO;
    }

    /// What the worker's commands have added since it looked last.
    fn added(&self) -> u64 {
        let (Some(before), Some(now)) = (self.left_off, thread_balance()) else { return 0 };
        u64::try_from(now.saturating_sub(before)).unwrap_or(0)
    }

    /// It has looked; so much is still to be evicted for what it has added.
    fn leave_off(&mut self, owed: u64) {
        (self.owed, self.left_off) = (owed, thread_balance());
    }
}

/// How long a command may be held up by eviction: `maxmemory-eviction-tenacity` as the reference reads it.
fn time_limit(tenacity: u64) -> Duration {
    let us = match tenacity {
        0..=10 => 50.0 * tenacity as f64,
        // To about two minutes at 99.
        11..=99 => 500.0 * 1.15f64.powi(tenacity as i32 - 10),
        _ => return Duration::MAX,
    };
    Duration::from_micros(us as u64)
}

/// The refusal of what needs more memory than there may be.
pub(crate) fn out_of_memory() -> CommandError {
    CommandError::text("OOM command not allowed when used memory > 'maxmemory'.")
}

impl Engine {
    /// Before a command: frees memory where there is too much of it in use.
    #[inline]
    pub(crate) fn keep_limit(&mut self, space: &mut Locked<'_>, session: &Session, reply: &mut Writer) {
        if self.config.maxmemory > 0 && !self.evictor.gauge.has_room() {
            self.relieve(space, Some((session, reply)));
        }
    }

    /// Whether the loop is to come back for eviction without waiting.
    pub fn has_to_evict(&self) -> bool {
        self.evictor.more
    }

    /// Goes on with an eviction that took longer than a command may be held up.
    pub fn evict_more(&mut self) {
        let shared = self.shared.clone();
        self.relieve(&mut shared.keyspace.unlocked(), None);
    }

    /// Whether a command of our primary's may be held up by an eviction.
    pub(crate) fn evicts_for_primary(&self) -> bool {
        self.config.maxmemory > 0 && self.may_evict(&self.shared)
    }

    #[cold]
    fn relieve(&mut self, space: &mut Locked<'_>, before: Before<'_>) {
        let shared = self.shared.clone();
        (self.evictor.full, self.evictor.more, self.evictor.behind) = (false, false, false);
        if self.config.maxmemory == 0 || !self.may_evict(&shared) {
            return;
        }
        let limit = self.config.maxmemory;
        let mut used = counted(&shared, limit);
        if used > limit
            && let Some((session, reply)) = &before
        {
            self.evict_clients_first(session, reply.len());
            used = counted(&shared, limit);
        }
        if used <= limit {
            shared.exceeded.note(false);
            self.evictor.leave_off(0);
            self.evictor.gauge.share(used, limit, shared.workers, self.now_ms);
            return;
        }
        let relief = if self.config.maxmemory_policy == MaxmemoryPolicy::NoEviction || self.config.import_mode
        {
            Relief::Full
        } else {
            self.evict(&shared, space, before)
        };
        self.evictor.full = relief == Relief::Full;
        self.evictor.more = relief == Relief::More;
        shared.exceeded.note(relief != Relief::Done);
        if relief == Relief::Done {
            self.evictor.gauge.share(counted(&shared, limit), limit, shared.workers, self.now_ms);
        } else {
            self.evictor.gauge.look_again();
        }
        self.last_tick = self.ticker.now();
    }

    /// Whether this is the time and the server for it.
    fn may_evict(&self, shared: &Shared) -> bool {
        let is_spared = shared.replication.is_replica() && self.config.replica_ignore_maxmemory;
        !is_spared && !shared.scripts.is_busy() && !shared.loading.load(Relaxed) && !self.is_pausing()
    }

    fn evict(&mut self, shared: &Shared, space: &mut Locked<'_>, mut before: Before<'_>) -> Relief {
        let limit = self.config.maxmemory;
        let time = time_limit(self.config.maxmemory_eviction_tenacity);
        let latency_ms = self.config.latency_monitor_threshold;
        let begun_ns = if latency_ms > 0 { thread_cpu_ns() } else { 0 };
        let start = Instant::now();
        // What telling of evictions takes until it is sent must not cause more of them.
        let wanted = counted(shared, limit).saturating_sub(limit);
        let added = self.evictor.added();
        let owed = wanted.min(self.evictor.owed + added);
        let mut freed = 0;
        let mut relief = loop {
            // Of a turn's commands the first pay for what has been too much before, all for what they add: many clients'
            // commands wait for each other, and so together no longer for it than one.
            // The first key may take a while where few may go and others hold their shards, but no longer than that either.
            let took = start.elapsed();
            let is_over = if freed == 0 {
                took > time.max(FIRST_KEY)
            } else {
                took > time || self.evictor.spent + took > time && freed >= added
            };
            if is_over {
                break Relief::More;
            }
            match self.evict_one(shared, space, &mut before) {
                Step::NoKeys => break Relief::Full,
                Step::Evicted(bytes) => freed += bytes,
                Step::Missed => {}
            }
            if freed >= wanted || counted(shared, limit) <= limit {
                break Relief::Done;
            }
        };
        let took = start.elapsed();
        self.evictor.spent += took;
        let is_more = relief == Relief::More;
        self.evictor.leave_off(if is_more { owed.saturating_sub(freed) } else { 0 });
        self.evictor.behind = is_more && self.evictor.owed > 0 && wanted - freed > limit / TOLERANCE;
        if latency_ms > 0 {
            shared.exceeded.note_eviction(thread_cpu_ns().saturating_sub(begun_ns));
        }
        let now_s = self.now_ms / 1000;
        let evicting_ms = took.as_millis() as u64;
        if relief == Relief::Full {
            space.release();
            while shared.reclaimer.pending() > 0 && start.elapsed() < time {
                if counted(shared, limit) <= limit {
                    relief = Relief::Done;
                    break;
                }
                std::thread::sleep(NAP.min(time));
            }
            let waited_ms = start.elapsed().as_millis() as u64 - evicting_ms;
            if latency_ms > 0 && waited_ms >= latency_ms {
                shared.observe.latency.note("eviction-lazyfree", waited_ms, now_s);
            }
        }
        if latency_ms > 0 && evicting_ms >= latency_ms {
            shared.observe.latency.note("eviction-cycle", evicting_ms, now_s);
        }
        relief
    }

    /// Evicts the best key that samples and pool offer.
    fn evict_one(&mut self, shared: &Shared, space: &mut Locked<'_>, before: &mut Before<'_>) -> Step {
        if is_random(self.config.maxmemory_policy) {
            return self.evict_random(shared, space, before);
        }
        let samples = self.config.maxmemory_samples as usize;
        let mut found = self.look_through(shared, space, samples, samples);
        while let Some(candidate) = self.evictor.pool.pop() {
            if !space.try_relock_shard(shared.keyspace.shard_of(candidate.hash)) {
                found = Step::Missed;
                continue;
            }
            let key = HashedKey { bytes: &candidate.key, hash: candidate.hash };
            if let Some(freed) = self.evict_key(shared, space, candidate.db, &key, before) {
                return Step::Evicted(freed);
            }
        }
        found
    }

    fn evict_random(&mut self, shared: &Shared, space: &mut Locked<'_>, before: &mut Before<'_>) -> Step {
        self.evictor.pool.clear();
        let found = self.look_through(shared, space, 1, 1);
        let Some(candidate) = self.evictor.pool.pop() else { return found };
        let key = HashedKey { bytes: &candidate.key, hash: candidate.hash };
        let held = space.try_relock_shard(shared.keyspace.shard_of(candidate.hash));
        let freed = if held { self.evict_key(shared, space, candidate.db, &key, before) } else { None };
        freed.map_or(Step::Missed, Step::Evicted)
    }

    /// Offers samples to the pool: `each` keys of every database in a random shard, and in those behind it until there
    /// are `wanted`.
    fn look_through(&mut self, shared: &Shared, space: &mut Locked<'_>, each: usize, wanted: usize) -> Step {
        let policy = self.config.maxmemory_policy;
        let (access, keyspace) = (self.access, &shared.keyspace);
        let shards = keyspace.shards() as u32;
        let databases = keyspace.databases() as u32;
        let first_shard = self.rng.below(u64::from(shards)) as u32;
        self.evictor.next_db = (self.evictor.next_db + 1) % databases;
        let first_db = self.evictor.next_db;
        let (mut sampled, mut found) = (0, Step::NoKeys);
        for shard in (0..shards).map(|n| ShardId((first_shard + n) % shards)) {
            if !space.relock_shard_if_free(shard) {
                found = Step::Missed;
                continue;
            }
            for db in (0..databases).map(|n| DbIndex((first_db + n) % databases)) {
                let stats = space.stats(db);
                let there = if is_volatile(policy) { stats.expires } else { stats.keys };
                if there == 0 || is_random(policy) && sampled >= wanted {
                    continue;
                }
                found = Step::Missed;
                let pool = &mut self.evictor.pool;
                let show = |entry: &Entry| {
                    sampled += 1;
                    let score = score(policy, &access, entry);
                    pool.offer(score, db, entry.key(), || keyspace.hash(entry.key()));
                };
                if is_volatile(policy) {
                    space.sample_expiring(db, &mut self.rng, each, show);
                } else {
                    space.sample(db, &mut self.rng, each, show);
                }
            }
            if sampled >= wanted {
                break;
            }
        }
        found
    }

    /// Evicts a key whose shard is held, and tells everybody. Answers the bytes that it took; `None`: it is gone already, or
    /// no longer one that may go.
    fn evict_key(
        &mut self,
        shared: &Shared,
        space: &mut Locked<'_>,
        db: DbIndex,
        key: &HashedKey<'_>,
        before: &mut Before<'_>,
    ) -> Option<u64> {
        let volatile = is_volatile(self.config.maxmemory_policy);
        if !space.find(db, key).is_some_and(|entry| !volatile || entry.expire_at_ms().is_some()) {
            return None;
        }
        let begun = (self.config.latency_monitor_threshold > 0).then(Instant::now);
        let lazy = self.config.lazyfree_lazy_eviction;
        let freed = self.keys_outside_commands(shared, space, db).evict(key, lazy);
        if let Some(begun) = begun {
            let took_ms = begun.elapsed().as_millis() as u64;
            if took_ms >= self.config.latency_monitor_threshold {
                shared.observe.latency.note("eviction-del", took_ms, self.now_ms / 1000);
            }
        }
        self.journal_preceding();
        self.deliver_events(space, None);
        if !self.ready.is_empty() {
            self.serve_ready(space);
        }
        self.post_evicted(before);
        Some(freed)
    }

    /// Posts what there is to tell; what the client at hand is told goes in front of its command's answer.
    fn post_evicted(&mut self, before: &mut Before<'_>) {
        match before {
            Some((session, reply)) if !self.outbox.is_empty() => {
                let mut told = self.outbox.take();
                self.post_before_reply(&mut told, session, reply);
            }
            _ => self.post_messages(),
        }
    }
}

/// The higher, the sooner it goes.
fn score(policy: MaxmemoryPolicy, access: &crate::access::Access, entry: &Entry) -> u64 {
    match policy {
        MaxmemoryPolicy::VolatileTtl => {
            u64::MAX - entry.expire_at_ms().map_or(u64::MAX, |at| at.max(0) as u64)
        }
        MaxmemoryPolicy::AllkeysLfu | MaxmemoryPolicy::VolatileLfu => {
            255 - u64::from(access.frequency(entry.lru()))
        }
        _ => access.idle_s(entry.lru()),
    }
}

fn is_volatile(policy: MaxmemoryPolicy) -> bool {
    use MaxmemoryPolicy::{VolatileLfu, VolatileLru, VolatileRandom, VolatileTtl};
    matches!(policy, VolatileLru | VolatileLfu | VolatileRandom | VolatileTtl)
}

fn is_random(policy: MaxmemoryPolicy) -> bool {
    matches!(policy, MaxmemoryPolicy::VolatileRandom | MaxmemoryPolicy::AllkeysRandom)
}
