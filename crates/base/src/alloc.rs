//! The global allocator: jemalloc (or another) with a count of the bytes handed out, for `used_memory` and
//! `maxmemory`.
//!
//! Every thread counts in its own cache line with plain loads and stores; the sum over the lines is the memory in
//! use. Counted are jemalloc's size classes, not the requested sizes, and they are computed rather than asked for.
//! This is the project's only module with statics: an allocator can't be passed in.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicUsize, Ordering};

/// The allocator of the program, with the feature `jemalloc`: install it with
/// `#[global_allocator] static ALLOCATOR: CountingJemalloc = CountingAlloc(Jemalloc);`.
#[cfg(feature = "jemalloc")]
pub type CountingJemalloc = CountingAlloc<Jemalloc>;
#[cfg(feature = "jemalloc")]
pub use tikv_jemallocator::Jemalloc;

/// Passes everything on to the allocator in it and counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct CountingAlloc<A>(pub A);

/// Bytes in use through [`CountingAlloc`], rounded to size classes. Sums up to 256 cache lines: once per loop turn
/// is fine, once per key isn't. While other threads allocate, their last few changes may be missing.
pub fn used_memory() -> u64 {
    let highest = HIGHEST.load(Ordering::Relaxed);
    let lines = COUNTERS.iter().take(highest.saturating_add(1));
    let sum = lines.fold(0i64, |sum, line| sum.wrapping_add(line.bytes.load(Ordering::Relaxed)));
    // A block freed by another thread than its allocator's may be seen before its allocation.
    u64::try_from(sum).unwrap_or(0)
}

/// What the calling thread has allocated minus what it has freed, bytes; frees of other threads' blocks make it negative.
/// One load: between two calls of [`used_memory`] it tells a thread what it has added itself. `None` for a thread that
/// doesn't count by itself.
#[inline]
pub fn thread_balance() -> Option<i64> {
    LINE.get().map(|line| line.load(Ordering::Relaxed))
}

/// Bytes that a block of `size` bytes takes: jemalloc's size class.
#[inline]
pub const fn size_class(size: usize) -> usize {
    if size <= 8 {
        return 8;
    }
    if size > LARGEST {
        return size;
    }
    // Multiples of 16 up to 128, then four classes per doubling.
    let step = if size <= 128 { 16 } else { 1 << ((size - 1).ilog2() - 2) };
    (size + step - 1) & !(step - 1)
}

/// Bytes that a block of this layout takes.
#[inline]
pub const fn layout_class(layout: Layout) -> usize {
    let (size, align) = (layout.size(), layout.align());
    if align <= 16 && align <= size {
        return size_class(size);
    }
    aligned_class(size, align)
}

/// Nothing larger can be allocated, so its class doesn't matter.
const LARGEST: usize = 0x7000_0000_0000_0000;
const PAGE: usize = 4096;
/// The largest class that lives in slabs, and the smallest that has pages of its own.
const LARGEST_SMALL: usize = 14 << 10;
const SMALLEST_LARGE: usize = 16 << 10;

const fn aligned_class(size: usize, align: usize) -> usize {
    if size > LARGEST || align > LARGEST {
        return size;
    }
    if size <= LARGEST_SMALL && align <= PAGE {
        let class = size_class((size + align - 1) & !(align - 1));
        if class < SMALLEST_LARGE {
            return class;
        }
    }
    if size <= SMALLEST_LARGE { SMALLEST_LARGE } else { size_class(size) }
}

/// A line of its own for each thread, two of them for the prefetcher's sake.
#[repr(align(128))]
struct Counter {
    bytes: AtomicI64,
    taken: AtomicBool,
}

/// More threads than this at once share the overflow line, the first, with atomic additions.
const THREADS: usize = 256;

static COUNTERS: [Counter; THREADS] =
    [const { Counter { bytes: AtomicI64::new(0), taken: AtomicBool::new(false) } }; THREADS];
/// The highest line ever taken.
static HIGHEST: AtomicUsize = AtomicUsize::new(0);
/// The key whose destructor gives a thread's line back, plus one; 0 while there is none.
static EXIT_KEY: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// This thread's line, if it has one. Without a destructor, so that reading it is one instruction and works
    /// until the thread's very end.
    static LINE: Cell<Option<&'static AtomicI64>> = const { Cell::new(None) };
    /// Whether a line was asked for: a thread that got none, or gave it back, doesn't ask again.
    static ASKED: Cell<bool> = const { Cell::new(false) };
}

#[inline]
fn count(bytes: i64) {
    match LINE.get() {
        // Only this thread writes the line: no lock prefix needed.
        Some(line) => line.store(line.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed),
        None => count_elsewhere(bytes),
    }
}

#[cold]
fn count_elsewhere(bytes: i64) {
    // Should the registration allocate, it must not come here again: first note that it was asked for.
    if !ASKED.replace(true) {
        register();
    }
    let line = LINE.get().unwrap_or(&COUNTERS[0].bytes);
    line.fetch_add(bytes, Ordering::Relaxed);
}

/// Takes a free line for this thread, if one is left and its return can be arranged.
fn register() {
    let Some(key) = exit_key() else { return };
    for (line, counter) in COUNTERS.iter().enumerate().skip(1) {
        if counter.taken.load(Ordering::Relaxed) || counter.taken.swap(true, Ordering::Acquire) {
            continue;
        }
        // SAFETY: `key` was made by pthread_key_create; the value is a number and is never followed.
        let failed = unsafe { libc::pthread_setspecific(key, std::ptr::without_provenance(line)) } != 0;
        if failed {
            counter.taken.store(false, Ordering::Release);
            return;
        }
        HIGHEST.fetch_max(line, Ordering::Relaxed);
        LINE.set(Some(&counter.bytes));
        return;
    }
}

fn exit_key() -> Option<libc::pthread_key_t> {
    if let Some(key) = EXIT_KEY.load(Ordering::Acquire).checked_sub(1) {
        return Some(key);
    }
    let mut key: libc::pthread_key_t = 0;
    // SAFETY: `key` is valid for the write; the destructor has the required signature and never unwinds.
    if unsafe { libc::pthread_key_create(&mut key, Some(give_back)) } != 0 {
        return None;
    }
    match EXIT_KEY.compare_exchange(0, key + 1, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Some(key),
        Err(other) => {
            // SAFETY: this thread made the key just now and nobody else has seen it.
            unsafe { libc::pthread_key_delete(key) };
            other.checked_sub(1)
        }
    }
}

/// Runs as a thread ends. Its line keeps its sum; what the thread still frees counts in the overflow line.
unsafe extern "C" fn give_back(line: *mut libc::c_void) {
    LINE.set(None);
    if let Some(counter) = COUNTERS.get(line.addr()) {
        counter.taken.store(false, Ordering::Release);
    }
}

// SAFETY: every call is passed on to the inner allocator with the arguments unchanged; counting neither allocates nor panics.
unsafe impl<A: GlobalAlloc> GlobalAlloc for CountingAlloc<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller upholds this method's contract, which is the same.
        let block = unsafe { self.0.alloc(layout) };
        if !block.is_null() {
            count(layout_class(layout) as i64);
        }
        block
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let block = unsafe { self.0.alloc_zeroed(layout) };
        if !block.is_null() {
            count(layout_class(layout) as i64);
        }
        block
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout_class(layout) as i64));
        // SAFETY: as above.
        unsafe { self.0.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as above.
        let moved = unsafe { self.0.realloc(block, layout, new_size) };
        if !moved.is_null() {
            // SAFETY: the caller promises that the new size, rounded up to the alignment, fits `isize`.
            let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
            count(layout_class(new_layout) as i64 - layout_class(layout) as i64);
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(not(feature = "jemalloc"))]
    use std::alloc::System as Inner;
    #[cfg(feature = "jemalloc")]
    use tikv_jemallocator::Jemalloc as Inner;

    #[global_allocator]
    static ALLOCATOR: CountingAlloc<Inner> = CountingAlloc(Inner);

    #[test]
    fn classes() {
        for (size, class) in
            [(1, 8), (9, 16), (17, 32), (128, 128), (129, 160), (1000, 1024), (14337, 16384), (16385, 20480)]
        {
            assert_eq!(size_class(size), class);
        }
        assert_eq!(size_class(usize::MAX), usize::MAX);
        assert_eq!(layout_class(Layout::from_size_align(100, 64).unwrap()), 128);
        assert_eq!(layout_class(Layout::from_size_align(100, 8192).unwrap()), 16384);
    }

    /// What jemalloc makes of the flags that the Rust allocator passes for this layout.
    #[cfg(feature = "jemalloc")]
    fn asked(size: usize, align: usize) -> usize {
        let flags = if align <= 16 && align <= size { 0 } else { align.trailing_zeros() as i32 };
        // SAFETY: nallocx only computes; the size is not zero and the alignment a power of two.
        unsafe { tikv_jemalloc_sys::nallocx(size, flags) }
    }

    #[test]
    #[cfg(feature = "jemalloc")]
    fn classes_are_jemallocs() {
        let large =
            (17..40).flat_map(|bits| [-1i64, 0, 1, 4095, 4097, 1 << (bits - 2)].map(|d| (1i64 << bits) + d));
        let large = large.map(|size| size as usize);
        for size in (1..70_000).chain(large) {
            assert_eq!(size_class(size), asked(size, 1), "{size}");
        }
        for align in (0..20).map(|bits| 1usize << bits) {
            for size in (1..40_000).step_by(7).chain([8, 16, 4096, 8192, 14336, 16384, 20480, 65536, 1 << 20])
            {
                let layout = Layout::from_size_align(size, align).unwrap();
                assert_eq!(layout_class(layout), asked(size, align), "{size} aligned to {align}");
            }
        }
    }

    #[test]
    fn counts_what_is_in_use() {
        const BIG: usize = 64 << 20;
        // Other tests allocate meanwhile, but not that much.
        let near = |value: u64, expected: u64| value.abs_diff(expected) < 8 << 20;
        let before = used_memory();
        let own = thread_balance().unwrap();
        let mut block: Vec<u8> = Vec::with_capacity(BIG);
        assert!(near(used_memory(), before + BIG as u64));
        assert_eq!(thread_balance(), Some(own + BIG as i64));
        block.reserve_exact(2 * BIG);
        assert!(near(used_memory(), before + 2 * BIG as u64));
        let other = std::thread::spawn(move || drop(block));
        other.join().unwrap();
        assert!(near(used_memory(), before));
        threads_give_their_lines_back_and_may_be_many();
    }

    /// Part of the test above, since both count the whole process.
    fn threads_give_their_lines_back_and_may_be_many() {
        let before = used_memory();
        for _ in 0..4 * THREADS {
            std::thread::spawn(|| std::hint::black_box(vec![0u8; 1000]).len()).join().unwrap();
        }
        assert!(HIGHEST.load(Ordering::Relaxed) < THREADS / 2);
        assert!(used_memory().abs_diff(before) < 8 << 20);

        let gate = std::sync::Barrier::new(THREADS + 50);
        std::thread::scope(|scope| {
            for _ in 0..THREADS + 50 {
                scope.spawn(|| {
                    let block = std::hint::black_box(vec![0u8; 100_000]);
                    gate.wait();
                    drop(block);
                });
            }
        });
        assert!(used_memory().abs_diff(before) < 8 << 20);
    }

    /// A figure: `cargo test --profile fast -p kara-base -- --ignored --nocapture cost`.
    #[test]
    #[ignore = "a measurement"]
    fn cost_of_counting() {
        use std::hint::black_box;
        let layout = Layout::from_size_align(black_box(100), 8).unwrap();
        let time = |name: &str, alloc: &dyn Fn()| {
            let batch = || {
                let start = std::time::Instant::now();
                (0..100_000).for_each(|_| alloc());
                start.elapsed().as_nanos()
            };
            let best_ns = (0..100).map(|_| batch()).min().unwrap_or(0);
            println!("{name}: {:.2} ns", best_ns as f64 / 1e5);
        };
        // SAFETY: allocated and freed with the same layout, never used between.
        time("plain", &|| unsafe { Inner.dealloc(black_box(Inner.alloc(layout)), layout) });
        time("class", &|| {
            black_box(layout_class(black_box(layout)));
        });
        time("count", &|| count(black_box(8)));
        // SAFETY: as above.
        time("counting", &|| unsafe { ALLOCATOR.dealloc(black_box(ALLOCATOR.alloc(layout)), layout) });
    }
}
