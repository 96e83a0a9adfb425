//! What the black-box tests share: servers in processes of their own, a small client, and the differential
//! runner that sends the same commands to this server and to a reference and compares the replies.
//!
//! Nothing here links the database: a test sees what a user sees, over TCP.
#![forbid(unsafe_code)]

pub mod client;
pub mod collections;
pub mod differential;
pub mod disk;
pub mod eviction;
pub mod golden;
pub mod linear;
pub mod replication;
pub mod reply;
pub mod server;
pub mod tools;

pub use client::Client;
pub use reply::Reply;
pub use server::{Server, free_port, own_program};

use std::path::{Path, PathBuf};

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// The folder that `cargo xtask peers` fills: `.peers/`, or `$KARA_PEERS` where several checkouts share one.
pub fn peers() -> PathBuf {
    std::env::var_os("KARA_PEERS").map_or_else(|| root().join(".peers"), PathBuf::from)
}
