//! One command each for checks, tests, benches and reference peers: `cargo xtask` lists them.
#![forbid(unsafe_code)]

mod build;
mod peers;
mod process;

use process::Outcome;
use std::process::ExitCode;

/// A command: its name, its arguments and purpose, what runs it.
type Command = (&'static str, &'static str, fn(&[String]) -> Outcome);

const COMMANDS: &[Command] = &[
    ("peers", "installs the reference servers and client libraries into .peers/", peers::run),
    (
        "differential",
        "[--family a,b] [--commands N] [--seconds S] [--seed N]: random commands, our replies against Valkey's",
        build::differential,
    ),
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
