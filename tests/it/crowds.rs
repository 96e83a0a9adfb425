//! Many connections, and connections that send nonsense: what they cost, and that the others are served all the same.

use kara_base::rng::Rng;
use kara_tests::client::encode;
use kara_tests::{Client, Server};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What an idle connection may cost.
const BYTES_PER_CONNECTION: u64 = 2 << 10;

fn info(client: &mut Client, field: &str) -> u64 {
    let text = client.run("INFO everything").text();
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {field} in INFO"))
}

/// As many idle connections as the limit of open files allows this process and the server, 2,000 at most
/// (`KARA_IDLE_CONNECTIONS` names another number).
fn connections() -> usize {
    let wanted = std::env::var("KARA_IDLE_CONNECTIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000);
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let files = files.and_then(|rest| rest.split_whitespace().next()?.parse::<usize>().ok());
    wanted.min(files.unwrap_or(1024).saturating_sub(200))
}

#[test]
fn an_idle_connection_costs_two_kilobytes_at_most() {
    let count = connections();
    let server = Server::start(&["--maxclients", "20000"]);
    let mut client = server.client();
    // What the first connections make the server allocate once is no connection's.
    let warm_up: Vec<Client> = (0..20).map(|_| server.client()).collect();
    drop(warm_up);
    std::thread::sleep(Duration::from_millis(200));
    let before = (info(&mut client, "used_memory"), info(&mut client, "used_memory_rss"));
    let mut idle = Vec::with_capacity(count);
    for number in 0..count {
        let mut connection = server.client();
        assert_eq!(connection.run(&format!("SET key:{} value", number % 10)).text(), "OK");
        idle.push(connection);
    }
    let used = info(&mut client, "used_memory").saturating_sub(before.0) / count as u64;
    let resident = info(&mut client, "used_memory_rss").saturating_sub(before.1) / count as u64;
    println!("{count} idle connections: {used} bytes each, {resident} of resident memory");
    assert!(used <= BYTES_PER_CONNECTION, "{used} bytes for each of {count} connections");
    // Pages are shared with others, and the allocator keeps some in hand.
    assert!(
        resident <= 2 * BYTES_PER_CONNECTION,
        "{resident} resident bytes for each of {count} connections"
    );
    assert_eq!(info(&mut client, "connected_clients"), count as u64 + 1);
    drop(idle);
    let deadline = Instant::now() + Duration::from_secs(20);
    while info(&mut client, "connected_clients") > 1 {
        assert!(Instant::now() < deadline, "connections stay after their clients are gone");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Something that no client would send: noise, broken lengths, requests cut off, and now and then a whole one.
fn nonsense(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    let noise = |rng: &mut Rng, most: u64| -> Vec<u8> {
        (0..rng.below(most)).map(|_| rng.below(256) as u8).collect()
    };
    match rng.below(8) {
        0 => bytes = noise(rng, 4_000),
        1 => bytes = format!("*{}\r\n", rng.next_u64() as i64).into_bytes(),
        2 => {
            bytes =
                format!("*{}\r\n${}\r\n", rng.below(5), rng.next_u64() as i64 >> rng.below(64)).into_bytes()
        }
        3 => bytes = vec![b"*$+-:\"' "[rng.below(8) as usize]; rng.below(70_000) as usize],
        // A large argument that never comes.
        4 => bytes = b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$500000000\r\n".to_vec(),
        5 => encode(&mut bytes, &[noise(rng, 20), noise(rng, 200), noise(rng, 2_000)]),
        6 => (0..rng.below(60))
            .for_each(|_| encode(&mut bytes, &[b"SET".to_vec(), noise(rng, 9), noise(rng, 99)])),
        _ => {
            encode(&mut bytes, &[b"GET".to_vec(), noise(rng, 30)]);
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] = rng.below(256) as u8;
        }
    }
    if rng.below(3) == 0 {
        bytes.truncate(rng.below(bytes.len() as u64 + 1) as usize);
    }
    bytes
}

/// Sends nonsense over one connection after the other until it is told to stop.
fn flood(port: u16, seed: u64, stop: &AtomicBool, sent: &AtomicU64) {
    let mut rng = Rng::new(seed);
    let mut answers = vec![0; 64 << 10];
    while !stop.load(Relaxed) {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { continue };
        let _ = stream.set_read_timeout(Some(Duration::from_millis(1)));
        let _ = stream.set_write_timeout(Some(Duration::from_millis(200)));
        for _ in 0..1 + rng.below(30) {
            let bytes = nonsense(&mut rng);
            if stop.load(Relaxed) || stream.write_all(&bytes).is_err() {
                break;
            }
            sent.fetch_add(bytes.len() as u64, Relaxed);
            // Some never read what they are told.
            if rng.below(4) > 0 && matches!(stream.read(&mut answers), Ok(0)) {
                break;
            }
        }
    }
}

#[test]
fn a_flood_of_nonsense_hurts_nobody_else() {
    const FLOODERS: u64 = 6;
    let seconds = std::env::var("KARA_FLOOD_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    let mut server = Server::start(&[]);
    let mut client = server.client();
    let before = info(&mut client, "used_memory");
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut longest, mut most, mut rounds) = (Duration::ZERO, before, 0u64);
    std::thread::scope(|scope| {
        for seed in 0..FLOODERS {
            let (stop, sent, port) = (&stop, &sent, server.port());
            scope.spawn(move || flood(port, seed, stop, sent));
        }
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            let begin = Instant::now();
            let value = rounds.to_string();
            // One at a time: a panic in here would leave the flood running.
            let set = client.try_call(&["SET", "served", &value]);
            let got = client.try_call(&["GET", "served"]);
            longest = longest.max(begin.elapsed());
            if set.is_err() || got.is_err() {
                break;
            }
            rounds += 1;
            if rounds % 20 == 0 {
                most = most.max(info(&mut client, "used_memory"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        stop.store(true, Relaxed);
    });
    let grown = most.saturating_sub(before);
    println!(
        "{} KB of nonsense in {seconds} s; {rounds} rounds of SET and GET beside it, the longest {longest:?}; memory {} KB more",
        sent.load(Relaxed) >> 10,
        grown >> 10
    );
    assert!(server.is_alive());
    assert!(rounds > 20, "only {rounds} rounds were served");
    // Machines that run tests are busy: what is meant is that nobody waits for the flood's end.
    assert!(longest < Duration::from_secs(1), "a client waited {longest:?}");
    assert!(grown < 64 << 20, "memory grew by {grown} bytes");
    assert_eq!(client.run("GET served").text(), (rounds - 1).to_string());
    // What the flood stored aside, nothing of it stays.
    client.run("FLUSHALL SYNC");
    std::thread::sleep(Duration::from_millis(300));
    let left = info(&mut client, "used_memory").saturating_sub(before);
    assert!(left < 8 << 20, "{left} bytes stay");
}
