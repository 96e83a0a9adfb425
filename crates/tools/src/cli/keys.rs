//! Walks over all keys: `--scan`, `--bigkeys`, `--memkeys` and `--hotkeys`.

use super::link::Link;
use super::options::{Options, Output};
use super::session::{Exit, emit, emit_line};
use kara_base::text::quoted;
use kara_resp::Value;
use signal_hook::consts::SIGINT;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// SCAN from its first cursor to its last, as the options say. Ctrl-C ends the walk and lets the summary come.
struct Walk<'a> {
    options: &'a Options,
    cursor: Vec<u8>,
    steps: u64,
    started: bool,
    stopped: Arc<AtomicBool>,
}

impl<'a> Walk<'a> {
    fn new(options: &'a Options) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let _ = signal_hook::flag::register(SIGINT, Arc::clone(&stopped));
        Walk { options, cursor: b"0".to_vec(), steps: 0, started: false, stopped }
    }

    fn was_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// The next keys; `None` behind the last ones.
    fn next(&mut self, link: &mut Link) -> Result<Option<Vec<Vec<u8>>>, Exit> {
        if self.started && (self.cursor == b"0" || self.was_stopped()) {
            return Ok(None);
        }
        self.started = true;
        let mut words = vec![b"SCAN".to_vec(), self.cursor.clone()];
        if let Some(pattern) = &self.options.pattern {
            words.extend([b"MATCH".to_vec(), pattern.clone()]);
        }
        words.extend([b"COUNT".to_vec(), self.options.count.to_string().into_bytes()]);
        if let Some(kind) = &self.options.kind {
            words.extend([b"TYPE".to_vec(), kind.clone()]);
        }
        let reply = link.ask(&words).map_err(|_| io_error())?;
        self.steps += 1;
        match reply {
            Value::Error(text) => {
                eprintln!("SCAN error: {}", String::from_utf8_lossy(&text));
                Err(Exit(1))
            }
            Value::Array(items) => match <[Value; 2]>::try_from(items) {
                Ok([Value::Bulk(cursor), Value::Array(keys)]) => {
                    self.cursor = cursor;
                    let texts = keys.into_iter().filter_map(|key| match key {
                        Value::Bulk(key) => Some(key),
                        _ => None,
                    });
                    Ok(Some(texts.collect()))
                }
                _ => {
                    eprintln!("Invalid element count from SCAN!");
                    Err(Exit(1))
                }
            },
            _ => {
                eprintln!("Non ARRAY response from SCAN!");
                Err(Exit(1))
            }
        }
    }

    fn rest(&self, every: u64) {
        if !self.options.interval.is_zero() && self.steps.is_multiple_of(every) {
            std::thread::sleep(self.options.interval);
        }
    }
}

fn io_error() -> Exit {
    eprintln!("\nI/O error");
    Exit(1)
}

/// `--scan`
pub fn scan(link: &mut Link, options: &Options) -> Result<(), Exit> {
    let mut walk = Walk::new(options);
    while let Some(keys) = walk.next(link)? {
        let mut out = Vec::new();
        for key in keys {
            match options.output {
                Output::Standard => out.extend_from_slice(quoted(&key).as_bytes()),
                _ => out.extend_from_slice(&key),
            }
            out.push(b'\n');
        }
        emit(&out)?;
        walk.rest(1);
    }
    Ok(())
}

/// What is known of one type.
#[derive(Default)]
struct Kind {
    name: Vec<u8>,
    command: Option<&'static str>,
    unit: &'static str,
    biggest: u64,
    biggest_key: Option<String>,
    count: u64,
    total: u64,
}

/// In the order in which the reference sums up.
const KINDS: [(&str, &str, &str); 6] = [
    ("list", "LLEN", "items"),
    ("hash", "HLEN", "fields"),
    ("stream", "XLEN", "entries"),
    ("string", "STRLEN", "bytes"),
    ("set", "SCARD", "members"),
    ("zset", "ZCARD", "members"),
];
/// More types than a server with modules has.
const MAX_KINDS: usize = 1000;

fn database_size(link: &mut Link) -> Result<f64, Exit> {
    match link.ask(&["DBSIZE"]) {
        Ok(Value::Integer(size)) => Ok(size as f64),
        Ok(Value::Error(text)) => {
            eprintln!("Couldn't determine DBSIZE: {}", String::from_utf8_lossy(&text));
            Err(Exit(1))
        }
        Ok(_) => {
            eprintln!("Non INTEGER response from DBSIZE!");
            Err(Exit(1))
        }
        Err(_) => Err(io_error()),
    }
}

/// A replica of a cluster answers reads only after READONLY; elsewhere that command may be refused.
fn announce_reading(link: &mut Link) -> Result<(), Exit> {
    link.ask(&["READONLY"]).map(|_| ()).map_err(|_| io_error())
}

fn percent(part: u64, whole: f64) -> f64 {
    if whole > 0.0 { 100.0 * part as f64 / whole } else { 0.0 }
}

/// `--bigkeys`; with `memory` (samples of MEMORY USAGE, 0 for the server's) `--memkeys`.
pub fn big(link: &mut Link, options: &Options, memory: Option<u64>) -> Result<(), Exit> {
    let total_keys = database_size(link)?;
    emit_line(
        "\n# Scanning the entire keyspace to find biggest keys as well as\n# average sizes per key type.  \
         You can use -i 0.1 to sleep 0.1 sec\n# per 100 SCAN commands (not usually needed).\n",
    )?;
    announce_reading(link)?;
    let new = |&(name, command, unit): &(&str, &'static str, &'static str)| Kind {
        name: name.as_bytes().to_vec(),
        command: Some(command),
        unit,
        ..Kind::default()
    };
    let mut kinds: Vec<Kind> = KINDS.iter().map(new).collect();
    let (mut sampled, mut name_bytes) = (0u64, 0u64);
    let mut walk = Walk::new(options);
    let mut done = 0.0;
    while let Some(keys) = walk.next(link)? {
        done = percent(sampled, total_keys);
        let types = types_of(link, &keys)?;
        let sizes = sizes_of(link, &keys, &types, &kinds, memory)?;
        for ((key, name), size) in keys.iter().zip(types).zip(sizes) {
            if name == b"none" {
                continue;
            }
            let Some(kind) = kind_of(&mut kinds, &name) else { continue };
            kind.total += size;
            kind.count += 1;
            name_bytes += u64::try_from(key.len()).unwrap_or(0);
            sampled += 1;
            if kind.biggest < size {
                kind.biggest = size;
                let shown = quoted(key);
                let unit = if memory.is_some() { "bytes" } else { kind.unit };
                let name = String::from_utf8_lossy(&name).into_owned();
                emit_line(&format!(
                    "[{done:05.2}%] Biggest {name:<6} found so far '{shown}' with {size} {unit}"
                ))?;
                kind.biggest_key = Some(shown);
            }
            if sampled.is_multiple_of(1_000_000) {
                emit_line(&format!("[{done:05.2}%] Sampled {sampled} keys so far"))?;
            }
        }
        walk.rest(100);
    }
    let head = if walk.was_stopped() { format!("[{done:05.2}%] ") } else { String::new() };
    let average = if sampled > 0 { name_bytes as f64 / sampled as f64 } else { 0.0 };
    emit_line(&format!("\n-------- summary -------\n\n{head}Sampled {sampled} keys in the keyspace!"))?;
    emit_line(&format!("Total key length in bytes is {name_bytes} (avg len {average:.2})\n"))?;
    summary(&kinds, sampled, memory.is_some())
}

/// The type of that name; a module's is added when it is first met.
fn kind_of<'a>(kinds: &'a mut Vec<Kind>, name: &[u8]) -> Option<&'a mut Kind> {
    let known = kinds.iter().position(|kind| kind.name == name);
    if known.is_none() {
        if kinds.len() >= MAX_KINDS {
            return None;
        }
        kinds.push(Kind { name: name.to_vec(), unit: "?", ..Kind::default() });
    }
    let last = kinds.len().checked_sub(1)?;
    kinds.get_mut(known.unwrap_or(last))
}

fn summary(kinds: &[Kind], sampled: u64, memory: bool) -> Result<(), Exit> {
    let unit = |kind: &Kind| if memory { "bytes" } else { kind.unit };
    for kind in kinds {
        if let Some(key) = &kind.biggest_key {
            let name = String::from_utf8_lossy(&kind.name);
            emit_line(&format!("Biggest {name:>6} found '{key}' has {} {}", kind.biggest, unit(kind)))?;
        }
    }
    emit_line("")?;
    for kind in kinds {
        let share = percent(kind.count, sampled as f64);
        let average = if kind.count > 0 { kind.total as f64 / kind.count as f64 } else { 0.0 };
        emit_line(&format!(
            "{} {}s with {} {} ({share:05.2}% of keys, avg size {average:.2})",
            kind.count,
            String::from_utf8_lossy(&kind.name),
            kind.total,
            unit(kind)
        ))?;
    }
    Ok(())
}

fn types_of(link: &mut Link, keys: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, Exit> {
    let commands: Vec<_> = keys.iter().map(|key| vec![b"TYPE".to_vec(), key.clone()]).collect();
    let replies = link.pipeline(&commands).map_err(|_| io_error())?;
    replies
        .into_iter()
        .map(|reply| match reply {
            Value::Simple(name) => Ok(name),
            other => {
                let text = other.as_error().unwrap_or(b"no status").to_vec();
                eprintln!("TYPE returned an error: {}", String::from_utf8_lossy(&text));
                Err(Exit(1))
            }
        })
        .collect()
}

fn sizes_of(
    link: &mut Link,
    keys: &[Vec<u8>],
    types: &[Vec<u8>],
    kinds: &[Kind],
    memory: Option<u64>,
) -> Result<Vec<u64>, Exit> {
    let command_of = |key: &Vec<u8>, name: &Vec<u8>| -> Option<Vec<Vec<u8>>> {
        let word = |text: &str| text.as_bytes().to_vec();
        match memory {
            _ if name == b"none" => None,
            Some(0) => Some(vec![word("MEMORY"), word("USAGE"), key.clone()]),
            Some(samples) => {
                let samples = word(&samples.to_string());
                Some(vec![word("MEMORY"), word("USAGE"), key.clone(), word("SAMPLES"), samples])
            }
            None => {
                let kind = kinds.iter().find(|kind| kind.name == *name)?;
                Some(vec![word(kind.command?), key.clone()])
            }
        }
    };
    let commands: Vec<_> = keys.iter().zip(types).map(|(key, name)| command_of(key, name)).collect();
    let sent: Vec<_> = commands.iter().flatten().cloned().collect();
    let mut replies = link.pipeline(&sent).map_err(|_| io_error())?.into_iter();
    let sizes = keys.iter().zip(commands).map(|(key, command)| {
        let Some(command) = command else { return 0 };
        match replies.next() {
            Some(Value::Integer(size)) => u64::try_from(size).unwrap_or(0),
            _ => {
                let name = if memory.is_some() { b"MEMORY USAGE".to_vec() } else { command.concat() };
                let name = name.strip_suffix(key.as_slice()).unwrap_or(&name);
                let (name, key) = (String::from_utf8_lossy(name), String::from_utf8_lossy(key));
                eprintln!("Warning:  {name} on '{key}' failed (may have changed type)");
                0
            }
        }
    });
    Ok(sizes.collect())
}

/// `--hotkeys`: the `wanted` keys with the highest counters of a policy that counts reads.
pub fn hot(link: &mut Link, options: &Options, wanted: usize) -> Result<(), Exit> {
    let total_keys = database_size(link)?;
    emit_line(
        "\n# Scanning the entire keyspace to find hot keys as well as\n# average sizes per key type.  \
         You can use -i 0.1 to sleep 0.1 sec\n# per 100 SCAN commands (not usually needed).\n",
    )?;
    announce_reading(link)?;
    // Ascending; the first is the next to go.
    let mut best: Vec<(u64, String)> = Vec::new();
    let mut sampled = 0;
    let mut walk = Walk::new(options);
    let mut done = 0.0;
    while let Some(keys) = walk.next(link)? {
        done = percent(sampled, total_keys);
        for (key, count) in keys.iter().zip(counters_of(link, &keys)?) {
            sampled += 1;
            if sampled.is_multiple_of(1_000_000) {
                emit_line(&format!("[{done:05.2}%] Sampled {sampled} keys so far"))?;
            }
            let place = best.partition_point(|(known, _)| *known < count);
            if count == 0 || (best.len() == wanted && place == 0) {
                continue;
            }
            let shown = quoted(key);
            emit_line(&format!("[{done:05.2}%] Hot key '{shown}' found so far with counter {count}"))?;
            best.insert(place, (count, shown));
            if best.len() > wanted {
                best.remove(0);
            }
        }
        walk.rest(100);
    }
    let head = if walk.was_stopped() { format!("[{done:05.2}%] ") } else { String::new() };
    emit_line(&format!("\n-------- summary -------\n\n{head}Sampled {sampled} keys in the keyspace!"))?;
    for (count, key) in best.iter().rev() {
        emit_line(&format!("hot key found with counter: {count}\tkeyname: {key}"))?;
    }
    Ok(())
}

fn counters_of(link: &mut Link, keys: &[Vec<u8>]) -> Result<Vec<u64>, Exit> {
    let command = |key: &Vec<u8>| vec![b"OBJECT".to_vec(), b"FREQ".to_vec(), key.clone()];
    let commands: Vec<_> = keys.iter().map(command).collect();
    let replies = link.pipeline(&commands).map_err(|_| io_error())?;
    keys.iter()
        .zip(replies)
        .map(|(key, reply)| match reply {
            Value::Integer(count) => Ok(u64::try_from(count).unwrap_or(0)),
            Value::Error(text) => {
                eprintln!("Error: {}", String::from_utf8_lossy(&text));
                Err(Exit(1))
            }
            _ => {
                eprintln!("Warning: OBJECT freq on '{}' failed (may have been deleted)", quoted(key));
                Ok(0)
            }
        })
        .collect()
}
