//! One connection: its stream, session, unparsed input and unsent output.

use crate::pacing::Seen;
use crate::transport::Transport;
use kara_engine::clients::{ClientFlags, ClientId, ClientInfo};
use kara_engine::session::Session;
use kara_resp::ParseState;
use std::io::{self, ErrorKind, Read, Write};
use std::time::Instant;

/// Output from here on grows by quarters.
const LONG_OUTPUT: usize = 256 << 10;
/// An empty buffer larger than this is given back to the allocator.
const KEPT_BUFFER: usize = 16 << 10;

/// A connection's own input buffer is at least this large: it is for requests that come in pieces.
const LEAST_INPUT: usize = 16 << 10;
/// And emptied, it is kept for the next large request up to here.
const MOST_KEPT_INPUT: usize = 1 << 20;
/// From here on a buffer that is larger than was needed lately is made smaller.
const TRIMMED_INPUT: usize = 32 << 10;
/// What the reference gives a client's replies at first, and at least.
const MOST_REPLY: usize = 16 << 10;
const LEAST_REPLY: usize = 1 << 10;

/// A connection. Idle, it holds no buffers: input is parsed in the worker's buffer, large output is written from it.
#[derive(Debug)]
pub struct Conn {
    /// The session's client, at hand.
    pub id: ClientId,
    pub transport: Transport,
    pub session: Session,
    pub parse: ParseState,
    /// Input that is not a whole request yet, or that waits while the connection is held.
    pub input: Vec<u8>,
    /// Bytes that a large argument still misses.
    pub expected: usize,
    /// The most that `input` held since it was last looked at.
    input_peak: usize,
    /// The longest answer lately, and since when (Unix ms).
    reply_peak: usize,
    reply_peak_since_ms: i64,
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
    /// An answer in the output waits for those of other connections.
    pub deferred: bool,
    /// Its answers wait for the append-only file; see `Worker::commit`.
    pub gated: bool,
    /// More messages came than its limit allows: it is to be closed.
    pub overrun: bool,
    /// The socket may hold more than was read.
    pub readable: bool,
    /// The system has announced that the peer closed its side: what is there is read up to the end.
    pub ending: bool,
    /// When it was last counted as active.
    pub seen: Seen,
    /// When it last belonged to a group commit.
    pub committing: Seen,
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
            id: session.id(),
            transport,
            session,
            parse: ParseState::default(),
            input: Vec::new(),
            expected: 0,
            input_peak: 0,
            reply_peak: MOST_REPLY,
            reply_peak_since_ms: 0,
            output: Vec::new(),
            sent: 0,
            postponed: false,
            wait_until: None,
            throttled: false,
            told: false,
            deferred: false,
            gated: false,
            overrun: false,
            readable: false,
            ending: false,
            seen: Seen::default(),
            committing: Seen::default(),
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

    /// Bytes of memory that the client takes: buffers, what it queued, watches, subscribes to and tracks.
    pub fn memory(&self) -> usize {
        let buffers = self.input.capacity() + self.output.capacity() + self.parse.memory();
        size_of::<Conn>() + size_of::<ClientInfo>() + buffers + self.session.memory()
    }

    /// Sends `bytes` behind what is waiting; what the socket doesn't take is kept.
    pub fn send(&mut self, bytes: &[u8], written: &mut u64) -> Sent {
        if self.gated {
            self.output.extend_from_slice(bytes);
            return Sent::Part;
        }
        if self.unsent() > 0 {
            self.make_room(bytes.len());
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
                    self.make_room(rest.len());
                    self.output.extend_from_slice(rest);
                    return Sent::Part;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Sent::Broken,
            }
        }
        Sent::All
    }

    /// Makes room in the output. A long one isn't doubled: it may be there for long, and counts.
    pub fn make_room(&mut self, bytes: usize) {
        if self.output.len() >= LONG_OUTPUT && self.output.capacity() - self.output.len() < bytes {
            self.output.reserve_exact(bytes.max(self.output.len() / 4));
        }
    }

    /// Sends what is waiting.
    pub fn flush(&mut self, written: &mut u64) -> Sent {
        if self.gated {
            return Sent::Part;
        }
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
        // Unlike a plain read, it needs no zeros to write over. It ends with an error where the socket is empty.
        let result = (&mut self.transport).take(room as u64).read_to_end(&mut self.input);
        let read = self.input.len() - start;
        self.input_peak = self.input_peak.max(self.input.len());
        if read > 0 { Ok(read) } else { result }
    }

    /// Keeps input that is no whole request yet.
    pub fn keep_input(&mut self, rest: &[u8]) {
        if rest.is_empty() && self.expected == 0 {
            return;
        }
        // Failing to reserve is no error yet: the read will tell.
        let _ = self.input.try_reserve(LEAST_INPUT.max(rest.len() + self.expected));
        self.input.extend_from_slice(rest);
        self.input_peak = self.input_peak.max(self.input.len());
    }

    /// Drops parsed input. An emptied buffer is kept for a while: who sends one large request sends more of them.
    pub fn consume(&mut self, bytes: usize) {
        if bytes < self.input.len() {
            self.input.drain(..bytes);
            let _ = self.input.try_reserve(self.expected);
        } else if self.input.capacity() > MOST_KEPT_INPUT {
            self.input = Vec::new();
        } else {
            self.input.clear();
        }
    }

    /// Some times a second: gives back what the input buffer didn't need of late; once idle, all that is free.
    pub fn trim(&mut self, idle: bool) {
        if idle {
            self.output.shrink_to_fit();
            self.input.shrink_to_fit();
            self.input_peak = self.input.len();
            return;
        }
        // Room for an argument that is under way was wanted.
        let least = TRIMMED_INPUT.max(self.input_peak * 2).max(self.input.len() + self.expected);
        if self.input.capacity() > least {
            self.input.shrink_to(self.input_peak.max(LEAST_INPUT));
        }
        self.input_peak = self.input.len();
    }

    /// An answer of that length leaves.
    #[inline]
    pub fn note_reply(&mut self, bytes: usize) {
        self.reply_peak = self.reply_peak.max(bytes);
    }

    /// How much room the client's answers need, in the reference's steps: what its buffer for them would be. The
    /// longest is forgotten after `reset_ms` (negative: never).
    pub fn reply_room(&mut self, now_ms: i64, reset_ms: i64) -> usize {
        let room = self.reply_peak.checked_next_power_of_two().unwrap_or(MOST_REPLY);
        if reset_ms >= 0 && now_ms - self.reply_peak_since_ms >= reset_ms {
            self.reply_peak = 0;
            self.reply_peak_since_ms = now_ms;
        }
        room.clamp(LEAST_REPLY, MOST_REPLY)
    }
}
