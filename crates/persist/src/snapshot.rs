//! From the keyspace's snapshot to a stream of RDB records.
//!
//! Each shard has a [`ShardSink`], which encodes entries while the shard is locked, be it that the walk comes by or that
//! somebody is about to change them. Full buffers go to a [`Collector`] of all shards; the walking thread takes them
//! from there and writes. Hand-overs that pile up faster than they are written make the hander-over wait.

use crate::aof::commands::put_entry;
use crate::rdb::encode::{EncodeOptions, Encoder};
use crate::rdb::file::{Annotate, record};
use kara_base::ids::DbIndex;
use kara_keyspace::{Entry, SnapshotSink};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A sink's buffer goes to the collector at this size.
const CHUNK_BYTES: usize = 128 << 10;
/// From here on whoever hands over waits for the writer.
pub const PENDING_MAX: usize = 64 << 20;
/// How long at most: a disk that stands still must not stop the server for good.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// What one unit of the walk's budget stands for, bytes.
const COST_BYTES: usize = 256;

/// Records of one database.
#[derive(Debug, Default)]
pub struct Chunk {
    pub db: u32,
    pub bytes: Vec<u8>,
}

/// Where the sinks of all shards put their records.
#[derive(Debug, Default)]
pub struct Collector {
    queue: Mutex<Queue>,
    taken: Condvar,
    keys: AtomicU64,
    /// The snapshot was given up: nothing need be kept any more.
    closed: AtomicBool,
    /// A value can't be told in the version that is written.
    untold: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    chunks: VecDeque<Chunk>,
    bytes: usize,
}

impl Collector {
    pub fn new() -> Arc<Collector> {
        Arc::default()
    }

    fn put(&self, chunk: Chunk, may_wait: bool) {
        if self.closed.load(Relaxed) {
            return;
        }
        let mut queue = self.queue.lock();
        if may_wait && queue.bytes > PENDING_MAX {
            self.taken.wait_while_for(&mut queue, |q| q.bytes > PENDING_MAX / 2, WAIT_MAX);
        }
        queue.bytes += chunk.bytes.len();
        queue.chunks.push_back(chunk);
    }

    /// Takes everything that has come.
    pub fn take(&self) -> VecDeque<Chunk> {
        let mut queue = self.queue.lock();
        queue.bytes = 0;
        let chunks = std::mem::take(&mut queue.chunks);
        drop(queue);
        self.taken.notify_all();
        chunks
    }

    /// Nothing more is wanted; who waits goes on.
    pub fn close(&self) {
        self.closed.store(true, Relaxed);
        self.take();
    }

    /// Keys so far.
    pub fn keys(&self) -> u64 {
        self.keys.load(Relaxed)
    }

    /// A value could not be told in the version that is written.
    pub fn is_untold(&self) -> bool {
        self.untold.load(Relaxed)
    }
}

/// What an entry becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Rdb,
    Commands,
}

/// A shard's side.
pub struct ShardSink {
    collector: Arc<Collector>,
    encoder: Encoder,
    annotate: Annotate,
    form: Form,
    db: u32,
    /// The walk itself is what makes room: it must not wait.
    walking: Arc<AtomicBool>,
}

impl ShardSink {
    pub fn new(collector: Arc<Collector>, options: EncodeOptions, annotate: Annotate, form: Form) -> Self {
        ShardSink {
            collector,
            encoder: Encoder::new(options),
            annotate,
            form,
            db: 0,
            walking: Arc::default(),
        }
    }

    /// Set while the writing thread walks this shard.
    pub fn walking(&self) -> Arc<AtomicBool> {
        self.walking.clone()
    }

    fn hand_in(&mut self) {
        if !self.encoder.out.is_empty() {
            let bytes = std::mem::take(&mut self.encoder.out);
            let may_wait = !self.walking.load(Relaxed);
            self.collector.put(Chunk { db: self.db, bytes }, may_wait);
        }
    }
}

impl Drop for ShardSink {
    fn drop(&mut self) {
        self.hand_in();
    }
}

impl SnapshotSink for ShardSink {
    fn take(&mut self, db: DbIndex, entry: &Entry) -> usize {
        if self.collector.closed.load(Relaxed) {
            return 1;
        }
        if db.0 != self.db {
            self.hand_in();
            self.db = db.0;
        }
        let before = self.encoder.out.len();
        match self.form {
            Form::Rdb => {
                let note = (self.annotate)(entry.lru());
                if record(&mut self.encoder, entry, note).is_err() {
                    self.collector.untold.store(true, Relaxed);
                }
            }
            Form::Commands => put_entry(&mut self.encoder.out, entry),
        }
        self.collector.keys.fetch_add(1, Relaxed);
        let bytes = self.encoder.out.len() - before;
        if self.encoder.out.len() >= CHUNK_BYTES {
            self.hand_in();
        }
        1 + bytes / COST_BYTES
    }
}
