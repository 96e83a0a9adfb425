//! MEMORY: how much a key takes, figures of the process, the allocator's report.

use super::info::{View, database_stats};
use super::memory_use::MemoryUse;
use crate::commands::prelude::*;
use kara_base::usage;

pub(super) const MEMORY: Spec = Spec {
    name: "memory",
    arity: Arity::AtLeast(2),
    group: Group::Server,
    since: "4.0.0",
    summary: "A container for commands about memory.",
    complexity: "Depends on subcommand.",
    subcommands: &[
        Spec {
            name: "doctor",
            arity: Arity::Exactly(2),
            group: Group::Server,
            since: "4.0.0",
            summary: "Explains what is wrong with the use of memory.",
            complexity: "O(1)",
            tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
            locks: Locks::Own,
            handler: Some(memory_doctor),
            ..Spec::NEW
        },
        Spec {
            name: "help",
            arity: Arity::Exactly(2),
            flags: Flags::LOADING.union(Flags::STALE),
            group: Group::Server,
            since: "4.0.0",
            summary: "Explains the subcommands.",
            complexity: "O(1)",
            handler: Some(memory_help),
            ..Spec::NEW
        },
        Spec {
            name: "malloc-stats",
            arity: Arity::Exactly(2),
            flags: Flags::LOADING,
            group: Group::Server,
            since: "4.0.0",
            summary: "Returns the allocator's own report.",
            complexity: "Depends on the allocator's state, slow at times",
            tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
            handler: Some(memory_malloc_stats),
            ..Spec::NEW
        },
        Spec {
            name: "purge",
            arity: Arity::Exactly(2),
            flags: Flags::LOADING,
            group: Group::Server,
            since: "4.0.0",
            summary: "Has the allocator give unused pages back.",
            complexity: "Depends on the allocator's state, slow at times",
            tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
            handler: Some(memory_purge),
            ..Spec::NEW
        },
        Spec {
            name: "stats",
            arity: Arity::Exactly(2),
            group: Group::Server,
            since: "4.0.0",
            summary: "Returns the use of memory in detail.",
            complexity: "O(1)",
            tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
            locks: Locks::Own,
            handler: Some(memory_stats),
            ..Spec::NEW
        },
        Spec {
            name: "usage",
            arity: Arity::AtLeast(3),
            flags: Flags::READONLY,
            group: Group::Server,
            since: "4.0.0",
            summary: "Estimates the memory that a key takes.",
            complexity: "O(N) for N samples",
            key_specs: &[KeySpec::key(2, KeyFlags::RO)],
            args: &[
                Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
                Arg {
                    name: "count",
                    kind: ArgKind::Integer,
                    token: Some("SAMPLES"),
                    optional: true,
                    ..Arg::NEW
                },
            ],
            handler: Some(memory_usage),
            ..Spec::NEW
        },
    ],
    ..Spec::NEW
};

/// Elements looked at where SAMPLES isn't given.
const DEFAULT_SAMPLES: usize = 5;
/// Under this much memory in use figures mean nothing yet.
const EMPTY_BYTES: u64 = 5 << 20;

fn memory_usage(cx: &mut Cx) -> Outcome {
    let mut samples = DEFAULT_SAMPLES;
    let mut at = 3;
    while at < cx.args.len() {
        if !cx.is_word(at, "SAMPLES") || at + 1 >= cx.args.len() {
            return Err(CommandError::Syntax);
        }
        samples = match cx.int(at + 1)? {
            0 => usize::MAX,
            n @ 1.. => usize::try_from(n).unwrap_or(usize::MAX),
            _ => return Err(CommandError::Syntax),
        };
        at += 2;
    }
    let key = cx.arg(2);
    match cx.keys.peek(key).map(|entry| entry.memory_usage(samples)) {
        None => cx.reply.null(),
        Some(bytes) => cx.reply.integer(i64::try_from(bytes).unwrap_or(i64::MAX)),
    }
    Ok(Effect::None)
}

enum Figure {
    Count(i64),
    Ratio(f64),
}

fn memory_stats(cx: &mut Cx) -> Outcome {
    use Figure::{Count, Ratio};
    let dbs = database_stats(cx)?;
    let m = MemoryUse::now(View::of(cx), &dbs);
    let bytes = |n: u64| Count(i64::try_from(n).unwrap_or(i64::MAX));
    let head = [
        ("peak.allocated", bytes(m.peak)),
        ("total.allocated", bytes(m.used)),
        ("startup.allocated", bytes(m.startup)),
        ("replication.backlog", bytes(m.backlog)),
        ("replicas.repl.buffer", Count(0)),
        ("clients.slaves", bytes(m.replicas)),
        ("clients.normal", bytes(m.clients)),
        ("cluster.links", Count(0)),
        ("cluster.slot_import", Count(0)),
        ("cluster.slot_export", Count(0)),
        ("aof.buffer", bytes(m.aof_buffer)),
        ("lua.caches", bytes(cx.shared.scripts.usage().cached_bytes)),
        ("functions.caches", bytes(cx.shared.scripts.usage().library_bytes)),
    ];
    let tail = [
        ("overhead.db.hashtable.lut", bytes(m.index)),
        ("overhead.db.hashtable.rehashing", Count(0)),
        ("overhead.total", bytes(m.overhead)),
        ("db.dict.rehashing.count", Count(0)),
        ("keys.count", bytes(m.keys)),
        ("keys.bytes-per-key", bytes(m.bytes_per_key())),
        ("dataset.bytes", bytes(m.dataset())),
        ("dataset.percentage", Ratio(m.dataset_percentage())),
        ("peak.percentage", Ratio(m.peak_percentage())),
        ("allocator.allocated", bytes(m.allocator.allocated)),
        ("allocator.active", bytes(m.allocator.active)),
        ("allocator.resident", bytes(m.allocator.resident)),
        ("allocator.muzzy", bytes(m.allocator.muzzy)),
        ("allocator-fragmentation.ratio", Ratio(m.fragmentation_ratio())),
        ("allocator-fragmentation.bytes", Count(m.fragmentation_bytes())),
        ("allocator-rss.ratio", Ratio(m.allocator_rss_ratio())),
        ("allocator-rss.bytes", Count(m.allocator_rss_bytes())),
        ("rss-overhead.ratio", Ratio(m.rss_overhead_ratio())),
        ("rss-overhead.bytes", Count(m.rss_overhead_bytes())),
        ("fragmentation", Ratio(m.total_fragmentation_ratio())),
        ("fragmentation.bytes", Count(m.total_fragmentation_bytes())),
    ];
    // As the reference: the first, and each that was used, though it may be empty now.
    let used = dbs.iter().enumerate().filter(|(number, db)| *number == 0 || db.used);
    let used: Vec<(usize, u64)> = used.map(|(number, db)| (number, db.index_bytes as u64)).collect();
    cx.reply.map(head.len() + used.len() + tail.len());
    figures(cx, &head);
    for (number, index) in used {
        cx.reply.bulk(format!("db.{number}").as_bytes());
        cx.reply.map(2);
        // Expiries stand in the entries: there is no second table.
        figures(cx, &[("overhead.hashtable.main", bytes(index)), ("overhead.hashtable.expires", Count(0))]);
    }
    figures(cx, &tail);
    Ok(Effect::None)
}

fn figures(cx: &mut Cx, figures: &[(&str, Figure)]) {
    for (name, figure) in figures {
        cx.reply.bulk(name.as_bytes());
        match figure {
            Figure::Count(count) => cx.reply.integer(*count),
            Figure::Ratio(ratio) => cx.reply.double(*ratio),
        }
    }
}

fn memory_doctor(cx: &mut Cx) -> Outcome {
    let dbs = database_stats(cx)?;
    let text = findings(&MemoryUse::now(View::of(cx), &dbs), cx.shared.clients.len());
    cx.reply.verbatim("txt", text.as_bytes());
    Ok(Effect::None)
}

fn findings(m: &MemoryUse, clients: usize) -> String {
    if m.used < EMPTY_BYTES {
        return "Hi Sam, this instance is empty or is using very little memory, my issues detector can't be used in \
                these conditions. Please, leave for your mission on Earth and fill it with some data. The new Sam and \
                I will be back to our programming as soon as I finished rebooting.\n"
            .into();
    }
    let mut text = String::new();
    if m.peak as f64 > m.used as f64 * 1.5 {
        text.push_str(
            " * Peak memory: once much more was in use than now. What the allocator kept of it shows as \
             fragmentation; MEMORY PURGE gives it back.\n\n",
        );
    }
    if m.fragmentation_ratio() > 1.4 && m.fragmentation_bytes() > 10 << 20 {
        text.push_str(
            " * High fragmentation: values were freed unevenly, so that many pages are half empty.\n\n",
        );
    }
    if m.allocator_rss_ratio() > 1.1 && m.allocator_rss_bytes() > 10 << 20 {
        text.push_str(" * High allocator RSS: freed pages wait for reuse; MEMORY PURGE gives them back.\n\n");
    }
    if m.rss_overhead_ratio() > 1.1 && m.rss_overhead_bytes() > 10 << 20 {
        text.push_str(" * High process RSS: memory outside of the allocator is resident.\n\n");
    }
    if m.clients.checked_div(clients.max(1) as u64).unwrap_or(0) > 200 << 10 {
        text.push_str(
            " * Big client buffers: some clients send huge commands, or read their replies too slowly; see CLIENT \
             LIST.\n\n",
        );
    }
    if text.is_empty() {
        return "Hi Sam, I can't find any memory issue in your instance. I can only account for what occurs on this \
                base.\n"
            .into();
    }
    format!("Sam, I detected a few issues in this Valkey instance memory implants:\n\n{text}")
}

fn memory_malloc_stats(cx: &mut Cx) -> Outcome {
    let text = usage::allocator_report();
    let text = text.as_deref().unwrap_or("Stats not supported for the current allocator");
    cx.reply.verbatim("txt", text.as_bytes());
    Ok(Effect::None)
}

fn memory_purge(cx: &mut Cx) -> Outcome {
    usage::purge_allocator();
    cx.reply.ok();
    Ok(Effect::None)
}

fn memory_help(cx: &mut Cx) -> Outcome {
    cx.reply_help(&[
        "DOCTOR",
        "    Return memory problems reports.",
        "MALLOC-STATS",
        "    Return internal statistics report from the memory allocator.",
        "PURGE",
        "    Attempt to purge dirty pages for reclamation by the allocator.",
        "STATS",
        "    Return information about the memory usage of the server.",
        "USAGE <key> [SAMPLES <count>]",
        "    Return memory in bytes used by <key> and its value. Nested values are",
        "    sampled up to <count> times (default: 5, 0 means sample all).",
    ]);
    Ok(Effect::None)
}
