//! A sample of what `cargo xtask differential` runs for hours: the same commands in every run, so that a change that
//! breaks something shows here and nothing else does.

use kara_tests::differential::{Options, run};

/// The families whose long runs show no difference.
const FAMILIES: &[&str] = &[
    "bitmap",
    "generic",
    "geo",
    "hash",
    "hyperloglog",
    "list",
    "set",
    "sort",
    "stream",
    "string",
    "transaction",
    "zset",
];

/// Differences that are meant, by a part of the report: they stand in the README's gaps.
const KNOWN: &[&str] = &[
    // Deliberate: the reference truncates the index to 32 bits.
    "LSET: -ERR index out of range instead of +OK",
];

#[test]
fn replies_are_the_reference_s() {
    let options = Options {
        families: FAMILIES.iter().map(|family| (*family).to_string()).collect(),
        time_limit: None,
        commands: 80_000,
        seed: 7,
        round: 400,
        max_findings: 50,
        ..Options::default()
    };
    let outcome = run(&options).unwrap();
    assert!(outcome.commands > 50_000, "only {} commands ran", outcome.commands);
    let new =
        outcome.findings.into_values().filter(|report| !KNOWN.iter().any(|known| report.contains(known)));
    let new: Vec<String> = new.collect();
    assert!(new.is_empty(), "{}", new.join("\n\n"));
}
