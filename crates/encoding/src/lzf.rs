//! LZF, the compression of RDB strings and of the inner nodes of lists, in liblzf's format.
//!
//! ```text
//! 000lllll                     l + 1 literal bytes follow
//! lllooooo oooooooo            copy l + 2 bytes (l: 1 to 6) from o + 1 bytes back
//! 111ooooo llllllll oooooooo   copy l + 9 bytes from o + 1 bytes back
//! ```

use std::fmt;

/// How far back a copy may reach.
const WINDOW: usize = 1 << 13;
const MAX_COPY: usize = 264;
const MAX_LITERALS: usize = 32;
/// One slot per byte of the window finds nearly every match, and 32 KiB are cleared in half a microsecond.
const TABLE_BITS: u32 = 13;
/// For inputs of up to this many bytes, clearing the large table would take longer than the compression.
const SMALL_BYTES: usize = 1024;
const SMALL_TABLE_BITS: u32 = 9;
/// The places in these fit a byte, and so the table takes a quarter of the lines to clear.
const TINY_BYTES: usize = u8::MAX as usize;
/// The best that three bytes can stand for, `MAX_COPY / 3`.
const MAX_RATIO: usize = 88;

/// The input is not LZF, or not of the length that was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt;

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid LZF data")
    }
}

impl std::error::Error for Corrupt {}

/// Appends the compressed form of `input` to `out` if it takes at most `limit` bytes; else leaves `out` as it was and
/// answers `false`. Inputs beyond 4 GiB are not compressed.
pub fn compress(input: &[u8], limit: usize, out: &mut Vec<u8>) -> bool {
    if u32::try_from(input.len()).is_err() {
        return false;
    }
    if input.len() <= TINY_BYTES {
        compress_with(input, limit, out, &mut [0u8; 1 << SMALL_TABLE_BITS])
    } else if input.len() <= SMALL_BYTES {
        compress_with(input, limit, out, &mut [0u16; 1 << SMALL_TABLE_BITS])
    } else {
        compress_with(input, limit, out, &mut [0u32; 1 << TABLE_BITS])
    }
}

/// What a table keeps of a place: position + 1, 0 for none.
trait Slot: Copy {
    fn of(place: usize) -> Self;
    fn place(self) -> usize;
}

macro_rules! slot {
    ($($number:ty),*) => {$(
        impl Slot for $number {
            #[inline]
            fn of(place: usize) -> Self {
                place as $number
            }
            #[inline]
            fn place(self) -> usize {
                self as usize
            }
        }
    )*};
}

slot!(u8, u16, u32);

/// `table`: the last place with a hash. Its slots must hold all places of the input.
fn compress_with<S: Slot, const N: usize>(
    input: &[u8],
    limit: usize,
    out: &mut Vec<u8>,
    table: &mut [S; N],
) -> bool {
    let start = out.len();
    out.reserve(limit.min(input.len()));
    let mut literals = 0;
    let mut at = 0;
    while let Some(&[a, b, c]) = input.get(at..at + 3) {
        let slot = &mut table[hash::<N>(a, b, c)];
        let candidate = std::mem::replace(slot, S::of(at + 1)).place();
        let from = candidate.wrapping_sub(1);
        if candidate == 0 || at - from > WINDOW || input[from..from + 3] != [a, b, c] {
            at += 1;
            continue;
        }
        let length = common_prefix(&input[from..], &input[at..], MAX_COPY);
        if !put_literals(&input[literals..at], start + limit, out) {
            out.truncate(start);
            return false;
        }
        put_copy(at - from - 1, length, out);
        // The two places at the match's end are the likeliest starts of a next one.
        let end = at + length;
        for inner in end - 2..end {
            if let Some(&[a, b, c]) = input.get(inner..inner + 3) {
                table[hash::<N>(a, b, c)] = S::of(inner + 1);
            }
        }
        at = end;
        literals = end;
    }
    if put_literals(&input[literals..], start + limit, out) && out.len() <= start + limit {
        true
    } else {
        out.truncate(start);
        false
    }
}

/// The text of `expected_len` bytes that `input` stands for; anything else is an error. Memory is asked for only where
/// `input` is long enough to stand for that much.
pub fn decompress(input: &[u8], expected_len: usize) -> Result<Vec<u8>, Corrupt> {
    let mut out = Vec::new();
    decompress_into(input, expected_len, &mut out)?;
    Ok(out)
}

/// Like `decompress`, in the place of what `out` held; on an error its content is undefined.
pub fn decompress_into(input: &[u8], expected_len: usize, out: &mut Vec<u8>) -> Result<(), Corrupt> {
    out.clear();
    if expected_len > input.len().saturating_mul(MAX_RATIO) {
        return Err(Corrupt);
    }
    out.try_reserve_exact(expected_len).map_err(|_| Corrupt)?;
    let mut rest = input;
    while let Some((&control, after)) = rest.split_first() {
        let control = usize::from(control);
        if control < MAX_LITERALS {
            let (literals, after) = after.split_at_checked(control + 1).ok_or(Corrupt)?;
            if literals.len() > expected_len - out.len() {
                return Err(Corrupt);
            }
            out.extend_from_slice(literals);
            rest = after;
            continue;
        }
        let (length, low, after) = match (control >> 5, after) {
            (7, [more, low, after @ ..]) => (usize::from(*more) + 9, low, after),
            (7, _) => return Err(Corrupt),
            (short, [low, after @ ..]) => (short + 2, low, after),
            _ => return Err(Corrupt),
        };
        let distance = ((control & 0x1f) << 8 | usize::from(*low)) + 1;
        let from = out.len().checked_sub(distance).ok_or(Corrupt)?;
        if length > expected_len - out.len() {
            return Err(Corrupt);
        }
        if distance >= length {
            out.extend_from_within(from..from + length);
        } else if distance == 1 {
            let byte = out[from];
            out.resize(out.len() + length, byte);
        } else {
            // The copy reads what it has just written: repeat in strides of what is there.
            let mut left = length;
            while left > 0 {
                let stride = left.min(out.len() - from);
                out.extend_from_within(from..from + stride);
                left -= stride;
            }
        }
        rest = after;
    }
    if out.len() == expected_len { Ok(()) } else { Err(Corrupt) }
}

#[inline]
fn hash<const N: usize>(a: u8, b: u8, c: u8) -> usize {
    let three = u32::from_le_bytes([a, b, c, 0]);
    (three.wrapping_mul(0x9e37_79b1) >> (32 - N.ilog2())) as usize
}

/// How many leading bytes are the same, at most `limit`.
#[inline]
fn common_prefix(left: &[u8], right: &[u8], limit: usize) -> usize {
    let limit = limit.min(left.len()).min(right.len());
    let (left, right) = (&left[..limit], &right[..limit]);
    let mut same = 0;
    for (a, b) in left.chunks_exact(8).zip(right.chunks_exact(8)) {
        let (Ok(a), Ok(b)) = (a.try_into(), b.try_into()) else { break };
        let differing = u64::from_le_bytes(a) ^ u64::from_le_bytes(b);
        if differing != 0 {
            return same + differing.trailing_zeros() as usize / 8;
        }
        same += 8;
    }
    same + left[same..].iter().zip(&right[same..]).take_while(|(a, b)| a == b).count()
}

/// Appends literals in runs of 32; `false` as soon as `out` would be longer than `end`.
#[inline]
fn put_literals(literals: &[u8], end: usize, out: &mut Vec<u8>) -> bool {
    for run in literals.chunks(MAX_LITERALS) {
        if out.len() + 1 + run.len() > end {
            return false;
        }
        out.push(run.len() as u8 - 1);
        out.extend_from_slice(run);
    }
    true
}

#[inline]
fn put_copy(offset: usize, length: usize, out: &mut Vec<u8>) {
    let (high, low) = ((offset >> 8) as u8, offset as u8);
    if length < 9 {
        out.extend_from_slice(&[(length as u8 - 2) << 5 | high, low]);
    } else {
        out.extend_from_slice(&[7 << 5 | high, (length - 9) as u8, low]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn round_trip(input: &[u8]) {
        let mut out = b"before".to_vec();
        assert!(compress(input, input.len() * 2 + 8, &mut out));
        assert!(out.starts_with(b"before"));
        assert_eq!(decompress(&out[6..], input.len()).as_deref(), Ok(input));
        let size = out.len() - 6;
        for limit in [0, 1, size / 2, size.saturating_sub(1), size, size + 1] {
            let mut limited = vec![9];
            assert_eq!(compress(input, limit, &mut limited), limit >= size, "{limit} of {size}");
            assert_eq!(limited.len(), if limit >= size { 1 + size } else { 1 });
        }
        for wrong in [input.len() + 1, input.len().wrapping_sub(1)] {
            assert_eq!(decompress(&out[6..], wrong), Err(Corrupt));
        }
    }

    #[test]
    fn tables_hold_every_place_of_their_inputs() {
        for length in
            [TINY_BYTES - 1, TINY_BYTES, TINY_BYTES + 1, SMALL_BYTES - 1, SMALL_BYTES, SMALL_BYTES + 1]
        {
            // The only match is the last one that the table can tell.
            let mut input: Vec<u8> = (0..length).map(|at| (at * 7 + at / 37) as u8).collect();
            let end = input.len() - 4;
            input.copy_within(end - 4..end, end);
            round_trip(&input);
            round_trip(&vec![7; length]);
        }
    }

    proptest! {
        #[test]
        fn round_trips(input in vec(0u8..4, 0..3000), noise in vec(any::<u8>(), 0..300), repeat in 1usize..80) {
            round_trip(&input);
            round_trip(&noise);
            round_trip(&noise.repeat(repeat));
        }

        #[test]
        fn survives_any_input(input in vec(any::<u8>(), 0..200), expected in 0usize..5000) {
            if let Ok(out) = decompress(&input, expected) {
                prop_assert_eq!(out.len(), expected);
            }
        }

        #[test]
        fn survives_damage(text in vec(0u8..8, 50..500), place in any::<prop::sample::Index>(), value: u8) {
            let mut out = Vec::new();
            compress(&text, 2000, &mut out);
            let place = place.index(out.len());
            out[place] = value;
            if let Ok(damaged) = decompress(&out, text.len()) {
                prop_assert_eq!(damaged.len(), text.len());
            }
        }
    }

    #[test]
    fn golden_bytes() {
        let mut out = Vec::new();
        assert!(compress(&[b'a'; 100], 96, &mut out));
        assert_eq!(out, [0, b'a', 0xe0, 90, 0]);
        assert_eq!(decompress(&[0, b'a', 0xe0, 90, 0], 100).as_deref(), Ok(&[b'a'; 100][..]));
        assert_eq!(decompress(&[2, b'a', b'b', b'c', 0x80, 2], 9).as_deref(), Ok(&b"abcabcabc"[..]));
        assert_eq!(decompress(&[], 0).as_deref(), Ok(&b""[..]));
        assert!(compress(b"", 0, &mut out));
    }

    #[test]
    fn promises_beyond_reason_ask_for_no_memory() {
        assert_eq!(decompress(&[0xe0; 30], usize::MAX), Err(Corrupt));
        assert_eq!(decompress(&[0xe0; 30], 1 << 40), Err(Corrupt));
        assert_eq!(decompress(&[0x20, 0], 3), Err(Corrupt), "reaches in front of the start");
    }
}
