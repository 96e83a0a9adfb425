//! Snapshots under writes: each is exactly one cut, whatever happens meanwhile.

use kara_tests::{Client, Reply, Server};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

const ACCOUNTS: u64 = 400;
const EACH: u64 = 1000;

/// A small generator of its own: the order of transfers is the seed's.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Moves money between random accounts, and makes the table grow, shrink and expire around them.
fn transfer(client: &mut Client, seed: u64, stop: &AtomicBool) {
    let mut dice = Dice(seed);
    let mut made = 0u64;
    while !stop.load(Relaxed) {
        let (from, to, amount) = (dice.below(ACCOUNTS), dice.below(ACCOUNTS), dice.below(50));
        for line in [
            "MULTI".to_owned(),
            format!("DECRBY account:{from} {amount}"),
            format!("INCRBY account:{to} {amount}"),
            format!("HINCRBY books out {amount}"),
            format!("HINCRBY books in -{amount}"),
            "EXEC".to_owned(),
        ] {
            client.run(&line);
        }
        for _ in 0..dice.below(20) {
            made += 1;
            client.run(&format!(
                "SET filler:{seed}:{made} {} PX {}",
                dice.below(1 << 40),
                1 + dice.below(300)
            ));
        }
        if dice.below(40) == 0 {
            client.run("SWAPDB 3 4");
            client.run("SELECT 5");
            client.run("SET flushed 1");
            client.run("FLUSHDB");
            client.run("SELECT 0");
        }
    }
}

fn wait_for(client: &mut Client, field: &str) {
    while client.run("INFO persistence").text().contains(&format!("{field}:1")) {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The sums over all accounts and over the books, which no transfer changes.
fn sums(client: &mut Client) -> (i64, i64) {
    let number = |reply: Reply| reply.text().parse::<i64>().expect("a number");
    let accounts = (0..ACCOUNTS).map(|n| number(client.run(&format!("GET account:{n}")))).sum();
    let books = number(client.run("HGET books out")) + number(client.run("HGET books in"));
    (accounts, books)
}

fn run(threads: &str, rounds: usize) {
    let server = Server::start(&["--io-threads", threads]);
    let mut control = server.client();
    for n in 0..ACCOUNTS {
        control.run(&format!("SET account:{n} {EACH}"));
    }
    control.run("HSET books out 0 in 0");
    let mut reader = Server::start(&[]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 1..4 {
            let (mut client, stop) = (server.client(), &stop);
            scope.spawn(move || transfer(&mut client, seed * 7919, stop));
        }
        for round in 0..rounds {
            std::thread::sleep(Duration::from_millis(5));
            let started = control.run("BGSAVE").text().to_owned();
            assert_eq!(started, "Background saving started");
            wait_for(&mut control, "rdb_bgsave_in_progress");
            reader.kill();
            std::fs::copy(server.folder().join("dump.rdb"), reader.folder().join("dump.rdb"))
                .expect("a dump");
            reader.restart();
            let loaded = sums(&mut reader.client());
            assert_eq!(loaded, ((ACCOUNTS * EACH) as i64, 0), "snapshot {round}");
        }
        stop.store(true, Relaxed);
    });
}

/// D3 and D4: each snapshot is one cut, while tables split and jobs are cancelled.
#[test]
fn transfers_keep_their_sum_with_one_worker() {
    run("1", 12);
}

/// Only who wants a large value waits while it is saved.
#[test]
fn a_large_hash_keeps_nobody_else_waiting() {
    for form in ["yes", "no"] {
        let server = Server::start(&["--io-threads", "1", "--aof-use-rdb-preamble", form]);
        let mut client = server.client();
        let mut add = |command: &str, key: &str, words: &dyn Fn(u64) -> Vec<String>| {
            for first in (0..40_000).step_by(1000) {
                let mut args = vec![command.to_owned(), key.to_owned()];
                args.extend((first..first + 1000).flat_map(words));
                client.call(&args);
            }
        };
        add("HSET", "hash", &|n| vec![format!("f{n}"), format!("v{n}")]);
        add("SADD", "set", &|n| vec![format!("m{n}")]);
        add("SADD", "ints", &|n| vec![n.to_string()]);
        add("ZADD", "zset", &|n| vec![n.to_string(), format!("m{n}")]);
        add("RPUSH", "list", &|n| vec![format!("element {n}")]);
        for n in 1..5000 {
            client.run(&format!("XADD stream {n}-1 field {n}"));
        }
        client.call(&["SET", "text", &"0123456789".repeat(300_000)]);
        client.run("HPEXPIRE hash 100000000 FIELDS 1 f7");
        let before = client.run("DEBUG DIGEST");
        let began = if form == "yes" { "BGSAVE" } else { "CONFIG SET appendonly yes" };
        // Slowed down, so that the writes come in the middle.
        client.run("CONFIG SET rdb-key-save-delay 3000");
        client.run(began);
        for (n, line) in [
            "HSET hash f5 x",
            "SREM set m9",
            "SPOP ints",
            "ZADD zset 5 new",
            "LPOP list",
            "XADD stream * a b",
            "APPEND text x",
        ]
        .into_iter()
        .enumerate()
        {
            let mut writer = server.client();
            if n % 2 == 0 {
                assert!(!writer.run(line).is_error(), "{line}");
            } else {
                writer.run("MULTI");
                writer.run(line);
                assert!(!writer.run("EXEC").is_error(), "{line}");
            }
        }
        client.run("CONFIG SET rdb-key-save-delay 0");
        if form == "yes" {
            wait_for(&mut client, "rdb_bgsave_in_progress");
            client.run("DEBUG RELOAD NOSAVE");
            assert_eq!(client.run("DEBUG DIGEST"), before, "the state at BGSAVE");
        } else {
            wait_for(&mut client, "aof_rewrite_in_progress");
            let now = client.run("DEBUG DIGEST");
            client.run("DEBUG LOADAOF");
            assert_eq!(client.run("DEBUG DIGEST"), now);
        }
    }
}

#[test]
fn transfers_keep_their_sum_with_several_workers() {
    run("4", 12);
}
