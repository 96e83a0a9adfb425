//! The lock of a shard: who waits sleeps in the kernel until the holder is through.
//!
//! Not the usual ones: `parking_lot` gives the processor up several times before it sleeps, and Linux passes over who does
//! that for a whole turn: beside a snapshot on the same processor a worker lost 0.1 to 0.25 ms each time. The standard
//! library's has no time limit. Source of the three states: U. Drepper, "Futexes Are Tricky" (mutex 2).

use parking_lot::lock_api::{self, GuardNoSend, RawMutex, RawMutexTimed};
use rustix::io::Errno;
use rustix::thread::futex::{self, Flags, Timespec};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

pub type Mutex<T> = lock_api::Mutex<RawLock, T>;
pub type MutexGuard<'a, T> = lock_api::MutexGuard<'a, RawLock, T>;

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and somebody may sleep until it is free.
const AWAITED: u32 = 2;

/// Looks before it sleeps: some 5 us, as long as going to sleep and being woken takes.
const LOOKS: u32 = 100;

/// See the module.
#[derive(Debug)]
pub struct RawLock(AtomicU32);

impl RawLock {
    /// Whether somebody may sleep until it is free.
    fn is_awaited(&self) -> bool {
        self.0.load(Relaxed) == AWAITED
    }

    /// Takes it as soon as it is free; false when the time was over first.
    #[cold]
    fn wait(&self, until: Option<Instant>) -> bool {
        let is_free = |_| {
            std::hint::spin_loop();
            self.0.load(Relaxed) == FREE
        };
        let mut taken = HELD;
        loop {
            if (0..LOOKS).any(is_free) && self.0.compare_exchange(FREE, taken, Acquire, Relaxed).is_ok() {
                return true;
            }
            if self.0.swap(AWAITED, Acquire) == FREE {
                return true;
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return false;
            }
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            match futex::wait(&self.0, Flags::PRIVATE, AWAITED, left.as_ref()) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => {}
                // A kernel that refuses it.
                Err(_) => std::thread::yield_now(),
            }
            // Only one of those that sleep is woken: if this thread takes it now, it wakes the next.
            taken = AWAITED;
        }
    }

    #[cold]
    fn wake(&self) {
        let _ = futex::wake(&self.0, Flags::PRIVATE, 1);
    }
}

// SAFETY: `lock` and the tries that say true have changed the state from FREE, which one thread at a time can; it is FREE
// again only by `unlock`, which the holder calls. Acquire and Release order what was done under it.
unsafe impl RawMutex for RawLock {
    #[allow(clippy::declare_interior_mutable_const)] // The trait's way to make one.
    const INIT: RawLock = RawLock(AtomicU32::new(FREE));
    type GuardMarker = GuardNoSend;

    #[inline]
    fn lock(&self) {
        if !self.try_lock() {
            self.wait(None);
        }
    }

    #[inline]
    fn try_lock(&self) -> bool {
        self.0.compare_exchange(FREE, HELD, Acquire, Relaxed).is_ok()
    }

    #[inline]
    unsafe fn unlock(&self) {
        if self.0.swap(FREE, Release) == AWAITED {
            self.wake();
        }
    }

    #[inline]
    fn is_locked(&self) -> bool {
        self.0.load(Relaxed) != FREE
    }
}

// SAFETY: as above.
unsafe impl RawMutexTimed for RawLock {
    type Duration = Duration;
    type Instant = Instant;

    fn try_lock_for(&self, timeout: Duration) -> bool {
        self.try_lock() || self.wait(Instant::now().checked_add(timeout))
    }

    fn try_lock_until(&self, until: Instant) -> bool {
        self.try_lock() || self.wait(Some(until))
    }
}

/// Whether somebody may sleep until this lock is free.
pub fn is_awaited<T>(guard: &MutexGuard<'_, T>) -> bool {
    // SAFETY: nothing but a look.
    unsafe { MutexGuard::mutex(guard).raw() }.is_awaited()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::{scope, sleep};

    const SHORT: Duration = Duration::from_millis(20);

    #[test]
    fn one_at_a_time() {
        let sum = Mutex::new((0_u64, 0_u64));
        scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for round in 0..20_000 {
                        let mut sum = if round % 3 == 0 {
                            sum.lock()
                        } else {
                            loop {
                                if let Some(sum) = sum.try_lock_for(Duration::from_micros(50)) {
                                    break sum;
                                }
                            }
                        };
                        sum.0 += 1;
                        std::hint::black_box(&mut *sum);
                        sum.1 += 1;
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), (160_000, 160_000));
    }

    #[test]
    fn the_holder_knows_that_somebody_waits_and_wakes_it() {
        let lock = Mutex::new(());
        let held = lock.lock();
        assert!(!is_awaited(&held));
        scope(|scope| {
            let waiters: Vec<_> = (0..3).map(|_| scope.spawn(|| drop(lock.lock()))).collect();
            let begun = Instant::now();
            while !is_awaited(&held) {
                assert!(begun.elapsed() < Duration::from_secs(10), "nobody waits");
                sleep(Duration::from_millis(1));
            }
            drop(held);
            for waiter in waiters {
                assert!(waiter.join().is_ok());
            }
        });
        assert!(!lock.is_locked());
    }

    /// It isn't handed over, but who has it most of the time doesn't have it for ever.
    #[test]
    fn a_greedy_holder_starves_nobody() {
        let lock = Mutex::new(0_u32);
        let begun = Instant::now();
        scope(|scope| {
            let greedy = scope.spawn(|| {
                while *lock.lock() < 50 && begun.elapsed() < Duration::from_secs(20) {
                    let held = lock.lock();
                    let since = Instant::now();
                    while since.elapsed() < Duration::from_micros(50) {
                        std::hint::spin_loop();
                    }
                    drop(held);
                }
            });
            for _ in 0..50 {
                *lock.lock() += 1;
            }
            assert!(greedy.join().is_ok());
        });
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_wait_ends_in_time() {
        let lock = Mutex::new(());
        let held = lock.lock();
        let begun = Instant::now();
        assert!(lock.try_lock_for(SHORT).is_none());
        assert!(lock.try_lock_until(begun).is_none());
        assert!(begun.elapsed() >= SHORT);
        drop(held);
        assert!(lock.try_lock_for(SHORT).is_some());
        // However long: no time limit then.
        assert!(lock.try_lock_for(Duration::MAX).is_some());
    }
}
