//! The keyspace: shards behind locks. The hash of a key (its top bits) chooses the shard.
//!
//! Locks are taken in ascending order of the shards, all that a command needs at once; who holds a `Locked` must not ask
//! the keyspace for another.

use crossbeam_utils::CachePadded;
use kara_base::hash::HashSeed;
use kara_base::ids::{DbIndex, ShardId};
use smallvec::SmallVec;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::db::DbStats;
use crate::entry::Entry;
use crate::journal::Journal;
use crate::lock::{Mutex, MutexGuard};
use crate::locked::Locked;
use crate::shard::Shard;
use crate::table::TableHash;

/// How to set up a keyspace.
#[derive(Clone, Copy, Debug)]
pub struct KeyspaceOptions {
    /// A power of two; 1 for one worker.
    pub shards: usize,
    /// At least 1.
    pub databases: usize,
    pub seed: HashSeed,
}

/// A key and its hash, computed once per command.
#[derive(Clone, Copy, Debug)]
pub struct HashedKey<'a> {
    pub bytes: &'a [u8],
    pub hash: u64,
}

/// All databases of the process.
pub struct Keyspace {
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    shard_bits: u32,
    databases: usize,
    seed: HashSeed,
    journal: Journal,
    /// Somebody holds locks for long: see [`Keyspace::set_held_long`].
    held_long: AtomicBool,
    /// Looks at a lock before a command sleeps until it is free; none where the holder can't run meanwhile.
    spins: u32,
}

/// Some 60 us: a shard is held for a batch of requests or a snapshot's step, both shorter.
const SPINS: u32 = 1000;

/// How long a wait for a lock lasts before it looks whether the lock is held for long.
const PATIENCE: Duration = Duration::from_millis(10);

impl Keyspace {
    /// An empty keyspace. The number of shards is raised to the next power of two, at most 1024.
    pub fn new(options: KeyspaceOptions) -> Keyspace {
        let shards = options.shards.clamp(1, 1024).next_power_of_two();
        let shard_bits = shards.ilog2();
        let databases = options.databases.max(1);
        let hash = TableHash { seed: options.seed, shard_bits };
        let shard = || CachePadded::new(Mutex::new(Shard::new(databases, hash)));
        Keyspace {
            shards: (0..shards).map(|_| shard()).collect(),
            shard_bits,
            databases,
            seed: options.seed,
            journal: Journal::new(),
            held_long: AtomicBool::new(false),
            spins: if std::thread::available_parallelism().is_ok_and(|n| n.get() > 1) { SPINS } else { 0 },
        }
    }

    pub fn databases(&self) -> usize {
        self.databases
    }

    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    pub fn shard_ids(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shards.len() as u32).map(ShardId)
    }

    /// The database of that number, if there is one.
    pub fn db(&self, number: u64) -> Option<DbIndex> {
        (number < self.databases as u64).then_some(DbIndex(number as u32))
    }

    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    pub fn seed(&self) -> HashSeed {
        self.seed
    }

    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        self.seed.hash(key)
    }

    #[inline]
    pub fn key<'a>(&self, bytes: &'a [u8]) -> HashedKey<'a> {
        HashedKey { bytes, hash: self.hash(bytes) }
    }

    /// The shard of a key's hash: its top bits.
    #[inline]
    pub fn shard_of(&self, hash: u64) -> ShardId {
        // Two shifts, as no bits would be a shift by 64.
        ShardId(((hash >> 1) >> (63 - self.shard_bits)) as u32)
    }

    /// The hash by which a shard's tables know a key.
    #[inline]
    pub(crate) fn table_hash(&self, hash: u64) -> u64 {
        hash << self.shard_bits
    }

    #[inline]
    pub fn lock_one(&self, shard: ShardId) -> Locked<'_> {
        Locked::one(self, shard, self.shards[shard.0 as usize].lock())
    }

    /// The shard if nobody else holds it.
    pub fn try_lock_one(&self, shard: ShardId) -> Option<Locked<'_>> {
        Some(Locked::one(self, shard, self.shards[shard.0 as usize].try_lock()?))
    }

    /// The shard if it can be had until then, for who can do without it.
    pub fn try_lock_one_until(&self, shard: ShardId, until: Instant) -> Option<Locked<'_>> {
        let guard = self.shards[shard.0 as usize].try_lock_until(until)?;
        Some(Locked::one(self, shard, guard))
    }

    /// A script that goes on and on holds locks (or no longer does): who can refuse its work instead of waiting shall.
    pub fn set_held_long(&self, held: bool) {
        self.held_long.store(held, Relaxed);
    }

    /// The shard's lock; `None` where it is held for long.
    #[inline]
    pub(crate) fn acquire(&self, shard: ShardId) -> Option<MutexGuard<'_, Shard>> {
        let lock = &self.shards[shard.0 as usize];
        lock.try_lock().or_else(|| self.wait_for(lock))
    }

    #[cold]
    fn wait_for<'l>(&self, lock: &'l Mutex<Shard>) -> Option<MutexGuard<'l, Shard>> {
        let free = |_: &u32| {
            std::hint::spin_loop();
            !lock.is_locked()
        };
        if !self.held_long.load(Relaxed) {
            // Whether it gets the lock then is seen below.
            let _ = (0..self.spins).find(free);
        }
        loop {
            if let Some(guard) = lock.try_lock_for(PATIENCE) {
                return Some(guard);
            }
            if self.held_long.load(Relaxed) {
                return None;
            }
        }
    }

    /// No lock yet, to be filled by [`Locked::relock_keys`] and its like.
    pub fn unlocked(&self) -> Locked<'_> {
        Locked::none(self)
    }

    /// The shards of all these hashes, in whatever order they are given. None given: none locked.
    pub fn lock_keys(&self, hashes: &[u64]) -> Locked<'_> {
        if let [hash] = hashes {
            return self.lock_one(self.shard_of(*hash));
        }
        let mut ids: SmallVec<[ShardId; 8]> = hashes.iter().map(|&hash| self.shard_of(hash)).collect();
        ids.sort_unstable();
        ids.dedup();
        Locked::many(self, ids.into_iter().map(|id| (id, self.shards[id.0 as usize].lock())))
    }

    pub fn lock_all(&self) -> Locked<'_> {
        Locked::many(self, self.shard_ids().map(|id| (id, self.shards[id.0 as usize].lock())))
    }

    /// Starts taking the lock of the key's shard from the processor that held it last; first of the stages for a batch
    /// of keys of many shards.
    #[inline]
    pub fn prefetch_lock(&self, hash: u64) {
        crate::table::prefetch_line_to_write(&raw const self.shards[self.shard_of(hash).0 as usize]);
    }

    /// Lays an empty database out for so many keys. A shard that somebody holds is left as it is.
    pub fn reserve(&self, db: DbIndex, keys: usize) {
        let share = keys / self.shards.len().max(1);
        for shard in &self.shards {
            if let Some(mut shard) = shard.try_lock() {
                shard.parts(db).0.reserve(share);
            }
        }
    }

    /// Starts loading what an insertion of a key with that hash writes, as `prefetch_bucket` does.
    #[inline]
    pub fn prefetch_to_insert(&self, db: DbIndex, hash: u64) {
        if let Some(shard) = self.shards[self.shard_of(hash).0 as usize].try_lock() {
            shard.db(db).table.prefetch_to_insert(self.table_hash(hash));
        }
    }

    /// Starts loading the bucket of the key with that hash, for a batch of keys of many shards; a shard that somebody
    /// holds is left alone. Not to be called with a `Locked` at hand: it has functions of the same names.
    #[inline]
    pub fn prefetch_bucket(&self, db: DbIndex, hash: u64) {
        if let Some(shard) = self.shards[self.shard_of(hash).0 as usize].try_lock() {
            shard.db(db).table.prefetch_bucket(self.table_hash(hash));
        }
    }

    /// Starts loading the key's entry; second stage, when the buckets of the batch have arrived.
    #[inline]
    pub fn prefetch_entry(&self, db: DbIndex, hash: u64) {
        if let Some(shard) = self.shards[self.shard_of(hash).0 as usize].try_lock() {
            shard.db(db).table.prefetch_entry(self.table_hash(hash));
        }
    }

    /// Sizes of a database, shard after shard: not one moment's figures while others write.
    pub fn stats(&self, db: DbIndex) -> DbStats {
        let stats = |shard: &CachePadded<Mutex<Shard>>| shard.lock().db(db).stats();
        self.shards.iter().map(stats).fold(DbStats::default(), DbStats::plus)
    }

    /// The shard that a scan cursor points into.
    pub fn shard_of_cursor(&self, cursor: u64) -> ShardId {
        self.shard_of(cursor << 1)
    }

    /// One step of a SCAN, which locks one shard at a time: calls `f` with at least `count` entries unless the end
    /// comes first or the buckets are rather empty. Returns the next cursor, 0 at the end; `None` where a shard is held
    /// for long.
    pub fn scan_step(
        &self,
        db: DbIndex,
        cursor: u64,
        count: usize,
        mut f: impl FnMut(&Entry),
    ) -> Option<u64> {
        let mut budget = ScanBudget::new(count);
        let mut cursor = cursor;
        loop {
            let shard = self.shard_of_cursor(cursor);
            let locked = Locked::one(self, shard, self.acquire(shard)?);
            cursor = locked.scan_with(db, cursor, &mut budget, &mut f);
            if cursor == 0 || budget.is_spent() {
                return Some(cursor);
            }
        }
    }
}

/// How much a SCAN step may still do.
pub(crate) struct ScanBudget {
    entries: usize,
    buckets: usize,
}

impl ScanBudget {
    pub fn new(count: usize) -> ScanBudget {
        // Ten buckets per wanted entry, as the reference does, so that a sparse table doesn't make a step long.
        let entries = count.max(1);
        ScanBudget { entries, buckets: entries.saturating_mul(10) }
    }

    pub fn is_spent(&self) -> bool {
        self.entries == 0 || self.buckets == 0
    }

    pub fn spend_bucket(&mut self) {
        self.buckets -= 1;
    }

    pub fn spend_entry(&mut self) {
        self.entries = self.entries.saturating_sub(1);
    }
}
