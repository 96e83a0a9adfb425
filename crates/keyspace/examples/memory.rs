//! Bytes per key, everything included, as the counting allocator sees them; and the index's share.
//!
//! `cargo run --release -p kara-keyspace --features jemalloc --example memory [keys]`

use kara_base::alloc::{CountingAlloc, Jemalloc, used_memory};
use kara_base::hash::HashSeed;
use kara_base::ids::DbIndex;
use kara_keyspace::{ExpiryUpdate, Keyspace, KeyspaceOptions};

#[global_allocator]
static ALLOCATOR: CountingAlloc<Jemalloc> = CountingAlloc(Jemalloc);

const DB: DbIndex = DbIndex(0);

fn main() {
    let most: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    println!("{:>10} {:>14} {:>5} {:>10} {:>10}", "keys", "value", "ttl", "bytes/key", "of it index");
    for (name, value_len, ttl) in
        [("integer", 0, false), ("8 bytes", 8, false), ("64 bytes", 64, false), ("64 bytes", 64, true)]
    {
        // A growing table is fuller at some sizes than at others: the mean over a doubling is what counts.
        let sizes: Vec<usize> = (0..=8).map(|eighth| most / 2 + most * eighth / 16).collect();
        let (mut total, mut index, mut samples) = (0.0, 0.0, 0.0);
        let before = used_memory();
        let seed = HashSeed { k0: 1, k1: 2 };
        let ks = Keyspace::new(KeyspaceOptions { shards: 1, databases: 1, seed });
        let mut locked = ks.lock_all();
        for number in 0..most {
            let key = format!("key:{number:012}");
            let value = if value_len == 0 { number.to_string().into_bytes() } else { vec![b'x'; value_len] };
            let expiry = if ttl { ExpiryUpdate::At(1 << 41) } else { ExpiryUpdate::Clear };
            locked.set_string(DB, &ks.key(key.as_bytes()), &value, expiry);
            if sizes.contains(&(number + 1)) {
                let keys = (number + 1) as f64;
                total += (used_memory() - before) as f64 / keys;
                let tables: usize = locked.shards_mut().map(|(_, shard)| shard.table_bytes()).sum();
                index += tables as f64 / keys;
                samples += 1.0;
            }
        }
        println!("{most:>10} {name:>14} {ttl:>5} {:>10.1} {:>10.2}", total / samples, index / samples);
    }
}
