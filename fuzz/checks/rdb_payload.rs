//! Any bytes, taken for a payload or a whole file, are refused or make values that are written and read again as the
//! same bytes. The first byte decides which.

use kara_base::hash::HashSeed;
use kara_keyspace::Entry;
use kara_persist::rdb::NEWEST;
use kara_persist::rdb::decode::{DecodeOptions, ValueLimits};
use kara_persist::rdb::encode::EncodeOptions;
use kara_persist::rdb::file::AccessNote;
use kara_persist::rdb::load::{LoadFault, LoadOptions, LoadSink, load};
use kara_persist::rdb::payload::{Payload, dump};

/// Writes and reads every entry again.
struct Again(DecodeOptions);

impl Again {
    fn check(&self, entry: &Entry) {
        let written = dump(entry, EncodeOptions::default()).expect("the newest version tells every value");
        let payload = Payload::check(&written, false, false).expect("a payload of our own");
        let (value, _) = payload.load(&self.0).expect("a value of our own");
        let second = dump(&Entry::new(entry.key(), value, None), EncodeOptions::default());
        assert_eq!(second.map(|bytes| bytes.len()), Ok(written.len()));
    }
}

impl LoadSink for Again {
    fn aux(&mut self, _: &[u8], _: &[u8]) {}

    fn function(&mut self, _: &[u8]) -> Result<(), LoadFault> {
        Ok(())
    }

    fn key(&mut self, _: u32, entry: Entry, _: AccessNote) -> Result<(), LoadFault> {
        self.check(&entry);
        Ok(())
    }

    fn empty_key(&mut self, _: u32, _: &[u8]) {}

    fn progress(&mut self, _: u64) -> Result<(), LoadFault> {
        Ok(())
    }
}

/// One input.
pub fn check(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let limits = ValueLimits::with_seed(HashSeed { k0: 1, k1: 2 });
    let decoding = DecodeOptions { limits, version: NEWEST, drop_fields_before_ms: None };
    if first % 2 == 0 {
        let options =
            LoadOptions { limits, drop_before_ms: None, relaxed: true, checksum: false, databases: 16 };
        let _ = load(data, &options, &mut Again(decoding));
    } else if let Some(payload) = Payload::check(data, true, true)
        && let Ok((value, _)) = payload.load(&decoding)
    {
        Again(decoding).check(&Entry::new(b"k", value, None));
    }
}
