//! Disks that are full, fail or stand still, at named places (DEBUG KARA-FAULT): the server stays up, refuses what it
//! can't keep, recovers by itself, and no file is ever half of one thing and half of another. D1 to D8 are failures of
//! other servers of this kind.

use kara_tests::disk::crash;
use kara_tests::replication::{follow, until, until_caught_up, until_linked};
use kara_tests::{Client, Reply, Server};
use std::fs;
use std::time::{Duration, Instant};

fn ok() -> Reply {
    Reply::Simple(b"OK".to_vec())
}

fn put(client: &mut Client, fault: &str) {
    assert_eq!(client.run(&format!("DEBUG KARA-FAULT {fault}")), ok());
}

fn info(client: &mut Client, field: &str) -> String {
    let text = client.run("INFO persistence").text();
    let line = text.lines().find(|line| line.split(':').next() == Some(field)).unwrap_or_default();
    line.split(':').nth(1).unwrap_or_default().trim().to_owned()
}

/// Waits until a field of INFO has a value.
fn wait_for(client: &mut Client, field: &str, value: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while info(client, field) != value {
        assert!(Instant::now() < deadline, "{field} is {}", info(client, field));
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn rewrite(client: &mut Client) -> Reply {
    let reply = client.run("BGREWRITEAOF");
    wait_for(client, "aof_rewrite_in_progress", "0");
    reply
}

/// Tries a write until it is taken.
fn write_again(client: &mut Client, line: &str) -> Reply {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let reply = client.run(line);
        if !reply.is_error() {
            return reply;
        }
        assert!(Instant::now() < deadline, "{line}: {}", reply.text());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn d1_always_answers_after_the_fsync() {
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let mut control = server.client();
    put(&mut control, "aof-sync EIO");
    let mut writer = server.client();
    writer.set_timeout(Duration::from_millis(300)).expect("a timeout");
    assert!(writer.try_call(&["INCR", "n"]).is_err(), "answered before it was on the disk");
    // Who asks between the write and its failure waits with the writer.
    std::thread::sleep(Duration::from_secs(1));
    wait_for(&mut control, "aof_last_write_status", "err");
    assert_eq!(control.run("GET n").text(), "1");
    let refused = server.client().run("SET other 1").text();
    assert!(refused.starts_with("MISCONF Errors writing to the AOF file"), "{refused}");
    put(&mut control, "OFF");
    writer.set_timeout(Duration::from_secs(20)).expect("a timeout");
    assert_eq!(writer.read().expect("the answer"), Reply::Integer(1));
    server.kill();
    server.restart();
    assert_eq!(server.client().run("INCR n"), Reply::Integer(2), "there once");
}

#[test]
fn d2_what_was_refused_is_nowhere() {
    for policy in ["always", "everysec"] {
        let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", policy]);
        let mut client = server.client();
        client.run("INCR n");
        put(&mut client, "aof-write ENOSPC");
        let mut writer = server.client();
        writer.set_timeout(Duration::from_millis(200)).expect("a timeout");
        // The first that meets the full disk: by the policy it is answered, or its answer waits.
        let _ = writer.try_call(&["INCR", "n"]);
        std::thread::sleep(Duration::from_secs(1));
        wait_for(&mut client, "aof_last_write_status", "err");
        let mut refused = 0;
        for _ in 0..10 {
            let reply = client.run("INCR refused").text();
            refused +=
                usize::from(reply.starts_with("MISCONF Errors writing to the AOF file: No space left"));
        }
        assert_eq!(refused, 10, "{policy}");
        assert!(!client.run("GET n").is_error(), "reading goes on");
        put(&mut client, "OFF");
        write_again(&mut client, "SET after 1");
        let n = client.run("GET n").text();
        server.kill();
        server.restart();
        let mut client = server.client();
        assert_eq!(client.run("GET n").text(), n, "{policy}: once, not twice");
        assert_eq!(client.run("EXISTS refused after"), Reply::Integer(1));
    }
}

/// D5 and D7: short writes and a full disk, a rewrite over them, and nothing stands twice.
#[test]
fn d5_short_writes_and_rewrites_duplicate_nothing() {
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let mut client = server.client();
    for round in 0..6 {
        // Seven bytes fit, then none, at the n-th call.
        put(&mut client, &format!("aof-write SHORT {} 1", round % 3));
        for _ in 0..5 {
            client.run("INCR n");
            client.run("RPUSH l x");
        }
        put(&mut client, "aof-write ENOSPC 0 2");
        let mut writer = server.client();
        assert_eq!(writer.run("RPUSH l held"), Reply::Integer((round + 1) * 6));
        rewrite(&mut client);
        put(&mut client, "OFF");
        write_again(&mut client, "SET after 1");
    }
    let before = client.run("DEBUG DIGEST");
    assert_eq!(client.run("LLEN l"), Reply::Integer(36));
    server.kill();
    server.restart();
    assert_eq!(server.client().run("DEBUG DIGEST"), before);
}

/// D4 and D6: whatever fails while a file is made, the one before stays, whole, and the next one is whole.
#[test]
fn d6_every_call_that_fails_is_noticed() {
    let server = Server::start(&["--save", "3600 1"]);
    let mut client = server.client();
    client.run("SET k 0");
    assert_eq!(client.run("SAVE"), ok());
    let file = server.folder().join("dump.rdb");
    for (number, fault) in
        ["file-create ENOSPC", "file-write EIO", "file-write ENOSPC 1", "file-sync EIO", "file-rename EIO"]
            .into_iter()
            .enumerate()
    {
        client.run(&format!("SET k {number}"));
        client.call(&["SET", "long", &"z".repeat(300_000 + number)]);
        client.run("CONFIG SET rdbcompression no");
        let before = fs::read(&file).expect("the dump");
        put(&mut client, fault);
        assert!(client.run("SAVE").is_error(), "{fault}");
        let _ = client.run("BGSAVE");
        wait_for(&mut client, "rdb_bgsave_in_progress", "0");
        assert_eq!(info(&mut client, "rdb_last_bgsave_status"), "err", "{fault}");
        let refused = client.run("SET k refused").text();
        assert!(
            refused.starts_with("MISCONF Valkey is configured to save RDB snapshots"),
            "{fault}: {refused}"
        );
        assert_eq!(fs::read(&file).expect("the dump"), before, "{fault}");
        put(&mut client, "OFF");
        client.run("BGSAVE");
        wait_for(&mut client, "rdb_bgsave_in_progress", "0");
        assert_eq!(info(&mut client, "rdb_last_bgsave_status"), "ok", "{fault}");
        assert_ne!(fs::read(&file).expect("the dump"), before, "{fault}");
    }
    let left: Vec<_> = fs::read_dir(server.folder())
        .expect("the folder")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("temp-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn d7_a_full_disk_ends_nothing() {
    let mut server = Server::start(&["--appendonly", "yes"]);
    let mut client = server.client();
    for place in
        ["file-create", "file-write", "file-sync", "manifest", "incr-created", "base-renamed", "aof-write"]
    {
        client.run("INCR n");
        put(&mut client, &format!("{place} ENOSPC"));
        let _ = client.run("BGREWRITEAOF");
        let _ = client.run("BGSAVE SCHEDULE");
        wait_for(&mut client, "aof_rewrite_in_progress", "0");
        wait_for(&mut client, "rdb_bgsave_in_progress", "0");
        assert!(!client.run("PING").is_error() || place == "aof-write", "{place}");
        put(&mut client, "OFF");
        write_again(&mut client, "INCR m");
    }
    assert!(server.is_alive());
    let before = client.run("DEBUG DIGEST");
    server.kill();
    server.restart();
    assert_eq!(server.client().run("DEBUG DIGEST"), before);
}

#[test]
fn d8_half_a_transaction_is_none() {
    let mut server = Server::start(&["--appendonly", "yes"]);
    let mut client = server.client();
    client.run("SET a 1");
    client.run("MULTI");
    client.run("SET a 2");
    client.run("SET b 2");
    client.run("EXEC");
    client.run("EVAL redis.call('SET','c',1);redis.call('SET','d',1) 0");
    let file = server.folder().join("appendonlydir/appendonly.aof.1.incr.aof");
    server.kill();
    let whole = fs::read(&file).expect("the increment");
    for cut in (1..whole.len() - 40).step_by(9) {
        fs::write(&file, &whole[..whole.len() - cut]).expect("a shorter file");
        server.restart();
        let mut client = server.client();
        let (a, b) = (client.run("GET a").text(), client.run("EXISTS b"));
        assert!(
            matches!((a.as_str(), b), ("2", Reply::Integer(1)) | ("1" | "", Reply::Integer(0))),
            "cut by {cut}"
        );
        let (c, d) = (client.run("EXISTS c"), client.run("EXISTS d"));
        assert_eq!(c, d, "cut by {cut}");
        server.kill();
    }
}

/// What a test of the reference's does by killing children.
#[test]
fn rewrites_that_fail_leave_their_increments() {
    let mut server = Server::start(&["--appendonly", "yes"]);
    let mut client = server.client();
    client.run("SET k v");
    rewrite(&mut client);
    for round in 0..3 {
        put(&mut client, "file-sync EIO");
        rewrite(&mut client);
        put(&mut client, "OFF");
        client.run(&format!("SET during{round} v"));
    }
    let manifest = || fs::read_to_string(server.folder().join("appendonlydir/appendonly.aof.manifest"));
    let manifest = manifest().expect("the manifest");
    let incrs: Vec<&str> = manifest.lines().filter(|line| line.ends_with("type i")).collect();
    assert_eq!(incrs.len(), 4, "{manifest}");
    let before = client.run("DEBUG DIGEST");
    assert_eq!(client.run("DEBUG LOADAOF"), ok());
    assert_eq!(client.run("DEBUG DIGEST"), before);
    assert_eq!(info(&mut client, "aof_last_bgrewrite_status"), "err");
    server.kill();
    server.restart();
    let mut client = server.client();
    assert_eq!(client.run("DEBUG DIGEST"), before);
    rewrite(&mut client);
    let files = fs::read_dir(server.folder().join("appendonlydir")).expect("the folder").count();
    assert_eq!(files, 3, "base, increment and manifest");
}

#[test]
fn switched_on_while_rewriting_fails() {
    let mut server = Server::start(&[]);
    let mut client = server.client();
    client.run("SET k v");
    put(&mut client, "file-sync EIO 0 1");
    assert_eq!(client.run("CONFIG SET appendonly yes"), ok());
    client.run("SET during v");
    // The rewrite is tried again by itself.
    let deadline = Instant::now() + Duration::from_secs(20);
    while !server.folder().join("appendonlydir/appendonly.aof.manifest").exists() {
        assert!(Instant::now() < deadline, "{}", server.log_tail());
        std::thread::sleep(Duration::from_millis(10));
    }
    wait_for(&mut client, "aof_rewrite_in_progress", "0");
    let before = client.run("DEBUG DIGEST");
    server.kill();
    // What counts is what the files say, not the command line.
    let mut second = Server::start(&["--appendonly", "yes"]);
    second.kill();
    fs::remove_dir_all(second.folder().join("appendonlydir")).expect("the directory");
    fs::create_dir(second.folder().join("appendonlydir")).expect("a directory");
    for file in fs::read_dir(server.folder().join("appendonlydir")).expect("files").flatten() {
        fs::copy(file.path(), second.folder().join("appendonlydir").join(file.file_name())).expect("a copy");
    }
    second.restart();
    assert_eq!(second.client().run("DEBUG DIGEST"), before);
}

#[test]
fn a_save_that_fails_stops_writes() {
    let server = Server::start(&["--save", "3600 1"]);
    let mut client = server.client();
    client.run("SET x x");
    put(&mut client, "file-write EIO");
    client.run("BGSAVE");
    wait_for(&mut client, "rdb_bgsave_in_progress", "0");
    assert_eq!(client.run("GET x").text(), "x");
    let scripts = ["return redis.call('set','x',1)", "#!lua\nreturn redis.call('set','x',1)"];
    let mut refused = vec![client.run("SET x y")];
    refused.extend(scripts.map(|script| client.call(&["EVAL", script, "1", "x"])));
    for reply in refused {
        assert!(reply.text().contains("MISCONF"), "{}", reply.text());
    }
    assert_eq!(client.call(&["EVAL", "return redis.call('get','x')", "1", "x"]).text(), "x");
    let reading = "#!lua flags=no-writes\nreturn redis.call('get','x')";
    assert_eq!(client.call(&["EVAL", reading, "1", "x"]).text(), "x");
    put(&mut client, "OFF");
    client.run("BGSAVE");
    wait_for(&mut client, "rdb_bgsave_in_progress", "0");
    assert_eq!(client.run("SET x y"), ok());
}

/// Files under way of that server.
fn unfinished(server: &Server) -> usize {
    let files = fs::read_dir(server.folder()).expect("the folder").flatten();
    files.filter(|file| file.file_name().to_string_lossy().starts_with("temp-")).count()
}

#[test]
fn a_cancelled_save_leaves_nothing() {
    let server = Server::start(&["--rdb-key-save-delay", "1000000"]);
    let mut client = server.client();
    client.run("DEBUG POPULATE 100");
    client.run("BGSAVE");
    until("the saving thread has opened its file", || unfinished(&server) == 1);
    assert_eq!(client.run("BGSAVE CANCEL").text(), "Background saving cancelled");
    wait_for(&mut client, "rdb_bgsave_in_progress", "0");
    assert_eq!(unfinished(&server), 0);
}

#[test]
fn shutdown_removes_the_file_under_way() {
    let mut server = Server::start(&["--rdb-key-save-delay", "1000000"]);
    let mut client = server.client();
    client.run("DEBUG POPULATE 100");
    client.run("BGSAVE");
    until("the saving thread has opened its file", || unfinished(&server) == 1);
    server.shutdown("NOSAVE");
    assert_eq!(unfinished(&server), 0);
}

/// A sample of `cargo xtask crash`.
#[test]
fn killed_at_named_places() {
    crash::rounds(6, 20_261_127).unwrap_or_else(|fault| panic!("{fault}"));
}

#[test]
fn a_replica_without_its_disk_ends_unless_it_is_told_to_go_on() {
    let primary = Server::start(&["--repl-diskless-sync-delay", "0"]);
    let mut replica = Server::start(&["--appendonly", "yes", "--replica-ignore-disk-write-errors", "yes"]);
    let (mut p, mut r) = (primary.client(), replica.client());
    follow(&replica, primary.port());
    until_linked("replica", &replica);
    put(&mut r, "aof-write ENOSPC");
    p.run("INCR n");
    wait_for(&mut r, "aof_last_write_status", "err");
    p.run("INCR n");
    until_caught_up("without a disk", &mut p, &mut r);
    assert_eq!(r.run("GET n").text(), "2");
    assert!(replica.log_tail().contains("even though it is unable to write"), "{}", replica.log_tail());
    assert_eq!(r.run("CONFIG SET replica-ignore-disk-write-errors no"), ok());
    p.run("INCR n");
    until("the replica ends", || !replica.is_alive());
    let log = fs::read_to_string(replica.folder().join("log")).expect("the log");
    assert!(log.contains("unable to write command to disk"), "{log}");
    // Where its disk works again it goes on from what the primary has.
    replica.restart();
    follow(&replica, primary.port());
    until_linked("replica", &replica);
    until_caught_up("with its disk", &mut p, &mut replica.client());
    assert_eq!(replica.client().run("GET n").text(), "3");
}
