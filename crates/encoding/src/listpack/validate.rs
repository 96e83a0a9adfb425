//! The door for listpacks that come from files, peers and RESTORE. Every entry is decoded here by the same function that
//! reads it later, so that the two cannot disagree about its length.

use super::entry::{END, Element, back_size, decode, read_back};
use super::raw::{HEADER, Listpack, MAX_BYTES};
use std::fmt;

/// A payload is not a listpack, or not one of the promised kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt;

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("corrupt listpack")
    }
}

impl std::error::Error for Corrupt {}

impl Listpack {
    /// A copy of `blob` after a look at every entry.
    pub fn from_bytes_validated(blob: &[u8]) -> Result<Self, Corrupt> {
        Self::from_bytes_validated_with(blob, |_, _| true)
    }

    /// Like `from_bytes_validated`, asking `accept(index, element)` about each element as well.
    pub fn from_bytes_validated_with(
        blob: &[u8],
        mut accept: impl FnMut(usize, Element<'_>) -> bool,
    ) -> Result<Self, Corrupt> {
        let stated = blob.get(..4).and_then(|field| field.try_into().ok()).map(u32::from_le_bytes);
        if stated.map(|total| total as usize) != Some(blob.len())
            || !(HEADER + 1..=MAX_BYTES).contains(&blob.len())
            || blob.last() != Some(&END)
        {
            return Err(Corrupt);
        }
        let entries_end = blob.len() - 1;
        let mut at = HEADER;
        let mut count = 0usize;
        while at < entries_end {
            let (element, body) = decode(blob, at).ok_or(Corrupt)?;
            let end = at + body + back_size(body);
            if end > entries_end || read_back(blob, end) != Some((body, back_size(body))) {
                return Err(Corrupt);
            }
            if !accept(count, element) {
                return Err(Corrupt);
            }
            count += 1;
            at = end;
        }
        let header_count = usize::from(u16::from_le_bytes([blob[4], blob[5]]));
        if header_count != usize::from(u16::MAX) && header_count != count {
            return Err(Corrupt);
        }
        let mut list = Self::from_trusted(blob);
        // Foreign blobs may say "unknown" about a few elements, which would make every count a walk.
        list.set_count(count);
        Ok(list)
    }

    /// Like `from_bytes_validated`, refusing a text that occurs twice.
    pub fn from_bytes_unique(blob: &[u8]) -> Result<Self, Corrupt> {
        Self::from_bytes_unique_every(blob, 1)
    }

    /// Like `from_bytes_validated`, for groups of `group` elements (2: pairs of key and value): refuses an incomplete
    /// group and a text that occurs twice among the groups' first elements.
    pub fn from_bytes_unique_every(blob: &[u8], group: usize) -> Result<Self, Corrupt> {
        let list = Self::from_bytes_validated(blob)?;
        if !list.len().is_multiple_of(group) {
            return Err(Corrupt);
        }
        if list.has_duplicates_every(group) { Err(Corrupt) } else { Ok(list) }
    }

    /// Whether a text occurs twice among the first elements of groups of `group` elements.
    pub fn has_duplicates_every(&self, group: usize) -> bool {
        // Sorted rather than hashed: payloads come from outside, and sorting has no bad case. Numbers stored as text
        // are the same element as numbers.
        let mut numbers = Vec::new();
        let mut texts = Vec::new();
        for element in self.iter().step_by(group) {
            match (element.as_int(), element) {
                (Some(value), _) => numbers.push(value),
                (None, Element::Str(text)) => texts.push(text),
                (None, Element::Int(value)) => numbers.push(value),
            }
        }
        numbers.sort_unstable();
        texts.sort_unstable();
        numbers.windows(2).any(|pair| pair[0] == pair[1]) || texts.windows(2).any(|pair| pair[0] == pair[1])
    }
}
