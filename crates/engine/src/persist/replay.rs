//! Loading an append-only file: base and increments, through the same handlers as a client's commands.

use super::load::{Manner, Target, load_stream, note};
use super::log;
use crate::clients::{ClientFlags, ClientId, ClientInfo};
use crate::config::{Config, os_text};
use crate::effect::OwnedCommand;
use crate::log::Level;
use crate::pipeline::Engine;
use crate::session::Session;
use crate::shared::Shared;
use kara_base::rng::Rng;
use kara_keyspace::Locked;
use kara_persist::aof::manifest::{self, Manifest, make_dir};
use kara_persist::aof::reader::{AofFault, CommandReader, Item, is_rdb};
use kara_persist::rdb::file::{path, sync_dir};
use kara_persist::rdb::source::Buffered;
use kara_resp::{Protocol, Writer};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// Reads the manifest; a single file of old is taken into the directory first. No files: an empty manifest.
pub(super) fn read_manifest(shared: &Shared, config: &Config) -> Result<Manifest, String> {
    let dir = path(&config.appenddirname);
    let filename = String::from_utf8_lossy(&config.appendfilename).into_owned();
    let place = manifest::path(&dir, &filename);
    let text = match std::fs::read(&place) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return take_in_single_file(shared, &dir, &filename);
        }
        Err(error) => {
            return Err(format!(
                "Fatal error: can't open the AOF manifest file {}: {}",
                place.display(),
                os_text(&error)
            ));
        }
    };
    let manifest = Manifest::parse(&text).map_err(|fault| {
        log(shared, Level::Warning, "*** FATAL AOF MANIFEST FILE ERROR ***");
        if fault.line > 0 {
            log(shared, Level::Warning, format!("Reading the manifest file, at line {}", fault.line));
            log(shared, Level::Warning, format!(">>> '{}'", fault.text.escape_debug()));
        }
        fault.reason.to_owned()
    })?;
    // Listed, but not yet moved when the process ended.
    let is_single =
        manifest.incrs.is_empty() && manifest.base.as_ref().is_some_and(|base| base.name == filename);
    if is_single && !dir.join(&filename).exists() && Path::new(&filename).is_file() {
        return take_in_single_file(shared, &dir, &filename);
    }
    Ok(manifest)
}

fn take_in_single_file(shared: &Shared, dir: &Path, filename: &str) -> Result<Manifest, String> {
    let single = Path::new(filename);
    if !single.is_file() {
        return Ok(Manifest::default());
    }
    let manifest = Manifest::from_single_file(filename);
    // The manifest first: should the process end before the move, the next start makes it.
    let moved = make_dir(dir)
        .and_then(|()| manifest.write(dir, filename))
        .and_then(|()| std::fs::rename(single, dir.join(filename)))
        .and_then(|()| sync_dir(&dir.join(filename)));
    match moved {
        Ok(()) => {
            let text = format!(
                "Successfully migrated an old-style AOF configuration ({filename}) into the AOF directory ({}).",
                dir.display()
            );
            log(shared, Level::Notice, text);
            Ok(manifest)
        }
        Err(error) => Err(format!("Error trying to move the AOF file {filename}: {}", os_text(&error))),
    }
}

/// Loads everything that the manifest lists. `space`: the shards that are held, if any; they may be given back.
pub(super) fn load_all(
    shared: &Arc<Shared>,
    config: &Config,
    manifest: &Manifest,
    space: &mut Locked<'_>,
) -> Result<(), String> {
    let dir = path(&config.appenddirname);
    let begun = Instant::now();
    let sizes: Vec<u64> = manifest
        .in_order()
        .map(|file| {
            let meta = std::fs::metadata(dir.join(&file.name));
            meta.map(|meta| meta.len()).map_err(|error| {
                format!(
                    "Fatal error: can't open the append log file {} for reading: {}",
                    file.name,
                    os_text(&error)
                )
            })
        })
        .collect::<Result<_, _>>()?;
    shared.persist.loading.total_bytes.store(sizes.iter().sum(), Relaxed);
    let mut before = 0;
    for (number, (file, size)) in manifest.in_order().zip(&sizes).enumerate() {
        let started = Instant::now();
        // Behind it may stand an increment that was begun and given up.
        let is_last = sizes.iter().skip(number + 1).all(|size| *size == 0);
        load_file(shared, config, &dir.join(&file.name), &file.name, is_last, before, space)?;
        before += size;
        let kind = if manifest.base.as_ref() == Some(file) { "base" } else { "incr" };
        let seconds = started.elapsed().as_secs_f64();
        log(shared, Level::Notice, format!("DB loaded from {kind} file {}: {seconds:.3} seconds", file.name));
    }
    let seconds = begun.elapsed().as_secs_f64();
    log(shared, Level::Notice, format!("DB loaded from append only file: {seconds:.3} seconds"));
    Ok(())
}

fn load_file(
    shared: &Arc<Shared>,
    config: &Config,
    place: &Path,
    name: &str,
    is_last: bool,
    before: u64,
    space: &mut Locked<'_>,
) -> Result<(), String> {
    let unreadable = |error: io::Error| {
        format!("Fatal error: can't open the append log file {name} for reading: {}", os_text(&error))
    };
    let mut file = File::open(place).map_err(unreadable)?;
    let mut head = Vec::new();
    (&mut file).take(6).read_to_end(&mut head).map_err(unreadable)?;
    file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
    let source = if is_rdb(&head) {
        log(shared, Level::Notice, format!("Reading RDB base file on AOF loading... ({name})"));
        let manner = Manner { is_aof_base: true, ..Manner::default() };
        let target =
            if space.holds_all() { Target::Held(space) } else { Target::Shards(space.keyspace().unlocked()) };
        let (report, rest) = load_stream(shared, config, target, file, manner, before).map_err(|fault| {
            log(shared, Level::Warning, fault.to_string());
            format!("Error reading the RDB preamble of the AOF file {name}, AOF loading aborted")
        })?;
        note(shared, &report);
        rest
    } else {
        Buffered::new(file, false)
    };
    let mut reader = CommandReader::new(source);
    let valid_up_to = replay(shared, name, &mut reader, before, space)?;
    match valid_up_to {
        None => Ok(()),
        Some(valid) if is_last && config.aof_load_truncated => cut(shared, place, name, valid),
        Some(_) => Err(format!(
            "Unexpected end of file reading the append only file {name}. You can: 1) Make a backup of your AOF file, \
             then use ./valkey-check-aof --fix <filename.manifest>. 2) Alternatively you can set the \
             'aof-load-truncated' configuration option to yes and restart the server."
        )),
    }
}

/// Cuts off what is incomplete, so that appending doesn't go on in the middle of a command.
fn cut(shared: &Shared, place: &Path, name: &str, valid: u64) -> Result<(), String> {
    log(shared, Level::Warning, format!("!!! Warning: short read while loading the AOF file {name}!!!"));
    log(shared, Level::Warning, format!("Truncating the AOF {name} at offset {valid}"));
    let file = OpenOptions::new().write(true).open(place);
    let cut = file.and_then(|file| file.set_len(valid).and_then(|()| file.sync_all()));
    cut.map_err(|error| format!("Error truncating the AOF file {name}: {}", os_text(&error)))?;
    log(shared, Level::Warning, format!("AOF {name} loaded anyway because aof-load-truncated is enabled"));
    Ok(())
}

/// Runs the commands. Where the file ends in the middle: the offset up to which it is whole.
fn replay<R: Read>(
    shared: &Arc<Shared>,
    name: &str,
    reader: &mut CommandReader<R>,
    before: u64,
    space: &mut Locked<'_>,
) -> Result<Option<u64>, String> {
    const BREATH: u32 = 128;
    let now_ms = super::save::clock_ms();
    let mut engine = Engine::new(shared.clone(), 0, now_ms, Rng::new(now_ms as u64));
    let nowhere = String::new;
    let info = ClientInfo::new(ClientId(0), 0, nowhere(), nowhere(), -1, now_ms, ClientFlags::empty());
    let mut session = Session::new(Arc::new(info), true);
    let mut reply = Writer::new(Protocol::Resp2);
    let mut queue: Option<Vec<OwnedCommand>> = None;
    let mut valid = reader.position();
    let mut since_breath = 0;
    let interval = shared.config.load().loading_process_events_interval_bytes;
    let mut noted = 0;
    loop {
        match reader.next() {
            Ok(Item::End) if queue.is_none() => return Ok(None),
            Ok(Item::End) | Err(AofFault::Truncated) => {
                if queue.is_some() {
                    let text = format!("Revert incomplete MULTI/EXEC transaction from AOF file {name}");
                    log(shared, Level::Warning, text);
                }
                return Ok(Some(valid));
            }
            Ok(Item::Timestamp(_) | Item::Annotation) => {}
            Ok(Item::Command) => {
                let args = reader.args();
                let is = |word: &[u8]| args.len() == 1 && args.iter().any(|a| a.eq_ignore_ascii_case(word));
                let run = if is(b"MULTI") {
                    queue = Some(Vec::new());
                    Ok(())
                } else if is(b"EXEC") {
                    let queued = queue.take().unwrap_or_default();
                    let mut run =
                        |c: &OwnedCommand| engine.replay(space, &mut session, &c.args(), &mut reply);
                    queued.iter().try_for_each(&mut run)
                } else if let Some(queue) = &mut queue {
                    queue.push(OwnedCommand::from_args(&args));
                    Ok(())
                } else {
                    engine.replay(space, &mut session, &args, &mut reply)
                };
                run.map_err(|unknown| {
                    format!("Unknown command '{unknown}' reading the append only file {name}")
                })?;
                reply.clear();
            }
            Err(AofFault::Format) => {
                return Err(format!(
                    "Bad file format reading the append only file {name}: make a backup of your AOF file, then use \
                     ./valkey-check-aof --fix <filename.manifest>"
                ));
            }
            Err(AofFault::Io(error)) => {
                return Err(format!(
                    "Unrecoverable error reading the append only file {name}: {}",
                    os_text(&error)
                ));
            }
        }
        if queue.is_none() {
            valid = reader.position();
        }
        if reader.position() - noted >= interval {
            noted = reader.position();
            shared.persist.loading.loaded_bytes.store(before + noted, Relaxed);
        }
        since_breath += 1;
        if since_breath >= BREATH {
            since_breath = 0;
            space.release();
        }
    }
}
