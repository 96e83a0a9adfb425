//! Replies as a client reads them: owned values of every RESP2 and RESP3 type. For the tools, for links to other
//! servers, for scripts' conversions and for tests; the server's own hot path never comes here.
//!
//! Incremental: what has been read of an aggregate is kept, so a long reply is parsed once however it arrives.

use kara_base::number::{parse_i64, parse_u64};
use std::fmt;

/// One reply. Texts are bytes: a server may send anything.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Simple(Vec<u8>),
    /// Without the dash.
    Error(Vec<u8>),
    Integer(i64),
    Bulk(Vec<u8>),
    /// RESP3's null.
    Null,
    /// RESP2's null of a bulk string.
    NullBulk,
    /// RESP2's null of an array.
    NullArray,
    Array(Vec<Value>),
    Map(Vec<(Value, Value)>),
    Set(Vec<Value>),
    /// An out-of-band message.
    Push(Vec<Value>),
    /// Its text as sent: `0.1` and `1e-1` look different to whoever reads them.
    Double(Vec<u8>),
    Bool(bool),
    /// Its decimal text.
    BigNumber(Vec<u8>),
    Verbatim {
        format: [u8; 3],
        text: Vec<u8>,
    },
    /// A reply with attribute pairs before it.
    Attributed {
        attributes: Vec<(Value, Value)>,
        value: Box<Value>,
    },
}

impl Value {
    /// True for each of the three nulls.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null | Value::NullBulk | Value::NullArray)
    }

    /// The bytes of any kind of string, status and error texts included.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Simple(text) | Value::Error(text) | Value::Bulk(text) => Some(text),
            Value::BigNumber(text) | Value::Double(text) => Some(text),
            Value::Verbatim { text, .. } => Some(text),
            _ => None,
        }
    }

    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Value::Integer(value) => Some(*value),
            _ => None,
        }
    }

    /// The elements of an array, a set or a push message.
    pub fn as_elements(&self) -> Option<&[Value]> {
        match self {
            Value::Array(items) | Value::Set(items) | Value::Push(items) => Some(items),
            _ => None,
        }
    }

    /// The error's text, without the dash.
    pub fn as_error(&self) -> Option<&[u8]> {
        match self {
            Value::Error(text) => Some(text),
            _ => None,
        }
    }

    /// Appends the value's protocol form, of the kind it is.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        match self {
            Value::Simple(text) => line(out, b'+', text),
            Value::Error(text) if memchr::memchr2(b'\r', b'\n', text).is_some() => blob(out, b'!', &[text]),
            Value::Error(text) => line(out, b'-', text),
            Value::Integer(value) => line(out, b':', value.to_string().as_bytes()),
            Value::Bulk(text) => blob(out, b'$', &[text]),
            Value::Null => out.extend_from_slice(b"_\r\n"),
            Value::NullBulk => out.extend_from_slice(b"$-1\r\n"),
            Value::NullArray => out.extend_from_slice(b"*-1\r\n"),
            Value::Array(items) => aggregate(out, b'*', items),
            Value::Set(items) => aggregate(out, b'~', items),
            Value::Push(items) => aggregate(out, b'>', items),
            Value::Map(pairs) => pairs_to(out, b'%', pairs),
            Value::Double(text) => line(out, b',', text),
            Value::Bool(value) => out.extend_from_slice(if *value { b"#t\r\n" } else { b"#f\r\n" }),
            Value::BigNumber(text) => line(out, b'(', text),
            Value::Verbatim { format, text } => blob(out, b'=', &[format, b":", text]),
            Value::Attributed { attributes, value } => {
                pairs_to(out, b'|', attributes);
                value.write_to(out);
            }
        }
    }
}

fn line(out: &mut Vec<u8>, kind: u8, text: &[u8]) {
    out.push(kind);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

fn blob(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    line(out, kind, len.to_string().as_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(b"\r\n");
}

fn aggregate(out: &mut Vec<u8>, kind: u8, items: &[Value]) {
    line(out, kind, items.len().to_string().as_bytes());
    for item in items {
        item.write_to(out);
    }
}

fn pairs_to(out: &mut Vec<u8>, kind: u8, pairs: &[(Value, Value)]) {
    line(out, kind, pairs.len().to_string().as_bytes());
    for (key, value) in pairs {
        key.write_to(out);
        value.write_to(out);
    }
}

/// What a server may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyLimits {
    /// Longest string, in bytes.
    pub max_bulk_len: usize,
    /// Most values in one reply, nested ones included.
    pub max_values: usize,
    /// Deepest nesting of aggregates.
    pub max_depth: usize,
    /// Longest line (status, error, number), in bytes.
    pub max_line: usize,
}

impl Default for ReplyLimits {
    fn default() -> Self {
        ReplyLimits { max_bulk_len: 1 << 30, max_values: 1 << 30, max_depth: 128, max_line: 64 << 20 }
    }
}

/// The stream is not RESP, or more than the limits allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// No type begins with that byte.
    UnknownType(u8),
    BadLength,
    BadNumber,
    BadBool,
    BadVerbatim,
    /// A line or a string doesn't end with CR LF.
    MissingCrlf,
    TooLong,
    TooDeep,
    TooManyValues,
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplyError::UnknownType(byte) => {
                write!(f, "Protocol error, got \"{}\" as reply type byte", byte.escape_ascii())
            }
            ReplyError::BadLength => f.write_str("Protocol error, bad length"),
            ReplyError::BadNumber => f.write_str("Protocol error, bad number"),
            ReplyError::BadBool => f.write_str("Protocol error, bad bool"),
            ReplyError::BadVerbatim => f.write_str("Protocol error, bad verbatim string"),
            ReplyError::MissingCrlf => f.write_str("Protocol error, line break expected"),
            ReplyError::TooLong => f.write_str("Protocol error, string too long"),
            ReplyError::TooDeep => f.write_str("Protocol error, replies nested too deep"),
            ReplyError::TooManyValues => f.write_str("Protocol error, too many values in a reply"),
        }
    }
}

impl std::error::Error for ReplyError {}

/// What a call to [`ReplyParser::parse`] found. In both cases the first `consumed` bytes are done with.
#[derive(Clone, Debug, PartialEq)]
pub enum ReplyStep {
    Complete {
        consumed: usize,
        value: Value,
    },
    /// `missing` more bytes (never 0) behind the unconsumed ones are needed for the next piece of the reply.
    NeedMore {
        consumed: usize,
        missing: usize,
    },
}

/// A parser for one connection's replies.
#[derive(Clone, Debug, Default)]
pub struct ReplyParser {
    limits: ReplyLimits,
    /// The aggregates that are open, outermost first.
    stack: Vec<Frame>,
    /// Values read of the current reply.
    values: usize,
    /// Bytes at the buffer's start known to hold no line end.
    scanned: usize,
}

#[derive(Clone, Debug)]
struct Frame {
    kind: Kind,
    /// Values still to come.
    remaining: usize,
    items: Vec<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Array,
    Set,
    Push,
    Map,
    /// Attribute pairs; the value they belong to comes as the last of the frame's items.
    Attribute,
}

enum Item {
    Value(Value),
    Open(Kind, usize),
}

impl ReplyParser {
    pub const fn new(limits: ReplyLimits) -> ReplyParser {
        ReplyParser { limits, stack: Vec::new(), values: 0, scanned: 0 }
    }

    /// Continues with `buf`: whatever earlier calls left unconsumed, and what arrived since. After an error the
    /// connection is of no more use.
    pub fn parse(&mut self, buf: &[u8]) -> Result<ReplyStep, ReplyError> {
        let mut pos = 0;
        loop {
            let rest = buf.get(pos..).unwrap_or_default();
            let (item, len) = match self.item(rest)? {
                Ok(found) => found,
                Err(missing) => return Ok(ReplyStep::NeedMore { consumed: pos, missing }),
            };
            pos += len;
            self.scanned = 0;
            self.values += 1;
            if self.values > self.limits.max_values {
                return Err(ReplyError::TooManyValues);
            }
            let value = match item {
                Item::Value(value) => value,
                Item::Open(kind, 0) => close(kind, Vec::new()),
                Item::Open(kind, remaining) => {
                    if self.stack.len() >= self.limits.max_depth {
                        return Err(ReplyError::TooDeep);
                    }
                    self.stack.push(Frame { kind, remaining, items: Vec::new() });
                    continue;
                }
            };
            if let Some(value) = self.place(value) {
                self.values = 0;
                return Ok(ReplyStep::Complete { consumed: pos, value });
            }
        }
    }

    /// Puts a value into the innermost open aggregate and closes what that completes; a value is returned when
    /// none is open any more.
    fn place(&mut self, mut value: Value) -> Option<Value> {
        while let Some(frame) = self.stack.last_mut() {
            frame.items.push(value);
            frame.remaining -= 1;
            if frame.remaining > 0 {
                return None;
            }
            let Frame { kind, items, .. } = self.stack.pop()?;
            value = close(kind, items);
        }
        Some(value)
    }

    /// The value or aggregate header at the head of `rest` and its length, or how many bytes are missing.
    fn item(&mut self, rest: &[u8]) -> Result<Result<(Item, usize), usize>, ReplyError> {
        let Some(&kind) = rest.first() else {
            return Ok(Err(1));
        };
        if !b"+-:$_*~>%,#(=!|".contains(&kind) {
            return Err(ReplyError::UnknownType(kind));
        }
        let from = self.scanned.clamp(1, rest.len());
        let Some(found) = memchr::memchr(b'\r', &rest[from..]) else {
            self.scanned = rest.len();
            return if rest.len() > self.limits.max_line { Err(ReplyError::TooLong) } else { Ok(Err(1)) };
        };
        let line_end = from + found;
        match rest.get(line_end + 1) {
            Some(b'\n') => {}
            Some(_) => return Err(ReplyError::MissingCrlf),
            None => {
                self.scanned = line_end;
                return Ok(Err(1));
            }
        }
        let text = &rest[1..line_end];
        let next = line_end + 2;
        if matches!(kind, b'$' | b'=' | b'!') {
            // The header line will be found again at once when the string is complete.
            self.scanned = line_end;
            return self.blob(kind, text, rest, next);
        }
        Ok(Ok((self.line_item(kind, text)?, next)))
    }

    fn line_item(&self, kind: u8, text: &[u8]) -> Result<Item, ReplyError> {
        let value = match kind {
            b'+' => Value::Simple(text.to_vec()),
            b'-' => Value::Error(text.to_vec()),
            b':' => Value::Integer(parse_integer(text).ok_or(ReplyError::BadNumber)?),
            b'_' if text.is_empty() => Value::Null,
            b'#' => match text {
                b"t" => Value::Bool(true),
                b"f" => Value::Bool(false),
                _ => return Err(ReplyError::BadBool),
            },
            b',' if is_double(text) => Value::Double(text.to_vec()),
            b',' => return Err(ReplyError::BadNumber),
            b'(' => {
                let digits = text.strip_prefix(b"-").unwrap_or(text);
                if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                    return Err(ReplyError::BadNumber);
                }
                Value::BigNumber(text.to_vec())
            }
            b'*' if text == b"-1" => Value::NullArray,
            b'*' => return self.open(Kind::Array, text, 1),
            b'~' => return self.open(Kind::Set, text, 1),
            b'>' => return self.open(Kind::Push, text, 1),
            b'%' => return self.open(Kind::Map, text, 2),
            b'|' => return self.open(Kind::Attribute, text, 2),
            _ => return Err(ReplyError::BadLength),
        };
        Ok(Item::Value(value))
    }

    fn open(&self, kind: Kind, count: &[u8], each: usize) -> Result<Item, ReplyError> {
        let count = parse_u64(count).and_then(|count| usize::try_from(count).ok());
        let count = count.and_then(|count| count.checked_mul(each)).ok_or(ReplyError::BadLength)?;
        if count > self.limits.max_values {
            return Err(ReplyError::TooManyValues);
        }
        Ok(Item::Open(kind, count + usize::from(kind == Kind::Attribute)))
    }

    fn blob(
        &self,
        kind: u8,
        len: &[u8],
        rest: &[u8],
        begin: usize,
    ) -> Result<Result<(Item, usize), usize>, ReplyError> {
        if kind == b'$' && len == b"-1" {
            return Ok(Ok((Item::Value(Value::NullBulk), begin)));
        }
        let len = parse_u64(len).and_then(|len| usize::try_from(len).ok()).ok_or(ReplyError::BadLength)?;
        if len > self.limits.max_bulk_len {
            return Err(ReplyError::TooLong);
        }
        let wanted = len.saturating_add(2);
        let body = &rest[begin..];
        match body.get(len..wanted) {
            Some(b"\r\n") => {}
            Some(_) => return Err(ReplyError::MissingCrlf),
            None => return Ok(Err(wanted - body.len())),
        }
        let text = &body[..len];
        let value = match (kind, text) {
            (b'$', _) => Value::Bulk(text.to_vec()),
            (b'!', _) => Value::Error(text.to_vec()),
            (_, &[a, b, c, b':', ref text @ ..]) => {
                Value::Verbatim { format: [a, b, c], text: text.to_vec() }
            }
            _ => return Err(ReplyError::BadVerbatim),
        };
        Ok(Ok((Item::Value(value), begin + wanted)))
    }
}

/// A reply's integer may carry a plus sign.
fn parse_integer(text: &[u8]) -> Option<i64> {
    parse_i64(text.strip_prefix(b"+").unwrap_or(text))
}

fn is_double(text: &[u8]) -> bool {
    let unsigned = text.strip_prefix(b"-").unwrap_or(text);
    unsigned.eq_ignore_ascii_case(b"nan") || kara_base::number::parse_f64(text).is_some()
}

fn close(kind: Kind, mut items: Vec<Value>) -> Value {
    match kind {
        Kind::Array => Value::Array(items),
        Kind::Set => Value::Set(items),
        Kind::Push => Value::Push(items),
        Kind::Map => Value::Map(pair_up(items)),
        Kind::Attribute => {
            let value = Box::new(items.pop().unwrap_or(Value::Null));
            Value::Attributed { attributes: pair_up(items), value }
        }
    }
}

fn pair_up(items: Vec<Value>) -> Vec<(Value, Value)> {
    let mut pairs = Vec::with_capacity(items.len() / 2);
    let mut items = items.into_iter();
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        pairs.push((key, value));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Protocol, Writer};
    use proptest::prelude::*;

    fn parse_pieces(pieces: &[&[u8]], limits: ReplyLimits) -> Result<Vec<Value>, ReplyError> {
        let mut parser = ReplyParser::new(limits);
        let (mut buf, mut found) = (Vec::new(), Vec::new());
        for piece in pieces {
            buf.extend_from_slice(piece);
            loop {
                match parser.parse(&buf)? {
                    ReplyStep::Complete { consumed, value } => {
                        buf.drain(..consumed);
                        found.push(value);
                    }
                    ReplyStep::NeedMore { consumed, missing } => {
                        assert!(missing > 0);
                        buf.drain(..consumed);
                        break;
                    }
                }
            }
        }
        Ok(found)
    }

    fn parse(bytes: &[u8]) -> Result<Vec<Value>, ReplyError> {
        parse_pieces(&[bytes], ReplyLimits::default())
    }

    #[test]
    fn every_type() {
        let bulk = |text: &str| Value::Bulk(text.as_bytes().to_vec());
        let cases: Vec<(&[u8], Value)> = vec![
            (b"+OK\r\n", Value::Simple(b"OK".to_vec())),
            (b"-ERR x\r\n", Value::Error(b"ERR x".to_vec())),
            (b"!6\r\nERR\r\nx\r\n", Value::Error(b"ERR\r\nx".to_vec())),
            (b":-42\r\n", Value::Integer(-42)),
            (b"$-1\r\n", Value::NullBulk),
            (b"*-1\r\n", Value::NullArray),
            (b"_\r\n", Value::Null),
            (b"$4\r\na\r\nb\r\n", bulk("a\r\nb")),
            (b"*2\r\n$1\r\na\r\n*0\r\n", Value::Array(vec![bulk("a"), Value::Array(vec![])])),
            (b"~1\r\n:1\r\n", Value::Set(vec![Value::Integer(1)])),
            (b">1\r\n:1\r\n", Value::Push(vec![Value::Integer(1)])),
            (b"%1\r\n+k\r\n:1\r\n", Value::Map(vec![(Value::Simple(b"k".to_vec()), Value::Integer(1))])),
            (b",-1.5e+30\r\n", Value::Double(b"-1.5e+30".to_vec())),
            (b",inf\r\n", Value::Double(b"inf".to_vec())),
            (b",nan\r\n", Value::Double(b"nan".to_vec())),
            (b",1.50\r\n", Value::Double(b"1.50".to_vec())),
            (b"#t\r\n", Value::Bool(true)),
            (b"(-12345678901234567890\r\n", Value::BigNumber(b"-12345678901234567890".to_vec())),
            (b"=7\r\ntxt:abc\r\n", Value::Verbatim { format: *b"txt", text: b"abc".to_vec() }),
            (
                b"|1\r\n+a\r\n:1\r\n:2\r\n",
                Value::Attributed {
                    attributes: vec![(Value::Simple(b"a".to_vec()), Value::Integer(1))],
                    value: Box::new(Value::Integer(2)),
                },
            ),
        ];
        for (bytes, value) in cases {
            assert_eq!(parse(bytes), Ok(vec![value.clone()]), "{:?}", bytes.escape_ascii().to_string());
            let mut written = Vec::new();
            value.write_to(&mut written);
            assert_eq!(written, bytes);
        }
    }

    #[test]
    fn refused() {
        let cases: &[(&[u8], ReplyError)] = &[
            (b"x", ReplyError::UnknownType(b'x')),
            (b":1x\r\n", ReplyError::BadNumber),
            (b"$-2\r\n", ReplyError::BadLength),
            (b"$1\r\nabc", ReplyError::MissingCrlf),
            (b"+a\rb", ReplyError::MissingCrlf),
            (b"#x\r\n", ReplyError::BadBool),
            (b"=3\r\ntxt\r\n", ReplyError::BadVerbatim),
            (b"_x\r\n", ReplyError::BadLength),
            (b"%-1\r\n", ReplyError::BadLength),
            (b"$99999999999\r\n", ReplyError::TooLong),
            (b"*99999999999\r\n", ReplyError::TooManyValues),
            (b"(1.5\r\n", ReplyError::BadNumber),
        ];
        for (bytes, error) in cases {
            assert_eq!(parse(bytes), Err(*error), "{:?}", bytes.escape_ascii().to_string());
        }
        assert_eq!(parse(&b"*1\r\n".repeat(200)), Err(ReplyError::TooDeep));
        assert_eq!(parse(&b"|0\r\n".repeat(200)), Err(ReplyError::TooDeep));
        let few = ReplyLimits { max_values: 3, ..ReplyLimits::default() };
        assert_eq!(parse_pieces(&[b"*2\r\n*2\r\n:1\r\n:1\r\n"], few), Err(ReplyError::TooManyValues));
    }

    #[test]
    fn what_the_writer_writes() {
        let mut writer = Writer::new(Protocol::Resp3);
        writer.map(1);
        writer.verbatim("txt", b"k");
        writer.set(2);
        writer.double(0.1);
        writer.null();
        let value = parse(writer.as_bytes()).unwrap();
        let mut again = Vec::new();
        value[0].write_to(&mut again);
        assert_eq!(again, writer.take());
    }

    fn values() -> impl Strategy<Value = Value> {
        let text = || prop::collection::vec(any::<u8>(), 0..20);
        let word = || "[a-z ]{0,10}".prop_map(String::into_bytes);
        let leaf = prop_oneof![
            word().prop_map(Value::Simple),
            word().prop_map(Value::Error),
            any::<i64>().prop_map(Value::Integer),
            text().prop_map(Value::Bulk),
            Just(Value::Null),
            Just(Value::NullBulk),
            Just(Value::NullArray),
            any::<bool>().prop_map(Value::Bool),
            (-1e9..1e9).prop_map(|value: f64| Value::Double(value.to_string().into_bytes())),
            text().prop_map(|text| Value::Verbatim { format: *b"mkd", text }),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            let items = || prop::collection::vec(inner.clone(), 0..5);
            let pairs = || prop::collection::vec((inner.clone(), inner.clone()), 0..3);
            prop_oneof![
                items().prop_map(Value::Array),
                items().prop_map(Value::Set),
                items().prop_map(Value::Push),
                pairs().prop_map(Value::Map),
                (pairs(), inner.clone())
                    .prop_map(|(attributes, value)| Value::Attributed { attributes, value: Box::new(value) }),
            ]
        })
    }

    proptest! {
        #[test]
        fn round_trip_at_every_split(value in values()) {
            let mut bytes = Vec::new();
            value.write_to(&mut bytes);
            for at in 0..=bytes.len() {
                let (a, b) = bytes.split_at(at);
                prop_assert_eq!(parse_pieces(&[a, b], ReplyLimits::default()), Ok(vec![value.clone()]));
            }
            let bytewise: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(parse_pieces(&bytewise, ReplyLimits::default()), Ok(vec![value]));
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&bytes);
        }
    }

    #[test]
    fn mutated_replies_never_panic_and_never_depend_on_pieces() {
        let mut rng = kara_base::rng::Rng::new(7);
        let seed =
            b"*3\r\n%1\r\n$1\r\nk\r\n,1.5\r\n~2\r\n:1\r\n_\r\n|1\r\n+a\r\n#t\r\n=7\r\ntxt:abc\r\n$-1\r\n";
        let alphabet = b"*$:+-~%>|=!_#,(\r\n0123456789";
        for _ in 0..20_000 {
            let mut bytes = seed.to_vec();
            for _ in 0..1 + rng.below(4) {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] = alphabet[rng.below(alphabet.len() as u64) as usize];
            }
            let (a, b) = bytes.split_at(rng.below(bytes.len() as u64) as usize);
            let limits = ReplyLimits::default();
            assert_eq!(
                format!("{:?}", parse_pieces(&[a, b], limits)),
                format!("{:?}", parse(&bytes)),
                "{:?}",
                bytes.escape_ascii().to_string()
            );
        }
    }
}
