//! DEBUG DIGEST: a hash of the data that doesn't depend on the order in which keys and members are held, equal to
//! the reference's for equal data.
//!
//! Two operations on 20-byte states: `add` xors the SHA-1 of some bytes in (order doesn't matter), `mix` does so and
//! then hashes the state (order matters).

use kara_base::number::format_f64_shortest;
use kara_encoding::stream::StreamId;
use kara_keyspace::value::hash::Hash;
use kara_keyspace::value::list::List;
use kara_keyspace::value::set::Set;
use kara_keyspace::value::stream::Stream;
use kara_keyspace::value::zset::ZSet;
use kara_keyspace::{Entry, Kind};
use sha1::{Digest as _, Sha1};
use std::fmt::Write as _;

/// The state of a digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest([u8; 20]);

impl Digest {
    /// Adds bytes; the order of additions doesn't matter.
    pub fn add(&mut self, bytes: &[u8]) {
        let hash = Sha1::digest(bytes);
        self.0.iter_mut().zip(hash).for_each(|(to, from)| *to ^= from);
    }

    /// Mixes bytes in; the order matters.
    pub fn mix(&mut self, bytes: &[u8]) {
        self.add(bytes);
        self.0 = Sha1::digest(self.0).into();
    }

    /// Joins the digest of a key into that of the data set.
    pub fn join(&mut self, other: &Digest) {
        self.add(&other.0);
    }

    /// 40 hexadecimal digits.
    pub fn hex(&self) -> String {
        self.0.iter().fold(String::with_capacity(40), |mut text, byte| {
            // Writing to a string can't fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// Mixes a key's value and expiry into the digest.
pub fn mix_value(digest: &mut Digest, entry: &Entry, now_ms: i64) {
    digest.mix(&(entry.kind() as u32).to_be_bytes());
    match entry.kind() {
        Kind::String => {
            if let Some(value) = entry.string() {
                digest.mix(&value.to_cow());
            }
        }
        Kind::List => entry.get::<List>().into_iter().for_each(|list| mix_list(digest, list)),
        Kind::Set => {
            for member in entry.get::<Set>().into_iter().flat_map(Set::iter) {
                digest.add(&member.to_bytes());
            }
        }
        Kind::ZSet => {
            for (member, score) in entry.get::<ZSet>().into_iter().flat_map(ZSet::iter) {
                let mut item = Digest::default();
                item.mix(&member.to_bytes());
                item.mix(format_f64_shortest(score).as_bytes());
                digest.join(&item);
            }
        }
        Kind::Hash => {
            // A field whose time is over counts no more, be it here still or not.
            let fields = entry.get::<Hash>().into_iter().flat_map(Hash::iter);
            for pair in fields.filter(|pair| !pair.is_due(now_ms)) {
                let mut item = Digest::default();
                item.mix(&pair.field.to_bytes());
                item.mix(&pair.value.to_bytes());
                digest.join(&item);
            }
        }
        Kind::Stream => entry.get::<Stream>().into_iter().for_each(|stream| mix_stream(digest, stream)),
    }
    if entry.expire_at_ms().is_some() {
        digest.add(b"!!expire!!");
    }
}

fn mix_list(digest: &mut Digest, list: &List) {
    let mut walk = list.iter();
    while let Some(element) = walk.next() {
        digest.mix(&element.to_bytes());
    }
}

fn mix_stream(digest: &mut Digest, stream: &Stream) {
    for entry in stream.log().range(StreamId::MIN, StreamId::MAX) {
        digest.mix(format!("{}.{}", entry.id.ms, entry.id.seq).as_bytes());
        for (field, value) in entry.fields {
            digest.mix(&field.to_bytes());
            digest.mix(&value.to_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn additions_commute_and_mixing_does_not() {
        let (mut a, mut b) = (Digest::default(), Digest::default());
        a.add(b"x");
        a.add(b"y");
        b.add(b"y");
        b.add(b"x");
        assert_eq!(a, b);
        a.mix(b"1");
        a.mix(b"2");
        b.mix(b"2");
        b.mix(b"1");
        assert_ne!(a, b);
    }
}
