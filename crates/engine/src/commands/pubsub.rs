//! SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE and their opposites, PUBLISH, SPUBLISH, PUBSUB.

use super::prelude::*;
use crate::pubsub::Kind;
use crate::session::{Origin, ReplyMode};

/// The family's commands.
pub const COMMANDS: &[Spec] =
    &[PSUBSCRIBE, PUBLISH, PUBSUB, PUNSUBSCRIBE, SPUBLISH, SSUBSCRIBE, SUBSCRIBE, SUNSUBSCRIBE, UNSUBSCRIBE];

const SUBSCRIBE: Spec = Spec {
    name: "subscribe",
    arity: Arity::AtLeast(2),
    flags: Flags::LOADING.union(Flags::NOSCRIPT).union(Flags::PUBSUB).union(Flags::STALE),
    group: Group::PubSub,
    since: "2.0.0",
    summary: "Listens to channels.",
    complexity: "O(N) for N channels",
    args: &[Arg { name: "channel", kind: ArgKind::String, multiple: true, ..Arg::NEW }],
    handler: Some(subscribe),
    ..Spec::NEW
};

fn subscribe(cx: &mut Cx) -> Outcome {
    listen(cx, Kind::Channel, "subscribe")
}

/// Subscribes to each name and confirms each with a message of its own.
fn listen(cx: &mut Cx, kind: Kind, word: &str) -> Outcome {
    as_messages(cx);
    for name in &cx.args[1..] {
        cx.session.subscriptions.add(&cx.shared.pubsub, &cx.session.info, kind, name);
        confirm(cx, kind, word, Some(name));
    }
    Ok(Effect::None)
}

/// Unsubscribes from each name, or from all of the kind where none is given.
fn stop_listening(cx: &mut Cx, kind: Kind, word: &str) -> Outcome {
    as_messages(cx);
    let all = cx.session.subscriptions.names(kind);
    let names: Vec<&[u8]> = match cx.args {
        [_] => all.iter().map(|name| &name[..]).collect(),
        [_, names @ ..] => names.to_vec(),
        [] => Vec::new(),
    };
    for name in &names {
        cx.session.subscriptions.remove(&cx.shared.pubsub, &cx.session.info, kind, name);
        confirm(cx, kind, word, Some(name));
    }
    if names.is_empty() {
        confirm(cx, kind, word, None);
    }
    Ok(Effect::None)
}

/// The answers of these commands are messages: CLIENT REPLY OFF doesn't hold them back.
fn as_messages(cx: &mut Cx) {
    cx.session.reply_is_push = cx.origin == Origin::Client && cx.session.reply_mode != ReplyMode::On;
}

fn confirm(cx: &mut Cx, kind: Kind, word: &str, name: Option<&[u8]>) {
    cx.reply.push(3);
    cx.reply.bulk(word.as_bytes());
    cx.reply.bulk_or_null(name);
    cx.reply.integer(cx.session.subscriptions.count(kind) as i64);
}

const UNSUBSCRIBE: Spec = Spec {
    name: "unsubscribe",
    arity: Arity::AtLeast(1),
    flags: Flags::LOADING.union(Flags::NOSCRIPT).union(Flags::PUBSUB).union(Flags::STALE),
    group: Group::PubSub,
    since: "2.0.0",
    summary: "Stops listening to channels.",
    complexity: "O(N) for N channels",
    args: &[Arg { name: "channel", kind: ArgKind::String, optional: true, multiple: true, ..Arg::NEW }],
    handler: Some(unsubscribe),
    ..Spec::NEW
};

fn unsubscribe(cx: &mut Cx) -> Outcome {
    stop_listening(cx, Kind::Channel, "unsubscribe")
}

const PSUBSCRIBE: Spec = Spec {
    name: "psubscribe",
    arity: Arity::AtLeast(2),
    flags: Flags::LOADING.union(Flags::NOSCRIPT).union(Flags::PUBSUB).union(Flags::STALE),
    group: Group::PubSub,
    since: "2.0.0",
    summary: "Listens to all channels whose names match patterns.",
    complexity: "O(N) for N patterns",
    args: &[Arg { name: "pattern", kind: ArgKind::Pattern, multiple: true, ..Arg::NEW }],
    handler: Some(psubscribe),
    ..Spec::NEW
};

fn psubscribe(cx: &mut Cx) -> Outcome {
    listen(cx, Kind::Pattern, "psubscribe")
}

const PUNSUBSCRIBE: Spec = Spec {
    name: "punsubscribe",
    arity: Arity::AtLeast(1),
    flags: Flags::LOADING.union(Flags::NOSCRIPT).union(Flags::PUBSUB).union(Flags::STALE),
    group: Group::PubSub,
    since: "2.0.0",
    summary: "Stops listening to what matches patterns.",
    complexity: "O(N) for N patterns",
    args: &[Arg { name: "pattern", kind: ArgKind::Pattern, optional: true, multiple: true, ..Arg::NEW }],
    handler: Some(punsubscribe),
    ..Spec::NEW
};

fn punsubscribe(cx: &mut Cx) -> Outcome {
    stop_listening(cx, Kind::Pattern, "punsubscribe")
}

const SSUBSCRIBE: Spec = Spec {
    name: "ssubscribe",
    arity: Arity::AtLeast(2),
    flags: Flags::LOADING.union(Flags::NOSCRIPT).union(Flags::PUBSUB).union(Flags::STALE),
    group: Group::PubSub,
    since: "7.0.0",
    summary: "Listens to shard channels.",
    complexity: "O(N) for N shard channels",
    key_specs: &[KeySpec::keys(1, -1, KeyFlags::NOT_KEY)],
    args: &[Arg { name: "shardchannel", kind: ArgKind::String, multiple: true, ..Arg::NEW }],
    handler: Some(ssubscribe),
    ..Spec::NEW
};

fn ssubscribe(cx: &mut Cx) -> Outcome {
    listen(cx, Kind::Shard, "ssubscribe")
}

const SUNSUBSCRIBE: Spec = Spec {
    name: "sunsubscribe",
    arity: Arity::AtLeast(1),
    flags: Flags::LOADING.union(Flags::NOSCRIPT).union(Flags::PUBSUB).union(Flags::STALE),
    group: Group::PubSub,
    since: "7.0.0",
    summary: "Stops listening to shard channels.",
    complexity: "O(N) for N shard channels",
    key_specs: &[KeySpec::keys(1, -1, KeyFlags::NOT_KEY)],
    args: &[Arg { name: "shardchannel", kind: ArgKind::String, optional: true, multiple: true, ..Arg::NEW }],
    handler: Some(sunsubscribe),
    ..Spec::NEW
};

fn sunsubscribe(cx: &mut Cx) -> Outcome {
    stop_listening(cx, Kind::Shard, "sunsubscribe")
}

const PUBLISH: Spec = Spec {
    name: "publish",
    arity: Arity::Exactly(3),
    flags: Flags::FAST
        .union(Flags::LOADING)
        .union(Flags::MAY_REPLICATE)
        .union(Flags::PUBSUB)
        .union(Flags::STALE),
    group: Group::PubSub,
    since: "2.0.0",
    summary: "Sends a message to a channel.",
    complexity: "O(N+M) for N subscribers of the channel and M patterns",
    args: &[
        Arg { name: "channel", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "message", kind: ArgKind::String, ..Arg::NEW },
    ],
    handler: Some(publish),
    ..Spec::NEW
};

fn publish(cx: &mut Cx) -> Outcome {
    let receivers = cx.shared.pubsub.publish(cx.arg(1), cx.arg(2), cx.outbox);
    cx.reply.integer(receivers as i64);
    pass_on(cx);
    Ok(Effect::None)
}

/// Replicas have subscribers, too.
fn pass_on(cx: &Cx) {
    if cx.journal_on() && cx.session.origin == Origin::Client {
        cx.shared.replication.tell_replicas(cx.keys.db, cx.args);
    }
}

const SPUBLISH: Spec = Spec {
    name: "spublish",
    arity: Arity::Exactly(3),
    flags: Flags::FAST
        .union(Flags::LOADING)
        .union(Flags::MAY_REPLICATE)
        .union(Flags::PUBSUB)
        .union(Flags::STALE),
    group: Group::PubSub,
    since: "7.0.0",
    summary: "Sends a message to a shard channel.",
    complexity: "O(N) for N subscribers of the shard channel",
    key_specs: &[KeySpec::key(1, KeyFlags::NOT_KEY)],
    args: &[
        Arg { name: "shardchannel", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "message", kind: ArgKind::String, ..Arg::NEW },
    ],
    handler: Some(spublish),
    ..Spec::NEW
};

fn spublish(cx: &mut Cx) -> Outcome {
    let receivers = cx.shared.pubsub.publish_shard(cx.arg(1), cx.arg(2), cx.outbox);
    cx.reply.integer(receivers as i64);
    Ok(Effect::None)
}

const PUBSUB: Spec = Spec {
    name: "pubsub",
    arity: Arity::AtLeast(2),
    group: Group::PubSub,
    since: "2.8.0",
    summary: "Holds the commands about subscriptions.",
    complexity: "Depends on the subcommand.",
    subcommands: &[
        Spec {
            name: "channels",
            arity: Arity::AtLeast(2),
            flags: Flags::LOADING.union(Flags::PUBSUB).union(Flags::STALE),
            group: Group::PubSub,
            since: "2.8.0",
            summary: "Lists the channels that have subscribers.",
            complexity: "O(N) for N channels",
            args: &[Arg { name: "pattern", kind: ArgKind::Pattern, optional: true, ..Arg::NEW }],
            handler: Some(pubsub_channels),
            ..Spec::NEW
        },
        Spec {
            name: "help",
            arity: Arity::Exactly(2),
            flags: Flags::LOADING.union(Flags::STALE),
            group: Group::PubSub,
            since: "6.2.0",
            summary: "Shows how to use PUBSUB.",
            complexity: "O(1)",
            handler: Some(pubsub_help),
            ..Spec::NEW
        },
        Spec {
            name: "numpat",
            arity: Arity::Exactly(2),
            flags: Flags::LOADING.union(Flags::PUBSUB).union(Flags::STALE),
            group: Group::PubSub,
            since: "2.8.0",
            summary: "Counts the patterns that clients subscribed to.",
            complexity: "O(1)",
            handler: Some(pubsub_numpat),
            ..Spec::NEW
        },
        Spec {
            name: "numsub",
            arity: Arity::AtLeast(2),
            flags: Flags::LOADING.union(Flags::PUBSUB).union(Flags::STALE),
            group: Group::PubSub,
            since: "2.8.0",
            summary: "Counts the subscribers of channels.",
            complexity: "O(N) for N given channels",
            args: &[Arg {
                name: "channel",
                kind: ArgKind::String,
                optional: true,
                multiple: true,
                ..Arg::NEW
            }],
            handler: Some(pubsub_numsub),
            ..Spec::NEW
        },
        Spec {
            name: "shardchannels",
            arity: Arity::AtLeast(2),
            flags: Flags::LOADING.union(Flags::PUBSUB).union(Flags::STALE),
            group: Group::PubSub,
            since: "7.0.0",
            summary: "Lists the shard channels that have subscribers.",
            complexity: "O(N) for N shard channels",
            args: &[Arg { name: "pattern", kind: ArgKind::Pattern, optional: true, ..Arg::NEW }],
            handler: Some(pubsub_shardchannels),
            ..Spec::NEW
        },
        Spec {
            name: "shardnumsub",
            arity: Arity::AtLeast(2),
            flags: Flags::LOADING.union(Flags::PUBSUB).union(Flags::STALE),
            group: Group::PubSub,
            since: "7.0.0",
            summary: "Counts the subscribers of shard channels.",
            complexity: "O(N) for N given shard channels",
            args: &[Arg {
                name: "shardchannel",
                kind: ArgKind::String,
                optional: true,
                multiple: true,
                ..Arg::NEW
            }],
            handler: Some(pubsub_shardnumsub),
            ..Spec::NEW
        },
    ],
    ..Spec::NEW
};

fn pubsub_channels(cx: &mut Cx) -> Outcome {
    active(cx, Kind::Channel)
}

fn pubsub_shardchannels(cx: &mut Cx) -> Outcome {
    active(cx, Kind::Shard)
}

fn active(cx: &mut Cx, kind: Kind) -> Outcome {
    if cx.args.len() > 3 {
        return Err(wrong_arguments(cx));
    }
    let names = cx.shared.pubsub.active(kind, cx.args.get(2).copied());
    cx.reply.array(names.len());
    names.iter().for_each(|name| cx.reply.bulk(name));
    Ok(Effect::None)
}

fn wrong_arguments(cx: &Cx) -> CommandError {
    let word = cx.arg(1);
    let word = word.get(..128).unwrap_or(word);
    CommandError::quoting(
        "ERR unknown subcommand or wrong number of arguments for '{}'. Try PUBSUB HELP.",
        &[word],
    )
}

fn pubsub_numsub(cx: &mut Cx) -> Outcome {
    subscribers(cx, Kind::Channel)
}

fn pubsub_shardnumsub(cx: &mut Cx) -> Outcome {
    subscribers(cx, Kind::Shard)
}

/// An array in RESP3 too.
fn subscribers(cx: &mut Cx, kind: Kind) -> Outcome {
    let names = cx.args.get(2..).unwrap_or_default();
    cx.reply.array(names.len() * 2);
    for name in names {
        cx.reply.bulk(name);
        cx.reply.integer(cx.shared.pubsub.subscribers(kind, name) as i64);
    }
    Ok(Effect::None)
}

fn pubsub_numpat(cx: &mut Cx) -> Outcome {
    cx.reply.integer(cx.shared.pubsub.count(Kind::Pattern) as i64);
    Ok(Effect::None)
}

fn pubsub_help(cx: &mut Cx) -> Outcome {
    cx.reply_help(&[
        "CHANNELS [<pattern>]",
        "    List the channels that have subscribers, those that match a pattern or all.",
        "NUMPAT",
        "    Return the number of patterns that clients subscribed to.",
        "NUMSUB [<channel> ...]",
        "    Return the number of subscribers of each channel, without those of patterns.",
        "SHARDCHANNELS [<pattern>]",
        "    List the shard channels that have subscribers, those that match a pattern or all.",
        "SHARDNUMSUB [<shardchannel> ...]",
        "    Return the number of subscribers of each shard channel.",
    ]);
    Ok(Effect::None)
}
