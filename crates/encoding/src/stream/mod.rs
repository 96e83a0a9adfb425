//! Streams: an append-only log of entries in compact blocks, and the consumer groups that read it.
//!
//! [`Log`] keeps the entries, [`Group`] what was delivered to whom. Both are structures only: names of groups,
//! blocking and replies live further up, and times are given in.

mod block;
mod group;
mod id;
mod log;
mod radix;
#[cfg(test)]
mod tests;

pub use block::{Entry, Fields};
pub use group::{Consumer, ConsumerId, Group, Pending};
pub use id::{IdText, StreamId};
pub use log::{AddError, BlockLimits, Log, LogState, Range, RangeRev, Trim, TrimTo};

use std::fmt;

/// A block or a stream's header from outside contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorruptStream;

impl fmt::Display for CorruptStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("corrupt stream")
    }
}

impl std::error::Error for CorruptStream {}
