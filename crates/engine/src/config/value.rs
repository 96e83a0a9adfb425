//! How one setting is read, validated and printed: the plain types (yes/no, numbers, memory sizes, text).
//!
//! The shapes with a grammar of their own are in `shapes`, the closed lists of words in `choices`.

use std::borrow::Cow;

use kara_base::number::{parse_i64, parse_memory};
use kara_base::text::push_quoted;
use kara_base::{cgroup, usage};

/// Why a value was refused: the text after "... - " in CONFIG SET's error, and the last line of a fatal
/// configuration error.
pub type Fault = Cow<'static, str>;

/// Where an assignment comes from. A few directives add up over the lines of a file, but replace as a whole
/// over CONFIG SET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A line of the configuration file, of standard input or of the command line.
    Startup,
    /// CONFIG SET, at run time.
    Runtime,
}

/// A type that can stand in the configuration.
pub(super) trait Setting: Clone + PartialEq {
    /// What the table says about one directive of this type: limits, extra checks.
    type Rule;

    /// Reads `args` (the words after the name) into `self`, or leaves it as it was and says why.
    fn assign(&mut self, rule: &Self::Rule, args: &[&[u8]], source: Source) -> Result<(), Fault>;

    /// The value as CONFIG GET shows it.
    fn show(&self) -> Vec<u8>;

    /// What CONFIG REWRITE writes after the name, one entry per line; no entry drops the directive's lines.
    fn lines(&self, rule: &Self::Rule) -> Vec<Vec<u8>>;
}

/// No rule: everything that parses is allowed.
pub(super) struct Any;

/// The only argument, or the reference's complaint.
pub(super) fn single<'a>(args: &[&'a [u8]]) -> Result<&'a [u8], Fault> {
    match args {
        [one] => Ok(one),
        _ => Err(Fault::Borrowed("wrong number of arguments")),
    }
}

/// A yes/no switch. `refuse_yes`: why this build can't switch it on.
pub(super) struct BoolRule {
    pub refuse_yes: Option<&'static str>,
}

pub(super) const SWITCH: BoolRule = BoolRule { refuse_yes: None };

impl Setting for bool {
    type Rule = BoolRule;

    fn assign(&mut self, rule: &BoolRule, args: &[&[u8]], _: Source) -> Result<(), Fault> {
        let arg = single(args)?;
        let value = if arg.eq_ignore_ascii_case(b"yes") {
            true
        } else if arg.eq_ignore_ascii_case(b"no") {
            false
        } else {
            return Err(Fault::Borrowed("argument must be 'yes' or 'no'"));
        };
        if let (true, Some(why)) = (value, rule.refuse_yes) {
            return Err(Fault::Borrowed(why));
        }
        *self = value;
        Ok(())
    }

    fn show(&self) -> Vec<u8> {
        if *self { b"yes".to_vec() } else { b"no".to_vec() }
    }

    fn lines(&self, _: &BoolRule) -> Vec<Vec<u8>> {
        vec![self.show()]
    }
}

/// How a number is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Plain,
    /// Bytes, with `k`, `kb`, `m`, `mb`, `g`, `gb` behind them.
    Memory,
    /// The same, or a percentage of the memory that the process may use.
    MemoryShare,
}

/// Limits of a number, both inclusive. `settle` may move an accepted value or refuse it for another reason.
pub(super) struct NumberRule {
    pub unit: Unit,
    pub min: i128,
    pub max: i128,
    pub settle: fn(i128) -> Result<i128, &'static str>,
}

pub(super) const I32_MAX: i128 = i32::MAX as i128;
pub(super) const I64_MAX: i128 = i64::MAX as i128;

/// A whole number in `min..=max`.
pub(super) const fn int(min: i128, max: i128) -> NumberRule {
    NumberRule { unit: Unit::Plain, min, max, settle: Ok }
}

/// A number of bytes in `min..=max`.
pub(super) const fn mem(min: i128, max: i128) -> NumberRule {
    NumberRule { unit: Unit::Memory, min, max, settle: Ok }
}

/// A number of bytes, or a percentage of the cgroup's limit (of the machine's memory where there is none).
pub(super) const fn mem_share() -> NumberRule {
    NumberRule { unit: Unit::MemoryShare, min: 0, max: u64::MAX as i128, settle: Ok }
}

/// So many percent of the memory that the process may use; `None`: not a percentage.
fn share_of_memory(arg: &[u8]) -> Option<u64> {
    let percent = parse_i64(arg.strip_suffix(b"%")?).filter(|percent| (1..=100).contains(percent))?;
    let whole = cgroup::memory_limit().unwrap_or_else(usage::total_memory);
    u64::try_from(u128::from(whole) * percent as u128 / 100).ok()
}

/// A whole number in `min..=max` that `settle` has the last word on.
pub(super) const fn settled(rule: NumberRule, settle: fn(i128) -> Result<i128, &'static str>) -> NumberRule {
    NumberRule { unit: rule.unit, min: rule.min, max: rule.max, settle }
}

impl NumberRule {
    fn read(&self, arg: &[u8]) -> Result<i128, Fault> {
        let value =
            match self.unit {
                Unit::Plain => i128::from(
                    parse_i64(arg).ok_or(Fault::Borrowed("argument couldn't be parsed into an integer"))?,
                ),
                // A directive with a negative limit takes plain negative numbers beside memory sizes.
                Unit::MemoryShare if arg.ends_with(b"%") => i128::from(share_of_memory(arg).ok_or(
                    Fault::Borrowed("argument must be a memory value or a percentage from 1% to 100%"),
                )?),
                Unit::Memory | Unit::MemoryShare => match parse_memory(arg) {
                    Some(bytes) => i128::from(bytes),
                    None if self.min < 0 => parse_i64(arg)
                        .map(i128::from)
                        .ok_or(Fault::Borrowed("argument must be a memory value"))?,
                    None => return Err(Fault::Borrowed("argument must be a memory value")),
                },
            };
        if value < self.min || value > self.max {
            return Err(format!("argument must be between {} and {} inclusive", self.min, self.max).into());
        }
        (self.settle)(value).map_err(Fault::Borrowed)
    }

    fn line(&self, value: i128) -> Vec<u8> {
        match (self.unit, u64::try_from(value)) {
            (Unit::Memory | Unit::MemoryShare, Ok(bytes)) => memory_text(bytes),
            _ => value.to_string().into_bytes(),
        }
    }
}

macro_rules! number_setting {
    ($($ty:ty),*) => {$(
        impl Setting for $ty {
            type Rule = NumberRule;

            fn assign(&mut self, rule: &NumberRule, args: &[&[u8]], _: Source) -> Result<(), Fault> {
                let value = rule.read(single(args)?)?;
                // The table's limits lie within the field's type (a test walks them); this is the backstop.
                *self = <$ty>::try_from(value)
                    .map_err(|_| Fault::Borrowed("argument couldn't be parsed into an integer"))?;
                Ok(())
            }

            fn show(&self) -> Vec<u8> {
                self.to_string().into_bytes()
            }

            fn lines(&self, rule: &NumberRule) -> Vec<Vec<u8>> {
                vec![rule.line(i128::from(*self))]
            }
        }
    )*};
}
number_setting!(u16, i32, u32, u64, i64);

/// Text. An empty value of a `nullable` directive means "not set", and CONFIG REWRITE leaves it out.
pub(super) struct TextRule {
    pub nullable: bool,
    pub check: fn(&[u8]) -> Result<(), &'static str>,
}

/// Text whose empty value means "not set".
pub(super) const OPTIONAL: TextRule = TextRule { nullable: true, check: |_| Ok(()) };
/// Text that is always written out.
pub(super) const TEXT: TextRule = TextRule { nullable: false, check: |_| Ok(()) };

/// Text that must pass `check`.
pub(super) const fn checked(nullable: bool, check: fn(&[u8]) -> Result<(), &'static str>) -> TextRule {
    TextRule { nullable, check }
}

impl Setting for Vec<u8> {
    type Rule = TextRule;

    fn assign(&mut self, rule: &TextRule, args: &[&[u8]], _: Source) -> Result<(), Fault> {
        let arg = single(args)?;
        (rule.check)(arg).map_err(Fault::Borrowed)?;
        *self = arg.to_vec();
        Ok(())
    }

    fn show(&self) -> Vec<u8> {
        self.clone()
    }

    fn lines(&self, rule: &TextRule) -> Vec<Vec<u8>> {
        if rule.nullable && self.is_empty() { Vec::new() } else { vec![quoted(self)] }
    }
}

/// A number the way C's `strtoll` takes it when nothing may follow: blanks and a sign before the digits, leading
/// zeros, no digits at all meaning 0, and saturation instead of overflow.
pub(super) fn loose_i64(text: &[u8]) -> Option<i64> {
    if text.is_empty() {
        return Some(0);
    }
    let text = text.trim_ascii_start();
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut value: i64 = 0;
    for &digit in digits {
        let digit = i64::from(digit - b'0');
        value = value.saturating_mul(10);
        value = if negative { value.saturating_sub(digit) } else { value.saturating_add(digit) };
    }
    Some(value)
}

/// `text` in double quotes, as a line of the file holds it.
pub(super) fn quoted(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    push_quoted(&mut out, text);
    out
}

/// Bytes in the largest binary unit that divides them, as CONFIG REWRITE writes them.
pub(super) fn memory_text(bytes: u64) -> Vec<u8> {
    for (shift, suffix) in [(30, "gb"), (20, "mb"), (10, "kb")] {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{suffix}", bytes >> shift).into_bytes();
        }
    }
    bytes.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_sizes() {
        for (bytes, want) in [
            (0, "0"),
            (4096, "4kb"),
            (1_024_000, "1000kb"),
            (1_000_000, "1000000"),
            (1 << 30, "1gb"),
            (3 << 20, "3mb"),
        ] {
            assert_eq!(memory_text(bytes), want.as_bytes());
        }
    }

    #[test]
    fn loose_numbers() {
        for (text, want) in [
            ("", Some(0)),
            ("+5", Some(5)),
            ("05", Some(5)),
            (" 5", Some(5)),
            ("-3", Some(-3)),
            ("9223372036854775808", Some(i64::MAX)),
            ("5x", None),
            ("-", None),
            (" ", None),
        ] {
            assert_eq!(loose_i64(text.as_bytes()), want, "{text:?}");
        }
    }
}
