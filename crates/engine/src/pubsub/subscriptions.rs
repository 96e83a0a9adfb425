//! One client's subscriptions, kept by its session.

use super::{Kind, Name, PubSub};
use crate::clients::{ClientFlags, ClientInfo, ClientKind};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// What a client listens to; empty for most, hence the one pointer.
#[derive(Debug, Default)]
pub struct Subscriptions(Option<Box<Sets>>);

#[derive(Debug, Default)]
struct Sets {
    channels: BTreeSet<Arc<[u8]>>,
    patterns: BTreeSet<Arc<[u8]>>,
    shard_channels: BTreeSet<Arc<[u8]>>,
    /// A subscription has ended: messages for it may still be under way.
    ended: bool,
}

impl Sets {
    fn of(&self, kind: Kind) -> &BTreeSet<Arc<[u8]>> {
        match kind {
            Kind::Channel => &self.channels,
            Kind::Pattern => &self.patterns,
            Kind::Shard => &self.shard_channels,
        }
    }

    fn of_mut(&mut self, kind: Kind) -> &mut BTreeSet<Arc<[u8]>> {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
            Kind::Shard => &mut self.shard_channels,
        }
    }
}

fn figure(info: &ClientInfo, kind: Kind) -> &AtomicU32 {
    match kind {
        Kind::Channel => &info.subscriptions,
        Kind::Pattern => &info.pattern_subscriptions,
        Kind::Shard => &info.shard_subscriptions,
    }
}

impl Subscriptions {
    /// Subscribes; false where the client had that already.
    pub fn add(&mut self, pubsub: &PubSub, info: &ClientInfo, kind: Kind, name: &[u8]) -> bool {
        let set = self.0.get_or_insert_default().of_mut(kind);
        if set.contains(name) {
            return false;
        }
        let text: Arc<[u8]> = name.into();
        set.insert(text.clone());
        figure(info, kind).store(set.len() as u32, Relaxed);
        pubsub.add(&Name { kind, text }, info);
        info.kind.store(ClientKind::PubSub as u8, Relaxed);
        info.set_flag(ClientFlags::PUBSUB, true);
        true
    }

    /// Unsubscribes; false where the client had no such subscription.
    pub fn remove(&mut self, pubsub: &PubSub, info: &ClientInfo, kind: Kind, name: &[u8]) -> bool {
        let Some(sets) = &mut self.0 else { return false };
        let set = sets.of_mut(kind);
        if !set.remove(name) {
            return false;
        }
        figure(info, kind).store(set.len() as u32, Relaxed);
        sets.ended = true;
        pubsub.remove(kind, name, info);
        if self.is_empty() {
            info.kind.store(ClientKind::Normal as u8, Relaxed);
            info.set_flag(ClientFlags::PUBSUB, false);
        }
        true
    }

    /// Ends all subscriptions, without a word to the client.
    pub fn clear(&mut self, pubsub: &PubSub, info: &ClientInfo) {
        for kind in [Kind::Channel, Kind::Pattern, Kind::Shard] {
            for name in self.names(kind) {
                self.remove(pubsub, info, kind, &name);
            }
        }
    }

    /// The names of one kind.
    pub fn names(&self, kind: Kind) -> Vec<Arc<[u8]>> {
        self.0.as_ref().map_or_else(Vec::new, |sets| sets.of(kind).iter().cloned().collect())
    }

    /// The number that answers count: channels and patterns together, or shard channels.
    pub fn count(&self, kind: Kind) -> usize {
        self.0.as_ref().map_or(0, |sets| match kind {
            Kind::Channel | Kind::Pattern => sets.channels.len() + sets.patterns.len(),
            Kind::Shard => sets.shard_channels.len(),
        })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count(Kind::Channel) + self.count(Kind::Shard) == 0
    }

    /// Whether a message for a name that it had is still wanted.
    #[inline]
    pub fn may_want(&self, name: &Name) -> bool {
        match &self.0 {
            None => false,
            Some(sets) => !sets.ended || sets.of(name.kind).contains(&name.text),
        }
    }
}
