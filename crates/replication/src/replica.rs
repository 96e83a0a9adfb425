//! What a primary knows of a replica.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering::Relaxed};

/// What a replica told by REPLCONF before it asked for the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaConf {
    pub listening_port: u16,
    /// Announced in place of the address it connects from.
    pub ip: Option<String>,
    /// Knows the end of a transfer by a mark.
    pub eof: bool,
    pub psync2: bool,
    /// 0x00MMmmpp; 0: not told.
    pub version: u32,
    /// Wants the data set and no stream behind it.
    pub rdb_only: bool,
    /// Of the data set, it wants this only (`rdb-filter-only`).
    pub filter: Filter,
    /// May take the data set over a second connection.
    pub dual_channel: bool,
    /// This is that second connection.
    pub rdb_channel: bool,
    /// The client that is the second connection of this one.
    pub rdb_client: Option<u64>,
}

/// What of a data set is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    pub data: bool,
    pub functions: bool,
}

impl Default for Filter {
    fn default() -> Self {
        Filter { data: true, functions: true }
    }
}

impl Filter {
    /// Whether something is left out.
    pub fn is_partial(self) -> bool {
        !(self.data && self.functions)
    }

    /// Parses `rdb-filter-only`'s argument: words of what is wanted. The error is the word that isn't known.
    pub fn parse(text: &str) -> Result<Filter, &str> {
        let mut filter = Filter { data: false, functions: false };
        for word in text.split_ascii_whitespace() {
            if word.eq_ignore_ascii_case("data") {
                filter.data = true;
            } else if word.eq_ignore_ascii_case("functions") {
                filter.functions = true;
            } else {
                return Err(word);
            }
        }
        Ok(filter)
    }
}

impl ReplicaConf {
    /// Whether it reads what Valkey 9 writes.
    pub fn is_new(&self) -> bool {
        self.version >= 0x0009_0000
    }

    /// Parses `REPLCONF version`'s argument.
    pub fn parse_version(text: &[u8]) -> Option<u32> {
        let mut parts = std::str::from_utf8(text).ok()?.split('.').map(|part| part.parse::<u8>().ok());
        let (major, minor, patch) = (parts.next()??, parts.next()??, parts.next()??);
        let is_all = parts.next().is_none();
        is_all.then_some(u32::from(major) << 16 | u32::from(minor) << 8 | u32::from(patch))
    }
}

/// How far a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ReplicaState {
    /// A snapshot must begin first.
    WaitStart = 0,
    /// The snapshot is being made.
    WaitEnd = 1,
    /// It is being sent.
    Sending = 2,
    Online = 3,
    /// Got what it wanted: the data set alone.
    Transmitted = 4,
    /// The stream goes to it while the data set comes over its second connection.
    Loading = 5,
}

/// A connected replica. One thread writes, anybody reads.
#[derive(Debug)]
pub struct Replica {
    pub conf: ReplicaConf,
    /// Where it connects from.
    pub ip: String,
    state: AtomicU8,
    /// The stream's bytes up to here were handed to its socket.
    pub position: AtomicU64,
    /// What it says it has processed, and what its append-only file holds on disk.
    pub acked: AtomicU64,
    pub synced: AtomicU64,
    /// When it last said so, Unix ms.
    pub ack_ms: AtomicI64,
    ending: Mutex<Option<Ending>>,
}

/// Why a replica's connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    pub why: &'static str,
    /// The stream behind this offset is of another history: it gets none of it.
    pub end: u64,
}

impl Replica {
    pub fn new(conf: ReplicaConf, ip: String, now_ms: i64) -> Replica {
        Replica {
            conf,
            ip,
            state: AtomicU8::new(0),
            position: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            ack_ms: AtomicI64::new(now_ms),
            ending: Mutex::new(None),
        }
    }

    /// Its connection shall end; the first reason counts. To be called before the log gets anything of another history.
    pub fn dismiss(&self, why: &'static str, end: u64) {
        self.ending.lock().get_or_insert(Ending { why, end });
    }

    /// Whether it is to go. Asked behind a look into the log, it tells whether what was found there is for the replica.
    pub fn ending(&self) -> Option<Ending> {
        *self.ending.lock()
    }

    pub fn state(&self) -> ReplicaState {
        match self.state.load(Relaxed) {
            0 => ReplicaState::WaitStart,
            1 => ReplicaState::WaitEnd,
            2 => ReplicaState::Sending,
            3 => ReplicaState::Online,
            5 => ReplicaState::Loading,
            _ => ReplicaState::Transmitted,
        }
    }

    pub fn set_state(&self, state: ReplicaState) {
        self.state.store(state as u8, Relaxed);
    }

    pub fn is_online(&self) -> bool {
        self.state() == ReplicaState::Online
    }

    /// Seconds since it last told its offset.
    pub fn lag_s(&self, now_ms: i64) -> i64 {
        (now_ms / 1000 - self.ack_ms.load(Relaxed) / 1000).max(0)
    }

    /// The address under which others reach it.
    pub fn address(&self) -> &str {
        self.conf.ip.as_deref().unwrap_or(&self.ip)
    }

    /// The state's name in INFO.
    pub fn state_name(&self) -> &'static str {
        match self.state() {
            ReplicaState::WaitStart | ReplicaState::WaitEnd => "wait_bgsave",
            ReplicaState::Sending => "send_bulk",
            ReplicaState::Online => "online",
            ReplicaState::Transmitted => "rdb_transmitted",
            ReplicaState::Loading => "bg_transfer",
        }
    }

    /// What INFO calls its connection.
    pub fn type_name(&self) -> &'static str {
        if self.conf.rdb_channel {
            "rdb-channel"
        } else if self.state() == ReplicaState::Loading {
            "main-channel"
        } else {
            "replica"
        }
    }

    /// It told how far it is; offsets never fall.
    pub fn note_ack(&self, offset: u64, synced: Option<u64>, now_ms: i64) {
        self.acked.fetch_max(offset, Relaxed);
        if let Some(synced) = synced {
            self.synced.fetch_max(synced, Relaxed);
        }
        self.ack_ms.store(now_ms, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_decide_the_format() {
        let conf = |text: &str| ReplicaConf {
            version: ReplicaConf::parse_version(text.as_bytes()).unwrap_or(0),
            ..ReplicaConf::default()
        };
        assert!(conf("9.1.2").is_new() && conf("9.0.0").is_new() && conf("10.0.0").is_new());
        assert!(!conf("8.1.8").is_new() && !conf("9").is_new() && !conf("9.0.0.1").is_new());
    }

    #[test]
    fn filters_name_what_is_wanted() {
        assert_eq!(Filter::parse(""), Ok(Filter { data: false, functions: false }));
        assert_eq!(Filter::parse("functions"), Ok(Filter { data: false, functions: true }));
        assert_eq!(Filter::parse("data FUNCTIONS"), Ok(Filter::default()));
        assert_eq!(Filter::parse("data keys"), Err("keys"));
        assert!(!Filter::default().is_partial());
    }
}
