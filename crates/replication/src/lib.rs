//! Layer 3: replication without sockets: the shared log of the stream, replication ids, the replica's handshake, what a
//! primary knows of its replicas. Packets and time come in, actions go out.
#![forbid(unsafe_code)]

pub mod backlog;
pub mod handshake;
pub mod ids;
pub mod replica;
