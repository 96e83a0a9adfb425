//! Scripts and functions: EVAL, EVALSHA, FCALL, their read-only forms, SCRIPT and FUNCTION.

mod eval;
mod function;
mod script;

use crate::spec::Spec;

pub(crate) use eval::{flags_of, stated_flags};

/// The family's commands.
pub const COMMANDS: &[Spec] = &[
    eval::EVAL,
    eval::EVAL_RO,
    eval::EVALSHA,
    eval::EVALSHA_RO,
    eval::FCALL,
    eval::FCALL_RO,
    function::FUNCTION,
    script::SCRIPT,
];
