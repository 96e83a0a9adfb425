//! Requests that arrive together, and those that follow them at the same place of the worker's buffer.

use kara_tests::{Reply, Server};

#[test]
fn a_batch_leaves_nothing_behind_for_the_next_request() {
    let server = Server::start(&["--io-threads", "1"]);
    let mut client = server.client();
    client.send_raw(b"SET k1 xyzk\r\nGET k1\r\nPING\r\n").unwrap();
    assert_eq!(client.read_many(3).unwrap().last(), Some(&Reply::Simple(b"PONG".to_vec())));
    // Its key stands where k1 stood.
    client.send_raw(b"SET another hello\r\n").unwrap();
    client.read().unwrap();
    assert_eq!(client.run("GET another"), Reply::Bulk(b"hello".to_vec()));
    assert_eq!(client.run("GET k1"), Reply::Bulk(b"xyzk".to_vec()));
    assert_eq!(client.run("RENAME another third"), Reply::Simple(b"OK".to_vec()));
}
