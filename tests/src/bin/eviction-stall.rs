//! `cargo xtask eviction-stall`: how long eviction keeps clients waiting, and whether the limit holds.
#![forbid(unsafe_code)]

use kara_tests::Server;
use kara_tests::eviction::stall::{Data, Phase, Run, measure};
use std::process::ExitCode;

const USAGE: &str = "eviction-stall [--megabytes N] [--seconds N] [--policy P] [--workers N] [--data small|large] [--reference]
  [-- ARGUMENTS OF THE SERVER]: writers at the limit, for each policy, with one and two workers, small and large values. No
  command may be kept for more than 1 ms by eviction, used_memory be at most 1 % above the limit, and no longer wait come
  with halving the limit.";
const POLICIES: &[&str] = &["allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-ttl"];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (mut megabytes, mut seconds, mut reference, mut arguments) = (300, 10, false, Vec::new());
    let (mut policies, mut workers, mut data) =
        (POLICIES.to_vec(), vec![1, 2], vec![Data::Small, Data::Large]);
    let mut rest = words.iter().map(String::as_str);
    while let Some(word) = rest.next() {
        match word {
            "--reference" => reference = true,
            "--" => arguments = rest.by_ref().collect(),
            _ => {
                let Some(value) = rest.next() else { return usage() };
                let number = value.parse::<u64>();
                match (word, number) {
                    ("--megabytes", Ok(n)) => megabytes = n,
                    ("--seconds", Ok(n)) => seconds = n,
                    ("--workers", Ok(n)) => workers = vec![n as usize],
                    ("--policy", _) => policies = vec![value],
                    ("--data", _) if value == "small" => data = vec![Data::Small],
                    ("--data", _) if value == "large" => data = vec![Data::Large],
                    _ => return usage(),
                }
            }
        }
    }
    let start = |own: &[&str]| {
        let all = [own, &arguments].concat();
        if reference { Server::reference(&all) } else { Server::start(&all) }
    };
    let mut short = false;
    println!(
        "limit {megabytes} MB; eviction: the most processor time before a command, and what LATENCY tells from 1 ms on; seen: p99.9 and longest of a client"
    );
    for data in data {
        for workers in &workers {
            for policy in &policies {
                let run = Run { policy, workers: *workers, data, limit: megabytes << 20, seconds };
                let (shown, preferred) = measure(&start, run);
                println!(
                    "{policy}, {workers} workers, {}{}",
                    if data == Data::Small { "small values" } else { "large values" },
                    if preferred { "" } else { " (without high priority)" }
                );
                println!(
                    "    without a limit   seen {:.2} {:.2} ms",
                    shown.without.seen_p999_ms, shown.without.seen_longest_ms
                );
                say("at the limit", &shown.full);
                say("limit halved", &shown.half);
                // A value that is being stored may be above it, one for each worker.
                let values =
                    if data == Data::Large { *workers as f64 * 100.0 / megabytes as f64 } else { 0.0 };
                let above = shown.full.above_percent > 1.0 + values;
                short |= is_long(&shown.full) || is_long(&shown.half) || above;
            }
        }
    }
    if short { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// An empty loop on a virtual machine shows steps of more than a millisecond of processor time, too, one in two seconds.
fn is_long(phase: &Phase) -> bool {
    phase.long as f64 > 1.0 + phase.seconds
}

fn say(title: &str, phase: &Phase) {
    println!(
        "    {title:<18}{:>8} evicted in {:.1} s, {:.3} % above, eviction {:.3} ms ({} over 1 ms; by the clock {} ms, in {} s), seen {:.2} {:.2} ms",
        phase.evicted,
        phase.seconds,
        phase.above_percent,
        phase.longest_ms,
        phase.long,
        phase.late_ms,
        phase.late,
        phase.seen_p999_ms,
        phase.seen_longest_ms
    );
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
