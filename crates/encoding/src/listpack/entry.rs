//! One listpack entry: how an element becomes bytes and back. No allocation, no knowledge of the blob around it.
//!
//! ```text
//! entry = encoding [length] [payload] backlen
//! 0xxxxxxx            unsigned 7-bit integer
//! 10xxxxxx payload    string of up to 63 bytes
//! 110xxxxx x          signed 13-bit integer, high bits first
//! 1110xxxx x payload  string of up to 4,095 bytes, high bits of the length first
//! 11110000 u32le ...  longer string
//! 11110001..0100      signed integers of 16, 24, 32, 64 bits, little-endian
//! 11111111            end of the listpack (no backlen)
//! ```
//!
//! `backlen` is the length of everything before it within the entry, in groups of 7 bits, high group first; every
//! byte but the first carries the top bit, so that it can be read from right to left.

pub use kara_base::number::parse_i64 as canonical_int;

/// The byte behind the last entry.
pub(super) const END: u8 = 0xff;

/// An element as it is stored: integers never become text until somebody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element<'a> {
    Int(i64),
    Str(&'a [u8]),
}

impl<'a> Element<'a> {
    /// Length in bytes of the element's text.
    pub fn len(&self) -> usize {
        match *self {
            Element::Int(value) => itoa::Buffer::new().format(value).len(),
            Element::Str(text) => text.len(),
        }
    }

    /// Whether this is the empty string.
    pub fn is_empty(&self) -> bool {
        matches!(self, Element::Str(text) if text.is_empty())
    }

    /// Whether the element's text is `other`.
    #[inline]
    pub fn eq_bytes(&self, other: &[u8]) -> bool {
        match *self {
            Element::Int(value) => canonical_int(other) == Some(value),
            Element::Str(text) => text == other,
        }
    }

    /// The element's text; integers are formatted into `buffer`.
    #[inline]
    pub fn as_bytes<'b>(&self, buffer: &'b mut itoa::Buffer) -> &'b [u8]
    where
        'a: 'b,
    {
        match *self {
            Element::Int(value) => buffer.format(value).as_bytes(),
            Element::Str(text) => text,
        }
    }

    /// Appends the element's text to `out`.
    #[inline]
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes(&mut itoa::Buffer::new()));
    }

    /// The element's text as an owned vector.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.as_bytes(&mut itoa::Buffer::new()).to_vec()
    }

    /// The value if the element's text is a canonical integer, however it is stored.
    pub fn as_int(&self) -> Option<i64> {
        match *self {
            Element::Int(value) => Some(value),
            Element::Str(text) => canonical_int(text),
        }
    }
}

impl<'a> From<&'a [u8]> for Element<'a> {
    fn from(text: &'a [u8]) -> Self {
        Element::Str(text)
    }
}

impl From<i64> for Element<'_> {
    fn from(value: i64) -> Self {
        Element::Int(value)
    }
}

/// An element's bytes in a listpack: `head()`, then `tail`, then `back()`.
pub(super) struct Encoded<'a> {
    head: [u8; 9],
    head_len: u8,
    back_len: u8,
    back: [u8; 5],
    pub(super) tail: &'a [u8],
}

impl<'a> Encoded<'a> {
    #[inline]
    pub(super) fn new(element: Element<'a>) -> Self {
        match element {
            Element::Int(value) => Self::int(value),
            Element::Str(text) => match canonical_int(text) {
                Some(value) => Self::int(value),
                None => Self::string(text),
            },
        }
    }

    fn int(value: i64) -> Self {
        let mut head = [0u8; 9];
        let le = value.to_le_bytes();
        let (tag, width) = match value {
            0..=127 => {
                head[0] = le[0];
                return Self::finish(head, 1, &[]);
            }
            -4096..=4095 => {
                head[0] = 0xc0 | (le[1] & 0x1f);
                head[1] = le[0];
                return Self::finish(head, 2, &[]);
            }
            -32_768..=32_767 => (0xf1, 2),
            -8_388_608..=8_388_607 => (0xf2, 3),
            -2_147_483_648..=2_147_483_647 => (0xf3, 4),
            _ => (0xf4, 8),
        };
        head[0] = tag;
        head[1..=width].copy_from_slice(&le[..width]);
        Self::finish(head, 1 + width as u8, &[])
    }

    fn string(text: &'a [u8]) -> Self {
        let mut head = [0u8; 9];
        let length = text.len();
        let head_len = if length < 64 {
            head[0] = 0x80 | length as u8;
            1
        } else if length < 4096 {
            head[0] = 0xe0 | (length >> 8) as u8;
            head[1] = length as u8;
            2
        } else {
            // Lengths beyond u32 never get here: the blob's limit of 1 GiB is checked on `encoded_len` first.
            head[0] = 0xf0;
            head[1..5].copy_from_slice(&(length.min(u32::MAX as usize) as u32).to_le_bytes());
            5
        };
        Self::finish(head, head_len, text)
    }

    fn finish(head: [u8; 9], head_len: u8, tail: &'a [u8]) -> Self {
        let length = usize::from(head_len) + tail.len();
        let back_len = back_size(length);
        let mut back = [0u8; 5];
        for (place, slot) in back[..back_len].iter_mut().rev().enumerate() {
            *slot = ((length >> (7 * place)) & 0x7f) as u8 | 0x80;
        }
        back[0] &= 0x7f;
        Encoded { head, head_len, back_len: back_len as u8, back, tail }
    }

    #[inline]
    pub(super) fn head(&self) -> &[u8] {
        &self.head[..usize::from(self.head_len)]
    }

    #[inline]
    pub(super) fn back(&self) -> &[u8] {
        &self.back[..usize::from(self.back_len)]
    }

    /// Bytes of the whole entry.
    #[inline]
    pub(super) fn encoded_len(&self) -> usize {
        usize::from(self.head_len) + self.tail.len() + usize::from(self.back_len)
    }

    /// Whether the bytes of an entry without its backlen are this one's.
    #[inline]
    pub(super) fn matches(&self, entry: &[u8]) -> bool {
        entry.len() == usize::from(self.head_len) + self.tail.len()
            && entry.starts_with(self.head())
            && entry.ends_with(self.tail)
    }
}

/// Bytes that the backlen of an entry of `length` bytes takes. The odd limits (16,383 needs three bytes though two
/// could hold it) are the format's.
#[inline]
pub(super) fn back_size(length: usize) -> usize {
    match length {
        0..=127 => 1,
        128..16_383 => 2,
        16_383..2_097_151 => 3,
        2_097_151..268_435_455 => 4,
        _ => 5,
    }
}

/// Length of the entry at `at` without its backlen; `None` where there is no whole, known encoding.
#[inline]
pub(super) fn body_len(blob: &[u8], at: usize) -> Option<usize> {
    let first = *blob.get(at)?;
    Some(match first {
        0..=0x7f => 1,
        0x80..=0xbf => 1 + usize::from(first & 0x3f),
        0xc0..=0xdf => 2,
        0xe0..=0xef => 2 + (usize::from(first & 0x0f) << 8 | usize::from(*blob.get(at + 1)?)),
        0xf0 => 5usize.checked_add(u32::from_le_bytes(array(blob, at + 1)?) as usize)?,
        0xf1 => 3,
        0xf2 => 4,
        0xf3 => 5,
        0xf4 => 9,
        _ => return None,
    })
}

/// The element at `at` and the length of its body; `None` where it is unknown or reaches beyond `blob`.
#[inline]
pub(super) fn decode(blob: &[u8], at: usize) -> Option<(Element<'_>, usize)> {
    let first = *blob.get(at)?;
    let element = match first {
        0..=0x7f => return Some((Element::Int(i64::from(first)), 1)),
        0x80..=0xbf => {
            let body = 1 + usize::from(first & 0x3f);
            return Some((Element::Str(blob.get(at + 1..at + body)?), body));
        }
        0xc0..=0xdf => {
            let raw = i16::from(first & 0x1f) << 8 | i16::from(*blob.get(at + 1)?);
            // Moves the 13-bit sign to the top and back.
            Element::Int(i64::from((raw << 3) >> 3))
        }
        0xe0..=0xef => {
            let body = body_len(blob, at)?;
            return Some((Element::Str(blob.get(at + 2..at + body)?), body));
        }
        0xf0 => {
            let body = body_len(blob, at)?;
            return Some((Element::Str(blob.get(at + 5..at.checked_add(body)?)?), body));
        }
        0xf1 => Element::Int(i64::from(i16::from_le_bytes(array(blob, at + 1)?))),
        0xf2 => {
            let [a, b, c] = array(blob, at + 1)?;
            Element::Int(i64::from(i32::from_le_bytes([0, a, b, c]) >> 8))
        }
        0xf3 => Element::Int(i64::from(i32::from_le_bytes(array(blob, at + 1)?))),
        0xf4 => Element::Int(i64::from_le_bytes(array(blob, at + 1)?)),
        _ => return None,
    };
    Some((element, body_len(blob, at)?))
}

/// Reads a backlen whose last byte is at `end - 1`: (the length it states, its own bytes).
#[inline]
pub(super) fn read_back(blob: &[u8], end: usize) -> Option<(usize, usize)> {
    let mut value = 0usize;
    for taken in 1..=5 {
        let byte = *blob.get(end.checked_sub(taken)?)?;
        value |= usize::from(byte & 0x7f) << (7 * (taken - 1));
        if byte & 0x80 == 0 {
            return Some((value, taken));
        }
    }
    None
}

fn array<const N: usize>(blob: &[u8], at: usize) -> Option<[u8; N]> {
    blob.get(at..at.checked_add(N)?)?.try_into().ok()
}
