//! DUMP and RESTORE: one value as bytes, and back.

use crate::commands::prelude::*;
use crate::config::RdbVersionCheck;
use crate::log::Level;
use crate::persist::value_limits;
use kara_persist::rdb::decode::DecodeOptions;
use kara_persist::rdb::encode::EncodeOptions;
use kara_persist::rdb::{NEWEST, Version, payload};
use std::sync::atomic::Ordering::Relaxed;

pub(super) const DUMP: Spec = Spec {
    name: "dump",
    arity: Arity::Exactly(2),
    flags: Flags::READONLY,
    acl: Acl::KEYSPACE,
    group: Group::Generic,
    since: "2.6.0",
    summary: "Returns a key's value as bytes that RESTORE takes.",
    complexity: "O(1) to find the key, O(N*M) for N elements of M bytes",
    tips: &["nondeterministic_output"],
    key_specs: &[KeySpec::key(1, KeyFlags::RO.union(KeyFlags::ACCESS))],
    args: &[Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW }],
    handler: Some(dump),
    ..Spec::NEW
};

fn dump(cx: &mut Cx) -> Outcome {
    let options = EncodeOptions { version: Version::Valkey80, compress: cx.config.rdbcompression };
    match cx.keys.read(cx.args[1]) {
        None => cx.reply.null(),
        // The newest version tells every value.
        Some(entry) => match payload::dump(entry, options) {
            Ok(bytes) => cx.reply.bulk(&bytes),
            Err(_) => return Err(CommandError::text("ERR the value can't be serialized")),
        },
    }
    Ok(Effect::None)
}

pub(super) const RESTORE: Spec = Spec {
    name: "restore",
    arity: Arity::AtLeast(4),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::DANGEROUS.union(Acl::KEYSPACE),
    group: Group::Generic,
    since: "2.6.0",
    summary: "Creates a key from bytes that DUMP answered.",
    complexity: "O(1) to create the key, O(N*M) for N elements of M bytes; O(N*M*log(N)) for sorted sets",
    key_specs: &[KeySpec::key(1, KeyFlags::OW.union(KeyFlags::UPDATE))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "ttl", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "serialized-value", kind: ArgKind::String, ..Arg::NEW },
        Arg::word("replace", "REPLACE").since("3.0.0").optional(),
        Arg::word("absttl", "ABSTTL").since("5.0.0").optional(),
        Arg {
            name: "seconds",
            kind: ArgKind::Integer,
            token: Some("IDLETIME"),
            since: "5.0.0",
            optional: true,
            ..Arg::NEW
        },
        Arg {
            name: "frequency",
            kind: ArgKind::Integer,
            token: Some("FREQ"),
            since: "5.0.0",
            optional: true,
            ..Arg::NEW
        },
    ],
    handler: Some(restore),
    ..Spec::NEW
};

pub(super) const RESTORE_ASKING: Spec = Spec {
    name: "restore-asking",
    arity: Arity::AtLeast(4),
    flags: Flags::ASKING.union(Flags::DENYOOM).union(Flags::WRITE),
    acl: Acl::DANGEROUS.union(Acl::KEYSPACE),
    group: Group::Server,
    since: "3.0.0",
    syscmd: true,
    summary: "RESTORE within the cluster, of a slot that is being imported.",
    complexity: "As RESTORE",
    key_specs: &[KeySpec::key(1, KeyFlags::OW.union(KeyFlags::UPDATE))],
    args: &[
        Arg { name: "key", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "ttl", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "serialized-value", kind: ArgKind::String, ..Arg::NEW },
        Arg::word("replace", "REPLACE").since("3.0.0").optional(),
        Arg::word("absttl", "ABSTTL").since("5.0.0").optional(),
        Arg {
            name: "seconds",
            kind: ArgKind::Integer,
            token: Some("IDLETIME"),
            since: "5.0.0",
            optional: true,
            ..Arg::NEW
        },
        Arg {
            name: "frequency",
            kind: ArgKind::Integer,
            token: Some("FREQ"),
            since: "5.0.0",
            optional: true,
            ..Arg::NEW
        },
    ],
    handler: Some(restore),
    ..Spec::NEW
};

/// The words behind the payload.
#[derive(Default)]
struct Options {
    replace: bool,
    absolute: bool,
    idle_s: Option<u64>,
    frequency: Option<u8>,
}

impl Options {
    fn parse(words: &[&[u8]]) -> Result<Self, CommandError> {
        let mut options = Options::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if word.eq_ignore_ascii_case(b"replace") {
                options.replace = true;
            } else if word.eq_ignore_ascii_case(b"absttl") {
                options.absolute = true;
            } else if word.eq_ignore_ascii_case(b"idletime") && options.frequency.is_none() {
                let seconds = parse_int(words.next().ok_or(CommandError::Syntax)?)?;
                let refused = CommandError::text("ERR Invalid IDLETIME value, must be >= 0");
                options.idle_s = Some(u64::try_from(seconds).map_err(|_| refused)?);
            } else if word.eq_ignore_ascii_case(b"freq") && options.idle_s.is_none() {
                let frequency = parse_int(words.next().ok_or(CommandError::Syntax)?)?;
                let refused = CommandError::text("ERR Invalid FREQ value, must be >= 0 and <= 255");
                options.frequency = Some(u8::try_from(frequency).map_err(|_| refused)?);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }
}

fn restore(cx: &mut Cx) -> Outcome {
    let [_, key, ttl, bytes, words @ ..] = cx.args else { return Err(cx.arity_error()) };
    let options = Options::parse(words)?;
    if !options.replace && cx.keys.exists(key) {
        return Err(CommandError::text("BUSYKEY Target key name already exists."));
    }
    let ttl_ms = parse_int(ttl)?;
    if ttl_ms < 0 {
        return Err(CommandError::text("ERR Invalid TTL value, must be >= 0"));
    }
    let expire_at_ms = match (ttl_ms, options.absolute) {
        (0, _) => None,
        (at_ms, true) => Some(at_ms),
        (ttl_ms, false) => Some(ttl_ms.saturating_add(cx.now_ms)),
    };
    let relaxed = cx.config.rdb_version_check == RdbVersionCheck::Relaxed;
    let unsummed = cx.shared.persist.skip_checksum.load(Relaxed);
    let payload = payload::Payload::check(bytes, relaxed, unsummed)
        .ok_or(CommandError::text("ERR DUMP payload version or checksum are wrong"))?;
    let limits = value_limits(cx.config, cx.shared);
    let decoding = DecodeOptions { limits, version: NEWEST, drop_fields_before_ms: None };
    let (value, examined) = payload.load(&decoding).map_err(|fault| {
        cx.shared.host.log(Level::Warning, &format!("RESTORE of a corrupt payload: {fault}"));
        CommandError::text("ERR Bad data format")
    })?;
    cx.shared.persist.sanitizations.fetch_add(examined, Relaxed);
    let replaced = options.replace && cx.keys.delete(key);
    if expire_at_ms.is_some_and(|at_ms| at_ms < cx.now_ms) && cx.keys.policy.delete_expired {
        cx.reply.ok();
        if !replaced {
            return Ok(Effect::None);
        }
        cx.keys.changed(key, Class::GENERIC, "del");
        let name = if cx.keys.policy.lazy_overwrite { "UNLINK" } else { "DEL" };
        return Ok(Effect::rewrite(cx.journal_on(), || OwnedCommand::new(name).arg(key)));
    }
    cx.keys.set_value(key, value);
    if expire_at_ms.is_some() {
        cx.keys.set_expiry(key, expire_at_ms);
    }
    record_access(cx, key, &options);
    cx.keys.changed(key, Class::GENERIC, "restore");
    cx.reply.ok();
    match expire_at_ms {
        Some(at_ms) if !options.absolute => {
            let mut rewritten = OwnedCommand::new("RESTORE").arg(key).arg_i64(at_ms).arg(bytes);
            words.iter().for_each(|word| rewritten.push(word));
            Ok(Effect::rewrite(cx.journal_on(), || rewritten.arg(b"ABSTTL")))
        }
        _ => Ok(Effect::Verbatim),
    }
}

/// IDLETIME and FREQ, each where the eviction policy asks for it.
fn record_access(cx: &mut Cx, key: &[u8], options: &Options) {
    let access = cx.keys.access;
    let record = match (access.lfu, options.frequency, options.idle_s) {
        (Some(_), Some(frequency), _) => access.record_for_frequency(frequency),
        (None, _, Some(idle_s)) => access.record_for_idle(idle_s),
        _ => return,
    };
    if let Some(entry) = cx.keys.peek(key) {
        entry.set_lru(record);
    }
}
