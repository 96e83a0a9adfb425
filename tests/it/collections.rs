//! Large collections: what they cost and whom their end keeps waiting. `cargo xtask collections` measures full sizes.

use kara_tests::Server;
use kara_tests::collections::{Ending, FOOTPRINTS, KINDS, footprint, stall};
use std::time::Duration;

/// Small enough for a build without optimizations.
const ELEMENTS: u64 = 60_000;
/// Processor time of one serving thread.
const MOST: Duration = Duration::from_millis(2);

#[test]
fn an_element_costs_no_more_than_it_may() {
    let server = Server::start(&[]);
    for what in FOOTPRINTS {
        let bytes = footprint(&server, what, ELEMENTS);
        // Tables grow in steps: at this size they may be emptier than at the full one.
        assert!(bytes <= what.limit * 1.12, "{}: {bytes:.1} bytes, at most {}", what.name, what.limit);
    }
}

#[test]
fn the_end_of_a_collection_is_not_freed_by_threads_that_serve() {
    // Long enough that freeing it in place would show: 60,000 allocations take 3 ms and more.
    let server = Server::start(&["--enable-debug-command", "yes"]);
    for (kind, ending) in KINDS.iter().zip(Ending::ALL) {
        // On a busy machine a thread's own regular work differs by more than that between two windows, once in a while.
        let mut tries = (0..3).map(|_| stall(&server, kind, ELEMENTS, ending)).peekable();
        let mut worst = Vec::new();
        while let Some(busy) = tries.next_if(|busy| *busy >= MOST) {
            worst.push(busy);
        }
        assert!(worst.len() < 3, "{kind}, {ending:?}: {worst:?}");
    }
}
