//! ACL LOG: what was refused, whom, and how often.

use std::collections::VecDeque;

/// Refusals that resemble an entry not older than this are counted there.
const SAME_MS: i64 = 60_000;
/// So many of the newest entries are compared.
const COMPARED: usize = 10;

/// Why something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Command,
    Key,
    Channel,
    Database,
    Auth,
}

impl Reason {
    /// The word in ACL LOG.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Command => "command",
            Reason::Key => "key",
            Reason::Channel => "channel",
            Reason::Database => "database",
            Reason::Auth => "auth",
        }
    }
}

/// Where the command stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    TopLevel,
    Multi,
    Script,
}

impl Context {
    /// The word in ACL LOG.
    pub fn name(self) -> &'static str {
        match self {
            Context::TopLevel => "toplevel",
            Context::Multi => "multi",
            Context::Script => "lua",
        }
    }
}

/// One refusal.
#[derive(Clone, Debug)]
pub struct Event {
    pub reason: Reason,
    pub context: Context,
    pub object: Vec<u8>,
    pub user: Vec<u8>,
    /// The client as CLIENT INFO shows it.
    pub client: Vec<u8>,
    pub at_ms: i64,
}

/// Refusals of a kind.
#[derive(Clone, Debug)]
pub struct Entry {
    pub event: Event,
    pub count: u64,
    pub id: u64,
    pub created_ms: i64,
}

/// The newest refusals first.
#[derive(Debug, Default)]
pub struct Log {
    entries: VecDeque<Entry>,
    next_id: u64,
}

impl Log {
    /// Notes a refusal; at most `limit` entries stay.
    pub fn add(&mut self, event: Event, limit: u64) {
        let same = |entry: &Entry| {
            let (known, new) = (&entry.event, &event);
            known.reason == new.reason
                && known.context == new.context
                && (new.at_ms - known.at_ms).abs() <= SAME_MS
                && known.object == new.object
                && known.user == new.user
        };
        let found = self.entries.iter().take(COMPARED).position(same);
        if let Some(mut entry) = found.and_then(|at| self.entries.remove(at)) {
            entry.count += 1;
            entry.event = event;
            self.entries.push_front(entry);
            return;
        }
        let (id, created_ms) = (self.next_id, event.at_ms);
        self.next_id += 1;
        self.entries.push_front(Entry { event, count: 1, id, created_ms });
        self.entries.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    }

    /// The newest `count`.
    pub fn newest(&self, count: usize) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter().take(count)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_refusals_are_counted_together_and_old_ones_go() {
        let event = |object: &str, at_ms| Event {
            reason: Reason::Key,
            context: Context::TopLevel,
            object: object.into(),
            user: b"u".to_vec(),
            client: Vec::new(),
            at_ms,
        };
        let mut log = Log::default();
        log.add(event("a", 0), 2);
        log.add(event("b", 1), 2);
        log.add(event("a", 2), 2);
        let seen: Vec<(&[u8], u64, u64)> =
            log.newest(9).map(|entry| (&entry.event.object[..], entry.count, entry.id)).collect();
        assert_eq!(seen, [(&b"a"[..], 2, 0), (&b"b"[..], 1, 1)]);
        log.add(event("a", 2 + SAME_MS + 1), 2);
        assert_eq!(log.newest(9).map(|entry| entry.id).collect::<Vec<_>>(), [2, 0]);
    }
}
