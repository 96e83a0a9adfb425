//! A shard: its part of every database, and its part of a running snapshot.
//!
//! Snapshots. `begin_snapshot` opens a new epoch; entries of an older one are "not handed over yet". Two callers hand
//! entries to the sink, each once, stamping it with the epoch: `snapshot_step` in its walk, and the guard in front of
//! every change. What the sink has got at the end is exactly the state at the begin. Tables dropped by a flush stay here
//! until the walk is through with them.
//!
//! Entries that the sink calls large are handed over by the walk in parts, between which the lock is free. Whoever wants
//! to change such an entry asks `Locked::await_large` first and comes back later; who can't wait gets the rest handed
//! over at once.

use kara_base::ids::DbIndex;
use std::collections::VecDeque;

use crate::db::Db;
use crate::entry::Entry;
use crate::table::{Table, TableHash};

/// Receives a snapshot's entries, each key once, in no order to rely on, while the shard is locked.
pub trait SnapshotSink: Send {
    /// `db` is the database's number when the snapshot began. Answers what it cost, in units of a small entry: the walk
    /// ends its step by that.
    fn take(&mut self, db: DbIndex, entry: &Entry) -> usize;

    /// Whether taking the entry at once would hold others up.
    fn is_large(&self, _entry: &Entry) -> bool {
        false
    }

    /// Takes the next part of a large entry. Other entries may come in between, but not other large ones' parts, and the
    /// entry doesn't change until its last part was taken.
    fn part(&mut self, db: DbIndex, entry: &Entry) -> Part {
        Part { cost: self.take(db, entry), is_last: true }
    }

    /// Somebody waits for a large entry of this shard.
    fn wanted(&self) {}
}

/// What a part was.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// As `SnapshotSink::take` answers it.
    pub cost: usize,
    pub is_last: bool,
}

/// Tables cut off from the keyspace; dropping them frees their entries, which may take seconds: the background
/// threads' work.
#[derive(Default)]
pub struct Detached {
    pub(crate) tables: Vec<Table>,
}

impl Detached {
    /// Entries still in there.
    pub fn len(&self) -> usize {
        self.tables.iter().map(Table::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes over what `other` holds.
    pub fn absorb(&mut self, mut other: Detached) {
        self.tables.append(&mut other.tables);
    }
}

/// A table that was flushed during the snapshot.
struct Leftover {
    origin: DbIndex,
    table: Table,
    /// Where the walk goes on; `None`: it is through.
    at: Option<u64>,
}

/// A large entry that is to be handed over in parts.
#[derive(PartialEq, Eq)]
struct Large {
    origin: DbIndex,
    key: Box<[u8]>,
}

struct Snapshot {
    sink: Box<dyn SnapshotSink>,
    leftovers: Vec<Leftover>,
    larges: VecDeque<Large>,
    /// The sink has got parts of the first large entry, but not the last.
    in_parts: bool,
}

impl Snapshot {
    /// The sink has begun with that entry.
    fn is_in_parts(&self, origin: DbIndex, key: &[u8]) -> bool {
        self.in_parts && self.larges.front().is_some_and(|large| large.origin == origin && *large.key == *key)
    }

    fn end_large(&mut self) {
        self.in_parts = false;
        self.larges.pop_front();
    }
}

/// The choke point of all changes: hands an entry to the running snapshot before it changes.
pub(crate) struct Guard {
    epoch: u8,
    snapshot: Option<Snapshot>,
    /// Snapshots given up since the last one that walked to its end: entries of that many older epochs may be left.
    given_up: u8,
}

impl Guard {
    #[inline]
    pub fn epoch(&self) -> u8 {
        self.epoch
    }

    #[inline]
    pub fn is_active(&self) -> bool {
        self.snapshot.is_some()
    }

    #[inline]
    pub fn before_change(&mut self, origin: DbIndex, entry: &Entry) {
        if self.snapshot.is_some() && entry.epoch() != self.epoch {
            self.hand_over(origin, entry);
        }
    }

    /// As `before_change`, for the walk: answers the cost. Large entries are put off.
    fn visit(&mut self, origin: DbIndex, entry: &Entry) -> usize {
        if entry.epoch() == self.epoch {
            return 0;
        }
        match &mut self.snapshot {
            Some(snapshot) if snapshot.sink.is_large(entry) => {
                let large = Large { origin, key: entry.key().into() };
                if !snapshot.larges.contains(&large) {
                    snapshot.larges.push_back(large);
                }
                1
            }
            _ => self.hand_over(origin, entry),
        }
    }

    #[cold]
    fn hand_over(&mut self, origin: DbIndex, entry: &Entry) -> usize {
        let Some(snapshot) = &mut self.snapshot else { return 0 };
        entry.set_epoch(self.epoch);
        if !snapshot.is_in_parts(origin, entry.key()) {
            return snapshot.sink.take(origin, entry);
        }
        snapshot.end_large();
        let mut cost = 0;
        loop {
            let part = snapshot.sink.part(origin, entry);
            cost += part.cost;
            if part.is_last {
                return cost;
            }
        }
    }

    fn has_larges(&self) -> bool {
        self.snapshot.as_ref().is_some_and(|snapshot| !snapshot.larges.is_empty())
    }

    /// Walks `table` from `at` until `budget` is used up or large entries have come. Returns where to go on.
    fn walk(&mut self, origin: DbIndex, table: &Table, mut at: u64, budget: &mut usize) -> Option<u64> {
        while *budget > 0 && !self.has_larges() {
            *budget -= 1;
            table.prefetch_behind(at);
            at = table.scan_bucket(at, |entry| {
                let cost = self.visit(origin, entry);
                *budget = budget.saturating_sub(cost.max(1));
            })?;
        }
        Some(at)
    }
}

/// One shard. Reached through `Locked`.
pub struct Shard {
    pub(crate) dbs: Vec<Db>,
    pub(crate) guard: Guard,
}

impl Shard {
    pub(crate) fn new(databases: usize, hash: TableHash) -> Shard {
        let dbs = (0..databases).map(|number| Db::new(DbIndex(number as u32), hash)).collect();
        Shard { dbs, guard: Guard { epoch: 0, snapshot: None, given_up: 0 } }
    }

    /// The database with the guard over it.
    #[inline]
    pub(crate) fn parts(&mut self, db: DbIndex) -> (&mut Db, &mut Guard) {
        (&mut self.dbs[db.0 as usize], &mut self.guard)
    }

    #[inline]
    pub(crate) fn db(&self, db: DbIndex) -> &Db {
        &self.dbs[db.0 as usize]
    }

    /// Keys of all databases.
    pub fn len(&self) -> usize {
        self.dbs.iter().map(|db| db.table.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of tables, without entries.
    pub fn table_bytes(&self) -> usize {
        self.dbs.iter().map(|db| db.table.memory_usage()).sum()
    }

    pub fn snapshot_active(&self) -> bool {
        self.guard.is_active()
    }

    /// Begins a snapshot of the shard as it is now. All shards of a keyspace begin under one `lock_all`, so that
    /// together they are one cut. A snapshot that is still running is given up; its sink is returned.
    pub fn begin_snapshot(&mut self, sink: Box<dyn SnapshotSink>) -> Option<Box<dyn SnapshotSink>> {
        let old = self.end_snapshot().map(|(sink, _)| sink);
        let guard = &mut self.guard;
        if guard.given_up == u8::MAX - 1 {
            // Epochs are about to come round to those of entries that no snapshot has walked since.
            for db in &self.dbs {
                db.table.iter().for_each(|entry| entry.set_epoch(guard.epoch));
            }
            guard.given_up = 0;
        }
        guard.epoch = guard.epoch.wrapping_add(1);
        guard.snapshot =
            Some(Snapshot { sink, leftovers: Vec::new(), larges: VecDeque::new(), in_parts: false });
        for (number, db) in self.dbs.iter_mut().enumerate() {
            db.origin = DbIndex(number as u32);
            db.snapshot_at = (!db.table.is_empty()).then_some(0);
        }
        old
    }

    /// Hands over up to about `budget` entries. True if all are through: what follows is `end_snapshot`.
    pub fn snapshot_step(&mut self, budget: usize) -> bool {
        let mut budget = budget.max(1);
        while budget > 0 {
            self.large_step(&mut budget);
            if budget > 0 && self.walk_step(&mut budget) && !self.guard.has_larges() {
                return true;
            }
        }
        false
    }

    /// Hands over what somebody waits for, up to about `budget`. True if there is no more of that.
    pub fn snapshot_wanted(&mut self, budget: usize) -> bool {
        self.large_step(&mut budget.max(1));
        !self.guard.has_larges()
    }

    /// Parts of large entries.
    fn large_step(&mut self, budget: &mut usize) {
        let Some(snapshot) = &mut self.guard.snapshot else { return };
        while *budget > 0
            && let Some(Large { origin, key }) = snapshot.larges.front()
        {
            let origin = *origin;
            let living = self.dbs.iter().filter(|db| db.origin == origin).map(|db| &db.table);
            let flushed = snapshot.leftovers.iter().filter(|l| l.origin == origin).map(|l| &l.table);
            let entry = living
                .chain(flushed)
                .filter_map(|table| table.find(table.hash().of_key(key), key))
                .find(|entry| entry.epoch() != self.guard.epoch);
            let Some(entry) = entry else {
                // It was changed, and handed over before.
                snapshot.end_large();
                continue;
            };
            let part = snapshot.sink.part(origin, entry);
            *budget = budget.saturating_sub(part.cost.max(1));
            snapshot.in_parts = true;
            if part.is_last {
                entry.set_epoch(self.guard.epoch);
                snapshot.end_large();
            }
        }
    }

    /// Walks until the budget is used up or large entries have come. True if the walk is through.
    fn walk_step(&mut self, budget: &mut usize) -> bool {
        for db in &mut self.dbs {
            if let Some(at) = db.snapshot_at {
                db.snapshot_at = self.guard.walk(db.origin, &db.table, at, budget);
                if db.snapshot_at.is_some() {
                    return false;
                }
            }
        }
        loop {
            let Some(snapshot) = &mut self.guard.snapshot else { return true };
            let Some(place) = snapshot.leftovers.iter().position(|l| l.at.is_some()) else { return true };
            let mut leftover = snapshot.leftovers.swap_remove(place);
            if let Some(at) = leftover.at {
                leftover.at = self.guard.walk(leftover.origin, &leftover.table, at, budget);
            }
            let is_through = leftover.at.is_none();
            if let Some(snapshot) = &mut self.guard.snapshot {
                snapshot.leftovers.push(leftover);
            }
            if !is_through {
                return false;
            }
        }
    }

    /// Whether the key's entry is large and the snapshot still needs it as it is. If so, its turn is next.
    pub(crate) fn await_large(&mut self, db: DbIndex, hash: u64, key: &[u8]) -> bool {
        let Some(snapshot) = &mut self.guard.snapshot else { return false };
        let db = &self.dbs[db.0 as usize];
        let Some(entry) = db.table.find(hash, key) else { return false };
        if entry.epoch() == self.guard.epoch || !snapshot.sink.is_large(entry) {
            return false;
        }
        let large = Large { origin: db.origin, key: key.into() };
        if !snapshot.larges.contains(&large) {
            snapshot.larges.insert(usize::from(snapshot.in_parts), large);
        }
        snapshot.sink.wanted();
        true
    }

    /// Ends the snapshot, walked to its end or not. Returns its sink and the tables that a flush left with it.
    pub fn end_snapshot(&mut self) -> Option<(Box<dyn SnapshotSink>, Detached)> {
        let snapshot = self.guard.snapshot.take()?;
        let complete = snapshot.larges.is_empty()
            && snapshot.leftovers.iter().all(|leftover| leftover.at.is_none())
            && self.dbs.iter().all(|db| db.snapshot_at.is_none());
        self.guard.given_up = if complete { 0 } else { self.guard.given_up + 1 };
        self.dbs.iter_mut().for_each(|db| db.snapshot_at = None);
        let tables = snapshot.leftovers.into_iter().map(|leftover| leftover.table).collect();
        Some((snapshot.sink, Detached { tables }))
    }

    /// Empties a database. What a running snapshot still needs stays with it.
    pub(crate) fn flush(&mut self, db: DbIndex) -> Option<Table> {
        let (db, guard) = (&mut self.dbs[db.0 as usize], &mut self.guard);
        if db.table.is_empty() {
            return None;
        }
        let table = db.table.take_all();
        (db.expiry_at, db.fields_at) = (0, 0);
        let at = db.snapshot_at.take();
        match &mut guard.snapshot {
            // The walk may be past large entries that it has put off.
            Some(snapshot) if at.is_some() || !snapshot.larges.is_empty() => {
                snapshot.leftovers.push(Leftover { origin: db.origin, table, at });
                None
            }
            _ => Some(table),
        }
    }

    pub(crate) fn swap(&mut self, a: DbIndex, b: DbIndex) {
        self.dbs.swap(a.0 as usize, b.0 as usize);
    }
}
