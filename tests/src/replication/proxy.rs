//! A relay between a replica and its primary that can fail in the ways networks do.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How a link fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cut {
    /// It works.
    None = 0,
    /// Both ends see the connection end; new ones are refused.
    Reset = 1,
    /// Nothing comes through any more, and nobody is told.
    Drop = 2,
    /// Likewise, but only from the primary to the replica.
    DropToReplica = 3,
    /// And the other way round.
    DropToPrimary = 4,
}

impl Cut {
    /// Every way to fail.
    pub const ALL: [Cut; 4] = [Cut::Reset, Cut::Drop, Cut::DropToReplica, Cut::DropToPrimary];
}

struct Shared {
    cut: AtomicU8,
    target: AtomicU16,
    stop: AtomicBool,
    /// Bytes from the primary so far.
    passed: AtomicU64,
    /// At this many bytes from the primary over a connection the link fails by itself; 0: never.
    cut_after: AtomicU64,
    /// How it does then.
    cut_then: AtomicU8,
    open: Mutex<Vec<TcpStream>>,
}

/// The relay; its threads end when it is dropped.
pub struct Proxy {
    shared: Arc<Shared>,
    port: u16,
}

impl Proxy {
    /// Relays connections to that port of this host.
    ///
    /// # Panics
    /// Where no port can be listened on.
    pub fn to(target: u16) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap_or_else(|fault| panic!("proxy: {fault}"));
        let port = listener.local_addr().map_or(0, |address| address.port());
        let _ = listener.set_nonblocking(true);
        let shared = Arc::new(Shared {
            cut: AtomicU8::new(0),
            target: AtomicU16::new(target),
            stop: AtomicBool::new(false),
            passed: AtomicU64::new(0),
            cut_after: AtomicU64::new(0),
            cut_then: AtomicU8::new(0),
            open: Mutex::default(),
        });
        let own = shared.clone();
        std::thread::spawn(move || accept(&listener, &own));
        Proxy { shared, port }
    }

    /// Where replicas connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From the next connection on, that port is the target.
    pub fn retarget(&self, port: u16) {
        self.shared.target.store(port, Relaxed);
    }

    /// Fails from now on, or works again. Connections whose bytes were lost don't recover: they end when it works again.
    pub fn cut(&self, how: Cut) {
        self.shared.cut.store(how as u8, Relaxed);
        if matches!(how, Cut::Reset | Cut::None) {
            self.end_all();
        }
    }

    /// Fails that way once so many bytes have come from the primary over one connection.
    pub fn cut_after(&self, bytes: u64, how: Cut) {
        self.shared.cut_then.store(how as u8, Relaxed);
        self.shared.cut_after.store(bytes.max(1), Relaxed);
    }

    /// Whether it has yet to fail by itself; from now on it won't.
    pub fn disarm(&self) -> bool {
        self.shared.cut_after.swap(0, Relaxed) != 0
    }

    /// Whether it fails now.
    pub fn is_cut(&self) -> bool {
        self.shared.cut.load(Relaxed) != Cut::None as u8
    }

    /// Bytes that came from the primary.
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Relaxed)
    }

    fn end_all(&self) {
        self.shared.end_all();
    }
}

impl Shared {
    fn end_all(&self) {
        for stream in self.open.lock().unwrap_or_else(|e| e.into_inner()).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        self.end_all();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.stop.load(Relaxed) {
        match listener.accept() {
            Ok((replica, _)) => {
                if shared.cut.load(Relaxed) == Cut::Reset as u8 {
                    continue;
                }
                let Ok(primary) = TcpStream::connect(("127.0.0.1", shared.target.load(Relaxed))) else {
                    continue;
                };
                for stream in [&replica, &primary] {
                    let _ = stream.set_nonblocking(false);
                    let _ = stream.set_nodelay(true);
                    let _ = stream.set_read_timeout(Some(Duration::from_millis(50)));
                }
                if let (Ok(a), Ok(b)) = (replica.try_clone(), primary.try_clone()) {
                    shared.open.lock().unwrap_or_else(|e| e.into_inner()).extend([a, b]);
                    pump(replica, primary, shared);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(_) => return,
        }
    }
}

/// A thread for each direction.
fn pump(replica: TcpStream, primary: TcpStream, shared: &Arc<Shared>) {
    let (Ok(replica_in), Ok(primary_in)) = (replica.try_clone(), primary.try_clone()) else { return };
    let own = shared.clone();
    std::thread::spawn(move || relay(primary_in, replica, &own, true));
    let own = shared.clone();
    std::thread::spawn(move || relay(replica_in, primary, &own, false));
}

fn relay(mut from: TcpStream, mut to: TcpStream, shared: &Shared, to_replica: bool) {
    let silent = if to_replica { Cut::DropToReplica } else { Cut::DropToPrimary } as u8;
    let mut buffer = vec![0; 64 << 10];
    let mut count = 0;
    // Bytes of this connection were lost: it must not go on, or what follows would be taken for them.
    let mut lost = false;
    while !shared.stop.load(Relaxed) {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                let cut = shared.cut.load(Relaxed);
                if cut == Cut::Drop as u8 || cut == silent {
                    lost = true;
                    continue;
                }
                if lost {
                    break;
                }
                count += n as u64;
                if to_replica {
                    shared.passed.fetch_add(n as u64, Relaxed);
                    let limit = shared.cut_after.load(Relaxed);
                    let is_due = limit > 0 && count >= limit;
                    if is_due && shared.cut_after.compare_exchange(limit, 0, Relaxed, Relaxed).is_ok() {
                        let how = shared.cut_then.load(Relaxed);
                        shared.cut.store(how, Relaxed);
                        if how == Cut::Reset as u8 {
                            shared.end_all();
                        }
                        if how != Cut::DropToPrimary as u8 {
                            lost = true;
                            continue;
                        }
                    }
                }
                if to.write_all(buffer.get(..n).unwrap_or_default()).is_err() {
                    break;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
