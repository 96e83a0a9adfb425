//! Growth, splits, shrinking and merges: one segment (or two siblings) at a time.

use super::segment::{LINE_SLOTS, MAX_LINES, Segment, next_lines};
use super::{MAX_DEPTH, SlotKind, Table};

/// A segment that holds fewer words than this share of its slots gets smaller.
const SHRINK_BELOW_PERCENT: usize = 30;
/// Siblings merge when together they hold at most this many words (of 1016 slots): far from the next split.
const MERGE_AT_MOST: usize = 560;
/// Only segments of at most this size look for a merge.
const MERGE_LINES: usize = 48;
/// The directory may have this many words per segment. Honest hashes need two or three; beyond it the hashes
/// collide by intent, and their words go to the stash.
const WORDS_PER_SEGMENT: usize = 64;
/// Entries ahead of the one that is being hashed while a segment splits.
const PREFETCH_AHEAD: usize = 12;

/// The words of one segment, on the stack.
struct Words {
    words: [u64; MAX_LINES * LINE_SLOTS],
    len: usize,
}

impl Words {
    fn new() -> Self {
        Words { words: [0; MAX_LINES * LINE_SLOTS], len: 0 }
    }

    fn push(&mut self, word: u64) {
        self.words[self.len] = word;
        self.len += 1;
    }

    fn as_slice(&self) -> &[u64] {
        &self.words[..self.len]
    }

    fn of<K: SlotKind>(segment: Segment<K>) -> Self {
        let mut words = Words::new();
        for at in 0..segment.lines * LINE_SLOTS {
            let word = segment.word_at(at);
            if word != 0 {
                words.push(word);
            }
        }
        words
    }
}

impl<K: SlotKind> Table<K> {
    /// Makes room where an insert found none: a larger segment, or a split. False if neither can help.
    #[cold]
    pub(super) fn enlarge(&mut self, index: usize, segment: Segment<K>) -> bool {
        if segment.lines < MAX_LINES {
            let words = Words::of(segment);
            if let Some(larger) = Self::build(words.as_slice(), next_lines(segment.lines), segment.depth) {
                larger.set_header(&segment.header());
                self.substitute(index, segment, larger);
                return true;
            }
        }
        self.split(index, segment)
    }

    /// A segment of at least `lines` with these words, or `None` if not even the largest takes them.
    fn build(words: &[u64], mut lines: usize, depth: u32) -> Option<Segment<K>> {
        while lines <= MAX_LINES {
            if let Some(segment) = Self::build_exactly(words, lines, depth) {
                return Some(segment);
            }
            lines = next_lines(lines);
        }
        None
    }

    fn build_exactly(words: &[u64], lines: usize, depth: u32) -> Option<Segment<K>> {
        let segment = Segment::allocate(lines, depth);
        if words.iter().all(|&word| segment.insert(word)) {
            return Some(segment);
        }
        // SAFETY: nobody else knows the segment yet; its words still stand in the old one.
        unsafe { segment.free() };
        None
    }

    /// Puts `new` in the place of `old` (same depth) and frees `old`.
    fn substitute(&mut self, index: usize, old: Segment<K>, new: Segment<K>) {
        self.point(index, new);
        self.lines = self.lines - old.lines + new.lines;
        // SAFETY: no directory word points to it any more.
        unsafe { old.free() };
    }

    /// Lets every directory word of `segment`'s prefix (found from any of its indexes) hold it.
    fn point(&mut self, index: usize, segment: Segment<K>) {
        if self.depth == 0 {
            self.only = segment.pack();
            return;
        }
        let span = 1usize << (self.depth - segment.depth);
        let first = index & !(span - 1);
        self.directory[first..first + span].fill(segment.pack());
    }

    fn split(&mut self, index: usize, old: Segment<K>) -> bool {
        let doubles = old.depth == self.depth;
        if old.depth >= MAX_DEPTH
            || (doubles && (2usize << self.depth) > WORDS_PER_SEGMENT * (self.segments + 1))
        {
            return false;
        }
        let depth = old.depth + 1;
        let words = Words::of(old);
        for &word in words.as_slice().iter().take(PREFETCH_AHEAD) {
            self.kind.prefetch(word);
        }
        let mut halves = [Words::new(), Words::new()];
        for (i, &word) in words.as_slice().iter().enumerate() {
            if let Some(&ahead) = words.as_slice().get(i + PREFETCH_AHEAD) {
                self.kind.prefetch(ahead);
            }
            let upper = usize::from(K::tag(word, old.depth) >> 15);
            halves[upper].push(K::place(word, self.kind.hash(word), depth));
        }
        let build = |half: &Words| Self::build(half.as_slice(), Segment::<K>::lines_for(half.len), depth);
        // Not even the largest segment takes a half only where hashes collide: the words stay as they are.
        let Some(lower) = build(&halves[0]) else { return false };
        let Some(upper) = build(&halves[1]) else {
            // SAFETY: not in the directory yet.
            unsafe { lower.free() };
            return false;
        };
        let header = old.header();
        lower.set_header(&header);
        upper.set_header(&header);
        let mut first = index & !((1usize << (self.depth - old.depth)) - 1);
        if doubles {
            self.double();
            first *= 2;
        }
        let half = 1usize << (self.depth - depth);
        self.directory[first..first + half].fill(lower.pack());
        self.directory[first + half..first + 2 * half].fill(upper.pack());
        self.lines = self.lines - old.lines + lower.lines + upper.lines;
        self.segments += 1;
        if depth == self.depth {
            self.deepest += 2;
        }
        // SAFETY: no directory word points to it any more.
        unsafe { old.free() };
        true
    }

    fn double(&mut self) {
        if self.depth == 0 {
            self.directory = vec![self.only; 2];
        } else {
            let mut directory = Vec::with_capacity(self.directory.len() * 2);
            directory.extend(self.directory.iter().flat_map(|&word| [word, word]));
            self.directory = directory;
        }
        self.depth += 1;
        self.deepest = 0;
    }

    /// After a removal from `segment`: a smaller segment, or a merge with the sibling. Tried at every 8th or
    /// 32nd count only: where members leave in hash order, what is left crowds one end and may not fit.
    #[inline]
    pub(super) fn relax(&mut self, index: usize, segment: Segment<K>) {
        let count = segment.count();
        if count * 100 < segment.capacity() * SHRINK_BELOW_PERCENT
            && count.is_multiple_of(if count < 64 { 8 } else { 32 })
            && (segment.lines > Segment::<K>::MIN_LINES || segment.depth > 0)
        {
            self.shrink(index, segment);
        }
    }

    #[cold]
    fn shrink(&mut self, index: usize, segment: Segment<K>) {
        if self.merge_upwards(segment, index) {
            return;
        }
        let count = segment.count();
        let lines = Segment::<K>::lines_for(count + count / 8);
        let words = Words::of(segment);
        // The second size is for words that crowd one half.
        for lines in [lines, Segment::<K>::lines_for(2 * count)] {
            if lines >= segment.lines {
                return;
            }
            if let Some(smaller) = Self::build_exactly(words.as_slice(), lines, segment.depth) {
                smaller.set_header(&segment.header());
                return self.substitute(index, segment, smaller);
            }
        }
    }

    /// Merges with the sibling, and the result with its own, as long as they are small.
    fn merge_upwards(&mut self, mut segment: Segment<K>, index: usize) -> bool {
        // The directory may halve: the prefix finds the segment again.
        let prefix = if self.depth == 0 { 0 } else { (index as u64) << (64 - self.depth) };
        let mut merged = false;
        while segment.depth > 0 && segment.lines <= MERGE_LINES && self.merge(self.index(prefix), segment) {
            merged = true;
            segment = self.segment_at(self.index(prefix));
        }
        merged
    }

    fn merge(&mut self, index: usize, segment: Segment<K>) -> bool {
        let span = 1usize << (self.depth - segment.depth);
        let first = index & !(2 * span - 1);
        let (lower, upper) = (self.segment_at(first), self.segment_at(first + span));
        let count = lower.count() + upper.count();
        if lower.depth != upper.depth || count > MERGE_AT_MOST {
            return false;
        }
        let mut words = Words::new();
        for (half, is_upper) in [(lower, false), (upper, true)] {
            for &word in Words::of(half).as_slice() {
                words.push(K::widen(word, is_upper));
            }
        }
        let depth = segment.depth - 1;
        let lines = Segment::<K>::lines_for(count + count / 8);
        let Some(merged) = Self::build_exactly(words.as_slice(), lines, depth) else { return false };
        merged.set_header(&K::merge_headers(lower.header(), upper.header()));
        self.point(first, merged);
        self.lines = self.lines - lower.lines - upper.lines + merged.lines;
        self.segments -= 1;
        if segment.depth == self.depth {
            self.deepest -= 2;
        }
        // SAFETY: no directory word points to them any more.
        unsafe {
            lower.free();
            upper.free();
        }
        while self.depth > 0 && self.deepest == 0 {
            self.halve();
        }
        true
    }

    /// Every segment appears at least twice in the directory: drops every second word.
    fn halve(&mut self) {
        self.depth -= 1;
        if self.depth == 0 {
            self.only = self.directory[0];
            self.directory = Vec::new();
        } else {
            self.directory = self.directory.iter().copied().step_by(2).collect();
        }
        self.deepest = 0;
        let mut index = 0;
        while index < 1 << self.depth {
            let depth = self.segment_at(index).depth;
            self.deepest += usize::from(depth == self.depth);
            index += 1 << (self.depth - depth);
        }
    }
}
