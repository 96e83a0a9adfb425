//! Streams: appending, trimming and deleting (`add`), reading by id (`range`) and as a reader or consumer
//! (`read`), consumer groups (`group`), pending entries (`pending`) and descriptions (`info`).
//!
//! What happens to entries and groups is `kara_keyspace::value::stream`'s; here arguments are read, replies
//! written, and changes told as replicas must repeat them: with the ids, times and counters that came out.

mod add;
mod args;
mod group;
mod info;
mod pending;
mod range;
mod read;

use super::prelude::*;
use kara_encoding::listpack::Element;
use kara_keyspace::value::stream::{Entry, Fields, Group as ConsumerGroup, Pending, StreamId};
use kara_resp::Writer;

/// The family's commands.
pub const COMMANDS: &[Spec] = &[
    add::XADD,
    add::XDEL,
    add::XLEN,
    add::XSETID,
    add::XTRIM,
    group::XACK,
    group::XGROUP,
    info::XINFO,
    pending::XAUTOCLAIM,
    pending::XCLAIM,
    pending::XPENDING,
    range::XRANGE,
    range::XREVRANGE,
    read::XREAD,
    read::XREADGROUP,
];

fn reply_id(reply: &mut Writer, id: StreamId) {
    reply.bulk(id.text().as_bytes());
}

/// An entry: its id, then fields and values as one flat array.
fn reply_entry(reply: &mut Writer, entry: &Entry<'_>) {
    reply.array(2);
    reply_id(reply, entry.id);
    reply_fields(reply, entry.fields.clone());
}

fn reply_fields(reply: &mut Writer, fields: Fields<'_>) {
    reply.array(fields.len() * 2);
    for (name, value) in fields {
        reply_element(reply, name);
        reply_element(reply, value);
    }
}

fn reply_element(reply: &mut Writer, element: Element<'_>) {
    match element {
        Element::Int(number) => reply.bulk_i64(number),
        Element::Str(text) => reply.bulk(text),
    }
}

/// The error of commands that need a key with that group.
fn no_group(key: &[u8], group: &[u8]) -> CommandError {
    CommandError::quoting("NOGROUP No such key '{}' or consumer group '{}'", &[key, group])
}

/// The same where the key is known to be there.
fn no_group_in(key: &[u8], group: &[u8]) -> CommandError {
    CommandError::quoting("NOGROUP No such consumer group '{}' for key name '{}'", &[group, key])
}

/// What tells a replica about a pending entry's new state: the same owner, time and count, whatever its clock
/// says; an entry that no longer exists stops being pending there, too.
fn journal_claim(
    key: &[u8],
    name: &[u8],
    group: &ConsumerGroup,
    consumer: &[u8],
    id: StreamId,
    pending: &Pending,
) -> OwnedCommand {
    OwnedCommand::new("XCLAIM")
        .arg(key)
        .arg(name)
        .arg(consumer)
        .arg(b"0")
        .arg(id.text().as_bytes())
        .arg(b"TIME")
        .arg_i64(pending.delivered_ms)
        .arg(b"RETRYCOUNT")
        .arg_i64(pending.deliveries as i64)
        .arg(b"FORCE")
        .arg(b"JUSTID")
        .arg(b"LASTID")
        .arg(group.last_id.text().as_bytes())
}

/// What tells a replica how far a group has read.
fn journal_group(key: &[u8], name: &[u8], group: &ConsumerGroup) -> OwnedCommand {
    OwnedCommand::new("XGROUP")
        .arg(b"SETID")
        .arg(key)
        .arg(name)
        .arg(group.last_id.text().as_bytes())
        .arg(b"ENTRIESREAD")
        .arg_i64(group.entries_read.map_or(-1, |read| read as i64))
}
