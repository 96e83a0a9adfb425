//! A socket to a primary with what was read ahead, and data sets as streams of it.

use super::link::clock_ms;
use kara_base::ids::DbIndex;
use kara_engine::replication::{Upstream, patience};
use kara_engine::shared::Shared;
use socket2::{Domain, Protocol, Socket, Type};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How soon a change of role is seen while the primary is silent.
pub const LOOK: Duration = Duration::from_millis(100);
/// One attempt to connect. The kernel asks again after 1, 3, 7 seconds: a new attempt is sooner there once a link works
/// again.
const CONNECT: Duration = Duration::from_secs(3);
/// What we say to a primary is little: its socket takes it, or the link is dead.
const WRITE: Duration = Duration::from_secs(10);
const CHUNK: usize = 128 << 10;
/// Answers of the handshake are lines of at most this length.
const LINE_MAX: usize = 4 << 10;

/// One attempt to follow a primary: whose it is, and for how long it has a meaning.
pub struct Attempt<'a> {
    pub shared: &'a Arc<Shared>,
    pub primary: &'a Upstream,
    pub epoch: u64,
    pub config: Arc<kara_engine::config::Config>,
}

impl Attempt<'_> {
    /// How long the primary may be silent.
    pub fn timeout(&self) -> Duration {
        patience(&self.shared.config.load())
    }

    /// Whether we still want this primary.
    pub fn is_current(&self) -> bool {
        self.shared.replication.epoch() == self.epoch
    }

    /// How far a transfer is.
    pub fn note_sync(&self, read: u64, total: i64) {
        self.shared.replication.with(|state| {
            if let Some(primary) = &mut state.primary {
                primary.sync_read = read;
                primary.sync_total = total;
                primary.sync_ms = clock_ms();
            }
        });
    }

    /// Connects to the primary. A name is looked up anew each time: it may have moved.
    pub fn connect(&self) -> Result<Wire, String> {
        let host = String::from_utf8_lossy(&self.primary.host).into_owned();
        let source = std::str::from_utf8(&self.config.bind_source_addr).ok().and_then(|ip| ip.parse().ok());
        let stream = connect(&host, self.primary.port, source, self.timeout().min(CONNECT));
        let stream = stream.map_err(|error| format!("Error condition on socket for SYNC: {error}"))?;
        Ok(Wire { stream, buffer: Vec::new(), at: 0 })
    }
}

/// The socket with what was read ahead.
pub struct Wire {
    pub stream: TcpStream,
    buffer: Vec<u8>,
    /// What stands before this was used.
    at: usize,
}

/// Why nothing more comes.
pub enum Silence {
    Lost(String),
    RoleChanged,
    TimedOut,
}

impl Wire {
    /// What was read and not used yet.
    pub fn ahead(&self) -> &[u8] {
        self.buffer.get(self.at..).unwrap_or_default()
    }

    pub fn consume(&mut self, bytes: usize) {
        self.at = (self.at + bytes).min(self.buffer.len());
    }

    /// Puts bytes in front of what was read ahead.
    pub fn put_back(&mut self, mut bytes: Vec<u8>) {
        if !bytes.is_empty() {
            bytes.extend_from_slice(self.ahead());
            self.buffer = bytes;
            self.at = 0;
        }
    }

    /// Gives up what was read ahead.
    pub fn take_ahead(&mut self) -> Vec<u8> {
        let ahead = self.ahead().to_vec();
        self.buffer = Vec::new();
        self.at = 0;
        ahead
    }

    /// Reads something, at most until the primary has been silent for too long or the role changes.
    pub fn more(&mut self, attempt: &Attempt) -> Result<(), Silence> {
        let begun = Instant::now();
        self.buffer.drain(..self.at);
        self.at = 0;
        let kept = self.buffer.len();
        self.buffer.resize(kept + CHUNK, 0);
        let result = loop {
            match self.stream.read(&mut self.buffer[kept..]) {
                Ok(0) => break Err(Silence::Lost("connection lost".to_owned())),
                Ok(n) => break Ok(n),
                Err(e) if is_quiet(&e) => {}
                Err(e) => break Err(Silence::Lost(e.to_string())),
            }
            if !attempt.is_current() {
                break Err(Silence::RoleChanged);
            }
            if begun.elapsed() > attempt.timeout() {
                break Err(Silence::TimedOut);
            }
        };
        self.buffer.truncate(kept + *result.as_ref().unwrap_or(&0));
        result.map(|_| ())
    }

    /// The next line, without its end.
    pub fn line(&mut self, attempt: &Attempt) -> Result<Vec<u8>, String> {
        loop {
            if let Some(end) = self.ahead().iter().take(LINE_MAX).position(|&byte| byte == b'\n') {
                let mut line = self.ahead()[..end].to_vec();
                self.consume(end + 1);
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(line);
            }
            if self.ahead().len() >= LINE_MAX {
                return Err("The PRIMARY's answer is no line".to_owned());
            }
            self.more(attempt).map_err(|silence| match silence {
                Silence::Lost(why) => format!("I/O error trying to sync with PRIMARY: {why}"),
                Silence::RoleChanged => "The role has changed".to_owned(),
                Silence::TimedOut => "Timeout connecting to the PRIMARY...".to_owned(),
            })?;
        }
    }

    /// Sends a request; its answer is a line.
    pub fn ask(&mut self, attempt: &Attempt, request: &[u8]) -> Result<Vec<u8>, String> {
        let sent = self.stream.write_all(request);
        sent.map_err(|error| format!("Failed to send a request to the PRIMARY: {error}"))?;
        loop {
            let line = self.line(attempt)?;
            if !line.is_empty() {
                // An empty one only says that it will answer later.
                return Ok(line);
            }
        }
    }

    /// More of a data set.
    pub fn more_data(&mut self, attempt: &Attempt) -> Result<(), String> {
        self.more(attempt).map_err(|silence| match silence {
            Silence::Lost(why) => format!("I/O error trying to sync with PRIMARY: {why}"),
            Silence::RoleChanged => "The role has changed".to_owned(),
            Silence::TimedOut => {
                "Timeout receiving bulk data from PRIMARY... If the problem persists try to set the \
                                  'repl-timeout' parameter in the configuration to a larger value."
                    .to_owned()
            }
        })
    }

    /// The primary sees that we live.
    pub fn live(&mut self, told: &mut Instant) {
        if told.elapsed() >= Duration::from_secs(1) {
            *told = Instant::now();
            // A broken link shows soon enough.
            let _ = self.stream.write_all(b"\n");
        }
    }
}

/// Nothing is there, for now.
pub fn is_quiet(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn connect(host: &str, port: u16, source: Option<IpAddr>, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match connect_to(address, source, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn connect_to(address: SocketAddr, source: Option<IpAddr>, timeout: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect_timeout(&address.into(), timeout)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LOOK))?;
    stream.set_write_timeout(Some(WRITE))?;
    Ok(stream)
}

/// A data set as it comes in.
pub struct Inflow<'a, 'b> {
    pub attempt: &'a Attempt<'b>,
    pub wire: &'a mut Wire,
    /// Bytes that are still to come; `u64::MAX`: up to a mark.
    pub left: u64,
    pub read: u64,
    pub told: Instant,
}

impl Read for Inflow<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        if self.wire.ahead().is_empty() {
            self.wire.more_data(self.attempt).map_err(io::Error::other)?;
            let is_open = self.left == u64::MAX;
            let total = if is_open { -1 } else { i64::try_from(self.read + self.left).unwrap_or(i64::MAX) };
            self.attempt.note_sync(self.read, total);
        }
        self.wire.live(&mut self.told);
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let ahead = self.wire.ahead();
        let n = ahead.len().min(into.len()).min(left);
        into[..n].copy_from_slice(&ahead[..n]);
        self.wire.consume(n);
        self.read += n as u64;
        if self.left != u64::MAX {
            self.left -= n as u64;
        }
        Ok(n)
    }
}

/// A file that is loaded while the primary is told that we live.
pub struct Living<'a> {
    pub file: File,
    pub wire: &'a mut Wire,
    pub told: Instant,
}

impl Read for Living<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.wire.live(&mut self.told);
        self.file.read(into)
    }
}

/// Where a data set belongs.
#[derive(Clone, Debug)]
pub struct Place {
    pub id: kara_replication::ids::ReplId,
    pub offset: u64,
    /// What the stream has selected there, where that is known beside the data.
    pub db: Option<DbIndex>,
}
