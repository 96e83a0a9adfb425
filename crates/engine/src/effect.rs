//! What a command changed, as replicas and the AOF must execute it. Every handler returns one: whoever forgets
//! doesn't compile.

use crate::error::CommandError;
use smallvec::SmallVec;

/// What a handler returns once its reply is written, or the error that is the reply.
pub type Outcome = Result<Effect, CommandError>;

/// The journal's view of a command.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing changed.
    None,
    /// Executing the same arguments again elsewhere arrives at the same state.
    Verbatim,
    /// Other commands do. Empty: changed, but nobody reads the journal now (see [`Effect::rewrite`]).
    Rewrite(SmallVec<[OwnedCommand; 1]>),
}

impl Effect {
    /// `Verbatim` where something changed, else `None`.
    pub fn verbatim_if(changed: bool) -> Self {
        if changed { Effect::Verbatim } else { Effect::None }
    }

    /// The command that `build` gives; it is not called when nobody reads the journal.
    pub fn rewrite(journal_on: bool, build: impl FnOnce() -> OwnedCommand) -> Self {
        let mut commands = SmallVec::new();
        if journal_on {
            commands.push(build());
        }
        Effect::Rewrite(commands)
    }

    /// Several commands, likewise; more than one is journaled inside MULTI/EXEC.
    pub fn rewrite_many(journal_on: bool, build: impl FnOnce() -> SmallVec<[OwnedCommand; 1]>) -> Self {
        Effect::Rewrite(if journal_on { build() } else { SmallVec::new() })
    }

    /// Whether the data changed.
    pub fn changed(&self) -> bool {
        !matches!(self, Effect::None)
    }
}

/// A command with its own copy of its arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedCommand {
    bytes: Vec<u8>,
    ends: SmallVec<[usize; 6]>,
    /// Bits of the journal's readers that don't get it: [`NOT_IN_LOG`], [`NOT_TO_REPLICAS`].
    left_out: u8,
}

/// A script keeps what it does from the append-only file (`redis.set_repl`).
pub const NOT_IN_LOG: u8 = 1;
/// Likewise from replicas.
pub const NOT_TO_REPLICAS: u8 = 2;

impl OwnedCommand {
    /// A command of one word so far.
    pub fn new(name: &str) -> Self {
        OwnedCommand::default().arg(name.as_bytes())
    }

    /// A copy of borrowed arguments.
    pub fn from_args(args: &[&[u8]]) -> Self {
        args.iter().fold(OwnedCommand::default(), |command, arg| command.arg(arg))
    }

    /// For some of the journal's readers only.
    pub fn without(mut self, left_out: u8) -> Self {
        self.left_out = left_out;
        self
    }

    /// Whether all readers get it.
    pub fn is_for_all(&self) -> bool {
        self.left_out == 0
    }

    /// Whether the reader of that bit gets it.
    pub fn is_for(&self, bit: u8) -> bool {
        self.left_out & bit == 0
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: &[u8]) -> Self {
        self.push(arg);
        self
    }

    /// Adds a decimal number.
    pub fn arg_i64(mut self, number: i64) -> Self {
        self.push(itoa::Buffer::new().format(number).as_bytes());
        self
    }

    /// Adds an argument in place.
    pub fn push(&mut self, arg: &[u8]) {
        self.bytes.extend_from_slice(arg);
        self.ends.push(self.bytes.len());
    }

    /// The arguments.
    pub fn args(&self) -> SmallVec<[&[u8]; 8]> {
        let mut start = 0;
        self.ends
            .iter()
            .map(|&end| {
                let arg = &self.bytes[start..end];
                start = end;
                arg
            })
            .collect()
    }

    /// The number of arguments.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no argument yet.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes held.
    pub fn memory_usage(&self) -> usize {
        self.bytes.capacity() + self.ends.len() * size_of::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owned_commands_keep_their_arguments() {
        let command = OwnedCommand::new("SREM").arg(b"k").arg(b"").arg_i64(-12);
        assert_eq!(command.args().as_slice(), [&b"SREM"[..], b"k", b"", b"-12"]);
        assert_eq!(OwnedCommand::from_args(&command.args()), command);
    }

    #[test]
    fn no_reader_no_copy_but_still_a_change() {
        let effect = Effect::rewrite(false, || unreachable!("nobody reads"));
        assert!(effect.changed());
    }
}
