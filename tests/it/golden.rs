//! Our tables against the reference's: every row that we have must be the reference's row. Rows that we don't
//! have yet are gaps, which the README lists (`gaps.rs`).

use kara_tests::golden::{self, FILES};
use kara_tests::{Server, reply::Reply};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Defaults of ours that differ on purpose, each with its reason.
const OTHER_DEFAULTS: &[(&str, &str)] =
    &[("io-threads", "as many as the machine has processors: threads run commands here")];

#[test]
fn the_golden_files_are_what_the_reference_says() {
    let reference = Server::reference(&[]);
    for (name, make) in FILES {
        let (have, says) = (golden::read(name), make(&mut reference.client()));
        if *name == "info-everything.txt" {
            assert_eq!(golden::info_fields(&have), golden::info_fields(&says), "{name}");
        } else {
            assert!(have == says, "{name} is out of date: cargo xtask golden writes it");
        }
    }
}

/// Containers and subcommands as rows of their own, so that a missing subcommand hides nothing else.
fn rows(commands: &[Value]) -> BTreeMap<String, Value> {
    let mut rows = BTreeMap::new();
    for command in commands {
        let mut command = command.clone();
        if let Some(Value::Array(subcommands)) =
            command.as_object_mut().and_then(|row| row.remove("subcommands"))
        {
            rows.extend(self::rows(&subcommands));
        }
        rows.insert(command["name"].as_str().unwrap_or_default().to_string(), command);
    }
    rows
}

#[test]
fn commands_are_the_reference_s() {
    let server = Server::start(&[]);
    let ours = rows(&golden::commands(&mut server.client()));
    let theirs = rows(golden::read_json("commands.json").as_array().unwrap());
    assert!(!ours.is_empty(), "COMMAND names no command");
    let mut faults = Vec::new();
    for (name, row) in &ours {
        match theirs.get(name) {
            None => faults.push(format!("{name} is no command of the reference")),
            Some(their) if their != row => faults.push(differences(name, row, their)),
            Some(_) => {}
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn command_docs_are_the_reference_s() {
    let server = Server::start(&[]);
    let ours = flat_docs(&golden::command_arguments(&mut server.client()));
    let theirs = flat_docs(&golden::read_json("command-arguments.json"));
    let mut faults = Vec::new();
    for (name, row) in &ours {
        match theirs.get(name) {
            Some(their) if their != row => faults.push(differences(name, row, their)),
            _ => {}
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn flat_docs(docs: &Value) -> BTreeMap<String, Value> {
    let mut flat = BTreeMap::new();
    for (name, row) in docs.as_object().into_iter().flatten() {
        let mut row = row.clone();
        if let Some(subcommands) = row.as_object_mut().and_then(|fields| fields.remove("subcommands")) {
            flat.extend(flat_docs(&subcommands));
        }
        flat.insert(name.clone(), row);
    }
    flat
}

#[test]
fn acl_categories_are_the_reference_s() {
    let server = Server::start(&[]);
    let ours = golden::acl_categories(&mut server.client());
    let known: BTreeSet<String> = rows(&golden::commands(&mut server.client())).into_keys().collect();
    if !known.contains("acl") {
        // Without ACL there is no ACL CAT; the categories in COMMAND's rows are compared by the other test.
        return;
    }
    let theirs = golden::read_json("acl-categories.json");
    let theirs = theirs.as_object().unwrap();
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (category, commands) in &ours {
        let wanted = theirs[category].as_array().unwrap().iter().filter_map(Value::as_str);
        let wanted: Vec<&str> = wanted.filter(|name| known.contains(*name)).collect();
        assert_eq!(commands.iter().map(String::as_str).collect::<Vec<_>>(), wanted, "@{category}");
    }
}

#[test]
fn config_names_and_defaults_are_the_reference_s() {
    let server = Server::start(&[]);
    let ours = golden::config_defaults(&mut server.client());
    let theirs = golden::read_json("config-defaults.json");
    assert!(!ours.is_empty(), "CONFIG GET * is empty");
    let mut faults = Vec::new();
    for (name, value) in &ours {
        match theirs[name].as_str() {
            None => faults.push(format!("{name} is no name of the reference")),
            Some(their) if their != value && !OTHER_DEFAULTS.iter().any(|(other, _)| other == name) => {
                faults.push(format!("{name}: {value:?} instead of {their:?}"));
            }
            Some(_) => {}
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A client of ours meets the reference's identity.
#[test]
fn the_identity_is_the_reference_s() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let hello = client.run("HELLO 3");
    assert_eq!(hello.field("server").map(Reply::text).as_deref(), Some("valkey"));
    assert_eq!(hello.field("version").map(Reply::text).as_deref(), Some("9.1.2"));
    let info = client.run("INFO server").text();
    for line in ["redis_version:7.2.4", "server_name:valkey", "valkey_version:9.1.2", "kara_version:"] {
        assert!(info.contains(line), "{line} is missing in\n{info}");
    }
}

/// The fields of two rows that differ.
fn differences(name: &str, ours: &Value, theirs: &Value) -> String {
    let (empty, mut text) = (serde_json::Map::new(), format!("{name}:"));
    let (ours, theirs) = (ours.as_object().unwrap_or(&empty), theirs.as_object().unwrap_or(&empty));
    for key in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
        if ours.get(key) != theirs.get(key) {
            let shown = |value: Option<&Value>| value.map_or("nothing".into(), ToString::to_string);
            text.push_str(&format!(
                "\n    {key}: {} instead of {}",
                shown(ours.get(key)),
                shown(theirs.get(key))
            ));
        }
    }
    text
}

/// The names of a command's documents in their order, and the versions of its history; the words are our own.
fn histories(docs: &Reply, into: &mut BTreeMap<String, (Vec<String>, Vec<String>)>) {
    for (name, document) in docs.pairs() {
        let fields = document.pairs();
        let names = fields.iter().map(|(field, _)| field.clone()).filter(|field| field != "subcommands");
        let changes = document.field("history").map(Reply::items).unwrap_or_default();
        let versions = changes.iter().filter_map(|change| change.items().first()).map(Reply::text);
        into.insert(name, (names.collect(), versions.collect()));
        if let Some(subcommands) = document.field("subcommands") {
            histories(subcommands, into);
        }
    }
}

#[test]
fn command_histories_are_the_reference_s() {
    let read = |server: Server| {
        let mut all = BTreeMap::new();
        histories(&server.client().run("COMMAND DOCS"), &mut all);
        all
    };
    let (ours, theirs) = (read(Server::start(&[])), read(Server::reference(&[])));
    assert!(ours.values().filter(|(_, versions)| !versions.is_empty()).count() > 50);
    for (name, (names, versions)) in &ours {
        let (their_names, their_versions) = &theirs[name];
        assert_eq!(versions, their_versions, "{name}");
        assert_eq!(names, their_names, "{name}");
    }
}
