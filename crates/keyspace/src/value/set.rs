//! The set value.

/// A set: its place until its structure lands.
#[derive(Clone, Debug, Default)]
pub struct Set(Vec1);

#[derive(Clone, Debug, Default)]
struct Vec1(Option<Box<Vec<Vec<u8>>>>);

impl Set {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn len(&self) -> usize {
        self.0.0.as_ref().map_or(0, |items| items.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn memory_usage(&self, _samples: usize) -> usize {
        self.len() * 24
    }
}
