//! Which processors the server's threads may use.

use kara_tests::Server;
use kara_tests::replication::until;
use std::fs;

/// The processors of each of the server's threads with that name, as the system writes them.
fn processors(server: &Server, thread: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).expect("a process").flatten();
    let of = |path: std::path::PathBuf| {
        let name = fs::read_to_string(path.join("comm")).ok()?;
        let status = fs::read_to_string(path.join("status")).ok()?;
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        (name.trim() == thread).then(|| list.trim().to_owned())
    };
    tasks.filter_map(|task| of(task.path())).collect()
}

#[test]
fn threads_keep_to_their_lists_of_processors() {
    let usual = processors(&Server::start(&[]), "lazyfree");
    let server = Server::start(&["--server-cpulist", "0", "--rdb-key-save-delay", "1000000"]);
    let mut client = server.client();
    assert_eq!(processors(&server, "worker-0"), ["0"]);
    assert_eq!(processors(&server, "lazyfree"), usual);
    client.run("DEBUG POPULATE 100");
    client.run("BGSAVE");
    // Started by a worker, and so where workers are.
    until("the save has begun", || processors(&server, "snapshot") == ["0"]);

    let server = Server::start(&[
        "--bio-cpulist",
        "0",
        "--bgsave-cpulist",
        "0-0:2",
        "--rdb-key-save-delay",
        "1000000",
    ]);
    let mut client = server.client();
    assert_eq!(processors(&server, "worker-0"), usual);
    until("lazyfree has begun", || processors(&server, "lazyfree") == ["0"]);
    client.run("DEBUG POPULATE 100");
    client.run("BGSAVE");
    until("the save has begun", || processors(&server, "snapshot") == ["0"]);
}
