//! A compact hash table of 8-byte words: extendible hashing over segments of at most 8 KB.
//!
//! The directory maps the first bits of a hash to a segment; inside a segment the next 16 bits (the *tag*)
//! choose the home line (see `segment`). A segment grows through jemalloc's size classes, so that its slots
//! stay 75 to 92 % full, and splits in two when it is full at 8 KB; it shrinks, and merges with its sibling,
//! below 30 %. A look-up touches the directory word (which also holds the segment's size), a line, an entry.
//!
//! The table knows words, not entries: a [`SlotKind`] tells a word's tag and hash. [`PointerSlots`] keeps a
//! 48-bit pointer under the 16-bit tag; [`IntSlots`](crate::int_table::IntSlots) keeps the hash itself.
//!
//! Order is hash order at the granularity of lines, whatever the sizes of segments, so a scan's cursor is a
//! position in the space of hashes: no growth or shrinking between two calls duplicates or loses a word.

mod resize;
mod segment;
#[cfg(test)]
mod tests;
mod walk;

use segment::{Place, Segment};

pub use walk::{CURSOR_BITS, Iter};

/// The bits of a word or directory word that hold an address.
pub const POINTER_MASK: u64 = (1 << 48) - 1;

/// The directory's depth ends here: no honest hash comes near it.
const MAX_DEPTH: u32 = 32;

/// What the table must know of its words. A word is never 0.
pub trait SlotKind {
    /// Words at a segment's start that hold no slots, 1 to 8. The low 16 bits of the first are the table's
    /// count; the rest is the user's (see [`Table::header`]).
    const HEADER_WORDS: usize = 1;
    /// The bits in which a word agrees with the probe of its hash.
    const MASK: u64;

    /// A word's first 16 hash bits after `depth` of them.
    fn tag(word: u64, depth: u32) -> u16;
    /// `word` (with no tag yet) as it stands in a segment of that depth.
    fn place(word: u64, hash: u64, depth: u32) -> u64;
    /// `word` as it stands after its segment merged with the sibling into `depth`; `upper` if it was the one
    /// with the higher hashes.
    fn widen(word: u64, upper: bool) -> u64;
    /// The header words of two siblings that merge.
    fn merge_headers(lower: [u64; 8], upper: [u64; 8]) -> [u64; 8] {
        let _ = upper;
        lower
    }
    /// The word's whole hash.
    fn hash(&self, word: u64) -> u64;
    /// Asks for what `hash` will read.
    fn prefetch(&self, word: u64) {
        let _ = word;
    }
    /// The table drops the word for good: free what it stands for.
    fn release(&self, word: u64) {
        let _ = word;
    }
}

/// What a pointer in a [`PointerSlots`] table points to.
///
/// # Safety
/// `hash` must be given by the entry's key alone and never change while the entry is in a table.
pub unsafe trait EntryKind {
    /// See [`SlotKind::HEADER_WORDS`].
    const HEADER_WORDS: usize = 1;
    /// The header words of two siblings that merge.
    fn merge_headers(lower: [u64; 8], upper: [u64; 8]) -> [u64; 8] {
        let _ = upper;
        lower
    }
    /// The hash of the entry's key.
    ///
    /// # Safety
    /// `entry` is the address of a living entry of this kind.
    unsafe fn hash(&self, entry: *const u8) -> u64;
    /// The table was dropped or cleared with this entry in it: free it.
    ///
    /// # Safety
    /// `entry` is the address of a living entry of this kind, used by nobody afterwards.
    unsafe fn release(&self, entry: *mut u8);
}

/// Words of a 48-bit address under a 16-bit tag.
#[derive(Clone, Copy, Debug)]
pub struct PointerSlots<E>(pub E);

impl<E: EntryKind> SlotKind for PointerSlots<E> {
    const HEADER_WORDS: usize = E::HEADER_WORDS;
    const MASK: u64 = !POINTER_MASK;

    #[inline(always)]
    fn tag(word: u64, _depth: u32) -> u16 {
        (word >> 48) as u16
    }

    #[inline(always)]
    fn place(word: u64, hash: u64, depth: u32) -> u64 {
        (word & POINTER_MASK) | ((hash << depth) & !POINTER_MASK)
    }

    #[inline]
    fn widen(word: u64, upper: bool) -> u64 {
        (word & POINTER_MASK) | ((word >> 1) & !POINTER_MASK & (u64::MAX >> 1)) | u64::from(upper) << 63
    }

    fn merge_headers(lower: [u64; 8], upper: [u64; 8]) -> [u64; 8] {
        E::merge_headers(lower, upper)
    }

    fn hash(&self, word: u64) -> u64 {
        // SAFETY: only addresses of living entries are in a table (contract of `Table::insert_pointer`).
        unsafe { self.0.hash((word & POINTER_MASK) as *const u8) }
    }

    fn prefetch(&self, word: u64) {
        prefetch((word & POINTER_MASK) as *const u8);
    }

    fn release(&self, word: u64) {
        // SAFETY: as in `hash`; the table forgets the word.
        unsafe { self.0.release((word & POINTER_MASK) as *mut u8) }
    }
}

/// The table. Words are unique by what the caller's `eq` compares; the table itself doesn't check.
pub struct Table<K: SlotKind> {
    kind: K,
    /// The directory where the depth is not 0: `1 << depth` packed segments.
    directory: Vec<u64>,
    /// The only segment where the depth is 0.
    only: u64,
    len: usize,
    /// Sum of the segments' lines.
    lines: usize,
    /// Segments whose own depth is the directory's.
    deepest: usize,
    segments: usize,
    depth: u32,
    /// Words that found no place because their hashes collide beyond reason; searched linearly.
    stash: Vec<u64>,
}

// SAFETY: the segments belong to the table alone, and what the words stand for follows `K`.
unsafe impl<K: SlotKind + Send> Send for Table<K> {}
// SAFETY: `&Table` only reads.
unsafe impl<K: SlotKind + Sync> Sync for Table<K> {}

/// A found word's position, valid until the table changes.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    word: u64,
    at: At,
}

#[derive(Clone, Copy, Debug)]
enum At {
    Segment { index: usize, place: Place },
    Stash(usize),
}

impl Found {
    /// The word as it stands in the slot, tag included.
    pub fn word(&self) -> u64 {
        self.word
    }

    /// The word's address (tables of [`PointerSlots`]).
    pub fn pointer(&self) -> *mut u8 {
        (self.word & POINTER_MASK) as *mut u8
    }
}

/// Asks the processor for the cache line at `address`; any address is allowed.
#[inline(always)]
pub fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a prefetch never faults and changes neither registers nor memory.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

impl<K: SlotKind> Table<K> {
    /// An empty table: one allocation of 64 bytes (128 with a header of eight words).
    pub fn new(kind: K) -> Self {
        Self::with_capacity(kind, 0)
    }

    /// A table that has room for about `count` words, as far as one segment gives it.
    pub fn with_capacity(kind: K, count: usize) -> Self {
        let segment = Segment::<K>::allocate(Segment::<K>::lines_for(count), 0);
        Table {
            kind,
            directory: Vec::new(),
            only: segment.pack(),
            len: 0,
            lines: segment.lines,
            deepest: 1,
            segments: 1,
            depth: 0,
            stash: Vec::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn kind(&self) -> &K {
        &self.kind
    }

    /// Slots of all segments.
    pub fn capacity(&self) -> usize {
        self.lines * segment::LINE_SLOTS - self.segments * K::HEADER_WORDS
    }

    /// Segments, for statistics.
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// Bytes of segments and directory, without the table itself and without what the words stand for.
    pub fn index_bytes(&self) -> usize {
        self.lines * 64 + (self.directory.capacity() + self.stash.capacity()) * 8
    }

    #[inline]
    fn index(&self, hash: u64) -> usize {
        if self.depth == 0 { 0 } else { (hash >> (64 - self.depth)) as usize }
    }

    #[inline]
    fn segment_at(&self, index: usize) -> Segment<K> {
        let word = if self.depth == 0 { self.only } else { self.directory[index] };
        // SAFETY: the directory holds packed living segments only.
        unsafe { Segment::unpack(word) }
    }

    #[inline]
    fn segment(&self, hash: u64) -> (usize, Segment<K>) {
        let index = self.index(hash);
        (index, self.segment_at(index))
    }

    #[inline(always)]
    fn tag(hash: u64, depth: u32) -> u16 {
        ((hash << depth) >> 48) as u16
    }

    /// The word of that hash which `eq` accepts. `eq` sees words whose tag agrees.
    #[inline]
    pub fn find(&self, hash: u64, mut eq: impl FnMut(u64) -> bool) -> Option<Found> {
        let (index, segment) = self.segment(hash);
        let probe = K::place(0, hash, segment.depth);
        if let Some(place) = segment.find(Self::tag(hash, segment.depth), probe, &mut eq) {
            return Some(Found { word: segment.get(place), at: At::Segment { index, place } });
        }
        if self.stash.is_empty() {
            return None;
        }
        let at = self.stash.iter().position(|&word| self.kind.hash(word) == hash && eq(word))?;
        Some(Found { word: self.stash[at], at: At::Stash(at) })
    }

    /// First step of a batch's look-ups: asks for the home line.
    #[inline]
    pub fn prefetch_line(&self, hash: u64) {
        let (_, segment) = self.segment(hash);
        segment.prefetch(Self::tag(hash, segment.depth));
    }

    /// Second step: asks for the first entry whose tag agrees.
    #[inline]
    pub fn prefetch_entry(&self, hash: u64) {
        let (_, segment) = self.segment(hash);
        let probe = K::place(0, hash, segment.depth);
        if let Some(place) = segment.find(Self::tag(hash, segment.depth), probe, |_| true) {
            self.kind.prefetch(segment.get(place));
        }
    }

    /// Adds a word that is not in the table yet. `word`'s tag bits don't matter; it must not be 0.
    ///
    /// # Safety
    /// `word` means to `K` something that hashes to `hash` and lives until it is removed (for
    /// [`PointerSlots`]: the address of an entry).
    pub unsafe fn insert(&mut self, hash: u64, word: u64) {
        loop {
            let (index, segment) = self.segment(hash);
            if segment.insert(K::place(word, hash, segment.depth)) {
                break;
            }
            if !self.enlarge(index, segment) {
                self.stash.push(K::place(word, hash, 0));
                break;
            }
        }
        self.len += 1;
    }

    /// Lets the slot at `found` hold another word of the same hash (an entry that moved).
    ///
    /// # Safety
    /// `found` came from `find` and the table hasn't changed since; `word` as in `insert`.
    pub unsafe fn replace(&mut self, found: Found, word: u64) {
        let word = (word & !K::MASK) | (found.word & K::MASK);
        match found.at {
            At::Segment { index, place } => self.segment_at(index).set(place, word),
            At::Stash(at) => self.stash[at] = word,
        }
    }

    /// Takes out the word at `found`, which came from `find`; the table hasn't changed since.
    pub fn remove(&mut self, found: Found) -> u64 {
        match found.at {
            At::Segment { index, place } => {
                let segment = self.segment_at(index);
                assert!(segment.get(place) == found.word, "the table changed after the search");
                segment.remove(place);
                self.len -= 1;
                self.relax(index, segment);
            }
            At::Stash(at) => {
                assert!(self.stash[at] == found.word, "the table changed after the search");
                self.stash.swap_remove(at);
                self.len -= 1;
            }
        }
        found.word
    }

    /// The header words of the hash's segment.
    pub fn header(&self, hash: u64) -> [u64; 8] {
        self.segment(hash).1.header()
    }

    /// Overwrites the header words of the hash's segment, except for the low 16 bits of the first. A split
    /// copies them to both halves; a merge asks [`SlotKind::merge_headers`].
    pub fn set_header(&mut self, hash: u64, header: &[u64; 8]) {
        self.segment(hash).1.set_header(header);
    }

    /// Drops all words and shrinks to the smallest size.
    pub fn clear(&mut self) {
        self.release_all();
        let segment = Segment::<K>::allocate(Segment::<K>::MIN_LINES, 0);
        self.only = segment.pack();
        self.directory = Vec::new();
        (self.depth, self.len, self.segments, self.deepest) = (0, 0, 1, 1);
        self.lines = segment.lines;
    }

    fn release_all(&mut self) {
        let mut index = 0;
        while index < 1 << self.depth {
            let segment = self.segment_at(index);
            for at in 0..segment.lines * segment::LINE_SLOTS {
                let word = segment.word_at(at);
                if word != 0 {
                    self.kind.release(word);
                }
            }
            index += 1 << (self.depth - segment.depth);
            // SAFETY: the caller replaces the directory or drops the table; each segment comes by once.
            unsafe { segment.free() };
        }
        for word in std::mem::take(&mut self.stash) {
            self.kind.release(word);
        }
    }
}

impl<K: SlotKind> Drop for Table<K> {
    fn drop(&mut self) {
        self.release_all();
    }
}
