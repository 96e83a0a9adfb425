//! What a command did to keys, for those who watch: keyspace notifications, WATCH, tracking, blocked clients.
//! Collected while the command runs, delivered by the pipeline before the shard locks are released.

use kara_base::ids::DbIndex;

bitflags::bitflags! {
    /// Classes of keyspace notifications, as `notify-keyspace-events` names them by letters.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Class: u32 {
        const KEYSPACE = 1 << 0;
        const KEYEVENT = 1 << 1;
        const GENERIC = 1 << 2;
        const STRING = 1 << 3;
        const LIST = 1 << 4;
        const SET = 1 << 5;
        const HASH = 1 << 6;
        const ZSET = 1 << 7;
        const EXPIRED = 1 << 8;
        const EVICTED = 1 << 9;
        const STREAM = 1 << 10;
        const KEY_MISS = 1 << 11;
        const MODULE = 1 << 12;
        const NEW = 1 << 13;
        /// `A`: everything but misses and new keys.
        const ALL = Self::GENERIC.bits() | Self::STRING.bits() | Self::LIST.bits() | Self::SET.bits()
            | Self::HASH.bits() | Self::ZSET.bits() | Self::EXPIRED.bits() | Self::EVICTED.bits()
            | Self::STREAM.bits() | Self::MODULE.bits();
    }
}

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
    /// It now holds something that blocked clients may wait for.
    Ready,
}

/// The collector. Records only what somebody wants; `wanted` is set once per command.
#[derive(Debug, Default)]
pub struct Events {
    list: Vec<KeyEvent>,
    pub wanted: Wanted,
}

/// Who watches now.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Notification classes to publish; empty unless KEYSPACE or KEYEVENT is among the configured ones.
    pub classes: Class,
    /// Somebody WATCHes or tracks keys.
    pub changes: bool,
    /// Somebody is blocked on a key.
    pub ready: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        Wanted { classes: Class::empty(), changes: false, ready: false }
    }
}

impl Events {
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

    /// Whether nothing was recorded.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Takes what was recorded.
    pub fn take(&mut self) -> Vec<KeyEvent> {
        std::mem::take(&mut self.list)
    }
}
