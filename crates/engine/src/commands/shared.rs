//! What the specs and handlers of the collections share: common key specs, options of the element scans, elements in
//! replies.

use super::prelude::*;
use crate::clients::ClientKind;
use crate::config::Config;
use crate::session::Session;
use kara_encoding::listpack::Element;
use kara_resp::Writer;

/// Key specs whose only key is the first argument.
macro_rules! one_key {
    ($($(#[$doc:meta])* $name:ident = $flags:expr;)*) => {$(
        $(#[$doc])*
        pub(super) const $name: &[KeySpec] = &[KeySpec::key(1, $flags)];
    )*};
}

one_key! {
    /// Data of the key is returned.
    ONE_READ = KeyFlags::RO.union(KeyFlags::ACCESS);
    /// Only figures about the key are returned.
    ONE_LOOK = KeyFlags::RO;
    /// Elements are added.
    ONE_INSERT = KeyFlags::RW.union(KeyFlags::INSERT);
    /// Elements are changed.
    ONE_UPDATE = KeyFlags::RW.union(KeyFlags::UPDATE);
    /// Elements are changed and returned.
    ONE_COUNT = KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::UPDATE);
    /// Elements are removed.
    ONE_REMOVE = KeyFlags::RW.union(KeyFlags::DELETE);
    /// Elements are removed and returned.
    ONE_TAKE = KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE);
}

pub(super) const KEY: Arg = Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW };

pub(super) const OUT_OF_RANGE: CommandError = CommandError::text("ERR value is out of range");
/// A count whose negation doesn't exist.
pub(super) const COUNT_OUT_OF_RANGE: CommandError = CommandError::text(
    "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
);

/// Random picks with repetitions stop here: what the reference would go on writing until memory ends.
const REPLY_BYTES_MAX: u64 = 1 << 30;

/// Closes a client that asks for so many random picks that its limit of unread output would be exceeded by far, as if
/// they had been made.
pub(super) fn close_if_beyond_output(
    session: &mut Session,
    config: &Config,
    count: i64,
    element_bytes: usize,
) {
    let bytes = count.unsigned_abs().saturating_mul(element_bytes as u64 + 16);
    let limit = match session.info.kind() {
        ClientKind::PubSub => config.client_output_buffer_limit.pubsub.hard_bytes,
        _ => config.client_output_buffer_limit.normal.hard_bytes,
    };
    session.close_now |= limit > 0 && bytes > REPLY_BYTES_MAX.max(2 * limit);
}

/// How many random picks a negative `count` asks for, each of about `element_bytes`.
pub(super) fn repeated_picks(count: i64, element_bytes: usize) -> Result<usize, CommandError> {
    let bytes = count.unsigned_abs().saturating_mul(element_bytes as u64 + 16);
    if bytes > REPLY_BYTES_MAX {
        return Err(OUT_OF_RANGE);
    }
    usize::try_from(count.unsigned_abs()).map_err(|_| OUT_OF_RANGE)
}

/// A length as replies carry it.
pub(super) fn as_i64(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

/// A configured threshold as a length.
pub(super) fn as_len(threshold: u64) -> usize {
    usize::try_from(threshold).unwrap_or(usize::MAX)
}

/// An element as a bulk string.
#[inline]
pub(super) fn reply_element(reply: &mut Writer, element: Element<'_>) {
    match element {
        Element::Int(value) => reply.bulk_i64(value),
        Element::Str(bytes) => reply.bulk(bytes),
    }
}

/// Deletes a key where it is there, and tells.
pub(super) fn delete(cx: &mut Cx, key: &[u8]) -> Effect {
    let deleted = cx.keys.delete(key);
    if deleted {
        cx.keys.changed(key, Class::GENERIC, "del");
    }
    Effect::verbatim_if(deleted)
}

/// Tells of a change that was made `count` times, and deletes the key where nothing is left in it.
pub(super) fn removed(cx: &mut Cx, key: &[u8], class: Class, event: &'static str, empty: bool, count: usize) {
    cx.keys.changed(key, class, event);
    if empty {
        cx.keys.delete(key);
        cx.keys.notify(Class::GENERIC, "del", key);
    }
    cx.extra_changes += (count as u64).saturating_sub(1);
}

/// What belongs to an element that SSCAN, HSCAN or ZSCAN walks over.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum ScanExtra {
    Nothing,
    Value,
    Score,
}

/// Options of SSCAN, HSCAN and ZSCAN.
pub(super) struct ScanOptions<'a> {
    pattern: Option<&'a [u8]>,
    pub count: usize,
    /// Values or scores are left out.
    pub bare: bool,
}

impl<'a> ScanOptions<'a> {
    /// Reads them; `extra` says what there is to leave out.
    pub fn parse(args: &[&'a [u8]], extra: ScanExtra) -> Result<Self, CommandError> {
        let mut options = ScanOptions { pattern: None, count: 10, bare: false };
        let mut args = args.iter();
        while let Some(word) = args.next() {
            if word.eq_ignore_ascii_case(b"match") {
                let pattern = args.next().ok_or(CommandError::Syntax)?;
                options.pattern = (*pattern != b"*").then_some(*pattern);
            } else if word.eq_ignore_ascii_case(b"count") {
                let count = parse_int(args.next().ok_or(CommandError::Syntax)?)?;
                options.count = usize::try_from(count).ok().filter(|n| *n > 0).ok_or(CommandError::Syntax)?;
            } else if word.eq_ignore_ascii_case(b"novalues") {
                if extra != ScanExtra::Value {
                    return Err(CommandError::text("ERR NOVALUES option can only be used in HSCAN"));
                }
                options.bare = true;
            } else if word.eq_ignore_ascii_case(b"noscores") {
                if extra != ScanExtra::Score {
                    return Err(CommandError::text("ERR NOSCORES option can only be used in ZSCAN"));
                }
                options.bare = true;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }

    /// Whether the pattern lets this element through.
    pub fn wants(&self, element: Element<'_>) -> bool {
        self.pattern.is_none_or(|pattern| {
            let mut buffer = itoa::Buffer::new();
            kara_base::glob::matches(pattern, element.as_bytes(&mut buffer), kara_base::glob::Case::Sensitive)
        })
    }
}

/// A scan's cursor: a decimal number below 2^64. Blanks, a sign and zeros in front are let through, as by C's own
/// conversion (where a minus counts down from 2^64); a plain negative number isn't.
pub(super) fn parse_cursor(text: &[u8]) -> Result<u64, CommandError> {
    let invalid = CommandError::text("ERR invalid cursor");
    if kara_base::number::parse_i64(text).is_some_and(|number| number < 0) {
        return Err(invalid);
    }
    let blanks = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t'..=b'\r')).count();
    let text = text.get(blanks..).unwrap_or_default();
    let negative = text.first() == Some(&b'-');
    let digits = text.strip_prefix(b"+").or(text.strip_prefix(b"-")).unwrap_or(text);
    std::str::from_utf8(digits)
        .ok()
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .map(|cursor: u64| if negative { cursor.wrapping_neg() } else { cursor })
        .ok_or(invalid)
}

/// The reply of a scan step: the next cursor and a flat array, gathered by `visit`.
pub(super) fn reply_scan(reply: &mut Writer, gather: impl FnOnce(&mut Writer) -> (u64, usize)) {
    let mut elements = Writer::new(reply.protocol());
    let (next, count) = gather(&mut elements);
    reply.array(2);
    reply.bulk_u64(next);
    reply.array(count);
    reply.raw(elements.as_bytes());
}
