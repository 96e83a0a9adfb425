//! Connections to other servers on behalf of MIGRATE: one per address, kept open for the next call.

use kara_engine::shared::PeerError;
use kara_resp::{ReplyLimits, ReplyParser, ReplyStep, Value};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

/// What isn't used for so long is closed.
const KEPT: Duration = Duration::from_secs(10);
/// No more connections are kept; the one that rested longest goes.
const KEPT_MAX: usize = 64;
/// What RESTORE and its company answer is short.
const LIMITS: ReplyLimits =
    ReplyLimits { max_bulk_len: 1 << 20, max_values: 64, max_depth: 4, max_line: 1 << 20 };

type Address = (String, u16);

/// The connections that rest.
#[derive(Debug, Default)]
pub struct Peers(Mutex<HashMap<Address, (TcpStream, Instant)>>);

impl Peers {
    /// Sends requests and reads as many replies as are expected. No step may take longer than `timeout`.
    pub fn exchange(
        &self,
        host: &str,
        port: u16,
        timeout: Duration,
        requests: &[u8],
        expected: usize,
    ) -> Result<Vec<Value>, PeerError> {
        let address = (host.to_owned(), port);
        let rested = self.0.lock().remove(&address);
        let is_old = rested.is_some();
        let mut stream = match rested {
            Some((stream, _)) => stream,
            None => connect(&address, timeout)?,
        };
        let mut outcome = talk(&mut stream, timeout, requests, expected);
        if is_old && matches!(outcome, Err((PeerError::Writing | PeerError::Reading, Nothing::CameBack))) {
            // It was closed at its other end while it rested.
            stream = connect(&address, timeout)?;
            outcome = talk(&mut stream, timeout, requests, expected);
        }
        let replies = outcome.map_err(|(error, _)| error)?;
        let mut kept = self.0.lock();
        if kept.len() >= KEPT_MAX
            && let Some(oldest) =
                kept.iter().min_by_key(|(_, (_, at))| *at).map(|(address, _)| address.clone())
        {
            kept.remove(&oldest);
        }
        kept.insert(address, (stream, Instant::now()));
        Ok(replies)
    }

    /// Closes what has rested too long; how many connections stay.
    pub fn tidy(&self) -> usize {
        let mut kept = self.0.lock();
        kept.retain(|_, (_, at)| at.elapsed() < KEPT);
        kept.len()
    }
}

/// Whether a failed exchange had an answer already.
enum Nothing {
    CameBack,
    Else,
}

fn connect(address: &Address, timeout: Duration) -> Result<TcpStream, PeerError> {
    try_connect(address, timeout).map_err(|error| match error.kind() {
        // The reference, which doesn't wait for the connection's outcome, meets the refusal as it writes.
        io::ErrorKind::ConnectionRefused => PeerError::Writing,
        _ => PeerError::Connecting,
    })
}

fn try_connect((host, port): &Address, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in (host.as_str(), *port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn talk(
    stream: &mut TcpStream,
    timeout: Duration,
    requests: &[u8],
    expected: usize,
) -> Result<Vec<Value>, (PeerError, Nothing)> {
    let prepared =
        stream.set_read_timeout(Some(timeout)).and_then(|()| stream.set_write_timeout(Some(timeout)));
    prepared.and_then(|()| stream.write_all(requests)).map_err(|error| {
        let late = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        (PeerError::Writing, if late { Nothing::Else } else { Nothing::CameBack })
    })?;
    let (mut parser, mut input, mut replies) = (ReplyParser::new(LIMITS), Vec::new(), Vec::new());
    while replies.len() < expected {
        let step = parser.parse(&input).map_err(|_| (PeerError::Reading, Nothing::Else))?;
        let consumed = match step {
            ReplyStep::Complete { consumed, value } => {
                replies.push(value);
                consumed
            }
            ReplyStep::NeedMore { consumed, .. } => {
                input.drain(..consumed);
                let mut piece = [0; 4096];
                match stream.read(&mut piece) {
                    Ok(n) if n > 0 => input.extend_from_slice(piece.get(..n).unwrap_or_default()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error)
                        if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
                    {
                        return Err((PeerError::Reading, Nothing::Else));
                    }
                    _ if replies.is_empty() && input.is_empty() => {
                        return Err((PeerError::Reading, Nothing::CameBack));
                    }
                    _ => return Err((PeerError::Reading, Nothing::Else)),
                }
                0
            }
        };
        input.drain(..consumed);
    }
    Ok(replies)
}
