//! Scripts against the reference, slow scripts, and scripts that touch keys which they don't declare.

use kara_tests::{Client, Reply, Server, root};
use std::time::Duration;

/// The scripts of a file, which stand between lines of three dashes.
fn corpus(name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join("tests/scripts").join(name)).unwrap();
    text.split("\n---\n").filter(|script| !script.trim().is_empty()).map(str::to_owned).collect()
}

fn same_as_reference(name: &str) {
    let (ours, reference) = (Server::start(&[]), Server::reference(&[]));
    for protocol in ["2", "3"] {
        let (mut a, mut b) = (ours.client(), reference.client());
        for client in [&mut a, &mut b] {
            client.call(&["HELLO", protocol]);
            client.call(&["FLUSHALL"]);
        }
        for script in corpus(name) {
            let command = ["EVAL", &script, "1", "k", "a1", "a2"];
            assert_eq!(a.call(&command), b.call(&command), "RESP{protocol}: {script}");
        }
    }
}

#[test]
fn conversions_and_errors() {
    same_as_reference("conversions.lua.txt");
}

#[test]
fn sandbox_and_api() {
    same_as_reference("api.lua.txt");
}

#[test]
fn libraries() {
    same_as_reference("libraries.lua.txt");
}

/// Asks until the answer begins with a text.
fn until(client: &mut Client, line: &str, beginning: &str) {
    for _ in 0..200 {
        if client.run(line).text().starts_with(beginning) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{line} never answered {beginning}");
}

fn slow_script(threads: &str) {
    let server = Server::start(&["--io-threads", threads, "--busy-reply-threshold", "50"]);
    let mut others: Vec<Client> = (0..4).map(|_| server.client()).collect();
    let mut slow = server.client();
    for script in
        ["while true do end", "while true do pcall(function() while true do redis.call('PING') end end) end"]
    {
        slow.send(&[["EVAL", script, "0"].map(|word| word.as_bytes().to_vec()).to_vec()]).unwrap();
        // Sent before anybody knows that the script is slow: whoever waits for its locks is answered, too.
        for (client, line) in others.iter_mut().zip(["SCAN 0", "GET x", "DBSIZE", "EVAL x 1 y"]) {
            until(client, line, "BUSY");
        }
        others.iter_mut().for_each(|client| until(client, "GET x", "BUSY"));
        // A new connection is served as well.
        until(&mut server.client(), "PING", "BUSY");
        assert_eq!(others[0].run("FUNCTION KILL").text().split(' ').next(), Some("BUSY"));
        assert_eq!(others[1].run("SCRIPT KILL"), Reply::Simple(b"OK".to_vec()));
        let end = slow.read().unwrap();
        assert!(end.text().starts_with("ERR Script killed by user with SCRIPT KILL."), "{end:?}");
        others.iter_mut().for_each(|client| until(client, "PING", "PONG"));
    }
    let writing = "redis.call('SET', KEYS[1], 1) while true do end";
    slow.send(&[["EVAL", writing, "1", "k"].map(|word| word.as_bytes().to_vec()).to_vec()]).unwrap();
    until(&mut others[0], "PING", "BUSY");
    assert!(others[0].run("SCRIPT KILL").text().starts_with("UNKILLABLE"));
    assert!(others[1].run("SHUTDOWN").text().starts_with("BUSY"));
    assert!(others[2].try_call(&["SHUTDOWN", "NOSAVE"]).is_err());
}

#[test]
fn slow_scripts_leave_others_answered() {
    slow_script("1");
    slow_script("2");
}

#[test]
fn undeclared_keys_are_never_wrong() {
    // Every account is declared by some calls and touched undeclared by others: nothing may get lost or deadlock.
    const ACCOUNTS: usize = 16;
    let server = Server::start(&["--io-threads", "2"]);
    let mut client = server.client();
    for n in 0..ACCOUNTS {
        client.run(&format!("SET account:{n} 100"));
    }
    let moves = "redis.call('DECRBY', KEYS[1], 1) redis.call('RPUSH', 'log:' .. ARGV[2], ARGV[1]) \
                 local n = redis.call('INCRBY', ARGV[1], 1) return n";
    let threads: Vec<_> = (0..4usize)
        .map(|thread| {
            let mut client = server.client();
            std::thread::spawn(move || {
                for n in 0..500usize {
                    let from = format!("account:{}", (n * 7 + thread) % ACCOUNTS);
                    let to = format!("account:{}", (n * 3 + thread * 5 + 1) % ACCOUNTS);
                    // Each script text is new now and then, so that it runs under the declared locks first.
                    let script = format!("local v = {} {moves}", n / 20);
                    let reply = client.call(&["EVAL", &script, "1", &from, &to, &thread.to_string()]);
                    assert!(reply.integer().is_some(), "{reply:?}");
                    if n % 5 == 0 {
                        client.call(&["MSET", "other:1", "x", "other:2", "y"]);
                        client.call(&["DBSIZE"]);
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let sum: i64 =
        (0..ACCOUNTS).map(|n| client.run(&format!("GET account:{n}")).text().parse::<i64>().unwrap()).sum();
    assert_eq!(sum, 100 * ACCOUNTS as i64);
    for thread in 0..4 {
        assert_eq!(client.run(&format!("LLEN log:{thread}")).integer(), Some(500));
    }
}
