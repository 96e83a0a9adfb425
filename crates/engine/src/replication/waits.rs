//! WAIT and WAITAOF: clients that wait for replicas and disks, and those that a change of role sends away.

use crate::blocking::Waiter;
use crate::clients::ClientInfo;
use crate::shared::{Message, Shared};
use kara_resp::Writer;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

/// What a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// So many replicas have processed the stream up to the offset.
    Replicas { offset: u64, count: usize },
    /// The disks of so many replicas hold it, and with `local` ours holds the append-only file up to its own offset.
    Disks { offset: u64, count: usize, local: bool, logged: u64 },
}

impl Goal {
    /// Writes how far it is.
    pub fn write(self, shared: &Shared, reply: &mut Writer) {
        match self {
            Goal::Replicas { offset, .. } => {
                reply.integer(shared.replication.acknowledged(offset) as i64);
            }
            Goal::Disks { offset, local, logged, .. } => {
                if local && !shared.config.load().appendonly {
                    reply.error(NO_APPEND_ONLY);
                    return;
                }
                reply.array(2);
                reply.integer(i64::from(is_logged(shared, logged)));
                reply.integer(shared.replication.acknowledged_on_disk(offset) as i64);
            }
        }
    }

    /// Whether the wait is over.
    pub fn is_reached(self, shared: &Shared) -> bool {
        match self {
            Goal::Replicas { offset, count } => shared.replication.acknowledged(offset) >= count,
            Goal::Disks { offset, count, local, logged } => {
                let hopeless = local && !shared.config.load().appendonly;
                let here = !local || is_logged(shared, logged);
                hopeless || here && shared.replication.acknowledged_on_disk(offset) >= count
            }
        }
    }
}

/// The error where there is no file to wait for.
pub const NO_APPEND_ONLY: &str =
    "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.";

/// Our own append-only file is on the disk up to there.
fn is_logged(shared: &Shared, logged: u64) -> bool {
    shared.persist.aof.durable().is_some_and(|durable| durable >= logged)
}

/// Clients in WAIT.
#[derive(Debug, Default)]
pub struct Waits {
    list: Mutex<Vec<Waiting>>,
    len: AtomicUsize,
}

#[derive(Debug)]
struct Waiting {
    client: Arc<ClientInfo>,
    goal: Goal,
    /// The wait has been entered into the waiting lists.
    seen: Option<Arc<Waiter>>,
}

impl Waits {
    pub fn is_empty(&self) -> bool {
        self.len.load(Relaxed) == 0
    }

    /// A client begins to wait.
    pub fn add(&self, client: Arc<ClientInfo>, goal: Goal) {
        let mut list = self.list.lock();
        list.retain(|known| known.client.id != client.id);
        list.push(Waiting { client, goal, seen: None });
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
            if !waiting.goal.is_reached(shared) {
                return true;
            }
            if let Some(claim) = waiter.claim() {
                claim.end();
                let mut reply = Writer::new(waiter.what.protocol);
                waiting.goal.write(shared, &mut reply);
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
        let stats = shared.stats.worker(shared.workers);
        let tracks = shared.config.load().latency_tracking;
        stats.command(waiter.what.command.id).record(waiter.what.first_ns, tracks);
        stats.command(waiter.what.command.id).rejected.add(1);
        let mut reply = Writer::new(waiter.what.protocol);
        reply.error(
            "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
        );
        shared.host.post(client.worker, Message::Served { client: client.id, reply: reply.take() });
    }
}
