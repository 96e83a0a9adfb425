//! What was done by which command, how long it took, what failed; the logs of unusual commands.

use super::exposition::{Exposition, Kind};
use crate::commandlog::LogKind;
use crate::commands::server::{View, percentile_ns};
use crate::registry::Command;
use crate::stats::{CommandTotals, latency_bucket_end_ns};

/// The histograms' bounds in microseconds: powers of two up to this one, about 8 seconds.
const LAST_BOUND: u32 = 23;

pub(super) fn write(view: &View, page: &mut Exposition) {
    let shared = view.shared;
    let all = shared.registry.all().iter().map(|command| (*command, shared.stats.command_totals(command.id)));
    let used: Vec<(Command, CommandTotals)> =
        all.filter(|(_, totals)| totals.calls + totals.rejected + totals.failed > 0).collect();
    counters(&used, page);
    histograms(&used, page);
    percentiles(view, &used, page);
    let name = "redis_errors_total";
    page.family(name, Kind::Counter, "Error replies by their code.");
    for (code, count) in shared.stats.errors() {
        page.sample(name, &[("err", &code)], count);
    }
    logs(view, page);
}

fn counters(used: &[(Command, CommandTotals)], page: &mut Exposition) {
    let mut family = |name: &str, help: &str, value: &dyn Fn(&CommandTotals) -> f64| {
        page.family(name, Kind::Counter, help);
        for (command, totals) in used {
            page.sample(name, &[("cmd", command.full_name)], value(totals));
        }
    };
    family("redis_commands_total", "Calls of a command.", &|t| t.calls as f64);
    family("redis_commands_duration_seconds_total", "Time that a command's calls took.", &|t| {
        t.ns as f64 / 1e9
    });
    family("redis_commands_rejected_calls_total", "Calls that were refused before they ran.", &|t| {
        t.rejected as f64
    });
    family("redis_commands_failed_calls_total", "Calls that ran and failed.", &|t| t.failed as f64);
}

fn histograms(used: &[(Command, CommandTotals)], page: &mut Exposition) {
    page.family(
        "redis_commands_latencies_usec",
        Kind::Histogram,
        "How long a command's calls took, microseconds.",
    );
    for (command, totals) in used.iter().filter(|(_, totals)| !totals.latency.is_empty()) {
        let cmd = command.full_name;
        let mut buckets = totals.latency.iter().enumerate().peekable();
        let mut seen = 0;
        for power in 0..=LAST_BOUND {
            let bound_us = 1u64 << power;
            while let Some((_, count)) =
                buckets.next_if(|(bucket, _)| latency_bucket_end_ns(*bucket) <= bound_us * 1024)
            {
                seen += count;
            }
            let bound = page.bound(bound_us);
            page.sample("redis_commands_latencies_usec_bucket", &[("cmd", cmd), ("le", &bound)], seen);
        }
        // What was counted meanwhile mustn't make the whole less than its parts.
        let all = seen + buckets.map(|(_, count)| count).sum::<u64>();
        page.sample("redis_commands_latencies_usec_bucket", &[("cmd", cmd), ("le", "+Inf")], all);
        page.sample("redis_commands_latencies_usec_sum", &[("cmd", cmd)], totals.ns as f64 / 1000.0);
        page.sample("redis_commands_latencies_usec_count", &[("cmd", cmd)], all);
    }
}

fn percentiles(view: &View, used: &[(Command, CommandTotals)], page: &mut Exposition) {
    let name = "redis_latency_percentiles_usec";
    page.family(name, Kind::Summary, "Percentiles of the time that a command's calls took, microseconds.");
    for (command, totals) in used.iter().filter(|(_, totals)| totals.latency.iter().any(|n| *n > 0)) {
        let cmd = command.full_name;
        for percentile in &view.config.latency_tracking_info_percentiles.0 {
            let quantile = percentile / 100.0;
            let us = percentile_ns(&totals.latency, *percentile) as f64 / 1000.0;
            page.sample(name, &[("cmd", cmd), ("quantile", &quantile.to_string())], us);
        }
        page.sample("redis_latency_percentiles_usec_sum", &[("cmd", cmd)], totals.ns as f64 / 1000.0);
        page.sample("redis_latency_percentiles_usec_count", &[("cmd", cmd)], totals.calls);
    }
}

fn logs(view: &View, page: &mut Exposition) {
    let log = &view.shared.observe.commandlog;
    let newest = log.newest(LogKind::Slow, 1);
    let (id, us) = newest.first().map_or((0, 0), |entry| (entry.id, entry.value));
    for (name, help, value) in [
        ("redis_slowlog_length", "Entries of the slow log.", log.len(LogKind::Slow) as u64),
        ("redis_slowlog_last_id", "Number of the slow log's newest entry.", id),
        ("redis_commandlog_slow_length", "Entries of the slow log.", log.len(LogKind::Slow) as u64),
        (
            "redis_commandlog_large_request_length",
            "Entries of the log of large requests.",
            log.len(LogKind::LargeRequest) as u64,
        ),
        (
            "redis_commandlog_large_reply_length",
            "Entries of the log of large replies.",
            log.len(LogKind::LargeReply) as u64,
        ),
    ] {
        page.single(name, Kind::Gauge, help, value);
    }
    let help = "How long the newest command of the slow log took.";
    page.single("redis_last_slow_execution_duration_seconds", Kind::Gauge, help, us as f64 / 1e6);
    let events = view.shared.observe.latency.all();
    page.family(
        "redis_latency_spike_last",
        Kind::Gauge,
        "When an event was last slow, Unix time in seconds.",
    );
    for (event, series) in &events {
        page.sample("redis_latency_spike_last", &[("event_name", event)], series.latest().at_s);
    }
    let name = "redis_latency_spike_duration_seconds";
    page.family(name, Kind::Gauge, "How long the event took then.");
    for (event, series) in &events {
        page.sample(name, &[("event_name", event)], series.latest().latency_ms as f64 / 1000.0);
    }
}
