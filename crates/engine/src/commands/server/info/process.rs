//! The sections about the process and its clients.

use super::{Facts, Page};
use crate::clients::{ClientFlags, ClientKind};
use crate::config::Supervised;
use crate::shared::PauseMode;
use kara_base::usage;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) fn server(facts: &Facts, page: &mut Page) {
    let (shared, config) = (facts.cx.shared, facts.cx.config);
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    let up_s = (facts.cx.now_ms - shared.started_ms).max(0) / 1000;
    page.field("redis_version", "7.2.4");
    page.field("server_name", "valkey");
    page.field("valkey_version", "9.1.2");
    page.field("valkey_release_stage", "ga");
    page.field("kara_version", env!("CARGO_PKG_VERSION"));
    page.field("redis_git_sha1", "00000000");
    page.field("redis_git_dirty", 0);
    page.field("redis_build_id", "0000000000000000");
    page.field("server_mode", "standalone");
    page.field("os", usage::system_name());
    page.field("arch_bits", usize::BITS);
    page.field("monotonic_clock", "POSIX clock_gettime");
    page.field("multiplexing_api", if cfg!(target_os = "linux") { "epoll" } else { "kqueue" });
    // What the reference shows when another compiler made it.
    page.field("gcc_version", "0.0.0");
    page.field("process_id", std::process::id());
    let supervised = match config.supervised {
        Supervised::Systemd => "systemd",
        Supervised::Upstart => "upstart",
        Supervised::Auto => "unknown",
        Supervised::No => "no",
    };
    page.field("process_supervised", supervised);
    page.field("run_id", &shared.run_id);
    page.field("tcp_port", if config.port > 0 { config.port } else { config.tls_port });
    page.field("server_time_usec", now_us);
    page.field("uptime_in_seconds", up_s);
    page.field("uptime_in_days", up_s / 86_400);
    page.field("hz", config.hz);
    page.field("configured_hz", config.hz);
    page.field("clients_hz", config.hz);
    page.field("lru_clock", (facts.cx.now_ms / 1000) & 0xff_ffff);
    let executable = std::env::current_exe().unwrap_or_default();
    page.field("executable", executable.display());
    page.field("config_file", shared.config.file().unwrap_or_default().display());
    page.field("io_threads_active", u8::from(shared.workers > 1));
    page.field("availability_zone", String::from_utf8_lossy(&config.availability_zone));
    for (number, listener) in shared.host.listeners().iter().enumerate() {
        page.field(&format!("listener{number}"), listener);
    }
    if let Some(left_ms) = shared.replication.shutdown.left_ms(facts.cx.now_ms) {
        page.field("shutdown_in_milliseconds", left_ms);
    }
}

pub(super) fn clients(facts: &Facts, page: &mut Page) {
    let shared = facts.cx.shared;
    let all = shared.clients.all();
    let with = |flag: ClientFlags| all.iter().filter(|c| c.flags().contains(flag)).count();
    let replicas = all.iter().filter(|c| c.kind() == ClientKind::Replica).count();
    let pubsub = all.iter().filter(|c| c.kind() == ClientKind::PubSub).count();
    let watching = all.iter().filter(|c| c.watched.load(Relaxed) > 0).count();
    let watched: u64 = all.iter().map(|c| u64::from(c.watched.load(Relaxed))).sum();
    let input = all.iter().map(|c| c.query_capacity.load(Relaxed)).max().unwrap_or(0);
    let output = all.iter().map(|c| c.output_bytes.load(Relaxed)).max().unwrap_or(0);
    page.field("connected_clients", all.len() - replicas);
    page.field("cluster_connections", 0);
    page.field("maxclients", facts.cx.config.maxclients);
    page.field("client_recent_max_input_buffer", input);
    page.field("client_recent_max_output_buffer", output);
    page.field("blocked_clients", with(ClientFlags::BLOCKED));
    page.field("tracking_clients", with(ClientFlags::TRACKING));
    page.field("pubsub_clients", pubsub);
    page.field("watching_clients", watching);
    page.field("clients_in_timeout_table", waiting_with_limit(&all));
    page.field("total_watched_keys", watched);
    page.field("total_blocking_keys", shared.waiting.keys());
    page.field("total_blocking_keys_on_nokey", shared.waiting.keys_on_nokey());
    let now_ms = facts.cx.now_ms;
    let (reason, actions) = match shared.pause.mode(now_ms) {
        PauseMode::Off => ("none", "none"),
        PauseMode::Writes => ("client_pause", "write"),
        PauseMode::All => ("client_pause", "all"),
    };
    page.field("paused_reason", reason);
    page.field("paused_actions", actions);
    let left_ms = if reason == "none" { 0 } else { shared.pause.until_ms() - now_ms };
    page.field("paused_timeout_milliseconds", left_ms);
}

/// How many clients wait for a limited time.
fn waiting_with_limit(clients: &[std::sync::Arc<crate::clients::ClientInfo>]) -> usize {
    let limited = |client: &crate::clients::ClientInfo| {
        client.waiter.lock().as_ref().is_some_and(|waiter| waiter.what.timeout_ms > 0)
    };
    clients.iter().filter(|client| limited(client)).count()
}
