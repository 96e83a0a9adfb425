//! One node of a quicklist: a listpack, a single large element, or either of them compressed.

use crate::listpack::{Element, Listpack};
use crate::lzf;
use crate::size_class::size_class;

/// Below this many bytes compression is not worth a try.
const MIN_COMPRESS_BYTES: usize = 48;
/// What compression has to win, at least.
const MIN_COMPRESS_GAIN: usize = 8;
/// Bytes that a listpack without elements takes.
const EMPTY_LISTPACK_BYTES: usize = 7;
/// What an element may cost besides its text, as the reference estimates it.
const ENTRY_OVERHEAD_BYTES: usize = 8;
/// With a limit on the count, nodes and elements still stay below this many bytes.
const SAFETY_BYTES: usize = 8192;

/// How full a node may become, in the terms of `list-max-listpack-size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill(i32);

impl Fill {
    /// -1 to -5: bytes per node, 4 KiB to 64 KiB (below -5: as -5). Positive: elements per node; 0 means 1.
    pub fn new(setting: i32) -> Self {
        Fill(setting)
    }

    fn bytes(self) -> Option<usize> {
        (self.0 < 0).then(|| 2048usize << self.0.unsigned_abs().min(5))
    }

    fn count(self) -> usize {
        self.0.max(1).unsigned_abs() as usize
    }

    /// Whether a listpack of `bytes` with `count` elements is more than a node may hold.
    pub fn exceeded_by(self, bytes: usize, count: usize) -> bool {
        match self.bytes() {
            Some(limit) => bytes > limit,
            None => bytes > SAFETY_BYTES || count > self.count(),
        }
    }

    /// Whether a quicklist of one node may become a listpack again: the limits, divided by `divisor`, which is 2 after
    /// removals so that a list at the border doesn't change its shape all the time.
    pub fn allows_single(self, bytes: usize, count: usize, divisor: usize) -> bool {
        match self.bytes() {
            Some(limit) => bytes <= limit / divisor,
            None => count <= self.count() / divisor,
        }
    }
}

/// `Fill` and, for tests, the element size from which elements get nodes of their own (0: what `Fill` says).
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) fill: Fill,
    pub(super) packed_threshold: usize,
}

impl Shape {
    /// Whether an element of `len` bytes gets a node of its own.
    pub(super) fn is_large(self, len: usize) -> bool {
        if self.packed_threshold != 0 {
            return len >= self.packed_threshold;
        }
        len > self.fill.bytes().unwrap_or(SAFETY_BYTES)
    }

    /// Whether `node` takes one more element of `len` bytes.
    pub(super) fn has_room(self, node: &Node, len: usize) -> bool {
        !node.is_plain()
            && !self.is_large(len)
            && !self.fill.exceeded_by(node.raw_bytes() + len + ENTRY_OVERHEAD_BYTES, node.count() + 1)
    }

    /// Whether two neighbours fit into one node.
    pub(super) fn may_merge(self, a: &Node, b: &Node) -> bool {
        let bytes = a.raw_bytes() + b.raw_bytes() - EMPTY_LISTPACK_BYTES.min(a.raw_bytes());
        !a.is_plain() && !b.is_plain() && !self.fill.exceeded_by(bytes, a.count() + b.count())
    }
}

/// A compressed node: LZF of the listpack's blob or of the plain element.
#[derive(Clone)]
pub(super) struct Squeezed {
    raw_len: u32,
    plain: bool,
    lzf: Box<[u8]>,
}

/// 16 bytes, so that a node of 8 KiB costs no more than 0.2 % beside its content.
#[derive(Clone)]
pub(super) enum Node {
    Packed { count: u32, list: Listpack },
    Squeezed { count: u32, data: Box<Squeezed> },
    Plain(Box<Box<[u8]>>),
}

/// A look at a node's content; compressed nodes are unpacked for it.
pub(super) enum View<'a> {
    Packed(&'a Listpack),
    Unpacked(Listpack),
    Plain(&'a [u8]),
    UnpackedPlain(Vec<u8>),
}

impl Node {
    /// A node that holds one element.
    pub(super) fn of(text: &[u8], shape: Shape) -> Node {
        if shape.is_large(text.len()) {
            return Node::Plain(Box::new(text.into()));
        }
        let mut list = Listpack::new();
        match list.push_back(text) {
            Ok(()) => Node::Packed { count: 1, list },
            Err(_) => Node::Plain(Box::new(text.into())),
        }
    }

    pub(super) fn packed(list: Listpack) -> Node {
        Node::Packed { count: u32::try_from(list.len()).expect("a listpack below 1 GiB"), list }
    }

    #[inline]
    pub(super) fn count(&self) -> usize {
        match self {
            Node::Packed { count, .. } | Node::Squeezed { count, .. } => *count as usize,
            Node::Plain(_) => 1,
        }
    }

    /// Size of the content in bytes, uncompressed.
    pub(super) fn raw_bytes(&self) -> usize {
        match self {
            Node::Packed { list, .. } => list.bytes_len(),
            Node::Squeezed { data, .. } => data.raw_len as usize,
            Node::Plain(text) => text.len(),
        }
    }

    pub(super) fn is_plain(&self) -> bool {
        match self {
            Node::Packed { .. } => false,
            Node::Squeezed { data, .. } => data.plain,
            Node::Plain(_) => true,
        }
    }

    pub(super) fn is_squeezed(&self) -> bool {
        matches!(self, Node::Squeezed { .. })
    }

    /// Size of the stored form and whether it is compressed.
    pub(super) fn stored_bytes(&self) -> usize {
        match self {
            Node::Squeezed { data, .. } => data.lzf.len(),
            _ => self.raw_bytes(),
        }
    }

    /// Bytes allocated behind the node.
    pub(super) fn allocated_bytes(&self) -> usize {
        match self {
            Node::Packed { list, .. } => list.allocated_bytes(),
            Node::Squeezed { data, .. } => size_of::<Squeezed>() + size_class(data.lzf.len()),
            Node::Plain(text) => size_of::<Box<[u8]>>() + size_class(text.len()),
        }
    }

    #[inline]
    pub(super) fn view(&self) -> View<'_> {
        match self {
            Node::Packed { list, .. } => View::Packed(list),
            Node::Plain(text) => View::Plain(text),
            Node::Squeezed { data, .. } if data.plain => View::UnpackedPlain(data.raw()),
            Node::Squeezed { data, .. } => View::Unpacked(data.listpack()),
        }
    }

    /// Unpacks the node in its place.
    pub(super) fn open(&mut self) {
        if let Node::Squeezed { count, data } = self {
            *self = if data.plain {
                Node::Plain(Box::new(data.raw().into()))
            } else {
                Node::Packed { count: *count, list: data.listpack() }
            };
        }
    }

    /// Compresses the node in its place if that wins anything.
    pub(super) fn squeeze(&mut self) {
        let (raw, plain): (&[u8], bool) = match self {
            Node::Packed { list, .. } => (list.as_bytes(), false),
            Node::Plain(text) => (text, true),
            Node::Squeezed { .. } => return,
        };
        let Ok(raw_len) = u32::try_from(raw.len()) else { return };
        if raw.len() < MIN_COMPRESS_BYTES {
            return;
        }
        let mut lzf = Vec::new();
        if lzf::compress(raw, raw.len() - MIN_COMPRESS_GAIN - 1, &mut lzf) {
            let data = Box::new(Squeezed { raw_len, plain, lzf: lzf.into_boxed_slice() });
            *self = Node::Squeezed { count: self.count() as u32, data };
        }
    }

    /// Runs `change` on the node's listpack, unpacking it first, and counts again; `None` for a plain node.
    pub(super) fn edit<R>(&mut self, change: impl FnOnce(&mut Listpack) -> R) -> Option<R> {
        self.open();
        let Node::Packed { count, list } = self else { return None };
        let result = change(list);
        *count = u32::try_from(list.len()).expect("a listpack below 1 GiB");
        Some(result)
    }
}

impl Squeezed {
    fn raw(&self) -> Vec<u8> {
        lzf::decompress(&self.lzf, self.raw_len as usize).expect("what squeeze() made")
    }

    fn listpack(&self) -> Listpack {
        Listpack::from_trusted(&self.raw())
    }
}

impl View<'_> {
    /// Runs `look` on the element at `offset`, negative ones from the end.
    pub(super) fn with<R>(&self, offset: i64, look: impl FnOnce(Element<'_>) -> R) -> Option<R> {
        match self {
            View::Packed(list) => list.seek(offset).map(|pos| look(list.get(pos))),
            View::Unpacked(list) => list.seek(offset).map(|pos| look(list.get(pos))),
            View::Plain(text) => matches!(offset, 0 | -1).then(|| look(Element::Str(text))),
            View::UnpackedPlain(text) => matches!(offset, 0 | -1).then(|| look(Element::Str(text))),
        }
    }
}
