//! The link to our primary: connects, shakes hands, takes the data set over, runs the stream, and begins again when it
//! breaks.

use super::link::clock_ms;
use kara_base::ids::DbIndex;
use kara_engine::config::{Config, DisklessLoad};
use kara_engine::log::Level;
use kara_engine::replication::sync::{load_from_primary, log, temp_file};
use kara_engine::replication::upstream::{Stream, continued, set_link};
use kara_engine::replication::{Link, Upstream};
use kara_engine::shared::Shared;
use kara_persist::rdb::file::path;
use kara_replication::handshake::{Greeting, Handshake, Next, Preamble};
use kara_replication::ids::ReplId;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// How soon a change of role is seen while the primary is silent.
const LOOK: Duration = Duration::from_millis(100);
/// Between two attempts.
const RETRY: Duration = Duration::from_secs(1);
const CHUNK: usize = 128 << 10;
/// Answers of the handshake are lines of at most this length.
const LINE_MAX: usize = 4 << 10;

/// Runs until the process ends.
pub fn run(shared: &Arc<Shared>) {
    loop {
        let (primary, epoch) = shared.replication.await_primary();
        if shared.loading.load(Relaxed) {
            std::thread::sleep(LOOK);
            continue;
        }
        let attempt = Attempt { shared, primary: &primary, epoch, config: shared.config.load() };
        if let Err(error) = attempt.run() {
            shared.host.log(Level::Warning, &error);
        }
        set_link(shared, epoch, Link::Connect);
        let ended = Instant::now();
        while ended.elapsed() < RETRY && shared.replication.epoch() == epoch {
            std::thread::sleep(LOOK);
        }
    }
}

struct Attempt<'a> {
    shared: &'a Arc<Shared>,
    primary: &'a Upstream,
    epoch: u64,
    config: Arc<Config>,
}

/// The socket with what was read ahead.
struct Wire {
    stream: TcpStream,
    ahead: Vec<u8>,
}

impl Attempt<'_> {
    fn timeout(&self) -> Duration {
        Duration::from_secs(self.config.repl_timeout)
    }

    fn run(&self) -> Result<(), String> {
        let host = String::from_utf8_lossy(&self.primary.host).into_owned();
        log(self.shared, &format!("Connecting to PRIMARY {host}:{}", self.primary.port));
        set_link(self.shared, self.epoch, Link::Connecting);
        let stream = connect(&host, self.primary.port, self.timeout())
            .map_err(|error| format!("Error condition on socket for SYNC: {error}"))?;
        log(self.shared, "PRIMARY <-> REPLICA sync started");
        let mut wire = Wire { stream, ahead: Vec::new() };
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
                self.take_data(&mut wire, &id, offset)?
            }
            Next::Later(text) | Next::Unknown(text) => {
                return Err(format!("PRIMARY is not able to synchronize now: {text}"));
            }
            Next::Fail(text) => return Err(text),
            Next::Send(_) => return Err("The handshake didn't end".to_owned()),
        };
        if !set_link(self.shared, self.epoch, Link::Connected) {
            return Err("The role has changed".to_owned());
        }
        self.follow(wire, db)
    }

    fn shake_hands(&self, wire: &mut Wire) -> Result<Next, String> {
        let config = &self.config;
        let greeting = Greeting {
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
        };
        let (mut shake, mut request) = Handshake::begin(greeting);
        loop {
            let sent = wire.stream.write_all(&request);
            sent.map_err(|error| format!("Failed to send a request to the PRIMARY: {error}"))?;
            let mut line = wire.line(self)?;
            while line.is_empty() {
                // It will answer later.
                line = wire.line(self)?;
            }
            match shake.line(&line) {
                Next::Send(next) => request = next,
                end => return Ok(end),
            }
        }
    }

    /// Replaces our data by those that come. Gives what the stream has selected.
    fn take_data(&self, wire: &mut Wire, id: &ReplId, offset: u64) -> Result<DbIndex, String> {
        let frame = loop {
            if let Some(frame) = Preamble::parse(&wire.line(self)?)? {
                break frame;
            }
        };
        self.note_sync(
            0,
            if let Preamble::Bytes(n) = frame { i64::try_from(n).unwrap_or(i64::MAX) } else { -1 },
        );
        let empty = (0..self.shared.keyspace.databases() as u32)
            .all(|db| self.shared.keyspace.stats(DbIndex(db)).keys == 0);
        let direct = match self.config.repl_diskless_load {
            DisklessLoad::Disabled | DisklessLoad::SwapDb => false,
            DisklessLoad::OnEmptyDb => empty,
            DisklessLoad::FlushBeforeLoad => true,
        };
        if direct {
            self.load_directly(wire, id, offset, &frame)
        } else {
            self.load_by_file(wire, id, offset, &frame)
        }
    }

    fn note_sync(&self, read: u64, total: i64) {
        self.shared.replication.with(|state| {
            if let Some(primary) = &mut state.primary {
                primary.sync_read = read;
                primary.sync_total = total;
                primary.sync_ms = clock_ms();
            }
        });
    }

    fn load_directly(
        &self,
        wire: &mut Wire,
        id: &ReplId,
        offset: u64,
        frame: &Preamble,
    ) -> Result<DbIndex, String> {
        let left = if let Preamble::Bytes(n) = frame { *n } else { u64::MAX };
        let input = Incoming { attempt: self, wire, left, read: 0, told: Instant::now() };
        let (db, rest, input) = load_from_primary(self.shared, self.epoch, id, offset, input)?;
        let left = input.left;
        let mut behind = rest;
        behind.append(&mut wire.ahead);
        wire.ahead = behind;
        match frame {
            Preamble::Bytes(_) if left > 0 => Err("The data set ended before its length".to_owned()),
            Preamble::Bytes(_) => Ok(db),
            Preamble::Mark(mark) => {
                while wire.ahead.len() < mark.len() {
                    wire.more(self)?;
                }
                let is_whole = wire.ahead.starts_with(mark);
                wire.ahead.drain(..mark.len());
                // The data are loaded by now; without the mark they are not what was sent.
                is_whole.then_some(db).ok_or("Replication stream EOF marker is broken".to_owned())
            }
        }
    }

    /// Clients see the old data until the new ones are all here.
    fn load_by_file(
        &self,
        wire: &mut Wire,
        id: &ReplId,
        offset: u64,
        frame: &Preamble,
    ) -> Result<DbIndex, String> {
        let failed =
            |error: io::Error| format!("Write error or short write writing to the DB dump file: {error}");
        let name = format!("temp-{}.{}.rdb", clock_ms() / 1000, std::process::id());
        let mut file = temp_file(&name).map_err(failed)?;
        let mut read: u64 = 0;
        loop {
            let whole = match frame {
                Preamble::Bytes(total) => {
                    let n = usize::try_from(total - read).unwrap_or(usize::MAX).min(wire.ahead.len());
                    file.write_all(&wire.ahead[..n]).map_err(failed)?;
                    wire.ahead.drain(..n);
                    read += n as u64;
                    read == *total
                }
                Preamble::Mark(mark) => {
                    // The mark may be under way in pieces: its length is held back.
                    let ends = wire.ahead.ends_with(mark);
                    let n = wire.ahead.len().saturating_sub(mark.len());
                    file.write_all(&wire.ahead[..n]).map_err(failed)?;
                    wire.ahead.drain(..n);
                    read += n as u64;
                    if ends {
                        wire.ahead.clear();
                    }
                    ends
                }
            };
            self.note_sync(
                read,
                if let Preamble::Bytes(n) = frame { i64::try_from(*n).unwrap_or(i64::MAX) } else { -1 },
            );
            if whole {
                break;
            }
            wire.more(self)?;
        }
        file.flush().map_err(failed)?;
        let target = path(&self.config.dbfilename);
        file.rename_to(&target).map_err(failed)?;
        let input = File::open(&target).map_err(failed)?;
        let input = Living { file: input, wire, told: Instant::now() };
        load_from_primary(self.shared, self.epoch, id, offset, input).map(|(db, _, _)| db)
    }

    /// Runs the stream until the link or the role ends.
    fn follow(&self, wire: Wire, db: DbIndex) -> Result<(), String> {
        let Wire { stream: mut socket, ahead } = wire;
        let address = |result: io::Result<std::net::SocketAddr>| {
            result.map_or_else(|_| String::new(), |a| a.to_string())
        };
        let (addr, laddr) = (address(socket.peer_addr()), address(socket.local_addr()));
        let mut stream = Stream::begin(self.shared, self.epoch, addr, laddr, socket.as_raw_fd(), db);
        let mut buffer = vec![0; CHUNK];
        let mut acked = Instant::now();
        let mut heard = Instant::now();
        self.acknowledge(&mut socket)?;
        if !ahead.is_empty() {
            stream.take(&ahead)?;
        }
        drop(ahead);
        loop {
            if self.shared.replication.epoch() != self.epoch {
                return Err("Connection with primary ended: the role has changed".to_owned());
            }
            if stream.is_killed() {
                return Err("Connection with primary was killed".to_owned());
            }
            match socket.read(&mut buffer) {
                Ok(0) => return Err("Connection with primary lost.".to_owned()),
                Ok(n) => {
                    heard = Instant::now();
                    stream.take(&buffer[..n])?;
                }
                Err(e) if is_quiet(&e) => {}
                Err(e) => return Err(format!("Connection with primary lost: {e}")),
            }
            if heard.elapsed() > Duration::from_secs(self.shared.config.load().repl_timeout) {
                return Err("PRIMARY timeout: no data nor PING received...".to_owned());
            }
            if std::mem::take(&mut stream.ack_wanted) || acked.elapsed() >= Duration::from_secs(1) {
                acked = Instant::now();
                self.acknowledge(&mut socket)?;
            }
        }
    }

    fn acknowledge(&self, socket: &mut TcpStream) -> Result<(), String> {
        let offset = self.shared.replication.backlog.end().to_string();
        let text = format!("*3\r\n$8\r\nREPLCONF\r\n$3\r\nACK\r\n${}\r\n{offset}\r\n", offset.len());
        socket.write_all(text.as_bytes()).map_err(|error| format!("Connection with primary lost: {error}"))
    }
}

fn is_quiet(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// A name is looked up anew each time: it may have moved.
fn connect(host: &str, port: u16, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(LOOK))?;
                stream.set_write_timeout(Some(timeout))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Wire {
    /// Reads something, at most until the primary has been silent for too long or the role changes.
    fn more(&mut self, attempt: &Attempt) -> Result<(), String> {
        let begun = Instant::now();
        let mut buffer = vec![0; CHUNK];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err("I/O error trying to sync with PRIMARY: connection lost".to_owned()),
                Ok(n) => {
                    self.ahead.extend_from_slice(&buffer[..n]);
                    return Ok(());
                }
                Err(e) if is_quiet(&e) => {}
                Err(e) => return Err(format!("I/O error trying to sync with PRIMARY: {e}")),
            }
            if attempt.shared.replication.epoch() != attempt.epoch {
                return Err("The role has changed".to_owned());
            }
            if begun.elapsed() > attempt.timeout() {
                return Err("Timeout receiving bulk data from PRIMARY... If the problem persists try to set the 'repl-timeout' parameter in the configuration to a larger value.".to_owned());
            }
        }
    }

    /// The next line, without its end.
    fn line(&mut self, attempt: &Attempt) -> Result<Vec<u8>, String> {
        loop {
            if let Some(end) = self.ahead.iter().take(LINE_MAX).position(|&byte| byte == b'\n') {
                let mut line: Vec<u8> = self.ahead.drain(..=end).collect();
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(line);
            }
            if self.ahead.len() >= LINE_MAX {
                return Err("The PRIMARY's answer is no line".to_owned());
            }
            self.more(attempt)?;
        }
    }

    /// The primary sees that we live.
    fn live(&mut self, told: &mut Instant) {
        if told.elapsed() >= Duration::from_secs(1) {
            *told = Instant::now();
            // A broken link shows soon enough.
            let _ = self.stream.write_all(b"\n");
        }
    }
}

/// A data set as it comes in.
struct Incoming<'a, 'b> {
    attempt: &'a Attempt<'b>,
    wire: &'a mut Wire,
    left: u64,
    read: u64,
    told: Instant,
}

impl Read for Incoming<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        if self.wire.ahead.is_empty() {
            self.wire.more(self.attempt).map_err(io::Error::other)?;
        }
        self.wire.live(&mut self.told);
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let n = self.wire.ahead.len().min(into.len()).min(left);
        into[..n].copy_from_slice(&self.wire.ahead[..n]);
        self.wire.ahead.drain(..n);
        self.read += n as u64;
        if self.left != u64::MAX {
            self.left -= n as u64;
        }
        let total =
            if self.left == u64::MAX { -1 } else { i64::try_from(self.read + self.left).unwrap_or(i64::MAX) };
        self.attempt.note_sync(self.read, total);
        Ok(n)
    }
}

/// A file that is loaded while the primary is told that we live.
struct Living<'a> {
    file: File,
    wire: &'a mut Wire,
    told: Instant,
}

impl Read for Living<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.wire.live(&mut self.told);
        self.file.read(into)
    }
}
