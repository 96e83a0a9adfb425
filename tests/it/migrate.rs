//! `kara-cli migrate` from the servers that people come from: every type in every encoding, times to live, databases,
//! an interruption, payloads that the target refuses, and a source that knows less than Valkey.

mod moving;

use kara_base::crc64::crc64;
use kara_tests::{Client, Reply, Server, client, peers, reply, tools};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

fn redis() -> Server {
    Server::start_program(&peers().join("bin/redis-server-7.0"), &[])
}

fn old_valkey() -> Server {
    Server::start_program(&peers().join("bin/valkey-server-8.1.8"), &[])
}

/// Every type in a small and a large encoding, some with times to live, in two databases.
fn fill(client: &mut Client) {
    for line in ["SET int 12", "SET text hello", "SET ttl v PX 90000000", "SET soon v PX 86400000"] {
        client.run(line);
    }
    client.call(&["SET", "bytes", "\u{1}\u{7f} \u{e9}\r\n"]);
    client.call(&["SET", "long", &"x".repeat(20_000)]);
    for n in [3usize, 2_000] {
        for i in 0..n {
            client.run(&format!("RPUSH list:{n} element{i}"));
            client.run(&format!("SADD set:{n} m{i}"));
            client.run(&format!("SADD ints:{n} {i}"));
            client.run(&format!("HSET hash:{n} f{i} v{i}"));
            client.run(&format!("ZADD zset:{n} {i} m{i}"));
            client.run(&format!("XADD stream:{n} {}-1 a {i} b text", i + 1));
        }
    }
    for line in [
        "PEXPIRE hash:3 90000000",
        "XGROUP CREATE stream:3 g 0",
        "XREADGROUP GROUP g c1 COUNT 2 STREAMS stream:3 >",
        "XACK stream:3 g 1-1",
        "SELECT 9",
        "SET elsewhere 1",
        "SELECT 0",
    ] {
        client.run(line);
    }
}

fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}")
}

/// Runs the program; gives its exit code and what it said.
fn migrate(from: u16, to: u16, more: &[&str]) -> (Option<i32>, String) {
    let mut command = tools::own("kara-cli");
    command.args(["migrate", "--from", &url(from), "--to", &url(to)]).args(more);
    let output = tools::with_input(&mut command, b"");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// The keys of both databases have equal values (read by commands) and times to live.
fn assert_equal(from: &Server, to: &Server) {
    let (mut here, mut there) = (from.client(), to.client());
    for db in ["SELECT 0", "SELECT 9"] {
        here.run(db);
        there.run(db);
        assert_eq!(here.run("DBSIZE"), there.run("DBSIZE"));
        let Reply::Array(keys) = here.run("KEYS *") else { panic!("KEYS answers an array") };
        for key in keys.iter().map(Reply::text) {
            let kind = here.call(&["TYPE", &key]).text();
            let lines: &[&[&str]] = match kind.as_str() {
                "string" => &[&["GET"]],
                "list" => &[&["LRANGE", "0", "-1"]],
                "set" => &[&["SMEMBERS"]],
                "hash" => &[&["HGETALL"]],
                "zset" => &[&["ZRANGE", "0", "-1", "WITHSCORES"]],
                _ => &[&["XRANGE", "-", "+"], &["XINFO GROUPS"]],
            };
            for line in lines {
                let read = |client: &mut Client| {
                    let (command, arguments) = line.split_first().expect("a command");
                    let words: Vec<&str> =
                        command.split(' ').chain([key.as_str()]).chain(arguments.iter().copied()).collect();
                    let reply = client.call(&words);
                    // Sets and hashes have no order; a group's fields depend on the version.
                    let mut items: Vec<Reply> = match (kind.as_str(), reply) {
                        ("set" | "hash", Reply::Array(items)) => items,
                        ("stream", reply) if *command == "XINFO GROUPS" => {
                            let group = reply.items().first();
                            let field = |name: &str| group.and_then(|group| group.field(name)).cloned();
                            ["name", "pending", "last-delivered-id"].into_iter().filter_map(field).collect()
                        }
                        (_, reply) => vec![reply],
                    };
                    if kind == "set" || kind == "hash" {
                        items.sort();
                    }
                    items
                };
                assert_eq!(read(&mut here), read(&mut there), "{key}");
            }
            let time = |client: &mut Client| client.call(&["PEXPIRETIME", &key]).integer().unwrap_or(-9);
            assert!((time(&mut here) - time(&mut there)).abs() <= 1, "{key}");
        }
    }
}

fn arrives(from: &Server, to: &Server, more: &[&str], wanted: &str) {
    fill(&mut from.client());
    let (code, said) = migrate(from.port(), to.port(), more);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(wanted), "{said}");
    assert!(said.contains("0 missing, 0 different"), "{said}");
    assert_equal(from, to);
}

#[test]
fn from_redis_70() {
    arrives(&redis(), &Server::start(&["--io-threads", "2"]), &[], "0 were there already");
}

#[test]
fn from_valkey_81_and_functions_too() {
    let (from, to) = (old_valkey(), Server::start(&[]));
    let code = "#!lua name=lib\nserver.register_function('f', function() return 7 end)";
    from.client().call(&["FUNCTION", "LOAD", code]);
    arrives(&from, &to, &[], "0 failed");
    assert_eq!(to.client().run("FCALL f 0"), Reply::Integer(7));
}

#[test]
fn from_valkey_91_with_fields_that_expire() {
    let (from, to) = (Server::reference(&[]), Server::start(&[]));
    fill(&mut from.client());
    from.client().run("HPEXPIRE hash:3 80000000 FIELDS 1 f1");
    let (code, said) = migrate(from.port(), to.port(), &[]);
    assert_eq!(code, Some(0), "{said}");
    let time = |server: &Server| server.client().run("HPEXPIRETIME hash:3 FIELDS 2 f1 f2");
    assert_eq!(time(&from), time(&to));
    assert_equal(&from, &to);
}

/// The way back: Redis 7.0 refuses payloads of a later version, and gets its values type by type.
#[test]
fn to_a_server_that_refuses_the_payloads() {
    arrives(&Server::start(&[]), &redis(), &[], "copying type by type");
}

#[test]
fn only_what_was_chosen() {
    let (from, to) = (redis(), Server::start(&[]));
    fill(&mut from.client());
    let (code, said) = migrate(from.port(), to.port(), &["--pattern", "l*", "--db", "0"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(to.client().run("DBSIZE"), Reply::Integer(3), "list:3, list:2000 and long");
    // What the target has stays, is counted and told apart by the comparison; until it may be replaced.
    to.client().run("SET int 13");
    let (code, said) = migrate(from.port(), to.port(), &["--pattern", "int"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("1 were there already") && said.contains("\"int\": another value"), "{said}");
    let (code, said) = migrate(from.port(), to.port(), &["--pattern", "int", "--replace"]);
    assert_eq!(code, Some(0), "{said}");
    to.client().run("DEL long");
    let (code, said) = migrate(from.port(), to.port(), &["--verify", "only", "--pattern", "l*"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("\"long\": missing") && said.contains("1 missing, 0 different"), "{said}");
}

#[test]
fn wrong_places_are_told() {
    let server = Server::start(&["--requirepass", "secret"]);
    let (code, said) = migrate(1, server.port(), &[]);
    assert_eq!((code, said.trim_end()), (Some(1), "source: Connection refused"));
    let from = Server::start(&[]);
    let (code, said) = migrate(from.port(), server.port(), &[]);
    assert!(code == Some(1) && said.starts_with("target: NOAUTH"), "{said}");
    assert_eq!(migrate(from.port(), from.port(), &[]).0, Some(2));
}

/// Killed in the middle, it goes on from its last note: what was copied isn't read again.
#[test]
fn an_interruption() {
    let (from, to) = (redis(), Server::start(&[]));
    let mut client = from.client();
    let requests: Vec<_> = (0..6_000u32)
        .map(|n| {
            ["SET".to_string(), format!("key:{n}"), format!("value:{n}")].map(String::into_bytes).to_vec()
        })
        .collect();
    client.send(&requests).expect("writes");
    client.read_many(requests.len()).expect("answers");
    let state = to.folder().join("migration");
    let state_text = state.to_string_lossy().into_owned();
    let mut command = tools::own("kara-cli");
    command.args(["migrate", "--from", &url(from.port()), "--to", &url(to.port()), "--rate", "4000"]);
    let mut child = command.args(["--state", &state_text]).spawn().expect("a process");
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut target = to.client();
    while target.run("DBSIZE").integer() < Some(2_000) || !state.exists() {
        assert!(Instant::now() < deadline, "nothing arrives");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("a kill");
    child.wait().expect("an end");
    let arrived = target.run("DBSIZE").integer().unwrap_or(0);
    assert!(arrived < 6_000, "it was too fast to be interrupted");
    let (code, said) = migrate(from.port(), to.port(), &["--state", &state_text]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("Going on where an earlier run stopped."), "{said}");
    let number = |before: &str| {
        let (head, _) = said.split_once(before).expect("the sum");
        head.rsplit(' ').next().and_then(|word| word.parse::<i64>().ok()).expect("a number")
    };
    let (copied, kept) = (number(" keys in"), number(" were there already"));
    assert_eq!(target.run("DBSIZE"), Reply::Integer(6_000));
    assert_eq!(copied, 6_000 - arrived);
    assert!(kept < 1_500, "{kept} of {arrived} keys were read again: {said}");
    // And once more: nothing is left to do.
    let (code, said) = migrate(from.port(), to.port(), &["--state", &state_text]);
    assert!(code == Some(0) && said.contains("Copied 0 keys"), "{said}");
    // A state of another job is no state of this one.
    let (code, said) = migrate(from.port(), to.port(), &["--state", &state_text, "--pattern", "x"]);
    assert!(code == Some(1) && said.contains("the state of another migration"), "{said}");
}

/// As Dragonfly answers: payloads with the footer of RDB version 9 around newer encodings, no DEBUG, no PEXPIRETIME, no
/// functions, another text of INFO. A real Redis behind it holds the data.
fn like_dragonfly(behind: u16) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream, behind));
        }
    });
    port
}

fn serve(mut stream: TcpStream, behind: u16) {
    let mut server = Client::connect(behind).expect("the server behind");
    let mut pending = Vec::new();
    let mut chunk = [0u8; 65536];
    loop {
        // A request has the form of a reply that is an array.
        while let Ok(Some((request, taken))) = reply::parse(&pending) {
            pending.drain(..taken);
            let words: Vec<Vec<u8>> =
                request.items().iter().filter_map(|word| Some(word.bytes()?.to_vec())).collect();
            if stream.write_all(&answer(&mut server, &words)).is_err() {
                return;
            }
        }
        match stream.read(&mut chunk) {
            Ok(count @ 1..) => pending.extend_from_slice(&chunk[..count]),
            _ => return,
        }
    }
}

fn answer(server: &mut Client, words: &[Vec<u8>]) -> Vec<u8> {
    let name = words.first().map(|word| word.to_ascii_lowercase()).unwrap_or_default();
    match name.as_slice() {
        b"debug" | b"pexpiretime" | b"function" => {
            format!("-ERR unknown command `{}`\r\n", String::from_utf8_lossy(&name)).into_bytes()
        }
        b"info" => {
            let keys = server.run("DBSIZE").integer().unwrap_or(0);
            let text = format!("# Keyspace\r\ndb0:keys={keys},expires=0,avg_ttl=-1\r\n");
            format!("${}\r\n{text}\r\n", text.len()).into_bytes()
        }
        b"dump" => match server.call(words) {
            Reply::Bulk(mut payload) => {
                let footer = payload.len() - 10;
                payload.truncate(footer);
                payload.extend_from_slice(&9u16.to_le_bytes());
                let sum = crc64(0, &payload);
                payload.extend_from_slice(&sum.to_le_bytes());
                [format!("${}\r\n", payload.len()).into_bytes(), payload, b"\r\n".to_vec()].concat()
            }
            _ => b"$-1\r\n".to_vec(),
        },
        _ => wire(&server.call(words)),
    }
}

fn wire(reply: &Reply) -> Vec<u8> {
    match reply {
        Reply::Simple(text) => [b"+", text.as_slice(), b"\r\n"].concat(),
        Reply::Error(text) => [b"-", text.as_slice(), b"\r\n"].concat(),
        Reply::Integer(number) => format!(":{number}\r\n").into_bytes(),
        Reply::Bulk(text) => [format!("${}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat(),
        Reply::Array(items) => {
            let head = format!("*{}\r\n", items.len()).into_bytes();
            [head, items.iter().flat_map(wire).collect()].concat()
        }
        _ => b"$-1\r\n".to_vec(),
    }
}

#[test]
fn from_a_source_like_dragonfly() {
    let (behind, to) = (redis(), Server::start(&["--io-threads", "2"]));
    let mut client = behind.client();
    fill(&mut client);
    client.run("SELECT 9");
    client.run("FLUSHDB");
    let (code, said) = migrate(like_dragonfly(behind.port()), to.port(), &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("0 failed") && said.contains("0 missing, 0 different"), "{said}");
    let mut here = behind.client();
    let mut there = to.client();
    assert_eq!(here.run("DBSIZE"), there.run("DBSIZE"));
    assert_eq!(
        here.run("DEBUG DIGEST-VALUE list:2000 hash:3 zset:2000"),
        there.run("DEBUG DIGEST-VALUE list:2000 hash:3 zset:2000")
    );
    let left = |client: &mut Client| client.run("PTTL ttl").integer().unwrap_or(-1);
    assert!((left(&mut here) - left(&mut there)).abs() < 2_000);
}

/// Dragonfly's file in RDB's format: the header says version 9, the records are newer.
#[test]
fn from_a_file_with_dragonflys_header() {
    let from = redis();
    let mut client = from.client();
    fill(&mut client);
    client.run("SAVE");
    let wanted = client.run("DEBUG DIGEST");
    let mut file = std::fs::read(from.folder().join("dump.rdb")).expect("the dump");
    file[..9].copy_from_slice(b"REDIS0009");
    let body = file.len() - 8;
    let sum = crc64(0, &file[..body]);
    file[body..].copy_from_slice(&sum.to_le_bytes());
    let mut to = Server::start(&[]);
    to.kill();
    write(&to.folder().join("dump.rdb"), &file);
    to.restart();
    assert_eq!(to.client().run("DEBUG DIGEST"), wanted);
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap_or_else(|fault| panic!("{}: {fault}", path.display()));
}

/// The encoder of requests is the tests' own; a source reads what it is sent.
#[test]
fn requests_read_as_arrays() {
    let mut bytes = Vec::new();
    client::encode(&mut bytes, &["DUMP", "key"]);
    let (request, taken) = reply::parse(&bytes).expect("an array").expect("a whole one");
    assert_eq!((request.items().len(), taken), (2, bytes.len()));
}
