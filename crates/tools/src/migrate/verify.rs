//! Whether what was copied is there and equal: by digests where both servers give them, else by payload or by
//! content. Expiry is compared too.

use super::content::{self, Trouble, words};
use super::copy::Ends;
use super::meter::Meter;
use super::options::MigrateOptions;
use kara_resp::Value;

/// How far two clocks, or a duration on its way, may be apart.
const TOLERANCE_MS: i64 = 2_000;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub equal: u64,
    pub missing: u64,
    pub different: u64,
    /// Gone from the source since it was scanned.
    pub gone: u64,
}

/// Compares every key of a database.
pub fn database(
    ends: &mut Ends,
    options: &MigrateOptions,
    meter: &mut Meter,
    verdict: &mut Verdict,
) -> Result<(), String> {
    let mut digests = true;
    let mut cursor = "0".to_string();
    loop {
        let (next, keys) = ends.scan(&cursor, options)?;
        for part in keys.chunks(options.batch()) {
            batch(ends, part, &mut digests, verdict)?;
            meter.add(part.len(), 0);
            meter.hold(options.rate);
        }
        if next == "0" {
            return Ok(());
        }
        cursor = next;
    }
}

fn batch(ends: &mut Ends, keys: &[Vec<u8>], digests: &mut bool, verdict: &mut Verdict) -> Result<(), String> {
    if keys.is_empty() {
        return Ok(());
    }
    let expiry: &[u8] = if ends.absolute { b"PEXPIRETIME" } else { b"PTTL" };
    let lines: Vec<_> = keys.iter().map(|key| words(&[expiry, key])).collect();
    let source = ends.from.pipeline(&lines).map_err(|fault| format!("source: {fault}"))?;
    let target = ends.to.pipeline(&lines).map_err(|fault| format!("target: {fault}"))?;
    let equal = same_digests(ends, keys, digests)?;
    for (at, key) in keys.iter().enumerate() {
        let time = |replies: &[Value]| replies.get(at).and_then(Value::as_integer).unwrap_or(-2);
        let (here, there) = (time(&source), time(&target));
        if here == -2 {
            verdict.gone += 1;
        } else if there == -2 {
            report(verdict, key, "missing", ends)?;
        } else if (here < 0) != (there < 0) || (here - there).abs() > TOLERANCE_MS {
            report(verdict, key, "another time to live", ends)?;
        } else if equal.get(at) == Some(&true) || same_value(ends, key)? {
            verdict.equal += 1;
        } else {
            report(verdict, key, "another value", ends)?;
        }
    }
    Ok(())
}

/// A key that the source doesn't have any more is no fault.
fn report(verdict: &mut Verdict, key: &[u8], what: &str, ends: &mut Ends) -> Result<(), String> {
    let there = ends.from.ask(&[&b"EXISTS"[..], key]).map_err(|fault| format!("source: {fault}"))?;
    if there.as_integer() == Some(0) {
        verdict.gone += 1;
        return Ok(());
    }
    eprintln!("{}: {what}", kara_base::text::quoted(key));
    if what == "missing" {
        verdict.missing += 1;
    } else {
        verdict.different += 1;
    }
    Ok(())
}

/// One answer per key, of two commands for all; `false` proves nothing: servers of other versions digest otherwise.
fn same_digests(ends: &mut Ends, keys: &[Vec<u8>], usable: &mut bool) -> Result<Vec<bool>, String> {
    if !*usable {
        return Ok(Vec::new());
    }
    let line = [words(&[b"DEBUG", b"DIGEST-VALUE"]), keys.to_vec()].concat();
    let source = ends.from.ask(&line).map_err(|fault| format!("source: {fault}"))?;
    let target = ends.to.ask(&line).map_err(|fault| format!("target: {fault}"))?;
    let (Value::Array(source), Value::Array(target)) = (source, target) else {
        *usable = false;
        return Ok(Vec::new());
    };
    Ok(source.iter().zip(&target).map(|(here, there)| here == there).collect())
}

fn same_value(ends: &mut Ends, key: &[u8]) -> Result<bool, String> {
    if ends.payloads {
        let line = [&b"DUMP"[..], key];
        let here = ends.from.ask(&line).map_err(|fault| format!("source: {fault}"))?;
        let there = ends.to.ask(&line).map_err(|fault| format!("target: {fault}"))?;
        if matches!(here, Value::Bulk(_)) && here == there {
            return Ok(true);
        }
    }
    let read = |result, end: &str| match result {
        Ok(content) => Ok(content),
        Err(Trouble::Link(fault)) => Err(format!("{end}: {fault}")),
        Err(Trouble::Key(why)) => {
            eprintln!("{}: {end}: {why}", kara_base::text::quoted(key));
            Ok(None)
        }
    };
    let here = read(content::read(&mut ends.from, key), "source")?;
    let there = read(content::read(&mut ends.to, key), "target")?;
    Ok(here.is_some() && here == there)
}
