//! One database of one shard: its table behind the snapshot's guard.
//!
//! Boundary: every way to change or drop an entry goes through a function here that takes the guard, so a running
//! snapshot sees each entry before its first change. No expiry policy: an entry is there until somebody removes it.

use kara_base::ids::DbIndex;

use crate::entry::{Entry, NewValue, OwnedValue, StrValue};
use crate::shard::Guard;
use crate::table::{Table, TableHash};

/// What a write does to the key's expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiryUpdate {
    Keep,
    Clear,
    /// Unix time in ms.
    At(i64),
}

impl ExpiryUpdate {
    /// The expiry after the update of one that was `before`.
    #[inline]
    pub fn apply(self, before: Option<i64>) -> Option<i64> {
        match self {
            ExpiryUpdate::Keep => before,
            ExpiryUpdate::Clear => None,
            ExpiryUpdate::At(at_ms) => Some(at_ms),
        }
    }
}

impl From<Option<i64>> for ExpiryUpdate {
    fn from(expire_at_ms: Option<i64>) -> Self {
        expire_at_ms.map_or(ExpiryUpdate::Clear, ExpiryUpdate::At)
    }
}

/// What `set_string` found.
#[derive(Debug)]
pub struct SetOutcome<'a> {
    pub entry: &'a mut Entry,
    /// There was no such key.
    pub created: bool,
    /// The collection that the string took the place of; freeing it is the caller's choice of thread.
    pub replaced: Option<OwnedValue>,
    /// The expiry of the value before, Unix ms.
    pub expiry_before_ms: Option<i64>,
}

/// Sizes of a database, or of a shard's part of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DbStats {
    pub keys: usize,
    pub expires: usize,
    /// Hashes with fields that have an expiry.
    pub volatile: usize,
    /// The sum of all expiries (Unix ms): the average TTL is `sum / expires - now`.
    pub expires_sum_ms: i128,
    /// Of the table without the entries.
    pub index_bytes: usize,
    /// There are, or were, keys.
    pub used: bool,
}

impl DbStats {
    /// The mean time to live in ms, 0 without expiries.
    pub fn avg_ttl_ms(&self, now_ms: i64) -> i64 {
        let Some(mean) = self.expires_sum_ms.checked_div(self.expires as i128) else { return 0 };
        i64::try_from(mean - i128::from(now_ms)).unwrap_or(i64::MAX).max(0)
    }

    #[must_use]
    pub fn plus(self, other: DbStats) -> DbStats {
        DbStats {
            keys: self.keys + other.keys,
            expires: self.expires + other.expires,
            volatile: self.volatile + other.volatile,
            expires_sum_ms: self.expires_sum_ms + other.expires_sum_ms,
            index_bytes: self.index_bytes + other.index_bytes,
            used: self.used | other.used,
        }
    }
}

/// One database of one shard. Hashes are table hashes (`TableHash::of_hash`).
pub(crate) struct Db {
    pub table: Table,
    /// The number this database had when the running snapshot began; SWAPDB moves it along with the table.
    pub origin: DbIndex,
    /// How far the running snapshot has walked; `None`: through, or not part of one.
    pub snapshot_at: Option<u64>,
    /// Where the next active expiry step begins.
    pub expiry_at: u64,
    /// Where the next step through hashes with expiring fields begins.
    pub fields_at: u64,
}

impl Db {
    pub fn new(index: DbIndex, hash: TableHash) -> Db {
        Db { table: Table::new(hash), origin: index, snapshot_at: None, expiry_at: 0, fields_at: 0 }
    }

    pub fn stats(&self) -> DbStats {
        DbStats {
            keys: self.table.len(),
            expires: self.table.expires_len(),
            volatile: self.table.volatile_len(),
            expires_sum_ms: self.table.expires_sum_ms(),
            index_bytes: self.table.memory_usage(),
            used: self.table.was_used(),
        }
    }

    #[inline]
    pub fn find_mut(&mut self, guard: &mut Guard, hash: u64, key: &[u8]) -> Option<&mut Entry> {
        let entry = self.table.find_mut(hash, key)?;
        guard.before_change(self.origin, entry);
        Some(entry)
    }

    /// The entry, or a new one of what `make` gives; true if it is new.
    pub fn find_or_insert(
        &mut self,
        guard: &mut Guard,
        hash: u64,
        key: &[u8],
        make: impl FnOnce() -> NewValue,
    ) -> (&mut Entry, bool) {
        let origin = self.origin;
        let epoch = guard.epoch();
        let (entry, found) = self.table.upsert(
            hash,
            key,
            |entry| guard.before_change(origin, entry),
            || stamped(epoch, Entry::new(key, make(), None)),
        );
        (entry, found.is_none())
    }

    /// Lays an empty table out for so many entries.
    pub fn reserve(&mut self, entries: usize) {
        self.table.reserve(entries);
    }

    /// Puts an entry in, returning the one of the same key that it takes the place of.
    pub fn insert(&mut self, guard: &mut Guard, hash: u64, entry: Entry) -> (&mut Entry, Option<Entry>) {
        let replaced = self.remove(guard, hash, entry.key());
        if let Some(old) = &replaced {
            entry.set_lru(old.lru());
        }
        (self.table.insert_unique(hash, stamped(guard.epoch(), entry)), replaced)
    }

    pub fn remove(&mut self, guard: &mut Guard, hash: u64, key: &[u8]) -> Option<Entry> {
        if guard.is_active()
            && let Some(entry) = self.table.find(hash, key)
        {
            guard.before_change(self.origin, entry);
        }
        self.table.remove(hash, key)
    }

    pub fn set_expiry(
        &mut self,
        guard: &mut Guard,
        hash: u64,
        key: &[u8],
        expire_at_ms: Option<i64>,
    ) -> bool {
        let origin = self.origin;
        let change = |entry: &mut Entry| {
            guard.before_change(origin, entry);
            entry.set_expiry(expire_at_ms);
        };
        self.table.update(hash, key, change).is_some()
    }

    #[inline]
    pub fn set_string(
        &mut self,
        guard: &mut Guard,
        hash: u64,
        key: &[u8],
        value: StrValue<'_>,
        expiry: ExpiryUpdate,
    ) -> SetOutcome<'_> {
        let origin = self.origin;
        let epoch = guard.epoch();
        let mut expiry_before_ms = None;
        let (entry, found) = self.table.upsert(
            hash,
            key,
            |entry| {
                guard.before_change(origin, entry);
                expiry_before_ms = entry.expire_at_ms();
                let expire_at_ms = expiry.apply(expiry_before_ms);
                entry.set_string(value, expire_at_ms)
            },
            || stamped(epoch, Entry::new_string(key, value, expiry.apply(None))),
        );
        SetOutcome { entry, created: found.is_none(), replaced: found.flatten(), expiry_before_ms }
    }

    /// Makes the key's value the integer that `change` gives for the present one; a missing key is created without
    /// expiry. One lookup. Where `change` fails, nothing happens. Returns whether the key is new.
    #[inline]
    pub fn change_int<E>(
        &mut self,
        guard: &mut Guard,
        hash: u64,
        key: &[u8],
        initial: i64,
        change: impl FnOnce(&Entry) -> Result<i64, E>,
    ) -> Result<(&mut Entry, bool), E> {
        let origin = self.origin;
        let epoch = guard.epoch();
        let (entry, found) = self.table.upsert(
            hash,
            key,
            |entry| {
                let value = StrValue::Int(change(entry)?);
                guard.before_change(origin, entry);
                entry.set_string(value, entry.expire_at_ms());
                Ok(())
            },
            || stamped(epoch, Entry::new_string(key, StrValue::Int(initial), None)),
        );
        let created = found.is_none();
        found.unwrap_or(Ok(()))?;
        Ok((entry, created))
    }
}

/// New entries are of the current epoch: a running snapshot doesn't want them.
#[inline]
fn stamped(epoch: u8, entry: Entry) -> Entry {
    entry.set_epoch(epoch);
    entry
}
