//! BITCOUNT and BITPOS: counting and searching in a range of bytes or bits.

use super::bits;
use crate::commands::prelude::*;
use crate::commands::string::ranges::clamp_range;
use std::ops::Range;

/// A range as the arguments give it; negative numbers count from the end.
struct GivenRange {
    start: i64,
    /// `None`: up to the end.
    end: Option<i64>,
    in_bits: bool,
}

impl GivenRange {
    /// `[start [end [BYTE|BIT]]]` from that argument on.
    fn parse(cx: &Cx, first: usize) -> Result<Self, CommandError> {
        let words = cx.args.get(first..).unwrap_or_default();
        if words.len() > 3 {
            return Err(CommandError::Syntax);
        }
        let start = words.first().map_or(Ok(0), |word| parse_int(word))?;
        let in_bits = match words.get(2) {
            None => false,
            Some(word) if word.eq_ignore_ascii_case(b"bit") => true,
            Some(word) if word.eq_ignore_ascii_case(b"byte") => false,
            Some(_) => return Err(CommandError::Syntax),
        };
        let end = words.get(1).map(|word| parse_int(word)).transpose()?;
        Ok(GivenRange { start, end, in_bits })
    }

    /// The bits that BITPOS means, which takes negative numbers beyond the start for the start, whatever their order.
    fn bits_to_search(&self, len_bytes: usize) -> Range<u64> {
        let unit = if self.in_bits { 1 } else { 8 };
        let len = (len_bytes * 8 / unit) as i64;
        let clamp = |index: i64| if index < 0 { index.saturating_add(len).max(0) } else { index };
        let (from, to) = (clamp(self.start), clamp(self.end.unwrap_or(-1)).min(len - 1));
        if from > to {
            return 0..0;
        }
        from as u64 * unit as u64..(to as u64 + 1) * unit as u64
    }

    /// The bits meant in a string of that length.
    fn bits(&self, len_bytes: usize) -> Range<u64> {
        let unit = if self.in_bits { 1 } else { 8 };
        let len = len_bytes * 8 / unit;
        let range = clamp_range(self.start, self.end.unwrap_or(-1), len);
        (range.start * unit) as u64..(range.end * unit) as u64
    }
}

const RANGE: Arg = Arg {
    name: "range",
    kind: ArgKind::Block,
    optional: true,
    args: &[
        Arg { name: "start", kind: ArgKind::Integer, ..Arg::NEW },
        Arg {
            name: "end-unit-block",
            kind: ArgKind::Block,
            optional: true,
            args: &[
                Arg { name: "end", kind: ArgKind::Integer, ..Arg::NEW },
                Arg {
                    name: "unit",
                    kind: ArgKind::Oneof,
                    since: "7.0.0",
                    optional: true,
                    args: &[Arg::word("byte", "BYTE"), Arg::word("bit", "BIT")],
                    ..Arg::NEW
                },
            ],
            ..Arg::NEW
        },
    ],
    ..Arg::NEW
};

pub(super) const BITCOUNT: Spec = Spec {
    name: "bitcount",
    arity: Arity::AtLeast(2),
    flags: Flags::READONLY,
    acl: Acl::BITMAP,
    group: Group::Bitmap,
    since: "2.6.0",
    summary: "Counts the ones in a string or a part of it.",
    complexity: "O(N) for N bytes",
    key_specs: &[KeySpec::key(1, KeyFlags::RO.union(KeyFlags::ACCESS))],
    args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW }, RANGE],
    handler: Some(bitcount),
    ..Spec::NEW
};

fn bitcount(cx: &mut Cx) -> Outcome {
    let range = GivenRange::parse(cx, 2)?;
    let ones = match cx.keys.read_str(cx.arg(1))? {
        None => 0,
        Some(value) => {
            let mut digits = itoa::Buffer::new();
            let bytes = value.as_bytes(&mut digits);
            bits::count(bytes, range.bits(bytes.len()))
        }
    };
    cx.reply.integer(ones as i64);
    Ok(Effect::None)
}

pub(super) const BITPOS: Spec = Spec {
    name: "bitpos",
    arity: Arity::AtLeast(3),
    flags: Flags::READONLY,
    acl: Acl::BITMAP,
    group: Group::Bitmap,
    since: "2.8.7",
    summary: "Finds the first one or zero in a string or a part of it.",
    complexity: "O(N) for N bytes",
    key_specs: &[KeySpec::key(1, KeyFlags::RO.union(KeyFlags::ACCESS))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "bit", kind: ArgKind::Integer, ..Arg::NEW },
        RANGE,
    ],
    handler: Some(bitpos),
    ..Spec::NEW
};

fn bitpos(cx: &mut Cx) -> Outcome {
    let wanted = match cx.int(2)? {
        0 => false,
        1 => true,
        _ => return Err(CommandError::text("ERR The bit argument must be 1 or 0.")),
    };
    let range = GivenRange::parse(cx, 3)?;
    let found = match cx.keys.read_str(cx.arg(1))? {
        // Nothing but zeros, endlessly.
        None => (!wanted).then_some(0),
        Some(value) => {
            let mut digits = itoa::Buffer::new();
            let bytes = value.as_bytes(&mut digits);
            position(bytes, wanted, &range)
        }
    };
    cx.reply.integer(found.map_or(-1, |at| at as i64));
    Ok(Effect::None)
}

/// A zero is also found right after the string, unless the range ends before that by the caller's word.
fn position(bytes: &[u8], wanted: bool, given: &GivenRange) -> Option<u64> {
    let range = given.bits_to_search(bytes.len());
    if range.is_empty() {
        return None;
    }
    let after = range.end;
    bits::find(bytes, wanted, range).or_else(|| (!wanted && given.end.is_none()).then_some(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_after_the_end_count_only_in_open_ranges() {
        let given = |start, end| GivenRange { start, end, in_bits: false };
        assert_eq!(position(b"\xff\xff", false, &given(0, None)), Some(16));
        assert_eq!(position(b"\xff\xff", false, &given(0, Some(-1))), None);
        assert_eq!(position(b"\xff\xff", false, &given(2, None)), None);
        assert_eq!(position(b"", false, &given(0, None)), None);
        assert_eq!(position(b"\0\0", true, &given(0, None)), None);
    }

    #[test]
    fn ranges_in_bytes_and_bits() {
        let given = |start, end, in_bits| GivenRange { start, end: Some(end), in_bits };
        assert_eq!(given(1, 1, false).bits(6), 8..16);
        assert_eq!(given(5, -3, true).bits(6), 5..46);
        assert_eq!(given(i64::MIN, i64::MAX, true).bits(6), 0..48);
        assert!(given(-1, -2, false).bits(6).is_empty());
        assert!(given(0, -1, true).bits(0).is_empty());
    }
}
