//! LATENCY: the samples of `crate::latency` and the histograms of `crate::stats`.

use crate::commands::prelude::*;
use crate::config::Config;
use crate::latency::{Sample, Series};
use crate::registry::Command;
use crate::stats::latency_bucket_end_ns;
use std::fmt::Write as _;

pub(super) const LATENCY: Spec = Spec {
    name: "latency",
    arity: Arity::AtLeast(2),
    group: Group::Server,
    since: "2.8.13",
    summary: "A container for commands about latency.",
    complexity: "Depends on subcommand.",
    subcommands: &[
        Spec {
            name: "doctor",
            arity: Arity::Exactly(2),
            flags: Flags::ADMIN.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
            group: Group::Server,
            since: "2.8.13",
            summary: "Explains what was slow, and what helps.",
            complexity: "O(1)",
            tips: &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"],
            handler: Some(latency_doctor),
            ..Spec::NEW
        },
        Spec {
            name: "graph",
            arity: Arity::Exactly(3),
            flags: Flags::ADMIN.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
            group: Group::Server,
            since: "2.8.13",
            summary: "Draws the latency of an event over time.",
            complexity: "O(1)",
            tips: &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"],
            args: &[Arg { name: "event", kind: ArgKind::String, ..Arg::NEW }],
            handler: Some(latency_graph),
            ..Spec::NEW
        },
        Spec {
            name: "help",
            arity: Arity::Exactly(2),
            flags: Flags::LOADING.union(Flags::STALE),
            group: Group::Server,
            since: "2.8.13",
            summary: "Explains the subcommands.",
            complexity: "O(1)",
            handler: Some(latency_help),
            ..Spec::NEW
        },
        Spec {
            name: "histogram",
            arity: Arity::AtLeast(2),
            flags: Flags::ADMIN.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
            group: Group::Server,
            since: "7.0.0",
            summary: "Returns how long the calls of commands took.",
            complexity: "O(N) for N commands with calls",
            tips: &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"],
            args: &[Arg {
                name: "command",
                kind: ArgKind::String,
                optional: true,
                multiple: true,
                ..Arg::NEW
            }],
            handler: Some(latency_histogram),
            ..Spec::NEW
        },
        Spec {
            name: "history",
            arity: Arity::Exactly(3),
            flags: Flags::ADMIN.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
            group: Group::Server,
            since: "2.8.13",
            summary: "Returns the samples of an event.",
            complexity: "O(1)",
            tips: &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"],
            args: &[Arg { name: "event", kind: ArgKind::String, ..Arg::NEW }],
            handler: Some(latency_history),
            ..Spec::NEW
        },
        Spec {
            name: "latest",
            arity: Arity::Exactly(2),
            flags: Flags::ADMIN.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
            group: Group::Server,
            since: "2.8.13",
            summary: "Returns the last sample of every event.",
            complexity: "O(1)",
            tips: &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"],
            handler: Some(latency_latest),
            ..Spec::NEW
        },
        Spec {
            name: "reset",
            arity: Arity::AtLeast(2),
            flags: Flags::ADMIN.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
            group: Group::Server,
            since: "2.8.13",
            summary: "Forgets the samples of some events or all.",
            complexity: "O(1)",
            tips: &["request_policy:all_nodes", "response_policy:agg_sum"],
            args: &[Arg { name: "event", kind: ArgKind::String, optional: true, multiple: true, ..Arg::NEW }],
            handler: Some(latency_reset),
            ..Spec::NEW
        },
    ],
    ..Spec::NEW
};

fn latency_latest(cx: &mut Cx) -> Outcome {
    let all = cx.shared.observe.latency.all();
    cx.reply.array(all.len());
    for (event, series) in all {
        let latest = series.latest();
        cx.reply.array(6);
        cx.reply.bulk(event.as_bytes());
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        cx.reply.integer(latest.at_s);
        for figure in [latest.latency_ms, series.max_ms, series.sum_ms, series.count] {
            cx.reply.integer(count(figure));
        }
    }
    Ok(Effect::None)
}

fn latency_history(cx: &mut Cx) -> Outcome {
    let found = cx.shared.observe.latency.get(cx.arg(2));
    let samples: Vec<Sample> = found.map(|(_, series)| series.samples().collect()).unwrap_or_default();
    cx.reply.array(samples.len());
    for sample in samples {
        cx.reply.array(2);
        cx.reply.integer(sample.at_s);
        cx.reply.integer(sample.latency_ms as i64);
    }
    Ok(Effect::None)
}

fn latency_reset(cx: &mut Cx) -> Outcome {
    let names = cx.args.get(2..).filter(|names| !names.is_empty());
    let count = cx.shared.observe.latency.reset(names);
    cx.reply.integer(count as i64);
    Ok(Effect::None)
}

fn latency_histogram(cx: &mut Cx) -> Outcome {
    let registry = &cx.shared.registry;
    let names = cx.args.get(2..).unwrap_or_default();
    let mut wanted: Vec<Command> = Vec::new();
    if names.is_empty() {
        wanted.extend(registry.all());
    }
    for name in names {
        let Some(command) = registry.by_full_name(name) else { continue };
        // A container stands for its subcommands.
        wanted.push(command);
        wanted.extend(registry.all().iter().filter(|c| c.parent == Some(command.id)));
    }
    let mark = cx.reply.defer();
    let mut count = 0;
    for command in wanted {
        let totals = cx.shared.stats.command_totals(command.id);
        let calls: u64 = totals.latency.iter().sum();
        if calls == 0 {
            continue;
        }
        let steps = cumulative(&totals.latency);
        cx.reply.bulk(command.full_name.as_bytes());
        cx.reply.map(2);
        cx.reply.bulk(b"calls");
        cx.reply.integer(calls as i64);
        cx.reply.bulk(b"histogram_usec");
        cx.reply.map(steps.len());
        for (us, calls) in steps {
            cx.reply.integer(us as i64);
            cx.reply.integer(calls as i64);
        }
        count += 1;
    }
    cx.reply.end_map(mark, count);
    Ok(Effect::None)
}

/// Calls up to each power of two of 1024 ns, where more calls than below it are; the limits in microseconds.
fn cumulative(buckets: &[u64]) -> Vec<(u64, u64)> {
    let mut steps = Vec::new();
    let (mut limit_ns, mut seen, mut shown) = (1024u64, 0, 0);
    for (bucket, count) in buckets.iter().enumerate() {
        while latency_bucket_end_ns(bucket) >= limit_ns {
            if seen > shown {
                steps.push((shown_limit_us(limit_ns), seen));
                shown = seen;
            }
            limit_ns = limit_ns.saturating_mul(2);
        }
        seen += count;
    }
    if seen > shown {
        steps.push((shown_limit_us(limit_ns), seen));
    }
    steps
}

/// The reference shows the end of the limit's own bucket, 1/128 wide: 33 for 32768 ns.
fn shown_limit_us(limit_ns: u64) -> u64 {
    limit_ns.saturating_add(limit_ns / 128 - 1) / 1000
}

fn latency_graph(cx: &mut Cx) -> Outcome {
    let event = cx.arg(2);
    let Some((name, series)) = cx.shared.observe.latency.get(event) else {
        return Err(CommandError::quoting("ERR No samples available for event '{}'", &[event]));
    };
    let text = graph(name, &series, cx.now_ms / 1000);
    cx.reply.verbatim("txt", text.as_bytes());
    Ok(Effect::None)
}

/// Rows of the graph, and columns at most.
const GRAPH_ROWS: usize = 4;
const GRAPH_COLUMNS: usize = 80;

/// One column per sample, as high as its latency between the lowest and the highest, its age below it.
fn graph(name: &str, series: &Series, now_s: i64) -> String {
    let samples: Vec<Sample> = series.samples().collect();
    let high = samples.iter().map(|s| s.latency_ms).max().unwrap_or(0);
    let low = samples.iter().map(|s| s.latency_ms).min().unwrap_or(0);
    let mut text = format!("{name} - high {high} ms, low {low} ms (all time high {} ms)\n", series.max_ms);
    text.push_str(&"-".repeat(GRAPH_COLUMNS));
    text.push('\n');
    let last = samples.get(samples.len().saturating_sub(GRAPH_COLUMNS)..).unwrap_or_default();
    let span = (high - low).max(1);
    for row in (0..GRAPH_ROWS).rev() {
        for sample in last {
            // Each row has three levels: `_`, `o`, `#`; every sample has at least the first.
            let levels = (GRAPH_ROWS * 3 - 1) as u64;
            let level = ((sample.latency_ms - low) * levels / span) as usize;
            let height = (level + 1).saturating_sub(row * 3).min(3);
            text.push([' ', '_', 'o', '#'][height]);
        }
        text.push('\n');
    }
    text.push('\n');
    let ages: Vec<String> = last.iter().map(|sample| age(now_s - sample.at_s)).collect();
    let lines = ages.iter().map(String::len).max().unwrap_or(0);
    for line in 0..lines {
        for age in &ages {
            text.push(age.as_bytes().get(line).map_or(' ', |&b| char::from(b)));
        }
        text.push('\n');
    }
    text
}

fn age(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..=59 => format!("{s}s"),
        s @ 60..=3599 => format!("{}m", s / 60),
        s @ 3600..=86_399 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

fn latency_doctor(cx: &mut Cx) -> Outcome {
    let text = report(cx.config, &cx.shared.observe.latency.all(), cx.now_ms / 1000);
    cx.reply.verbatim("txt", text.as_bytes());
    Ok(Effect::None)
}

fn report(config: &Config, all: &[(&str, Series)], now_s: i64) -> String {
    if config.latency_monitor_threshold == 0 {
        return "I'm sorry, Dave, I can't do that. Latency monitoring is disabled in this Valkey instance. You may \
                use \"CONFIG SET latency-monitor-threshold <milliseconds>.\" in order to enable it.\n"
            .into();
    }
    if all.is_empty() {
        return "Dave, no latency spike was observed during the lifetime of this Valkey instance, not in the \
                slightest bit. I honestly think you ought to sit down calmly, take a stress pill, and think things \
                over.\n"
            .into();
    }
    let mut text = String::from("Latency spikes are observed in this Valkey instance.\n\n");
    for (number, (event, series)) in all.iter().enumerate() {
        let summary = series.summary(now_s);
        let samples = series.samples().len();
        let period = summary.period_s.max(1) as f64 / samples.max(1) as f64;
        let _ = writeln!(
            text,
            "{}. {event}: {samples} latency spikes (average {}ms, mean deviation {}ms, period {period:.2} sec). \
             Worst all time event {}ms.",
            number + 1,
            summary.average_ms,
            summary.deviation_ms,
            series.max_ms
        );
    }
    text.push_str("\nWhat may help:\n\n");
    let slower_us = config.commandlog_execution_slower_than;
    let threshold_us =
        i64::try_from(config.latency_monitor_threshold.saturating_mul(1000)).unwrap_or(i64::MAX);
    if slower_us < 0 {
        let _ = writeln!(
            text,
            "- The slow log is off. 'CONFIG SET slowlog-log-slower-than {threshold_us}' lets it record the commands \
             that were this slow."
        );
    } else if slower_us > threshold_us {
        let _ = writeln!(
            text,
            "- The slow log records only what is slower than your latency threshold. Use 'CONFIG SET \
             slowlog-log-slower-than {threshold_us}'."
        );
    }
    text.push_str(
        "- SLOWLOG GET shows which commands took so long: look for those over many elements (KEYS, large ranges, \
         SORT, unions).\n- Keys with very many elements are slow to delete, overwrite or expire at once: use UNLINK, \
         the lazyfree settings, or several smaller keys.\n",
    );
    text
}

fn latency_help(cx: &mut Cx) -> Outcome {
    cx.reply_help(&[
        "DOCTOR",
        "    Return a human readable latency analysis report.",
        "GRAPH <event>",
        "    Return an ASCII latency graph for the <event> class.",
        "HISTORY <event>",
        "    Return time-latency samples for the <event> class.",
        "LATEST",
        "    Return the latest latency samples for all events.",
        "RESET [<event> ...]",
        "    Reset latency data of one or more <event> classes.",
        "    (default: reset all data for all event classes)",
        "HISTOGRAM [COMMAND ...]",
        "    Return a cumulative distribution of latencies in the format of a histogram for the specified command \
         names.",
        "    If no commands are specified then all histograms are replied.",
    ]);
    Ok(Effect::None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{LATENCY_BUCKETS, latency_bucket};

    #[test]
    fn histograms_are_cumulative_by_powers_of_two() {
        let mut buckets = vec![0; LATENCY_BUCKETS];
        for us in [1, 5, 5, 30] {
            buckets[latency_bucket(us * 1000)] += 1;
        }
        assert_eq!(cumulative(&buckets), [(1, 1), (8, 3), (33, 4)]);
        assert!(cumulative(&[]).is_empty());
    }

    #[test]
    fn graphs_reach_from_the_lowest_to_the_highest() {
        let monitor = crate::latency::LatencyMonitor::default();
        (0..100).for_each(|s| monitor.note("command", 10 + s as u64, s));
        let (name, series) = monitor.get(b"command").unwrap_or_default();
        let text = graph(name, &series, 100);
        assert!(text.starts_with("command - high 109 ms, low 10 ms (all time high 109 ms)\n"), "{text}");
        assert!(text.lines().all(|line| line.len() <= GRAPH_COLUMNS));
        assert_eq!(age(3700), "1h");
    }
}
