//! A replica's connection, from SYNC or PSYNC to its end.

use crate::transport::Transport;
use kara_engine::log::Level;
use kara_engine::registry::Lookup;
use kara_engine::replication::Member;
use kara_engine::shared::Shared;
use kara_engine::spec::Flags;
use kara_resp::{Limits, ParseState, Request, Step};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// What a replica may send before it makes a request of it.
const INPUT_MAX: usize = 64 << 10;
/// Taken from the log or a file in one go.
const CHUNK: usize = 128 << 10;

/// How far a replica's connection is.
pub enum Phase {
    /// A snapshot must begin for it.
    WaitStart,
    /// A snapshot is being written to a file.
    WaitFile,
    SendFile {
        file: File,
        left: u64,
    },
    /// It has the data; the stream begins when it says so.
    WaitAck,
    Online,
    /// It wanted the data alone.
    Done,
    /// It has the data by this connection, and hasn't come for the stream by its main one yet.
    WaitMain,
}

/// One replica.
pub struct Link {
    pub transport: Transport,
    pub member: Arc<Member>,
    shared: Arc<Shared>,
    pub phase: Phase,
    pub since: Instant,
    /// It came with PSYNC.
    pub knows_psync: bool,
    /// The client of the connection that its data set comes by, where that is another one.
    pub rdb_client: Option<u64>,
    out: Vec<u8>,
    sent: usize,
    input: Vec<u8>,
    parse: ParseState,
    /// The socket takes nothing for now.
    pub blocked: bool,
    noted: Noted,
}

/// A link's buffers, as part of the sum over all links.
struct Noted {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Noted {
    fn set(&mut self, bytes: u64) {
        if bytes != self.bytes {
            let sum = &self.shared.replication.link_bytes;
            sum.fetch_add(bytes, Relaxed);
            sum.fetch_sub(self.bytes, Relaxed);
            self.bytes = bytes;
        }
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Link {
    pub fn new(
        shared: Arc<Shared>,
        transport: Transport,
        member: Arc<Member>,
        knows_psync: bool,
        out: Vec<u8>,
    ) -> Link {
        Link {
            noted: Noted { shared: shared.clone(), bytes: 0 },
            transport,
            member,
            shared,
            phase: Phase::WaitStart,
            since: Instant::now(),
            knows_psync,
            rdb_client: None,
            out,
            sent: 0,
            input: Vec::new(),
            parse: ParseState::default(),
            blocked: false,
        }
    }

    /// The replica as logs name it.
    pub fn address(&self) -> String {
        let replica = &self.member.replica;
        let (ip, port) = (replica.address(), replica.conf.listening_port);
        if port > 0 { format!("{ip}:{port}") } else { format!("client id #{}", self.member.info.id.0) }
    }

    /// The stream's bytes up to here were taken from the log.
    pub fn position(&self) -> u64 {
        self.member.replica.position.load(Relaxed)
    }

    pub fn set_position(&self, position: u64) {
        self.member.replica.position.store(position, Relaxed);
    }

    /// Bytes that wait for the socket.
    pub fn unsent(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Something to be sent behind all else.
    pub fn say(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Room for one read from the log. What links hold doesn't count against `maxmemory`, which another thread may look
    /// at between the two steps: so it is noted first.
    fn make_room(&mut self) {
        if self.out.capacity() < CHUNK {
            self.noted.set((CHUNK + self.input.capacity()) as u64);
            self.out.reserve_exact(CHUNK - self.out.len());
        }
    }

    /// Sends what waits; true once nothing does.
    pub fn flush(&mut self) -> io::Result<bool> {
        self.noted.set((self.out.capacity() + self.input.capacity()) as u64);
        while self.sent < self.out.len() {
            match self.transport.write(&self.out[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.sent += n;
                    let info = &self.member.info;
                    info.net_out.store(info.net_out.load(Relaxed) + n as u64, Relaxed);
                    self.shared.replication.output_bytes.fetch_add(n as u64, Relaxed);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.blocked = true;
                    return Ok(false);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.out.clear();
        self.sent = 0;
        self.blocked = false;
        Ok(true)
    }

    /// Sends as much as there is and the socket takes.
    pub fn pump(&mut self) -> io::Result<()> {
        while self.flush()? {
            match &mut self.phase {
                Phase::Online => {
                    let position = self.position();
                    if self.shared.replication.backlog.end() > position {
                        self.make_room();
                    }
                    let backlog = &self.shared.replication.backlog;
                    if !backlog.read(position, CHUNK, &mut self.out) {
                        return Err(io::Error::other("the log doesn't hold what the replica needs"));
                    }
                    if let Some(ending) = self.member.replica.ending() {
                        // What came behind its end is of another history.
                        let left = usize::try_from(ending.end.saturating_sub(position)).unwrap_or(usize::MAX);
                        self.out.truncate(left);
                        if self.out.is_empty() {
                            return Err(io::Error::other(ending.why));
                        }
                    }
                    if self.out.is_empty() {
                        return Ok(());
                    }
                    self.set_position(position + self.out.len() as u64);
                    if self.out.len() == CHUNK {
                        // There is more, and a worker may wait for this processor.
                        std::thread::yield_now();
                    }
                }
                Phase::SendFile { file, left } => {
                    self.out.resize(CHUNK, 0);
                    let max = usize::try_from(*left).unwrap_or(CHUNK).min(CHUNK);
                    let n = file.read(&mut self.out[..max])?;
                    if n == 0 {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                    self.out.truncate(n);
                    *left -= n as u64;
                    if *left == 0 {
                        self.phase =
                            if self.member.replica.conf.rdb_only { Phase::Done } else { Phase::Online };
                        self.since = Instant::now();
                    }
                }
                Phase::Done if self.member.replica.conf.rdb_only => {
                    return Err(io::Error::other("it has what it wanted"));
                }
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    /// It lives.
    fn heard(&self, now_ms: i64) {
        self.member.info.last_interaction_ms.store(now_ms, Relaxed);
        self.member.replica.ack_ms.store(now_ms, Relaxed);
    }

    /// While the data set is sent: sees whether the replica is still there. What it says means nothing yet.
    pub fn hear(&mut self, now_ms: i64) -> io::Result<()> {
        let mut buffer = [0; 4096];
        match self.transport.read(&mut buffer) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => {
                self.heard(now_ms);
                Ok(())
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Reads what the replica says; true where it told its offset.
    pub fn listen(&mut self, now_ms: i64) -> io::Result<bool> {
        let mut acked = false;
        let mut buffer = [0; 4096];
        loop {
            match self.transport.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    self.input.extend_from_slice(&buffer[..n]);
                    self.heard(now_ms);
                    acked |= self.take_requests(now_ms)?;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(acked),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Nothing may be answered on this connection: the answer would be taken for the stream.
    fn complain(&self, args: &[&[u8]]) {
        let host = &self.shared.host;
        let found = self.shared.registry.lookup(args);
        let touches_keys = |command: &kara_engine::registry::Command| {
            let flags = command.spec.flags;
            flags.intersects(Flags::READONLY | Flags::WRITE | Flags::MAY_REPLICATE)
        };
        let name = match &found {
            Lookup::Found(command) => command.full_name.to_owned(),
            _ => String::from_utf8_lossy(args.first().copied().unwrap_or_default()).into_owned(),
        };
        if let Lookup::Found(command) = &found
            && touches_keys(command)
        {
            let text = format!(
                "== CRITICAL == This primary is sending an error to its replica: 'ERR Replica can't interact with the \
                 keyspace' after processing the command '{name}'"
            );
            host.log(Level::Warning, &text);
        }
        let text =
            format!("Replica generated a reply to command '{name}', disconnecting it: {}", self.address());
        host.log(Level::Warning, &text);
    }

    fn take_requests(&mut self, now_ms: i64) -> io::Result<bool> {
        let mut done = 0;
        let mut acked = false;
        let mut request = Request::new();
        while done < self.input.len() {
            let rest = &self.input[done..];
            match self.parse.parse(rest, &Limits::default(), &mut request) {
                Ok(Step::Complete { consumed }) => {
                    let word = |at| request.arg(rest, at).unwrap_or_default();
                    let number = |at| std::str::from_utf8(word(at)).ok().and_then(|n| n.parse::<u64>().ok());
                    if word(0).eq_ignore_ascii_case(b"REPLCONF") && word(1).eq_ignore_ascii_case(b"ACK") {
                        let synced = number(4).filter(|_| word(3).eq_ignore_ascii_case(b"FACK"));
                        let end = self.shared.replication.backlog.end();
                        // Nobody has processed what wasn't said yet.
                        let offset = number(2).unwrap_or(0).min(end);
                        self.member.replica.note_ack(offset, synced.map(|n| n.min(end)), now_ms);
                        acked = true;
                    } else if !word(0).eq_ignore_ascii_case(b"REPLCONF") {
                        let args: Vec<&[u8]> = (0..request.len()).map(word).collect();
                        if !args.is_empty() {
                            self.complain(&args);
                            return Err(io::Error::other("it wanted an answer"));
                        }
                    }
                    done += consumed;
                }
                Ok(Step::NeedMore { consumed, .. }) => {
                    done += consumed;
                    break;
                }
                Err(error) => return Err(io::Error::other(error.to_string())),
            }
        }
        self.input.drain(..done);
        if self.input.len() > INPUT_MAX {
            return Err(io::Error::other("a request of unseemly size"));
        }
        Ok(acked)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Before anybody finds the replica gone and reads figures.
        (self.out, self.input) = (Vec::new(), Vec::new());
        self.noted.set(0);
        let now_ms = self.member.info.last_interaction_ms.load(Relaxed);
        self.shared.replication.part(&self.member, now_ms.max(clock_ms()));
        self.shared.clients.remove(self.member.info.id);
    }
}

/// Unix ms now.
pub fn clock_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
