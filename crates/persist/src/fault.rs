//! What disks do wrong, on demand: tests put a fault at a named place (DEBUG KARA-FAULT), and the code there meets it as
//! if the operating system had said so.
//!
//! Boundary: nothing is simulated but what a call answers. Without a fault set, a place costs one load.

use parking_lot::Mutex;
use rustix::process::{Signal, getpid, kill_process};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What happens at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call fails with that number of the operating system.
    Error(i32),
    /// A write takes so many bytes at most.
    Short(usize),
    /// The process ends at once, as by `kill -9`.
    Kill,
}

/// A fault at a place, after `skip` passes, `times` times.
#[derive(Clone, Debug)]
struct Rule {
    place: String,
    fault: Fault,
    skip: u64,
    times: u64,
}

/// All faults that are set.
#[derive(Debug, Default)]
pub struct Faults {
    armed: AtomicBool,
    rules: Mutex<Vec<Rule>>,
}

impl Faults {
    /// Puts a fault at a place, in the stead of one that is there.
    pub fn set(&self, place: &str, fault: Fault, skip: u64, times: u64) {
        let mut rules = self.rules.lock();
        rules.retain(|rule| rule.place != place);
        rules.push(Rule { place: place.to_owned(), fault, skip, times });
        self.armed.store(true, Relaxed);
    }

    /// Takes all faults away.
    pub fn clear(&self) {
        self.rules.lock().clear();
        self.armed.store(false, Relaxed);
    }

    /// Passes a place: fails, or ends the process, where that is asked for.
    #[inline]
    pub fn at(&self, place: &str) -> io::Result<()> {
        self.before_write(place, usize::MAX).map(drop)
    }

    /// As `at`, in front of a write of `len` bytes: gives how many of them it may take.
    #[inline]
    pub fn before_write(&self, place: &str, len: usize) -> io::Result<usize> {
        if self.armed.load(Relaxed) { self.meet(place, len) } else { Ok(len) }
    }

    #[cold]
    fn meet(&self, place: &str, len: usize) -> io::Result<usize> {
        let mut rules = self.rules.lock();
        let Some(rule) = rules.iter_mut().find(|rule| rule.place == place && rule.times > 0) else {
            return Ok(len);
        };
        if rule.skip > 0 {
            rule.skip -= 1;
            return Ok(len);
        }
        rule.times -= 1;
        match rule.fault {
            Fault::Error(number) => Err(io::Error::from_raw_os_error(number)),
            Fault::Short(most) => Ok(len.min(most)),
            Fault::Kill => {
                // There is nobody left to tell if it fails.
                let _ = kill_process(getpid(), Signal::KILL);
                loop {
                    std::thread::park();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_after_their_skip_and_go_after_their_times() {
        let faults = Faults::default();
        assert!(faults.at("a").is_ok());
        faults.set("a", Fault::Error(28), 1, 2);
        let seen: Vec<bool> = (0..5).map(|_| faults.at("a").is_ok()).collect();
        assert_eq!(seen, [true, false, false, true, true]);
        faults.set("a", Fault::Short(3), 0, 1);
        assert_eq!(faults.before_write("b", 9).ok(), Some(9));
        assert_eq!(faults.before_write("a", 9).ok(), Some(3));
        faults.set("a", Fault::Error(5), 0, u64::MAX);
        faults.clear();
        assert!(faults.at("a").is_ok());
    }
}
