//! Streams as RDB bytes: blocks, counters, groups.
//!
//! ```text
//! stream   := len(blocks) (string(master id, 16 bytes) string(listpack))* len(length) id(last)
//!             [from STREAM_2 on: id(first) id(highest deleted) len(added)] len(groups) group*
//! group    := string(name) id(last) [from STREAM_2 on: len(read)] len(pending) (id16 i64(delivered) len(count))*
//!             len(consumers) consumer*
//! consumer := string(name) i64(seen) [STREAM_3: i64(active)] len(pending) id16*
//! id       := len(ms) len(seq)         id16 := 16 bytes, big endian
//! ```

use super::encode::Encoder;
use super::source::{Reader, Source};
use super::{RdbError, types};
use kara_encoding::stream::{Group, Log, LogState, Pending, StreamId};
use kara_keyspace::value::stream::Stream;
use std::collections::BTreeMap;

/// "Not known" in a group's count of read entries.
const UNKNOWN: u64 = u64::MAX;

pub(super) fn encode(to: &mut Encoder, stream: &Stream) {
    to.length(stream.log().blocks().len() as u64);
    blocks(to, stream, 0, usize::MAX);
    tail(to, stream);
}

/// `count` blocks from number `from` on.
pub(super) fn blocks(to: &mut Encoder, stream: &Stream, from: usize, count: usize) {
    for (master, bytes) in stream.log().blocks().skip(from).take(count) {
        to.string(&master.to_be_bytes());
        to.string(bytes);
    }
}

/// What follows the blocks.
pub(super) fn tail(to: &mut Encoder, stream: &Stream) {
    let log = stream.log();
    to.length(log.len());
    for id in [log.last_id(), log.first_id(), log.max_deleted_id()] {
        to.length(id.ms);
        to.length(id.seq);
    }
    to.length(log.entries_added());
    let groups = stream.groups();
    to.length(groups.len() as u64);
    for (name, group) in groups {
        to.string(name);
        to.length(group.last_id.ms);
        to.length(group.last_id.seq);
        to.length(group.entries_read.unwrap_or(UNKNOWN));
        to.length(group.pending_len() as u64);
        for (id, pending) in group.pending_range(StreamId::MIN..=StreamId::MAX) {
            to.raw(&id.to_be_bytes());
            to.raw(&pending.delivered_ms.to_le_bytes());
            to.length(pending.deliveries);
        }
        let consumers = group.consumers();
        to.length(consumers.len() as u64);
        for consumer in consumers {
            to.string(consumer.name());
            to.raw(&consumer.seen_ms.to_le_bytes());
            to.raw(&consumer.active_ms.unwrap_or(-1).to_le_bytes());
            to.length(consumer.pending_len() as u64);
            let Some(id) = group.find_consumer(consumer.name()) else { continue };
            for (id, _) in group.consumer_pending_range(id, StreamId::MIN..=StreamId::MAX) {
                to.raw(&id.to_be_bytes());
            }
        }
    }
}

fn corrupt(what: &'static str) -> RdbError {
    RdbError::Corrupt(what)
}

fn id<S: Source>(from: &mut Reader<S>) -> Result<StreamId, RdbError> {
    Ok(StreamId::new(from.length()?, from.length()?))
}

fn raw_id<S: Source>(from: &mut Reader<S>) -> Result<StreamId, RdbError> {
    let bytes = from.source.take(16)?.try_into().map_err(|_| RdbError::Truncated)?;
    Ok(StreamId::from_be_bytes(bytes))
}

pub(super) fn decode<S: Source>(from: &mut Reader<S>, kind: u8) -> Result<Stream, RdbError> {
    let mut log = Log::new();
    for _ in 0..from.length()? {
        let master: [u8; 16] = from
            .string()?
            .try_into()
            .map_err(|_| corrupt("Stream node key entry is not the size of a stream ID"))?;
        let bytes = from.string()?;
        log.push_block(StreamId::from_be_bytes(master), bytes)
            .map_err(|_| corrupt("Stream listpack integrity check failed."))?;
        from.examined += 1;
    }
    let length = from.length()?;
    let mut state = LogState { last_id: id(from)?, ..LogState::default() };
    if kind >= types::STREAM_2 {
        // The first entry's id: the blocks say it better.
        id(from)?;
        state.max_deleted_id = id(from)?;
        state.entries_added = from.length()?;
    } else {
        state.entries_added = length;
    }
    log.finish_load(state).map_err(|_| corrupt("Stream's last ID is below its last entry"))?;
    if log.len() != length {
        return Err(corrupt("Stream length inconsistent with its entries"));
    }
    let mut stream = Stream::from_log(log);
    for _ in 0..from.length()? {
        let name = from.string_vec()?;
        let group = decode_group(from, kind, &stream)?;
        if !stream.insert_group(&name, group) {
            return Err(corrupt("Duplicated consumer group name"));
        }
    }
    Ok(stream)
}

fn decode_group<S: Source>(from: &mut Reader<S>, kind: u8, stream: &Stream) -> Result<Group, RdbError> {
    let last_id = id(from)?;
    let read = if kind >= types::STREAM_2 {
        Some(from.length()?).filter(|n| *n != UNKNOWN)
    } else {
        stream.log().entries_read_at(last_id)
    };
    let mut group = Group::new(last_id, read);
    // Entries of the group's list that no consumer has claimed yet.
    let mut unclaimed: BTreeMap<StreamId, (i64, u64)> = BTreeMap::new();
    for _ in 0..from.length()? {
        let id = raw_id(from)?;
        let delivered = (from.i64_le()?, from.length()?);
        if unclaimed.insert(id, delivered).is_some() {
            return Err(corrupt("Duplicated global PEL entry"));
        }
    }
    for _ in 0..from.length()? {
        let name = from.string_vec()?;
        let seen_ms = from.i64_le()?;
        let active_ms = if kind >= types::STREAM_3 { from.i64_le()? } else { seen_ms };
        let (consumer, created) = group.get_or_create_consumer(&name, seen_ms);
        if !created {
            return Err(corrupt("Duplicate stream consumer detected"));
        }
        group.consumer_mut(consumer).active_ms = (active_ms != -1).then_some(active_ms);
        for _ in 0..from.length()? {
            let id = raw_id(from)?;
            // Taken out of the list: no second consumer can share the entry.
            let Some((delivered_ms, deliveries)) = unclaimed.remove(&id) else {
                return Err(corrupt("Consumer entry not found in group global PEL"));
            };
            group.set_pending(id, Pending { consumer, delivered_ms, deliveries });
        }
    }
    if !unclaimed.is_empty() {
        return Err(corrupt("Reading a stream, a PEL entry without consumer"));
    }
    Ok(group)
}
