//! Power loss: the device below a file system stops under load, and the file system is mounted again.
//! Needs root, loop devices, mkfs and xfs_io.

use super::{Dice, Writers};
use crate::Server;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The smallest that mkfs.xfs makes.
const IMAGE_BYTES: u64 = 320 << 20;
/// What `appendfsync everysec` may lose.
const FORGIVEN: Duration = Duration::from_secs(2);

/// What the file system around it needs beside.
const MARGIN_BYTES: u64 = 100 << 20;

/// The file system under test, on a device that can be made to stop: the device is a file of another file system, which
/// is shut down. From then on writes fail, and what wasn't flushed to the device is lost as in a disk's cache.
///
/// Shutting down the file system under test itself proves nothing: the kernel calls an fsync that is overtaken by
/// the shutdown a success in one round of ten, for any program (a loop of write and fdatasync: 7 of 60 rounds on
/// xfs, 5 of 60 on ext4; on such a device none of 60 and 60).
struct Mounted {
    base: PathBuf,
    /// Where the tested file system is.
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

fn text(fault: std::io::Error) -> String {
    fault.to_string()
}

impl Mounted {
    fn new(kind: &str) -> Result<Self, String> {
        let base = std::env::temp_dir().join(format!("kara-power-{}-{kind}", std::process::id()));
        let mounted = Mounted { place: base.join("mnt"), base };
        for place in [&mounted.place, &mounted.device()] {
            fs::create_dir_all(place).map_err(text)?;
        }
        File::create(mounted.device_image())
            .and_then(|file| file.set_len(IMAGE_BYTES + MARGIN_BYTES))
            .map_err(text)?;
        run("mkfs.ext4", &["-q", &shown(&mounted.device_image())])?;
        mount(&mounted.device_image(), &mounted.device())?;
        // Every block is there before: what is flushed then needs nothing of the outer file system but the data's place.
        let mut image = File::create(mounted.image()).map_err(text)?;
        let zeros = vec![0; 1 << 20];
        for _ in 0..IMAGE_BYTES >> 20 {
            image.write_all(&zeros).map_err(text)?;
        }
        image.sync_all().map_err(text)?;
        run(&format!("mkfs.{kind}"), &["-q", &shown(&mounted.image())])?;
        mount(&mounted.image(), &mounted.place)?;
        Ok(mounted)
    }

    fn device_image(&self) -> PathBuf {
        self.base.join("image")
    }

    fn device(&self) -> PathBuf {
        self.base.join("device")
    }

    fn image(&self) -> PathBuf {
        self.device().join("image")
    }

    /// From here on nothing reaches the device.
    fn lose_power(&self) -> Result<(), String> {
        run("xfs_io", &["-x", "-c", "shutdown", &shown(&self.device())])
    }

    fn unmount(&self) -> Result<(), String> {
        run("umount", &[&shown(&self.place)])?;
        run("umount", &[&shown(&self.device())])
    }

    /// The device as it is when power comes again, and what the file system makes of it.
    fn power_up(&self) -> Result<(), String> {
        self.unmount()?;
        mount(&self.device_image(), &self.device())?;
        mount(&self.image(), &self.place)
    }
}

fn mount(image: &Path, place: &Path) -> Result<(), String> {
    run("mount", &["-o", "loop", &shown(image), &shown(place)])
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Best effort: a test that failed leaves no mount behind if it can be helped.
        let _ = self.unmount();
        let _ = fs::remove_dir_all(&self.base);
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
            let mut lost = Ok(Instant::now());
            writers.run(&server, dice.below(u64::MAX), || {
                let begun = Instant::now();
                while begun.elapsed() < limit {
                    if rewriting {
                        let _ = control.try_call(&["BGREWRITEAOF"]);
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
                lost = mounted.lose_power().map(|()| Instant::now());
                // To the server's own process id.
                let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).output();
            });
            let lost = lost?;
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
    Ok(())
}
