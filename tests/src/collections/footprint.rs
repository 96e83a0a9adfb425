//! `used_memory` per element.

use super::{scatter, send_all, words};
use crate::{Client, Server};

/// One kind of collection and what an element of it may cost.
pub struct Footprint {
    pub name: &'static str,
    /// Elements at full size; for small hashes, keys.
    pub elements: u64,
    /// Bytes of `used_memory` for each.
    pub limit: f64,
    make: fn(u64) -> Vec<Vec<u8>>,
}

/// What is measured. The limits hold at full size: tables grow in steps.
pub const FOOTPRINTS: &[Footprint] = &[
    Footprint { name: "hash of ten small fields", elements: 100_000, limit: 268.0, make: small_hash },
    Footprint { name: "sorted set, 17-byte members", elements: 1_000_000, limit: 58.0, make: zset },
    Footprint { name: "hash, 16-byte fields and values", elements: 1_000_000, limit: 62.0, make: hash },
    Footprint { name: "set, 17-byte members", elements: 1_000_000, limit: 44.0, make: set },
    Footprint { name: "set of integers", elements: 1_000_000, limit: 20.0, make: int_set },
    Footprint { name: "list, 15-byte elements", elements: 1_000_000, limit: 17.2, make: list },
    Footprint { name: "stream, two fields", elements: 500_000, limit: 36.0, make: stream },
];

fn small_hash(number: u64) -> Vec<Vec<u8>> {
    let mut request = vec![b"HSET".to_vec(), format!("hash:{number:08}").into()];
    for field in 0..10 {
        request.push(format!("field{field}").into());
        request.push(format!("value-{:05}", (number * 10 + field) % 100_000).into());
    }
    request
}

fn zset(number: u64) -> Vec<Vec<u8>> {
    let score = scatter(number) % 1_000_000;
    words(&[b"ZADD", b"z", score.to_string().as_bytes(), format!("member-{number:010}").as_bytes()])
}

fn hash(number: u64) -> Vec<Vec<u8>> {
    words(&[
        b"HSET",
        b"h",
        format!("field-{number:010}").as_bytes(),
        format!("value-{number:010}").as_bytes(),
    ])
}

fn set(number: u64) -> Vec<Vec<u8>> {
    words(&[b"SADD", b"s", format!("member-{number:010}").as_bytes()])
}

fn int_set(number: u64) -> Vec<Vec<u8>> {
    words(&[b"SADD", b"i", scatter(number).to_string().as_bytes()])
}

fn list(number: u64) -> Vec<Vec<u8>> {
    words(&[b"RPUSH", b"l", format!("elem-{number:010}").as_bytes()])
}

fn stream(number: u64) -> Vec<Vec<u8>> {
    let value = |field: u64| format!("{:06}", scatter(number * 2 + field) % 1_000_000);
    words(&[b"XADD", b"x", b"*", b"field1", value(0).as_bytes(), b"field2", value(1).as_bytes()])
}

/// Bytes of `used_memory` per element, of a collection of that many elements on a server of its own.
///
/// # Panics
/// Where the server doesn't answer.
pub fn footprint(server: &Server, what: &Footprint, elements: u64) -> f64 {
    let mut client = server.client();
    client.call(&["FLUSHALL", "SYNC"]);
    let before = used_memory(&mut client);
    send_all(&mut client, elements, what.make);
    let after = used_memory(&mut client);
    (after - before) / elements as f64
}

fn used_memory(client: &mut Client) -> f64 {
    let info = client.call(&["INFO", "memory"]).text();
    let value = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no used_memory: {info}"))
}
