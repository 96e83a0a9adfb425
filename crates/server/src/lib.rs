//! Layer 5: workers, listeners, start-up, signals, logging: the database on the network.
#![forbid(unsafe_code)]

pub mod conn;
pub mod crash;
pub mod daemon;
pub mod host;
pub mod listen;
pub mod log;
pub mod run;
pub mod signals;
pub mod startup;
pub mod system;
pub mod transport;
pub mod worker;

use kara_engine::config::{ConfigStore, Invocation, ProcessSurroundings, invocation, load};
use kara_engine::log::{Level, LogSink};
use std::process::ExitCode;
use std::sync::Arc;

/// Lines on standard output, until the log proper takes over.
#[derive(Debug)]
struct StdoutLog;

impl LogSink for StdoutLog {
    fn log(&self, _level: Level, text: &str) {
        println!("{text}");
    }
}

/// Runs the server with the arguments behind the program's name.
pub fn main_with_args(args: &[Vec<u8>]) -> ExitCode {
    let sources = match invocation(args) {
        Invocation::Run(sources) => sources,
        _ => {
            println!("Valkey server v=9.1.2 kara={}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
    };
    let loaded = match load(&sources, &mut ProcessSurroundings) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let secret = std::array::from_fn(|_| kara_base::hash::random_u64());
    let served = run::Server::new(ConfigStore::from_loaded(&loaded), Arc::new(StdoutLog), secret)
        .and_then(run::Server::run);
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
