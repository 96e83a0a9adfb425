//! How far and how fast: the bar on a terminal, and the brake.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

const WIDTH: usize = 30;
const DRAW_EVERY: Duration = Duration::from_millis(100);

pub struct Meter {
    what: &'static str,
    total: u64,
    keys: u64,
    bytes: u64,
    began: Instant,
    drawn: Option<Instant>,
    shown: bool,
}

impl Meter {
    pub fn new(what: &'static str, total: u64, quiet: bool) -> Meter {
        let shown = !quiet && std::io::stderr().is_terminal();
        Meter { what, total, keys: 0, bytes: 0, began: Instant::now(), drawn: None, shown }
    }

    pub fn add(&mut self, keys: usize, bytes: u64) {
        self.keys += u64::try_from(keys).unwrap_or(0);
        self.bytes += bytes;
        if self.shown && self.drawn.is_none_or(|drawn| drawn.elapsed() > DRAW_EVERY) {
            self.draw();
        }
    }

    /// Waits where we are faster than `rate` keys a second.
    pub fn hold(&self, rate: Option<u64>) {
        let Some(rate) = rate else { return };
        let due = Duration::from_secs_f64(self.keys as f64 / rate as f64);
        if let Some(early) = due.checked_sub(self.began.elapsed()) {
            std::thread::sleep(early);
        }
    }

    fn draw(&mut self) {
        self.drawn = Some(Instant::now());
        let _ = write!(std::io::stderr(), "\r\x1b[K{}", self.bar());
    }

    fn bar(&self) -> String {
        let share = if self.total == 0 { 1.0 } else { (self.keys as f64 / self.total as f64).min(1.0) };
        let filled = (share * WIDTH as f64) as usize;
        let seconds = self.began.elapsed().as_secs_f64().max(0.001);
        format!(
            "{} [{}{}] {:3.0} %  {}/{} keys  {:.0} keys/s  {:.1} MB/s",
            self.what,
            "#".repeat(filled),
            "-".repeat(WIDTH - filled),
            share * 100.0,
            self.keys,
            self.total,
            self.keys as f64 / seconds,
            self.bytes as f64 / seconds / 1e6
        )
    }

    /// Ends the bar's line.
    pub fn finish(&mut self) {
        if self.shown {
            self.draw();
            let _ = writeln!(std::io::stderr());
        }
    }

    pub fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_never_overflows() {
        let mut meter = Meter::new("copying", 10, true);
        meter.add(5, 100);
        assert!(meter.bar().starts_with("copying [###############---------------]  50 %  5/10 keys"));
        meter.add(50, 0);
        assert!(meter.bar().contains("] 100 %"));
        assert!(Meter::new("x", 0, true).bar().contains("100 %"));
    }
}
