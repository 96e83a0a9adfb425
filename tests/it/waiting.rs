//! Clients that wait for keys: who is served, when and with what. Most runs use two workers, so that the waiting client
//! and the one that serves it are on different threads about half of the time.

use kara_tests::{Client, Reply, Server};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

fn two_workers() -> Server {
    Server::start(&["--io-threads", "2"])
}

fn send(client: &mut Client, line: &str) {
    client.send(&[line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect()]).unwrap();
}

fn info(client: &mut Client, field: &str) -> u64 {
    let page = client.run("INFO clients").text();
    let value = page.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.unwrap().trim().parse().unwrap()
}

/// Until so many clients wait.
fn until_waiting(client: &mut Client, count: u64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while info(client, "blocked_clients") != count {
        assert!(Instant::now() < deadline, "{} wait, not {count}", info(client, "blocked_clients"));
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A client that waits from now on: the server knows it when this returns.
fn waiter(server: &Server, helper: &mut Client, line: &str) -> Client {
    let before = info(helper, "blocked_clients");
    let mut client = server.client();
    send(&mut client, line);
    until_waiting(helper, before + 1);
    client
}

fn bulk(text: &str) -> Reply {
    Reply::Bulk(text.as_bytes().to_vec())
}

fn popped(key: &str, value: &str) -> Reply {
    Reply::Array(vec![bulk(key), bulk(value)])
}

#[test]
fn two_hundred_clients_are_served_in_the_order_of_their_arrival() {
    let server = two_workers();
    let mut helper = server.client();
    let mut waiting: Vec<Client> = (0..200).map(|_| waiter(&server, &mut helper, "BLPOP queue 0")).collect();
    assert_eq!(info(&mut helper, "total_blocking_keys"), 1);
    let mut pushers = [server.client(), server.client(), server.client()];
    let mut next = 0;
    while next < 200 {
        // One value, several, and several commands in a transaction, from clients of both workers.
        let pusher = &mut pushers[next / 10 % 3];
        pusher.run(&format!("RPUSH queue {next}"));
        pusher.run(&format!("RPUSH queue {} {} {}", next + 1, next + 2, next + 3));
        pusher.run("MULTI");
        (4..10).for_each(|more| drop(pusher.run(&format!("RPUSH queue {}", next + more))));
        assert_eq!(pusher.run("EXEC").items().len(), 6);
        next += 10;
    }
    for (number, client) in waiting.iter_mut().enumerate() {
        assert_eq!(client.read().unwrap(), popped("queue", &number.to_string()));
    }
    assert_eq!(helper.run("EXISTS queue"), Reply::Integer(0));
    assert_eq!(info(&mut helper, "total_blocking_keys"), 0);
    until_waiting(&mut helper, 0);
}

#[test]
fn a_value_passes_through_a_chain_of_moves_before_anybody_else_sees_it() {
    let server = two_workers();
    let mut helper = server.client();
    let names: Vec<String> = (0..20).map(|n| format!("station{n}")).collect();
    for round in 0..20 {
        let mut movers: Vec<Client> = names
            .windows(2)
            .map(|pair| waiter(&server, &mut helper, &format!("BLMOVE {} {} LEFT RIGHT 0", pair[0], pair[1])))
            .collect();
        let mut last = waiter(&server, &mut helper, &format!("BLPOP {} 0", names[19]));
        let value = format!("parcel{round}");
        assert_eq!(helper.run(&format!("RPUSH {} {value}", names[0])), Reply::Integer(1));
        // The push has been answered: the chain is through, and every station is empty.
        let lengths = helper.run(&format!("EXISTS {}", names.join(" ")));
        assert_eq!(lengths, Reply::Integer(0), "round {round}");
        assert_eq!(last.read().unwrap(), popped(&names[19], &value));
        movers.iter_mut().for_each(|mover| assert_eq!(mover.read().unwrap(), bulk(&value)));
    }
}

#[test]
fn nothing_is_lost_or_served_twice_between_two_workers() {
    const PUSHERS: usize = 4;
    const EACH: usize = 2_000;
    let server = two_workers();
    let keys: Vec<String> = (0..8).map(|n| format!("q{n}")).collect();
    let done = AtomicBool::new(false);
    let got: Vec<Vec<String>> = std::thread::scope(|scope| {
        let takers: Vec<_> = (0..32)
            .map(|number: usize| {
                let (server, keys, done) = (&server, &keys, &done);
                scope.spawn(move || {
                    let mut client = server.client();
                    let own: Vec<&str> = (0..3).map(|n| keys[(number + 3 * n) % 8].as_str()).collect();
                    let command = match number % 4 {
                        0 => format!("BRPOP {} 0.05", own.join(" ")),
                        1 => format!("BLMPOP 0.05 3 {} LEFT COUNT 2", own.join(" ")),
                        2 => format!("BLMOVE {} {} LEFT RIGHT 0.05", own[0], own[1]),
                        _ => format!("BLPOP {} 0.05", own[0]),
                    };
                    let mut mine = Vec::new();
                    loop {
                        let finished = done.load(Relaxed);
                        match client.run(&command) {
                            Reply::NullArray if finished => return mine,
                            Reply::NullArray | Reply::Bulk(_) => {}
                            reply => {
                                let values = &reply.items()[1];
                                match values {
                                    Reply::Array(several) => mine.extend(several.iter().map(Reply::text)),
                                    one => mine.push(one.text()),
                                }
                            }
                        }
                    }
                })
            })
            .collect();
        let pushers: Vec<_> = (0..PUSHERS)
            .map(|number| {
                let (server, keys) = (&server, &keys);
                scope.spawn(move || {
                    let mut client = server.client();
                    for n in 0..EACH {
                        client.run(&format!("RPUSH {} {number}-{n}", keys[(n * 7 + number) % 8]));
                    }
                })
            })
            .collect();
        pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
        done.store(true, Relaxed);
        takers.into_iter().map(|taker| taker.join().unwrap()).collect()
    });
    let all: Vec<&String> = got.iter().flatten().collect();
    let different: BTreeSet<&String> = all.iter().copied().collect();
    assert_eq!(all.len(), different.len(), "served twice");
    assert_eq!(all.len(), PUSHERS * EACH, "lost or left over");
    assert_eq!(server.client().run("DBSIZE"), Reply::Integer(0));
}

#[test]
fn who_went_away_or_was_killed_is_served_no_more() {
    let server = two_workers();
    let mut helper = server.client();
    for _ in 0..20 {
        // Gone.
        drop(waiter(&server, &mut helper, "BLPOP list 0"));
        until_waiting(&mut helper, 0);
        assert_eq!(helper.run("RPUSH list a"), Reply::Integer(1));
        assert_eq!(helper.run("LPOP list"), bulk("a"));
        // Gone with commands behind the one that waits.
        let mut client = waiter(&server, &mut helper, "BLPOP list 0");
        send(&mut client, "SET after 1");
        drop(client);
        until_waiting(&mut helper, 0);
        assert_eq!(helper.run("RPUSH list a"), Reply::Integer(1));
        assert_eq!(helper.run("LPOP list"), bulk("a"));
        assert_eq!(helper.run("EXISTS after"), Reply::Integer(0));
        // Killed in the transaction that would serve it (S34, S36): the next in the line gets the value.
        let mut killed = waiter(&server, &mut helper, "BLPOP list 0");
        let mut next = waiter(&server, &mut helper, "BLPOP list 0");
        let list = helper.run("CLIENT LIST FLAGS b").text();
        let id = list.lines().next().unwrap().split(' ').next().unwrap().replace("id=", "");
        helper.run("MULTI");
        helper.run("RPUSH list b");
        helper.run(&format!("CLIENT KILL ID {id}"));
        assert_eq!(helper.run("EXEC").items()[1], Reply::Integer(1));
        assert_eq!(next.read().unwrap(), popped("list", "b"));
        assert!(killed.read().is_err());
    }
    // Whole crowds, killed while they are being served.
    for _ in 0..10 {
        let mut crowd: Vec<Client> =
            (0..30).map(|_| waiter(&server, &mut helper, "XREAD BLOCK 0 STREAMS stream $")).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| server.client().run("CLIENT KILL FLAGS b"));
            scope.spawn(|| server.client().run("XADD stream * field value"));
        });
        for client in &mut crowd {
            // Either its entry or the end.
            if let Ok(reply) = client.read() {
                assert_eq!(reply.items().len(), 1);
            }
        }
    }
    assert_eq!(helper.run("PING"), Reply::Simple(b"PONG".to_vec()));
}

#[test]
fn what_a_waiting_client_sends_is_bounded_and_runs_afterwards() {
    let server = Server::start(&["--client-query-buffer-limit", "1mb"]);
    let mut helper = server.client();
    let mut client = waiter(&server, &mut helper, "BLPOP list 0");
    (0..1000).for_each(|n| send(&mut client, &format!("SET key{n} {n}")));
    send(&mut client, "BLPOP list 0");
    send(&mut client, "DBSIZE");
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(helper.run("DBSIZE"), Reply::Integer(0));
    helper.run("RPUSH list a");
    assert_eq!(client.read().unwrap(), popped("list", "a"));
    client.read_many(1000).unwrap();
    until_waiting(&mut helper, 1);
    helper.run("RPUSH list b");
    assert_eq!(client.read().unwrap(), popped("list", "b"));
    assert_eq!(client.read().unwrap(), Reply::Integer(1000));
    // Beyond the limit it is closed, as if nobody had waited.
    let mut client = waiter(&server, &mut helper, "BLPOP list 0");
    let big = "x".repeat(100_000);
    let sent =
        (0..30).try_for_each(|_| client.send(&[vec![b"SET".to_vec(), b"k".to_vec(), big.clone().into()]]));
    assert!(sent.is_err() || client.read().is_err());
    until_waiting(&mut helper, 0);
    assert_eq!(helper.run("RPUSH list c"), Reply::Integer(1));
}

#[test]
fn timeouts_end_on_time() {
    let server = two_workers();
    let mut helper = server.client();
    let mut clients: Vec<(u64, Client)> = (1..=40)
        .rev()
        .map(|n| {
            let mut client = server.client();
            send(&mut client, &format!("BLPOP nothing{n} other 0.{:03}", n * 10));
            (n * 10, client)
        })
        .collect();
    clients.reverse();
    let start = Instant::now();
    for (ms, client) in &mut clients {
        assert_eq!(client.read().unwrap(), Reply::NullArray);
        let late = start.elapsed().saturating_sub(Duration::from_millis(*ms));
        // The time is the machine's, which other tests share.
        assert!(late < Duration::from_millis(500), "{ms} ms: {late:?} late");
    }
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    assert_eq!(info(&mut helper, "total_blocking_keys"), 0);
    assert_eq!(info(&mut helper, "clients_in_timeout_table"), 0);
}

/// A script of several clients: `1 GET x` runs a command and notes its answer, `1> GET x` only sends it, `1<` notes what
/// came within a moment, `wait N` waits until so many are blocked.
fn transcript(server: &Server, script: &str) -> Vec<String> {
    let mut helper = server.client();
    helper.run("FLUSHALL");
    let mut clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
    for client in &mut clients {
        client.set_timeout(Duration::from_millis(400)).unwrap();
    }
    let mut notes = Vec::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (who, what) = line.split_at(line.find(' ').unwrap_or(line.len()));
        let what = what.trim();
        if who == "wait" {
            until_waiting(&mut helper, what.parse().unwrap());
            continue;
        }
        let client = &mut clients[usize::from(who.as_bytes()[0] - b'1')];
        match who.as_bytes().get(1) {
            Some(b'>') => send(client, what),
            Some(_) => notes.push(format!("{line} {:?}", client.read().ok())),
            None => notes.push(format!("{line}: {:?}", client.run(what))),
        }
    }
    notes
}

const SCRIPTS: &[&str] = &[
    // Types that change while somebody waits.
    "1> BLPOP a b 0\nwait 1\n2 SET a x\n2 RPUSH b y\n1<\n2 LRANGE b 0 -1",
    "1> BLPOP a 0\nwait 1\n2 SET a x\n2 ZADD b 1 m\n2 RENAME b a\n2 DEL a\n2 RPUSH a v\n1<",
    "1> BLMOVE a b LEFT RIGHT 0\nwait 1\n2 SET b x\n2 RPUSH a 1\n1<\n2 LRANGE a 0 -1",
    "1> BZPOPMIN a 0\nwait 1\n2 RPUSH a 1\n2 DEL a\n2 ZADD a 2 two 1 one\n1<\n2 ZRANGE a 0 -1",
    // A key that is there and gone again within one transaction.
    "1> BLPOP a 0\nwait 1\n2 MULTI\n2 RPUSH a x\n2 DEL a\n2 EXEC\n2 RPUSH a y\n1<",
    "1> BLPOP a b 0\nwait 1\n2 MULTI\n2 RPUSH b 2\n2 RPUSH a 1\n2 EXEC\n1<\n2 EXISTS a b",
    "1> BLPOP a 0\nwait 1\n2 MULTI\n2 DEL a\n2 SET a x\n2 DEL a\n2 LPUSH a z y\n2 EXEC\n1<\n2 LRANGE a 0 -1",
    // Several waiters, several kinds.
    "1> BLPOP a 0\nwait 1\n3> BZPOPMAX a 0\nwait 2\n2 ZADD a 1 m\n3<\n2 RPUSH a v\n1<",
    "1> BLMPOP 0 2 a b LEFT COUNT 10\nwait 1\n3> BLPOP b 0\nwait 2\n2 RPUSH b 1 2 3\n1<\n2 RPUSH b 4\n3<",
    "1> BRPOPLPUSH a b 0\nwait 1\n3> BLPOP b 0\nwait 2\n2 RPUSH a v\n1<\n3<\n2 DBSIZE",
    "1> BLMOVE a a LEFT RIGHT 0\nwait 1\n2 RPUSH a 1 2 3\n1<\n2 LRANGE a 0 -1",
    "1> BLPOP a a a 0\nwait 1\n2 LPUSH a 1\n1<",
    "1> BZMPOP 0 2 a b MAX COUNT 2\nwait 1\n2 ZADD b 1 x 2 y 3 z\n1<\n2 ZRANGE b 0 -1 WITHSCORES",
    // Ways for a key to appear.
    "1> BLPOP a 0\nwait 1\n2 RPUSH l v\n2 RENAME l a\n1<",
    "1> BLPOP a 0\nwait 1\n2 RPUSH l v\n2 COPY l a\n1<\n2 EXISTS a l",
    "1> BLPOP a 0\nwait 1\n2 RPUSH l 1\n2 SORT l STORE a\n1<",
    "1> BLPOP a 0\nwait 1\n2 RPUSH l 1\n2 LMOVE l a LEFT LEFT\n1<",
    "1> BLPOP a 0\nwait 1\n2 SELECT 3\n2 RPUSH a 1\n2 MOVE a 0\n1<",
    "1> BLPOP a 0\nwait 1\n2 SELECT 3\n2 RPUSH a 1\n2 SWAPDB 0 3\n1<",
    "1> BZPOPMIN a 0\nwait 1\n2 ZADD z 1 m\n2 ZUNIONSTORE a 1 z\n1<",
    // Streams.
    "1> XREAD BLOCK 0 STREAMS s $\nwait 1\n2 XADD s 1-1 f v\n1<",
    "1> XREAD BLOCK 0 STREAMS s t $ $\nwait 1\n2 XADD t 1-1 f v\n1<\n1 XREAD BLOCK 10 STREAMS t $",
    "1> XREAD BLOCK 0 STREAMS s 5-5\nwait 1\n2 XADD s 5-5 f v\n2 XADD s 6-1 f v\n1<",
    "1> XREAD BLOCK 0 STREAMS s +\nwait 1\n2 XADD s 6-1 f v\n1<",
    "2 XADD s 9-9 f v\n1> XREAD BLOCK 0 STREAMS s $\nwait 1\n2 DEL s\n2 XADD s 1-1 f v\n2 XADD s 10-1 f v\n1<",
    "2 XADD s 1-1 f v\n2 XGROUP CREATE s g $\n1> XREADGROUP GROUP g c BLOCK 0 STREAMS s >\nwait 1\n2 DEL s\n1<",
    "2 XADD s 1-1 f v\n2 XGROUP CREATE s g $\n1> XREADGROUP GROUP g c BLOCK 0 STREAMS s >\nwait 1\n2 SET s v\n1<",
    "2 XADD s 1-1 f v\n2 XGROUP CREATE s g $\n1> XREADGROUP GROUP g c BLOCK 0 STREAMS s >\nwait 1\n2 FLUSHALL\n1<",
    "2 XADD s 1-1 f v\n2 XGROUP CREATE s g $\n1> XREADGROUP GROUP g c BLOCK 0 STREAMS s >\nwait 1\n2 XGROUP DESTROY s g\n1<",
    "2 XADD s 1-1 f v\n2 XGROUP CREATE s g $\n1> XREADGROUP GROUP g c BLOCK 0 STREAMS s >\nwait 1\n2 PEXPIRE s 30\n1<",
    "2 XADD s 1-1 f v\n2 XGROUP CREATE s g $\n1> XREADGROUP GROUP g c BLOCK 0 STREAMS s >\nwait 1\n2 SWAPDB 0 5\n1<",
    "2 XADD s 1-1 f v\n2 XGROUP CREATE s g $\n1> XREADGROUP GROUP g c BLOCK 0 STREAMS s >\nwait 1\n2 RENAME s t\n1<",
    "2 XADD s 1-1 f v\n2 XGROUP CREATE s g $\n1> XREADGROUP GROUP g a BLOCK 0 STREAMS s >\nwait 1\n3> XREADGROUP GROUP g b BLOCK 0 STREAMS s >\nwait 2\n2 XADD s 2-1 f v\n1<\n2 XADD s 3-1 f v\n3<\n2 XPENDING s g",
    // Transactions never wait.
    "1 MULTI\n1 BLPOP a 0\n1 BLMOVE a b LEFT LEFT 0\n1 BZPOPMIN a 0\n1 XREAD BLOCK 0 STREAMS s $\n1 WAIT 1 0\n1 EXEC",
    // WATCH sees what a waiter takes.
    "3 WATCH a\n1> BLPOP a 0\nwait 1\n2 RPUSH a v\n1<\n3 MULTI\n3 PING\n3 EXEC",
    "3 WATCH b\n1> BLMOVE a b LEFT LEFT 0\nwait 1\n2 RPUSH a v\n1<\n3 MULTI\n3 PING\n3 EXEC",
    // Replies in the waiting client's own protocol.
    "1 HELLO 3 SETNAME x\n1> BZPOPMIN a 0\nwait 1\n2 ZADD a 1.5 m\n1<\n1 BLPOP q 0.01\n1> XREAD BLOCK 0 STREAMS s $\nwait 1\n2 XADD s 1-1 f v\n1<",
    "1> CLIENT REPLY SKIP\n1> BLPOP a 0\n1> PING\nwait 1\n2 RPUSH a 1\n1<",
    "1> BLPOP a 0\n1> RPUSH b 1\n1> PING\nwait 1\n2 EXISTS b\n2 RPUSH a 1\n1<\n1<\n1<",
];

#[test]
fn the_reference_serves_the_same_clients_with_the_same_answers() {
    let reference = Server::reference(&[]);
    for workers in ["1", "2"] {
        let own = Server::start(&["--io-threads", workers]);
        for script in SCRIPTS {
            let hello = |notes: Vec<String>| -> Vec<String> {
                notes.into_iter().filter(|note| !note.contains("HELLO")).collect()
            };
            let (expected, actual) = (hello(transcript(&reference, script)), hello(transcript(&own, script)));
            assert_eq!(actual, expected, "{workers} workers");
        }
    }
}
