//! When a worker should let requests gather for some microseconds instead of being woken for each.
//!
//! A worker that is more than half busy, yet faster than its clients, goes to sleep between any two requests, and each
//! wake-up costs itself and the client's side more than the request does. Letting a few gather, as network cards do
//! with interrupts, halves that. It is only done where several are expected within the wait, so never for a lone
//! client or a quiet server, and given up for a while where they didn't come.
//!
//! The same for `appendfsync always`: an fsync takes as long for one client as for fifty, so a worker that would begin
//! one with half of its clients waits for the others, a fraction of what the fsync will take.
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

/// Counts the connections that take part within so many turns.
#[derive(Debug)]
struct Active {
    window_turns: u32,
    turns: u32,
    number: u32,
    now: usize,
    before: usize,
}

impl Active {
    const fn within(window_turns: u32) -> Self {
        Active { window_turns, turns: 0, number: 0, now: 0, before: 0 }
    }

    #[inline]
    fn saw(&mut self, seen: &mut Seen) {
        // Numbers begin at 1: a new connection has been seen in none.
        let now = Seen(self.number.wrapping_add(1));
        if *seen != now {
            *seen = now;
            self.now += 1;
        }
    }

    #[inline]
    fn turn(&mut self) {
        self.turns += 1;
        if self.turns == self.window_turns {
            self.turns = 0;
            self.before = std::mem::take(&mut self.now);
            self.number = self.number.wrapping_add(1);
        }
    }
}

/// Gives up waiting for a while where it doesn't pay.
#[derive(Debug)]
struct Patience {
    disappointments: u32,
    pause_turns: u32,
    next_pause_turns: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Patience { disappointments: 0, pause_turns: 0, next_pause_turns: PAUSE_TURNS }
    }
}

impl Patience {
    fn learn(&mut self, paid: bool) {
        if paid {
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

    /// One turn of the pause, if there is one.
    #[inline]
    fn is_over(&mut self) -> bool {
        self.pause_turns = self.pause_turns.saturating_sub(1);
        self.pause_turns == 0
    }
}

/// One worker's pacing.
#[derive(Debug)]
pub struct Pacing {
    /// The mean time from one readable connection to the next, ns, times 16.
    period_x16_ns: u64,
    active: Active,
    waited: bool,
    patience: Patience,
}

impl Default for Pacing {
    fn default() -> Self {
        Pacing {
            period_x16_ns: 16 * SILENCE_NS,
            active: Active::within(WINDOW_TURNS),
            waited: false,
            patience: Patience::default(),
        }
    }
}

impl Pacing {
    /// A connection has become readable.
    #[inline]
    pub fn saw(&mut self, seen: &mut Seen) {
        self.active.saw(seen);
    }

    /// A turn served `ready` connections; `ns` passed since the end of the turn before. Returns how long to let
    /// requests gather before the next look at the sockets.
    #[inline]
    pub fn after_turn(&mut self, ready: usize, ns: u64) -> Option<Duration> {
        self.active.turn();
        let ready = ready as u64;
        let period_ns = ns / ready.max(1);
        // A mean over the last 16 turns or so, in which a long silence counts no more than a quarter second.
        self.period_x16_ns = self.period_x16_ns - self.period_x16_ns / 16 + period_ns.min(SILENCE_NS);
        if std::mem::take(&mut self.waited) {
            self.patience.learn(ready >= GATHERED / 2);
        }
        let period_ns = self.period_x16_ns / 16;
        if period_ns > BUSY_PERIOD_NS || ready == 0 || self.active.before < ACTIVE {
            return None;
        }
        if !self.patience.is_over() {
            return None;
        }
        // As many as are wanted are waiting already, as far as one can tell: sleep isn't near.
        if ready > 2 * GATHERED {
            return None;
        }
        self.waited = true;
        Some(Duration::from_nanos((period_ns * GATHERED).min(LONGEST_NS)))
    }
}

/// Those belong to a group who have written within so many fsyncs.
const COMMITS: u32 = 16;
/// A faster disk isn't waited for, ns.
const SYNC_MIN_NS: u64 = 100_000;
/// This part of an fsync's time is waited for those who are missing.
const SYNC_PART: u64 = 4;
/// And at most this, ns.
const GROUP_WAIT_MAX_NS: u64 = 2_000_000;
/// How long between two looks, where nobody has come.
const LOOK: Duration = Duration::from_micros(20);

/// When one worker's clients have gathered for their fsync.
#[derive(Debug)]
pub struct GroupCommit {
    /// Connections that wrote within the last commits.
    active: Active,
    /// What an fsync takes, on average, ns, times 8.
    sync_x8_ns: u64,
    /// How many there were when the wait began, and at the last look.
    first: usize,
    last: usize,
    patience: Patience,
}

impl Default for GroupCommit {
    fn default() -> Self {
        GroupCommit {
            active: Active::within(COMMITS),
            sync_x8_ns: 0,
            first: 0,
            last: 0,
            patience: Patience::default(),
        }
    }
}

impl GroupCommit {
    /// A connection's answer waits for the next commit.
    pub fn saw(&mut self, seen: &mut Seen) {
        self.active.saw(seen);
    }

    /// So many connections wait, the first of them for `ns`: how long to wait for others before the next look at the
    /// sockets; `None` if it is time to commit.
    pub fn wait(&mut self, connections: usize, ns: u64) -> Option<Duration> {
        if self.first == 0 {
            // One turn of the pause for each group.
            self.first = if self.patience.is_over() { connections } else { usize::MAX };
        }
        let sync_ns = self.sync_x8_ns / 8;
        let longest_ns = (sync_ns / SYNC_PART).min(GROUP_WAIT_MAX_NS);
        let expected = self.active.before.max(self.active.now);
        if self.first == usize::MAX || sync_ns < SYNC_MIN_NS {
            return None;
        }
        if connections >= expected || ns >= longest_ns {
            if self.last > 0 {
                let came = connections.saturating_sub(self.first) as u64;
                self.patience.learn(came * SYNC_PART >= self.first as u64);
            }
            return None;
        }
        let came = connections > std::mem::replace(&mut self.last, connections);
        Some(if came { Duration::ZERO } else { LOOK })
    }

    /// The group was committed, which took `ns`.
    pub fn committed(&mut self, ns: u64) {
        self.sync_x8_ns = self.sync_x8_ns - self.sync_x8_ns / 8 + ns;
        (self.first, self.last) = (0, 0);
        self.active.turn();
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

    const SYNC_NS: u64 = 800_000;

    /// Commits `groups` times: half of the connections come at once, of the others `late` some time later. Returns the
    /// sizes of the groups and the longest wait.
    fn commits(
        group: &mut GroupCommit,
        connections: &mut [Seen],
        late: usize,
        groups: usize,
    ) -> (Vec<usize>, u64) {
        let mut longest_ns = 0;
        let mut next = 0;
        let mut sizes = Vec::new();
        for _ in 0..groups {
            let (mut waiting, mut ns) = (connections.len() / 2, 0);
            let mut come = waiting;
            loop {
                for _ in 0..come {
                    group.saw(&mut connections[next]);
                    next = (next + 1) % connections.len();
                }
                let Some(wait) = group.wait(waiting, ns) else { break };
                ns += 10_000 + u64::try_from(wait.as_nanos()).expect("short");
                come = if ns > 50_000 { (connections.len() / 2 + late - waiting).min(5) } else { 0 };
                waiting += come;
            }
            longest_ns = longest_ns.max(ns);
            group.committed(SYNC_NS);
            sizes.push(waiting);
        }
        (sizes, longest_ns)
    }

    #[test]
    fn an_fsync_waits_for_the_other_half_of_the_clients() {
        let mut group = GroupCommit::default();
        let (sizes, longest_ns) = commits(&mut group, &mut [Seen::default(); 50], 25, 1000);
        assert!(sizes.iter().filter(|&&size| size == 50).count() > 950, "{sizes:?}");
        assert!(longest_ns < SYNC_NS / SYNC_PART + 40_000, "{longest_ns}");
    }

    #[test]
    fn an_fsync_waits_for_nobody_who_does_not_come() {
        let mut group = GroupCommit::default();
        let (sizes, _) = commits(&mut group, &mut [Seen::default(); 50], 0, 1000);
        assert!(sizes.iter().all(|&size| size == 25));
        assert!(group.patience.next_pause_turns >= 4 * PAUSE_TURNS);
        // A lone client is answered as soon as it can be.
        let mut lone = GroupCommit::default();
        let mut seen = Seen::default();
        for _ in 0..100 {
            lone.saw(&mut seen);
            assert_eq!(lone.wait(1, 0), None);
            lone.committed(SYNC_NS);
        }
    }

    #[test]
    fn a_fast_disk_is_not_waited_for() {
        let mut group = GroupCommit::default();
        let mut connections = [Seen::default(); 50];
        for _ in 0..64 {
            connections.iter_mut().for_each(|seen| group.saw(seen));
            assert_eq!(group.wait(1, 0), None);
            group.committed(SYNC_MIN_NS / 2);
        }
    }
}
