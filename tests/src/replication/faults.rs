//! Random faults of links, in a chain of three servers under load.

use super::{Can, Cut, Load, Product, Proxy, fill, follow, number, until_equal, until_linked};
use kara_base::rng::Rng;
use std::time::Duration;

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub faults: u32,
    /// Full syncs of the first replica beyond those that were forced.
    pub full: u64,
    pub partial: u64,
    pub forced: u64,
    pub written: u64,
}

/// Breaks the links of a chain so often, in every way, during full and partial syncs; compares the data every so often.
///
/// # Panics
/// Where data differ, a link doesn't come back, or a gap that the log holds needs a full sync.
pub fn run(count: u32, seed: u64, arguments: &[&str]) -> Faults {
    let can = Can { field_ttl: true };
    let timeout = [arguments, &["--repl-timeout", "2", "--repl-ping-replica-period", "1"]].concat();
    let primary = Product::Kara.start(&timeout);
    let middle = Product::Kara.start(&timeout);
    let last = Product::Kara.start(&timeout);
    let (first_link, second_link) = (Proxy::to(primary.port()), Proxy::to(middle.port()));
    let (mut p, mut m, mut l) = (primary.client(), middle.client(), last.client());
    fill(&mut p, can);
    follow(&middle, first_link.port());
    follow(&last, second_link.port());
    until_linked("middle", &middle);
    until_linked("last", &last);
    let mut rng = Rng::new(seed);
    let mut report = Faults { faults: count, ..Faults::default() };
    let full_before = number(&mut p, "stats", "sync_full");
    let mut round = 0;
    while round < count {
        let batch = 10.min(count - round);
        let load = Load::start(primary.port(), 1, can, seed + u64::from(round));
        for _ in 0..batch {
            let link = if rng.next_u64().is_multiple_of(3) { &second_link } else { &first_link };
            let how = Cut::ALL[(rng.next_u64() % 4) as usize];
            if rng.next_u64().is_multiple_of(8) {
                // A full sync is under way when it happens.
                report.forced += 1;
                m.run("DEBUG CHANGE-REPL-ID");
                link.cut_after(1 + rng.next_u64() % 200_000);
            }
            link.cut(how);
            std::thread::sleep(Duration::from_millis(20 + rng.next_u64() % 150));
            link.cut(Cut::None);
            std::thread::sleep(Duration::from_millis(rng.next_u64() % 300));
        }
        report.written += load.stop();
        until_linked(&format!("seed {seed}, round {round}, middle"), &middle);
        until_linked(&format!("seed {seed}, round {round}, last"), &last);
        until_equal(&format!("seed {seed}, round {round}, middle"), &mut p, &mut m);
        until_equal(&format!("seed {seed}, round {round}, last"), &mut m, &mut l);
        round += batch;
    }
    report.partial = number(&mut p, "stats", "sync_partial_ok");
    report.full = number(&mut p, "stats", "sync_full") - full_before;
    report
}
