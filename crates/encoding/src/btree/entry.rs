//! One member of a sorted set: a single allocation of score, length and bytes, pointed to by the tree and by the
//! index over members.
//!
//! ```text
//! byte 0      8            8 + v          8 + v + length
//!      score  | length (v) | member bytes |
//! ```
//!
//! The score is a native-endian f64; the length is 7 bits per byte, low group first, bit 7 set on all but the last.
//! A 17-byte member takes 26 bytes, which the allocator rounds to 32.

use crate::table::prefetch;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

const SCORE: usize = 8;

/// A handle to an entry: neither owned nor checked. Whoever holds one beside the tree (the index) must drop it
/// before the tree frees the entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Entry(NonNull<u8>);

/// The order-preserving integer of a score: `a < b` as floats exactly when `key(a) < key(b)`, and the two zeros
/// are one key, as they are equal in a sorted set's order.
#[inline]
pub fn score_key(score: f64) -> u64 {
    let bits = (score + 0.0).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

fn length_bytes(mut len: usize) -> usize {
    let mut n = 1;
    while len >= 0x80 {
        len >>= 7;
        n += 1;
    }
    n
}

fn layout(len: usize) -> Layout {
    let size = SCORE + length_bytes(len) + len;
    // A member is a live slice, so its length is at most isize::MAX; a length within 18 bytes of that can't exist.
    Layout::from_size_align(size, 8).expect("member length fits the address space")
}

impl Entry {
    /// A new entry with a copy of `member`.
    pub(crate) fn alloc(score: f64, member: &[u8]) -> Entry {
        let layout = layout(member.len());
        // SAFETY: the layout's size is at least 9.
        let ptr = unsafe { alloc(layout) };
        let Some(ptr) = NonNull::new(ptr) else { handle_alloc_error(layout) };
        // SAFETY: the allocation has room for score, length and bytes, in that order; `member` can't overlap it.
        unsafe {
            ptr.cast::<f64>().write(score);
            let mut at = ptr.add(SCORE);
            let mut len = member.len();
            while len >= 0x80 {
                at.write(len as u8 | 0x80);
                at = at.add(1);
                len >>= 7;
            }
            at.write(len as u8);
            at.add(1).copy_from_nonoverlapping(NonNull::from(member).cast(), member.len());
        }
        Entry(ptr)
    }

    /// # Safety
    /// The entry is live, and no handle to it is used afterwards.
    pub(crate) unsafe fn free(self) {
        // SAFETY: live by contract, allocated with this very layout.
        unsafe { dealloc(self.0.as_ptr(), layout(self.member().len())) }
    }

    /// # Safety
    /// The entry is live.
    #[inline]
    pub(crate) unsafe fn score(self) -> f64 {
        // SAFETY: live by contract; the score stands first, aligned to 8.
        unsafe { self.0.cast::<f64>().read() }
    }

    /// # Safety
    /// The entry is live, nobody reads it meanwhile, and the tree's order is kept.
    #[inline]
    pub(crate) unsafe fn set_score(self, score: f64) {
        // SAFETY: as for `score`, with exclusive access by contract.
        unsafe { self.0.cast::<f64>().write(score) }
    }

    /// # Safety
    /// The entry is live.
    #[inline]
    pub(crate) unsafe fn key(self) -> u64 {
        // SAFETY: live by contract.
        score_key(unsafe { self.score() })
    }

    /// # Safety
    /// The entry lives as long as `'a`.
    #[inline]
    pub(crate) unsafe fn member<'a>(self) -> &'a [u8] {
        // SAFETY: the bytes were written by `alloc` in this layout.
        unsafe {
            let mut at = self.0.as_ptr().add(SCORE);
            let mut len = usize::from(*at & 0x7f);
            let mut shift = 7;
            while *at & 0x80 != 0 {
                at = at.add(1);
                len |= usize::from(*at & 0x7f) << shift;
                shift += 7;
            }
            std::slice::from_raw_parts(at.add(1), len)
        }
    }

    /// The address, which fits 48 bits on the platforms we run on.
    #[inline]
    pub(crate) fn addr(self) -> u64 {
        let addr = self.0.as_ptr().expose_provenance() as u64;
        debug_assert!(addr >> 48 == 0);
        addr
    }

    /// # Safety
    /// `addr` came from `addr` of an entry that is still live.
    #[inline]
    pub(crate) unsafe fn from_addr(addr: u64) -> Entry {
        // SAFETY: a live entry's address isn't null.
        Entry(unsafe { NonNull::new_unchecked(std::ptr::with_exposed_provenance_mut(addr as usize)) })
    }

    /// Asks for the entry's first cache line; harmless whatever the state of the entry.
    #[inline]
    pub(crate) fn prefetch(self) {
        prefetch(self.0.as_ptr());
    }

    /// Bytes of the allocation as requested, before the allocator's rounding.
    ///
    /// # Safety
    /// The entry is live.
    pub(crate) unsafe fn alloc_size(self) -> usize {
        // SAFETY: live by contract.
        layout(unsafe { self.member() }.len()).size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_like_scores() {
        let scores = [
            f64::NEG_INFINITY,
            -1e300,
            -2.0,
            -1.5,
            -f64::MIN_POSITIVE,
            -5e-324,
            0.0,
            5e-324,
            1.0,
            1e17,
            f64::MAX,
            f64::INFINITY,
        ];
        for pair in scores.windows(2) {
            assert!(score_key(pair[0]) < score_key(pair[1]), "{pair:?}");
        }
        assert_eq!(score_key(0.0), score_key(-0.0));
    }

    #[test]
    fn entries_keep_bytes_of_every_length() {
        for len in [0, 1, 17, 127, 128, 300, 16_383, 16_384, 70_000] {
            let member: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let entry = Entry::alloc(1.5, &member);
            // SAFETY: just allocated.
            unsafe {
                assert_eq!(entry.member(), &member[..]);
                assert_eq!(entry.score(), 1.5);
                entry.set_score(-0.0);
                assert!(entry.score().is_sign_negative());
                assert_eq!(Entry::from_addr(entry.addr()), entry);
                entry.free();
            }
        }
    }
}
