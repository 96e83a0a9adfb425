//! BCAST: the prefixes that clients watch, and the changed keys that wait to be told.

use super::Tracker;
use crate::clients::ClientId;
use parking_lot::RwLock;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Changed keys, each with the client that changed it first, if any did.
pub(super) type ChangedKeys = BTreeMap<Vec<u8>, Option<ClientId>>;

/// What one batch of requests changed, by prefix.
pub type Broadcasts = BTreeMap<Arc<[u8]>, ChangedKeys>;

/// Those who watch one prefix.
type Watchers = HashMap<ClientId, Arc<Tracker>>;

/// All prefixes with those who watch them.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    watched: RwLock<BTreeMap<Arc<[u8]>, Watchers>>,
    count: AtomicUsize,
}

impl Prefixes {
    /// Adds a client, or changes how it is told.
    pub(super) fn add(&self, prefix: &Arc<[u8]>, tracker: &Arc<Tracker>) {
        let mut watched = self.watched.write();
        watched.entry(prefix.clone()).or_default().insert(tracker.info.id, tracker.clone());
        self.count.store(watched.len(), Relaxed);
    }

    /// Removes a client.
    pub(super) fn remove(&self, prefix: &[u8], client: ClientId) {
        let mut watched = self.watched.write();
        if let Some(trackers) = watched.get_mut(prefix) {
            trackers.remove(&client);
            if trackers.is_empty() {
                watched.remove(prefix);
            }
        }
        self.count.store(watched.len(), Relaxed);
    }

    /// Notes a changed key under each prefix that it has.
    pub(super) fn collect(&self, key: &[u8], by: Option<ClientId>, broadcasts: &mut Broadcasts) {
        if self.len() == 0 {
            return;
        }
        for prefix in self.watched.read().keys().filter(|prefix| key.starts_with(prefix)) {
            broadcasts.entry(prefix.clone()).or_default().entry(key.to_vec()).or_insert(by);
        }
    }

    /// Who watches a prefix.
    pub(super) fn trackers(&self, prefix: &[u8]) -> Vec<Arc<Tracker>> {
        self.watched.read().get(prefix).map_or_else(Vec::new, |trackers| trackers.values().cloned().collect())
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Relaxed)
    }
}
