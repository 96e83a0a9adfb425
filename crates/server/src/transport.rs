//! The byte streams a connection can run over; TLS joins here.

use mio::event::Source;
use mio::{Interest, Registry, Token};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};

/// A connected, non-blocking stream.
#[derive(Debug)]
pub enum Transport {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
}

impl Transport {
    /// Watches for readability and writability, edge-triggered: registered once, never changed.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self {
            Transport::Tcp(stream) => stream.register(registry, token, interest),
            Transport::Unix(stream) => stream.register(registry, token, interest),
        }
    }

    /// Stops watching.
    pub fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Transport::Tcp(stream) => stream.deregister(registry),
            Transport::Unix(stream) => stream.deregister(registry),
        }
    }

    /// Whether small pieces wait for more (Nagle's algorithm); best effort.
    pub fn set_delay(&self, on: bool) {
        if let Transport::Tcp(stream) = self {
            let _ = stream.set_nodelay(!on);
        }
    }

    /// The file descriptor, as CLIENT LIST shows it.
    pub fn fd(&self) -> RawFd {
        match self {
            Transport::Tcp(stream) => stream.as_raw_fd(),
            Transport::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

impl Read for Transport {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Transport::Tcp(stream) => stream.read(buf),
            Transport::Unix(stream) => stream.read(buf),
        }
    }
}

impl Write for Transport {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Transport::Tcp(stream) => stream.write(buf),
            Transport::Unix(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
