//! A walk over a quicklist's elements. It lends each element until the next step, as compressed nodes are unpacked on
//! the way.

use super::node::View;
use super::seq::At;
use super::{End, Quicklist};
use crate::listpack::{self, Element, Listpack, Pos};

/// See `Quicklist::cursor`.
pub struct Cursor<'a> {
    list: &'a Quicklist,
    towards: End,
    place: Option<At>,
    current: Current<'a>,
}

enum Current<'a> {
    Packed(listpack::Iter<'a>),
    /// An unpacked copy and the next element in it.
    Unpacked(Listpack, Option<Pos>),
    Plain(Option<&'a [u8]>),
    UnpackedPlain(Vec<u8>, bool),
}

impl<'a> Cursor<'a> {
    pub(super) fn new(list: &'a Quicklist, index: usize, towards: End) -> Self {
        let mut cursor = Cursor { list, towards, place: None, current: Current::Plain(None) };
        if let Some((at, offset)) = list.seq.seek(index) {
            cursor.enter(at, Some(offset as i64));
        }
        cursor
    }

    /// Makes the node at `at` the current one, from `offset` or else from its near end.
    fn enter(&mut self, at: At, offset: Option<i64>) {
        let forwards = self.towards == End::Back;
        let offset = offset.unwrap_or(if forwards { 0 } else { -1 });
        self.place = self.list.step(at, self.towards);
        self.current = match self.list.seq.get(at).view() {
            View::Packed(list) => Current::Packed(match list.seek(offset) {
                Some(pos) if forwards => list.iter_from(pos),
                Some(pos) => list.iter_to(pos),
                None => return,
            }),
            View::Unpacked(list) => {
                let pos = list.seek(offset);
                Current::Unpacked(list, pos)
            }
            View::Plain(text) => Current::Plain(Some(text)),
            View::UnpackedPlain(text) => Current::UnpackedPlain(text, true),
        };
    }

    /// The next element.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<Element<'_>> {
        while self.spent() {
            let at = self.place?;
            self.enter(at, None);
        }
        match &mut self.current {
            Current::Packed(iter) if self.towards == End::Back => iter.next(),
            Current::Packed(iter) => iter.next_back(),
            Current::Unpacked(list, place) => {
                let pos = (*place)?;
                *place = if self.towards == End::Back { list.next(pos) } else { list.prev(pos) };
                Some(list.get(pos))
            }
            Current::Plain(text) => text.take().map(Element::Str),
            Current::UnpackedPlain(text, fresh) => std::mem::take(fresh).then_some(Element::Str(text)),
        }
    }

    #[inline]
    fn spent(&self) -> bool {
        match &self.current {
            Current::Packed(iter) => iter.is_empty(),
            Current::Unpacked(_, place) => place.is_none(),
            Current::Plain(text) => text.is_none(),
            Current::UnpackedPlain(_, fresh) => !fresh,
        }
    }
}
