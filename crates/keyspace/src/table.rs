//! The table of a database's keys: extendible hashing over segments.
//!
//! A hash is read from its top: the directory's prefix finds the segment, the 16 bits after the segment's own prefix are
//! the tag that finds the bucket and filters its slots. A directory word holds the segment's address, size and depth,
//! so that a lookup touches the directory, one or two bucket lines and the entry. Segments grow along the allocator's
//! size classes, split in two at 8 KB, shrink and merge again; no operation does more than one such step.
//!
//! As all orders are hash orders, a scan's cursor is a position in hash space: every entry that is there for the whole
//! scan is seen exactly once, however the table grows and shrinks meanwhile.
//!
//! Boundary: the hashes it is given are the keys' (see `TableHash`), and keys inserted aren't there yet.

mod sample;
mod segment;
#[cfg(test)]
mod tests;

use crate::entry::Entry;
use kara_base::hash::HashSeed;
use segment::{
    LINE, MAX_BUCKETS, MIN_BUCKETS, Place, SLOTS, Segment, Slot, WINDOW, buckets_for, entry_of, entry_of_mut,
    matches, tag_at, tag_of,
};

/// Segments with more local depth than this would mean that the hash isn't one.
const MAX_DEPTH: u32 = 40;
/// A segment less full than this (percent) shrinks.
const SHRINK_PERCENT: usize = 30;
/// Buddies that together have no more entries merge: a third of the largest segment.
const MERGE_COUNT: usize = MAX_BUCKETS * SLOTS / 3;

/// How the table gets a key's hash when it needs more bits of it: the keyed hash without the bits that chose the shard.
#[derive(Clone, Copy, Debug)]
pub struct TableHash {
    pub seed: HashSeed,
    pub shard_bits: u32,
}

impl TableHash {
    /// The hash by which the table knows the key whose full hash is `hash`.
    #[inline]
    pub fn of_hash(&self, hash: u64) -> u64 {
        hash << self.shard_bits
    }

    pub fn of_key(&self, key: &[u8]) -> u64 {
        self.of_hash(self.seed.hash(key))
    }
}

/// Keys to entries.
pub struct Table {
    /// Empty, or `1 << depth` words; a segment of depth d stands in `1 << (depth - d)` consecutive ones.
    directory: Vec<Segment>,
    depth: u32,
    /// Segments whose depth is the directory's; none left: the directory halves.
    deepest: usize,
    len: usize,
    expires: usize,
    volatile: usize,
    /// The sum of all expiries, for the average TTL.
    expires_sum_ms: i128,
    /// Of all segments.
    segment_bytes: usize,
    /// It has had entries.
    used: bool,
    hash: TableHash,
}

// SAFETY: the table owns its segments and their entries, which are Send.
unsafe impl Send for Table {}

/// Starts loading the cache line at `address`; any address will do.
#[inline]
pub(crate) fn prefetch_line<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a prefetch never faults.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, readonly, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

/// Starts loading the cache line at `address` for writing: it is taken from other processors at once.
#[inline]
pub fn prefetch_line_to_write<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults; processors without this one take it for no operation.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) address, options(nostack, readonly, preserves_flags));
    }
    #[cfg(not(target_arch = "x86_64"))]
    prefetch_line(address);
}

impl Table {
    pub fn new(hash: TableHash) -> Table {
        Table {
            directory: Vec::new(),
            depth: 0,
            deepest: 0,
            len: 0,
            expires: 0,
            volatile: 0,
            expires_sum_ms: 0,
            segment_bytes: 0,
            used: false,
            hash,
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Entries that have an expiry.
    pub fn expires_len(&self) -> usize {
        self.expires
    }

    /// Hashes with fields that have an expiry.
    pub fn volatile_len(&self) -> usize {
        self.volatile
    }

    /// The sum of all expiries (Unix ms).
    pub fn expires_sum_ms(&self) -> i128 {
        self.expires_sum_ms
    }

    pub fn hash(&self) -> TableHash {
        self.hash
    }

    /// Bytes of directory and segments; none where there are no entries.
    pub fn memory_usage(&self) -> usize {
        self.segment_bytes + self.directory.capacity() * size_of::<Segment>()
    }

    /// Whether it has, or had, entries; also true for the one that takes its place when it is cut off.
    pub fn was_used(&self) -> bool {
        self.used
    }

    /// Places for entries.
    pub fn slots(&self) -> usize {
        self.segments().map(|segment| segment.buckets() * SLOTS).sum()
    }

    /// The directory index of a hash.
    #[inline]
    fn index(&self, hash: u64) -> usize {
        // Two shifts, as depth 0 would be a shift by 64.
        ((hash >> 1) >> (63 - self.depth)) as usize
    }

    #[inline]
    fn segment(&self, hash: u64) -> Option<Segment> {
        self.directory.get(self.index(hash)).copied()
    }

    /// Every segment once, in hash order.
    fn segments(&self) -> impl Iterator<Item = Segment> + '_ {
        let mut index = 0;
        std::iter::from_fn(move || {
            let segment = *self.directory.get(index)?;
            index += 1 << (self.depth - segment.depth());
            Some(segment)
        })
    }

    /// Starts loading the bucket line of that hash.
    #[inline]
    pub fn prefetch_bucket(&self, hash: u64) {
        if let Some(segment) = self.segment(hash) {
            prefetch_line(segment.line(segment.home(tag_at(hash, segment.depth()))));
        }
    }

    /// Starts loading what an insertion at that hash writes: the bucket line and the segment's header.
    #[inline]
    pub fn prefetch_to_insert(&self, hash: u64) {
        if let Some(segment) = self.segment(hash) {
            prefetch_line(segment.line(segment.home(tag_at(hash, segment.depth()))));
            prefetch_line(std::ptr::from_ref(segment.header()));
        }
    }

    /// Starts loading the entries that the hash may mean; the bucket should be in the cache by now.
    #[inline]
    pub fn prefetch_entry(&self, hash: u64) {
        let Some(segment) = self.segment(hash) else { return };
        let tag = tag_at(hash, segment.depth());
        let home = segment.home(tag);
        for bucket in home..home + WINDOW {
            let line = segment.bucket(bucket);
            let hits = matches(line, tag);
            if hits != 0 {
                let slot = &line[hits.trailing_zeros() as usize];
                if !slot.is_null() {
                    entry_of(slot).prefetch();
                }
                return;
            }
        }
    }

    #[inline]
    fn locate(&self, hash: u64, key: &[u8]) -> Option<(Segment, Place)> {
        let segment = self.segment(hash)?;
        let place = segment.find(tag_at(hash, segment.depth()), key)?;
        Some((segment, place))
    }

    #[inline]
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<&Entry> {
        let (segment, place) = self.locate(hash, key)?;
        Some(entry_of(&segment.bucket(place.bucket)[place.slot]))
    }

    /// The entry for changes. Its expiry is changed through the table only (`set_expiry`, `update`).
    #[inline]
    pub fn find_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut Entry> {
        let (segment, place) = self.locate(hash, key)?;
        Some(entry_of_mut(segment.slot_mut(place)))
    }

    /// Runs `f` on the entry; `f` may change everything but its key. Counts follow a changed expiry.
    #[inline]
    pub(crate) fn update<R>(
        &mut self,
        hash: u64,
        key: &[u8],
        f: impl FnOnce(&mut Entry) -> R,
    ) -> Option<(&mut Entry, R)> {
        let (segment, place) = self.locate(hash, key)?;
        let entry = entry_of_mut(segment.slot_mut(place));
        let before = entry.expire_at_ms();
        let result = f(entry);
        let after = entry.expire_at_ms();
        if before != after {
            self.note_expiry(segment, place.bucket, before, after);
        }
        Some((entry, result))
    }

    /// Runs `update` on the entry, or adds what `insert` makes: one lookup. Returns what `update` did, if it ran.
    #[inline]
    pub(crate) fn upsert<R>(
        &mut self,
        hash: u64,
        key: &[u8],
        update: impl FnOnce(&mut Entry) -> R,
        insert: impl FnOnce() -> Entry,
    ) -> (&mut Entry, Option<R>) {
        let Some((segment, place)) = self.locate(hash, key) else {
            return (self.insert_unique(hash, insert()), None);
        };
        let entry = entry_of_mut(segment.slot_mut(place));
        let (before, was_volatile) = (entry.expire_at_ms(), entry.is_volatile());
        let result = update(entry);
        let after = entry.expire_at_ms();
        if was_volatile && !entry.is_volatile() {
            segment.header_mut().volatile -= 1;
            self.volatile -= 1;
        }
        if before != after {
            self.note_expiry(segment, place.bucket, before, after);
        }
        (entry_of_mut(segment.slot_mut(place)), Some(result))
    }

    /// Sets or (None) takes away an entry's expiry; false if there is no such key.
    pub fn set_expiry(&mut self, hash: u64, key: &[u8], expire_at_ms: Option<i64>) -> bool {
        self.update(hash, key, |entry| entry.set_expiry(expire_at_ms)).is_some()
    }

    fn note_expiry(&mut self, segment: Segment, bucket: usize, before: Option<i64>, after: Option<i64>) {
        let header = segment.header_mut();
        if let Some(at) = before {
            header.expires -= 1;
            self.expires -= 1;
            self.expires_sum_ms -= i128::from(at);
        }
        if let Some(at) = after {
            header.expiring.mark(bucket);
            header.expires += 1;
            header.earliest_ms = header.earliest_ms.min(at);
            self.expires += 1;
            self.expires_sum_ms += i128::from(at);
        }
    }

    /// To be called after a hash's fields may have got or lost expiries: counts and hints follow.
    pub(crate) fn note_fields(&mut self, hash: u64, key: &[u8]) {
        if let Some((segment, place)) = self.locate(hash, key) {
            self.note_fields_of(segment, entry_of_mut(segment.slot_mut(place)));
        }
    }

    fn note_fields_of(&mut self, segment: Segment, entry: &mut Entry) {
        let earliest_ms = entry.fields_earliest_ms();
        let header = segment.header_mut();
        match (entry.is_volatile(), earliest_ms.is_some()) {
            (false, true) => {
                header.volatile += 1;
                self.volatile += 1;
            }
            (true, false) => {
                header.volatile -= 1;
                self.volatile -= 1;
            }
            _ => {}
        }
        header.fields_earliest_ms = header.fields_earliest_ms.min(earliest_ms.unwrap_or(i64::MAX));
        entry.set_volatile(earliest_ms.is_some());
    }

    /// Lays an empty table out for so many entries, so that it needn't grow on the way.
    pub fn reserve(&mut self, entries: usize) {
        /// A segment's share: what is over moves to the window's buckets, and few segments still have to grow.
        const SHARE: usize = MAX_BUCKETS * SLOTS * 5 / 6;
        if !self.directory.is_empty() || entries <= SHARE {
            return;
        }
        let depth = entries.div_ceil(SHARE).next_power_of_two().trailing_zeros().min(MAX_DEPTH / 2);
        let mean = entries >> depth;
        let buckets = buckets_for(mean + 3 * mean.isqrt());
        self.directory = (0..1 << depth).map(|_| Segment::new(buckets, depth)).collect();
        self.used = true;
        self.segment_bytes = self.directory.iter().map(|segment| segment.bytes()).sum();
        (self.depth, self.deepest) = (depth, 1 << depth);
    }

    /// Adds an entry whose key isn't in the table.
    pub fn insert_unique(&mut self, hash: u64, mut entry: Entry) -> &mut Entry {
        debug_assert!(self.find(hash, entry.key()).is_none(), "the key is there already");
        if self.directory.is_empty() {
            self.begin();
        }
        let expiry = entry.expire_at_ms();
        entry.set_volatile(false);
        let has_fields = entry.fields_earliest_ms().is_some();
        let raw = entry.into_tagged(0);
        let (segment, place) = loop {
            let segment = self.directory[self.index(hash)];
            let tag = usize::from(tag_at(hash, segment.depth()));
            if let Some(place) = segment.place(raw.map_addr(|addr| addr | tag << 48)) {
                break (segment, place);
            }
            self.grow(hash);
        };
        segment.header_mut().count += 1;
        self.len += 1;
        if expiry.is_some() {
            self.note_expiry(segment, place.bucket, None, expiry);
        }
        if has_fields {
            self.note_fields_of(segment, entry_of_mut(segment.slot_mut(place)));
        }
        entry_of_mut(segment.slot_mut(place))
    }

    /// The first segment.
    #[cold]
    fn begin(&mut self) {
        let first = Segment::new(MIN_BUCKETS, 0);
        self.directory = vec![first];
        self.segment_bytes = first.bytes();
        (self.depth, self.deepest) = (0, 1);
        self.used = true;
    }

    /// Takes the entry of that key out.
    pub fn remove(&mut self, hash: u64, key: &[u8]) -> Option<Entry> {
        let (segment, place) = self.locate(hash, key)?;
        let entry = self.take(segment, place);
        self.shrink(hash);
        Some(entry)
    }

    /// Takes an entry out without shrinking.
    fn take(&mut self, segment: Segment, place: Place) -> Entry {
        let slot = segment.take(place);
        // SAFETY: the slot's pointer came from into_tagged, and the table has let go of it.
        let entry = unsafe { Entry::from_tagged(slot) };
        segment.header_mut().count -= 1;
        self.len -= 1;
        let expiry = entry.expire_at_ms();
        if expiry.is_some() {
            self.note_expiry(segment, place.bucket, expiry, None);
        }
        if entry.is_volatile() {
            segment.header_mut().volatile -= 1;
            self.volatile -= 1;
        }
        entry
    }

    /// Puts a new `segment` into every directory word of its prefix, which `hash` begins with.
    fn install(&mut self, hash: u64, segment: Segment) {
        self.segment_bytes += segment.bytes();
        let span = 1usize << (self.depth - segment.depth());
        let first = self.index(hash) & !(span - 1);
        self.directory[first..first + span].fill(segment);
    }

    /// Frees a segment, not its entries.
    ///
    /// # Safety
    /// No directory word refers to it any more, and no copy of the reference is used afterwards.
    unsafe fn free(&mut self, segment: Segment) {
        self.segment_bytes -= segment.bytes();
        // SAFETY: the caller's promise.
        unsafe { segment.free() };
    }

    /// Gives the segment of `hash` more room: the next size, or at the largest a split.
    fn grow(&mut self, hash: u64) {
        let old = self.directory[self.index(hash)];
        if let Some(new) = old.grown() {
            self.install(hash, new);
            // SAFETY: no directory word refers to it any more.
            unsafe { self.free(old) };
            return;
        }
        let mut entries = Vec::with_capacity(old.header().count as usize);
        self.collect_hashed(old, &mut entries);
        let depth = old.depth();
        if depth == self.depth {
            self.deepest -= 1;
        }
        self.split_into(hash, depth, &mut entries);
        // SAFETY: split_into has put new segments into all words of its prefix.
        unsafe { self.free(old) };
    }

    /// All entries of a segment with their hashes. Entries are loaded some buckets ahead: each is a cache miss.
    fn collect_hashed(&self, segment: Segment, entries: &mut Vec<(u64, Slot)>) {
        const AHEAD: usize = 2;
        for bucket in 0..segment.buckets() + AHEAD {
            if bucket < segment.buckets() {
                segment
                    .bucket(bucket)
                    .iter()
                    .for_each(|slot| prefetch_line(slot.map_addr(|a| a & ((1 << 48) - 1))));
            }
            let Some(due) = bucket.checked_sub(AHEAD) else { continue };
            for slot in segment.bucket(due).iter().filter(|slot| !slot.is_null()) {
                entries.push((self.hash.of_key(entry_of(slot).key()), *slot));
            }
        }
    }

    /// Lays out `entries`, all of the prefix of `hash` with `depth` bits, in two segments one level deeper; should one
    /// half not even fit the largest segment, in more.
    fn split_into(&mut self, hash: u64, depth: u32, entries: &mut [(u64, Slot)]) {
        assert!(depth < MAX_DEPTH, "hundreds of keys whose hashes begin with the same {depth} bits");
        if depth == self.depth {
            self.double();
        }
        let side = 1u64 << (63 - depth);
        entries.sort_unstable_by_key(|(hash, _)| *hash & side);
        let middle = entries.partition_point(|(hash, _)| hash & side == 0);
        let (low, high) = entries.split_at_mut(middle);
        for (hash, half) in [(hash & !side, low), (hash | side, high)] {
            let slots: Vec<Slot> = half
                .iter()
                .map(|(hash, slot)| {
                    let tag = usize::from(tag_at(*hash, depth + 1));
                    slot.map_addr(|addr| addr & ((1 << 48) - 1) | tag << 48)
                })
                .collect();
            match Segment::build(buckets_for(slots.len()), MAX_BUCKETS, depth + 1, &slots) {
                Some(segment) => {
                    segment.recount_expiry();
                    self.install(hash, segment);
                    if depth + 1 == self.depth {
                        self.deepest += 1;
                    }
                }
                None => self.split_into(hash, depth + 1, half),
            }
        }
    }

    fn double(&mut self) {
        let mut doubled = Vec::with_capacity(self.directory.len() * 2);
        doubled.extend(self.directory.iter().flat_map(|&segment| [segment, segment]));
        self.directory = doubled;
        self.depth += 1;
        self.deepest = 0;
    }

    /// Halves the directory as often as no segment needs its last bit.
    fn halve(&mut self) {
        while self.depth > 0 && self.deepest == 0 {
            self.directory = self.directory.iter().copied().step_by(2).collect();
            self.depth -= 1;
            self.deepest = self.directory.iter().filter(|s| s.depth() == self.depth).count();
        }
    }

    /// After a removal: merges the segment with its buddy or makes it smaller, if it is rather empty. Tried at every
    /// 8th or 32nd count only: where keys leave in hash order, what is left crowds one end and may not fit.
    #[inline]
    fn shrink(&mut self, hash: u64) {
        let Some(segment) = self.segment(hash) else { return };
        let count = segment.header().count as usize;
        if count * 100 < segment.buckets() * SLOTS * SHRINK_PERCENT
            && count.is_multiple_of(if count < 64 { 8 } else { 32 })
        {
            self.shrink_now(hash, segment);
        }
    }

    #[cold]
    fn shrink_now(&mut self, hash: u64, segment: Segment) {
        let mut merged = false;
        // All the way up: nothing may ever be removed from a merged segment that is empty.
        while self.merge(hash) {
            merged = true;
        }
        if !merged && let Some(new) = segment.shrunk() {
            self.install(hash, new);
            // SAFETY: no directory word refers to it any more.
            unsafe { self.free(segment) };
        }
        if self.len == 0 && self.directory.len() == 1 {
            self.end();
        }
    }

    /// Gives the last segment back: a database that was emptied takes no memory, in no shard.
    fn end(&mut self) {
        for segment in std::mem::take(&mut self.directory) {
            // SAFETY: the directory is gone.
            unsafe { self.free(segment) };
        }
        (self.depth, self.deepest) = (0, 0);
    }

    /// Merges the segment of `hash` with its buddy, if there is one and both together have few entries.
    fn merge(&mut self, hash: u64) -> bool {
        let segment = self.directory[self.index(hash)];
        let depth = segment.depth();
        if depth == 0 {
            return false;
        }
        let side = 1u64 << (64 - depth);
        let buddy = self.directory[self.index(hash ^ side)];
        let count = segment.header().count + buddy.header().count;
        if buddy.depth() != depth || count as usize > MERGE_COUNT {
            return false;
        }
        let (low, high) = if hash & side == 0 { (segment, buddy) } else { (buddy, segment) };
        let Some(merged) = Segment::merged(low, high) else { return false };
        self.install(hash, merged);
        // SAFETY: `merged` has taken all words of both.
        unsafe {
            self.free(low);
            self.free(high);
        }
        if depth == self.depth {
            self.deepest -= 2;
            self.halve();
        }
        true
    }

    /// Calls `f` with the entries of one home bucket, the one that hash position `from` lies in, as far as their hash
    /// is not below `from`. Returns the position behind, or `None` at the end of the table.
    pub fn scan_bucket(&self, from: u64, mut f: impl FnMut(&Entry)) -> Option<u64> {
        let segment = self.segment(from)?;
        let depth = segment.depth();
        let tag = tag_at(from, depth);
        let home = segment.home(tag);
        // Bits of the position below the tag: left over from before a merge.
        let inside_tag = (from << depth) << 16 != 0;
        for bucket in home..home + WINDOW {
            for slot in segment.bucket(bucket).iter().filter(|slot| !slot.is_null()) {
                let slot_tag = tag_of(*slot);
                if slot_tag < tag || segment.home(slot_tag) != home {
                    continue;
                }
                let entry = entry_of(slot);
                if inside_tag && slot_tag == tag && self.hash.of_key(entry.key()) < from {
                    continue;
                }
                f(entry);
            }
        }
        let prefix = if depth == 0 { 0 } else { from >> (64 - depth) << (64 - depth) };
        let behind = u128::from(prefix) + (u128::from(segment.first_tag(home + 1)) << (48 - depth));
        u64::try_from(behind).ok()
    }

    /// Takes out the entries of the segment at hash position `from` whose expiry is before `now_ms`, if its hints
    /// say that there may be any; `before` sees each of them first. Returns the position behind the segment (`None` at
    /// the end) and how many entries were looked at.
    pub(crate) fn expire_segment(
        &mut self,
        from: u64,
        now_ms: i64,
        mut before: impl FnMut(&Entry),
        mut expired: impl FnMut(Entry),
    ) -> (Option<u64>, usize) {
        let Some(segment) = self.segment(from) else { return (None, 0) };
        let behind = end_of(segment, from);
        let header = segment.header();
        if header.expires == 0 || header.earliest_ms >= now_ms {
            return (behind, 0);
        }
        let mut seen = 0;
        let mut earliest_ms = i64::MAX;
        // From the back: what a removal moves comes from behind, where it has been looked at already.
        for bucket in (0..segment.buckets()).rev() {
            if bucket > 0 {
                segment
                    .bucket(bucket - 1)
                    .iter()
                    .for_each(|slot| prefetch_line(slot.map_addr(|a| a & ((1 << 48) - 1))));
            }
            for slot in (0..SLOTS).rev() {
                let place = Place { bucket, slot };
                let raw = segment.slot(place);
                if raw.is_null() {
                    continue;
                }
                seen += 1;
                match entry_of(&raw).expire_at_ms() {
                    Some(at) if at < now_ms => {
                        before(entry_of(&raw));
                        let entry = self.take(segment, place);
                        expired(entry);
                    }
                    Some(at) => earliest_ms = earliest_ms.min(at),
                    None => {}
                }
            }
        }
        segment.header_mut().earliest_ms = earliest_ms;
        self.shrink(from);
        (behind, seen)
    }

    /// Shows the hashes of the segment at hash position `from` whose earliest field expiry is `now_ms` or before to
    /// `due`, if the hints say that there may be any, and drops those that are empty afterwards. Returns as
    /// `expire_segment`.
    pub(crate) fn expire_fields(
        &mut self,
        from: u64,
        now_ms: i64,
        mut due: impl FnMut(&mut Entry),
    ) -> (Option<u64>, usize) {
        let Some(segment) = self.segment(from) else { return (None, 0) };
        let behind = end_of(segment, from);
        let header = segment.header();
        if header.volatile == 0 || header.fields_earliest_ms > now_ms {
            return (behind, 0);
        }
        segment.header_mut().fields_earliest_ms = i64::MAX;
        let mut seen = 0;
        // From the back, as in `expire_segment`.
        for bucket in (0..segment.buckets()).rev() {
            for slot in (0..SLOTS).rev() {
                let place = Place { bucket, slot };
                if segment.slot(place).is_null() {
                    continue;
                }
                seen += 1;
                let entry = entry_of_mut(segment.slot_mut(place));
                if !entry.is_volatile() {
                    continue;
                }
                if entry.fields_earliest_ms().is_some_and(|at| at <= now_ms) {
                    due(entry);
                    if entry.elements() == 0 {
                        drop(self.take(segment, place));
                        continue;
                    }
                }
                self.note_fields_of(segment, entry);
            }
        }
        self.shrink(from);
        (behind, seen)
    }

    /// All entries in hash order, roughly. Each is a cache miss: they are loaded some buckets ahead.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        const AHEAD: usize = 3;
        self.segments().flat_map(|segment| {
            (0..AHEAD.min(segment.buckets())).for_each(|bucket| prefetch_entries(segment, bucket));
            (0..segment.buckets()).flat_map(move |bucket| {
                prefetch_entries(segment, bucket + AHEAD);
                segment.bucket(bucket).iter().filter(|slot| !slot.is_null()).map(entry_of)
            })
        })
    }

    /// Starts loading the entries that `scan_bucket` will come to next but one or two.
    #[inline]
    pub(crate) fn prefetch_behind(&self, from: u64) {
        if let Some(segment) = self.segment(from) {
            prefetch_entries(segment, segment.home(tag_at(from, segment.depth())) + WINDOW + 1);
        }
    }

    /// The table with all its entries; an empty one takes its place.
    #[must_use]
    pub fn take_all(&mut self) -> Table {
        let mut empty = Table::new(self.hash);
        empty.used = self.used;
        std::mem::replace(self, empty)
    }
}

/// Starts loading the entries of a bucket, if there is one of that number: two lines each, which holds most of them.
#[inline]
fn prefetch_entries(segment: Segment, bucket: usize) {
    if bucket < segment.buckets() {
        for slot in segment.bucket(bucket).iter().filter(|slot| !slot.is_null()) {
            let entry = slot.map_addr(|addr| addr & ((1 << 48) - 1));
            prefetch_line(entry);
            prefetch_line(entry.wrapping_byte_add(LINE));
        }
    }
}

/// The hash position behind a segment that `hash` lies in; `None` at the end.
fn end_of(segment: Segment, hash: u64) -> Option<u64> {
    if segment.depth() == 0 {
        return None;
    }
    let bits = 64 - segment.depth();
    ((hash >> bits) + 1).checked_mul(1 << bits)
}

impl Drop for Table {
    fn drop(&mut self) {
        let mut index = 0;
        while let Some(&segment) = self.directory.get(index) {
            index += 1 << (self.depth - segment.depth());
            // SAFETY: the table owns its entries, and nobody looks at the slots or the segment afterwards.
            segment.for_each(|slot| drop(unsafe { Entry::from_tagged(slot) }));
            // SAFETY: as above.
            unsafe { segment.free() };
        }
    }
}
