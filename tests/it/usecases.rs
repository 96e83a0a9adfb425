//! What a platform's cache is for, each through a popular library of Python and of Node: sessions, limits of rates, a
//! cache of answers, flags. Once without a limit of memory, and once with one and allkeys-lru where the case is a cache.

use crate::clients::{node_with, python_with};
use kara_tests::Server;

/// The server's own 1.5 MB and room for some thousand values.
const LIMIT: &[&str] = &["--maxmemory", "16mb", "--maxmemory-policy", "allkeys-lru", "--io-threads", "2"];

fn python(case: &str) {
    let server = Server::start(&["--io-threads", "2"]);
    python_with("usecases.py", &[case, &server.port().to_string()]);
}

fn python_lru(case: &str) {
    let server = Server::start(LIMIT);
    python_with("usecases.py", &[case, &server.port().to_string(), "lru"]);
}

fn node(case: &str) {
    let server = Server::start(&["--io-threads", "2"]);
    node_with("usecases.mjs", &[case, &server.port().to_string()]);
}

fn node_lru(case: &str) {
    let server = Server::start(LIMIT);
    node_with("usecases.mjs", &[case, &server.port().to_string(), "lru"]);
}

#[test]
fn sessions_by_flask_session() {
    python("sessions");
    python_lru("sessions");
}

#[test]
fn sessions_by_connect_redis() {
    node("sessions");
    node_lru("sessions");
}

#[test]
fn limits_by_limits() {
    python("limits");
}

#[test]
fn limits_by_rate_limiter_flexible() {
    node("limits");
}

#[test]
fn answers_by_cachelib() {
    python("api-cache");
    python_lru("api-cache");
}

#[test]
fn answers_by_cache_manager() {
    node("api-cache");
    node_lru("api-cache");
}

#[test]
fn flags_by_valkey_py() {
    python("flags");
    python_lru("flags");
}

#[test]
fn flags_by_node_redis() {
    node("flags");
    node_lru("flags");
}
