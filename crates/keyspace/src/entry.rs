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
#[cfg(test)]
mod tests;

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::borrow::Cow;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

pub use buffer::OutOfMemory;
use buffer::StrBuf;

use kara_encoding::size_class::size_class;

use crate::value::hash::Hash;
use crate::value::list::List;
use crate::value::set::Set;
use crate::value::stream::Stream;
use crate::value::zset::ZSet;

const _: () = assert!(size_of::<usize>() == 8, "entry pointers carry 16 bits above a 48-bit address");

const ADDR_BITS: u32 = 48;
const ADDR_MASK: usize = (1 << ADDR_BITS) - 1;

const KIND_MASK: u8 = 0b0000_0111;
const WORDS_SHIFT: u32 = 3;
const WORDS_MASK: u8 = 0b0001_1000;
const HAS_EXPIRY: u8 = 0b0010_0000;
const SHOWN_RAW: u8 = 0b0100_0000;
const IS_INT: u8 = 0b1000_0000;
/// A hash's meaning of the bit: the table counts it as one with expiring fields.
const VOLATILE: u8 = SHOWN_RAW;

const HEADER: usize = 8;
const LONG_KEY: u8 = 255;
/// An entry up to this size keeps its string value inside; a longer one gets a buffer of its own. Beyond it moving the
/// block (a TTL added) would cost more than the saved allocation brings.
const EMBED_MAX: usize = 1024;

/// The payload's place in an entry of a collection.
const COLLECTION_BYTES: usize = 16;
const COLLECTION_WORDS: u8 = (COLLECTION_BYTES / 8) as u8;

/// What a value is. The numbers are those of the RDB's object types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    String = 0,
    List = 1,
    Set = 2,
    ZSet = 3,
    Hash = 4,
    Stream = 6,
}

impl Kind {
    pub const ALL: [Kind; 6] = [Kind::String, Kind::List, Kind::Set, Kind::ZSet, Kind::Hash, Kind::Stream];

    /// The name that TYPE answers.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::String => "string",
            Kind::List => "list",
            Kind::Set => "set",
            Kind::ZSet => "zset",
            Kind::Hash => "hash",
            Kind::Stream => "stream",
        }
    }

    fn from_meta(meta: u8) -> Kind {
        match meta & KIND_MASK {
            1 => Kind::List,
            2 => Kind::Set,
            3 => Kind::ZSet,
            4 => Kind::Hash,
            6 => Kind::Stream,
            _ => Kind::String,
        }
    }
}

/// A string's encoding as OBJECT ENCODING shows it, whatever the layout inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StringEncoding {
    Int,
    Embstr,
    Raw,
}

impl StringEncoding {
    pub const fn name(self) -> &'static str {
        match self {
            StringEncoding::Int => "int",
            StringEncoding::Embstr => "embstr",
            StringEncoding::Raw => "raw",
        }
    }

    /// What the reference shows for a plain string of that length under a key of that length: "embstr" as long as its
    /// object, key and value fit 128 bytes. From 32 bytes on a key costs two bytes more there.
    fn of_plain(key_len: usize, value_len: usize) -> StringEncoding {
        let budget = if key_len < 32 { 113 } else { 111 };
        if key_len.saturating_add(value_len) <= budget { StringEncoding::Embstr } else { StringEncoding::Raw }
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A value type that lives in an entry's payload.
pub trait Collection: sealed::Sealed + Sized + Send + Clone {
    const KIND: Kind;
    /// Elements: what LLEN, SCARD, ZCARD, HLEN or XLEN answers.
    fn elements(&self) -> usize;
    /// Bytes on the heap beside the struct itself, extrapolated from `samples` elements (0: all).
    fn heap_bytes(&self, samples: usize) -> usize;
    fn into_value(self) -> Value;
}

macro_rules! collections {
    ($($name:ident),*) => {$(
        const _: () = assert!(size_of::<$name>() <= COLLECTION_BYTES && align_of::<$name>() <= 8);
        impl sealed::Sealed for $name {}
        impl Collection for $name {
            const KIND: Kind = Kind::$name;
            fn elements(&self) -> usize {
                // Streams count in u64.
                usize::try_from(self.len()).unwrap_or(usize::MAX)
            }
            fn heap_bytes(&self, samples: usize) -> usize {
                self.memory_usage(samples)
            }
            fn into_value(self) -> Value {
                Value::$name(self)
            }
        }
        impl From<$name> for Value {
            fn from(value: $name) -> Value {
                Value::$name(value)
            }
        }
    )*};
}
collections!(List, Set, Hash, ZSet, Stream);

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

/// A value by itself, without a key. `Str` stays a string even if it looks like a number: `StrValue::from_bytes`
/// decides that where the reference does.
#[derive(Clone)]
pub enum Value {
    Str(Vec<u8>),
    Int(i64),
    List(List),
    Set(Set),
    Hash(Hash),
    ZSet(ZSet),
    Stream(Stream),
}

pub type NewValue = Value;
pub type OwnedValue = Value;

impl Value {
    /// A string value as SET would store it: an integer if the text is a canonical `i64`.
    pub fn from_string(bytes: Vec<u8>) -> Value {
        match StrValue::from_bytes(&bytes) {
            StrValue::Int(number) => Value::Int(number),
            StrValue::Bytes(_) => Value::Str(bytes),
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Value::Str(_) | Value::Int(_) => Kind::String,
            Value::List(_) => Kind::List,
            Value::Set(_) => Kind::Set,
            Value::Hash(_) => Kind::Hash,
            Value::ZSet(_) => Kind::ZSet,
            Value::Stream(_) => Kind::Stream,
        }
    }

    /// Whether dropping it may take long enough to be worth a trip to the freeing thread.
    pub fn is_expensive_to_free(&self) -> bool {
        match self {
            Value::Str(bytes) => bytes.len() > EXPENSIVE_BYTES,
            Value::Int(_) => false,
            Value::List(v) => v.elements() > EXPENSIVE_ELEMENTS,
            Value::Set(v) => v.elements() > EXPENSIVE_ELEMENTS,
            Value::Hash(v) => v.elements() > EXPENSIVE_ELEMENTS,
            Value::ZSet(v) => v.elements() > EXPENSIVE_ELEMENTS,
            Value::Stream(v) => v.elements() > EXPENSIVE_ELEMENTS,
        }
    }
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Str(bytes) => write!(f, "Str({})", bytes.escape_ascii()),
            Value::Int(number) => write!(f, "Int({number})"),
            other => write!(f, "{:?}", other.kind()),
        }
    }
}

const EXPENSIVE_ELEMENTS: usize = 64;
/// Giving back a block of megabytes means system calls.
const EXPENSIVE_BYTES: usize = 4 << 20;

/// A string about to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StrValue<'a> {
    Int(i64),
    Bytes(&'a [u8]),
}

impl<'a> StrValue<'a> {
    /// An integer if `bytes` is the canonical text of an `i64`, else the bytes.
    #[inline]
    pub fn from_bytes(bytes: &'a [u8]) -> StrValue<'a> {
        match parse_canonical_i64(bytes) {
            Some(number) => StrValue::Int(number),
            None => StrValue::Bytes(bytes),
        }
    }
}

/// The number whose only decimal text is `text`.
#[inline]
pub(crate) fn parse_canonical_i64(text: &[u8]) -> Option<i64> {
    // Nearly all strings that aren't numbers leave here.
    if text.is_empty() || text.len() > 20 || !(text[0].is_ascii_digit() || text[0] == b'-') {
        return None;
    }
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        _ => (false, text),
    };
    match digits {
        [] => return None,
        [b'0'] => return if negative { None } else { Some(0) },
        [b'0', ..] => return None,
        _ => {}
    }
    let mut value = 0i64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // Downwards, as i64::MIN has no positive counterpart.
        value = value.checked_mul(10)?.checked_sub(i64::from(digit))?;
    }
    if negative { Some(value) } else { value.checked_neg() }
}

/// A stored string, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StrRef<'a> {
    Int(i64),
    Bytes(&'a [u8]),
}

impl<'a> StrRef<'a> {
    /// The length of its text in bytes.
    pub fn len(&self) -> usize {
        match self {
            StrRef::Int(number) => itoa::Buffer::new().format(*number).len(),
            StrRef::Bytes(bytes) => bytes.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        matches!(self, StrRef::Bytes([]))
    }

    pub fn to_cow(&self) -> Cow<'a, [u8]> {
        match self {
            StrRef::Int(number) => Cow::Owned(itoa::Buffer::new().format(*number).as_bytes().to_vec()),
            StrRef::Bytes(bytes) => Cow::Borrowed(bytes),
        }
    }

    /// Its text; a number's is written into `scratch`.
    pub fn as_bytes<'b>(&self, scratch: &'b mut itoa::Buffer) -> &'b [u8]
    where
        'a: 'b,
    {
        match self {
            StrRef::Int(number) => scratch.format(*number).as_bytes(),
            StrRef::Bytes(bytes) => bytes,
        }
    }

    pub fn write_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes(&mut itoa::Buffer::new()));
    }

    /// Its value if the text is a canonical `i64`, as INCR asks.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            StrRef::Int(number) => Some(*number),
            StrRef::Bytes(bytes) => parse_canonical_i64(bytes),
        }
    }
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

/// What an entry's block is made of; determines every offset and the size.
#[derive(Clone, Copy)]
struct Plan {
    meta: u8,
    key_len: usize,
    embedded_len: usize,
}

impl Plan {
    fn new(kind: Kind, words: u8, flags: u8, key_len: usize, embedded_len: usize) -> Plan {
        Plan { meta: kind as u8 | words << WORDS_SHIFT | flags, key_len, embedded_len }
    }

    fn string(value: &StrValue<'_>, flags: u8, key_len: usize) -> Plan {
        match value {
            StrValue::Int(_) => Plan::new(Kind::String, 1, flags | IS_INT, key_len, 0),
            StrValue::Bytes(bytes) => {
                let embedded = Plan::new(Kind::String, 0, flags, key_len, bytes.len());
                if bytes.len() <= EMBED_MAX && embedded.content() <= EMBED_MAX {
                    embedded
                } else {
                    Plan::new(Kind::String, 1, flags, key_len, 0)
                }
            }
        }
    }

    fn payload_offset(self) -> usize {
        payload_offset(self.meta)
    }

    fn key_offset(self) -> usize {
        key_offset(self.meta, self.key_len >= LONG_KEY as usize)
    }

    fn content(self) -> usize {
        self.key_offset() + self.key_len + self.embedded_len
    }

    /// Bytes of the block: what the allocator spends.
    fn size(self) -> usize {
        size_class(self.content())
    }

    fn layout(self) -> Layout {
        match Layout::from_size_align(self.size(), 8) {
            Ok(layout) => layout,
            Err(_) => unreachable!("a key of {} bytes", self.key_len),
        }
    }

    fn alloc(self) -> NonNull<u8> {
        assert!(u32::try_from(self.key_len).is_ok(), "keys are shorter than 4 GB");
        let layout = self.layout();
        // SAFETY: the size is at least HEADER.
        let block = unsafe { alloc(layout) };
        debug_assert_eq!(block.addr() & !ADDR_MASK, 0, "user addresses have 48 bits");
        NonNull::new(block).unwrap_or_else(|| handle_alloc_error(layout))
    }

    /// Writes meta, both lengths, and nothing else.
    ///
    /// # Safety
    /// `block` is a block of this plan's size.
    unsafe fn write_lengths(self, block: *mut u8) {
        // SAFETY: all of it lies in the header or, for the long key's length, in the four bytes that key_offset
        // leaves for it.
        unsafe {
            *block = self.meta;
            *block.add(5) = if self.key_len >= LONG_KEY as usize {
                block.add(self.key_offset() - 4).cast::<u32>().write_unaligned(self.key_len as u32);
                LONG_KEY
            } else {
                self.key_len as u8
            };
            block.add(6).cast::<u16>().write(self.embedded_len as u16);
        }
    }
}

#[inline]
fn payload_offset(meta: u8) -> usize {
    HEADER + usize::from(meta & HAS_EXPIRY) / (HAS_EXPIRY as usize / 8)
}

#[inline]
fn key_offset(meta: u8, long_key: bool) -> usize {
    payload_offset(meta) + usize::from(meta & WORDS_MASK) + 4 * usize::from(long_key)
}

const _: () = assert!(WORDS_MASK >> WORDS_SHIFT == 3 && 1 << WORDS_SHIFT == 8, "masked words are bytes");

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
        let plan = Plan::new(T::KIND, COLLECTION_WORDS, expiry_flag(expire_at_ms), key.len(), 0);
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
        crate::table::prefetch_line(self.base());
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
