//! Command lines as users type them: words, quotes, and what a word can't be.

use kara_base::text;

/// The words of a line, unquoted; `None` where a quote isn't closed or something sticks to a closing one.
pub fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    if !quotes_end_words(line) {
        return None;
    }
    text::split_args(line).ok()
}

/// One quoted (or bare) word; `None` where it is no word or several.
pub fn unquote(word: &[u8]) -> Option<Vec<u8>> {
    let mut words = split(word)?;
    if words.len() == 1 { words.pop() } else { None }
}

/// The server's inline commands take `"a"b` as one word; on a prompt it is more likely a mistake.
fn quotes_end_words(line: &[u8]) -> bool {
    let mut rest = line;
    let mut open: Option<u8> = None;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match open {
            Some(quote) => match (*byte, tail) {
                (b'\\', [_, after @ ..]) if quote == b'"' => rest = after,
                (b'\\', [b'\'', after @ ..]) => rest = after,
                (byte, _) if byte == quote => {
                    open = None;
                    if tail.first().is_some_and(|next| !next.is_ascii_whitespace()) {
                        return false;
                    }
                }
                _ => {}
            },
            None if matches!(byte, b'"' | b'\'') => open = Some(*byte),
            None => {}
        }
    }
    open.is_none()
}

/// The leading number of a word as C's atoi reads it: blanks, a sign, digits; 0 where there is none.
pub fn leading_number(word: &[u8]) -> i64 {
    let word = word.trim_ascii_start();
    let (negative, digits) = match word {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, word),
    };
    let mut number: i64 = 0;
    for digit in digits.iter().take_while(|byte| byte.is_ascii_digit()) {
        number = number.saturating_mul(10).saturating_add(i64::from(digit - b'0'));
    }
    if negative { -number } else { number }
}

/// The leading decimal number of a word as C's atof reads it.
pub fn leading_decimal(word: &[u8]) -> Option<f64> {
    let text = String::from_utf8_lossy(word.trim_ascii_start()).into_owned();
    (1..=text.len()).rev().filter_map(|end| text.get(..end)).find_map(|head| head.parse::<f64>().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let split = |line: &str| split(line.as_bytes());
        assert_eq!(split("get a"), Some(vec![b"get".to_vec(), b"a".to_vec()]));
        assert_eq!(
            split(r#"set "a b\"" '\''"#),
            Some(vec![b"set".to_vec(), b"a b\"".to_vec(), b"'".to_vec()])
        );
        assert_eq!(split(r#"key"" x"#), Some(vec![b"key".to_vec(), b"x".to_vec()]));
        for wrong in [r#"get ""key"#, r#"get "key"x"#, "get \"key", "get 'a'b"] {
            assert_eq!(split(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(leading_number(b" -12x"), -12);
        assert_eq!(leading_number(b"x"), 0);
        assert_eq!(leading_decimal(b"0.5s"), Some(0.5));
        assert_eq!(leading_decimal(b"s"), None);
    }
}
