//! The list value.
//!
//! A short list is a listpack ("listpack"), a longer one a sequence of nodes ("quicklist"). Which of them follows the
//! reference: a list grows out of its listpack when what is about to be added would exceed the limits, and shrinks back
//! when removals leave it with one node at half of them. Deletion of empty keys, replies and blocking are not here.

#[cfg(test)]
mod tests;

use kara_encoding::listpack::{self, Element, Listpack};
use kara_encoding::quicklist::{Cursor, Fill, Quicklist};
pub use kara_encoding::quicklist::{End, Needle, NodeBytes, Stats};

/// The settings that decide a list's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListLimits {
    /// `list-max-listpack-size`: -1 to -5 for 4 to 64 KiB per node, positive for elements per node.
    pub max_listpack_size: i32,
    /// `list-compress-depth`: nodes from each end that stay uncompressed, 0 for all. Fixed when a list becomes a quicklist.
    pub compress_depth: u32,
    /// DEBUG QUICKLIST-PACKED-THRESHOLD: bytes from which an element gets a node of its own; 0: by `max_listpack_size`.
    pub packed_threshold: u32,
}

impl Default for ListLimits {
    fn default() -> Self {
        ListLimits { max_listpack_size: -2, compress_depth: 0, packed_threshold: 0 }
    }
}

impl ListLimits {
    fn fill(&self) -> Fill {
        Fill::new(self.max_listpack_size)
    }
}

/// A list of byte strings.
#[derive(Clone)]
pub enum List {
    Packed(Listpack),
    Quick(Box<Quicklist>),
}

const _: () = assert!(size_of::<List>() <= 16);

impl Default for List {
    fn default() -> Self {
        Self::new()
    }
}

impl List {
    /// An empty list.
    pub fn new() -> Self {
        List::Packed(Listpack::new())
    }

    /// An empty list for many elements to come, which `settle` then brings into its right form.
    pub fn for_many(limits: &ListLimits) -> Self {
        List::Quick(Box::new(new_quicklist(limits)))
    }

    /// Number of elements.
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            List::Packed(list) => list.len(),
            List::Quick(list) => list.len(),
        }
    }

    /// Whether there is no element.
    #[inline]
    pub fn is_empty(&self) -> bool {
        match self {
            List::Packed(list) => list.is_empty(),
            List::Quick(list) => list.is_empty(),
        }
    }

    /// What OBJECT ENCODING says.
    pub fn encoding_name(&self) -> &'static str {
        match self {
            List::Packed(_) => "listpack",
            List::Quick(_) => "quicklist",
        }
    }

    /// The place that `index` means: negative ones count from the end.
    pub fn place(&self, index: i64) -> Option<usize> {
        let len = self.len();
        let place = if index < 0 {
            len.checked_sub(usize::try_from(index.unsigned_abs()).ok()?)?
        } else {
            usize::try_from(index).ok()?
        };
        (place < len).then_some(place)
    }

    // ---- adding ----

    /// Adds elements at one end, one after the other: at the front, the last one comes to stand first.
    pub fn push_all<'a, I>(&mut self, end: End, texts: I, limits: &ListLimits)
    where
        I: DoubleEndedIterator<Item = &'a [u8]> + Clone,
    {
        self.grow_for(texts.clone().map(<[u8]>::len), limits);
        if let List::Packed(list) = self {
            let elements = texts.clone().map(Element::Str);
            let added = match end {
                End::Front => list.extend_front(elements.rev()),
                End::Back => list.extend_back(elements),
            };
            if added.is_ok() {
                return;
            }
        }
        let list = self.make_quick(limits);
        for text in texts {
            list.push(end, text);
        }
    }

    /// Adds an element at one end.
    pub fn push(&mut self, end: End, text: &[u8], limits: &ListLimits) {
        self.grow_for([text.len()], limits);
        if let List::Packed(list) = self {
            let added = match end {
                End::Front => list.push_front(text),
                End::Back => list.push_back(text),
            };
            if added.is_ok() {
                return;
            }
        }
        self.make_quick(limits).push(end, text);
    }

    /// `push` at the front.
    pub fn push_front(&mut self, text: &[u8], limits: &ListLimits) {
        self.push(End::Front, text, limits);
    }

    /// `push` at the back.
    pub fn push_back(&mut self, text: &[u8], limits: &ListLimits) {
        self.push(End::Back, text, limits);
    }

    /// Inserts `text` next to the first element that equals `pivot`, behind it if `after`; gives whether there is one.
    pub fn insert(&mut self, pivot: &[u8], text: &[u8], after: bool, limits: &ListLimits) -> bool {
        // Without a pivot the list still changes its form, as in the reference.
        self.grow_for([text.len()], limits);
        if let List::Packed(list) = self {
            let Some(pos) = list.first().and_then(|first| list.find(first, pivot, 0)) else { return false };
            let added = if after { list.insert_after(pos, text) } else { list.insert_before(pos, text) };
            if added.is_ok() {
                return true;
            }
        }
        let Some(index) = self.position(pivot, 0, End::Back) else { return false };
        self.make_quick(limits).insert(index, text, after)
    }

    /// Puts `text` in the place of the element at `index`; whether there is one.
    pub fn set(&mut self, index: usize, text: &[u8], limits: &ListLimits) -> bool {
        if index >= self.len() {
            return false;
        }
        self.grow_for([text.len()], limits);
        let done = match self {
            List::Packed(list) => {
                let Some(pos) = list.seek(index as i64) else { return false };
                list.replace(pos, text).is_ok()
            }
            List::Quick(_) => false,
        };
        let done = done || self.make_quick(limits).replace(index, text);
        self.shrink(limits);
        done
    }

    // ---- taking ----

    /// Removes the element at one end; gives what `take` makes of it.
    pub fn pop_with<R>(
        &mut self,
        end: End,
        limits: &ListLimits,
        take: impl FnOnce(Element<'_>) -> R,
    ) -> Option<R> {
        let result = self.take(end, take);
        self.shrink(limits);
        result
    }

    fn take<R>(&mut self, end: End, take: impl FnOnce(Element<'_>) -> R) -> Option<R> {
        match self {
            List::Packed(list) => {
                let pos = match end {
                    End::Front => list.first(),
                    End::Back => list.last(),
                }?;
                let result = take(list.get(pos));
                list.remove(pos, 1);
                Some(result)
            }
            List::Quick(list) => list.pop_with(end, take),
        }
    }

    /// Moves the element at one end to the other (or the same) end; gives it.
    pub fn rotate(&mut self, from: End, to: End, limits: &ListLimits) -> Option<Vec<u8>> {
        // The list is not looked at while the element is out: it would shrink and not grow again.
        let text = self.take(from, |element| element.to_bytes())?;
        self.push(to, &text, limits);
        self.shrink(limits);
        Some(text)
    }

    /// Removes the element at one end.
    pub fn pop(&mut self, end: End, limits: &ListLimits) -> Option<Vec<u8>> {
        self.pop_with(end, limits, |element| element.to_bytes())
    }

    /// Removes up to `count` elements at one end, showing each to `take`, the outermost first; gives how many.
    pub fn pop_many(
        &mut self,
        end: End,
        count: usize,
        limits: &ListLimits,
        mut take: impl FnMut(Element<'_>),
    ) -> usize {
        let count = count.min(self.len());
        let start = if end == End::Front { 0 } else { self.len() - count };
        let outermost = if end == End::Front { 0 } else { self.len().saturating_sub(1) };
        let mut walk = self.walk(outermost, end.opposite());
        for _ in 0..count {
            let Some(element) = walk.next() else { break };
            take(element);
        }
        self.delete_range(start, count, limits)
    }

    /// Removes elements that equal `needle`, `limit` at most, from one end on; gives how many.
    pub fn remove_equal(&mut self, needle: &[u8], limit: usize, from: End, limits: &ListLimits) -> usize {
        let removed = match self {
            List::Packed(list) => list.remove_equal(needle, limit, from == End::Back),
            List::Quick(list) => list.remove_equal(needle, limit, from),
        };
        if removed > 0 {
            self.shrink(limits);
        }
        removed
    }

    /// Removes up to `count` elements from `start` on; gives how many.
    pub fn delete_range(&mut self, start: usize, count: usize, limits: &ListLimits) -> usize {
        let removed = self.delete(start, count);
        self.shrink(limits);
        removed
    }

    /// Keeps `count` elements from `start` on; gives how many it removed.
    pub fn trim(&mut self, start: usize, count: usize, limits: &ListLimits) -> usize {
        let front = start.min(self.len());
        let removed = self.delete(front.saturating_add(count), usize::MAX) + self.delete(0, front);
        self.shrink(limits);
        removed
    }

    fn delete(&mut self, start: usize, count: usize) -> usize {
        match self {
            List::Packed(_) if start >= self.len() => 0,
            List::Packed(list) => list.delete_range(start as i64, count),
            List::Quick(list) => list.delete_range(start, count),
        }
    }

    // ---- reading ----

    /// What `look` makes of the element at `index`.
    pub fn with<R>(&self, index: usize, look: impl FnOnce(Element<'_>) -> R) -> Option<R> {
        match self {
            List::Packed(list) => list.seek(i64::try_from(index).ok()?).map(|pos| look(list.get(pos))),
            List::Quick(list) => list.with(index, look),
        }
    }

    /// The element at `index`.
    pub fn get(&self, index: usize) -> Option<Vec<u8>> {
        self.with(index, |element| element.to_bytes())
    }

    /// A walk from the element at `index` towards one end.
    pub fn walk(&self, index: usize, towards: End) -> Walk<'_> {
        match self {
            List::Packed(list) => {
                let Some(pos) = i64::try_from(index).ok().and_then(|index| list.seek(index)) else {
                    return Walk::Done;
                };
                match towards {
                    End::Back => Walk::Forwards(list.iter_from(pos)),
                    End::Front => Walk::Backwards(list.iter_to(pos)),
                }
            }
            List::Quick(list) => Walk::Quick(list.cursor(index, towards)),
        }
    }

    /// A walk over all elements from the front.
    pub fn iter(&self) -> Walk<'_> {
        self.walk(0, End::Back)
    }

    /// A walk over all elements from the back.
    pub fn iter_rev(&self) -> Walk<'_> {
        self.walk(self.len().saturating_sub(1), End::Front)
    }

    /// The place of the nearest element from `start` on that equals `text`.
    pub fn position(&self, text: &[u8], start: usize, towards: End) -> Option<usize> {
        let needle = Needle::new(text);
        let mut walk = self.walk(start, towards);
        let mut place = start;
        while let Some(element) = walk.next() {
            if needle.is(element) {
                return Some(place);
            }
            place = if towards == End::Back { place + 1 } else { place.checked_sub(1)? };
        }
        None
    }

    // ---- form ----

    /// Converts to a quicklist if texts of these lengths, about to be added, would exceed a listpack's limits.
    pub fn grow_for(&mut self, lengths: impl IntoIterator<Item = usize>, limits: &ListLimits) {
        let List::Packed(list) = self else { return };
        let (mut bytes, mut count) = (list.bytes_len(), list.len());
        for length in lengths {
            bytes = bytes.saturating_add(length);
            count += 1;
        }
        if limits.fill().exceeded_by(bytes, count) {
            self.make_quick(limits);
        }
    }

    /// Converts to a listpack if one node at half the limits is left. The removing operations call it themselves.
    fn shrink(&mut self, limits: &ListLimits) {
        self.make_packed(limits, 2);
    }

    /// Brings a list that was built or loaded as a whole into the form that the limits ask for.
    pub fn settle(&mut self, limits: &ListLimits) {
        self.grow_for([], limits);
        self.make_packed(limits, 1);
    }

    fn make_packed(&mut self, limits: &ListLimits, divisor: usize) {
        if let List::Quick(list) = self
            && list.fits_listpack(limits.fill(), divisor)
        {
            let list = std::mem::replace(&mut **list, new_quicklist(limits));
            *self = match list.into_listpack(limits.fill(), divisor) {
                Ok(list) => List::Packed(list),
                Err(list) => List::Quick(Box::new(list)),
            };
        }
    }

    fn make_quick(&mut self, limits: &ListLimits) -> &mut Quicklist {
        if let List::Packed(list) = self {
            let mut quick = new_quicklist(limits);
            quick.push_listpack(std::mem::take(list));
            *self = List::Quick(Box::new(quick));
        }
        match self {
            List::Quick(list) => {
                list.set_packed_threshold(limits.packed_threshold);
                list
            }
            List::Packed(_) => unreachable!("converted above"),
        }
    }

    // ---- RDB and introspection ----

    /// Appends a listpack as a node of its own: how RDB files carry lists. `settle` afterwards.
    pub fn push_node_listpack(&mut self, node: Listpack, limits: &ListLimits) {
        match self {
            List::Packed(list) if list.is_empty() => *list = node,
            _ => self.make_quick(limits).push_listpack(node),
        }
    }

    /// Appends a large element as a node of its own. `settle` afterwards.
    pub fn push_node_plain(&mut self, text: &[u8], limits: &ListLimits) {
        self.make_quick(limits).push_plain(text);
    }

    /// Number of nodes that `try_for_each_node` shows.
    pub fn nodes(&self) -> usize {
        match self {
            List::Packed(_) => 1,
            List::Quick(list) => list.nodes(),
        }
    }

    /// Calls `visit` with each node's uncompressed bytes, in order, until it fails.
    pub fn try_for_each_node<E>(
        &self,
        mut visit: impl FnMut(NodeBytes<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            List::Packed(list) => visit(NodeBytes::Listpack(list.as_bytes())),
            List::Quick(list) => list.try_for_each_node(visit),
        }
    }

    /// As `try_for_each_node`, for `count` nodes from number `from` on.
    pub fn visit_nodes(&self, from: usize, count: usize, mut visit: impl FnMut(NodeBytes<'_>)) {
        match self {
            List::Packed(list) if from == 0 && count > 0 => visit(NodeBytes::Listpack(list.as_bytes())),
            List::Packed(_) => {}
            List::Quick(list) => list.visit_nodes(from, count, visit),
        }
    }

    /// Bytes allocated behind the value, estimated from `samples` nodes (0: all).
    pub fn memory_usage(&self, samples: usize) -> usize {
        match self {
            List::Packed(list) => list.allocated_bytes(),
            List::Quick(list) => list.allocated_bytes(samples),
        }
    }

    /// Sizes for DEBUG OBJECT; only quicklists have them.
    pub fn quicklist_stats(&self) -> Option<Stats> {
        match self {
            List::Packed(_) => None,
            List::Quick(list) => Some(list.stats()),
        }
    }
}

fn new_quicklist(limits: &ListLimits) -> Quicklist {
    let mut list = Quicklist::new(limits.fill(), limits.compress_depth);
    list.set_packed_threshold(limits.packed_threshold);
    list
}

/// A walk over a list; it lends each element until the next step.
pub enum Walk<'a> {
    Forwards(listpack::Iter<'a>),
    Backwards(listpack::Iter<'a>),
    Quick(Cursor<'a>),
    Done,
}

impl Walk<'_> {
    /// The next element.
    #[inline]
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<Element<'_>> {
        match self {
            Walk::Forwards(iter) => iter.next(),
            Walk::Backwards(iter) => iter.next_back(),
            Walk::Quick(cursor) => cursor.next(),
            Walk::Done => None,
        }
    }
}
