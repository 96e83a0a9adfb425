//! The sections about memory and CPU time.

use super::{Facts, Page};
use crate::commands::server::memory_use::{self, MemoryUse};
use crate::evict::gauge;
use kara_base::number::human_bytes;
use kara_base::usage::{self, CpuTime, Whose};
use std::sync::atomic::Ordering::Relaxed;

pub(super) fn memory(facts: &Facts, page: &mut Page) {
    let (shared, config) = (facts.cx.shared, facts.cx.config);
    let mut m = MemoryUse::now(facts.cx, &facts.dbs);
    m.used = facts.used;
    let sized = |page: &mut Page, name: &str, bytes: u64| {
        page.field(name, bytes);
        page.field(&format!("{name}_human"), human_bytes(bytes));
    };
    sized(page, "used_memory", m.used);
    sized(page, "used_memory_rss", m.resident);
    sized(page, "used_memory_peak", m.peak);
    page.field("used_memory_peak_perc", format_args!("{:.2}%", m.peak_percentage()));
    page.field("used_memory_overhead", m.overhead);
    page.field("used_memory_startup", m.startup);
    page.field("used_memory_dataset", m.dataset());
    page.field("used_memory_dataset_perc", format_args!("{:.2}%", m.dataset_percentage()));
    page.field("allocator_allocated", m.allocator.allocated);
    page.field("allocator_active", m.allocator.active);
    page.field("allocator_resident", m.allocator.resident);
    page.field("allocator_muzzy", m.allocator.muzzy);
    sized(page, "total_system_memory", usage::total_memory());
    let scripts = shared.scripts.usage();
    page.field("used_memory_lua", scripts.vm_eval);
    page.field("used_memory_vm_eval", scripts.vm_eval);
    page.field("used_memory_lua_human", human_bytes(scripts.vm_eval));
    page.field("used_memory_scripts_eval", scripts.cached_bytes);
    page.field("number_of_cached_scripts", scripts.cached);
    page.field("number_of_functions", scripts.functions);
    page.field("number_of_libraries", scripts.libraries);
    page.field("used_memory_vm_functions", scripts.vm_functions);
    sized(page, "used_memory_vm_total", scripts.vm_eval + scripts.vm_functions);
    page.field("used_memory_functions", scripts.library_bytes);
    sized(page, "used_memory_scripts", scripts.cached_bytes + scripts.library_bytes);
    sized(page, "maxmemory", config.maxmemory);
    page.field("maxmemory_policy", memory_use::policy_name(config));
    page.field("allocator_frag_ratio", format_args!("{:.2}", m.fragmentation_ratio()));
    page.field("allocator_frag_bytes", m.fragmentation_bytes());
    page.field("allocator_rss_ratio", format_args!("{:.2}", m.allocator_rss_ratio()));
    page.field("allocator_rss_bytes", m.allocator_rss_bytes());
    page.field("rss_overhead_ratio", format_args!("{:.2}", m.rss_overhead_ratio()));
    page.field("rss_overhead_bytes", m.rss_overhead_bytes());
    page.field("mem_fragmentation_ratio", format_args!("{:.2}", m.total_fragmentation_ratio()));
    page.field("mem_fragmentation_bytes", m.total_fragmentation_bytes());
    page.field("mem_not_counted_for_evict", gauge::not_counted(shared));
    page.field("mem_replication_backlog", m.backlog);
    page.field("mem_total_replication_buffers", m.replication_log);
    page.field("mem_replicas_repl_buffer", shared.replication.buffered.load(Relaxed));
    page.field("mem_clients_slaves", m.replicas);
    page.field("mem_clients_normal", m.clients);
    page.zeros(&["mem_cluster_links", "mem_cluster_slot_import", "mem_cluster_slot_export"]);
    page.field("mem_aof_buffer", m.aof_buffer);
    page.field("mem_allocator", usage::allocator_name());
    page.zeros(&["mem_overhead_db_hashtable_rehashing", "active_defrag_running"]);
    page.field("lazyfree_pending_objects", shared.reclaimer.pending());
    page.field("lazyfreed_objects", shared.reclaimer.freed());
}

pub(super) fn cpu(facts: &Facts, page: &mut Page) {
    let mut times = |name: &str, time: CpuTime| {
        let seconds = |us: u64| format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
        page.field(&format!("used_cpu_sys{name}"), seconds(time.system_us));
        page.field(&format!("used_cpu_user{name}"), seconds(time.user_us));
    };
    times("", usage::cpu_time(Whose::Process));
    times("_children", usage::cpu_time(Whose::Children));
    // There is no main thread that serves: the thread that answers stands for it.
    times("_main_thread", usage::cpu_time(Whose::Thread));
    let active_us = facts.cx.stats.eventloop_ns.get() / 1000;
    let active = format!("{}.{:06}", active_us / 1_000_000, active_us % 1_000_000);
    page.field("used_active_time_main_thread", active);
}
