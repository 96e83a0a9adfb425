//! The data set for replicas: a snapshot that begins at an offset of the stream.

use super::gate;
use crate::log::Level;
use crate::persist::jobs::{begin_as, spawn};
use crate::persist::load;
use crate::shared::Shared;
use kara_base::ids::DbIndex;
use kara_keyspace::Locked;
use kara_persist::rdb::Version;
use kara_persist::rdb::file::TempFile;
use kara_replication::ids::{ReplId, ReplIds};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

/// Where a replica's stream begins that gets this snapshot.
#[derive(Clone, Debug)]
pub struct Start {
    pub id: ReplId,
    pub offset: u64,
}

/// Begins a snapshot of this moment and lets a thread write it to what `open` gives; `done` gets what became of it.
/// `None`: another one is under way. `is_new`: the readers know Valkey 9's format.
pub fn start<W>(
    shared: &Shared,
    is_new: bool,
    open: impl FnOnce(&Start) -> io::Result<W>,
    done: impl FnOnce(io::Result<W>, Start) + Send + 'static,
) -> io::Result<Option<Start>>
where
    W: Write + Send + 'static,
{
    let config = shared.config.load();
    let mut space = shared.keyspace.lock_all();
    if shared.persist.job.lock().is_some() || shared.loading.load(Relaxed) {
        return Ok(None);
    }
    let replication = &shared.replication;
    let start = replication.with(|state| {
        replication.open_log(shared, state, &config);
        if state.primary.is_none() {
            // Its reader hasn't selected anything yet.
            replication.backlog.forget_db();
        }
        Start { id: state.ids.id.clone(), offset: replication.backlog.end() }
    });
    let out = open(&start)?;
    let version = if is_new { Version::Valkey80 } else { Version::Redis11 };
    let begun = begin_as(shared, &config, &mut space, version);
    let at = start.clone();
    spawn(shared, begun, move |shared, begun| done(begun.write(shared, out), at))?;
    Ok(Some(start))
}

/// What a snapshot notes about our place in the stream.
pub(crate) fn notes(shared: &Shared) -> Vec<(&'static str, String)> {
    let replication = &shared.replication;
    let extent = replication.backlog.extent();
    if !extent.active {
        return Vec::new();
    }
    replication.with(|state| {
        // A primary's stream selects anew behind a snapshot; one that is passed on can't.
        let db = if state.primary.is_some() { extent.db.map_or(0, |db| db.0) } else { 0 };
        vec![
            ("repl-stream-db", db.to_string()),
            ("repl-id", state.ids.id.clone()),
            ("repl-offset", extent.end.to_string()),
        ]
    })
}

/// A file beside the data, which vanishes unless it gets its name.
pub fn temp_file(name: &str) -> io::Result<TempFile> {
    TempFile::create(Path::new("."), name, true)
}

/// Replaces all data by those of a primary; clients are told LOADING meanwhile. Gives the database that its stream has
/// selected, and what was read behind the data.
pub fn load_from_primary<R: Read>(
    shared: &Arc<Shared>,
    epoch: u64,
    id: &ReplId,
    offset: u64,
    input: R,
) -> Result<(DbIndex, Vec<u8>, R), String> {
    let config = shared.config.load();
    let replication = &shared.replication;
    {
        let mut space = shared.keyspace.lock_all();
        let mut state = replication.state.lock();
        if replication.epoch() != epoch {
            return Err("The role has changed".to_owned());
        }
        shared.loading.store(true, SeqCst);
        state.resumable = false;
        state.dismiss("the data set is replaced");
        drop(state);
        empty(shared, &mut space);
    }
    let result = load::from_primary(shared, &config, input);
    let space = shared.keyspace.lock_all();
    let mut state = replication.state.lock();
    let current = replication.epoch() == epoch;
    let outcome = match result {
        Ok((db, rest, input)) if current => {
            state.ids = ReplIds::new(id.clone());
            state.resumable = true;
            replication.backlog.activate(config.repl_backlog_size);
            replication.backlog.restart(offset, Some(db));
            Ok((db, rest, input))
        }
        Ok(_) => Err("The role has changed".to_owned()),
        Err(error) => Err(error),
    };
    drop(state);
    if outcome.is_err() {
        // Half a data set is nobody's.
        let mut space = space;
        empty(shared, &mut space);
        replication.backlog.deactivate();
        replication.with(|state| state.ids = ReplIds::new(super::new_id()));
    } else {
        drop(space);
    }
    shared.loading.store(false, SeqCst);
    outcome
}

fn empty(shared: &Shared, space: &mut Locked<'_>) {
    let gone = space.flush(None);
    let count = gone.len() as u64;
    shared.reclaimer.free(Box::new(gone), count);
    shared.scripts.libraries.clear();
    shared.replication.own_keys.clear();
}

/// The link to the primary works now, or not any more.
pub fn set_link_down(shared: &Shared, down: bool) {
    shared.replication.set_gate(gate::LINK_DOWN, down);
}

/// A line for the log.
pub fn log(shared: &Shared, text: &str) {
    shared.host.log(Level::Notice, text);
}
