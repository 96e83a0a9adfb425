//! The replicas' thread: judges who comes, begins snapshots for them, and sends them the stream from the shared log.

use super::fanout::Fanout;
use super::link::{Link, Phase, clock_ms};
use crate::transport::Transport;
use crossbeam_channel::{Receiver, Sender};
use kara_engine::clients::{ClientFlags, ClientInfo, ClientKind};
use kara_engine::config::Config;
use kara_engine::log::Level;
use kara_engine::replication::sync::{self, Start};
use kara_engine::replication::{Member, SyncRequest};
use kara_engine::shared::Shared;
use kara_persist::rdb::file::{TempFile, path};
use kara_replication::replica::{Replica, ReplicaState};
use mio::{Events, Poll, Token, Waker};
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

const WAKE: Token = Token(usize::MAX);
const TICK: Duration = Duration::from_millis(100);
/// How long the stream may gather while much is written, so that it isn't sent command by command.
const GATHER: Duration = Duration::from_micros(100);

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
}

impl Replicas {
    pub fn new() -> io::Result<Replicas> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let (sender, intake) = crossbeam_channel::unbounded();
        Ok(Replicas { poll, handle: Handle { sender, waker }, intake, links: Vec::new() })
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
        let mut events = Events::with_capacity(256);
        let mut last_tick = Instant::now();
        let mut last_ping = Instant::now();
        let mut busy = false;
        loop {
            let timeout = if busy { Duration::ZERO } else { TICK.saturating_sub(last_tick.elapsed()) };
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
            busy = self.pump_all(shared);
        }
    }

    fn listen(&mut self, shared: &Shared, slot: usize) {
        let Some(link) = self.links.get_mut(slot).and_then(Option::as_mut) else { return };
        match link.listen(clock_ms()) {
            Ok(true) => {
                if matches!(link.phase, Phase::WaitAck) {
                    link.phase = Phase::Online;
                    link.member.replica.set_state(ReplicaState::Online);
                    let text =
                        format!("Synchronization with replica {} succeeded", link.member.replica.address());
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

    /// Sends what there is; true where more came meanwhile.
    fn pump_all(&mut self, shared: &Shared) -> bool {
        let mut idle_at: Option<u64> = None;
        let mut small = false;
        for slot in 0..self.links.len() {
            let Some(link) = self.links[slot].as_mut() else { continue };
            let before = link.position();
            if !link.blocked && link.pump().is_err() {
                self.drop_link(shared, slot, "Connection with replica ended");
                continue;
            }
            if matches!(link.phase, Phase::Online) {
                link.member.replica.set_state(ReplicaState::Online);
                if !link.blocked {
                    idle_at = Some(idle_at.map_or(link.position(), |at| at.min(link.position())));
                    small |= (1..16 << 10).contains(&(link.position() - before));
                }
            }
        }
        let needed = self.links.iter().flatten().filter(|link| !matches!(link.phase, Phase::WaitStart));
        shared.replication.keep_for(needed.map(Link::position));
        if small {
            std::thread::sleep(GATHER);
        }
        idle_at.is_some_and(|at| !shared.replication.backlog.sleep(at))
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
        if let Some(mut link) = self.links.get_mut(slot).and_then(Option::take) {
            let _ = link.transport.deregister(self.poll.registry());
            sync::log(shared, &format!("{why}: {}", link.member.replica.address()));
        }
    }

    fn take(&mut self, shared: &Arc<Shared>, intake: Intake) {
        match intake {
            Intake::New(new) => self.welcome(shared, *new),
            Intake::Synced(links) => {
                for mut link in links {
                    link.phase = if link.member.replica.conf.rdb_only { Phase::Done } else { Phase::WaitAck };
                    link.since = Instant::now();
                    link.member.replica.ack_ms.store(clock_ms(), Relaxed);
                    link.member.replica.set_state(ReplicaState::Transmitted);
                    self.add(shared, link);
                }
            }
            Intake::File(result) => {
                let config = shared.config.load();
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
        let verdict = shared.replication.judge(&request);
        let knows_psync = request.psync.is_some();
        let psync2 = request.conf.psync2;
        let member = Arc::new(Member { info, replica: Replica::new(request.conf, ip, clock_ms()) });
        let mut link = Link::new(shared.clone(), transport, member.clone(), knows_psync, output);
        let address = member.replica.address().to_owned();
        match verdict {
            Ok(position) => {
                let id = shared.replication.with(|state| state.ids.id.clone());
                link.say(
                    if psync2 { format!("+CONTINUE {id}\r\n") } else { "+CONTINUE\r\n".into() }.as_bytes(),
                );
                link.set_position(position);
                link.phase = Phase::Online;
                member.replica.set_state(ReplicaState::Online);
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
                let text = format!("Full resync requested by replica {address} ({why:?})");
                sync::log(shared, &text);
                shared.replication.syncs_full.fetch_add(1, Relaxed);
            }
        }
        shared.replication.join(member);
        self.add(shared, link);
        self.begin_sync(shared, &shared.config.load());
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
        let timeout_ms = i64::try_from(config.repl_timeout).unwrap_or(i64::MAX).saturating_mul(1000);
        let end = shared.replication.backlog.end();
        for slot in 0..self.links.len() {
            let Some(link) = self.links[slot].as_mut() else { continue };
            let replica = &link.member.replica;
            let ending = *replica.ending.lock();
            let silent = now_ms.saturating_sub(replica.ack_ms.load(Relaxed)) > timeout_ms;
            let why = if link.member.info.kill.load(Relaxed) {
                Some("Connection with replica was killed")
            } else if ending.is_some() {
                ending
            } else if silent && link.knows_psync && matches!(link.phase, Phase::Online | Phase::WaitAck) {
                Some("Disconnecting timedout replica (streaming sync)")
            } else if is_over_limit(link, config, end) {
                shared.stats.worker(shared.workers).output_buffer_disconnections.add(1);
                Some("Replica closed for overcoming of output buffer limits")
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
            if matches!(link.phase, Phase::WaitStart | Phase::WaitFile)
                && link.knows_psync
                && link.since.elapsed() > Duration::from_secs(1)
            {
                // An empty line says that we live.
                link.since = Instant::now();
                link.say(b"\n");
            }
        }
        self.begin_sync(shared, config);
        if !shared.replication.waits().is_empty() {
            shared.replication.waits().serve(shared);
        }
    }

    /// Begins a snapshot for those who wait, if it is time.
    fn begin_sync(&mut self, shared: &Arc<Shared>, config: &Config) {
        let waits = |link: &&Link| matches!(link.phase, Phase::WaitStart);
        let Some(first) = self.links.iter().flatten().find(waits) else { return };
        let (is_new, is_eof) = (first.member.replica.conf.is_new(), first.member.replica.conf.eof);
        let alike = |link: &Link| {
            matches!(link.phase, Phase::WaitStart)
                && link.member.replica.conf.is_new() == is_new
                && link.member.replica.conf.eof == is_eof
        };
        let diskless = config.repl_diskless_sync && is_eof;
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
            self.sync_to_sockets(shared, config, &slots, is_new)
        } else {
            self.sync_to_file(shared, config, &slots, is_new)
        };
        if let Err(error) = begun {
            shared.host.log(Level::Warning, &format!("Snapshot for replicas can't begin: {error}"));
        }
    }

    fn sync_to_sockets(
        &mut self,
        shared: &Arc<Shared>,
        config: &Config,
        slots: &[usize],
        is_new: bool,
    ) -> io::Result<()> {
        let mut links: Vec<Link> = slots.iter().filter_map(|&slot| self.links[slot].take()).collect();
        for link in &mut links {
            let _ = link.transport.deregister(self.poll.registry());
        }
        let timeout = Duration::from_secs(config.repl_timeout);
        let mark: [u8; 40] = mark();
        let handle = self.handle.clone();
        let mut fanout = Some(Fanout::new(links, timeout, mark));
        let open = |start: &Start| {
            let mut out = fanout.take().ok_or(io::ErrorKind::Other)?;
            for link in &mut out.links {
                announce(link, start);
                link.say(b"$EOF:");
                link.say(&mark);
                link.say(b"\r\n");
                link.member.replica.set_state(ReplicaState::Sending);
            }
            Ok(out)
        };
        let done = move |result: io::Result<Fanout>, _: Start| {
            // Those that failed are closed already.
            if let Ok(links) = result.and_then(Fanout::finish) {
                handle.put(Intake::Synced(links));
            }
        };
        let started = sync::start(shared, is_new, open, done)?;
        if let (None, Some(fanout)) = (started, fanout) {
            // Another one is under way: they go on waiting.
            fanout.links.into_iter().for_each(|link| self.add(shared, link));
        }
        Ok(())
    }

    fn sync_to_file(
        &mut self,
        shared: &Arc<Shared>,
        config: &Config,
        slots: &[usize],
        is_new: bool,
    ) -> io::Result<()> {
        let handle = self.handle.clone();
        let name = format!("temp-{}-repl.rdb", std::process::id());
        let target = path(&config.dbfilename);
        let open = |_: &Start| sync::temp_file(&name);
        let done = move |result: io::Result<TempFile>, _: Start| {
            let kept = result.and_then(|mut file| {
                file.flush()?;
                file.sync()?;
                file.rename_to(&target)
            });
            handle.put(Intake::File(kept.map_err(|error| error.to_string())));
        };
        let Some(start) = sync::start(shared, is_new, open, done)? else { return Ok(()) };
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

/// Tells a replica where its stream will begin.
fn announce(link: &mut Link, start: &Start) {
    if link.knows_psync {
        link.say(format!("+FULLRESYNC {} {}\r\n", start.id, start.offset).as_bytes());
    }
    link.set_position(start.offset);
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

/// What a replica has still to read counts as its output; the log itself keeps `repl-backlog-size` anyway.
fn is_over_limit(link: &mut Link, config: &Config, end: u64) -> bool {
    let limit = config.client_output_buffer_limit.replica;
    let online =
        matches!(link.phase, Phase::Online | Phase::WaitAck | Phase::WaitFile | Phase::SendFile { .. });
    let used = if online { end.saturating_sub(link.position()) } else { 0 } + link.unsent() as u64;
    if limit.hard_bytes > 0 && used >= limit.hard_bytes.max(config.repl_backlog_size) {
        return true;
    }
    if limit.soft_bytes > 0 && used >= limit.soft_bytes.max(config.repl_backlog_size) {
        let since = *link.soft_since.get_or_insert_with(Instant::now);
        return since.elapsed().as_secs() as i64 > limit.soft_seconds;
    }
    link.soft_since = None;
    false
}
