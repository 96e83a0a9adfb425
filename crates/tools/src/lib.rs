//! Layer 6: the programs beside the server; each acts by the name that `kara` is called by.
#![forbid(unsafe_code)]

pub mod benchmark;
pub mod check_aof;
pub mod check_rdb;
pub mod cli;
pub mod entrypoint;
pub mod health;
pub mod migrate;

use std::process::ExitCode;

/// A tool: its arguments in, its exit code out.
pub type Tool = fn(&[Vec<u8>]) -> ExitCode;

/// The tool of that program name (`kara-check-rdb`, or with `valkey-` or `redis-` in front), if it is one.
pub fn by_name(program: &[u8]) -> Option<Tool> {
    let name = program.rsplit(|byte| *byte == b'/').next()?;
    let stem = [&b"kara-"[..], b"valkey-", b"redis-"].iter().find_map(|prefix| name.strip_prefix(*prefix))?;
    match stem {
        b"check-rdb" => Some(check_rdb::main),
        b"check-aof" => Some(check_aof::main),
        b"entrypoint" => Some(entrypoint::main),
        b"health" => Some(health::main),
        b"cli" => Some(cli::main),
        b"benchmark" => Some(benchmark::main),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert!(by_name(b"/usr/bin/valkey-check-rdb").is_some());
        assert!(by_name(b"kara-check-aof").is_some());
        assert!(by_name(b"redis-check-aof").is_some());
        assert!(by_name(b"src/valkey-cli").is_some() && by_name(b"redis-benchmark").is_some());
        assert!(by_name(b"kara-server").is_none());
        assert!(by_name(b"check-rdb").is_none());
    }
}
