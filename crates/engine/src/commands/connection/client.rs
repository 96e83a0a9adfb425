//! CLIENT and its subcommands; here those that switch how the connection is treated.

mod identity;
mod list;
mod pause;
mod tracking;
mod unblock;

use crate::commands::prelude::*;
use crate::session::ReplyMode;
use std::sync::atomic::Ordering::Relaxed;

const ENABLED: Arg = Arg {
    name: "enabled",
    kind: ArgKind::Oneof,
    args: &[Arg::word("on", "ON"), Arg::word("off", "OFF")],
    ..Arg::NEW
};

pub(super) const CLIENT: Spec = Spec {
    name: "client",
    arity: Arity::AtLeast(2),
    group: Group::Connection,
    since: "2.4.0",
    summary: "Holds the commands about client connections.",
    complexity: "Depends on the subcommand.",
    subcommands: &[
        tracking::CACHING,
        CAPA,
        identity::GETNAME,
        tracking::GETREDIR,
        HELP,
        identity::ID,
        IMPORT_SOURCE,
        identity::INFO,
        list::KILL,
        list::LIST,
        NO_EVICT,
        NO_TOUCH,
        pause::PAUSE,
        REPLY,
        identity::SETINFO,
        identity::SETNAME,
        tracking::TRACKING,
        tracking::TRACKINGINFO,
        unblock::UNBLOCK,
        pause::UNPAUSE,
    ],
    ..Spec::NEW
};

const CAPA: Spec = Spec {
    name: "capa",
    arity: Arity::AtLeast(3),
    flags: Flags::ALLOW_BUSY.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
    acl: Acl::CONNECTION,
    group: Group::Connection,
    since: "8.0.0",
    summary: "Tells the server what the client can handle.",
    complexity: "O(1)",
    args: &[Arg { name: "capability", kind: ArgKind::String, multiple: true, ..Arg::NEW }],
    handler: Some(capa),
    ..Spec::NEW
};

fn capa(cx: &mut Cx) -> Outcome {
    // What isn't known is ignored: a newer client may claim more than this server can use.
    if cx.args[2..].iter().any(|word| word.eq_ignore_ascii_case(b"REDIRECT")) {
        cx.session.info.capa_redirect.store(true, Relaxed);
    }
    cx.reply.ok();
    Ok(Effect::None)
}

/// `ON` or `OFF`.
fn switch(cx: &Cx) -> Result<bool, CommandError> {
    match () {
        () if cx.is_word(2, "ON") => Ok(true),
        () if cx.is_word(2, "OFF") => Ok(false),
        () => Err(CommandError::Syntax),
    }
}

const IMPORT_SOURCE: Spec = Spec {
    name: "import-source",
    arity: Arity::Exactly(3),
    flags: Flags::LOADING.union(Flags::NOSCRIPT).union(Flags::STALE),
    acl: Acl::CONNECTION,
    group: Group::Connection,
    since: "8.1.0",
    summary: "Marks the connection as a source of imported keys.",
    complexity: "O(1)",
    args: &[ENABLED],
    handler: Some(import_source),
    ..Spec::NEW
};

fn import_source(cx: &mut Cx) -> Outcome {
    if !cx.config.import_mode && !cx.is_word(2, "OFF") {
        return Err(CommandError::text("ERR Server is not in import mode"));
    }
    let on = switch(cx)?;
    cx.session.set_import_source(on);
    cx.reply.ok();
    Ok(Effect::None)
}

const NO_EVICT: Spec = Spec {
    name: "no-evict",
    arity: Arity::Exactly(3),
    flags: Flags::ADMIN
        .union(Flags::ALLOW_BUSY)
        .union(Flags::LOADING)
        .union(Flags::NOSCRIPT)
        .union(Flags::STALE),
    acl: Acl::CONNECTION,
    group: Group::Connection,
    since: "7.0.0",
    summary: "Exempts the connection from client eviction.",
    complexity: "O(1)",
    args: &[ENABLED],
    handler: Some(no_evict),
    ..Spec::NEW
};

fn no_evict(cx: &mut Cx) -> Outcome {
    let on = switch(cx)?;
    cx.session.set_no_evict(on);
    cx.reply.ok();
    Ok(Effect::None)
}

const NO_TOUCH: Spec = Spec {
    name: "no-touch",
    arity: Arity::Exactly(3),
    flags: Flags::ALLOW_BUSY.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
    acl: Acl::CONNECTION,
    group: Group::Connection,
    since: "7.2.0",
    summary: "Keeps the connection's reads from counting as accesses.",
    complexity: "O(1)",
    args: &[ENABLED],
    handler: Some(no_touch),
    ..Spec::NEW
};

fn no_touch(cx: &mut Cx) -> Outcome {
    let on = switch(cx)?;
    cx.session.set_no_touch(on);
    cx.reply.ok();
    Ok(Effect::None)
}

const REPLY: Spec = Spec {
    name: "reply",
    arity: Arity::Exactly(3),
    flags: Flags::ALLOW_BUSY
        .union(Flags::LOADING)
        .union(Flags::NO_MULTI)
        .union(Flags::NOSCRIPT)
        .union(Flags::STALE),
    acl: Acl::CONNECTION,
    group: Group::Connection,
    since: "3.2.0",
    summary: "Says whether commands are answered.",
    complexity: "O(1)",
    args: &[Arg {
        name: "action",
        kind: ArgKind::Oneof,
        args: &[Arg::word("on", "ON"), Arg::word("off", "OFF"), Arg::word("skip", "SKIP")],
        ..Arg::NEW
    }],
    handler: Some(reply),
    ..Spec::NEW
};

fn reply(cx: &mut Cx) -> Outcome {
    match () {
        () if cx.is_word(2, "ON") => {
            cx.session.reply_mode = ReplyMode::On;
            cx.reply.ok();
        }
        () if cx.is_word(2, "OFF") => cx.session.reply_mode = ReplyMode::Off,
        () if cx.is_word(2, "SKIP") => {
            if cx.session.reply_mode == ReplyMode::On {
                cx.session.reply_mode = ReplyMode::SkipNext;
            }
        }
        () => return Err(CommandError::Syntax),
    }
    Ok(Effect::None)
}

const HELP: Spec = Spec {
    name: "help",
    arity: Arity::Exactly(2),
    flags: Flags::LOADING.union(Flags::STALE),
    acl: Acl::CONNECTION,
    group: Group::Connection,
    since: "5.0.0",
    summary: "Shows how to use CLIENT.",
    complexity: "O(1)",
    handler: Some(help),
    ..Spec::NEW
};

fn help(cx: &mut Cx) -> Outcome {
    cx.reply_help(&[
        "CACHING (YES|NO)",
        "    Track the keys of the next command (OPTIN), or don't (OPTOUT).",
        "CACHING (YES|NO)",
        "    Track the keys of the next command (OPTIN), or don't (OPTOUT).",
        "CAPA <option> [options...]",
        "    Tell what this client can handle. Options are:",
        "    * REDIRECT",
        "      Redirections while roles change in standalone mode.",
        "GETNAME",
        "    Return the name of the current connection.",
        "GETREDIR",
        "    Return the ID of the client that gets this connection's invalidations; 0: this one, -1: none.",
        "GETREDIR",
        "    Return the ID of the client that gets this connection's invalidations; 0: this one, -1: none.",
        "ID",
        "    Return the ID of the current connection.",
        "IMPORT-SOURCE (ON|OFF)",
        "    Mark this connection as a source of imported keys, in import mode.",
        "INFO",
        "    Describe the current connection.",
        "KILL <ip:port>",
        "    Close the connection from this address.",
        "KILL <option> <value> [<option> <value> [...]]",
        "    Close the connections that fit all options: ID, NOT-ID (several numbers each), and with or without NOT-",
        "    before them ADDR, LADDR, TYPE (NORMAL|PRIMARY|REPLICA|PUBSUB), USER, FLAGS, NAME, LIB-NAME, LIB-VER, DB,",
        "    CAPA, IP; MAXAGE and IDLE in seconds; SKIPME (YES|NO), yes unless given.",
        "LIST [options ...]",
        "    Describe the connections that fit all options, which are KILL's; SKIPME is no unless given.",
        "NO-EVICT (ON|OFF)",
        "    Exempt this connection from client eviction.",
        "NO-TOUCH (ON|OFF)",
        "    Keep this connection's reads from counting as accesses.",
        "PAUSE <timeout> [WRITE|ALL]",
        "    Hold back all clients' commands, or their writes, for this many milliseconds.",
        "REPLY (ON|OFF|SKIP)",
        "    Say whether commands of this connection are answered.",
        "SETINFO <option> <value>",
        "    Name the client library (LIB-NAME) or its version (LIB-VER).",
        "SETNAME <name>",
        "    Name the current connection.",
        "TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> [...]] [OPTIN] [OPTOUT] [NOLOOP]",
        "    Tell this connection when keys change that it has read, or that have a prefix (BCAST).",
        "TRACKINGINFO",
        "    Tell how this connection tracks keys.",
        "UNBLOCK <clientid> [TIMEOUT|ERROR]",
        "    End a connection's wait, as if its time were over or with an error.",
        "UNPAUSE",
        "    End a pause.",
    ]);
    Ok(Effect::None)
}
