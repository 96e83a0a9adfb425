//! `kara-entrypoint`: what a container starts, in place of a shell script, as the image has no shell. It becomes the
//! program that the arguments mean, under the same process number, so that signals reach it.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

const SERVER: &str = "valkey-server";
/// More flags for the server, as in Valkey's image.
const MORE: &str = "VALKEY_EXTRA_FLAGS";

/// Becomes another program; comes back only where that fails.
pub fn main(args: &[Vec<u8>]) -> ExitCode {
    let (program, args) = meant(args, &std::env::var_os(MORE).unwrap_or_default());
    let error = Command::new(&program).args(args).exec();
    eprintln!("kara-entrypoint: {}: {error}", program.to_string_lossy());
    // As shells say it.
    ExitCode::from(if error.kind() == ErrorKind::NotFound { 127 } else { 126 })
}

/// Flags or a configuration file are the server's; anything else names a program.
fn meant(args: &[Vec<u8>], more: &OsStr) -> (OsString, Vec<OsString>) {
    let words = |args: &[Vec<u8>]| args.iter().cloned().map(OsString::from_vec).collect::<Vec<_>>();
    let (program, mut rest) = match args.split_first() {
        None => (SERVER.into(), Vec::new()),
        Some((first, _)) if first.starts_with(b"-") || first.ends_with(b".conf") => {
            (SERVER.into(), words(args))
        }
        Some((first, rest)) => (OsString::from_vec(first.clone()), words(rest)),
    };
    if program.as_bytes().ends_with(b"-server") {
        let more = more.as_bytes().split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        rest.extend(more.map(|word| OsStr::from_bytes(word).to_owned()));
    }
    (program, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(args: &[&str], more: &str) -> String {
        let args: Vec<Vec<u8>> = args.iter().map(|arg| arg.as_bytes().to_vec()).collect();
        let (program, rest) = meant(&args, OsStr::new(more));
        let words: Vec<String> =
            std::iter::once(program).chain(rest).map(|word| word.to_string_lossy().into_owned()).collect();
        words.join(" ")
    }

    #[test]
    fn flags_are_the_server_s() {
        assert_eq!(line(&[], ""), "valkey-server");
        assert_eq!(line(&["--requirepass", "x"], ""), "valkey-server --requirepass x");
        assert_eq!(line(&["/etc/k.conf", "--port", "1"], ""), "valkey-server /etc/k.conf --port 1");
        assert_eq!(line(&["valkey-server", "--port", "1"], ""), "valkey-server --port 1");
        assert_eq!(line(&["redis-server"], " --port  1 "), "redis-server --port 1");
        assert_eq!(line(&["valkey-cli", "PING"], "--port 1"), "valkey-cli PING");
    }
}
