//! Scripts and functions on the engine: the caches that all workers share, each worker's virtual machines, and a run with
//! its commands, locks and effects.
//!
//! Boundary: Lua itself, its sandbox and conversions are the crate `script`; the commands' arguments are parsed in
//! `commands::scripting`.

pub mod busy;
pub(crate) mod cache;
pub(crate) mod libraries;
pub(crate) mod load;
pub(crate) mod machine;
pub(crate) mod run;
pub(crate) mod shebang;
mod undo;

use cache::Cache;
use libraries::Libraries;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

/// Figures for INFO and MEMORY STATS; sizes in bytes, of machines as of some ticks ago.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScriptUsage {
    pub vm_eval: u64,
    pub vm_functions: u64,
    pub cached: u64,
    pub cached_bytes: u64,
    pub libraries: u64,
    pub functions: u64,
    pub library_bytes: u64,
}

/// The versions that scripts are told.
const REDIS_VERSION: &str = "7.2.4";
const VALKEY_VERSION: &str = "9.1.2";

/// What all workers share of scripts.
#[derive(Debug)]
pub struct Scripts {
    pub(crate) cache: Cache,
    pub(crate) libraries: Libraries,
    /// Bytes of each worker's machine for scripts and of that for functions.
    machines: Box<[(AtomicU64, AtomicU64)]>,
    running: Mutex<Vec<RunningScript>>,
    /// DEBUG SET-DISABLE-DENY-SCRIPTS.
    allows_all: AtomicBool,
    /// How many of them there are.
    busy: AtomicUsize,
}

/// What KILL is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Running {
    Script,
    Function,
}

/// A script that runs for a while already.
#[derive(Clone, Debug)]
pub struct RunningScript {
    pub(crate) number: u64,
    pub what: Running,
    /// The function's name; of a script, its SHA1.
    pub name: Vec<u8>,
    /// The command line that runs it.
    pub command: Vec<Vec<u8>>,
    pub since: Instant,
    /// Whether it wrote, or was killed.
    pub(crate) state: Arc<AtomicU8>,
}

impl Scripts {
    /// Nothing cached yet.
    pub fn new(workers: usize) -> Self {
        Scripts {
            cache: Cache::default(),
            libraries: Libraries::default(),
            machines: (0..workers).map(|_| Default::default()).collect(),
            running: Mutex::default(),
            allows_all: AtomicBool::new(false),
            busy: AtomicUsize::new(0),
        }
    }

    /// Whether scripts may run commands that aren't for scripts.
    pub(crate) fn allow_all(&self, allow: bool) {
        self.allows_all.store(allow, Relaxed);
    }

    /// A worker's machines as they are now, bytes.
    pub(crate) fn note_memory(&self, worker: usize, eval: u64, functions: u64) {
        if let Some((e, f)) = self.machines.get(worker) {
            e.store(eval, Relaxed);
            f.store(functions, Relaxed);
        }
    }

    /// The script that runs for the longest time, if one runs for a while already.
    pub(crate) fn running_now(&self) -> Option<RunningScript> {
        self.running.lock().first().cloned()
    }

    /// What scripts and functions take now.
    pub(crate) fn usage(&self) -> ScriptUsage {
        let (cached, cached_bytes) = self.cache.usage();
        let set = self.libraries.now();
        let sum = |of: fn(&(AtomicU64, AtomicU64)) -> &AtomicU64| {
            self.machines.iter().map(|machine| of(machine).load(Relaxed)).sum()
        };
        ScriptUsage {
            vm_eval: sum(|machine| &machine.0),
            vm_functions: sum(|machine| &machine.1),
            cached: cached as u64,
            cached_bytes: cached_bytes as u64,
            libraries: set.libraries.len() as u64,
            functions: set.functions_len() as u64,
            library_bytes: set.memory_usage() as u64,
        }
    }
}
