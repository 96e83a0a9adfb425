//! `cargo xtask test`: peers, one build, every test; and the two commands that write what tests compare with.

use crate::build::{cargo, links};
use crate::process::{self, Outcome, which};
use kara_tests::{Server, golden as files};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

/// Sets up what the tests need and runs them all; further arguments go to the runner.
pub fn run(arguments: &[String]) -> Outcome {
    crate::peers::run(&[])?;
    build()?;
    let nextest = which("cargo-nextest").is_some();
    let mut command = if nextest {
        cargo(&["nextest", "run", "--workspace", "--no-fail-fast"])
    } else {
        cargo(&["test", "--workspace", "--no-fail-fast", "--"])
    };
    command.args(arguments);
    let (passed, failed, succeeded) = counted(command, if nextest { NEXTEST } else { CARGO })?;
    println!("{passed} passed, {failed} failed");
    if succeeded { Ok(()) } else { Err("a test failed".into()) }
}

/// The program and its names, in the profile that tests are built in.
fn build() -> Outcome {
    process::run(&mut cargo(&["build", "--quiet", "--workspace", "--bins"]))?;
    process::run(&mut cargo(&[
        "build",
        "--quiet",
        "--manifest-path",
        "tests/clients/redis-rs/Cargo.toml",
        "--target-dir",
        "target/redis-rs",
    ]))?;
    links(&crate::build::folder("dev"))
}

/// Runs the tests with their output passed on, and adds up the counts that the runner prints.
fn counted(mut command: Command, summary: &str) -> Outcome<(u64, u64, bool)> {
    // nextest writes to standard error, cargo's own runner to standard output: one pipe for both keeps the order.
    let (reader, writer) = std::io::pipe().map_err(|fault| fault.to_string())?;
    let errors = writer.try_clone().map_err(|fault| fault.to_string())?;
    let mut child = command
        .env("CARGO_TERM_COLOR", "never")
        // A failing property test fails many times before it has found its smallest case.
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(errors)
        .spawn()
        .map_err(|fault| format!("cargo: {fault}"))?;
    drop(command); // it holds the pipe's other ends
    let (mut passed, mut failed) = (0, 0);
    let mut out = std::io::stdout();
    for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        let _ = writeln!(out, "{line}");
        let (p, f) = counts(&line, summary);
        passed += p;
        failed += f;
    }
    let status = child.wait().map_err(|fault| fault.to_string())?;
    Ok((passed, failed, status.success()))
}

/// How the runners' summaries begin. nextest shows the output of failed tests, in which the other one may stand.
const NEXTEST: &str = "Summary [";
const CARGO: &str = "test result: ";

/// `Summary [ 1.2s] 9 tests run: 7 passed, 1 failed, 1 timed out, 2 skipped` or
/// `test result: ok. 7 passed; 1 failed; ...`.
fn counts(line: &str, summary: &str) -> (u64, u64) {
    let rest = line.trim().strip_prefix(summary).unwrap_or_default();
    let separator = if summary == NEXTEST { "run: " } else { ". " };
    let figures = rest.split_once(separator).map_or("", |(_, figures)| figures);
    let (mut passed, mut failed) = (0, 0);
    for figure in figures.split([',', ';']) {
        let (number, kind) = figure.trim().split_once(' ').unwrap_or_default();
        let number: u64 = number.parse().unwrap_or(0);
        match kind.split_whitespace().next() {
            Some("passed") => passed += number,
            Some("failed" | "timed" | "exec") => failed += number,
            _ => {}
        }
    }
    (passed, failed)
}

/// `cargo xtask golden`: the reference's tables, as files.
pub fn golden(_arguments: &[String]) -> Outcome {
    crate::peers::run(&[])?;
    let reference = Server::reference(&[]);
    for (name, make) in files::FILES {
        let path = files::path(name);
        std::fs::write(&path, make(&mut reference.client()))
            .map_err(|fault| format!("{}: {fault}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

/// `cargo xtask manifests`: what the chart gives for its examples.
pub fn manifests(_arguments: &[String]) -> Outcome {
    crate::peers::run(&[])?;
    let peers = kara_tests::peers();
    let mut write = Command::new(peers.join("venv/bin/python"));
    process::run(
        write.arg(kara_tests::root().join("tests/deploy/chart.py")).arg("write").env("KARA_PEERS", peers),
    )
}

/// `cargo xtask crowds [--connections N] [--seconds S]`: many idle connections, and a flood of nonsense. The limit of open
/// files must allow for the connections, here and in the server.
pub fn crowds(arguments: &[String]) -> Outcome {
    build()?;
    let filter =
        ["test", "--quiet", "--package", "kara-tests", "--test", "it", "--", "crowds::", "--nocapture"];
    let mut command = cargo(&filter);
    command.env("KARA_IDLE_CONNECTIONS", "10000").env("KARA_FLOOD_SECONDS", "30");
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let name = match word.as_str() {
            "--connections" => "KARA_IDLE_CONNECTIONS",
            "--seconds" => "KARA_FLOOD_SECONDS",
            _ => return Err(format!("unknown option {word}")),
        };
        command.env(name, words.next().ok_or_else(|| format!("{word} wants a value"))?);
    }
    process::run(&mut command)
}

/// `cargo xtask stalls [KEYS] [SHARDS]`: how long single operations hold others up while the table grows.
pub fn stalls(arguments: &[String]) -> Outcome {
    let example = ["run", "--quiet", "--release", "--package", "kara-keyspace", "--features", "jemalloc"];
    process::run(cargo(&example).args(["--example", "stalls", "--"]).args(arguments))
}

/// `cargo xtask gaps`: the test that checks the README's list writes it.
pub fn gaps(_arguments: &[String]) -> Outcome {
    build()?;
    let filter =
        ["test", "--quiet", "--package", "kara-tests", "--test", "it", "--", "gaps::", "--nocapture"];
    process::run(cargo(&filter).env("KARA_GAPS", "write"))
}

#[cfg(test)]
mod tests {
    use super::{CARGO, NEXTEST, counts};

    #[test]
    fn both_runners_are_understood() {
        let nextest = |line| counts(line, NEXTEST);
        assert_eq!(nextest("     Summary [   0.028s] 6 tests run: 6 passed, 3 skipped"), (6, 0));
        assert_eq!(
            nextest(" Summary [ 1s] 9 tests run: 6 passed (1 slow), 2 failed, 1 timed out, 0 skipped"),
            (6, 3)
        );
        assert_eq!(nextest("    test result: FAILED. 0 passed; 1 failed"), (0, 0));
        let cargo = |line| counts(line, CARGO);
        assert_eq!(
            cargo("test result: FAILED. 5 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out"),
            (5, 1)
        );
        assert_eq!(cargo("test a_result ... ok"), (0, 0));
    }
}
