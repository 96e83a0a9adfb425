//! Strings as rows of bits, the most significant bit of the first byte being number 0: reading, writing, counting,
//! searching and combining. Pure functions over bytes, whole words at a time; nothing here knows keys or replies.

use std::collections::TryReserveError;
use std::ops::Range;

const WORD: usize = size_of::<u64>();

/// The widest field that [`field`] and [`set_field`] take.
pub(super) const MAX_FIELD_BITS: u32 = 64;

/// A field of at most 64 bits spreads over at most nine bytes; this many are looked at.
const WINDOW: usize = 16;

/// The byte that holds a bit. No bit number that fits a `u64` leaves `usize` once it is divided by eight.
fn byte_of(offset: u64) -> usize {
    usize::try_from(offset / 8).unwrap_or(usize::MAX)
}

/// The bytes a string needs for a field of `bits` (at least 1) at that bit offset; `None` beyond all memory.
pub(super) fn bytes_for(offset: u64, bits: u32) -> Option<usize> {
    let last = offset.checked_add(u64::from(bits).checked_sub(1)?)?;
    byte_of(last).checked_add(1)
}

/// The bytes from `at` on as a number of 128 bits, zeros after the end.
fn window(bytes: &[u8], at: usize) -> u128 {
    let mut buffer = [0; WINDOW];
    let rest = bytes.get(at..).unwrap_or_default();
    let len = rest.len().min(WINDOW);
    buffer[..len].copy_from_slice(&rest[..len]);
    u128::from_be_bytes(buffer)
}

/// Where a field of `bits` stands in its window: how far left it must be shifted from the lowest bits.
fn shift(offset: u64, bits: u32) -> u32 {
    debug_assert!((1..=MAX_FIELD_BITS).contains(&bits));
    u128::BITS - bits - (offset % 8) as u32
}

fn field_mask(bits: u32) -> u128 {
    (1 << bits) - 1
}

/// The unsigned number in `bits` (1 to 64) bits from `offset` on; what the string lacks counts as zeros.
pub(super) fn field(bytes: &[u8], offset: u64, bits: u32) -> u64 {
    ((window(bytes, byte_of(offset)) >> shift(offset, bits)) & field_mask(bits)) as u64
}

/// Writes the low `bits` (1 to 64) of `value` at `offset`. The string must be long enough (see [`bytes_for`]): what
/// doesn't fit is dropped.
pub(super) fn set_field(bytes: &mut [u8], offset: u64, bits: u32, value: u64) {
    let at = byte_of(offset);
    let shift = shift(offset, bits);
    let mask = field_mask(bits);
    let changed = (window(bytes, at) & !(mask << shift)) | ((u128::from(value) & mask) << shift);
    let rest = bytes.get_mut(at..).unwrap_or_default();
    let len = rest.len().min(WINDOW);
    rest[..len].copy_from_slice(&changed.to_be_bytes()[..len]);
}

/// One bit; false after the end.
pub(super) fn bit(bytes: &[u8], offset: u64) -> bool {
    bytes.get(byte_of(offset)).is_some_and(|byte| (byte >> (7 - offset % 8)) & 1 == 1)
}

/// Sets one bit of a string that is long enough, and tells what it was.
pub(super) fn set_bit(bytes: &mut [u8], offset: u64, on: bool) -> bool {
    let Some(byte) = bytes.get_mut(byte_of(offset)) else { return false };
    let mask = 0x80 >> (offset % 8);
    let old = *byte & mask != 0;
    *byte = if on { *byte | mask } else { *byte & !mask };
    old
}

fn word(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |word, byte| (word << 8) | u64::from(*byte))
}

/// Eight bytes as a word, the first the most significant.
fn whole_word(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or_else(|_| word(bytes), u64::from_be_bytes)
}

/// The number of ones.
fn count_bytes(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(WORD);
    let tail = word(words.remainder());
    words.map(|chunk| u64::from(whole_word(chunk).count_ones())).sum::<u64>() + u64::from(tail.count_ones())
}

/// A bit range cut where the string ends, as its first and last byte with masks for the bits that belong to it.
struct Span {
    first: usize,
    last: usize,
    first_mask: u8,
    last_mask: u8,
}

impl Span {
    fn new(bytes: &[u8], range: Range<u64>) -> Option<Self> {
        let end = range.end.min(bytes.len() as u64 * 8);
        if range.start >= end {
            return None;
        }
        let (first, last) = (byte_of(range.start), byte_of(end - 1));
        let mut first_mask = 0xff >> (range.start % 8);
        let last_mask = 0xff << (7 - (end - 1) % 8);
        if first == last {
            first_mask &= last_mask;
        }
        Some(Span { first, last, first_mask, last_mask })
    }

    /// The bytes between the first and the last.
    fn middle<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        bytes.get(self.first + 1..self.last).unwrap_or_default()
    }
}

/// The number of ones in a range of bits.
pub(super) fn count(bytes: &[u8], range: Range<u64>) -> u64 {
    let Some(span) = Span::new(bytes, range) else { return 0 };
    let mut ones = u64::from((bytes[span.first] & span.first_mask).count_ones());
    if span.last > span.first {
        ones += count_bytes(span.middle(bytes));
        ones += u64::from((bytes[span.last] & span.last_mask).count_ones());
    }
    ones
}

/// The first bit of that value in a range of bits, numbered from the string's start.
pub(super) fn find(bytes: &[u8], wanted: bool, range: Range<u64>) -> Option<u64> {
    let span = Span::new(bytes, range)?;
    // A zero is searched as the one of the inverse.
    let flip = if wanted { 0 } else { 0xff };
    let in_byte = |at: usize, mask: u8| match (bytes[at] ^ flip) & mask {
        0 => None,
        byte => Some(at as u64 * 8 + u64::from(byte.leading_zeros())),
    };
    if let Some(found) = in_byte(span.first, span.first_mask) {
        return Some(found);
    }
    if span.last == span.first {
        return None;
    }
    let flip_word = u64::from_ne_bytes([flip; WORD]);
    let middle = span.middle(bytes);
    let whole = middle.chunks_exact(WORD).position(|chunk| whole_word(chunk) != flip_word);
    let from = whole.map_or(middle.len() / WORD * WORD, |words| words * WORD) + span.first + 1;
    (from..span.last).find_map(|at| in_byte(at, 0xff)).or_else(|| in_byte(span.last, span.last_mask))
}

/// How two strings are combined, bit by bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Combine {
    And,
    Or,
    Xor,
}

fn zip_words(target: &mut [u8], source: &[u8], combine: impl Fn(u64, u64) -> u64) {
    let mut targets = target.chunks_exact_mut(WORD);
    let mut sources = source.chunks_exact(WORD);
    for (target, source) in (&mut targets).zip(&mut sources) {
        let word = combine(whole_word(target), whole_word(source));
        target.copy_from_slice(&word.to_be_bytes());
    }
    for (target, source) in targets.into_remainder().iter_mut().zip(sources.remainder()) {
        *target = combine(u64::from(*target), u64::from(*source)) as u8;
    }
}

/// Combines `source` into `target`; the shorter of them goes on with zeros.
pub(super) fn combine_into(
    operation: Combine,
    target: &mut Vec<u8>,
    source: &[u8],
) -> Result<(), TryReserveError> {
    target.try_reserve(source.len().saturating_sub(target.len()))?;
    let common = target.len().min(source.len());
    let (target_part, source_part) = (&mut target[..common], &source[..common]);
    match operation {
        Combine::And => {
            zip_words(target_part, source_part, |a, b| a & b);
            target[common..].fill(0);
            target.resize(target.len().max(source.len()), 0);
        }
        Combine::Or => {
            zip_words(target_part, source_part, |a, b| a | b);
            target.extend_from_slice(&source[common..]);
        }
        Combine::Xor => {
            zip_words(target_part, source_part, |a, b| a ^ b);
            target.extend_from_slice(&source[common..]);
        }
    }
    Ok(())
}

/// Inverts every bit.
pub(super) fn invert(bytes: &mut [u8]) {
    // The compiler makes vectors of this by itself.
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn row(bytes: &[u8]) -> Vec<bool> {
        bytes.iter().flat_map(|byte| (0..8).map(move |i| byte & (0x80 >> i) != 0)).collect()
    }

    /// Rows of equal bytes are what the word loops skip.
    fn strings() -> impl Strategy<Value = Vec<u8>> {
        let plain = prop_oneof![Just(0u8), Just(0xff)];
        prop_oneof![
            vec(any::<u8>(), 0..40),
            (vec(plain, 0..40), any::<u8>(), 0usize..40).prop_map(|(mut bytes, odd, at)| {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = odd;
                }
                bytes
            }),
            (any::<bool>(), 0usize..60).prop_map(|(on, len)| vec![if on { 0xff } else { 0 }; len]),
        ]
    }

    proptest! {
        #[test]
        fn single_bits(mut bytes in strings(), offset in 0u64..500, on: bool) {
            let mut model = row(&bytes);
            let old = model.get(offset as usize).copied().unwrap_or(false);
            prop_assert_eq!(bit(&bytes, offset), old);
            prop_assert_eq!(set_bit(&mut bytes, offset, on), old);
            if let Some(bit) = model.get_mut(offset as usize) {
                *bit = on;
            }
            prop_assert_eq!(row(&bytes), model);
        }

        #[test]
        fn fields(mut bytes in strings(), offset in 0u64..400, bits in 1u32..=64, value: u64) {
            let mut model = row(&bytes);
            let expected = (0..u64::from(bits)).fold(0, |number: u64, i| {
                (number << 1) | u64::from(model.get((offset + i) as usize).copied().unwrap_or(false))
            });
            prop_assert_eq!(field(&bytes, offset, bits), expected);
            for i in 0..u64::from(bits) {
                if let Some(bit) = model.get_mut((offset + i) as usize) {
                    *bit = (value >> (u64::from(bits) - 1 - i)) & 1 == 1;
                }
            }
            set_field(&mut bytes, offset, bits, value);
            prop_assert_eq!(row(&bytes), model);
        }

        #[test]
        fn counts_and_searches(bytes in strings(), start in 0u64..400, len in 0u64..500, wanted: bool) {
            let model = row(&bytes);
            let range = start..start + len;
            let inside = || (range.start..range.end.min(model.len() as u64)).map(|i| (i, model[i as usize]));
            prop_assert_eq!(count(&bytes, range.clone()), inside().filter(|(_, on)| *on).count() as u64);
            let expected = inside().find(|(_, on)| *on == wanted).map(|(i, _)| i);
            prop_assert_eq!(find(&bytes, wanted, range.clone()), expected);
        }

        #[test]
        fn combinations(a in strings(), b in strings()) {
            let len = a.len().max(b.len());
            let at = |bytes: &[u8], i: usize| bytes.get(i).copied().unwrap_or(0);
            for operation in [Combine::And, Combine::Or, Combine::Xor] {
                let mut combined = a.clone();
                combine_into(operation, &mut combined, &b).unwrap();
                let expected: Vec<u8> = (0..len)
                    .map(|i| match operation {
                        Combine::And => at(&a, i) & at(&b, i),
                        Combine::Or => at(&a, i) | at(&b, i),
                        Combine::Xor => at(&a, i) ^ at(&b, i),
                    })
                    .collect();
                prop_assert_eq!(combined, expected);
            }
            let mut inverse = a.clone();
            invert(&mut inverse);
            prop_assert!(row(&inverse).iter().zip(row(&a)).all(|(now, before)| *now != before));
        }
    }

    #[test]
    fn far_offsets_read_as_zeros_and_never_wrap() {
        assert_eq!(field(b"\xff", u64::MAX, 64), 0);
        assert!(!bit(b"\xff", u64::MAX));
        assert_eq!(bytes_for(u64::MAX, 2), None);
        assert_eq!(bytes_for(0, 8), Some(1));
        assert_eq!(bytes_for(1, 8), Some(2));
        assert_eq!(count(b"\xff", 3..u64::MAX), 5);
        assert_eq!(find(b"\xff", false, 0..u64::MAX), None);
    }
}
