//! How long single operations hold others up while a table grows to ten million keys, and while FLUSHALL ASYNC takes
//! them away: the longest ones, in CPU time of the thread (what the table costs) and by the clock (with the machine's
//! other work). Growing happens twice, in the same way: what the table does takes long both times at the same key, what
//! the machine does doesn't. Ends with an error where an operation takes more than 2 ms of CPU both times.
//!
//! `cargo run --release -p kara-keyspace --features jemalloc --example stalls [keys] [shards]`

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use kara_base::alloc::{CountingAlloc, Jemalloc};
use kara_base::hash::HashSeed;
use kara_base::ids::DbIndex;
use kara_base::rng::Rng;
use kara_keyspace::{ExpiryUpdate, Keyspace, KeyspaceOptions};
use rustix::time::{ClockId, clock_gettime};

#[global_allocator]
static ALLOCATOR: CountingAlloc<Jemalloc> = CountingAlloc(Jemalloc);

const DB: DbIndex = DbIndex(0);
/// What nothing may cost others.
const BOUND_US: u64 = 2_000;

/// CPU time of the calling thread in microseconds, user and system.
fn cpu_us() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

/// The longest operation, by both clocks, and how many were beyond the bound by the clock on the wall.
#[derive(Default)]
struct Worst {
    cpu_us: u64,
    wall_us: u64,
    late: u64,
    operations: u64,
    /// Which ones took more CPU time than the bound.
    slow: BTreeSet<u64>,
}

impl Worst {
    fn time<T>(&mut self, operation: impl FnOnce() -> T) -> T {
        let (cpu, wall) = (cpu_us(), Instant::now());
        let result = operation();
        let (cpu, wall) = (cpu_us() - cpu, wall.elapsed().as_micros() as u64);
        self.cpu_us = self.cpu_us.max(cpu);
        self.wall_us = self.wall_us.max(wall);
        self.late += u64::from(wall > BOUND_US);
        if cpu > BOUND_US {
            self.slow.insert(self.operations);
        }
        self.operations += 1;
        result
    }

    fn report(&self, what: &str) {
        println!(
            "{what}: {} operations, longest {:.3} ms of CPU ({} beyond {} ms), {:.3} ms by the clock ({})",
            self.operations,
            self.cpu_us as f64 / 1e3,
            self.slow.len(),
            BOUND_US / 1_000,
            self.wall_us as f64 / 1e3,
            self.late,
        );
    }
}

fn set(ks: &Keyspace, number: usize) {
    let name = format!("key:{number:012}");
    let key = ks.key(name.as_bytes());
    ks.lock_one(ks.shard_of(key.hash)).set_string(DB, &key, b"12345678", ExpiryUpdate::Clear);
}

/// The keys at which growing took long.
fn grow(ks: &Keyspace, keys: usize) -> BTreeSet<u64> {
    let mut worst = Worst::default();
    (0..keys).for_each(|number| worst.time(|| set(ks, number)));
    worst.report("growing");
    worst.slow
}

/// FLUSHALL ASYNC: the tables are taken away under all locks, and freed by another thread while commands go on.
fn flush(ks: &Keyspace, keys: usize) -> bool {
    let (mut taken, mut others) = (Worst::default(), Worst::default());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let gone = taken.time(|| ks.lock_all().flush(None));
        let count = gone.len();
        let done = &done;
        scope.spawn(move || {
            let begin = Instant::now();
            drop(gone);
            println!("freeing {count} keys elsewhere took {:.0} ms", begin.elapsed().as_secs_f64() * 1e3);
            done.store(true, Relaxed);
        });
        let mut rng = Rng::new(1);
        while !done.load(Relaxed) {
            others.time(|| set(ks, rng.below(keys as u64) as usize));
        }
    });
    taken.report("taking the tables away");
    others.report("others meanwhile");
    taken.slow.is_empty()
}

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).filter_map(|n| n.parse().ok());
    let keys = numbers.next().unwrap_or(10_000_000);
    let shards = numbers.next().unwrap_or(1);
    let new = || Keyspace::new(KeyspaceOptions { shards, databases: 16, seed: HashSeed { k0: 1, k1: 2 } });
    println!("{keys} keys, {shards} shard(s)");
    let first = grow(&new(), keys);
    let ks = new();
    let again = grow(&ks, keys);
    let of_the_table: Vec<_> = first.intersection(&again).collect();
    println!("beyond the bound both times: {of_the_table:?}");
    let flushed = flush(&ks, keys);
    if of_the_table.is_empty() && flushed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
