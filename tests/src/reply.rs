//! Replies as the wire has them, in RESP2 and RESP3: kinds that a lenient client would merge stay apart
//! (`$-1` and `*-1`, a simple string and a bulk string), since a user's client may tell them apart.
//!
//! Written apart from the server's own parser on purpose: a shared mistake would cancel out in a black-box test.

use std::fmt;

/// One reply of any kind. Texts are bytes, without the line's end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reply {
    Simple(Vec<u8>),
    Error(Vec<u8>),
    Integer(i64),
    Bulk(Vec<u8>),
    /// `$-1`
    NullBulk,
    /// `*-1`
    NullArray,
    /// `_`
    Null,
    Array(Vec<Reply>),
    Map(Vec<(Reply, Reply)>),
    Set(Vec<Reply>),
    Push(Vec<Reply>),
    /// The text as sent: `1.50` and `1.5` are different replies.
    Double(Vec<u8>),
    Boolean(bool),
    BigNumber(Vec<u8>),
    BulkError(Vec<u8>),
    /// With its `txt:` prefix.
    Verbatim(Vec<u8>),
}

impl Reply {
    /// The text of a reply that has one: simple, bulk, error, double, big number, verbatim.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Simple(t) | Self::Error(t) | Self::Bulk(t) | Self::Double(t) => Some(t),
            Self::BigNumber(t) | Self::BulkError(t) => Some(t),
            Self::Verbatim(t) => Some(t.get(4..).unwrap_or_default()),
            _ => None,
        }
    }

    /// [`Self::bytes`] as text; empty for other replies.
    pub fn text(&self) -> String {
        self.bytes().map(|t| String::from_utf8_lossy(t).into_owned()).unwrap_or_default()
    }

    pub fn integer(&self) -> Option<i64> {
        if let Self::Integer(n) = self { Some(*n) } else { None }
    }

    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(_) | Self::BulkError(_))
    }

    /// The elements of an array, set or push; empty for other replies.
    pub fn items(&self) -> &[Reply] {
        match self {
            Self::Array(items) | Self::Set(items) | Self::Push(items) => items,
            _ => &[],
        }
    }

    /// Name and value pairs of a map, or of RESP2's flat array.
    pub fn pairs(&self) -> Vec<(String, &Reply)> {
        match self {
            Self::Map(pairs) => pairs.iter().map(|(k, v)| (k.text(), v)).collect(),
            other => other
                .items()
                .chunks_exact(2)
                .filter_map(|pair| Some((pair.first()?.text(), pair.get(1)?)))
                .collect(),
        }
    }

    /// The value under `name` of a map or flat array.
    pub fn field(&self, name: &str) -> Option<&Reply> {
        self.pairs().into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, open: &str, items: &[Reply]| {
            write!(f, "{open}")?;
            for (at, item) in items.iter().enumerate() {
                write!(f, "{}{item:?}", if at > 0 { ", " } else { "" })?;
            }
            write!(f, "]")
        };
        match self {
            Self::Simple(t) => write!(f, "+{}", t.escape_ascii()),
            Self::Error(t) => write!(f, "-{}", t.escape_ascii()),
            Self::BulkError(t) => write!(f, "!{}", t.escape_ascii()),
            Self::Integer(n) => write!(f, ":{n}"),
            Self::Bulk(t) => write!(f, "\"{}\"", t.escape_ascii()),
            Self::NullBulk => write!(f, "$-1"),
            Self::NullArray => write!(f, "*-1"),
            Self::Null => write!(f, "_"),
            Self::Double(t) => write!(f, ",{}", t.escape_ascii()),
            Self::Boolean(b) => write!(f, "#{b}"),
            Self::BigNumber(t) => write!(f, "({}", t.escape_ascii()),
            Self::Verbatim(t) => write!(f, "={}", t.escape_ascii()),
            Self::Array(items) => list(f, "[", items),
            Self::Set(items) => list(f, "~[", items),
            Self::Push(items) => list(f, ">[", items),
            Self::Map(pairs) => {
                write!(f, "%{{")?;
                for (at, (key, value)) in pairs.iter().enumerate() {
                    write!(f, "{}{key:?}: {value:?}", if at > 0 { ", " } else { "" })?;
                }
                write!(f, "}}")
            }
        }
    }
}

/// A stream that is not RESP: the message says what was found.
#[derive(Debug)]
pub struct ProtocolError(pub String);

/// One reply from the front of `input`: the reply and the bytes it took, or `None` where more must be read.
///
/// # Errors
/// Where the bytes are no reply.
pub fn parse(input: &[u8]) -> Result<Option<(Reply, usize)>, ProtocolError> {
    let mut cursor = Cursor { input, at: 0 };
    Ok(cursor.reply()?.map(|reply| (reply, cursor.at)))
}

struct Cursor<'a> {
    input: &'a [u8],
    at: usize,
}

type Parsed<T> = Result<Option<T>, ProtocolError>;

impl<'a> Cursor<'a> {
    fn line(&mut self) -> Option<&'a [u8]> {
        let rest = self.input.get(self.at..)?;
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        self.at += end + 2;
        rest.get(..end)
    }

    fn reply(&mut self) -> Parsed<Reply> {
        let Some(line) = self.line() else { return Ok(None) };
        let Some((kind, rest)) = line.split_first() else {
            return Err(ProtocolError("an empty line for a reply".into()));
        };
        let reply = match kind {
            b'+' => Reply::Simple(rest.to_vec()),
            b'-' => Reply::Error(rest.to_vec()),
            b':' => Reply::Integer(number(rest)?),
            b',' => Reply::Double(rest.to_vec()),
            b'(' => Reply::BigNumber(rest.to_vec()),
            b'_' => Reply::Null,
            b'#' => Reply::Boolean(rest == b"t"),
            b'$' | b'=' | b'!' => return self.bulk(*kind, number(rest)?),
            b'*' | b'~' | b'>' | b'%' | b'|' => return self.aggregate(*kind, number(rest)?),
            _ => return Err(ProtocolError(format!("no reply starts so: {}", line.escape_ascii()))),
        };
        Ok(Some(reply))
    }

    fn bulk(&mut self, kind: u8, length: i64) -> Parsed<Reply> {
        if length == -1 && kind == b'$' {
            return Ok(Some(Reply::NullBulk));
        }
        let length = usize::try_from(length).map_err(|_| ProtocolError(format!("bulk length {length}")))?;
        let Some(body) = self.input.get(self.at..self.at + length + 2) else { return Ok(None) };
        let Some(text) = body.strip_suffix(b"\r\n") else {
            return Err(ProtocolError("a bulk without its line end".into()));
        };
        self.at += length + 2;
        let text = text.to_vec();
        Ok(Some(match kind {
            b'=' => Reply::Verbatim(text),
            b'!' => Reply::BulkError(text),
            _ => Reply::Bulk(text),
        }))
    }

    fn aggregate(&mut self, kind: u8, length: i64) -> Parsed<Reply> {
        if length == -1 && kind == b'*' {
            return Ok(Some(Reply::NullArray));
        }
        let length = usize::try_from(length).map_err(|_| ProtocolError(format!("array length {length}")))?;
        if matches!(kind, b'%' | b'|') {
            let mut pairs = Vec::new();
            for _ in 0..length {
                let (Some(key), Some(value)) = (self.reply()?, self.reply()?) else { return Ok(None) };
                pairs.push((key, value));
            }
            // Attributes go in front of the reply that they describe.
            return if kind == b'|' { self.reply() } else { Ok(Some(Reply::Map(pairs))) };
        }
        let mut items = Vec::new();
        for _ in 0..length {
            let Some(item) = self.reply()? else { return Ok(None) };
            items.push(item);
        }
        Ok(Some(match kind {
            b'~' => Reply::Set(items),
            b'>' => Reply::Push(items),
            _ => Reply::Array(items),
        }))
    }
}

fn number(text: &[u8]) -> Result<i64, ProtocolError> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| ProtocolError(format!("not a number: {}", text.escape_ascii())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_asks_for_more_and_the_whole_is_taken() {
        let wire = b"*4\r\n$3\r\na\r\n\r\n%1\r\n+k\r\n,1.5\r\n~1\r\n#t\r\n=5\r\ntxt:x\r\n";
        for cut in 0..wire.len() {
            assert!(parse(&wire[..cut]).unwrap().is_none(), "cut at {cut}");
        }
        let (reply, taken) = parse(wire).unwrap().unwrap();
        assert_eq!(taken, wire.len());
        assert_eq!(format!("{reply:?}"), r#"["a\r\n", %{+k: ,1.5}, ~[#true], =txt:x]"#);
    }

    #[test]
    fn nulls_stay_apart_and_nonsense_is_refused() {
        assert_eq!(parse(b"$-1\r\n").unwrap().unwrap().0, Reply::NullBulk);
        assert_eq!(parse(b"*-1\r\n").unwrap().unwrap().0, Reply::NullArray);
        assert_eq!(parse(b"_\r\n").unwrap().unwrap().0, Reply::Null);
        assert!(parse(b"?\r\n").is_err());
        assert!(parse(b"$x\r\n").is_err());
    }
}
