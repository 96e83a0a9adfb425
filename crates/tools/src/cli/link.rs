//! One connection to a server: bytes out, replies in. Knows nothing of what is said over it.

use super::options::Target;
use kara_resp::{ReplyParser, ReplyStep, Value};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Seconds of silence after which the kernel asks whether the server is still there.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// What ends a connection.
#[derive(Debug)]
pub enum Fault {
    /// The server closed it.
    Closed,
    Io(io::Error),
    /// Not RESP.
    Protocol(String),
    /// The user pressed Ctrl-C while we waited.
    Interrupted,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Closed => f.write_str("Server closed the connection"),
            Fault::Io(fault) => f.write_str(&plain_text(fault)),
            Fault::Protocol(text) => f.write_str(text),
            Fault::Interrupted => f.write_str("Interrupted"),
        }
    }
}

impl Fault {
    /// Whether a new connection is worth a try.
    pub fn is_lost_link(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        match self {
            Fault::Closed => true,
            Fault::Io(fault) => matches!(fault.kind(), ConnectionReset | BrokenPipe),
            _ => false,
        }
    }
}

/// The operating system's words, without what Rust puts around them.
pub fn plain_text(fault: &io::Error) -> String {
    let text = match fault.kind() {
        io::ErrorKind::TimedOut => "Connection timed out".into(),
        _ => fault.to_string(),
    };
    let text = text.split_once(" (os error ").map_or(text.as_str(), |(text, _)| text);
    text.strip_prefix("failed to lookup address information: ").unwrap_or(text).to_string()
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The preferred family of addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    #[default]
    Any,
    V4,
    V6,
}

#[derive(Debug)]
pub struct Link {
    stream: Stream,
    parser: ReplyParser,
    unread: Vec<u8>,
    start: usize,
    outgoing: Vec<u8>,
}

impl Link {
    /// Connects to the socket where one is given, else to host and port.
    pub fn open(target: &Target, timeout: Option<Duration>, family: Family) -> io::Result<Link> {
        let stream = match &target.socket {
            Some(path) => Stream::Unix(UnixStream::connect(Path::new(std::ffi::OsStr::from_bytes(path)))?),
            None => Stream::Tcp(tcp(target, timeout, family)?),
        };
        Ok(Link {
            stream,
            parser: ReplyParser::default(),
            unread: Vec::new(),
            start: 0,
            outgoing: Vec::new(),
        })
    }

    /// Puts a command into the outgoing buffer.
    pub fn push<A: AsRef<[u8]>>(&mut self, words: &[A]) {
        encode(&mut self.outgoing, words);
    }

    /// Sends what was pushed.
    pub fn flush(&mut self) -> Result<(), Fault> {
        let bytes = std::mem::take(&mut self.outgoing);
        self.write_raw(&bytes)
    }

    pub fn write_raw(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
        }
        .map_err(Fault::Io)
    }

    /// One command, one reply.
    pub fn call<A: AsRef<[u8]>>(&mut self, words: &[A]) -> Result<Value, Fault> {
        self.push(words);
        self.flush()?;
        self.read()
    }

    /// One command, one reply that isn't an out-of-band message.
    pub fn ask<A: AsRef<[u8]>>(&mut self, words: &[A]) -> Result<Value, Fault> {
        self.push(words);
        self.flush()?;
        loop {
            let value = self.read()?;
            if !matches!(value, Value::Push(_)) {
                return Ok(value);
            }
        }
    }

    /// Commands in one write, their replies in order.
    pub fn pipeline(&mut self, commands: &[Vec<Vec<u8>>]) -> Result<Vec<Value>, Fault> {
        for command in commands {
            self.push(command);
        }
        self.flush()?;
        commands.iter().map(|_| self.read()).collect()
    }

    /// The next reply or message.
    pub fn read(&mut self) -> Result<Value, Fault> {
        loop {
            if let Some(value) = self.buffered()? {
                return Ok(value);
            }
            self.fill()?;
        }
    }

    /// As [`Self::read`], but gives way when `interrupt` becomes readable.
    pub fn read_or_interrupt(&mut self, interrupt: BorrowedFd<'_>) -> Result<Value, Fault> {
        loop {
            if let Some(value) = self.buffered()? {
                return Ok(value);
            }
            let mut wanted = [
                PollFd::new(&interrupt, PollFlags::IN),
                PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN),
            ];
            match poll(&mut wanted, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other.map_err(|fault| Fault::Io(fault.into()))?,
            };
            let [interrupted, _] = &wanted;
            if !interrupted.revents().is_empty() {
                return Err(Fault::Interrupted);
            }
            self.fill()?;
        }
    }

    /// Whether there is something to read before the time is up.
    pub fn is_readable_within(&self, limit: Duration) -> bool {
        if self.start < self.unread.len() {
            return true;
        }
        let nanoseconds = i64::from(limit.subsec_nanos());
        let limit =
            Timespec { tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX), tv_nsec: nanoseconds };
        let mut wanted = [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN)];
        !matches!(poll(&mut wanted, Some(&limit)), Ok(0))
    }

    /// A reply that has arrived already.
    pub fn buffered(&mut self) -> Result<Option<Value>, Fault> {
        let pending = self.unread.get(self.start..).unwrap_or_default();
        match self.parser.parse(pending) {
            Ok(ReplyStep::Complete { consumed, value }) => {
                self.start += consumed;
                Ok(Some(value))
            }
            Ok(ReplyStep::NeedMore { consumed, .. }) => {
                self.start += consumed;
                Ok(None)
            }
            Err(fault) => Err(Fault::Protocol(fault.to_string())),
        }
    }

    /// Reads once from the socket into the buffer.
    pub fn fill(&mut self) -> Result<(), Fault> {
        let mut chunk = [0u8; 64 * 1024];
        let count = self.receive(&mut chunk)?;
        self.unread.drain(..self.start);
        self.start = 0;
        self.unread.extend_from_slice(chunk.get(..count).unwrap_or_default());
        Ok(())
    }

    /// Bytes that are no replies (a file that a primary sends): first those that were read already.
    pub fn read_raw(&mut self, into: &mut [u8]) -> Result<usize, Fault> {
        let pending = self.unread.get(self.start..).unwrap_or_default();
        if pending.is_empty() {
            return self.receive(into);
        }
        let count = pending.len().min(into.len());
        into[..count].copy_from_slice(&pending[..count]);
        self.start += count;
        Ok(count)
    }

    fn receive(&mut self, into: &mut [u8]) -> Result<usize, Fault> {
        loop {
            let read = match &mut self.stream {
                Stream::Tcp(stream) => stream.read(into),
                Stream::Unix(stream) => stream.read(into),
            };
            match read {
                Ok(0) => return Err(Fault::Closed),
                Ok(count) => return Ok(count),
                Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
                Err(fault) => return Err(Fault::Io(fault)),
            }
        }
    }

    /// How long a read may wait; `None` for ever.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.set_read_timeout(timeout),
            Stream::Unix(stream) => stream.set_read_timeout(timeout),
        }
    }

    pub fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.set_nonblocking(on),
            Stream::Unix(stream) => stream.set_nonblocking(on),
        }
    }

    /// Writes as much as the socket takes at once.
    pub fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.stream {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

/// The wire form of one command.
pub fn encode<A: AsRef<[u8]>>(out: &mut Vec<u8>, words: &[A]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        let word = word.as_ref();
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

fn tcp(target: &Target, timeout: Option<Duration>, family: Family) -> io::Result<TcpStream> {
    let host = String::from_utf8_lossy(&target.host).into_owned();
    let port = u16::try_from(target.port).unwrap_or(0);
    let mut addresses: Vec<SocketAddr> = (host.as_str(), port).to_socket_addrs()?.collect();
    match family {
        Family::Any => {}
        Family::V4 => addresses.sort_by_key(|address| !address.is_ipv4()),
        Family::V6 => addresses.sort_by_key(|address| !address.is_ipv6()),
    }
    let mut last = io::Error::new(io::ErrorKind::NotFound, "Name or service not known");
    for address in addresses {
        let connected = match timeout {
            Some(limit) => TcpStream::connect_timeout(&address, limit),
            None => TcpStream::connect(address),
        };
        match connected {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                let keepalive =
                    socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3);
                socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
                return Ok(stream);
            }
            Err(fault) => last = fault,
        }
    }
    Err(last)
}
