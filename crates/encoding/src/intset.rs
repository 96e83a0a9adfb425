//! Intset: a sorted set of integers in the blob that RDB files and DUMP payloads carry.
//!
//! ```text
//! u32le width (2, 4 or 8 bytes) | u32le members | members, little-endian, ascending
//! ```
//!
//! One pointer to one allocation, whose size follows from the header (see `size_class`). All members have the width that
//! the widest one once needed; it never shrinks, as in the reference.

use crate::size_class::size_class;
use kara_base::rng::Rng;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};
use std::fmt;
use std::ptr::NonNull;

const HEADER: usize = 8;
/// Above this, `add` refuses; sets become hash tables long before.
const MAX_BYTES: usize = 1 << 30;

/// A sorted set of integers. See the module.
///
/// Invariant: `ptr` is an allocation of `size_class(total)` bytes, where `total` = 8 + width * members of the header, at
/// most `MAX_BYTES`, and that many bytes are initialized.
pub struct Intset {
    ptr: NonNull<u8>,
}

// SAFETY: an Intset owns its allocation alone; there is no interior mutability.
unsafe impl Send for Intset {}
// SAFETY: as above: `&Intset` only reads.
unsafe impl Sync for Intset {}

/// A payload is not an intset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt;

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("corrupt intset")
    }
}

impl std::error::Error for Corrupt {}

/// The set would have grown beyond 1 GiB; it is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("intset would exceed 1 GiB")
    }
}

impl std::error::Error for TooLarge {}

fn layout(total: usize) -> Layout {
    Layout::from_size_align(size_class(total), 1).expect("at most 1 GiB")
}

fn width_of(value: i64) -> usize {
    if i16::try_from(value).is_ok() {
        2
    } else if i32::try_from(value).is_ok() {
        4
    } else {
        8
    }
}

// ---- the allocation ----

impl Intset {
    fn from_trusted(blob: &[u8]) -> Self {
        let layout = layout(blob.len());
        // SAFETY: the layout's size is not zero.
        let Some(ptr) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        // SAFETY: the allocation is new and has room for the blob.
        unsafe { ptr.as_ptr().copy_from_nonoverlapping(blob.as_ptr(), blob.len()) };
        Intset { ptr }
    }

    fn header(&self) -> (usize, usize) {
        let ptr = self.ptr.as_ptr().cast::<u32>();
        // SAFETY: the invariant: the header is there. Nothing promises alignment.
        let (width, len) = unsafe { (ptr.read_unaligned(), ptr.add(1).read_unaligned()) };
        (u32::from_le(width) as usize, u32::from_le(len) as usize)
    }

    /// The blob, header included.
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: the invariant: `bytes_len` bytes are initialized.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.bytes_len()) }
    }

    /// Changes the shape to `len` members of `width` bytes: whole members are cut off or zeros appended, nothing moves.
    fn reshape(&mut self, width: usize, len: usize) {
        let old = self.bytes_len();
        let new = HEADER + width * len;
        assert!(new <= MAX_BYTES && matches!(width, 2 | 4 | 8), "shape of an intset");
        if size_class(new) != size_class(old) {
            let wanted = layout(new);
            // SAFETY: `ptr` was allocated with `layout(old)`; the new size is not zero and below isize::MAX.
            let moved = unsafe { realloc(self.ptr.as_ptr(), layout(old), wanted.size()) };
            let Some(ptr) = NonNull::new(moved) else { handle_alloc_error(wanted) };
            self.ptr = ptr;
        }
        let header = self.ptr.as_ptr().cast::<u32>();
        // SAFETY: the allocation has room for `new` bytes; those behind `old` are filled here, then the header says so.
        unsafe {
            if new > old {
                self.ptr.as_ptr().add(old).write_bytes(0, new - old);
            }
            header.write_unaligned((width as u32).to_le());
            header.add(1).write_unaligned((len as u32).to_le());
        }
    }

    /// The members' bytes.
    fn members_mut(&mut self) -> &mut [u8] {
        let total = self.bytes_len();
        // SAFETY: the invariant: bytes up to `total` are initialized; the header is left out, so the shape stays.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr().add(HEADER), total - HEADER) }
    }
}

impl Drop for Intset {
    fn drop(&mut self) {
        // SAFETY: the invariant: this is the layout it was allocated with, and nobody else owns it.
        unsafe { dealloc(self.ptr.as_ptr(), layout(self.bytes_len())) };
    }
}

impl Clone for Intset {
    fn clone(&self) -> Self {
        Self::from_trusted(self.as_bytes())
    }
}

impl Default for Intset {
    fn default() -> Self {
        Self::new()
    }
}

// ---- the set ----

impl Intset {
    /// An empty set.
    pub fn new() -> Self {
        Self::from_trusted(&[2, 0, 0, 0, 0, 0, 0, 0])
    }

    /// A copy of a blob from outside after a look at every member. An empty one is refused, as in the reference.
    pub fn from_bytes_validated(blob: &[u8]) -> Result<Self, Corrupt> {
        let field = |at: usize| blob.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        let (Some(width @ (2 | 4 | 8)), Some(len @ 1..)) = (field(0), field(4)) else { return Err(Corrupt) };
        let total = (width as usize).checked_mul(len as usize).and_then(|bytes| bytes.checked_add(HEADER));
        if total != Some(blob.len()) || blob.len() > MAX_BYTES {
            return Err(Corrupt);
        }
        let set = Self::from_trusted(blob);
        if set.iter().is_sorted_by(|a, b| a < b) { Ok(set) } else { Err(Corrupt) }
    }

    /// Number of members.
    #[inline]
    pub fn len(&self) -> usize {
        self.header().1
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size of the blob in bytes.
    #[inline]
    pub fn bytes_len(&self) -> usize {
        let (width, len) = self.header();
        HEADER + width * len
    }

    /// Bytes that the allocator hands out for it.
    pub fn allocated_bytes(&self) -> usize {
        size_class(self.bytes_len())
    }

    /// Bytes per member: 2, 4 or 8.
    pub fn width(&self) -> usize {
        self.header().0
    }

    /// The member at `index` in ascending order.
    #[inline]
    pub fn get(&self, index: usize) -> Option<i64> {
        let (width, len) = self.header();
        (index < len).then(|| read(&self.as_bytes()[HEADER..], width, index))
    }

    /// The smallest member.
    pub fn min(&self) -> Option<i64> {
        self.get(0)
    }

    /// The largest member.
    pub fn max(&self) -> Option<i64> {
        self.get(self.len().checked_sub(1)?)
    }

    /// A member, each with the same chance.
    pub fn random(&self, rng: &mut Rng) -> Option<i64> {
        self.get(rng.below(self.len() as u64) as usize)
    }

    /// Whether `value` is a member.
    #[inline]
    pub fn contains(&self, value: i64) -> bool {
        self.search(value).is_ok()
    }

    /// Adds `value`; whether it was new.
    pub fn add(&mut self, value: i64) -> Result<bool, TooLarge> {
        let (width, len) = self.header();
        let wider = width_of(value).max(width);
        if HEADER + wider * (len + 1) > MAX_BYTES {
            return Err(TooLarge);
        }
        let Err(place) = self.search(value) else { return Ok(false) };
        self.reshape(wider, len + usize::from(wider == width));
        if wider == width {
            let members = self.members_mut();
            members.copy_within(place * width..len * width, (place + 1) * width);
        } else {
            self.widen(width, wider, len);
            self.reshape(wider, len + 1);
            // Too wide for the old width: in front of all or behind all.
            if place == 0 {
                self.members_mut().copy_within(..len * wider, wider);
            }
        }
        write(self.members_mut(), wider, place, value);
        Ok(true)
    }

    /// Removes `value`; whether it was there.
    pub fn remove(&mut self, value: i64) -> bool {
        let Ok(place) = self.search(value) else { return false };
        let (width, len) = self.header();
        self.members_mut().copy_within((place + 1) * width.., place * width);
        self.reshape(width, len - 1);
        true
    }

    /// The members in ascending order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = i64> + ExactSizeIterator + '_ {
        let (width, len) = self.header();
        let members = &self.as_bytes()[HEADER..];
        (0..len).map(move |index| read(members, width, index))
    }

    /// `Ok(index)` of `value`, or `Err(index)` where it belongs.
    fn search(&self, value: i64) -> Result<usize, usize> {
        let (width, len) = self.header();
        let members = &self.as_bytes()[HEADER..];
        // Values that arrive in order are common.
        if len == 0 || value > read(members, width, len - 1) {
            return Err(len);
        }
        let (mut low, mut high) = (0, len);
        while low < high {
            let middle = low.midpoint(high);
            match read(members, width, middle).cmp(&value) {
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// Spreads `len` members of `old` bytes, which stand at the front, to `new` bytes each.
    fn widen(&mut self, old: usize, new: usize, len: usize) {
        let members = self.members_mut();
        for index in (0..len).rev() {
            let value = read(members, old, index);
            write(members, new, index, value);
        }
    }
}

#[inline]
fn read(members: &[u8], width: usize, index: usize) -> i64 {
    let bytes = &members[index * width..(index + 1) * width];
    match *bytes {
        [a, b] => i64::from(i16::from_le_bytes([a, b])),
        [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => i64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => unreachable!("widths are 2, 4 and 8"),
    }
}

#[inline]
fn write(members: &mut [u8], width: usize, index: usize, value: i64) {
    members[index * width..(index + 1) * width].copy_from_slice(&value.to_le_bytes()[..width]);
}

impl fmt::Debug for Intset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl PartialEq for Intset {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Intset {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn number() -> impl Strategy<Value = i64> {
        prop_oneof![
            4 => -40i64..40,
            2 => any::<i16>().prop_map(i64::from),
            1 => any::<i32>().prop_map(i64::from),
            1 => any::<i64>(),
            1 => (14u32..63, -2i64..3).prop_map(|(s, d)| (1i64 << s) + d),
            1 => (14u32..63, -2i64..3).prop_map(|(s, d)| -(1i64 << s) + d),
        ]
    }

    /// Bytes that `value` needs, of those that an intset has.
    fn narrowest(value: i64) -> usize {
        let bits = |bits: u32| (-(1i128 << (bits - 1))..1i128 << (bits - 1)).contains(&i128::from(value));
        if bits(16) {
            2
        } else if bits(32) {
            4
        } else {
            8
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(ops in vec((number(), any::<bool>()), 0..200)) {
            let mut set = Intset::new();
            let mut model = BTreeSet::new();
            let mut widest = 2;
            for (value, add) in ops {
                if add {
                    prop_assert_eq!(set.add(value).unwrap(), model.insert(value));
                    widest = widest.max(narrowest(value));
                } else {
                    prop_assert_eq!(set.remove(value), model.remove(&value));
                }
                prop_assert_eq!(set.contains(value), add);
                prop_assert_eq!((set.width(), set.bytes_len()), (widest, 8 + widest * model.len()));
                prop_assert!(set.iter().eq(model.iter().copied()));
                prop_assert_eq!((set.min(), set.max()), (model.first().copied(), model.last().copied()));
            }
            prop_assert_eq!(set.len(), model.len());
            prop_assert_eq!(set.get(model.len()), None);
            prop_assert_eq!(set.random(&mut kara_base::rng::Rng::new(1)).is_some(), !model.is_empty());
            if !model.is_empty() {
                let copy = Intset::from_bytes_validated(set.as_bytes()).unwrap();
                prop_assert_eq!(copy.as_bytes(), set.as_bytes());
            }
            prop_assert_eq!(set.clone(), set);
        }

        #[test]
        fn any_payload_is_refused_or_sorted(blob in vec(any::<u8>(), 0..40), width in 0u8..9, len in 0u8..5) {
            let mut blob = blob;
            blob.splice(0..0, [width, 0, 0, 0, len, 0, 0, 0]);
            if let Ok(set) = Intset::from_bytes_validated(&blob) {
                prop_assert!(set.iter().is_sorted_by(|a, b| a < b));
                prop_assert_eq!(set.len(), usize::from(len));
            }
        }
    }

    #[test]
    fn golden_bytes() {
        let mut set = Intset::new();
        for value in [2, -1, 1] {
            assert_eq!(set.add(value), Ok(true));
        }
        assert_eq!(set.as_bytes(), [2, 0, 0, 0, 3, 0, 0, 0, 255, 255, 1, 0, 2, 0]);
        set.remove(1);
        set.add(65_536).unwrap();
        let wide = [4, 0, 0, 0, 3, 0, 0, 0, 255, 255, 255, 255, 2, 0, 0, 0, 0, 0, 1, 0];
        assert_eq!(set.as_bytes(), wide);
        set.add(i64::MIN).unwrap();
        assert_eq!((set.width(), set.min(), set.len()), (8, Some(i64::MIN), 4));
    }

    /// 16 to 32, 16 to 64 and 32 to 64 bits, by a value at either end, with any number of members that have to move; no
    /// removal makes it narrower again.
    #[test]
    fn every_widening() {
        let edges = [i64::from(i16::MAX), i64::from(i16::MIN), i64::from(i32::MAX), i64::from(i32::MIN)];
        for (old, edge) in edges.into_iter().enumerate() {
            for wide in [edge + 1, edge - 1, i64::MAX, i64::MIN] {
                for members in 0..40 {
                    let mut model: BTreeSet<i64> = (0..members).map(|n| n * 11 - 200).collect();
                    // What the old width comes from.
                    model.insert(if old < 2 { 0 } else { 70_000 });
                    let mut set = Intset::new();
                    model.iter().for_each(|value| assert_eq!(set.add(*value), Ok(true)));
                    let before = set.width();
                    assert_eq!(before, if old < 2 { 2 } else { 4 });
                    assert_eq!(set.add(wide), Ok(true));
                    model.insert(wide);
                    assert_eq!(set.width(), before.max(narrowest(wide)));
                    assert!(set.iter().eq(model.iter().copied()), "{wide} to {members}");
                    assert!(model.iter().all(|value| set.contains(*value)));
                    let width = set.width();
                    assert!(set.remove(wide) && !set.contains(wide));
                    model.remove(&wide);
                    assert!(set.iter().eq(model.iter().copied()));
                    assert_eq!(set.width(), width);
                }
            }
        }
    }

    #[test]
    fn payloads_that_lie() {
        for blob in [
            &[][..],
            &[2, 0, 0, 0, 0, 0, 0, 0],
            &[3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0],
            &[2, 0, 0, 0, 2, 0, 0, 0, 1, 0],
            &[2, 0, 0, 0, 2, 0, 0, 0, 1, 0, 1, 0],
            &[2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 1, 0],
            &[8, 0, 0, 0, 255, 255, 255, 255, 1, 0],
        ] {
            assert_eq!(Intset::from_bytes_validated(blob), Err(Corrupt), "{blob:?}");
        }
    }

    #[test]
    fn is_one_pointer() {
        assert_eq!(size_of::<Option<Intset>>(), 8);
    }
}
