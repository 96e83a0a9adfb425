//! The registry: one row per directive with its field, type, default, names, rule and flags. The fields of
//! `Config`, CONFIG GET, SET and REWRITE and the file's parser all derive from these rows.
//!
//! Names, defaults and limits are the reference's; `tests/golden/config-defaults.json` pins them. Units are the
//! reference's too: seconds or milliseconds as its documentation says, sizes in bytes.

use bitflags::bitflags;

use super::checks;
use super::choices::*;
use super::shapes::*;
use super::value::*;

bitflags! {
    /// What is special about a directive.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Flags: u8 {
        /// Only the file and the command line may set it.
        const IMMUTABLE = 1 << 0;
        /// Its value is a secret: redacted in logs.
        const SENSITIVE = 1 << 1;
        /// Takes several words.
        const MULTI_ARG = 1 << 2;
        /// CONFIG GET shows it only by its exact name.
        const HIDDEN = 1 << 3;
        /// Printed in crash reports.
        const DEBUG = 1 << 4;
        /// CONFIG SET needs `enable-protected-configs`.
        const PROTECTED = 1 << 5;
        /// CONFIG SET is refused while the dataset loads.
        const DENY_LOADING = 1 << 6;
    }
}

/// Reads the words after a directive's name into its field.
type Assign = fn(&mut Config, &[&[u8]], Source) -> Result<(), Fault>;

/// One row of the registry.
pub struct Directive {
    pub name: &'static str,
    /// The older name, which does the same.
    pub alias: Option<&'static str>,
    pub flags: Flags,
    pub(super) assign: Assign,
    pub(super) show: fn(&Config) -> Vec<u8>,
    pub(super) lines: fn(&Config) -> Vec<Vec<u8>>,
    pub(super) same: fn(&Config, &Config) -> bool,
}

macro_rules! flag_set {
    () => { Flags::empty() };
    ($($flag:ident)|+) => { Flags::empty()$(.union(Flags::$flag))+ };
}

macro_rules! alias_of {
    () => {
        None
    };
    ($alias:literal) => {
        Some($alias)
    };
}

macro_rules! directives {
    ($($field:ident: $ty:ty = $default:expr, $name:literal $(/ $alias:literal)?, $rule:expr $(, $($flag:ident)|+)?;)+) => {
        /// Every setting, typed. Cheap to share: workers hold an `Arc` of it and re-read it when
        /// [`ConfigStore::generation`](super::ConfigStore::generation) moves.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config {
            $(#[doc = concat!("`", $name, "`")] pub $field: $ty,)+
        }

        impl Default for Config {
            fn default() -> Self {
                Config { $($field: $default,)+ }
            }
        }

        /// Every directive, sorted by name, the hidden ones last.
        pub static DIRECTIVES: &[Directive] = &[$(Directive {
            name: $name,
            alias: alias_of!($($alias)?),
            flags: flag_set!($($($flag)|+)?),
            assign: |config, args, source| Setting::assign(&mut config.$field, &$rule, args, source),
            show: |config| Setting::show(&config.$field),
            lines: |config| Setting::lines(&config.$field, &$rule),
            same: |a, b| a.$field == b.$field,
        },)+];
    };
}

const NO_DEFRAG: BoolRule = BoolRule {
    refuse_yes: Some(
        "Active defragmentation cannot be enabled: it requires a server compiled with a modified Jemalloc like \
         the one shipped by default with the source distribution",
    ),
};

fn no_rdma(port: i128) -> Result<i128, &'static str> {
    if port == 0 { Ok(port) } else { Err(checks::NO_RDMA) }
}

/// The CPUs that the cgroup's quota and the affinity mask grant this process: one worker each.
fn granted_cpus() -> u64 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u64).clamp(1, 256)
}

fn working_directory() -> Vec<u8> {
    use std::os::unix::ffi::OsStringExt;
    std::env::current_dir().map(|dir| dir.into_os_string().into_vec()).unwrap_or_default()
}

directives! {
    acl_pubsub_default: AclPubsubDefault = AclPubsubDefault::ResetChannels, "acl-pubsub-default", Any;
    aclfile: Vec<u8> = Vec::new(), "aclfile", TEXT, IMMUTABLE;
    acllog_max_len: u64 = 128, "acllog-max-len", int(0, I64_MAX);
    active_defrag_cycle_max: u64 = 25, "active-defrag-cycle-max", int(1, 99);
    active_defrag_cycle_min: u64 = 1, "active-defrag-cycle-min", int(1, 99);
    active_defrag_cycle_us: u64 = 500, "active-defrag-cycle-us", int(0, 100_000);
    active_defrag_ignore_bytes: u64 = 104_857_600, "active-defrag-ignore-bytes", mem(1, I64_MAX);
    active_defrag_max_scan_fields: u64 = 1000, "active-defrag-max-scan-fields", int(1, I64_MAX);
    active_defrag_threshold_lower: u64 = 10, "active-defrag-threshold-lower", int(0, 1000);
    active_defrag_threshold_upper: u64 = 100, "active-defrag-threshold-upper", int(0, 1000);
    active_expire_effort: u64 = 1, "active-expire-effort", int(1, 10);
    activedefrag: bool = false, "activedefrag", NO_DEFRAG, DEBUG;
    activerehashing: bool = true, "activerehashing", SWITCH;
    always_show_logo: bool = false, "always-show-logo", SWITCH, IMMUTABLE;
    aof_load_truncated: bool = true, "aof-load-truncated", SWITCH;
    aof_rewrite_cpulist: Vec<u8> = Vec::new(), "aof-rewrite-cpulist" / "aof_rewrite_cpulist", OPTIONAL, IMMUTABLE;
    aof_rewrite_incremental_fsync: bool = true, "aof-rewrite-incremental-fsync", SWITCH;
    aof_timestamp_enabled: bool = false, "aof-timestamp-enabled", SWITCH;
    aof_use_rdb_preamble: bool = true, "aof-use-rdb-preamble", SWITCH;
    appenddirname: Vec<u8> = b"appendonlydir".to_vec(), "appenddirname", checked(false, checks::appenddirname), IMMUTABLE;
    appendfilename: Vec<u8> = b"appendonly.aof".to_vec(), "appendfilename", checked(false, checks::appendfilename), IMMUTABLE;
    appendfsync: AppendFsync = AppendFsync::EverySec, "appendfsync", Any;
    appendonly: bool = false, "appendonly", SWITCH, DENY_LOADING;
    auto_aof_rewrite_min_size: u64 = 67_108_864, "auto-aof-rewrite-min-size", mem(0, I64_MAX);
    auto_aof_rewrite_percentage: u64 = 100, "auto-aof-rewrite-percentage", int(0, I32_MAX);
    availability_zone: Vec<u8> = Vec::new(), "availability-zone", TEXT;
    bgsave_cpulist: Vec<u8> = Vec::new(), "bgsave-cpulist" / "bgsave_cpulist", OPTIONAL, IMMUTABLE;
    bind: BindAddresses = BindAddresses::default(), "bind", Any, MULTI_ARG;
    bind_source_addr: Vec<u8> = Vec::new(), "bind-source-addr", OPTIONAL;
    bio_cpulist: Vec<u8> = Vec::new(), "bio-cpulist" / "bio_cpulist", OPTIONAL, IMMUTABLE;
    busy_reply_threshold: u64 = 5000, "busy-reply-threshold" / "lua-time-limit", int(0, I64_MAX);
    client_output_buffer_limit: OutputBufferLimits = OutputBufferLimits::default(), "client-output-buffer-limit", Any, MULTI_ARG;
    client_query_buffer_limit: u64 = 1_073_741_824, "client-query-buffer-limit", mem(1_048_576, I64_MAX), DEBUG;
    cluster_allow_pubsubshard_when_down: bool = true, "cluster-allow-pubsubshard-when-down", SWITCH;
    cluster_allow_reads_when_down: bool = false, "cluster-allow-reads-when-down", SWITCH;
    cluster_allow_replica_migration: bool = true, "cluster-allow-replica-migration", SWITCH;
    cluster_announce_bus_port: u16 = 0, "cluster-announce-bus-port", int(0, 65_535);
    cluster_announce_client_ipv4: Vec<u8> = Vec::new(), "cluster-announce-client-ipv4", checked(true, checks::ipv4);
    cluster_announce_client_ipv6: Vec<u8> = Vec::new(), "cluster-announce-client-ipv6", checked(true, checks::ipv6);
    cluster_announce_client_port: u16 = 0, "cluster-announce-client-port", int(0, 65_535);
    cluster_announce_client_tls_port: u16 = 0, "cluster-announce-client-tls-port", int(0, 65_535);
    cluster_announce_hostname: Vec<u8> = Vec::new(), "cluster-announce-hostname", checked(true, checks::hostname);
    cluster_announce_human_nodename: Vec<u8> = Vec::new(), "cluster-announce-human-nodename", checked(true, checks::human_nodename);
    cluster_announce_ip: Vec<u8> = Vec::new(), "cluster-announce-ip", checked(true, checks::announce_ip);
    cluster_announce_port: u16 = 0, "cluster-announce-port", int(0, 65_535);
    cluster_announce_tls_port: u16 = 0, "cluster-announce-tls-port", int(0, 65_535);
    cluster_blacklist_ttl: i64 = 60, "cluster-blacklist-ttl", int(i64::MIN as i128, I64_MAX);
    cluster_config_file: Vec<u8> = b"nodes.conf".to_vec(), "cluster-config-file", TEXT, IMMUTABLE;
    cluster_config_save_behavior: ClusterConfigSave = ClusterConfigSave::Sync, "cluster-config-save-behavior", Any;
    cluster_databases: u64 = 1, "cluster-databases", int(1, I32_MAX), IMMUTABLE;
    cluster_enabled: bool = false, "cluster-enabled", SWITCH, IMMUTABLE;
    cluster_link_sendbuf_limit: u64 = 0, "cluster-link-sendbuf-limit", mem(0, u64::MAX as i128);
    cluster_manual_failover_timeout: u64 = 5000, "cluster-manual-failover-timeout", int(1, I32_MAX);
    cluster_migration_barrier: u64 = 1, "cluster-migration-barrier", int(0, I32_MAX);
    cluster_node_timeout: u64 = 15_000, "cluster-node-timeout", int(0, I64_MAX);
    cluster_port: u16 = 0, "cluster-port", int(0, 65_535), IMMUTABLE;
    cluster_preferred_endpoint_type: EndpointType = EndpointType::Ip, "cluster-preferred-endpoint-type", Any;
    cluster_replica_no_failover: bool = false, "cluster-replica-no-failover" / "cluster-slave-no-failover", SWITCH;
    cluster_replica_validity_factor: u64 = 10, "cluster-replica-validity-factor" / "cluster-slave-validity-factor", int(0, I32_MAX);
    cluster_require_full_coverage: bool = true, "cluster-require-full-coverage", SWITCH;
    cluster_slot_migration_log_max_len: u64 = 1000, "cluster-slot-migration-log-max-len", int(0, I64_MAX);
    cluster_slot_stats_enabled: bool = false, "cluster-slot-stats-enabled", SWITCH;
    commandlog_execution_slower_than: i64 = 10_000, "commandlog-execution-slower-than" / "slowlog-log-slower-than", int(-1, I64_MAX);
    commandlog_large_reply_max_len: u64 = 128, "commandlog-large-reply-max-len", int(0, I64_MAX);
    commandlog_large_request_max_len: u64 = 128, "commandlog-large-request-max-len", int(0, I64_MAX);
    commandlog_reply_larger_than: i64 = 1_048_576, "commandlog-reply-larger-than", int(-1, I64_MAX);
    commandlog_request_larger_than: i64 = 1_048_576, "commandlog-request-larger-than", int(-1, I64_MAX);
    commandlog_slow_execution_max_len: u64 = 128, "commandlog-slow-execution-max-len" / "slowlog-max-len", int(0, I64_MAX);
    crash_log_enabled: bool = true, "crash-log-enabled", SWITCH;
    crash_memcheck_enabled: bool = true, "crash-memcheck-enabled", SWITCH;
    daemonize: bool = false, "daemonize", SWITCH, IMMUTABLE;
    databases: u64 = 16, "databases", int(1, I32_MAX), IMMUTABLE;
    dbfilename: Vec<u8> = b"dump.rdb".to_vec(), "dbfilename", checked(false, checks::dbfilename), PROTECTED;
    dir: Vec<u8> = working_directory(), "dir", checked(false, checks::dir), PROTECTED | DENY_LOADING;
    disable_thp: bool = true, "disable-thp", SWITCH, IMMUTABLE;
    dual_channel_replication_enabled: bool = false, "dual-channel-replication-enabled", SWITCH, DEBUG;
    enable_debug_command: Access = Access::No, "enable-debug-command", Any, IMMUTABLE;
    enable_module_command: Access = Access::No, "enable-module-command", Any, IMMUTABLE;
    enable_protected_configs: Access = Access::No, "enable-protected-configs", Any, IMMUTABLE;
    extended_redis_compatibility: bool = false, "extended-redis-compatibility", SWITCH;
    hash_max_listpack_entries: u64 = 512, "hash-max-listpack-entries" / "hash-max-ziplist-entries", int(0, I64_MAX);
    hash_max_listpack_value: u64 = 64, "hash-max-listpack-value" / "hash-max-ziplist-value", mem(0, I64_MAX);
    hash_seed: Vec<u8> = Vec::new(), "hash-seed", OPTIONAL, IMMUTABLE;
    hide_user_data_from_log: bool = true, "hide-user-data-from-log", SWITCH;
    hll_sparse_max_bytes: u64 = 3000, "hll-sparse-max-bytes", mem(0, I64_MAX);
    hz: u64 = 10, "hz", settled(int(0, I32_MAX), |hz| Ok(hz.clamp(1, 500)));
    ignore_warnings: Vec<u8> = Vec::new(), "ignore-warnings", TEXT;
    import_mode: bool = false, "import-mode", SWITCH, DEBUG;
    io_threads: u64 = granted_cpus(), "io-threads", int(1, 256), DEBUG;
    jemalloc_bg_thread: bool = true, "jemalloc-bg-thread", SWITCH;
    latency_monitor_threshold: u64 = 0, "latency-monitor-threshold", int(0, I64_MAX);
    latency_tracking: bool = true, "latency-tracking", SWITCH;
    latency_tracking_info_percentiles: Percentiles = Percentiles::default(), "latency-tracking-info-percentiles", Any, MULTI_ARG;
    lazyfree_lazy_eviction: bool = true, "lazyfree-lazy-eviction", SWITCH, DEBUG;
    lazyfree_lazy_expire: bool = true, "lazyfree-lazy-expire", SWITCH, DEBUG;
    lazyfree_lazy_server_del: bool = true, "lazyfree-lazy-server-del", SWITCH, DEBUG;
    lazyfree_lazy_user_del: bool = true, "lazyfree-lazy-user-del", SWITCH, DEBUG;
    lazyfree_lazy_user_flush: bool = true, "lazyfree-lazy-user-flush", SWITCH, DEBUG;
    lfu_decay_time: u64 = 1, "lfu-decay-time", int(0, I32_MAX);
    lfu_log_factor: u64 = 10, "lfu-log-factor", int(0, I32_MAX);
    list_compress_depth: u64 = 0, "list-compress-depth", int(0, I32_MAX), DEBUG;
    list_max_listpack_size: i32 = -2, "list-max-listpack-size" / "list-max-ziplist-size", int(i32::MIN as i128, I32_MAX);
    locale_collate: Vec<u8> = Vec::new(), "locale-collate", checked(false, checks::locale);
    log_format: LogFormat = LogFormat::Legacy, "log-format", Any;
    log_timestamp_format: LogTimestamp = LogTimestamp::Legacy, "log-timestamp-format", Any;
    logfile: Vec<u8> = Vec::new(), "logfile", TEXT, IMMUTABLE;
    loglevel: LogLevel = LogLevel::Notice, "loglevel", Any;
    max_new_connections_per_cycle: u64 = 10, "max-new-connections-per-cycle", int(1, 1000);
    max_new_tls_connections_per_cycle: u64 = 1, "max-new-tls-connections-per-cycle", int(1, 1000);
    maxclients: u64 = 10_000, "maxclients", int(1, u32::MAX as i128);
    maxmemory: u64 = 0, "maxmemory", mem_share();
    maxmemory_clients: ClientsMemory = ClientsMemory::Bytes(0), "maxmemory-clients", Any;
    maxmemory_eviction_tenacity: u64 = 10, "maxmemory-eviction-tenacity", int(0, 100);
    maxmemory_policy: MaxmemoryPolicy = MaxmemoryPolicy::NoEviction, "maxmemory-policy", Any;
    maxmemory_samples: u64 = 5, "maxmemory-samples", int(1, 64);
    min_replicas_max_lag: u64 = 10, "min-replicas-max-lag" / "min-slaves-max-lag", int(0, I32_MAX);
    min_replicas_to_write: u64 = 0, "min-replicas-to-write" / "min-slaves-to-write", int(0, I32_MAX);
    mptcp: bool = false, "mptcp", SWITCH, IMMUTABLE;
    no_appendfsync_on_rewrite: bool = false, "no-appendfsync-on-rewrite", SWITCH;
    notify_keyspace_events: NotifyFlags = NotifyFlags::empty(), "notify-keyspace-events", Any;
    oom_score_adj: OomScoreAdj = OomScoreAdj::No, "oom-score-adj", Any;
    oom_score_adj_values: OomScores = OomScores([0, 200, 800]), "oom-score-adj-values", Any, MULTI_ARG;
    pidfile: Vec<u8> = Vec::new(), "pidfile", OPTIONAL, IMMUTABLE;
    port: u16 = 6379, "port", int(0, 65_535);
    prefetch_batch_max_size: u64 = 16, "prefetch-batch-max-size", int(0, 128);
    primaryauth: Vec<u8> = Vec::new(), "primaryauth" / "masterauth", OPTIONAL, SENSITIVE;
    primaryuser: Vec<u8> = Vec::new(), "primaryuser" / "masteruser", OPTIONAL, SENSITIVE;
    proc_title_template: Vec<u8> = b"{title} {listen-addr} {server-mode}".to_vec(), "proc-title-template", checked(false, checks::proc_title);
    propagation_error_behavior: PropagationError = PropagationError::Ignore, "propagation-error-behavior", Any;
    protected_mode: bool = true, "protected-mode", SWITCH;
    proto_max_bulk_len: u64 = 536_870_912, "proto-max-bulk-len", mem(1_048_576, I64_MAX), DEBUG;
    rdb_del_sync_files: bool = false, "rdb-del-sync-files", SWITCH;
    rdb_save_incremental_fsync: bool = true, "rdb-save-incremental-fsync", SWITCH;
    rdb_version_check: RdbVersionCheck = RdbVersionCheck::Strict, "rdb-version-check", Any;
    rdbchecksum: bool = true, "rdbchecksum", SWITCH, IMMUTABLE;
    rdbcompression: bool = true, "rdbcompression", SWITCH;
    rdma_bind: Vec<u8> = Vec::new(), "rdma-bind", checked(true, checks::no_rdma_bind);
    rdma_completion_vector: i32 = -1, "rdma-completion-vector", int(-1, 1024), IMMUTABLE;
    rdma_port: u16 = 0, "rdma-port", settled(int(0, 65_535), no_rdma);
    rdma_rx_size: u64 = 1_048_576, "rdma-rx-size", int(65_536, 16_777_216), IMMUTABLE;
    repl_backlog_size: u64 = 10_485_760, "repl-backlog-size", settled(mem(1, I64_MAX), |size| Ok(size.max(16 * 1024)));
    repl_backlog_ttl: u64 = 3600, "repl-backlog-ttl", int(0, I64_MAX);
    repl_disable_tcp_nodelay: bool = false, "repl-disable-tcp-nodelay", SWITCH;
    repl_diskless_load: DisklessLoad = DisklessLoad::Disabled, "repl-diskless-load", Any, DEBUG | DENY_LOADING;
    repl_diskless_sync: bool = true, "repl-diskless-sync", SWITCH, DEBUG;
    repl_diskless_sync_delay: u64 = 5, "repl-diskless-sync-delay", int(0, I32_MAX);
    repl_diskless_sync_max_replicas: u64 = 0, "repl-diskless-sync-max-replicas", int(0, I32_MAX);
    repl_mptcp: bool = false, "repl-mptcp", SWITCH, IMMUTABLE;
    repl_ping_replica_period: u64 = 10, "repl-ping-replica-period" / "repl-ping-slave-period", int(1, I32_MAX);
    repl_timeout: u64 = 60, "repl-timeout", int(1, I32_MAX);
    replica_announce_ip: Vec<u8> = Vec::new(), "replica-announce-ip" / "slave-announce-ip", OPTIONAL;
    replica_announce_port: u16 = 0, "replica-announce-port" / "slave-announce-port", int(0, 65_535);
    replica_announced: bool = true, "replica-announced", SWITCH;
    replica_ignore_disk_write_errors: bool = false, "replica-ignore-disk-write-errors", SWITCH;
    replica_ignore_maxmemory: bool = true, "replica-ignore-maxmemory" / "slave-ignore-maxmemory", SWITCH;
    replica_lazy_flush: bool = true, "replica-lazy-flush" / "slave-lazy-flush", SWITCH;
    replica_priority: u64 = 100, "replica-priority" / "slave-priority", int(0, I32_MAX);
    replica_read_only: bool = true, "replica-read-only" / "slave-read-only", SWITCH, DEBUG;
    replica_serve_stale_data: bool = true, "replica-serve-stale-data" / "slave-serve-stale-data", SWITCH;
    replicaof: ReplicaOf = ReplicaOf::default(), "replicaof" / "slaveof", Any, IMMUTABLE | MULTI_ARG;
    requirepass: Vec<u8> = Vec::new(), "requirepass", OPTIONAL, SENSITIVE;
    save: SavePoints = SavePoints::default(), "save", Any, MULTI_ARG;
    server_cpulist: Vec<u8> = Vec::new(), "server-cpulist" / "server_cpulist", OPTIONAL, IMMUTABLE;
    set_max_intset_entries: u64 = 512, "set-max-intset-entries", int(0, I64_MAX);
    set_max_listpack_entries: u64 = 128, "set-max-listpack-entries", int(0, I64_MAX);
    set_max_listpack_value: u64 = 64, "set-max-listpack-value", int(0, I64_MAX);
    set_proc_title: bool = true, "set-proc-title", SWITCH, IMMUTABLE;
    shutdown_on_sigint: ShutdownFlags = ShutdownFlags::empty(), "shutdown-on-sigint", Any, MULTI_ARG;
    shutdown_on_sigterm: ShutdownFlags = ShutdownFlags::empty(), "shutdown-on-sigterm", Any, MULTI_ARG;
    shutdown_timeout: u64 = 10, "shutdown-timeout", int(0, I32_MAX);
    slot_migration_max_failover_repl_bytes: i64 = 0, "slot-migration-max-failover-repl-bytes", mem(-1, I64_MAX);
    socket_mark_id: u64 = 0, "socket-mark-id", int(0, u32::MAX as i128), IMMUTABLE;
    stop_writes_on_bgsave_error: bool = true, "stop-writes-on-bgsave-error", SWITCH;
    stream_node_max_bytes: u64 = 4096, "stream-node-max-bytes", mem(0, I64_MAX);
    stream_node_max_entries: u64 = 100, "stream-node-max-entries", int(0, I64_MAX);
    supervised: Supervised = Supervised::No, "supervised", Any, IMMUTABLE;
    syslog_enabled: bool = false, "syslog-enabled", SWITCH, IMMUTABLE;
    syslog_facility: SyslogFacility = SyslogFacility::Local0, "syslog-facility", Any, IMMUTABLE;
    syslog_ident: Vec<u8> = b"valkey".to_vec(), "syslog-ident", TEXT, IMMUTABLE;
    tcp_backlog: u64 = 511, "tcp-backlog", int(0, I32_MAX), IMMUTABLE;
    tcp_keepalive: u64 = 300, "tcp-keepalive", int(0, I32_MAX);
    timeout: u64 = 0, "timeout", int(0, I32_MAX);
    tls_auth_clients: TlsAuthClients = TlsAuthClients::Yes, "tls-auth-clients", Any;
    tls_auth_clients_user: TlsClientUser = TlsClientUser::Off, "tls-auth-clients-user", Any;
    tls_auto_reload_interval: u64 = 0, "tls-auto-reload-interval", int(0, I32_MAX);
    tls_ca_cert_dir: Vec<u8> = Vec::new(), "tls-ca-cert-dir", OPTIONAL;
    tls_ca_cert_file: Vec<u8> = Vec::new(), "tls-ca-cert-file", OPTIONAL;
    tls_cert_file: Vec<u8> = Vec::new(), "tls-cert-file", OPTIONAL;
    tls_ciphers: Vec<u8> = Vec::new(), "tls-ciphers", OPTIONAL;
    tls_ciphersuites: Vec<u8> = Vec::new(), "tls-ciphersuites", OPTIONAL;
    tls_client_cert_file: Vec<u8> = Vec::new(), "tls-client-cert-file", OPTIONAL;
    tls_client_key_file: Vec<u8> = Vec::new(), "tls-client-key-file", OPTIONAL;
    tls_client_key_file_pass: Vec<u8> = Vec::new(), "tls-client-key-file-pass", OPTIONAL, SENSITIVE;
    tls_cluster: bool = false, "tls-cluster", SWITCH;
    tls_dh_params_file: Vec<u8> = Vec::new(), "tls-dh-params-file", OPTIONAL;
    tls_key_file: Vec<u8> = Vec::new(), "tls-key-file", OPTIONAL;
    tls_key_file_pass: Vec<u8> = Vec::new(), "tls-key-file-pass", OPTIONAL, SENSITIVE;
    tls_port: u16 = 0, "tls-port", int(0, 65_535);
    tls_prefer_server_ciphers: bool = false, "tls-prefer-server-ciphers", SWITCH;
    tls_protocols: Vec<u8> = Vec::new(), "tls-protocols", OPTIONAL;
    tls_replication: bool = false, "tls-replication", SWITCH;
    tls_session_cache_size: u64 = 20_480, "tls-session-cache-size", int(0, I32_MAX);
    tls_session_cache_timeout: u64 = 300, "tls-session-cache-timeout", int(0, I32_MAX);
    tls_session_caching: bool = true, "tls-session-caching", SWITCH;
    tracking_table_max_keys: u64 = 1_000_000, "tracking-table-max-keys", int(0, I64_MAX);
    unixsocket: Vec<u8> = Vec::new(), "unixsocket", OPTIONAL, IMMUTABLE;
    unixsocketgroup: Vec<u8> = Vec::new(), "unixsocketgroup", OPTIONAL, IMMUTABLE;
    unixsocketperm: FileMode = FileMode(0), "unixsocketperm", Any, IMMUTABLE;
    zset_max_listpack_entries: u64 = 128, "zset-max-listpack-entries" / "zset-max-ziplist-entries", int(0, I64_MAX);
    zset_max_listpack_value: u64 = 64, "zset-max-listpack-value" / "zset-max-ziplist-value", mem(0, I64_MAX);
    aof_disable_auto_gc: bool = false, "aof-disable-auto-gc", SWITCH, HIDDEN;
    cluster_message_gossip_perc: u64 = 10, "cluster-message-gossip-perc", int(1, 100), HIDDEN;
    cluster_ping_interval: u64 = 0, "cluster-ping-interval", int(0, I64_MAX), HIDDEN;
    debug_context: Vec<u8> = Vec::new(), "debug-context", TEXT, HIDDEN | DEBUG;
    enable_debug_assert: bool = false, "enable-debug-assert", SWITCH, HIDDEN | IMMUTABLE;
    io_threads_always_active: bool = false, "io-threads-always-active", SWITCH, HIDDEN;
    key_load_delay: i32 = 0, "key-load-delay", int(i32::MIN as i128, I32_MAX), HIDDEN;
    loading_process_events_interval_bytes: u64 = 2_097_152, "loading-process-events-interval-bytes", int(1024, I32_MAX), HIDDEN;
    lua_enable_deprecated_api: bool = false, "lua-enable-deprecated-api", SWITCH, HIDDEN;
    lua_enable_insecure_api: bool = false, "lua-enable-insecure-api", SWITCH, HIDDEN;
    metrics_bind: BindAddresses = BindAddresses(Vec::new()), "metrics-bind", Any, MULTI_ARG | HIDDEN;
    metrics_port: u16 = 0, "metrics-port", int(0, 65_535), HIDDEN;
    min_io_threads_avoid_copy_reply: u64 = 7, "min-io-threads-avoid-copy-reply", int(0, I32_MAX), HIDDEN;
    min_string_size_avoid_copy_reply: u64 = 16_384, "min-string-size-avoid-copy-reply", int(0, I32_MAX), HIDDEN;
    min_string_size_avoid_copy_reply_threaded: u64 = 65_536, "min-string-size-avoid-copy-reply-threaded", int(0, I32_MAX), HIDDEN;
    rdb_key_save_delay: i32 = 0, "rdb-key-save-delay", int(i32::MIN as i128, I32_MAX), HIDDEN;
    use_exit_on_panic: bool = false, "use-exit-on-panic", SWITCH, HIDDEN;
    watchdog_period: u64 = 0, "watchdog-period", settled(int(0, I32_MAX), |ms| Ok(if ms == 0 { 0 } else { ms.max(200) })), HIDDEN;
}
