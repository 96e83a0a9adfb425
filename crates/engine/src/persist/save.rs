//! RDB files: SAVE under all locks, BGSAVE by a snapshot, and when it begins by itself.

use super::jobs::{Begun, JobKind, begin, preface, spawn};
use super::{annotate, changes, log};
use crate::config::{Config, os_text};
use crate::log::Level;
use crate::shared::Shared;
use kara_base::ids::DbIndex;
use kara_keyspace::Locked;
use kara_persist::rdb::Version;
use kara_persist::rdb::encode::{EncodeOptions, Encoder};
use kara_persist::rdb::file::{RdbWriter, TempFile, path, record};
use kara_persist::snapshot::Purpose;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// After a save that failed, the next one by itself begins no earlier, seconds.
const RETRY_S: i64 = 5;
/// Records are written in pieces of this size.
const PIECE: usize = 256 << 10;

fn now_s(now_ms: i64) -> i64 {
    now_ms / 1000
}

/// Unix ms now, where no turn of a loop has read the clock.
pub(crate) fn clock_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Writes the whole data set as records. Every shard must be held.
pub(super) fn write_all<W: Write>(
    shared: &Shared,
    config: &Config,
    space: &Locked<'_>,
    out: W,
    aof_base: bool,
) -> io::Result<W> {
    let now_ms = clock_ms();
    let options = EncodeOptions { version: Version::Valkey80, compress: config.rdbcompression };
    let head = preface(shared, space, now_ms, aof_base);
    let mut writer = RdbWriter::begin(out, Encoder::new(options), config.rdbchecksum, head)?;
    let notes = annotate(config, now_ms);
    let mut encoder = Encoder::new(options);
    let mut delay = super::jobs::KeyDelay::new(config.rdb_key_save_delay);
    for db in 0..shared.keyspace.databases() as u32 {
        for entry in space.iter(DbIndex(db)) {
            record(&mut encoder, entry, notes(entry.lru()))
                .map_err(|_| io::Error::other("a value can't be told in this version"))?;
            if let Some(due) = delay.due(1) {
                std::thread::sleep(due);
            }
            if encoder.out.len() >= PIECE {
                writer.records(db, &encoder.out)?;
                encoder.out.clear();
            }
        }
        if !encoder.out.is_empty() {
            writer.records(db, &encoder.out)?;
            encoder.out.clear();
        }
    }
    writer.finish()
}

fn temp_name() -> String {
    format!("temp-{}.rdb", std::process::id())
}

/// Opens a file of that name, which will get its own when it is whole.
pub(super) fn create(shared: &Shared, incremental_sync: bool, name: &str) -> io::Result<TempFile> {
    let faults = &shared.persist.faults;
    let created =
        faults.at("file-create").and_then(|()| TempFile::create(Path::new("."), name, incremental_sync));
    created.map(|file| file.with_faults(faults.clone())).inspect_err(|error| {
        let dir = std::env::current_dir().unwrap_or_default();
        let text = format!(
            "Failed opening the temp RDB file {name} (in server root dir {}) for saving: {}",
            dir.display(),
            os_text(error)
        );
        log(shared, Level::Warning, text);
    })
}

/// Removes files under way: the process is about to end.
pub fn remove_unfinished() {
    let pid = std::process::id();
    for name in [temp_name(), format!("temp-bg-{pid}.rdb"), format!("temp-rewriteaof-bg-{pid}.aof")] {
        // Mostly there is none.
        let _ = std::fs::remove_file(name);
    }
}

/// SAVE: every shard must be held. The reason of a failure is in the log.
pub(crate) fn save(shared: &Shared, config: &Config, space: &Locked<'_>) -> io::Result<()> {
    let at = changes(shared);
    let result = create(shared, config.rdb_save_incremental_fsync, &temp_name()).and_then(|file| {
        let mut file = write_all(shared, config, space, file, false)?;
        file.flush()?;
        file.sync()?;
        file.rename_to(&path(&config.dbfilename))
    });
    match &result {
        Ok(()) => {
            log(shared, Level::Notice, "DB saved on disk");
            shared.persist.saved(at, now_s(clock_ms()));
            shared.persist.set_bgsave_result(true);
        }
        Err(error) => {
            log(
                shared,
                Level::Warning,
                format!("Write error while saving DB to the disk: {}", os_text(error)),
            );
        }
    }
    result
}

/// BGSAVE: every shard must be held, and no job under way. Nothing here waits for the disk: the file is opened by the
/// thread that writes it, and what fails there is in the log and in INFO.
pub(crate) fn start_bgsave(shared: &Shared, config: &Config, space: &mut Locked<'_>) -> io::Result<()> {
    let now_ms = clock_ms();
    shared.persist.last_try_s.store(now_s(now_ms), Relaxed);
    shared.persist.rdb_scheduled.store(false, Relaxed);
    let begun = begin(shared, config, space, JobKind::Rdb, now_ms);
    let target = path(&config.dbfilename);
    let incremental_sync = config.rdb_save_incremental_fsync;
    spawn(shared, begun, move |shared, begun| {
        let job = begun.job.clone();
        let name = format!("temp-bg-{}.rdb", std::process::id());
        let result = match create(shared, incremental_sync, &name) {
            Ok(file) => write_snapshot(shared, begun, file, &target),
            Err(error) => {
                begun.give_up(shared);
                Err(error)
            }
        };
        let persist = &shared.persist;
        let took = i64::try_from(job.started.elapsed().as_secs()).unwrap_or(i64::MAX);
        persist.last_bgsave_took_s.store(took, Relaxed);
        persist.rdb_last_copied.store(job.collector.copied(), Relaxed);
        match result {
            Ok(()) => {
                log(shared, Level::Notice, "Background saving terminated with success");
                persist.saved(job.changes, now_s(clock_ms()));
                persist.set_bgsave_result(true);
            }
            Err(_) if job.is_cancelled() => {
                log(shared, Level::Warning, "Background saving cancelled");
            }
            Err(error) => {
                log(shared, Level::Warning, format!("Background saving error: {}", os_text(&error)));
                persist.set_bgsave_result(false);
            }
        }
    })
    .inspect_err(|_| shared.persist.set_bgsave_result(false))?;
    log(shared, Level::Notice, format!("Background saving started by pid {}", std::process::id()));
    Ok(())
}

fn write_snapshot(shared: &Arc<Shared>, begun: Begun, file: TempFile, target: &Path) -> io::Result<()> {
    let job = begun.job.clone();
    let mut file = begun.write(shared, file, Purpose::File)?;
    file.flush()?;
    file.sync()?;
    job.commit(|| file.rename_to(target))
}

/// Some times a second, on one worker: what has to begin begins.
pub(crate) fn cron(shared: &Shared, config: &Config, now_ms: i64) {
    let persist = &shared.persist;
    // A slow script's locks are nothing to wait for here.
    if shared.loading.load(Relaxed)
        || shared.scripts.is_busy()
        || super::aof::cron(shared, config, now_ms)
        || persist.job.lock().is_some()
    {
        return;
    }
    let now_s = now_s(now_ms);
    let may_retry =
        persist.last_bgsave_ok.load(Relaxed) || now_s - persist.last_try_s.load(Relaxed) > RETRY_S;
    if !may_retry {
        return;
    }
    let dirty = persist.dirty(shared);
    let since = now_s - persist.last_save_s.load(Relaxed);
    let due =
        config.save.points.iter().find(|p| dirty >= i64::from(p.changes) && dirty > 0 && since > p.seconds);
    if let Some(point) = due {
        let text = format!("{} changes in {} seconds. Saving...", point.changes, point.seconds);
        log(shared, Level::Notice, text);
    }
    if due.is_some() || persist.rdb_scheduled.load(Relaxed) {
        // While a slow script holds the locks, the next tick tries again. What fails is in the log and in INFO.
        let mut space = shared.keyspace.unlocked();
        if space.try_relock_all() {
            let _ = start_bgsave(shared, config, &mut space);
        }
    }
}
