//! The report that a panic or a fatal signal leaves in the log: what happened, where, and the state around it.

use crate::log::Log;
use kara_base::os::{FatalSignal, on_fatal_signal};
use std::backtrace::Backtrace;
use std::io;
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Text for the report's sections. Called in a process that is in trouble: it must not wait for a lock for long.
pub trait CrashState: Send + Sync + 'static {
    /// `crash-log-enabled`.
    fn is_enabled(&self) -> bool;
    /// INFO's text, every section.
    fn info(&self) -> String;
    /// CLIENT LIST's text.
    fn clients(&self) -> String;
    /// The directives that matter for debugging, one per line.
    fn config(&self) -> String;
}

/// Installs both reporters for the whole process.
pub fn install(log: Arc<Log>, state: Arc<dyn CrashState>) -> io::Result<()> {
    let (panic_log, panic_state) = (log.clone(), state.clone());
    std::panic::set_hook(Box::new(move |info| report_panic(info, &panic_log, &*panic_state)));
    on_fatal_signal(move |signal| {
        if state.is_enabled() {
            let lines = signal_lines(signal);
            report(&lines, &Backtrace::force_capture().to_string(), &log, &*state);
        }
    })
}

fn report_panic(info: &PanicHookInfo<'_>, log: &Log, state: &dyn CrashState) {
    // A second panic while reporting says nothing new and could go on for ever.
    static REPORTING: AtomicBool = AtomicBool::new(false);
    if REPORTING.swap(true, Ordering::AcqRel) {
        log.raw(&format!("A panic while another one is reported: {}\n", message(info)));
        return;
    }
    let place =
        info.location().map_or("unknown place".to_owned(), |at| format!("{}:{}", at.file(), at.line()));
    let thread = std::thread::current();
    let lines = [
        "=== ASSERTION FAILED ===".to_owned(),
        format!("==> {place} '{}' is not true", message(info)),
        format!("Thread: {}", thread.name().unwrap_or("unnamed")),
    ];
    if state.is_enabled() {
        report(&lines, &Backtrace::force_capture().to_string(), log, state);
    } else {
        log.raw(&lines.map(|line| line + "\n").concat());
    }
    REPORTING.store(false, Ordering::Release);
}

fn message(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic without a text".to_owned())
}

fn signal_lines(signal: FatalSignal) -> Vec<String> {
    let FatalSignal { number, code, address, sender } = signal;
    let mut lines =
        vec![format!("Kara {} crashed by signal: {number}, si_code: {code}", env!("CARGO_PKG_VERSION"))];
    if sender != 0 {
        lines.push(format!("Killed by PID: {sender}"));
    }
    if address != 0 {
        lines.push(format!("Accessing address: {address:#x}"));
    }
    lines
}

/// Writes section by section, so that what could be found out is there even if a later one crashes again.
fn report(lines: &[String], backtrace: &str, log: &Log, state: &dyn CrashState) {
    log.raw("\n\n=== KARA BUG REPORT START: Cut & paste starting from here ===\n");
    for line in lines {
        log.raw(&format!("{line}\n"));
    }
    log.raw(&format!("\n------ STACK TRACE ------\n{backtrace}\n------ STACK TRACE DONE ------\n"));
    log.raw("\n------ INFO OUTPUT ------\n");
    log.raw(&state.info());
    log.raw("\n------ CLIENT LIST OUTPUT ------\n");
    log.raw(&state.clients());
    log.raw("\n------ CONFIG DEBUG OUTPUT ------\n");
    log.raw(&state.config());
    log.raw(
        "\n=== KARA BUG REPORT END. Make sure to include from START to END. ===\n\n       \
         Please report the crash by opening an issue where you got Kara from.\n       \
         It may hold names and addresses of your clients: look it through first.\n\n",
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use kara_engine::config::Config;
    use std::os::unix::ffi::OsStrExt;

    struct State;

    impl CrashState for State {
        fn is_enabled(&self) -> bool {
            true
        }
        fn info(&self) -> String {
            "# Server\n".into()
        }
        fn clients(&self) -> String {
            "id=1\n".into()
        }
        fn config(&self) -> String {
            "io-threads 1\n".into()
        }
    }

    #[test]
    fn a_report_has_all_sections_in_order() {
        let path = std::env::temp_dir().join(format!("kara-crash-{}", std::process::id()));
        let config = Config { logfile: path.as_os_str().as_bytes().to_vec(), ..Config::default() };
        let log = Log::new(&config);
        let signal = FatalSignal { number: 6, code: 0, address: 0, sender: 7 };
        report(&signal_lines(signal), "0: frame", &log, &State);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let parts = [
            "=== KARA BUG REPORT START",
            "crashed by signal: 6",
            "Killed by PID: 7",
            "------ STACK TRACE ------\n0: frame",
            "------ STACK TRACE DONE ------",
            "------ INFO OUTPUT ------\n# Server",
            "------ CLIENT LIST OUTPUT ------\nid=1",
            "------ CONFIG DEBUG OUTPUT ------\nio-threads 1",
            "=== KARA BUG REPORT END. Make sure to include from START to END. ===",
        ];
        let places: Vec<_> =
            parts.iter().map(|part| text.find(part).unwrap_or_else(|| panic!("{part}"))).collect();
        assert!(places.is_sorted(), "{places:?}");
    }
}
