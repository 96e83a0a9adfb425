//! The configuration in force: snapshots for the workers, CONFIG GET and CONFIG SET.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::find;
use super::load::Loaded;
use super::table::{Config, DIRECTIVES, Directive, Flags};
use super::value::Source;
use kara_base::glob;

/// The configuration in force.
pub struct ConfigStore {
    current: ArcSwap<Config>,
    generation: AtomicU64,
    /// The file that CONFIG REWRITE rewrites. The lock also makes changes take turns.
    pub(super) file: Mutex<Option<PathBuf>>,
}

/// Under what circumstances CONFIG SET runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetContext {
    /// The dataset is being loaded.
    pub loading: bool,
    /// `enable-protected-configs` allows this client to set protected directives.
    pub protected: bool,
}

/// The directives that a CONFIG SET changed, by their main names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    names: Vec<&'static str>,
}

impl Changes {
    /// Whether the directive changed; `name` is its main name.
    pub fn contains(&self, name: &str) -> bool {
        self.names.contains(&name)
    }

    /// Whether one of the directives changed.
    pub fn contains_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.contains(name))
    }

    /// The changed names, in the order of the command.
    pub fn names(&self) -> &[&'static str] {
        &self.names
    }

    /// Whether every value stayed as it was.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// A change that passed every check, but can't be put into effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplyError {
    /// The directive to blame, by its main name.
    pub name: &'static str,
    pub reason: String,
}

/// Why CONFIG SET changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetError {
    /// No such directive. The name is as the client wrote it.
    Unknown(Vec<u8>),
    /// This one may not be set while the dataset loads.
    Loading,
    /// A directive refuses its value.
    Failed { name: Vec<u8>, reason: String },
}

impl SetError {
    fn failed(name: &[u8], reason: impl Into<String>) -> Self {
        SetError::Failed { name: name.to_vec(), reason: reason.into() }
    }

    /// The error line of the reply, with its code, without the leading `-`. Bytes of the client's that
    /// would end the line are for the reply writer to replace.
    pub fn reply(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            SetError::Unknown(name) => {
                out.extend_from_slice(b"ERR Unknown option or number of arguments for CONFIG SET - '");
                out.extend(name.iter().take_while(|byte| **byte != 0));
                out.push(b'\'');
            }
            SetError::Loading => out.extend_from_slice(b"LOADING Valkey is loading the dataset in memory"),
            SetError::Failed { name, reason } => {
                out.extend_from_slice(b"ERR CONFIG SET failed (possibly related to argument '");
                out.extend_from_slice(name);
                out.extend_from_slice(b"') - ");
                out.extend_from_slice(reason.as_bytes());
            }
        }
        out
    }
}

impl fmt::Display for SetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.reply()))
    }
}

impl std::error::Error for SetError {}

impl fmt::Debug for ConfigStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The values hold passwords.
        f.debug_struct("ConfigStore").field("generation", &self.generation()).finish_non_exhaustive()
    }
}

impl Default for ConfigStore {
    fn default() -> Self {
        Self::new(Config::default(), None)
    }
}

impl ConfigStore {
    /// A store that starts with `config`; `file` is what CONFIG REWRITE rewrites.
    pub fn new(config: Config, file: Option<PathBuf>) -> Self {
        ConfigStore {
            current: ArcSwap::from_pointee(config),
            generation: AtomicU64::new(0),
            file: Mutex::new(file),
        }
    }

    /// A store for what start-up read.
    pub fn from_loaded(loaded: &Loaded) -> Self {
        Self::new(loaded.config.clone(), loaded.file.clone())
    }

    /// The configuration in force now. Hold on to it while `generation` stays the same.
    pub fn load(&self) -> Arc<Config> {
        self.current.load_full()
    }

    /// Counts changes: a worker compares it once per loop turn and re-reads only when it moved.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The configuration file in use.
    pub fn file(&self) -> Option<PathBuf> {
        self.file.lock().clone()
    }

    /// Changes fields that something else than CONFIG SET decides: REPLICAOF, a failover, the OS's limits.
    pub fn update(&self, change: impl FnOnce(&mut Config)) {
        let _turn = self.file.lock();
        let mut config = Config::clone(&self.current.load());
        change(&mut config);
        self.publish(config);
    }

    fn publish(&self, config: Config) {
        self.current.store(Arc::new(config));
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// CONFIG GET: names and values of the directives that the patterns match, each once, in alphabetical order. A name without
    /// wildcards also finds hidden directives and is shown as it was written.
    pub fn get(&self, patterns: &[&[u8]]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let config = self.current.load();
        let mut found: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut add = |name: &[u8], directive: &Directive| {
            if !found.iter().any(|(seen, _)| seen.eq_ignore_ascii_case(name)) {
                found.push((name.to_vec(), (directive.show)(&config)));
            }
        };
        for pattern in patterns {
            if !pattern.iter().any(|byte| matches!(byte, b'[' | b'*' | b'?')) {
                if let Some(directive) = find(pattern) {
                    add(pattern, directive);
                }
                continue;
            }
            for directive in DIRECTIVES.iter().filter(|d| !d.flags.contains(Flags::HIDDEN)) {
                for name in [Some(directive.name), directive.alias].into_iter().flatten() {
                    if glob::matches(pattern, name.as_bytes(), glob::Case::Insensitive) {
                        add(name.as_bytes(), directive);
                    }
                }
            }
        }
        found.sort_unstable();
        found
    }

    /// CONFIG SET: all pairs or none. `apply` puts the changes into effect; it may settle fields of the new
    /// configuration (the second argument), and if it fails, it is called once more with old and new swapped.
    pub fn set(
        &self,
        pairs: &[(&[u8], &[u8])],
        context: SetContext,
        apply: &mut dyn FnMut(&Config, &mut Config, &Changes) -> Result<(), ApplyError>,
    ) -> Result<Changes, SetError> {
        let directives = permitted(pairs, context)?;
        let _turn = self.file.lock();
        let old = self.current.load_full();
        let mut new = Config::clone(&old);
        for (directive, (name, value)) in directives.iter().zip(pairs) {
            assign_at_runtime(directive, name, &mut new, value)?;
        }
        let mut changes = Changes::default();
        for directive in directives {
            if !(directive.same)(&old, &new) && !changes.contains(directive.name) {
                changes.names.push(directive.name);
            }
        }
        if changes.is_empty() {
            return Ok(changes);
        }
        if let Err(error) = apply(&old, &mut new, &changes) {
            // What was applied before the failure goes back; the old values worked before.
            let mut back = Config::clone(&old);
            let _ = apply(&new, &mut back, &changes);
            return Err(SetError::failed(error.name.as_bytes(), error.reason));
        }
        self.publish(new);
        Ok(changes)
    }

    /// The directives for a crash report, as `name value` lines.
    pub fn debug_lines(&self) -> Vec<Vec<u8>> {
        let config = self.current.load();
        let mut out = Vec::new();
        for directive in DIRECTIVES.iter().filter(|d| d.flags.contains(Flags::DEBUG)) {
            for line in (directive.lines)(&config) {
                out.push([directive.name.as_bytes(), &line].join(&b' '));
            }
        }
        out
    }
}

/// The directives that `pairs` name, if each exists and may be set now. The first fault decides, whatever
/// the values are.
fn permitted(pairs: &[(&[u8], &[u8])], context: SetContext) -> Result<Vec<&'static Directive>, SetError> {
    let mut directives = Vec::with_capacity(pairs.len());
    for (index, (name, _)) in pairs.iter().enumerate() {
        let directive = find(name).ok_or_else(|| SetError::Unknown(name.to_vec()))?;
        if directive.flags.contains(Flags::IMMUTABLE) {
            return Err(SetError::failed(name, "can't set immutable config"));
        }
        if directive.flags.contains(Flags::PROTECTED) && !context.protected {
            return Err(SetError::failed(name, "can't set protected config"));
        }
        if directive.flags.contains(Flags::DENY_LOADING) && context.loading {
            return Err(SetError::Loading);
        }
        // A directive under both of its names is no duplicate; the last one counts.
        if pairs[..index].iter().any(|(earlier, _)| earlier.eq_ignore_ascii_case(name)) {
            return Err(SetError::failed(name, "duplicate parameter"));
        }
        directives.push(directive);
    }
    Ok(directives)
}

fn assign_at_runtime(
    directive: &Directive,
    name: &[u8],
    config: &mut Config,
    value: &[u8],
) -> Result<(), SetError> {
    let words: Vec<&[u8]> = if directive.flags.contains(Flags::MULTI_ARG) {
        if value.is_empty() { Vec::new() } else { value.split(|byte| *byte == b' ').collect() }
    } else {
        vec![value]
    };
    (directive.assign)(config, &words, Source::Runtime)
        .map_err(|reason| SetError::failed(&name.to_ascii_lowercase(), reason))
}

/// The files that a shell pattern names, sorted; a part that can't be listed matches nothing.
pub(super) fn matching_files(pattern: &Path) -> Vec<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    use std::path::Component;
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        let Component::Normal(part) = component else {
            found.iter_mut().for_each(|path| path.push(component));
            continue;
        };
        let part = part.as_bytes();
        if !part.iter().any(|byte| matches!(byte, b'*' | b'?' | b'[')) {
            found.iter_mut().for_each(|path| path.push(component));
            continue;
        }
        let mut next = Vec::new();
        for base in &found {
            let dir = if base.as_os_str().is_empty() { Path::new(".") } else { base.as_path() };
            let Ok(entries) = std::fs::read_dir(dir) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name();
                // As in a shell: hidden files only by an explicit dot.
                let hidden = name.as_bytes().starts_with(b".") && !part.starts_with(b".");
                if !hidden && glob::matches(part, name.as_bytes(), glob::Case::Sensitive) {
                    next.push(base.join(&name));
                }
            }
        }
        next.sort();
        found = next;
    }
    found.retain(|path| path.exists());
    found
}
