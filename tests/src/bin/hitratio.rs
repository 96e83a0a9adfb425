//! `cargo xtask hitratio`: how many requests of a skewed trace find their key, beside the reference.
#![forbid(unsafe_code)]

use kara_tests::Server;
use kara_tests::eviction::{Trace, hit_ratios};
use std::process::ExitCode;

const USAGE: &str = "hitratio [--requests N] [--keys N] [--room N] [--seed N] [-- ARGUMENTS OF OUR SERVER]: hit ratios of
  allkeys-lru and allkeys-lfu on a trace by Zipf's law, in percent; at most half a point less than the reference's";
/// Points that ours may be worse by.
const MARGIN: f64 = 0.5;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mut trace = Trace { keys: 200_000, room: 20_000, requests: 2_000_000, skew: 0.99 };
    let (mut seed, mut arguments) = (1, Vec::new());
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        if word == "--" {
            arguments = rest.by_ref().map(String::as_str).collect();
            continue;
        }
        let Some(number) = rest.next().and_then(|number| number.parse::<usize>().ok()) else {
            return usage();
        };
        match word.as_str() {
            "--requests" => trace.requests = number,
            "--keys" => trace.keys = number,
            "--room" => trace.room = number,
            "--seed" => seed = number as u64,
            _ => return usage(),
        }
    }
    println!(
        "{} keys, room for {}, {} requests, skew {}",
        trace.keys, trace.room, trace.requests, trace.skew
    );
    let mut short = false;
    for policy in ["allkeys-lru", "allkeys-lfu"] {
        let (ours, theirs) = (Server::start(&arguments), Server::reference(&[]));
        let [(ours, our_keys), (theirs, their_keys)] = hit_ratios(&ours, &theirs, policy, trace, seed);
        short |= ours < theirs - MARGIN;
        println!(
            "{policy:<12} {ours:>6.2} % with {our_keys} keys, reference {theirs:>6.2} % with {their_keys}, {:+.2} points",
            ours - theirs
        );
    }
    if short { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
