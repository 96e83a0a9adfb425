//! A primary hands over to us (PSYNC with FAILOVER): we run first what it has sent.

use super::{Link, Replication};
use crate::pipeline::Engine;
use crate::registry::Command;
use crate::spec::Locks;
use std::time::{Duration, Instant};

/// A stream that we haven't got on in for so long has nothing more for us.
const STANDSTILL: Duration = Duration::from_millis(100);

impl Replication {
    /// Whether a primary that hands over, and wants the stream from here on, is to wait: what it has sent us isn't all run,
    /// and it could only continue what we send as far as we have got. No longer than we get on.
    fn is_behind(&self, id: &[u8], next: u64) -> bool {
        let mut state = self.state.lock();
        let end = self.backlog.end();
        let ours = state.ids.id.as_bytes() == id;
        let Some(primary) = state.primary.as_mut().filter(|primary| primary.link == Link::Connected) else {
            return false;
        };
        if !ours || next <= end.saturating_add(1) {
            return false;
        }
        let (_, since) = *primary.behind.insert(match primary.behind {
            Some((at, since)) if at == end => (at, since),
            _ => (end, Instant::now()),
        });
        since.elapsed() < STANDSTILL
    }
}

impl Engine {
    /// Whether this is PSYNC with FAILOVER, and its sender is to wait (see [`Replication::is_behind`]).
    pub(crate) fn takes_over_later(&self, command: Command, args: &[&[u8]]) -> bool {
        command.spec.locks == Locks::All
            && command.full_name == "psync"
            && args.get(3).is_some_and(|word| word.eq_ignore_ascii_case(b"failover"))
            && args.get(1).zip(args.get(2)).is_some_and(|(id, next)| {
                let next = std::str::from_utf8(next).ok().and_then(|next| next.parse().ok());
                next.is_some_and(|next| self.shared.replication.is_behind(id, next))
            })
    }
}
