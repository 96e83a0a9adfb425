//! MEMORY STATS and INFO: which databases they tell of, and that asking keeps nobody waiting.

use kara_tests::{Client, Server};
use std::time::{Duration, Instant};

/// The databases of MEMORY STATS with what their tables take.
fn databases(client: &mut Client) -> Vec<(String, i64)> {
    let stats = client.run("MEMORY STATS");
    let tables = stats
        .pairs()
        .into_iter()
        .filter(|(name, _)| name.starts_with("db.") && name != "db.dict.rehashing.count");
    tables
        .map(|(name, table)| {
            let main = table.field("overhead.hashtable.main").and_then(|bytes| bytes.integer());
            (name, main.expect("a number of bytes"))
        })
        .collect()
}

/// A database that was used is listed from then on, as by the reference; emptied, it takes nothing, whatever it held.
#[test]
fn an_emptied_database_is_listed_and_takes_nothing() {
    let ours = Server::start(&["--io-threads", "2"]);
    let theirs = Server::reference(&[]);
    let (mut our, mut their) = (ours.client(), theirs.client());
    let names = |client: &mut Client| -> Vec<String> {
        databases(client).into_iter().map(|(name, _)| name).collect()
    };
    assert_eq!(names(&mut our), names(&mut their));
    assert_eq!(databases(&mut our), [("db.0".into(), 0)]);
    for client in [&mut our, &mut their] {
        client.run("SELECT 3");
        (0..2_000).for_each(|n| drop(client.run(&format!("SET key:{n} v"))));
    }
    assert_eq!(names(&mut our), names(&mut their));
    let full = databases(&mut our);
    assert!((8_000..100_000).contains(&full[1].1), "{full:?}");
    for client in [&mut our, &mut their] {
        (0..2_000).for_each(|n| drop(client.run(&format!("DEL key:{n}"))));
    }
    assert_eq!(names(&mut our), names(&mut their));
    assert_eq!(databases(&mut our)[1].1, 0);
    for command in ["SET key v", "FLUSHALL SYNC", "SELECT 0"] {
        our.run(command);
        their.run(command);
    }
    assert_eq!(names(&mut our), names(&mut their));
    our.run("SET again v");
    assert_eq!(our.run("GET again").text(), "v");
}

/// While a command keeps every shard locked, INFO's sections that tell nothing of keys are there at once.
#[test]
fn info_without_keys_waits_for_no_lock() {
    let server = Server::start(&["--io-threads", "2"]);
    let mut slow = server.client();
    let mut others: Vec<Client> = (0..8).map(|_| server.client()).collect();
    for client in &mut others {
        client.run("PING");
        client.set_timeout(Duration::from_millis(150)).unwrap();
    }
    let sleep = ["DEBUG", "SLEEP", "2"].map(|word| word.as_bytes().to_vec()).to_vec();
    let begun = Instant::now();
    slow.send(&[sleep]).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let ask = |client: &mut Client| client.try_call(&["INFO", "replication"]).is_ok();
    let answered = others.iter_mut().filter_map(|client| ask(client).then_some(())).count();
    let took = begun.elapsed();
    assert_eq!(slow.read().unwrap().text(), "OK");
    // Half of them are the other worker's.
    assert!(
        (1..8).contains(&answered) && took < Duration::from_millis(1_900),
        "{answered} of 8 after {took:?}"
    );
}
