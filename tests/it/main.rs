//! Black-box tests: every one starts its own server and talks to it over TCP.
#![forbid(unsafe_code)]

#[cfg(test)]
mod acl;
#[cfg(test)]
mod append_only;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod collections;
#[cfg(test)]
mod crowds;
#[cfg(test)]
mod cutover;
#[cfg(test)]
mod deploy;
#[cfg(test)]
mod differential;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod eviction;
#[cfg(test)]
mod expiry;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod files;
#[cfg(test)]
mod gaps;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod libraries;
#[cfg(test)]
mod linear;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod messages;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod migrate;
#[cfg(test)]
mod payloads;
#[cfg(test)]
mod pipelines;
#[cfg(test)]
mod replication;
#[cfg(test)]
mod script_security;
#[cfg(test)]
mod scripts;
#[cfg(test)]
mod shutdown;
#[cfg(test)]
mod signals;
#[cfg(test)]
mod snapshots;
#[cfg(test)]
mod threads;
mod usecases;
#[cfg(test)]
mod waiting;
