//! Commands about files and payloads.

mod dump;
mod save;

use super::prelude::*;

/// The family's commands.
pub const COMMANDS: &[Spec] =
    &[dump::DUMP, dump::RESTORE, dump::RESTORE_ASKING, save::BGREWRITEAOF, save::BGSAVE, save::SAVE];
