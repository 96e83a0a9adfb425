//! Which clients have read which keys. A key's name counts, whatever its database.

use crate::clients::ClientId;
use kara_base::rng::Rng;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Locks, so that workers rarely meet: every write looks here while anybody tracks.
const STRIPES: usize = 16;

/// Clients in ascending order.
type Readers = SmallVec<[ClientId; 2]>;

/// Keys in a list, so that any one of them can be chosen; their places by name.
#[derive(Debug, Default)]
struct Stripe {
    places: HashMap<Arc<[u8]>, usize>,
    keys: Vec<(Arc<[u8]>, Readers)>,
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Table {
    hasher: RandomState,
    stripes: [Mutex<Stripe>; STRIPES],
    keys: AtomicUsize,
    items: AtomicUsize,
}

impl Stripe {
    fn take(&mut self, key: &[u8]) -> Option<Readers> {
        let at = self.places.remove(key)?;
        let (_, readers) = self.keys.swap_remove(at);
        if let Some((moved, _)) = self.keys.get(at) {
            self.places.insert(moved.clone(), at);
        }
        Some(readers)
    }
}

impl Table {
    fn stripe(&self, key: &[u8]) -> &Mutex<Stripe> {
        &self.stripes[self.hasher.hash_one(key) as usize % STRIPES]
    }

    /// A client read a key.
    pub(super) fn remember(&self, key: &[u8], client: ClientId) {
        let mut stripe = self.stripe(key).lock();
        match stripe.places.get(key) {
            Some(&at) => {
                if let Some((_, readers)) = stripe.keys.get_mut(at)
                    && let Err(place) = readers.binary_search(&client)
                {
                    readers.insert(place, client);
                    self.items.fetch_add(1, Relaxed);
                }
            }
            None => {
                let name: Arc<[u8]> = key.into();
                let at = stripe.keys.len();
                stripe.places.insert(name.clone(), at);
                stripe.keys.push((name, SmallVec::from_slice(&[client])));
                self.keys.fetch_add(1, Relaxed);
                self.items.fetch_add(1, Relaxed);
            }
        }
    }

    /// Forgets a key; gives its readers.
    pub(super) fn take(&self, key: &[u8]) -> Option<Readers> {
        if self.keys() == 0 {
            return None;
        }
        let readers = self.stripe(key).lock().take(key)?;
        self.keys.fetch_sub(1, Relaxed);
        self.items.fetch_sub(readers.len(), Relaxed);
        Some(readers)
    }

    /// Any key.
    pub(super) fn any(&self, rng: &mut Rng) -> Option<Arc<[u8]>> {
        let first = rng.below(STRIPES as u64) as usize;
        (0..STRIPES).find_map(|step| {
            let stripe = self.stripes[(first + step) % STRIPES].lock();
            if stripe.keys.is_empty() {
                return None;
            }
            let at = rng.below(stripe.keys.len() as u64) as usize;
            stripe.keys.get(at).map(|(name, _)| name.clone())
        })
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        for stripe in &self.stripes {
            let emptied = std::mem::take(&mut *stripe.lock());
            self.keys.fetch_sub(emptied.keys.len(), Relaxed);
            let items: usize = emptied.keys.iter().map(|(_, readers)| readers.len()).sum();
            self.items.fetch_sub(items, Relaxed);
        }
    }

    pub(super) fn keys(&self) -> usize {
        self.keys.load(Relaxed)
    }

    pub(super) fn items(&self) -> usize {
        self.items.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn it_remembers_what_a_map_of_sets_does() {
        let table = Table::default();
        let mut model: BTreeMap<Vec<u8>, BTreeSet<u64>> = BTreeMap::new();
        let mut rng = Rng::new(3);
        for round in 0..30_000 {
            let key = format!("k{}", rng.below(200)).into_bytes();
            if rng.below(3) > 0 {
                let client = rng.below(5);
                table.remember(&key, ClientId(client));
                model.entry(key).or_default().insert(client);
            } else {
                let readers = table.take(&key).map(|ids| ids.iter().map(|id| id.0).collect());
                assert_eq!(readers, model.remove(&key));
            }
            if round % 9_000 == 8_999 {
                let any = table.any(&mut rng).unwrap();
                assert!(model.contains_key(&any[..]));
                table.clear();
                model.clear();
            }
            assert_eq!(table.keys(), model.len());
            assert_eq!(table.items(), model.values().map(BTreeSet::len).sum::<usize>());
        }
        table.clear();
        assert!(table.any(&mut rng).is_none() && table.take(b"k1").is_none());
    }
}
