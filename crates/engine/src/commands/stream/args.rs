//! Ids and intervals among the arguments.

use super::CommandError;
use kara_base::number::{parse_i64, parse_u64};
use kara_keyspace::value::stream::{NewId, StreamId};

/// Longer texts are no ids.
const ID_MAX_LEN: usize = 127;

const INVALID_ID: CommandError =
    CommandError::text("ERR Invalid stream ID specified as stream command argument");

/// An id; without a counter it gets `missing_seq`.
pub(super) fn strict_id(text: &[u8], missing_seq: u64) -> Result<StreamId, CommandError> {
    match id_or_auto(text, missing_seq) {
        Some((id, true)) => Ok(id),
        _ => Err(INVALID_ID),
    }
}

/// XADD's id: `ms-*` lets the server count.
pub(super) fn new_id(text: &[u8]) -> Result<NewId, CommandError> {
    match id_or_auto(text, 0) {
        Some((id, true)) => Ok(NewId::Exact(id)),
        Some((id, false)) => Ok(NewId::AutoSeq(id.ms)),
        None => Err(INVALID_ID),
    }
}

/// The lower end of an interval, itself included: an id, `-`, `+`, or `(` and an id, which excludes that one.
pub(super) fn interval_start(text: &[u8]) -> Result<StreamId, CommandError> {
    match excluded(text) {
        Some(id) => {
            strict_id(id, 0)?.next().ok_or(CommandError::text("ERR invalid start ID for the interval"))
        }
        None => open_id(text, 0),
    }
}

/// The upper end of an interval, itself included.
pub(super) fn interval_end(text: &[u8]) -> Result<StreamId, CommandError> {
    match excluded(text) {
        Some(id) => strict_id(id, u64::MAX)?
            .previous()
            .ok_or(CommandError::text("ERR invalid end ID for the interval")),
        None => open_id(text, u64::MAX),
    }
}

fn excluded(text: &[u8]) -> Option<&[u8]> {
    text.strip_prefix(b"(").filter(|id| !id.is_empty())
}

fn open_id(text: &[u8], missing_seq: u64) -> Result<StreamId, CommandError> {
    match text {
        b"-" => Ok(StreamId::MIN),
        b"+" => Ok(StreamId::MAX),
        _ => strict_id(text, missing_seq),
    }
}

/// The id, and whether its counter is given rather than `*`.
fn id_or_auto(text: &[u8], missing_seq: u64) -> Option<(StreamId, bool)> {
    if text.len() > ID_MAX_LEN {
        return None;
    }
    // What follows a NUL doesn't count there.
    let text = text.split(|&byte| byte == 0).next()?;
    match memchr::memchr(b'-', text) {
        None => Some((StreamId::new(number(text)?, missing_seq), true)),
        Some(dash) => {
            let ms = number(&text[..dash])?;
            match &text[dash + 1..] {
                b"*" => Some((StreamId::new(ms, 0), false)),
                seq => Some((StreamId::new(ms, number(seq)?), true)),
            }
        }
    }
}

/// A number as the reference reads it in ids: canonical, or whatever C's strtoull takes (blanks in front, signs,
/// leading zeros), except canonical negative ones.
fn number(text: &[u8]) -> Option<u64> {
    if let Some(number) = parse_u64(text) {
        return Some(number);
    }
    if parse_i64(text).is_some() {
        return None;
    }
    let text = &text[text.iter().take_while(|byte| matches!(byte, b' ' | b'\t'..=b'\r')).count()..];
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let zeros = digits.iter().take_while(|&&byte| byte == b'0').count();
    let magnitude = match &digits[zeros..] {
        [] if zeros > 0 => 0,
        rest => parse_u64(rest)?,
    };
    Some(if negative { magnitude.wrapping_neg() } else { magnitude })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_as_the_reference_reads_them() {
        let ok = |text: &str| strict_id(text.as_bytes(), 7).ok().map(|id| (id.ms, id.seq));
        for (text, id) in [
            ("5", (5, 7)),
            ("5-1", (5, 1)),
            ("01-1", (1, 1)),
            ("1-01", (1, 1)),
            ("+5-1", (5, 1)),
            (" 5-1", (5, 1)),
            ("5-+3", (5, 3)),
            ("1--05", (1, 5u64.wrapping_neg())),
            ("00-0", (0, 0)),
            ("5\0x-1", (5, 7)),
            ("18446744073709551615-18446744073709551615", (u64::MAX, u64::MAX)),
        ] {
            assert_eq!(ok(text), Some(id), "{text:?}");
        }
        let long = "1".repeat(128);
        for text in [
            "5-1 ",
            "1--5",
            "-",
            "+",
            "*",
            "5-*",
            "5-**",
            "-5",
            "--5",
            "5-",
            "-1-1",
            "1-2-3",
            "",
            "x",
            "0x5",
            "(5",
            "18446744073709551616-1",
            "1-18446744073709551616",
            "+",
            "1-+",
            "1- ",
            &long,
        ] {
            assert_eq!(ok(text), None, "{text:?}");
        }
        assert_eq!(new_id(b"5-*"), Ok(NewId::AutoSeq(5)));
        assert_eq!(new_id(b"5"), Ok(NewId::Exact(StreamId::new(5, 0))));
        assert!(new_id(b"5-**").is_err());
    }

    #[test]
    fn intervals() {
        assert_eq!(interval_start(b"-"), Ok(StreamId::MIN));
        assert_eq!(interval_start(b"(5"), Ok(StreamId::new(5, 1)));
        assert_eq!(interval_end(b"5"), Ok(StreamId::new(5, u64::MAX)));
        assert_eq!(interval_end(b"(5"), Ok(StreamId::new(5, u64::MAX - 1)));
        for text in [&b"(-"[..], b"(+", b"(", b"((1", b"(18446744073709551615-18446744073709551615"] {
            assert!(interval_start(text).is_err());
        }
        assert!(interval_end(b"(0-0").is_err());
    }
}
