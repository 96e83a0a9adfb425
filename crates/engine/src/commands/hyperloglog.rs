//! HyperLogLog: PFADD, PFCOUNT, PFMERGE and their debugging commands, on ordinary strings.

use super::prelude::*;
use kara_encoding::hyperloglog::{self as hll, HllError};
use kara_keyspace::StrRef;

/// The family's commands.
pub const COMMANDS: &[Spec] = &[PFADD, PFCOUNT, PFDEBUG, PFMERGE, PFSELFTEST];

fn error(error: HllError) -> CommandError {
    CommandError::text(error.message())
}

/// The counter at a key after a look at its header; None where there is no key. `read`: as a read command does.
fn counter<'c>(cx: &'c mut Cx, key: &[u8], read: bool) -> Result<Option<&'c [u8]>, CommandError> {
    let value = if read {
        cx.keys.read_str(key)?
    } else {
        match cx.keys.peek(key) {
            None => None,
            Some(entry) => Some(entry.string().ok_or(CommandError::WrongType)?),
        }
    };
    match value {
        None => Ok(None),
        Some(StrRef::Bytes(bytes)) => {
            hll::check(bytes).map_err(error)?;
            Ok(Some(bytes))
        }
        // No counter is a number.
        Some(StrRef::Int(_)) => Err(error(HllError::NotHll)),
    }
}

fn store(cx: &mut Cx, key: &[u8], value: &[u8]) -> Result<(), CommandError> {
    cx.keys.string_mut(key)?.replace(value);
    Ok(())
}

fn sparse_max_bytes(cx: &Cx) -> usize {
    usize::try_from(cx.config.hll_sparse_max_bytes).unwrap_or(usize::MAX)
}

const PFADD: Spec = Spec {
    name: "pfadd",
    arity: Arity::AtLeast(2),
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    acl: Acl::HYPERLOGLOG,
    group: Group::HyperLogLog,
    since: "2.8.9",
    summary: "Counts elements in a HyperLogLog, creating it if there is none.",
    complexity: "O(1) for each element.",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::INSERT))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "element", kind: ArgKind::String, optional: true, multiple: true, ..Arg::NEW },
    ],
    handler: Some(pfadd),
    ..Spec::NEW
};

fn pfadd(cx: &mut Cx) -> Outcome {
    let key = cx.arg(1);
    let sparse_max_bytes = sparse_max_bytes(cx);
    let elements = &cx.args[2..];
    let mut changes = 0;
    let found = counter(cx, key, false)?;
    if found.is_some_and(|value| hll::check(value) == Ok(hll::HllEncoding::Dense)) {
        // Twelve kilobytes: changed where they are.
        let mut value = cx.keys.string_mut(key)?;
        for element in elements {
            changes += u64::from(hll::add_dense(value.as_mut_slice(), element).map_err(error)?);
        }
    } else {
        changes += u64::from(found.is_none());
        let mut value = found.map_or_else(hll::create, <[u8]>::to_vec);
        for element in elements {
            changes += u64::from(hll::add(&mut value, element, sparse_max_bytes).map_err(error)?);
        }
        if changes > 0 {
            // Even a new one without elements has its zero to be counted.
            hll::invalidate(&mut value).map_err(error)?;
            store(cx, key, &value)?;
        }
    }
    if changes > 0 {
        cx.keys.changed(key, Class::STRING, "pfadd");
        cx.extra_changes += changes - 1;
    }
    cx.reply.integer(i64::from(changes > 0));
    Ok(Effect::verbatim_if(changes > 0))
}

const PFCOUNT: Spec = Spec {
    name: "pfcount",
    arity: Arity::AtLeast(2),
    flags: Flags::READONLY.union(Flags::MAY_REPLICATE),
    acl: Acl::HYPERLOGLOG,
    group: Group::HyperLogLog,
    since: "2.8.9",
    summary: "Estimates how many different elements one or several HyperLogLogs have seen.",
    complexity: "O(1) for one key, O(N) with a large constant for N keys.",
    key_specs: &[KeySpec::keys(1, -1, KeyFlags::RW.union(KeyFlags::ACCESS))
        .noted("RW because it may change the internal representation of the key, and propagate to replicas")],
    args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), multiple: true, ..Arg::NEW }],
    handler: Some(pfcount),
    ..Spec::NEW
};

fn pfcount(cx: &mut Cx) -> Outcome {
    if cx.args.len() > 2 {
        let mut union = hll::Registers::default();
        for key in &cx.args[1..] {
            if let Some(value) = counter(cx, key, true)? {
                union.merge(value).map_err(error)?;
            }
        }
        cx.reply.integer(union.count() as i64);
        return Ok(Effect::None);
    }
    let key = cx.arg(1);
    let Some(value) = counter(cx, key, true)? else {
        cx.reply.integer(0);
        return Ok(Effect::None);
    };
    if let Some(count) = hll::cached_count(value).map_err(error)? {
        cx.reply.integer(count as i64);
        return Ok(Effect::None);
    }
    let count = hll::count(value).map_err(error)?;
    hll::store_count(cx.keys.string_mut(key)?.as_mut_slice(), count).map_err(error)?;
    cx.keys.touched(key);
    cx.reply.integer(count as i64);
    // The cache is part of the value: replicas must count at the same moment.
    Ok(Effect::Verbatim)
}

const PFMERGE: Spec = Spec {
    name: "pfmerge",
    arity: Arity::AtLeast(2),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::HYPERLOGLOG,
    group: Group::HyperLogLog,
    since: "2.8.9",
    summary: "Merges HyperLogLogs into one.",
    complexity: "O(N) with a large constant for N HyperLogLogs.",
    key_specs: &[
        KeySpec::key(1, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::INSERT)),
        KeySpec::keys(2, -1, KeyFlags::RO.union(KeyFlags::ACCESS)),
    ],
    args: &[
        Arg { name: "destkey", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg {
            name: "sourcekey",
            kind: ArgKind::Key,
            key_spec: Some(1),
            optional: true,
            multiple: true,
            ..Arg::NEW
        },
    ],
    get_keys: Some(pfmerge_keys),
    handler: Some(pfmerge),
    ..Spec::NEW
};

/// The specs alone can't say that there may be no source.
fn pfmerge_keys(args: &[&[u8]], found: &mut Vec<(usize, KeyFlags)>) -> Result<(), ()> {
    found.push((1, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::INSERT)));
    found.extend((2..args.len()).map(|at| (at, KeyFlags::RO.union(KeyFlags::ACCESS))));
    Ok(())
}

fn pfmerge(cx: &mut Cx) -> Outcome {
    let key = cx.arg(1);
    let sparse_max_bytes = sparse_max_bytes(cx);
    let mut union = hll::Registers::default();
    let mut any_dense = false;
    for source in &cx.args[1..] {
        if let Some(value) = counter(cx, source, true)? {
            any_dense |= hll::check(value) == Ok(hll::HllEncoding::Dense);
            union.merge(value).map_err(error)?;
        }
    }
    let mut value = counter(cx, key, false)?.map_or_else(hll::create, <[u8]>::to_vec);
    if any_dense {
        hll::to_dense(&mut value).map_err(error)?;
    }
    union.store(&mut value, sparse_max_bytes).map_err(error)?;
    store(cx, key, &value)?;
    cx.keys.changed(key, Class::STRING, "pfadd");
    cx.reply.ok();
    Ok(Effect::Verbatim)
}

const PFDEBUG: Spec = Spec {
    name: "pfdebug",
    arity: Arity::Exactly(3),
    flags: Flags::ADMIN.union(Flags::DENYOOM).union(Flags::WRITE),
    acl: Acl::HYPERLOGLOG,
    group: Group::HyperLogLog,
    since: "2.8.9",
    syscmd: true,
    summary: "Shows the inside of a HyperLogLog, for debugging.",
    complexity: "N/A",
    key_specs: &[KeySpec::key(2, KeyFlags::RW.union(KeyFlags::ACCESS))],
    args: &[
        Arg { name: "subcommand", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
    ],
    handler: Some(pfdebug),
    ..Spec::NEW
};

fn pfdebug(cx: &mut Cx) -> Outcome {
    // Nothing here depends on the processor's instructions, so both settings are as good.
    if cx.is_word(1, "simd") {
        if !cx.is_word(2, "on") && !cx.is_word(2, "off") {
            return Err(CommandError::text("ERR Argument must be ON or OFF"));
        }
        cx.reply.simple(if cx.is_word(2, "on") { "enabled" } else { "disabled" });
        return Ok(Effect::None);
    }
    let key = cx.arg(2);
    let found = counter(cx, key, false)?;
    let mut value = found.ok_or(CommandError::text("ERR The specified key does not exist"))?.to_vec();
    if cx.is_word(1, "getreg") {
        let converted = hll::to_dense(&mut value).map_err(error)?;
        let mut registers = hll::Registers::default();
        registers.merge(&value).map_err(error)?;
        if converted {
            store(cx, key, &value)?;
        }
        cx.reply.array(hll::REGISTERS);
        for &register in registers.as_slice() {
            cx.reply.integer(i64::from(register));
        }
        return Ok(Effect::verbatim_if(converted));
    }
    if cx.is_word(1, "decode") {
        let text = hll::decode_sparse(&value).map_err(error)?;
        let text = text.ok_or(CommandError::text("ERR HLL encoding is not sparse"))?;
        cx.reply.bulk(text.as_bytes());
        return Ok(Effect::None);
    }
    if cx.is_word(1, "encoding") {
        cx.reply.simple(hll::check(&value).map_err(error)?.name());
        return Ok(Effect::None);
    }
    if cx.is_word(1, "todense") {
        let converted = hll::to_dense(&mut value).map_err(error)?;
        if converted {
            store(cx, key, &value)?;
        }
        cx.reply.integer(i64::from(converted));
        return Ok(Effect::verbatim_if(converted));
    }
    Err(CommandError::quoting("ERR Unknown PFDEBUG subcommand '{}'", &[cx.arg(1)]))
}

const PFSELFTEST: Spec = Spec {
    name: "pfselftest",
    arity: Arity::Exactly(1),
    flags: Flags::ADMIN,
    acl: Acl::HYPERLOGLOG,
    group: Group::HyperLogLog,
    since: "2.8.9",
    syscmd: true,
    summary: "Checks the HyperLogLog code against plain arrays.",
    complexity: "N/A",
    handler: Some(pfselftest),
    ..Spec::NEW
};

fn pfselftest(cx: &mut Cx) -> Outcome {
    match hll::self_test() {
        Ok(()) => cx.reply.ok(),
        Err(text) => return Err(CommandError::owned(text)),
    }
    Ok(Effect::None)
}
