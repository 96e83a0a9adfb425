//! Numbers as text, exactly as the reference reads and prints them: strict integers, doubles, byte counts and
//! memory sizes.

use crate::grisu;

/// Parses a decimal `i64` whose text is canonical: no plus sign, no leading zeros, no blanks, no `-0`. What it
/// accepts prints back as the same text.
#[inline]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        _ => (false, text),
    };
    let magnitude = parse_u64(digits)?;
    if !negative {
        return i64::try_from(magnitude).ok();
    }
    match magnitude {
        1..=0x8000_0000_0000_0000 => Some((magnitude as i64).wrapping_neg()),
        _ => None,
    }
}

/// Parses a decimal `u64` whose text is canonical: digits only, no leading zeros.
#[inline]
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    match text {
        [digit @ b'0'..=b'9'] => return Some(u64::from(digit - b'0')),
        [b'1'..=b'9', ..] if text.len() <= 20 => {}
        _ => return None,
    }
    let mut value = 0u64;
    // 19 digits can't overflow; only the 20th needs the checks.
    let (head, tail) = text.split_at(text.len().min(19));
    for byte in head {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    match tail {
        [] => Some(value),
        [digit @ b'0'..=b'9'] => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    }
}

/// Parses a double as ZADD, expiry ranges and the like do: decimal with optional sign, point and exponent, or
/// `inf`/`infinity` in any case. Refused: blanks, hex, `nan`, and what leaves the double's range (`1e309`,
/// `1e-400`).
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    let unsigned = match text {
        [b'+' | b'-', rest @ ..] => rest,
        _ => text,
    };
    let first = *unsigned.first()?;
    if first.is_ascii_alphabetic() {
        let infinite = unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity");
        let sign = if text.first() == Some(&b'-') { -1.0 } else { 1.0 };
        return infinite.then_some(sign * f64::INFINITY);
    }
    if !matches!(first, b'0'..=b'9' | b'.') {
        return None;
    }
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    if value.is_infinite() {
        return None;
    }
    if value == 0.0 {
        let mantissa = unsigned.split(|b| matches!(b, b'e' | b'E')).next().unwrap_or_default();
        if mantissa.iter().any(|b| matches!(b, b'1'..=b'9')) {
            return None;
        }
    }
    Some(value)
}

/// Longest text that [`format_f64`] makes.
pub const MAX_F64_TEXT: usize = 32;

/// A double's text on the stack; see [`format_f64`].
#[derive(Clone, Copy)]
pub struct F64Text {
    bytes: [u8; MAX_F64_TEXT],
    len: usize,
}

impl F64Text {
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Always ASCII.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn extend(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn zeros(&mut self, count: usize) {
        self.bytes[self.len..self.len + count].fill(b'0');
        self.len += count;
    }
}

/// The text of a score or other double in replies: `inf`, `-inf`, `nan`, whole numbers up to 2^62 without
/// exponent, otherwise the shortest digits that read back (17 at most).
pub fn format_f64(value: f64) -> F64Text {
    const WHOLE: f64 = (1i64 << 62) as f64;
    if value != 0.0 && value.abs() <= WHOLE && value.trunc() == value {
        let mut text = F64Text { bytes: [0; MAX_F64_TEXT], len: 0 };
        text.extend(itoa::Buffer::new().format(value as i64).as_bytes());
        return text;
    }
    format_f64_shortest(value)
}

/// As `format_f64`, whole numbers like all others: `1e+8`. DEBUG DIGEST mixes scores in like this.
pub fn format_f64_shortest(value: f64) -> F64Text {
    let mut text = F64Text { bytes: [0; MAX_F64_TEXT], len: 0 };
    if value.is_nan() {
        text.extend(b"nan");
        return text;
    }
    if value.is_infinite() {
        text.extend(if value > 0.0 { b"inf" } else { b"-inf" });
        return text;
    }
    if value == 0.0 {
        text.extend(if value.is_sign_negative() { b"-0" } else { b"0" });
        return text;
    }
    let mut digits = [0; 18];
    let (len, exponent) = grisu::shortest(value.abs(), &mut digits);
    if value < 0.0 {
        text.push(b'-');
    }
    lay_out(&digits[..len], exponent, value < 0.0, &mut text);
    text
}

/// Puts the point or the exponent where the reference puts it.
fn lay_out(digits: &[u8], exponent: i32, negative: bool, text: &mut F64Text) {
    let len = digits.len() as i32;
    let scientific = exponent + len - 1;
    if exponent >= 0 && scientific < len + 7 {
        text.extend(digits);
        text.zeros(exponent as usize);
    } else if exponent < 0 && (exponent > -7 || scientific.abs() < 4) {
        let whole = len + exponent;
        if whole <= 0 {
            text.extend(b"0.");
            text.zeros(-whole as usize);
            text.extend(digits);
        } else {
            let (before, after) = digits.split_at(whole as usize);
            text.extend(before);
            text.push(b'.');
            text.extend(after);
        }
    } else {
        let kept = digits.len().min(if negative { 17 } else { 18 });
        text.push(digits[0]);
        if kept > 1 {
            text.push(b'.');
            text.extend(&digits[1..kept]);
        }
        text.extend(if scientific < 0 { b"e-" } else { b"e+" });
        text.extend(itoa::Buffer::new().format(scientific.unsigned_abs()).as_bytes());
    }
}

/// A byte count for people, as in INFO's `used_memory_human`: `1.38M`. From 1024 P on it is plain bytes again.
pub fn human_bytes(bytes: u64) -> String {
    let mut unit = 1u64;
    for name in ["B", "K", "M", "G", "T", "P"] {
        if bytes < unit << 10 {
            return match name {
                "B" => format!("{bytes}B"),
                _ => format!("{:.2}{name}", bytes as f64 / unit as f64),
            };
        }
        unit <<= 10;
    }
    format!("{bytes}B")
}

/// Parses a memory size such as `2gb`, `1k` (1000) or `1kb` (1024), in bytes; the unit's case doesn't matter,
/// and no digits at all are 0. None for anything else, for negative sizes and for overflow.
pub fn parse_memory(text: &[u8]) -> Option<u64> {
    let end = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let scale: u64 = match unit.to_ascii_lowercase().as_slice() {
        b"" | b"b" => 1,
        b"k" => 1000,
        b"kb" => 1 << 10,
        b"m" => 1_000_000,
        b"mb" => 1 << 20,
        b"g" => 1_000_000_000,
        b"gb" => 1 << 30,
        _ => return None,
    };
    let mut value = 0u64;
    for digit in digits {
        value = value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
    }
    value.checked_mul(scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_integers_only() {
        let good: &[(&str, i64)] = &[
            ("0", 0),
            ("7", 7),
            ("-1", -1),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ];
        for (text, value) in good {
            assert_eq!(parse_i64(text.as_bytes()), Some(*value), "{text}");
        }
        for text in [
            "",
            "-",
            "+1",
            "-0",
            "00",
            "01",
            "-01",
            " 1",
            "1 ",
            "1.0",
            "0x1",
            "1e3",
            "9223372036854775808",
            "-9223372036854775809",
            "18446744073709551616",
            "99999999999999999999",
            "123456789012345678901",
            "1234567890123456789a",
            "--1",
        ] {
            assert_eq!(parse_i64(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_u64(b"18446744073709551616"), None);
        assert_eq!(parse_u64(b"99999999999999999999"), None);
        assert_eq!(parse_u64(b"-1"), None);
    }

    #[test]
    fn doubles_as_zadd_reads_them() {
        let good: &[(&str, f64)] = &[
            ("1.", 1.0),
            (".5", 0.5),
            ("+.5", 0.5),
            ("-.5", -0.5),
            ("01", 1.0),
            ("1E5", 1e5),
            ("0e0", 0.0),
            ("0e999", 0.0),
            ("5e-324", 5e-324),
            ("1.7976931348623157e308", f64::MAX),
            ("inf", f64::INFINITY),
            ("-Inf", f64::NEG_INFINITY),
            ("+INFINITY", f64::INFINITY),
        ];
        for (text, value) in good {
            assert_eq!(parse_f64(text.as_bytes()), Some(*value), "{text}");
        }
        for text in [
            "", " 1", "1 ", "\t1", "1\0", "nan", "-nan", "NaN", "0x10", "1e", "1_0", "1d", "1f", "1e309",
            "-1e309", "5e-400", "infin", "+", "-", ".", "e5", "1.1.1", "--1", "+-1", "nan(1)", "1e5000",
            "0x", "\u{661}",
        ] {
            assert_eq!(parse_f64(text.as_bytes()), None, "{text:?}");
        }
    }

    /// Bits and what ZSCORE answered for them on the reference.
    #[test]
    fn doubles_as_zscore_prints_them() {
        let mut rows = 0;
        for line in include_str!("../testdata/doubles.txt").lines() {
            let (bits, text) = line.split_once(' ').unwrap();
            let value = f64::from_bits(u64::from_str_radix(bits, 16).unwrap());
            assert_eq!(format_f64(value).as_str(), text, "{value:e}");
            rows += 1;
        }
        assert!(rows > 500);
        for (value, text) in
            [(-0.0, "-0"), (f64::NAN, "nan"), (f64::INFINITY, "inf"), (-f64::INFINITY, "-inf")]
        {
            assert_eq!(format_f64(value).as_str(), text);
        }
    }

    #[test]
    fn byte_counts() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.00K"),
            (1_000_000, "976.56K"),
            ((1 << 20) - 1, "1024.00K"),
            (1 << 40, "1.00T"),
            (1 << 50, "1.00P"),
            (1 << 60, "1152921504606846976B"),
            (u64::MAX, "18446744073709551615B"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
        for (text, bytes) in [
            ("1", 1),
            ("1B", 1),
            ("1k", 1000),
            ("1kB", 1024),
            ("1M", 1_000_000),
            ("2gb", 2 << 30),
            ("01", 1),
            ("", 0),
            ("kb", 0),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_memory(text.as_bytes()), Some(bytes), "{text}");
        }
        for text in ["-1", "+1", "1t", "1 mb", "1.5mb", "0x10", "18446744073709551616", "99999999999gb"] {
            assert_eq!(parse_memory(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn integers_come_back(value in any::<i64>(), digits in 0u32..19) {
            let value = value / 10i64.pow(digits);
            prop_assert_eq!(parse_i64(value.to_string().as_bytes()), Some(value));
        }

        #[test]
        fn doubles_come_back(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            prop_assert_eq!(parse_f64(format_f64(value).as_bytes()), Some(value));
        }
    }
}
