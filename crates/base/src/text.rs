//! Text as users type and read it: splitting of quoted argument lines (inline requests, configuration
//! files) and the printable form of arbitrary bytes. Knows nothing of what the arguments mean.

/// A quote was opened and never closed, or a line ended inside an escape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnbalancedQuotes;

impl std::fmt::Display for UnbalancedQuotes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("unbalanced quotes")
    }
}

impl std::error::Error for UnbalancedQuotes {}

/// What ends an argument outside of quotes. Vertical tab and form feed don't.
#[inline]
fn is_separator(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0)
}

/// Splits `line` into arguments, appending their unquoted bytes to `arena` and each one's `(start, end)`
/// within `arena` to `ranges`.
///
/// Quotes work as in a shell, also in the middle of an argument (`a"b c"d` is one). Inside double quotes
/// `\n \r \t \b \a` and `\xHH` are escapes and any other escaped byte stands for itself; inside single
/// quotes only `\'` is one; outside of quotes a backslash is an ordinary byte. As in the reference, a
/// backslash followed by nothing but the line's last byte is an ordinary byte, so that `"C:\"` closes.
pub fn split_args_into(
    line: &[u8],
    arena: &mut Vec<u8>,
    ranges: &mut Vec<(usize, usize)>,
) -> Result<(), UnbalancedQuotes> {
    let mut rest = line;
    loop {
        let skip = rest.iter().position(|&b| !is_separator(b)).unwrap_or(rest.len());
        rest = rest.get(skip..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        let start = arena.len();
        rest = one_arg(rest, arena)?;
        ranges.push((start, arena.len()));
    }
}

/// Appends the argument at the head of `rest` and returns what follows it.
fn one_arg<'a>(mut rest: &'a [u8], arena: &mut Vec<u8>) -> Result<&'a [u8], UnbalancedQuotes> {
    loop {
        match rest {
            [b'"', tail @ ..] => rest = double_quoted(tail, arena)?,
            [b'\'', tail @ ..] => rest = single_quoted(tail, arena)?,
            [byte, tail @ ..] if !is_separator(*byte) => {
                arena.push(*byte);
                rest = tail;
            }
            _ => return Ok(rest),
        }
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], arena: &mut Vec<u8>) -> Result<&'a [u8], UnbalancedQuotes> {
    loop {
        match rest {
            [] => return Err(UnbalancedQuotes),
            [b'"', tail @ ..] => return Ok(tail),
            [b'\\', b'x', high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                arena.push(hex_value(*high) << 4 | hex_value(*low));
                rest = tail;
            }
            [b'\\', escaped, tail @ ..] if !tail.is_empty() => {
                arena.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                rest = tail;
            }
            [byte, tail @ ..] => {
                arena.push(*byte);
                rest = tail;
            }
        }
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], arena: &mut Vec<u8>) -> Result<&'a [u8], UnbalancedQuotes> {
    loop {
        match rest {
            [] => return Err(UnbalancedQuotes),
            [b'\'', tail @ ..] => return Ok(tail),
            [b'\\', b'\'', tail @ ..] if !tail.is_empty() => {
                arena.push(b'\'');
                rest = tail;
            }
            [byte, tail @ ..] => {
                arena.push(*byte);
                rest = tail;
            }
        }
    }
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

/// [`split_args_into`] with each argument in its own vector, for lines that are not hot.
pub fn split_args(line: &[u8]) -> Result<Vec<Vec<u8>>, UnbalancedQuotes> {
    let (mut arena, mut ranges) = (Vec::new(), Vec::new());
    split_args_into(line, &mut arena, &mut ranges)?;
    Ok(ranges.iter().map(|&(start, end)| arena[start..end].to_vec()).collect())
}

/// Appends `bytes` in double quotes, every byte that isn't printable ASCII escaped: the form used by MONITOR,
/// by logs and by CONFIG REWRITE. [`split_args`] gives the bytes back.
pub fn push_quoted(out: &mut Vec<u8>, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for &byte in bytes {
        match byte {
            b'\\' | b'"' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            7 => out.extend_from_slice(b"\\a"),
            8 => out.extend_from_slice(b"\\b"),
            b' '..=b'~' => out.push(byte),
            _ => out.extend_from_slice(&[
                b'\\',
                b'x',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]),
        }
    }
    out.push(b'"');
}

/// [`push_quoted`] as a string of its own.
pub fn quoted(bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(bytes.len() + 2);
    push_quoted(&mut out, bytes);
    String::from_utf8_lossy(&out).into_owned()
}

/// True when [`push_quoted`] would have to escape something or `bytes` would not survive as one bare word of a
/// configuration line.
pub fn needs_quotes(bytes: &[u8]) -> bool {
    bytes.is_empty()
        || bytes.iter().any(|&b| matches!(b, b' ' | b'\\' | b'"' | b'\'') || !matches!(b, b'!'..=b'~'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(line: &str) -> Option<Vec<String>> {
        let args = split_args(line.as_bytes()).ok()?;
        Some(args.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect())
    }

    #[test]
    fn answers_of_the_reference() {
        let cases: &[(&str, Option<&[&str]>)] = &[
            ("", Some(&[])),
            ("  \t\r ", Some(&[])),
            ("set \"\"\"test-key\"\"\" v", Some(&["set", "test-key", "v"])),
            ("a \"\" ''", Some(&["a", "", ""])),
            ("\"a\\x41\\n\\q\"", Some(&["aA\nq"])),
            ("'a\\'b\\n'", Some(&["a'b\\n"])),
            ("a\"b c\"d", Some(&["ab cd"])),
            ("\"a\"'b'c", Some(&["abc"])),
            ("\"a\\a\\b\\t\\r\\n\\e\\0\"", Some(&["a\x07\x08\t\r\ne0"])),
            ("\"\\x4\" \"\\xZZ\" \"\\X41\"", Some(&["x4", "xZZ", "X41"])),
            ("\\x41 ab\\", Some(&["\\x41", "ab\\"])),
            ("a\rb c\x0bd", Some(&["a", "b", "c\x0bd"])),
            ("\"a\\\"b\"", Some(&["a\"b"])),
            ("\"a\\\"", Some(&["a\\"])),
            ("'a\\'", Some(&["a\\"])),
            ("\"a\\\\\\\"", Some(&["a\\\\"])),
            ("\"a\\\" ", None),
            ("\"a\\\"b", None),
            ("\"a\\", None),
            ("\"abc", None),
            ("'abc", None),
            ("a\\\"b", None),
            ("a'", None),
        ];
        for (line, expected) in cases {
            let expected = expected.map(|args| args.iter().map(|arg| arg.to_string()).collect::<Vec<_>>());
            assert_eq!(split(line), expected, "{line:?}");
        }
    }

    #[test]
    fn quoting_escapes_what_does_not_print() {
        assert_eq!(quoted(b"a b\"\\\n\r\t\x07\x08\x00\x7f\xff"), r#""a b\"\\\n\r\t\a\b\x00\x7f\xff""#);
        assert!(needs_quotes(b"") && needs_quotes(b"a b") && needs_quotes(b"\xc3\xa9"));
        assert!(!needs_quotes(b"allkeys-lru"));
    }

    proptest! {
        #[test]
        fn quoted_lines_split_back(args in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..6)) {
            let mut line = Vec::new();
            for arg in &args {
                push_quoted(&mut line, arg);
                line.push(b' ');
            }
            prop_assert_eq!(split_args(&line).unwrap(), args);
        }

        #[test]
        fn any_line_is_split_or_refused(line in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(args) = split_args(&line) {
                prop_assert!(args.iter().map(Vec::len).sum::<usize>() <= line.len());
            }
        }
    }
}
