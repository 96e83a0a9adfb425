//! The replicas' thread: judges who comes, begins snapshots for them, and sends them the stream from the shared log.

use super::fanout::Fanout;
use super::link::{Link, Phase, clock_ms};
use crate::transport::Transport;
use crossbeam_channel::{Receiver, Sender};
use kara_engine::clients::{ClientFlags, ClientId, ClientInfo, ClientKind};
use kara_engine::config::Config;
use kara_engine::log::Level;
use kara_engine::persist::jobs::Job;
use kara_engine::replication::sync::{self, Start, Wanted};
use kara_engine::replication::{Member, SyncRequest, patience};
use kara_engine::shared::Shared;
use kara_persist::rdb::file::{TempFile, path};
use kara_replication::ids::Refused;
use kara_replication::replica::{Replica, ReplicaConf, ReplicaState};
use mio::{Events, Poll, Token, Waker};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

const WAKE: Token = Token(usize::MAX);
const TICK: Duration = Duration::from_millis(100);
/// Turns on the processor, shorter than a worker's: one that needs all of it would keep the stream back until the next
/// tick of the scheduler, 4 ms.
const TURNS: Duration = Duration::from_micros(50);
/// How long the stream may gather while much is written, so that it isn't sent command by command; and while very much is
/// (20 MB a second, until it is less than half of that), so that each end is woken less often: that costs some
/// microseconds each time. Nobody waits for that in vain: WAIT ends it.
const GATHER: Duration = Duration::from_micros(100);
const GATHER_LONG: Duration = Duration::from_millis(1);
/// What came in `GATHER` or `GATHER_LONG` at least where `GATHER_LONG` pays, and the most that is waited behind at all.
const MUCH: u64 = 2 << 10;
const MUCH_LONG: u64 = 10 << 10;
const ENOUGH: u64 = 256 << 10;

/// A connection that asked for the stream.
pub struct NewReplica {
    pub transport: Transport,
    pub info: Arc<ClientInfo>,
    pub request: SyncRequest,
    /// Answers that weren't sent yet.
    pub output: Vec<u8>,
}

enum Intake {
    New(Box<NewReplica>),
    /// These have the whole data set, by their sockets.
    Synced(Vec<Link>),
    /// The snapshot's file is there, or isn't; for replicas that wait since then.
    File(Result<(), String>),
}

/// A data set that goes out by a connection of its own, until the main one has come for the stream behind it.
struct AwaitedMain {
    member: Arc<Member>,
    position: u64,
    /// Since when only the main connection is missing.
    since: Option<Instant>,
}

/// A snapshot for a file that replicas wait for; others may join them.
struct FileSync {
    start: Start,
    wanted: Wanted,
    eof: bool,
    job: Option<Arc<Job>>,
}

/// The way to the thread.
#[derive(Clone)]
pub struct Handle {
    sender: Sender<Intake>,
    waker: Arc<Waker>,
}

impl Handle {
    /// Hands a connection over.
    pub fn adopt(&self, new: NewReplica) {
        self.put(Intake::New(Box::new(new)));
    }

    fn put(&self, intake: Intake) {
        // The thread ends with the process only.
        let _ = self.sender.send(intake);
        let _ = self.waker.wake();
    }
}

/// The thread's own.
pub struct Replicas {
    poll: Poll,
    handle: Handle,
    intake: Receiver<Intake>,
    links: Vec<Option<Link>>,
    awaited: Vec<AwaitedMain>,
    file: Option<FileSync>,
    /// Replicas over their soft limit of output, since when.
    soft: HashMap<ClientId, Instant>,
    /// The stream gathers for long.
    gathers: bool,
}

impl Replicas {
    pub fn new() -> io::Result<Replicas> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let (sender, intake) = crossbeam_channel::unbounded();
        Ok(Replicas {
            poll,
            handle: Handle { sender, waker },
            intake,
            links: Vec::new(),
            awaited: Vec::new(),
            file: None,
            soft: HashMap::new(),
            gathers: false,
        })
    }

    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs until the process ends.
    pub fn run(mut self, shared: &Arc<Shared>) -> io::Result<()> {
        let waker = self.handle.waker.clone();
        shared.replication.backlog.set_waker(Box::new(move || {
            // The next tick comes anyway.
            let _ = waker.wake();
        }));
        // It may be refused.
        let _ = kara_base::os::set_turns(Some(TURNS));
        let mut events = Events::with_capacity(256);
        let mut last_tick = Instant::now();
        let mut last_ping = Instant::now();
        let mut pause = Duration::ZERO;
        loop {
            let timeout = pause.min(TICK.saturating_sub(last_tick.elapsed()));
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => other?,
            }
            for event in &events {
                let Token(slot) = event.token();
                if let Some(link) = self.links.get_mut(slot).and_then(Option::as_mut) {
                    if event.is_writable() {
                        link.blocked = false;
                    }
                    if event.is_readable() || event.is_read_closed() || event.is_error() {
                        self.listen(shared, slot);
                    }
                }
            }
            while let Ok(intake) = self.intake.try_recv() {
                self.take(shared, intake);
            }
            if last_tick.elapsed() >= TICK {
                last_tick = Instant::now();
                let config = shared.config.load();
                self.ping(shared, &config, &mut last_ping);
                self.tick(shared, &config);
            }
            pause = self.pump_all(shared);
        }
    }

    fn listen(&mut self, shared: &Shared, slot: usize) {
        let Some(link) = self.links.get_mut(slot).and_then(Option::as_mut) else { return };
        match link.listen(clock_ms()) {
            Ok(true) => {
                let replica = &link.member.replica;
                let loads = replica.state() == ReplicaState::Loading;
                if matches!(link.phase, Phase::WaitAck) || loads && matches!(link.phase, Phase::Online) {
                    link.phase = Phase::Online;
                    link.member.replica.set_state(ReplicaState::Online);
                    let text = format!("Synchronization with replica {} succeeded", link.address());
                    sync::log(shared, &text);
                }
                if !shared.replication.waits().is_empty() {
                    shared.replication.waits().serve(shared);
                }
            }
            Ok(false) => {}
            Err(_) => self.drop_link(shared, slot, "Connection with replica lost"),
        }
    }

    /// Sends what there is; gives how long to wait before the next look, unless somebody wakes us.
    fn pump_all(&mut self, shared: &Shared) -> Duration {
        let mut idle_at: Option<u64> = None;
        let mut gathered = 0;
        let mut began = u64::MAX;
        for slot in 0..self.links.len() {
            let Some(link) = self.links[slot].as_mut() else { continue };
            if link.member.info.kill.load(Relaxed) {
                // What is written behind a CLIENT KILL isn't for it any more.
                self.drop_link(shared, slot, "Connection with replica was killed");
                continue;
            }
            let before = link.position();
            let sends_file = matches!(link.phase, Phase::SendFile { .. });
            if !link.blocked
                && let Err(error) = link.pump()
            {
                self.drop_link(shared, slot, &format!("Connection with replica ended ({error})"));
                continue;
            }
            if matches!(link.phase, Phase::Online) {
                if sends_file {
                    link.member.replica.set_state(ReplicaState::Online);
                    let text = format!("Synchronization with replica {} succeeded", link.address());
                    sync::log(shared, &text);
                }
                if !link.blocked {
                    idle_at = Some(idle_at.map_or(link.position(), |at| at.min(link.position())));
                    gathered = gathered.max(link.position() - before);
                    began = began.min(before);
                }
            }
        }
        let awaited = self.awaited.iter().map(|awaited| awaited.position);
        shared.replication.keep_for(awaited);
        let backlog = &shared.replication.backlog;
        let much = if self.gathers { MUCH_LONG } else { MUCH };
        self.gathers = (much..ENOUGH).contains(&gathered);
        match idle_at {
            Some(at) if self.gathers => return if backlog.gather(at) { GATHER_LONG } else { Duration::ZERO },
            // Who asked how far a replica is waits for its answer now.
            Some(at) if (1..much).contains(&gathered) && !backlog.is_urgent(began) => {
                backlog.gather_for(at, GATHER);
            }
            _ => {}
        }
        if idle_at.is_some_and(|at| !backlog.sleep(at)) { Duration::ZERO } else { TICK }
    }

    fn add(&mut self, shared: &Shared, mut link: Link) {
        let slot = self.links.iter().position(Option::is_none).unwrap_or_else(|| {
            self.links.push(None);
            self.links.len() - 1
        });
        link.blocked = false;
        if link.transport.register(self.poll.registry(), Token(slot)).is_err() {
            sync::log(shared, "A replica's connection can't be watched");
            return;
        }
        self.links[slot] = Some(link);
        // What came before it was watched.
        self.listen(shared, slot);
    }

    fn drop_link(&mut self, shared: &Shared, slot: usize, why: &str) {
        let Some(mut link) = self.links.get_mut(slot).and_then(Option::take) else { return };
        let _ = link.transport.deregister(self.poll.registry());
        sync::log(shared, &format!("{why}: {}", link.address()));
        self.soft.remove(&link.member.info.id);
        if let Some(id) = link.rdb_client.filter(|_| link.member.replica.state() == ReplicaState::Loading) {
            // The data set is of no use without the stream behind it.
            let rdb = shared
                .replication
                .with(|state| state.replicas.iter().find(|member| member.info.id.0 == id).cloned());
            if let Some(rdb) = rdb {
                rdb.replica.dismiss("Connection with replica ends: its main channel is gone", 0);
            }
        }
        let waited = matches!(link.phase, Phase::WaitFile);
        drop(link);
        shared.replication.keep_for(self.awaited.iter().map(|awaited| awaited.position));
        if waited && !self.links.iter().flatten().any(|link| matches!(link.phase, Phase::WaitFile)) {
            // Nobody waits for the file any more; where saving is wanted anyway, it is of use.
            let saves = !shared.config.load().save.points.is_empty();
            if let Some(job) = self.file.take().and_then(|file| file.job).filter(|_| !saves) {
                sync::log(shared, "Killing running child, as its RDB is not useful to any replica");
                job.cancel();
            }
        }
    }

    fn take(&mut self, shared: &Arc<Shared>, intake: Intake) {
        match intake {
            Intake::New(new) => self.welcome(shared, *new),
            Intake::Synced(links) => {
                for mut link in links {
                    let conf = &link.member.replica.conf;
                    // Online as soon as it has everything, as with the reference, though it loads yet.
                    let (phase, state) = match (conf.rdb_channel, conf.rdb_only) {
                        (true, _) => (Phase::WaitMain, ReplicaState::Transmitted),
                        (false, true) => (Phase::Done, ReplicaState::Transmitted),
                        (false, false) => (Phase::WaitAck, ReplicaState::Online),
                    };
                    link.phase = phase;
                    link.since = Instant::now();
                    link.member.replica.ack_ms.store(clock_ms(), Relaxed);
                    link.member.replica.set_state(state);
                    let text = format!(
                        "Streamed RDB transfer with replica {} succeeded (socket). Waiting for REPLCONF ACK from \
                         replica to enable streaming",
                        link.address()
                    );
                    sync::log(shared, &text);
                    self.add(shared, link);
                }
            }
            Intake::File(result) => {
                let config = shared.config.load();
                self.file = None;
                for slot in 0..self.links.len() {
                    let Some(link) = self.links[slot].as_mut() else { continue };
                    if !matches!(link.phase, Phase::WaitFile) {
                        continue;
                    }
                    let sent =
                        result.clone().and_then(|()| send_file(link, &config).map_err(|e| e.to_string()));
                    if let Err(error) = sent {
                        self.drop_link(shared, slot, &format!("Snapshot for replica failed ({error})"));
                    }
                }
            }
        }
    }

    fn welcome(&mut self, shared: &Arc<Shared>, new: NewReplica) {
        let NewReplica { transport, info, request, output } = new;
        info.kind.store(ClientKind::Replica as u8, Relaxed);
        info.set_flag(ClientFlags::REPLICA, true);
        let ip = info.addr.rsplit_once(':').map_or(info.addr.as_str(), |(ip, _)| ip);
        let ip = ip.trim_start_matches('[').trim_end_matches(']').to_owned();
        // The log is as long as it is set to be now, and as those need it who are still there.
        shared.replication.backlog.resize(shared.config.load().repl_backlog_size);
        shared.replication.keep_for(self.awaited.iter().map(|awaited| awaited.position));
        let verdict = shared.replication.judge(&request);
        let knows_psync = request.psync.is_some();
        let SyncRequest { psync, conf } = request;
        let (psync2, rdb_client, rdb_channel) = (conf.psync2, conf.rdb_client, conf.rdb_channel);
        let config = shared.config.load();
        if config.repl_disable_tcp_nodelay {
            transport.set_delay(true);
        }
        let member = Arc::new(Member { info, replica: Replica::new(conf, ip, clock_ms()) });
        let mut link = Link::new(shared.clone(), transport, member.clone(), knows_psync, output);
        link.rdb_client = rdb_client;
        let address = link.address();
        sync::log(shared, &format!("Replica {address} asks for synchronization"));
        match verdict {
            Ok(position) => {
                let id = shared.replication.with(|state| state.ids.id.clone());
                link.say(
                    if psync2 { format!("+CONTINUE {id}\r\n") } else { "+CONTINUE\r\n".into() }.as_bytes(),
                );
                link.set_position(position);
                link.phase = Phase::Online;
                let loads = rdb_client.is_some();
                member.replica.set_state(if loads { ReplicaState::Loading } else { ReplicaState::Online });
                let end = shared.replication.backlog.end();
                let text = format!(
                    "Partial resynchronization request from {address} accepted. Sending {} bytes of backlog starting from \
                     offset {}.",
                    end.saturating_sub(position),
                    position + 1
                );
                sync::log(shared, &text);
            }
            Err(why) => {
                if !rdb_channel {
                    self.tell_why(shared, &address, why, psync);
                }
                shared.replication.syncs_full.fetch_add(1, Relaxed);
            }
        }
        // Before its data set's connection gives up its claim on the log.
        shared.replication.join(member);
        self.add(shared, link);
        if let Some(id) = rdb_client {
            self.main_has_come(shared, id);
        }
        if shared.persist.job.lock().is_some() && verdict.is_err() && !self.join_file(shared) {
            sync::log(shared, "Current BGSAVE has socket target. Waiting for next BGSAVE for SYNC");
        }
        self.begin_sync(shared, &config);
    }

    /// Why a replica gets everything.
    fn tell_why(&self, shared: &Shared, address: &str, why: Refused, psync: Option<(String, i64)>) {
        let (id, offset) = psync.unwrap_or_default();
        let text = match why {
            Refused::Asked => format!("Full resync requested by replica {address}"),
            Refused::OtherHistory => {
                let (own, second) = shared.replication.with(|state| {
                    let second =
                        state.ids.second.as_ref().map_or_else(|| "0".repeat(40), |(id, _)| id.clone());
                    (state.ids.id.clone(), second)
                });
                format!(
                    "Partial resynchronization not accepted: Replication ID mismatch (Replica asked for '{id}', my \
                     replication IDs are '{own}' and '{second}')"
                )
            }
            Refused::OutOfRange => format!(
                "Unable to partial resync with replica {address} for lack of backlog (Replica request was: {offset})."
            ),
        };
        sync::log(shared, &text);
    }

    /// The main connection of a replica whose data set goes out by another one.
    fn main_has_come(&mut self, shared: &Shared, rdb_client: u64) {
        self.awaited.retain(|awaited| awaited.member.info.id.0 != rdb_client);
        // INFO tells it at once, not with the next tick.
        shared.replication.waiting_psync.store(self.awaited.len(), Relaxed);
        let is_it = |link: &Option<Link>| {
            link.as_ref().is_some_and(|link| {
                link.member.info.id.0 == rdb_client && matches!(link.phase, Phase::WaitMain)
            })
        };
        if let Some(slot) = self.links.iter().position(is_it) {
            self.drop_link(shared, slot, "Dual channel replication: rdb channel ends, its replica follows");
        }
    }

    /// Those who wait for a snapshot join one that is being written to a file for others.
    fn join_file(&mut self, shared: &Shared) -> bool {
        let Some(file) = &self.file else { return false };
        let mut joined = false;
        for link in self.links.iter_mut().flatten() {
            let replica = &link.member.replica;
            let fits = wanted(&replica.conf) == file.wanted && replica.conf.eof == file.eof;
            if matches!(link.phase, Phase::WaitStart) && fits && !replica.conf.rdb_channel {
                announce(link, &file.start);
                link.phase = Phase::WaitFile;
                link.member.replica.set_state(ReplicaState::WaitEnd);
                joined = true;
            }
        }
        if joined {
            sync::log(shared, "Waiting for end of BGSAVE for SYNC");
        }
        joined
    }

    fn ping(&mut self, shared: &Shared, config: &Config, last: &mut Instant) {
        if last.elapsed() < Duration::from_secs(config.repl_ping_replica_period) {
            return;
        }
        *last = Instant::now();
        if shared.replication.is_replica() || shared.replication.with(|state| state.failover.is_some()) {
            return;
        }
        if self.links.iter().flatten().next().is_some() {
            shared.replication.backlog.append_plain(&[b"PING"]);
        }
    }

    fn tick(&mut self, shared: &Arc<Shared>, config: &Config) {
        let now_ms = clock_ms();
        let timeout_ms = i64::try_from(patience(config).as_millis()).unwrap_or(i64::MAX);
        let end = shared.replication.backlog.end();
        self.check_limits(shared, config, end);
        for slot in 0..self.links.len() {
            let Some(link) = self.links[slot].as_mut() else { continue };
            let replica = &link.member.replica;
            let silent = now_ms.saturating_sub(replica.ack_ms.load(Relaxed)) > timeout_ms;
            let streams = matches!(link.phase, Phase::Online | Phase::WaitAck)
                && replica.state() != ReplicaState::Loading;
            let why = if link.member.info.kill.load(Relaxed) {
                Some("Connection with replica was killed")
            } else if let Some(ending) = replica.ending().filter(|_| !matches!(link.phase, Phase::Online)) {
                Some(ending.why)
            } else if silent && link.knows_psync && streams {
                Some("Disconnecting timedout replica (streaming sync)")
            } else {
                None
            };
            if let Some(why) = why {
                self.drop_link(shared, slot, why);
                continue;
            }
            let info = &link.member.info;
            let lag =
                if matches!(link.phase, Phase::Online) { end.saturating_sub(link.position()) } else { 0 };
            info.output_bytes.store(lag + link.unsent() as u64, Relaxed);
            info.total_bytes.store((link.unsent() + size_of::<Link>()) as u64, Relaxed);
            if matches!(link.phase, Phase::WaitStart | Phase::WaitFile)
                && link.knows_psync
                && !shared.replication.asleep.load(Relaxed)
                && link.since.elapsed() > Duration::from_secs(1)
            {
                // An empty line says that we live.
                link.since = Instant::now();
                link.say(b"\n");
            }
        }
        self.await_mains(shared);
        self.begin_sync(shared, config);
        if !shared.replication.waits().is_empty() {
            shared.replication.waits().serve(shared);
        }
    }

    /// Replicas with too much to read go. What one has still to read counts as its output; the log itself keeps
    /// `repl-backlog-size` anyway.
    fn check_limits(&mut self, shared: &Shared, config: &Config, end: u64) {
        let limit = config.client_output_buffer_limit.replica;
        let reads = shared.replication.with(|state| {
            let reading = |m: &&Arc<Member>| {
                let states = [ReplicaState::WaitStart];
                m.is_stream() && !states.contains(&m.replica.state()) && m.replica.ending().is_none()
            };
            let streams = state.replicas.iter().filter(reading).cloned();
            streams.map(|m| (m.replica.position.load(Relaxed), m)).collect::<Vec<_>>()
        });
        let awaited = self.awaited.iter().map(|awaited| (awaited.position, awaited.member.clone()));
        for (position, member) in reads.into_iter().chain(awaited.collect::<Vec<_>>()) {
            let used = end.saturating_sub(position);
            let id = member.info.id;
            let hard = limit.hard_bytes > 0 && used >= limit.hard_bytes.max(config.repl_backlog_size);
            let soft = limit.soft_bytes > 0 && used >= limit.soft_bytes.max(config.repl_backlog_size);
            if !soft {
                self.soft.remove(&id);
            }
            let over = hard
                || soft && {
                    let since = *self.soft.entry(id).or_insert_with(Instant::now);
                    since.elapsed().as_secs() as i64 > limit.soft_seconds
                };
            if !over {
                continue;
            }
            shared.stats.worker(shared.workers).output_buffer_disconnections.add(1);
            let text = format!(
                "Client id={} addr={} scheduled to be closed ASAP for overcoming of output buffer limits.",
                id.0, member.info.addr
            );
            shared.host.log(Level::Warning, &text);
            member.replica.dismiss("Connection with replica ends: output buffer limit", 0);
            self.awaited.retain(|awaited| awaited.member.info.id != id);
            // The log is given up at once, the socket when it shows.
            let is_it = |link: &Option<Link>| link.as_ref().is_some_and(|link| link.member.info.id == id);
            if let Some(slot) = self.links.iter().position(is_it) {
                self.drop_link(shared, slot, "Connection with replica ends: output buffer limit");
            }
        }
    }

    /// Gives up data sets whose replicas don't come for the stream behind them.
    fn await_mains(&mut self, shared: &Shared) {
        let grace = Duration::from_secs(shared.replication.psync_grace_s.load(Relaxed));
        let present: Vec<ClientId> =
            shared.replication.with(|state| state.replicas.iter().map(|m| m.info.id).collect());
        self.awaited.retain_mut(|awaited| {
            let failed = awaited.member.replica.ending().is_some();
            let sent = awaited.member.replica.state() == ReplicaState::Transmitted;
            if !present.contains(&awaited.member.info.id) || sent {
                if failed || !sent {
                    return false;
                }
                let since = *awaited.since.get_or_insert_with(Instant::now);
                if since.elapsed() > grace {
                    let text = format!(
                        "Replica main channel failed to establish PSYNC within the grace period ({} seconds). Freeing \
                         RDB client {}.",
                        grace.as_secs(),
                        awaited.member.info.id.0
                    );
                    sync::log(shared, &text);
                    awaited.member.replica.dismiss("Connection with replica ends: no main channel", 0);
                    return false;
                }
            }
            !failed
        });
        shared.replication.waiting_psync.store(self.awaited.len(), Relaxed);
    }

    /// Begins a snapshot for those who wait, if it is time.
    fn begin_sync(&mut self, shared: &Arc<Shared>, config: &Config) {
        let waits = |link: &&Link| matches!(link.phase, Phase::WaitStart);
        let Some(first) = self.links.iter().flatten().find(waits) else { return };
        let conf = &first.member.replica.conf;
        let (is_eof, what) = (conf.eof, wanted(conf));
        let diskless = is_eof && (config.repl_diskless_sync || conf.rdb_channel || what.filter.is_partial());
        let alike = |link: &Link| {
            let conf = &link.member.replica.conf;
            matches!(link.phase, Phase::WaitStart)
                && wanted(conf) == what
                && conf.eof == is_eof
                && (diskless || !conf.rdb_channel)
        };
        if diskless {
            let count = self.links.iter().flatten().filter(|link| alike(link)).count() as u64;
            let enough =
                config.repl_diskless_sync_max_replicas > 0 && count >= config.repl_diskless_sync_max_replicas;
            let waited = clock_ms() - first.member.replica.ack_ms.load(Relaxed);
            if !enough && (waited / 1000).unsigned_abs() < config.repl_diskless_sync_delay {
                return;
            }
        }
        if shared.persist.job.lock().is_some() {
            return;
        }
        let slots: Vec<usize> =
            (0..self.links.len()).filter(|&slot| self.links[slot].as_ref().is_some_and(alike)).collect();
        let begun = if diskless {
            self.sync_to_sockets(shared, &slots, what)
        } else {
            self.sync_to_file(shared, config, &slots, what)
        };
        if let Err(error) = begun {
            shared.host.log(Level::Warning, &format!("Snapshot for replicas can't begin: {error}"));
        }
    }

    fn sync_to_sockets(&mut self, shared: &Arc<Shared>, slots: &[usize], what: Wanted) -> io::Result<()> {
        let mut links: Vec<Link> = slots.iter().filter_map(|&slot| self.links[slot].take()).collect();
        for link in &mut links {
            let _ = link.transport.deregister(self.poll.registry());
        }
        let mark: [u8; 40] = mark();
        let handle = self.handle.clone();
        let apart = links.iter().any(|link| link.member.replica.conf.rdb_channel);
        let mut awaited = Vec::new();
        let mut fanout = Some(Fanout::new(links, shared.clone(), mark));
        let open = |start: &Start| {
            let mut out = fanout.take().ok_or(io::ErrorKind::Other)?;
            // The stream may go on at once: nobody may take what it needs before we look again.
            shared.replication.keep_at_most(start.offset);
            for link in &mut out.links {
                announce(link, start);
                if link.member.replica.conf.rdb_channel {
                    awaited.push(AwaitedMain {
                        member: link.member.clone(),
                        position: start.offset,
                        since: None,
                    });
                }
                link.say(b"$EOF:");
                link.say(&mark);
                link.say(b"\r\n");
                link.member.replica.set_state(ReplicaState::WaitEnd);
            }
            Ok(out)
        };
        let own = shared.clone();
        let done = move |result: io::Result<Fanout>, _: Start| {
            // Those that failed are closed already.
            match result.and_then(Fanout::finish) {
                Ok(links) => {
                    sync::log(&own, "Background RDB transfer terminated with success");
                    handle.put(Intake::Synced(links));
                }
                Err(error) => {
                    own.host.log(Level::Warning, &format!("Background RDB transfer error: {error}"));
                }
            }
        };
        let had_log = shared.replication.backlog.extent().active;
        let how = if apart { "dual-channel" } else { "normal sync" };
        let started = sync::start(shared, what, open, done)?;
        awaited.iter().for_each(|awaited| tell_what_is_kept(shared, awaited, had_log));
        self.awaited.append(&mut awaited);
        shared.replication.waiting_psync.store(self.awaited.len(), Relaxed);
        match (started, fanout) {
            // Another one is under way: they go on waiting.
            (None, Some(fanout)) => fanout.links.into_iter().for_each(|link| self.add(shared, link)),
            _ => {
                sync::log(
                    shared,
                    &format!("Starting BGSAVE for SYNC with target: replicas sockets using: {how}"),
                );
                let pid = std::process::id();
                sync::log(shared, &format!("Background RDB transfer started by pid {pid}"));
            }
        }
        Ok(())
    }

    fn sync_to_file(
        &mut self,
        shared: &Arc<Shared>,
        config: &Config,
        slots: &[usize],
        what: Wanted,
    ) -> io::Result<()> {
        let handle = self.handle.clone();
        let name = format!("temp-{}-repl.rdb", std::process::id());
        let target = path(&config.dbfilename);
        let open = |start: &Start| {
            shared.replication.keep_at_most(start.offset);
            sync::temp_file(&name)
        };
        let done = move |result: io::Result<TempFile>, _: Start| {
            let kept = result.and_then(|mut file| {
                file.flush()?;
                file.sync()?;
                file.rename_to(&target)
            });
            handle.put(Intake::File(kept.map_err(|error| error.to_string())));
        };
        let Some(start) = sync::start(shared, what, open, done)? else { return Ok(()) };
        sync::log(shared, "Starting BGSAVE for SYNC with target: disk");
        let job = shared.persist.job.lock().clone();
        let eof = slots
            .first()
            .and_then(|&slot| self.links[slot].as_ref())
            .is_some_and(|l| l.member.replica.conf.eof);
        self.file = Some(FileSync { start: start.clone(), wanted: what, eof, job });
        for &slot in slots {
            if let Some(link) = self.links[slot].as_mut() {
                announce(link, &start);
                link.phase = Phase::WaitFile;
                link.member.replica.set_state(ReplicaState::WaitEnd);
            }
        }
        Ok(())
    }
}

/// What a replica understands and wants.
fn wanted(conf: &ReplicaConf) -> Wanted {
    Wanted { is_new: conf.is_new(), filter: conf.filter }
}

/// Tells a replica where its stream will begin.
fn announce(link: &mut Link, start: &Start) {
    if link.member.replica.conf.rdb_channel {
        let db = start.db.map_or(-1, |db| i64::from(db.0));
        let client = link.member.info.id.0;
        link.say(format!("$ENDOFF:{} {} {db} {client}\r\n", start.offset, start.id).as_bytes());
    } else if link.knows_psync {
        link.say(format!("+FULLRESYNC {} {}\r\n", start.id, start.offset).as_bytes());
    }
    link.set_position(start.offset);
}

/// For whoever looks why the log grows.
fn tell_what_is_kept(shared: &Shared, awaited: &AwaitedMain, had_log: bool) {
    let (address, id) = (awaited.member.replica.address(), awaited.member.info.id.0);
    let tail = awaited.position;
    let debug = |text: String| shared.host.log(Level::Debug, &text);
    if had_log {
        debug(format!("Add rdb replica {address} (client {id}), tracking repl-backlog tail {tail}"));
    } else {
        debug(format!("Add rdb replica {address} (client {id}), no repl-backlog to track yet"));
        debug(format!("Attach replica rdb client {id} to the repl-backlog that begins at {tail}"));
    }
}

fn send_file(link: &mut Link, config: &Config) -> io::Result<()> {
    let file = File::open(path(&config.dbfilename))?;
    let left = file.metadata()?.len();
    link.say(format!("${left}\r\n").as_bytes());
    link.phase = Phase::SendFile { file, left };
    link.member.replica.set_state(ReplicaState::Sending);
    link.member.replica.ack_ms.store(clock_ms(), Relaxed);
    Ok(())
}

fn mark() -> [u8; 40] {
    let text = kara_engine::replication::new_id();
    let mut mark = [b'0'; 40];
    for (to, from) in mark.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    mark
}
