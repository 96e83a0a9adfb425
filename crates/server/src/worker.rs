//! A worker thread: an epoll loop that owns its connections, reads, runs commands to their end and answers.

mod beside;
mod group;
mod held;
mod limits;
mod mail;

use crate::conn::{Conn, Sent};
use crate::host::{Mail, ServerHost};
use crate::pacing::{GroupCommit, Pacing};
use crate::replication::NewReplica;
use crate::transport::Transport;
use group::Gathered;
use kara_base::clock::Tick;
use kara_engine::clients::{ClientFlags, ClientId, ClientKind};
use kara_engine::pipeline::{Engine, Flow, Received};
use kara_engine::scripting::busy;
use kara_engine::shared::Shared;
use kara_keyspace::Locked;
use kara_resp::{Limits, Protocol, Request, Step, Writer};
use mio::{Events, Poll, Token};
use smallvec::SmallVec;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// The mailbox's token; connections use their slot, listeners count down from below it.
pub const WAKE: Token = Token(usize::MAX);
/// Read at most this much in one go into the shared buffer.
const READ_CHUNK: usize = 64 << 10;
/// Up to here the beginning of a request is read together with its rest.
const SHORT_INPUT: usize = 4 << 10;
/// After this long a client is idle, and its buffers are given back.
const IDLE_MS: i64 = 2_000;
/// A connection that sends more than this in one turn waits for the others' turn.
const FAIR_BYTES: usize = 1 << 20;
/// Requests parsed ahead, so that their cache misses overlap.
const BATCH: usize = 32;
/// What a worker's answer buffer has from the start.
const REPLY_ROOM: usize = 16 << 10;
/// Replies beyond this are sent before the next request runs.
const REPLY_CHUNK: usize = 64 << 10;
/// The same where the client's output is limited: of answers that together are too long, nothing is sent.
const LIMITED_CHUNK: usize = 256 << 10;
/// How soon to look again whether the mailboxes have room.
const THROTTLED_POLL: Duration = Duration::from_millis(1);

/// For each request of a batch, the offset behind it in its connection's input.
type Ends = SmallVec<[usize; BATCH]>;

/// What a worker thread owns.
pub struct Worker {
    pub index: usize,
    poll: Poll,
    engine: Engine,
    shared: Arc<Shared>,
    host: ServerHost,
    conns: Vec<Option<Box<Conn>>>,
    free: Vec<usize>,
    by_id: HashMap<ClientId, usize>,
    /// Connections with something left to do without waiting for an event.
    again: Vec<usize>,
    /// When the waits of clients end that don't wait for ever.
    deadlines: BTreeSet<(Instant, ClientId)>,
    /// Some connections are held back by a pause, or until memory is freed.
    postponed: bool,
    first_resumed: usize,
    /// Connections with messages in their output that are to be sent at the turn's end.
    told: Vec<usize>,
    /// Connections whose answers wait for the append-only file.
    gated: Vec<usize>,
    /// Since when, for the first of them.
    gated_since: Tick,
    group_commit: GroupCommit,
    /// Connections that wait until the mailboxes have room again.
    throttled: Vec<usize>,
    /// Mail that came while a connection was being served.
    later: VecDeque<Mail>,
    /// Connections whose readiness was seen while a slow script ran.
    seen: Vec<usize>,
    read_buffer: Vec<u8>,
    /// What a group of connections has sent, and whose bytes are where.
    group_buffer: Vec<u8>,
    group: Vec<Gathered>,
    /// Answers of several connections are to be sent together: those of these slots wait for it.
    deferring: bool,
    deferred: Vec<usize>,
    requests: Vec<Request>,
    group_requests: Vec<Request>,
    reply: Writer,
    /// When the last tick was, and when the last turn ended.
    last_tick: Tick,
    turn_end: Tick,
    next_check: usize,
    pacing: Pacing,
    /// How long requests may gather before the next turn.
    gather: Option<Duration>,
    /// Commands run up to the last turn.
    commands_before: u64,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("index", &self.index).finish_non_exhaustive()
    }
}

/// Why a connection ends, for the log and the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Keep,
    Close,
    QueryBuffer,
    OutputBuffer,
}

impl Worker {
    /// A worker around its poll; its mailbox exists already.
    pub fn new(index: usize, poll: Poll, engine: Engine, host: ServerHost) -> Self {
        let now = engine.shared.ticker.now();
        Worker {
            index,
            poll,
            shared: engine.shared.clone(),
            engine,
            host,
            conns: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::new(),
            again: Vec::new(),
            deadlines: BTreeSet::new(),
            postponed: false,
            first_resumed: 0,
            told: Vec::new(),
            gated: Vec::new(),
            gated_since: now,
            group_commit: GroupCommit::default(),
            throttled: Vec::new(),
            later: VecDeque::new(),
            seen: Vec::new(),
            read_buffer: vec![0; READ_CHUNK],
            group_buffer: vec![0; group::BUFFER],
            group: Vec::new(),
            deferring: false,
            deferred: Vec::new(),
            requests: (0..BATCH).map(|_| Request::new()).collect(),
            group_requests: (0..BATCH).map(|_| Request::new()).collect(),
            reply: new_reply(),
            last_tick: now,
            turn_end: now,
            next_check: 0,
            commands_before: 0,
            pacing: Pacing::default(),
            gather: None,
        }
    }

    /// Runs until the process ends. The first worker also accepts connections.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        // The kernel may be 50 us late by default, which is longer than any wait here.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        if self.index == 0 {
            self.host.sockets().lock().register(self.poll.registry())?;
        }
        let mut backlog = false;
        // Who asks right after the start finds figures.
        let now = self.engine.begin_turn(self.host.now_ms());
        self.timed_tick(now);
        while !self.host.is_stopping() {
            backlog = self.turn(&mut events, backlog)?;
        }
        Ok(())
    }

    /// One turn of the loop. `backlog`: the last turn left connections waiting; returns whether this one did.
    fn turn(&mut self, events: &mut Events, mut backlog: bool) -> io::Result<bool> {
        let period = Duration::from_millis(1000 / self.engine.config.hz.max(1));
        for slot in std::mem::take(&mut self.seen) {
            if let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_mut) {
                conn.readable = true;
                self.again.push(slot);
            }
        }
        let busy = backlog
            || !self.again.is_empty()
            || self.engine.own_mail
            || !self.later.is_empty()
            || self.engine.has_to_evict();
        let gather = self.gather.take().filter(|_| !busy);
        if let Some(wait) = gather {
            std::thread::sleep(wait);
        }
        let timeout = if busy || gather.is_some() { Duration::ZERO } else { self.idle_time(period) };
        match self.poll.poll(events, Some(timeout)) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            other => other?,
        }
        let turn_start = self.engine.begin_turn(self.host.now_ms());
        self.end_waits();
        if self.postponed && !self.engine.is_pausing() {
            self.resume_postponed();
        }
        // What was told before a request came in is seen before its answer.
        self.read_mail(None);
        self.release_throttled();
        for slot in std::mem::take(&mut self.again) {
            self.serve(slot);
        }
        let mut accepting = false;
        let mut ready = 0;
        for event in events.iter() {
            match event.token() {
                WAKE => {}
                Token(slot) if slot < self.conns.len() => {
                    if let Some(conn) = self.conns[slot].as_mut() {
                        conn.ending |= event.is_read_closed() || event.is_error();
                        conn.readable |= event.is_readable() || conn.ending;
                        self.pacing.saw(&mut conn.seen);
                        self.gather(slot);
                        ready += 1;
                    }
                }
                _ => accepting = true,
            }
        }
        self.run_group();
        if self.index == 0 && (accepting || backlog) {
            let mut sockets = self.host.sockets().lock();
            backlog = sockets.accept(&self.host, &self.shared, &self.engine.config);
        }
        self.read_mail(None);
        if self.since(self.last_tick, turn_start) >= period {
            self.timed_tick(turn_start);
        }
        if self.engine.has_to_evict() {
            self.engine.evict_more();
            self.read_own_mail(None);
        }
        self.send_told();
        let hold = self.commit();
        let stats = self.shared.stats.worker(self.index);
        stats.eventloop_cycles.add(1);
        let last_end = std::mem::replace(&mut self.turn_end, self.shared.ticker.now());
        let passed_ns = self.shared.ticker.ns_between(last_end, self.turn_end);
        let paced = self.pacing.after_turn(ready, passed_ns).filter(|_| self.again.is_empty());
        self.gather = hold.or(paced);
        let ns = self.shared.ticker.ns_between(turn_start, self.turn_end);
        stats.eventloop_ns.add(ns);
        let commands = stats.commands_processed.get();
        self.shared.observe.turns.turn(ns, commands.saturating_sub(self.commands_before));
        self.commands_before = commands;
        Ok(backlog)
    }

    fn since(&self, from: Tick, to: Tick) -> Duration {
        Duration::from_nanos(self.shared.ticker.ns_between(from, to))
    }

    /// Takes a new connection into the loop.
    fn adopt(&mut self, transport: Transport, addr: String, laddr: String) {
        let tables = (&mut self.conns, &mut self.free, &mut self.by_id);
        beside::adopt(
            tables,
            &self.poll,
            &self.shared,
            self.index,
            self.engine.now_ms,
            (transport, addr, laddr),
        );
    }

    /// Sends what the socket takes, reads what is there, runs it.
    fn serve(&mut self, slot: usize) {
        let Some(mut conn) = self.conns.get_mut(slot).and_then(Option::take) else { return };
        let end = self.serve_conn(&mut conn, slot);
        self.put_back(slot, conn, end);
        self.limit_clients();
    }

    /// Puts a connection that was served back, or closes it.
    fn put_back(&mut self, slot: usize, mut conn: Box<Conn>, end: End) {
        let keep = end == End::Keep && !conn.session.close_now;
        if keep && !conn.deferred {
            publish_figures(&self.shared, &conn);
        }
        if end == End::Close && conn.deferred {
            // What was answered before its end goes out.
            let mut written = 0;
            let _ = conn.flush(&mut written);
            self.count_written(&conn, written);
        }
        self.conns[slot] = Some(conn);
        if !keep {
            self.close(slot, end);
        }
    }

    /// Closes clients where all of them together take too much.
    fn limit_clients(&mut self) {
        for client in self.engine.limit_clients() {
            if let Some(&slot) = self.by_id.get(&client) {
                self.close(slot, End::Close);
            }
        }
    }

    fn serve_conn(&mut self, conn: &mut Conn, slot: usize) -> End {
        if conn.session.info.kill.load(Relaxed) {
            return End::Close;
        }
        if conn.overrun {
            return End::OutputBuffer;
        }
        if conn.unsent() > 0 {
            let mut written = 0;
            let sent = conn.flush(&mut written);
            self.count_written(conn, written);
            match sent {
                Sent::Broken => return End::Close,
                Sent::All if conn.session.close_after_reply => return End::Close,
                _ => {}
            }
        }
        if conn.session.close_after_reply {
            // Only the rest of the answers still interests; what comes in is thrown away.
            return if conn.unsent() == 0 || conn.eof { End::Close } else { End::Keep };
        }
        if conn.throttled {
            return self.check_output(conn);
        }
        let mut budget = FAIR_BYTES;
        if conn.session.waiting.is_none() && (conn.is_postponed() || !conn.input.is_empty()) {
            conn.postpone(false);
            match self.run_kept_input(conn) {
                End::Keep => {}
                end => return end,
            }
        }
        while conn.readable && !conn.is_held() && !conn.session.close_after_reply {
            if budget == 0 {
                self.again.push(slot);
                break;
            }
            match self.read_some(conn, &mut budget) {
                End::Keep => {}
                end => return end,
            }
        }
        self.after_serving(conn, slot, budget)
    }

    /// What a connection that has run what it sent comes to.
    fn after_serving(&mut self, conn: &mut Conn, slot: usize, budget: usize) -> End {
        if conn.is_held() && !conn.throttled {
            match self.read_held(conn, slot, budget) {
                End::Keep => {}
                end => return end,
            }
        }
        if conn.session.close_after_reply && conn.unsent() == 0 {
            return End::Close;
        }
        if conn.gated {
            return End::Keep;
        }
        if conn.eof && !conn.throttled {
            return End::Close;
        }
        // What waits for others' answers is short.
        if conn.deferred { End::Keep } else { self.check_output(conn) }
    }

    /// One read and all that it completes.
    fn read_some(&mut self, conn: &mut Conn, budget: &mut usize) -> End {
        // A short beginning of a request goes in front of what is read into the shared buffer.
        let kept = conn.input.len();
        let result = if kept <= SHORT_INPUT && conn.expected == 0 {
            self.read_buffer[..kept].copy_from_slice(&conn.input);
            let result = conn.transport.read(&mut self.read_buffer[kept..]);
            if let Ok(n) = result {
                if n < self.read_buffer.len() - kept && !conn.ending {
                    conn.readable = false;
                }
                if n > 0 {
                    self.count_read(conn, n, budget);
                    conn.input.clear();
                    let buffer = std::mem::take(&mut self.read_buffer);
                    let end = self.run_input(conn, &buffer[..kept + n], &[]);
                    self.read_buffer = buffer;
                    return end.0;
                }
            }
            result
        } else {
            let spare = conn.input.capacity() - kept;
            let room = if spare < SHORT_INPUT { READ_CHUNK } else { spare.min(FAIR_BYTES) };
            let result = conn.read_input(room);
            if let Ok(n) = result {
                if n < room && !conn.ending {
                    conn.readable = false;
                }
                if n > 0 {
                    self.count_read(conn, n, budget);
                    if conn.input.len() as u64 > self.engine.config.client_query_buffer_limit {
                        return End::QueryBuffer;
                    }
                    return self.run_kept_input(conn);
                }
            }
            result
        };
        match result {
            Ok(_) => {
                conn.eof = true;
                conn.readable = false;
                End::Keep
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                conn.readable = false;
                End::Keep
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => End::Keep,
            Err(_) => End::Close,
        }
    }

    fn count_read(&self, conn: &Conn, bytes: usize, budget: &mut usize) {
        *budget = budget.saturating_sub(bytes);
        let stats = self.shared.stats.worker(self.index);
        stats.reads_processed.add(1);
        stats.net_input_bytes.add(bytes as u64);
        let info = &conn.session.info;
        info.net_in.store(info.net_in.load(Relaxed) + bytes as u64, Relaxed);
        info.last_interaction_ms.store(self.engine.now_ms, Relaxed);
    }

    fn count_written(&self, conn: &Conn, bytes: u64) {
        note_written(&self.shared, self.index, conn, bytes);
    }

    /// Runs what the connection had kept.
    fn run_kept_input(&mut self, conn: &mut Conn) -> End {
        let input = std::mem::take(&mut conn.input);
        let (end, consumed) = self.run_requests(conn, &input, &[]);
        conn.input = input;
        conn.consume(consumed);
        end
    }

    /// Runs fresh input from the shared buffer; keeps the rest.
    fn run_input(&mut self, conn: &mut Conn, input: &[u8], waiting: &[u8]) -> (End, usize) {
        let (end, consumed) = self.run_requests(conn, input, waiting);
        if end == End::Keep {
            conn.keep_input(&input[consumed..]);
        }
        (end, consumed)
    }

    /// Runs all complete requests of `input` and sends the answers; returns the bytes that are done with. `waiting`: what
    /// a group's other connections have sent.
    fn run_requests(&mut self, conn: &mut Conn, input: &[u8], waiting: &[u8]) -> (End, usize) {
        let shared = self.shared.clone();
        let mut space = shared.keyspace.unlocked();
        let mut requests = std::mem::take(&mut self.requests);
        let mut ends = Ends::new();
        let mut done = 0;
        let mut end = End::Keep;
        while end == End::Keep && !conn.is_held() && !conn.session.close_after_reply {
            ends.clear();
            let rest = &input[done..];
            let count = self.parse_batch(conn, rest, &mut requests, &mut ends);
            if count == 0 {
                done += ends.last().copied().unwrap_or(0);
                break;
            }
            let batch = &requests[..count];
            let place = if count > 1 {
                let starts = std::iter::once(&0).chain(&ends);
                let ahead = batch.iter().zip(starts).map(|(r, &start)| (conn.session.db, r, &rest[start..]));
                self.engine.look_ahead(&mut space, ahead);
                Some(0)
            } else {
                None
            };
            end = self.run_batch(conn, &mut space, (rest, waiting), batch, &ends, place, &mut done);
            if done == input.len() {
                break;
            }
        }
        drop(space);
        self.requests = requests;
        (self.answer_batch(conn, end), done)
    }

    /// Ends a batch of a connection's requests: sends what they answered, if it is to stay.
    fn answer_batch(&mut self, conn: &mut Conn, end: End) -> End {
        self.engine.end_batch();
        self.read_own_mail(Some(conn));
        if end == End::Keep {
            return self.send_replies(conn);
        }
        // Nobody else may get what was written for a client that is closed.
        self.reply.clear();
        end
    }

    /// Parses as many requests as there is room for. Behind `ends` come the offsets behind the requests; where there is
    /// none, one: how much of the input is done with all the same.
    fn parse_batch(
        &mut self,
        conn: &mut Conn,
        input: &[u8],
        requests: &mut [Request],
        ends: &mut Ends,
    ) -> usize {
        let config = &self.engine.config;
        let limits = Limits {
            max_bulk_len: config.proto_max_bulk_len as i64,
            unauthenticated: !conn.session.authenticated,
            ..Limits::default()
        };
        // What follows AUTH is parsed under other limits: one at a time until then.
        let ahead = if conn.session.authenticated { requests.len() } else { 1 };
        conn.expected = 0;
        let mut at = 0;
        let mut count = 0;
        while count < ahead && (at < input.len() || count == 0) {
            match conn.parse.parse(&input[at..], &limits, &mut requests[count]) {
                Ok(Step::Complete { consumed }) => {
                    at += consumed;
                    ends.push(at);
                    count += 1;
                }
                Ok(Step::NeedMore { consumed, missing }) => {
                    // Empty requests passed over belong to what is done with.
                    match ends.last_mut().filter(|_| count > 0) {
                        Some(end) => *end += consumed,
                        None => {
                            ends.push(consumed);
                            // A large argument gets room as it arrives, never for more than one fair share ahead.
                            conn.expected = if missing > READ_CHUNK { missing.min(FAIR_BYTES) } else { 0 };
                        }
                    }
                    break;
                }
                Err(error) => {
                    if count == 0 {
                        self.reply.error_bytes(&error.reply());
                        conn.session.close_after_reply = true;
                        ends.push(input.len());
                    } else {
                        conn.parse.reset();
                    }
                    break;
                }
            }
        }
        count
    }

    /// Runs parsed requests of a connection. `place`: where in the look-ahead the first of them is. Of `input`, the
    /// second part is what a group's other connections have sent and wait for.
    fn run_batch(
        &mut self,
        conn: &mut Conn,
        space: &mut Locked<'_>,
        (input, waiting): (&[u8], &[u8]),
        batch: &[Request],
        ends: &[usize],
        place: Option<usize>,
        done: &mut usize,
    ) -> End {
        let base = *done;
        let mut start = 0;
        for (at, (request, &end)) in batch.iter().zip(ends).enumerate() {
            let mut args: SmallVec<[&[u8]; 8]> = SmallVec::new();
            request.args(&input[start..], &mut args);
            let received =
                Received { place: place.map(|first| first + at), sent: request.as_sent(&input[start..]) };
            start = end;
            let flow = if busy::may_run_scripts(&args) {
                let mut others = beside::Beside {
                    index: self.index,
                    poll: &mut self.poll,
                    conns: &mut self.conns,
                    free: &mut self.free,
                    by_id: &mut self.by_id,
                    seen: &mut self.seen,
                    later: &mut self.later,
                    host: &self.host,
                    shared: &self.shared,
                    now_ms: self.engine.now_ms,
                    gathered: (&mut self.group, waiting),
                    is_first: true,
                };
                let engine = &mut self.engine;
                let reply = &mut self.reply;
                busy::beside(&mut others, || {
                    engine.run_ahead(received, space, &mut conn.session, &args, reply)
                })
            } else {
                self.engine.run_ahead(received, space, &mut conn.session, &args, &mut self.reply)
            };
            match flow {
                Flow::Next => {}
                Flow::Wait => {
                    *done = base + end;
                    self.begin_wait(conn);
                    if ends.last() != Some(&end) {
                        // What follows is parsed again later.
                        conn.parse.reset();
                    }
                    return End::Keep;
                }
                Flow::Postpone => {
                    conn.postpone(true);
                    self.postponed = true;
                    conn.parse.reset();
                    return End::Keep;
                }
            }
            *done = base + end;
            self.read_own_mail(Some(conn));
            if conn.session.close_now {
                if conn.session.handover.is_some() {
                    // The answers so far go first, on the other thread.
                    conn.output.extend_from_slice(self.reply.as_bytes());
                    self.reply.clear();
                }
                return End::Close;
            }
            if conn.session.close_after_reply {
                return End::Keep;
            }
            if self.engine.far_mail && self.throttle(conn) {
                return End::Keep;
            }
            let written = self.reply.len();
            if written > REPLY_CHUNK
                && (written > LIMITED_CHUNK || !limits::is_limited(&self.engine.config, conn))
            {
                space.release();
                match self.send_replies(conn) {
                    End::Keep => {}
                    end => return end,
                }
                // Much may come of one read: what it comes to is looked at before the next large answer.
                publish_figures(&self.shared, conn);
                self.limit_clients();
                if conn.session.info.kill.load(Relaxed) {
                    return End::Close;
                }
            }
        }
        End::Keep
    }

    /// Sends what the commands answered.
    fn send_replies(&mut self, conn: &mut Conn) -> End {
        if self.reply.is_empty() {
            return End::Keep;
        }
        conn.note_reply(self.reply.len());
        // The limit holds for what a client is owed, not only for what its socket didn't take.
        if !limits::allow_reply(&self.engine.config, conn, self.reply.len()) {
            self.reply = new_reply();
            return End::OutputBuffer;
        }
        if self.shared.persist.aof.is_on() {
            self.gate(conn);
        }
        if self.deferring && self.may_defer(conn) {
            return End::Keep;
        }
        let mut written = 0;
        let sent = conn.send(self.reply.as_bytes(), &mut written);
        self.reply.clear();
        if self.reply.buffer().capacity() > 4 * REPLY_CHUNK {
            self.reply = new_reply();
        }
        self.count_written(conn, written);
        match sent {
            Sent::Broken => End::Close,
            Sent::All => End::Keep,
            Sent::Part if conn.gated => End::Keep,
            Sent::Part => self.check_output(conn),
        }
    }

    fn check_output(&self, conn: &mut Conn) -> End {
        limits::check(&self.engine.config, conn)
    }

    fn close(&mut self, slot: usize, end: End) {
        let Some(mut conn) = self.conns.get_mut(slot).and_then(Option::take) else { return };
        let _ = conn.transport.deregister(self.poll.registry());
        let stats = self.shared.stats.worker(self.index);
        let reason = match end {
            End::QueryBuffer => {
                stats.query_buffer_disconnections.add(1);
                Some("query buffer limit")
            }
            End::OutputBuffer => {
                stats.output_buffer_disconnections.add(1);
                Some("output buffer limits")
            }
            End::Keep | End::Close => None,
        };
        if let Some(reason) = reason {
            let text = format!(
                "Client id={} addr={} closed for overcoming of {reason}.",
                conn.session.id(),
                conn.session.info.addr
            );
            self.host.log_warning(&text);
        }
        if let Some(at) = conn.wait_until {
            self.deadlines.remove(&(at, conn.session.id()));
        }
        self.engine.client_gone(&mut conn.session);
        self.by_id.remove(&conn.session.id());
        self.free.push(slot);
        match (conn.session.handover.take(), self.host.replicas()) {
            (Some(request), Some(replicas)) if end == End::Close => {
                // Replicas' memory is counted by itself.
                self.shared.clients.note_memory(&conn.session.info, 0);
                let output = conn.output.split_off(conn.sent);
                let info = conn.session.info.clone();
                replicas.adopt(NewReplica { transport: conn.transport, info, request: *request, output });
            }
            _ => {
                // Before anybody else finds that it holds nothing any more.
                (conn.output, conn.input) = (Vec::new(), Vec::new());
                self.shared.clients.remove(conn.session.id());
            }
        }
    }

    fn timed_tick(&mut self, now: Tick) {
        self.last_tick = now;
        let begin = self.shared.ticker.now();
        self.tick();
        let took = self.since(begin, self.shared.ticker.now());
        self.shared.observe.turns.cron(took.as_nanos() as u64);
        self.read_own_mail(None);
    }

    /// Some times a second: time-outs, figures for CLIENT LIST, expiry.
    fn tick(&mut self) {
        let now_ms = self.engine.now_ms;
        let idle_limit_ms = self.engine.config.timeout as i64 * 1000;
        let paused = self.shared.cron_paused.load(Relaxed);
        let reply_peak_reset_ms = self.shared.reply_peak_reset_ms.load(Relaxed);
        let per_tick = (self.conns.len() / 10).max(50).min(self.conns.len());
        for _ in 0..per_tick {
            self.next_check = (self.next_check + 1) % self.conns.len();
            let slot = self.next_check;
            let Some(conn) = self.conns[slot].as_mut() else { continue };
            let info = conn.session.info.clone();
            let idle_ms = now_ms - info.last_interaction_ms.load(Relaxed);
            if !paused {
                conn.trim(idle_ms > IDLE_MS);
            }
            let room = conn.reply_room(now_ms, reply_peak_reset_ms);
            if self.shared.reply_resizing.load(Relaxed) {
                info.reply_buffer_bytes.store(room as u64, Relaxed);
            }
            publish_figures(&self.shared, conn);
            let timed_out = idle_limit_ms > 0
                && idle_ms > idle_limit_ms
                && info.kind() == ClientKind::Normal
                && !info.flags().contains(ClientFlags::BLOCKED);
            if timed_out || info.kill.load(Relaxed) {
                self.close(slot, End::Close);
            } else if conn.unsent() > 0 {
                self.again.push(slot);
            }
        }
        self.engine.cron();
    }
}

/// An answer's beginning, with the room that most answers (INFO's, too) stay within: memory that would otherwise come with
/// the first of them, when `maxmemory` may leave no room for it.
fn new_reply() -> Writer {
    let mut reply = Writer::new(Protocol::Resp2);
    reply.buffer().reserve_exact(REPLY_ROOM);
    reply
}

/// Counts what a socket took.
fn note_written(shared: &Shared, worker: usize, conn: &Conn, bytes: u64) {
    if bytes > 0 {
        let stats = shared.stats.worker(worker);
        stats.writes_processed.add(1);
        stats.net_output_bytes.add(bytes);
        let info = &conn.session.info;
        info.net_out.store(info.net_out.load(Relaxed) + bytes, Relaxed);
    }
}

/// Buffer sizes and all that the client takes, for CLIENT LIST and `maxmemory-clients`.
fn publish_figures(shared: &Shared, conn: &Conn) {
    let info = &conn.session.info;
    info.query_bytes.store(conn.input.len() as u64, Relaxed);
    info.query_capacity.store(conn.input.capacity() as u64, Relaxed);
    limits::publish(conn);
    shared.clients.note_memory(info, conn.memory() as u64);
}
