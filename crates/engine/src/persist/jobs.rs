//! The snapshot under way: begun under all locks, walked by a thread of its own shard after shard in short steps.

use super::{annotate, log};
use crate::config::Config;
use crate::log::Level;
use crate::shared::Shared;
use kara_base::clock::thread_cpu_ns;
use kara_base::ids::DbIndex;
use kara_keyspace::Locked;
use kara_persist::aof::CommandWriter;
use kara_persist::rdb::Version;
use kara_persist::rdb::encode::{EncodeOptions, Encoder};
use kara_persist::rdb::file::{DbSize, Preface, RdbWriter};
use kara_persist::snapshot::{Collector, Form, Purpose, ShardSink, Taken, give_way};
use kara_replication::replica::Filter;
use parking_lot::Mutex;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Units of work (a small entry is one) between two looks of others at the shard: some 50 us.
const STEP: usize = 256;

/// How often it is seen whether the readers of a snapshot are still there.
const LOOK: Duration = Duration::from_millis(100);

/// Clients count as there for so long after a command: the next one may be waiting for the very processor that the snapshot
/// keeps.
const QUIET: Duration = Duration::from_millis(5);

/// Whether clients are served meanwhile.
struct Traffic {
    commands: u64,
    last: Option<Instant>,
}

impl Traffic {
    fn new(shared: &Shared) -> Traffic {
        Traffic { commands: shared.stats.commands(), last: None }
    }

    fn is_there(&mut self, shared: &Shared) -> bool {
        let commands = shared.stats.commands();
        if commands != self.commands {
            self.commands = commands;
            self.last = Some(Instant::now());
        }
        self.last.is_some_and(|last| last.elapsed() < QUIET)
    }
}

/// What the snapshot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobKind {
    Rdb,
    AofRewrite,
}

/// A snapshot under way.
#[derive(Debug)]
pub struct Job {
    pub kind: JobKind,
    pub started: Instant,
    pub keys_total: u64,
    /// The workers' count of changes when it began.
    pub changes: i64,
    cancelled: AtomicBool,
    failed: AtomicBool,
    /// Held while the result takes its name, so that a cancelled job never does.
    committing: Mutex<()>,
    pub collector: Arc<Collector>,
}

impl Job {
    /// Ends it soon, without a result.
    pub fn cancel(&self) {
        let _waits_for_a_commit = self.committing.lock();
        self.cancelled.store(true, Relaxed);
        self.collector.close();
    }

    /// Lets it fail, as if its disk had.
    pub fn fail(&self) {
        self.failed.store(true, Relaxed);
    }

    /// Whether it is to end without a result.
    pub fn is_over(&self) -> bool {
        self.is_cancelled() || self.failed.load(Relaxed)
    }

    /// An error where it is.
    fn go_on(&self) -> io::Result<()> {
        if self.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if self.failed.load(Relaxed) { Err(io::Error::other("a fault that was asked for")) } else { Ok(()) }
    }

    /// Makes the result visible, unless the job was cancelled.
    pub(super) fn commit<R>(&self, make: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        let _nobody_cancels_meanwhile = self.committing.lock();
        if self.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        make()
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
    }
}

/// A snapshot that has begun, for the thread that writes it.
pub(crate) struct Begun {
    pub job: Arc<Job>,
    walking: Vec<Arc<AtomicBool>>,
    pub preface: Preface,
    options: EncodeOptions,
    pub form: Form,
    /// `aof-timestamp-enabled`, for a base of commands.
    stamped: bool,
    checksum: bool,
    key_delay: KeyDelay,
}

/// Begins a snapshot of this moment. Every shard must be held.
pub(super) fn begin(
    shared: &Shared,
    config: &Config,
    space: &mut Locked<'_>,
    kind: JobKind,
    now_ms: i64,
) -> Begun {
    begin_in(shared, config, space, kind, now_ms, (Version::Valkey80, Filter::default()))
}

/// The same for replicas, in the version that they read.
pub(crate) fn begin_as(
    shared: &Shared,
    config: &Config,
    space: &mut Locked<'_>,
    version: Version,
    filter: Filter,
) -> Begun {
    begin_in(shared, config, space, JobKind::Rdb, super::save::clock_ms(), (version, filter))
}

fn begin_in(
    shared: &Shared,
    config: &Config,
    space: &mut Locked<'_>,
    kind: JobKind,
    now_ms: i64,
    (version, filter): (Version, Filter),
) -> Begun {
    let collector = Collector::new();
    let options = EncodeOptions { version, compress: config.rdbcompression };
    let notes = annotate(config, now_ms);
    let mut preface = preface(shared, space, now_ms, kind == JobKind::AofRewrite);
    if !filter.functions {
        preface.functions.clear();
    }
    if !filter.data {
        preface.sizes.clear();
    }
    let commands = kind == JobKind::AofRewrite && !config.aof_use_rdb_preamble;
    let form = if commands { Form::Commands } else { Form::Rdb };
    let mut walking = Vec::new();
    for (id, shard) in space.shards_mut().filter(|_| filter.data) {
        let sink = ShardSink::new(id, collector.clone(), options, notes.clone(), form);
        walking.push(sink.walking());
        drop(shard.begin_snapshot(Box::new(sink)));
    }
    shared.persist.snapshots.fetch_add(1, Relaxed);
    let keys_total = preface.sizes.iter().map(|size| size.keys).sum();
    let job = Job {
        kind,
        started: Instant::now(),
        keys_total,
        changes: super::changes(shared),
        cancelled: AtomicBool::new(false),
        failed: AtomicBool::new(false),
        committing: Mutex::new(()),
        collector,
    };
    Begun {
        job: Arc::new(job),
        walking,
        preface,
        options,
        form,
        stamped: config.aof_timestamp_enabled,
        checksum: config.rdbchecksum,
        key_delay: KeyDelay::new(config.rdb_key_save_delay),
    }
}

/// `rdb-key-save-delay` and `key-load-delay`: what each key shall take beside the work, for tests.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyDelay {
    each: Duration,
    owed: Duration,
}

impl KeyDelay {
    /// No shorter sleep is asked for: it would take as long.
    const LEAST: Duration = Duration::from_micros(60);

    /// Microseconds; a negative setting means the shortest sleep there is for one key in so many.
    pub fn new(setting: i32) -> KeyDelay {
        let each = match u64::try_from(setting) {
            Ok(each) => Duration::from_micros(each),
            Err(_) => Self::LEAST / setting.unsigned_abs().max(1),
        };
        KeyDelay { each, owed: Duration::ZERO }
    }

    /// Keys until the next sleep, at most.
    pub fn step(&self, most: usize) -> usize {
        let keys = Self::LEAST.as_nanos().checked_div(self.each.as_nanos());
        keys.map_or(most, |keys| most.min(keys as usize).max(1))
    }

    /// How long is to be slept now, so many keys later.
    pub fn due(&mut self, keys: u64) -> Option<Duration> {
        self.owed += self.each.saturating_mul(u32::try_from(keys).unwrap_or(u32::MAX));
        (self.owed >= Self::LEAST).then(|| std::mem::take(&mut self.owed))
    }
}

/// What stands in front of the keys. Every shard must be held.
pub(super) fn preface(shared: &Shared, space: &Locked<'_>, now_ms: i64, aof_base: bool) -> Preface {
    let sizes = (0..shared.keyspace.databases() as u32).map(|db| {
        let stats = space.stats(DbIndex(db));
        DbSize { db, keys: stats.keys as u64, expires: stats.expires as u64 }
    });
    let mut aux = vec![
        ("valkey-ver", "9.1.2".to_owned()),
        ("redis-bits", usize::BITS.to_string()),
        ("ctime", (now_ms / 1000).to_string()),
        ("used-mem", kara_base::alloc::used_memory().to_string()),
        ("aof-base", u8::from(aof_base).to_string()),
    ];
    if !aof_base {
        aux.extend(crate::replication::sync::notes(shared));
    }
    let libraries = shared.scripts.libraries.now();
    let functions = libraries.libraries.values().map(|library| library.code.to_vec()).collect();
    Preface { aux, functions, sizes: sizes.filter(|size| size.keys > 0).collect() }
}

impl Begun {
    /// Walks through all shards and writes, on a thread of its own; no error leaves a shard with the snapshot.
    pub fn write<W: Write>(self, shared: &Shared, out: W, purpose: Purpose) -> io::Result<W> {
        give_way(purpose);
        let job = self.job.clone();
        let result = self.walk_all(shared, out, purpose);
        if result.is_err() {
            leave_all(shared, &job);
        }
        result
    }

    /// Ends the snapshot without having written anything.
    pub fn give_up(self, shared: &Shared) {
        leave_all(shared, &self.job);
    }

    fn walk_all<W: Write>(mut self, shared: &Shared, out: W, purpose: Purpose) -> io::Result<W> {
        let encoder = Encoder::new(self.options);
        let preface = std::mem::take(&mut self.preface);
        let mut writer = match self.form {
            Form::Rdb => Writing::Rdb(Box::new(RdbWriter::begin(out, encoder, self.checksum, preface)?)),
            Form::Commands => {
                let stamp_s = self.stamped.then(|| super::save::clock_ms() / 1000);
                Writing::Commands(CommandWriter::begin(out, stamp_s, &preface.functions)?)
            }
        };
        let collector = &self.job.collector;
        let mut looked = Instant::now();
        let mut traffic = Traffic::new(shared);
        let (mut paid, mut delay) = (0, self.key_delay);
        for (id, walking) in shared.keyspace.shard_ids().zip(&self.walking) {
            loop {
                self.serve_waiting(shared, &mut writer)?;
                let copied = collector.copied();
                let mut locked = loop {
                    match shared.keyspace.try_lock_one(id) {
                        Some(locked) => break locked,
                        // Whoever holds it may be waiting for room.
                        None if drain(collector, &mut writer)? => {}
                        None => break shared.keyspace.lock_one(id),
                    }
                };
                walking.store(true, Relaxed);
                let begun_ns = thread_cpu_ns();
                let step = self.key_delay.step(STEP);
                let through = locked.shards_mut().all(|(_, shard)| shard.snapshot_step(step));
                let ended = through.then(|| end(shared, &mut locked));
                walking.store(false, Relaxed);
                let awaited = locked.is_awaited();
                drop(locked);
                drop(ended);
                // Who has waited for the shard is woken now, and has it if this thread doesn't take it again at once.
                let gives_way = awaited
                    || match purpose {
                        Purpose::File => collector.copied() > copied,
                        Purpose::Replicas => traffic.is_there(shared),
                    };
                if through || gives_way || collector.is_worth_writing() {
                    drain(collector, &mut writer)?;
                }
                if gives_way {
                    // Who takes less than its share of a busy machine's processors isn't interrupted, and so not in the middle
                    // of a step, when others wait for its lock; giving the processor up between steps instead (`sched_yield`)
                    // puts it behind all others, milliseconds with the lock held. Waiting for a disk or a socket was rest
                    // enough.
                    let computed = Duration::from_nanos(thread_cpu_ns().saturating_sub(begun_ns));
                    std::thread::sleep(purpose.rest(computed));
                }
                // Also for those that were handed over by whoever was about to change them.
                let new = collector.keys() - paid;
                paid += new;
                self.pause(delay.due(new), &mut writer, &mut looked)?;
                self.job.go_on()?;
                if collector.is_untold() {
                    return Err(io::Error::other("a value can't be told in this version"));
                }
                if through {
                    break;
                }
            }
        }
        drain(collector, &mut writer)?;
        writer.finish()
    }

    /// Large values that clients wait for come first, wherever they are.
    fn serve_waiting<W: Write>(&self, shared: &Shared, writer: &mut Writing<W>) -> io::Result<()> {
        while let Some(id) = self.job.collector.next_wanted() {
            loop {
                let mut locked = shared.keyspace.lock_one(id);
                let through = locked.shards_mut().all(|(_, shard)| shard.snapshot_wanted(STEP));
                drop(locked);
                drain(&self.job.collector, writer)?;
                if through || self.job.go_on().is_err() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// `rdb-key-save-delay`, as it was at the beginning; sees in between whether somebody still wants the result.
    fn pause<W: Write>(
        &self,
        due: Option<Duration>,
        writer: &mut Writing<W>,
        looked: &mut Instant,
    ) -> io::Result<()> {
        let begun = Instant::now();
        let whole = due.unwrap_or_default();
        loop {
            if looked.elapsed() >= LOOK {
                *looked = Instant::now();
                writer.flush()?;
            }
            let left = whole.saturating_sub(begun.elapsed());
            if left.is_zero() || self.job.go_on().is_err() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(10)));
        }
    }
}

/// Ends the snapshot of all shards, wherever the walk is.
fn leave_all(shared: &Shared, job: &Job) {
    job.collector.close();
    for id in shared.keyspace.shard_ids() {
        let ended = end(shared, &mut shared.keyspace.lock_one(id));
        drop(ended);
    }
}

/// Ends the snapshot of a shard; what is returned is to be dropped when its lock is free.
fn end(shared: &Shared, locked: &mut Locked<'_>) -> Vec<Box<dyn kara_keyspace::SnapshotSink>> {
    let mut sinks = Vec::new();
    for (_, shard) in locked.shards_mut() {
        if let Some((sink, detached)) = shard.end_snapshot() {
            sinks.push(sink);
            if !detached.is_empty() {
                let keys = detached.len() as u64;
                shared.reclaimer.free(Box::new(detached), keys);
            }
        }
    }
    sinks
}

/// The file under way.
enum Writing<W> {
    Rdb(Box<RdbWriter<W>>),
    Commands(CommandWriter<W>),
}

impl<W: Write> Writing<W> {
    fn records(&mut self, db: u32, bytes: &[u8]) -> io::Result<()> {
        match self {
            Writing::Rdb(writer) => writer.records(db, bytes),
            Writing::Commands(writer) => writer.records(db, bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Writing::Rdb(writer) => writer.flush(),
            Writing::Commands(_) => Ok(()),
        }
    }

    /// The rest of a record.
    fn more(&mut self, db: u32, bytes: &[u8]) -> io::Result<()> {
        match self {
            Writing::Rdb(writer) => writer.more(bytes),
            Writing::Commands(writer) => writer.records(db, bytes),
        }
    }

    fn finish(self) -> io::Result<W> {
        match self {
            Writing::Rdb(writer) => writer.finish(),
            Writing::Commands(writer) => Ok(writer.finish()),
        }
    }
}

/// Writes what has come; false if nothing had.
fn drain<W: Write>(collector: &Collector, writer: &mut Writing<W>) -> io::Result<bool> {
    let Taken { pieces, chunks } = collector.take();
    for piece in &pieces {
        if piece.is_first {
            writer.records(piece.db, &piece.bytes)?;
        } else {
            writer.more(piece.db, &piece.bytes)?;
        }
    }
    for chunk in &chunks {
        writer.records(chunk.db, &chunk.bytes)?;
    }
    Ok(!chunks.is_empty() || !pieces.is_empty())
}

/// Starts `work` on a thread of its own; the job is over when it returns.
pub(crate) fn spawn(
    shared: &Shared,
    begun: Begun,
    work: impl FnOnce(&Arc<Shared>, Begun) + Send + 'static,
) -> io::Result<()> {
    let Some(own) = shared.persist.shared() else {
        begun.job.cancel();
        return Err(io::Error::other("nothing to run it"));
    };
    let job = begun.job.clone();
    *shared.persist.job.lock() = Some(job.clone());
    let config = shared.config.load();
    let cpus = match job.kind {
        JobKind::Rdb => config.bgsave_cpulist.clone(),
        JobKind::AofRewrite => config.aof_rewrite_cpulist.clone(),
    };
    let started = std::thread::Builder::new().name("snapshot".into()).spawn(move || {
        kara_base::cpus::keep_to(&cpus);
        work(&own, begun);
        let mut slot = own.persist.job.lock();
        if slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, &job)) {
            *slot = None;
        }
    });
    if let Err(error) = started {
        log(shared, Level::Warning, format!("Can't start the thread that saves: {error}"));
        if let Some(job) = shared.persist.job.lock().take() {
            job.cancel();
        }
        return Err(error);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_of_keys_add_up_to_sleeps_worth_a_call() {
        let run = |setting: i32, keys: u64| {
            let mut delay = KeyDelay::new(setting);
            let sleeps: Vec<Duration> = (0..keys).filter_map(|_| delay.due(1)).collect();
            (sleeps.len() as u64, sleeps.iter().sum::<Duration>().as_micros(), delay.step(256))
        };
        assert_eq!(run(0, 1000), (0, 0, 256));
        assert_eq!(run(500, 1000), (1000, 500_000, 1));
        assert_eq!(run(20, 900), (300, 18_000, 3));
        // One key in ten takes the shortest sleep.
        assert_eq!(run(-10, 1000), (100, 6_000, 10));
        assert_eq!(run(i32::MIN, 1000).0, 0);
    }
}
