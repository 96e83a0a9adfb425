//! Keys with an expiry that clients wrote to a writable replica. No primary will ever say that their time has come, so
//! the replica removes them itself.

use crate::pipeline::Engine;
use kara_base::ids::DbIndex;
use kara_keyspace::Entry;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Keys looked at per tick.
const STEP: usize = 1_000;

/// The keys, and how many they are.
#[derive(Debug, Default)]
pub(crate) struct OwnKeys {
    keys: Mutex<HashSet<(DbIndex, Vec<u8>)>>,
    count: AtomicUsize,
}

impl OwnKeys {
    pub fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// A client changed this key, which has an expiry now.
    pub fn note(&self, db: DbIndex, key: &[u8]) {
        let mut keys = self.keys.lock();
        keys.insert((db, key.to_vec()));
        self.count.store(keys.len(), Relaxed);
    }

    /// All data are the primary's now, or all keys are ours.
    pub fn clear(&self) {
        if self.count() > 0 {
            let mut keys = self.keys.lock();
            keys.clear();
            self.count.store(0, Relaxed);
        }
    }

    fn some(&self) -> Vec<(DbIndex, Vec<u8>)> {
        self.keys.lock().iter().take(STEP).cloned().collect()
    }

    fn forget(&self, key: &(DbIndex, Vec<u8>)) {
        let mut keys = self.keys.lock();
        keys.remove(key);
        self.count.store(keys.len(), Relaxed);
    }
}

impl Engine {
    /// Removes those of them whose time has come.
    pub(crate) fn expire_own_keys(&mut self) {
        let shared = self.shared.clone();
        let own = &shared.replication.own_keys;
        if own.count() == 0 {
            return;
        }
        if !shared.replication.is_replica() {
            return own.clear();
        }
        for known in own.some() {
            let (db, name) = (known.0, &known.1);
            let shard = shared.keyspace.shard_of(shared.keyspace.hash(name));
            let Some(mut space) = shared.keyspace.try_lock_one(shard) else { continue };
            let now_ms = self.now_ms;
            let mut keys = self.keys_outside_commands(&shared, &mut space, db);
            let key = keys.key(name);
            match keys.space.find(db, &key).and_then(Entry::expire_at_ms) {
                None => own.forget(&known),
                Some(at_ms) if at_ms < now_ms => {
                    keys.expire_now(db, &key);
                    own.forget(&known);
                }
                Some(_) => {}
            }
            self.journal_preceding();
            self.deliver_events(&space, None);
            self.post_messages();
        }
    }
}
