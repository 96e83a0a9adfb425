//! A blocking client, just enough for tests: one call, or a batch written before its replies are read.

use crate::reply::{self, Reply};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// One connection. Errors of the transport are `io::Error`s; error replies are replies.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
    start: usize,
}

/// A command with its arguments.
pub type Request = Vec<Vec<u8>>;

impl Client {
    /// Connects to a loopback port. Reads give up after 20 s.
    ///
    /// # Errors
    /// Where the connection is refused.
    pub fn connect(port: u16) -> io::Result<Self> {
        Self::connect_to(std::net::SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// Connects to any address, which answers soon or not at all.
    ///
    /// # Errors
    /// Where the connection is refused.
    pub fn connect_to(address: std::net::SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self { stream, unread: Vec::new(), start: 0 })
    }

    /// How long a read may wait.
    ///
    /// # Errors
    /// Where the operating system refuses it.
    pub fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(timeout))
    }

    /// One command, one reply.
    ///
    /// # Errors
    /// Where the connection breaks, the read times out or the reply is no RESP.
    pub fn try_call<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> io::Result<Reply> {
        let mut wire = Vec::new();
        encode(&mut wire, arguments);
        self.stream.write_all(&wire)?;
        self.read()
    }

    /// [`Self::try_call`] for tests, where a broken connection is the failure.
    ///
    /// # Panics
    /// Where the connection breaks.
    pub fn call<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Reply {
        self.try_call(arguments).unwrap_or_else(|fault| {
            let line: Vec<String> = arguments.iter().map(|a| a.as_ref().escape_ascii().to_string()).collect();
            panic!("{}: {fault}", line.join(" "))
        })
    }

    /// A command line split at blanks: `client.run("SET key value")`.
    ///
    /// # Panics
    /// Where the connection breaks.
    pub fn run(&mut self, line: &str) -> Reply {
        self.call(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Writes requests without reading their replies.
    ///
    /// # Errors
    /// Where the connection breaks.
    pub fn send(&mut self, requests: &[Request]) -> io::Result<()> {
        let mut wire = Vec::new();
        for request in requests {
            encode(&mut wire, request);
        }
        self.stream.write_all(&wire)
    }

    /// Writes bytes as they are, for tests of the protocol itself.
    ///
    /// # Errors
    /// Where the connection breaks.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next reply or push.
    ///
    /// # Errors
    /// Where the connection breaks, the read times out or the bytes are no RESP.
    pub fn read(&mut self) -> io::Result<Reply> {
        loop {
            let pending = self.unread.get(self.start..).unwrap_or_default();
            let parsed =
                reply::parse(pending).map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault.0))?;
            if let Some((reply, taken)) = parsed {
                self.start += taken;
                return Ok(reply);
            }
            // Not before the loop: clearing it costs more than most replies' parsing.
            let mut chunk = [0u8; 64 * 1024];
            let count = match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                // A machine that was asleep.
                Err(fault) if fault.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            self.unread.drain(..self.start);
            self.start = 0;
            self.unread.extend_from_slice(chunk.get(..count).unwrap_or_default());
        }
    }

    /// `count` replies.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_many(&mut self, count: usize) -> io::Result<Vec<Reply>> {
        (0..count).map(|_| self.read()).collect()
    }
}

/// The wire form of one command.
pub fn encode<A: AsRef<[u8]>>(wire: &mut Vec<u8>, arguments: &[A]) {
    wire.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
    for argument in arguments {
        let argument = argument.as_ref();
        wire.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        wire.extend_from_slice(argument);
        wire.extend_from_slice(b"\r\n");
    }
}

/// Bytes of a command line: arguments with blanks, quotes or control bytes are quoted as valkey-cli reads them.
pub fn show(request: &[Vec<u8>]) -> String {
    let shown = request.iter().map(|argument| {
        let plain = !argument.is_empty()
            && argument.len() < 200
            && argument.iter().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'\\'));
        if plain {
            String::from_utf8_lossy(argument).into_owned()
        } else if argument.len() > 200 {
            let head = argument.get(..24).unwrap_or_default().escape_ascii();
            format!("\"{head}...\"({} bytes)", argument.len())
        } else {
            format!("\"{}\"", argument.escape_ascii())
        }
    });
    shown.collect::<Vec<_>>().join(" ")
}
