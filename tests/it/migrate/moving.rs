//! MIGRATE and MODULE beside the reference: each step is taken on both, and replies and data must be equal. Then MIGRATE
//! between both.

use kara_tests::{Client, Reply, Server, free_port};
use std::net::TcpListener;
use std::time::Instant;

/// A server, one that it moves keys to, one that asks for a password, and one that has no room.
struct Four {
    from: Server,
    to: Server,
    guarded: Server,
    full: Server,
}

impl Four {
    fn start(start: fn(&[&str]) -> Server) -> Self {
        let guarded = start(&["--requirepass", "pw"]);
        let mut client = guarded.client();
        client.run("AUTH pw");
        assert_eq!(client.run("ACL SETUSER u on >up ~* +@all").text(), "OK");
        let full = start(&[]);
        full.client().run("CONFIG SET maxmemory 1");
        Four { from: start(&[]), to: start(&[]), guarded, full }
    }

    /// Runs a line in which words in capitals stand for ports, and NOTHING for an empty word; gives the reply and what both
    /// sides hold then. What a connection can't say of a port stands in no error text.
    fn step(&self, client: &mut Client, line: &str, silent: u16, dead: u16) -> (Reply, Reply, Reply) {
        let ports = [
            ("TO", self.to.port()),
            ("GUARDED", self.guarded.port()),
            ("FULL", self.full.port()),
            ("SILENT", silent),
            ("DEAD", dead),
        ];
        let words: Vec<String> = line
            .split(' ')
            .map(|word| match ports.iter().find(|(name, _)| *name == word) {
                Some((_, port)) => port.to_string(),
                None if word == "NOTHING" => String::new(),
                None => word.to_owned(),
            })
            .collect();
        let reply = client.call(&words);
        let keys = "MGET k a b c";
        (reply, client.run(keys), self.to.client().run(keys))
    }
}

const STEPS: &[&str] = &[
    "SET k v",
    "MIGRATE 127.0.0.1 TO k 0 1000",
    "MIGRATE 127.0.0.1 TO k 0 1000",
    "SET k w",
    // It is there already.
    "MIGRATE 127.0.0.1 TO k 0 1000",
    "MIGRATE 127.0.0.1 TO k 0 1000 COPY REPLACE",
    "MIGRATE 127.0.0.1 TO k 0 1000 REPLACE",
    "MIGRATE 127.0.0.1 TO none 0 1000",
    "MIGRATE 127.0.0.1 TO NOTHING 0 1000 KEYS n1 n2",
    "MSET k w a 1 b 2 c 3",
    "MIGRATE 127.0.0.1 TO a 0 1000 COPY",
    // One is there already, and the others go all the same.
    "MIGRATE 127.0.0.1 TO NOTHING 0 1000 KEYS a b c none",
    "MIGRATE 127.0.0.1 TO NOTHING 0 1000 REPLACE KEYS a",
    "MIGRATE 127.0.0.1 TO x 0 1000 KEYS a",
    "MIGRATE 127.0.0.1 TO NOTHING 0 1000",
    "MIGRATE 127.0.0.1 TO k 99 1000",
    "MIGRATE 127.0.0.1 TO k z 1000",
    "MIGRATE 127.0.0.1 TO k 0 z",
    "MIGRATE 127.0.0.1 TO k 0 1000 FOO",
    "MIGRATE 127.0.0.1 TO k 0 1000 AUTH",
    "MIGRATE 127.0.0.1 TO k 0 1000 AUTH2 u",
    "MIGRATE 127.0.0.1 GUARDED k 0 1000",
    "MIGRATE 127.0.0.1 GUARDED k 0 1000 AUTH bad",
    "MIGRATE 127.0.0.1 GUARDED k 0 1000 AUTH2 u bad",
    "MIGRATE 127.0.0.1 GUARDED k 3 1000 COPY AUTH2 u up",
    "MIGRATE 127.0.0.1 GUARDED k 0 1000 AUTH pw",
    "SET k q",
    "MIGRATE 127.0.0.1 FULL k 0 1000",
    // Nobody is there; then somebody who says nothing.
    "MIGRATE 127.0.0.1 DEAD k 0 500",
    "MIGRATE 127.0.0.1 SILENT k 0 300",
    "MODULE LIST",
    "MODULE LOAD /nonexistent.so",
    "MODULE LOADEX /nonexistent.so",
    "MODULE UNLOAD nosuch",
    "MODULE UNLOAD lua",
    "MODULE X",
    "MODULE LIST x",
    "MODULE LOAD",
    "MODULE",
];

#[test]
fn keys_move_and_modules_answer_as_in_the_reference() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent_port = silent.local_addr().expect("its address").port();
    let dead_port = free_port();
    let (ours, theirs) = (Four::start(Server::start), Four::start(Server::reference));
    let (mut our, mut their) = (ours.from.client(), theirs.from.client());
    for line in STEPS {
        let begun = Instant::now();
        let got = ours.step(&mut our, line, silent_port, dead_port);
        let took = begun.elapsed();
        let wanted = theirs.step(&mut their, line, silent_port, dead_port);
        assert_eq!(got, wanted, "{line}");
        assert!(took.as_secs() < 10, "{line}: {took:?}");
    }
    for four in [&ours, &theirs] {
        let mut client = four.guarded.client();
        client.run("AUTH pw");
        assert_eq!(client.run("GET k").text(), "w");
        client.run("SELECT 3");
        assert_eq!(client.run("GET k").text(), "w");
    }
}

/// Every type goes from us to the reference and back, with its time to live, and is what it was.
#[test]
fn keys_move_between_us_and_the_reference() {
    let (ours, theirs) = (Server::start(&[]), Server::reference(&[]));
    let (mut our, mut their) = (ours.client(), theirs.client());
    for line in [
        "SET string v",
        "SET number 12345",
        "RPUSH list a b c",
        "SADD set a b c",
        "SADD integers 1 2 3",
        "ZADD zset 1.5 a -inf b",
        "HSET hash f v g w",
        "HEXPIRE hash 10000 FIELDS 1 g",
        "XADD stream 1-1 f v",
        "XGROUP CREATE stream g 0",
        "PEXPIRE string 100000",
    ] {
        assert!(!our.run(line).is_error(), "{line}");
    }
    our.call(&["SET", "large", &"x".repeat(300_000)]);
    let keys = ["string", "number", "list", "set", "integers", "zset", "hash", "stream", "large"];
    let state = |client: &mut Client| {
        let digest = client.call(&[["DEBUG", "DIGEST-VALUE"].as_slice(), &keys].concat());
        let fields = client.run("HTTL hash FIELDS 2 f g");
        (digest, fields.items()[0].clone(), client.run("XINFO GROUPS stream"))
    };
    let before = state(&mut our);
    for (from, to, port) in [(0, 1, theirs.port()), (1, 0, ours.port())] {
        let port = port.to_string();
        let head = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        let both = [&mut our, &mut their];
        assert_eq!(both[from].call(&[head.as_slice(), &keys].concat()).text(), "OK");
        assert_eq!(both[from].run("DBSIZE"), Reply::Integer(0));
        assert_eq!(both[to].run("DBSIZE"), Reply::Integer(keys.len() as i64));
        let left_ms = both[to].run("PTTL string").integer().unwrap_or_default();
        assert!((50_000..=100_000).contains(&left_ms), "{left_ms}");
        let left_s = both[to].run("HTTL hash FIELDS 1 g").items()[0].integer().unwrap_or_default();
        assert!((9_000..=10_000).contains(&left_s), "{left_s}");
        if to == 0 {
            assert_eq!(state(both[to]), before);
        }
    }
}
