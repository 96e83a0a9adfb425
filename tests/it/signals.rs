//! SIGTERM and SIGINT: `shutdown-on-sigterm` and `shutdown-on-sigint` with each of their words, and a second SIGINT.

use kara_tests::Server;
use std::process::Command;
use std::time::{Duration, Instant};

fn signal(server: &Server, name: &str) {
    let done = Command::new("kill").args([name, &server.pid().to_string()]).status();
    assert!(done.is_ok_and(|status| status.success()), "kill {name}");
}

fn wait_for_end(server: &mut Server, why: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while server.is_alive() {
        assert!(Instant::now() < deadline, "{why}: still there\n{}", server.log_tail());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a signal's end leaves a file, by the words and by whether there are save points.
#[test]
fn words_say_whether_to_save() {
    for (name, setting) in [("-TERM", "shutdown-on-sigterm"), ("-INT", "shutdown-on-sigint")] {
        for (words, points, saves) in [
            ("default", "3600 1", true),
            ("default", "", false),
            ("save", "", true),
            ("nosave", "3600 1", false),
            ("now", "3600 1", true),
            ("nosave now force", "3600 1", false),
            ("save force", "", true),
        ] {
            let mut server = Server::start(&["--save", points]);
            let mut client = server.client();
            assert_eq!(client.call(&["CONFIG", "SET", setting, words]).text(), "OK", "{words}");
            client.run("SET k v");
            signal(&server, name);
            wait_for_end(&mut server, words);
            let file = server.folder().join("dump.rdb");
            assert_eq!(file.exists(), saves, "{name} with {words:?} and save {points:?}");
        }
    }
}

/// A save that fails keeps the server, unless force says otherwise.
#[test]
fn force_ends_without_a_save() {
    let mut server = Server::start(&["--save", "3600 1"]);
    let mut client = server.client();
    client.run("SET k v");
    std::fs::create_dir_all(server.folder().join("dump.rdb/in-the-way")).expect("a folder of the test's own");
    signal(&server, "-TERM");
    let deadline = Instant::now() + Duration::from_secs(30);
    while !server.log_tail().contains("errors trying to shut down") {
        assert!(server.is_alive() && Instant::now() < deadline, "{}", server.log_tail());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(client.run("GET k").text(), "v");
    client.run("CONFIG SET shutdown-on-sigterm force");
    signal(&server, "-TERM");
    wait_for_end(&mut server, "force");
}

/// A script holds what the shutdown needs: the second SIGINT doesn't wait for it.
#[test]
fn a_second_interrupt_is_obeyed_at_once() {
    let mut server = Server::start(&["--busy-reply-threshold", "100000"]);
    let mut client = server.client();
    // It holds its key's shard.
    let script = b"redis.call('SET', KEYS[1], 1) while true do end".to_vec();
    client.send(&[vec![b"EVAL".to_vec(), script, b"1".to_vec(), b"k".to_vec()]]).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    signal(&server, "-INT");
    std::thread::sleep(Duration::from_millis(300));
    assert!(server.is_alive(), "the script doesn't hold the shutdown\n{}", server.log_tail());
    signal(&server, "-INT");
    wait_for_end(&mut server, "a second SIGINT");
    assert!(server.log_tail().contains("You insist... exiting now."), "{}", server.log_tail());
}
