//! All commands by name and by number. Built once at start; a lookup is one hash and usually one comparison.

use crate::spec::{Begin, Find, Flags, KeyFlags, Spec};
use std::collections::HashMap;
use std::ops::Deref;

/// A command's number: its place in the registry; the index of its statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommandId(pub u16);

/// A command as the pipeline sees it: a reference to what the registry holds.
#[derive(Clone, Copy)]
pub struct Command(&'static CommandInfo);

impl Deref for Command {
    type Target = CommandInfo;

    #[inline]
    fn deref(&self) -> &CommandInfo {
        self.0
    }
}

/// What is known of a command.
pub struct CommandInfo {
    pub id: CommandId,
    pub spec: &'static Spec,
    /// The container's number, for subcommands.
    pub parent: Option<CommandId>,
    /// `container|sub` or the plain name, lower case.
    pub full_name: &'static str,
    /// What the pipeline itself must know of it.
    pub role: Role,
    /// Where the key stands, for commands that have exactly one at a fixed place: nearly all. 0 for others.
    pub single_key: u8,
}

/// Commands that the pipeline treats in ways of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Plain,
    Exec,
    Touch,
    /// DEBUG, or a part of it.
    Debug,
    /// MODULE, or a part of it.
    Module,
    /// EVAL, FCALL and their relatives: the number of keys is the second argument.
    Script,
}

impl Role {
    fn of(top_level: &str) -> Role {
        match top_level {
            "exec" => Role::Exec,
            "touch" => Role::Touch,
            "debug" => Role::Debug,
            "module" => Role::Module,
            "eval" | "eval_ro" | "evalsha" | "evalsha_ro" | "fcall" | "fcall_ro" => Role::Script,
            _ => Role::Plain,
        }
    }
}

fn single_key(spec: &Spec) -> u8 {
    match spec.key_specs {
        [one]
            if spec.get_keys.is_none()
                && !one.flags.contains(KeyFlags::NOT_KEY)
                && matches!(one.find, Find::Range { last: 0, .. }) =>
        {
            match one.begin {
                Begin::Index(at) => u8::try_from(at).unwrap_or(0),
                _ => 0,
            }
        }
        _ => 0,
    }
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.full_name)
    }
}

impl Command {
    /// Lives as long as the process: there is one registry, built at start.
    fn leaked(
        id: CommandId,
        spec: &'static Spec,
        parent: Option<CommandId>,
        full_name: &'static str,
        role: Role,
    ) -> Command {
        let single_key = single_key(spec);
        Command(Box::leak(Box::new(CommandInfo { id, spec, parent, full_name, role, single_key })))
    }

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
/// Names up to this long are compared as one number.
const SHORT_NAME: usize = 16;

/// The table of commands.
pub struct Registry {
    commands: Vec<Command>,
    /// Open addressing over lower-case top-level names of at most 16 bytes: (the name as a number, command).
    slots: Box<[(u128, CommandId)]>,
    /// The longer names.
    long_names: HashMap<Box<[u8]>, CommandId>,
    children: HashMap<(CommandId, Vec<u8>), CommandId>,
}

/// The name's bytes in lower case as a number, the first lowest; 0 is nobody's. `None` where it is too long for that.
#[inline]
fn short_name(name: &[u8]) -> Option<u128> {
    // Two overlapping reads instead of a loop or a call: names are short, and there is one per request.
    let word = match name.len() {
        // A zero byte at the end would not show in the number, and no name has one.
        len if len == 0 || name[len - 1] == 0 => 0,
        len @ 1..=3 => {
            u128::from(name[0])
                | u128::from(name[len / 2]) << (len / 2 * 8)
                | u128::from(name[len - 1]) << (len * 8 - 8)
        }
        len @ 4..=8 => u128::from(u32_at(name, 0)) | u128::from(u32_at(name, len - 4)) << (len * 8 - 32),
        len @ 9..=SHORT_NAME => {
            u128::from(u64_at(name, 0)) | u128::from(u64_at(name, len - 8)) << (len * 8 - 64)
        }
        _ => return None,
    };
    let (low, high) = (word as u64, (word >> 64) as u64);
    Some(u128::from(lower_word(low)) | u128::from(lower_word(high)) << 64)
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

#[inline]
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Eight letters at once to lower case; other bytes stay.
#[inline]
fn lower_word(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let low_bits = word & (0x7f * EACH);
    let from_a = low_bits + (0x80 - u64::from(b'A')) * EACH;
    let past_z = low_bits + (0x7f - u64::from(b'Z')) * EACH;
    let capital = (from_a ^ past_z) & !word & (0x80 * EACH);
    word | capital >> 2
}

/// Where the search for a short name begins, before masking.
#[inline]
fn spread(name: u128) -> usize {
    let folded = (name as u64) ^ ((name >> 64) as u64).rotate_left(23);
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize
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
            let role = Role::of(spec.name);
            commands.push(Command::leaked(id, spec, None, spec.name, role));
            top.push((spec.name.as_bytes().to_vec(), id));
            for sub in spec.subcommands {
                let sub_id = CommandId(commands.len() as u16);
                let full_name = Box::leak(format!("{}|{}", spec.name, sub.name).into_boxed_str());
                commands.push(Command::leaked(sub_id, sub, Some(id), full_name, role));
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
        let mut slots = vec![(0, CommandId(0)); size].into_boxed_slice();
        let mut long_names = HashMap::new();
        for (name, id) in top {
            let Some(short) = short_name(&name) else {
                long_names.insert(name.into_boxed_slice(), id);
                continue;
            };
            let mut at = spread(short) & (size - 1);
            while slots[at].0 != 0 {
                at = (at + 1) & (size - 1);
            }
            slots[at] = (short, id);
        }
        Registry { commands, slots, long_names, children }
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
        let Some(short) = short_name(name) else { return self.by_long_name(name) };
        let mask = self.slots.len() - 1;
        let mut at = spread(short) & mask;
        loop {
            match self.slots[at] {
                (0, _) => return None,
                (known, id) if known == short => return Some(self.commands[id.0 as usize]),
                _ => at = (at + 1) & mask,
            }
        }
    }

    #[cold]
    fn by_long_name(&self, name: &[u8]) -> Option<Command> {
        let mut buffer = [0; MAX_NAME];
        let id = self.long_names.get(lower(name, &mut buffer)?)?;
        Some(self.commands[id.0 as usize])
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
        let short = self.slots.iter().filter(|(name, _)| *name != 0).map(|(_, id)| id);
        short.chain(self.long_names.values()).map(|id| self.commands[id.0 as usize])
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
        Spec { name: "georadiusbymember_ro", ..Spec::NEW },
        Spec { name: "bzpopmax", ..Spec::NEW },
        Spec { name: "hpexpireat", ..Spec::NEW },
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
        assert_eq!(found(&registry, &[b"GEORADIUSbymember_RO"]), Some("georadiusbymember_ro"));
        assert_eq!(found(&registry, &[b"BZPOPmax"]), Some("bzpopmax"));
        assert_eq!(found(&registry, &[b"hpexpireAT"]), Some("hpexpireat"));
        for no_name in [&b""[..], b"g", b"ge\0", b"get\0", b"bzpopma\x18", b"G\xc5T", b"'et"] {
            assert_eq!(found(&registry, &[no_name]), None, "{no_name:?}");
        }
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
