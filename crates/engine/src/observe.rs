//! What the server notes about its own work beside the counters of `stats`: rates, the logs of unusual commands,
//! latency samples.

use crate::clients::ClientInfo;
use crate::commandlog::{CommandLog, LogEntry, LogKind, kept_args};
use crate::config::{self, Config};
use crate::latency::LatencyMonitor;
use crate::registry::Command;
use crate::spec::Flags;
use crate::stats::{Stats, Totals};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// All of it.
#[derive(Debug, Default)]
pub struct Observe {
    pub commandlog: CommandLog,
    pub latency: LatencyMonitor,
    pub rates: Rates,
    pub turns: Turns,
}

/// The longest and busiest turns of the workers' loops, and their crons' time. INFO's debug section shows them.
#[derive(Debug, Default)]
pub struct Turns {
    pub longest_ns: AtomicU64,
    pub most_commands: AtomicU64,
    pub cron_ns: AtomicU64,
}

impl Turns {
    /// A turn took so long and ran so many commands.
    #[inline]
    pub fn turn(&self, ns: u64, commands: u64) {
        // Mostly neither is a record: two loads of a line that rarely changes.
        if ns > self.longest_ns.load(Relaxed) {
            self.longest_ns.fetch_max(ns, Relaxed);
        }
        if commands > self.most_commands.load(Relaxed) {
            self.most_commands.fetch_max(commands, Relaxed);
        }
    }

    /// A cron took so long.
    pub fn cron(&self, ns: u64) {
        self.cron_ns.fetch_add(ns, Relaxed);
    }

    /// CONFIG RESETSTAT.
    pub fn reset(&self) {
        for figure in [&self.longest_ns, &self.most_commands, &self.cron_ns] {
            figure.store(0, Relaxed);
        }
    }
}

/// A command that ran.
#[derive(Debug)]
pub struct Call<'a> {
    pub command: Command,
    pub args: &'a [&'a [u8]],
    pub client: &'a ClientInfo,
    pub ns: u64,
    pub reply_bytes: usize,
    /// Unix seconds.
    pub at_s: i64,
}

/// A limit from the configuration as bytes or microseconds; negative ones are none.
fn limit(setting: i64) -> u64 {
    u64::try_from(setting).unwrap_or(u64::MAX)
}

impl Observe {
    /// Notes how long a task of the server's own took, where that was long.
    pub fn note_event(&self, config: &Config, event: &'static str, took: Duration, now_ms: i64) {
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let threshold_ms = config.latency_monitor_threshold;
        if threshold_ms > 0 && took_ms >= threshold_ms {
            self.latency.note(event, took_ms, now_ms / 1000);
        }
    }

    /// Notes a command where it was slow or large.
    #[inline]
    pub fn note(&self, config: &Config, call: &Call) {
        let threshold_ms = config.latency_monitor_threshold;
        if threshold_ms > 0 && call.ns / 1_000_000 >= threshold_ms {
            let event = if call.command.is(Flags::FAST) { "fast-command" } else { "command" };
            self.latency.note(event, call.ns / 1_000_000, call.at_s);
        }
        let us = call.ns / 1000;
        if us >= limit(config.commandlog_execution_slower_than) {
            self.log(LogKind::Slow, us, config.commandlog_slow_execution_max_len, call);
        }
        if call.reply_bytes as u64 >= limit(config.commandlog_reply_larger_than) {
            let bytes = call.reply_bytes as u64;
            self.log(LogKind::LargeReply, bytes, config.commandlog_large_reply_max_len, call);
        }
        let large = limit(config.commandlog_request_larger_than);
        // Headers take no more than 25 bytes each: mostly that settles it without counting digits.
        let at_most = call.args.iter().fold(25, |sum: u64, arg| sum.saturating_add(arg.len() as u64 + 25));
        if at_most < large {
            return;
        }
        let bytes = request_bytes(call.args);
        if bytes >= large {
            self.log(LogKind::LargeRequest, bytes, config.commandlog_large_request_max_len, call);
        }
    }

    #[cold]
    fn log(&self, kind: LogKind, value: u64, max_len: u64, call: &Call) {
        if call.command.is(Flags::SKIP_COMMANDLOG) || max_len == 0 {
            return;
        }
        let entry = LogEntry {
            id: 0,
            at_s: call.at_s,
            value,
            args: kept_args(call.command.full_name, call.args, is_secret),
            client_addr: call.client.addr.clone(),
            client_name: call.client.names.lock().name.clone(),
        };
        self.commandlog.add(kind, entry, max_len);
    }
}

/// Whether a setting's value is nobody's business.
pub(crate) fn is_secret(name: &[u8]) -> bool {
    config::find(name).is_some_and(|d| d.flags.contains(config::Flags::SENSITIVE))
}

/// Bytes of a command on the wire, as an array of bulk strings.
#[inline]
fn request_bytes(args: &[&[u8]]) -> u64 {
    let digits = |n: usize| u64::from(n.max(1).ilog10()) + 1;
    args.iter().fold(3 + digits(args.len()), |sum, arg| sum + 5 + digits(arg.len()) + arg.len() as u64)
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
