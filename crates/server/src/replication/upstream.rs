//! The link to our primary: connects, shakes hands, takes the data set over, runs the stream, and begins again when it
//! breaks.

use super::wire::{Attempt, LOOK, Place, Wire, is_quiet};
use kara_base::ids::DbIndex;
use kara_base::os::set_turns;
use kara_engine::log::Level;
use kara_engine::replication::Link;
use kara_engine::replication::sync::log;
use kara_engine::replication::upstream::{Stream, continued, set_link};
use kara_engine::shared::Shared;
use kara_replication::handshake::{Greeting, Handshake, Next};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// From the beginning of one attempt to the next, where the first came to nothing. A link that worked is made anew at
/// once: the longer that takes, the more of the log is gone.
const RETRY: Duration = Duration::from_secs(1);
/// At most 16 s between two attempts.
const DOUBLINGS: u32 = 4;
/// Read and run in one go: some 200 us.
const READ: usize = 32 << 10;
/// Turns on the processor while the stream runs, no longer than that: the rest of a turn that is given up for others is
/// lost, and the stream is to have its share where they need all of theirs.
const TURNS: Duration = Duration::from_micros(100);

/// Runs until the process ends.
pub fn run(shared: &Arc<Shared>) {
    loop {
        let (primary, epoch) = shared.replication.await_primary();
        if shared.loading.load(Relaxed) {
            std::thread::sleep(LOOK);
            continue;
        }
        let begun = Instant::now();
        let attempt = Attempt { shared, primary: &primary, epoch, config: shared.config.load() };
        if let Err(error) = attempt.run() {
            shared.host.log(Level::Warning, &error);
        }
        // What would end the link keeps it open, too.
        shared.replication.hang_up.now();
        let ended = shared
            .replication
            .with(|state| state.primary.as_ref().map(|primary| (primary.link, primary.refusals)));
        set_link(shared, epoch, Link::Connect);
        let pause = ended.map_or(RETRY, |(link, refusals)| pause(link == Link::Connected, refusals));
        while begun.elapsed() < pause && shared.replication.epoch() == epoch {
            std::thread::sleep(LOOK);
        }
    }
}

/// From the beginning of one attempt to the next. A primary that came back empty is refused until it has something: each
/// time is a snapshot for it, so it is asked less and less often.
fn pause(worked: bool, refusals: u32) -> Duration {
    // Where a primary ends every link at once, it is asked that often.
    if worked { LOOK } else { RETRY * 2u32.pow(refusals.min(DOUBLINGS)) }
}

impl Attempt<'_> {
    fn run(&self) -> Result<(), String> {
        let host = String::from_utf8_lossy(&self.primary.host).into_owned();
        log(self.shared, &format!("Connecting to PRIMARY {host}:{}", self.primary.port));
        set_link(self.shared, self.epoch, Link::Connecting);
        let mut wire = self.connect()?;
        if let Ok(socket) = wire.stream.try_clone() {
            self.shared.replication.hang_up.set(Box::new(move || {
                // It is gone already, or goes now.
                let _ = socket.shutdown(std::net::Shutdown::Both);
            }));
        }
        log(self.shared, "PRIMARY <-> REPLICA sync started");
        set_link(self.shared, self.epoch, Link::Handshake);
        let db = match self.shake_hands(&mut wire)? {
            Next::Continue(id) => {
                log(self.shared, "Successful partial resynchronization with primary.");
                if !continued(self.shared, self.epoch, id) {
                    return Err("The role has changed".to_owned());
                }
                self.shared.replication.backlog.extent().db.unwrap_or(DbIndex(0))
            }
            Next::Full(id, offset) => {
                log(self.shared, &format!("Full resync from primary: {id}:{offset}"));
                set_link(self.shared, self.epoch, Link::Sync);
                self.take_data(&mut wire, &Place { id, offset, db: None })?
            }
            Next::DualChannel => {
                log(self.shared, "Dual channel replication: PSYNC is not possible, initialize RDB channel.");
                self.take_data_apart(&mut wire)?
            }
            Next::Later(text) | Next::Unknown(text) => {
                if self.primary.failover {
                    self.shared.replication.failover_rejected(self.shared, self.epoch);
                }
                return Err(format!("PRIMARY is not able to synchronize now: {text}"));
            }
            Next::Fail(text) => return Err(text),
            Next::Send(_) => return Err("The handshake didn't end".to_owned()),
        };
        if !set_link(self.shared, self.epoch, Link::Connected) {
            return Err("The role has changed".to_owned());
        }
        // It may be refused.
        let _ = set_turns(Some(TURNS));
        let result = self.follow(wire, db);
        let _ = set_turns(None);
        result
    }

    /// What we tell a primary of ourselves.
    pub(super) fn greeting(&self) -> Greeting {
        let config = &self.config;
        Greeting {
            user: config.primaryuser.clone(),
            password: config.primaryauth.clone(),
            port: if config.replica_announce_port > 0 { config.replica_announce_port } else { config.port },
            announced_ip: config.replica_announce_ip.clone(),
            version: "9.1.2".to_owned(),
            resume: self.shared.replication.with(|state| {
                let next = self.shared.replication.backlog.end().saturating_add(1);
                state.resumable.then(|| (state.ids.id.clone(), next))
            }),
            failover: self.primary.failover,
            dual_channel: config.dual_channel_replication_enabled,
        }
    }

    fn shake_hands(&self, wire: &mut Wire) -> Result<Next, String> {
        let (mut shake, mut request) = Handshake::begin(self.greeting());
        loop {
            let line = wire.ask(self, &request)?;
            match shake.line(&line) {
                Next::Send(next) => request = next,
                end => return Ok(end),
            }
        }
    }

    /// Runs the stream until the link or the role ends.
    fn follow(&self, mut wire: Wire, db: DbIndex) -> Result<(), String> {
        let ahead = wire.take_ahead();
        let mut socket = wire.stream;
        let address = |result: io::Result<std::net::SocketAddr>| {
            result.map_or_else(|_| String::new(), |a| a.to_string())
        };
        let (addr, laddr) = (address(socket.peer_addr()), address(socket.local_addr()));
        let mut stream = Stream::begin(self.shared, self.epoch, addr, laddr, socket.as_raw_fd(), db);
        let mut acked = Instant::now();
        let mut heard = Instant::now();
        // When everything was read last, and when the processor was last left to others.
        let (mut drained, mut yielded) = (heard, heard);
        self.acknowledge(&mut socket)?;
        if !ahead.is_empty() {
            stream.room(ahead.len())?[..ahead.len()].copy_from_slice(&ahead);
            stream.take(ahead.len())?;
        }
        drop(ahead);
        loop {
            if !self.is_current() {
                return Err("Connection with primary ended: the role has changed".to_owned());
            }
            if stream.is_killed() {
                return Err("Connection with primary was killed".to_owned());
            }
            if stream.go_on()? {
                // It is we who don't listen.
                heard = Instant::now();
                std::thread::sleep(LOOK);
            } else {
                let room = stream.room(0)?;
                let most = room.len().min(READ);
                match socket.read(&mut room[..most]) {
                    Ok(0) => return Err("Connection with primary lost.".to_owned()),
                    Ok(n) => {
                        heard = Instant::now();
                        stream.take(n)?;
                        let now = Instant::now();
                        if n < most {
                            (drained, yielded) = (now, now);
                        } else if now - yielded >= yielded - drained {
                            // There is more. Who waits for this processor, clients of ours or of our primary, goes first; but the
                            // longer we are behind, the longer it takes until then.
                            std::thread::yield_now();
                            yielded = Instant::now();
                        }
                    }
                    Err(e) if is_quiet(&e) => {}
                    Err(e) => return Err(format!("Connection with primary lost: {e}")),
                }
            }
            if heard.elapsed() > self.timeout() {
                return Err("PRIMARY timeout: no data nor PING received...".to_owned());
            }
            if std::mem::take(&mut stream.ack_wanted) || acked.elapsed() >= Duration::from_secs(1) {
                acked = Instant::now();
                self.acknowledge(&mut socket)?;
            }
        }
    }

    /// Tells the primary what we have processed, and what of it is on our disk.
    fn acknowledge(&self, socket: &mut std::net::TcpStream) -> Result<(), String> {
        let replication = &self.shared.replication;
        let offset = replication.backlog.end().to_string();
        replication.mark(self.shared);
        let durable = replication.durable(self.shared).map(|offset| offset.to_string());
        let mut words: Vec<&[u8]> = vec![b"REPLCONF", b"ACK", offset.as_bytes()];
        if let Some(durable) = &durable {
            words.extend([b"FACK".as_slice(), durable.as_bytes()]);
        }
        let request = kara_replication::handshake::request(&words);
        socket.write_all(&request).map_err(|error| format!("Connection with primary lost: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_is_asked_less_often() {
        assert_eq!(pause(true, 0), LOOK);
        let seconds: Vec<u64> = (0..7).map(|refusals| pause(false, refusals).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 16, 16]);
        assert_eq!(pause(false, u32::MAX).as_secs(), 16);
    }
}
