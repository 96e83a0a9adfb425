//! The way through a hash's fields.

use super::{Element, Hash, Pair};
use kara_encoding::field_table::{self, FieldRef};
use kara_encoding::{listpack, packed};

impl<'a> From<FieldRef<'a>> for Pair<'a> {
    fn from(f: FieldRef<'a>) -> Self {
        Pair { field: Element::Str(f.field), value: Element::Str(f.value), expiry_ms: f.expiry_ms }
    }
}

/// All fields of a hash.
pub struct Iter<'a>(Form<'a>);

enum Form<'a> {
    Listpack(listpack::Iter<'a>),
    Table(field_table::Iter<'a>),
}

impl<'a> Iter<'a> {
    pub(super) fn new(hash: &'a Hash) -> Self {
        Iter(match hash.form() {
            packed::Form::Small(pairs) => Form::Listpack(pairs.iter()),
            packed::Form::Large(table) => Form::Table(table.iter()),
        })
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Pair<'a>;

    #[inline]
    fn next(&mut self) -> Option<Pair<'a>> {
        match &mut self.0 {
            Form::Listpack(iter) => {
                let (field, value) = (iter.next()?, iter.next()?);
                Some(Pair { field, value, expiry_ms: None })
            }
            Form::Table(iter) => iter.next().map(Pair::from),
        }
    }
}
