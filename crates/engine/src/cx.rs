//! What a handler gets: its arguments, the keys under lock, the reply, the session and what all share.

use crate::blocking::WaitFor;
use crate::config::Config;
use crate::effect::OwnedCommand;
use crate::error::CommandError;
use crate::keys::Keys;
use crate::outbox::Outbox;
use crate::registry::Command;
use crate::scripting::machine::Machines;
use crate::session::{Origin, Session};
use crate::shared::Shared;
use crate::stats::WorkerStats;
use kara_base::ids::DbIndex;
use kara_base::long_double::LongDouble;
use kara_resp::Writer;

/// The context of one running command.
pub struct Cx<'a, 'k> {
    pub command: Command,
    /// The command's words, its name first.
    pub args: &'a [&'a [u8]],
    pub keys: Keys<'a, 'k>,
    pub reply: &'a mut Writer,
    pub session: &'a mut Session,
    pub shared: &'a Shared,
    /// This worker's machines for scripts.
    pub machines: &'a Machines,
    pub config: &'a Config,
    pub stats: &'a WorkerStats,
    pub origin: Origin,
    /// Wall time, Unix ms; stands still while a command, transaction or script runs.
    pub now_ms: i64,
    /// Messages for clients, posted once the command has run.
    pub outbox: &'a mut Outbox,
    /// Effects of commands that ran inside this one (EXEC, scripts), in order.
    pub nested: &'a mut Vec<(DbIndex, OwnedCommand)>,
    /// What the command waits for, if it found nothing; see [`Cx::wait`].
    pub waits: &'a mut Option<WaitFor>,
    /// `maxmemory` was exceeded before the command began, and nothing could be evicted.
    pub memory_is_full: bool,
    /// Changes beyond the first that this command made, for `rdb_changes_since_last_save`.
    pub extra_changes: u64,
    /// The handler has counted its changes itself: none, or in front of a save.
    pub changes_counted: bool,
    /// How many of the commands that ran inside this one changed something.
    pub nested_changes: u64,
}

impl<'a> Cx<'a, '_> {
    /// The argument at a position that the arity guarantees. (An empty one where it doesn't: never a panic.)
    #[inline]
    pub fn arg(&self, position: usize) -> &'a [u8] {
        self.args.get(position).copied().unwrap_or_default()
    }

    /// An integer argument, or the reference's error.
    #[inline]
    pub fn int(&self, position: usize) -> Result<i64, CommandError> {
        parse_int(self.arg(position))
    }

    /// A float argument, or the reference's error.
    pub fn float(&self, position: usize) -> Result<f64, CommandError> {
        parse_float(self.arg(position))
    }

    /// Whether the argument is this word, in any case.
    #[inline]
    pub fn is_word(&self, position: usize, word: &str) -> bool {
        self.args.get(position).is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
    }

    /// Somebody reads the journal: effects must be spelled out.
    #[inline]
    pub fn journal_on(&self) -> bool {
        self.keys.policy.journal_on
    }

    /// The error for a wrong number of arguments of this command.
    pub fn arity_error(&self) -> CommandError {
        CommandError::Arity(self.command.full_name.into())
    }

    /// Answers a HELP subcommand: a heading, the given lines, and the HELP lines themselves.
    pub fn reply_help(&mut self, lines: &[&str]) {
        let name = self.command.full_name.split('|').next().unwrap_or_default().to_ascii_uppercase();
        self.reply.array(lines.len() + 3);
        self.reply.simple(&format!("{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
        for line in lines {
            self.reply.simple(line);
        }
        self.reply.simple("HELP");
        self.reply.simple("    Print this help.");
    }
}

/// A decimal i64 as the reference accepts it.
#[inline]
pub fn parse_int(text: &[u8]) -> Result<i64, CommandError> {
    kara_base::number::parse_i64(text).ok_or(CommandError::NotInteger)
}

/// A decimal 32-bit integer as the reference accepts it, for what it keeps in a C int.
pub fn parse_i32(text: &[u8]) -> Result<i32, CommandError> {
    i32::try_from(parse_int(text)?).map_err(|_| {
        CommandError::text("ERR value is out of range, value must between -2147483648 and 2147483647")
    })
}

/// A float as the reference accepts it; NaN is refused.
pub fn parse_float(text: &[u8]) -> Result<f64, CommandError> {
    kara_base::number::parse_f64(text).filter(|n| !n.is_nan()).ok_or(CommandError::NotFloat)
}

/// The timeout of a blocking command, given in seconds, in milliseconds; 0 waits for ever. The moment at which it ends
/// must fit the clock.
pub fn parse_timeout_ms(text: &[u8], now_ms: i64) -> Result<i64, CommandError> {
    let timeout_ms = LongDouble::parse(text)
        .and_then(|seconds| seconds.times_ceil(1000))
        .ok_or(CommandError::text("ERR timeout is not a float or out of range"))?;
    if timeout_ms < 0 {
        return Err(CommandError::text("ERR timeout is negative"));
    }
    if timeout_ms.checked_add(now_ms).is_none() {
        return Err(CommandError::text("ERR timeout is out of range"));
    }
    Ok(timeout_ms)
}
