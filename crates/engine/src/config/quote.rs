//! Words and quotes of a configuration line: `name "a b" 'c'`, and the printed form that reads back the same.

/// Splits a line into words. Double quotes know `\n \r \t \b \a \xHH` and `\` before any other byte; single
/// quotes only `\'`. None: a quote is open at the end, or a closing quote is followed by something other than a blank.
pub fn split_words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        let start = rest.iter().position(|byte| !is_blank(*byte)).unwrap_or(rest.len());
        rest = &rest[start..];
        // A NUL ends the line, as in every C string of the reference's files.
        if rest.is_empty() || rest[0] == 0 {
            return Some(words);
        }
        let (word, after) = next_word(rest)?;
        words.push(word);
        rest = after;
    }
}

fn next_word(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    while let Some((&byte, after)) = rest.split_first() {
        match byte {
            0 => break,
            blank if is_blank(blank) => break,
            b'"' => {
                rest = double_quoted(after, &mut word)?;
                return ended(rest).then_some((word, rest));
            }
            b'\'' => {
                rest = single_quoted(after, &mut word)?;
                return ended(rest).then_some((word, rest));
            }
            _ => {
                word.push(byte);
                rest = after;
            }
        }
    }
    Some((word, rest))
}

/// C's `isspace`: the vertical tab counts, which Rust's ASCII white space leaves out.
fn is_blank(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

/// Whether nothing but a blank follows a closing quote.
fn ended(rest: &[u8]) -> bool {
    rest.first().is_none_or(|byte| is_blank(*byte) || *byte == 0)
}

fn double_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [] | [0, ..] => return None,
            [b'"', after @ ..] => return Some(after),
            [b'\\', b'x', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                word.push(hex_value(*high) << 4 | hex_value(*low));
                after
            }
            [b'\\', escaped, after @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                after
            }
            [byte, after @ ..] => {
                word.push(*byte);
                after
            }
        };
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [] | [0, ..] => return None,
            [b'\'', after @ ..] => return Some(after),
            [b'\\', b'\'', after @ ..] => {
                word.push(b'\'');
                after
            }
            [byte, after @ ..] => {
                word.push(*byte);
                after
            }
        };
    }
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A') + 10,
    }
}

/// `text` in double quotes, every byte that isn't printable ASCII escaped: `split_words` reads it back.
pub fn quoted(text: &[u8]) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut out = Vec::with_capacity(text.len() + 2);
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x07 => out.extend_from_slice(b"\\a"),
            0x08 => out.extend_from_slice(b"\\b"),
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
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(line: &str) -> Option<Vec<String>> {
        split_words(line.as_bytes())
            .map(|words| words.iter().map(|w| String::from_utf8_lossy(w).into_owned()).collect())
    }

    #[test]
    fn quoting() {
        assert_eq!(words("a  b\tc").unwrap(), ["a", "b", "c"]);
        assert_eq!(words("a \"b c\" 'd \\' e'").unwrap(), ["a", "b c", "d ' e"]);
        assert_eq!(words(r#"a "\x41\n\q""#).unwrap(), ["a", "A\nq"]);
        assert_eq!(words("a ''").unwrap(), ["a", ""]);
        assert_eq!(words("x\"a\"").unwrap(), ["xa"]);
        for open in ["'a", "\"a", "'a'b", "\"a\"b", "\"a\\"] {
            assert_eq!(words(open), None, "{open}");
        }
    }

    proptest! {
        #[test]
        fn quoted_text_reads_back(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(split_words(&quoted(&text)), Some(vec![text]));
        }

        #[test]
        fn any_line_is_split_or_refused(line in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = split_words(&line);
        }
    }
}
