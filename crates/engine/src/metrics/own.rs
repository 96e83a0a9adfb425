//! Figures that have names of Kara's own, and settings that alerts compare with.

use super::exposition::{Exposition, Kind};
use crate::commands::server::View;

pub(super) fn write(view: &View, page: &mut Exposition) {
    let shared = view.shared;
    let name = "kara_build_info";
    page.family(name, Kind::Gauge, "The versions of Kara and of what it is compatible with.");
    page.sample(name, &[("version", env!("CARGO_PKG_VERSION")), ("valkey_version", "9.1.2")], 1);
    let replicas = shared.replication.with(|state| state.replicas.len());
    page.single("valkey_connected_replicas", Kind::Gauge, "Connected replicas.", replicas);
    let used = kara_base::alloc::used_memory();
    page.single("valkey_used_memory", Kind::Gauge, "Memory that the allocator has given out, bytes.", used);
    let commands = shared.stats.commands();
    page.single("valkey_commands_processed_total", Kind::Counter, "Commands that were run.", commands);
    let config = view.config;
    for (name, help, value) in [
        ("redis_config_maxclients", "Clients that may connect.", config.maxclients),
        ("redis_config_maxmemory", "The limit of the data's memory, bytes; 0: none.", config.maxmemory),
        ("redis_config_io_threads", "Threads that run commands.", config.io_threads),
        ("redis_total_system_memory_bytes", "The machine's memory.", kara_base::usage::total_memory()),
    ] {
        page.single(name, Kind::Gauge, help, value);
    }
    output_limits(view, page);
}

fn output_limits(view: &View, page: &mut Exposition) {
    let limits = &view.config.client_output_buffer_limit;
    let each = || limits.named();
    let name = "redis_config_client_output_buffer_limit_bytes";
    page.family(name, Kind::Gauge, "What a client of a class may be owed.");
    for (class, limit) in each() {
        page.sample(name, &[("class", class), ("limit", "hard")], limit.hard_bytes);
        page.sample(name, &[("class", class), ("limit", "soft")], limit.soft_bytes);
    }
    let name = "redis_config_client_output_buffer_limit_overcome_seconds";
    page.family(name, Kind::Gauge, "For how long the soft limit may be exceeded.");
    for (class, limit) in each() {
        page.sample(name, &[("class", class), ("limit", "soft")], limit.soft_seconds);
    }
}
