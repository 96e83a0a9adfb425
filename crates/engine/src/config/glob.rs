//! Shell patterns for directive names and included files: `*`, `?`, `[a-z]`, `[^a]`, `\` before a byte.
//!
//! Two cursors and one restart point: linear space, at most pattern times text steps, no recursion.

/// Whether letters match in any case.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    Exact,
    Ignore,
}

pub(super) fn matches(pattern: &[u8], text: &[u8], case: Case) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut restart: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            restart = Some((p, t));
            continue;
        }
        let step = match (text.get(t), p < pattern.len()) {
            (None, false) => return true,
            (Some(byte), true) => one(pattern, p, *byte, case),
            _ => None,
        };
        match (step, restart) {
            (Some(next), _) => {
                p = next;
                t += 1;
            }
            // The last star takes one byte more.
            (None, Some((star, taken))) if taken < text.len() => {
                p = star;
                t = taken + 1;
                restart = Some((star, taken + 1));
            }
            _ => return false,
        }
    }
}

/// Matches one byte against the element at `p`; gives the place behind that element.
fn one(pattern: &[u8], p: usize, byte: u8, case: Case) -> Option<usize> {
    let same = |a: u8, b: u8| a == b || (case == Case::Ignore && a.eq_ignore_ascii_case(&b));
    match pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => set(pattern, p + 1, byte, case),
        b'\\' if p + 1 < pattern.len() => same(pattern[p + 1], byte).then_some(p + 2),
        literal => same(*literal, byte).then_some(p + 1),
    }
}

fn set(pattern: &[u8], mut p: usize, byte: u8, case: Case) -> Option<usize> {
    let fold = |b: u8| if case == Case::Ignore { b.to_ascii_lowercase() } else { b };
    let negated = pattern.get(p) == Some(&b'^');
    p += usize::from(negated);
    let mut hit = false;
    loop {
        match (pattern.get(p), pattern.get(p + 1), pattern.get(p + 2)) {
            (None, ..) => break,
            (Some(b']'), ..) => {
                p += 1;
                break;
            }
            (Some(b'\\'), Some(literal), _) => {
                hit |= fold(*literal) == fold(byte);
                p += 2;
            }
            (Some(low), Some(b'-'), Some(high)) => {
                let (low, high) = (fold(*low), fold(*high));
                hit |= (low.min(high)..=low.max(high)).contains(&fold(byte));
                p += 3;
            }
            (Some(literal), ..) => {
                hit |= fold(*literal) == fold(byte);
                p += 1;
            }
        }
    }
    (hit != negated).then_some(p)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, want) in [
            ("*", "anything", true),
            ("max*", "maxmemory", true),
            ("*max-zip*", "hash-max-ziplist-value", true),
            ("[a-b]*", "bind", true),
            ("[^a-b]*", "bind", false),
            ("MAX?emory", "maxmemory", true),
            ("a\\*", "a*", true),
            ("a*b*c", "axxbxxd", false),
            ("[", "a", false),
            ("", "", true),
            ("", "a", false),
            ("a*", "", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes(), Case::Ignore), want, "{pattern} {text}");
        }
        assert!(!matches(b"A", b"a", Case::Exact));
        // Exponential in a naive matcher.
        let pattern = b"a*".repeat(40);
        assert!(!matches(&[&pattern[..], b"b"].concat(), &b"a".repeat(200), Case::Exact));
    }
}
