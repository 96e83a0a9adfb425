//! What may follow in a half-typed command: the words are matched against the command's arguments, and what isn't
//! matched yet is written out.

use super::docs::{Arg, Docs, Entry};
use super::words::split;
use kara_engine::spec::ArgKind;

/// An argument and how much of it has been typed.
struct Slot<'a> {
    arg: &'a Arg,
    inner: Vec<Slot<'a>>,
    /// Words that fitted; zero: not begun.
    words: usize,
    token: bool,
    value: bool,
    /// Nothing of it is missing.
    whole: bool,
}

impl<'a> Slot<'a> {
    fn new(arg: &'a Arg) -> Self {
        let inner = arg.args.iter().map(Slot::new).collect();
        Slot { arg, inner, words: 0, token: false, value: false, whole: false }
    }

    fn clear(&mut self) {
        (self.words, self.token, self.value, self.whole) = (0, false, false, false);
        self.inner.iter_mut().for_each(Slot::clear);
    }

    /// How many of the words belong to this argument, repetitions included.
    fn take(&mut self, words: &[Vec<u8>]) -> usize {
        let first = self.take_once(words);
        if !self.arg.multiple {
            return first;
        }
        let mut taken = first;
        while self.whole && taken < words.len() {
            self.clear();
            let rest = words.get(taken..).unwrap_or_default();
            taken += if self.arg.token.is_some() && !self.arg.multiple_token {
                // Its token stands only in front of the first.
                let more = self.take_value(rest);
                self.token = self.words > 0;
                more
            } else {
                self.take_once(rest)
            };
        }
        // More may always follow.
        self.whole = false;
        taken
    }

    fn take_once(&mut self, words: &[Vec<u8>]) -> usize {
        let mut rest = words;
        if let Some(token) = &self.arg.token {
            match rest.split_first() {
                Some((word, after)) if word.eq_ignore_ascii_case(token.as_bytes()) => rest = after,
                _ => return 0,
            }
            (self.token, self.words) = (true, 1);
            if self.arg.kind == ArgKind::PureToken {
                self.whole = true;
                return 1;
            }
            if rest.is_empty() {
                return 1;
            }
        }
        if self.take_value(rest) == 0 { 0 } else { self.words }
    }

    /// The argument without its token.
    fn take_value(&mut self, words: &[Vec<u8>]) -> usize {
        let fits = |word: &[u8]| match self.arg.kind {
            ArgKind::Integer | ArgKind::UnixTime => begins_with_number(word, false),
            ArgKind::Double => begins_with_number(word, true),
            _ => true,
        };
        match self.arg.kind {
            ArgKind::Block => {
                self.words += take_all(&mut self.inner, words);
                self.whole = self.inner.iter().all(|slot| slot.whole);
            }
            ArgKind::Oneof => {
                for slot in &mut self.inner {
                    if slot.take(words) > 0 {
                        self.words += slot.words;
                        self.whole = slot.whole;
                        break;
                    }
                }
            }
            _ if words.first().is_some_and(|word| fits(word)) => {
                self.words += 1;
                (self.value, self.whole) = (true, true);
            }
            // The wrong kind of word: the argument isn't there, not even its token.
            _ => (self.words, self.value) = (0, false),
        }
        self.words
    }

    fn write(&mut self, out: &mut String) {
        if self.whole {
            return;
        }
        if self.arg.optional && self.words == 0 {
            out.push('[');
        }
        if let Some(token) = &self.arg.token
            && !self.token
        {
            out.push_str(shown(token));
            if self.arg.kind != ArgKind::PureToken {
                out.push(' ');
            }
        }
        match self.arg.kind {
            ArgKind::Oneof if self.words > 0 => {
                self.inner.iter_mut().filter(|slot| slot.words > 0).for_each(|slot| slot.write(out));
            }
            ArgKind::Oneof => write_all(&mut self.inner, out, "|"),
            ArgKind::Block => write_all(&mut self.inner, out, " "),
            ArgKind::PureToken => {}
            _ if self.value => {}
            _ => out.push_str(shown(&self.arg.text)),
        }
        if self.arg.multiple {
            self.write_repetition(out);
        }
        // Asked again: a repetition was written as if nothing had been typed. So the reference's hint of a repeated
        // optional argument ends with one bracket too many, and scripts that read hints know it so.
        if self.arg.optional && self.words == 0 {
            out.push(']');
        }
    }

    /// `[key ...]`: always the whole of it.
    fn write_repetition(&mut self, out: &mut String) {
        self.clear();
        if !out.is_empty() {
            out.push(' ');
        }
        out.push('[');
        if let Some(token) = &self.arg.token
            && self.arg.multiple_token
        {
            out.push_str(shown(token));
            if self.arg.kind != ArgKind::PureToken {
                out.push(' ');
            }
        }
        match self.arg.kind {
            ArgKind::Oneof => write_all(&mut self.inner, out, "|"),
            ArgKind::Block => write_all(&mut self.inner, out, " "),
            ArgKind::PureToken => {}
            _ => out.push_str(shown(&self.arg.text)),
        }
        out.push_str(" ...]");
    }
}

fn shown(text: &str) -> &str {
    if text.is_empty() { "\"\"" } else { text }
}

/// As C's scanf reads a number: what follows it doesn't matter.
fn begins_with_number(word: &[u8], fraction: bool) -> bool {
    let word = word.trim_ascii_start();
    let digits = word.strip_prefix(b"-").or_else(|| word.strip_prefix(b"+")).unwrap_or(word);
    let special = || {
        let lower = digits.to_ascii_lowercase();
        lower.starts_with(b"inf") || lower.starts_with(b"nan")
    };
    match digits {
        [first, ..] if first.is_ascii_digit() => true,
        [b'.', second, ..] => fraction && second.is_ascii_digit(),
        _ => fraction && special(),
    }
}

/// Where the group of optional arguments that begins at `from` ends: they may come in any order.
fn optional_end(slots: &[Slot<'_>], from: usize) -> usize {
    let count = slots.iter().skip(from).take_while(|slot| slot.arg.optional).count();
    from + count
}

fn take_all(slots: &mut [Slot<'_>], words: &[Vec<u8>]) -> usize {
    let (mut taken, mut at) = (0, 0);
    while taken < words.len() && at < slots.len() {
        let rest = words.get(taken..).unwrap_or_default();
        let end = optional_end(slots, at);
        if end > at {
            taken += take_optional(&mut slots[at..end], rest);
            at = end;
        } else {
            let more = slots[at].take(rest);
            if more == 0 {
                return 0;
            }
            taken += more;
            at += 1;
        }
    }
    taken
}

fn take_optional(slots: &mut [Slot<'_>], words: &[Vec<u8>]) -> usize {
    let mut taken = 0;
    let mut before: Option<usize> = None;
    while taken < words.len() {
        let rest = words.get(taken..).unwrap_or_default();
        let begun = (0..slots.len()).find_map(|at| {
            if slots[at].words > 0 {
                return None;
            }
            let more = slots[at].take(rest);
            (more > 0).then_some((at, more))
        });
        let Some((at, more)) = begun else { break };
        // Whoever begins the next one is done with this one.
        if let Some(before) = before {
            slots[before].whole = true;
        }
        before = Some(at);
        taken += more;
    }
    taken
}

fn write_all(slots: &mut [Slot<'_>], out: &mut String, separator: &str) {
    let mut at = 0;
    let begin = out.len();
    let add = |slot: &mut Slot<'_>, out: &mut String| {
        let before = out.len();
        let mut part = String::new();
        slot.write(&mut part);
        if part.is_empty() {
            return;
        }
        if before > begin {
            out.push_str(separator);
        }
        out.push_str(&part);
    };
    while at < slots.len() {
        let end = optional_end(slots, at);
        if end == at {
            add(&mut slots[at], out);
            at += 1;
            continue;
        }
        // One that was begun comes first; the others only where nothing behind them was typed.
        let passed = slots.get(end).is_some_and(|slot| slot.words > 0);
        let is_begun = |slot: &Slot<'_>| slot.words > 0 && !slot.whole;
        let begun: Vec<usize> = (at..end).filter(|index| is_begun(&slots[*index])).collect();
        for index in &begun {
            add(&mut slots[*index], out);
        }
        for index in (at..end).filter(|index| !passed && !begun.contains(index)) {
            add(&mut slots[index], out);
        }
        at = end;
    }
}

/// The whole synopsis of a command's arguments.
pub fn synopsis(entry: &Entry) -> String {
    let mut out = String::new();
    write_all(&mut entry.args.iter().map(Slot::new).collect::<Vec<_>>(), &mut out, " ");
    out
}

/// The hint behind a half-typed line; `None` where it begins with no known command.
pub fn hint(docs: &Docs, line: &[u8]) -> Option<String> {
    let mut words = split(line)?;
    // A word counts once a blank follows it.
    if !line.last().is_some_and(u8::is_ascii_whitespace) {
        words.pop();
    }
    let entry = docs.find(&words)?;
    let typed = words.get(entry.words.len()..).unwrap_or_default();
    let mut slots: Vec<Slot<'_>> = entry.args.iter().map(Slot::new).collect();
    let mut out = String::new();
    if take_all(&mut slots, typed) == typed.len() {
        write_all(&mut slots, &mut out, " ");
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints() {
        let docs = Docs::own(None);
        for (line, wanted) in [
            ("GET ", "key"),
            ("GET abc ", ""),
            ("LPOP key ", "[count]"),
            ("XRANGE k 4 2 COUNT ", "count"),
            ("BITFIELD_RO k ", "[GET encoding offset [GET encoding offset ...]]"),
            ("BITFIELD_RO k GET xyz ", "offset [GET encoding offset ...]]"),
            ("CONFIG SET param val ", "[parameter value ...]"),
            ("ZRANDMEMBER k 3 ", "[WITHSCORES]"),
            ("ZRANDMEMBER k cnt ", ""),
            ("MGET k k ", "[key ...]"),
            ("SCAN 2 COUNT ", "count [MATCH pattern] [TYPE type]"),
            ("BLMOVE src dst LEFT ", "LEFT|RIGHT timeout"),
            ("ZRANGE k 1 2 bylex rev ", "[LIMIT offset count] [WITHSCORES]"),
            ("ZADD key CH LT ", "[NX|XX] [INCR] score member [score member ...]"),
            ("ZADD key 0 ", "member [score member ...]"),
            ("GEORADIUS key 1 X ", ""),
            (
                "GEORADIUS key 1 2 3 M COUNT 12 ASC ",
                "[WITHCOORD] [WITHDIST] [WITHHASH] [STORE key|STOREDIST key]",
            ),
        ] {
            assert_eq!(hint(&docs, line.as_bytes()).as_deref(), Some(wanted), "{line}");
        }
        assert_eq!(hint(&docs, b"nonsense "), None);
        assert_eq!(hint(&docs, b"GE"), None);
    }
}
