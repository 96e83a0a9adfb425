//! The data set for replicas: a snapshot that begins at an offset of the stream.

use super::gate;
use super::peek::Peeked;
use crate::config::Config;
use crate::log::Level;
use crate::outbox::Outbox;
use crate::persist::aof;
use crate::persist::jobs::{begin_as, spawn};
use crate::persist::load::{self, Target};
use crate::shared::Shared;
use kara_base::ids::DbIndex;
use kara_keyspace::{Keyspace, KeyspaceOptions, Locked};
use kara_persist::rdb::Version;
use kara_persist::rdb::file::TempFile;
use kara_persist::snapshot::Purpose;
use kara_replication::ids::{ReplId, ReplIds, is_id};
use kara_replication::replica::Filter;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

/// Where a replica's stream begins that gets this snapshot.
#[derive(Clone, Debug)]
pub struct Start {
    pub id: ReplId,
    pub offset: u64,
    /// What the stream has selected there, where that is known.
    pub db: Option<DbIndex>,
}

/// What the readers of a snapshot understand and want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// They know Valkey 9's format.
    pub is_new: bool,
    pub filter: Filter,
}

/// Begins a snapshot of this moment and lets a thread write it to what `open` gives; `done` gets what became of it.
/// `None`: another one is under way.
pub fn start<W>(
    shared: &Shared,
    wanted: Wanted,
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
        let extent = replication.backlog.extent();
        Start { id: state.ids.id.clone(), offset: extent.end, db: extent.db }
    });
    let out = open(&start)?;
    let version = if wanted.is_new { Version::Valkey80 } else { Version::Redis11 };
    let begun = begin_as(shared, &config, &mut space, version, wanted.filter);
    let at = start.clone();
    spawn(shared, begun, move |shared, begun| {
        done(begun.write(shared, out, Purpose::Replicas), at);
    })?;
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

/// How a primary's data take the place of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Ours are dropped first; clients are told LOADING.
    Replace,
    /// Ours stay until the new ones are all there, and after a failure. Where both are of one history, clients see
    /// them meanwhile; else they are told LOADING.
    Aside,
}

/// Data of that history and offset, for the role since `epoch`.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    pub epoch: u64,
    pub id: &'a ReplId,
    pub offset: u64,
    /// What the stream has selected there, where that is known beside the data.
    pub db: Option<DbIndex>,
    /// How long the data are, where that was told.
    pub bytes: Option<u64>,
}

/// Replaces all data by those of a primary. `whole` judges, once they are read, whether nothing is missing. Gives the
/// database that its stream has selected, and what was read behind the data.
pub fn load_from_primary<R: Read>(
    shared: &Arc<Shared>,
    what: Incoming<'_>,
    manner: Manner,
    input: R,
    whole: impl FnOnce(Vec<u8>, R) -> Result<Vec<u8>, String>,
) -> Result<(DbIndex, Vec<u8>), String> {
    let mut input = Peeked::new(input);
    if let Some(keys) = keys_at_stake(shared, what)
        && input.is_empty(&load::options(shared, &shared.config.load(), true))
    {
        shared.replication.with(|state| {
            if let Some(primary) = &mut state.primary {
                primary.refusals = primary.refusals.saturating_add(1);
            }
        });
        return Err(format!(
            "The primary has come back with another history and without a key: the {keys} keys that are here are kept. \
             REPLICAOF NO ONE goes on with them, and REPLICAOF with its address behind that drops them"
        ));
    }
    let whole = |mut rest: Vec<u8>, input: Peeked<R>| {
        let (more, input) = input.into_rest();
        rest.extend_from_slice(&more);
        whole(rest, input)
    };
    match manner {
        Manner::Replace => replace(shared, what, input, whole),
        Manner::Aside => load_aside(shared, what, input, whole),
    }
}

/// How many keys we have of a primary that we have followed since it was chosen, where it sends another history now: it
/// was started again, and if it kept nothing, ours are all that is left.
fn keys_at_stake(shared: &Shared, what: Incoming<'_>) -> Option<u64> {
    let is_other = shared.replication.with(|state| {
        let worked = state.primary.as_ref().is_some_and(|primary| primary.worked);
        worked && state.resumable && state.ids.id != *what.id
    });
    let count = |db| shared.keyspace.stats(DbIndex(db)).keys as u64;
    let keys = (0..shared.keyspace.databases() as u32).map(count).sum();
    (is_other && keys > 0).then_some(keys)
}

/// Why our replicas must come anew.
const REPLACED: &str = "Connection with replica ends: the data set is replaced";

fn still(shared: &Shared, epoch: u64) -> Result<(), String> {
    if shared.replication.epoch() == epoch { Ok(()) } else { Err("The role has changed".to_owned()) }
}

/// What was begun of the old data is of no use any more. Every shard must be held.
fn give_up_jobs(shared: &Shared) {
    if let Some(job) = &*shared.persist.job.lock() {
        job.cancel();
    }
}

fn replace<R: Read>(
    shared: &Arc<Shared>,
    what: Incoming<'_>,
    input: R,
    whole: impl FnOnce(Vec<u8>, R) -> Result<Vec<u8>, String>,
) -> Result<(DbIndex, Vec<u8>), String> {
    let config = shared.config.load();
    let replication = &shared.replication;
    let before;
    {
        let mut space = shared.keyspace.lock_all();
        let mut state = replication.state.lock();
        still(shared, what.epoch)?;
        shared.loading.store(true, SeqCst);
        state.resumable = false;
        state.dismiss(REPLACED, replication.backlog.end());
        drop(state);
        give_up_jobs(shared);
        aof::switch_off(shared);
        before = keys(shared, &space);
        empty(shared, &mut space);
    }
    let target = Target::Shards(shared.keyspace.unlocked());
    let result = load::from_primary(shared, &config, target, input, what.bytes)
        .and_then(|taken| Ok((taken.db, whole(taken.rest, taken.input)?)));
    let mut space = shared.keyspace.lock_all();
    let outcome =
        result.and_then(|(db, rest)| still(shared, what.epoch).map(|()| (what.db.unwrap_or(db), rest)));
    match &outcome {
        Ok((db, _)) => {
            settle(shared, &config, what, *db);
            warn_of_emptiness(shared, before, keys(shared, &space));
        }
        Err(_) => {
            // Half a data set is nobody's.
            empty(shared, &mut space);
            replication.backlog.deactivate();
            replication.with(|state| state.ids = ReplIds::new(super::new_id()));
        }
    }
    shared.loading.store(false, SeqCst);
    log_again(shared, &mut space);
    outcome
}

fn keys(shared: &Shared, space: &Locked<'_>) -> u64 {
    (0..shared.keyspace.databases() as u32).map(|db| space.dbsize(DbIndex(db)) as u64).sum()
}

/// A primary that keeps nothing on disk and was started again takes its replicas' data along: that shall not go unseen.
fn warn_of_emptiness(shared: &Shared, before: u64, after: u64) {
    if after == 0 && before > 0 {
        let text = format!("The primary's data set is empty: {before} keys that were here are dropped");
        shared.host.log(Level::Warning, &text);
    }
}

/// The data are those of a history from now on. Every shard must be held.
fn settle(shared: &Shared, config: &Config, what: Incoming<'_>, db: DbIndex) {
    let replication = &shared.replication;
    let mut state = replication.state.lock();
    state.ids = ReplIds::new(what.id.clone());
    state.resumable = true;
    state.marks.clear();
    state.durable = None;
    replication.backlog.activate(config.repl_backlog_size);
    replication.backlog.restart(what.offset, Some(db));
}

/// The append-only file begins anew with the data as they are. Every shard must be held.
fn log_again(shared: &Shared, space: &mut Locked<'_>) {
    let config = shared.config.load();
    if config.appendonly && !shared.persist.aof.is_on() {
        if let Err(error) = aof::switch_on(shared, &config, space, false) {
            shared.host.log(Level::Warning, &format!("Can't begin the append-only file anew: {error}"));
        }
        shared.replication.mark(shared);
    }
}

fn load_aside<R: Read>(
    shared: &Arc<Shared>,
    what: Incoming<'_>,
    input: R,
    whole: impl FnOnce(Vec<u8>, R) -> Result<Vec<u8>, String>,
) -> Result<(DbIndex, Vec<u8>), String> {
    let config = shared.config.load();
    let replication = &shared.replication;
    let keyspace = &shared.keyspace;
    let aside = Keyspace::new(KeyspaceOptions {
        shards: keyspace.shards(),
        databases: keyspace.databases(),
        seed: keyspace.seed(),
    });
    let of_one_history = {
        let _space = keyspace.lock_all();
        let state = replication.state.lock();
        still(shared, what.epoch)?;
        let of_one_history = state.ids.id == *what.id;
        replication.set_gate(gate::ASYNC_LOADING, of_one_history);
        shared.loading.store(!of_one_history, SeqCst);
        of_one_history
    };
    let name = if of_one_history { "async-loading" } else { "loading" };
    log(shared, &format!("PRIMARY <-> REPLICA sync: Loading DB in memory beside the old one ({name})"));
    let mut libraries = Vec::new();
    let result = load::from_primary(shared, &config, Target::Shards(aside.unlocked()), input, what.bytes)
        .and_then(|taken| {
            libraries = taken.libraries;
            Ok((taken.db, whole(taken.rest, taken.input)?))
        });
    let mut space = keyspace.lock_all();
    let outcome =
        result.and_then(|(db, rest)| still(shared, what.epoch).map(|()| (what.db.unwrap_or(db), rest)));
    if let Ok((db, _)) = &outcome {
        give_up_jobs(shared);
        aof::switch_off(shared);
        replication.state.lock().dismiss(REPLACED, replication.backlog.end());
        let before = keys(shared, &space);
        space.exchange(&mut aside.lock_all());
        shared.scripts.libraries.clear();
        for code in &libraries {
            if let Err(error) = crate::scripting::load::from_file(shared, &config, code, true) {
                let text = String::from_utf8_lossy(&error.message()).into_owned();
                shared.host.log(Level::Warning, &format!("A library of the primary can't be loaded: {text}"));
            }
        }
        warn_of_emptiness(shared, before, keys(shared, &space));
        tell_of_change(shared);
        settle(shared, &config, what, *db);
    }
    replication.set_gate(gate::ASYNC_LOADING, false);
    shared.loading.store(false, SeqCst);
    log_again(shared, &mut space);
    drop(space);
    let keys = (0..aside.databases() as u32).map(|db| aside.stats(DbIndex(db)).keys as u64).sum();
    shared.reclaimer.free(Box::new(aside), keys);
    outcome
}

/// Whoever watches or tracks keys hears that none is what it was.
fn tell_of_change(shared: &Shared) {
    shared.watches.flushed(None);
    let mut outbox = Outbox::default();
    shared.tracking.flushed(&shared.clients, None, &mut outbox);
    for (worker, message) in outbox.drain() {
        shared.host.post(worker, message);
    }
}

fn empty(shared: &Shared, space: &mut Locked<'_>) {
    let gone = space.flush(None);
    let count = gone.len() as u64;
    if shared.config.load().replica_lazy_flush {
        shared.reclaimer.free(Box::new(gone), count);
    } else {
        drop(gone);
    }
    shared.scripts.libraries.clear();
    shared.replication.own_keys.clear();
    tell_of_change(shared);
}

/// What was loaded at the start is of that place of a stream: a replica's data go on from there, and a primary's
/// replicas may.
pub(crate) fn restore(shared: &Shared, id: &str, offset: u64, db: DbIndex) {
    if !is_id(id.as_bytes()) || offset > u64::MAX / 2 {
        return;
    }
    let config = shared.config.load();
    let _space = shared.keyspace.lock_all();
    let replication = &shared.replication;
    let mut state = replication.state.lock();
    replication.backlog.activate(config.repl_backlog_size);
    replication.backlog.restart(offset, None);
    if config.replicaof.0.is_some() {
        state.ids = ReplIds::new(id.to_owned());
        state.resumable = true;
        replication.backlog.restart(offset, Some(db));
    } else {
        state.ids = ReplIds::new(id.to_owned());
        state.ids.shift(super::new_id(), offset);
        state.idle_since_ms = crate::persist::save::clock_ms();
        replication.attach(shared, &mut state, true);
    }
}

/// The link to the primary works now, or not any more.
pub fn set_link_down(shared: &Shared, down: bool) {
    shared.replication.set_gate(gate::LINK_DOWN, down);
}

/// A line for the log.
pub fn log(shared: &Shared, text: &str) {
    shared.host.log(Level::Notice, text);
}
