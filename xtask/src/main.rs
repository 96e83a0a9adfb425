//! One command each for checks, tests, benches and reference peers.
fn main() {}
