//! WATCH: which clients want to hear that a key changed before their EXEC.
//!
//! A client's flag is set under the key's shard lock, and EXEC reads it under the locks of all keys that the client
//! watches: no change can slip in between.

use crate::clients::ClientId;
use kara_base::ids::DbIndex;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// A key of a database.
pub type WatchedKey = (DbIndex, Vec<u8>);

/// One client's interest in one key.
#[derive(Debug)]
struct Watcher {
    client: ClientId,
    dirty: Arc<AtomicBool>,
    /// The key existed when the client began to watch: emptying the database changes it then.
    existed: bool,
}

/// All watched keys.
#[derive(Debug, Default)]
pub struct Watches {
    keys: Mutex<HashMap<WatchedKey, Vec<Watcher>>>,
    count: AtomicUsize,
}

impl Watches {
    /// Begins to watch, under the key's lock.
    pub fn add(&self, key: WatchedKey, client: ClientId, dirty: &Arc<AtomicBool>, existed: bool) {
        let mut keys = self.keys.lock();
        keys.entry(key).or_default().push(Watcher { client, dirty: dirty.clone(), existed });
        self.count.store(keys.len(), Relaxed);
    }

    /// Ends a client's watches.
    pub fn remove(&self, client: ClientId, watched: impl Iterator<Item = WatchedKey>) {
        let mut keys = self.keys.lock();
        for key in watched {
            if let Some(watchers) = keys.get_mut(&key) {
                watchers.retain(|watcher| watcher.client != client);
                if watchers.is_empty() {
                    keys.remove(&key);
                }
            }
        }
        self.count.store(keys.len(), Relaxed);
    }

    /// The number of watched keys.
    #[inline]
    pub fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Whether nobody watches anything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A key changed.
    pub fn changed(&self, db: DbIndex, key: &[u8]) {
        if let Some(watchers) = self.keys.lock().get(&(db, key.to_vec())) {
            watchers.iter().for_each(|watcher| watcher.dirty.store(true, Relaxed));
        }
    }

    /// A database was emptied; all of them with `None`. Keys that weren't there haven't changed.
    pub fn flushed(&self, db: Option<DbIndex>) {
        for ((of, _), watchers) in self.keys.lock().iter() {
            if db.is_none_or(|db| db == *of) {
                let gone = watchers.iter().filter(|watcher| watcher.existed);
                gone.for_each(|watcher| watcher.dirty.store(true, Relaxed));
            }
        }
    }

    /// Two databases changed places; `exists` tells of keys after that.
    pub fn swapped(&self, a: DbIndex, b: DbIndex, exists: impl Fn(DbIndex, &[u8]) -> bool) {
        for ((of, key), watchers) in self.keys.lock().iter() {
            if *of == a || *of == b {
                let now = exists(*of, key);
                let changed = watchers.iter().filter(|watcher| watcher.existed || now);
                changed.for_each(|watcher| watcher.dirty.store(true, Relaxed));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_watchers_of_the_key_hear_of_it() {
        let watches = Watches::default();
        let (a, b) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let key = |name: &str| (DbIndex(0), name.as_bytes().to_vec());
        watches.add(key("x"), ClientId(1), &a, true);
        watches.add(key("y"), ClientId(2), &b, false);
        watches.changed(DbIndex(0), b"x");
        watches.changed(DbIndex(1), b"y");
        watches.flushed(None);
        assert!(a.load(Relaxed) && !b.load(Relaxed));
        watches.remove(ClientId(1), [key("x")].into_iter());
        assert_eq!(watches.len(), 1);
    }
}
