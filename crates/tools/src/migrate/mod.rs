//! `kara-cli migrate`: keys from one running server to another, whoever made them, as long as they speak SCAN and DUMP.
//! Where the target refuses the payloads (its version is older), values go by the commands of their type.

mod content;
mod copy;
mod meter;
mod options;
mod state;
mod verify;

use crate::cli::link::{Family, Link, plain_text};
use crate::cli::options::Target;
use crate::cli::usage::MIGRATE_USAGE;
use copy::{Counts, Ends};
use kara_resp::Value;
use meter::Meter;
use options::{MigrateOptions, Verify};
use state::StateFile;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use std::time::Duration;
use verify::Verdict;

/// A server that is silent for that long is gone.
const SILENCE: Duration = Duration::from_secs(60);

/// The program.
pub fn main(args: &[Vec<u8>]) -> ExitCode {
    if args.iter().any(|word| word == b"--help" || word == b"-h") {
        print!("{MIGRATE_USAGE}");
        return ExitCode::SUCCESS;
    }
    let variable = |name: &str| std::env::var_os(name).map(OsStringExt::into_vec);
    let options = match MigrateOptions::parse(args, variable) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}\nkara-cli migrate --help says more.");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// True where every key is there and equal.
fn run(options: &MigrateOptions) -> Result<bool, String> {
    let mut ends = Ends {
        from: open(&options.from, "source")?,
        to: open(&options.to, "target")?,
        absolute: true,
        payloads: true,
    };
    ends.absolute = knows_points_in_time(&mut ends)?;
    let databases = match &options.databases {
        Some(chosen) => chosen.iter().map(|db| (*db, None)).collect(),
        None => databases_with_keys(&mut ends.from)?,
    };
    let total = databases.iter().filter_map(|(_, keys)| *keys).sum();
    let numbers: Vec<u32> = databases.iter().map(|(db, _)| *db).collect();
    let mut good = true;
    if options.verify != Verify::Only {
        good = copy_all(&mut ends, &numbers, total, options)?;
        if options.functions && options.pattern.is_none() && options.databases.is_none() {
            good &= copy_functions(&mut ends, options.replace)?;
        }
    }
    if options.verify != Verify::No {
        good &= verify_all(&mut ends, &numbers, total, options)?;
    }
    Ok(good)
}

fn copy_all(
    ends: &mut Ends,
    databases: &[u32],
    total: u64,
    options: &MigrateOptions,
) -> Result<bool, String> {
    let run = info_field(&mut ends.from, "server", "run_id")?;
    let mut state = StateFile::open(options.state.as_deref(), &options.job(), &run)?;
    if state.resumed {
        println!("Going on where an earlier run stopped.");
    }
    let mut meter = Meter::new("copying", total, options.quiet);
    let mut counts = Counts::default();
    for db in databases.iter().filter(|db| !state.progress.done.contains(db)).copied().collect::<Vec<_>>() {
        select(ends, db)?;
        let outcome = copy::database(ends, db, options, &mut state, &mut meter, &mut counts);
        if outcome.is_err() {
            state.save()?;
        }
        outcome?;
    }
    meter.finish();
    let Counts { copied, kept, gone, failed } = counts;
    println!(
        "Copied {copied} keys in {:.1} s; {kept} were there already, {gone} expired or went meanwhile, {failed} failed.",
        meter.seconds()
    );
    Ok(failed == 0)
}

fn verify_all(
    ends: &mut Ends,
    databases: &[u32],
    total: u64,
    options: &MigrateOptions,
) -> Result<bool, String> {
    let mut meter = Meter::new("comparing", total, options.quiet);
    let mut verdict = Verdict::default();
    for db in databases {
        select(ends, *db)?;
        verify::database(ends, options, &mut meter, &mut verdict)?;
    }
    meter.finish();
    let Verdict { equal, missing, different, gone } = verdict;
    println!(
        "Compared: {equal} equal, {missing} missing, {different} different, {gone} expired or gone meanwhile ({:.1} s).",
        meter.seconds()
    );
    Ok(missing == 0 && different == 0)
}

fn open(target: &Target, end: &str) -> Result<Link, String> {
    let broken = |why: String| format!("{end}: {why}");
    let mut link = Link::open(target, Some(Duration::from_secs(10)), Family::Any)
        .map_err(|fault| broken(plain_text(&fault)))?;
    link.set_read_timeout(Some(SILENCE)).map_err(|fault| broken(plain_text(&fault)))?;
    if let Some(password) = &target.password {
        let reply = match &target.user {
            Some(user) => link.ask(&[b"AUTH", user.as_slice(), password]),
            None => link.ask(&[b"AUTH", password.as_slice()]),
        };
        refused(reply.map_err(|fault| broken(fault.to_string()))?)
            .map_err(|why| broken(format!("AUTH: {why}")))?;
    }
    let reply = link.ask(&["PING"]).map_err(|fault| broken(fault.to_string()))?;
    refused(reply).map_err(broken)?;
    Ok(link)
}

fn refused(reply: Value) -> Result<Value, String> {
    match reply {
        Value::Error(text) => Err(String::from_utf8_lossy(&text).into_owned()),
        other => Ok(other),
    }
}

fn select(ends: &mut Ends, db: u32) -> Result<(), String> {
    for (link, end) in [(&mut ends.from, "source"), (&mut ends.to, "target")] {
        let reply = link.ask(&["SELECT", &db.to_string()]).map_err(|fault| format!("{end}: {fault}"))?;
        refused(reply).map_err(|why| format!("{end}: SELECT {db}: {why}"))?;
    }
    Ok(())
}

/// PEXPIRETIME on both sides: since Redis 7.0. Else times to live go as durations.
fn knows_points_in_time(ends: &mut Ends) -> Result<bool, String> {
    let mut known = true;
    for (link, end) in [(&mut ends.from, "source"), (&mut ends.to, "target")] {
        let reply = link.ask(&["PEXPIRETIME", ""]).map_err(|fault| format!("{end}: {fault}"))?;
        known &= reply.as_error().is_none();
    }
    Ok(known)
}

/// `name:value` in a section of INFO; empty where there is none.
fn info_field(link: &mut Link, section: &str, name: &str) -> Result<String, String> {
    let info = link.ask(&["INFO", section]).map_err(|fault| format!("source: {fault}"))?;
    let info = String::from_utf8_lossy(info.as_bytes().unwrap_or_default()).into_owned();
    let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::to_string));
    Ok(value.unwrap_or_default().trim().to_string())
}

/// From INFO's `db0:keys=12,...`; a server that doesn't say is asked for database 0.
fn databases_with_keys(link: &mut Link) -> Result<Vec<(u32, Option<u64>)>, String> {
    let info = link.ask(&["INFO", "keyspace"]).map_err(|fault| format!("source: {fault}"))?;
    let text = match &info {
        Value::Error(_) => return Ok(vec![(0, None)]),
        other => String::from_utf8_lossy(other.as_bytes().unwrap_or_default()).into_owned(),
    };
    let found = text.lines().filter_map(|line| {
        let (db, rest) = line.strip_prefix("db")?.split_once(":keys=")?;
        let keys = rest.split(',').next()?.trim().parse().ok()?;
        Some((db.parse().ok()?, Some(keys)))
    });
    Ok(found.collect())
}

/// Libraries of functions, by their code. A source without them is no fault.
fn copy_functions(ends: &mut Ends, replace: bool) -> Result<bool, String> {
    let list =
        ends.from.ask(&["FUNCTION", "LIST", "WITHCODE"]).map_err(|fault| format!("source: {fault}"))?;
    let mut good = true;
    for library in list.as_elements().unwrap_or_default() {
        let items = library.as_elements().unwrap_or_default();
        let code = items.chunks_exact(2).find_map(|pair| {
            let is_code = pair.first()?.as_bytes() == Some(b"library_code");
            is_code.then(|| pair.get(1)?.as_bytes()).flatten()
        });
        let Some(code) = code else { continue };
        let line: &[&[u8]] =
            if replace { &[b"FUNCTION", b"LOAD", b"REPLACE", code] } else { &[b"FUNCTION", b"LOAD", code] };
        let reply = ends.to.ask(line).map_err(|fault| format!("target: {fault}"))?;
        if let Value::Error(text) = reply {
            let text = String::from_utf8_lossy(&text).into_owned();
            if !text.contains("already exists") {
                eprintln!("a library of functions: {text}");
                good = false;
            }
        }
    }
    Ok(good)
}
