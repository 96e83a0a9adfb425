//! The byte streams a connection can run over; TLS joins here.

use mio::event::Source;
use mio::{Interest, Registry, Token};
use rustix::net::{RecvFlags, SendFlags};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

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

impl AsFd for Transport {
    #[inline]
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Transport::Tcp(stream) => stream.as_fd(),
            Transport::Unix(stream) => stream.as_fd(),
        }
    }
}

// The system calls themselves: the C library's `recv` and `send` are cancellation points, which cost two atomic changes
// of the thread's state each, a fortieth of a request that comes alone.

impl Read for Transport {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::net::recv(self.as_fd(), buf, RecvFlags::empty())?.1)
    }
}

impl Write for Transport {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.as_fd(), buf, SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
