//! A script that goes on and on: other clients are answered meanwhile, with -BUSY or by the few commands that may run then.
//!
//! The script's own worker serves its connections from inside the script (see [`Outside`]); the others refuse at admission,
//! and a command that waits for a lock of the script's gives up.

use super::run::Runner;
use super::{Running, RunningScript, Scripts};
use crate::acl::{self, Context};
use crate::blocking::WaitFor;
use crate::cx::Cx;
use crate::error::CommandError;
use crate::events::Events;
use crate::keys::Keys;
use crate::log::Level;
use crate::registry::{Lookup, Role};
use crate::session::{Origin, Session};
use crate::spec::{Flags, Locks};
use kara_resp::Writer;
use kara_script::Abort;
use scoped_tls_hkt::scoped_thread_local;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Writes the reply to a request of a session.
pub type Answer<'a> = &'a mut dyn FnMut(&mut Session, &[&[u8]], &mut Writer);

/// What stands around the command that runs: the worker's other connections.
pub trait Outside {
    /// Looks once, without waiting, for new connections and requests, and has `answer` write each one's reply.
    fn turn(&mut self, answer: Answer<'_>);
}

scoped_thread_local!(static mut OUTSIDE: for<'a> &'a mut (dyn Outside + 'a));

/// Runs a command that may be, or hold, a script, with the connections at hand that are to be served should it be slow.
pub fn beside<R>(outside: &mut dyn Outside, run: impl FnOnce() -> R) -> R {
    OUTSIDE.set(outside, run)
}

/// Whether a request may run a script, by its first word alone: EVAL, EVALSHA, FCALL, EXEC and some more. And DEBUG
/// LOADAOF, in whose log there may be some.
#[inline]
pub fn may_run_scripts(args: &[&[u8]]) -> bool {
    match args.first().and_then(|name| name.first()) {
        Some(b'e' | b'E' | b'f' | b'F') => true,
        Some(b'd' | b'D') => args.get(1).is_some_and(|word| word.eq_ignore_ascii_case(b"loadaof")),
        _ => false,
    }
}

/// How a slow script and those who would kill it agree.
const CLEAN: u8 = 0;
const WROTE: u8 = 1;
const KILLED: u8 = 2;

/// The slow side of one run.
#[derive(Debug, Default)]
pub(crate) struct Slow {
    since: Option<Instant>,
    /// Set once the script is known to all as busy.
    state: Option<Arc<AtomicU8>>,
    number: u64,
    was_killed: bool,
    last_turn: Option<Instant>,
}

/// How often a busy script's worker looks after its other connections.
const TURN_PAUSE: Duration = Duration::from_millis(1);

impl Scripts {
    /// Whether some script is known to be slow.
    #[inline]
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Relaxed) > 0
    }

    /// What everybody else is told meanwhile.
    #[cold]
    pub(crate) fn busy_error(&self) -> CommandError {
        let what = self.running.lock().first().map_or(Running::Script, |script| script.what);
        busy_error(what)
    }

    /// SCRIPT KILL, FUNCTION KILL.
    pub(crate) fn kill(&self, what: Running) -> Result<(), CommandError> {
        let running = self.running.lock();
        let Some(script) = running.iter().find(|script| script.what == what) else {
            return Err(match running.first() {
                None => CommandError::text("NOTBUSY No scripts in execution right now."),
                Some(other) => busy_error(other.what),
            });
        };
        match script.state.compare_exchange(CLEAN, KILLED, SeqCst, SeqCst) {
            Ok(_) | Err(KILLED) => Ok(()),
            Err(_) => Err(CommandError::text(
                "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait \
                 the script termination or kill the server in a hard way using the SHUTDOWN NOSAVE command.",
            )),
        }
    }
}

fn busy_error(what: Running) -> CommandError {
    CommandError::text(match what {
        Running::Script => {
            "BUSY Valkey is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
        }
        Running::Function => {
            "BUSY Valkey is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE."
        }
    })
}

impl Runner<'_, '_, '_> {
    /// Called by the machine every 100,000 instructions.
    pub(super) fn pass_time(&mut self) -> Result<(), Abort> {
        let now = Instant::now();
        let since = *self.slow.since.get_or_insert(now);
        // As it is now: the script may have begun under another setting.
        let threshold_ms = self.cx.shared.config.load().busy_reply_threshold;
        if threshold_ms == 0 || now.duration_since(since) < Duration::from_millis(threshold_ms) {
            return Ok(());
        }
        if self.slow.state.is_none() {
            self.become_busy(since);
        }
        if self.slow.last_turn.is_none_or(|last| now.duration_since(last) >= TURN_PAUSE) {
            self.slow.last_turn = Some(now);
            self.serve_others();
        }
        match &self.slow.state {
            Some(state) if state.load(SeqCst) == KILLED => {
                self.slow.was_killed = true;
                Err(Abort)
            }
            _ => Ok(()),
        }
    }

    /// Makes the script known as slow.
    fn become_busy(&mut self, since: Instant) {
        let shared = self.cx.shared;
        let state = Arc::new(AtomicU8::new(if self.wrote { WROTE } else { CLEAN }));
        let mut running = shared.scripts.running.lock();
        self.slow.number = running.iter().map(|script| script.number + 1).max().unwrap_or(0);
        running.push(RunningScript {
            number: self.slow.number,
            what: self.what,
            name: self.name.to_vec(),
            command: self.cx.args.iter().map(|arg| arg.to_vec()).collect(),
            since,
            state: state.clone(),
        });
        shared.scripts.busy.store(running.len(), Relaxed);
        shared.keyspace.set_held_long(true);
        drop(running);
        self.slow.state = Some(state);
        let ms = since.elapsed().as_millis();
        shared.host.log(
            Level::Warning,
            &format!(
                "Slow script detected: still in execution after {ms} milliseconds. You can try killing the script using \
                 the {} command. Script name is: {}.",
                if self.what == Running::Script { "SCRIPT KILL" } else { "FUNCTION KILL" },
                String::from_utf8_lossy(self.name)
            ),
        );
    }

    /// Before a first write: a script that is being killed must not write any more, one that wrote must not be killed.
    pub(super) fn may_write(&mut self) -> Result<(), Abort> {
        self.wrote = true;
        match &self.slow.state {
            Some(state) if state.compare_exchange(CLEAN, WROTE, SeqCst, SeqCst) == Err(KILLED) => {
                self.slow.was_killed = true;
                Err(Abort)
            }
            _ => Ok(()),
        }
    }

    /// Ends what [`Runner::pass_time`] began; the reply's text if the script was killed.
    pub(super) fn end_busy(&mut self) -> Option<&'static str> {
        if self.slow.state.take().is_some() {
            let shared = self.cx.shared;
            let mut running = shared.scripts.running.lock();
            running.retain(|script| script.number != self.slow.number);
            shared.scripts.busy.store(running.len(), Relaxed);
            shared.keyspace.set_held_long(!running.is_empty());
        }
        self.slow.was_killed.then_some(match self.what {
            Running::Script => "ERR Script killed by user with SCRIPT KILL.",
            Running::Function => "ERR Script killed by user with FUNCTION KILL.",
        })
    }

    fn serve_others(&mut self) {
        if OUTSIDE.is_set() {
            OUTSIDE.with(|outside| {
                outside.turn(&mut |session, args, reply| answer(self.cx, session, args, reply))
            });
        }
    }
}

/// Answers a request of another client while a script holds its locks.
fn answer(cx: &mut Cx, session: &mut Session, args: &[&[u8]], reply: &mut Writer) {
    reply.set_protocol(session.protocol);
    let command = match cx.shared.registry.lookup(args) {
        Lookup::Found(command) if command.spec.arity.accepts(args.len()) => command,
        Lookup::Found(command) => {
            return refuse(cx, session, reply, &CommandError::Arity(command.full_name.into()));
        }
        _ => return refuse(cx, session, reply, &crate::pipeline::unknown_command(args)),
    };
    if !session.authenticated && !command.is(Flags::NO_AUTH) {
        return refuse(cx, session, reply, &CommandError::text("NOAUTH Authentication required."));
    }
    let context = if session.multi.is_some() { Context::Multi } else { Context::TopLevel };
    if let Err(denied) = acl::may(cx.shared, cx.config, cx.stats, session, command, args, context, cx.now_ms)
    {
        let error = denied.error(session.account().name(), command);
        return refuse(cx, session, reply, &error);
    }
    if cx.shared.loading.load(Relaxed) && !command.is(Flags::LOADING) {
        return refuse(cx, session, reply, &crate::pipeline::LOADING);
    }
    // WATCH looks at keys; what the script holds can be looked at.
    let reachable =
        command.spec.key_specs.is_empty() && command.spec.locks != Locks::All || cx.keys.space.holds_all();
    let Some(handler) = command.spec.handler.filter(|_| command.is(Flags::ALLOW_BUSY) && reachable) else {
        let busy = cx.shared.scripts.busy_error();
        if command.role != Role::Exec {
            return refuse(cx, session, reply, &busy);
        }
        session.end_multi();
        session.unwatch(&cx.shared.watches);
        return refuse(cx, session, reply, &busy.ends_transaction());
    };
    let (mut nested, mut waits, mut events) = (Vec::new(), None::<WaitFor>, Events::default());
    let mut inner = Cx {
        command,
        args,
        keys: Keys {
            space: &mut *cx.keys.space,
            db: session.db,
            now_ms: cx.now_ms,
            policy: cx.keys.policy,
            access: cx.keys.access,
            rng: &mut *cx.keys.rng,
            events: &mut events,
            stats: cx.stats,
            reclaimer: cx.keys.reclaimer,
            preceding: &mut *cx.keys.preceding,
            hashed: &[],
            hashed_at: Cell::new(0),
        },
        reply,
        session,
        shared: cx.shared,
        machines: cx.machines,
        config: cx.config,
        stats: cx.stats,
        origin: Origin::Client,
        now_ms: cx.now_ms,
        outbox: &mut *cx.outbox,
        nested: &mut nested,
        waits: &mut waits,
        memory_is_full: false,
        extra_changes: 0,
        changes_counted: false,
        nested_changes: 0,
    };
    if let Err(error) = handler(&mut inner) {
        refuse(cx, session, reply, &error);
    }
    cx.stats.commands_processed.add(1);
}

fn refuse(cx: &Cx, session: &mut Session, reply: &mut Writer, error: &CommandError) {
    session.abort_multi();
    let message = error.message();
    reply.error_bytes(&message);
    cx.stats.error_replies.add(1);
    cx.shared.stats.count_error(&message);
}
