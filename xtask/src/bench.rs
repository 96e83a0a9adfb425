//! `cargo xtask bench`: our server and the reference side by side.
//!
//! Both are started anew for every round, pinned to a processor of their own, persistence off, and the rounds
//! alternate, so that a drift of the machine's speed meets both. A figure is the median over the rounds; a ratio is
//! the median of the rounds' ratios (ours / theirs). Processor time per request, from `/proc`, is the figure that
//! noise disturbs least.

mod cases;
pub mod load;

use crate::process::{Outcome, output, run_quietly};
use cases::Case;
use kara_tests::replication::{follow, until_linked};
use kara_tests::{Server, peers};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;

const TESTS: &str = "strings,types";

struct Options {
    ours: PathBuf,
    theirs: PathBuf,
    tests: Vec<&'static Case>,
    pipelines: Vec<u64>,
    rounds: usize,
    requests: u64,
    clients: u64,
    keys: u64,
    size: u64,
    threads: u64,
    /// Each server has a replica of its own kind, which shares the clients' processors.
    replica: bool,
    server_cpus: String,
    client_cpus: String,
    json: Option<PathBuf>,
}

/// One measurement.
#[derive(Clone, Copy)]
struct Figures {
    requests_per_s: f64,
    p99_ms: f64,
    cpu_us: f64,
}

/// Measures and prints the table.
pub fn run(arguments: &[String]) -> Outcome {
    crate::peers::run(&[])?;
    let options = parse(arguments)?;
    let cases: Vec<(&Case, u64)> = options
        .pipelines
        .iter()
        .flat_map(|pipeline| options.tests.iter().map(move |case| (*case, *pipeline)))
        .collect();
    let mut rounds: Vec<Vec<(Figures, Figures)>> = vec![Vec::new(); cases.len()];
    for _ in 0..options.rounds {
        let ours = measure_all(&options.ours, &cases, &options)?;
        let theirs = measure_all(&options.theirs, &cases, &options)?;
        for ((case, ours), theirs) in rounds.iter_mut().zip(ours).zip(theirs) {
            case.push((ours, theirs));
        }
    }
    println!(
        "{:<22}{:>4}{:>12}{:>12}{:>8}{:>10}{:>11}{:>8}{:>8}",
        "test", "P", "ours rps", "theirs rps", "rps x", "ours cpu", "theirs cpu", "cpu x", "p99 x"
    );
    let mut rows = serde_json::Map::new();
    let mut ratios = [Vec::new(), Vec::new(), Vec::new()];
    for ((Case { name: test, .. }, pipeline), pairs) in cases.iter().zip(&rounds) {
        let of = |figure: fn(&(Figures, Figures)) -> f64| median(pairs.iter().map(figure).collect());
        let (rps, their_rps) = (of(|p| p.0.requests_per_s), of(|p| p.1.requests_per_s));
        let (cpu, their_cpu) = (of(|p| p.0.cpu_us), of(|p| p.1.cpu_us));
        let rps_ratio = of(|p| p.0.requests_per_s / p.1.requests_per_s);
        let cpu_ratio = of(|p| p.0.cpu_us / p.1.cpu_us);
        let p99_ratio = of(|p| p.0.p99_ms / p.1.p99_ms);
        println!(
            "{test:<22}{pipeline:>4}{rps:>12.0}{their_rps:>12.0}{rps_ratio:>8.2}{cpu:>10.2}{their_cpu:>11.2}\
             {cpu_ratio:>8.2}{p99_ratio:>8.2}"
        );
        rows.insert(
            format!("{test} P{pipeline}"),
            json!({"ours_rps": rps, "theirs_rps": their_rps, "rps_ratio": rps_ratio, "ours_cpu_us": cpu,
                   "theirs_cpu_us": their_cpu, "cpu_ratio": cpu_ratio, "p99_ratio": p99_ratio}),
        );
        for (list, ratio) in ratios.iter_mut().zip([rps_ratio, cpu_ratio, p99_ratio]) {
            list.push(ratio);
        }
    }
    let [rps, cpu, p99] = ratios.map(geometric_mean);
    println!("geometric mean: rps x {rps:.2}, cpu x {cpu:.2}, p99 x {p99:.2}");
    if let Some(file) = options.json {
        std::fs::write(&file, format!("{:#}\n", serde_json::Value::Object(rows)))
            .map_err(|fault| format!("{}: {fault}", file.display()))?;
    }
    Ok(())
}

fn parse(arguments: &[String]) -> Outcome<Options> {
    let mut options = Options {
        ours: PathBuf::new(),
        theirs: reference_with_jemalloc()?,
        tests: cases::find(TESTS)?,
        pipelines: vec![1, 16],
        rounds: 5,
        requests: 150_000,
        clients: 50,
        keys: 1_000_000,
        size: 64,
        threads: 1,
        replica: false,
        server_cpus: "0".into(),
        client_cpus: "1".into(),
        json: None,
    };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if word == "--replica" {
            options.replica = true;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{word} wants a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{word}: {value} is no number"));
        match word.as_str() {
            "--ours" => options.ours = value.into(),
            "--theirs" => options.theirs = value.into(),
            "--tests" => options.tests = cases::find(value)?,
            "--pipeline" => {
                let depths =
                    value.split(',').map(|depth| depth.parse().map_err(|_| format!("{word}: {depth}")));
                options.pipelines = depths.collect::<Outcome<_>>()?;
            }
            "--rounds" => options.rounds = number()? as usize,
            "--requests" => options.requests = number()?,
            "--clients" => options.clients = number()?,
            "--keys" => options.keys = number()?,
            "--size" => options.size = number()?,
            "--io-threads" => options.threads = number()?,
            "--server-cpus" => options.server_cpus = value.clone(),
            "--client-cpus" => options.client_cpus = value.clone(),
            "--json" => options.json = Some(value.into()),
            _ => return Err(format!("unknown option {word}")),
        }
    }
    if options.ours.as_os_str().is_empty() {
        options.ours = crate::build::kara("release")?.join("kara-server");
    }
    Ok(options)
}

/// The reference with the allocator that its own builds have: the one from PyPI comes without.
fn reference_with_jemalloc() -> Outcome<PathBuf> {
    let plain = peers().join("bin/valkey-server-9.1.2");
    let unpacked = peers().join("debian/usr/lib/x86_64-linux-gnu/libjemalloc.so.2");
    let known = [unpacked, "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2".into()];
    let Some(library) = known.iter().find(|file| file.exists()) else {
        eprintln!("no jemalloc found: the reference runs with the C library's allocator");
        return Ok(plain);
    };
    let script = peers().join("bin/valkey-server-9.1.2-jemalloc");
    let text = format!("#!/bin/sh\nLD_PRELOAD='{}' exec '{}' \"$@\"\n", library.display(), plain.display());
    std::fs::write(&script, text).map_err(|fault| format!("{}: {fault}", script.display()))?;
    run_quietly(Command::new("chmod").arg("+x").arg(&script))?;
    Ok(script)
}

fn measure_all(program: &Path, cases: &[(&Case, u64)], options: &Options) -> Outcome<Vec<Figures>> {
    let threads = options.threads.to_string();
    let server = Server::start_program(program, &["--io-threads", &threads]);
    pin(&server, &options.server_cpus)?;
    let replica = options.replica.then(|| Server::start_program(program, &["--io-threads", &threads]));
    if let Some(replica) = &replica {
        pin(replica, &options.client_cpus)?;
        follow(replica, server.port());
        until_linked("the replica", replica);
        // What it started meanwhile.
        pin(&server, &options.server_cpus)?;
        pin(replica, &options.client_cpus)?;
    }
    cases.iter().map(|(case, pipeline)| measure(&server, case, *pipeline, options)).collect()
}

fn pin(server: &Server, cpus: &str) -> Outcome {
    output(Command::new("taskset").args(["-a", "-p", "-c", cpus, &server.pid().to_string()])).map(|_| ())
}

fn measure(server: &Server, case: &Case, pipeline: u64, options: &Options) -> Outcome<Figures> {
    let test = case.name;
    let requests = (options.requests * if pipeline == 1 { 1 } else { 6 } * case.percent / 100).max(1000);
    case.prepare(&mut server.client(), requests, options.size).map_err(|fault| format!("{test}: {fault}"))?;
    let mut command = Command::new("taskset");
    command.args(["-c", &options.client_cpus]);
    if let Some(kind) = case.line.strip_prefix(cases::OWN_LOAD) {
        let own = std::env::current_exe().map_err(|fault| fault.to_string())?;
        command.arg(own).args(["bench-load", kind]);
        let numbers = [u64::from(server.port()), options.clients, pipeline, requests];
        command.args(numbers.iter().chain([&options.keys, &options.size]).map(u64::to_string));
        return timed(server, &mut command, test, requests);
    }
    command.arg(peers().join("bin/redis-benchmark")).arg("--csv");
    for (option, value) in [
        ("-p", u64::from(server.port())),
        ("-c", options.clients),
        ("-P", pipeline),
        ("-n", requests),
        ("-r", case.keys.unwrap_or(options.keys)),
        ("-d", options.size),
    ] {
        command.arg(option).arg(value.to_string());
    }
    command.args(case.line.split(' '));
    timed(server, &mut command, test, requests)
}

/// Runs the load generator and reads its figures.
fn timed(server: &Server, command: &mut Command, test: &str, requests: u64) -> Outcome<Figures> {
    let before = cpu_seconds(server.pid())?;
    let said = output(command)?;
    let spent = cpu_seconds(server.pid())? - before;
    // "test","rps","avg","min","p50","p95","p99","max"; the name may hold commas.
    let last = said
        .lines()
        .rfind(|line| line.starts_with('"'))
        .ok_or_else(|| format!("{test}: no figures: {said}"))?;
    let cells: Vec<f64> =
        last.rsplitn(8, ',').filter_map(|cell| cell.trim_matches('"').parse().ok()).collect();
    let at = |from_end: usize| cells.get(from_end).copied().ok_or_else(|| format!("{test}: {last}"));
    Ok(Figures { requests_per_s: at(6)?, p99_ms: at(1)?, cpu_us: spent * 1e6 / requests as f64 })
}

/// User and system time of a process, at the 100 ticks a second that Linux reports in.
fn cpu_seconds(pid: u32) -> Outcome<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).map_err(|fault| format!("{path}: {fault}"))?;
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    Ok(ticks.sum::<f64>() / 100.0)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn geometric_mean(values: Vec<f64>) -> f64 {
    let values: Vec<f64> = values.into_iter().filter(|value| value.is_finite() && *value > 0.0).collect();
    (values.iter().map(|value| value.ln()).sum::<f64>() / values.len() as f64).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_means() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert!((geometric_mean(vec![0.5, 2.0, f64::NAN]) - 1.0).abs() < 1e-9);
    }
}
