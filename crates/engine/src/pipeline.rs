//! The life of a command: lookup, admit, lock, execute, journal. Each stage's result has a private constructor and
//! is the next stage's only input, so no path can skip a check.

use crate::access;
use crate::blocking::{ReadyKeys, WaitFor};
use crate::clients::{ClientFlags, ClientId, ClientKind};
use crate::commands::scripting::stated_flags;
use crate::config::{Access, Config, MaxmemoryPolicy};
use crate::cx::Cx;
use crate::effect::{Effect, OwnedCommand};
use crate::error::CommandError;
use crate::events::{Class, Events};
use crate::keyfind::{KeyAt, find_keys};
use crate::keys::{Keys, Policy};
use crate::observe::Call;
use crate::outbox::{Outbox, Push};
use crate::queue::Queued;
use crate::registry::{Command, CommandId, Lookup, Role};
use crate::scripting::machine::Machines;
use crate::scripting::shebang::ScriptFlags;
use crate::session::{Origin, ReplyMode, Session};
use crate::shared::{Message, PauseMode, Shared};
use crate::spec::{Flags, Group, Locks};
use crate::told;
use kara_base::clock::{Tick, Ticker};
use kara_base::ids::DbIndex;
use kara_base::rng::Rng;
use kara_keyspace::{HashedKey, Locked};
use kara_resp::{Request, Writer};
use smallvec::SmallVec;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Cache misses that are worth having under way at once: processors follow ten to twenty.
const PREFETCHED: usize = 16;

/// What a worker brings to the pipeline; one per worker thread.
pub struct Engine {
    pub shared: Arc<Shared>,
    pub worker: usize,
    pub config: Arc<Config>,
    /// Which generation of the store's `config` is.
    generation: u64,
    pub now_ms: i64,
    pub rng: Rng,
    access: access::Access,
    policy: Policy,
    pub(crate) events: Events,
    outbox: Outbox,
    /// The worker's own mailbox got something that its clients must see before their next answers.
    pub own_mail: bool,
    /// Another worker's mailbox got something.
    pub far_mail: bool,
    found: Vec<KeyAt>,
    preceding: Vec<(DbIndex, OwnedCommand)>,
    nested: Vec<(DbIndex, OwnedCommand)>,
    pub(crate) ticker: Ticker,
    machines: Machines,
    pub(crate) last_tick: Tick,
    /// What the look-ahead found out about the requests of the batch at hand, in their order.
    ahead: SmallVec<[Ahead; 16]>,
    /// What the handler that just ran asked to wait for.
    pub(crate) waits: Option<WaitFor>,
    pub(crate) ready: ReadyKeys,
}

/// A request of the batch as the look-ahead saw it.
#[derive(Clone, Copy)]
struct Ahead {
    command: Command,
    /// Of the key at the command's `single_key`, where it has one.
    hash: Option<u64>,
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

/// A command that exists, with the right number of arguments.
struct Known(Command);

/// A command that may run now.
struct Admitted(Command);

/// The outcome of admission.
enum Verdict {
    Run(Admitted),
    Queued,
    Postpone,
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
            found: Vec::new(),
            preceding: Vec::new(),
            nested: Vec::new(),
            ticker: shared.ticker,
            last_tick: shared.ticker.now(),
            machines: Machines::default(),
            ahead: SmallVec::new(),
            waits: None,
            ready: ReadyKeys::default(),
            shared,
            worker,
            config,
            generation: u64::MAX,
            now_ms,
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
        self.last_tick = self.ticker.now();
        self.last_tick
    }

    /// Takes over settings that changed since they were last read.
    fn read_config(&mut self) {
        let generation = self.shared.config.generation();
        if generation == self.generation {
            return;
        }
        self.generation = generation;
        self.config = self.shared.config.load();
        let config = &*self.config;
        self.policy.lazy_delete = config.lazyfree_lazy_user_del;
        self.policy.lazy_overwrite = config.lazyfree_lazy_server_del;
        self.policy.lazy_expire = config.lazyfree_lazy_expire;
        let classes = config.notify_keyspace_events;
        let published = classes.intersects(Class::KEYSPACE | Class::KEYEVENT);
        self.events.classes = if published { classes } else { Class::empty() };
    }

    /// Looks ahead over a batch of requests: looks up their commands, hashes their keys and brings their buckets, then
    /// their entries, into the cache, so that the misses overlap; `run_ahead` takes the requests by their place in the
    /// batch. With several shards this takes each lock twice more, which pays: two threads on 64 shards spend 152 ns on
    /// a command of a batch of 16, 552 on one alone.
    pub fn look_ahead<'r>(
        &mut self,
        space: &mut Locked<'_>,
        db: DbIndex,
        batch: impl Iterator<Item = (&'r Request, &'r [u8])>,
    ) {
        self.ahead.clear();
        for (request, buffer) in batch {
            let name = request.arg(buffer, 0).unwrap_or_default();
            // The batch is cut short at an unknown command: what follows is looked up when its turn comes.
            let Some(command) = self.shared.registry.by_name(name) else { break };
            let key = match command.single_key {
                0 => None,
                at => request.arg(buffer, usize::from(at)),
            };
            self.ahead.push(Ahead { command, hash: key.map(|key| space.key(key).hash) });
        }
        if self.ahead.len() < 2 {
            return;
        }
        let hashes = || self.ahead.iter().filter_map(|ahead| ahead.hash);
        if space.is_single_shard() {
            space.relock_all();
            prefetch(space, db, hashes);
        } else {
            space.release();
            let keyspace = &self.shared.keyspace;
            hashes().for_each(|hash| keyspace.prefetch_lock(hash));
            hashes().for_each(|hash| keyspace.prefetch_bucket(db, hash));
            hashes().for_each(|hash| keyspace.prefetch_entry(db, hash));
        }
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
            self.shared.observe.rates.tick(&self.shared.stats, self.now_ms);
            crate::persist::save::cron(&self.shared, &self.config, self.now_ms);
            self.shared.replication.cron(&self.shared, &self.config, self.now_ms);
        }
        let (eval, functions) = self.machines.used_memory();
        self.shared.scripts.note_memory(self.worker, eval, functions);
        if !self.shared.cron_paused.load(Relaxed) {
            self.expire_cycle();
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

    /// Journals the removal of expired keys and fields, under their locks.
    pub(crate) fn journal_preceding(&mut self) {
        let journal = self.shared.keyspace.journal();
        for (db, command) in self.preceding.drain(..) {
            journal.append(db, &command.args());
        }
    }

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

    /// Runs one request of a client to its end.
    pub fn run(
        &mut self,
        space: &mut Locked<'_>,
        session: &mut Session,
        args: &[&[u8]],
        reply: &mut Writer,
    ) -> Flow {
        self.run_ahead(usize::MAX, space, session, args, reply)
    }

    /// Runs the request at that place of the batch that `look_ahead` saw last.
    pub fn run_ahead(
        &mut self,
        place: usize,
        space: &mut Locked<'_>,
        session: &mut Session,
        args: &[&[u8]],
        reply: &mut Writer,
    ) -> Flow {
        let start = reply.len();
        let ahead = self.ahead.get(place).copied();
        let hash = ahead.and_then(|ahead| ahead.hash);
        let outcome = self.lookup(ahead, args).and_then(|known| self.admit(known, hash, session, args));
        match outcome {
            Ok(Verdict::Run(admitted)) => {
                if self.perform(admitted, hash, space, session, args, reply) == Flow::Wait {
                    return Flow::Wait;
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

    /// Stage: name -> command; arity.
    #[inline]
    fn lookup(
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
    fn admit(
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
        if self.shared.scripts.is_busy() && !command.is(Flags::ALLOW_BUSY) {
            return refuse(self.shared.scripts.busy_error());
        }
        if let Some(error) = self.role_refusal(command, session) {
            return refuse(error);
        }
        if self.shared.loading.load(Relaxed)
            && !command.is(Flags::LOADING)
            && session.origin == Origin::Client
        {
            return refuse(CommandError::text("LOADING Valkey is loading the dataset in memory"));
        }
        if self.shared.persist.stopped.load(Relaxed) != 0
            && (command.is(Flags::WRITE) || command.full_name == "ping")
            && session.origin == Origin::Client
            && let Some(text) = self.shared.persist.refusal(&self.config)
        {
            return refuse(CommandError::owned(text));
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

    /// DEBUG and MODULE want to be enabled by configuration.
    fn protected(&self, command: Command, session: &Session) -> Option<CommandError> {
        let setting = match command.role {
            Role::Debug => self.config.enable_debug_command,
            Role::Module => self.config.enable_module_command,
            Role::Plain | Role::Exec | Role::Touch => return None,
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

    /// Whether replicas may hear of the command; a script says so itself.
    fn may_replicate(&self, command: Command, args: &[&[u8]]) -> bool {
        match stated_flags(&self.shared, command.full_name, args) {
            Some(flags) => !flags.contains(ScriptFlags::NO_WRITES),
            None => command.spec.flags.intersects(Flags::WRITE | Flags::MAY_REPLICATE),
        }
    }

    /// Whether EXEC would write.
    fn queued_writes(&self, session: &Session) -> bool {
        let mut queued = session.multi.iter().flat_map(|multi| multi.queue.iter());
        queued.any(|queued| self.may_replicate(queued.command, &queued.args))
    }

    /// Stages: lock, execute, journal.
    fn perform(
        &mut self,
        admitted: Admitted,
        hash: Option<u64>,
        space: &mut Locked<'_>,
        session: &mut Session,
        args: &[&[u8]],
        reply: &mut Writer,
    ) -> Flow {
        let command = admitted.0;
        let hashed = match self.lock(command, hash, space, session, args) {
            Ok(hashed) => hashed,
            Err(error) => {
                self.refuse(Some(command.id), error, session, reply);
                return Flow::Next;
            }
        };
        // Read under the locks: whoever attaches a reader holds all of them.
        self.policy.journal_on = self.shared.journal_on();
        // As for the role.
        if let Some(error) = self.role_refusal(command, session) {
            self.refuse(Some(command.id), error, session, reply);
            return Flow::Next;
        }
        let db = session.db;
        let start = reply.len();
        let outcome = self.execute(command, session.origin, space, &hashed, session, args, reply);
        let changed = outcome.changed();
        self.journal(db, outcome, args);
        if changed && self.policy.journal_on {
            session.written = self.shared.replication.backlog.end();
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
        self.account(command, session, args, reply.len() - start);
        if !self.ready.is_empty() {
            self.serve_ready(space);
        }
        if command.is(Flags::ADMIN) {
            // CONFIG SET holds for the next command already, be it in the same batch.
            self.read_config();
            self.access = access::Access::new(self.now_ms, lfu_settings(&self.config));
        }
        Flow::Next
    }

    /// Stage: the shards of the command's keys, all of them up front. Locks that are held already stay.
    fn lock<'b>(
        &mut self,
        command: Command,
        hash: Option<u64>,
        space: &mut Locked<'_>,
        session: &Session,
        args: &'b [&'b [u8]],
    ) -> Result<SmallVec<[HashedKey<'b>; 2]>, CommandError> {
        let mut hashed = SmallVec::new();
        if command.single_key != 0
            && let Some(key) = args.get(usize::from(command.single_key))
            && command.spec.locks != Locks::All
        {
            let key = hash.map_or_else(|| space.key(key), |hash| HashedKey { bytes: key, hash });
            hashed.push(key);
            if !space.try_relock_keys(&hashed) || !self.widen(space, std::iter::once(key.hash)) {
                return Err(self.shared.scripts.busy_error());
            }
            return Ok(hashed);
        }
        if command.role == Role::Exec {
            return self.lock_transaction(space, session).map(|()| hashed);
        }
        if command.spec.locks == Locks::All {
            return if space.try_relock_all() { Ok(hashed) } else { Err(self.shared.scripts.busy_error()) };
        }
        if command.spec.key_specs.is_empty() && command.spec.get_keys.is_none() {
            space.release();
            return Ok(hashed);
        }
        if find_keys(command.spec, args, &mut self.found).is_err() {
            // The handler says what is wrong with the arguments, in its own words. Should it look at a key all the
            // same, the lock is held.
            space.relock_all();
            return Ok(hashed);
        }
        hashed.extend(self.found.iter().filter_map(|k| args.get(k.position)).map(|key| space.key(key)));
        if !space.try_relock_keys(&hashed) || !self.widen(space, hashed.iter().map(|key| key.hash)) {
            return Err(self.shared.scripts.busy_error());
        }
        for some in hashed.chunks(PREFETCHED).take(8) {
            if some.len() > 1 {
                prefetch(space, session.db, || some.iter().map(|key| key.hash));
            }
        }
        Ok(hashed)
    }

    /// Locks every shard where these keys, which are locked, have waiters who can't be served without others. False where
    /// a slow script has them; then nothing is held.
    #[inline]
    fn widen(&self, space: &mut Locked<'_>, hashes: impl Iterator<Item = u64>) -> bool {
        let keyspace = &self.shared.keyspace;
        let places = hashes.map(|hash| (keyspace.shard_of(hash).0 as usize, hash));
        !self.shared.waiting.needs_all_shards(places) || space.try_relock_all()
    }

    /// The locks of all queued commands and all watched keys together.
    fn lock_transaction(&mut self, space: &mut Locked<'_>, session: &Session) -> Result<(), CommandError> {
        let Some(multi) = &session.multi else { return Ok(()) };
        let locked = |done| if done { Ok(()) } else { Err(self.shared.scripts.busy_error()) };
        if space.is_single_shard() {
            locked(space.try_relock_all())?;
            prefetch(space, session.db, || multi.queue.hashes().take(PREFETCHED));
            return Ok(());
        }
        // A script can't begin again under other locks in the middle of a transaction.
        let wants_all =
            |command: Command| command.spec.locks != Locks::Keys || command.spec.group == Group::Scripting;
        if multi.queue.commands().any(wants_all) {
            return locked(space.try_relock_all());
        }
        let mut keys: SmallVec<[HashedKey; 16]> = SmallVec::new();
        for queued in multi.queue.iter() {
            if let Some(hash) = queued.hash {
                keys.push(HashedKey { bytes: b"", hash });
            } else if find_keys(queued.command.spec, &queued.args, &mut self.found).is_ok() {
                let found = self.found.iter().filter_map(|k| queued.args.get(k.position));
                keys.extend(found.map(|key| HashedKey { bytes: b"", hash: space.key(key).hash }));
            }
        }
        let watched = session.watched.iter();
        keys.extend(watched.map(|((_, key), _)| HashedKey { bytes: b"", hash: space.key(key).hash }));
        locked(space.try_relock_keys(&keys) && self.widen(space, keys.iter().map(|key| key.hash)))
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
            policy.delete_expired = false;
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
            extra_changes: 0,
            nested_changes: 0,
        };
        let outcome = match command.spec.handler {
            Some(handler) => handler(&mut cx),
            None => Err(CommandError::Arity(command.full_name.into())),
        };
        match outcome {
            Ok(effect) => {
                if effect.changed() {
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

    /// Stage: the effect's place in the one log, before the locks are released.
    pub(crate) fn journal(&mut self, db: DbIndex, effect: Effect, args: &[&[u8]]) {
        if !self.policy.journal_on {
            self.preceding.clear();
            self.nested.clear();
            return;
        }
        let journal = self.shared.keyspace.journal();
        for (db, command) in self.preceding.drain(..) {
            journal.append(db, &command.args());
        }
        let nested = std::mem::take(&mut self.nested);
        let mut commands: SmallVec<[(DbIndex, OwnedCommand); 4]> = nested.into_iter().collect();
        match effect {
            Effect::None => {}
            Effect::Verbatim if commands.is_empty() => {
                journal.append(db, args);
                return;
            }
            Effect::Verbatim => commands.push((db, OwnedCommand::from_args(args))),
            Effect::Rewrite(list) => commands.extend(list.into_iter().map(|command| (db, command))),
        }
        if let [(db, command)] = commands.as_slice() {
            return journal.append(*db, &command.args());
        }
        let Some((last, _)) = commands.last() else { return };
        let last = *last;
        let all: Vec<_> = commands.iter().map(|(db, command)| (*db, command.args())).collect();
        let mut group: Vec<(DbIndex, &[&[u8]])> = vec![(db, &[b"MULTI"])];
        group.extend(all.iter().map(|(db, args)| (*db, args.as_slice())));
        group.push((last, &[b"EXEC"]));
        journal.append_group(&group);
    }

    /// Tells those who watch, still under the locks. `by` is the client whose command it was.
    pub(crate) fn deliver_events(&mut self, space: &Locked<'_>, by: Option<ClientId>) {
        if !self.events.is_empty() {
            told::tell(&mut self.events, &self.shared, space, by, self.now_ms, &mut self.outbox);
            for event in self.events.take_for_waiters() {
                self.note_ready(event.db, event.key, &event.what);
            }
        }
    }

    /// What tracking and monitoring clients make of a command, still under the locks; posts all messages.
    #[cold]
    fn tell_clients(&mut self, command: Command, session: &mut Session, args: &[&[u8]]) {
        let shared = &*self.shared;
        if session.tracking.is_some() {
            told::remember_reads(shared, session, command, args, &mut self.found);
            told::end_caching(session, command);
            let limit = self.config.tracking_table_max_keys;
            shared.tracking.shrink(&shared.clients, limit, &mut self.rng, &mut self.outbox);
        }
        if shared.monitors.any() {
            shared.monitors.show(command, args, session, Origin::Client, &mut self.outbox);
        }
        self.post_messages();
    }

    /// The table of tracked keys is brought to its size with every request, also with one that only waits for EXEC. What
    /// its client is told by that stands before the reply.
    #[cold]
    fn shrink_before_reply(&mut self, session: &Session, reply: &mut Writer) {
        let (shared, limit) = (&*self.shared, self.config.tracking_table_max_keys);
        let mut told = Outbox::default();
        shared.tracking.shrink(&shared.clients, limit, &mut self.rng, &mut told);
        for (worker, message) in told.drain() {
            match message {
                Message::Push(push) if push.to().first().is_some_and(|to| to.id == session.id()) => {
                    push.write(session, reply.buffer());
                }
                Message::Push(push) => self.outbox.push(worker, push),
                _ => {}
            }
        }
        self.post_messages();
    }

    /// Posts what a command had to tell to the workers whose clients are to hear it, while the keys' locks are held: in
    /// the order of the changes.
    pub(crate) fn post_messages(&mut self) {
        for (worker, mut message) in self.outbox.drain() {
            if worker == self.worker {
                if let Message::Push(Push::Published { near, .. }) = &mut message {
                    *near = true;
                }
                self.shared.host.post_to_self(worker, message);
                self.own_mail = true;
            } else {
                self.shared.host.post(worker, message);
                self.far_mail = true;
            }
        }
    }

    /// Behind a batch of requests, before it is answered: clients that track by prefix hear what it changed.
    pub fn end_batch(&mut self) {
        if !self.outbox.broadcasts.is_empty() {
            self.shared.tracking.broadcast(&self.shared.clients, &mut self.outbox);
            self.post_messages();
        }
    }

    /// Statistics of a command that ran.
    fn account(&mut self, command: Command, session: &Session, args: &[&[u8]], reply_bytes: usize) {
        let now = self.ticker.now();
        let ns = self.ticker.ns_between(self.last_tick, now);
        self.last_tick = now;
        let stats = self.shared.stats.worker(self.worker);
        stats.commands_processed.add(1);
        stats.command(command.id).record(ns, self.config.latency_tracking);
        stats.eventloop_command_ns.add(ns);
        let call = Call { command, args, client: &session.info, ns, reply_bytes, at_s: self.now_ms / 1000 };
        self.shared.observe.note(&self.config, &call);
        let info = &session.info;
        info.commands.store(info.commands.load(Relaxed) + 1, Relaxed);
    }

    /// Answers a command that was not run.
    fn refuse(
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
            let message = error.message();
            let reason = message.strip_prefix(b"ERR ").unwrap_or(&message);
            CommandError::quoting("EXECABORT Transaction discarded because of: {}", &[reason])
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

/// Starts loading buckets, then entries of keys whose shards are held.
#[inline]
fn prefetch<I: Iterator<Item = u64>>(space: &Locked<'_>, db: DbIndex, hashes: impl Fn() -> I) {
    for hash in hashes() {
        space.prefetch_bucket(db, &HashedKey { bytes: b"", hash });
    }
    for hash in hashes() {
        space.prefetch_entry(db, &HashedKey { bytes: b"", hash });
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

/// The LFU settings where the eviction policy is an LFU one.
pub(crate) fn lfu_settings(config: &Config) -> Option<(u32, u32)> {
    let lfu = matches!(config.maxmemory_policy, MaxmemoryPolicy::AllkeysLfu | MaxmemoryPolicy::VolatileLfu);
    let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    lfu.then(|| (small(config.lfu_log_factor), small(config.lfu_decay_time)))
}

/// A Unix socket or a loopback address.
/// Whether the client is on this host.
pub(crate) fn is_local(session: &Session) -> bool {
    let addr = &session.info.addr;
    session.info.flags().contains(ClientFlags::UNIX_SOCKET)
        || addr.starts_with("127.")
        || addr.starts_with("[::1]")
}

/// Runs a command that MULTI queued.
pub(crate) fn run_queued(cx: &mut Cx, queued: &Queued) {
    let key = queued.args.get(usize::from(queued.command.single_key));
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
    let before = cx.shared.ticker.now();
    let start = cx.reply.len();
    let (effect, extra) = {
        let mut inner = Cx {
            command,
            args,
            keys: Keys {
                space: &mut *cx.keys.space,
                db: cx.session.db,
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
            extra_changes: 0,
            nested_changes: 0,
        };
        inner.keys.policy.touch = !inner.session.no_touch || command.role == Role::Touch;
        let outcome = match command.spec.handler {
            // A script is no write by itself.
            _ if origin == Origin::Script
                && command.is(Flags::WRITE)
                && inner.shared.replication.is_replica()
                && inner.config.replica_read_only
                && inner.session.origin == Origin::Client =>
            {
                Err(crate::replication::read_only())
            }
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
        (effect, inner.extra_changes)
    };
    told::nested(cx, command, args, origin);
    let ns = cx.shared.ticker.ns_between(before, cx.shared.ticker.now());
    cx.stats.commands_processed.add(1);
    cx.stats.command(command.id).record(ns, cx.config.latency_tracking);
    let reply_bytes = cx.reply.len().saturating_sub(start);
    let call = Call { command, args, client: &cx.session.info, ns, reply_bytes, at_s: cx.now_ms / 1000 };
    if origin != Origin::Script {
        cx.shared.observe.note(cx.config, &call);
    }
    if effect.changed() {
        cx.nested_changes += 1 + extra;
    }
    if cx.keys.policy.journal_on {
        let db = cx.keys.db;
        cx.nested.append(cx.keys.preceding);
        match effect {
            Effect::None => {}
            Effect::Verbatim => cx.nested.push((db, OwnedCommand::from_args(args))),
            Effect::Rewrite(list) => cx.nested.extend(list.into_iter().map(|command| (db, command))),
        }
    }
}
