//! Random faults of links, in a chain of three servers under load. Each fault's resync is waited for before the next, and
//! must be a partial one wherever the log holds the gap.

use super::{
    Can, Cut, Load, Product, Proxy, fill, follow, info, number, until, until_caught_up, until_equal,
    until_linked,
};
use crate::{Client, Server};
use kara_base::rng::Rng;
use std::time::Duration;

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub faults: u32,
    /// Resyncs that the faults made necessary.
    pub partial: u64,
    pub full: u64,
    /// Faults while a data set, or a gap's bytes, were on their way.
    pub in_full_sync: u64,
    pub in_partial_sync: u64,
    /// Faults with a gap that the log doesn't hold.
    pub long: u64,
    /// Faults that somebody had to notice by the silence.
    pub silent: u64,
    /// Faults of the second link of the chain.
    pub chained: u64,
    pub written: u64,
}

/// When the link fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Streaming,
    /// And until the replica has noticed by itself.
    UntilNoticed,
    FullSync,
    PartialSync,
    /// While more is written than the log holds.
    BeyondLog,
}

/// The log's size, more than the load writes while a fault lasts (some 10 MB a second for some 4 s), and how much is written
/// where it shall not suffice.
const LOG_BYTES: u64 = 64 << 20;
const TOO_MUCH_BYTES: usize = 80 << 20;
/// A link that is to fail by itself does it by then, or is made to.
const ARMED: Duration = Duration::from_secs(3);

/// One link of the chain.
struct Stage<'a> {
    link: &'a Proxy,
    upstream: Client,
    replica: &'a Server,
    client: Client,
    /// Bytes of a full sync over it.
    data_bytes: u64,
}

impl Stage<'_> {
    fn counts(&mut self) -> (u64, u64) {
        let mut count = |field| number(&mut self.upstream, "stats", field);
        (count("sync_full"), count("sync_partial_ok"))
    }

    /// Bytes of the stream that the replica hasn't run yet.
    fn behind(&mut self) -> u64 {
        let offset = number(&mut self.client, "replication", "master_repl_offset");
        number(&mut self.upstream, "replication", "master_repl_offset").saturating_sub(offset)
    }

    /// Fails at that moment, and works again.
    fn fail(&mut self, moment: Moment, how: Cut, primary: &mut Client, rng: &mut Rng) {
        let link = self.link;
        let mut pause = |least: u64, more: u64| {
            std::thread::sleep(Duration::from_millis(least + rng.next_u64() % more));
        };
        match moment {
            Moment::Streaming => {
                link.cut(how);
                pause(20, 400);
            }
            Moment::UntilNoticed => {
                link.cut(how);
                until("the replica notices", || {
                    info(&mut self.client, "replication", "master_link_status") == "down"
                });
            }
            Moment::BeyondLog => {
                link.cut(how);
                let behind =
                    number(&mut self.upstream, "replication", "master_repl_offset") + TOO_MUCH_BYTES as u64;
                let reply = primary.call(&["SET", "filler", &"f".repeat(TOO_MUCH_BYTES)]);
                assert_eq!(reply.text(), "OK");
                until("the upstream has it", || {
                    number(&mut self.upstream, "replication", "master_repl_offset") >= behind
                });
                pause(100, 100);
            }
            Moment::FullSync => {
                self.client.run("DEBUG CHANGE-REPL-ID");
                link.cut(Cut::Reset);
                link.cut_after(1 + rng.next_u64() % self.data_bytes, how);
                link.cut(Cut::None);
                self.spring(how);
            }
            Moment::PartialSync => {
                link.cut(Cut::Reset);
                pause(20, 100);
                // The handshake's answers are some 150 bytes.
                link.cut_after(1 + rng.next_u64() % 1500, how);
                link.cut(Cut::None);
                self.spring(how);
            }
        }
        link.cut(Cut::None);
    }

    /// Waits until the link has failed by itself, and a little longer.
    fn spring(&self, how: Cut) {
        let begun = std::time::Instant::now();
        while !self.link.is_cut() && begun.elapsed() < ARMED {
            std::thread::sleep(Duration::from_millis(5));
        }
        if self.link.disarm() {
            self.link.cut(how);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn pick(rng: &mut Rng) -> Moment {
    match rng.next_u64() % 16 {
        0..=1 => Moment::UntilNoticed,
        2..=4 => Moment::FullSync,
        5..=7 => Moment::PartialSync,
        8 => Moment::BeyondLog,
        _ => Moment::Streaming,
    }
}

/// Breaks the links of a chain so often, in every way, during full and partial syncs; compares the data every so often.
///
/// # Panics
/// Where data differ, a link doesn't come back, or a gap that the log holds needs a full sync.
pub fn run(count: u32, seed: u64, arguments: &[&str]) -> Faults {
    let can = Can { field_ttl: true };
    let log_bytes = LOG_BYTES.to_string();
    let own = ["--repl-timeout", "3", "--repl-ping-replica-period", "1", "--repl-backlog-size", &log_bytes];
    let arguments = [arguments, &own].concat();
    let primary = Product::Kara.start(&arguments);
    let middle = Product::KaraThreads.start(&arguments);
    let last = Product::Kara.start(&arguments);
    let links = [Proxy::to(primary.port()), Proxy::to(middle.port())];
    let mut p = primary.client();
    fill(&mut p, can);
    follow(&middle, links[0].port());
    until_linked("middle", &middle);
    follow(&last, links[1].port());
    until_linked("last", &last);
    let stage = |link, upstream: &Server, replica| Stage {
        link,
        upstream: upstream.client(),
        replica,
        client: Server::client(replica),
        data_bytes: Proxy::passed(link),
    };
    let mut stages = [stage(&links[0], &primary, &middle), stage(&links[1], &middle, &last)];
    let mut rng = Rng::new(seed);
    let mut report = Faults { faults: count, ..Faults::default() };
    let mut load = None;
    for n in 0..count {
        if stages.iter_mut().any(|stage| stage.behind() > LOG_BYTES / 4) {
            // A busy machine: what the replica lags behind would count to the gap.
            report.written += load.take().map_or(0, Load::stop);
            for stage in &mut stages {
                until_caught_up(
                    &format!("seed {seed}, before fault {n}"),
                    &mut stage.upstream,
                    &mut stage.client,
                );
            }
        }
        load.get_or_insert_with(|| Load::start(primary.port(), 1, can, seed + u64::from(n)));
        let at = usize::from(rng.next_u64().is_multiple_of(3));
        let how = Cut::ALL[(rng.next_u64() % 4) as usize];
        let moment = pick(&mut rng);
        let what = format!("seed {seed}, fault {n}: {how:?} of link {at}, {moment:?}");
        let before = [stages[0].counts(), stages[1].counts()];
        stages[at].fail(moment, how, &mut p, &mut rng);
        let mut after = before;
        until(&format!("{what}: a resync"), || {
            after[at] = stages[at].counts();
            info(&mut stages[at].client, "replication", "master_link_status") == "up"
                && after[at] != before[at]
        });
        if at == 0 && after[0].0 > before[0].0 {
            // What it had is replaced, and so is what its own replica had.
            until(&format!("{what}: the last follows"), || stages[1].counts().0 > before[1].0);
        }
        until_linked(&what, stages[at].replica);
        until_linked(&format!("{what}, last"), &last);
        let (full, partial) = (after[at].0 - before[at].0, after[at].1 - before[at].1);
        match moment {
            Moment::FullSync => assert!(full > 0, "{what}: no full sync"),
            // Where nobody was told, the primary still holds what it sent to nobody, and may go on.
            Moment::BeyondLog if how != Cut::Reset => assert!(full + partial > 0, "{what}: no resync"),
            Moment::BeyondLog => assert!(full > 0, "{what}: no full sync, though the log is too short"),
            _ => {
                assert_eq!(
                    full,
                    0,
                    "{what}: a full sync, though the log holds the gap\n{}",
                    primary.log_tail()
                );
                assert!(partial > 0, "{what}: no partial resync");
                let other = stages[1 - at].counts();
                assert_eq!(other.0, before[1 - at].0, "{what}: a full sync over the other link");
            }
        }
        if moment == Moment::BeyondLog {
            p.run("DEL filler");
        }
        report.full += full;
        report.partial += partial;
        report.chained += at as u64;
        report.in_full_sync += u64::from(moment == Moment::FullSync);
        report.in_partial_sync += u64::from(moment == Moment::PartialSync);
        report.long += u64::from(moment == Moment::BeyondLog);
        report.silent += u64::from(moment == Moment::UntilNoticed);
        if n % 5 == 4 || n + 1 == count {
            report.written += load.take().map_or(0, Load::stop);
            let [first, second] = &mut stages;
            until_equal(&format!("{what}, middle"), &mut first.upstream, &mut first.client);
            until_equal(&format!("{what}, last"), &mut second.upstream, &mut second.client);
        }
    }
    report
}
