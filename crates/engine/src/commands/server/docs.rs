//! COMMAND DOCS: the documentation of commands and their arguments, as the specs have it.

use super::command::children;
use super::history::changes;
use crate::commands::prelude::*;
use crate::registry::Command;

/// Writes a command's name and its documentation: one pair of the reply's map.
pub(super) fn document(cx: &mut Cx, command: Command) {
    let spec = command.spec;
    let children: Vec<Command> = children(cx, command).collect();
    cx.reply.bulk(command.full_name.as_bytes());
    let mut texts = vec![("summary", spec.summary), ("since", spec.since), ("group", spec.group.name())];
    if !spec.complexity.is_empty() {
        texts.push(("complexity", spec.complexity));
    }
    let flags = doc_flags(spec);
    let mut late = Vec::new();
    if !spec.deprecated_since.is_empty() {
        late.push(("deprecated_since", spec.deprecated_since));
    }
    if !spec.replaced_by.is_empty() {
        late.push(("replaced_by", spec.replaced_by));
    }
    let changes = changes(command.full_name);
    let lists = usize::from(!flags.is_empty())
        + usize::from(!changes.is_empty())
        + usize::from(!spec.args.is_empty())
        + usize::from(!children.is_empty());
    cx.reply.map(texts.len() + late.len() + lists);
    pairs(cx, &texts);
    if !flags.is_empty() {
        flag_set(cx, "doc_flags", &flags);
    }
    pairs(cx, &late);
    if !changes.is_empty() {
        cx.reply.bulk(b"history");
        cx.reply.set(changes.len());
        for (since, what) in changes {
            cx.reply.array(2);
            cx.reply.bulk(since.as_bytes());
            cx.reply.bulk(what.as_bytes());
        }
    }
    if !spec.args.is_empty() {
        arguments(cx, spec.args);
    }
    if !children.is_empty() {
        cx.reply.bulk(b"subcommands");
        cx.reply.map(children.len());
        for child in children {
            document(cx, child);
        }
    }
}

fn doc_flags(spec: &Spec) -> Vec<&'static str> {
    let mut flags = Vec::new();
    if !spec.deprecated_since.is_empty() {
        flags.push("deprecated");
    }
    if spec.syscmd {
        flags.push("syscmd");
    }
    flags
}

fn pairs(cx: &mut Cx, pairs: &[(&str, &str)]) {
    for (name, value) in pairs {
        cx.reply.bulk(name.as_bytes());
        cx.reply.bulk(value.as_bytes());
    }
}

fn flag_set(cx: &mut Cx, name: &str, flags: &[&str]) {
    cx.reply.bulk(name.as_bytes());
    cx.reply.set(flags.len());
    flags.iter().for_each(|flag| cx.reply.simple(flag));
}

fn arguments(cx: &mut Cx, args: &[Arg]) {
    cx.reply.bulk(b"arguments");
    cx.reply.array(args.len());
    args.iter().for_each(|arg| argument(cx, arg));
}

fn argument(cx: &mut Cx, arg: &Arg) {
    // Blocks and choices have no text of their own to show.
    let structural = matches!(arg.kind, ArgKind::Block | ArgKind::Oneof);
    let mut first = vec![("name", arg.name), ("type", arg.kind.name())];
    if !arg.display.is_empty() {
        first.push(("display_text", arg.display));
    } else if !structural {
        first.push(("display_text", arg.name));
    }
    let mut second = Vec::new();
    if let Some(token) = arg.token {
        second.push(("token", token));
    }
    if !arg.since.is_empty() {
        second.push(("since", arg.since));
    }
    if !arg.deprecated_since.is_empty() {
        second.push(("deprecated_since", arg.deprecated_since));
    }
    let all =
        [("optional", arg.optional), ("multiple", arg.multiple), ("multiple_token", arg.multiple_token)];
    let flags: Vec<&str> = all.into_iter().filter_map(|(name, set)| set.then_some(name)).collect();
    let rest = usize::from(arg.key_spec.is_some())
        + usize::from(!flags.is_empty())
        + usize::from(!arg.args.is_empty());
    cx.reply.map(first.len() + second.len() + rest);
    pairs(cx, &first);
    if let Some(index) = arg.key_spec {
        cx.reply.bulk(b"key_spec_index");
        cx.reply.integer(i64::from(index));
    }
    pairs(cx, &second);
    if !flags.is_empty() {
        flag_set(cx, "flags", &flags);
    }
    if !arg.args.is_empty() {
        arguments(cx, arg.args);
    }
}
