//! A block: up to some hundred neighbouring entries in one listpack, byte for byte what RDB files hold.
//!
//! ```text
//! block  = live | deleted | field count | field name ... | 0 | entry ...
//! entry  = flags | ms delta | seq delta | value ... | elements in front of this one       (flag SAME_FIELDS)
//!        | flags | ms delta | seq delta | field count | (field name | value) ... | elements in front of this one
//! ```
//!
//! Deltas are counted, wrapping, from the block's master id, which its owner keeps. The last element of an entry
//! lets a reverse walk find its start. Deleted entries stay as tombstones until the whole block goes; ids of live
//! entries ascend, while a tombstone may even lie above its successors (XSETID can turn the last id back).

use super::{CorruptStream, StreamId};
use crate::listpack::{Element, Iter, Listpack, Pos};

const DELETED: i64 = 1;
const SAME_FIELDS: i64 = 2;
/// Elements of an entry in front of its values: flags and two deltas.
const ENTRY_HEAD: usize = 3;
/// Room that every block leaves below a listpack's limit, so that counters can always grow.
const RESERVE_BYTES: usize = 64;

/// An entry that isn't deleted, borrowed from its block.
#[derive(Clone)]
pub struct Entry<'a> {
    pub id: StreamId,
    /// Pairs of field and value, as they were added.
    pub fields: Fields<'a>,
}

/// The fields of an entry with their values.
#[derive(Clone)]
pub struct Fields<'a> {
    /// The block's common names; None where the entry brings its own.
    names: Option<Iter<'a>>,
    values: Iter<'a>,
    left: usize,
}

impl<'a> Iterator for Fields<'a> {
    type Item = (Element<'a>, Element<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let name = match &mut self.names {
            Some(names) => names.next()?,
            None => self.values.next()?,
        };
        Some((name, self.values.next()?))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Fields<'_> {}

/// One listpack of entries. Sound by construction: built by appending, or checked by [`Block::from_bytes`].
#[derive(Clone, Debug)]
pub(super) struct Block {
    list: Listpack,
}

/// Where an entry lies, decoded so far that its end can be found.
#[derive(Clone, Copy)]
struct Place {
    flags: i64,
    id: StreamId,
    /// Field-value pairs, and where the first value (or own name) stands.
    fields: usize,
    values: Pos,
}

impl Place {
    fn deleted(&self) -> bool {
        self.flags & DELETED != 0
    }

    fn same_fields(&self) -> bool {
        self.flags & SAME_FIELDS != 0
    }

    fn elements(&self) -> usize {
        if self.same_fields() { self.fields } else { self.fields * 2 }
    }
}

/// A block's names and where its entries start.
#[derive(Clone, Copy)]
struct Master {
    id: StreamId,
    fields: usize,
    names: Pos,
}

impl Block {
    /// A block whose first entry is `fields` under the id that becomes the block's master id. None if it
    /// would be too large.
    pub(super) fn new(fields: &[(&[u8], &[u8])]) -> Option<Self> {
        let mut list = Listpack::new();
        let head = [1, 0, i64::try_from(fields.len()).ok()?].map(Element::Int);
        let names = fields.iter().map(|(name, _)| Element::Str(name));
        let entry_head = [SAME_FIELDS, 0, 0].map(Element::Int);
        let values = fields.iter().map(|(_, value)| Element::Str(value));
        let elements = head
            .into_iter()
            .chain(names)
            .chain([Element::Int(0)])
            .chain(entry_head)
            .chain(values)
            .chain([Element::Int((fields.len() + ENTRY_HEAD) as i64)]);
        list.extend_back(elements).ok()?;
        list.would_fit(RESERVE_BYTES).then_some(Block { list })
    }

    /// Appends an entry. None, and no change, if the block would be too large.
    pub(super) fn append(&mut self, master: StreamId, id: StreamId, fields: &[(&[u8], &[u8])]) -> Option<()> {
        let head = self.master(master);
        let same = head.fields == fields.len()
            && self.list.iter_from(head.names).zip(fields).all(|(known, (name, _))| known.eq_bytes(name));
        let ms = id.ms.wrapping_sub(master.ms) as i64;
        let seq = id.seq.wrapping_sub(master.seq) as i64;
        let flags = if same { SAME_FIELDS } else { 0 };
        let head = [flags, ms, seq].map(Element::Int).into_iter();
        let pairs = fields.iter().flat_map(|(name, value)| [Element::Str(name), Element::Str(value)]);
        let size = fields.iter().fold(RESERVE_BYTES, |sum, (name, value)| {
            sum.saturating_add(Listpack::entry_bytes(Element::Str(value))).saturating_add(if same {
                0
            } else {
                Listpack::entry_bytes(Element::Str(name))
            })
        });
        // The entry's head and tail are within the reserve's double.
        if !self.list.would_fit(size.saturating_add(RESERVE_BYTES)) {
            return None;
        }
        if same {
            let values = fields.iter().map(|(_, value)| Element::Str(value));
            let back = Element::Int((fields.len() + ENTRY_HEAD) as i64);
            self.list.extend_back(head.chain(values).chain([back])).ok()?;
        } else {
            let own = Element::Int(fields.len() as i64);
            let back = Element::Int((fields.len() * 2 + ENTRY_HEAD + 1) as i64);
            self.list.extend_back(head.chain([own]).chain(pairs).chain([back])).ok()?;
        }
        let live = self.live();
        self.set_counter(0, live + 1);
        Some(())
    }

    /// Takes over a block from outside after checking every element: structure, counters, and live ids that
    /// ascend from `master` on. Gives the block and its last live id, None where all entries are deleted.
    pub(super) fn from_bytes(
        master: StreamId,
        bytes: &[u8],
    ) -> Result<(Self, Option<StreamId>), CorruptStream> {
        let list = Listpack::from_bytes_validated(bytes).map_err(|_| CorruptStream)?;
        if !list.would_fit(RESERVE_BYTES) {
            return Err(CorruptStream);
        }
        let last = check_block(&list, master).ok_or(CorruptStream)?;
        Ok((Block { list }, last))
    }

    /// The block as RDB files hold it.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.list.as_bytes()
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        self.list.allocated_bytes()
    }

    /// Entries that aren't deleted.
    pub(super) fn live(&self) -> u64 {
        self.counter(0)
    }

    /// Entries, deleted ones included.
    pub(super) fn total(&self) -> u64 {
        self.counter(0) + self.counter(1)
    }

    /// The id of the last entry, deleted or not.
    pub(super) fn last_id(&self, master: StreamId) -> StreamId {
        let mut walk = self.walk_back(master);
        walk.next().map_or(master, |(_, place)| place.id)
    }

    /// Marks an entry as deleted; false if there is none or it was deleted before.
    pub(super) fn delete(&mut self, master: StreamId, id: StreamId) -> bool {
        let mut live = self.walk(master).filter(|(_, place)| !place.deleted());
        let found = live.find(|(_, place)| place.id >= id).filter(|(_, place)| place.id == id);
        let Some((at, place)) = found else { return false };
        self.replace(at, place.flags | DELETED);
        self.count_deleted(1);
        true
    }

    /// Deletes entries from the front until `stop` says so of an id (given how many went already); answers
    /// how many went.
    pub(super) fn delete_front(
        &mut self,
        master: StreamId,
        mut stop: impl FnMut(StreamId, u64) -> bool,
    ) -> u64 {
        let head = self.master(master);
        let mut next = self.first_entry(&head);
        let mut removed = 0;
        while let Some(at) = next {
            let place = self.place(&head, at);
            if !place.deleted() {
                if stop(place.id, removed) {
                    break;
                }
                self.replace(at, place.flags | DELETED);
                removed += 1;
            }
            // Read again: other servers may have written the flags wider than we do.
            next = self.end(&self.place(&head, at));
        }
        self.count_deleted(removed);
        removed
    }

    /// The live entries, ascending.
    pub(super) fn entries(&self, master: StreamId) -> Entries<'_> {
        Entries(self.walk(master))
    }

    /// The live entries, descending.
    pub(super) fn entries_back(&self, master: StreamId) -> EntriesBack<'_> {
        EntriesBack(self.walk_back(master))
    }

    fn walk(&self, master: StreamId) -> Walk<'_> {
        let head = self.master(master);
        Walk { block: self, head, next: self.first_entry(&head) }
    }

    fn walk_back(&self, master: StreamId) -> WalkBack<'_> {
        let head = self.master(master);
        let first = self.first_entry(&head);
        WalkBack { block: self, head, first, back: first.and(self.list.last()) }
    }

    fn entry(&self, head: &Master, place: &Place) -> Entry<'_> {
        let names = place.same_fields().then(|| self.list.iter_from(head.names));
        let fields = Fields { names, values: self.list.iter_from(place.values), left: place.fields };
        Entry { id: place.id, fields }
    }

    fn master(&self, id: StreamId) -> Master {
        let count = self.skip(self.list.first(), 2).expect("a block has a master entry");
        let names = self.list.next(count).expect("a master entry has a terminator");
        Master { id, fields: self.int(count) as usize, names }
    }

    fn first_entry(&self, head: &Master) -> Option<Pos> {
        self.skip(Some(head.names), head.fields + 1)
    }

    fn place(&self, head: &Master, at: Pos) -> Place {
        let mut cursor = at;
        let mut step = || {
            cursor = self.list.next(cursor).expect("an entry is complete");
            cursor
        };
        let (ms, seq, mut values) = (self.int(step()), self.int(step()), step());
        let flags = self.int(at);
        let mut fields = head.fields;
        if flags & SAME_FIELDS == 0 {
            fields = self.int(values) as usize;
            values = step();
        }
        let id = StreamId::new(head.id.ms.wrapping_add(ms as u64), head.id.seq.wrapping_add(seq as u64));
        Place { flags, id, fields, values }
    }

    /// The start of the entry behind `place`.
    fn end(&self, place: &Place) -> Option<Pos> {
        self.skip(Some(place.values), place.elements() + 1)
    }

    fn skip(&self, from: Option<Pos>, elements: usize) -> Option<Pos> {
        (0..elements).try_fold(from?, |at, _| self.list.next(at))
    }

    fn int(&self, at: Pos) -> i64 {
        self.list.get(at).as_int().expect("a number of a checked block")
    }

    fn counter(&self, index: usize) -> u64 {
        let at = self.skip(self.list.first(), index).expect("a block has a master entry");
        self.int(at) as u64
    }

    fn set_counter(&mut self, index: usize, value: u64) {
        let at = self.skip(self.list.first(), index).expect("a block has a master entry");
        self.replace(at, value as i64);
    }

    fn count_deleted(&mut self, count: u64) {
        let (live, deleted) = (self.counter(0), self.counter(1));
        self.set_counter(0, live - count);
        self.set_counter(1, deleted + count);
    }

    fn replace(&mut self, at: Pos, value: i64) {
        self.list.replace(at, value).expect("the reserve covers counters");
    }
}

/// All entries of a block, ascending, with the positions of their flags.
struct Walk<'a> {
    block: &'a Block,
    head: Master,
    next: Option<Pos>,
}

impl Iterator for Walk<'_> {
    type Item = (Pos, Place);

    fn next(&mut self) -> Option<(Pos, Place)> {
        let at = self.next?;
        let place = self.block.place(&self.head, at);
        self.next = self.block.end(&place);
        Some((at, place))
    }
}

/// All entries of a block, descending.
struct WalkBack<'a> {
    block: &'a Block,
    head: Master,
    first: Option<Pos>,
    /// The last element of the next entry.
    back: Option<Pos>,
}

impl Iterator for WalkBack<'_> {
    type Item = (Pos, Place);

    fn next(&mut self) -> Option<(Pos, Place)> {
        let back = self.back?;
        let list = &self.block.list;
        let at = (0..self.block.int(back))
            .try_fold(back, |at, _| list.prev(at))
            .expect("an entry's length is right");
        self.back = if Some(at) == self.first { None } else { list.prev(at) };
        Some((at, self.block.place(&self.head, at)))
    }
}

/// The live entries of a block, ascending.
pub(super) struct Entries<'a>(Walk<'a>);

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let (_, place) = self.0.find(|(_, place)| !place.deleted())?;
        Some(self.0.block.entry(&self.0.head, &place))
    }
}

/// The live entries of a block, descending.
pub(super) struct EntriesBack<'a>(WalkBack<'a>);

impl<'a> Iterator for EntriesBack<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let (_, place) = self.0.find(|(_, place)| !place.deleted())?;
        Some(self.0.block.entry(&self.0.head, &place))
    }
}

/// Checks a block's structure; its last live id, if any, where it is sound.
fn check_block(list: &Listpack, master: StreamId) -> Option<Option<StreamId>> {
    let mut elements = list.iter();
    let int = |elements: &mut Iter<'_>| elements.next()?.as_int();
    let live = u64::try_from(int(&mut elements)?).ok()?;
    let deleted = u64::try_from(int(&mut elements)?).ok()?;
    let names = usize::try_from(int(&mut elements)?).ok()?;
    let skip = |elements: &mut Iter<'_>, count: usize| match count.checked_sub(1) {
        // A count beyond what is there ends the iterator, so this is bounded by the block.
        Some(last) => elements.nth(last).map(|_| ()),
        None => Some(()),
    };
    skip(&mut elements, names)?;
    if int(&mut elements)? != 0 {
        return None;
    }

    let (mut seen_live, mut seen_deleted) = (0, 0);
    let mut last = None;
    while let Some(flags) = elements.next() {
        let flags = flags.as_int()?;
        if flags & !(DELETED | SAME_FIELDS) != 0 {
            return None;
        }
        let (ms, seq) = (int(&mut elements)? as u64, int(&mut elements)? as u64);
        let id = StreamId::new(master.ms.wrapping_add(ms), master.seq.wrapping_add(seq));
        let values = if flags & SAME_FIELDS != 0 {
            names
        } else {
            usize::try_from(int(&mut elements)?).ok()?.checked_mul(2)?
        };
        skip(&mut elements, values)?;
        let own_count = usize::from(flags & SAME_FIELDS == 0);
        let length = i64::try_from(values.checked_add(ENTRY_HEAD + own_count)?).ok()?;
        if int(&mut elements)? != length {
            return None;
        }
        if flags & DELETED != 0 {
            seen_deleted += 1;
        } else {
            if id < master || last.is_some_and(|last| id <= last) {
                return None;
            }
            seen_live += 1;
            last = Some(id);
        }
    }
    (seen_live == live && seen_deleted == deleted && live + deleted > 0).then_some(last)
}
