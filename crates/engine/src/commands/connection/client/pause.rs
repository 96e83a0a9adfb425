//! CLIENT PAUSE and CLIENT UNPAUSE: holding back all clients for a while.

use crate::commands::prelude::*;
use crate::shared::{Message, PauseMode};

pub(super) const PAUSE: Spec = Spec {
    name: "pause",
    arity: Arity::AtLeast(3),
    flags: Flags::ADMIN.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
    acl: Acl::CONNECTION,
    group: Group::Connection,
    since: "3.0.0",
    summary: "Holds back clients' commands for some time.",
    complexity: "O(1)",
    args: &[
        Arg { name: "timeout", kind: ArgKind::Integer, ..Arg::NEW },
        Arg {
            name: "mode",
            kind: ArgKind::Oneof,
            since: "6.2.0",
            optional: true,
            args: &[Arg::word("write", "WRITE"), Arg::word("all", "ALL")],
            ..Arg::NEW
        },
    ],
    handler: Some(pause),
    ..Spec::NEW
};

fn pause(cx: &mut Cx) -> Outcome {
    let mode = match () {
        () if cx.args.len() == 3 || cx.is_word(3, "ALL") => PauseMode::All,
        () if cx.is_word(3, "WRITE") => PauseMode::Writes,
        () => return Err(CommandError::text("ERR CLIENT PAUSE mode must be WRITE or ALL")),
    };
    let out_of_range = CommandError::text("ERR timeout is not an integer or out of range");
    let timeout_ms = parse_int(cx.arg(2)).map_err(|_| out_of_range.clone())?;
    if timeout_ms < 0 {
        return Err(CommandError::text("ERR timeout is negative"));
    }
    let until_ms = cx.now_ms.checked_add(timeout_ms).ok_or(out_of_range)?;
    cx.shared.pause.set(mode, until_ms, cx.now_ms);
    cx.reply.ok();
    Ok(Effect::None)
}

pub(super) const UNPAUSE: Spec = Spec {
    name: "unpause",
    arity: Arity::Exactly(2),
    flags: Flags::ADMIN.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
    acl: Acl::CONNECTION,
    group: Group::Connection,
    since: "6.2.0",
    summary: "Ends a pause.",
    complexity: "O(1)",
    handler: Some(unpause),
    ..Spec::NEW
};

fn unpause(cx: &mut Cx) -> Outcome {
    cx.shared.pause.clear();
    for worker in 0..cx.shared.workers {
        cx.shared.host.post(worker, Message::Resume);
    }
    cx.reply.ok();
    Ok(Effect::None)
}
