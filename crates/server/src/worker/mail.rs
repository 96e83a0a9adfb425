//! A worker's mailbox: new connections, orders, and messages for its clients.

use super::{End, Worker, limits, note_written, publish_figures};
use crate::conn::{Conn, Sent};
use crate::host::Mail;
use kara_engine::clients::ClientId;
use kara_engine::outbox::Push;
use kara_engine::shared::Message;
use std::sync::atomic::Ordering::Relaxed;

impl Worker {
    /// Reads the mailbox until it is empty. `current`: a connection that is being served; messages for it go behind the
    /// answers that it has so far, and orders wait until it is done.
    pub(super) fn read_mail(&mut self, mut current: Option<&mut Conn>) {
        self.engine.own_mail = false;
        // What was put off while a connection was served, or a script ran, came first.
        for mail in std::mem::take(&mut self.later) {
            self.take_in(mail, current.as_deref_mut());
        }
        while let Some(mail) = self.host.next_mail(self.index) {
            self.take_in(mail, current.as_deref_mut());
        }
    }

    fn take_in(&mut self, mail: Mail, current: Option<&mut Conn>) {
        match mail {
            Mail::Engine(Message::Push(push)) => self.tell(&push, current),
            // What it is told behind this must not come before.
            Mail::Engine(Message::Served { client, reply }) => self.answer(client, &reply),
            mail if current.is_some() => self.later.push_back(mail),
            Mail::Connection(transport, addr, laddr) => self.adopt(transport, addr, laddr),
            Mail::Engine(Message::Kill { client }) => {
                if let Some(&slot) = self.by_id.get(&client) {
                    self.close(slot, End::Close);
                }
            }
            Mail::Engine(Message::Resume) => self.resume_postponed(),
        }
    }

    /// The same, where a command of this worker has posted to it.
    #[inline]
    pub(super) fn read_own_mail(&mut self, current: Option<&mut Conn>) {
        if self.engine.own_mail {
            self.read_mail(current);
        }
    }

    /// Answers a client that waited. The replies of one that is being served stay as they are.
    fn answer(&mut self, client: ClientId, reply: &[u8]) {
        if let Some(&slot) = self.by_id.get(&client) {
            let kept = std::mem::take(&mut self.reply);
            self.served(slot, reply);
            self.reply = kept;
        }
    }

    /// Writes a message into the output of its clients; it is sent at the turn's end, together with what follows.
    fn tell(&mut self, push: &Push, mut current: Option<&mut Conn>) {
        for member in push.to() {
            if let Some(conn) = current.as_mut().filter(|conn| conn.id == member.id) {
                push.write(&conn.session, self.reply.buffer());
                continue;
            }
            let slot = member.slot as usize;
            let Some(Some(conn)) = self.conns.get_mut(slot) else { continue };
            if conn.id != member.id || conn.overrun {
                continue;
            }
            conn.make_room(push.weight());
            push.write(&conn.session, &mut conn.output);
            if !conn.told {
                conn.told = true;
                self.told.push(slot);
            }
            if limits::is_small(conn.unsent()) || limits::check(&self.engine.config, conn) == End::Keep {
                continue;
            }
            // Many messages may have come together: it's the client who must be slow, not this worker.
            let mut written = 0;
            let sent = if conn.gated { Sent::Broken } else { conn.flush(&mut written) };
            note_written(&self.shared, self.index, conn, written);
            if sent == Sent::Broken || limits::check(&self.engine.config, conn) != End::Keep {
                conn.overrun = true;
                conn.output = Vec::new();
                conn.sent = 0;
            }
        }
    }

    /// Sends what the turn's messages left in connections' output.
    pub(super) fn send_told(&mut self) {
        for at in 0..self.told.len() {
            let slot = self.told[at];
            let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_mut) else { continue };
            if !std::mem::take(&mut conn.told) {
                continue;
            }
            if conn.overrun {
                self.close(slot, End::OutputBuffer);
                continue;
            }
            self.send_output(slot);
            self.limit_clients();
        }
        self.told.clear();
    }

    /// Sends what is in a connection's output.
    pub(super) fn send_output(&mut self, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_mut) else { return };
        let mut written = 0;
        let end = match conn.flush(&mut written) {
            Sent::All => End::Keep,
            Sent::Part => limits::check(&self.engine.config, conn),
            Sent::Broken => End::Close,
        };
        if let Some(conn) = self.conns[slot].as_ref() {
            publish_figures(&self.shared, conn);
            self.count_written(conn, written);
        }
        if end != End::Keep {
            self.close(slot, end);
        }
    }

    /// Holds a connection back whose messages other workers can't send as fast as it publishes them. Its client waits
    /// then, instead of the mailboxes growing without bound.
    pub(super) fn throttle(&mut self, conn: &mut Conn) -> bool {
        self.engine.far_mail = false;
        if !self.host.is_congested() {
            return false;
        }
        conn.throttled = true;
        self.throttled.push(conn.session.info.slot.load(Relaxed) as usize);
        true
    }

    /// Lets held-back connections go on once the mailboxes have room.
    pub(super) fn release_throttled(&mut self) {
        if self.throttled.is_empty() || self.host.is_congested() {
            return;
        }
        for slot in std::mem::take(&mut self.throttled) {
            if let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_mut) {
                conn.throttled = false;
                self.again.push(slot);
            }
        }
    }
}
