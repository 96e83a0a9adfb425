//! Numbers as texts: as arguments of commands, and as C's `%.14g` prints them.

use kara_base::number::format_f64;
use smallvec::SmallVec;

/// Texts of numbers, one behind the other.
pub(crate) type Digits = SmallVec<[u8; 64]>;

/// Appends a number as the argument of a command.
pub(crate) fn put_argument(out: &mut Digits, number: f64) {
    // Whole numbers up to 2^52 are written as such (so -0 is 0); larger ones by their shortest digits, padded with zeros.
    const EXACT: f64 = (1u64 << 52) as f64;
    if number == number.trunc() && number.abs() <= EXACT {
        out.extend_from_slice(itoa::Buffer::new().format(number as i64).as_bytes());
    } else if number == number.trunc() && number.abs() < 9.3e18 {
        out.extend_from_slice(number.to_string().as_bytes());
    } else if number.is_nan() {
        out.extend_from_slice(if number.is_sign_negative() { b"-nan" } else { b"nan" });
    } else {
        out.extend_from_slice(format_f64(number).as_bytes());
    }
}

/// `%.<precision>g`.
pub(crate) fn general(number: f64, precision: usize) -> String {
    if number.is_nan() {
        return if number.is_sign_negative() { "-nan" } else { "nan" }.to_string();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_string();
    }
    let precision = precision.max(1);
    if number == 0.0 {
        return if number.is_sign_negative() { "-0" } else { "0" }.to_string();
    }
    let scientific = format!("{:.*e}", precision - 1, number);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| {
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_string()
        } else {
            text.to_string()
        }
    };
    if exponent < -4 || exponent >= precision as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trim(mantissa), exponent.abs());
    }
    let decimals = (precision as i32 - 1 - exponent).max(0) as usize;
    trim(&format!("{number:.decimals$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn general_is_c() {
        for (number, text) in [
            (0.1, "0.1"),
            (1.0 / 3.0, "0.33333333333333"),
            (1e15, "1e+15"),
            (1e14, "1e+14"),
            (99999999999999.0, "99999999999999"),
            (123456.789, "123456.789"),
            (1e-5, "1e-05"),
            (0.0001, "0.0001"),
            (-2.5, "-2.5"),
            (1e100, "1e+100"),
        ] {
            assert_eq!(general(number, 14), text);
        }
    }

    #[test]
    fn arguments_are_the_reference_s() {
        for (number, text) in [
            (1.0000000000000002, "1.0000000000000002"),
            (12345678901234567890.0, "12345678901234567000"),
            (1e100, "1e+100"),
            (-0.0, "0"),
            (1e15, "1000000000000000"),
            (1e-7, "1e-7"),
            (f64::INFINITY, "inf"),
        ] {
            let mut digits = Digits::new();
            put_argument(&mut digits, number);
            assert_eq!(String::from_utf8_lossy(&digits), text);
        }
    }
}
