//! Messages for clients, on their way to the workers that own them. A command puts them here, the pipeline posts them
//! once it has run; a worker writes them behind what its client was answered so far.
//!
//! Everything goes through the mailboxes, to clients of the own worker too: whatever a client is told of first, it
//! sees first, whoever told it.

use crate::clients::{ClientId, ClientInfo};
use crate::pubsub::Name;
use crate::session::Session;
use crate::shared::Message;
use crate::tracking::Broadcasts;
use kara_resp::Protocol;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A client, as its worker finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: ClientId,
    /// The connection's place at its worker; another client may have it by now, hence the number.
    pub slot: u32,
}

impl Member {
    /// The member that a client is.
    pub fn of(info: &ClientInfo) -> Self {
        Member { id: info.id, slot: info.slot.load(Relaxed) }
    }
}

/// What clients of one worker are told.
#[derive(Clone, Debug)]
pub enum Push {
    /// A published message, encoded once for all. `bytes` begins with RESP3's kind of aggregate. `near`: of the own
    /// worker, so that nothing happened since.
    Published { name: Name, bytes: Arc<[u8]>, to: Arc<Vec<Member>>, near: bool },
    /// A line of MONITOR.
    Line { bytes: Arc<[u8]>, to: Arc<Vec<Member>> },
    /// Keys that are no longer what was read; `keys` is the encoded array, or null for all of them.
    Invalidate { to: Member, redirected: bool, keys: Arc<[u8]> },
    /// Invalidations go to a client that isn't there any more.
    RedirectBroken { to: Member, redirect: ClientId },
}

impl Push {
    /// The clients it is for.
    #[inline]
    pub fn to(&self) -> &[Member] {
        match self {
            Push::Published { to, .. } | Push::Line { to, .. } => to,
            Push::Invalidate { to, .. } | Push::RedirectBroken { to, .. } => std::slice::from_ref(to),
        }
    }

    /// Roughly the bytes that it holds, shared ones included.
    pub fn weight(&self) -> usize {
        size_of::<Push>()
            + match self {
                Push::Published { bytes, .. } | Push::Line { bytes, .. } => bytes.len(),
                Push::Invalidate { keys, .. } => keys.len(),
                Push::RedirectBroken { .. } => 0,
            }
    }

    /// Writes it as this client reads it; nothing where it doesn't want it any more.
    #[inline]
    pub fn write(&self, session: &Session, out: &mut Vec<u8>) {
        let resp3 = session.protocol == Protocol::Resp3;
        match self {
            Push::Published { name, bytes, near, .. } => {
                let Some((_, rest)) = bytes.split_first() else { return };
                // It may have unsubscribed while this was under way from another worker.
                if *near || session.subscriptions.may_want(name) {
                    out.reserve(bytes.len());
                    out.push(if resp3 { b'>' } else { b'*' });
                    out.extend_from_slice(rest);
                }
            }
            Push::Line { bytes, .. } => {
                if session.monitor {
                    out.extend_from_slice(bytes);
                }
            }
            Push::Invalidate { redirected, keys, .. } => {
                if resp3 {
                    out.extend_from_slice(b">2\r\n$10\r\ninvalidate\r\n");
                } else if *redirected && session.is_subscribed() {
                    out.extend_from_slice(b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n");
                } else {
                    return;
                }
                out.extend_from_slice(keys);
            }
            Push::RedirectBroken { redirect, .. } => {
                if resp3 {
                    out.extend_from_slice(b">2\r\n$21\r\ntracking-redir-broken\r\n:");
                    out.extend_from_slice(itoa::Buffer::new().format(redirect.0).as_bytes());
                    out.extend_from_slice(b"\r\n");
                }
            }
        }
    }
}

/// What a command has to tell, in order.
#[derive(Debug, Default)]
pub struct Outbox {
    mail: Vec<(usize, Message)>,
    /// What the command's own client is told of keys that it had read: behind everything else.
    last: Vec<(usize, Message)>,
    /// Changed keys for clients that track by prefix; they hear of them once per batch of requests.
    pub(crate) broadcasts: Broadcasts,
}

impl Outbox {
    /// Adds a message for clients of a worker.
    pub fn push(&mut self, worker: usize, push: Push) {
        self.mail.push((worker, Message::Push(push)));
    }

    /// Adds a message that stands behind all others of the command.
    pub fn push_last(&mut self, worker: usize, push: Push) {
        self.last.push((worker, Message::Push(push)));
    }

    /// Whether nothing waits to be posted.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.mail.is_empty() && self.last.is_empty()
    }

    /// Takes what waits to be posted; what is for the batch's end stays.
    pub fn take(&mut self) -> Outbox {
        let (mail, last) = (std::mem::take(&mut self.mail), std::mem::take(&mut self.last));
        Outbox { mail, last, ..Outbox::default() }
    }

    /// Takes what waits, with the workers that it is for.
    pub fn drain(&mut self) -> std::vec::Drain<'_, (usize, Message)> {
        self.mail.append(&mut self.last);
        self.mail.drain(..)
    }
}
