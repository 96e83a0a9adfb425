//! Patterns of KEYS, PSUBSCRIBE, CONFIG GET and ACL: `*`, `?`, `[a-c]`, `[^x]` and `\`, on bytes.
//!
//! One loop that only ever goes back to the last star: at worst pattern length times text length steps, and no
//! recursion, whatever the number of stars.

/// Whether letters of either case match each other (ASCII only).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    Sensitive,
    Insensitive,
}

/// A pattern matches nothing through more separate stars than this: the reference's bound on its recursion, which
/// users can see.
const MAX_STARS: usize = 1000;

/// True when all of `text` matches `pattern`. Every pattern means something: an unclosed class ends with the
/// pattern, a backslash at the end stands for itself, `[]` matches nothing and `[^]` any byte. Nothing but the
/// empty pattern matches the empty text, not even `*`: KEYS and SCAN know a lone star as "all" by themselves.
pub fn matches(pattern: &[u8], text: &[u8], case: Case) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    let (mut p, mut t) = (0, 0);
    // Behind the last star seen, and how much of the text that star has been given so far.
    let mut retry: Option<(usize, usize)> = None;
    let mut stars = 0;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            while pattern.get(p) == Some(&b'*') {
                p += 1;
            }
            if p == pattern.len() {
                return true;
            }
            stars += 1;
            if stars > MAX_STARS {
                return false;
            }
            retry = Some((p, t));
            continue;
        }
        if let Some(next) = step(pattern, p, text[t], case) {
            (p, t) = (next, t + 1);
            continue;
        }
        let Some((after_star, given)) = retry else { return false };
        let Some(skipped) = next_candidate(pattern, after_star, &text[given + 1..], case) else {
            return false;
        };
        let given = given + 1 + skipped;
        retry = Some((after_star, given));
        (p, t) = (after_star, given);
    }
    pattern[p..].iter().all(|&b| b == b'*')
}

/// How far into `rest` the next byte lies that the element at `p` may match; None if there is none.
#[inline]
fn next_candidate(pattern: &[u8], p: usize, rest: &[u8], case: Case) -> Option<usize> {
    match pattern[p] {
        b'?' | b'[' | b'\\' => (!rest.is_empty()).then_some(0),
        literal if case == Case::Insensitive && literal.is_ascii_alphabetic() => {
            memchr::memchr2(literal.to_ascii_lowercase(), literal.to_ascii_uppercase(), rest)
        }
        literal => memchr::memchr(literal, rest),
    }
}

/// Matches one byte against the element at `p` (never a star) and returns where the next element begins.
#[inline]
fn step(pattern: &[u8], p: usize, byte: u8, case: Case) -> Option<usize> {
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => {
            let (found, next) = class(pattern, p + 1, byte, case);
            found.then_some(next)
        }
        b'\\' if p + 1 < pattern.len() => same(pattern[p + 1], byte, case).then_some(p + 2),
        literal => same(literal, byte, case).then_some(p + 1),
    }
}

#[inline]
fn same(a: u8, b: u8, case: Case) -> bool {
    a == b || (case == Case::Insensitive && a.eq_ignore_ascii_case(&b))
}

/// The class whose first byte after the bracket is at `p`: whether it has `byte`, and where it ends.
fn class(pattern: &[u8], mut p: usize, byte: u8, case: Case) -> (bool, usize) {
    let negated = pattern.get(p) == Some(&b'^');
    if negated {
        p += 1;
    }
    let fold = |b: u8| if case == Case::Insensitive { b.to_ascii_lowercase() } else { b };
    let byte = fold(byte);
    let mut found = false;
    loop {
        match pattern.get(p..).unwrap_or_default() {
            [b'\\', escaped, ..] => {
                found |= fold(*escaped) == byte;
                p += 2;
            }
            [b']', ..] => return (found != negated, p + 1),
            [first, b'-', last, ..] => {
                // Folded after they were ordered, as in the reference: `[Z-a]` without case is empty.
                let (low, high) = (fold(*first.min(last)), fold(*first.max(last)));
                found |= (low..=high).contains(&byte);
                p += 3;
            }
            [single, ..] => {
                found |= fold(*single) == byte;
                p += 1;
            }
            [] => return (found != negated, p),
        }
    }
}

/// The bytes that every match begins with: what stands before the first special byte. Lets a search over sorted
/// or hashed names skip most of them.
pub fn literal_prefix(pattern: &[u8]) -> &[u8] {
    let end = pattern.iter().position(|b| matches!(b, b'*' | b'?' | b'[' | b'\\')).unwrap_or(pattern.len());
    &pattern[..end]
}

/// True when only one text can match: the pattern has no special bytes.
pub fn is_literal(pattern: &[u8]) -> bool {
    literal_prefix(pattern).len() == pattern.len()
}

#[cfg(test)]
mod tests {
    #[test]
    fn stars_are_bounded_as_in_the_reference() {
        let text = vec![b'a'; 50_000];
        assert!(super::matches(&b"*?".repeat(1000), &text, super::Case::Sensitive));
        assert!(!super::matches(&b"*?".repeat(1001), &text, super::Case::Sensitive));
    }

    use super::*;
    use proptest::prelude::*;

    fn fits(pattern: &str, text: &str) -> bool {
        matches(pattern.as_bytes(), text.as_bytes(), Case::Sensitive)
    }

    /// Patterns and which of a set of names matched them on the reference (KEYS), all in hex, `-` for empty.
    #[test]
    fn answers_of_the_reference() {
        let unhex = |hex: &str| -> Vec<u8> {
            let digits = hex.as_bytes().chunks_exact(2);
            digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
        };
        let mut lines = include_str!("../testdata/glob.txt").lines();
        let names: Vec<Vec<u8>> = lines.next().unwrap().split(' ').map(unhex).collect();
        let mut rows = 0;
        for line in lines {
            let mut words = line.split(' ');
            let pattern = unhex(words.next().unwrap());
            let expected: Vec<Vec<u8>> = words.map(unhex).collect();
            for name in &names {
                assert_eq!(
                    matches(&pattern, name, Case::Sensitive),
                    expected.contains(name),
                    "{:?} on {:?}",
                    pattern.escape_ascii().to_string(),
                    name.escape_ascii().to_string()
                );
            }
            rows += 1;
        }
        assert!(rows > 300);
    }

    #[test]
    fn case_option() {
        for (pattern, expected) in [
            ("MAXMEMORY", true),
            ("Max[M-M]emory", true),
            ("max[L-N]emory", true),
            ("MAX[l-n]EM*", true),
            ("MAX\\MEMORY", true),
            ("*Y", true),
            ("max[^M]emory", false),
            ("max[Z-a]emory", false),
            ("max[a-Z]emory", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), b"maxmemory", Case::Insensitive), expected, "{pattern}");
        }
        assert!(!fits("MAXMEMORY", "maxmemory"));
    }

    #[test]
    fn empty_texts() {
        assert!(fits("", "") && !fits("*", "") && !fits("**", "") && !fits("?", "") && !fits("", "a"));
    }

    #[test]
    fn prefixes() {
        assert_eq!(literal_prefix(b"user:[a]*"), b"user:");
        assert!(is_literal(b"user:1") && !is_literal(b"user:?") && !is_literal(b"a\\b"));
    }

    /// S20: a hundred stars over a text that almost matches. Exponential or recursive matchers don't come back.
    #[test]
    fn many_stars_are_cheap() {
        let pattern = "a*".repeat(100) + "b";
        let text = "a".repeat(100_000);
        let start = std::time::Instant::now();
        assert!(!fits(&pattern, &text));
        assert!(!fits(&("[^b]*".repeat(100) + "b"), &text));
        assert!(fits(&pattern, &(text + "b")));
        assert!(start.elapsed().as_millis() < 2000, "{:?}", start.elapsed());
    }

    /// The definition, exponential and recursive.
    fn naive(pattern: &[u8], text: &[u8], case: Case) -> bool {
        match (pattern.first(), text.first()) {
            (None, _) => text.is_empty(),
            (Some(b'*'), _) => {
                naive(&pattern[1..], text, case)
                    || text.split_first().is_some_and(|(_, rest)| naive(pattern, rest, case))
            }
            (Some(_), None) => false,
            (Some(_), Some(&byte)) => {
                step(pattern, 0, byte, case).is_some_and(|next| naive(&pattern[next..], &text[1..], case))
            }
        }
    }

    proptest! {
        #[test]
        fn same_as_the_definition(pattern in "[ab*?^\\[\\]\\\\-]{0,8}", text in "[abAB]{1,8}", fold in any::<bool>()) {
            let case = if fold { Case::Insensitive } else { Case::Sensitive };
            prop_assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes(), case),
                naive(pattern.as_bytes(), text.as_bytes(), case)
            );
        }
    }
}
