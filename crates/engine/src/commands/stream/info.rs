//! XINFO's subcommands.

use super::super::prelude::*;
use super::{no_group_in, reply_entry, reply_id};
use kara_keyspace::value::stream::{ConsumerId, Group as ConsumerGroup, Stream, StreamId};
use kara_resp::Writer;

/// XINFO STREAM FULL shows this many entries of everything unless COUNT says otherwise.
const FULL_COUNT: usize = 10;

pub(super) const XINFO: Spec = Spec {
    name: "xinfo",
    arity: Arity::AtLeast(2),
    group: Group::Stream,
    since: "5.0.0",
    summary: "Groups the commands that describe streams.",
    complexity: "Depends on subcommand.",
    subcommands: &[XINFO_CONSUMERS, XINFO_GROUPS, XINFO_HELP, XINFO_STREAM],
    ..Spec::NEW
};

const XINFO_STREAM: Spec = Spec {
    name: "stream",
    arity: Arity::AtLeast(3),
    flags: Flags::READONLY,
    acl: Acl::STREAM,
    group: Group::Stream,
    since: "5.0.0",
    summary: "Describes a stream.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(2, KeyFlags::RO.union(KeyFlags::ACCESS))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg {
            name: "full-block",
            kind: ArgKind::Block,
            optional: true,
            args: &[
                Arg::word("full", "FULL"),
                Arg {
                    name: "count",
                    kind: ArgKind::Integer,
                    token: Some("COUNT"),
                    optional: true,
                    ..Arg::NEW
                },
            ],
            ..Arg::NEW
        },
    ],
    handler: Some(xinfo_stream),
    ..Spec::NEW
};

fn xinfo_stream(cx: &mut Cx) -> Outcome {
    let full = full_count(cx);
    let stream = cx.keys.read_as::<Stream>(cx.arg(2))?.ok_or(CommandError::NoSuchKey)?;
    let full = full?;
    match full {
        None => brief(cx.reply, stream),
        Some(count) => complete(cx.reply, stream, count),
    }
    Ok(Effect::None)
}

/// FULL's count; None without FULL.
fn full_count(cx: &Cx) -> Result<Option<usize>, CommandError> {
    let words = cx.args.len();
    if words == 3 {
        return Ok(None);
    }
    let fits = cx.is_word(3, "full") && (words == 4 || (words == 6 && cx.is_word(4, "count")));
    if !fits {
        return Err(CommandError::quoting(
            "ERR unknown subcommand or wrong number of arguments for '{}'. Try XINFO HELP.",
            &[cx.arg(1)],
        ));
    }
    if words == 4 {
        return Ok(Some(FULL_COUNT));
    }
    // Zero means all.
    Ok(Some(match cx.int(5)? {
        0 => usize::MAX,
        count => usize::try_from(count).unwrap_or(FULL_COUNT),
    }))
}

/// The seven pairs that both forms begin with.
fn counters(reply: &mut Writer, stream: &Stream) {
    let log = stream.log();
    reply.bulk(b"length");
    reply.integer(log.len() as i64);
    reply.bulk(b"radix-tree-keys");
    reply.integer(log.blocks().len() as i64);
    reply.bulk(b"radix-tree-nodes");
    reply.integer(log.radix_tree_nodes() as i64);
    reply.bulk(b"last-generated-id");
    reply_id(reply, log.last_id());
    reply.bulk(b"max-deleted-entry-id");
    reply_id(reply, log.max_deleted_id());
    reply.bulk(b"entries-added");
    reply.integer(log.entries_added() as i64);
    reply.bulk(b"recorded-first-entry-id");
    reply_id(reply, log.first_id());
}

fn brief(reply: &mut Writer, stream: &Stream) {
    let log = stream.log();
    reply.map(10);
    counters(reply, stream);
    reply.bulk(b"groups");
    reply.integer(stream.groups().len() as i64);
    let first = log.range(StreamId::MIN, StreamId::MAX).next();
    let last = log.range_rev(StreamId::MIN, StreamId::MAX).next();
    for (name, entry) in [("first-entry", first), ("last-entry", last)] {
        reply.bulk(name.as_bytes());
        match entry {
            Some(entry) => reply_entry(reply, &entry),
            None => reply.null(),
        }
    }
}

fn complete(reply: &mut Writer, stream: &Stream, count: usize) {
    reply.map(9);
    counters(reply, stream);
    reply.bulk(b"entries");
    super::range::reply_entries(reply, stream.log().range(StreamId::MIN, StreamId::MAX), Some(count));
    reply.bulk(b"groups");
    reply.array(stream.groups().len());
    for (name, group) in stream.groups() {
        complete_group(reply, stream, name, group, count);
    }
}

fn complete_group(reply: &mut Writer, stream: &Stream, name: &[u8], group: &ConsumerGroup, count: usize) {
    reply.map(7);
    reply.bulk(b"name");
    reply.bulk(name);
    progress(reply, stream, group);
    reply.bulk(b"pel-count");
    reply.integer(group.pending_len() as i64);
    reply.bulk(b"pending");
    reply.array(group.pending_len().min(count));
    for (id, pending) in group.pending_range(StreamId::MIN..=StreamId::MAX).take(count) {
        reply.array(4);
        reply_id(reply, id);
        reply.bulk(group.consumer(pending.consumer).name());
        reply.integer(pending.delivered_ms);
        reply.integer(pending.deliveries as i64);
    }
    reply.bulk(b"consumers");
    reply.array(group.consumers().len());
    for consumer in group.consumers() {
        if let Some(id) = group.find_consumer(consumer.name()) {
            complete_consumer(reply, group, id, count);
        }
    }
}

fn complete_consumer(reply: &mut Writer, group: &ConsumerGroup, id: ConsumerId, count: usize) {
    let consumer = group.consumer(id);
    reply.map(5);
    reply.bulk(b"name");
    reply.bulk(consumer.name());
    reply.bulk(b"seen-time");
    reply.integer(consumer.seen_ms);
    reply.bulk(b"active-time");
    reply.integer(consumer.active_ms.unwrap_or(-1));
    reply.bulk(b"pel-count");
    reply.integer(consumer.pending_len() as i64);
    reply.bulk(b"pending");
    reply.array(consumer.pending_len().min(count));
    for (id, pending) in group.consumer_pending_range(id, StreamId::MIN..=StreamId::MAX).take(count) {
        reply.array(3);
        reply_id(reply, id);
        reply.integer(pending.delivered_ms);
        reply.integer(pending.deliveries as i64);
    }
}

/// How far a group has read: three pairs.
fn progress(reply: &mut Writer, stream: &Stream, group: &ConsumerGroup) {
    reply.bulk(b"last-delivered-id");
    reply_id(reply, group.last_id);
    let read = group.entries_read.map(|read| read as i64);
    for (name, value) in [("entries-read", read), ("lag", stream.lag(group))] {
        reply.bulk(name.as_bytes());
        match value {
            Some(value) => reply.integer(value),
            None => reply.null(),
        }
    }
}

const XINFO_GROUPS: Spec = Spec {
    name: "groups",
    arity: Arity::Exactly(3),
    flags: Flags::READONLY,
    acl: Acl::STREAM,
    group: Group::Stream,
    since: "5.0.0",
    summary: "Lists a stream's consumer groups.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(2, KeyFlags::RO.union(KeyFlags::ACCESS))],
    args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW }],
    handler: Some(xinfo_groups),
    ..Spec::NEW
};

fn xinfo_groups(cx: &mut Cx) -> Outcome {
    let stream = cx.keys.read_as::<Stream>(cx.arg(2))?.ok_or(CommandError::NoSuchKey)?;
    cx.reply.array(stream.groups().len());
    for (name, group) in stream.groups() {
        cx.reply.map(6);
        cx.reply.bulk(b"name");
        cx.reply.bulk(name);
        cx.reply.bulk(b"consumers");
        cx.reply.integer(group.consumers().len() as i64);
        cx.reply.bulk(b"pending");
        cx.reply.integer(group.pending_len() as i64);
        progress(cx.reply, stream, group);
    }
    Ok(Effect::None)
}

const XINFO_CONSUMERS: Spec = Spec {
    name: "consumers",
    arity: Arity::Exactly(4),
    flags: Flags::READONLY,
    acl: Acl::STREAM,
    group: Group::Stream,
    since: "5.0.0",
    summary: "Lists the consumers of a group.",
    complexity: "O(1)",
    tips: &["nondeterministic_output"],
    key_specs: &[KeySpec::key(2, KeyFlags::RO.union(KeyFlags::ACCESS))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "group", kind: ArgKind::String, ..Arg::NEW },
    ],
    handler: Some(xinfo_consumers),
    ..Spec::NEW
};

fn xinfo_consumers(cx: &mut Cx) -> Outcome {
    let (key, name, now_ms) = (cx.arg(2), cx.arg(3), cx.now_ms);
    let stream = cx.keys.read_as::<Stream>(key)?.ok_or(CommandError::NoSuchKey)?;
    let group = stream.group(name).ok_or_else(|| no_group_in(key, name))?;
    let since = |time: i64| now_ms.saturating_sub(time).max(0);
    cx.reply.array(group.consumers().len());
    for consumer in group.consumers() {
        cx.reply.map(4);
        cx.reply.bulk(b"name");
        cx.reply.bulk(consumer.name());
        cx.reply.bulk(b"pending");
        cx.reply.integer(consumer.pending_len() as i64);
        cx.reply.bulk(b"idle");
        cx.reply.integer(since(consumer.seen_ms));
        cx.reply.bulk(b"inactive");
        cx.reply.integer(consumer.active_ms.map_or(-1, since));
    }
    Ok(Effect::None)
}

const XINFO_HELP: Spec = Spec {
    name: "help",
    arity: Arity::Exactly(2),
    flags: Flags::LOADING.union(Flags::STALE),
    acl: Acl::STREAM,
    group: Group::Stream,
    since: "5.0.0",
    summary: "Lists the subcommands.",
    complexity: "O(1)",
    handler: Some(xinfo_help),
    ..Spec::NEW
};

fn xinfo_help(cx: &mut Cx) -> Outcome {
    cx.reply_help(&[
        "CONSUMERS <key> <groupname>",
        "    Show consumers of <groupname>.",
        "GROUPS <key>",
        "    Show the stream consumer groups.",
        "STREAM <key> [FULL [COUNT <count>]",
        "    Show information about the stream.",
    ]);
    Ok(Effect::None)
}
