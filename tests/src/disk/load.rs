//! What a snapshot costs those who write meanwhile: latencies with and without one, peak memory, and whether each
//! snapshot is exactly one cut.

use super::Dice;
use crate::{Client, Server};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub keys: u64,
    pub value_bytes: u64,
    pub clients: u64,
    /// How long writing without a snapshot is measured, before it and again behind it.
    pub seconds: u64,
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// p99.9 in ms without and with a snapshot under way.
    pub without_ms: f64,
    pub with_ms: f64,
    pub worst_with_ms: f64,
    /// Resident bytes before, and at the peak while saving.
    pub before_bytes: u64,
    pub peak_bytes: u64,
    pub snapshot_s: f64,
}

/// A size in `/proc/PID/status`, in bytes; 0 where it isn't told.
pub(crate) fn status(pid: u32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// The place in ms below which so many of a thousand lie.
pub(crate) fn place(latencies: &mut [f64], per_mille: usize) -> f64 {
    latencies.sort_unstable_by(f64::total_cmp);
    latencies
        .get((latencies.len() * per_mille / 1000).min(latencies.len().saturating_sub(1)))
        .copied()
        .unwrap_or(0.0)
}

/// Overwrites random keys until told to stop; gives the latencies in ms.
fn write(client: &mut Client, size: Size, seed: u64, stop: &AtomicBool) -> Vec<f64> {
    let mut dice = Dice(seed | 1);
    let value = "x".repeat(size.value_bytes as usize);
    let mut latencies = Vec::new();
    while !stop.load(Relaxed) {
        let key = format!("key:{}", dice.below(size.keys));
        let begun = Instant::now();
        client.call(&["SET", &key, &value]);
        latencies.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    latencies
}

/// All clients write while `work` runs.
fn written_meanwhile(server: &Server, size: Size, work: impl FnOnce()) -> Vec<f64> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..size.clients)
            .map(|number| {
                let (mut client, stop) = (server.client(), &stop);
                scope.spawn(move || write(&mut client, size, (number + 1) * 7919, stop))
            })
            .collect();
        work();
        stop.store(true, Relaxed);
        writers.into_iter().flat_map(|writer| writer.join().unwrap_or_default()).collect()
    })
}

fn wait_for_save(client: &mut Client) {
    while client.run("INFO persistence").text().contains("rdb_bgsave_in_progress:1") {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Fills the server, then measures.
///
/// # Panics
/// Where the server doesn't answer as it should.
pub fn measure(server: &Server, size: Size) -> Figures {
    let mut control = server.client();
    let _ = control.set_timeout(Duration::from_secs(600));
    let filled = control.run(&format!("DEBUG POPULATE {} key {}", size.keys, size.value_bytes));
    assert_eq!(filled.text(), "OK");
    let undisturbed =
        || written_meanwhile(server, size, || std::thread::sleep(Duration::from_secs(size.seconds)));
    let mut without = undisturbed();
    let before_bytes = status(server.pid(), "VmRSS");
    // The peak begins anew.
    let _ = fs::write(format!("/proc/{}/clear_refs", server.pid()), "5");
    let mut took = Duration::ZERO;
    let mut with = written_meanwhile(server, size, || {
        let begun = Instant::now();
        assert_eq!(control.run("BGSAVE").text(), "Background saving started");
        wait_for_save(&mut control);
        took = begun.elapsed();
    });
    let peak_bytes = status(server.pid(), "VmHWM");
    without.extend(undisturbed());
    Figures {
        without_ms: place(&mut without, 999),
        with_ms: place(&mut with, 999),
        worst_with_ms: with.last().copied().unwrap_or(0.0),
        before_bytes,
        peak_bytes,
        snapshot_s: took.as_secs_f64(),
    }
}

/// The longest waits beside a large collection, ms.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// Of a client with keys of its own while the collection is saved, and for as long while nothing is: what is left of
    /// the difference is the machine's.
    pub others_ms: f64,
    pub others_idle_ms: f64,
    /// Of one that writes to the collection while it is saved.
    pub own_ms: f64,
}

/// Measures the waits beside a hash of so many fields.
///
/// # Panics
/// Where the server doesn't answer as it should.
pub fn beside_a_large_hash(server: &Server, fields: u64) -> Waits {
    let mut control = server.client();
    let _ = control.set_timeout(Duration::from_secs(600));
    for first in (0..fields).step_by(1000) {
        let mut words = vec!["HSET".to_owned(), "large".to_owned()];
        words.extend(
            (first..(first + 1000).min(fields)).flat_map(|n| [format!("field:{n}"), format!("value:{n}")]),
        );
        control.call(&words);
    }
    control.call(&["SET", "small", "0"]);
    let longest = |line: &'static str, stop: &AtomicBool| {
        let mut client = server.client();
        let mut longest = 0.0f64;
        while !stop.load(Relaxed) {
            let begun = Instant::now();
            client.run(line);
            longest = longest.max(begun.elapsed().as_secs_f64() * 1e3);
            std::thread::sleep(Duration::from_micros(200));
        }
        longest
    };
    let mut both = |work: &mut dyn FnMut(&mut Client)| {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let others = scope.spawn(|| longest("INCR small", &stop));
            std::thread::sleep(Duration::from_millis(50));
            let own = scope.spawn(|| longest("HSET large field:7 changed", &stop));
            work(&mut control);
            stop.store(true, Relaxed);
            (others.join().unwrap_or(f64::MAX), own.join().unwrap_or(f64::MAX))
        })
    };
    let mut took = Duration::ZERO;
    let (others_ms, own_ms) = both(&mut |control| {
        let begun = Instant::now();
        assert_eq!(control.run("BGSAVE").text(), "Background saving started");
        wait_for_save(control);
        took = begun.elapsed();
    });
    let (others_idle_ms, _) = both(&mut |_| std::thread::sleep(took));
    Waits { others_ms, others_idle_ms, own_ms }
}
