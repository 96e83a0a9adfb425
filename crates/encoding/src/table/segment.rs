//! One segment: a run of cache lines, each a bucket of eight 8-byte slots, in one allocation.
//!
//! A word's home line follows from its tag alone (a range map of the 16 tag bits over the lines), so a segment
//! can change its size without looking at the entries. A word sits in its home line or up to `REACH` lines
//! after it (cyclically), and this holds always: *every line between a word's home and its place is full*.
//! A search may therefore stop at the first line with an empty slot.
//!
//! Layout: `HEADER_WORDS` words (word 0: count in the low 16 bits, the rest the user's), then slots; a slot of
//! 0 is empty. With eight header words the first line is the header alone.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::ptr::NonNull;

use super::SlotKind;

/// Slots of one line.
pub(super) const LINE_SLOTS: usize = 8;
/// Lines of the largest segment: 8 KB.
pub(super) const MAX_LINES: usize = 128;
/// How many lines past its home a word may sit. With 3, segments of 8 KB fill to about 92 %.
const REACH: usize = 3;

const COUNT_MASK: u64 = 0xffff;

/// A segment as its directory word describes it. `Copy`: whoever holds the table owns it.
pub(super) struct Segment<K> {
    ptr: NonNull<u64>,
    pub lines: usize,
    pub depth: u32,
    kind: PhantomData<K>,
}

impl<K> Clone for Segment<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K> Copy for Segment<K> {}

/// Where a word stands in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub line: usize,
    pub slot: usize,
}

/// The size class after `lines`: jemalloc's classes from 64 bytes to 8 KB that are multiples of a line.
pub(super) fn next_lines(lines: usize) -> usize {
    if lines < 8 { lines + 1 } else { lines + (1 << (lines.ilog2() - 2)) }
}

impl<K: SlotKind> Segment<K> {
    /// The first line that holds slots.
    pub const FIRST: usize = K::HEADER_WORDS / LINE_SLOTS;
    const FIRST_SLOT: usize = K::HEADER_WORDS % LINE_SLOTS;
    pub const MIN_LINES: usize = Self::FIRST + 1;

    /// The smallest size whose slots `count` words fill to at most 7/8.
    pub fn lines_for(count: usize) -> usize {
        let slots = count + count / 7 + 1 + Self::FIRST_SLOT;
        let wanted = (slots.div_ceil(LINE_SLOTS) + Self::FIRST).min(MAX_LINES);
        let mut lines = Self::MIN_LINES;
        while lines < wanted {
            lines = next_lines(lines);
        }
        lines
    }

    fn layout(lines: usize) -> Layout {
        // SAFETY: the alignment is a power of two and the size at most 8 KB.
        unsafe { Layout::from_size_align_unchecked(lines * 64, 64) }
    }

    /// A new segment without words.
    pub fn allocate(lines: usize, depth: u32) -> Self {
        debug_assert!((Self::MIN_LINES..=MAX_LINES).contains(&lines));
        let layout = Self::layout(lines);
        // SAFETY: the layout's size is not zero.
        let ptr = unsafe { alloc_zeroed(layout) };
        let Some(ptr) = NonNull::new(ptr.cast::<u64>()) else { handle_alloc_error(layout) };
        assert!(ptr.as_ptr() as u64 >> 48 == 0, "addresses have 48 bits");
        Segment { ptr, lines, depth, kind: PhantomData }
    }

    /// Gives the memory back; the words are not looked at.
    ///
    /// # Safety
    /// No copy of this segment is used afterwards.
    pub unsafe fn free(self) {
        // SAFETY: allocated with this layout; the caller vouches that this is the last use.
        unsafe { dealloc(self.ptr.as_ptr().cast(), Self::layout(self.lines)) }
    }

    /// The directory word: address (48 bits), lines (8), depth (8).
    #[inline]
    pub fn pack(self) -> u64 {
        self.ptr.as_ptr() as u64 | (self.lines as u64) << 48 | u64::from(self.depth) << 56
    }

    /// # Safety
    /// `word` came from `pack` of a segment that is still allocated.
    #[inline]
    pub unsafe fn unpack(word: u64) -> Self {
        // SAFETY: `pack` stored a non-null address in these bits.
        let ptr = unsafe { NonNull::new_unchecked((word & super::POINTER_MASK) as *mut u64) };
        Segment { ptr, lines: (word >> 48 & 0xff) as usize, depth: (word >> 56) as u32, kind: PhantomData }
    }

    #[inline]
    fn word_ptr(self, line: usize, slot: usize) -> *mut u64 {
        debug_assert!(line < self.lines && slot < LINE_SLOTS);
        // SAFETY: within the allocation, as every caller derives `line` from `home` or `next`.
        unsafe { self.ptr.as_ptr().add(line * LINE_SLOTS + slot) }
    }

    #[inline]
    pub fn get(self, place: Place) -> u64 {
        // SAFETY: a valid address (see `word_ptr`); the table's borrow rules exclude concurrent writers.
        unsafe { *self.word_ptr(place.line, place.slot) }
    }

    #[inline]
    pub fn set(self, place: Place, word: u64) {
        // SAFETY: as in `get`; whoever can call this holds the table mutably.
        unsafe { *self.word_ptr(place.line, place.slot) = word }
    }

    #[inline]
    pub fn count(self) -> usize {
        // SAFETY: every segment has at least one line, whose first word is the header.
        (unsafe { *self.ptr.as_ptr() } & COUNT_MASK) as usize
    }

    fn add_count(self, delta: i64) {
        // SAFETY: as in `count`. The count stays within 0..=1023, so it never carries into the user's bits.
        unsafe { *self.ptr.as_ptr() = (*self.ptr.as_ptr()).wrapping_add(delta as u64) }
    }

    /// The header's words; the low 16 bits of the first are the count.
    pub fn header(self) -> [u64; LINE_SLOTS] {
        let mut header = [0; LINE_SLOTS];
        for (i, word) in header.iter_mut().enumerate().take(K::HEADER_WORDS) {
            *word = self.get(Place { line: 0, slot: i });
        }
        header
    }

    /// Overwrites the header's words except for the count.
    pub fn set_header(self, header: &[u64; LINE_SLOTS]) {
        let count = self.count() as u64;
        for (i, word) in header.iter().enumerate().take(K::HEADER_WORDS) {
            let word = if i == 0 { (word & !COUNT_MASK) | count } else { *word };
            self.set(Place { line: 0, slot: i }, word);
        }
    }

    #[inline]
    pub fn homes(self) -> usize {
        self.lines - Self::FIRST
    }

    /// Slots that can hold words.
    #[inline]
    pub fn capacity(self) -> usize {
        self.homes() * LINE_SLOTS - Self::FIRST_SLOT
    }

    #[inline]
    pub fn home(self, tag: u16) -> usize {
        Self::FIRST + ((usize::from(tag) * self.homes()) >> 16)
    }

    #[inline]
    fn next(self, line: usize) -> usize {
        if line + 1 == self.lines { Self::FIRST } else { line + 1 }
    }

    #[inline]
    fn ahead(self, line: usize, by: usize) -> usize {
        let to = line + by;
        if to >= self.lines { to - self.homes() } else { to }
    }

    #[inline]
    fn behind(self, line: usize, by: usize) -> usize {
        if line >= by + Self::FIRST { line - by } else { line + self.homes() - by }
    }

    /// Lines from `from` forward to `to`.
    #[inline]
    fn distance(self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.homes() - from }
    }

    #[inline]
    fn reach(self) -> usize {
        REACH.min(self.homes() - 1)
    }

    /// The slots of a line that may hold words, as bits.
    #[inline]
    fn usable(line: usize) -> u32 {
        if line == Self::FIRST { 0xff & (0xff << Self::FIRST_SLOT) } else { 0xff }
    }

    /// Which slots of `line` satisfy `test`, as bits.
    #[inline(always)]
    fn mask(self, line: usize, test: impl Fn(u64) -> bool) -> u32 {
        // SAFETY: a line within the allocation (see `word_ptr`), 64 bytes of initialized words.
        let words = unsafe { &*self.word_ptr(line, 0).cast::<[u64; LINE_SLOTS]>() };
        let mut mask = 0;
        for (i, word) in words.iter().enumerate() {
            mask |= u32::from(test(*word)) << i;
        }
        mask & Self::usable(line)
    }

    #[inline]
    fn empty_slot(self, line: usize) -> Option<usize> {
        let empty = self.mask(line, |w| w == 0);
        (empty != 0).then(|| empty.trailing_zeros() as usize)
    }

    /// The place of the first word that agrees with `probe` in `K::MASK` and that `eq` accepts.
    #[inline]
    pub fn find(self, tag: u16, probe: u64, mut eq: impl FnMut(u64) -> bool) -> Option<Place> {
        let mut line = self.home(tag);
        for _ in 0..=self.reach() {
            let mut hits = self.mask(line, |w| (w ^ probe) & K::MASK == 0 && w != 0);
            while hits != 0 {
                let place = Place { line, slot: hits.trailing_zeros() as usize };
                if eq(self.get(place)) {
                    return Some(place);
                }
                hits &= hits - 1;
            }
            if self.mask(line, |w| w == 0) != 0 {
                return None;
            }
            line = self.next(line);
        }
        None
    }

    /// Stores `word`; false where no arrangement within reach was found (then nothing has changed but the
    /// places of other words).
    pub fn insert(self, word: u64) -> bool {
        let home = self.home(K::tag(word, self.depth));
        let (mut line, mut dist) = (home, 0);
        let mut slot = loop {
            if let Some(slot) = self.empty_slot(line) {
                break slot;
            }
            dist += 1;
            if dist >= self.homes() {
                return false;
            }
            line = self.next(line);
        };
        // The hole is too far: move words that may sit there into it, until the hole is within reach.
        let reach = self.reach();
        while dist > reach {
            let Some((back, place)) = self.movable_to(line, reach) else {
                self.close_hole(Place { line, slot });
                return false;
            };
            self.set(Place { line, slot }, self.get(place));
            self.set(place, 0);
            (line, slot) = (place.line, place.slot);
            dist -= back;
        }
        self.set(Place { line, slot }, word);
        self.add_count(1);
        true
    }

    /// A word in the `reach` lines before `line` that may also sit in `line`: the farthest back first.
    fn movable_to(self, line: usize, reach: usize) -> Option<(usize, Place)> {
        for back in (1..=reach).rev() {
            let from = self.behind(line, back);
            let fits = self.mask(from, |w| {
                let home = self.home(K::tag(w, self.depth));
                self.distance(home, line) <= reach
            });
            if fits != 0 {
                return Some((back, Place { line: from, slot: fits.trailing_zeros() as usize }));
            }
        }
        None
    }

    /// Removes the word at `place`.
    pub fn remove(self, place: Place) {
        let was_full = self.empty_slot(place.line).is_none();
        self.set(place, 0);
        self.add_count(-1);
        if was_full {
            self.close_hole(place);
        }
    }

    /// An otherwise full line has an empty slot now: draws back a word that had passed over the line, if there
    /// is one, and so on for the hole that this leaves.
    fn close_hole(self, mut hole: Place) {
        'hole: loop {
            for by in 1..=self.reach() {
                let line = self.ahead(hole.line, by);
                let passed = self
                    .mask(line, |w| w != 0 && self.distance(self.home(K::tag(w, self.depth)), line) >= by);
                if passed != 0 {
                    let place = Place { line, slot: passed.trailing_zeros() as usize };
                    let line_was_full = self.empty_slot(line).is_none();
                    self.set(hole, self.get(place));
                    self.set(place, 0);
                    if !line_was_full {
                        return;
                    }
                    hole = place;
                    continue 'hole;
                }
                if self.empty_slot(line).is_some() {
                    return;
                }
            }
            return;
        }
    }

    /// Calls `f` with the words whose home is `line`.
    pub fn each_at_home(self, home: usize, mut f: impl FnMut(u64)) {
        let mut line = home;
        for _ in 0..=self.reach() {
            let mut mine = self.mask(line, |w| w != 0 && self.home(K::tag(w, self.depth)) == home);
            while mine != 0 {
                f(self.get(Place { line, slot: mine.trailing_zeros() as usize }));
                mine &= mine - 1;
            }
            if self.empty_slot(line).is_some() {
                return;
            }
            line = self.next(line);
        }
    }

    /// The word at slot `index` of `0..lines * 8`, counted over the whole segment; 0 for the header.
    #[inline]
    pub fn word_at(self, index: usize) -> u64 {
        if index < K::HEADER_WORDS {
            return 0;
        }
        self.get(Place { line: index / LINE_SLOTS, slot: index % LINE_SLOTS })
    }

    /// Asks for the home line of `tag`.
    #[inline]
    pub fn prefetch(self, tag: u16) {
        super::prefetch(self.word_ptr(self.home(tag), 0).cast());
    }

    #[cfg(test)]
    pub fn check(self) {
        let mut seen = 0;
        for index in K::HEADER_WORDS..self.lines * LINE_SLOTS {
            let word = self.word_at(index);
            if word == 0 {
                continue;
            }
            seen += 1;
            let line = index / LINE_SLOTS;
            let home = self.home(K::tag(word, self.depth));
            let dist = self.distance(home, line);
            assert!(dist <= self.reach());
            for by in 0..dist {
                assert!(self.empty_slot(self.ahead(home, by)).is_none(), "a line passed over is not full");
            }
        }
        assert_eq!(seen, self.count());
    }
}
