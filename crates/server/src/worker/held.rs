//! Connections that are held: they wait for a key, or for the end of a pause. They are read, so that it is seen when the
//! peer goes, but nothing of theirs runs.

use super::{End, THROTTLED_POLL, Worker};
use crate::conn::{Conn, Sent};
use kara_engine::config::AppendFsync;
use kara_engine::persist::aof;
use std::io::{ErrorKind, Read};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

impl Worker {
    /// Keeps a connection's answers until what was journaled before them is as safe as `appendfsync` asks for.
    #[cold]
    pub(super) fn gate(&mut self, conn: &mut Conn) {
        let wrote = std::mem::take(&mut self.engine.wrote);
        let aof = &self.shared.persist.aof;
        // While the disk fails, those needn't wait for it who have written nothing: they are told so.
        let waits = wrote || aof.last_write_ok.load(Relaxed);
        if !conn.gated && waits && aof.holds_replies(&self.engine.config) {
            conn.gated = true;
            self.group_commit.saw(&mut conn.committing);
            if self.gated.is_empty() {
                self.gated_since = self.shared.ticker.now();
            }
            self.gated.push(conn.session.info.slot.load(Relaxed) as usize);
        }
    }

    /// At a turn's end: one write, and where that is asked for one fsync, for all its clients; then their answers. Where
    /// it fails they go on waiting, and it is tried again. With an fsync more clients may be waited for: returns how long,
    /// and nothing is written yet.
    pub(super) fn commit(&mut self) -> Option<Duration> {
        if self.gated.is_empty() {
            return None;
        }
        let begun = self.shared.ticker.now();
        let durable = self.engine.config.appendfsync == AppendFsync::Always;
        if durable && self.shared.persist.aof.last_write_ok.load(Relaxed) {
            let waited_ns = self.shared.ticker.ns_between(self.gated_since, begun);
            let wait = self.group_commit.wait(self.gated.len(), waited_ns);
            if wait.is_some() {
                return wait;
            }
        }
        let is_done = aof::commit(&self.shared, &self.engine.config);
        if durable {
            self.group_commit.committed(self.shared.ticker.ns_between(begun, self.shared.ticker.now()));
        }
        if !is_done {
            return None;
        }
        for slot in std::mem::take(&mut self.gated) {
            let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_mut) else { continue };
            conn.gated = false;
            let mut written = 0;
            let sent = conn.flush(&mut written);
            let more = sent == Sent::Part || conn.session.close_after_reply || conn.eof;
            if let Some(conn) = self.conns[slot].as_ref() {
                self.count_written(conn, written);
            }
            if sent == Sent::Broken {
                self.close(slot, End::Close);
            } else if more {
                self.again.push(slot);
            }
        }
        None
    }

    /// How long the loop may sleep: up to the next tick, the end of a wait, or that of a pause.
    pub(super) fn idle_time(&self, period: Duration) -> Duration {
        let mut idle = period.saturating_sub(self.since(self.last_tick, self.turn_end));
        if let Some((at, _)) = self.deadlines.first() {
            idle = idle.min(at.saturating_duration_since(Instant::now()));
        }
        if self.postponed {
            let left_ms = self.shared.pause.until_ms() - self.host.now_ms();
            // Without a pause it is a snapshot that is waited for: a matter of milliseconds.
            idle = idle.min(Duration::from_millis(u64::try_from(left_ms).unwrap_or(0).max(1)));
        }
        if self.throttled.is_empty() { idle } else { idle.min(THROTTLED_POLL) }
    }

    /// Tries again what a pause held back.
    pub(super) fn resume_postponed(&mut self) {
        self.postponed = false;
        // Each time another one is first: who is may make the others wait once more.
        self.first_resumed = (self.first_resumed + 1) % self.conns.len().max(1);
        let slots = (self.first_resumed..self.conns.len()).chain(0..self.first_resumed);
        self.again.extend(slots.filter(|&s| self.conns[s].as_ref().is_some_and(|c| c.is_postponed())));
    }

    /// The client begins to wait.
    pub(super) fn begin_wait(&mut self, conn: &mut Conn) {
        let Some(waiter) = &conn.session.waiting else { return };
        let timeout_ms = u64::try_from(waiter.what.timeout_ms).unwrap_or(0);
        if timeout_ms > 0 {
            // A moment that the clock doesn't know is never.
            conn.wait_until = Instant::now().checked_add(Duration::from_millis(timeout_ms));
            self.deadlines.extend(conn.wait_until.map(|at| (at, conn.session.id())));
        }
    }

    /// Answers those whose wait is over.
    pub(super) fn end_waits(&mut self) {
        if self.deadlines.is_empty() {
            return;
        }
        let now = Instant::now();
        while let Some(&(at, client)) = self.deadlines.first() {
            if at > now {
                break;
            }
            self.deadlines.pop_first();
            let Some(&slot) = self.by_id.get(&client) else { continue };
            let Some(conn) = self.conns[slot].as_mut() else { continue };
            if self.engine.time_out(&mut conn.session, &mut self.reply) {
                self.go_on(slot);
            }
        }
    }

    /// The answer of a client that waited.
    pub(super) fn served(&mut self, slot: usize, answer: &[u8]) {
        let Some(conn) = self.conns[slot].as_mut().filter(|conn| conn.session.waiting.is_some()) else {
            return;
        };
        self.engine.end_wait(&mut conn.session, answer, &mut self.reply);
        self.go_on(slot);
    }

    /// Sends the answer for which a client waited, and lets it go on.
    pub(super) fn go_on(&mut self, slot: usize) {
        let Some(mut conn) = self.conns[slot].take() else { return };
        if let Some(at) = conn.wait_until.take() {
            self.deadlines.remove(&(at, conn.session.id()));
        }
        let end = self.send_replies(&mut conn);
        if conn.readable || !conn.input.is_empty() || conn.unsent() > 0 && !conn.deferred {
            self.again.push(slot);
        }
        self.conns[slot] = Some(conn);
        if end != End::Keep {
            self.close(slot, end);
        }
    }

    /// Reads what a held connection sends, for later. That its peer is gone must be seen now: nobody shall be served
    /// who can't get it.
    pub(super) fn read_held(&mut self, conn: &mut Conn, slot: usize, mut budget: usize) -> End {
        while conn.readable {
            if budget == 0 {
                self.again.push(slot);
                break;
            }
            match conn.transport.read(&mut self.read_buffer) {
                Ok(0) => {
                    conn.eof = true;
                    conn.readable = false;
                }
                Ok(n) => {
                    self.count_read(conn, n, &mut budget);
                    if (conn.input.len() + n) as u64 > self.engine.config.client_query_buffer_limit {
                        return End::QueryBuffer;
                    }
                    if conn.input.try_reserve(n).is_err() {
                        return End::Close;
                    }
                    conn.input.extend_from_slice(&self.read_buffer[..n]);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => conn.readable = false,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return End::Close,
            }
        }
        End::Keep
    }
}
