//! A key's value read and written by the commands of its type: where DUMP's payloads can't be used, and to compare
//! servers that encode the same value differently.

use crate::cli::link::{Fault, Link};
use kara_resp::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Elements per command, both ways.
const CHUNK: usize = 512;
type Bytes = Vec<u8>;
/// An entry of a stream: its id, and fields and values in turn.
type StreamEntry = (Bytes, Vec<Bytes>);

/// A value without its encoding; what has no order is in the order of bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    Text(Bytes),
    List(Vec<Bytes>),
    Set(BTreeSet<Bytes>),
    /// A field's value and when it expires (unix time in ms).
    Hash(BTreeMap<Bytes, (Bytes, Option<i64>)>),
    Sorted(BTreeMap<Bytes, f64>),
    Stream(Stream),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stream {
    entries: Vec<StreamEntry>,
    last_id: Bytes,
    groups: Vec<Group>,
}

#[derive(Clone, Debug, PartialEq)]
struct Group {
    name: Bytes,
    last_id: Bytes,
    /// The entry, its consumer and how often it was delivered.
    pending: Vec<(Bytes, Bytes, i64)>,
}

/// Why a value couldn't be read or written.
#[derive(Debug)]
pub enum Trouble {
    /// The connection is gone.
    Link(Fault),
    /// This key alone.
    Key(String),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Trouble::Link(fault)
    }
}

pub fn words(line: &[&[u8]]) -> Vec<Bytes> {
    line.iter().map(|word| word.to_vec()).collect()
}

/// The reply, or the server's refusal as this key's trouble.
fn ask(link: &mut Link, line: &[&[u8]]) -> Result<Value, Trouble> {
    match link.ask(line)? {
        Value::Error(text) => {
            let command = String::from_utf8_lossy(line.first().copied().unwrap_or_default()).into_owned();
            Err(Trouble::Key(format!("{command}: {}", String::from_utf8_lossy(&text))))
        }
        value => Ok(value),
    }
}

fn texts(value: &Value) -> Vec<Bytes> {
    value.as_elements().unwrap_or_default().iter().map(text).collect()
}

fn text(value: &Value) -> Bytes {
    value.as_bytes().unwrap_or_default().to_vec()
}

fn decimal(bytes: &[u8]) -> f64 {
    std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN)
}

/// The value under a key; `None` where there is none (any more).
pub fn read(link: &mut Link, key: &[u8]) -> Result<Option<Content>, Trouble> {
    let kind = text(&ask(link, &[b"TYPE", key])?);
    Ok(Some(match kind.as_slice() {
        b"none" => return Ok(None),
        b"string" => match ask(link, &[b"GET", key])? {
            value if value.is_null() => return Ok(None),
            value => Content::Text(text(&value)),
        },
        b"list" => Content::List(read_list(link, key)?),
        b"set" => Content::Set(walk(link, b"SSCAN", key)?.into_iter().collect()),
        b"zset" => {
            let flat = walk(link, b"ZSCAN", key)?;
            Content::Sorted(pairs(flat).map(|(member, score)| (member, decimal(&score))).collect())
        }
        b"hash" => Content::Hash(read_hash(link, key)?),
        b"stream" => Content::Stream(read_stream(link, key)?),
        other => {
            return Err(Trouble::Key(format!("type {} has no commands", String::from_utf8_lossy(other))));
        }
    }))
}

fn pairs(flat: Vec<Bytes>) -> impl Iterator<Item = (Bytes, Bytes)> {
    let mut items = flat.into_iter();
    std::iter::from_fn(move || Some((items.next()?, items.next()?)))
}

fn read_list(link: &mut Link, key: &[u8]) -> Result<Vec<Bytes>, Trouble> {
    let mut items = Vec::new();
    loop {
        let (from, to) = (items.len().to_string(), (items.len() + CHUNK - 1).to_string());
        let part = texts(&ask(link, &[b"LRANGE", key, from.as_bytes(), to.as_bytes()])?);
        let full = part.len() == CHUNK;
        items.extend(part);
        if !full {
            return Ok(items);
        }
    }
}

/// Everything that SSCAN, HSCAN or ZSCAN gives; an element may come twice.
fn walk(link: &mut Link, command: &[u8], key: &[u8]) -> Result<Vec<Bytes>, Trouble> {
    let mut cursor = b"0".to_vec();
    let mut found = Vec::new();
    loop {
        let reply = ask(link, &[command, key, &cursor, b"COUNT", b"1000"])?;
        let Some([next, items]) = reply.as_elements() else {
            return Err(Trouble::Key("a scan without cursor".into()));
        };
        cursor = text(next);
        found.extend(texts(items));
        if cursor == b"0" {
            return Ok(found);
        }
    }
}

fn read_hash(link: &mut Link, key: &[u8]) -> Result<BTreeMap<Bytes, (Bytes, Option<i64>)>, Trouble> {
    let mut hash: BTreeMap<_, _> =
        pairs(walk(link, b"HSCAN", key)?).map(|(field, value)| (field, (value, None))).collect();
    let fields: Vec<Bytes> = hash.keys().cloned().collect();
    for part in fields.chunks(CHUNK) {
        let count = part.len().to_string();
        let mut line = vec![&b"HPEXPIRETIME"[..], key, b"FIELDS", count.as_bytes()];
        line.extend(part.iter().map(Vec::as_slice));
        // Servers whose fields don't expire don't know the command.
        let Value::Array(times) = link.ask(&line)? else { break };
        for (field, time) in part.iter().zip(times) {
            if let (Some(entry), Some(at_ms @ 0..)) = (hash.get_mut(field), time.as_integer()) {
                entry.1 = Some(at_ms);
            }
        }
    }
    Ok(hash)
}

fn field(map: &Value, name: &[u8]) -> Option<Value> {
    let items = map.as_elements()?;
    let found = items.chunks_exact(2).find(|pair| pair.first().and_then(Value::as_bytes) == Some(name))?;
    found.get(1).cloned()
}

fn read_stream(link: &mut Link, key: &[u8]) -> Result<Stream, Trouble> {
    let mut stream = Stream::default();
    let mut from = b"-".to_vec();
    let count = CHUNK.to_string();
    loop {
        let part = ask(link, &[b"XRANGE", key, &from, b"+", b"COUNT", count.as_bytes()])?;
        let part = part.as_elements().unwrap_or_default();
        for entry in part {
            let Some([id, fields]) = entry.as_elements() else { continue };
            stream.entries.push((text(id), texts(fields)));
        }
        if part.len() < CHUNK {
            break;
        }
        from = b"("
            .iter()
            .chain(&stream.entries.last().map(|(id, _)| id.clone()).unwrap_or_default())
            .copied()
            .collect();
    }
    let info = ask(link, &[b"XINFO", b"STREAM", key])?;
    stream.last_id = field(&info, b"last-generated-id").map(|id| text(&id)).unwrap_or_default();
    let groups = ask(link, &[b"XINFO", b"GROUPS", key])?;
    for info in groups.as_elements().unwrap_or_default() {
        let name = field(info, b"name").map(|name| text(&name)).unwrap_or_default();
        let last_id = field(info, b"last-delivered-id").map(|id| text(&id)).unwrap_or_default();
        let pending = read_pending(link, key, &name)?;
        stream.groups.push(Group { name, last_id, pending });
    }
    Ok(stream)
}

fn read_pending(link: &mut Link, key: &[u8], group: &[u8]) -> Result<Vec<(Bytes, Bytes, i64)>, Trouble> {
    let mut pending: Vec<(Bytes, Bytes, i64)> = Vec::new();
    let mut from = b"-".to_vec();
    let count = CHUNK.to_string();
    loop {
        let part = ask(link, &[b"XPENDING", key, group, &from, b"+", count.as_bytes()])?;
        let part = part.as_elements().unwrap_or_default();
        for entry in part {
            let Some([id, consumer, _, times]) = entry.as_elements() else { continue };
            pending.push((text(id), text(consumer), times.as_integer().unwrap_or(1)));
        }
        if part.len() < CHUNK {
            return Ok(pending);
        }
        from = b"("
            .iter()
            .chain(&pending.last().map(|(id, _, _)| id.clone()).unwrap_or_default())
            .copied()
            .collect();
    }
}

/// The commands that make the value under a key that doesn't exist.
pub fn commands(key: &[u8], content: &Content) -> Vec<Vec<Bytes>> {
    let in_chunks = |command: &[u8], items: Vec<Bytes>, each: usize| -> Vec<Vec<Bytes>> {
        let one = |part: &[Bytes]| [words(&[command, key]), part.to_vec()].concat();
        items.chunks(CHUNK * each).map(one).collect()
    };
    match content {
        Content::Text(text) => vec![words(&[b"SET", key, text])],
        Content::List(items) => in_chunks(b"RPUSH", items.clone(), 1),
        Content::Set(items) => in_chunks(b"SADD", items.iter().cloned().collect(), 1),
        Content::Sorted(items) => {
            let flat =
                items.iter().flat_map(|(member, score)| [score.to_string().into_bytes(), member.clone()]);
            in_chunks(b"ZADD", flat.collect(), 2)
        }
        Content::Hash(fields) => {
            let flat = fields.iter().flat_map(|(field, (value, _))| [field.clone(), value.clone()]);
            let mut out = in_chunks(b"HSET", flat.collect(), 2);
            for (field, (_, at_ms)) in fields {
                if let Some(at_ms) = at_ms {
                    let at = at_ms.to_string();
                    out.push(words(&[b"HPEXPIREAT", key, at.as_bytes(), b"FIELDS", b"1", field]));
                }
            }
            out
        }
        Content::Stream(stream) => stream_commands(key, stream),
    }
}

fn stream_commands(key: &[u8], stream: &Stream) -> Vec<Vec<Bytes>> {
    let mut out = Vec::new();
    if stream.entries.is_empty() {
        // An empty stream exists by a group that is made with it, or by an entry that is taken away again.
        out.push(words(&[b"XADD", key, b"0-1", b"f", b"v"]));
        out.push(words(&[b"XDEL", key, b"0-1"]));
    }
    for (id, fields) in &stream.entries {
        out.push([words(&[b"XADD", key, id]), fields.clone()].concat());
    }
    if stream.last_id != b"0-0" {
        out.push(words(&[b"XSETID", key, &stream.last_id]));
    }
    for group in &stream.groups {
        out.push(words(&[b"XGROUP", b"CREATE", key, &group.name, &group.last_id]));
        for (id, consumer, times) in &group.pending {
            let times = times.to_string();
            out.push(words(&[
                b"XCLAIM",
                key,
                &group.name,
                consumer,
                b"0",
                id,
                b"RETRYCOUNT",
                times.as_bytes(),
                b"FORCE",
                b"JUSTID",
            ]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_written_in_parts() {
        let items: Vec<Bytes> = (0..1100).map(|n| n.to_string().into_bytes()).collect();
        let lines = commands(b"k", &Content::List(items.clone()));
        assert_eq!(lines.iter().map(Vec::len).collect::<Vec<_>>(), [514, 514, 78]);
        let scores = items.into_iter().map(|item| (item, 1.5)).collect();
        let lines = commands(b"k", &Content::Sorted(scores));
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0].get(..4), Some(&words(&[b"ZADD", b"k", b"1.5", b"0"])[..]));
    }
}
