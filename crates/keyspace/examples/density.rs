use kara_base::hash::HashSeed;
use kara_keyspace::entry::{Entry, StrValue};
use kara_keyspace::table::{Table, TableHash};
fn main() {
    let mut t = Table::new(TableHash { seed: HashSeed { k0: 1, k1: 2 }, shard_bits: 0 });
    let mut next = 1000f64;
    let (mut sum, mut n) = (0.0, 0);
    for i in 0..3_000_000u64 {
        let k = i.to_le_bytes();
        let h = t.hash().of_key(&k);
        t.insert_unique(h, Entry::new_string(&k, StrValue::Int(1), None));
        if i as f64 >= next {
            next *= 1.02;
            let b = t.memory_usage() as f64 / t.len() as f64;
            sum += b;
            n += 1;
            if n % 20 == 0 {
                println!("{i} {b:.2}");
            }
        }
    }
    println!("avg {:.2}", sum / n as f64);
}
