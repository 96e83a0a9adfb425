//! A full sync of many keys, between the reference and us: how long it takes, what the primary's clients notice, and what
//! memory it takes there.

use super::{follow, info, number, until, until_caught_up};
use crate::disk::load::{place, status};
use crate::server::own_program;
use crate::{Client, Server, peers};
use kara_base::rng::Rng;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Volume {
    pub keys: u64,
    pub value_bytes: u64,
    /// Clients of the primary that go on writing, and their pause between two writes.
    pub clients: u64,
    pub pause: Duration,
    /// How long they are watched without a sync: so long before it, and again behind it, when the replica has gone.
    pub without: Duration,
    /// The clients stand for other machines, and the replica: see [`Turn`].
    pub clients_first: bool,
    pub replica_last: bool,
}

/// Who syncs from whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Stock,
    Kara,
}

/// Every pair, the reference's own first.
pub const WAYS: [(Side, Side); 4] = [
    (Side::Stock, Side::Stock),
    (Side::Kara, Side::Stock),
    (Side::Stock, Side::Kara),
    (Side::Kara, Side::Kara),
];

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct SyncFigures {
    /// From REPLICAOF until the replica's link is up.
    pub seconds: f64,
    /// Until the primary had sent its data set.
    pub sending_seconds: f64,
    /// The primary's clients without a sync, and that apart for before it and behind it; until the link was up; and the two parts of that: while
    /// the primary sent its data set, and while the replica loaded it.
    pub without: Latencies,
    pub before: Latencies,
    pub behind: Latencies,
    pub during: Latencies,
    pub sending: Latencies,
    pub loading: Latencies,
    /// Requests a second of all clients, without and meanwhile.
    pub without_rate: f64,
    pub during_rate: f64,
    /// Resident bytes of the primary's process before the sync and at their peak, and the most that its replication
    /// log took.
    pub resident_bytes: u64,
    pub peak_bytes: u64,
    pub log_bytes: u64,
}

/// Places among latencies, ms.
#[derive(Clone, Copy, Debug)]
pub struct Latencies {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
}

impl Latencies {
    fn of<'a>(requests: impl IntoIterator<Item = &'a Request>) -> Latencies {
        let mut all: Vec<f64> = requests.into_iter().map(|request| request.ms).collect();
        let [p50, p99, p999] = [500, 990, 999].map(|per_mille| place(&mut all, per_mille));
        Latencies { p50, p99, p999 }
    }
}

/// A request of a client: when it was sent, and how long the answer took.
#[derive(Clone, Copy, Debug)]
struct Request {
    sent: Instant,
    ms: f64,
}

impl SyncFigures {
    /// The peak without the log, by the memory before.
    pub fn memory_ratio(&self) -> f64 {
        self.peak_bytes.saturating_sub(self.log_bytes) as f64 / self.resident_bytes.max(1) as f64
    }
}

/// Whom the processors are for: on other machines replica and clients would have their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Nobody keeps it waiting. Clients: they compute little.
    First,
    /// It gets what others leave. The replica: it computes all the time.
    Last,
}

/// `thread`: one thread, or a process. Where this isn't allowed all are equal, and the figures are what that makes of them.
fn schedule(turn: Turn, thread: &str) {
    let words = match turn {
        Turn::First => vec!["-r", "-p", "1", thread],
        Turn::Last => vec!["-a", "-i", "-p", "0", thread],
    };
    let _ = Command::new("chrt").args(words).output();
}

/// The calling thread's number.
fn own_thread() -> String {
    let link = std::fs::read_link("/proc/thread-self").unwrap_or_default();
    link.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

impl Side {
    fn start(self, more: &[&str]) -> Server {
        let program = match self {
            Side::Kara => own_program(),
            Side::Stock => with_allocator(),
        };
        let arguments = [&["--save", "", "--repl-diskless-sync-delay", "0"], more].concat();
        Server::start_program(&program, &arguments)
    }
}

/// The reference with the allocator of its own builds, where `cargo xtask bench` has made that.
fn with_allocator() -> PathBuf {
    let plain = peers().join("bin/valkey-server-9.1.2");
    let with = peers().join("bin/valkey-server-9.1.2-jemalloc");
    if with.exists() { with } else { plain }
}

/// Writes over random keys until told to stop.
fn write(client: &mut Client, volume: Volume, seed: u64, stop: &AtomicBool) -> Vec<Request> {
    if volume.clients_first {
        schedule(Turn::First, &own_thread());
    }
    let mut rng = Rng::new(seed);
    let value = "x".repeat(usize::try_from(volume.value_bytes).unwrap_or(64));
    let mut requests = Vec::new();
    while !stop.load(Relaxed) {
        let key = format!("key:{}", rng.next_u64() % volume.keys);
        let sent = Instant::now();
        let reply = client.call(&["SET", &key, &value]);
        requests.push(Request { sent, ms: sent.elapsed().as_secs_f64() * 1e3 });
        assert_eq!(reply.text(), "OK");
        if !volume.pause.is_zero() {
            std::thread::sleep(volume.pause);
        }
    }
    requests
}

/// All clients write while `work` runs.
fn meanwhile(primary: &Server, volume: Volume, work: impl FnOnce()) -> Vec<Request> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..volume.clients)
            .map(|n| {
                let (mut client, stop) = (primary.client(), &stop);
                scope.spawn(move || write(&mut client, volume, n + 1, stop))
            })
            .collect();
        work();
        stop.store(true, Relaxed);
        writers.into_iter().flat_map(|writer| writer.join().unwrap_or_default()).collect()
    })
}

/// Fills a primary and lets a replica follow it.
///
/// # Panics
/// Where the sync doesn't come off, or a key is missing behind it.
pub fn full_sync(way: (Side, Side), volume: Volume, more: &[&str]) -> SyncFigures {
    let (primary, replica) = (way.0.start(more), way.1.start(more));
    if volume.replica_last {
        schedule(Turn::Last, &replica.pid().to_string());
    }
    let (mut p, mut r) = (primary.client(), replica.client());
    for client in [&mut p, &mut r] {
        let _ = client.set_timeout(Duration::from_secs(600));
    }
    let filled = p.run(&format!("DEBUG POPULATE {} key {}", volume.keys, volume.value_bytes));
    assert_eq!(filled.text(), "OK");
    let before = meanwhile(&primary, volume, || std::thread::sleep(volume.without));
    let resident_bytes = status(primary.pid(), "VmRSS");
    // The peak begins anew.
    let _ = std::fs::write(format!("/proc/{}/clear_refs", primary.pid()), "5");
    let (mut took, mut log_bytes) = (Duration::ZERO, 0);
    let (mut begun, mut sent) = (Instant::now(), None);
    let during = meanwhile(&primary, volume, || {
        begun = Instant::now();
        follow(&replica, primary.port());
        let deadline = begun + Duration::from_secs(300);
        while info(&mut r, "replication", "master_link_status") != "up" {
            assert!(Instant::now() < deadline, "{way:?}: no full sync\n{}", replica.log_tail());
            log_bytes = log_bytes.max(number(&mut p, "memory", "mem_total_replication_buffers"));
            if sent.is_none() && info(&mut p, "replication", "slave0").contains("state=online") {
                sent = Some(Instant::now());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        took = begun.elapsed();
        log_bytes = log_bytes.max(number(&mut p, "memory", "mem_total_replication_buffers"));
    });
    let sent = sent.unwrap_or(begun + took);
    let peak_bytes = status(primary.pid(), "VmHWM");
    let what = format!("{way:?}");
    until_caught_up(&what, &mut p, &mut r);
    until(&format!("{what}: as many keys"), || p.run("DBSIZE") == r.run("DBSIZE"));
    assert_eq!(number(&mut p, "stats", "sync_full"), 1, "{what}: it took more than one");
    drop(replica);
    let behind = meanwhile(&primary, volume, || std::thread::sleep(volume.without));
    let (sending, loading): (Vec<Request>, Vec<Request>) =
        during.iter().partition(|request| request.sent < sent);
    SyncFigures {
        seconds: took.as_secs_f64(),
        sending_seconds: sent.duration_since(begun).as_secs_f64(),
        without: Latencies::of(before.iter().chain(&behind)),
        before: Latencies::of(&before),
        behind: Latencies::of(&behind),
        during: Latencies::of(&during),
        sending: Latencies::of(&sending),
        loading: Latencies::of(&loading),
        without_rate: (before.len() + behind.len()) as f64 / (volume.without * 2).as_secs_f64(),
        during_rate: during.len() as f64 / took.as_secs_f64(),
        resident_bytes,
        peak_bytes,
        log_bytes,
    }
}
