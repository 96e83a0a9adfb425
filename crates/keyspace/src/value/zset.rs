//! The sorted-set value: members with scores, in the order of (score, member bytes).
//!
//! A short set is a listpack ("listpack"), anything larger an order-statistic tree with an index by member (called
//! "skiplist", the name that clients know). Sets grow into the large form by themselves and stay there; only
//! `compact`, for results that a command has just built, goes back. Scores are never NaN. Commands, replies and
//! deletion of empty keys are not here.

mod pairs;
#[cfg(test)]
mod tests;

use kara_base::hash::HashSeed;
use kara_base::rng::Rng;
use kara_encoding::btree::{self, Bound, score_key};
use kara_encoding::listpack::{self, Element, Listpack};
use kara_encoding::packed::{Form, FormMut, Packed};
use kara_encoding::sorted_set::SortedSet;
use std::ops::Range;

/// What decides between the two forms, and the seed of the large form's index.
#[derive(Clone, Copy, Debug)]
pub struct ZSetConfig {
    /// `zset-max-listpack-entries`
    pub max_listpack_entries: usize,
    /// `zset-max-listpack-value`, in bytes of a member
    pub max_listpack_value: usize,
    pub seed: HashSeed,
}

/// A sorted set, in one word.
#[derive(Clone)]
pub struct ZSet(Packed<SortedSet>);

/// Conditions and mode of ZADD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddFlags {
    /// Only add new members.
    pub nx: bool,
    /// Only change members that are there.
    pub xx: bool,
    /// Only raise scores.
    pub gt: bool,
    /// Only lower scores.
    pub lt: bool,
    /// The score is added to the member's.
    pub incr: bool,
}

/// What `add` did; with the member's score after it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Added {
    New(f64),
    Changed(f64),
    Same(f64),
    /// A condition of the flags was not met.
    Refused,
}

/// inf - inf: the resulting score is not a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NanScore;

/// A listpack from outside isn't a sorted set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAZSet;

/// An interval of scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreRange {
    pub min: f64,
    pub max: f64,
    pub min_exclusive: bool,
    pub max_exclusive: bool,
}

/// One end of an interval of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LexBound<'a> {
    Lowest,
    Highest,
    Inclusive(&'a [u8]),
    Exclusive(&'a [u8]),
}

/// An interval of members, for sets whose scores are all equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LexRange<'a> {
    pub min: LexBound<'a>,
    pub max: LexBound<'a>,
}

const _: () = assert!(size_of::<ZSet>() == 8);

impl ZSet {
    /// A set from alternating members and scores, ascending.
    pub fn small(list: Listpack) -> ZSet {
        ZSet(Packed::small(list))
    }

    pub fn large(set: Box<SortedSet>) -> ZSet {
        ZSet(Packed::large(set))
    }

    /// What it is made of, for RDB.
    pub fn form(&self) -> Form<'_, SortedSet> {
        self.0.form()
    }

    /// An empty set in the form that fits `count` members of up to `max_member_len` bytes.
    pub fn with_hints(count: usize, max_member_len: usize, config: &ZSetConfig) -> ZSet {
        if count <= config.max_listpack_entries && max_member_len <= config.max_listpack_value {
            ZSet::small(Listpack::new())
        } else {
            ZSet::large(Box::new(SortedSet::new(config.seed)))
        }
    }

    /// Announces that a command brings `count` members of up to `max_member_len` bytes. More than a listpack may hold
    /// convert it at once, even if conditions then keep them out.
    pub fn expect(&mut self, count: usize, max_member_len: usize, config: &ZSetConfig) {
        if count > config.max_listpack_entries || max_member_len > config.max_listpack_value {
            self.grow(config);
        }
    }

    /// A set of distinct members in any order, in the smallest form that the thresholds allow.
    pub fn from_items<M: AsRef<[u8]>>(mut items: Vec<(f64, M)>, config: &ZSetConfig) -> ZSet {
        items.sort_unstable_by(|a, b| {
            score_key(a.0).cmp(&score_key(b.0)).then_with(|| a.1.as_ref().cmp(b.1.as_ref()))
        });
        ZSet::from_sorted(&items, config)
    }

    /// As `from_items`, for items that come in ascending order of (score, member).
    pub fn from_sorted<M: AsRef<[u8]>>(items: &[(f64, M)], config: &ZSetConfig) -> ZSet {
        let sorted = || items.iter().map(|(score, member)| (*score, member.as_ref()));
        let small = items.len() <= config.max_listpack_entries
            && items.iter().all(|(_, member)| member.as_ref().len() <= config.max_listpack_value);
        if small && let Ok(list) = pairs::from_sorted(sorted()) {
            return ZSet::small(list);
        }
        ZSet::large(Box::new(SortedSet::from_sorted(config.seed, sorted())))
    }

    /// Takes in a listpack that came from a file or a peer: pairs, ascending, scores that are numbers. Larger ones
    /// than the thresholds allow become trees, as when the reference loads them.
    pub fn from_listpack(list: Listpack, config: &ZSetConfig) -> Result<ZSet, NotAZSet> {
        if !pairs::check(&list) {
            return Err(NotAZSet);
        }
        let mut members = std::collections::BTreeSet::new();
        if !pairs::items(&list).all(|(member, _)| members.insert(member.to_bytes())) {
            return Err(NotAZSet);
        }
        let too_long = members.len() > config.max_listpack_entries;
        let mut set = ZSet::small(list);
        if too_long {
            set.grow(config);
        }
        Ok(set)
    }

    /// Number of members.
    #[inline]
    pub fn len(&self) -> usize {
        match self.0.form() {
            Form::Small(list) => list.len() / 2,
            Form::Large(set) => set.len(),
        }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        match self.0.form() {
            Form::Small(list) => list.is_empty(),
            Form::Large(set) => set.is_empty(),
        }
    }

    /// OBJECT ENCODING's name.
    pub fn encoding_name(&self) -> &'static str {
        match self.0.form() {
            Form::Small(_) => "listpack",
            Form::Large(_) => "skiplist",
        }
    }

    /// The blob of the small form, for RDB.
    pub fn as_listpack(&self) -> Option<&Listpack> {
        match self.0.form() {
            Form::Small(list) => Some(list),
            Form::Large(_) => None,
        }
    }

    /// Bytes of the value beyond the enum itself; large sets are extrapolated from `samples` members (0: all).
    pub fn memory_usage(&self, samples: usize) -> usize {
        match self.0.form() {
            Form::Small(list) => list.allocated_bytes(),
            Form::Large(set) => set.memory_usage(samples),
        }
    }

    /// The member's score.
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        match self.0.form() {
            Form::Small(list) => pairs::find(list, member).map(|(_, score)| score),
            Form::Large(set) => set.score(member),
        }
    }

    /// Adds a member or changes its score, under ZADD's conditions.
    pub fn add(
        &mut self,
        member: &[u8],
        score: f64,
        flags: AddFlags,
        config: &ZSetConfig,
    ) -> Result<Added, NanScore> {
        if score.is_nan() {
            return Err(NanScore);
        }
        let mut nan = false;
        let mut decide = |old: Option<f64>| {
            let Some(old) = old else { return (!flags.xx).then_some(score) };
            if flags.nx {
                return None;
            }
            let new = if flags.incr { old + score } else { score };
            nan = new.is_nan();
            let refused = nan || flags.lt && new >= old || flags.gt && new <= old;
            // 0 and -0 are the same score: whichever was there first stays.
            (!refused).then_some(if new == old { old } else { new })
        };
        let (old, new) = match self.0.form_mut() {
            FormMut::Large(set) => {
                let done = set.upsert(member, decide);
                (done.old, done.new)
            }
            FormMut::Small(list) => {
                let found = pairs::find(list, member);
                let old = found.map(|(_, score)| score);
                let new = decide(old);
                match (found, new) {
                    (Some((pos, old)), Some(new)) if new != old => {
                        list.remove(pos, 2);
                        self.put(member, new, config);
                    }
                    (None, Some(new)) => {
                        if list.len() / 2 + 1 > config.max_listpack_entries
                            || member.len() > config.max_listpack_value
                        {
                            self.grow(config);
                        }
                        self.put(member, new, config);
                    }
                    _ => {}
                }
                (old, new)
            }
        };
        if nan {
            return Err(NanScore);
        }
        Ok(match (old, new) {
            (_, None) => Added::Refused,
            (None, Some(new)) => Added::New(new),
            (Some(old), Some(new)) if old == new => Added::Same(new),
            (Some(_), Some(new)) => Added::Changed(new),
        })
    }

    /// Adds a member that isn't there, in the present form if it can take it.
    fn put(&mut self, member: &[u8], score: f64, config: &ZSetConfig) {
        if let FormMut::Small(list) = self.0.form_mut() {
            if list.would_fit(pairs::item_bytes(member, score)) && pairs::insert(list, member, score).is_ok()
            {
                return;
            }
            self.grow(config);
        }
        if let FormMut::Large(set) = self.0.form_mut() {
            set.set(member, score);
        }
    }

    /// Becomes a tree.
    pub fn grow(&mut self, config: &ZSetConfig) {
        let FormMut::Small(list) = self.0.form_mut() else { return };
        let members: Vec<(f64, Vec<u8>)> =
            pairs::items(list).map(|(member, score)| (score, member.to_bytes())).collect();
        let sorted = members.iter().map(|(score, member)| (*score, member.as_slice()));
        *self = ZSet::large(Box::new(SortedSet::from_sorted(config.seed, sorted)));
    }

    /// Becomes a listpack if the thresholds allow: for results that a command has just built.
    pub fn compact(&mut self, config: &ZSetConfig) {
        let FormMut::Large(set) = self.0.form_mut() else { return };
        if set.len() > config.max_listpack_entries
            || set.range(0, set.len(), false).any(|(member, _)| member.len() > config.max_listpack_value)
        {
            return;
        }
        if let Ok(list) =
            pairs::from_sorted(set.range(0, set.len(), false).map(|(member, score)| (score, member)))
        {
            *self = ZSet::small(list);
        }
    }

    /// Removes a member; its score.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        match self.0.form_mut() {
            FormMut::Small(list) => {
                let (pos, score) = pairs::find(list, member)?;
                list.remove(pos, 2);
                Some(score)
            }
            FormMut::Large(set) => set.remove(member),
        }
    }

    /// The member's place, from the lowest or (`reverse`) from the highest, and its score.
    pub fn rank(&self, member: &[u8], reverse: bool) -> Option<(usize, f64)> {
        let (rank, score) = match self.0.form() {
            Form::Small(list) => pairs::items(list)
                .enumerate()
                .find(|(_, (found, _))| found.eq_bytes(member))
                .map(|(rank, (_, score))| (rank, score))?,
            Form::Large(set) => set.rank(member)?,
        };
        Some((if reverse { self.len() - 1 - rank } else { rank }, score))
    }

    /// Member and score of a rank, counted from the lowest.
    pub fn get(&self, rank: usize) -> Option<(Element<'_>, f64)> {
        match self.0.form() {
            Form::Small(list) => {
                let pos = list.seek(i64::try_from(rank).ok()?.checked_mul(2)?)?;
                Some((list.get(pos), pairs::score_of(list.get(list.next(pos)?))))
            }
            Form::Large(set) => set.get(rank).map(|(member, score)| (Element::Str(member), score)),
        }
    }

    /// A random item.
    pub fn random(&self, rng: &mut Rng) -> Option<(Element<'_>, f64)> {
        self.get(rng.below(self.len() as u64) as usize)
    }

    /// How many items stand before `bound`.
    pub fn rank_of(&self, bound: &Bound) -> usize {
        match self.0.form() {
            Form::Small(list) => pairs::rank_of(list, bound),
            Form::Large(set) => set.rank_of(bound),
        }
    }

    /// The ranks of the items whose scores lie in the interval.
    pub fn ranks_by_score(&self, range: &ScoreRange) -> Range<usize> {
        let low =
            if range.min_exclusive { Bound::after_score(range.min) } else { Bound::before_score(range.min) };
        let high =
            if range.max_exclusive { Bound::before_score(range.max) } else { Bound::after_score(range.max) };
        let start = self.rank_of(&low);
        start..self.rank_of(&high).max(start)
    }

    /// The ranks of the items whose members lie in the interval, in a set whose scores are all equal.
    pub fn ranks_by_lex(&self, range: &LexRange<'_>) -> Range<usize> {
        let rank = |bound: &LexBound<'_>, end: bool| match *bound {
            LexBound::Lowest => 0,
            LexBound::Highest => self.len(),
            LexBound::Inclusive(member) if end => self.rank_of(&Bound::after_member(member)),
            LexBound::Exclusive(member) if !end => self.rank_of(&Bound::after_member(member)),
            LexBound::Inclusive(member) | LexBound::Exclusive(member) => {
                self.rank_of(&Bound::before_member(member))
            }
        };
        let start = rank(&range.min, false);
        start..rank(&range.max, true).max(start)
    }

    /// The items of a range of ranks, cut at the end; highest first if `reverse`.
    pub fn range(&self, ranks: Range<usize>, reverse: bool) -> Iter<'_> {
        let end = ranks.end.min(self.len());
        let left = end.saturating_sub(ranks.start);
        Iter(match self.0.form() {
            Form::Large(set) => Items::Tree(set.range(ranks.start, left, reverse)),
            Form::Small(list) => {
                let at = |index: usize| list.seek(i64::try_from(index).ok()?);
                let elements = if left == 0 {
                    None
                } else if reverse {
                    at(end * 2 - 1).map(|pos| list.iter_to(pos))
                } else {
                    at(ranks.start * 2).map(|pos| list.iter_from(pos))
                };
                Items::Listpack { elements, left, reverse }
            }
        })
    }

    /// All items, ascending.
    pub fn iter(&self) -> Iter<'_> {
        self.range(0..usize::MAX, false)
    }

    /// Removes the items of a range of ranks, cut at the end; `gone` sees each, in ascending order. Gives their number.
    pub fn remove_ranks(&mut self, ranks: Range<usize>, mut gone: impl FnMut(&[u8], f64)) -> usize {
        let n = ranks.end.min(self.len()).saturating_sub(ranks.start);
        match self.0.form_mut() {
            FormMut::Large(set) => set.remove_range(ranks.start, n, gone),
            FormMut::Small(list) => {
                let mut buffer = itoa::Buffer::new();
                for (member, score) in pairs::items(list).skip(ranks.start).take(n) {
                    gone(member.as_bytes(&mut buffer), score);
                }
                if let Some(pos) =
                    i64::try_from(ranks.start).ok().and_then(|start| list.seek(start.checked_mul(2)?))
                {
                    list.remove(pos, n * 2);
                }
            }
        }
        n
    }

    /// Visits items from `cursor` on (0 to begin), about `count`; the next cursor, 0 at the end. A small set comes whole.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&[u8], f64)) -> u64 {
        match self.0.form() {
            Form::Large(set) => set.scan(cursor, count, visit),
            Form::Small(list) => {
                let mut buffer = itoa::Buffer::new();
                pairs::items(list).for_each(|(member, score)| visit(member.as_bytes(&mut buffer), score));
                0
            }
        }
    }
}

/// Members and scores of a range.
#[derive(Clone)]
pub struct Iter<'a>(Items<'a>);

#[derive(Clone)]
enum Items<'a> {
    Listpack { elements: Option<listpack::Iter<'a>>, left: usize, reverse: bool },
    Tree(btree::Iter<'a>),
}

impl<'a> Iterator for Iter<'a> {
    type Item = (Element<'a>, f64);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Items::Tree(iter) => iter.next().map(|(member, score)| (Element::Str(member), score)),
            Items::Listpack { elements, left, reverse } => {
                *left = left.checked_sub(1)?;
                let elements = elements.as_mut()?;
                if *reverse {
                    let score = pairs::score_of(elements.next_back()?);
                    Some((elements.next_back()?, score))
                } else {
                    Some((elements.next()?, pairs::score_of(elements.next()?)))
                }
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match &self.0 {
            Items::Tree(iter) => iter.len(),
            Items::Listpack { left, .. } => *left,
        };
        (left, Some(left))
    }
}

impl ExactSizeIterator for Iter<'_> {}
