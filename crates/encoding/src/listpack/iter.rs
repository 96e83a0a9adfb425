//! Walking over a listpack from both ends.

use super::entry::{Element, back_size, decode, read_back};

/// The elements between two places of a listpack.
#[derive(Clone)]
pub struct Iter<'a> {
    blob: &'a [u8],
    front: usize,
    back: usize,
}

impl<'a> Iter<'a> {
    /// `front` and `back` are starts of entries (or the end byte) of a sound listpack.
    pub(super) fn new(blob: &'a [u8], front: usize, back: usize) -> Self {
        Iter { blob, front, back }
    }

    /// Whether both ends have met.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.front >= self.back
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Element<'a>;

    #[inline]
    fn next(&mut self) -> Option<Element<'a>> {
        if self.front >= self.back {
            return None;
        }
        let (element, body) = decode(self.blob, self.front)?;
        self.front += body + back_size(body);
        Some(element)
    }
}

impl DoubleEndedIterator for Iter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.front >= self.back {
            return None;
        }
        let (body, own) = read_back(self.blob, self.back)?;
        self.back = self.back.checked_sub(own + body)?;
        decode(self.blob, self.back).map(|(element, _)| element)
    }
}

impl std::iter::FusedIterator for Iter<'_> {}
