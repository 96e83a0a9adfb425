//! Power loss: the device below a file system stops under load, and the file system is mounted again.
//! Needs root, FUSE, loop devices and mkfs.

use super::volatile::Disk;
use super::{Dice, Writers};
use crate::Server;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The smallest that mkfs.xfs makes.
const DISK_BYTES: usize = 320 << 20;
/// What `appendfsync everysec` may lose.
const FORGIVEN: Duration = Duration::from_secs(2);

/// The file system under test, on a disk that can lose its power.
struct Mounted {
    /// Where the tested file system is.
    place: PathBuf,
    disk: Disk,
    // Goes when nothing is mounted in it any more.
    _base: Directory,
}

/// A directory that goes with it.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        // Best effort, as all that a test does on its way out.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let done =
        Command::new(program).args(arguments).output().map_err(|fault| format!("{program}: {fault}"))?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&done.stderr)))
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

impl Mounted {
    fn new(kind: &str) -> Result<Self, String> {
        let base = Directory(std::env::temp_dir().join(format!("kara-power-{}-{kind}", std::process::id())));
        let (place, below) = (base.0.join("mnt"), base.0.join("device"));
        for place in [&place, &below] {
            fs::create_dir_all(place).map_err(|fault| fault.to_string())?;
        }
        let mounted = Mounted { place, disk: Disk::new(&below, DISK_BYTES)?, _base: base };
        run(&format!("mkfs.{kind}"), &["-q", &shown(mounted.disk.path())])?;
        mounted.mount()?;
        Ok(mounted)
    }

    fn mount(&self) -> Result<(), String> {
        run("mount", &["-o", "loop", &shown(self.disk.path()), &shown(&self.place)])
    }

    fn unmount(&self) -> Result<(), String> {
        run("umount", &[&shown(&self.place)])
    }

    /// The disk as it is when power comes again, and what the file system makes of it.
    fn power_up(&self) -> Result<(), String> {
        self.unmount()?;
        self.disk.power_up();
        self.mount()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Best effort: a test that failed leaves no mount behind if it can be helped.
        self.disk.power_up();
        let _ = self.unmount();
    }
}

/// `rounds` times: writes under load, power loss, a new start. Every fifth round is one with `everysec`, which takes
/// longer: only what is older than two seconds must be there. Returns how many sectors the disk's cache lost.
///
/// # Errors
/// What was lost or invented, or what is missing for the test.
pub fn rounds(kind: &str, rounds: u64, seed: u64) -> Result<usize, String> {
    let mut sectors = 0;
    let mounted = Mounted::new(kind)?;
    let place = shown(&mounted.place);
    for (policy, share) in [("always", rounds - rounds / 5), ("everysec", rounds / 5)] {
        let mut server = Server::start(&[
            "--dir",
            &place,
            "--appendonly",
            "yes",
            "--appendfsync",
            policy,
            "--dbfilename",
            "x.rdb",
        ]);
        let mut writers = Writers::default();
        server.client().run("FLUSHALL");
        for round in 0..share {
            let mut dice = Dice((seed + round).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            let limit = Duration::from_millis(if policy == "always" { 60 } else { 2500 } + dice.below(200));
            let rewriting = dice.below(2) == 0;
            let mut control = server.client();
            let pid = server.pid();
            let mut lost = Instant::now();
            let moves = dice.below(u64::MAX);
            writers.run(&server, moves, || {
                let begun = Instant::now();
                while begun.elapsed() < limit {
                    if rewriting {
                        let _ = control.try_call(&["BGREWRITEAOF"]);
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
                sectors += mounted.disk.lose_power(&mut dice);
                lost = Instant::now();
                // To the server's own process id.
                let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).output();
            });
            server.kill();
            mounted.power_up()?;
            server.restart();
            // With `always` every answer counts that a client has got, whenever it came.
            let forgiven = (policy != "always").then(|| lost.checked_sub(FORGIVEN).unwrap_or(lost));
            writers.check(&mut server.client(), forgiven).map_err(|fault| {
                format!("{kind}, {policy}, round {round}: {fault}\n{}", server.log_tail())
            })?;
        }
        server.kill();
    }
    Ok(sectors)
}
