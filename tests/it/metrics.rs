//! Metrics and probes over HTTP: what Prometheus' own library reads, what dashboards ask for, and what broken or slow
//! clients can't do.

use kara_tests::{Client, Server, free_port, peers, root};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

/// A server with metrics, and their port.
fn watched(arguments: &[&str]) -> (Server, u16) {
    let port = free_port();
    let text = port.to_string();
    let server = Server::start(&[&["--metrics-port", &text], arguments].concat());
    (server, port)
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("the metrics' port");
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Sends bytes as they are; gives everything that comes until the server closes.
fn raw(port: u16, request: &[u8]) -> String {
    let mut stream = connect(port);
    // It may answer and close before it has everything.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Status and body.
fn get(port: u16, path: &str) -> (u16, String) {
    let text = raw(port, format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes());
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
    (status, body)
}

/// Samples by name and labels, as they are written.
fn samples(port: u16) -> BTreeMap<String, f64> {
    let (status, body) = get(port, "/metrics");
    assert_eq!(status, 200);
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| line.rsplit_once(' ').map(|(name, n)| (name.to_owned(), n.parse().unwrap()));
    lines.filter_map(sample).collect()
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is() {
        assert!(Instant::now() < deadline, "{what}: not within 30 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Prometheus' library reads both formats, and finds every name that dashboards ask for.
pub fn names(port: u16, words: &[&str]) -> String {
    let script = root().join("tests/clients/metrics.py");
    let done = Command::new(peers().join("venv/bin/python"))
        .arg(script)
        .arg(port.to_string())
        .args(words)
        .output()
        .unwrap_or_else(|fault| panic!("python: {fault} (cargo xtask peers)"));
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    said
}

#[test]
fn prometheus_reads_them_and_dashboards_find_theirs() {
    let (primary, port) = watched(&["--appendonly", "yes", "--latency-monitor-threshold", "1"]);
    let primary_port = primary.port().to_string();
    let (_replica, replica_port) = watched(&["--replicaof", "127.0.0.1", &primary_port]);
    let mut client = primary.client();
    client.run("SET a 1");
    client.run("SET b 2 EX 1000");
    client.run("GET a");
    client.run("GET nothing");
    client.run("LPUSH a x");
    client.run("DEBUG SLEEP 0.01");
    until("the replica's link", || {
        samples(replica_port).keys().any(|name| name.contains("role=\"replica\""))
    });
    let all = names(port, &["aof", "primary", "spike"]);
    names(replica_port, &["replica"]);
    for own in ["connected_replicas", "replication_lag", "used_memory", "commands_processed_total"] {
        assert!(all.lines().any(|name| name == format!("valkey_{own}")), "{own}");
    }
    let now = samples(port);
    assert_eq!(now["valkey_connected_replicas"], 1.0);
    assert_eq!(now["redis_connected_slaves"], 1.0);
    assert_eq!(now["redis_commands_total{cmd=\"set\"}"], 2.0);
    assert_eq!(now["redis_commands_failed_calls_total{cmd=\"lpush\"}"], 1.0);
    assert_eq!(now["redis_errors_total{err=\"WRONGTYPE\"}"], 1.0);
    assert_eq!(now["redis_keyspace_hits_total"], 1.0);
    assert_eq!(now["redis_keyspace_misses_total"], 1.0);
    assert_eq!(now["redis_db_keys{db=\"db0\"}"], 2.0);
    assert_eq!(now["redis_db_keys_expiring{db=\"db0\"}"], 1.0);
    assert_eq!(now["redis_db_keys{db=\"db15\"}"], 0.0);
    assert!(now["valkey_used_memory"] > 1e5, "{}", now["valkey_used_memory"]);
    let link = format!("redis_master_link_up{{master_host=\"127.0.0.1\",master_port=\"{primary_port}\"}}");
    assert_eq!(samples(replica_port)[&link], 1.0);
}

/// The lag is what was written since the replica stopped, byte by byte, and none when it goes on.
#[test]
fn lag_is_told_in_bytes() {
    let (primary, port) = watched(&["--repl-ping-replica-period", "3600", "--repl-diskless-sync-delay", "0"]);
    let replica = Server::start(&["--replicaof", "127.0.0.1", &primary.port().to_string()]);
    let lag = || {
        samples(port)
            .into_iter()
            .find(|(name, _)| name.starts_with("valkey_replication_lag{role=\"primary\""))
    };
    let mut client = primary.client();
    client.run("SET first 1");
    until("the replica to follow", || lag().is_some_and(|(_, bytes)| bytes == 0.0));
    let offset = |client: &mut Client| -> u64 {
        let text = client.run("INFO replication").text();
        let line = text.lines().find_map(|line| line.strip_prefix("master_repl_offset:"));
        line.and_then(|n| n.trim().parse().ok()).expect("an offset")
    };
    let before = offset(&mut client);
    let signal = |name: &str| {
        let done = Command::new("kill").args([name, &replica.pid().to_string()]).status();
        assert!(done.is_ok_and(|status| status.success()), "kill {name}");
    };
    signal("-STOP");
    for number in 0..100 {
        client.run(&format!("SET key:{number} {}", "v".repeat(200)));
    }
    let written = offset(&mut client) - before;
    let shown = lag();
    signal("-CONT");
    assert!(written > 20_000, "{written}");
    assert_eq!(shown.map(|(_, bytes)| bytes as u64), Some(written));
    until("the replica to catch up", || lag().is_some_and(|(_, bytes)| bytes == 0.0));
}

#[test]
fn probes_tell_what_they_should() {
    let (server, port) = watched(&["--replica-serve-stale-data", "no"]);
    assert_eq!(get(port, "/healthz"), (200, "ok\n".into()));
    assert_eq!(get(port, "/readyz"), (200, "ok\n".into()));
    // Nobody is there.
    server.client().run(&format!("REPLICAOF 127.0.0.1 {}", free_port()));
    assert_eq!(get(port, "/readyz"), (503, "no link to the primary\n".into()));
    assert_eq!(get(port, "/healthz").0, 200);
    server.client().run("CONFIG SET replica-serve-stale-data yes");
    assert_eq!(get(port, "/readyz").0, 200);
}

/// While data are loaded the page is there and says so.
#[test]
fn loading_is_not_ready() {
    let (mut server, port) = watched(&["--key-load-delay", "2000", "--save", ""]);
    let mut client = server.client();
    client.run("DEBUG POPULATE 2000");
    client.run("SAVE");
    server.kill();
    let text = port.to_string();
    let own = server.port().to_string();
    let folder = server.folder().to_string_lossy().into_owned();
    let mut child = Command::new(kara_tests::own_program())
        .args(["--port", &own, "--bind", "127.0.0.1", "--dir", &folder, "--key-load-delay", "2000"])
        .args(["--metrics-port", &text, "--logfile", "loading.log"])
        .spawn()
        .unwrap();
    until("an answer", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let (ready, health) = (get(port, "/readyz"), get(port, "/healthz"));
    let begun = Instant::now();
    let now = samples(port);
    let took = begun.elapsed();
    let _ = child.kill();
    let _ = child.wait();
    assert_eq!(ready, (503, "loading\n".into()));
    assert_eq!(health.0, 200);
    assert_eq!(now["redis_loading_dump_file"], 1.0);
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn http_is_taken_as_it_comes_and_no_further() {
    let (_server, port) = watched(&[]);
    for (request, status) in [
        (&b"GET /healthz HTTP/1.0\r\n\r\n"[..], 200),
        (b"GET /healthz?x=1 HTTP/1.1\r\nConnection: close\r\n\r\n", 200),
        (b"HEAD /metrics HTTP/1.1\r\nConnection: close\r\n\r\n", 200),
        (b"GET /nothing HTTP/1.0\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.0\r\n\r\n", 405),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcde", 413),
        (b"GET /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 413),
        (b"GET /metrics HTTP/3.0\r\n\r\n", 505),
        (b"GET\r\n\r\n", 400),
        (b"*1\r\n$4\r\nPING\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", 400),
    ] {
        let answer = raw(port, request);
        let wanted = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&wanted), "{}: {answer}", request.escape_ascii());
    }
    let head = raw(port, b"HEAD /metrics HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert!(head.ends_with("\r\n\r\n"), "{head}");
    // A head without an end, and too many lines.
    let long = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &vec![b'a'; 100_000]].concat();
    assert!(raw(port, &long).starts_with("HTTP/1.1 431 "));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(500));
    assert!(raw(port, many.as_bytes()).starts_with("HTTP/1.1 431 "));
    // Two requests in one packet on a connection that stays.
    let two = b"GET /healthz HTTP/1.1\r\n\r\nGET /readyz HTTP/1.1\r\nConnection: close\r\n\r\n";
    assert_eq!(raw(port, two).matches("HTTP/1.1 200 OK").count(), 2);
}

/// Connections that say nothing, too many of them, cost others nothing but a moment.
#[test]
fn silent_connections_make_room() {
    let (server, port) = watched(&[]);
    let silent: Vec<TcpStream> = (0..200).map(|_| connect(port)).collect();
    let begun = Instant::now();
    assert_eq!(get(port, "/healthz").0, 200);
    // 200 of them, 24 at a time, a second each; beside that the probe's own time.
    assert!(begun.elapsed() < Duration::from_secs(18), "{:?}", begun.elapsed());
    drop(silent);
    let probes: Vec<_> = (0..100).map(|_| std::thread::spawn(move || get(port, "/metrics").0)).collect();
    assert!(probes.into_iter().all(|probe| probe.join().is_ok_and(|status| status == 200)));
    assert_eq!(server.client().run("PING").text(), "PONG");
}

#[test]
fn the_port_can_change_while_it_runs() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let (first, second) = (free_port(), free_port());
    // Not among the reference's names: shown to who asks for it only.
    assert!(!client.run("CONFIG GET *").pairs().iter().any(|(name, _)| name.starts_with("metrics")));
    assert_eq!(client.run("CONFIG GET metrics-port").pairs()[0].1.text(), "0");
    for port in [first, second] {
        client.run(&format!("CONFIG SET metrics-port {port} metrics-bind 127.0.0.1"));
        assert_eq!(get(port, "/healthz").0, 200);
    }
    assert!(TcpStream::connect(("127.0.0.1", first)).is_err());
    // The server's own port is taken: everything stays.
    let reply = client.run(&format!("CONFIG SET metrics-port {}", server.port()));
    assert!(reply.text().contains("metrics-port"), "{reply:?}");
    assert_eq!(get(second, "/healthz").0, 200);
    client.run("CONFIG SET metrics-port 0");
    until("the port to close", || TcpStream::connect(("127.0.0.1", second)).is_err());
}

/// SAVE holds every shard; the page comes all the same.
#[test]
fn a_save_doesn_t_hold_the_page_up() {
    let (server, port) = watched(&[]);
    server.client().run("DEBUG POPULATE 1000000");
    get(port, "/metrics");
    let own = server.port();
    let saving = std::thread::spawn(move || Client::connect(own).unwrap().run("SAVE"));
    let mut pages = 0;
    while !saving.is_finished() {
        assert_eq!(samples(port)["redis_db_keys{db=\"db0\"}"], 1_000_000.0);
        pages += usize::from(!saving.is_finished());
    }
    assert_eq!(saving.join().unwrap().text(), "OK");
    // A page that waited for the save would be the only one.
    assert!(pages > 1, "{pages} pages during the save");
}
