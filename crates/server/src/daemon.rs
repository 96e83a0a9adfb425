//! The process among others: who supervises it, its pid file, its title in `ps`.

use crate::log::Log;
use kara_base::os::TitleArea;
use kara_engine::config::{Config, Supervised, expand_template, os_text};
use kara_engine::log::{Level, LogSink};
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;

/// Who watches over the process, as `supervised` says or the environment tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Supervision {
    None,
    Upstart,
    /// The socket that systemd wants to hear from.
    Systemd(OsString),
}

impl Supervision {
    /// What `mode` and the environment variables come to.
    pub fn detect(mode: Supervised, upstart_job: Option<OsString>, notify_socket: Option<OsString>) -> Self {
        let upstart = || upstart_job.clone().map(|_| Supervision::Upstart);
        let systemd = || notify_socket.clone().filter(|path| !path.is_empty()).map(Supervision::Systemd);
        match mode {
            Supervised::No => None,
            Supervised::Upstart => upstart(),
            Supervised::Systemd => systemd(),
            Supervised::Auto => upstart().or_else(systemd),
        }
        .unwrap_or(Supervision::None)
    }

    /// As [`Supervision::detect`], from this process's environment.
    pub fn of_process(config: &Config) -> Self {
        Self::detect(config.supervised, std::env::var_os("UPSTART_JOB"), std::env::var_os("NOTIFY_SOCKET"))
    }

    /// Whether somebody supervises: then the process must not turn itself into a daemon.
    pub fn is_active(&self) -> bool {
        *self != Supervision::None
    }

    /// Early in the start: upstart waits for us to stop ourselves.
    pub fn announce(&self, config: &Config, log: &Log) {
        match self {
            Supervision::None if config.supervised == Supervised::Upstart => {
                log.log(Level::Warning, "upstart supervision requested, but UPSTART_JOB not found!");
            }
            Supervision::None if config.supervised == Supervised::Systemd => {
                log.log(Level::Warning, "systemd supervision requested, but NOTIFY_SOCKET not found!");
            }
            Supervision::None => {}
            Supervision::Upstart => {
                log.log(Level::Notice, "supervised by upstart, will stop to signal readiness.");
                let _ =
                    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
            }
            Supervision::Systemd(_) => {
                log.log(Level::Notice, "supervised by systemd, will signal readiness.");
                self.notify("STATUS=Kara is loading...\n");
            }
        }
    }

    /// The server serves now.
    pub fn ready(&self, is_replica: bool) {
        let mode = if is_replica { "replica" } else { "read-write" };
        self.notify(&format!("STATUS=Ready to accept connections in {mode} mode.\nREADY=1\n"));
    }

    /// The shutdown has begun.
    pub fn stopping(&self) {
        self.notify("STOPPING=1\n");
    }

    /// Sends systemd's protocol; nobody listening is no error.
    pub fn notify(&self, state: &str) {
        if let Supervision::Systemd(path) = self {
            let _ = send_state(path, state);
        }
    }
}

fn send_state(path: &OsString, state: &str) -> io::Result<()> {
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(|_| ())
}

/// The pid file; gone when this value is.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
}

/// What a daemon writes when `pidfile` says nothing.
const DEFAULT_PID_FILE: &[u8] = b"/var/run/valkey.pid";

impl PidFile {
    /// Writes the file that is wanted, if one is. A failure is logged: it is no reason not to serve.
    pub fn write(config: &Config, is_daemon: bool, log: &Log) -> Option<Self> {
        let path = match config.pidfile.as_slice() {
            b"" if is_daemon => DEFAULT_PID_FILE,
            b"" => return None,
            path => path,
        };
        let path = PathBuf::from(OsString::from_vec(path.to_vec()));
        if let Err(error) = std::fs::write(&path, format!("{}\n", std::process::id())) {
            log.log(Level::Warning, &format!("Failed to write PID file: {}", os_text(&error)));
        }
        // Absolute, so that a later change of `dir` doesn't hide it.
        Some(PidFile { path: std::path::absolute(&path).unwrap_or(path) })
    }

    /// Removes the file at the end of the process.
    pub fn remove(self, log: &Log) {
        log.log(Level::Notice, "Removing the pid file.");
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The process's title in `ps`.
#[derive(Debug)]
pub struct ProcessTitle {
    area: TitleArea,
    /// The name that the process was started by.
    program: Vec<u8>,
}

impl ProcessTitle {
    /// Takes over the memory for titles. Before other threads start, after the arguments were read.
    pub fn take(program: &[u8]) -> Option<Self> {
        Some(ProcessTitle { area: TitleArea::take()?, program: program.to_vec() })
    }

    /// Shows what `proc-title-template` says; `suffix` is for processes with a special task.
    pub fn show(&mut self, config: &Config, config_file: &[u8], suffix: &str) {
        if let Some(title) = title(config, &self.program, config_file) {
            self.area.set(&[title.as_slice(), suffix.as_bytes()].concat());
        }
    }
}

/// The title that the template gives; None if the template is broken.
fn title(config: &Config, program: &[u8], config_file: &[u8]) -> Option<Vec<u8>> {
    let port = if config.port > 0 { config.port } else { config.tls_port };
    let text = expand_template(&config.proc_title_template, |name| {
        Some(match name {
            b"title" => program.to_vec(),
            b"listen-addr" => match config.bind.0.first() {
                Some(address) if port > 0 => {
                    [address.strip_prefix(b"-").unwrap_or(address), format!(":{port}").as_bytes()].concat()
                }
                _ => config.unixsocket.clone(),
            },
            b"server-mode" if config.cluster_enabled => b"[cluster]".to_vec(),
            b"server-mode" => Vec::new(),
            b"port" => config.port.to_string().into_bytes(),
            b"tls-port" => config.tls_port.to_string().into_bytes(),
            b"config-file" => config_file.to_vec(),
            b"unixsocket" => config.unixsocket.clone(),
            _ => return None,
        })
    })?;
    Some(text.trim_ascii().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles() {
        let mut config = Config { port: 7, ..Config::default() };
        assert_eq!(title(&config, b"kara-server", b"").unwrap(), b"kara-server *:7");
        config.cluster_enabled = true;
        config.bind.0 = vec![b"-::1".to_vec()];
        assert_eq!(title(&config, b"kara-server", b"").unwrap(), b"kara-server ::1:7 [cluster]");
        config.proc_title_template = b"{title} {port}/{tls-port} {config-file}".to_vec();
        assert_eq!(title(&config, b"k", b"/a.conf").unwrap(), b"k 7/0 /a.conf");
        config.proc_title_template = b"{what}".to_vec();
        assert_eq!(title(&config, b"k", b""), None);
    }

    #[test]
    fn supervisors_are_found() {
        let socket = || Some(OsString::from("/run/x"));
        let job = || Some(OsString::from("j"));
        assert_eq!(Supervision::detect(Supervised::No, job(), socket()), Supervision::None);
        assert_eq!(
            Supervision::detect(Supervised::Auto, None, socket()),
            Supervision::Systemd("/run/x".into())
        );
        assert_eq!(Supervision::detect(Supervised::Auto, job(), None), Supervision::Upstart);
        assert_eq!(Supervision::detect(Supervised::Systemd, job(), None), Supervision::None);
    }

    #[test]
    fn systemd_hears_of_readiness() {
        let path = std::env::temp_dir().join(format!("kara-notify-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        Supervision::Systemd(path.clone().into_os_string()).ready(false);
        let mut buffer = [0; 200];
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&buffer[..length]),
            "STATUS=Ready to accept connections in read-write mode.\nREADY=1\n"
        );
        std::fs::remove_file(&path).unwrap();
    }
}
