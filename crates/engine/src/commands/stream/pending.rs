//! XPENDING, XCLAIM and XAUTOCLAIM: entries that were delivered and not acknowledged.

use super::super::prelude::*;
use super::{args, journal_claim, journal_group, no_group, reply_entry, reply_id};
use kara_keyspace::value::stream::{Claim, Claimed, Group as ConsumerGroup, Pending, Stream, StreamId};
use kara_resp::Writer;
use smallvec::SmallVec;

/// What XPENDING's long form asks for.
struct Filter<'a> {
    min_idle_ms: i64,
    start: StreamId,
    end: StreamId,
    count: usize,
    consumer: Option<&'a [u8]>,
}

pub(super) const XPENDING: Spec = Spec {
    name: "xpending",
    arity: Arity::AtLeast(3),
    flags: Flags::READONLY,
    acl: Acl::STREAM,
    group: Group::Stream,
    since: "5.0.0",
    summary: "Shows what a consumer group has delivered but not got acknowledged.",
    complexity: "O(N) for N returned (with IDLE: scanned) entries; the summary is O(N) in the consumers.",
    tips: &["nondeterministic_output"],
    key_specs: &[KeySpec::key(1, KeyFlags::RO.union(KeyFlags::ACCESS))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "group", kind: ArgKind::String, ..Arg::NEW },
        Arg {
            name: "filters",
            kind: ArgKind::Block,
            optional: true,
            args: &[
                Arg {
                    name: "min-idle-time",
                    kind: ArgKind::Integer,
                    token: Some("IDLE"),
                    since: "6.2.0",
                    optional: true,
                    ..Arg::NEW
                },
                Arg { name: "start", kind: ArgKind::String, ..Arg::NEW },
                Arg { name: "end", kind: ArgKind::String, ..Arg::NEW },
                Arg { name: "count", kind: ArgKind::Integer, ..Arg::NEW },
                Arg { name: "consumer", kind: ArgKind::String, optional: true, ..Arg::NEW },
            ],
            ..Arg::NEW
        },
    ],
    handler: Some(xpending),
    ..Spec::NEW
};

fn xpending(cx: &mut Cx) -> Outcome {
    let filter = match cx.args.len() {
        3 => None,
        6..=9 => Some(filter(cx)?),
        _ => return Err(CommandError::Syntax),
    };
    let (key, name, now_ms) = (cx.arg(1), cx.arg(2), cx.now_ms);
    let stream = cx.keys.read_as::<Stream>(key)?;
    let group = stream.and_then(|stream| stream.group(name)).ok_or_else(|| no_group(key, name))?;
    match filter {
        None => summary(cx.reply, group),
        Some(filter) => list(cx.reply, group, &filter, now_ms),
    }
    Ok(Effect::None)
}

fn filter<'a>(cx: &Cx<'a, '_>) -> Result<Filter<'a>, CommandError> {
    let (mut at, mut min_idle_ms) = (3, 0);
    if cx.is_word(3, "idle") {
        min_idle_ms = cx.int(4)?;
        if cx.args.len() < 8 {
            return Err(CommandError::Syntax);
        }
        at = 5;
    }
    Ok(Filter {
        min_idle_ms,
        count: usize::try_from(cx.int(at + 2)?).unwrap_or(0),
        start: args::interval_start(cx.arg(at))?,
        end: args::interval_end(cx.arg(at + 1))?,
        consumer: cx.args.get(at + 3).copied(),
    })
}

fn summary(reply: &mut Writer, group: &ConsumerGroup) {
    reply.array(4);
    reply.integer(group.pending_len() as i64);
    let Some((first, last)) = group.pending_bounds() else {
        reply.null();
        reply.null();
        reply.null_array();
        return;
    };
    reply_id(reply, first);
    reply_id(reply, last);
    let busy = || group.consumers().filter(|consumer| consumer.pending_len() > 0);
    reply.array(busy().count());
    for consumer in busy() {
        reply.array(2);
        reply.bulk(consumer.name());
        reply.bulk_u64(consumer.pending_len() as u64);
    }
}

fn list(reply: &mut Writer, group: &ConsumerGroup, filter: &Filter, now_ms: i64) {
    let ids = filter.start..=filter.end;
    let mark = reply.defer();
    let mut written = 0;
    let mut write = |(id, pending): (StreamId, &Pending)| {
        let idle_ms = now_ms.saturating_sub(pending.delivered_ms);
        if filter.min_idle_ms != 0 && idle_ms < filter.min_idle_ms {
            return false;
        }
        reply.array(4);
        reply_id(reply, id);
        reply.bulk(group.consumer(pending.consumer).name());
        reply.integer(idle_ms.max(0));
        reply.integer(pending.deliveries as i64);
        true
    };
    match filter.consumer.map(|name| group.find_consumer(name)) {
        None => {
            let mut all = group.pending_range(ids);
            while written < filter.count
                && let Some(item) = all.next()
            {
                written += usize::from(write(item));
            }
        }
        Some(Some(consumer)) => {
            let mut own = group.consumer_pending_range(consumer, ids);
            while written < filter.count
                && let Some(item) = own.next()
            {
                written += usize::from(write(item));
            }
        }
        // Nobody has nothing.
        Some(None) => {}
    }
    reply.end_array(mark, written);
}

/// XCLAIM's options, as far as they aren't positions.
struct ClaimOptions {
    delivered_ms: i64,
    deliveries: Option<u64>,
    last_id: StreamId,
    force: bool,
    just_id: bool,
}

fn claim_options(cx: &Cx, mut at: usize) -> Result<ClaimOptions, CommandError> {
    let now_ms = cx.now_ms;
    let mut options = ClaimOptions {
        delivered_ms: now_ms,
        deliveries: None,
        last_id: StreamId::MIN,
        force: false,
        just_id: false,
    };
    while at < cx.args.len() {
        let more = at + 1 < cx.args.len();
        // A time that makes no sense counts as now: clients' clocks differ.
        let sane = |time: i64| if (0..=now_ms).contains(&time) { time } else { now_ms };
        if cx.is_word(at, "force") {
            options.force = true;
        } else if cx.is_word(at, "justid") {
            options.just_id = true;
        } else if more && cx.is_word(at, "idle") {
            at += 1;
            let idle = number(cx.arg(at), "ERR Invalid IDLE option argument for XCLAIM")?;
            options.delivered_ms = sane(now_ms.wrapping_sub(idle));
        } else if more && cx.is_word(at, "time") {
            at += 1;
            options.delivered_ms = sane(number(cx.arg(at), "ERR Invalid TIME option argument for XCLAIM")?);
        } else if more && cx.is_word(at, "retrycount") {
            at += 1;
            let count = number(cx.arg(at), "ERR Invalid RETRYCOUNT option argument for XCLAIM")?;
            options.deliveries = u64::try_from(count).ok();
        } else if more && cx.is_word(at, "lastid") {
            at += 1;
            options.last_id = args::strict_id(cx.arg(at), 0)?;
        } else {
            return Err(CommandError::quoting("ERR Unrecognized XCLAIM option '{}'", &[cx.arg(at)]));
        }
        at += 1;
    }
    Ok(options)
}

fn number(text: &[u8], error: &'static str) -> Result<i64, CommandError> {
    parse_int(text).map_err(|_| CommandError::text(error))
}

/// Claims one entry; if that changed anything, the state to journal: the new one, or that of an entry which no
/// longer exists.
fn claim_one(
    stream: &mut Stream,
    target: &Target,
    id: StreamId,
    claim: &Claim,
    journal: &mut Vec<OwnedCommand>,
) -> Claimed {
    let owner = |stream: &Stream| -> Option<Vec<u8>> {
        let group = stream.group(target.group)?;
        Some(group.consumer(group.pending(id)?.consumer).name().to_vec())
    };
    let before = if target.journal_on { owner(stream) } else { None };
    let claimed = stream.claim(target.group, id, claim).unwrap_or(Claimed::Left);
    if target.journal_on
        && let Some(group) = stream.group(target.group)
    {
        let (owner, pending) = match &claimed {
            Claimed::Taken(pending) => (target.consumer, pending),
            Claimed::Gone(pending) => (before.as_deref().unwrap_or(target.consumer), pending),
            Claimed::Left => return claimed,
        };
        journal.push(journal_claim(target.key, target.group, group, owner, id, pending));
    }
    claimed
}

/// For whom entries are claimed.
struct Target<'a> {
    key: &'a [u8],
    group: &'a [u8],
    consumer: &'a [u8],
    journal_on: bool,
}

impl<'a> Target<'a> {
    fn new(cx: &Cx<'a, '_>) -> Self {
        Target { key: cx.arg(1), group: cx.arg(2), consumer: cx.arg(3), journal_on: cx.journal_on() }
    }
}

fn reply_claimed(reply: &mut Writer, stream: &Stream, id: StreamId, just_id: bool) {
    match stream.log().get(id) {
        Some(entry) if !just_id => reply_entry(reply, &entry),
        _ => reply_id(reply, id),
    }
}

pub(super) const XCLAIM: Spec = Spec {
    name: "xclaim",
    arity: Arity::AtLeast(6),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::STREAM,
    group: Group::Stream,
    since: "5.0.0",
    summary: "Makes a consumer the owner of pending entries.",
    complexity: "O(log N) for each id, N being the pending entries.",
    tips: &["nondeterministic_output"],
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::UPDATE))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "group", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "consumer", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "min-idle-time", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "id", kind: ArgKind::String, multiple: true, ..Arg::NEW },
        Arg { name: "ms", kind: ArgKind::Integer, token: Some("IDLE"), optional: true, ..Arg::NEW },
        Arg {
            name: "unix-time-milliseconds",
            kind: ArgKind::UnixTime,
            token: Some("TIME"),
            optional: true,
            ..Arg::NEW
        },
        Arg { name: "count", kind: ArgKind::Integer, token: Some("RETRYCOUNT"), optional: true, ..Arg::NEW },
        Arg::word("force", "FORCE").optional(),
        Arg::word("justid", "JUSTID").optional(),
        Arg { name: "lastid", kind: ArgKind::String, token: Some("LASTID"), optional: true, ..Arg::NEW },
    ],
    handler: Some(xclaim),
    ..Spec::NEW
};

fn xclaim(cx: &mut Cx) -> Outcome {
    let target = Target::new(cx);
    cx.keys.read(target.key);
    let now_ms = cx.now_ms;
    let known =
        cx.keys.write_as::<Stream>(target.key)?.is_some_and(|stream| stream.group(target.group).is_some());
    if !known {
        return Err(no_group(target.key, target.group));
    }
    let min_idle_ms = number(cx.arg(4), "ERR Invalid min-idle-time argument for XCLAIM")?.max(0);
    let ids: Vec<StreamId> = cx.args[5..].iter().map_while(|id| args::strict_id(id, 0).ok()).collect();
    let options = claim_options(cx, 5 + ids.len())?;

    let stream = cx.keys.write_as::<Stream>(target.key)?.ok_or_else(|| no_group(target.key, target.group))?;
    let group = stream.group_mut(target.group).ok_or_else(|| no_group(target.key, target.group))?;
    let advanced = options.last_id > group.last_id;
    group.last_id = group.last_id.max(options.last_id);
    let (consumer, created) = group.get_or_create_consumer(target.consumer, now_ms);
    group.consumer_mut(consumer).seen_ms = now_ms;
    let claim = Claim {
        consumer,
        min_idle_ms,
        delivered_ms: options.delivered_ms,
        now_ms,
        deliveries: options.deliveries,
        just_id: options.just_id,
        force: options.force,
    };

    let mut journal = Vec::new();
    let (mut taken, mut changes) = (0, 0);
    let mark = cx.reply.defer();
    for id in ids {
        match claim_one(stream, &target, id, &claim, &mut journal) {
            Claimed::Left => continue,
            Claimed::Gone(_) => {}
            Claimed::Taken(_) => {
                reply_claimed(cx.reply, stream, id, options.just_id);
                taken += 1;
            }
        }
        changes += 1;
    }
    cx.reply.end_array(mark, taken);
    // Claims carry the group's last id along.
    if advanced && changes == 0 {
        changes += 1;
        if target.journal_on
            && let Some(group) = stream.group(target.group)
        {
            journal.push(journal_group(target.key, target.group, group));
        }
    }
    finish(cx, target.key, created, changes, journal)
}

/// Tells of a new consumer and gives the effect.
fn finish(cx: &mut Cx, key: &[u8], created: bool, changes: u64, journal: Vec<OwnedCommand>) -> Outcome {
    if created {
        cx.keys.notify(Class::STREAM, "xgroup-createconsumer", key);
    }
    let changes = changes + u64::from(created);
    if changes == 0 {
        return Ok(Effect::None);
    }
    cx.extra_changes += changes - 1;
    Ok(Effect::Rewrite(SmallVec::from_vec(journal)))
}

/// XAUTOCLAIM looks at no more than this many pending entries for each that it may claim.
const ATTEMPTS_PER_ENTRY: u64 = 10;
/// The highest COUNT: the reference's limit for a table of that many ids.
const AUTOCLAIM_MAX_COUNT: i64 = i64::MAX / 16;
/// Beyond this COUNT the reference's table of ids doesn't fit into the address space.
const AUTOCLAIM_MAX_TABLE: u64 = (7 << 44) / 16;

pub(super) const XAUTOCLAIM: Spec = Spec {
    name: "xautoclaim",
    arity: Arity::AtLeast(6),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::STREAM,
    group: Group::Stream,
    since: "6.2.0",
    summary: "Makes a consumer the owner of the pending entries that were idle for long enough.",
    complexity: "O(1) if COUNT is small.",
    tips: &["nondeterministic_output"],
    key_specs: &[KeySpec::key(1, KeyFlags::RW.union(KeyFlags::DELETE))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "group", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "consumer", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "min-idle-time", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "start", kind: ArgKind::String, ..Arg::NEW },
        Arg { name: "count", kind: ArgKind::Integer, token: Some("COUNT"), optional: true, ..Arg::NEW },
        Arg::word("justid", "JUSTID").optional(),
    ],
    handler: Some(xautoclaim),
    ..Spec::NEW
};

fn xautoclaim(cx: &mut Cx) -> Outcome {
    let target = Target::new(cx);
    cx.keys.read(target.key);
    let now_ms = cx.now_ms;
    let min_idle_ms = number(cx.arg(4), "ERR Invalid min-idle-time argument for XAUTOCLAIM")?.max(0);
    let start = args::interval_start(cx.arg(5))?;
    let (mut count, mut just_id) = (100, false);
    let mut at = 6;
    while at < cx.args.len() {
        if cx.is_word(at, "count") && at + 1 < cx.args.len() {
            at += 1;
            count = parse_int(cx.arg(at))
                .ok()
                .filter(|count| (1..=AUTOCLAIM_MAX_COUNT).contains(count))
                .ok_or(CommandError::text("ERR COUNT must be > 0"))? as u64;
        } else if cx.is_word(at, "justid") {
            just_id = true;
        } else {
            return Err(CommandError::Syntax);
        }
        at += 1;
    }

    let missing = || no_group(target.key, target.group);
    let stream = cx.keys.write_as::<Stream>(target.key)?.ok_or_else(missing)?;
    let group = stream.group_mut(target.group).ok_or_else(missing)?;
    if count > AUTOCLAIM_MAX_TABLE {
        return Err(CommandError::text(
            "ERR Insufficient memory, failed allocating transient memory, COUNT too high.",
        ));
    }
    let (consumer, created) = group.get_or_create_consumer(target.consumer, now_ms);
    group.consumer_mut(consumer).seen_ms = now_ms;
    let claim = Claim {
        consumer,
        min_idle_ms,
        delivered_ms: now_ms,
        now_ms,
        deliveries: None,
        just_id,
        force: false,
    };

    let mut journal = Vec::new();
    let (mut taken, mut gone) = (0, Vec::new());
    let mut attempts = count.saturating_mul(ATTEMPTS_PER_ENTRY);
    let mut next = Some(start);
    // The cursor's place in the reply is in front of the entries, whose number tells where it stands.
    let whole = cx.reply.defer();
    let mut claimed_ids = Vec::new();
    while attempts > 0 && count > 0 {
        let Some(id) = next_pending(stream, target.group, next) else {
            next = None;
            break;
        };
        attempts -= 1;
        next = id.next();
        match claim_one(stream, &target, id, &claim, &mut journal) {
            Claimed::Left => continue,
            Claimed::Gone(_) => gone.push(id),
            Claimed::Taken(_) => {
                claimed_ids.push(id);
                taken += 1;
            }
        }
        count -= 1;
    }
    let cursor = next_pending(stream, target.group, next).unwrap_or(StreamId::MIN);
    reply_id(cx.reply, cursor);
    cx.reply.array(taken);
    for id in claimed_ids {
        reply_claimed(cx.reply, stream, id, just_id);
    }
    cx.reply.array(gone.len());
    for &id in &gone {
        reply_id(cx.reply, id);
    }
    cx.reply.end_array(whole, 3);
    let changes = taken as u64 + gone.len() as u64;
    finish(cx, target.key, created, changes, journal)
}

/// The first pending id at or behind `from`.
fn next_pending(stream: &Stream, group: &[u8], from: Option<StreamId>) -> Option<StreamId> {
    let mut pending = stream.group(group)?.pending_range(from?..=StreamId::MAX);
    pending.next().map(|(id, _)| id)
}
