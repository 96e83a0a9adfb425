//! Replication: SYNC and PSYNC with REPLCONF, REPLICAOF, ROLE, FAILOVER.

use super::prelude::*;
use crate::clients::{ClientFlags, ClientKind};
use crate::log::Level;
use crate::replication::{Failover, Link, SyncRequest};
use crate::shared::Hold;
use kara_replication::ids::Refused;
use kara_replication::replica::{Filter, ReplicaConf};
use std::sync::atomic::Ordering::Relaxed;

/// The family's commands.
pub const COMMANDS: &[Spec] =
    &[FAILOVER, PSYNC, READONLY, READWRITE, REPLCONF, REPLICAOF, ROLE, SLAVEOF, SYNC];

const SYNC: Spec = Spec {
    name: "sync",
    arity: Arity::Exactly(1),
    flags: Flags::ADMIN.union(Flags::NO_ASYNC_LOADING).union(Flags::NO_MULTI).union(Flags::NOSCRIPT),
    group: Group::Server,
    since: "1.0.0",
    summary: "Asks for the data set and the stream behind it, as old replicas did.",
    handler: Some(sync),
    ..Spec::NEW
};

fn sync(cx: &mut Cx) -> Outcome {
    hand_over(cx, None)
}

const PSYNC: Spec = Spec {
    name: "psync",
    arity: Arity::AtLeast(3),
    flags: Flags::ADMIN.union(Flags::NO_ASYNC_LOADING).union(Flags::NO_MULTI).union(Flags::NOSCRIPT),
    group: Group::Server,
    since: "2.8.0",
    summary: "Asks for the stream from an offset on, or for the data set and the stream behind it.",
    args: &[
        Arg { name: "replicationid", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "offset", kind: ArgKind::Integer, ..Arg::NEW },
    ],
    locks: Locks::All,
    handler: Some(psync),
    ..Spec::NEW
};

fn psync(cx: &mut Cx) -> Outcome {
    let id = String::from_utf8_lossy(cx.arg(1)).into_owned();
    let replication = &cx.shared.replication;
    if cx.is_word(3, "failover") {
        if !replication.is_replica() {
            return Err(CommandError::text("ERR PSYNC FAILOVER can't be sent to a master."));
        }
        if replication.with(|state| state.ids.id != id) {
            return Err(CommandError::text("ERR PSYNC FAILOVER replid must match my replid."));
        }
        replication.become_primary(cx.shared, cx.keys.space);
    }
    let Ok(offset) = cx.int(2) else {
        let address = &cx.session.info.addr;
        let text = format!("Replica {address} asks for synchronization but with a wrong offset");
        cx.shared.host.log(Level::Warning, &text);
        return Err(CommandError::NotInteger);
    };
    let apart = cx.config.dual_channel_replication_enabled
        && cx.config.repl_diskless_sync
        && cx.session.replica.as_ref().is_some_and(|conf| conf.dual_channel && conf.eof);
    let refused = if apart {
        replication.with(|state| state.ids.serve(&id, offset, replication.backlog.extent())).err()
    } else {
        None
    };
    if let Some(reason) = refused {
        replication.count_refusal(reason);
        if reason == Refused::OutOfRange {
            let address = &cx.session.info.addr;
            let text = format!(
                "Unable to partial resync with replica {address} for lack of backlog (Replica request was: {offset})."
            );
            cx.shared.host.log(Level::Notice, &text);
        }
        let text = format!(
            "Dual channel replication: Replica {} is capable of dual channel synchronization, and partial sync isn't \
             possible. Full sync will continue with dedicated RDB channel.",
            cx.session.info.addr
        );
        cx.shared.host.log(Level::Notice, &text);
        cx.reply.simple("DUALCHANNELSYNC");
        return Ok(Effect::None);
    }
    hand_over(cx, Some((id, offset)))
}

fn hand_over(cx: &mut Cx, psync: Option<(String, i64)>) -> Outcome {
    let unlinked = |primary: &crate::replication::Upstream| {
        primary.link != Link::Connected || cx.config.replicaof.0.is_none()
    };
    if cx.shared.replication.with(|state| state.primary.as_ref().is_some_and(unlinked)) {
        return Err(CommandError::text("NOMASTERLINK Can't SYNC while not connected with my master"));
    }
    let conf = cx.session.replica.take().map(|conf| *conf).unwrap_or_default();
    if conf.filter.is_partial() && !conf.eof {
        return Err(CommandError::text("ERR Filtered replica requires EOF capability"));
    }
    cx.session.handover = Some(Box::new(SyncRequest { psync, conf }));
    cx.session.close_now = true;
    Ok(Effect::None)
}

const REPLCONF: Spec = Spec {
    name: "replconf",
    arity: Arity::AtLeast(1),
    flags: Flags::ADMIN
        .union(Flags::ALLOW_BUSY)
        .union(Flags::LOADING)
        .union(Flags::NOSCRIPT)
        .union(Flags::STALE),
    group: Group::Server,
    since: "3.0.0",
    syscmd: true,
    summary: "Tells what a replica is like and how far it is.",
    complexity: "O(1)",
    handler: Some(replconf),
    ..Spec::NEW
};

fn replconf(cx: &mut Cx) -> Outcome {
    if cx.args.len().is_multiple_of(2) {
        return Err(CommandError::Syntax);
    }
    let mut conf = cx.session.replica.take().unwrap_or_default();
    let outcome = told(cx, &mut conf);
    cx.session.replica = Some(conf);
    if outcome? {
        cx.reply.ok();
    }
    Ok(Effect::None)
}

/// Takes the pairs in; false where they want no answer.
fn told(cx: &Cx, conf: &mut ReplicaConf) -> Result<bool, CommandError> {
    for at in (1..cx.args.len()).step_by(2) {
        let value = cx.arg(at + 1);
        let text = || String::from_utf8_lossy(value).into_owned();
        let is = |word: &str| cx.is_word(at, word);
        if is("listening-port") {
            let port = u16::try_from(cx.int(at + 1)?);
            conf.listening_port = port.map_err(|_| CommandError::text("ERR value is out of range"))?;
        } else if is("ip-address") {
            if value.len() > 255 {
                let text = format!(
                    "ERR REPLCONF ip-address provided by replica instance is too long: {} bytes",
                    value.len()
                );
                return Err(CommandError::owned(text));
            }
            conf.ip = Some(text()).filter(|ip| !ip.is_empty());
        } else if is("capa") {
            conf.eof |= value.eq_ignore_ascii_case(b"eof");
            conf.psync2 |= value.eq_ignore_ascii_case(b"psync2");
            conf.dual_channel |= value.eq_ignore_ascii_case(b"dual-channel");
        } else if is("version") {
            let version = ReplicaConf::parse_version(value);
            let bad = || CommandError::quoting("ERR Unrecognized version format: {}", &[value]);
            conf.version = version.ok_or_else(bad)?;
        } else if is("rdb-only") {
            conf.rdb_only = cx.int(at + 1)? == 1;
        } else if is("rdb-filter-only") {
            let words = text();
            conf.filter = Filter::parse(&words).map_err(|word| {
                CommandError::quoting("ERR Unsupported rdb-filter-only option: {}", &[word.as_bytes()])
            })?;
        } else if is("rdb-channel") {
            conf.rdb_channel = cx.int(at + 1)? == 1;
        } else if is("set-rdb-client-id") {
            let id = u64::try_from(cx.int(at + 1)?).unwrap_or(0);
            let known = cx.shared.replication.with(|state| {
                let mut replicas = state.replicas.iter();
                replicas
                    .any(|m| m.info.id.0 == id && m.replica.conf.rdb_channel && m.replica.ending().is_none())
            });
            if !known {
                return Err(CommandError::quoting("ERR Unrecognized RDB client id {}", &[value]));
            }
            conf.rdb_client = Some(id);
        } else if is("ack") || is("getack") || is("fack") {
            // Only a replica's or our primary's means something, and those connections aren't run here.
            return Ok(false);
        } else {
            let option = [cx.arg(at)];
            return Err(CommandError::quoting("ERR Unrecognized REPLCONF option: {}", &option));
        }
    }
    Ok(true)
}

const READONLY: Spec = Spec {
    name: "readonly",
    arity: Arity::Exactly(1),
    flags: Flags::FAST.union(Flags::LOADING).union(Flags::STALE),
    acl: Acl::CONNECTION,
    group: Group::Cluster,
    since: "3.0.0",
    summary: "Lets the connection read from a replica that would send it to the primary.",
    complexity: "O(1)",
    handler: Some(readonly),
    ..Spec::NEW
};

fn readonly(cx: &mut Cx) -> Outcome {
    cx.session.info.set_flag(ClientFlags::READONLY, true);
    cx.reply.ok();
    Ok(Effect::None)
}

const READWRITE: Spec =
    Spec { name: "readwrite", summary: "Ends what READONLY began.", handler: Some(readwrite), ..READONLY };

fn readwrite(cx: &mut Cx) -> Outcome {
    cx.session.info.set_flag(ClientFlags::READONLY, false);
    cx.reply.ok();
    Ok(Effect::None)
}

const REPLICAOF_ARGS: &[Arg] = &[Arg {
    name: "args",
    kind: ArgKind::Oneof,
    args: &[
        Arg {
            name: "host-port",
            kind: ArgKind::Block,
            args: &[
                Arg { name: "host", kind: ArgKind::String, ..Arg::NEW },
                Arg { name: "port", kind: ArgKind::Integer, ..Arg::NEW },
            ],
            ..Arg::NEW
        },
        Arg {
            name: "no-one",
            kind: ArgKind::Block,
            args: &[Arg::word("no", "NO"), Arg::word("one", "ONE")],
            ..Arg::NEW
        },
    ],
    ..Arg::NEW
}];

const REPLICAOF: Spec = Spec {
    name: "replicaof",
    arity: Arity::Exactly(3),
    flags: Flags::ADMIN.union(Flags::NO_ASYNC_LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
    group: Group::Server,
    since: "5.0.0",
    summary: "Makes the server a replica of another one, or a primary again.",
    complexity: "O(1)",
    args: REPLICAOF_ARGS,
    locks: Locks::All,
    handler: Some(replicaof),
    ..Spec::NEW
};

const SLAVEOF: Spec = Spec {
    name: "slaveof",
    since: "1.0.0",
    deprecated_since: "5.0.0",
    replaced_by: "`REPLICAOF`",
    ..REPLICAOF
};

fn replicaof(cx: &mut Cx) -> Outcome {
    if cx.config.cluster_enabled {
        return Err(CommandError::text("ERR REPLICAOF not allowed in cluster mode."));
    }
    let replication = &cx.shared.replication;
    if replication.with(|state| state.failover.is_some()) {
        return Err(CommandError::text("ERR REPLICAOF not allowed while failing over."));
    }
    if cx.is_word(1, "no") && cx.is_word(2, "one") {
        replication.become_primary(cx.shared, cx.keys.space);
        cx.reply.ok();
        return Ok(Effect::None);
    }
    if cx.session.info.kind() == ClientKind::Replica {
        return Err(CommandError::text("ERR Command is not valid when client is a replica."));
    }
    let port = u16::try_from(cx.int(2).map_err(|_| CommandError::text("ERR Invalid master port"))?);
    let port = port.map_err(|_| CommandError::text("ERR Invalid master port"))?;
    let host = cx.arg(1);
    let same = replication.with(|state| {
        state.primary.as_ref().is_some_and(|p| p.host.eq_ignore_ascii_case(host) && p.port == port)
    });
    if same {
        cx.reply.simple("OK Already connected to specified master");
        return Ok(Effect::None);
    }
    replication.become_replica(cx.shared, cx.keys.space, host, port, false);
    cx.reply.ok();
    Ok(Effect::None)
}

const ROLE: Spec = Spec {
    name: "role",
    arity: Arity::Exactly(1),
    flags: Flags::FAST.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
    acl: Acl::ADMIN.union(Acl::DANGEROUS),
    group: Group::Server,
    since: "2.8.12",
    summary: "Tells whether the server is a primary or a replica, and of whom.",
    complexity: "O(1)",
    handler: Some(role),
    ..Spec::NEW
};

fn role(cx: &mut Cx) -> Outcome {
    let replication = &cx.shared.replication;
    let offset = replication.backlog.end();
    let reply = &mut *cx.reply;
    replication.with(|state| match &state.primary {
        Some(primary) => {
            reply.array(5);
            reply.bulk(b"slave");
            reply.bulk(&primary.host);
            reply.integer(i64::from(primary.port));
            reply.bulk(primary.link.name().as_bytes());
            reply.integer(if primary.link == Link::Connected { offset as i64 } else { -1 });
        }
        None => {
            let online: Vec<_> = state.replicas.iter().filter(|m| m.replica.is_online()).collect();
            reply.array(3);
            reply.bulk(b"master");
            reply.integer(offset as i64);
            reply.array(online.len());
            for member in online {
                reply.array(3);
                reply.bulk(member.replica.address().as_bytes());
                reply.bulk(member.replica.conf.listening_port.to_string().as_bytes());
                reply.bulk(member.replica.acked.load(Relaxed).to_string().as_bytes());
            }
        }
    });
    Ok(Effect::None)
}

const FAILOVER: Spec = Spec {
    name: "failover",
    arity: Arity::AtLeast(1),
    flags: Flags::ADMIN.union(Flags::NOSCRIPT).union(Flags::STALE),
    group: Group::Server,
    since: "6.2.0",
    summary: "Hands the role of the primary over to a replica once it has everything.",
    complexity: "O(1)",
    args: &[
        Arg {
            name: "target",
            kind: ArgKind::Block,
            token: Some("TO"),
            optional: true,
            args: &[
                Arg { name: "host", kind: ArgKind::String, ..Arg::NEW },
                Arg { name: "port", kind: ArgKind::Integer, ..Arg::NEW },
                Arg::word("force", "FORCE").optional(),
            ],
            ..Arg::NEW
        },
        Arg::word("abort", "ABORT").optional(),
        Arg {
            name: "milliseconds",
            kind: ArgKind::Integer,
            token: Some("TIMEOUT"),
            optional: true,
            ..Arg::NEW
        },
    ],
    locks: Locks::All,
    handler: Some(failover),
    ..Spec::NEW
};

fn failover(cx: &mut Cx) -> Outcome {
    if cx.config.cluster_enabled {
        return Err(CommandError::text("ERR FAILOVER not allowed in cluster mode."));
    }
    let replication = &cx.shared.replication;
    if cx.args.len() == 2 && cx.is_word(1, "abort") {
        let Some(failover) = replication.with(|state| state.failover.clone()) else {
            return Err(CommandError::text("ERR No failover in progress."));
        };
        if failover.in_progress {
            replication.become_primary(cx.shared, cx.keys.space);
        }
        replication.end_failover(cx.shared, "Aborted");
        cx.reply.ok();
        return Ok(Effect::None);
    }
    let wanted = failover_options(cx)?;
    if replication.is_replica() {
        return Err(CommandError::text("ERR FAILOVER is not valid when server is a replica."));
    }
    replication.with(|state| {
        if state.failover.is_some() {
            return Err(CommandError::text("ERR FAILOVER already in progress."));
        }
        if state.replicas.is_empty() {
            return Err(CommandError::text("ERR FAILOVER requires connected replicas."));
        }
        if let Some((host, port)) = &wanted.target {
            let is = |m: &&std::sync::Arc<crate::replication::Member>| {
                m.replica.address().as_bytes() == host && m.replica.conf.listening_port == *port
            };
            match state.replicas.iter().find(is) {
                None => {
                    return Err(CommandError::text("ERR FAILOVER target HOST and PORT is not a replica."));
                }
                Some(member) if !member.replica.is_online() => {
                    return Err(CommandError::text("ERR FAILOVER target replica is not online."));
                }
                Some(_) => {}
            }
        }
        state.failover = Some(wanted);
        Ok(())
    })?;
    cx.shared.pause.hold(Hold::Failover, true);
    cx.reply.ok();
    Ok(Effect::None)
}

fn failover_options(cx: &Cx) -> Result<Failover, CommandError> {
    let mut wanted = Failover { target: None, until_ms: None, force: false, in_progress: false };
    let mut at = 1;
    while at < cx.args.len() {
        let left = cx.args.len() - at - 1;
        if cx.is_word(at, "timeout") && left >= 1 && wanted.until_ms.is_none() {
            let ms = cx.int(at + 1)?;
            if ms <= 0 {
                return Err(CommandError::text("ERR FAILOVER timeout must be greater than 0"));
            }
            wanted.until_ms = Some(cx.now_ms.saturating_add(ms));
            at += 2;
        } else if cx.is_word(at, "to") && left >= 2 && wanted.target.is_none() {
            let port = u16::try_from(cx.int(at + 2)?).map_err(|_| CommandError::NotInteger)?;
            wanted.target = Some((cx.arg(at + 1).to_vec(), port));
            at += 3;
        } else if cx.is_word(at, "force") && wanted.target.is_some() {
            wanted.force = true;
            at += 1;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    if wanted.force && (wanted.until_ms.is_none() || wanted.target.is_none()) {
        return Err(CommandError::text(
            "ERR FAILOVER with force option requires both a timeout and target HOST and IP.",
        ));
    }
    Ok(wanted)
}
