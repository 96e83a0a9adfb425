//! Users in files: the ACL file of ACL LOAD and ACL SAVE, and the `user` lines of the configuration.

use super::rights::{Rights, join_selectors};
use super::selector::RuleError;
use super::{Acl, Changed, DEFAULT};
use crate::registry::Registry;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Why an ACL file isn't taken: one or more lines, each with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError(pub Vec<u8>);

impl Acl {
    /// Replaces all users by those of the file, or none of them. Returns what changed: see ACL LOAD.
    pub fn load(
        &self,
        path: &[u8],
        registry: &Registry,
        all_channels: bool,
    ) -> Result<Vec<Changed>, FileError> {
        let text = fs::read(file_path(path)).map_err(|error| {
            FileError(
                [b"Error loading ACLs, opening file '", path, b"': ", os_text(&error).as_bytes()].concat(),
            )
        })?;
        let mut users = BTreeMap::new();
        let mut faults: Vec<u8> = Vec::new();
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let place = [path, format!(":{}", index + 1).as_bytes()].concat();
            if let Err(fault) = read_line(line, &mut users, registry, all_channels) {
                faults.extend_from_slice(&match fault {
                    Fault::NoUser => {
                        [&place[..], b" should start with user keyword followed by the username. "].concat()
                    }
                    Fault::Duplicate(name) => {
                        let line = format!("' found on line {}. ", index + 1);
                        [&b"WARNING: Duplicate user '"[..], name, line.as_bytes()].concat()
                    }
                    Fault::Rule { word, reason } => {
                        let parts = [&place[..], b": Error in applying operation '", &word, b"': "];
                        [&parts.concat(), reason.text().as_bytes(), b". "].concat()
                    }
                    Fault::Unmatched => {
                        [&place[..], b": Unmatched parenthesis in selector definition."].concat()
                    }
                });
            }
        }
        if !faults.is_empty() {
            faults.extend_from_slice(
                b"WARNING: ACL errors detected, no change to the previously active ACL rules was performed",
            );
            return Err(FileError(faults));
        }
        Ok(self.replace_all(users, registry))
    }

    /// Writes all users to the file, which is replaced as a whole.
    pub fn save(&self, path: &[u8]) -> io::Result<()> {
        let mut text = Vec::new();
        for line in self.lines() {
            text.extend_from_slice(b"user ");
            text.extend_from_slice(&line);
            text.push(b'\n');
        }
        let path = file_path(path);
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".tmp-{}", std::process::id()));
        let temporary = PathBuf::from(temporary);
        let written = fs::File::create(&temporary)
            .and_then(|mut file| {
                file.write_all(&text)?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&temporary, &path));
        if written.is_err() {
            // It may not be there; the error that counts is the first one.
            let _ = fs::remove_file(&temporary);
            return written;
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        fs::File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all())
    }

    /// Takes over a `user` line of the configuration; `words` are those behind `user`. The error is the text behind
    /// the line.
    pub fn configure(
        &self,
        words: &[Vec<u8>],
        registry: &Registry,
        all_channels: bool,
    ) -> Result<(), String> {
        let fault = |word: &[u8], reason: &str| {
            format!("Error in user declaration '{}': {reason}", String::from_utf8_lossy(word))
        };
        let Some((name, rules)) = words.split_first() else { return Err(fault(b"", "a name is missing")) };
        if has_blanks(name) {
            return Err("Spaces not allowed in ACL usernames".to_owned());
        }
        let rules: Vec<&[u8]> = rules.iter().map(Vec::as_slice).collect();
        let mut joined = join_selectors(&rules)
            .map_err(|rule| fault(rule, "Unmatched parenthesis in selector definition"))?;
        if name == DEFAULT {
            joined.insert(0, b"reset".to_vec());
        }
        let changed = self.change(name, &joined, registry, all_channels);
        changed.map(|_| ()).map_err(|(rule, error)| fault(&rule, error.text()))
    }
}

fn file_path(path: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(path))
}

fn os_text(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// What is wrong with a line.
enum Fault<'a> {
    NoUser,
    Duplicate(&'a [u8]),
    Rule { word: Vec<u8>, reason: RuleError },
    Unmatched,
}

/// One line of an ACL file.
fn read_line<'a>(
    line: &'a [u8],
    users: &mut BTreeMap<Vec<u8>, Rights>,
    registry: &Registry,
    all_channels: bool,
) -> Result<(), Fault<'a>> {
    let mut words = line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
    if words.next() != Some(b"user") {
        return Err(Fault::NoUser);
    }
    let name = words.next().filter(|name| !has_blanks(name)).ok_or(Fault::NoUser)?;
    if users.contains_key(name) {
        return Err(Fault::Duplicate(name));
    }
    let rules: Vec<&[u8]> = words.collect();
    let mut rights = Rights::new(all_channels);
    for rule in join_selectors(&rules).map_err(|_| Fault::Unmatched)? {
        if let Err(reason) = rights.apply(&rule, registry) {
            return Err(Fault::Rule { word: rule, reason });
        }
    }
    users.insert(name.to_vec(), rights);
    Ok(())
}

/// Whether a name has what no user's name may have.
pub(crate) fn has_blanks(name: &[u8]) -> bool {
    name.iter().any(|byte| *byte == 0 || byte.is_ascii_whitespace() || *byte == 0x0b)
}
