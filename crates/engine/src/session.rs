//! One connection's state as commands see and change it; owned by the worker that owns the socket.

use crate::acl::{Account, Acl, Rights};
use crate::blocking::Waiter;
use crate::clients::{ClientFlags, ClientId, ClientInfo, ClientKind};
use crate::pubsub::Subscriptions;
use crate::queue::CommandQueue;
use crate::replication::SyncRequest;
use crate::shared::Shared;
use crate::tracking::TrackingState;
use crate::watch::{WatchedKey, Watches};
use kara_base::ids::DbIndex;
use kara_replication::replica::ReplicaConf;
use kara_resp::Protocol;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Whose command runs. A value, never a fake client: what differs by origin is decided by looking at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Client,
    Primary,
    Script,
    Exec,
    AofLoad,
}

/// CLIENT REPLY's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyMode {
    On,
    Off,
    /// The command after this one is not answered.
    SkipNext,
    /// This command is the one that is not answered.
    Skipping,
}

/// Commands between MULTI and EXEC.
#[derive(Debug, Default)]
pub struct Multi {
    pub queue: CommandQueue,
    /// A command was refused while queueing: EXEC answers EXECABORT.
    pub aborted: bool,
}

/// One client's session.
#[derive(Debug)]
pub struct Session {
    pub info: Arc<ClientInfo>,
    pub db: DbIndex,
    pub protocol: Protocol,
    pub authenticated: bool,
    account: Arc<Account>,
    /// The account's definition as of `acl_generation`.
    rights: Option<Arc<Rights>>,
    acl_generation: u64,
    unrestricted: bool,
    pub reply_mode: ReplyMode,
    pub multi: Option<Box<Multi>>,
    /// Answer what is there, then close.
    pub close_after_reply: bool,
    /// The connection shall be closed without further answers.
    pub close_now: bool,
    pub no_touch: bool,
    pub no_evict: bool,
    pub import_source: bool,
    /// The client's place in the waiting lists, while it waits.
    pub waiting: Option<Arc<Waiter>>,
    pub subscriptions: Subscriptions,
    pub tracking: Option<Box<TrackingState>>,
    /// The reply at hand is a message, which is sent whatever CLIENT REPLY says.
    pub reply_is_push: bool,
    /// Sees every command (MONITOR).
    pub monitor: bool,
    /// Watched keys, and whether each existed then.
    pub watched: Vec<(WatchedKey, bool)>,
    /// Whose commands these are: a client's, or our primary's.
    pub origin: Origin,
    /// Of a primary's stream: the role it belongs to.
    pub epoch: u64,
    /// What REPLCONF told so far.
    pub replica: Option<Box<ReplicaConf>>,
    /// The connection becomes a replica's: with `close_now`, it is handed over instead of being closed.
    pub handover: Option<Box<SyncRequest>>,
    /// The stream's offset behind the last write.
    pub written: u64,
    /// Readers of the journal that a running script keeps its effects from; see `OwnedCommand`.
    pub(crate) left_out: u8,
    watch_broken: Arc<AtomicBool>,
}

impl Session {
    /// A fresh session on database 0 in RESP2.
    pub fn new(info: Arc<ClientInfo>, authenticated: bool) -> Self {
        Session {
            info,
            db: DbIndex(0),
            protocol: Protocol::Resp2,
            authenticated,
            account: Account::of_server(),
            rights: None,
            acl_generation: 0,
            unrestricted: true,
            reply_mode: ReplyMode::On,
            multi: None,
            close_after_reply: false,
            close_now: false,
            no_touch: false,
            no_evict: false,
            import_source: false,
            waiting: None,
            subscriptions: Subscriptions::default(),
            tracking: None,
            reply_is_push: false,
            monitor: false,
            watched: Vec::new(),
            origin: Origin::Client,
            epoch: 0,
            replica: None,
            handover: None,
            written: 0,
            left_out: 0,
            watch_broken: Arc::default(),
        }
    }

    /// The client's number.
    pub fn id(&self) -> ClientId {
        self.info.id
    }

    /// Chooses a database.
    pub fn select(&mut self, db: DbIndex) {
        self.db = db;
        self.info.db.store(db.0, Relaxed);
    }

    /// Sets the protocol of the replies from the next one on.
    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
        self.info.protocol.store(if protocol == Protocol::Resp3 { 3 } else { 2 }, Relaxed);
    }

    /// The user whose rights hold from now on.
    pub fn log_in(&mut self, account: Arc<Account>) {
        self.info.names.lock().account = account.clone();
        self.act_for(account);
    }

    /// As `log_in`, for a session that stands in for a client's own.
    pub fn act_for(&mut self, account: Arc<Account>) {
        self.account = account;
        self.acl_generation = 0;
    }

    /// The user.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// What the user may do; `None`: everything.
    #[inline]
    pub fn restrictions(&mut self, acl: &Acl) -> Option<&Rights> {
        let generation = acl.generation();
        if self.acl_generation != generation {
            self.rights = self.account.rights();
            self.unrestricted = self.rights.as_ref().is_none_or(|rights| rights.is_unrestricted());
            self.acl_generation = generation;
        }
        if self.unrestricted { None } else { self.rights.as_deref() }
    }

    /// CLIENT NO-TOUCH.
    pub fn set_no_touch(&mut self, on: bool) {
        self.no_touch = on;
        self.info.set_flag(ClientFlags::NO_TOUCH, on);
    }

    /// CLIENT NO-EVICT.
    pub fn set_no_evict(&mut self, on: bool) {
        self.no_evict = on;
        self.info.set_flag(ClientFlags::NO_EVICT, on);
    }

    /// CLIENT IMPORT-SOURCE.
    pub fn set_import_source(&mut self, on: bool) {
        self.import_source = on;
        self.info.set_flag(ClientFlags::IMPORT_SOURCE, on);
    }

    /// Watches a key, under its lock; once is enough.
    pub fn watch(&mut self, watches: &Watches, key: WatchedKey, existed: bool) {
        if self.watched.iter().any(|(known, _)| *known == key) {
            return;
        }
        watches.add(key.clone(), self.info.id, &self.watch_broken, existed);
        self.watched.push((key, existed));
        self.info.watched.store(self.watched.len() as u32, Relaxed);
    }

    /// Forgets all watched keys and what happened to them.
    pub fn unwatch(&mut self, watches: &Watches) {
        if !self.watched.is_empty() {
            watches.remove(self.info.id, self.watched.drain(..).map(|(key, _)| key));
            self.info.watched.store(0, Relaxed);
        }
        self.watch_broken.store(false, Relaxed);
    }

    /// A watched key changed.
    pub fn is_watch_broken(&self) -> bool {
        self.watch_broken.load(Relaxed)
    }

    /// Begins queueing.
    pub fn begin_multi(&mut self) {
        self.multi = Some(Box::default());
        self.info.multi.store(0, Relaxed);
        self.info.set_flag(ClientFlags::MULTI, true);
    }

    /// Forgets the transaction.
    pub fn end_multi(&mut self) -> Option<Box<Multi>> {
        if self.multi.is_some() {
            // As the reference shows it from the first transaction on.
            self.info.multi.store(0, Relaxed);
        }
        self.info.multi_bytes.store(0, Relaxed);
        self.info.set_flag(ClientFlags::MULTI, false);
        self.info.set_flag(ClientFlags::DIRTY_EXEC, false);
        self.multi.take()
    }

    /// A command was refused while queueing.
    pub fn abort_multi(&mut self) {
        if let Some(multi) = &mut self.multi {
            multi.aborted = true;
            self.info.set_flag(ClientFlags::DIRTY_EXEC, true);
        }
    }

    /// Ends MONITOR, where that is on.
    pub fn end_monitor(&mut self, shared: &Shared) {
        if std::mem::take(&mut self.monitor) {
            shared.monitors.remove(&self.info);
            self.info.set_flag(ClientFlags::MONITOR, false);
        }
    }

    /// Ends CLIENT TRACKING, where that is on.
    pub fn end_tracking(&mut self, shared: &Shared) {
        if let Some(state) = self.tracking.take() {
            shared.tracking.disable(&self.info, &state);
        }
    }

    /// Ends everything that sends messages: subscriptions, tracking, MONITOR.
    pub fn end_messages(&mut self, shared: &Shared) {
        self.subscriptions.clear(&shared.pubsub, &self.info);
        self.end_tracking(shared);
        self.end_monitor(shared);
    }

    /// Bytes that the session holds beside its buffers, the small parts by rules of thumb.
    pub fn memory(&self) -> usize {
        /// A watched key, a subscription or a prefix: its text, an entry here and one in the table of all.
        const EACH: usize = 96;
        let info = &self.info;
        let subscribed = [&info.subscriptions, &info.pattern_subscriptions, &info.shard_subscriptions];
        let subscribed: u32 = subscribed.iter().map(|count| count.load(Relaxed)).sum();
        let prefixes = self.tracking.as_ref().map_or(0, |tracking| tracking.prefixes.len());
        let queued = self.multi.as_ref().map_or(0, |multi| multi.queue.memory_usage());
        queued + EACH * (self.watched.len() + subscribed as usize + prefixes)
    }

    /// In RESP2, a subscribed client may only manage its subscriptions.
    pub fn is_subscribed(&self) -> bool {
        self.info.kind() == ClientKind::PubSub
    }
}
