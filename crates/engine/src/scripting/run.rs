//! One run of a script: its commands pass the same checks as a client's, act under the locks of the run, and their effects
//! are one transaction.

use super::shebang::ScriptFlags;
use crate::cx::Cx;
use crate::effect::{Effect, Outcome};
use crate::error::CommandError;
use crate::log::Level;
use crate::pipeline::run_nested;
use crate::registry::Lookup;
use crate::session::Origin;
use crate::spec::Flags;
use kara_base::ids::DbIndex;
use kara_resp::{Protocol, Writer};
use kara_script::{Abort, Failure, Host, LibraryFunction};
use std::sync::atomic::AtomicBool;

/// What kind of command runs the script.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'s> {
    pub flags: ScriptFlags,
    /// EVAL_RO and its like.
    pub read_only: bool,
    /// Set when it turns out that the declared keys aren't all.
    pub needs_all: &'s AtomicBool,
}

/// The outcome of a run as the machine tells it; `None`: the host aborted it.
pub(crate) type Ran = Option<Result<(), Failure>>;

/// A session's state that a script may change for itself alone.
struct Saved {
    db: DbIndex,
    protocol: Protocol,
}

/// The host of one run.
struct Runner<'c, 'a, 'k> {
    cx: &'c mut Cx<'a, 'k>,
    read_only: bool,
}

/// May this script run at all, as it describes itself?
pub(crate) fn check(call: &Call<'_>) -> Result<(), CommandError> {
    let stated = !call.flags.contains(ScriptFlags::UNSTATED);
    if stated && call.read_only && !call.flags.contains(ScriptFlags::NO_WRITES) {
        return Err(CommandError::text("ERR Can not execute a script with write flag using *_ro command."));
    }
    Ok(())
}

/// Runs a script whose declared keys are locked: `run` gets the host and writes the reply into its writer.
pub(crate) fn run(cx: &mut Cx, call: Call<'_>, run: impl Fn(&mut dyn Host, &mut Writer) -> Ran) -> Outcome {
    check(&call)?;
    if !cx.keys.space.holds_all() {
        cx.keys.space.relock_all();
    }
    let saved = Saved { db: cx.session.db, protocol: cx.session.protocol };
    cx.session.protocol = Protocol::Resp2;
    let (before, changes) = (cx.nested.len(), cx.nested_changes);
    let mut reply = std::mem::take(cx.reply);
    let start = reply.len();
    let read_only = call.read_only || call.flags.contains(ScriptFlags::NO_WRITES);
    let ran = run(&mut Runner { cx, read_only }, &mut reply);
    if cx.session.db != saved.db {
        cx.session.select(saved.db);
    }
    cx.session.protocol = saved.protocol;
    reply.set_protocol(saved.protocol);
    *cx.reply = reply;
    match ran {
        Some(Ok(())) => {}
        Some(Err(failure)) => {
            cx.reply.truncate(start);
            fail(cx, &failure);
        }
        None => {
            cx.reply.truncate(start);
            fail(
                cx,
                &Failure {
                    text: b"ERR Script killed by user with SCRIPT KILL.".to_vec(),
                    ..Failure::default()
                },
            );
        }
    }
    // What the commands did stands in `nested` already, and is journaled as one transaction.
    let changed = cx.nested.len() > before || cx.nested_changes > changes;
    cx.extra_changes = (cx.nested_changes - changes).saturating_sub(1);
    Ok(if changed { Effect::Rewrite(Default::default()) } else { Effect::None })
}

/// Answers that the script ended in an error.
fn fail(cx: &mut Cx, failure: &Failure) {
    let mut text = failure.text.clone();
    if let Some((source, line)) = &failure.position {
        text.extend_from_slice(b" script: on ");
        text.extend_from_slice(source);
        text.extend_from_slice(format!(":{line}.").as_bytes());
    }
    cx.reply.error_bytes(&text);
    if !failure.is_counted {
        cx.stats.error_replies.add(1);
        cx.shared.stats.count_error(&text);
        cx.stats.command(cx.command.id).failed.add(1);
    }
}

impl Runner<'_, '_, '_> {
    /// What stands against a command here.
    fn refuse(&self, args: &[&[u8]]) -> Option<CommandError> {
        let command = match self.cx.shared.registry.lookup(args) {
            Lookup::Found(command) => command,
            Lookup::UnknownCommand => {
                return Some(CommandError::text("ERR Unknown command called from script"));
            }
            Lookup::UnknownSubcommand(container) => {
                let name = container.spec.name.to_ascii_uppercase();
                let sub = args.get(1).copied().unwrap_or_default();
                return Some(CommandError::quoting(
                    "ERR unknown subcommand '{}'. Try {} HELP.",
                    &[sub.get(..128).unwrap_or(sub), name.as_bytes()],
                ));
            }
        };
        if !command.spec.arity.accepts(args.len()) || command.spec.handler.is_none() {
            return Some(CommandError::text("ERR Wrong number of args calling command from script"));
        }
        if command.is(Flags::NOSCRIPT) {
            return Some(CommandError::text("ERR This Valkey command is not allowed from script"));
        }
        if self.read_only && (command.is(Flags::WRITE) || command.is(Flags::MAY_REPLICATE)) {
            return Some(CommandError::text("ERR Write commands are not allowed from read-only scripts."));
        }
        None
    }
}

impl Host for Runner<'_, '_, '_> {
    fn call(&mut self, args: &[&[u8]], reply: &mut Writer) -> Result<(), Abort> {
        if let Some(error) = self.refuse(args) {
            let message = error.message();
            reply.error_bytes(&message);
            self.cx.stats.error_replies.add(1);
            self.cx.shared.stats.count_error(&message);
            if let Lookup::Found(command) = self.cx.shared.registry.lookup(args) {
                self.cx.stats.command(command.id).rejected.add(1);
            }
            return Ok(());
        }
        self.cx.session.protocol = reply.protocol();
        std::mem::swap(self.cx.reply, reply);
        run_nested(self.cx, args, Origin::Script);
        std::mem::swap(self.cx.reply, reply);
        Ok(())
    }

    fn log(&mut self, level: u8, text: &[u8]) {
        self.cx.shared.host.log(Level::from_script(level), &String::from_utf8_lossy(text));
    }

    fn may_run(&mut self, args: &[&[u8]]) -> Result<bool, String> {
        match self.cx.shared.registry.lookup(args) {
            Lookup::Found(_) => Ok(true),
            _ => Err("ERR Invalid command passed to server.acl_check_cmd()".to_string()),
        }
    }

    fn set_resp(&mut self, _: u8) {}

    fn interrupt(&mut self) -> Result<(), Abort> {
        Ok(())
    }

    fn register(&mut self, _: LibraryFunction) -> Result<(), String> {
        Err("ERR server.register_function can only be called on FUNCTION LOAD command".to_string())
    }
}
