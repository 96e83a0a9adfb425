//! Keys as commands that make them again: a base without RDB (`aof-use-rdb-preamble no`).

use super::log::put_command;
use kara_encoding::listpack::Element;
use kara_encoding::stream::StreamId;
use kara_keyspace::value::hash::Hash;
use kara_keyspace::value::list::{End, List};
use kara_keyspace::value::set::Set;
use kara_keyspace::value::stream::Stream;
use kara_keyspace::value::zset::ZSet;
use kara_keyspace::{Entry, StrRef};

/// Elements per command: a huge value must not become a huge command.
const PER_COMMAND: usize = 64;

/// Gathers words and writes a command whenever it has enough of them.
struct Batch<'a> {
    out: &'a mut Vec<u8>,
    head: [&'a [u8]; 2],
    words: Vec<Vec<u8>>,
    group: usize,
}

impl<'a> Batch<'a> {
    fn new(out: &'a mut Vec<u8>, name: &'static str, key: &'a [u8], group: usize) -> Self {
        Batch { out, head: [name.as_bytes(), key], words: Vec::new(), group }
    }

    fn add(&mut self, word: Vec<u8>) {
        self.words.push(word);
        if self.words.len() >= PER_COMMAND * self.group {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.words.is_empty() {
            let args: Vec<&[u8]> =
                self.head.into_iter().chain(self.words.iter().map(Vec::as_slice)).collect();
            put_command(self.out, &args);
            self.words.clear();
        }
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Elements between two looks of others.
const ELEMENTS: usize = 256;

/// As `put_entry` for large collections, piece by piece: appends the commands for what comes behind `at` (0 at first)
/// and moves it on. True if that was the last; other types come whole.
pub fn put_part(out: &mut Vec<u8>, entry: &Entry, at: &mut u64) -> bool {
    let key = entry.key();
    let from = usize::try_from(*at).unwrap_or(usize::MAX);
    let through = if let Some(list) = entry.get::<List>() {
        let mut batch = Batch::new(out, "RPUSH", key, 1);
        let mut walk = list.walk(from, End::Back);
        for _ in 0..ELEMENTS {
            let Some(element) = walk.next() else { break };
            batch.add(element.to_bytes());
        }
        *at += ELEMENTS as u64;
        *at >= list.len() as u64
    } else if let Some(set) = entry.get::<Set>() {
        let mut batch = Batch::new(out, "SADD", key, 1);
        *at = set.scan(*at, ELEMENTS, |member| batch.add(member.to_bytes()));
        *at == 0
    } else if let Some(set) = entry.get::<ZSet>() {
        let mut batch = Batch::new(out, "ZADD", key, 2);
        let end = set.len().min(from + ELEMENTS);
        for (member, score) in set.range(from..end, false) {
            batch.add(kara_base::number::format_f64_shortest(score).as_bytes().to_vec());
            batch.add(member.to_bytes());
        }
        *at = end as u64;
        end == set.len()
    } else if let Some(hash) = entry.get::<Hash>() {
        let mut timed = Vec::new();
        let mut batch = Batch::new(out, "HMSET", key, 2);
        *at = hash.scan(*at, ELEMENTS, i64::MIN, |pair| {
            let field = pair.field.to_bytes();
            batch.add(field.clone());
            batch.add(pair.value.to_bytes());
            timed.extend(pair.expiry_ms.map(|at_ms| (field, at_ms)));
        });
        drop(batch);
        timed.iter().for_each(|(field, at_ms)| put_field_expiry(out, key, field, *at_ms));
        *at == 0
    } else {
        put_entry(out, entry);
        return true;
    };
    if through {
        put_expiry(out, entry);
    }
    through
}

fn put_expiry(out: &mut Vec<u8>, entry: &Entry) {
    if let Some(at_ms) = entry.expire_at_ms() {
        put_command(out, &[b"PEXPIREAT", entry.key(), itoa::Buffer::new().format(at_ms).as_bytes()]);
    }
}

fn put_field_expiry(out: &mut Vec<u8>, key: &[u8], field: &[u8], at_ms: i64) {
    let mut digits = itoa::Buffer::new();
    put_command(out, &[b"HPEXPIREAT", key, digits.format(at_ms).as_bytes(), b"FIELDS", b"1", field]);
}

/// Appends the commands that make a key.
pub fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    let key = entry.key();
    if let Some(text) = entry.string() {
        let mut digits = itoa::Buffer::new();
        let value = match text {
            StrRef::Int(number) => digits.format(number).as_bytes(),
            StrRef::Bytes(bytes) => bytes,
        };
        put_command(out, &[b"SET", key, value]);
    } else if let Some(list) = entry.get::<List>() {
        let mut batch = Batch::new(out, "RPUSH", key, 1);
        let mut walk = list.iter();
        while let Some(element) = walk.next() {
            batch.add(element.to_bytes());
        }
    } else if let Some(set) = entry.get::<Set>() {
        let mut batch = Batch::new(out, "SADD", key, 1);
        set.iter().for_each(|member| batch.add(member.to_bytes()));
    } else if let Some(set) = entry.get::<ZSet>() {
        let mut batch = Batch::new(out, "ZADD", key, 2);
        for (member, score) in set.iter() {
            batch.add(kara_base::number::format_f64_shortest(score).as_bytes().to_vec());
            batch.add(member.to_bytes());
        }
    } else if let Some(hash) = entry.get::<Hash>() {
        put_hash(out, key, hash);
    } else if let Some(stream) = entry.get::<Stream>() {
        put_stream(out, key, stream);
    }
    put_expiry(out, entry);
}

fn put_hash(out: &mut Vec<u8>, key: &[u8], hash: &Hash) {
    let mut batch = Batch::new(out, "HMSET", key, 2);
    for pair in hash.iter() {
        batch.add(pair.field.to_bytes());
        batch.add(pair.value.to_bytes());
    }
    drop(batch);
    if hash.expiring() > 0 {
        for (pair, at_ms) in hash.iter().filter_map(|pair| pair.expiry_ms.map(|at_ms| (pair, at_ms))) {
            put_field_expiry(out, key, &pair.field.to_bytes(), at_ms);
        }
    }
}

fn put_stream(out: &mut Vec<u8>, key: &[u8], stream: &Stream) {
    let log = stream.log();
    for entry in log.range(StreamId::MIN, StreamId::MAX) {
        let id = entry.id.to_string();
        let mut words: Vec<Vec<u8>> = vec![b"XADD".to_vec(), key.to_vec(), id.into_bytes()];
        for (field, value) in entry.fields {
            words.extend([field, value].map(|element: Element<'_>| element.to_bytes()));
        }
        put_command(out, &words.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
    if log.is_empty() {
        // An id that is above zero: XSETID puts the right one in its place.
        let id = log.last_id().max(StreamId::new(0, 1)).to_string();
        put_command(out, &[b"XADD", key, b"MAXLEN", b"0", id.as_bytes(), b"x", b"y"]);
    }
    let (last, added, deleted) =
        (log.last_id().to_string(), log.entries_added().to_string(), log.max_deleted_id().to_string());
    put_command(
        out,
        &[
            b"XSETID",
            key,
            last.as_bytes(),
            b"ENTRIESADDED",
            added.as_bytes(),
            b"MAXDELETEDID",
            deleted.as_bytes(),
        ],
    );
    for (name, group) in stream.groups() {
        let (id, read) =
            (group.last_id.to_string(), group.entries_read.map_or(-1, |read| read as i64).to_string());
        put_command(out, &[b"XGROUP", b"CREATE", key, name, id.as_bytes(), b"ENTRIESREAD", read.as_bytes()]);
        for consumer in group.consumers() {
            put_command(out, &[b"XGROUP", b"CREATECONSUMER", key, name, consumer.name()]);
            let Some(number) = group.find_consumer(consumer.name()) else { continue };
            for (id, pending) in group.consumer_pending_range(number, StreamId::MIN..=StreamId::MAX) {
                let (id, at, count) =
                    (id.to_string(), pending.delivered_ms.to_string(), pending.deliveries.to_string());
                put_command(
                    out,
                    &[
                        b"XCLAIM",
                        key,
                        name,
                        consumer.name(),
                        b"0",
                        id.as_bytes(),
                        b"TIME",
                        at.as_bytes(),
                        b"RETRYCOUNT",
                        count.as_bytes(),
                        b"JUSTID",
                        b"FORCE",
                    ],
                );
            }
        }
    }
}
