//! `kara-check-aof [--fix | --truncate-to-timestamp SECONDS] FILE`: FILE is a manifest or a single log.

use crate::check_rdb;
use kara_persist::aof::manifest::Manifest;
use kara_persist::aof::reader::{AofFault, CommandReader, Item, is_rdb};
use kara_persist::rdb::file::path;
use kara_persist::rdb::source::Buffered;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::ExitCode;

/// What to do about what is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Orders {
    fix: bool,
    until_s: Option<i64>,
}

/// How far a log is whole.
#[derive(Debug, Default)]
struct Analysis {
    size: u64,
    valid: u64,
    /// Lines up to there, from 1.
    line: u64,
    /// Where the first record after the wanted time begins.
    cut: Option<u64>,
    complaint: Option<String>,
}

/// The program.
pub fn main(args: &[Vec<u8>]) -> ExitCode {
    let Some((orders, name)) = parse(args) else {
        println!("Usage: kara-check-aof [--fix|--truncate-to-timestamp $timestamp] <file.manifest|file.aof>");
        return ExitCode::FAILURE;
    };
    match check(&path(name), orders) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            println!("{text}");
            ExitCode::FAILURE
        }
    }
}

fn parse(args: &[Vec<u8>]) -> Option<(Orders, &[u8])> {
    match args {
        [name] => Some((Orders::default(), name)),
        [fix, name] if fix == b"--fix" => Some((Orders { fix: true, until_s: None }, name)),
        [option, seconds, name] if option == b"--truncate-to-timestamp" => {
            let seconds = std::str::from_utf8(seconds).ok()?.parse().ok()?;
            Some((Orders { fix: false, until_s: Some(seconds) }, name))
        }
        _ => None,
    }
}

fn head(file: &Path) -> Result<Vec<u8>, String> {
    let mut head = Vec::new();
    let read = File::open(file).and_then(|file| file.take(6).read_to_end(&mut head));
    read.map(|_| head).map_err(|error| format!("Cannot open file {}: {error}, aborting...", file.display()))
}

fn check(file: &Path, orders: Orders) -> Result<(), String> {
    let head = head(file)?;
    if head.starts_with(b"file ") || head.starts_with(b"#") && !head.starts_with(b"#TS:") {
        return check_parts(file, orders);
    }
    println!("Start checking Old-Style AOF");
    check_one("AOF", file, orders, true)
}

fn check_parts(manifest: &Path, orders: Orders) -> Result<(), String> {
    let text = std::fs::read(manifest).map_err(|error| format!("Cannot open file: {error}"))?;
    let parts = Manifest::parse(&text).map_err(|fault| {
        format!("Reading the manifest file, at line {}\n>>> '{}'\n{}", fault.line, fault.text, fault.reason)
    })?;
    println!("Start checking Multi Part AOF");
    let dir = manifest.parent().unwrap_or(Path::new(""));
    let count = parts.in_order().count();
    let mut number = 0;
    if let Some(base) = &parts.base {
        number += 1;
        let file = dir.join(&base.name);
        let format = if is_rdb(&head(&file)?) { "RDB" } else { "RESP" };
        println!("Start to check BASE AOF ({format} format).");
        check_one("BASE AOF", &file, orders, number == count)?;
    }
    if !parts.incrs.is_empty() {
        println!("Start to check INCR files.");
    }
    for incr in &parts.incrs {
        number += 1;
        check_one("INCR AOF", &dir.join(&incr.name), orders, number == count)?;
    }
    println!("All AOF files and manifest are valid");
    Ok(())
}

fn check_one(what: &str, file: &Path, orders: Orders, is_last: bool) -> Result<(), String> {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let unreadable = |error: io::Error| format!("Cannot open file {}: {error}, aborting...", file.display());
    let found = analyze(file, orders).map_err(unreadable)??;
    if let Some(complaint) = &found.complaint {
        println!("{complaint}");
    }
    println!(
        "AOF analyzed: filename={name}, size={}, ok_up_to={}, ok_up_to_line={}, diff={}",
        found.size,
        found.valid,
        found.line,
        found.size.saturating_sub(found.valid)
    );
    if let Some(seconds) = orders.until_s {
        return truncate_to(file, &name, &found, seconds, is_last);
    }
    if found.valid == found.size {
        println!("{what} {name} is valid");
        return Ok(());
    }
    if !orders.fix {
        return Err(format!("{what} {name} is not valid. Use the --fix option to try fixing it."));
    }
    if !is_last {
        return Err(format!("Failed to truncate AOF {name} because it is not the last file"));
    }
    println!(
        "This will shrink the AOF {name} from {} bytes, with {} bytes, to {} bytes",
        found.size,
        found.size - found.valid,
        found.valid
    );
    print!("Continue? [y/N]: ");
    // The question is shown even where nobody could answer it.
    let _ = io::stdout().flush();
    let mut answer = String::new();
    let asked = io::stdin().read_line(&mut answer);
    if asked.is_err() || !answer.trim_start().starts_with(['y', 'Y']) {
        return Err("Aborting...".to_owned());
    }
    cut(file, found.valid).map_err(|error| format!("Failed to truncate AOF {name}: {error}"))?;
    println!("Successfully truncated AOF {name}");
    Ok(())
}

fn truncate_to(file: &Path, name: &str, found: &Analysis, seconds: i64, is_last: bool) -> Result<(), String> {
    let Some(offset) = found.cut else {
        println!("Truncate nothing in AOF {name} to timestamp {seconds}");
        return Ok(());
    };
    if offset == 0 {
        return Err(format!("AOF {name} has nothing up to timestamp {seconds}, aborting..."));
    }
    if !is_last {
        return Err(format!(
            "Failed to truncate AOF {name} to timestamp {seconds} to offset {offset} because it is not the last \
             file.\nIf you insist, please delete all files after this file according to the manifest file and delete \
             the corresponding records in manifest file manually. Then re-run kara-check-aof."
        ));
    }
    cut(file, offset)
        .map_err(|error| format!("Failed to truncate AOF {name} to timestamp {seconds}: {error}"))?;
    println!("Successfully truncated AOF {name} to timestamp {seconds}");
    Ok(())
}

fn cut(file: &Path, size: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(file)?;
    file.set_len(size)?;
    file.sync_all()
}

/// Reads a log to its end or its first fault.
fn analyze(place: &Path, orders: Orders) -> io::Result<Result<Analysis, String>> {
    let mut file = File::open(place)?;
    let size = file.metadata()?.len();
    let mut head = Vec::new();
    (&mut file).take(6).read_to_end(&mut head)?;
    file.seek(SeekFrom::Start(0))?;
    let source = if is_rdb(&head) {
        println!("The AOF appears to start with an RDB preamble.\nChecking the RDB preamble to start:");
        match check_rdb::read(file, true).1 {
            Ok((_, rest)) => {
                println!("RDB preamble is OK, proceeding with AOF tail...");
                rest
            }
            Err(fault) => {
                return Ok(Err(format!("{fault}\nRDB preamble of AOF file is not sane, aborting.")));
            }
        }
    } else {
        Buffered::new(file, false)
    };
    Ok(Ok(commands(CommandReader::new(source), size, orders)))
}

fn commands<R: Read>(mut reader: CommandReader<R>, size: u64, orders: Orders) -> Analysis {
    let mut found = Analysis { size, valid: reader.position(), line: 1, ..Analysis::default() };
    let (mut line, mut in_multi) = (1, false);
    loop {
        let before = reader.position();
        match reader.next() {
            Ok(Item::End) => break,
            Ok(Item::Timestamp(seconds)) => {
                line += 1;
                if orders.until_s.is_some_and(|until| seconds > until) {
                    found.cut = Some(before);
                    break;
                }
            }
            Ok(Item::Annotation) => line += 1,
            Ok(Item::Command) => {
                let args = reader.args();
                line += 1 + 2 * args.len() as u64;
                let is = |word: &[u8]| args.first().is_some_and(|name| name.eq_ignore_ascii_case(word));
                if is(b"MULTI") || is(b"EXEC") {
                    if is(b"MULTI") == in_multi {
                        let which = if in_multi { "MULTI" } else { "EXEC" };
                        found.complaint = Some(format!("{before:#x}: Unexpected {which}"));
                        break;
                    }
                    in_multi = !in_multi;
                }
            }
            Err(fault) => {
                found.complaint = Some(match fault {
                    AofFault::Truncated => format!("{before:#x}: the file ends in the middle of a command"),
                    AofFault::Format => format!("{before:#x}: not a command"),
                    AofFault::Io(error) => format!("{before:#x}: {error}"),
                });
                break;
            }
        }
        if !in_multi {
            (found.valid, found.line) = (reader.position(), line);
        }
    }
    if in_multi && found.complaint.is_none() {
        found.complaint = Some("Reached EOF before reading EXEC for MULTI".to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn analysis(text: &[u8], until_s: Option<i64>) -> Analysis {
        let reader = CommandReader::new(Buffered::new(text, false));
        commands(reader, text.len() as u64, Orders { fix: false, until_s })
    }

    #[test]
    fn faults_and_half_transactions() {
        let whole = b"*3\r\n$3\r\nset\r\n$3\r\nfoo\r\n$5\r\nhello\r\n";
        let found = analysis(&[&whole[..], b"!!!"].concat(), None);
        assert_eq!((found.valid, found.line), (whole.len() as u64, 8));
        let found = analysis(&[&whole[..], b"*1\r\n$5\r\nMULTI\r\n", whole].concat(), None);
        assert_eq!(found.valid, whole.len() as u64);
        assert!(found.complaint.is_some());
    }

    #[test]
    fn times() {
        let ping = b"*1\r\n$4\r\nPING\r\n";
        let text = [&b"#TS:10\r\n"[..], ping, b"#TS:12\r\n", ping].concat();
        assert_eq!(analysis(&text, Some(11)).cut, Some(8 + ping.len() as u64));
        assert_eq!(analysis(&text, Some(12)).cut, None);
        assert_eq!(analysis(&text, None).valid, text.len() as u64);
    }
}
