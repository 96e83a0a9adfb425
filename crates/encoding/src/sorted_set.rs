//! A large sorted set: the order (`btree`) and an index by member (`table`) over the same entries.
//!
//! Each member's bytes exist once, in an entry that the tree owns; the index holds 48-bit pointers to entries. This
//! is where the two are kept in step: the index forgets a pointer before the tree frees what it points to.

use crate::btree::{Bound, Entry, Iter, Tree};
use crate::table::{EntryKind, Found, PointerSlots, Table};
use kara_base::hash::HashSeed;
use kara_base::rng::Rng;

/// How the index hashes what its pointers point to.
struct Members {
    seed: HashSeed,
}

// SAFETY: an entry's member never changes.
unsafe impl EntryKind for Members {
    unsafe fn hash(&self, entry: *const u8) -> u64 {
        // SAFETY: the index holds addresses of the tree's live entries only.
        self.seed.hash(unsafe { Entry::from_addr(entry as u64).member() })
    }

    unsafe fn release(&self, _entry: *mut u8) {
        // The tree owns the entries.
    }
}

/// What `upsert` found and left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Upsert {
    pub old: Option<f64>,
    pub new: Option<f64>,
}

/// Members with scores, ordered by (score, member), found by member. Scores are never NaN.
pub struct SortedSet {
    // Dropped before the tree: it must not outlive the entries.
    index: Table<PointerSlots<Members>>,
    tree: Tree,
}

impl SortedSet {
    /// An empty set.
    pub fn new(seed: HashSeed) -> SortedSet {
        SortedSet { index: Table::new(PointerSlots(Members { seed })), tree: Tree::new() }
    }

    /// A set of distinct members that come in ascending order of (score, member). Faster and tighter than inserts.
    pub fn from_sorted<'a>(seed: HashSeed, items: impl IntoIterator<Item = (f64, &'a [u8])>) -> SortedSet {
        let tree = Tree::from_sorted(items);
        let mut index = Table::new(PointerSlots(Members { seed }));
        let mut entries = tree.range(0, tree.len(), false);
        while let Some(entry) = entries.next_entry() {
            // SAFETY: the tree's entries are live, and stay until the index has dropped them.
            unsafe { index.insert(seed.hash(entry.member()), entry.addr()) };
        }
        SortedSet { index, tree }
    }

    fn seed(&self) -> HashSeed {
        self.index.kind().0.seed
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.tree.len()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.tree.is_empty()
    }

    #[inline]
    fn find(&self, hash: u64, member: &[u8]) -> Option<(Found, Entry)> {
        // SAFETY: the index's words are addresses of live entries.
        let entry = |word: u64| unsafe { Entry::from_addr(word & crate::table::POINTER_MASK) };
        // SAFETY: as above.
        let found = self.index.find(hash, |word| unsafe { entry(word).member() } == member)?;
        Some((found, entry(found.word())))
    }

    /// The member's score.
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        // SAFETY: the index finds live entries.
        self.find(self.seed().hash(member), member).map(|(_, entry)| unsafe { entry.score() })
    }

    /// Adds or rescores `member`: `decide` gets its score, if it has one, and gives the new one, or `None` to leave
    /// everything as it is. The new score is not NaN.
    pub fn upsert(&mut self, member: &[u8], decide: impl FnOnce(Option<f64>) -> Option<f64>) -> Upsert {
        let hash = self.seed().hash(member);
        let Some((_, entry)) = self.find(hash, member) else {
            let new = decide(None);
            if let Some(score) = new {
                let entry = self.tree.insert(score, member);
                // SAFETY: the entry is live until `remove` or `remove_range`, which forget it here first.
                unsafe { self.index.insert(hash, entry.addr()) };
            }
            return Upsert { old: None, new };
        };
        // SAFETY: the index finds live entries.
        let old = unsafe { entry.score() };
        let new = decide(Some(old));
        if let Some(score) = new
            && score.to_bits() != old.to_bits()
        {
            // SAFETY: a live entry of this tree.
            unsafe { self.tree.rescore(entry, score) };
        }
        Upsert { old: Some(old), new }
    }

    /// Adds a member, or gives it another score.
    pub fn set(&mut self, member: &[u8], score: f64) {
        self.upsert(member, |_| Some(score));
    }

    /// Removes a member; its score.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let (found, entry) = self.find(self.seed().hash(member), member)?;
        self.index.remove(found);
        // SAFETY: out of the index, but the tree still owns it.
        let score = unsafe { entry.score() };
        let rank = self.tree.rank_of(&Bound::before_entry(score, member));
        self.tree.remove_entries(rank, 1, |gone| debug_assert!(gone == entry));
        Some(score)
    }

    /// The member's place in ascending order, and its score.
    pub fn rank(&self, member: &[u8]) -> Option<(usize, f64)> {
        let score = self.score(member)?;
        Some((self.tree.rank_of(&Bound::before_entry(score, member)), score))
    }

    /// How many items stand before `bound`.
    pub fn rank_of(&self, bound: &Bound) -> usize {
        self.tree.rank_of(bound)
    }

    /// Member and score of a rank.
    pub fn get(&self, rank: usize) -> Option<(&[u8], f64)> {
        self.tree.get(rank)
    }

    /// The items of ranks `start..start + n`, cut at the end; highest first if `reverse`.
    pub fn range(&self, start: usize, n: usize, reverse: bool) -> Iter<'_> {
        self.tree.range(start, n, reverse)
    }

    /// Removes the items of ranks `start..start + n`, cut at the end; `gone` sees each, in ascending order.
    pub fn remove_range(&mut self, start: usize, n: usize, mut gone: impl FnMut(&[u8], f64)) {
        let seed = self.seed();
        let all = start == 0 && n >= self.len();
        if all {
            self.index.clear();
        }
        let index = &mut self.index;
        self.tree.remove_entries(start, n, |entry| {
            // SAFETY: the tree hands over live entries.
            let (member, score) = unsafe { (entry.member(), entry.score()) };
            gone(member, score);
            if !all {
                let address = entry.addr();
                let found =
                    index.find(seed.hash(member), |word| word & crate::table::POINTER_MASK == address);
                index.remove(found.expect("every entry of the tree is in the index"));
            }
        });
    }

    /// A random item.
    pub fn random(&self, rng: &mut Rng) -> Option<(&[u8], f64)> {
        self.get(rng.below(self.len() as u64) as usize)
    }

    /// Visits at least `count` items from `cursor` on (0 to begin), in no promised order; the next cursor, 0 at the
    /// end. What is in the set from the first call to the last is visited.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&[u8], f64)) -> u64 {
        self.index.scan(cursor, count, |word| {
            // SAFETY: the index's words are addresses of live entries.
            let entry = unsafe { Entry::from_addr(word & crate::table::POINTER_MASK) };
            // SAFETY: as above.
            unsafe { visit(entry.member(), entry.score()) }
        })
    }

    /// Bytes of the set: structures exactly, entries extrapolated from the first `samples` (0: all of them).
    pub fn memory_usage(&self, samples: usize) -> usize {
        let samples = if samples == 0 { self.len() } else { samples.min(self.len()) };
        let mut entries = self.tree.range(0, samples, false);
        let mut bytes = 0;
        while let Some(entry) = entries.next_entry() {
            // SAFETY: the tree's entries are live. Allocations come in steps of 16 bytes and coarser.
            bytes += unsafe { entry.alloc_size() }.next_multiple_of(16);
        }
        let entries = (bytes as u128 * self.len() as u128 / samples.max(1) as u128) as usize;
        size_of::<Self>() + self.index.index_bytes() + self.tree.node_bytes() + entries
    }
}

impl Clone for SortedSet {
    fn clone(&self) -> SortedSet {
        SortedSet::from_sorted(
            self.seed(),
            self.range(0, self.len(), false).map(|(member, score)| (score, member)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const SEED: HashSeed = HashSeed { k0: 1, k1: 2 };

    fn check(set: &SortedSet, model: &BTreeMap<Vec<u8>, f64>) {
        let mut want: Vec<(f64, &[u8])> = model.iter().map(|(m, &s)| (s, m.as_slice())).collect();
        want.sort_by(|a, b| a.partial_cmp(b).unwrap());
        let got: Vec<(f64, &[u8])> = set.range(0, usize::MAX, false).map(|(m, s)| (s, m)).collect();
        assert_eq!(got, want);
        assert_eq!(set.index.len(), model.len());
        for (rank, (score, member)) in want.into_iter().enumerate() {
            assert_eq!(set.rank(member), Some((rank, score)));
        }
        let (mut cursor, mut seen) = (0, BTreeMap::new());
        loop {
            cursor = set.scan(cursor, 10, |m, s| assert!(seen.insert(m.to_vec(), s).is_none()));
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(&seen, model);
    }

    #[test]
    fn order_and_index_stay_in_step() {
        let mut rng = Rng::new(11);
        let (mut set, mut model) = (SortedSet::new(SEED), BTreeMap::new());
        for step in 0..30_000 {
            let growing = step % 10_000 < 6_000;
            let member = rng.below(4_000).to_string().into_bytes();
            match rng.below(10) {
                0..5 if growing => {
                    let score = rng.below(1000) as f64;
                    let found = set.upsert(&member, |_| Some(score));
                    assert_eq!(found, Upsert { old: model.insert(member, score), new: Some(score) });
                }
                5 => {
                    let add = rng.below(3) as f64 - 1.0;
                    set.upsert(&member, |old| old.map(|score| score + add));
                    model.entry(member).and_modify(|score| *score += add);
                }
                6 if !growing => {
                    let (start, n) = (rng.below(model.len() as u64 + 1) as usize, rng.below(30) as usize);
                    set.remove_range(start, n, |m, s| assert_eq!(model.remove(m), Some(s)));
                }
                7 => assert_eq!(set.random(&mut rng).is_some(), !model.is_empty()),
                _ => assert_eq!(set.remove(&member), model.remove(&member)),
            }
            assert_eq!(set.len(), model.len());
            if step % 3_000 == 0 {
                check(&set, &model);
                check(&set.clone(), &model);
            }
        }
        check(&set, &model);
        set.remove_range(0, usize::MAX, |m, s| assert_eq!(model.remove(m), Some(s)));
        check(&set, &model);
        set.set(b"again", 1.0);
        assert_eq!(set.score(b"again"), Some(1.0));
    }
}
