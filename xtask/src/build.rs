//! Building the workspace, and the commands that only build and start another program.

use crate::process::{Outcome, link, run};
use kara_tests::root;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The names by which the one program is called.
const NAMES: [&str; 5] = ["server", "cli", "benchmark", "check-rdb", "check-aof"];

/// Cargo in the repository's root.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments);
    command
}

/// Where a profile's programs are.
pub fn folder(profile: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target.join(if profile == "dev" { "debug" } else { profile })
}

/// Builds `kara` and makes the links by which it is called; gives the folder.
pub fn kara(profile: &str) -> Outcome<PathBuf> {
    run(&mut cargo(&["build", "--quiet", "--package", "kara", "--profile", profile]))?;
    links(&folder(profile))?;
    Ok(folder(profile))
}

/// `kara-server`, `valkey-server`, `redis-server`, ... beside `kara`.
pub fn links(folder: &Path) -> Outcome {
    for family in ["kara", "valkey", "redis"] {
        for name in NAMES {
            link(Path::new("kara"), &folder.join(format!("{family}-{name}")))?;
        }
    }
    // The image's own.
    for name in ["entrypoint", "health"] {
        link(Path::new("kara"), &folder.join(format!("kara-{name}")))?;
    }
    Ok(())
}

/// `cargo xtask differential`: the runner itself is in the tests' package.
pub fn differential(arguments: &[String]) -> Outcome {
    crate::peers::run(&[])?;
    let programs = kara("fast")?;
    run(&mut cargo(&["build", "--quiet", "--package", "kara-tests", "--profile", "fast"]))?;
    run(Command::new(programs.join("differential")).args(arguments))
}

/// `cargo xtask scrape [--keys N]`: pages of metrics while much is saved and loaded.
pub fn scrape(arguments: &[String]) -> Outcome {
    let keys = match arguments {
        [] => "10000000",
        [name, keys] if name == "--keys" => keys,
        _ => return Err("the only option is --keys N".into()),
    };
    crate::peers::run(&[])?;
    let program = kara("fast")?.join("kara-server");
    let mut command = Command::new(kara_tests::peers().join("venv/bin/python"));
    run(command.arg(root().join("tests/clients/scrape.py")).arg(program).arg(keys))
}

/// `cargo xtask collections`: likewise.
pub fn collections(arguments: &[String]) -> Outcome {
    measurement("collections", arguments)
}

/// `cargo xtask hitratio`: likewise.
pub fn hitratio(arguments: &[String]) -> Outcome {
    measurement("hitratio", arguments)
}

/// `cargo xtask eviction-stall`: likewise.
pub fn eviction_stall(arguments: &[String]) -> Outcome {
    measurement("eviction-stall", arguments)
}

fn measurement(name: &str, arguments: &[String]) -> Outcome {
    crate::peers::run(&[])?;
    let programs = kara("fast")?;
    run(&mut cargo(&["build", "--quiet", "--package", "kara-tests", "--profile", "fast"]))?;
    run(Command::new(programs.join(name)).args(arguments))
}

/// `cargo xtask replication`: likewise.
pub fn replication(arguments: &[String]) -> Outcome {
    crate::peers::run(&[])?;
    let programs = kara("fast")?;
    run(&mut cargo(&["build", "--quiet", "--package", "kara-tests", "--profile", "fast"]))?;
    run(Command::new(programs.join("replication")).args(arguments))
}

/// `cargo xtask full-sync`: part of the same program, on the build whose speed counts.
pub fn full_sync(arguments: &[String]) -> Outcome {
    crate::peers::run(&[])?;
    let programs = kara("fast")?;
    let server = kara("release")?.join("kara-server");
    run(&mut cargo(&["build", "--quiet", "--package", "kara-tests", "--profile", "fast"]))?;
    let mut command = Command::new(programs.join("replication"));
    run(command.arg("full-sync").args(arguments).env("KARA_SERVER", server))
}

/// `cargo xtask crash`, `power-loss`, `snapshot-load`: likewise, one program for all.
pub fn crash(arguments: &[String]) -> Outcome {
    disk("crash", arguments)
}

pub fn power_loss(arguments: &[String]) -> Outcome {
    disk("power-loss", arguments)
}

pub fn snapshot_load(arguments: &[String]) -> Outcome {
    disk("snapshot-load", arguments)
}

fn disk(what: &str, arguments: &[String]) -> Outcome {
    // What CI has built already will do for a sample.
    let (dev, arguments): (Vec<_>, Vec<_>) = arguments.iter().partition(|argument| *argument == "--dev");
    let profile = if dev.is_empty() { "fast" } else { "dev" };
    let programs = kara(profile)?;
    run(&mut cargo(&["build", "--quiet", "--package", "kara-tests", "--bin", "disk", "--profile", profile]))?;
    run(Command::new(programs.join("disk")).arg(what).args(arguments))
}
