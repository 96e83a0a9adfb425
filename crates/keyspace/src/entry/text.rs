//! Strings as values: what is about to be stored, what is stored, and the encodings that clients are shown.

use std::borrow::Cow;

use kara_base::number::parse_i64;

/// A string's encoding as OBJECT ENCODING shows it, whatever the layout inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StringEncoding {
    Int,
    Embstr,
    Raw,
}

impl StringEncoding {
    pub const fn name(self) -> &'static str {
        match self {
            StringEncoding::Int => "int",
            StringEncoding::Embstr => "embstr",
            StringEncoding::Raw => "raw",
        }
    }

    /// What the reference shows for a plain string of that length under a key of that length: "embstr" as long as its
    /// object, key and value fit 128 bytes. From 32 bytes on a key costs two bytes more there.
    pub(super) fn of_plain(key_len: usize, value_len: usize) -> StringEncoding {
        let budget = if key_len < 32 { 113 } else { 111 };
        if key_len.saturating_add(value_len) <= budget { StringEncoding::Embstr } else { StringEncoding::Raw }
    }
}

/// A string about to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StrValue<'a> {
    Int(i64),
    Bytes(&'a [u8]),
}

impl<'a> StrValue<'a> {
    /// An integer if `bytes` is the canonical text of an `i64`, else the bytes.
    #[inline]
    pub fn from_bytes(bytes: &'a [u8]) -> StrValue<'a> {
        match parse_i64(bytes) {
            Some(number) => StrValue::Int(number),
            None => StrValue::Bytes(bytes),
        }
    }
}

/// A stored string, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StrRef<'a> {
    Int(i64),
    Bytes(&'a [u8]),
}

impl<'a> StrRef<'a> {
    /// The length of its text in bytes.
    pub fn len(&self) -> usize {
        match self {
            StrRef::Int(number) => itoa::Buffer::new().format(*number).len(),
            StrRef::Bytes(bytes) => bytes.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        matches!(self, StrRef::Bytes([]))
    }

    pub fn to_cow(&self) -> Cow<'a, [u8]> {
        match self {
            StrRef::Int(number) => Cow::Owned(itoa::Buffer::new().format(*number).as_bytes().to_vec()),
            StrRef::Bytes(bytes) => Cow::Borrowed(bytes),
        }
    }

    /// Its text; a number's is written into `scratch`.
    pub fn as_bytes<'b>(&self, scratch: &'b mut itoa::Buffer) -> &'b [u8]
    where
        'a: 'b,
    {
        match self {
            StrRef::Int(number) => scratch.format(*number).as_bytes(),
            StrRef::Bytes(bytes) => bytes,
        }
    }

    pub fn write_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes(&mut itoa::Buffer::new()));
    }

    /// Its value if the text is a canonical `i64`, as INCR asks.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            StrRef::Int(number) => Some(*number),
            StrRef::Bytes(bytes) => parse_i64(bytes),
        }
    }
}
