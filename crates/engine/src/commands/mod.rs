//! The commands, a file (or folder) per family. Each file holds its specs, handlers, tests and `COMMANDS` slice.

pub mod acl;
pub mod bitmap;
pub mod config;
pub mod connection;
pub mod debug;
pub mod generic;
pub mod geo;
pub mod hash;
pub mod hyperloglog;
pub mod list;
pub mod persistence;
pub mod pubsub;
pub mod replication;
pub mod scripting;
pub mod server;
pub mod set;
mod shared;
pub mod sort;
pub mod stream;
pub mod string;
pub mod transactions;
pub mod zset;

use crate::spec::Spec;

/// What every family file starts with.
pub(crate) mod prelude {
    pub use crate::cx::{Cx, parse_float, parse_i32, parse_int};
    pub use crate::effect::{Effect, Outcome, OwnedCommand};
    pub use crate::error::CommandError;
    pub use crate::events::Class;
    pub use crate::spec::{
        Acl, Arg, ArgKind, Arity, Begin, Find, Flags, Group, KeyFlags, KeySpec, Locks, Spec,
    };
}

/// All families; the registry is built from these.
#[rustfmt::skip] // One family per line, so that additions don't collide.
pub const FAMILIES: &[&[Spec]] = &[
    acl::COMMANDS,
    bitmap::COMMANDS,
    config::COMMANDS,
    connection::COMMANDS,
    debug::COMMANDS,
    generic::COMMANDS,
    geo::COMMANDS,
    hash::COMMANDS,
    hyperloglog::COMMANDS,
    list::COMMANDS,
    persistence::COMMANDS,
    pubsub::COMMANDS,
    scripting::COMMANDS,
    replication::COMMANDS,
    set::COMMANDS,
    server::COMMANDS,
    sort::COMMANDS,
    stream::COMMANDS,
    string::COMMANDS,
    transactions::COMMANDS,
    zset::COMMANDS,
];
