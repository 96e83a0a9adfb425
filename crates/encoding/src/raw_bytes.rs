//! Untyped allocations and length prefixes, shared by the entries of sets and hashes. Internal.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 1).expect("no entry is larger than the address space")
}

/// `size` fresh bytes, not initialized; `size` is not 0. The address has 48 bits.
pub(crate) fn allocate(size: usize) -> *mut u8 {
    // SAFETY: the size is not zero: every entry has at least a length byte.
    let ptr = unsafe { alloc(layout(size)) };
    checked(ptr, size)
}

fn checked(ptr: *mut u8, size: usize) -> *mut u8 {
    if ptr.is_null() {
        handle_alloc_error(layout(size));
    }
    assert!(ptr as u64 >> 48 == 0, "addresses have 48 bits");
    ptr
}

/// # Safety
/// `ptr` came from `allocate` (or `resize`) with `old` bytes; it is invalid afterwards.
pub(crate) unsafe fn resize(ptr: *mut u8, old: usize, new: usize) -> *mut u8 {
    let _ = layout(new);
    // SAFETY: allocated with this layout; `new` is a valid, non-zero size.
    checked(unsafe { realloc(ptr, layout(old), new) }, new)
}

/// # Safety
/// `ptr` came from `allocate` (or `resize`) with `size` bytes; it is invalid afterwards.
pub(crate) unsafe fn free(ptr: *mut u8, size: usize) {
    // SAFETY: allocated with this layout.
    unsafe { dealloc(ptr, layout(size)) }
}

/// Bytes of the prefix of a length: one up to `inline_max`, else one and 2, 4 or 8 more.
pub(crate) fn prefix_len(len: usize, inline_max: u8) -> usize {
    match len {
        _ if len <= usize::from(inline_max) => 1,
        0..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// Writes the prefix, with `flags` in the first byte's bits above the length.
///
/// # Safety
/// `prefix_len(len, inline_max)` bytes at `at` may be written.
pub(crate) unsafe fn write_prefix(at: *mut u8, len: usize, inline_max: u8, flags: u8) {
    let bytes = (len as u64).to_le_bytes();
    let (first, more) = match prefix_len(len, inline_max) {
        1 => (len as u8, 0),
        3 => (inline_max + 1, 2),
        5 => (inline_max + 2, 4),
        _ => (inline_max + 3, 8),
    };
    // SAFETY: 1 + `more` bytes are the prefix.
    unsafe {
        *at = first | flags;
        at.add(1).copy_from_nonoverlapping(bytes.as_ptr(), more);
    }
}

/// The prefix's bytes and the length it says; `mask` clears the flags of the first byte.
///
/// # Safety
/// `at` is where `write_prefix` wrote with the same `inline_max`.
#[inline(always)]
pub(crate) unsafe fn read_prefix(at: *const u8, inline_max: u8, mask: u8) -> (usize, usize) {
    // SAFETY: the first byte says how many follow.
    unsafe {
        let first = *at & mask;
        if first <= inline_max {
            return (1, usize::from(first));
        }
        let more = 1usize << (first - inline_max);
        let mut bytes = [0; 8];
        bytes.as_mut_ptr().copy_from_nonoverlapping(at.add(1), more.min(8));
        (1 + more, u64::from_le_bytes(bytes) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_come_back() {
        for inline_max in [124u8, 252] {
            for len in [0, 1, 123, 124, 125, 252, 253, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000] {
                let mut room = [0u8; 9];
                let mask = if inline_max < 128 { 0x7f } else { 0xff };
                // SAFETY: nine bytes are the longest prefix.
                let read = unsafe {
                    write_prefix(room.as_mut_ptr(), len, inline_max, !mask);
                    read_prefix(room.as_ptr(), inline_max, mask)
                };
                assert_eq!(read, (prefix_len(len, inline_max), len));
            }
        }
    }
}
