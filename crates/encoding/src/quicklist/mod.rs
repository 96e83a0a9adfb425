//! Quicklist: a long list as a sequence of compact nodes. Most nodes are listpacks of a few KiB; an element too large
//! for that has a node of its own; nodes far from both ends may be compressed.
//!
//! When nodes are filled, split and merged follows the reference, because users see it: OBJECT ENCODING, DUMP and MEMORY
//! USAGE depend on it. How the sequence of nodes is held (`seq`) does not.

mod cursor;
mod node;
mod seq;
#[cfg(test)]
mod tests;

pub use cursor::Cursor;
pub use node::Fill;

use crate::listpack::{Element, Listpack};
use node::{Node, Shape, View};
use seq::{At, Seq};

/// One of a list's ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Front,
    Back,
}

impl End {
    /// The other end.
    pub fn opposite(self) -> End {
        match self {
            End::Front => End::Back,
            End::Back => End::Front,
        }
    }
}

/// A text to compare elements with, parsed once.
#[derive(Clone, Copy, Debug)]
pub struct Needle<'a> {
    text: &'a [u8],
    number: Option<i64>,
}

impl<'a> Needle<'a> {
    pub fn new(text: &'a [u8]) -> Self {
        Needle { text, number: crate::listpack::canonical_int(text) }
    }

    /// Whether `element` has this text.
    #[inline]
    pub fn is(&self, element: Element<'_>) -> bool {
        match element {
            Element::Int(value) => self.number == Some(value),
            Element::Str(text) => text == self.text,
        }
    }
}

/// A node as RDB files carry it.
#[derive(Debug)]
pub enum NodeBytes<'a> {
    Listpack(&'a [u8]),
    Plain(&'a [u8]),
}

/// A list of byte strings. See the module.
#[derive(Clone)]
pub struct Quicklist {
    seq: Seq,
    fill: Fill,
    /// Nodes from each end that stay uncompressed; 0: all of them.
    depth: u32,
    /// Element size in bytes from which an element gets its own node; 0: what `fill` says. For tests.
    packed_threshold: u32,
}

impl Quicklist {
    /// An empty list. `compress_depth`: nodes from each end that stay uncompressed, 0 for all.
    pub fn new(fill: Fill, compress_depth: u32) -> Self {
        Quicklist { seq: Seq::default(), fill, depth: compress_depth, packed_threshold: 0 }
    }

    /// Sets the element size in bytes from which elements get nodes of their own; 0: as the fill says.
    pub fn set_packed_threshold(&mut self, bytes: u32) {
        self.packed_threshold = bytes;
    }

    /// Number of elements.
    #[inline]
    pub fn len(&self) -> usize {
        self.seq.elements()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.seq.elements() == 0
    }

    /// Number of nodes.
    pub fn nodes(&self) -> usize {
        self.seq.nodes()
    }

    fn shape(&self) -> Shape {
        Shape { fill: self.fill, packed_threshold: self.packed_threshold as usize }
    }

    // ---- both ends ----

    /// Adds an element at one end.
    pub fn push(&mut self, end: End, text: &[u8]) {
        let shape = self.shape();
        if let Some(at) = self.end(end)
            && shape.has_room(self.seq.get(at), text.len())
        {
            let pushed = self.seq.edit(at, |node| {
                node.edit(|list| match end {
                    End::Front => list.push_front(text),
                    End::Back => list.push_back(text),
                })
            });
            if matches!(pushed, Some(Ok(()))) {
                return;
            }
        }
        self.push_node(end, Node::of(text, shape));
        self.settle(None);
    }

    /// Removes the element at one end; gives what `take` makes of it.
    pub fn pop_with<R>(&mut self, end: End, take: impl FnOnce(Element<'_>) -> R) -> Option<R> {
        let at = self.end(end)?;
        if let Node::Plain(text) = self.seq.get(at) {
            let result = take(Element::Str(text));
            self.drop_node(at);
            return Some(result);
        }
        let result = self.seq.edit(at, |node| {
            node.edit(|list| {
                let pos = match end {
                    End::Front => list.first(),
                    End::Back => list.last(),
                }?;
                let result = take(list.get(pos));
                list.remove(pos, 1);
                Some(result)
            })
        });
        if self.seq.get(at).count() == 0 {
            self.drop_node(at);
        }
        result.flatten()
    }

    // ---- by index ----

    /// What `look` makes of the element at `index`.
    pub fn with<R>(&self, index: usize, look: impl FnOnce(Element<'_>) -> R) -> Option<R> {
        let (at, offset) = self.seq.seek(index)?;
        self.seq.get(at).view().with(offset as i64, look)
    }

    /// A walk from the element at `index` towards the back, or towards the front for `End::Front`.
    pub fn cursor(&self, index: usize, towards: End) -> Cursor<'_> {
        Cursor::new(self, index, towards)
    }

    /// Puts `text` in the place of the element at `index`; whether there is one.
    pub fn replace(&mut self, index: usize, text: &[u8]) -> bool {
        let Some((at, offset)) = self.seq.seek(index) else { return false };
        let shape = self.shape();
        let large = shape.is_large(text.len());
        if self.seq.get(at).is_plain() && !large {
            // The small element may find room in the node behind.
            self.insert_at_edge(at, text, true);
            self.delete_range(index, 1);
            // It is the element's node, new or opened, that wants compression, not the one that went.
            let place = self.seq.seek(index).map(|(at, _)| at);
            self.settle(place);
            return true;
        }
        if self.seq.get(at).is_plain() {
            self.seq.edit(at, |node| *node = Node::of(text, shape));
            self.settle(Some(at));
            return true;
        }
        if !large {
            let done = self.seq.edit(at, |node| {
                node.edit(|list| {
                    let pos = list.seek(offset as i64)?;
                    list.replace(pos, text).ok()
                })
            });
            if done.flatten().is_some() {
                self.settle(Some(at));
                return true;
            }
        }
        // The node can't hold it: cut it behind the element, take the element off, put a new node in between.
        let tail = self.cut_tail(at, offset + 1);
        self.seq.edit(at, |node| node.edit(|list| list.delete_range(-1, 1)));
        let mut new = self.seq.insert_after(at, Node::of(text, shape));
        if let Some(tail) = tail {
            let tail = self.seq.insert_after(new, tail);
            new = self.seq.prev(tail).expect("the node in front");
        }
        let old = self.seq.prev(new).expect("the node in front");
        if self.seq.get(old).count() == 0 {
            new = self.seq.remove(old).1.expect("the node behind");
        } else {
            new = self.merge_around(new);
        }
        self.settle(Some(new));
        true
    }

    /// Inserts `text` behind (`after`) or in front of the element at `index`; whether there is one.
    pub fn insert(&mut self, index: usize, text: &[u8], after: bool) -> bool {
        let Some((at, offset)) = self.seq.seek(index) else { return false };
        let shape = self.shape();
        let node = self.seq.get(at);
        let place = offset + usize::from(after);
        if shape.has_room(node, text.len()) && self.insert_in_node(at, place, text) {
            self.settle(Some(at));
            return true;
        }
        let touched = if place == 0 || place == self.seq.get(at).count() {
            self.insert_at_edge(at, text, after)
        } else {
            self.insert_in_split(at, place, text, after)
        };
        self.settle(Some(touched));
        true
    }

    /// Inserts in front of or behind a full node: into its neighbour, or as a new node. Gives a place nearby.
    fn insert_at_edge(&mut self, at: At, text: &[u8], after: bool) -> At {
        let shape = self.shape();
        let beside = if after { self.seq.next(at) } else { self.seq.prev(at) };
        if let Some(beside) = beside
            && shape.has_room(self.seq.get(beside), text.len())
        {
            let place = if after { 0 } else { self.seq.get(beside).count() };
            if self.insert_in_node(beside, place, text) {
                return beside;
            }
        }
        let new = Node::of(text, shape);
        if after { self.seq.insert_after(at, new) } else { self.seq.insert_before(at, new) }
    }

    /// Inserts amid a full node, which splits: the new element joins the half that its neighbour is not in, or stands
    /// alone if it is large. Gives a place nearby.
    fn insert_in_split(&mut self, at: At, place: usize, text: &[u8], after: bool) -> At {
        let shape = self.shape();
        let tail = self.cut_tail(at, place).expect("elements on both sides");
        let tail = self.seq.insert_after(at, tail);
        let head = self.seq.prev(tail).expect("the other half");
        let (half, end) = if after { (tail, 0) } else { (head, self.seq.get(head).count()) };
        if shape.is_large(text.len()) || !self.insert_in_node(half, end, text) {
            return self.seq.insert_before(tail, Node::of(text, shape));
        }
        self.merge_around(if after { head } else { tail })
    }

    /// Inserts into a packed node; whether it could hold it.
    fn insert_in_node(&mut self, at: At, place: usize, text: &[u8]) -> bool {
        let done = self.seq.edit(at, |node| {
            node.edit(|list| match list.seek(place as i64) {
                Some(pos) => list.insert_before(pos, text).map(|_| ()),
                None => list.push_back(text),
            })
        });
        matches!(done, Some(Ok(())))
    }

    /// Removes up to `count` elements from `start` on; gives how many.
    pub fn delete_range(&mut self, start: usize, count: usize) -> usize {
        let Some((mut at, mut offset)) = self.seq.seek(start) else { return 0 };
        let total = count.min(self.len() - start);
        let mut left = total;
        while left > 0 {
            let here = (self.seq.get(at).count() - offset).min(left);
            left -= here;
            if here == self.seq.get(at).count() {
                match self.seq.remove(at).1 {
                    Some(following) => at = following,
                    None => break,
                }
                continue;
            }
            self.seq.edit(at, |node| node.edit(|list| list.delete_range(offset as i64, here)));
            self.squeeze_inner(at);
            offset = 0;
            match self.seq.next(at) {
                Some(following) if left > 0 => at = following,
                _ => break,
            }
        }
        self.settle(None);
        total
    }

    /// Removes elements that equal `needle`, `limit` at most, starting at the end `from`; gives how many.
    pub fn remove_equal(&mut self, needle: &[u8], limit: usize, from: End) -> usize {
        let needle = Needle::new(needle);
        let mut removed = 0;
        let mut place = self.end(from);
        while let Some(at) = place
            && removed < limit
        {
            let here = self.remove_in_node(at, needle, limit - removed, from);
            removed += here;
            let emptied = self.seq.get(at).count() == 0;
            // Places in front of a removed node stay.
            place = if from == End::Back { self.seq.prev(at) } else { self.seq.next(at) };
            if emptied {
                let following = self.seq.remove(at).1;
                place = if from == End::Back { place } else { following };
            }
        }
        if removed > 0 {
            self.settle(None);
        }
        removed
    }

    fn remove_in_node(&mut self, at: At, needle: Needle<'_>, limit: usize, from: End) -> usize {
        let node = self.seq.get(at);
        // A compressed node is opened for good only if there is something to remove.
        if node.is_squeezed() && !node_contains(node, needle) {
            return 0;
        }
        if node.is_plain() {
            let found = node_contains(node, needle);
            if found {
                self.seq.edit(at, |node| *node = Node::packed(Listpack::new()));
            }
            return usize::from(found);
        }
        let removed = self
            .seq
            .edit(at, |node| node.edit(|list| list.remove_equal(needle.text, limit, from == End::Back)));
        if removed.is_some_and(|removed| removed > 0) {
            self.squeeze_inner(at);
        }
        removed.unwrap_or(0)
    }

    // ---- shape ----

    /// The listpack of the only node, if it is within the fill's limits divided by `divisor`; else the list itself.
    pub fn into_listpack(self, fill: Fill, divisor: usize) -> Result<Listpack, Self> {
        if !self.fits_listpack(fill, divisor) {
            return Err(self);
        }
        let mut this = self;
        let at = this.seq.first().expect("one node");
        let mut node = this.seq.remove(at).0;
        node.open();
        match node {
            Node::Packed { list, .. } => Ok(list),
            _ => unreachable!("plain nodes don't fit"),
        }
    }

    /// Whether `into_listpack` would give a listpack.
    pub fn fits_listpack(&self, fill: Fill, divisor: usize) -> bool {
        self.nodes() == 1
            && self.seq.first().is_some_and(|at| {
                let node = self.seq.get(at);
                !node.is_plain() && fill.allows_single(node.raw_bytes(), node.count(), divisor)
            })
    }

    /// Appends a whole listpack as a node; an empty one is dropped.
    pub fn push_listpack(&mut self, list: Listpack) {
        if !list.is_empty() {
            self.push_node(End::Back, Node::packed(list));
            self.settle(None);
        }
    }

    /// Appends an element as a node of its own, whatever its size.
    pub fn push_plain(&mut self, text: &[u8]) {
        self.push_node(End::Back, Node::Plain(Box::new(text.into())));
        self.settle(None);
    }

    /// Calls `visit` with each node's uncompressed bytes, in order, until it fails.
    pub fn try_for_each_node<E>(
        &self,
        mut visit: impl FnMut(NodeBytes<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.seq.iter().try_for_each(|node| match node.view() {
            View::Packed(list) => visit(NodeBytes::Listpack(list.as_bytes())),
            View::Unpacked(list) => visit(NodeBytes::Listpack(list.as_bytes())),
            View::Plain(text) => visit(NodeBytes::Plain(text)),
            View::UnpackedPlain(text) => visit(NodeBytes::Plain(&text)),
        })
    }

    /// As `try_for_each_node`, for `count` nodes from number `from` on.
    pub fn visit_nodes(&self, from: usize, count: usize, mut visit: impl FnMut(NodeBytes<'_>)) {
        self.seq.iter().skip(from).take(count).for_each(|node| match node.view() {
            View::Packed(list) => visit(NodeBytes::Listpack(list.as_bytes())),
            View::Unpacked(list) => visit(NodeBytes::Listpack(list.as_bytes())),
            View::Plain(text) => visit(NodeBytes::Plain(text)),
            View::UnpackedPlain(text) => visit(NodeBytes::Plain(&text)),
        });
    }

    /// Bytes allocated for the list, the struct itself included, estimated from `samples` nodes (0: all).
    pub fn allocated_bytes(&self, samples: usize) -> usize {
        let seen = if samples == 0 { self.nodes() } else { samples.min(self.nodes()) };
        let sampled: usize = self.seq.iter().take(seen).map(Node::allocated_bytes).sum();
        let nodes = (sampled as f64 / seen.max(1) as f64 * self.nodes() as f64) as usize;
        size_of::<Self>() + self.seq.allocated_bytes() + nodes
    }

    /// What DEBUG OBJECT tells about it: compressed bytes and the fill are as stored, sizes in bytes.
    pub fn stats(&self) -> Stats {
        Stats {
            nodes: self.nodes(),
            raw_bytes: self.seq.iter().map(Node::raw_bytes).sum(),
            stored_bytes: self.seq.iter().map(Node::stored_bytes).sum(),
            squeezed_nodes: self.seq.iter().filter(|node| node.is_squeezed()).count(),
        }
    }

    // ---- within ----

    fn end(&self, end: End) -> Option<At> {
        match end {
            End::Front => self.seq.first(),
            End::Back => self.seq.last(),
        }
    }

    fn push_node(&mut self, end: End, node: Node) {
        match end {
            End::Front => self.seq.push_front(node),
            End::Back => self.seq.push_back(node),
        };
    }

    fn drop_node(&mut self, at: At) {
        self.seq.remove(at);
        self.settle(None);
    }

    /// Takes the elements from `offset` on off a packed node; `None` if there are none.
    fn cut_tail(&mut self, at: At, offset: usize) -> Option<Node> {
        let tail = self.seq.edit(at, |node| node.edit(|list| list.split_off(offset)))?;
        (!tail.is_empty()).then(|| Node::packed(tail))
    }

    /// After a split at `center`: joins the pairs of nodes around it that fit into one. Gives where `center` went.
    fn merge_around(&mut self, mut center: At) -> At {
        if let Some(before) = self.seq.prev(center)
            && let Some(first) = self.seq.prev(before)
            && self.merge(first)
        {
            center = self.seq.next(first).expect("the center behind");
        }
        if let Some(behind) = self.seq.next(center) {
            self.merge(behind);
        }
        if let Some(before) = self.seq.prev(center)
            && self.merge(before)
        {
            center = before;
        }
        self.merge(center);
        center
    }

    /// Joins the node at `at` with the one behind it if they fit into one.
    fn merge(&mut self, at: At) -> bool {
        let Some(behind) = self.seq.next(at) else { return false };
        if !self.shape().may_merge(self.seq.get(at), self.seq.get(behind)) {
            return false;
        }
        let mut other = self.seq.remove(behind).0;
        other.open();
        let Node::Packed { list: other, .. } = other else { unreachable!("plain nodes don't merge") };
        let joined = self.seq.edit(at, |node| node.edit(|list| list.append(&other)));
        assert!(matches!(joined, Some(Ok(()))), "both are within the fill");
        true
    }

    /// Brings compression in order after a change of the node at `touched` or of the number of nodes.
    fn settle(&mut self, touched: Option<At>) {
        if self.depth > 0 {
            if let Some(at) = touched {
                for at in [self.seq.prev(at), Some(at), self.seq.next(at)].into_iter().flatten() {
                    self.squeeze_inner(at);
                }
            }
            // A split and a new node push those behind by two places.
            self.settle_ends(if touched.is_some() { 2 } else { 1 });
        }
        self.seq.repack_if_sparse();
    }

    /// Opens the nodes within the depth from both ends and compresses the first `beyond` behind it.
    fn settle_ends(&mut self, beyond: usize) {
        for end in [End::Front, End::Back] {
            let mut place = self.end(end);
            for _ in 0..self.depth {
                let Some(at) = place else { return };
                if self.seq.get(at).is_squeezed() {
                    self.seq.edit(at, Node::open);
                }
                place = self.step(at, end.opposite());
            }
            for _ in 0..beyond {
                let Some(at) = place else { break };
                self.squeeze_inner(at);
                place = self.step(at, end.opposite());
            }
        }
    }

    /// Compresses the node at `at` if it is farther from both ends than the depth.
    fn squeeze_inner(&mut self, at: At) {
        let depth = self.depth as usize;
        if depth == 0 || self.nodes() <= depth.saturating_mul(2) || self.seq.get(at).is_squeezed() {
            return;
        }
        for towards in [End::Front, End::Back] {
            let mut place = at;
            for _ in 0..depth {
                match self.step(place, towards) {
                    Some(next) => place = next,
                    None => return,
                }
            }
        }
        self.seq.edit(at, Node::squeeze);
    }

    fn step(&self, at: At, towards: End) -> Option<At> {
        match towards {
            End::Front => self.seq.prev(at),
            End::Back => self.seq.next(at),
        }
    }
}

/// Sizes for DEBUG OBJECT, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    pub nodes: usize,
    /// Uncompressed content.
    pub raw_bytes: usize,
    /// Content as it is held.
    pub stored_bytes: usize,
    pub squeezed_nodes: usize,
}

fn node_contains(node: &Node, needle: Needle<'_>) -> bool {
    match node.view() {
        View::Packed(list) => list.iter().any(|element| needle.is(element)),
        View::Unpacked(list) => list.iter().any(|element| needle.is(element)),
        View::Plain(text) => text == needle.text,
        View::UnpackedPlain(text) => text == needle.text,
    }
}
