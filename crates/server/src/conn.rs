//! One connection: its stream, session, unparsed input and unsent output.

use crate::pacing::Seen;
use crate::transport::Transport;
use kara_engine::clients::ClientFlags;
use kara_engine::session::Session;
use kara_resp::ParseState;
use std::io::{self, ErrorKind, Write};
use std::time::Instant;

/// An empty buffer larger than this is given back to the allocator.
const KEPT_BUFFER: usize = 16 << 10;

/// A connection. Idle, it holds no buffers: input is parsed in the worker's buffer, output is written from it.
#[derive(Debug)]
pub struct Conn {
    pub transport: Transport,
    pub session: Session,
    pub parse: ParseState,
    /// Input that is not a whole request yet, or that waits while the connection is held.
    pub input: Vec<u8>,
    /// Output that the socket did not take yet, from `sent` on.
    pub output: Vec<u8>,
    pub sent: usize,
    /// The request at the input's start waits for a `Resume`.
    postponed: bool,
    /// When the client's wait is over.
    pub wait_until: Option<Instant>,
    /// The next request waits until the mailboxes of other workers have room.
    pub throttled: bool,
    /// Messages in the output wait for the turn's end.
    pub told: bool,
    /// More messages came than its limit allows: it is to be closed.
    pub overrun: bool,
    /// The socket may hold more than was read.
    pub readable: bool,
    /// The system has announced that the peer closed its side: what is there is read up to the end.
    pub ending: bool,
    /// When it was last counted as active.
    pub seen: Seen,
    /// The peer has closed its side.
    pub eof: bool,
    /// Since when the soft output limit is exceeded.
    pub soft_limit_since: Option<Instant>,
}

/// What became of an attempt to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    All,
    Part,
    Broken,
}

impl Conn {
    /// A new connection.
    pub fn new(transport: Transport, session: Session) -> Self {
        Conn {
            transport,
            session,
            parse: ParseState::default(),
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            postponed: false,
            wait_until: None,
            throttled: false,
            told: false,
            overrun: false,
            readable: false,
            ending: false,
            seen: Seen::default(),
            eof: false,
            soft_limit_since: None,
        }
    }

    /// Whether the request at the input's start waits for the end of a pause.
    pub fn is_postponed(&self) -> bool {
        self.postponed
    }

    /// Holds the request at the input's start back, or no longer.
    pub fn postpone(&mut self, on: bool) {
        if self.postponed != on {
            self.postponed = on;
            self.session.info.set_flag(ClientFlags::BLOCKED, on);
        }
    }

    /// Nothing of the connection runs now: it waits for a key, for the end of a pause or for room in mailboxes.
    #[inline]
    pub fn is_held(&self) -> bool {
        self.postponed || self.throttled || self.session.waiting.is_some()
    }

    /// Bytes waiting to be sent.
    pub fn unsent(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Bytes of memory in buffers.
    pub fn buffer_bytes(&self) -> usize {
        self.input.capacity() + self.output.capacity() + self.parse.memory()
    }

    /// Sends `bytes` behind what is waiting; what the socket doesn't take is kept.
    pub fn send(&mut self, bytes: &[u8], written: &mut u64) -> Sent {
        if self.unsent() > 0 {
            self.output.extend_from_slice(bytes);
            return self.flush(written);
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.transport.write(rest) {
                Ok(0) => return Sent::Broken,
                Ok(n) => {
                    *written += n as u64;
                    rest = &rest[n..];
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.output.extend_from_slice(rest);
                    return Sent::Part;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Sent::Broken,
            }
        }
        Sent::All
    }

    /// Sends what is waiting.
    pub fn flush(&mut self, written: &mut u64) -> Sent {
        while self.sent < self.output.len() {
            match self.transport.write(&self.output[self.sent..]) {
                Ok(0) => return Sent::Broken,
                Ok(n) => {
                    *written += n as u64;
                    self.sent += n;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.drop_sent();
                    return Sent::Part;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Sent::Broken,
            }
        }
        self.output.clear();
        self.sent = 0;
        if self.output.capacity() > KEPT_BUFFER {
            self.output = Vec::new();
        }
        Sent::All
    }

    /// Gives back the memory of sent bytes once they are the larger part.
    fn drop_sent(&mut self) {
        if self.sent > KEPT_BUFFER && self.sent > self.output.len() / 2 {
            self.output.drain(..self.sent);
            self.output.shrink_to(self.output.len() * 2);
            self.sent = 0;
        }
    }

    /// Reads at most `room` bytes behind the kept input; 0 means the peer closed.
    pub fn read_input(&mut self, room: usize) -> io::Result<usize> {
        let start = self.input.len();
        self.input.try_reserve(room).map_err(|_| ErrorKind::OutOfMemory)?;
        self.input.resize(start + room, 0);
        let result = std::io::Read::read(&mut self.transport, &mut self.input[start..]);
        self.input.truncate(start + *result.as_ref().unwrap_or(&0));
        result
    }

    /// Drops parsed input; an emptied buffer is given back.
    pub fn consume(&mut self, bytes: usize) {
        if bytes >= self.input.len() {
            self.input = Vec::new();
        } else if bytes > 0 {
            self.input.drain(..bytes);
        }
    }
}
