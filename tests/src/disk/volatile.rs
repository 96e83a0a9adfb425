//! A disk with a volatile cache: what was written since the last flush is lost when its power goes, any sector of it for
//! itself, and nothing is read or written until it comes back. It is the one file of a FUSE file system of our own, over
//! which a loop device is laid.
//!
//! Neither the tested file system's own shutdown nor that of a file system below the loop device will do: an fsync
//! that is overtaken by it may end well, though the data is gone. A trace of one such round has the system call's 0
//! and the answer after it; the kernel told two threads that synced at the same moment once success, once EIO.

use super::Dice;
use fuser::{
    BackgroundSession, FileAttr, FileType, Filesystem, MountOption, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow, consts::FOPEN_DIRECT_IO,
};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
const NAME: &str = "disk";
const FILE: u64 = 2;
const NEVER: Duration = Duration::from_secs(3600);

/// The disk, while it is mounted.
pub struct Disk {
    inner: Arc<Mutex<Inner>>,
    place: PathBuf,
    _session: BackgroundSession,
}

#[derive(Debug)]
struct Inner {
    /// As it is read.
    bytes: Vec<u8>,
    /// What the medium has of the sectors that are only in the cache.
    medium: BTreeMap<usize, [u8; SECTOR]>,
    powered: bool,
}

impl Disk {
    /// A disk full of zeros, at a place which must be an empty directory.
    ///
    /// # Errors
    /// FUSE isn't there, or may not be used.
    pub fn new(place: &Path, bytes: usize) -> Result<Self, String> {
        let inner = Arc::new(Mutex::new(Inner {
            bytes: vec![0; bytes.next_multiple_of(SECTOR)],
            medium: BTreeMap::new(),
            powered: true,
        }));
        let options = [MountOption::FSName("kara-disk".into()), MountOption::DefaultPermissions];
        let session = fuser::spawn_mount2(Device(inner.clone()), place, &options)
            .map_err(|fault| format!("a file system in user space at {}: {fault}", place.display()))?;
        Ok(Disk { inner, place: place.join(NAME), _session: session })
    }

    /// The file that is the disk.
    pub fn path(&self) -> &Path {
        &self.place
    }

    /// From here on everything fails; returns how many sectors of the cache were lost. Each is for itself: the medium may
    /// have got the later of two and not the earlier. Every fourth time all are.
    pub fn lose_power(&self, dice: &mut Dice) -> usize {
        let mut inner = lock(&self.inner);
        inner.powered = false;
        let all = dice.below(4) == 0;
        let mut lost = 0;
        for (sector, medium) in std::mem::take(&mut inner.medium) {
            if all || dice.below(2) == 0 {
                inner.bytes[sector * SECTOR..][..SECTOR].copy_from_slice(&medium);
                lost += 1;
            }
        }
        lost
    }

    /// The disk works again, with what the medium has.
    pub fn power_up(&self) {
        lock(&self.inner).powered = true;
    }
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn read(&self, offset: i64, size: usize) -> Result<&[u8], i32> {
        self.on()?;
        let from = usize::try_from(offset).map_err(|_| libc::EINVAL)?.min(self.bytes.len());
        let to = from.saturating_add(size).min(self.bytes.len());
        Ok(&self.bytes[from..to])
    }

    fn write(&mut self, offset: i64, data: &[u8]) -> Result<(), i32> {
        self.on()?;
        let from = usize::try_from(offset).map_err(|_| libc::EINVAL)?;
        let to = from.checked_add(data.len()).filter(|&to| to <= self.bytes.len()).ok_or(libc::ENOSPC)?;
        for sector in from / SECTOR..to.div_ceil(SECTOR) {
            let bytes = &self.bytes[sector * SECTOR..][..SECTOR];
            let medium = self.medium.entry(sector);
            medium.or_insert_with(|| std::array::from_fn(|at| bytes[at]));
        }
        self.bytes[from..to].copy_from_slice(data);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), i32> {
        self.on()?;
        self.medium.clear();
        Ok(())
    }

    fn on(&self) -> Result<(), i32> {
        if self.powered { Ok(()) } else { Err(libc::EIO) }
    }
}

/// What FUSE sees of it: a directory with one file.
struct Device(Arc<Mutex<Inner>>);

impl Device {
    fn attributes(&self, ino: u64) -> FileAttr {
        let size = if ino == FILE { lock(&self.0).bytes.len() as u64 } else { 0 };
        let (kind, perm) =
            if ino == FILE { (FileType::RegularFile, 0o600) } else { (FileType::Directory, 0o700) };
        let at = SystemTime::UNIX_EPOCH;
        FileAttr {
            ino,
            size,
            blocks: size / SECTOR as u64,
            atime: at,
            mtime: at,
            ctime: at,
            crtime: at,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

fn answer(reply: ReplyEmpty, result: Result<(), i32>) {
    match result {
        Ok(()) => reply.ok(),
        Err(code) => reply.error(code),
    }
}

impl Filesystem for Device {
    fn lookup(&mut self, _: &Request<'_>, _: u64, name: &OsStr, reply: ReplyEntry) {
        if name == NAME { reply.entry(&NEVER, &self.attributes(FILE), 0) } else { reply.error(libc::ENOENT) }
    }

    fn getattr(&mut self, _: &Request<'_>, ino: u64, _: Option<u64>, reply: ReplyAttr) {
        reply.attr(&NEVER, &self.attributes(ino));
    }

    /// The size stays what it is.
    fn setattr(
        &mut self,
        _: &Request<'_>,
        ino: u64,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<u64>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<u32>,
        reply: ReplyAttr,
    ) {
        reply.attr(&NEVER, &self.attributes(ino));
    }

    /// The kernel keeps nothing of it: every write of the loop device comes here, in order.
    fn open(&mut self, _: &Request<'_>, _: u64, _: i32, reply: ReplyOpen) {
        reply.opened(0, FOPEN_DIRECT_IO);
    }

    fn read(
        &mut self,
        _: &Request<'_>,
        _: u64,
        _: u64,
        offset: i64,
        size: u32,
        _: i32,
        _: Option<u64>,
        reply: ReplyData,
    ) {
        match lock(&self.0).read(offset, size as usize) {
            Ok(data) => reply.data(data),
            Err(code) => reply.error(code),
        }
    }

    fn write(
        &mut self,
        _: &Request<'_>,
        _: u64,
        _: u64,
        offset: i64,
        data: &[u8],
        _: u32,
        _: i32,
        _: Option<u64>,
        reply: ReplyWrite,
    ) {
        match lock(&self.0).write(offset, data) {
            // No request is longer than 32 bits can say.
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(code) => reply.error(code),
        }
    }

    /// A file is closed: that brings nothing to the medium.
    fn flush(&mut self, _: &Request<'_>, _: u64, _: u64, _: u64, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&mut self, _: &Request<'_>, _: u64, _: u64, _: bool, reply: ReplyEmpty) {
        answer(reply, lock(&self.0).flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> Inner {
        Inner { bytes: vec![0; 8 * SECTOR], medium: BTreeMap::new(), powered: true }
    }

    #[test]
    fn what_was_flushed_stays_and_what_was_not_may_go() {
        let inner = Arc::new(Mutex::new(disk()));
        lock(&inner).write(100, &[1; SECTOR]).expect("fits");
        lock(&inner).flush().expect("powered");
        lock(&inner).write(300, &[2; 2 * SECTOR]).expect("fits");
        assert_eq!(lock(&inner).medium.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
        let before = lock(&inner).medium.clone();
        assert_eq!(before[&0][100..], [1; SECTOR - 100]);
        assert_eq!(before[&1][..100], [1; 100]);
        assert_eq!(before[&2], [0; SECTOR]);
    }

    #[test]
    fn nothing_works_without_power_or_beyond_the_end() {
        let mut inner = disk();
        assert_eq!(inner.write(8 * SECTOR as i64 - 1, &[0; 2]), Err(libc::ENOSPC));
        assert_eq!(inner.write(-1, &[0; 2]), Err(libc::EINVAL));
        assert_eq!(inner.read(8 * SECTOR as i64 - 1, 10), Ok(&[0][..]));
        inner.powered = false;
        assert_eq!(inner.write(0, &[0; 2]), Err(libc::EIO));
        assert_eq!(inner.read(0, 1), Err(libc::EIO));
        assert_eq!(inner.flush(), Err(libc::EIO));
    }
}
