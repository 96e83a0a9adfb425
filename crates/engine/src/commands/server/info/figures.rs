//! The sections that count: what was done, by which command, with which errors, how fast; keys per database.

use super::{Facts, Page};
use crate::pubsub::Kind;
use crate::registry::Command;
use crate::stats::{CommandTotals, latency_bucket_end_ns};
use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;

pub(super) fn stats(facts: &Facts, page: &mut Page) {
    let (shared, t) = (facts.cx.shared, &facts.totals);
    let rates = shared.observe.rates.per_second();
    let kb = |bytes: f64| format!("{:.2}", bytes / 1024.0);
    page.field("total_connections_received", t.connections_received);
    page.field("total_commands_processed", t.commands_processed);
    page.field("instantaneous_ops_per_sec", rates.commands as u64);
    page.field("total_net_input_bytes", t.net_input_bytes);
    page.field("total_net_output_bytes", t.net_output_bytes);
    let replication = &shared.replication;
    page.field("total_net_repl_input_bytes", replication.input_bytes.load(Relaxed));
    page.field("total_net_repl_output_bytes", replication.output_bytes.load(Relaxed));
    page.zeros(&["total_net_cluster_slot_import_bytes", "total_net_cluster_slot_export_bytes"]);
    page.field("instantaneous_input_kbps", kb(rates.input_bytes));
    page.field("instantaneous_output_kbps", kb(rates.output_bytes));
    page.fields(&[("instantaneous_input_repl_kbps", "0.00"), ("instantaneous_output_repl_kbps", "0.00")]);
    page.field("rejected_connections", t.rejected_connections);
    let replication = &facts.cx.shared.replication;
    page.field("sync_full", replication.syncs_full.load(Relaxed));
    page.field("sync_partial_ok", replication.syncs_partial.load(Relaxed));
    page.field("sync_partial_err", replication.syncs_refused.load(Relaxed));
    page.field("expired_keys", t.expired_keys);
    page.field("expired_fields", t.expired_fields);
    page.field("expired_stale_perc", "0.00");
    page.field("expired_keys_with_volatile_items_stale_perc", "0.00");
    page.field("expired_time_cap_reached_count", t.expired_time_cap_reached);
    page.field("expire_cycle_cpu_milliseconds", t.expire_cycle_ns / 1_000_000);
    page.field("evicted_keys", t.evicted_keys);
    page.field("evicted_clients", t.evicted_clients);
    page.field("evicted_scripts", t.evicted_scripts);
    let (in_all_ms, now_ms) = shared.exceeded.times_ms();
    page.field("total_eviction_exceeded_time", in_all_ms);
    page.field("current_eviction_exceeded_time", now_ms);
    page.field("keyspace_hits", t.keyspace_hits);
    page.field("keyspace_misses", t.keyspace_misses);
    page.field("pubsub_channels", shared.pubsub.count(Kind::Channel));
    page.field("pubsub_patterns", shared.pubsub.count(Kind::Pattern));
    page.field("pubsubshard_channels", shared.pubsub.count(Kind::Shard));
    page.zeros(&["latest_fork_usec"]);
    page.field("total_forks", shared.persist.snapshots.load(Relaxed));
    page.field("migrate_cached_sockets", shared.host.tidy_peers());
    page.field("slave_expires_tracked_keys", replication.own_keys.count());
    page.zeros(&["active_defrag_hits", "active_defrag_misses"]);
    page.zeros(&["active_defrag_key_hits", "active_defrag_key_misses", "total_active_defrag_time"]);
    page.field("current_active_defrag_time", 0);
    let tracked = shared.tracking.sizes();
    page.field("tracking_total_keys", tracked.keys);
    page.field("tracking_total_items", tracked.items);
    page.field("tracking_total_prefixes", tracked.prefixes);
    page.field("unexpected_error_replies", t.unexpected_error_replies);
    page.field("total_error_replies", t.error_replies);
    page.field("dump_payload_sanitizations", shared.persist.sanitizations.load(Relaxed));
    page.field("total_reads_processed", t.reads_processed);
    page.field("total_writes_processed", t.writes_processed);
    page.zeros(&["io_threaded_reads_processed", "io_threaded_writes_processed"]);
    page.zeros(&["io_threaded_freed_objects", "io_threaded_accept_processed", "io_threaded_poll_processed"]);
    page.zeros(&["io_threaded_total_prefetch_batches", "io_threaded_total_prefetch_entries"]);
    page.field("client_query_buffer_limit_disconnections", t.query_buffer_disconnections);
    page.field("client_output_buffer_limit_disconnections", t.output_buffer_disconnections);
    page.field("reply_buffer_shrinks", t.reply_buffer_shrinks);
    page.field("reply_buffer_expands", t.reply_buffer_expands);
    page.field("eventloop_cycles", t.eventloop_cycles);
    page.field("eventloop_duration_sum", t.eventloop_ns / 1000);
    page.field("eventloop_duration_cmd_sum", t.eventloop_command_ns / 1000);
    page.field(
        "instantaneous_eventloop_cycles_per_sec",
        (rates.cycles / shared.workers.max(1) as f64) as u64,
    );
    page.field("instantaneous_eventloop_duration_usec", rates.cycle_us as u64);
    page.field("acl_access_denied_auth", t.acl_denied_auth);
    page.field("acl_access_denied_cmd", t.acl_denied_cmd);
    page.field("acl_access_denied_key", t.acl_denied_key);
    page.field("acl_access_denied_channel", t.acl_denied_channel);
    page.zeros(&["acl_access_denied_tls_cert"]);
    page.field("acl_access_denied_db", t.acl_denied_db);
}

pub(super) fn debug(facts: &Facts, page: &mut Page) {
    let turns = &facts.cx.shared.observe.turns;
    page.field("eventloop_duration_aof_sum", 0);
    page.field("eventloop_duration_cron_sum", turns.cron_ns.load(Relaxed) / 1000);
    page.field("eventloop_duration_max", turns.longest_ns.load(Relaxed) / 1000);
    page.field("eventloop_cmd_per_cycle_max", turns.most_commands.load(Relaxed));
    page.zeros(&["io_threaded_reads_pending", "io_threaded_writes_pending"]);
}

/// Commands that were called or refused, with their figures.
fn used<'a>(facts: &Facts<'a>) -> impl Iterator<Item = (Command, CommandTotals)> + 'a {
    let shared = facts.cx.shared;
    let all = shared.registry.all().iter().map(|command| (*command, shared.stats.command_totals(command.id)));
    all.filter(|(_, totals)| totals.calls + totals.rejected + totals.failed > 0)
}

pub(super) fn commandstats(facts: &Facts, page: &mut Page) {
    for (command, totals) in used(facts) {
        let us = totals.ns / 1000;
        let mean = if totals.calls == 0 { 0.0 } else { us as f64 / totals.calls as f64 };
        page.field(
            &format!("cmdstat_{}", command.full_name),
            format_args!(
                "calls={},usec={us},usec_per_call={mean:.2},rejected_calls={},failed_calls={}",
                totals.calls, totals.rejected, totals.failed
            ),
        );
    }
}

pub(super) fn errorstats(facts: &Facts, page: &mut Page) {
    for (code, count) in facts.cx.shared.stats.errors() {
        // A script may have made up the code: it must not break the line.
        let code: String =
            code.chars().map(|c| if matches!(c, ':' | '\r' | '\n' | ',' | '=') { '_' } else { c }).collect();
        page.field(&format!("errorstat_{code}"), format_args!("count={count}"));
    }
}

pub(super) fn latencystats(facts: &Facts, page: &mut Page) {
    let config = facts.cx.config;
    if !config.latency_tracking {
        return;
    }
    for (command, totals) in used(facts).filter(|(_, totals)| totals.latency.iter().any(|n| *n > 0)) {
        let mut text = String::new();
        for percentile in &config.latency_tracking_info_percentiles.0 {
            let ns = percentile_ns(&totals.latency, *percentile);
            let comma = if text.is_empty() { "" } else { "," };
            let _ = write!(text, "{comma}p{percentile}={:.3}", ns as f64 / 1000.0);
        }
        page.field(&format!("latency_percentiles_usec_{}", command.full_name), text);
    }
}

/// The duration that so many percent of the calls don't exceed, rounded up to its bucket's end.
pub(crate) fn percentile_ns(buckets: &[u64], percentile: f64) -> u64 {
    let total: u64 = buckets.iter().sum();
    let wanted = ((percentile / 100.0 * total as f64).ceil() as u64).max(1);
    let mut seen = 0;
    for (bucket, count) in buckets.iter().enumerate() {
        seen += count;
        if seen >= wanted {
            return latency_bucket_end_ns(bucket);
        }
    }
    0
}

pub(super) fn keyspace(facts: &Facts, page: &mut Page) {
    for (number, db) in facts.dbs.iter().enumerate().filter(|(_, db)| db.keys > 0) {
        page.field(
            &format!("db{number}"),
            format_args!(
                "keys={},expires={},avg_ttl={},keys_with_volatile_items={}",
                db.keys,
                db.expires,
                db.avg_ttl_ms(facts.cx.now_ms),
                db.volatile
            ),
        );
    }
}
