//! Access to keys under the held locks, with the rules that every command shares: expired keys are gone, reads
//! count as accesses, large values are freed elsewhere, and whoever watches is told.

use crate::access::Access;
use crate::effect::OwnedCommand;
use crate::error::CommandError;
use crate::events::{Class, Events};
use crate::reclaim::Reclaimer;
use crate::stats::WorkerStats;
use kara_base::ids::DbIndex;
use kara_base::rng::Rng;
use kara_keyspace::{
    Collection, Entry, ExpiryUpdate, HashedKey, Kind, Locked, NewValue, StrMut, StrRef, StrValue,
};
use std::cell::Cell;

/// Elements looked at to guess a large value's size.
const SAMPLES: usize = 5;

/// How accesses are treated for this command.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Expired keys are deleted on sight (a primary). Otherwise they only look absent (a replica).
    pub delete_expired: bool,
    /// Expired keys are visible (the stream of a primary, loading).
    pub see_expired: bool,
    /// Accesses update LRU/LFU records (off for NO-TOUCH clients and for TOUCH-less commands).
    pub touch: bool,
    /// Deletions by command free large values on the background thread (`lazyfree-lazy-user-del`).
    pub lazy_delete: bool,
    /// So do overwrites and other deletions as side effects (`lazyfree-lazy-server-del`).
    pub lazy_overwrite: bool,
    /// So do expirations (`lazyfree-lazy-expire`).
    pub lazy_expire: bool,
    /// Somebody reads the journal.
    pub journal_on: bool,
}

/// The keys of one command.
pub struct Keys<'a, 'k> {
    pub space: &'a mut Locked<'k>,
    pub db: DbIndex,
    pub now_ms: i64,
    pub policy: Policy,
    pub access: Access,
    pub rng: &'a mut Rng,
    pub events: &'a mut Events,
    pub stats: &'a WorkerStats,
    pub reclaimer: &'a Reclaimer,
    /// Journal entries that precede the command's own (deletions of expired keys).
    pub preceding: &'a mut Vec<(DbIndex, OwnedCommand)>,
    /// The command's keys with their hashes, so that each is hashed once.
    pub hashed: &'a [HashedKey<'a>],
    /// Where among `hashed` the last key was found: commands of many keys go through them in order.
    pub hashed_at: Cell<usize>,
}

impl<'a, 'k> Keys<'a, 'k> {
    /// The key with its hash; known keys aren't hashed again.
    #[inline]
    pub fn key<'b>(&self, key: &'b [u8]) -> HashedKey<'b> {
        let from = self.hashed_at.get();
        // A few places on is as far as handlers jump; hashing again costs less than a longer search.
        for at in (from..self.hashed.len()).chain(0..from).take(4) {
            let known = &self.hashed[at];
            if std::ptr::eq(known.bytes, key) {
                self.hashed_at.set(at);
                return HashedKey { bytes: key, hash: known.hash };
            }
        }
        self.space.key(key)
    }

    /// Whether the key is there and not expired; an expired one is removed on the way (on a primary).
    #[inline]
    fn alive(&mut self, db: DbIndex, key: &HashedKey) -> bool {
        self.space.find(db, key).is_some() && self.unexpired(db, key)
    }

    /// Whether a key isn't expired, be it there or not; an expired one is removed on the way (on a primary). Costs
    /// nothing where no key has an expiry.
    #[inline]
    fn unexpired(&mut self, db: DbIndex, key: &HashedKey) -> bool {
        !self.space.any_expires(db, key) || self.checked_alive(db, key)
    }

    fn checked_alive(&mut self, db: DbIndex, key: &HashedKey) -> bool {
        match self.space.find(db, key) {
            None => true,
            Some(entry) => match entry.expire_at_ms() {
                Some(at) if at < self.now_ms && !self.policy.see_expired => {
                    self.expired(db, key);
                    false
                }
                _ => true,
            },
        }
    }

    /// Handles a key that was found expired.
    fn expired(&mut self, db: DbIndex, key: &HashedKey) {
        if self.policy.delete_expired {
            self.expire_now(db, key);
        }
    }

    /// Deletes a key because its time has come, and tells everybody.
    pub fn expire_now(&mut self, db: DbIndex, key: &HashedKey) {
        let Some(entry) = self.space.remove(db, key) else { return };
        self.reclaim(entry, self.policy.lazy_expire);
        self.note_expired(db, key.bytes);
    }

    /// What follows from the removal of an expired key.
    pub(crate) fn note_expired(&mut self, db: DbIndex, key: &[u8]) {
        if self.policy.journal_on {
            let name = if self.policy.lazy_expire { "UNLINK" } else { "DEL" };
            self.preceding.push((db, OwnedCommand::new(name).arg(key)));
        }
        self.stats.expired_keys.add(1);
        self.events.changed(db, key);
        self.events.gone(db, key);
        self.events.notify(db, Class::EXPIRED, "expired", key);
    }

    /// Deletes a key, as the server is short of memory, and tells everybody. Answers the bytes that it took.
    pub(crate) fn evict(&mut self, key: &HashedKey, lazy: bool) -> u64 {
        let Some(entry) = self.space.remove(self.db, key) else { return 0 };
        let bytes = entry.memory_usage(SAMPLES) as u64;
        if self.policy.journal_on {
            let name = if lazy { "UNLINK" } else { "DEL" };
            self.preceding.push((self.db, OwnedCommand::new(name).arg(key.bytes)));
        }
        self.stats.evicted_keys.add(1);
        self.events.changed(self.db, key.bytes);
        self.events.gone(self.db, key.bytes);
        self.events.notify(self.db, Class::EVICTED, "evicted", key.bytes);
        if lazy && entry.is_expensive_to_free() {
            self.reclaimer.free_large(Box::new(entry), bytes);
        }
        bytes
    }

    /// Frees an entry, elsewhere where that is worth it and wanted.
    pub fn reclaim(&self, entry: Entry, lazy: bool) {
        if lazy && entry.is_expensive_to_free() {
            self.reclaimer.free(Box::new(entry), 1);
        }
    }

    /// Looks at a key: no hit or miss is counted, no access recorded.
    pub fn peek(&mut self, key: &[u8]) -> Option<&Entry> {
        let key = self.key(key);
        if self.unexpired(self.db, &key) { self.space.find(self.db, &key) } else { None }
    }

    /// Looks at a key of another database, likewise.
    pub fn peek_in(&mut self, db: DbIndex, key: &[u8]) -> Option<&Entry> {
        let key = self.key(key);
        if self.unexpired(db, &key) { self.space.find(db, &key) } else { None }
    }

    /// Whether the key exists; nothing is counted or recorded.
    pub fn exists(&mut self, key: &[u8]) -> bool {
        let key = self.key(key);
        self.alive(self.db, &key)
    }

    /// Reads a key: counts a hit or a miss, records the access.
    #[inline]
    pub fn read(&mut self, key: &[u8]) -> Option<&Entry> {
        let hashed = self.key(key);
        let there = self.unexpired(self.db, &hashed);
        let Some(entry) = self.space.find(self.db, &hashed).filter(|_| there) else {
            self.stats.keyspace_misses.add(1);
            self.events.notify(self.db, Class::KEY_MISS, "keymiss", key);
            return None;
        };
        self.stats.keyspace_hits.add(1);
        if self.policy.touch {
            entry.set_lru(self.access.touched(entry.lru(), self.rng));
        }
        Some(entry)
    }

    /// Reads a collection; a missing key is `None`, another type an error.
    pub fn read_as<T: Collection>(&mut self, key: &[u8]) -> Result<Option<&T>, CommandError> {
        match self.read(key) {
            None => Ok(None),
            Some(entry) => entry.get::<T>().map(Some).ok_or(CommandError::WrongType),
        }
    }

    /// Reads a string, likewise.
    #[inline]
    pub fn read_str(&mut self, key: &[u8]) -> Result<Option<StrRef<'_>>, CommandError> {
        match self.read(key) {
            None => Ok(None),
            Some(entry) => entry.string().map(Some).ok_or(CommandError::WrongType),
        }
    }

    /// Whether the key may hold this type: absent, or of this type. No hit or miss is counted.
    pub fn check_kind(&mut self, key: &[u8], kind: Kind) -> Result<bool, CommandError> {
        match self.peek(key) {
            None => Ok(false),
            Some(entry) if entry.kind() == kind => Ok(true),
            Some(_) => Err(CommandError::WrongType),
        }
    }

    /// A collection to be changed; a missing key is `None`, another type an error.
    pub fn write_as<T: Collection>(&mut self, key: &[u8]) -> Result<Option<&mut T>, CommandError> {
        let key = self.key(key);
        if !self.unexpired(self.db, &key) {
            return Ok(None);
        }
        match self.space.find_mut(self.db, &key) {
            None => Ok(None),
            Some(entry) => {
                if self.policy.touch {
                    entry.set_lru(self.access.touched(entry.lru(), self.rng));
                }
                entry.get_mut::<T>().map(Some).ok_or(CommandError::WrongType)
            }
        }
    }

    /// A collection to be changed, created where the key is missing (the flag tells). A caller that creates must
    /// leave it non-empty.
    pub fn write_or_create<T: Collection>(
        &mut self,
        key: &[u8],
        create: impl FnOnce() -> T,
    ) -> Result<(&mut T, bool), CommandError> {
        let hashed = self.key(key);
        if !self.unexpired(self.db, &hashed) {
            // On a replica it only looked absent.
            self.space.remove(self.db, &hashed);
        }
        let (entry, created) = self.space.find_or_insert(self.db, &hashed, || create().into_value());
        if created {
            entry.set_lru(self.access.initial());
            self.events.notify(self.db, Class::NEW, "new", key);
            self.events.ready(self.db, key);
        } else if self.policy.touch {
            entry.set_lru(self.access.touched(entry.lru(), self.rng));
        }
        entry.get_mut::<T>().map(|value| (value, created)).ok_or(CommandError::WrongType)
    }

    /// A string's bytes to be changed in place, created empty where the key is missing.
    pub fn string_mut(&mut self, key: &[u8]) -> Result<StrMut<'_>, CommandError> {
        let hashed = self.key(key);
        if !self.unexpired(self.db, &hashed) {
            // On a replica it only looked absent.
            self.space.remove(self.db, &hashed);
        }
        let (entry, created) = self.space.find_or_insert(self.db, &hashed, || NewValue::Str(Vec::new()));
        if created {
            entry.set_lru(self.access.initial());
            self.events.notify(self.db, Class::NEW, "new", key);
        } else if self.policy.touch {
            entry.set_lru(self.access.touched(entry.lru(), self.rng));
        }
        entry.string_mut().ok_or(CommandError::WrongType)
    }

    /// Sets a string, whatever was there before; the expiry as told (who keeps one looks first whether it has passed).
    /// Tells nobody: see [`Keys::changed`].
    #[inline]
    pub fn set_string(&mut self, key: &[u8], value: &[u8], expiry: ExpiryUpdate) {
        self.set_string_value(key, StrValue::from_bytes(value), expiry);
    }

    /// The same with the caller's choice between integer and bytes.
    #[inline]
    pub fn set_string_value(&mut self, key: &[u8], value: StrValue<'_>, expiry: ExpiryUpdate) {
        let hashed = self.key(key);
        let done = self.space.set_string_value(self.db, &hashed, value, expiry);
        let expired = done.expiry_before_ms.is_some_and(|at_ms| at_ms < self.now_ms);
        let record = if done.created || expired {
            self.access.initial()
        } else {
            self.access.touched(done.entry.lru(), self.rng)
        };
        done.entry.set_lru(record);
        if done.expiry_before_ms.is_some() && !expired {
            done.entry.note_expiry_replaced();
        }
        let created = done.created;
        if let Some(old) =
            done.replaced.filter(|old| self.policy.lazy_overwrite && old.is_expensive_to_free())
        {
            self.reclaimer.free(Box::new(old), 1);
        }
        let replaces_expired = expired && self.policy.delete_expired && !self.policy.see_expired;
        if replaces_expired {
            self.note_expired(self.db, key);
        }
        if created || replaces_expired {
            self.events.notify(self.db, Class::NEW, "new", key);
        } else {
            self.events.gone(self.db, key);
        }
    }

    /// Adds to an integer, whose expiry stays; a missing key counts as 0. Tells nobody: see [`Keys::changed`].
    #[inline]
    pub fn add_int(&mut self, key: &[u8], delta: i64) -> Result<i64, CommandError> {
        let hashed = self.key(key);
        if !self.unexpired(self.db, &hashed) {
            // On a replica it only looked absent.
            self.space.remove(self.db, &hashed);
        }
        let mut sum = delta;
        let (entry, created) = self.space.change_int(self.db, &hashed, delta, |entry| {
            let old = entry.string().ok_or(CommandError::WrongType)?;
            let old = old.as_int().ok_or(CommandError::NotInteger)?;
            let overflow = CommandError::text("ERR increment or decrement would overflow");
            sum = old.checked_add(delta).ok_or(overflow)?;
            Ok(sum)
        })?;
        if created {
            entry.set_lru(self.access.initial());
            self.events.notify(self.db, Class::NEW, "new", key);
        } else if self.policy.touch {
            entry.set_lru(self.access.touched(entry.lru(), self.rng));
        }
        Ok(sum)
    }

    /// Sets any value, whatever was there before; without expiry.
    pub fn set_value(&mut self, key: &[u8], value: NewValue) {
        self.set_value_in(self.db, key, value);
    }

    /// The same in another database.
    pub fn set_value_in(&mut self, db: DbIndex, key: &[u8], value: NewValue) {
        let hashed = self.key(key);
        // One that has expired is told of first.
        let old = if self.alive(db, &hashed) { self.space.remove(db, &hashed) } else { None };
        let created = old.is_none();
        if let Some(old) = old {
            self.reclaim(old, self.policy.lazy_overwrite);
        }
        let record = self.access.initial();
        self.space.insert(db, &hashed, value).set_lru(record);
        if created {
            self.events.notify(db, Class::NEW, "new", key);
        }
        self.events.ready(db, key);
    }

    /// Deletes a key; false where it wasn't there (or was expired). Tells nobody: see [`Keys::changed`].
    pub fn delete(&mut self, key: &[u8]) -> bool {
        self.delete_with(key, self.policy.lazy_overwrite)
    }

    /// Deletes a key, freeing large values here or elsewhere.
    pub fn delete_with(&mut self, key: &[u8], lazy: bool) -> bool {
        match self.take(key) {
            None => false,
            Some(entry) => {
                self.reclaim(entry, lazy);
                true
            }
        }
    }

    /// Removes a key and hands over what it held.
    pub fn take(&mut self, key: &[u8]) -> Option<Entry> {
        let key = self.key(key);
        if !self.alive(self.db, &key) {
            return None;
        }
        self.events.gone(self.db, key.bytes);
        self.space.remove(self.db, &key)
    }

    /// The expiry of a key that is there, Unix ms.
    pub fn expiry(&mut self, key: &[u8]) -> Option<i64> {
        self.peek(key).and_then(Entry::expire_at_ms)
    }

    /// Sets or clears the expiry; false where the key isn't there.
    pub fn set_expiry(&mut self, key: &[u8], at_ms: Option<i64>) -> bool {
        let key = self.key(key);
        self.alive(self.db, &key) && self.space.set_expiry(self.db, &key, at_ms)
    }

    /// The key's value changed: WATCH and tracking hear of it, and the notification is published.
    #[inline]
    pub fn changed(&mut self, key: &[u8], class: Class, event: &'static str) {
        self.events.changed(self.db, key);
        self.events.notify(self.db, class, event, key);
    }

    /// The key's value changed, without a notification.
    #[inline]
    pub fn touched(&mut self, key: &[u8]) {
        self.events.changed(self.db, key);
    }

    /// A notification alone.
    #[inline]
    pub fn notify(&mut self, class: Class, event: &'static str, key: &[u8]) {
        self.events.notify(self.db, class, event, key);
    }

    /// The key holds more than before of what blocked clients wait for.
    #[inline]
    pub fn ready(&mut self, key: &[u8]) {
        self.events.ready(self.db, key);
    }
}
