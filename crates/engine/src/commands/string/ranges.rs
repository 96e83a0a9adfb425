//! Parts of a string value: its length, ranges of it, and what is appended or written into it.

use crate::commands::prelude::*;
use kara_keyspace::ExpiryUpdate;

pub(super) const STRLEN: Spec = Spec {
    name: "strlen",
    arity: Arity::Exactly(2),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::STRING,
    group: Group::String,
    since: "2.2.0",
    summary: "Returns the length of a string value.",
    complexity: "O(1)",
    key_specs: &[KeySpec::key(1, KeyFlags::RO)],
    args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW }],
    handler: Some(strlen),
    ..Spec::NEW
};

fn strlen(cx: &mut Cx) -> Outcome {
    let len = cx.keys.read_str(cx.arg(1))?.map_or(0, |value| value.len());
    cx.reply.integer(len as i64);
    Ok(Effect::None)
}

/// The longest string that commands may make, and the error beyond it.
pub(crate) fn check_length(cx: &Cx, len: Option<usize>) -> Result<usize, CommandError> {
    let max = usize::try_from(cx.config.proto_max_bulk_len).unwrap_or(usize::MAX);
    len.filter(|len| *len <= max)
        .ok_or(CommandError::text("ERR string exceeds maximum allowed size (proto-max-bulk-len)"))
}

pub(super) const APPEND: Spec = Spec {
    name: "append",
    arity: Arity::Exactly(3),
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    acl: Acl::STRING,
    group: Group::String,
    since: "2.0.0",
    summary: "Appends to a string value, creating it where the key doesn't exist.",
    complexity: "O(1) amortized",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::INSERT))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "value", kind: ArgKind::String, ..Arg::NEW },
    ],
    handler: Some(append),
    ..Spec::NEW
};

fn append(cx: &mut Cx) -> Outcome {
    let (key, more) = (cx.arg(1), cx.arg(2));
    let len = match cx.keys.peek(key) {
        None => {
            cx.keys.set_string(key, more, ExpiryUpdate::Clear);
            more.len()
        }
        Some(entry) => {
            let old = entry.string().ok_or(CommandError::WrongType)?.len();
            let total = check_length(cx, old.checked_add(more.len()))?;
            let mut value = cx.keys.string_mut(key)?;
            value.try_reserve(total).map_err(|_| out_of_memory())?;
            value.append(more);
            total
        }
    };
    cx.keys.changed(key, Class::STRING, "append");
    cx.reply.integer(len as i64);
    Ok(Effect::Verbatim)
}

/// The allocator has no more.
pub(crate) fn out_of_memory() -> CommandError {
    CommandError::text("OOM command not allowed when used memory > 'maxmemory'.")
}

pub(super) const SETRANGE: Spec = Spec {
    name: "setrange",
    arity: Arity::Exactly(4),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::STRING,
    group: Group::String,
    since: "2.2.0",
    summary: "Overwrites a part of a string value from an offset on.",
    complexity: "O(M) for M bytes",
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::UPDATE))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "offset", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "value", kind: ArgKind::String, ..Arg::NEW },
    ],
    handler: Some(setrange),
    ..Spec::NEW
};

fn setrange(cx: &mut Cx) -> Outcome {
    let (key, part) = (cx.arg(1), cx.arg(3));
    let offset = cx.int(2)?;
    let Ok(offset) = usize::try_from(offset) else {
        return Err(CommandError::text("ERR offset is out of range"));
    };
    let old = match cx.keys.peek(key) {
        None => None,
        Some(entry) => Some(entry.string().ok_or(CommandError::WrongType)?.len()),
    };
    if part.is_empty() {
        cx.reply.integer(old.unwrap_or(0) as i64);
        return Ok(Effect::None);
    }
    let end = check_length(cx, offset.checked_add(part.len()))?;
    let mut value = cx.keys.string_mut(key)?;
    value.try_reserve(end.max(old.unwrap_or(0))).map_err(|_| out_of_memory())?;
    value.write_at(offset, part);
    let len = value.len();
    cx.keys.changed(key, Class::STRING, "setrange");
    cx.reply.integer(len as i64);
    Ok(Effect::Verbatim)
}

/// The byte range of inclusive, possibly negative indexes; empty where they miss.
pub(crate) fn clamp_range(start: i64, end: i64, len: usize) -> std::ops::Range<usize> {
    let len = len as i64;
    if start < 0 && end < 0 && start > end || len == 0 {
        return 0..0;
    }
    let from = if start < 0 { (start.saturating_add(len)).max(0) } else { start };
    let to = if end < 0 { (end.saturating_add(len)).max(0) } else { end.min(len - 1) };
    if from > to || from >= len { 0..0 } else { from as usize..to as usize + 1 }
}

pub(super) const GETRANGE: Spec = Spec {
    name: "getrange",
    arity: Arity::Exactly(4),
    flags: Flags::READONLY,
    acl: Acl::STRING,
    group: Group::String,
    since: "2.4.0",
    summary: "Returns a part of a string value.",
    complexity: "O(N) for N returned bytes",
    key_specs: &[KeySpec::key(1, KeyFlags::RO.union(KeyFlags::ACCESS))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "start", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "end", kind: ArgKind::Integer, ..Arg::NEW },
    ],
    handler: Some(getrange),
    ..Spec::NEW
};

fn getrange(cx: &mut Cx) -> Outcome {
    let (start, end) = (cx.int(2)?, cx.int(3)?);
    let value = cx.keys.read_str(cx.args[1])?;
    let mut digits = itoa::Buffer::new();
    let bytes = match &value {
        None => &[][..],
        Some(value) => value.as_bytes(&mut digits),
    };
    cx.reply.bulk(bytes.get(clamp_range(start, end, bytes.len())).unwrap_or_default());
    Ok(Effect::None)
}

pub(super) const SUBSTR: Spec = Spec {
    name: "substr",
    arity: Arity::Exactly(4),
    flags: Flags::READONLY,
    acl: Acl::STRING,
    group: Group::String,
    since: "1.0.0",
    summary: "Returns a part of a string value; the old name of GETRANGE.",
    complexity: "O(N) for N returned bytes",
    key_specs: &[KeySpec::key(1, KeyFlags::RO.union(KeyFlags::ACCESS))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "start", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "end", kind: ArgKind::Integer, ..Arg::NEW },
    ],
    handler: Some(substr),
    ..Spec::NEW
};

fn substr(cx: &mut Cx) -> Outcome {
    getrange(cx)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_clamped_as_the_reference_does() {
        let len = 5;
        assert_eq!(clamp_range(0, -1, len), 0..5);
        assert_eq!(clamp_range(-3, -2, len), 2..4);
        assert_eq!(clamp_range(-2, -3, len), 0..0);
        assert_eq!(clamp_range(3, 100, len), 3..5);
        assert_eq!(clamp_range(-100, -100, len), 0..1);
        assert_eq!(clamp_range(9, 12, len), 0..0);
        assert_eq!(clamp_range(i64::MIN, i64::MAX, len), 0..5);
    }
}
