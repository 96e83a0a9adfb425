//! `cargo xtask tidy`: what a compiler doesn't check.

use crate::process::{Outcome, output};
use kara_tests::root;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The crates' layers: a crate may depend on crates of lower layers only.
const LAYERS: &[(&str, u32)] = &[
    ("base", 0),
    ("resp", 1),
    ("encoding", 1),
    ("keyspace", 2),
    ("persist", 3),
    ("replication", 3),
    ("cluster", 3),
    ("script", 3),
    ("engine", 4),
    ("server", 5),
    ("tools", 6),
    ("kara", 7),
];
/// Libraries that only some crates may use, and which.
const RESERVED: &[(&str, &[&str])] =
    &[("mlua", &["script"]), ("mio", &["server"]), ("socket2", &["server", "tools"]), ("tokio", &["server"])];
/// Where `unsafe` may stand: whole crates, and a module of one that denies it elsewhere.
const UNSAFE: &[&str] = &["crates/base/", "crates/encoding/", "crates/keyspace/", "crates/script/src/raw/"];
const LONGEST: usize = 1_200;
const LONG: usize = 800;

/// Prints every fault; fails where there is one.
pub fn run(_arguments: &[String]) -> Outcome {
    let files = output(Command::new("git").current_dir(root()).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    let mut faults = Vec::new();
    let mut sources = 0;
    for name in files.lines() {
        let Ok(text) = fs::read_to_string(root().join(name)) else { continue };
        let path = Path::new(name);
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => {
                sources += 1;
                source(name, &text, &mut faults);
            }
            Some("md") => document(name, &text, &mut faults),
            _ if name.starts_with("crates/") && name.ends_with("Cargo.toml") => {
                manifest(name, &text, &mut faults)
            }
            _ => {}
        }
    }
    if faults.is_empty() {
        println!("tidy: {sources} sources");
        return Ok(());
    }
    Err(format!("{} faults\n{}", faults.len(), faults.join("\n")))
}

fn manifest(name: &str, text: &str, faults: &mut Vec<String>) {
    let layers: BTreeMap<&str, u32> = LAYERS.iter().copied().collect();
    let own = name.split('/').nth(1).unwrap_or_default();
    let Some(layer) = layers.get(own) else {
        faults.push(format!("{name}: {own} has no layer (xtask/src/tidy.rs)"));
        return;
    };
    let table: toml::Table = match text.parse() {
        Ok(table) => table,
        Err(fault) => {
            faults.push(format!("{name}: {fault}"));
            return;
        }
    };
    let dependencies = table.get("dependencies").and_then(toml::Value::as_table);
    for dependency in dependencies.into_iter().flat_map(toml::Table::keys) {
        let crate_name = dependency.strip_prefix("kara-").unwrap_or(dependency);
        if dependency.starts_with("kara-") && layers.get(crate_name).is_none_or(|below| below >= layer) {
            faults.push(format!("{name}: {own} (layer {layer}) must not depend on {dependency}"));
        }
        if let Some((_, allowed)) = RESERVED.iter().find(|(library, _)| library == dependency)
            && !allowed.contains(&own)
        {
            faults.push(format!("{name}: {dependency} is for {}", allowed.join(", ")));
        }
    }
}

fn source(name: &str, text: &str, faults: &mut Vec<String>) {
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() > LONGEST {
        faults.push(format!("{name}: {} lines, {LONGEST} is the end", lines.len()));
    } else if lines.len() > LONG {
        println!("{name}: {} lines", lines.len());
    }
    // What a `tests` module is for, its name and place say.
    if !text.starts_with("//!") && !name.ends_with("/tests.rs") {
        faults.push(format!("{name}: no module header"));
    }
    let may_be_unsafe = UNSAFE.iter().any(|prefix| name.starts_with(prefix));
    let is_root =
        ["/src/lib.rs", "/src/main.rs"].iter().any(|end| name.ends_with(end)) || name.contains("/src/bin/");
    // A crate with such a module can't forbid it.
    let folder = name.trim_end_matches("lib.rs");
    let word = if UNSAFE.iter().any(|prefix| prefix.starts_with(folder)) { "deny" } else { "forbid" };
    if is_root && !may_be_unsafe && !text.contains(&format!("#![{word}(unsafe_code)]")) {
        faults.push(format!("{name}: #![{word}(unsafe_code)] is missing"));
    }
    // In pieces, or this file would be the first to be reported.
    let marks = [
        ["to", "do!("],
        ["unimpl", "emented!("],
        ["FIX", "ME"],
        ["allow(dead", "_code)"],
        ["panic!(\"not ", "implemented"],
    ];
    for (at, line) in lines.iter().enumerate() {
        for mark in &marks {
            if line.contains(&mark.concat()) {
                faults.push(format!("{name}:{}: {}", at + 1, mark.concat()));
            }
        }
        if uses_unsafe(line) {
            if !may_be_unsafe {
                faults.push(format!("{name}:{}: unsafe is for {}", at + 1, UNSAFE.join(" ")));
            } else if !is_explained(&lines, at) {
                faults.push(format!("{name}:{}: unsafe without SAFETY within three lines above", at + 1));
            }
        }
    }
}

/// A block or an implementation; not the word in a comment or a text. (Functions state their contract in their
/// documentation, which clippy sees to.)
fn uses_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let word = concat!("uns", "afe");
    let mut rest = code;
    while let Some(at) = rest.find(word) {
        let before = rest.get(..at).unwrap_or_default();
        let after = rest.get(at + word.len()..).unwrap_or_default();
        let follows = after.trim_start();
        let starts = ["{", "impl ", "impl<"].iter().any(|next| follows.starts_with(next));
        let separate =
            !before.ends_with(|c: char| c.is_alphanumeric() || c == '_') && after.starts_with([' ', '{']);
        if starts && separate && before.matches('"').count() % 2 == 0 {
            return true;
        }
        rest = after;
    }
    false
}

/// `SAFETY` within the three lines above, or anywhere in the comment that ends there.
fn is_explained(lines: &[&str], at: usize) -> bool {
    let explains = |line: &str| line.contains("SAFETY");
    let above = lines.get(..at).unwrap_or_default();
    if lines.get(at).is_some_and(|line| explains(line))
        || above.iter().rev().take(3).any(|line| explains(line))
    {
        return true;
    }
    let is_comment =
        |line: &&&str| line.trim_start().starts_with("//") || line.trim_start().starts_with("#[");
    above.iter().rev().take_while(is_comment).any(|line| explains(line))
}

fn document(name: &str, text: &str, faults: &mut Vec<String>) {
    let folder = Path::new(name).parent().unwrap_or(Path::new(""));
    for part in text.split("](").skip(1) {
        let target = part.split([')', '#']).next().unwrap_or_default();
        if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        if !root().join(folder).join(target).exists() {
            faults.push(format!("{name}: {target} doesn't exist"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_point_downward() {
        let mut faults = Vec::new();
        manifest("crates/keyspace/Cargo.toml", "[dependencies]\nkara-base.workspace = true\n", &mut faults);
        assert!(faults.is_empty(), "{faults:?}");
        let upward = "[dependencies]\nkara-engine.workspace = true\nmio = \"1\"\n";
        manifest("crates/persist/Cargo.toml", upward, &mut faults);
        manifest("crates/cluster/Cargo.toml", "[dependencies]\nkara-persist = \"1\"\n", &mut faults);
        assert_eq!(faults.len(), 3, "{faults:?}");
    }

    #[test]
    fn code_without_care_is_found() {
        let mut faults = Vec::new();
        let block = format!("{}{}", "    uns", "afe { f() }");
        source("crates/engine/src/a.rs", &format!("//! A.\n{block}\n"), &mut faults);
        source("crates/base/src/a.rs", &format!("//! A.\n\n\n\n{block}\n"), &mut faults);
        assert_eq!(faults.len(), 2, "{faults:?}");
        faults.clear();
        source("crates/base/src/a.rs", &format!("//! A.\n    // SAFETY: it is.\n{block}\n"), &mut faults);
        source(
            "crates/base/src/b.rs",
            "//! The word unsafe { in a comment }.\nlet a = \"unsafe {\";\n",
            &mut faults,
        );
        assert!(faults.is_empty(), "{faults:?}");
        source("crates/base/src/c.rs", "fn f() {}\n", &mut faults);
        source("crates/engine/src/lib.rs", "//! A.\n", &mut faults);
        assert_eq!(faults.len(), 2, "{faults:?}");
    }
}
