//! The journal's place: one ordered log of what writes did, written while the shard locks are held, so that per key the
//! log's order is the execution's.
//!
//! Boundary: what a record becomes (replication stream, AOF) is the sink's; without a sink an append costs one load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kara_base::ids::{DbIndex, JournalOffset};
use parking_lot::{Mutex, RwLock};

/// Writes records down in the order of the calls. Calls come from all workers, with shard locks held: a sink must not
/// block on I/O and must not lock shards.
pub trait JournalSink: Send + Sync {
    /// Returns the offset behind the record; offsets never fall.
    fn append(&self, db: DbIndex, args: &[&[u8]]) -> JournalOffset;
    /// The offset behind the last record.
    fn offset(&self) -> JournalOffset;
}

/// The keyspace's journal, with or without a sink.
#[derive(Default)]
pub struct Journal {
    active: AtomicBool,
    sink: RwLock<Option<Arc<dyn JournalSink>>>,
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

    /// Exchanges the sink. To be called with all shards locked, so that no command is half recorded.
    pub fn set_sink(&self, sink: Option<Arc<dyn JournalSink>>) -> Option<Arc<dyn JournalSink>> {
        let mut slot = self.sink.write();
        self.active.store(sink.is_some(), Ordering::Relaxed);
        std::mem::replace(&mut slot, sink)
    }

    /// Records a command; to be called before the locks of its shards are released. `None` without a sink.
    #[inline]
    pub fn append(&self, db: DbIndex, args: &[&[u8]]) -> Option<JournalOffset> {
        if !self.is_active() {
            return None;
        }
        Some(self.sink.read().as_ref()?.append(db, args))
    }

    /// The offset behind the last record; 0 without a sink.
    pub fn offset(&self) -> JournalOffset {
        self.sink.read().as_ref().map_or(JournalOffset(0), |sink| sink.offset())
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
    fn records_in_order_with_rising_offsets() {
        let journal = Journal::new();
        assert_eq!(journal.append(DbIndex(0), &[b"DEL", b"k"]), None);
        let sink = Arc::new(RecordingSink::new());
        assert!(journal.set_sink(Some(sink.clone())).is_none());
        assert_eq!(journal.append(DbIndex(3), &[b"DEL", b"k"]), Some(JournalOffset(4)));
        assert_eq!(journal.append(DbIndex(0), &[b"SET", b"k", b"v"]), Some(JournalOffset(9)));
        assert_eq!(journal.offset(), JournalOffset(9));
        let records = sink.take();
        assert_eq!(records.len(), 2);
        assert_eq!((records[0].db, records[1].args.len()), (DbIndex(3), 3));
        assert!(journal.set_sink(None).is_some());
        assert!(!journal.is_active());
    }
}
