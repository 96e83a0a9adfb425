//! Freeing what is expensive to free, off the workers' threads.

use crossbeam_channel::{Receiver, Sender};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Something to be dropped elsewhere, with the number of objects that INFO shows as pending.
struct Garbage(Box<dyn Send>, u64);

/// The sending side, shared by all workers.
#[derive(Debug)]
pub struct Reclaimer {
    sender: Sender<Garbage>,
    pending: AtomicU64,
    freed: AtomicU64,
}

/// The receiving side, for the thread that frees.
pub struct Reclaiming(Receiver<Garbage>);

impl std::fmt::Debug for Reclaiming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reclaiming")
    }
}

impl Reclaimer {
    /// Both sides.
    pub fn new() -> (Self, Reclaiming) {
        let (sender, receiver) = crossbeam_channel::unbounded();
        (Reclaimer { sender, pending: AtomicU64::new(0), freed: AtomicU64::new(0) }, Reclaiming(receiver))
    }

    /// Hands over `objects` objects; without a freeing thread they are dropped here.
    pub fn free(&self, garbage: Box<dyn Send>, objects: u64) {
        self.pending.fetch_add(objects, Relaxed);
        if self.sender.send(Garbage(garbage, objects)).is_err() {
            self.pending.fetch_sub(objects, Relaxed);
            self.freed.fetch_add(objects, Relaxed);
        }
    }

    /// Objects waiting to be freed.
    pub fn pending(&self) -> u64 {
        self.pending.load(Relaxed)
    }

    /// Objects freed since the start or the last reset.
    pub fn freed(&self) -> u64 {
        self.freed.load(Relaxed)
    }

    /// CONFIG RESETSTAT.
    pub fn reset_freed(&self) {
        self.freed.store(0, Relaxed);
    }
}

impl Reclaiming {
    /// Frees until every sender is gone.
    pub fn run(self, counters: &Reclaimer) {
        for Garbage(garbage, objects) in self.0.iter() {
            drop(garbage);
            counters.pending.fetch_sub(objects, Relaxed);
            counters.freed.fetch_add(objects, Relaxed);
        }
    }
}
