//! Strings: whole values, ranges, counters and several keys at once.

use super::prelude::*;
use kara_keyspace::{ExpiryUpdate, StrRef};

/// The family's commands.
pub const COMMANDS: &[Spec] = &[GET, SET];

/// Writes a string value as a bulk reply.
#[inline]
pub(crate) fn reply_str(reply: &mut kara_resp::Writer, value: StrRef<'_>) {
    match value {
        StrRef::Int(n) => reply.bulk_i64(n),
        StrRef::Bytes(bytes) => reply.bulk(bytes),
    }
}

const GET: Spec = Spec {
    name: "get",
    arity: Arity::Exactly(2),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::STRING,
    group: Group::String,
    since: "1.0.0",
    summary: "Returns the string value of a key.",
    complexity: "O(1)",
    key_specs: &[KeySpec {
        notes: "",
        flags: KeyFlags::RO.union(KeyFlags::ACCESS),
        begin: Begin::Index(1),
        find: Find::Range { last: 0, step: 1, limit: 0 },
    }],
    args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW }],
    handler: Some(get),
    ..Spec::NEW
};

fn get(cx: &mut Cx) -> Outcome {
    match cx.keys.read_str(cx.args[1])? {
        None => cx.reply.null(),
        Some(value) => reply_str(cx.reply, value),
    }
    Ok(Effect::None)
}

const SET: Spec = Spec {
    name: "set",
    arity: Arity::AtLeast(3),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::STRING,
    group: Group::String,
    since: "1.0.0",
    summary: "Sets the string value of a key, with options for its expiry and conditions.",
    complexity: "O(1)",
    key_specs: &[KeySpec {
        notes: "RW and ACCESS due to the optional `GET` argument",
        flags: KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::UPDATE).union(KeyFlags::VARIABLE_FLAGS),
        begin: Begin::Index(1),
        find: Find::Range { last: 0, step: 1, limit: 0 },
    }],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "value", kind: ArgKind::String, ..Arg::NEW },
        Arg {
            name: "condition",
            kind: ArgKind::Oneof,
            optional: true,
            args: &[
                Arg { name: "nx", kind: ArgKind::PureToken, token: Some("NX"), since: "2.6.12", ..Arg::NEW },
                Arg { name: "xx", kind: ArgKind::PureToken, token: Some("XX"), since: "2.6.12", ..Arg::NEW },
                Arg {
                    name: "comparison-value",
                    kind: ArgKind::String,
                    token: Some("IFEQ"),
                    since: "8.1.0",
                    ..Arg::NEW
                },
            ],
            ..Arg::NEW
        },
        Arg {
            name: "get",
            kind: ArgKind::PureToken,
            token: Some("GET"),
            since: "6.2.0",
            optional: true,
            ..Arg::NEW
        },
        Arg {
            name: "expiration",
            kind: ArgKind::Oneof,
            optional: true,
            args: &[
                Arg {
                    name: "seconds",
                    kind: ArgKind::Integer,
                    token: Some("EX"),
                    since: "2.6.12",
                    ..Arg::NEW
                },
                Arg {
                    name: "milliseconds",
                    kind: ArgKind::Integer,
                    token: Some("PX"),
                    since: "2.6.12",
                    ..Arg::NEW
                },
                Arg {
                    name: "unix-time-seconds",
                    kind: ArgKind::UnixTime,
                    token: Some("EXAT"),
                    since: "6.2.0",
                    ..Arg::NEW
                },
                Arg {
                    name: "unix-time-milliseconds",
                    kind: ArgKind::UnixTime,
                    token: Some("PXAT"),
                    since: "6.2.0",
                    ..Arg::NEW
                },
                Arg {
                    name: "keepttl",
                    kind: ArgKind::PureToken,
                    token: Some("KEEPTTL"),
                    since: "6.0.0",
                    ..Arg::NEW
                },
            ],
            ..Arg::NEW
        },
    ],
    handler: Some(set),
    ..Spec::NEW
};

fn set(cx: &mut Cx) -> Outcome {
    let (key, value) = (cx.arg(1), cx.arg(2));
    if cx.args.len() > 3 {
        return Err(CommandError::Syntax);
    }
    cx.keys.set_string(key, value, ExpiryUpdate::Clear);
    cx.keys.changed(key, Class::STRING, "set");
    cx.reply.ok();
    Ok(Effect::Verbatim)
}
