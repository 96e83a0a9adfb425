//! One command each for checks, tests, benches and reference peers: `cargo xtask` lists them.
#![forbid(unsafe_code)]

mod bench;
mod build;
mod fuzz;
mod peers;
mod process;
mod suite;
mod test;
mod tidy;

use process::Outcome;
use std::process::ExitCode;

/// A command: its name, its arguments and purpose, what runs it.
type Command = (&'static str, &'static str, fn(&[String]) -> Outcome);

const COMMANDS: &[Command] = &[
    ("test", "[NEXTEST ARGUMENTS]: sets up what tests need, builds once, runs every test", test::run),
    (
        "tidy",
        "checks layers, file sizes, unsafe code, unfinished marks, module headers, links in documents",
        tidy::run,
    ),
    ("peers", "installs the reference servers and client libraries into .peers/", peers::run),
    (
        "differential",
        "[--family a,b] [--commands N] [--seconds S] [--seed N]: random commands, our replies against Valkey's",
        build::differential,
    ),
    (
        "collections",
        "footprint|stall [--elements N] [--kind K] [--reference]: memory per element; waits of others while a large value goes",
        build::collections,
    ),
    (
        "replication",
        "matrix|faults|drill|full-sync [--seconds N] [--count N] [--seed N] [--keys N]: pairs of products; broken links; two regions; speed",
        build::replication,
    ),
    (
        "full-sync",
        "[--keys N] [--clients N] [--rounds N]: a full sync between Valkey and us, each way: seconds, latency, memory",
        build::full_sync,
    ),
    (
        "hitratio",
        "[--requests N] [--keys N] [--room N]: share of a skewed trace that a full cache finds, beside Valkey",
        build::hitratio,
    ),
    (
        "eviction-stall",
        "[--megabytes N] [--seconds N] [--policy P] [--workers N] [--data small|large]: waits by eviction, and its limit",
        build::eviction_stall,
    ),
    (
        "suite",
        "--tree CHECKOUT [--unit U].. [--io-threads N] [--logs DIR] [--json FILE]: Valkey's Tcl suite on our programs",
        suite::run,
    ),
    (
        "bench",
        "[--tests strings,types,messages,large|set,get..] [--pipeline 1,16] [--rounds N] [--replica] [--json FILE]: side by side with Valkey",
        bench::run,
    ),
    (
        "bench-load",
        "KIND PORT CLIENTS PIPELINE REQUESTS KEYS SIZE: a load generator, for bench",
        bench::load::run,
    ),
    (
        "fuzz",
        "[--seconds N] [--target T]: every fuzz target, with a sanitizer (nightly compiler)",
        fuzz::run_targets,
    ),
    (
        "crash",
        "[--rounds N] [--seed N] [--dev]: kill -9 at random moments and named places; what was answered must be there",
        build::crash,
    ),
    (
        "power-loss",
        "[--rounds N] [--fs xfs|ext4]: a file system shut down under load (root and loop devices needed)",
        build::power_loss,
    ),
    (
        "snapshot-load",
        "[--keys N] [--clients N] [--reference]: latency and memory while saving, and beside a large hash",
        build::snapshot_load,
    ),
    (
        "crowds",
        "[--connections N] [--seconds S]: what idle connections cost; a flood of nonsense beside other clients",
        test::crowds,
    ),
    (
        "stalls",
        "[KEYS] [SHARDS]: the longest operations while a table grows, and FLUSHALL ASYNC",
        test::stalls,
    ),
    (
        "scrape",
        "[--keys N]: how long a page of metrics takes while N keys are saved and loaded",
        build::scrape,
    ),
    ("manifests", "writes deploy/manifests from the chart", test::manifests),
    ("golden", "writes tests/golden/ anew from the reference", test::golden),
    ("gaps", "writes the README's list of gaps", test::gaps),
];

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let name = words.next().unwrap_or_default();
    let arguments: Vec<String> = words.collect();
    let Some((_, _, run)) = COMMANDS.iter().find(|(known, _, _)| *known == name) else {
        println!("cargo xtask COMMAND:");
        for (name, purpose, _) in COMMANDS {
            println!("  {name:<14}{purpose}");
        }
        return if name.is_empty() || name == "help" { ExitCode::SUCCESS } else { ExitCode::from(2) };
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask {name}: {why}");
            ExitCode::FAILURE
        }
    }
}
