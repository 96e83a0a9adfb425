//! The entries of a stream: blocks in a map ordered by master id, with the counters around them.
//!
//! Where a block ends is visible (approximate trimming drops whole blocks), so appending follows the reference's
//! rule exactly: a block is full when its bytes plus the new entry's reach the limit, or when it holds the
//! limit's number of entries, deleted ones included. Blocks without a live entry go, except that a trim may leave
//! one at the front (visible in XINFO until the next trim). No block's master id is above the last id.

use super::block::{Block, Entries, EntriesBack, Entry};
use super::{CorruptStream, StreamId, radix};
use std::collections::{BTreeMap, btree_map};

/// No block grows beyond this many bytes of content, whatever the limits say.
const BLOCK_MAX_BYTES: usize = 1 << 30;

/// When a block is full (`stream-node-max-bytes`, `stream-node-max-entries`); 0 means no limit.
#[derive(Clone, Copy, Debug)]
pub struct BlockLimits {
    pub max_bytes: usize,
    pub max_entries: u64,
}

impl Default for BlockLimits {
    fn default() -> Self {
        BlockLimits { max_bytes: 4096, max_entries: 100 }
    }
}

/// Why an entry couldn't be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddError {
    /// The id isn't above the last one.
    NotAbove,
    /// Fields and values are too large together.
    TooLarge,
}

/// What trimming keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrimTo {
    /// This many entries, the newest.
    MaxLen(u64),
    /// Entries with at least this id.
    MinId(StreamId),
}

/// A trim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trim {
    pub to: TrimTo,
    /// Drop whole blocks only.
    pub approximate: bool,
    /// Drop no more entries than this; 0 means no limit.
    pub limit: u64,
}

/// The counters of a stream, as RDB files hold them beside the blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// The highest id that was ever used.
    pub last_id: StreamId,
    /// The highest id that was ever deleted one by one; trimming doesn't count.
    pub max_deleted_id: StreamId,
    /// How many entries were ever added.
    pub entries_added: u64,
}

/// An ordered log of entries.
#[derive(Clone, Debug, Default)]
pub struct Log {
    blocks: BTreeMap<StreamId, Block>,
    len: u64,
    first_id: StreamId,
    state: LogState,
}

impl Log {
    pub fn new() -> Self {
        Log::default()
    }

    /// Puts a log together from what a file holds: blocks in ascending order with their master ids, and the
    /// counters. Everything is checked; blocks are copied.
    pub fn from_blocks<'a>(
        blocks: impl IntoIterator<Item = (StreamId, &'a [u8])>,
        state: LogState,
    ) -> Result<Self, CorruptStream> {
        let mut log = Log::new();
        for (master, bytes) in blocks {
            log.push_block(master, bytes)?;
        }
        log.finish_load(state)?;
        Ok(log)
    }

    /// Adds a block from outside behind all others. The log is usable only after [`Log::finish_load`].
    pub fn push_block(&mut self, master: StreamId, bytes: &[u8]) -> Result<(), CorruptStream> {
        if !self.blocks.is_empty() && master <= self.state.last_id {
            return Err(CorruptStream);
        }
        let (block, last) = Block::from_bytes(master, bytes)?;
        // A block of tombstones alone has nothing to keep, and its ids may be out of order.
        if let Some(last) = last {
            self.len += block.live();
            self.state.last_id = last;
            self.blocks.insert(master, block);
        }
        Ok(())
    }

    /// Sets the counters after the last [`Log::push_block`]; refuses a last id below the last entry.
    pub fn finish_load(&mut self, state: LogState) -> Result<(), CorruptStream> {
        if state.last_id < self.state.last_id {
            return Err(CorruptStream);
        }
        self.state = state;
        self.find_first_id();
        Ok(())
    }

    /// How many entries there are.
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The id of the first entry; 0-0 if there is none.
    pub fn first_id(&self) -> StreamId {
        self.first_id
    }

    /// The highest id that was ever used.
    pub fn last_id(&self) -> StreamId {
        self.state.last_id
    }

    /// The highest id that was ever deleted by [`Log::delete`].
    pub fn max_deleted_id(&self) -> StreamId {
        self.state.max_deleted_id
    }

    /// How many entries were ever added.
    pub fn entries_added(&self) -> u64 {
        self.state.entries_added
    }

    /// The counters in one piece.
    pub fn state(&self) -> LogState {
        self.state
    }

    /// Overwrites the counters, as XSETID does. The caller sees to it that the last id isn't below the last
    /// entry's: [`Log::last_entry_id`].
    pub fn set_state(&mut self, state: LogState) {
        debug_assert!(self.is_empty() || state.last_id >= self.last_entry_id());
        self.state = state;
        // Only tombstones can be left behind the last id; new entries must not land among them.
        while self.blocks.last_key_value().is_some_and(|(master, _)| *master > state.last_id) {
            self.blocks.pop_last();
        }
    }

    /// The id of the last entry that exists; 0-0 if there is none.
    pub fn last_entry_id(&self) -> StreamId {
        self.range_rev(StreamId::MIN, StreamId::MAX).next().map_or(StreamId::MIN, |entry| entry.id)
    }

    /// The id that an entry made now gets by itself: the time, or the last id's successor if the clock isn't
    /// beyond it. None after the highest id.
    pub fn next_id(&self, now_ms: u64) -> Option<StreamId> {
        if now_ms > self.state.last_id.ms {
            Some(StreamId::new(now_ms, 0))
        } else {
            self.state.last_id.next()
        }
    }

    /// Appends an entry of pairs of field and value.
    pub fn append(
        &mut self,
        id: StreamId,
        fields: &[(&[u8], &[u8])],
        limits: BlockLimits,
    ) -> Result<(), AddError> {
        if id <= self.state.last_id {
            return Err(AddError::NotAbove);
        }
        let bytes = fields
            .iter()
            .fold(0usize, |sum, (name, value)| sum.saturating_add(name.len()).saturating_add(value.len()));
        if bytes > BLOCK_MAX_BYTES {
            return Err(AddError::TooLarge);
        }
        match self.blocks.last_entry().filter(|last| !is_full(last.get(), bytes, limits)) {
            Some(mut last) => {
                let master = *last.key();
                last.get_mut().append(master, id, fields).ok_or(AddError::TooLarge)?;
            }
            None => {
                let block = Block::new(fields).ok_or(AddError::TooLarge)?;
                self.blocks.insert(id, block);
            }
        }
        self.len += 1;
        self.state.entries_added += 1;
        self.state.last_id = id;
        if self.len == 1 {
            self.first_id = id;
        }
        Ok(())
    }

    /// Deletes one entry; false if there is none with that id.
    pub fn delete(&mut self, id: StreamId) -> bool {
        let Some((&master, block)) = self.blocks.range_mut(..=id).next_back() else { return false };
        if !block.delete(master, id) {
            return false;
        }
        if block.live() == 0 {
            self.blocks.remove(&master);
        }
        self.len -= 1;
        self.state.max_deleted_id = self.state.max_deleted_id.max(id);
        if id == self.first_id {
            self.find_first_id();
        }
        true
    }

    /// Drops old entries; answers how many.
    pub fn trim(&mut self, trim: Trim) -> u64 {
        let mut removed = 0;
        while let Some(mut first) = self.blocks.first_entry() {
            let live = first.get().live();
            if matches!(trim.to, TrimTo::MaxLen(keep) if self.len <= keep)
                || (trim.limit > 0 && removed + live > trim.limit)
            {
                break;
            }
            let master = *first.key();
            let whole = match trim.to {
                TrimTo::MaxLen(keep) => self.len - live >= keep,
                TrimTo::MinId(keep) => first.get().last_id(master) < keep,
            };
            if whole {
                first.remove();
                self.len -= live;
                removed += live;
                continue;
            }
            if !trim.approximate {
                let len = self.len;
                let part = first.get_mut().delete_front(master, |id, gone| match trim.to {
                    TrimTo::MaxLen(keep) => len - gone <= keep,
                    TrimTo::MinId(keep) => id >= keep,
                });
                self.len -= part;
                removed += part;
            }
            break;
        }
        if removed > 0 {
            self.find_first_id();
        }
        removed
    }

    /// The entries from `start` to `end`, ascending.
    pub fn range(&self, start: StreamId, end: StreamId) -> Range<'_> {
        let blocks = (start <= end).then(|| {
            let from = self.blocks.range(..=start).next_back().map_or(start, |(&master, _)| master);
            self.blocks.range(from..=end)
        });
        Range { blocks, entries: None, start, end }
    }

    /// The entries from `end` down to `start`.
    pub fn range_rev(&self, start: StreamId, end: StreamId) -> RangeRev<'_> {
        let blocks = (start <= end).then(|| self.blocks.range(..=end));
        RangeRev { blocks, entries: None, start, end }
    }

    /// The entry with this id.
    pub fn get(&self, id: StreamId) -> Option<Entry<'_>> {
        self.range(id, id).next()
    }

    /// How many nodes the reference's radix tree would have for the blocks' master ids; XINFO shows it.
    pub fn radix_tree_nodes(&self) -> usize {
        radix::nodes(self.blocks.keys().map(|master| master.to_be_bytes()))
    }

    /// The blocks, ascending: master id and bytes as RDB files hold them.
    pub fn blocks(&self) -> impl ExactSizeIterator<Item = (StreamId, &[u8])> {
        self.blocks.iter().map(|(master, block)| (*master, block.as_bytes()))
    }

    /// How many entries, of all that were ever added, lie up to and including `id`; None where deletions hide
    /// it.
    pub fn entries_read_at(&self, id: StreamId) -> Option<u64> {
        let LogState { last_id, max_deleted_id, entries_added } = self.state;
        if entries_added == 0 {
            return Some(0);
        }
        if self.is_empty() && id <= last_id {
            return Some(entries_added);
        }
        if !id.is_zero() && id < max_deleted_id {
            return None;
        }
        if id == last_id {
            return Some(entries_added);
        }
        if id > last_id || (!max_deleted_id.is_zero() && max_deleted_id >= self.first_id) {
            return None;
        }
        // Nothing is missing between the first entry and the last one.
        match id.cmp(&self.first_id) {
            std::cmp::Ordering::Less => Some(entries_added.saturating_sub(self.len)),
            std::cmp::Ordering::Equal => Some(entries_added.saturating_sub(self.len).saturating_add(1)),
            std::cmp::Ordering::Greater => None,
        }
    }

    /// Whether an entry at or behind `start` may have been deleted one by one.
    pub fn has_tombstones_from(&self, start: StreamId) -> bool {
        !self.is_empty() && !self.state.max_deleted_id.is_zero() && start <= self.state.max_deleted_id
    }

    /// About how many bytes the log owns, itself included; looks at `samples` blocks (0: all) and takes the
    /// rest for their average.
    pub fn memory_usage(&self, samples: usize) -> usize {
        const NODE: usize = (size_of::<StreamId>() + size_of::<Block>()) * 3 / 2;
        let looked = if samples == 0 { self.blocks.len() } else { samples.min(self.blocks.len()) };
        let sampled: usize = self.blocks.values().take(looked).map(Block::allocated_bytes).sum();
        let blocks = match looked {
            0 => 0,
            // The last block is still growing and says nothing of the others.
            _ if looked < self.blocks.len() => {
                let last = self.blocks.last_key_value().map_or(0, |(_, block)| block.allocated_bytes());
                sampled / looked * (self.blocks.len() - 1) + last
            }
            _ => sampled,
        };
        size_of::<Self>() + blocks + self.blocks.len() * NODE
    }

    fn find_first_id(&mut self) {
        let first = self.range(StreamId::MIN, StreamId::MAX).next().map(|entry| entry.id);
        self.first_id = first.unwrap_or(StreamId::MIN);
    }
}

fn is_full(block: &Block, more: usize, limits: BlockLimits) -> bool {
    let max_bytes = match limits.max_bytes {
        0 => BLOCK_MAX_BYTES,
        bytes => bytes.min(BLOCK_MAX_BYTES),
    };
    block.as_bytes().len() + more >= max_bytes
        || (limits.max_entries > 0 && block.total() >= limits.max_entries)
}

/// Ascending entries; see [`Log::range`].
pub struct Range<'a> {
    blocks: Option<btree_map::Range<'a, StreamId, Block>>,
    entries: Option<Entries<'a>>,
    start: StreamId,
    end: StreamId,
}

impl<'a> Iterator for Range<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        loop {
            if let Some(entries) = &mut self.entries {
                for entry in entries {
                    if entry.id > self.end {
                        self.blocks = None;
                        break;
                    }
                    if entry.id >= self.start {
                        return Some(entry);
                    }
                }
                self.entries = None;
            }
            let (master, block) = self.blocks.as_mut()?.next()?;
            self.entries = Some(block.entries(*master));
        }
    }
}

/// Descending entries; see [`Log::range_rev`].
pub struct RangeRev<'a> {
    blocks: Option<btree_map::Range<'a, StreamId, Block>>,
    entries: Option<EntriesBack<'a>>,
    start: StreamId,
    end: StreamId,
}

impl<'a> Iterator for RangeRev<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        loop {
            if let Some(entries) = &mut self.entries {
                for entry in entries {
                    if entry.id < self.start {
                        self.blocks = None;
                        break;
                    }
                    if entry.id <= self.end {
                        return Some(entry);
                    }
                }
                self.entries = None;
            }
            let (master, block) = self.blocks.as_mut()?.next_back()?;
            if *master <= self.start {
                self.blocks = None;
            }
            self.entries = Some(block.entries_back(*master));
        }
    }
}
