//! What disks and sudden ends do to data: crash rounds, power loss, snapshots under load. `cargo xtask crash`,
//! `power-loss` and `snapshot-load` run them; the tests take a sample.

pub mod crash;
pub mod load;
pub mod power;
mod volatile;
mod writers;

pub use writers::{Dice, Writers};
