//! Values from RDB bytes, of every type and age. What comes out satisfies every invariant of the value types; what
//! doesn't is an error.

use super::source::{Reader, Source};
use super::{FOREIGN, RdbError, containers, stream, types, ziplist};
use kara_base::hash::HashSeed;
use kara_base::number::parse_f64;
use kara_encoding::field_table::FieldTable;
use kara_encoding::intset::Intset;
use kara_encoding::large_set::LargeSet;
use kara_encoding::listpack::{Element, Listpack};
use kara_keyspace::value::hash::{Hash, HashConfig, SetExpiry};
use kara_keyspace::value::list::{End, List, ListLimits};
use kara_keyspace::value::set::{Set, SetConfig};
use kara_keyspace::value::zset::{ZSet, ZSetConfig};
use kara_keyspace::{Entry, StrValue, Value};

/// What decides which form a value takes in memory.
#[derive(Clone, Copy, Debug)]
pub struct ValueLimits {
    pub list: ListLimits,
    pub set: SetConfig,
    pub hash: HashConfig,
    pub zset: ZSetConfig,
}

impl ValueLimits {
    /// The reference's defaults, for tools and tests.
    pub fn with_seed(seed: HashSeed) -> Self {
        ValueLimits {
            list: ListLimits::default(),
            set: SetConfig {
                max_intset_entries: 512,
                max_listpack_entries: 128,
                max_listpack_value: 64,
                seed,
            },
            hash: HashConfig { max_listpack_entries: 512, max_listpack_value: 64, seed },
            zset: ZSetConfig { max_listpack_entries: 128, max_listpack_value: 64, seed },
        }
    }
}

/// What else decides how a value is read.
#[derive(Clone, Copy, Debug)]
pub struct DecodeOptions {
    pub limits: ValueLimits,
    /// The version of the file or payload.
    pub version: u16,
    /// Fields whose time (Unix ms) is before this are left out.
    pub drop_fields_before_ms: Option<i64>,
}

/// How much room a count from outside may ask for before the elements have come.
const ROOM_MAX: u64 = 4096;

fn room(count: u64) -> usize {
    count.min(ROOM_MAX) as usize
}

fn corrupt(what: &'static str) -> RdbError {
    RdbError::Corrupt(what)
}

fn filled<T>(value: T, is_empty: impl FnOnce(&T) -> bool) -> Result<T, RdbError> {
    if is_empty(&value) { Err(RdbError::Empty) } else { Ok(value) }
}

/// Whether the byte stands for a type of value.
pub fn is_value_type(kind: u8, version: u16) -> bool {
    if FOREIGN.contains(&version) {
        return kind <= types::STREAM_3 && kind != 8
            || matches!(kind, types::FOREIGN_HASH_METADATA | types::FOREIGN_HASH_LISTPACK_EX);
    }
    kind <= types::HASH_2 && kind != 8
}

/// Reads the value of a key and makes the entry; strings go in without a copy between.
pub fn entry<S: Source>(
    from: &mut Reader<S>,
    kind: u8,
    key: &[u8],
    expire_at_ms: Option<i64>,
    options: &DecodeOptions,
) -> Result<Entry, RdbError> {
    if kind == types::STRING {
        return Ok(Entry::new_string(key, StrValue::from_bytes(from.string()?), expire_at_ms));
    }
    value(from, kind, options).map(|value| Entry::new(key, value, expire_at_ms))
}

/// Reads the value that stands behind its type.
pub fn value<S: Source>(from: &mut Reader<S>, kind: u8, options: &DecodeOptions) -> Result<Value, RdbError> {
    let limits = &options.limits;
    let foreign = FOREIGN.contains(&options.version);
    if !is_value_type(kind, options.version) {
        return Err(RdbError::Unsupported(format!("Unknown RDB encoding type {kind}")));
    }
    Ok(match kind {
        types::STRING => Value::from_string(from.string_vec()?),
        types::LIST => Value::List(list_of_strings(from, limits)?),
        types::SET => Value::Set(set_of_strings(from, limits)?),
        types::ZSET | types::ZSET_2 => Value::ZSet(zset(from, kind, limits)?),
        types::HASH => Value::Hash(hash(from, Expiries::None, options)?),
        types::HASH_2 => Value::Hash(hash(from, Expiries::Behind, options)?),
        types::FOREIGN_HASH_METADATA if foreign => {
            let earliest_ms = from.i64_le()?;
            Value::Hash(hash(from, Expiries::InFront { earliest_ms }, options)?)
        }
        types::FOREIGN_HASH_LISTPACK_EX if foreign => Value::Hash(hash_of_triples(from, options)?),
        types::HASH_ZIPMAP | types::HASH_ZIPLIST | types::HASH_LISTPACK => {
            let pairs = packed(from, kind)?;
            // An empty zipmap isn't a small hash whose fields are gone, but none at all.
            if kind == types::HASH_ZIPMAP && pairs.is_empty() {
                return Err(corrupt("Zipmap integrity check failed."));
            }
            check_pairs(&pairs, "Hash listpack integrity check failed.")?;
            Value::Hash(Hash::from_listpack(pairs, &limits.hash))
        }
        types::LIST_ZIPLIST => {
            let mut list = List::new();
            list.push_node_listpack(packed(from, kind)?, &limits.list);
            list.settle(&limits.list);
            Value::List(filled(list, List::is_empty)?)
        }
        types::LIST_QUICKLIST | types::LIST_QUICKLIST_2 => Value::List(quicklist(from, kind, limits)?),
        types::SET_INTSET => {
            from.examined += 1;
            let set = Intset::from_bytes_validated(from.string()?)
                .map_err(|_| corrupt("Intset integrity check failed."))?;
            Value::Set(Set::from_intset(filled(set, Intset::is_empty)?, &limits.set))
        }
        types::SET_LISTPACK => {
            let members = packed(from, kind)?;
            if members.has_duplicates_every(1) {
                return Err(corrupt("Set listpack integrity check failed."));
            }
            Value::Set(Set::from_listpack(filled(members, Listpack::is_empty)?, &limits.set))
        }
        types::ZSET_ZIPLIST | types::ZSET_LISTPACK => Value::ZSet(packed_zset(from, kind, limits)?),
        types::STREAM | types::STREAM_2 | types::STREAM_3 => Value::Stream(stream::decode(from, kind)?),
        types::MODULE_PRE_GA | types::MODULE_2 => {
            return Err(RdbError::Unsupported(module_name(from).unwrap_or_default()));
        }
        _ => return Err(RdbError::Unsupported(format!("Unknown RDB encoding type {kind}"))),
    })
}

/// The complaint about a value of a module, with the module's name.
fn module_name<S: Source>(from: &mut Reader<S>) -> Result<String, RdbError> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let id = from.length()?;
    let name: String =
        (0..9).map(|place| char::from(LETTERS[(id >> (10 + 6 * (8 - place)) & 63) as usize])).collect();
    Ok(format!("The RDB file contains module data I can't load: no matching module type '{name}'"))
}

/// A value that is one blob, as a listpack.
fn packed<S: Source>(from: &mut Reader<S>, kind: u8) -> Result<Listpack, RdbError> {
    from.examined += 1;
    let blob = from.string()?;
    let complaint = corrupt(match kind {
        types::LIST_ZIPLIST => "List ziplist integrity check failed.",
        types::ZSET_ZIPLIST => "Zset ziplist integrity check failed.",
        types::HASH_ZIPLIST => "Hash ziplist integrity check failed.",
        types::LIST_QUICKLIST | types::LIST_QUICKLIST_2 => "Quicklist integrity check failed.",
        types::SET_LISTPACK => "Set listpack integrity check failed.",
        types::ZSET_LISTPACK => "Zset listpack integrity check failed.",
        _ => "Hash listpack integrity check failed.",
    });
    match kind {
        types::HASH_ZIPMAP => ziplist::zipmap(blob),
        types::LIST_ZIPLIST | types::ZSET_ZIPLIST | types::HASH_ZIPLIST | types::LIST_QUICKLIST => {
            ziplist::ziplist(blob).map_err(|_| complaint)
        }
        _ => Listpack::from_bytes_validated(blob).map_err(|_| complaint),
    }
}

fn check_pairs(pairs: &Listpack, complaint: &'static str) -> Result<(), RdbError> {
    if pairs.is_empty() {
        return Err(RdbError::Empty);
    }
    if !pairs.len().is_multiple_of(2) || pairs.has_duplicates_every(2) {
        return Err(corrupt(complaint));
    }
    Ok(())
}

fn list_of_strings<S: Source>(from: &mut Reader<S>, limits: &ValueLimits) -> Result<List, RdbError> {
    let mut list = List::for_many(&limits.list);
    for _ in 0..from.length()? {
        list.push(End::Back, from.string()?, &limits.list);
    }
    list.settle(&limits.list);
    filled(list, List::is_empty)
}

fn quicklist<S: Source>(from: &mut Reader<S>, kind: u8, limits: &ValueLimits) -> Result<List, RdbError> {
    let mut list = List::for_many(&limits.list);
    for _ in 0..from.length()? {
        let container = if kind == types::LIST_QUICKLIST_2 { from.length()? } else { containers::PACKED };
        match container {
            containers::PLAIN => match from.string()? {
                [] => return Err(corrupt("Quicklist integrity check failed.")),
                text => list.push_node_plain(text, &limits.list),
            },
            // An empty node is left out, a list of such nodes alone is empty.
            containers::PACKED => list.push_node_listpack(packed(from, kind)?, &limits.list),
            _ => return Err(corrupt("Quicklist integrity check failed.")),
        }
    }
    list.settle(&limits.list);
    filled(list, List::is_empty)
}

fn set_of_strings<S: Source>(from: &mut Reader<S>, limits: &ValueLimits) -> Result<Set, RdbError> {
    let count = from.length()?;
    let config = &limits.set;
    let mut set = if count > config.max_intset_entries.max(config.max_listpack_entries) as u64 {
        Set::Table(Box::new(LargeSet::new(config.seed)))
    } else {
        Set::new()
    };
    for _ in 0..count {
        if !set.add(from.string()?, config) {
            return Err(corrupt("Duplicate set members detected"));
        }
    }
    filled(set, Set::is_empty)
}

fn zset<S: Source>(from: &mut Reader<S>, kind: u8, limits: &ValueLimits) -> Result<ZSet, RdbError> {
    let count = from.length()?;
    let mut items: Vec<(f64, Box<[u8]>)> = Vec::with_capacity(room(count));
    for _ in 0..count {
        let member = from.string()?.into();
        let score = if kind == types::ZSET_2 { from.f64_le()? } else { from.text_score()? };
        if score.is_nan() {
            return Err(corrupt("Zset with NAN score detected"));
        }
        items.push((score, member));
    }
    let mut members: Vec<&[u8]> = items.iter().map(|(_, member)| &**member).collect();
    members.sort_unstable();
    if members.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(corrupt("Duplicate zset fields detected"));
    }
    drop(members);
    filled(ZSet::from_items(items, &limits.zset), ZSet::is_empty)
}

fn packed_zset<S: Source>(from: &mut Reader<S>, kind: u8, limits: &ValueLimits) -> Result<ZSet, RdbError> {
    const COMPLAINT: &str = "Zset listpack integrity check failed.";
    let pairs = packed(from, kind)?;
    check_pairs(
        &pairs,
        if kind == types::ZSET_ZIPLIST { "Zset ziplist integrity check failed." } else { COMPLAINT },
    )?;
    // Rewritten as this server writes scores (a ziplist's may be texts of other digits), which also brings pairs out of
    // order into it.
    let mut items = Vec::with_capacity(pairs.len() / 2);
    let mut elements = pairs.iter();
    while let (Some(member), Some(score)) = (elements.next(), elements.next()) {
        let score = match score {
            Element::Int(number) => number as f64,
            Element::Str(text) => {
                parse_f64(text).filter(|score| !score.is_nan()).ok_or(corrupt(COMPLAINT))?
            }
        };
        items.push((score, member.to_bytes()));
    }
    Ok(ZSet::from_items(items, &limits.zset))
}

/// Where a hash's expiries stand.
#[derive(Clone, Copy)]
enum Expiries {
    None,
    /// Eight bytes behind the value, -1 for none.
    Behind,
    /// A length in front of the field: 0 for none, else 1 more than the distance from the earliest.
    InFront {
        earliest_ms: i64,
    },
}

fn hash<S: Source>(
    from: &mut Reader<S>,
    expiries: Expiries,
    options: &DecodeOptions,
) -> Result<Hash, RdbError> {
    let count = from.length()?;
    let config = &options.limits.hash;
    let mut hash = if count > config.max_listpack_entries as u64 {
        Hash::large(Box::new(FieldTable::with_capacity(config.seed, room(count))))
    } else {
        Hash::new()
    };
    let mut field = Vec::new();
    let mut value = Vec::new();
    for _ in 0..count {
        let ahead = match expiries {
            Expiries::InFront { earliest_ms } => foreign_expiry(from.length()?, earliest_ms)?,
            _ => None,
        };
        from.string_into(&mut field)?;
        from.string_into(&mut value)?;
        let expiry_ms = match expiries {
            Expiries::Behind => checked_expiry(from.i64_le()?)?,
            _ => ahead,
        };
        put(&mut hash, &field, &value, expiry_ms, options)?;
    }
    if hash.is_empty() && count > 0 {
        return Err(RdbError::Expired);
    }
    filled(hash, Hash::is_empty)
}

fn checked_expiry(at_ms: i64) -> Result<Option<i64>, RdbError> {
    match at_ms {
        -1 => Ok(None),
        at_ms if at_ms < 0 => Err(corrupt("Hash with an invalid expiry of a field")),
        at_ms => Ok(Some(at_ms)),
    }
}

fn foreign_expiry(distance: u64, earliest_ms: i64) -> Result<Option<i64>, RdbError> {
    if distance == 0 {
        return Ok(None);
    }
    let at_ms = i64::try_from(distance - 1).ok().and_then(|distance| earliest_ms.checked_add(distance));
    at_ms.filter(|at_ms| *at_ms >= 0).map(Some).ok_or(corrupt("Hash with an invalid expiry of a field"))
}

fn put(
    hash: &mut Hash,
    field: &[u8],
    value: &[u8],
    expiry_ms: Option<i64>,
    options: &DecodeOptions,
) -> Result<(), RdbError> {
    if let (Some(at_ms), Some(now_ms)) = (expiry_ms, options.drop_fields_before_ms)
        && at_ms < now_ms
    {
        return Ok(());
    }
    let expiry = expiry_ms.map_or(SetExpiry::Clear, SetExpiry::At);
    // No time has come at the beginning of time: a field that is there is a second one of its name.
    if !hash.set(field, value, expiry, i64::MIN, &options.limits.hash) {
        return Err(corrupt("Duplicate hash fields detected"));
    }
    Ok(())
}

fn hash_of_triples<S: Source>(from: &mut Reader<S>, options: &DecodeOptions) -> Result<Hash, RdbError> {
    const COMPLAINT: &str = "Hash listpack integrity check failed.";
    from.i64_le()?;
    let triples = packed(from, types::HASH_LISTPACK)?;
    if !triples.len().is_multiple_of(3) {
        return Err(corrupt(COMPLAINT));
    }
    let mut hash = Hash::new();
    let mut elements = triples.iter();
    while let (Some(field), Some(value), Some(at)) = (elements.next(), elements.next(), elements.next()) {
        let at_ms = at.as_int().filter(|at_ms| *at_ms >= 0).ok_or(corrupt(COMPLAINT))?;
        put(&mut hash, &field.to_bytes(), &value.to_bytes(), (at_ms > 0).then_some(at_ms), options)?;
    }
    filled(hash, Hash::is_empty)
}
