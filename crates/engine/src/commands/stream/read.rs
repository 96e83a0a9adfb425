//! XREAD and XREADGROUP. The same reading of the arguments finds the keys for ACL, locks and cluster and runs the
//! command, so that the two can't see different ones.

use super::super::prelude::*;
use super::range::reply_entries;
use super::{args, journal_claim, journal_group, reply_entry, reply_fields, reply_id};
use crate::blocking::WaitFor;
use kara_keyspace::Kind;
use kara_keyspace::value::stream::{ConsumerId, Stream, StreamId};
use kara_resp::Writer;
use smallvec::SmallVec;

/// What XREAD and XREADGROUP are asked.
struct Request<'a> {
    group: Option<(&'a [u8], &'a [u8])>,
    /// At most so many entries of each stream.
    count: Option<usize>,
    no_ack: bool,
    /// How long to wait, in milliseconds, where there is nothing; 0: for ever.
    block_ms: Option<i64>,
    /// The position of the first key, and how many keys there are; as many ids follow.
    keys_at: usize,
    keys: usize,
}

impl<'a> Request<'a> {
    /// Reads the arguments of XREAD or (`is_group`) XREADGROUP.
    fn parse(args: &[&'a [u8]], is_group: bool, now_ms: i64) -> Result<Self, CommandError> {
        let mut request =
            Request { group: None, count: None, no_ack: false, block_ms: None, keys_at: 0, keys: 0 };
        let mut at = 1;
        while at < args.len() {
            let more = args.len() - 1 - at;
            let is = |word: &str| args[at].eq_ignore_ascii_case(word.as_bytes());
            if more >= 1 && is("block") {
                at += 1;
                request.block_ms = Some(parse_block_ms(args[at], now_ms)?);
            } else if more >= 1 && is("count") {
                at += 1;
                // Zero and less mean all.
                request.count = usize::try_from(parse_int(args[at])?).ok().filter(|&count| count > 0);
            } else if more >= 1 && is("streams") {
                request.keys_at = at + 1;
                request.keys = more / 2;
                if !more.is_multiple_of(2) {
                    return Err(unbalanced(is_group));
                }
                break;
            } else if more >= 2 && is("group") {
                if !is_group {
                    return Err(CommandError::text(
                        "ERR The GROUP option is only supported by XREADGROUP. You called XREAD instead.",
                    ));
                }
                request.group = Some((args[at + 1], args[at + 2]));
                at += 2;
            } else if is("noack") {
                if !is_group {
                    return Err(CommandError::text(
                        "ERR The NOACK option is only supported by XREADGROUP. You called XREAD instead.",
                    ));
                }
                request.no_ack = true;
            } else {
                return Err(CommandError::Syntax);
            }
            at += 1;
        }
        if request.keys_at == 0 {
            return Err(CommandError::Syntax);
        }
        if is_group && request.group.is_none() {
            return Err(CommandError::text("ERR Missing GROUP option for XREADGROUP"));
        }
        Ok(request)
    }

    /// Pairs of key and id.
    fn streams<'b>(&self, args: &'b [&'a [u8]]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a, 'b> {
        let keys = &args[self.keys_at..self.keys_at + self.keys];
        let ids = &args[self.keys_at + self.keys..];
        keys.iter().copied().zip(ids.iter().copied())
    }

    /// Waits for entries, if that was asked for and may be. `args` are for the next attempt, where they differ.
    fn wait(&self, cx: &mut Cx, args: Option<OwnedCommand>) {
        let Some(timeout_ms) = self.block_ms else { return };
        let keys = self.keys_at..self.keys_at + self.keys;
        let wait = WaitFor::key(Kind::Stream, keys, timeout_ms);
        cx.wait(WaitFor { on_nokey: self.group.is_some(), args, ..wait });
    }
}

fn parse_block_ms(text: &[u8], now_ms: i64) -> Result<i64, CommandError> {
    let timeout_ms =
        parse_int(text).map_err(|_| CommandError::text("ERR timeout is not an integer or out of range"))?;
    if timeout_ms < 0 {
        return Err(CommandError::text("ERR timeout is negative"));
    }
    if timeout_ms.checked_add(now_ms).is_none() {
        return Err(CommandError::text("ERR timeout is out of range"));
    }
    Ok(timeout_ms)
}

fn unbalanced(is_group: bool) -> CommandError {
    let (name, symbol) = if is_group { ("xreadgroup", '>') } else { ("xread", '$') };
    CommandError::owned(format!(
        "ERR Unbalanced '{name}' list of streams: for each stream key an ID or '{symbol}' must be specified."
    ))
}

/// The first half of what follows STREAMS, be the halves uneven or not: running says what is wrong.
fn found_keys(args: &[&[u8]], found: &mut Vec<(usize, KeyFlags)>) -> Result<(), ()> {
    let mut at = 1;
    loop {
        let word = args.get(at).ok_or(())?;
        at += match word.to_ascii_lowercase().as_slice() {
            b"streams" => break,
            b"block" | b"count" => 2,
            b"group" => 3,
            b"noack" => 1,
            _ => return Err(()),
        };
    }
    let first = at + 1;
    let keys = first..first + args.len().saturating_sub(first) / 2;
    if keys.is_empty() {
        return Err(());
    }
    found.extend(keys.map(|at| (at, KeyFlags::RO.union(KeyFlags::ACCESS))));
    Ok(())
}

const STREAMS: Arg = Arg {
    name: "streams",
    kind: ArgKind::Block,
    token: Some("STREAMS"),
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), multiple: true, ..Arg::NEW },
        Arg { name: "id", kind: ArgKind::String, multiple: true, ..Arg::NEW },
    ],
    ..Arg::NEW
};

pub(super) const XREAD: Spec = Spec {
    name: "xread",
    arity: Arity::AtLeast(4),
    flags: Flags::BLOCKING.union(Flags::READONLY),
    acl: Acl::STREAM,
    group: Group::Stream,
    since: "5.0.0",
    summary: "Returns entries of several streams behind given ids, waiting for some if asked to.",
    key_specs: &[KeySpec {
        notes: "",
        flags: KeyFlags::RO.union(KeyFlags::ACCESS),
        begin: Begin::Keyword { keyword: "STREAMS", start_from: 1 },
        find: Find::Range { last: -1, step: 1, limit: 2 },
    }],
    args: &[
        Arg { name: "count", kind: ArgKind::Integer, token: Some("COUNT"), optional: true, ..Arg::NEW },
        Arg {
            name: "milliseconds",
            kind: ArgKind::Integer,
            token: Some("BLOCK"),
            optional: true,
            ..Arg::NEW
        },
        STREAMS,
    ],
    get_keys: Some(found_keys),
    handler: Some(xread),
    ..Spec::NEW
};

fn xread(cx: &mut Cx) -> Outcome {
    let request = Request::parse(cx.args, false, cx.now_ms)?;
    let mut wanted: SmallVec<[(&[u8], StreamId); 4]> = SmallVec::with_capacity(request.keys.min(1024));
    for (key, id) in request.streams(cx.args) {
        let log = cx.keys.read_as::<Stream>(key)?.map(Stream::log);
        let after = match id {
            b"$" => log.map_or(StreamId::MIN, |log| log.last_id()),
            // The entry with the last id, if it is still there.
            b"+" => log.map_or(StreamId::MIN, |log| log.last_id().previous().unwrap_or(StreamId::MIN)),
            b">" => {
                return Err(CommandError::text(
                    "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.",
                ));
            }
            id => args::strict_id(id, 0)?,
        };
        wanted.push((key, after));
    }

    let mut streams = Streams::new(cx.reply);
    for &(key, after) in &wanted {
        let Some(log) = cx.keys.read_as::<Stream>(key)?.map(Stream::log) else { continue };
        if let Some(start) = after.next().filter(|_| log.last_entry_id() > after) {
            streams.begin(cx.reply, key);
            reply_entries(cx.reply, log.range(start, StreamId::MAX), request.count);
        }
    }
    if !streams.end(cx.reply) {
        let settled = cx.args.contains(&&b"$"[..]).then(|| with_settled_ids(cx.args, &request, &wanted));
        request.wait(cx, settled);
    }
    Ok(Effect::None)
}

/// XREAD's arguments with the ids that `$` stood for: entries that come from now on are new.
fn with_settled_ids(args: &[&[u8]], request: &Request<'_>, wanted: &[(&[u8], StreamId)]) -> OwnedCommand {
    let (options, ids) = args.split_at(request.keys_at + request.keys);
    let mut command = OwnedCommand::from_args(options);
    for (id, (_, after)) in ids.iter().zip(wanted) {
        match *id {
            b"$" => command.push(format!("{}-{}", after.ms, after.seq).as_bytes()),
            id => command.push(id),
        }
    }
    command
}

pub(super) const XREADGROUP: Spec = Spec {
    name: "xreadgroup",
    arity: Arity::AtLeast(7),
    flags: Flags::BLOCKING.union(Flags::WRITE),
    acl: Acl::STREAM,
    group: Group::Stream,
    since: "5.0.0",
    summary: "Delivers entries of several streams to a consumer of a group, or shows it its pending ones.",
    complexity: "O(N) for N returned entries.",
    key_specs: &[KeySpec {
        notes: "",
        flags: KeyFlags::RO.union(KeyFlags::ACCESS),
        begin: Begin::Keyword { keyword: "STREAMS", start_from: 4 },
        find: Find::Range { last: -1, step: 1, limit: 2 },
    }],
    args: &[
        Arg {
            name: "group-block",
            kind: ArgKind::Block,
            token: Some("GROUP"),
            args: &[
                Arg { name: "group", kind: ArgKind::String, ..Arg::NEW },
                Arg { name: "consumer", kind: ArgKind::String, ..Arg::NEW },
            ],
            ..Arg::NEW
        },
        Arg { name: "count", kind: ArgKind::Integer, token: Some("COUNT"), optional: true, ..Arg::NEW },
        Arg {
            name: "milliseconds",
            kind: ArgKind::Integer,
            token: Some("BLOCK"),
            optional: true,
            ..Arg::NEW
        },
        Arg::word("noack", "NOACK").optional(),
        STREAMS,
    ],
    get_keys: Some(found_keys),
    handler: Some(xreadgroup),
    ..Spec::NEW
};

/// What a consumer asks of a stream.
#[derive(Clone, Copy)]
enum Wish {
    /// `>`: what nobody has got yet.
    New,
    /// An id: its own pending entries behind that.
    Pending(StreamId),
}

fn xreadgroup(cx: &mut Cx) -> Outcome {
    let request = Request::parse(cx.args, true, cx.now_ms)?;
    let Some((group, consumer)) = request.group else { return Err(CommandError::Syntax) };
    let mut wishes: SmallVec<[(&[u8], Wish); 4]> = SmallVec::with_capacity(request.keys.min(1024));
    for (key, id) in request.streams(cx.args) {
        cx.keys.read(key);
        let known = cx.keys.write_as::<Stream>(key)?.is_some_and(|stream| stream.group(group).is_some());
        if !known {
            return Err(no_group_to_read(key, group));
        }
        let wish = match id {
            b">" => Wish::New,
            b"$" | b"+" => return Err(meaningless(char::from(id[0]))),
            // The highest id says the same as `>`.
            id => match args::strict_id(id, 0)? {
                StreamId::MAX => Wish::New,
                id => Wish::Pending(id),
            },
        };
        wishes.push((key, wish));
    }

    let mut streams = Streams::new(cx.reply);
    let mut reader = Reader {
        group,
        consumer,
        count: request.count.unwrap_or(usize::MAX),
        no_ack: request.no_ack,
        now_ms: cx.now_ms,
        journal_on: cx.journal_on(),
        journal: SmallVec::new(),
        changed: false,
    };
    for (key, wish) in wishes {
        let Some(stream) = cx.keys.write_as::<Stream>(key)? else { continue };
        let created = reader.read(key, stream, wish, cx.reply, &mut streams);
        if created {
            cx.keys.notify(Class::STREAM, "xgroup-createconsumer", key);
        }
    }
    if !streams.end(cx.reply) {
        request.wait(cx, None);
    }
    if !reader.changed {
        return Ok(Effect::None);
    }
    Ok(Effect::Rewrite(reader.journal))
}

/// One XREADGROUP on its way through its streams.
struct Reader<'a> {
    group: &'a [u8],
    consumer: &'a [u8],
    count: usize,
    no_ack: bool,
    now_ms: i64,
    journal_on: bool,
    journal: SmallVec<[OwnedCommand; 1]>,
    changed: bool,
}

impl Reader<'_> {
    /// Serves one stream; true if the consumer was made for it.
    fn read(
        &mut self,
        key: &[u8],
        stream: &mut Stream,
        wish: Wish,
        reply: &mut Writer,
        streams: &mut Streams,
    ) -> bool {
        let last_entry = stream.log().last_entry_id();
        let Some(group) = stream.group_mut(self.group) else { return false };
        let (consumer, created) = group.get_or_create_consumer(self.consumer, self.now_ms);
        group.consumer_mut(consumer).seen_ms = self.now_ms;
        self.changed |= created;
        // Delivered entries make the consumer on a replica; without them or their acknowledgement it is told.
        if created && self.no_ack && self.journal_on {
            let create = OwnedCommand::new("XGROUP").arg(b"CREATECONSUMER");
            self.journal.push(create.arg(key).arg(self.group).arg(self.consumer));
        }
        match wish {
            Wish::New if last_entry > group.last_id => {
                streams.begin(reply, key);
                self.deliver_new(key, stream, consumer, reply);
            }
            Wish::New => return created,
            Wish::Pending(after) => {
                streams.begin(reply, key);
                self.deliver_pending(stream, consumer, after, reply);
            }
        }
        self.changed = true;
        created
    }

    fn deliver_new(&mut self, key: &[u8], stream: &mut Stream, consumer: ConsumerId, reply: &mut Writer) {
        let Reader { group: name, consumer: consumer_name, count, no_ack, now_ms, journal_on, .. } = *self;
        let mark = reply.defer();
        let delivered = stream.read_new(name, consumer, count, no_ack, now_ms, |entry, group| {
            reply_entry(reply, entry);
            if journal_on && let Some(pending) = group.pending(entry.id).filter(|_| !no_ack) {
                self.journal.push(journal_claim(key, name, group, consumer_name, entry.id, pending));
            }
        });
        reply.end_array(mark, delivered.unwrap_or(0));
        if journal_on && let Some(group) = stream.group(name) {
            self.journal.push(journal_group(key, name, group));
        }
    }

    fn deliver_pending(
        &mut self,
        stream: &mut Stream,
        consumer: ConsumerId,
        after: StreamId,
        reply: &mut Writer,
    ) {
        let mark = reply.defer();
        // Behind the highest id there is nothing.
        let delivered = after.next().and_then(|start| {
            stream.read_pending(self.group, consumer, start, self.count, self.now_ms, |id, entry| {
                reply.array(2);
                reply_id(reply, id);
                match entry {
                    Some(entry) => reply_fields(reply, entry.fields.clone()),
                    None => reply.null_array(),
                }
            })
        });
        reply.end_array(mark, delivered.unwrap_or(0));
    }
}

fn no_group_to_read(key: &[u8], group: &[u8]) -> CommandError {
    CommandError::quoting(
        "NOGROUP No such key '{}' or consumer group '{}' in XREADGROUP with GROUP option",
        &[key, group],
    )
}

fn meaningless(id: char) -> CommandError {
    CommandError::owned(format!(
        "ERR The {id} ID is meaningless in the context of XREADGROUP: you want to read the history of this \
         consumer by specifying a proper ID, or use the > ID to get new messages. The {id} ID would just return an \
         empty result set."
    ))
}

/// The reply's outermost level: a map of streams in RESP3, an array of pairs in RESP2, null if none has anything.
struct Streams {
    mark: kara_resp::Mark,
    count: usize,
}

impl Streams {
    fn new(reply: &mut Writer) -> Self {
        Streams { mark: reply.defer(), count: 0 }
    }

    /// The next stream; its entries are to follow.
    fn begin(&mut self, reply: &mut Writer, key: &[u8]) {
        self.count += 1;
        if !reply.is_resp3() {
            reply.array(2);
        }
        reply.bulk(key);
    }

    /// Ends the reply; false where there was nothing.
    fn end(self, reply: &mut Writer) -> bool {
        if self.count == 0 {
            reply.abandon(self.mark);
            reply.null_array();
        } else if reply.is_resp3() {
            reply.end_map(self.mark, self.count);
        } else {
            reply.end_array(self.mark, self.count);
        }
        self.count > 0
    }
}
