//! WAIT: clients that wait for replicas, and those that a change of role sends away.

use crate::blocking::Waiter;
use crate::clients::ClientInfo;
use crate::shared::{Message, Shared};
use kara_resp::Writer;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

/// Clients in WAIT.
#[derive(Debug, Default)]
pub struct Waits {
    list: Mutex<Vec<Waiting>>,
    len: AtomicUsize,
}

#[derive(Debug)]
struct Waiting {
    client: Arc<ClientInfo>,
    offset: u64,
    replicas: usize,
    /// The wait has been entered into the waiting lists.
    seen: Option<Arc<Waiter>>,
}

impl Waits {
    pub fn is_empty(&self) -> bool {
        self.len.load(Relaxed) == 0
    }

    /// A client begins to wait.
    pub fn add(&self, client: Arc<ClientInfo>, offset: u64, replicas: usize) {
        let mut list = self.list.lock();
        list.retain(|known| known.client.id != client.id);
        list.push(Waiting { client, offset, replicas, seen: None });
        self.len.store(list.len(), SeqCst);
    }

    /// Answers everybody whose replicas are through, and forgets who has given up.
    pub fn serve(&self, shared: &Shared) {
        let mut list = self.list.lock();
        list.retain_mut(|waiting| {
            let now = waiting.client.waiter.lock().clone();
            match (&waiting.seen, now) {
                // Not there yet, or gone before anybody looked: it can't be told apart, but the client is.
                (None, None) => return shared.clients.get(waiting.client.id).is_some(),
                (None, Some(waiter)) => waiting.seen = Some(waiter),
                (Some(seen), now) if now.as_ref().is_none_or(|now| !Arc::ptr_eq(seen, now)) => return false,
                (Some(_), _) => {}
            }
            let Some(waiter) = waiting.seen.clone() else { return true };
            let count = shared.replication.acknowledged(waiting.offset);
            if count < waiting.replicas {
                return true;
            }
            if let Some(claim) = waiter.claim() {
                claim.end();
                let mut reply = Writer::new(waiter.what.protocol);
                reply.integer(count as i64);
                let message = Message::Served { client: waiting.client.id, reply: reply.take() };
                shared.host.post(waiting.client.worker, message);
            }
            false
        });
        self.len.store(list.len(), SeqCst);
    }
}

/// Ends the waits of all clients for keys: nobody will write here any more.
pub(super) fn unblock_all(shared: &Shared) {
    for client in shared.clients.all() {
        let Some(waiter) = client.waiter.lock().clone() else { continue };
        let Some(claim) = waiter.claim() else { continue };
        claim.end();
        shared.waiting.leave(&waiter);
        let mut reply = Writer::new(waiter.what.protocol);
        reply.error(
            "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
        );
        shared.host.post(client.worker, Message::Served { client: client.id, reply: reply.take() });
    }
}
