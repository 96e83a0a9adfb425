//! A sample of the linearizability check (the whole of it: `src/bin/linear.rs`), and that it would notice.

use kara_tests::Server;
use kara_tests::linear::{Fault, Plan, Verdict, check, record};

fn verdicts(server: &Server, fault: Fault, operations: usize) -> impl Iterator<Item = Verdict> {
    let port = server.port();
    (0..).map(move |seed| check(&record(port, Plan { clients: 8, operations, seed, fault }).unwrap()))
}

#[test]
fn histories_of_eight_clients_have_an_order() {
    let server = Server::start(&["--io-threads", "2"]);
    for verdict in verdicts(&server, Fault::None, 200).take(40) {
        assert_eq!(verdict, Verdict::Linearizable);
    }
}

/// As if the server did not keep a promise: within some histories that must show. (Shorter ones: to find that there is no
/// order means to try them all.)
fn is_noticed(fault: Fault) {
    let server = Server::start(&["--io-threads", "2"]);
    let mut tried = verdicts(&server, fault, 80).take(60);
    assert!(tried.any(|verdict| matches!(verdict, Verdict::Impossible { .. })), "{fault:?}");
}

#[test]
fn torn_transactions_are_noticed() {
    is_noticed(Fault::TornTransactions);
}

#[test]
fn unwatched_keys_are_noticed() {
    is_noticed(Fault::NoWatch);
}

#[test]
fn late_serving_is_noticed() {
    is_noticed(Fault::LateServing);
}
