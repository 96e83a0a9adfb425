//! Packed forms of old files, ziplist and zipmap; they become listpacks while they are read.
//!
//! ```text
//! ziplist := bytes(u32) tail(u32) count(u16) entry* 0xff       all little endian
//! entry   := previous(u8 | 0xfe u32) head data
//! head    := 00nnnnnn | 01nnnnnn n | 0x80 n*4 big endian: a text of n bytes
//!          | 0xc0 i16 | 0xd0 i32 | 0xe0 i64 | 0xf0 i24 | 0xfe i8 | 0xf1..0xfd: the number 0..12
//! zipmap  := count(u8) (len field len free(u8) value unused*free)* 0xff
//! len     := u8 below 0xfe | 0xfe u32 little endian
//! ```

use super::RdbError;
use kara_encoding::listpack::{Element, Listpack};

const BAD: RdbError = RdbError::Corrupt("Ziplist integrity check failed.");
const BAD_MAP: RdbError = RdbError::Corrupt("Zipmap integrity check failed.");
const END: u8 = 0xff;
const HEADER: usize = 10;

fn at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

/// The elements of a ziplist, each looked at once; nothing reads the blob again.
pub(super) fn ziplist(blob: &[u8]) -> Result<Listpack, RdbError> {
    read_ziplist(blob).ok_or(BAD)
}

fn read_ziplist(blob: &[u8]) -> Option<Listpack> {
    let total = u32::from_le_bytes(at(blob, 0)?) as usize;
    let tail = u32::from_le_bytes(at(blob, 4)?) as usize;
    let stated = usize::from(u16::from_le_bytes(at(blob, 8)?));
    if total != blob.len() || blob.len() < HEADER + 1 || blob.last() != Some(&END) {
        return None;
    }
    let end = blob.len() - 1;
    let mut list = Listpack::new();
    let (mut offset, mut previous, mut last, mut count) = (HEADER, 0usize, HEADER, 0usize);
    while offset < end {
        let start = offset;
        let (stated_previous, size) = match *blob.get(offset)? {
            0xfe => (u32::from_le_bytes(at(blob, offset + 1)?) as usize, 5),
            END => return None,
            n => (usize::from(n), 1),
        };
        if stated_previous != previous {
            return None;
        }
        offset += size;
        let (element, next) = ziplist_element(blob, offset)?;
        if next > end {
            return None;
        }
        list.extend_back([element]).ok()?;
        (offset, previous, last) = (next, next - start, start);
        count += 1;
    }
    let counted = stated == usize::from(u16::MAX) || stated == count;
    (counted && tail == last).then_some(list)
}

/// The element whose head stands at `offset`, and the offset behind it.
fn ziplist_element(blob: &[u8], offset: usize) -> Option<(Element<'_>, usize)> {
    let head = *blob.get(offset)?;
    let body = offset + 1;
    let text = |start: usize, len: usize| {
        let end = start.checked_add(len)?;
        Some((Element::Str(blob.get(start..end)?), end))
    };
    let number = |value: i64, len: usize| Some((Element::Int(value), body + len));
    match head {
        0x00..=0x3f => text(body, usize::from(head)),
        0x40..=0x7f => text(body + 1, usize::from(head & 0x3f) << 8 | usize::from(*blob.get(body)?)),
        0x80 => text(body + 4, u32::from_be_bytes(at(blob, body)?) as usize),
        0xc0 => number(i64::from(i16::from_le_bytes(at(blob, body)?)), 2),
        0xd0 => number(i64::from(i32::from_le_bytes(at(blob, body)?)), 4),
        0xe0 => number(i64::from_le_bytes(at(blob, body)?), 8),
        0xf0 => {
            let [low, mid, high] = at(blob, body)?;
            number(i64::from(i32::from_le_bytes([0, low, mid, high]) >> 8), 3)
        }
        0xfe => number(i64::from(i8::from_le_bytes(at(blob, body)?)), 1),
        0xf1..=0xfd => number(i64::from(head & 0x0f) - 1, 0),
        _ => None,
    }
}

/// Fields and values of a zipmap in turn.
pub(super) fn zipmap(blob: &[u8]) -> Result<Listpack, RdbError> {
    read_zipmap(blob).ok_or(BAD_MAP)
}

fn read_zipmap(blob: &[u8]) -> Option<Listpack> {
    let stated = *blob.first()?;
    let (mut offset, mut count) = (1usize, 0usize);
    let mut list = Listpack::new();
    while let Some(field) = zipmap_len(blob, &mut offset)? {
        let field = take(blob, &mut offset, field)?;
        let value = zipmap_len(blob, &mut offset)??;
        let unused = usize::from(*blob.get(offset)?);
        offset += 1;
        let value = take(blob, &mut offset, value)?;
        take(blob, &mut offset, unused)?;
        list.extend_back([Element::Str(field), Element::Str(value)]).ok()?;
        count += 1;
    }
    // Maps of 254 fields and more don't state their count.
    let counted = usize::from(stated) == count || stated >= 254 && count >= 254;
    (counted && offset == blob.len()).then_some(list)
}

/// A length, or the end. One that is longer than it need be is refused: readers that disagree about such lengths
/// have read beyond their buffers.
fn zipmap_len(blob: &[u8], offset: &mut usize) -> Option<Option<usize>> {
    match *blob.get(*offset)? {
        END => {
            *offset += 1;
            Some(None)
        }
        0xfe => {
            let len = u32::from_le_bytes(at(blob, *offset + 1)?) as usize;
            *offset += 5;
            (len >= 0xfe).then_some(Some(len))
        }
        n => {
            *offset += 1;
            Some(Some(usize::from(n)))
        }
    }
}

fn take<'a>(blob: &'a [u8], offset: &mut usize, len: usize) -> Option<&'a [u8]> {
    let end = offset.checked_add(len)?;
    let bytes = blob.get(*offset..end)?;
    *offset = end;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_head_of_a_ziplist() {
        let mut blob = vec![0; 10];
        let mut previous = 0u8;
        let mut last = 0;
        let bodies: Vec<Vec<u8>> = vec![
            b"\x02hi".to_vec(),
            [&b"\x40\x41"[..], &[b'x'; 65]].concat(),
            b"\x80\0\0\0\x03abc".to_vec(),
            b"\xc0\xff\xff".to_vec(),
            b"\xd0\0\0\x01\0".to_vec(),
            b"\xe0\xff\xff\xff\xff\xff\xff\xff\x7f".to_vec(),
            b"\xf0\xff\xff\xff".to_vec(),
            b"\xfe\x80".to_vec(),
            b"\xf1".to_vec(),
            b"\xfd".to_vec(),
        ];
        for body in &bodies {
            last = blob.len();
            blob.push(previous);
            blob.extend_from_slice(body);
            previous = body.len() as u8 + 1;
        }
        blob.push(0xff);
        let total = blob.len() as u32;
        blob[..4].copy_from_slice(&total.to_le_bytes());
        blob[4..8].copy_from_slice(&(last as u32).to_le_bytes());
        blob[8..10].copy_from_slice(&(bodies.len() as u16).to_le_bytes());
        let list = ziplist(&blob).unwrap();
        let texts: Vec<Vec<u8>> = list.iter().map(|element| element.to_bytes()).collect();
        assert_eq!(
            texts[2..],
            ["abc", "-1", "65536", "9223372036854775807", "-1", "-128", "0", "12"]
                .map(|t| t.as_bytes().to_vec())
        );
        for at in 0..blob.len() {
            let mut broken = blob.clone();
            broken[at] ^= 0x41;
            // Whatever it says, it says it without a panic.
            let _ = ziplist(&broken);
            assert!(ziplist(&blob[..at]).is_err());
        }
    }

    #[test]
    fn zipmaps_with_spare_bytes_and_overlong_lengths() {
        let map = b"\x02\x03foo\x03\x02barXX\x01a\x00\x00\xff";
        let texts: Vec<Vec<u8>> = zipmap(map).unwrap().iter().map(|e| e.to_bytes()).collect();
        assert_eq!(texts, [b"foo".to_vec(), b"bar".to_vec(), b"a".to_vec(), b"".to_vec()]);
        assert!(zipmap(b"\x01\xfe\x03\0\0\0foo\x01\x00b\xff").is_err(), "an overlong length");
        assert!(zipmap(b"\x02\x01a\x01\x00b\xff").is_err(), "a wrong count");
        assert!(zipmap(b"\x01\x01a\x01\x09b\xff").is_err(), "spare bytes beyond the end");
        assert!(zipmap(b"\x01\xfe\xff\xff\xff\xff").is_err());
    }
}
