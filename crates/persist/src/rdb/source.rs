//! Where RDB bytes come from, and their primitives: lengths, numbers, strings.

use super::{RdbError, forms};
use kara_base::crc64::crc64;
use kara_encoding::lzf;
use std::io::Read;

/// Bytes in order.
pub trait Source {
    /// The next `n` bytes. Memory grows with what really comes, not with `n`.
    fn take(&mut self, n: usize) -> Result<&[u8], RdbError>;
    /// How many bytes were taken.
    fn position(&self) -> u64;
}

/// Bytes in memory.
#[derive(Debug)]
pub struct Bytes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bytes<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Bytes { bytes, at: 0 }
    }

    /// What is left.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }
}

impl Source for Bytes<'_> {
    #[inline]
    fn take(&mut self, n: usize) -> Result<&[u8], RdbError> {
        let end = self.at.checked_add(n).ok_or(RdbError::Truncated)?;
        let taken = self.bytes.get(self.at..end).ok_or(RdbError::Truncated)?;
        self.at = end;
        Ok(taken)
    }

    fn position(&self) -> u64 {
        self.at as u64
    }
}

/// How much is read in one go; longer strings make the buffer grow, in steps of this.
const CHUNK: usize = 256 << 10;

/// A stream with a buffer in front and a checksum of what was taken.
pub struct Buffered<R> {
    input: R,
    buffer: Vec<u8>,
    at: usize,
    end: usize,
    /// Bytes of the stream before the buffer.
    before: u64,
    checksum: bool,
    crc: u64,
    /// Up to here the buffer's bytes are in `crc`.
    summed: usize,
}

impl<R: Read> Buffered<R> {
    /// With `checksum`, what is taken is summed up.
    pub fn new(input: R, checksum: bool) -> Self {
        Buffered { input, buffer: vec![0; CHUNK], at: 0, end: 0, before: 0, checksum, crc: 0, summed: 0 }
    }

    /// The checksum of everything taken so far.
    pub fn crc(&mut self) -> u64 {
        self.sum();
        self.crc
    }

    fn sum(&mut self) {
        if self.checksum {
            self.crc = crc64(self.crc, &self.buffer[self.summed..self.at]);
        }
        self.summed = self.at;
    }

    /// Makes `n` bytes stand behind `at`.
    fn fill(&mut self, n: usize) -> Result<(), RdbError> {
        self.sum();
        self.buffer.copy_within(self.at..self.end, 0);
        self.before += self.at as u64;
        self.end -= self.at;
        (self.at, self.summed) = (0, 0);
        // A buffer that one long string made is given back.
        if self.buffer.len() > 64 * CHUNK && n < CHUNK && self.end < CHUNK {
            self.buffer.truncate(CHUNK);
            self.buffer.shrink_to_fit();
        }
        while self.end < n {
            if self.end == self.buffer.len() {
                let room = self.buffer.len().max(CHUNK).min(n - self.end);
                self.buffer.try_reserve(room).map_err(|_| RdbError::Corrupt("a length beyond memory"))?;
                self.buffer.resize(self.end + room, 0);
            }
            match self.input.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Err(RdbError::Truncated),
                Ok(got) => self.end += got,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Whether nothing follows.
    pub fn at_end(&mut self) -> Result<bool, RdbError> {
        if self.at < self.end {
            return Ok(false);
        }
        match self.fill(1) {
            Ok(()) => Ok(false),
            Err(RdbError::Truncated) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// What was read but not taken, and the stream behind it.
    pub fn into_rest(self) -> (Vec<u8>, R) {
        (self.buffer[self.at..self.end].to_vec(), self.input)
    }
}

impl<R: Read> Source for Buffered<R> {
    #[inline]
    fn take(&mut self, n: usize) -> Result<&[u8], RdbError> {
        if self.end - self.at < n {
            self.fill(n)?;
        }
        let start = self.at;
        self.at += n;
        Ok(&self.buffer[start..start + n])
    }

    fn position(&self) -> u64 {
        self.before + self.at as u64
    }
}

/// A length or, where bit 7 and 6 are set, the form of a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    Plain(u64),
    Form(u8),
}

/// Reads primitives from a source.
pub struct Reader<S> {
    pub source: S,
    scratch: Vec<u8>,
    digits: itoa::Buffer,
    /// Packed values that were looked through, for `dump_payload_sanitizations`.
    pub examined: u64,
}

impl<S: Source> Reader<S> {
    pub fn new(source: S) -> Self {
        Reader { source, scratch: Vec::new(), digits: itoa::Buffer::new(), examined: 0 }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RdbError> {
        self.source.take(N)?.try_into().map_err(|_| RdbError::Truncated)
    }

    #[inline]
    pub fn u8(&mut self) -> Result<u8, RdbError> {
        self.source.take(1)?.first().copied().ok_or(RdbError::Truncated)
    }

    pub fn u64_le(&mut self) -> Result<u64, RdbError> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn i64_le(&mut self) -> Result<i64, RdbError> {
        self.array().map(i64::from_le_bytes)
    }

    pub fn i32_le(&mut self) -> Result<i32, RdbError> {
        self.array().map(i32::from_le_bytes)
    }

    pub fn f64_le(&mut self) -> Result<f64, RdbError> {
        self.array().map(f64::from_le_bytes)
    }

    #[inline]
    pub fn length_or_form(&mut self) -> Result<Length, RdbError> {
        let first = self.u8()?;
        Ok(match first >> 6 {
            0 => Length::Plain(u64::from(first & 0x3f)),
            1 => Length::Plain(u64::from(first & 0x3f) << 8 | u64::from(self.u8()?)),
            3 => Length::Form(first & 0x3f),
            _ => match first {
                0x80 => Length::Plain(u64::from(u32::from_be_bytes(self.array()?))),
                0x81 => Length::Plain(u64::from_be_bytes(self.array()?)),
                _ => return Err(RdbError::Corrupt("unknown form of a length")),
            },
        })
    }

    /// A length that must be plain.
    #[inline]
    pub fn length(&mut self) -> Result<u64, RdbError> {
        match self.length_or_form()? {
            Length::Plain(n) => Ok(n),
            Length::Form(_) => Err(RdbError::Corrupt("a string where a length should be")),
        }
    }

    fn size(&mut self) -> Result<usize, RdbError> {
        usize::try_from(self.length()?).map_err(|_| RdbError::Corrupt("a length beyond memory"))
    }

    /// The next string; lent until the next call.
    #[inline]
    pub fn string(&mut self) -> Result<&[u8], RdbError> {
        let form = match self.length_or_form()? {
            Length::Plain(n) => {
                let n = usize::try_from(n).map_err(|_| RdbError::Corrupt("a length beyond memory"))?;
                return self.source.take(n);
            }
            Length::Form(form) => form,
        };
        let number = match form {
            forms::INT8 => i32::from(i8::from_le_bytes(self.array()?)),
            forms::INT16 => i32::from(i16::from_le_bytes(self.array()?)),
            forms::INT32 => i32::from_le_bytes(self.array()?),
            forms::LZF => {
                let (packed, len) = (self.size()?, self.size()?);
                let packed = self.source.take(packed)?;
                lzf::decompress_into(packed, len, &mut self.scratch)
                    .map_err(|_| RdbError::Corrupt("invalid LZF compressed string"))?;
                return Ok(&self.scratch);
            }
            _ => return Err(RdbError::Corrupt("unknown form of a string")),
        };
        Ok(self.digits.format(number).as_bytes())
    }

    /// Reads a string into `into`, in the place of what it held.
    #[inline]
    pub fn string_into(&mut self, into: &mut Vec<u8>) -> Result<(), RdbError> {
        into.clear();
        let text = self.string()?;
        into.try_reserve(text.len()).map_err(|_| RdbError::Corrupt("a length beyond memory"))?;
        into.extend_from_slice(text);
        Ok(())
    }

    /// A copy of the next string.
    pub fn string_vec(&mut self) -> Result<Vec<u8>, RdbError> {
        let mut text = Vec::new();
        self.string_into(&mut text)?;
        Ok(text)
    }

    /// A score as old files hold it: text behind its length in one byte.
    pub fn text_score(&mut self) -> Result<f64, RdbError> {
        match self.u8()? {
            255 => Ok(f64::NEG_INFINITY),
            254 => Ok(f64::INFINITY),
            253 => Ok(f64::NAN),
            n => kara_base::number::parse_f64(self.source.take(usize::from(n))?)
                .ok_or(RdbError::Corrupt("a score that isn't a number")),
        }
    }
}
