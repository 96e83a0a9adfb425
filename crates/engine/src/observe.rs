//! What the server notes about its own work beside the counters of `stats`: rates, the logs of unusual commands,
//! latency samples.

use crate::commandlog::CommandLog;
use crate::latency::LatencyMonitor;
use crate::stats::{Stats, Totals};
use parking_lot::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// All of it.
#[derive(Debug)]
pub struct Observe {
    pub commandlog: CommandLog,
    pub latency: LatencyMonitor,
    pub rates: Rates,
    /// The replication history's name, 40 hexadecimal digits, while this server has had no primary.
    pub replication_id: String,
}

impl Observe {
    /// Nothing noted yet.
    pub fn new(replication_id: String) -> Self {
        Observe {
            commandlog: CommandLog::default(),
            latency: LatencyMonitor::default(),
            rates: Rates::default(),
            replication_id,
        }
    }
}

/// Samples are taken this often, and means made over this many.
const SAMPLE_PERIOD: Duration = Duration::from_millis(100);
const SAMPLES: usize = 16;

/// Work per second, as means over the last 1.6 seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PerSecond {
    pub commands: f64,
    pub input_bytes: f64,
    pub output_bytes: f64,
    pub cycles: f64,
    /// The mean duration of a loop turn, microseconds.
    pub cycle_us: f64,
}

/// The sampler behind `instantaneous_*`.
#[derive(Debug, Default)]
pub struct Rates(Mutex<Sampler>);

#[derive(Debug, Default)]
struct Sampler {
    last: Option<(Instant, Totals)>,
    samples: [PerSecond; SAMPLES],
    next: usize,
}

impl Rates {
    /// Takes a sample if one is due, and notes the memory's peak. One worker's cron calls this.
    pub fn tick(&self, stats: &Stats, now_ms: i64) {
        note_peak(stats, now_ms);
        let now = Instant::now();
        let mut sampler = self.0.lock();
        if sampler.last.as_ref().is_some_and(|(then, _)| now.duration_since(*then) < SAMPLE_PERIOD) {
            return;
        }
        let totals = stats.totals();
        if let Some((then, before)) = sampler.last.take() {
            let seconds = now.duration_since(then).as_secs_f64();
            // The totals shrink when they are reset.
            let grown = |now: u64, before: u64| now.saturating_sub(before) as f64;
            let cycles = grown(totals.eventloop_cycles, before.eventloop_cycles);
            let at = sampler.next;
            sampler.samples[at] = PerSecond {
                commands: grown(totals.commands_processed, before.commands_processed) / seconds,
                input_bytes: grown(totals.net_input_bytes, before.net_input_bytes) / seconds,
                output_bytes: grown(totals.net_output_bytes, before.net_output_bytes) / seconds,
                cycles: cycles / seconds,
                cycle_us: grown(totals.eventloop_ns, before.eventloop_ns) / 1000.0 / cycles.max(1.0),
            };
            sampler.next = (at + 1) % SAMPLES;
        }
        sampler.last = Some((now, totals));
    }

    /// The means.
    pub fn per_second(&self) -> PerSecond {
        let sampler = self.0.lock();
        let mean = |of: fn(&PerSecond) -> f64| sampler.samples.iter().map(of).sum::<f64>() / SAMPLES as f64;
        PerSecond {
            commands: mean(|s| s.commands),
            input_bytes: mean(|s| s.input_bytes),
            output_bytes: mean(|s| s.output_bytes),
            cycles: mean(|s| s.cycles),
            cycle_us: mean(|s| s.cycle_us),
        }
    }

    /// CONFIG RESETSTAT.
    pub fn reset(&self) {
        *self.0.lock() = Sampler::default();
    }
}

/// Keeps the highest `used_memory`; returns the present one.
pub fn note_peak(stats: &Stats, now_ms: i64) -> u64 {
    let used = kara_base::alloc::used_memory();
    if used > stats.peak_memory.fetch_max(used, Relaxed) {
        stats.peak_memory_at_s.store(now_ms / 1000, Relaxed);
    }
    used
}
