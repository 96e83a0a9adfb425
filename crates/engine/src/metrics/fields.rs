//! INFO's fields and the names under which redis_exporter shows them. Units are in the names, or in the explanation.

use super::Fields;
use super::exposition::{Exposition, Kind};

/// A field of INFO as a metric.
struct Row {
    field: &'static str,
    name: &'static str,
    kind: Kind,
    help: &'static str,
}

const fn gauge(field: &'static str, name: &'static str, help: &'static str) -> Row {
    Row { field, name, kind: Kind::Gauge, help }
}

const fn counter(field: &'static str, name: &'static str, help: &'static str) -> Row {
    Row { field, name, kind: Kind::Counter, help }
}

/// What isn't in INFO at the moment (the append-only file's size without one) isn't on the page.
#[rustfmt::skip] // A table.
const ROWS: &[Row] = &[
    gauge("uptime_in_seconds", "redis_uptime_in_seconds", "Time since the start."),
    gauge("process_id", "redis_process_id", "The process's number."),
    gauge("io_threads_active", "redis_io_threads_active", "Whether several threads run commands."),
    gauge("configured_hz", "redis_configured_hz", "Periodic work per second, as configured."),
    gauge("hz", "redis_hz", "Periodic work per second."),
    gauge("connected_clients", "redis_connected_clients", "Connected clients, replicas left out."),
    gauge("blocked_clients", "redis_blocked_clients", "Clients that wait in a command."),
    gauge("maxclients", "redis_max_clients", "Clients that may connect."),
    gauge("tracking_clients", "redis_tracking_clients", "Clients that are told of changes of what they read."),
    gauge("clients_in_timeout_table", "redis_clients_in_timeout_table", "Clients that wait for a limited time."),
    gauge("pubsub_clients", "redis_pubsub_clients", "Clients that subscribed to something."),
    gauge("watching_clients", "redis_watching_clients", "Clients that watch keys."),
    gauge("total_watched_keys", "redis_total_watched_keys", "Watched keys."),
    gauge("total_blocking_keys", "redis_total_blocking_keys", "Keys that clients wait for."),
    gauge("total_blocking_keys_on_nokey", "redis_total_blocking_keys_on_nokey", "Keys whose end or change of type clients wait for."),
    gauge("client_recent_max_output_buffer", "redis_client_recent_max_output_buffer_bytes", "Largest output that a client is owed."),
    gauge("client_recent_max_input_buffer", "redis_client_recent_max_input_buffer_bytes", "Largest input buffer of a client."),
    gauge("allocator_active", "redis_allocator_active_bytes", "Memory in pages that hold allocations."),
    gauge("allocator_allocated", "redis_allocator_allocated_bytes", "Memory that the allocator has given out, by its own count."),
    gauge("allocator_resident", "redis_allocator_resident_bytes", "Memory that the allocator has mapped and not given back."),
    gauge("allocator_frag_ratio", "redis_allocator_frag_ratio", "Active by allocated memory."),
    gauge("allocator_frag_bytes", "redis_allocator_frag_bytes", "Active beyond allocated memory."),
    gauge("allocator_muzzy", "redis_allocator_muzzy_bytes", "Memory given back that costs nothing to take again."),
    gauge("allocator_rss_ratio", "redis_allocator_rss_ratio", "Resident by active memory."),
    gauge("allocator_rss_bytes", "redis_allocator_rss_bytes", "Resident beyond active memory."),
    gauge("used_memory", "redis_memory_used_bytes", "Memory that the allocator has given out."),
    gauge("used_memory_rss", "redis_memory_used_rss_bytes", "The process's resident memory."),
    gauge("used_memory_peak", "redis_memory_used_peak_bytes", "The most memory that was ever given out."),
    gauge("used_memory_lua", "redis_memory_used_lua_bytes", "Memory of scripts' machines."),
    gauge("used_memory_vm_eval", "redis_memory_used_vm_eval_bytes", "Memory of the machines that run EVAL."),
    gauge("used_memory_scripts_eval", "redis_memory_used_scripts_eval_bytes", "Memory of cached scripts."),
    gauge("used_memory_overhead", "redis_memory_used_overhead_bytes", "Memory that isn't data: start-up, clients, index."),
    gauge("used_memory_startup", "redis_memory_used_startup_bytes", "Memory that was used before there were data."),
    gauge("used_memory_dataset", "redis_memory_used_dataset_bytes", "Memory of the data."),
    gauge("number_of_cached_scripts", "redis_number_of_cached_scripts", "Cached scripts."),
    gauge("number_of_functions", "redis_number_of_functions", "Functions in libraries."),
    gauge("number_of_libraries", "redis_number_of_libraries", "Libraries of functions."),
    gauge("used_memory_vm_functions", "redis_memory_used_vm_functions_bytes", "Memory of the machines that run functions."),
    gauge("used_memory_scripts", "redis_memory_used_scripts_bytes", "Memory of cached scripts and libraries."),
    gauge("used_memory_functions", "redis_memory_used_functions_bytes", "Memory of libraries."),
    gauge("used_memory_vm_total", "redis_memory_used_vm_total", "Memory of all scripts' machines, bytes."),
    gauge("maxmemory", "redis_memory_max_bytes", "The limit of the data's memory; 0: none."),
    gauge("mem_fragmentation_ratio", "redis_mem_fragmentation_ratio", "Resident by used memory."),
    gauge("mem_fragmentation_bytes", "redis_mem_fragmentation_bytes", "Resident beyond used memory."),
    gauge("mem_clients_slaves", "redis_mem_clients_slaves", "Memory of replicas' connections, bytes."),
    gauge("mem_clients_normal", "redis_mem_clients_normal", "Memory of clients' connections, bytes."),
    gauge("mem_cluster_links", "redis_mem_cluster_links_bytes", "Memory of links between cluster nodes."),
    gauge("mem_aof_buffer", "redis_mem_aof_buffer_bytes", "Records that wait for the append-only file."),
    gauge("mem_replication_backlog", "redis_mem_replication_backlog_bytes", "Memory of the replication log."),
    gauge("expired_stale_perc", "redis_expired_stale_percentage", "Estimated share of keys that are due and not gone."),
    gauge("mem_not_counted_for_evict", "redis_mem_not_counted_for_eviction_bytes", "Memory that doesn't count against the limit."),
    gauge("mem_total_replication_buffers", "redis_mem_total_replication_buffers_bytes", "Memory of what waits for replicas."),
    gauge("mem_overhead_db_hashtable_rehashing", "redis_mem_overhead_db_hashtable_rehashing_bytes", "Memory of tables under rehashing."),
    gauge("lazyfree_pending_objects", "redis_lazyfree_pending_objects", "Values that wait to be freed in the background."),
    gauge("lazyfreed_objects", "redis_lazyfreed_objects", "Values that were freed in the background."),
    gauge("active_defrag_running", "redis_active_defrag_running", "Whether memory is being defragmented."),
    gauge("migrate_cached_sockets", "redis_migrate_cached_sockets_total", "Open connections of MIGRATE."),
    gauge("active_defrag_hits", "redis_defrag_hits", "Values moved by defragmentation."),
    gauge("active_defrag_misses", "redis_defrag_misses", "Values that defragmentation left."),
    gauge("active_defrag_key_hits", "redis_defrag_key_hits", "Keys that defragmentation moved something of."),
    gauge("active_defrag_key_misses", "redis_defrag_key_misses", "Keys that defragmentation left."),
    gauge("loading", "redis_loading_dump_file", "Whether data are being loaded."),
    gauge("async_loading", "redis_async_loading", "Whether a replica loads while it serves old data."),
    gauge("rdb_changes_since_last_save", "redis_rdb_changes_since_last_save", "Changes since the last save."),
    gauge("rdb_bgsave_in_progress", "redis_rdb_bgsave_in_progress", "Whether a save is under way."),
    gauge("rdb_last_save_time", "redis_rdb_last_save_timestamp_seconds", "When the last save ended, Unix time."),
    gauge("rdb_last_bgsave_status", "redis_rdb_last_bgsave_status", "Whether the last save succeeded."),
    gauge("rdb_last_bgsave_time_sec", "redis_rdb_last_bgsave_duration_sec", "How long the last save took, seconds; -1: none yet."),
    gauge("rdb_current_bgsave_time_sec", "redis_rdb_current_bgsave_duration_sec", "How long the running save takes so far, seconds; -1: none."),
    gauge("rdb_saves", "redis_rdb_saves_total", "Saves since the start."),
    gauge("rdb_last_cow_size", "redis_rdb_last_cow_size_bytes", "Memory that the last save copied."),
    gauge("rdb_last_load_keys_expired", "redis_rdb_last_load_expired_keys", "Keys left out by the last loading as they were due."),
    gauge("rdb_last_load_keys_loaded", "redis_rdb_last_load_loaded_keys", "Keys that the last loading brought."),
    gauge("aof_enabled", "redis_aof_enabled", "Whether there is an append-only file."),
    gauge("aof_rewrite_in_progress", "redis_aof_rewrite_in_progress", "Whether the append-only file is being rewritten."),
    gauge("aof_rewrite_scheduled", "redis_aof_rewrite_scheduled", "Whether it will be after the running save."),
    gauge("aof_last_rewrite_time_sec", "redis_aof_last_rewrite_duration_sec", "How long the last rewrite took, seconds; -1: none yet."),
    gauge("aof_current_rewrite_time_sec", "redis_aof_current_rewrite_duration_sec", "How long the running rewrite takes so far, seconds; -1: none."),
    gauge("aof_last_cow_size", "redis_aof_last_cow_size_bytes", "Memory that the last rewrite copied."),
    gauge("aof_current_size", "redis_aof_current_size_bytes", "Size of the append-only files."),
    gauge("aof_base_size", "redis_aof_base_size_bytes", "Their size at the last rewrite or start."),
    gauge("aof_pending_rewrite", "redis_aof_pending_rewrite", "Whether a rewrite waits."),
    gauge("aof_buffer_length", "redis_aof_buffer_length", "Bytes that wait for the append-only file."),
    gauge("aof_pending_bio_fsync", "redis_aof_pending_bio_fsync", "Whether a sync to the disk is under way."),
    gauge("aof_delayed_fsync", "redis_aof_delayed_fsync", "Writes that waited for a sync."),
    gauge("aof_last_bgrewrite_status", "redis_aof_last_bgrewrite_status", "Whether the last rewrite succeeded."),
    gauge("aof_last_write_status", "redis_aof_last_write_status", "Whether the last write to the append-only file succeeded."),
    gauge("module_fork_in_progress", "redis_module_fork_in_progress", "Whether a module has forked."),
    gauge("module_fork_last_cow_size", "redis_module_fork_last_cow_size", "Memory that a module's fork copied."),
    gauge("current_eviction_exceeded_time", "redis_current_eviction_exceeded_time_ms", "Since when memory is over its limit, milliseconds."),
    gauge("pubsub_channels", "redis_pubsub_channels", "Channels with subscribers."),
    gauge("pubsub_patterns", "redis_pubsub_patterns", "Patterns with subscribers."),
    gauge("pubsubshard_channels", "redis_pubsubshard_channels", "Channels of shards with subscribers."),
    gauge("tracking_total_keys", "redis_tracking_total_keys", "Keys that are remembered for clients."),
    gauge("tracking_total_items", "redis_tracking_total_items", "Pairs of a key and a client that are remembered."),
    gauge("tracking_total_prefixes", "redis_tracking_total_prefixes", "Prefixes that clients follow."),
    gauge("instantaneous_ops_per_sec", "redis_instantaneous_ops_per_sec", "Commands per second over the last moments."),
    gauge("instantaneous_eventloop_cycles_per_sec", "redis_instantaneous_eventloop_cycles_per_sec", "Turns per second of a thread's loop."),
    gauge("instantaneous_eventloop_duration_usec", "redis_instantaneous_eventloop_duration_usec", "Mean duration of a turn, microseconds."),
    gauge("connected_slaves", "redis_connected_slaves", "Connected replicas."),
    gauge("repl_backlog_size", "redis_replication_backlog_bytes", "Size of the replication log."),
    gauge("repl_backlog_active", "redis_repl_backlog_is_active", "Whether there is a replication log."),
    gauge("repl_backlog_first_byte_offset", "redis_repl_backlog_first_byte_offset", "Where the replication log begins."),
    gauge("repl_backlog_histlen", "redis_repl_backlog_history_bytes", "How much the replication log holds."),
    gauge("master_repl_offset", "redis_master_repl_offset", "Where our replication stream ends, bytes."),
    gauge("second_repl_offset", "redis_second_repl_offset", "Where the history before this one ends; -1: none."),
    gauge("slave_expires_tracked_keys", "redis_slave_expires_tracked_keys", "Keys with an expiry that a writable replica made."),
    gauge("slave_priority", "redis_slave_priority", "Our priority when a new primary is chosen."),
    gauge("sync_full", "redis_replica_resyncs_full", "Replicas that got all data."),
    gauge("sync_partial_ok", "redis_replica_partial_resync_accepted", "Replicas that went on where they were."),
    gauge("sync_partial_err", "redis_replica_partial_resync_denied", "Replicas that couldn't go on."),
    gauge("cluster_enabled", "redis_cluster_enabled", "Whether this is a node of a cluster."),
    counter("total_connections_received", "redis_connections_received_total", "Connections that were accepted."),
    counter("total_commands_processed", "redis_commands_processed_total", "Commands that were run."),
    counter("rejected_connections", "redis_rejected_connections_total", "Connections that were turned away."),
    counter("total_net_input_bytes", "redis_net_input_bytes_total", "Bytes read from clients."),
    counter("total_net_output_bytes", "redis_net_output_bytes_total", "Bytes sent to clients."),
    counter("total_net_repl_input_bytes", "redis_net_repl_input_bytes_total", "Bytes read from our primary."),
    counter("total_net_repl_output_bytes", "redis_net_repl_output_bytes_total", "Bytes sent to our replicas."),
    counter("expired_keys", "redis_expired_keys_total", "Keys that expired."),
    counter("expired_time_cap_reached_count", "redis_expired_time_cap_reached_total", "Times that active expiry ran out of time."),
    counter("expire_cycle_cpu_milliseconds", "redis_expire_cycle_cpu_time_ms_total", "Time that active expiry took, milliseconds."),
    counter("evicted_keys", "redis_evicted_keys_total", "Keys that had to go for memory."),
    counter("evicted_clients", "redis_evicted_clients_total", "Clients that had to go for memory."),
    counter("evicted_scripts", "redis_evicted_scripts_total", "Scripts that had to go for memory."),
    counter("total_eviction_exceeded_time", "redis_eviction_exceeded_time_ms_total", "Time that memory was over its limit, milliseconds."),
    counter("keyspace_hits", "redis_keyspace_hits_total", "Keys that were asked for and found."),
    counter("keyspace_misses", "redis_keyspace_misses_total", "Keys that were asked for and missing."),
    counter("eventloop_cycles", "redis_eventloop_cycles_total", "Turns of the threads' loops."),
    counter("eventloop_duration_sum", "redis_eventloop_duration_sum_usec_total", "Time that turns took, microseconds."),
    counter("eventloop_duration_cmd_sum", "redis_eventloop_duration_cmd_sum_usec_total", "Time in turns that commands took, microseconds."),
    counter("used_cpu_sys", "redis_cpu_sys_seconds_total", "Processor time in the kernel."),
    counter("used_cpu_user", "redis_cpu_user_seconds_total", "Processor time outside the kernel."),
    counter("used_cpu_sys_children", "redis_cpu_sys_children_seconds_total", "Processor time of children in the kernel."),
    counter("used_cpu_user_children", "redis_cpu_user_children_seconds_total", "Processor time of children outside the kernel."),
    counter("unexpected_error_replies", "redis_unexpected_error_replies", "Errors that only a bug or a fault outside explains."),
    counter("total_error_replies", "redis_total_error_replies", "Errors that clients were answered."),
    counter("dump_payload_sanitizations", "redis_dump_payload_sanitizations", "Payloads that were looked through before use."),
    counter("total_reads_processed", "redis_total_reads_processed", "Reads from clients' sockets."),
    counter("total_writes_processed", "redis_total_writes_processed", "Writes to clients' sockets."),
    counter("io_threaded_reads_processed", "redis_io_threaded_reads_processed", "Reads by helper threads; commands run where they are read here."),
    counter("io_threaded_writes_processed", "redis_io_threaded_writes_processed", "Writes by helper threads; likewise."),
    counter("client_query_buffer_limit_disconnections", "redis_client_query_buffer_limit_disconnections_total", "Clients cut for too much input."),
    counter("client_output_buffer_limit_disconnections", "redis_client_output_buffer_limit_disconnections_total", "Clients cut for output that they didn't read."),
    counter("reply_buffer_shrinks", "redis_reply_buffer_shrinks_total", "Reply buffers made smaller."),
    counter("reply_buffer_expands", "redis_reply_buffer_expands_total", "Reply buffers made larger."),
    counter("acl_access_denied_auth", "redis_acl_access_denied_auth_total", "Failed authentications."),
    counter("acl_access_denied_cmd", "redis_acl_access_denied_cmd_total", "Commands refused for want of permission."),
    counter("acl_access_denied_key", "redis_acl_access_denied_key_total", "Keys refused for want of permission."),
    counter("acl_access_denied_channel", "redis_acl_access_denied_channel_total", "Channels refused for want of permission."),
    counter("used_active_time_main_thread", "redis_active_time_main_thread_seconds_total", "Time that the first thread was busy."),
];

pub(super) fn write(fields: &Fields, page: &mut Exposition) {
    for row in ROWS {
        let Some(text) = fields.get(row.field) else { continue };
        match *text {
            "ok" => page.single(row.name, row.kind, row.help, 1),
            "err" | "fail" => page.single(row.name, row.kind, row.help, 0),
            text => match (text.parse::<i64>(), text.parse::<f64>()) {
                (Ok(whole), _) => page.single(row.name, row.kind, row.help, whole),
                (_, Ok(fraction)) => page.single(row.name, row.kind, row.help, fraction),
                _ => {}
            },
        }
    }
    let number = |name: &str| fields.get(name).and_then(|text| text.parse::<f64>().ok());
    if let Some(us) = number("latest_fork_usec") {
        let help = "How long the last fork took; there are none here.";
        page.single("redis_latest_fork_seconds", Kind::Gauge, help, us / 1e6);
    }
    if let (Some(now_us), Some(up_s)) = (number("server_time_usec"), number("uptime_in_seconds")) {
        let help = "When the server was started, Unix time.";
        page.single("redis_start_time_seconds", Kind::Gauge, help, (now_us / 1e6).floor() - up_s);
    }
}

/// Facts that are no figures, as labels of a one.
pub(super) fn identity(fields: &Fields, page: &mut Exposition) {
    let text = |name: &str| fields.get(name).copied().unwrap_or_default();
    let name = "redis_instance_info";
    page.family(name, Kind::Gauge, "What this server is.");
    let labels = [
        ("role", text("role")),
        ("redis_version", text("redis_version")),
        ("redis_build_id", text("redis_build_id")),
        // The older name of `server_mode`.
        ("redis_mode", text("server_mode")),
        ("os", text("os")),
        ("maxmemory_policy", text("maxmemory_policy")),
        ("tcp_port", text("tcp_port")),
        ("run_id", text("run_id")),
        ("process_id", text("process_id")),
        ("master_replid", text("master_replid")),
        ("valkey_version", text("valkey_version")),
        ("valkey_release_stage", text("valkey_release_stage")),
    ];
    page.sample(name, &labels, 1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_name_is_used_once() {
        let names: BTreeSet<&str> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len());
    }
}
