//! Our place in replication: role and history, who reads from us, whom we read from, and what follows for commands.
//!
//! Boundary: sockets are the server's; what a packet means is the crate `replication`'s. A change of role happens with
//! every shard held and the state locked: no command and no byte of a stream falls between two roles.

pub mod farewell;
mod own_keys;
mod peek;
pub mod sync;
mod takeover;
pub mod upstream;
mod waits;

pub use waits::{Goal, NO_APPEND_ONLY};

use crate::clients::{ClientFlags, ClientInfo};
use crate::commands::scripting::flags_of;
use crate::config::Config;
use crate::error::CommandError;
use crate::log::Level;
use crate::pipeline::Engine;
use crate::registry::{Command, Role};
use crate::session::{Origin, Session};
use crate::shared::{Hold, Shared};
use crate::spec::Flags;
use kara_base::ids::DbIndex;
use kara_keyspace::{JournalSink, Locked};
use kara_replication::backlog::Backlog;
use kara_replication::ids::{Refused, ReplId, ReplIds};
use kara_replication::replica::{Replica, ReplicaConf, ReplicaState};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Bits of the gate that commands look at.
pub mod gate {
    /// We have a primary.
    pub const REPLICA: u8 = 1;
    /// The link to it is down.
    pub const LINK_DOWN: u8 = 2;
    /// New data are being loaded beside the old ones, which are served meanwhile.
    pub const ASYNC_LOADING: u8 = 16;
    /// Clients may write to us while we are a replica.
    pub const WRITABLE: u8 = 8;
}

/// The state of the link to our primary, under the names that ROLE shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Connect,
    Connecting,
    Handshake,
    Sync,
    Connected,
}

impl Link {
    pub fn name(self) -> &'static str {
        match self {
            Link::Connect => "connect",
            Link::Connecting => "connecting",
            Link::Handshake => "handshake",
            Link::Sync => "sync",
            Link::Connected => "connected",
        }
    }
}

/// Our primary and what is known of the link.
#[derive(Clone, Debug)]
pub struct Upstream {
    pub host: Vec<u8>,
    pub port: u16,
    pub link: Link,
    /// It has been up since this primary was chosen.
    pub worked: bool,
    /// How often its data set was refused since then: it had come back with nothing.
    pub refusals: u32,
    /// Unix ms of the last byte from it; 0: none yet.
    pub heard_ms: i64,
    pub down_since_ms: i64,
    /// Bytes of a data set that comes: read, and expected (-1 where that isn't told).
    pub sync_read: u64,
    pub sync_total: i64,
    pub sync_ms: i64,
    /// What was read from the stream, processed or not.
    pub read_offset: u64,
    /// The next handshake asks the primary to step back (FAILOVER).
    pub failover: bool,
    /// It has asked us to take over, and was ahead of us: where we were then, and since when.
    behind: Option<(u64, Instant)>,
}

/// What changes together.
#[derive(Debug)]
pub struct State {
    pub ids: ReplIds,
    pub primary: Option<Upstream>,
    /// Our data are those of `ids` up to the log's end: a primary of that history may continue them.
    pub resumable: bool,
    pub replicas: Vec<Arc<Member>>,
    /// The log gets what our commands do.
    attached: bool,
    /// Since when nobody reads the log, Unix ms.
    idle_since_ms: i64,
    /// The least position of the log that is needed beside the replicas', as of the last look.
    awaited: Option<u64>,
    /// A failover under way, as INFO names it.
    pub failover: Option<Failover>,
    /// Places of the stream and of the append-only file that belong together, rising; the oldest may be on the disk.
    marks: VecDeque<(u64, u64)>,
    /// The stream up to here is on the disk.
    durable: Option<u64>,
}

/// A planned hand-over to a replica.
#[derive(Clone, Debug)]
pub struct Failover {
    pub target: Option<(Vec<u8>, u16)>,
    pub until_ms: Option<i64>,
    pub force: bool,
    /// We have stepped back and wait for the replica to take over.
    pub in_progress: bool,
}

/// A replica and its client.
#[derive(Debug)]
pub struct Member {
    pub info: Arc<ClientInfo>,
    pub replica: Replica,
}

impl Member {
    /// Whether it follows the stream, now or once it has the data set.
    pub fn is_stream(&self) -> bool {
        !self.replica.conf.rdb_only && !self.replica.conf.rdb_channel
    }
}

/// What PSYNC or SYNC asked for; the connection belongs to the replicas' thread from then on.
#[derive(Debug)]
pub struct SyncRequest {
    /// History and offset of the next byte; `None`: SYNC, of tools that know no histories.
    pub psync: Option<(String, i64)>,
    pub conf: ReplicaConf,
}

/// Everything about replication that all threads share.
#[derive(Debug)]
pub struct Replication {
    pub backlog: Arc<Backlog>,
    gate: AtomicU8,
    epoch: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
    pub syncs_full: AtomicU64,
    pub syncs_partial: AtomicU64,
    pub syncs_refused: AtomicU64,
    pub input_bytes: AtomicU64,
    pub output_bytes: AtomicU64,
    /// Replicas whose data set has gone out by a second connection and whose first one hasn't come back yet.
    pub waiting_psync: AtomicUsize,
    /// Seconds that those are waited for.
    pub psync_grace_s: AtomicU64,
    /// Bytes of our primary's stream that wait for its data set to be loaded.
    pub buffered: AtomicU64,
    /// DEBUG SLEEP: nothing is to be heard of us.
    pub asleep: AtomicBool,
    /// DEBUG PAUSE-AFTER-FORK: the process stops itself once its primary's snapshot has begun.
    pub stops_at_snapshot: AtomicBool,
    /// The end of the process, while it waits for replicas.
    pub shutdown: farewell::Farewell,
    /// Memory in buffers of links to replicas.
    pub link_bytes: AtomicU64,
    /// Ends the link to a primary that is ours no more.
    pub hang_up: upstream::HangUp,
    waits: waits::Waits,
    pub(crate) own_keys: own_keys::OwnKeys,
}

/// How long the other side of a link may be silent. Whole seconds beyond `repl-timeout`, as the reference counts them:
/// who says something every `repl-timeout` seconds isn't cut.
pub fn patience(config: &Config) -> Duration {
    Duration::from_secs(config.repl_timeout.saturating_add(1))
}

/// Pairs of places that are kept while the disk is behind.
const MARKS: usize = 1024;

/// A new history's id.
pub fn new_id() -> ReplId {
    let bits = kara_base::hash::random_u64;
    let text: String = (0..3).map(|_| format!("{:016x}", bits())).collect();
    text.chars().take(40).collect()
}

impl Default for Replication {
    fn default() -> Self {
        let state = State {
            ids: ReplIds::new(new_id()),
            primary: None,
            resumable: false,
            replicas: Vec::new(),
            attached: false,
            idle_since_ms: 0,
            awaited: None,
            failover: None,
            marks: VecDeque::new(),
            durable: None,
        };
        Replication {
            backlog: Arc::default(),
            gate: AtomicU8::new(0),
            epoch: AtomicU64::new(0),
            state: Mutex::new(state),
            changed: Condvar::new(),
            syncs_full: AtomicU64::new(0),
            syncs_partial: AtomicU64::new(0),
            syncs_refused: AtomicU64::new(0),
            input_bytes: AtomicU64::new(0),
            output_bytes: AtomicU64::new(0),
            waiting_psync: AtomicUsize::new(0),
            psync_grace_s: AtomicU64::new(60),
            buffered: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            stops_at_snapshot: AtomicBool::new(false),
            hang_up: upstream::HangUp::default(),
            shutdown: farewell::Farewell::default(),
            link_bytes: AtomicU64::new(0),
            waits: waits::Waits::default(),
            own_keys: own_keys::OwnKeys::default(),
        }
    }
}

impl Replication {
    /// What stands in commands' way; mostly nothing.
    #[inline]
    pub fn gate(&self) -> u8 {
        self.gate.load(Relaxed)
    }

    /// Whether we have a primary.
    #[inline]
    pub fn is_replica(&self) -> bool {
        self.gate() & gate::REPLICA != 0
    }

    /// Whether we are a replica to which clients may write.
    #[inline]
    pub fn is_writable_replica(&self) -> bool {
        self.gate() & (gate::REPLICA | gate::WRITABLE) == gate::REPLICA | gate::WRITABLE
    }

    /// `replica-read-only` changed.
    pub(crate) fn set_writable(&self, writable: bool) {
        self.set_gate(gate::WRITABLE, writable);
    }

    /// Counts changes of role.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(SeqCst)
    }

    /// Reads or changes the state.
    pub fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.state.lock())
    }

    fn set_gate(&self, bit: u8, on: bool) {
        if on {
            self.gate.fetch_or(bit, SeqCst);
        } else {
            self.gate.fetch_and(!bit, SeqCst);
        }
    }

    /// Why a script of a client may not run this command in our role, if so. `wrote`: it has written already.
    pub(crate) fn script_refusal(
        &self,
        command: Command,
        config: &Config,
        wrote: bool,
    ) -> Option<CommandError> {
        let gate = self.gate();
        if gate & gate::REPLICA != 0 {
            if !wrote && command.is(Flags::WRITE) && config.replica_read_only {
                return Some(read_only());
            }
            return (self.is_stale(config) && !command.is(Flags::STALE))
                .then_some(CommandError::text("ERR Can not execute the command on a stale replica"));
        }
        (!wrote && command.is(Flags::WRITE) && self.lacks_replicas(config)).then_some(FEW)
    }

    /// Whether what we have may be old, and may not be served.
    pub(crate) fn is_stale(&self, config: &Config) -> bool {
        let gate = self.gate();
        gate & gate::REPLICA != 0 && gate & gate::LINK_DOWN != 0 && !config.replica_serve_stale_data
    }

    /// Why a command may not run in our role, if so.
    #[cold]
    fn refusal(&self, flags: Flags, session: &Session, config: &Config) -> Option<CommandError> {
        let gate = self.gate();
        if gate & gate::ASYNC_LOADING != 0 && flags.contains(Flags::NO_ASYNC_LOADING) {
            return Some(CommandError::text("LOADING Valkey is loading the dataset in memory"));
        }
        if session.origin == Origin::Primary {
            let stale = session.epoch != self.epoch();
            return stale.then_some(CommandError::text("ERR The stream is not our primary's any more"));
        }
        let writes = flags.contains(Flags::WRITE);
        if gate & gate::REPLICA == 0 {
            return (writes && self.lacks_replicas(config)).then_some(FEW);
        }
        if writes && config.replica_read_only {
            return Some(read_only());
        }
        (self.is_stale(config) && !flags.contains(Flags::STALE)).then_some(STALE)
    }

    /// Appends what our primary sent and has been processed, unless the role has changed since `epoch`. `db`: what its
    /// stream has selected behind it.
    pub fn feed(&self, epoch: u64, bytes: &[u8], db: DbIndex) -> bool {
        let _no_change_meanwhile = self.state.lock();
        if self.epoch() != epoch {
            return false;
        }
        self.backlog.append_raw(bytes, Some(db));
        true
    }

    /// Notes that the append-only file holds what was processed of our primary's stream so far.
    pub fn mark(&self, shared: &Shared) {
        let aof = &shared.persist.aof;
        if !aof.is_on() {
            return;
        }
        let (offset, logged) = (self.backlog.end(), aof.appended());
        let mut state = self.state.lock();
        let is_full = state.marks.len() >= MARKS;
        match state.marks.back_mut() {
            Some(last) if last.1 == logged => last.0 = offset,
            Some(last) if is_full => *last = (offset, logged),
            _ => state.marks.push_back((offset, logged)),
        }
    }

    /// How much of our primary's stream is on our disk, if there is an append-only file that holds everything.
    pub fn durable(&self, shared: &Shared) -> Option<u64> {
        let logged = shared.persist.aof.durable()?;
        let mut state = self.state.lock();
        while let Some((offset, _)) = state.marks.front().copied().filter(|(_, at)| *at <= logged) {
            state.marks.pop_front();
            state.durable = Some(offset);
        }
        state.durable
    }

    /// A command for replicas that changes no data (PUBLISH).
    pub fn tell_replicas(&self, db: DbIndex, args: &[&[u8]]) {
        if self.state.lock().attached {
            self.backlog.append(db, args);
        }
    }

    /// Makes our commands' effects go to the log, or not any more. Every shard must be held.
    fn attach(&self, shared: &Shared, state: &mut State, on: bool) {
        if state.attached != on {
            state.attached = on;
            let sink: Arc<dyn JournalSink> = self.backlog.clone();
            if on {
                shared.keyspace.journal().attach(sink);
            } else {
                shared.keyspace.journal().detach(&sink);
            }
        }
    }

    /// Has a log for the first replica's sake. Every shard must be held.
    fn open_log(&self, shared: &Shared, state: &mut State, config: &Config) {
        if self.backlog.activate(config.repl_backlog_size) && state.primary.is_none() {
            // What was not logged can't be continued by anybody.
            state.ids = ReplIds::new(new_id());
        }
        if state.primary.is_none() {
            self.attach(shared, state, true);
        }
    }

    /// REPLICAOF host port. Every shard must be held.
    pub fn become_replica(&self, shared: &Shared, _: &Locked<'_>, host: &[u8], port: u16, failover: bool) {
        let mut state = self.state.lock();
        let now_ms = crate::persist::save::clock_ms();
        // At the start, what was loaded has a place in a stream only where its file says so.
        if state.primary.is_none() && !shared.loading.load(Relaxed) {
            state.resumable = true;
        }
        self.attach(shared, &mut state, false);
        state.primary = Some(Upstream {
            host: host.to_vec(),
            port,
            link: Link::Connect,
            worked: false,
            refusals: 0,
            heard_ms: 0,
            down_since_ms: now_ms,
            sync_read: 0,
            sync_total: 0,
            sync_ms: now_ms,
            read_offset: self.backlog.end(),
            failover,
            behind: None,
        });
        self.epoch.fetch_add(1, SeqCst);
        self.hang_up.now();
        self.set_gate(gate::REPLICA | gate::LINK_DOWN, true);
        drop(state);
        shared.config.update(|config| config.replicaof.0 = Some((host.to_vec(), port)));
        shared.host.role_changed(&shared.config.load());
        self.changed.notify_all();
        waits::unblock_all(shared);
    }

    /// A new history from here on, without a word of the old one.
    pub fn forget_history(&self) {
        self.state.lock().ids = ReplIds::new(new_id());
    }

    /// REPLICAOF NO ONE: what follows is a history of our own. Every shard must be held.
    pub fn become_primary(&self, shared: &Shared, _: &Locked<'_>) {
        let mut state = self.state.lock();
        if state.primary.take().is_none() {
            return;
        }
        self.epoch.fetch_add(1, SeqCst);
        self.hang_up.now();
        let end = self.backlog.end();
        state.ids.shift(new_id(), end);
        state.resumable = true;
        state.idle_since_ms = crate::persist::save::clock_ms();
        // They are to learn the new id.
        state.dismiss("Connection with replica ends: promoted", end);
        self.backlog.nudge();
        self.backlog.forget_db();
        if self.backlog.extent().active {
            self.attach(shared, &mut state, true);
        }
        self.set_gate(gate::REPLICA | gate::LINK_DOWN, false);
        drop(state);
        shared.config.update(|config| config.replicaof.0 = None);
        shared.host.role_changed(&shared.config.load());
        self.changed.notify_all();
    }

    /// Sleeps until there is a primary to connect to, and gives it with the epoch.
    pub fn await_primary(&self) -> (Upstream, u64) {
        let mut state = self.state.lock();
        loop {
            if let Some(primary) = &state.primary {
                return (primary.clone(), self.epoch());
            }
            self.changed.wait(&mut state);
        }
    }

    /// Judges a replica's wish: its position in the log, or that it needs everything.
    pub fn judge(&self, request: &SyncRequest) -> Result<u64, Refused> {
        let state = self.state.lock();
        let Some((id, offset)) = &request.psync else { return Err(Refused::Asked) };
        let verdict = state.ids.serve(id, *offset, self.backlog.extent());
        match verdict {
            Ok(_) => {
                self.syncs_partial.fetch_add(1, Relaxed);
            }
            Err(reason) => self.count_refusal(reason),
        }
        verdict
    }

    /// A replica wanted to go on where it was, and can't.
    pub(crate) fn count_refusal(&self, reason: Refused) {
        if reason != Refused::Asked {
            self.syncs_refused.fetch_add(1, Relaxed);
        }
    }

    /// CONFIG RESETSTAT.
    pub fn reset_counters(&self) {
        let counters = [&self.syncs_full, &self.syncs_partial, &self.syncs_refused];
        for counter in counters.into_iter().chain([&self.input_bytes, &self.output_bytes]) {
            counter.store(0, Relaxed);
        }
    }

    /// A replica has come.
    pub fn join(&self, member: Arc<Member>) {
        self.state.lock().replicas.push(member);
    }

    /// A client that is killed may be a replica: nothing is kept for it any more.
    pub fn dismiss_client(&self, id: kara_base::ids::ClientId) {
        let end = self.backlog.end();
        let state = self.state.lock();
        let Some(member) = state.replicas.iter().find(|member| member.info.id == id) else { return };
        member.replica.dismiss("Connection with replica was killed", end);
        drop(state);
        // At once, so that the next look at the memory finds it gone. For those that wait for their stream's connection
        // the thread of replicas does it: it knows their places.
        if self.waiting_psync.load(Relaxed) == 0 {
            self.keep_for(std::iter::empty());
        }
        self.backlog.nudge();
    }

    /// It has gone.
    pub fn part(&self, member: &Arc<Member>, now_ms: i64) {
        let mut state = self.state.lock();
        state.replicas.retain(|known| !Arc::ptr_eq(known, member));
        if state.replicas.is_empty() {
            state.idle_since_ms = now_ms;
        }
        // Who finds it gone finds the log without what was kept for it.
        self.keep(&state);
    }

    /// The log keeps what replicas still have to read, and what is needed from the given positions on.
    pub fn keep_for(&self, more: impl Iterator<Item = u64>) {
        let mut state = self.state.lock();
        state.awaited = more.min();
        self.keep(&state);
    }

    fn keep(&self, state: &State) {
        let reads = |m: &&Arc<Member>| {
            m.is_stream()
                && m.replica.state() != ReplicaState::WaitStart
                && !m.info.kill.load(Relaxed)
                && m.replica.ending().is_none_or(|e| e.end > 0)
        };
        let positions = state.replicas.iter().filter(reads).map(|m| m.replica.position.load(Relaxed));
        self.backlog.set_needed(positions.chain(state.awaited).min());
    }

    /// The same for a position beside those known, until the next look.
    pub fn keep_at_most(&self, position: u64) {
        self.keep_for(std::iter::once(position));
    }

    /// How many replicas have processed the stream up to an offset.
    pub fn acknowledged(&self, offset: u64) -> usize {
        let state = self.state.lock();
        let has = |m: &&Arc<Member>| m.replica.is_online() && m.replica.acked.load(Relaxed) >= offset;
        state.replicas.iter().filter(has).count()
    }

    /// The same for what their disks hold.
    pub fn acknowledged_on_disk(&self, offset: u64) -> usize {
        let state = self.state.lock();
        let has = |m: &&Arc<Member>| m.replica.is_online() && m.replica.synced.load(Relaxed) >= offset;
        state.replicas.iter().filter(has).count()
    }

    /// Replicas that were heard of within `min-replicas-max-lag`.
    pub fn good_replicas(&self, config: &Config, now_ms: i64) -> usize {
        let state = self.state.lock();
        let max = i64::try_from(config.min_replicas_max_lag).unwrap_or(i64::MAX);
        state.replicas.iter().filter(|m| m.replica.is_online() && m.replica.lag_s(now_ms) <= max).count()
    }

    /// Whether a primary has fewer good replicas than writes ask for.
    pub fn lacks_replicas(&self, config: &Config) -> bool {
        if config.min_replicas_to_write == 0 || config.min_replicas_max_lag == 0 || self.is_replica() {
            return false;
        }
        let now_ms = crate::persist::save::clock_ms();
        (self.good_replicas(config, now_ms) as u64) < config.min_replicas_to_write
    }

    /// Some times a second.
    pub fn cron(&self, shared: &Shared, config: &Config, now_ms: i64) {
        self.backlog_cron(shared, config, now_ms);
        self.failover_cron(shared, now_ms);
        self.shutdown.cron(shared, now_ms);
    }

    fn backlog_cron(&self, shared: &Shared, config: &Config, now_ms: i64) {
        self.backlog.resize(config.repl_backlog_size);
        let ttl_ms = i64::try_from(config.repl_backlog_ttl).unwrap_or(i64::MAX).saturating_mul(1000);
        let over = |state: &State| {
            state.primary.is_none()
                && state.attached
                && state.replicas.is_empty()
                && ttl_ms > 0
                && now_ms.saturating_sub(state.idle_since_ms) > ttl_ms
        };
        let is_over = over(&self.state.lock());
        let mut space = shared.keyspace.unlocked();
        // While a slow script holds the locks, the next tick tries again.
        if is_over && space.try_relock_all() {
            let mut state = self.state.lock();
            if over(&state) {
                // Whoever comes now can't tell what we do meanwhile: a history of its own.
                self.attach(shared, &mut state, false);
                self.backlog.deactivate();
                state.ids = ReplIds::new(new_id());
            }
        }
    }

    /// A planned hand-over goes on: the target has everything, or the time is over.
    fn failover_cron(&self, shared: &Shared, now_ms: i64) {
        let Some(failover) = self.state.lock().failover.clone() else { return };
        if failover.in_progress {
            return;
        }
        let timed_out = failover.until_ms.is_some_and(|until| now_ms >= until);
        if timed_out && !failover.force {
            self.end_failover(shared, "Replica never caught up before timeout");
            return;
        }
        let end = self.backlog.end();
        let target = {
            let state = self.state.lock();
            let caught_up = |m: &&Arc<Member>| m.replica.is_online() && m.replica.acked.load(Relaxed) >= end;
            let address =
                |m: &Arc<Member>| (m.replica.address().as_bytes().to_vec(), m.replica.conf.listening_port);
            match &failover.target {
                Some(target) if timed_out => Some(target.clone()),
                Some(target) => {
                    state.replicas.iter().filter(caught_up).map(address).find(|known| known == target)
                }
                None => state.replicas.iter().find(caught_up).map(address),
            }
        };
        let Some((host, port)) = target else {
            self.backlog.append_plain(&[b"REPLCONF", b"GETACK", b"*"]);
            return;
        };
        let name = format!("{}:{port}", String::from_utf8_lossy(&host));
        let why = if timed_out {
            format!("Failover to {name} time out exceeded, failing over.")
        } else {
            format!("Failover target {name} is synced, failing over.")
        };
        let space = shared.keyspace.lock_all();
        if !timed_out && self.backlog.end() != end {
            // Somebody had passed before writes were held back.
            return;
        }
        shared.host.log(Level::Notice, &why);
        if let Some(failover) = &mut self.state.lock().failover {
            failover.in_progress = true;
        }
        // The pause goes on: nobody writes until the target has taken over.
        self.become_replica(shared, &space, &host, port, true);
    }

    /// The target won't have it: we go on as the primary that we were.
    pub fn failover_rejected(&self, shared: &Shared, epoch: u64) {
        let space = shared.keyspace.lock_all();
        let ours = self.state.lock().failover.as_ref().is_some_and(|failover| failover.in_progress);
        if ours && self.epoch() == epoch {
            shared.host.log(Level::Notice, "Failover target rejected psync request");
            self.become_primary(shared, &space);
            self.end_failover(shared, "the target refused");
        }
    }

    /// The hand-over is over, one way or the other: clients may write again.
    pub fn end_failover(&self, shared: &Shared, why: &str) {
        if self.state.lock().failover.take().is_some() {
            shared.host.log(Level::Notice, &format!("FAILOVER: {why}"));
            shared.pause.hold(Hold::Failover, false);
            shared.resume_all();
        }
    }

    /// Who waits in WAIT.
    pub fn waits(&self) -> &waits::Waits {
        &self.waits
    }
}

impl State {
    /// All replicas shall connect anew: what follows `end` in the log is of another history.
    pub fn dismiss(&mut self, why: &'static str, end: u64) {
        for member in &self.replicas {
            member.replica.dismiss(why, end);
        }
    }
}

/// A replica without its primary's data of now doesn't serve.
pub(crate) const STALE: CommandError =
    CommandError::text("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.");
const FEW: CommandError = CommandError::text("NOREPLICAS Not enough good replicas to write.");

/// The error for writes on a replica.
pub fn read_only() -> CommandError {
    CommandError::text("READONLY You can't write against a read only replica.")
}

/// Where a command belongs that a client sends to a replica, though it can be sent on.
pub(crate) enum Elsewhere {
    To(CommandError),
    /// That isn't settled yet.
    Later,
}

impl Engine {
    /// Whether the client shall ask the primary itself (CLIENT CAPA REDIRECT).
    pub(crate) fn redirection(&self, command: Command, session: &Session) -> Option<Elsewhere> {
        let replication = &self.shared.replication;
        let may_be = replication.is_replica()
            && session.origin == Origin::Client
            && session.info.capa_redirect.load(Relaxed)
            && !self.config.cluster_enabled;
        if !may_be {
            return None;
        }
        let reads_here = session.info.flags().contains(ClientFlags::READONLY);
        let touches =
            |command: Command| command.is(Flags::WRITE) || command.is(Flags::READONLY) && !reads_here;
        let queued = || session.multi.iter().flat_map(|multi| multi.queue.commands());
        if !(touches(command) || command.role == Role::Exec && queued().any(touches)) {
            return None;
        }
        replication.with(|state| {
            if state.failover.as_ref().is_some_and(|failover| failover.in_progress) {
                return Some(Elsewhere::Later);
            }
            let primary = state.primary.as_ref()?;
            let host = String::from_utf8_lossy(&primary.host);
            Some(Elsewhere::To(CommandError::owned(format!("REDIRECT {host}:{}", primary.port))))
        })
    }

    /// Whether our role refuses the command. To be asked before a command is queued or run, and again under its locks.
    #[inline]
    pub(crate) fn role_refusal(
        &self,
        command: Command,
        session: &Session,
        args: &[&[u8]],
    ) -> Option<CommandError> {
        let replication = &self.shared.replication;
        if replication.gate() == 0
            && session.origin == Origin::Client
            && self.config.min_replicas_to_write == 0
        {
            return None;
        }
        let mut flags = flags_of(&self.shared, command, args);
        if command.role == Role::Exec {
            // It is what it holds.
            let queued = session.multi.iter().flat_map(|multi| multi.queue.iter());
            let each = queued.map(|queued| flags_of(&self.shared, queued.command, &queued.args));
            let (mut all, mut any) = (Flags::all(), Flags::empty());
            each.for_each(|flags| (all, any) = (all & flags, any | flags));
            flags.set(Flags::WRITE, any.contains(Flags::WRITE));
            flags.set(Flags::STALE, all.contains(Flags::STALE));
        }
        replication.refusal(flags, session, &self.config)
    }
}
