//! Walking the leaves' chain, in either direction.

use super::entry::Entry;
use super::node::Leaf;
use std::marker::PhantomData;
use std::ptr;

/// How many entries ahead an iterator asks for: about the misses that a core keeps in flight.
const AHEAD: usize = 6;

/// Members and scores of a range of ranks.
#[derive(Clone)]
pub struct Iter<'a> {
    leaf: *const Leaf,
    pos: usize,
    left: usize,
    reverse: bool,
    tree: PhantomData<&'a super::Tree>,
}

// SAFETY: an iterator only reads what its `&Tree` may read, and trees are Sync.
unsafe impl Send for Iter<'_> {}

impl<'a> Iter<'a> {
    pub(super) fn empty() -> Iter<'a> {
        Iter { leaf: ptr::null(), pos: 0, left: 0, reverse: false, tree: PhantomData }
    }

    /// `pos` is the first entry to give; the chain holds at least `left` in that direction.
    pub(super) fn new(leaf: *const Leaf, pos: usize, left: usize, reverse: bool) -> Iter<'a> {
        Iter { leaf, pos, left, reverse, tree: PhantomData }
    }

    #[inline]
    pub(crate) fn next_entry(&mut self) -> Option<Entry> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        // SAFETY: while entries are left, `leaf` is live and `pos` inside it; the tree is borrowed for `'a`.
        let leaf = unsafe { &*self.leaf };
        let entry = leaf.entry(self.pos);
        if self.left == 0 {
            return Some(entry);
        }
        if self.reverse {
            if self.pos == 0 {
                self.leaf = leaf.prev;
                // SAFETY: entries are left, so there is a leaf before, and no leaf of a chain is empty.
                self.pos = unsafe { (*self.leaf).len() } - 1;
            } else {
                self.pos -= 1;
            }
            if self.pos >= AHEAD {
                // SAFETY: `leaf` is live, as above.
                unsafe { (*self.leaf).entry(self.pos - AHEAD) }.prefetch();
            }
        } else {
            self.pos += 1;
            if self.pos == leaf.len() {
                (self.leaf, self.pos) = (leaf.next, 0);
            } else if self.pos + AHEAD < leaf.len() {
                leaf.entry(self.pos + AHEAD).prefetch();
            }
        }
        Some(entry)
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], f64);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        // SAFETY: entries live as long as the tree is borrowed.
        self.next_entry().map(|entry| unsafe { (entry.member(), entry.score()) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Iter<'_> {}
