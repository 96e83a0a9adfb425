//! What a server says about itself, as JSON of a fixed order: `tests/golden/` holds the reference's, `cargo xtask
//! golden` makes those files, and the golden test holds our server's against them.
//!
//! | file | from |
//! |---|---|
//! | `commands.json` | COMMAND: arity, flags, keys, ACL categories, tips, key specs |
//! | `command-arguments.json` | COMMAND DOCS, without its prose |
//! | `config-defaults.json` | CONFIG GET * on a default start |
//! | `acl-categories.json` | ACL CAT, every category |
//! | `info-everything.txt` | INFO everything on an idle server; the values are samples |

use crate::{Client, Reply};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The arguments with which servers are started here change these names; the files hold the defaults.
pub const STARTED_WITH: &[(&str, &str)] = &[
    ("bind", "* -::*"),
    ("dir", "<working directory>"),
    ("enable-debug-command", "no"),
    ("port", "6379"),
    ("save", "3600 1 300 100 60 10000"),
];

/// Asks a server for a file's text.
pub type Maker = fn(&mut Client) -> String;

/// The names of the files and how each is made. The client is put into RESP3.
pub const FILES: &[(&str, Maker)] = &[
    ("commands.json", |client| pretty(&Value::Array(commands(client)))),
    ("command-arguments.json", |client| pretty(&command_arguments(client))),
    ("config-defaults.json", |client| pretty(&json!(config_defaults(client)))),
    ("acl-categories.json", |client| pretty(&json!(acl_categories(client)))),
    ("info-everything.txt", info),
];

/// Where a file is.
pub fn path(name: &str) -> PathBuf {
    crate::root().join("tests/golden").join(name)
}

/// A golden file's text.
///
/// # Panics
/// Where it is missing.
pub fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|fault| panic!("{}: {fault}", path(name).display()))
}

/// A golden file's JSON.
///
/// # Panics
/// Where it is missing or not JSON.
pub fn read_json(name: &str) -> Value {
    serde_json::from_str(&read(name)).unwrap_or_else(|fault| panic!("{name}: {fault}"))
}

/// COMMAND, by name.
pub fn commands(client: &mut Client) -> Vec<Value> {
    client.run("HELLO 3");
    let reply = client.run("COMMAND");
    let mut rows: Vec<Value> = reply.items().iter().map(command).collect();
    rows.sort_by_key(|row| row["name"].to_string());
    rows
}

fn command(row: &Reply) -> Value {
    let at = |index: usize| row.items().get(index).unwrap_or(&Reply::Null);
    let mut fields = Map::new();
    fields.insert("name".into(), json!(at(0).text()));
    for (name, index) in [("arity", 1), ("first_key", 3), ("last_key", 4), ("step", 5)] {
        fields.insert(name.into(), json!(at(index).integer()));
    }
    for (name, index) in [("flags", 2), ("acl_categories", 6)] {
        fields.insert(name.into(), json!(sorted_texts(at(index))));
    }
    fields.insert("tips".into(), plain(at(7)));
    // The order of key specs means something: arguments refer to them by index.
    fields.insert("key_specs".into(), at(8).items().iter().map(plain).collect());
    let mut subcommands: Vec<Value> = at(9).items().iter().map(command).collect();
    subcommands.sort_by_key(|row| row["name"].to_string());
    if !subcommands.is_empty() {
        fields.insert("subcommands".into(), subcommands.into());
    }
    Value::Object(fields)
}

/// COMMAND DOCS: group, versions and the structure of arguments.
pub fn command_arguments(client: &mut Client) -> Value {
    client.run("HELLO 3");
    let reply = client.run("COMMAND DOCS");
    reply.pairs().into_iter().map(|(name, docs)| (name, without_prose(docs))).collect::<Map<_, _>>().into()
}

fn without_prose(docs: &Reply) -> Value {
    let mut fields = Map::new();
    for (name, value) in docs.pairs() {
        match name.as_str() {
            "summary" | "complexity" | "history" | "reply_schema" => {}
            "subcommands" => {
                let rows = value.pairs().into_iter().map(|(name, docs)| (name, without_prose(docs)));
                fields.insert(name, rows.collect::<Map<_, _>>().into());
            }
            "arguments" => {
                fields.insert(name, value.items().iter().map(argument).collect());
            }
            _ => {
                fields.insert(name, plain(value));
            }
        }
    }
    Value::Object(fields)
}

fn argument(argument: &Reply) -> Value {
    let field = |(name, value): (String, &Reply)| match name.as_str() {
        "arguments" => (name, value.items().iter().map(self::argument).collect()),
        _ => (name, plain(value)),
    };
    argument
        .pairs()
        .into_iter()
        .map(field)
        .filter(|(name, _)| name != "summary")
        .collect::<Map<_, _>>()
        .into()
}

/// CONFIG GET *, with the defaults of the names that the start itself sets.
pub fn config_defaults(client: &mut Client) -> BTreeMap<String, String> {
    let reply = client.run("CONFIG GET *");
    let mut values: BTreeMap<String, String> =
        reply.pairs().into_iter().map(|(name, value)| (name, value.text())).collect();
    for (name, value) in STARTED_WITH {
        if let Some(present) = values.get_mut(*name) {
            *present = (*value).into();
        }
    }
    values
}

/// ACL CAT and each category's commands.
pub fn acl_categories(client: &mut Client) -> BTreeMap<String, Vec<String>> {
    let names = client.run("ACL CAT");
    let each = |name: &Reply| {
        let name = name.text();
        let commands = sorted_texts(&client.run(&format!("ACL CAT {name}")));
        (name, commands)
    };
    names.items().iter().map(each).collect()
}

/// INFO everything, as text.
pub fn info(client: &mut Client) -> String {
    let text = client.run("INFO everything").text().replace("\r\n", "\n");
    let line = |line: &str| match line.split_once(':') {
        Some(("executable", _)) => "executable:<path of the program>\n".to_string(),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// The fields of INFO's text: section and name. Names that follow from what ran are left out.
pub fn info_fields(text: &str) -> Vec<(String, String)> {
    let mut section = String::new();
    let mut fields = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("# ") {
            section = name.trim().to_string();
        } else if let Some((name, _)) = line.split_once(':') {
            let from_use = ["cmdstat_", "latency_percentiles_", "errorstat_", "db", "module", "slave"];
            if !from_use.iter().any(|prefix| name.starts_with(prefix)) {
                fields.push((section.clone(), name.to_string()));
            }
        }
    }
    fields
}

/// JSON as the files have it: one space of indentation, a line end at the end.
pub fn pretty(value: &Value) -> String {
    use serde::Serialize as _;
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    value.serialize(&mut serializer).unwrap_or_else(|fault| panic!("JSON: {fault}"));
    text.push(b'\n');
    String::from_utf8_lossy(&text).into_owned()
}

fn sorted_texts(reply: &Reply) -> Vec<String> {
    let mut texts: Vec<String> = reply.items().iter().map(Reply::text).collect();
    texts.sort();
    texts
}

fn plain(reply: &Reply) -> Value {
    match reply {
        Reply::Integer(n) => json!(n),
        Reply::Array(items) | Reply::Set(items) => items.iter().map(plain).collect(),
        Reply::Map(pairs) => pairs.iter().map(|(k, v)| (k.text(), plain(v))).collect::<Map<_, _>>().into(),
        other => json!(other.text()),
    }
}
