//! Large values piece by piece, so that nobody waits for the whole.
//!
//! Boundary: the value must not change between two steps; the snapshot's guard sees to that.

use super::encode::Encoder;
use super::stream;
use kara_encoding::packed::Form;
use kara_keyspace::value::hash::Hash;
use kara_keyspace::value::list::List;
use kara_keyspace::value::set::Set;
use kara_keyspace::value::stream::Stream;
use kara_keyspace::value::zset::ZSet;
use kara_keyspace::{Entry, StrRef};

/// Elements of one step: each may be a cache miss, so some 50 us.
const ELEMENTS: usize = 256;
/// Nodes of lists and blocks of streams: 8 KB or less each, but compressed on the way.
const NODES: usize = 4;
/// Bytes of a string.
const BYTES: usize = 128 << 10;
/// A value of more steps than this is large.
const STEPS: usize = 8;

/// How far a large value has been told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steps {
    begun: bool,
    /// A cursor or a number of nodes, members or bytes, by the type.
    at: u64,
}

/// Whether the value is told in steps.
#[inline]
pub fn is_large(entry: &Entry) -> bool {
    match entry.string() {
        Some(StrRef::Bytes(bytes)) => bytes.len() > STEPS * BYTES,
        Some(StrRef::Int(_)) => false,
        None => is_large_collection(entry),
    }
}

fn is_large_collection(entry: &Entry) -> bool {
    if let Some(list) = entry.get::<List>() {
        list.nodes() > STEPS * NODES
    } else if let Some(set) = entry.get::<Set>() {
        matches!(set, Set::Table(_)) && set.len() > STEPS * ELEMENTS
    } else if let Some(set) = entry.get::<ZSet>() {
        matches!(set.form(), Form::Large(_)) && set.len() > STEPS * ELEMENTS
    } else if let Some(hash) = entry.get::<Hash>() {
        matches!(hash.form(), Form::Large(_)) && hash.len() > STEPS * ELEMENTS
    } else if let Some(stream) = entry.get::<Stream>() {
        stream.log().blocks().len() > STEPS * NODES
    } else {
        false
    }
}

impl Encoder {
    /// Tells the next piece of a large value's body; true if it was the last. What all steps append is what `body`
    /// does, but for strings, which are told as they are instead of compressed.
    pub fn step(&mut self, entry: &Entry, steps: &mut Steps) -> bool {
        let is_first = !std::mem::replace(&mut steps.begun, true);
        let at = usize::try_from(steps.at).unwrap_or(usize::MAX);
        let head = |to: &mut Encoder, count: usize| {
            if is_first {
                to.length(count as u64);
            }
        };
        let (next, count) = if let Some(StrRef::Bytes(bytes)) = entry.string() {
            head(self, bytes.len());
            let end = bytes.len().min(at.saturating_add(BYTES));
            self.raw(bytes.get(at..end).unwrap_or_default());
            (end, bytes.len())
        } else if let Some(list) = entry.get::<List>() {
            head(self, list.nodes());
            list.visit_nodes(at, NODES, |node| self.node(node));
            (at + NODES, list.nodes())
        } else if let Some(set) = entry.get::<Set>() {
            head(self, set.len());
            steps.at = set.scan(steps.at, ELEMENTS, |member| self.element(member));
            return steps.at == 0;
        } else if let Some(Form::Large(tree)) = entry.get::<ZSet>().map(ZSet::form) {
            head(self, tree.len());
            self.members(tree, at, ELEMENTS);
            (at + ELEMENTS, tree.len())
        } else if let Some(hash) = entry.get::<Hash>() {
            head(self, hash.len());
            let with_expiry = hash.expiring() > 0;
            // No field's time is that early: all are shown.
            steps.at = hash.scan(steps.at, ELEMENTS, i64::MIN, |pair| self.pair(pair, with_expiry));
            return steps.at == 0;
        } else if let Some(stream) = entry.get::<Stream>() {
            head(self, stream.log().blocks().len());
            stream::blocks(self, stream, at, NODES);
            let (next, count) = (at + NODES, stream.log().blocks().len());
            if next >= count {
                stream::tail(self, stream);
            }
            (next, count)
        } else {
            self.body(entry);
            return true;
        };
        steps.at = next as u64;
        next >= count
    }
}
