//! CLIENT LIST and CLIENT KILL: the clients that fit the filters.

use crate::commands::connection::filter::{Filter, describe};
use crate::commands::prelude::*;
use crate::shared::Message;
use std::sync::atomic::Ordering::Relaxed;

/// What narrows the list of clients down, since 9.0.0.
const fn filter(name: &'static str, kind: ArgKind, token: &'static str) -> Arg {
    Arg { name, kind, token: Some(token), since: "9.0.0", optional: true, ..Arg::NEW }
}

pub(super) const KILL: Spec = Spec {
    name: "kill",
    arity: Arity::AtLeast(3),
    flags: Flags::ADMIN.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
    acl: Acl::CONNECTION,
    group: Group::Connection,
    since: "2.4.0",
    summary: "Closes connections that fit all filters.",
    complexity: "O(N) for N connections",
    args: &[Arg {
        name: "filter",
        kind: ArgKind::Oneof,
        args: &[
            Arg {
                name: "old-format",
                kind: ArgKind::String,
                display: "ip:port",
                deprecated_since: "2.8.12",
                ..Arg::NEW
            },
            Arg {
                name: "new-format",
                kind: ArgKind::Oneof,
                multiple: true,
                args: &[
                    Arg {
                        name: "client-id",
                        kind: ArgKind::Integer,
                        token: Some("ID"),
                        since: "2.8.12",
                        optional: true,
                        multiple: true,
                        ..Arg::NEW
                    },
                    Arg {
                        name: "client-type",
                        kind: ArgKind::Oneof,
                        token: Some("TYPE"),
                        since: "2.8.12",
                        optional: true,
                        args: &[
                            Arg::word("normal", "NORMAL"),
                            Arg::word("master", "MASTER").since("3.2.0"),
                            Arg::word("primary", "PRIMARY").since("8.0.0"),
                            Arg::word("slave", "SLAVE"),
                            Arg::word("replica", "REPLICA").since("5.0.0"),
                            Arg::word("pubsub", "PUBSUB"),
                        ],
                        ..Arg::NEW
                    },
                    Arg {
                        name: "username",
                        kind: ArgKind::String,
                        token: Some("USER"),
                        optional: true,
                        ..Arg::NEW
                    },
                    Arg {
                        name: "addr",
                        kind: ArgKind::String,
                        display: "ip:port",
                        token: Some("ADDR"),
                        optional: true,
                        ..Arg::NEW
                    },
                    Arg {
                        name: "laddr",
                        kind: ArgKind::String,
                        display: "ip:port",
                        token: Some("LADDR"),
                        since: "6.2.0",
                        optional: true,
                        ..Arg::NEW
                    },
                    Arg {
                        name: "skipme",
                        kind: ArgKind::Oneof,
                        token: Some("SKIPME"),
                        optional: true,
                        args: &[Arg::word("yes", "YES"), Arg::word("no", "NO")],
                        ..Arg::NEW
                    },
                    Arg {
                        name: "maxage",
                        kind: ArgKind::Integer,
                        token: Some("MAXAGE"),
                        since: "8.0.0",
                        optional: true,
                        ..Arg::NEW
                    },
                    filter("name", ArgKind::String, "NAME"),
                    filter("idle", ArgKind::Integer, "IDLE"),
                    filter("flags", ArgKind::String, "FLAGS"),
                    filter("lib-name", ArgKind::String, "LIB-NAME"),
                    filter("lib-ver", ArgKind::String, "LIB-VER"),
                    filter("db", ArgKind::Integer, "DB"),
                    filter("capa", ArgKind::String, "CAPA"),
                    filter("ip", ArgKind::String, "IP"),
                    Arg {
                        name: "not-client-type",
                        kind: ArgKind::Oneof,
                        token: Some("NOT-TYPE"),
                        since: "9.0.0",
                        optional: true,
                        args: &[
                            Arg::word("normal", "NORMAL"),
                            Arg::word("master", "MASTER"),
                            Arg::word("primary", "PRIMARY"),
                            Arg::word("slave", "SLAVE"),
                            Arg::word("replica", "REPLICA"),
                            Arg::word("pubsub", "PUBSUB"),
                        ],
                        ..Arg::NEW
                    },
                    Arg { multiple: true, ..filter("not-client-id", ArgKind::Integer, "NOT-ID") },
                    filter("not-username", ArgKind::String, "NOT-USER"),
                    Arg { display: "ip:port", ..filter("not-addr", ArgKind::String, "NOT-ADDR") },
                    Arg { display: "ip:port", ..filter("not-laddr", ArgKind::String, "NOT-LADDR") },
                    filter("not-name", ArgKind::String, "NOT-NAME"),
                    filter("not-flags", ArgKind::String, "NOT-FLAGS"),
                    filter("not-lib-name", ArgKind::String, "NOT-LIB-NAME"),
                    filter("not-lib-ver", ArgKind::String, "NOT-LIB-VER"),
                    filter("not-db", ArgKind::Integer, "NOT-DB"),
                    filter("not-capa", ArgKind::String, "NOT-CAPA"),
                    filter("not-ip", ArgKind::String, "NOT-IP"),
                ],
                ..Arg::NEW
            },
        ],
        ..Arg::NEW
    }],
    handler: Some(kill),
    ..Spec::NEW
};

fn kill(cx: &mut Cx) -> Outcome {
    // The old form names one address, and answers with an error where nobody has it.
    let old_form = cx.args.len() == 3;
    let filter = if old_form { Filter::by_address(cx.arg(2)) } else { Filter::parse(cx, 2, true)? };
    let mut killed = 0;
    for client in cx.shared.clients.all() {
        if !filter.matches(&client, cx.session.id(), cx.now_ms) {
            continue;
        }
        killed += 1;
        if client.id == cx.session.id() {
            cx.session.close_after_reply = true;
        } else {
            client.kill.store(true, Relaxed);
            // Before the next key is ready: who is killed is served no more.
            cx.shared.waiting.abandon(&client);
            // A replica gets nothing of what comes behind this.
            cx.shared.replication.dismiss_client(client.id);
            cx.shared.host.post(client.worker, Message::Kill { client: client.id });
        }
    }
    if !old_form {
        cx.reply.integer(killed);
    } else if killed > 0 {
        cx.reply.ok();
    } else {
        return Err(CommandError::text("ERR No such client"));
    }
    Ok(Effect::None)
}

pub(super) const LIST: Spec = Spec {
    name: "list",
    arity: Arity::AtLeast(2),
    flags: Flags::ADMIN.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
    acl: Acl::CONNECTION,
    group: Group::Connection,
    since: "2.4.0",
    summary: "Describes the connections that fit all filters.",
    complexity: "O(N) for N connections",
    tips: &["nondeterministic_output"],
    args: &[
        Arg {
            name: "client-type",
            kind: ArgKind::Oneof,
            token: Some("TYPE"),
            since: "5.0.0",
            optional: true,
            args: &[
                Arg::word("normal", "NORMAL"),
                Arg::word("master", "MASTER"),
                Arg::word("replica", "REPLICA"),
                Arg::word("pubsub", "PUBSUB"),
            ],
            ..Arg::NEW
        },
        Arg {
            name: "client-id",
            kind: ArgKind::Integer,
            token: Some("ID"),
            since: "6.2.0",
            optional: true,
            multiple: true,
            ..Arg::NEW
        },
        Arg {
            name: "username",
            kind: ArgKind::String,
            token: Some("USER"),
            since: "8.1.0",
            optional: true,
            ..Arg::NEW
        },
        Arg {
            name: "addr",
            kind: ArgKind::String,
            display: "ip:port",
            token: Some("ADDR"),
            since: "8.1.0",
            optional: true,
            ..Arg::NEW
        },
        Arg {
            name: "laddr",
            kind: ArgKind::String,
            display: "ip:port",
            token: Some("LADDR"),
            since: "8.1.0",
            optional: true,
            ..Arg::NEW
        },
        Arg {
            name: "skipme",
            kind: ArgKind::Oneof,
            token: Some("SKIPME"),
            since: "8.1.0",
            optional: true,
            args: &[Arg::word("yes", "YES"), Arg::word("no", "NO")],
            ..Arg::NEW
        },
        Arg {
            name: "maxage",
            kind: ArgKind::Integer,
            token: Some("MAXAGE"),
            since: "8.1.0",
            optional: true,
            ..Arg::NEW
        },
        filter("name", ArgKind::String, "NAME"),
        filter("idle", ArgKind::Integer, "IDLE"),
        filter("flags", ArgKind::String, "FLAGS"),
        filter("lib-name", ArgKind::String, "LIB-NAME"),
        filter("lib-ver", ArgKind::String, "LIB-VER"),
        filter("db", ArgKind::Integer, "DB"),
        filter("capa", ArgKind::String, "CAPA"),
        filter("ip", ArgKind::String, "IP"),
        Arg {
            name: "not-client-type",
            kind: ArgKind::Oneof,
            token: Some("NOT-TYPE"),
            since: "9.0.0",
            optional: true,
            args: &[
                Arg::word("normal", "NORMAL"),
                Arg::word("master", "MASTER"),
                Arg::word("replica", "REPLICA"),
                Arg::word("pubsub", "PUBSUB"),
            ],
            ..Arg::NEW
        },
        Arg { multiple: true, ..filter("not-client-id", ArgKind::Integer, "NOT-ID") },
        filter("not-username", ArgKind::String, "NOT-USER"),
        Arg { display: "ip:port", ..filter("not-addr", ArgKind::String, "NOT-ADDR") },
        Arg { display: "ip:port", ..filter("not-laddr", ArgKind::String, "NOT-LADDR") },
        filter("not-name", ArgKind::String, "NOT-NAME"),
        filter("not-flags", ArgKind::String, "NOT-FLAGS"),
        filter("not-lib-name", ArgKind::String, "NOT-LIB-NAME"),
        filter("not-lib-ver", ArgKind::String, "NOT-LIB-VER"),
        filter("not-db", ArgKind::Integer, "NOT-DB"),
        filter("not-capa", ArgKind::String, "NOT-CAPA"),
        filter("not-ip", ArgKind::String, "NOT-IP"),
    ],
    handler: Some(list),
    ..Spec::NEW
};

fn list(cx: &mut Cx) -> Outcome {
    let filter = Filter::parse(cx, 2, false)?;
    let mut text = String::new();
    for client in cx.shared.clients.all() {
        // Who is being closed by another worker is as good as gone.
        if !client.kill.load(Relaxed) && filter.matches(&client, cx.session.id(), cx.now_ms) {
            text.push_str(&describe(&client, cx.shared, cx.now_ms));
        }
    }
    cx.reply.verbatim("txt", text.as_bytes());
    Ok(Effect::None)
}
