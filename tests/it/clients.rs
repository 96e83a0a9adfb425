//! Stock client libraries against our server: what an application does on its first day.

use kara_tests::{Server, peers, root};
use std::process::Command;

fn python(module: &str, protocol: &str) {
    let server = Server::start(&[]);
    python_with("smoke.py", &[module, protocol, &server.port().to_string()]);
}

/// Runs a program of tests/clients by the peers' Python.
pub fn python_with(program: &str, arguments: &[&str]) {
    let script = root().join("tests/clients").join(program);
    succeeds(Command::new(peers().join("venv/bin/python")).arg(script).args(arguments));
}

/// Likewise by Node.
pub fn node_with(program: &str, arguments: &[&str]) {
    let script = root().join("tests/clients").join(program);
    let mut command = Command::new(peers().join("bin/node"));
    succeeds(command.env("KARA_NODE", peers().join("node")).arg(script).args(arguments));
}

/// Libraries whose work is done by scripts, against two workers.
fn python_scripts(library: &str) {
    let server = Server::start(&["--io-threads", "2"]);
    python_with("scripts.py", &[library, &server.port().to_string()]);
}

fn node_scripts(library: &str) {
    let server = Server::start(&["--io-threads", "2"]);
    node_program("scripts.mjs", library, &server);
}

fn node(library: &str) {
    node_program("smoke.mjs", library, &Server::start(&[]));
}

fn node_program(program: &str, library: &str, server: &Server) {
    node_with(program, &[library, &server.port().to_string()]);
}

fn succeeds(command: &mut Command) {
    let done = command.output().unwrap_or_else(|fault| panic!("{command:?}: {fault} (cargo xtask peers)"));
    let said = [done.stdout, done.stderr].concat();
    assert!(done.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&said));
}

#[test]
fn bullmq() {
    node_scripts("bullmq");
}

#[test]
fn redlock() {
    node_scripts("redlock");
}

#[test]
fn rate_limiter_flexible() {
    node_scripts("rate-limiter-flexible");
}

#[test]
fn locks_of_redis_py() {
    python_scripts("locks");
}

#[test]
fn rq() {
    python_scripts("rq");
}

#[test]
fn redis_py_resp2() {
    python("redis", "2");
}

#[test]
fn redis_py_resp3() {
    python("redis", "3");
}

#[test]
fn valkey_py_resp2() {
    python("valkey", "2");
}

#[test]
fn valkey_py_resp3() {
    python("valkey", "3");
}

#[test]
fn ioredis() {
    node("ioredis");
}

#[test]
fn node_redis_resp2() {
    node("node-redis-2");
}

#[test]
fn node_redis_resp3() {
    node("node-redis-3");
}

/// A program in a workspace of its own; `cargo xtask test` has built it before.
fn redis_rs(protocol: &str) {
    let server = Server::start(&[]);
    let manifest = root().join("tests/clients/redis-rs/Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(root().join("target/redis-rs"))
        .arg("--")
        .arg(format!("redis://127.0.0.1:{}/?protocol={protocol}", server.port()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn redis_rs_resp2() {
    redis_rs("resp2");
}

#[test]
fn redis_rs_resp3() {
    redis_rs("resp3");
}
