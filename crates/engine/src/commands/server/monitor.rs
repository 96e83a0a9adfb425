//! MONITOR.

use crate::clients::ClientFlags;
use crate::commands::prelude::*;
use crate::session::Origin;

pub(super) const MONITOR: Spec = Spec {
    name: "monitor",
    arity: Arity::Exactly(1),
    flags: Flags::ADMIN.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
    group: Group::Server,
    since: "1.0.0",
    summary: "Shows every command that the server runs.",
    handler: Some(monitor),
    ..Spec::NEW
};

fn monitor(cx: &mut Cx) -> Outcome {
    if cx.origin != Origin::Client {
        // What a transaction answers is counted.
        return Err(CommandError::text("ERR MONITOR isn't allowed for DENY BLOCKING client"));
    }
    if !cx.session.monitor {
        cx.session.monitor = true;
        cx.session.info.set_flag(ClientFlags::MONITOR, true);
        cx.shared.monitors.add(&cx.session.info);
        cx.reply.ok();
    }
    Ok(Effect::None)
}
