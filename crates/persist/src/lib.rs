//! Layer 3: files. RDB files and payloads, append-only files and their manifest; no sockets, no commands.
#![forbid(unsafe_code)]

pub mod aof;
pub mod fault;
pub mod rdb;
pub mod snapshot;
