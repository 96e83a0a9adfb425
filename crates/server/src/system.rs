//! Limits and warnings of the operating system: open files, OOM score, huge pages, listen backlog.

use crate::log::Log;
use kara_engine::config::{Config, OomScoreAdj, os_text};
use kara_engine::log::{Level, LogSink};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

/// Descriptors for what isn't a client: listeners, files, links between nodes.
pub const RESERVED_FILES: u64 = 32;

/// Raises the limit of open files so that `maxclients` clients fit. Err: how many do.
pub fn make_room_for_clients(maxclients: u64) -> Result<(), u64> {
    let wanted = maxclients.saturating_add(RESERVED_FILES);
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    if current >= wanted {
        return Ok(());
    }
    // First with a higher ceiling, which needs privileges, then up to the ceiling there is.
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let raise =
        |to: u64| setrlimit(Resource::Nofile, Rlimit { current: Some(to), maximum: Some(hard.max(to)) });
    if raise(wanted).is_ok() {
        return Ok(());
    }
    let best = wanted.min(hard);
    if best > current && raise(best).is_err() {
        return Err(current.saturating_sub(RESERVED_FILES));
    }
    let reached = best.max(current);
    if reached >= wanted { Ok(()) } else { Err(reached.saturating_sub(RESERVED_FILES)) }
}

/// At the start: `maxclients` gives way to what the system allows. False: not even one client fits.
pub fn fit_maxclients(config: &mut Config, log: &Log) -> bool {
    let wanted = config.maxclients;
    let Err(possible) = make_room_for_clients(wanted) else { return true };
    let files = wanted.saturating_add(RESERVED_FILES);
    log.log(
        Level::Warning,
        &format!("You requested maxclients of {wanted} requiring at least {files} max file descriptors."),
    );
    if possible == 0 {
        log.log(
            Level::Warning,
            &format!("The limit of open files leaves no room for clients: {RESERVED_FILES} are needed by themselves. Exiting."),
        );
        return false;
    }
    log.log(
        Level::Warning,
        &format!(
            "Current maximum open files is {}. maxclients has been reduced to {possible} to compensate for low \
             ulimit. If you need higher maxclients increase 'ulimit -n'.",
            possible + RESERVED_FILES
        ),
    );
    config.maxclients = possible;
    true
}

/// The process's OOM score: the kernel kills the highest first.
#[derive(Debug)]
pub struct OomScore {
    /// The value that the process was started with, to go back to and to count from.
    base: AtomicI32,
}

const NOT_READ: i32 = i32::MIN;
const OOM_FILE: &str = "/proc/self/oom_score_adj";

impl Default for OomScore {
    fn default() -> Self {
        OomScore { base: AtomicI32::new(NOT_READ) }
    }
}

impl OomScore {
    /// Sets the score that `config` asks for in this role. Nothing is touched until it is switched on. False: the
    /// log says why it couldn't be done.
    pub fn apply(&self, config: &Config, is_replica: bool, log: &Log) -> bool {
        let mut base = self.base.load(Relaxed);
        if config.oom_score_adj == OomScoreAdj::No {
            if base == NOT_READ {
                return true;
            }
            // Switched off: the next time counts from what somebody else may have written by then.
            self.base.store(NOT_READ, Relaxed);
        } else if base == NOT_READ {
            let read = fs::read_to_string(OOM_FILE).map_err(|e| os_text(&e));
            base = match read.and_then(|text| text.trim().parse::<i32>().map_err(|e| e.to_string())) {
                Ok(base) => base,
                Err(error) => {
                    log.log(Level::Warning, &format!("Unable to read oom_score_adj: {error}"));
                    return false;
                }
            };
            self.base.store(base, Relaxed);
        }
        let value = wanted_score(config, is_replica, base);
        let written = fs::write(OOM_FILE, value.to_string());
        if let Err(error) = &written {
            log.log(Level::Warning, &format!("Unable to write oom_score_adj: {}", os_text(error)));
        }
        written.is_ok()
    }
}

fn wanted_score(config: &Config, is_replica: bool, base: i32) -> i32 {
    let [primary, replica, _] = config.oom_score_adj_values.0;
    let value = if is_replica { replica } else { primary };
    match config.oom_score_adj {
        OomScoreAdj::No => base,
        OomScoreAdj::Relative => base.saturating_add(value).clamp(-1000, 1000),
        OomScoreAdj::Absolute => value.clamp(-1000, 1000),
    }
}

/// Warns where the kernel would end the process before the server knows that memory is scarce.
pub fn warn_of_missing_limit(config: &Config, log: &Log) {
    if let Some(limit) = kara_base::cgroup::memory_limit().filter(|_| config.maxmemory == 0) {
        log.log(Level::Warning, &format!("WARNING: {}", missing_limit(limit)));
    }
}

/// A quarter is left for clients' buffers, saving, replication and what the allocator keeps.
fn missing_limit(limit: u64) -> String {
    let best = limit / 4 * 3;
    format!(
        "no maxmemory is set, but the cgroup of this process may use {limit} bytes at most: beyond that the kernel ends \
         it. Recommended: maxmemory {}mb (or maxmemory 75%), with a maxmemory-policy that fits.",
        best >> 20
    )
}

/// Warns of settings of the kernel that hurt.
pub fn warn_of_kernel_settings(config: &Config, log: &Log) {
    if let Some(text) = overcommit_warning(&read("/proc/sys/vm/overcommit_memory")) {
        log.log(Level::Warning, &format!("WARNING {text}"));
    }
    if let Some(text) = huge_page_warning(&read("/sys/kernel/mm/transparent_hugepage/enabled")) {
        let avoided = config.disable_thp && kara_base::os::disable_huge_pages().is_ok();
        if !avoided {
            log.log(Level::Warning, &format!("WARNING {text}"));
        }
    }
    if let Some(text) = backlog_warning(config.tcp_backlog, &read("/proc/sys/net/core/somaxconn")) {
        log.log(Level::Warning, &format!("WARNING: {text}"));
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Snapshots are made by threads, so the usual modes do no harm here; the strict one can refuse memory that is free.
fn overcommit_warning(mode: &str) -> Option<&'static str> {
    (mode.trim() == "2").then_some(
        "Memory overcommit is strict (vm.overcommit_memory = 2): allocations may fail although memory is free. \
         Consider 'sysctl vm.overcommit_memory=0' or 1, and the same line in /etc/sysctl.conf.",
    )
}

fn huge_page_warning(mode: &str) -> Option<&'static str> {
    mode.contains("[always]").then_some(
        "Transparent Huge Pages (THP) are always on in this kernel, which costs latency and memory. To leave them to \
         programs that ask for them run 'echo madvise > /sys/kernel/mm/transparent_hugepage/enabled' as root, and \
         again after each boot (in /etc/rc.local, say). Restart Kara afterwards.",
    )
}

fn backlog_warning(backlog: u64, somaxconn: &str) -> Option<String> {
    let limit: u64 = somaxconn.trim().parse().ok()?;
    (backlog > limit).then(|| {
        format!(
            "The TCP backlog setting of {backlog} cannot be enforced because /proc/sys/net/core/somaxconn is set to \
             the lower value of {limit}."
        )
    })
}

/// `--check-system`: one line per check. Returns whether all passed.
pub fn check_system(out: &mut dyn std::io::Write) -> std::io::Result<bool> {
    let clock = read("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    let slow_clock = matches!(clock.trim(), "hpet" | "acpi_pm" | "xen").then_some(
        "This clock source is slow: reading the time costs a system call. Prefer 'tsc' where it is offered.",
    );
    let checks = [
        ("clocksource", slow_clock),
        ("overcommit", overcommit_warning(&read("/proc/sys/vm/overcommit_memory"))),
        ("THP", huge_page_warning(&read("/sys/kernel/mm/transparent_hugepage/enabled"))),
    ];
    let mut good = true;
    for (name, warning) in checks {
        match warning {
            None => writeln!(out, "[{name}]...OK")?,
            Some(text) => {
                good = false;
                writeln!(out, "[{name}]...WARNING:\n{text}")?;
            }
        }
    }
    Ok(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_the_cgroup_recommends_three_quarters() {
        assert!(missing_limit(2 << 30).contains("maxmemory 1536mb"), "{}", missing_limit(2 << 30));
    }

    #[test]
    fn warnings() {
        assert!(overcommit_warning("0\n").is_none() && overcommit_warning("2\n").is_some());
        assert!(huge_page_warning("always [madvise] never").is_none());
        assert!(huge_page_warning("[always] madvise never").is_some());
        assert!(backlog_warning(511, "128\n").unwrap().contains("lower value of 128"));
        assert!(backlog_warning(511, "4096\n").is_none());
        assert!(backlog_warning(511, "").is_none());
    }

    #[test]
    fn scores() {
        let mut config = Config { oom_score_adj: OomScoreAdj::Relative, ..Config::default() };
        assert_eq!((wanted_score(&config, false, 10), wanted_score(&config, true, 10)), (10, 210));
        assert_eq!(wanted_score(&config, true, 900), 1000);
        config.oom_score_adj = OomScoreAdj::Absolute;
        assert_eq!(wanted_score(&config, true, 10), 200);
        config.oom_score_adj = OomScoreAdj::No;
        assert_eq!(wanted_score(&config, true, 10), 10);
    }

    #[test]
    fn room_for_a_client_but_not_for_all_the_world() {
        assert_eq!(make_room_for_clients(1), Ok(()));
        let possible = make_room_for_clients(u64::MAX).unwrap_err();
        assert!(possible > 0 && make_room_for_clients(possible).is_ok());
    }

    #[test]
    fn checks_are_printed() {
        let mut out = Vec::new();
        check_system(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap().matches("[").count(), 3);
    }
}
