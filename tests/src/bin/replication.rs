//! `cargo xtask replication`: the long forms of what the tests run in short.
#![forbid(unsafe_code)]

use kara_tests::replication::{
    Latencies, Layout, Length, PAIRS, Side, Volume, WAYS, drill, full_sync, run_faults, run_pair,
};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const USAGE: &str =
    "replication matrix [--seconds N] [--seed N] [--pair N] [-- ARGUMENTS OF ALL SERVERS]: every pair of products, under load
replication faults [--count N] [--seed N] [-- ARGUMENTS]: links of a chain broken at random
replication drill [--seconds N]: two regions in network namespaces (as root), the primary's death and promotion
replication full-sync [--keys N] [--clients N] [--pause-us N] [--rounds N] [--pair N] [--together]
    [-- ARGUMENTS]: seconds, latency and memory of a full sync between Valkey and us, each way; the primary on one
    processor, clients (first) and replica on another, or all together on all";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (mut seconds, mut count, mut seed, mut only, mut arguments) = (8, 200, 1, None, Vec::new());
    let mut volume = Volume {
        keys: 5_000_000,
        value_bytes: 64,
        clients: 4,
        pause: Duration::from_micros(300),
        without: Duration::from_secs(10),
        layout: Layout::OneCoreEach,
    };
    let mut rounds = 1;
    let mut rest = words.iter().skip(1);
    while let Some(word) = rest.next() {
        let mut number = || rest.next().and_then(|number| number.parse::<u64>().ok());
        match word.as_str() {
            "--seconds" => seconds = number().unwrap_or(seconds),
            "--pair" => only = number(),
            "--count" => count = number().unwrap_or(count),
            "--keys" => volume.keys = number().unwrap_or(volume.keys),
            "--clients" => volume.clients = number().unwrap_or(volume.clients),
            "--pause-us" => volume.pause = number().map_or(volume.pause, Duration::from_micros),
            "--together" => volume.layout = Layout::Together,
            "--rounds" => rounds = number().unwrap_or(rounds),
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
        Some("full-sync") => {
            let ways: Vec<_> =
                WAYS.iter().enumerate().filter(|(n, _)| only.is_none_or(|only| only == *n as u64)).collect();
            for _ in 0..rounds {
                for (_, way) in &ways {
                    show_sync(way.0, way.1, volume, &arguments);
                }
            }
        }
        _ => return usage(),
    }
    ExitCode::SUCCESS
}

fn show_sync(primary: Side, replica: Side, volume: Volume, arguments: &[&str]) {
    let figures = full_sync((primary, replica), volume, arguments);
    let show = |Latencies { p50, p99, p999 }| format!("{p50:.2}/{p99:.2}/{p999:.2}");
    println!(
        "{primary:?} -> {replica:?}: {:.2} s, {:.2} of them sending; p50/p99/p99.9 {} ms (sending {}, loading {}), without \
         {}: p99.9 {:.2} times (with the machine's standstills, {:.2} and {:.2} % of requests, {:.2} ms, {:.2}); {:.0} \
         requests/s, without {:.0}; memory {:.3} times {} MB, and a log of {} MB",
        figures.seconds,
        figures.sending_seconds,
        show(figures.during),
        show(figures.sending),
        show(figures.loading),
        show(figures.without),
        figures.during.p999 / figures.without.p999,
        figures.left_out[1] * 1e2,
        figures.left_out[0] * 1e2,
        figures.all_during.p999,
        figures.all_without.p999,
        figures.during_rate,
        figures.without_rate,
        figures.memory_ratio(),
        figures.resident_bytes >> 20,
        figures.log_bytes >> 20,
    );
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
