//! Lua for scripts and functions: the virtual machine, its sandbox and libraries, and the conversions between Lua and the
//! protocol.
//!
//! Boundary: knows no keys, sessions or caches. Whoever runs a script is its [`Host`]: commands, the log and the question
//! whether the script may go on are the host's. The only user of `mlua`.
#![forbid(unsafe_code)]

mod host;
mod libs;
mod native;
mod number;
mod reply;
#[cfg(test)]
mod tests;
mod vm;

pub use host::{Abort, Host, LibraryFunction};
pub use vm::{Chunk, Failure, Kind, LoadError, Options, Vm};
