//! A key with its value: one thin pointer to one allocation.
//!
//! ```text
//! offset  size  what
//!      0     1  meta: kind (3 bits), payload words (2), has expiry, shown as raw (a hash: volatile), is an integer
//!      1     1  snapshot epoch
//!      2     3  access clock: LRU time, or LFU counter and time (the engine's business)
//!      5     1  key length; 255: the length is in the u32 right before the key
//!      6     2  length of an embedded string value
//!      8     8  expiry, Unix ms, if any
//!      .  0-16  payload: nothing (embedded string), i64, pointer to a string's buffer, or a collection
//!      .     4  key length, if it is 255 or more
//!      .     n  key
//!      .     n  embedded string value
//! ```
//!
//! The block is always as long as the allocator's size class, so a change that stays in its class is made in place.
//! A changed class moves the block; as the owner holds the pointer itself, that needs no second lookup. The pointer's
//! upper 16 bits are free for whoever stores it (the table's tag) and survive such a move.
//!
//! Boundary: knows nothing of shards, snapshots' progress or expiry policy.

mod buffer;
mod kinds;
mod layout;
#[cfg(test)]
mod tests;
mod text;

use std::alloc::dealloc;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

pub use buffer::OutOfMemory;
pub use kinds::{Collection, Kind, NewValue, OwnedValue, Value};
pub use text::{StrRef, StrValue, StringEncoding};

use buffer::StrBuf;
use kinds::{EXPENSIVE_BYTES, EXPENSIVE_ELEMENTS};
use layout::{
    ADDR_BITS, ADDR_MASK, HAS_EXPIRY, HEADER, IS_INT, KIND_MASK, LONG_KEY, Plan, SHOWN_RAW, VOLATILE,
    WORDS_MASK, key_offset, payload_offset,
};

use crate::value::hash::Hash;
use crate::value::list::List;
use crate::value::set::Set;
use crate::value::stream::Stream;
use crate::value::zset::ZSet;

const _: () = assert!(size_of::<usize>() == 8, "entry pointers carry 16 bits above a 48-bit address");

/// Runs `$body` with `$T` bound to the collection type of `$kind`; `$string` is the answer for strings.
macro_rules! with_collection {
    ($kind:expr, $T:ident => $body:expr, $string:expr) => {
        match $kind {
            Kind::String => $string,
            Kind::List => {
                type $T = List;
                $body
            }
            Kind::Set => {
                type $T = Set;
                $body
            }
            Kind::ZSet => {
                type $T = ZSet;
                $body
            }
            Kind::Hash => {
                type $T = Hash;
                $body
            }
            Kind::Stream => {
                type $T = Stream;
                $body
            }
        }
    };
}

/// The growable bytes of a string, for APPEND, SETRANGE, SETBIT and BITFIELD. Lengths that a client chose go through
/// `try_reserve` first; the other calls abort the process when memory is out.
pub struct StrMut<'a> {
    // Points at the buffer's pointer in the entry's payload.
    buf: &'a mut ManuallyDrop<StrBuf>,
}

impl StrMut<'_> {
    pub fn len(&self) -> usize {
        self.buf.len()
    }

    pub fn is_empty(&self) -> bool {
        self.buf.len() == 0
    }

    pub fn as_slice(&self) -> &[u8] {
        self.buf.as_slice()
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.buf.as_mut_slice()
    }

    /// Makes room for `total` bytes altogether.
    pub fn try_reserve(&mut self, total: usize) -> Result<(), OutOfMemory> {
        self.buf.try_reserve(total)
    }

    pub fn append(&mut self, bytes: &[u8]) {
        self.buf.append(bytes);
    }

    /// Cuts the string, or lengthens it with zero bytes.
    pub fn resize(&mut self, len: usize) {
        self.buf.resize(len);
    }

    /// Writes `bytes` at `offset`, lengthening the string with zero bytes as far as needed.
    pub fn write_at(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset.saturating_add(bytes.len());
        if end > self.len() {
            self.buf.resize(end);
        }
        self.buf.as_mut_slice()[offset..end].copy_from_slice(bytes);
    }

    /// Makes `bytes` the whole content.
    pub fn replace(&mut self, bytes: &[u8]) {
        self.buf.resize(0);
        self.buf.append(bytes);
        self.buf.trim();
    }
}

/// An owned key with its value.
#[repr(transparent)]
pub struct Entry(NonNull<u8>);

// SAFETY: the block is owned by exactly one Entry, and all it holds (bytes and collections) is Send. It isn't Sync:
// the clock and the epoch are written through shared references.
unsafe impl Send for Entry {}

impl Entry {
    /// An entry of that key and value. `expire_at_ms` is Unix time.
    pub fn new(key: &[u8], value: NewValue, expire_at_ms: Option<i64>) -> Entry {
        match value {
            Value::Str(bytes) => Entry::new_string(key, StrValue::Bytes(&bytes), expire_at_ms),
            Value::Int(number) => Entry::new_string(key, StrValue::Int(number), expire_at_ms),
            Value::List(v) => Entry::new_collection(key, v, expire_at_ms),
            Value::Set(v) => Entry::new_collection(key, v, expire_at_ms),
            Value::Hash(v) => Entry::new_collection(key, v, expire_at_ms),
            Value::ZSet(v) => Entry::new_collection(key, v, expire_at_ms),
            Value::Stream(v) => Entry::new_collection(key, v, expire_at_ms),
        }
    }

    /// An entry of a string.
    pub fn new_string(key: &[u8], value: StrValue<'_>, expire_at_ms: Option<i64>) -> Entry {
        let plan = Plan::string(&value, expiry_flag(expire_at_ms), key.len());
        let entry = Entry::bare(plan, key, expire_at_ms);
        entry.write_string(plan, value);
        entry
    }

    fn new_collection<T: Collection>(key: &[u8], value: T, expire_at_ms: Option<i64>) -> Entry {
        let plan =
            Plan::new(T::KIND, const { (size_of::<T>() / 8) as u8 }, expiry_flag(expire_at_ms), key.len(), 0);
        let entry = Entry::bare(plan, key, expire_at_ms);
        // SAFETY: the payload of a collection's plan is 16 bytes, 8-aligned, and T is no larger.
        unsafe { entry.payload().cast::<T>().write(value) };
        entry
    }

    /// A block with header, expiry and key; the payload and the embedded value are the caller's to write.
    fn bare(plan: Plan, key: &[u8], expire_at_ms: Option<i64>) -> Entry {
        let block = plan.alloc();
        let base = block.as_ptr();
        // SAFETY: the block has the plan's size, so every offset of the plan is inside.
        unsafe {
            base.cast::<u64>().write(0);
            plan.write_lengths(base);
            if let Some(at) = expire_at_ms {
                base.add(HEADER).cast::<i64>().write(at);
            }
            std::ptr::copy_nonoverlapping(key.as_ptr(), base.add(plan.key_offset()), key.len());
        }
        Entry(block)
    }

    #[inline]
    fn base(&self) -> *mut u8 {
        self.0.as_ptr().map_addr(|addr| addr & ADDR_MASK)
    }

    /// The pointer with a tag in its upper 16 bits.
    #[inline]
    pub(crate) fn into_tagged(self, tag: u16) -> *mut u8 {
        let tagged = self.base().map_addr(|addr| addr | usize::from(tag) << ADDR_BITS);
        std::mem::forget(self);
        tagged
    }

    /// # Safety
    /// `tagged` comes from `into_tagged` and isn't used again as an owner.
    #[inline]
    pub(crate) unsafe fn from_tagged(tagged: *mut u8) -> Entry {
        // SAFETY: into_tagged's pointers are never null.
        Entry(unsafe { NonNull::new_unchecked(tagged.map_addr(|addr| addr & ADDR_MASK)) })
    }

    /// Moves to another block, keeping the tag.
    #[inline]
    fn set_block(&mut self, block: NonNull<u8>) {
        let tag = self.0.as_ptr().addr() & !ADDR_MASK;
        let tagged = block.as_ptr().map_addr(|addr| addr | tag);
        // SAFETY: tagging only adds bits to a pointer that isn't null.
        self.0 = unsafe { NonNull::new_unchecked(tagged) };
    }

    #[inline]
    fn meta(&self) -> u8 {
        // SAFETY: the header is initialized for the block's whole life.
        unsafe { *self.base() }
    }

    #[inline]
    fn key_len(&self) -> usize {
        let base = self.base();
        // SAFETY: as in `meta`; a long key's length stands right before the key.
        unsafe {
            match *base.add(5) {
                LONG_KEY => base.add(key_offset(*base, true) - 4).cast::<u32>().read_unaligned() as usize,
                len => usize::from(len),
            }
        }
    }

    #[inline]
    fn embedded_len(&self) -> usize {
        // SAFETY: as in `meta`.
        usize::from(unsafe { self.base().add(6).cast::<u16>().read() })
    }

    fn plan(&self) -> Plan {
        Plan { meta: self.meta(), key_len: self.key_len(), embedded_len: self.embedded_len() }
    }

    #[inline]
    fn payload(&self) -> *mut u8 {
        // SAFETY: the payload's offset is inside the block (an embedded string's payload is empty).
        unsafe { self.base().add(payload_offset(self.meta())) }
    }

    #[inline]
    pub fn key(&self) -> &[u8] {
        let base = self.base();
        // SAFETY: the header is initialized, and the key's bytes lie where it says.
        unsafe {
            let len = *base.add(5);
            if len != LONG_KEY {
                let offset = key_offset(*base, false);
                return std::slice::from_raw_parts(base.add(offset), usize::from(len));
            }
            std::slice::from_raw_parts(base.add(key_offset(*base, true)), self.key_len())
        }
    }

    #[inline]
    pub fn kind(&self) -> Kind {
        Kind::from_meta(self.meta())
    }

    #[inline]
    pub fn has_expiry(&self) -> bool {
        self.meta() & HAS_EXPIRY != 0
    }

    /// Unix time in ms after which the key no longer exists.
    #[inline]
    pub fn expire_at_ms(&self) -> Option<i64> {
        if !self.has_expiry() {
            return None;
        }
        // SAFETY: with the flag set the eight bytes after the header are the expiry.
        Some(unsafe { self.base().add(HEADER).cast::<i64>().read() })
    }

    /// The 24-bit access clock; its meaning is the eviction policy's.
    #[inline]
    pub fn lru(&self) -> u32 {
        // SAFETY: the header is initialized.
        let word = unsafe { self.base().cast::<u64>().read() };
        (word >> 16) as u32 & 0x00ff_ffff
    }

    /// Sets the access clock's 24 bits. Through a shared reference, as reads touch it: an entry isn't Sync, so nobody
    /// else looks.
    #[inline]
    pub fn set_lru(&self, lru: u32) {
        if self.lru() == lru {
            // The line stays clean, and with the other processors.
            return;
        }
        let bytes = lru.to_le_bytes();
        // SAFETY: bytes 2 to 4 of the header; no Rust reference to the header is ever made.
        unsafe {
            self.base().add(2).cast::<u16>().write(u16::from_le_bytes([bytes[0], bytes[1]]));
            *self.base().add(4) = bytes[2];
        }
    }

    /// The snapshot epoch in which the entry was made or handed over last.
    #[inline]
    pub fn epoch(&self) -> u8 {
        // SAFETY: the header is initialized.
        unsafe { *self.base().add(1) }
    }

    #[inline]
    pub(crate) fn set_epoch(&self, epoch: u8) {
        // SAFETY: as in `set_lru`.
        unsafe { *self.base().add(1) = epoch }
    }

    /// The string, if it is one.
    #[inline]
    pub fn string(&self) -> Option<StrRef<'_>> {
        let meta = self.meta();
        if meta & KIND_MASK != Kind::String as u8 {
            return None;
        }
        // SAFETY: the meta byte tells what the payload is: an i64, a buffer's pointer, or nothing with the value behind
        // the key. The borrow of self keeps all of them alive and unchanged.
        unsafe {
            Some(if meta & IS_INT != 0 {
                StrRef::Int(self.payload().cast::<i64>().read())
            } else if meta & WORDS_MASK == 0 {
                let key = self.key();
                let value = key.as_ptr().add(key.len());
                StrRef::Bytes(std::slice::from_raw_parts(value, self.embedded_len()))
            } else {
                let buf = &*self.payload().cast::<ManuallyDrop<StrBuf>>();
                StrRef::Bytes(buf.as_slice())
            })
        }
    }

    /// The string's encoding as clients see it.
    pub fn string_encoding(&self) -> Option<StringEncoding> {
        let text = self.string()?;
        let meta = self.meta();
        Some(match text {
            StrRef::Int(_) => StringEncoding::Int,
            StrRef::Bytes(_) if meta & SHOWN_RAW != 0 => StringEncoding::Raw,
            StrRef::Bytes(bytes) => StringEncoding::of_plain(self.key_len(), bytes.len()),
        })
    }

    /// Shows the string as "raw" from now on, as the reference does for what BITOP or PFADD made. No effect on an
    /// integer or a collection.
    pub fn mark_raw(&mut self) {
        let meta = self.meta();
        if meta & KIND_MASK == Kind::String as u8 && meta & IS_INT == 0 {
            // SAFETY: the header is initialized; the flag changes no offset.
            unsafe { *self.base() = meta | SHOWN_RAW };
        }
    }

    /// This string has taken the place of a value that had an expiry: the reference keeps the expiry's eight bytes beside
    /// it, be they used or not, and shows "embstr" for so much less.
    pub fn note_expiry_replaced(&mut self) {
        let Some(StrRef::Bytes(bytes)) = self.string() else { return };
        if StringEncoding::of_plain(self.key_len(), bytes.len() + 8) == StringEncoding::Raw {
            self.mark_raw();
        }
    }

    /// Whether the table counts it as a hash with expiring fields.
    #[inline]
    pub(crate) fn is_volatile(&self) -> bool {
        self.meta() & (KIND_MASK | VOLATILE) == Kind::Hash as u8 | VOLATILE
    }

    /// Marks a hash as one with expiring fields or not; no effect on others.
    pub(crate) fn set_volatile(&mut self, volatile: bool) {
        let meta = self.meta();
        if meta & KIND_MASK == Kind::Hash as u8 {
            let flag = if volatile { VOLATILE } else { 0 };
            // SAFETY: the header is initialized; the flag changes no offset.
            unsafe { *self.base() = meta & !VOLATILE | flag };
        }
    }

    /// For a hash that has fields with an expiry: no field expires before (Unix ms).
    #[inline]
    pub(crate) fn fields_earliest_ms(&self) -> Option<i64> {
        self.get::<Hash>()?.earliest_expiry_ms()
    }

    /// The collection, if it is a `T`.
    #[inline]
    pub fn get<T: Collection>(&self) -> Option<&T> {
        if self.kind() != T::KIND {
            return None;
        }
        // SAFETY: an entry of this kind holds a T in its payload.
        Some(unsafe { &*self.payload().cast::<T>() })
    }

    /// The collection, if it is a `T`.
    #[inline]
    pub fn get_mut<T: Collection>(&mut self) -> Option<&mut T> {
        if self.kind() != T::KIND {
            return None;
        }
        // SAFETY: as in `get`; the borrow is unique.
        Some(unsafe { &mut *self.payload().cast::<T>() })
    }

    /// The string's growable bytes, if it is a string; what was an integer or embedded moves into a buffer, and shows
    /// as "raw" from now on.
    pub fn string_mut(&mut self) -> Option<StrMut<'_>> {
        let text = self.string()?;
        let plan = self.plan();
        if plan.meta & WORDS_MASK == 0 || plan.meta & IS_INT != 0 {
            let buf = StrBuf::from_bytes(text.as_bytes(&mut itoa::Buffer::new()));
            let new = Plan::new(Kind::String, 1, plan.meta & HAS_EXPIRY | SHOWN_RAW, plan.key_len, 0);
            self.reshape(plan, new);
            // SAFETY: the new plan's payload is one word.
            unsafe { self.payload().cast::<*mut u8>().write(buf.into_raw()) };
        } else {
            // SAFETY: the header is initialized; the flag changes no offset.
            unsafe { *self.base() = plan.meta | SHOWN_RAW };
        }
        // SAFETY: the payload is the pointer of a StrBuf, which is a transparent thin pointer.
        Some(StrMut { buf: unsafe { &mut *self.payload().cast::<ManuallyDrop<StrBuf>>() } })
    }

    /// Makes the value `value` and the expiry `expire_at_ms`, keeping key and clock, in place if the block's class
    /// allows. Returns a collection that was there before, so that the caller decides who frees it.
    pub(crate) fn set_string(
        &mut self,
        value: StrValue<'_>,
        expire_at_ms: Option<i64>,
    ) -> Option<OwnedValue> {
        let old = self.plan();
        let new = Plan::string(&value, expiry_flag(expire_at_ms), old.key_len);
        let replaced =
            if old.meta & WORDS_MASK == 0 || old.meta & IS_INT != 0 { None } else { self.take_payload() };
        if (old.meta, old.embedded_len) != (new.meta, new.embedded_len) {
            self.reshape(old, new);
        }
        if let Some(at) = expire_at_ms {
            // SAFETY: the new plan has room for the expiry.
            unsafe { self.base().add(HEADER).cast::<i64>().write(at) };
        }
        self.write_string(new, value);
        replaced
    }

    /// Sets, changes or (None) takes away the expiry.
    pub(crate) fn set_expiry(&mut self, expire_at_ms: Option<i64>) {
        let old = self.plan();
        if old.meta & HAS_EXPIRY != expiry_flag(expire_at_ms) {
            self.toggle_expiry(old);
        }
        if let Some(at) = expire_at_ms {
            // SAFETY: the flag is set now, and with it the room is there.
            unsafe { self.base().add(HEADER).cast::<i64>().write(at) };
        }
    }

    /// Adds or takes away the room for the expiry; everything behind it moves by eight bytes.
    fn toggle_expiry(&mut self, old: Plan) {
        let new = Plan { meta: old.meta ^ HAS_EXPIRY, ..old };
        let from = old.payload_offset();
        let rest = old.content() - from;
        let base = self.base();
        // SAFETY: both plans have the same bytes behind the expiry, `rest` many, at their payload's offset; in place
        // the block's size is that of both plans, else the new block has the new plan's and the old one is given back
        // with its own layout.
        unsafe {
            if old.size() == new.size() {
                std::ptr::copy(base.add(from), base.add(new.payload_offset()), rest);
                *base = new.meta;
            } else {
                let block = new.alloc();
                let to = block.as_ptr();
                to.cast::<u64>().write(base.cast::<u64>().read());
                *to = new.meta;
                std::ptr::copy_nonoverlapping(base.add(from), to.add(new.payload_offset()), rest);
                dealloc(base, old.layout());
                self.set_block(block);
            }
        }
    }

    /// Gives the block another plan with the same key. Clock, epoch, key and (if both have it) expiry stay; payload
    /// and embedded value are undefined afterwards: the caller has taken the old and writes the new.
    fn reshape(&mut self, old: Plan, new: Plan) {
        debug_assert_eq!(old.key_len, new.key_len);
        let base = self.base();
        // SAFETY: keys lie at their plan's offset and have the same length; blocks have their plan's size. In place
        // the key moves first: the lengths' four bytes of a long key may lie where its beginning was.
        unsafe {
            let key = base.add(old.key_offset());
            if old.size() == new.size() {
                std::ptr::copy(key, base.add(new.key_offset()), old.key_len);
                new.write_lengths(base);
            } else {
                let block = new.alloc();
                let to = block.as_ptr();
                to.cast::<u64>().write(base.cast::<u64>().read());
                new.write_lengths(to);
                if old.meta & new.meta & HAS_EXPIRY != 0 {
                    to.add(HEADER).cast::<u64>().write(base.add(HEADER).cast::<u64>().read());
                }
                std::ptr::copy_nonoverlapping(key, to.add(new.key_offset()), old.key_len);
                dealloc(base, old.layout());
                self.set_block(block);
            }
        }
    }

    /// Writes payload or embedded value of a string whose block has the plan `plan`.
    #[inline]
    fn write_string(&self, plan: Plan, value: StrValue<'_>) {
        // SAFETY: the plan was made for this value, so the room is there: behind the key, or one payload word.
        unsafe {
            match value {
                StrValue::Int(number) => self.payload().cast::<i64>().write(number),
                StrValue::Bytes(bytes) if plan.meta & WORDS_MASK == 0 => {
                    let to = self.base().add(plan.key_offset() + plan.key_len);
                    std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
                }
                StrValue::Bytes(bytes) => {
                    self.payload().cast::<*mut u8>().write(StrBuf::from_bytes(bytes).into_raw());
                }
            }
        }
    }

    /// Moves a collection out of the payload, or frees a string's buffer; the payload is dead afterwards.
    fn take_payload(&mut self) -> Option<OwnedValue> {
        let meta = self.meta();
        // SAFETY: the kind tells what the payload holds; the caller overwrites it or gives the block back without
        // looking at it again.
        unsafe {
            with_collection!(self.kind(), T => Some(self.payload().cast::<T>().read().into_value()), {
                if meta & WORDS_MASK != 0 && meta & IS_INT == 0 {
                    drop(StrBuf::from_raw(self.payload().cast::<*mut u8>().read()));
                }
                None
            })
        }
    }

    /// The same value under another key; clock and expiry stay. A string keeps the encoding it shows if that is raw.
    #[must_use]
    pub fn with_key(self, key: &[u8]) -> Entry {
        let old = self.plan();
        let mut new = Plan { key_len: key.len(), ..old };
        if self.string_encoding() == Some(StringEncoding::Raw) {
            new.meta |= SHOWN_RAW;
        }
        let entry = Entry::bare(new, key, self.expire_at_ms());
        let (from, to) = (self.base(), entry.base());
        // SAFETY: both plans differ only in the key, so the payload's words and the embedded value have the same
        // length; the old block is given back without dropping the payload, which lives on in the new one.
        unsafe {
            to.add(1).cast::<u32>().write_unaligned(from.add(1).cast::<u32>().read_unaligned());
            let words = usize::from(old.meta & WORDS_MASK);
            std::ptr::copy_nonoverlapping(
                from.add(old.payload_offset()),
                to.add(new.payload_offset()),
                words,
            );
            std::ptr::copy_nonoverlapping(
                from.add(old.key_offset() + old.key_len),
                to.add(new.key_offset() + new.key_len),
                old.embedded_len,
            );
            dealloc(from, old.layout());
        }
        std::mem::forget(self);
        entry
    }

    /// A copy of the value under another key, with the clock and the expiry of this one.
    #[must_use]
    pub fn duplicate(&self, key: &[u8]) -> Entry {
        let expiry = self.expire_at_ms();
        let mut entry = match self.string() {
            Some(StrRef::Int(number)) => Entry::new_string(key, StrValue::Int(number), expiry),
            Some(StrRef::Bytes(bytes)) => Entry::new_string(key, StrValue::Bytes(bytes), expiry),
            None => Entry::new(key, self.to_value(), expiry),
        };
        if self.string_encoding() == Some(StringEncoding::Raw) {
            entry.mark_raw();
        }
        entry.set_lru(self.lru());
        entry
    }

    /// A copy of the value.
    pub fn to_value(&self) -> OwnedValue {
        // SAFETY: the kind tells what the payload holds.
        with_collection!(self.kind(), T => unsafe { &*self.payload().cast::<T>() }.clone().into_value(), {
            match self.string() {
                Some(StrRef::Int(number)) => Value::Int(number),
                Some(StrRef::Bytes(bytes)) => Value::Str(bytes.to_vec()),
                None => unreachable!("the kind is String"),
            }
        })
    }

    /// The value, leaving key, clock and expiry behind.
    pub fn into_value(mut self) -> OwnedValue {
        if self.kind() == Kind::String {
            return self.to_value();
        }
        let layout = self.plan().layout();
        let base = self.base();
        let value = self.take_payload();
        std::mem::forget(self);
        // SAFETY: the payload has been moved out, and the entry that owned the block is forgotten.
        unsafe { dealloc(base, layout) };
        value.unwrap_or_else(|| unreachable!("not a string, so a collection"))
    }

    /// Elements of a collection; a string counts as one.
    pub fn elements(&self) -> usize {
        // SAFETY: the kind tells what the payload holds.
        with_collection!(self.kind(), T => unsafe { &*self.payload().cast::<T>() }.elements(), 1)
    }

    /// Whether dropping it may take long enough to be worth a trip to the freeing thread.
    pub fn is_expensive_to_free(&self) -> bool {
        match self.kind() {
            Kind::String => self.buffer_bytes() > EXPENSIVE_BYTES,
            _ => self.elements() > EXPENSIVE_ELEMENTS,
        }
    }

    fn buffer_bytes(&self) -> usize {
        let meta = self.meta();
        if self.kind() != Kind::String || meta & IS_INT != 0 || meta & WORDS_MASK == 0 {
            return 0;
        }
        // SAFETY: such a string's payload is its buffer's pointer.
        unsafe { &*self.payload().cast::<ManuallyDrop<StrBuf>>() }.allocated()
    }

    /// Bytes the allocator spends on the key and its value, without the table's slot; large collections are
    /// extrapolated from `samples` elements (0: all).
    pub fn memory_usage(&self, samples: usize) -> usize {
        // SAFETY: the kind tells what the payload holds.
        let heap = with_collection!(self.kind(), T => unsafe { &*self.payload().cast::<T>() }.heap_bytes(samples), {
            self.buffer_bytes()
        });
        self.plan().size() + heap
    }

    /// Starts loading the block into the cache.
    #[inline]
    pub fn prefetch(&self) {
        // Most blocks with a short value lie in two lines.
        crate::table::prefetch_line(self.base());
        crate::table::prefetch_line(self.base().wrapping_add(64));
    }
}

#[inline]
fn expiry_flag(expire_at_ms: Option<i64>) -> u8 {
    if expire_at_ms.is_some() { HAS_EXPIRY } else { 0 }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let layout = self.plan().layout();
        drop(self.take_payload());
        // SAFETY: the block was allocated with its plan's layout, and nobody owns it after this.
        unsafe { dealloc(self.base(), layout) }
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key().escape_ascii().to_string())
            .field("kind", &self.kind())
            .field("expire_at_ms", &self.expire_at_ms())
            .finish()
    }
}
