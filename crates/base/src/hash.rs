//! The keyed hash of keys and members: SipHash-1-3, so that nobody who doesn't know the seed can choose
//! keys that collide.

use siphasher::sip::SipHasher13;

/// The 128-bit secret under the hash. One per process, random unless `hash-seed` sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashSeed {
    pub k0: u64,
    pub k1: u64,
}

impl HashSeed {
    /// The 64-bit keyed hash of `bytes`.
    #[inline]
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        SipHasher13::new_with_keys(self.k0, self.k1).hash(bytes)
    }
}

/// Random bits of the operating system, for seeds and secrets.
pub fn random_u64() -> u64 {
    // std seeds its hash maps from the system's generator; a fresh state gives fresh bits.
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
