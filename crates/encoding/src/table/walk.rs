//! Ways through a table: all words, a cursor that survives changes, a random word.

use kara_base::rng::Rng;

use super::segment::{LINE_SLOTS, MAX_LINES, Segment};
use super::{SlotKind, Table};

/// A cursor is the upper 48 bits of a hash: everything below it has been visited.
pub const CURSOR_BITS: u32 = 48;
const CURSOR_MASK: u64 = (1 << CURSOR_BITS) - 1;

/// Tries of a random slot before words are counted off: a sparse table, as it may be left by removals in hash
/// order. An ordinary table's chance to come here is below 1 in 10^20.
const RANDOM_TRIES: usize = 200;

/// All words, in no promised order.
pub struct Iter<'a, K: SlotKind> {
    table: &'a Table<K>,
    segment: Option<Segment<K>>,
    /// The directory index after the current segment.
    next: usize,
    slot: usize,
    stash: usize,
}

impl<K: SlotKind> Iterator for Iter<'_, K> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        loop {
            if let Some(segment) = self.segment {
                while self.slot < segment.lines * LINE_SLOTS {
                    let word = segment.word_at(self.slot);
                    self.slot += 1;
                    if word != 0 {
                        return Some(word);
                    }
                }
            }
            if self.next >> self.table.depth != 0 {
                let word = self.table.stash.get(self.stash).copied();
                self.stash += 1;
                self.segment = None;
                return word;
            }
            let segment = self.table.segment_at(self.next);
            self.next += 1 << (self.table.depth - segment.depth);
            self.segment = Some(segment);
            self.slot = K::HEADER_WORDS;
        }
    }
}

impl<K: SlotKind> Table<K> {
    pub fn iter(&self) -> Iter<'_, K> {
        Iter { table: self, segment: None, next: 0, slot: 0, stash: 0 }
    }

    /// Calls `visit` for each segment, in hash order, with a hash that falls into it and its header words, until
    /// it returns false. Words of the stash belong to no segment.
    pub fn each_segment(&self, mut visit: impl FnMut(u64, [u64; 8]) -> bool) {
        let mut index = 0;
        while index >> self.depth == 0 {
            let segment = self.segment_at(index);
            let hash = if self.depth == 0 { 0 } else { (index as u64) << (64 - self.depth) };
            if !visit(hash, segment.header()) {
                return;
            }
            index += 1 << (self.depth - segment.depth);
        }
    }

    /// The words of the segment that `hash` falls into.
    pub fn segment_words(&self, hash: u64) -> impl Iterator<Item = u64> + '_ {
        let segment = self.segment(hash).1;
        (0..segment.lines * LINE_SLOTS).map(move |at| segment.word_at(at)).filter(|&word| word != 0)
    }

    /// Words that stand outside all segments because their hashes collide; none in an honest table.
    pub fn stashed(&self) -> &[u64] {
        &self.stash
    }

    /// Calls `visit` with the words from `cursor` on, line by line, until at least `count` came or the end is
    /// reached; returns the next cursor, 0 at the end. Cursors have 48 bits; higher bits are ignored.
    ///
    /// A word that is in the table from a scan's first call to its last is visited exactly once, whatever
    /// changes in between.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(u64)) -> u64 {
        let mut cursor = cursor & CURSOR_MASK;
        let mut seen = 0;
        loop {
            cursor = self.scan_line(cursor, |word| {
                seen += 1;
                visit(word);
            });
            if cursor == 0 || seen >= count {
                return cursor;
            }
        }
    }

    /// Visits the words of the line that `cursor` points into, from `cursor` on; returns the line's end.
    pub fn scan_line(&self, cursor: u64, mut visit: impl FnMut(u64)) -> u64 {
        let cursor = cursor & CURSOR_MASK;
        let (_, segment) = self.segment(cursor << (64 - CURSOR_BITS));
        // The cursor's bits after the segment's prefix: 16 of the tag, then those that no tag knows.
        let within = (cursor << segment.depth) & CURSOR_MASK;
        let first_tag = (within >> 32) as u16;
        let between_tags = within & 0xffff_ffff != 0;
        let home = segment.home(first_tag);
        segment.each_at_home(home, |word| {
            let tag = K::tag(word, segment.depth);
            let visited = tag < first_tag
                || (between_tags && tag == first_tag && self.kind.hash(word) >> (64 - CURSOR_BITS) < cursor);
            if !visited {
                visit(word);
            }
        });
        let line = (home - Segment::<K>::FIRST + 1) as u64;
        let end_tag = (line << 16).div_ceil(segment.homes() as u64);
        let prefix = cursor & !(CURSOR_MASK >> segment.depth);
        let end = prefix + ((end_tag << 32) >> segment.depth);
        for &word in &self.stash {
            if (cursor..end).contains(&(self.kind.hash(word) >> (64 - CURSOR_BITS))) {
                visit(word);
            }
        }
        end & CURSOR_MASK
    }

    /// A word chosen with equal chances among all, `None` if there is none. Takes two or three tries of one
    /// directory word and one slot each.
    pub fn random(&self, rng: &mut Rng) -> Option<u64> {
        if self.len == 0 {
            return None;
        }
        let widest = if self.depth == 0 { self.segment_at(0).lines } else { MAX_LINES } * LINE_SLOTS;
        // Each slot of each segment, and each word of the stash, is hit with the same chance.
        let places = (widest << self.depth) + self.stash.len();
        for _ in 0..RANDOM_TRIES {
            let at = rng.below(places as u64) as usize;
            if at >= widest << self.depth {
                return self.stash.get(at - (widest << self.depth)).copied();
            }
            let (index, slot) = (at / widest, at % widest);
            let segment = self.segment_at(index);
            let span = 1usize << (self.depth - segment.depth);
            if index & (span - 1) != 0 || slot >= segment.lines * LINE_SLOTS {
                continue; // a segment counts at its first directory word only
            }
            let word = segment.word_at(slot);
            if word != 0 {
                return Some(word);
            }
        }
        self.iter().nth(rng.below(self.len as u64) as usize)
    }
}
