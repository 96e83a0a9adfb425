//! The cut-over of docs/migration.md under write load: writers count on the old server, move to Kara, and in the end
//! every acknowledged write is there once, in order.

use kara_tests::{Client, Reply, Server, peers};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::{Duration, Instant};

const WRITERS: usize = 4;

/// Appends 0, 1, 2, ... to a list of its own and counts beside it, each write repeated until it was answered. Gives the
/// number of acknowledged rounds.
fn write_on(writer: usize, place: &AtomicU16, stop: &AtomicBool) -> u64 {
    let mut rounds = 0u64;
    let mut client: Option<Client> = None;
    while !stop.load(Ordering::Relaxed) {
        let commands = [
            vec!["MULTI".to_string()],
            vec!["RPUSH".into(), format!("log:{writer}"), rounds.to_string()],
            vec!["INCR".into(), "all".into()],
            vec!["SET".into(), format!("last:{writer}"), rounds.to_string(), "EX".into(), "1000".into()],
            vec!["EXEC".into()],
        ];
        let round = |client: &mut Client| -> Option<bool> {
            let mut last = None;
            for command in &commands {
                last = client.try_call(command).ok();
                last.as_ref()?;
            }
            Some(matches!(last, Some(Reply::Array(items)) if items.len() == 3))
        };
        let outcome = match &mut client {
            Some(client) => round(client),
            None => None,
        };
        match outcome {
            Some(true) => rounds += 1,
            // Refused (a replica, a primary that is loading) or gone: look where the server is now.
            _ => {
                std::thread::sleep(Duration::from_millis(1));
                client = Client::connect(place.load(Ordering::Relaxed)).ok();
            }
        }
    }
    rounds
}

fn field(client: &mut Client, name: &str) -> String {
    let info = client.run("INFO replication").text();
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::to_string))
        .unwrap_or_default()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn cut_over(program: &str) {
    let mut old =
        Server::start_program(&peers().join("bin").join(program), &["--repl-diskless-sync-delay", "0"]);
    let new = Server::start(&["--io-threads", "2"]);
    let mut there = old.client();
    for n in 0..2_000 {
        there.run(&format!("SET before:{n} {n}"));
    }
    let place = Arc::new(AtomicU16::new(old.port()));
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (place, stop) = (Arc::clone(&place), Arc::clone(&stop));
            std::thread::spawn(move || write_on(writer, &place, &stop))
        })
        .collect();
    let mut here = new.client();
    here.run(&format!("REPLICAOF 127.0.0.1 {}", old.port()));
    wait_until("the link comes up", || field(&mut here, "master_link_status") == "up");
    // Some load on the standing link, too.
    std::thread::sleep(Duration::from_millis(300));
    there.run("CLIENT PAUSE 30000 WRITE");
    wait_until("the rest arrives", || {
        field(&mut here, "master_repl_offset") == field(&mut there, "master_repl_offset")
    });
    assert_eq!(here.run("REPLICAOF NO ONE"), Reply::Simple(b"OK".to_vec()));
    place.store(new.port(), Ordering::Relaxed);
    old.shutdown("NOSAVE");
    let moved = here.run("GET all").text().parse::<u64>().expect("a counter");
    wait_until("writers go on at the new server", || {
        here.run("GET all").text().parse::<u64>().is_ok_and(|now| now > moved + 50)
    });
    stop.store(true, Ordering::Relaxed);
    let rounds: Vec<u64> = writers.into_iter().map(|writer| writer.join().expect("a writer")).collect();
    let mut total = 0;
    for (writer, rounds) in rounds.iter().enumerate() {
        let log = here.run(&format!("LRANGE log:{writer} 0 -1"));
        let log: Vec<u64> = log.items().iter().filter_map(|item| item.text().parse().ok()).collect();
        let wanted: Vec<u64> = (0..*rounds).collect();
        assert!(log == wanted, "writer {writer}: {rounds} rounds acknowledged, {} there", log.len());
        assert_eq!(here.run(&format!("GET last:{writer}")).text(), (rounds - 1).to_string());
        assert!(here.run(&format!("TTL last:{writer}")).integer() > Some(900));
        total += rounds;
    }
    assert_eq!(here.run("GET all").text(), total.to_string(), "counted twice or not at all");
    assert_eq!(here.run("GET before:1999").text(), "1999");
    assert!(total > 100, "{total} rounds are no load");
}

#[test]
fn from_valkey_81_under_writes() {
    cut_over("valkey-server-8.1.8");
}

#[test]
fn from_redis_70_under_writes() {
    cut_over("redis-server-7.0");
}
