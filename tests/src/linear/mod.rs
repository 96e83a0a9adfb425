//! Linearizability: several clients run random commands on few keys at once, and a checker looks for an order of their
//! commands that one client alone could have seen. Transactions are one step, WATCH is kept, and clients that wait are
//! served in the order of their arrival at the very step that makes their key ready.
//!
//! The model here knows nothing of the server's code.

pub mod check;
pub mod model;
pub mod record;

pub use check::{Verdict, check};
pub use record::{Fault, Plan, record};

use model::Command;

/// What a client saw as one step, with the time around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    pub step: Step,
    pub outcome: Outcome,
    /// Nanoseconds since the history's begin.
    pub sent_ns: u64,
    pub answered_ns: u64,
}

/// A step of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    One(Command),
    /// MULTI, the commands, EXEC.
    Transaction(Vec<Command>),
    /// EVAL of a script that runs them. `declared` tells whether it names its keys beforehand.
    Script {
        commands: Vec<Command>,
        declared: bool,
    },
    Watch(Vec<u8>),
}

/// What it was answered with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Null,
    Ok,
    Integer(i64),
    Text(u32),
    /// A key's number and a value.
    From(u8, u32),
    Several(Vec<Outcome>),
    Error,
}

/// All steps of all clients, each client's in its order.
pub type History = Vec<Vec<Operation>>;
