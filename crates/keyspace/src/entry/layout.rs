//! The layout of an entry's block: flags, offsets and size. The picture is in the parent module.

use std::alloc::{Layout, alloc, handle_alloc_error};
use std::ptr::NonNull;

use kara_encoding::size_class::size_class;

use super::kinds::Kind;
use super::text::StrValue;

pub(super) const ADDR_BITS: u32 = 48;
pub(super) const ADDR_MASK: usize = (1 << ADDR_BITS) - 1;

pub(super) const KIND_MASK: u8 = 0b0000_0111;
pub(super) const WORDS_SHIFT: u32 = 3;
pub(super) const WORDS_MASK: u8 = 0b0001_1000;
pub(super) const HAS_EXPIRY: u8 = 0b0010_0000;
pub(super) const SHOWN_RAW: u8 = 0b0100_0000;
pub(super) const IS_INT: u8 = 0b1000_0000;
/// A hash's meaning of the bit: the table counts it as one with expiring fields.
pub(super) const VOLATILE: u8 = SHOWN_RAW;

pub(super) const HEADER: usize = 8;
pub(super) const LONG_KEY: u8 = 255;
/// An entry up to this size keeps its string value inside; a longer one gets a buffer of its own. Beyond it moving the
/// block (a TTL added) would cost more than the saved allocation brings.
pub(super) const EMBED_MAX: usize = 1024;

/// The most that the payload of a collection may take; most take one word.
pub(super) const COLLECTION_BYTES: usize = 16;

/// What an entry's block is made of; determines every offset and the size.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub meta: u8,
    pub key_len: usize,
    pub embedded_len: usize,
}

impl Plan {
    pub fn new(kind: Kind, words: u8, flags: u8, key_len: usize, embedded_len: usize) -> Plan {
        Plan { meta: kind as u8 | words << WORDS_SHIFT | flags, key_len, embedded_len }
    }

    pub fn string(value: &StrValue<'_>, flags: u8, key_len: usize) -> Plan {
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

    pub fn payload_offset(self) -> usize {
        payload_offset(self.meta)
    }

    pub fn key_offset(self) -> usize {
        key_offset(self.meta, self.key_len >= LONG_KEY as usize)
    }

    pub fn content(self) -> usize {
        self.key_offset() + self.key_len + self.embedded_len
    }

    /// Bytes of the block: what the allocator spends.
    pub fn size(self) -> usize {
        size_class(self.content())
    }

    pub fn layout(self) -> Layout {
        match Layout::from_size_align(self.size(), 8) {
            Ok(layout) => layout,
            Err(_) => unreachable!("a key of {} bytes", self.key_len),
        }
    }

    pub fn alloc(self) -> NonNull<u8> {
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
    pub unsafe fn write_lengths(self, block: *mut u8) {
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
pub(super) fn payload_offset(meta: u8) -> usize {
    HEADER + usize::from(meta & HAS_EXPIRY) / (HAS_EXPIRY as usize / 8)
}

#[inline]
pub(super) fn key_offset(meta: u8, long_key: bool) -> usize {
    payload_offset(meta) + usize::from(meta & WORDS_MASK) + 4 * usize::from(long_key)
}

const _: () = assert!(WORDS_MASK >> WORDS_SHIFT == 3 && 1 << WORDS_SHIFT == 8, "masked words are bytes");
