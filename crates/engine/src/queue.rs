//! The commands between MULTI and EXEC, looked up once and kept in one piece of memory.

use crate::registry::Command;
use smallvec::SmallVec;

/// Commands waiting for EXEC, in order.
#[derive(Debug, Default)]
pub struct CommandQueue {
    /// All arguments, one behind the other.
    bytes: Vec<u8>,
    /// Where each argument ends.
    ends: Vec<usize>,
    commands: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    command: Command,
    /// Its first argument's place among `ends`.
    first: usize,
    hash: Option<u64>,
}

/// One of them.
#[derive(Debug)]
pub struct Queued<'q> {
    pub command: Command,
    pub args: SmallVec<[&'q [u8]; 8]>,
    /// Of the key at the command's `single_key`, where it is known already.
    pub hash: Option<u64>,
}

/// What a small transaction takes: nothing grows while it is queued.
const SMALL_BYTES: usize = 512;
const SMALL_COMMANDS: usize = 12;

impl CommandQueue {
    /// Adds a command whose name and number of arguments were checked.
    pub fn push(&mut self, command: Command, args: &[&[u8]], hash: Option<u64>) {
        if self.commands.is_empty() {
            self.commands.reserve(SMALL_COMMANDS);
            self.ends.reserve(3 * SMALL_COMMANDS);
            self.bytes.reserve(SMALL_BYTES);
        }
        self.commands.push(Entry { command, first: self.ends.len(), hash });
        for arg in args {
            self.bytes.extend_from_slice(arg);
            self.ends.push(self.bytes.len());
        }
    }

    /// How many commands there are.
    pub fn len(&self) -> usize {
        self.commands.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// The commands in order.
    pub fn iter(&self) -> impl Iterator<Item = Queued<'_>> {
        let next = self.commands.iter().skip(1).map(|entry| entry.first).chain([self.ends.len()]);
        self.commands.iter().zip(next).map(|(entry, next)| {
            let mut start = entry.first.checked_sub(1).map_or(0, |before| self.ends[before]);
            let args = self.ends[entry.first..next].iter().map(|&end| {
                let arg = &self.bytes[start..end];
                start = end;
                arg
            });
            Queued { command: entry.command, args: args.collect(), hash: entry.hash }
        })
    }

    /// The hashes that are known.
    pub fn hashes(&self) -> impl Iterator<Item = u64> + '_ {
        self.commands.iter().filter_map(|entry| entry.hash)
    }

    /// The commands without their arguments.
    pub fn commands(&self) -> impl Iterator<Item = Command> + '_ {
        self.commands.iter().map(|entry| entry.command)
    }

    /// Bytes held.
    pub fn memory_usage(&self) -> usize {
        self.bytes.capacity()
            + self.ends.capacity() * size_of::<usize>()
            + self.commands.capacity() * size_of::<Entry>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Lookup, Registry};
    use crate::spec::Spec;

    #[test]
    fn commands_come_back_with_their_arguments_in_order() {
        static SPECS: &[Spec] = &[Spec { name: "set", ..Spec::NEW }, Spec { name: "ping", ..Spec::NEW }];
        let registry = Registry::new(&[SPECS], &[]);
        let find = |name: &'static [u8]| match registry.lookup(&[name]) {
            Lookup::Found(command) => command,
            other => panic!("{other:?}"),
        };
        let mut queue = CommandQueue::default();
        let long = vec![b'x'; 3 * SMALL_BYTES];
        queue.push(find(b"ping"), &[b"PING"], None);
        queue.push(find(b"set"), &[b"SET", b"", &long], Some(7));
        queue.push(find(b"ping"), &[b"ping", b"y"], None);
        let got: Vec<_> = queue.iter().collect();
        assert_eq!(got.len(), queue.len());
        assert_eq!(got[0].args.as_slice(), [b"PING"]);
        assert_eq!((got[1].args.as_slice(), got[1].hash), (&[&b"SET"[..], b"", &long][..], Some(7)));
        assert_eq!((got[2].args.as_slice(), got[2].command.full_name), (&[&b"ping"[..], b"y"][..], "ping"));
        assert!(queue.memory_usage() >= long.len());
    }
}
