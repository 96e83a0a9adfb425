//! The life of a command: lookup, admit, lock, execute, journal. Each stage's result has a private constructor and
//! is the next stage's only input, so no path can skip a check.

mod admit;
mod execute;
mod journal;
mod lock;

use admit::{Admitted, Verdict};
pub(crate) use admit::{LOADING, is_local, unknown_command};
pub(crate) use execute::{run_found, run_queued};
use lock::Ahead;

use crate::access;
use crate::blocking::{ReadyKeys, WaitFor};
use crate::config::{Config, MaxmemoryPolicy};
use crate::effect::OwnedCommand;
use crate::events::{Class, Events};
use crate::evict::Evictor;
use crate::keyfind::KeyAt;
use crate::keys::{Keys, Policy};
use crate::outbox::Outbox;
use crate::scripting::machine::Machines;
use crate::session::{Origin, ReplyMode, Session};
use crate::shared::Shared;
use crate::spec::Flags;
use kara_base::clock::{Tick, Ticker};
use kara_base::ids::DbIndex;
use kara_base::rng::Rng;
use kara_keyspace::Locked;
use kara_resp::Writer;
use smallvec::SmallVec;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// How soon a primary's stream looks again whether a slow script has ended.
const BUSY_NAP: std::time::Duration = std::time::Duration::from_millis(1);

/// What a worker brings to the pipeline; one per worker thread.
pub struct Engine {
    pub shared: Arc<Shared>,
    pub worker: usize,
    pub config: Arc<Config>,
    /// Which generation of the store's `config` is.
    generation: u64,
    pub now_ms: i64,
    /// The time and the moment at which the turn began.
    turn: (i64, Tick),
    pub rng: Rng,
    pub(crate) access: access::Access,
    policy: Policy,
    pub(crate) events: Events,
    pub(crate) outbox: Outbox,
    /// The worker's own mailbox got something that its clients must see before their next answers.
    pub own_mail: bool,
    /// Another worker's mailbox got something.
    pub far_mail: bool,
    /// A command journaled something since the worker looked last.
    pub wrote: bool,
    found: Vec<KeyAt>,
    preceding: Vec<(DbIndex, OwnedCommand)>,
    nested: Vec<(DbIndex, OwnedCommand)>,
    pub(crate) ticker: Ticker,
    machines: Machines,
    pub(crate) last_tick: Tick,
    /// What the look-ahead found out about the requests of the batch at hand, in their order.
    ahead: SmallVec<[Ahead; 32]>,
    batch_number: u64,
    /// What the handler that just ran asked to wait for.
    pub(crate) waits: Option<WaitFor>,
    pub(crate) ready: ReadyKeys,
    pub(crate) evictor: Evictor,
}

/// What is known of a request beside its arguments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Received<'a> {
    /// Its place in the batch that `look_ahead` saw last.
    pub place: Option<usize>,
    /// Its bytes, where the log would have the same: see [`kara_resp::Request::as_sent`].
    pub sent: Option<&'a [u8]>,
}

/// What the worker does with the connection after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The next command, please.
    Next,
    /// Held back by CLIENT PAUSE or the like: run the same command again when a `Resume` message comes.
    Postpone,
    /// The client waits (`Session::waiting` says for how long): nothing of it runs until it was served.
    Wait,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("worker", &self.worker).finish_non_exhaustive()
    }
}

impl Engine {
    /// The pipeline of one worker.
    pub fn new(shared: Arc<Shared>, worker: usize, now_ms: i64, rng: Rng) -> Self {
        let config = shared.config.load();
        let mut engine = Engine {
            access: access::Access::new(now_ms, None),
            policy: Policy {
                delete_expired: true,
                see_expired: false,
                touch: true,
                lazy_delete: false,
                lazy_overwrite: false,
                lazy_expire: false,
                journal_on: false,
            },
            events: Events::default(),
            outbox: Outbox::default(),
            own_mail: false,
            far_mail: false,
            wrote: false,
            found: Vec::new(),
            preceding: Vec::new(),
            nested: Vec::new(),
            ticker: shared.ticker,
            last_tick: shared.ticker.now(),
            machines: Machines::default(),
            ahead: SmallVec::new(),
            batch_number: 0,
            waits: None,
            ready: ReadyKeys::default(),
            evictor: Evictor::default(),
            shared,
            worker,
            config,
            generation: u64::MAX,
            now_ms,
            turn: (now_ms, Tick::default()),
            rng,
        };
        engine.begin_turn(now_ms);
        engine
    }

    /// Once per loop turn: the time and the settings that hold for it. Returns the turn's beginning.
    pub fn begin_turn(&mut self, now_ms: i64) -> Tick {
        self.now_ms = now_ms;
        self.read_config();
        self.access = access::Access::new(now_ms, lfu_settings(&self.config));
        self.policy.journal_on = self.shared.journal_on();
        self.evictor.begin_turn(now_ms);
        self.last_tick = self.ticker.now();
        self.turn = (now_ms, self.last_tick);
        self.last_tick
    }

    /// Behind a slow command: what comes next, waiting clients first of all, sees the time that it took.
    #[cold]
    fn catch_up(&mut self, now: Tick) {
        let (began_ms, began) = self.turn;
        let passed_ms = self.ticker.ns_between(began, now) / 1_000_000;
        self.now_ms = began_ms.saturating_add_unsigned(passed_ms);
        self.access = access::Access::new(self.now_ms, lfu_settings(&self.config));
    }

    /// Takes over settings that changed since they were last read.
    fn read_config(&mut self) {
        let generation = self.shared.config.generation();
        if generation == self.generation {
            return;
        }
        self.generation = generation;
        let old = std::mem::replace(&mut self.config, self.shared.config.load());
        let config = &*self.config;
        self.evictor.configure(&old, config);
        self.policy.lazy_delete = config.lazyfree_lazy_user_del;
        self.policy.lazy_overwrite = config.lazyfree_lazy_server_del;
        self.policy.lazy_expire = config.lazyfree_lazy_expire;
        self.shared.replication.set_writable(!config.replica_read_only);
        let classes = config.notify_keyspace_events;
        let published = classes.intersects(Class::KEYSPACE | Class::KEYEVENT);
        self.events.classes = if published { classes } else { Class::empty() };
    }

    /// A connection is gone: what it held or waited for is released.
    pub fn client_gone(&mut self, session: &mut Session) {
        self.abandon_wait(session);
        session.end_multi();
        session.unwatch(&self.shared.watches);
        session.end_messages(&self.shared);
    }

    /// Some times a second, on every worker: active expiry of its share of the shards.
    pub fn cron(&mut self) {
        if self.worker == 0 {
            self.shared.host.tidy_peers();
            self.shared.observe.rates.tick(&self.shared.stats, self.now_ms);
            crate::persist::save::cron(&self.shared, &self.config, self.now_ms);
            self.shared.replication.cron(&self.shared, &self.config, self.now_ms);
        }
        let (eval, functions) = self.machines.used_memory();
        self.shared.scripts.note_memory(self.worker, eval, functions);
        if !self.shared.cron_paused.load(Relaxed) {
            self.expire_cycle();
            if self.worker == 0 {
                self.expire_own_keys();
            }
        }
        let (shared, limit) = (&*self.shared, self.config.tracking_table_max_keys);
        shared.tracking.shrink(&shared.clients, limit, &mut self.rng, &mut self.outbox);
        self.post_messages();
        self.end_batch();
    }

    /// Whether this server removes expired keys itself (a primary does).
    pub(crate) fn deletes_expired(&self) -> bool {
        self.policy.delete_expired && !self.shared.replication.is_replica()
    }

    /// Access to keys under a lock that isn't a command's.
    pub(crate) fn keys_outside_commands<'a, 'k>(
        &'a mut self,
        shared: &'a Shared,
        space: &'a mut Locked<'k>,
        db: DbIndex,
    ) -> Keys<'a, 'k> {
        self.events.look(shared);
        self.policy.journal_on = shared.journal_on();
        Keys {
            space,
            db,
            now_ms: self.now_ms,
            policy: self.policy,
            access: self.access,
            rng: &mut self.rng,
            events: &mut self.events,
            stats: shared.stats.worker(self.worker),
            reclaimer: &shared.reclaimer,
            preceding: &mut self.preceding,
            hashed: &[],
            hashed_at: Cell::new(0),
        }
    }

    /// Runs one request of a client to its end.
    pub fn run(
        &mut self,
        space: &mut Locked<'_>,
        session: &mut Session,
        args: &[&[u8]],
        reply: &mut Writer,
    ) -> Flow {
        self.run_ahead(Received::default(), space, session, args, reply)
    }

    /// The same with what else is known of the request.
    pub fn run_ahead(
        &mut self,
        received: Received<'_>,
        space: &mut Locked<'_>,
        session: &mut Session,
        args: &[&[u8]],
        reply: &mut Writer,
    ) -> Flow {
        self.keep_limit(space, session, reply);
        let start = reply.len();
        let ahead = received.place.and_then(|place| self.ahead.get(place)).copied();
        let hash = ahead.and_then(|ahead| ahead.hash);
        let outcome = self.lookup(ahead, args).and_then(|known| self.admit(known, hash, session, args));
        match outcome {
            Ok(Verdict::Run(admitted)) => {
                match self.perform(admitted, (hash, received.sent), space, session, args, reply) {
                    Flow::Next => {}
                    later => return later,
                }
            }
            Ok(Verdict::Queued) => {
                if session.tracking.is_some() {
                    self.shrink_before_reply(session, reply);
                }
                reply.simple("QUEUED");
            }
            Ok(Verdict::Postpone) => return Flow::Postpone,
            Err((command, error)) => {
                self.refuse(command, error, session, reply);
                let command = command.map(|id| self.shared.registry.get(id));
                if let Some(exec) = command.filter(|command| command.full_name == "exec")
                    && self.shared.monitors.any()
                {
                    // An EXEC that ends a transaction without running it is shown all the same.
                    self.shared.monitors.show(exec, args, session, Origin::Client, &mut self.outbox);
                    self.post_messages();
                }
            }
        }
        apply_reply_mode(session, reply, start);
        Flow::Next
    }

    /// Stages: lock, execute, journal.
    fn perform(
        &mut self,
        admitted: Admitted,
        (hash, sent): (Option<u64>, Option<&[u8]>),
        space: &mut Locked<'_>,
        session: &mut Session,
        args: &[&[u8]],
        reply: &mut Writer,
    ) -> Flow {
        let command = admitted.command();
        let hashed = loop {
            match self.lock(command, hash, space, session, args) {
                Ok(hashed) => break hashed,
                // A slow script has them, and what our primary did can't be left out.
                Err(_) if session.origin == Origin::Primary && self.shared.scripts.is_busy() => {
                    space.release();
                    std::thread::sleep(BUSY_NAP);
                }
                Err(error) => {
                    self.refuse(Some(command.id), error, session, reply);
                    return Flow::Next;
                }
            }
        };
        // Read under the locks: whoever attaches a reader holds all of them.
        self.policy.journal_on = self.shared.journal_on();
        // As for the role.
        if let Some(error) = self.role_refusal(command, session, args) {
            self.refuse(Some(command.id), error, session, reply);
            return Flow::Next;
        }
        let db = session.db;
        if session.origin == Origin::Client && self.awaits_snapshot(command, space, &hashed, session) {
            space.release();
            return Flow::Postpone;
        }
        let start = reply.len();
        let outcome = self.execute(command, session.origin, space, &hashed, session, args, reply);
        let changed = outcome.changed();
        self.journal(db, outcome, args, sent);
        if changed && self.policy.journal_on {
            session.written = self.shared.replication.backlog.end();
            self.wrote = true;
        }
        self.deliver_events(space, Some(session.id()));
        if session.tracking.is_some() || self.shared.monitors.any() || !self.outbox.is_empty() {
            self.tell_clients(command, session, args);
        }
        if let Some(wait) = self.waits.take() {
            reply.truncate(start);
            self.begin_wait(wait, command, session, &hashed, args);
            return Flow::Wait;
        }
        if command.is(Flags::ADMIN) {
            // CONFIG SET holds at once: for what the command log says of itself, and for the next command of the batch.
            self.read_config();
            self.access = access::Access::new(self.now_ms, lfu_settings(&self.config));
        }
        self.account(command, session, args, reply.len() - start);
        if !self.ready.is_empty() {
            self.serve_ready(space);
        }
        Flow::Next
    }
}

/// CLIENT REPLY: takes back the reply that is not wanted.
pub(crate) fn apply_reply_mode(session: &mut Session, reply: &mut Writer, start: usize) {
    match session.reply_mode {
        ReplyMode::On => {}
        // Confirmations of subscriptions are messages, which such a client gets all the same.
        ReplyMode::Off if session.reply_is_push => session.reply_is_push = false,
        ReplyMode::Off => reply.truncate(start),
        ReplyMode::SkipNext => session.reply_mode = ReplyMode::Skipping,
        ReplyMode::Skipping => {
            if !std::mem::take(&mut session.reply_is_push) {
                reply.truncate(start);
            }
            session.reply_mode = ReplyMode::On;
        }
    }
}

/// The LFU settings where the eviction policy is an LFU one.
pub(crate) fn lfu_settings(config: &Config) -> Option<(u32, u32)> {
    let lfu = matches!(config.maxmemory_policy, MaxmemoryPolicy::AllkeysLfu | MaxmemoryPolicy::VolatileLfu);
    let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    lfu.then(|| (small(config.lfu_log_factor), small(config.lfu_decay_time)))
}
