//! A snapshot on its way to several replicas' sockets at once. One that fails or stands still is left behind.

use super::link::{Link, clock_ms};
use kara_engine::replication::patience;
use kara_engine::replication::sync::log;
use kara_engine::shared::Shared;
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// A full socket is looked at again so soon; its buffer holds more than goes through meanwhile.
const NAP: Duration = Duration::from_millis(1);
/// Sent in one call. The kernel gives its processor to nobody before a call's end (unless built to), and carries the bytes
/// through to the other end within it where that is on this machine: 0.2 ms for 128 KB.
const PIECE: usize = 16 << 10;
/// How often it is seen meanwhile what else may have changed: settings, the job, the replica.
const LOOK: Duration = Duration::from_millis(20);

/// The sockets.
pub struct Fanout {
    pub links: Vec<Link>,
    shared: Arc<Shared>,
    pub mark: [u8; 40],
}

impl Fanout {
    pub fn new(links: Vec<Link>, shared: Arc<Shared>, mark: [u8; 40]) -> Fanout {
        Fanout { links, shared, mark }
    }

    /// The transfer's end.
    pub fn finish(mut self) -> io::Result<Vec<Link>> {
        let mark = self.mark;
        self.write_all(&mark)?;
        let count = self.links.len();
        log(
            &self.shared,
            &format!(
                "Diskless rdb transfer, done reading from pipe, {count} replicas still up, 0 replicas dropped"
            ),
        );
        Ok(std::mem::take(&mut self.links))
    }
}

/// Fails where the socket takes nothing for `repl-timeout`, which may be set meanwhile, or nobody wants the data any more.
fn send(link: &mut Link, bytes: &[u8], shared: &Shared) -> io::Result<()> {
    link.say(bytes);
    let mut left = link.unsent();
    let mut moved = Instant::now();
    let mut looked = moved;
    while !link.flush()? {
        if link.unsent() < left {
            left = link.unsent();
            moved = Instant::now();
        }
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            look_at(link)?;
            if looked.duration_since(moved) > patience(&shared.config.load()) {
                return Err(ErrorKind::TimedOut.into());
            }
            if shared.persist.job.lock().as_ref().is_some_and(|job| job.is_over()) {
                return Err(io::Error::other("the snapshot has ended"));
            }
        }
        std::thread::sleep(NAP);
    }
    Ok(())
}

/// Whether the replica is still there and still wanted.
fn look_at(link: &mut Link) -> io::Result<()> {
    link.hear(clock_ms())?;
    if link.member.info.kill.load(Relaxed) || link.member.replica.ending().is_some() {
        return Err(ErrorKind::ConnectionAborted.into());
    }
    Ok(())
}

impl Write for Fanout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let shared = &self.shared;
        self.links.retain_mut(|link| {
            let sent = if bytes.is_empty() {
                look_at(link)
            } else {
                bytes.chunks(PIECE).try_for_each(|piece| send(link, piece, shared))
            };
            if let Err(error) = &sent {
                let address = link.address();
                let text = if error.kind() == ErrorKind::TimedOut {
                    format!("Disconnecting timedout replica (full sync): {address}")
                } else {
                    format!("Diskless rdb transfer, write error sending DB to replica {address}: {error}")
                };
                log(shared, &text);
            }
            sent.is_ok()
        });
        if self.links.is_empty() {
            log(&self.shared, "Diskless rdb transfer, last replica dropped, killing fork child.");
            return Err(io::Error::new(ErrorKind::BrokenPipe, "no replica is left"));
        }
        Ok(bytes.len())
    }

    /// Sees whether the replicas are still there.
    fn flush(&mut self) -> io::Result<()> {
        if !self.links.is_empty() { self.write(&[]).map(|_| ()) } else { Ok(()) }
    }
}
