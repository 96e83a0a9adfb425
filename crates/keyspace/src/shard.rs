//! A shard: its part of every database, and its part of a running snapshot.
//!
//! Snapshots. `begin_snapshot` opens a new epoch; entries of an older one are "not handed over yet". Two callers hand
//! entries to the sink, each once, stamping it with the epoch: `snapshot_step` in its walk, and the guard in front of
//! every change. What the sink has got at the end is exactly the state at the begin. Tables dropped by a flush stay here
//! until the walk is through with them.

use kara_base::ids::DbIndex;

use crate::db::Db;
use crate::entry::Entry;
use crate::table::{Table, TableHash};

/// Receives a snapshot's entries, each key once, in no order to rely on, while the shard is locked.
pub trait SnapshotSink: Send {
    /// `db` is the database's number when the snapshot began. Answers what it cost, in units of a small entry: the walk
    /// ends its step by that.
    fn take(&mut self, db: DbIndex, entry: &Entry) -> usize;
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

/// A flushed table that the snapshot hasn't walked to the end.
struct Leftover {
    origin: DbIndex,
    table: Table,
    at: u64,
}

struct Snapshot {
    sink: Box<dyn SnapshotSink>,
    leftovers: Vec<Leftover>,
    walked: Vec<Table>,
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

    /// As `before_change`, for the walk: answers the cost.
    fn visit(&mut self, origin: DbIndex, entry: &Entry) -> usize {
        if entry.epoch() == self.epoch { 0 } else { self.hand_over(origin, entry) }
    }

    #[cold]
    fn hand_over(&mut self, origin: DbIndex, entry: &Entry) -> usize {
        let Some(snapshot) = &mut self.snapshot else { return 0 };
        entry.set_epoch(self.epoch);
        snapshot.sink.take(origin, entry)
    }

    /// Walks `table` from `at` until `budget` is used up. Returns where to go on.
    fn walk(&mut self, origin: DbIndex, table: &Table, mut at: u64, budget: &mut usize) -> Option<u64> {
        while *budget > 0 {
            *budget -= 1;
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
        guard.snapshot = Some(Snapshot { sink, leftovers: Vec::new(), walked: Vec::new() });
        for (number, db) in self.dbs.iter_mut().enumerate() {
            db.origin = DbIndex(number as u32);
            db.snapshot_at = (!db.table.is_empty()).then_some(0);
        }
        old
    }

    /// Hands over up to about `budget` entries. True if all are through: what follows is `end_snapshot`.
    pub fn snapshot_step(&mut self, budget: usize) -> bool {
        let mut budget = budget.max(1);
        for db in &mut self.dbs {
            if let Some(at) = db.snapshot_at {
                db.snapshot_at = self.guard.walk(db.origin, &db.table, at, &mut budget);
                if db.snapshot_at.is_some() {
                    return false;
                }
            }
        }
        while let Some(mut leftover) = self.guard.snapshot.as_mut().and_then(|s| s.leftovers.pop()) {
            let at = self.guard.walk(leftover.origin, &leftover.table, leftover.at, &mut budget);
            let Some(snapshot) = &mut self.guard.snapshot else { break };
            match at {
                Some(at) => {
                    leftover.at = at;
                    snapshot.leftovers.push(leftover);
                    return false;
                }
                None => snapshot.walked.push(leftover.table),
            }
        }
        true
    }

    /// Ends the snapshot, walked to its end or not. Returns its sink and the tables that a flush left with it.
    pub fn end_snapshot(&mut self) -> Option<(Box<dyn SnapshotSink>, Detached)> {
        let snapshot = self.guard.snapshot.take()?;
        let complete = snapshot.leftovers.is_empty() && self.dbs.iter().all(|db| db.snapshot_at.is_none());
        self.guard.given_up = if complete { 0 } else { self.guard.given_up + 1 };
        self.dbs.iter_mut().for_each(|db| db.snapshot_at = None);
        let mut tables = snapshot.walked;
        tables.extend(snapshot.leftovers.into_iter().map(|leftover| leftover.table));
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
        match (db.snapshot_at.take(), &mut guard.snapshot) {
            (Some(at), Some(snapshot)) => {
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
