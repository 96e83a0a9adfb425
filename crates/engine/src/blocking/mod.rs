//! Clients that wait for a key: BLPOP and its like, XREAD and XREADGROUP with BLOCK; and WAIT, which waits for no key.
//!
//! A handler that finds nothing asks for the wait ([`WaitFor`]); the pipeline enters the client into the waiting lists
//! before the command's locks are released. Whoever makes a key ready runs the waiters' commands again, first come
//! first served, before its own locks are released ([`serve`]): nobody's command comes in between.

mod lists;
mod serve;
mod sync;

pub use lists::{Claim, Interest, Place};
pub(crate) use serve::{ReadyKeys, kind_now};

use crate::acl::Account;
use crate::clients::ClientInfo;
use crate::effect::OwnedCommand;
use crate::registry::Command;
use crate::replication::Goal;
use crate::session::Session;
use crate::shared::Shared;
use kara_base::ids::DbIndex;
use kara_keyspace::Kind;
use kara_resp::{Protocol, Writer};
use std::ops::Range;
use std::sync::Arc;

/// All waiting lists.
pub type WaitingLists = lists::WaitingLists<Wait>;
/// A client in the waiting lists.
pub type Waiter = lists::Waiter<Wait>;

impl WaitingLists {
    /// Ends a client's wait, if it waits, without an answer: it is going.
    pub fn abandon(&self, client: &ClientInfo) {
        let Some(waiter) = client.waiter.lock().clone() else { return };
        if let Some(claim) = waiter.claim() {
            claim.end();
            self.leave(&waiter);
        }
    }
}

/// What a handler asks for that has nothing to answer yet.
#[derive(Debug)]
pub struct WaitFor {
    /// The type of value that ends the wait.
    pub kind: Kind,
    /// Where the keys stand among the arguments.
    pub keys: Range<usize>,
    /// Milliseconds; 0 waits for ever.
    pub timeout_ms: i64,
    /// A key that goes away or changes its type ends the wait, too (XREADGROUP).
    pub on_nokey: bool,
    /// The arguments to run again with, where they aren't the same (XREAD's `$`).
    pub args: Option<OwnedCommand>,
    pub at_timeout: AtTimeout,
}

impl WaitFor {
    /// For a value of this type in one of the keys.
    pub fn key(kind: Kind, keys: Range<usize>, timeout_ms: i64) -> Self {
        WaitFor { kind, keys, timeout_ms, on_nokey: false, args: None, at_timeout: AtTimeout::NullArray }
    }
}

/// The answer when the time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtTimeout {
    NullArray,
    /// WAIT and WAITAOF: how far it is.
    Goal(Goal),
    /// Never: SHUTDOWN waits until the process ends or can't.
    Never,
}

impl AtTimeout {
    /// Writes it.
    pub fn write(self, shared: &Shared, reply: &mut Writer) {
        match self {
            AtTimeout::NullArray => reply.null_array(),
            AtTimeout::Goal(goal) => goal.write(shared, reply),
            AtTimeout::Never => {}
        }
    }
}

/// Who waits, and the command to run when a key is ready.
pub struct Wait {
    pub client: Arc<ClientInfo>,
    pub command: Command,
    pub args: OwnedCommand,
    pub db: DbIndex,
    pub protocol: Protocol,
    pub no_touch: bool,
    pub account: Arc<Account>,
    /// Hashes of all keys that the command touches.
    pub hashes: Vec<u64>,
    pub timeout_ms: i64,
    pub at_timeout: AtTimeout,
    /// What the first attempt took.
    pub first_ns: u64,
}

impl Wait {
    /// A session like the client's own, for a command that only looks at it. (The own one belongs to another thread.)
    fn session(&self) -> Session {
        let mut session = Session::new(self.client.clone(), true);
        session.db = self.db;
        session.protocol = self.protocol;
        session.no_touch = self.no_touch;
        session.act_for(self.account.clone());
        session
    }
}

/// How CLIENT UNBLOCK ends a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unblock {
    Timeout,
    Error,
}
