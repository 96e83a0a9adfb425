//! The waiting lists: who waits for which key, in the order of arrival.
//!
//! A waiter enters the lists of all its keys while the shards of these keys are locked, so whoever holds a key's shard
//! sees a list that can only grow shorter. Leaving needs no shard. Whether a waiter still waits is decided by its own
//! lock (see [`Waiter::claim`]), never by its being found in a list: serving, time-out, CLIENT UNBLOCK and disconnect
//! can't both win.
//!
//! Lock order: shards, then one waiter's claim, then a list. Nothing is ever waited for the other way round.

use super::sync::{Arc, AtomicU64, AtomicUsize, Mutex, MutexGuard, lock};
use kara_base::ids::DbIndex;
use kara_keyspace::Kind;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::atomic::Ordering::Relaxed;

/// One key that is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub shard: usize,
    pub hash: u64,
    pub db: DbIndex,
    pub key: Vec<u8>,
}

/// What may end the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// The key holds a value of this type.
    pub kind: Kind,
    /// The key is gone, or holds another type.
    pub on_nokey: bool,
}

impl Interest {
    fn in_value(self, kind: Option<Kind>) -> bool {
        self.on_nokey || kind == Some(self.kind)
    }
}

/// A client that waits; `what` says who and what for.
pub struct Waiter<W> {
    /// The order of arrival.
    pub ticket: u64,
    pub places: Vec<Place>,
    pub interest: Interest,
    /// Serving it needs shards that the lock of one of its keys may not cover.
    pub wide: bool,
    ended: Mutex<bool>,
    pub what: W,
}

impl<W> std::fmt::Debug for Waiter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiter").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}

/// The right to end a wait, or to try to. While somebody has it, the others wait for the outcome.
pub struct Claim<'a>(MutexGuard<'a, bool>);

impl Claim<'_> {
    /// The wait is over, and the caller is the one who ended it.
    pub fn end(mut self) {
        *self.0 = true;
    }
}

impl<W> Waiter<W> {
    /// The right to end the wait; `None` where it has ended.
    pub fn claim(&self) -> Option<Claim<'_>> {
        let ended = lock(&self.ended);
        if *ended { None } else { Some(Claim(ended)) }
    }
}

/// The waiters of one key.
struct List<W> {
    waiters: BTreeMap<u64, Arc<Waiter<W>>>,
    on_nokey: usize,
}

struct Shard<W> {
    keys: HashMap<DbIndex, HashMap<Vec<u8>, List<W>>>,
    /// Hashes of keys with wide waiters, and how many each has. Whatever the database: a command may reach others.
    wide: HashMap<u64, usize>,
}

/// All waiting lists, apart by the keys' shards.
pub struct WaitingLists<W> {
    shards: Box<[Mutex<Shard<W>>]>,
    keys: AtomicUsize,
    keys_on_nokey: AtomicUsize,
    wide: AtomicUsize,
    tickets: AtomicU64,
}

impl<W> std::fmt::Debug for WaitingLists<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WaitingLists").finish_non_exhaustive()
    }
}

impl<W> WaitingLists<W> {
    /// Lists for keys of so many shards.
    pub fn new(shards: usize) -> Self {
        let shard = || Mutex::new(Shard { keys: HashMap::new(), wide: HashMap::new() });
        WaitingLists {
            shards: (0..shards).map(|_| shard()).collect(),
            keys: AtomicUsize::new(0),
            keys_on_nokey: AtomicUsize::new(0),
            wide: AtomicUsize::new(0),
            tickets: AtomicU64::new(0),
        }
    }

    /// How many keys are waited for. Exact for whoever holds the shard of the key that it asks for.
    #[inline]
    pub fn keys(&self) -> usize {
        self.keys.load(Relaxed)
    }

    /// Keys whose disappearance is waited for.
    #[inline]
    pub fn keys_on_nokey(&self) -> usize {
        self.keys_on_nokey.load(Relaxed)
    }

    /// Whether a wide waiter waits for a key of one of these hashes, whose shards the caller holds.
    #[inline]
    pub fn needs_all_shards(&self, keys: impl Iterator<Item = (usize, u64)>) -> bool {
        self.wide.load(Relaxed) > 0 && self.any_wide(keys)
    }

    #[cold]
    fn any_wide(&self, mut keys: impl Iterator<Item = (usize, u64)>) -> bool {
        keys.any(|(shard, hash)| self.shards.get(shard).is_some_and(|s| lock(s).wide.contains_key(&hash)))
    }

    /// A waiter at the end of the lists of all its places. The caller holds the shards of all of them.
    pub fn enter(&self, places: Vec<Place>, interest: Interest, wide: bool, what: W) -> Arc<Waiter<W>> {
        let ticket = self.tickets.fetch_add(1, Relaxed) + 1;
        let waiter = Arc::new(Waiter { ticket, places, interest, wide, ended: Mutex::new(false), what });
        for place in &waiter.places {
            let Some(shard) = self.shards.get(place.shard) else { continue };
            let mut shard = lock(shard);
            let list =
                shard.keys.entry(place.db).or_default().entry(place.key.clone()).or_insert_with(|| {
                    self.keys.fetch_add(1, Relaxed);
                    List { waiters: BTreeMap::new(), on_nokey: 0 }
                });
            if list.waiters.insert(ticket, waiter.clone()).is_some() {
                // The same key twice.
                continue;
            }
            if interest.on_nokey {
                if list.on_nokey == 0 {
                    self.keys_on_nokey.fetch_add(1, Relaxed);
                }
                list.on_nokey += 1;
            }
            if wide {
                self.wide.fetch_add(1, Relaxed);
                *shard.wide.entry(place.hash).or_default() += 1;
            }
        }
        waiter
    }

    /// Takes a waiter out of all lists.
    pub fn leave(&self, waiter: &Waiter<W>) {
        for place in &waiter.places {
            let Some(shard) = self.shards.get(place.shard) else { continue };
            let mut shard = lock(shard);
            let Some(db) = shard.keys.get_mut(&place.db) else { continue };
            let Some(list) = db.get_mut(&place.key) else { continue };
            if list.waiters.remove(&waiter.ticket).is_none() {
                continue;
            }
            if waiter.interest.on_nokey {
                list.on_nokey -= 1;
                if list.on_nokey == 0 {
                    self.keys_on_nokey.fetch_sub(1, Relaxed);
                }
            }
            if list.waiters.is_empty() {
                db.remove(&place.key);
                self.keys.fetch_sub(1, Relaxed);
            }
            if waiter.wide {
                self.wide.fetch_sub(1, Relaxed);
                if let Some(count) = shard.wide.get_mut(&place.hash) {
                    *count -= 1;
                    if *count == 0 {
                        shard.wide.remove(&place.hash);
                    }
                }
            }
        }
    }

    /// The first waiter for a key who came after `ticket` and whom the key's present value (`None`: it isn't there)
    /// concerns.
    pub fn next(
        &self,
        shard: usize,
        db: DbIndex,
        key: &[u8],
        after: u64,
        value: Option<Kind>,
    ) -> Option<Arc<Waiter<W>>> {
        let shard = lock(self.shards.get(shard)?);
        let list = shard.keys.get(&db)?.get(key)?;
        if value.is_none() && list.on_nokey == 0 {
            return None;
        }
        let later = list.waiters.range((Excluded(after), Unbounded));
        later.map(|(_, waiter)| waiter).find(|waiter| waiter.interest.in_value(value)).cloned()
    }

    /// The keys of a database (`None`: of all) that are waited for.
    pub fn awaited(&self, db: Option<DbIndex>) -> Vec<(DbIndex, Vec<u8>)> {
        let mut found = Vec::new();
        for shard in &self.shards {
            for (of, keys) in &lock(shard).keys {
                if db.is_none_or(|db| db == *of) {
                    found.extend(keys.keys().map(|key| (*of, key.clone())));
                }
            }
        }
        found
    }
}
