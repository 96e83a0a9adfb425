//! redis-rs against a server: `redis-rs-smoke redis://127.0.0.1:PORT/?protocol=resp3`.
#![forbid(unsafe_code)]

use redis::Commands as _;

fn smoke(url: &str) -> redis::RedisResult<()> {
    let client = redis::Client::open(url)?;
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

fn main() -> redis::RedisResult<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "redis://127.0.0.1:6379/".to_string());
    smoke(&url)
}
