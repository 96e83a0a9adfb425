//! Layer 1: the RESP2, RESP3 and inline protocols. No sockets: bytes in, requests or values out, and back.
//!
//! - [`request`]: the server's side of parsing: borrowed, resumable requests.
//! - [`writer`]: replies of either protocol version into one buffer.
//! - [`reply`]: the client's side: owned values, for tools, links to other servers and tests.
#![forbid(unsafe_code)]

pub mod reply;
pub mod request;
pub mod writer;

pub use reply::{ReplyError, ReplyLimits, ReplyParser, ReplyStep, Value};
pub use request::{Limits, ParseState, ProtocolError, Request, Step};
pub use writer::{Mark, Writer};

/// The protocol version that a connection chose with HELLO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    #[default]
    Resp2,
    Resp3,
}

impl Protocol {
    /// The version of that number: 2 or 3.
    pub const fn from_number(number: i64) -> Option<Protocol> {
        match number {
            2 => Some(Protocol::Resp2),
            3 => Some(Protocol::Resp3),
            _ => None,
        }
    }

    pub const fn number(self) -> i64 {
        match self {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        }
    }
}
