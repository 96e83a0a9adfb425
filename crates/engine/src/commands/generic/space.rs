//! The keyspace as a whole: KEYS, SCAN, RANDOMKEY, DBSIZE, FLUSHALL, FLUSHDB, SWAPDB.

use crate::commands::prelude::*;
use crate::commands::shared::parse_cursor;
use crate::persist::jobs::JobKind;
use crate::persist::save::save;
use kara_base::glob::{self, Case};
use kara_base::ids::DbIndex;
use kara_keyspace::{Entry, Kind};

/// RANDOMKEY gives up on finding a key that isn't expired after this many picks, where it removes none.
const RANDOM_PICKS: usize = 100;

fn is_visible(cx: &Cx, entry: &Entry) -> bool {
    cx.keys.policy.see_expired || entry.expire_at_ms().is_none_or(|at_ms| at_ms >= cx.now_ms)
}

const FLUSH_TYPE: Arg = Arg {
    name: "flush-type",
    kind: ArgKind::Oneof,
    optional: true,
    args: &[Arg::word("async", "ASYNC").since("4.0.0"), Arg::word("sync", "SYNC").since("6.2.0")],
    ..Arg::NEW
};

pub(super) const KEYS: Spec = Spec {
    name: "keys",
    arity: Arity::Exactly(2),
    flags: Flags::READONLY,
    acl: Acl::DANGEROUS.union(Acl::KEYSPACE),
    group: Group::Generic,
    since: "1.0.0",
    summary: "Returns all keys that match a pattern.",
    complexity: "O(N) for N keys in the database",
    tips: &["request_policy:all_shards", "nondeterministic_output_order"],
    args: &[Arg { name: "pattern", kind: ArgKind::Pattern, ..Arg::NEW }],
    locks: Locks::All,
    handler: Some(keys),
    ..Spec::NEW
};

fn keys(cx: &mut Cx) -> Outcome {
    let pattern = cx.arg(1);
    let all = pattern == b"*";
    let mark = cx.reply.defer();
    let mut count = 0;
    let (now_ms, see_expired) = (cx.now_ms, cx.keys.policy.see_expired);
    for entry in cx.keys.space.iter(cx.keys.db) {
        let alive = see_expired || entry.expire_at_ms().is_none_or(|at_ms| at_ms >= now_ms);
        if alive && (all || glob::matches(pattern, entry.key(), Case::Sensitive)) {
            cx.reply.bulk(entry.key());
            count += 1;
        }
    }
    cx.reply.end_array(mark, count);
    Ok(Effect::None)
}

pub(super) const SCAN: Spec = Spec {
    name: "scan",
    arity: Arity::AtLeast(2),
    flags: Flags::READONLY,
    acl: Acl::KEYSPACE,
    group: Group::Generic,
    since: "2.8.0",
    summary: "Iterates over the keys, a few at a time.",
    complexity: "O(1) per call, O(N) for a whole iteration over N keys",
    tips: &["nondeterministic_output", "request_policy:special", "response_policy:special"],
    args: &[
        Arg { name: "cursor", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "pattern", kind: ArgKind::Pattern, token: Some("MATCH"), optional: true, ..Arg::NEW },
        Arg { name: "count", kind: ArgKind::Integer, token: Some("COUNT"), optional: true, ..Arg::NEW },
        Arg {
            name: "type",
            kind: ArgKind::String,
            token: Some("TYPE"),
            since: "6.0.0",
            optional: true,
            ..Arg::NEW
        },
    ],
    locks: Locks::Own,
    handler: Some(scan),
    ..Spec::NEW
};

fn scan(cx: &mut Cx) -> Outcome {
    let cursor = parse_cursor(cx.arg(1))?;
    let (mut count, mut pattern, mut kind) = (10usize, None, None);
    let mut words = cx.args[2..].iter().copied();
    while let Some(word) = words.next() {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        if is("COUNT") {
            count = parse_count(words.next())?;
        } else if is("MATCH") {
            pattern = Some(words.next().ok_or(CommandError::Syntax)?).filter(|p| p != b"*");
        } else if is("TYPE") {
            kind = Some(parse_kind(words.next().ok_or(CommandError::Syntax)?)?);
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let (mut found, mut expired): (Vec<Vec<u8>>, Vec<Vec<u8>>) = (Vec::new(), Vec::new());
    let show = |entry: &Entry| {
        let fits = kind.is_none_or(|kind| entry.kind() == kind)
            && pattern.is_none_or(|pattern| glob::matches(pattern, entry.key(), Case::Sensitive));
        if fits {
            // Of what has expired, only what would have been shown is removed on the way.
            let list = if is_visible(cx, entry) { &mut found } else { &mut expired };
            list.push(entry.key().to_vec());
        }
    };
    let next = if cx.keys.space.holds_all() {
        cx.keys.space.scan(cx.keys.db, cursor, count, show)
    } else {
        let next = cx.shared.keyspace.scan_step(cx.keys.db, cursor, count, show);
        next.ok_or_else(|| cx.shared.scripts.busy_error())?
    };
    // All shards: the removals must be journaled before any of their locks is given back. Where they can't be had,
    // somebody else will find the keys.
    if !expired.is_empty() && cx.keys.space.try_relock_all() {
        for key in &expired {
            cx.keys.exists(key);
        }
    }
    cx.reply.array(2);
    cx.reply.bulk_u64(next);
    cx.reply.array(found.len());
    for key in &found {
        cx.reply.bulk(key);
    }
    Ok(Effect::None)
}

/// COUNT's argument; at least 1. Counts beyond any collection are as good as the largest.
pub(crate) fn parse_count(word: Option<&[u8]>) -> Result<usize, CommandError> {
    let count = parse_int(word.ok_or(CommandError::Syntax)?)?;
    if count < 1 {
        return Err(CommandError::Syntax);
    }
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

fn parse_kind(word: &[u8]) -> Result<Kind, CommandError> {
    let kinds = [Kind::String, Kind::List, Kind::Set, Kind::ZSet, Kind::Hash, Kind::Stream];
    kinds
        .into_iter()
        .find(|kind| word.eq_ignore_ascii_case(kind.name().as_bytes()))
        .ok_or_else(|| CommandError::quoting("ERR unknown type name '{}'", &[word]))
}

pub(super) const RANDOMKEY: Spec = Spec {
    name: "randomkey",
    arity: Arity::Exactly(1),
    flags: Flags::READONLY,
    acl: Acl::KEYSPACE,
    group: Group::Generic,
    since: "1.0.0",
    summary: "Returns a random key.",
    complexity: "O(1)",
    tips: &["request_policy:all_shards", "response_policy:special", "nondeterministic_output"],
    locks: Locks::All,
    handler: Some(randomkey),
    ..Spec::NEW
};

fn randomkey(cx: &mut Cx) -> Outcome {
    let mut found = None;
    let mut picks = 0;
    while let Some(entry) = cx.keys.space.random_entry(cx.keys.db, cx.keys.rng) {
        let visible = is_visible(cx, entry);
        let key = entry.key().to_vec();
        picks += 1;
        // A key that has expired is removed on the way. Where this server may not do that and finds no other, it is
        // better than none.
        if visible || cx.keys.exists(&key) || !cx.keys.policy.delete_expired && picks == RANDOM_PICKS {
            found = Some(key);
            break;
        }
    }
    match found {
        None => cx.reply.null(),
        Some(key) => cx.reply.bulk(&key),
    }
    Ok(Effect::None)
}

pub(super) const DBSIZE: Spec = Spec {
    name: "dbsize",
    arity: Arity::Exactly(1),
    flags: Flags::FAST.union(Flags::READONLY),
    acl: Acl::KEYSPACE,
    group: Group::Server,
    since: "1.0.0",
    summary: "Returns the number of keys in the database.",
    complexity: "O(1)",
    tips: &["request_policy:all_shards", "response_policy:agg_sum"],
    locks: Locks::All,
    handler: Some(dbsize),
    ..Spec::NEW
};

fn dbsize(cx: &mut Cx) -> Outcome {
    cx.reply.integer(cx.keys.space.dbsize(cx.keys.db) as i64);
    Ok(Effect::None)
}

/// Empties one database or all, here or in the background.
fn flush(cx: &mut Cx, db: Option<DbIndex>) -> Outcome {
    let lazy = match cx.args {
        [_] => cx.config.lazyfree_lazy_user_flush,
        [_, word] if word.eq_ignore_ascii_case(b"SYNC") => false,
        [_, word] if word.eq_ignore_ascii_case(b"ASYNC") => true,
        _ => return Err(CommandError::Syntax),
    };
    let gone = cx.keys.space.flush(db);
    let count = gone.len() as u64;
    cx.keys.events.flushed(db);
    if lazy {
        cx.shared.reclaimer.free(Box::new(gone), count);
    } else {
        drop(gone);
    }
    // As many as there were keys, though replicas hear of it in any case. A save of an empty database leaves none.
    cx.stats.changes.add(count);
    cx.changes_counted = true;
    if db.is_none() {
        // So does the reference: the file must not bring back what was flushed.
        if let Some(job) = &*cx.shared.persist.job.lock()
            && job.kind == JobKind::Rdb
        {
            job.cancel();
        }
        if !cx.config.save.points.is_empty() {
            // A failure is in the log; the command has done its work. What it is about to count is in the file.
            if save(cx.shared, cx.config, cx.keys.space).is_ok() {
                cx.shared.persist.saved_ahead(1 + cx.extra_changes);
            }
        }
    }
    cx.reply.ok();
    Ok(Effect::Verbatim)
}

pub(super) const FLUSHALL: Spec = Spec {
    name: "flushall",
    arity: Arity::AtLeast(1),
    flags: Flags::WRITE,
    acl: Acl::DANGEROUS.union(Acl::KEYSPACE),
    group: Group::Server,
    since: "1.0.0",
    summary: "Deletes all keys of all databases.",
    complexity: "O(N) for N keys, O(1) with ASYNC",
    tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
    args: &[FLUSH_TYPE],
    locks: Locks::All,
    handler: Some(flushall),
    ..Spec::NEW
};

fn flushall(cx: &mut Cx) -> Outcome {
    flush(cx, None)
}

pub(super) const FLUSHDB: Spec = Spec {
    name: "flushdb",
    arity: Arity::AtLeast(1),
    flags: Flags::WRITE,
    acl: Acl::DANGEROUS.union(Acl::KEYSPACE),
    group: Group::Server,
    since: "1.0.0",
    summary: "Deletes all keys of the database.",
    complexity: "O(N) for N keys, O(1) with ASYNC",
    tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
    args: &[FLUSH_TYPE],
    locks: Locks::All,
    handler: Some(flushdb),
    ..Spec::NEW
};

fn flushdb(cx: &mut Cx) -> Outcome {
    let db = cx.keys.db;
    flush(cx, Some(db))
}

pub(super) const SWAPDB: Spec = Spec {
    name: "swapdb",
    arity: Arity::Exactly(3),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::DANGEROUS.union(Acl::KEYSPACE),
    group: Group::Server,
    since: "4.0.0",
    summary: "Swaps two databases.",
    complexity: "O(1)",
    args: &[
        Arg { name: "index1", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "index2", kind: ArgKind::Integer, ..Arg::NEW },
    ],
    locks: Locks::All,
    handler: Some(swapdb),
    ..Spec::NEW
};

fn swapdb(cx: &mut Cx) -> Outcome {
    let number = |word, error| parse_i32(word).map_err(|_| CommandError::text(error));
    let a = number(cx.arg(1), "ERR invalid first DB index")?;
    let b = number(cx.arg(2), "ERR invalid second DB index")?;
    let db = |n: i32| u64::try_from(n).ok().and_then(|n| cx.shared.keyspace.db(n));
    let (Some(a), Some(b)) = (db(a), db(b)) else {
        return Err(CommandError::text("ERR DB index is out of range"));
    };
    if a != b {
        cx.keys.space.swapdb(a, b);
        cx.keys.events.swapped(a, b);
    }
    cx.reply.ok();
    Ok(Effect::Verbatim)
}
