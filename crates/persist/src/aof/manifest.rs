//! The manifest: which files make up the log, in which order.
//!
//! ```text
//! file appendonly.aof.1.base.rdb seq 1 type b
//! file appendonly.aof.1.incr.aof seq 1 type i      type h: no longer needed, to be deleted
//! ```

use crate::rdb::file::{TempFile, sync_dir};
use kara_base::text::push_quoted;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A line may be this long.
const LINE_MAX: usize = 1024;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    Base,
    Incr,
    History,
}

/// A line of the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AofFile {
    pub name: String,
    pub seq: u64,
    pub kind: FileKind,
}

/// The files in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    pub base: Option<AofFile>,
    pub incrs: Vec<AofFile>,
    pub history: Vec<AofFile>,
    base_seq: u64,
    incr_seq: u64,
}

/// A line that can't be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// From 1.
    pub line: usize,
    pub text: String,
    pub reason: &'static str,
}

const INVALID: &str = "Invalid AOF manifest file format";

impl Manifest {
    /// Reads the manifest's text.
    pub fn parse(text: &[u8]) -> Result<Manifest, Fault> {
        let mut manifest = Manifest::default();
        let fault = |line: usize, text: &str, reason| Fault { line, text: text.to_owned(), reason };
        if text.is_empty() {
            return Err(fault(0, "", "Found an empty AOF manifest"));
        }
        let text = String::from_utf8_lossy(text);
        for (number, line) in text.split_inclusive('\n').enumerate() {
            let number = number + 1;
            if line.starts_with('#') {
                continue;
            }
            if line.len() > LINE_MAX || !line.ends_with('\n') && line.len() >= LINE_MAX {
                return Err(fault(number, line, "The AOF manifest file contains too long line"));
            }
            let file = parse_line(line.trim()).map_err(|reason| fault(number, line.trim(), reason))?;
            manifest.add(file).map_err(|reason| fault(number, line.trim(), reason))?;
        }
        Ok(manifest)
    }

    fn add(&mut self, file: AofFile) -> Result<(), &'static str> {
        match file.kind {
            FileKind::Base if self.base.is_some() => return Err("Found duplicate base file information"),
            FileKind::Base => {
                self.base_seq = file.seq;
                self.base = Some(file);
            }
            FileKind::Incr if file.seq <= self.incr_seq => {
                return Err("Found a non-monotonic sequence number");
            }
            FileKind::Incr => {
                self.incr_seq = file.seq;
                self.incrs.push(file);
            }
            FileKind::History => self.history.push(file),
        }
        Ok(())
    }

    /// The text of the manifest.
    pub fn text(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for file in self.base.iter().chain(&self.history).chain(&self.incrs) {
            out.extend_from_slice(b"file ");
            let plain = file.name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'\\'));
            if plain {
                out.extend_from_slice(file.name.as_bytes());
            } else {
                push_quoted(&mut out, file.name.as_bytes());
            }
            let letter = match file.kind {
                FileKind::Base => 'b',
                FileKind::Incr => 'i',
                FileKind::History => 'h',
            };
            out.extend_from_slice(format!(" seq {} type {letter}\n", file.seq).as_bytes());
        }
        out
    }

    /// Writes it to its place in one step, durably.
    pub fn write(&self, dir: &Path, filename: &str) -> io::Result<()> {
        let mut file = TempFile::create(dir, &format!("temp-{filename}.manifest"), false)?;
        file.write_all(&self.text())?;
        file.sync()?;
        file.rename_to(&path(dir, filename))
    }

    /// Names the next base; `extension` is `rdb` or `aof`. The one before becomes history.
    pub fn next_base(&mut self, filename: &str, extension: &str) -> AofFile {
        self.base_seq += 1;
        let name = format!("{filename}.{}.base.{extension}", self.base_seq);
        let base = AofFile { name, seq: self.base_seq, kind: FileKind::Base };
        if let Some(old) = self.base.replace(base.clone()) {
            self.history.insert(0, AofFile { kind: FileKind::History, ..old });
        }
        base
    }

    /// Names the next increment and lists it.
    pub fn next_incr(&mut self, filename: &str) -> AofFile {
        self.incr_seq += 1;
        let name = format!("{filename}.{}.incr.aof", self.incr_seq);
        let incr = AofFile { name, seq: self.incr_seq, kind: FileKind::Incr };
        self.incrs.push(incr.clone());
        incr
    }

    /// The increments before that one are in the base now.
    pub fn retire_before(&mut self, seq: u64) {
        let (old, kept) = std::mem::take(&mut self.incrs).into_iter().partition(|file| file.seq < seq);
        self.incrs = kept;
        let old: Vec<AofFile> = old;
        // The newest first, as in the reference.
        for file in old {
            self.history.insert(0, AofFile { kind: FileKind::History, ..file });
        }
    }

    /// Whether files are listed that are no longer needed.
    pub fn has_history(&self) -> bool {
        !self.history.is_empty()
    }

    /// Deletes what is history and forgets it.
    pub fn delete_history(&mut self, dir: &Path) {
        for file in self.history.drain(..) {
            // What is left behind is named by no manifest and harms nobody.
            let _ = std::fs::remove_file(dir.join(&file.name));
        }
    }

    /// A single file of old, moved into the directory, becomes the base.
    pub fn from_single_file(filename: &str) -> Manifest {
        let base = AofFile { name: filename.to_owned(), seq: 1, kind: FileKind::Base };
        Manifest { base: Some(base), base_seq: 1, ..Manifest::default() }
    }

    /// Files in the order in which they are loaded.
    pub fn in_order(&self) -> impl Iterator<Item = &AofFile> {
        self.base.iter().chain(&self.incrs)
    }

    /// No file is listed.
    pub fn is_empty(&self) -> bool {
        self.base.is_none() && self.incrs.is_empty()
    }
}

/// Where the manifest is.
pub fn path(dir: &Path, filename: &str) -> PathBuf {
    dir.join(format!("{filename}.manifest"))
}

/// Makes the directory, durably, where it is missing.
pub fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    std::fs::create_dir(dir)?;
    sync_dir(dir)
}

fn parse_line(line: &str) -> Result<AofFile, &'static str> {
    let words = words(line).ok_or(INVALID)?;
    if words.len() < 6 || !words.len().is_multiple_of(2) {
        return Err(INVALID);
    }
    let (mut name, mut seq, mut kind) = (None, None, None);
    for pair in words.chunks_exact(2) {
        let [key, value] = pair else { return Err(INVALID) };
        match key.to_ascii_lowercase().as_str() {
            "file" if value.contains('/') => return Err("File can't be a path, just a filename"),
            "file" => name = Some(value.clone()),
            "seq" => seq = value.parse::<u64>().ok(),
            "type" => {
                kind = match value.as_bytes().first() {
                    Some(b'b') => Some(FileKind::Base),
                    Some(b'i') => Some(FileKind::Incr),
                    Some(b'h') => Some(FileKind::History),
                    _ => return Err("Unknown AOF file type"),
                }
            }
            _ => {}
        }
    }
    match (name.filter(|name| !name.is_empty()), seq.filter(|seq| *seq > 0), kind) {
        (Some(name), Some(seq), Some(kind)) => Ok(AofFile { name, seq, kind }),
        _ => Err(INVALID),
    }
}

/// Words between blanks; one in double quotes may hold blanks.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let mut word = String::new();
                let mut chars = quoted.char_indices();
                let end = loop {
                    match chars.next()? {
                        (at, '"') => break at,
                        (_, '\\') => word.push(chars.next()?.1),
                        (_, c) => word.push(c),
                    }
                };
                (word, &quoted[end + 1..])
            }
            None => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        words.push(word);
        rest = after.trim_start();
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_of_a_manifest() {
        let mut manifest = Manifest::default();
        manifest.next_base("a b.aof", "rdb");
        let first = manifest.next_incr("a b.aof");
        manifest.next_base("a b.aof", "rdb");
        let second = manifest.next_incr("a b.aof");
        manifest.retire_before(second.seq);
        let text = manifest.text();
        assert_eq!(
            String::from_utf8_lossy(&text),
            "file \"a b.aof.2.base.rdb\" seq 2 type b\nfile \"a b.aof.1.incr.aof\" seq 1 type h\n\
             file \"a b.aof.1.base.rdb\" seq 1 type h\nfile \"a b.aof.2.incr.aof\" seq 2 type i\n"
        );
        assert_eq!(Manifest::parse(&text).unwrap(), manifest);
        assert_eq!(first.seq, 1);
    }

    #[test]
    fn faults() {
        let reason = |text: &str| Manifest::parse(text.as_bytes()).unwrap_err().reason;
        assert_eq!(reason(""), "Found an empty AOF manifest");
        assert_eq!(reason("\n"), INVALID);
        assert_eq!(reason("file a seq 1\n"), INVALID);
        assert_eq!(reason("file a seq 0 type i\n"), INVALID);
        assert_eq!(reason("file a seq 1 type x\n"), "Unknown AOF file type");
        assert_eq!(
            reason("file a seq 2 type i\nfile b seq 2 type i\n"),
            "Found a non-monotonic sequence number"
        );
        assert_eq!(
            reason("file a seq 1 type b\nfile b seq 2 type b\n"),
            "Found duplicate base file information"
        );
        assert_eq!(reason("file ../a seq 1 type b\n"), "File can't be a path, just a filename");
        assert!(reason(&format!("file {} seq 1 type b\n", "x".repeat(2000))).contains("too long line"));
        assert!(Manifest::parse(b"# a comment\nfile a seq 1 type b more 7\n").is_ok());
    }
}
