//! GET and SET in the ratio 80 to 20 over a million keys, straight on the keyspace: the cost of hash, lock, table and
//! entry without protocol or sockets; with one thread and one shard, then with two threads.
//!
//! `cargo run --release -p kara-keyspace --features jemalloc --example engine_bench [keys]`

use std::sync::Barrier;
use std::time::Instant;

use kara_base::alloc::{CountingAlloc, Jemalloc};
use kara_base::hash::HashSeed;
use kara_base::ids::DbIndex;
use kara_base::rng::Rng;
use kara_keyspace::{ExpiryUpdate, HashedKey, Keyspace, KeyspaceOptions};
use rustix::time::{ClockId, clock_gettime};
use smallvec::SmallVec;

#[global_allocator]
static ALLOCATOR: CountingAlloc<Jemalloc> = CountingAlloc(Jemalloc);

const DB: DbIndex = DbIndex(0);
const OPS: usize = 2_000_000;
/// Commands that a pipelining client has in flight, looked ahead over with prefetches.
const BATCH: usize = 16;

fn name(number: usize) -> [u8; 16] {
    let mut key = *b"key:000000000000";
    let mut rest = number;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// CPU seconds of the calling thread: on a busy machine the clock on the wall measures the neighbours.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Runs batches of commands and returns a checksum, so that nothing is optimized away.
fn work(ks: &Keyspace, keys: usize, seed: u64, batch: usize) -> usize {
    let mut rng = Rng::new(seed);
    let mut sum = 0;
    let value = [b'v'; 64];
    for _ in 0..OPS / batch {
        let mut names = [[0; 16]; BATCH];
        names[..batch].fill_with(|| name(rng.below(keys as u64) as usize));
        let hashed: SmallVec<[HashedKey<'_>; BATCH]> =
            names[..batch].iter().map(|name| ks.key(name)).collect();
        if batch > 1 {
            hashed.iter().for_each(|key| ks.prefetch_lock(key.hash));
            hashed.iter().for_each(|key| ks.prefetch_bucket(DB, key.hash));
            hashed.iter().for_each(|key| ks.prefetch_entry(DB, key.hash));
        }
        for key in &hashed {
            let mut locked = ks.lock_one(ks.shard_of(key.hash));
            if rng.below(5) == 0 {
                locked.set_string(DB, key, &value, ExpiryUpdate::Clear);
            } else {
                sum += locked.find(DB, key).and_then(|entry| entry.string()).map_or(0, |text| text.len());
            }
        }
    }
    sum
}

fn run(threads: usize, shards: usize, keys: usize, batch: usize) -> f64 {
    let seed = HashSeed { k0: 1, k1: 2 };
    let ks = Keyspace::new(KeyspaceOptions { shards, databases: 16, seed });
    let fill = cpu_seconds();
    for number in 0..keys {
        let key = name(number);
        let key = ks.key(&key);
        ks.lock_one(ks.shard_of(key.hash)).set_string(DB, &key, &[b'v'; 64], ExpiryUpdate::Clear);
    }
    let fill = cpu_seconds() - fill;
    let barrier = Barrier::new(threads);
    let (mut best_wall, mut best_cpu) = (f64::MAX, f64::MAX);
    for round in 0..5 {
        let start = Instant::now();
        let cpu: f64 = std::thread::scope(|scope| {
            let worker = |thread| {
                let (ks, barrier) = (&ks, &barrier);
                move || {
                    barrier.wait();
                    let start = cpu_seconds();
                    std::hint::black_box(work(ks, keys, (round * threads + thread) as u64, batch));
                    cpu_seconds() - start
                }
            };
            let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(worker(thread))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap_or(f64::MAX)).sum()
        });
        best_wall = best_wall.min(start.elapsed().as_secs_f64());
        best_cpu = best_cpu.min(cpu);
    }
    let ops = (OPS * threads) as f64;
    println!(
        "{threads} thread(s), {shards:>3} shard(s), batches of {batch:>2}: {:6.2} M op/s, {:5.0} ns of CPU each; \
         filling {:.0} ns per key",
        ops / best_wall / 1e6,
        best_cpu * 1e9 / ops,
        fill / keys as f64 * 1e9
    );
    best_cpu / ops
}

fn main() {
    let keys = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    run(1, 1, keys, BATCH);
    for batch in [1, BATCH] {
        let one = run(1, 64, keys, batch);
        let two = run(2, 64, keys, batch);
        println!("per CPU second two threads do {:.2} times the work of one", 2.0 * one / two);
    }
}
