//! Time: who removes what has expired, and when a command sees that time has passed.

use kara_tests::client::Request;
use kara_tests::{Client, Reply, Server};
use std::time::{Duration, Instant};

fn words(line: &str) -> Request {
    line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect()
}

fn stat(client: &mut Client, field: &str) -> u64 {
    let text = client.run("INFO stats").text();
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {field} in INFO"))
}

/// Commands of one batch, of which one is slow: those behind it see the time that it took.
#[test]
fn time_passes_behind_a_slow_command() {
    let server = Server::start(&["--io-threads", "1"]);
    let mut client = server.client();
    client.run("DEBUG SET-ACTIVE-EXPIRE 0");
    let batch = ["SET k v PX 50", "GET k", "DEBUG SLEEP 0.1", "GET k"];
    client.send(&batch.map(words)).unwrap();
    let replies = client.read_many(4).unwrap();
    assert_eq!(replies[1].text(), "v");
    assert_eq!(replies[3], Reply::NullBulk);
}

/// A client waits for a key that has expired by the time the transaction that filled it is over.
#[test]
fn a_waiting_client_is_not_served_by_what_has_expired() {
    let server = Server::start(&["--io-threads", "2"]);
    let mut control = server.client();
    control.run("DEBUG SET-ACTIVE-EXPIRE 0");
    let mut waiting = server.client();
    waiting.send(&[words("BLPOP l 0.5")]).unwrap();
    while stat_of(&mut control, "blocked_clients") == 0 {}
    for line in ["MULTI", "RPUSH l a", "PEXPIRE l 50", "DEBUG SLEEP 0.1", "EXEC"] {
        control.run(line);
    }
    assert_eq!(waiting.read().unwrap(), Reply::NullArray);
}

fn stat_of(client: &mut Client, field: &str) -> u64 {
    let text = client.run("INFO clients").text();
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or_default()
}

/// SCAN removes on its way only what it would have shown.
#[test]
fn scan_removes_what_its_filters_let_through() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.run("DEBUG SET-ACTIVE-EXPIRE 0");
    for key in ["a", "b", "c"] {
        client.run(&format!("SET {key} v PX 1"));
    }
    client.run("DEBUG SLEEP 0.01");
    for (line, left) in [("SCAN 0 MATCH x", 3), ("SCAN 0 TYPE hash", 3), ("SCAN 0 MATCH a", 2), ("SCAN 0", 0)]
    {
        assert_eq!(client.run(line).items()[1].items().len(), 0, "{line}");
        assert_eq!(client.run("DBSIZE"), Reply::Integer(left), "{line}");
    }
}

/// RANDOMKEY goes on until it finds a key that lives, however many have expired.
#[test]
fn randomkey_finds_the_one_that_lives() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.run("DEBUG SET-ACTIVE-EXPIRE 0");
    for n in 0..1_000 {
        client.run(&format!("SET k:{n} v PX 1"));
    }
    client.run("SET alive v");
    client.run("DEBUG SLEEP 0.01");
    assert_eq!(client.run("RANDOMKEY").text(), "alive");
    client.run("DEL alive");
    assert_eq!(client.run("RANDOMKEY"), Reply::NullBulk);
    assert_eq!(client.run("DBSIZE"), Reply::Integer(0));
}

/// Nobody else would ever remove what clients wrote to a replica.
#[test]
fn a_writable_replica_removes_its_own_keys() {
    let nobody = kara_tests::server::free_port().to_string();
    let primary = format!("127.0.0.1 {nobody}");
    let server = Server::start(&["--replicaof", &primary, "--replica-read-only", "no", "--io-threads", "2"]);
    let mut client = server.client();
    for line in
        ["SET a v PX 1", "SET b v", "PEXPIRE b 1", "SET c v PX 999999", "MULTI", "SET d v PX 1", "EXEC"]
    {
        client.run(line);
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while stat(&mut client, "expired_keys") < 3 || client.run("DBSIZE") != Reply::Integer(1) {
        assert!(Instant::now() < deadline, "{}", client.run("INFO stats").text());
    }
    assert_eq!(stat(&mut client, "slave_expires_tracked_keys"), 1);
    client.run("PERSIST c");
    while stat(&mut client, "slave_expires_tracked_keys") > 0 {
        assert!(Instant::now() < deadline, "a key without expiry is still remembered");
    }
    client.run("CONFIG SET replica-read-only yes");
    assert!(client.run("SET x v").is_error());
}

/// Words of the append-only file's increment, a command a line.
fn logged(server: &Server) -> Vec<String> {
    let text =
        std::fs::read_to_string(server.folder().join("appendonlydir/appendonly.aof.1.incr.aof")).unwrap();
    let mut commands: Vec<String> = Vec::new();
    let mut lines = text.split("\r\n");
    while let Some(line) = lines.next() {
        if line.starts_with('*') {
            commands.push(String::new());
        } else if line.starts_with('$')
            && let (Some(command), Some(word)) = (commands.last_mut(), lines.next())
        {
            command.push_str(if command.is_empty() { "" } else { " " });
            command.push_str(word);
        }
    }
    commands
}

/// What a command finds expired is logged with what it does, as one transaction; RANDOMKEY's and SCAN's finds one by one.
#[test]
fn expired_keys_are_logged_with_the_command_that_found_them() {
    let server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let mut client = server.client();
    client.run("DEBUG SET-ACTIVE-EXPIRE 0");
    let mut expect = |lines: &[&str], wanted: &[&str]| {
        let before = logged(&server).len();
        for line in lines {
            client.run(line);
        }
        client.run("SET done 1 PXAT 99999999999999");
        let all = logged(&server);
        let mut wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        wanted.push("SET done 1 PXAT 99999999999999".to_owned());
        assert_eq!(all[all.len() - wanted.len()..], wanted, "{lines:?}");
        assert!(all.len() >= before + wanted.len());
    };
    let two = ["PSETEX a 1 v", "PSETEX b 1 v", "DEBUG SLEEP 0.01"];
    expect(&[&two[..], &["EXISTS a b"]].concat(), &["MULTI", "UNLINK a", "UNLINK b", "EXEC"]);
    expect(&[&two[..], &["APPEND a x"]].concat(), &["MULTI", "UNLINK a", "APPEND a x", "EXEC"]);
    expect(&["DEL a", "EXISTS b"], &["DEL a", "UNLINK b"]);
    expect(&["DEL done", "PSETEX a 1 v", "DEBUG SLEEP 0.01", "RANDOMKEY"], &["UNLINK a"]);
    expect(&[&two[..], &["SCAN 0 COUNT 1000 MATCH a"]].concat(), &["UNLINK a"]);
    expect(&["MSETEX 1 k v pxat 99999999999999"], &["MSETEX 1 k v pxat 99999999999999"]);
}
