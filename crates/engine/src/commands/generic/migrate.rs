//! MIGRATE: keys move to another server, by RESTORE over there and DEL here.
//!
//! The keys' locks are held until the other server has answered: at any moment a key is here or there. Who waits
//! for those keys, and this worker's clients, wait meanwhile, as all clients of the reference do.

use crate::commands::prelude::*;
use crate::shared::PeerError;
use kara_persist::rdb::encode::EncodeOptions;
use kara_persist::rdb::{Version, payload};
use kara_replication::handshake::request;
use kara_resp::reply::Value;
use std::time::Duration;

const NAME: &str = "migrate";
/// Where the options begin.
const OPTIONS: usize = 6;

pub(super) const MIGRATE: Spec = Spec {
    name: NAME,
    arity: Arity::AtLeast(6),
    flags: Flags::WRITE,
    acl: Acl::DANGEROUS.union(Acl::KEYSPACE),
    group: Group::Generic,
    since: "2.6.0",
    summary: "Moves keys to another server.",
    complexity: "That of DUMP and DEL here, and of RESTORE there, and the time on the network",
    tips: &["nondeterministic_output"],
    key_specs: &[
        KeySpec::key(3, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE)),
        KeySpec {
            notes: "",
            flags: KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE).union(KeyFlags::INCOMPLETE),
            begin: Begin::Keyword { keyword: "KEYS", start_from: -2 },
            find: Find::Range { last: -1, step: 1, limit: 0 },
        },
    ],
    args: &[
        Arg { name: "host", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "port", kind: ArgKind::Integer, ..Arg::NEW },
        Arg {
            name: "key-selector",
            kind: ArgKind::Oneof,
            args: &[
                Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
                Arg::word("empty-string", ""),
            ],
            ..Arg::NEW
        },
        Arg { name: "destination-db", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "timeout", kind: ArgKind::Integer, ..Arg::NEW },
        Arg::word("copy", "COPY").since("3.0.0").optional(),
        Arg::word("replace", "REPLACE").since("3.0.0").optional(),
        Arg {
            name: "authentication",
            kind: ArgKind::Oneof,
            optional: true,
            args: &[
                Arg {
                    name: "auth",
                    kind: ArgKind::String,
                    display: "password",
                    token: Some("AUTH"),
                    since: "4.0.7",
                    ..Arg::NEW
                },
                Arg {
                    name: "auth2",
                    kind: ArgKind::Block,
                    token: Some("AUTH2"),
                    since: "6.0.0",
                    args: &[
                        Arg { name: "username", kind: ArgKind::String, ..Arg::NEW },
                        Arg { name: "password", kind: ArgKind::String, ..Arg::NEW },
                    ],
                    ..Arg::NEW
                },
            ],
            ..Arg::NEW
        },
        Arg {
            name: "keys",
            kind: ArgKind::Key,
            display: "key",
            key_spec: Some(1),
            token: Some("KEYS"),
            since: "3.0.6",
            optional: true,
            multiple: true,
            ..Arg::NEW
        },
    ],
    get_keys: Some(keys_of),
    handler: Some(migrate),
    ..Spec::NEW
};

/// What the options say.
#[derive(Default)]
struct Options<'a> {
    copy: bool,
    replace: bool,
    /// The words of AUTH that the other server wants to hear.
    auth: Vec<&'a [u8]>,
    /// Where the keys behind KEYS begin.
    keys: Option<usize>,
}

fn parse<'a>(args: &[&'a [u8]]) -> Result<Options<'a>, CommandError> {
    let mut options = Options::default();
    let mut at = OPTIONS;
    while let Some([word, rest @ ..]) = args.get(at..) {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        at += match rest {
            _ if is("COPY") => {
                options.copy = true;
                1
            }
            _ if is("REPLACE") => {
                options.replace = true;
                1
            }
            [password, ..] if is("AUTH") => {
                options.auth = vec![password];
                2
            }
            [user, password, ..] if is("AUTH2") => {
                options.auth = vec![user, password];
                3
            }
            _ if is("KEYS") => {
                if args.get(3).is_some_and(|key| !key.is_empty()) {
                    return Err(CommandError::text(
                        "ERR When using MIGRATE KEYS option, the key argument must be set to the empty string",
                    ));
                }
                options.keys = Some(at + 1);
                break;
            }
            _ => return Err(CommandError::Syntax),
        };
    }
    Ok(options)
}

fn keys_of(args: &[&[u8]], found: &mut Vec<(usize, KeyFlags)>) -> Result<(), ()> {
    const FLAGS: KeyFlags = KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE);
    match parse(args).map_err(drop)?.keys {
        Some(first) => found.extend((first..args.len()).map(|at| (at, FLAGS))),
        None => found.push((3, FLAGS)),
    }
    Ok(())
}

fn migrate(cx: &mut Cx) -> Outcome {
    let options = parse(cx.args)?;
    let timeout_ms = cx.int(5)?;
    let db = cx.int(4)?;
    let timeout = Duration::from_millis(u64::try_from(timeout_ms).ok().filter(|ms| *ms > 0).unwrap_or(1000));
    let port = u16::try_from(cx.int(2)?).map_err(|_| io_error(PeerError::Connecting))?;
    let host = std::str::from_utf8(cx.arg(1)).map_err(|_| io_error(PeerError::Connecting))?;
    let named = match options.keys {
        Some(first) => cx.args.get(first..).unwrap_or_default(),
        None => cx.args.get(3..4).unwrap_or_default(),
    };
    let mut requests = Vec::new();
    if !options.auth.is_empty() {
        let words: Vec<&[u8]> = std::iter::once(&b"AUTH"[..]).chain(options.auth.iter().copied()).collect();
        requests.extend(request(&words));
    }
    requests.extend(request(&[b"SELECT", db.to_string().as_bytes()]));
    let keys = write_restores(cx, named, options.replace, &mut requests)?;
    if keys.is_empty() {
        cx.reply.simple("NOKEY");
        return Ok(Effect::None);
    }
    let opening = 1 + usize::from(!options.auth.is_empty());
    let answers = cx.shared.host.exchange(host, port, timeout, &requests, opening + keys.len());
    let answers = answers.map_err(io_error)?;
    let (openings, restored) = answers.split_at(opening.min(answers.len()));
    if let Some(error) = openings.iter().find_map(Value::as_error) {
        return Err(told(error));
    }
    let mut gone = OwnedCommand::new("DEL");
    let mut deleted = 0u64;
    for (key, answer) in keys.iter().zip(restored) {
        if answer.as_error().is_none() && !options.copy && cx.keys.delete(key) {
            cx.keys.changed(key, Class::GENERIC, "del");
            gone.push(key);
            deleted += 1;
        }
    }
    cx.extra_changes = deleted.saturating_sub(1);
    match restored.iter().find_map(Value::as_error) {
        Some(error) => {
            // Those that went are gone all the same.
            let message = told(error).message().into_owned();
            cx.reply.error_bytes(&message);
            cx.stats.error_replies.add(1);
            cx.shared.stats.count_error(&message);
            cx.stats.command(cx.command.id).failed.add(1);
        }
        None => cx.reply.ok(),
    }
    Ok(if deleted == 0 { Effect::None } else { Effect::rewrite(cx.journal_on(), || gone) })
}

/// Writes a RESTORE for each key that exists; returns those.
fn write_restores<'a>(
    cx: &mut Cx,
    named: &[&'a [u8]],
    replace: bool,
    requests: &mut Vec<u8>,
) -> Result<Vec<&'a [u8]>, CommandError> {
    // As DUMP answers.
    let options = EncodeOptions { version: Version::Valkey80, compress: cx.config.rdbcompression };
    let now_ms = cx.now_ms;
    let mut keys = Vec::with_capacity(named.len());
    for key in named {
        let expires_at_ms = cx.keys.expiry(key);
        let Some(entry) = cx.keys.read(key) else { continue };
        let value = payload::dump(entry, options)
            .map_err(|_| CommandError::text("ERR the value can't be serialized"))?;
        let ttl = expires_at_ms.map_or(0, |at_ms| (at_ms - now_ms).max(1)).to_string();
        let mut words: Vec<&[u8]> = vec![b"RESTORE", key, ttl.as_bytes(), &value];
        if replace {
            words.push(b"REPLACE");
        }
        requests.extend(request(&words));
        keys.push(*key);
    }
    Ok(keys)
}

fn told(error: &[u8]) -> CommandError {
    CommandError::quoting("ERR Target instance replied with error: {}", &[error])
}

fn io_error(error: PeerError) -> CommandError {
    CommandError::text(match error {
        PeerError::Connecting => "IOERR error or timeout connecting to the client",
        PeerError::Writing => "IOERR error or timeout writing to target instance",
        PeerError::Reading => "IOERR error or timeout reading to target instance",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_one_or_those_behind_keys() {
        let keys = |line: &str| {
            let args: Vec<&[u8]> = line.split(' ').map(|word| word.trim_matches('"').as_bytes()).collect();
            let mut found = Vec::new();
            keys_of(&args, &mut found).map(|()| found.iter().map(|(at, _)| *at).collect::<Vec<_>>())
        };
        assert_eq!(keys("migrate h 1 k 0 9"), Ok(vec![3]));
        assert_eq!(keys("migrate h 1 \"\" 0 9 COPY AUTH keys KEYS a b"), Ok(vec![10, 11]));
        assert_eq!(keys("migrate h 1 k 0 9 AUTH2 keys keys"), Ok(vec![3]));
        assert_eq!(keys("migrate h 1 k 0 9 KEYS a"), Err(()));
        assert_eq!(keys("migrate h 1 k 0 9 AUTH"), Err(()));
    }
}
