//! HTTP for machines that watch: `/metrics` for Prometheus, `/healthz` and `/readyz` for probes, on `metrics-port`.
//!
//! One thread with an event loop of its own; it reads counters and never waits for a worker. Nothing that a client does
//! costs more than a bounded number of connections with bounded buffers for a bounded time.

mod conn;
mod routes;

use crate::host::ServerHost;
use conn::{Conn, Turn};
use crossbeam_channel::{Receiver, Sender};
use kara_engine::config::{Config, os_text};
use kara_engine::log::Level;
use kara_engine::shared::Shared;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};
use parking_lot::Mutex;
use routes::Routes;
use std::io::{self, ErrorKind};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

/// Connections at a time; more wait until one of these is through.
const MAX_CONNECTIONS: usize = 24;
/// Who takes longer than this makes room when others wait.
const FAIR_TIME: Duration = Duration::from_secs(1);
/// When no connection can be taken, the next look.
const RETRY: Duration = Duration::from_millis(50);
const WAKE: Token = Token(usize::MAX);
const LISTEN: usize = 1 << 20;

/// The way to the thread. It starts with the first port that is set.
#[derive(Debug, Default)]
pub struct Http {
    shared: OnceLock<Weak<Shared>>,
    thread: Mutex<Option<Thread>>,
}

#[derive(Debug)]
struct Thread {
    sender: Sender<Vec<TcpListener>>,
    waker: Arc<Waker>,
}

impl Http {
    /// What the pages are about. To be called once, at the start.
    pub fn attach(&self, shared: &Arc<Shared>) {
        // A second call changes nothing.
        let _ = self.shared.set(Arc::downgrade(shared));
    }

    /// Listens where the configuration says from now on. Nothing changes where that fails.
    pub fn listen(&self, config: &Config, host: &ServerHost) -> io::Result<()> {
        let listeners = open(config)?;
        let mut thread = self.thread.lock();
        if thread.is_none() && listeners.is_empty() {
            return Ok(());
        }
        let thread = match &mut *thread {
            Some(thread) => thread,
            none => {
                let Some(shared) = self.shared.get().and_then(Weak::upgrade) else { return Ok(()) };
                none.insert(start(&shared, host)?)
            }
        };
        // The thread ends with the process only.
        let _ = thread.sender.send(listeners);
        thread.waker.wake()
    }
}

/// The sockets; none without a port.
fn open(config: &Config) -> io::Result<Vec<TcpListener>> {
    if config.metrics_port == 0 {
        return Ok(Vec::new());
    }
    let own = &config.metrics_bind.0;
    let addresses = if own.is_empty() { &config.bind.0 } else { own };
    crate::listen::open_at(addresses, config.metrics_port, 64)
}

fn start(shared: &Arc<Shared>, host: &ServerHost) -> io::Result<Thread> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
    let (sender, receiver) = crossbeam_channel::unbounded();
    let mut server = Server {
        poll,
        receiver,
        listeners: Vec::new(),
        conns: (0..MAX_CONNECTIONS).map(|_| None).collect(),
        waiting: false,
        routes: Routes::new(shared.clone(), host.clone()),
    };
    let log = shared.clone();
    std::thread::Builder::new().name("http".into()).spawn(move || {
        if let Err(error) = server.run() {
            log.host.log(Level::Warning, &format!("Metrics can't be served any more: {}", os_text(&error)));
        }
    })?;
    Ok(Thread { sender, waker })
}

struct Server {
    poll: Poll,
    receiver: Receiver<Vec<TcpListener>>,
    listeners: Vec<TcpListener>,
    conns: Vec<Option<Conn>>,
    /// Connections may wait to be accepted.
    waiting: bool,
    routes: Routes,
}

impl Server {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(128);
        loop {
            match self.poll.poll(&mut events, self.timeout()) {
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                match event.token() {
                    WAKE => self.take_listeners()?,
                    Token(n) if n >= LISTEN => self.waiting = true,
                    Token(slot) => self.serve(slot),
                }
            }
            let now = Instant::now();
            for slot in 0..self.conns.len() {
                if self.conns[slot].as_ref().is_some_and(|conn| conn.deadline() <= now) {
                    self.conns[slot] = None;
                }
            }
            if self.waiting {
                self.accept();
            }
        }
    }

    /// Until the next connection's time is over.
    fn timeout(&self) -> Option<Duration> {
        let now = Instant::now();
        let next = self.conns.iter().flatten().map(Conn::deadline).min();
        let next = next.map(|deadline| deadline.saturating_duration_since(now));
        if self.waiting { Some(next.unwrap_or(RETRY).min(RETRY)) } else { next }
    }

    /// The newest set of sockets takes the place of the others.
    fn take_listeners(&mut self) -> io::Result<()> {
        while let Ok(mut listeners) = self.receiver.try_recv() {
            for (number, listener) in listeners.iter_mut().enumerate() {
                self.poll.registry().register(listener, Token(LISTEN + number), Interest::READABLE)?;
            }
            self.listeners = listeners;
            self.waiting = true;
        }
        Ok(())
    }

    fn accept(&mut self) {
        for number in 0..self.listeners.len() {
            loop {
                let Some(slot) = self.room() else { return };
                match self.listeners[number].accept() {
                    Ok((stream, _)) => {
                        // Without events it would stay until its time is over, so it goes at once.
                        self.conns[slot] = Conn::new(stream, self.poll.registry(), Token(slot)).ok();
                        self.serve(slot);
                    }
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) if crate::listen::is_passing(&e) => {}
                    // Out of descriptors: looked at again after a while.
                    Err(_) => return,
                }
            }
        }
        self.waiting = false;
    }

    /// A free place, made free if need be and fair.
    fn room(&mut self) -> Option<usize> {
        if let Some(free) = self.conns.iter().position(Option::is_none) {
            return Some(free);
        }
        let now = Instant::now();
        let may_go = |conn: &Conn| conn.is_idle() || now.duration_since(conn.since()) > FAIR_TIME;
        let each = self.conns.iter().enumerate().filter_map(|(slot, conn)| Some((slot, conn.as_ref()?)));
        let (slot, _) = each.filter(|(_, conn)| may_go(conn)).min_by_key(|(_, conn)| conn.since())?;
        self.conns[slot] = None;
        Some(slot)
    }

    /// Reads, answers and sends what can be.
    fn serve(&mut self, slot: usize) {
        let Some(Some(conn)) = self.conns.get_mut(slot) else { return };
        if conn.turn(&mut self.routes) == Turn::Over {
            self.conns[slot] = None;
        }
    }
}
