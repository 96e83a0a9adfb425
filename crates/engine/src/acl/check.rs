//! Whether a user may run a command with its arguments.

use super::log::{Context, Event, Reason};
use super::rights::Rights;
use super::selector::{Databases, Selector, needed};
use crate::commands::connection::client_line;
use crate::config::Config;
use crate::error::CommandError;
use crate::keyfind::{KeyAt, effective_flags, find_keys};
use crate::registry::Command;
use crate::session::Session;
use crate::shared::Shared;
use crate::spec::{Acl as Category, Flags};
use crate::stats::WorkerStats;
use kara_base::ids::DbIndex;

/// What is refused, and by which argument; the later kinds come nearer to being allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denied {
    /// `None`: the command as such, because of the database that is chosen.
    Database(Option<usize>),
    Command,
    Key(usize),
    Channel(usize),
}

impl Denied {
    /// The word that the log shows.
    pub fn object<'a>(self, command: Command, args: &[&'a [u8]]) -> &'a [u8]
    where
        'static: 'a,
    {
        let position = match self {
            Denied::Command | Denied::Database(None) => return command.full_name.as_bytes(),
            Denied::Database(Some(position)) | Denied::Key(position) | Denied::Channel(position) => position,
        };
        args.get(position).copied().unwrap_or_default()
    }

    /// The error text for the client, which doesn't name keys and channels.
    pub fn text(self, user: &[u8], command: Command) -> Vec<u8> {
        match self {
            Denied::Command => self.long_text(user, command, &[]),
            Denied::Database(_) => b"No permissions to access database".to_vec(),
            Denied::Key(_) => b"No permissions to access a key".to_vec(),
            Denied::Channel(_) => b"No permissions to access a channel".to_vec(),
        }
    }

    /// The error that a client gets.
    pub fn error(self, user: &[u8], command: Command) -> CommandError {
        CommandError::Bytes([b"NOPERM ", &self.text(user, command)[..]].concat())
    }

    /// The text of ACL DRYRUN, which names everything.
    pub fn long_text(self, user: &[u8], command: Command, args: &[&[u8]]) -> Vec<u8> {
        let object = match self {
            Denied::Database(None) => args.first().copied().unwrap_or_default(),
            _ => self.object(command, args),
        };
        let (before, after): (&[u8], &[u8]) = match self {
            Denied::Command => (b" has no permissions to run the '", b"' command"),
            Denied::Database(_) => (b" has no permissions to access database ", b""),
            Denied::Key(_) => (b" has no permissions to access the '", b"' key"),
            Denied::Channel(_) => (b" has no permissions to access the '", b"' channel"),
        };
        [b"User ", user, before, object, after].concat()
    }

    /// Why EXEC leaves a command out that was allowed when it was queued.
    pub fn reason_in_exec(self) -> &'static str {
        match self {
            Denied::Command => "no permission to execute the command or subcommand",
            Denied::Database(_) => "no permission",
            Denied::Key(_) => "no permission to touch the specified keys",
            Denied::Channel(_) => "no permission to access one of the channels used as arguments",
        }
    }
}

/// Whether one of the user's selectors lets the command through. Otherwise the refusal that came nearest to it.
pub fn check(rights: &Rights, command: Command, args: &[&[u8]], db: DbIndex) -> Result<(), Denied> {
    let mut keys = Vec::new();
    // Arguments in which no keys can be found are the command's own to refuse.
    if find_keys(command.spec, args, &mut keys).is_err() {
        keys.clear();
    }
    let request = Request { command, args, db, keys: &keys };
    let mut nearest = None;
    for selector in rights.selectors() {
        match request.check(selector) {
            Ok(()) => return Ok(()),
            Err(denied) => nearest = nearest.max(Some(denied)),
        }
    }
    Err(nearest.unwrap_or(Denied::Command))
}

/// Whether the session's user may run the command. A refusal is counted and logged.
pub fn may(
    shared: &Shared,
    config: &Config,
    stats: &WorkerStats,
    session: &mut Session,
    command: Command,
    args: &[&[u8]],
    context: Context,
    now_ms: i64,
) -> Result<(), Denied> {
    let db = session.db;
    let Some(rights) = session.restrictions(&shared.acl) else { return Ok(()) };
    let Err(denied) = check(rights, command, args, db) else { return Ok(()) };
    let (reason, counter) = match denied {
        Denied::Command => (Reason::Command, &stats.acl_denied_cmd),
        Denied::Database(_) => (Reason::Database, &stats.acl_denied_db),
        Denied::Key(_) => (Reason::Key, &stats.acl_denied_key),
        Denied::Channel(_) => (Reason::Channel, &stats.acl_denied_channel),
    };
    counter.add(1);
    let event = Event {
        reason,
        context,
        object: denied.object(command, args).to_vec(),
        user: session.account().name().to_vec(),
        client: client_line(&session.info, shared, now_ms),
        at_ms: now_ms,
    };
    shared.acl.log.lock().add(event, config.acllog_max_len);
    Err(denied)
}

/// Whether a command of these rights may look at whatever key it comes to: SORT's BY and GET.
pub fn check_every_key(rights: &Rights, command: Command, args: &[&[u8]], db: DbIndex) -> bool {
    rights.selectors().any(|selector| {
        let request = Request { command, args, db, keys: &[] };
        request.check(selector).is_ok() && selector.reads_every_key()
    })
}

struct Request<'a> {
    command: Command,
    args: &'a [&'a [u8]],
    db: DbIndex,
    keys: &'a [KeyAt],
}

impl Request<'_> {
    fn check(&self, selector: &Selector) -> Result<(), Denied> {
        if *selector.databases() != Databases::All {
            self.check_databases(selector.databases())?;
        }
        if !selector.allows_command(self.command, self.args) {
            return Err(Denied::Command);
        }
        for key in self.keys {
            let flags = effective_flags(self.command.full_name, self.args, key.flags);
            let name = self.args.get(key.position).copied().unwrap_or_default();
            if !selector.allows_key(name, needed(flags)) {
                return Err(Denied::Key(key.position));
            }
        }
        for (position, is_pattern) in channels(self.command, self.args) {
            let name = self.args.get(position).copied().unwrap_or_default();
            if !selector.allows_channel(name, is_pattern) {
                return Err(Denied::Channel(position));
            }
        }
        Ok(())
    }

    fn check_databases(&self, allowed: &Databases) -> Result<(), Denied> {
        let word = |position: usize, word: &str| {
            self.args.get(position).is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
        };
        let named: Vec<usize> = match self.command.full_name {
            "select" => vec![1],
            "swapdb" => vec![1, 2],
            "move" => vec![2],
            "copy" => (3..self.args.len()).filter(|at| word(*at, "DB")).map(|at| at + 1).collect(),
            "flushall" | "cluster|cancelslotmigrations" | "cluster|migrateslots" => {
                return Err(Denied::Database(None));
            }
            _ => Vec::new(),
        };
        let looks_at_own = match self.command.full_name {
            "select" | "swapdb" => false,
            _ => {
                let spec = self.command.spec;
                !self.keys.is_empty()
                    || spec.flags.intersects(Flags::WRITE | Flags::READONLY)
                    || spec.acl_categories().contains(Category::KEYSPACE)
                    || spec.get_keys.is_some()
                    || spec.key_specs.iter().any(|keys| !keys.flags.contains(crate::spec::KeyFlags::NOT_KEY))
            }
        };
        for position in named {
            // What is no number is the command's own to refuse.
            let id = self.args.get(position).and_then(|arg| kara_base::number::parse_i64(arg));
            let Some(id) = id.and_then(|id| u32::try_from(id).ok()) else { continue };
            if !allowed.contains(id) {
                return Err(Denied::Database(Some(position)));
            }
        }
        if looks_at_own && !allowed.contains(self.db.0) {
            return Err(Denied::Database(None));
        }
        Ok(())
    }
}

/// The arguments that are channels which a command sends to or begins to listen to, and whether they are patterns.
fn channels(command: Command, args: &[&[u8]]) -> impl Iterator<Item = (usize, bool)> {
    let (range, is_pattern) = match command.full_name {
        "publish" | "spublish" => (1..2, false),
        "subscribe" | "ssubscribe" => (1..args.len(), false),
        "psubscribe" => (1..args.len(), true),
        _ => (0..0, false),
    };
    range.map(move |position| (position, is_pattern))
}
