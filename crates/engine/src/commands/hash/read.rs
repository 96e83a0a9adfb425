//! Reading fields and values.

use super::super::prelude::*;
use super::super::shared::{
    COUNT_OUT_OF_RANGE, KEY, ONE_LOOK, ONE_READ, OUT_OF_RANGE, ScanExtra, ScanOptions, as_i64,
    close_if_beyond_output, parse_cursor, repeated_picks, reply_element, reply_scan,
};
use super::field_now_ms;
use kara_keyspace::value::hash::{Hash, Pair};
use kara_resp::Writer;

pub(super) const HGET: Spec = Spec {
    name: "hget",
    arity: Arity::Exactly(3),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::HASH,
    group: Group::Hash,
    since: "2.0.0",
    summary: "Returns the value of a field of a hash.",
    complexity: "O(1)",
    key_specs: ONE_READ,
    args: &[KEY, Arg { name: "field", kind: ArgKind::String, ..Arg::NEW }],
    handler: Some(hget),
    ..Spec::NEW
};

fn hget(cx: &mut Cx) -> Outcome {
    let (now, field) = (field_now_ms(cx), cx.arg(2));
    match cx.keys.read_as::<Hash>(cx.arg(1))?.and_then(|hash| hash.get(field, now)) {
        Some(pair) => reply_element(cx.reply, pair.value),
        None => cx.reply.null(),
    }
    Ok(Effect::None)
}

pub(super) const HMGET: Spec = Spec {
    name: "hmget",
    arity: Arity::AtLeast(3),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::HASH,
    group: Group::Hash,
    since: "2.0.0",
    summary: "Returns the values of several fields of a hash.",
    complexity: "O(N), N being the number of fields named.",
    key_specs: ONE_READ,
    args: &[KEY, Arg { name: "field", kind: ArgKind::String, multiple: true, ..Arg::NEW }],
    handler: Some(hmget),
    ..Spec::NEW
};

fn hmget(cx: &mut Cx) -> Outcome {
    let now = field_now_ms(cx);
    let hash = cx.keys.read_as::<Hash>(cx.arg(1))?;
    let fields = cx.args.get(2..).unwrap_or_default();
    cx.reply.array(fields.len());
    for field in fields {
        match hash.and_then(|hash| hash.get(field, now)) {
            Some(pair) => reply_element(cx.reply, pair.value),
            None => cx.reply.null(),
        }
    }
    Ok(Effect::None)
}

pub(super) const HLEN: Spec = Spec {
    name: "hlen",
    arity: Arity::Exactly(2),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::HASH,
    group: Group::Hash,
    since: "2.0.0",
    summary: "Returns the number of fields of a hash.",
    complexity: "O(1)",
    key_specs: ONE_LOOK,
    args: &[KEY],
    handler: Some(hlen),
    ..Spec::NEW
};

fn hlen(cx: &mut Cx) -> Outcome {
    let len = cx.keys.read_as::<Hash>(cx.arg(1))?.map_or(0, Hash::len);
    cx.reply.integer(as_i64(len));
    Ok(Effect::None)
}

pub(super) const HSTRLEN: Spec = Spec {
    name: "hstrlen",
    arity: Arity::Exactly(3),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::HASH,
    group: Group::Hash,
    since: "3.2.0",
    summary: "Returns the length of the value of a field.",
    complexity: "O(1)",
    key_specs: ONE_LOOK,
    args: &[KEY, Arg { name: "field", kind: ArgKind::String, ..Arg::NEW }],
    handler: Some(hstrlen),
    ..Spec::NEW
};

fn hstrlen(cx: &mut Cx) -> Outcome {
    let (now, field) = (field_now_ms(cx), cx.arg(2));
    let pair = cx.keys.read_as::<Hash>(cx.arg(1))?.and_then(|hash| hash.get(field, now));
    cx.reply.integer(as_i64(pair.map_or(0, |pair| pair.value.len())));
    Ok(Effect::None)
}

pub(super) const HEXISTS: Spec = Spec {
    name: "hexists",
    arity: Arity::Exactly(3),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::HASH,
    group: Group::Hash,
    since: "2.0.0",
    summary: "Tells whether a hash has a field.",
    complexity: "O(1)",
    key_specs: ONE_LOOK,
    args: &[KEY, Arg { name: "field", kind: ArgKind::String, ..Arg::NEW }],
    handler: Some(hexists),
    ..Spec::NEW
};

fn hexists(cx: &mut Cx) -> Outcome {
    let (now, field) = (field_now_ms(cx), cx.arg(2));
    let there = cx.keys.read_as::<Hash>(cx.arg(1))?.is_some_and(|hash| hash.contains(field, now));
    cx.reply.integer(i64::from(there));
    Ok(Effect::None)
}

/// Replies with what `show` writes of each field (`per_field` elements); `open` writes the header for that many
/// fields.
fn reply_all(
    cx: &mut Cx,
    open: impl FnOnce(&mut Writer, usize),
    show: impl Fn(&mut Writer, Pair<'_>),
) -> Outcome {
    let now = field_now_ms(cx);
    let Some(hash) = cx.keys.read_as::<Hash>(cx.arg(1))? else {
        open(cx.reply, 0);
        return Ok(Effect::None);
    };
    let living = || hash.iter().filter(|pair| !pair.is_due(now));
    let count =
        if hash.earliest_expiry_ms().is_some_and(|at| at < now) { living().count() } else { hash.len() };
    open(cx.reply, count);
    living().for_each(|pair| show(cx.reply, pair));
    Ok(Effect::None)
}

pub(super) const HGETALL: Spec = Spec {
    name: "hgetall",
    arity: Arity::Exactly(2),
    flags: Flags::READONLY,
    acl: Acl::HASH,
    group: Group::Hash,
    since: "2.0.0",
    summary: "Returns all fields of a hash with their values.",
    complexity: "O(N), N being the size of the hash.",
    tips: &["nondeterministic_output_order"],
    key_specs: ONE_READ,
    args: &[KEY],
    handler: Some(hgetall),
    ..Spec::NEW
};

fn hgetall(cx: &mut Cx) -> Outcome {
    reply_all(cx, Writer::map, |reply, pair| {
        reply_element(reply, pair.field);
        reply_element(reply, pair.value);
    })
}

pub(super) const HKEYS: Spec = Spec {
    name: "hkeys",
    arity: Arity::Exactly(2),
    flags: Flags::READONLY,
    acl: Acl::HASH,
    group: Group::Hash,
    since: "2.0.0",
    summary: "Returns the fields of a hash.",
    complexity: "O(N), N being the size of the hash.",
    tips: &["nondeterministic_output_order"],
    key_specs: ONE_READ,
    args: &[KEY],
    handler: Some(hkeys),
    ..Spec::NEW
};

fn hkeys(cx: &mut Cx) -> Outcome {
    reply_all(cx, Writer::array, |reply, pair| reply_element(reply, pair.field))
}

pub(super) const HVALS: Spec = Spec {
    name: "hvals",
    arity: Arity::Exactly(2),
    flags: Flags::READONLY,
    acl: Acl::HASH,
    group: Group::Hash,
    since: "2.0.0",
    summary: "Returns the values of a hash.",
    complexity: "O(N), N being the size of the hash.",
    tips: &["nondeterministic_output_order"],
    key_specs: ONE_READ,
    args: &[KEY],
    handler: Some(hvals),
    ..Spec::NEW
};

fn hvals(cx: &mut Cx) -> Outcome {
    reply_all(cx, Writer::array, |reply, pair| reply_element(reply, pair.value))
}

pub(super) const HSCAN: Spec = Spec {
    name: "hscan",
    arity: Arity::AtLeast(3),
    flags: Flags::READONLY,
    acl: Acl::HASH,
    group: Group::Hash,
    since: "2.8.0",
    summary: "Walks through the fields of a hash step by step.",
    complexity: "O(1) for a call, O(N) for a whole walk, N being the size of the hash.",
    tips: &["nondeterministic_output"],
    key_specs: ONE_READ,
    args: &[
        KEY,
        Arg { name: "cursor", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "pattern", kind: ArgKind::Pattern, token: Some("MATCH"), optional: true, ..Arg::NEW },
        Arg { name: "count", kind: ArgKind::Integer, token: Some("COUNT"), optional: true, ..Arg::NEW },
        Arg::word("novalues", "NOVALUES").optional(),
    ],
    handler: Some(hscan),
    ..Spec::NEW
};

fn hscan(cx: &mut Cx) -> Outcome {
    let now = field_now_ms(cx);
    let cursor = parse_cursor(cx.arg(2))?;
    let Some(hash) = cx.keys.read_as::<Hash>(cx.arg(1))? else {
        reply_scan(cx.reply, |_| (0, 0));
        return Ok(Effect::None);
    };
    let options = ScanOptions::parse(cx.args.get(3..).unwrap_or_default(), ScanExtra::Value)?;
    reply_scan(cx.reply, |elements| {
        let mut found = 0;
        let next = hash.scan(cursor, options.count, now, |pair| {
            if options.wants(pair.field) {
                reply_element(elements, pair.field);
                found += 1;
                if !options.bare {
                    reply_element(elements, pair.value);
                    found += 1;
                }
            }
        });
        (next, found)
    });
    Ok(Effect::None)
}

pub(super) const HRANDFIELD: Spec = Spec {
    name: "hrandfield",
    arity: Arity::AtLeast(2),
    flags: Flags::READONLY,
    acl: Acl::HASH,
    group: Group::Hash,
    since: "6.2.0",
    summary: "Returns random fields of a hash.",
    complexity: "O(N), N being the number of fields returned.",
    tips: &["nondeterministic_output"],
    key_specs: ONE_READ,
    args: &[
        KEY,
        Arg {
            name: "options",
            kind: ArgKind::Block,
            optional: true,
            args: &[
                Arg { name: "count", kind: ArgKind::Integer, ..Arg::NEW },
                Arg::word("withvalues", "WITHVALUES").optional(),
            ],
            ..Arg::NEW
        },
    ],
    handler: Some(hrandfield),
    ..Spec::NEW
};

fn hrandfield(cx: &mut Cx) -> Outcome {
    let now = field_now_ms(cx);
    let mut rng = cx.keys.rng.clone();
    let outcome = if cx.args.len() == 2 {
        match cx.keys.read_as::<Hash>(cx.arg(1))?.and_then(|hash| hash.random(now, &mut rng)) {
            Some(pair) => reply_element(cx.reply, pair.field),
            None => cx.reply.null(),
        }
        Ok(Effect::None)
    } else {
        hrandfield_count(cx, now, &mut rng)
    };
    *cx.keys.rng = rng;
    outcome
}

fn hrandfield_count(cx: &mut Cx, now: i64, rng: &mut kara_base::rng::Rng) -> Outcome {
    let count = cx.int(2)?;
    if count == i64::MIN {
        return Err(COUNT_OUT_OF_RANGE);
    }
    let with_values = cx.args.len() == 4 && cx.is_word(3, "withvalues");
    if cx.args.len() > 4 || cx.args.len() == 4 && !with_values {
        return Err(CommandError::Syntax);
    }
    if with_values && count.unsigned_abs() > (i64::MAX / 2).unsigned_abs() {
        return Err(OUT_OF_RANGE);
    }
    let pairs = with_values && cx.reply.is_resp3();
    let hash = match cx.keys.read_as::<Hash>(cx.arg(1))? {
        Some(hash) if count != 0 => hash,
        _ => {
            cx.reply.array(0);
            return Ok(Effect::None);
        }
    };
    let mut picked = Writer::new(cx.reply.protocol());
    let mut number = 0;
    let mut show = |pair: Pair<'_>| {
        if pairs {
            picked.array(2);
        }
        reply_element(&mut picked, pair.field);
        if with_values {
            reply_element(&mut picked, pair.value);
        }
        number += 1;
    };
    if count > 0 {
        hash.sample(usize::try_from(count).unwrap_or(usize::MAX), now, rng, &mut show);
    } else if let Some(pair) = hash.random(now, rng) {
        let size = pair.field.len() + if with_values { pair.value.len() } else { 0 };
        close_if_beyond_output(cx.session, cx.config, count, size);
        let picks = repeated_picks(count, size)?;
        // Neither a listpack's walk to a rank nor a search among expired fields is made more than once.
        let few: Vec<Pair<'_>> = if hash.is_listpack() || hash.expiring() > 0 {
            hash.iter().filter(|pair| !pair.is_due(now)).collect()
        } else {
            Vec::new()
        };
        for _ in 0..picks {
            let pick = match few.len() {
                0 => hash.random(now, rng),
                len => few.get(rng.below(len as u64) as usize).copied(),
            };
            pick.into_iter().for_each(&mut show);
        }
    }
    cx.reply.array(if with_values && !pairs { number * 2 } else { number });
    cx.reply.raw(picked.as_bytes());
    Ok(Effect::None)
}
