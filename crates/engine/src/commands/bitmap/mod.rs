//! Bitmaps, strings seen as rows of bits: SETBIT and GETBIT here, counting and searching, BITOP and BITFIELD beside.

mod bitfield;
mod bitop;
mod bits;
mod scan;

use super::prelude::*;
use super::string::ranges::out_of_memory;
use crate::session::Origin;
use kara_keyspace::StrMut;

/// The family's commands.
pub const COMMANDS: &[Spec] =
    &[scan::BITCOUNT, bitfield::BITFIELD, bitfield::BITFIELD_RO, bitop::BITOP, scan::BITPOS, GETBIT, SETBIT];

const BAD_OFFSET: CommandError = CommandError::text("ERR bit offset is not an integer or out of range");

/// Refuses bit numbers of bytes that no string may have. What a primary or an AOF says was allowed once.
fn check_offset(cx: &Cx, offset: Option<u64>) -> Result<u64, CommandError> {
    let obeyed = matches!(cx.origin, Origin::Primary | Origin::AofLoad);
    offset.filter(|offset| obeyed || offset / 8 < cx.config.proto_max_bulk_len).ok_or(BAD_OFFSET)
}

/// A plain bit number.
fn offset_arg(cx: &Cx, position: usize) -> Result<u64, CommandError> {
    check_offset(cx, parse_int(cx.arg(position)).ok().and_then(|n| u64::try_from(n).ok()))
}

/// A string made at least `len` bytes long for bits to be set in it; true where it had to grow or to be created.
fn string_of_len<'c>(
    cx: &'c mut Cx,
    key: &[u8],
    len: Option<usize>,
) -> Result<(StrMut<'c>, bool), CommandError> {
    let old_len = match cx.keys.peek(key) {
        None => None,
        Some(entry) => Some(entry.string().ok_or(CommandError::WrongType)?.len()),
    };
    let len = len.ok_or_else(out_of_memory)?;
    let grows = old_len.is_none_or(|old_len| old_len < len);
    if grows && cx.keys.string_mut(key)?.try_reserve(len).is_err() {
        if old_len.is_none() {
            cx.keys.delete(key);
        }
        return Err(out_of_memory());
    }
    let mut value = cx.keys.string_mut(key)?;
    if grows {
        value.resize(len);
    }
    Ok((value, grows))
}

const SETBIT: Spec = Spec {
    name: "setbit",
    arity: Arity::Exactly(4),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::BITMAP,
    group: Group::Bitmap,
    since: "2.2.0",
    summary: "Sets or clears a bit of a string and returns what it was; the string grows as needed.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::UPDATE))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "offset", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "value", kind: ArgKind::Integer, ..Arg::NEW },
    ],
    handler: Some(setbit),
    ..Spec::NEW
};

fn setbit(cx: &mut Cx) -> Outcome {
    let key = cx.arg(1);
    let offset = offset_arg(cx, 2)?;
    let on = match parse_int(cx.arg(3)) {
        Ok(0) => false,
        Ok(1) => true,
        _ => return Err(CommandError::text("ERR bit is not an integer or out of range")),
    };
    let (mut value, grown) = string_of_len(cx, key, bits::bytes_for(offset, 1))?;
    let old = bits::set_bit(value.as_mut_slice(), offset, on);
    let changed = grown || old != on;
    if changed {
        cx.keys.changed(key, Class::STRING, "setbit");
    }
    cx.reply.integer(i64::from(old));
    Ok(Effect::verbatim_if(changed))
}

const GETBIT: Spec = Spec {
    name: "getbit",
    arity: Arity::Exactly(3),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::BITMAP,
    group: Group::Bitmap,
    since: "2.2.0",
    summary: "Returns a bit of a string, 0 after its end.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(1, KeyFlags::RO.union(KeyFlags::ACCESS))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "offset", kind: ArgKind::Integer, ..Arg::NEW },
    ],
    handler: Some(getbit),
    ..Spec::NEW
};

fn getbit(cx: &mut Cx) -> Outcome {
    let offset = offset_arg(cx, 2)?;
    let on = match cx.keys.read_str(cx.arg(1))? {
        None => false,
        Some(value) => bits::bit(value.as_bytes(&mut itoa::Buffer::new()), offset),
    };
    cx.reply.integer(i64::from(on));
    Ok(Effect::None)
}
