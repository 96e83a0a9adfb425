//! The append-only file in service: switching it on and off, committing before answers, rewriting, errors.

use super::jobs::{self, JobKind, begin};
use super::log;
use super::save::{clock_ms, create};
use crate::config::{AppendFsync, Config, os_text};
use crate::log::Level;
use crate::shared::Shared;
use kara_keyspace::{JournalSink, Locked};
use kara_persist::aof::log::{AofLog, open};
use kara_persist::aof::manifest::{Manifest, make_dir};
use kara_persist::rdb::file::path;
use kara_persist::snapshot::{Form, Purpose};
use parking_lot::{Mutex, RwLock};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A bit of `Persist::stopped`.
pub const STOPPED_BY_AOF: u8 = 2;
/// After so many rewrites that failed one after the other, the next ones wait.
const FREE_FAILURES: u64 = 3;
/// At most that long, minutes.
const DELAY_MAX_MINUTES: i64 = 60;
/// `appendfsync everysec`.
const SYNC_PERIOD: Duration = Duration::from_secs(1);

/// What is known about the log.
#[derive(Default)]
pub struct Aof {
    /// Records are being appended: replies may have to wait for them.
    active: AtomicBool,
    log: RwLock<Option<Arc<AofLog>>>,
    pub(super) files: Mutex<Files>,
    pub rewrite_scheduled: AtomicBool,
    pub rewrites: AtomicU64,
    pub rewrite_failures: AtomicU64,
    next_try_s: AtomicI64,
    /// It stands in the log that rewrites have to wait.
    limit_told: AtomicBool,
    pub last_rewrite_ok: AtomicBool,
    pub last_rewrite_took_s: AtomicI64,
    pub last_write_ok: AtomicBool,
    last_error: Mutex<String>,
    /// Bytes of all files but the one that is appended to.
    settled_bytes: AtomicU64,
    pub base_bytes: AtomicU64,
    syncing: AtomicBool,
    /// DEBUG AOF-FLUSH-SLEEP: microseconds before each write.
    pub write_delay_us: AtomicU64,
    pub delayed_syncs: AtomicU64,
    /// Where the last log ended that was switched off.
    ended: AtomicU64,
}

/// The files of the log.
#[derive(Default)]
pub(super) struct Files {
    pub manifest: Manifest,
    /// The manifest on the disk lists the increment that is appended to: a base has been written since switching on.
    pub listed: bool,
}

impl std::fmt::Debug for Aof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Aof").field("active", &self.active).finish_non_exhaustive()
    }
}

impl Aof {
    pub(super) fn new() -> Self {
        let aof = Aof::default();
        aof.last_rewrite_ok.store(true, Relaxed);
        aof.last_write_ok.store(true, Relaxed);
        aof.last_rewrite_took_s.store(-1, Relaxed);
        aof
    }

    /// The log, where it is on.
    pub fn log(&self) -> Option<Arc<AofLog>> {
        self.log.read().clone()
    }

    pub fn is_on(&self) -> bool {
        self.active.load(Relaxed)
    }

    /// Whether answers must wait for [`commit`].
    #[inline]
    pub fn holds_replies(&self, config: &Config) -> bool {
        self.is_on()
            && self
                .log
                .read()
                .as_ref()
                .is_some_and(|log| log.is_behind(config.appendfsync == AppendFsync::Always))
    }

    /// The offset behind all records so far.
    pub fn appended(&self) -> u64 {
        self.log().map_or_else(|| self.ended.load(Relaxed), |log| log.offset().0)
    }

    /// The base of the log stands on the disk.
    pub(super) fn has_base(&self) -> bool {
        self.files.lock().listed
    }

    /// The offset up to which a restart would find everything; `None` while the log has no base on the disk.
    pub fn durable(&self) -> Option<u64> {
        let log = self.log()?;
        self.files.try_lock()?.listed.then(|| log.synced())
    }

    /// Bytes of all files.
    pub fn current_size(&self) -> u64 {
        self.settled_bytes.load(Relaxed) + self.log().map_or(0, |log| log.file_size_about())
    }

    /// Why writes are refused, for the error's text.
    pub fn last_error(&self) -> String {
        self.last_error.lock().clone()
    }
}

fn dir(config: &Config) -> PathBuf {
    path(&config.appenddirname)
}

fn filename(config: &Config) -> String {
    String::from_utf8_lossy(&config.appendfilename).into_owned()
}

/// Writes what was journaled, as durably as `appendfsync` asks for. True if answers may go out.
pub fn commit(shared: &Shared, config: &Config) -> bool {
    let aof = &shared.persist.aof;
    let Some(log) = aof.log() else { return true };
    let durable = config.appendfsync == AppendFsync::Always;
    let delay_us = aof.write_delay_us.load(Relaxed);
    if delay_us > 0 {
        std::thread::sleep(Duration::from_micros(delay_us));
    }
    let result = log.commit(durable);
    note_write(shared, &result);
    // Who asked for less than `always` is answered all the same, as by the reference; the next write is refused.
    result.is_ok() || !durable
}

/// Remembers how writing went, and refuses writes until it works again.
fn note_write(shared: &Shared, result: &io::Result<()>) {
    let aof = &shared.persist.aof;
    match result {
        Ok(()) => {
            if !aof.last_write_ok.swap(true, Relaxed) {
                shared.persist.stopped.fetch_and(!STOPPED_BY_AOF, Relaxed);
                log(shared, Level::Warning, "AOF write error looks solved. The server can write again.");
            }
        }
        Err(error) => {
            let text = os_text(error);
            aof.last_error.lock().clone_from(&text);
            shared.persist.stopped.fetch_or(STOPPED_BY_AOF, Relaxed);
            if aof.last_write_ok.swap(false, Relaxed) {
                log(shared, Level::Warning, format!("Error writing to the AOF file: {text}"));
            }
        }
    }
}

/// The thread of `appendfsync everysec`; one for the process, started with the first log.
fn start_syncing(shared: &Shared) -> io::Result<()> {
    if shared.persist.aof.syncing.swap(true, Relaxed) {
        return Ok(());
    }
    let Some(own) = shared.persist.shared() else { return Ok(()) };
    let own = Arc::downgrade(&own);
    let cpus = shared.config.load().bio_cpulist.clone();
    std::thread::Builder::new().name("aof-sync".into()).spawn(move || {
        kara_base::cpus::keep_to(&cpus);
        let mut begun = Instant::now();
        loop {
            // A second from beginning to beginning: what was written during one fsync is on the disk at the next one's end,
            // and that is within two seconds while none takes longer than one.
            std::thread::sleep(SYNC_PERIOD.saturating_sub(begun.elapsed()));
            begun = Instant::now();
            let Some(shared) = own.upgrade() else { return };
            let config = shared.config.load();
            let rewriting = config.no_appendfsync_on_rewrite && shared.persist.job.lock().is_some();
            if config.appendfsync != AppendFsync::EverySec || rewriting {
                continue;
            }
            if let Some(log) = shared.persist.aof.log() {
                let result = log.commit(false);
                let synced = log.sync();
                if synced.is_err() {
                    // The kernel may have dropped what it couldn't write and call the next fsync a success: everything is
                    // written anew.
                    shared.persist.aof.rewrite_scheduled.store(true, Relaxed);
                }
                note_write(&shared, &result.and(synced));
            }
        }
    })?;
    Ok(())
}

/// The next increment, created, and listed on the disk where a base is.
struct Prepared {
    file: std::fs::File,
    seq: u64,
    /// The manifest without it.
    before: Manifest,
}

fn prepare(shared: &Shared, config: &Config) -> io::Result<Prepared> {
    let dir = dir(config);
    make_dir(&dir)?;
    let mut files = shared.persist.aof.files.lock();
    let mut manifest = files.manifest.clone();
    let incr = manifest.next_incr(&filename(config));
    let before = files.manifest.clone();
    let name = dir.join(&incr.name);
    // A leftover of that name is in no manifest.
    let _ = std::fs::remove_file(&name);
    let file = open(&name)?;
    let faults = &shared.persist.faults;
    faults.at("incr-created")?;
    if files.listed {
        faults.at("manifest")?;
        manifest.write(&dir, &filename(config))?;
    }
    files.manifest = manifest;
    Ok(Prepared { file, seq: incr.seq, before })
}

/// Nothing will be appended to the increment: the one before stays the last. Should that not get to the disk, an empty
/// file is listed behind the one that is written to, which loading knows how to take.
fn unprepare(shared: &Shared, config: &Config, before: Manifest) {
    let mut files = shared.persist.aof.files.lock();
    if files.listed {
        let _ = before.write(&dir(config), &filename(config));
    }
    files.manifest = before;
}

/// BGREWRITEAOF. `space`: nothing or everything is held; everything is held afterwards. No job may be under way.
pub(crate) fn start_rewrite(shared: &Shared, config: &Config, space: &mut Locked<'_>) -> io::Result<()> {
    let aof = &shared.persist.aof;
    aof.rewrite_scheduled.store(false, Relaxed);
    let result = begin_rewrite(shared, config, space);
    if let Err(error) = &result {
        log(
            shared,
            Level::Warning,
            format!("Can't rewrite append only file in background: {}", os_text(error)),
        );
        rewrite_failed(shared);
    }
    result
}

fn begin_rewrite(shared: &Shared, config: &Config, space: &mut Locked<'_>) -> io::Result<()> {
    let aof = &shared.persist.aof;
    let name = format!("temp-rewriteaof-bg-{}.aof", std::process::id());
    let temp = create(shared, config.aof_rewrite_incremental_fsync, &name)?;
    let logging = config.appendonly && !shared.loading.load(Relaxed);
    // What can't be written now couldn't be under the locks either.
    if let Some(log) = aof.log() {
        log.commit(config.appendfsync == AppendFsync::Always)?;
    }
    // All that may take time comes before the locks.
    let prepared =
        if logging { Some(prepare(shared, config)?) } else { make_dir(&dir(config)).map(|()| None)? };
    space.relock_all();
    let mut old = None;
    let seq = prepared.as_ref().map(|prepared| prepared.seq);
    let before = prepared.as_ref().map(|prepared| prepared.before.clone());
    if let Some(prepared) = prepared {
        let mut slot = aof.log.write();
        match &*slot {
            Some(log) => {
                let bytes = log.file_size();
                match log.switch(prepared.file, 0, config.appendfsync == AppendFsync::Always) {
                    Ok(file) => old = Some(file),
                    Err(error) => {
                        drop(slot);
                        unprepare(shared, config, prepared.before);
                        return Err(error);
                    }
                }
                aof.settled_bytes.fetch_add(bytes, Relaxed);
            }
            None => {
                let log = AofLog::new(prepared.file, 0, config.aof_timestamp_enabled);
                let log = log.counting_from(aof.ended.load(Relaxed));
                let log = Arc::new(log.with_faults(shared.persist.faults.clone()));
                shared.keyspace.journal().attach(log.clone());
                *slot = Some(log);
                aof.settled_bytes.store(0, Relaxed);
                aof.active.store(true, Relaxed);
            }
        }
    }
    let begun = begin(shared, config, space, JobKind::AofRewrite, clock_ms());
    let extension = if begun.form == Form::Commands { "aof" } else { "rdb" };
    let config = shared.config.load();
    jobs::spawn(shared, begun, move |shared, begun| {
        let job = begun.job.clone();
        let result = (|| {
            if let Some(old) = old {
                old.sync_data()?;
            }
            let mut file = begun.write(shared, temp, Purpose::File)?;
            file.flush()?;
            file.sync()?;
            job.commit(|| {
                let mut files = shared.persist.aof.files.lock();
                let dir = dir(&config);
                let mut manifest = files.manifest.clone();
                let base = manifest.next_base(&filename(&config), extension);
                manifest.retire_before(seq.unwrap_or(u64::MAX));
                let bytes = file.size();
                let faults = &shared.persist.faults;
                file.rename_to(&dir.join(&base.name))?;
                faults.at("base-renamed")?;
                faults.at("manifest")?;
                manifest.write(&dir, &filename(&config))?;
                // From here on the new files are in force, whatever becomes of the old ones.
                if !shared.config.load().aof_disable_auto_gc {
                    manifest.delete_history(&dir);
                }
                files.manifest = manifest;
                files.listed = true;
                let aof = &shared.persist.aof;
                aof.settled_bytes.store(bytes, Relaxed);
                aof.base_bytes.store(bytes + aof.log().map_or(0, |log| log.file_size()), Relaxed);
                // In force already: what can't be listed any shorter is listed longer.
                if faults.at("base-listed").is_err() {
                    return Ok(());
                }
                files.manifest.write(&dir, &filename(&config))
            })
        })();
        let aof = &shared.persist.aof;
        let took = i64::try_from(job.started.elapsed().as_secs()).unwrap_or(i64::MAX);
        aof.last_rewrite_took_s.store(took, Relaxed);
        shared.persist.aof_last_copied.store(job.collector.copied(), Relaxed);
        if let (Err(_), Some(before)) = (&result, before) {
            forget_unlisted(shared, &config, before);
        }
        match result {
            Ok(()) => {
                aof.rewrite_failures.store(0, Relaxed);
                aof.next_try_s.store(0, Relaxed);
                aof.last_rewrite_ok.store(true, Relaxed);
                log(shared, Level::Notice, "Background AOF rewrite terminated with success");
                log(shared, Level::Notice, "Background AOF rewrite finished successfully");
            }
            Err(_) if job.is_cancelled() => {
                log(shared, Level::Warning, "Background AOF rewrite terminated by signal 10");
            }
            Err(error) => {
                log(shared, Level::Warning, format!("Background AOF rewrite error: {}", os_text(&error)));
                rewrite_failed(shared);
            }
        }
    })?;
    aof.rewrites.fetch_add(1, Relaxed);
    let pid = std::process::id();
    log(shared, Level::Notice, format!("Background append only file rewriting started by pid {pid}"));
    Ok(())
}

/// The first rewrite since switching on has failed: without its base the increment is of no use. What is appended until
/// the next rewrite begins goes the file's way.
fn forget_unlisted(shared: &Shared, config: &Config, before: Manifest) {
    let mut files = shared.persist.aof.files.lock();
    if files.listed {
        return;
    }
    if let Some(incr) = files.manifest.incrs.last().filter(|last| !before.incrs.contains(last)) {
        let name = &incr.name;
        log(
            shared,
            Level::Notice,
            format!("Removing the temp incr aof file {name}: there is no base for it"),
        );
        // A leftover of that name is removed before it would be appended to.
        let _ = std::fs::remove_file(dir(config).join(name));
    }
    files.manifest = before;
}

fn rewrite_failed(shared: &Shared) {
    let aof = &shared.persist.aof;
    aof.limit_told.store(false, Relaxed);
    aof.last_rewrite_ok.store(false, Relaxed);
    let failures = aof.rewrite_failures.fetch_add(1, Relaxed) + 1;
    let minutes = match failures.checked_sub(FREE_FAILURES) {
        None => 0,
        Some(more) => (1i64 << more.min(10)).min(DELAY_MAX_MINUTES),
    };
    aof.next_try_s.store(clock_ms() / 1000 + minutes * 60, Relaxed);
}

/// CONFIG SET appendonly yes: the log begins with a rewrite, at once, or when the job or transaction under way is over.
pub(crate) fn switch_on(
    shared: &Shared,
    config: &Config,
    space: &mut Locked<'_>,
    in_transaction: bool,
) -> io::Result<()> {
    start_syncing(shared)?;
    shared.persist.aof.files.lock().listed = false;
    let busy = shared.persist.job.lock().clone();
    if busy.is_none() && !in_transaction {
        return start_rewrite(shared, config, space);
    }
    if let Some(job) = busy.filter(|job| job.kind == JobKind::AofRewrite) {
        job.cancel();
    }
    shared.persist.aof.rewrite_scheduled.store(true, Relaxed);
    log(shared, Level::Notice, "AOF background was scheduled because there's already something under way.");
    Ok(())
}

/// CONFIG SET appendonly no. Every shard must be held.
pub(crate) fn switch_off(shared: &Shared) {
    let aof = &shared.persist.aof;
    aof.rewrite_scheduled.store(false, Relaxed);
    if let Some(job) = &*shared.persist.job.lock()
        && job.kind == JobKind::AofRewrite
    {
        super::log(shared, Level::Notice, "Killing AOF child");
        job.cancel();
    }
    let Some(log) = aof.log.write().take() else { return };
    aof.active.store(false, Relaxed);
    aof.ended.store(log.offset().0, Relaxed);
    let result = log.commit(true);
    note_write(shared, &result);
    // Whatever went wrong, nobody waits for this log any more.
    shared.persist.stopped.fetch_and(!STOPPED_BY_AOF, Relaxed);
    aof.last_write_ok.store(true, Relaxed);
    let sink: Arc<dyn JournalSink> = log;
    shared.keyspace.journal().detach(&sink);
}

/// Files that only history lists go, unless `aof-disable-auto-gc` keeps them.
pub(crate) fn drop_history(shared: &Shared, config: &Config) {
    let mut files = shared.persist.aof.files.lock();
    if config.aof_disable_auto_gc || !files.manifest.has_history() {
        return;
    }
    let dir = dir(config);
    files.manifest.delete_history(&dir);
    if let Err(error) = files.manifest.write(&dir, &filename(config)) {
        // The manifest lists files that are gone and that nobody loads.
        log(shared, Level::Warning, format!("Can't shorten the AOF manifest: {}", os_text(&error)));
    }
}

/// Appending goes on where loading ended: the last increment, or a first one beside an empty base.
pub(super) fn open_at_start(shared: &Shared, config: &Config) -> io::Result<()> {
    let aof = &shared.persist.aof;
    let (dir, filename) = (dir(config), filename(config));
    make_dir(&dir)?;
    let mut space = shared.keyspace.lock_all();
    let mut files = aof.files.lock();
    if files.manifest.base.is_none() && files.manifest.incrs.is_empty() {
        let extension = if config.aof_use_rdb_preamble { "rdb" } else { "aof" };
        let base = files.manifest.next_base(&filename, extension);
        log(shared, Level::Notice, format!("Creating AOF base file {} on server start", base.name));
        let temp = create(shared, false, &format!("temp-rewriteaof-{}.aof", std::process::id()))?;
        // Nothing is loaded: as commands, nothing at all.
        let mut temp = match config.aof_use_rdb_preamble {
            true => super::save::write_all(shared, config, &space, temp, true)?,
            false => temp,
        };
        temp.flush()?;
        temp.sync()?;
        temp.rename_to(&dir.join(&base.name))?;
    }
    let incr = match files.manifest.incrs.last() {
        Some(last) => last.clone(),
        None => {
            let incr = files.manifest.next_incr(&filename);
            log(shared, Level::Notice, format!("Creating AOF incr file {} on server start", incr.name));
            incr
        }
    };
    let file = open(&dir.join(&incr.name))?;
    let size = file.metadata()?.len();
    if !config.aof_disable_auto_gc {
        files.manifest.delete_history(&dir);
    }
    files.manifest.write(&dir, &filename)?;
    files.listed = true;
    let bytes = |name: &str| std::fs::metadata(dir.join(name)).map_or(0, |meta| meta.len());
    let settled = files.manifest.in_order().filter(|f| f.name != incr.name).map(|f| bytes(&f.name)).sum();
    drop(files);
    aof.settled_bytes.store(settled, Relaxed);
    aof.base_bytes.store(settled + size, Relaxed);
    let log = AofLog::new(file, size, config.aof_timestamp_enabled);
    let log = Arc::new(log.with_faults(shared.persist.faults.clone()));
    shared.keyspace.journal().attach(log.clone());
    *aof.log.write() = Some(log);
    aof.active.store(true, Relaxed);
    space.release();
    start_syncing(shared)
}

/// Some times a second, on one worker: writes what no answer waits for, and begins rewrites. True if one began.
pub(super) fn cron(shared: &Shared, config: &Config, now_ms: i64) -> bool {
    let aof = &shared.persist.aof;
    if let Some(log) = aof.log() {
        log.set_timestamps(config.aof_timestamp_enabled);
        if log.is_behind(config.appendfsync == AppendFsync::Always) || !aof.last_write_ok.load(Relaxed) {
            commit(shared, config);
        }
    }
    if shared.persist.job.lock().is_some() {
        return false;
    }
    let limited = now_ms / 1000 < aof.next_try_s.load(Relaxed);
    let begun = Instant::now();
    let due = aof.rewrite_scheduled.load(Relaxed)
        || is_grown(shared, config, limited)
        || is_unlisted(shared, config);
    if due && limited && !aof.limit_told.swap(true, Relaxed) {
        let minutes = (aof.next_try_s.load(Relaxed) - now_ms / 1000 + 59) / 60;
        let text = format!(
            "AOF rewrites have failed repeatedly and triggered the limit: the next one in {minutes} min"
        );
        log(shared, Level::Warning, text);
    }
    if due && !limited {
        // What fails is in the log and in INFO.
        let _ = start_rewrite(shared, config, &mut shared.keyspace.unlocked());
        log(shared, Level::Debug, format!("The rewrite began within {} us", begun.elapsed().as_micros()));
    }
    due && !limited
}

/// Switched on, but the base is still missing: the first rewrite failed.
fn is_unlisted(shared: &Shared, config: &Config) -> bool {
    // Held where files are under way: then there is nothing to begin.
    config.appendonly && shared.persist.aof.files.try_lock().is_some_and(|files| !files.listed)
}

fn is_grown(shared: &Shared, config: &Config, limited: bool) -> bool {
    let aof = &shared.persist.aof;
    if !aof.is_on() || config.auto_aof_rewrite_percentage == 0 {
        return false;
    }
    let (size, base) = (aof.current_size(), aof.base_bytes.load(Relaxed).max(1));
    let growth = (size.saturating_mul(100) / base).saturating_sub(100);
    let grown = size > config.auto_aof_rewrite_min_size && growth >= config.auto_aof_rewrite_percentage;
    if grown && !limited {
        log(shared, Level::Notice, format!("Starting automatic rewriting of AOF on {growth}% growth"));
    }
    grown
}

/// The last words of a log before the process ends. False: they are not on the disk.
pub(super) fn finish(shared: &Shared) -> bool {
    let Some(log) = shared.persist.aof.log() else { return true };
    super::log(shared, Level::Notice, "Calling fsync() on the AOF file.");
    let result = log.commit(true).and_then(|()| log.sync());
    note_write(shared, &result);
    result.is_ok()
}
