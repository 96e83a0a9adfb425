//! A sample of what `cargo xtask differential` runs for hours.

use kara_tests::differential::{Options, run};
use std::time::Duration;

/// The seed follows the day, so that CI walks on; a finding's report names its own.
#[test]
fn replies_are_the_reference_s() {
    let days = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs() / 86_400);
    let options = Options {
        time_limit: Some(Duration::from_secs(20)),
        commands: u64::MAX,
        seed: days,
        round: 400,
        ..Options::default()
    };
    let outcome = run(&options).unwrap();
    assert!(outcome.commands > 1000, "only {} commands ran", outcome.commands);
    assert!(
        outcome.findings.is_empty(),
        "{}",
        outcome.findings.into_values().collect::<Vec<_>>().join("\n\n")
    );
}
