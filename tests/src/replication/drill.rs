//! The drill of two regions: a primary and a replica in network namespaces of their own, a link that is cut, loses
//! packets and heals, a primary that dies, a replica that is promoted, and the old primary as its replica.

use super::{info, number, until};
use crate::client::Client;
use crate::reply::Reply;
use crate::server::own_program;
use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const PASSWORD: &str = "drill-secret";
/// A name of the first region's primary, as the second region's configuration has it.
const NAME: &str = "valkey.test.sovereign.example";

/// Between two writes of the drill's client.
const PACE: Duration = Duration::from_micros(200);

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Answered writes that the promoted replica didn't have, and how long writing went on at that time.
    pub lost: u64,
    pub written: u64,
    pub partial: u64,
    pub full: u64,
    /// Milliseconds from the link's return until it was up, for a short cut and a long one.
    pub short_ms: u128,
    pub long_ms: u128,
    /// Frames of the link that went through and that were lost while it lost one of twenty, and the answered writes a
    /// second meanwhile and before; zero where the machine has no TAP devices.
    pub forwarded: u64,
    pub dropped: u64,
    pub lossy_rate: u64,
    pub rate: u64,
    /// The most seconds that the replica was behind meanwhile, by the primary's INFO.
    pub lossy_lag_s: u64,
}

/// A link between two devices that loses frames on demand, by a helper.
struct Wire {
    helper: Child,
    said: std::io::BufReader<std::process::ChildStdout>,
}

impl Wire {
    fn start(names: [&str; 2]) -> Result<Wire, String> {
        let script = crate::root().join("tests/scripts/lossy_link.py");
        let mut helper = Command::new(crate::peers().join("venv/bin/python"))
            .arg(script)
            .args(names)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|fault| fault.to_string())?;
        let said = helper.stdout.take().ok_or("no output")?;
        let mut wire = Wire { helper, said: std::io::BufReader::new(said) };
        if wire.line() == "ready" { Ok(wire) } else { Err("no TAP devices can be made".to_owned()) }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        // What can't be read is empty.
        let _ = self.said.read_line(&mut line);
        line.trim().to_owned()
    }

    /// Loses so many of a hundred frames from now on; gives how many went through and were lost before.
    fn lose(&mut self, percent: u32) -> (u64, u64) {
        if let Some(input) = &mut self.helper.stdin {
            let _ = writeln!(input, "{}", f64::from(percent) / 100.0);
        }
        let line = self.line();
        let mut numbers = line.split(' ').map(|number| number.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = self.helper.kill();
        let _ = self.helper.wait();
    }
}

/// Two namespaces with a link between them, and one from here to each.
struct Regions {
    names: [String; 2],
    /// Third number of the addresses: 10.X.n.m.
    net: u8,
    folder: PathBuf,
    /// The link, where it can lose frames.
    wire: Option<Wire>,
}

fn ip(words: &str) -> Result<(), String> {
    run("ip", words)
}

fn run(program: &str, words: &str) -> Result<(), String> {
    let done = Command::new(program).args(words.split_whitespace()).output();
    let done = done.map_err(|fault| format!("{program}: {fault}"))?;
    let why = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    if done.status.success() { Ok(()) } else { Err(format!("{program} {words}: {why}")) }
}

impl Regions {
    fn new() -> Result<Regions, String> {
        let id = std::process::id();
        let folder = std::env::temp_dir().join(format!("kara-drill-{id}"));
        std::fs::create_dir_all(&folder).map_err(|fault| fault.to_string())?;
        let names = [format!("ka{id}"), format!("kb{id}")];
        let mut regions = Regions { names, net: (id % 200) as u8 + 20, folder, wire: None };
        let taps = [format!("ta{id}"), format!("tb{id}")];
        regions.wire = Wire::start([&taps[0], &taps[1]]).ok();
        let (a, b) = (&regions.names[0], &regions.names[1]);
        let net = regions.net;
        for name in [a, b] {
            ip(&format!("netns add {name}"))?;
            ip(&format!("-n {name} link set lo up"))?;
        }
        if regions.wire.is_some() {
            for (tap, name) in taps.iter().zip([a, b]) {
                ip(&format!("link set {tap} netns {name} name link0"))?;
            }
        } else {
            ip(&format!("link add link0 netns {a} type veth peer name link0 netns {b}"))?;
        }
        for (n, name) in [a, b].into_iter().enumerate() {
            ip(&format!("-n {name} addr add 10.{net}.0.{}/24 dev link0", n + 1))?;
            ip(&format!("-n {name} link set link0 up"))?;
            ip(&format!("link add {name} type veth peer name here netns {name}"))?;
            ip(&format!("addr add 10.{net}.{}.254/24 dev {name}", n + 1))?;
            ip(&format!("link set {name} up"))?;
            ip(&format!("-n {name} addr add 10.{net}.{}.1/24 dev here", n + 1))?;
            ip(&format!("-n {name} link set here up"))?;
        }
        // What `ip netns exec` shows as /etc/hosts in there.
        let etc = Path::new("/etc/netns").join(b);
        let hosts = format!("127.0.0.1 localhost\n10.{net}.0.1 {NAME}\n");
        std::fs::create_dir_all(&etc)
            .and_then(|()| std::fs::write(etc.join("hosts"), hosts))
            .map_err(|fault| fault.to_string())?;
        Ok(regions)
    }

    fn address(&self, region: usize) -> SocketAddr {
        SocketAddr::from(([10, self.net, region as u8 + 1, 1], 6379))
    }

    /// The server with exactly these flags, in its region.
    fn start(&self, region: usize, flags: &[&str]) -> Process {
        let folder = self.folder.join(region.to_string());
        let _ = std::fs::create_dir_all(&folder);
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log"));
        let log = log.map_or_else(|_| Stdio::null(), Stdio::from);
        let child = Command::new("ip")
            .args(["netns", "exec", &self.names[region]])
            .arg(std::path::absolute(own_program()).unwrap_or_default())
            .args(flags)
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|fault| panic!("ip netns exec: {fault}"));
        let process = Process(child);
        until("the server answers", || {
            self.client(region).is_some_and(|mut client| client.run("PING").text() == "PONG")
        });
        process
    }

    fn client(&self, region: usize) -> Option<Client> {
        let mut client = Client::connect_to(self.address(region)).ok()?;
        client.try_call(&["AUTH", PASSWORD]).ok()?;
        Some(client)
    }

    fn link(&self, state: &str) {
        ip(&format!("-n {} link set link0 {state}", self.names[0])).unwrap_or_else(|fault| panic!("{fault}"));
    }
}

impl Drop for Regions {
    fn drop(&mut self) {
        for name in &self.names {
            // What isn't there can't be removed.
            let _ = ip(&format!("netns del {name}"));
            let _ = ip(&format!("link del {name}"));
            let _ = std::fs::remove_dir_all(Path::new("/etc/netns").join(name));
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A server; ended with the value. `ip netns exec` becomes it, so the process id is its own.
struct Process(Child);

impl Process {
    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A client that counts: `seq:N` is written in order, and what was answered is known.
struct Writer {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Writer {
    fn start(mut client: Client, from: u64) -> Writer {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(from)));
        let (stopped, count) = (stop.clone(), answered.clone());
        let value = "v".repeat(500);
        let thread = std::thread::spawn(move || {
            let mut n = from;
            while !stopped.load(Relaxed) {
                std::thread::sleep(PACE);
                n += 1;
                let number = n.to_string();
                match client.try_call(&["MSET", &format!("seq:{n}"), &value, "last", &number]) {
                    Ok(reply) if reply.text() == "OK" => count.store(n, Relaxed),
                    _ => return,
                }
            }
        });
        Writer { stop, answered, thread: Some(thread) }
    }

    fn stop(&mut self) -> u64 {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed.
            let _ = thread.join();
        }
        self.answered.load(Relaxed)
    }
}

fn linked(client: &mut Client) -> bool {
    info(client, "replication", "master_link_status") == "up"
}

/// Runs the drill; `Err`: it can't be run here, and why.
///
/// # Errors
/// Where namespaces can't be made.
///
/// # Panics
/// Where anything is lost that isn't accounted for.
pub fn drill(scale: u32) -> Result<Report, String> {
    let mut regions = Regions::new()?;
    let mut report = Report::default();
    let mut primary = regions.start(0, &["--requirepass", PASSWORD, "--maxmemory", "2gb"]);
    let _replica = regions.start(
        1,
        &[
            "--requirepass",
            PASSWORD,
            "--maxmemory",
            "2gb",
            "--replicaof",
            NAME,
            "6379",
            "--masterauth",
            PASSWORD,
        ],
    );
    let mut p = regions.client(0).ok_or("the primary is gone")?;
    let mut r = regions.client(1).ok_or("the replica is gone")?;
    until("linked", || linked(&mut r));
    let mut writer = Writer::start(regions.client(0).ok_or("the primary is gone")?, 0);
    std::thread::sleep(Duration::from_millis(500));

    // Shorter than the log holds.
    let partial = number(&mut p, "stats", "sync_partial_ok");
    let full = number(&mut p, "stats", "sync_full");
    report.short_ms = cut(&regions, &mut p, &mut r, Duration::from_millis(300), 0);
    assert_eq!(number(&mut p, "stats", "sync_full"), full, "a short cut needs no full sync");
    assert_eq!(number(&mut p, "stats", "sync_partial_ok"), partial + 1);

    // Longer: what is written meanwhile is more than the log holds.
    report.long_ms = cut(&regions, &mut p, &mut r, Duration::from_secs(1), 12 << 20);
    assert!(number(&mut p, "stats", "sync_full") > full, "a long cut needs a full sync");

    // Packets get lost.
    let second = Duration::from_secs(1);
    let rate = |writer: &Writer, time: Duration| {
        let before = writer.answered.load(Relaxed);
        std::thread::sleep(time);
        (writer.answered.load(Relaxed) - before) * 1000 / time.as_millis().max(1) as u64
    };
    report.rate = rate(&writer, second);
    let full = number(&mut p, "stats", "sync_full");
    if let Some(mut wire) = regions.wire.take() {
        wire.lose(5);
        let mut rates = Vec::new();
        for _ in 0..scale.max(2) {
            rates.push(rate(&writer, second));
            let line = info(&mut p, "replication", "slave0");
            let lag = line.split_once("lag=").and_then(|(_, lag)| lag.split(',').next()?.parse().ok());
            report.lossy_lag_s = report.lossy_lag_s.max(lag.unwrap_or(u64::MAX));
        }
        (report.forwarded, report.dropped) = wire.lose(0);
        report.lossy_rate = rates.iter().sum::<u64>() / rates.len() as u64;
        regions.wire = Some(wire);
        assert!(report.dropped > 0, "no packet was lost: {report:?}");
        assert_eq!(number(&mut p, "stats", "sync_full"), full, "lost packets need no full sync");
    }
    until("linked after losses", || linked(&mut r));
    let line = info(&mut p, "replication", "slave0");
    assert!(line.contains("state=online"), "{line}");
    until("lag within a second", || {
        let line = info(&mut p, "replication", "slave0");
        line.contains("lag=0") || line.contains("lag=1")
    });

    // The primary dies while it is written to; the replica is promoted by hand.
    primary.kill();
    let answered = writer.stop();
    until("the replica notices", || !linked(&mut r));
    assert_eq!(r.run("REPLICAOF NO ONE").text(), "OK");
    let kept: u64 = r.run("GET last").text().parse().unwrap_or(0);
    report.lost = answered.saturating_sub(kept);
    report.written = answered;
    check_all(&mut r, kept);
    report.partial = number(&mut r, "stats", "sync_partial_ok");

    // The old primary comes back as a replica, with other data than ours at its end: none, as it saved nothing.
    let mut writer = Writer::start(regions.client(1).ok_or("the replica is gone")?, kept);
    let address = format!("10.{}.0.2", regions.net);
    let _primary = regions.start(
        0,
        &[
            "--requirepass",
            PASSWORD,
            "--maxmemory",
            "2gb",
            "--replicaof",
            &address,
            "6379",
            "--masterauth",
            PASSWORD,
        ],
    );
    let mut p = regions.client(0).ok_or("the old primary is gone")?;
    until("the old primary follows", || linked(&mut p));
    std::thread::sleep(Duration::from_millis(500));
    let last = writer.stop();
    until("the same offset", || {
        let offset = number(&mut r, "replication", "master_repl_offset");
        number(&mut p, "replication", "master_repl_offset") == offset
    });
    report.full = number(&mut r, "stats", "sync_full");
    for client in [&mut p, &mut r] {
        assert_eq!(client.run("GET last").text(), last.to_string());
        check_all(client, last);
    }
    Ok(report)
}

/// Every key up to `last` is there, and no other.
fn check_all(client: &mut Client, last: u64) {
    let mut n = 0;
    while n < last {
        let upto = (n + 500).min(last);
        let mut words = vec!["MGET".to_owned()];
        words.extend((n + 1..=upto).map(|n| format!("seq:{n}")));
        let Reply::Array(values) = client.call(&words) else { panic!("MGET") };
        assert!(
            values.iter().all(|value| value.text().len() == 500),
            "a key between {n} and {upto} is missing"
        );
        n = upto;
    }
    let filler = i64::from(client.run("EXISTS filler") == Reply::Integer(1));
    let keys = last as i64 + 1 + filler;
    assert_eq!(client.run("DBSIZE"), Reply::Integer(keys), "keys that nobody wrote");
}

/// Cuts the link, with both ends' connections broken; gives how long it took to come back, ms.
fn cut(regions: &Regions, p: &mut Client, r: &mut Client, how_long: Duration, filler: usize) -> u128 {
    regions.link("down");
    r.run("CLIENT KILL TYPE primary");
    p.run("CLIENT KILL TYPE replica");
    if filler > 0 {
        p.call(&["SET", "filler", &"f".repeat(filler)]);
    }
    std::thread::sleep(how_long);
    assert!(!linked(r), "the link is cut");
    regions.link("up");
    let begun = Instant::now();
    until("linked again", || linked(r));
    begun.elapsed().as_millis()
}
