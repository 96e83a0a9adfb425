//! `maxmemory-clients`: the largest clients are closed where all of them together take too much.

use crate::clients::ClientId;
use crate::log::Level;
use crate::pipeline::Engine;
use crate::session::Session;
use crate::shared::Message;

/// With less, nobody could talk to the server to set it right.
const LEAST_LIMIT: u64 = 128 << 10;

impl Engine {
    /// Behind a connection's turn: closes clients, the largest first, until the rest takes no more than the limit. The
    /// worker's own are its to close, at once; they are answered.
    #[inline]
    pub fn limit_clients(&mut self) -> Vec<ClientId> {
        match self.config.maxmemory_clients.limit_bytes(self.config.maxmemory) {
            Some(limit) if self.shared.clients.memory() > limit.max(LEAST_LIMIT) => {
                self.evict_clients(limit.max(LEAST_LIMIT))
            }
            _ => Vec::new(),
        }
    }

    /// Before keys go: clients beyond their limit go first. The worker closes them at its turn's end; what they hold
    /// counts as free from now on.
    pub(super) fn evict_clients_first(&mut self, session: &Session, reply_bytes: usize) {
        let Some(limit) = self.config.maxmemory_clients.limit_bytes(self.config.maxmemory) else { return };
        // What the batch at hand has answered so far isn't in the client's own figures yet.
        self.shared.clients.note_reply(&session.info, reply_bytes as u64);
        if self.shared.clients.memory() <= limit.max(LEAST_LIMIT) {
            return;
        }
        for client in self.evict_clients(limit.max(LEAST_LIMIT)) {
            self.shared.host.post_to_self(self.worker, Message::Kill { client });
            self.own_mail = true;
        }
    }

    #[cold]
    fn evict_clients(&mut self, limit: u64) -> Vec<ClientId> {
        let shared = &*self.shared;
        let mut own = Vec::new();
        for client in shared.clients.evictable() {
            if shared.clients.memory() <= limit {
                break;
            }
            if !shared.clients.mark_evicted(&client) {
                continue;
            }
            // As with CLIENT KILL: who is closed is served no more.
            shared.waiting.abandon(&client);
            shared.stats.worker(self.worker).evicted_clients.add(1);
            let text = format!("Evicting client: id={} addr={}", client.id, client.addr);
            shared.host.log(Level::Notice, &text);
            if client.worker == self.worker {
                own.push(client.id);
            } else {
                shared.host.post(client.worker, Message::Kill { client: client.id });
            }
        }
        own
    }
}
