//! Signals from outside: SIGTERM and SIGINT begin a shutdown, a second SIGINT ends the process at once, SIGHUP is
//! ignored (as is SIGPIPE, by the standard library), SIGALRM is only logged.
//!
//! One thread waits for them, so nothing runs in signal context.

use crate::log::Log;
use signal_hook::consts::{SIGALRM, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Which signal asks for the shutdown: `shutdown-on-sigterm` and `shutdown-on-sigint` say how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownSignal {
    Term,
    Int,
}

impl ShutdownSignal {
    fn name(self) -> &'static str {
        match self {
            ShutdownSignal::Term => "SIGTERM",
            ShutdownSignal::Int => "SIGINT",
        }
    }
}

/// What the signals' thread asks of the server.
pub trait SignalHost: Send + Sync + 'static {
    /// Data is being loaded: there is nothing to save yet, so the process may end at once.
    fn is_loading(&self) -> bool;
    /// Begins the shutdown, on a thread of its own: it may take long. Called again if another signal comes while it is
    /// under way.
    fn begin_shutdown(&self, signal: ShutdownSignal);
    /// Removes what must not stay behind when the process ends at once (temporary and pid files).
    fn clean_up(&self);
}

/// The running thread; dropping it stops listening.
#[derive(Debug)]
pub struct SignalThread {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Drop for SignalThread {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// Starts the thread. `stopping` is set once a shutdown was asked for by signal; the server clears it when
/// a shutdown fails or is aborted, so that the next SIGINT counts as a first one.
pub fn listen(log: Arc<Log>, host: impl SignalHost, stopping: Arc<AtomicBool>) -> io::Result<SignalThread> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGALRM])?;
    let handle = signals.handle();
    let host = Arc::new(host);
    let thread = std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            match signal {
                SIGTERM => on_shutdown(ShutdownSignal::Term, &log, &host, &stopping),
                SIGINT => on_shutdown(ShutdownSignal::Int, &log, &host, &stopping),
                SIGALRM => log.signal_line("Received SIGALRM"),
                _ => {}
            }
        }
    })?;
    Ok(SignalThread { handle, thread: Some(thread) })
}

fn on_shutdown(signal: ShutdownSignal, log: &Log, host: &Arc<impl SignalHost>, stopping: &AtomicBool) {
    let again = stopping.swap(true, Ordering::AcqRel);
    if again && signal == ShutdownSignal::Int {
        log.signal_line("You insist... exiting now.");
        host.clean_up();
        std::process::exit(1);
    }
    if host.is_loading() {
        log.signal_line("Received shutdown signal during loading, exiting now.");
        host.clean_up();
        std::process::exit(0);
    }
    log.signal_line(&format!("Received {} scheduling shutdown...", signal.name()));
    // Not here: a second SIGINT must end even a shutdown that saves or waits for a lock.
    let own = host.clone();
    let begun = std::thread::Builder::new().name("shutdown".into()).spawn(move || own.begin_shutdown(signal));
    if begun.is_err() {
        host.begin_shutdown(signal);
    }
}
