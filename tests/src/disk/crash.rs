//! kill -9 at random moments and at named places of the persistence code: nothing answered is lost, nothing invented,
//! and every file is whole.

use super::{Dice, Writers};
use crate::Server;
use crate::server::own_program;
use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Where a fault can be put (DEBUG KARA-FAULT), and how often the place is passed in a round, roughly.
const PLACES: &[(&str, u64)] = &[
    ("aof-write", 60),
    ("aof-sync", 60),
    ("file-create", 3),
    ("file-write", 4),
    ("file-sync", 4),
    ("file-rename", 3),
    ("manifest", 3),
    ("incr-created", 3),
    ("base-renamed", 2),
    ("base-listed", 2),
];

/// How many rounds ended where.
pub type Ends = BTreeMap<&'static str, usize>;

/// `rounds` rounds; every second one ends at a place, the others at a random moment.
///
/// # Errors
/// What was lost, invented or broken, and in which round.
pub fn rounds(rounds: u64, seed: u64) -> Result<Ends, String> {
    let mut ends = Ends::new();
    for (number, policy) in ["always", "everysec", "always"].into_iter().enumerate() {
        let threads = if number == 1 { "2" } else { "1" };
        let mut server =
            Server::start(&["--appendonly", "yes", "--appendfsync", policy, "--io-threads", threads]);
        let mut writers = Writers::default();
        let share = rounds / 3 + u64::from((number as u64) < rounds % 3);
        for round in 0..share {
            let mut dice = Dice((seed + round * 3 + number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            let end = one(&mut server, &mut writers, &mut dice)
                .map_err(|fault| format!("round {round} with {policy}: {fault}\n{}", server.log_tail()))?;
            *ends.entry(end).or_default() += 1;
        }
    }
    Ok(ends)
}

fn one(server: &mut Server, writers: &mut Writers, dice: &mut Dice) -> Result<&'static str, String> {
    let place = (dice.below(2) == 0).then(|| PLACES[dice.below(PLACES.len() as u64) as usize]);
    let mut control = server.client();
    if let Some((name, passes)) = place {
        let skipped = dice.below(passes);
        let reply = control.run(&format!("DEBUG KARA-FAULT {name} KILL {skipped}"));
        if reply.is_error() {
            return Err(reply.text());
        }
    }
    let limit = Duration::from_millis(40 + dice.below(260));
    let jobs = dice.below(3);
    let seed = dice.below(u64::MAX);
    let pid = server.pid();
    let mut ended_by_itself = false;
    writers.run(server, seed, || {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            let lines: &[&str] =
                [&["PING"][..], &["BGREWRITEAOF"], &["BGSAVE SCHEDULE", "BGREWRITEAOF"]][jobs as usize];
            for line in lines {
                let words: Vec<&str> = line.split(' ').collect();
                ended_by_itself |= control.try_call(&words).is_err();
            }
            if ended_by_itself {
                return;
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        // To the server's own process id; it may be gone already.
        let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).output();
    });
    server.kill();
    whole(&server.folder().join("dump.rdb"), "kara-check-rdb")?;
    server.restart();
    writers.check(&mut server.client(), None)?;
    Ok(match place {
        Some((name, _)) if ended_by_itself => name,
        _ => "a random moment",
    })
}

/// A file with a final name is whole.
fn whole(file: &Path, checker: &str) -> Result<(), String> {
    if !file.exists() {
        return Ok(());
    }
    let checked = Command::new(own_program()).arg0(checker).arg(file).output().map_err(|e| e.to_string())?;
    if checked.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", file.display(), String::from_utf8_lossy(&checked.stdout)))
}
