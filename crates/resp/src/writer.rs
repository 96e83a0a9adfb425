//! Replies: one growing buffer and a method per kind of reply, which picks the shape that the connection's
//! protocol version has for it. Keeps no account of nesting: whoever announces `n` elements writes `n`.

use crate::Protocol;
use kara_base::number::format_f64;

/// Where an aggregate of yet unknown length began; see [`Writer::defer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a deferred aggregate needs its header"]
pub struct Mark(usize);

/// A reply buffer for one connection.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    buffer: Vec<u8>,
    protocol: Protocol,
}

impl Writer {
    pub const fn new(protocol: Protocol) -> Writer {
        Writer { buffer: Vec::new(), protocol }
    }

    #[inline]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Applies to what is written from now on.
    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    #[inline]
    pub fn is_resp3(&self) -> bool {
        self.protocol == Protocol::Resp3
    }

    #[inline]
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The bytes written so far; the writer starts empty again, without their memory.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    pub fn clear(&mut self) {
        self.buffer.clear();
    }

    /// Drops what was written after the buffer had `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.buffer.truncate(len);
    }

    /// Bytes that are already protocol.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    #[inline]
    pub fn ok(&mut self) {
        self.raw(b"+OK\r\n");
    }

    /// A status reply. Line breaks become blanks, so that no text can forge a second reply.
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// [`Writer::simple`] for text that needn't be UTF-8.
    pub fn simple_bytes(&mut self, text: &[u8]) {
        self.line(b'+', text);
    }

    /// An error reply: the full text with its code, without the dash (`ERR syntax error`). Line breaks become
    /// blanks.
    pub fn error(&mut self, text: &str) {
        self.line(b'-', text.as_bytes());
    }

    /// [`Writer::error`] for text that needn't be UTF-8.
    pub fn error_bytes(&mut self, text: &[u8]) {
        self.line(b'-', text);
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        self.buffer.reserve(text.len() + 3);
        self.buffer.push(kind);
        let start = self.buffer.len();
        self.buffer.extend_from_slice(text);
        if memchr::memchr2(b'\r', b'\n', text).is_some() {
            for byte in &mut self.buffer[start..] {
                if matches!(byte, b'\r' | b'\n') {
                    *byte = b' ';
                }
            }
        }
        self.buffer.extend_from_slice(b"\r\n");
    }

    #[inline]
    pub fn integer(&mut self, value: i64) {
        if (0..10).contains(&value) {
            self.raw(&[b':', b'0' + value as u8, b'\r', b'\n']);
        } else {
            self.number_line(b':', value);
        }
    }

    fn number_line(&mut self, kind: u8, value: i64) {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(value).as_bytes();
        self.buffer.reserve(digits.len() + 3);
        self.buffer.push(kind);
        self.buffer.extend_from_slice(digits);
        self.buffer.extend_from_slice(b"\r\n");
    }

    /// `kind`, the count, line break. Counts below 100 are built in place: nearly every header.
    #[inline]
    fn header(&mut self, kind: u8, count: usize) {
        if count < 10 {
            self.raw(&[kind, b'0' + count as u8, b'\r', b'\n']);
        } else if count < 100 {
            self.raw(&[kind, b'0' + (count / 10) as u8, b'0' + (count % 10) as u8, b'\r', b'\n']);
        } else {
            self.number_line(kind, count as i64);
        }
    }

    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.buffer.reserve(bytes.len() + 24);
        self.header(b'$', bytes.len());
        self.buffer.extend_from_slice(bytes);
        self.buffer.extend_from_slice(b"\r\n");
    }

    /// A bulk string, or null.
    #[inline]
    pub fn bulk_or_null(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.null(),
        }
    }

    /// The number's decimal text as a bulk string.
    #[inline]
    pub fn bulk_i64(&mut self, value: i64) {
        self.bulk(itoa::Buffer::new().format(value).as_bytes());
    }

    /// The number's decimal text as a bulk string.
    #[inline]
    pub fn bulk_u64(&mut self, value: u64) {
        self.bulk(itoa::Buffer::new().format(value).as_bytes());
    }

    /// The double's text (see [`format_f64`]) as a bulk string in both protocols.
    pub fn bulk_f64(&mut self, value: f64) {
        self.bulk(format_f64(value).as_bytes());
    }

    #[inline]
    pub fn null(&mut self) {
        match self.protocol {
            Protocol::Resp2 => self.raw(b"$-1\r\n"),
            Protocol::Resp3 => self.raw(b"_\r\n"),
        }
    }

    #[inline]
    pub fn null_array(&mut self) {
        match self.protocol {
            Protocol::Resp2 => self.raw(b"*-1\r\n"),
            Protocol::Resp3 => self.raw(b"_\r\n"),
        }
    }

    #[inline]
    pub fn array(&mut self, count: usize) {
        self.header(b'*', count);
    }

    /// A map of `pairs` pairs; in RESP2 an array of twice as many elements.
    #[inline]
    pub fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', pairs * 2),
            Protocol::Resp3 => self.header(b'%', pairs),
        }
    }

    #[inline]
    pub fn set(&mut self, count: usize) {
        self.header(self.set_kind(), count);
    }

    fn set_kind(&self) -> u8 {
        match self.protocol {
            Protocol::Resp2 => b'*',
            Protocol::Resp3 => b'~',
        }
    }

    /// An out-of-band message; in RESP2 an array.
    #[inline]
    pub fn push(&mut self, count: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', count),
            Protocol::Resp3 => self.header(b'>', count),
        }
    }

    /// Announces `pairs` attribute pairs ahead of a reply. False in RESP2, which has none: write no pairs then.
    #[must_use]
    pub fn attribute(&mut self, pairs: usize) -> bool {
        if self.is_resp3() {
            self.header(b'|', pairs);
        }
        self.is_resp3()
    }

    pub fn double(&mut self, value: f64) {
        let text = format_f64(value);
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => self.line(b',', text.as_bytes()),
        }
    }

    #[inline]
    pub fn bool(&mut self, value: bool) {
        self.raw(match (self.protocol, value) {
            (Protocol::Resp2, true) => b":1\r\n",
            (Protocol::Resp2, false) => b":0\r\n",
            (Protocol::Resp3, true) => b"#t\r\n",
            (Protocol::Resp3, false) => b"#f\r\n",
        });
    }

    /// A whole number of any size, given as its decimal text.
    pub fn big_number(&mut self, text: &[u8]) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text),
            Protocol::Resp3 => self.line(b'(', text),
        }
    }

    /// Text with its format, three letters such as `txt` or `mkd` (longer is cut, shorter padded with blanks);
    /// in RESP2 the plain text as bulk.
    pub fn verbatim(&mut self, format: &str, text: &[u8]) {
        if !self.is_resp3() {
            return self.bulk(text);
        }
        let mut prefix = *b"   :";
        for (slot, byte) in prefix[..3].iter_mut().zip(format.bytes()) {
            *slot = byte;
        }
        self.buffer.reserve(text.len() + 28);
        self.header(b'=', text.len() + prefix.len());
        self.buffer.extend_from_slice(&prefix);
        self.buffer.extend_from_slice(text);
        self.buffer.extend_from_slice(b"\r\n");
    }

    /// Begins an aggregate whose length is known only when its elements are written: write them, then call
    /// `end_array`, `end_map` or `end_set` with the mark. Marks nest: the one made last ends first. Ending moves
    /// the elements up by the header's length: one memmove.
    pub fn defer(&mut self) -> Mark {
        Mark(self.buffer.len())
    }

    pub fn end_array(&mut self, mark: Mark, count: usize) {
        self.insert_header(mark, b'*', count);
    }

    pub fn end_set(&mut self, mark: Mark, count: usize) {
        self.insert_header(mark, self.set_kind(), count);
    }

    pub fn end_map(&mut self, mark: Mark, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.insert_header(mark, b'*', pairs * 2),
            Protocol::Resp3 => self.insert_header(mark, b'%', pairs),
        }
    }

    /// Drops the aggregate's elements: something else is to be answered instead.
    pub fn abandon(&mut self, mark: Mark) {
        self.buffer.truncate(mark.0);
    }

    fn insert_header(&mut self, mark: Mark, kind: u8, count: usize) {
        let old_len = self.buffer.len();
        self.header(kind, count);
        // The header now stands behind the elements: rotate it to their front.
        let header_len = self.buffer.len() - old_len;
        self.buffer[mark.0..].rotate_right(header_len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(write: impl Fn(&mut Writer)) -> (String, String) {
        let text = |protocol| {
            let mut writer = Writer::new(protocol);
            write(&mut writer);
            String::from_utf8(writer.take()).unwrap().replace("\r\n", "|")
        };
        (text(Protocol::Resp2), text(Protocol::Resp3))
    }

    #[track_caller]
    fn assert_both(write: impl Fn(&mut Writer), resp2: &str, resp3: &str) {
        assert_eq!(both(write), (resp2.to_owned(), resp3.to_owned()));
    }

    #[track_caller]
    fn assert_same(write: impl Fn(&mut Writer), text: &str) {
        assert_both(write, text, text);
    }

    #[test]
    fn shapes_of_both_protocols() {
        assert_same(Writer::ok, "+OK|");
        assert_same(|w| w.simple("a\r\nb"), "+a  b|");
        assert_same(|w| w.error("ERR x\n+OK"), "-ERR x +OK|");
        assert_same(|w| w.bulk(b""), "$0||");
        assert_same(|w| w.bulk(&[b'x'; 12]), "$12|xxxxxxxxxxxx|");
        assert_same(|w| w.bulk_i64(i64::MIN), "$20|-9223372036854775808|");
        assert_same(|w| w.bulk_u64(u64::MAX), "$20|18446744073709551615|");
        assert_both(Writer::null, "$-1|", "_|");
        assert_both(Writer::null_array, "*-1|", "_|");
        assert_same(|w| w.array(100), "*100|");
        assert_both(|w| w.map(5), "*10|", "%5|");
        assert_both(|w| w.set(3), "*3|", "~3|");
        assert_both(|w| w.push(3), "*3|", ">3|");
        assert_both(|w| w.double(1.5), "$3|1.5|", ",1.5|");
        assert_both(|w| w.double(f64::NEG_INFINITY), "$4|-inf|", ",-inf|");
        assert_both(|w| w.bool(true), ":1|", "#t|");
        assert_both(|w| w.bool(false), ":0|", "#f|");
        assert_both(|w| w.big_number(b"-123"), "$4|-123|", "(-123|");
        assert_both(|w| w.verbatim("txt", b"hello"), "$5|hello|", "=9|txt:hello|");
        assert_both(
            |w| {
                if w.attribute(1) {
                    w.bulk(b"k");
                    w.integer(1);
                }
            },
            "",
            "|1|$1|k|:1|",
        );
    }

    #[test]
    fn integers() {
        for value in [0, 9, 10, 99, -1, 12345, i64::MAX, i64::MIN] {
            assert_same(|w| w.integer(value), &format!(":{value}|"));
        }
    }

    #[test]
    fn deferred_headers_nest() {
        assert_both(
            |w| {
                w.integer(7);
                let outer = w.defer();
                w.bulk(b"a");
                let inner = w.defer();
                for i in 0..12 {
                    w.integer(i % 3);
                }
                w.end_array(inner, 12);
                let dropped = w.defer();
                w.ok();
                w.abandon(dropped);
                let empty = w.defer();
                w.end_set(empty, 0);
                w.integer(5);
                w.end_map(outer, 2);
            },
            ":7|*4|$1|a|*12|:0|:1|:2|:0|:1|:2|:0|:1|:2|:0|:1|:2|*0|:5|",
            ":7|%2|$1|a|*12|:0|:1|:2|:0|:1|:2|:0|:1|:2|:0|:1|:2|~0|:5|",
        );
    }
}
