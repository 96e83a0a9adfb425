//! ACL and its subcommands: users, their rights, and the log of refusals.

use super::prelude::*;
use crate::acl::{self, Account, Entry, Rights, Selector, join_selectors};
use crate::clients::ClientInfo;
use crate::log::Level;
use crate::registry::{Command, Lookup};
use crate::shared::Message;
use crate::spec::Acl as Category;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The family's commands.
pub const COMMANDS: &[Spec] = &[ACL];

const OPEN: Flags = Flags::LOADING.union(Flags::NOSCRIPT).union(Flags::STALE);
const GUARDED: Flags = OPEN.union(Flags::ADMIN);
const EVERY_NODE: &[&str] = &["request_policy:all_nodes", "response_policy:all_succeeded"];
const USERNAME: Arg = Arg { name: "username", kind: ArgKind::String, ..Arg::NEW };

const ACL: Spec = Spec {
    name: "acl",
    arity: Arity::AtLeast(2),
    group: Group::Server,
    since: "6.0.0",
    summary: "Users and their rights.",
    complexity: "Depends on the subcommand.",
    subcommands: &[
        CAT, DELUSER, DRYRUN, GENPASS, GETUSER, HELP, LIST, LOAD, LOG, SAVE, SETUSER, USERS, WHOAMI,
    ],
    ..Spec::NEW
};

const CAT: Spec = Spec {
    name: "cat",
    arity: Arity::AtLeast(2),
    flags: OPEN,
    group: Group::Server,
    since: "6.0.0",
    summary: "The categories of commands, or the commands of one.",
    complexity: "O(1): there are only so many commands",
    args: &[Arg { name: "category", kind: ArgKind::String, optional: true, ..Arg::NEW }],
    handler: Some(cat),
    ..Spec::NEW
};

fn cat(cx: &mut Cx) -> Outcome {
    match cx.args {
        [_, _] => {
            let names: Vec<&str> = Category::all().names().collect();
            cx.reply.array(names.len());
            names.iter().for_each(|name| cx.reply.bulk(name.as_bytes()));
        }
        [_, _, name] => {
            let category = Category::by_name(name)
                .ok_or_else(|| CommandError::quoting("ERR Unknown category '{}'", &[name]))?;
            let within = |command: &&Command| command.spec.acl_categories().contains(category);
            let commands: Vec<&Command> = cx.shared.registry.all().iter().filter(within).collect();
            cx.reply.array(commands.len());
            commands.iter().for_each(|command| cx.reply.bulk(command.full_name.as_bytes()));
        }
        _ => return Err(wrong_call(cx)),
    }
    Ok(Effect::None)
}

/// Too many arguments for a subcommand that takes any number by its arity.
fn wrong_call(cx: &Cx) -> CommandError {
    let text = "ERR unknown subcommand or wrong number of arguments for '{}'. Try ACL HELP.";
    CommandError::quoting(text, &[cx.arg(1)])
}

const DELUSER: Spec = Spec {
    name: "deluser",
    arity: Arity::AtLeast(3),
    flags: GUARDED,
    group: Group::Server,
    since: "6.0.0",
    summary: "Deletes users and closes their connections.",
    complexity: "O(1) per user, and O(N) for N connections",
    tips: EVERY_NODE,
    args: &[Arg { multiple: true, ..USERNAME }],
    handler: Some(deluser),
    ..Spec::NEW
};

fn deluser(cx: &mut Cx) -> Outcome {
    let names = cx.args.get(2..).unwrap_or_default();
    if names.contains(&acl::DEFAULT) {
        return Err(CommandError::text("ERR The 'default' user cannot be removed"));
    }
    let gone: Vec<Arc<Account>> = names.iter().filter_map(|name| cx.shared.acl.remove(name)).collect();
    for account in &gone {
        close_clients(cx, |client| Arc::ptr_eq(&client.names.lock().account, account));
    }
    cx.reply.integer(gone.len() as i64);
    Ok(Effect::None)
}

/// Closes the connections that fit, our own behind this answer.
fn close_clients(cx: &mut Cx, fits: impl Fn(&ClientInfo) -> bool) {
    for client in cx.shared.clients.all() {
        if !fits(&client) {
            continue;
        }
        if client.id == cx.session.id() {
            cx.session.close_after_reply = true;
        } else {
            client.kill.store(true, Relaxed);
            cx.shared.waiting.abandon(&client);
            cx.shared.host.post(client.worker, Message::Kill { client: client.id });
        }
    }
}

/// Closes the connections of a user that listen to channels which are closed to them now.
fn close_listeners(cx: &mut Cx, account: &Arc<Account>, before: Option<&Rights>) {
    let Some(rights) = account.rights() else { return };
    let is_open = |name: &[u8], is_pattern: bool| {
        rights.selectors().any(|selector| selector.allows_channel(name, is_pattern))
    };
    if before.is_none() || is_open(b"*", true) {
        return;
    }
    let listeners = cx.shared.pubsub.listeners(|name, is_pattern| !is_open(name, is_pattern));
    close_clients(cx, |client| {
        listeners.contains(&client.id) && Arc::ptr_eq(&client.names.lock().account, account)
    });
}

const DRYRUN: Spec = Spec {
    name: "dryrun",
    arity: Arity::AtLeast(4),
    flags: GUARDED,
    group: Group::Server,
    since: "7.0.0",
    summary: "Whether a user may run a command, which isn't run.",
    complexity: "O(1)",
    args: &[
        USERNAME,
        Arg { name: "command", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "arg", kind: ArgKind::String, optional: true, multiple: true, ..Arg::NEW },
    ],
    handler: Some(dryrun),
    ..Spec::NEW
};

fn dryrun(cx: &mut Cx) -> Outcome {
    let name = cx.arg(2);
    let account = cx.shared.acl.user(name);
    let account = account.ok_or_else(|| CommandError::quoting("ERR User '{}' not found", &[name]))?;
    let args = cx.args.get(3..).unwrap_or_default();
    let Lookup::Found(command) = cx.shared.registry.lookup(args) else {
        return Err(CommandError::quoting("ERR Command '{}' not found", &[cx.arg(3)]));
    };
    if !command.spec.arity.accepts(args.len()) || command.spec.handler.is_none() {
        return Err(CommandError::Arity(command.full_name.into()));
    }
    let rights = account.rights();
    match rights.map_or(Ok(()), |rights| acl::check(&rights, command, args, cx.session.db)) {
        Ok(()) => cx.reply.ok(),
        Err(denied) => cx.reply.bulk(&denied.long_text(name, command, args)),
    }
    Ok(Effect::None)
}

const GENPASS: Spec = Spec {
    name: "genpass",
    arity: Arity::AtLeast(2),
    flags: OPEN,
    group: Group::Server,
    since: "6.0.0",
    summary: "A random password.",
    complexity: "O(1)",
    args: &[Arg { name: "bits", kind: ArgKind::Integer, optional: true, ..Arg::NEW }],
    handler: Some(genpass),
    ..Spec::NEW
};

fn genpass(cx: &mut Cx) -> Outcome {
    const BITS_MAX: i64 = 4096;
    let bits = match cx.args {
        [_, _] => 256,
        [_, _, bits] => parse_int(bits)?,
        _ => return Err(wrong_call(cx)),
    };
    if !(1..=BITS_MAX).contains(&bits) {
        return Err(CommandError::text(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to 4096",
        ));
    }
    // A hexadecimal digit holds four bits.
    let digits = bits.unsigned_abs().div_ceil(4) as usize;
    let mut bytes = vec![0; digits.div_ceil(2)];
    getrandom::fill(&mut bytes)
        .map_err(|error| CommandError::owned(format!("ERR No random numbers: {error}")))?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    cx.reply.bulk(text.as_bytes().get(..digits).unwrap_or_default());
    Ok(Effect::None)
}

const GETUSER: Spec = Spec {
    name: "getuser",
    arity: Arity::Exactly(3),
    flags: GUARDED,
    group: Group::Server,
    since: "6.0.0",
    summary: "A user's rules.",
    complexity: "O(N) for N passwords and rules",
    args: &[USERNAME],
    handler: Some(getuser),
    ..Spec::NEW
};

fn getuser(cx: &mut Cx) -> Outcome {
    let account = cx.shared.acl.user(cx.arg(2));
    let Some(rights) = account.and_then(|account| account.rights()) else {
        cx.reply.null();
        return Ok(Effect::None);
    };
    cx.reply.map(7);
    cx.reply.bulk(b"flags");
    cx.reply.set(1 + usize::from(rights.nopass));
    cx.reply.bulk(if rights.enabled { b"on" } else { b"off" });
    if rights.nopass {
        cx.reply.bulk(b"nopass");
    }
    cx.reply.bulk(b"passwords");
    let passwords = rights.password_texts();
    cx.reply.array(passwords.len());
    passwords.iter().for_each(|hash| cx.reply.bulk(hash.as_bytes()));
    describe(cx, &rights.root);
    cx.reply.bulk(b"selectors");
    cx.reply.array(rights.selectors.len());
    for selector in &rights.selectors {
        cx.reply.map(4);
        describe(cx, selector);
    }
    Ok(Effect::None)
}

fn describe(cx: &mut Cx, selector: &Selector) {
    let parts = [
        ("commands", selector.commands_text()),
        ("keys", selector.keys_text()),
        ("channels", selector.channels_text()),
        ("databases", selector.databases_text().into_bytes()),
    ];
    for (name, text) in parts {
        cx.reply.bulk(name.as_bytes());
        cx.reply.bulk(&text);
    }
}

const HELP: Spec = Spec {
    name: "help",
    arity: Arity::Exactly(2),
    flags: Flags::LOADING.union(Flags::STALE),
    group: Group::Server,
    since: "6.0.0",
    summary: "Explains the subcommands.",
    complexity: "O(1)",
    handler: Some(help),
    ..Spec::NEW
};

fn help(cx: &mut Cx) -> Outcome {
    cx.reply_help(&[
        "CAT [<category>]",
        "    The categories of commands, or the commands of <category>.",
        "DELUSER <username> [<username> ...]",
        "    Delete users and close their connections.",
        "DRYRUN <username> <command> [<arg> ...]",
        "    Tell whether the user may run the command, without running it.",
        "GENPASS [<bits>]",
        "    A random password of 256 bits, or of <bits>, in hexadecimal.",
        "GETUSER <username>",
        "    The user's rules.",
        "LIST",
        "    All users' rules as ACL files have them.",
        "LOAD",
        "    Replace all users by those of the ACL file.",
        "LOG [<count> | RESET]",
        "    What users were refused lately, or forget it.",
        "SAVE",
        "    Write all users to the ACL file.",
        "SETUSER <username> <rule> [<rule> ...]",
        "    Make a user or change one.",
        "USERS",
        "    All users' names.",
        "WHOAMI",
        "    The connection's user.",
    ]);
    Ok(Effect::None)
}

const LIST: Spec = Spec {
    name: "list",
    arity: Arity::Exactly(2),
    flags: GUARDED,
    group: Group::Server,
    since: "6.0.0",
    summary: "All users' rules as ACL files have them.",
    complexity: "O(N) for N users",
    handler: Some(list),
    ..Spec::NEW
};

fn list(cx: &mut Cx) -> Outcome {
    let lines = cx.shared.acl.lines();
    cx.reply.array(lines.len());
    for line in lines {
        cx.reply.bulk(&[b"user ", &line[..]].concat());
    }
    Ok(Effect::None)
}

const NO_FILE: CommandError = CommandError::text(
    "ERR This instance is not configured to use an ACL file. You may want to specify users via the ACL SETUSER command \
     and then issue a CONFIG REWRITE (assuming you have a configuration file set) in order to store users in the \
     configuration.",
);

const LOAD: Spec = Spec {
    name: "load",
    arity: Arity::Exactly(2),
    flags: GUARDED,
    group: Group::Server,
    since: "6.0.0",
    summary: "Replaces all users by those of the ACL file.",
    complexity: "O(N) for N users",
    handler: Some(load),
    ..Spec::NEW
};

fn load(cx: &mut Cx) -> Outcome {
    if cx.config.aclfile.is_empty() {
        return Err(NO_FILE);
    }
    let shared = cx.shared;
    let changed = shared
        .acl
        .load(&cx.config.aclfile, &shared.registry, opens_channels(cx))
        .map_err(|error| CommandError::Bytes([b"ERR ", &error.0[..]].concat()))?;
    for (account, before) in changed {
        if shared.acl.user(account.name()).is_none_or(|user| !Arc::ptr_eq(&user, &account)) {
            close_clients(cx, |client| Arc::ptr_eq(&client.names.lock().account, &account));
        } else {
            close_listeners(cx, &account, before.as_deref());
        }
    }
    cx.reply.ok();
    Ok(Effect::None)
}

fn opens_channels(cx: &Cx) -> bool {
    cx.config.acl_pubsub_default == crate::config::AclPubsubDefault::AllChannels
}

const LOG: Spec = Spec {
    name: "log",
    arity: Arity::AtLeast(2),
    flags: GUARDED,
    group: Group::Server,
    since: "6.0.0",
    summary: "What users were refused lately.",
    complexity: "O(N) for N entries",
    args: &[Arg {
        name: "operation",
        kind: ArgKind::Oneof,
        optional: true,
        args: &[Arg { name: "count", kind: ArgKind::Integer, ..Arg::NEW }, Arg::word("reset", "RESET")],
        ..Arg::NEW
    }],
    handler: Some(log),
    ..Spec::NEW
};

fn log(cx: &mut Cx) -> Outcome {
    const COUNT: usize = 10;
    let count = match cx.args {
        [_, _] => COUNT,
        [_, _, word] if word.eq_ignore_ascii_case(b"RESET") => {
            cx.shared.acl.log.lock().clear();
            cx.reply.ok();
            return Ok(Effect::None);
        }
        [_, _, count] => usize::try_from(parse_int(count)?).unwrap_or(0),
        _ => return Err(wrong_call(cx)),
    };
    let log = cx.shared.acl.log.lock();
    let entries = log.newest(count);
    cx.reply.array(entries.len());
    for Entry { event, count, id, created_ms } in entries {
        cx.reply.map(10);
        cx.reply.bulk(b"count");
        cx.reply.integer(*count as i64);
        let texts = [
            ("reason", event.reason.name().as_bytes()),
            ("context", event.context.name().as_bytes()),
            ("object", &event.object[..]),
            ("username", &event.user[..]),
        ];
        for (name, text) in texts {
            cx.reply.bulk(name.as_bytes());
            cx.reply.bulk(text);
        }
        cx.reply.bulk(b"age-seconds");
        cx.reply.double((cx.now_ms - event.at_ms).max(0) as f64 / 1000.0);
        cx.reply.bulk(b"client-info");
        cx.reply.bulk(&event.client);
        let numbers = [
            ("entry-id", *id as i64),
            ("timestamp-created", *created_ms),
            ("timestamp-last-updated", event.at_ms),
        ];
        for (name, number) in numbers {
            cx.reply.bulk(name.as_bytes());
            cx.reply.integer(number);
        }
    }
    Ok(Effect::None)
}

const SAVE: Spec = Spec {
    name: "save",
    arity: Arity::Exactly(2),
    flags: GUARDED,
    group: Group::Server,
    since: "6.0.0",
    summary: "Writes all users to the ACL file.",
    complexity: "O(N) for N users",
    tips: EVERY_NODE,
    handler: Some(save),
    ..Spec::NEW
};

fn save(cx: &mut Cx) -> Outcome {
    if cx.config.aclfile.is_empty() {
        return Err(NO_FILE);
    }
    if let Err(error) = cx.shared.acl.save(&cx.config.aclfile) {
        cx.shared.host.log(Level::Warning, &format!("Saving the ACL file failed: {error}"));
        return Err(CommandError::text(
            "ERR There was an error trying to save the ACLs. Please check the server logs for more information",
        ));
    }
    cx.reply.ok();
    Ok(Effect::None)
}

const SETUSER: Spec = Spec {
    name: "setuser",
    arity: Arity::AtLeast(3),
    flags: GUARDED,
    group: Group::Server,
    since: "6.0.0",
    summary: "Makes a user or changes one.",
    complexity: "O(N) for N rules",
    tips: EVERY_NODE,
    args: &[
        USERNAME,
        Arg { name: "rule", kind: ArgKind::String, optional: true, multiple: true, ..Arg::NEW },
    ],
    handler: Some(setuser),
    ..Spec::NEW
};

fn setuser(cx: &mut Cx) -> Outcome {
    let name = cx.arg(2);
    if name.iter().any(|byte| *byte == 0 || byte.is_ascii_whitespace()) {
        return Err(CommandError::text("ERR Usernames can't contain spaces or null characters"));
    }
    let rules = join_selectors(cx.args.get(3..).unwrap_or_default()).map_err(|rule| {
        CommandError::quoting("ERR Unmatched parenthesis in acl selector starting at '{}'.", &[rule])
    })?;
    let shared = cx.shared;
    let changed = shared.acl.change(name, &rules, &shared.registry, opens_channels(cx));
    let (account, before) = changed.map_err(|(rule, error)| {
        let words = [&rule[..], error.text().as_bytes()];
        CommandError::quoting("ERR Error in ACL SETUSER modifier '{}': {}", &words)
    })?;
    close_listeners(cx, &account, before.as_deref());
    cx.reply.ok();
    Ok(Effect::None)
}

const USERS: Spec = Spec {
    name: "users",
    arity: Arity::Exactly(2),
    flags: GUARDED,
    group: Group::Server,
    since: "6.0.0",
    summary: "All users' names.",
    complexity: "O(N) for N users",
    handler: Some(users),
    ..Spec::NEW
};

fn users(cx: &mut Cx) -> Outcome {
    let users = cx.shared.acl.users();
    cx.reply.array(users.len());
    users.iter().for_each(|account| cx.reply.bulk(account.name()));
    Ok(Effect::None)
}

const WHOAMI: Spec = Spec {
    name: "whoami",
    arity: Arity::Exactly(2),
    flags: OPEN,
    group: Group::Server,
    since: "6.0.0",
    summary: "The connection's user.",
    complexity: "O(1)",
    handler: Some(whoami),
    ..Spec::NEW
};

fn whoami(cx: &mut Cx) -> Outcome {
    cx.reply.bulk(cx.session.account().name());
    Ok(Effect::None)
}
