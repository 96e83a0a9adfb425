//! What changed settings mean for the process: directory, log, limits, title and listening sockets.

use crate::daemon::{PidFile, ProcessTitle, Supervision};
use crate::listen::Listeners;
use crate::log::Log;
use crate::startup::Prepared;
use crate::system::{OomScore, make_room_for_clients};
use kara_engine::config::{ApplyError, Changes, Config, Loaded, os_text};
use kara_engine::log::{Level, LogSink};
use parking_lot::Mutex;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

/// The process around the server.
#[derive(Debug)]
pub struct Process {
    pub log: Arc<Log>,
    pub supervision: Supervision,
    oom_score: OomScore,
    title: Mutex<Option<ProcessTitle>>,
    pid_file: Mutex<Option<PidFile>>,
    config_file: Vec<u8>,
}

impl Process {
    /// Takes over what start-up prepared; gives back the configuration's store and what else was read.
    pub fn new(prepared: Prepared) -> (Self, kara_engine::config::ConfigStore, Loaded) {
        let Prepared { loaded, store, log, supervision, oom_score, pid_file, title } = prepared;
        let config_file = loaded.file.as_deref().map(|path| path.as_os_str().as_bytes().to_vec());
        let process = Process {
            log,
            supervision,
            oom_score,
            title: Mutex::new(title),
            pid_file: Mutex::new(pid_file),
            config_file: config_file.unwrap_or_default(),
        };
        (process, store, loaded)
    }

    /// Puts changed settings into effect; a repeated call with old and new swapped takes them back.
    pub fn apply(
        &self,
        new: &mut Config,
        changes: &Changes,
        sockets: &Mutex<Listeners>,
    ) -> Result<(), ApplyError> {
        if changes.contains("dir") {
            new.dir = enter(&new.dir).map_err(|error| ApplyError { name: "dir", reason: os_text(&error) })?;
        }
        self.log.configure(new);
        if changes.contains("maxclients") {
            make_room_for_clients(new.maxclients).map_err(|possible| ApplyError {
                name: "maxclients",
                reason: format!(
                    "The operating system is not able to handle the specified number of clients, try with {possible}"
                ),
            })?;
        }
        if changes.contains("jemalloc-bg-thread") {
            kara_base::usage::set_allocator_threads(new.jemalloc_bg_thread);
        }
        let scores = ["oom-score-adj", "oom-score-adj-values"];
        if let Some(name) = scores.into_iter().find(|name| changes.contains(name))
            && !self.oom_score.apply(new, new.replicaof.0.is_some(), &self.log)
        {
            let reason = "Failed to set current oom_score_adj. Check server logs.".to_owned();
            return Err(ApplyError { name, reason });
        }
        if changes.contains_any(&["port", "bind"]) {
            sockets.lock().reopen(new).map_err(|error| {
                self.log.log(Level::Warning, &format!("Warning: {}", os_text(&error)));
                let (name, reason) = if changes.contains("port") {
                    ("port", "Unable to listen on this port. Check server logs.")
                } else {
                    ("bind", "Failed to bind to specified addresses.")
                };
                ApplyError { name, reason: reason.to_owned() }
            })?;
        }
        if changes.contains_any(&["proc-title-template", "port", "bind", "tls-port"])
            && new.set_proc_title
            && let Some(title) = &mut *self.title.lock()
        {
            title.show(new, &self.config_file, "");
        }
        Ok(())
    }

    /// The score of the kernel's choice whom to kill is another one for replicas.
    pub fn role_changed(&self, config: &Config) {
        // The log says why, where it can't be set.
        let _ = self.oom_score.apply(config, config.replicaof.0.is_some(), &self.log);
    }

    /// Removes what must not outlive the process.
    pub fn clean_up(&self) {
        if let Some(file) = self.pid_file.lock().take() {
            file.remove(&self.log);
        }
    }
}

/// Makes `dir` the working directory; gives its absolute name.
fn enter(dir: &[u8]) -> io::Result<Vec<u8>> {
    std::env::set_current_dir(OsStr::from_bytes(dir))?;
    std::env::current_dir().map(|dir| dir.into_os_string().into_vec())
}
