//! From the command line to a process that may start serving: configuration, log, warnings, daemon, pid file.

use crate::daemon::{PidFile, ProcessTitle, Supervision};
use crate::log::{Log, Role};
use crate::system;
use kara_base::os::{Fate, daemonize};
use kara_engine::config::{
    ConfigStore, Invocation, LoadError, Loaded, ProcessSurroundings, Sources, invocation, load, os_text,
};
use kara_engine::log::{Level, LogSink};
use std::io::{IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::sync::Arc;

/// A process that has read its configuration and settled in.
#[derive(Debug)]
pub struct Prepared {
    /// What start-up read, with the lines that other parts must judge (users, renamed commands, modules).
    pub loaded: Loaded,
    pub store: ConfigStore,
    pub log: Arc<Log>,
    pub supervision: Supervision,
    pub oom_score: system::OomScore,
    pub pid_file: Option<PidFile>,
    pub title: Option<ProcessTitle>,
}

/// Answers what needs no server (`--version`, `--help`, ...), or gets everything ready for one. Call it before
/// any thread starts. `program` is the name the process was started by, `args` what followed it.
pub fn prepare(program: &[u8], args: &[Vec<u8>]) -> Result<Prepared, ExitCode> {
    let sources = match invocation(args) {
        Invocation::Run(sources) => sources,
        Invocation::Version => return Err(print(&version_line())),
        Invocation::Help => return Err(print(&help(&String::from_utf8_lossy(program)))),
        Invocation::CheckSystem => return Err(check_system()),
        Invocation::TestMemory(megabytes) => return Err(test_memory(megabytes.as_deref())),
    };
    let mut title = ProcessTitle::take(program);
    let mut loaded = load(&sources, &mut ProcessSurroundings).map_err(|error| refused(&error))?;
    let log = Arc::new(Log::new(&loaded.config));
    if loaded.sentinel {
        log.set_role(Role::Sentinel);
    }
    system::warn_of_kernel_settings(&loaded.config, &log);
    system::warn_of_missing_limit(&loaded.config, &log);
    let supervision = Supervision::of_process(&loaded.config);
    let is_daemon = loaded.config.daemonize && !supervision.is_active();
    if is_daemon {
        match daemonize() {
            Ok(Fate::Daemon) => log.refresh_pid(),
            Ok(Fate::Parent) => return Err(ExitCode::SUCCESS),
            Err(error) => {
                log.log(Level::Warning, &format!("Can't become a daemon: {}", os_text(&error)));
                return Err(ExitCode::FAILURE);
            }
        }
    }
    greet(&sources, program, &log);
    supervision.announce(&loaded.config, &log);
    if !system::fit_maxclients(&mut loaded.config, &log) {
        return Err(ExitCode::FAILURE);
    }
    let pid_file = PidFile::write(&loaded.config, is_daemon, &log);
    if let Some(title) = title.as_mut().filter(|_| loaded.config.set_proc_title) {
        let file = loaded.file.as_deref().map_or(b"".as_slice(), |path| path.as_os_str().as_bytes());
        title.show(&loaded.config, file, if loaded.sentinel { " [sentinel]" } else { "" });
    }
    show_logo(&loaded, &log);
    let oom_score = system::OomScore::default();
    // Best effort at the start: the log says what went wrong.
    let _ = oom_score.apply(&loaded.config, loaded.config.replicaof.0.is_some(), &log);
    let store = ConfigStore::from_loaded(&loaded);
    Ok(Prepared { loaded, store, log, supervision, oom_score, pid_file, title })
}

impl Prepared {
    /// Ends the start because another part refuses a line of the configuration.
    pub fn refuse(&self, error: &LoadError) -> ExitCode {
        refused(error)
    }
}

/// Prints why the start ends here: a fault in the configuration on standard error, a missing file as a log line.
fn refused(error: &LoadError) -> ExitCode {
    match error {
        LoadError::Unreadable { .. } => {
            Log::new(&Default::default()).log(Level::Warning, &error.to_string());
        }
        LoadError::Line { .. } | LoadError::Whole(_) => eprint!("{error}"),
    }
    ExitCode::FAILURE
}

fn print(text: &str) -> ExitCode {
    // Whoever closed our output doesn't want to read it.
    let _ = writeln!(std::io::stdout(), "{text}");
    ExitCode::SUCCESS
}

fn check_system() -> ExitCode {
    match system::check_system(&mut std::io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

fn test_memory(megabytes: Option<&[u8]>) -> ExitCode {
    match megabytes {
        None => eprintln!(
            "Please specify the amount of memory to test in megabytes.\nExample: kara-server --test-memory 4096\n"
        ),
        Some(_) => {
            eprintln!("--test-memory is not part of this program. memtest86+ and memtester do its work.")
        }
    }
    ExitCode::FAILURE
}

/// `Valkey server v=9.1.2 ...`: scripts read the reference's version from here; ours follows.
fn version_line() -> String {
    format!(
        "Valkey server v=9.1.2 sha=00000000:0 malloc=jemalloc bits={} build=kara-{} kara={}",
        usize::BITS,
        std::env::consts::ARCH,
        env!("CARGO_PKG_VERSION")
    )
}

fn help(program: &str) -> String {
    format!(
        "Usage: {program} [/path/to/kara.conf] [options] [-]
       {program} - (read the configuration from standard input)
       {program} -v or --version
       {program} -h or --help
       {program} --check-system

Every directive of the configuration file is an option, too: --name value ...

Examples:
       {program} (all defaults)
       echo 'maxmemory 128mb' | {program} -
       {program} /etc/kara/6379.conf
       {program} --port 7777 --replicaof 127.0.0.1 8888
       {program} /etc/kara/6379.conf --loglevel verbose -

Sentinel mode:
       {program} /etc/kara/sentinel.conf --sentinel"
    )
}

fn greet(sources: &Sources, program: &[u8], log: &Log) {
    if sources.stdin {
        log.log(Level::Notice, "Reading config from stdin");
    }
    log.log(Level::Notice, "oO0OoO0OoO0Oo Kara is starting oO0OoO0OoO0Oo");
    log.log(
        Level::Notice,
        &format!(
            "Kara version={}, compatible with Valkey 9.1.2, bits={}, pid={}, just started",
            env!("CARGO_PKG_VERSION"),
            usize::BITS,
            std::process::id()
        ),
    );
    if *sources == Sources::default() {
        let program = String::from_utf8_lossy(program);
        log.log(
            Level::Warning,
            &format!(
                "Warning: no config file specified, using the default config. In order to specify a config file use \
                 {program} /path/to/kara.conf"
            ),
        );
    } else {
        log.log(Level::Notice, "Configuration loaded");
    }
}

/// The logo, on a terminal or where it is asked for; elsewhere one line says the same.
fn show_logo(loaded: &Loaded, log: &Log) {
    let config = &loaded.config;
    let mode = if loaded.sentinel {
        "sentinel"
    } else if config.cluster_enabled {
        "cluster"
    } else {
        "standalone"
    };
    let port = if config.port > 0 { config.port } else { config.tls_port };
    let to_terminal = log.is_stdout() && !config.syslog_enabled && std::io::stdout().is_terminal();
    if config.always_show_logo || to_terminal {
        log.raw(&logo(mode, port));
    } else {
        log.log(Level::Notice, &format!("Running mode={mode}, port={port}."));
    }
}

fn logo(mode: &str, port: u16) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let (bits, pid) = (usize::BITS, std::process::id());
    format!(
        r"
      ___       ___
     /   \     /  /
    /    /    /  /
   /    /____/  /        Kara {version}, {bits} bit
  /            /         speaks Valkey 9.1.2
 /    __      \
/    /  \      \         Running in {mode} mode
\   /    \      \        Port: {port}
 \_/      \______\       PID: {pid}

"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        assert!(version_line().starts_with("Valkey server v=9.1.2 sha=00000000:0 malloc="));
        assert!(help("kara-server").contains("kara-server --check-system"));
        // What scripts and test suites look for in the log.
        assert!(logo("standalone", 6379).contains(&format!(" PID: {}\n", std::process::id())));
    }
}
