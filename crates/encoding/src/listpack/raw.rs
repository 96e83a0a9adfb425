//! The allocation behind a listpack: the only unsafe code of the module. Everything else reads through `as_bytes` and
//! writes through `splice`.
//!
//! Invariant: `ptr` is an allocation of `size_class(total)` bytes, where `total` is the header's first field, `7 <= total
//! <= MAX_BYTES`; its first `total` bytes are initialized and the last of them is the end byte.

use super::TooLarge;
use super::entry::END;
use crate::size_class::size_class;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};
use std::ptr::NonNull;

/// Bytes in front of the first entry.
pub(super) const HEADER: usize = 6;
/// The reference refuses to let a listpack grow beyond 1 GiB; so do we.
pub(super) const MAX_BYTES: usize = 1 << 30;

/// A sequence of strings and integers in one blob. See the module.
#[repr(transparent)]
pub struct Listpack {
    ptr: NonNull<u8>,
}

// SAFETY: a Listpack owns its allocation alone; there is no interior mutability.
unsafe impl Send for Listpack {}
// SAFETY: as above: `&Listpack` only reads.
unsafe impl Sync for Listpack {}

fn layout(total: usize) -> Layout {
    // An even address: `Packed` keeps a bit there.
    Layout::from_size_align(size_class(total), 2).expect("at most 1 GiB")
}

impl Listpack {
    /// An empty listpack: 8 bytes of memory.
    pub fn new() -> Self {
        Self::from_trusted(&[7, 0, 0, 0, 0, 0, END])
    }

    /// A copy of a blob that `validate` accepted or that was another listpack's.
    pub(crate) fn from_trusted(blob: &[u8]) -> Self {
        assert!((HEADER + 1..=MAX_BYTES).contains(&blob.len()), "size of a listpack");
        let layout = layout(blob.len());
        // SAFETY: the layout's size is not zero.
        let Some(ptr) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        // SAFETY: the allocation is new and has room for `blob.len()` bytes.
        unsafe { ptr.as_ptr().copy_from_nonoverlapping(blob.as_ptr(), blob.len()) };
        let mut list = Listpack { ptr };
        // The invariant must not rest on what the caller's header says.
        list.set_total(blob.len());
        list
    }

    /// The blob's address, which is even.
    pub(crate) fn pointer(&self) -> NonNull<u8> {
        self.ptr
    }

    /// The blob, from the header to the end byte.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: the first `total` bytes are initialized and nobody writes while `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.bytes_len()) }
    }

    /// Size of the blob in bytes.
    #[inline]
    pub fn bytes_len(&self) -> usize {
        // SAFETY: the invariant: the header is there. Read as bytes: nothing promises alignment.
        u32::from_le(unsafe { self.ptr.as_ptr().cast::<u32>().read_unaligned() }) as usize
    }

    /// Bytes that the allocator hands out for it.
    pub fn allocated_bytes(&self) -> usize {
        size_class(self.bytes_len())
    }

    #[inline]
    pub(super) fn header_count(&self) -> usize {
        // SAFETY: the invariant: the header is there.
        usize::from(u16::from_le(unsafe { self.ptr.as_ptr().add(4).cast::<u16>().read_unaligned() }))
    }

    /// Writes the element count; what doesn't fit becomes "unknown".
    #[inline]
    pub(super) fn set_count(&mut self, count: usize) {
        let field = u16::try_from(count).unwrap_or(u16::MAX).to_le();
        // SAFETY: the invariant: the header is there, and `self` is borrowed exclusively.
        unsafe { self.ptr.as_ptr().add(4).cast::<u16>().write_unaligned(field) };
    }

    fn set_total(&mut self, total: usize) {
        let field = u32::try_from(total).expect("at most 1 GiB").to_le();
        // SAFETY: the invariant: the header is there, and `self` is borrowed exclusively.
        unsafe { self.ptr.as_ptr().cast::<u32>().write_unaligned(field) };
    }

    /// Puts `pieces` in the place of `removed` bytes at `at`, which lie between the header and the end byte.
    pub(super) fn splice(&mut self, at: usize, removed: usize, pieces: &[&[u8]]) -> Result<(), TooLarge> {
        let old = self.bytes_len();
        let tail = at.checked_add(removed).expect("range within a listpack");
        assert!(at >= HEADER && tail < old, "range within a listpack");
        let added = pieces.iter().fold(0usize, |sum, piece| sum.saturating_add(piece.len()));
        let new = (old - removed).saturating_add(added);
        if new > MAX_BYTES {
            return Err(TooLarge);
        }
        if size_class(new) > size_class(old) {
            self.resize(old, new);
        }
        let base = self.ptr.as_ptr();
        // SAFETY: the allocation has room for `max(old, new)` bytes. The tail, end byte included, is `old - tail`
        // initialized bytes; at its new place it ends at `new`. The gap `at..at + added` lies in front of it and is
        // filled completely by the pieces, which cannot lie in this allocation, as `self` is borrowed exclusively.
        unsafe {
            // Counters are mostly replaced by others of their width: then nothing behind them moves.
            if added != removed {
                std::ptr::copy(base.add(tail), base.add(at + added), old - tail);
            }
            let mut to = base.add(at);
            for piece in pieces {
                to.copy_from_nonoverlapping(piece.as_ptr(), piece.len());
                to = to.add(piece.len());
            }
        }
        if size_class(new) < size_class(old) {
            self.resize(old, new);
        }
        self.set_total(new);
        Ok(())
    }

    /// Moves the allocation from the class of `old` to that of `new` bytes; the header still says `old`.
    fn resize(&mut self, old: usize, new: usize) {
        let wanted = layout(new);
        // SAFETY: `ptr` was allocated with `layout(old)`; the new size is not zero and below isize::MAX.
        let moved = unsafe { realloc(self.ptr.as_ptr(), layout(old), wanted.size()) };
        let Some(ptr) = NonNull::new(moved) else { handle_alloc_error(wanted) };
        self.ptr = ptr;
    }
}

impl Drop for Listpack {
    fn drop(&mut self) {
        // SAFETY: the invariant: this is the layout it was allocated with, and nobody else owns it.
        unsafe { dealloc(self.ptr.as_ptr(), layout(self.bytes_len())) };
    }
}

impl Clone for Listpack {
    fn clone(&self) -> Self {
        Self::from_trusted(self.as_bytes())
    }
}

impl Default for Listpack {
    fn default() -> Self {
        Self::new()
    }
}
