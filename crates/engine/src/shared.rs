//! What all workers share: the keyspace, configuration, counters, clients and the ways to reach other threads.

use crate::acl::Acl;
use crate::blocking::WaitingLists;
use crate::clients::{ClientId, Clients};
use crate::config::{ApplyError, Changes, Config, ConfigStore};
use crate::evict::gauge::Exceeded;
use crate::monitor::Monitors;
use crate::observe::Observe;
use crate::outbox::Push;
use crate::persist::Persist;
use crate::pubsub::PubSub;
use crate::reclaim::Reclaimer;
use crate::registry::Registry;
use crate::replication::Replication;
use crate::scripting::Scripts;
use crate::stats::Stats;
use crate::tracking::Tracking;
use crate::watch::Watches;
use kara_base::clock::Ticker;
use kara_keyspace::Keyspace;
use kara_resp::reply::Value;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// After so long a client's longest reply is forgotten, unless DEBUG REPLYBUFFER says otherwise.
pub const REPLY_PEAK_RESET_MS: i64 = 5_000;

/// What a worker is told from outside; it reads these once per loop turn.
#[derive(Debug)]
pub enum Message {
    /// Something that clients of this worker are told beside their answers.
    Push(Push),
    /// The answer of a client that waited; it goes on.
    Served { client: ClientId, reply: Vec<u8> },
    /// Look at your clients' kill flags.
    Kill { client: ClientId },
    /// Look again at what was postponed (CLIENT UNPAUSE, the end of loading, ...).
    Resume,
}

/// How SHUTDOWN ends the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShutdownOptions {
    /// SAVE (true) or NOSAVE (false) where given; else as `save` is configured.
    pub save: Option<bool>,
    pub now: bool,
    pub force: bool,
    /// SAFE: only where the cluster doesn't lose slots by it.
    pub safe: bool,
    /// FAILOVER: hand over to a replica first, in a cluster.
    pub failover: bool,
}

/// At which step an exchange with another server failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerError {
    Connecting,
    Writing,
    Reading,
}

/// What the engine asks of the process around it. The server implements it; tests need none.
pub trait Host: Send + Sync + std::fmt::Debug {
    /// Puts a message into a worker's mailbox and wakes it.
    fn post(&self, worker: usize, message: Message);
    /// Puts a message into the caller's own mailbox, which it will look into without being woken.
    fn post_to_self(&self, worker: usize, message: Message) {
        self.post(worker, message);
    }
    /// Bytes of messages that wait in mailboxes.
    fn mail_bytes(&self) -> u64 {
        0
    }
    /// Ends the process: cleans up around the data, which is saved already, and never returns.
    fn exit(&self) -> !;
    /// Makes changed settings take effect (sockets, log, limits of the process); it may settle fields of `new`. After an
    /// error it is called again with old and new swapped.
    fn apply_config(&self, old: &Config, new: &mut Config, changes: &Changes) -> Result<(), ApplyError>;
    /// The server has become a replica or a primary, as the settings say.
    fn role_changed(&self, _: &Config) {}
    /// Writes a line to the log.
    fn log(&self, level: crate::log::Level, text: &str);
    /// Sends requests to another server and reads as many replies as are expected; no step may take longer than that.
    fn exchange(
        &self,
        host: &str,
        port: u16,
        timeout: Duration,
        requests: &[u8],
        expected: usize,
    ) -> Result<Vec<Value>, PeerError> {
        let _ = (host, port, timeout, requests, expected);
        Err(PeerError::Connecting)
    }
    /// Closes connections to other servers that rested too long; how many there still are.
    fn tidy_peers(&self) -> usize {
        0
    }
    /// `listener0:name=tcp,...` lines' contents for INFO.
    fn listeners(&self) -> Vec<String>;
}

/// Which commands CLIENT PAUSE holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PauseMode {
    Off = 0,
    Writes = 1,
    All = 2,
}

/// What holds writes back beside CLIENT PAUSE, until it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Hold {
    Failover = 4,
    Shutdown = 8,
}

/// The bits of CLIENT PAUSE's mode; the others are the `Hold`s.
const BY_CLIENT: u8 = 3;

/// CLIENT PAUSE's state, and that of failover and shutdown, which hold writes back likewise.
#[derive(Debug, Default)]
pub struct Pause {
    mode: AtomicU8,
    until_ms: AtomicI64,
}

impl Pause {
    /// Pauses until a wall time; a running pause is only ever made stricter and longer.
    pub fn set(&self, mode: PauseMode, until_ms: i64, now_ms: i64) {
        let running = self.by_client(self.mode.load(Relaxed), now_ms);
        let stricter = if running == PauseMode::All { PauseMode::All } else { mode };
        let before_ms = if running == PauseMode::Off { 0 } else { self.until_ms.load(Relaxed) };
        self.until_ms.store(until_ms.max(before_ms), Relaxed);
        self.change(stricter as u8, BY_CLIENT);
    }

    /// Ends the pause that a client asked for.
    pub fn clear(&self) {
        self.change(PauseMode::Off as u8, BY_CLIENT);
    }

    /// Holds writes back, or not any more.
    pub fn hold(&self, why: Hold, on: bool) {
        self.change(if on { why as u8 } else { 0 }, why as u8);
    }

    fn change(&self, to: u8, of: u8) {
        // A concurrent change of other bits is kept; the closure never gives up.
        let _ = self.mode.fetch_update(Relaxed, Relaxed, |bits| Some(bits & !of | to));
    }

    /// When the pause ends, Unix ms; never while something holds.
    pub fn until_ms(&self) -> i64 {
        if self.mode.load(Relaxed) & !BY_CLIENT != 0 { i64::MAX } else { self.until_ms.load(Relaxed) }
    }

    fn by_client(&self, bits: u8, now_ms: i64) -> PauseMode {
        let mode = match bits & BY_CLIENT {
            0 => return PauseMode::Off,
            1 => PauseMode::Writes,
            _ => PauseMode::All,
        };
        if now_ms < self.until_ms.load(Relaxed) { mode } else { PauseMode::Off }
    }

    /// What CLIENT PAUSE alone holds back at a time.
    pub fn asked_for(&self, now_ms: i64) -> PauseMode {
        self.by_client(self.mode.load(Relaxed), now_ms)
    }

    /// What is held back at a time.
    #[inline]
    pub fn mode(&self, now_ms: i64) -> PauseMode {
        let bits = self.mode.load(Relaxed);
        if bits == 0 {
            return PauseMode::Off;
        }
        match self.by_client(bits, now_ms) {
            PauseMode::Off if bits & !BY_CLIENT != 0 => PauseMode::Writes,
            mode => mode,
        }
    }
}

/// Everything that is shared.
pub struct Shared {
    pub keyspace: Keyspace,
    pub config: ConfigStore,
    pub registry: Registry,
    pub acl: Acl,
    pub stats: Stats,
    pub observe: Observe,
    pub clients: Clients,
    pub reclaimer: Reclaimer,
    pub pause: Pause,
    pub host: Box<dyn Host>,
    /// 40 hexadecimal digits, new at each start.
    pub run_id: String,
    pub started_ms: i64,
    /// Times commands.
    pub ticker: Ticker,
    pub workers: usize,
    /// Bytes used when the server was ready, for INFO.
    pub startup_memory: AtomicU64,
    /// Data is being loaded: only commands with the LOADING flag run.
    pub loading: AtomicBool,
    /// DEBUG SET-ACTIVE-EXPIRE.
    pub active_expire: AtomicBool,
    /// DEBUG PAUSE-CRON.
    pub cron_paused: AtomicBool,
    /// DEBUG QUICKLIST-PACKED-THRESHOLD: bytes from which a list element gets a node of its own; 0: by the settings.
    pub quicklist_packed_threshold: AtomicU32,
    /// DEBUG REPLYBUFFER PEAK-RESET-TIME: after so long the longest reply of a client is forgotten; negative: never.
    pub reply_peak_reset_ms: AtomicI64,
    /// DEBUG REPLYBUFFER RESIZING: whether clients' shown reply buffers follow their replies.
    pub reply_resizing: AtomicBool,
    pub watches: Watches,
    pub scripts: Scripts,
    pub persist: Persist,
    pub replication: Replication,
    pub pubsub: PubSub,
    pub tracking: Tracking,
    pub monitors: Monitors,
    /// Who waits for which key.
    pub waiting: WaitingLists,
    /// How long `maxmemory` has been exceeded.
    pub exceeded: Exceeded,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("run_id", &self.run_id).finish_non_exhaustive()
    }
}

impl Shared {
    /// Clients that a pause held back try again.
    pub fn resume_all(&self) {
        for worker in 0..self.workers {
            self.host.post(worker, Message::Resume);
        }
    }

    /// The journal has readers (replicas or an AOF): effects must be spelled out.
    #[inline]
    pub fn journal_on(&self) -> bool {
        self.keyspace.journal().is_active()
    }
}
