//! Kinds of values, and values without a key.

use super::layout::COLLECTION_BYTES;
use super::text::StrValue;
use crate::value::hash::Hash;
use crate::value::list::List;
use crate::value::set::Set;
use crate::value::stream::Stream;
use crate::value::zset::ZSet;

/// What a value is. The numbers are those of the RDB's object types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    String = 0,
    List = 1,
    Set = 2,
    ZSet = 3,
    Hash = 4,
    Stream = 6,
}

impl Kind {
    pub const ALL: [Kind; 6] = [Kind::String, Kind::List, Kind::Set, Kind::ZSet, Kind::Hash, Kind::Stream];

    /// The name that TYPE answers.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::String => "string",
            Kind::List => "list",
            Kind::Set => "set",
            Kind::ZSet => "zset",
            Kind::Hash => "hash",
            Kind::Stream => "stream",
        }
    }

    pub(super) fn from_meta(meta: u8) -> Kind {
        match meta & super::layout::KIND_MASK {
            1 => Kind::List,
            2 => Kind::Set,
            3 => Kind::ZSet,
            4 => Kind::Hash,
            6 => Kind::Stream,
            _ => Kind::String,
        }
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A value type that lives in an entry's payload.
pub trait Collection: sealed::Sealed + Sized + Send + Clone {
    const KIND: Kind;
    /// Elements: what LLEN, SCARD, ZCARD, HLEN or XLEN answers.
    fn elements(&self) -> usize;
    /// Bytes on the heap beside the struct itself, extrapolated from `samples` elements (0: all).
    fn heap_bytes(&self, samples: usize) -> usize;
    fn into_value(self) -> Value;
}

macro_rules! collections {
    ($($name:ident),*) => {$(
        const _: () = assert!(size_of::<$name>() <= COLLECTION_BYTES && size_of::<$name>() % 8 == 0 && align_of::<$name>() <= 8);
        impl sealed::Sealed for $name {}
        impl Collection for $name {
            const KIND: Kind = Kind::$name;
            fn elements(&self) -> usize {
                // Streams count in u64.
                usize::try_from(self.len()).unwrap_or(usize::MAX)
            }
            fn heap_bytes(&self, samples: usize) -> usize {
                self.memory_usage(samples)
            }
            fn into_value(self) -> Value {
                Value::$name(self)
            }
        }
        impl From<$name> for Value {
            fn from(value: $name) -> Value {
                Value::$name(value)
            }
        }
    )*};
}
collections!(List, Set, Hash, ZSet, Stream);

/// A value by itself, without a key. `Str` stays a string even if it looks like a number: `StrValue::from_bytes`
/// decides that where the reference does.
#[derive(Clone)]
pub enum Value {
    Str(Vec<u8>),
    Int(i64),
    List(List),
    Set(Set),
    Hash(Hash),
    ZSet(ZSet),
    Stream(Stream),
}

pub type NewValue = Value;
pub type OwnedValue = Value;

impl Value {
    /// A string value as SET would store it: an integer if the text is a canonical `i64`.
    pub fn from_string(bytes: Vec<u8>) -> Value {
        match StrValue::from_bytes(&bytes) {
            StrValue::Int(number) => Value::Int(number),
            StrValue::Bytes(_) => Value::Str(bytes),
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Value::Str(_) | Value::Int(_) => Kind::String,
            Value::List(_) => Kind::List,
            Value::Set(_) => Kind::Set,
            Value::Hash(_) => Kind::Hash,
            Value::ZSet(_) => Kind::ZSet,
            Value::Stream(_) => Kind::Stream,
        }
    }

    /// Whether dropping it may take long enough to be worth a trip to the freeing thread.
    pub fn is_expensive_to_free(&self) -> bool {
        match self {
            Value::Str(bytes) => bytes.len() > EXPENSIVE_BYTES,
            Value::Int(_) => false,
            Value::List(v) => v.elements() > EXPENSIVE_ELEMENTS,
            Value::Set(v) => v.elements() > EXPENSIVE_ELEMENTS,
            Value::Hash(v) => v.elements() > EXPENSIVE_ELEMENTS,
            Value::ZSet(v) => v.elements() > EXPENSIVE_ELEMENTS,
            Value::Stream(v) => v.elements() > EXPENSIVE_ELEMENTS,
        }
    }
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Str(bytes) => write!(f, "Str({})", bytes.escape_ascii()),
            Value::Int(number) => write!(f, "Int({number})"),
            other => write!(f, "{:?}", other.kind()),
        }
    }
}

pub(super) const EXPENSIVE_ELEMENTS: usize = 64;
/// Giving back a block of 1 MB takes a millisecond at times.
pub(super) const EXPENSIVE_BYTES: usize = 256 << 10;
