//! The file that makes a migration resumable: which databases are done, and where SCAN stood in the current one.
//! Written whole under another name and renamed, so that it is never half a file.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const HEADER: &str = "kara-cli migrate 1";
/// Between two writes: a crash repeats that much work.
const SAVE_EVERY: Duration = Duration::from_millis(100);

/// What has been done. A cursor means nothing to another process than the one that gave it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What is copied from where to where; a file of another job is refused.
    pub job: String,
    /// The source's process.
    pub run: String,
    pub done: BTreeSet<u32>,
    pub current: Option<(u32, String)>,
}

impl Progress {
    fn text(&self) -> String {
        let mut out = format!("{HEADER}\njob {}\nrun {}\n", self.job, self.run);
        for db in &self.done {
            let _ = writeln!(out, "done {db}");
        }
        if let Some((db, cursor)) = &self.current {
            let _ = writeln!(out, "at {db} {cursor}");
        }
        out
    }

    fn parse(text: &str) -> Option<Progress> {
        let mut lines = text.lines();
        if lines.next() != Some(HEADER) {
            return None;
        }
        let mut progress = Progress::default();
        for line in lines {
            let (name, value) = line.split_once(' ')?;
            match name {
                "job" => progress.job = value.into(),
                "run" => progress.run = value.into(),
                "done" => {
                    progress.done.insert(value.parse().ok()?);
                }
                "at" => {
                    let (db, cursor) = value.split_once(' ')?;
                    cursor.parse::<u64>().ok()?;
                    progress.current = Some((db.parse().ok()?, cursor.into()));
                }
                _ => return None,
            }
        }
        Some(progress)
    }
}

/// The file, or nothing where none was asked for.
#[derive(Debug)]
pub struct StateFile {
    path: Option<PathBuf>,
    pub progress: Progress,
    saved: Instant,
    /// An earlier run's work is taken up.
    pub resumed: bool,
}

impl StateFile {
    /// Takes up what the file says about this job. The reason where the file is something else.
    pub fn open(path: Option<&Path>, job: &str, run: &str) -> Result<StateFile, String> {
        let fresh = Progress { job: job.into(), run: run.into(), ..Progress::default() };
        let mut state = StateFile {
            path: path.map(Path::to_path_buf),
            progress: fresh,
            saved: Instant::now(),
            resumed: false,
        };
        let Some(path) = path else { return Ok(state) };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(state),
            Err(fault) => return Err(format!("{}: {fault}", path.display())),
        };
        let mut found =
            Progress::parse(&text).ok_or_else(|| format!("{}: no state of a migration", path.display()))?;
        if found.job != job {
            return Err(format!("{}: the state of another migration ({})", path.display(), found.job));
        }
        // Another process of the source: its cursors begin anew, what is done stays done.
        if found.run != run || run.is_empty() {
            found.current = None;
            found.run = run.into();
        }
        state.resumed = true;
        state.progress = found;
        Ok(state)
    }

    /// Notes a position; now and then also in the file.
    pub fn note(&mut self, db: u32, cursor: &str) -> Result<(), String> {
        self.progress.current = Some((db, cursor.into()));
        if self.saved.elapsed() < SAVE_EVERY {
            return Ok(());
        }
        self.save()
    }

    pub fn finish(&mut self, db: u32) -> Result<(), String> {
        self.progress.done.insert(db);
        self.progress.current = None;
        self.save()
    }

    pub fn save(&mut self) -> Result<(), String> {
        self.saved = Instant::now();
        let Some(path) = &self.path else { return Ok(()) };
        let mut next = path.clone().into_os_string();
        next.push(".new");
        let written = fs::write(&next, self.progress.text()).and_then(|()| fs::rename(&next, path));
        written.map_err(|fault| format!("{}: {fault}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let progress = Progress {
            job: "a:1 -> b:2".into(),
            run: "abc".into(),
            done: [0, 3].into(),
            current: Some((5, "18446744073709551615".into())),
        };
        assert_eq!(Progress::parse(&progress.text()), Some(progress));
        for wrong in ["", "x", "kara-cli migrate 1\nat 1 x", "kara-cli migrate 1\nwhat 1"] {
            assert_eq!(Progress::parse(wrong), None, "{wrong}");
        }
    }
}
