//! The locks and atomics of the waiting lists. The schedule test (`tests/schedules.rs`) compiles `lists.rs` against
//! others in their place.

pub use parking_lot::{Mutex, MutexGuard};
pub use std::sync::Arc;
pub use std::sync::atomic::{AtomicU64, AtomicUsize};

/// Takes a lock; these can't be poisoned.
#[inline]
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}
