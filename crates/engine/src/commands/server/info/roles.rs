//! The sections about TLS, saving, replication, modules, cluster and scripts. What this server doesn't have yet
//! shows as the reference shows it while it isn't used.

use super::{Facts, Page};
use crate::config::Config;

pub(super) fn tls(_: &Facts, page: &mut Page) {
    for name in ["tls_server_cert", "tls_client_cert", "tls_ca_cert"] {
        page.field(&format!("{name}_serial"), "none");
        page.field(&format!("{name}_expires_in_seconds"), 0);
    }
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
