//! Data of every kind, and clients that go on changing them.

use crate::{Client, Reply};
use kara_base::rng::Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;

/// What all servers of a run know.
#[derive(Clone, Copy, Debug)]
pub struct Can {
    /// Fields of hashes with an expiry.
    pub field_ttl: bool,
}

fn ok(client: &mut Client, words: &[&str]) {
    let reply = client.call(words);
    assert!(!matches!(reply, Reply::Error(_)), "{words:?}: {reply:?}");
}

/// Some of every kind and encoding in several databases, with expiries and a library of functions.
///
/// # Panics
/// Where a command is refused.
pub fn fill(client: &mut Client, can: Can) {
    let library = "#!lua name=lib\nredis.register_function{function_name = 'answer', \
                   callback = function() return 42 end, flags = {'no-writes'}}";
    ok(client, &["FUNCTION", "LOAD", "REPLACE", library]);
    for db in ["0", "3", "9"] {
        ok(client, &["SELECT", db]);
        let long = "x".repeat(5000);
        ok(client, &["SET", "long", &long]);
        ok(client, &["SET", "number", "12345"]);
        ok(client, &["SET", "binary", "\0\r\n\u{1}"]);
        ok(client, &["SETRANGE", "sparse", "3000", "end"]);
        ok(client, &["PFADD", "hll", "a", "b", "c", db]);
        for n in 0..600 {
            let n = n.to_string();
            ok(client, &["SET", &format!("key:{n}"), &n]);
            ok(client, &["RPUSH", "list", &n]);
            ok(client, &["SADD", "ints", &n]);
            ok(client, &["SADD", "set", &format!("member {n}")]);
            ok(client, &["ZADD", "zset", &n, &format!("member {n}")]);
            ok(client, &["HSET", "hash", &format!("field {n}"), &n]);
            ok(client, &["XADD", "stream", "*", "f", &n]);
        }
        ok(client, &["RPUSH", "small list", "a", "b", &long]);
        ok(client, &["SADD", "small ints", "1", "2", "70000"]);
        ok(client, &["SADD", "small set", "a", "b"]);
        ok(client, &["ZADD", "small zset", "1.5", "a", "-inf", "b"]);
        ok(client, &["HSET", "small hash", "a", "1"]);
        ok(client, &["XGROUP", "CREATE", "stream", "group", "0"]);
        ok(client, &["XREADGROUP", "GROUP", "group", "me", "COUNT", "10", "STREAMS", "stream", ">"]);
        ok(client, &["XGROUP", "CREATE", "empty stream", "g", "$", "MKSTREAM"]);
        ok(client, &["EXPIRE", "key:1", "1000"]);
        ok(client, &["PEXPIRE", "key:2", "1500"]);
        ok(client, &["EXPIREAT", "small list", "4102444800"]);
        if can.field_ttl {
            ok(client, &["HEXPIRE", "hash", "1000", "FIELDS", "2", "field 1", "field 2"]);
            ok(client, &["HPEXPIRE", "hash", "1500", "FIELDS", "1", "field 3"]);
            ok(client, &["HEXPIRE", "small hash", "1000", "FIELDS", "1", "a"]);
        }
    }
    ok(client, &["SELECT", "0"]);
}

/// Clients that write until they are stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Begins with some clients of the server at that port.
    pub fn start(port: u16, clients: u64, can: Can, seed: u64) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let threads = (0..clients)
            .map(|n| {
                let (stop, written) = (stop.clone(), written.clone());
                std::thread::spawn(move || {
                    let mut rng = Rng::new(seed.wrapping_mul(1000).wrapping_add(n));
                    while !stop.load(Relaxed) {
                        let Ok(mut client) = Client::connect(port) else {
                            std::thread::sleep(std::time::Duration::from_millis(5));
                            continue;
                        };
                        while !stop.load(Relaxed) && write_some(&mut client, &mut rng, can).is_ok() {
                            written.fetch_add(1, Relaxed);
                        }
                    }
                })
            })
            .collect();
        Load { stop, written, threads }
    }

    /// Commands so far.
    pub fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Ends it; gives the number of commands.
    pub fn stop(mut self) -> u64 {
        self.end();
        self.written()
    }

    fn end(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            // A panic there has been printed.
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

fn write_some(client: &mut Client, rng: &mut Rng, can: Can) -> std::io::Result<()> {
    let mut pick = |n: u64| rng.next_u64() % n;
    let key = pick(40).to_string();
    let (n, m, value) = (pick(50).to_string(), pick(50).to_string(), "v".repeat(pick(200) as usize));
    let k = |kind: &str| format!("{kind}:{key}");
    let mut call = |words: &[&str]| client.try_call(words).map(|_| ());
    match pick(32) {
        0 => call(&["SET", &k("s"), &value]),
        1 => call(&["SET", &k("s"), &value, "PX", &(20 + pick(400)).to_string()]),
        2 => call(&["APPEND", &k("s"), &n]),
        3 => call(&["INCRBY", &k("n"), &n]),
        4 => call(&["INCRBYFLOAT", &k("f"), "0.1"]),
        5 => call(&["DEL", &k("s"), &k("l")]),
        6 => call(&["RPUSH", &k("l"), &n, &value]),
        7 => call(&["LPUSH", &k("l"), &m]),
        8 => call(&["LPOP", &k("l"), "3"]),
        9 => call(&["LTRIM", &k("l"), "0", "100"]),
        10 => call(&["SADD", &k("t"), &n, &m]),
        11 => call(&["SPOP", &k("t"), "2"]),
        12 => call(&["SPOP", &k("t")]),
        13 => call(&["ZADD", &k("z"), &n, &m]),
        14 => call(&["ZINCRBY", &k("z"), "1.5", &m]),
        15 => call(&["ZPOPMIN", &k("z")]),
        16 => call(&["HSET", &k("h"), &n, &value]),
        17 => call(&["HINCRBY", &k("h2"), &n, "3"]),
        18 => call(&["HDEL", &k("h"), &n]),
        19 => call(&["XADD", &k("x"), "MAXLEN", "~", "200", "*", &n, &m]),
        20 => {
            call(&["XGROUP", "CREATE", &k("x"), "g", "0", "MKSTREAM"])?;
            call(&["XREADGROUP", "GROUP", "g", &n, "COUNT", "3", "STREAMS", &k("x"), ">"])
        }
        21 => call(&["XAUTOCLAIM", &k("x"), "g", &m, "0", "0", "COUNT", "2"]),
        22 => call(&["PEXPIRE", &k("z"), &(50 + pick(1000)).to_string()]),
        23 => call(&["PERSIST", &k("z")]),
        24 => {
            call(&["MULTI"])?;
            call(&["INCR", &k("n")])?;
            call(&["RPUSH", &k("l"), &n])?;
            call(&["SELECT", if pick(2) == 0 { "0" } else { "3" }])?;
            call(&["SADD", &k("t"), &m])?;
            call(&["EXEC"])
        }
        25 => {
            let script = "redis.call('INCR', KEYS[1]) return redis.call('SPOP', KEYS[2])";
            call(&["EVAL", script, "2", &k("n"), &k("t")])
        }
        26 => call(&["SELECT", ["0", "3", "9"][pick(3) as usize]]),
        27 => call(&["RENAME", &k("s"), &format!("s:{m}")]),
        28 => call(&["COPY", &k("h"), &format!("h:{m}"), "REPLACE"]),
        29 => call(&["GETEX", &k("s"), "PX", "300"]),
        30 if can.field_ttl => call(&["HPEXPIRE", &k("h"), &(30 + pick(500)).to_string(), "FIELDS", "1", &n]),
        30 => call(&["SETBIT", &k("b"), &(pick(3000)).to_string(), "1"]),
        _ => call(&["SUNIONSTORE", &k("u"), &k("t"), &format!("t:{m}")]),
    }
}
