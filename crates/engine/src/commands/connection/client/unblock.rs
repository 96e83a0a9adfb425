//! CLIENT UNBLOCK: ending another client's wait.

use crate::blocking::Unblock;
use crate::clients::ClientId;
use crate::commands::prelude::*;

pub(super) const UNBLOCK: Spec = Spec {
    name: "unblock",
    arity: Arity::AtLeast(3),
    flags: Flags::ADMIN.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
    acl: Acl::CONNECTION,
    group: Group::Connection,
    since: "5.0.0",
    summary: "Ends another connection's wait.",
    complexity: "O(log N) for N connections",
    args: &[
        Arg { name: "client-id", kind: ArgKind::Integer, ..Arg::NEW },
        Arg {
            name: "unblock-type",
            kind: ArgKind::Oneof,
            optional: true,
            args: &[Arg::word("timeout", "TIMEOUT"), Arg::word("error", "ERROR")],
            ..Arg::NEW
        },
    ],
    handler: Some(unblock),
    ..Spec::NEW
};

fn unblock(cx: &mut Cx) -> Outcome {
    let how = match cx.args {
        [_, _, _, word] if word.eq_ignore_ascii_case(b"error") => Unblock::Error,
        [_, _, _, word] if !word.eq_ignore_ascii_case(b"timeout") => {
            return Err(CommandError::text("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"));
        }
        _ => Unblock::Timeout,
    };
    let id = u64::try_from(cx.int(2)?).unwrap_or(0);
    let waiter = cx.shared.clients.get(ClientId(id)).and_then(|client| client.waiter.lock().clone());
    let ended = waiter.is_some_and(|waiter| cx.unblock(&waiter, how));
    cx.reply.integer(i64::from(ended));
    Ok(Effect::None)
}
