//! Stages lookup and admit: from a name to a command that may run now, for this client, or the refusal.

use super::Engine;
use super::lock::Ahead;
use crate::acl::{self, Context};
use crate::clients::{ClientFlags, ClientKind};
use crate::commands::scripting::{flags_of, stated_flags};
use crate::config::Access;
use crate::error::CommandError;
use crate::log::Level;
use crate::registry::{Command, CommandId, Lookup, Role};
use crate::replication::Elsewhere;
use crate::scripting::shebang::ScriptFlags;
use crate::session::{Origin, Session};
use crate::shared::PauseMode;
use crate::spec::Flags;
use kara_resp::Writer;
use std::sync::atomic::Ordering::Relaxed;

/// What all are told while a data set is loaded, but for a few commands.
pub(crate) const LOADING: CommandError =
    CommandError::text("LOADING Valkey is loading the dataset in memory");

/// A replica that goes on without its disk says so this often, ms.
const TELLING_MS: i64 = 10_000;

/// A command that exists, with the right number of arguments.
pub(super) struct Known(Command);

/// A command that may run now.
pub(super) struct Admitted(Command);

impl Admitted {
    pub(super) fn command(&self) -> Command {
        self.0
    }
}

/// The outcome of admission.
pub(super) enum Verdict {
    Run(Admitted),
    Queued,
    Postpone,
}

impl Engine {
    /// Stage: name -> command; arity.
    #[inline]
    pub(super) fn lookup(
        &self,
        ahead: Option<Ahead>,
        args: &[&[u8]],
    ) -> Result<Known, (Option<CommandId>, CommandError)> {
        if let Some(Ahead { command, .. }) = ahead
            && command.spec.subcommands.is_empty()
            && command.spec.arity.accepts(args.len())
            && command.spec.handler.is_some()
        {
            return Ok(Known(command));
        }
        self.full_lookup(args)
    }

    fn full_lookup(&self, args: &[&[u8]]) -> Result<Known, (Option<CommandId>, CommandError)> {
        let command = match self.shared.registry.lookup(args) {
            Lookup::Found(command) => command,
            Lookup::UnknownCommand => return Err((None, unknown_command(args))),
            Lookup::UnknownSubcommand(container) => {
                let sub = args.get(1).copied().unwrap_or_default();
                let container = container.spec.name.to_ascii_uppercase();
                let words = [clipped(sub), container.as_bytes()];
                return Err((
                    None,
                    CommandError::quoting("ERR unknown subcommand '{}'. Try {} HELP.", &words),
                ));
            }
        };
        if !command.spec.arity.accepts(args.len()) || command.spec.handler.is_none() {
            return Err((Some(command.id), CommandError::Arity(command.full_name.into())));
        }
        Ok(Known(command))
    }

    /// Stage: may this command run, for this client, now?
    pub(super) fn admit(
        &self,
        known: Known,
        hash: Option<u64>,
        session: &mut Session,
        args: &[&[u8]],
    ) -> Result<Verdict, (Option<CommandId>, CommandError)> {
        let command = known.0;
        session.info.last_command.store(command.id.0, Relaxed);
        let refuse = |error| Err((Some(command.id), error));
        if !session.authenticated && !command.is(Flags::NO_AUTH) {
            return refuse(CommandError::text("NOAUTH Authentication required."));
        }
        if session.multi.is_some() && command.is(Flags::NO_MULTI) {
            let text = format!("ERR Command '{}' not allowed inside a transaction", command.full_name);
            return refuse(CommandError::owned(text));
        }
        if let Some(error) = self.protected(command, session) {
            return refuse(error);
        }
        if session.restrictions(&self.shared.acl).is_some()
            && let Err(denied) = self.check_rights(command, session, args)
        {
            return refuse(denied);
        }
        if self.evictor.full && session.origin != Origin::Primary && self.wants_memory(command, session, args)
        {
            return refuse(crate::evict::out_of_memory());
        }
        if self.evictor.behind
            && session.origin == Origin::Client
            && self.wants_memory(command, session, args)
        {
            return Ok(Verdict::Postpone);
        }
        if session.is_subscribed()
            && session.protocol == kara_resp::Protocol::Resp2
            && !allowed_while_subscribed(command)
        {
            let text = format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed \
                 in this context",
                command.full_name
            );
            return refuse(CommandError::owned(text));
        }
        if session.monitor
            && command.spec.flags.intersects(Flags::READONLY | Flags::WRITE | Flags::MAY_REPLICATE)
        {
            return refuse(CommandError::text("ERR Replica can't interact with the keyspace"));
        }
        match self.redirection(command, session) {
            None if self.takes_over_later(command, args) => return Ok(Verdict::Postpone),
            None => {}
            Some(Elsewhere::Later) => return Ok(Verdict::Postpone),
            Some(Elsewhere::To(error)) => return refuse(error),
        }
        if let Some(error) = self.role_refusal(command, session, args) {
            return refuse(error);
        }
        if self.shared.loading.load(Relaxed)
            && !command.is(Flags::LOADING)
            && session.origin == Origin::Client
        {
            return refuse(LOADING);
        }
        // What our primary did must be done here, too: it waits for the locks instead.
        let is_told = session.origin == Origin::Primary;
        if self.shared.scripts.is_busy() && !command.is(Flags::ALLOW_BUSY) && !is_told {
            return refuse(self.shared.scripts.busy_error());
        }
        if self.shared.persist.stopped.load(Relaxed) != 0
            && (flags_of(&self.shared, command, args).contains(Flags::WRITE) || command.full_name == "ping")
            && let Some(text) = self.shared.persist.refusal(&self.config)
        {
            match session.origin {
                Origin::Client => return refuse(CommandError::owned(text)),
                Origin::Primary => self.go_on_without_disk(command),
                _ => {}
            }
        }
        if self.is_paused(command, session, args) {
            return Ok(Verdict::Postpone);
        }
        if let Some(multi) = session.multi.as_mut().filter(|_| !runs_inside_multi(command)) {
            multi.queue.push(command, args, hash);
            session.info.multi.store(multi.queue.len() as i64, Relaxed);
            session.info.multi_bytes.store(multi.queue.memory_usage() as u64, Relaxed);
            return Ok(Verdict::Queued);
        }
        Ok(Verdict::Run(Admitted(command)))
    }

    /// A command of our primary can't be refused, and can't be brought to the disk: `replica-ignore-disk-write-errors`
    /// says whether that is a replica's end.
    #[cold]
    fn go_on_without_disk(&self, command: Command) {
        if !self.config.replica_ignore_disk_write_errors && command.full_name != "ping" {
            self.shared.host.log(
                Level::Warning,
                "Replica was unable to write command to disk (replica-ignore-disk-write-errors no).",
            );
            std::process::abort();
        }
        if self.now_ms >= self.shared.persist.told_ms.load(Relaxed).saturating_add(TELLING_MS) {
            self.shared.persist.told_ms.store(self.now_ms, Relaxed);
            let text = "Replica is applying a command even though it is unable to write to disk.";
            self.shared.host.log(Level::Warning, text);
        }
    }

    /// Whether the user may do this; otherwise it is noted.
    #[cold]
    fn check_rights(
        &self,
        command: Command,
        session: &mut Session,
        args: &[&[u8]],
    ) -> Result<(), CommandError> {
        let context = if session.multi.is_some() { Context::Multi } else { Context::TopLevel };
        let stats = self.shared.stats.worker(self.worker);
        let denied =
            acl::may(&self.shared, &self.config, stats, session, command, args, context, self.now_ms);
        denied.map_err(|denied| denied.error(session.account().name(), command))
    }

    /// DEBUG and MODULE want to be enabled by configuration.
    fn protected(&self, command: Command, session: &Session) -> Option<CommandError> {
        let setting = match command.role {
            Role::Debug => self.config.enable_debug_command,
            Role::Module if matches!(command.full_name, "module|help" | "module|list") => return None,
            Role::Module => self.config.enable_module_command,
            Role::Plain | Role::Exec | Role::Touch | Role::Script => return None,
        };
        if setting == Access::Yes || setting == Access::Local && is_local(session) {
            return None;
        }
        let name = if command.role == Role::Debug { "DEBUG" } else { "MODULE" };
        let option = name.to_ascii_lowercase();
        Some(CommandError::owned(format!(
            "ERR {name} command not allowed. If the enable-{option}-command option is set to \"local\", you can run \
             it from a local connection, otherwise you need to set this option in the configuration file, and then \
             restart the server."
        )))
    }

    fn is_paused(&self, command: Command, session: &Session, args: &[&[u8]]) -> bool {
        match self.shared.pause.mode(self.now_ms) {
            PauseMode::Off => false,
            _ if session.info.kind() == ClientKind::Replica || session.monitor => false,
            _ if session.origin != Origin::Client => false,
            PauseMode::All => true,
            PauseMode::Writes if command.role == Role::Exec => self.queued_writes(session),
            PauseMode::Writes => self.may_replicate(command, args),
        }
    }

    /// Whether CLIENT PAUSE holds back a command of our primary's stream, as it does those of clients.
    pub(crate) fn holds_back(&self, args: &[&[u8]]) -> bool {
        match self.shared.pause.asked_for(self.now_ms) {
            PauseMode::Off => false,
            PauseMode::All => true,
            PauseMode::Writes => match self.shared.registry.lookup(args) {
                Lookup::Found(command) => command.role == Role::Exec || self.may_replicate(command, args),
                _ => false,
            },
        }
    }

    /// Whether replicas may hear of the command; a script says so itself.
    fn may_replicate(&self, command: Command, args: &[&[u8]]) -> bool {
        match stated_flags(&self.shared, command.full_name, args) {
            Some(flags) => !flags.contains(ScriptFlags::NO_WRITES),
            None => command.spec.flags.intersects(Flags::WRITE | Flags::MAY_REPLICATE),
        }
    }

    /// Whether the command may need more memory; a script says so itself.
    fn wants_memory(&self, command: Command, session: &Session, args: &[&[u8]]) -> bool {
        if command.role == Role::Exec {
            let mut queued = session.multi.iter().flat_map(|multi| multi.queue.iter());
            return queued.any(|queued| self.states_memory(queued.command, &queued.args));
        }
        self.states_memory(command, args)
    }

    fn states_memory(&self, command: Command, args: &[&[u8]]) -> bool {
        match stated_flags(&self.shared, command.full_name, args) {
            Some(flags) => !flags.intersects(ScriptFlags::ALLOW_OOM | ScriptFlags::NO_WRITES),
            None => command.is(Flags::DENYOOM),
        }
    }

    /// Whether EXEC would write.
    fn queued_writes(&self, session: &Session) -> bool {
        let mut queued = session.multi.iter().flat_map(|multi| multi.queue.iter());
        queued.any(|queued| self.may_replicate(queued.command, &queued.args))
    }

    /// Answers a command that was not run.
    pub(super) fn refuse(
        &mut self,
        command: Option<CommandId>,
        error: CommandError,
        session: &mut Session,
        reply: &mut Writer,
    ) {
        let error = if command.is_some_and(|id| self.shared.registry.get(id).full_name == "exec") {
            // EXEC that can't run ends the transaction.
            session.end_multi();
            session.unwatch(&self.shared.watches);
            if error.message().starts_with(b"REDIRECT ") {
                // That is for the client's library, not for its user.
                error
            } else {
                error.ends_transaction()
            }
        } else {
            session.abort_multi();
            error
        };
        let message = error.message();
        reply.set_protocol(session.protocol);
        reply.error_bytes(&message);
        let stats = self.shared.stats.worker(self.worker);
        stats.error_replies.add(1);
        self.shared.stats.count_error(&message);
        if let Some(id) = command {
            stats.command(id).rejected.add(1);
        }
    }
}

/// Commands that act on the transaction itself.
fn runs_inside_multi(command: Command) -> bool {
    matches!(command.full_name, "exec" | "discard" | "multi" | "watch" | "quit" | "reset")
}

fn allowed_while_subscribed(command: Command) -> bool {
    matches!(
        command.full_name,
        "ping"
            | "subscribe"
            | "unsubscribe"
            | "psubscribe"
            | "punsubscribe"
            | "ssubscribe"
            | "sunsubscribe"
            | "quit"
            | "reset"
    )
}

/// As much of a client's word as errors quote.
fn clipped(word: &[u8]) -> &[u8] {
    word.get(..128).unwrap_or(word)
}

pub(crate) fn unknown_command(args: &[&[u8]]) -> CommandError {
    let name = args.first().copied().unwrap_or_default();
    let mut listed = Vec::new();
    for arg in args.iter().skip(1) {
        if listed.len() >= 128 {
            break;
        }
        let room = 128 - listed.len();
        listed.push(b'\'');
        listed.extend(arg.iter().take(room).take_while(|byte| **byte != 0));
        listed.extend_from_slice(b"' ");
    }
    CommandError::quoting("ERR unknown command '{}', with args beginning with: {}", &[clipped(name), &listed])
}

/// Whether the client is on this host.
pub(crate) fn is_local(session: &Session) -> bool {
    let addr = &session.info.addr;
    session.info.flags().contains(ClientFlags::UNIX_SOCKET)
        || addr.starts_with("127.")
        || addr.starts_with("[::1]")
}
