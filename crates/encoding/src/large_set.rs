//! A large set of byte strings that keeps integers as integers: an [`IntTable`] for the members that are an
//! `i64`'s decimal form, a [`MemberTable`] for the rest. A set that was all integers takes a string without
//! converting anything.

use kara_base::hash::HashSeed;
use kara_base::rng::Rng;

use crate::int_table::{self, IntTable};
use crate::listpack::{Element, canonical_int};
use crate::member_table::{self, MemberTable};
use crate::table::CURSOR_BITS;

/// Set in cursors that point into the strings.
const STRINGS: u64 = 1 << CURSOR_BITS;

/// The set.
pub struct LargeSet {
    ints: IntTable,
    strings: MemberTable,
    seed: HashSeed,
}

impl LargeSet {
    pub fn new(seed: HashSeed) -> Self {
        LargeSet { ints: IntTable::new(seed), strings: MemberTable::new(seed), seed }
    }

    pub fn len(&self) -> usize {
        self.ints.len() + self.strings.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether every member is an integer.
    pub fn all_integers(&self) -> bool {
        self.strings.is_empty()
    }

    #[inline]
    pub fn contains(&self, member: &[u8]) -> bool {
        match canonical_int(member) {
            Some(value) => self.ints.contains(value),
            None => self.strings.contains(member),
        }
    }

    /// As `contains`, for a member of another set.
    #[inline]
    pub fn contains_element(&self, member: Element<'_>) -> bool {
        match member.as_int() {
            Some(value) => self.ints.contains(value),
            None => matches!(member, Element::Str(text) if self.strings.contains(text)),
        }
    }

    /// True if `member` was not in the set yet.
    #[inline]
    pub fn insert<'a>(&mut self, member: impl Into<Element<'a>>) -> bool {
        match member.into() {
            Element::Int(value) => self.ints.insert(value),
            Element::Str(text) => match canonical_int(text) {
                Some(value) => self.ints.insert(value),
                None => self.strings.insert(text),
            },
        }
    }

    /// True if `member` was in the set.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        match canonical_int(member) {
            Some(value) => self.ints.remove(value),
            None => self.strings.remove(member),
        }
    }

    /// All members, in no promised order.
    pub fn iter(&self) -> Iter<'_> {
        Iter { ints: Some(self.ints.iter()), strings: self.strings.iter() }
    }

    /// A member chosen with equal chances.
    pub fn random(&self, rng: &mut Rng) -> Option<Element<'_>> {
        if rng.below(self.len() as u64) < self.ints.len() as u64 {
            self.ints.random(rng).map(Element::Int)
        } else {
            self.strings.random(rng).map(Element::Str)
        }
    }

    /// As [`Table::scan`](crate::table::Table::scan), with cursors of 49 bits.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(Element<'_>)) -> u64 {
        let mut seen = 0;
        let mut cursor = cursor;
        if cursor & STRINGS == 0 {
            if !self.ints.is_empty() {
                cursor = self.ints.scan(cursor, count, |value| {
                    seen += 1;
                    visit(Element::Int(value));
                });
                if cursor != 0 {
                    return cursor;
                }
            }
            cursor = 0;
            if self.strings.is_empty() {
                return 0;
            }
            if seen >= count {
                return STRINGS;
            }
        }
        match self.strings.scan(cursor & !STRINGS, count - seen, |text| visit(Element::Str(text))) {
            0 => 0,
            next => next | STRINGS,
        }
    }

    /// Heap bytes, this struct included; entries are extrapolated from `samples` of them (0: all).
    pub fn memory_usage(&self, samples: usize) -> usize {
        self.ints.memory_usage() + self.strings.memory_usage(samples) + size_of::<HashSeed>()
    }
}

/// All members of a [`LargeSet`].
pub struct Iter<'a> {
    ints: Option<int_table::Iter<'a>>,
    strings: member_table::Iter<'a>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Element<'a>;

    #[inline]
    fn next(&mut self) -> Option<Element<'a>> {
        if let Some(ints) = &mut self.ints {
            if let Some(value) = ints.next() {
                return Some(Element::Int(value));
            }
            self.ints = None;
        }
        self.strings.next().map(Element::Str)
    }
}

impl Clone for LargeSet {
    fn clone(&self) -> Self {
        let mut copy = LargeSet::new(self.seed);
        for member in self.iter() {
            copy.insert(member);
        }
        copy
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use super::*;

    /// Integers of every width, texts that almost are integers, and texts.
    fn member(rng: &mut Rng, range: u64) -> Vec<u8> {
        let number = rng.below(range) as i64 - (range / 2) as i64;
        match rng.below(6) {
            0 => number.to_string(),
            1 => (number << rng.below(60)).to_string(),
            2 => [i64::MIN, i64::MAX, 0, -1][rng.below(4) as usize].to_string(),
            3 => format!("{number:+}"),
            4 => format!("0{number}"),
            _ => format!("m{number}"),
        }
        .into_bytes()
    }

    #[test]
    fn agrees_with_a_model() {
        let mut rng = Rng::new(12);
        let (mut set, mut model) = (LargeSet::new(HashSeed { k0: 3, k1: 4 }), BTreeSet::new());
        for (range, adding) in [(40, 5), (20_000, 7), (20_000, 2), (30, 5)] {
            for _ in 0..12_000 {
                let member = member(&mut rng, range);
                if rng.below(10) < adding {
                    assert_eq!(set.insert(&member[..]), model.insert(member));
                } else {
                    assert_eq!(set.remove(&member), model.remove(&member));
                }
            }
            assert_eq!(set.len(), model.len());
            let is_int = |member: &Vec<u8>| {
                std::str::from_utf8(member)
                    .ok()
                    .and_then(|text| Some(text.parse::<i64>().ok()?.to_string() == text))
                    .unwrap_or_default()
            };
            assert_eq!(set.all_integers(), model.iter().all(is_int));
            for set in [&set, &set.clone()] {
                let all: BTreeSet<Vec<u8>> = set.iter().map(|m| m.to_bytes()).collect();
                assert_eq!(all, model);
                assert!(model.iter().all(|m| set.contains(m) && set.contains_element(Element::Str(m))));
            }
        }
    }

    #[test]
    fn a_scan_visits_integers_and_strings_once() {
        let mut rng = Rng::new(4);
        for (ints, strings) in [(0, 0), (0, 900), (900, 0), (700, 800), (1, 1), (3000, 5)] {
            let mut set = LargeSet::new(HashSeed { k0: 3, k1: 4 });
            for i in 0..ints {
                assert!(set.insert(i.to_string().as_bytes()));
            }
            for i in 0..strings {
                assert!(set.insert(format!("s{i}").as_bytes()));
            }
            assert_eq!(set.len(), ints + strings);
            for count in [1, 10, 100_000] {
                let mut seen = HashMap::new();
                let mut cursor = 0;
                loop {
                    cursor = set.scan(cursor, count, |m| *seen.entry(m.to_bytes()).or_insert(0) += 1);
                    if cursor == 0 {
                        break;
                    }
                }
                assert_eq!(seen.len(), set.len());
                assert!(seen.values().all(|&n| n == 1));
            }
            if let Some(member) = set.random(&mut rng) {
                let text = member.to_bytes();
                assert!(set.contains(&text) && set.clone().remove(&text));
            }
        }
    }

    #[test]
    fn integers_by_text_and_by_value_are_the_same() {
        let mut set = LargeSet::new(HashSeed { k0: 3, k1: 4 });
        assert!(set.insert(&b"12"[..]) && !set.insert(12) && set.insert(&b"012"[..]));
        assert!(set.contains_element(Element::Int(12)) && set.contains_element(Element::Str(b"12")));
        assert!(!set.contains_element(Element::Int(13)) && set.remove(b"012") && set.remove(b"12"));
        assert!(set.is_empty());
    }
}
