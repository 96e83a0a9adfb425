//! The increment that is being appended to: records in memory in the order of the journal, written and brought to the
//! disk by whoever is about to answer a client.
//!
//! Whoever commits first writes for all that have come meanwhile, the others find their records written: one write and
//! one fsync for many clients. Errors lose nothing: what wasn't written stays and is tried again, what an fsync
//! failed on is written again in the same place.

use crate::fault::Faults;
use kara_base::ids::{DbIndex, JournalOffset};
use kara_keyspace::JournalSink;
use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

/// The log's end.
pub struct AofLog {
    pending: Mutex<Pending>,
    out: Mutex<Out>,
    /// Bytes since the start, not of one file.
    appended: AtomicU64,
    written: AtomicU64,
    synced: AtomicU64,
    timestamps: AtomicBool,
    /// The file's bytes when somebody last asked.
    size_seen: AtomicU64,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    db: Option<DbIndex>,
    stamped_s: i64,
}

struct Out {
    file: Arc<File>,
    /// Bytes of the file.
    size: u64,
    /// Taken from `pending`; up to `at` in the file, but not yet known to be durable where that is asked for.
    batch: Vec<u8>,
    at: usize,
    /// An fsync failed on what the batch has in the file, and it couldn't be cut off: no later fsync says anything about it.
    doubtful: bool,
}

/// Opens a file to append to.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

impl AofLog {
    /// Appends to `file`, which has `size` bytes.
    pub fn new(file: File, size: u64, timestamps: bool) -> Self {
        AofLog {
            pending: Mutex::default(),
            out: Mutex::new(Out { file: Arc::new(file), size, batch: Vec::new(), at: 0, doubtful: false }),
            appended: AtomicU64::new(0),
            written: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            timestamps: AtomicBool::new(timestamps),
            size_seen: AtomicU64::new(size),
            faults: Arc::default(),
        }
    }

    /// Counts on from where an earlier log ended: offsets never fall within a process.
    #[must_use]
    pub fn counting_from(self, offset: u64) -> Self {
        self.appended.store(offset, SeqCst);
        self.written.store(offset, SeqCst);
        self.synced.store(offset, SeqCst);
        self
    }

    /// Records up to this offset are on the disk.
    pub fn synced(&self) -> u64 {
        self.synced.load(SeqCst)
    }

    /// With faults at `aof-write` and `aof-sync`.
    #[must_use]
    pub fn with_faults(mut self, faults: Arc<Faults>) -> Self {
        self.faults = faults;
        self
    }

    /// `aof-timestamp-enabled`.
    pub fn set_timestamps(&self, on: bool) {
        self.timestamps.store(on, SeqCst);
    }

    /// Whether there are records that aren't written, or with `durable` not on the disk.
    #[inline]
    pub fn is_behind(&self, durable: bool) -> bool {
        let done = if durable { &self.synced } else { &self.written };
        done.load(SeqCst) < self.appended.load(SeqCst)
    }

    /// Bytes in memory.
    pub fn buffered(&self) -> u64 {
        self.appended.load(SeqCst).saturating_sub(self.written.load(SeqCst))
    }

    /// Bytes of the file that is appended to.
    pub fn file_size(&self) -> u64 {
        self.out.lock().size
    }

    /// The same for who must not wait: while somebody writes or syncs the file, its size at the last look.
    pub fn file_size_about(&self) -> u64 {
        if let Some(out) = self.out.try_lock() {
            self.size_seen.store(out.size, SeqCst);
        }
        self.size_seen.load(SeqCst)
    }

    /// Writes all records that were appended before the call; with `durable` brings them to the disk as well.
    pub fn commit(&self, durable: bool) -> io::Result<()> {
        let target = self.appended.load(SeqCst);
        let done = if durable { &self.synced } else { &self.written };
        if done.load(SeqCst) >= target {
            return Ok(());
        }
        let mut out = self.out.lock();
        if done.load(SeqCst) >= target {
            return Ok(());
        }
        self.commit_locked(&mut out, durable)
    }

    fn commit_locked(&self, out: &mut Out, durable: bool) -> io::Result<()> {
        let target = {
            let mut pending = self.pending.lock();
            if out.batch.is_empty() {
                std::mem::swap(&mut out.batch, &mut pending.bytes);
            } else {
                out.batch.append(&mut pending.bytes);
            }
            self.appended.load(SeqCst)
        };
        if out.doubtful {
            out.take_back()?;
        }
        out.write_batch(&self.faults)?;
        self.written.store(target, SeqCst);
        if durable {
            if let Err(error) = self.faults.at("aof-sync").and_then(|()| out.file.sync_data()) {
                // The kernel may have dropped the pages and would call the next fsync a success.
                // Where this fails too, the next try begins with it.
                let _ = out.take_back();
                self.written.store(self.synced.load(SeqCst), SeqCst);
                return Err(error);
            }
            self.synced.store(target, SeqCst);
        }
        out.forget_batch();
        Ok(())
    }

    /// Brings what is written to the disk, without holding up those who write.
    pub fn sync(&self) -> io::Result<()> {
        let (file, target) = {
            let out = self.out.lock();
            (out.file.clone(), self.written.load(SeqCst))
        };
        if self.synced.load(SeqCst) < target {
            self.faults.at("aof-sync")?;
            file.sync_data()?;
            self.synced.fetch_max(target, SeqCst);
        }
        Ok(())
    }

    /// Goes on in another file; gives back the old one, which holds what was appended so far, with `durable` on the
    /// disk; without, bringing it there is the caller's to do. Nobody may append meanwhile: all shards are held.
    pub fn switch(&self, file: File, size: u64, durable: bool) -> io::Result<Arc<File>> {
        let mut out = self.out.lock();
        self.commit_locked(&mut out, durable)?;
        let new = Out { file: Arc::new(file), size, batch: Vec::new(), at: 0, doubtful: false };
        let old = std::mem::replace(&mut *out, new);
        // Each file says itself which database its records are for.
        self.pending.lock().db = None;
        Ok(old.file)
    }
}

impl Out {
    fn write_batch(&mut self, faults: &Faults) -> io::Result<()> {
        while let Some(rest) = self.batch.get(self.at..).filter(|rest| !rest.is_empty()) {
            let most = faults.before_write("aof-write", rest.len())?;
            match (&*self.file).write(rest.get(..most).unwrap_or(rest)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.at += n;
                    self.size += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn forget_batch(&mut self) {
        const KEPT: usize = 1 << 20;
        self.batch.clear();
        self.batch.shrink_to(KEPT);
        self.at = 0;
    }

    /// Cuts the batch off the file, to be written again.
    fn take_back(&mut self) -> io::Result<()> {
        self.doubtful = true;
        let size = self.size - self.at as u64;
        self.file.set_len(size)?;
        (self.size, self.at, self.doubtful) = (size, 0, false);
        Ok(())
    }
}

/// Appends a command as clients send it.
pub(super) fn put_command(out: &mut Vec<u8>, args: &[&[u8]]) {
    let mut digits = itoa::Buffer::new();
    let mut head = |out: &mut Vec<u8>, mark: u8, n: usize| {
        out.push(mark);
        out.extend_from_slice(digits.format(n).as_bytes());
        out.extend_from_slice(b"\r\n");
    };
    head(out, b'*', args.len());
    for arg in args {
        head(out, b'$', arg.len());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

impl AofLog {
    fn put(&self, pending: &mut Pending, db: DbIndex, args: &[&[u8]], sent: Option<&[u8]>) {
        let before = pending.bytes.len();
        if self.timestamps.load(SeqCst) {
            let since =
                std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let now_s = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
            if now_s > pending.stamped_s {
                pending.stamped_s = now_s;
                pending.bytes.extend_from_slice(format!("#TS:{now_s}\r\n").as_bytes());
            }
        }
        // MULTI is of no database: as in the reference, the choice belongs to the transaction.
        if pending.db != Some(db) && !matches!(args, [b"MULTI"]) {
            pending.db = Some(db);
            put_command(&mut pending.bytes, &[b"SELECT", itoa::Buffer::new().format(db.0).as_bytes()]);
        }
        match sent {
            Some(sent) => pending.bytes.extend_from_slice(sent),
            None => put_command(&mut pending.bytes, args),
        }
        self.appended.fetch_add((pending.bytes.len() - before) as u64, SeqCst);
    }
}

impl JournalSink for AofLog {
    fn append(&self, db: DbIndex, args: &[&[u8]]) -> JournalOffset {
        self.put(&mut self.pending.lock(), db, args, None);
        self.offset()
    }

    fn append_sent(&self, db: DbIndex, args: &[&[u8]], sent: &[u8]) -> JournalOffset {
        self.put(&mut self.pending.lock(), db, args, Some(sent));
        self.offset()
    }

    fn append_group(&self, group: &[(DbIndex, &[&[u8]])]) -> JournalOffset {
        let mut pending = self.pending.lock();
        for (db, args) in group {
            self.put(&mut pending, *db, args, None);
        }
        drop(pending);
        self.offset()
    }

    fn offset(&self) -> JournalOffset {
        JournalOffset(self.appended.load(SeqCst))
    }
}
