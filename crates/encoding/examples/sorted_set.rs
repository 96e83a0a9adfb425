//! Nanoseconds per operation and bytes per member of a large sorted set, by the order in which scores come.
//!
//! `cargo run --release -p kara-encoding --features jemalloc --example sorted_set [members]`

use kara_base::alloc::{CountingAlloc, Jemalloc, used_memory};
use kara_base::hash::HashSeed;
use kara_base::rng::Rng;
use kara_encoding::btree::Bound;
use kara_encoding::sorted_set::SortedSet;
use std::hint::black_box;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: CountingAlloc<Jemalloc> = CountingAlloc(Jemalloc);

#[derive(Clone, Copy, Debug)]
enum Scores {
    Random,
    Ascending,
    Equal,
}

fn main() {
    let count: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    for scores in [Scores::Random, Scores::Ascending, Scores::Equal] {
        measure(scores, count);
    }
}

fn timed(name: &str, operations: usize, mut run: impl FnMut(usize)) {
    let start = Instant::now();
    (0..operations).for_each(&mut run);
    print!("  {name} {} ns", start.elapsed().as_nanos() as usize / operations.max(1));
}

fn measure(scores: Scores, count: usize) {
    let mut rng = Rng::new(1);
    let members: Vec<String> = (0..count).map(|i| format!("member:{i:010}")).collect();
    let mut order: Vec<usize> = (0..count).collect();
    (1..count).rev().for_each(|i| order.swap(i, rng.below(i as u64 + 1) as usize));
    let any = |rng: &mut Rng| rng.below(1 << 40) as f64;
    let before = used_memory();
    let mut set = SortedSet::new(HashSeed { k0: 1, k1: 2 });
    print!("{scores:?}:");
    timed("add", count, |i| match scores {
        Scores::Random => set.set(members[order[i]].as_bytes(), any(&mut rng)),
        Scores::Ascending => set.set(members[i].as_bytes(), i as f64),
        Scores::Equal => set.set(members[order[i]].as_bytes(), 0.0),
    });
    print!("  {:.1} bytes", (used_memory() - before) as f64 / count as f64);
    timed("rank", count, |i| {
        black_box(set.rank(members[order[i]].as_bytes()));
    });
    timed("count", count, |_| {
        black_box(set.rank_of(&Bound::before_score(any(&mut rng))));
    });
    timed("range of 10", count / 10, |_| {
        set.range(rng.below(count as u64) as usize, 10, true).for_each(|item| {
            black_box(item);
        });
    });
    timed("rescore", count / 2, |i| set.set(members[order[i]].as_bytes(), any(&mut rng)));
    timed("remove", count / 10, |i| {
        black_box(set.remove(members[order[i]].as_bytes()));
    });
    timed("pop", count / 2, |_| set.remove_range(0, 1, |_, _| ()));
    println!();
}
