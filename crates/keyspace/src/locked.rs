//! Locked shards: all access to keys.
//!
//! Boundary: raw access without expiry policy; an expired entry is found like any other. Asking for a key whose shard
//! isn't held is a bug of the caller and panics before anything has changed.

use kara_base::ids::{DbIndex, ShardId};
use kara_base::rng::Rng;
use smallvec::SmallVec;

use crate::db::{DbStats, ExpiryUpdate, SetOutcome};
use crate::entry::{Entry, NewValue, StrMut, StrValue};
use crate::expiry::ExpireProgress;
use crate::keyspace::{HashedKey, Keyspace, ScanBudget};
use crate::lock::{self, MutexGuard};
use crate::shard::{Detached, Shard};

/// The locks of one shard, several, or all; released on drop.
pub struct Locked<'k> {
    keyspace: &'k Keyspace,
    /// Ascending.
    shards: SmallVec<[(ShardId, MutexGuard<'k, Shard>); 1]>,
}

/// What a move to another key found there.
#[derive(Debug)]
pub struct Moved {
    /// The entry that was under the new name; freeing it is the caller's choice of thread.
    pub replaced: Option<Entry>,
}

impl<'k> Locked<'k> {
    #[inline]
    pub(crate) fn one(keyspace: &'k Keyspace, id: ShardId, guard: MutexGuard<'k, Shard>) -> Locked<'k> {
        Locked { keyspace, shards: SmallVec::from_buf([(id, guard)]) }
    }

    pub(crate) fn many(
        keyspace: &'k Keyspace,
        guards: impl Iterator<Item = (ShardId, MutexGuard<'k, Shard>)>,
    ) -> Locked<'k> {
        Locked { keyspace, shards: guards.collect() }
    }

    pub fn keyspace(&self) -> &'k Keyspace {
        self.keyspace
    }

    /// Whether every shard is held.
    pub fn holds_all(&self) -> bool {
        self.shards.len() == self.keyspace.shards()
    }

    /// Whether somebody may sleep until one of the shards held is free.
    pub fn is_awaited(&self) -> bool {
        self.shards.iter().any(|(_, guard)| lock::is_awaited(guard))
    }

    /// Whether the shards of all these hashes are held.
    #[inline]
    pub fn covers(&self, hashes: &[u64]) -> bool {
        self.holds_all() || hashes.iter().all(|&hash| self.position(hash).is_some())
    }

    #[inline]
    fn position(&self, hash: u64) -> Option<usize> {
        let id = self.keyspace.shard_of(hash);
        match self.shards.as_slice() {
            [(held, _)] => (*held == id).then_some(0),
            held if held.len() == self.keyspace.shards() => Some(id.0 as usize),
            held => held.binary_search_by_key(&id, |(id, _)| *id).ok(),
        }
    }

    #[inline]
    fn shard(&self, hash: u64) -> &Shard {
        match self.position(hash) {
            Some(position) => &self.shards[position].1,
            None => not_locked(hash),
        }
    }

    #[inline]
    fn shard_mut(&mut self, hash: u64) -> &mut Shard {
        match self.position(hash) {
            Some(position) => &mut self.shards[position].1,
            None => not_locked(hash),
        }
    }

    /// The shards held, in ascending order.
    pub fn shards_mut(&mut self) -> impl Iterator<Item = (ShardId, &mut Shard)> {
        self.shards.iter_mut().map(|(id, guard)| (*id, &mut **guard))
    }

    /// Whether a snapshot runs in one of the shards held: it begins in all, and ends in one after the other.
    #[inline]
    pub fn is_in_snapshot(&self) -> bool {
        self.shards.iter().any(|(_, shard)| shard.snapshot_active())
    }

    /// Whether a running snapshot still needs the large value of one of these keys as it is, and takes it in parts: who
    /// wants to change it shall give the locks back and ask again soon. Keys of shards that aren't held count as others.
    #[inline]
    pub fn await_large(&mut self, db: DbIndex, keys: &[HashedKey<'_>]) -> bool {
        self.is_in_snapshot()
            && keys.iter().any(|key| match self.position(key.hash) {
                Some(place) => {
                    let hash = self.keyspace.table_hash(key.hash);
                    self.shards[place].1.await_large(db, hash, key.bytes)
                }
                None => false,
            })
    }

    /// Starts loading the key's bucket, if its shard is held. First stage, for all keys of a batch.
    #[inline]
    pub fn prefetch_bucket(&self, db: DbIndex, key: &HashedKey<'_>) {
        if let Some(position) = self.position(key.hash) {
            self.shards[position].1.db(db).table.prefetch_bucket(self.keyspace.table_hash(key.hash));
        }
    }

    /// Starts loading what an insertion of a key with that hash writes, if its shard is held.
    #[inline]
    pub fn prefetch_to_insert(&self, db: DbIndex, hash: u64) {
        if let Some(position) = self.position(hash) {
            self.shards[position].1.db(db).table.prefetch_to_insert(self.keyspace.table_hash(hash));
        }
    }

    /// Starts loading the key's entry, if its shard is held. Second stage, when the bucket has arrived.
    #[inline]
    pub fn prefetch_entry(&self, db: DbIndex, key: &HashedKey<'_>) {
        if let Some(position) = self.position(key.hash) {
            self.shards[position].1.db(db).table.prefetch_entry(self.keyspace.table_hash(key.hash));
        }
    }

    /// Whether any key of the database has an expiry, as far as the key's shard knows. Where none has, nobody needs to
    /// look for expired keys first.
    #[inline]
    pub fn any_expires(&self, db: DbIndex, key: &HashedKey<'_>) -> bool {
        self.shard(key.hash).db(db).table.expires_len() > 0
    }

    #[inline]
    pub fn find(&self, db: DbIndex, key: &HashedKey<'_>) -> Option<&Entry> {
        self.shard(key.hash).db(db).table.find(self.keyspace.table_hash(key.hash), key.bytes)
    }

    /// The entry for changes; a running snapshot gets its present state first.
    #[inline]
    pub fn find_mut(&mut self, db: DbIndex, key: &HashedKey<'_>) -> Option<&mut Entry> {
        let hash = self.keyspace.table_hash(key.hash);
        let (db, guard) = self.shard_mut(key.hash).parts(db);
        db.find_mut(guard, hash, key.bytes)
    }

    /// The entry, or a new one without expiry of what `make` gives; true if it is new.
    pub fn find_or_insert(
        &mut self,
        db: DbIndex,
        key: &HashedKey<'_>,
        make: impl FnOnce() -> NewValue,
    ) -> (&mut Entry, bool) {
        let hash = self.keyspace.table_hash(key.hash);
        let (db, guard) = self.shard_mut(key.hash).parts(db);
        db.find_or_insert(guard, hash, key.bytes, make)
    }

    /// Puts a new value without expiry under the key; an existing one is dropped. The access clock stays.
    pub fn insert(&mut self, db: DbIndex, key: &HashedKey<'_>, value: NewValue) -> &mut Entry {
        self.insert_entry(db, key.hash, Entry::new(key.bytes, value, None)).0
    }

    /// Puts an entry in; `hash` is its key's. Returns the one that it takes the place of.
    pub fn insert_entry(&mut self, db: DbIndex, hash: u64, entry: Entry) -> (&mut Entry, Option<Entry>) {
        let table_hash = self.keyspace.table_hash(hash);
        let (db, guard) = self.shard_mut(hash).parts(db);
        db.insert(guard, table_hash, entry)
    }

    pub fn remove(&mut self, db: DbIndex, key: &HashedKey<'_>) -> Option<Entry> {
        let hash = self.keyspace.table_hash(key.hash);
        let (db, guard) = self.shard_mut(key.hash).parts(db);
        db.remove(guard, hash, key.bytes)
    }

    /// Sets (Unix ms) or takes away the expiry; false if there is no such key.
    pub fn set_expiry(&mut self, db: DbIndex, key: &HashedKey<'_>, expire_at_ms: Option<i64>) -> bool {
        let hash = self.keyspace.table_hash(key.hash);
        let (db, guard) = self.shard_mut(key.hash).parts(db);
        db.set_expiry(guard, hash, key.bytes, expire_at_ms)
    }

    /// SET: makes the key's value that string (an integer, if it is a canonical one), whatever it was. One lookup, and
    /// in place where the allocation class allows.
    #[inline]
    pub fn set_string(
        &mut self,
        db: DbIndex,
        key: &HashedKey<'_>,
        bytes: &[u8],
        expiry: ExpiryUpdate,
    ) -> SetOutcome<'_> {
        self.set_string_value(db, key, StrValue::from_bytes(bytes), expiry)
    }

    /// As `set_string`, with the caller's choice between integer and bytes.
    #[inline]
    pub fn set_string_value(
        &mut self,
        db: DbIndex,
        key: &HashedKey<'_>,
        value: StrValue<'_>,
        expiry: ExpiryUpdate,
    ) -> SetOutcome<'_> {
        let hash = self.keyspace.table_hash(key.hash);
        let (db, guard) = self.shard_mut(key.hash).parts(db);
        db.set_string(guard, hash, key.bytes, value, expiry)
    }

    /// Makes the key's value the integer that `change` gives for the entry, which must be a string then, or `initial`
    /// where there is no such key; true: there was none. One lookup.
    ///
    /// # Errors
    /// Those of `change`; nothing has changed then.
    #[inline]
    pub fn change_int<E>(
        &mut self,
        db: DbIndex,
        key: &HashedKey<'_>,
        initial: i64,
        change: impl FnOnce(&Entry) -> Result<i64, E>,
    ) -> Result<(&mut Entry, bool), E> {
        let hash = self.keyspace.table_hash(key.hash);
        let (db, guard) = self.shard_mut(key.hash).parts(db);
        db.change_int(guard, hash, key.bytes, initial, change)
    }

    /// The growable bytes of an existing string; `None` if there is no such key or it isn't a string. The string shows
    /// as "raw" from now on.
    pub fn string_mut(&mut self, db: DbIndex, key: &HashedKey<'_>) -> Option<StrMut<'_>> {
        self.find_mut(db, key)?.string_mut()
    }

    /// Moves a value with its expiry and clock to another key of the same database. `None`: there is no `from`.
    pub fn rename(&mut self, db: DbIndex, from: &HashedKey<'_>, to: &HashedKey<'_>) -> Option<Moved> {
        if from.bytes == to.bytes {
            return self.find(db, from).map(|_| Moved { replaced: None });
        }
        // Before anything changes.
        self.shard(to.hash);
        let entry = self.remove(db, from)?.with_key(to.bytes);
        Some(self.put(db, to, entry))
    }

    /// Copies a value with its expiry and clock to another key or database, over what is there. `None`: there is no
    /// `from`.
    pub fn copy(
        &mut self,
        from_db: DbIndex,
        from: &HashedKey<'_>,
        to_db: DbIndex,
        to: &HashedKey<'_>,
    ) -> Option<Moved> {
        let entry = self.find(from_db, from)?.duplicate(to.bytes);
        Some(self.put(to_db, to, entry))
    }

    /// Inserts an entry whose own clock counts.
    fn put(&mut self, db: DbIndex, key: &HashedKey<'_>, entry: Entry) -> Moved {
        let lru = entry.lru();
        let (entry, replaced) = self.insert_entry(db, key.hash, entry);
        entry.set_lru(lru);
        Moved { replaced }
    }

    /// Moves a key to another database; false if it isn't there or the other database has it already.
    pub fn move_to_db(&mut self, from: DbIndex, to: DbIndex, key: &HashedKey<'_>) -> bool {
        if from == to || self.find(to, key).is_some() {
            return false;
        }
        let Some(entry) = self.remove(from, key) else { return false };
        self.insert_entry(to, key.hash, entry);
        true
    }

    /// Exchanges all data with those of another keyspace of the same shape and seed. Snapshots under way are ended on
    /// both sides; every shard of both must be held.
    ///
    /// # Panics
    /// Where the keyspaces differ or not everything is held: a bug of the caller.
    pub fn exchange(&mut self, other: &mut Locked<'_>) {
        let (a, b) = (self.keyspace, other.keyspace);
        let alike = a.shards() == b.shards() && a.databases() == b.databases() && a.seed() == b.seed();
        assert!(alike && self.holds_all() && other.holds_all(), "keyspaces that can't be exchanged");
        for ((_, mine), (_, theirs)) in self.shards.iter_mut().zip(&mut other.shards) {
            drop((mine.end_snapshot(), theirs.end_snapshot()));
            std::mem::swap(&mut **mine, &mut **theirs);
        }
    }

    /// Sizes of a database in the shards held.
    pub fn stats(&self, db: DbIndex) -> DbStats {
        self.shards.iter().map(|(_, shard)| shard.db(db).stats()).fold(DbStats::default(), DbStats::plus)
    }

    /// Places for keys of a database in the tables of the shards held.
    pub fn slots(&self, db: DbIndex) -> usize {
        self.shards.iter().map(|(_, shard)| shard.db(db).table.slots()).sum()
    }

    /// Keys of a database in the shards held.
    pub fn dbsize(&self, db: DbIndex) -> usize {
        self.stats(db).keys
    }

    /// Keys with an expiry in the shards held.
    pub fn expires(&self, db: DbIndex) -> usize {
        self.stats(db).expires
    }

    /// Empties one database or all (`None`) in the shards held.
    #[must_use]
    pub fn flush(&mut self, db: Option<DbIndex>) -> Detached {
        let dbs = match db {
            Some(db) => db.0..db.0 + 1,
            None => 0..self.keyspace.databases() as u32,
        };
        let mut detached = Detached::default();
        for (_, shard) in &mut self.shards {
            detached.tables.extend(dbs.clone().filter_map(|db| shard.flush(DbIndex(db))));
        }
        detached
    }

    /// Exchanges two databases; every shard must be held.
    pub fn swapdb(&mut self, a: DbIndex, b: DbIndex) {
        assert!(self.holds_all(), "swapdb without all shards");
        self.shards.iter_mut().for_each(|(_, shard)| shard.swap(a, b));
    }

    /// An entry of the shards held, each with the same probability.
    pub fn random_entry(&self, db: DbIndex, rng: &mut Rng) -> Option<&Entry> {
        let mut number = rng.below(self.dbsize(db) as u64) as usize;
        for (_, shard) in &self.shards {
            let table = &shard.db(db).table;
            if number < table.len() {
                return table.random(rng);
            }
            number -= table.len();
        }
        None
    }

    /// All entries of a database in the shards held.
    pub fn iter(&self, db: DbIndex) -> impl Iterator<Item = &Entry> {
        self.shards.iter().flat_map(move |(_, shard)| shard.db(db).table.iter())
    }

    /// One step of a SCAN through the shards held, as `Keyspace::scan_step`; ends early, with a cursor to go on from,
    /// where the next shard isn't held.
    pub fn scan(&self, db: DbIndex, cursor: u64, count: usize, mut f: impl FnMut(&Entry)) -> u64 {
        self.scan_with(db, cursor, &mut ScanBudget::new(count), &mut f)
    }

    pub(crate) fn scan_with(
        &self,
        db: DbIndex,
        mut cursor: u64,
        budget: &mut ScanBudget,
        f: &mut impl FnMut(&Entry),
    ) -> u64 {
        while !budget.is_spent() {
            // A cursor is a position in hash space without its lowest bit: clients may take it for a signed number.
            let position = cursor << 1;
            let Some(held) = self.position(position) else { return cursor };
            let (id, shard) = &self.shards[held];
            budget.spend_bucket();
            let next = shard.db(db).table.scan_bucket(self.keyspace.table_hash(position), |entry| {
                budget.spend_entry();
                f(entry);
            });
            let shard_bits = self.keyspace.shards().ilog2();
            cursor = match next {
                Some(next) => {
                    let base = if shard_bits == 0 { 0 } else { u64::from(id.0) << (64 - shard_bits) };
                    (base | next >> shard_bits) >> 1
                }
                None if id.0 as usize + 1 == self.keyspace.shards() => return 0,
                None => u64::from(id.0 + 1) << (63 - shard_bits),
            };
        }
        cursor
    }

    /// Shows up to `count` entries of a database to `f`, for the eviction's choice: a run of neighbours in hash order
    /// from one of the shards held.
    pub fn sample(&self, db: DbIndex, rng: &mut Rng, count: usize, f: impl FnMut(&Entry)) {
        let mut number = rng.below(self.dbsize(db) as u64) as usize;
        for (_, shard) in &self.shards {
            let table = &shard.db(db).table;
            if number < table.len() {
                return table.sample(rng, count, f);
            }
            number -= table.len();
        }
    }

    /// The same, of keys that have an expiry; fewer, or none, where they are rare (see `Table::sample_expiring`).
    pub fn sample_expiring(&self, db: DbIndex, rng: &mut Rng, count: usize, f: impl FnMut(&Entry)) {
        let mut number = rng.below(self.expires(db).max(1) as u64) as usize;
        for (_, shard) in &self.shards {
            let table = &shard.db(db).table;
            if number < table.expires_len() {
                return table.sample_expiring(rng, count, f);
            }
            number -= table.expires_len();
        }
    }

    /// To be called after a command that may have given a hash its first expiring field or taken its last: the walk
    /// for expired fields and `DbStats::volatile` learn of it. Whole hashes that come or go are noted by themselves.
    pub fn note_fields(&mut self, db: DbIndex, key: &HashedKey<'_>) {
        let hash = self.keyspace.table_hash(key.hash);
        self.shard_mut(key.hash).parts(db).0.table.note_fields(hash, key.bytes);
    }

    /// Shows hashes with due fields in the shards held; see `Shard::expire_fields_step`.
    pub fn expire_fields_step(
        &mut self,
        db: DbIndex,
        now_ms: i64,
        budget: usize,
        mut due: impl FnMut(&mut Entry),
    ) -> ExpireProgress {
        self.walk_shards(budget, |shard, left| shard.expire_fields_step(db, now_ms, left, &mut due))
    }

    fn walk_shards(
        &mut self,
        budget: usize,
        mut step: impl FnMut(&mut Shard, usize) -> ExpireProgress,
    ) -> ExpireProgress {
        let mut progress = ExpireProgress { finished: true, ..ExpireProgress::default() };
        for (_, shard) in &mut self.shards {
            let one = step(shard, budget.saturating_sub(progress.examined));
            progress.expired += one.expired;
            progress.examined += one.examined;
            progress.finished &= one.finished;
        }
        progress
    }

    /// Removes expired entries of a database in the shards held; see `expiry`.
    pub fn expire_step(
        &mut self,
        db: DbIndex,
        now_ms: i64,
        budget: usize,
        mut expired: impl FnMut(Entry),
    ) -> ExpireProgress {
        self.walk_shards(budget, |shard, left| shard.expire_step(db, now_ms, left, &mut expired))
    }
}

#[cold]
fn not_locked(hash: u64) -> ! {
    panic!("the shard of hash {hash:#x} isn't locked")
}

/// Taking other locks in the place of the held ones, for a batch of commands.
impl<'k> Locked<'k> {
    /// Nothing held yet.
    pub(crate) fn none(keyspace: &'k Keyspace) -> Locked<'k> {
        Locked { keyspace, shards: SmallVec::new() }
    }

    /// Whether one lock covers every key.
    #[inline]
    pub fn is_single_shard(&self) -> bool {
        self.keyspace.shards() == 1
    }

    /// The key with its hash.
    #[inline]
    pub fn key<'b>(&self, bytes: &'b [u8]) -> HashedKey<'b> {
        self.keyspace.key(bytes)
    }

    /// Gives all locks back.
    #[inline]
    pub fn release(&mut self) {
        self.shards.clear();
    }

    /// Holds every shard; whatever was held and isn't all is given back first, so that locks are only ever waited
    /// for in ascending order.
    pub fn relock_all(&mut self) {
        if !self.holds_all() {
            self.release();
            *self = self.keyspace.lock_all();
        }
    }

    /// [`Locked::relock_all`], unless somebody holds one of them for long: then false, and nothing is held.
    #[must_use]
    pub fn try_relock_all(&mut self) -> bool {
        if self.holds_all() {
            return true;
        }
        self.release();
        let keyspace = self.keyspace;
        keyspace.shard_ids().all(|id| self.add(id))
    }

    /// Holds that shard and no other, unless somebody holds it for long: then false, and nothing is held.
    #[must_use]
    pub fn try_relock_shard(&mut self, shard: ShardId) -> bool {
        if matches!(self.shards.as_slice(), [(held, _)] if *held == shard) {
            return true;
        }
        self.release();
        self.add(shard)
    }

    /// The same, at once or not at all: false where anybody holds it.
    #[must_use]
    pub fn relock_shard_if_free(&mut self, shard: ShardId) -> bool {
        if matches!(self.shards.as_slice(), [(held, _)] if *held == shard) {
            return true;
        }
        self.release();
        match self.keyspace.try_lock_one(shard) {
            Some(locked) => {
                *self = locked;
                true
            }
            None => false,
        }
    }

    /// [`Locked::relock_keys`], likewise.
    #[inline]
    #[must_use]
    pub fn try_relock_keys(&mut self, keys: &[HashedKey<'_>]) -> bool {
        match keys {
            [] => {
                self.release();
                true
            }
            [key] => {
                if self.shards.len() == 1 && self.position(key.hash).is_some() {
                    return true;
                }
                self.release();
                self.add(self.keyspace.shard_of(key.hash))
            }
            several => {
                if self.is_single_shard() && self.holds_all() {
                    return true;
                }
                self.release();
                let mut ids: SmallVec<[ShardId; 8]> =
                    several.iter().map(|key| self.keyspace.shard_of(key.hash)).collect();
                ids.sort_unstable();
                ids.dedup();
                ids.into_iter().all(|id| self.add(id))
            }
        }
    }

    /// Adds the next lock in ascending order; gives all back where it can't be had.
    #[inline]
    fn add(&mut self, id: ShardId) -> bool {
        match self.keyspace.acquire(id) {
            Some(guard) => {
                self.shards.push((id, guard));
                true
            }
            None => {
                self.release();
                false
            }
        }
    }

    /// Holds the shards of these keys and no others; a lone lock that fits is kept.
    #[inline]
    pub fn relock_keys(&mut self, keys: &[HashedKey<'_>]) {
        match keys {
            [] => self.release(),
            [key] => {
                if self.shards.len() != 1 || self.position(key.hash).is_none() {
                    self.release();
                    *self = self.keyspace.lock_one(self.keyspace.shard_of(key.hash));
                }
            }
            several => {
                if self.is_single_shard() && self.holds_all() {
                    return;
                }
                self.release();
                let hashes: SmallVec<[u64; 8]> = several.iter().map(|key| key.hash).collect();
                *self = self.keyspace.lock_keys(&hashes);
            }
        }
    }
}
