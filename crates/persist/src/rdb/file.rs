//! Writing a whole file: header, records, end; and how it gets to its place.

use super::encode::{Encoder, NotInVersion};
use super::{Version, opcodes};
use crate::fault::Faults;
use kara_base::crc64::crc64;
use kara_keyspace::Entry;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is noted about a key's last use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessNote {
    None,
    IdleSeconds(u64),
    Frequency(u8),
}

/// Makes the note from an entry's access record.
pub type Annotate = Arc<dyn Fn(u32) -> AccessNote + Send + Sync>;

/// Appends the record of a key.
pub fn record(to: &mut Encoder, entry: &Entry, note: AccessNote) -> Result<(), NotInVersion> {
    let kind = to.type_of(entry)?;
    record_head(to, entry, note, kind);
    to.body(entry);
    Ok(())
}

/// What stands in front of the value.
pub fn record_head(to: &mut Encoder, entry: &Entry, note: AccessNote, kind: u8) {
    if let Some(at_ms) = entry.expire_at_ms() {
        to.u8(opcodes::EXPIRETIME_MS);
        to.raw(&at_ms.to_le_bytes());
    }
    match note {
        AccessNote::None => {}
        AccessNote::IdleSeconds(seconds) => {
            to.u8(opcodes::IDLE);
            to.length(seconds);
        }
        AccessNote::Frequency(frequency) => to.raw(&[opcodes::FREQ, frequency]),
    }
    to.u8(kind);
    to.string(entry.key());
}

/// A database's size, as a hint for whoever loads.
#[derive(Clone, Copy, Debug)]
pub struct DbSize {
    pub db: u32,
    pub keys: u64,
    pub expires: u64,
}

/// What stands in front of the keys.
#[derive(Clone, Debug, Default)]
pub struct Preface {
    pub aux: Vec<(&'static str, String)>,
    /// Libraries of functions, as they were loaded.
    pub functions: Vec<Vec<u8>>,
    pub sizes: Vec<DbSize>,
}

/// A file under way.
pub struct RdbWriter<W> {
    out: W,
    encoder: Encoder,
    checksum: bool,
    crc: u64,
    written: u64,
    db: Option<u32>,
    sizes: Vec<DbSize>,
}

impl<W: Write> RdbWriter<W> {
    /// Writes everything up to the first key. `encoder` brings the version.
    pub fn begin(out: W, encoder: Encoder, checksum: bool, preface: Preface) -> io::Result<Self> {
        let sizes = preface.sizes;
        let mut writer = RdbWriter { out, encoder, checksum, crc: 0, written: 0, db: None, sizes };
        let to = &mut writer.encoder;
        to.raw(match to.options.version {
            Version::Redis11 => b"REDIS0011",
            Version::Valkey80 => b"VALKEY080",
        });
        for (name, value) in &preface.aux {
            to.u8(opcodes::AUX);
            to.string(name.as_bytes());
            to.string(value.as_bytes());
        }
        for code in &preface.functions {
            to.u8(opcodes::FUNCTION2);
            to.string(code);
        }
        writer.flush_encoder()?;
        Ok(writer)
    }

    fn flush_encoder(&mut self) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.encoder.out);
        let result = self.write(&bytes);
        self.encoder.out = bytes;
        self.encoder.out.clear();
        result
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.checksum {
            self.crc = crc64(self.crc, bytes);
        }
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// Gives what was written on; a good moment to see that somebody still wants it.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Bytes so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Whole records of one database.
    pub fn records(&mut self, db: u32, bytes: &[u8]) -> io::Result<()> {
        self.select(db)?;
        self.write(bytes)
    }

    /// The rest of a record whose beginning `records` has written.
    pub fn more(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write(bytes)
    }

    fn select(&mut self, db: u32) -> io::Result<()> {
        if self.db == Some(db) {
            return Ok(());
        }
        self.db = Some(db);
        self.encoder.u8(opcodes::SELECTDB);
        self.encoder.length(u64::from(db));
        if let Some(place) = self.sizes.iter().position(|size| size.db == db) {
            let size = self.sizes.swap_remove(place);
            self.encoder.u8(opcodes::RESIZEDB);
            self.encoder.length(size.keys);
            self.encoder.length(size.expires);
        }
        self.flush_encoder()
    }

    /// Writes the end; gives back the stream, not flushed.
    pub fn finish(mut self) -> io::Result<W> {
        self.write(&[opcodes::EOF])?;
        let crc = if self.checksum { self.crc } else { 0 };
        self.out.write_all(&crc.to_le_bytes())?;
        Ok(self.out)
    }
}

/// Written through to the disk this often, so that the last fsync doesn't find gigabytes.
const SYNC_BYTES: u64 = 32 << 20;

/// A file that takes its name only when it is whole and on the disk. Dropped before, it vanishes.
#[derive(Debug)]
pub struct TempFile {
    file: File,
    path: PathBuf,
    incremental_sync: bool,
    unsynced: u64,
    kept: bool,
    faults: Option<Arc<Faults>>,
}

impl TempFile {
    /// Creates `name` in `dir`.
    pub fn create(dir: &Path, name: &str, incremental_sync: bool) -> io::Result<Self> {
        let path = dir.join(name);
        let file = File::create(&path)?;
        Ok(TempFile { file, path, incremental_sync, unsynced: 0, kept: false, faults: None })
    }

    /// With faults at `file-write`, `file-sync` and `file-rename`.
    #[must_use]
    pub fn with_faults(self, faults: Arc<Faults>) -> Self {
        let mut file = self;
        file.faults = Some(faults);
        file
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.file.metadata().map_or(0, |meta| meta.len())
    }

    /// Brings everything to the disk.
    pub fn sync(&mut self) -> io::Result<()> {
        self.pass("file-sync")?;
        self.file.sync_all()
    }

    fn pass(&self, place: &str) -> io::Result<()> {
        self.faults.as_ref().map_or(Ok(()), |faults| faults.at(place))
    }

    /// Gives the file its name, after `sync`.
    pub fn rename_to(mut self, target: &Path) -> io::Result<()> {
        self.pass("file-rename")?;
        std::fs::rename(&self.path, target)?;
        self.kept = true;
        sync_dir(target)
    }
}

impl Write for TempFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let most = match &self.faults {
            Some(faults) => faults.before_write("file-write", bytes.len())?,
            None => bytes.len(),
        };
        let n = self.file.write(bytes.get(..most).unwrap_or(bytes))?;
        self.unsynced += n as u64;
        if self.incremental_sync && self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            self.pass("file-sync")?;
            self.file.sync_data()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.kept {
            // It may be gone already; there is nobody to tell.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Makes a file's name in its directory durable.
pub fn sync_dir(file: &Path) -> io::Result<()> {
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

/// A path from configured bytes.
pub fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}
