//! Lua for scripts and functions: the virtual machine, its sandbox and libraries, and the conversions between Lua and the
//! protocol.
//!
//! Boundary: knows no keys, sessions or caches. Whoever runs a script is its [`Host`]: commands, the log and the question
//! whether the script may go on are the host's. The only user of `mlua`. Unsafe code is for the module `raw` alone.
#![deny(unsafe_code)]

mod host;
mod libs;
mod native;
mod number;
#[allow(unsafe_code)] // Its own header says what makes it sound.
mod raw;
#[cfg(test)]
mod tests;
mod vm;

pub use host::{Abort, Host, LibraryFunction};
pub use vm::{Chunk, Ended, Failure, Kind, LoadError, Options, Vm};
