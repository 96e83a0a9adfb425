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
    let command = if which("cargo-nextest").is_some() {
        let mut command = cargo(&["nextest", "run", "--workspace", "--no-fail-fast"]);
        command.args(arguments);
        command
    } else {
        let mut command = cargo(&["test", "--workspace", "--no-fail-fast", "--"]);
        command.args(arguments);
        command
    };
    let (passed, failed, succeeded) = counted(command)?;
    println!("{passed} passed, {failed} failed");
    if succeeded { Ok(()) } else { Err("a test failed".into()) }
}

/// The program and its names, in the profile that tests are built in.
fn build() -> Outcome {
    process::run(&mut cargo(&["build", "--quiet", "--workspace", "--all-targets"]))?;
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
fn counted(mut command: Command) -> Outcome<(u64, u64, bool)> {
    // nextest writes to standard error, cargo's own runner to standard output: one pipe for both keeps the order.
    let (reader, writer) = std::io::pipe().map_err(|fault| fault.to_string())?;
    let errors = writer.try_clone().map_err(|fault| fault.to_string())?;
    let mut child = command
        .env("CARGO_TERM_COLOR", "never")
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
        let (p, f) = counts(&line);
        passed += p;
        failed += f;
    }
    let status = child.wait().map_err(|fault| fault.to_string())?;
    Ok((passed, failed, status.success()))
}

/// `Summary [ 1.2s] 9 tests run: 7 passed, 1 failed, 1 timed out, 2 skipped` or
/// `test result: ok. 7 passed; 1 failed; ...`.
fn counts(line: &str) -> (u64, u64) {
    let line = line.trim();
    let figures = match (line.strip_prefix("Summary ["), line.strip_prefix("test result: ")) {
        (Some(rest), _) => rest.split_once("run: ").map_or("", |(_, figures)| figures),
        (_, Some(rest)) => rest.split_once(". ").map_or("", |(_, figures)| figures),
        _ => "",
    };
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

/// `cargo xtask gaps`: the test that checks the README's list writes it.
pub fn gaps(_arguments: &[String]) -> Outcome {
    build()?;
    let filter =
        ["test", "--quiet", "--package", "kara-tests", "--test", "it", "--", "gaps::", "--nocapture"];
    process::run(cargo(&filter).env("KARA_GAPS", "write"))
}

#[cfg(test)]
mod tests {
    use super::counts;

    #[test]
    fn both_runners_are_understood() {
        assert_eq!(counts("     Summary [   0.028s] 6 tests run: 6 passed, 3 skipped"), (6, 0));
        assert_eq!(
            counts(" Summary [ 1.0s] 9 tests run: 6 passed (1 slow), 2 failed, 1 timed out, 0 skipped"),
            (6, 3)
        );
        assert_eq!(
            counts("test result: FAILED. 5 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out"),
            (5, 1)
        );
        assert_eq!(counts("test a_result ... ok"), (0, 0));
    }
}
