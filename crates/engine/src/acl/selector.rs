//! One set of rules: which commands, keys, channels and databases it opens. A user has one, and further ones in
//! parentheses.

use crate::registry::{Command, CommandId, Registry};
use crate::spec::{Acl as Category, Flags, KeyFlags};
use bitflags::bitflags;
use kara_base::glob::{self, Case};
use std::collections::{BTreeMap, BTreeSet};

bitflags! {
    /// What a pattern lets do with the keys that it matches.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct KeyRights: u8 {
        const READ = 1;
        const WRITE = 2;
    }
}

/// Why a rule can't be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleError {
    Syntax,
    UnknownCommand,
    FirstArgOfSubcommand,
    BehindAllKeys,
    BehindAllChannels,
    NoSuchPassword,
    BadHash,
}

impl RuleError {
    /// The reason as ACL SETUSER and the loading of files give it.
    pub fn text(self) -> &'static str {
        match self {
            RuleError::Syntax => "Syntax error",
            RuleError::UnknownCommand => "Unknown command or category name in ACL",
            RuleError::FirstArgOfSubcommand => "Allowing first-arg of a subcommand is not supported",
            RuleError::BehindAllKeys => {
                "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any \
                 effect. Try 'resetkeys' to start with an empty list of patterns"
            }
            RuleError::BehindAllChannels => {
                "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any \
                 effect. Try 'resetchannels' to start with an empty list of channels"
            }
            RuleError::NoSuchPassword => "The password you are trying to remove from the user does not exist",
            RuleError::BadHash => {
                "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
            }
        }
    }
}

/// Databases that may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Databases {
    All,
    Only(BTreeSet<u32>),
}

impl Databases {
    /// Whether one of them may be used.
    pub fn contains(&self, db: u32) -> bool {
        match self {
            Databases::All => true,
            Databases::Only(list) => list.contains(&db),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct KeyPattern {
    pattern: Vec<u8>,
    rights: KeyRights,
}

/// A rule about commands, as it was given: what ACL LIST shows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CommandRule {
    allow: bool,
    /// `get`, `config|get`, `@read`, `select|0`.
    name: Vec<u8>,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    all_commands: bool,
    /// A bit per `CommandId`.
    commands: Vec<u64>,
    /// First arguments with which a command may be called that is closed otherwise.
    first_args: BTreeMap<u16, Vec<Vec<u8>>>,
    /// Whether the rules begin from `+@all`.
    from_all: bool,
    rules: Vec<CommandRule>,
    all_keys: bool,
    keys: Vec<KeyPattern>,
    pub(super) all_channels: bool,
    channels: Vec<Vec<u8>>,
    databases: Databases,
}

impl Selector {
    /// Opens nothing but, where that is the setting, all channels; and all databases.
    pub fn new(all_channels: bool) -> Self {
        Selector {
            all_commands: false,
            commands: Vec::new(),
            first_args: BTreeMap::new(),
            from_all: false,
            rules: Vec::new(),
            all_keys: false,
            keys: Vec::new(),
            all_channels,
            channels: Vec::new(),
            databases: Databases::All,
        }
    }

    /// Opens everything.
    pub fn all(registry: &Registry) -> Self {
        let mut selector = Selector::new(true);
        selector.set_all_commands(registry, true);
        selector.all_keys = true;
        selector
    }

    /// Whether nothing is closed.
    pub fn is_unrestricted(&self) -> bool {
        self.all_commands && self.all_keys && self.all_channels && self.databases == Databases::All
    }

    /// Applies one rule.
    pub fn apply(&mut self, rule: &[u8], registry: &Registry) -> Result<(), RuleError> {
        let word = rule.to_ascii_lowercase();
        match word.as_slice() {
            b"allkeys" | b"~*" => {
                self.all_keys = true;
                self.keys.clear();
            }
            b"resetkeys" => {
                self.all_keys = false;
                self.keys.clear();
            }
            b"allchannels" | b"&*" => {
                self.all_channels = true;
                self.channels.clear();
            }
            b"resetchannels" => {
                self.all_channels = false;
                self.channels.clear();
            }
            b"allcommands" | b"+@all" => self.set_all_commands(registry, true),
            b"nocommands" | b"-@all" => self.set_all_commands(registry, false),
            b"alldbs" => self.databases = Databases::All,
            b"resetdbs" => self.databases = Databases::Only(BTreeSet::new()),
            _ => match rule {
                [b'~', pattern @ ..] => self.add_key(KeyRights::all(), pattern)?,
                [b'%', rest @ ..] => self.add_key_with_rights(rest)?,
                [b'&', pattern @ ..] => self.add_channel(pattern)?,
                [b'+', b'@', _, ..] => self.set_category(&word, true, registry)?,
                [b'-', b'@', _, ..] => self.set_category(&word, false, registry)?,
                [b'+', ..] => self.add_command(word.get(1..).unwrap_or_default(), rule, registry)?,
                [b'-', ..] => {
                    let name = word.get(1..).unwrap_or_default();
                    let command = registry.by_full_name(name).ok_or(RuleError::UnknownCommand)?;
                    self.set_command(command, false, registry);
                    self.note_rule(false, name);
                }
                _ => match word.strip_prefix(b"db=") {
                    Some(list) => self.databases = Databases::Only(parse_databases(list)?),
                    None => return Err(RuleError::Syntax),
                },
            },
        }
        Ok(())
    }

    fn add_key_with_rights(&mut self, rest: &[u8]) -> Result<(), RuleError> {
        let letters = rest.iter().position(|byte| *byte == b'~').unwrap_or(rest.len());
        let mut rights = KeyRights::empty();
        for letter in rest.get(..letters).unwrap_or_default() {
            rights |= match letter.to_ascii_uppercase() {
                b'R' => KeyRights::READ,
                b'W' => KeyRights::WRITE,
                _ => return Err(RuleError::Syntax),
            };
        }
        if rights.is_empty() {
            return Err(RuleError::Syntax);
        }
        self.add_key(rights, rest.get(letters + 1..).unwrap_or_default())
    }

    fn add_key(&mut self, rights: KeyRights, pattern: &[u8]) -> Result<(), RuleError> {
        if self.all_keys {
            return Err(RuleError::BehindAllKeys);
        }
        if has_blanks(pattern) {
            return Err(RuleError::Syntax);
        }
        match self.keys.iter_mut().find(|known| known.pattern == pattern) {
            Some(known) => known.rights |= rights,
            None => self.keys.push(KeyPattern { pattern: pattern.to_vec(), rights }),
        }
        Ok(())
    }

    fn add_channel(&mut self, pattern: &[u8]) -> Result<(), RuleError> {
        if self.all_channels {
            return Err(RuleError::BehindAllChannels);
        }
        if has_blanks(pattern) {
            return Err(RuleError::Syntax);
        }
        if !self.channels.iter().any(|known| known == pattern) {
            self.channels.push(pattern.to_vec());
        }
        Ok(())
    }

    fn set_all_commands(&mut self, registry: &Registry, allow: bool) {
        self.all_commands = allow;
        self.from_all = allow;
        self.rules.clear();
        self.first_args.clear();
        self.commands = vec![if allow { u64::MAX } else { 0 }; registry.all().len().div_ceil(64)];
    }

    /// `rule` is `+@name` or `-@name` in lower case.
    fn set_category(&mut self, rule: &[u8], allow: bool, registry: &Registry) -> Result<(), RuleError> {
        let name = rule.get(2..).unwrap_or_default();
        let category = Category::by_name(name).ok_or(RuleError::UnknownCommand)?;
        for command in registry.all() {
            if command.spec.acl_categories().contains(category) {
                self.set_bit(command.id, allow);
            }
        }
        self.note_rule(allow, rule.get(1..).unwrap_or_default());
        Ok(())
    }

    /// `name` is the rule's in lower case; `rule` has the first argument as it was given.
    fn add_command(&mut self, name: &[u8], rule: &[u8], registry: &Registry) -> Result<(), RuleError> {
        if let Some(command) = registry.by_full_name(name) {
            self.set_command(command, true, registry);
            self.note_rule(true, name);
            return Ok(());
        }
        let bar = name.iter().rposition(|byte| *byte == b'|').ok_or(RuleError::UnknownCommand)?;
        let (container, first) = (name.get(..bar), rule.get(bar + 2..).unwrap_or_default());
        let command = registry.by_full_name(container.unwrap_or_default());
        let command = command.ok_or(RuleError::UnknownCommand)?;
        if command.parent.is_some() {
            return Err(RuleError::FirstArgOfSubcommand);
        }
        if !command.spec.subcommands.is_empty() {
            return Err(RuleError::UnknownCommand);
        }
        if first.is_empty() {
            return Err(RuleError::Syntax);
        }
        let known = self.first_args.entry(command.id.0).or_default();
        if !known.iter().any(|arg| arg.eq_ignore_ascii_case(first)) {
            known.push(first.to_vec());
        }
        self.rules.retain(|rule| rule.name != name);
        self.rules.push(CommandRule { allow: true, name: name.to_vec() });
        Ok(())
    }

    /// A command with all its subcommands.
    fn set_command(&mut self, command: Command, allow: bool, registry: &Registry) {
        self.set_bit(command.id, allow);
        if !command.spec.subcommands.is_empty() {
            for sub in registry.all().iter().filter(|sub| sub.parent == Some(command.id)) {
                self.set_bit(sub.id, allow);
            }
        }
    }

    fn set_bit(&mut self, id: CommandId, allow: bool) {
        let (word, bit) = (usize::from(id.0) / 64, id.0 % 64);
        if self.commands.len() <= word {
            self.commands.resize(word + 1, 0);
        }
        if let Some(word) = self.commands.get_mut(word) {
            *word = *word & !(1 << bit) | u64::from(allow) << bit;
        }
        self.all_commands &= allow;
        self.first_args.remove(&id.0);
    }

    /// Puts a rule behind the others; those of the same command that it makes void go.
    fn note_rule(&mut self, allow: bool, name: &[u8]) {
        let part = |rule: &CommandRule| {
            rule.name.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"|"))
        };
        self.rules.retain(|rule| !part(rule));
        self.rules.push(CommandRule { allow, name: name.to_vec() });
    }

    /// Whether the command may run, as far as its name goes.
    pub fn allows_command(&self, command: Command, args: &[&[u8]]) -> bool {
        if self.all_commands || command.is(Flags::NO_AUTH) {
            return true;
        }
        let (word, bit) = (usize::from(command.id.0) / 64, command.id.0 % 64);
        if self.commands.get(word).is_some_and(|word| word >> bit & 1 == 1) {
            return true;
        }
        let id = command.parent.unwrap_or(command.id);
        let first = args.get(1).copied().unwrap_or_default();
        self.first_args.get(&id.0).is_some_and(|list| list.iter().any(|arg| arg.eq_ignore_ascii_case(first)))
    }

    /// Whether a key may be used so. Without a need, any right will do.
    pub fn allows_key(&self, key: &[u8], needed: KeyRights) -> bool {
        self.all_keys
            || self.keys.iter().any(|known| {
                known.rights.contains(needed) && glob::matches(&known.pattern, key, Case::Sensitive)
            })
    }

    /// Whether all keys may be read.
    pub fn reads_every_key(&self) -> bool {
        let everything = |known: &KeyPattern| known.pattern == b"*" && known.rights.contains(KeyRights::READ);
        self.all_keys || self.keys.iter().any(everything)
    }

    /// Whether a channel may be used; a pattern only where exactly that pattern is open.
    pub fn allows_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        let fits = |known: &Vec<u8>| {
            if is_pattern { known == channel } else { glob::matches(known, channel, Case::Sensitive) }
        };
        self.all_channels || self.channels.iter().any(fits)
    }

    /// Databases that may be used.
    pub fn databases(&self) -> &Databases {
        &self.databases
    }

    /// The rules about commands, in the words of ACL LIST.
    pub fn commands_text(&self) -> Vec<u8> {
        let mut out = if self.from_all { b"+@all".to_vec() } else { b"-@all".to_vec() };
        for rule in &self.rules {
            out.extend_from_slice(if rule.allow { b" +" } else { b" -" });
            out.extend_from_slice(&rule.name);
        }
        out
    }

    /// The patterns of keys.
    pub fn keys_text(&self) -> Vec<u8> {
        if self.all_keys {
            return b"~*".to_vec();
        }
        let mut out = Vec::new();
        for known in &self.keys {
            if !out.is_empty() {
                out.push(b' ');
            }
            out.extend_from_slice(match known.rights {
                rights if rights == KeyRights::READ => b"%R~",
                rights if rights == KeyRights::WRITE => b"%W~",
                _ => b"~",
            });
            out.extend_from_slice(&known.pattern);
        }
        out
    }

    /// The patterns of channels.
    pub fn channels_text(&self) -> Vec<u8> {
        if self.all_channels {
            return b"&*".to_vec();
        }
        let marked: Vec<Vec<u8>> =
            self.channels.iter().map(|pattern| [&b"&"[..], pattern].concat()).collect();
        marked.join(&b' ')
    }

    /// The rule about databases; nothing where none may be used.
    pub fn databases_text(&self) -> String {
        match &self.databases {
            Databases::All => "alldbs".to_owned(),
            Databases::Only(list) if list.is_empty() => String::new(),
            Databases::Only(list) => {
                let list: Vec<String> = list.iter().map(u32::to_string).collect();
                format!("db={}", list.join(","))
            }
        }
    }

    /// Everything, as rules that make such a selector out of a new one.
    pub fn describe(&self) -> Vec<u8> {
        let mut out = self.keys_text();
        let mut add = |part: &[u8]| {
            if !out.is_empty() {
                out.push(b' ');
            }
            out.extend_from_slice(part);
        };
        if !self.all_channels {
            add(b"resetchannels");
        }
        let channels = self.channels_text();
        if !channels.is_empty() {
            add(&channels);
        }
        match self.databases_text().as_str() {
            "" => add(b"resetdbs"),
            "alldbs" => {}
            list => add(list.as_bytes()),
        }
        add(&self.commands_text());
        out
    }
}

/// What a command's use of a key asks of the pattern that opens it.
pub fn needed(flags: KeyFlags) -> KeyRights {
    let mut needed = KeyRights::empty();
    if flags.contains(KeyFlags::ACCESS) {
        needed |= KeyRights::READ;
    }
    if flags.intersects(KeyFlags::UPDATE | KeyFlags::INSERT | KeyFlags::DELETE) {
        needed |= KeyRights::WRITE;
    }
    needed
}

fn has_blanks(pattern: &[u8]) -> bool {
    pattern.iter().any(|byte| *byte == 0 || byte.is_ascii_whitespace() || *byte == 0x0b)
}

fn parse_databases(list: &[u8]) -> Result<BTreeSet<u32>, RuleError> {
    let parse = |id: &[u8]| {
        let id = kara_base::number::parse_i64(id).ok_or(RuleError::Syntax)?;
        u32::try_from(id).ok().filter(|id| *id <= i32::MAX as u32).ok_or(RuleError::Syntax)
    };
    list.split(|byte| *byte == b',').map(parse).collect()
}
