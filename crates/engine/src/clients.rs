//! The connected clients as others see them: what CLIENT LIST shows and CLIENT KILL reaches, from any worker.

use crate::acl::Account;
use crate::blocking::Waiter;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed,
};

pub use kara_base::ids::ClientId;

/// What kind of limits and output a client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ClientKind {
    Normal = 0,
    PubSub = 1,
    Replica = 2,
    Primary = 3,
}

impl ClientKind {
    /// The name in CLIENT KILL TYPE and `client-output-buffer-limit`.
    pub fn name(self) -> &'static str {
        match self {
            ClientKind::Normal => "normal",
            ClientKind::PubSub => "pubsub",
            ClientKind::Replica => "replica",
            ClientKind::Primary => "primary",
        }
    }

    /// The inverse of `as u8`; unknown numbers are normal clients.
    pub fn from_u8(n: u8) -> Self {
        match n {
            1 => ClientKind::PubSub,
            2 => ClientKind::Replica,
            3 => ClientKind::Primary,
            _ => ClientKind::Normal,
        }
    }
}

bitflags::bitflags! {
    /// State that CLIENT LIST shows as letters.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ClientFlags: u32 {
        const MULTI = 1 << 0;
        const DIRTY_EXEC = 1 << 1;
        const BLOCKED = 1 << 2;
        const CLOSE_AFTER_REPLY = 1 << 3;
        const UNIX_SOCKET = 1 << 4;
        const MONITOR = 1 << 5;
        const PUBSUB = 1 << 6;
        const READONLY = 1 << 7;
        const TRACKING = 1 << 8;
        const TRACKING_BROKEN_REDIRECT = 1 << 9;
        const TRACKING_BCAST = 1 << 10;
        const NO_EVICT = 1 << 11;
        const NO_TOUCH = 1 << 12;
        const REPLICA = 1 << 13;
        const PRIMARY = 1 << 14;
        const CLOSE_ASAP = 1 << 15;
        const UNBLOCKED = 1 << 16;
        const IMPORT_SOURCE = 1 << 17;
    }
}

/// Names that the client gave.
#[derive(Clone, Debug)]
pub struct ClientNames {
    pub name: Vec<u8>,
    pub lib_name: Vec<u8>,
    pub lib_ver: Vec<u8>,
    /// Whose rights it has.
    pub account: Arc<Account>,
}

/// One client's public face. Its worker writes, anybody reads.
#[derive(Debug)]
pub struct ClientInfo {
    pub id: ClientId,
    pub worker: usize,
    /// The connection's place among its worker's.
    pub slot: AtomicU32,
    /// `ip:port`, `[ip]:port` or `path:0`.
    pub addr: String,
    pub laddr: String,
    pub fd: i32,
    pub created_ms: i64,
    pub names: Mutex<ClientNames>,
    pub last_interaction_ms: AtomicI64,
    pub db: AtomicU32,
    pub kind: AtomicU8,
    pub flags: AtomicU32,
    pub last_command: AtomicU16,
    /// Queued commands, -1 outside MULTI.
    pub multi: AtomicI64,
    pub watched: AtomicU32,
    pub subscriptions: AtomicU32,
    pub pattern_subscriptions: AtomicU32,
    pub shard_subscriptions: AtomicU32,
    pub protocol: AtomicU8,
    pub redirect: AtomicI64,
    pub capa_redirect: AtomicBool,
    pub query_bytes: AtomicU64,
    pub query_capacity: AtomicU64,
    pub argv_bytes: AtomicU64,
    pub multi_bytes: AtomicU64,
    pub output_bytes: AtomicU64,
    pub output_list_len: AtomicU64,
    pub output_list_bytes: AtomicU64,
    pub reply_buffer_bytes: AtomicU64,
    pub reply_buffer_peak: AtomicU64,
    pub total_bytes: AtomicU64,
    /// What of it is part of the sum that `maxmemory-clients` limits.
    counted_bytes: AtomicU64,
    /// Of a client that is to be closed for its memory: what it held.
    evicted_bytes: AtomicU64,
    pub net_in: AtomicU64,
    pub net_out: AtomicU64,
    pub commands: AtomicU64,
    /// The client's place in the waiting lists, for CLIENT UNBLOCK.
    pub waiter: Mutex<Option<Arc<Waiter>>>,
    /// Set by CLIENT KILL; the worker closes the connection when it next looks.
    pub kill: AtomicBool,
}

/// No command yet.
pub const NO_COMMAND: u16 = u16::MAX;

impl ClientInfo {
    /// A client that just connected.
    pub fn new(
        id: ClientId,
        worker: usize,
        addr: String,
        laddr: String,
        fd: i32,
        now_ms: i64,
        flags: ClientFlags,
    ) -> Self {
        ClientInfo {
            id,
            worker,
            slot: AtomicU32::new(0),
            addr,
            laddr,
            fd,
            created_ms: now_ms,
            names: Mutex::new(ClientNames {
                name: Vec::new(),
                lib_name: Vec::new(),
                lib_ver: Vec::new(),
                account: Account::of_server(),
            }),
            last_interaction_ms: AtomicI64::new(now_ms),
            db: AtomicU32::new(0),
            kind: AtomicU8::new(0),
            flags: AtomicU32::new(flags.bits()),
            last_command: AtomicU16::new(NO_COMMAND),
            multi: AtomicI64::new(-1),
            watched: AtomicU32::new(0),
            subscriptions: AtomicU32::new(0),
            pattern_subscriptions: AtomicU32::new(0),
            shard_subscriptions: AtomicU32::new(0),
            protocol: AtomicU8::new(2),
            redirect: AtomicI64::new(-1),
            capa_redirect: AtomicBool::new(false),
            query_bytes: AtomicU64::new(0),
            query_capacity: AtomicU64::new(0),
            argv_bytes: AtomicU64::new(0),
            multi_bytes: AtomicU64::new(0),
            output_bytes: AtomicU64::new(0),
            output_list_len: AtomicU64::new(0),
            output_list_bytes: AtomicU64::new(0),
            reply_buffer_bytes: AtomicU64::new(0),
            reply_buffer_peak: AtomicU64::new(0),
            total_bytes: AtomicU64::new(0),
            counted_bytes: AtomicU64::new(0),
            evicted_bytes: AtomicU64::new(0),
            net_in: AtomicU64::new(0),
            net_out: AtomicU64::new(0),
            commands: AtomicU64::new(0),
            waiter: Mutex::new(None),
            kill: AtomicBool::new(false),
        }
    }

    /// The flags now.
    pub fn flags(&self) -> ClientFlags {
        ClientFlags::from_bits_truncate(self.flags.load(Relaxed))
    }

    /// Sets or clears flags, from any thread.
    pub fn set_flag(&self, flag: ClientFlags, on: bool) {
        if on {
            self.flags.fetch_or(flag.bits(), Relaxed);
        } else {
            self.flags.fetch_and(!flag.bits(), Relaxed);
        }
    }

    /// The kind now.
    pub fn kind(&self) -> ClientKind {
        ClientKind::from_u8(self.kind.load(Relaxed))
    }
}

/// Everybody who is connected.
#[derive(Debug, Default)]
pub struct Clients {
    next_id: AtomicU64,
    by_id: RwLock<BTreeMap<ClientId, Arc<ClientInfo>>>,
    /// What all clients but replicas take, bytes.
    memory: AtomicI64,
    /// What those hold that are to be closed for it, bytes.
    evicted: AtomicU64,
}

impl Clients {
    /// A fresh number; the first is 1.
    pub fn next_id(&self) -> ClientId {
        ClientId(self.next_id.fetch_add(1, Relaxed) + 1)
    }

    /// Adds a client.
    pub fn insert(&self, client: Arc<ClientInfo>) {
        self.by_id.write().insert(client.id, client);
    }

    /// Removes a client that is gone.
    pub fn remove(&self, id: ClientId) {
        if let Some(client) = self.by_id.write().remove(&id) {
            self.count(&client, 0);
            self.evicted.fetch_sub(client.evicted_bytes.swap(0, Relaxed), Relaxed);
        }
    }

    /// Beside what it takes, answers of so many bytes wait to be given to it.
    pub fn note_reply(&self, client: &ClientInfo, bytes: u64) {
        if client.counted_bytes.load(Relaxed) > 0 {
            self.count(client, client.total_bytes.load(Relaxed) + bytes);
        }
    }

    /// What those hold that are to be closed for their memory, bytes.
    pub fn evicted_bytes(&self) -> u64 {
        self.evicted.load(Relaxed)
    }

    /// A client takes so many bytes now. Its worker's to say.
    #[inline]
    pub fn note_memory(&self, client: &ClientInfo, bytes: u64) {
        if client.total_bytes.load(Relaxed) != bytes || client.counted_bytes.load(Relaxed) != bytes {
            client.total_bytes.store(bytes, Relaxed);
            let counts = matches!(client.kind(), ClientKind::Normal | ClientKind::PubSub);
            self.count(client, if counts && !client.kill.load(Relaxed) { bytes } else { 0 });
        }
    }

    /// Puts a client's bytes into the sum, in the place of what it had there. Answers that.
    fn count(&self, client: &ClientInfo, bytes: u64) -> u64 {
        let before = client.counted_bytes.swap(bytes, Relaxed);
        if before != bytes {
            self.memory.fetch_add(bytes as i64 - before as i64, Relaxed);
        }
        before
    }

    /// What all clients but replicas take, bytes.
    #[inline]
    pub fn memory(&self) -> u64 {
        u64::try_from(self.memory.load(Relaxed)).unwrap_or(0)
    }

    /// The clients that may be closed for their memory, the largest first.
    pub fn evictable(&self) -> Vec<Arc<ClientInfo>> {
        let mut clients = self.all();
        let is_safe = |client: &ClientInfo| client.flags().contains(ClientFlags::NO_EVICT);
        clients.retain(|client| client.counted_bytes.load(Relaxed) > 0 && !is_safe(client));
        clients.sort_by_key(|client| std::cmp::Reverse(client.counted_bytes.load(Relaxed)));
        clients
    }

    /// Marks a client to be closed and takes what it holds out of the sum; false if somebody else has.
    pub fn mark_evicted(&self, client: &ClientInfo) -> bool {
        let first = !client.kill.swap(true, Relaxed);
        let held = self.count(client, 0);
        if first {
            client.evicted_bytes.store(held, Relaxed);
            self.evicted.fetch_add(held, Relaxed);
        }
        first
    }

    /// One client.
    pub fn get(&self, id: ClientId) -> Option<Arc<ClientInfo>> {
        self.by_id.read().get(&id).cloned()
    }

    /// All clients by number, oldest first.
    pub fn all(&self) -> Vec<Arc<ClientInfo>> {
        self.by_id.read().values().cloned().collect()
    }

    /// How many are connected.
    pub fn len(&self) -> usize {
        self.by_id.read().len()
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
