//! `cargo xtask suite`: Valkey's own Tcl test suite on our programs.
//!
//! Needs a checkout of Valkey's sources (only `tests/`, `utils/` and `runtest` are used, nothing is compiled) and
//! `tclsh` 8.6. Every unit runs by itself on a copy of the tree, so that a crash in one can't hide the others.
//! `tests/valkey-suite-baseline.json` says how many tests of each unit the reference passes here, and
//! `tests/valkey-suite-exceptions.toml` which ones we fail and why.

use crate::process::{Outcome, link};
use kara_tests::{peers, root};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const FOLDERS: &[&str] = &["unit", "unit/type", "unit/cluster", "integration"];
const PROGRAMS: &[&str] = &["server", "cli", "benchmark", "check-rdb", "check-aof", "sentinel"];
const COPIED: &[&str] = &["runtest", "runtest-sentinel", "runtest-cluster", "valkey.conf", "sentinel.conf"];

/// Units that go on for a fixed time: how many tests that makes is the machine's.
const BY_TIME: &[&str] = &["integration/psync2", "integration/psync2-reg"];

struct Options {
    tree: PathBuf,
    /// Where `valkey-server` and the others are.
    programs: PathBuf,
    units: Vec<String>,
    logs: Option<PathBuf>,
    json: Option<PathBuf>,
    timeout_s: u64,
    base_port: u16,
    extra: Vec<String>,
}

/// What one unit's output says.
#[derive(Default)]
struct Result {
    passed: Vec<String>,
    failed: Vec<String>,
    skipped: usize,
    /// Not run: they need cluster mode or the script debugger.
    left_out: usize,
    seconds: u64,
    ended: String,
}

/// Runs the units and sums up; fails where a test fails that is no exception, or fewer pass than the baseline says.
pub fn run(arguments: &[String]) -> Outcome {
    let options = parse(arguments)?;
    let baseline = fs::read_to_string(root().join("tests/valkey-suite-baseline.json")).map_err(text)?;
    let baseline: BTreeMap<String, usize> = serde_json::from_str(&baseline).map_err(text)?;
    let Exceptions { rows: exceptions, skipped, ends } = exceptions()?;
    let copy = lay_out(&options)?;
    let mut report = serde_json::Map::new();
    let (mut passed, mut expected, mut faulty) = (0, 0, Vec::new());
    for unit in units(&options)? {
        place_clients(&copy, &unit, &options)?;
        let (result, output) = run_unit(&copy, &unit, &skipped, &options)?;
        if let Some(folder) = &options.logs {
            fs::create_dir_all(folder).map_err(text)?;
            fs::write(folder.join(unit.replace('/', "-") + ".log"), output).map_err(text)?;
        }
        let excused =
            |name: &String| exceptions.iter().any(|(u, test)| *u == unit && name.starts_with(test.as_str()));
        // Some names stand for several tests.
        let excusable = exceptions.iter().filter(|(u, _)| *u == unit).count();
        let excusable = excusable.max(result.failed.iter().filter(|name| excused(name)).count());
        let wanted = baseline.get(&unit).copied().unwrap_or(0);
        let unexpected: Vec<&String> = result.failed.iter().filter(|name| !excused(name)).collect();
        // Where the unit ended is the failed test that came last.
        let ended_excused = result
            .failed
            .last()
            .is_some_and(|name| ends.iter().any(|(u, t)| *u == unit && name.starts_with(t)));
        let is_through = BY_TIME.contains(&unit.as_str()) && result.ended == "exit status: 0";
        // With several threads the suite itself skips some.
        let skipped =
            if options.extra.iter().any(|word| word == "--io-threads") { result.skipped } else { 0 };
        let reached = result.passed.len() + excusable + result.left_out + skipped;
        let enough = reached >= wanted || ended_excused || is_through;
        println!(
            "{unit}: {} of {wanted} passed, {} failed, {} skipped, {} left out, {} s, {}",
            result.passed.len(),
            result.failed.len(),
            result.skipped,
            result.left_out,
            result.seconds,
            result.ended
        );
        for name in &result.failed {
            println!("    {}: {}", if excused(name) { "exception" } else { "failed" }, clip(name));
        }
        if !unexpected.is_empty() || !enough {
            faulty.push(unit.clone());
        }
        passed += result.passed.len();
        expected += wanted;
        let row = json!({"ok": result.passed, "err": result.failed, "skip": result.skipped,
                         "seconds": result.seconds, "ended": result.ended});
        report.insert(unit, row);
        // Written after every unit: a run that is stopped leaves what it had.
        if let Some(file) = &options.json {
            fs::write(file, format!("{:#}", Value::Object(report.clone()))).map_err(text)?;
        }
    }
    let _ = fs::remove_dir_all(&copy);
    println!("total: {passed} of {expected} passed");
    if faulty.is_empty() { Ok(()) } else { Err(format!("not as the reference: {}", faulty.join(" "))) }
}

fn parse(arguments: &[String]) -> Outcome<Options> {
    let mut options = Options {
        tree: PathBuf::new(),
        programs: PathBuf::new(),
        units: Vec::new(),
        logs: None,
        json: None,
        timeout_s: 600,
        // Below the ports that the kernel hands out, and seldom the same as another run's.
        base_port: 12_000 + (std::process::id() % 9) as u16 * 2_100,
        extra: Vec::new(),
    };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().cloned().ok_or_else(|| format!("{word} wants a value"));
        match word.as_str() {
            "--tree" => options.tree = value()?.into(),
            "--bin" => options.programs = value()?.into(),
            "--unit" => options.units.push(value()?),
            "--logs" => options.logs = Some(value()?.into()),
            "--json" => options.json = Some(value()?.into()),
            "--timeout" => options.timeout_s = value()?.parse().map_err(text)?,
            "--base-port" => options.base_port = value()?.parse().map_err(text)?,
            "--io-threads" => {
                let workers = value()?;
                // The flag, which takes no number, leaves out tests that count on one thread.
                if workers != "1" {
                    options.extra.push("--io-threads".into());
                }
                options.extra.extend(["--config".into(), "io-threads".into(), workers]);
            }
            "--" => options.extra.extend(words.by_ref().cloned()),
            _ => return Err(format!("unknown option {word}")),
        }
    }
    if !options.tree.join("tests/test_helper.tcl").exists() {
        return Err("--tree CHECKOUT: a checkout of Valkey's sources".into());
    }
    if options.programs.as_os_str().is_empty() {
        crate::peers::run(&[])?;
        options.programs = crate::build::kara("fast")?;
    }
    if !options.programs.join("valkey-server").exists() {
        return Err(format!("no valkey-server in {}", options.programs.display()));
    }
    Ok(options)
}

fn units(options: &Options) -> Outcome<Vec<String>> {
    let mut all = Vec::new();
    for folder in FOLDERS {
        for entry in fs::read_dir(options.tree.join("tests").join(folder)).map_err(text)?.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "tcl") {
                all.push(format!("{folder}/{}", path.file_stem().unwrap_or_default().to_string_lossy()));
            }
        }
    }
    all.sort();
    for name in &options.units {
        if !all.iter().any(|unit| unit.starts_with(name.as_str())) {
            return Err(format!("no unit {name}"));
        }
    }
    let wanted = |unit: &String| {
        let named =
            |name: &String| unit == name || unit.starts_with(&format!("{}/", name.trim_end_matches('/')));
        options.units.is_empty() || options.units.iter().any(named)
    };
    all.retain(wanted);
    Ok(all)
}

/// A copy of the tree with links to our programs where the suite looks for them.
fn lay_out(options: &Options) -> Outcome<PathBuf> {
    let copy = std::env::temp_dir().join(format!("kara-suite-{}", std::process::id()));
    fs::create_dir_all(copy.join("src")).map_err(text)?;
    for folder in ["tests", "utils"] {
        copy_folder(&options.tree.join(folder), &copy.join(folder))?;
    }
    adapt_children(&copy.join("tests/support/util.tcl"))?;
    leave_out_child(&copy.join("tests/unit/oom-score-adj.tcl"))?;
    leave_out_clusters(&copy.join("tests/support/cluster_util.tcl"))?;
    forget_immutable(&copy.join("tests/unit/introspection.tcl"))?;
    leave_out_debugger(&copy.join("tests/unit/scripting.tcl"))?;
    leave_out_stopped(&copy.join("tests/integration/dual-channel-replication.tcl"))?;
    forget_settings(&copy.join("tests/integration/corrupt-dump.tcl"))?;
    forget_settings(&copy.join("tests/integration/corrupt-dump-fuzzer.tcl"))?;
    forget_settings(&copy.join("tests/integration/rdb.tcl"))?;
    forget_settings(&copy.join("tests/integration/replication.tcl"))?;
    for file in COPIED {
        let _ = fs::copy(options.tree.join(file), copy.join(file));
    }
    for program in PROGRAMS {
        place(&copy, program, &options.programs.join(format!("valkey-{program}")))?;
    }
    for folder in ["tests/tmp", "tests/sentinel/tmp", "tests/cluster/tmp"] {
        fs::create_dir_all(copy.join(folder)).map_err(text)?;
    }
    Ok(copy)
}

/// Links a program under both of its names.
fn place(copy: &Path, program: &str, target: &Path) -> Outcome {
    // Links may be relative to their folder: the suite starts what they lead to by its own name.
    let target = std::path::absolute(target).map_err(text)?;
    link(&target, &copy.join(format!("src/valkey-{program}")))?;
    link(&target, &copy.join(format!("src/redis-{program}")))
}

/// The clients that the suite uses as tools are the reference's, so that a fault is the server's; a client's own unit
/// tests ours.
fn place_clients(copy: &Path, unit: &str, options: &Options) -> Outcome {
    for (program, peer) in [("cli", "valkey-cli"), ("benchmark", "redis-benchmark")] {
        let own = options.programs.join(format!("valkey-{program}"));
        let peer = peers().join("bin").join(peer);
        let is_its_unit = unit == format!("integration/valkey-{program}");
        let use_own = own.exists() && (is_its_unit || !peer.exists());
        place(copy, program, if use_own { &own } else { &peer })?;
    }
    Ok(())
}

/// Saving is a thread here, not a child process. Where a test kills the child, the snapshot under way fails instead.
fn adapt_children(file: &Path) -> Outcome {
    const ADAPTED: &str = "
proc get_child_pid {idx} { return child:$idx }
if {[info commands exec_program] eq {}} { rename exec exec_program }
proc exec {args} {
    if {[lrange $args 0 1] eq {kill -9} && [regexp {^child:(-?[0-9]+)$} [lindex $args 2] _ idx]} {
        return [r $idx debug kara-fault job]
    }
    uplevel 1 [list exec_program {*}$args]
}
";
    let text_of_tree = fs::read_to_string(file).map_err(text)?;
    fs::write(file, text_of_tree + ADAPTED).map_err(text)
}

/// A test looks for the score of a saving child process in its last part: there is none. The rest of it is run.
fn leave_out_child(file: &Path) -> Outcome {
    let Ok(text_of_tree) = fs::read_to_string(file) else { return Ok(()) };
    let Some(from) = text_of_tree.find("            # Check child process\n") else { return Ok(()) };
    let (before, part) = text_of_tree.split_at(from);
    let Some(end) = part.find("\n        }\n") else { return Ok(()) };
    fs::write(file, format!("{before}{}", &part[end + 1..])).map_err(text)
}

/// What stands behind a test that isn't run (it stops the primary while a forked child goes on) waits for that, too.
fn leave_out_stopped(file: &Path) -> Outcome {
    let Ok(text_of_tree) = fs::read_to_string(file) else { return Ok(()) };
    let Some(from) = text_of_tree.find("        # Waiting for the primary to enter the paused state") else {
        return Ok(());
    };
    let (before, part) = text_of_tree.split_at(from);
    let Some(end) = part.find("        stop_write_load $load_handle0\n") else { return Ok(()) };
    fs::write(file, format!("{before}{}", &part[end..])).map_err(text)
}

/// There is no cluster mode: what needs one is listed as left out, and the rest of its unit is run. Nothing changes for
/// other servers.
fn leave_out_clusters(file: &Path) -> Outcome {
    const ADAPTED: &str = r#"
rename start_cluster start_cluster_there
proc start_cluster {masters replicas options code args} {
    if {![string match {*kara=*} [exec src/valkey-server --version]]} {
        return [uplevel 1 [list start_cluster_there $masters $replicas $options $code {*}$args]]
    }
    foreach line [split $code "\n"] {
        if {[regexp {^\s*test\s+[\{"](.*)[\}"]\s+\{\s*$} $line _ name]} { puts "\[left out\]: $name" }
    }
}
"#;
    let Ok(text_of_tree) = fs::read_to_string(file) else { return Ok(()) };
    fs::write(file, text_of_tree + ADAPTED).map_err(text)
}

/// A test sets every setting but those that it knows to be immutable. 9.1.2 has more of those, which end the unit.
fn forget_immutable(file: &Path) -> Outcome {
    let Ok(text_of_tree) = fs::read_to_string(file) else { return Ok(()) };
    const KNOWN: &str = "            cluster-enabled\n";
    const NEW: [&str; 5] = ["cluster-databases", "hash-seed", "mptcp", "repl-mptcp", "enable-debug-assert"];
    let changed = text_of_tree.replace(KNOWN, &format!("{KNOWN}{}\n", NEW.join("\n")));
    fs::write(file, changed).map_err(text)
}

/// SCRIPT DEBUG is refused, and its part of the unit would end it.
fn leave_out_debugger(file: &Path) -> Outcome {
    const SERVER: &str = "start_server {tags {\"scripting external:skip\"}} {\n";
    let Ok(text_of_tree) = fs::read_to_string(file) else { return Ok(()) };
    let from = text_of_tree.find(&format!("{SERVER}    r script debug sync\n"));
    let to = text_of_tree.find(&format!("{SERVER}    test {{Lua scripts eviction"));
    match (from, to) {
        (Some(from), Some(to)) if from < to => {
            let (before, part, rest) = (&text_of_tree[..from], &text_of_tree[from..to], &text_of_tree[to..]);
            let told: String = part
                .lines()
                .filter_map(|line| line.trim().strip_prefix("test {")?.strip_suffix("} {"))
                .map(|name| format!("puts {{[left out]: {name}}}\n"))
                .collect();
            fs::write(file, format!("{before}{told}{rest}")).map_err(text)
        }
        _ => Ok(()),
    }
}

/// Older trees set what 9.1.2 doesn't know any more: payloads are always looked through.
fn forget_settings(file: &Path) -> Outcome {
    let Ok(text) = fs::read_to_string(file) else { return Ok(()) };
    let mut kept = String::new();
    let mut is_lax = false;
    for line in text.lines() {
        if line.starts_with("test ") {
            is_lax = false;
        }
        if line.trim().starts_with("r config set sanitize-dump-payload") {
            is_lax = line.trim().ends_with("no");
            continue;
        }
        if line.contains("config set dynamic-hz") {
            continue;
        }
        let mut words = line.to_owned();
        // Written for a server that was told not to look: 9.1.2 refuses, and its error would end the whole unit.
        let is_call = |name: &str| {
            let call = line.strip_prefix("        ").map(|call| call.strip_prefix(' ').unwrap_or(call));
            call.and_then(|call| call.strip_prefix("r ")).is_some_and(|call| call.starts_with(name))
        };
        if is_lax && (is_call("RESTORE ") || is_call("restore ")) {
            words = format!("catch {{{}}}", line.trim());
        }
        for value in ["no", "yes", "$sanitize_dump"] {
            words = words.replace(&format!(" sanitize-dump-payload {value}"), "");
            words = words.replace(&format!(" \"sanitize-dump-payload\" {value}"), "");
        }
        kept.push_str(&words);
        kept.push('\n');
    }
    fs::write(file, kept).map_err(|fault| fault.to_string())
}

fn copy_folder(from: &Path, to: &Path) -> Outcome {
    fs::create_dir_all(to).map_err(text)?;
    for entry in fs::read_dir(from).map_err(text)?.flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(text)?;
        if kind.is_dir() && entry.file_name() != "tmp" {
            copy_folder(&path, &target)?;
        } else if kind.is_symlink() {
            link(&fs::read_link(&path).map_err(text)?, &target)?;
        } else if kind.is_file() {
            fs::copy(&path, &target).map_err(text)?;
        }
    }
    Ok(())
}

fn run_unit(
    copy: &Path,
    unit: &str,
    skipped: &[(String, String)],
    options: &Options,
) -> Outcome<(Result, String)> {
    let started = Instant::now();
    let output = copy.join("output");
    let file = File::create(&output).map_err(text)?;
    let errors = file.try_clone().map_err(text)?;
    let mut child = Command::new("./runtest")
        .args(["--single", unit, "--clients", "1", "--dump-logs", "--portcount", "2000"])
        .args(["--timeout", &options.timeout_s.to_string(), "--baseport", &options.base_port.to_string()])
        .args(skipped.iter().filter(|(of, _)| of == unit).flat_map(|(_, test)| ["--skiptest", test]))
        .args(&options.extra)
        .current_dir(copy)
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .map_err(|fault| format!("runtest: {fault}"))?;
    let ended = wait(&mut child, Duration::from_secs(options.timeout_s + 30))?;
    let said = String::from_utf8_lossy(&fs::read(&output).map_err(text)?).into_owned();
    let mut result = read(&said);
    result.seconds = started.elapsed().as_secs();
    result.ended = ended;
    Ok((result, said))
}

/// Waits for the suite's own timeout and a little longer, then ends its process group: the servers that it started.
fn wait(child: &mut Child, limit: Duration) -> Outcome<String> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().map_err(text)? {
            return Ok(status.to_string());
        }
        if Instant::now() > deadline {
            let group = format!("-{}", child.id());
            crate::process::run_quietly(Command::new("kill").args(["-KILL", "--", &group]))?;
            child.wait().map_err(text)?;
            return Ok(format!("killed after {} s", limit.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// `[ok]: name (12 ms)`, `[err]: ...`, `[exception]: ...`, `[skip]: ...` between colour codes.
fn read(output: &str) -> Result {
    let mut result = Result::default();
    for line in output.lines() {
        let line = without_colours(line);
        let Some((kind, name)) = line.trim().strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
            continue;
        };
        let name = name.trim_start_matches(':').trim();
        let name = match name.rsplit_once(" (") {
            Some((name, time)) if time.ends_with(" ms)") => name,
            _ => name,
        };
        match kind {
            "ok" => result.passed.push(name.into()),
            "err" | "exception" | "timeout" => result.failed.push(name.into()),
            "skip" | "ignore" => result.skipped += 1,
            "left out" => result.left_out += 1,
            _ => {}
        }
    }
    result
}

fn without_colours(line: &str) -> String {
    let mut plain = String::new();
    let mut parts = line.split("\x1b[");
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        plain.push_str(part.split_once('m').map_or("", |(_, rest)| rest));
    }
    plain
}

/// Unit and the beginning of the test's name, of each exception; every one must have its reason.
struct Exceptions {
    rows: Vec<(String, String)>,
    /// Those that can't be run at all, by their whole name: they would end the unit.
    skipped: Vec<(String, String)>,
    /// Those that end the unit, so that what follows isn't run.
    ends: Vec<(String, String)>,
}

fn exceptions() -> Outcome<Exceptions> {
    let file = root().join("tests/valkey-suite-exceptions.toml");
    let table: toml::Table = fs::read_to_string(&file).map_err(text)?.parse().map_err(text)?;
    let rows = table.get("exception").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    let read = |row: &toml::Value| {
        let field = |name: &str| {
            let value = row.get(name).and_then(toml::Value::as_str).filter(|value| !value.is_empty());
            value
                .map(str::to_string)
                .ok_or_else(|| format!("{}: an exception without {name}", file.display()))
        };
        field("reason")?;
        Ok((field("unit")?, field("test")?))
    };
    let says = |row: &&toml::Value, word: &str| row.get(word).and_then(toml::Value::as_bool) == Some(true);
    Ok(Exceptions {
        rows: rows.iter().map(read).collect::<Outcome<_>>()?,
        skipped: rows.iter().filter(|row| says(row, "skip")).map(read).collect::<Outcome<_>>()?,
        ends: rows.iter().filter(|row| says(row, "ends")).map(read).collect::<Outcome<_>>()?,
    })
}

fn clip(name: &str) -> String {
    name.chars().take(200).collect()
}

fn text(fault: impl std::fmt::Display) -> String {
    fault.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suite_s_output_is_read() {
        let said = "\x1b[32m[ok]: SET and GET (12 ms)\x1b[0m\n[err]: LPOS (in tests) in a.tcl\nnoise [ok]\n[skip]: x\n";
        let result =
            read(&format!("{said}[left out]: y\n\x1b[31m[exception]: Executing test client: boom.\x1b[0m\n"));
        assert_eq!(result.passed, ["SET and GET"]);
        assert_eq!(result.failed, ["LPOS (in tests) in a.tcl", "Executing test client: boom."]);
        assert_eq!(result.skipped, 1);
        assert_eq!(result.left_out, 1);
    }

    #[test]
    fn every_exception_has_its_reason() {
        assert!(exceptions().is_ok());
    }
}
