//! How long other clients wait while a large collection is dropped.

use super::{post, scatter, send_all, words};
use crate::Server;
use crate::client::Client;
use std::net::TcpStream;
use std::time::{Duration, Instant};

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

/// The longest time that a GET of another client took, without the collection's end and around it.
#[derive(Clone, Copy, Debug)]
pub struct Stall {
    pub before: Duration,
    pub around: Duration,
}

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

/// Fills a collection of `elements`, lets it end, and measures the waits of another client meanwhile.
///
/// # Panics
/// Where the server doesn't answer or the collection is still there afterwards.
pub fn stall(server: &Server, kind: &str, elements: u64, ending: Ending) -> Stall {
    let mut client = server.client();
    client.call(&["FLUSHALL", "SYNC"]);
    client.call(&["SET", "small", "value"]);
    send_all(&mut client, elements, |number| element(kind, number));
    let mut probe = server.client();
    let before = longest(&mut probe, Duration::from_millis(500));
    let mut ender = TcpStream::connect(("127.0.0.1", server.port())).unwrap_or_else(|why| panic!("{why}"));
    let request = match ending {
        Ending::Unlink => words(&[b"UNLINK", b"big"]),
        Ending::Del => words(&[b"DEL", b"big"]),
        Ending::Overwrite => words(&[b"SET", b"big", b"small"]),
        Ending::Expiry | Ending::ExpiryOnAccess => words(&[b"PEXPIRE", b"big", b"100"]),
        Ending::Rename => words(&[b"RENAME", b"small2", b"big"]),
    };
    client.call(&["SET", "small2", "value"]);
    if ending == Ending::ExpiryOnAccess {
        client.call(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
    }
    post(&mut ender, &request).unwrap_or_else(|why| panic!("{why}"));
    let mut around = Duration::ZERO;
    if ending == Ending::ExpiryOnAccess {
        around = longest(&mut probe, Duration::from_millis(200));
        post(&mut ender, &words(&[b"EXISTS", b"big"])).unwrap_or_else(|why| panic!("{why}"));
    }
    let around = around.max(longest(&mut probe, Duration::from_secs(1)));
    client.call(&["DEBUG", "SET-ACTIVE-EXPIRE", "1"]);
    let left = client.call(&["MEMORY", "USAGE", "big", "SAMPLES", "1"]).integer().unwrap_or_default();
    assert!(left < 1_000, "{kind} is still there after {ending:?}: {left} bytes");
    Stall { before, around }
}

/// The longest GET within a time.
fn longest(probe: &mut Client, within: Duration) -> Duration {
    let started = Instant::now();
    let mut longest = Duration::ZERO;
    while started.elapsed() < within {
        let sent = Instant::now();
        probe.call(&["GET", "small"]);
        longest = longest.max(sent.elapsed());
    }
    longest
}
