//! SHUTDOWN never ends a server that was asked for more than it can do.

use kara_tests::{Reply, Server};

#[test]
fn what_cannot_be_done_yet_keeps_the_server() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.run("SET k v");
    for line in ["SHUTDOWN SAVE", "SHUTDOWN FAILOVER", "SHUTDOWN SAVE NOW FORCE"] {
        assert!(matches!(client.run(line), Reply::Error(_)), "{line}");
    }
    assert_eq!(client.run("GET k"), Reply::Bulk(b"v".to_vec()));
}
