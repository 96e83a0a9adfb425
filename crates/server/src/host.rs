//! The process as the engine sees it, and the workers' mailboxes.

use crate::apply::Process;
use crate::http::Http;
use crate::listen::Listeners;
use crate::peers::Peers;
use crate::replication;
use crate::transport::Transport;
use crossbeam_channel::{Receiver, Sender};
use kara_engine::config::{ApplyError, Changes, Config, os_text};
use kara_engine::log::{Level, LogSink};
use kara_engine::shared::{Host, Message, PeerError};
use kara_resp::Value;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What arrives in a worker's mailbox.
#[derive(Debug)]
pub enum Mail {
    /// A connection to adopt, with the peer's and our address.
    Connection(Transport, String, String),
    Engine(Message),
}

#[derive(Debug)]
struct Mailbox {
    sender: Sender<Mail>,
    receiver: Receiver<Mail>,
    waker: mio::Waker,
    /// The worker was woken and hasn't looked yet.
    woken: AtomicBool,
    /// Bytes of messages that wait.
    weight: AtomicUsize,
}

/// Messages waiting in one mailbox beyond which their senders wait.
const CONGESTED_BYTES: usize = 32 << 20;

impl Mailbox {
    fn put(&self, mail: Mail) {
        self.weight.fetch_add(weight(&mail), Relaxed);
        // The receiver lives as long as the sender: sending can't fail.
        let _ = self.sender.send(mail);
    }
}

/// What a message counts for against the bound.
fn weight(mail: &Mail) -> usize {
    match mail {
        Mail::Engine(Message::Push(push)) => push.weight(),
        Mail::Engine(_) | Mail::Connection(..) => 0,
    }
}

struct Inner {
    mailboxes: Vec<Mailbox>,
    stopping: AtomicBool,
    process: Process,
    sockets: Mutex<Listeners>,
    replicas: OnceLock<replication::Handle>,
    http: Http,
    peers: Peers,
}

/// A handle to the process; cheap to clone.
#[derive(Clone)]
pub struct ServerHost(Arc<Inner>);

impl std::fmt::Debug for ServerHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerHost")
    }
}

impl ServerHost {
    /// A host with a mailbox for each waker.
    pub fn new(wakers: Vec<mio::Waker>, process: Process, sockets: Listeners) -> Self {
        let mailboxes = wakers
            .into_iter()
            .map(|waker| {
                let (sender, receiver) = crossbeam_channel::unbounded();
                Mailbox {
                    sender,
                    receiver,
                    waker,
                    woken: AtomicBool::new(false),
                    weight: AtomicUsize::new(0),
                }
            })
            .collect();
        ServerHost(Arc::new(Inner {
            mailboxes,
            stopping: AtomicBool::new(false),
            process,
            sockets: Mutex::new(sockets),
            replicas: OnceLock::new(),
            http: Http::default(),
            peers: Peers::default(),
        }))
    }

    /// Puts mail into a worker's mailbox and wakes it.
    pub fn send(&self, worker: usize, mail: Mail) {
        if let Some(mailbox) = self.0.mailboxes.get(worker) {
            mailbox.put(mail);
            // One wake-up is enough for all that comes until the worker looks.
            if !mailbox.woken.swap(true, SeqCst) {
                let _ = mailbox.waker.wake();
            }
        }
    }

    /// Whether some mailbox is so full that whoever fills it should wait.
    pub fn is_congested(&self) -> bool {
        self.0.mailboxes.iter().any(|mailbox| mailbox.weight.load(Relaxed) > CONGESTED_BYTES)
    }

    /// The next mail of a worker.
    pub fn next_mail(&self, worker: usize) -> Option<Mail> {
        let mailbox = self.0.mailboxes.get(worker)?;
        // Before the look, so that what comes behind it wakes again.
        if mailbox.woken.load(Relaxed) {
            mailbox.woken.swap(false, SeqCst);
        }
        let mail = mailbox.receiver.try_recv().ok()?;
        mailbox.weight.fetch_sub(weight(&mail), Relaxed);
        Some(mail)
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.0.mailboxes.len()
    }

    /// Whether the process is on its way out.
    pub fn is_stopping(&self) -> bool {
        self.0.stopping.load(Relaxed)
    }

    /// Ends all workers' loops.
    pub fn stop(&self) {
        self.0.stopping.store(true, Relaxed);
        for mailbox in &self.0.mailboxes {
            let _ = mailbox.waker.wake();
        }
    }

    /// Wall time, Unix ms.
    pub fn now_ms(&self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
    }

    /// The process around the server.
    pub fn process(&self) -> &Process {
        &self.0.process
    }

    /// The listening sockets.
    pub fn sockets(&self) -> &Mutex<Listeners> {
        &self.0.sockets
    }

    /// Metrics and probes.
    pub fn http(&self) -> &Http {
        &self.0.http
    }

    /// The replicas' thread, once it runs.
    pub fn replicas(&self) -> Option<&replication::Handle> {
        self.0.replicas.get()
    }

    /// Lets connections become replicas'.
    pub fn set_replicas(&self, handle: replication::Handle) {
        // There is one such thread.
        let _ = self.0.replicas.set(handle);
    }

    /// A warning for the log.
    pub fn log_warning(&self, text: &str) {
        self.0.process.log.log(Level::Warning, text);
    }
}

impl Host for ServerHost {
    fn mail_bytes(&self) -> u64 {
        self.0.mailboxes.iter().map(|mailbox| mailbox.weight.load(Relaxed) as u64).sum()
    }

    fn post(&self, worker: usize, message: Message) {
        self.send(worker, Mail::Engine(message));
    }

    fn post_to_self(&self, worker: usize, message: Message) {
        if let Some(mailbox) = self.0.mailboxes.get(worker) {
            mailbox.put(Mail::Engine(message));
        }
    }

    fn exit(&self) -> ! {
        self.0.stopping.store(true, Relaxed);
        self.0.process.supervision.stopping();
        // Whoever sees its connection end must not get a new one.
        if let Some(mut sockets) = self.0.sockets.try_lock() {
            sockets.close();
        }
        self.0.process.clean_up();
        self.0.process.log.log(Level::Warning, "Kara is now ready to exit, bye bye...");
        std::process::exit(0)
    }

    fn apply_config(&self, _: &Config, new: &mut Config, changes: &Changes) -> Result<(), ApplyError> {
        self.0.process.apply(new, changes, &self.0.sockets)?;
        let http = ["metrics-port", "metrics-bind"];
        if let Some(name) = http.into_iter().find(|name| changes.contains(name)) {
            self.0.http.listen(new, self).map_err(|error| {
                self.log_warning(&format!("Warning: {}", os_text(&error)));
                ApplyError { name, reason: "Unable to listen there. Check server logs.".to_owned() }
            })?;
        }
        Ok(())
    }

    fn role_changed(&self, config: &Config) {
        self.0.process.role_changed(config);
    }

    fn log(&self, level: Level, text: &str) {
        self.0.process.log.log(level, text);
    }

    fn exchange(
        &self,
        host: &str,
        port: u16,
        timeout: Duration,
        requests: &[u8],
        expected: usize,
    ) -> Result<Vec<Value>, PeerError> {
        self.0.peers.exchange(host, port, timeout, requests, expected)
    }

    fn tidy_peers(&self) -> usize {
        self.0.peers.tidy()
    }

    fn listeners(&self) -> Vec<String> {
        self.0.sockets.lock().described()
    }
}
