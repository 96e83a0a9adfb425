//! RDB: the file of a whole data set, and the same bytes of one value as DUMP and RESTORE carry them.
//!
//! ```text
//! file    := magic version record* EOF [crc64, little endian; zero: none]      "VALKEY080", "REDIS0011"
//! record  := AUX string string | SELECTDB len | RESIZEDB len len | SLOT_INFO len len len | FUNCTION2 string
//!          | [EXPIRETIME i32 | EXPIRETIME_MS i64] [IDLE len | FREQ u8] type string value
//! payload := type value version(u16, little endian) crc64
//! len     := 00nnnnnn | 01nnnnnn n | 10000000 n*4 big endian | 10000001 n*8 big endian | 11 form
//! string  := len bytes | 11000000 i8 | 11000001 i16 | 11000010 i32 | 11000011 len len lzf
//! ```
//!
//! `source` reads these primitives from bytes or a stream, `encode` and `decode` are the values, `file` the records,
//! `payload` DUMP and RESTORE. Nothing is believed: lengths bound no allocation before the bytes are there, and every
//! packed value is looked through entry by entry.

pub mod decode;
pub mod encode;
pub mod file;
pub mod load;
pub mod payload;
pub mod source;
pub mod steps;
mod stream;
#[cfg(test)]
mod tests;
mod ziplist;

use std::fmt;

/// The form that is written: what a file or payload may hold follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// `REDIS0011`, for peers before Valkey 9.
    Redis11,
    /// `VALKEY080`.
    Valkey80,
}

impl Version {
    pub const fn number(self) -> u16 {
        match self {
            Version::Redis11 => 11,
            Version::Valkey80 => 80,
        }
    }
}

/// The highest version that is understood.
pub const NEWEST: u16 = 80;
/// Versions between Redis 7.2's and Valkey 9's are other products': they may mean other things by the same types.
pub const FOREIGN: std::ops::RangeInclusive<u16> = 12..=79;

/// What a value is made of; the byte in front of the key. `Redis7...` stand in foreign versions only.
pub mod types {
    pub const STRING: u8 = 0;
    pub const LIST: u8 = 1;
    pub const SET: u8 = 2;
    pub const ZSET: u8 = 3;
    pub const HASH: u8 = 4;
    pub const ZSET_2: u8 = 5;
    pub const MODULE_PRE_GA: u8 = 6;
    pub const MODULE_2: u8 = 7;
    pub const HASH_ZIPMAP: u8 = 9;
    pub const LIST_ZIPLIST: u8 = 10;
    pub const SET_INTSET: u8 = 11;
    pub const ZSET_ZIPLIST: u8 = 12;
    pub const HASH_ZIPLIST: u8 = 13;
    pub const LIST_QUICKLIST: u8 = 14;
    pub const STREAM: u8 = 15;
    pub const HASH_LISTPACK: u8 = 16;
    pub const ZSET_LISTPACK: u8 = 17;
    pub const LIST_QUICKLIST_2: u8 = 18;
    pub const STREAM_2: u8 = 19;
    pub const SET_LISTPACK: u8 = 20;
    pub const STREAM_3: u8 = 21;
    /// Fields with expiries; in foreign versions the number is a Redis preview's.
    pub const HASH_2: u8 = 22;
    /// Redis 7.4: fields with expiries.
    pub const FOREIGN_HASH_METADATA: u8 = 24;
    /// Redis 7.4: a listpack of fields, values and expiries.
    pub const FOREIGN_HASH_LISTPACK_EX: u8 = 25;
}

/// What else stands where a type is expected.
pub mod opcodes {
    pub const SLOT_IMPORT: u8 = 243;
    pub const SLOT_INFO: u8 = 244;
    pub const FUNCTION2: u8 = 245;
    pub const FUNCTION_PRE_GA: u8 = 246;
    pub const MODULE_AUX: u8 = 247;
    pub const IDLE: u8 = 248;
    pub const FREQ: u8 = 249;
    pub const AUX: u8 = 250;
    pub const RESIZEDB: u8 = 251;
    pub const EXPIRETIME_MS: u8 = 252;
    pub const EXPIRETIME: u8 = 253;
    pub const SELECTDB: u8 = 254;
    pub const EOF: u8 = 255;
}

/// A length that isn't one: the forms of a string.
mod forms {
    pub const INT8: u8 = 0;
    pub const INT16: u8 = 1;
    pub const INT32: u8 = 2;
    pub const LZF: u8 = 3;
}

/// A quicklist's node.
mod containers {
    pub const PLAIN: u64 = 1;
    pub const PACKED: u64 = 2;
}

/// Why something can't be read.
#[derive(Debug)]
pub enum RdbError {
    /// The bytes end in the middle.
    Truncated,
    /// They don't mean what they should; what about them.
    Corrupt(&'static str),
    /// A value without elements. Files are read on behind it.
    Empty,
    /// A hash all of whose fields have come to their time.
    Expired,
    /// A type or version that is not understood.
    Unsupported(String),
    Io(std::io::Error),
}

impl fmt::Display for RdbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RdbError::Truncated => f.write_str("unexpected end of file"),
            RdbError::Corrupt(what) => f.write_str(what),
            RdbError::Expired => f.write_str("a hash whose fields have all expired"),
            RdbError::Empty => f.write_str("a value without elements"),
            RdbError::Unsupported(what) => f.write_str(what),
            RdbError::Io(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl std::error::Error for RdbError {}

impl From<std::io::Error> for RdbError {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::UnexpectedEof {
            RdbError::Truncated
        } else {
            RdbError::Io(error)
        }
    }
}
