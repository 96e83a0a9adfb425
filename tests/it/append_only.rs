//! The append-only file: what was answered is there after a crash, whatever was under way.

use kara_tests::{Client, Reply, Server};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Counts up until the server goes; gives the last number that was answered.
fn count(client: &mut Client, key: &str) -> u64 {
    let mut last = 0;
    while let Ok(Reply::Integer(n)) = client.try_call(&["INCR", key]) {
        last = n as u64;
    }
    last
}

fn killed_while_writing(policy: &str, threads: &str, rewriting: bool) {
    let mut server =
        Server::start(&["--appendonly", "yes", "--appendfsync", policy, "--io-threads", threads]);
    let mut known = [0u64; 4];
    // `cargo xtask crash` asks for more.
    let rounds = std::env::var("KARA_CRASH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(5);
    for round in 0..rounds {
        let answered: Vec<AtomicU64> = (0..4).map(|_| AtomicU64::new(0)).collect();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for (n, answered) in answered.iter().enumerate() {
                let mut client = server.client();
                scope.spawn(move || answered.store(count(&mut client, &format!("n{n}")), Relaxed));
            }
            if rewriting {
                let (mut client, stop) = (server.client(), &stop);
                scope.spawn(move || {
                    while !stop.load(Relaxed) && client.try_call(&["BGREWRITEAOF"]).is_ok() {
                        std::thread::sleep(Duration::from_millis(3));
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(60 + 17 * (round % 9)));
            stop.store(true, Relaxed);
            server.kill();
        });
        server.restart();
        let mut client = server.client();
        for (n, answered) in answered.iter().enumerate() {
            let kept: u64 = client.run(&format!("GET n{n}")).text().parse().unwrap_or(0);
            let answered = answered.load(Relaxed).max(known[n]);
            assert!(kept >= answered, "{policy}: {answered} was answered, {kept} is there");
            // One more may have been executed without its answer getting out.
            assert!(kept <= answered + 1, "{policy}: {kept} is more than was asked for");
            known[n] = kept;
        }
    }
}

#[test]
fn nothing_answered_is_lost_by_a_kill() {
    killed_while_writing("always", "1", false);
    killed_while_writing("always", "4", true);
    killed_while_writing("everysec", "2", true);
}

#[test]
fn directories_go_both_ways() {
    let arguments = ["--appendonly", "yes"];
    let (mut own, mut reference) = (Server::start(&arguments), Server::reference(&arguments));
    for (from, to) in [(0, 1), (1, 0)] {
        let servers = [&mut own, &mut reference];
        let mut client = servers[from].client();
        for line in [
            "RPUSH l a b",
            "SET k v EX 1000",
            "INCR n",
            "XADD s * f v",
            "SPOP none",
            "HSET h f v",
            "SADD s2 1 2 3",
        ] {
            client.run(line);
        }
        assert!(!matches!(client.run("BGREWRITEAOF"), Reply::Error(_)));
        while client.run("INFO persistence").text().contains("aof_rewrite_in_progress:1") {
            std::thread::sleep(Duration::from_millis(5));
        }
        for line in ["INCR n", "SPOP s2", "SELECT 2", "SET elsewhere 1", "EXPIRE elsewhere 500"] {
            client.run(line);
        }
        let before = client.run("DEBUG DIGEST");
        let [a, b] = servers;
        let (from, to) = if from < to { (a, b) } else { (b, a) };
        from.shutdown("NOSAVE");
        to.kill();
        let dir = to.folder().join("appendonlydir");
        fs::remove_dir_all(&dir).expect("the directory");
        fs::create_dir(&dir).expect("a directory");
        for file in fs::read_dir(from.folder().join("appendonlydir")).expect("files") {
            let file = file.expect("a file");
            fs::copy(file.path(), dir.join(file.file_name())).expect("a copy");
        }
        to.restart();
        assert_eq!(to.client().run("DEBUG DIGEST"), before);
        from.restart();
    }
}

#[test]
fn a_base_of_commands_makes_the_same_data() {
    let mut server = Server::start(&["--appendonly", "yes", "--aof-use-rdb-preamble", "no"]);
    let mut client = server.client();
    let numbers: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    for command in ["RPUSH l", "SADD s", "HSET h", "ZADD z"] {
        client.run(&format!("{command} {}", numbers.join(" ")));
    }
    for line in [
        "SET k v PX 9999999",
        "SET n 12",
        "HPEXPIRE h 9999999 FIELDS 1 0",
        "XADD x 1-1 a b",
        "XADD x 2-1 a b",
        "XADD x 3-1 a b",
        "XGROUP CREATE x g 0",
        "XREADGROUP GROUP g c COUNT 2 STREAMS x >",
        "XDEL x 3-1",
        "XGROUP CREATE empty g $ MKSTREAM",
    ] {
        assert!(!matches!(client.run(line), Reply::Error(_)), "{line}");
    }
    client.run("BGREWRITEAOF");
    while client.run("INFO persistence").text().contains("aof_rewrite_in_progress:1") {
        std::thread::sleep(Duration::from_millis(5));
    }
    let show = |client: &mut Client| {
        ["DEBUG DIGEST", "XINFO GROUPS x", "XRANGE x - +", "HPEXPIRETIME h FIELDS 1 0", "XINFO STREAM empty"]
            .map(|line| client.run(line))
    };
    let before = show(&mut client);
    server.kill();
    server.restart();
    assert_eq!(show(&mut server.client())[..4], before[..4]);
}

/// The log's databases are those that the commands ran in, not the transaction's.
#[test]
fn select_within_a_transaction_is_logged() {
    let mut server = Server::start(&["--appendonly", "yes"]);
    let mut client = server.client();
    for line in
        ["MULTI", "SET a 0", "SELECT 1", "SET b 1", "SELECT 2", "SET c 2", "SELECT 0", "SET d 0", "EXEC"]
    {
        client.run(line);
    }
    client.run("EVAL redis.call('SET','e','0');redis.call('SELECT',3);redis.call('SET','f','3') 0");
    client.run("SET g 0");
    let digest = client.run("DEBUG DIGEST");
    server.kill();
    server.restart();
    let mut client = server.client();
    assert_eq!(client.run("DEBUG DIGEST"), digest);
    for (db, keys) in [("0", "a d e g"), ("1", "b"), ("2", "c"), ("3", "f")] {
        client.run(&format!("SELECT {db}"));
        let count = keys.split(' ').count() as i64;
        assert_eq!(client.run(&format!("EXISTS {keys}")), Reply::Integer(count), "database {db}");
    }
}

#[test]
fn a_torn_tail_is_cut_off_and_a_broken_file_refused() {
    let mut server = Server::start(&["--appendonly", "yes"]);
    let mut client = server.client();
    client.run("SET a 1");
    client.run("SET b 2");
    server.kill();
    let file = server.folder().join("appendonlydir/appendonly.aof.1.incr.aof");
    let whole = fs::read(&file).expect("the increment");
    for cut in [1, 7, 20] {
        fs::write(&file, &whole[..whole.len() - cut]).expect("a shorter file");
        server.restart();
        let mut client = server.client();
        assert_eq!(client.run("GET a").text(), "1");
        assert_eq!(client.run("EXISTS b"), Reply::Integer(0));
        client.run("SET c 3");
        server.kill();
        server.restart();
        assert_eq!(server.client().run("GET c").text(), "3", "appended behind the cut");
        server.kill();
    }
}
