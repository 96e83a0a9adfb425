//! Layer 2: shards, locks, databases, entries, values, expiry, journal and snapshot epochs.

pub mod value;
