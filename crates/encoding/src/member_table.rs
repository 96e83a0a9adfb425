//! A set of byte strings: the [`Table`] over entries that hold nothing but a length and the bytes, one
//! allocation per member. For sets above the listpack's limits.
//!
//! ```text
//! u8 length up to 252 | 253 u16le | 254 u32le | 255 u64le, then the bytes
//! ```

use kara_base::hash::HashSeed;
use kara_base::rng::Rng;

use crate::raw_bytes::{allocate, free, prefix_len, read_prefix, write_prefix};
use crate::size_class::size_class;
use crate::table::{self, EntryKind, POINTER_MASK, PointerSlots, Table};

const INLINE_MAX: u8 = 252;

/// Hashes member entries.
#[derive(Clone, Copy, Debug)]
pub struct Members {
    seed: HashSeed,
}

/// # Safety
/// `entry` is the address of a member entry that lives for `'a`.
#[inline(always)]
unsafe fn member<'a>(entry: *const u8) -> &'a [u8] {
    // SAFETY: the entry is its prefix and as many bytes as that says.
    unsafe {
        let (head, len) = read_prefix(entry, INLINE_MAX, 0xff);
        std::slice::from_raw_parts(entry.add(head), len)
    }
}

fn new_entry(member: &[u8]) -> *mut u8 {
    let head = prefix_len(member.len(), INLINE_MAX);
    let entry = allocate(head + member.len());
    // SAFETY: the allocation has room for the prefix and the bytes.
    unsafe {
        write_prefix(entry, member.len(), INLINE_MAX, 0);
        entry.add(head).copy_from_nonoverlapping(member.as_ptr(), member.len());
    }
    entry
}

/// # Safety
/// `entry` came from `new_entry` and is not used afterwards.
unsafe fn free_entry(entry: *mut u8) {
    // SAFETY: the entry's size follows from its prefix.
    unsafe {
        let (head, len) = read_prefix(entry, INLINE_MAX, 0xff);
        free(entry, head + len);
    }
}

// SAFETY: an entry's bytes never change.
unsafe impl EntryKind for Members {
    unsafe fn hash(&self, entry: *const u8) -> u64 {
        // SAFETY: the trait's contract.
        self.seed.hash(unsafe { member(entry) })
    }

    unsafe fn release(&self, entry: *mut u8) {
        // SAFETY: the trait's contract.
        unsafe { free_entry(entry) }
    }
}

/// The set.
pub struct MemberTable {
    table: Table<PointerSlots<Members>>,
}

/// The member that a word of this module's tables points to.
///
/// # Safety
/// `word` stands in a table that is borrowed for `'a`.
#[inline(always)]
unsafe fn of_word<'a>(word: u64) -> &'a [u8] {
    // SAFETY: the caller's promise.
    unsafe { member((word & POINTER_MASK) as *const u8) }
}

impl MemberTable {
    pub fn new(seed: HashSeed) -> Self {
        Self::with_capacity(seed, 0)
    }

    /// As [`Table::with_capacity`].
    pub fn with_capacity(seed: HashSeed, members: usize) -> Self {
        MemberTable { table: Table::with_capacity(PointerSlots(Members { seed }), members) }
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    #[inline]
    fn hash(&self, member: &[u8]) -> u64 {
        self.table.kind().0.seed.hash(member)
    }

    #[inline]
    pub fn contains(&self, member: &[u8]) -> bool {
        // SAFETY: the table's words are living entries.
        self.table.find(self.hash(member), |word| unsafe { of_word(word) } == member).is_some()
    }

    /// True if `member` was not in the set yet.
    pub fn insert(&mut self, member: &[u8]) -> bool {
        let hash = self.hash(member);
        // SAFETY: the table's words are living entries.
        if self.table.find(hash, |word| unsafe { of_word(word) } == member).is_some() {
            return false;
        }
        // SAFETY: a new entry with that hash.
        unsafe { self.table.insert(hash, new_entry(member) as u64) };
        true
    }

    /// True if `member` was in the set.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        // SAFETY: the table's words are living entries.
        let found = self.table.find(self.hash(member), |word| unsafe { of_word(word) } == member);
        let Some(found) = found else { return false };
        self.table.remove(found);
        // SAFETY: out of the table, and nobody borrows it.
        unsafe { free_entry(found.pointer()) };
        true
    }

    /// All members, in no promised order.
    pub fn iter(&self) -> Iter<'_> {
        Iter { words: self.table.iter() }
    }

    /// A member chosen with equal chances.
    pub fn random(&self, rng: &mut Rng) -> Option<&[u8]> {
        // SAFETY: a word of the table, which the result borrows.
        self.table.random(rng).map(|word| unsafe { of_word(word) })
    }

    /// As [`Table::scan`].
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&[u8])) -> u64 {
        // SAFETY: the words are living entries.
        self.table.scan(cursor, count, |word| visit(unsafe { of_word(word) }))
    }

    /// Heap bytes, this struct included; entries are extrapolated from `samples` of them (0: all).
    pub fn memory_usage(&self, samples: usize) -> usize {
        let samples = if samples == 0 { usize::MAX } else { samples };
        let (mut seen, mut bytes) = (0u128, 0u128);
        for member in self.iter().take(samples) {
            bytes += size_class(prefix_len(member.len(), INLINE_MAX) + member.len()) as u128;
            seen += 1;
        }
        let entries = (bytes * self.len() as u128).checked_div(seen).unwrap_or(0) as usize;
        size_of::<Self>() + self.table.index_bytes() + entries
    }
}

/// All members of a [`MemberTable`].
pub struct Iter<'a> {
    words: table::Iter<'a, PointerSlots<Members>>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        // SAFETY: the words are living entries, and the iterator borrows the table.
        self.words.next().map(|word| unsafe { of_word(word) })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const SEED: HashSeed = HashSeed { k0: 1, k1: 2 };

    #[test]
    fn agrees_with_a_model() {
        let mut rng = Rng::new(21);
        let (mut set, mut model) = (MemberTable::new(SEED), HashSet::new());
        for range in [30u64, 4000, 20] {
            for _ in 0..20_000 {
                let mut member = rng.below(range).to_string().into_bytes();
                member.resize(member.len() * rng.below(3) as usize * 40, b'x');
                if rng.below(2) == 0 {
                    assert_eq!(set.insert(&member), model.insert(member));
                } else {
                    assert_eq!(set.remove(&member), model.remove(&member));
                }
            }
            let all: HashSet<Vec<u8>> = set.iter().map(<[u8]>::to_vec).collect();
            assert_eq!((all.len(), &all), (set.len(), &model));
            assert!(model.iter().all(|m| set.contains(m)));
        }
    }

    #[test]
    fn members_of_every_length_class() {
        let mut set = MemberTable::new(SEED);
        for len in [0, 1, 252, 253, 0xffff, 0x1_0000, 1 << 20] {
            let member = vec![7; len];
            assert!(set.insert(&member) && !set.insert(&member) && set.contains(&member));
        }
        assert_eq!(set.iter().map(<[u8]>::len).max(), Some(1 << 20));
        assert!(set.remove(&vec![7; 1 << 20]) && set.remove(b"") && !set.contains(b""));
        assert_eq!(set.len(), 5);
    }

    #[test]
    fn a_million_members_of_17_bytes_take_at_most_44_each() {
        let mut set = MemberTable::new(SEED);
        for i in 0..1_000_000 {
            set.insert(format!("member:{i:010}").as_bytes());
        }
        assert!(set.memory_usage(0) <= 44_000_000, "{}", set.memory_usage(0));
        assert_eq!(set.memory_usage(0), set.memory_usage(5));
    }
}
