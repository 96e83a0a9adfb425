//! A set of 64-bit integers in 8-byte slots: the table's words are the integers themselves, under a keyed
//! permutation of 64 bits, so that a word is at once the member and its hash. Nobody who doesn't know the key
//! can choose integers that collide. For sets above the intset's limit.

use kara_base::hash::HashSeed;
use kara_base::rng::Rng;

use crate::table::{self, SlotKind, Table};

/// Rounds of the permutation: Speck64's round function; full diffusion takes about seven.
const ROUNDS: usize = 10;

/// Words that are their own hash.
#[derive(Clone, Debug)]
pub struct IntSlots {
    keys: [u32; ROUNDS],
}

impl IntSlots {
    fn new(seed: HashSeed) -> Self {
        IntSlots { keys: std::array::from_fn(|i| seed.hash(&[i as u8]) as u32) }
    }

    #[inline]
    fn scramble(&self, value: i64) -> u64 {
        let (mut x, mut y) = ((value as u64 >> 32) as u32, value as u32);
        for key in self.keys {
            x = x.rotate_right(8).wrapping_add(y) ^ key;
            y = y.rotate_left(3) ^ x;
        }
        u64::from(x) << 32 | u64::from(y)
    }

    #[inline]
    fn unscramble(&self, word: u64) -> i64 {
        let (mut x, mut y) = ((word >> 32) as u32, word as u32);
        for key in self.keys.iter().rev() {
            y = (y ^ x).rotate_right(3);
            x = (x ^ key).wrapping_sub(y).rotate_left(8);
        }
        (u64::from(x) << 32 | u64::from(y)) as i64
    }
}

impl SlotKind for IntSlots {
    const MASK: u64 = u64::MAX;

    #[inline(always)]
    fn tag(word: u64, depth: u32) -> u16 {
        ((word << depth) >> 48) as u16
    }

    #[inline(always)]
    fn place(_word: u64, hash: u64, _depth: u32) -> u64 {
        hash
    }

    fn widen(word: u64, _upper: bool) -> u64 {
        word
    }

    fn hash(&self, word: u64) -> u64 {
        word
    }
}

/// The set.
pub struct IntTable {
    table: Table<IntSlots>,
    /// Whether the one integer is a member whose scrambled form is 0, which no slot can hold.
    has_zero: bool,
}

impl IntTable {
    pub fn new(seed: HashSeed) -> Self {
        IntTable { table: Table::new(IntSlots::new(seed)), has_zero: false }
    }

    pub fn len(&self) -> usize {
        self.table.len() + usize::from(self.has_zero)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn contains(&self, value: i64) -> bool {
        let word = self.table.kind().scramble(value);
        if word == 0 { self.has_zero } else { self.table.find(word, |_| true).is_some() }
    }

    /// True if `value` was not a member yet.
    pub fn insert(&mut self, value: i64) -> bool {
        let word = self.table.kind().scramble(value);
        if word == 0 {
            return !std::mem::replace(&mut self.has_zero, true);
        }
        if self.table.find(word, |_| true).is_some() {
            return false;
        }
        // SAFETY: a word of this table stands for nothing beyond itself.
        unsafe { self.table.insert(word, word) };
        true
    }

    /// True if `value` was a member.
    pub fn remove(&mut self, value: i64) -> bool {
        let word = self.table.kind().scramble(value);
        if word == 0 {
            return std::mem::replace(&mut self.has_zero, false);
        }
        match self.table.find(word, |_| true) {
            Some(found) => {
                self.table.remove(found);
                true
            }
            None => false,
        }
    }

    /// All members, in no promised order.
    pub fn iter(&self) -> Iter<'_> {
        let zero = self.has_zero.then(|| self.table.kind().unscramble(0));
        Iter { kind: self.table.kind(), words: self.table.iter(), zero }
    }

    /// A member chosen with equal chances.
    pub fn random(&self, rng: &mut Rng) -> Option<i64> {
        let kind = self.table.kind();
        if self.has_zero && rng.below(self.len() as u64) == 0 {
            return Some(kind.unscramble(0));
        }
        self.table.random(rng).map(|word| kind.unscramble(word))
    }

    /// As [`Table::scan`].
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(i64)) -> u64 {
        let kind = self.table.kind();
        if cursor == 0 && self.has_zero {
            visit(kind.unscramble(0));
        }
        self.table.scan(cursor, count, |word| visit(kind.unscramble(word)))
    }

    /// Heap bytes, this struct included.
    pub fn memory_usage(&self) -> usize {
        size_of::<Self>() + self.table.index_bytes()
    }
}

/// All members of an [`IntTable`].
pub struct Iter<'a> {
    kind: &'a IntSlots,
    words: table::Iter<'a, IntSlots>,
    zero: Option<i64>,
}

impl Iterator for Iter<'_> {
    type Item = i64;

    #[inline]
    fn next(&mut self) -> Option<i64> {
        self.words.next().map(|word| self.kind.unscramble(word)).or_else(|| self.zero.take())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const SEED: HashSeed = HashSeed { k0: 1, k1: 2 };

    #[test]
    fn the_permutation_inverts() {
        let kind = IntSlots::new(SEED);
        let mut rng = Rng::new(3);
        for value in
            [0, 1, -1, i64::MIN, i64::MAX].into_iter().chain((0..1000).map(|_| rng.next_u64() as i64))
        {
            assert_eq!(kind.unscramble(kind.scramble(value)), value);
        }
    }

    #[test]
    fn the_value_that_scrambles_to_zero_is_a_member_like_others() {
        let mut set = IntTable::new(SEED);
        let zero = set.table.kind().unscramble(0);
        assert!(!set.contains(zero) && !set.remove(zero));
        assert!(set.insert(zero) && !set.insert(zero) && set.contains(zero));
        assert_eq!(set.iter().collect::<Vec<_>>(), [zero]);
        assert_eq!(set.random(&mut Rng::new(1)), Some(zero));
        let mut seen = Vec::new();
        assert_eq!(set.scan(0, 10, |v| seen.push(v)), 0);
        assert_eq!(seen, [zero]);
        assert!(set.remove(zero) && set.is_empty());
    }

    #[test]
    fn agrees_with_a_model() {
        let mut rng = Rng::new(11);
        let (mut set, mut model) = (IntTable::new(SEED), HashSet::new());
        for range in [50u64, 5000, 40, 100_000, 10] {
            for _ in 0..20_000 {
                let near = rng.below(range) as i64 - (range / 2) as i64;
                // At the edges of every width, too.
                let value = match rng.below(4) {
                    0 => (1i64 << rng.below(64)).wrapping_add(near % 3),
                    1 => (-1i64 << rng.below(64)).wrapping_add(near % 3),
                    _ => near,
                };
                if rng.below(2) == 0 {
                    assert_eq!(set.insert(value), model.insert(value));
                } else {
                    assert_eq!(set.remove(value), model.remove(&value));
                }
            }
            assert_eq!(set.len(), model.len());
            assert_eq!(set.iter().collect::<HashSet<_>>(), model);
        }
    }

    #[test]
    fn a_million_integers_take_at_most_twelve_bytes_each() {
        let mut set = IntTable::new(SEED);
        for value in 0..1_000_000 {
            set.insert(value);
        }
        assert!(set.memory_usage() < 12_000_000, "{}", set.memory_usage());
    }
}
