//! Servers in processes of their own: this project's, or the reference's, on a loopback port and in a folder of
//! their own, stopped by their own process id when the value is dropped.

use crate::client::Client;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a server may take until it answers PING.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A running server. Dropping it kills the process and removes its folder; while the thread panics, the end of
/// the log is printed first.
#[derive(Debug)]
pub struct Server {
    child: Child,
    program: PathBuf,
    arguments: Vec<String>,
    port: u16,
    folder: PathBuf,
}

impl Server {
    /// This project's server with further arguments (`--name value`).
    ///
    /// # Panics
    /// Where it is not built or doesn't come up; the message has the log.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_program(&own_program(), arguments)
    }

    /// The reference: Valkey 9.1.2.
    ///
    /// # Panics
    /// Where it is not installed (`cargo xtask peers`) or doesn't come up.
    pub fn reference(arguments: &[&str]) -> Self {
        Self::start_program(&reference_program(), arguments)
    }

    /// This project's server with a configuration file in front of the usual arguments.
    ///
    /// # Panics
    /// Where it doesn't come up.
    pub fn start_with_file(file: &Path) -> Self {
        Self::start(&[&file.to_string_lossy()])
    }

    /// Any server that takes Valkey's arguments.
    ///
    /// # Panics
    /// Where it doesn't come up.
    pub fn start_program(program: &Path, arguments: &[&str]) -> Self {
        let folder = fresh_folder();
        // It is started in that folder.
        let program = &std::path::absolute(program).unwrap_or_else(|_| program.into());
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let mut last = String::new();
        // Another process may take the port between our look and the server's bind: then another port.
        for _ in 0..3 {
            let port = free_port();
            let child = spawn(program, &arguments, port, &folder);
            let mut server = Self {
                child,
                program: program.into(),
                arguments: arguments.clone(),
                port,
                folder: folder.clone(),
            };
            match server.wait_until_ready() {
                Ok(()) => return server,
                Err(fault) => last = format!("{fault}\n{}", server.log_tail()),
            }
            server.kill();
            let taken = last.contains("in use");
            std::mem::forget(server); // its folder serves the next try
            if !taken {
                break;
            }
        }
        panic!("{} {arguments:?} did not start: {last}", program.display())
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The server's working folder, where its dump and AOF files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A new connection.
    ///
    /// # Panics
    /// Where the server doesn't accept it.
    pub fn client(&self) -> Client {
        Client::connect(self.port).unwrap_or_else(|fault| panic!("connect to port {}: {fault}", self.port))
    }

    /// Whether the process still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends the process at once, as a crash would (SIGKILL to its own pid).
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SHUTDOWN with its options, then waits for the process's end.
    ///
    /// # Panics
    /// Where the process is still there after 30 s.
    pub fn shutdown(&mut self, options: &str) {
        let _ = self.client().try_call(&format!("SHUTDOWN {options}").split_whitespace().collect::<Vec<_>>());
        let deadline = Instant::now() + START_TIMEOUT;
        while self.is_alive() {
            assert!(Instant::now() < deadline, "still running after SHUTDOWN {options}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts the program again on the same folder and port.
    ///
    /// # Panics
    /// Where it doesn't come up.
    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.program, &self.arguments, self.port, &self.folder);
        if let Err(fault) = self.wait_until_ready() {
            panic!("restart: {fault}\n{}", self.log_tail());
        }
    }

    /// The end of what the server printed.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(self.folder.join("log")).unwrap_or_default();
        let from = text.len().saturating_sub(4000);
        String::from_utf8_lossy(text.get(from..).unwrap_or_default()).into_owned()
    }

    fn wait_until_ready(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("ended with {status}"));
            }
            if let Ok(mut client) = Client::connect(self.port) {
                let _ = client.set_timeout(Duration::from_secs(5));
                match client.try_call(&["PING"]) {
                    Ok(reply) if reply.text() == "PONG" || reply.text().starts_with("NOAUTH") => {
                        return Ok(());
                    }
                    Ok(reply) if !reply.text().starts_with("LOADING") => {
                        return Err(format!("PING was answered with {reply:?}"));
                    }
                    _ => {}
                }
            }
            if Instant::now() > deadline {
                return Err("no answer to PING in time".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of {} ({})\n{}", self.program.display(), self.port, self.log_tail());
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn spawn(program: &Path, arguments: &[String], port: u16, folder: &Path) -> Child {
    let log = File::options().create(true).append(true).open(folder.join("log"));
    let log = log.unwrap_or_else(|fault| panic!("log in {}: {fault}", folder.display()));
    let errors = log.try_clone().unwrap_or_else(|fault| panic!("log: {fault}"));
    // setpriv asks the kernel to end the server when a test runner is killed before it could; it execs, so the
    // process id is the server's.
    let mut command = if Path::new("/usr/bin/setpriv").exists() {
        let mut command = Command::new("/usr/bin/setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    // A file's name comes before the names that it and the command line set.
    let (file, arguments) = match arguments.split_first() {
        Some((file, rest)) if !file.starts_with("--") => (Some(file), rest),
        _ => (None, arguments),
    };
    command.args(file);
    let own = |name: &str| arguments.iter().any(|argument| argument == name);
    command.arg("--port").arg(port.to_string()).arg("--dir").arg(folder);
    for (name, value) in [("--bind", "127.0.0.1"), ("--save", ""), ("--enable-debug-command", "yes")] {
        if !own(name) {
            command.args([name, value]);
        }
    }
    command.args(arguments).current_dir(folder).stdin(std::process::Stdio::null()).stdout(log).stderr(errors);
    command.spawn().unwrap_or_else(|fault| panic!("{}: {fault}", program.display()))
}

/// The server under test: `$KARA_SERVER`, else the build beside the running test.
///
/// # Panics
/// Where it isn't built.
pub fn own_program() -> PathBuf {
    if let Some(path) = std::env::var_os("KARA_SERVER") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap_or_default();
    let built = test.ancestors().skip(1).take(3).flat_map(|dir| [dir.join("kara-server"), dir.join("kara")]);
    built.into_iter().find(|path| path.is_file()).unwrap_or_else(|| {
        panic!("no kara beside {}: build it first (cargo xtask test does)", test.display())
    })
}

fn reference_program() -> PathBuf {
    let path = std::env::var_os("KARA_REFERENCE")
        .map_or_else(|| crate::peers().join("bin/valkey-server-9.1.2"), PathBuf::from);
    assert!(path.exists(), "{} is missing: cargo xtask peers installs it", path.display());
    path
}

/// A loopback port that nobody listens on at this moment.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .unwrap_or_else(|fault| panic!("no free port: {fault}"))
}

fn fresh_folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("kara-test-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap_or_else(|fault| panic!("{}: {fault}", folder.display()));
    folder
}
