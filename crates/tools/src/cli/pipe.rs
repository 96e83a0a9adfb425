//! `--pipe`: the protocol on standard input goes to the server as it is; replies are counted meanwhile.

use super::link::{Fault, Link, encode, plain_text};
use super::session::{Exit, emit_line};
use kara_resp::Value;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Written without looking for replies.
const WRITE_AT_ONCE: usize = 128 * 1024;

struct Pipe<'a> {
    link: &'a mut Link,
    outgoing: Vec<u8>,
    sent: usize,
    /// Standard input has ended, and the command whose reply says that everything arrived is on its way.
    ended: bool,
    mark: [u8; 20],
    replies: u64,
    errors: u64,
    done: bool,
}

pub fn run(link: &mut Link, timeout_s: i64) -> Result<(), Exit> {
    if let Err(fault) = link.set_nonblocking(true) {
        eprintln!("Can't set the socket in non blocking mode: {}", plain_text(&fault));
        return Err(Exit(1));
    }
    let limit = u64::try_from(timeout_s).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
    let mut pipe = Pipe {
        link,
        outgoing: Vec::new(),
        sent: 0,
        ended: false,
        mark: mark(),
        replies: 0,
        errors: 0,
        done: false,
    };
    let mut last_reply = Instant::now();
    while !pipe.done {
        let (readable, writable) = pipe.wait()?;
        if readable && pipe.read_replies()? {
            last_reply = Instant::now();
        }
        if writable {
            pipe.write()?;
        }
        if let Some(limit) = limit
            && pipe.ended
            && last_reply.elapsed() > limit
        {
            eprintln!("No replies for {} seconds: exiting.", limit.as_secs());
            pipe.errors += 1;
            break;
        }
    }
    emit_line(&format!("errors: {}, replies: {}", pipe.errors, pipe.replies))?;
    if pipe.errors > 0 { Err(Exit(1)) } else { Ok(()) }
}

/// Letters that no reply will hold by chance: a hash of the time and the process.
fn mark() -> [u8; 20] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let mut state = u64::try_from(now & u128::from(u64::MAX)).unwrap_or(1) ^ u64::from(std::process::id());
    std::array::from_fn(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        b'a' + u8::try_from((state >> 33) % 26).unwrap_or(0)
    })
}

impl Pipe<'_> {
    fn wait(&mut self) -> Result<(bool, bool), Exit> {
        use std::os::fd::AsFd;
        let mut wanted = PollFlags::IN;
        if !self.ended || self.sent < self.outgoing.len() {
            wanted |= PollFlags::OUT;
        }
        let mut polled = [PollFd::from_borrowed_fd(self.link.as_fd(), wanted)];
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        match poll(&mut polled, Some(&second)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(fault) => {
                eprintln!("poll: {fault}");
                return Err(Exit(1));
            }
        }
        let events = polled[0].revents();
        let readable = events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
        Ok((readable, events.contains(PollFlags::OUT)))
    }

    /// True where a reply came.
    fn read_replies(&mut self) -> Result<bool, Exit> {
        let mut broken = None;
        match self.link.fill() {
            Err(Fault::Io(fault)) if fault.kind() == ErrorKind::WouldBlock => {}
            Err(fault) => broken = Some(fault),
            Ok(()) => {}
        }
        let before = self.replies;
        loop {
            match self.link.buffered() {
                Ok(Some(value)) => self.count(&value),
                Ok(None) => break,
                Err(_) => {
                    eprintln!("Error reading replies from server");
                    return Err(Exit(1));
                }
            }
        }
        // Only now: what arrived before the end may say why it ended.
        if broken.is_some() && !self.done {
            eprintln!("Error reading replies from server");
            return Err(Exit(1));
        }
        Ok(self.replies > before || self.done)
    }

    fn count(&mut self, value: &Value) {
        match value {
            Value::Error(text) => {
                eprintln!("{}", String::from_utf8_lossy(text));
                self.errors += 1;
            }
            Value::Bulk(text) if self.ended && text == &self.mark => {
                let _ = emit_line("Last reply received from server.");
                self.done = true;
                return;
            }
            _ => {}
        }
        self.replies += 1;
    }

    fn write(&mut self) -> Result<(), Exit> {
        let mut written = 0;
        while written < WRITE_AT_ONCE {
            if self.sent == self.outgoing.len() {
                if self.ended {
                    return Ok(());
                }
                self.load()?;
            }
            match self.link.write_some(self.outgoing.get(self.sent..).unwrap_or_default()) {
                Ok(count) => {
                    self.sent += count;
                    written += count;
                }
                Err(fault) if matches!(fault.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    return Ok(());
                }
                Err(fault) => {
                    eprintln!("Error writing to the server: {}", plain_text(&fault));
                    return Err(Exit(1));
                }
            }
        }
        Ok(())
    }

    /// The next piece of standard input; behind its end the command that asks for the mark.
    fn load(&mut self) -> Result<(), Exit> {
        self.outgoing.resize(16 * 1024, 0);
        self.sent = 0;
        let count = std::io::stdin().read(&mut self.outgoing).map_err(|fault| {
            eprintln!("Error reading from stdin: {}", plain_text(&fault));
            Exit(1)
        })?;
        self.outgoing.truncate(count);
        if count == 0 {
            self.ended = true;
            // An empty line first: behind an unfinished inline command it is a new one.
            self.outgoing.extend_from_slice(b"\r\n");
            encode(&mut self.outgoing, &[&b"ECHO"[..], &self.mark]);
            emit_line("All data transferred. Waiting for the last reply...")?;
        }
        Ok(())
    }
}
