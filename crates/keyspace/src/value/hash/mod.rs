//! The hash value: fields with values, each field with an expiry of its own if it likes.
//!
//! A short hash without expiries is a listpack of alternating fields and values ("listpack"), all others a table
//! ("hashtable"), to which a hash goes by itself and from which it never comes back.
//!
//! Look-ups take the time and don't see a field whose time has come; `len` counts it until `expire_due` or a new
//! value takes it away. That is the reference's behaviour. Commands, replies and deletion of empty keys are not
//! here.

mod iter;
#[cfg(test)]
mod tests;

use kara_base::hash::HashSeed;
use kara_base::rng::Rng;
use kara_encoding::field_table::FieldTable;
use kara_encoding::listpack::{Listpack, Pos};
use kara_encoding::packed::{Form, FormMut, Packed};
use std::collections::HashSet;

pub use iter::Iter;
pub use kara_encoding::field_table::SetExpiry;
pub use kara_encoding::listpack::Element;

/// Picks of a random field that may hit expired ones before all fields are looked at.
const RANDOM_TRIES: usize = 50;

/// What decides between the forms, and the seed of the table.
#[derive(Clone, Copy, Debug)]
pub struct HashConfig {
    /// `hash-max-listpack-entries`, in fields
    pub max_listpack_entries: usize,
    /// `hash-max-listpack-value`, in bytes of a field or value
    pub max_listpack_value: usize,
    pub seed: HashSeed,
}

/// A hash, in one word.
#[derive(Clone)]
pub struct Hash(Packed<FieldTable>);

const _: () = assert!(size_of::<Hash>() == 8);

/// A field with what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair<'a> {
    pub field: Element<'a>,
    pub value: Element<'a>,
    /// Unix time in ms after which the field ceases to exist.
    pub expiry_ms: Option<i64>,
}

impl Pair<'_> {
    /// Whether the field's time is over.
    #[inline]
    pub fn is_due(&self, now_ms: i64) -> bool {
        self.expiry_ms.is_some_and(|at| at < now_ms)
    }
}

impl Hash {
    /// A hash of alternating fields and values that are known to be distinct.
    pub fn small(pairs: Listpack) -> Hash {
        Hash(Packed::small(pairs))
    }

    pub fn large(table: Box<FieldTable>) -> Hash {
        Hash(Packed::large(table))
    }

    /// What it is made of, for RDB.
    pub fn form(&self) -> Form<'_, FieldTable> {
        self.0.form()
    }

    /// An empty hash.
    pub fn new() -> Hash {
        Hash::small(Listpack::new())
    }

    /// A hash from a listpack of a file whose fields are known to be distinct and to have values.
    pub fn from_listpack(listpack: Listpack, config: &HashConfig) -> Hash {
        let fits = listpack.len() / 2 <= config.max_listpack_entries
            && listpack.iter().all(|element| element.len() <= config.max_listpack_value);
        let mut hash = Hash::small(listpack);
        if !fits {
            hash.grow(config);
        }
        hash
    }

    /// Announces that a command brings these fields and values: what a listpack may not hold converts it at once.
    pub fn expect<'a>(
        &mut self,
        pairs: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])>,
        config: &HashConfig,
    ) {
        if let FormMut::Small(_) = self.0.form_mut() {
            let longest = config.max_listpack_value;
            if pairs.len() > config.max_listpack_entries || { pairs }
                .any(|(field, value)| field.len() > longest || value.len() > longest)
            {
                self.grow(config);
            }
        }
    }

    /// Whether it is the small form.
    pub fn is_listpack(&self) -> bool {
        self.0.is_small()
    }

    /// The name that OBJECT ENCODING shows.
    pub fn encoding_name(&self) -> &'static str {
        match self.0.form() {
            Form::Small(_) => "listpack",
            Form::Large(_) => "hashtable",
        }
    }

    /// All fields, those whose time has come but which nobody removed yet included.
    pub fn len(&self) -> usize {
        match self.0.form() {
            Form::Small(pairs) => pairs.len() / 2,
            Form::Large(table) => table.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A field that exists at `now_ms`.
    pub fn get(&self, field: &[u8], now_ms: i64) -> Option<Pair<'_>> {
        match self.0.form() {
            Form::Small(pairs) => {
                let at = find(pairs, field)?;
                let value = pairs.next(at).map(|value| pairs.get(value))?;
                Some(Pair { field: pairs.get(at), value, expiry_ms: None })
            }
            Form::Large(table) => table.get(field).filter(|f| !f.is_due(now_ms)).map(|f| Pair {
                field: Element::Str(f.field),
                value: Element::Str(f.value),
                expiry_ms: f.expiry_ms,
            }),
        }
    }

    pub fn contains(&self, field: &[u8], now_ms: i64) -> bool {
        self.get(field, now_ms).is_some()
    }

    /// Sets a field's value; true if the field didn't exist at `now_ms`.
    pub fn set(
        &mut self,
        field: &[u8],
        value: &[u8],
        expiry: SetExpiry,
        now_ms: i64,
        config: &HashConfig,
    ) -> bool {
        if let FormMut::Small(pairs) = self.0.form_mut() {
            let longest = config.max_listpack_value;
            let fits =
                field.len() <= longest && value.len() <= longest && !matches!(expiry, SetExpiry::At(_));
            if fits && let Some(is_new) = set_in_listpack(pairs, field, value) {
                if pairs.len() / 2 > config.max_listpack_entries {
                    self.grow(config);
                }
                return is_new;
            }
        }
        self.grow(config).set(field, value, expiry, now_ms)
    }

    /// Removes a field that exists at `now_ms`; true if there was one.
    pub fn remove(&mut self, field: &[u8], now_ms: i64) -> bool {
        match self.0.form_mut() {
            FormMut::Small(pairs) => match find(pairs, field) {
                Some(at) => {
                    pairs.remove(at, 2);
                    true
                }
                None => false,
            },
            FormMut::Large(table) => {
                table.get(field).is_some_and(|f| !f.is_due(now_ms)) && table.remove(field)
            }
        }
    }

    /// Gives a field that exists at `now_ms` an expiry, or takes it; false if there is no such field. An expiry
    /// makes a listpack a table; taking one that isn't there changes nothing.
    pub fn set_expiry(
        &mut self,
        field: &[u8],
        expiry_ms: Option<i64>,
        now_ms: i64,
        config: &HashConfig,
    ) -> bool {
        let Some(pair) = self.get(field, now_ms) else { return false };
        if pair.expiry_ms != expiry_ms {
            self.grow(config).set_expiry(field, expiry_ms);
        }
        true
    }

    /// Fields that have an expiry.
    pub fn expiring(&self) -> usize {
        match self.0.form() {
            Form::Small(_) => 0,
            Form::Large(table) => table.expiring(),
        }
    }

    /// No field expires before this Unix time in ms; `None` if no field has an expiry. Cheap, and at worst early.
    pub fn earliest_expiry_ms(&self) -> Option<i64> {
        match self.0.form() {
            Form::Small(_) => None,
            Form::Large(table) => table.earliest_expiry_ms(),
        }
    }

    /// Removes at most `limit` fields whose time has come and shows their names. Returns how many; fewer than
    /// `limit` means that none is left.
    pub fn expire_due(&mut self, now_ms: i64, limit: usize, mut visit: impl FnMut(&[u8])) -> usize {
        match self.0.form_mut() {
            FormMut::Small(_) => 0,
            FormMut::Large(table) => table.expire_due(now_ms, limit, |f| visit(f.field)),
        }
    }

    /// Whether some field may be due: without it, every field that `len` counts exists.
    fn may_have_due(&self, now_ms: i64) -> bool {
        self.earliest_expiry_ms().is_some_and(|at| at < now_ms)
    }

    /// All fields, whether or not their time has come (see [`Pair::is_due`]); a listpack's in the order they
    /// came, a table's in none.
    pub fn iter(&self) -> Iter<'_> {
        Iter::new(self)
    }

    /// A field that exists at `now_ms`, chosen with equal chances.
    pub fn random(&self, now_ms: i64, rng: &mut Rng) -> Option<Pair<'_>> {
        match self.0.form() {
            Form::Small(pairs) => {
                let at = pairs.seek(2 * rng.below(self.len() as u64) as i64)?;
                let value = pairs.next(at).map(|value| pairs.get(value))?;
                Some(Pair { field: pairs.get(at), value, expiry_ms: None })
            }
            Form::Large(table) => {
                for _ in 0..RANDOM_TRIES {
                    let pick = table.random(rng).map(Pair::from)?;
                    if !pick.is_due(now_ms) {
                        return Some(pick);
                    }
                }
                let living: Vec<Pair<'_>> = self.living(now_ms);
                living.get(rng.below(living.len() as u64) as usize).copied()
            }
        }
    }

    fn living(&self, now_ms: i64) -> Vec<Pair<'_>> {
        self.iter().filter(|pair| !pair.is_due(now_ms)).collect()
    }

    /// Shows `count` different fields that exist at `now_ms` (or all), every choice of them with equal chances.
    pub fn sample(&self, count: usize, now_ms: i64, rng: &mut Rng, mut visit: impl FnMut(Pair<'_>)) {
        if self.may_have_due(now_ms) {
            let living = self.living(now_ms);
            let len = living.len();
            return walk_sample(living.into_iter(), len, count, rng, visit);
        }
        let Form::Large(table) = self.0.form() else {
            return walk_sample(self.iter(), self.len(), count, rng, visit);
        };
        // Where most picks would hit a field that was taken before.
        if count.saturating_mul(3) >= table.len() {
            return walk_sample(self.iter(), self.len(), count, rng, visit);
        }
        let mut taken = HashSet::with_capacity(count);
        while taken.len() < count {
            let Some(pick) = table.random(rng) else { return };
            // Each entry is an allocation of its own: the address tells fields apart.
            if taken.insert(pick.field.as_ptr()) {
                visit(pick.into());
            }
        }
    }

    /// Shows fields that exist at `now_ms` from `cursor` on until about `count` came; returns the next cursor, 0
    /// at the end. Listpacks come whole. A field that stays for a whole scan is shown, by a table exactly once.
    pub fn scan(&self, cursor: u64, count: usize, now_ms: i64, mut visit: impl FnMut(Pair<'_>)) -> u64 {
        match self.0.form() {
            Form::Small(_) => {
                self.iter().for_each(visit);
                0
            }
            Form::Large(table) => table.scan(cursor, count, |f| {
                if !f.is_due(now_ms) {
                    visit(f.into());
                }
            }),
        }
    }

    /// A copy of the fields that exist at `now_ms`, in the same form.
    pub fn clone_living(&self, now_ms: i64, config: &HashConfig) -> Hash {
        match self.0.form() {
            Form::Small(pairs) => Hash::small(pairs.clone()),
            Form::Large(table) if !self.may_have_due(now_ms) => Hash::large(Box::new(table.clone())),
            Form::Large(_) => {
                let mut copy = Box::new(FieldTable::new(config.seed));
                for pair in self.living(now_ms) {
                    let expiry = pair.expiry_ms.map_or(SetExpiry::Clear, SetExpiry::At);
                    if let (Element::Str(field), Element::Str(value)) = (pair.field, pair.value) {
                        copy.set(field, value, expiry, now_ms);
                    }
                }
                Hash::large(copy)
            }
        }
    }

    /// Heap bytes; a table's entries are extrapolated from `samples` of them (0: all).
    pub fn memory_usage(&self, samples: usize) -> usize {
        match self.0.form() {
            Form::Small(pairs) => pairs.allocated_bytes(),
            Form::Large(table) => table.memory_usage(samples),
        }
    }

    fn grow(&mut self, config: &HashConfig) -> &mut FieldTable {
        if let FormMut::Small(pairs) = self.0.form_mut() {
            let mut table = Box::new(FieldTable::with_capacity(config.seed, pairs.len() / 2));
            let (mut left, mut right) = (itoa::Buffer::new(), itoa::Buffer::new());
            for pair in self.iter() {
                let (field, value) = (pair.field.as_bytes(&mut left), pair.value.as_bytes(&mut right));
                table.set(field, value, SetExpiry::Clear, 0);
            }
            *self = Hash::large(table);
        }
        match self.0.form_mut() {
            FormMut::Large(table) => table,
            FormMut::Small(_) => unreachable!("made a table above"),
        }
    }
}

/// The position of a field.
fn find(pairs: &Listpack, field: &[u8]) -> Option<Pos> {
    pairs.find(pairs.first()?, field, 1)
}

/// Whether the field is new; `None` if the listpack would grow beyond its format.
fn set_in_listpack(pairs: &mut Listpack, field: &[u8], value: &[u8]) -> Option<bool> {
    if let Some(value_at) = find(pairs, field).and_then(|at| pairs.next(at)) {
        return pairs.replace(value_at, value).ok().map(|_| false);
    }
    let more = Listpack::entry_bytes(field.into()) + Listpack::entry_bytes(value.into());
    if !pairs.would_fit(more) {
        return None;
    }
    pairs.push_back(field).ok()?;
    pairs.push_back(value).ok()?;
    Some(true)
}

/// Selection sampling: `count` of `len` items in one walk.
fn walk_sample<'a>(
    items: impl Iterator<Item = Pair<'a>>,
    len: usize,
    count: usize,
    rng: &mut Rng,
    mut visit: impl FnMut(Pair<'_>),
) {
    let (mut wanted, mut left) = (count.min(len) as u64, len as u64);
    for item in items {
        if wanted == 0 {
            return;
        }
        if rng.below(left) < wanted {
            wanted -= 1;
            visit(item);
        }
        left -= 1;
    }
}

impl Default for Hash {
    fn default() -> Self {
        Self::new()
    }
}
