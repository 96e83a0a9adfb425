//! The order of a sorted set: a B+ tree over (score, member bytes) that counts its subtrees.
//!
//! It owns one allocation per member (`entry`), which an index over members may point to as well; it knows nothing
//! of that index, of commands or of encodings for small sets.
//!
//! Why this shape (1 M members of 17 bytes, 8-byte slots):
//! - An entry is 26 bytes, 32 from the allocator, with or without the score in it; so the score stays in the entry,
//!   where the index finds it, and leaves stay at 8 bytes per slot.
//! - The 16 bits of a slot that an address leaves free hold a hint of the score, relative to the leaf. A search
//!   reads two or three lines of the leaf and, where scores differ, one entry, instead of one entry per comparison.
//! - Nodes that fill by appending (or prepending, as when an RDB file is read) split unevenly and stay full: 8.6 + 0.8
//!   bytes per member. Random inserts leave them about 70% full: 12.2 + 1.1.
//!   With the index that is 55 bytes per member after random inserts, 50 after ascending ones (the reference: 87).
//! - Removal has one algorithm, for ranges of ranks; everything else that removes finds ranks first.

mod entry;
mod iter;
mod node;
#[cfg(test)]
mod tests;

pub use entry::{Entry, score_key};
pub use iter::Iter;

use node::{Child, FANOUT, INNER_MERGE, Inner, LEAF_CAP, LEAF_MERGE, Leaf, Node};
use std::ptr;

/// Leaves that `from_sorted` builds keep a few slots free for what comes later.
const BULK_LEAF: usize = LEAF_CAP - 4;
const BULK_INNER: usize = FANOUT - 3;

/// A place between entries: how many stand before it is its rank.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound<'a>(Place<'a>);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place<'a> {
    Entry { key: u64, member: &'a [u8], after: bool },
    Score { key: u64, after: bool },
    Member { member: &'a [u8], after: bool },
}

impl<'a> Bound<'a> {
    /// Just before the entries with this score.
    pub fn before_score(score: f64) -> Self {
        Bound(Place::Score { key: score_key(score), after: false })
    }

    /// Just after the entries with this score.
    pub fn after_score(score: f64) -> Self {
        Bound(Place::Score { key: score_key(score), after: true })
    }

    /// Just before this member, in a set whose scores are all equal; otherwise some place.
    pub fn before_member(member: &'a [u8]) -> Self {
        Bound(Place::Member { member, after: false })
    }

    /// Just after this member, in a set whose scores are all equal; otherwise some place.
    pub fn after_member(member: &'a [u8]) -> Self {
        Bound(Place::Member { member, after: true })
    }

    /// Just before the entry of this score and member.
    pub fn before_entry(score: f64, member: &'a [u8]) -> Self {
        Bound(Place::Entry { key: score_key(score), member, after: false })
    }

    /// Just after the entry of this score and member.
    pub fn after_entry(score: f64, member: &'a [u8]) -> Self {
        Bound(Place::Entry { key: score_key(score), member, after: true })
    }

    fn key(&self) -> Option<u64> {
        match self.0 {
            Place::Entry { key, .. } | Place::Score { key, .. } => Some(key),
            Place::Member { .. } => None,
        }
    }

    /// Whether the place is behind an item of this score and member.
    #[inline]
    pub fn is_after(&self, score: f64, member: &[u8]) -> bool {
        self.is_after_with(score_key(score), || member)
    }

    /// Whether the place is behind `entry`, a live one, whose score key is `key`.
    #[inline]
    fn is_after_entry(&self, key: u64, entry: Entry) -> bool {
        // SAFETY: live by contract of this private function.
        self.is_after_with(key, || unsafe { entry.member() })
    }

    /// Looks at the member only where the key leaves it open.
    #[inline]
    fn is_after_with<'m>(&self, key: u64, own: impl FnOnce() -> &'m [u8]) -> bool {
        let less = |member: &[u8], after: bool| {
            let own = own();
            own < member || after && own == member
        };
        match self.0 {
            Place::Entry { key: k, member, after } => key < k || key == k && less(member, after),
            Place::Score { key: k, after } => key < k || key == k && after,
            Place::Member { member, after } => less(member, after),
        }
    }
}

/// The ordered entries of a sorted set. Scores are never NaN.
pub struct Tree {
    root: Node,
    /// Levels above the leaves.
    height: u8,
    len: u64,
    node_bytes: usize,
}

// SAFETY: the tree owns its nodes and entries, all plain memory; `&Tree` only reads.
unsafe impl Send for Tree {}
// SAFETY: as above.
unsafe impl Sync for Tree {}

/// A new right sibling that the parent must take in.
type Grown = Option<Child>;

impl Default for Tree {
    fn default() -> Self {
        Tree::new()
    }
}

impl Tree {
    /// An empty tree of one leaf.
    pub fn new() -> Tree {
        Tree { root: Node(Leaf::alloc().cast()), height: 0, len: 0, node_bytes: size_of::<Leaf>() }
    }

    /// Builds from entries that come in strictly ascending order of (score, member).
    pub fn from_sorted<'a>(items: impl IntoIterator<Item = (f64, &'a [u8])>) -> Tree {
        let mut builder = Builder::new();
        for (score, member) in items {
            builder.push(Entry::alloc(score, member));
        }
        builder.finish()
    }

    /// Number of entries.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes in nodes, entries not counted.
    pub fn node_bytes(&self) -> usize {
        self.node_bytes
    }

    /// How many entries stand before `bound`.
    pub fn rank_of(&self, bound: &Bound) -> usize {
        let (mut node, mut rank) = (self.root, 0);
        for _ in 0..self.height {
            // SAFETY: nodes above level 0 are live inner nodes while `self` is borrowed; nobody changes them.
            let inner = unsafe { &*node.0.cast::<Inner>() };
            let i = inner.position(bound).saturating_sub(1);
            rank += inner.before(i);
            node = inner.node(i);
        }
        // SAFETY: at level 0 stands a live leaf.
        let leaf = unsafe { &*node.0.cast::<Leaf>() };
        rank as usize + leaf.position(bound)
    }

    /// The leaf and position of the entry of this rank, which is below `len`.
    fn seek(&self, rank: usize) -> (*const Leaf, usize) {
        debug_assert!(rank < self.len());
        let (mut node, mut rank) = (self.root, rank as u64);
        for _ in 0..self.height {
            // SAFETY: as in `rank_of`.
            let inner = unsafe { &*node.0.cast::<Inner>() };
            let (i, rest) = inner.find_rank(rank);
            (node, rank) = (inner.node(i), rest);
        }
        (node.0.cast(), rank as usize)
    }

    /// The entry of rank `rank`, counted from the lowest, as a handle.
    pub(crate) fn entry_at(&self, rank: usize) -> Option<Entry> {
        if rank >= self.len() {
            return None;
        }
        let (leaf, pos) = self.seek(rank);
        // SAFETY: `seek` gives a live leaf.
        Some(unsafe { (*leaf).entry(pos) })
    }

    /// Member and score of rank `rank`, counted from the lowest.
    pub fn get(&self, rank: usize) -> Option<(&[u8], f64)> {
        // SAFETY: an entry in the tree lives until `self` is borrowed mutably.
        self.entry_at(rank).map(|entry| unsafe { (entry.member(), entry.score()) })
    }

    /// The entries of ranks `start..start + n`, cut at the end; highest first if `reverse`.
    pub fn range(&self, start: usize, n: usize, reverse: bool) -> Iter<'_> {
        let n = n.min(self.len().saturating_sub(start));
        if n == 0 {
            return Iter::empty();
        }
        let (leaf, pos) = self.seek(if reverse { start + n - 1 } else { start });
        Iter::new(leaf, pos, n, reverse)
    }

    /// Adds an entry, and gives its handle. That (score, member) isn't there yet is the caller's care.
    pub fn insert(&mut self, score: f64, member: &[u8]) -> Entry {
        debug_assert!(!score.is_nan());
        let entry = Entry::alloc(score, member);
        self.insert_entry(entry);
        entry
    }

    fn insert_entry(&mut self, entry: Entry) {
        // SAFETY: the caller has just made the entry, or taken it out of this tree: it's live.
        let (key, member) = unsafe { (entry.key(), entry.member()) };
        let bound = Bound(Place::Entry { key, member, after: false });
        let mut grower = Grower { bound, key, entry, node_bytes: 0 };
        let grown = grower.insert(self.root, self.height);
        self.node_bytes += grower.node_bytes;
        if let Some(right) = grown {
            let root = Inner::alloc();
            self.node_bytes += size_of::<Inner>();
            // SAFETY: `root` is new, and the old root is live with at least one entry.
            unsafe {
                let (key, first) = first_of(self.root, self.height);
                let left = Child { key, first, count: self.len + 1 - right.count, node: self.root };
                (*root).insert(0, left);
                (*root).insert(1, right);
            }
            self.root = Node(root.cast());
            self.height += 1;
        }
        self.len += 1;
    }

    /// Removes the entry of this score and member; whether it was there.
    pub fn remove(&mut self, score: f64, member: &[u8]) -> bool {
        let rank = self.rank_of(&Bound::before_entry(score, member));
        match self.get(rank) {
            Some((found, s)) if found == member && s == score => {
                self.remove_range(rank, 1, |_, _| ());
                true
            }
            _ => false,
        }
    }

    /// Removes the entries of ranks `start..start + n`, cut at the end; `gone` sees each before it is freed, in
    /// ascending order. Takes O(log len + n / leaf) beside that.
    pub fn remove_range(&mut self, start: usize, n: usize, mut gone: impl FnMut(&[u8], f64)) {
        // SAFETY: an entry handed over is live.
        self.remove_entries(start, n, |entry| unsafe { gone(entry.member(), entry.score()) });
    }

    /// As `remove_range`, for the owner of an index: `gone` sees the handles.
    pub(crate) fn remove_entries(&mut self, start: usize, n: usize, mut gone: impl FnMut(Entry)) {
        self.take_range(start, n, &mut |entry| {
            gone(entry);
            // SAFETY: `take_range` hands over each entry once, out of the tree, live.
            unsafe { entry.free() };
        });
    }

    /// Takes the entries of a range of ranks out of the tree, alive.
    fn take_range(&mut self, start: usize, n: usize, sink: &mut dyn FnMut(Entry)) {
        let n = n.min(self.len().saturating_sub(start));
        if n == 0 {
            return;
        }
        let mut shrinker = Shrinker { sink, node_bytes: 0 };
        if n == self.len() {
            shrinker.free(self.root, self.height);
            // The old nodes are gone: the fields are overwritten one by one, so that nothing drops them again.
            self.root = Node(Leaf::alloc().cast());
            (self.height, self.len, self.node_bytes) = (0, 0, size_of::<Leaf>());
            return;
        }
        shrinker.remove(self.root, self.height, start as u64, n as u64);
        self.node_bytes -= shrinker.node_bytes;
        self.len -= n as u64;
        while self.height > 0 {
            // SAFETY: above level 0 the root is a live inner node, which nothing else names.
            unsafe {
                if self.root.inner().len() > 1 {
                    break;
                }
                let only = self.root.inner().node(0);
                Inner::free(self.root.0.cast());
                self.root = only;
            }
            self.node_bytes -= size_of::<Inner>();
            self.height -= 1;
        }
    }

    /// Gives the entry behind `entry`, which stands in this tree, another score.
    ///
    /// # Safety
    /// The handle is one of this tree's, live.
    pub(crate) unsafe fn rescore(&mut self, entry: Entry, score: f64) {
        debug_assert!(!score.is_nan());
        // SAFETY: live by contract.
        let (old, member) = unsafe { (entry.score(), entry.member()) };
        let rank = self.rank_of(&Bound::before_entry(old, member));
        let (leaf, pos) = self.seek(rank);
        let key = score_key(score);
        // SAFETY: `seek` gives a live leaf, and `&mut self` makes us its only user.
        let leaf = unsafe { &mut *leaf.cast_mut() };
        debug_assert!(leaf.entry(pos) == entry);
        let bound = Bound(Place::Entry { key, member, after: false });
        // Not at the leaf's first place: its key stands in the inner nodes as well. At the last place the next
        // leaf's first entry would have to be looked at.
        let stays = pos > 0 && pos + 1 < leaf.len() && {
            let (low, high) = (leaf.entry(pos - 1), leaf.entry(pos + 1));
            // SAFETY: entries in a leaf are live.
            unsafe { bound.is_after_entry(low.key(), low) && !bound.is_after_entry(high.key(), high) }
        };
        if stays {
            leaf.rekey(pos, key);
            // SAFETY: nobody else reads the entry under `&mut self`, and its place is right for the new score.
            unsafe { entry.set_score(score) };
            return;
        }
        self.take_range(rank, 1, &mut |_| ());
        // SAFETY: the entry is out of the tree, and live.
        unsafe { entry.set_score(score) };
        self.insert_entry(entry);
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // SAFETY: the entries handed over are live and nobody's any more.
        Shrinker { sink: &mut |entry| unsafe { entry.free() }, node_bytes: 0 }.free(self.root, self.height);
    }
}

impl Clone for Tree {
    fn clone(&self) -> Tree {
        Tree::from_sorted(self.range(0, self.len(), false).map(|(member, score)| (score, member)))
    }
}

/// Score key and handle of the lowest entry below `node`.
///
/// # Safety
/// The node is live, of this level, not borrowed mutably, and not empty.
unsafe fn first_of(node: Node, level: u8) -> (u64, Entry) {
    // SAFETY: by contract.
    unsafe {
        if level == 0 {
            let entry = (*node.0.cast::<Leaf>()).entry(0);
            (entry.key(), entry)
        } else {
            (*node.0.cast::<Inner>()).first()
        }
    }
}

/// One insertion on its way down and back up.
struct Grower<'a> {
    bound: Bound<'a>,
    key: u64,
    entry: Entry,
    node_bytes: usize,
}

impl Grower<'_> {
    fn insert(&mut self, node: Node, level: u8) -> Grown {
        if level == 0 {
            // SAFETY: level 0 holds leaves, and the tree is borrowed mutably by our caller.
            return self.insert_leaf(unsafe { node.leaf() });
        }
        // SAFETY: above level 0 stand inner nodes; a child's reference never outlives its own call.
        let inner = unsafe { node.inner() };
        let at = inner.position(&self.bound);
        let i = at.saturating_sub(1);
        if at == 0 {
            inner.set_first(0, self.key, self.entry);
        }
        let grown = self.insert(inner.node(i), level - 1);
        *inner.count_mut(i) += 1;
        let new = grown?;
        *inner.count_mut(i) -= new.count;
        self.insert_inner(inner, i + 1, new)
    }

    fn insert_leaf(&mut self, leaf: &mut Leaf) -> Grown {
        let pos = leaf.position(&self.bound);
        let len = leaf.len();
        if len < LEAF_CAP {
            leaf.insert(pos, self.key, self.entry);
            return None;
        }
        // At an end the new entry gets a leaf of its own, and the full one stays full.
        let at = if pos == 0 || pos == len { pos } else { len / 2 };
        let right = leaf.split(at);
        self.node_bytes += size_of::<Leaf>();
        // SAFETY: `right` is new, and linked to from the chain only.
        let right_ref = unsafe { &mut *right };
        if pos == len || pos > at {
            right_ref.insert(pos - at, self.key, self.entry);
        } else {
            leaf.insert(pos, self.key, self.entry);
        }
        let first = right_ref.entry(0);
        // SAFETY: an entry in a leaf is live.
        let key = unsafe { first.key() };
        Some(Child { key, first, count: right_ref.len() as u64, node: Node(right.cast()) })
    }

    fn insert_inner(&mut self, inner: &mut Inner, pos: usize, new: Child) -> Grown {
        let len = inner.len();
        if len < FANOUT {
            inner.insert(pos, new);
            return None;
        }
        let at = if pos == 1 || pos == len { pos } else { len / 2 };
        let right = Inner::alloc();
        self.node_bytes += size_of::<Inner>();
        // SAFETY: `right` is new, known to nobody else.
        let right_ref = unsafe { &mut *right };
        inner.move_tail(at, right_ref);
        if pos == len || pos > at {
            right_ref.insert(pos - at, new);
        } else {
            inner.insert(pos, new);
        }
        let (key, first) = right_ref.first();
        Some(Child { key, first, count: right_ref.total(), node: Node(right.cast()) })
    }
}

/// One removal on its way: hands the entries to `sink`, sums up the bytes of freed nodes.
struct Shrinker<'a> {
    sink: &'a mut dyn FnMut(Entry),
    node_bytes: usize,
}

impl Shrinker<'_> {
    /// Frees a whole subtree. Only the root's call may leave the tree without a leaf.
    fn free(&mut self, node: Node, level: u8) {
        if level == 0 {
            // SAFETY: the caller gives up the node; a leaf's neighbours in the chain are live and not borrowed.
            unsafe {
                node.leaf().entries(0).for_each(&mut *self.sink);
                Leaf::free(node.0.cast());
            }
            self.node_bytes += size_of::<Leaf>();
            return;
        }
        // SAFETY: the caller gives up the node.
        let inner = unsafe { node.inner() };
        for i in 0..inner.len() {
            self.free(inner.node(i), level - 1);
        }
        // SAFETY: as above; `inner` isn't used any more.
        unsafe { Inner::free(node.0.cast()) };
        self.node_bytes += size_of::<Inner>();
    }

    /// Removes entries `start..start + n` of this subtree, which keeps at least one.
    fn remove(&mut self, node: Node, level: u8, start: u64, n: u64) {
        if level == 0 {
            // SAFETY: level 0 holds leaves, and the tree is borrowed mutably by our caller.
            let leaf = unsafe { node.leaf() };
            let (start, n) = (start as usize, n as usize);
            leaf.entries(start).take(n).for_each(&mut *self.sink);
            leaf.remove(start, n);
            return;
        }
        // SAFETY: above level 0 stand inner nodes; a child's reference never outlives its own call.
        let inner = unsafe { node.inner() };
        let (mut i, mut start) = inner.find_rank(start);
        let mut left = n;
        let mut touched = i;
        while left > 0 {
            let count = inner.count(i);
            let take = left.min(count - start);
            left -= take;
            let child = inner.node(i);
            if take == count {
                self.free(child, level - 1);
                inner.remove(i);
                continue;
            }
            self.remove(child, level - 1, start, take);
            *inner.count_mut(i) -= take;
            if start == 0 {
                // SAFETY: the child kept at least one entry.
                let (key, first) = unsafe { first_of(child, level - 1) };
                inner.set_first(i, key, first);
            }
            touched = i;
            start = 0;
            i += 1;
        }
        self.merge_around(inner, touched, level - 1);
    }

    /// Merges children around `touched` with their right neighbours where both fit one node well.
    fn merge_around(&mut self, inner: &mut Inner, touched: usize, level: u8) {
        let mut i = (touched + 1).min(inner.len().saturating_sub(1));
        // Right to left over the (at most three) pairs next to what changed.
        for _ in 0..3 {
            if i == 0 {
                return;
            }
            self.merge(inner, i - 1, level);
            i -= 1;
        }
    }

    /// Merges child `i + 1` into child `i` if they fit.
    fn merge(&mut self, inner: &mut Inner, i: usize, level: u8) {
        if i + 1 >= inner.len() {
            return;
        }
        let (left, right) = (inner.node(i), inner.node(i + 1));
        if level == 0 {
            if inner.count(i) + inner.count(i + 1) > LEAF_MERGE as u64 {
                return;
            }
            // SAFETY: two different live leaves; `right` is freed after its entries moved.
            unsafe {
                left.leaf().append_raw(right.leaf().entries(0));
                Leaf::free(right.0.cast());
                left.leaf().rebuild();
            }
            self.node_bytes += size_of::<Leaf>();
        } else {
            // SAFETY: two different live inner nodes; `right` is freed after its children moved.
            unsafe {
                if left.inner().len() + right.inner().len() > INNER_MERGE {
                    return;
                }
                right.inner().move_tail(0, left.inner());
                Inner::free(right.0.cast());
            }
            self.node_bytes += size_of::<Inner>();
        }
        *inner.count_mut(i) += inner.count(i + 1);
        inner.remove(i + 1);
    }
}

/// Builds a tree from entries in ascending order: leaves first, then level by level.
struct Builder {
    leaves: Vec<Child>,
    last: *mut Leaf,
    len: u64,
}

impl Builder {
    fn new() -> Builder {
        Builder { leaves: Vec::new(), last: ptr::null_mut(), len: 0 }
    }

    fn push(&mut self, entry: Entry) {
        // SAFETY: `last` is null or the newest leaf, which only `self` knows; the entry is the caller's own.
        unsafe {
            if self.last.is_null() || (*self.last).len() == BULK_LEAF {
                let leaf = Leaf::alloc();
                if !self.last.is_null() {
                    (*self.last).rebuild();
                    (*self.last).next = leaf;
                    (*leaf).prev = self.last;
                }
                self.last = leaf;
                self.leaves.push(Child { key: entry.key(), first: entry, count: 0, node: Node(leaf.cast()) });
            }
            (*self.last).append_raw(std::iter::once(entry));
        }
        if let Some(child) = self.leaves.last_mut() {
            child.count += 1;
        }
        self.len += 1;
    }

    fn finish(self) -> Tree {
        if self.len == 0 {
            return Tree::new();
        }
        // SAFETY: not empty, so there is a last leaf, and it is ours.
        unsafe { (*self.last).rebuild() };
        let mut node_bytes = self.leaves.len() * size_of::<Leaf>();
        let (mut level, mut height) = (self.leaves, 0);
        while level.len() > 1 {
            let mut above = Vec::with_capacity(level.len().div_ceil(BULK_INNER));
            for group in level.chunks(BULK_INNER) {
                let inner = Inner::alloc();
                node_bytes += size_of::<Inner>();
                for (i, child) in group.iter().enumerate() {
                    // SAFETY: `inner` is new and ours.
                    unsafe { (*inner).insert(i, *child) };
                }
                let count = group.iter().map(|child| child.count).sum();
                above.push(Child { count, node: Node(inner.cast()), ..group[0] });
            }
            (level, height) = (above, height + 1);
        }
        Tree { root: level[0].node, height, len: self.len, node_bytes }
    }
}
