//! Speaking to a server as a replica would: `--replica` shows the stream, `--rdb` and `--functions-rdb` keep the file.

use super::link::{Fault, Link};
use super::options::Output;
use super::session::{Exit, Session, emit};
use kara_resp::Value;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// The mark that ends a file whose length the primary doesn't know.
const MARK_LEN: usize = 40;
/// As replicas do.
const ACKNOWLEDGE_EVERY: Duration = Duration::from_secs(1);
/// A primary's answer is a short line; more is no answer.
const MAX_LINE: usize = 4096;

/// What the primary sends before its stream of commands.
enum Payload {
    /// Nothing: it goes on where we were.
    None,
    Bytes(u64),
    UntilMark([u8; MARK_LEN]),
}

fn fail(message: &str) -> Exit {
    eprintln!("{message}");
    Exit(1)
}

/// REPLCONF with one pair; an older server may refuse it, which is false.
fn replconf(link: &mut Link, name: &str, value: &str) -> Result<bool, Exit> {
    eprintln!("sending REPLCONF {name} {value}");
    match link.ask(&["REPLCONF", name, value]) {
        Ok(Value::Error(text)) => {
            eprintln!("REPLCONF {name} error: {}", String::from_utf8_lossy(&text));
            Ok(false)
        }
        Ok(_) => Ok(true),
        Err(_) => Err(fail("\nI/O error")),
    }
}

/// A line without its end; empty ones are the primary's sign of life while it prepares the file.
fn line(link: &mut Link) -> Result<Vec<u8>, Exit> {
    let mut line = Vec::new();
    let mut byte = [0u8];
    loop {
        match link.read_raw(&mut byte) {
            Ok(1..) => {}
            _ => return Err(fail("Error reading bulk length while SYNCing")),
        }
        match byte[0] {
            b'\n' if !line.is_empty() => return Ok(line),
            b'\n' | b'\r' => {}
            other => line.push(other),
        }
        if line.len() > MAX_LINE {
            return Err(fail("Error reading bulk length while SYNCing"));
        }
    }
}

fn read_header(link: &mut Link) -> Result<Payload, Exit> {
    let mut header = line(link)?;
    if header.starts_with(b"-") {
        return Err(fail(&format!("SYNC with primary failed: {}", String::from_utf8_lossy(&header))));
    }
    if header.starts_with(b"+FULLRESYNC") || header.starts_with(b"+CONTINUE") {
        eprintln!("PSYNC replied {}", String::from_utf8_lossy(&header));
        if header.starts_with(b"+CONTINUE") {
            return Ok(Payload::None);
        }
        header = line(link)?;
    }
    if let Some(mark) = header.strip_prefix(b"$EOF:").and_then(|rest| rest.get(..MARK_LEN)) {
        return Ok(Payload::UntilMark(mark.try_into().unwrap_or([0; MARK_LEN])));
    }
    let length = header.strip_prefix(b"$").and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    length.map(Payload::Bytes).ok_or_else(|| fail("SYNC with primary failed: no file"))
}

/// Hands the payload's bytes over (without the mark at its end) and gives their number.
fn take_payload(
    link: &mut Link,
    payload: &Payload,
    mut each: impl FnMut(&[u8]) -> Result<(), Exit>,
) -> Result<u64, Exit> {
    let mut chunk = [0u8; 64 * 1024];
    let mut total = 0;
    let broken = |fault: Fault| fail(&format!("I/O Error reading RDB payload from socket: {fault}"));
    match payload {
        Payload::None => {}
        Payload::Bytes(length) => {
            while total < *length {
                let left = usize::try_from(length - total).unwrap_or(usize::MAX).min(chunk.len());
                let count = link.read_raw(&mut chunk[..left]).map_err(broken)?;
                each(&chunk[..count])?;
                total += u64::try_from(count).unwrap_or(0);
            }
        }
        Payload::UntilMark(mark) => {
            // The last bytes are held back: they may be the mark.
            let mut held: Vec<u8> = Vec::new();
            while held != mark {
                let count = link.read_raw(&mut chunk).map_err(broken)?;
                held.extend_from_slice(&chunk[..count]);
                let done = held.len().saturating_sub(MARK_LEN);
                each(&held[..done])?;
                total += u64::try_from(done).unwrap_or(0);
                held.drain(..done);
            }
        }
    }
    Ok(total)
}

/// `--replica`.
pub fn run(session: &mut Session) -> Result<(), Exit> {
    let link = session.link.as_mut().ok_or(Exit(1))?;
    replconf(link, "capa", "eof")?;
    // An empty filter: a file without data, where the primary can do that.
    replconf(link, "rdb-filter-only", "")?;
    link.write_raw(b"SYNC\r\n").map_err(|_| fail("Error writing to primary"))?;
    follow(session)?;
    session.print_fault();
    Err(Exit(1))
}

/// Shows the stream behind a SYNC or PSYNC that has been sent, until the link ends.
pub fn follow(session: &mut Session) -> Result<(), Exit> {
    let link = session.link.as_mut().ok_or(Exit(1))?;
    let payload = read_header(link)?;
    let name = if matches!(payload, Payload::None) { "Partial resync" } else { "Full resync" };
    match &payload {
        Payload::None => eprintln!("{name} with primary..."),
        Payload::Bytes(length) => {
            eprintln!("{name} with primary, discarding {length} bytes of bulk transfer...");
        }
        Payload::UntilMark(_) => {
            eprintln!("{name} with primary, discarding bytes of bulk transfer until EOF marker...");
        }
    }
    let bytes = take_payload(link, &payload, |_| Ok(()))?;
    if matches!(payload, Payload::UntilMark(_)) {
        let bytes = bytes + u64::try_from(MARK_LEN).unwrap_or(0);
        eprintln!("{name} done after {bytes} bytes. Logging commands from primary.");
    } else {
        eprintln!("{name} done. Logging commands from primary.");
    }
    let before = std::mem::replace(&mut session.options.output, Output::Csv);
    loop {
        let link = session.link.as_mut().ok_or(Exit(1))?;
        if link.is_readable_within(ACKNOWLEDGE_EVERY) {
            if !session.read_reply(false)? {
                break;
            }
            continue;
        }
        // Behind a file with a mark the primary sends nothing before it hears of us; too early, it doesn't listen yet.
        link.push(&["REPLCONF", "ACK", "0"]);
        link.flush().map_err(|_| fail("\nI/O error"))?;
    }
    session.options.output = before;
    Ok(())
}

/// `--rdb FILE`, `--functions-rdb FILE`: `-` is standard output.
pub fn fetch(session: &mut Session, file: &[u8], functions_only: bool) -> Result<(), Exit> {
    let link = session.link.as_mut().ok_or(Exit(1))?;
    replconf(link, "capa", "eof")?;
    replconf(link, "rdb-only", "1")?;
    if functions_only && !replconf(link, "rdb-filter-only", "functions")? {
        return Err(fail("Failed requesting functions only RDB from server, aborting"));
    }
    link.write_raw(b"SYNC\r\n").map_err(|_| fail("Error writing to primary"))?;
    let payload = read_header(link)?;
    let shown = String::from_utf8_lossy(file).into_owned();
    match &payload {
        Payload::Bytes(length) => eprintln!("SYNC sent to primary, writing {length} bytes to '{shown}'"),
        _ => eprintln!("SYNC sent to primary, writing bytes of bulk transfer until EOF marker to '{shown}'"),
    }
    let total = if file == b"-" {
        take_payload(link, &payload, emit)?
    } else {
        let path = Path::new(std::ffi::OsStr::from_bytes(file));
        let mut target =
            File::create(path).map_err(|fault| fail(&format!("Error opening '{shown}': {fault}")))?;
        let total = take_payload(link, &payload, |bytes| {
            target.write_all(bytes).map_err(|fault| fail(&format!("Error writing data to file: {fault}")))
        })?;
        target.sync_all().map_err(|fault| fail(&format!("Fail to fsync '{shown}': {fault}")))?;
        total
    };
    match payload {
        Payload::UntilMark(_) => eprintln!("Transfer finished with success after {total} bytes"),
        _ => eprintln!("Transfer finished with success."),
    }
    Ok(())
}
