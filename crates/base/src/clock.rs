//! Time, passed in: the system's or one that a test moves by hand. Also the cheap ticks that time commands.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One reading of both clocks. Within a command, script or transaction time stands still: take one of these per
/// loop turn and pass it on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Microseconds since 1970; may jump when the system's clock is set.
    pub wall_us: i64,
    /// Nanoseconds since some moment before; never goes back.
    pub mono_ns: u64,
}

impl Now {
    /// Milliseconds since 1970.
    pub const fn wall_ms(&self) -> i64 {
        self.wall_us.div_euclid(1000)
    }

    /// Seconds since 1970.
    pub const fn wall_s(&self) -> i64 {
        self.wall_us.div_euclid(1_000_000)
    }

    pub const fn mono_ms(&self) -> u64 {
        self.mono_ns / 1_000_000
    }

    pub const fn mono_us(&self) -> u64 {
        self.mono_ns / 1000
    }
}

/// Nanoseconds that the calling thread has been on a processor: what it did itself, whatever else the machine does. A system
/// call.
pub fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for the write.
    if unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) } != 0 {
        return 0;
    }
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Where time comes from. Clones read the same clock.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { start: Instant },
    Manual(Arc<Manual>),
}

#[derive(Debug)]
struct Manual {
    wall_us: AtomicI64,
    mono_ns: AtomicU64,
}

impl Clock {
    /// The system's clocks.
    pub fn system() -> Clock {
        Clock(Source::System { start: Instant::now() })
    }

    /// A clock that stands at `wall_us` microseconds since 1970 until it is moved.
    pub fn manual(wall_us: i64) -> Clock {
        let manual = Manual { wall_us: AtomicI64::new(wall_us), mono_ns: AtomicU64::new(0) };
        Clock(Source::Manual(Arc::new(manual)))
    }

    pub fn now(&self) -> Now {
        Now { wall_us: self.wall_us(), mono_ns: self.mono_ns() }
    }

    /// Microseconds since 1970; negative before.
    pub fn wall_us(&self) -> i64 {
        match &self.0 {
            Source::System { .. } => match SystemTime::now().duration_since(UNIX_EPOCH) {
                Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
                Err(before) => {
                    i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX).saturating_neg()
                }
            },
            Source::Manual(manual) => manual.wall_us.load(Ordering::Relaxed),
        }
    }

    /// Milliseconds since 1970.
    pub fn wall_ms(&self) -> i64 {
        self.wall_us().div_euclid(1000)
    }

    /// Nanoseconds since the clock was made.
    pub fn mono_ns(&self) -> u64 {
        match &self.0 {
            Source::System { start } => u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX),
            Source::Manual(manual) => manual.mono_ns.load(Ordering::Relaxed),
        }
    }

    /// Moves a manual clock forward, wall time included. The system's clock doesn't care.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(manual) = &self.0 {
            let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
            let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
            manual.wall_us.fetch_add(micros, Ordering::Relaxed);
            manual.mono_ns.fetch_add(nanos, Ordering::Relaxed);
        }
    }

    /// Sets a manual clock's wall time, also backwards, as an administrator might. Monotonic time stays.
    pub fn set_wall_us(&self, wall_us: i64) {
        if let Source::Manual(manual) = &self.0 {
            manual.wall_us.store(wall_us, Ordering::Relaxed);
        }
    }
}

/// A stop watch for single commands: about 10 ns per reading where the processor's time stamp counter runs at a
/// constant rate, else what the system's monotonic clock costs. Copies share their calibration.
#[derive(Clone, Copy, Debug)]
pub struct Ticker {
    start: Instant,
    /// Nanoseconds per tick of the processor's counter, times 2^32; 0 where that can't be used.
    scale: u64,
}

/// A moment, in a [`Ticker`]'s own unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(u64);

/// How long the counter is compared with the clock: errors of 50 ns at both ends make 1 in 20,000.
const CALIBRATION: Duration = Duration::from_millis(2);

impl Ticker {
    /// Calibrates for two milliseconds, busily: make one per process.
    pub fn new() -> Ticker {
        let start = Instant::now();
        if !hardware::constant_rate() {
            return Ticker { start, scale: 0 };
        }
        let (first_ticks, first_ns) = simultaneous(start);
        while start.elapsed() < CALIBRATION {}
        let (last_ticks, last_ns) = simultaneous(start);
        let scale =
            ((last_ns - first_ns) << 32).checked_div(u128::from(last_ticks.wrapping_sub(first_ticks)));
        Ticker { start, scale: scale.and_then(|scale| u64::try_from(scale).ok()).unwrap_or(0) }
    }

    #[inline]
    pub fn now(&self) -> Tick {
        if self.scale != 0 {
            return Tick(hardware::counter());
        }
        Tick(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Nanoseconds from one moment to a later one; 0 if it isn't later.
    #[inline]
    pub fn ns_between(&self, from: Tick, to: Tick) -> u64 {
        let ticks = to.0.saturating_sub(from.0);
        match self.scale {
            0 => ticks,
            scale => ((u128::from(ticks) * u128::from(scale)) >> 32) as u64,
        }
    }
}

/// The counter and the nanoseconds since `start` at one moment: of some readings the one that took the least time,
/// since a thread may be put aside between the two.
fn simultaneous(start: Instant) -> (u64, u128) {
    let mut best = (u64::MAX, 0, 0);
    for _ in 0..10 {
        let before = hardware::counter();
        let elapsed_ns = start.elapsed().as_nanos();
        let width = hardware::counter().wrapping_sub(before);
        if width < best.0 {
            best = (width, before.wrapping_add(width / 2), elapsed_ns);
        }
    }
    (best.1, best.2)
}

impl Default for Ticker {
    fn default() -> Self {
        Ticker::new()
    }
}

#[cfg(target_arch = "x86_64")]
mod hardware {
    use std::arch::x86_64::{__cpuid, _rdtsc};

    /// Whether the processor promises a counter that neither stops nor changes its rate.
    pub fn constant_rate() -> bool {
        const EXTENDED: u32 = 0x8000_0000;
        const POWER: u32 = 0x8000_0007;
        __cpuid(EXTENDED).eax >= POWER && __cpuid(POWER).edx & 1 << 8 != 0
    }

    #[inline]
    pub fn counter() -> u64 {
        // SAFETY: every x86-64 processor has the instruction; Linux leaves it enabled for programs.
        unsafe { _rdtsc() }
    }
}

#[cfg(target_arch = "aarch64")]
mod hardware {
    /// The virtual counter's rate is constant by the architecture.
    pub fn constant_rate() -> bool {
        true
    }

    #[inline]
    pub fn counter() -> u64 {
        let ticks: u64;
        // SAFETY: reads a register that Linux lets programs read; no memory, no flags.
        unsafe {
            std::arch::asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nomem, nostack, preserves_flags))
        };
        ticks
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod hardware {
    pub fn constant_rate() -> bool {
        false
    }

    pub fn counter() -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_time_moves_only_by_hand() {
        let clock = Clock::manual(1_700_000_000_123_456);
        let same = clock.clone();
        assert_eq!(clock.now(), Now { wall_us: 1_700_000_000_123_456, mono_ns: 0 });
        same.advance(Duration::from_millis(5));
        assert_eq!((clock.wall_ms(), clock.now().mono_ms()), (1_700_000_000_128, 5));
        same.set_wall_us(-1);
        assert_eq!((clock.now().wall_ms(), clock.now().wall_s(), clock.now().mono_us()), (-1, -1, 5000));
    }

    #[test]
    fn system_time_is_today() {
        let clock = Clock::system();
        let first = clock.now();
        assert!(first.wall_s() > 1_700_000_000);
        clock.set_wall_us(0);
        clock.advance(Duration::from_secs(1000));
        let second = clock.now();
        assert!(second.mono_ns >= first.mono_ns && second.wall_s() - first.wall_s() < 1000);
    }

    #[test]
    fn ticks_are_nanoseconds() {
        let ticker = Ticker::new();
        let (clock, from) = (Instant::now(), ticker.now());
        std::thread::sleep(Duration::from_millis(20));
        let (to, elapsed) = (ticker.now(), clock.elapsed().as_nanos() as u64);
        let measured = ticker.ns_between(from, to);
        // Generous: another thread may run between the two readings.
        assert!(measured >= 19_000_000 && measured <= elapsed + elapsed / 50, "{measured} of {elapsed}");
        assert_eq!(ticker.ns_between(to, from), 0);
    }
}
