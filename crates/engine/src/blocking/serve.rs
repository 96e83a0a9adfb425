//! Beginning, serving and ending waits.

use super::{AtTimeout, Interest, Place, Unblock, Wait, WaitFor, Waiter};
use crate::acl::{self, Context};
use crate::clients::ClientFlags;
use crate::cx::Cx;
use crate::events::What;
use crate::observe::Call;
use crate::pipeline::{Engine, apply_reply_mode};
use crate::registry::Command;
use crate::session::{Origin, Session};
use crate::shared::{Message, PauseMode};
use kara_base::ids::DbIndex;
use kara_keyspace::{HashedKey, Kind, Locked};
use kara_resp::Writer;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

const UNBLOCKED: &str = "UNBLOCKED client unblocked via CLIENT UNBLOCK";

/// Keys that became ready and were not served yet; empty between commands.
#[derive(Debug, Default)]
pub(crate) struct ReadyKeys {
    queue: VecDeque<(DbIndex, Vec<u8>)>,
    /// Those whose waiters need shards that aren't held.
    deferred: Vec<(DbIndex, Vec<u8>)>,
}

impl ReadyKeys {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

/// Beginning to wait, and being served.
impl Engine {
    /// The handler found nothing: the client waits, from before the command's locks are released.
    pub(crate) fn begin_wait(
        &mut self,
        wait: WaitFor,
        command: Command,
        session: &mut Session,
        hashed: &[HashedKey<'_>],
        args: &[&[u8]],
    ) {
        let now = self.ticker.now();
        let first_ns = self.ticker.ns_between(self.last_tick, now);
        self.last_tick = now;
        let shared = self.shared.clone();
        let keyspace = &shared.keyspace;
        let place = |key: &&[u8]| {
            let hash = keyspace.hash(key);
            Place { shard: keyspace.shard_of(hash).0 as usize, hash, db: session.db, key: key.to_vec() }
        };
        let places: Vec<Place> = args.get(wait.keys).unwrap_or_default().iter().map(place).collect();
        let hashes: Vec<u64> = hashed.iter().map(|key| key.hash).collect();
        // Keys of several shards; or one key that is served and another that may become ready by it.
        let moves = hashed.len() > places.len();
        let apart = |hash: &u64| keyspace.shard_of(*hash) != keyspace.shard_of(hashes[0]);
        let wide = keyspace.shards() > 1 && (moves || hashes.iter().any(apart));
        let interest = Interest { kind: wait.kind, on_nokey: wait.on_nokey };
        let wait = Wait {
            client: session.info.clone(),
            command,
            args: wait.args.unwrap_or_else(|| crate::effect::OwnedCommand::from_args(args)),
            db: session.db,
            protocol: session.protocol,
            no_touch: session.no_touch,
            account: session.account().clone(),
            hashes,
            timeout_ms: wait.timeout_ms,
            at_timeout: wait.at_timeout,
            first_ns,
        };
        let waiter = shared.waiting.enter(places, interest, wide, wait);
        session.info.set_flag(ClientFlags::BLOCKED, true);
        *session.info.waiter.lock() = Some(waiter.clone());
        session.waiting = Some(waiter);
    }

    /// Notes an event that concerns waiters.
    pub(crate) fn note_ready(&mut self, db: DbIndex, key: Vec<u8>, what: &What) {
        let queue = &mut self.ready.queue;
        match what {
            What::Ready => queue.push_back((db, key)),
            What::Flushed { all } => queue.extend(self.shared.waiting.awaited((!all).then_some(db))),
            What::Swapped(other) => {
                queue.extend(self.shared.waiting.awaited(Some(db)));
                queue.extend(self.shared.waiting.awaited(Some(*other)));
            }
            What::Changed | What::Notify(..) => {}
        }
    }

    /// Serves the waiters of all keys that became ready, and of those that become ready by that. Ends with more shards
    /// locked than before where that can't be avoided.
    pub(crate) fn serve_ready(&mut self, space: &mut Locked<'_>) {
        loop {
            while let Some((db, key)) = self.ready.queue.pop_front() {
                self.serve_key(space, db, &key);
            }
            if self.ready.deferred.is_empty() {
                break;
            }
            let all = space.try_relock_all();
            self.ready.queue.extend(self.ready.deferred.drain(..));
            if !all {
                // A slow script has them. The worker's next command tries again, or its next tick.
                break;
            }
        }
        self.last_tick = self.ticker.now();
    }

    fn serve_key(&mut self, space: &mut Locked<'_>, db: DbIndex, key: &[u8]) {
        let hashed = space.key(key);
        if !space.covers(&[hashed.hash]) {
            self.ready.deferred.push((db, key.to_vec()));
            return;
        }
        let shard = space.keyspace().shard_of(hashed.hash).0 as usize;
        let mut last = 0;
        loop {
            let kind = kind_now(space, db, &hashed, self.now_ms);
            let Some(waiter) = self.shared.waiting.next(shard, db, key, last, kind) else { break };
            last = waiter.ticket;
            if !space.covers(&waiter.what.hashes) {
                self.ready.deferred.push((db, key.to_vec()));
                return;
            }
            self.serve(space, &waiter);
        }
    }

    /// Runs a waiter's command again. It may find nothing for it still, and goes on waiting in its place.
    fn serve(&mut self, space: &mut Locked<'_>, waiter: &Arc<Waiter>) {
        let Some(claim) = waiter.claim() else { return };
        let start = self.ticker.now();
        let wait = &waiter.what;
        let mut session = wait.session();
        let args = wait.args.args();
        let mut reply = Writer::new(wait.protocol);
        // What was allowed when the wait began may not be any more.
        let (context, stats) = (Context::TopLevel, self.shared.stats.worker(self.worker));
        let (shared, config, command) = (&self.shared, &self.config, wait.command);
        if let Err(denied) =
            acl::may(shared, config, stats, &mut session, command, &args, context, self.now_ms)
        {
            reply.error_bytes(&denied.error(session.account().name(), command).message());
            stats.error_replies.add(1);
            stats.command(wait.command.id).rejected.add(1);
            claim.end();
            self.shared.waiting.leave(waiter);
            self.post(wait.client.worker, Message::Served { client: wait.client.id, reply: reply.take() });
            return;
        }
        let effect = self.execute(wait.command, Origin::Client, space, &[], &mut session, &args, &mut reply);
        self.journal(wait.db, effect, &args, None);
        if self.waits.take().is_none() {
            claim.end();
            self.shared.waiting.leave(waiter);
            let ns = wait.first_ns + self.ticker.ns_between(start, self.ticker.now());
            self.account_wait(wait, ns, reply.len());
            self.post(wait.client.worker, Message::Served { client: wait.client.id, reply: reply.take() });
        }
        self.deliver_events(space, Some(wait.client.id));
        self.post_messages();
    }

    /// Mail to a worker; its own one finds it without being woken.
    fn post(&mut self, worker: usize, message: Message) {
        if worker == self.worker {
            self.shared.host.post_to_self(worker, message);
            self.own_mail = true;
        } else {
            self.shared.host.post(worker, message);
        }
    }

    /// Statistics of a command that has waited, when it ends.
    fn account_wait(&self, wait: &Wait, ns: u64, reply_bytes: usize) {
        let stats = self.shared.stats.worker(self.worker);
        stats.commands_processed.add(1);
        stats.command(wait.command.id).record(ns, self.config.latency_tracking);
        let (command, client) = (wait.command, &*wait.client);
        let args = wait.args.args();
        let call = Call { command, args: &args, client, ns, reply_bytes, at_s: self.now_ms / 1000 };
        self.shared.observe.note(&self.config, &call);
    }
}

/// Ending a wait on the thread that owns the connection.
impl Engine {
    /// A served client's answer has come.
    pub fn end_wait(&mut self, session: &mut Session, answer: &[u8], reply: &mut Writer) {
        let start = reply.len();
        reply.raw(answer);
        forget_wait(session);
        let info = &session.info;
        info.commands.store(info.commands.load(Relaxed) + 1, Relaxed);
        apply_reply_mode(session, reply, start);
    }

    /// The wait's time is over; false where somebody has just served the client: the answer is on its way.
    pub fn time_out(&mut self, session: &mut Session, reply: &mut Writer) -> bool {
        let Some(waiter) = session.waiting.clone() else { return false };
        let Some(claim) = waiter.claim() else { return false };
        claim.end();
        self.shared.waiting.leave(&waiter);
        let mut answer = Writer::new(waiter.what.protocol);
        waiter.what.at_timeout.write(&self.shared, &mut answer);
        self.account_wait(&waiter.what, waiter.what.first_ns, answer.len());
        self.end_wait(session, answer.as_bytes(), reply);
        true
    }

    /// The client is gone: nobody shall serve it any more.
    pub(crate) fn abandon_wait(&self, session: &mut Session) {
        if session.waiting.is_none() {
            return;
        }
        self.shared.waiting.abandon(&session.info);
        forget_wait(session);
    }

    /// Whether commands are held back by a pause now.
    pub fn is_pausing(&self) -> bool {
        self.shared.pause.mode(self.now_ms) != PauseMode::Off
    }
}

fn forget_wait(session: &mut Session) {
    session.waiting = None;
    *session.info.waiter.lock() = None;
    session.info.set_flag(ClientFlags::BLOCKED, false);
}

impl Cx<'_, '_> {
    /// Nothing to answer yet. False where nobody can wait, inside MULTI or a script: the caller answers that there is
    /// nothing.
    pub fn wait(&mut self, wait: WaitFor) -> bool {
        if self.origin != Origin::Client {
            return false;
        }
        *self.waits = Some(wait);
        true
    }

    /// CLIENT UNBLOCK: ends another client's wait; false where it isn't waiting.
    pub fn unblock(&mut self, waiter: &Waiter, how: Unblock) -> bool {
        if waiter.what.at_timeout == AtTimeout::Never {
            return false;
        }
        let Some(claim) = waiter.claim() else { return false };
        claim.end();
        self.shared.waiting.leave(waiter);
        let wait = &waiter.what;
        let mut reply = Writer::new(wait.protocol);
        let command = self.stats.command(wait.command.id);
        command.record(wait.first_ns, self.config.latency_tracking);
        match how {
            Unblock::Timeout => wait.at_timeout.write(self.shared, &mut reply),
            Unblock::Error => {
                reply.error(UNBLOCKED);
                self.stats.error_replies.add(1);
                self.shared.stats.count_error(UNBLOCKED.as_bytes());
                // As the reference counts it: the error is the waiter's rejection and the caller's failure.
                command.rejected.add(1);
                self.stats.command(self.command.id).failed.add(1);
            }
        }
        self.stats.commands_processed.add(1);
        let message = Message::Served { client: wait.client.id, reply: reply.take() };
        self.shared.host.post(wait.client.worker, message);
        true
    }
}

/// The type of a key's value; `None` where it isn't there or its time is over.
pub(crate) fn kind_now(space: &Locked<'_>, db: DbIndex, key: &HashedKey<'_>, now_ms: i64) -> Option<Kind> {
    let entry = space.find(db, key)?;
    let expired = entry.expire_at_ms().is_some_and(|at| at < now_ms);
    (!expired).then(|| entry.kind())
}
