//! Reading increments: commands as clients send them, with annotations between.

use crate::rdb::RdbError;
use crate::rdb::source::{Buffered, Source};
use std::io::Read;

/// Longest line of a head or an annotation.
const LINE_MAX: usize = 1024;
/// More words than any command has.
const WORDS_MAX: u64 = 1 << 24;

/// What is wrong with a log.
#[derive(Debug)]
pub enum AofFault {
    /// It ends in the middle of a command.
    Truncated,
    /// It isn't a command.
    Format,
    Io(std::io::Error),
}

impl From<RdbError> for AofFault {
    fn from(error: RdbError) -> Self {
        match error {
            RdbError::Truncated => AofFault::Truncated,
            RdbError::Io(error) => AofFault::Io(error),
            _ => AofFault::Format,
        }
    }
}

/// What stands next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// The words are in the buffer.
    Command,
    /// `#TS:` with its Unix seconds.
    Timestamp(i64),
    /// Another annotation.
    Annotation,
    End,
}

/// A log from its beginning, or from behind its RDB part.
pub struct CommandReader<R> {
    source: Buffered<R>,
    line: Vec<u8>,
    /// The words of the last command, one after the other, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl<R: Read> CommandReader<R> {
    pub fn new(source: Buffered<R>) -> Self {
        CommandReader { source, line: Vec::new(), bytes: Vec::new(), ends: Vec::new() }
    }

    /// Bytes read: the offset behind the last item.
    pub fn position(&self) -> u64 {
        self.source.position()
    }

    /// The words of the last command.
    pub fn args(&self) -> Vec<&[u8]> {
        let mut start = 0;
        let word = |&end: &usize| {
            let word = self.bytes.get(start..end).unwrap_or_default();
            start = end;
            word
        };
        self.ends.iter().map(word).collect()
    }

    fn read_line(&mut self) -> Result<(), AofFault> {
        self.line.clear();
        loop {
            match self.source.take(1)? {
                [b'\n'] => break,
                [byte] => self.line.push(*byte),
                _ => return Err(AofFault::Truncated),
            }
            if self.line.len() > LINE_MAX {
                return Err(AofFault::Format);
            }
        }
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        Ok(())
    }

    fn number(&mut self, mark: u8) -> Result<u64, AofFault> {
        self.read_line()?;
        match self.line.split_first() {
            Some((first, digits)) if *first == mark => std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| digits.parse().ok())
                .ok_or(AofFault::Format),
            _ => Err(AofFault::Format),
        }
    }

    /// Reads the next item.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Item, AofFault> {
        if self.source.at_end()? {
            return Ok(Item::End);
        }
        self.read_line()?;
        if let Some(note) = self.line.strip_prefix(b"#") {
            let stamp = note.strip_prefix(b"TS:").and_then(|digits| std::str::from_utf8(digits).ok());
            return Ok(match stamp.and_then(|digits| digits.parse().ok()) {
                Some(seconds) => Item::Timestamp(seconds),
                None => Item::Annotation,
            });
        }
        let words = match self.line.split_first() {
            Some((b'*', digits)) => {
                std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u64>().ok())
            }
            _ => None,
        };
        let words = words.filter(|n| (1..=WORDS_MAX).contains(n)).ok_or(AofFault::Format)?;
        self.bytes.clear();
        self.ends.clear();
        for _ in 0..words {
            let len = usize::try_from(self.number(b'$')?).map_err(|_| AofFault::Format)?;
            let total = len.checked_add(2).ok_or(AofFault::Format)?;
            let word = self.source.take(total)?;
            let (word, end) = word.split_at_checked(len).ok_or(AofFault::Truncated)?;
            if end != b"\r\n" {
                return Err(AofFault::Format);
            }
            self.bytes.extend_from_slice(word);
            self.ends.push(self.bytes.len());
        }
        Ok(Item::Command)
    }
}

/// Whether a file begins as an RDB file does.
pub fn is_rdb(head: &[u8]) -> bool {
    head.starts_with(b"REDIS") || head.starts_with(b"VALKEY")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &[u8]) -> (Vec<String>, Option<AofFault>) {
        let mut reader = CommandReader::new(Buffered::new(text, false));
        let mut out = Vec::new();
        loop {
            match reader.next() {
                Ok(Item::End) => return (out, None),
                Ok(Item::Command) => out.push(reader.args().join(&b' ').escape_ascii().to_string()),
                Ok(other) => out.push(format!("{other:?}")),
                Err(fault) => return (out, Some(fault)),
            }
        }
    }

    #[test]
    fn commands_and_annotations() {
        let text = b"#TS:17\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n#other\r\n*1\r\n$0\r\n\r\n";
        let (seen, fault) = items(text);
        assert!(fault.is_none());
        assert_eq!(seen, ["Timestamp(17)", "GET k", "Annotation", ""]);
        for cut in 1..text.len() {
            let (_, fault) = items(&text[..cut]);
            assert!(matches!(fault, None | Some(AofFault::Truncated)), "{cut}");
        }
        for bad in [
            &b"GET\r\n"[..],
            b"*0\r\n",
            b"*-1\r\n",
            b"*99999999999\r\n",
            b"*1\r\n$2\r\nabc\r\n",
            b"*1\r\n:1\r\n",
        ] {
            assert!(matches!(items(bad).1, Some(AofFault::Format)), "{}", bad.escape_ascii());
        }
        assert!(matches!(items(b"*1\r\n$99999999999999\r\nabc").1, Some(AofFault::Truncated)));
    }
}
