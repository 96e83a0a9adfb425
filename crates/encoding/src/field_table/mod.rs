//! A map of byte strings: the [`Table`] over entries that embed field, value and, where there is one, the
//! field's expiry; one allocation per field. For hashes above the listpack's limits or with expiring fields.
//!
//! ```text
//! field length | value length | field | value | expiry, i64le Unix time in ms, if the flag is set
//! field length: u8 up to 124 | 125 u16le | 126 u32le | 127 u64le; 0x80 in the first byte: has an expiry
//! value length: u8 up to 252 | 253 u16le | 254 u32le | 255 u64le
//! ```
//!
//! Each segment's header keeps a lower bound of its fields' expiries, and so does the map: whoever looks for
//! due fields visits only the segments that may have some.

use kara_base::hash::HashSeed;
use kara_base::rng::Rng;
use smallvec::SmallVec;

use crate::raw_bytes::{allocate, free, prefix_len, read_prefix, resize, write_prefix};
use crate::size_class::size_class;
use crate::table::{self, EntryKind, Found, POINTER_MASK, PointerSlots, Table};

const FIELD_INLINE_MAX: u8 = 124;
const FIELD_MASK: u8 = 0x7f;
const HAS_EXPIRY: u8 = 0x80;
const VALUE_INLINE_MAX: u8 = 252;
const EXPIRY_BYTES: usize = 8;
/// No field of the segment (or map) has an expiry.
const NO_HINT: u64 = 0;
/// Segments that one pass over the headers picks for a visit.
const SEGMENTS_PER_STEP: usize = 1024;

/// Hashes field entries.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    seed: HashSeed,
}

/// A field as it stands in its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldRef<'a> {
    pub field: &'a [u8],
    pub value: &'a [u8],
    /// Unix time in ms after which the field ceases to exist.
    pub expiry_ms: Option<i64>,
}

impl FieldRef<'_> {
    /// Whether the field's time is over.
    #[inline]
    pub fn is_due(&self, now_ms: i64) -> bool {
        self.expiry_ms.is_some_and(|at| at < now_ms)
    }
}

/// The parts of an entry, as offsets.
#[derive(Clone, Copy)]
struct Layout {
    head: usize,
    field: usize,
    value: usize,
    expires: bool,
}

impl Layout {
    fn new(field: usize, value: usize, expires: bool) -> Self {
        let head = prefix_len(field, FIELD_INLINE_MAX) + prefix_len(value, VALUE_INLINE_MAX);
        Layout { head, field, value, expires }
    }

    /// # Safety
    /// `entry` is the address of a living field entry.
    #[inline(always)]
    unsafe fn of(entry: *const u8) -> Self {
        // SAFETY: the entry starts with the two prefixes.
        unsafe {
            let (head, field) = read_prefix(entry, FIELD_INLINE_MAX, FIELD_MASK);
            let (more, value) = read_prefix(entry.add(head), VALUE_INLINE_MAX, 0xff);
            Layout { head: head + more, field, value, expires: *entry & HAS_EXPIRY != 0 }
        }
    }

    fn value_at(&self) -> usize {
        self.head + self.field
    }

    fn expiry_at(&self) -> usize {
        self.head + self.field + self.value
    }

    fn size(&self) -> usize {
        self.expiry_at() + if self.expires { EXPIRY_BYTES } else { 0 }
    }

    /// # Safety
    /// The prefixes' bytes at `entry` may be written.
    unsafe fn write_head(&self, entry: *mut u8) {
        let flags = if self.expires { HAS_EXPIRY } else { 0 };
        // SAFETY: the head is these two prefixes.
        unsafe {
            write_prefix(entry, self.field, FIELD_INLINE_MAX, flags);
            let second = prefix_len(self.field, FIELD_INLINE_MAX);
            write_prefix(entry.add(second), self.value, VALUE_INLINE_MAX, 0);
        }
    }
}

/// # Safety
/// `entry` is the address of a field entry that lives for `'a`.
#[inline(always)]
unsafe fn field_of<'a>(entry: *const u8) -> &'a [u8] {
    // SAFETY: as `Layout` says.
    unsafe {
        let layout = Layout::of(entry);
        std::slice::from_raw_parts(entry.add(layout.head), layout.field)
    }
}

/// # Safety
/// As for `field_of`.
#[inline(always)]
unsafe fn parts_of<'a>(entry: *const u8) -> FieldRef<'a> {
    // SAFETY: as `Layout` says.
    unsafe {
        let layout = Layout::of(entry);
        FieldRef {
            field: std::slice::from_raw_parts(entry.add(layout.head), layout.field),
            value: std::slice::from_raw_parts(entry.add(layout.value_at()), layout.value),
            expiry_ms: layout
                .expires
                .then(|| i64::from_le_bytes(entry.add(layout.expiry_at()).cast::<[u8; 8]>().read())),
        }
    }
}

fn new_entry(field: &[u8], value: &[u8], expiry_ms: Option<i64>) -> *mut u8 {
    let layout = Layout::new(field.len(), value.len(), expiry_ms.is_some());
    let entry = allocate(layout.size());
    // SAFETY: the allocation has the layout's size.
    unsafe {
        layout.write_head(entry);
        entry.add(layout.head).copy_from_nonoverlapping(field.as_ptr(), field.len());
        entry.add(layout.value_at()).copy_from_nonoverlapping(value.as_ptr(), value.len());
        if let Some(at) = expiry_ms {
            entry.add(layout.expiry_at()).cast::<[u8; 8]>().write(at.to_le_bytes());
        }
    }
    entry
}

/// # Safety
/// `entry` came from `new_entry` and is not used afterwards.
unsafe fn free_entry(entry: *mut u8) {
    // SAFETY: the size follows from the entry.
    unsafe { free(entry, Layout::of(entry).size()) }
}

/// The same field with another value and expiry; in place where the sizes allow.
///
/// # Safety
/// As for `free_entry`: the result takes the entry's place.
unsafe fn update_entry(entry: *mut u8, value: &[u8], expiry_ms: Option<i64>) -> *mut u8 {
    // SAFETY: `old` describes the entry, `new` what it becomes; the head keeps its length, so that the field
    // stays where it is, and the memory is resized before anything beyond the old end is written.
    unsafe {
        let old = Layout::of(entry);
        let new = Layout::new(old.field, value.len(), expiry_ms.is_some());
        if new.head != old.head {
            let fresh = new_entry(field_of(entry), value, expiry_ms);
            free_entry(entry);
            return fresh;
        }
        let entry = if new.size() == old.size() { entry } else { resize(entry, old.size(), new.size()) };
        new.write_head(entry);
        entry.add(new.value_at()).copy_from_nonoverlapping(value.as_ptr(), value.len());
        if let Some(at) = expiry_ms {
            entry.add(new.expiry_at()).cast::<[u8; 8]>().write(at.to_le_bytes());
        }
        entry
    }
}

/// The same field and value with another expiry.
///
/// # Safety
/// As for `update_entry`.
unsafe fn update_expiry(entry: *mut u8, expiry_ms: Option<i64>) -> *mut u8 {
    // SAFETY: the expiry is the entry's last part, so only the end moves.
    unsafe {
        let old = Layout::of(entry);
        let new = Layout { expires: expiry_ms.is_some(), ..old };
        let entry = if new.size() == old.size() { entry } else { resize(entry, old.size(), new.size()) };
        new.write_head(entry);
        if let Some(at) = expiry_ms {
            entry.add(new.expiry_at()).cast::<[u8; 8]>().write(at.to_le_bytes());
        }
        entry
    }
}

/// The hint of a segment's header: a lower bound of its expiries in the bits above the count, 0 for none.
fn hint_of(header: [u64; 8]) -> u64 {
    header[0] >> 16
}

fn min_hint(a: u64, b: u64) -> u64 {
    match (a, b) {
        (NO_HINT, other) | (other, NO_HINT) => other,
        _ => a.min(b),
    }
}

/// An expiry as a hint: 1 to 2^48 - 1, rounded down by the clamp at most.
fn to_hint(expiry_ms: i64) -> u64 {
    (expiry_ms.max(1) as u64).min(POINTER_MASK)
}

// SAFETY: an entry's field never changes.
unsafe impl EntryKind for Fields {
    fn merge_headers(mut lower: [u64; 8], upper: [u64; 8]) -> [u64; 8] {
        lower[0] = min_hint(hint_of(lower), hint_of(upper)) << 16;
        lower
    }

    unsafe fn hash(&self, entry: *const u8) -> u64 {
        // SAFETY: the trait's contract.
        self.seed.hash(unsafe { field_of(entry) })
    }

    unsafe fn release(&self, entry: *mut u8) {
        // SAFETY: the trait's contract.
        unsafe { free_entry(entry) }
    }
}

/// What becomes of a field's expiry when its value is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetExpiry {
    /// The field will not expire.
    Clear,
    /// A field that exists keeps what it has.
    Keep,
    /// Unix time in ms.
    At(i64),
}

/// The map.
pub struct FieldTable {
    table: Table<PointerSlots<Fields>>,
    /// Fields that have an expiry.
    expiring: usize,
    /// A lower bound of all expiries, `NO_HINT` for none.
    earliest: u64,
}

impl FieldTable {
    pub fn new(seed: HashSeed) -> Self {
        Self::with_capacity(seed, 0)
    }

    /// As [`Table::with_capacity`].
    pub fn with_capacity(seed: HashSeed, fields: usize) -> Self {
        FieldTable {
            table: Table::with_capacity(PointerSlots(Fields { seed }), fields),
            expiring: 0,
            earliest: NO_HINT,
        }
    }

    /// All fields, those whose time has come but which nobody removed yet included.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Fields that have an expiry.
    pub fn expiring(&self) -> usize {
        self.expiring
    }

    /// No field expires before this Unix time in ms; `None` if no field has an expiry.
    pub fn earliest_expiry_ms(&self) -> Option<i64> {
        (self.expiring > 0).then_some(self.earliest as i64)
    }

    #[inline]
    fn lookup(&self, field: &[u8]) -> (u64, Option<Found>) {
        let hash = self.table.kind().0.seed.hash(field);
        // SAFETY: the table's words are living entries.
        (hash, self.table.find(hash, |word| unsafe { field_of((word & POINTER_MASK) as *const u8) } == field))
    }

    /// The field, whether or not its time has come.
    #[inline]
    pub fn get(&self, field: &[u8]) -> Option<FieldRef<'_>> {
        // SAFETY: the entry lives as long as the table is borrowed.
        self.lookup(field).1.map(|found| unsafe { parts_of(found.pointer()) })
    }

    /// Sets a field; true if it was not there at `now_ms`: a field whose time has come counts as new.
    pub fn set(&mut self, field: &[u8], value: &[u8], expiry: SetExpiry, now_ms: i64) -> bool {
        let (hash, found) = self.lookup(field);
        // SAFETY: the entry lives.
        let old = found.and_then(|f| unsafe { parts_of(f.pointer()) }.expiry_ms);
        let was_due = old.is_some_and(|at| at < now_ms);
        let new = match expiry {
            SetExpiry::Clear => None,
            SetExpiry::Keep if was_due => None,
            SetExpiry::Keep => old,
            SetExpiry::At(at) => Some(at),
        };
        match found {
            // SAFETY: the entry at `found` is replaced by what it became.
            Some(found) => unsafe {
                let entry = update_entry(found.pointer(), value, new);
                self.table.replace(found, entry as u64);
            },
            // SAFETY: a new entry with that hash.
            None => unsafe { self.table.insert(hash, new_entry(field, value, new) as u64) },
        }
        self.account(hash, old, new);
        found.is_none() || was_due
    }

    /// Gives an existing field an expiry, or takes it; false if the field is not there.
    pub fn set_expiry(&mut self, field: &[u8], expiry_ms: Option<i64>) -> bool {
        let (hash, Some(found)) = self.lookup(field) else { return false };
        // SAFETY: the entry lives and is replaced by what it became.
        let old = unsafe {
            let old = parts_of(found.pointer()).expiry_ms;
            self.table.replace(found, update_expiry(found.pointer(), expiry_ms) as u64);
            old
        };
        self.account(hash, old, expiry_ms);
        true
    }

    fn account(&mut self, hash: u64, old: Option<i64>, new: Option<i64>) {
        self.expiring = self.expiring + usize::from(new.is_some()) - usize::from(old.is_some());
        if let Some(at) = new {
            let hint = to_hint(at);
            let mut header = self.table.header(hash);
            header[0] = min_hint(hint_of(header), hint) << 16;
            self.table.set_header(hash, &header);
            self.earliest = min_hint(self.earliest, hint);
        }
        if self.expiring == 0 {
            self.earliest = NO_HINT;
        }
    }

    /// Removes a field; true if it was there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        match self.lookup(field) {
            (hash, Some(found)) => {
                self.remove_found(hash, found);
                true
            }
            _ => false,
        }
    }

    fn remove_found(&mut self, hash: u64, found: Found) {
        // SAFETY: the entry lives until it is freed below, after it left the table.
        unsafe {
            let old = parts_of(found.pointer()).expiry_ms;
            self.table.remove(found);
            free_entry(found.pointer());
            self.account(hash, old, None);
        }
    }

    /// Removes at most `limit` fields whose time is over at `now_ms`, after showing each to `visit`. Returns
    /// how many; fewer than `limit` means that no due field is left. Takes time for the segments' headers and
    /// for those segments that may hold due fields.
    pub fn expire_due(&mut self, now_ms: i64, limit: usize, mut visit: impl FnMut(FieldRef<'_>)) -> usize {
        // Between these bounds a hint from `now` on belongs to no due field: every visit makes progress.
        if now_ms < 2 || now_ms as u64 > POINTER_MASK {
            return 0;
        }
        let mut removed = 0;
        while removed < limit && self.expiring > 0 && self.earliest < now_ms as u64 {
            // All segments that may hold due fields (or as many as a step takes); the others' hints give the
            // new lower bound once there are none.
            let mut due = SmallVec::<[u64; 64]>::new();
            let mut earliest = NO_HINT;
            self.table.each_segment(|hash, header| {
                match hint_of(header) {
                    hint if hint != NO_HINT && hint < now_ms as u64 => due.push(hash),
                    hint => earliest = min_hint(earliest, hint),
                }
                due.len() < SEGMENTS_PER_STEP
            });
            if due.is_empty() {
                self.earliest = earliest;
                removed += self.expire_stash(now_ms, limit - removed, &mut visit);
                break;
            }
            for hash in due {
                removed += self.expire_segment(hash, now_ms, limit - removed, &mut visit);
                if removed >= limit {
                    break;
                }
            }
        }
        removed
    }

    fn expire_segment(
        &mut self,
        hash: u64,
        now_ms: i64,
        limit: usize,
        visit: &mut impl FnMut(FieldRef<'_>),
    ) -> usize {
        let mut due = SmallVec::<[u64; 32]>::new();
        let mut hint = NO_HINT;
        for word in self.table.segment_words(hash) {
            // SAFETY: a living entry of the table.
            let Some(at) = (unsafe { parts_of((word & POINTER_MASK) as *const u8) }).expiry_ms else {
                continue;
            };
            if at < now_ms && due.len() < limit {
                due.push(word);
            } else {
                hint = min_hint(hint, to_hint(at));
            }
        }
        let mut header = self.table.header(hash);
        header[0] = hint << 16;
        self.table.set_header(hash, &header);
        self.remove_words(&due, visit);
        due.len()
    }

    /// Fields outside all segments (colliding hashes), which no hint covers.
    fn expire_stash(&mut self, now_ms: i64, limit: usize, visit: &mut impl FnMut(FieldRef<'_>)) -> usize {
        let mut due = SmallVec::<[u64; 32]>::new();
        for &word in self.table.stashed() {
            // SAFETY: a living entry of the table.
            let Some(at) = (unsafe { parts_of((word & POINTER_MASK) as *const u8) }).expiry_ms else {
                continue;
            };
            if at < now_ms && due.len() < limit {
                due.push(word);
            } else {
                self.earliest = min_hint(self.earliest, to_hint(at));
            }
        }
        self.remove_words(&due, visit);
        due.len()
    }

    fn remove_words(&mut self, words: &[u64], visit: &mut impl FnMut(FieldRef<'_>)) {
        for &word in words {
            let pointer = word & POINTER_MASK;
            // SAFETY: the entry stands in the table until it is removed below.
            let parts = unsafe { parts_of(pointer as *const u8) };
            visit(parts);
            let hash = self.table.kind().0.seed.hash(parts.field);
            if let Some(found) = self.table.find(hash, |other| other & POINTER_MASK == pointer) {
                self.remove_found(hash, found);
            }
        }
    }

    /// All fields, in no promised order.
    pub fn iter(&self) -> Iter<'_> {
        Iter { words: self.table.iter() }
    }

    /// A field chosen with equal chances.
    pub fn random(&self, rng: &mut Rng) -> Option<FieldRef<'_>> {
        // SAFETY: a word of the table, which the result borrows.
        self.table.random(rng).map(|word| unsafe { parts_of((word & POINTER_MASK) as *const u8) })
    }

    /// As [`Table::scan`].
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(FieldRef<'_>)) -> u64 {
        // SAFETY: the words are living entries.
        self.table.scan(cursor, count, |word| visit(unsafe { parts_of((word & POINTER_MASK) as *const u8) }))
    }

    /// Heap bytes, this struct included; entries are extrapolated from `samples` of them (0: all).
    pub fn memory_usage(&self, samples: usize) -> usize {
        let samples = if samples == 0 { usize::MAX } else { samples };
        let (mut seen, mut bytes) = (0u128, 0u128);
        for f in self.iter().take(samples) {
            let layout = Layout::new(f.field.len(), f.value.len(), f.expiry_ms.is_some());
            bytes += size_class(layout.size()) as u128;
            seen += 1;
        }
        let entries = (bytes * self.len() as u128).checked_div(seen).unwrap_or(0) as usize;
        size_of::<Self>() + self.table.index_bytes() + entries
    }
}

/// All fields of a [`FieldTable`].
pub struct Iter<'a> {
    words: table::Iter<'a, PointerSlots<Fields>>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = FieldRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<FieldRef<'a>> {
        // SAFETY: the words are living entries, and the iterator borrows the table.
        self.words.next().map(|word| unsafe { parts_of((word & POINTER_MASK) as *const u8) })
    }
}

impl Clone for FieldTable {
    /// A copy of all fields, those whose time has come included.
    fn clone(&self) -> Self {
        let mut copy = FieldTable::new(self.table.kind().0.seed);
        for f in self.iter() {
            copy.set(f.field, f.value, f.expiry_ms.map_or(SetExpiry::Clear, SetExpiry::At), i64::MIN);
        }
        copy
    }
}

#[cfg(test)]
mod tests;
