//! Our primary's stream: its bytes in, its commands run in order.

use super::Link;
use super::sync::set_link_down;
use crate::clients::{ClientFlags, ClientInfo, ClientKind};
use crate::config::PropagationError;
use crate::log::Level;
use crate::pipeline::{Engine, Received};
use crate::session::{Origin, Session};
use crate::shared::Shared;
use kara_base::ids::DbIndex;
use kara_base::rng::Rng;
use kara_keyspace::Locked;
use kara_replication::ids::ReplId;
use kara_resp::{Limits, ParseState, Protocol, Request, Step, Writer};
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Commands that are looked ahead over, so that their cache misses overlap. Whoever waits longer for a shard than these
/// take gets it.
const BATCH: usize = 32;

/// The least room for what comes next: reads are shorter, and the rest of a request finds its place without moving.
const CHUNK: usize = 128 << 10;

/// Where the requests of a batch end.
type Ends = SmallVec<[usize; BATCH]>;

/// The stream of one primary, as long as its link and our role last.
pub struct Stream {
    shared: Arc<Shared>,
    engine: Engine,
    session: Session,
    reply: Writer,
    parse: ParseState,
    requests: Vec<Request>,
    /// What came and isn't run yet are its first `kept` bytes.
    input: Vec<u8>,
    kept: usize,
    /// Bytes that are processed but belong to a transaction that isn't through.
    held: Vec<u8>,
    pub epoch: u64,
    /// The primary wants to know how far we are.
    pub ack_wanted: bool,
    /// CLIENT PAUSE keeps what has come from being run.
    held_back: bool,
}

/// How the link to our primary is ended at once, so that it doesn't count us among its replicas any longer.
#[derive(Default)]
pub struct HangUp(parking_lot::Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl std::fmt::Debug for HangUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HangUp")
    }
}

impl HangUp {
    /// What ends the link that there is now.
    pub fn set(&self, end: Box<dyn FnOnce() + Send>) {
        *self.0.lock() = Some(end);
    }

    pub fn now(&self) {
        if let Some(end) = self.0.lock().take() {
            end();
        }
    }
}

/// More than this isn't read from the primary while it can't be run.
const MAX_HELD_BACK: usize = 16 << 20;

impl Stream {
    /// Begins behind what our data hold; `db` is what the stream has selected there.
    pub fn begin(
        shared: &Arc<Shared>,
        epoch: u64,
        addr: String,
        laddr: String,
        fd: i32,
        db: DbIndex,
    ) -> Stream {
        let now_ms = crate::persist::save::clock_ms();
        let id = shared.clients.next_id();
        let info =
            Arc::new(ClientInfo::new(id, shared.workers, addr, laddr, fd, now_ms, ClientFlags::PRIMARY));
        info.kind.store(ClientKind::Primary as u8, Relaxed);
        shared.clients.insert(info.clone());
        let mut session = Session::new(info, true);
        session.origin = Origin::Primary;
        session.epoch = epoch;
        session.select(db);
        Stream {
            engine: Engine::new(
                shared.clone(),
                shared.workers,
                now_ms,
                Rng::new(kara_base::hash::random_u64()),
            ),
            shared: shared.clone(),
            session,
            reply: Writer::new(Protocol::Resp2),
            parse: ParseState::default(),
            requests: (0..BATCH).map(|_| Request::new()).collect(),
            input: Vec::new(),
            kept: 0,
            held: Vec::new(),
            epoch,
            ack_wanted: false,
            held_back: false,
        }
    }

    /// Whether CLIENT KILL or the like ends the link.
    pub fn is_killed(&self) -> bool {
        self.session.info.kill.load(Relaxed)
    }

    /// Once in a while: runs what a pause held back. True while nothing more should be read.
    pub fn go_on(&mut self) -> Result<bool, String> {
        if self.held_back {
            self.take(0)?;
        }
        Ok(self.held_back && self.kept > MAX_HELD_BACK)
    }

    /// Room for what comes next, behind what waits for its rest.
    pub fn room(&mut self, bytes: usize) -> Result<&mut [u8], String> {
        let wanted = self.kept.saturating_add(bytes.max(CHUNK));
        if self.input.len() < wanted {
            let more = wanted - self.input.len();
            self.input.try_reserve(more).map_err(|_| "Out of memory for the stream".to_owned())?;
            self.input.resize(wanted, 0);
        }
        Ok(&mut self.input[self.kept..])
    }

    /// Runs what is whole, with so many bytes that have come into the room. The error ends the link.
    pub fn take(&mut self, bytes: usize) -> Result<(), String> {
        let now_ms = crate::persist::save::clock_ms();
        let info = &self.session.info;
        if bytes > 0 {
            info.last_interaction_ms.store(now_ms, Relaxed);
        }
        info.net_in.store(info.net_in.load(Relaxed) + bytes as u64, Relaxed);
        self.shared.replication.input_bytes.fetch_add(bytes as u64, Relaxed);
        self.shared.replication.with(|state| {
            if let Some(primary) = state.primary.as_mut().filter(|_| bytes > 0) {
                primary.heard_ms = now_ms;
                primary.read_offset = primary.read_offset.saturating_add(bytes as u64);
            }
        });
        self.held_back = false;
        self.engine.begin_turn(now_ms);
        let shared = self.shared.clone();
        let mut space = shared.keyspace.unlocked();
        let mut input = std::mem::take(&mut self.input);
        let filled = (self.kept + bytes).min(input.len());
        let mut requests = std::mem::take(&mut self.requests);
        let mut done = 0;
        let result = loop {
            if done == filled {
                break Ok(());
            }
            let rest = &input[done..filled];
            let (ends, passed) = match self.parse_batch(rest, &mut requests) {
                Ok(parsed) => parsed,
                Err(error) => break Err(error),
            };
            let (run, outcome) = self.run_batch(&mut space, rest, &requests, &ends);
            done += run;
            if outcome.is_err() || self.held_back {
                break outcome;
            }
            if let Some(passed) = passed {
                if passed > 0 && !self.pass_on(&rest[run..run + passed]) {
                    break Err("The role has changed".to_owned());
                }
                done += passed;
                break Ok(());
            }
        };
        drop(space);
        self.engine.end_batch();
        self.shared.replication.mark(&self.shared);
        self.requests = requests;
        if done > 0 {
            input.copy_within(done..filled, 0);
        }
        self.kept = filled - done;
        if input.len() > 4 * CHUNK && self.kept < CHUNK {
            input.truncate(self.kept);
            input.shrink_to_fit();
        }
        self.input = input;
        result
    }

    /// Parses as many requests as there is room for: the offsets behind them, and, where no more is whole, how many bytes
    /// of empty lines follow.
    fn parse_batch(
        &mut self,
        input: &[u8],
        requests: &mut [Request],
    ) -> Result<(Ends, Option<usize>), String> {
        let mut ends = Ends::new();
        for request in requests {
            let at = ends.last().copied().unwrap_or(0);
            match self.parse.parse(&input[at..], &limits(), request) {
                Ok(Step::Complete { consumed }) => ends.push(at + consumed),
                Ok(Step::NeedMore { consumed, .. }) => return Ok((ends, Some(consumed))),
                Err(error) if ends.is_empty() => {
                    return Err(format!("Protocol error in the primary's stream: {error}"));
                }
                Err(_) => {
                    // What is in front of it is run first.
                    self.parse.reset();
                    break;
                }
            }
        }
        Ok((ends, None))
    }

    /// Runs a batch, with its keys looked ahead for; gives how many bytes of it are done with. Our log gets them before any
    /// lock is given back under which they were run: who holds all sees a command in both or in none.
    fn run_batch(
        &mut self,
        space: &mut Locked<'_>,
        input: &[u8],
        requests: &[Request],
        ends: &[usize],
    ) -> (usize, Result<(), String>) {
        let looks_ahead = ends.len() > 1;
        if looks_ahead {
            let db = self.session.db;
            let starts = std::iter::once(&0).chain(ends);
            let batch = requests.iter().zip(starts).take(ends.len());
            self.engine.look_ahead(space, batch.map(|(request, &start)| (db, request, &input[start..])));
        }
        let may_keep_locks = looks_ahead && !self.engine.evicts_for_primary();
        let (mut done, mut passed) = (0, 0);
        let mut current = self.shared.replication.epoch() == self.epoch;
        for (at, (request, &end)) in requests.iter().zip(ends).enumerate() {
            if !current {
                break;
            }
            let raw = &input[done..end];
            let mut args: SmallVec<[&[u8]; 8]> = SmallVec::new();
            request.args(raw, &mut args);
            if self.engine.holds_back(&args) {
                self.held_back = true;
                // It and what follows are parsed once more when their time has come.
                self.parse.reset();
                break;
            }
            let keeps_locks = may_keep_locks && self.engine.keeps_locks(space, at);
            if !keeps_locks && passed < done {
                current = self.pass_on(&input[passed..done]);
                passed = done;
            }
            if current {
                let received = Received { place: looks_ahead.then_some(at), sent: request.as_sent(raw) };
                self.run(space, received, &args);
                done = end;
            }
            if current && !keeps_locks {
                current = self.pass_on(raw);
                passed = done;
            }
        }
        if current && passed < done {
            current = self.pass_on(&input[passed..done]);
        }
        // Who waits for a shard gets it.
        space.release();
        (done, if current { Ok(()) } else { Err("The role has changed".to_owned()) })
    }

    fn run(&mut self, space: &mut Locked<'_>, received: Received<'_>, args: &[&[u8]]) {
        let is = |at: usize, word: &[u8]| args.get(at).is_some_and(|arg| arg.eq_ignore_ascii_case(word));
        if is(0, b"REPLCONF") {
            self.ack_wanted |= is(1, b"GETACK");
        } else {
            self.engine.run_ahead(received, space, &mut self.session, args, &mut self.reply);
            let current = self.shared.replication.epoch() == self.epoch;
            if current && self.reply.as_bytes().first() == Some(&b'-') && self.session.multi.is_none() {
                self.complain(args);
            }
            self.reply.clear();
        }
    }

    /// What was processed goes to our own replicas, a transaction only as a whole; true unless the role has changed.
    fn pass_on(&mut self, raw: &[u8]) -> bool {
        let replication = &self.shared.replication;
        if self.session.multi.is_some() {
            self.held.extend_from_slice(raw);
            return replication.epoch() == self.epoch;
        }
        if self.held.is_empty() {
            return replication.feed(self.epoch, raw, self.session.db);
        }
        self.held.extend_from_slice(raw);
        let held = std::mem::take(&mut self.held);
        replication.feed(self.epoch, &held, self.session.db)
    }

    /// What our primary did can't be done here: the data sets differ. What follows is `propagation-error-behavior`'s.
    fn complain(&self, args: &[&[u8]]) {
        let name = args.first().copied().unwrap_or_default().escape_ascii().to_string();
        let error = self.reply.as_bytes().get(1..).unwrap_or_default();
        let error = error.escape_ascii().to_string();
        let text = format!(
            "== CRITICAL == This replica is sending an error to its primary: '{}' after processing the command '{name}'",
            error.trim_end_matches("\\r\\n")
        );
        self.shared.host.log(Level::Warning, &text);
        let config = self.shared.config.load();
        let panics = config.propagation_error_behavior != PropagationError::Ignore;
        if panics && config.replica_read_only {
            self.shared.host.log(
                Level::Warning,
                "This replica panicked sending an error to its primary, as propagation-error-behavior says",
            );
            std::process::abort();
        }
    }
}

fn limits() -> Limits {
    Limits { max_bulk_len: i64::MAX, ..Limits::default() }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.engine.client_gone(&mut self.session);
        self.shared.clients.remove(self.session.id());
    }
}

/// Notes what the link does, unless the role has changed since `epoch`.
pub fn set_link(shared: &Shared, epoch: u64, link: Link) -> bool {
    let now_ms = crate::persist::save::clock_ms();
    let current = shared.replication.with(|state| {
        if shared.replication.epoch() != epoch {
            return false;
        }
        let Some(primary) = &mut state.primary else { return false };
        if primary.link == Link::Connected && link != Link::Connected {
            primary.down_since_ms = now_ms;
        }
        primary.link = link;
        if link == Link::Connected {
            primary.heard_ms = now_ms;
            primary.worked = true;
            primary.refusals = 0;
            primary.failover = false;
        }
        set_link_down(shared, link != Link::Connected);
        true
    });
    if current && link == Link::Connected {
        shared.replication.end_failover(shared, "The replica has taken over");
    }
    current
}

/// The primary continues our history, under a new id if there is one. False: the role has changed.
pub fn continued(shared: &Shared, epoch: u64, id: Option<ReplId>) -> bool {
    let config = shared.config.load();
    shared.replication.with(|state| {
        if shared.replication.epoch() != epoch {
            return false;
        }
        let replication = &shared.replication;
        if let Some(id) = id.filter(|id| *id != state.ids.id) {
            let end = replication.backlog.end();
            state.ids.shift(id, end);
            state.dismiss("Connection with replica ends: the history has a new id", end);
            replication.backlog.nudge();
        }
        replication.backlog.activate(config.repl_backlog_size);
        true
    })
}
