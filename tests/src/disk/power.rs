//! Power loss: a file system on a loop device is shut down under load, without its log being flushed, and mounted again.
//! Needs root, loop devices, mkfs and xfs_io.

use super::{Dice, Writers};
use crate::Server;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The smallest that mkfs.xfs makes.
const IMAGE_BYTES: u64 = 320 << 20;
/// What `appendfsync everysec` may lose.
const FORGIVEN: Duration = Duration::from_secs(2);

/// A file system in a file, mounted; unmounted and removed when dropped.
struct Mounted {
    image: PathBuf,
    place: PathBuf,
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
        let base = std::env::temp_dir().join(format!("kara-power-{}-{kind}", std::process::id()));
        let place = base.join("mnt");
        fs::create_dir_all(&place).map_err(|fault| fault.to_string())?;
        let image = base.join("image");
        File::create(&image).and_then(|file| file.set_len(IMAGE_BYTES)).map_err(|fault| fault.to_string())?;
        run(&format!("mkfs.{kind}"), &["-q", &shown(&image)])?;
        let mounted = Mounted { image, place };
        mounted.mount()?;
        Ok(mounted)
    }

    fn mount(&self) -> Result<(), String> {
        run("mount", &["-o", "loop", &shown(&self.image), &shown(&self.place)])
    }

    fn unmount(&self) -> Result<(), String> {
        run("umount", &[&shown(&self.place)])
    }

    /// From here on nothing reaches the device: what only memory has is lost.
    fn lose_power(&self) -> Result<(), String> {
        run("xfs_io", &["-x", "-c", "shutdown", &shown(&self.place)])
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Best effort: a test that failed leaves no mount behind if it can be helped.
        let _ = self.unmount();
        let _ = fs::remove_dir_all(self.place.parent().unwrap_or(&self.place));
    }
}

/// `rounds` times: writes under load, power loss, a new start. Every fifth round is one with `everysec`, which takes
/// longer: only what is older than two seconds must be there.
///
/// # Errors
/// What was lost or invented, or what is missing for the test.
pub fn rounds(kind: &str, rounds: u64, seed: u64) -> Result<(), String> {
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
            let (mut before, mut lost) = (Instant::now(), Ok(Instant::now()));
            writers.run(&server, dice.below(u64::MAX), || {
                let begun = Instant::now();
                while begun.elapsed() < limit {
                    if rewriting {
                        let _ = control.try_call(&["BGREWRITEAOF"]);
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
                before = Instant::now();
                lost = mounted.lose_power().map(|()| Instant::now());
                // To the server's own process id.
                let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).output();
            });
            let lost = lost?;
            server.kill();
            mounted.unmount()?;
            mounted.mount()?;
            server.restart();
            // What was answered while the file system went down isn't counted: a fsync that xfs's shutdown overtakes may
            // be told to have worked. Where power really goes, no such answer gets out.
            let forgiven =
                if policy == "always" { before } else { lost.checked_sub(FORGIVEN).unwrap_or(lost) };
            writers.check(&mut server.client(), Some(forgiven)).map_err(|fault| {
                format!("{kind}, {policy}, round {round}: {fault}\n{}", server.log_tail())
            })?;
        }
        server.kill();
    }
    Ok(())
}
