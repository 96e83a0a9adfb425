//! COMMAND: what the server says of its commands. Everything here is read off the specs.

use super::docs;
use crate::commands::prelude::*;
use crate::keyfind::{effective_flags, find_keys};
use crate::registry::{Command, Lookup};
use kara_base::glob::{self, Case};

pub(super) const COMMAND: Spec = Spec {
    name: "command",
    arity: Arity::AtLeast(1),
    flags: Flags::LOADING.union(Flags::STALE),
    acl: Acl::CONNECTION,
    group: Group::Server,
    since: "2.8.13",
    summary: "Describes all commands.",
    complexity: "O(N) for N commands",
    tips: &["nondeterministic_output_order"],
    subcommands: &[
        Spec {
            name: "count",
            arity: Arity::Exactly(2),
            flags: Flags::LOADING.union(Flags::STALE),
            acl: Acl::CONNECTION,
            group: Group::Server,
            since: "2.8.13",
            summary: "Returns how many commands there are.",
            complexity: "O(1)",
            handler: Some(command_count),
            ..Spec::NEW
        },
        Spec {
            name: "docs",
            arity: Arity::AtLeast(2),
            flags: Flags::LOADING.union(Flags::STALE),
            acl: Acl::CONNECTION,
            group: Group::Server,
            since: "7.0.0",
            summary: "Returns the documentation of commands.",
            complexity: "O(N) for N commands asked for",
            tips: &["nondeterministic_output_order"],
            args: &[Arg {
                name: "command-name",
                kind: ArgKind::String,
                optional: true,
                multiple: true,
                ..Arg::NEW
            }],
            handler: Some(command_docs),
            ..Spec::NEW
        },
        Spec {
            name: "getkeys",
            arity: Arity::AtLeast(3),
            flags: Flags::LOADING.union(Flags::STALE),
            acl: Acl::CONNECTION,
            group: Group::Server,
            since: "2.8.13",
            summary: "Extracts the keys of a command line.",
            complexity: "O(N) for N arguments",
            args: &[
                Arg { name: "command", kind: ArgKind::String, ..Arg::NEW },
                Arg { name: "arg", kind: ArgKind::String, optional: true, multiple: true, ..Arg::NEW },
            ],
            handler: Some(command_getkeys),
            ..Spec::NEW
        },
        Spec {
            name: "getkeysandflags",
            arity: Arity::AtLeast(3),
            flags: Flags::LOADING.union(Flags::STALE),
            acl: Acl::CONNECTION,
            group: Group::Server,
            since: "7.0.0",
            summary: "Extracts the keys of a command line, with the use of each.",
            complexity: "O(N) for N arguments",
            args: &[
                Arg { name: "command", kind: ArgKind::String, ..Arg::NEW },
                Arg { name: "arg", kind: ArgKind::String, optional: true, multiple: true, ..Arg::NEW },
            ],
            handler: Some(command_getkeysandflags),
            ..Spec::NEW
        },
        Spec {
            name: "help",
            arity: Arity::Exactly(2),
            flags: Flags::LOADING.union(Flags::STALE),
            acl: Acl::CONNECTION,
            group: Group::Server,
            since: "5.0.0",
            summary: "Explains the subcommands.",
            complexity: "O(1)",
            handler: Some(command_help),
            ..Spec::NEW
        },
        Spec {
            name: "info",
            arity: Arity::AtLeast(2),
            flags: Flags::LOADING.union(Flags::STALE),
            acl: Acl::CONNECTION,
            group: Group::Server,
            since: "2.8.13",
            summary: "Describes the named commands, or all.",
            complexity: "O(N) for N commands asked for",
            tips: &["nondeterministic_output_order"],
            args: &[Arg {
                name: "command-name",
                kind: ArgKind::String,
                optional: true,
                multiple: true,
                ..Arg::NEW
            }],
            handler: Some(command_info),
            ..Spec::NEW
        },
        Spec {
            name: "list",
            arity: Arity::AtLeast(2),
            flags: Flags::LOADING.union(Flags::STALE),
            acl: Acl::CONNECTION,
            group: Group::Server,
            since: "7.0.0",
            summary: "Returns the names of the commands.",
            complexity: "O(N) for N commands",
            tips: &["nondeterministic_output_order"],
            args: &[Arg {
                name: "filterby",
                kind: ArgKind::Oneof,
                token: Some("FILTERBY"),
                optional: true,
                args: &[
                    Arg { name: "module-name", kind: ArgKind::String, token: Some("MODULE"), ..Arg::NEW },
                    Arg { name: "category", kind: ArgKind::String, token: Some("ACLCAT"), ..Arg::NEW },
                    Arg { name: "pattern", kind: ArgKind::Pattern, token: Some("PATTERN"), ..Arg::NEW },
                ],
                ..Arg::NEW
            }],
            handler: Some(command_list),
            ..Spec::NEW
        },
    ],
    handler: Some(command),
    ..Spec::NEW
};

/// The subcommands of a container, in the specs' order.
pub(super) fn children<'a>(cx: &'a Cx, parent: Command) -> impl Iterator<Item = Command> + 'a {
    cx.shared.registry.all().iter().copied().filter(move |c| c.parent == Some(parent.id))
}

fn command(cx: &mut Cx) -> Outcome {
    describe_all(cx);
    Ok(Effect::None)
}

fn describe_all(cx: &mut Cx) {
    let all: Vec<Command> = cx.shared.registry.top_level().collect();
    cx.reply.array(all.len());
    for command in all {
        describe(cx, command);
    }
}

fn command_count(cx: &mut Cx) -> Outcome {
    let count = cx.shared.registry.top_level().count();
    cx.reply.integer(count as i64);
    Ok(Effect::None)
}

fn command_info(cx: &mut Cx) -> Outcome {
    let names = cx.args.get(2..).unwrap_or_default();
    if names.is_empty() {
        describe_all(cx);
        return Ok(Effect::None);
    }
    cx.reply.array(names.len());
    for name in names {
        match cx.shared.registry.by_full_name(name) {
            Some(command) => describe(cx, command),
            None => cx.reply.null(),
        }
    }
    Ok(Effect::None)
}

/// COMMAND INFO's row of one command, its subcommands included.
fn describe(cx: &mut Cx, command: Command) {
    let spec = command.spec;
    let (first, last, step) = spec.legacy_range();
    cx.reply.array(10);
    cx.reply.bulk(command.full_name.as_bytes());
    cx.reply.integer(spec.arity.signed());
    let mut flags: Vec<&str> = spec.flags.names().collect();
    if spec.movable_keys() {
        flags.push("movablekeys");
    }
    statuses(cx, &flags);
    cx.reply.integer(first);
    cx.reply.integer(last);
    cx.reply.integer(step);
    let categories: Vec<String> = spec.acl_categories().names().map(|name| format!("@{name}")).collect();
    cx.reply.set(categories.len());
    categories.iter().for_each(|name| cx.reply.simple(name));
    cx.reply.set(spec.tips.len());
    spec.tips.iter().for_each(|tip| cx.reply.bulk(tip.as_bytes()));
    cx.reply.set(spec.key_specs.len());
    spec.key_specs.iter().for_each(|key_spec| describe_keys(cx, key_spec));
    let children: Vec<Command> = children(cx, command).collect();
    cx.reply.array(children.len());
    for child in children {
        describe(cx, child);
    }
}

/// A set of simple strings.
fn statuses(cx: &mut Cx, names: &[&str]) {
    cx.reply.set(names.len());
    names.iter().for_each(|name| cx.reply.simple(name));
}

fn describe_keys(cx: &mut Cx, spec: &KeySpec) {
    cx.reply.map(3 + usize::from(!spec.notes.is_empty()));
    if !spec.notes.is_empty() {
        cx.reply.bulk(b"notes");
        cx.reply.bulk(spec.notes.as_bytes());
    }
    cx.reply.bulk(b"flags");
    statuses(cx, &spec.flags.names().collect::<Vec<_>>());
    cx.reply.bulk(b"begin_search");
    match spec.begin {
        Begin::Index(index) => typed(cx, "index", &[("index", i64::from(index))]),
        Begin::Keyword { keyword, start_from } => {
            cx.reply.map(2);
            cx.reply.bulk(b"type");
            cx.reply.bulk(b"keyword");
            cx.reply.bulk(b"spec");
            cx.reply.map(2);
            cx.reply.bulk(b"keyword");
            cx.reply.bulk(keyword.as_bytes());
            cx.reply.bulk(b"startfrom");
            cx.reply.integer(i64::from(start_from));
        }
        Begin::Unknown => typed(cx, "unknown", &[]),
    }
    cx.reply.bulk(b"find_keys");
    match spec.find {
        Find::Range { last, step, limit } => {
            typed(
                cx,
                "range",
                &[("lastkey", last.into()), ("keystep", step.into()), ("limit", limit.into())],
            );
        }
        Find::KeyNum { num_index, first, step } => {
            typed(
                cx,
                "keynum",
                &[("keynumidx", num_index.into()), ("firstkey", first.into()), ("keystep", step.into())],
            );
        }
        Find::Unknown => typed(cx, "unknown", &[]),
    }
}

/// The type of a search and its numbers.
fn typed(cx: &mut Cx, kind: &str, numbers: &[(&str, i64)]) {
    cx.reply.map(2);
    cx.reply.bulk(b"type");
    cx.reply.bulk(kind.as_bytes());
    cx.reply.bulk(b"spec");
    cx.reply.map(numbers.len());
    for (name, number) in numbers {
        cx.reply.bulk(name.as_bytes());
        cx.reply.integer(*number);
    }
}

/// COMMAND LIST's filters.
enum Filter<'a> {
    None,
    /// Modules' commands; no module is loaded that brings any.
    Module,
    /// `None`: no such category, which no command is in.
    Category(Option<Acl>),
    Pattern(&'a [u8]),
}

impl Filter<'_> {
    fn passes(&self, command: Command) -> bool {
        match self {
            Filter::None => true,
            Filter::Module => false,
            Filter::Category(category) => category.is_some_and(|c| command.spec.acl_categories().contains(c)),
            Filter::Pattern(pattern) => {
                glob::matches(pattern, command.full_name.as_bytes(), Case::Insensitive)
            }
        }
    }
}

fn command_list(cx: &mut Cx) -> Outcome {
    let filter = match cx.args {
        [_, _] => Filter::None,
        [_, _, by, kind, value] if by.eq_ignore_ascii_case(b"FILTERBY") => {
            if kind.eq_ignore_ascii_case(b"MODULE") {
                Filter::Module
            } else if kind.eq_ignore_ascii_case(b"ACLCAT") {
                Filter::Category(Acl::by_name(value))
            } else if kind.eq_ignore_ascii_case(b"PATTERN") {
                Filter::Pattern(value)
            } else {
                return Err(CommandError::Syntax);
            }
        }
        _ => return Err(CommandError::Syntax),
    };
    let mark = cx.reply.defer();
    let mut count = 0;
    for top in cx.shared.registry.top_level().collect::<Vec<_>>() {
        let subcommands: Vec<Command> = children(cx, top).collect();
        for command in std::iter::once(top).chain(subcommands).filter(|c| filter.passes(*c)) {
            cx.reply.bulk(command.full_name.as_bytes());
            count += 1;
        }
    }
    cx.reply.end_array(mark, count);
    Ok(Effect::None)
}

fn command_docs(cx: &mut Cx) -> Outcome {
    let names = cx.args.get(2..).unwrap_or_default();
    let commands: Vec<Command> = if names.is_empty() {
        cx.shared.registry.top_level().collect()
    } else {
        names.iter().filter_map(|name| cx.shared.registry.by_full_name(name)).collect()
    };
    cx.reply.map(commands.len());
    for command in commands {
        docs::document(cx, command);
    }
    Ok(Effect::None)
}

fn command_getkeys(cx: &mut Cx) -> Outcome {
    let (line, keys) = keys_of(cx)?;
    cx.reply.array(keys.len());
    for (position, _) in keys {
        cx.reply.bulk(line.get(position).copied().unwrap_or_default());
    }
    Ok(Effect::None)
}

fn command_getkeysandflags(cx: &mut Cx) -> Outcome {
    let (line, keys) = keys_of(cx)?;
    cx.reply.array(keys.len());
    for (position, flags) in keys {
        cx.reply.array(2);
        cx.reply.bulk(line.get(position).copied().unwrap_or_default());
        statuses(cx, &flags.names().collect::<Vec<_>>());
    }
    Ok(Effect::None)
}

/// A command's words, and which of them are keys.
type WordsAndKeys<'a> = (&'a [&'a [u8]], Vec<(usize, KeyFlags)>);

/// The command line behind the subcommand, and where its keys stand in it.
fn keys_of<'a>(cx: &Cx<'a, '_>) -> Result<WordsAndKeys<'a>, CommandError> {
    let line = cx.args.get(2..).unwrap_or_default();
    let Lookup::Found(command) = cx.shared.registry.lookup(line) else {
        return Err(CommandError::text("ERR Invalid command specified"));
    };
    let spec = command.spec;
    if spec.get_keys.is_none() && spec.key_specs.iter().all(|s| s.flags.contains(KeyFlags::NOT_KEY)) {
        return Err(CommandError::text("ERR The command has no key arguments"));
    }
    if !spec.arity.accepts(line.len()) {
        return Err(CommandError::text("ERR Invalid number of arguments specified for command"));
    }
    let mut found = Vec::new();
    if find_keys(spec, line, &mut found).is_err() {
        found.clear();
    }
    if found.is_empty() && !spec.flags.contains(Flags::NO_MANDATORY_KEYS) {
        return Err(CommandError::text("ERR Invalid arguments specified for command"));
    }
    let flags = |flags| effective_flags(command.full_name, line, flags);
    Ok((line, found.into_iter().map(|key| (key.position, flags(key.flags))).collect()))
}

fn command_help(cx: &mut Cx) -> Outcome {
    cx.reply_help(&[
        "(no subcommand)",
        "    Return details about all commands.",
        "COUNT",
        "    Return the total number of commands in this server.",
        "LIST",
        "    Return a list of all commands in this server.",
        "INFO [<command-name> ...]",
        "    Return details about multiple commands.",
        "    If no command names are given, documentation details for all",
        "    commands are returned.",
        "DOCS [<command-name> ...]",
        "    Return documentation details about multiple commands.",
        "    If no command names are given, documentation details for all",
        "    commands are returned.",
        "GETKEYS <full-command>",
        "    Return the keys from a full command.",
        "GETKEYSANDFLAGS <full-command>",
        "    Return the keys and the access flags from a full command.",
    ]);
    Ok(Effect::None)
}
