//! Stage lock: the shards of a command's keys, and the look-ahead that brings a batch's keys into the cache first.

use super::Engine;
use crate::error::CommandError;
use crate::keyfind::find_keys;
use crate::registry::{Command, Role};
use crate::session::Session;
use crate::spec::{Flags, Group, Locks};
use kara_base::ids::DbIndex;
use kara_keyspace::{HashedKey, Locked};
use kara_resp::Request;
use smallvec::SmallVec;

/// Cache misses that are worth having under way at once: processors follow ten to twenty.
const PREFETCHED: usize = 16;

/// A request of the batch as the look-ahead saw it.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    pub(super) command: Command,
    /// Of the lone key, where it has one; see [`lone_key`].
    pub(super) hash: Option<u64>,
    /// Its client's database.
    db: DbIndex,
}

impl Engine {
    /// Looks ahead over a batch of requests: looks up their commands, hashes their keys and brings their buckets, then
    /// their entries, into the cache, so that the misses overlap; `run_ahead` takes the requests by their place in the
    /// batch. With several shards this takes each lock twice more, which pays: two threads on 64 shards spend 152 ns on
    /// a command of a batch of 16, 552 on one alone.
    pub fn look_ahead<'r>(
        &mut self,
        space: &mut Locked<'_>,
        batch: impl Iterator<Item = (DbIndex, &'r Request, &'r [u8])>,
    ) {
        self.ahead.clear();
        self.batch_number += 1;
        for (db, request, buffer) in batch {
            let name = request.arg(buffer, 0).unwrap_or_default();
            // The batch is cut short at an unknown command: what follows is looked up when its turn comes.
            let Some(command) = self.shared.registry.by_name(name) else { break };
            let key = match lone_key(command, request.arg(buffer, 2)) {
                0 => None,
                at => request.arg(buffer, at),
            };
            self.ahead.push(Ahead { command, hash: key.map(|key| space.key(key).hash), db });
        }
        if self.ahead.len() < 2 {
            return;
        }
        let hashes = || self.ahead.iter().filter_map(|ahead| Some((ahead.db, ahead.hash?)));
        if space.is_single_shard() {
            space.relock_all();
            prefetch(space, hashes);
        } else {
            space.release();
            let keyspace = &self.shared.keyspace;
            hashes().for_each(|(_, hash)| keyspace.prefetch_lock(hash));
            hashes().for_each(|(db, hash)| keyspace.prefetch_bucket(db, hash));
            hashes().for_each(|(db, hash)| keyspace.prefetch_entry(db, hash));
        }
    }

    /// Whether the request at that place of the batch finds all locks held and leaves them so: the only shard's, which the
    /// look-ahead took.
    pub fn keeps_locks(&self, space: &Locked<'_>, place: usize) -> bool {
        let stays = |ahead: &Ahead| {
            let spec = ahead.command.spec;
            ahead.hash.is_some() && ahead.command.role == Role::Plain && spec.locks != Locks::All
        };
        space.is_single_shard() && space.holds_all() && self.ahead.get(place).is_some_and(stays)
    }

    /// Which batch was looked at last.
    pub fn batch_number(&self) -> u64 {
        self.batch_number
    }

    /// Stage: the shards of the command's keys, all of them up front. Locks that are held already stay.
    pub(super) fn lock<'b>(
        &mut self,
        command: Command,
        hash: Option<u64>,
        space: &mut Locked<'_>,
        session: &Session,
        args: &'b [&'b [u8]],
    ) -> Result<SmallVec<[HashedKey<'b>; 2]>, CommandError> {
        let mut hashed = SmallVec::new();
        let lone = lone_key(command, args.get(2).copied());
        if lone != 0
            && let Some(key) = args.get(lone)
            && command.spec.locks != Locks::All
        {
            let key = hash.map_or_else(|| space.key(key), |hash| HashedKey { bytes: key, hash });
            hashed.push(key);
            if !space.try_relock_keys(&hashed) || !self.widen(space, std::iter::once(key.hash)) {
                return Err(self.shared.scripts.busy_error());
            }
            return Ok(hashed);
        }
        if command.role == Role::Exec {
            return self.lock_transaction(space, session).map(|()| hashed);
        }
        if command.spec.locks == Locks::All {
            return if space.try_relock_all() { Ok(hashed) } else { Err(self.shared.scripts.busy_error()) };
        }
        if command.spec.key_specs.is_empty() && command.spec.get_keys.is_none() {
            space.release();
            return Ok(hashed);
        }
        if find_keys(command.spec, args, &mut self.found).is_err() {
            // The handler says what is wrong with the arguments, in its own words. Should it look at a key all the
            // same, the lock is held.
            return if space.try_relock_all() { Ok(hashed) } else { Err(self.shared.scripts.busy_error()) };
        }
        hashed.extend(self.found.iter().filter_map(|k| args.get(k.position)).map(|key| space.key(key)));
        if !space.try_relock_keys(&hashed) || !self.widen(space, hashed.iter().map(|key| key.hash)) {
            return Err(self.shared.scripts.busy_error());
        }
        for some in hashed.chunks(PREFETCHED).take(8) {
            if some.len() > 1 {
                prefetch(space, || some.iter().map(|key| (session.db, key.hash)));
            }
        }
        Ok(hashed)
    }

    /// Locks every shard where these keys, which are locked, have waiters who can't be served without others. False where
    /// a slow script has them; then nothing is held.
    #[inline]
    fn widen(&self, space: &mut Locked<'_>, hashes: impl Iterator<Item = u64>) -> bool {
        let keyspace = &self.shared.keyspace;
        let places = hashes.map(|hash| (keyspace.shard_of(hash).0 as usize, hash));
        !self.shared.waiting.needs_all_shards(places) || space.try_relock_all()
    }

    /// Whether the command would have to wait for a large value of its keys, which a snapshot takes in parts. Then it
    /// comes again: only who wants that key waits, not the worker's other clients.
    #[inline]
    pub(super) fn awaits_snapshot(
        &mut self,
        command: Command,
        space: &mut Locked<'_>,
        hashed: &[HashedKey<'_>],
        session: &Session,
    ) -> bool {
        if command.role == Role::Exec {
            return space.is_in_snapshot() && self.transaction_awaits_snapshot(space, session);
        }
        command.spec.flags.contains(Flags::WRITE) && space.await_large(session.db, hashed)
    }

    #[cold]
    fn transaction_awaits_snapshot(&mut self, space: &mut Locked<'_>, session: &Session) -> bool {
        let mut db = session.db;
        for queued in session.multi.iter().flat_map(|multi| multi.queue.iter()) {
            if queued.command.full_name == "select" {
                let number =
                    queued.args.get(1).and_then(|number| std::str::from_utf8(number).ok()?.parse().ok());
                db = number.and_then(|number| space.keyspace().db(number)).unwrap_or(db);
            }
            let writes = queued.command.spec.flags.contains(Flags::WRITE);
            if !writes || find_keys(queued.command.spec, &queued.args, &mut self.found).is_err() {
                continue;
            }
            let keys =
                self.found.iter().filter_map(|at| queued.args.get(at.position)).map(|key| space.key(key));
            let keys: SmallVec<[HashedKey<'_>; 4]> = keys.collect();
            if space.await_large(db, &keys) {
                return true;
            }
        }
        false
    }

    /// The locks of all queued commands and all watched keys together.
    fn lock_transaction(&mut self, space: &mut Locked<'_>, session: &Session) -> Result<(), CommandError> {
        let Some(multi) = &session.multi else { return Ok(()) };
        let locked = |done| if done { Ok(()) } else { Err(self.shared.scripts.busy_error()) };
        if space.is_single_shard() {
            locked(space.try_relock_all())?;
            prefetch(space, || multi.queue.hashes().take(PREFETCHED).map(|hash| (session.db, hash)));
            return Ok(());
        }
        // A script can't begin again under other locks in the middle of a transaction.
        let wants_all =
            |command: Command| command.spec.locks != Locks::Keys || command.spec.group == Group::Scripting;
        if multi.queue.commands().any(wants_all) {
            return locked(space.try_relock_all());
        }
        let mut keys: SmallVec<[HashedKey; 16]> = SmallVec::new();
        for queued in multi.queue.iter() {
            if let Some(hash) = queued.hash {
                keys.push(HashedKey { bytes: b"", hash });
            } else if find_keys(queued.command.spec, &queued.args, &mut self.found).is_ok() {
                let found = self.found.iter().filter_map(|k| queued.args.get(k.position));
                keys.extend(found.map(|key| HashedKey { bytes: b"", hash: space.key(key).hash }));
            }
        }
        let watched = session.watched.iter();
        keys.extend(watched.map(|((_, key), _)| HashedKey { bytes: b"", hash: space.key(key).hash }));
        locked(space.try_relock_keys(&keys) && self.widen(space, keys.iter().map(|key| key.hash)))
    }
}

/// Starts loading buckets, then entries of keys whose shards are held.
#[inline]
fn prefetch<I: Iterator<Item = (DbIndex, u64)>>(space: &Locked<'_>, hashes: impl Fn() -> I) {
    for (db, hash) in hashes() {
        space.prefetch_bucket(db, &HashedKey { bytes: b"", hash });
    }
    for (db, hash) in hashes() {
        space.prefetch_entry(db, &HashedKey { bytes: b"", hash });
    }
}

/// Where the command's only key stands; 0: nowhere, or there may be more. A script with one key has its own place for it.
#[inline]
pub(super) fn lone_key(command: Command, second: Option<&[u8]>) -> usize {
    match command.single_key {
        0 if command.role == Role::Script && second == Some(b"1") => 3,
        at => usize::from(at),
    }
}
