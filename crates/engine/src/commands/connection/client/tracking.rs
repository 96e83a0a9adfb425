//! CLIENT TRACKING and what goes with it: CACHING, GETREDIR, TRACKINGINFO.

use crate::clients::{ClientFlags, ClientId};
use crate::commands::prelude::*;
use crate::tracking::{Mode, TrackingState};
use std::sync::Arc;

pub(super) const CACHING: Spec = Spec {
    name: "caching",
    arity: Arity::Exactly(3),
    flags: Flags::ALLOW_BUSY.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
    acl: Acl::CONNECTION,
    group: Group::Connection,
    since: "6.0.0",
    summary: "Says whether the keys of the next command are tracked.",
    complexity: "O(1)",
    args: &[Arg {
        name: "mode",
        kind: ArgKind::Oneof,
        args: &[Arg::word("yes", "YES"), Arg::word("no", "NO")],
        ..Arg::NEW
    }],
    handler: Some(client_caching),
    ..Spec::NEW
};

fn client_caching(cx: &mut Cx) -> Outcome {
    let Some(tracking) = &mut cx.session.tracking else {
        return Err(CommandError::text(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode \
             enabled",
        ));
    };
    let word = cx.args.get(2).copied().unwrap_or_default();
    let (mode, error) = if word.eq_ignore_ascii_case(b"yes") {
        (Mode::OptIn, "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.")
    } else if word.eq_ignore_ascii_case(b"no") {
        (Mode::OptOut, "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.")
    } else {
        return Err(CommandError::Syntax);
    };
    if tracking.mode != mode {
        return Err(CommandError::text(error));
    }
    tracking.caching = true;
    cx.reply.ok();
    Ok(Effect::None)
}

pub(super) const GETREDIR: Spec = Spec {
    name: "getredir",
    arity: Arity::Exactly(2),
    flags: Flags::ALLOW_BUSY.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
    acl: Acl::CONNECTION,
    group: Group::Connection,
    since: "6.0.0",
    summary: "Returns the client that gets this connection's invalidations.",
    complexity: "O(1)",
    handler: Some(client_getredir),
    ..Spec::NEW
};

fn client_getredir(cx: &mut Cx) -> Outcome {
    cx.reply.integer(redirect(cx));
    Ok(Effect::None)
}

/// The number of the client that is told, 0 for this one, -1 for none.
fn redirect(cx: &Cx) -> i64 {
    match &cx.session.tracking {
        None => -1,
        Some(tracking) => tracking.redirect.map_or(0, |id| id.0 as i64),
    }
}

pub(super) const TRACKING: Spec = Spec {
    name: "tracking",
    arity: Arity::AtLeast(3),
    flags: Flags::LOADING.union(Flags::NOSCRIPT).union(Flags::STALE),
    acl: Acl::CONNECTION,
    group: Group::Connection,
    since: "6.0.0",
    summary: "Says whether the server tells when keys change that this connection has read.",
    complexity: "O(1)",
    args: &[
        Arg {
            name: "status",
            kind: ArgKind::Oneof,
            args: &[Arg::word("on", "ON"), Arg::word("off", "OFF")],
            ..Arg::NEW
        },
        Arg {
            name: "client-id",
            kind: ArgKind::Integer,
            token: Some("REDIRECT"),
            optional: true,
            ..Arg::NEW
        },
        Arg {
            name: "prefix",
            kind: ArgKind::String,
            token: Some("PREFIX"),
            optional: true,
            multiple: true,
            multiple_token: true,
            ..Arg::NEW
        },
        Arg::word("bcast", "BCAST").optional(),
        Arg::word("optin", "OPTIN").optional(),
        Arg::word("optout", "OPTOUT").optional(),
        Arg::word("noloop", "NOLOOP").optional(),
    ],
    handler: Some(client_tracking),
    ..Spec::NEW
};

/// The options as given.
#[derive(Default)]
struct Options {
    redirect: Option<ClientId>,
    bcast: bool,
    optin: bool,
    optout: bool,
    noloop: bool,
    prefixes: Vec<Arc<[u8]>>,
}

fn options(cx: &Cx) -> Result<Options, CommandError> {
    let mut options = Options::default();
    let mut at = 3;
    while at < cx.args.len() {
        let value = cx.args.get(at + 1).copied();
        match value {
            Some(id) if cx.is_word(at, "REDIRECT") => {
                if options.redirect.is_some() {
                    return Err(CommandError::text(
                        "ERR A client can only redirect to a single other client",
                    ));
                }
                let id = u64::try_from(parse_int(id)?).map(ClientId).ok();
                if id.is_none_or(|id| cx.shared.clients.get(id).is_none()) {
                    return Err(CommandError::text("ERR The client ID you want redirect to does not exist"));
                }
                options.redirect = id;
                at += 1;
            }
            Some(prefix) if cx.is_word(at, "PREFIX") => {
                options.prefixes.push(prefix.into());
                at += 1;
            }
            _ if cx.is_word(at, "BCAST") => options.bcast = true,
            _ if cx.is_word(at, "OPTIN") => options.optin = true,
            _ if cx.is_word(at, "OPTOUT") => options.optout = true,
            _ if cx.is_word(at, "NOLOOP") => options.noloop = true,
            _ => return Err(CommandError::Syntax),
        }
        at += 1;
    }
    Ok(options)
}

fn client_tracking(cx: &mut Cx) -> Outcome {
    let mut options = options(cx)?;
    if cx.is_word(2, "OFF") {
        cx.session.end_tracking(cx.shared);
        cx.reply.ok();
        return Ok(Effect::None);
    }
    if !cx.is_word(2, "ON") {
        return Err(CommandError::Syntax);
    }
    let before = cx.session.tracking.as_deref();
    check_modes(&options, before.map(|state| state.mode))?;
    let mut prefixes = before.map_or_else(Vec::new, |state| state.prefixes.clone());
    if options.bcast {
        if options.prefixes.is_empty() && prefixes.is_empty() {
            options.prefixes.push((*b"").into());
        }
        check_overlaps(&prefixes, &options.prefixes)?;
        prefixes.append(&mut options.prefixes);
        prefixes.sort();
        prefixes.dedup();
    }
    let mode = match () {
        () if options.bcast => Mode::Broadcast,
        () if options.optin => Mode::OptIn,
        () if options.optout => Mode::OptOut,
        () => Mode::Default,
    };
    let state = TrackingState {
        mode,
        noloop: options.noloop,
        redirect: options.redirect,
        caching: before.is_some_and(|state| state.caching),
        prefixes,
    };
    cx.shared.tracking.enable(&cx.session.info, &state);
    cx.session.tracking = Some(Box::new(state));
    cx.reply.ok();
    Ok(Effect::None)
}

/// Which options go with each other, and with how the client tracks already.
fn check_modes(options: &Options, before: Option<Mode>) -> Result<(), CommandError> {
    let refuse = |text| Err(CommandError::text(text));
    if !options.bcast && !options.prefixes.is_empty() {
        return refuse("ERR PREFIX option requires BCAST mode to be enabled");
    }
    if before.is_some_and(|mode| (mode == Mode::Broadcast) != options.bcast) {
        return refuse(
            "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling \
             it with a different mode.",
        );
    }
    if options.bcast && (options.optin || options.optout) {
        return refuse("ERR OPTIN and OPTOUT are not compatible with BCAST");
    }
    if options.optin && options.optout {
        return refuse("ERR You can't specify both OPTIN mode and OPTOUT mode");
    }
    if options.optin && before == Some(Mode::OptOut) || options.optout && before == Some(Mode::OptIn) {
        return refuse(
            "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling \
             it with a different mode.",
        );
    }
    Ok(())
}

/// No prefix of a client may begin with another one: it would hear of a key twice.
fn check_overlaps(known: &[Arc<[u8]>], new: &[Arc<[u8]>]) -> Result<(), CommandError> {
    let overlap = |a: &[u8], b: &[u8]| a.starts_with(b) || b.starts_with(a);
    let refuse = |a: &[u8], which: &str, b: &[u8]| {
        let text = format!(
            "ERR Prefix '{{}}' overlaps with {which} prefix '{{}}'. Prefixes for a single client must not overlap."
        );
        Err(CommandError::quoting(&text, &[a, b]))
    };
    for (at, prefix) in new.iter().enumerate() {
        if let Some(other) = known.iter().find(|other| overlap(prefix, other)) {
            return refuse(prefix, "an existing", other);
        }
        if let Some(other) = new.iter().skip(at + 1).find(|other| overlap(prefix, other)) {
            return refuse(prefix, "another provided", other);
        }
    }
    Ok(())
}

pub(super) const TRACKINGINFO: Spec = Spec {
    name: "trackinginfo",
    arity: Arity::Exactly(2),
    flags: Flags::LOADING.union(Flags::NOSCRIPT).union(Flags::STALE),
    acl: Acl::CONNECTION,
    group: Group::Connection,
    since: "6.2.0",
    summary: "Tells how this connection tracks keys.",
    complexity: "O(1)",
    handler: Some(client_trackinginfo),
    ..Spec::NEW
};

fn client_trackinginfo(cx: &mut Cx) -> Outcome {
    let mut flags = Vec::new();
    if let Some(tracking) = &cx.session.tracking {
        flags.push("on");
        match tracking.mode {
            Mode::Default => {}
            Mode::Broadcast => flags.push("bcast"),
            Mode::OptIn => flags.push("optin"),
            Mode::OptOut => flags.push("optout"),
        }
        match tracking.mode {
            Mode::OptIn if tracking.caching => flags.push("caching-yes"),
            Mode::OptOut if tracking.caching => flags.push("caching-no"),
            _ => {}
        }
        if tracking.noloop {
            flags.push("noloop");
        }
        if cx.session.info.flags().contains(ClientFlags::TRACKING_BROKEN_REDIRECT) {
            flags.push("broken_redirect");
        }
    } else {
        flags.push("off");
    }
    cx.reply.map(3);
    cx.reply.bulk(b"flags");
    cx.reply.set(flags.len());
    flags.iter().for_each(|flag| cx.reply.bulk(flag.as_bytes()));
    cx.reply.bulk(b"redirect");
    let redirect = redirect(cx);
    cx.reply.integer(redirect);
    cx.reply.bulk(b"prefixes");
    let prefixes = cx.session.tracking.as_deref().map_or(&[][..], |tracking| &tracking.prefixes);
    cx.reply.array(prefixes.len());
    prefixes.iter().for_each(|prefix| cx.reply.bulk(prefix));
    Ok(Effect::None)
}
