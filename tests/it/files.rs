//! RDB files go both ways: what Valkey 9.1.2, an older Valkey and Redis wrote loads here with an equal digest, and ours
//! loads in 9.1.2.

use kara_tests::{Client, Reply, Server};
use std::fs;

/// Fills a server with every type in every encoding; `recent` adds what only Valkey 9 knows. Scores are whole and small:
/// older servers mix others into their digest in other words.
fn fill(client: &mut Client, recent: bool) {
    for line in
        ["SET int 12", "SET neg -7", "SET wide 99999999999", "SET text hello", "SET ttl v PXAT 9999999999999"]
    {
        client.run(line);
    }
    client.call(&["SET", "packed", &"x".repeat(500)]);
    client.call(&["SET", "bytes", "\u{1}\u{7f} \u{e9}"]);
    for n in [3usize, 90, 700] {
        let words = |stem: &str| (0..n).map(|i| format!("{stem}{}", i * 7919)).collect::<Vec<_>>();
        let mut add = |command: &str, key: &str, items: Vec<String>| {
            let key = format!("{key}:{n}");
            let mut args = vec![command, &key];
            args.extend(items.iter().map(String::as_str));
            client.call(&args);
        };
        add("RPUSH", "list", words("element"));
        add("SADD", "set", words("member"));
        add("SADD", "ints", words(""));
        add("SADD", "wideints", words("9000000"));
        add("HSET", "hash", words("f").into_iter().zip(words("v")).flat_map(|(f, v)| [f, v]).collect());
        add("ZADD", "zset", words("").into_iter().zip(words("m")).flat_map(|(s, m)| [s, m]).collect());
        for i in 1..=n {
            client.run(&format!("XADD stream:{n} {i}-1 a {i} b text"));
        }
    }
    client.call(&["RPUSH", "plain", &"y".repeat(20_000), "z", &"w".repeat(9_000)]);
    client.call(&["HSET", "longvalue", "f", &"v".repeat(200)]);
    for line in [
        "XGROUP CREATE stream:90 g 0",
        "XREADGROUP GROUP g c1 COUNT 9 STREAMS stream:90 >",
        "XREADGROUP GROUP g c2 COUNT 3 STREAMS stream:90 >",
        "XACK stream:90 g 2-1",
        "XDEL stream:90 5-1 90-1",
        "SELECT 9",
        "SET elsewhere 1",
        "SELECT 0",
    ] {
        client.run(line);
    }
    if recent {
        client.run("HPEXPIREAT hash:90 9999999999999 FIELDS 2 f0 f7919");
        client.run("ZADD fractions 0.1 a -1e300 b inf c 3e-7 d");
    }
}

fn ok() -> Reply {
    Reply::Simple(b"OK".to_vec())
}

fn digest(client: &mut Client) -> Reply {
    client.run("DEBUG DIGEST")
}

/// Loads the file of one server in the other; both digests are the same, and between servers of one age what a stream
/// tells of itself.
fn carry(from: &Server, to: &mut Server, same_age: bool) {
    let mut client = from.client();
    assert_eq!(client.run("SAVE"), ok());
    let before = digest(&mut client);
    to.kill();
    fs::copy(from.folder().join("dump.rdb"), to.folder().join("dump.rdb")).expect("a dump to copy");
    to.restart();
    assert_eq!(digest(&mut to.client()), before);
    let told = if same_age { "XINFO STREAM stream:90 FULL COUNT 0" } else { "XPENDING stream:90 g" };
    let sizes = |client: &mut Client| (client.run("DBSIZE"), client.run(told));
    assert_eq!(sizes(&mut to.client()), sizes(&mut client));
}

#[test]
fn ours_and_the_references_both_ways() {
    let (mut own, mut reference) = (Server::start(&[]), Server::reference(&[]));
    fill(&mut own.client(), true);
    carry(&own, &mut reference, true);
    reference.client().run("FLUSHALL");
    fill(&mut reference.client(), true);
    own.client().run("FLUSHALL");
    carry(&reference, &mut own, true);
}

#[test]
fn payloads_go_both_ways() {
    let (own, reference) = (Server::start(&[]), Server::reference(&[]));
    let (mut ours, mut theirs) = (own.client(), reference.client());
    fill(&mut ours, true);
    fill(&mut theirs, true);
    let Reply::Array(keys) = theirs.run("KEYS *") else { panic!("KEYS answers an array") };
    assert!(keys.len() > 20);
    for key in keys {
        let Reply::Bulk(key) = key else { panic!("a key") };
        for _ in 0..2 {
            let Reply::Bulk(payload) = ours.call(&[&b"DUMP"[..], &key]) else { panic!("a payload") };
            let restore = [&b"RESTORE"[..], b"copy", b"0", &payload, b"REPLACE"];
            for client in [&mut ours, &mut theirs] {
                assert_eq!(client.call(&restore), ok(), "{}", key.escape_ascii());
            }
            for line in ["DEBUG DIGEST-VALUE copy", "OBJECT ENCODING copy"] {
                assert_eq!(ours.run(line), theirs.run(line), "{line} of {}", key.escape_ascii());
            }
            std::mem::swap(&mut ours, &mut theirs);
        }
    }
}

#[test]
fn reloading_saving_and_the_background() {
    let server = Server::start(&[]);
    let mut client = server.client();
    fill(&mut client, true);
    let before = digest(&mut client);
    for line in ["DEBUG RELOAD", "DEBUG RELOAD NOSAVE"] {
        assert_eq!(client.run(line), ok());
        assert_eq!(digest(&mut client), before);
    }
    assert!(
        matches!(client.run("DEBUG RELOAD NOSAVE NOFLUSH"), Reply::Error(_)),
        "every key is a second one"
    );
    fs::remove_file(server.folder().join("dump.rdb")).expect("the dump");
    assert_eq!(client.run("BGSAVE"), Reply::Simple(b"Background saving started".to_vec()));
    // FLUSHALL would cancel it.
    client.run("FLUSHDB");
    while client.run("INFO persistence").text().contains("rdb_bgsave_in_progress:1") {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(client.run("DEBUG RELOAD NOSAVE"), ok());
    assert_eq!(digest(&mut client), before, "the state at BGSAVE, not at its end");
}

/// A header of an old version with records of new types, as other servers write them.
#[test]
fn old_headers_with_new_records() {
    let reference = Server::start(&["--rdbchecksum", "no"]);
    let mut client = reference.client();
    for line in ["RPUSH l a b", "SADD s a 1", "HSET h f v", "ZADD z 1 m", "XADD x 1-1 f v", "SET k v"] {
        client.run(line);
    }
    let before = digest(&mut client);
    client.run("SAVE");
    let file = fs::read(reference.folder().join("dump.rdb")).expect("the dump");
    let mut old = b"REDIS0009".to_vec();
    old.extend_from_slice(&file[9..]);
    let mut own = Server::start(&[]);
    own.kill();
    fs::write(own.folder().join("dump.rdb"), old).expect("a dump");
    own.restart();
    assert_eq!(digest(&mut own.client()), before);
}

/// What older servers wrote loads here; ours loads there as commands, which they know.
#[test]
fn older_servers_both_ways() {
    for program in ["valkey-server-8.1.8", "redis-server-7.0"] {
        let program = kara_tests::peers().join("bin").join(program);
        let mut own = Server::start(&[]);
        let older = Server::start_program(&program, &[]);
        fill(&mut older.client(), false);
        carry(&older, &mut own, false);

        let arguments = ["--appendonly", "yes", "--aof-use-rdb-preamble", "no"];
        let (mut own, mut older) = (Server::start(&arguments), Server::start_program(&program, &arguments));
        for back in [false, true] {
            let (from, to) = if back { (&mut older, &mut own) } else { (&mut own, &mut older) };
            let mut client = from.client();
            client.run("FLUSHALL");
            fill(&mut client, false);
            client.run("BGREWRITEAOF");
            while client.run("INFO persistence").text().contains("aof_rewrite_in_progress:1") {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            client.run("INCR behind");
            let before = digest(&mut client);
            from.shutdown("NOSAVE");
            to.kill();
            let (source, target) = (from.folder().join("appendonlydir"), to.folder().join("appendonlydir"));
            fs::remove_dir_all(&target).expect("the directory");
            fs::create_dir(&target).expect("a directory");
            for file in fs::read_dir(source).expect("files").flatten() {
                fs::copy(file.path(), target.join(file.file_name())).expect("a copy");
            }
            to.restart();
            assert_eq!(digest(&mut to.client()), before, "{} {back}", program.display());
            from.restart();
        }
    }
}
