//! A full sync over two connections: the data set comes by one of its own, the stream meanwhile by the main one, and
//! waits here instead of in the primary's memory.

use super::wire::{Attempt, LOOK, Place, Wire, is_quiet};
use kara_base::ids::DbIndex;
use kara_engine::log::Level;
use kara_engine::replication::Link;
use kara_engine::replication::sync::log;
use kara_engine::replication::upstream::set_link;
use kara_replication::handshake::{EndOffset, Handshake, Next, rdb_channel_requests, request};
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

const CHUNK: usize = 64 << 10;

impl Attempt<'_> {
    /// Takes the data over; `main` is behind the primary's answer that it wants two connections. The stream that came
    /// meanwhile is left in it.
    pub(super) fn take_data_apart(&self, main: &mut Wire) -> Result<DbIndex, String> {
        let mut rdb = self.connect()?;
        for ask in rdb_channel_requests(&self.greeting()) {
            let answer = rdb.ask(self, &ask)?;
            if answer.first() == Some(&b'-') {
                let text = String::from_utf8_lossy(&answer);
                return Err(format!("The PRIMARY refuses the RDB channel: {text}"));
            }
        }
        let line = rdb.ask(self, b"SYNC\r\n")?;
        let end = EndOffset::parse(&line).ok_or_else(|| {
            format!("The PRIMARY's answer to SYNC isn't an end offset: {}", String::from_utf8_lossy(&line))
        })?;
        let text = format!("Dual channel replication: the data set is of {}:{}", end.id, end.offset);
        log(self.shared, &text);
        set_link(self.shared, self.epoch, Link::Sync);
        if self.shared.replication.stops_at_snapshot.load(SeqCst) {
            // For tests; somebody lets us go on. Another thread may be the one that takes the signal, so that this one
            // would be some steps further before it stops.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
            std::thread::sleep(LOOK);
        }
        self.open_stream(main, &end)?;
        let place = Place { id: end.id.clone(), offset: end.offset, db: end.db.map(DbIndex) };
        let done = AtomicBool::new(false);
        let taken = std::thread::scope(|scope| {
            let buffering = scope.spawn(|| self.buffer_stream(main, &done));
            let taken = self.take_data(&mut rdb, &place);
            done.store(true, SeqCst);
            let buffered =
                buffering.join().unwrap_or_else(|_| Err("the thread that buffers ended".to_owned()));
            // What went wrong first is what matters.
            taken.and_then(|db| buffered.map(|()| db))
        });
        self.shared.replication.buffered.store(0, SeqCst);
        if taken.is_ok() {
            log(self.shared, "Dual channel replication: the stream goes on behind the data set");
        }
        taken
    }

    fn open_stream(&self, main: &mut Wire, end: &EndOffset) -> Result<(), String> {
        let (id, next) = (end.client.to_string(), (end.offset + 1).to_string());
        let known = main.ask(self, &request(&[b"REPLCONF", b"set-rdb-client-id", id.as_bytes()]))?;
        // Also where the primary has given the RDB channel up, as the reference does: it says, and logs, what has become
        // of the stream. Not in one go with the other: that is refused.
        let answer = main.ask(self, &request(&[b"PSYNC", end.id.as_bytes(), next.as_bytes()]))?;
        if known.first() == Some(&b'-') {
            let text = String::from_utf8_lossy(&known);
            return Err(format!("The PRIMARY doesn't know its RDB channel: {text}"));
        }
        match Handshake::answer(&answer) {
            Next::Continue(_) => {
                log(
                    self.shared,
                    "Dual channel replication: PRIMARY <-> REPLICA sync: Primary accepted a Partial \
                     Resynchronization.",
                );
                Ok(())
            }
            _ => Err(format!(
                "Dual channel replication: the stream can't follow the data set: {}",
                String::from_utf8_lossy(&answer)
            )),
        }
    }

    /// Reads the stream ahead until `done`, at most as much as the output limit of replicas allows: then the primary
    /// keeps the rest.
    fn buffer_stream(&self, main: &mut Wire, done: &AtomicBool) -> Result<(), String> {
        let limit = self.config.client_output_buffer_limit.replica.hard_bytes;
        let limit = usize::try_from(limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let mut kept = main.take_ahead();
        let mut full = false;
        let mut outcome = Ok(());
        while !done.load(SeqCst) && self.is_current() {
            if kept.len() >= limit {
                if !full {
                    full = true;
                    self.shared.host.log(
                        Level::Notice,
                        "Dual channel replication: Replication buffer limit reached, stopping buffering. Further \
                         accumulation may occur on primary side.",
                    );
                }
                std::thread::sleep(LOOK);
                continue;
            }
            let at = kept.len();
            kept.resize(at + CHUNK.min(limit - at), 0);
            let result = main.stream.read(&mut kept[at..]);
            kept.truncate(at + *result.as_ref().unwrap_or(&0));
            match result {
                Ok(0) => {
                    outcome = Err("Connection with primary lost.".to_owned());
                    self.shared
                        .host
                        .log(Level::Warning, "The stream of the PRIMARY ended while its data set came");
                    break;
                }
                Ok(_) => self.shared.replication.buffered.store(kept.len() as u64, SeqCst),
                Err(error) if is_quiet(&error) => {}
                Err(error) => {
                    outcome = Err(format!("Connection with primary lost: {error}"));
                    break;
                }
            }
        }
        main.put_back(kept);
        outcome
    }
}
