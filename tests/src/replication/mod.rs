//! Replication between servers of several products: data of every kind under load, links that break, promotion. The
//! matrix in `cargo xtask test` is the short form of what `cargo xtask replication` runs.

mod data;
mod drill;
mod faults;
mod matrix;
mod proxy;
mod speed;

pub use data::{Can, Load, fill};
pub use drill::drill;
pub use faults::{Faults, run as run_faults};
pub use matrix::{Length, PAIRS, Pair, Product, run_pair};
pub use proxy::{Cut, Proxy};
pub use speed::{Latencies, Layout, Side, SyncFigures, Volume, WAYS, full_sync};

use crate::{Client, Reply, Server};
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something holds.
///
/// # Panics
/// Where it doesn't in time; the message says what.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A field of INFO; empty where there is none.
pub fn info(client: &mut Client, section: &str, field: &str) -> String {
    let Ok(reply) = client.try_call(&["INFO", section]) else { return String::new() };
    let text = reply.text();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

/// A number of INFO; 0 where there is none.
pub fn number(client: &mut Client, section: &str, field: &str) -> u64 {
    info(client, section, field).parse().unwrap_or(0)
}

/// Makes a server follow another, by a port of this host.
///
/// # Panics
/// Where it refuses.
pub fn follow(replica: &Server, port: u16) {
    let reply = replica.client().call(&["REPLICAOF", "127.0.0.1", &port.to_string()]);
    assert!(reply.text().starts_with("OK"), "REPLICAOF: {reply:?}");
}

/// Waits until the link to its primary works.
pub fn until_linked(what: &str, replica: &Server) {
    let mut client = replica.client();
    until(&format!("{what}: link up\n{}", replica.log_tail()), || {
        info(&mut client, "replication", "master_link_status") == "up"
    });
}

/// Waits until a replica has processed everything that its primary, which nobody writes to, has said.
pub fn until_caught_up(what: &str, primary: &mut Client, replica: &mut Client) {
    until(&format!("{what}: same offset"), || {
        let offset = number(primary, "replication", "master_repl_offset");
        number(replica, "replication", "master_repl_offset") == offset
    });
}

/// Waits until two data sets are equal; keys may expire meanwhile.
///
/// # Panics
/// Where they differ still after some seconds: with the keys that do.
pub fn until_equal(what: &str, primary: &mut Client, replica: &mut Client) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        until_caught_up(what, primary, replica);
        let (ours, theirs) = (primary.run("DEBUG DIGEST"), replica.run("DEBUG DIGEST"));
        assert!(!matches!(ours, Reply::Error(_)), "{what}: {ours:?}");
        if ours == theirs {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: the data differ: {}", differences(primary, replica));
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn differences(a: &mut Client, b: &mut Client) -> String {
    let mut out = Vec::new();
    for db in 0..16 {
        for client in [&mut *a, &mut *b] {
            client.run(&format!("SELECT {db}"));
        }
        let mut keys: Vec<String> = Vec::new();
        for client in [&mut *a, &mut *b] {
            if let Reply::Array(found) = client.run("KEYS *") {
                keys.extend(found.iter().map(Reply::text));
            }
        }
        keys.sort();
        keys.dedup();
        for key in keys {
            let value = |client: &mut Client| client.call(&["DEBUG", "DIGEST-VALUE", &key]);
            let (ours, theirs) = (value(a), value(b));
            if ours != theirs && out.len() < 5 {
                let kind = a.call(&["TYPE", &key]).text();
                let dump = |client: &mut Client| {
                    let ttl = client.call(&["PEXPIRETIME", &key]);
                    let mut value = match kind.as_str() {
                        "string" => client.call(&["GET", &key]),
                        "list" => client.call(&["LRANGE", &key, "0", "-1"]),
                        "hash" => client.call(&["HGETALL", &key]),
                        "set" => client.call(&["SMEMBERS", &key]),
                        "zset" => client.call(&["ZRANGE", &key, "0", "-1", "WITHSCORES"]),
                        _ => client.call(&["XINFO", "STREAM", &key, "FULL"]),
                    };
                    if let Reply::Array(items) = &mut value
                        && matches!(kind.as_str(), "hash" | "set")
                    {
                        let width = if kind == "hash" { 2 } else { 1 };
                        let mut rows: Vec<Vec<Reply>> = items.chunks(width).map(<[Reply]>::to_vec).collect();
                        rows.sort_by_key(|row| row.iter().map(Reply::text).collect::<Vec<_>>());
                        *items = rows.concat();
                    }
                    let clip = |text: String| text.chars().take(1500).collect::<String>();
                    clip(format!("{value:?} {ttl:?}").replace(&"v".repeat(12), ""))
                };
                out.push(format!("db {db} {kind} {key}:\n  {}\n  {}", dump(a), dump(b)));
            }
        }
    }
    out.join("\n")
}
