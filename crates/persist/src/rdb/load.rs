//! Reading a whole file: magic, records, checksum.

use super::decode::{self, DecodeOptions, ValueLimits};
use super::file::AccessNote;
use super::source::{Buffered, Reader, Source};
use super::{FOREIGN, NEWEST, RdbError, opcodes, types};
use kara_base::ids::Slot;
use kara_keyspace::Entry;
use std::fmt;
use std::io::Read;

/// What is done with the contents.
pub trait LoadSink {
    fn aux(&mut self, name: &[u8], value: &[u8]);
    /// A library of functions.
    fn function(&mut self, code: &[u8]) -> Result<(), LoadFault>;
    /// So many keys of a database are said to follow; nobody has checked that.
    fn expects(&mut self, _db: u32, _keys: u64) {}
    /// A key with its value. A second one of the same name may be refused.
    fn key(&mut self, db: u32, entry: Entry, note: AccessNote) -> Result<(), LoadFault>;
    /// A key whose value has no elements; it is left out.
    fn empty_key(&mut self, db: u32, key: &[u8]);
    /// A key that was left out because its time has come.
    fn expired(&mut self, _db: u32, _key: &[u8]) {}
    /// So many bytes are through; called after each record.
    fn progress(&mut self, bytes: u64) -> Result<(), LoadFault>;
    /// A record of `kind` begins at that offset. For whoever tells where a fault is.
    fn begins(&mut self, _kind: u8, _offset: u64) {}
}

/// How to load.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    pub limits: ValueLimits,
    /// Keys whose time (Unix ms) is before this are left out, and fields of hashes likewise.
    pub drop_before_ms: Option<i64>,
    /// Foreign versions are tried (`rdb-version-check relaxed`).
    pub relaxed: bool,
    /// Compare the checksum, if there is one.
    pub checksum: bool,
    pub databases: u64,
}

/// What was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    pub version: u16,
    pub keys: u64,
    pub expired: u64,
    pub empty: u64,
    /// Hashes all of whose fields had come to their time.
    pub expired_hashes: u64,
}

/// Why a file can't be loaded.
#[derive(Debug)]
pub enum LoadFault {
    /// It doesn't begin as an RDB file does.
    Signature,
    Version(u16),
    Checksum {
        stated: u64,
        computed: u64,
    },
    Databases(u64),
    /// A key stands twice in a database.
    Duplicate {
        db: u32,
        key: Vec<u8>,
    },
    /// The value at an offset.
    Value {
        offset: u64,
        kind: u8,
        key: Vec<u8>,
        error: RdbError,
    },
    /// Anything else at an offset.
    Record {
        offset: u64,
        error: RdbError,
    },
    /// The sink wants no more.
    Stopped(String),
}

impl fmt::Display for LoadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadFault::Signature => f.write_str("Wrong signature trying to load DB from file"),
            LoadFault::Version(version) => write!(f, "Can't handle RDB format version {version}"),
            LoadFault::Checksum { stated, computed } => {
                write!(f, "Wrong RDB checksum expected: ({stated:x}) but got ({computed:x}). Aborting now.")
            }
            LoadFault::Databases(limit) => write!(
                f,
                "FATAL: Data file was created with a server configured to handle more than {limit} databases. Exiting"
            ),
            LoadFault::Duplicate { db, key } => {
                write!(f, "RDB has duplicated key '{}' in DB {db}", key.escape_ascii())
            }
            LoadFault::Value { offset, kind, key, error } => write!(
                f,
                "Internal error in RDB reading offset {offset}: {error} (type {kind}, key '{}')",
                key.escape_ascii()
            ),
            LoadFault::Record { offset, error } => {
                write!(f, "Internal error in RDB reading offset {offset}: {error}")
            }
            LoadFault::Stopped(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for LoadFault {}

impl LoadFault {
    /// The bytes ended in the middle.
    pub fn is_truncated(&self) -> bool {
        matches!(
            self,
            LoadFault::Value { error: RdbError::Truncated, .. }
                | LoadFault::Record { error: RdbError::Truncated, .. }
        )
    }
}

/// What precedes a key.
#[derive(Clone, Copy)]
struct Ahead {
    expire_at_ms: Option<i64>,
    note: AccessNote,
}

const NOTHING: Ahead = Ahead { expire_at_ms: None, note: AccessNote::None };

/// Loads from the magic to the checksum; what stands behind is left in the stream that is given back.
pub fn load<R: Read>(
    input: R,
    options: &LoadOptions,
    sink: &mut dyn LoadSink,
) -> Result<(LoadReport, Buffered<R>), LoadFault> {
    let mut loading = Loading {
        from: Reader::new(Buffered::new(input, options.checksum)),
        options,
        report: LoadReport::default(),
        db: 0,
        key: Vec::new(),
    };
    loading.magic()?;
    let mut ahead = NOTHING;
    loop {
        let offset = loading.from.source.position();
        let kind = loading.from.u8().map_err(|error| LoadFault::Record { offset, error })?;
        sink.begins(kind, offset);
        if kind == opcodes::EOF {
            break;
        }
        if decode::is_value_type(kind, loading.report.version) {
            loading.key(kind, ahead, offset, sink)?;
            ahead = NOTHING;
        } else {
            match loading.opcode(kind, &mut ahead, sink) {
                Ok(()) => {}
                Err(Fault::Rdb(error)) => return Err(LoadFault::Record { offset, error }),
                Err(Fault::Load(fault)) => return Err(fault),
            }
        }
        let position = loading.from.source.position();
        sink.progress(position)?;
    }
    loading.checksum()?;
    let Loading { from, report, .. } = loading;
    Ok((report, from.source))
}

/// Both kinds of faults, so that `?` takes either.
enum Fault {
    Rdb(RdbError),
    Load(LoadFault),
}

impl From<RdbError> for Fault {
    fn from(error: RdbError) -> Self {
        Fault::Rdb(error)
    }
}

impl From<LoadFault> for Fault {
    fn from(fault: LoadFault) -> Self {
        Fault::Load(fault)
    }
}

struct Loading<'a, R> {
    from: Reader<Buffered<R>>,
    options: &'a LoadOptions,
    report: LoadReport,
    db: u32,
    key: Vec<u8>,
}

impl<R: Read> Loading<'_, R> {
    fn magic(&mut self) -> Result<(), LoadFault> {
        let magic = self.from.source.take(9).map_err(|error| LoadFault::Record { offset: 0, error })?;
        let (digits, is_valkey) = match magic {
            [b'R', b'E', b'D', b'I', b'S', digits @ ..] => (digits, false),
            [b'V', b'A', b'L', b'K', b'E', b'Y', digits @ ..] => (digits, true),
            _ => return Err(LoadFault::Signature),
        };
        let version = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u16>().ok());
        let version = version.ok_or(LoadFault::Signature)?;
        let foreign = FOREIGN.contains(&version) || version > NEWEST;
        if version < 1 || is_valkey != (version >= NEWEST) && !foreign || foreign && !self.options.relaxed {
            return Err(LoadFault::Version(version));
        }
        self.report.version = version;
        Ok(())
    }

    fn opcode(&mut self, kind: u8, ahead: &mut Ahead, sink: &mut dyn LoadSink) -> Result<(), Fault> {
        let from = &mut self.from;
        match kind {
            opcodes::EXPIRETIME => ahead.expire_at_ms = Some(i64::from(from.i32_le()?) * 1000),
            opcodes::EXPIRETIME_MS => ahead.expire_at_ms = Some(from.i64_le()?),
            opcodes::FREQ => ahead.note = AccessNote::Frequency(from.u8()?),
            opcodes::IDLE => ahead.note = AccessNote::IdleSeconds(from.length()?),
            opcodes::SELECTDB => {
                let db = from.length()?;
                let known = u32::try_from(db).ok().filter(|_| db < self.options.databases);
                self.db = known.ok_or(LoadFault::Databases(self.options.databases))?;
            }
            opcodes::RESIZEDB => {
                let keys = from.length()?;
                from.length()?;
                sink.expects(self.db, keys);
            }
            opcodes::SLOT_INFO => {
                let slot = from.length()?;
                from.length()?;
                from.length()?;
                if u16::try_from(slot).ok().and_then(Slot::new).is_none() {
                    return Err(RdbError::Corrupt("a slot beyond the last").into());
                }
            }
            opcodes::AUX => {
                let name = from.string_vec()?;
                sink.aux(&name, from.string()?);
            }
            opcodes::FUNCTION2 => sink.function(from.string()?)?,
            opcodes::FUNCTION_PRE_GA => {
                return Err(RdbError::Corrupt("Pre-release function format not supported.").into());
            }
            opcodes::MODULE_AUX => skip_module_aux(from)?,
            _ => return Err(RdbError::Unsupported(format!("Unknown RDB encoding type {kind}")).into()),
        }
        Ok(())
    }

    fn key(&mut self, kind: u8, ahead: Ahead, offset: u64, sink: &mut dyn LoadSink) -> Result<(), LoadFault> {
        if let Err(error) = self.from.string_into(&mut self.key) {
            return Err(LoadFault::Record { offset, error });
        }
        if matches!(kind, types::MODULE_PRE_GA) {
            let error = RdbError::Unsupported("a value of a module before its format was settled".into());
            return Err(LoadFault::Value { offset, kind, key: std::mem::take(&mut self.key), error });
        }
        let decoding = DecodeOptions {
            limits: self.options.limits,
            version: self.report.version,
            drop_fields_before_ms: self.options.drop_before_ms,
        };
        match decode::entry(&mut self.from, kind, &self.key, ahead.expire_at_ms, &decoding) {
            Ok(entry) => {
                let expired = |now_ms| ahead.expire_at_ms.is_some_and(|at_ms| at_ms < now_ms);
                if self.options.drop_before_ms.is_some_and(expired) {
                    self.report.expired += 1;
                    sink.expired(self.db, &self.key);
                    return Ok(());
                }
                self.report.keys += 1;
                sink.key(self.db, entry, ahead.note)
            }
            Err(RdbError::Expired) => {
                self.report.expired_hashes += 1;
                Ok(())
            }
            Err(RdbError::Empty) => {
                self.report.empty += 1;
                sink.empty_key(self.db, &self.key);
                Ok(())
            }
            Err(error) => Err(LoadFault::Value { offset, kind, key: std::mem::take(&mut self.key), error }),
        }
    }

    fn checksum(&mut self) -> Result<(), LoadFault> {
        // Files before version 5 end here.
        if self.report.version < 5 {
            return Ok(());
        }
        let computed = self.from.source.crc();
        let offset = self.from.source.position();
        let stated = self.from.u64_le().map_err(|error| LoadFault::Record { offset, error })?;
        if self.options.checksum && stated != 0 && stated != computed {
            return Err(LoadFault::Checksum { stated, computed });
        }
        Ok(())
    }
}

/// What a module noted beside the keys; without the module nobody can use it.
fn skip_module_aux<S: Source>(from: &mut Reader<S>) -> Result<(), RdbError> {
    from.length()?;
    loop {
        match from.length()? {
            0 => return Ok(()),
            1 | 2 => drop(from.length()?),
            3 => drop(from.source.take(4)?.len()),
            4 => drop(from.source.take(8)?.len()),
            5 => drop(from.string()?.len()),
            _ => return Err(RdbError::Corrupt("unknown form of a module's data")),
        }
    }
}
