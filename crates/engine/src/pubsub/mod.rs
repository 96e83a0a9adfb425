//! Who listens to which channels and patterns, and what a message becomes on its way to them.
//!
//! A message is encoded once and posted once per worker that has subscribers. The locks here are taken last, after a
//! command's shard locks, and nothing else is locked under them.

mod audience;
mod notify;
mod subscriptions;

pub use audience::Audience;
pub(crate) use notify::notify;
pub use subscriptions::Subscriptions;

use crate::clients::{ClientId, ClientInfo};
use crate::outbox::{Outbox, Push};
use kara_base::glob::{self, Case};
use kara_resp::{Protocol, Writer};
use parking_lot::RwLock;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The three kinds of subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Channel,
    Pattern,
    Shard,
}

/// What somebody subscribed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub kind: Kind,
    pub text: Arc<[u8]>,
}

/// Channels with their subscribers.
#[derive(Debug, Default)]
struct Channels {
    by_name: RwLock<HashMap<Arc<[u8]>, Audience>>,
    count: AtomicUsize,
}

/// All subscriptions of all clients.
#[derive(Debug, Default)]
pub struct PubSub {
    channels: Channels,
    shard_channels: Channels,
    patterns: RwLock<BTreeMap<Arc<[u8]>, Audience>>,
    pattern_count: AtomicUsize,
}

impl Channels {
    fn add(&self, name: &Arc<[u8]>, client: &ClientInfo) {
        let mut by_name = self.by_name.write();
        by_name.entry(name.clone()).or_default().add(client);
        self.count.store(by_name.len(), Relaxed);
    }

    fn remove(&self, name: &[u8], client: &ClientInfo) {
        let mut by_name = self.by_name.write();
        if let Some(audience) = by_name.get_mut(name) {
            audience.remove(client);
            if audience.is_empty() {
                by_name.remove(name);
            }
        }
        self.count.store(by_name.len(), Relaxed);
    }

    fn publish(&self, kind: Kind, channel: &[u8], message: &[u8], outbox: &mut Outbox) -> usize {
        if self.count.load(Relaxed) == 0 {
            return 0;
        }
        let by_name = self.by_name.read();
        let Some((text, audience)) = by_name.get_key_value(channel) else { return 0 };
        let word: &[u8] = if kind == Kind::Shard { b"smessage" } else { b"message" };
        let bytes = encode(&[word, channel, message]);
        let name = Name { kind, text: text.clone() };
        audience.send(outbox, |to| Push::Published {
            name: name.clone(),
            bytes: bytes.clone(),
            to,
            near: false,
        })
    }

    fn names(&self, pattern: Option<&[u8]>) -> Vec<Arc<[u8]>> {
        let wanted = |name: &[u8]| pattern.is_none_or(|p| glob::matches(p, name, Case::Sensitive));
        self.by_name.read().keys().filter(|name| wanted(name)).cloned().collect()
    }

    fn subscribers(&self, name: &[u8]) -> usize {
        self.by_name.read().get(name).map_or(0, Audience::len)
    }
}

impl PubSub {
    fn channels(&self, kind: Kind) -> &Channels {
        if kind == Kind::Shard { &self.shard_channels } else { &self.channels }
    }

    /// Adds a subscription that the client doesn't have yet.
    pub(crate) fn add(&self, name: &Name, client: &ClientInfo) {
        if name.kind != Kind::Pattern {
            return self.channels(name.kind).add(&name.text, client);
        }
        let mut patterns = self.patterns.write();
        patterns.entry(name.text.clone()).or_default().add(client);
        self.pattern_count.store(patterns.len(), Relaxed);
    }

    /// Ends a subscription.
    pub(crate) fn remove(&self, kind: Kind, name: &[u8], client: &ClientInfo) {
        if kind != Kind::Pattern {
            return self.channels(kind).remove(name, client);
        }
        let mut patterns = self.patterns.write();
        if let Some(audience) = patterns.get_mut(name) {
            audience.remove(client);
            if audience.is_empty() {
                patterns.remove(name);
            }
        }
        self.pattern_count.store(patterns.len(), Relaxed);
    }

    /// The clients that listen to a channel or (told by the flag) a pattern of a kind.
    pub(crate) fn listeners(&self, wanted: impl Fn(&[u8], bool) -> bool) -> HashSet<ClientId> {
        let mut found = HashSet::new();
        for channels in [&self.channels, &self.shard_channels] {
            for (name, audience) in channels.by_name.read().iter() {
                if wanted(name, false) {
                    found.extend(audience.clients());
                }
            }
        }
        for (pattern, audience) in self.patterns.read().iter() {
            if wanted(pattern, true) {
                found.extend(audience.clients());
            }
        }
        found
    }

    /// Sends a message to the channel's subscribers, then to those of patterns that fit; returns how many there are.
    pub fn publish(&self, channel: &[u8], message: &[u8], outbox: &mut Outbox) -> usize {
        let mut receivers = self.channels.publish(Kind::Channel, channel, message, outbox);
        if self.pattern_count.load(Relaxed) > 0 {
            for (pattern, audience) in self.patterns.read().iter() {
                if glob::matches(pattern, channel, Case::Sensitive) {
                    let bytes = encode(&[b"pmessage", pattern, channel, message]);
                    let name = Name { kind: Kind::Pattern, text: pattern.clone() };
                    receivers += audience.send(outbox, |to| Push::Published {
                        name: name.clone(),
                        bytes: bytes.clone(),
                        to,
                        near: false,
                    });
                }
            }
        }
        receivers
    }

    /// Sends a message to a shard channel's subscribers; returns how many there are.
    pub fn publish_shard(&self, channel: &[u8], message: &[u8], outbox: &mut Outbox) -> usize {
        self.shard_channels.publish(Kind::Shard, channel, message, outbox)
    }

    /// Whether nobody could hear a notification.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        self.channels.count.load(Relaxed) == 0 && self.pattern_count.load(Relaxed) == 0
    }

    /// Channels with subscribers; those that fit a pattern where one is given.
    pub fn active(&self, kind: Kind, pattern: Option<&[u8]>) -> Vec<Arc<[u8]>> {
        self.channels(kind).names(pattern)
    }

    /// A channel's number of subscribers.
    pub fn subscribers(&self, kind: Kind, name: &[u8]) -> usize {
        self.channels(kind).subscribers(name)
    }

    /// How many channels or patterns have subscribers.
    pub fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Pattern => self.pattern_count.load(Relaxed),
            Kind::Channel | Kind::Shard => self.channels(kind).count.load(Relaxed),
        }
    }
}

/// A message as RESP3 has it; RESP2 differs in the first byte.
fn encode(words: &[&[u8]]) -> Arc<[u8]> {
    let mut writer = Writer::new(Protocol::Resp3);
    writer.push(words.len());
    words.iter().for_each(|word| writer.bulk(word));
    writer.as_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::{ClientFlags, ClientId};

    fn client(id: u64, worker: usize) -> ClientInfo {
        ClientInfo::new(ClientId(id), worker, String::new(), String::new(), 0, 0, ClientFlags::empty())
    }

    fn name(kind: Kind, text: &str) -> Name {
        Name { kind, text: text.as_bytes().into() }
    }

    #[test]
    fn one_message_per_worker_with_all_its_clients() {
        let pubsub = PubSub::default();
        let clients: Vec<ClientInfo> = (1..=5).map(|id| client(id, id as usize % 2)).collect();
        clients.iter().for_each(|c| pubsub.add(&name(Kind::Channel, "news"), c));
        pubsub.add(&name(Kind::Pattern, "n*"), &clients[0]);
        pubsub.add(&name(Kind::Shard, "news"), &clients[0]);
        let mut outbox = Outbox::default();
        assert_eq!(pubsub.publish(b"news", b"hi", &mut outbox), 6);
        let mut told: Vec<usize> = outbox.drain().map(|(worker, _)| worker).collect();
        told.sort_unstable();
        assert_eq!(told, [0, 1, 1]);
        assert_eq!(pubsub.publish(b"other", b"hi", &mut outbox), 0);
        assert_eq!(pubsub.publish_shard(b"news", b"hi", &mut outbox), 1);
    }

    #[test]
    fn names_without_subscribers_are_forgotten() {
        let pubsub = PubSub::default();
        let one = client(1, 0);
        for kind in [Kind::Channel, Kind::Pattern, Kind::Shard] {
            pubsub.add(&name(kind, "x"), &one);
            assert_eq!(pubsub.count(kind), 1);
            pubsub.remove(kind, b"y", &one);
            pubsub.remove(kind, b"x", &one);
            assert_eq!(pubsub.count(kind), 0);
        }
        assert!(pubsub.is_quiet() && pubsub.active(Kind::Channel, None).is_empty());
    }
}
