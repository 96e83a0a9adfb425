//! Layer 2: shards, locks, databases, entries, values, expiry, journal and snapshot epochs.

pub mod db;
pub mod entry;
pub mod expiry;
pub mod journal;
pub mod keyspace;
mod lock;
pub mod locked;
pub mod shard;
pub mod table;
pub mod value;

pub use db::{DbStats, ExpiryUpdate, SetOutcome};
pub use entry::{
    Collection, Entry, Kind, NewValue, OutOfMemory, OwnedValue, StrMut, StrRef, StrValue, StringEncoding,
    Value,
};
pub use expiry::ExpireProgress;
pub use journal::{Journal, JournalSink};
pub use keyspace::{HashedKey, Keyspace, KeyspaceOptions};
pub use locked::{Locked, Moved};
pub use shard::{Detached, Part, Shard, SnapshotSink};
pub use table::prefetch_line_to_write;
