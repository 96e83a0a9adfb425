//! Messages: subscriptions, keyspace notifications, MONITOR and tracking, across workers and against the reference.

use kara_tests::client::{Client, Request};
use kara_tests::differential::{EventOptions, run_events};
use kara_tests::{Reply, Server};
use std::io::ErrorKind;
use std::time::{Duration, Instant};

/// Connections are dealt out to the workers in turn, so that neighbours are apart.
fn two_workers() -> Server {
    Server::start(&["--io-threads", "2"])
}

fn words(line: &str) -> Request {
    line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect()
}

fn bulk(text: &str) -> Reply {
    Reply::Bulk(text.as_bytes().to_vec())
}

/// The texts of a message, and whether it is a RESP3 push.
fn message(reply: &Reply) -> (bool, Vec<String>) {
    (matches!(reply, Reply::Push(_)), reply.items().iter().map(Reply::text).collect())
}

/// Nothing comes for a while.
fn is_silent(client: &mut Client) -> bool {
    client.set_timeout(Duration::from_millis(200)).unwrap();
    let fault = client.read().map_err(|fault| fault.kind());
    client.set_timeout(Duration::from_secs(20)).unwrap();
    matches!(fault, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

/// What comes until nothing comes for so long.
fn replies_for(client: &mut Client, silence_ms: u64) -> Vec<Reply> {
    client.set_timeout(Duration::from_millis(silence_ms)).unwrap();
    let replies = std::iter::from_fn(|| client.read().ok()).collect();
    client.set_timeout(Duration::from_secs(20)).unwrap();
    replies
}

fn info(client: &mut Client, field: &str) -> u64 {
    let text = client.run("INFO everything").text();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).map(str::to_owned);
    line.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {field} in INFO"))
}

#[test]
fn subscribers_of_all_workers_hear_in_order() {
    const MESSAGES: usize = 2_000;
    let server = two_workers();
    let mut subscribers: Vec<Client> = (0..8).map(|_| server.client()).collect();
    for (at, subscriber) in subscribers.iter_mut().enumerate() {
        if at % 2 == 1 {
            subscriber.run("HELLO 3");
        }
        subscriber.run("SUBSCRIBE news");
        subscriber.run("PSUBSCRIBE n*");
    }
    let mut publishers: Vec<Client> = (0..2).map(|_| server.client()).collect();
    for (number, publisher) in publishers.iter_mut().enumerate() {
        let batch: Vec<Request> =
            (0..MESSAGES).map(|at| words(&format!("PUBLISH news {number}:{at}"))).collect();
        publisher.send(&batch).unwrap();
    }
    for publisher in &mut publishers {
        let replies = publisher.read_many(MESSAGES).unwrap();
        assert!(replies.iter().all(|reply| *reply == Reply::Integer(16)));
    }
    for (at, subscriber) in subscribers.iter_mut().enumerate() {
        let mut next = [[0; 2]; 2];
        for _ in 0..4 * MESSAGES {
            let (is_push, texts) = message(&subscriber.read().unwrap());
            assert_eq!(is_push, at % 2 == 1);
            let by_pattern = usize::from(texts[0] == "pmessage");
            let (publisher, number) = texts.last().unwrap().split_once(':').unwrap();
            let publisher: usize = publisher.parse().unwrap();
            assert_eq!(number, next[publisher][by_pattern].to_string());
            next[publisher][by_pattern] += 1;
        }
        assert!(is_silent(subscriber));
    }
}

/// A message that was published before a client asked for something reaches it before the answer, and none comes
/// behind the confirmation that the client no longer listens.
#[test]
fn messages_and_answers_keep_their_order_across_workers() {
    let server = two_workers();
    let mut publishers: Vec<Client> = (0..2).map(|_| server.client()).collect();
    let mut listeners: Vec<Client> = (0..4).map(|_| server.client()).collect();
    listeners.iter_mut().for_each(|listener| {
        listener.run("HELLO 3");
    });
    for round in 0..100 {
        for listener in &mut listeners {
            listener.run("SUBSCRIBE c");
        }
        for publisher in &mut publishers {
            assert_eq!(publisher.run("PUBLISH c before"), Reply::Integer(4), "round {round}");
        }
        for listener in &mut listeners {
            listener.send(&[words("PING"), words("UNSUBSCRIBE c")]).unwrap();
            for _ in 0..2 {
                assert_eq!(message(&listener.read().unwrap()).1, ["message", "c", "before"]);
            }
            assert_eq!(listener.read().unwrap(), Reply::Simple(b"PONG".to_vec()));
            assert_eq!(message(&listener.read().unwrap()).1[0], "unsubscribe");
        }
        for publisher in &mut publishers {
            assert_eq!(publisher.run("PUBLISH c after"), Reply::Integer(0));
        }
        for listener in &mut listeners {
            assert_eq!(listener.run("PING"), Reply::Simple(b"PONG".to_vec()));
        }
    }
}

/// What a client sends to itself stands behind the reply, in a transaction behind all of them, as in the reference.
#[test]
fn a_client_s_own_messages_come_as_from_the_reference() {
    let lines = [
        "HELLO 3",
        "CONFIG SET notify-keyspace-events KEA",
        "SUBSCRIBE a b",
        "PUBLISH a x",
        "PING",
        "MULTI",
        "PUBLISH a 1",
        "PUBLISH b 2",
        "PUBLISH nobody 3",
        "EXEC",
        "PSUBSCRIBE __key*",
        "SET k v",
        "MULTI",
        "SET k 1",
        "PUBLISH a m",
        "DEL k",
        "EXEC",
        "MULTI",
        "PUBLISH q 1",
        "SUBSCRIBE q",
        "PUBLISH q 2",
        "UNSUBSCRIBE q",
        "EXEC",
        "CLIENT REPLY OFF",
        "SUBSCRIBE off",
        "PUBLISH off 1",
        "CLIENT REPLY ON",
        "CLIENT REPLY SKIP",
        "SUBSCRIBE skipped",
        "UNSUBSCRIBE skipped",
        "SSUBSCRIBE s",
        "SPUBLISH s 1",
        "PUBLISH s 2",
        "PUBSUB NUMSUB a b c",
        "PUBSUB SHARDNUMSUB s t",
        "PUBSUB NUMPAT",
        "PUBSUB SHARDCHANNELS s*",
        "CLIENT TRACKING ON",
        "GET k",
        "SET k 2",
        "MGET k other",
        "MULTI",
        "SET k 3",
        "GET k",
        "SET other 1",
        "EXEC",
        "GET k",
        "FLUSHALL",
        "CLIENT TRACKING OFF",
        "CLIENT TRACKING ON BCAST PREFIX k PREFIX z",
        "SET z1 1",
        "RESET",
        "GET k",
        "MULTI",
        "SUBSCRIBE two",
        "PUBLISH two x",
        "PING",
        "EXEC",
        "PING hello",
        "GET k",
        "SUNSUBSCRIBE",
        "UNSUBSCRIBE",
        "PUNSUBSCRIBE",
        "GET k",
    ];
    let transcript = |server: &Server| {
        let mut client = server.client();
        let mut seen = Vec::new();
        for line in lines {
            client.send(&[words(line)]).unwrap();
            seen.extend(replies_for(&mut client, 25));
        }
        seen.extend(replies_for(&mut client, 500));
        seen.retain(|reply| !matches!(reply, Reply::Map(_))); // HELLO's
        seen
    };
    let theirs = transcript(&Server::reference(&[]));
    for workers in ["1", "2"] {
        let ours = transcript(&Server::start(&["--io-threads", workers]));
        for (at, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            assert_eq!(ours, theirs, "reply {at} with {workers} workers");
        }
        assert_eq!(ours.len(), theirs.len());
    }
}

#[test]
fn a_subscriber_that_does_not_read_is_cut() {
    let server = Server::start(&["--io-threads", "2", "--client-output-buffer-limit", "pubsub 1mb 0 0"]);
    let (mut slow, mut other) = (server.client(), server.client());
    slow.run("SUBSCRIBE flood");
    other.run("SUBSCRIBE flood");
    let mut publishers: Vec<Client> = (0..2).map(|_| server.client()).collect();
    let payload = "x".repeat(10_000);
    let reader = std::thread::spawn(move || {
        // This one reads, and must not suffer.
        for _ in 0..8_000 {
            assert_eq!(other.read().unwrap().items().len(), 3);
        }
        other
    });
    for publisher in &mut publishers {
        for _ in 0..80 {
            let batch: Vec<Request> = (0..50).map(|_| words(&format!("PUBLISH flood {payload}"))).collect();
            publisher.send(&batch).unwrap();
            publisher.read_many(50).unwrap();
            // The reader keeps up only if it gets the processor.
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let _still_there = reader.join().unwrap();
    let mut control = server.client();
    assert_eq!(control.run("PUBLISH flood last"), Reply::Integer(1));
    assert_eq!(info(&mut control, "client_output_buffer_limit_disconnections"), 1);
    assert_eq!(control.run("PUBSUB NUMSUB flood"), Reply::Array(vec![bulk("flood"), Reply::Integer(1)]));
}

/// A worker that can't send as fast as another one publishes holds the publisher back, not hundreds of megabytes of
/// messages: here it compares long names with a pattern meanwhile.
#[test]
fn publishing_to_a_busy_worker_takes_bounded_memory() {
    const MESSAGES: usize = 4_000;
    let server = Server::start(&["--io-threads", "2", "--client-output-buffer-limit", "pubsub 0 0 0"]);
    // Every second connection is the other worker's.
    let mut far = server.client();
    let mut publisher = server.client();
    let mut busy = server.client();
    let mut control = server.client();
    let mut holder = server.client();
    far.run("SUBSCRIBE flood");
    // Names and a pattern that take seconds to compare, and no locks.
    let names: Vec<String> = (0..60).map(|at| "a".repeat(6_000) + &at.to_string()).collect();
    holder.send(&names.iter().map(|name| words(&format!("SUBSCRIBE {name}"))).collect::<Vec<_>>()).unwrap();
    holder.read_many(names.len()).unwrap();
    let before = info(&mut control, "used_memory");
    busy.send(&[words(&format!("PUBSUB CHANNELS *{}b", "a".repeat(3_000)))]).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let payload = "x".repeat(50_000);
    publisher.set_timeout(Duration::from_secs(120)).unwrap();
    let publishing = std::thread::spawn(move || {
        for _ in 0..MESSAGES / 50 {
            let batch: Vec<Request> = (0..50).map(|_| words(&format!("PUBLISH flood {payload}"))).collect();
            publisher.send(&batch).unwrap();
            let replies = publisher.read_many(50).unwrap();
            assert!(replies.iter().all(|reply| *reply == Reply::Integer(1)));
        }
    });
    let mut most = 0;
    busy.set_timeout(Duration::from_millis(1)).unwrap();
    let mut looks = 0;
    while busy.read().is_err() {
        most = most.max(info(&mut control, "used_memory"));
        looks += 1;
    }
    let grown = most.saturating_sub(before);
    assert!(looks > 10, "the worker wasn't busy for long enough");
    assert!(grown > 20 << 20 && grown < 80 << 20, "{} MB", grown >> 20);
    assert!(!publishing.is_finished());
    for _ in 0..MESSAGES {
        assert_eq!(far.read().unwrap().items().len(), 3);
    }
    publishing.join().unwrap();
}

#[test]
fn notifications_are_the_reference_s() {
    let outcome = run_events(&EventOptions {
        families: [
            "string",
            "bitmap",
            "hyperloglog",
            "list",
            "set",
            "hash",
            "zset",
            "geo",
            "stream",
            "generic",
        ]
        .map(str::to_owned)
        .to_vec(),
        commands: 30_000,
        seed: 7,
        round: 300,
        arguments: Vec::new(),
    })
    .unwrap();
    assert!(outcome.events > 5_000, "only {} events", outcome.events);
    let found: Vec<String> = outcome.findings.iter().map(|(kind, text)| format!("{kind}\n{text}")).collect();
    assert!(found.is_empty(), "{}", found.join("\n\n"));
}

#[test]
fn notification_classes_choose_what_is_published() {
    let server = two_workers();
    let mut listener = server.client();
    listener.run("PSUBSCRIBE __key*");
    let mut client = server.client();
    let mut heard = |classes: &str, lines: &[&str]| {
        assert!(!client.run(&format!("CONFIG SET notify-keyspace-events {classes}")).is_error());
        for line in lines {
            assert!(!client.run(line).is_error(), "{line}");
        }
        client.run("PUBLISH __key-end x");
        let mut texts = Vec::new();
        loop {
            let (_, message) = message(&listener.read().unwrap());
            if message[2] == "__key-end" {
                return texts;
            }
            texts.push(message[2..].join("="));
        }
    };
    assert_eq!(heard("K$", &["SET s 1", "RPUSH l 1"]), ["__keyspace@0__:s=set"]);
    assert_eq!(heard("El", &["SET s 1", "RPUSH l 1"]), ["__keyevent@0__:rpush=l"]);
    assert_eq!(heard("$l", &["SET s 1", "RPUSH l 1"]), Vec::<String>::new());
    assert_eq!(heard("Eg", &["SELECT 3", "SET s 1", "DEL s"]), ["__keyevent@3__:del=s"]);
    assert_eq!(heard("Em", &["GET missing"]), ["__keyevent@3__:keymiss=missing"]);
    assert_eq!(heard("En", &["SET fresh 1", "SET fresh 2"]), ["__keyevent@3__:new=fresh"]);
    assert_eq!(
        heard("KEx", &["SET gone 1 PX 1", "DEBUG SLEEP 0.05", "EXISTS gone"]),
        ["__keyspace@3__:gone=expired", "__keyevent@3__:expired=gone"]
    );
}

#[test]
fn monitor_shows_what_runs_and_no_secrets() {
    let server = two_workers();
    let mut monitor = server.client();
    assert_eq!(monitor.run("MONITOR"), Reply::Simple(b"OK".to_vec()));
    let mut client = server.client();
    client.run("AUTH secret");
    client.run("HELLO 3 AUTH someone secret");
    client.run("CONFIG SET requirepass secret");
    client.run("CONFIG SET requirepass nothing");
    for line in ["MULTI", "SET k v", "GET", "EXEC"] {
        client.run(line);
    }
    client.call(&[&b"SET"[..], b"a\"\\\n\x01", b"\xff "]);
    client.run("SELECT 2");
    let mut seen = Vec::new();
    while !seen.iter().any(|line: &String| line.contains("SELECT")) {
        seen.push(monitor.read().unwrap().text());
    }
    let shown: Vec<&str> = seen.iter().filter_map(|line| Some(line.split_once("] ")?.1)).collect();
    assert_eq!(
        shown,
        [
            r#""AUTH" "(redacted)""#,
            r#""HELLO" "3" "AUTH" "(redacted)" "(redacted)""#,
            r#""MULTI""#,
            r#""EXEC""#,
            r#""SET" "a\"\\\n\x01" "\xff ""#,
            r#""SELECT" "2""#,
        ]
    );
    assert!(seen.last().unwrap().contains(" [2 127.0.0.1:"), "{seen:?}");
    assert!(monitor.run("GET k").text().contains("Replica can't interact with the keyspace"));
    assert_eq!(monitor.run("RESET").text(), "RESET");
    monitor.run("AUTH nothing");
    client.run("PING");
    assert!(is_silent(&mut monitor));
}

/// One client of each worker reads, one of each writes.
#[test]
fn tracking_reaches_every_worker() {
    let server = two_workers();
    let mut readers: Vec<Client> = (0..2).map(|_| server.client()).collect();
    let mut writers: Vec<Client> = (0..2).map(|_| server.client()).collect();
    for reader in &mut readers {
        reader.run("HELLO 3");
        reader.run("CLIENT TRACKING ON");
    }
    for round in 0..200 {
        for reader in &mut readers {
            reader.send(&[words("MGET a b")]).unwrap();
            // What the end of the last round invalidated comes first.
            while matches!(reader.read().unwrap(), Reply::Push(_)) {}
        }
        writers[round % 2].run("SET a 1");
        writers[(round + 1) % 2].run("DEL b");
        for reader in &mut readers {
            let pong = reader.run("PING");
            let first = message(&pong).1;
            assert_eq!(first[0], "invalidate", "round {round}: {pong:?}");
            // The second where `b` was there; then the answer.
            let mut last = reader.read().unwrap();
            while matches!(last, Reply::Push(_)) {
                last = reader.read().unwrap();
            }
            assert_eq!(last, Reply::Simple(b"PONG".to_vec()));
        }
        writers[round % 2].run("SET b 1");
    }
}

/// Many readers of few keys on two workers, which change all the time: what a client believes at the end is true.
#[test]
fn a_tracking_client_s_cache_is_never_stale() {
    const KEYS: usize = 8;
    let server = two_workers();
    let deadline = Instant::now() + Duration::from_secs(3);
    let port = server.port();
    let writers: Vec<_> = (0..2)
        .map(|writer| {
            std::thread::spawn(move || {
                let mut client = Client::connect(port).unwrap();
                let mut number = 0u64;
                while Instant::now() < deadline {
                    let batch: Vec<Request> = (0..20)
                        .map(|at| words(&format!("SET k{} {writer}:{}", (number + at) % KEYS as u64, number)))
                        .collect();
                    client.send(&batch).unwrap();
                    client.read_many(batch.len()).unwrap();
                    number += 7;
                }
            })
        })
        .collect();
    let readers: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Client::connect(port).unwrap();
                client.run("HELLO 3");
                client.run("CLIENT TRACKING ON");
                let mut cache: Vec<Option<Reply>> = vec![None; KEYS];
                let forget = |cache: &mut Vec<Option<Reply>>, push: &Reply| {
                    for key in push.items()[1].items() {
                        cache[key.text()[1..].parse::<usize>().unwrap()] = None;
                    }
                };
                let read = |client: &mut Client, cache: &mut Vec<Option<Reply>>, key: usize| {
                    client.send(&[words(&format!("GET k{key}"))]).unwrap();
                    loop {
                        match client.read().unwrap() {
                            push @ Reply::Push(_) => forget(cache, &push),
                            value => break value,
                        }
                    }
                };
                let mut at = 0;
                while Instant::now() < deadline {
                    let value = read(&mut client, &mut cache, at % KEYS);
                    cache[at % KEYS] = Some(value);
                    at += 1;
                }
                std::thread::sleep(Duration::from_millis(300));
                // All invalidations have come; what is left must be what the server has.
                let before = cache.clone();
                let mut checked = cache.clone();
                for (key, kept) in before.iter().enumerate() {
                    let value = read(&mut client, &mut checked, key);
                    if checked[key].is_some() {
                        assert_eq!(kept.as_ref(), Some(&value), "k{key}");
                    }
                }
                at
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let reads: usize = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
    assert!(reads > 1_000, "{reads}");
}

#[test]
fn tracking_modes_answer_as_the_reference() {
    let script: &[(usize, &str)] = &[
        (0, "HELLO 3"),
        (0, "CLIENT CACHING YES"),
        (0, "CLIENT TRACKING ON OPTIN"),
        (0, "CLIENT CACHING NO"),
        (0, "CLIENT CACHING YES"),
        (0, "GET a"),
        (0, "GET b"),
        (1, "MSET a 1 b 2"),
        (0, "CLIENT CACHING YES"),
        (0, "MULTI"),
        (0, "GET a"),
        (0, "GET b"),
        (0, "EXEC"),
        (0, "GET c"),
        (1, "MSET a 1 b 2 c 3"),
        (0, "CLIENT TRACKING ON OPTOUT"),
        (0, "CLIENT TRACKING ON BCAST"),
        (0, "CLIENT TRACKINGINFO"),
        (0, "CLIENT TRACKING OFF"),
        (0, "CLIENT TRACKING ON OPTOUT NOLOOP"),
        (0, "CLIENT CACHING NO"),
        (0, "GET a"),
        (0, "MGET b c"),
        (0, "CLIENT TRACKINGINFO"),
        (1, "MSET a 1 b 2"),
        (0, "SET c 1"),
        (0, "CLIENT TRACKING OFF"),
        (0, "CLIENT TRACKING ON BCAST PREFIX a PREFIX b NOLOOP"),
        (0, "SET a 1"),
        (1, "MSET a 1 b 1 c 1 ab 1"),
        (0, "CLIENT TRACKING ON BCAST PREFIX abc"),
        (0, "CLIENT TRACKING ON BCAST PREFIX x PREFIX xx"),
        (0, "CLIENT TRACKING ON PREFIX x"),
        (0, "CLIENT TRACKINGINFO"),
        (1, "SWAPDB 0 1"),
        (1, "FLUSHALL"),
        (1, "SELECT 5"),
        (1, "SET a 1"),
        (1, "EXPIRE a 100"),
        (1, "RENAME a b"),
        (1, "COPY b ac"),
        (1, "LPUSH bl 1 2"),
        (1, "LMOVE bl al LEFT RIGHT"),
        (1, "GETDEL ac"),
        (1, "MSETNX aa 1 aa 2"),
        (0, "CLIENT TRACKING OFF"),
        (0, "CLIENT GETREDIR"),
        (2, "SUBSCRIBE __redis__:invalidate"),
        (0, "CLIENT TRACKING ON REDIRECT 99999"),
        (0, "CLIENT TRACKING ON REDIRECT 0"),
        (0, "CLIENT TRACKING ON REDIRECT x"),
        (0, "CLIENT TRACKING ON REDIRECT $2 REDIRECT $1"),
        (0, "CLIENT TRACKING ON REDIRECT $2"),
        (0, "CLIENT TRACKINGINFO"),
        (0, "SELECT 5"),
        (0, "GET aa"),
        (1, "SET aa 3"),
        (0, "HVALS h"),
        (1, "HSET h f v"),
        (1, "FLUSHDB"),
        (2, "HELLO 3"),
        (2, "UNSUBSCRIBE"),
        (2, "HELLO 3"),
        (0, "GET aa"),
        (1, "SET aa 3"),
        (2, "QUIT"),
        (0, "GET aa"),
        (1, "SET aa 3"),
        (0, "CLIENT TRACKINGINFO"),
        (0, "CLIENT TRACKING ON"),
        (0, "SMEMBERS s"),
        (0, "EXISTS s2"),
        (0, "OBJECT ENCODING s3"),
        (1, "SADD s x"),
        (1, "SADD s2 x"),
        (1, "SADD s3 x"),
        (0, "WATCH w"),
        (1, "SET w 1"),
        (0, "RESET"),
        (1, "SET s 1"),
        (0, "CLIENT TRACKINGINFO"),
    ];
    let transcript = |server: &Server| {
        let mut clients: Vec<Client> = (0..3).map(|_| server.client()).collect();
        let ids: Vec<String> =
            clients.iter_mut().map(|c| c.run("CLIENT ID").integer().unwrap_or(0).to_string()).collect();
        let mut seen: Vec<Vec<String>> = vec![Vec::new(); clients.len()];
        let note = |seen: &mut Vec<Vec<String>>, number: usize, replies: Vec<Reply>| {
            let replies = replies.iter().filter(|reply| reply.field("proto").is_none());
            let text = |reply: &Reply| format!("{reply:?}").replace(&format!(":{}", ids[2]), ":ID2");
            seen[number].extend(replies.map(text));
        };
        for (at, line) in script {
            let line = line.replace("$2", &ids[2]).replace("$1", &ids[1]);
            // A client that has quit is sent nothing more.
            let _ = clients[*at].send(&[words(&line)]);
            let mut replies: Vec<Reply> = Vec::new();
            while !replies.last().is_some_and(|reply| !matches!(reply, Reply::Push(_))) {
                match clients[*at].read() {
                    Ok(reply) => replies.push(reply),
                    Err(_) => break,
                }
            }
            note(&mut seen, *at, replies);
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let replies = replies_for(client, 500);
            note(&mut seen, number, replies);
        }
        seen
    };
    let theirs = transcript(&Server::reference(&[]));
    for workers in ["1", "2"] {
        let ours = transcript(&Server::start(&["--io-threads", workers]));
        for (client, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            for (ours, theirs) in ours.iter().zip(theirs) {
                assert_eq!(ours, theirs, "client {client} with {workers} workers");
            }
            assert_eq!(ours.len(), theirs.len(), "client {client}");
        }
    }
}

#[test]
fn the_table_of_tracked_keys_is_bounded() {
    let server = two_workers();
    let mut client = server.client();
    client.run("HELLO 3");
    client.run("CLIENT TRACKING ON");
    client.run("CONFIG SET tracking-table-max-keys 100");
    let batch: Vec<Request> = (0..1_000).map(|at| words(&format!("GET key:{at}"))).collect();
    client.send(&batch).unwrap();
    let (mut replies, mut invalidated) = (0, 0);
    while replies < 1_000 || invalidated < 900 {
        match client.read().unwrap() {
            Reply::Push(_) => invalidated += 1,
            _ => replies += 1,
        }
    }
    let mut control = server.client();
    assert_eq!(info(&mut control, "tracking_total_keys"), 100);
    assert_eq!(info(&mut control, "tracking_total_items"), 100);
    assert_eq!(info(&mut control, "tracking_clients"), 1);
    drop(client);
    let deadline = Instant::now() + Duration::from_secs(5);
    while info(&mut control, "tracking_total_keys") > 0 {
        assert!(Instant::now() < deadline, "keys of a client that is gone");
    }
}

#[test]
fn client_list_and_info_tell_of_messages() {
    let server = two_workers();
    let mut client = server.client();
    let mut subscriber = server.client();
    let id = subscriber.run("CLIENT ID").integer().unwrap();
    subscriber.run("HELLO 3");
    for line in ["SUBSCRIBE a b", "PSUBSCRIBE p*", "SSUBSCRIBE s", "CLIENT TRACKING ON BCAST", "WATCH w"] {
        subscriber.send(&[words(line)]).unwrap();
    }
    subscriber.read_many(6).unwrap();
    let line = client.run(&format!("CLIENT LIST ID {id}")).text();
    for part in [" flags=PtB ", " sub=2 psub=1 ssub=1 ", " watch=1 ", " redir=0 resp=3 ", " cmd=watch "] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(client.run("CLIENT LIST TYPE pubsub").text().contains(&format!("id={id} ")));
    for (field, value) in [
        ("pubsub_channels", 2),
        ("pubsub_patterns", 1),
        ("pubsubshard_channels", 1),
        ("pubsub_clients", 1),
        ("watching_clients", 1),
        ("tracking_clients", 1),
        ("tracking_total_prefixes", 1),
    ] {
        assert_eq!(info(&mut client, field), value, "{field}");
    }
    assert_eq!(client.run("CLIENT KILL TYPE pubsub"), Reply::Integer(1));
    let deadline = Instant::now() + Duration::from_secs(5);
    for field in ["pubsub_channels", "pubsub_patterns", "pubsubshard_channels", "tracking_total_prefixes"] {
        while info(&mut client, field) > 0 {
            assert!(Instant::now() < deadline, "{field} of a client that is gone");
        }
    }
}

/// S20: patterns of many stars, on every publish and every notification.
#[test]
fn s20_patterns_with_many_stars_cost_no_exponential_time() {
    let server = Server::start(&["--notify-keyspace-events", "KEA"]);
    let mut listener = server.client();
    listener.call(&["PSUBSCRIBE".to_owned(), "*a".repeat(500) + "b"]);
    listener.call(&["PSUBSCRIBE".to_owned(), "[a-".repeat(300)]);
    listener.call(&["PSUBSCRIBE".to_owned(), "?*".repeat(200) + "\\"]);
    let mut client = server.client();
    let started = Instant::now();
    client.call(&["PUBLISH".to_owned(), "a".repeat(5_000), "x".to_owned()]);
    client.call(&["SET".to_owned(), "a".repeat(5_000), "x".to_owned()]);
    client.call(&["PUBSUB".to_owned(), "CHANNELS".to_owned(), "*a".repeat(1_000) + "b"]);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(client.run("PING"), Reply::Simple(b"PONG".to_vec()));
}

/// S24: a key twice in one MSETNX, with a client that tracks it.
#[test]
fn s24_msetnx_with_the_same_key_twice() {
    let server = two_workers();
    let mut client = server.client();
    client.run("HELLO 3");
    client.run("CLIENT TRACKING ON");
    client.run("GET k");
    assert_eq!(client.run("MSETNX k 1 k 2"), Reply::Integer(1));
    assert_eq!(message(&client.read().unwrap()).1[0], "invalidate");
    assert_eq!(client.run("GET k"), bulk("2"));
    assert_eq!(client.run("MSETNX k 3 other 4"), Reply::Integer(0));
    assert_eq!(client.run("PING"), Reply::Simple(b"PONG".to_vec()));
}

/// S38: a transaction that subscribes to a shard channel and then kills its own client.
#[test]
fn s38_a_sharded_subscriber_killed_inside_exec() {
    let server = two_workers();
    for kill in ["CLIENT KILL TYPE pubsub SKIPME no", "CLIENT KILL TYPE normal SKIPME no"] {
        let mut other = server.client();
        other.run("SSUBSCRIBE s");
        let mut client = server.client();
        for line in ["MULTI", "SSUBSCRIBE s t", "SUBSCRIBE c", kill, "SPUBLISH s x", "GET k", "EXEC"] {
            client.send(&[words(line)]).unwrap();
        }
        client.set_timeout(Duration::from_secs(1)).unwrap();
        while client.read().is_ok() {}
        let mut control = server.client();
        let started = Instant::now();
        assert_eq!(control.run("PING"), Reply::Simple(b"PONG".to_vec()));
        assert!(started.elapsed() < Duration::from_secs(1));
        control.run("CLIENT KILL TYPE pubsub");
        while info(&mut control, "pubsubshard_channels") + info(&mut control, "pubsub_channels") > 0 {
            assert!(started.elapsed() < Duration::from_secs(5), "{kill}");
        }
        assert_eq!(control.run("SPUBLISH s x"), Reply::Integer(0));
    }
}

/// Clients that come, subscribe, track and go at any moment leave nothing behind.
#[test]
fn clients_that_vanish_leave_nothing() {
    let server = two_workers();
    let mut control = server.client();
    for round in 0..200 {
        let mut client = server.client();
        let lines = [
            "HELLO 3",
            "SUBSCRIBE a b c",
            "PSUBSCRIBE a* b*",
            "SSUBSCRIBE s",
            "CLIENT TRACKING ON BCAST PREFIX x PREFIX y",
            "SET x1 1",
            "PUBLISH a 1",
            "MONITOR",
        ];
        let some: Vec<Request> = lines.iter().take(round % 9).map(|line| words(line)).collect();
        client.send(&some).unwrap();
        if round % 2 == 0 && !some.is_empty() {
            let _ = client.read();
        }
        control.run("PUBLISH a x");
        control.run("SET x2 1");
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    for field in ["pubsub_channels", "pubsub_patterns", "pubsubshard_channels", "tracking_total_prefixes"] {
        while info(&mut control, field) > 0 {
            assert!(Instant::now() < deadline, "{field}");
        }
    }
    assert_eq!(control.run("PUBLISH a x"), Reply::Integer(0));
}
