//! Small sorted sets: a listpack of members and scores in turn, ascending by (score, member), as RDB files carry it.
//!
//! Everything is a walk from the front; the thresholds keep such sets short. Scores that are whole numbers are stored
//! as integers, others as text.

use kara_base::number::{format_f64, parse_f64};
use kara_encoding::btree::{Bound, score_key};
use kara_encoding::listpack::{Element, Listpack, Pos, TooLarge};

/// Whole scores up to here are integers in a listpack; the reference draws the line at half of i64's range.
const INTEGER_SCORE: f64 = 4_611_686_018_427_387_904.0;

/// The score that an element holds. What isn't a number counts as 0; `check` lets none in.
pub(super) fn score_of(element: Element<'_>) -> f64 {
    match element {
        Element::Int(value) => value as f64,
        Element::Str(text) => parse_f64(text).unwrap_or(0.0),
    }
}

/// Gives a score to `f` as the element that stands for it.
fn with_score<R>(score: f64, f: impl FnOnce(Element<'_>) -> R) -> R {
    // 0 stands for -0 as well: the reference forgets the sign here.
    if score.abs() <= INTEGER_SCORE && score.fract() == 0.0 {
        return f(Element::Int(score as i64));
    }
    f(Element::Str(format_f64(score).as_bytes()))
}

/// Member and score, in order.
pub(super) fn items(list: &Listpack) -> impl Iterator<Item = (Element<'_>, f64)> {
    let mut elements = list.iter();
    std::iter::from_fn(move || {
        let member = elements.next()?;
        Some((member, score_of(elements.next()?)))
    })
}

/// Where the member stands, and its score.
pub(super) fn find(list: &Listpack, member: &[u8]) -> Option<(Pos, f64)> {
    let pos = list.find(list.first()?, member, 1)?;
    Some((pos, score_of(list.get(list.next(pos)?))))
}

/// How many items stand before `bound`.
pub(super) fn rank_of(list: &Listpack, bound: &Bound) -> usize {
    let mut buffer = itoa::Buffer::new();
    items(list).take_while(|(member, score)| bound.is_after(*score, member.as_bytes(&mut buffer))).count()
}

/// Adds an item that isn't there yet. On an error nothing has changed.
pub(super) fn insert(list: &mut Listpack, member: &[u8], score: f64) -> Result<(), TooLarge> {
    let bound = Bound::before_entry(score, member);
    let mut buffer = itoa::Buffer::new();
    let mut at = list.first();
    while let Some(pos) = at {
        let Some(score_pos) = list.next(pos) else { break };
        if !bound.is_after(score_of(list.get(score_pos)), list.get(pos).as_bytes(&mut buffer)) {
            break;
        }
        at = list.next(score_pos);
    }
    with_score(score, |score| {
        let pair = [Element::Str(member), score];
        match at {
            Some(pos) => list.insert_all_before(pos, pair),
            None => list.extend_back(pair),
        }
    })
}

/// Appends items that come in ascending order.
pub(super) fn from_sorted<'a>(
    items: impl IntoIterator<Item = (f64, &'a [u8])>,
) -> Result<Listpack, TooLarge> {
    let mut list = Listpack::new();
    for (score, member) in items {
        with_score(score, |score| list.extend_back([Element::Str(member), score]))?;
    }
    Ok(list)
}

/// Bytes that the item would add.
pub(super) fn item_bytes(member: &[u8], score: f64) -> usize {
    Listpack::entry_bytes(Element::Str(member)) + with_score(score, Listpack::entry_bytes)
}

/// Whether a listpack from outside holds pairs in ascending order with scores that are numbers.
pub(super) fn check(list: &Listpack) -> bool {
    let mut elements = list.iter();
    let mut last: Option<(u64, Vec<u8>)> = None;
    while let Some(member) = elements.next() {
        let score = match elements.next() {
            Some(Element::Int(value)) => value as f64,
            Some(Element::Str(text)) => match parse_f64(text) {
                Some(score) if !score.is_nan() => score,
                _ => return false,
            },
            None => return false,
        };
        let item = (score_key(score), member.to_bytes());
        if last.is_some_and(|last| last >= item) {
            return false;
        }
        last = Some(item);
    }
    true
}
