//! Whether a data set that comes holds any key, found out before ours goes: what is read for that is kept and read again.

use kara_keyspace::Entry;
use kara_persist::rdb::file::AccessNote;
use kara_persist::rdb::load::{LoadFault, LoadOptions, LoadSink, load};
use kara_persist::rdb::opcodes;
use std::cell::Cell;
use std::io::{self, Read};

/// A stream with what was read of it in front.
#[derive(Debug)]
pub struct Peeked<R> {
    seen: Vec<u8>,
    at: usize,
    inner: R,
}

impl<R> Peeked<R> {
    /// Nothing was read of it yet.
    pub fn new(inner: R) -> Peeked<R> {
        Peeked { seen: Vec::new(), at: 0, inner }
    }

    /// The bytes that nobody has read again, and the stream.
    pub fn into_rest(self) -> (Vec<u8>, R) {
        (self.seen.get(self.at..).unwrap_or_default().to_vec(), self.inner)
    }
}

impl<R: Read> Peeked<R> {
    /// Whether there is a data set, whole and without a key. What is broken is for whoever loads it to say.
    pub fn is_empty(&mut self, options: &LoadOptions) -> bool {
        let enough = Cell::new(false);
        let tee = Tee { seen: &mut self.seen, inner: &mut self.inner, enough: &enough };
        load(tee, options, &mut AnyKey { enough: &enough }).is_ok()
    }
}

impl<R: Read> Read for Peeked<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut left = self.seen.get(self.at..).unwrap_or_default();
        if left.is_empty() {
            return self.inner.read(into);
        }
        let n = left.read(into)?;
        self.at += n;
        if self.at == self.seen.len() {
            (self.seen, self.at) = (Vec::new(), 0);
        }
        Ok(n)
    }
}

/// Notes what is read, up to the first key.
struct Tee<'a, R> {
    seen: &'a mut Vec<u8>,
    inner: &'a mut R,
    enough: &'a Cell<bool>,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.enough.get() {
            return Err(io::ErrorKind::Other.into());
        }
        let n = self.inner.read(into)?;
        self.seen.extend_from_slice(into.get(..n).unwrap_or_default());
        Ok(n)
    }
}

struct AnyKey<'a> {
    enough: &'a Cell<bool>,
}

impl LoadSink for AnyKey<'_> {
    fn begins(&mut self, kind: u8, _: u64) {
        // Whatever else there is stands in front of keys.
        let is_preface =
            matches!(kind, opcodes::AUX | opcodes::FUNCTION2 | opcodes::MODULE_AUX | opcodes::EOF);
        if !is_preface {
            self.enough.set(true);
        }
    }

    fn aux(&mut self, _: &[u8], _: &[u8]) {}

    fn function(&mut self, _: &[u8]) -> Result<(), LoadFault> {
        Ok(())
    }

    fn empty_key(&mut self, _: u32, _: &[u8]) {}

    fn key(&mut self, _: u32, _: Entry, _: AccessNote) -> Result<(), LoadFault> {
        Err(LoadFault::Stopped("a key".to_owned()))
    }

    fn progress(&mut self, _: u64) -> Result<(), LoadFault> {
        if self.enough.get() { Err(LoadFault::Stopped("not empty".to_owned())) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> LoadOptions {
        let limits =
            kara_persist::rdb::decode::ValueLimits::with_seed(kara_base::hash::HashSeed { k0: 1, k1: 2 });
        LoadOptions { limits, drop_before_ms: None, relaxed: false, checksum: false, databases: 16 }
    }

    #[test]
    fn only_a_whole_data_set_without_keys_is_empty_and_nothing_is_lost() {
        let head = b"REDIS0011\xfa\x05ctime\x011";
        let with = |rest: &[u8]| [head.as_slice(), rest].concat();
        let cases = [
            (with(b"\xff\0\0\0\0\0\0\0\0and the stream"), true),
            (with(b"\xfe\0\xfb\x01\0\0\x01a\x01b\xff\0\0\0\0\0\0\0\0"), false),
            (with(b"\xff\0\0"), false),
            (with(b""), false),
            (b"nonsense".to_vec(), false),
        ];
        for (bytes, empty) in cases {
            let mut peeked = Peeked::new(bytes.as_slice());
            assert_eq!(peeked.is_empty(&options()), empty, "{bytes:?}");
            let mut again = vec![0; 3];
            peeked.read_exact(&mut again).unwrap();
            let (rest, mut inner) = peeked.into_rest();
            again.extend_from_slice(&rest);
            inner.read_to_end(&mut again).unwrap();
            assert_eq!(again, bytes);
        }
    }
}
