//! HELLO, AUTH, RESET: how a connection introduces itself.

use crate::acl::{self, Context, Event, Reason};
use crate::clients::ClientId;
use crate::commands::prelude::*;
use crate::session::{Origin, ReplyMode, Session};
use kara_base::ids::DbIndex;
use kara_resp::Protocol;

pub(super) const AUTH: Spec = Spec {
    name: "auth",
    arity: Arity::AtLeast(2),
    flags: Flags::ALLOW_BUSY
        .union(Flags::FAST)
        .union(Flags::LOADING)
        .union(Flags::NO_AUTH)
        .union(Flags::NOSCRIPT)
        .union(Flags::STALE),
    acl: Acl::CONNECTION,
    group: Group::Connection,
    since: "1.0.0",
    summary: "Authenticates the connection.",
    complexity: "O(N) for N passwords of the user",
    args: &[
        Arg { name: "username", kind: ArgKind::String, since: "6.0.0", optional: true, ..Arg::NEW },
        Arg { name: "password", kind: ArgKind::String, ..Arg::NEW },
    ],
    handler: Some(auth),
    ..Spec::NEW
};

fn auth(cx: &mut Cx) -> Outcome {
    let (user, password) = match cx.args {
        [_, password] => {
            if cx.shared.acl.default_account().rights().is_some_and(|rights| rights.nopass) {
                return Err(CommandError::text(
                    "ERR AUTH <password> called without any password configured for the default user. Are you sure \
                     your configuration is correct?",
                ));
            }
            (&b"default"[..], *password)
        }
        [_, user, password] => (*user, *password),
        _ => return Err(CommandError::Syntax),
    };
    authenticate(cx, user, password)?;
    cx.reply.ok();
    Ok(Effect::None)
}

/// Logs the connection in, or notes that somebody tried.
fn authenticate(cx: &mut Cx, user: &[u8], password: &[u8]) -> Result<(), CommandError> {
    match cx.shared.acl.authenticate(user, password) {
        Some(account) => {
            cx.session.authenticated = true;
            cx.session.log_in(account);
            Ok(())
        }
        None => {
            cx.stats.acl_denied_auth.add(1);
            let event = Event {
                reason: Reason::Auth,
                context: if cx.origin == Origin::Exec { Context::Multi } else { Context::TopLevel },
                object: cx.arg(0).to_vec(),
                user: user.to_vec(),
                client: client_line(cx),
                at_ms: cx.now_ms,
            };
            cx.shared.acl.log.lock().add(event, cx.config.acllog_max_len);
            Err(CommandError::text("WRONGPASS invalid username-password pair or user is disabled."))
        }
    }
}

/// The client as the ACL's log shows it.
fn client_line(cx: &Cx) -> Vec<u8> {
    super::client_line(&cx.session.info, cx.shared, cx.now_ms)
}

/// The error for names with spaces, line breaks or bytes that aren't printable ASCII.
pub(super) fn check_name(name: &[u8], what: &str) -> Result<(), CommandError> {
    if name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        return Ok(());
    }
    Err(CommandError::owned(format!("ERR {what} cannot contain spaces, newlines or special characters.")))
}

pub(super) const HELLO: Spec = Spec {
    name: "hello",
    arity: Arity::AtLeast(1),
    flags: Flags::ALLOW_BUSY
        .union(Flags::FAST)
        .union(Flags::LOADING)
        .union(Flags::NO_AUTH)
        .union(Flags::NOSCRIPT)
        .union(Flags::STALE),
    acl: Acl::CONNECTION,
    group: Group::Connection,
    since: "6.0.0",
    summary: "Chooses the protocol, and introduces client and server to each other.",
    complexity: "O(1)",
    args: &[Arg {
        name: "arguments",
        kind: ArgKind::Block,
        optional: true,
        args: &[
            Arg { name: "protover", kind: ArgKind::Integer, ..Arg::NEW },
            Arg {
                name: "auth",
                kind: ArgKind::Block,
                token: Some("AUTH"),
                optional: true,
                args: &[
                    Arg { name: "username", kind: ArgKind::String, ..Arg::NEW },
                    Arg { name: "password", kind: ArgKind::String, ..Arg::NEW },
                ],
                ..Arg::NEW
            },
            Arg {
                name: "clientname",
                kind: ArgKind::String,
                token: Some("SETNAME"),
                optional: true,
                ..Arg::NEW
            },
        ],
        ..Arg::NEW
    }],
    handler: Some(hello),
    ..Spec::NEW
};

fn hello(cx: &mut Cx) -> Outcome {
    let mut protocol = None;
    if let Some(version) = cx.args.get(1) {
        protocol = Some(match parse_int(version) {
            Ok(2) => Protocol::Resp2,
            Ok(3) => Protocol::Resp3,
            Ok(_) => return Err(CommandError::text("NOPROTO unsupported protocol version")),
            Err(_) => {
                return Err(CommandError::text("ERR Protocol version is not an integer or out of range"));
            }
        });
    }
    let mut credentials = None;
    let mut name = None;
    let mut at = 2;
    while at < cx.args.len() {
        match cx.args.get(at..).unwrap_or_default() {
            [_, user, password, ..] if cx.is_word(at, "AUTH") => {
                credentials = Some((*user, *password));
                at += 3;
            }
            [_, given, ..] if cx.is_word(at, "SETNAME") => {
                check_name(given, "Client names")?;
                name = Some(*given);
                at += 2;
            }
            _ => {
                return Err(CommandError::quoting("ERR Syntax error in HELLO option '{}'", &[cx.arg(at)]));
            }
        }
    }
    if let Some((user, password)) = credentials {
        authenticate(cx, user, password)?;
    }
    if !cx.session.authenticated {
        return Err(CommandError::text(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
             <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the \
             same time",
        ));
    }
    if let Some(name) = name {
        cx.session.info.names.lock().name = name.to_vec();
    }
    if let Some(protocol) = protocol {
        cx.session.set_protocol(protocol);
        cx.reply.set_protocol(protocol);
    }
    introduce(cx);
    Ok(Effect::None)
}

fn introduce(cx: &mut Cx) {
    let ClientId(id) = cx.session.id();
    let zone = &cx.config.availability_zone;
    cx.reply.map(7 + usize::from(!zone.is_empty()));
    cx.reply.bulk(b"server");
    cx.reply.bulk(if cx.config.extended_redis_compatibility { b"redis" } else { b"valkey" });
    cx.reply.bulk(b"version");
    let version = if cx.config.extended_redis_compatibility { "7.2.4" } else { "9.1.2" };
    cx.reply.bulk(version.as_bytes());
    cx.reply.bulk(b"proto");
    cx.reply.integer(if cx.session.protocol == Protocol::Resp3 { 3 } else { 2 });
    cx.reply.bulk(b"id");
    cx.reply.integer(id as i64);
    cx.reply.bulk(b"mode");
    cx.reply.bulk(if cx.config.cluster_enabled { b"cluster" } else { b"standalone" });
    cx.reply.bulk(b"role");
    cx.reply.bulk(if cx.config.replicaof.0.is_none() { b"master" } else { b"replica" });
    cx.reply.bulk(b"modules");
    cx.reply.array(1);
    crate::commands::server::describe_scripts(cx);
    if !zone.is_empty() {
        cx.reply.bulk(b"availability_zone");
        cx.reply.bulk(zone);
    }
}

pub(super) const RESET: Spec = Spec {
    name: "reset",
    arity: Arity::Exactly(1),
    flags: Flags::ALLOW_BUSY
        .union(Flags::FAST)
        .union(Flags::LOADING)
        .union(Flags::NO_AUTH)
        .union(Flags::NOSCRIPT)
        .union(Flags::STALE),
    acl: Acl::CONNECTION,
    group: Group::Connection,
    since: "6.2.0",
    summary: "Brings the connection back to its initial state.",
    complexity: "O(1)",
    handler: Some(reset),
    ..Spec::NEW
};

fn reset(cx: &mut Cx) -> Outcome {
    cx.session.unwatch(&cx.shared.watches);
    cx.session.end_messages(cx.shared);
    reset_session(cx.session, &cx.shared.acl);
    cx.reply.set_protocol(Protocol::Resp2);
    cx.reply.simple("RESET");
    Ok(Effect::None)
}

/// Everything that commands may have changed, back to how a new connection has it.
fn reset_session(session: &mut Session, acl: &acl::Acl) {
    session.end_multi();
    session.select(DbIndex(0));
    session.set_protocol(Protocol::Resp2);
    session.authenticated = acl.is_open();
    session.log_in(acl.default_account());
    session.reply_mode = ReplyMode::On;
    session.set_no_touch(false);
    session.set_no_evict(false);
    let mut names = session.info.names.lock();
    names.name.clear();
}
