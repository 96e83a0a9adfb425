//! The README's list of gaps: commands, configuration names and INFO fields of the reference that are missing or
//! have no effect. It is made here, from a running server, and must be what the README says.

use kara_tests::{Server, golden, root};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;

const BEGIN: &str = "<!-- gaps: begin (cargo xtask gaps writes this) -->\n";
const END: &str = "<!-- gaps: end -->";

/// `KARA_GAPS=write` (`cargo xtask gaps`) writes the list instead.
#[test]
fn the_readme_lists_every_gap() {
    let list = gaps();
    let path = root().join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = readme.split_once(BEGIN).expect("the README has no place for the gaps");
    let (present, tail) = rest.split_once(END).expect("the README's gaps have no end");
    if std::env::var("KARA_GAPS").as_deref() == Ok("write") {
        std::fs::write(&path, format!("{head}{BEGIN}{list}{END}{tail}")).unwrap();
    } else {
        assert!(
            present == list,
            "the README's gaps are out of date: cargo xtask gaps writes them. Now:\n{list}"
        );
    }
}

fn gaps() -> String {
    let server = Server::start(&[]);
    let mut client = server.client();
    let names = |commands: &[Value]| -> BTreeSet<String> {
        let subcommands = commands.iter().filter_map(|row| row["subcommands"].as_array()).flatten();
        let all = commands.iter().chain(subcommands);
        all.filter_map(|row| row["name"].as_str()).map(|name| name.to_uppercase().replace('|', " ")).collect()
    };
    let ours = names(&golden::commands(&mut client));
    let theirs = names(golden::read_json("commands.json").as_array().unwrap());
    let missing: Vec<&String> =
        theirs.difference(&ours).filter(|name| container_is_known(name, &ours)).collect();
    let mut list = String::new();
    section(&mut list, "Commands", theirs.len(), &missing);

    let ours = golden::config_defaults(&mut client);
    let theirs = golden::read_json("config-defaults.json");
    let theirs = theirs.as_object().unwrap();
    let missing: Vec<&String> = theirs.keys().filter(|name| !ours.contains_key(*name)).collect();
    section(&mut list, "Configuration names", theirs.len(), &missing);
    let idle = kara_engine::config::without_effect();
    section(&mut list, "Configuration names without effect", theirs.len(), &idle);

    let ours: BTreeSet<(String, String)> =
        golden::info_fields(&golden::info(&mut client)).into_iter().collect();
    let theirs = golden::info_fields(&golden::read("info-everything.txt"));
    let missing: Vec<&String> =
        theirs.iter().filter(|field| !ours.contains(*field)).map(|(_, name)| name).collect();
    section(&mut list, "INFO fields", theirs.len(), &missing);
    list
}

/// A missing container says it all; its subcommands are listed only where it is there.
fn container_is_known(name: &str, ours: &BTreeSet<String>) -> bool {
    name.split_once(' ').is_none_or(|(container, _)| ours.contains(container))
}

fn section<T: AsRef<str>>(list: &mut String, title: &str, of: usize, missing: &[T]) {
    let _ = match missing {
        [] => writeln!(list, "- {title}: none of {of}."),
        _ => {
            let names: Vec<String> = missing.iter().map(|name| format!("`{}`", name.as_ref())).collect();
            writeln!(list, "- {title}, {} of {of}: {}.", missing.len(), names.join(" "))
        }
    };
}
