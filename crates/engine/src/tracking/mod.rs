//! CLIENT TRACKING: which clients want to hear that keys changed which they have read (the default mode), or which
//! begin with their prefixes (BCAST).
//!
//! Reads are remembered and changes told under the keys' shard locks: no change slips in between. The locks here are
//! taken after those, and nothing else but the clients' table is locked under them.

mod prefixes;
mod state;
mod table;

pub use prefixes::Broadcasts;
pub use state::{Mode, TrackingState};

use crate::clients::{ClientFlags, ClientId, ClientInfo, Clients};
use crate::outbox::{Member, Outbox, Push};
use kara_base::rng::Rng;
use kara_resp::{Protocol, Writer};
use parking_lot::RwLock;
use prefixes::Prefixes;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use table::Table;

/// Keys given up at most per command when the table is over its limit, so that no single command pays for all.
const EVICTIONS_PER_STEP: usize = 100;

/// A tracking client as the others see it.
#[derive(Debug)]
pub struct Tracker {
    info: Arc<ClientInfo>,
    /// Who gets the messages, where not the client itself.
    redirect: Option<ClientId>,
    noloop: bool,
    bcast: bool,
}

/// All tracking clients, and what they remember.
#[derive(Debug, Default)]
pub struct Tracking {
    clients: RwLock<HashMap<ClientId, Arc<Tracker>>>,
    count: AtomicUsize,
    table: Table,
    prefixes: Prefixes,
}

/// The sizes that INFO shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub keys: usize,
    pub items: usize,
    pub prefixes: usize,
}

impl Tracking {
    /// Whether nobody tracks anything.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.count.load(Relaxed) == 0
    }

    /// Begins to track, or changes how.
    pub(crate) fn enable(&self, info: &Arc<ClientInfo>, state: &TrackingState) {
        let tracker = Arc::new(Tracker {
            info: info.clone(),
            redirect: state.redirect,
            noloop: state.noloop,
            bcast: state.mode == Mode::Broadcast,
        });
        for prefix in &state.prefixes {
            self.prefixes.add(prefix, &tracker);
        }
        let mut clients = self.clients.write();
        clients.insert(info.id, tracker);
        self.count.store(clients.len(), Relaxed);
        drop(clients);
        info.set_flag(ClientFlags::TRACKING, true);
        info.set_flag(ClientFlags::TRACKING_BROKEN_REDIRECT, false);
        info.set_flag(ClientFlags::TRACKING_BCAST, state.mode == Mode::Broadcast);
        info.redirect.store(state.redirect.map_or(0, |id| id.0 as i64), Relaxed);
    }

    /// Ends it. What the table remembers for the client goes when its keys change.
    pub(crate) fn disable(&self, info: &ClientInfo, state: &TrackingState) {
        for prefix in &state.prefixes {
            self.prefixes.remove(prefix, info.id);
        }
        let mut clients = self.clients.write();
        clients.remove(&info.id);
        self.count.store(clients.len(), Relaxed);
        if clients.is_empty() {
            self.table.clear();
        }
        drop(clients);
        let all = ClientFlags::TRACKING
            .union(ClientFlags::TRACKING_BROKEN_REDIRECT)
            .union(ClientFlags::TRACKING_BCAST);
        info.set_flag(all, false);
        info.redirect.store(-1, Relaxed);
    }

    /// The client read keys, under their locks.
    pub(crate) fn remember<'k>(&self, client: ClientId, keys: impl Iterator<Item = &'k [u8]>) {
        keys.for_each(|key| self.table.remember(key, client));
    }

    /// A key changed, by a client's command or (`None`) by itself; under its lock.
    pub(crate) fn changed(&self, all: &Clients, key: &[u8], by: Option<ClientId>, outbox: &mut Outbox) {
        if self.is_idle() {
            return;
        }
        self.prefixes.collect(key, by, &mut outbox.broadcasts);
        self.forget(all, key, by, outbox);
    }

    /// Tells the clients that read a key, and forgets it.
    fn forget(&self, all: &Clients, key: &[u8], by: Option<ClientId>, outbox: &mut Outbox) {
        let Some(readers) = self.table.take(key) else { return };
        let keys = encode_keys(std::iter::once(key));
        let clients = self.clients.read();
        for id in readers {
            let Some(tracker) = clients.get(&id) else { continue };
            let own = tracker.noloop && by == Some(id);
            if !own && !tracker.bcast {
                tell(all, tracker, &keys, by, outbox);
            }
        }
    }

    /// Databases were emptied: nobody's keys hold any more.
    pub(crate) fn flushed(&self, all: &Clients, by: Option<ClientId>, outbox: &mut Outbox) {
        if self.is_idle() {
            return;
        }
        self.table.clear();
        for tracker in self.clients.read().values() {
            let resp3 = tracker.info.protocol.load(Relaxed) == 3;
            let null: Arc<[u8]> = if resp3 { (*b"_\r\n").into() } else { (*b"$-1\r\n").into() };
            tell(all, tracker, &null, by, outbox);
        }
    }

    /// Sends what the batch of requests collected for clients that track by prefix.
    pub(crate) fn broadcast(&self, all: &Clients, outbox: &mut Outbox) {
        let collected = std::mem::take(&mut outbox.broadcasts);
        for (prefix, keys) in collected.into_iter() {
            let everybody = encode_keys(keys.keys().map(|key| &key[..]));
            for tracker in self.prefixes.trackers(&prefix) {
                let id = tracker.info.id;
                let account = tracker.info.names.lock().account.clone();
                if keys.keys().any(|key| !account.may_read(key)) {
                    // Names that the user may not see are not told.
                    let seen = |key: &[u8], by: &Option<ClientId>| {
                        account.may_read(key) && !(tracker.noloop && *by == Some(id))
                    };
                    let seen: Vec<&[u8]> =
                        keys.iter().filter(|(key, by)| seen(key, by)).map(|(key, _)| &key[..]).collect();
                    if !seen.is_empty() {
                        tell(all, &tracker, &encode_keys(seen.into_iter()), None, outbox);
                    }
                    continue;
                }
                if !tracker.noloop || keys.values().all(|by| *by != Some(id)) {
                    tell(all, &tracker, &everybody, None, outbox);
                    continue;
                }
                let others = || keys.iter().filter(|(_, by)| **by != Some(id)).map(|(key, _)| &key[..]);
                if others().next().is_some() {
                    tell(all, &tracker, &encode_keys(others()), None, outbox);
                }
            }
        }
    }

    /// Gives up some keys, any, while there are more than `limit` (0: no limit).
    pub(crate) fn shrink(&self, all: &Clients, limit: u64, rng: &mut Rng, outbox: &mut Outbox) {
        if limit == 0 || self.is_idle() {
            return;
        }
        for _ in 0..EVICTIONS_PER_STEP {
            if self.table.keys() as u64 <= limit {
                return;
            }
            let Some(key) = self.table.any(rng) else { return };
            self.forget(all, &key, None, outbox);
        }
    }

    /// How much is remembered.
    pub fn sizes(&self) -> Sizes {
        Sizes { keys: self.table.keys(), items: self.table.items(), prefixes: self.prefixes.len() }
    }
}

/// Posts an invalidation to the client, or to whom it redirects them; behind all other messages where the client's own
/// command is the cause.
fn tell(all: &Clients, tracker: &Tracker, keys: &Arc<[u8]>, by: Option<ClientId>, outbox: &mut Outbox) {
    let own = &tracker.info;
    let (worker, push) = match tracker.redirect.map(|redirect| (redirect, all.get(redirect))) {
        None => (own.worker, Push::Invalidate { to: Member::of(own), redirected: false, keys: keys.clone() }),
        Some((_, Some(other))) => {
            (other.worker, Push::Invalidate { to: Member::of(&other), redirected: true, keys: keys.clone() })
        }
        Some((redirect, None)) => {
            own.set_flag(ClientFlags::TRACKING_BROKEN_REDIRECT, true);
            (own.worker, Push::RedirectBroken { to: Member::of(own), redirect })
        }
    };
    if by == Some(own.id) {
        outbox.push_last(worker, push);
    } else {
        outbox.push(worker, push);
    }
}

fn encode_keys<'k>(keys: impl Iterator<Item = &'k [u8]>) -> Arc<[u8]> {
    let mut writer = Writer::new(Protocol::Resp3);
    let mark = writer.defer();
    let count = keys.map(|key| writer.bulk(key)).count();
    writer.end_array(mark, count);
    writer.as_bytes().into()
}
