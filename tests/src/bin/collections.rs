//! `cargo xtask collections`: what large collections cost, and whom their end keeps waiting.
#![forbid(unsafe_code)]

use kara_tests::Server;
use kara_tests::collections::{Ending, FOOTPRINTS, KINDS, footprint, stall};
use std::process::ExitCode;

const USAGE: &str = "collections footprint [--elements N] [--reference]: bytes of used_memory per element
collections stall [--elements N] [--kind K] [--reference] [-- ARGUMENTS OF THE SERVER]: ms of a
  serving thread's processor time that dropping a collection takes, at most 2";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (mut elements, mut reference, mut arguments, mut kind) = (None, false, Vec::new(), None);
    let mut rest = words.iter().skip(1);
    while let Some(word) = rest.next() {
        match word.as_str() {
            "--reference" => reference = true,
            "--elements" => elements = rest.next().and_then(|number| number.parse::<u64>().ok()),
            "--kind" => kind = rest.next().map(String::as_str),
            "--" => arguments = rest.by_ref().map(String::as_str).collect(),
            _ => return usage(),
        }
    }
    let start = || if reference { Server::reference(&arguments) } else { Server::start(&arguments) };
    match words.first().map(String::as_str) {
        Some("footprint") => footprints(&start, elements),
        Some("stall") => stalls(&start(), elements.unwrap_or(10_000_000), kind),
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

fn footprints(start: &dyn Fn() -> Server, elements: Option<u64>) -> ExitCode {
    let mut over = false;
    for what in FOOTPRINTS {
        let count = elements.unwrap_or(what.elements);
        let bytes = footprint(&start(), what, count);
        over |= bytes > what.limit;
        println!("{:<34}{count:>9} elements {bytes:>8.1} bytes, at most {}", what.name, what.limit);
    }
    if over { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn stalls(server: &Server, elements: u64, only: Option<&str>) -> ExitCode {
    let mut over = false;
    for kind in KINDS.iter().filter(|kind| only.is_none_or(|only| only == **kind)) {
        for ending in Ending::ALL {
            let busy = stall(server, kind, elements, ending).as_secs_f64() * 1e3;
            over |= busy > 2.0;
            println!("{kind:<8}{:<16}{elements:>9} elements {busy:>8.3} ms", format!("{ending:?}"));
        }
    }
    if over { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
