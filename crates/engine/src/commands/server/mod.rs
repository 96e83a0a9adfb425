//! The server about itself: COMMAND, INFO, the logs of slow and large commands, latency, memory, time, shutdown.

mod command;
mod docs;
mod history;
mod info;
mod latency;
mod logs;
mod lolwut;
mod memory;
mod memory_use;
mod module;
mod monitor;
mod small;

use super::prelude::*;
pub(crate) use info::{View, percentile_ns, text as info_text};
pub(crate) use module::describe_scripts;

/// The family's commands.
pub const COMMANDS: &[Spec] = &[
    command::COMMAND,
    logs::COMMANDLOG,
    info::INFO,
    small::LASTSAVE,
    latency::LATENCY,
    lolwut::LOLWUT,
    memory::MEMORY,
    module::MODULE,
    monitor::MONITOR,
    small::SHUTDOWN,
    logs::SLOWLOG,
    small::TIME,
];
