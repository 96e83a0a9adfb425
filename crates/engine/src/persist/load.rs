//! Loading: at the start, while commands are answered with LOADING, and for DEBUG RELOAD under all locks.

use super::{is_relaxed, log, value_limits};
use crate::access::Access;
use crate::config::{Config, os_text};
use crate::log::Level;
use crate::shared::Shared;
use kara_base::ids::DbIndex;
use kara_keyspace::{Entry, HashedKey, Keyspace, Locked};
use kara_persist::rdb::file::{AccessNote, path};
use kara_persist::rdb::load::{LoadFault, LoadOptions, LoadReport, LoadSink, load};
use kara_persist::rdb::source::Buffered;
use parking_lot::Mutex;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Instant;

/// What INFO tells about loading.
#[derive(Debug, Default)]
pub struct Figures {
    pub started_s: AtomicI64,
    pub total_bytes: AtomicU64,
    pub loaded_bytes: AtomicU64,
    /// Memory that the file's writer used.
    pub writer_memory: AtomicU64,
    pub keys_loaded: AtomicU64,
    pub keys_expired: AtomicU64,
}

/// Where entries go: into shards that are locked one at a time, or that are all held.
pub(crate) enum Target<'a, 'k> {
    Shards(Locked<'k>),
    Held(&'a mut Locked<'k>),
}

impl<'k> Target<'_, 'k> {
    fn keyspace(&self) -> &'k Keyspace {
        match self {
            Target::Shards(locked) => locked.keyspace(),
            Target::Held(locked) => locked.keyspace(),
        }
    }
}

/// A key that was read.
struct KeyRead {
    db: DbIndex,
    hash: u64,
    entry: Entry,
    record: u32,
}

/// Keys that are put into the keyspace together: enough for their cache misses to overlap, few enough for others to
/// come to the shards in between.
const BATCH: usize = 128;
/// Batches on their way to the threads that insert.
const QUEUED: usize = 32;
/// Files of less than this are loaded by one thread: 16 MB take it a twentieth of a second.
const ALONE_BYTES: u64 = 16 << 20;
/// A stated number of keys is believed as far as each may have so many bytes of the file: a table for them takes about ten.
const RECORD_MIN: u64 = 16;
/// And so many where the length isn't known: tables of 160 MB.
const STREAM_KEYS_MAX: u64 = 16 << 20;
/// More threads would wait for the one that reads.
const INSERTERS_MAX: usize = 3;

impl Target<'_, '_> {
    /// Puts a batch into the keyspace.
    fn insert(&mut self, batch: &mut Vec<KeyRead>, overwrite: bool) -> Result<(), LoadFault> {
        let (space, held) = match self {
            Target::Shards(locked) => (locked, false),
            Target::Held(locked) => (&mut **locked, true),
        };
        let keyspace = space.keyspace();
        if !held && space.is_single_shard() {
            space.relock_all();
        }
        let alone = space.holds_all();
        for one in batch.iter() {
            if alone {
                space.prefetch_to_insert(one.db, one.hash);
            } else {
                keyspace.prefetch_lock(one.hash);
            }
        }
        if !alone {
            batch.iter().for_each(|one| keyspace.prefetch_to_insert(one.db, one.hash));
        }
        for one in batch.drain(..) {
            if !alone {
                space.relock_keys(&[HashedKey { bytes: b"", hash: one.hash }]);
            }
            let (entry, replaced) = space.insert_entry(one.db, one.hash, one.entry);
            entry.set_lru(one.record);
            if replaced.is_some() && !overwrite {
                return Err(LoadFault::Duplicate { db: one.db.0, key: entry.key().to_vec() });
            }
        }
        if !held {
            space.release();
        }
        Ok(())
    }
}

/// Where batches go.
enum Way<'a, 'k> {
    Direct(Target<'a, 'k>),
    /// To threads of their own, which end when this is dropped.
    Threads(SyncSender<Vec<KeyRead>>),
}

/// Puts what is read into the keyspace.
struct IntoKeyspace<'a, 'k> {
    shared: &'a Shared,
    config: &'a Config,
    keyspace: &'k Keyspace,
    way: Way<'a, 'k>,
    batch: Vec<KeyRead>,
    access: Access,
    /// A key that is there already is overwritten (DEBUG RELOAD MERGE); else it is an error.
    overwrite: bool,
    delay: super::jobs::KeyDelay,
    base_offset: u64,
    /// Bytes between two notes of how far it is.
    interval: u64,
    noted: u64,
    /// Keys for which tables were laid out.
    believed: u64,
    place: Place,
    /// The file's place is to become ours, before its first key.
    takes_place: bool,
    /// Libraries that aren't to be in force yet.
    aside: Option<Vec<Vec<u8>>>,
}

impl IntoKeyspace<'_, '_> {
    fn flush(&mut self) -> Result<(), LoadFault> {
        match &mut self.way {
            Way::Direct(target) => target.insert(&mut self.batch, self.overwrite),
            Way::Threads(sender) => {
                let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
                // Nobody receives any more: an insertion failed, and says why.
                sender.send(batch).map_err(|_| LoadFault::Stopped("stopped by a fault".to_owned()))
            }
        }
    }
}

/// What a file says about its place in a replication stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    pub db: u32,
    pub id: Option<String>,
    pub offset: Option<u64>,
    /// The code of libraries that were put aside.
    pub libraries: Vec<Vec<u8>>,
}

impl LoadSink for IntoKeyspace<'_, '_> {
    fn aux(&mut self, name: &[u8], value: &[u8]) {
        let value = String::from_utf8_lossy(value);
        let number = value.parse::<i64>();
        match (name, number) {
            (b"valkey-ver", _) => {
                log(self.shared, Level::Notice, format!("Loading RDB produced by Valkey version {value}"));
            }
            (b"redis-ver", _) => {
                log(self.shared, Level::Notice, format!("Loading RDB produced by Redis version {value}"));
            }
            (b"ctime", Ok(then_s)) => {
                let age = (super::save::clock_ms() / 1000 - then_s).max(0);
                log(self.shared, Level::Notice, format!("RDB age {age} seconds"));
            }
            (b"used-mem", Ok(bytes)) => {
                let mb = bytes as f64 / f64::from(1 << 20);
                log(self.shared, Level::Notice, format!("RDB memory usage when created {mb:.2} Mb"));
                self.shared.persist.loading.writer_memory.store(bytes.max(0) as u64, Relaxed);
            }
            (b"repl-stream-db", Ok(db)) => self.place.db = u32::try_from(db).unwrap_or(0),
            (b"repl-id", _) => self.place.id = Some(value.into_owned()),
            (b"repl-offset", Ok(offset)) => self.place.offset = u64::try_from(offset).ok(),
            (b"aof-base" | b"aof-preamble", Ok(1)) => log(self.shared, Level::Notice, "RDB is base AOF"),
            _ => {}
        }
        if self.takes_place
            && let Place { db, id: Some(id), offset: Some(offset), .. } = &self.place
        {
            self.takes_place = false;
            crate::replication::sync::restore(self.shared, id, *offset, DbIndex(*db));
        }
    }

    fn expired(&mut self, db: u32, key: &[u8]) {
        // Our replicas may have it still.
        let replication = &self.shared.replication;
        if self.shared.config.load().replicaof.0.is_none() {
            replication.tell_replicas(DbIndex(db), &[b"DEL", key]);
        }
    }

    fn function(&mut self, code: &[u8]) -> Result<(), LoadFault> {
        if let Some(aside) = &mut self.aside {
            aside.push(code.to_vec());
            return Ok(());
        }
        let taken = crate::scripting::load::from_file(self.shared, self.config, code, self.overwrite);
        taken.map_err(|error| {
            let message = error.message();
            let text = String::from_utf8_lossy(&message);
            LoadFault::Stopped(format!("Failed creating the library: {}", text.trim_start_matches("ERR ")))
        })
    }

    fn expects(&mut self, db: u32, keys: u64) {
        let bytes = self.shared.persist.loading.total_bytes.load(Relaxed);
        let most = if bytes == 0 { STREAM_KEYS_MAX } else { bytes / RECORD_MIN };
        // Of all databases together.
        let keys = keys.min(most.saturating_sub(self.believed));
        if !matches!(self.way, Way::Direct(Target::Held(_))) {
            self.believed += keys;
            self.keyspace.reserve(DbIndex(db), usize::try_from(keys).unwrap_or(0));
        }
    }

    fn key(&mut self, db: u32, entry: Entry, note: AccessNote) -> Result<(), LoadFault> {
        let record = match (note, self.access.lfu) {
            (AccessNote::Frequency(frequency), Some(_)) => self.access.record_for_frequency(frequency),
            (AccessNote::IdleSeconds(seconds), None) => self.access.record_for_idle(seconds),
            _ => self.access.initial(),
        };
        let hash = self.keyspace.hash(entry.key());
        self.batch.push(KeyRead { db: DbIndex(db), hash, entry, record });
        let due = self.delay.due(1);
        if self.batch.len() >= BATCH || due.is_some() {
            self.flush()?;
        }
        if let Some(due) = due {
            std::thread::sleep(due);
        }
        Ok(())
    }

    fn empty_key(&mut self, _: u32, key: &[u8]) {
        let name = key.escape_ascii();
        log(self.shared, Level::Notice, format!("Left out, skipping empty key: {name}"));
    }

    fn progress(&mut self, bytes: u64) -> Result<(), LoadFault> {
        if bytes - self.noted >= self.interval {
            self.noted = bytes;
            self.shared.persist.loading.loaded_bytes.store(self.base_offset + bytes, Relaxed);
        }
        Ok(())
    }
}

/// How to load one file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manner {
    pub overwrite: bool,
    /// The file is the base of an AOF: keys whose time has come are loaded, later records may name them.
    pub is_aof_base: bool,
    /// At the start: its place in a stream is ours from then on.
    pub is_start: bool,
    /// Libraries of functions are collected, not put in force.
    pub is_aside: bool,
    /// A stream whose length nobody told.
    pub is_endless: bool,
}

/// Loads from a stream. What stands behind the RDB part is left in what is returned.
pub(super) fn load_stream<R: Read>(
    shared: &Shared,
    config: &Config,
    target: Target<'_, '_>,
    input: R,
    manner: Manner,
    base_offset: u64,
) -> Result<(LoadReport, Buffered<R>), LoadFault> {
    load_placed(shared, config, target, input, manner, base_offset).map(|(report, rest, _)| (report, rest))
}

fn load_placed<R: Read>(
    shared: &Shared,
    config: &Config,
    target: Target<'_, '_>,
    input: R,
    manner: Manner,
    base_offset: u64,
) -> Result<(LoadReport, Buffered<R>, Place), LoadFault> {
    let now_ms = super::save::clock_ms();
    let options = options(shared, config, manner.is_aof_base);
    let mut sink = IntoKeyspace {
        shared,
        config,
        keyspace: target.keyspace(),
        way: Way::Threads(sync_channel(0).0),
        batch: Vec::with_capacity(BATCH),
        access: Access::new(now_ms, crate::pipeline::lfu_settings(config)),
        overwrite: manner.overwrite,
        delay: super::jobs::KeyDelay::new(config.key_load_delay),
        base_offset,
        interval: config.loading_process_events_interval_bytes,
        noted: 0,
        believed: 0,
        place: Place::default(),
        takes_place: manner.is_start,
        aside: manner.is_aside.then(Vec::new),
    };
    let inserters = inserters(shared, config, manner, &target);
    let (report, rest) = if inserters == 0 {
        sink.way = Way::Direct(target);
        let loaded = load(input, &options, &mut sink);
        loaded.and_then(|loaded| sink.flush().map(|()| loaded))?
    } else {
        drop(target);
        load_with(inserters, input, &options, &mut sink)?
    };
    let mut text = format!(
        "Done loading RDB, keys loaded: {}, keys expired: {}, all fields expired hashes: {}",
        report.keys, report.expired, report.expired_hashes
    );
    if report.empty > 0 {
        text.push_str(&format!(", empty keys skipped: {}", report.empty));
    }
    log(shared, Level::Notice, text + ".");
    let mut place = std::mem::take(&mut sink.place);
    place.libraries = sink.aside.take().unwrap_or_default();
    Ok((report, rest, place))
}

/// `keeps_expired`: keys whose time has come are loaded, too.
pub(crate) fn options(shared: &Shared, config: &Config, keeps_expired: bool) -> LoadOptions {
    LoadOptions {
        limits: value_limits(config, shared),
        drop_before_ms: (!keeps_expired).then(super::save::clock_ms),
        relaxed: is_relaxed(config),
        checksum: config.rdbchecksum && !shared.persist.skip_checksum.load(Relaxed),
        databases: shared.keyspace.databases() as u64,
    }
}

/// How many threads put into the keyspace what this one reads; none: this one does.
fn inserters(shared: &Shared, config: &Config, manner: Manner, target: &Target<'_, '_>) -> usize {
    let is_small = !manner.is_endless && shared.persist.loading.total_bytes.load(Relaxed) < ALONE_BYTES;
    if is_small || matches!(target, Target::Held(_)) || config.key_load_delay != 0 {
        return 0;
    }
    usize::try_from(config.io_threads).map_or(0, |threads| threads.saturating_sub(1).min(INSERTERS_MAX))
}

/// Loads with threads beside this one, which reads, checks and unpacks.
fn load_with<R: Read>(
    inserters: usize,
    input: R,
    options: &LoadOptions,
    sink: &mut IntoKeyspace<'_, '_>,
) -> Result<(LoadReport, Buffered<R>), LoadFault> {
    let (sender, receiver) = sync_channel::<Vec<KeyRead>>(QUEUED);
    let receiver = Arc::new(Mutex::new(receiver));
    let (keyspace, overwrite) = (sink.keyspace, sink.overwrite);
    sink.way = Way::Threads(sender);
    std::thread::scope(|scope| {
        let insert = || {
            let receiver = receiver.clone();
            move || {
                let mut target = Target::Shards(keyspace.unlocked());
                loop {
                    let next = receiver.lock().recv();
                    let Ok(mut batch) = next else { return Ok(()) };
                    target.insert(&mut batch, overwrite)?;
                }
            }
        };
        let threads: Vec<_> = (0..inserters).map(|_| scope.spawn(insert())).collect();
        // Whoever fails lets go of it, and with the last one the reader notices.
        drop(receiver);
        let loaded = load(input, options, sink);
        let loaded = loaded.and_then(|loaded| sink.flush().map(|()| loaded));
        sink.way = Way::Threads(sync_channel(0).0);
        let mut fault = None;
        for thread in threads {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => fault = Some(error),
                Err(_) => fault = Some(LoadFault::Stopped("a thread that loads has ended".to_owned())),
            }
        }
        fault.map_or(loaded, Err)
    })
}

/// Loads what a primary sends, keys whose time has come included: that is for the primary to say. Gives the database that
/// the stream has selected, what was read behind the data, and the stream. `bytes`: how long it is, where that is known.
pub(crate) fn from_primary<R: Read>(
    shared: &Arc<Shared>,
    config: &Config,
    target: Target<'_, '_>,
    input: R,
    bytes: Option<u64>,
) -> Result<Taken<R>, String> {
    let is_aside = !std::ptr::eq(target.keyspace(), &raw const shared.keyspace);
    let manner = Manner { is_aof_base: true, is_aside, is_endless: bytes.is_none(), ..Manner::default() };
    let figures = &shared.persist.loading;
    figures.started_s.store(super::save::clock_ms() / 1000, Relaxed);
    figures.loaded_bytes.store(0, Relaxed);
    figures.total_bytes.store(bytes.unwrap_or(0), Relaxed);
    let (report, rest, place) = load_placed(shared, config, target, input, manner, 0).map_err(|fault| {
        explain(shared, &fault);
        fault.to_string()
    })?;
    note(shared, &report);
    let db = shared.keyspace.db(u64::from(place.db)).unwrap_or(DbIndex(0));
    let (rest, input) = rest.into_rest();
    Ok(Taken { db, rest, input, libraries: place.libraries })
}

/// What was read of a primary's data set beside its keys.
pub(crate) struct Taken<R> {
    pub db: DbIndex,
    pub rest: Vec<u8>,
    pub input: R,
    pub libraries: Vec<Vec<u8>>,
}

fn explain(shared: &Shared, fault: &LoadFault) {
    log(shared, Level::Warning, fault.to_string());
    if let LoadFault::Value { offset, error, .. } = fault {
        log(shared, Level::Warning, "--- RDB ERROR DETECTED ---");
        log(shared, Level::Warning, format!("[offset {offset}] {error}"));
    }
    if matches!(fault, LoadFault::Checksum { .. }) {
        log(shared, Level::Warning, "RDB CRC error");
    }
    if fault.is_truncated() {
        log(shared, Level::Warning, "Unexpected EOF reading RDB file");
        log(shared, Level::Warning, "Short read or OOM loading DB. Unrecoverable error, aborting now.");
    }
}

/// What became of loading the RDB file.
enum Outcome {
    Nothing,
    Loaded(LoadReport),
}

fn load_rdb(
    shared: &Shared,
    config: &Config,
    target: Target<'_, '_>,
    manner: Manner,
) -> Result<Outcome, String> {
    let file = match File::open(path(&config.dbfilename)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Outcome::Nothing),
        Err(error) => return Err(format!("Fatal error loading the DB: {}. Exiting.", os_text(&error))),
    };
    let figures = &shared.persist.loading;
    figures.total_bytes.store(file.metadata().map_or(0, |meta| meta.len()), Relaxed);
    match load_stream(shared, config, target, file, manner, 0) {
        Ok((report, _)) => Ok(Outcome::Loaded(report)),
        Err(fault) => {
            explain(shared, &fault);
            let text = match fault {
                LoadFault::Signature | LoadFault::Version(_) => {
                    "Fatal error loading the DB, check server logs. Exiting."
                }
                _ => "Terminating server after rdb file reading failure.",
            };
            Err(text.to_owned())
        }
    }
}

/// Loads what the configuration names. The error is the log's last line before the process must end.
pub fn at_start(shared: &Arc<Shared>) -> Result<(), String> {
    let config = shared.config.load();
    let begun = Instant::now();
    shared.persist.loading.started_s.store(super::save::clock_ms() / 1000, Relaxed);
    if config.appendonly {
        let manifest = super::replay::read_manifest(shared, &config)?;
        if !manifest.is_empty() {
            super::replay::load_all(shared, &config, &manifest, &mut shared.keyspace.unlocked())?;
        }
        shared.persist.aof.files.lock().manifest = manifest;
        let opened = super::aof::open_at_start(shared, &config);
        opened.map_err(|error| format!("Can't open the append-only file: {}", os_text(&error)))?;
        shared.persist.forget_changes(shared);
        return Ok(());
    }
    let manner = Manner { is_start: true, ..Manner::default() };
    let found = load_rdb(shared, &config, Target::Shards(shared.keyspace.unlocked()), manner)?;
    if let Outcome::Loaded(report) = found {
        note(shared, &report);
        let text = format!("DB loaded from disk: {:.3} seconds", begun.elapsed().as_secs_f64());
        log(shared, Level::Notice, text);
    }
    Ok(())
}

/// DEBUG LOADAOF's second half.
pub(crate) fn reload_aof(shared: &Shared, config: &Config, space: &mut Locked<'_>) -> Result<(), String> {
    let Some(own) = shared.persist.shared() else { return Err("nothing to load into".to_owned()) };
    let manifest = if shared.persist.aof.is_on() {
        shared.persist.aof.files.lock().manifest.clone()
    } else {
        // As the reference: what the disk says is what goes on, increments that are gone don't count any more.
        let read = super::replay::read_manifest(shared, config)?;
        shared.persist.aof.files.lock().manifest = read.clone();
        read
    };
    super::replay::load_all(&own, config, &manifest, space)?;
    shared.persist.forget_changes(shared);
    Ok(())
}

pub(super) fn note(shared: &Shared, report: &LoadReport) {
    let figures = &shared.persist.loading;
    figures.keys_loaded.store(report.keys, Relaxed);
    figures.keys_expired.store(report.expired, Relaxed);
}

/// DEBUG RELOAD's second half. Every shard must be held; they stay so.
pub(crate) fn reload(
    shared: &Shared,
    config: &Config,
    space: &mut Locked<'_>,
    manner: Manner,
) -> Result<(), String> {
    match load_rdb(shared, config, Target::Held(space), manner)? {
        Outcome::Nothing => Err("there is no file".to_owned()),
        Outcome::Loaded(report) => {
            note(shared, &report);
            Ok(())
        }
    }
}
