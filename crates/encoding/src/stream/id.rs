//! Entry ids: a time and a counter, ordered as one 128-bit number.

use std::fmt;

/// The id of a stream entry, `ms-seq`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Milliseconds since the Unix epoch, as far as the server made it up.
    pub ms: u64,
    /// Counts within a millisecond.
    pub seq: u64,
}

impl StreamId {
    /// 0-0, which no entry can have.
    pub const MIN: StreamId = StreamId { ms: 0, seq: 0 };
    /// The highest id.
    pub const MAX: StreamId = StreamId { ms: u64::MAX, seq: u64::MAX };

    pub const fn new(ms: u64, seq: u64) -> Self {
        StreamId { ms, seq }
    }

    /// True for 0-0.
    pub fn is_zero(self) -> bool {
        self == Self::MIN
    }

    /// The id right after this one; None after the highest.
    pub fn next(self) -> Option<Self> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(StreamId { ms: self.ms, seq }),
            None => Some(StreamId { ms: self.ms.checked_add(1)?, seq: 0 }),
        }
    }

    /// The id right before this one; None before the lowest.
    pub fn previous(self) -> Option<Self> {
        match self.seq.checked_sub(1) {
            Some(seq) => Some(StreamId { ms: self.ms, seq }),
            None => Some(StreamId { ms: self.ms.checked_sub(1)?, seq: u64::MAX }),
        }
    }

    /// `ms-seq` without an allocation.
    pub fn text(self) -> IdText {
        let mut text = IdText { bytes: [b'-'; 41], len: 0 };
        for (part, separator) in [(self.ms, 1), (self.seq, 0)] {
            let mut digits = itoa::Buffer::new();
            let digits = digits.format(part).as_bytes();
            let start = usize::from(text.len);
            text.bytes[start..start + digits.len()].copy_from_slice(digits);
            text.len += digits.len() as u8 + separator;
        }
        text
    }

    /// The id's 16 bytes as RDB stores them: both halves big-endian.
    pub fn to_be_bytes(self) -> [u8; 16] {
        (u128::from(self.ms) << 64 | u128::from(self.seq)).to_be_bytes()
    }

    /// The reverse of [`StreamId::to_be_bytes`].
    pub fn from_be_bytes(bytes: [u8; 16]) -> Self {
        let both = u128::from_be_bytes(bytes);
        StreamId { ms: (both >> 64) as u64, seq: both as u64 }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// An id's text, on the stack.
#[derive(Clone, Copy, Debug)]
pub struct IdText {
    bytes: [u8; 41],
    len: u8,
}

impl IdText {
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_and_bytes() {
        let id = StreamId::new(7, u64::MAX);
        assert_eq!(id.next(), Some(StreamId::new(8, 0)));
        assert_eq!(StreamId::new(8, 0).previous(), Some(id));
        assert_eq!(StreamId::MAX.next(), None);
        assert_eq!(StreamId::MIN.previous(), None);
        assert_eq!(id.to_string(), "7-18446744073709551615");
        for id in [id, StreamId::MIN, StreamId::MAX] {
            assert_eq!(id.text().as_bytes(), id.to_string().as_bytes());
        }
        assert_eq!(StreamId::from_be_bytes(id.to_be_bytes()), id);
        assert_eq!(StreamId::new(1, 2).to_be_bytes(), [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
    }
}
