//! `cargo xtask fuzz`: every target of `fuzz/` for some seconds, with a sanitizer (which wants a nightly compiler).

use crate::build::cargo;
use crate::process::{Outcome, output, run};
use kara_tests::root;
use std::process::Command;

/// `[--seconds N] [--target NAME]`; a crash leaves its input in `fuzz/artifacts/` and fails.
pub fn run_targets(arguments: &[String]) -> Outcome {
    let (mut seconds, mut wanted) = ("60".to_string(), None);
    for pair in arguments.chunks(2) {
        match pair {
            [name, value] if name == "--seconds" => seconds.clone_from(value),
            [name, value] if name == "--target" => wanted = Some(value.clone()),
            _ => return Err(format!("unknown option {}", pair.join(" "))),
        }
    }
    if output(&mut cargo(&["fuzz", "--version"])).is_err() {
        run(&mut cargo(&["install", "--locked", "cargo-fuzz"]))?;
    }
    let folder = root().join("fuzz/fuzz_targets");
    let entries = std::fs::read_dir(&folder).map_err(|fault| format!("{}: {fault}", folder.display()))?;
    let names = entries.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_suffix(".rs").map(str::to_string)
    });
    let mut targets: Vec<String> = names.filter(|name| wanted.as_ref().is_none_or(|w| w == name)).collect();
    targets.sort();
    if targets.is_empty() {
        return Err("no such target".into());
    }
    for target in &targets {
        println!("== {target}, {seconds} s");
        let limit = format!("-max_total_time={seconds}");
        // rustup's cargo, not the one of the compiler that built us, and the nightly one whatever it is set to.
        let mut command = Command::new("cargo");
        command
            .current_dir(root())
            .env("RUSTUP_TOOLCHAIN", "nightly")
            .env_remove("CARGO")
            .env_remove("RUSTC");
        run(command.args([
            "fuzz",
            "run",
            target,
            "--",
            &limit,
            "-rss_limit_mb=4096",
            "-print_final_stats=1",
        ]))?;
    }
    Ok(())
}
