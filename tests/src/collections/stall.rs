//! How long a server is busy while a large collection goes, and so keeps its other clients waiting.
//!
//! Measured is the processor time of the threads that serve clients: what a client sees on the clock is, on a busy
//! machine, mostly the machine.

use super::{scatter, send_all, words};
use crate::Server;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The types whose elements are allocations of their own, or many blocks.
pub const KINDS: &[&str] = &["set", "intset", "hash", "zset", "list", "stream"];

/// How the collection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Unlink,
    /// With `lazyfree-lazy-user-del`, which is on by default.
    Del,
    Overwrite,
    /// Its time passes; nobody looks at it.
    Expiry,
    /// Its time passes, and a client asks for it.
    ExpiryOnAccess,
    Rename,
}

impl Ending {
    pub const ALL: [Ending; 6] = [
        Ending::Unlink,
        Ending::Del,
        Ending::Overwrite,
        Ending::Expiry,
        Ending::ExpiryOnAccess,
        Ending::Rename,
    ];
}

/// The threads that free and give memory back, ours and the reference's; their time is nobody's wait.
const FREEING: [&str; 3] = ["lazyfree", "bio_lazy_free", "jemalloc_bg_thd"];
/// How long the processor time is taken for.
const WINDOW: Duration = Duration::from_millis(600);

fn element(kind: &str, number: u64) -> Vec<Vec<u8>> {
    let name = format!("member-{number:010}");
    let name = name.as_bytes();
    match kind {
        "set" => words(&[b"SADD", b"big", name]),
        "intset" => words(&[b"SADD", b"big", scatter(number).to_string().as_bytes()]),
        "hash" => words(&[b"HSET", b"big", name, name]),
        "zset" => words(&[b"ZADD", b"big", (scatter(number) % 1_000_000).to_string().as_bytes(), name]),
        "list" => words(&[b"RPUSH", b"big", name]),
        _ => words(&[b"XADD", b"big", b"*", b"field", name]),
    }
}

/// Fills a collection of `elements` and lets it end. Gives the processor time that the busiest thread which serves
/// clients spent on the end, beyond what it spends in as long a time without one.
///
/// # Panics
/// Where the server doesn't answer or the collection is still there afterwards.
pub fn stall(server: &Server, kind: &str, elements: u64, ending: Ending) -> Duration {
    let mut client = server.client();
    client.call(&["FLUSHALL", "SYNC"]);
    send_all(&mut client, elements, |number| element(kind, number));
    client.call(&["SET", "other", "value"]);
    // What filling left to do (growing tables, giving memory back) is done by now.
    std::thread::sleep(WINDOW);
    let before = on_cpu_ns(server);
    std::thread::sleep(WINDOW);
    let idle = busiest(server, &before);

    let request = match ending {
        Ending::Unlink => words(&[b"UNLINK", b"big"]),
        Ending::Del => words(&[b"DEL", b"big"]),
        Ending::Overwrite => words(&[b"SET", b"big", b"small"]),
        Ending::Expiry | Ending::ExpiryOnAccess => words(&[b"PEXPIRE", b"big", b"100"]),
        Ending::Rename => words(&[b"RENAME", b"other", b"big"]),
    };
    if ending == Ending::ExpiryOnAccess {
        client.call(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
    }
    let before = on_cpu_ns(server);
    client.call(&request);
    if ending == Ending::ExpiryOnAccess {
        std::thread::sleep(Duration::from_millis(150));
        client.call(&["EXISTS", "big"]);
    }
    std::thread::sleep(WINDOW);
    let busy = busiest(server, &before).saturating_sub(idle);
    client.call(&["DEBUG", "SET-ACTIVE-EXPIRE", "1"]);
    let left = client.call(&["MEMORY", "USAGE", "big", "SAMPLES", "1"]).integer().unwrap_or_default();
    assert!(left < 1_000, "{kind} is still there after {ending:?}: {left} bytes");
    busy
}

/// Nanoseconds on a processor by thread, without those that free.
fn on_cpu_ns(server: &Server) -> BTreeMap<PathBuf, u64> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).into_iter().flatten().flatten();
    let spent = tasks.filter_map(|task| {
        let path = task.path();
        let read = |name: &str| std::fs::read_to_string(path.join(name)).unwrap_or_default();
        let ns = read("schedstat").split_whitespace().next()?.parse().ok()?;
        (!FREEING.contains(&read("comm").trim())).then_some((path, ns))
    });
    spent.collect()
}

/// The most that one thread spent since `before`.
fn busiest(server: &Server, before: &BTreeMap<PathBuf, u64>) -> Duration {
    let spent = on_cpu_ns(server).into_iter().map(|(task, ns)| {
        Duration::from_nanos(ns.saturating_sub(before.get(&task).copied().unwrap_or_default()))
    });
    spent.max().unwrap_or_default()
}
