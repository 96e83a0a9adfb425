//! What clients of ill will send: each case is named by its number in the project's list of failures of servers of this
//! kind. The server answers as the reference does, stays up, and its memory stays bounded. Cases of scripts, messages and
//! waiting clients stand with those.

use kara_tests::{Client, Reply, Server};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// What replies may make of an integer.
fn shown(reply: &Reply) -> String {
    match reply {
        Reply::Integer(n) => n.to_string(),
        Reply::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(" "),
        Reply::NullBulk | Reply::NullArray => "nil".into(),
        other => other.text(),
    }
}

/// Runs lines; each reply must be what stands behind it. The server answers PING at once afterwards.
fn expect(server: &Server, lines: &[(&str, &str)]) {
    let mut client = server.client();
    for (line, wanted) in lines {
        let started = Instant::now();
        assert_eq!(shown(&client.run(line)), *wanted, "{line}");
        assert!(started.elapsed() < Duration::from_secs(5), "{line}: {:?}", started.elapsed());
    }
    is_well(server);
}

fn is_well(server: &Server) {
    let started = Instant::now();
    assert_eq!(server.client().run("PING").text(), "PONG");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

fn info(client: &mut Client, field: &str) -> u64 {
    let text = client.run("INFO everything").text();
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {field} in INFO"))
}

/// Sends bytes as they are and gives what comes back until the server closes, or nothing comes for a while.
fn raw(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(n) = stream.read(&mut chunk) {
        if n == 0 {
            break;
        }
        answer.extend_from_slice(&chunk[..n]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// S13: a client that hasn't authenticated sends and never reads: its answers don't pile up.
#[test]
fn s13_unread_answers_before_auth_are_bounded() {
    let server = Server::start(&["--requirepass", "secret"]);
    let mut control = server.client();
    control.run("AUTH secret");
    let before = info(&mut control, "used_memory");
    let mut most = before;
    let mut flooder = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    flooder.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let batch = b"PING\r\n".repeat(10_000);
    for _ in 0..1_000 {
        if flooder.write_all(&batch).is_err() {
            break;
        }
        most = most.max(info(&mut control, "used_memory"));
    }
    most = most.max(info(&mut control, "used_memory"));
    assert!(most - before < 4 << 20, "{} bytes for answers that nobody reads", most - before);
    assert_eq!(control.run("PING").text(), "PONG");
}

/// S14: before AUTH a request has at most 10 arguments of 16 KB.
#[test]
fn s14_requests_before_auth_are_small() {
    let server = Server::start(&["--requirepass", "secret"]);
    assert_eq!(raw(&server, b"*11\r\n"), "-ERR Protocol error: unauthenticated multibulk length\r\n");
    assert_eq!(raw(&server, b"*2\r\n$16385\r\n"), "-ERR Protocol error: unauthenticated bulk length\r\n");
    assert!(raw(&server, b"*10\r\n$4\r\nPING\r\n").is_empty());
    let mut client = server.client();
    assert!(client.run("AUTH secret").text() == "OK");
    assert!(client.call(&["ECHO".to_owned(), "x".repeat(20_000)]).text().len() == 20_000);
}

/// S15: announced counts allocate nothing by themselves, and a large argument on its way a megabyte or so.
#[test]
fn s15_announced_lengths_allocate_little() {
    let server = Server::start(&[]);
    let mut control = server.client();
    let before = info(&mut control, "used_memory");
    let announce: [&[u8]; 4] = [
        b"*1048576\r\n",
        b"*2147483647\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n",
        b"*1000000\r\n$1\r\nx\r\n$500000000\r\n",
    ];
    let mut held = Vec::new();
    for bytes in announce.iter().cycle().take(200) {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        stream.write_all(bytes).unwrap();
        held.push(stream);
    }
    assert_eq!(control.run("PING").text(), "PONG");
    std::thread::sleep(Duration::from_millis(100));
    let grown = info(&mut control, "used_memory").saturating_sub(before);
    assert!(grown < 200 << 20, "{grown} bytes for lengths that were only announced");
}

/// S16: where a connection can't be accepted, the next one can be all the same.
#[test]
fn s16_a_failed_accept_does_not_stop_accepting() {
    let server = Server::start(&["--maxclients", "200"]);
    let mut control = server.client();
    let files = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count();
    let limit = |most: usize| {
        let pid = server.pid().to_string();
        std::process::Command::new("prlimit")
            .args(["--pid", &pid, &format!("--nofile={most}:")])
            .status()
            .is_ok_and(|status| status.success())
    };
    assert!(limit(files + 4), "prlimit of util-linux lowers the server's limit");
    let held: Vec<_> =
        (0..20).filter_map(|_| TcpStream::connect(("127.0.0.1", server.port())).ok()).collect();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(control.run("PING").text(), "PONG");
    drop(held);
    std::thread::sleep(Duration::from_millis(50));
    is_well(&server);
    assert!(limit(500));
    let many: Vec<_> = (0..50).map(|_| server.client()).collect();
    for mut client in many {
        assert_eq!(client.run("PING").text(), "PONG");
    }
}

/// S17: an empty request leaves no state behind.
#[test]
fn s17_empty_requests_leave_nothing_behind() {
    let server = Server::start(&[]);
    let ping = "*1\r\n$4\r\nPING\r\n";
    for empty in ["*0\r\n", "*-1\r\n", "*-9223372036854775808\r\n", "\r\n", "*0\r\n*0\r\n\r\n"] {
        assert_eq!(raw(&server, format!("{empty}{ping}").as_bytes()), "+PONG\r\n", "{empty:?}");
        assert_eq!(raw(&server, format!("{empty}PING\r\n").as_bytes()), "+PONG\r\n", "{empty:?}");
    }
    let answer = raw(&server, b"*0\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n");
    assert!(answer.starts_with("-ERR unknown command '$4'"), "{answer}");
    is_well(&server);
}

/// S18: buffers that grew for a large argument shrink again, and the figures agree.
#[test]
fn s18_buffers_grow_and_shrink_accountably() {
    let server = Server::start(&[]);
    let mut control = server.client();
    let before = info(&mut control, "used_memory");
    let mut clients: Vec<Client> = (0..8).map(|_| server.client()).collect();
    for round in 0..3 {
        for client in &mut clients {
            let large = "x".repeat(3_000_000 + round * 100_003);
            assert_eq!(client.call(&["SET", "k", &large]).text(), "OK");
            assert_eq!(client.run("GET k").bytes().map(<[u8]>::len), Some(large.len()));
        }
    }
    for client in &mut clients {
        client.run("DEL k");
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let list = control.run("CLIENT LIST").text();
        let figures = list.split_whitespace().filter_map(|word| {
            let (name, value) = word.split_once('=')?;
            matches!(name, "qbuf" | "qbuf-free" | "tot-mem" | "omem")
                .then(|| value.parse::<i64>().unwrap_or(-1))
        });
        assert!(figures.clone().all(|figure| (0..100 << 20).contains(&figure)), "{list}");
        let grown = info(&mut control, "used_memory").saturating_sub(before);
        if grown < 4 << 20 {
            break;
        }
        assert!(Instant::now() < deadline, "{grown} bytes stay\n{list}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// S19: whoever can connect to the Unix socket finds it with its permissions.
#[test]
fn s19_the_unix_socket_has_its_permissions_before_it_listens() {
    let folder = std::env::temp_dir().join(format!("kara-s19-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for round in 0..3 {
        let path = folder.join(format!("socket{round}"));
        let socket = path.to_string_lossy().into_owned();
        let looker = std::thread::spawn({
            let path = path.clone();
            move || {
                let deadline = Instant::now() + Duration::from_secs(20);
                while Instant::now() < deadline {
                    if UnixStream::connect(&path).is_ok() {
                        return std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
                    }
                }
                0
            }
        });
        let server = Server::start(&["--unixsocket", &socket, "--unixsocketperm", "700"]);
        assert_eq!(looker.join().unwrap(), 0o700);
        drop(server);
    }
    let _ = std::fs::remove_dir_all(&folder);
}

/// S21: offsets and limits at the ends of the integers.
#[test]
fn s21_setrange_and_sort_at_the_ends_of_the_integers() {
    let too_long = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
    let lines = [
        ("SETRANGE k 9223372036854775807 x", too_long),
        ("SETRANGE k 4611686018427387904 x", too_long),
        ("SETRANGE k 536870912 x", too_long),
        ("SETRANGE k -1 x", "ERR offset is out of range"),
        ("RPUSH l 3 1 2", "3"),
        ("SORT l LIMIT 9223372036854775807 9223372036854775807", ""),
        ("SORT l LIMIT 1 9223372036854775807", "2 3"),
        ("SORT l LIMIT -9223372036854775808 9223372036854775807", "1 2 3"),
        ("SORT l LIMIT 0 -9223372036854775808", "1 2 3"),
    ];
    expect(&Server::start(&[]), &lines);
}

/// S22: XAUTOCLAIM's COUNT.
#[test]
fn s22_xautoclaim_with_extreme_counts() {
    let lines = [
        ("XADD s 1-1 a b", "1-1"),
        ("XGROUP CREATE s g 0", "OK"),
        ("XREADGROUP GROUP g c STREAMS s >", "s 1-1 a b"),
        ("XAUTOCLAIM s g d 0 0 COUNT 9223372036854775807", "ERR COUNT must be > 0"),
        ("XAUTOCLAIM s g d 0 0 COUNT 1152921504606846975", "ERR COUNT must be > 0"),
        ("XAUTOCLAIM s g d 0 0 COUNT -9223372036854775808", "ERR COUNT must be > 0"),
        ("XAUTOCLAIM s g d 0 0 COUNT 1", "0-0 1-1 a b "),
    ];
    expect(&Server::start(&[]), &lines);
}

/// S23: counts of random members.
#[test]
fn s23_random_members_with_extreme_counts() {
    let range = "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807";
    let out = "ERR value is out of range";
    let lines = [
        ("HSET h f 1", "1"),
        ("SADD s a", "1"),
        ("ZADD z 1 a", "1"),
        ("HRANDFIELD h -9223372036854775808", range),
        ("HRANDFIELD h 9223372036854775807 WITHVALUES", out),
        ("HRANDFIELD h 4611686018427387904 WITHVALUES", out),
        ("HRANDFIELD h -4611686018427387905 WITHVALUES", out),
        ("HRANDFIELD h 9223372036854775807", "f"),
        ("ZRANDMEMBER z -9223372036854775808", range),
        ("ZRANDMEMBER z 4611686018427387904 WITHSCORES", out),
        ("ZRANDMEMBER z 9223372036854775807", "a"),
        ("SRANDMEMBER s -9223372036854775808", range),
        ("SRANDMEMBER s 9223372036854775807", "a"),
        // The reference begins to answer this one, and never ends.
        ("SRANDMEMBER s -9223372036854775807", out),
        ("SPOP s 9223372036854775807", "a"),
    ];
    expect(&Server::start(&[]), &lines);
}

/// S25: HINCRBYFLOAT never stores what is no number.
#[test]
fn s25_hincrbyfloat_leaves_valid_fields() {
    let lines = [
        ("HSET h f 1", "1"),
        ("HINCRBYFLOAT h f inf", "ERR value is NaN or Infinity"),
        ("HINCRBYFLOAT h f nan", "ERR value is not a valid float"),
        ("HSET h g 1.7e4932 i inf", "2"),
        ("HINCRBYFLOAT h g 1.7e4932", "ERR value is not a valid float"),
        ("HINCRBYFLOAT h new nan", "ERR value is not a valid float"),
        ("HGETALL h", "f 1 g 1.7e4932 i inf"),
        ("HINCRBYFLOAT h f 0.5", "1.5"),
    ];
    expect(&Server::start(&[]), &lines);
}

/// S26: sparse HyperLogLogs that say more than they hold.
#[test]
fn s26_broken_hyperloglogs_are_refused() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let head = b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80";
    let runs: [&[u8]; 9] = [
        b"",
        b"\x7f\xff",
        b"\x7f\xff\x7f",
        b"\x40",
        b"\xff",
        b"\x7f\xff\xff\xff\xff",
        b"\x3f",
        b"\x7f\xfe\x00\x80",
        b"\x7f\xff\x7f\xff\x7f\xff\x7f\xff",
    ];
    for run in runs {
        let mut value = head.to_vec();
        value.extend_from_slice(run);
        client.call(&[b"SET".as_slice(), b"p", &value]);
        for line in ["PFCOUNT p", "PFADD p a b c", "PFMERGE q p", "PFCOUNT p q", "PFDEBUG DECODE p"] {
            client.run(line);
            assert_eq!(client.run("PING").text(), "PONG", "{line} of {run:x?}");
            client.call(&[b"SET".as_slice(), b"p", &value]);
        }
        client.run("DEL q");
    }
    client.run("DEL p");
    assert_eq!(client.run("PFADD p a").integer(), Some(1));
    client.run("SETRANGE p 0 HYLLx");
    let wrong = "WRONGTYPE Key is not a valid HyperLogLog string value.";
    assert_eq!(client.run("PFCOUNT p").text(), wrong);
    is_well(&server);
}

/// S27: more IDs than anybody would give.
#[test]
fn s27_commands_of_many_stream_ids() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.run("XADD s 1-1 a b");
    client.run("XGROUP CREATE s g 0");
    client.run("XREADGROUP GROUP g c STREAMS s >");
    let ids: Vec<String> = (0..5_000).map(|n| format!("{n}-1")).collect();
    let call = |client: &mut Client, front: &[&str], back: &[&str]| {
        let words: Vec<&str> =
            front.iter().copied().chain(ids.iter().map(String::as_str)).chain(back.iter().copied()).collect();
        client.call(&words)
    };
    assert_eq!(call(&mut client, &["XCLAIM", "s", "g", "d", "0"], &["JUSTID"]).items().len(), 1);
    assert_eq!(call(&mut client, &["XACK", "s", "g"], &[]).integer(), Some(1));
    assert_eq!(call(&mut client, &["XDEL", "s"], &[]).integer(), Some(1));
    let mut read = vec!["XREAD".to_owned(), "STREAMS".to_owned()];
    read.extend((0..2_000).map(|n| format!("s{n}")));
    read.extend((0..2_000).map(|_| "0".to_owned()));
    assert_eq!(client.call(&read), Reply::NullArray);
    is_well(&server);
}

/// S28: numbers of fields, expiries and offsets that don't fit.
#[test]
fn s28_numbers_that_do_not_fit() {
    let fields = "ERR numfields should be greater than 0 and match the provided number of fields";
    let offset = "ERR bit offset is not an integer or out of range";
    let lines = [
        ("HSET h f 1", "1"),
        ("HGETEX h", "ERR wrong number of arguments for 'hgetex' command"),
        ("HGETEX h FIELDS", "ERR wrong number of arguments for 'hgetex' command"),
        ("HGETEX h EX 10 FIELDS 2 a", fields),
        ("HSETEX h FIELDS 2 a b", fields),
        ("HSETEX h FIELDS", "ERR wrong number of arguments for 'hsetex' command"),
        ("HGETDEL h FIELDS", "ERR wrong number of arguments for 'hgetdel' command"),
        ("HEXPIRE h 10 FIELDS 9223372036854775807 f", fields),
        ("HEXPIRE h 9223372036854775807 FIELDS 1 f", "ERR invalid expire time in 'hexpire' command"),
        ("HPEXPIRE h 9223372036854775807 FIELDS 1 f", "ERR invalid expire time in 'hpexpire' command"),
        ("HEXPIRE h -1 FIELDS 1 f", "ERR invalid expire time in 'hexpire' command"),
        ("HPEXPIREAT h 9223372036854775807 FIELDS 1 f", "1"),
        ("HTTL h FIELDS 4294967297 f", "ERR syntax error"),
        ("HSCAN h 0 COUNT 9223372036854775807", "0 f 1"),
        ("SCAN 0 COUNT 9223372036854775807", "0 h"),
        ("SCAN 18446744073709551616", "ERR invalid cursor"),
        ("RPUSH l a", "1"),
        ("LSET l 4294967296 x", "ERR index out of range"),
        ("LSET l -4294967297 x", "ERR index out of range"),
        ("BITFIELD b SET u8 #9223372036854775807 1", offset),
        ("BITFIELD b GET u8 9223372036854775807", offset),
        ("BITFIELD b SET u8 #536870912 1", offset),
        (
            "BITFIELD b GET u64 0",
            "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not \
          supported but i64 is.",
        ),
        ("GETBIT b 4294967296", offset),
        ("SETBIT b 4294967296 1", offset),
    ];
    expect(&Server::start(&[]), &lines);
}

/// S40: key specs that count past the arguments.
#[test]
fn s40_key_extraction_stays_within_the_arguments() {
    let invalid = "ERR Invalid arguments specified for command";
    let lines = [
        ("COMMAND GETKEYS ZUNION 2147483647 a", invalid),
        ("COMMAND GETKEYS ZUNIONSTORE d 2147483647 a", invalid),
        ("COMMAND GETKEYS LMPOP 2147483648 a LEFT", invalid),
        ("COMMAND GETKEYS MSETEX 9223372036854775807 a 1", invalid),
        ("COMMAND GETKEYS MSETEX 4294967297 a 1", invalid),
        ("COMMAND GETKEYS MSETEX 0", "ERR Invalid number of arguments specified for command"),
        ("COMMAND GETKEYS EVAL x 9223372036854775807 a", ""),
        ("COMMAND GETKEYS EVAL x -1 a", ""),
        ("ZUNION 2147483647 a", "ERR syntax error"),
        ("LMPOP 9223372036854775807 a LEFT", "ERR syntax error"),
        ("EVAL x 9223372036854775807 a", "ERR Number of keys can't be greater than number of args"),
        ("MSETEX 2147483647 a 1", "ERR syntax error"),
    ];
    expect(&Server::start(&[]), &lines);
}

/// S42: of an option given twice, the check sees the one that is executed.
#[test]
fn s42_the_last_of_two_options_is_seen_and_executed() {
    let lines = [
        ("GEOADD g 1 1 m", "1"),
        ("GEORADIUS g 1 1 10 km STORE d1 STORE d2", "1"),
        ("EXISTS d1", "0"),
        ("EXISTS d2", "1"),
        ("COMMAND GETKEYS GEORADIUS g 1 1 10 km STORE d1 STORE d2", "g d2"),
        ("COMMAND GETKEYS GEORADIUS g 1 1 10 km STORE d1 STOREDIST d2", "g d2"),
        ("RPUSH l 2 1", "2"),
        ("SORT l STORE e1 STORE e2", "2"),
        ("EXISTS e1", "0"),
        ("LRANGE e2 0 -1", "1 2"),
        ("COMMAND GETKEYS SORT l STORE e1 STORE e2", "l e2"),
        ("COMMAND GETKEYS XREAD COUNT 1 STREAMS a b STREAMS c d", "a b"),
        ("COMMAND GETKEYS XREADGROUP GROUP STREAMS c STREAMS a b 1 2", "a b"),
    ];
    expect(&Server::start(&[]), &lines);
}

/// S43: every key that is written counts as written.
#[test]
fn s43_keys_that_are_written_are_named_so() {
    let lines = [
        ("COMMAND GETKEYSANDFLAGS MSETEX 2 a 1 b 2 EX 10", "a OW update b OW update"),
        ("COMMAND GETKEYSANDFLAGS COPY a b DB 3", "a RO access b OW update"),
        ("COMMAND GETKEYSANDFLAGS SORT k BY w* GET o* STORE d", "k RO access d OW update"),
        ("MSETEX 2 a 1 b 2 EX 10", "1"),
        ("COPY a b DB 3", "1"),
    ];
    expect(&Server::start(&[]), &lines);
}
