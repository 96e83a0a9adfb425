//! A snapshot on its way to several replicas' sockets at once. One that fails or stands still is left behind.

use super::link::Link;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// A full socket is looked at again so soon; its buffer holds more than goes through meanwhile.
const NAP: Duration = Duration::from_millis(1);

/// The sockets.
pub struct Fanout {
    pub links: Vec<Link>,
    timeout: Duration,
    pub mark: [u8; 40],
}

impl Fanout {
    /// `timeout`: how long a socket may take nothing.
    pub fn new(links: Vec<Link>, timeout: Duration, mark: [u8; 40]) -> Fanout {
        Fanout { links, timeout, mark }
    }

    /// The transfer's end.
    pub fn finish(mut self) -> io::Result<Vec<Link>> {
        let mark = self.mark;
        self.write_all(&mark)?;
        Ok(std::mem::take(&mut self.links))
    }
}

fn send(link: &mut Link, bytes: &[u8], timeout: Duration) -> io::Result<()> {
    link.say(bytes);
    let begun = Instant::now();
    let mut left = link.unsent();
    let mut moved = begun;
    while !link.flush()? {
        if link.member.info.kill.load(Relaxed) || link.member.replica.ending.lock().is_some() {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        if link.unsent() < left {
            left = link.unsent();
            moved = Instant::now();
        } else if moved.elapsed() > timeout {
            return Err(ErrorKind::TimedOut.into());
        }
        std::thread::sleep(NAP);
    }
    Ok(())
}

impl Write for Fanout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let timeout = self.timeout;
        self.links.retain_mut(|link| send(link, bytes, timeout).is_ok());
        if self.links.is_empty() {
            return Err(io::Error::new(ErrorKind::BrokenPipe, "no replica is left"));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
