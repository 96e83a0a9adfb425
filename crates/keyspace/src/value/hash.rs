//! The hash value: its place until its structure lands.

/// A hash without elements.
#[derive(Clone, Debug, Default)]
pub struct Hash;

impl Hash {
    pub fn len(&self) -> usize {
        0
    }

    pub fn is_empty(&self) -> bool {
        true
    }

    pub fn memory_usage(&self, _samples: usize) -> usize {
        0
    }
}
