//! What follows from a command beside its reply and its effect: who watches is told, who monitors is shown, what a
//! tracking client read is remembered. For commands of clients and for those inside a transaction or script alike,
//! each right behind its handler: what one command reads, the next one may change.

use crate::blocking::kind_now;
use crate::clients::ClientId;
use crate::cx::Cx;
use crate::events::{Events, What};
use crate::keyfind::{KeyAt, find_keys};
use crate::outbox::Outbox;
use crate::pubsub;
use crate::registry::Command;
use crate::session::Session;
use crate::shared::Shared;
use crate::spec::{Flags, Group};
use kara_base::ids::DbIndex;
use kara_keyspace::Locked;
use std::sync::atomic::Ordering::Relaxed;

/// Tells those who watch, under the locks. `by` is the client whose command it was. What concerns waiting clients stays
/// with the events: they are served when the whole transaction has run.
pub(crate) fn tell(
    events: &mut Events,
    shared: &Shared,
    space: &Locked<'_>,
    by: Option<ClientId>,
    now_ms: i64,
    outbox: &mut Outbox,
) {
    let classes = events.classes;
    for event in events.take() {
        match &event.what {
            What::Changed => {
                if events.own {
                    note_own(shared, space, event.db, &event.key);
                }
                shared.watches.changed(event.db, &event.key);
                shared.tracking.changed(&shared.clients, &event.key, by, outbox);
            }
            What::Notify(_, name) => {
                pubsub::notify(&shared.pubsub, classes, event.db, name, &event.key, outbox);
            }
            What::Flushed { all } => {
                shared.watches.flushed(Some(event.db).filter(|_| !*all));
                shared.tracking.flushed(&shared.clients, by, outbox);
            }
            What::Swapped(other) => {
                let exists = |db, key: &[u8]| kind_now(space, db, &space.key(key), now_ms).is_some();
                shared.watches.swapped(event.db, *other, exists);
            }
            What::Ready => {}
        }
        if matches!(event.what, What::Ready | What::Flushed { .. } | What::Swapped(_)) {
            events.leave_to_waiters(event);
        }
    }
}

/// A writable replica remembers what its clients gave an expiry.
#[cold]
fn note_own(shared: &Shared, space: &Locked<'_>, db: DbIndex, key: &[u8]) {
    if space.find(db, &space.key(key)).is_some_and(|entry| entry.expire_at_ms().is_some()) {
        shared.replication.own_keys.note(db, key);
    }
}

/// Remembers the keys that a tracking client read, still under their locks.
#[cold]
pub(crate) fn remember_reads(
    shared: &Shared,
    session: &Session,
    command: Command,
    args: &[&[u8]],
    found: &mut Vec<KeyAt>,
) {
    let reads = command.is(Flags::READONLY)
        && !command.is(Flags::PUBSUB)
        && command.spec.group != Group::Scripting
        && session.tracking.as_ref().is_some_and(|tracking| tracking.remembers());
    if reads && find_keys(command.spec, args, found).is_ok() {
        let keys = found.iter().filter_map(|key| args.get(key.position).copied());
        shared.tracking.remember(session.id(), keys);
    }
}

/// CLIENT CACHING holds for one command, or for one transaction.
pub(crate) fn end_caching(session: &mut Session, command: Command) {
    let keeps = session.multi.is_some() || command.full_name.starts_with("client|");
    if let Some(tracking) = session.tracking.as_mut().filter(|_| !keeps) {
        tracking.caching = false;
    }
}

/// MONITOR shows a script before what it runs, other commands behind that.
pub(crate) fn show_script(cx: &mut Cx) {
    if cx.shared.monitors.any() {
        cx.shared.monitors.show_now(cx.command, cx.args, cx.session, cx.origin, cx.outbox);
    }
}

/// All of it for a command that ran inside another one.
pub(crate) fn nested(cx: &mut Cx, command: Command, args: &[&[u8]], origin: crate::session::Origin) {
    let ran = &cx.session.info.commands;
    ran.store(ran.load(Relaxed) + 1, Relaxed);
    if !cx.keys.events.is_empty() {
        tell(cx.keys.events, cx.shared, cx.keys.space, Some(cx.session.id()), cx.now_ms, cx.outbox);
    }
    if cx.session.tracking.is_some() {
        remember_reads(cx.shared, cx.session, command, args, &mut Vec::new());
    }
    if cx.shared.monitors.any() {
        cx.shared.monitors.show(command, args, cx.session, origin, cx.outbox);
    }
}
