//! Replication with servers of our own and of other products. What takes longer is `cargo xtask replication`'s.

use kara_tests::replication::{
    Length, PAIRS, Product, drill, follow, info, number, run_faults, run_pair, until, until_equal,
    until_linked,
};
use kara_tests::{Client, Reply, Server, peers};
use std::time::Duration;

const SHORT: Length = Length { load: Duration::from_millis(1200), cuts: 1 };

fn pair(number: usize, more: &[&str]) {
    run_pair(PAIRS[number], more, SHORT, number as u64 * 10 + 1);
}

#[test]
fn kara_to_kara() {
    pair(0, &[]);
}

#[test]
fn workers_to_workers() {
    pair(1, &["--repl-diskless-load", "swapdb"]);
}

#[test]
fn kara_to_valkey_9() {
    pair(2, &[]);
}

#[test]
fn kara_to_valkey_8() {
    pair(3, &[]);
}

#[test]
fn valkey_9_to_kara() {
    pair(4, &[]);
}

#[test]
fn valkey_8_to_kara() {
    pair(5, &[]);
}

#[test]
fn redis_7_to_kara() {
    pair(6, &[]);
}

#[test]
fn two_connections_with_valkey_9() {
    let both = ["--dual-channel-replication-enabled", "yes"];
    pair(2, &both);
    pair(4, &both);
}

#[test]
fn broken_links_lose_nothing() {
    let report = run_faults(12, 7, &[]);
    assert!(report.written > 0 && report.partial > 0, "{report:?}");
    let all = report.in_full_sync > 0 && report.in_partial_sync > 0 && report.chained > 0;
    assert!(all, "the seed shall give some of each: {report:?}");
}

/// Either of the two connections of a full sync breaks.
#[test]
fn broken_links_between_data_and_stream() {
    let report = run_faults(8, 3, &["--dual-channel-replication-enabled", "yes"]);
    assert!(report.in_full_sync > 0, "the seed shall give some: {report:?}");
}

/// The short form of `cargo xtask replication drill`.
#[test]
fn two_regions() {
    match drill(1) {
        Ok(report) => println!("{report:?}"),
        Err(why) => println!("skipped: no network namespaces can be made here: {why}"),
    }
}

/// Streams of stock tools: everything, or the functions alone.
#[test]
fn stock_clients_fetch_rdb_files() {
    let server = Server::start(&["--repl-diskless-sync-delay", "0"]);
    let mut client = server.client();
    client.run("SET a b");
    client.call(&["FUNCTION", "LOAD", "#!lua name=l\nredis.register_function('f', function() return 1 end)"]);
    let port = server.port().to_string();
    for (option, has_key) in [("--rdb", true), ("--functions-rdb", false)] {
        let file = server.folder().join("fetched.rdb");
        let done = std::process::Command::new(peers().join("bin/valkey-cli"))
            .args(["-p", &port, option])
            .arg(&file)
            .output()
            .unwrap();
        assert!(done.status.success(), "{option}: {done:?}");
        let bytes = std::fs::read(&file).unwrap();
        let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
        assert!(bytes.starts_with(b"REDIS0011") || bytes.starts_with(b"VALKEY080"), "{option}");
        assert!(has(b"register_function"), "{option}: the function is missing");
        assert_eq!(has(b"\x01a\x01b"), has_key, "{option}: the key");
    }
}

fn synced_pair(more: &[&str]) -> (Server, Server, Client, Client) {
    let (primary, replica) = (Product::Kara.start(more), Product::Kara.start(more));
    follow(&replica, primary.port());
    until_linked("pair", &replica);
    let (mut p, r) = (primary.client(), replica.client());
    // The primary knows a moment later.
    until("online", || info(&mut p, "replication", "slave0").contains("state=online"));
    (primary, replica, p, r)
}

/// The place in the stream survives a restart, of either side.
#[test]
fn a_restart_goes_on_with_a_partial_resync() {
    let (mut primary, mut replica, mut p, mut r) = synced_pair(&["--save", "900 1"]);
    for n in 0..100 {
        p.run(&format!("SET key:{n} {n}"));
    }
    until_equal("before", &mut p, &mut r);
    let replid = info(&mut p, "replication", "master_replid");
    primary.shutdown("NOW");
    primary.restart();
    p = primary.client();
    until_linked("primary restarted", &replica);
    assert_eq!(info(&mut p, "replication", "master_replid2"), replid);
    assert_eq!((number(&mut p, "stats", "sync_full"), number(&mut p, "stats", "sync_partial_ok")), (0, 1));
    until_equal("primary restarted", &mut p, &mut r);
    r.call(&["CONFIG", "SET", "save", "900 1"]);
    let port = primary.port().to_string();
    replica.shutdown("SAVE");
    p.run("SET more 1");
    replica.restart();
    r = replica.client();
    r.call(&["REPLICAOF", "127.0.0.1", &port]);
    until_linked("replica restarted", &replica);
    until_equal("replica restarted", &mut p, &mut r);
}

/// Sends a signal that stops a process or lets it go on, and waits until all its threads have.
fn signal_and_wait(server: &Server, signal: &str) {
    let done = std::process::Command::new("kill").args([signal, &server.pid().to_string()]).status();
    assert!(done.unwrap().success());
    until_stopped(server, signal == "-STOP");
}

/// Waits until all threads of a process are stopped, or run again.
fn until_stopped(server: &Server, stops: bool) {
    let stopped = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
        let stat =
            |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        tasks.flatten().all(|task| stat(task).rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T')))
    };
    until("all threads follow the signal", || stopped() == stops);
}

/// Shutdown waits for a replica that is behind, and can be given up.
#[test]
fn shutdown_waits_for_replicas() {
    let (mut primary, replica, mut p, mut r) = synced_pair(&["--shutdown-timeout", "60"]);
    let stop = |signal: &str| signal_and_wait(&replica, signal);
    stop("-STOP");
    p.run("INCR k");
    let mut other = primary.client();
    other.send(&[vec![b"SHUTDOWN".to_vec()]]).unwrap();
    until("the shutdown waits", || number(&mut p, "server", "shutdown_in_milliseconds") > 0);
    assert_eq!(p.run("SHUTDOWN ABORT").text(), "OK");
    assert!(other.read().unwrap().text().starts_with("ERR Errors trying to SHUTDOWN"));
    other.send(&[vec![b"SHUTDOWN".to_vec()]]).unwrap();
    until("the shutdown waits again", || number(&mut p, "server", "shutdown_in_milliseconds") > 0);
    stop("-CONT");
    until("the primary ends", || !primary.is_alive());
    assert_eq!(r.run("GET k").text(), "1");
}

/// A replica that was stopped takes over when it goes on, with what its primary had sent it meanwhile, so that the old primary
/// needn't get everything again.
#[test]
fn who_takes_over_runs_first_what_it_was_sent() {
    let (primary, replica, mut p, mut r) = synced_pair(&[]);
    signal_and_wait(&replica, "-STOP");
    for n in 0..5000 {
        p.run(&format!("RPUSH list:{} {n}", n % 10));
    }
    let target = format!("FAILOVER TO 127.0.0.1 {} TIMEOUT 100 FORCE", replica.port());
    assert_eq!(p.run(&target).text(), "OK");
    let state = |p: &mut Client| info(p, "replication", "master_failover_state");
    until("it hands over", || state(&mut p) == "failover-in-progress");
    signal_and_wait(&replica, "-CONT");
    until("it has handed over", || state(&mut p) == "no-failover");
    until_linked("the old primary", &primary);
    assert_eq!(info(&mut r, "replication", "role"), "master");
    assert_eq!((number(&mut r, "stats", "sync_full"), number(&mut r, "stats", "sync_partial_ok")), (0, 1));
    assert_eq!(r.run("LLEN list:9"), Reply::Integer(500));
    until_equal("behind it", &mut r, &mut p);
}

/// What the primary never sent isn't waited for long.
#[test]
fn who_takes_over_waits_for_nothing_that_does_not_come() {
    let (_primary, replica, mut p, mut r) = synced_pair(&[]);
    p.run("SET a b");
    until_equal("before", &mut p, &mut r);
    let id = info(&mut r, "replication", "master_replid");
    let next = number(&mut r, "replication", "slave_repl_offset") + 1000;
    let begun = std::time::Instant::now();
    let mut asks = replica.client();
    let request = ["PSYNC", &id, &next.to_string(), "FAILOVER"].map(|word| word.as_bytes().to_vec());
    asks.send(&[request.to_vec()]).unwrap();
    until("it has taken over", || info(&mut r, "replication", "role") == "master");
    assert!(begun.elapsed() >= Duration::from_millis(100), "it didn't wait");
    assert_eq!(r.run("GET a").text(), "b");
}

/// Where the data set comes by socket, the primary's part is done with its last byte, as with the reference.
#[test]
fn a_replica_is_online_while_it_loads_what_came() {
    let primary = Product::Kara.start(&["--min-replicas-to-write", "1"]);
    let replica = Product::Kara.start(&["--key-load-delay", "20000"]);
    let (mut p, mut r) = (primary.client(), replica.client());
    p.run("DEBUG POPULATE 500 key");
    assert!(p.run("SET a b").text().starts_with("NOREPLICAS"));
    follow(&replica, primary.port());
    until("it has everything", || info(&mut p, "replication", "slave0").contains("state=online"));
    assert_eq!(info(&mut r, "persistence", "loading"), "1", "ten seconds of loading are over already");
    assert_eq!(info(&mut r, "replication", "master_link_status"), "down");
    assert_eq!(p.run("SET a b").text(), "OK");
    assert_eq!(p.run("WAIT 1 50"), Reply::Integer(0), "it has run nothing yet");
    r.run("CONFIG SET key-load-delay 0");
}

/// D9: what is promoted in the middle of a full sync has its old data or none, never parts of both.
#[test]
fn d9_promotion_in_the_middle_of_a_full_sync_mixes_nothing() {
    for (load, keeps) in [("disabled", true), ("swapdb", true), ("flush-before-load", false)] {
        let mut primary =
            Product::KaraThreads.start(&["--rdb-key-save-delay", "20000", "--rdbcompression", "no"]);
        let replica = Product::KaraThreads.start(&["--repl-diskless-load", load]);
        let (mut p, mut r) = (primary.client(), replica.client());
        p.run("DEBUG POPULATE 300 new 200000");
        r.run("DEBUG POPULATE 50 old");
        follow(&replica, primary.port());
        until("the data set comes", || number(&mut r, "replication", "master_sync_read_bytes") > 1_000_000);
        let answer = r.run("REPLICAOF NO ONE").text();
        if load != "disabled" {
            // Where it is loaded as it comes, the role stays until that has ended, as in the reference.
            assert!(answer.starts_with("LOADING"), "{load}: {answer}");
            primary.kill();
            until("it is promoted", || r.run("REPLICAOF NO ONE").text() == "OK");
        }
        until("loading is given up", || info(&mut r, "persistence", "loading") == "0");
        until("it answers", || !r.run("DBSIZE").text().starts_with("LOADING"));
        assert_eq!(r.run("DBSIZE"), Reply::Integer(if keeps { 50 } else { 0 }), "{load}");
        assert_eq!(info(&mut r, "replication", "role"), "master");
        assert_eq!(r.run("SET a b").text(), "OK");
    }
}

/// D12: a primary that keeps its data on disk has them after a crash, and so do its replicas; one that keeps nothing and
/// comes back empty doesn't empty them: whether those keys go is for people to say.
#[test]
fn d12_an_empty_primary_empties_no_replica() {
    let mut primary = Product::Kara.start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let replica = Product::Kara.start(&[]);
    follow(&replica, primary.port());
    until_linked("first", &replica);
    let (mut p, mut r) = (primary.client(), replica.client());
    p.run("SET kept 1");
    until_equal("first", &mut p, &mut r);
    primary.restart();
    p = primary.client();
    until_linked("with a file", &replica);
    until_equal("with a file", &mut p, &mut r);
    assert_eq!(r.run("GET kept").text(), "1");

    for load in ["disabled", "swapdb", "flush-before-load"] {
        let mut primary = Product::Kara.start(&[]);
        primary.client().run("SET only here");
        primary.client().call(&[
            "FUNCTION",
            "LOAD",
            "#!lua name=l\nredis.register_function('f', function() end)",
        ]);
        r.run(&format!("CONFIG SET repl-diskless-load {load}"));
        // Another primary than before: what it doesn't have goes.
        follow(&replica, primary.port());
        until("the other's data", || r.run("GET only").text() == "here");
        until_linked("the other", &replica);
        assert_eq!(r.run("DBSIZE"), Reply::Integer(1));
        primary.restart();
        until("it is refused", || {
            replica.log_tail().contains("without a key: the 1 keys that are here are kept")
        });
        std::thread::sleep(Duration::from_millis(1200));
        assert_eq!(r.run("GET only").text(), "here", "{load}");
        assert_eq!(info(&mut r, "replication", "master_link_status"), "down");
        if load == "disabled" {
            // Asked for anew, it is meant so.
            assert_eq!(r.run("REPLICAOF NO ONE").text(), "OK");
            follow(&replica, primary.port());
            until("empty", || r.run("DBSIZE") == Reply::Integer(0));
        } else if load == "swapdb" {
            // And a primary that has something has been started on purpose.
            primary.client().run("SET new 1");
            until("the new data", || r.run("GET new").text() == "1" && r.run("DBSIZE") == Reply::Integer(1));
        } else {
            assert_eq!(r.run("REPLICAOF NO ONE").text(), "OK");
            assert_eq!(r.run("GET only").text(), "here");
        }
    }
}

/// S11: a full sync while a script runs on the replica waits for it or ends it; nothing is pulled from under it.
#[test]
fn s11_a_full_sync_under_a_running_script() {
    let primary = Product::Kara.start(&[]);
    let replica = Product::KaraThreads.start(&["--busy-reply-threshold", "50"]);
    let (mut p, mut r) = (primary.client(), replica.client());
    p.run("DEBUG POPULATE 1000 new");
    r.run("DEBUG POPULATE 1000 old");
    let mut scripted = replica.client();
    let script = "local n = 0 for i = 1, 40000000 do n = n + 1 end return {n, redis.call('GET', KEYS[1])}";
    scripted.send(&[vec![b"EVAL".to_vec(), script.into(), b"1".to_vec(), b"old:1".to_vec()]]).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    follow_while_busy(&mut r, primary.port());
    let answer = scripted.read().unwrap();
    assert!(!answer.text().is_empty() || format!("{answer:?}").contains("value"), "{answer:?}");
    until_linked("script", &replica);
    until_equal("script", &mut p, &mut r);
    assert_eq!(r.run("PING").text(), "PONG");
}

fn follow_while_busy(client: &mut Client, port: u16) {
    until("REPLICAOF", || {
        client.call(&["REPLICAOF", "127.0.0.1", &port.to_string()]).text().starts_with("OK")
    });
}

/// A replica whose first connection comes too late for the stream: it asks for it nevertheless, is told that it is gone,
/// and gets everything once more.
#[test]
fn the_stream_is_gone_before_the_first_connection_asks_for_it() {
    let both = ["--dual-channel-replication-enabled", "yes"];
    let small = ["--client-output-buffer-limit", "replica 1100k 0 0", "--repl-backlog-size", "1mb"];
    let primary = Server::start(&[&both[..], &small, &["--repl-diskless-sync-delay", "0"]].concat());
    let replica = Server::start(&both);
    let (mut p, mut r) = (primary.client(), replica.client());
    p.run("DEBUG POPULATE 100 key 1000");
    p.run("CONFIG SET rdb-key-save-delay 20000");
    r.run("DEBUG PAUSE-AFTER-FORK 1");
    follow(&replica, primary.port());
    until_stopped(&replica, true);
    let value = "x".repeat(100_000);
    for n in 0..40 {
        p.call(&["SET", &format!("big:{n}"), &value]);
    }
    until("it is cut", || number(&mut p, "stats", "client_output_buffer_limit_disconnections") > 0);
    signal_and_wait(&replica, "-CONT");
    until("it asks for the stream", || primary.log_tail().contains("Unable to partial resync with replica"));
    r.run("DEBUG PAUSE-AFTER-FORK 0");
    p.run("CONFIG SET rdb-key-save-delay 0");
    until("link up", || info(&mut r, "replication", "master_link_status") == "up");
    until_equal("everything once more", &mut p, &mut r);
}

/// A primary that says something every `repl-timeout` seconds only isn't silent, on either side.
#[test]
fn pings_as_rare_as_the_timeout_keep_a_link() {
    let rare = ["--repl-timeout", "2", "--repl-ping-replica-period", "2"];
    let (_primary, replica, mut p, mut r) = synced_pair(&rare);
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!(info(&mut r, "replication", "master_link_status"), "up", "{}", replica.log_tail());
    assert_eq!((number(&mut p, "stats", "sync_full"), number(&mut p, "stats", "sync_partial_ok")), (1, 0));
}

/// WAIT and WAITAOF count replicas and their disks.
#[test]
fn waits_count_replicas_and_disks() {
    let (_primary, _replica, mut p, _r) = synced_pair(&["--appendonly", "yes"]);
    p.run("SET a b");
    let both = Reply::Array(vec![Reply::Integer(1), Reply::Integer(1)]);
    assert_eq!(p.run("WAIT 1 10000"), Reply::Integer(1));
    assert_eq!(p.run("WAITAOF 1 1 20000"), both);
    assert_eq!(p.run("WAITAOF 0 2 100"), both);
}

/// INFO's figures of the link are right within a second.
#[test]
fn lag_is_told() {
    let (_primary, replica, mut p, mut r) = synced_pair(&[]);
    let line = info(&mut p, "replication", "slave0");
    assert!(line.contains("state=online") && line.contains("lag=0") || line.contains("lag=1"), "{line}");
    signal_and_wait(&replica, "-STOP");
    std::thread::sleep(Duration::from_millis(2500));
    let line = info(&mut p, "replication", "slave0");
    signal_and_wait(&replica, "-CONT");
    assert!(["lag=2", "lag=3"].iter().any(|lag| line.contains(lag)), "{line}");
    until("heard of again", || number(&mut r, "replication", "master_last_io_seconds_ago") <= 1);
}
