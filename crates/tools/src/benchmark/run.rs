//! One test: connections that send a command again and again, each thread with a share of them.

use super::histogram::Histogram;
use super::options::BenchOptions;
use crate::cli::link::{Family, Fault, Link, encode, plain_text};
use kara_resp::Value;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PLACEHOLDER: &[u8] = b"__rand_int__";

/// The wire form of one request and where random numbers go.
pub struct Request {
    wire: Vec<u8>,
    places: Vec<usize>,
}

impl Request {
    pub fn new(words: &[Vec<u8>]) -> Request {
        let mut wire = Vec::new();
        encode(&mut wire, words);
        Request::raw(wire)
    }

    pub fn raw(wire: Vec<u8>) -> Request {
        let len = PLACEHOLDER.len();
        let places =
            (0..wire.len().saturating_sub(len)).filter(|at| wire.get(*at..at + len) == Some(PLACEHOLDER));
        Request { places: places.collect(), wire }
    }
}

/// What all threads share.
struct Shared<'a> {
    options: &'a BenchOptions,
    request: &'a Request,
    issued: AtomicU64,
    finished: AtomicU64,
    latency_us: AtomicU64,
    /// Whatever went wrong first.
    fault: Mutex<Option<String>>,
}

impl Shared<'_> {
    /// How many of the requests the caller may send now, at most `wanted`.
    fn take(&self, wanted: u64) -> u64 {
        let before = self.issued.fetch_add(wanted, Ordering::Relaxed);
        self.options.requests.saturating_sub(before).min(wanted)
    }

    fn fail(&self, why: String) {
        if let Ok(mut fault) = self.fault.lock() {
            fault.get_or_insert(why);
        }
    }

    fn has_failed(&self) -> bool {
        self.fault.lock().is_ok_and(|fault| fault.is_some())
    }
}

pub struct Outcome {
    pub histogram: Histogram,
    pub seconds: f64,
}

/// Opens a connection and greets: password, protocol, tracking, database.
pub fn connect(options: &BenchOptions) -> Result<Link, String> {
    let target = &options.target;
    let place = match &target.socket {
        Some(path) => String::from_utf8_lossy(path).into_owned(),
        None => format!("{}:{}", String::from_utf8_lossy(&target.host), target.port),
    };
    let mut link = Link::open(target, None, Family::Any)
        .map_err(|fault| format!("Could not connect to server at {place}: {}", plain_text(&fault)))?;
    let mut greeting: Vec<Vec<Vec<u8>>> = Vec::new();
    let words = |line: &[&[u8]]| line.iter().map(|word| word.to_vec()).collect::<Vec<_>>();
    if let Some(password) = &target.password {
        greeting.push(match &target.user {
            Some(user) => words(&[b"AUTH", user, password]),
            None => words(&[b"AUTH", password]),
        });
    }
    if options.resp3 {
        greeting.push(words(&[b"HELLO", b"3"]));
    }
    if options.tracking {
        greeting.push(words(&[b"CLIENT", b"TRACKING", b"on"]));
    }
    if target.db != 0 {
        greeting.push(words(&[b"SELECT", target.db.to_string().as_bytes()]));
    }
    let replies = link.pipeline(&greeting).map_err(|fault| format!("Error: {fault}"))?;
    match replies.iter().find_map(Value::as_error) {
        Some(text) => Err(format!("Error from server: {}", String::from_utf8_lossy(text))),
        None => Ok(link),
    }
}

/// Runs the test; `progress` is called four times a second with what has been done: seconds, requests, their latency.
pub fn run(
    options: &BenchOptions,
    request: &Request,
    mut progress: impl FnMut(f64, u64, u64),
) -> Result<Outcome, String> {
    let shared = Shared {
        options,
        request,
        issued: AtomicU64::new(0),
        finished: AtomicU64::new(0),
        latency_us: AtomicU64::new(0),
        fault: Mutex::new(None),
    };
    let count = usize::try_from(options.requests).unwrap_or(usize::MAX).min(options.clients);
    let threads = options.threads.clamp(1, count);
    let mut links = Vec::with_capacity(count);
    for _ in 0..count {
        links.push(connect(options)?);
    }
    let mut shares: Vec<Vec<Link>> = (0..threads).map(|_| Vec::new()).collect();
    for (at, link) in links.into_iter().enumerate() {
        shares[at % threads].push(link);
    }
    let began = Instant::now();
    let mut histogram = Histogram::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = shares
            .into_iter()
            .enumerate()
            .map(|(at, share)| {
                let shared = &shared;
                scope.spawn(move || work(shared, share, at))
            })
            .collect();
        let mut shown = Instant::now();
        while workers.iter().any(|worker| !worker.is_finished()) {
            std::thread::sleep(Duration::from_millis(1));
            if shown.elapsed() >= Duration::from_millis(250) {
                shown = Instant::now();
                let (done, latency) = (&shared.finished, &shared.latency_us);
                progress(
                    began.elapsed().as_secs_f64(),
                    done.load(Ordering::Relaxed),
                    latency.load(Ordering::Relaxed),
                );
            }
        }
        for worker in workers {
            match worker.join() {
                Ok(part) => histogram.merge(&part),
                Err(_) => shared.fail("Error: a thread of the benchmark failed".into()),
            }
        }
    });
    let seconds = began.elapsed().as_secs_f64();
    match shared.fault.into_inner() {
        Ok(None) => Ok(Outcome { histogram, seconds }),
        Ok(Some(why)) => Err(why),
        Err(_) => Err("Error: a thread of the benchmark failed".into()),
    }
}

/// One connection's state within a thread.
struct Client {
    link: Link,
    outgoing: Vec<u8>,
    sent: usize,
    pending: u64,
    started: Instant,
}

/// A fast source of numbers; nothing here wants better ones.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }
}

fn work(shared: &Shared<'_>, links: Vec<Link>, thread: usize) -> Histogram {
    let mut histogram = Histogram::default();
    let seed = u64::try_from(thread).unwrap_or(0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut random = Random(seed ^ u64::from(std::process::id()) ^ 0x2545_f491_4f6c_dd1d);
    let mut clients: Vec<Client> = Vec::with_capacity(links.len());
    for link in links {
        if let Err(fault) = link.set_nonblocking(true) {
            shared.fail(format!("Error: {fault}"));
            return histogram;
        }
        let mut client = Client { link, outgoing: Vec::new(), sent: 0, pending: 0, started: Instant::now() };
        if client.begin(shared, &mut random) {
            clients.push(client);
        }
    }
    while !clients.is_empty() && !shared.has_failed() {
        let ready = match wait(&clients) {
            Ok(ready) => ready,
            Err(fault) => {
                shared.fail(format!("Error: {fault}"));
                break;
            }
        };
        let mut at = 0;
        clients.retain_mut(|client| {
            let is_ready = ready.get(at).copied().unwrap_or(false);
            at += 1;
            if !is_ready {
                return true;
            }
            match client.turn(shared, &mut histogram, &mut random) {
                Ok(goes_on) => goes_on,
                Err(why) => {
                    shared.fail(why);
                    false
                }
            }
        });
    }
    histogram
}

fn wait(clients: &[Client]) -> Result<Vec<bool>, rustix::io::Errno> {
    let mut polled: Vec<PollFd<'_>> = clients
        .iter()
        .map(|client| {
            let unsent = client.sent < client.outgoing.len();
            let flags = if unsent { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            PollFd::from_borrowed_fd(client.link.as_fd(), flags)
        })
        .collect();
    match poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 250_000_000 })) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(fault) => return Err(fault),
    }
    Ok(polled.iter().map(|polled| !polled.revents().is_empty()).collect())
}

impl Client {
    /// Prepares and sends the next batch; false where there is none left.
    fn begin(&mut self, shared: &Shared<'_>, random: &mut Random) -> bool {
        let count = shared.take(shared.options.pipeline);
        if count == 0 {
            return false;
        }
        self.outgoing.clear();
        for _ in 0..count {
            let start = self.outgoing.len();
            self.outgoing.extend_from_slice(&shared.request.wire);
            if let Some(limit) = shared.options.random {
                for place in &shared.request.places {
                    let digits = format!("{:012}", random.below(limit));
                    let digits = digits.as_bytes().get(..PLACEHOLDER.len()).unwrap_or(PLACEHOLDER);
                    let at = start + place;
                    self.outgoing[at..at + PLACEHOLDER.len()].copy_from_slice(digits);
                }
            }
        }
        (self.sent, self.pending, self.started) = (0, count, Instant::now());
        // What doesn't go out at once goes when the socket is ready.
        self.send().is_ok()
    }

    fn send(&mut self) -> std::io::Result<()> {
        while self.sent < self.outgoing.len() {
            match self.link.write_some(self.outgoing.get(self.sent..).unwrap_or_default()) {
                Ok(count) => self.sent += count,
                Err(fault) if fault.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(fault) if fault.kind() == std::io::ErrorKind::Interrupted => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }

    /// Sends and reads what is ready; false where this client is done.
    fn turn(
        &mut self,
        shared: &Shared<'_>,
        histogram: &mut Histogram,
        random: &mut Random,
    ) -> Result<bool, String> {
        self.send().map_err(|fault| format!("Error writing to the server: {}", plain_text(&fault)))?;
        match self.link.fill() {
            Err(Fault::Io(fault)) if fault.kind() == std::io::ErrorKind::WouldBlock => return Ok(true),
            other => other.map_err(|fault| format!("Error: {fault}"))?,
        }
        let took_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        while let Some(value) = self.link.buffered().map_err(|fault| format!("Error: {fault}"))? {
            match value {
                Value::Error(text) => {
                    return Err(format!("Error from server: {}", String::from_utf8_lossy(&text)));
                }
                Value::Push(_) => continue,
                _ => {}
            }
            if self.pending == 0 {
                return Err("Unexpected reply, exiting...".into());
            }
            self.pending -= 1;
            histogram.add(took_us);
            shared.finished.fetch_add(1, Ordering::Relaxed);
            shared.latency_us.fetch_add(took_us, Ordering::Relaxed);
        }
        if self.pending > 0 {
            return Ok(true);
        }
        if !shared.options.keep_alive && shared.issued.load(Ordering::Relaxed) < shared.options.requests {
            self.link = connect(shared.options)?;
            self.link.set_nonblocking(true).map_err(|fault| format!("Error: {fault}"))?;
        }
        Ok(self.begin(shared, random))
    }
}
