//! Layer 5: workers, listeners, start-up, signals, logging: the database on the network.
#![forbid(unsafe_code)]

pub mod apply;
pub mod conn;
pub mod crash;
pub mod daemon;
pub mod host;
pub mod http;
pub mod listen;
pub mod log;
pub mod pacing;
pub mod peers;
pub mod replication;
pub mod run;
pub mod serve;
pub mod signals;
pub mod startup;
pub mod system;
pub mod transport;
pub mod worker;

use std::process::ExitCode;

/// Runs the server: `program` is the name it was started by, `args` what followed.
pub fn main_with_args(program: &[u8], args: &[Vec<u8>]) -> ExitCode {
    match startup::prepare(program, args) {
        Ok(prepared) => serve::serve(prepared),
        Err(code) => code,
    }
}
