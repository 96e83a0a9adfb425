//! What concerns the connection itself: its database, protocol, password and name; CLIENT.

mod client;
mod filter;
mod handshake;

use super::prelude::*;
use crate::clients::ClientInfo;
use crate::shared::Shared;
use kara_base::ids::DbIndex;

/// The client's line in CLIENT LIST, without its end.
pub(crate) fn client_line(client: &ClientInfo, shared: &Shared, now_ms: i64) -> Vec<u8> {
    let mut line = filter::describe(client, shared, now_ms).into_bytes();
    line.pop();
    line
}

/// The family's commands.
pub const COMMANDS: &[Spec] =
    &[handshake::AUTH, client::CLIENT, ECHO, handshake::HELLO, PING, QUIT, handshake::RESET, SELECT];

const ECHO: Spec = Spec {
    name: "echo",
    arity: Arity::Exactly(2),
    flags: Flags::FAST.union(Flags::LOADING).union(Flags::STALE),
    acl: Acl::CONNECTION,
    group: Group::Connection,
    since: "1.0.0",
    summary: "Returns the given string.",
    complexity: "O(1)",
    args: &[Arg { name: "message", kind: ArgKind::String, ..Arg::NEW }],
    handler: Some(echo),
    ..Spec::NEW
};

fn echo(cx: &mut Cx) -> Outcome {
    cx.reply.bulk(cx.arg(1));
    Ok(Effect::None)
}

const PING: Spec = Spec {
    name: "ping",
    arity: Arity::AtLeast(1),
    flags: Flags::FAST,
    acl: Acl::CONNECTION,
    group: Group::Connection,
    since: "1.0.0",
    summary: "Answers PONG or the given message.",
    complexity: "O(1)",
    tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
    args: &[Arg { name: "message", kind: ArgKind::String, optional: true, ..Arg::NEW }],
    handler: Some(ping),
    ..Spec::NEW
};

fn ping(cx: &mut Cx) -> Outcome {
    if cx.args.len() > 2 {
        return Err(cx.arity_error());
    }
    let message = cx.args.get(1).copied();
    if cx.session.is_subscribed() && cx.session.protocol == kara_resp::Protocol::Resp2 {
        cx.reply.array(2);
        cx.reply.bulk(b"pong");
        cx.reply.bulk(message.unwrap_or_default());
    } else if let Some(message) = message {
        cx.reply.bulk(message);
    } else {
        cx.reply.simple("PONG");
    }
    Ok(Effect::None)
}

const QUIT: Spec = Spec {
    name: "quit",
    arity: Arity::AtLeast(1),
    flags: Flags::ALLOW_BUSY
        .union(Flags::FAST)
        .union(Flags::LOADING)
        .union(Flags::NO_AUTH)
        .union(Flags::NOSCRIPT)
        .union(Flags::STALE),
    acl: Acl::CONNECTION,
    group: Group::Connection,
    since: "1.0.0",
    summary: "Closes the connection.",
    complexity: "O(1)",
    handler: Some(quit),
    ..Spec::NEW
};

fn quit(cx: &mut Cx) -> Outcome {
    cx.session.close_after_reply = true;
    cx.reply.ok();
    Ok(Effect::None)
}

const SELECT: Spec = Spec {
    name: "select",
    arity: Arity::Exactly(2),
    flags: Flags::ALLOW_BUSY.union(Flags::FAST).union(Flags::LOADING).union(Flags::STALE),
    acl: Acl::CONNECTION,
    group: Group::Connection,
    since: "1.0.0",
    summary: "Chooses the connection's database.",
    complexity: "O(1)",
    args: &[Arg { name: "index", kind: ArgKind::Integer, ..Arg::NEW }],
    handler: Some(select),
    ..Spec::NEW
};

fn select(cx: &mut Cx) -> Outcome {
    let index = u32::try_from(parse_i32(cx.arg(1))?).ok().filter(|db| u64::from(*db) < cx.config.databases);
    cx.session.select(DbIndex(index.ok_or(CommandError::text("ERR DB index is out of range"))?));
    cx.reply.ok();
    Ok(Effect::None)
}
