//! Consumer groups: who has read how far, and what was delivered but not yet acknowledged.
//!
//! A pending entry stands once, in the group's ordered list, and names its one consumer. What a consumer keeps
//! is a set of ids, an index into that list that only this file changes: two consumers can't share an entry,
//! whatever a file from outside says. Times are given in by the caller.

use super::StreamId;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// A consumer's place in its group; valid until that consumer is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerId(u32);

/// A delivered entry that waits for its acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Who has to acknowledge it.
    pub consumer: ConsumerId,
    /// Unix time of the last delivery.
    pub delivered_ms: i64,
    /// How often it was delivered.
    pub deliveries: u64,
}

/// A reader within a group.
#[derive(Clone, Debug)]
pub struct Consumer {
    name: Arc<[u8]>,
    /// Unix time of its last attempt to do something.
    pub seen_ms: i64,
    /// Unix time of its last successful read or claim; None before the first.
    pub active_ms: Option<i64>,
    pending: BTreeSet<StreamId>,
}

impl Consumer {
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// How many entries it has to acknowledge.
    pub fn pending_len(&self) -> usize {
        self.pending.len()
    }
}

/// A consumer group.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// The last entry that was delivered to anyone.
    pub last_id: StreamId,
    /// How many entries of the stream's whole history lie up to `last_id`; None where that can't be known.
    pub entries_read: Option<u64>,
    pending: BTreeMap<StreamId, Pending>,
    slots: Vec<Option<Consumer>>,
    names: BTreeMap<Arc<[u8]>, ConsumerId>,
    free: Vec<ConsumerId>,
}

impl Group {
    pub fn new(last_id: StreamId, entries_read: Option<u64>) -> Self {
        Group { last_id, entries_read, ..Group::default() }
    }

    /// The consumer called `name`.
    pub fn find_consumer(&self, name: &[u8]) -> Option<ConsumerId> {
        self.names.get(name).copied()
    }

    /// The consumer called `name`, made if there is none, and whether it was made. A new one counts as seen
    /// at `now_ms`.
    pub fn get_or_create_consumer(&mut self, name: &[u8], now_ms: i64) -> (ConsumerId, bool) {
        if let Some(id) = self.find_consumer(name) {
            return (id, false);
        }
        let name: Arc<[u8]> = name.into();
        let consumer =
            Consumer { name: name.clone(), seen_ms: now_ms, active_ms: None, pending: BTreeSet::new() };
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            ConsumerId(self.slots.len() as u32 - 1)
        });
        self.slots[id.0 as usize] = Some(consumer);
        self.names.insert(name, id);
        (id, true)
    }

    /// Removes a consumer and everything that it still had to acknowledge; answers how much that was.
    pub fn remove_consumer(&mut self, name: &[u8]) -> Option<usize> {
        let id = self.names.remove(name)?;
        let consumer = self.slots[id.0 as usize].take()?;
        self.free.push(id);
        for entry in &consumer.pending {
            self.pending.remove(entry);
        }
        Some(consumer.pending.len())
    }

    /// Panics if that consumer was removed.
    pub fn consumer(&self, id: ConsumerId) -> &Consumer {
        self.slots[id.0 as usize].as_ref().expect("a consumer's id outlived it")
    }

    /// Panics if that consumer was removed.
    pub fn consumer_mut(&mut self, id: ConsumerId) -> &mut Consumer {
        self.slots[id.0 as usize].as_mut().expect("a consumer's id outlived it")
    }

    /// All consumers, ordered by name.
    pub fn consumers(&self) -> impl ExactSizeIterator<Item = &Consumer> {
        self.names.values().map(|&id| self.consumer(id))
    }

    /// How many entries wait for an acknowledgement.
    pub fn pending_len(&self) -> usize {
        self.pending.len()
    }

    /// The first and the last pending id.
    pub fn pending_bounds(&self) -> Option<(StreamId, StreamId)> {
        Some((*self.pending.first_key_value()?.0, *self.pending.last_key_value()?.0))
    }

    /// What is known of one pending entry.
    pub fn pending(&self, id: StreamId) -> Option<&Pending> {
        self.pending.get(&id)
    }

    /// The group's pending entries within `ids`, in order.
    pub fn pending_range(&self, ids: RangeInclusive<StreamId>) -> impl Iterator<Item = (StreamId, &Pending)> {
        let ids = if ids.is_empty() { None } else { Some(ids) };
        ids.into_iter().flat_map(|ids| self.pending.range(ids)).map(|(id, pending)| (*id, pending))
    }

    /// One consumer's pending entries within `ids`, in order.
    pub fn consumer_pending_range(
        &self,
        consumer: ConsumerId,
        ids: RangeInclusive<StreamId>,
    ) -> impl Iterator<Item = (StreamId, &Pending)> {
        let ids = if ids.is_empty() { None } else { Some(ids) };
        let set = &self.consumer(consumer).pending;
        ids.into_iter().flat_map(|ids| set.range(ids)).map(|id| (*id, &self.pending[id]))
    }

    /// Makes `id` pending with exactly this state, taking it from whoever had it.
    pub fn set_pending(&mut self, id: StreamId, pending: Pending) {
        let before = self.pending.insert(id, pending);
        if let Some(before) = before
            && before.consumer != pending.consumer
        {
            self.consumer_mut(before.consumer).pending.remove(&id);
        }
        self.consumer_mut(pending.consumer).pending.insert(id);
    }

    /// Acknowledges `id`; false if it wasn't pending.
    pub fn acknowledge(&mut self, id: StreamId) -> bool {
        let Some(pending) = self.pending.remove(&id) else { return false };
        self.consumer_mut(pending.consumer).pending.remove(&id);
        true
    }

    /// About how many bytes this group owns, itself included.
    pub fn memory_usage(&self) -> usize {
        // Nodes of a B-tree that fills by appending are half to two thirds full.
        const PENDING: usize = (size_of::<StreamId>() + size_of::<Pending>()) * 3 / 2;
        const INDEXED: usize = size_of::<StreamId>() * 3 / 2;
        let consumers: usize = self.consumers().map(|c| c.name.len() + 16 + 32 + size_of::<Consumer>()).sum();
        size_of::<Self>() + self.pending.len() * (PENDING + INDEXED) + consumers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn ids(group: &Group, consumer: ConsumerId) -> Vec<u64> {
        group.consumer_pending_range(consumer, StreamId::MIN..=StreamId::MAX).map(|(id, _)| id.seq).collect()
    }

    #[test]
    fn an_entry_has_one_owner() {
        let mut group = Group::new(StreamId::MIN, None);
        let (a, made) = group.get_or_create_consumer(b"a", 5);
        assert!(made);
        let (b, _) = group.get_or_create_consumer(b"b", 5);
        let id = StreamId::new(1, 1);
        group.set_pending(id, Pending { consumer: a, delivered_ms: 1, deliveries: 1 });
        group.set_pending(id, Pending { consumer: b, delivered_ms: 2, deliveries: 2 });
        assert_eq!(ids(&group, a), [0u64; 0]);
        assert_eq!(ids(&group, b), [1]);
        assert_eq!(group.pending_len(), 1);
        assert_eq!(group.remove_consumer(b"b"), Some(1));
        assert_eq!(group.pending_len(), 0);
        assert!(!group.acknowledge(id));
        // The freed place is used again.
        let (c, _) = group.get_or_create_consumer(b"c", 6);
        assert_eq!(c, b);
        assert_eq!(ids(&group, c), [0u64; 0]);
        let reversed = StreamId::MAX..=StreamId::MIN;
        assert_eq!(group.pending_range(reversed.clone()).count(), 0);
        assert_eq!(group.consumer_pending_range(c, reversed).count(), 0);
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_map(ops in prop::collection::vec((0u8..4, 0u8..4, 0u64..12), 0..200)) {
            let mut group = Group::new(StreamId::MIN, None);
            let mut model: HashMap<u64, u8> = HashMap::new();
            for (step, (op, name, seq)) in ops.into_iter().enumerate() {
                let id = StreamId::new(0, seq);
                match op {
                    0 | 1 => {
                        let (consumer, _) = group.get_or_create_consumer(&[name], 0);
                        let pending = Pending { consumer, delivered_ms: step as i64, deliveries: 1 };
                        group.set_pending(id, pending);
                        model.insert(seq, name);
                    }
                    2 => prop_assert_eq!(group.acknowledge(id), model.remove(&seq).is_some()),
                    _ => {
                        let owned = model.values().filter(|&&owner| owner == name).count();
                        let known = group.find_consumer(&[name]).is_some();
                        prop_assert_eq!(group.remove_consumer(&[name]), known.then_some(owned));
                        model.retain(|_, owner| *owner != name);
                    }
                }
                prop_assert_eq!(group.pending_len(), model.len());
                for consumer in group.consumers() {
                    let own = consumer.name();
                    let cid = group.find_consumer(own).unwrap();
                    let mut want: Vec<u64> =
                        model.iter().filter(|(_, owner)| **owner == own[0]).map(|(seq, _)| *seq).collect();
                    want.sort_unstable();
                    prop_assert_eq!(ids(&group, cid), want);
                }
            }
        }
    }
}
