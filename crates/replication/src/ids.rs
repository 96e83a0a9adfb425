//! Which history a data set belongs to, and who can go on with it.

use crate::backlog::Extent;

/// A replication id: 40 hexadecimal digits.
pub type ReplId = String;

/// Our history's id and, after a promotion, the one that it goes on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplIds {
    pub id: ReplId,
    /// The second id holds up to this offset (of the first byte that isn't its any more), as INFO shows it.
    pub second: Option<(ReplId, u64)>,
}

/// Why a replica needs the whole data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It asked for that (`PSYNC ? -1`).
    Asked,
    OtherHistory,
    /// The history is ours, but the bytes are gone or not there yet.
    OutOfRange,
}

impl ReplIds {
    pub fn new(id: ReplId) -> ReplIds {
        ReplIds { id, second: None }
    }

    /// A promotion: what follows is a history of its own under `id`; up to `end` it is the old one.
    pub fn shift(&mut self, id: ReplId, end: u64) {
        let old = std::mem::replace(&mut self.id, id);
        self.second = Some((old, end.saturating_add(1)));
    }

    /// Whether a replica that asks for the byte at `offset` of history `id` can be served from the log; if so, its
    /// position (see [`crate::backlog`]).
    pub fn serve(&self, id: &str, offset: i64, extent: Extent) -> Result<u64, Refused> {
        if id == "?" {
            return Err(Refused::Asked);
        }
        let offset = u64::try_from(offset).map_err(|_| Refused::OtherHistory)?;
        let is_second = self.second.as_ref().is_some_and(|(second, end)| second == id && offset <= *end);
        if id != self.id && !is_second {
            return Err(Refused::OtherHistory);
        }
        let position = offset.checked_sub(1).ok_or(Refused::OutOfRange)?;
        if extent.holds(position) { Ok(position) } else { Err(Refused::OutOfRange) }
    }
}

/// Whether that is a replication id.
pub fn is_id(text: &[u8]) -> bool {
    text.len() == 40 && text.iter().all(u8::is_ascii_hexdigit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_histories_are_served_within_the_log() {
        let (a, b, c) = ("a".repeat(40), "b".repeat(40), "c".repeat(40));
        let mut ids = ReplIds::new(a.clone());
        let extent = Extent { active: true, start: 100, end: 200, db: None };
        assert_eq!(ids.serve(&a, 101, extent), Ok(100));
        assert_eq!(ids.serve(&a, 201, extent), Ok(200));
        assert_eq!(ids.serve(&a, 100, extent), Err(Refused::OutOfRange));
        assert_eq!(ids.serve(&a, 202, extent), Err(Refused::OutOfRange));
        assert_eq!(ids.serve("?", -1, extent), Err(Refused::Asked));
        ids.shift(b.clone(), 150);
        assert_eq!(ids.serve(&a, 151, extent), Ok(150));
        assert_eq!(ids.serve(&a, 152, extent), Err(Refused::OtherHistory));
        assert_eq!(ids.serve(&b, 152, extent), Ok(151));
        assert_eq!(ids.serve(&c, 152, extent), Err(Refused::OtherHistory));
        assert_eq!(ids.serve(&b, i64::MIN, extent), Err(Refused::OtherHistory));
        assert_eq!(ids.serve(&b, 0, extent), Err(Refused::OutOfRange));
    }
}
