//! One database's keys, batch by batch: DUMP from here, RESTORE to there, each as one pipeline.

use super::content::{self, Trouble, words};
use super::meter::Meter;
use super::options::MigrateOptions;
use super::state::StateFile;
use crate::cli::link::Link;
use kara_resp::Value;

/// Where a value is put together that can't be restored at once; it gets its name when it is whole.
const PARTIAL: &[u8] = b"kara-cli:migrate:partial";

/// What became of the keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub copied: u64,
    /// The target had them.
    pub kept: u64,
    /// Expired or deleted before they could be read.
    pub gone: u64,
    pub failed: u64,
}

/// Both ends, and what was learnt of them.
pub struct Ends {
    pub from: Link,
    pub to: Link,
    /// The source tells expiry as a point in time.
    pub absolute: bool,
    /// The target takes the source's payloads.
    pub payloads: bool,
}

/// One key on its way.
struct Key {
    name: Vec<u8>,
    /// As the source told: a point in time or a duration, in ms; 0: none.
    expiry_ms: i64,
    payload: Option<Vec<u8>>,
}

impl Ends {
    /// A step of SCAN: the next cursor and the keys.
    pub fn scan(&mut self, cursor: &str, options: &MigrateOptions) -> Result<(String, Vec<Vec<u8>>), String> {
        let count = options.batch().to_string();
        let mut line = words(&[b"SCAN", cursor.as_bytes()]);
        if let Some(pattern) = &options.pattern {
            line.extend(words(&[b"MATCH", pattern]));
        }
        line.extend(words(&[b"COUNT", count.as_bytes()]));
        let reply = self.from.ask(&line).map_err(|fault| format!("source: {fault}"))?;
        if let Value::Error(text) = &reply {
            return Err(format!("source: SCAN: {}", String::from_utf8_lossy(text)));
        }
        let Some([cursor, keys]) = reply.as_elements() else { return Err("source: SCAN: no cursor".into()) };
        let cursor = String::from_utf8_lossy(cursor.as_bytes().unwrap_or(b"0")).into_owned();
        let keys = keys.as_elements().unwrap_or_default();
        Ok((cursor, keys.iter().filter_map(|key| Some(key.as_bytes()?.to_vec())).collect()))
    }

    fn read(&mut self, names: &[Vec<u8>]) -> Result<Vec<Key>, String> {
        let expiry: &[u8] = if self.absolute { b"PEXPIRETIME" } else { b"PTTL" };
        let mut lines = Vec::with_capacity(names.len() * 2);
        for name in names {
            lines.push(words(&[expiry, name]));
            if self.payloads {
                lines.push(words(&[b"DUMP", name]));
            }
        }
        let replies = self.from.pipeline(&lines).map_err(|fault| format!("source: {fault}"))?;
        let mut replies = replies.into_iter();
        let mut keys = Vec::with_capacity(names.len());
        for name in names {
            let expiry_ms = match replies.next() {
                Some(Value::Integer(-1)) => 0,
                Some(Value::Integer(expiry_ms @ 0..)) => expiry_ms.max(1),
                Some(Value::Integer(_)) => -2,
                Some(Value::Error(text)) => {
                    return Err(format!("source: {}", String::from_utf8_lossy(&text)));
                }
                _ => return Err("source: an expiry that is no number".into()),
            };
            let payload = match self.payloads.then(|| replies.next()).flatten() {
                Some(Value::Bulk(payload)) => Some(payload),
                Some(Value::Error(text)) => {
                    return Err(format!("source: DUMP: {}", String::from_utf8_lossy(&text)));
                }
                _ => None,
            };
            keys.push(Key { name: name.clone(), expiry_ms, payload });
        }
        Ok(keys)
    }

    fn restore_line(&self, key: &Key, payload: &[u8], replace: bool) -> Vec<Vec<u8>> {
        let expiry = key.expiry_ms.to_string();
        let mut line = words(&[b"RESTORE", &key.name, expiry.as_bytes(), payload]);
        if replace {
            line.push(b"REPLACE".to_vec());
        }
        if self.absolute && key.expiry_ms > 0 {
            line.push(b"ABSTTL".to_vec());
        }
        line
    }

    /// Copies the keys and counts what became of them.
    pub fn copy(&mut self, names: &[Vec<u8>], replace: bool, counts: &mut Counts) -> Result<u64, String> {
        if names.is_empty() {
            return Ok(0);
        }
        let keys: Vec<Key> = self.read(names)?;
        let (present, gone): (Vec<_>, Vec<_>) =
            keys.into_iter().partition(|key| key.expiry_ms >= 0 && (key.payload.is_some() || !self.payloads));
        counts.gone += u64::try_from(gone.len()).unwrap_or(0);
        let lines: Vec<_> = present
            .iter()
            .filter_map(|key| Some(self.restore_line(key, key.payload.as_deref()?, replace)))
            .collect();
        let bytes = present.iter().map(|key| key.payload.as_ref().map_or(0, Vec::len)).sum::<usize>();
        let replies = self.to.pipeline(&lines).map_err(|fault| format!("target: {fault}"))?;
        let mut replies = replies.into_iter();
        for key in &present {
            let reply = if key.payload.is_some() { replies.next() } else { None };
            match reply {
                Some(Value::Simple(_)) => counts.copied += 1,
                Some(Value::Error(text)) if text.starts_with(b"BUSYKEY") => counts.kept += 1,
                Some(Value::Error(text)) if refuses_payload(&text) => {
                    if is_about_version(&text) && self.payloads {
                        self.payloads = false;
                        let version = key.payload.as_deref().and_then(version_of).unwrap_or(0);
                        eprintln!(
                            "The target doesn't take payloads of DUMP version {version}: copying type by type."
                        );
                    }
                    self.copy_by_type(key, replace, counts)?;
                }
                Some(Value::Error(text)) => {
                    report(&key.name, &String::from_utf8_lossy(&text));
                    counts.failed += 1;
                }
                _ => self.copy_by_type(key, replace, counts)?,
            }
        }
        Ok(u64::try_from(bytes).unwrap_or(0))
    }

    fn copy_by_type(&mut self, key: &Key, replace: bool, counts: &mut Counts) -> Result<(), String> {
        let content = match content::read(&mut self.from, &key.name) {
            Ok(Some(content)) => content,
            Ok(None) => {
                counts.gone += 1;
                return Ok(());
            }
            Err(Trouble::Link(fault)) => return Err(format!("source: {fault}")),
            Err(Trouble::Key(why)) => {
                report(&key.name, &why);
                counts.failed += 1;
                return Ok(());
            }
        };
        let mut lines = vec![words(&[b"DEL", PARTIAL])];
        lines.extend(content::commands(PARTIAL, &content));
        if key.expiry_ms > 0 {
            let command: &[u8] = if self.absolute { b"PEXPIREAT" } else { b"PEXPIRE" };
            lines.push(words(&[command, PARTIAL, key.expiry_ms.to_string().as_bytes()]));
        }
        lines.push(words(&[if replace { b"RENAME" } else { b"RENAMENX" }, PARTIAL, &key.name]));
        lines.push(words(&[b"DEL", PARTIAL]));
        let replies = self.to.pipeline(&lines).map_err(|fault| format!("target: {fault}"))?;
        let fault = replies.iter().find_map(Value::as_error);
        match (fault, replies.iter().rev().nth(1)) {
            (Some(text), _) => {
                report(&key.name, &String::from_utf8_lossy(text));
                counts.failed += 1;
            }
            (None, Some(Value::Integer(0))) => counts.kept += 1,
            (None, _) => counts.copied += 1,
        }
        Ok(())
    }
}

fn refuses_payload(text: &[u8]) -> bool {
    is_about_version(text) || text.starts_with(b"ERR Bad data format")
}

fn is_about_version(text: &[u8]) -> bool {
    text.starts_with(b"ERR DUMP payload version")
}

/// Two bytes in front of the checksum.
fn version_of(payload: &[u8]) -> Option<u16> {
    let at = payload.len().checked_sub(10)?;
    Some(u16::from_le_bytes(payload.get(at..at + 2)?.try_into().ok()?))
}

fn report(key: &[u8], why: &str) {
    eprintln!("{}: {why}", kara_base::text::quoted(key));
}

/// A whole database, from where the state says.
pub fn database(
    ends: &mut Ends,
    db: u32,
    options: &MigrateOptions,
    state: &mut StateFile,
    meter: &mut Meter,
    counts: &mut Counts,
) -> Result<(), String> {
    let mut cursor = match &state.progress.current {
        Some((current, cursor)) if *current == db => cursor.clone(),
        _ => "0".into(),
    };
    loop {
        let (next, keys) = ends.scan(&cursor, options)?;
        for part in keys.chunks(options.batch()) {
            let bytes = ends.copy(part, options.replace, counts)?;
            meter.add(part.len(), bytes);
            meter.hold(options.rate);
        }
        if next == "0" {
            return state.finish(db);
        }
        state.note(db, &next)?;
        cursor = next;
    }
}
