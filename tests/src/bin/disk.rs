//! `cargo xtask crash`, `power-loss` and `snapshot-load`: long runs of what the tests sample.
#![forbid(unsafe_code)]

use kara_tests::Server;
use kara_tests::disk::{crash, load, power};
use std::process::ExitCode;

const USAGE: &str = "disk crash [--rounds N] [--seed N]
disk power-loss [--rounds N] [--seed N] [--fs xfs|ext4]
disk snapshot-load [--keys N] [--clients N] [--seconds N] [--fields N] [--reference] [-- ARGUMENTS OF THE SERVER]";

#[derive(Default)]
struct Options {
    rounds: Option<u64>,
    seed: Option<u64>,
    fs: Option<String>,
    keys: Option<u64>,
    clients: Option<u64>,
    seconds: Option<u64>,
    fields: Option<u64>,
    reference: bool,
    arguments: Vec<String>,
}

fn parse(words: &[String]) -> Option<Options> {
    let mut options = Options::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|word| word.parse().ok());
        match word.as_str() {
            "--rounds" => options.rounds = Some(number()?),
            "--seed" => options.seed = Some(number()?),
            "--keys" => options.keys = Some(number()?),
            "--clients" => options.clients = Some(number()?),
            "--seconds" => options.seconds = Some(number()?),
            "--fields" => options.fields = Some(number()?),
            "--fs" => options.fs = Some(words.next()?.clone()),
            "--reference" => options.reference = true,
            "--" => options.arguments = words.by_ref().cloned().collect(),
            _ => return None,
        }
    }
    Some(options)
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let options = words.get(1..).and_then(parse);
    let (Some(what), Some(options)) = (words.first(), options) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    // A seed that isn't asked for is the clock's, and shown: a failure can be run again.
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let seed = options.seed.unwrap_or(since.as_secs());
    println!("seed {seed}");
    let result = match what.as_str() {
        "crash" => crash::rounds(options.rounds.unwrap_or(200), seed).map(|ends| {
            for (place, count) in ends {
                println!("{count:>4} rounds ended at {place}");
            }
        }),
        "power-loss" => {
            let kinds = options.fs.clone().map_or_else(|| vec!["xfs".into(), "ext4".into()], |fs| vec![fs]);
            kinds.iter().try_for_each(|kind: &String| {
                let rounds = options.rounds.unwrap_or(50);
                power::rounds(kind, rounds, seed).map(|sectors| {
                    println!("{kind}: {rounds} rounds, nothing lost; the disk lost {sectors} sectors that weren't flushed");
                })
            })
        }
        "snapshot-load" => snapshot_load(&options),
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("{fault}");
            ExitCode::FAILURE
        }
    }
}

fn snapshot_load(options: &Options) -> Result<(), String> {
    let arguments: Vec<&str> = options.arguments.iter().map(String::as_str).collect();
    let start = || if options.reference { Server::reference(&arguments) } else { Server::start(&arguments) };
    let size = load::Size {
        keys: options.keys.unwrap_or(5_000_000),
        value_bytes: 64,
        clients: options.clients.unwrap_or(20),
        seconds: options.seconds.unwrap_or(10),
    };
    let figures = load::measure(&start(), size);
    let (slower, more) =
        (figures.with_ms / figures.without_ms, figures.peak_bytes as f64 / figures.before_bytes as f64);
    println!(
        "{} keys: p99.9 {:.3} ms, while saving {:.3} ms ({slower:.2} times, at most 1.5; longest {:.1} ms); \
         {:.1} s; resident {} MB, at the peak {} MB ({more:.3} times, at most 1.1)",
        size.keys,
        figures.without_ms,
        figures.with_ms,
        figures.worst_with_ms,
        figures.snapshot_s,
        figures.before_bytes >> 20,
        figures.peak_bytes >> 20,
    );
    let fields = options.fields.unwrap_or(1_000_000);
    let waits = load::beside_a_large_hash(&start(), fields);
    println!(
        "{fields} fields: others wait {:.2} ms at most (2; while nothing is saved {:.2}), who writes to it {:.2} ms",
        waits.others_ms, waits.others_idle_ms, waits.own_ms
    );
    Ok(())
}
