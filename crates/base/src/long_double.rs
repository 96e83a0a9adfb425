//! The x87's 80-bit floating point in integer arithmetic: INCRBYFLOAT and HINCRBYFLOAT compute and print in it, and
//! their texts are part of what clients and replicas see. Read, add, print; rounding to nearest, ties to even.

use crate::number::parse_i64;
use std::cmp::Ordering;

/// A value with a 64-bit fraction and a 15-bit exponent, or an infinity, or not a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LongDouble {
    Finite(Finite),
    Infinite { negative: bool },
    Nan,
}

/// `mantissa * 2^exponent`. The mantissa's top bit is set unless the value is zero, also below the smallest normal
/// exponent, where it has fewer significant bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finite {
    negative: bool,
    exponent: i32,
    mantissa: u64,
}

/// The weight of the last bit: of the smallest subnormal, and of the largest finite value.
const MIN_EXPONENT: i32 = -16445;
const MAX_EXPONENT: i32 = 16320;
/// Longer texts are refused unseen, in bytes.
const MAX_TEXT: usize = 5119;

impl LongDouble {
    pub const ZERO: LongDouble = LongDouble::Finite(Finite { negative: false, exponent: 0, mantissa: 0 });

    pub fn is_finite(&self) -> bool {
        matches!(self, LongDouble::Finite(_))
    }

    /// The same value: every double is one of these.
    pub fn from_f64(value: f64) -> LongDouble {
        let bits = value.to_bits();
        let negative = value.is_sign_negative();
        let fraction = bits & ((1 << 52) - 1);
        match (bits >> 52 & 0x7ff) as i32 {
            0x7ff if fraction != 0 => LongDouble::Nan,
            0x7ff => LongDouble::Infinite { negative },
            0 => rounded(negative, u128::from(fraction), -1074, false),
            biased => rounded(negative, u128::from(fraction | 1 << 52), biased - 1075, false),
        }
    }

    /// Reads decimal (`-1.5e3`) or hexadecimal (`0x1.8p1`) text or an infinity. None for anything else: blanks,
    /// `nan`, texts of 5120 bytes and more, and values that are too large or too small but not zero.
    pub fn parse(text: &[u8]) -> Option<LongDouble> {
        if text.len() > MAX_TEXT {
            return None;
        }
        let (negative, unsigned) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, text),
        };
        if unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity") {
            return Some(LongDouble::Infinite { negative });
        }
        let value = match unsigned {
            [b'0', b'x' | b'X', digits @ ..] => parse_hex(negative, digits)?,
            _ => parse_decimal(negative, unsigned)?,
        };
        value.is_finite().then_some(value)
    }

    /// The product with `factor`, rounded as the x87 rounds it, then up to a whole number; what `i64` can't hold becomes
    /// its nearest bound. None for what is not a number.
    pub fn times_ceil(self, factor: u32) -> Option<i64> {
        let bound = |negative| if negative { i64::MIN } else { i64::MAX };
        let product = match self {
            LongDouble::Finite(value) => {
                let mantissa = u128::from(value.mantissa) * u128::from(factor);
                rounded(value.negative, mantissa, value.exponent, false)
            }
            other => other,
        };
        Some(match product {
            LongDouble::Nan => return None,
            LongDouble::Infinite { negative } => bound(negative),
            LongDouble::Finite(value) if value.mantissa == 0 => 0,
            // The mantissa's top bit is set.
            LongDouble::Finite(value) if value.exponent >= 0 => bound(value.negative),
            LongDouble::Finite(value) => {
                let shift = value.exponent.unsigned_abs();
                let whole = value.mantissa.checked_shr(shift).unwrap_or(0);
                let exact = shift < 64 && whole << shift == value.mantissa;
                if value.negative {
                    i64::try_from(whole).map_or(i64::MIN, |whole| -whole)
                } else {
                    i64::try_from(whole).unwrap_or(i64::MAX).saturating_add(i64::from(!exact))
                }
            }
        })
    }

    /// The text of replies: up to 17 decimals, no trailing zeros, never an exponent. The largest values take 4933
    /// digits.
    pub fn to_text(self) -> String {
        match self {
            LongDouble::Nan => "nan".to_owned(),
            LongDouble::Infinite { negative: false } => "inf".to_owned(),
            LongDouble::Infinite { negative: true } => "-inf".to_owned(),
            LongDouble::Finite(value) => {
                let text = if value.exponent >= 0 { whole_text(value) } else { fraction_text(value) };
                if value.negative && text != "0" { format!("-{text}") } else { text }
            }
        }
    }
}

/// The sum, rounded once.
impl std::ops::Add for LongDouble {
    type Output = LongDouble;

    fn add(self, other: LongDouble) -> LongDouble {
        use LongDouble::{Finite, Infinite, Nan};
        match (self, other) {
            (Nan, _) | (_, Nan) => Nan,
            (Infinite { negative: a }, Infinite { negative: b }) if a != b => Nan,
            (Infinite { .. }, _) => self,
            (_, Infinite { .. }) => other,
            (Finite(a), Finite(b)) => add_finite(a, b),
        }
    }
}

/// The nearest value to `mantissa * 2^exponent`; `sticky` tells that the true mantissa is a little larger (by less
/// than one) than the one given, which then must have more than 65 bits.
fn rounded(negative: bool, mantissa: u128, exponent: i32, sticky: bool) -> LongDouble {
    if mantissa == 0 {
        return LongDouble::Finite(Finite { negative, exponent: 0, mantissa: 0 });
    }
    let bits = 128 - mantissa.leading_zeros() as i32;
    // How many low bits have to go, for the mantissa's width or because of the smallest exponent.
    let surplus = (bits - 64).max(MIN_EXPONENT.saturating_sub(exponent));
    let (mut kept, exponent) = match surplus {
        ..=0 => (mantissa, exponent),
        129.. => (0, MIN_EXPONENT),
        _ => {
            let kept = mantissa.checked_shr(surplus as u32).unwrap_or(0);
            let half = 1u128 << (surplus - 1);
            let lost = mantissa & (half | (half - 1));
            let up = match lost.cmp(&half) {
                Ordering::Less => false,
                Ordering::Equal => sticky || kept & 1 == 1,
                Ordering::Greater => true,
            };
            (kept + u128::from(up), exponent + surplus)
        }
    };
    if kept == 0 {
        return LongDouble::Finite(Finite { negative, exponent: 0, mantissa: 0 });
    }
    let mut exponent = exponent;
    if kept >> 64 != 0 {
        // Rounded up to the next power of two.
        (kept, exponent) = (kept >> 1, exponent + 1);
    }
    let shift = (kept as u64).leading_zeros();
    let (mantissa, exponent) = ((kept as u64) << shift, exponent - shift as i32);
    if exponent > MAX_EXPONENT {
        return LongDouble::Infinite { negative };
    }
    LongDouble::Finite(Finite { negative, exponent, mantissa })
}

fn add_finite(a: Finite, b: Finite) -> LongDouble {
    if a.mantissa == 0 || b.mantissa == 0 {
        let zero = Finite { negative: a.negative && b.negative, exponent: 0, mantissa: 0 };
        let sum = [a, b].into_iter().find(|value| value.mantissa != 0);
        return LongDouble::Finite(sum.unwrap_or(zero));
    }
    let a_is_larger = (a.exponent, a.mantissa) >= (b.exponent, b.mantissa);
    let (large, small) = if a_is_larger { (a, b) } else { (b, a) };
    // 63 bits below the larger mantissa, one above it for the carry: what the smaller loses is far below the last
    // bit of the result.
    let distance = (large.exponent - small.exponent) as u32;
    let high = u128::from(large.mantissa) << 63;
    let low = u128::from(small.mantissa) << 63;
    let (low, sticky) = match low.checked_shr(distance) {
        Some(shifted) => (shifted, shifted << distance != low),
        None => (0, true),
    };
    let exponent = large.exponent - 63;
    if large.negative == small.negative {
        return rounded(large.negative, high + low, exponent, sticky);
    }
    let difference = high - low - u128::from(sticky);
    let negative = large.negative && difference != 0;
    rounded(negative, difference, exponent, sticky)
}

/// A number's text taken apart: digits without the point, and where the point stood.
struct Scanned<'a> {
    before: &'a [u8],
    after: &'a [u8],
    /// Clamped to a range that decides the same and can't overflow in what follows.
    exponent: i64,
}

fn scan<'a>(text: &'a [u8], is_digit: fn(&u8) -> bool, marker: u8) -> Option<Scanned<'a>> {
    let end = text.iter().position(|b| !is_digit(b)).unwrap_or(text.len());
    let (before, mut rest) = text.split_at(end);
    let mut after: &[u8] = &[];
    if let [b'.', tail @ ..] = rest {
        let end = tail.iter().position(|b| !is_digit(b)).unwrap_or(tail.len());
        (after, rest) = tail.split_at(end);
    }
    if before.is_empty() && after.is_empty() {
        return None;
    }
    let exponent = match rest {
        [] => 0,
        [first, exponent @ ..] if first.eq_ignore_ascii_case(&marker) => parse_exponent(exponent)?,
        _ => return None,
    };
    Some(Scanned { before, after, exponent })
}

fn parse_exponent(text: &[u8]) -> Option<i64> {
    const FAR: i64 = 1_000_000;
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let zeros = digits.iter().position(|&b| b != b'0').unwrap_or(digits.len() - 1);
    let value = parse_i64(&digits[zeros..]).map_or(FAR, |value| value.min(FAR));
    Some(if negative { -value } else { value })
}

/// The significant digits: neither leading nor trailing zeros.
fn significant<'a>(scanned: &Scanned<'a>) -> (impl Iterator<Item = u8> + use<'a>, usize, usize) {
    let (before, after) = (scanned.before, scanned.after);
    let total = before.len() + after.len();
    let leading = before.iter().chain(after).take_while(|&&b| b == b'0').count();
    let trailing = after.iter().rev().chain(before.iter().rev()).take_while(|&&b| b == b'0').count();
    let kept = total.saturating_sub(leading + trailing);
    (before.iter().chain(after).copied().skip(leading).take(kept), kept, trailing)
}

fn parse_hex(negative: bool, text: &[u8]) -> Option<LongDouble> {
    let scanned = scan(text, u8::is_ascii_hexdigit, b'p')?;
    let (digits, count, trailing) = significant(&scanned);
    let point = scanned.after.len() as i64 - trailing as i64;
    let (mut mantissa, mut sticky, mut dropped) = (0u128, false, 0i64);
    for digit in digits {
        let value = char::from(digit).to_digit(16)?;
        if mantissa >> 120 == 0 {
            mantissa = mantissa << 4 | u128::from(value);
        } else {
            sticky |= value != 0;
            dropped += 1;
        }
    }
    if count == 0 {
        return Some(rounded(negative, 0, 0, false));
    }
    let exponent = (scanned.exponent + 4 * (dropped - point)).clamp(-2_000_000, 2_000_000) as i32;
    not_zero(rounded(negative, mantissa, exponent, sticky))
}

fn parse_decimal(negative: bool, text: &[u8]) -> Option<LongDouble> {
    let scanned = scan(text, u8::is_ascii_digit, b'e')?;
    let (digits, count, trailing) = significant(&scanned);
    if count == 0 {
        return Some(rounded(negative, 0, 0, false));
    }
    let power = scanned.exponent - (scanned.after.len() as i64 - trailing as i64);
    // The place of the first digit decides the obvious cases and bounds the arithmetic of the others.
    if !(-4960..=4940).contains(&(power + count as i64)) {
        return None;
    }
    // A divisor below 2^60 leaves the quotient more than the 65 bits that `rounded` wants.
    if count <= 19 && (-18..=0).contains(&power) {
        let value = digits.fold(0u64, |value, digit| value * 10 + u64::from(digit - b'0'));
        let shift = 127 - value.ilog2();
        let (dividend, divisor) = (u128::from(value) << shift, 10u128.pow(-power as u32));
        return Some(rounded(negative, dividend / divisor, -(shift as i32), dividend % divisor != 0));
    }
    let mut dividend = Big::default();
    for digit in digits {
        dividend.multiply_add(10, u32::from(digit - b'0'));
    }
    let mut divisor = Big(vec![1]);
    let scaled = if power >= 0 { &mut dividend } else { &mut divisor };
    scaled.multiply_by_power_of_ten(power.unsigned_abs());
    let (quotient, exponent, sticky) = divide(dividend, divisor);
    not_zero(rounded(negative, quotient, exponent, sticky))
}

/// Digits that round to nothing are out of range.
fn not_zero(value: LongDouble) -> Option<LongDouble> {
    (!matches!(value, LongDouble::Finite(Finite { mantissa: 0, .. }))).then_some(value)
}

/// A natural number of any size, least significant word first, no zero words at the end.
#[derive(Clone, Debug, Default, PartialEq)]
struct Big(Vec<u32>);

impl Big {
    fn multiply_add(&mut self, factor: u32, summand: u32) {
        let mut carry = u64::from(summand);
        for word in &mut self.0 {
            let product = u64::from(*word) * u64::from(factor) + carry;
            *word = product as u32;
            carry = product >> 32;
        }
        if carry != 0 {
            self.0.push(carry as u32);
        }
    }

    fn multiply_by_power_of_ten(&mut self, power: u64) {
        for _ in 0..power / 9 {
            self.multiply_add(1_000_000_000, 0);
        }
        self.multiply_add(10u32.pow((power % 9) as u32), 0);
    }

    fn shift_left(&mut self, bits: usize) {
        self.multiply_add(1 << (bits % 32), 0);
        self.0.splice(0..0, std::iter::repeat_n(0, bits / 32));
    }

    fn bits(&self) -> usize {
        self.0.last().map_or(0, |top| self.0.len() * 32 - top.leading_zeros() as usize)
    }

    /// Divides in place and returns the remainder.
    fn divide_small(&mut self, divisor: u32) -> u32 {
        let mut rest = 0u64;
        for word in self.0.iter_mut().rev() {
            let part = rest << 32 | u64::from(*word);
            *word = (part / u64::from(divisor)) as u32;
            rest = part % u64::from(divisor);
        }
        self.trim();
        rest as u32
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn compare(&self, other: &Big) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }

    /// Subtracts a number that isn't larger.
    fn subtract(&mut self, other: &Big) {
        let mut borrow = false;
        for (index, word) in self.0.iter_mut().enumerate() {
            let (part, under) = word.overflowing_sub(other.0.get(index).copied().unwrap_or(0));
            let (part, under_again) = part.overflowing_sub(u32::from(borrow));
            *word = part;
            borrow = under || under_again;
        }
        self.trim();
    }
}

/// The quotient's first 68 bits or so, their exponent, and whether anything is left. Bit by bit: the numbers have
/// up to a thousand words, the quotient only two.
fn divide(mut dividend: Big, mut divisor: Big) -> (u128, i32, bool) {
    const BITS: usize = 68;
    let (have, want) = (dividend.bits(), divisor.bits() + BITS);
    let exponent = have as i32 - want as i32;
    if have < want {
        dividend.shift_left(want - have);
    } else {
        divisor.shift_left(have - want);
    }
    let mut quotient = 0u128;
    // The dividend is less than the divisor times 2^(BITS + 1): compare with its multiples from the top.
    let mut shifted = divisor;
    shifted.shift_left(BITS);
    for step in 0..=BITS {
        quotient <<= 1;
        if dividend.compare(&shifted) != Ordering::Less {
            dividend.subtract(&shifted);
            quotient |= 1;
        }
        if step < BITS {
            shift_right_one(&mut shifted);
        }
    }
    (quotient, exponent, !dividend.0.is_empty())
}

fn shift_right_one(number: &mut Big) {
    let mut carry = 0;
    for word in number.0.iter_mut().rev() {
        let low = *word & 1;
        *word = *word >> 1 | carry << 31;
        carry = low;
    }
    number.trim();
}

/// A value without fraction bits.
fn whole_text(value: Finite) -> String {
    if value.exponent <= 64 {
        return (u128::from(value.mantissa) << value.exponent).to_string();
    }
    let mut number = Big(vec![value.mantissa as u32, (value.mantissa >> 32) as u32]);
    number.shift_left(value.exponent as usize);
    let mut groups = Vec::new();
    while !number.0.is_empty() {
        groups.push(number.divide_small(1_000_000_000));
    }
    let mut text = groups.pop().unwrap_or(0).to_string();
    for group in groups.iter().rev() {
        text.push_str(&format!("{group:09}"));
    }
    text
}

/// A value with fraction bits, or zero: to 17 decimals, exactly rounded.
fn fraction_text(value: Finite) -> String {
    const SCALE: u128 = 100_000_000_000_000_000;
    // Below 2^121, so anything shifted by 122 or more is less than half.
    let scaled = u128::from(value.mantissa) * SCALE;
    let shift = value.exponent.unsigned_abs();
    let mut units = 0;
    if shift < 122 {
        units = scaled >> shift;
        let half = 1u128 << (shift - 1);
        let lost = scaled & (half | (half - 1));
        units += u128::from(lost > half || (lost == half && units & 1 == 1));
    }
    let mut text = format!("{}.{:017}", units / SCALE, units % SCALE);
    text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    text
}

#[cfg(test)]
#[path = "long_double_tests.rs"]
mod tests;
