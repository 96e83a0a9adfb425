//! A segment of the table: a header line and 7 to 127 buckets of 8 slots, a cache line each.
//!
//! A slot is an entry's pointer with 16 bits of the key's hash (the tag) in its upper bits; null is empty. The tag alone
//! tells the slot's home bucket, `tag * homes / 65536`, so buckets are in hash order and a segment can be laid out anew
//! without looking at a key. An entry lies in its home bucket or one of the two behind it (the last two buckets are
//! nobody's home), and only where all buckets before that are full: a lookup that finds a gap is done.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use kara_encoding::size_class::size_class;

use crate::entry::Entry;

/// Slots in a bucket.
pub(super) const SLOTS: usize = 8;
pub(super) const LINE: usize = 64;
const MIN_BYTES: usize = 512;
const MAX_BYTES: usize = 8192;
/// Buckets of the smallest and of the largest segment.
pub(super) const MIN_BUCKETS: usize = MIN_BYTES / LINE - 1;
pub(super) const MAX_BUCKETS: usize = MAX_BYTES / LINE - 1;
/// Buckets in which an entry may lie: its home and those behind it. With two the largest segments would be full at
/// 80 %, with three at 89 %.
pub(super) const WINDOW: usize = 3;
/// How many buckets from its home an insertion looks for a gap that it can shift this way. Half of that would fill
/// the largest segments by 6 % less, the double by 2 % more.
const REACH: usize = 16;
const ADDR_BITS: u32 = 48;

/// An entry's tagged pointer, or null.
pub(super) type Slot = *mut u8;

#[repr(C, align(64))]
pub(super) struct Bucket(pub [Slot; SLOTS]);

/// The segment's first line.
#[repr(C, align(64))]
pub(super) struct Header {
    pub count: u32,
    /// Entries that have an expiry.
    pub expires: u32,
    /// Hashes with fields that have an expiry.
    pub volatile: u32,
    /// No expiry in the segment is earlier, Unix ms.
    pub earliest_ms: i64,
    /// No field's expiry is earlier, Unix ms.
    pub fields_earliest_ms: i64,
    /// The buckets in which entries with an expiry are to be looked for.
    pub expiring: Buckets,
}

/// A set of a segment's buckets. Whoever looks for entries with an expiry strikes those out that have none: atomics,
/// as a look takes no unique borrow.
#[derive(Default)]
pub(super) struct Buckets([AtomicU64; MAX_BUCKETS.div_ceil(64)]);

impl Buckets {
    #[inline]
    pub fn mark(&self, bucket: usize) {
        let word = &self.0[bucket / 64];
        word.store(word.load(Relaxed) | 1 << (bucket % 64), Relaxed);
    }

    #[inline]
    pub fn clear(&self, bucket: usize) {
        let word = &self.0[bucket / 64];
        word.store(word.load(Relaxed) & !(1 << (bucket % 64)), Relaxed);
    }

    #[inline]
    pub fn has(&self, bucket: usize) -> bool {
        self.0[bucket / 64].load(Relaxed) >> (bucket % 64) & 1 == 1
    }

    /// An entry moves: what it may be is unknown.
    #[inline]
    fn follow(&self, from: usize, to: usize) {
        if self.has(from) {
            self.mark(to);
        }
    }
}

/// A segment's address, bucket count and local depth, as packed in a directory word. Copying it copies the reference.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment(*mut u8);

/// Where an entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub bucket: usize,
    pub slot: usize,
}

#[inline]
pub(super) fn tag_of(slot: Slot) -> u16 {
    (slot.addr() >> ADDR_BITS) as u16
}

#[inline]
fn retag(slot: Slot, tag: u16) -> Slot {
    slot.map_addr(|addr| addr & ((1 << ADDR_BITS) - 1) | usize::from(tag) << ADDR_BITS)
}

/// The tag of a hash in a segment of that depth: the 16 bits after its prefix.
#[inline]
pub(super) fn tag_at(hash: u64, depth: u32) -> u16 {
    ((hash << depth) >> 48) as u16
}

/// The buckets of a segment that has room for `count` entries at about five sixths full.
pub(super) fn buckets_for(count: usize) -> usize {
    let lines = (count * 6 / 5).div_ceil(SLOTS) + WINDOW;
    (size_class(lines * LINE).clamp(MIN_BYTES, MAX_BYTES)) / LINE - 1
}

/// The bucket count of the next larger segment.
fn next_buckets(buckets: usize) -> usize {
    size_class((buckets + 2) * LINE) / LINE - 1
}

// SAFETY note for the whole block: `Segment` is only made by `new`, which allocates the header and the buckets zeroed,
// and freed by `free`, called by the table that has removed it from its directory. The table is reached through `&mut`
// for every change, so the references made here from `&self` don't overlap with a live unique one; the lifetimes given
// out are shortened to the table's borrow by the table.
impl Segment {
    pub fn new(buckets: usize, depth: u32) -> Segment {
        let layout = Segment::layout_of(buckets);
        // SAFETY: the layout is never empty.
        let block = unsafe { alloc_zeroed(layout) };
        if block.is_null() {
            handle_alloc_error(layout);
        }
        let segment = Segment(block.map_addr(|addr| addr | (buckets << 6 | depth as usize) << ADDR_BITS));
        let header = segment.header_mut();
        (header.earliest_ms, header.fields_earliest_ms) = (i64::MAX, i64::MAX);
        segment
    }

    fn layout_of(buckets: usize) -> Layout {
        match Layout::from_size_align((buckets + 1) * LINE, LINE) {
            Ok(layout) => layout,
            Err(_) => unreachable!("{buckets} buckets"),
        }
    }

    /// Gives the memory back, not the entries.
    ///
    /// # Safety
    /// No copy of this reference is used afterwards.
    pub unsafe fn free(self) {
        // SAFETY: the block came from `new` with this layout.
        unsafe { dealloc(self.base(), Segment::layout_of(self.buckets())) }
    }

    #[inline]
    fn base(self) -> *mut u8 {
        self.0.map_addr(|addr| addr & ((1 << ADDR_BITS) - 1))
    }

    #[inline]
    pub fn buckets(self) -> usize {
        self.0.addr() >> (ADDR_BITS + 6)
    }

    #[inline]
    pub fn depth(self) -> u32 {
        (self.0.addr() >> ADDR_BITS) as u32 & 63
    }

    /// Of memory.
    #[inline]
    pub fn bytes(self) -> usize {
        (self.buckets() + 1) * LINE
    }

    /// Buckets that are somebody's home: all but those that only serve as the last one's window.
    #[inline]
    pub fn homes(self) -> usize {
        self.buckets() - (WINDOW - 1)
    }

    #[inline]
    pub fn home(self, tag: u16) -> usize {
        (usize::from(tag) * self.homes()) >> 16
    }

    /// The lowest tag whose home is `bucket`; 65536 past the last.
    pub fn first_tag(self, bucket: usize) -> u64 {
        ((bucket as u64) << 16).div_ceil(self.homes() as u64)
    }

    #[inline]
    pub fn header<'a>(self) -> &'a Header {
        // SAFETY: the block begins with an initialized header.
        unsafe { &*self.base().cast::<Header>() }
    }

    #[inline]
    pub fn header_mut<'a>(self) -> &'a mut Header {
        // SAFETY: as in `header`; short-lived, and the table is borrowed uniquely where it is used.
        unsafe { &mut *self.base().cast::<Header>() }
    }

    #[inline]
    pub fn line(self, bucket: usize) -> *mut Bucket {
        debug_assert!(bucket < self.buckets());
        // SAFETY: the block has a line for the header and one per bucket.
        unsafe { self.base().add((bucket + 1) * LINE).cast::<Bucket>() }
    }

    #[inline]
    pub fn bucket<'a>(self, bucket: usize) -> &'a [Slot; SLOTS] {
        // SAFETY: the line is inside the block, aligned and initialized (zeroed).
        unsafe { &(*self.line(bucket)).0 }
    }

    #[inline]
    pub fn slot_mut<'a>(self, place: Place) -> &'a mut Slot {
        // SAFETY: as in `bucket`; the table is borrowed uniquely where it is used.
        unsafe { &mut (&mut (*self.line(place.bucket)).0)[place.slot] }
    }

    #[inline]
    pub fn slot(self, place: Place) -> Slot {
        self.bucket(place.bucket)[place.slot]
    }

    /// Calls `f` with every place that is taken.
    pub fn for_each(self, mut f: impl FnMut(Slot)) {
        for bucket in 0..self.buckets() {
            for &slot in self.bucket(bucket) {
                if !slot.is_null() {
                    f(slot);
                }
            }
        }
    }

    /// The place of the entry of that key.
    #[inline]
    pub fn find(self, tag: u16, key: &[u8]) -> Option<Place> {
        let home = self.home(tag);
        for bucket in home..home + WINDOW {
            let line = self.bucket(bucket);
            if let Some(slot) = find_in(line, tag, key) {
                return Some(Place { bucket, slot });
            }
            if gap_in(line).is_some() {
                break;
            }
        }
        None
    }

    /// Puts a tagged pointer where its tag says, shifting others if need be. `None`: the segment must grow. Counts
    /// are the caller's.
    #[inline]
    pub fn place(self, slot: Slot) -> Option<Place> {
        let home = self.home(tag_of(slot));
        let gap = match gap_in(self.bucket(home)) {
            Some(gap) => Place { bucket: home, slot: gap },
            None => self.make_gap(home)?,
        };
        *self.slot_mut(gap) = slot;
        Some(gap)
    }

    /// A gap in the window of `home`, which is full itself. If the nearest gap is further away, entries between are
    /// moved on within their windows; if that doesn't bring it near enough, nothing changes.
    fn make_gap(self, home: usize) -> Option<Place> {
        let end = self.buckets().min(home + REACH);
        let mut hole = (home + 1..end)
            .find_map(|bucket| gap_in(self.bucket(bucket)).map(|slot| Place { bucket, slot }))?;
        let nearest = hole;
        let mut moves = [hole; REACH];
        let mut count = 0;
        while hole.bucket >= home + WINDOW {
            // An entry may move to the hole if its home is not before this one; the farther it comes from, the better.
            let first = hole.bucket + 1 - WINDOW;
            hole = (first..hole.bucket).find_map(|bucket| {
                let slot = self.bucket(bucket).iter().position(|&slot| self.home(tag_of(slot)) >= first)?;
                Some(Place { bucket, slot })
            })?;
            moves[count] = hole;
            count += 1;
        }
        let mut to = nearest;
        for &from in &moves[..count] {
            *self.slot_mut(to) = self.slot(from);
            self.header().expiring.follow(from.bucket, to.bucket);
            to = from;
        }
        *self.slot_mut(to) = std::ptr::null_mut();
        Some(to)
    }

    /// Empties a place and moves entries from the buckets behind nearer to their homes, so that no entry lies behind
    /// a gap in its window. Counts are the caller's.
    pub fn take(self, mut hole: Place) -> Slot {
        let taken = self.slot(hole);
        loop {
            let was_full = gap_in(self.bucket(hole.bucket)).is_none();
            *self.slot_mut(hole) = std::ptr::null_mut();
            if !was_full {
                return taken;
            }
            let end = self.buckets().min(hole.bucket + WINDOW);
            let strayed = (hole.bucket + 1..end).rev().find_map(|bucket| {
                let strayed = |slot: &Slot| !slot.is_null() && self.home(tag_of(*slot)) <= hole.bucket;
                let slot = self.bucket(bucket).iter().position(strayed)?;
                Some(Place { bucket, slot })
            });
            let Some(from) = strayed else { return taken };
            *self.slot_mut(hole) = self.slot(from);
            self.header().expiring.follow(from.bucket, hole.bucket);
            hole = from;
        }
    }

    /// A segment of `buckets` to `most` buckets with the entries of `slots`, tagged for its depth; `None` if they have no
    /// place there. The entries' pointers are copied: one of old and new is then to be freed
    /// without its entries.
    pub fn build(buckets: usize, most: usize, depth: u32, slots: &[Slot]) -> Option<Segment> {
        let mut buckets = buckets;
        while buckets <= most {
            let segment = Segment::new(buckets, depth);
            if slots.iter().all(|&slot| segment.place(slot).is_some()) {
                segment.header_mut().count = slots.len() as u32;
                return Some(segment);
            }
            // SAFETY: nobody else has seen it.
            unsafe { segment.free() };
            buckets = next_buckets(buckets);
        }
        None
    }

    /// The same entries in a segment of the next size or more; `None` at the largest.
    pub fn grown(self) -> Option<Segment> {
        self.rebuilt(next_buckets(self.buckets()), MAX_BUCKETS)
    }

    /// The same entries in a smaller segment.
    pub fn shrunk(self) -> Option<Segment> {
        self.rebuilt(buckets_for(self.header().count as usize), self.buckets() - 1)
    }

    fn rebuilt(self, buckets: usize, most: usize) -> Option<Segment> {
        if buckets > most {
            return None;
        }
        // Not kept by the table: with many shards and databases that would be more than the index itself.
        let mut scratch = Vec::with_capacity(self.header().count as usize);
        self.for_each(|slot| scratch.push(slot));
        let new = Segment::build(buckets, most, self.depth(), &scratch)?;
        new.copy_expiry_hints(&[self]);
        Some(new)
    }

    /// The entries of two buddies (`low` has the prefix that ends in 0) in one segment, one level up: a tag gains the
    /// prefix's last bit in front.
    pub fn merged(low: Segment, high: Segment) -> Option<Segment> {
        let mut scratch = Vec::with_capacity((low.header().count + high.header().count) as usize);
        low.for_each(|slot| scratch.push(retag(slot, tag_of(slot) >> 1)));
        high.for_each(|slot| scratch.push(retag(slot, tag_of(slot) >> 1 | 0x8000)));
        let new = Segment::build(buckets_for(scratch.len()), MAX_BUCKETS, low.depth() - 1, &scratch)?;
        new.copy_expiry_hints(&[low, high]);
        Some(new)
    }

    fn copy_expiry_hints(self, from: &[Segment]) {
        let header = self.header_mut();
        for old in from.iter().map(|segment| segment.header()) {
            header.expires += old.expires;
            header.volatile += old.volatile;
            header.earliest_ms = header.earliest_ms.min(old.earliest_ms);
            header.fields_earliest_ms = header.fields_earliest_ms.min(old.fields_earliest_ms);
        }
        if header.expires > 0 {
            // Which they are wants a look at each entry: whoever needs them looks, once.
            (0..self.buckets()).for_each(|bucket| header.expiring.mark(bucket));
        }
    }

    /// Sets counts and hints of expiry by looking at each entry.
    pub fn recount_expiry(self) {
        let header = self.header_mut();
        (header.expires, header.volatile) = (0, 0);
        (header.earliest_ms, header.fields_earliest_ms) = (i64::MAX, i64::MAX);
        header.expiring = Buckets::default();
        let slots =
            (0..self.buckets()).flat_map(|bucket| self.bucket(bucket).iter().map(move |slot| (bucket, slot)));
        slots.filter(|(_, slot)| !slot.is_null()).for_each(|(bucket, slot)| {
            let entry = entry_of(slot);
            if let Some(at) = entry.expire_at_ms() {
                header.expires += 1;
                header.expiring.mark(bucket);
                header.earliest_ms = header.earliest_ms.min(at);
            }
            if entry.is_volatile() {
                header.volatile += 1;
                let at = entry.fields_earliest_ms().unwrap_or(i64::MAX);
                header.fields_earliest_ms = header.fields_earliest_ms.min(at);
            }
        });
    }
}

/// The entry in a taken slot.
#[inline]
pub(super) fn entry_of(slot: &Slot) -> &Entry {
    debug_assert!(!slot.is_null());
    // SAFETY: slots that aren't null hold an entry's tagged pointer, and Entry is a transparent pointer that ignores
    // the tag.
    unsafe { &*std::ptr::from_ref(slot).cast::<Entry>() }
}

/// The entry in a taken slot.
#[inline]
pub(super) fn entry_of_mut(slot: &mut Slot) -> &mut Entry {
    debug_assert!(!slot.is_null());
    // SAFETY: as in `entry_of`; an entry that moves its block keeps the tag.
    unsafe { &mut *std::ptr::from_mut(slot).cast::<Entry>() }
}

#[inline]
fn find_in(line: &[Slot; SLOTS], tag: u16, key: &[u8]) -> Option<usize> {
    let mut hits = matches(line, tag);
    while hits != 0 {
        let slot = hits.trailing_zeros() as usize;
        if !line[slot].is_null() && is_same(entry_of(&line[slot]).key(), key) {
            return Some(slot);
        }
        hits &= hits - 1;
    }
    None
}

/// Whether two keys are equal, without a call for the lengths that keys mostly have: two overlapping reads each.
#[inline]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    fn ends<const N: usize>(bytes: &[u8]) -> Option<(&[u8; N], &[u8; N])> {
        Some((bytes.first_chunk()?, bytes.last_chunk()?))
    }
    a.len() == b.len()
        && match a.len() {
            4..8 => ends::<4>(a) == ends::<4>(b),
            8..=16 => ends::<8>(a) == ends::<8>(b),
            17..=32 => ends::<16>(a) == ends::<16>(b),
            _ => a == b,
        }
}

/// A bit per slot that has this tag; an empty slot matches tag 0.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn matches(line: &[Slot; SLOTS], tag: u16) -> u32 {
    use std::arch::x86_64::{
        __m128i, _mm_castps_si128, _mm_castsi128_ps, _mm_cmpeq_epi16, _mm_loadu_si128, _mm_movemask_epi8,
        _mm_packs_epi16, _mm_packs_epi32, _mm_set1_epi16, _mm_setzero_si128, _mm_shuffle_ps, _mm_srai_epi32,
    };
    const { assert!(SLOTS == 8) };
    let line = line.as_ptr().cast::<__m128i>();
    // SAFETY: SSE2 is part of the architecture. The line is four times 16 bytes, and these loads ask for no
    // alignment.
    unsafe {
        // The upper halves of four slots: their tags are those words' upper 16 bits.
        let upper = |at: usize| {
            let (a, b) = (_mm_loadu_si128(line.add(at)), _mm_loadu_si128(line.add(at + 1)));
            let both = _mm_shuffle_ps::<0b11_01_11_01>(_mm_castsi128_ps(a), _mm_castsi128_ps(b));
            _mm_srai_epi32::<16>(_mm_castps_si128(both))
        };
        let tags = _mm_packs_epi32(upper(0), upper(2));
        let equal = _mm_cmpeq_epi16(tags, _mm_set1_epi16(tag.cast_signed()));
        _mm_movemask_epi8(_mm_packs_epi16(equal, _mm_setzero_si128())).cast_unsigned()
    }
}

/// A bit per slot that has this tag; an empty slot matches tag 0.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(super) fn matches(line: &[Slot; SLOTS], tag: u16) -> u32 {
    let mut hits = 0;
    for (i, slot) in line.iter().enumerate() {
        hits |= u32::from(tag_of(*slot) == tag) << i;
    }
    hits
}

#[inline]
fn gap_in(line: &[Slot; SLOTS]) -> Option<usize> {
    // All eight without a branch: where the first gap is can't be foretold.
    let gaps = line.iter().enumerate().fold(0u32, |gaps, (at, slot)| gaps | u32::from(slot.is_null()) << at);
    (gaps != 0).then(|| gaps.trailing_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_match_exactly_wherever_they_stand() {
        let tags = [0u16, 1, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff, 0x00ff];
        let slots =
            tags.map(|tag| std::ptr::without_provenance_mut(0x1234_5678 | usize::from(tag) << ADDR_BITS));
        for (at, &tag) in tags.iter().enumerate() {
            assert_eq!(matches(&slots, tag), 1 << at, "{tag:#x}");
        }
        assert_eq!(matches(&slots, 0x1234), 0);
        assert_eq!(matches(&[slots[5]; SLOTS], tags[5]), 0xff);
    }

    #[test]
    fn keys_of_all_lengths_are_compared_whole() {
        for len in 0..70 {
            let key: Vec<u8> = (0..len).collect();
            assert!(is_same(&key, &key.clone()));
            for at in 0..usize::from(len) {
                let mut other = key.clone();
                other[at] ^= 0x80;
                assert!(!is_same(&key, &other), "{len} {at}");
            }
            assert!(!is_same(&key, &[&key[..], b"x"].concat()));
        }
    }
}
