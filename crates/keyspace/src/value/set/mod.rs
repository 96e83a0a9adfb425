//! The set value: distinct byte strings.
//!
//! A short set of integers is an intset ("intset"), a short set of anything a listpack ("listpack"), all others
//! a table ("hashtable") that keeps integers as integers. Sets grow into the larger forms by themselves and never
//! go back, except where a command rebuilds what little is left (`shrink_to_remainder`). Commands, replies and
//! deletion of empty keys are not here.

mod iter;
#[cfg(test)]
mod tests;

use kara_base::hash::HashSeed;
use kara_base::rng::Rng;
use kara_encoding::intset::Intset;
use kara_encoding::large_set::LargeSet;
use kara_encoding::listpack::{Listpack, canonical_int};
use std::collections::HashSet;

pub use iter::Iter;
pub use kara_encoding::listpack::Element;

/// What decides between the forms, and the seed of the table.
#[derive(Clone, Copy, Debug)]
pub struct SetConfig {
    /// `set-max-intset-entries`
    pub max_intset_entries: usize,
    /// `set-max-listpack-entries`
    pub max_listpack_entries: usize,
    /// `set-max-listpack-value`, in bytes of a member
    pub max_listpack_value: usize,
    pub seed: HashSeed,
}

/// The reference's bound on `set-max-intset-entries`.
const INTSET_ENTRIES_MAX: usize = 1 << 30;

impl SetConfig {
    fn intset_entries(&self) -> usize {
        self.max_intset_entries.min(INTSET_ENTRIES_MAX)
    }
}

/// A set.
pub enum Set {
    Intset(Intset),
    Listpack(Listpack),
    Table(Box<LargeSet>),
}

const _: () = assert!(size_of::<Set>() <= 16);

/// Decimal digits of `value`, the minus included: its length as a listpack's member.
fn decimal_len(value: i64) -> usize {
    itoa_len(value.unsigned_abs()) + usize::from(value < 0)
}

fn itoa_len(value: u64) -> usize {
    value.checked_ilog10().map_or(1, |log| log as usize + 1)
}

impl Set {
    /// An empty set for a command that brings `count` members, of which `first` is the first.
    pub fn for_members(first: Element<'_>, count: usize, config: &SetConfig) -> Set {
        if first.as_int().is_some() && count <= config.intset_entries() {
            Set::Intset(Intset::new())
        } else if count <= config.max_listpack_entries {
            Set::Listpack(Listpack::new())
        } else {
            Set::Table(Box::new(LargeSet::new(config.seed)))
        }
    }

    /// An empty set whose members come one by one (results of set operations).
    pub fn new() -> Set {
        Set::Intset(Intset::new())
    }

    /// An empty set for a result of unknown members that may be anything.
    pub fn new_listpack() -> Set {
        Set::Listpack(Listpack::new())
    }

    /// A result all of whose members turned out to be integers becomes an intset, if that may hold them.
    pub fn compact_integers(&mut self, config: &SetConfig) {
        let fits = self.len() <= config.intset_entries()
            && match self {
                Set::Intset(_) => false,
                Set::Listpack(set) => set.iter().all(|member| member.as_int().is_some()),
                Set::Table(set) => set.all_integers(),
            };
        if fits {
            let mut values: Vec<i64> = self.iter().filter_map(|member| member.as_int()).collect();
            values.sort_unstable();
            let mut intset = Intset::new();
            if values.into_iter().all(|value| intset.add(value).is_ok()) {
                *self = Set::Intset(intset);
            }
        }
    }

    /// Announces that a command brings `count` members: more than the form may hold convert it at once.
    pub fn expect(&mut self, count: usize, config: &SetConfig) {
        let limit = match self {
            Set::Intset(_) => config.intset_entries(),
            Set::Listpack(_) => config.max_listpack_entries,
            Set::Table(_) => return,
        };
        if count > limit {
            self.grow(config.seed);
        }
    }

    /// A set from an intset of a file, in the form that its size asks for.
    pub fn from_intset(intset: Intset, config: &SetConfig) -> Set {
        let large = intset.len() > config.intset_entries();
        let mut set = Set::Intset(intset);
        if large {
            set.grow(config.seed);
        }
        set
    }

    /// A set from a listpack of a file whose elements are known to be distinct.
    pub fn from_listpack(listpack: Listpack, config: &SetConfig) -> Set {
        let fits = listpack.len() <= config.max_listpack_entries
            && listpack.iter().all(|member| member.len() <= config.max_listpack_value);
        let mut set = Set::Listpack(listpack);
        if !fits {
            set.grow(config.seed);
        }
        set
    }

    /// The name that OBJECT ENCODING shows.
    pub fn encoding_name(&self) -> &'static str {
        match self {
            Set::Intset(_) => "intset",
            Set::Listpack(_) => "listpack",
            Set::Table(_) => "hashtable",
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Set::Intset(set) => set.len(),
            Set::Listpack(set) => set.len(),
            Set::Table(set) => set.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn contains(&self, member: &[u8]) -> bool {
        match self {
            Set::Intset(set) => canonical_int(member).is_some_and(|value| set.contains(value)),
            Set::Listpack(set) => find(set, member),
            Set::Table(set) => set.contains(member),
        }
    }

    /// As `contains`, for a member of another set: integers need no text.
    pub fn contains_element(&self, member: Element<'_>) -> bool {
        match self {
            Set::Intset(set) => member.as_int().is_some_and(|value| set.contains(value)),
            Set::Listpack(set) => find(set, member.as_bytes(&mut itoa::Buffer::new())),
            Set::Table(set) => set.contains_element(member),
        }
    }

    /// Adds `member`; true if it was new.
    pub fn add<'a>(&mut self, member: impl Into<Element<'a>>, config: &SetConfig) -> bool {
        let member = member.into();
        match self {
            Set::Table(set) => set.insert(member),
            Set::Intset(set) => match member.as_int() {
                Some(value) => match set.add(value) {
                    Ok(is_new) => {
                        if is_new && set.len() > config.intset_entries() {
                            self.grow(config.seed);
                        }
                        is_new
                    }
                    Err(_) => self.add_to_table(member, config),
                },
                None => {
                    let Element::Str(text) = member else { return false };
                    self.add_text_to_intset(text, config)
                }
            },
            Set::Listpack(set) => {
                let mut buffer = itoa::Buffer::new();
                let text = member.as_bytes(&mut buffer);
                if find(set, text) {
                    return false;
                }
                if set.len() < config.max_listpack_entries
                    && text.len() <= config.max_listpack_value
                    && set.push_back(text).is_ok()
                {
                    return true;
                }
                self.add_to_table(member, config)
            }
        }
    }

    fn add_to_table(&mut self, member: Element<'_>, config: &SetConfig) -> bool {
        self.grow(config.seed).insert(member)
    }

    /// The intset becomes a listpack, if its integers' texts and `text` fit one.
    fn add_text_to_intset(&mut self, text: &[u8], config: &SetConfig) -> bool {
        let Set::Intset(set) = &*self else { return false };
        let longest = [set.min(), set.max()].into_iter().flatten().map(decimal_len).max().unwrap_or(0);
        if set.len() < config.max_listpack_entries && text.len().max(longest) <= config.max_listpack_value {
            let mut listpack = Listpack::new();
            let fits = set.iter().try_for_each(|value| listpack.push_back_int(value)).is_ok()
                && listpack.push_back(text).is_ok();
            if fits {
                *self = Set::Listpack(listpack);
                return true;
            }
        }
        self.add_to_table(Element::Str(text), config)
    }

    fn grow(&mut self, seed: HashSeed) -> &mut LargeSet {
        if !matches!(self, Set::Table(_)) {
            let mut table = Box::new(LargeSet::new(seed));
            for member in self.iter() {
                table.insert(member);
            }
            *self = Set::Table(table);
        }
        match self {
            Set::Table(table) => table,
            _ => unreachable!("made a table above"),
        }
    }

    /// Removes `member`; true if it was there.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        match self {
            Set::Intset(set) => canonical_int(member).is_some_and(|value| set.remove(value)),
            Set::Listpack(set) => {
                let Some(pos) = set.first().and_then(|first| set.find(first, member, 0)) else {
                    return false;
                };
                set.remove(pos, 1);
                true
            }
            Set::Table(set) => set.remove(member),
        }
    }

    /// All members; an intset's ascending, a listpack's in the order they came, a table's in none.
    pub fn iter(&self) -> Iter<'_> {
        Iter::new(self)
    }

    /// A member chosen with equal chances.
    pub fn random(&self, rng: &mut Rng) -> Option<Element<'_>> {
        match self {
            Set::Intset(set) => set.random(rng).map(Element::Int),
            Set::Listpack(set) => set.seek(rng.below(set.len() as u64) as i64).map(|pos| set.get(pos)),
            Set::Table(set) => set.random(rng),
        }
    }

    /// Removes a member chosen with equal chances and gives its text.
    pub fn pop_random(&mut self, rng: &mut Rng) -> Option<Vec<u8>> {
        let text = self.random(rng)?.to_bytes();
        self.remove(&text);
        Some(text)
    }

    /// Shows `count` different members (or all) to `visit`, every choice of them with equal chances.
    pub fn sample(&self, count: usize, rng: &mut Rng, mut visit: impl FnMut(Element<'_>)) {
        let len = self.len();
        // Where most picks would hit a member that was taken before, or a pick costs a walk anyway.
        let walk = count.saturating_mul(3) >= len || matches!(self, Set::Listpack(_));
        if walk {
            let (mut wanted, mut left) = (count.min(len) as u64, len as u64);
            for member in self.iter() {
                if wanted == 0 {
                    return;
                }
                if rng.below(left) < wanted {
                    wanted -= 1;
                    visit(member);
                }
                left -= 1;
            }
            return;
        }
        let mut taken = HashSet::with_capacity(count);
        while taken.len() < count {
            let Some(member) = self.random(rng) else { return };
            // Strings live in entries of their own: their address tells them apart.
            let identity = match member {
                Element::Int(value) => (true, value as u64),
                Element::Str(text) => (false, text.as_ptr() as u64),
            };
            if taken.insert(identity) {
                visit(member);
            }
        }
    }

    /// After a command took most of a table's members away: a listpack, if the rest fits one.
    pub fn shrink_to_remainder(&mut self, config: &SetConfig) {
        let Set::Table(set) = &*self else { return };
        if set.len() > config.max_listpack_entries {
            return;
        }
        let mut listpack = Listpack::new();
        for member in set.iter() {
            if member.len() > config.max_listpack_value {
                return;
            }
            let pushed = match member {
                Element::Int(value) => listpack.push_back_int(value),
                Element::Str(text) => listpack.push_back(text),
            };
            if pushed.is_err() {
                return;
            }
        }
        *self = Set::Listpack(listpack);
    }

    /// Shows members from `cursor` on until about `count` came; returns the next cursor, 0 at the end. Small
    /// forms come whole. A member that stays for a whole scan is shown, and by a table exactly once.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(Element<'_>)) -> u64 {
        match self {
            Set::Table(set) => set.scan(cursor, count, visit),
            _ => {
                self.iter().for_each(&mut visit);
                0
            }
        }
    }

    /// Heap bytes; a table's entries are extrapolated from `samples` of them (0: all).
    pub fn memory_usage(&self, samples: usize) -> usize {
        match self {
            Set::Intset(set) => set.allocated_bytes(),
            Set::Listpack(set) => set.allocated_bytes(),
            Set::Table(set) => set.memory_usage(samples),
        }
    }
}

/// Whether a listpack holds `member`.
fn find(listpack: &Listpack, member: &[u8]) -> bool {
    listpack.first().is_some_and(|first| listpack.find(first, member, 0).is_some())
}

impl Default for Set {
    fn default() -> Self {
        Self::new()
    }
}

impl Clone for Set {
    fn clone(&self) -> Self {
        match self {
            Set::Intset(set) => Set::Intset(set.clone()),
            Set::Listpack(set) => Set::Listpack(set.clone()),
            Set::Table(set) => Set::Table(set.clone()),
        }
    }
}
