//! Layer 4: the whole database without sockets: pipeline, commands, config, observation.
#![forbid(unsafe_code)]

pub mod access;
pub mod acl;
pub mod blocking;
pub mod clients;
pub mod commandlog;
pub mod commands;
pub mod config;
pub mod cx;
pub mod effect;
pub mod error;
pub mod events;
pub mod evict;
pub mod expire;
pub mod keyfind;
pub mod keys;
pub mod latency;
pub mod log;
pub mod metrics;
pub mod monitor;
pub mod observe;
pub mod outbox;
pub mod persist;
pub mod pipeline;
pub mod pubsub;
pub mod queue;
pub mod reclaim;
pub mod registry;
pub mod replication;
pub mod scripting;
pub mod session;
pub mod shared;
pub mod spec;
pub mod stats;
mod told;
pub mod tracking;
pub mod watch;
