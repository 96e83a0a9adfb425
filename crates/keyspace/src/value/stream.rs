//! The stream value: a log of entries and the consumer groups that read it.
//!
//! The structures live in `kara_encoding::stream`; here stands what commands do with both at once: reading for
//! a group, claiming, lag. Time comes in as an argument, replies and propagation are the commands' business.

use std::collections::BTreeMap;

use kara_encoding::stream::AddError;
pub use kara_encoding::stream::{
    BlockLimits, Consumer, ConsumerId, CorruptStream, Entry, Fields, Group, IdText, Log, LogState, Pending,
    StreamId, Trim, TrimTo,
};

/// Which id XADD wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewId {
    /// `*`: from the clock.
    Auto,
    /// `ms-*`: this time, the next free counter.
    AutoSeq(u64),
    /// Exactly this one.
    Exact(StreamId),
}

/// Why XADD failed; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamAddError {
    /// The highest possible id is in use.
    Exhausted,
    /// The id is not above the last one.
    NotAbove,
    /// Fields and values are too large together.
    TooLarge,
}

impl StreamAddError {
    /// The error reply's text, without code and leading `-`.
    pub fn message(self) -> &'static str {
        match self {
            StreamAddError::Exhausted => {
                "The stream has exhausted the last possible ID, unable to add more items"
            }
            StreamAddError::NotAbove => {
                "The ID specified in XADD is equal or smaller than the target stream top item"
            }
            StreamAddError::TooLarge => "Elements are too large to be stored",
        }
    }
}

/// How a pending entry changes hands.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    pub consumer: ConsumerId,
    /// Entries delivered more recently than this stay where they are; 0 takes all.
    pub min_idle_ms: i64,
    /// The delivery time to note.
    pub delivered_ms: i64,
    pub now_ms: i64,
    /// The count of deliveries to note; None counts one more, or leaves it with `just_id`.
    pub deliveries: Option<u64>,
    /// Don't count as a delivery.
    pub just_id: bool,
    /// Make entries pending that weren't.
    pub force: bool,
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// It is the consumer's now, in this state.
    Taken(Pending),
    /// The entry no longer exists; it was pending like this and isn't any more.
    Gone(Pending),
    /// Not pending, or not idle for long enough.
    Left,
}

/// A stream. One pointer wide.
#[derive(Clone, Debug, Default)]
pub struct Stream(Box<Parts>);

#[derive(Clone, Debug, Default)]
struct Parts {
    log: Log,
    groups: BTreeMap<Box<[u8]>, Group>,
}

impl Stream {
    pub fn new() -> Self {
        Stream::default()
    }

    /// A stream from a log that came from a file, without groups; add them with [`Stream::insert_group`].
    pub fn from_log(log: Log) -> Self {
        Stream(Box::new(Parts { log, groups: BTreeMap::new() }))
    }

    /// The entries and their counters.
    pub fn log(&self) -> &Log {
        &self.0.log
    }

    /// How many entries there are.
    pub fn len(&self) -> u64 {
        self.0.log.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.log.is_empty()
    }

    /// Appends an entry of pairs of field and value; answers its id.
    pub fn add(
        &mut self,
        id: NewId,
        fields: &[(&[u8], &[u8])],
        now_ms: u64,
        limits: BlockLimits,
    ) -> Result<StreamId, StreamAddError> {
        let log = &mut self.0.log;
        let last = log.last_id();
        if last == StreamId::MAX {
            return Err(StreamAddError::Exhausted);
        }
        let id = match id {
            NewId::Auto => log.next_id(now_ms).ok_or(StreamAddError::NotAbove)?,
            NewId::AutoSeq(ms) if ms == last.ms => {
                StreamId::new(ms, last.seq.checked_add(1).ok_or(StreamAddError::NotAbove)?)
            }
            NewId::AutoSeq(ms) => StreamId::new(ms, 0),
            NewId::Exact(id) => id,
        };
        log.append(id, fields, limits).map_err(|error| match error {
            AddError::NotAbove => StreamAddError::NotAbove,
            AddError::TooLarge => StreamAddError::TooLarge,
        })?;
        Ok(id)
    }

    /// Deletes one entry; false if there is none with that id.
    pub fn delete(&mut self, id: StreamId) -> bool {
        self.0.log.delete(id)
    }

    /// Drops old entries; answers how many.
    pub fn trim(&mut self, trim: Trim) -> u64 {
        self.0.log.trim(trim)
    }

    /// Overwrites the counters (XSETID); see [`Log::set_state`].
    pub fn set_state(&mut self, state: LogState) {
        self.0.log.set_state(state);
    }

    /// The groups, ordered by name.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = (&[u8], &Group)> {
        self.0.groups.iter().map(|(name, group)| (&**name, group))
    }

    pub fn group(&self, name: &[u8]) -> Option<&Group> {
        self.0.groups.get(name)
    }

    pub fn group_mut(&mut self, name: &[u8]) -> Option<&mut Group> {
        self.0.groups.get_mut(name)
    }

    /// Adds a group; false, and no change, if there is one of that name.
    pub fn insert_group(&mut self, name: &[u8], group: Group) -> bool {
        match self.0.groups.entry(name.into()) {
            std::collections::btree_map::Entry::Occupied(_) => false,
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(group);
                true
            }
        }
    }

    /// Removes a group with all it knew.
    pub fn remove_group(&mut self, name: &[u8]) -> Option<Group> {
        self.0.groups.remove(name)
    }

    /// Delivers up to `count` entries behind the group's last one to a consumer, calling `deliver` for each
    /// with the group's state after it; answers how many. With `no_ack` they don't become pending. None if
    /// there is no such group.
    pub fn read_new(
        &mut self,
        group: &[u8],
        consumer: ConsumerId,
        count: usize,
        no_ack: bool,
        now_ms: i64,
        mut deliver: impl FnMut(&Entry<'_>, &Group),
    ) -> Option<usize> {
        let Parts { log, groups } = &mut *self.0;
        let group = groups.get_mut(group)?;
        let Some(start) = group.last_id.next() else { return Some(0) };
        let mut delivered = 0;
        for entry in log.range(start, StreamId::MAX).take(count) {
            advance(log, group, entry.id);
            if !no_ack {
                group.set_pending(entry.id, Pending { consumer, delivered_ms: now_ms, deliveries: 1 });
                group.consumer_mut(consumer).active_ms = Some(now_ms);
            }
            deliver(&entry, group);
            delivered += 1;
        }
        Some(delivered)
    }

    /// Delivers up to `count` of a consumer's own pending entries from `start` on once more, calling `deliver`
    /// with the id and the entry, or None where it was deleted meanwhile; answers how many. None if there is no
    /// such group.
    pub fn read_pending(
        &mut self,
        group: &[u8],
        consumer: ConsumerId,
        start: StreamId,
        count: usize,
        now_ms: i64,
        mut deliver: impl FnMut(StreamId, Option<&Entry<'_>>),
    ) -> Option<usize> {
        let Parts { log, groups } = &mut *self.0;
        let group = groups.get_mut(group)?;
        let mut next = Some(start);
        let mut delivered = 0;
        while let Some(from) = next.filter(|_| delivered < count) {
            let found = group.consumer_pending_range(consumer, from..=StreamId::MAX).next();
            let Some((id, pending)) = found.map(|(id, pending)| (id, *pending)) else { break };
            let entry = log.get(id);
            deliver(id, entry.as_ref());
            if entry.is_some() {
                let deliveries = pending.deliveries.saturating_add(1);
                group.set_pending(id, Pending { delivered_ms: now_ms, deliveries, ..pending });
            }
            delivered += 1;
            next = id.next();
        }
        Some(delivered)
    }

    /// Gives one pending entry to another consumer. A pending entry that no longer exists is forgotten. None if
    /// there is no such group.
    pub fn claim(&mut self, group: &[u8], id: StreamId, claim: &Claim) -> Option<Claimed> {
        let Parts { log, groups } = &mut *self.0;
        let group = groups.get_mut(group)?;
        let before = group.pending(id).copied();
        if log.get(id).is_none() {
            group.acknowledge(id);
            return Some(before.map_or(Claimed::Left, Claimed::Gone));
        }
        let deliveries = match before {
            None if !claim.force => return Some(Claimed::Left),
            Some(before)
                if claim.min_idle_ms != 0
                    && claim.now_ms.saturating_sub(before.delivered_ms) < claim.min_idle_ms =>
            {
                return Some(Claimed::Left);
            }
            // A forced entry starts with one delivery, to which this one is added like to any other.
            None => 1,
            Some(before) => before.deliveries,
        };
        let deliveries = claim.deliveries.unwrap_or(deliveries.saturating_add(u64::from(!claim.just_id)));
        let taken = Pending { consumer: claim.consumer, delivered_ms: claim.delivered_ms, deliveries };
        group.set_pending(id, taken);
        group.consumer_mut(claim.consumer).active_ms = Some(claim.now_ms);
        Some(Claimed::Taken(taken))
    }

    /// How many entries the group has still to read; None where that can't be known.
    pub fn lag(&self, group: &Group) -> Option<i64> {
        let log = &self.0.log;
        let added = log.entries_added() as i64;
        if added == 0 {
            return Some(0);
        }
        let read = group
            .entries_read
            .filter(|_| !log.has_tombstones_from(group.last_id))
            .or_else(|| log.entries_read_at(group.last_id))?;
        Some(added.wrapping_sub(read as i64))
    }

    /// About how many bytes the stream owns; looks at `samples` blocks (0: all).
    pub fn memory_usage(&self, samples: usize) -> usize {
        let groups: usize = self.groups().map(|(name, group)| name.len() + 32 + group.memory_usage()).sum();
        size_of::<Parts>() - size_of::<Log>() + self.0.log.memory_usage(samples) + groups
    }
}

/// Moves a group on to `id`, keeping count of what it has read where that is possible.
fn advance(log: &Log, group: &mut Group, id: StreamId) {
    let counted = group.last_id >= log.first_id() && !log.has_tombstones_from(group.last_id);
    match group.entries_read {
        Some(read) if counted => group.entries_read = Some(read.saturating_add(1)),
        _ if log.entries_added() > 0 => group.entries_read = log.entries_read_at(id),
        _ => {}
    }
    group.last_id = id;
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BlockLimits = BlockLimits { max_bytes: 4096, max_entries: 100 };

    fn stream(entries: u64) -> Stream {
        let mut stream = Stream::new();
        for ms in 1..=entries {
            let id = NewId::Exact(StreamId::new(ms, 0));
            stream.add(id, &[(b"f", b"v")], 0, LIMITS).unwrap();
        }
        stream
    }

    fn id(ms: u64) -> StreamId {
        StreamId::new(ms, 0)
    }

    fn read(stream: &mut Stream, consumer: &[u8], count: usize) -> Vec<u64> {
        let (consumer, _) = stream.group_mut(b"g").unwrap().get_or_create_consumer(consumer, 10);
        let mut ids = Vec::new();
        stream.read_new(b"g", consumer, count, false, 10, |entry, _| ids.push(entry.id.ms)).unwrap();
        ids
    }

    #[test]
    fn handle_is_one_pointer_and_can_move_between_threads() {
        fn send<T: Send>(_: T) {}
        assert_eq!(size_of::<Stream>(), 8);
        assert_eq!(size_of::<Option<Stream>>(), 8);
        send(Stream::new());
    }

    #[test]
    fn new_ids() {
        let mut stream = Stream::new();
        let fields: &[(&[u8], &[u8])] = &[(b"f", b"v")];
        let mut add = |id, now| stream.add(id, fields, now, LIMITS);
        assert_eq!(add(NewId::Auto, 5), Ok(StreamId::new(5, 0)));
        assert_eq!(add(NewId::Auto, 5), Ok(StreamId::new(5, 1)));
        assert_eq!(add(NewId::Auto, 3), Ok(StreamId::new(5, 2)));
        assert_eq!(add(NewId::AutoSeq(5), 0), Ok(StreamId::new(5, 3)));
        assert_eq!(add(NewId::AutoSeq(4), 0), Err(StreamAddError::NotAbove));
        assert_eq!(add(NewId::AutoSeq(7), 0), Ok(StreamId::new(7, 0)));
        assert_eq!(add(NewId::Exact(StreamId::new(7, 0)), 0), Err(StreamAddError::NotAbove));
        assert_eq!(add(NewId::Exact(StreamId::new(7, u64::MAX)), 0), Ok(StreamId::new(7, u64::MAX)));
        assert_eq!(add(NewId::AutoSeq(7), 0), Err(StreamAddError::NotAbove));
        assert_eq!(add(NewId::Auto, 0), Ok(StreamId::new(8, 0)));
        assert_eq!(add(NewId::Exact(StreamId::MAX), 0), Ok(StreamId::MAX));
        assert_eq!(add(NewId::Auto, 0), Err(StreamAddError::Exhausted));
    }

    #[test]
    fn reading_counts_and_lags() {
        let mut stream = stream(5);
        assert!(stream.insert_group(b"g", Group::new(StreamId::MIN, None)));
        assert!(!stream.insert_group(b"g", Group::default()));
        assert_eq!(stream.lag(stream.group(b"g").unwrap()), Some(5));
        assert_eq!(read(&mut stream, b"a", 2), [1, 2]);
        let group = stream.group(b"g").unwrap();
        assert_eq!((group.entries_read, group.last_id, stream.lag(group)), (Some(2), id(2), Some(3)));
        // A deletion ahead hides how much is left, reading past it finds out again.
        stream.delete(id(4));
        assert_eq!(stream.lag(stream.group(b"g").unwrap()), None);
        assert_eq!(read(&mut stream, b"b", 1), [3]);
        assert_eq!(stream.group(b"g").unwrap().entries_read, None);
        assert_eq!(read(&mut stream, b"b", 9), [5]);
        let group = stream.group(b"g").unwrap();
        assert_eq!((group.entries_read, stream.lag(group)), (Some(5), Some(0)));
        assert_eq!(group.pending_len(), 4);
    }

    #[test]
    fn history_and_claims() {
        let mut stream = stream(4);
        stream.insert_group(b"g", Group::new(StreamId::MIN, None));
        read(&mut stream, b"a", 4);
        stream.delete(id(2));
        let group = stream.group_mut(b"g").unwrap();
        let a = group.find_consumer(b"a").unwrap();
        let (b, _) = group.get_or_create_consumer(b"b", 10);
        let mut seen = Vec::new();
        stream.read_pending(b"g", a, StreamId::MIN, 3, 20, |id, entry| seen.push((id.ms, entry.is_some())));
        assert_eq!(seen, [(1, true), (2, false), (3, true)]);

        let claim = Claim {
            consumer: b,
            min_idle_ms: 5,
            delivered_ms: 22,
            now_ms: 22,
            deliveries: None,
            just_id: false,
            force: false,
        };
        assert_eq!(stream.claim(b"g", id(1), &claim), Some(Claimed::Left));
        let taken = Pending { consumer: b, delivered_ms: 22, deliveries: 3 };
        let soon = Claim { min_idle_ms: 2, ..claim };
        assert_eq!(stream.claim(b"g", id(1), &soon), Some(Claimed::Taken(taken)));
        assert!(matches!(stream.claim(b"g", id(2), &soon), Some(Claimed::Gone(_))));
        assert_eq!(stream.claim(b"g", id(2), &soon), Some(Claimed::Left));
        assert_eq!(stream.claim(b"none", id(2), &soon), None);
        let group = stream.group(b"g").unwrap();
        assert_eq!(group.consumer(a).pending_len(), 2);
        assert_eq!(group.consumer(b).pending_len(), 1);
        let copy = stream.clone();
        assert_eq!(copy.group(b"g").unwrap().pending_len(), 3);
        stream.remove_group(b"g").unwrap();
        assert!(stream.memory_usage(0) < copy.memory_usage(0));
    }
}
