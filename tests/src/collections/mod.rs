//! Large collections on a running server: what they cost per element, and how long the server is busy while one
//! goes.

mod footprint;
mod stall;

pub use footprint::{FOOTPRINTS, Footprint, footprint};
pub use stall::{Ending, KINDS, stall};

use crate::client::Client;
use std::time::Duration;

/// Commands in one write.
const BATCH: u64 = 1_000;
/// Filling may wait for a machine that does other things: what is measured comes behind it.
const FILLING_TIMEOUT: Duration = Duration::from_secs(300);

/// Sends `count` commands, made from their numbers, and waits until all are answered.
///
/// # Panics
/// Where the connection breaks or a reply is an error.
fn send_all(client: &mut Client, count: u64, make: impl Fn(u64) -> Vec<Vec<u8>>) {
    client.set_timeout(FILLING_TIMEOUT).unwrap_or_else(|fault| panic!("a timeout: {fault}"));
    let mut from = 0;
    while from < count {
        let to = (from + BATCH).min(count);
        let requests: Vec<_> = (from..to).map(&make).collect();
        let replies = client.send(&requests).and_then(|()| client.read_many(requests.len()));
        let replies = replies.unwrap_or_else(|fault| panic!("filling: {fault}"));
        if let Some(error) = replies.iter().find(|reply| reply.is_error()) {
            panic!("filling: {error:?}");
        }
        from = to;
    }
}

/// A request from words.
fn words(words: &[&[u8]]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.to_vec()).collect()
}

/// Scatters numbers, so that neighbours don't come one after the other.
fn scatter(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16
}
