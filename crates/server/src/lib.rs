//! Layer 5: workers, listeners, start-up, signals, logging: the database on the network.
#![forbid(unsafe_code)]

pub mod conn;
pub mod host;
pub mod listen;
pub mod transport;
pub mod worker;
pub mod run;
