//! The sections about TLS, saving, replication, modules, cluster and scripts. What this server doesn't have yet
//! shows as the reference shows it while it isn't used.

use super::{Facts, Page};
use crate::config::Config;
use std::sync::atomic::Ordering::Relaxed;

pub(super) fn tls(_: &Facts, page: &mut Page) {
    for name in ["tls_server_cert", "tls_client_cert", "tls_ca_cert"] {
        page.field(&format!("{name}_serial"), "none");
        page.field(&format!("{name}_expires_in_seconds"), 0);
    }
}

pub(super) fn persistence(facts: &Facts, page: &mut Page) {
    let shared = facts.cx.shared;
    page.field("loading", u8::from(shared.loading.load(Relaxed)));
    page.zeros(&["async_loading", "current_cow_peak", "current_cow_size", "current_cow_size_age"]);
    page.field("current_fork_perc", "0.00");
    page.zeros(&["current_save_keys_processed", "current_save_keys_total"]);
    page.field("rdb_changes_since_last_save", facts.totals.changes);
    page.field("rdb_bgsave_in_progress", 0);
    page.field("rdb_last_save_time", shared.started_ms / 1000);
    page.field("rdb_last_bgsave_status", "ok");
    page.fields(&[("rdb_last_bgsave_time_sec", -1), ("rdb_current_bgsave_time_sec", -1)]);
    page.zeros(&[
        "rdb_saves",
        "rdb_last_cow_size",
        "rdb_last_load_keys_expired",
        "rdb_last_load_keys_loaded",
    ]);
    page.zeros(&["aof_enabled", "aof_rewrite_in_progress", "aof_rewrite_scheduled"]);
    page.fields(&[("aof_last_rewrite_time_sec", -1), ("aof_current_rewrite_time_sec", -1)]);
    page.field("aof_last_bgrewrite_status", "ok");
    page.zeros(&["aof_rewrites", "aof_rewrites_consecutive_failures"]);
    page.field("aof_last_write_status", "ok");
    page.zeros(&["aof_last_cow_size", "module_fork_in_progress", "module_fork_last_cow_size"]);
    page.zeros(&["slot_migration_fork_in_progress"]);
}

pub(super) fn replication(facts: &Facts, page: &mut Page) {
    let config: &Config = facts.cx.config;
    page.field("role", "master");
    page.zeros(&["connected_slaves", "replicas_waiting_psync"]);
    page.field("master_failover_state", "no-failover");
    page.field("master_replid", &facts.cx.shared.observe.replication_id);
    page.field("master_replid2", "0".repeat(40));
    page.field("master_repl_offset", 0);
    page.field("second_repl_offset", -1);
    page.field("repl_backlog_active", 0);
    page.field("repl_backlog_size", config.repl_backlog_size);
    page.zeros(&["repl_backlog_first_byte_offset", "repl_backlog_histlen"]);
}

pub(super) fn modules(_: &Facts, _: &mut Page) {}

pub(super) fn cluster(facts: &Facts, page: &mut Page) {
    page.field("cluster_enabled", u8::from(facts.cx.config.cluster_enabled));
}

pub(super) fn cluster_info(_: &Facts, _: &mut Page) {}

pub(super) fn scripting_engines(_: &Facts, page: &mut Page) {
    page.zeros(&["engines_count", "engines_total_used_memory", "engines_total_memory_overhead"]);
}
