//! The filters of CLIENT LIST and CLIENT KILL, and the line that describes a client.

use crate::clients::{ClientFlags, ClientId, ClientInfo, ClientKind, NO_COMMAND};
use crate::commands::prelude::*;
use crate::registry::CommandId;
use crate::shared::Shared;
use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Ids(Vec<u64>),
    Kind(ClientKind),
    User(Vec<u8>),
    Addr(Vec<u8>),
    Laddr(Vec<u8>),
    Ip(Vec<u8>),
    Flags(Vec<u8>),
    Name(Vec<u8>),
    LibName(Vec<u8>),
    LibVer(Vec<u8>),
    Db(u32),
    Capa(Vec<u8>),
    MaxAgeS(i64),
    IdleS(i64),
}

/// All conditions of a call; a client must fit every one.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    /// With `true`: must not fit.
    conditions: Vec<(Condition, bool)>,
    skip_me: bool,
}

/// Letters of CLIENT LIST's `flags`, in their order.
const FLAG_LETTERS: [(ClientFlags, char); 17] = [
    (ClientFlags::REPLICA, 'S'),
    (ClientFlags::PRIMARY, 'M'),
    (ClientFlags::MONITOR, 'O'),
    (ClientFlags::PUBSUB, 'P'),
    (ClientFlags::MULTI, 'x'),
    (ClientFlags::BLOCKED, 'b'),
    (ClientFlags::TRACKING, 't'),
    (ClientFlags::TRACKING_BROKEN_REDIRECT, 'R'),
    (ClientFlags::TRACKING_BCAST, 'B'),
    (ClientFlags::DIRTY_EXEC, 'd'),
    (ClientFlags::CLOSE_AFTER_REPLY, 'c'),
    (ClientFlags::UNBLOCKED, 'u'),
    (ClientFlags::CLOSE_ASAP, 'A'),
    (ClientFlags::UNIX_SOCKET, 'U'),
    (ClientFlags::READONLY, 'r'),
    (ClientFlags::NO_EVICT, 'e'),
    (ClientFlags::NO_TOUCH, 'T'),
];

/// Letters that are valid in a filter beside those above.
const OTHER_LETTERS: &[u8] = b"NI";

fn flag_letters(flags: ClientFlags) -> String {
    let mut text: String =
        FLAG_LETTERS.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, letter)| *letter).collect();
    if flags.contains(ClientFlags::IMPORT_SOURCE) {
        text.push('I');
    }
    if text.is_empty() {
        text.push('N');
    }
    text
}

fn parse_kind(word: &[u8]) -> Result<ClientKind, CommandError> {
    let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    match () {
        () if is("normal") => Ok(ClientKind::Normal),
        () if is("pubsub") => Ok(ClientKind::PubSub),
        () if is("replica") || is("slave") => Ok(ClientKind::Replica),
        () if is("primary") || is("master") => Ok(ClientKind::Primary),
        () => Err(CommandError::quoting("ERR Unknown client type '{}'", &[word])),
    }
}

fn parse_id(word: &[u8]) -> Result<u64, CommandError> {
    let id = parse_int(word).map_err(|_| CommandError::Syntax)?;
    u64::try_from(id)
        .ok()
        .filter(|id| *id > 0)
        .ok_or(CommandError::text("ERR client-id should be greater than 0"))
}

impl Filter {
    /// CLIENT KILL's old form; the caller itself may be meant.
    pub(super) fn by_address(addr: &[u8]) -> Self {
        Filter { conditions: vec![(Condition::Addr(addr.to_vec()), false)], skip_me: false }
    }

    /// The options from position `at` on. `skip_me` holds unless an option says otherwise.
    pub(super) fn parse(cx: &Cx, mut at: usize, skip_me: bool) -> Result<Self, CommandError> {
        let mut filter = Filter { conditions: Vec::new(), skip_me };
        while at < cx.args.len() {
            let word = cx.arg(at).to_ascii_uppercase();
            let (negated, name) = match word.strip_prefix(b"NOT-") {
                Some(rest) => (true, rest),
                None => (false, &word[..]),
            };
            let value = *cx.args.get(at + 1).ok_or(CommandError::Syntax)?;
            let bytes = value.to_vec();
            let condition = match name {
                b"ID" => {
                    // Numbers follow until something that isn't one.
                    let mut ids = vec![parse_id(value)?];
                    while let Some(more) = cx.args.get(at + 2).filter(|w| parse_int(w).is_ok()) {
                        ids.push(parse_id(more)?);
                        at += 1;
                    }
                    Condition::Ids(ids)
                }
                b"TYPE" => Condition::Kind(parse_kind(value)?),
                b"USER" => {
                    if cx.shared.acl.user(value).is_none() {
                        return Err(CommandError::quoting("ERR No such user '{}'", &[value]));
                    }
                    Condition::User(bytes)
                }
                b"ADDR" => Condition::Addr(bytes),
                b"LADDR" => Condition::Laddr(bytes),
                b"IP" => Condition::Ip(bytes),
                b"FLAGS" => Condition::Flags(check_letters(value)?),
                b"NAME" => Condition::Name(bytes),
                b"LIB-NAME" => Condition::LibName(bytes),
                b"LIB-VER" => Condition::LibVer(bytes),
                b"DB" => Condition::Db(parse_db(cx, value)?),
                b"CAPA" => Condition::Capa(bytes),
                b"MAXAGE" if !negated => Condition::MaxAgeS(positive(value, "maxage")?),
                b"IDLE" if !negated => Condition::IdleS(positive(value, "idle")?),
                b"SKIPME" if !negated => {
                    filter.skip_me = match () {
                        () if value.eq_ignore_ascii_case(b"yes") => true,
                        () if value.eq_ignore_ascii_case(b"no") => false,
                        () => return Err(CommandError::Syntax),
                    };
                    at += 2;
                    continue;
                }
                _ => return Err(CommandError::Syntax),
            };
            // A later option of the same name takes the place of an earlier one.
            let kind = std::mem::discriminant(&condition);
            filter.conditions.retain(|(c, n)| std::mem::discriminant(c) != kind || *n != negated);
            filter.conditions.push((condition, negated));
            at += 2;
        }
        Ok(filter)
    }

    /// Whether a client fits; `me` is the caller.
    pub(super) fn matches(&self, client: &ClientInfo, me: ClientId, now_ms: i64) -> bool {
        if self.skip_me && client.id == me {
            return false;
        }
        self.conditions.iter().all(|(condition, negated)| condition.holds(client, now_ms) != *negated)
    }
}

fn check_letters(letters: &[u8]) -> Result<Vec<u8>, CommandError> {
    let known = |letter: &u8| {
        OTHER_LETTERS.contains(letter) || FLAG_LETTERS.iter().any(|(_, l)| *l == char::from(*letter))
    };
    if letters.is_empty() || !letters.iter().all(known) {
        return Err(CommandError::quoting("ERR Unknown flags found in the provided filter: {}", &[letters]));
    }
    Ok(letters.to_vec())
}

fn parse_db(cx: &Cx, value: &[u8]) -> Result<u32, CommandError> {
    let out_of_range = || CommandError::text("ERR DB index is out of range");
    let number = parse_int(value)?;
    let number = u64::try_from(number).map_err(|_| out_of_range())?;
    if number >= cx.config.databases {
        return Err(out_of_range());
    }
    Ok(number as u32)
}

fn positive(value: &[u8], what: &str) -> Result<i64, CommandError> {
    let not_integer = || CommandError::owned(format!("ERR {what} is not an integer or out of range"));
    let number = parse_int(value).map_err(|_| not_integer())?;
    if number <= 0 {
        return Err(CommandError::owned(format!("ERR {what} should be greater than 0")));
    }
    Ok(number)
}

impl Condition {
    fn holds(&self, client: &ClientInfo, now_ms: i64) -> bool {
        match self {
            Condition::Ids(ids) => ids.contains(&client.id.0),
            Condition::Kind(kind) => client.kind() == *kind,
            Condition::User(user) => client.names.lock().account.name() == *user,
            Condition::Addr(addr) => client.addr.as_bytes() == *addr,
            Condition::Laddr(laddr) => client.laddr.as_bytes() == *laddr,
            Condition::Ip(ip) => {
                let host = client.addr.rsplit_once(':').map_or(client.addr.as_str(), |(host, _)| host);
                host.trim_start_matches('[').trim_end_matches(']').as_bytes() == *ip
            }
            Condition::Flags(letters) => {
                let has = flag_letters(client.flags());
                letters.iter().all(|letter| has.contains(char::from(*letter)))
            }
            Condition::Name(name) => client.names.lock().name == *name,
            Condition::LibName(name) => client.names.lock().lib_name == *name,
            Condition::LibVer(version) => client.names.lock().lib_ver == *version,
            Condition::Db(db) => client.db.load(Relaxed) == *db,
            Condition::Capa(capa) => {
                let redirect = client.capa_redirect.load(Relaxed);
                !capa.is_empty() && capa.iter().all(|letter| *letter == b'r' && redirect)
            }
            Condition::MaxAgeS(seconds) => (now_ms - client.created_ms) / 1000 >= *seconds,
            Condition::IdleS(seconds) => {
                (now_ms - client.last_interaction_ms.load(Relaxed)) / 1000 >= *seconds
            }
        }
    }
}

/// The line of CLIENT LIST and CLIENT INFO.
pub(crate) fn describe(client: &ClientInfo, shared: &Shared, now_ms: i64) -> String {
    let names = client.names.lock().clone();
    let command = match client.last_command.load(Relaxed) {
        NO_COMMAND => "NULL",
        id => shared.registry.get(CommandId(id)).full_name,
    };
    let load = |n: &std::sync::atomic::AtomicU64| n.load(Relaxed);
    let query_bytes = load(&client.query_bytes);
    let mut line = format!(
        "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={} capa={} db={}",
        client.id,
        client.addr,
        client.laddr,
        client.fd,
        String::from_utf8_lossy(&names.name),
        (now_ms - client.created_ms).max(0) / 1000,
        (now_ms - client.last_interaction_ms.load(Relaxed)).max(0) / 1000,
        flag_letters(client.flags()),
        if client.capa_redirect.load(Relaxed) { "r" } else { "" },
        client.db.load(Relaxed),
    );
    // Writing to a string can't fail.
    let _ = write!(
        line,
        " sub={} psub={} ssub={} multi={} watch={} qbuf={} qbuf-free={} argv-mem={} multi-mem={} rbs={} rbp={} obl={} \
         oll={} omem={} tot-mem={} events={} cmd={} user={} redir={} resp={} lib-name={} lib-ver={} tot-net-in={} \
         tot-net-out={} tot-cmds={}",
        client.subscriptions.load(Relaxed),
        client.pattern_subscriptions.load(Relaxed),
        client.shard_subscriptions.load(Relaxed),
        client.multi.load(Relaxed),
        client.watched.load(Relaxed),
        query_bytes,
        load(&client.query_capacity).saturating_sub(query_bytes),
        load(&client.argv_bytes),
        load(&client.multi_bytes),
        load(&client.reply_buffer_bytes),
        load(&client.reply_buffer_peak),
        load(&client.output_bytes),
        load(&client.output_list_len),
        load(&client.output_list_bytes),
        load(&client.total_bytes),
        if load(&client.output_bytes) > 0 { "rw" } else { "r" },
        command,
        String::from_utf8_lossy(names.account.name()),
        client.redirect.load(Relaxed),
        client.protocol.load(Relaxed),
        String::from_utf8_lossy(&names.lib_name),
        String::from_utf8_lossy(&names.lib_ver),
        load(&client.net_in),
        load(&client.net_out),
        load(&client.commands),
    );
    line.push('\n');
    line
}
