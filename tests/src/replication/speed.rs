//! A full sync of many keys, between the reference and us: how long it takes, what the primary's clients notice, and what
//! memory it takes there.

use super::{follow, info, number, until, until_caught_up};
use crate::disk::load::{place, status};
use crate::server::own_program;
use crate::{Client, Server, peers};
use kara_base::cpus;
use kara_base::rng::Rng;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{Scope, ScopedJoinHandle};
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
    pub layout: Layout,
}

/// Whose the processors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Two machines on one: the primary has the first processor for itself. Clients and replica have the second, where
    /// clients wait for nobody: the replica computes all the time, they little. Where that isn't allowed they are equals.
    OneCoreEach,
    /// All are equals on all processors.
    Together,
}

/// The processors of [`Layout::OneCoreEach`].
const PRIMARYS: &[u8] = b"0";
const OTHERS: &[u8] = b"1";

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
    /// The primary's clients without a sync; until the link was up; and the two parts of that: while the primary sent its
    /// data set, and while the replica loaded it. Moments in which the machine stood still ([`Standstills`]) don't count.
    pub without: Latencies,
    pub during: Latencies,
    pub sending: Latencies,
    pub loading: Latencies,
    /// The first two with every moment.
    pub all_without: Latencies,
    pub all_during: Latencies,
    /// The share of requests that didn't count, without and meanwhile.
    pub left_out: [f64; 2],
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
    /// A processor stood still meanwhile.
    stood_still: bool,
}

impl SyncFigures {
    /// The peak without the log, by the memory before.
    pub fn memory_ratio(&self) -> f64 {
        self.peak_bytes.saturating_sub(self.log_bytes) as f64 / self.resident_bytes.max(1) as f64
    }
}

/// Lets the calling thread have its processor whenever it wants it and nobody more urgent does; false where that isn't allowed.
fn go_first(urgency: u8) -> bool {
    let run = Command::new("chrt").args(["-r", "-p", &urgency.to_string(), &own_thread()]).output();
    run.is_ok_and(|run| run.status.success())
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
    if volume.layout == Layout::OneCoreEach {
        go_first(1);
    }
    let mut rng = Rng::new(seed);
    let value = "x".repeat(usize::try_from(volume.value_bytes).unwrap_or(64));
    let mut requests = Vec::new();
    while !stop.load(Relaxed) {
        let key = format!("key:{}", rng.next_u64() % volume.keys);
        let sent = Instant::now();
        let reply = client.call(&["SET", &key, &value]);
        requests.push(Request { sent, ms: sent.elapsed().as_secs_f64() * 1e3, stood_still: false });
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
        let standstills = Standstills::watch(scope, &stop);
        let writers: Vec<_> = (0..volume.clients)
            .map(|n| {
                let mut client = primary.client();
                let stop = &stop;
                scope.spawn(move || write(&mut client, volume, n + 1, stop))
            })
            .collect();
        work();
        stop.store(true, Relaxed);
        let requests = writers.into_iter().flat_map(|writer| writer.join().unwrap_or_default()).collect();
        standstills.mark(requests)
    })
}

/// When processors of the machine stood still: a thread that is more urgent than everything was woken late. Virtual
/// processors do, for milliseconds, when their host gives their time to others.
struct Standstills<'scope> {
    watchers: Vec<ScopedJoinHandle<'scope, Vec<(Instant, Instant)>>>,
}

impl<'scope> Standstills<'scope> {
    const PERIOD: Duration = Duration::from_micros(200);
    /// Being woken takes some 50 us; a system call isn't interrupted.
    const LATE: Duration = Duration::from_micros(300);

    fn watch<'env>(scope: &'scope Scope<'scope, 'env>, stop: &'env AtomicBool) -> Standstills<'scope> {
        let watchers = [PRIMARYS, OTHERS].map(|processor| {
            scope.spawn(move || {
                cpus::keep_to(processor);
                let mut seen = Vec::new();
                // Anybody else is woken late by others.
                let is_urgent = go_first(2);
                while is_urgent && !stop.load(Relaxed) {
                    seen.extend(Self::wait_for_one(stop));
                }
                seen
            })
        });
        Standstills { watchers: watchers.into() }
    }

    fn wait_for_one(stop: &AtomicBool) -> Option<(Instant, Instant)> {
        while !stop.load(Relaxed) {
            let due = Instant::now() + Self::PERIOD;
            std::thread::sleep(Self::PERIOD);
            let woken = Instant::now();
            if woken > due + Self::LATE {
                return Some((due, woken));
            }
        }
        None
    }

    /// Marks the requests that were under way in such a moment.
    fn mark(self, mut requests: Vec<Request>) -> Vec<Request> {
        let mut seen: Vec<_> =
            self.watchers.into_iter().flat_map(|watcher| watcher.join().unwrap_or_default()).collect();
        seen.sort_unstable();
        for request in &mut requests {
            let answered = request.sent + Duration::from_secs_f64(request.ms / 1e3);
            // No standstill is longer than a second.
            let first = seen.partition_point(|(from, _)| *from + Duration::from_secs(1) < request.sent);
            let near = seen.get(first..).unwrap_or_default().iter().take_while(|(from, _)| *from < answered);
            request.stood_still = near.into_iter().any(|(_, until)| *until > request.sent);
        }
        requests
    }
}

/// Fills a primary and lets a replica follow it.
///
/// # Panics
/// Where the sync doesn't come off, or a key is missing behind it.
pub fn full_sync(way: (Side, Side), volume: Volume, more: &[&str]) -> SyncFigures {
    // What a thread starts stays where it is.
    let keep_to = |processors| {
        if volume.layout == Layout::OneCoreEach {
            cpus::keep_to(processors);
        }
    };
    keep_to(PRIMARYS);
    let primary = way.0.start(more);
    keep_to(OTHERS);
    let replica = way.1.start(more);
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
    let without: Vec<Request> = before.into_iter().chain(behind).collect();
    let in_time = |until_sent: Option<bool>| {
        let counts = during.iter().filter(|request| !request.stood_still);
        Latencies::of(counts.filter(|request| until_sent.is_none_or(|until| (request.sent < sent) == until)))
    };
    SyncFigures {
        seconds: took.as_secs_f64(),
        sending_seconds: sent.duration_since(begun).as_secs_f64(),
        without: Latencies::of(without.iter().filter(|request| !request.stood_still)),
        during: in_time(None),
        sending: in_time(Some(true)),
        loading: in_time(Some(false)),
        all_without: Latencies::of(&without),
        all_during: Latencies::of(&during),
        left_out: [&without, &during].map(|requests| {
            requests.iter().filter(|request| request.stood_still).count() as f64
                / requests.len().max(1) as f64
        }),
        without_rate: without.len() as f64 / (volume.without * 2).as_secs_f64(),
        during_rate: during.len() as f64 / took.as_secs_f64(),
        resident_bytes,
        peak_bytes,
        log_bytes,
    }
}
