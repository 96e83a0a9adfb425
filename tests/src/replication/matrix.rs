//! Every pair of products of which one is ours.

use super::{Can, Cut, Load, Proxy, fill, follow, info, number, until, until_equal, until_linked};
use crate::{Reply, Server, peers};
use std::time::Duration;

/// A product and its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    Kara,
    /// With several workers.
    KaraThreads,
    Valkey91,
    Valkey81,
    Redis70,
}

impl Product {
    fn is_kara(self) -> bool {
        matches!(self, Product::Kara | Product::KaraThreads)
    }

    fn knows_field_ttl(self) -> bool {
        self.is_kara() || self == Product::Valkey91
    }

    /// A running server.
    ///
    /// # Panics
    /// Where it isn't there (`cargo xtask peers`) or doesn't come up.
    pub fn start(self, more: &[&str]) -> Server {
        let mut arguments = vec!["--repl-diskless-sync-delay", "0", "--repl-backlog-size", "16mb"];
        if self == Product::KaraThreads {
            arguments.extend(["--io-threads", "2"]);
        }
        arguments.extend(more);
        let peer = |name: &str| Server::start_program(&peers().join("bin").join(name), &arguments);
        match self {
            Product::Kara | Product::KaraThreads => Server::start(&arguments),
            Product::Valkey91 => Server::reference(&arguments),
            Product::Valkey81 => peer("valkey-server-8.1.8"),
            Product::Redis70 => peer("redis-server-7.0"),
        }
    }
}

/// A primary and a replica.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    pub primary: Product,
    pub replica: Product,
}

/// All that can work: Redis 7.0 reads no file of Valkey's, theirs or ours.
pub const PAIRS: &[Pair] = &[
    Pair { primary: Product::Kara, replica: Product::Kara },
    Pair { primary: Product::KaraThreads, replica: Product::KaraThreads },
    Pair { primary: Product::KaraThreads, replica: Product::Valkey91 },
    Pair { primary: Product::Kara, replica: Product::Valkey81 },
    Pair { primary: Product::Valkey91, replica: Product::KaraThreads },
    Pair { primary: Product::Valkey81, replica: Product::Kara },
    Pair { primary: Product::Redis70, replica: Product::Kara },
];

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Length {
    pub load: Duration,
    pub cuts: u32,
}

/// Full sync under load, cut links and partial resync, a replica of the replica, promotion: equal data at the end.
///
/// # Panics
/// Where anything of that fails; with what and in which pair.
pub fn run_pair(pair: Pair, more: &[&str], length: Length, seed: u64) {
    let name = format!("{:?} -> {:?} {more:?}", pair.primary, pair.replica);
    let can = Can { field_ttl: pair.primary.knows_field_ttl() && pair.replica.knows_field_ttl() };
    let primary = pair.primary.start(more);
    let replica = pair.replica.start(more);
    let proxy = Proxy::to(primary.port());
    let mut p = primary.client();
    let mut r = replica.client();
    fill(&mut p, can);
    // What it has is replaced.
    r.run("SET old data");
    let load = Load::start(primary.port(), 2, can, seed);
    std::thread::sleep(length.load / 4);
    follow(&replica, proxy.port());
    until_linked(&name, &replica);
    std::thread::sleep(length.load / 4);
    let full = number(&mut p, "stats", "sync_full");
    for _ in 0..length.cuts {
        let partial = number(&mut p, "stats", "sync_partial_ok");
        proxy.cut(Cut::Reset);
        until(&format!("{name}: link down"), || info(&mut r, "replication", "master_link_status") == "down");
        proxy.cut(Cut::None);
        until_linked(&name, &replica);
        until(&format!("{name}: partial resync"), || number(&mut p, "stats", "sync_partial_ok") > partial);
    }
    assert_eq!(number(&mut p, "stats", "sync_full"), full, "{name}: a link's end needs no full sync");
    let last = Product::Kara.start(more);
    follow(&last, replica.port());
    until_linked(&name, &last);
    let mut l = last.client();
    std::thread::sleep(length.load / 4);
    assert!(load.stop() > 0, "{name}: nothing was written");
    until_equal(&name, &mut p, &mut r);
    until_equal(&format!("{name}, chained"), &mut r, &mut l);
    let linked_without_full_sync = number(&mut r, "stats", "sync_full");
    assert_eq!(l.run("FCALL_RO answer 0"), Reply::Integer(42), "{name}: functions");
    drop(primary);
    r.run("REPLICAOF NO ONE");
    let load = Load::start(replica.port(), 2, can, seed + 1);
    until_linked(&name, &last);
    std::thread::sleep(length.load / 4);
    load.stop();
    until_equal(&format!("{name}, promoted"), &mut r, &mut l);
    assert_eq!(
        number(&mut r, "stats", "sync_full"),
        linked_without_full_sync,
        "{name}: a promotion needs no full sync"
    );
}
