//! The end of the process: a last save where it is wanted, and the refusal to end where that fails.

use super::jobs::JobKind;
use super::{log, save};
use crate::log::Level;
use crate::shared::{Shared, ShutdownOptions};
use kara_keyspace::Locked;
use std::sync::atomic::Ordering::Relaxed;

/// Does what must be done before the end. After `Ok` the process is to end with the locks still held, so that nobody
/// is told of a write that no file has. Every shard must be held.
pub fn prepare(shared: &Shared, space: &Locked<'_>, options: ShutdownOptions) -> Result<(), String> {
    let config = shared.config.load();
    if options.failover && !config.cluster_enabled {
        return Err("ERR SHUTDOWN FAILOVER is only supported in cluster mode.".to_owned());
    }
    log(shared, Level::Notice, "User requested shutdown...");
    if config.appendonly && !shared.loading.load(Relaxed) && !shared.persist.aof.has_base() {
        if options.force {
            log(shared, Level::Warning, "Writing initial AOF. Exit anyway.");
        } else {
            log(shared, Level::Warning, "Writing initial AOF, can't exit");
            return Err("ERR Errors trying to SHUTDOWN. Check logs.".to_owned());
        }
    }
    if let Some(job) = &*shared.persist.job.lock() {
        log(
            shared,
            Level::Warning,
            match job.kind {
                JobKind::Rdb => "There is a child saving an .rdb. Killing it!",
                JobKind::AofRewrite => "There is a child rewriting the AOF. Killing it!",
            },
        );
        job.cancel();
    }
    if !super::aof::finish(shared) && !options.force {
        log(shared, Level::Warning, "The AOF file can't be brought to the disk, can't exit.");
        return Err("ERR Errors trying to SHUTDOWN. Check logs.".to_owned());
    }
    let wanted = options.save.unwrap_or(!config.save.points.is_empty());
    // While loading, memory holds less than the file.
    if wanted && !shared.loading.load(Relaxed) {
        log(shared, Level::Notice, "Saving the final RDB snapshot before exiting.");
        if save::save(shared, &config, space).is_err() {
            if !options.force {
                log(shared, Level::Warning, "Error trying to save the DB, can't exit.");
                return Err("ERR Errors trying to SHUTDOWN. Check logs.".to_owned());
            }
            log(shared, Level::Warning, "Error trying to save the DB. Exiting anyway.");
        }
    }
    super::save::remove_unfinished();
    Ok(())
}
