//! Identifiers as types of their own, so that a slot can't be passed where a database is meant.

use std::fmt;

/// A connection's number, never reused within a process; the first is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// A cluster hash slot, `0..Slot::COUNT`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// The number of slots in a cluster.
    pub const COUNT: usize = 16384;

    /// The slot of that number, if there is one.
    pub const fn new(number: u16) -> Option<Slot> {
        if (number as usize) < Slot::COUNT { Some(Slot(number)) } else { None }
    }

    /// The slot in a checksum's low 14 bits.
    pub const fn from_crc(crc: u16) -> Slot {
        Slot(crc & (Slot::COUNT as u16 - 1))
    }

    pub const fn get(self) -> u16 {
        self.0
    }

    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Every slot in ascending order.
    pub fn all() -> impl Iterator<Item = Slot> {
        (0..Slot::COUNT as u16).map(Slot)
    }
}

/// A shard of the keyspace; the order of these numbers is the order in which shards are locked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u32);

/// A database number, as in SELECT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DbIndex(pub u32);

/// A place in the journal: the number of bytes before it in the replication stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JournalOffset(pub u64);

impl JournalOffset {
    /// The offset `bytes` further on. Saturates: at a gigabyte per second that takes 584 years.
    #[must_use]
    pub const fn advanced_by(self, bytes: u64) -> JournalOffset {
        JournalOffset(self.0.saturating_add(bytes))
    }
}

macro_rules! display {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}
display!(ClientId, Slot, ShardId, DbIndex, JournalOffset);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_end_at_16383() {
        assert_eq!(Slot::new(16383).map(Slot::get), Some(16383));
        assert_eq!(Slot::new(16384), None);
        assert_eq!(Slot::from_crc(0xffff).index(), 16383);
        assert_eq!(Slot::all().count(), Slot::COUNT);
        assert_eq!(Slot::from_crc(12).to_string(), "12");
    }
}
