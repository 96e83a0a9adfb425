//! The fuzz targets without a fuzzer: inputs of the corpus, mutated by a seed, for some seconds, on any compiler. It
//! finds less than libFuzzer, which follows coverage; `cargo xtask fuzz` takes this where that one can't be had.
//!
//! `cargo run -p kara-resp --example fuzz -- CORPUS [seconds] [seed] [target]`

#[path = "../../../fuzz/checks/resp_reply.rs"]
mod resp_reply;
#[path = "../../../fuzz/checks/resp_request.rs"]
mod resp_request;

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// A target's name and its check of one input.
type Target = (&'static str, fn(&[u8]));

const TARGETS: &[Target] = &[("resp_reply", resp_reply::check), ("resp_request", resp_request::check)];
/// Inputs stay below this, so that many of them fit a second.
const MOST_BYTES: usize = 8 << 10;
/// What parsers trip over, besides chance.
const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"*",
    b"$",
    b"-1",
    b"0",
    b"*3\r\n",
    b"$5\r\nhello\r\n",
    b"$-1\r\n",
    b"*-1\r\n",
    b"2147483648",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"18446744073709551616",
    b"\"",
    b"'",
    b"\\x",
    b" ",
    b"\0",
    b"%1\r\n",
    b"~2\r\n",
    b">1\r\n",
    b"|1\r\n",
    b",1e400\r\n",
    b",nan\r\n",
    b"#t\r\n",
    b"_\r\n",
    b"(12\r\n",
    b"=7\r\ntxt:abc\r\n",
    b"!5\r\nERR x\r\n",
    b"PING\r\n",
];

/// Splitmix64: small, and the same everywhere.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// One of the known inputs with a few changes.
fn mutate(known: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut input = known.get(chance.below(known.len())).cloned().unwrap_or_default();
    for _ in 0..1 + chance.below(6) {
        let at = chance.below(input.len() + 1);
        let until = (at + chance.below(16)).min(input.len());
        match chance.below(7) {
            0 => input.insert(at, chance.next() as u8),
            1 => drop(input.drain(at..until)),
            2 => input.splice(at..at, PIECES[chance.below(PIECES.len())].iter().copied()).for_each(drop),
            3 => input.splice(at..until, PIECES[chance.below(PIECES.len())].iter().copied()).for_each(drop),
            4 => input.extend_from_within(at..until),
            5 => {
                let other = &known[chance.below(known.len())];
                let from = chance.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << chance.below(8);
                }
            }
        }
    }
    input.truncate(MOST_BYTES);
    input
}

fn corpus(folder: &Path) -> std::io::Result<Vec<Vec<u8>>> {
    let mut files: Vec<_> = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    // In the same order everywhere, so that a seed replays a run.
    files.sort();
    files.iter().map(std::fs::read).collect()
}

fn fuzz(name: &str, check: fn(&[u8]), folder: &Path, time: Duration, seed: u64) -> std::io::Result<()> {
    let mut known = corpus(&folder.join(name))?;
    known.push(Vec::new());
    let mut chance = Chance(seed);
    let (start, mut runs) = (Instant::now(), 0u64);
    while start.elapsed() < time {
        let input = mutate(&known, &mut chance);
        if let Err(cause) = std::panic::catch_unwind(|| check(&input)) {
            let artifact = std::env::temp_dir().join(format!("{name}-{seed}-{runs}"));
            std::fs::File::create(&artifact)?.write_all(&input)?;
            eprintln!("{name}, seed {seed}, run {runs}: the input is in {}", artifact.display());
            std::panic::resume_unwind(cause);
        }
        runs += 1;
        // A little of what was tried is built upon; the corpus stays small.
        if runs % 512 == 0 {
            if known.len() < 256 { known.push(input) } else { known[chance.below(256)] = input }
        }
    }
    println!("{name}: {runs} inputs in {} s, seed {seed}", time.as_secs());
    Ok(())
}

fn main() -> std::io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default| words.get(at).and_then(|n| n.parse().ok()).unwrap_or(default);
    let folder = words.first().map_or("fuzz/corpus", String::as_str);
    let only = words.get(3);
    for (name, check) in TARGETS.iter().filter(|(name, _)| only.is_none_or(|only| only == name)) {
        fuzz(name, *check, Path::new(folder), Duration::from_secs(number(1, 60)), number(2, 1))?;
    }
    Ok(())
}
