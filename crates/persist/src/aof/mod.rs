//! The append-only file: a directory of a base and its increments, which a manifest lists.

pub mod log;
pub mod manifest;
pub mod reader;
