//! Start-up: the file, standard input and the flags become a `Config`, or the error that ends the start.

use std::fmt;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::find;
use super::invocation::Sources;
use super::table::{Config, Flags};
use super::value::{Fault, Source};
use kara_base::text::split_args;

/// How deep `include` may nest: far beyond any sensible file, far below the stack's end.
const MAX_INCLUDES: usize = 64;

/// What loading needs of the process around it; passed in so that tests can do without one.
pub trait Surroundings {
    /// Directives that an image or a unit sets for whatever it starts, separated by `;`: the file and the flags override
    /// them.
    fn defaults(&mut self) -> Vec<u8> {
        Vec::new()
    }
    /// The bytes of a configuration file.
    fn read(&mut self, path: &Path) -> io::Result<Vec<u8>>;
    /// All of standard input.
    fn read_stdin(&mut self) -> io::Result<Vec<u8>>;
    /// Makes `dir` the working directory, and says what it is called absolutely.
    fn enter(&mut self, dir: &Path) -> io::Result<PathBuf>;
    /// The files that a pattern of `include` matches, sorted.
    fn matching(&mut self, pattern: &Path) -> Vec<PathBuf>;
    /// Whether a log file of this name can be appended to.
    fn check_log_file(&mut self, path: &Path) -> io::Result<()>;
}

/// The real surroundings: this process and its file system.
#[derive(Debug, Default)]
pub struct ProcessSurroundings;

/// The variable of the environment that holds [`Surroundings::defaults`].
const DEFAULTS: &str = "KARA_DEFAULTS";

impl Surroundings for ProcessSurroundings {
    fn defaults(&mut self) -> Vec<u8> {
        std::env::var_os(DEFAULTS).map(OsStringExt::into_vec).unwrap_or_default()
    }

    fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn read_stdin(&mut self) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        io::stdin().lock().read_to_end(&mut text)?;
        Ok(text)
    }

    fn enter(&mut self, dir: &Path) -> io::Result<PathBuf> {
        std::env::set_current_dir(dir)?;
        std::env::current_dir()
    }

    fn matching(&mut self, pattern: &Path) -> Vec<PathBuf> {
        super::store::matching_files(pattern)
    }

    fn check_log_file(&mut self, path: &Path) -> io::Result<()> {
        std::fs::OpenOptions::new().append(true).create(true).open(path).map(|_| ())
    }
}

/// A line of the configuration, for errors that are found after reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineRef {
    /// Counted from 1 within its file.
    pub number: usize,
    pub text: Vec<u8>,
}

/// Words that only the owner of another part can judge, and where they stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The words after the directive's name.
    pub words: Vec<Vec<u8>>,
    pub line: LineRef,
}

/// What start-up read.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    pub config: Config,
    /// The configuration file, absolute: what CONFIG REWRITE rewrites.
    pub file: Option<PathBuf>,
    pub sentinel: bool,
    /// `rename-command <from> <to>`, in order; to be judged against the command table.
    pub renames: Vec<Located>,
    /// `user <name> <rule> ...`; to be judged by the ACL.
    pub users: Vec<Located>,
    /// `loadmodule <path> [argument ...]`.
    pub modules: Vec<Located>,
    /// `sentinel ...` lines, in sentinel mode only.
    pub sentinel_lines: Vec<Located>,
}

/// Why the start ends here. `Display` is the whole text for standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// A line is wrong.
    Line { line: LineRef, reason: String },
    /// The whole is wrong.
    Whole(String),
    /// A file can't be read; this one is logged instead of printed.
    Unreadable { path: Vec<u8>, reason: String },
}

impl LoadError {
    /// The error for a line that another part refuses.
    pub fn at(line: &LineRef, reason: impl Into<String>) -> Self {
        LoadError::Line { line: line.clone(), reason: reason.into() }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEAD: &str = "\n*** FATAL CONFIG FILE ERROR (Version 9.1.2) ***\n";
        match self {
            LoadError::Line { line, reason } => {
                let text = String::from_utf8_lossy(&line.text);
                let number = line.number;
                write!(f, "{HEAD}Reading the configuration file, at line {number}\n>>> '{text}'\n{reason}\n")
            }
            LoadError::Whole(reason) => writeln!(f, "{HEAD}{reason}"),
            LoadError::Unreadable { path, reason } => {
                write!(f, "Fatal error, can't open config file '{}': {reason}", String::from_utf8_lossy(path))
            }
        }
    }
}

impl std::error::Error for LoadError {}

/// The C library's words for an error, without Rust's "(os error N)".
pub fn os_text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// Reads everything that `sources` names.
pub fn load(sources: &Sources, around: &mut dyn Surroundings) -> Result<Loaded, LoadError> {
    let mut loaded = Loaded { sentinel: sources.sentinel, ..Loaded::default() };
    let mut text = Vec::new();
    if let Some(name) = &sources.file {
        let path = Path::new(std::ffi::OsStr::from_bytes(name));
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        text = read_file(&path, around)?;
        loaded.file = Some(path);
    }
    if sources.stdin {
        let more = around
            .read_stdin()
            .map_err(|e| LoadError::Unreadable { path: b"-".to_vec(), reason: os_text(&e) })?;
        text.extend_from_slice(&more);
    }
    if !sources.options.is_empty() {
        text.push(b'\n');
        text.extend_from_slice(&sources.options);
    }
    let defaults: Vec<u8> =
        around.defaults().iter().map(|byte| if *byte == b';' { b'\n' } else { *byte }).collect();
    let mut loader = Loader { loaded: &mut loaded, around };
    loader.text(&defaults, 0)?;
    loader.text(&text, 0)?;
    check_whole(&loaded, around)?;
    Ok(loaded)
}

fn read_file(path: &Path, around: &mut dyn Surroundings) -> Result<Vec<u8>, LoadError> {
    around.read(path).map_err(|e| LoadError::Unreadable {
        path: path.as_os_str().as_bytes().to_vec(),
        reason: os_text(&e),
    })
}

/// Conditions between directives.
fn check_whole(loaded: &Loaded, around: &mut dyn Surroundings) -> Result<(), LoadError> {
    let config = &loaded.config;
    if !config.logfile.is_empty() {
        let path = Path::new(std::ffi::OsStr::from_bytes(&config.logfile));
        around
            .check_log_file(path)
            .map_err(|e| LoadError::Whole(format!("Can't open the log file: {}", os_text(&e))))?;
    }
    if config.cluster_enabled && config.replicaof.0.is_some() {
        return Err(LoadError::Whole("replicaof directive not allowed in cluster mode".to_owned()));
    }
    Ok(())
}

struct Loader<'a> {
    loaded: &'a mut Loaded,
    around: &'a mut dyn Surroundings,
}

impl Loader<'_> {
    fn text(&mut self, text: &[u8], depth: usize) -> Result<(), LoadError> {
        for (index, raw) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = trimmed(raw);
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let line = LineRef { number: index + 1, text: line.to_vec() };
            self.line(&line, depth)?;
        }
        Ok(())
    }

    fn line(&mut self, line: &LineRef, depth: usize) -> Result<(), LoadError> {
        let refuse = |reason: Fault| Err(LoadError::at(line, reason));
        let Ok(words) = split_args(&line.text) else {
            return refuse("Unbalanced quotes in configuration line".into());
        };
        let Some((name, args)) = words.split_first() else { return Ok(()) };
        match self.known(name, args) {
            Some(Ok(())) => return Ok(()),
            Some(Err(reason)) => return refuse(reason),
            None => {}
        }
        let located = || Located { words: args.to_vec(), line: line.clone() };
        match (name.to_ascii_lowercase().as_slice(), args) {
            (b"include", [pattern]) => return self.include(pattern, line, depth),
            (b"rename-command", [_, _]) => self.loaded.renames.push(located()),
            (b"user", [_, ..]) => self.loaded.users.push(located()),
            (b"loadmodule", [_, ..]) => self.loaded.modules.push(located()),
            (b"sentinel", []) => {}
            (b"sentinel", _) if self.loaded.sentinel => self.loaded.sentinel_lines.push(located()),
            (b"sentinel", _) => return refuse("sentinel directive while not in sentinel mode".into()),
            // Directives of older versions that mean nothing any more: their files still load.
            (
                b"list-max-ziplist-entries"
                | b"list-max-ziplist-value"
                | b"lua-replicate-commands"
                | b"io-threads-do-reads"
                | b"dynamic-hz"
                | b"events-per-io-thread",
                [_],
            ) => {}
            _ => return refuse("Bad directive or wrong number of arguments".into()),
        }
        Ok(())
    }

    /// Assigns a directive of the table; None if it isn't one.
    fn known(&mut self, name: &[u8], args: &[Vec<u8>]) -> Option<Result<(), Fault>> {
        let directive = find(name)?;
        let multi = directive.flags.contains(Flags::MULTI_ARG);
        // One quoted word of a directive with several is split once more: `save "900 1"`.
        let split = match args {
            [one] if multi && !one.is_empty() => match split_args(one) {
                Ok(words) => words,
                Err(_) => return Some(Err("Unbalanced quotes in configuration line".into())),
            },
            _ => args.to_vec(),
        };
        if !multi && split.len() != 1 {
            return Some(Err("wrong number of arguments".into()));
        }
        let words: Vec<&[u8]> = split.iter().map(Vec::as_slice).collect();
        Some(
            (directive.assign)(&mut self.loaded.config, &words, Source::Startup)
                .and_then(|()| if directive.name == "dir" { self.enter_dir() } else { Ok(()) }),
        )
    }

    /// `dir` takes effect at once: what follows in the file may be relative to it.
    fn enter_dir(&mut self) -> Result<(), Fault> {
        let dir = self.loaded.config.dir.clone();
        let entered = self.around.enter(Path::new(std::ffi::OsStr::from_bytes(&dir)));
        let path = entered.map_err(|e| Fault::from(os_text(&e)))?;
        self.loaded.config.dir = path.into_os_string().into_vec();
        Ok(())
    }

    fn include(&mut self, pattern: &[u8], line: &LineRef, depth: usize) -> Result<(), LoadError> {
        if depth >= MAX_INCLUDES {
            return Err(LoadError::at(line, "Too many nested include directives"));
        }
        let path = Path::new(std::ffi::OsStr::from_bytes(pattern));
        let is_pattern = pattern.iter().any(|b| matches!(b, b'*' | b'?' | b'['));
        let files = if is_pattern { self.around.matching(path) } else { vec![path.to_path_buf()] };
        for file in files {
            let text = read_file(&file, self.around)?;
            self.text(&text, depth + 1)?;
        }
        Ok(())
    }
}

fn trimmed(line: &[u8]) -> &[u8] {
    let blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n');
    let start = line.iter().position(|b| !blank(b)).unwrap_or(line.len());
    let end = line.iter().rposition(|b| !blank(b)).map_or(start, |last| last + 1);
    &line[start..end]
}
