//! Libraries of functions in RDB files, append-only files and payloads, ours and the reference's.

use kara_tests::{Client, Reply, Server};
use std::fs;
use std::time::Duration;

fn ok() -> Reply {
    Reply::Simple(b"OK".to_vec())
}

/// Loads the file of one server in the other.
fn carry(from: &Server, to: &mut Server) {
    assert_eq!(from.client().run("SAVE"), ok());
    to.kill();
    fs::copy(from.folder().join("dump.rdb"), to.folder().join("dump.rdb")).expect("a dump to copy");
    to.restart();
}

const COUNTER: &str = "#!lua name=counters\n\
    local function bump(keys, args) return redis.call('INCRBY', keys[1], args[1]) end\n\
    redis.register_function{function_name='bump', callback=bump, description='adds'}\n\
    redis.register_function{function_name='peek', callback=function(keys) return redis.call('GET', keys[1]) end, \
    flags={'no-writes'}}\n";
const GREETER: &str = "#!lua name=greeter\nredis.register_function('hi', function() return 'hi' end)\n";

/// Everything that FUNCTION LIST tells, and that the functions can be called.
fn libraries(client: &mut Client) -> Reply {
    assert_eq!(client.run("FCALL hi 0"), Reply::Bulk(b"hi".to_vec()));
    assert!(matches!(client.run("FCALL bump 1 n 2"), Reply::Integer(_)));
    client.run("FUNCTION STATS")
}

fn load_libraries(client: &mut Client) {
    for code in [COUNTER, GREETER] {
        assert!(matches!(client.call(&["FUNCTION", "LOAD", code]), Reply::Bulk(_)));
    }
}

#[test]
fn libraries_survive_reloads_and_restarts() {
    for more in [&["--io-threads", "1"][..], &["--io-threads", "2", "--appendonly", "yes"]] {
        let mut server = Server::start(more);
        let mut client = server.client();
        load_libraries(&mut client);
        let listed = client.run("FUNCTION LIST WITHCODE");
        let stats = libraries(&mut client);
        assert_eq!(client.run("DEBUG RELOAD"), ok());
        assert_eq!(libraries(&mut client), stats);
        server.shutdown("SAVE");
        server.restart();
        let mut client = server.client();
        assert_eq!(libraries(&mut client), stats);
        assert_eq!(client.run("FUNCTION LIST WITHCODE"), listed);
        // What is deleted stays deleted.
        assert_eq!(client.run("FUNCTION DELETE greeter"), ok());
        server.shutdown("SAVE");
        server.restart();
        let mut client = server.client();
        assert!(client.run("FCALL hi 0").text().starts_with("ERR Function not found"));
        assert!(matches!(client.run("FCALL bump 1 n 2"), Reply::Integer(_)));
    }
}

#[test]
fn libraries_in_the_logs_base() {
    for preamble in ["yes", "no"] {
        let mut server = Server::start(&["--appendonly", "yes", "--aof-use-rdb-preamble", preamble]);
        let mut client = server.client();
        load_libraries(&mut client);
        let stats = libraries(&mut client);
        client.run("BGREWRITEAOF");
        while client.run("INFO persistence").text().contains("aof_rewrite_in_progress:1") {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(client.run("DEBUG LOADAOF"), ok(), "{preamble}");
        assert_eq!(libraries(&mut client), stats);
        server.kill();
        server.restart();
        assert_eq!(libraries(&mut server.client()), stats);
    }
}

#[test]
fn libraries_go_both_ways() {
    let (mut ours, mut reference) = (Server::start(&[]), Server::reference(&[]));
    load_libraries(&mut ours.client());
    let stats = libraries(&mut ours.client());
    carry(&ours, &mut reference);
    assert_eq!(libraries(&mut reference.client()), stats);
    carry(&reference, &mut ours);
    assert_eq!(libraries(&mut ours.client()), stats);
    // Payloads as well.
    for (from, to) in [(&ours, &reference), (&reference, &ours)] {
        let dump = from.client().run("FUNCTION DUMP");
        let mut to = to.client();
        assert_eq!(to.run("FUNCTION FLUSH"), ok());
        let Reply::Bulk(payload) = dump else { panic!("{dump:?}") };
        assert_eq!(to.call(&[b"FUNCTION", &b"RESTORE"[..], &payload]), ok());
        assert_eq!(libraries(&mut to), stats);
    }
}
