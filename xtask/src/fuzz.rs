//! `cargo xtask fuzz`: every target of `fuzz/` for some seconds, with a sanitizer (which wants a nightly compiler). Where
//! cargo-fuzz or that compiler can't be had, the same checks run on mutated inputs in a plain process.

use crate::build::cargo;
use crate::process::{Outcome, output, run};
use kara_tests::root;
use std::process::Command;

/// `[--seconds N] [--target NAME] [--plain yes] [--seed N]`; a crash leaves its input in `fuzz/artifacts/` (a plain run:
/// in the system's folder for temporary files) and fails.
pub fn run_targets(arguments: &[String]) -> Outcome {
    let (mut seconds, mut wanted) = ("60".to_string(), None);
    let (mut plain, mut seed) = (false, "1".to_string());
    for pair in arguments.chunks(2) {
        match pair {
            [name, value] if name == "--seconds" => seconds.clone_from(value),
            [name, value] if name == "--target" => wanted = Some(value.clone()),
            [name, value] if name == "--plain" => plain = value == "yes",
            [name, value] if name == "--seed" => seed.clone_from(value),
            _ => return Err(format!("unknown option {}", pair.join(" "))),
        }
    }
    if plain || !can_instrument() {
        println!("== without a fuzzer: {seconds} s for each target, seed {seed}");
        let corpus = root().join("fuzz/corpus");
        let corpus = corpus.to_string_lossy();
        let mut words =
            vec!["run", "--quiet", "-p", "kara-resp", "--example", "fuzz", "--", &corpus, &seconds, &seed];
        words.extend(wanted.as_deref());
        return run(cargo(&words).current_dir(root()));
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

/// Whether cargo-fuzz is there, or can be installed, with the nightly compiler that it needs.
fn can_instrument() -> bool {
    let mut nightly = Command::new("cargo");
    nightly.env("RUSTUP_TOOLCHAIN", "nightly").env_remove("CARGO").env_remove("RUSTC").arg("--version");
    if output(&mut nightly).is_err() {
        return false;
    }
    output(&mut cargo(&["fuzz", "--version"])).is_ok()
        || run(&mut cargo(&["install", "--locked", "cargo-fuzz"])).is_ok()
}
