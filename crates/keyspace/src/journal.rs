//! The journal's place: one ordered log of what writes did, written while the shard locks are held, so that per key the
//! log's order is the execution's.
//!
//! Boundary: what a record becomes (replication stream, AOF) is the sink's; without a sink an append costs one load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kara_base::ids::{DbIndex, JournalOffset};
use parking_lot::{Mutex, RwLock};

/// Whom records can be withheld from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The append-only file.
    Log,
    Replicas,
}

/// Writes records down in the order of the calls. Calls come from all workers, with shard locks held: a sink must not
/// block on I/O and must not lock shards.
pub trait JournalSink: Send + Sync {
    /// Returns the offset behind the record; offsets never fall.
    fn append(&self, db: DbIndex, args: &[&[u8]]) -> JournalOffset;
    /// The same, where `sent` is the record in the protocol's form: an array of bulk strings.
    fn append_sent(&self, db: DbIndex, args: &[&[u8]], sent: &[u8]) -> JournalOffset {
        debug_assert!(!sent.is_empty(), "a record is something");
        self.append(db, args)
    }
    /// Several records, with nobody else's between them.
    fn append_group(&self, group: &[(DbIndex, &[&[u8]])]) -> JournalOffset {
        for (db, args) in group {
            self.append(*db, args);
        }
        self.offset()
    }
    /// The offset behind the last record.
    fn offset(&self) -> JournalOffset;
    /// Whose records it keeps.
    fn reader(&self) -> Reader {
        Reader::Log
    }
}

/// The keyspace's journal with its sinks: none, the AOF, the replicas' backlog, or both.
#[derive(Default)]
pub struct Journal {
    active: AtomicBool,
    sinks: RwLock<Vec<Arc<dyn JournalSink>>>,
}

impl Journal {
    pub fn new() -> Journal {
        Journal::default()
    }

    /// Whether there is a sink; if not, callers can save themselves the record.
    #[inline]
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// Adds a sink: it gets every record from now on. To be called with all shards locked, so that no command is half
    /// recorded.
    pub fn attach(&self, sink: Arc<dyn JournalSink>) {
        let mut sinks = self.sinks.write();
        sinks.push(sink);
        self.active.store(true, Ordering::Relaxed);
    }

    /// Takes a sink out; false if it wasn't in. To be called with all shards locked, likewise.
    pub fn detach(&self, sink: &Arc<dyn JournalSink>) -> bool {
        let mut sinks = self.sinks.write();
        let before = sinks.len();
        sinks.retain(|known| !Arc::ptr_eq(known, sink));
        self.active.store(!sinks.is_empty(), Ordering::Relaxed);
        sinks.len() < before
    }

    /// Records a command; to be called before the locks of its shards are released.
    #[inline]
    pub fn append(&self, db: DbIndex, args: &[&[u8]]) {
        if self.is_active() {
            self.sinks.read().iter().for_each(|sink| {
                sink.append(db, args);
            });
        }
    }
}

impl Journal {
    /// Records a command that came in the protocol's form, as [`JournalSink::append_sent`]. Likewise.
    #[inline]
    pub fn append_sent(&self, db: DbIndex, args: &[&[u8]], sent: &[u8]) {
        if self.is_active() {
            self.sinks.read().iter().for_each(|sink| {
                sink.append_sent(db, args, sent);
            });
        }
    }

    /// Records a transaction: MULTI, its commands, EXEC. Likewise.
    pub fn append_group(&self, group: &[(DbIndex, &[&[u8]])]) {
        if self.is_active() {
            self.sinks.read().iter().for_each(|sink| {
                sink.append_group(group);
            });
        }
    }

    /// The same for one of the readers.
    pub fn append_group_for(&self, reader: Reader, group: &[(DbIndex, &[&[u8]])]) {
        for sink in self.sinks.read().iter().filter(|sink| sink.reader() == reader) {
            sink.append_group(group);
        }
    }
}

/// One record of a `RecordingSink`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRecord {
    pub db: DbIndex,
    pub args: Vec<Vec<u8>>,
}

/// Keeps records in memory, for tests. Its offsets count the arguments' bytes.
#[derive(Default)]
pub struct RecordingSink {
    state: Mutex<(JournalOffset, Vec<JournalRecord>)>,
}

impl RecordingSink {
    pub fn new() -> RecordingSink {
        RecordingSink::default()
    }

    /// The records so far; the next call returns those after them.
    pub fn take(&self) -> Vec<JournalRecord> {
        std::mem::take(&mut self.state.lock().1)
    }
}

impl JournalSink for RecordingSink {
    fn append(&self, db: DbIndex, args: &[&[u8]]) -> JournalOffset {
        let mut state = self.state.lock();
        let bytes: usize = args.iter().map(|arg| arg.len()).sum();
        state.0 = state.0.advanced_by(bytes as u64);
        state.1.push(JournalRecord { db, args: args.iter().map(|arg| arg.to_vec()).collect() });
        state.0
    }

    fn offset(&self) -> JournalOffset {
        self.state.lock().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sink_records_in_order_with_rising_offsets() {
        let journal = Journal::new();
        journal.append(DbIndex(0), &[b"DEL", b"lost"]);
        let (first, second) = (Arc::new(RecordingSink::new()), Arc::new(RecordingSink::new()));
        journal.attach(first.clone());
        journal.append(DbIndex(3), &[b"DEL", b"k"]);
        journal.attach(second.clone());
        journal.append(DbIndex(0), &[b"SET", b"k", b"v"]);
        assert_eq!((first.offset(), second.offset()), (JournalOffset(9), JournalOffset(5)));
        let records = first.take();
        assert_eq!(records.len(), 2);
        assert_eq!((records[0].db, records[1].args.len()), (DbIndex(3), 3));
        let first: Arc<dyn JournalSink> = first;
        assert!(journal.detach(&first) && !journal.detach(&first) && journal.is_active());
        let second: Arc<dyn JournalSink> = second;
        assert!(journal.detach(&second) && !journal.is_active());
    }
}
