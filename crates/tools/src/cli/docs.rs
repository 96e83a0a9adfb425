//! What is known of commands: from the server's COMMAND DOCS, else from the tables that this program carries.

use super::link::Link;
use kara_engine::commands::FAMILIES;
use kara_engine::spec::{self, ArgKind, Spec};
use kara_resp::Value;
use std::cmp::Ordering;
use std::collections::BTreeSet;

/// One argument, as COMMAND DOCS tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg {
    /// What is shown for it.
    pub text: String,
    pub token: Option<String>,
    pub kind: ArgKind,
    pub optional: bool,
    pub multiple: bool,
    pub multiple_token: bool,
    pub args: Vec<Arg>,
}

/// One command or subcommand.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Upper case: one word, or a container's and its subcommand's.
    pub words: Vec<String>,
    pub summary: String,
    pub since: String,
    pub group: String,
    pub args: Vec<Arg>,
}

impl Entry {
    pub fn name(&self) -> String {
        self.words.join(" ")
    }
}

/// All commands, by name.
#[derive(Clone, Debug, Default)]
pub struct Docs {
    pub entries: Vec<Entry>,
}

impl Docs {
    /// What the server knows of itself; where it can't say, our tables without what is younger than it.
    pub fn of(link: Option<&mut Link>) -> Docs {
        let Some(link) = link else { return Docs::own(None) };
        match link.ask(&["COMMAND", "DOCS"]) {
            Ok(Value::Error(_)) | Err(_) => {
                let version = version_of(link);
                Docs::own(version.as_deref())
            }
            Ok(reply) => {
                let mut docs = Docs::default();
                for (name, doc) in pairs(&reply) {
                    docs.add(&text(name).to_uppercase(), None, doc);
                }
                docs.sorted()
            }
        }
    }

    /// Ours, up to the version of a server.
    pub fn own(version: Option<&str>) -> Docs {
        let mut docs = Docs::default();
        for spec in FAMILIES.iter().copied().flatten() {
            docs.add_own(spec, None, version);
        }
        docs.sorted()
    }

    fn sorted(mut self) -> Docs {
        self.entries.sort_by(|one, other| one.words.cmp(&other.words));
        self
    }

    fn add(&mut self, name: &str, container: Option<&str>, doc: &Value) {
        let mut entry = Entry {
            words: container.into_iter().chain([name]).map(str::to_string).collect(),
            summary: String::new(),
            since: String::new(),
            group: String::new(),
            args: Vec::new(),
        };
        let mut subcommands = Vec::new();
        for (field, value) in pairs(doc) {
            match text(field).as_str() {
                "summary" => entry.summary = text(value),
                "since" => entry.since = text(value),
                "group" => entry.group = text(value),
                "arguments" => entry.args = args_of(value),
                "subcommands" => subcommands = pairs(value),
                _ => {}
            }
        }
        for (sub, doc) in &subcommands {
            let sub = text(sub).to_uppercase();
            // Servers write `config|get`.
            let sub = sub.rsplit('|').next().unwrap_or_default();
            self.add(sub, Some(name), doc);
        }
        self.entries.push(entry);
    }

    fn add_own(&mut self, spec: &Spec, container: Option<&Spec>, version: Option<&str>) {
        if !is_supported(spec.since, version) {
            return;
        }
        let args =
            spec.args.iter().filter(|arg| is_supported(arg.since, version)).map(|arg| own_arg(arg, version));
        self.entries.push(Entry {
            words: container.into_iter().chain([spec]).map(|spec| spec.name.to_uppercase()).collect(),
            summary: spec.summary.into(),
            since: spec.since.into(),
            group: spec.group.name().into(),
            args: args.collect(),
        });
        for sub in spec.subcommands {
            self.add_own(sub, Some(spec), version);
        }
    }

    pub fn groups(&self) -> BTreeSet<&str> {
        self.entries.iter().map(|entry| entry.group.as_str()).filter(|group| !group.is_empty()).collect()
    }

    /// The command with the most words that the input begins with.
    pub fn find(&self, words: &[Vec<u8>]) -> Option<&Entry> {
        let begins = |entry: &&Entry| {
            entry.words.len() <= words.len()
                && entry
                    .words
                    .iter()
                    .zip(words)
                    .all(|(own, typed)| typed.eq_ignore_ascii_case(own.as_bytes()))
        };
        self.entries.iter().filter(begins).max_by_key(|entry| entry.words.len())
    }
}

fn own_arg(arg: &spec::Arg, version: Option<&str>) -> Arg {
    let inner = arg.args.iter().filter(|arg| is_supported(arg.since, version));
    Arg {
        text: if arg.display.is_empty() { arg.name.into() } else { arg.display.into() },
        token: arg.token.map(str::to_string),
        kind: arg.kind,
        optional: arg.optional,
        multiple: arg.multiple,
        multiple_token: arg.multiple_token,
        args: inner.map(|arg| own_arg(arg, version)).collect(),
    }
}

fn args_of(list: &Value) -> Vec<Arg> {
    list.as_elements().unwrap_or_default().iter().map(arg_of).collect()
}

fn arg_of(doc: &Value) -> Arg {
    let mut arg = Arg {
        text: String::new(),
        token: None,
        kind: ArgKind::String,
        optional: false,
        multiple: false,
        multiple_token: false,
        args: Vec::new(),
    };
    let mut name = String::new();
    for (field, value) in pairs(doc) {
        match text(field).as_str() {
            "name" => name = text(value),
            "display_text" => arg.text = text(value),
            "token" => arg.token = Some(text(value)),
            "type" => arg.kind = kind_of(&text(value)),
            "arguments" => arg.args = args_of(value),
            "flags" => {
                for flag in value.as_elements().unwrap_or_default() {
                    match text(flag).as_str() {
                        "optional" => arg.optional = true,
                        "multiple" => arg.multiple = true,
                        "multiple_token" => arg.multiple_token = true,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if arg.text.is_empty() {
        arg.text = name;
    }
    arg
}

fn kind_of(name: &str) -> ArgKind {
    use ArgKind::{Block, Double, Integer, Key, Oneof, Pattern, PureToken, String, UnixTime};
    let kinds = [String, Integer, Double, Key, Pattern, UnixTime, PureToken, Oneof, Block];
    kinds.into_iter().find(|kind| kind.name() == name).unwrap_or(String)
}

/// Names and values of a map, or of RESP2's flat array.
fn pairs(value: &Value) -> Vec<(&Value, &Value)> {
    match value {
        Value::Map(pairs) => pairs.iter().map(|(name, value)| (name, value)).collect(),
        other => other
            .as_elements()
            .unwrap_or_default()
            .chunks_exact(2)
            .filter_map(|pair| Some((pair.first()?, pair.get(1)?)))
            .collect(),
    }
}

fn text(value: &Value) -> String {
    String::from_utf8_lossy(value.as_bytes().unwrap_or_default()).into_owned()
}

fn version_of(link: &mut Link) -> Option<String> {
    let info = link.ask(&["INFO", "server"]).ok()?;
    let info = text(&info);
    info.lines().find_map(|line| Some(line.strip_prefix("valkey_version:")?.trim().to_string()))
}

/// Whether a server of that version has what came with `since`.
fn is_supported(since: &str, version: Option<&str>) -> bool {
    let Some(version) = version else { return true };
    let numbers =
        |text: &str| text.split('.').map(|part| part.parse::<u32>().unwrap_or(0)).collect::<Vec<_>>();
    since.is_empty() || numbers(since).cmp(&numbers(version)) != Ordering::Greater
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn younger_things_are_left_out() {
        let args = |version| {
            let docs = Docs::own(version);
            docs.find(&[b"set".to_vec()]).map(|entry| entry.args.len()).unwrap_or_default()
        };
        assert!(args(Some("2.0.0")) < args(None));
        assert!(Docs::own(Some("2.0.0")).find(&[b"getex".to_vec()]).is_none());
        assert_eq!(
            Docs::own(None).find(&[b"config".to_vec(), b"GET".to_vec()]).map(Entry::name),
            Some("CONFIG GET".into())
        );
    }
}
