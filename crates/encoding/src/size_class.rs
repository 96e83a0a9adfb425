//! The sizes that the allocator really hands out.

/// jemalloc's size class for `bytes`: 8, multiples of 16 up to 128, then four classes per doubling. Whoever asks for all
/// of it pays nothing, and growth within it needs no call. Panics on sizes near `usize::MAX`, which nothing can allocate.
#[inline]
pub fn size_class(bytes: usize) -> usize {
    if bytes <= 8 {
        8
    } else if bytes <= 128 {
        (bytes + 15) & !15
    } else {
        let step = 1usize << ((bytes - 1).ilog2() - 2);
        (bytes + step - 1) & !(step - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::size_class;

    #[test]
    fn classes_of_jemalloc() {
        for (bytes, class) in [
            (1, 8),
            (8, 8),
            (9, 16),
            (17, 32),
            (48, 48),
            (113, 128),
            (129, 160),
            (256, 256),
            (257, 320),
            (1025, 1280),
            (8192, 8192),
            (8193, 10_240),
            (16_385, 20_480),
            ((1 << 20) + 1, (1 << 20) + (1 << 18)),
        ] {
            assert_eq!(size_class(bytes), class, "{bytes}");
        }
    }
}
