//! Layer 4: the whole database without sockets: pipeline, commands, config, observation.

pub mod config;
