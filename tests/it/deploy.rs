//! The image and the manifests: what `deploy/` promises, done without a container engine or a cluster. The scripts in
//! `tests/deploy` say what each of them checks.

use kara_tests::{Server, free_port, own_program, peers, root};
use std::path::{Path, PathBuf};
use std::process::Command;

fn python(script: &str) -> Command {
    let mut command = Command::new(peers().join("venv/bin/python"));
    command.arg(root().join("tests/deploy").join(script)).env("KARA_PEERS", peers());
    command
}

fn succeeds(command: &mut Command) -> String {
    let done = command.output().unwrap_or_else(|fault| panic!("{command:?}: {fault} (cargo xtask peers)"));
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{command:?}\n{said}{}", String::from_utf8_lossy(&done.stderr));
    said
}

/// The built `kara`, whatever name the test calls it by.
fn kara() -> PathBuf {
    own_program().canonicalize().expect("the program")
}

#[test]
fn the_image_s_root_file_system_works() {
    succeeds(python("image.py").arg(kara()));
}

/// The chart by Helm itself, against the schemas; the plain manifests are what it gives.
#[test]
fn manifests_are_valid() {
    succeeds(python("chart.py").arg("check"));
}

#[test]
fn servers_start_with_the_rendered_arguments() {
    let folder = programs();
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount"]).args(user_namespace());
    command.arg(peers().join("venv/bin/python")).arg(root().join("tests/deploy/start.py")).arg(&folder);
    succeeds(command.env("KARA_PEERS", peers()));
    let _ = std::fs::remove_dir_all(folder);
}

/// A folder with the program under the names that the entry point needs.
fn programs() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("kara-programs-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    for name in ["kara-entrypoint", "valkey-server"] {
        std::os::unix::fs::symlink(kara(), folder.join(name)).expect("a link");
    }
    folder
}

/// A container's quota of processors decides how many threads there are, rounded down: a thread more would be throttled.
#[test]
fn a_cgroup_s_quota_decides_the_threads() {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    for (pod, own, threads) in [
        ("max 100000", "max 100000", all),
        ("max 100000", "150000 100000", 1),
        ("max 100000", "50000 100000", 1),
        ("190000 100000", "400000 100000", 1),
        ("max 100000", "200000 100000", all.min(2)),
    ] {
        let folder = std::env::temp_dir().join(format!("kara-cgroup-{}", std::process::id()));
        let script = in_a_cgroup(&folder, pod, own);
        let server = Server::start_program(&script, &[]);
        let shown = server.client().run("CONFIG GET io-threads").pairs()[0].1.text();
        assert_eq!(shown, threads.to_string(), "pod {pod}, container {own}");
        let _ = std::fs::remove_dir_all(folder);
    }
}

/// A program that starts the server where files look like a cgroup (version 2) with these limits.
fn in_a_cgroup(folder: &Path, pod: &str, own: &str) -> PathBuf {
    let place = folder.join("cgroup/pod/kara");
    std::fs::create_dir_all(&place).expect("a folder");
    for (file, text) in [
        ("cgroup/pod/cgroup.controllers", "cpu"),
        ("cgroup/pod/kara/cgroup.controllers", "cpu"),
        ("cgroup/pod/cpu.max", pod),
        ("cgroup/pod/kara/cpu.max", own),
        ("self", "0::/pod/kara\n"),
    ] {
        std::fs::write(folder.join(file), text).expect("a file");
    }
    let script = folder.join("start");
    let (shown, kara) = (folder.display(), kara());
    let text = format!(
        "#!/bin/sh\nset -e\n[ -n \"$INSIDE\" ] || INSIDE=1 exec unshare {} --mount \"$0\" \"$@\"\n\
         mount --make-rprivate /\nmount --bind '{shown}/cgroup' /sys/fs/cgroup\n\
         mount --bind '{shown}/self' /proc/$$/cgroup\nexec '{}' \"$@\"\n",
        user_namespace().join(" "),
        kara.display()
    );
    std::fs::write(&script, text).expect("a script");
    let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    std::fs::set_permissions(&script, mode).expect("permissions");
    script
}

/// What takes privileges takes a user namespace where there are none.
fn user_namespace() -> &'static [&'static str] {
    let privileged = Path::new("/proc/1/root").read_dir().is_ok_and(|mut entries| entries.next().is_some());
    if privileged { &[] } else { &["--user", "--map-root-user"] }
}

/// Rules and dashboard ask for nothing that isn't there.
#[test]
fn queries_ask_for_what_there_is() {
    let (one, two) = (free_port(), free_port());
    let primary = Server::start(&["--metrics-port", &one.to_string()]);
    let port = primary.port().to_string();
    let _replica = Server::start(&["--metrics-port", &two.to_string(), "--replicaof", "127.0.0.1", &port]);
    primary.client().run("SET a 1");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while primary.client().run("WAIT 1 1000").integer() != Some(1) {
        assert!(std::time::Instant::now() < deadline, "no replica");
    }
    let names = crate::metrics::names(one, &["primary"]) + &crate::metrics::names(two, &[]);
    let file = primary.folder().join("names");
    std::fs::write(&file, names).expect("a file");
    succeeds(python("chart.py").arg("queries").arg(file));
}
