//! `kara-check-rdb FILE`: reads a file to its end and says what is in it, or where it is broken.

use kara_base::hash::HashSeed;
use kara_keyspace::Entry;
use kara_persist::rdb::decode::ValueLimits;
use kara_persist::rdb::file::{AccessNote, path};
use kara_persist::rdb::load::{LoadFault, LoadOptions, LoadReport, LoadSink, load};
use kara_persist::rdb::source::Buffered;
use std::fs::File;
use std::io::Read;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// What was seen.
#[derive(Debug, Default)]
pub struct Contents {
    pub keys: u64,
    pub expires: u64,
    pub expired: u64,
    pub functions: u64,
    now_ms: i64,
    offset: u64,
    quiet: bool,
}

impl Contents {
    fn new(quiet: bool) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Contents {
            now_ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            quiet,
            ..Contents::default()
        }
    }
}

impl LoadSink for Contents {
    fn aux(&mut self, name: &[u8], value: &[u8]) {
        if !self.quiet {
            println!(
                "[offset {}] AUX FIELD {} = '{}'",
                self.offset,
                name.escape_ascii(),
                value.escape_ascii()
            );
        }
    }

    fn function(&mut self, _: &[u8]) -> Result<(), LoadFault> {
        self.functions += 1;
        Ok(())
    }

    fn key(&mut self, _: u32, entry: Entry, _: AccessNote) -> Result<(), LoadFault> {
        self.keys += 1;
        if let Some(at_ms) = entry.expire_at_ms() {
            self.expires += 1;
            self.expired += u64::from(at_ms < self.now_ms);
        }
        Ok(())
    }

    fn empty_key(&mut self, _: u32, key: &[u8]) {
        println!("[info] a key without elements: '{}'", key.escape_ascii());
    }

    fn progress(&mut self, bytes: u64) -> Result<(), LoadFault> {
        self.offset = bytes;
        Ok(())
    }
}

/// Reads an RDB file, or the RDB part in front of a log; what follows is left in the stream that is given back.
pub fn read<R: Read>(input: R, quiet: bool) -> (Contents, Result<(LoadReport, Buffered<R>), LoadFault>) {
    let mut contents = Contents::new(quiet);
    let options = LoadOptions {
        limits: ValueLimits::with_seed(HashSeed { k0: 1, k1: 2 }),
        drop_before_ms: None,
        relaxed: true,
        checksum: true,
        databases: u64::from(u32::MAX),
    };
    let result = load(input, &options, &mut contents);
    (contents, result)
}

/// The program.
pub fn main(args: &[Vec<u8>]) -> ExitCode {
    let [name] = args else {
        eprintln!("Usage: kara-check-rdb <rdb-file-name>");
        return ExitCode::FAILURE;
    };
    let shown = String::from_utf8_lossy(name);
    let file = match File::open(path(name)) {
        Ok(file) => file,
        Err(error) => {
            println!("Cannot open file {shown}: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("[offset 0] Checking RDB file {shown}");
    let (contents, result) = read(file, false);
    let outcome = match result {
        Ok((report, _)) => {
            println!("[offset {}] Checksum OK", contents.offset);
            println!("[offset {}] \\o/ RDB looks OK! \\o/", contents.offset);
            println!("[info] RDB version {}", report.version);
            ExitCode::SUCCESS
        }
        Err(fault) => {
            println!("--- RDB ERROR DETECTED ---");
            println!("[offset {}] {fault}", contents.offset);
            ExitCode::FAILURE
        }
    };
    println!("[info] {} keys read", contents.keys);
    println!("[info] {} expires", contents.expires);
    println!("[info] {} already expired", contents.expired);
    println!("[info] {} functions", contents.functions);
    outcome
}
