//! One value as DUMP answers and RESTORE takes it: type, value, version, checksum.

use super::decode::{self, DecodeOptions};
use super::encode::{EncodeOptions, Encoder, NotInVersion};
use super::source::{Bytes, Reader};
use super::{FOREIGN, NEWEST, RdbError};
use kara_base::crc64::crc64;
use kara_keyspace::{Entry, Value};

const FOOTER: usize = 10;

/// The payload of an entry's value.
pub fn dump(entry: &Entry, options: EncodeOptions) -> Result<Vec<u8>, NotInVersion> {
    let mut encoder = Encoder::new(options);
    encoder.value(entry)?;
    let mut out = encoder.out;
    out.extend_from_slice(&options.version.number().to_le_bytes());
    let crc = crc64(0, &out);
    out.extend_from_slice(&crc.to_le_bytes());
    Ok(out)
}

/// A payload whose version and checksum are right, not looked into any further.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    /// Type and value.
    body: &'a [u8],
    pub version: u16,
}

impl<'a> Payload<'a> {
    /// `None`: too short, of an unknown version or a foreign one (unless `relaxed`), or the checksum is wrong (unless
    /// `unsummed`).
    pub fn check(bytes: &'a [u8], relaxed: bool, unsummed: bool) -> Option<Payload<'a>> {
        let body_len = bytes.len().checked_sub(FOOTER)?;
        let (body, footer) = bytes.split_at_checked(body_len)?;
        let version = u16::from_le_bytes(footer.get(..2)?.try_into().ok()?);
        let stated = u64::from_le_bytes(footer.get(2..)?.try_into().ok()?);
        if !relaxed && (version > NEWEST || FOREIGN.contains(&version)) {
            return None;
        }
        let summed = bytes.get(..body_len + 2)?;
        (unsummed || stated == crc64(0, summed)).then_some(Payload { body, version })
    }

    /// What is between the beginning and the version.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The value, and how many packed values were looked through. `options.version` is overridden; what stands behind the
    /// value is ignored, as by the reference.
    pub fn load(&self, options: &DecodeOptions) -> Result<(Value, u64), RdbError> {
        let mut reader = Reader::new(Bytes::new(self.body));
        let kind = reader.u8()?;
        let value = decode::value(&mut reader, kind, &DecodeOptions { version: self.version, ..*options })?;
        Ok((value, reader.examined))
    }
}
