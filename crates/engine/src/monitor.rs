//! MONITOR: clients that see every command as it runs.

use crate::clients::{ClientFlags, ClientInfo};
use crate::commandlog::hidden_positions;
use crate::outbox::{Outbox, Push};
use crate::pubsub::Audience;
use crate::registry::Command;
use crate::session::{Origin, Session};
use crate::spec::Flags;
use parking_lot::RwLock;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

/// The clients that watch.
#[derive(Debug, Default)]
pub struct Monitors {
    audience: RwLock<Audience>,
    count: AtomicUsize,
}

impl Monitors {
    /// Whether somebody watches.
    #[inline]
    pub fn any(&self) -> bool {
        self.count.load(Relaxed) > 0
    }

    /// A client begins to watch.
    pub(crate) fn add(&self, info: &ClientInfo) {
        let mut audience = self.audience.write();
        audience.add(info);
        self.count.store(audience.len(), Relaxed);
    }

    /// A client has seen enough.
    pub(crate) fn remove(&self, info: &ClientInfo) {
        let mut audience = self.audience.write();
        audience.remove(info);
        self.count.store(audience.len(), Relaxed);
    }

    /// Shows a command that ran. Administrators' commands are nobody's business.
    #[cold]
    pub(crate) fn show(
        &self,
        command: Command,
        args: &[&[u8]],
        session: &Session,
        origin: Origin,
        outbox: &mut Outbox,
    ) {
        if !command.is(Flags::ADMIN) && !command.is(Flags::SKIP_MONITOR) {
            self.show_now(command, args, session, origin, outbox);
        }
    }

    /// Shows a command, whatever its flags say.
    #[cold]
    pub(crate) fn show_now(
        &self,
        command: Command,
        args: &[&[u8]],
        session: &Session,
        origin: Origin,
        outbox: &mut Outbox,
    ) {
        let bytes: Arc<[u8]> = line(command, args, session, origin).into();
        self.audience.read().send(outbox, |to| Push::Line { bytes: bytes.clone(), to });
    }
}

/// `+SECONDS.MICROS [DB ADDRESS] "word" ...`, secrets redacted.
fn line(command: Command, args: &[&[u8]], session: &Session, origin: Origin) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let info = &session.info;
    let from = match origin {
        Origin::Script => "lua".to_owned(),
        _ if info.flags().contains(ClientFlags::UNIX_SOCKET) => {
            format!("unix:{}", info.laddr.trim_end_matches(":0"))
        }
        _ => info.addr.clone(),
    };
    let mut out = Vec::with_capacity(64 + args.iter().map(|arg| arg.len() + 3).sum::<usize>());
    // Writing to a vector can't fail.
    let _ = write!(out, "+{}.{:06} [{} {from}]", now.as_secs(), now.subsec_micros(), session.db.0);
    let hidden = hidden_positions(command.full_name, args, crate::observe::is_secret);
    for (at, arg) in args.iter().enumerate() {
        out.push(b' ');
        quote(if hidden.contains(&at) { b"(redacted)" } else { arg }, &mut out);
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// A word in quotes, with C's escapes.
fn quote(word: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in word {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x07 => out.extend_from_slice(b"\\a"),
            0x08 => out.extend_from_slice(b"\\b"),
            b' '..=b'~' => out.push(byte),
            _ => {
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_as_in_c() {
        let mut out = Vec::new();
        quote(b"a\"\\\n\r\t\x07\x08\x01\xff~", &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), r#""a\"\\\n\r\t\a\b\x01\xff~""#);
    }
}
