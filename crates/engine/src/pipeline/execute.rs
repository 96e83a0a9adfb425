//! Stage execute: the handler under the locks, for requests, queued commands, scripts and log files; its statistics.

use super::Engine;
use super::lock::lone_key;
use crate::cx::Cx;
use crate::effect::{Effect, OwnedCommand};
use crate::error::CommandError;
use crate::keys::Keys;
use crate::observe::Call;
use crate::queue::Queued;
use crate::registry::{Command, Lookup, Role};
use crate::session::{Origin, Session};
use crate::spec::Flags;
use crate::told;
use kara_keyspace::{HashedKey, Locked};
use kara_resp::Writer;
use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;

/// Time is read once per turn, unless a command takes this long.
const SLOW_NS: u64 = 1_000_000;

impl Engine {
    /// Runs a command of an append-only file: what was admitted and journaled once. Keys whose time has come are still
    /// there, as they were then. The error is the name of a command that isn't known.
    pub(crate) fn replay(
        &mut self,
        space: &mut Locked<'_>,
        session: &mut Session,
        args: &[&[u8]],
        reply: &mut Writer,
    ) -> Result<(), String> {
        let unknown = || String::from_utf8_lossy(args.first().copied().unwrap_or_default()).into_owned();
        let Lookup::Found(command) = self.shared.registry.lookup(args) else { return Err(unknown()) };
        if !command.spec.arity.accepts(args.len()) {
            return Err(unknown());
        }
        let policy = self.policy;
        self.policy.delete_expired = false;
        self.policy.see_expired = true;
        self.policy.journal_on = false;
        if let Ok(hashed) = self.lock(command, None, space, session, args) {
            self.execute(command, Origin::AofLoad, space, &hashed, session, args, reply);
        }
        self.policy = policy;
        self.preceding.clear();
        self.nested.clear();
        self.waits.take();
        self.deliver_events(space, None);
        Ok(())
    }

    /// Stage: the handler, under the locks.
    pub(crate) fn execute(
        &mut self,
        command: Command,
        origin: Origin,
        space: &mut Locked<'_>,
        hashed: &[HashedKey<'_>],
        session: &mut Session,
        args: &[&[u8]],
        reply: &mut Writer,
    ) -> Effect {
        let shared = &*self.shared;
        let stats = shared.stats.worker(self.worker);
        self.events.own = origin != Origin::Primary && shared.replication.is_writable_replica();
        self.events.look(shared);
        let mut policy = self.policy;
        policy.touch = !session.no_touch || command.role == Role::Touch;
        // Time stands still for the data, too, while clients are held back.
        policy.delete_expired &= !self.is_pausing();
        if self.config.import_mode {
            // What is imported may have passed on its way: whoever imports sees it, and nothing removes it.
            policy.delete_expired = false;
            policy.see_expired |= session.import_source;
        }
        if shared.replication.is_replica() {
            // Of what a primary doesn't know, a writable replica disposes itself.
            policy.delete_expired &=
                origin == Origin::Client && command.is(Flags::WRITE) && !self.config.replica_read_only;
            policy.see_expired |= origin == Origin::Primary;
        }
        reply.set_protocol(session.protocol);
        let mut cx = Cx {
            command,
            args,
            keys: Keys {
                space,
                db: session.db,
                now_ms: self.now_ms,
                policy,
                access: self.access,
                rng: &mut self.rng,
                events: &mut self.events,
                stats,
                reclaimer: &shared.reclaimer,
                preceding: &mut self.preceding,
                hashed,
                hashed_at: Cell::new(0),
            },
            reply,
            session,
            shared,
            machines: &self.machines,
            config: &self.config,
            stats,
            origin,
            now_ms: self.now_ms,
            outbox: &mut self.outbox,
            nested: &mut self.nested,
            waits: &mut self.waits,
            memory_is_full: self.evictor.full,
            extra_changes: 0,
            changes_counted: false,
            nested_changes: 0,
        };
        let outcome = match command.spec.handler {
            Some(handler) => handler(&mut cx),
            None => Err(CommandError::Arity(command.full_name.into())),
        };
        match outcome {
            Ok(effect) => {
                if effect.changed() && !cx.changes_counted {
                    stats.changes.add(1 + cx.extra_changes);
                }
                effect
            }
            Err(error) => {
                let message = error.message();
                cx.reply.error_bytes(&message);
                stats.error_replies.add(1);
                shared.stats.count_error(&message);
                stats.command(command.id).failed.add(1);
                Effect::None
            }
        }
    }

    /// Statistics of a command that ran.
    pub(super) fn account(
        &mut self,
        command: Command,
        session: &Session,
        args: &[&[u8]],
        reply_bytes: usize,
    ) {
        let now = self.ticker.now();
        let ns = self.ticker.ns_between(self.last_tick, now);
        self.last_tick = now;
        if ns >= SLOW_NS {
            self.catch_up(now);
        }
        let stats = self.shared.stats.worker(self.worker);
        stats.commands_processed.add(1);
        stats.command(command.id).record(ns, self.config.latency_tracking);
        stats.eventloop_command_ns.add(ns);
        let call = Call { command, args, client: &session.info, ns, reply_bytes, at_s: self.now_ms / 1000 };
        self.shared.observe.note(&self.config, &call);
        let info = &session.info;
        info.commands.store(info.commands.load(Relaxed) + 1, Relaxed);
    }
}

/// Runs a command that MULTI queued.
pub(crate) fn run_queued(cx: &mut Cx, queued: &Queued) {
    let key = queued.args.get(lone_key(queued.command, queued.args.get(2).copied()));
    let hashed = key.zip(queued.hash).map(|(key, hash)| HashedKey { bytes: key, hash });
    run_found(cx, queued.command, hashed.as_slice(), &queued.args, Origin::Exec);
}

pub(crate) fn run_found(
    cx: &mut Cx,
    command: Command,
    hashed: &[HashedKey<'_>],
    args: &[&[u8]],
    origin: Origin,
) {
    cx.keys.events.look(cx.shared);
    // SELECT within a transaction holds for what comes behind it.
    let db = cx.session.db;
    let before = cx.shared.ticker.now();
    let start = cx.reply.len();
    let (effect, changes) = {
        let mut inner = Cx {
            command,
            args,
            keys: Keys {
                space: &mut *cx.keys.space,
                db,
                now_ms: cx.now_ms,
                policy: cx.keys.policy,
                access: cx.keys.access,
                rng: &mut *cx.keys.rng,
                events: &mut *cx.keys.events,
                stats: cx.stats,
                reclaimer: cx.keys.reclaimer,
                preceding: &mut *cx.keys.preceding,
                hashed,
                hashed_at: Cell::new(0),
            },
            reply: &mut *cx.reply,
            session: &mut *cx.session,
            shared: cx.shared,
            machines: cx.machines,
            config: cx.config,
            stats: cx.stats,
            origin,
            now_ms: cx.now_ms,
            outbox: &mut *cx.outbox,
            nested: &mut *cx.nested,
            waits: &mut *cx.waits,
            memory_is_full: cx.memory_is_full,
            extra_changes: 0,
            changes_counted: false,
            nested_changes: 0,
        };
        inner.keys.policy.touch = !inner.session.no_touch || command.role == Role::Touch;
        let outcome = match command.spec.handler {
            Some(handler) if command.spec.arity.accepts(args.len()) => handler(&mut inner),
            _ => Err(CommandError::Arity(command.full_name.into())),
        };
        let effect = outcome.unwrap_or_else(|error| {
            let message = error.message();
            inner.reply.error_bytes(&message);
            inner.stats.error_replies.add(1);
            inner.shared.stats.count_error(&message);
            inner.stats.command(command.id).failed.add(1);
            Effect::None
        });
        let changes = if effect.changed() && !inner.changes_counted { 1 + inner.extra_changes } else { 0 };
        (effect, changes)
    };
    told::nested(cx, command, args, origin);
    let ns = cx.shared.ticker.ns_between(before, cx.shared.ticker.now());
    cx.stats.commands_processed.add(1);
    cx.stats.command(command.id).record(ns, cx.config.latency_tracking);
    let reply_bytes = cx.reply.len().saturating_sub(start);
    let call = Call { command, args, client: &cx.session.info, ns, reply_bytes, at_s: cx.now_ms / 1000 };
    cx.shared.observe.note(cx.config, &call);
    cx.nested_changes += changes;
    if cx.keys.policy.journal_on {
        let left_out = cx.session.left_out;
        cx.nested.append(cx.keys.preceding);
        match effect {
            Effect::None => {}
            Effect::Verbatim => cx.nested.push((db, OwnedCommand::from_args(args).without(left_out))),
            Effect::Rewrite(list) => {
                cx.nested.extend(list.into_iter().map(|command| (db, command.without(left_out))));
            }
        }
    }
}
