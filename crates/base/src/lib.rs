//! Layer 0: newtypes, clock, number formats, glob, checksums, random numbers and the OS calls.
//!
//! Knows nothing of the protocol, of keys or of sockets; everything here can be tested by itself.

pub mod alloc;
pub mod cgroup;
pub mod clock;
pub mod cpus;
pub mod crc16;
pub mod crc64;
pub mod glob;
mod grisu;
pub mod hash;
pub mod ids;
pub mod long_double;
pub mod number;
pub mod os;
pub mod rng;
pub mod text;
pub mod usage;
