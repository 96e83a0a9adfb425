//! One run of a script: its commands pass the same checks as a client's, act under the locks of the run, and their effects
//! are one transaction.

use super::Running;
use super::busy::Slow;
use super::shebang::ScriptFlags;
use super::undo::Undo;
use crate::acl::{self, Context};
use crate::cx::Cx;
use crate::effect::{Effect, NOT_IN_LOG, NOT_TO_REPLICAS, Outcome};
use crate::error::CommandError;
use crate::evict::out_of_memory;
use crate::log::Level;
use crate::pipeline::run_found;
use crate::registry::{Command, Lookup};
use crate::session::Origin;
use crate::spec::Flags;
use kara_base::ids::DbIndex;
use kara_resp::{Protocol, Writer};
use kara_script::{Abort, Ended, Failure, Host, LibraryFunction};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What kind of command runs the script.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'s> {
    pub flags: ScriptFlags,
    /// EVAL_RO and its like.
    pub read_only: bool,
    /// Set when it turns out that the declared keys aren't all.
    pub needs_all: &'s AtomicBool,
    pub what: Running,
    /// The script's SHA1 or the function's name.
    pub name: &'s [u8],
}

/// Commands between two looks at the clock: they take time that the machine's count of instructions doesn't see.
const CALLS_PER_LOOK: u32 = 256;

/// The outcome of a run as the machine tells it; `None`: the host aborted it.
pub(crate) type Ran = Option<Result<Ended, Failure>>;

/// A session's state that a script may change for itself alone.
struct Saved {
    db: DbIndex,
    protocol: Protocol,
}

/// The host of one run.
pub(super) struct Runner<'c, 'a, 'k> {
    pub(super) cx: &'c mut Cx<'a, 'k>,
    read_only: bool,
    /// It says of itself that it may run where memory is full, or its commands are our primary's.
    may_fill: bool,
    pub(super) what: Running,
    pub(super) name: &'c [u8],
    pub(super) wrote: bool,
    pub(super) slow: Slow,
    undo: Undo,
    calls: u32,
    /// The run is given up, to begin again under all locks.
    restart: bool,
}

/// May this script run at all, as it describes itself?
pub(crate) fn check(call: &Call<'_>) -> Result<(), CommandError> {
    let stated = !call.flags.contains(ScriptFlags::UNSTATED);
    if stated && call.read_only && !call.flags.contains(ScriptFlags::NO_WRITES) {
        return Err(CommandError::text("ERR Can not execute a script with write flag using *_ro command."));
    }
    Ok(())
}

/// Runs a script whose declared keys are locked: `run` gets the host and writes the reply into its writer; `stopped_at`
/// tells where an aborted run was.
pub(crate) fn run(
    cx: &mut Cx,
    call: Call<'_>,
    run: impl Fn(&mut dyn Host, &mut Writer) -> Ran,
    stopped_at: impl Fn() -> Option<(Vec<u8>, i64)>,
) -> Outcome {
    check(&call)?;
    // Scripts that state their flags were asked before.
    if call.flags.contains(ScriptFlags::UNSTATED)
        && cx.session.origin == Origin::Client
        && cx.shared.replication.is_stale(cx.config)
    {
        return Err(crate::replication::STALE);
    }
    let is_lone = cx.keys.space.is_single_shard();
    let at_once =
        is_lone || cx.origin != Origin::Client || call.needs_all.load(Relaxed) || Undo::is_heard(cx);
    if at_once && !cx.keys.space.try_relock_all() {
        return Err(cx.shared.scripts.busy_error());
    }
    let saved = Saved { db: cx.session.db, protocol: cx.session.protocol };
    let (before, changes) = (cx.nested.len(), cx.nested_changes);
    let may_fill =
        call.flags.contains(ScriptFlags::ALLOW_OOM) || matches!(cx.session.origin, Origin::Primary);
    let mut reply = std::mem::take(cx.reply);
    let start = reply.len();
    loop {
        cx.session.protocol = Protocol::Resp2;
        cx.session.left_out = 0;
        let undo = Undo::begin(cx);
        let mut runner = Runner {
            cx,
            read_only: call.read_only || call.flags.contains(ScriptFlags::NO_WRITES),
            may_fill,
            what: call.what,
            name: call.name,
            wrote: false,
            slow: Slow::default(),
            undo,
            calls: 0,
            restart: false,
        };
        let ran = run(&mut runner, &mut reply);
        let killed = runner.end_busy();
        let (restart, undo) = (runner.restart, runner.undo);
        if cx.session.db != saved.db {
            cx.session.select(saved.db);
        }
        cx.session.protocol = saved.protocol;
        cx.session.left_out = 0;
        reply.set_protocol(saved.protocol);
        if restart {
            // It needs what isn't locked: all of it again, under all locks, and so from now on.
            if !Undo::is_heard(cx) {
                call.needs_all.store(true, Relaxed);
            }
            undo.roll_back(cx);
            reply.truncate(start);
            if cx.keys.space.try_relock_all() {
                continue;
            }
            *cx.reply = reply;
            return Err(cx.shared.scripts.busy_error());
        }
        *cx.reply = reply;
        match ran {
            Some(Ok(ended)) => {
                if let Some([b'-', text @ ..]) = cx.reply.as_bytes().get(start..) {
                    let text = text.strip_suffix(b"\r\n").unwrap_or(text).to_vec();
                    count_failure(cx, &text, ended == Ended::Counted);
                }
            }
            Some(Err(failure)) => {
                cx.reply.truncate(start);
                fail(cx, &failure);
            }
            None => {
                cx.reply.truncate(start);
                let text = killed.unwrap_or("ERR The script was stopped").as_bytes().to_vec();
                fail(cx, &Failure { text, position: stopped_at(), is_counted: false });
            }
        }
        break;
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
    count_failure(cx, &text, failure.is_counted);
}

/// Counts an error for the statistics; `is_counted`: the command that it came from was.
fn count_failure(cx: &Cx, text: &[u8], is_counted: bool) {
    if !is_counted {
        cx.stats.error_replies.add(1);
        cx.shared.stats.count_script_error(text);
    }
    cx.stats.command(cx.command.id).failed.add(1);
}

impl Runner<'_, '_, '_> {
    /// The command, or what stands against it here.
    fn admit(&mut self, args: &[&[u8]]) -> Result<Command, CommandError> {
        let command = match self.cx.shared.registry.lookup(args) {
            Lookup::Found(command) => command,
            Lookup::UnknownCommand => {
                return Err(CommandError::text("ERR Unknown command called from script"));
            }
            Lookup::UnknownSubcommand(container) => {
                let name = container.spec.name.to_ascii_uppercase();
                let sub = args.get(1).copied().unwrap_or_default();
                return Err(CommandError::quoting(
                    "ERR unknown subcommand '{}'. Try {} HELP.",
                    &[sub.get(..128).unwrap_or(sub), name.as_bytes()],
                ));
            }
        };
        if !command.spec.arity.accepts(args.len()) || command.spec.handler.is_none() {
            return Err(CommandError::text("ERR Wrong number of args calling command from script"));
        }
        if command.is(Flags::NOSCRIPT) && !self.cx.shared.scripts.allows_all.load(Relaxed) {
            return Err(CommandError::text("ERR This Valkey command is not allowed from script"));
        }
        if self.read_only && (command.is(Flags::WRITE) || command.is(Flags::MAY_REPLICATE)) {
            return Err(CommandError::text("ERR Write commands are not allowed from read-only scripts."));
        }
        // Once it has written, a script is let to its end.
        if self.cx.memory_is_full && !self.wrote && !self.may_fill && command.is(Flags::DENYOOM) {
            return Err(out_of_memory());
        }
        if self.cx.session.origin == Origin::Client {
            self.admit_now(command)?;
        }
        let cx = &mut *self.cx;
        let (shared, context, now_ms) = (cx.shared, Context::Script, cx.now_ms);
        acl::may(shared, cx.config, cx.stats, cx.session, command, args, context, now_ms).map_err(
            |denied| {
                let text = denied.text(cx.session.account().name(), command);
                CommandError::Bytes([b"ERR ACL failure in script: ", &text[..]].concat())
            },
        )?;
        Ok(command)
    }

    /// What may stand against a client's command at this moment; a script is no write by itself.
    fn admit_now(&self, command: Command) -> Result<(), CommandError> {
        let shared = self.cx.shared;
        if (shared.replication.gate() != 0 || self.cx.config.min_replicas_to_write != 0)
            && let Some(error) = shared.replication.script_refusal(command, self.cx.config, self.wrote)
        {
            return Err(error);
        }
        if shared.persist.stopped.load(Relaxed) != 0
            && !self.wrote
            && command.is(Flags::WRITE)
            && let Some(text) = shared.persist.refusal(self.cx.config)
        {
            return Err(CommandError::owned(text));
        }
        Ok(())
    }
}

impl Host for Runner<'_, '_, '_> {
    fn call(&mut self, args: &[&[u8]], reply: &mut Writer) -> Result<(), Abort> {
        self.calls = self.calls.wrapping_add(1);
        if self.calls.is_multiple_of(CALLS_PER_LOOK) {
            self.pass_time()?;
        }
        let command = match self.admit(args) {
            Ok(command) => command,
            Err(error) => {
                let message = error.message();
                reply.error_bytes(&message);
                self.cx.stats.error_replies.add(1);
                self.cx.shared.stats.count_error(&message);
                if let Lookup::Found(command) = self.cx.shared.registry.lookup(args) {
                    self.cx.stats.command(command.id).rejected.add(1);
                }
                return Ok(());
            }
        };
        if !self.cx.keys.space.holds_all() && !self.undo.prepare(self.cx, command, args) {
            self.restart = true;
            return Err(Abort);
        }
        if !self.wrote && command.spec.flags.intersects(Flags::WRITE | Flags::MAY_REPLICATE) {
            self.may_write()?;
        }
        self.cx.session.protocol = reply.protocol();
        std::mem::swap(self.cx.reply, reply);
        run_found(self.cx, command, &[], args, Origin::Script);
        std::mem::swap(self.cx.reply, reply);
        Ok(())
    }

    fn log(&mut self, level: u8, text: &[u8]) {
        self.cx.shared.host.log(Level::from_script(level), &String::from_utf8_lossy(text));
    }

    fn may_run(&mut self, args: &[&[u8]]) -> Result<bool, String> {
        match self.cx.shared.registry.lookup(args) {
            Lookup::Found(command) => {
                let session = &mut *self.cx.session;
                let db = session.db;
                let rights = session.restrictions(&self.cx.shared.acl);
                Ok(rights.is_none_or(|rights| acl::check(rights, command, args, db).is_ok()))
            }
            _ => Err("ERR Invalid command passed to server.acl_check_cmd()".to_string()),
        }
    }

    fn set_resp(&mut self, _: u8) {}

    fn set_repl(&mut self, in_log: bool, to_replicas: bool) {
        let left = |wanted: bool, bit| if wanted { 0 } else { bit };
        self.cx.session.left_out = left(in_log, NOT_IN_LOG) | left(to_replicas, NOT_TO_REPLICAS);
    }

    fn interrupt(&mut self) -> Result<(), Abort> {
        self.pass_time()
    }

    fn register(&mut self, _: LibraryFunction) -> Result<(), String> {
        Err("ERR server.register_function can only be called on FUNCTION LOAD command".to_string())
    }
}
