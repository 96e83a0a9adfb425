//! Connections that became readable together: all are read first, then their requests' keys are brought into the cache,
//! then all are run, then all are answered. So the cache misses of clients that send one request at a time overlap, too,
//! and who waits for the answers is woken once for several of them ([decision 0009](../../../../docs/decisions/0009-turns-in-stages.md)).
//!
//! Boundary: only connections of which nothing is kept and nothing waits come here; `serve` has all others.

use super::{BATCH, Conn, End, Ends, READ_CHUNK, Worker};
use kara_base::ids::DbIndex;
use kara_engine::clients::ClientId;
use std::io::{ErrorKind, Read};
use std::sync::atomic::Ordering::Relaxed;

/// A group that has sent so much is run: more would drive its own bytes out of the nearest cache.
const GROUP_BYTES: usize = 16 << 10;
/// Room for that and one more large read.
pub(super) const BUFFER: usize = GROUP_BYTES + READ_CHUNK;
/// Longer replies are sent at once.
const DEFERRED_REPLY: usize = 4 << 10;

/// What one connection of the group has sent and is not done with: a range of the group's buffer.
#[derive(Debug)]
pub(super) struct Gathered {
    slot: usize,
    client: ClientId,
    from: usize,
    to: usize,
}

/// A connection whose first requests are parsed.
struct Planned {
    /// Its place in the group.
    at: usize,
    db: DbIndex,
    /// Its requests among those of the batch.
    first: usize,
    count: usize,
}

impl Worker {
    /// Reads what a connection has to say, for the group; or serves it at once where there is more to it.
    pub(super) fn gather(&mut self, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_mut) else { return };
        if !is_plain(conn) {
            // It may run a slow script: nothing read is to wait for that.
            self.run_group();
            return self.serve(slot);
        }
        let from = self.group.last().map_or(0, |last| last.to);
        let room = READ_CHUNK;
        match conn.transport.read(&mut self.group_buffer[from..from + room]) {
            Ok(0) => {
                conn.eof = true;
                conn.readable = false;
                self.serve(slot);
            }
            Ok(n) => {
                conn.readable = n == room || conn.ending;
                let client = conn.id;
                self.group.push(Gathered { slot, client, from, to: from + n });
                if let Some(conn) = self.conns[slot].as_ref() {
                    self.count_read(conn, n, &mut 0);
                }
                if self.group.len() == BATCH || from + n >= GROUP_BYTES {
                    self.run_group();
                }
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => conn.readable = false,
            Err(e) if e.kind() == ErrorKind::Interrupted => self.again.push(slot),
            Err(_) => self.close(slot, End::Close),
        }
    }

    /// Runs what the group has sent.
    pub(super) fn run_group(&mut self) {
        if self.group.is_empty() {
            return;
        }
        let buffer = std::mem::take(&mut self.group_buffer);
        let mut from = 0;
        while from < self.group.len() {
            from = self.run_some(from, &buffer);
        }
        self.group_buffer = buffer;
        // Those that have more to say, or are at their end.
        let mut group = std::mem::take(&mut self.group);
        for Gathered { slot, client, .. } in group.drain(..) {
            let conn = self.conns[slot].as_ref().filter(|conn| conn.id == client);
            if conn.is_some_and(|conn| conn.readable) {
                self.serve(slot);
            }
        }
        self.group = group;
    }

    /// Runs connections of the group from one on, as many as fill a batch; returns where the next begin.
    fn run_some(&mut self, from: usize, buffer: &[u8]) -> usize {
        let mut requests = std::mem::take(&mut self.group_requests);
        let mut ends = Ends::new();
        let mut planned: smallvec::SmallVec<[Planned; BATCH]> = smallvec::SmallVec::new();
        let mut at = from;
        while at < self.group.len() && ends.len() < requests.len() {
            if let Some((slot, mut conn)) = self.take_gathered(at) {
                let input = &buffer[self.group[at].from..self.group[at].to];
                let first = ends.len();
                let count = self.parse_batch(&mut conn, input, &mut requests[first..], &mut ends);
                if count == 0 {
                    let done = ends.pop().unwrap_or(0);
                    self.group[at].from = self.group[at].to;
                    let end = self.end_input(&mut conn, input, done, End::Keep);
                    let end =
                        if end == End::Keep { self.after_serving(&mut conn, slot, READ_CHUNK) } else { end };
                    self.put_back(slot, conn, end);
                } else {
                    planned.push(Planned { at, db: conn.session.db, first, count });
                    self.conns[slot] = Some(conn);
                }
            }
            at += 1;
        }
        let shared = self.shared.clone();
        let mut space = shared.keyspace.unlocked();
        let looks_ahead = ends.len() > 1;
        self.deferring = planned.len() > 1;
        if looks_ahead {
            let group = &self.group;
            let ahead = planned.iter().flat_map(|plan| {
                let input = &buffer[group[plan.at].from..group[plan.at].to];
                let own = plan.first..plan.first + plan.count;
                let starts = std::iter::once(&0).chain(&ends[own.clone()]);
                requests[own].iter().zip(starts).map(move |(r, &start)| (plan.db, r, &input[start..]))
            });
            self.engine.look_ahead(&mut space, ahead);
        }
        let number = self.engine.batch_number();
        for plan in &planned {
            let Some((slot, mut conn)) = self.take_gathered(plan.at) else { continue };
            let own = plan.first..plan.first + plan.count;
            // What a connection had behind its part may have needed a look ahead of its own.
            let is_seen = looks_ahead && self.engine.batch_number() == number;
            let place = is_seen.then_some(plan.first);
            let input = &buffer[self.group[plan.at].from..self.group[plan.at].to];
            let (batch, ends) = (&requests[own.clone()], &ends[own]);
            let mut done = 0;
            let mut end =
                self.run_batch(&mut conn, &mut space, (input, buffer), batch, ends, place, &mut done);
            self.group[plan.at].from = self.group[plan.at].to;
            if end == End::Keep && done < input.len() && !conn.is_held() && !conn.session.close_after_reply {
                // All its answers are one: nothing is sent of what is too long altogether.
                space.release();
                end = self.run_input(&mut conn, &input[done..], buffer).0;
            } else {
                end = self.end_input(&mut conn, input, done, end);
            }
            if end == End::Keep {
                end = self.after_serving(&mut conn, slot, READ_CHUNK);
            }
            if end != End::Keep || conn.session.close_now {
                // Whoever goes may hold or wait for what is locked.
                space.release();
            }
            self.put_back(slot, conn, end);
        }
        drop(space);
        self.group_requests = requests;
        self.deferring = false;
        self.send_deferred();
        self.limit_clients();
        at
    }

    /// Keeps the reply at hand in the connection's output until the others of its batch are there, too.
    pub(super) fn may_defer(&mut self, conn: &mut Conn) -> bool {
        let may = self.reply.len() <= DEFERRED_REPLY
            && !conn.gated
            && !conn.session.close_after_reply
            && conn.session.authenticated;
        if may {
            conn.output.extend_from_slice(self.reply.as_bytes());
            self.reply.clear();
            if !conn.deferred {
                conn.deferred = true;
                self.deferred.push(conn.session.info.slot.load(Relaxed) as usize);
            }
        }
        may
    }

    fn send_deferred(&mut self) {
        for at in 0..self.deferred.len() {
            let slot = self.deferred[at];
            if let Some(conn) = self.conns[slot].as_mut().filter(|conn| conn.deferred) {
                conn.deferred = false;
                self.send_output(slot);
            }
        }
        self.deferred.clear();
    }

    /// Takes a connection of the group, if it is still there and has something left to run.
    fn take_gathered(&mut self, at: usize) -> Option<(usize, Box<Conn>)> {
        let Gathered { slot, client, from, to } = self.group[at];
        let conn = self.conns.get_mut(slot)?.take_if(|conn| conn.id == client && from < to)?;
        Some((slot, conn))
    }

    /// Answers what a connection's requests came to, and keeps the part of its input that is no whole request yet, or
    /// waits.
    fn end_input(&mut self, conn: &mut Conn, input: &[u8], done: usize, end: End) -> End {
        let end = self.answer_batch(conn, end);
        if end == End::Keep && done < input.len() {
            conn.keep_input(&input[done..]);
        }
        end
    }
}

/// Nothing is kept of the connection's input or output, and nothing holds it.
#[inline]
fn is_plain(conn: &Conn) -> bool {
    conn.readable
        && conn.input.is_empty()
        && conn.expected == 0
        && conn.unsent() == 0
        && !conn.is_held()
        && !conn.overrun
        && !conn.eof
        && !conn.session.close_after_reply
        && !conn.session.info.kill.load(Relaxed)
}

/// What connections of a group have sent becomes input of their own: a slow script goes on beside them.
pub(super) fn scatter(group: &mut [Gathered], buffer: &[u8], conns: &mut [Option<Box<Conn>>]) {
    for one in group {
        let conn = conns.get_mut(one.slot).and_then(Option::as_mut).filter(|conn| conn.id == one.client);
        if let Some(conn) = conn
            && one.from < one.to
        {
            conn.parse.reset();
            conn.keep_input(&buffer[one.from..one.to]);
            one.from = one.to;
        }
    }
}
