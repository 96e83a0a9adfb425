//! DEBUG: what tests and engineers look at. Behind `enable-debug-command`.

pub(crate) mod digest;

use crate::commands::generic::keys::encoding_name;
use crate::commands::prelude::*;
use crate::config::Config;
use crate::log::Level;
use crate::persist::load::Manner;
use crate::shared::REPLY_PEAK_RESET_MS;
use digest::{Digest, mix_value};
use kara_base::ids::DbIndex;
use kara_keyspace::ExpiryUpdate;
use kara_keyspace::value::list::List;
use kara_persist::fault::Fault;
use std::sync::atomic::Ordering::Relaxed;

/// The family's commands.
pub const COMMANDS: &[Spec] = &[DEBUG];

pub(super) const DEBUG: Spec = Spec {
    name: "debug",
    arity: Arity::AtLeast(2),
    flags: Flags::ADMIN.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
    group: Group::Server,
    since: "1.0.0",
    syscmd: true,
    summary: "Holds the commands for debugging the server.",
    complexity: "Depends on the subcommand.",
    locks: Locks::All,
    handler: Some(debug),
    ..Spec::NEW
};

/// A subcommand's name, its number of arguments (DEBUG and the name included; the second bound inclusive), and what
/// it does.
type Subcommand = (&'static str, usize, usize, fn(&mut Cx) -> Outcome);

const SUBCOMMANDS: &[Subcommand] = &[
    ("AOF-FLUSH-SLEEP", 3, 3, aof_flush_sleep),
    ("ASSERT", 2, 2, assertion),
    ("CHANGE-REPL-ID", 2, 2, change_repl_id),
    ("CONFIG-REWRITE-FORCE-ALL", 2, 2, config_rewrite_force_all),
    ("DICT-RESIZING", 3, 3, flag),
    ("DIGEST", 2, 2, digest_all),
    ("DIGEST-VALUE", 2, usize::MAX, digest_values),
    ("DELAY-RDB-CLIENT-FREE-SECONDS", 3, 3, delay_rdb_client_free),
    ("ERROR", 3, 3, error),
    ("HELP", 2, 2, help),
    ("HTSTATS", 3, 4, htstats),
    ("KARA-EVICTION", 2, 2, longest_eviction),
    ("KARA-FAULT", 3, 6, fault),
    ("LISTPACK", 3, 3, listpack),
    ("LOADAOF", 2, 2, load_aof),
    ("LOG", 3, 3, log),
    ("MALLCTL", 3, 3, mallctl),
    ("OBJECT", 3, 4, object),
    ("PANIC", 2, 2, panic_now),
    ("PAUSE-AFTER-FORK", 3, 3, pause_after_fork),
    ("PAUSE-CRON", 3, 3, pause_cron),
    ("POPULATE", 3, 5, populate),
    ("PROTOCOL", 3, 3, protocol),
    ("QUICKLIST", 3, 4, quicklist),
    ("QUICKLIST-PACKED-THRESHOLD", 3, 3, quicklist_packed_threshold),
    ("RELOAD", 2, 5, reload),
    ("REPLICATE", 3, usize::MAX, replicate),
    ("REPLYBUFFER", 4, 4, reply_buffer),
    ("SEGFAULT", 2, 2, segfault),
    ("SET-ACTIVE-EXPIRE", 3, 3, set_active_expire),
    ("SET-DISABLE-DENY-SCRIPTS", 3, 3, disable_deny_scripts),
    ("SET-SKIP-CHECKSUM-VALIDATION", 3, 3, skip_checksums),
    ("SLEEP", 3, 3, sleep),
    ("STRINGMATCH-LEN", 4, 4, stringmatch_len),
];

fn debug(cx: &mut Cx) -> Outcome {
    let count = cx.args.len();
    let found = SUBCOMMANDS
        .iter()
        .find(|(name, least, most, _)| cx.is_word(1, name) && (*least..=*most).contains(&count));
    match found {
        Some((_, _, _, run)) => run(cx),
        None => Err(unknown(cx)),
    }
}

fn unknown(cx: &Cx) -> CommandError {
    CommandError::quoting(
        "ERR unknown subcommand or wrong number of arguments for '{}'. Try DEBUG HELP.",
        &[cx.arg(1)],
    )
}

fn done(cx: &mut Cx) -> Outcome {
    cx.reply.ok();
    Ok(Effect::None)
}

/// Since it was asked last, with `latency-monitor-threshold` set: the most that eviction before one command took, us of
/// processor time, and before how many commands it took more than a millisecond.
fn longest_eviction(cx: &mut Cx) -> Outcome {
    let (ns, long) = cx.shared.exceeded.take_longest();
    cx.reply.array(2);
    cx.reply.integer(i64::try_from(ns / 1000).unwrap_or(i64::MAX));
    cx.reply.integer(i64::try_from(long).unwrap_or(i64::MAX));
    Ok(Effect::None)
}

/// Puts a fault at a place of the code that writes files: `place ENOSPC|EIO|KILL|SHORT [passes before] [times]`; JOB lets
/// the snapshot under way fail; OFF takes all faults away.
fn fault(cx: &mut Cx) -> Outcome {
    let faults = cx.shared.persist.faults.clone();
    if cx.is_word(2, "OFF") {
        faults.clear();
        return done(cx);
    }
    if cx.is_word(2, "JOB") {
        // What killing the reference's child does.
        if let Some(job) = &*cx.shared.persist.job.lock() {
            job.fail();
        }
        return done(cx);
    }
    let count = |at: usize, default: u64| match cx.args.get(at) {
        Some(_) => cx.int(at).map(|n| u64::try_from(n).unwrap_or(0)),
        None => Ok(default),
    };
    let (skip, times) = (count(4, 0)?, count(5, u64::MAX)?);
    let fault = match cx.args.get(3) {
        Some(word) if word.eq_ignore_ascii_case(b"ENOSPC") => Fault::Error(28),
        Some(word) if word.eq_ignore_ascii_case(b"EIO") => Fault::Error(5),
        Some(word) if word.eq_ignore_ascii_case(b"KILL") => Fault::Kill,
        Some(word) if word.eq_ignore_ascii_case(b"SHORT") => Fault::Short(7),
        _ => return Err(CommandError::Syntax),
    };
    faults.set(&String::from_utf8_lossy(cx.arg(2)), fault, skip, times);
    done(cx)
}

/// A switch of the reference's hash tables that this server's tables don't have: they only ever move a segment.
fn flag(cx: &mut Cx) -> Outcome {
    cx.int(2)?;
    done(cx)
}

fn digest_all(cx: &mut Cx) -> Outcome {
    let now_ms = cx.now_ms;
    let mut all = Digest::default();
    for db in 0..cx.shared.keyspace.databases() {
        let db = DbIndex(db as u32);
        if cx.keys.space.dbsize(db) == 0 {
            continue;
        }
        all.mix(&db.0.to_be_bytes());
        for entry in cx.keys.space.iter(db) {
            let mut one = Digest::default();
            one.mix(entry.key());
            mix_value(&mut one, entry, now_ms);
            all.join(&one);
        }
    }
    cx.reply.simple(&all.hex());
    Ok(Effect::None)
}

fn digest_values(cx: &mut Cx) -> Outcome {
    let now_ms = cx.now_ms;
    cx.reply.array(cx.args.len() - 2);
    for key in &cx.args[2..] {
        let mut one = Digest::default();
        if let Some(entry) = cx.keys.peek(key) {
            mix_value(&mut one, entry, now_ms);
        }
        cx.reply.simple(&one.hex());
    }
    Ok(Effect::None)
}

fn error(cx: &mut Cx) -> Outcome {
    cx.reply.error_bytes(cx.arg(2));
    Ok(Effect::None)
}

fn log(cx: &mut Cx) -> Outcome {
    let text = String::from_utf8_lossy(cx.arg(2)).into_owned();
    cx.shared.host.log(Level::Warning, &format!("DEBUG LOG: {text}"));
    done(cx)
}

fn panic_now(_: &mut Cx) -> Outcome {
    panic!("called at the request of DEBUG PANIC")
}

fn assertion(_: &mut Cx) -> Outcome {
    panic!("called at the request of DEBUG ASSERT")
}

fn segfault(_: &mut Cx) -> Outcome {
    kara_base::os::segfault()
}

fn reload(cx: &mut Cx) -> Outcome {
    let (mut save, mut flush, mut manner) = (true, true, Manner::default());
    for word in cx.args.iter().skip(2) {
        if word.eq_ignore_ascii_case(b"MERGE") {
            manner.overwrite = true;
        } else if word.eq_ignore_ascii_case(b"NOFLUSH") {
            flush = false;
        } else if word.eq_ignore_ascii_case(b"NOSAVE") {
            save = false;
        } else {
            return Err(CommandError::text(
                "ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
            ));
        }
    }
    if save && crate::persist::save::save(cx.shared, cx.config, cx.keys.space).is_err() {
        return Err(CommandError::text("ERR"));
    }
    if flush {
        drop(cx.keys.space.flush(None));
        cx.keys.events.flushed(None);
        cx.shared.scripts.libraries.clear();
    }
    if let Err(text) = crate::persist::load::reload(cx.shared, cx.config, cx.keys.space, manner) {
        cx.shared.host.log(Level::Warning, &text);
        return Err(CommandError::text("ERR Error trying to load the RDB dump, check server logs."));
    }
    cx.shared.host.log(Level::Warning, "DB reloaded by DEBUG RELOAD");
    done(cx)
}

fn load_aof(cx: &mut Cx) -> Outcome {
    let failed = CommandError::text("ERR Error trying to load the AOF files, check server logs.");
    if !crate::persist::aof::commit(cx.shared, cx.config) {
        return Err(failed);
    }
    drop(cx.keys.space.flush(None));
    cx.keys.events.flushed(None);
    cx.shared.scripts.libraries.clear();
    // Between two commands of the log others may get at the shards; they are told to wait.
    let before = cx.shared.loading.swap(true, Relaxed);
    let loaded = crate::persist::load::reload_aof(cx.shared, cx.config, cx.keys.space);
    cx.shared.loading.store(before, Relaxed);
    if let Err(text) = loaded {
        cx.shared.host.log(Level::Warning, &text);
        return Err(failed);
    }
    cx.shared.host.log(Level::Warning, "Append Only File loaded by DEBUG LOADAOF");
    done(cx)
}

fn config_rewrite_force_all(cx: &mut Cx) -> Outcome {
    match cx.shared.config.rewrite(None, true) {
        Ok(()) => done(cx),
        Err(error) => Err(CommandError::owned(format!("ERR CONFIG-REWRITE-FORCE-ALL failed: {error}"))),
    }
}

fn sleep(cx: &mut Cx) -> Outcome {
    let seconds = parse_float(cx.arg(2)).unwrap_or(0.0).clamp(0.0, 1e6);
    cx.shared.replication.asleep.store(true, Relaxed);
    std::thread::sleep(std::time::Duration::from_secs_f64(seconds));
    cx.shared.replication.asleep.store(false, Relaxed);
    done(cx)
}

/// Sends words to the replicas as if they were a command that ran.
fn replicate(cx: &mut Cx) -> Outcome {
    let words = cx.args.get(2..).unwrap_or_default();
    cx.shared.replication.tell_replicas(cx.keys.db, words);
    done(cx)
}

/// Nobody can go on with our history any more, nor can we with our primary's.
fn change_repl_id(cx: &mut Cx) -> Outcome {
    cx.shared.replication.forget_history();
    done(cx)
}

/// As a replica with two connections: whether the process stops (SIGSTOP) when its primary's snapshot has begun. As a
/// primary there is no fork to stop behind: the snapshot's thread would stop with the rest.
fn pause_after_fork(cx: &mut Cx) -> Outcome {
    let on = cx.int(2)? != 0;
    cx.shared.replication.stops_at_snapshot.store(on, Relaxed);
    done(cx)
}

/// How long a data set's connection is kept whose replica doesn't come for the stream.
fn delay_rdb_client_free(cx: &mut Cx) -> Outcome {
    let seconds = u64::try_from(cx.int(2)?).unwrap_or(0);
    cx.shared.replication.psync_grace_s.store(seconds, Relaxed);
    done(cx)
}

fn set_active_expire(cx: &mut Cx) -> Outcome {
    let on = cx.int(2)? != 0;
    cx.shared.active_expire.store(on, Relaxed);
    done(cx)
}

fn aof_flush_sleep(cx: &mut Cx) -> Outcome {
    let us = u64::try_from(cx.int(2)?).unwrap_or(0);
    cx.shared.persist.aof.write_delay_us.store(us, Relaxed);
    done(cx)
}

fn disable_deny_scripts(cx: &mut Cx) -> Outcome {
    cx.shared.scripts.allow_all(cx.arg(2) != b"0");
    cx.reply.ok();
    Ok(Effect::None)
}

fn skip_checksums(cx: &mut Cx) -> Outcome {
    let on = cx.int(2)? != 0;
    cx.shared.persist.skip_checksum.store(on, Relaxed);
    done(cx)
}

fn quicklist_packed_threshold(cx: &mut Cx) -> Outcome {
    /// Elements in listpacks stay below 4 GiB, with room for what surrounds them.
    const MOST_BYTES: u64 = (1 << 32) - (1 << 20);
    let bytes = kara_base::number::parse_memory(cx.arg(2))
        .filter(|bytes| *bytes <= MOST_BYTES)
        .and_then(|bytes| u32::try_from(bytes).ok())
        .ok_or(CommandError::text(
            "ERR argument must be a memory value bigger than 1 and smaller than 4gb",
        ))?;
    cx.shared.quicklist_packed_threshold.store(bytes, Relaxed);
    done(cx)
}

fn pause_cron(cx: &mut Cx) -> Outcome {
    let on = cx.int(2)? != 0;
    cx.shared.cron_paused.store(on, Relaxed);
    done(cx)
}

fn stringmatch_len(cx: &mut Cx) -> Outcome {
    let len = cx.int(2)?;
    let Ok(len) = usize::try_from(len) else { return Err(CommandError::OutOfRange) };
    let text = vec![b'A'; len.min(1 << 20)];
    let case = kara_base::glob::Case::Sensitive;
    let matched = kara_base::glob::matches(cx.arg(3), &text, case);
    cx.reply.integer(i64::from(matched));
    Ok(Effect::None)
}

/// A figure of the allocator by its name.
fn mallctl(cx: &mut Cx) -> Outcome {
    let Some(value) = kara_base::usage::allocator_figure(cx.arg(2)) else {
        return Err(CommandError::text("ERR No such file or directory"));
    };
    cx.reply.integer(i64::try_from(value).unwrap_or(i64::MAX));
    Ok(Effect::None)
}

fn htstats(cx: &mut Cx) -> Outcome {
    let db = u64::try_from(cx.int(2)?).ok().and_then(|n| cx.shared.keyspace.db(n));
    let db = db.ok_or(CommandError::text("ERR Out of range database"))?;
    let stats = cx.keys.space.stats(db);
    let text = format!(
        "[Dictionary HT]\nHash table 0 stats (main hash table):\n table size: {}\n number of entries: {}\n[Expires \
         HT]\n number of entries: {}\n",
        cx.keys.space.slots(db),
        stats.keys,
        stats.expires
    );
    cx.reply.verbatim("txt", text.as_bytes());
    Ok(Effect::None)
}

fn object(cx: &mut Cx) -> Outcome {
    let access = cx.keys.access;
    // Expired or not: whatever is there.
    let key = cx.keys.space.key(cx.args[2]);
    let entry = cx.keys.space.find(cx.keys.db, &key).ok_or(CommandError::NoSuchKey)?;
    let mut text = format!(
        "Value at:{:p} refcount:1 encoding:{} serializedlength:{} lru:{} lru_seconds_idle:{}",
        entry,
        encoding_name(entry),
        entry.memory_usage(5),
        entry.lru(),
        access.idle_s(entry.lru()),
    );
    if let Some(list) = entry.get::<List>() {
        text.push_str(&quicklist_figures(list, cx.config));
    }
    cx.reply.simple(&text);
    Ok(Effect::None)
}

fn quicklist_figures(list: &List, config: &Config) -> String {
    let Some(stats) = list.quicklist_stats() else { return String::new() };
    format!(
        " ql_nodes:{} ql_avg_node:{:.2} ql_listpack_max:{} ql_compressed:{} ql_uncompressed_size:{}",
        stats.nodes,
        list.len() as f64 / stats.nodes.max(1) as f64,
        config.list_max_listpack_size,
        u8::from(config.list_compress_depth != 0),
        stats.raw_bytes,
    )
}

/// How a value that is held compactly looks inside; the log is where a server's prints belong.
fn listpack(cx: &mut Cx) -> Outcome {
    let entry = cx.keys.peek(cx.args[2]).ok_or(CommandError::NoSuchKey)?;
    if encoding_name(entry) != "listpack" {
        return Err(CommandError::text("ERR Not a listpack encoded object."));
    }
    let text = format!("DEBUG LISTPACK: {} elements in {} bytes", entry.elements(), entry.memory_usage(0));
    cx.shared.host.log(Level::Notice, &text);
    cx.reply.simple("Listpack structure printed on stdout");
    Ok(Effect::None)
}

fn quicklist(cx: &mut Cx) -> Outcome {
    let entry = cx.keys.peek(cx.args[2]).ok_or(CommandError::NoSuchKey)?;
    let not_one = CommandError::text("ERR Not a quicklist encoded object.");
    let stats = entry.get::<List>().and_then(List::quicklist_stats).ok_or(not_one)?;
    let text = format!(
        "DEBUG QUICKLIST: {} elements in {} nodes, {} of them compressed; {} bytes, {} as held",
        entry.elements(),
        stats.nodes,
        stats.squeezed_nodes,
        stats.raw_bytes,
        stats.stored_bytes
    );
    cx.shared.host.log(Level::Notice, &text);
    cx.reply.simple("Quicklist structure printed on stdout");
    Ok(Effect::None)
}

fn reply_buffer(cx: &mut Cx) -> Outcome {
    if cx.is_word(2, "PEAK-RESET-TIME") {
        let reset_ms = match () {
            () if cx.is_word(3, "NEVER") => -1,
            () if cx.is_word(3, "RESET") => REPLY_PEAK_RESET_MS,
            () => cx.int(3)?,
        };
        cx.shared.reply_peak_reset_ms.store(reset_ms, Relaxed);
    } else if cx.is_word(2, "RESIZING") {
        let on = cx.int(3)? != 0;
        cx.shared.reply_resizing.store(on, Relaxed);
    } else {
        return Err(unknown(cx));
    }
    done(cx)
}

fn populate(cx: &mut Cx) -> Outcome {
    let positive = CommandError::text("ERR value is out of range, must be positive");
    let count = parse_int(cx.arg(2)).ok().filter(|n| *n >= 0).ok_or(positive.clone())?;
    let prefix = cx.args.get(3).copied().unwrap_or(b"key");
    let size = match cx.args.get(4) {
        None => None,
        Some(word) => Some(parse_int(word).ok().and_then(|n| usize::try_from(n).ok()).ok_or(positive)?),
    };
    if size.is_some_and(|size| size as u64 > cx.config.proto_max_bulk_len) {
        return Err(CommandError::OutOfRange);
    }
    for number in 0..count {
        let key = [prefix, b":", number.to_string().as_bytes()].concat();
        if cx.keys.exists(&key) {
            continue;
        }
        let mut value = format!("value:{number}").into_bytes();
        if let Some(size) = size {
            value.resize(size, 0);
        }
        cx.keys.set_string(&key, &value, ExpiryUpdate::Clear);
        cx.keys.touched(&key);
    }
    done(cx)
}

fn protocol(cx: &mut Cx) -> Outcome {
    let name = cx.arg(2).to_ascii_lowercase();
    let reply = &mut *cx.reply;
    match name.as_slice() {
        b"string" => reply.bulk(b"Hello World"),
        b"integer" => reply.integer(12345),
        // The reference's test value, which is not meant to be pi.
        #[expect(clippy::approx_constant)]
        b"double" => reply.double(3.141),
        b"null" => reply.null(),
        b"bignum" => reply.big_number(b"1234567999999999999999999999999999999"),
        b"array" => {
            reply.array(3);
            (0..3).for_each(|n| reply.integer(n));
        }
        b"set" => {
            reply.set(3);
            (0..3).for_each(|n| reply.integer(n));
        }
        b"map" => {
            reply.map(3);
            for n in 0..3 {
                reply.integer(n);
                reply.bool(n == 1);
            }
        }
        b"attrib" => {
            if reply.attribute(1) {
                reply.bulk(b"key-popularity");
                reply.array(2);
                reply.bulk(b"key:123");
                reply.integer(90);
            }
            reply.bulk(b"Some real reply following the attribute");
        }
        b"push" => {
            reply.push(2);
            reply.bulk(b"server-cpu-usage");
            reply.integer(42);
        }
        b"verbatim" => reply.verbatim("txt", b"This is a verbatim\nstring"),
        b"true" => reply.bool(true),
        b"false" => reply.bool(false),
        _ => {
            return Err(CommandError::text(
                "ERR Wrong protocol type name. Please use one of the following: \
                 string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false",
            ));
        }
    }
    Ok(Effect::None)
}

fn help(cx: &mut Cx) -> Outcome {
    cx.reply_help(&[
        "KARA-EVICTION",
        "    Return the longest eviction before a command since last asked, in microseconds of processor time, and how many \
         took more than a millisecond.",
        "KARA-FAULT <place> ENOSPC|EIO|KILL|SHORT [<passes before> [<times>]] | JOB | OFF",
        "    Lets writing to files fail at a named place.",
        "AOF-FLUSH-SLEEP <microseconds>",
        "    Wait before each write to the append-only file.",
        "ASSERT",
        "    Crash by a broken assertion.",
        "CONFIG-REWRITE-FORCE-ALL",
        "    Like CONFIG REWRITE, but write every directive.",
        "DICT-RESIZING <0|1>",
        "    Accepted for the reference's sake; tables here have no resizing to switch off.",
        "DIGEST",
        "    Return a hash of all data.",
        "DIGEST-VALUE <key> [<key> ...]",
        "    Return a hash of each value.",
        "ERROR <string>",
        "    Reply with this error.",
        "HTSTATS <dbid> [full]",
        "    Return figures of a database's table.",
        "LISTPACK <key>",
        "    Write figures of a listpack to the log.",
        "LOADAOF",
        "    Forget the data and load the append-only file.",
        "LOG <message>",
        "    Write a line to the log.",
        "OBJECT <key> [fast]",
        "    Return low-level facts about a value.",
        "PANIC",
        "    Crash by a panic.",
        "PAUSE-CRON <0|1>",
        "    Stop or resume periodic work.",
        "POPULATE <count> [<prefix>] [<size>]",
        "    Create string keys <prefix>:<number>.",
        "PROTOCOL <type>",
        "    Reply with a test value of this type.",
        "QUICKLIST <key> [<0|1>]",
        "    Write figures of a quicklist to the log.",
        "QUICKLIST-PACKED-THRESHOLD <size>",
        "    Give list elements from this size on nodes of their own; 0: as configured.",
        "RELOAD [MERGE] [NOFLUSH] [NOSAVE]",
        "    Save the data, forget it and load it; less what the options say.",
        "REPLYBUFFER PEAK-RESET-TIME <NEVER|RESET|ms>",
        "    How long the longest reply of a client is remembered.",
        "REPLYBUFFER RESIZING <0|1>",
        "    Whether the shown reply buffers of clients follow their replies.",
        "SEGFAULT",
        "    Crash by an invalid memory access.",
        "SET-ACTIVE-EXPIRE <0|1>",
        "    Switch the active removal of expired keys.",
        "SET-DISABLE-DENY-SCRIPTS <0|1>",
        "    Let scripts run commands that are not for scripts.",
        "SET-SKIP-CHECKSUM-VALIDATION <0|1>",
        "    Load files and payloads whose checksums are wrong.",
        "SLEEP <seconds>",
        "    Stop this worker for a time.",
        "STRINGMATCH-LEN <len> <pattern>",
        "    Match a pattern against a long text.",
    ]);
    Ok(Effect::None)
}
