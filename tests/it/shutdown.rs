//! SHUTDOWN: the data is in the file, or the server goes on.

use kara_tests::{Reply, Server};

#[test]
fn a_save_that_fails_keeps_the_server() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.run("SET k v");
    // A directory stands where the file should.
    std::fs::create_dir_all(server.folder().join("dump.rdb/in-the-way"))
        .expect("a directory of the test's own");
    for line in ["SHUTDOWN SAVE", "SHUTDOWN SAVE NOW"] {
        let reply = client.run(line);
        assert_eq!(reply, Reply::Error(b"ERR Errors trying to SHUTDOWN. Check logs.".to_vec()), "{line}");
    }
    assert_eq!(client.run("GET k"), Reply::Bulk(b"v".to_vec()));
}
