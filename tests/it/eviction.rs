//! `maxmemory`: what goes, who is told, what is refused, and that the limit holds with several workers.

use kara_tests::eviction::{Trace, figure, hit_ratios, used_memory};
use kara_tests::{Client, Reply, Server};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const OOM: &str = "OOM command not allowed when used memory > 'maxmemory'.";

fn fill(client: &mut Client, from: usize, to: usize, words: impl Fn(usize) -> Vec<Vec<u8>>) -> Vec<Reply> {
    let mut replies = Vec::new();
    for start in (from..to).step_by(100) {
        let requests: Vec<_> = (start..(start + 100).min(to)).map(&words).collect();
        client.send(&requests).unwrap();
        replies.extend(client.read_many(requests.len()).unwrap());
    }
    replies
}

fn set(name: &str, number: usize, more: &[&str]) -> Vec<Vec<u8>> {
    let key = format!("{name}:{number}");
    let words = ["SET", &key, "0123456789012345678901234567890123456789"];
    words.iter().chain(more).map(|word| word.as_bytes().to_vec()).collect()
}

fn limit(client: &mut Client, policy: &str, more: u64) -> u64 {
    let limit = used_memory(client) + more;
    client.call(&["CONFIG", "SET", "maxmemory-policy", policy, "maxmemory", &limit.to_string()]);
    limit
}

#[test]
fn every_policy_keeps_the_limit_and_takes_what_it_may() {
    let server = Server::start(&["--io-threads", "2"]);
    let mut client = server.client();
    for policy in [
        "allkeys-lru",
        "allkeys-lfu",
        "allkeys-random",
        "volatile-lru",
        "volatile-lfu",
        "volatile-random",
        "volatile-ttl",
    ] {
        client.call(&["CONFIG", "SET", "maxmemory", "0"]);
        client.call(&["FLUSHALL", "SYNC"]);
        client.call(&["CONFIG", "RESETSTAT"]);
        fill(&mut client, 0, 500, |n| set("kept", n, &[]));
        let limit = limit(&mut client, policy, 150_000);
        let replies = fill(&mut client, 0, 4_000, |n| set("volatile", n, &["EX", "10000"]));
        assert!(replies.iter().all(|reply| *reply == Reply::Simple(b"OK".to_vec())), "{policy}");
        assert!(used_memory(&mut client) < limit + 4096, "{policy}");
        let evicted = figure(&mut client, "stats", "evicted_keys");
        assert!((1_000..4_000).contains(&evicted), "{policy}: {evicted}");
        let kept = fill(&mut client, 0, 500, |n| vec![b"EXISTS".to_vec(), format!("kept:{n}").into_bytes()]);
        let kept = kept.iter().filter(|reply| **reply == Reply::Integer(1)).count();
        assert_eq!(kept == 500, policy.starts_with("volatile"), "{policy}: {kept} left");
    }
}

#[test]
fn the_least_recently_and_least_frequently_used_go_first() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.call(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lfu"]);
    fill(&mut client, 0, 500, |n| set("cold", n, &[]));
    fill(&mut client, 0, 100, |n| set("hot", n, &[]));
    for _ in 0..20 {
        fill(&mut client, 0, 100, |n| vec![b"GET".to_vec(), format!("hot:{n}").into_bytes()]);
    }
    limit(&mut client, "allkeys-lfu", 0);
    fill(&mut client, 0, 400, |n| set("new", n, &[]));
    let exists = |n: usize| vec![b"EXISTS".to_vec(), format!("hot:{n}").into_bytes()];
    let hot = fill(&mut client, 0, 100, exists);
    let hot = hot.iter().filter(|reply| **reply == Reply::Integer(1)).count();
    assert!(hot >= 99, "{hot} of 100 popular keys are left");
}

#[test]
fn where_nothing_may_go_what_needs_memory_is_refused() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.run("SET k v");
    client.call(&["CONFIG", "SET", "maxmemory", "1"]);
    let oom = Reply::Error(OOM.into());
    assert_eq!(client.run("SET k w"), oom);
    assert_eq!(client.run("GET k"), Reply::Bulk(b"v".to_vec()));
    client.run("MULTI");
    assert_eq!(client.run("GET k"), Reply::Simple(b"QUEUED".to_vec()));
    assert_eq!(client.run("SET k w"), oom);
    assert_eq!(
        client.run("EXEC"),
        Reply::Error("EXECABORT Transaction discarded because of previous errors.".into())
    );
    let eval = |client: &mut Client, script: &str| client.call(&["EVAL", script, "1", "k"]);
    let write = "return redis.call('SET', KEYS[1], 'w')";
    let text = format!("{OOM} script: on @user_script:1.");
    assert_eq!(eval(&mut client, write), Reply::Error(text.into()));
    assert_eq!(eval(&mut client, "return redis.call('GET', KEYS[1])"), Reply::Bulk(b"v".to_vec()));
    assert_eq!(eval(&mut client, &format!("#!lua\n{write}")), oom);
    let allowed = eval(&mut client, &format!("#!lua flags=allow-oom\n{write}"));
    assert_eq!(allowed, Reply::Simple(b"OK".to_vec()));
    // Once it has written, a script is let to its end; DEL needs no memory.
    let late = "redis.call('DEL', KEYS[1]) return redis.call('SET', KEYS[1], 'late')";
    assert_eq!(eval(&mut client, late), Reply::Simple(b"OK".to_vec()));
    assert!(figure(&mut client, "stats", "current_eviction_exceeded_time") > 0);
}

#[test]
fn evicted_keys_are_told_of_and_logged() {
    let server = Server::start(&["--appendonly", "yes", "--notify-keyspace-events", "Ee"]);
    let mut client = server.client();
    let mut listener = server.client();
    listener.run("SUBSCRIBE __keyevent@0__:evicted");
    fill(&mut client, 0, 3, |n| set("k", n, &[]));
    client.call(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru", "maxmemory", "1"]);
    for _ in 0..3 {
        let Reply::Array(message) = listener.read().unwrap() else { panic!("no message") };
        assert!(
            message.get(2).and_then(Reply::bytes).is_some_and(|key| key.starts_with(b"k:")),
            "{message:?}"
        );
    }
    assert_eq!(client.run("DBSIZE"), Reply::Integer(0));
    client.run("CONFIG SET maxmemory 0");
    client.run("SET last 1");
    let mut log = Vec::new();
    for file in std::fs::read_dir(server.folder().join("appendonlydir")).unwrap() {
        log.extend(std::fs::read(file.unwrap().path()).unwrap());
    }
    let log = String::from_utf8_lossy(&log).into_owned();
    assert_eq!(log.matches("UNLINK").count(), 3, "{log}");
}

/// Two workers, both full of writers: no sample of `used_memory` is above the limit by more than a hundredth.
#[test]
fn two_workers_keep_the_limit_under_load() {
    const LIMIT: u64 = 4 << 20;
    let server =
        Server::start(&["--io-threads", "2", "--maxmemory-policy", "allkeys-lru", "--maxmemory", "4mb"]);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for writer in 0..4 {
            let (mut client, stop) = (server.client(), &stop);
            scope.spawn(move || {
                let mut round = 0;
                while !stop.load(Relaxed) {
                    let name = format!("w{writer}:{round}");
                    fill(&mut client, 0, 2_000, |n| set(&name, n, &[]));
                    round += 1;
                }
            });
        }
        let mut client = server.client();
        let until = Instant::now() + Duration::from_secs(20);
        let (mut highest, mut evicted) = (0, 0);
        while evicted < 20_000 && Instant::now() < until {
            highest = highest.max(used_memory(&mut client));
            evicted = figure(&mut client, "stats", "evicted_keys");
        }
        stop.store(true, Relaxed);
        assert!(evicted >= 20_000, "{evicted} keys evicted");
        assert!(highest <= LIMIT / 100 * 101, "{highest}");
    });
}

/// A large value takes the place of thousands of small ones, more than one command may be held up for: who writes waits
/// until they are gone, and memory stays within the limit but for the values that are being stored.
#[test]
fn large_values_among_small_ones_keep_the_limit() {
    const LIMIT: u64 = 64 << 20;
    let server =
        Server::start(&["--io-threads", "2", "--maxmemory-policy", "allkeys-random", "--maxmemory", "64mb"]);
    let mut client = server.client();
    client.run("DEBUG POPULATE 600000 base 20");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for writer in 0..4 {
            let (mut client, stop) = (server.client(), &stop);
            scope.spawn(move || {
                let large = "v".repeat(1 << 20);
                for round in 0.. {
                    if stop.load(Relaxed) {
                        return;
                    }
                    let name = format!("w{writer}:{round}");
                    fill(&mut client, 0, 50, |n| set(&name, n, &[]));
                    if writer == 0 {
                        client.call(&["SET", &name, &large]);
                    }
                }
            });
        }
        let until = Instant::now() + Duration::from_secs(60);
        let (mut highest, mut evicted) = (0, 0);
        while evicted < 30_000 && Instant::now() < until {
            highest = highest.max(used_memory(&mut client));
            evicted = figure(&mut client, "stats", "evicted_keys");
        }
        stop.store(true, Relaxed);
        assert!(evicted >= 30_000, "{evicted} keys evicted");
        // One may be on its way in, and one be stored, both in blocks of the next sizes.
        assert!(highest <= LIMIT / 100 * 101 + (3 << 20), "{highest}");
    });
}

#[test]
fn a_share_of_the_memory_there_is_may_be_the_limit() {
    let server = Server::start(&["--maxmemory", "50%"]);
    let mut client = server.client();
    let half = figure(&mut client, "memory", "maxmemory");
    let whole = figure(&mut client, "memory", "total_system_memory");
    // A cgroup may allow less than the machine has.
    assert!(half > 0 && half <= whole / 2, "{half} of {whole}");
    client.run("CONFIG SET maxmemory 25%");
    assert_eq!(figure(&mut client, "memory", "maxmemory"), half / 2);
    assert!(client.run("CONFIG SET maxmemory 101%").is_error());
}

#[test]
fn large_clients_are_closed_where_all_together_take_too_much() {
    let server = Server::start(&["--maxmemory-clients", "3mb", "--io-threads", "2"]);
    let mut control = server.client();
    control.run("CLIENT NO-EVICT ON");
    let mut clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
    for client in &mut clients {
        client.run("PING");
    }
    // Beginnings of requests that never end: 400 KB each fit, the large one takes it over the limit and goes alone.
    for (n, client) in clients.iter_mut().enumerate() {
        let size = if n == 2 { 2_500_000 } else { 400_000 };
        let _ = client.send_raw(format!("*2\r\n$3\r\nGET\r\n${size}\r\n").as_bytes());
        let _ = client.send_raw(&vec![b'x'; size - 1]);
    }
    let until = Instant::now() + Duration::from_secs(10);
    while figure(&mut control, "stats", "evicted_clients") == 0 {
        assert!(Instant::now() < until, "nobody was closed");
    }
    let list = control.run("CLIENT LIST");
    let list = String::from_utf8_lossy(list.bytes().unwrap_or_default()).into_owned();
    assert_eq!(list.lines().count(), 4, "{list}");
    assert_eq!(figure(&mut control, "stats", "evicted_clients"), 1);
    assert!(clients[2].read().is_err());
}

/// Many large answers at once, to clients that don't read: clients go, and no key does.
#[test]
fn large_clients_go_before_keys_do() {
    for workers in ["1", "2"] {
        let server = Server::start(&[
            "--io-threads",
            workers,
            "--maxmemory",
            "11mb",
            "--maxmemory-policy",
            "allkeys-lru",
        ]);
        let mut control = server.client();
        control.run("CONFIG SET maxmemory-clients 3mb");
        control.run("CLIENT NO-EVICT ON");
        (0..50).for_each(|n| drop(control.run(&format!("SETRANGE key:{n} 100000 x"))));
        let mut clients: Vec<Client> = (0..10).map(|_| server.client()).collect();
        for client in &mut clients {
            // Those that are closed already don't take it.
            let _ = client.send_raw(&b"MGET key:1\r\n".repeat(200));
        }
        let until = Instant::now() + Duration::from_secs(10);
        while figure(&mut control, "stats", "evicted_clients") == 0 {
            assert!(Instant::now() < until, "nobody was closed");
        }
        assert_eq!(figure(&mut control, "stats", "evicted_keys"), 0);
        assert_eq!(control.run("DBSIZE"), Reply::Integer(50));
    }
}

/// What a stopped replica has yet to read doesn't count, nor what it takes to send it: with room for little else, no key
/// goes.
#[test]
fn what_waits_for_a_stopped_replica_costs_no_key() {
    for workers in ["1", "2"] {
        let primary = Server::start(&["--io-threads", workers, "--repl-diskless-sync-delay", "0"]);
        let mut client = primary.client();
        (0..100).for_each(|n| drop(client.run(&format!("SETRANGE key:{n} 100000 x"))));
        for setting in ["slowlog-log-slower-than -1", "latency-tracking no", "repl-backlog-size 10240"] {
            client.run(&format!("CONFIG SET {setting}"));
        }
        client.call(&["CONFIG", "SET", "client-output-buffer-limit", "replica 100000000 100000000 300"]);
        let replica = Server::start(&["--replicaof", "127.0.0.1", &primary.port().to_string()]);
        let until = Instant::now() + Duration::from_secs(20);
        while !client.run("INFO replication").text().contains("state=online") {
            assert!(Instant::now() < until, "no replica");
            thread::sleep(Duration::from_millis(20));
        }
        // As whoever sets a limit by the figures of one page: what the page itself takes comes later.
        let page = client.run("INFO").text();
        let figure_of = |name: &str| -> u64 {
            let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|number| number.parse().ok()).expect("a number")
        };
        let room = figure_of("used_memory") - figure_of("mem_not_counted_for_evict") + (32 << 10);
        client.call(&["CONFIG", "SET", "maxmemory-policy", "allkeys-random", "maxmemory", &room.to_string()]);
        let signal = |name: &str| {
            let done = std::process::Command::new("kill").args([name, &replica.pid().to_string()]).status();
            assert!(done.is_ok_and(|status| status.success()), "kill {name}");
        };
        signal("-STOP");
        let part = "A".repeat(1_000);
        for _ in 0..12_000 {
            client.call(&["SETRANGE", "key:0", "0", &part]);
        }
        let waiting = figure(&mut client, "memory", "mem_clients_slaves");
        let left = client.run("DBSIZE");
        signal("-CONT");
        assert!(waiting > 2 << 20, "{workers} workers: {waiting} bytes wait");
        assert_eq!(left, Reply::Integer(100), "{workers} workers");
    }
}

/// A client that asks for far more than its output limit allows is closed, and its answer goes to nobody.
#[test]
fn a_closed_clients_answer_goes_to_nobody_else() {
    let server = Server::start(&["--client-output-buffer-limit", "normal 1000000 0 0"]);
    let mut client = server.client();
    client.run("HSET h f v");
    client.run("SADD s m");
    for command in ["HRANDFIELD h -999999999", "SRANDMEMBER s -999999999"] {
        let mut greedy = server.client();
        let words: Vec<&str> = command.split(' ').collect();
        assert!(greedy.try_call(&words).is_err(), "{command}");
        assert_eq!(client.run("PING"), Reply::Simple(b"PONG".to_vec()), "{command}");
    }
}

/// A sample of `cargo xtask hitratio`, with the noise of a short trace.
#[test]
fn a_cache_finds_as_much_as_the_reference() {
    let trace = Trace { keys: 20_000, room: 2_000, requests: 60_000, skew: 0.99 };
    for policy in ["allkeys-lru", "allkeys-lfu"] {
        let (ours, theirs) = (Server::start(&[]), Server::reference(&[]));
        let [(ours, _), (theirs, _)] = hit_ratios(&ours, &theirs, policy, trace, 3);
        assert!(ours > theirs - 2.0, "{policy}: {ours:.2} %, reference {theirs:.2} %");
    }
}
