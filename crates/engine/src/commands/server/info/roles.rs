//! The sections about TLS, saving, replication, modules, cluster and scripts. What this server doesn't have yet
//! shows as the reference shows it while it isn't used.

use super::{Facts, Page};
use crate::config::Config;
use crate::replication::{Link, Upstream};
use std::sync::atomic::Ordering::Relaxed;

pub(super) fn tls(_: &Facts, page: &mut Page) {
    for name in ["tls_server_cert", "tls_client_cert", "tls_ca_cert"] {
        page.field(&format!("{name}_serial"), "none");
        page.field(&format!("{name}_expires_in_seconds"), 0);
    }
}

pub(super) fn replication(facts: &Facts, page: &mut Page) {
    let config: &Config = facts.cx.config;
    let replication = &facts.cx.shared.replication;
    let now_ms = facts.cx.now_ms;
    let extent = replication.backlog.extent();
    let good = replication.good_replicas(config, now_ms);
    replication.with(|state| {
        page.field("role", if state.primary.is_some() { "slave" } else { "master" });
        if let Some(primary) = &state.primary {
            upstream(primary, extent.end, config, now_ms, page);
        }
        page.field("connected_slaves", state.replicas.len());
        if config.min_replicas_to_write > 0 && config.min_replicas_max_lag > 0 {
            page.field("min_slaves_good_slaves", good);
        }
        page.field("replicas_waiting_psync", replication.waiting_psync.load(Relaxed));
        for (number, member) in state.replicas.iter().enumerate() {
            let replica = &member.replica;
            let line = format!(
                "ip={},port={},state={},offset={},lag={},type={}",
                replica.address(),
                replica.conf.listening_port,
                replica.state_name(),
                replica.acked.load(Relaxed),
                if replica.is_online() { replica.lag_s(now_ms) } else { 0 },
                replica.type_name()
            );
            page.field(&format!("slave{number}"), line);
        }
        let failover = match &state.failover {
            None => "no-failover",
            Some(failover) if failover.in_progress => "failover-in-progress",
            Some(_) => "waiting-for-sync",
        };
        page.field("master_failover_state", failover);
        page.field("master_replid", &state.ids.id);
        let second = state.ids.second.as_ref();
        page.field("master_replid2", second.map_or_else(|| "0".repeat(40), |(id, _)| id.clone()));
        page.field("master_repl_offset", extent.end);
        page.field("second_repl_offset", second.map_or(-1, |(_, end)| *end as i64));
    });
    page.field("repl_backlog_active", u8::from(extent.active));
    page.field("repl_backlog_size", config.repl_backlog_size);
    let first = if extent.active { extent.start + 1 } else { 0 };
    page.field("repl_backlog_first_byte_offset", first);
    page.field("repl_backlog_histlen", if extent.active { extent.end - extent.start } else { 0 });
}

/// Our primary and the link to it.
fn upstream(primary: &Upstream, offset: u64, config: &Config, now_ms: i64, page: &mut Page) {
    let up = primary.link == Link::Connected;
    let ago = |then_ms: i64| (now_ms - then_ms).max(0) / 1000;
    page.field("master_host", String::from_utf8_lossy(&primary.host));
    page.field("master_port", primary.port);
    page.field("master_link_status", if up { "up" } else { "down" });
    page.field("master_last_io_seconds_ago", if up { ago(primary.heard_ms) } else { -1 });
    let syncing = primary.link == Link::Sync;
    page.field("master_sync_in_progress", u8::from(syncing));
    page.field("slave_read_repl_offset", primary.read_offset.max(offset));
    page.field("slave_repl_offset", offset);
    if syncing {
        let (read, total) = (primary.sync_read, primary.sync_total);
        page.field("master_sync_total_bytes", total.max(0));
        page.field("master_sync_read_bytes", read);
        page.field("master_sync_left_bytes", total - read as i64);
        let percent = if total > 0 { read as f64 / total as f64 * 100.0 } else { 0.0 };
        page.field("master_sync_perc", format!("{percent:.2}"));
        page.field("master_sync_last_io_seconds_ago", ago(primary.sync_ms));
    }
    if !up {
        page.field("master_link_down_since_seconds", ago(primary.down_since_ms));
    }
    page.field("slave_priority", config.replica_priority);
    page.field("slave_read_only", u8::from(config.replica_read_only));
    page.field("replica_announced", u8::from(config.replica_announced));
}

pub(super) fn modules(_: &Facts, _: &mut Page) {}

pub(super) fn cluster(facts: &Facts, page: &mut Page) {
    page.field("cluster_enabled", u8::from(facts.cx.config.cluster_enabled));
}

pub(super) fn cluster_info(_: &Facts, _: &mut Page) {}

pub(super) fn scripting_engines(facts: &Facts, page: &mut Page) {
    let scripts = facts.cx.shared.scripts.usage();
    let used = scripts.vm_eval + scripts.vm_functions;
    page.field("engines_count", 1);
    page.field("engines_total_used_memory", used);
    page.field("engines_total_memory_overhead", 0);
    page.field(
        "engine_0",
        format_args!("name=LUA,module=lua,abi_version=4,used_memory={used},memory_overhead=0"),
    );
}
