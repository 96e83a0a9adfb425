//! Values as RDB bytes.
//!
//! Everything is appended to a `Vec`: whoever streams a file takes the bytes out between two values, or between two
//! steps of a large one ([`Steps`](super::steps::Steps)).

use super::{Version, containers, forms, stream, types};
use kara_base::number::parse_i64;
use kara_encoding::listpack::Element;
use kara_encoding::lzf;
use kara_encoding::packed::Form;
use kara_encoding::sorted_set::SortedSet;
use kara_keyspace::value::hash::{Hash, Pair};
use kara_keyspace::value::list::{List, NodeBytes};
use kara_keyspace::value::set::Set;
use kara_keyspace::value::stream::Stream;
use kara_keyspace::value::zset::ZSet;
use kara_keyspace::{Entry, Kind, StrRef};

/// How values are written.
#[derive(Clone, Copy, Debug)]
pub struct EncodeOptions {
    pub version: Version,
    /// LZF for texts of more than 20 bytes (`rdbcompression`).
    pub compress: bool,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        EncodeOptions { version: Version::Valkey80, compress: true }
    }
}

/// The value can't be told in that version: fields with expiries before Valkey 9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotInVersion;

/// Texts up to this length aren't worth compressing.
const COMPRESS_ABOVE: usize = 20;
/// Longer texts can't be numbers of 32 bits.
const NUMBER_DIGITS: usize = 11;

/// Appends primitives and values.
pub struct Encoder {
    pub out: Vec<u8>,
    pub options: EncodeOptions,
    scratch: Vec<u8>,
}

impl Encoder {
    pub fn new(options: EncodeOptions) -> Self {
        Encoder { out: Vec::new(), options, scratch: Vec::new() }
    }

    #[inline]
    pub fn u8(&mut self, byte: u8) {
        self.out.push(byte);
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    #[inline]
    pub fn length(&mut self, n: u64) {
        if n < 1 << 6 {
            self.out.push(n as u8);
        } else if n < 1 << 14 {
            self.out.extend_from_slice(&[0x40 | (n >> 8) as u8, n as u8]);
        } else if let Ok(short) = u32::try_from(n) {
            self.out.push(0x80);
            self.out.extend_from_slice(&short.to_be_bytes());
        } else {
            self.out.push(0x81);
            self.out.extend_from_slice(&n.to_be_bytes());
        }
    }

    /// A text as it is, or as a number or compressed where that is shorter.
    #[inline]
    pub fn string(&mut self, text: &[u8]) {
        if text.len() <= NUMBER_DIGITS
            && let Some(number) = parse_i64(text)
            && self.number(number)
        {
            return;
        }
        if self.options.compress && text.len() > COMPRESS_ABOVE && self.compressed(text) {
            return;
        }
        self.length(text.len() as u64);
        self.out.extend_from_slice(text);
    }

    /// A number of at most 32 bits; false, and nothing written, where it has more.
    fn number(&mut self, number: i64) -> bool {
        if let Ok(n) = i8::try_from(number) {
            self.out.extend_from_slice(&[0xc0 | forms::INT8, n as u8]);
        } else if let Ok(n) = i16::try_from(number) {
            self.out.push(0xc0 | forms::INT16);
            self.out.extend_from_slice(&n.to_le_bytes());
        } else if let Ok(n) = i32::try_from(number) {
            self.out.push(0xc0 | forms::INT32);
            self.out.extend_from_slice(&n.to_le_bytes());
        } else {
            return false;
        }
        true
    }

    fn compressed(&mut self, text: &[u8]) -> bool {
        self.scratch.clear();
        let mut packed = std::mem::take(&mut self.scratch);
        let shorter = lzf::compress(text, text.len() - 4, &mut packed);
        if shorter {
            self.out.push(0xc0 | forms::LZF);
            self.length(packed.len() as u64);
            self.length(text.len() as u64);
            self.out.extend_from_slice(&packed);
        }
        self.scratch = packed;
        shorter
    }

    pub(super) fn element(&mut self, element: Element<'_>) {
        match element {
            Element::Str(text) => self.string(text),
            Element::Int(number) => self.integer(number),
        }
    }

    fn integer(&mut self, number: i64) {
        if !self.number(number) {
            let mut digits = itoa::Buffer::new();
            let text = digits.format(number).as_bytes();
            self.length(text.len() as u64);
            self.out.extend_from_slice(text);
        }
    }

    /// The type and the value of an entry, without its key: what DUMP answers in front of version and checksum.
    pub fn value(&mut self, entry: &Entry) -> Result<(), NotInVersion> {
        let kind = self.type_of(entry)?;
        self.u8(kind);
        self.body(entry);
        Ok(())
    }

    /// The byte that says what the value is made of.
    pub fn type_of(&self, entry: &Entry) -> Result<u8, NotInVersion> {
        Ok(match entry.kind() {
            Kind::String => types::STRING,
            Kind::List => types::LIST_QUICKLIST_2,
            Kind::Set => match entry.get::<Set>() {
                Some(Set::Intset(_)) => types::SET_INTSET,
                Some(Set::Listpack(_)) => types::SET_LISTPACK,
                _ => types::SET,
            },
            Kind::ZSet => match entry.get::<ZSet>() {
                Some(set) if set.as_listpack().is_some() => types::ZSET_LISTPACK,
                _ => types::ZSET_2,
            },
            Kind::Hash => match entry.get::<Hash>() {
                Some(hash) if hash.is_listpack() => types::HASH_LISTPACK,
                Some(hash) if hash.expiring() > 0 => match self.options.version {
                    Version::Valkey80 => types::HASH_2,
                    Version::Redis11 => return Err(NotInVersion),
                },
                _ => types::HASH,
            },
            Kind::Stream => types::STREAM_3,
        })
    }

    /// The value behind its type and key.
    pub fn body(&mut self, entry: &Entry) {
        if let Some(text) = entry.string() {
            match text {
                StrRef::Int(number) => self.integer(number),
                StrRef::Bytes(bytes) => self.string(bytes),
            }
        } else if let Some(list) = entry.get::<List>() {
            self.list(list);
        } else if let Some(set) = entry.get::<Set>() {
            self.set(set);
        } else if let Some(set) = entry.get::<ZSet>() {
            self.zset(set);
        } else if let Some(hash) = entry.get::<Hash>() {
            self.hash(hash);
        } else if let Some(stream) = entry.get::<Stream>() {
            stream::encode(self, stream);
        }
    }

    fn list(&mut self, list: &List) {
        self.length(list.nodes() as u64);
        list.visit_nodes(0, usize::MAX, |node| self.node(node));
    }

    pub(super) fn node(&mut self, node: NodeBytes<'_>) {
        let (container, bytes) = match node {
            NodeBytes::Listpack(bytes) => (containers::PACKED, bytes),
            NodeBytes::Plain(text) => (containers::PLAIN, text),
        };
        self.length(container);
        self.string(bytes);
    }

    fn set(&mut self, set: &Set) {
        match set {
            Set::Intset(set) => self.string(set.as_bytes()),
            Set::Listpack(set) => self.string(set.as_bytes()),
            Set::Table(set) => {
                self.length(set.len() as u64);
                set.iter().for_each(|member| self.element(member));
            }
        }
    }

    fn zset(&mut self, set: &ZSet) {
        match set.form() {
            Form::Small(list) => self.string(list.as_bytes()),
            Form::Large(tree) => {
                self.length(tree.len() as u64);
                // Highest first: the reference loads into its skiplist's front, which is the quick end.
                self.members(tree, 0, tree.len());
            }
        }
    }

    /// Members from the rank on, counted from the highest.
    pub(super) fn members(&mut self, tree: &SortedSet, rank: usize, count: usize) {
        let count = count.min(tree.len().saturating_sub(rank));
        let start = tree.len().saturating_sub(rank + count);
        for (member, score) in tree.range(start, count, true) {
            self.string(member);
            self.out.extend_from_slice(&score.to_le_bytes());
        }
    }

    fn hash(&mut self, hash: &Hash) {
        if let Form::Small(list) = hash.form() {
            return self.string(list.as_bytes());
        }
        let with_expiries = hash.expiring() > 0;
        self.length(hash.len() as u64);
        hash.iter().for_each(|pair| self.pair(pair, with_expiries));
    }

    pub(super) fn pair(&mut self, pair: Pair<'_>, with_expiry: bool) {
        self.element(pair.field);
        self.element(pair.value);
        if with_expiry {
            self.out.extend_from_slice(&pair.expiry_ms.unwrap_or(-1).to_le_bytes());
        }
    }
}
