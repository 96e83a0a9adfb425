//! The programs beside the server, as commands to be run: ours, and the reference's client.

use crate::{peers, server};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

/// `kara` under the name of one of its tools: `kara-cli`.
pub fn own(name: &str) -> Command {
    let mut command = Command::new(server::own_program());
    command.arg0(name);
    command
}

/// The reference's client.
///
/// # Panics
/// Where it is not installed (`cargo xtask peers`).
pub fn reference_cli() -> Command {
    let path = peers().join("bin/valkey-cli");
    assert!(path.exists(), "{} is missing: cargo xtask peers installs it", path.display());
    Command::new(path)
}

/// Runs a command to its end with that text on its standard input.
///
/// # Panics
/// Where it can't be started.
pub fn with_input(command: &mut Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|fault| panic!("{command:?}: {fault}"));
    let pipe = child.stdin.take();
    let text = input.to_vec();
    // Who doesn't read its input closes it early: that is no fault of the test.
    let writer = std::thread::spawn(move || pipe.map(|mut pipe| pipe.write_all(&text)));
    let output = child.wait_with_output().unwrap_or_else(|fault| panic!("{command:?}: {fault}"));
    let _ = writer.join();
    output
}
