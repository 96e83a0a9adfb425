//! All commands by name and by number. Built once at start; a lookup is one hash and usually one comparison.

use crate::spec::{Flags, Spec};
use std::collections::HashMap;

/// A command's number: its place in the registry; the index of its statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommandId(pub u16);

/// A command as the pipeline sees it.
#[derive(Clone, Copy)]
pub struct Command {
    pub id: CommandId,
    pub spec: &'static Spec,
    /// The container's number, for subcommands.
    pub parent: Option<CommandId>,
    /// `container|sub` or the plain name, lower case.
    pub full_name: &'static str,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.full_name)
    }
}

impl Command {
    /// Whether the flags hold.
    #[inline]
    pub fn is(&self, flags: Flags) -> bool {
        self.spec.flags.contains(flags)
    }
}

/// What a name leads to.
#[derive(Clone, Copy, Debug)]
pub enum Lookup {
    Found(Command),
    UnknownCommand,
    /// The container exists, the subcommand doesn't.
    UnknownSubcommand(Command),
}

/// Names longer than this can't be a command's (a `rename-command` may exceed it no more than this either).
const MAX_NAME: usize = 64;

/// The table of commands.
pub struct Registry {
    commands: Vec<Command>,
    /// Open addressing over lower-case top-level names: (name's hash, command).
    slots: Box<[Option<(u32, CommandId)>]>,
    names: Vec<Box<[u8]>>,
    children: HashMap<(CommandId, Vec<u8>), CommandId>,
}

fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |h, &b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

/// Lower-cases into a fixed buffer; `None` where the name is too long to be one.
#[inline]
fn lower<'b>(name: &[u8], buffer: &'b mut [u8; MAX_NAME]) -> Option<&'b [u8]> {
    let out = buffer.get_mut(..name.len())?;
    for (to, from) in out.iter_mut().zip(name) {
        *to = from.to_ascii_lowercase();
    }
    Some(out)
}

impl Registry {
    /// The registry of the given command slices, with `rename-command` pairs applied (an empty new name removes).
    pub fn new(families: &[&'static [Spec]], renames: &[(String, String)]) -> Self {
        let mut commands = Vec::new();
        let mut children = HashMap::new();
        let mut top = Vec::new();
        for spec in families.iter().flat_map(|family| family.iter()) {
            let id = CommandId(commands.len() as u16);
            commands.push(Command { id, spec, parent: None, full_name: spec.name });
            top.push((spec.name.as_bytes().to_vec(), id));
            for sub in spec.subcommands {
                let sub_id = CommandId(commands.len() as u16);
                // Lives as long as the process: there is one registry, built at start.
                let full_name: &'static str =
                    Box::leak(format!("{}|{}", spec.name, sub.name).into_boxed_str());
                commands.push(Command { id: sub_id, spec: sub, parent: Some(id), full_name });
                children.insert((id, sub.name.as_bytes().to_vec()), sub_id);
            }
        }
        for (old, new) in renames {
            let old = old.to_ascii_lowercase().into_bytes();
            let Some(at) = top.iter().position(|(name, _)| *name == old) else { continue };
            let (_, id) = top.remove(at);
            if !new.is_empty() {
                top.push((new.to_ascii_lowercase().into_bytes(), id));
            }
        }
        let size = (top.len() * 4).next_power_of_two();
        let mut slots = vec![None; size].into_boxed_slice();
        let mut names = vec![Box::from(&b""[..]); commands.len()];
        for (name, id) in top {
            let hash = fnv(&name);
            let mut at = hash as usize & (size - 1);
            while slots[at].is_some() {
                at = (at + 1) & (size - 1);
            }
            slots[at] = Some((hash, id));
            names[id.0 as usize] = name.into_boxed_slice();
        }
        Registry { commands, slots, names, children }
    }

    /// The command that the arguments name; containers are resolved to their subcommand.
    #[inline]
    pub fn lookup(&self, args: &[&[u8]]) -> Lookup {
        let Some(name) = args.first() else { return Lookup::UnknownCommand };
        let Some(command) = self.by_name(name) else { return Lookup::UnknownCommand };
        if command.spec.subcommands.is_empty() {
            return Lookup::Found(command);
        }
        let Some(sub) = args.get(1) else { return Lookup::Found(command) };
        match self.subcommand(command.id, sub) {
            Some(found) => Lookup::Found(found),
            None => Lookup::UnknownSubcommand(command),
        }
    }

    /// A top-level command by any-case name.
    #[inline]
    pub fn by_name(&self, name: &[u8]) -> Option<Command> {
        let mut buffer = [0; MAX_NAME];
        let name = lower(name, &mut buffer)?;
        let hash = fnv(name);
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while let Some((h, id)) = self.slots[at] {
            if h == hash && *self.names[id.0 as usize] == *name {
                return Some(self.commands[id.0 as usize]);
            }
            at = (at + 1) & mask;
        }
        None
    }

    /// A container's subcommand by any-case name.
    pub fn subcommand(&self, container: CommandId, name: &[u8]) -> Option<Command> {
        let id = self.children.get(&(container, name.to_ascii_lowercase()))?;
        Some(self.commands[id.0 as usize])
    }

    /// `name` or `container|sub`, as COMMAND INFO and ACLs write it.
    pub fn by_full_name(&self, name: &[u8]) -> Option<Command> {
        match name.iter().position(|&b| b == b'|') {
            None => self.by_name(name),
            Some(bar) => self.subcommand(self.by_name(&name[..bar])?.id, &name[bar + 1..]),
        }
    }

    /// Every command and subcommand, by number.
    pub fn all(&self) -> &[Command] {
        &self.commands
    }

    /// The top-level commands that a client can name.
    pub fn top_level(&self) -> impl Iterator<Item = Command> + '_ {
        self.slots.iter().flatten().map(|(_, id)| self.commands[id.0 as usize])
    }

    /// The command of a number.
    pub fn get(&self, id: CommandId) -> Command {
        self.commands[id.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static SPECS: &[Spec] = &[
        Spec { name: "get", ..Spec::NEW },
        Spec { name: "config", subcommands: &[Spec { name: "get", ..Spec::NEW }], ..Spec::NEW },
    ];

    fn found(registry: &Registry, args: &[&[u8]]) -> Option<&'static str> {
        match registry.lookup(args) {
            Lookup::Found(command) => Some(command.full_name),
            _ => None,
        }
    }

    #[test]
    fn names_are_found_in_any_case() {
        let registry = Registry::new(&[SPECS], &[]);
        assert_eq!(found(&registry, &[b"GeT"]), Some("get"));
        assert_eq!(found(&registry, &[b"CONFIG", b"GET"]), Some("config|get"));
        assert!(matches!(registry.lookup(&[b"config", b"nope"]), Lookup::UnknownSubcommand(_)));
        assert_eq!(found(&registry, &[&[b'x'; 500]]), None);
        assert_eq!(registry.by_full_name(b"config|get").map(|c| c.full_name), Some("config|get"));
    }

    #[test]
    fn renamed_commands_answer_to_the_new_name_only() {
        let renames = [("GET".to_string(), "fetch".to_string()), ("config".to_string(), String::new())];
        let registry = Registry::new(&[SPECS], &renames);
        assert_eq!(found(&registry, &[b"get"]), None);
        assert_eq!(found(&registry, &[b"FETCH"]), Some("get"));
        assert_eq!(found(&registry, &[b"config", b"get"]), None);
    }
}
