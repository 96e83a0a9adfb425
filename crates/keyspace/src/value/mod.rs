//! The values of keys, a file per type: each keeps its own encodings and the conversions between them.

pub mod hash;
pub mod list;
pub mod set;
pub mod stream;
pub mod zset;
