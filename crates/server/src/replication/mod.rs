//! Replication's sockets: a thread for all replicas, one for the link to our primary. Workers only hand connections over.

mod dual;
mod fanout;
mod link;
mod replicas;
mod transfer;
mod upstream;
mod wire;

pub use replicas::{Handle, NewReplica, Replicas};
pub use upstream::run as run_upstream;
