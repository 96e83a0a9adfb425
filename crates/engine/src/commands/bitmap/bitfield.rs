//! BITFIELD and BITFIELD_RO: integers of any width at any bit of a string.

use super::{bits, check_offset, string_of_len};
use crate::commands::prelude::*;

/// The type of a field: `i1` to `i64`, `u1` to `u63`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FieldType {
    signed: bool,
    bits: u32,
}

impl FieldType {
    fn parse(word: &[u8]) -> Option<Self> {
        let (sign, width) = word.split_first()?;
        // Replies are signed: the widest unsigned number has no place in them.
        let (signed, max) = match sign {
            b'i' => (true, bits::MAX_FIELD_BITS),
            b'u' => (false, bits::MAX_FIELD_BITS - 1),
            _ => return None,
        };
        let bits = parse_int(width).ok().and_then(|n| u32::try_from(n).ok())?;
        (1..=max).contains(&bits).then_some(FieldType { signed, bits })
    }

    fn min(self) -> i128 {
        if self.signed { -(1 << (self.bits - 1)) } else { 0 }
    }

    fn max(self) -> i128 {
        if self.signed { (1 << (self.bits - 1)) - 1 } else { (1 << self.bits) - 1 }
    }

    /// The number that the low bits mean in this type.
    fn value_of(self, raw: u64) -> i64 {
        let unused = u64::BITS - self.bits;
        if self.signed { ((raw << unused) as i64) >> unused } else { ((raw << unused) >> unused) as i64 }
    }

    /// A number fitted into the type; `None` where that is to fail.
    fn fit(self, number: i128, overflow: Overflow) -> Option<i64> {
        if (self.min()..=self.max()).contains(&number) {
            return Some(number as i64);
        }
        match overflow {
            Overflow::Wrap => Some(self.value_of(number as u64)),
            Overflow::Saturate => Some(number.clamp(self.min(), self.max()) as i64),
            Overflow::Fail => None,
        }
    }

    /// A bit number, or with a `#` that of a field in an array of such fields.
    fn parse_offset(self, word: &[u8]) -> Option<u64> {
        let (text, unit) = match word.strip_prefix(b"#") {
            Some(text) => (text, i64::from(self.bits)),
            None => (word, 1),
        };
        let offset = parse_int(text).ok()?.checked_mul(unit)?;
        u64::try_from(offset).ok()
    }
}

/// What happens to numbers beyond their field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

impl Overflow {
    fn parse(word: &[u8]) -> Result<Self, CommandError> {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        if is("wrap") {
            Ok(Overflow::Wrap)
        } else if is("sat") {
            Ok(Overflow::Saturate)
        } else if is("fail") {
            Ok(Overflow::Fail)
        } else {
            Err(CommandError::text("ERR Invalid OVERFLOW type specified"))
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Get,
    Set(i64),
    Increment(i64),
}

/// One operation on one field.
#[derive(Clone, Copy, Debug)]
struct Operation {
    action: Action,
    field: FieldType,
    offset: u64,
    overflow: Overflow,
}

impl Operation {
    /// Does it to a string that is long enough. Returns the reply (`None`: it failed), and whether bits changed.
    fn apply(&self, bytes: &mut [u8]) -> (Option<i64>, bool) {
        let old = self.read(bytes);
        let (number, increment) = match self.action {
            Action::Get => return (Some(old), false),
            // The reference's distance to the upper end wraps around for the lowest numbers: they seem to be beyond it.
            Action::Set(number)
                if self.overflow == Overflow::Saturate
                    && self.field.signed
                    && self.field.bits < u64::BITS
                    && self.field.max() - i128::from(number) > i128::from(i64::MAX) =>
            {
                (self.field.max(), false)
            }
            // It takes a negative number for an unsigned field as a huge one.
            Action::Set(number) if self.field.signed => (i128::from(number), false),
            Action::Set(number) => (i128::from(number as u64), false),
            Action::Increment(by) => (i128::from(old) + i128::from(by), true),
        };
        match self.field.fit(number, self.overflow) {
            None => (None, false),
            Some(new) => {
                bits::set_field(bytes, self.offset, self.field.bits, new as u64);
                (Some(if increment { new } else { old }), old != new)
            }
        }
    }

    fn read(&self, bytes: &[u8]) -> i64 {
        self.field.value_of(bits::field(bytes, self.offset, self.field.bits))
    }
}

/// The operations of the arguments after the key.
fn parse_operations(cx: &Cx) -> Result<Vec<Operation>, CommandError> {
    let words = cx.args.get(2..).unwrap_or_default();
    let mut operations = Vec::new();
    let mut overflow = Overflow::Wrap;
    let mut rest = words;
    while let [word, after @ ..] = rest {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        if let (true, [kind, after @ ..]) = (is("overflow"), after) {
            overflow = Overflow::parse(kind)?;
            rest = after;
            continue;
        }
        let (field, offset, number, left) = match after {
            [field, offset, left @ ..] if is("get") => (field, offset, None, left),
            [field, offset, number, left @ ..] if is("set") || is("incrby") => {
                (field, offset, Some(number), left)
            }
            _ => return Err(CommandError::Syntax),
        };
        let field = FieldType::parse(field).ok_or(BAD_TYPE)?;
        let offset = check_offset(cx, field.parse_offset(offset))?;
        let action = match number {
            None => Action::Get,
            Some(number) if is("set") => Action::Set(parse_int(number)?),
            Some(number) => Action::Increment(parse_int(number)?),
        };
        operations.push(Operation { action, field, offset, overflow });
        rest = left;
    }
    Ok(operations)
}

const BAD_TYPE: CommandError = CommandError::text(
    "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
);

pub(super) const BITFIELD: Spec = Spec {
    name: "bitfield",
    arity: Arity::AtLeast(2),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::BITMAP,
    group: Group::Bitmap,
    since: "3.2.0",
    summary: "Reads, sets and increments integers of any width at any bit of a string.",
    complexity: "O(1) for each operation",
    key_specs: &[KeySpec::key(
        1,
        KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::UPDATE).union(KeyFlags::VARIABLE_FLAGS),
    )
    .noted("This command allows both access and modification of the key")],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg {
            name: "operation",
            kind: ArgKind::Oneof,
            optional: true,
            multiple: true,
            args: &[
                Arg {
                    name: "get-block",
                    kind: ArgKind::Block,
                    token: Some("GET"),
                    args: &[
                        Arg { name: "encoding", kind: ArgKind::String, ..Arg::NEW },
                        Arg { name: "offset", kind: ArgKind::Integer, ..Arg::NEW },
                    ],
                    ..Arg::NEW
                },
                Arg {
                    name: "write",
                    kind: ArgKind::Block,
                    args: &[
                        Arg {
                            name: "overflow-block",
                            kind: ArgKind::Oneof,
                            token: Some("OVERFLOW"),
                            optional: true,
                            args: &[
                                Arg::word("wrap", "WRAP"),
                                Arg::word("sat", "SAT"),
                                Arg::word("fail", "FAIL"),
                            ],
                            ..Arg::NEW
                        },
                        Arg {
                            name: "write-operation",
                            kind: ArgKind::Oneof,
                            args: &[
                                Arg {
                                    name: "set-block",
                                    kind: ArgKind::Block,
                                    token: Some("SET"),
                                    args: &[
                                        Arg { name: "encoding", kind: ArgKind::String, ..Arg::NEW },
                                        Arg { name: "offset", kind: ArgKind::Integer, ..Arg::NEW },
                                        Arg { name: "value", kind: ArgKind::Integer, ..Arg::NEW },
                                    ],
                                    ..Arg::NEW
                                },
                                Arg {
                                    name: "incrby-block",
                                    kind: ArgKind::Block,
                                    token: Some("INCRBY"),
                                    args: &[
                                        Arg { name: "encoding", kind: ArgKind::String, ..Arg::NEW },
                                        Arg { name: "offset", kind: ArgKind::Integer, ..Arg::NEW },
                                        Arg { name: "increment", kind: ArgKind::Integer, ..Arg::NEW },
                                    ],
                                    ..Arg::NEW
                                },
                            ],
                            ..Arg::NEW
                        },
                    ],
                    ..Arg::NEW
                },
            ],
            ..Arg::NEW
        },
    ],
    get_keys: Some(bitfield_keys),
    handler: Some(bitfield),
    ..Spec::NEW
};

/// The use of the key follows from the operations: only reads, or anything else.
fn bitfield_keys(args: &[&[u8]], found: &mut Vec<(usize, KeyFlags)>) -> Result<(), ()> {
    let mut flags = KeyFlags::RO.union(KeyFlags::ACCESS);
    let mut rest = args.get(2..).unwrap_or_default();
    while let [word, after @ ..] = rest {
        rest = match after {
            [_, _, left @ ..] if word.eq_ignore_ascii_case(b"get") => left,
            [_, left @ ..] if word.eq_ignore_ascii_case(b"overflow") => left,
            _ => {
                flags = KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::UPDATE);
                break;
            }
        };
    }
    found.push((1, flags));
    Ok(())
}

fn bitfield(cx: &mut Cx) -> Outcome {
    let operations = parse_operations(cx)?;
    let writes = operations.iter().filter(|operation| operation.action != Action::Get);
    // The string is made as long as the farthest write needs before anything is done.
    let ends = writes.map(|write| (write.offset, write.field.bits));
    match ends.max_by_key(|(offset, bits)| offset.saturating_add(u64::from(*bits))) {
        None => read_fields(cx, &operations),
        Some((offset, bits)) => write_fields(cx, &operations, bits::bytes_for(offset, bits)),
    }
}

fn read_fields(cx: &mut Cx, operations: &[Operation]) -> Outcome {
    let value = cx.keys.read_str(cx.arg(1))?;
    let mut digits = itoa::Buffer::new();
    let bytes = value.as_ref().map_or(&[][..], |value| value.as_bytes(&mut digits));
    cx.reply.array(operations.len());
    for operation in operations {
        cx.reply.integer(operation.read(bytes));
    }
    Ok(Effect::None)
}

fn write_fields(cx: &mut Cx, operations: &[Operation], len: Option<usize>) -> Outcome {
    let key = cx.arg(1);
    let (mut value, grown) = string_of_len(cx, key, len)?;
    let mut changes: u64 = 0;
    let mut replies = Vec::with_capacity(operations.len());
    for operation in operations {
        let (reply, changed) = operation.apply(value.as_mut_slice());
        let written = reply.is_some() && operation.action != Action::Get;
        changes += u64::from(changed || grown && written);
        replies.push(reply);
    }
    cx.reply.array(replies.len());
    for reply in replies {
        match reply {
            Some(number) => cx.reply.integer(number),
            None => cx.reply.null(),
        }
    }
    if changes > 0 {
        cx.keys.changed(key, Class::STRING, "setbit");
        cx.extra_changes += changes - 1;
    } else if grown {
        // All writes failed, yet the string has grown: replicas and watchers must know, notifications don't tell.
        cx.keys.touched(key);
    }
    Ok(Effect::verbatim_if(changes > 0 || grown))
}

pub(super) const BITFIELD_RO: Spec = Spec {
    name: "bitfield_ro",
    arity: Arity::AtLeast(2),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::BITMAP,
    group: Group::Bitmap,
    since: "6.0.0",
    summary: "Reads integers of any width at any bit of a string.",
    complexity: "O(1) for each operation",
    key_specs: &[KeySpec::key(1, KeyFlags::RO.union(KeyFlags::ACCESS))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg {
            name: "get-block",
            kind: ArgKind::Block,
            token: Some("GET"),
            optional: true,
            multiple: true,
            multiple_token: true,
            args: &[
                Arg { name: "encoding", kind: ArgKind::String, ..Arg::NEW },
                Arg { name: "offset", kind: ArgKind::Integer, ..Arg::NEW },
            ],
            ..Arg::NEW
        },
    ],
    handler: Some(bitfield_ro),
    ..Spec::NEW
};

fn bitfield_ro(cx: &mut Cx) -> Outcome {
    let operations = parse_operations(cx)?;
    if operations.iter().any(|operation| operation.action != Action::Get) {
        return Err(CommandError::text("ERR BITFIELD_RO only supports the GET subcommand"));
    }
    read_fields(cx, &operations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn types() -> impl Strategy<Value = FieldType> {
        prop_oneof![
            (1u32..=64).prop_map(|bits| FieldType { signed: true, bits }),
            (1u32..=63).prop_map(|bits| FieldType { signed: false, bits }),
        ]
    }

    #[test]
    fn types_are_read_strictly() {
        let parse = |text: &str| FieldType::parse(text.as_bytes()).map(|t| (t.signed, t.bits));
        assert_eq!(parse("i64"), Some((true, 64)));
        assert_eq!(parse("u63"), Some((false, 63)));
        for bad in ["", "u", "u64", "i65", "i0", "u08", "u+8", "u-8", "U8", "x8", "u8x", "i4294967304"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn offsets_that_overflow_are_refused() {
        let field = FieldType { signed: true, bits: 64 };
        assert_eq!(field.parse_offset(b"#2"), Some(128));
        assert_eq!(field.parse_offset(b"7"), Some(7));
        // Multiplied in 64 bits the second would come out as 0.
        let bad = ["#9223372036854775807", "#288230376151711744", "#-1", "-1", "#", "##1", "#+1", ""];
        for bad in bad {
            assert_eq!(field.parse_offset(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn numbers_stay_in_their_field(field in types(), old: u64, by: i64, set: bool) {
            let old = field.value_of(old);
            prop_assert!((field.min()..=field.max()).contains(&i128::from(old)));
            let number = i128::from(by) + if set { 0 } else { i128::from(old) };
            let inside = (field.min()..=field.max()).contains(&number);
            let range = field.max() - field.min() + 1;
            let wrapped = (number - field.min()).rem_euclid(range) + field.min();
            prop_assert_eq!(field.fit(number, Overflow::Wrap).map(i128::from), Some(wrapped));
            let nearest = number.max(field.min()).min(field.max());
            prop_assert_eq!(field.fit(number, Overflow::Saturate).map(i128::from), Some(nearest));
            prop_assert_eq!(field.fit(number, Overflow::Fail).map(i128::from), inside.then_some(number));
        }

        #[test]
        fn what_is_set_is_read(field in types(), offset in 0u64..40, raw: u64, before: [u8; 16]) {
            let number = field.value_of(raw);
            let mut bytes = before;
            let set = Operation { action: Action::Set(number), field, offset, overflow: Overflow::Fail };
            let old = set.read(&bytes);
            prop_assert_eq!(set.apply(&mut bytes), (Some(old), old != number));
            prop_assert_eq!(set.read(&bytes), number);
            let back = Operation { action: Action::Increment(0), overflow: Overflow::Fail, ..set };
            prop_assert_eq!(back.apply(&mut bytes), (Some(number), false));
        }
    }

    #[test]
    fn overflow_as_told() {
        let field = FieldType { signed: false, bits: 8 };
        let mut bytes = [44];
        let mut run = |action, overflow| Operation { action, field, offset: 0, overflow }.apply(&mut bytes);
        assert_eq!(run(Action::Set(300), Overflow::Fail), (None, false));
        assert_eq!(run(Action::Set(-1), Overflow::Saturate), (Some(44), true));
        assert_eq!(run(Action::Increment(-300), Overflow::Wrap), (Some(211), true));
        assert_eq!(run(Action::Increment(i64::MIN), Overflow::Saturate), (Some(0), true));
        assert_eq!(run(Action::Increment(-1), Overflow::Fail), (None, false));
        let field = FieldType { signed: true, bits: 11 };
        let set = |number| {
            let mut bytes = [0; 2];
            Operation { action: Action::Set(number), field, offset: 0, overflow: Overflow::Saturate }
                .apply(&mut bytes);
            Operation { action: Action::Get, field, offset: 0, overflow: Overflow::Wrap }.apply(&mut bytes).0
        };
        assert_eq!(set(i64::MIN + 1024), Some(-1024));
        // As the reference does.
        assert_eq!(set(i64::MIN + 1023), Some(1023));
        assert_eq!(set(i64::MIN), Some(1023));
    }
}
