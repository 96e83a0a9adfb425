//! The waiting lists under thousands of thread schedules (shuttle): the very code of `src/blocking/lists.rs`, with a small
//! model of shards, commands and workers around it. No wake-up is lost, nobody is served twice, nothing deadlocks, and
//! whoever serves has locked what it needs.
//!
//! Two faults can be planted; the schedules find both.
#![forbid(unsafe_code)]

#[path = "../src/blocking/lists.rs"]
mod lists;

mod sync {
    pub use shuttle::sync::atomic::{AtomicU64, AtomicUsize};
    pub use shuttle::sync::{Arc, Mutex, MutexGuard};

    pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().expect("nobody panics with a lock")
    }
}

use kara_base::ids::DbIndex;
use kara_keyspace::Kind;
use lists::{Interest, Place, WaitingLists};
use shuttle::scheduler::RandomScheduler;
use shuttle::{Config, Runner};
use std::collections::VecDeque;
use sync::{Arc, Mutex, MutexGuard, lock};

const SHARDS: usize = 2;
const DB: DbIndex = DbIndex(0);

/// Lists by number; even ones are in the first shard.
type Shard = [VecDeque<u32>; 2];

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// The client enters the lists after its command has released its locks.
    EntersLate,
    /// Whoever makes a key ready doesn't look for waiters who need more shards.
    Narrow,
}

struct Want {
    client: usize,
    keys: Vec<usize>,
    /// BLMOVE's second key.
    to: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Served(u32),
    TimedOut,
}

struct World {
    fault: Fault,
    shards: [Mutex<Shard>; SHARDS],
    waiting: WaitingLists<Want>,
    ends: Mutex<Vec<(usize, End)>>,
}

/// The shards that a command has locked.
struct Held<'a>([Option<MutexGuard<'a, Shard>>; SHARDS]);

impl Held<'_> {
    fn list(&mut self, key: usize) -> &mut VecDeque<u32> {
        &mut self.0[key % SHARDS].as_mut().expect("a locked shard")[key / SHARDS]
    }
}

fn place(key: usize) -> Place {
    Place { shard: key % SHARDS, hash: key as u64, db: DB, key: vec![key as u8] }
}

impl World {
    fn new(fault: Fault) -> Arc<World> {
        Arc::new(World {
            fault,
            shards: std::array::from_fn(|_| Mutex::new(Shard::default())),
            waiting: WaitingLists::new(SHARDS),
            ends: Mutex::new(Vec::new()),
        })
    }

    /// As the pipeline locks: the keys' shards in ascending order, or all where a waiter for one of them needs it.
    fn lock(&self, keys: &[usize]) -> Held<'_> {
        let wanted = |shard: usize| keys.iter().any(|key| key % SHARDS == shard);
        let held = Held(std::array::from_fn(|shard| wanted(shard).then(|| lock(&self.shards[shard]))));
        let places = keys.iter().map(|key| (key % SHARDS, *key as u64));
        if self.fault == Fault::Narrow || !self.waiting.needs_all_shards(places) {
            return held;
        }
        drop(held);
        Held(std::array::from_fn(|shard| Some(lock(&self.shards[shard]))))
    }

    fn push(&self, key: usize, value: u32) {
        let mut held = self.lock(&[key]);
        held.list(key).push_back(value);
        if self.waiting.keys() > 0 {
            self.serve(&mut held, key);
        }
    }

    fn serve(&self, held: &mut Held<'_>, key: usize) {
        let mut ready = VecDeque::from([key]);
        while let Some(key) = ready.pop_front() {
            let mut last = 0;
            loop {
                let kind = (!held.list(key).is_empty()).then_some(Kind::List);
                let Some(waiter) = self.waiting.next(key % SHARDS, DB, &[key as u8], last, kind) else {
                    break;
                };
                last = waiter.ticket;
                let Some(claim) = waiter.claim() else { continue };
                if let Some(value) = attempt(held, &waiter.what, &mut ready) {
                    claim.end();
                    self.waiting.leave(&waiter);
                    lock(&self.ends).push((waiter.what.client, End::Served(value)));
                }
            }
        }
    }

    /// BLPOP or (with `to`) BLMOVE.
    fn take(&self, client: usize, keys: &[usize], to: Option<usize>) -> Option<Arc<lists::Waiter<Want>>> {
        let all: Vec<usize> = keys.iter().copied().chain(to).collect();
        let want = Want { client, keys: keys.to_vec(), to };
        let mut held = self.lock(&all);
        let mut ready = VecDeque::new();
        if let Some(value) = attempt(&mut held, &want, &mut ready) {
            lock(&self.ends).push((client, End::Served(value)));
            ready.into_iter().for_each(|key| self.serve(&mut held, key));
            return None;
        }
        if self.fault == Fault::EntersLate {
            drop(held);
        }
        let wide = to.is_some() || keys.iter().any(|key| key % SHARDS != keys[0] % SHARDS);
        let places = keys.iter().map(|key| place(*key)).collect();
        let interest = Interest { kind: Kind::List, on_nokey: client.is_multiple_of(2) };
        Some(self.waiting.enter(places, interest, wide, want))
    }

    /// The client's time is over, or it goes.
    fn time_out(&self, waiter: &lists::Waiter<Want>) {
        if let Some(claim) = waiter.claim() {
            claim.end();
            self.waiting.leave(waiter);
            lock(&self.ends).push((waiter.what.client, End::TimedOut));
        }
    }

    /// Everybody is done: nothing is lost, and nobody waits for what is there.
    fn check(&self, clients: usize, pushed: usize) {
        let ends = lock(&self.ends);
        let of = |client| ends.iter().filter(move |(who, _)| *who == client).count();
        let waiting = self.waiting.awaited(None);
        let mut still = 0;
        for (_, key) in &waiting {
            let key = usize::from(key[0]);
            let list = &lock(&self.shards[key % SHARDS])[key / SHARDS];
            assert!(list.is_empty(), "a wake-up was lost");
            still += 1;
        }
        assert!((0..clients).all(|client| of(client) <= 1), "served twice");
        assert_eq!(still, self.waiting.keys());
        if ends.len() == clients {
            assert_eq!((still, self.waiting.keys_on_nokey()), (0, 0));
        }
        // A moved value is seen again where it went.
        let mut values: Vec<u32> = self.shards.iter().flat_map(|s| lock(s).concat()).collect();
        values.extend(ends.iter().filter_map(|(_, end)| match end {
            End::Served(value) => Some(*value),
            End::TimedOut => None,
        }));
        values.sort_unstable();
        values.dedup();
        assert_eq!(values.len(), pushed, "a value was lost");
    }
}

trait Concat {
    fn concat(&self) -> Vec<u32>;
}

impl Concat for Shard {
    fn concat(&self) -> Vec<u32> {
        self.iter().flatten().copied().collect()
    }
}

fn attempt(held: &mut Held<'_>, want: &Want, ready: &mut VecDeque<usize>) -> Option<u32> {
    for key in &want.keys {
        if let Some(value) = held.list(*key).pop_front() {
            if let Some(to) = want.to {
                held.list(to).push_back(value);
                ready.push_back(to);
            }
            return Some(value);
        }
    }
    None
}

/// Two pushers, a client with two keys, a mover, one that waits for where it moves to, and one whose time ends.
fn play(fault: Fault) {
    let world = World::new(fault);
    let mut threads = Vec::new();
    let mut spawn = |run: Box<dyn FnOnce(&World) + Send>| {
        let world = world.clone();
        threads.push(shuttle::thread::spawn(move || run(&world)));
    };
    spawn(Box::new(|world| {
        world.push(0, 1);
        world.push(1, 2);
    }));
    spawn(Box::new(|world| world.push(2, 3)));
    spawn(Box::new(|world| drop(world.take(0, &[0, 1], None))));
    spawn(Box::new(|world| drop(world.take(1, &[0], Some(3)))));
    spawn(Box::new(|world| drop(world.take(2, &[3, 2], None))));
    spawn(Box::new(|world| {
        if let Some(waiter) = world.take(3, &[1], None) {
            world.time_out(&waiter);
        }
    }));
    threads.into_iter().for_each(|thread| thread.join().expect("a thread that ends"));
    world.check(4, 3);
}

/// The same 5,000 schedules in every run: a fault shows in several ways, and the test names the one that comes first.
fn check(fault: Fault) {
    let scheduler = RandomScheduler::new_from_seed(SEED, 5_000);
    Runner::new(scheduler, Config::default()).run(move || play(fault));
}

const SEED: u64 = 1;

#[test]
fn no_schedule_loses_a_wake_up_or_deadlocks() {
    check(Fault::None);
    shuttle::check_pct(|| play(Fault::None), 2_000, 3);
}

#[test]
#[should_panic(expected = "a wake-up was lost")]
fn entering_after_the_locks_are_gone_is_found() {
    check(Fault::EntersLate);
}

#[test]
#[should_panic(expected = "a locked shard")]
fn serving_without_the_second_shard_is_found() {
    check(Fault::Narrow);
}
