//! When a worker should let requests gather for some microseconds instead of being woken for each.
//!
//! A worker that is more than half busy, yet faster than its clients, goes to sleep between any two requests, and each
//! wake-up costs itself and the client's side more than the request does. Letting a few gather, as network cards do
//! with interrupts, halves that. It is only done where several are expected within the wait, so never for a lone
//! client or a quiet server, and given up for a while where they didn't come.
//!
//! Boundary: decides only; time comes in, the worker sleeps.

use std::time::Duration;

/// Requests (readable connections) that should gather.
const GATHERED: u64 = 4;
/// Fewer active connections than this would be idle themselves while the worker waits: 8 lost a third of their
/// throughput, 16 gained a fifth.
const ACTIVE: usize = 16;
/// Active are the connections that had something to say in so many turns.
const WINDOW_TURNS: u32 = 64;
/// No wait is longer.
const LONGEST_NS: u64 = 40_000;
/// Connections become readable at least this often, on average, where waiting pays.
const BUSY_PERIOD_NS: u64 = 16_000;
/// Waits that brought too little in a row, before the pause.
const PATIENCE: u32 = 4;
/// A silence counts as no more than this.
const SILENCE_NS: u64 = 250_000_000;
/// Turns without waits after that; doubled each time up to the longest.
const PAUSE_TURNS: u32 = 64;
const LONGEST_PAUSE_TURNS: u32 = 16 * 1024;

/// The window in which a connection was last counted as active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen(u32);

#[derive(Debug, Default)]
struct Window {
    number: u32,
    active: usize,
}

/// One worker's pacing.
#[derive(Debug)]
pub struct Pacing {
    /// The mean time from one readable connection to the next, ns, times 16.
    period_x16_ns: u64,
    window: Window,
    active_before: usize,
    turns: u32,
    waited: bool,
    disappointments: u32,
    pause_turns: u32,
    next_pause_turns: u32,
}

impl Default for Pacing {
    fn default() -> Self {
        Pacing {
            period_x16_ns: 16 * SILENCE_NS,
            window: Window::default(),
            active_before: 0,
            turns: 0,
            waited: false,
            disappointments: 0,
            pause_turns: 0,
            next_pause_turns: PAUSE_TURNS,
        }
    }
}

impl Pacing {
    /// A connection has become readable.
    #[inline]
    pub fn saw(&mut self, seen: &mut Seen) {
        // Numbers begin at 1: a new connection has been seen in none.
        let now = Seen(self.window.number.wrapping_add(1));
        if *seen != now {
            *seen = now;
            self.window.active += 1;
        }
    }

    /// A turn served `ready` connections; `ns` passed since the end of the turn before. Returns how long to let
    /// requests gather before the next look at the sockets.
    #[inline]
    pub fn after_turn(&mut self, ready: usize, ns: u64) -> Option<Duration> {
        self.turns += 1;
        if self.turns == WINDOW_TURNS {
            self.turns = 0;
            self.active_before = self.window.active;
            self.window = Window { number: self.window.number.wrapping_add(1), active: 0 };
        }
        let ready = ready as u64;
        let period_ns = ns / ready.max(1);
        // A mean over the last 16 turns or so, in which a long silence counts no more than a quarter second.
        self.period_x16_ns = self.period_x16_ns - self.period_x16_ns / 16 + period_ns.min(SILENCE_NS);
        self.learn(ready);
        let period_ns = self.period_x16_ns / 16;
        if period_ns > BUSY_PERIOD_NS || ready == 0 || self.active_before < ACTIVE {
            return None;
        }
        if self.pause_turns > 0 {
            self.pause_turns -= 1;
            return None;
        }
        // As many as are wanted are waiting already, as far as one can tell: sleep isn't near.
        if ready > 2 * GATHERED {
            return None;
        }
        self.waited = true;
        Some(Duration::from_nanos((period_ns * GATHERED).min(LONGEST_NS)))
    }

    /// Whether the last wait was worth it.
    fn learn(&mut self, ready: u64) {
        if !std::mem::take(&mut self.waited) {
            return;
        }
        if ready >= GATHERED / 2 {
            self.disappointments = 0;
            self.next_pause_turns = PAUSE_TURNS;
            return;
        }
        self.disappointments += 1;
        if self.disappointments >= PATIENCE {
            self.disappointments = 0;
            self.pause_turns = self.next_pause_turns;
            self.next_pause_turns = (self.next_pause_turns * 2).min(LONGEST_PAUSE_TURNS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs turns in which `ready` of `connections` speak, each `period_ns` after the one before, and returns how many
    /// of the turns were followed by a wait.
    fn waits(
        pacing: &mut Pacing,
        connections: &mut [Seen],
        ready: usize,
        period_ns: u64,
        turns: usize,
    ) -> usize {
        let mut next = 0;
        (0..turns)
            .filter(|_| {
                for _ in 0..ready {
                    pacing.saw(&mut connections[next]);
                    next = (next + 1) % connections.len();
                }
                pacing.after_turn(ready, period_ns * ready.max(1) as u64).is_some()
            })
            .count()
    }

    #[test]
    fn many_busy_connections_gather_and_few_or_quiet_ones_never_wait() {
        let mut pacing = Pacing::default();
        assert!(waits(&mut pacing, &mut [Seen::default(); 50], 4, 10_000, 10_000) > 9_000);
        let mut pacing = Pacing::default();
        assert_eq!(waits(&mut pacing, &mut [Seen::default(); 8], 4, 10_000, 10_000), 0);
        let mut pacing = Pacing::default();
        assert_eq!(waits(&mut pacing, &mut [Seen::default(); 50], 4, 50_000, 10_000), 0);
        // Those who have all their clients' requests at hand don't sleep anyway.
        let mut pacing = Pacing::default();
        assert_eq!(waits(&mut pacing, &mut [Seen::default(); 50], 30, 10_000, 10_000), 0);
    }

    #[test]
    fn waits_that_bring_nothing_are_given_up_for_longer_and_longer() {
        let mut pacing = Pacing::default();
        let mut connections = [Seen::default(); 50];
        let first = waits(&mut pacing, &mut connections, 1, 10_000, 10_000);
        let later = waits(&mut pacing, &mut connections, 1, 10_000, 10_000);
        assert!(first < 100 && later <= first / 2, "{first} {later}");
    }

    #[test]
    fn no_wait_is_longer_than_the_longest() {
        let mut pacing = Pacing::default();
        let mut connections = [Seen::default(); 50];
        waits(&mut pacing, &mut connections, 4, 15_000, 10_000);
        let wait = pacing.after_turn(4, 60_000);
        assert_eq!(wait, Some(Duration::from_nanos(LONGEST_NS)));
    }
}
