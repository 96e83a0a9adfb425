//! Freeing what is expensive to free, off the workers' threads.

use crossbeam_channel::{Receiver, Sender};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Something to be dropped elsewhere, with the number of objects that INFO shows as pending, and roughly the bytes where
/// somebody waits for them.
struct Garbage {
    what: Box<dyn Send>,
    objects: u64,
    bytes: u64,
}

/// The sending side, shared by all workers.
#[derive(Debug)]
pub struct Reclaimer {
    sender: Sender<Garbage>,
    pending: AtomicU64,
    pending_bytes: AtomicU64,
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
        let counter = AtomicU64::default;
        let reclaimer = Reclaimer { sender, pending: counter(), pending_bytes: counter(), freed: counter() };
        (reclaimer, Reclaiming(receiver))
    }

    /// Hands over `objects` objects; without a freeing thread they are dropped here.
    pub fn free(&self, what: Box<dyn Send>, objects: u64) {
        self.send(Garbage { what, objects, bytes: 0 });
    }

    /// Hands over an object of about so many bytes, which eviction counts as freed.
    pub fn free_large(&self, what: Box<dyn Send>, bytes: u64) {
        self.send(Garbage { what, objects: 1, bytes });
    }

    fn send(&self, garbage: Garbage) {
        self.pending.fetch_add(garbage.objects, Relaxed);
        self.pending_bytes.fetch_add(garbage.bytes, Relaxed);
        if let Err(returned) = self.sender.send(garbage) {
            self.dropped(returned.into_inner());
        }
    }

    fn dropped(&self, Garbage { what, objects, bytes }: Garbage) {
        drop(what);
        self.pending_bytes.fetch_sub(bytes, Relaxed);
        self.pending.fetch_sub(objects, Relaxed);
        self.freed.fetch_add(objects, Relaxed);
    }

    /// Bytes that eviction has handed over and that aren't freed yet, about.
    pub fn pending_bytes(&self) -> u64 {
        self.pending_bytes.load(Relaxed)
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
        for garbage in self.0.iter() {
            counters.dropped(garbage);
        }
    }
}
