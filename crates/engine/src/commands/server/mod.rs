//! The server about itself: COMMAND, INFO, the logs of slow and large commands, latency, memory, time, shutdown.

mod command;
mod docs;
mod info;
mod lolwut;
mod memory_use;
mod small;

use super::prelude::*;

/// The family's commands.
pub const COMMANDS: &[Spec] = &[
    command::COMMAND,
    info::INFO,
    small::LASTSAVE,
    lolwut::LOLWUT,
    small::ROLE,
    small::SHUTDOWN,
    small::TIME,
];
