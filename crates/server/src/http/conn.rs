//! One HTTP connection: requests without bodies in, answers out, one after the other.

use super::routes::{Answer, Routes};
use httparse::{Error as Fault, Status};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

/// A request's head, bytes and headers at most.
const MAX_HEAD: usize = 8 * 1024;
const MAX_HEADERS: usize = 64;
/// For a request to come, and for an answer to be taken.
const REQUEST_TIME: Duration = Duration::from_secs(5);
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Between requests; Prometheus asks every minute or more often.
const IDLE_TIME: Duration = Duration::from_secs(90);

/// Whether the connection stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Stays,
    Over,
}

/// A connection. Its socket is closed with it.
pub(super) struct Conn {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// How much of the output is sent.
    sent: usize,
    /// Nothing comes after this answer.
    last: bool,
    /// Since when it waits for what it waits for now.
    since: Instant,
    /// A request was answered.
    served: bool,
}

/// What of a request matters.
struct Request {
    length: usize,
    head_only: bool,
    close: bool,
    answer: Answer,
}

impl Conn {
    pub fn new(mut stream: TcpStream, registry: &Registry, token: Token) -> io::Result<Self> {
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Conn {
            stream,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            last: false,
            since: Instant::now(),
            served: false,
        })
    }

    pub fn since(&self) -> Instant {
        self.since
    }

    /// Between two requests.
    pub fn is_idle(&self) -> bool {
        self.served && self.input.is_empty() && self.output.is_empty()
    }

    /// When it has waited long enough.
    pub fn deadline(&self) -> Instant {
        let time = if !self.output.is_empty() {
            ANSWER_TIME
        } else if self.is_idle() {
            IDLE_TIME
        } else {
            REQUEST_TIME
        };
        self.since + time
    }

    /// Goes on as far as the socket allows.
    pub fn turn(&mut self, routes: &mut Routes) -> Turn {
        loop {
            match self.send() {
                Ok(true) => {}
                Ok(false) => return Turn::Stays,
                Err(_) => return Turn::Over,
            }
            if self.last {
                return Turn::Over;
            }
            if self.answer(routes) {
                continue;
            }
            match self.receive() {
                Ok(true) => {}
                Ok(false) => return Turn::Stays,
                Err(_) => return Turn::Over,
            }
        }
    }

    /// Whether everything is sent.
    fn send(&mut self) -> io::Result<bool> {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if self.sent > 0 {
            // A page is large: idle connections don't keep its memory.
            self.output = Vec::new();
            self.sent = 0;
            self.since = Instant::now();
        }
        Ok(true)
    }

    /// Whether something came.
    fn receive(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 2048];
        let room = MAX_HEAD.saturating_sub(self.input.len()).clamp(1, buffer.len());
        loop {
            match self.stream.read(&mut buffer[..room]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    if self.is_idle() {
                        self.since = Instant::now();
                    }
                    self.input.extend_from_slice(&buffer[..n]);
                    return Ok(true);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Puts the answer of a complete request into the output.
    fn answer(&mut self, routes: &mut Routes) -> bool {
        let request = match understood(&self.input, routes) {
            Ok(None) if self.input.len() >= MAX_HEAD => refused(431),
            Ok(None) => return false,
            Ok(Some(request)) => request,
            Err(status) => refused(status),
        };
        self.input.drain(..request.length.min(self.input.len()));
        self.last = request.close;
        self.served = true;
        self.since = Instant::now();
        write_answer(&mut self.output, &request);
        true
    }
}

/// Whoever sends such a thing is not understood from there on.
fn refused(status: u16) -> Request {
    Request { length: usize::MAX, head_only: false, close: true, answer: Answer::plain(status) }
}

/// The request at the input's beginning; `None` where more must come, else the status that refuses it.
fn understood(input: &[u8], routes: &mut Routes) -> Result<Option<Request>, u16> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(input) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(Fault::TooManyHeaders) => return Err(431),
        Err(Fault::Version) => return Err(505),
        Err(_) => return Err(400),
    };
    let header = |name: &str| {
        let mut found = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        found.next().map(|header| String::from_utf8_lossy(header.value))
    };
    // Nothing here takes a body, and one that is skipped wrongly would be read as a request.
    if header("transfer-encoding").is_some() || header("content-length").is_some_and(|n| n.trim() != "0") {
        return Err(413);
    }
    let is_old = request.version != Some(1);
    let close = is_old || header("connection").is_some_and(|word| word.to_lowercase().contains("close"));
    let path = request.path.unwrap_or_default().split(['?', '#']).next().unwrap_or_default();
    let (head_only, answer) = match request.method {
        Some("GET") => (false, routes.answer(path, header("accept").as_deref())),
        Some("HEAD") => (true, routes.answer(path, header("accept").as_deref())),
        _ => (false, Answer::plain(405)),
    };
    Ok(Some(Request { length, head_only, close, answer }))
}

fn write_answer(output: &mut Vec<u8>, request: &Request) {
    let Answer { status, content_type, body } = &request.answer;
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    };
    let allow = if *status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
    let connection = if request.close { "Connection: close\r\n" } else { "" };
    // Writing to a vector doesn't fail.
    let _ = write!(
        output,
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\n{allow}{connection}\r\n",
        body.len()
    );
    if !request.head_only {
        output.extend_from_slice(body.as_bytes());
    }
}
