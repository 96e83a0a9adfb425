//! Taking a primary's data set over: into memory as it comes, or by way of a file.

use super::link::clock_ms;
use super::wire::{Attempt, Inflow, Living, Place, Wire};
use kara_base::ids::DbIndex;
use kara_engine::config::DisklessLoad;
use kara_engine::replication::sync::{Incoming, Manner, load_from_primary, log, temp_file};
use kara_persist::rdb::file::path;
use kara_replication::handshake::Preamble;
use std::fs::File;
use std::io::{self, Write};
use std::time::Instant;

impl Attempt<'_> {
    /// Replaces our data by those that come. Gives what the stream has selected.
    pub fn take_data(&self, wire: &mut Wire, place: &Place) -> Result<DbIndex, String> {
        let frame = loop {
            if let Some(frame) = Preamble::parse(&wire.line(self)?)? {
                break frame;
            }
        };
        self.note_sync(0, total(&frame));
        let empty = (0..self.shared.keyspace.databases() as u32)
            .all(|db| self.shared.keyspace.stats(DbIndex(db)).keys == 0);
        let direct = match self.config.repl_diskless_load {
            DisklessLoad::Disabled => None,
            DisklessLoad::OnEmptyDb => empty.then_some(Manner::Replace),
            DisklessLoad::FlushBeforeLoad => Some(Manner::Replace),
            DisklessLoad::SwapDb => Some(Manner::Aside),
        };
        let how = match frame {
            Preamble::Bytes(n) => format!("receiving {n} bytes from primary"),
            Preamble::Mark(_) => "receiving streamed RDB from primary with EOF".to_owned(),
        };
        let to = if direct.is_some() { "parser" } else { "disk" };
        log(self.shared, &format!("PRIMARY <-> REPLICA sync: {how} to {to}"));
        let loaded = match direct {
            Some(manner) => self.load_directly(wire, place, &frame, manner).map_err(|error| {
                format!("Failed trying to load the PRIMARY synchronization DB from socket: {error}")
            }),
            None => self.load_by_file(wire, place, &frame),
        };
        if loaded.is_ok() {
            log(self.shared, "PRIMARY <-> REPLICA sync: Finished with success");
        }
        loaded
    }

    fn incoming<'p>(&self, place: &'p Place, bytes: Option<u64>) -> Incoming<'p> {
        Incoming { epoch: self.epoch, id: &place.id, offset: place.offset, db: place.db, bytes }
    }

    fn load_directly(
        &self,
        wire: &mut Wire,
        place: &Place,
        frame: &Preamble,
        manner: Manner,
    ) -> Result<DbIndex, String> {
        if manner == Manner::Replace {
            log(self.shared, "PRIMARY <-> REPLICA sync: Loading DB in memory");
        }
        let left = if let Preamble::Bytes(n) = frame { *n } else { u64::MAX };
        let bytes = (left != u64::MAX).then_some(left);
        let inflow = Inflow { attempt: self, wire, left, read: 0, told: Instant::now() };
        // Before the mark has come, or all bytes, the data aren't whole.
        let whole = |rest: Vec<u8>, inflow: Inflow<'_, '_>| {
            let Inflow { wire, left, .. } = inflow;
            wire.put_back(rest);
            match frame {
                Preamble::Bytes(_) if left > 0 => {
                    return Err("the data set ended before its length".to_owned());
                }
                Preamble::Bytes(_) => {}
                Preamble::Mark(mark) => {
                    while wire.ahead().len() < mark.len() {
                        wire.more_data(self)?;
                    }
                    if !wire.ahead().starts_with(mark) {
                        return Err("Replication stream EOF marker is broken".to_owned());
                    }
                    wire.consume(mark.len());
                }
            }
            Ok(Vec::new())
        };
        load_from_primary(self.shared, self.incoming(place, bytes), manner, inflow, whole).map(|(db, _)| db)
    }

    /// Clients see the old data until the new ones are all here.
    fn load_by_file(&self, wire: &mut Wire, place: &Place, frame: &Preamble) -> Result<DbIndex, String> {
        let failed =
            |error: io::Error| format!("Write error or short write writing to the DB dump file: {error}");
        let name = format!("temp-{}.{}.rdb", clock_ms() / 1000, std::process::id());
        let mut file = temp_file(&name).map_err(failed)?;
        let mut read: u64 = 0;
        let mut told = Instant::now();
        loop {
            let ahead = wire.ahead();
            let (n, whole) = match frame {
                Preamble::Bytes(total) => {
                    let n = usize::try_from(total - read).unwrap_or(usize::MAX).min(ahead.len());
                    (n, read + n as u64 == *total)
                }
                // The mark may be under way in pieces: its length is held back. Nothing follows it before we answer,
                // but for the stream's first bytes where that comes by the same connection.
                Preamble::Mark(mark) if ahead.ends_with(mark) => (ahead.len() - mark.len(), true),
                Preamble::Mark(mark) => (ahead.len().saturating_sub(mark.len()), false),
            };
            file.write_all(&ahead[..n]).map_err(failed)?;
            wire.consume(n);
            read += n as u64;
            self.note_sync(read, total(frame));
            if whole {
                if let Preamble::Mark(mark) = frame {
                    wire.consume(mark.len());
                }
                break;
            }
            wire.live(&mut told);
            wire.more_data(self)?;
        }
        file.flush().map_err(failed)?;
        let target = path(&self.config.dbfilename);
        file.rename_to(&target).map_err(|error| {
            format!(
                "Failed trying to rename the temp DB into {} in PRIMARY <-> REPLICA synchronization: {error}",
                target.display()
            )
        })?;
        let input = File::open(&target).map_err(failed)?;
        log(self.shared, "PRIMARY <-> REPLICA sync: Loading DB in memory");
        let input = Living { file: input, wire, told: Instant::now() };
        let whole = |rest, _: Living<'_>| Ok(rest);
        let loaded =
            load_from_primary(self.shared, self.incoming(place, Some(read)), Manner::Replace, input, whole);
        let persists = !self.config.save.points.is_empty() || self.config.appendonly;
        if self.config.rdb_del_sync_files && !persists {
            // It is gone already, or it stays.
            let _ = std::fs::remove_file(&target);
        }
        loaded.map(|(db, _)| db).map_err(|error| {
            format!("Failed trying to load the PRIMARY synchronization DB from disk: {error}")
        })
    }
}

fn total(frame: &Preamble) -> i64 {
    if let Preamble::Bytes(n) = frame { i64::try_from(*n).unwrap_or(i64::MAX) } else { -1 }
}
