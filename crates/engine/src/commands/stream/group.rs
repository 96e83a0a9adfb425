//! XGROUP's subcommands and XACK.

use super::super::prelude::*;
use super::{args, no_group_in};
use kara_keyspace::value::stream::{Group as ConsumerGroup, Stream, StreamId};

pub(super) const XGROUP: Spec = Spec {
    name: "xgroup",
    arity: Arity::AtLeast(2),
    group: Group::Stream,
    since: "5.0.0",
    summary: "Groups the commands for consumer groups.",
    complexity: "Depends on subcommand.",
    subcommands: &[
        XGROUP_CREATE,
        XGROUP_CREATECONSUMER,
        XGROUP_DELCONSUMER,
        XGROUP_DESTROY,
        XGROUP_HELP,
        XGROUP_SETID,
    ],
    ..Spec::NEW
};

/// The stream of a subcommand that needs one.
fn stream_of<'c>(cx: &'c mut Cx) -> Result<&'c mut Stream, CommandError> {
    let key = cx.arg(2);
    cx.keys.write_as::<Stream>(key)?.ok_or(CommandError::text(
        "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option to create an empty stream automatically.",
    ))
}

/// The group of a subcommand that needs one.
fn group_of<'c>(cx: &'c mut Cx) -> Result<&'c mut ConsumerGroup, CommandError> {
    let missing = no_group_in(cx.arg(2), cx.arg(3));
    let name = cx.arg(3);
    stream_of(cx)?.group_mut(name).ok_or(missing)
}

/// MKSTREAM and ENTRIESREAD, as CREATE and SETID (without the former) take them.
struct Options {
    make_stream: bool,
    entries_read: Option<u64>,
}

fn options(cx: &Cx, is_create: bool) -> Result<Options, CommandError> {
    let mut options = Options { make_stream: false, entries_read: None };
    let mut at = 5;
    while at < cx.args.len() {
        if is_create && cx.is_word(at, "mkstream") {
            options.make_stream = true;
            at += 1;
        } else if cx.is_word(at, "entriesread") && at + 1 < cx.args.len() {
            let read = cx.int(at + 1)?;
            if read < -1 {
                return Err(CommandError::text("ERR value for ENTRIESREAD must be positive or -1"));
            }
            options.entries_read = u64::try_from(read).ok();
            at += 2;
        } else {
            return Err(subcommand_syntax(cx));
        }
    }
    Ok(options)
}

fn subcommand_syntax(cx: &Cx) -> CommandError {
    CommandError::quoting(
        "ERR unknown subcommand or wrong number of arguments for '{}'. Try XGROUP HELP.",
        &[cx.arg(1)],
    )
}

/// An id or `$`, the stream's last one.
fn position(text: &[u8], stream: Option<&Stream>) -> Result<StreamId, CommandError> {
    match text {
        b"$" => Ok(stream.map_or(StreamId::MIN, |stream| stream.log().last_id())),
        text => args::strict_id(text, 0),
    }
}

const XGROUP_CREATE: Spec = Spec {
    name: "create",
    arity: Arity::AtLeast(5),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::STREAM,
    group: Group::Stream,
    since: "5.0.0",
    summary: "Creates a consumer group.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(2, KeyFlags::RW.union(KeyFlags::INSERT))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "group", kind: ArgKind::String, ..Arg::NEW },
        Arg {
            name: "id-selector",
            kind: ArgKind::Oneof,
            args: &[Arg { name: "id", kind: ArgKind::String, ..Arg::NEW }, Arg::word("new-id", "$")],
            ..Arg::NEW
        },
        Arg::word("mkstream", "MKSTREAM").optional(),
        Arg {
            name: "entriesread",
            kind: ArgKind::Integer,
            display: "entries-read",
            token: Some("ENTRIESREAD"),
            optional: true,
            ..Arg::NEW
        },
    ],
    handler: Some(xgroup_create),
    ..Spec::NEW
};

fn xgroup_create(cx: &mut Cx) -> Outcome {
    let options = options(cx, true)?;
    let (key, name, id) = (cx.arg(2), cx.arg(3), cx.arg(4));
    if !options.make_stream {
        stream_of(cx)?;
    }
    // Twice MKSTREAM fits, twice ENTRIESREAD doesn't.
    if cx.args.len() > 8 {
        return Err(subcommand_syntax(cx));
    }
    let last_id = position(id, cx.keys.write_as::<Stream>(key)?.as_deref())?;
    let (stream, created) = cx.keys.write_or_create(key, Stream::new)?;
    let added = stream.insert_group(name, ConsumerGroup::new(last_id, options.entries_read));
    if created {
        cx.keys.touched(key);
    }
    if !added {
        return Err(CommandError::text("BUSYGROUP Consumer Group name already exists"));
    }
    cx.keys.notify(Class::STREAM, "xgroup-create", key);
    cx.reply.ok();
    Ok(Effect::Verbatim)
}

const XGROUP_SETID: Spec = Spec {
    name: "setid",
    arity: Arity::AtLeast(5),
    flags: Flags::WRITE,
    acl: Acl::STREAM,
    group: Group::Stream,
    since: "5.0.0",
    summary: "Sets a consumer group's last delivered id.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(2, KeyFlags::RW.union(KeyFlags::UPDATE))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "group", kind: ArgKind::String, ..Arg::NEW },
        Arg {
            name: "id-selector",
            kind: ArgKind::Oneof,
            args: &[Arg { name: "id", kind: ArgKind::String, ..Arg::NEW }, Arg::word("new-id", "$")],
            ..Arg::NEW
        },
        Arg {
            name: "entriesread",
            kind: ArgKind::Integer,
            display: "entries-read",
            token: Some("ENTRIESREAD"),
            optional: true,
            ..Arg::NEW
        },
    ],
    handler: Some(xgroup_setid),
    ..Spec::NEW
};

fn xgroup_setid(cx: &mut Cx) -> Outcome {
    let options = options(cx, false)?;
    let (key, name, id) = (cx.arg(2), cx.arg(3), cx.arg(4));
    group_of(cx)?;
    if cx.args.len() != 5 && cx.args.len() != 7 {
        return Err(subcommand_syntax(cx));
    }
    let stream = stream_of(cx)?;
    // Unlike CREATE, SETID takes `-` and `+`.
    let last_id = match id {
        b"-" => StreamId::MIN,
        b"+" => StreamId::MAX,
        id => position(id, Some(stream))?,
    };
    if let Some(group) = stream.group_mut(name) {
        group.last_id = last_id;
        group.entries_read = options.entries_read;
    }
    cx.keys.notify(Class::STREAM, "xgroup-setid", key);
    cx.reply.ok();
    Ok(Effect::Verbatim)
}

const XGROUP_DESTROY: Spec = Spec {
    name: "destroy",
    arity: Arity::Exactly(4),
    flags: Flags::WRITE,
    acl: Acl::STREAM,
    group: Group::Stream,
    since: "5.0.0",
    summary: "Removes a consumer group.",
    complexity: "O(N) for N pending entries.",
    key_specs: &[KeySpec::key(2, KeyFlags::RW.union(KeyFlags::DELETE))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "group", kind: ArgKind::String, ..Arg::NEW },
    ],
    handler: Some(xgroup_destroy),
    ..Spec::NEW
};

fn xgroup_destroy(cx: &mut Cx) -> Outcome {
    let (key, name) = (cx.arg(2), cx.arg(3));
    let removed = stream_of(cx)?.remove_group(name).is_some();
    if removed {
        cx.keys.notify(Class::STREAM, "xgroup-destroy", key);
        // Who is blocked in that group is told that it is gone.
        cx.keys.ready(key);
    }
    cx.reply.integer(i64::from(removed));
    Ok(Effect::verbatim_if(removed))
}

const XGROUP_CREATECONSUMER: Spec = Spec {
    name: "createconsumer",
    arity: Arity::Exactly(5),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::STREAM,
    group: Group::Stream,
    since: "6.2.0",
    summary: "Creates a consumer in a group.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(2, KeyFlags::RW.union(KeyFlags::INSERT))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "group", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "consumer", kind: ArgKind::String, ..Arg::NEW },
    ],
    handler: Some(xgroup_createconsumer),
    ..Spec::NEW
};

fn xgroup_createconsumer(cx: &mut Cx) -> Outcome {
    let (key, name, now_ms) = (cx.arg(2), cx.arg(4), cx.now_ms);
    let (_, created) = group_of(cx)?.get_or_create_consumer(name, now_ms);
    if created {
        cx.keys.notify(Class::STREAM, "xgroup-createconsumer", key);
    }
    cx.reply.integer(i64::from(created));
    Ok(Effect::verbatim_if(created))
}

const XGROUP_DELCONSUMER: Spec = Spec {
    name: "delconsumer",
    arity: Arity::Exactly(5),
    flags: Flags::WRITE,
    acl: Acl::STREAM,
    group: Group::Stream,
    since: "5.0.0",
    summary: "Removes a consumer and what it had pending.",
    complexity: "O(N log M) for its N of the group's M pending entries.",
    key_specs: &[KeySpec::key(2, KeyFlags::RW.union(KeyFlags::DELETE))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "group", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "consumer", kind: ArgKind::String, ..Arg::NEW },
    ],
    handler: Some(xgroup_delconsumer),
    ..Spec::NEW
};

fn xgroup_delconsumer(cx: &mut Cx) -> Outcome {
    let (key, name) = (cx.arg(2), cx.arg(4));
    let pending = group_of(cx)?.remove_consumer(name);
    if pending.is_some() {
        cx.keys.notify(Class::STREAM, "xgroup-delconsumer", key);
    }
    cx.reply.integer(pending.unwrap_or(0) as i64);
    Ok(Effect::verbatim_if(pending.is_some()))
}

const XGROUP_HELP: Spec = Spec {
    name: "help",
    arity: Arity::Exactly(2),
    flags: Flags::LOADING.union(Flags::STALE),
    acl: Acl::STREAM,
    group: Group::Stream,
    since: "5.0.0",
    summary: "Lists the subcommands.",
    complexity: "O(1)",
    handler: Some(xgroup_help),
    ..Spec::NEW
};

fn xgroup_help(cx: &mut Cx) -> Outcome {
    cx.reply_help(&[
        "CREATE <key> <groupname> <id|$> [option]",
        "    Create a new consumer group. Options are:",
        "    * MKSTREAM",
        "      Create the empty stream if it does not exist.",
        "    * ENTRIESREAD entries_read",
        "      Set the group's entries_read counter (internal use).",
        "CREATECONSUMER <key> <groupname> <consumer>",
        "    Create a new consumer in the specified group.",
        "DELCONSUMER <key> <groupname> <consumer>",
        "    Remove the specified consumer.",
        "DESTROY <key> <groupname>",
        "    Remove the specified group.",
        "SETID <key> <groupname> <id|$> [ENTRIESREAD entries_read]",
        "    Set the current group ID and entries_read counter.",
    ]);
    Ok(Effect::None)
}

pub(super) const XACK: Spec = Spec {
    name: "xack",
    arity: Arity::AtLeast(4),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::STREAM,
    group: Group::Stream,
    since: "5.0.0",
    summary: "Acknowledges entries that were delivered to a consumer of the group.",
    complexity: "O(log N) for each id, N being the pending entries.",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::UPDATE))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "group", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "id", kind: ArgKind::String, multiple: true, ..Arg::NEW },
    ],
    handler: Some(xack),
    ..Spec::NEW
};

fn xack(cx: &mut Cx) -> Outcome {
    let name = cx.arg(2);
    // Counted as a read, as the other commands of groups are.
    cx.keys.read(cx.arg(1));
    let stream = cx.keys.write_as::<Stream>(cx.arg(1))?;
    let Some(group) = stream.and_then(|stream| stream.group_mut(name)) else {
        cx.reply.integer(0);
        return Ok(Effect::None);
    };
    // All ids are checked before the first acknowledgement.
    let ids = cx.args[3..].iter().map(|id| args::strict_id(id, 0)).collect::<Result<Vec<_>, _>>()?;
    let acknowledged = ids.into_iter().filter(|&id| group.acknowledge(id)).count() as u64;
    cx.reply.integer(acknowledged as i64);
    cx.extra_changes += acknowledged.saturating_sub(1);
    Ok(Effect::verbatim_if(acknowledged > 0))
}
