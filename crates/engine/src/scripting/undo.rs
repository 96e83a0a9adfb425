//! A script that runs under the locks of its declared keys alone, and what it takes to begin it again under all locks.
//!
//! Nothing of such a run is visible to anybody before it ends: the locks are held, effects are only collected, and nobody
//! watches (who WATCHes, tracks, waits for keys or reads notifications would hear of every command at once).
//! Before a command changes keys, their entries are copied; when a command needs what isn't locked, the copies go back, the
//! collected effects are dropped, and the script begins again. What can't be taken back (messages), and values
//! too large to copy, end the run before they happen.

use crate::cx::Cx;
use crate::keyfind::find_keys;
use crate::registry::Command;
use crate::spec::{Flags, KeyFlags, Locks};
use kara_base::ids::DbIndex;
use kara_keyspace::{Entry, HashedKey};

/// Values larger than this aren't copied.
const MAX_COPY: usize = 32 << 10;
/// Nor are more than so many.
const MAX_COPIES: usize = 128;

/// An entry as it was before the script changed it.
struct Before {
    db: DbIndex,
    key: Vec<u8>,
    hash: u64,
    entry: Option<Entry>,
}

/// The state at the beginning of a run, and copies of what the run changed.
pub(super) struct Undo {
    nested: usize,
    nested_changes: u64,
    copies: Vec<Before>,
}

impl Undo {
    /// At the beginning of a run.
    pub(super) fn begin(cx: &Cx) -> Self {
        Undo { nested: cx.nested.len(), nested_changes: cx.nested_changes, copies: Vec::new() }
    }

    /// Whether somebody would hear of each command before the run ends.
    pub(super) fn is_heard(cx: &mut Cx) -> bool {
        cx.keys.events.look(cx.shared);
        cx.keys.events.is_wanted() || cx.shared.monitors.any()
    }

    /// Before a command, where not all shards are held: whether it may run under the locks that are. Copies what it may
    /// change.
    pub(super) fn prepare(&mut self, cx: &mut Cx, command: Command, args: &[&[u8]]) -> bool {
        if command.is(Flags::WRITE) && Self::is_heard(cx) {
            return false;
        }
        let spec = command.spec;
        if spec.locks != Locks::Keys || command.is(Flags::MAY_REPLICATE) && !command.is(Flags::WRITE) {
            return false;
        }
        let mut found = Vec::new();
        if find_keys(spec, args, &mut found).is_err() {
            return false;
        }
        if found.is_empty() {
            return !command.is(Flags::WRITE);
        }
        let (space, db) = (&*cx.keys.space, cx.session.db);
        let keys =
            || found.iter().filter_map(|at| args.get(at.position).map(|key| (space.key(key), at.flags)));
        if !keys().all(|(key, _)| space.covers(&[key.hash])) {
            return false;
        }
        // Looking at a key may expire it, which is as true after a restart.
        !command.is(Flags::WRITE)
            || keys().all(|(key, flags)| flags == KeyFlags::RO || self.copy(cx, db, key))
    }

    fn copy(&mut self, cx: &Cx, db: DbIndex, key: HashedKey<'_>) -> bool {
        if self.copies.iter().any(|copy| copy.db == db && copy.hash == key.hash && copy.key == key.bytes) {
            return true;
        }
        let entry = cx.keys.space.find(db, &key);
        let is_small = |entry: &Entry| entry.elements() <= 256 && entry.memory_usage(5) <= MAX_COPY;
        if self.copies.len() >= MAX_COPIES || entry.is_some_and(|entry| !is_small(entry)) {
            return false;
        }
        let entry = entry.map(|entry| entry.duplicate(key.bytes));
        self.copies.push(Before { db, key: key.bytes.to_vec(), hash: key.hash, entry });
        true
    }

    /// Takes back what the run did.
    pub(super) fn roll_back(self, cx: &mut Cx) {
        for copy in self.copies.into_iter().rev() {
            match copy.entry {
                Some(entry) => drop(cx.keys.space.insert_entry(copy.db, copy.hash, entry)),
                None => drop(cx.keys.space.remove(copy.db, &HashedKey { bytes: &copy.key, hash: copy.hash })),
            }
        }
        // Removals of expired keys stand: they happened whatever the script did.
        cx.nested.truncate(self.nested);
        cx.nested_changes = self.nested_changes;
    }
}
