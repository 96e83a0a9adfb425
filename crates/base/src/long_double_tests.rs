//! Against answers of the reference's INCRBYFLOAT, and against arithmetic that is exact by construction.

use super::*;
use proptest::prelude::*;

/// What INCRBYFLOAT answers for a stored text and an increment.
fn increment(stored: &str, by: &str) -> String {
    let parsed = LongDouble::parse(stored.as_bytes()).zip(LongDouble::parse(by.as_bytes()));
    match parsed.map(|(a, b)| a + b) {
        None => "!value is not a valid float".to_owned(),
        Some(sum) if !sum.is_finite() => "!increment would produce NaN or Infinity".to_owned(),
        Some(sum) => sum.to_text(),
    }
}

#[test]
fn answers_of_the_reference() {
    let mut rows = 0;
    for line in include_str!("../testdata/incrbyfloat.txt").lines() {
        let mut words = line.splitn(3, ' ');
        let (stored, by, sum) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        assert_eq!(increment(stored, by), sum, "{stored} + {by}");
        rows += 1;
    }
    assert!(rows > 300);
}

#[test]
fn texts_of_any_length_up_to_the_limit() {
    let ones = |len: usize| format!("0.{}", "1".repeat(len - 2));
    assert_eq!(increment(&ones(5119), "0"), "0.11111111111111111");
    assert_eq!(LongDouble::parse(ones(5120).as_bytes()), None);
    assert_eq!(LongDouble::parse("9".repeat(5119).as_bytes()), None);
    assert_eq!(increment(&format!("0.{}1", "0".repeat(4900)), "1"), "1");
}

#[test]
fn special_values() {
    let (inf, minus_inf) = (LongDouble::parse(b"inf").unwrap(), LongDouble::parse(b"-Infinity").unwrap());
    assert_eq!(inf + minus_inf, LongDouble::Nan);
    assert_eq!((inf + LongDouble::ZERO).to_text(), "inf");
    assert_eq!((LongDouble::Nan + inf).to_text(), "nan");
    assert_eq!(minus_inf.to_text(), "-inf");
    assert_eq!(LongDouble::from_f64(f64::NEG_INFINITY), minus_inf);
    assert_eq!(LongDouble::from_f64(f64::NAN), LongDouble::Nan);
    assert_eq!(LongDouble::from_f64(0.1).to_text(), "0.10000000000000001");
    assert_eq!(LongDouble::from_f64(-0.0).to_text(), "0");
    assert_eq!(LongDouble::from_f64(-1e300).to_text().len(), 302);
}

proptest! {
    #[test]
    fn whole_numbers_add_exactly(a in any::<i64>(), b in any::<i64>()) {
        prop_assert_eq!(increment(&a.to_string(), &b.to_string()), match a.checked_add(b) {
            Some(sum) => sum.to_string(),
            // One bit more than the mantissa has: only the last may be rounded.
            None => increment(&(i128::from(a) + i128::from(b)).to_string(), "0"),
        });
    }

    #[test]
    fn doubles_are_contained(bits in any::<u64>()) {
        let value = f64::from_bits(bits);
        prop_assume!(value.is_finite());
        // Rust prints a double's exact decimal value when asked for enough digits.
        let exact = format!("{value:.1100}");
        prop_assert_eq!(LongDouble::parse(exact.as_bytes()), Some(LongDouble::from_f64(value)));
        let rounded = format!("{value:.17}");
        let rounded = rounded.trim_end_matches('0').trim_end_matches('.');
        prop_assert_eq!(LongDouble::from_f64(value).to_text(), if rounded == "-0" { "0" } else { rounded });
    }

    #[test]
    fn sums_of_doubles_are_nearest(a in -1e15..1e15f64, b in -1e-3..1e-3f64) {
        // Rounded to a double, the wider sum is the double sum, save for double rounding in the last place.
        let sum = (LongDouble::from_f64(a) + LongDouble::from_f64(b)).to_text();
        let sum: f64 = sum.parse().unwrap();
        prop_assert!((sum - (a + b)).abs() <= (a + b).abs() * f64::EPSILON);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[-+0-9.eExXpPa-f]{0,30}") {
        if let Some(value) = LongDouble::parse(text.as_bytes()) {
            prop_assert!(LongDouble::parse(value.to_text().as_bytes()).is_some());
        }
    }
}

#[test]
fn seconds_as_milliseconds() {
    for (text, ms) in [
        ("0", 0),
        ("0.1", 100),
        ("0.0001", 1),
        ("-0.0001", 0),
        ("-1", -1000),
        ("1.0005", 1001),
        ("1e-400", 1),
        ("0x1.8", 1500),
        ("123456789.123", 123_456_789_123),
        ("9223372036854775.807", i64::MAX),
        ("9223372036854774", 9_223_372_036_854_774_000),
        ("1e400", i64::MAX),
        ("-1e400", i64::MIN),
        ("inf", i64::MAX),
    ] {
        let value = LongDouble::parse(text.as_bytes()).and_then(|value| value.times_ceil(1000));
        assert_eq!(value, Some(ms), "{text}");
    }
}
