//! `cargo xtask replication`: the long forms of what the tests run in short.
#![forbid(unsafe_code)]

use kara_tests::replication::{Length, PAIRS, drill, run_faults, run_pair};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const USAGE: &str =
    "replication matrix [--seconds N] [--seed N] [--pair N] [-- ARGUMENTS OF ALL SERVERS]: every pair of products, under load
replication faults [--count N] [--seed N] [-- ARGUMENTS]: links of a chain broken at random
replication drill [--seconds N]: two regions in network namespaces (as root), the primary's death and promotion";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (mut seconds, mut count, mut seed, mut only, mut arguments) = (8, 200, 1, None, Vec::new());
    let mut rest = words.iter().skip(1);
    while let Some(word) = rest.next() {
        let mut number = || rest.next().and_then(|number| number.parse::<u64>().ok());
        match word.as_str() {
            "--seconds" => seconds = number().unwrap_or(seconds),
            "--pair" => only = number(),
            "--count" => count = number().unwrap_or(count),
            "--seed" => seed = number().unwrap_or(seed),
            "--" => arguments = rest.by_ref().map(String::as_str).collect(),
            _ => return usage(),
        }
    }
    let begun = Instant::now();
    match words.first().map(String::as_str) {
        Some("matrix") => {
            for (n, pair) in
                PAIRS.iter().enumerate().filter(|(n, _)| only.is_none_or(|only| only == *n as u64))
            {
                let length = Length { load: Duration::from_secs(seconds), cuts: 5 };
                run_pair(*pair, &arguments, length, seed + n as u64 * 10);
                println!("{:?} -> {:?}: equal", pair.primary, pair.replica);
            }
        }
        Some("faults") => {
            let report = run_faults(u32::try_from(count).unwrap_or(u32::MAX), seed, &arguments);
            println!("{report:?}, equal, {} s", begun.elapsed().as_secs());
        }
        Some("drill") => match drill(u32::try_from(seconds).unwrap_or(8)) {
            Ok(report) => println!("{report:?}, {} s", begun.elapsed().as_secs()),
            Err(why) => println!("skipped, no namespaces can be made: {why}"),
        },
        _ => return usage(),
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
