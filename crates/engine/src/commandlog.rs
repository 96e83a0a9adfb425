//! The logs of commands that were slow, came in large or were answered at length: COMMANDLOG and SLOWLOG.

use parking_lot::Mutex;
use std::collections::VecDeque;

/// At most this many arguments of a command are kept; the last one then tells how many are missing.
const MAX_ARGS: usize = 32;
/// At most this much of an argument.
const MAX_ARG_BYTES: usize = 128;

/// Which log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKind {
    /// Values are microseconds.
    Slow,
    /// Values are bytes.
    LargeRequest,
    /// Values are bytes.
    LargeReply,
}

/// One command in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    pub id: u64,
    /// Unix seconds.
    pub at_s: i64,
    pub value: u64,
    pub args: Vec<Vec<u8>>,
    pub client_addr: String,
    pub client_name: Vec<u8>,
}

#[derive(Debug, Default)]
struct Log {
    next_id: u64,
    /// Newest first.
    entries: VecDeque<LogEntry>,
}

/// The three logs.
#[derive(Debug, Default)]
pub struct CommandLog([Mutex<Log>; 3]);

impl CommandLog {
    fn log(&self, kind: LogKind) -> &Mutex<Log> {
        &self.0[kind as usize]
    }

    /// Adds a command; the oldest entries beyond `max_len` go. The entry's number is given here.
    pub fn add(&self, kind: LogKind, mut entry: LogEntry, max_len: u64) {
        let mut log = self.log(kind).lock();
        entry.id = log.next_id;
        log.next_id += 1;
        log.entries.push_front(entry);
        log.entries.truncate(usize::try_from(max_len).unwrap_or(usize::MAX));
    }

    /// The newest `count` entries, newest first.
    pub fn newest(&self, kind: LogKind, count: usize) -> Vec<LogEntry> {
        self.log(kind).lock().entries.iter().take(count).cloned().collect()
    }

    /// How many there are.
    pub fn len(&self, kind: LogKind) -> usize {
        self.log(kind).lock().entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self, kind: LogKind) -> bool {
        self.len(kind) == 0
    }

    /// Forgets all entries; numbers go on.
    pub fn reset(&self, kind: LogKind) {
        self.log(kind).lock().entries.clear();
    }
}

/// Arguments as the logs keep them: not too many, not too long, nothing secret.
pub fn kept_args(full_name: &str, args: &[&[u8]], is_secret: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
    let kept = if args.len() > MAX_ARGS { MAX_ARGS - 1 } else { args.len() };
    let hidden = hidden_positions(full_name, args, is_secret);
    let mut out: Vec<Vec<u8>> = args
        .iter()
        .take(kept)
        .enumerate()
        .map(|(at, arg)| if hidden.contains(&at) { b"(redacted)".to_vec() } else { shortened(arg) })
        .collect();
    if kept < args.len() {
        out.push(format!("... ({} more arguments)", args.len() - kept).into_bytes());
    }
    out
}

fn shortened(arg: &[u8]) -> Vec<u8> {
    match arg.get(..MAX_ARG_BYTES) {
        Some(head) if arg.len() > MAX_ARG_BYTES => {
            let mut text = head.to_vec();
            text.extend_from_slice(format!("... ({} more bytes)", arg.len() - MAX_ARG_BYTES).as_bytes());
            text
        }
        _ => arg.to_vec(),
    }
}

/// Where passwords and users' rights stand. `is_secret` knows the settings that hold passwords.
pub(crate) fn hidden_positions(
    full_name: &str,
    args: &[&[u8]],
    is_secret: impl Fn(&[u8]) -> bool,
) -> Vec<usize> {
    let behind = |word: &[u8], count: usize| {
        let at = args.iter().position(|arg| arg.eq_ignore_ascii_case(word));
        at.map_or(0..0, |at| at + 1..at + 1 + count)
    };
    match full_name {
        "auth" => (1..args.len()).collect(),
        "hello" => behind(b"AUTH", 2).collect(),
        "acl|setuser" | "acl|deluser" | "acl|getuser" => (2..args.len()).collect(),
        "config|set" => {
            let pairs = (2..args.len()).step_by(2);
            pairs.filter(|&at| is_secret(args[at])).map(|at| at + 1).collect()
        }
        "migrate" => behind(b"AUTH", 1).chain(behind(b"AUTH2", 2)).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(value: u64) -> LogEntry {
        LogEntry {
            id: 0,
            at_s: 1,
            value,
            args: Vec::new(),
            client_addr: String::new(),
            client_name: Vec::new(),
        }
    }

    #[test]
    fn logs_keep_the_newest_and_count_on() {
        let log = CommandLog::default();
        (0..5).for_each(|n| log.add(LogKind::Slow, entry(n), 3));
        let ids: Vec<u64> = log.newest(LogKind::Slow, 9).iter().map(|e| e.id).collect();
        assert_eq!(ids, [4, 3, 2]);
        log.reset(LogKind::Slow);
        log.add(LogKind::Slow, entry(9), 3);
        assert_eq!(log.newest(LogKind::Slow, 1)[0].id, 5);
        log.add(LogKind::Slow, entry(9), 0);
        assert!(log.is_empty(LogKind::Slow) && log.is_empty(LogKind::LargeReply));
    }

    #[test]
    fn arguments_are_cut_and_secrets_hidden() {
        let many = vec![&b"x"[..]; 33];
        let kept = kept_args("sadd", &many, |_| false);
        assert_eq!((kept.len(), kept[31].as_slice()), (32, &b"... (2 more arguments)"[..]));
        let long = [b'A'; 129];
        let kept = kept_args("set", &[b"set", &long], |_| false);
        assert!(kept[1].ends_with(b"A... (1 more bytes)") && kept[1].len() == 146);
        let kept = kept_args("config|set", &[b"config", b"set", b"requirepass", b"x", b"hz", b"1"], |name| {
            name == b"requirepass"
        });
        assert_eq!(kept[3..], [b"(redacted)".to_vec(), b"hz".to_vec(), b"1".to_vec()]);
        let kept = kept_args("hello", &[b"hello", b"3", b"auth", b"me"], |_| false);
        assert_eq!(kept[3], b"(redacted)");
    }
}
