//! Keys as commands that make them again: a base without RDB (`aof-use-rdb-preamble no`).

use super::log::put_command;
use kara_encoding::listpack::Element;
use kara_encoding::stream::StreamId;
use kara_keyspace::value::hash::Hash;
use kara_keyspace::value::list::List;
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
    if let Some(at_ms) = entry.expire_at_ms() {
        put_command(out, &[b"PEXPIREAT", key, itoa::Buffer::new().format(at_ms).as_bytes()]);
    }
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
            let (field, mut digits) = (pair.field.to_bytes(), itoa::Buffer::new());
            let at = digits.format(at_ms).as_bytes();
            put_command(out, &[b"HPEXPIREAT", key, at, b"FIELDS", b"1", &field]);
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
