//! The nodes of the sorted set's tree: leaves with hints beside the entry pointers, and inner nodes with subtree
//! counts. Searching and rearranging inside one node happens here; the way through the tree is `mod.rs`'s.

use super::Bound;
use super::entry::Entry;
use std::ptr;

/// Entries per leaf: 32 bytes of header and 60 slots fill a 512-byte size class.
pub(super) const LEAF_CAP: usize = 60;
/// Children per inner node: 8 bytes of header and 63 * 32 fill a 2048-byte size class.
pub(super) const FANOUT: usize = 63;
/// Neighbours are merged when they fit this many slots together: a quarter stays free, so that the next inserts
/// don't split the node again.
pub(super) const LEAF_MERGE: usize = LEAF_CAP * 3 / 4;
pub(super) const INNER_MERGE: usize = FANOUT * 3 / 4;

const ADDR_BITS: u32 = 48;
const ADDR_MASK: u64 = (1 << ADDR_BITS) - 1;
const MAX_HINT: u64 = 0xffff;

/// A leaf. A slot is `hint << 48 | address of the entry`, where hint is `(score key - base) >> shift`: never
/// saturated, so hints order like the scores and most comparisons need no look at the entry.
#[repr(C)]
pub(super) struct Leaf {
    base: u64,
    pub(super) prev: *mut Leaf,
    pub(super) next: *mut Leaf,
    shift: u8,
    len: u8,
    slots: [u64; LEAF_CAP],
}

/// An inner node: per child its first entry (with its score key beside it), its address and its number of entries.
#[repr(C)]
pub(super) struct Inner {
    len: usize,
    keys: [u64; FANOUT],
    firsts: [u64; FANOUT],
    counts: [u64; FANOUT],
    children: [Node; FANOUT],
}

const _: () = assert!(size_of::<Leaf>() == 512 && size_of::<Inner>() == 2024);

/// A child: a `Leaf` at level 0, an `Inner` above. The level isn't stored; the tree's height tells it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Node(pub(super) *mut u8);

/// A child as its parent keeps it.
#[derive(Clone, Copy)]
pub(super) struct Child {
    pub key: u64,
    pub first: Entry,
    pub count: u64,
    pub node: Node,
}

impl Node {
    pub(super) const NULL: Node = Node(ptr::null_mut());

    /// # Safety
    /// The node is a live leaf, and no other reference to it is in use.
    #[inline]
    pub(super) unsafe fn leaf<'a>(self) -> &'a mut Leaf {
        // SAFETY: by contract.
        unsafe { &mut *self.0.cast::<Leaf>() }
    }

    /// # Safety
    /// The node is a live inner node, and no other reference to it is in use.
    #[inline]
    pub(super) unsafe fn inner<'a>(self) -> &'a mut Inner {
        // SAFETY: by contract.
        unsafe { &mut *self.0.cast::<Inner>() }
    }
}

impl Leaf {
    pub(super) fn alloc() -> *mut Leaf {
        Box::into_raw(Box::new(Leaf {
            base: 0,
            prev: ptr::null_mut(),
            next: ptr::null_mut(),
            shift: 0,
            len: 0,
            slots: [0; LEAF_CAP],
        }))
    }

    /// Takes the leaf out of the chain and frees it, not its entries.
    ///
    /// # Safety
    /// `leaf` came from `alloc`, is not used afterwards, and its neighbours in the chain are live and not borrowed.
    pub(super) unsafe fn free(leaf: *mut Leaf) {
        // SAFETY: by contract; the chain's links are null or live.
        unsafe {
            let (prev, next) = ((*leaf).prev, (*leaf).next);
            if !prev.is_null() {
                (*prev).next = next;
            }
            if !next.is_null() {
                (*next).prev = prev;
            }
            drop(Box::from_raw(leaf));
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// The entry at `pos`, which is below `len`.
    #[inline]
    pub(super) fn entry(&self, pos: usize) -> Entry {
        debug_assert!(pos < self.len());
        // SAFETY: slots below `len` hold addresses of entries that live as long as they stand in a leaf.
        unsafe { Entry::from_addr(self.slots[pos] & ADDR_MASK) }
    }

    /// The entries from `from` to the leaf's end.
    pub(super) fn entries(&self, from: usize) -> impl Iterator<Item = Entry> + '_ {
        (from..self.len()).map(|pos| self.entry(pos))
    }

    /// How many of the leaf's entries stand before `bound`.
    pub(super) fn position(&self, bound: &Bound) -> usize {
        let slots = &self.slots[..self.len()];
        let (mut lo, mut hi) = (0, slots.len());
        if let Some(key) = bound.key() {
            let Some(distance) = key.checked_sub(self.base) else { return 0 };
            let hint = distance >> self.shift;
            if hint > MAX_HINT {
                return slots.len();
            }
            lo = slots.partition_point(|&slot| slot >> ADDR_BITS < hint);
            hi = lo + slots[lo..].partition_point(|&slot| slot >> ADDR_BITS == hint);
        }
        while lo < hi {
            let mid = lo + (hi - lo) / 2;
            let entry = self.entry(mid);
            // SAFETY: an entry in a leaf is live.
            if bound.is_after_entry(unsafe { entry.key() }, entry) {
                lo = mid + 1;
            } else {
                hi = mid;
            }
        }
        lo
    }

    /// Puts `entry` at `pos`; there is room, and the order is the caller's care.
    pub(super) fn insert(&mut self, pos: usize, key: u64, entry: Entry) {
        let len = self.len();
        if len == 0 {
            (self.base, self.shift) = (key, 0);
        }
        self.widen(key);
        self.slots.copy_within(pos..len, pos + 1);
        self.slots[pos] = self.slot(key, entry);
        self.len += 1;
    }

    /// Gives the entry at `pos` another score key, its place being right for it.
    pub(super) fn rekey(&mut self, pos: usize, key: u64) {
        let entry = self.entry(pos);
        self.widen(key);
        self.slots[pos] = self.slot(key, entry);
    }

    /// Appends at the end without hints; `rebuild` must follow.
    pub(super) fn append_raw(&mut self, entries: impl Iterator<Item = Entry>) {
        for entry in entries {
            self.slots[self.len()] = entry.addr();
            self.len += 1;
        }
    }

    /// Removes the entries `pos..pos + n`.
    pub(super) fn remove(&mut self, pos: usize, n: usize) {
        let len = self.len();
        self.slots.copy_within(pos + n..len, pos);
        self.len = (len - n) as u8;
    }

    /// Moves the entries from `at` on into a new leaf, linked in behind this one.
    pub(super) fn split(&mut self, at: usize) -> *mut Leaf {
        let right = Leaf::alloc();
        let this: *mut Leaf = self;
        // SAFETY: `right` is new; the next leaf, if any, is live and nobody borrows it.
        unsafe {
            (*right).append_raw(self.entries(at));
            (*right).prev = this;
            (*right).next = self.next;
            if !self.next.is_null() {
                (*self.next).prev = right;
            }
            self.next = right;
            self.len = at as u8;
            (*right).rebuild();
        }
        self.rebuild();
        right
    }

    #[inline]
    fn slot(&self, key: u64, entry: Entry) -> u64 {
        ((key - self.base) >> self.shift) << ADDR_BITS | entry.addr()
    }

    /// Makes base and shift such that `key` has a hint. The old hints follow by arithmetic alone: a wider shift is
    /// a shift of the hint, a lower base (by a multiple of the step) an addition.
    fn widen(&mut self, key: u64) {
        let len = self.len();
        if key >= self.base {
            let distance = key - self.base;
            if distance >> self.shift <= MAX_HINT {
                return;
            }
            let shift = distance.ilog2() as u8 - 15;
            let by = shift - self.shift;
            for slot in &mut self.slots[..len] {
                *slot = (*slot >> ADDR_BITS >> by) << ADDR_BITS | *slot & ADDR_MASK;
            }
            self.shift = shift;
            return;
        }
        let below = self.base - key;
        let top = if len == 0 { 0 } else { self.slots[len - 1] >> ADDR_BITS };
        let mut shift = self.shift;
        let steps = |shift: u8| below.div_ceil(1 << shift);
        while shift < 48 && steps(shift) + (top >> (shift - self.shift)) > MAX_HINT {
            shift += 1;
        }
        let by = shift - self.shift;
        // Half of the free range goes below: entries that come in descending order don't move the base every time.
        let free = MAX_HINT.saturating_sub(steps(shift) + (top >> by));
        let add = (steps(shift) + free / 2).min(self.base >> shift);
        for slot in &mut self.slots[..len] {
            *slot = ((*slot >> ADDR_BITS >> by) + add) << ADDR_BITS | *slot & ADDR_MASK;
        }
        self.base -= add << shift;
        self.shift = shift;
    }

    /// Chooses the finest hints for the entries that are here now, and looks at each of them.
    pub(super) fn rebuild(&mut self) {
        let len = self.len();
        if len == 0 {
            return;
        }
        // SAFETY: an entry in a leaf is live.
        let (low, high) = unsafe { (self.entry(0).key(), self.entry(len - 1).key()) };
        self.base = low;
        self.shift = ((high - low) | 1).ilog2().saturating_sub(15) as u8;
        for pos in 0..len {
            let entry = self.entry(pos);
            // SAFETY: an entry in a leaf is live.
            self.slots[pos] = self.slot(unsafe { entry.key() }, entry);
        }
    }

    /// Every hint is what base, shift and score say.
    #[cfg(test)]
    pub(super) fn check(&self) {
        for pos in 0..self.len() {
            let entry = self.entry(pos);
            // SAFETY: an entry in a leaf is live.
            let key = unsafe { entry.key() };
            assert!(key >= self.base && (key - self.base) >> self.shift <= MAX_HINT);
            assert_eq!(self.slots[pos], self.slot(key, entry));
        }
    }
}

impl Inner {
    pub(super) fn alloc() -> *mut Inner {
        Box::into_raw(Box::new(Inner {
            len: 0,
            keys: [0; FANOUT],
            firsts: [0; FANOUT],
            counts: [0; FANOUT],
            children: [Node::NULL; FANOUT],
        }))
    }

    /// Frees the node alone.
    ///
    /// # Safety
    /// `inner` came from `alloc` and is not used afterwards.
    pub(super) unsafe fn free(inner: *mut Inner) {
        // SAFETY: by contract.
        drop(unsafe { Box::from_raw(inner) });
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn count(&self, i: usize) -> u64 {
        self.counts[..self.len][i]
    }

    #[inline]
    pub(super) fn count_mut(&mut self, i: usize) -> &mut u64 {
        &mut self.counts[..self.len][i]
    }

    #[inline]
    pub(super) fn node(&self, i: usize) -> Node {
        self.children[..self.len][i]
    }

    pub(super) fn total(&self) -> u64 {
        self.counts[..self.len].iter().sum()
    }

    /// Entries in the children before `i`.
    #[inline]
    pub(super) fn before(&self, i: usize) -> u64 {
        self.counts[..i].iter().sum()
    }

    /// The child that holds the entry of this rank, and the rank inside it. The rank is below `total`.
    #[inline]
    pub(super) fn find_rank(&self, mut rank: u64) -> (usize, u64) {
        let mut i = 0;
        while rank >= self.count(i) {
            rank -= self.count(i);
            i += 1;
        }
        (i, rank)
    }

    /// How many children begin before `bound`.
    pub(super) fn position(&self, bound: &Bound) -> usize {
        let (mut lo, mut hi) = (0, self.len);
        while lo < hi {
            let mid = lo + (hi - lo) / 2;
            // SAFETY: `firsts` names entries that stand in the leaves below, hence live.
            if bound.is_after_entry(self.keys[mid], unsafe { Entry::from_addr(self.firsts[mid]) }) {
                lo = mid + 1;
            } else {
                hi = mid;
            }
        }
        lo
    }

    pub(super) fn first(&self) -> (u64, Entry) {
        debug_assert!(self.len > 0);
        // SAFETY: as in `position`.
        (self.keys[0], unsafe { Entry::from_addr(self.firsts[0]) })
    }

    pub(super) fn set_first(&mut self, i: usize, key: u64, first: Entry) {
        self.keys[i] = key;
        self.firsts[i] = first.addr();
    }

    /// Puts a child at `pos`; there is room.
    pub(super) fn insert(&mut self, pos: usize, child: Child) {
        let len = self.len;
        self.keys.copy_within(pos..len, pos + 1);
        self.firsts.copy_within(pos..len, pos + 1);
        self.counts.copy_within(pos..len, pos + 1);
        self.children.copy_within(pos..len, pos + 1);
        self.counts[pos] = child.count;
        self.children[pos] = child.node;
        self.set_first(pos, child.key, child.first);
        self.len += 1;
    }

    #[cfg(test)]
    pub(super) fn child(&self, i: usize) -> Child {
        // SAFETY: as in `position`.
        let first = unsafe { Entry::from_addr(self.firsts[i]) };
        Child { key: self.keys[i], first, count: self.count(i), node: self.node(i) }
    }

    /// Forgets child `pos`, whose node is the caller's to free.
    pub(super) fn remove(&mut self, pos: usize) {
        let len = self.len;
        self.keys.copy_within(pos + 1..len, pos);
        self.firsts.copy_within(pos + 1..len, pos);
        self.counts.copy_within(pos + 1..len, pos);
        self.children.copy_within(pos + 1..len, pos);
        self.len -= 1;
    }

    /// Moves the children from `at` on to the end of `to`, which has room for them.
    pub(super) fn move_tail(&mut self, at: usize, to: &mut Inner) {
        let (n, end) = (self.len - at, to.len);
        to.keys[end..end + n].copy_from_slice(&self.keys[at..self.len]);
        to.firsts[end..end + n].copy_from_slice(&self.firsts[at..self.len]);
        to.counts[end..end + n].copy_from_slice(&self.counts[at..self.len]);
        to.children[end..end + n].copy_from_slice(&self.children[at..self.len]);
        to.len += n;
        self.len = at;
    }
}
