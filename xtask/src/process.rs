//! Running other programs, and the errors that come of it.

use std::path::Path;
use std::process::{Command, Stdio};

/// Success, or a message for the user.
pub type Outcome<T = ()> = Result<T, String>;

/// Runs a program with its output on ours.
pub fn run(command: &mut Command) -> Outcome {
    let shown = shown(command);
    let status = command.status().map_err(|fault| format!("{shown}: {fault}"))?;
    if status.success() { Ok(()) } else { Err(format!("{shown}: {status}")) }
}

/// Runs a program that only matters where it fails: then its output is the error.
pub fn run_quietly(command: &mut Command) -> Outcome {
    output(command).map(|_| ())
}

/// Runs a program and gives its standard output.
pub fn output(command: &mut Command) -> Outcome<String> {
    let shown = shown(command);
    let done = command.stdin(Stdio::null()).output().map_err(|fault| format!("{shown}: {fault}"))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let said = [done.stdout, done.stderr].concat();
    Err(format!("{shown}: {}\n{}", done.status, String::from_utf8_lossy(&said)))
}

/// Where `program` is in PATH.
pub fn which(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// A symbolic link at `link`, replaced where it points elsewhere.
pub fn link(target: &Path, link: &Path) -> Outcome {
    if std::fs::read_link(link).is_ok_and(|present| present == target) {
        return Ok(());
    }
    let _ = std::fs::remove_file(link);
    std::os::unix::fs::symlink(target, link).map_err(|fault| format!("link {}: {fault}", link.display()))
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
