//! Latencies in microseconds, counted in buckets of a thousandth of their size, and the reports made of them: the same
//! buckets and lines as the reference's.

/// Finest resolution: 8 us.
const UNIT_BITS: u32 = 3;
/// Buckets of one width before the width doubles.
const HALF: u64 = 1024;
/// Longer than any answer that is waited for: 2^40 us.
const MAX_US: u64 = 1 << 40;

#[derive(Clone, Debug, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    pub count: u64,
    sum_us: u64,
    min_us: u64,
    max_us: u64,
}

fn index(us: u64) -> usize {
    let units = us.min(MAX_US) >> UNIT_BITS;
    let doublings = (units / (2 * HALF)).checked_ilog2().map_or(0, |bits| u64::from(bits) + 1);
    usize::try_from(doublings * HALF + (units >> doublings)).unwrap_or(0)
}

/// The largest value of the bucket that holds `us`.
fn highest(us: u64) -> u64 {
    let units = us.min(MAX_US) >> UNIT_BITS;
    let doublings = (units / (2 * HALF)).checked_ilog2().map_or(0, |bits| bits + 1);
    us | ((1 << (UNIT_BITS + doublings)) - 1)
}

fn highest_of(index: usize) -> u64 {
    let index = u64::try_from(index).unwrap_or(0);
    let doublings = (index / HALF).saturating_sub(1);
    let units = index - doublings * HALF;
    (((units + 1) << doublings) << UNIT_BITS) - 1
}

fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

impl Histogram {
    pub fn add(&mut self, us: u64) {
        let at = index(us);
        if self.counts.len() <= at {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += 1;
        self.min_us = if self.count == 0 { us } else { self.min_us.min(us) };
        self.max_us = self.max_us.max(us);
        self.count += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }

    pub fn merge(&mut self, other: &Histogram) {
        if other.count == 0 {
            return;
        }
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (own, more) in self.counts.iter_mut().zip(&other.counts) {
            *own += more;
        }
        self.min_us = if self.count == 0 { other.min_us } else { self.min_us.min(other.min_us) };
        self.max_us = self.max_us.max(other.max_us);
        self.count += other.count;
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }

    /// The bucket in which that share of the values has been seen: its largest value, and how many values that were.
    fn reached(&self, percent: f64) -> (u64, u64) {
        let wanted = ((percent / 100.0 * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return (highest_of(at), seen);
            }
        }
        (0, seen)
    }

    pub fn percentile_ms(&self, percent: f64) -> f64 {
        ms(self.reached(percent).0)
    }

    pub fn mean_ms(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum_us as f64 / self.count as f64 / 1000.0 }
    }

    /// The lower end of the least value's bucket.
    pub fn min_ms(&self) -> f64 {
        ms(self.min_us & !((1 << UNIT_BITS) - 1))
    }

    pub fn max_ms(&self) -> f64 {
        ms(if self.count == 0 { 0 } else { highest(self.max_us) })
    }

    /// 0 %, 50 %, 75 %, ... until all are in.
    pub fn by_percentile(&self) -> Vec<String> {
        let line = |percent: f64, value: u64, seen: u64| {
            format!("{percent:.3}% <= {:.3} milliseconds (cumulative count {seen})", ms(value))
        };
        let mut lines = Vec::new();
        if self.count == 0 {
            return lines;
        }
        let (mut percent, mut before) = (0.0, 0);
        loop {
            let (value, seen) = self.reached(percent);
            if seen != before {
                lines.push(line(percent, value, seen));
            }
            if seen == self.count {
                lines.push(line(100.0, value, seen));
                break;
            }
            before = seen;
            percent = 100.0 - (100.0 - percent) / 2.0;
        }
        lines
    }

    /// Each 0.1 ms, beyond 2 ms each millisecond.
    pub fn cumulative(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.count == 0 {
            return lines;
        }
        let (mut step, mut at_us, mut before) = (100, 100, None);
        loop {
            let value = highest(at_us);
            let end = index(value);
            let seen: u64 = self.counts.iter().take(end + 1).sum();
            if before != Some(seen) {
                let percent = seen as f64 / self.count as f64 * 100.0;
                lines.push(format!(
                    "{percent:.3}% <= {:.3} milliseconds (cumulative count {seen})",
                    ms(value)
                ));
            }
            if seen == self.count {
                break;
            }
            before = Some(seen);
            at_us += step;
            if value > 2000 {
                step = 1000;
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets() {
        for us in (0..200_000).step_by(7).chain([1 << 30, (1 << 30) + 12_345]) {
            let top = highest(us);
            assert_eq!(index(us), index(top), "{us}");
            assert_ne!(index(us), index(top + 1), "{us}");
            assert_eq!(highest_of(index(us)), top, "{us}");
            assert!(top >= us && (top - us) as f64 <= (us as f64 / 1000.0).max(8.0), "{us}");
        }
        assert_eq!([100, 200, 300, 18_100].map(highest), [103, 207, 303, 18_111]);
    }

    #[test]
    fn reports() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|n| histogram.add(n));
        assert_eq!(
            (histogram.percentile_ms(50.0), histogram.max_ms(), histogram.min_ms()),
            (0.503, 1.007, 0.0)
        );
        assert!((histogram.mean_ms() - 0.5005).abs() < 1e-9);
        let lines = histogram.by_percentile();
        assert_eq!(
            lines.first().map(String::as_str),
            Some("0.000% <= 0.007 milliseconds (cumulative count 7)")
        );
        assert_eq!(
            lines.last().map(String::as_str),
            Some("100.000% <= 1.007 milliseconds (cumulative count 1000)")
        );
        let lines = histogram.cumulative();
        assert_eq!(lines.len(), 10);
        assert_eq!(lines[0], "10.300% <= 0.103 milliseconds (cumulative count 103)");
        let mut twice = histogram.clone();
        twice.merge(&histogram);
        assert_eq!((twice.count, twice.max_ms()), (2000, 1.007));
    }
}
