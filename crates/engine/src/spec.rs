//! What a command is: its name, arity, flags, keys, ACL categories and documentation, as one constant beside
//! its handler. Lookup, admission, key extraction, locking, COMMAND INFO/DOCS and statistics derive from it.

use crate::cx::Cx;
use crate::effect::Outcome;
use bitflags::bitflags;

bitflags! {
    /// The reference's command flags, as COMMAND INFO names them (`movablekeys` is derived from the key specs).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Flags: u32 {
        const WRITE = 1 << 0;
        const READONLY = 1 << 1;
        const DENYOOM = 1 << 2;
        const ADMIN = 1 << 3;
        const PUBSUB = 1 << 4;
        const NOSCRIPT = 1 << 5;
        const BLOCKING = 1 << 6;
        const LOADING = 1 << 7;
        const STALE = 1 << 8;
        const SKIP_MONITOR = 1 << 9;
        const SKIP_COMMANDLOG = 1 << 10;
        const ASKING = 1 << 11;
        const FAST = 1 << 12;
        const NO_AUTH = 1 << 13;
        const MAY_REPLICATE = 1 << 14;
        const NO_MULTI = 1 << 15;
        const ALLOW_BUSY = 1 << 16;
        const NO_ASYNC_LOADING = 1 << 17;
        const NO_MANDATORY_KEYS = 1 << 18;
    }
}

bitflags! {
    /// ACL categories. `@read`, `@write`, `@fast`, `@slow`, `@admin` + `@dangerous`, `@pubsub` and `@blocking`
    /// follow from the flags; a spec lists only the others.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Acl: u32 {
        const KEYSPACE = 1 << 0;
        const READ = 1 << 1;
        const WRITE = 1 << 2;
        const SET = 1 << 3;
        const SORTEDSET = 1 << 4;
        const LIST = 1 << 5;
        const HASH = 1 << 6;
        const STRING = 1 << 7;
        const BITMAP = 1 << 8;
        const HYPERLOGLOG = 1 << 9;
        const GEO = 1 << 10;
        const STREAM = 1 << 11;
        const PUBSUB = 1 << 12;
        const ADMIN = 1 << 13;
        const FAST = 1 << 14;
        const SLOW = 1 << 15;
        const BLOCKING = 1 << 16;
        const DANGEROUS = 1 << 17;
        const CONNECTION = 1 << 18;
        const TRANSACTION = 1 << 19;
        const SCRIPTING = 1 << 20;
    }
}

bitflags! {
    /// What a command does with the keys of one key spec.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct KeyFlags: u32 {
        const RO = 1 << 0;
        const RW = 1 << 1;
        const OW = 1 << 2;
        const RM = 1 << 3;
        const ACCESS = 1 << 4;
        const UPDATE = 1 << 5;
        const INSERT = 1 << 6;
        const DELETE = 1 << 7;
        const NOT_KEY = 1 << 8;
        const INCOMPLETE = 1 << 9;
        const VARIABLE_FLAGS = 1 << 10;
    }
}

const FLAG_NAMES: &[(Flags, &str)] = &[
    (Flags::WRITE, "write"),
    (Flags::READONLY, "readonly"),
    (Flags::DENYOOM, "denyoom"),
    (Flags::ADMIN, "admin"),
    (Flags::PUBSUB, "pubsub"),
    (Flags::NOSCRIPT, "noscript"),
    (Flags::BLOCKING, "blocking"),
    (Flags::LOADING, "loading"),
    (Flags::STALE, "stale"),
    (Flags::SKIP_MONITOR, "skip_monitor"),
    (Flags::SKIP_COMMANDLOG, "skip_commandlog"),
    (Flags::ASKING, "asking"),
    (Flags::FAST, "fast"),
    (Flags::NO_AUTH, "no_auth"),
    (Flags::MAY_REPLICATE, "may_replicate"),
    (Flags::NO_MULTI, "no_multi"),
    (Flags::ALLOW_BUSY, "allow_busy"),
    (Flags::NO_ASYNC_LOADING, "no_async_loading"),
    (Flags::NO_MANDATORY_KEYS, "no_mandatory_keys"),
];

const ACL_NAMES: &[(Acl, &str)] = &[
    (Acl::KEYSPACE, "keyspace"),
    (Acl::READ, "read"),
    (Acl::WRITE, "write"),
    (Acl::SET, "set"),
    (Acl::SORTEDSET, "sortedset"),
    (Acl::LIST, "list"),
    (Acl::HASH, "hash"),
    (Acl::STRING, "string"),
    (Acl::BITMAP, "bitmap"),
    (Acl::HYPERLOGLOG, "hyperloglog"),
    (Acl::GEO, "geo"),
    (Acl::STREAM, "stream"),
    (Acl::PUBSUB, "pubsub"),
    (Acl::ADMIN, "admin"),
    (Acl::FAST, "fast"),
    (Acl::SLOW, "slow"),
    (Acl::BLOCKING, "blocking"),
    (Acl::DANGEROUS, "dangerous"),
    (Acl::CONNECTION, "connection"),
    (Acl::TRANSACTION, "transaction"),
    (Acl::SCRIPTING, "scripting"),
];

const KEY_FLAG_NAMES: &[(KeyFlags, &str)] = &[
    (KeyFlags::RO, "RO"),
    (KeyFlags::RW, "RW"),
    (KeyFlags::OW, "OW"),
    (KeyFlags::RM, "RM"),
    (KeyFlags::ACCESS, "access"),
    (KeyFlags::UPDATE, "update"),
    (KeyFlags::INSERT, "insert"),
    (KeyFlags::DELETE, "delete"),
    (KeyFlags::NOT_KEY, "not_key"),
    (KeyFlags::INCOMPLETE, "incomplete"),
    (KeyFlags::VARIABLE_FLAGS, "variable_flags"),
];

impl Flags {
    /// The names in COMMAND INFO of the flags that are set (`may_replicate` shows nowhere).
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let shown = self.difference(Flags::MAY_REPLICATE);
        FLAG_NAMES.iter().filter(move |(flag, _)| shown.contains(*flag)).map(|(_, name)| *name)
    }
}

impl Acl {
    /// The names of the categories that are set, without `@`, in the reference's order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        ACL_NAMES.iter().filter(move |(category, _)| self.contains(*category)).map(|(_, name)| *name)
    }

    /// The category of an any-case name without `@`.
    pub fn by_name(name: &[u8]) -> Option<Acl> {
        let (category, _) = ACL_NAMES.iter().find(|(_, n)| name.eq_ignore_ascii_case(n.as_bytes()))?;
        Some(*category)
    }
}

impl KeyFlags {
    /// The names in COMMAND INFO of the flags that are set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        KEY_FLAG_NAMES.iter().filter(move |(flag, _)| self.contains(*flag)).map(|(_, name)| *name)
    }
}

/// Where the arguments that hold keys begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    Index(u16),
    /// After `keyword`, searched from position `start_from` (negative: from the end, backwards).
    Keyword {
        keyword: &'static str,
        start_from: i16,
    },
    Unknown,
}

/// How many keys follow, and at which distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Find {
    /// `last` relative to the first key (negative: from the end of the arguments); `limit` 2 means half of them.
    Range {
        last: i16,
        step: u16,
        limit: u16,
    },
    /// The number of keys stands at `num_index` after the beginning, the first key at `first`.
    KeyNum {
        num_index: u16,
        first: u16,
        step: u16,
    },
    Unknown,
}

/// One group of key arguments.
#[derive(Clone, Copy, Debug)]
pub struct KeySpec {
    pub notes: &'static str,
    pub flags: KeyFlags,
    pub begin: Begin,
    pub find: Find,
}

impl KeySpec {
    /// The one key at this place of the arguments.
    pub const fn key(at: u16, flags: KeyFlags) -> KeySpec {
        KeySpec::keys(at, 0, flags)
    }

    /// The keys from `first` on up to `last`, as in [`Find::Range`].
    pub const fn keys(first: u16, last: i16, flags: KeyFlags) -> KeySpec {
        let find = Find::Range { last, step: 1, limit: 0 };
        KeySpec { notes: "", flags, begin: Begin::Index(first), find }
    }

    /// At this place the number of keys, and behind it they.
    pub const fn counted(at: u16, flags: KeyFlags) -> KeySpec {
        let find = Find::KeyNum { num_index: 0, first: 1, step: 1 };
        KeySpec { notes: "", flags, begin: Begin::Index(at), find }
    }

    /// The same, with a note for COMMAND's reader.
    pub const fn noted(self, notes: &'static str) -> KeySpec {
        KeySpec { notes, ..self }
    }
}

/// The documentation group, as COMMAND DOCS names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Bitmap,
    Cluster,
    Connection,
    Generic,
    Geo,
    Hash,
    HyperLogLog,
    List,
    PubSub,
    Scripting,
    Server,
    Set,
    SortedSet,
    Stream,
    String,
    Transactions,
}

impl Group {
    /// The name in COMMAND DOCS.
    pub fn name(self) -> &'static str {
        match self {
            Group::Bitmap => "bitmap",
            Group::Cluster => "cluster",
            Group::Connection => "connection",
            Group::Generic => "generic",
            Group::Geo => "geo",
            Group::Hash => "hash",
            Group::HyperLogLog => "hyperloglog",
            Group::List => "list",
            Group::PubSub => "pubsub",
            Group::Scripting => "scripting",
            Group::Server => "server",
            Group::Set => "set",
            Group::SortedSet => "sorted-set",
            Group::Stream => "stream",
            Group::String => "string",
            Group::Transactions => "transactions",
        }
    }
}

/// The kind of one argument in COMMAND DOCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgKind {
    String,
    Integer,
    Double,
    Key,
    Pattern,
    UnixTime,
    PureToken,
    Oneof,
    Block,
}

impl ArgKind {
    /// The name in COMMAND DOCS.
    pub fn name(self) -> &'static str {
        match self {
            ArgKind::String => "string",
            ArgKind::Integer => "integer",
            ArgKind::Double => "double",
            ArgKind::Key => "key",
            ArgKind::Pattern => "pattern",
            ArgKind::UnixTime => "unix-time",
            ArgKind::PureToken => "pure-token",
            ArgKind::Oneof => "oneof",
            ArgKind::Block => "block",
        }
    }
}

/// One documented argument. `display` empty means: the name (blocks and oneofs have none).
#[derive(Clone, Copy, Debug)]
pub struct Arg {
    pub name: &'static str,
    pub kind: ArgKind,
    pub display: &'static str,
    pub token: Option<&'static str>,
    pub key_spec: Option<u8>,
    pub since: &'static str,
    pub deprecated_since: &'static str,
    pub optional: bool,
    pub multiple: bool,
    pub multiple_token: bool,
    pub args: &'static [Arg],
}

impl Arg {
    /// The defaults that a literal leaves out.
    pub const NEW: Arg = Arg {
        name: "",
        kind: ArgKind::String,
        display: "",
        token: None,
        key_spec: None,
        since: "",
        deprecated_since: "",
        optional: false,
        multiple: false,
        multiple_token: false,
        args: &[],
    };

    /// `LIMIT offset count`, of a range.
    pub const LIMIT: Arg = Arg {
        name: "limit",
        kind: ArgKind::Block,
        token: Some("LIMIT"),
        optional: true,
        args: &[
            Arg { name: "offset", kind: ArgKind::Integer, ..Arg::NEW },
            Arg { name: "count", kind: ArgKind::Integer, ..Arg::NEW },
        ],
        ..Arg::NEW
    };
    /// Pairs of a field and its value.
    pub const FIELDS: Arg = Arg {
        name: "data",
        kind: ArgKind::Block,
        multiple: true,
        args: &[
            Arg { name: "field", kind: ArgKind::String, ..Arg::NEW },
            Arg { name: "value", kind: ArgKind::String, ..Arg::NEW },
        ],
        ..Arg::NEW
    };

    /// A word that stands for itself.
    pub const fn word(name: &'static str, token: &'static str) -> Arg {
        Arg { name, kind: ArgKind::PureToken, token: Some(token), ..Arg::NEW }
    }

    pub const fn since(self, since: &'static str) -> Arg {
        Arg { since, ..self }
    }

    pub const fn optional(self) -> Arg {
        Arg { optional: true, ..self }
    }
}

/// Which shards a command needs beside those of its extracted keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locks {
    /// The shards of the keys that its key specs (or `get_keys`) name; none where there are no keys.
    Keys,
    /// Every shard: keys can't be known, or the whole keyspace is meant (FLUSHALL, SWAPDB, SORT ... BY).
    All,
    /// None: the handler takes one shard at a time. Inside a transaction every shard is held instead.
    Own,
}

/// The number of arguments, the command's name included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    Exactly(u8),
    AtLeast(u8),
}

impl Arity {
    /// The signed form of COMMAND INFO.
    pub fn signed(self) -> i64 {
        match self {
            Arity::Exactly(n) => i64::from(n),
            Arity::AtLeast(n) => -i64::from(n),
        }
    }

    /// Whether `count` arguments fit.
    #[inline]
    pub fn accepts(self, count: usize) -> bool {
        match self {
            Arity::Exactly(n) => count == usize::from(n),
            Arity::AtLeast(n) => count >= usize::from(n),
        }
    }
}

/// Runs a command whose locks are held; writes its reply, returns its effect.
pub type Handler = fn(&mut Cx) -> Outcome;

/// Positions of keys among the arguments with the flags of their use, for commands whose specs don't tell all.
/// `Err` means that the arguments are wrong.
pub type GetKeys = fn(args: &[&[u8]], found: &mut Vec<(usize, KeyFlags)>) -> Result<(), ()>;

/// One command or subcommand.
#[derive(Clone, Copy)]
pub struct Spec {
    /// Lower case; a subcommand's own name without its container's.
    pub name: &'static str,
    pub arity: Arity,
    pub flags: Flags,
    /// Categories beyond those that the flags imply.
    pub acl: Acl,
    pub group: Group,
    pub since: &'static str,
    pub deprecated_since: &'static str,
    pub replaced_by: &'static str,
    /// COMMAND DOCS' `doc_flags` holds `syscmd`.
    pub syscmd: bool,
    pub complexity: &'static str,
    pub summary: &'static str,
    pub tips: &'static [&'static str],
    pub key_specs: &'static [KeySpec],
    pub args: &'static [Arg],
    pub get_keys: Option<GetKeys>,
    pub locks: Locks,
    /// `None` only for containers, which need a subcommand.
    pub handler: Option<Handler>,
    pub subcommands: &'static [Spec],
}

impl Spec {
    /// The defaults that a literal leaves out.
    pub const NEW: Spec = Spec {
        name: "",
        arity: Arity::AtLeast(1),
        flags: Flags::empty(),
        acl: Acl::empty(),
        group: Group::Generic,
        since: "1.0.0",
        deprecated_since: "",
        replaced_by: "",
        syscmd: false,
        complexity: "",
        summary: "",
        tips: &[],
        key_specs: &[],
        args: &[],
        get_keys: None,
        locks: Locks::Keys,
        handler: None,
        subcommands: &[],
    };

    /// All ACL categories: the listed ones and those that the flags imply.
    pub fn acl_categories(&self) -> Acl {
        let mut acl = self.acl;
        let f = self.flags;
        if f.contains(Flags::WRITE) {
            acl |= Acl::WRITE;
        }
        // The reference leaves scripts that only read out of @read: what they call is checked by itself.
        if f.contains(Flags::READONLY) && self.group != Group::Scripting {
            acl |= Acl::READ;
        }
        if f.contains(Flags::ADMIN) {
            acl |= Acl::ADMIN | Acl::DANGEROUS;
        }
        if f.contains(Flags::PUBSUB) {
            acl |= Acl::PUBSUB;
        }
        acl |= if f.contains(Flags::FAST) { Acl::FAST } else { Acl::SLOW };
        if f.contains(Flags::BLOCKING) {
            acl |= Acl::BLOCKING;
        }
        acl
    }

    /// The first key's, last key's and step's positions of the old COMMAND format; zeros without keys.
    pub fn legacy_range(&self) -> (i64, i64, i64) {
        let (mut first, mut last, mut step) = (0i64, 0i64, 0i64);
        for spec in self.key_specs {
            let (Begin::Index(index), Find::Range { last: l, step: s, limit: 0 }) = (spec.begin, spec.find)
            else {
                continue;
            };
            let index = i64::from(index);
            let this_last = if l < 0 { i64::from(l) } else { index + i64::from(l) };
            if first == 0 {
                (first, last, step) = (index, this_last, i64::from(s));
            } else if step == 1 && i64::from(s) == 1 && last >= 0 && index == last + 1 {
                last = this_last;
            }
        }
        (first, last, step)
    }

    /// Whether the keys can't all be told from the legacy range.
    pub fn movable_keys(&self) -> bool {
        self.key_specs.iter().any(|s| {
            s.flags.contains(KeyFlags::INCOMPLETE)
                || !matches!((s.begin, s.find), (Begin::Index(_), Find::Range { limit: 0, .. }))
        })
    }
}
