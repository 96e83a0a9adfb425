//! `cargo xtask differential`: long differential runs.
#![forbid(unsafe_code)]

use kara_tests::differential::{EventOptions, FAMILIES, Options, run, run_events};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const USAGE: &str = "differential [--family a,b,...] [--commands N] [--seconds S] [--seed N] [--round N]
             [--max-findings N] [-- ARGUMENTS OF OUR SERVER]
differential --events [the same]: compares keyspace notifications instead of replies
Sends the same random commands to this server and to Valkey 9.1.2 and compares every reply.
Families: ";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).peekable();
    let events = words.next_if(|word| word == "--events").is_some();
    let options = match parse(words) {
        Ok(options) => options,
        Err(why) => {
            let names: Vec<&str> = FAMILIES.iter().map(|(name, _)| *name).collect();
            eprintln!("{why}\n{USAGE}{}", names.join(" "));
            return ExitCode::from(2);
        }
    };
    if events {
        return compare_events(&options);
    }
    let started = Instant::now();
    let outcome = match run(&options) {
        Ok(outcome) => outcome,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    println!(
        "{} commands in {} rounds, {:.0} s, seed {}: {} kinds of difference",
        outcome.commands,
        outcome.rounds,
        started.elapsed().as_secs_f64(),
        options.seed,
        outcome.findings.len()
    );
    for (kind, count) in &outcome.counts {
        println!("  {count:>6} x {kind}");
    }
    if outcome.deliberate > 0 {
        println!("  {:>6} x deliberate (README)", outcome.deliberate);
    }
    if !outcome.unknown.is_empty() {
        println!("not known to our server: {}", outcome.unknown.into_iter().collect::<Vec<_>>().join(", "));
    }
    if outcome.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn compare_events(options: &Options) -> ExitCode {
    let outcome = run_events(&EventOptions {
        families: options.families.clone(),
        commands: options.commands,
        seed: options.seed,
        round: options.round,
        arguments: options.arguments.clone(),
    });
    match outcome {
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
        Ok(outcome) => {
            for (kind, example) in &outcome.findings {
                println!("=== {kind}\n{example}\n");
            }
            let found = outcome.findings.len();
            println!("{} commands, {} events: {found} kinds of difference", outcome.commands, outcome.events);
            if found == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { commands: u64::MAX, ..Options::default() };
    while let Some(word) = words.next() {
        if word == "--" {
            options.arguments = words.collect();
            break;
        }
        let value = words.next().ok_or_else(|| format!("{word} wants a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{word}: {value} is no number"));
        match word.as_str() {
            "--family" => options.families = value.split(',').map(str::to_string).collect(),
            "--commands" => options.commands = number()?,
            "--seconds" => options.time_limit = Some(Duration::from_secs(number()?)),
            "--seed" => options.seed = number()?,
            "--round" => options.round = number()? as usize,
            "--max-findings" => options.max_findings = number()? as usize,
            _ => return Err(format!("unknown option {word}")),
        }
    }
    if options.commands == u64::MAX && options.time_limit.is_none() {
        options.commands = 100_000;
    }
    Ok(options)
}
