//! The replication stream as one log that all replicas read by offset: nobody has a copy of its own.
//!
//! Offsets count the stream's bytes: `end` is the offset of the last byte, a reader at `position` wants the byte
//! `position + 1` next. What is older than the configured size goes, unless an attached replica still has to read it.

use kara_base::ids::{DbIndex, JournalOffset};
use kara_keyspace::journal::Reader;
use kara_keyspace::{JournalSink, prefetch_line_to_write};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::time::Duration;

/// The log grows and shrinks by blocks of this size.
const BLOCK: usize = 16 << 10;
/// So much of what will be written next is brought into the cache: who appends holds a lock, and gives it back only once
/// what was written is there.
const AHEAD: usize = 256;
const LINE: usize = 64;

/// The log.
pub struct Backlog {
    inner: Mutex<Inner>,
    /// `Inner::end` for who doesn't want to wait for the lock; written with it held.
    end: AtomicU64,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// For a reading thread that gathers.
    urgent_came: Condvar,
}

struct Inner {
    /// Each holds `BLOCK` bytes, but for the last.
    blocks: VecDeque<Vec<u8>>,
    /// The offset before the first byte of the first block.
    first: u64,
    /// Bytes up to here are given up.
    start: u64,
    end: u64,
    size: u64,
    /// The least position of an attached replica.
    needed: Option<u64>,
    /// The database that the stream's reader has selected.
    db: Option<DbIndex>,
    active: bool,
    rest: Rest,
    /// The end of the last command that shouldn't wait.
    urgent: u64,
    /// What had been read when it began to gather.
    gathers_from: u64,
}

/// What the reading thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    Awake,
    /// It lets the stream gather, and wants to be woken by what shouldn't wait.
    Gathers,
    /// It wants to be woken by whatever is appended.
    Sleeps,
}

/// What the log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub active: bool,
    /// Bytes up to this offset are gone.
    pub start: u64,
    pub end: u64,
    /// The database that is selected at the end, if that is known.
    pub db: Option<DbIndex>,
}

impl Extent {
    /// Whether a reader at that position can be served.
    pub fn holds(&self, position: u64) -> bool {
        self.active && position >= self.start && position <= self.end
    }
}

impl std::fmt::Debug for Backlog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backlog").field("end", &self.end()).finish_non_exhaustive()
    }
}

impl Default for Backlog {
    fn default() -> Self {
        let inner = Inner {
            blocks: VecDeque::new(),
            first: 0,
            start: 0,
            end: 0,
            size: 1 << 20,
            needed: None,
            db: None,
            active: false,
            rest: Rest::Awake,
            urgent: 0,
            gathers_from: 0,
        };
        Backlog {
            inner: Mutex::new(inner),
            end: AtomicU64::new(0),
            wake: OnceLock::new(),
            urgent_came: Condvar::new(),
        }
    }
}

impl Backlog {
    /// How the reading thread is woken. To be set once.
    pub fn set_waker(&self, wake: Box<dyn Fn() + Send + Sync>) {
        // A second reader doesn't exist.
        let _ = self.wake.set(wake);
    }

    /// The offset of the last byte.
    pub fn end(&self) -> u64 {
        self.end.load(Acquire)
    }

    pub fn extent(&self) -> Extent {
        let inner = self.inner.lock();
        Extent { active: inner.active, start: inner.start, end: inner.end, db: inner.db }
    }

    /// Begins to keep the stream; false if it is kept already.
    pub fn activate(&self, size: u64) -> bool {
        let mut inner = self.inner.lock();
        inner.size = size;
        if inner.active {
            return false;
        }
        inner.active = true;
        inner.forget();
        true
    }

    /// Gives up what is kept; offsets go on.
    pub fn deactivate(&self) {
        let mut inner = self.inner.lock();
        inner.active = false;
        inner.forget();
    }

    /// Forgets everything and goes on behind `end`: the stream is another one now.
    pub fn restart(&self, end: u64, db: Option<DbIndex>) {
        let mut inner = self.inner.lock();
        (inner.end, inner.urgent) = (end, end);
        inner.forget();
        inner.db = db;
        self.end.store(end, Release);
    }

    /// `repl-backlog-size`, in bytes.
    pub fn resize(&self, size: u64) {
        let mut inner = self.inner.lock();
        inner.size = size;
        inner.trim();
    }

    /// The least position that is still to be read; `None`: nobody reads.
    pub fn set_needed(&self, position: Option<u64>) {
        let mut inner = self.inner.lock();
        inner.needed = position;
        inner.trim();
    }

    /// The next record will say its database whatever was selected before.
    pub fn forget_db(&self) {
        self.inner.lock().db = None;
    }

    /// Bytes of memory.
    pub fn memory(&self) -> usize {
        let inner = self.inner.lock();
        inner.blocks.len() * BLOCK + inner.blocks.capacity() * size_of::<Vec<u8>>()
    }

    /// Of `memory`: what is kept beyond the backlog's size because a replica has yet to read it.
    pub fn excess(&self) -> u64 {
        let inner = self.inner.lock();
        let held = inner.blocks.len() * BLOCK + inner.blocks.capacity() * size_of::<Vec<u8>>();
        // What the log takes beside its size when nobody is behind counts as its size: one word per block.
        let own = inner.size + (inner.size / BLOCK as u64 + 1) * size_of::<Vec<u8>>() as u64;
        (held as u64).saturating_sub(own)
    }

    /// Appends what a primary sent, as it is. `db`: what is selected behind it.
    pub fn append_raw(&self, bytes: &[u8], db: Option<DbIndex>) {
        let mut inner = self.inner.lock();
        inner.put(bytes);
        if db.is_some() {
            inner.db = db;
        }
        self.appended(inner);
    }

    /// Appends a command that concerns no database (PING, REPLCONF GETACK) and shouldn't wait.
    pub fn append_plain(&self, args: &[&[u8]]) {
        let mut inner = self.inner.lock();
        if !inner.active {
            return;
        }
        inner.command(args);
        inner.urgent = inner.end;
        self.appended(inner);
    }

    /// Behind whatever was appended.
    fn appended(&self, mut inner: MutexGuard<'_, Inner>) {
        inner.trim();
        inner.look_ahead();
        self.end.store(inner.end, Release);
        let wakes = match inner.rest {
            Rest::Awake => false,
            Rest::Gathers if inner.has_gathered() => {
                self.urgent_came.notify_one();
                true
            }
            Rest::Gathers => false,
            Rest::Sleeps => true,
        };
        if wakes {
            inner.rest = Rest::Awake;
        }
        drop(inner);
        if wakes {
            self.nudge();
        }
    }

    /// Copies at most `max` bytes from behind `position` into `into`, in the place of what it held. False: they are gone.
    pub fn read(&self, position: u64, max: usize, into: &mut Vec<u8>) -> bool {
        into.clear();
        let inner = self.inner.lock();
        if !inner.active || position < inner.start || position > inner.end {
            return false;
        }
        let mut at = usize::try_from(position - inner.first).unwrap_or(usize::MAX);
        let mut left = max.min(usize::try_from(inner.end - position).unwrap_or(usize::MAX));
        while left > 0 {
            let Some(block) = inner.blocks.get(at / BLOCK) else { break };
            let some = block.get(at % BLOCK..).unwrap_or_default();
            let n = some.len().min(left);
            into.extend_from_slice(&some[..n]);
            if n == 0 {
                break;
            }
            at += n;
            left -= n;
        }
        true
    }

    /// The reading thread is about to sleep, having read everything up to `position`. False: there is more already.
    pub fn sleep(&self, position: u64) -> bool {
        self.rest(Rest::Sleeps, |inner| inner.end <= position)
    }

    /// The same, but it wants to be woken only by what shouldn't wait, or when half of what the log keeps anyway has come:
    /// it never keeps more because of this. False: there is such a thing already.
    pub fn gather(&self, position: u64) -> bool {
        self.rest(Rest::Gathers, |inner| inner.may_gather(position))
    }

    /// Waits for that long, or until something comes that shouldn't.
    pub fn gather_for(&self, position: u64, time: Duration) {
        let mut inner = self.inner.lock();
        if inner.may_gather(position) {
            inner.rest = Rest::Gathers;
            // Whether it was woken doesn't matter.
            let _ = self.urgent_came.wait_for(&mut inner, time);
            inner.rest = Rest::Awake;
        }
    }

    /// Whether something behind the position shouldn't wait.
    pub fn is_urgent(&self, position: u64) -> bool {
        self.inner.lock().urgent > position
    }

    fn rest(&self, how: Rest, may: impl FnOnce(&mut Inner) -> bool) -> bool {
        let mut inner = self.inner.lock();
        let rests = may(&mut inner);
        inner.rest = if rests { how } else { Rest::Awake };
        rests
    }

    /// Wakes the reading thread without news in the log.
    pub fn nudge(&self) {
        if let Some(wake) = self.wake.get() {
            wake();
        }
    }
}

impl Inner {
    /// Whether what comes behind a position may gather.
    fn may_gather(&mut self, position: u64) -> bool {
        self.gathers_from = position;
        !self.has_gathered()
    }

    /// Whether there is reason to end a gathering.
    fn has_gathered(&self) -> bool {
        self.urgent > self.gathers_from || self.end.saturating_sub(self.gathers_from) > self.size / 2
    }

    fn forget(&mut self) {
        self.blocks.clear();
        self.first = self.end;
        self.start = self.end;
        self.db = None;
    }

    fn put(&mut self, mut bytes: &[u8]) {
        if !self.active {
            self.end += bytes.len() as u64;
            self.forget();
            return;
        }
        self.end += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.blocks.back().is_none_or(|block| block.len() == BLOCK) {
                self.blocks.push_back(Vec::with_capacity(BLOCK));
            }
            let Some(block) = self.blocks.back_mut() else { return };
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - block.len()));
            block.extend_from_slice(now);
            bytes = later;
        }
    }

    fn command(&mut self, args: &[&[u8]]) {
        let bytes = encoded(args);
        let end = self.end;
        match self.blocks.back_mut().filter(|block| bytes <= BLOCK - block.len()) {
            Some(block) if self.active => {
                encode(args, |piece| block.extend_from_slice(piece));
                self.end += bytes as u64;
            }
            // It goes over a block's end.
            _ => encode(args, |piece| self.put(piece)),
        }
        debug_assert!(self.end == end + bytes as u64);
    }

    /// `sent`: the record in the log's form, where that is at hand.
    fn record(&mut self, db: DbIndex, args: &[&[u8]], sent: Option<&[u8]>) {
        // Transactions select behind MULTI, as the reference's do.
        if self.db != Some(db) && !matches!(args, [b"MULTI"]) {
            self.command(&[b"SELECT", itoa::Buffer::new().format(db.0).as_bytes()]);
            self.db = Some(db);
        }
        match sent {
            Some(sent) => {
                debug_assert!(sent.len() == encoded(args), "what was sent isn't what is recorded");
                self.put(sent);
            }
            None => self.command(args),
        }
    }

    /// Brings the memory that will be written next into the cache.
    fn look_ahead(&self) {
        if let Some(block) = self.blocks.back() {
            let end = block.as_ptr().wrapping_add(block.len());
            (0..AHEAD.min(BLOCK - block.len()))
                .step_by(LINE)
                .for_each(|at| prefetch_line_to_write(end.wrapping_add(at)));
        }
    }

    fn trim(&mut self) {
        let wanted = self.end.saturating_sub(self.size);
        let keep = self.needed.map_or(wanted, |needed| needed.min(wanted));
        self.start = self.start.max(keep);
        while self.start - self.first >= BLOCK as u64 && self.blocks.len() > 1 {
            self.blocks.pop_front();
            self.first += BLOCK as u64;
        }
    }
}

/// How many bytes a command takes.
fn encoded(args: &[&[u8]]) -> usize {
    // A mark and the end of the line.
    let head = |number: usize| 3 + number.checked_ilog10().map_or(1, |log| log as usize + 1);
    let arg = |arg: &&[u8]| head(arg.len()) + arg.len() + 2;
    head(args.len()) + args.iter().map(arg).sum::<usize>()
}

fn encode(args: &[&[u8]], mut put: impl FnMut(&[u8])) {
    encode_head(b'*', args.len(), &mut put);
    for arg in args {
        encode_head(b'$', arg.len(), &mut put);
        put(arg);
        put(b"\r\n");
    }
}

#[inline]
fn encode_head(mark: u8, number: usize, put: &mut impl FnMut(&[u8])) {
    // Nearly all are that short.
    match u8::try_from(number) {
        Ok(digit @ 0..10) => put(&[mark, b'0' + digit, b'\r', b'\n']),
        Ok(two @ 10..100) => put(&[mark, b'0' + two / 10, b'0' + two % 10, b'\r', b'\n']),
        _ => {
            let mut text = itoa::Buffer::new();
            put(&[mark]);
            put(text.format(number).as_bytes());
            put(b"\r\n");
        }
    }
}

impl JournalSink for Backlog {
    fn append(&self, db: DbIndex, args: &[&[u8]]) -> JournalOffset {
        self.append_group(&[(db, args)])
    }

    fn append_group(&self, group: &[(DbIndex, &[&[u8]])]) -> JournalOffset {
        let mut inner = self.inner.lock();
        if !inner.active {
            return JournalOffset(inner.end);
        }
        for (db, args) in group {
            inner.record(*db, args, None);
        }
        let end = inner.end;
        self.appended(inner);
        JournalOffset(end)
    }

    fn append_sent(&self, db: DbIndex, args: &[&[u8]], sent: &[u8]) -> JournalOffset {
        let mut inner = self.inner.lock();
        if !inner.active {
            return JournalOffset(inner.end);
        }
        inner.record(db, args, Some(sent));
        let end = inner.end;
        self.appended(inner);
        JournalOffset(end)
    }

    fn offset(&self) -> JournalOffset {
        JournalOffset(self.end.load(Relaxed))
    }

    fn reader(&self) -> Reader {
        Reader::Replicas
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(backlog: &Backlog, position: u64) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        backlog.read(position, usize::MAX, &mut out).then_some(out)
    }

    #[test]
    fn records_select_their_database_once() {
        let backlog = Backlog::default();
        assert!(backlog.activate(1 << 20) && !backlog.activate(1 << 20));
        backlog.append(DbIndex(3), &[b"DEL", b"k"]);
        backlog.append(DbIndex(3), &[b"DEL", b"l"]);
        let text =
            "*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n*2\r\n$3\r\nDEL\r\n$1\r\nk\r\n*2\r\n$3\r\nDEL\r\n$1\r\nl\r\n";
        assert_eq!(all(&backlog, 0).unwrap(), text.as_bytes());
        assert_eq!(backlog.end(), text.len() as u64);
        assert_eq!(all(&backlog, 23).unwrap(), &text.as_bytes()[23..]);
    }

    #[test]
    fn commands_are_whole_over_the_ends_of_blocks() {
        let backlog = Backlog::default();
        assert!(backlog.activate(1 << 20));
        let mut wanted = b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n".to_vec();
        for n in 0..400usize {
            let (key, value) = (format!("k{n}"), "v".repeat([0, 9, 10, 99, 100, 20_000][n % 6]));
            backlog.append(DbIndex(0), &[b"SET", key.as_bytes(), value.as_bytes()]);
            let text =
                format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n", key.len(), value.len());
            wanted.extend_from_slice(text.as_bytes());
        }
        assert_eq!(backlog.end(), wanted.len() as u64);
        let start = usize::try_from(backlog.extent().start).unwrap();
        assert_eq!(all(&backlog, start as u64).unwrap(), &wanted[start..]);
    }

    #[test]
    fn a_transaction_chooses_its_database_inside() {
        let backlog = Backlog::default();
        assert!(backlog.activate(1 << 20));
        backlog.append_group(&[
            (DbIndex(3), &[b"MULTI"]),
            (DbIndex(3), &[b"DEL", b"k"]),
            (DbIndex(3), &[b"EXEC"]),
        ]);
        let text = all(&backlog, 0).unwrap();
        assert!(text.starts_with(b"*1\r\n$5\r\nMULTI\r\n*2\r\n$6\r\nSELECT\r\n"));
        assert!(text.ends_with(b"*1\r\n$4\r\nEXEC\r\n"));
    }

    #[test]
    fn what_is_old_goes_unless_somebody_needs_it() {
        let backlog = Backlog::default();
        backlog.activate(1000);
        backlog.set_needed(Some(0));
        let bytes: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        for piece in bytes.chunks(777) {
            backlog.append_raw(piece, None);
        }
        assert_eq!(all(&backlog, 0).unwrap(), bytes);
        let blocks = 300_000usize.div_ceil(BLOCK) * BLOCK;
        // The words that find the blocks are counted, too.
        assert!((blocks - 1000..blocks + 1000).contains(&(backlog.excess() as usize)));
        backlog.set_needed(Some(100_000));
        assert!(all(&backlog, 99_999).is_none());
        assert_eq!(all(&backlog, 100_000).unwrap(), &bytes[100_000..]);
        backlog.set_needed(None);
        assert_eq!(backlog.extent().start, 299_000);
        assert_eq!(all(&backlog, 299_000).unwrap(), &bytes[299_000..]);
        assert!(all(&backlog, 300_001).is_none());
        backlog.restart(7, None);
        assert_eq!(all(&backlog, 7).unwrap(), b"");
    }

    #[test]
    fn what_came_in_the_logs_form_is_copied() {
        let backlog = Backlog::default();
        assert!(backlog.activate(1 << 20));
        let mut wanted = b"*2\r\n$6\r\nSELECT\r\n$1\r\n2\r\n".to_vec();
        let sent = b"*2\r\n$3\r\ndel\r\n$4\r\nkeys\r\n";
        for _ in 0..2000 {
            let end = backlog.append_sent(DbIndex(2), &[b"del", b"keys"], sent);
            wanted.extend_from_slice(sent);
            assert_eq!(end.0, wanted.len() as u64);
        }
        assert_eq!(all(&backlog, 0).unwrap(), wanted);
        let other = Backlog::default();
        other.append_sent(DbIndex(2), &[b"del", b"keys"], sent);
        assert_eq!(other.end(), 0);
    }

    /// How often the reading thread is woken.
    fn wakes(backlog: &Backlog) -> std::sync::Arc<AtomicU64> {
        let count = std::sync::Arc::new(AtomicU64::new(0));
        let counted = count.clone();
        backlog.set_waker(Box::new(move || {
            counted.fetch_add(1, Relaxed);
        }));
        count
    }

    #[test]
    fn who_lets_the_stream_gather_is_woken_by_what_should_not_wait() {
        let backlog = Backlog::default();
        backlog.activate(1000);
        let count = wakes(&backlog);
        assert!(backlog.gather(0));
        backlog.append(DbIndex(0), &[b"DEL", b"k"]);
        assert!(backlog.gather(0) && count.load(Relaxed) == 0);
        backlog.append_plain(&[b"REPLCONF", b"GETACK", b"*"]);
        backlog.append_plain(&[b"REPLCONF", b"GETACK", b"*"]);
        assert_eq!(count.load(Relaxed), 1);
        assert!(!backlog.gather(0), "it is to be sent first");
        assert!(backlog.gather(backlog.end()));
        backlog.append(DbIndex(0), &[b"DEL", b"k"]);
        assert!(!backlog.sleep(0) && backlog.sleep(backlog.end()));
        assert_eq!(count.load(Relaxed), 1);
        backlog.append(DbIndex(0), &[b"DEL", b"k"]);
        assert_eq!(count.load(Relaxed), 2);
        // It comes while somebody lets others gather.
        let position = backlog.end();
        std::thread::scope(|threads| {
            threads.spawn(|| backlog.gather_for(position, Duration::from_secs(60)));
            while backlog.inner.lock().rest != Rest::Gathers {
                std::thread::yield_now();
            }
            backlog.append_plain(&[b"REPLCONF", b"GETACK", b"*"]);
        });
        assert_eq!(count.load(Relaxed), 3);
        // Another history, with lower offsets.
        backlog.restart(5, None);
        assert!(backlog.gather(5));
        // More than half of the log's size.
        backlog.append(DbIndex(0), &[b"SET", b"k", &[b'x'; 400]]);
        assert!(count.load(Relaxed) == 3 && backlog.gather(5));
        backlog.append(DbIndex(0), &[b"SET", b"k", &[b'x'; 400]]);
        assert!(count.load(Relaxed) == 4 && !backlog.gather(5));
    }

    #[test]
    fn a_sleeper_is_woken_once() {
        let backlog = Backlog::default();
        backlog.activate(1000);
        let count = wakes(&backlog);
        backlog.append_plain(&[b"PING"]);
        assert!(!backlog.sleep(0));
        assert!(backlog.sleep(backlog.end()));
        backlog.append_plain(&[b"PING"]);
        backlog.append_plain(&[b"PING"]);
        assert_eq!(count.load(Relaxed), 1);
    }
}
