//! A script's first line: `#!lua flags=...`, for a library `#!lua name=...`.

use crate::error::CommandError;
use bitflags::bitflags;

bitflags! {
    /// What a script or function says of itself.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ScriptFlags: u32 {
        const NO_WRITES = 1 << 0;
        const ALLOW_OOM = 1 << 1;
        const ALLOW_STALE = 1 << 2;
        const NO_CLUSTER = 1 << 3;
        const ALLOW_CROSS_SLOT_KEYS = 1 << 4;
        /// No first line: a script of the times before flags, of which everything is decided as it runs.
        const UNSTATED = 1 << 5;
    }
}

const NAMES: &[(&str, ScriptFlags)] = &[
    ("no-writes", ScriptFlags::NO_WRITES),
    ("allow-oom", ScriptFlags::ALLOW_OOM),
    ("allow-stale", ScriptFlags::ALLOW_STALE),
    ("no-cluster", ScriptFlags::NO_CLUSTER),
    ("allow-cross-slot-keys", ScriptFlags::ALLOW_CROSS_SLOT_KEYS),
];

impl ScriptFlags {
    /// The flag of a name.
    pub fn by_name(name: &[u8]) -> Option<ScriptFlags> {
        NAMES.iter().find(|(n, _)| n.as_bytes() == name).map(|(_, flag)| *flag)
    }

    /// The names of the flags that are set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().filter(move |(_, flag)| self.contains(*flag)).map(|(name, _)| *name)
    }
}

/// The words of the first line behind `#!`, and what follows the line (its line break included).
fn first_line(body: &[u8]) -> Option<(Vec<&[u8]>, &[u8])> {
    let rest = body.strip_prefix(b"#!")?;
    let end = memchr::memchr(b'\n', rest);
    let line = rest.get(..end.unwrap_or(rest.len()))?;
    let code = end.and_then(|end| rest.get(end..)).unwrap_or_default();
    // The first word belongs to the mark; where nothing follows it at once, it is empty.
    let mut words = line.split(u8::is_ascii_whitespace);
    let engine = words.next().unwrap_or_default();
    let words = std::iter::once(engine).chain(words.filter(|word| !word.is_empty())).collect();
    Some((words, code))
}

/// The flags of a script and its code. Line numbers stay: the code begins at the first line's break.
pub fn script(body: &[u8]) -> Result<(ScriptFlags, &[u8]), CommandError> {
    let Some((words, code)) = first_line(body) else { return Ok((ScriptFlags::UNSTATED, body)) };
    let engine = words.first().copied().unwrap_or_default();
    if !engine.eq_ignore_ascii_case(b"lua") {
        return Err(CommandError::quoting("ERR Could not find scripting engine '{}'", &[engine]));
    }
    let mut flags = ScriptFlags::empty();
    for word in words.into_iter().skip(1) {
        let Some(names) = word.strip_prefix(b"flags=") else {
            return Err(CommandError::quoting("ERR Unknown lua shebang option: {}", &[word]));
        };
        for name in names.split(|&b| b == b',').filter(|name| !name.is_empty()) {
            flags |= ScriptFlags::by_name(name)
                .ok_or_else(|| CommandError::quoting("ERR Unexpected flag in script shebang: {}", &[name]))?;
        }
    }
    Ok((flags, code))
}

/// The name of a library and its code.
pub fn library(body: &[u8]) -> Result<(Vec<u8>, &[u8]), CommandError> {
    if !body.starts_with(b"#!") {
        return Err(CommandError::text("ERR Missing library metadata"));
    }
    if memchr::memchr(b'\n', body).is_none() {
        return Err(CommandError::text("ERR Invalid library metadata"));
    }
    let (words, code) = first_line(body).unwrap_or_default();
    let engine = words.first().copied().unwrap_or_default();
    let mut name: Option<Vec<u8>> = None;
    for word in words.iter().skip(1) {
        let Some(given) = word.strip_prefix(b"name=") else {
            return Err(CommandError::quoting("ERR Invalid metadata value given: {}", &[word]));
        };
        if name.is_some() {
            return Err(CommandError::text(
                "ERR Invalid metadata value, name argument was given multiple times",
            ));
        }
        let unquoted = given.strip_prefix(b"\"").and_then(|g| g.strip_suffix(b"\"")).unwrap_or(given);
        name = Some(unquoted.to_vec());
    }
    let name = name.ok_or(CommandError::text("ERR Library name was not given"))?;
    if !is_name(&name) {
        return Err(CommandError::text(
            "ERR Library names can only contain letters, numbers, or underscores(_) and must be at least one character long",
        ));
    }
    if !engine.eq_ignore_ascii_case(b"lua") {
        return Err(CommandError::quoting("ERR Engine '{}' not found", &[engine]));
    }
    Ok((name, code))
}

/// Letters, digits and underscores, at least one.
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_code() {
        let (flags, code) = script(b"#!lua flags=no-writes,allow-oom\nreturn 1").expect("well-formed");
        assert_eq!((flags, code), (ScriptFlags::NO_WRITES | ScriptFlags::ALLOW_OOM, &b"\nreturn 1"[..]));
        assert_eq!(script(b"return 1").map(|(f, _)| f), Ok(ScriptFlags::UNSTATED));
        assert_eq!(script(b"#!lua").map(|(f, c)| (f, c.len())), Ok((ScriptFlags::empty(), 0)));
        assert!(script(b"#! lua\nreturn 1").is_err());
        assert!(script(b"#!\nreturn 1").is_err() && script(b"#!lua flags=x\n").is_err());
    }

    #[test]
    fn library_names() {
        assert_eq!(library(b"#!lua name=a_1\nx").map(|(n, c)| (n, c.len())), Ok((b"a_1".to_vec(), 2)));
        for bad in
            [&b"x"[..], b"#!lua name=a", b"#!lua\n", b"#!lua name=\n", b"#!lua name=a-b\n", b"#!js name=a\n"]
        {
            assert!(library(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
