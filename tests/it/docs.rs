//! What the documentation tells its readers to type is typed here.
//!
//! In `README.md`, `CONTRIBUTING.md` and `docs/`, a fenced block
//! - ` ```sh ` is run by a shell in the repository's root, where `PORT` is a running server's port and `kara-server`,
//!   `kara-cli` (and their `valkey-` and `redis-` names) are the built programs; it must succeed;
//! - ` ```console ` has lines `$ command` and below each the exact output;
//! - ` ```conf ` is a configuration file: a server is started with it;
//! - with a server behind the language (` ```sh with: redis-server-7.0 `) that one runs too, with some keys: its port is
//!   `OLD`, its folder `OLD_DIR`;
//! - with a reason behind the language (` ```sh not-run: takes an hour `) is not run.

use kara_tests::{Server, peers, root};
use std::path::{Path, PathBuf};
use std::process::Command;

struct Block {
    place: String,
    language: String,
    remark: String,
    text: String,
}

fn documents() -> Vec<PathBuf> {
    let mut found = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found
}

fn blocks(document: &Path) -> Vec<Block> {
    let text = std::fs::read_to_string(document).unwrap();
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (at, line) in text.lines().enumerate() {
        let indent_free = line.trim_start();
        match (&mut open, indent_free.strip_prefix("```")) {
            (None, Some(header)) => {
                let (language, remark) = header.split_once(' ').unwrap_or((header, ""));
                open = Some(Block {
                    place: format!("{}:{}", document.display(), at + 1),
                    language: language.into(),
                    remark: remark.into(),
                    text: String::new(),
                });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{}: a block without its end", document.display());
    blocks
}

/// A server from which the snippet's reader comes.
fn old_server(block: &Block) -> Option<Server> {
    let name = block.remark.strip_prefix("with: ")?;
    let server = Server::start_program(&peers().join("bin").join(name), &[]);
    let mut client = server.client();
    for line in ["SET text hello", "SET ttl v EX 1000", "RPUSH list a b c", "HSET hash f v"] {
        client.run(line);
    }
    Some(server)
}

fn shell(script: &str, port: u16, folder: &Path) -> Result<String, String> {
    shell_beside(script, port, folder, None)
}

fn shell_beside(script: &str, port: u16, folder: &Path, old: Option<&Server>) -> Result<String, String> {
    let programs = std::env::current_exe().unwrap();
    let programs = programs.ancestors().nth(2).unwrap();
    let path = format!(
        "{}:{}:{}",
        programs.display(),
        std::env::var("PATH").unwrap_or_default(),
        peers().join("bin").display()
    );
    let done = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(root())
        .env("PATH", path)
        .env("PORT", port.to_string())
        .env("DIR", folder)
        .envs(old.map(|old| ("OLD", old.port().to_string())))
        .envs(old.map(|old| ("OLD_DIR", old.folder().to_path_buf())))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    if done.status.success() {
        Ok(said)
    } else {
        Err(format!("{}\n{said}{}", done.status, String::from_utf8_lossy(&done.stderr)))
    }
}

fn run_block(block: &Block) -> Result<(), String> {
    match block.language.as_str() {
        "conf" => {
            let folder = std::env::temp_dir().join(format!("kara-docs-{}", std::process::id()));
            std::fs::create_dir_all(&folder).map_err(|fault| fault.to_string())?;
            let file = folder.join("kara.conf");
            std::fs::write(&file, &block.text).map_err(|fault| fault.to_string())?;
            let started = std::panic::catch_unwind(|| Server::start_with_file(&file));
            let _ = std::fs::remove_dir_all(folder);
            started.map(|_| ()).map_err(|_| "the server doesn't start with it".into())
        }
        "sh" => {
            let server = Server::start(&[]);
            let old = old_server(block);
            shell_beside(&block.text, server.port(), server.folder(), old.as_ref()).map(|_| ())
        }
        "console" => {
            let server = Server::start(&[]);
            for part in format!("\n{}", block.text).split("\n$ ").skip(1) {
                let (command, wanted) = part.split_once('\n').unwrap_or((part, ""));
                let said = shell(command, server.port(), server.folder())?;
                if said.trim_end() != wanted.trim_end() {
                    return Err(format!("$ {command}\nsaid:\n{said}\ninstead of:\n{wanted}"));
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

#[test]
fn every_snippet_works() {
    let mut faults = Vec::new();
    let mut ran = 0;
    for block in documents().iter().flat_map(|document| blocks(document)) {
        if block.remark.starts_with("not-run: ") {
            continue;
        }
        ran += usize::from(matches!(block.language.as_str(), "sh" | "console" | "conf"));
        if let Err(why) = run_block(&block) {
            faults.push(format!("{}: {why}", block.place));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
    assert!(ran > 0, "no snippet was found");
}

/// A block whose language is none of ours would silently not be run.
#[test]
fn every_snippet_says_what_it_is() {
    for block in documents().iter().flat_map(|document| blocks(document)) {
        let known = ["sh", "console", "conf", "text", "rust", "toml", "json", "yaml"];
        assert!(known.contains(&block.language.as_str()), "{}: language {:?}", block.place, block.language);
        let remark = block.remark.as_str();
        assert!(
            remark.is_empty() || remark.starts_with("not-run: ") || remark.starts_with("with: "),
            "{}: {remark}",
            block.place
        );
    }
}
