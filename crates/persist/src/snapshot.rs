//! From the keyspace's snapshot to a stream of RDB records.
//!
//! Each shard has a [`ShardSink`], which encodes entries while the shard is locked, be it that the walk comes by or that
//! somebody is about to change them. Full buffers go to a [`Collector`] of all shards; the walking thread takes them
//! from there and writes. Hand-overs that pile up faster than they are written make the hander-over wait.
//!
//! Large values come in parts, which nothing may come between in the file: while one is open, what else is handed over
//! stays with the collector.

use crate::aof::commands::{put_entry, put_part};
use crate::rdb::encode::{EncodeOptions, Encoder};
use crate::rdb::file::{Annotate, record, record_head};
use crate::rdb::steps::{self, Steps};
use kara_base::ids::{DbIndex, ShardId};
use kara_keyspace::{Entry, Part, SnapshotSink};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A sink's buffer goes to the collector at this size, some two steps of the walk: what is written behind one at once, to a
/// socket or a file, takes no longer than the step did.
const CHUNK_BYTES: usize = 16 << 10;
/// So much is worth being written at once while nobody else writes.
const BURST_BYTES: usize = 128 << 10;
/// From here on whoever hands over waits for the writer.
pub const PENDING_MAX: usize = 16 << 20;
/// How long at most: a disk that stands still must not stop the server for good.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// What a part of a large value costs at least: it is the walk's whole step.
const PART_COST: usize = 256;
/// What one unit of the walk's budget stands for, bytes.
const COST_BYTES: usize = 256;

/// The longest rest of one that is for a file.
const REST_MAX: Duration = Duration::from_millis(1);

/// Whom a snapshot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It has time: of a processor that a worker fills, it takes a tenth.
    File,
    /// A log grows until they have it: a quarter.
    Replicas,
}

impl Purpose {
    /// How long the thread rests behind a step that it computed so long, while there are others to give way to: to whoever
    /// writes, from a file; to any client, from replicas. There the shortest sleep there is does: whoever waits for the
    /// processor has it then.
    pub fn rest(self, computed: Duration) -> Duration {
        match self {
            Purpose::File => (computed * 2).min(REST_MAX),
            Purpose::Replicas => Duration::from_micros(1),
        }
    }
}

/// Turns of a transfer's thread on a processor, much longer than those of workers: of two that wait, the scheduler takes the
/// one whose turn would be over first, so that this one steps back at once for whoever is woken. Its share stays the same.
const TURNS: Duration = Duration::from_millis(20);

/// Puts the calling thread behind those that serve, where the processors don't suffice for all: the snapshot takes longer
/// then, and clients wait less.
pub fn give_way(purpose: Purpose) {
    let (nice, turns) = match purpose {
        // So far behind already, long turns would only keep it on the processor for longer when its time has come.
        Purpose::File => (10, None),
        Purpose::Replicas => (5, Some(TURNS)),
    };
    // Each may be refused, and the snapshot goes on as it is. On Linux these are the thread's values, not the process's.
    let _ = kara_base::os::set_turns(turns);
    if purpose == Purpose::Replicas {
        // Rests take as long as they are asked for, not 50 us more.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1000));
    }
    let _ = rustix::process::setpriority_process(None, nice);
}

/// Records of one database.
#[derive(Debug, Default)]
pub struct Chunk {
    pub db: u32,
    pub bytes: Vec<u8>,
}

/// A piece of a large value's record.
#[derive(Debug)]
pub struct Piece {
    pub db: u32,
    pub bytes: Vec<u8>,
    pub is_first: bool,
    pub is_last: bool,
}

/// What has come to be written, in this order.
#[derive(Debug, Default)]
pub struct Taken {
    pub pieces: VecDeque<Piece>,
    pub chunks: VecDeque<Chunk>,
}

/// Where the sinks of all shards put their records.
#[derive(Debug, Default)]
pub struct Collector {
    queue: Mutex<Queue>,
    taken: Condvar,
    keys: AtomicU64,
    copied: AtomicU64,
    /// The snapshot was given up: nothing need be kept any more.
    closed: AtomicBool,
    /// A value can't be told in the version that is written.
    untold: AtomicBool,
    /// Somebody waits for a large value of one of these shards.
    wanted: Mutex<Vec<ShardId>>,
    is_wanted: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    pieces: VecDeque<Piece>,
    /// The last piece was not its value's last.
    is_open: bool,
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

    fn put_piece(&self, piece: Piece) {
        if !self.closed.load(Relaxed) {
            let mut queue = self.queue.lock();
            queue.is_open = !piece.is_last;
            queue.pieces.push_back(piece);
        }
    }

    /// Whether enough has come to be written at once. Large values don't wait for more.
    pub fn is_worth_writing(&self) -> bool {
        let queue = self.queue.lock();
        queue.bytes >= BURST_BYTES || !queue.pieces.is_empty()
    }

    /// Takes what has come and may be written now.
    pub fn take(&self) -> Taken {
        let mut queue = self.queue.lock();
        let pieces = std::mem::take(&mut queue.pieces);
        if queue.is_open {
            return Taken { pieces, ..Taken::default() };
        }
        queue.bytes = 0;
        let chunks = std::mem::take(&mut queue.chunks);
        drop(queue);
        self.taken.notify_all();
        Taken { pieces, chunks }
    }

    /// Nothing more is wanted; who waits goes on.
    pub fn close(&self) {
        self.closed.store(true, Relaxed);
        self.queue.lock().is_open = false;
        self.take();
    }

    /// A shard with a large value that somebody waits for; none while another one is open.
    pub fn next_wanted(&self) -> Option<ShardId> {
        if !self.is_wanted.load(Relaxed) || self.queue.lock().is_open {
            return None;
        }
        let mut wanted = self.wanted.lock();
        let next = wanted.pop();
        self.is_wanted.store(!wanted.is_empty(), Relaxed);
        next
    }

    /// Keys so far.
    pub fn keys(&self) -> u64 {
        self.keys.load(Relaxed)
    }

    /// Bytes of what was handed over because it was about to change.
    pub fn copied(&self) -> u64 {
        self.copied.load(Relaxed)
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
    shard: ShardId,
    db: u32,
    /// How far the large value is that comes in parts.
    steps: Option<Steps>,
    at: u64,
    /// The walk itself is what makes room: it must not wait.
    walking: Arc<AtomicBool>,
}

impl ShardSink {
    pub fn new(
        shard: ShardId,
        collector: Arc<Collector>,
        options: EncodeOptions,
        annotate: Annotate,
        form: Form,
    ) -> Self {
        ShardSink {
            collector,
            encoder: Encoder::new(options),
            annotate,
            form,
            shard,
            db: 0,
            steps: None,
            at: 0,
            walking: Arc::default(),
        }
    }

    /// Set while the writing thread walks this shard.
    pub fn walking(&self) -> Arc<AtomicBool> {
        self.walking.clone()
    }

    /// The buffer goes to the collector; one with so much room takes its place.
    fn hand_in(&mut self, room: usize) {
        if !self.encoder.out.is_empty() {
            let bytes = std::mem::replace(&mut self.encoder.out, Vec::with_capacity(room));
            let may_wait = !self.walking.load(Relaxed);
            self.collector.put(Chunk { db: self.db, bytes }, may_wait);
        }
    }
}

impl Drop for ShardSink {
    fn drop(&mut self) {
        self.hand_in(0);
    }
}

impl SnapshotSink for ShardSink {
    fn take(&mut self, db: DbIndex, entry: &Entry) -> usize {
        if self.collector.closed.load(Relaxed) {
            return 1;
        }
        if db.0 != self.db {
            self.hand_in(0);
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
        if !self.walking.load(Relaxed) {
            // Not compressed: as much as a copy of the value would take.
            let text = entry.string().map_or(0, |text| text.len());
            self.collector.copied.fetch_add(bytes.max(entry.key().len() + text) as u64, Relaxed);
        }
        if self.encoder.out.len() >= CHUNK_BYTES {
            self.hand_in(CHUNK_BYTES * 5 / 4);
        }
        1 + bytes / COST_BYTES
    }
    fn is_large(&self, entry: &Entry) -> bool {
        steps::is_large(entry)
    }

    fn part(&mut self, db: DbIndex, entry: &Entry) -> Part {
        if self.collector.closed.load(Relaxed) {
            return Part { cost: 1, is_last: true };
        }
        let is_first = self.steps.is_none();
        // The buffer is for whole records.
        let records = std::mem::take(&mut self.encoder.out);
        let mut steps = self.steps.unwrap_or_default();
        let is_last = match self.form {
            Form::Rdb => {
                if is_first {
                    let note = (self.annotate)(entry.lru());
                    match self.encoder.type_of(entry) {
                        Ok(kind) => record_head(&mut self.encoder, entry, note, kind),
                        Err(_) => self.collector.untold.store(true, Relaxed),
                    }
                }
                self.encoder.step(entry, &mut steps)
            }
            Form::Commands => put_part(&mut self.encoder.out, entry, &mut self.at),
        };
        let bytes = std::mem::replace(&mut self.encoder.out, records);
        let cost = 1 + bytes.len() / COST_BYTES;
        self.collector.put_piece(Piece { db: db.0, bytes, is_first, is_last });
        self.steps = (!is_last).then_some(steps);
        if is_last {
            self.at = 0;
            self.collector.keys.fetch_add(1, Relaxed);
        }
        Part { cost: cost.max(PART_COST), is_last }
    }

    fn wanted(&self) {
        let mut wanted = self.collector.wanted.lock();
        if !wanted.contains(&self.shard) {
            wanted.push(self.shard);
        }
        self.collector.is_wanted.store(true, Relaxed);
    }
}
