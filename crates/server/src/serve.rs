//! From a prepared process to its end: what the configuration asks of other parts, signals, crash reports, the run
//! itself and the cleaning up.

use crate::apply::Process;
use crate::crash::{self, CrashState};
use crate::host::ServerHost;
use crate::run::Server;
use crate::signals::{self, ShutdownSignal, SignalHost};
use crate::startup::Prepared;
use kara_engine::acl::FileError;
use kara_engine::commands::FAMILIES;
use kara_engine::config::{AclPubsubDefault, LoadError, Loaded, Located, ShutdownFlags, os_text};
use kara_engine::log::{Level, LogSink as _};
use kara_engine::replication::farewell::{self, By};
use kara_engine::shared::{Host as _, Shared, ShutdownOptions};
use std::collections::HashSet;
use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Serves until the process is told to stop.
pub fn serve(prepared: Prepared) -> ExitCode {
    let log = prepared.log.clone();
    let renames = match judge(&prepared.loaded) {
        Ok(renames) => renames,
        Err(Refusal::Line(error)) => return prepared.refuse(&error),
        Err(Refusal::Logged(text)) => {
            log.log(Level::Warning, &text);
            return ExitCode::FAILURE;
        }
    };
    let users = prepared.loaded.users.clone();
    let (process, store, _) = Process::new(prepared);
    let secret = std::array::from_fn(|_| kara_base::hash::random_u64());
    let outcome = Server::new(store, process, &renames, secret).and_then(|server| {
        let host = server.host.clone();
        if let Err(refusal) = define_users(&server.shared, &users) {
            match refusal {
                Refusal::Line(error) => eprint!("{error}"),
                Refusal::Logged(text) => host.process().log.log(Level::Warning, &text),
            }
            host.process().clean_up();
            return Ok(false);
        }
        let result = run(server).map(|()| true);
        host.process().clean_up();
        result
    });
    match outcome {
        Ok(true) => {
            log.log(Level::Warning, "Kara is now ready to exit, bye bye...");
            ExitCode::SUCCESS
        }
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            log.log(Level::Warning, &os_text(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(server: Server) -> io::Result<()> {
    let (shared, host) = (server.shared.clone(), server.host.clone());
    let log = host.process().log.clone();
    if host.sockets().lock().is_empty() {
        return Err(io::Error::other("Configured to not listen anywhere, exiting."));
    }
    crash::install(log.clone(), Arc::new(State(shared.clone())))?;
    let stopping = Arc::new(AtomicBool::new(false));
    let asked = Asked { shared: shared.clone(), host: host.clone(), stopping: stopping.clone() };
    let _signals = signals::listen(log.clone(), asked, stopping)?;
    log.log(Level::Notice, "Server initialized");
    load(&shared, &host)?;
    let result = server.run();
    host.process().supervision.stopping();
    result
}

/// How long a small data set may keep the first clients waiting; with a larger one they are told LOADING.
const PATIENCE: Duration = Duration::from_millis(300);

/// Loads the data, at most for a moment on this thread's time.
fn load(shared: &Arc<Shared>, host: &ServerHost) -> io::Result<()> {
    shared.loading.store(true, Relaxed);
    let (done, waiting) = std::sync::mpsc::channel();
    let (shared, host) = (shared.clone(), host.clone());
    std::thread::Builder::new().name("load".into()).spawn(move || {
        let log = &host.process().log;
        if let Err(text) = kara_engine::persist::load::at_start(&shared) {
            log.log(Level::Warning, &text);
            host.process().clean_up();
            std::process::exit(1);
        }
        if let Some((primary, port)) = &shared.config.load().replicaof.0 {
            // Before anybody can write.
            let space = shared.keyspace.lock_all();
            shared.replication.become_replica(&shared, &space, primary, *port, false);
        }
        shared.loading.store(false, Relaxed);
        for kind in host.sockets().lock().kinds() {
            log.log(Level::Notice, &format!("Ready to accept connections {kind}"));
        }
        let is_replica = shared.config.load().replicaof.0.is_some();
        host.process().supervision.ready(is_replica);
        // Nobody waits any more if it took long.
        let _ = done.send(());
    })?;
    // Late or not, the workers start now.
    let _ = waiting.recv_timeout(PATIENCE);
    Ok(())
}

/// Why the server doesn't start.
enum Refusal {
    Line(LoadError),
    Logged(String),
}

/// What the configuration asks of parts that know more than its parser; gives the renamed commands.
fn judge(loaded: &Loaded) -> Result<Vec<(String, String)>, Refusal> {
    if let Some(module) = loaded.modules.first() {
        let path = module.words.first().map(|word| String::from_utf8_lossy(word).into_owned());
        let path = path.unwrap_or_default();
        return Err(Refusal::Logged(format!("Can't load module from {path}: server aborting")));
    }
    let mut names = HashSet::new();
    for user in &loaded.users {
        let name = user.words.first().map(Vec::as_slice).unwrap_or_default();
        if !names.insert(name) {
            let name = String::from_utf8_lossy(name);
            let text = format!(
                "Error in user declaration '{name}': Duplicate user found. A user can only be defined once in config files"
            );
            return Err(Refusal::Line(LoadError::at(&user.line, text)));
        }
    }
    if !loaded.users.is_empty() && !loaded.config.aclfile.is_empty() {
        let text = "Configuring Valkey with users defined in valkey.conf and at the same setting an ACL file path is \
                    invalid. This setup is very likely to lead to configuration errors and security holes, please \
                    define either an ACL file or declare users directly in your valkey.conf, but not both.";
        return Err(Refusal::Logged(text.to_owned()));
    }
    if loaded.config.tls_port > 0 {
        return Err(Refusal::Logged("Failed finding TLS support.".to_owned()));
    }
    renames(loaded).map_err(Refusal::Line)
}

/// The users of the configuration or of the ACL file; starting without a rule that restricts somebody would be worse
/// than not starting.
fn define_users(shared: &Shared, users: &[Located]) -> Result<(), Refusal> {
    let config = shared.config.load();
    let all_channels = config.acl_pubsub_default == AclPubsubDefault::AllChannels;
    for user in users {
        shared
            .acl
            .configure(&user.words, &shared.registry, all_channels)
            .map_err(|text| Refusal::Line(LoadError::at(&user.line, text)))?;
    }
    if !config.aclfile.is_empty() {
        shared.acl.load(&config.aclfile, &shared.registry, all_channels).map_err(|FileError(text)| {
            let text = String::from_utf8_lossy(&text);
            Refusal::Logged(format!("Aborting Valkey startup because of ACL errors: {text}"))
        })?;
    }
    Ok(())
}

/// `rename-command` lines, each judged against the names as the lines before left them.
fn renames(loaded: &Loaded) -> Result<Vec<(String, String)>, LoadError> {
    let mut names: HashSet<String> =
        FAMILIES.iter().flat_map(|family| family.iter()).map(|spec| spec.name.to_owned()).collect();
    let mut out = Vec::with_capacity(loaded.renames.len());
    for located in &loaded.renames {
        let [from, to] = located.words.as_slice() else { continue };
        let lower = |word: &[u8]| String::from_utf8_lossy(word).to_lowercase();
        let (from, to) = (lower(from), lower(to));
        if !names.remove(&from) {
            return Err(LoadError::at(&located.line, "No such command in rename-command"));
        }
        if !to.is_empty() && !names.insert(to.clone()) {
            return Err(LoadError::at(&located.line, "Target command name already exists"));
        }
        out.push((from, to));
    }
    Ok(out)
}

/// The server as the signals' thread sees it.
struct Asked {
    shared: Arc<Shared>,
    host: ServerHost,
    stopping: Arc<AtomicBool>,
}

impl SignalHost for Asked {
    fn is_loading(&self) -> bool {
        self.shared.loading.load(Relaxed)
    }

    fn begin_shutdown(&self, signal: ShutdownSignal) {
        let stopping = self.stopping.clone();
        let given_up = Box::new(move || stopping.store(false, Relaxed));
        if !self.shared.replication.shutdown.await_cron(&self.shared, given_up) {
            return;
        }
        let config = self.shared.config.load();
        let flags = match signal {
            ShutdownSignal::Term => config.shutdown_on_sigterm,
            ShutdownSignal::Int => config.shutdown_on_sigint,
        };
        let space = self.shared.keyspace.lock_all();
        let failed = {
            let (host, stopping) = (self.host.clone(), self.stopping.clone());
            move || {
                let text = "SIGTERM received but errors trying to shut down the server, check the logs for more information";
                host.log(Level::Warning, text);
                stopping.store(false, Relaxed);
            }
        };
        let by = By::Signal(Box::new(failed.clone()));
        let options = options(flags);
        let now_ms = self.host.now_ms();
        if self.shared.replication.shutdown.begin(&self.shared, &config, options, by, now_ms) {
            return;
        }
        match farewell::finish(&self.shared, &space, options) {
            Ok(()) => self.host.exit(),
            Err(_) => failed(),
        }
    }

    fn clean_up(&self) {
        kara_engine::persist::save::remove_unfinished();
        self.host.process().clean_up();
    }
}

fn options(flags: ShutdownFlags) -> ShutdownOptions {
    let save = if flags.contains(ShutdownFlags::SAVE) {
        Some(true)
    } else if flags.contains(ShutdownFlags::NOSAVE) {
        Some(false)
    } else {
        None
    };
    ShutdownOptions {
        save,
        now: flags.contains(ShutdownFlags::NOW),
        force: flags.contains(ShutdownFlags::FORCE),
        safe: flags.contains(ShutdownFlags::SAFE),
        failover: flags.contains(ShutdownFlags::FAILOVER),
    }
}

/// The server as a crash report sees it.
struct State(Arc<Shared>);

impl CrashState for State {
    fn is_enabled(&self) -> bool {
        self.0.config.load().crash_log_enabled
    }

    fn info(&self) -> String {
        let shared = &*self.0;
        let totals = shared.stats.totals();
        format!(
            "kara_version:{}\nvalkey_version:9.1.2\nrun_id:{}\nprocess_id:{}\nworkers:{}\n\
             connected_clients:{}\ntotal_commands_processed:{}\n",
            env!("CARGO_PKG_VERSION"),
            shared.run_id,
            std::process::id(),
            shared.workers,
            shared.clients.len(),
            totals.commands_processed,
        )
    }

    fn clients(&self) -> String {
        self.0.clients.all().iter().fold(String::new(), |mut text, client| {
            // Writing to a string can't fail.
            let _ = writeln!(text, "id={} addr={} laddr={}", client.id.0, client.addr, client.laddr);
            text
        })
    }

    fn config(&self) -> String {
        let lines = self.0.config.debug_lines();
        String::from_utf8_lossy(&lines.join(&b'\n')).into_owned() + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kara_engine::config::{LineRef, Located};

    fn renamed(pairs: &[(&str, &str)]) -> Result<Vec<(String, String)>, String> {
        let mut loaded = Loaded::default();
        for (from, to) in pairs {
            let words = vec![from.as_bytes().to_vec(), to.as_bytes().to_vec()];
            loaded.renames.push(Located { words, line: LineRef { number: 1, text: Vec::new() } });
        }
        renames(&loaded).map_err(|error| match error {
            LoadError::Line { reason, .. } => reason,
            other => other.to_string(),
        })
    }

    #[test]
    fn renaming_follows_the_lines() {
        assert_eq!(renamed(&[("GET", "fetch"), ("SET", "")]).unwrap().len(), 2);
        assert_eq!(renamed(&[("get", "set")]).unwrap_err(), "Target command name already exists");
        assert_eq!(renamed(&[("getx", "a")]).unwrap_err(), "No such command in rename-command");
        assert_eq!(renamed(&[("get", "a"), ("get", "b")]).unwrap_err(), "No such command in rename-command");
        assert!(renamed(&[("get", "a"), ("set", "get")]).is_ok());
    }

    #[test]
    fn flags_become_options() {
        assert_eq!(options(ShutdownFlags::empty()), ShutdownOptions::default());
        let options = options(ShutdownFlags::NOSAVE | ShutdownFlags::NOW);
        assert_eq!((options.save, options.now, options.force), (Some(false), true, false));
    }
}
