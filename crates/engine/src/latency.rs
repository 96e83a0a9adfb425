//! The latency monitor: what took longer than `latency-monitor-threshold`, by event. LATENCY shows it.

use parking_lot::Mutex;
use std::collections::BTreeMap;

/// Samples that are kept per event, as the reference does.
const SAMPLES: usize = 160;

/// One sample: the worst latency of its second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Unix seconds.
    pub at_s: i64,
    pub latency_ms: u64,
}

/// One event's samples.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Oldest first.
    samples: std::collections::VecDeque<Sample>,
    /// The worst ever, ms.
    pub max_ms: u64,
    /// All that was ever noted, also what isn't kept.
    pub sum_ms: u64,
    pub count: u64,
}

/// What a series amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub average_ms: u64,
    pub min_ms: u64,
    pub max_ms: u64,
    /// Mean absolute deviation.
    pub deviation_ms: u64,
    /// Seconds from the oldest kept sample to now.
    pub period_s: i64,
}

impl Series {
    fn note(&mut self, sample: Sample) {
        self.max_ms = self.max_ms.max(sample.latency_ms);
        self.sum_ms = self.sum_ms.saturating_add(sample.latency_ms);
        self.count += 1;
        match self.samples.back_mut() {
            Some(last) if last.at_s == sample.at_s => {
                last.latency_ms = last.latency_ms.max(sample.latency_ms);
            }
            _ => {
                if self.samples.len() == SAMPLES {
                    self.samples.pop_front();
                }
                self.samples.push_back(sample);
            }
        }
    }

    /// The kept samples, oldest first.
    pub fn samples(&self) -> impl ExactSizeIterator<Item = Sample> + '_ {
        self.samples.iter().copied()
    }

    /// The last one.
    pub fn latest(&self) -> Sample {
        self.samples.back().copied().unwrap_or_default()
    }

    /// Figures over the kept samples.
    pub fn summary(&self, now_s: i64) -> Summary {
        let count = self.samples.len().max(1) as u64;
        let values = || self.samples.iter().map(|s| s.latency_ms);
        let average_ms = values().fold(0u64, u64::saturating_add) / count;
        let deviation = values().map(|v| v.abs_diff(average_ms)).fold(0u64, u64::saturating_add);
        Summary {
            average_ms,
            min_ms: values().min().unwrap_or(0),
            max_ms: values().max().unwrap_or(0),
            deviation_ms: deviation / count,
            period_s: self.samples.front().map_or(0, |first| now_s.saturating_sub(first.at_s)),
        }
    }
}

/// All events.
#[derive(Debug, Default)]
pub struct LatencyMonitor(Mutex<BTreeMap<&'static str, Series>>);

impl LatencyMonitor {
    /// Notes an event that was over the threshold.
    pub fn note(&self, event: &'static str, latency_ms: u64, now_s: i64) {
        self.0.lock().entry(event).or_default().note(Sample { at_s: now_s, latency_ms });
    }

    /// Every event with samples, by name.
    pub fn all(&self) -> Vec<(&'static str, Series)> {
        self.0.lock().iter().map(|(name, series)| (*name, series.clone())).collect()
    }

    /// One event's samples.
    pub fn get(&self, event: &[u8]) -> Option<(&'static str, Series)> {
        let events = self.0.lock();
        let (name, series) = events.iter().find(|(name, _)| name.as_bytes() == event)?;
        Some((name, series.clone()))
    }

    /// Forgets the named events, or all (`None`); returns how many were there.
    pub fn reset(&self, names: Option<&[&[u8]]>) -> usize {
        let mut events = self.0.lock();
        let before = events.len();
        match names {
            None => events.clear(),
            Some(names) => events.retain(|name, _| !names.contains(&name.as_bytes())),
        }
        before - events.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sample_per_second_the_worst_and_no_more_than_160() {
        let monitor = LatencyMonitor::default();
        monitor.note("command", 5, 1);
        monitor.note("command", 9, 1);
        monitor.note("command", 7, 1);
        let (_, series) = monitor.get(b"command").unwrap();
        assert_eq!(series.samples().collect::<Vec<_>>(), [Sample { at_s: 1, latency_ms: 9 }]);
        assert_eq!((series.max_ms, series.sum_ms, series.count), (9, 21, 3));
        (2..500).for_each(|s| monitor.note("command", 1, s));
        let (_, series) = monitor.get(b"command").unwrap();
        assert_eq!((series.samples().len(), series.latest().at_s, series.max_ms), (160, 499, 9));
        assert_eq!(series.summary(499).period_s, 159);
        assert_eq!(monitor.reset(Some(&[b"fork", b"command"])), 1);
        assert!(monitor.all().is_empty());
    }
}
