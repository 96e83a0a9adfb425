//! What a command did to keys, for those who watch: keyspace notifications, WATCH, tracking, blocked clients.
//! Collected while the command runs, delivered by the pipeline before the shard locks are released.

use crate::shared::Shared;
use kara_base::ids::DbIndex;

/// Classes of keyspace notifications, as `notify-keyspace-events` names them by letters.
pub use crate::config::NotifyFlags as Class;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEvent {
    pub db: DbIndex,
    pub key: Vec<u8>,
    pub what: What,
}

/// What happened to the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Its value or existence changed (WATCH, tracking).
    Changed,
    /// A notification is to be published.
    Notify(Class, &'static str),
    /// Waiting clients want to look at it: it holds more than before, or is gone.
    Ready,
    /// Every key of the event's database is gone; of all databases with `true`. The event's key is empty.
    Flushed { all: bool },
    /// The event's database and this one changed places. The event's key is empty.
    Swapped(DbIndex),
}

/// The collector. Records only what somebody wants; `wanted` is set once per command.
#[derive(Debug)]
pub struct Events {
    list: Vec<KeyEvent>,
    /// What concerns waiting clients, who are served when the whole transaction has run.
    for_waiters: Vec<KeyEvent>,
    pub wanted: Wanted,
    /// The classes that the configuration wants published.
    pub classes: Class,
    /// What runs is a client's, on a writable replica: keys that it gives an expiry are noted.
    pub own: bool,
}

/// Who watches now.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Notification classes to publish; empty unless KEYSPACE or KEYEVENT is among the configured ones and somebody
    /// subscribed to anything.
    pub classes: Class,
    /// Somebody WATCHes or tracks keys.
    pub changes: bool,
    /// Somebody waits for a key.
    pub ready: bool,
    /// Somebody waits for a key who wants to know if it goes away.
    pub gone: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        Wanted { classes: Class::empty(), changes: false, ready: false, gone: false }
    }
}

impl Default for Events {
    fn default() -> Self {
        Events {
            list: Vec::new(),
            for_waiters: Vec::new(),
            wanted: Wanted::default(),
            classes: Class::empty(),
            own: false,
        }
    }
}

impl Events {
    /// Looks who watches now. Before every command.
    #[inline]
    pub fn look(&mut self, shared: &Shared) {
        self.wanted = Wanted {
            classes: if shared.pubsub.is_quiet() { Class::empty() } else { self.classes },
            changes: self.own || !shared.watches.is_empty() || !shared.tracking.is_idle(),
            ready: shared.waiting.keys() > 0,
            gone: shared.waiting.keys_on_nokey() > 0,
        };
    }

    /// Keeps an event for those who wait.
    pub fn leave_to_waiters(&mut self, event: KeyEvent) {
        self.for_waiters.push(event);
    }

    /// Takes what concerns waiting clients.
    pub fn take_for_waiters(&mut self) -> Vec<KeyEvent> {
        std::mem::take(&mut self.for_waiters)
    }

    /// The key's value changed.
    #[inline]
    pub fn changed(&mut self, db: DbIndex, key: &[u8]) {
        if self.wanted.changes {
            self.list.push(KeyEvent { db, key: key.to_vec(), what: What::Changed });
        }
    }

    /// A notification of a class.
    #[inline]
    pub fn notify(&mut self, db: DbIndex, class: Class, event: &'static str, key: &[u8]) {
        if self.wanted.classes.intersects(class) {
            self.list.push(KeyEvent { db, key: key.to_vec(), what: What::Notify(class, event) });
        }
    }

    /// The key came to hold a list, sorted set or stream, or more of it.
    #[inline]
    pub fn ready(&mut self, db: DbIndex, key: &[u8]) {
        if self.wanted.ready {
            self.list.push(KeyEvent { db, key: key.to_vec(), what: What::Ready });
        }
    }

    /// The key is gone, or holds another type than before.
    #[inline]
    pub fn gone(&mut self, db: DbIndex, key: &[u8]) {
        if self.wanted.gone {
            self.list.push(KeyEvent { db, key: key.to_vec(), what: What::Ready });
        }
    }

    /// A database was emptied, or (`None`) all of them.
    pub fn flushed(&mut self, db: Option<DbIndex>) {
        if self.wanted.changes || self.wanted.ready {
            let what = What::Flushed { all: db.is_none() };
            self.list.push(KeyEvent { db: db.unwrap_or_default(), key: Vec::new(), what });
        }
    }

    /// Two databases changed places.
    pub fn swapped(&mut self, a: DbIndex, b: DbIndex) {
        if self.wanted.changes || self.wanted.ready {
            self.list.push(KeyEvent { db: a, key: Vec::new(), what: What::Swapped(b) });
        }
    }

    /// Whether anybody wants to hear of anything.
    pub fn is_wanted(&self) -> bool {
        let wanted = self.wanted;
        !wanted.classes.is_empty() || wanted.changes || wanted.ready || wanted.gone
    }

    /// Whether nothing was recorded.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty() && self.for_waiters.is_empty()
    }

    /// Takes what was recorded.
    pub fn take(&mut self) -> Vec<KeyEvent> {
        std::mem::take(&mut self.list)
    }
}
