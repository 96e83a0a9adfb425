//! Requests as clients send them: arrays of bulk strings, or inline lines. Parsed in place: a request is a list
//! of ranges into the caller's buffer, and a call that finds a complete small request allocates nothing.
//!
//! Bounds: nothing is reserved for a count or a length that was merely announced; what is kept per request is
//! proportional to the bytes that arrived.

use kara_base::number::parse_i64;
use kara_base::text::split_args_into;
use smallvec::SmallVec;
use std::fmt;

/// What a client may send. The defaults are an authenticated client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest bulk string in bytes (`proto-max-bulk-len`); `i64::MAX` for a primary's stream.
    pub max_bulk_len: i64,
    /// Most arguments in one request.
    pub max_multibulk: i64,
    /// Longest inline request, and longest line in general, that is waited for, in bytes.
    pub max_inline: usize,
    /// The client has yet to authenticate: 10 arguments of 16 KiB. Parse such a client's requests one at a time,
    /// since each may change this.
    pub unauthenticated: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_bulk_len: 512 << 20,
            max_multibulk: i64::from(i32::MAX),
            max_inline: 64 << 10,
            unauthenticated: false,
        }
    }
}

const UNAUTHENTICATED_MULTIBULK: i64 = 10;
const UNAUTHENTICATED_BULK_LEN: i64 = 16 << 10;

/// The stream can't be understood any more: answer and close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    MultibulkLength,
    UnauthenticatedMultibulk,
    /// The byte that stood in a `$`'s place.
    ExpectedDollar(u8),
    BulkLength,
    UnauthenticatedBulk,
    Crlf,
    LongMultibulkCount,
    LongBulkCount,
    LongInline,
    UnbalancedQuotes,
}

impl ProtocolError {
    /// The error reply's text, with its code: for [`crate::Writer::error_bytes`].
    pub fn reply(&self) -> Vec<u8> {
        let mut text = b"ERR Protocol error: ".to_vec();
        match self {
            // As one byte, whatever it is.
            ProtocolError::ExpectedDollar(byte) => {
                text.extend_from_slice(b"expected '$', got '");
                text.push(*byte);
                text.push(b'\'');
            }
            other => text.extend_from_slice(other.reason().as_bytes()),
        }
        text
    }

    fn reason(&self) -> &'static str {
        match self {
            ProtocolError::MultibulkLength => "invalid multibulk length",
            ProtocolError::UnauthenticatedMultibulk => "unauthenticated multibulk length",
            ProtocolError::ExpectedDollar(_) => "expected '$'",
            ProtocolError::BulkLength => "invalid bulk length",
            ProtocolError::UnauthenticatedBulk => "unauthenticated bulk length",
            ProtocolError::Crlf => "invalid CRLF in request",
            ProtocolError::LongMultibulkCount => "too big mbulk count string",
            ProtocolError::LongBulkCount => "too big bulk count string",
            ProtocolError::LongInline => "too big inline request",
            ProtocolError::UnbalancedQuotes => "unbalanced quotes in request",
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProtocolError::ExpectedDollar(byte) => {
                write!(f, "Protocol error: expected '$', got '{}'", byte.escape_ascii())
            }
            other => write!(f, "Protocol error: {}", other.reason()),
        }
    }
}

impl std::error::Error for ProtocolError {}

/// What a call to [`ParseState::parse`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The request is complete. It and any empty requests before it took `consumed` bytes of the buffer; its
    /// arguments lie among them.
    Complete { consumed: usize },
    /// The rest is missing. Drop the first `consumed` bytes (empty requests), keep the others and call again
    /// with them and whatever arrived behind them. At least `missing` more bytes (never 0) are needed: for a
    /// large bulk string the whole of it, so reading into a buffer that large saves copies, but the number is
    /// the client's claim.
    NeedMore { consumed: usize, missing: usize },
}

/// A parsed request's arguments. Reused from request to request, so that its memory is.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Start and end of each argument in the caller's buffer or, if `owned`, in the arena.
    ranges: Vec<(usize, usize)>,
    /// Unquoted inline arguments.
    arena: Vec<u8>,
    owned: bool,
    /// Where in the caller's buffer it stands in the form that encoding its arguments gives; empty: nowhere.
    whole: (usize, usize),
}

/// Capacities beyond these go back to the allocator before the next request.
const KEPT_RANGES: usize = 1024;
const KEPT_ARENA: usize = 4096;

impl Request {
    pub const fn new() -> Request {
        Request { ranges: Vec::new(), arena: Vec::new(), owned: false, whole: (0, 0) }
    }

    /// The number of arguments, the command's name included; never 0 after `Step::Complete`.
    #[inline]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    #[inline]
    fn source<'a>(&'a self, buf: &'a [u8]) -> &'a [u8] {
        if self.owned { &self.arena } else { buf }
    }

    /// The argument at `index`; `buf` is the buffer that was parsed.
    #[inline]
    pub fn arg<'a>(&'a self, buf: &'a [u8], index: usize) -> Option<&'a [u8]> {
        let &(start, end) = self.ranges.get(index)?;
        self.source(buf).get(start..end)
    }

    /// The request as it was sent, where that is, byte for byte, an array of bulk strings with nothing beside it and no
    /// digit too many; `buf` is the buffer that was parsed. Mostly it is.
    #[inline]
    pub fn as_sent<'a>(&self, buf: &'a [u8]) -> Option<&'a [u8]> {
        let (start, end) = self.whole;
        buf.get(start..end).filter(|bytes| !bytes.is_empty())
    }

    /// Every argument in order; `buf` is the buffer that was parsed.
    #[inline]
    pub fn iter<'a>(&'a self, buf: &'a [u8]) -> impl ExactSizeIterator<Item = &'a [u8]> + 'a {
        let source = self.source(buf);
        self.ranges.iter().map(move |&(start, end)| &source[start..end])
    }

    /// Replaces `out`'s content by the arguments; `buf` is the buffer that was parsed.
    #[inline]
    pub fn args<'a, const N: usize>(&'a self, buf: &'a [u8], out: &mut SmallVec<[&'a [u8]; N]>) {
        out.clear();
        out.extend(self.iter(buf));
    }

    /// Empties it and gives back what an unusually large request took.
    #[inline]
    pub fn clear(&mut self) {
        self.ranges.clear();
        self.whole = (0, 0);
        if self.owned || self.ranges.capacity() > KEPT_RANGES {
            self.release();
        }
    }

    #[cold]
    fn release(&mut self) {
        self.ranges.shrink_to(KEPT_RANGES);
        self.arena.clear();
        self.arena.shrink_to(KEPT_ARENA);
        self.owned = false;
    }
}

/// What is remembered of an incomplete request between two reads. One per connection; empty (16 bytes, nothing
/// allocated) whenever the last request was complete or small.
#[derive(Clone, Debug, Default)]
pub struct ParseState {
    /// Bytes from the buffer's start that hold no end of the line that is being waited for.
    scanned: usize,
    partial: Option<Box<Partial>>,
}

/// A request of many arguments of which some have arrived.
#[derive(Clone, Debug)]
struct Partial {
    ranges: Vec<(usize, usize)>,
    /// Where the next argument's header begins.
    pos: usize,
    /// Arguments still to come.
    remaining: usize,
}

/// Requests with fewer complete arguments are parsed again from their start: cheaper than keeping their state.
const MIN_PARTIAL: usize = 16;

/// A line's end was not found: the caller waits.
struct Incomplete;

impl ParseState {
    pub const fn new() -> ParseState {
        ParseState { scanned: 0, partial: None }
    }

    /// Forgets an incomplete request, for a connection whose input is thrown away.
    pub fn reset(&mut self) {
        *self = ParseState::new();
    }

    /// Bytes of memory held for an incomplete request.
    pub fn memory(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| {
            partial.ranges.capacity() * size_of::<(usize, usize)>() + size_of::<Partial>()
        })
    }

    /// Parses the next request of `buf`, which begins where the last complete request ended. Empty requests are
    /// passed over. After an error the state is meaningless: close the connection.
    pub fn parse(
        &mut self,
        buf: &[u8],
        limits: &Limits,
        request: &mut Request,
    ) -> Result<Step, ProtocolError> {
        request.clear();
        if self.partial.is_some() {
            return self.resume(buf, limits, request);
        }
        let mut start = 0;
        loop {
            match buf.get(start) {
                Some(b'*') => {
                    let mut is_plain = true;
                    let (count, pos) = match small_header(buf, start + 1) {
                        Some(found) => found,
                        None => match self.long_header(buf, start, limits, Header::Multibulk)? {
                            Ok(found) => {
                                is_plain = false;
                                found
                            }
                            Err(Incomplete) => {
                                self.scanned -= start;
                                return Ok(need(start, 1));
                            }
                        },
                    };
                    if count > limits.max_multibulk {
                        return Err(ProtocolError::MultibulkLength);
                    }
                    if limits.unauthenticated && count > UNAUTHENTICATED_MULTIBULK {
                        return Err(ProtocolError::UnauthenticatedMultibulk);
                    }
                    if count > 0 {
                        return self.bulks(buf, (start, is_plain), pos, count as usize, limits, request);
                    }
                    start = pos;
                    self.scanned = 0;
                }
                Some(_) => {
                    let Some(line_end) = self.inline_end(buf, start, limits)? else {
                        return Ok(need(start, 1));
                    };
                    split_inline(buf, start, line_end, request)?;
                    start = line_end + 1;
                    if !request.is_empty() {
                        return Ok(Step::Complete { consumed: start });
                    }
                }
                None => return Ok(need(start, 1)),
            }
        }
    }

    #[cold]
    fn resume(&mut self, buf: &[u8], limits: &Limits, request: &mut Request) -> Result<Step, ProtocolError> {
        match self.partial.take() {
            Some(mut partial) => {
                std::mem::swap(&mut request.ranges, &mut partial.ranges);
                self.bulks(buf, (0, false), partial.pos, partial.remaining, limits, request)
            }
            None => self.parse(buf, limits, request),
        }
    }

    /// The arguments from `pos` on, `remaining` of them; the request began at `start`, up to here as plainly as can be or
    /// not.
    #[inline]
    fn bulks(
        &mut self,
        buf: &[u8],
        (start, mut is_plain): (usize, bool),
        mut pos: usize,
        mut remaining: usize,
        limits: &Limits,
        request: &mut Request,
    ) -> Result<Step, ProtocolError> {
        while remaining > 0 {
            let found = match buf.get(pos) {
                Some(b'$') => small_header(buf, pos + 1),
                _ => None,
            };
            let (len, begin) = match found {
                Some(found) => found,
                None => match self.long_header(buf, pos, limits, Header::Bulk)? {
                    Ok(found) => {
                        is_plain = false;
                        found
                    }
                    Err(Incomplete) => return Ok(self.suspend(start, pos, remaining, 1, request)),
                },
            };
            if !(0..=limits.max_bulk_len).contains(&len) {
                return Err(ProtocolError::BulkLength);
            }
            if limits.unauthenticated && len > UNAUTHENTICATED_BULK_LEN {
                return Err(ProtocolError::UnauthenticatedBulk);
            }
            let len = usize::try_from(len).map_err(|_| ProtocolError::BulkLength)?;
            // Without overflow: an announced length may be near the type's end.
            let wanted = len.saturating_add(2);
            let rest = buf.get(begin..).unwrap_or_default();
            match rest.get(len..wanted) {
                Some(b"\r\n") => {}
                Some(_) => return Err(ProtocolError::Crlf),
                None => {
                    self.scanned = 0;
                    let missing = wanted - rest.len();
                    return Ok(self.suspend(start, pos, remaining, missing, request));
                }
            }
            request.ranges.push((begin, begin + len));
            pos = begin + wanted;
            remaining -= 1;
        }
        self.scanned = 0;
        if is_plain {
            request.whole = (start, pos);
        }
        Ok(Step::Complete { consumed: pos })
    }

    #[cold]
    fn suspend(
        &mut self,
        start: usize,
        pos: usize,
        remaining: usize,
        missing: usize,
        request: &mut Request,
    ) -> Step {
        self.scanned = self.scanned.saturating_sub(start);
        if request.ranges.len() < MIN_PARTIAL {
            request.ranges.clear();
        } else {
            // A copy of its own size, unless that would be large: the request's vector has room for many.
            let mut ranges = match request.ranges.len() {
                ..=KEPT_RANGES => request.ranges.to_vec(),
                _ => std::mem::take(&mut request.ranges),
            };
            request.ranges.clear();
            // The caller drops what precedes `start`.
            for (from, to) in &mut ranges {
                *from -= start;
                *to -= start;
            }
            self.partial = Some(Box::new(Partial { ranges, pos: pos - start, remaining }));
        }
        need(start, missing)
    }

    /// A header line in full generality: incomplete, or of unusual length, or wrong. Returns its number and
    /// where the next byte after it is.
    #[cold]
    fn long_header(
        &mut self,
        buf: &[u8],
        pos: usize,
        limits: &Limits,
        kind: Header,
    ) -> Result<Result<(i64, usize), Incomplete>, ProtocolError> {
        let rest = buf.get(pos..).unwrap_or_default();
        let from = self.scanned.max(pos).min(buf.len());
        let Some(found) = memchr::memchr(b'\r', &buf[from..]) else {
            if rest.len() > limits.max_inline {
                return Err(kind.too_long());
            }
            self.scanned = buf.len();
            return Ok(Err(Incomplete));
        };
        let line_end = from + found;
        let Some(&after) = buf.get(line_end + 1) else {
            self.scanned = line_end;
            return Ok(Err(Incomplete));
        };
        let (Some(&first), Some(text)) = (rest.first(), buf.get(pos + 1..line_end.max(pos + 1))) else {
            return Ok(Err(Incomplete));
        };
        if kind == Header::Bulk && first != b'$' {
            return Err(ProtocolError::ExpectedDollar(first));
        }
        if after != b'\n' {
            return Err(ProtocolError::Crlf);
        }
        self.scanned = 0;
        Ok(Ok((parse_i64(text).ok_or(kind.invalid())?, line_end + 2)))
    }

    /// Where the line that began at `start` ends. A NUL hides the rest of the line, as it does in the reference:
    /// such a line ends as one that is too long.
    fn inline_end(
        &mut self,
        buf: &[u8],
        start: usize,
        limits: &Limits,
    ) -> Result<Option<usize>, ProtocolError> {
        let from = self.scanned.max(start).min(buf.len());
        match memchr::memchr2(b'\n', 0, &buf[from..]) {
            Some(found) if buf[from + found] == b'\n' => {
                self.scanned = 0;
                Ok(Some(from + found))
            }
            found => {
                if buf.len() - start > limits.max_inline {
                    return Err(ProtocolError::LongInline);
                }
                self.scanned = from + found.unwrap_or(buf.len() - from) - start;
                Ok(None)
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Header {
    Multibulk,
    Bulk,
}

impl Header {
    fn too_long(self) -> ProtocolError {
        match self {
            Header::Multibulk => ProtocolError::LongMultibulkCount,
            Header::Bulk => ProtocolError::LongBulkCount,
        }
    }

    fn invalid(self) -> ProtocolError {
        match self {
            Header::Multibulk => ProtocolError::MultibulkLength,
            Header::Bulk => ProtocolError::BulkLength,
        }
    }
}

fn need(consumed: usize, missing: usize) -> Step {
    Step::NeedMore { consumed, missing }
}

/// The number at `pos` if it is 1 to 4 digits without leading zero and its line is complete: nearly every
/// header. Returns it with the position behind the line.
#[inline(always)]
fn small_header(buf: &[u8], pos: usize) -> Option<(i64, usize)> {
    match *buf.get(pos..)? {
        [d @ b'0'..=b'9', b'\r', b'\n', ..] => Some((i64::from(d - b'0'), pos + 3)),
        [d @ b'1'..=b'9', e @ b'0'..=b'9', b'\r', b'\n', ..] => {
            Some((i64::from(d - b'0') * 10 + i64::from(e - b'0'), pos + 4))
        }
        [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9', ..] => longer_header(buf, pos),
        _ => None,
    }
}

/// Up to 18 digits, which can't overflow.
#[inline]
fn longer_header(buf: &[u8], pos: usize) -> Option<(i64, usize)> {
    let mut value = 0i64;
    for (count, &byte) in buf.get(pos..)?.iter().take(19).enumerate() {
        match byte {
            b'0'..=b'9' if count < 18 => value = value * 10 + i64::from(byte - b'0'),
            b'\r' if buf.get(pos + count + 1) == Some(&b'\n') => return Some((value, pos + count + 2)),
            _ => return None,
        }
    }
    None
}

/// Splits the line `buf[start..line_end]`. Without quotes the arguments stay in the buffer.
fn split_inline(
    buf: &[u8],
    start: usize,
    line_end: usize,
    request: &mut Request,
) -> Result<(), ProtocolError> {
    let line = buf.get(start..line_end).unwrap_or_default();
    if memchr::memchr2(b'"', b'\'', line).is_some() {
        request.owned = true;
        return split_args_into(line, &mut request.arena, &mut request.ranges)
            .map_err(|_| ProtocolError::UnbalancedQuotes);
    }
    let mut pos = start;
    for word in line.split(|b| matches!(b, b' ' | b'\t' | b'\r')) {
        if !word.is_empty() {
            request.ranges.push((pos, pos + word.len()));
        }
        pos += word.len() + 1;
    }
    Ok(())
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
