//! Stage journal: a command's effect in the one log, and the messages that it caused, before the locks are released.

use super::Engine;
use crate::clients::ClientId;
use crate::effect::{Effect, NOT_IN_LOG, NOT_TO_REPLICAS, OwnedCommand};
use crate::outbox::{Outbox, Push};
use crate::registry::Command;
use crate::session::{Origin, Session};
use crate::shared::Message;
use crate::told;
use kara_base::ids::DbIndex;
use kara_keyspace::Locked;
use kara_keyspace::journal::Reader;
use kara_resp::Writer;
use smallvec::SmallVec;

impl Engine {
    /// Journals the removal of expired keys and fields, under their locks.
    pub(crate) fn journal_preceding(&mut self) {
        let journal = self.shared.keyspace.journal();
        for (db, command) in self.preceding.drain(..) {
            journal.append(db, &command.args());
        }
    }

    /// Stage: the effect's place in the one log, before the locks are released. `sent`: the request in the log's form.
    pub(crate) fn journal(&mut self, db: DbIndex, effect: Effect, args: &[&[u8]], sent: Option<&[u8]>) {
        if !self.policy.journal_on {
            self.preceding.clear();
            self.nested.clear();
            return;
        }
        if self.preceding.len() > 1 && goes_through_keys(args) {
            self.journal_preceding();
        }
        let journal = self.shared.keyspace.journal();
        // Keys that the command found expired belong to what it did: all of it or nothing.
        let mut commands: SmallVec<[(DbIndex, OwnedCommand); 4]> = self.preceding.drain(..).collect();
        commands.extend(self.nested.drain(..));
        match effect {
            Effect::None => {}
            Effect::Verbatim if commands.is_empty() => {
                match sent {
                    Some(sent) => journal.append_sent(db, args, sent),
                    None => journal.append(db, args),
                }
                return;
            }
            Effect::Verbatim => commands.push((db, OwnedCommand::from_args(args))),
            Effect::Rewrite(list) => commands.extend(list.into_iter().map(|command| (db, command))),
        }
        if commands.iter().all(|(_, command)| command.is_for_all()) {
            if let [(db, command)] = commands.as_slice() {
                return journal.append(*db, &command.args());
            }
            return as_group(db, commands.iter(), |group| journal.append_group(group));
        }
        for (reader, bit) in [(Reader::Log, NOT_IN_LOG), (Reader::Replicas, NOT_TO_REPLICAS)] {
            let its = commands.iter().filter(|(_, command)| command.is_for(bit));
            as_group(db, its, |group| journal.append_group_for(reader, group));
        }
    }

    /// Tells those who watch, still under the locks. `by` is the client whose command it was.
    pub(crate) fn deliver_events(&mut self, space: &Locked<'_>, by: Option<ClientId>) {
        if !self.events.is_empty() {
            told::tell(&mut self.events, &self.shared, space, by, self.now_ms, &mut self.outbox);
            for event in self.events.take_for_waiters() {
                self.note_ready(event.db, event.key, &event.what);
            }
        }
    }

    /// What tracking and monitoring clients make of a command, still under the locks; posts all messages.
    #[cold]
    pub(super) fn tell_clients(&mut self, command: Command, session: &mut Session, args: &[&[u8]]) {
        let shared = &*self.shared;
        if session.tracking.is_some() {
            told::remember_reads(shared, session, command, args, &mut self.found);
            told::end_caching(session, command);
            let limit = self.config.tracking_table_max_keys;
            shared.tracking.shrink(&shared.clients, limit, &mut self.rng, &mut self.outbox);
        }
        if shared.monitors.any() {
            shared.monitors.show(command, args, session, Origin::Client, &mut self.outbox);
        }
        self.post_messages();
    }

    /// The table of tracked keys is brought to its size with every request, also with one that only waits for EXEC. What
    /// its client is told by that stands before the reply.
    #[cold]
    pub(super) fn shrink_before_reply(&mut self, session: &Session, reply: &mut Writer) {
        let (shared, limit) = (&*self.shared, self.config.tracking_table_max_keys);
        let mut told = Outbox::default();
        shared.tracking.shrink(&shared.clients, limit, &mut self.rng, &mut told);
        self.post_before_reply(&mut told, session, reply);
    }

    /// Posts what there is to tell but is no command's: what the client at hand is told stands before its reply.
    pub(crate) fn post_before_reply(&mut self, told: &mut Outbox, session: &Session, reply: &mut Writer) {
        for (worker, message) in told.drain() {
            match message {
                Message::Push(push) if matches!(push.to(), [to] if to.id == session.id()) => {
                    push.write(session, reply.buffer());
                }
                Message::Push(push) => self.outbox.push(worker, push),
                _ => {}
            }
        }
        self.post_messages();
    }

    /// Posts what a command had to tell to the workers whose clients are to hear it, while the keys' locks are held: in
    /// the order of the changes.
    pub(crate) fn post_messages(&mut self) {
        for (worker, mut message) in self.outbox.drain() {
            if worker == self.worker {
                if let Message::Push(Push::Published { near, .. }) = &mut message {
                    *near = true;
                }
                self.shared.host.post_to_self(worker, message);
                self.own_mail = true;
            } else {
                self.shared.host.post(worker, message);
                self.far_mail = true;
            }
        }
    }

    /// Behind a batch of requests, before it is answered: clients that track by prefix hear what it changed.
    pub fn end_batch(&mut self) {
        if !self.outbox.broadcasts.is_empty() {
            self.shared.tracking.broadcast(&self.shared.clients, &mut self.outbox);
            self.post_messages();
        }
    }
}

/// Commands that come across keys that nobody named: each that has expired is an event of its own.
fn goes_through_keys(args: &[&[u8]]) -> bool {
    let is = |name: &[u8]| args.first().is_some_and(|word| word.eq_ignore_ascii_case(name));
    is(b"SCAN") || is(b"RANDOMKEY")
}

/// The commands as a transaction; a single one by itself. Nothing where there are none.
fn as_group<'c>(
    db: DbIndex,
    commands: impl Iterator<Item = &'c (DbIndex, OwnedCommand)>,
    append: impl FnOnce(&[(DbIndex, &[&[u8]])]),
) {
    let all: Vec<_> = commands.map(|(db, command)| (*db, command.args())).collect();
    let mut group: Vec<(DbIndex, &[&[u8]])> = Vec::with_capacity(all.len() + 2);
    group.extend(all.iter().map(|(db, args)| (*db, args.as_slice())));
    if let [_, .., (last, _)] = group.as_slice() {
        let last = *last;
        group.insert(0, (db, &[b"MULTI"]));
        group.push((last, &[b"EXEC"]));
    }
    if !group.is_empty() {
        append(&group);
    }
}
