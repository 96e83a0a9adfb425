//! Files and payloads that were made to break other servers of this kind, by their numbers: each is refused, and the
//! server goes on.

use kara_base::crc64::crc64;
use kara_tests::server::{free_port, own_program};
use kara_tests::{Client, Reply, Server};
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// A payload of RESTORE: the value's type and bytes, a version, the checksum.
fn payload(value: &[u8], version: u16) -> Vec<u8> {
    let mut bytes = value.to_vec();
    bytes.extend_from_slice(&version.to_le_bytes());
    let sum = crc64(0, &bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

fn refused(client: &mut Client, what: &str, value: &[u8]) {
    let reply = client.call(&[&b"RESTORE"[..], b"k", b"0", &payload(value, 11), b"REPLACE"]);
    assert!(reply.is_error(), "{what}: {reply:?}");
    assert_eq!(client.run("EXISTS k"), Reply::Integer(0), "{what}");
    assert_eq!(client.run("PING"), Reply::Simple(b"PONG".to_vec()), "{what}");
}

fn blob(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut value = vec![kind, bytes.len() as u8];
    value.extend_from_slice(bytes);
    value
}

/// A length in five bytes where one would do is read one way by a validator and another way by an iterator.
#[test]
fn s29_overlong_lengths_in_a_zipmap() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let whole = [&[1u8, 1][..], b"f", &[1, 0], b"v", &[0xff]].concat();
    let reply = client.call(&[&b"RESTORE"[..], b"k", b"0", &payload(&blob(9, &whole), 11)]);
    assert_eq!(reply.text(), "OK", "the same with short lengths is a hash");
    assert_eq!(client.run("HGET k f").text(), "v");
    client.run("DEL k");
    for (what, map) in [
        ("the field", [&[1u8, 254, 1, 0, 0, 0][..], b"f", &[1, 0], b"v", &[0xff]].concat()),
        ("the value", [&[1u8, 1][..], b"f", &[254, 1, 0, 0, 0, 0], b"v", &[0xff]].concat()),
        ("a length beyond the end", [&[1u8, 254, 255, 255, 255, 255][..], b"f", &[0xff]].concat()),
        ("free bytes beyond the end", [&[1u8, 1][..], b"f", &[1, 200], b"v", &[0xff]].concat()),
        ("no end", [&[1u8, 1][..], b"f", &[1, 0], b"v"].concat()),
    ] {
        refused(&mut client, what, &blob(9, &map));
    }
}

/// Two consumers that claim one pending entry would free it twice.
#[test]
fn s30_two_consumers_share_a_pending_entry() {
    let server = Server::start(&[]);
    let mut client = server.client();
    for line in [
        "XADD x 1-1 f v",
        "XADD x 2-1 f v",
        "XGROUP CREATE x g 0",
        "XREADGROUP GROUP g c1 COUNT 1 STREAMS x >",
    ] {
        client.run(line);
    }
    client.run("XREADGROUP GROUP g c2 COUNT 1 STREAMS x >");
    let Reply::Bulk(dump) = client.run("DUMP x") else { panic!("a payload") };
    let body = &dump[..dump.len() - 10];
    let id = |ms: u64| [ms.to_be_bytes(), 1u64.to_be_bytes()].concat();
    // The last mention of entry 2-1 is consumer c2's: make it 1-1, which is c1's.
    let at = body.windows(16).rposition(|w| w == id(2)).expect("the entry of the second consumer");
    let mut shared = body.to_vec();
    shared[at..at + 16].copy_from_slice(&id(1));
    let version = u16::from_le_bytes([dump[dump.len() - 10], dump[dump.len() - 9]]);
    assert_eq!(client.call(&[&b"RESTORE"[..], b"whole", b"0", &payload(body, version)]).text(), "OK");
    refused(&mut client, "shared", &shared);
}

/// Starts on a file that must not be loaded: the process ends by itself, saying why, instead of crashing.
fn does_not_start(what: &str, file: &[u8]) -> String {
    let mut server = Server::start(&[]);
    server.kill();
    fs::write(server.folder().join("dump.rdb"), file).expect("a dump");
    let started = Command::new(own_program())
        .args(["--port", &free_port().to_string(), "--bind", "127.0.0.1", "--dir"])
        .arg(server.folder())
        .current_dir(server.folder())
        .output()
        .expect("the server");
    let said = String::from_utf8_lossy(&started.stdout).into_owned();
    assert_eq!(started.status.code(), Some(1), "{what}: {said}");
    said
}

#[test]
fn a_stated_number_of_keys_is_not_believed() {
    let mut server = Server::start(&["--io-threads", "1"]);
    let own = used_memory(&mut server.client());
    server.kill();
    let records = [[0, 1, b'a', 1, b'v'], [0, 1, b'b', 1, b'v']].concat();
    let many = [0x81, 255, 255, 255, 255, 255, 255, 255, 255];
    // Of one database, and of all of them in a file that is long by what stands in front.
    let claims = (0..16).flat_map(|db| [&[0xfe, db, 0xfb][..], &many, &many].concat());
    let note = [&[0xfa, 1, b'x', 0x80, 0, 8, 0, 0][..], &[b'n'; 0x8_0000]].concat();
    let file = [&b"REDIS0011"[..], &note, &claims.collect::<Vec<u8>>(), &records, &[0xff], &[0; 8]].concat();
    fs::write(server.folder().join("dump.rdb"), file).expect("a dump");
    server.restart();
    let mut client = server.client();
    assert_eq!(client.run("INFO keyspace").text().matches("keys=2").count(), 1);
    let grown = used_memory(&mut client).saturating_sub(own);
    assert!(grown < 1 << 20, "{grown}");
}

fn used_memory(client: &mut Client) -> u64 {
    let info = client.run("INFO memory").text();
    let line = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    line.and_then(|figure| figure.parse().ok()).expect("used_memory")
}

#[test]
fn s31_a_slot_beyond_the_last() {
    let file = |slot: &[u8]| {
        [&b"VALKEY080\xfe\x00\xf4"[..], slot, &[1, 0, 0, 1], b"k", &[1], b"v", &[0xff; 9]].concat()
    };
    for slot in [
        &[0x80, 0, 0, 0x40, 0][..],
        &[0x81, 255, 255, 255, 255, 255, 255, 255, 255],
        &[0x80, 255, 255, 255, 255],
    ] {
        let said = does_not_start("a slot", &file(slot));
        assert!(said.contains("a slot beyond the last"), "{said}");
    }
}

#[test]
fn s32_values_and_notes_of_modules() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let id = [0x81, 1, 2, 3, 4, 5, 6, 7, 8];
    for (what, rest) in [
        ("nothing", &[][..]),
        ("an integer without its value", &[2]),
        ("a string beyond the end", &[5, 0x81, 255, 255, 255, 255, 255, 255, 255, 255]),
        ("an unknown part", &[9, 9, 9]),
        ("a whole one of no module", &[2, 1, 0]),
    ] {
        for kind in [6u8, 7] {
            refused(&mut client, what, &[&[kind][..], &id, rest].concat());
        }
    }
    let aux = [&b"REDIS0011\xf7"[..], &id, &[2, 1, 5, 0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]]
        .concat();
    does_not_start("a note of a module", &aux);
}

#[test]
fn s33_long_paths_for_the_checkers() {
    for checker in ["kara-check-aof", "kara-check-rdb"] {
        for path in ["a".repeat(5000), "d/".repeat(3000) + "appendonly.aof.manifest"] {
            let done = Command::new(own_program()).arg0(checker).arg(&path).output().expect("the checker");
            assert_eq!(done.status.code(), Some(1), "{checker}: {}", String::from_utf8_lossy(&done.stdout));
        }
    }
    // A manifest that names a file outside its directory, or one with an endless name.
    let server = Server::start(&[]);
    let manifest = server.folder().join("appendonly.aof.manifest");
    for name in ["../../etc/passwd".to_owned(), "b".repeat(10_000)] {
        fs::write(&manifest, format!("file {name} seq 1 type b\n")).expect("a manifest");
        let done =
            Command::new(own_program()).arg0("kara-check-aof").arg(&manifest).output().expect("the checker");
        assert_eq!(done.status.code(), Some(1), "{}", String::from_utf8_lossy(&done.stdout));
    }
}
