//! How long eviction keeps clients waiting, and whether it keeps the limit, while writers fill a full cache.
//!
//! What counts is the processor time of the thread that evicts (DEBUG KARA-EVICTION). Beside it stand what LATENCY tells,
//! by the clock and from 1 ms on, and what a client sees that asks for one key after the other: on a machine that has other
//! things to do, both show those, too. Server and client have a high priority where that is allowed.

use super::figure;
use crate::client::Client;
use crate::reply::Reply;
use crate::server::Server;
use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// Requests that a writer has on their way at once.
const BATCH: u64 = 16;
const WRITERS: u64 = 4;
const VALUE: [u8; 100] = [b'v'; 100];
const LARGE: usize = 1 << 20;
/// Fields of a large hash, and of one command that fills it.
const FIELDS: u64 = 1_000_000;
const FIELDS_AT_ONCE: u64 = 500;

/// What the cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// Keys of 100 bytes.
    Small,
    /// Strings of 1 MB and hashes of a million fields among them.
    Large,
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    pub policy: &'a str,
    pub workers: usize,
    pub data: Data,
    pub limit: u64,
    pub seconds: u64,
}

/// What one phase showed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Phase {
    pub evicted: u64,
    /// How far `used_memory` was above the limit, percent of it; 0: never.
    pub above_percent: f64,
    /// The most processor time that eviction took before one command, ms; with the reference not known.
    pub longest_ms: f64,
    /// Before how many commands it took more than a millisecond.
    pub long: i64,
    /// Seconds in which a command was kept for a millisecond or more, by the clock, and the longest of these, ms.
    pub late: u64,
    pub late_ms: i64,
    /// What the client saw that asks for single keys, ms.
    pub seen_p999_ms: f64,
    pub seen_longest_ms: f64,
    /// Until memory was within the limit.
    pub seconds: f64,
}

/// The phases of one run.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    /// Writers alone, without a limit.
    pub without: Phase,
    /// At the limit.
    pub full: Phase,
    /// From the moment when the limit is set to half of what is used.
    pub half: Phase,
}

fn words(words: &[&[u8]]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.to_vec()).collect()
}

/// Writes until it is told to stop. Keys of the volatile policies expire, some day.
fn write(client: &mut Client, writer: u64, run: Run<'_>, stop: &AtomicBool) {
    let (mut number, mut hash) = (0u64, 0u64);
    let large = vec![b'v'; LARGE];
    let expiry = run.policy.starts_with("volatile");
    while !stop.load(Relaxed) {
        let mut batch = Vec::new();
        if run.data == Data::Large && writer == 0 {
            // One hash after the other, each field new.
            let key = format!("hash:{}", hash / FIELDS);
            let mut request = words(&[b"HSET", key.as_bytes()]);
            for field in hash..hash + FIELDS_AT_ONCE {
                request.extend([format!("field:{field}").into_bytes(), b"value".to_vec()]);
            }
            hash += FIELDS_AT_ONCE;
            batch.push(request);
            if expiry && hash % FIELDS == FIELDS_AT_ONCE {
                batch.push(words(&[b"EXPIRE", key.as_bytes(), b"100000"]));
            }
        } else {
            for _ in 0..BATCH {
                number += 1;
                let key = format!("{writer}:{number}");
                let is_large = run.data == Data::Large && writer == 1 && number % 64 == 0;
                let value: &[u8] = if is_large { &large } else { &VALUE };
                let mut request = words(&[b"SET", key.as_bytes(), value]);
                if expiry {
                    // Who goes first by volatile-ttl isn't who came first.
                    request
                        .extend(words(&[b"EX", (100_000 + number * 7919 % 10_000).to_string().as_bytes()]));
                }
                batch.push(request);
            }
        }
        if client.send(&batch).and_then(|()| client.read_many(batch.len())).is_err() {
            return;
        }
    }
}

/// Asks for one key after the other and notes how long each takes, us.
fn ask(client: &mut Client, stop: &AtomicBool) -> Vec<u64> {
    if let Ok(own) = std::fs::read_link("/proc/thread-self") {
        prefer(own.file_name().into_iter().map(ToOwned::to_owned));
    }
    let mut took = Vec::new();
    while !stop.load(Relaxed) {
        let begun = Instant::now();
        if client.try_call(&["GET", "no such key"]).is_err() {
            break;
        }
        took.push(begun.elapsed().as_micros() as u64);
        thread::sleep(Duration::from_micros(200));
    }
    took.sort_unstable();
    took
}

/// What LATENCY says of eviction: seconds with a command of 1 ms or more, and the longest.
fn latencies(client: &mut Client) -> (u64, i64) {
    let mut late = 0;
    let mut longest = 0;
    let latest = client.run("LATENCY LATEST");
    for event in latest.items().iter().filter(|event| event.items()[0].text().starts_with("eviction")) {
        let name = event.items()[0].text();
        late += client.call(&["LATENCY", "HISTORY", &name]).items().len() as u64;
        longest = longest.max(event.items()[3].integer().unwrap_or(0));
    }
    (late, longest)
}

/// Has the writers and who asks go on for some seconds, or until memory is within the limit where it wasn't; `each` runs
/// once a millisecond with the time and memory in use.
fn phase(server: &Server, run: Run<'_>, limit: Option<u64>, seconds: u64, until_within: bool) -> Phase {
    let stop = AtomicBool::new(false);
    let highest = AtomicU64::new(0);
    let mut control = server.client();
    control.run("LATENCY RESET");
    control.run("DEBUG KARA-EVICTION");
    control.run("CONFIG RESETSTAT");
    let mut shown = Phase::default();
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (mut client, stop) = (server.client(), &stop);
                scope.spawn(move || write(&mut client, writer, run, stop))
            })
            .collect();
        let asking = {
            let (mut client, stop) = (server.client(), &stop);
            scope.spawn(move || ask(&mut client, stop))
        };
        // A connection is one worker's: with each of them somebody asks.
        let more: Vec<_> = (1..run.workers)
            .map(|_| {
                let (mut client, stop) = (server.client(), &stop);
                scope.spawn(move || ask(&mut client, stop))
            })
            .collect();
        let begun = Instant::now();
        if let Some(limit) = limit {
            control.call(&["CONFIG", "SET", "maxmemory", &limit.to_string()]);
        }
        let most = Duration::from_secs(if until_within { 120 } else { seconds });
        while begun.elapsed() < most {
            let used = figure(&mut control, "memory", "used_memory");
            if until_within {
                if limit.is_some_and(|limit| used <= limit) {
                    break;
                }
            } else {
                highest.fetch_max(used, Relaxed);
            }
            thread::sleep(Duration::from_millis(1));
        }
        shown.seconds = begun.elapsed().as_secs_f64();
        stop.store(true, Relaxed);
        writers.into_iter().for_each(|writer| drop(writer.join()));
        let mut took: Vec<u64> = asking.join().unwrap_or_default();
        more.into_iter().for_each(|one| took.extend(one.join().unwrap_or_default()));
        took.sort_unstable();
        let at =
            |share: f64| took.get((took.len() as f64 * share) as usize).or(took.last()).copied().unwrap_or(0);
        shown.seen_p999_ms = at(0.999) as f64 / 1e3;
        shown.seen_longest_ms = took.last().copied().unwrap_or(0) as f64 / 1e3;
    });
    shown.evicted = figure(&mut control, "stats", "evicted_keys");
    let limit = limit.unwrap_or_else(|| figure(&mut control, "memory", "maxmemory"));
    if limit > 0 && !until_within {
        shown.above_percent = (highest.load(Relaxed) as f64 / limit as f64 - 1.0).max(0.0) * 100.0;
    }
    (shown.late, shown.late_ms) = latencies(&mut control);
    let longest = control.run("DEBUG KARA-EVICTION");
    let numbers: Vec<i64> = longest.items().iter().filter_map(Reply::integer).collect();
    if let [us, long] = numbers[..] {
        (shown.longest_ms, shown.long) = (us as f64 / 1e3, long);
    }
    shown
}

/// Gives threads the highest priority short of real time, which the kernel interrupts for 50 ms of each second; false where
/// that isn't allowed.
fn prefer(threads: impl Iterator<Item = OsString>) -> bool {
    let mut renice = Command::new("renice");
    renice.args(["-n", "-20", "-p"]).args(threads);
    let done = renice.stdout(Stdio::null()).stderr(Stdio::null()).status();
    done.is_ok_and(|status| status.success())
}

/// The server's threads.
fn threads(server: &Server) -> impl Iterator<Item = OsString> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).into_iter().flatten().flatten();
    tasks.map(|task| task.file_name())
}

/// Fills the cache nearly, then writes at its limit, then halves the limit. True: the server had high priority.
///
/// # Panics
/// Where the server refuses a command.
pub fn measure(start: &dyn Fn(&[&str]) -> Server, run: Run<'_>) -> (Shown, bool) {
    let workers = run.workers.to_string();
    let server = start(&["--io-threads", &workers, "--maxmemory-policy", run.policy]);
    let mut client = server.client();
    client.set_timeout(Duration::from_secs(120)).unwrap_or_default();
    client.run("CONFIG SET latency-monitor-threshold 1");
    let preferred = prefer(threads(&server));
    // A short time without a limit: what the machine and the load alone do.
    let without = phase(&server, run, None, 2, false);
    client.run("FLUSHALL SYNC");
    // Volatile policies have little to choose from: nine of ten keys stay.
    let share = if run.policy.starts_with("volatile") { 9 } else { 10 };
    let used = figure(&mut client, "memory", "used_memory");
    let mut keys = 0u64;
    while figure(&mut client, "memory", "used_memory") < used + (run.limit - used) * share / 10 {
        keys += 100_000;
        let populate = client.call(&["DEBUG", "POPULATE", &keys.to_string(), "base", "100"]);
        assert_eq!(populate, Reply::Simple(b"OK".to_vec()));
    }
    client.call(&["CONFIG", "SET", "maxmemory", &run.limit.to_string()]);
    let mut warm = phase(&server, run, None, 2, false);
    while warm.evicted == 0 {
        warm = phase(&server, run, None, 2, false);
    }
    let full = phase(&server, run, None, run.seconds, false);
    let used = figure(&mut client, "memory", "used_memory");
    // Where only keys that expire may go, half of what may go.
    let target = if share == 10 { used / 2 } else { used - used / 40 };
    let half = phase(&server, run, Some(target), 0, true);
    (Shown { without, full, half }, preferred)
}
