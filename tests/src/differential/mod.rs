//! The differential runner: random commands, the same to this server and to a reference, every reply compared,
//! and the whole dataset by DEBUG DIGEST after every round.
//!
//! What is sent stands in `families/*.txt`, one template a line (the syntax: [`template`]). A seed replays a run.

mod compare;
mod events;
mod runner;
mod template;
mod values;

pub use events::{EventOptions, EventOutcome, run_events};
pub use runner::{Options, Outcome, run};
pub use template::{FAMILIES, Family};
