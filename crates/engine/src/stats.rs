//! Counters behind INFO: each worker adds to its own (plain loads and stores, no contention), readers sum up.

use crate::registry::CommandId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// A counter that one thread writes and any thread reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owning worker calls this.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The value as last written.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Starts over (CONFIG RESETSTAT).
    pub fn reset(&self) {
        self.0.store(0, Relaxed);
    }
}

/// Buckets of the latency histogram: powers of two of nanoseconds, eight steps in each.
pub const LATENCY_BUCKETS: usize = 40 * 8;

/// The bucket of a duration.
#[inline]
pub fn latency_bucket(ns: u64) -> usize {
    let ns = ns.max(8);
    let log = 63 - ns.leading_zeros() as usize;
    (((log - 3) * 8) + ((ns >> (log - 3)) & 7) as usize).min(LATENCY_BUCKETS - 1)
}

/// The largest duration (ns) that falls into a bucket.
pub fn latency_bucket_end_ns(bucket: usize) -> u64 {
    let log = bucket / 8 + 3;
    let step = (bucket % 8) as u64;
    ((8 + step + 1) << (log - 3)) - 1
}

/// One command's figures on one worker.
#[derive(Debug)]
pub struct CommandStats {
    pub calls: Counter,
    pub ns: Counter,
    pub rejected: Counter,
    pub failed: Counter,
    /// Allocated with the first call, so that commands that never run cost nothing.
    pub latency: std::sync::OnceLock<Box<[Counter]>>,
}

impl CommandStats {
    fn new() -> Self {
        CommandStats {
            calls: Counter::default(),
            ns: Counter::default(),
            rejected: Counter::default(),
            failed: Counter::default(),
            latency: std::sync::OnceLock::new(),
        }
    }

    /// Counts one call.
    #[inline]
    pub fn record(&self, ns: u64, latency_tracking: bool) {
        self.calls.add(1);
        self.ns.add(ns);
        if latency_tracking {
            let buckets =
                self.latency.get_or_init(|| (0..LATENCY_BUCKETS).map(|_| Counter::default()).collect());
            buckets[latency_bucket(ns)].add(1);
        }
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One worker's counters.
        #[derive(Debug)]
        pub struct WorkerStats {
            $($(#[$doc])* pub $name: Counter,)*
            commands: Box<[CommandStats]>,
        }

        /// The sums over all workers.
        #[derive(Debug, Default, Clone)]
        pub struct Totals { $(pub $name: u64,)* }

        impl WorkerStats {
            fn new(commands: usize) -> Self {
                WorkerStats {
                    $($name: Counter::default(),)*
                    commands: (0..commands).map(|_| CommandStats::new()).collect(),
                }
            }

            fn reset(&self) {
                $(self.$name.reset();)*
                for command in &self.commands {
                    command.calls.reset();
                    command.ns.reset();
                    command.rejected.reset();
                    command.failed.reset();
                    for bucket in command.latency.get().into_iter().flatten() {
                        bucket.reset();
                    }
                }
            }

            fn add_to(&self, totals: &mut Totals) {
                $(totals.$name += self.$name.get();)*
            }
        }
    };
}

counters! {
    connections_received,
    rejected_connections,
    commands_processed,
    net_input_bytes,
    net_output_bytes,
    keyspace_hits,
    keyspace_misses,
    expired_keys,
    expired_fields,
    evicted_keys,
    evicted_clients,
    evicted_scripts,
    error_replies,
    unexpected_error_replies,
    reads_processed,
    writes_processed,
    query_buffer_disconnections,
    output_buffer_disconnections,
    reply_buffer_shrinks,
    reply_buffer_expands,
    eventloop_cycles,
    eventloop_ns,
    eventloop_command_ns,
    acl_denied_auth,
    acl_denied_cmd,
    acl_denied_key,
    acl_denied_channel,
    acl_denied_db,
    active_ns,
    expire_cycle_ns,
    expired_time_cap_reached,
    changes,
}

impl WorkerStats {
    /// The figures of one command.
    #[inline]
    pub fn command(&self, id: CommandId) -> &CommandStats {
        &self.commands[id.0 as usize]
    }
}

/// One command's figures, summed.
#[derive(Clone, Debug, Default)]
pub struct CommandTotals {
    pub calls: u64,
    pub ns: u64,
    pub rejected: u64,
    pub failed: u64,
    /// Empty where latency was never tracked.
    pub latency: Vec<u64>,
}

/// Beyond this many different error codes, those that scripts make up are counted together.
const MAX_SCRIPT_CODES: usize = 128;
const OVERFLOW: &str = "ERRORSTATS_OVERFLOW";
/// The server's own are far fewer than this.
const MAX_ERROR_CODES: usize = 1024;

/// All counters.
#[derive(Debug)]
pub struct Stats {
    workers: Box<[crossbeam_utils::CachePadded<WorkerStats>]>,
    /// Replies by error code, for INFO's errorstats.
    errors: Mutex<BTreeMap<String, u64>>,
    /// Highest `used_memory` seen, bytes.
    pub peak_memory: AtomicU64,
    /// When the peak was reached, Unix seconds.
    pub peak_memory_at_s: AtomicI64,
}

impl Stats {
    /// Counters for `workers` threads and `commands` commands.
    pub fn new(workers: usize, commands: usize) -> Self {
        Stats {
            workers: (0..workers).map(|_| WorkerStats::new(commands).into()).collect(),
            errors: Mutex::default(),
            peak_memory: AtomicU64::new(0),
            peak_memory_at_s: AtomicI64::new(0),
        }
    }

    /// One worker's own counters.
    #[inline]
    pub fn worker(&self, worker: usize) -> &WorkerStats {
        &self.workers[worker]
    }

    /// The sums.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.workers.iter().for_each(|w| w.add_to(&mut totals));
        totals
    }

    /// Changes of the data, of all workers.
    pub fn changes(&self) -> u64 {
        self.workers.iter().map(|w| w.changes.get()).sum()
    }

    /// Commands that were run, by all workers.
    pub fn commands(&self) -> u64 {
        self.workers.iter().map(|w| w.commands_processed.get()).sum()
    }

    /// One command's sums.
    pub fn command_totals(&self, id: CommandId) -> CommandTotals {
        let mut sum = CommandTotals::default();
        for stats in self.workers.iter().map(|w| w.command(id)) {
            sum.calls += stats.calls.get();
            sum.ns += stats.ns.get();
            sum.rejected += stats.rejected.get();
            sum.failed += stats.failed.get();
            if let Some(buckets) = stats.latency.get() {
                sum.latency.resize(LATENCY_BUCKETS, 0);
                for (to, from) in sum.latency.iter_mut().zip(buckets) {
                    *to += from.get();
                }
            }
        }
        sum
    }

    /// Counts an error reply by its code (`ERR`, `WRONGTYPE`, ...).
    pub fn count_error(&self, message: &[u8]) {
        self.count_code(message, MAX_ERROR_CODES);
    }

    /// Counts an error reply that a script made up.
    pub fn count_script_error(&self, message: &[u8]) {
        self.count_code(message, MAX_SCRIPT_CODES);
    }

    fn count_code(&self, message: &[u8], most: usize) {
        let code = message.split(|byte| matches!(byte, b' ' | b'\r' | b'\n')).next().unwrap_or_default();
        let code = String::from_utf8_lossy(code);
        let code = code.as_ref();
        let mut errors = self.errors.lock();
        if let Some(count) = errors.get_mut(code) {
            *count += 1;
        } else if errors.len() < most {
            errors.insert(code.to_string(), 1);
        } else {
            *errors.entry(OVERFLOW.to_string()).or_default() += 1;
        }
    }

    /// Error replies by code.
    pub fn errors(&self) -> BTreeMap<String, u64> {
        self.errors.lock().clone()
    }

    /// CONFIG RESETSTAT. A worker in the middle of an addition may keep its old count once.
    pub fn reset(&self) {
        self.workers.iter().for_each(|w| w.reset());
        self.errors.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_buckets_cover_and_order_all_durations() {
        let mut last = 0;
        for shift in 0..50 {
            for ns in [1u64 << shift, (1u64 << shift) + 1, (3u64 << shift) / 2] {
                let bucket = latency_bucket(ns);
                if bucket < LATENCY_BUCKETS - 1 {
                    assert!(latency_bucket_end_ns(bucket) >= ns.max(8), "{ns}");
                    assert!(bucket == 0 || latency_bucket_end_ns(bucket - 1) < ns.max(8), "{ns}");
                }
                last = last.max(bucket);
            }
        }
        assert_eq!(last, LATENCY_BUCKETS - 1);
    }

    #[test]
    fn made_up_error_codes_are_bounded() {
        let stats = Stats::new(1, 1);
        (0..1000).for_each(|n| stats.count_script_error(format!("CODE{n} text").as_bytes()));
        assert_eq!(stats.errors().len(), MAX_SCRIPT_CODES + 1);
        assert_eq!(stats.errors()[OVERFLOW], 1000 - MAX_SCRIPT_CODES as u64);
        stats.count_error(b"ERR own");
        assert_eq!(stats.errors()["ERR"], 1);
    }
}
