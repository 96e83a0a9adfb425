//! GEORADIUS and its relatives: searches in a circle, under the older names. The search itself is in `search`.

use super::super::prelude::*;
use super::super::shared::{KEY, ONE_READ};
use super::search::{COUNT, Form, ORDER, WITHCOORD, WITHDIST, WITHHASH, search};
use super::{LATITUDE, LONGITUDE, UNIT, word};

const RADIUS: Arg = Arg { name: "radius", kind: ArgKind::Double, ..Arg::NEW };
/// The commands that are older than ANY.
const COUNT_SINCE_ANY: Arg = Arg {
    args: &[
        Arg { name: "count", kind: ArgKind::Integer, token: Some("COUNT"), ..Arg::NEW },
        Arg { since: "6.2.0", ..word("any", "ANY", true) },
    ],
    ..COUNT
};

/// The keys of GEORADIUS and GEORADIUSBYMEMBER: the set, and the destination that the handler will use, which is the
/// last one given.
fn radius_keys(args: &[&[u8]], found: &mut Vec<(usize, KeyFlags)>, form: Form) -> Result<(), ()> {
    found.push((1, KeyFlags::RO.union(KeyFlags::ACCESS)));
    let mut destination = None;
    let mut at = form.options_at();
    while let Some(word) = args.get(at) {
        if (word.eq_ignore_ascii_case(b"store") || word.eq_ignore_ascii_case(b"storedist"))
            && at + 1 < args.len()
        {
            destination = Some(at + 1);
            at += 1;
        } else if word.eq_ignore_ascii_case(b"count") {
            at += 1;
        }
        at += 1;
    }
    found.extend(destination.map(|at| (at, KeyFlags::OW.union(KeyFlags::UPDATE))));
    Ok(())
}

const STORE: Arg = Arg {
    name: "store",
    kind: ArgKind::Oneof,
    optional: true,
    args: &[
        Arg {
            name: "storekey",
            kind: ArgKind::Key,
            display: "key",
            token: Some("STORE"),
            key_spec: Some(1),
            ..Arg::NEW
        },
        Arg {
            name: "storedistkey",
            kind: ArgKind::Key,
            display: "key",
            token: Some("STOREDIST"),
            key_spec: Some(2),
            ..Arg::NEW
        },
    ],
    ..Arg::NEW
};

pub(super) const GEORADIUS: Spec = Spec {
    name: "georadius",
    arity: Arity::AtLeast(6),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::GEO,
    group: Group::Geo,
    since: "3.2.0",
    summary: "Gives or stores the members within a distance of a position.",
    complexity: "O(N + log M), N being the number of members in the cells that cover the circle and M the size of the set.",
    key_specs: &[
        KeySpec::key(1, KeyFlags::RO.union(KeyFlags::ACCESS)),
        KeySpec {
            notes: "",
            flags: KeyFlags::OW.union(KeyFlags::UPDATE).union(KeyFlags::VARIABLE_FLAGS),
            begin: Begin::Keyword { keyword: "STORE", start_from: 6 },
            find: Find::Range { last: 0, step: 1, limit: 0 },
        },
        KeySpec {
            notes: "",
            flags: KeyFlags::OW.union(KeyFlags::UPDATE).union(KeyFlags::VARIABLE_FLAGS),
            begin: Begin::Keyword { keyword: "STOREDIST", start_from: 6 },
            find: Find::Range { last: 0, step: 1, limit: 0 },
        },
    ],
    args: &[
        KEY,
        LONGITUDE,
        LATITUDE,
        RADIUS,
        UNIT,
        WITHCOORD,
        WITHDIST,
        WITHHASH,
        COUNT_SINCE_ANY,
        ORDER,
        STORE,
    ],
    get_keys: Some(georadius_keys),
    handler: Some(georadius),
    ..Spec::NEW
};

fn georadius_keys(args: &[&[u8]], found: &mut Vec<(usize, KeyFlags)>) -> Result<(), ()> {
    radius_keys(args, found, Form::Radius)
}

fn georadius(cx: &mut Cx) -> Outcome {
    search(cx, Form::Radius, true)
}

pub(super) const GEORADIUS_RO: Spec = Spec {
    name: "georadius_ro",
    arity: Arity::AtLeast(6),
    flags: Flags::READONLY,
    acl: Acl::GEO,
    group: Group::Geo,
    since: "3.2.10",
    summary: "Gives the members within a distance of a position.",
    complexity: "O(N + log M), N being the number of members in the cells that cover the circle and M the size of the set.",
    key_specs: ONE_READ,
    args: &[KEY, LONGITUDE, LATITUDE, RADIUS, UNIT, WITHCOORD, WITHDIST, WITHHASH, COUNT_SINCE_ANY, ORDER],
    handler: Some(georadius_ro),
    ..Spec::NEW
};

fn georadius_ro(cx: &mut Cx) -> Outcome {
    search(cx, Form::Radius, false)
}

pub(super) const GEORADIUSBYMEMBER: Spec = Spec {
    name: "georadiusbymember",
    arity: Arity::AtLeast(5),
    flags: Flags::DENYOOM.union(Flags::WRITE),
    acl: Acl::GEO,
    group: Group::Geo,
    since: "3.2.0",
    summary: "Gives or stores the members within a distance of another member.",
    complexity: "O(N + log M), N being the number of members in the cells that cover the circle and M the size of the set.",
    key_specs: &[
        KeySpec::key(1, KeyFlags::RO.union(KeyFlags::ACCESS)),
        KeySpec {
            notes: "",
            flags: KeyFlags::OW.union(KeyFlags::UPDATE).union(KeyFlags::VARIABLE_FLAGS),
            begin: Begin::Keyword { keyword: "STORE", start_from: 5 },
            find: Find::Range { last: 0, step: 1, limit: 0 },
        },
        KeySpec {
            notes: "",
            flags: KeyFlags::OW.union(KeyFlags::UPDATE).union(KeyFlags::VARIABLE_FLAGS),
            begin: Begin::Keyword { keyword: "STOREDIST", start_from: 5 },
            find: Find::Range { last: 0, step: 1, limit: 0 },
        },
    ],
    args: &[
        KEY,
        Arg { name: "member", kind: ArgKind::String, ..Arg::NEW },
        RADIUS,
        UNIT,
        WITHCOORD,
        WITHDIST,
        WITHHASH,
        COUNT,
        ORDER,
        STORE,
    ],
    get_keys: Some(georadiusbymember_keys),
    handler: Some(georadiusbymember),
    ..Spec::NEW
};

fn georadiusbymember_keys(args: &[&[u8]], found: &mut Vec<(usize, KeyFlags)>) -> Result<(), ()> {
    radius_keys(args, found, Form::RadiusByMember)
}

fn georadiusbymember(cx: &mut Cx) -> Outcome {
    search(cx, Form::RadiusByMember, true)
}

pub(super) const GEORADIUSBYMEMBER_RO: Spec = Spec {
    name: "georadiusbymember_ro",
    arity: Arity::AtLeast(5),
    flags: Flags::READONLY,
    acl: Acl::GEO,
    group: Group::Geo,
    since: "3.2.10",
    summary: "Gives the members within a distance of another member.",
    complexity: "O(N + log M), N being the number of members in the cells that cover the circle and M the size of the set.",
    key_specs: ONE_READ,
    args: &[
        KEY,
        Arg { name: "member", kind: ArgKind::String, ..Arg::NEW },
        RADIUS,
        UNIT,
        WITHCOORD,
        WITHDIST,
        WITHHASH,
        COUNT,
        ORDER,
    ],
    handler: Some(georadiusbymember_ro),
    ..Spec::NEW
};

fn georadiusbymember_ro(cx: &mut Cx) -> Outcome {
    search(cx, Form::RadiusByMember, false)
}
