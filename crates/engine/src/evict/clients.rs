//! `maxmemory-clients`: the largest clients are closed where all of them together take too much.

use crate::log::Level;
use crate::pipeline::Engine;
use crate::shared::Message;

/// With less, nobody could talk to the server to set it right.
const LEAST_LIMIT: u64 = 128 << 10;

impl Engine {
    /// Behind a connection's turn: closes clients, the largest first, until the rest takes less than the limit.
    #[inline]
    pub fn limit_clients(&mut self) {
        if let Some(limit) = self.config.maxmemory_clients.limit_bytes(self.config.maxmemory) {
            let limit = limit.max(LEAST_LIMIT);
            if self.shared.clients.memory() >= limit {
                self.evict_clients(limit);
            }
        }
    }

    #[cold]
    fn evict_clients(&mut self, limit: u64) {
        let shared = &*self.shared;
        for client in shared.clients.evictable() {
            if shared.clients.memory() < limit {
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
            let message = Message::Kill { client: client.id };
            if client.worker == self.worker {
                shared.host.post_to_self(client.worker, message);
                self.own_mail = true;
            } else {
                shared.host.post(client.worker, message);
            }
        }
    }
}
