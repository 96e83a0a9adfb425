//! Random entries of a table, and of those with an expiry.
//!
//! Fairness matters here: who takes the entries next to a random position takes more of those behind gaps, which makes
//! the gaps wider. A cache that evicts so crowds its keys into parts of the table, where they are safe, until segments
//! that are a third full have no place for one more. So places are drawn, each with the same chance, and what doesn't
//! exist is drawn again.

use super::segment::{MAX_BUCKETS, SLOTS, Segment, entry_of};
use super::{Table, end_of, prefetch_line};
use crate::entry::Entry;
use kara_base::rng::Rng;

/// Slots that are looked at together: few, so that not many more entries are shown than were asked for.
const TOGETHER: usize = SLOTS / 2;
/// Draws for entries of any kind. Even in a table that has just lost most of its keys one in some dozens hits.
const MOST_DRAWS: usize = 2000;
/// Where at least one of so many entries has an expiry, buckets are drawn; otherwise segments.
const RARE: usize = 64;
/// Draws for entries with an expiry, some microseconds: a header line and sometimes a bucket each.
const EXPIRING_DRAWS: usize = 128;
/// Segments passed over in a row, some 20 us: more of it would hold others up.
const MOST_PASSED: usize = 1024;

impl Table {
    /// A segment, each with the same chance; or a miss.
    #[inline]
    fn draw_segment(&self, rng: &mut Rng) -> Option<Segment> {
        let index = rng.below(self.directory.len() as u64) as usize;
        let segment = *self.directory.get(index)?;
        // It counts at its first directory word only.
        (index & ((1 << (self.depth - segment.depth())) - 1) == 0).then_some(segment)
    }

    /// A bucket, each with the same chance; or a miss.
    #[inline]
    fn draw_bucket(&self, rng: &mut Rng) -> Option<(Segment, usize)> {
        let segment = self.draw_segment(rng)?;
        let bound = if self.directory.len() == 1 { segment.buckets() } else { MAX_BUCKETS };
        let bucket = rng.below(bound as u64) as usize;
        (bucket < segment.buckets()).then_some((segment, bucket))
    }

    /// An entry, each with the same probability.
    pub fn random(&self, rng: &mut Rng) -> Option<&Entry> {
        if self.len == 0 {
            return None;
        }
        for _ in 0..100_000 {
            let Some((segment, bucket)) = self.draw_bucket(rng) else { continue };
            let slot = &segment.bucket(bucket)[rng.below(SLOTS as u64) as usize];
            if !slot.is_null() {
                return Some(entry_of(slot));
            }
        }
        self.iter().next()
    }

    /// Shows about `count` entries to `f`, each with the same chance: some more where that spares a look, fewer only where
    /// there are fewer.
    pub fn sample(&self, rng: &mut Rng, count: usize, mut f: impl FnMut(&Entry)) {
        let wanted = count.min(self.len);
        let mut shown = 0;
        for _ in 0..MOST_DRAWS {
            if shown >= wanted {
                return;
            }
            let Some((segment, bucket)) = self.draw_bucket(rng) else { continue };
            let first = rng.below((SLOTS / TOGETHER) as u64) as usize * TOGETHER;
            for slot in segment.bucket(bucket)[first..first + TOGETHER].iter().filter(|slot| !slot.is_null())
            {
                shown += 1;
                f(entry_of(slot));
            }
        }
        self.iter().take(wanted.saturating_sub(shown)).for_each(f);
    }

    /// As `sample`, of entries that have an expiry only. Where they are very rare it gives up after some time, with fewer
    /// shown, or none.
    pub fn sample_expiring(&self, rng: &mut Rng, count: usize, mut f: impl FnMut(&Entry)) {
        let wanted = count.min(self.expires);
        let mut shown = 0;
        let is_rare = self.expires.saturating_mul(RARE) < self.len;
        for _ in 0..EXPIRING_DRAWS {
            if shown >= wanted {
                return;
            }
            if is_rare {
                let Some(segment) = self.draw_segment(rng) else { continue };
                shown += show_all(segment, &mut f);
            } else {
                let Some((segment, bucket)) = self.draw_bucket(rng) else { continue };
                let first = rng.below((SLOTS / TOGETHER) as u64) as usize * TOGETHER;
                shown += show_some(segment, bucket, first..first + TOGETHER, &mut f);
            }
        }
        let mut at = rng.next_u64();
        for _ in 0..MOST_PASSED {
            let Some(segment) = self.segment(at).filter(|_| shown < wanted) else { return };
            shown += show_all(segment, &mut f);
            at = end_of(segment, at).unwrap_or(0);
            let ahead = self.index(at) + 4;
            if let Some(segment) = self.directory.get(ahead) {
                prefetch_line(segment.header());
            }
        }
    }
}

/// Shows all entries of a segment that have an expiry.
fn show_all(segment: Segment, f: &mut impl FnMut(&Entry)) -> usize {
    if segment.header().expires == 0 {
        return 0;
    }
    (0..segment.buckets()).map(|bucket| show_some(segment, bucket, 0..SLOTS, f)).sum()
}

/// Shows those in some of a bucket's slots. A bucket that has none at all isn't looked at again.
#[inline]
fn show_some(
    segment: Segment,
    bucket: usize,
    slots: std::ops::Range<usize>,
    f: &mut impl FnMut(&Entry),
) -> usize {
    let header = segment.header();
    if header.expires == 0 || !header.expiring.has(bucket) {
        return 0;
    }
    let expiring = |slot: &&_| expires(slot);
    let line = segment.bucket(bucket);
    let shown = line[slots].iter().filter(expiring).inspect(|slot| f(entry_of(slot))).count();
    if shown == 0 && !line.iter().any(expires) {
        header.expiring.clear(bucket);
    }
    shown
}

#[inline]
fn expires(slot: &*mut u8) -> bool {
    !slot.is_null() && entry_of(slot).expire_at_ms().is_some()
}
