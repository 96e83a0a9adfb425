//! The append-only file: a directory of a base and its increments, which a manifest lists.

pub mod commands;
pub mod log;
pub mod manifest;
pub mod reader;

use kara_base::ids::DbIndex;
use std::io::{self, Write};

/// A base of commands under way.
pub struct CommandWriter<W> {
    out: W,
    db: Option<u32>,
}

impl<W: Write> CommandWriter<W> {
    /// With `stamp_s` (Unix seconds), a timestamp comes first; then the libraries of functions.
    pub fn begin(mut out: W, stamp_s: Option<i64>, functions: &[Vec<u8>]) -> io::Result<Self> {
        if let Some(now_s) = stamp_s {
            out.write_all(format!("#TS:{now_s}\r\n").as_bytes())?;
        }
        let mut load = Vec::new();
        for code in functions {
            log::put_command(&mut load, &[b"FUNCTION", b"LOAD", code]);
        }
        out.write_all(&load)?;
        Ok(CommandWriter { out, db: None })
    }

    /// Whole commands for one database.
    pub fn records(&mut self, db: u32, bytes: &[u8]) -> io::Result<()> {
        if self.db != Some(db) {
            self.db = Some(db);
            let mut select = Vec::new();
            let number = DbIndex(db).to_string();
            log::put_command(&mut select, &[b"SELECT", number.as_bytes()]);
            self.out.write_all(&select)?;
        }
        self.out.write_all(bytes)
    }

    /// The stream, not flushed.
    pub fn finish(self) -> W {
        self.out
    }
}
