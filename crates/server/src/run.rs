//! Puts the parts together: keyspace, engine, listeners, worker and background threads; runs until told to stop.

use crate::apply::Process;
use crate::host::ServerHost;
use crate::listen::Listeners;
use crate::replication::{Replicas, run_upstream};
use crate::worker::{WAKE, Worker};
use kara_base::clock::Ticker;
use kara_base::hash::HashSeed;
use kara_base::rng::Rng;
use kara_engine::acl::Acl;
use kara_engine::blocking::WaitingLists;
use kara_engine::commands::FAMILIES;
use kara_engine::config::ConfigStore;
use kara_engine::log::Level;
use kara_engine::observe::Observe;
use kara_engine::pipeline::Engine;
use kara_engine::reclaim::Reclaimer;
use kara_engine::registry::Registry;
use kara_engine::shared::{Pause, Shared};
use kara_engine::stats::Stats;
use kara_keyspace::{Keyspace, KeyspaceOptions};
use mio::{Poll, Waker};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A worker's stack, bytes. Lua's C functions nest up to 200 deep, some with buffers of 8 KB.
const STACK: usize = 16 << 20;
/// A worker that is woken while another thread computes (a snapshot, a replica that loads, a neighbour) takes its
/// processor at once: the least turn that Linux takes.
const TURNS: Duration = Duration::from_micros(100);
/// Shards per worker, so that two workers rarely want the same lock. One worker needs no more than one shard.
const SHARDS_PER_WORKER: usize = 32;

/// A server that listens but does not serve yet.
pub struct Server {
    pub shared: Arc<Shared>,
    pub host: ServerHost,
    polls: Vec<Poll>,
    seed: u64,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Server")
    }
}

impl Server {
    /// Opens the listeners and builds everything that is shared. `secret` are random bits of this process.
    pub fn new(
        config: ConfigStore,
        process: Process,
        renames: &[(String, String)],
        secret: [u64; 4],
    ) -> io::Result<Self> {
        let current = config.load();
        kara_base::usage::set_allocator_threads(current.jemalloc_bg_thread);
        let workers = (current.io_threads as usize).max(1);
        let shards = if workers == 1 { 1 } else { (workers * SHARDS_PER_WORKER).next_power_of_two() };
        let listeners = Listeners::open(&current)?;
        let polls = (0..workers).map(|_| Poll::new()).collect::<io::Result<Vec<_>>>()?;
        let wakers =
            polls.iter().map(|poll| Waker::new(poll.registry(), WAKE)).collect::<io::Result<Vec<_>>>()?;
        let host = ServerHost::new(wakers, process, listeners);
        let registry = Registry::new(FAMILIES, renames);
        let seed = match current.hash_seed.as_slice() {
            b"" => HashSeed { k0: secret[0], k1: secret[1] },
            text => seed_from_text(text),
        };
        let (reclaimer, reclaiming) = Reclaimer::new();
        let keyspace = Keyspace::new(KeyspaceOptions { shards, databases: current.databases as usize, seed });
        let shared = Arc::new(Shared {
            keyspace,
            stats: Stats::new(workers + 1, registry.all().len()),
            observe: Observe::default(),
            acl: Acl::new(&registry, &current.requirepass),
            registry,
            config,
            clients: Default::default(),
            reclaimer,
            pause: Pause::default(),
            started_ms: host.now_ms(),
            ticker: Ticker::new(),
            run_id: run_id(&mut Rng::new(secret[2])),
            host: Box::new(host.clone()),
            workers,
            startup_memory: AtomicU64::new(0),
            loading: AtomicBool::new(false),
            active_expire: AtomicBool::new(true),
            cron_paused: AtomicBool::new(false),
            quicklist_packed_threshold: Default::default(),
            reply_peak_reset_ms: AtomicI64::new(kara_engine::shared::REPLY_PEAK_RESET_MS),
            reply_resizing: AtomicBool::new(true),
            watches: Default::default(),
            scripts: kara_engine::scripting::Scripts::new(workers + 1),
            persist: Default::default(),
            replication: Default::default(),
            pubsub: Default::default(),
            tracking: Default::default(),
            monitors: Default::default(),
            waiting: WaitingLists::new(shards),
            exceeded: Default::default(),
        });
        shared.persist.attach(&shared);
        let freed_for = shared.clone();
        std::thread::Builder::new().name("lazyfree".into()).spawn(move || {
            kara_base::cpus::keep_to(&freed_for.config.load().bio_cpulist);
            reclaiming.run(&freed_for.reclaimer);
        })?;
        let replicas = Replicas::new()?;
        host.set_replicas(replicas.handle());
        let served = shared.clone();
        std::thread::Builder::new().name("replicas".into()).spawn(move || {
            if let Err(error) = replicas.run(&served) {
                served.host.log(Level::Warning, &format!("Replicas can't be served any more: {error}"));
            }
        })?;
        host.http().attach(&shared);
        host.http().listen(&current, &host)?;
        let own = shared.clone();
        std::thread::Builder::new()
            .name("upstream".into())
            .stack_size(STACK)
            .spawn(move || run_upstream(&own))?;
        Ok(Server { shared, host, polls, seed: secret[3] })
    }

    /// Serves until the host is told to stop.
    pub fn run(self) -> io::Result<()> {
        let Server { shared, host, polls, seed } = self;
        shared.startup_memory.store(kara_base::alloc::used_memory(), Relaxed);
        let mut threads = Vec::new();
        for (index, poll) in polls.into_iter().enumerate() {
            let rng = Rng::new(seed.wrapping_add(index as u64));
            let (shared, host) = (shared.clone(), host.clone());
            let on_failure = host.clone();
            let name = format!("worker-{index}");
            threads.push(std::thread::Builder::new().name(name).stack_size(STACK).spawn(move || {
                kara_base::cpus::keep_to(&shared.config.load().server_cpulist);
                // It may be refused, and a worker on a busy machine waits for a tick then.
                let _ = kara_base::os::set_turns(Some(TURNS));
                // The engine's machines for scripts belong to their thread.
                let engine = Engine::new(shared, index, host.now_ms(), rng);
                let result = Worker::new(index, poll, engine, host).run();
                if result.is_err() {
                    on_failure.stop();
                }
                result
            })?);
        }
        let mut outcome = Ok(());
        for thread in threads {
            match thread.join() {
                Ok(result) => outcome = outcome.and(result),
                Err(_) => outcome = Err(io::Error::other("a worker thread panicked")),
            }
        }
        outcome
    }
}

/// `hash-seed` may be any text.
fn seed_from_text(text: &[u8]) -> HashSeed {
    let fixed = HashSeed { k0: 0x6b61_7261, k1: 0x7365_6564 };
    HashSeed { k0: fixed.hash(text), k1: HashSeed { k0: 1, k1: 2 }.hash(text) }
}

fn run_id(rng: &mut Rng) -> String {
    (0..3).map(|_| format!("{:016x}", rng.next_u64())).collect::<String>()[..40].to_string()
}
