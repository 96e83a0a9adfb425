//! BITOP: strings combined bit by bit into another.

use super::bits::{self, Combine};
use crate::commands::prelude::*;
use crate::commands::string::ranges::out_of_memory;
use kara_keyspace::NewValue;

pub(super) const BITOP: Spec = Spec {
    name: "bitop",
    arity: Arity::AtLeast(4),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::BITMAP,
    group: Group::Bitmap,
    since: "2.6.0",
    summary: "Combines strings bit by bit and stores the result.",
    complexity: "O(N) for N bytes of all sources",
    key_specs: &[
        KeySpec::key(2, KeyFlags::OW.union(KeyFlags::UPDATE)),
        KeySpec::keys(3, -1, KeyFlags::RO.union(KeyFlags::ACCESS)),
    ],
    args: &[
        Arg {
            name: "operation",
            kind: ArgKind::Oneof,
            args: &[
                Arg::word("and", "AND"),
                Arg::word("or", "OR"),
                Arg::word("xor", "XOR"),
                Arg::word("not", "NOT"),
            ],
            ..Arg::NEW
        },
        Arg { name: "destkey", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(1), multiple: true, ..Arg::NEW },
    ],
    handler: Some(bitop),
    ..Spec::NEW
};

fn bitop(cx: &mut Cx) -> Outcome {
    // `None` inverts.
    let operation = if cx.is_word(1, "and") {
        Some(Combine::And)
    } else if cx.is_word(1, "or") {
        Some(Combine::Or)
    } else if cx.is_word(1, "xor") {
        Some(Combine::Xor)
    } else if cx.is_word(1, "not") {
        None
    } else {
        return Err(CommandError::Syntax);
    };
    let destination = cx.arg(2);
    let sources = cx.args.get(3..).unwrap_or_default();
    if operation.is_none() && sources.len() != 1 {
        return Err(CommandError::text("ERR BITOP NOT must be called with a single source key."));
    }
    let result = combine(cx, operation, sources)?;
    cx.reply.integer(result.len() as i64);
    store(cx, destination, result)
}

/// The result for the sources in order. Missing keys are empty strings.
fn combine(cx: &mut Cx, operation: Option<Combine>, sources: &[&[u8]]) -> Result<Vec<u8>, CommandError> {
    let mut result = Vec::new();
    for (at, source) in sources.iter().enumerate() {
        let value = cx.keys.read_str(source)?;
        let mut digits = itoa::Buffer::new();
        let bytes = value.as_ref().map_or(&[][..], |value| value.as_bytes(&mut digits));
        // The first is copied as it is: OR into nothing.
        let step = operation.filter(|_| at > 0).unwrap_or(Combine::Or);
        bits::combine_into(step, &mut result, bytes).map_err(|_| out_of_memory())?;
    }
    if operation.is_none() {
        bits::invert(&mut result);
    }
    Ok(result)
}

/// An empty result is no key.
fn store(cx: &mut Cx, destination: &[u8], result: Vec<u8>) -> Outcome {
    if result.is_empty() {
        let deleted = cx.keys.delete(destination);
        if deleted {
            cx.keys.changed(destination, Class::GENERIC, "del");
        }
        return Ok(Effect::verbatim_if(deleted));
    }
    cx.keys.set_value(destination, NewValue::Str(result));
    let hashed = cx.keys.key(destination);
    if let Some(entry) = cx.keys.space.find_mut(cx.keys.db, &hashed) {
        entry.mark_raw();
    }
    cx.keys.changed(destination, Class::STRING, "set");
    Ok(Effect::Verbatim)
}
