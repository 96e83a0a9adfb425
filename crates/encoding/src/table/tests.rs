//! The table against a naive model, with good and with colliding hashes.

use std::collections::{BTreeMap, HashMap};

use kara_base::rng::Rng;

use super::*;

/// Entries are boxed u64 keys; how well they hash is the test's choice.
struct Keys {
    bits: u32,
}

fn hash(key: u64, bits: u32) -> u64 {
    let mut z = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    match bits {
        0 => 0,
        64 => z,
        _ => z << (64 - bits),
    }
}

// SAFETY: the key never changes.
unsafe impl EntryKind for Keys {
    unsafe fn hash(&self, entry: *const u8) -> u64 {
        // SAFETY: entries of this test are leaked boxes of u64.
        hash(unsafe { *entry.cast::<u64>() }, self.bits)
    }
    unsafe fn release(&self, entry: *mut u8) {
        // SAFETY: as above.
        drop(unsafe { Box::from_raw(entry.cast::<u64>()) });
    }
}

fn key(word: u64) -> u64 {
    // SAFETY: as above.
    unsafe { *((word & POINTER_MASK) as *const u64) }
}

struct Set(Table<PointerSlots<Keys>>, u32);

impl Set {
    fn new(bits: u32) -> Self {
        Set(Table::new(PointerSlots(Keys { bits })), bits)
    }
    fn find(&self, k: u64) -> Option<Found> {
        self.0.find(hash(k, self.1), |w| key(w) == k)
    }
    fn insert(&mut self, k: u64) -> bool {
        if self.find(k).is_some() {
            return false;
        }
        // SAFETY: a leaked box.
        unsafe { self.0.insert(hash(k, self.1), Box::into_raw(Box::new(k)) as u64) };
        true
    }
    fn remove(&mut self, k: u64) -> bool {
        let Some(found) = self.find(k) else { return false };
        let word = self.0.remove(found);
        // SAFETY: it was in the table and is out now.
        drop(unsafe { Box::from_raw((word & POINTER_MASK) as *mut u64) });
        true
    }
    fn check(&self) {
        let (mut index, mut lines, mut segments, mut deepest, mut len) = (0, 0, 0, 0, 0);
        while index < 1 << self.0.depth {
            let segment = self.0.segment_at(index);
            segment.check();
            for at in 0..segment.lines * segment::LINE_SLOTS {
                let word = segment.word_at(at);
                if word != 0 {
                    let h = hash(key(word), self.1);
                    assert_eq!(
                        PointerSlots::<Keys>::tag(word, 0),
                        Table::<PointerSlots<Keys>>::tag(h, segment.depth)
                    );
                    assert_eq!(self.0.segment_at(self.0.index(h)).pack(), segment.pack());
                }
            }
            lines += segment.lines;
            segments += 1;
            deepest += usize::from(segment.depth == self.0.depth);
            len += segment.count();
            index += 1 << (self.0.depth - segment.depth);
        }
        len += self.0.stash.len();
        assert_eq!(
            (lines, segments, deepest, len),
            (self.0.lines, self.0.segments, self.0.deepest, self.0.len)
        );
    }
}

fn model(bits: u32, seed: u64, steps: usize, ranges: &[u64]) {
    let mut rng = Rng::new(seed);
    let mut set = Set::new(bits);
    let mut naive = HashMap::new();
    for &range in ranges {
        for _ in 0..steps {
            let k = rng.below(range);
            if rng.below(100) < 55 {
                assert_eq!(set.insert(k), naive.insert(k, ()).is_none());
            } else {
                assert_eq!(set.remove(k), naive.remove(&k).is_some());
            }
        }
        set.check();
        let mut all: Vec<u64> = set.0.iter().map(key).collect();
        let mut expected: Vec<u64> = naive.keys().copied().collect();
        all.sort_unstable();
        expected.sort_unstable();
        assert_eq!(all, expected);
        for k in 0..range.min(3000) {
            assert_eq!(set.find(k).is_some(), naive.contains_key(&k));
        }
    }
}

#[test]
fn agrees_with_a_model() {
    for seed in 0..8 {
        model(64, seed, 20_000, &[8, 40, 3_000, 60_000, 3_000, 20]);
    }
}

#[test]
fn small_tables_agree_with_a_model_at_every_step() {
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let mut set = Set::new(64);
        for step in 0..600 {
            let k = rng.below(1 + step / 4);
            if rng.below(3) > 0 {
                set.insert(k)
            } else {
                set.remove(k)
            };
            set.check();
        }
    }
}

#[test]
fn hashes_that_collide_by_intent_cost_time_but_no_member() {
    for bits in [0, 3, 20] {
        model(bits, 5, 6_000, &[2_000, 300]);
    }
}

#[test]
fn a_million_words_take_at_most_ten_and_a_half_bytes_each() {
    let mut set = Set::new(64);
    let mut worst = 0.0f64;
    for k in 0..1_000_000u64 {
        set.insert(k);
        if k >= 200_000 && k % 10_000 == 0 {
            worst = worst.max(set.0.index_bytes() as f64 / (k + 1) as f64);
        }
    }
    let bytes = set.0.index_bytes() as f64 / 1e6;
    assert!(bytes <= 10.5, "{bytes}");
    assert!(worst <= 11.0, "{worst}");
}

#[test]
fn a_scan_visits_each_lasting_word_exactly_once() {
    for seed in 0..30 {
        let mut rng = Rng::new(seed);
        let mut set = Set::new(if seed % 5 == 4 { 22 } else { 64 });
        let lasting = 1 + rng.below(4000);
        for k in 0..lasting {
            set.insert(k);
        }
        let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
        let mut cursor = 0;
        let mut extra = lasting;
        loop {
            let count = 1 + rng.below(30) as usize;
            cursor = set.0.scan(cursor, count, |w| *seen.entry(key(w)).or_default() += 1);
            if cursor == 0 {
                break;
            }
            // Waves of other members force splits and merges in between.
            match rng.below(6) {
                0 => (0..rng.below(3000)).for_each(|_| {
                    set.insert(extra);
                    extra += 1;
                }),
                1 => (lasting..extra).for_each(|k| {
                    set.remove(k);
                }),
                _ => {}
            }
        }
        for k in 0..lasting {
            assert_eq!(seen.get(&k), Some(&1), "seed {seed}, member {k}");
        }
        set.check();
    }
}

#[test]
fn a_scan_survives_merges_below_its_cursor() {
    // The lasting members are few and the others leave while the scan is half way.
    for seed in 0..30 {
        let mut set = Set::new(64);
        for k in 0..20_000 {
            set.insert(k);
        }
        let mut seen = HashMap::new();
        let mut cursor = 0;
        let mut left = 20_000;
        loop {
            cursor = set.0.scan(cursor, 7, |w| *seen.entry(key(w)).or_insert(0) += 1);
            if cursor == 0 {
                break;
            }
            for _ in 0..20 + seed {
                if left > 100 {
                    left -= 1;
                    set.remove(left);
                }
            }
        }
        for k in 0..100 {
            assert_eq!(seen.get(&k), Some(&1));
        }
    }
}

#[test]
fn random_words_are_uniform() {
    for (members, bits) in [(5u64, 64), (300, 64), (2500, 64), (1200, 0)] {
        let mut set = Set::new(bits);
        for k in 0..members {
            set.insert(k);
        }
        let mut rng = Rng::new(9);
        let mut counts = vec![0u32; members as usize];
        let per = 60;
        for _ in 0..members * per {
            counts[key(set.0.random(&mut rng).unwrap()) as usize] += 1;
        }
        let chi2: f64 = counts.iter().map(|&c| (f64::from(c) - per as f64).powi(2) / per as f64).sum();
        // Mean n-1, deviation sqrt(2(n-1)): six deviations.
        let n = members as f64 - 1.0;
        assert!((chi2 - n).abs() < 6.0 * (2.0 * n).sqrt(), "{chi2} for {n}");
    }
}

#[test]
fn header_words_stay_through_growth() {
    struct Wide;
    // SAFETY: the key never changes.
    unsafe impl EntryKind for Wide {
        const HEADER_WORDS: usize = 8;
        unsafe fn hash(&self, entry: *const u8) -> u64 {
            // SAFETY: leaked boxes.
            hash(unsafe { *entry.cast::<u64>() }, 64)
        }
        unsafe fn release(&self, entry: *mut u8) {
            // SAFETY: as above.
            drop(unsafe { Box::from_raw(entry.cast::<u64>()) });
        }
    }
    let mut table = Table::new(PointerSlots(Wide));
    table.set_header(0, &[0x7_0000, 1, 2, 3, 4, 5, 6, 7]);
    for k in 0..5000u64 {
        // SAFETY: a leaked box.
        unsafe { table.insert(hash(k, 64), Box::into_raw(Box::new(k)) as u64) };
    }
    assert!(table.segments() > 4);
    for k in 0..5000 {
        let header = table.header(hash(k, 64));
        assert_eq!((header[0] >> 16, &header[1..]), (7, &[1, 2, 3, 4, 5, 6, 7][..]));
        assert!(table.find(hash(k, 64), |w| key(w) == k).is_some());
    }
    assert_eq!(table.iter().count(), 5000);
    table.clear();
    assert_eq!((table.len(), table.iter().count()), (0, 0));
}

#[test]
fn replace_keeps_the_place() {
    let mut set = Set::new(64);
    for k in 0..2000 {
        set.insert(k);
    }
    let found = set.find(77).unwrap();
    let fresh = Box::into_raw(Box::new(77u64)) as u64;
    // SAFETY: the same key at another address; the old box is freed.
    unsafe {
        set.0.replace(found, fresh);
        drop(Box::from_raw(found.pointer().cast::<u64>()));
    }
    assert_eq!(set.find(77).unwrap().word() & POINTER_MASK, fresh);
    set.check();
}

#[test]
fn removals_in_hash_order_give_the_memory_back() {
    let mut set = Set::new(64);
    for k in 0..300_000 {
        set.insert(k);
    }
    let mut order: Vec<u64> = set.0.iter().map(key).collect();
    order.sort_unstable_by_key(|&k| hash(k, 64));
    for (i, k) in order.iter().enumerate().take(299_990) {
        set.remove(*k);
        if i % 50_000 == 0 {
            set.check();
        }
    }
    set.check();
    assert!(set.0.index_bytes() < 8192, "{} bytes", set.0.index_bytes());
    let mut rng = Rng::new(3);
    assert!((0..100).all(|_| order[299_990..].contains(&key(set.0.random(&mut rng).unwrap()))));
}
