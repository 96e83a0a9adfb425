//! Listpack: a sequence of strings and integers in one compact blob, byte for byte the format that RDB files and DUMP
//! payloads carry. The entries' encoding is in `entry`, outside payloads enter through `validate`.
//!
//! ```text
//! u32le total bytes | u16le elements, 65535 = count them | entries | 0xff
//! ```
//!
//! A `Listpack` is one pointer to one allocation. The allocation's size is not stored: it is a function of the total in
//! the header, namely the size class that the allocator would round it to anyway, so that most pushes move no memory
//! and ask nobody.

mod entry;
mod iter;
mod raw;
#[cfg(test)]
mod tests;
mod validate;

pub use entry::{Element, canonical_int};
pub use iter::Iter;
pub use raw::Listpack;
pub use validate::Corrupt;

use entry::{END, Encoded, back_size, body_len, decode, read_back};
use raw::{HEADER, MAX_BYTES};
use std::fmt;
use std::num::NonZeroU32;

/// The header's element count when there are more than it can say.
const COUNT_UNKNOWN: usize = u16::MAX as usize;

/// Where an element starts. Valid until the listpack changes in front of it; a stale one may give a wrong element or
/// panic, never touch other memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pos(NonZeroU32);

impl Pos {
    fn new(offset: usize) -> Self {
        // Offsets lie between the header's 6 bytes and the limit of 1 GiB.
        Pos(u32::try_from(offset).ok().and_then(NonZeroU32::new).expect("offset within a listpack"))
    }

    /// Bytes from the start of the blob.
    pub fn offset(self) -> usize {
        self.0.get() as usize
    }
}

/// The listpack would have grown beyond 1 GiB; it is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("listpack would exceed 1 GiB")
    }
}

impl std::error::Error for TooLarge {}

impl Listpack {
    /// Number of elements; counted one by one if there are more than 65,534.
    #[inline]
    pub fn len(&self) -> usize {
        match self.header_count() {
            COUNT_UNKNOWN => self.iter().count(),
            known => known,
        }
    }

    /// Whether there is no element.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes_len() == HEADER + 1
    }

    /// Bytes that `element` would add.
    pub fn entry_bytes(element: Element<'_>) -> usize {
        Encoded::new(element).encoded_len()
    }

    /// Whether `more` bytes of entries still fit below the limit of 1 GiB.
    pub fn would_fit(&self, more: usize) -> bool {
        self.bytes_len().saturating_add(more) <= MAX_BYTES
    }

    // ---- cursors ----

    /// The first element.
    #[inline]
    pub fn first(&self) -> Option<Pos> {
        (!self.is_empty()).then(|| Pos::new(HEADER))
    }

    /// The last element.
    #[inline]
    pub fn last(&self) -> Option<Pos> {
        self.before(self.bytes_len() - 1)
    }

    /// The element behind the one at `pos`.
    #[inline]
    pub fn next(&self, pos: Pos) -> Option<Pos> {
        let blob = self.as_bytes();
        let next = entry_end(blob, pos.offset());
        (blob[next] != END).then(|| Pos::new(next))
    }

    /// The element in front of the one at `pos`.
    #[inline]
    pub fn prev(&self, pos: Pos) -> Option<Pos> {
        self.before(pos.offset())
    }

    /// The element at `index`; negative ones count from the end, -1 being the last.
    pub fn seek(&self, index: i64) -> Option<Pos> {
        let count = self.header_count();
        let known = (count != COUNT_UNKNOWN).then_some(count as i64);
        let (backwards, steps) = match known {
            Some(count) => {
                let forward = if index < 0 { index.checked_add(count)? } else { index };
                if !(0..count).contains(&forward) {
                    return None;
                }
                // From the nearer end.
                if forward > count / 2 { (true, count - 1 - forward) } else { (false, forward) }
            }
            None if index < 0 => (true, -(index + 1)),
            None => (false, index),
        };
        let mut pos = if backwards { self.last()? } else { self.first()? };
        for _ in 0..steps {
            pos = if backwards { self.prev(pos)? } else { self.next(pos)? };
        }
        Some(pos)
    }

    /// The element at `pos`.
    #[inline]
    pub fn get(&self, pos: Pos) -> Element<'_> {
        decode(self.as_bytes(), pos.offset()).expect("position of an element").0
    }

    /// All elements, in order; can be reversed.
    #[inline]
    pub fn iter(&self) -> Iter<'_> {
        Iter::new(self.as_bytes(), HEADER, self.bytes_len() - 1)
    }

    /// The element at `pos` and those behind it.
    pub fn iter_from(&self, pos: Pos) -> Iter<'_> {
        Iter::new(self.as_bytes(), pos.offset(), self.bytes_len() - 1)
    }

    /// The elements from the first up to and including the one at `pos`; reversed, a walk from `pos` to the front.
    pub fn iter_to(&self, pos: Pos) -> Iter<'_> {
        Iter::new(self.as_bytes(), HEADER, entry_end(self.as_bytes(), pos.offset()))
    }

    /// The first element whose text is `needle` among the one at `from` and every (`skip` + 1)-th behind it: with 1, the
    /// keys of a sequence of pairs.
    pub fn find(&self, from: Pos, needle: &[u8], skip: usize) -> Option<Pos> {
        let blob = self.as_bytes();
        let wanted = Encoded::new(Element::Str(needle));
        let number = canonical_int(needle);
        let end = blob.len() - 1;
        let mut at = from.offset();
        let mut left = 0;
        while at < end {
            let body = body_len(blob, at).expect("entry");
            if left == 0 {
                // Entries of foreign origin may hold a number in another width or as text.
                let same = wanted.matches(&blob[at..at + body])
                    || (number.is_some() && decode(blob, at).and_then(|(found, _)| found.as_int()) == number)
                    || (number.is_none()
                        && blob[at] >= 0xe0
                        && decode(blob, at).is_some_and(|(found, _)| found == Element::Str(needle)));
                if same {
                    return Some(Pos::new(at));
                }
                left = skip;
            } else {
                left -= 1;
            }
            at += body + back_size(body);
        }
        None
    }

    // ---- changes ----

    /// Appends `text`, as an integer if it is one.
    #[inline]
    pub fn push_back(&mut self, text: &[u8]) -> Result<(), TooLarge> {
        self.put(self.bytes_len() - 1, 0, Element::Str(text))
    }

    /// Appends an integer.
    #[inline]
    pub fn push_back_int(&mut self, value: i64) -> Result<(), TooLarge> {
        self.put(self.bytes_len() - 1, 0, Element::Int(value))
    }

    /// Puts `text` in front of all others.
    #[inline]
    pub fn push_front(&mut self, text: &[u8]) -> Result<(), TooLarge> {
        self.put(HEADER, 0, Element::Str(text))
    }

    /// Puts an integer in front of all others.
    #[inline]
    pub fn push_front_int(&mut self, value: i64) -> Result<(), TooLarge> {
        self.put(HEADER, 0, Element::Int(value))
    }

    /// Appends `elements` in their order, moving memory once.
    pub fn extend_back<'a>(
        &mut self,
        elements: impl IntoIterator<Item = Element<'a>>,
    ) -> Result<(), TooLarge> {
        self.put_all(self.bytes_len() - 1, elements)
    }

    /// Puts `elements` in front of all others, in their order, moving memory once.
    pub fn extend_front<'a>(
        &mut self,
        elements: impl IntoIterator<Item = Element<'a>>,
    ) -> Result<(), TooLarge> {
        self.put_all(HEADER, elements)
    }

    /// Inserts in front of the element at `pos`; the new element is at the same position.
    pub fn insert_before<'a>(&mut self, pos: Pos, element: impl Into<Element<'a>>) -> Result<Pos, TooLarge> {
        self.check(pos);
        self.put(pos.offset(), 0, element.into()).map(|()| pos)
    }

    /// Inserts behind the element at `pos`; gives the new element's position.
    pub fn insert_after<'a>(&mut self, pos: Pos, element: impl Into<Element<'a>>) -> Result<Pos, TooLarge> {
        let at = entry_end(self.as_bytes(), pos.offset());
        self.put(at, 0, element.into()).map(|()| Pos::new(at))
    }

    /// Inserts `elements`, in their order, in front of the element at `pos`, moving memory once.
    pub fn insert_all_before<'a>(
        &mut self,
        pos: Pos,
        elements: impl IntoIterator<Item = Element<'a>>,
    ) -> Result<(), TooLarge> {
        self.check(pos);
        self.put_all(pos.offset(), elements)
    }

    /// Puts another element in the place of the one at `pos`; the position stays.
    pub fn replace<'a>(&mut self, pos: Pos, element: impl Into<Element<'a>>) -> Result<Pos, TooLarge> {
        let old = entry_end(self.as_bytes(), pos.offset()) - pos.offset();
        self.put(pos.offset(), old, element.into()).map(|()| pos)
    }

    /// Removes the element at `pos` and those behind it, `count` at most; gives the element that follows them.
    pub fn remove(&mut self, pos: Pos, count: usize) -> Option<Pos> {
        let start = pos.offset();
        let (end, removed) = self.skip(start, count);
        self.cut(start, end, removed);
        (start < self.bytes_len() - 1).then_some(pos)
    }

    /// Removes up to `count` elements from `index` on (negative ones count from the end); gives how many.
    pub fn delete_range(&mut self, index: i64, count: usize) -> usize {
        let Some(pos) = self.seek(index) else { return 0 };
        let (end, removed) = self.skip(pos.offset(), count);
        self.cut(pos.offset(), end, removed);
        removed
    }

    /// Removes elements whose text is `needle`, `limit` at most, from the front on or from the back; gives how many.
    pub fn remove_equal(&mut self, needle: &[u8], limit: usize, from_back: bool) -> usize {
        let mut removed = 0;
        if from_back {
            let number = canonical_int(needle);
            let mut place = self.last();
            while let Some(pos) = place.filter(|_| removed < limit) {
                place = self.prev(pos);
                let found = match self.get(pos) {
                    Element::Int(value) => number == Some(value),
                    Element::Str(text) => text == needle,
                };
                if found {
                    self.remove(pos, 1);
                    removed += 1;
                }
            }
        } else {
            let mut place = self.first();
            while let Some(pos) = place.filter(|_| removed < limit) {
                let Some(found) = self.find(pos, needle, 0) else { break };
                place = self.remove(found, 1);
                removed += 1;
            }
        }
        removed
    }

    /// Removes all elements.
    pub fn clear(&mut self) {
        *self = Listpack::new();
    }

    /// Appends all of `other`'s elements.
    pub fn append(&mut self, other: &Listpack) -> Result<(), TooLarge> {
        self.merge_at(self.bytes_len() - 1, other)
    }

    /// Puts all of `other`'s elements in front.
    pub fn prepend(&mut self, other: &Listpack) -> Result<(), TooLarge> {
        self.merge_at(HEADER, other)
    }

    /// Moves the elements from `index` on (0 to the length) into a new listpack.
    pub fn split_off(&mut self, index: usize) -> Listpack {
        let (at, kept) = self.skip(HEADER, index);
        let end = self.bytes_len() - 1;
        let moved = if self.header_count() == COUNT_UNKNOWN {
            self.skip(at, usize::MAX).1
        } else {
            self.header_count() - kept
        };
        let mut tail = Listpack::new();
        tail.splice(HEADER, 0, &[&self.as_bytes()[at..end]]).expect("part of a listpack fits");
        tail.add_count(moved);
        self.splice(at, end - at, &[]).expect("removal fits");
        self.set_count(kept);
        tail
    }

    // ---- within ----

    fn before(&self, offset: usize) -> Option<Pos> {
        if offset <= HEADER {
            return None;
        }
        let (body, own) = read_back(self.as_bytes(), offset).expect("backlen in front of an entry");
        Some(Pos::new(offset - own - body))
    }

    /// Walks over up to `count` entries from `at`: (where it ends, how many they were).
    fn skip(&self, mut at: usize, count: usize) -> (usize, usize) {
        let blob = self.as_bytes();
        let mut passed = 0;
        while passed < count && blob[at] != END {
            at = entry_end(blob, at);
            passed += 1;
        }
        (at, passed)
    }

    fn check(&self, pos: Pos) {
        assert!(pos.offset() < self.bytes_len() - 1, "position beyond the listpack");
    }

    fn put(&mut self, at: usize, replaced: usize, element: Element<'_>) -> Result<(), TooLarge> {
        let entry = Encoded::new(element);
        self.splice(at, replaced, &[entry.head(), entry.tail, entry.back()])?;
        if replaced == 0 {
            self.add_count(1);
        }
        Ok(())
    }

    fn put_all<'a>(
        &mut self,
        at: usize,
        elements: impl IntoIterator<Item = Element<'a>>,
    ) -> Result<(), TooLarge> {
        let mut entries = smallvec::SmallVec::<[u8; 256]>::new();
        let mut count = 0;
        for element in elements {
            let entry = Encoded::new(element);
            if !self.would_fit(entries.len() + entry.encoded_len()) {
                return Err(TooLarge);
            }
            entries.extend_from_slice(entry.head());
            entries.extend_from_slice(entry.tail);
            entries.extend_from_slice(entry.back());
            count += 1;
        }
        self.splice(at, 0, &[&entries])?;
        self.add_count(count);
        Ok(())
    }

    fn merge_at(&mut self, at: usize, other: &Listpack) -> Result<(), TooLarge> {
        let blob = other.as_bytes();
        self.splice(at, 0, &[&blob[HEADER..blob.len() - 1]])?;
        match other.header_count() {
            COUNT_UNKNOWN => self.set_count(COUNT_UNKNOWN),
            known => self.add_count(known),
        }
        Ok(())
    }

    fn cut(&mut self, start: usize, end: usize, removed: usize) {
        self.splice(start, end - start, &[]).expect("removal fits");
        if self.header_count() != COUNT_UNKNOWN {
            self.set_count(self.header_count() - removed);
        } else if self.is_empty() {
            self.set_count(0);
        }
    }

    fn add_count(&mut self, more: usize) {
        if self.header_count() != COUNT_UNKNOWN {
            self.set_count(self.header_count() + more);
        }
    }
}

/// Where the entry behind the one at `at` starts.
#[inline]
fn entry_end(blob: &[u8], at: usize) -> usize {
    let body = body_len(blob, at).expect("position of an element");
    at + body + back_size(body)
}

impl fmt::Debug for Listpack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for Listpack {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Listpack {}

impl<'a> FromIterator<Element<'a>> for Listpack {
    /// For what is known to fit: panics beyond 1 GiB.
    fn from_iter<I: IntoIterator<Item = Element<'a>>>(elements: I) -> Self {
        let mut list = Listpack::new();
        list.extend_back(elements).expect("listpack within its limit");
        list
    }
}

impl<'a> IntoIterator for &'a Listpack {
    type Item = Element<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}
