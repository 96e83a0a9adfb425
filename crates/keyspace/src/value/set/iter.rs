//! The way through a set's members.

use super::{Element, Set};
use kara_encoding::{large_set, listpack};

/// All members of a set.
pub struct Iter<'a>(Form<'a>);

enum Form<'a> {
    Intset { set: &'a kara_encoding::intset::Intset, next: usize },
    Listpack(listpack::Iter<'a>),
    Table(large_set::Iter<'a>),
}

impl<'a> Iter<'a> {
    pub(super) fn new(set: &'a Set) -> Self {
        Iter(match set {
            Set::Intset(set) => Form::Intset { set, next: 0 },
            Set::Listpack(set) => Form::Listpack(set.iter()),
            Set::Table(set) => Form::Table(set.iter()),
        })
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Element<'a>;

    #[inline]
    fn next(&mut self) -> Option<Element<'a>> {
        match &mut self.0 {
            Form::Intset { set, next } => {
                let value = set.get(*next)?;
                *next += 1;
                Some(Element::Int(value))
            }
            Form::Listpack(iter) => iter.next(),
            Form::Table(iter) => iter.next(),
        }
    }
}
