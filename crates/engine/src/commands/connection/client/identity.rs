//! Who a client is: its number, its name, its library, its line in CLIENT LIST.

use crate::clients::ClientId;
use crate::commands::connection::filter::describe;
use crate::commands::connection::handshake::check_name;
use crate::commands::prelude::*;

pub(super) const GETNAME: Spec = Spec {
    name: "getname",
    arity: Arity::Exactly(2),
    flags: Flags::ALLOW_BUSY.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
    acl: Acl::CONNECTION,
    group: Group::Connection,
    since: "2.6.9",
    summary: "Returns the connection's name.",
    complexity: "O(1)",
    handler: Some(getname),
    ..Spec::NEW
};

fn getname(cx: &mut Cx) -> Outcome {
    let name = cx.session.info.names.lock().name.clone();
    if name.is_empty() {
        cx.reply.null()
    } else {
        cx.reply.bulk(&name)
    }
    Ok(Effect::None)
}

pub(super) const ID: Spec = Spec {
    name: "id",
    arity: Arity::Exactly(2),
    flags: Flags::ALLOW_BUSY.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
    acl: Acl::CONNECTION,
    group: Group::Connection,
    since: "5.0.0",
    summary: "Returns the connection's number.",
    complexity: "O(1)",
    handler: Some(id),
    ..Spec::NEW
};

fn id(cx: &mut Cx) -> Outcome {
    let ClientId(id) = cx.session.id();
    cx.reply.integer(id as i64);
    Ok(Effect::None)
}

pub(super) const INFO: Spec = Spec {
    name: "info",
    arity: Arity::Exactly(2),
    flags: Flags::LOADING.union(Flags::NOSCRIPT).union(Flags::STALE),
    acl: Acl::CONNECTION,
    group: Group::Connection,
    since: "6.2.0",
    summary: "Describes this connection.",
    complexity: "O(1)",
    tips: &["nondeterministic_output"],
    handler: Some(info),
    ..Spec::NEW
};

fn info(cx: &mut Cx) -> Outcome {
    let line = describe(&cx.session.info, cx.shared, cx.now_ms);
    cx.reply.verbatim("txt", line.as_bytes());
    Ok(Effect::None)
}

pub(super) const SETINFO: Spec = Spec {
    name: "setinfo",
    arity: Arity::Exactly(4),
    flags: Flags::ALLOW_BUSY.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
    acl: Acl::CONNECTION,
    group: Group::Connection,
    since: "7.2.0",
    summary: "Names the client library or its version.",
    complexity: "O(1)",
    tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
    args: &[Arg {
        name: "attr",
        kind: ArgKind::Oneof,
        args: &[
            Arg { name: "libname", kind: ArgKind::String, token: Some("LIB-NAME"), ..Arg::NEW },
            Arg { name: "libver", kind: ArgKind::String, token: Some("LIB-VER"), ..Arg::NEW },
        ],
        ..Arg::NEW
    }],
    handler: Some(setinfo),
    ..Spec::NEW
};

fn setinfo(cx: &mut Cx) -> Outcome {
    let value = cx.arg(3);
    if cx.is_word(2, "LIB-NAME") {
        check_name(value, "lib-name")?;
        cx.session.info.names.lock().lib_name = value.to_vec();
    } else if cx.is_word(2, "LIB-VER") {
        check_name(value, "lib-ver")?;
        cx.session.info.names.lock().lib_ver = value.to_vec();
    } else {
        return Err(CommandError::quoting("ERR Unrecognized option '{}'", &[cx.arg(2)]));
    }
    cx.reply.ok();
    Ok(Effect::None)
}

pub(super) const SETNAME: Spec = Spec {
    name: "setname",
    arity: Arity::Exactly(3),
    flags: Flags::ALLOW_BUSY.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
    acl: Acl::CONNECTION,
    group: Group::Connection,
    since: "2.6.9",
    summary: "Names the connection.",
    complexity: "O(1)",
    tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
    args: &[Arg { name: "connection-name", kind: ArgKind::String, ..Arg::NEW }],
    handler: Some(setname),
    ..Spec::NEW
};

fn setname(cx: &mut Cx) -> Outcome {
    let name = cx.arg(2);
    check_name(name, "Client names")?;
    cx.session.info.names.lock().name = name.to_vec();
    cx.reply.ok();
    Ok(Effect::None)
}
