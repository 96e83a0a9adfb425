//! Which directives change something. The others are parsed, stored and shown, but have no effect yet: whoever makes
//! one work adds its name here, and the list of gaps shrinks by itself.

use super::DIRECTIVES;

/// Directives whose value something acts on (INFO showing it isn't enough).
const IN_EFFECT: &[&str] = &[
    "active-expire-effort",
    "always-show-logo",
    "aof-load-truncated",
    "aof-timestamp-enabled",
    "aof-use-rdb-preamble",
    "appenddirname",
    "appendfilename",
    "appendfsync",
    "appendonly",
    "auto-aof-rewrite-min-size",
    "auto-aof-rewrite-percentage",
    "availability-zone",
    "bind",
    "client-output-buffer-limit",
    "client-query-buffer-limit",
    "commandlog-execution-slower-than",
    "commandlog-large-reply-max-len",
    "commandlog-large-request-max-len",
    "commandlog-reply-larger-than",
    "commandlog-request-larger-than",
    "commandlog-slow-execution-max-len",
    "crash-log-enabled",
    "daemonize",
    "databases",
    "dbfilename",
    "dir",
    "disable-thp",
    "enable-debug-command",
    "enable-module-command",
    "enable-protected-configs",
    "extended-redis-compatibility",
    "hash-max-listpack-entries",
    "hash-max-listpack-value",
    "hash-seed",
    "hll-sparse-max-bytes",
    "hz",
    "import-mode",
    "io-threads",
    "key-load-delay",
    "latency-monitor-threshold",
    "latency-tracking",
    "latency-tracking-info-percentiles",
    "lazyfree-lazy-expire",
    "lazyfree-lazy-server-del",
    "lazyfree-lazy-user-del",
    "lazyfree-lazy-user-flush",
    "lfu-decay-time",
    "lfu-log-factor",
    "list-compress-depth",
    "list-max-listpack-size",
    "log-format",
    "log-timestamp-format",
    "logfile",
    "loglevel",
    "maxclients",
    "maxmemory-policy",
    "no-appendfsync-on-rewrite",
    "notify-keyspace-events",
    "oom-score-adj",
    "oom-score-adj-values",
    "pidfile",
    "port",
    "proc-title-template",
    "protected-mode",
    "proto-max-bulk-len",
    "rdb-key-save-delay",
    "rdb-save-incremental-fsync",
    "rdb-version-check",
    "rdbchecksum",
    "rdbcompression",
    "requirepass",
    "save",
    "set-max-intset-entries",
    "set-max-listpack-entries",
    "set-max-listpack-value",
    "set-proc-title",
    "shutdown-on-sigint",
    "shutdown-on-sigterm",
    "stop-writes-on-bgsave-error",
    "stream-node-max-bytes",
    "stream-node-max-entries",
    "supervised",
    "syslog-enabled",
    "syslog-facility",
    "syslog-ident",
    "tcp-backlog",
    "tcp-keepalive",
    "timeout",
    "tracking-table-max-keys",
    "unixsocket",
    "unixsocketperm",
    "zset-max-listpack-entries",
    "zset-max-listpack-value",
];

/// The names whose value has no effect yet, in the table's order.
pub fn without_effect() -> Vec<&'static str> {
    DIRECTIVES.iter().map(|d| d.name).filter(|name| !IN_EFFECT.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_main_names_in_order() {
        assert!(IN_EFFECT.is_sorted());
        for name in IN_EFFECT {
            assert!(DIRECTIVES.iter().any(|directive| directive.name == *name), "{name}");
        }
    }
}
