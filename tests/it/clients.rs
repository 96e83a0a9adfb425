//! Stock client libraries against our server: what an application does on its first day.

use kara_tests::{Server, peers, root};
use std::process::Command;

fn python(module: &str, protocol: &str) {
    let server = Server::start(&[]);
    let script = root().join("tests/clients/smoke.py");
    let python = peers().join("venv/bin/python");
    succeeds(Command::new(python).arg(script).args([module, protocol, &server.port().to_string()]));
}

fn node(library: &str) {
    let server = Server::start(&[]);
    let script = root().join("tests/clients/smoke.mjs");
    let folder = peers().join("node");
    succeeds(
        Command::new("node").env("KARA_NODE", folder).arg(script).args([library, &server.port().to_string()]),
    );
}

fn succeeds(command: &mut Command) {
    let done = command.output().unwrap_or_else(|fault| panic!("{command:?}: {fault} (cargo xtask peers)"));
    let said = [done.stdout, done.stderr].concat();
    assert!(done.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&said));
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

fn redis_rs(protocol: &str) -> redis::RedisResult<()> {
    use redis::Commands as _;
    let server = Server::start(&[]);
    let client = redis::Client::open(format!("redis://127.0.0.1:{}/{protocol}", server.port()))?;
    let mut r = client.get_connection()?;
    let _: () = r.set_ex("k", "v", 100)?;
    assert_eq!(r.get::<_, String>("k")?, "v");
    assert!((1..=100).contains(&r.ttl::<_, i64>("k")?));
    let big = vec![7u8; 5_000_000];
    let _: () = r.set("big", &big)?;
    assert!(r.get::<_, Vec<u8>>("big")? == big);
    assert_eq!(r.hset_multiple::<_, _, _, String>("h", &[("a", 1), ("b", 2)])?, "OK");
    let all: std::collections::BTreeMap<String, i64> = r.hgetall("h")?;
    assert_eq!(all.into_iter().collect::<Vec<_>>(), [("a".to_string(), 1), ("b".to_string(), 2)]);
    let _: () = r.zadd("z", "m", 1.5)?;
    assert_eq!(r.zrange_withscores::<_, Vec<(String, f64)>>("z", 0, -1)?, [("m".to_string(), 1.5)]);
    let mut pipe = redis::pipe();
    for _ in 0..1000 {
        pipe.incr("n", 1);
    }
    assert_eq!(pipe.query::<Vec<i64>>(&mut r)?.last(), Some(&1000));
    let both: (i64, Option<String>) = redis::pipe().atomic().incr("c", 1).get("missing").query(&mut r)?;
    assert_eq!(both, (1, None));
    let refused = r.lpush::<_, _, i64>("k", "x").unwrap_err();
    assert_eq!(refused.code(), Some("WRONGTYPE"));
    Ok(())
}

#[test]
fn redis_rs_resp2() {
    redis_rs("?protocol=resp2").unwrap();
}

#[test]
fn redis_rs_resp3() {
    redis_rs("?protocol=resp3").unwrap();
}
