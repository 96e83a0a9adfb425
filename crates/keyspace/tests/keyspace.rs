//! The keyspace through its locks: scans over shards, moves between keys and databases, expiry, and snapshots under
//! random writes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kara_base::hash::HashSeed;
use kara_base::ids::{DbIndex, ShardId};
use kara_base::rng::Rng;
use kara_keyspace::{Entry, ExpiryUpdate, Keyspace, KeyspaceOptions, Kind, Part, SnapshotSink, Value};
use parking_lot::Mutex;
use proptest::prelude::*;

const DB: DbIndex = DbIndex(0);
const DB1: DbIndex = DbIndex(1);

fn keyspace(shards: usize) -> Keyspace {
    Keyspace::new(KeyspaceOptions { shards, databases: 3, seed: HashSeed { k0: 5, k1: 6 } })
}

fn set(ks: &Keyspace, db: DbIndex, key: &str, value: &str, expiry: ExpiryUpdate) {
    let key = ks.key(key.as_bytes());
    ks.lock_keys(&[key.hash]).set_string(db, &key, value.as_bytes(), expiry);
}

fn get(ks: &Keyspace, db: DbIndex, key: &str) -> Option<String> {
    let key = ks.key(key.as_bytes());
    let locked = ks.lock_keys(&[key.hash]);
    let text = locked.find(db, &key)?.string()?.to_cow().into_owned();
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn scan_sees_each_key_of_every_shard_once() {
    for shards in [1, 2, 16] {
        let ks = keyspace(shards);
        for number in 0..5000 {
            set(&ks, DB, &format!("k{number}"), "v", ExpiryUpdate::Clear);
        }
        let (mut cursor, mut steps, mut seen) = (0, 0, HashMap::new());
        loop {
            cursor = ks
                .scan_step(DB, cursor, 10, |entry| *seen.entry(entry.key().to_vec()).or_insert(0) += 1)
                .unwrap();
            steps += 1;
            assert!(cursor < 1 << 63);
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(seen.len(), 5000);
        assert!(seen.values().all(|&times| times == 1));
        assert!((250..=500).contains(&steps), "{steps}");
        assert_eq!(ks.lock_all().scan(DB, 0, usize::MAX, |_| ()), 0);
        // Any number may come as a cursor.
        for cursor in [u64::MAX, 1, 1 << 63, (1 << 63) - 1, 12345] {
            ks.scan_step(DB, cursor, 10, |_| ());
        }
        assert_eq!(ks.scan_step(DbIndex(2), 0, 10, |_| panic!("an empty database")), Some(0));
    }
}

#[test]
fn set_finds_and_replaces() {
    let ks = keyspace(2);
    let key = ks.key(b"key");
    let mut locked = ks.lock_one(ks.shard_of(key.hash));
    assert!(locked.covers(&[key.hash]));
    assert!(locked.set_string(DB, &key, b"12", ExpiryUpdate::At(1000)).created);
    let outcome = locked.set_string(DB, &key, b"text", ExpiryUpdate::Keep);
    assert!(!outcome.created && outcome.replaced.is_none());
    assert_eq!(outcome.entry.expire_at_ms(), Some(1000));
    assert_eq!(locked.stats(DB).avg_ttl_ms(400), 600);
    locked.set_string(DB, &key, b"text", ExpiryUpdate::Clear);
    assert_eq!((locked.expires(DB), locked.dbsize(DB)), (0, 1));
    assert!(locked.set_expiry(DB, &key, Some(7)));
    assert_eq!(locked.stats(DB).expires_sum_ms, 7);
    let entry = locked.insert(DB, &key, Value::List(Default::default()));
    assert_eq!((entry.kind(), entry.expire_at_ms()), (Kind::List, None));
    assert_eq!(locked.expires(DB), 0);
    assert!(locked.string_mut(DB, &key).is_none());
    let outcome = locked.set_string(DB, &key, b"x", ExpiryUpdate::Clear);
    assert!(matches!(outcome.replaced, Some(Value::List(_))));
    locked.string_mut(DB, &key).unwrap().append(b"yz");
    assert_eq!(locked.find(DB, &key).unwrap().string().unwrap().to_cow().as_ref(), b"xyz");
    assert!(!locked.find_or_insert(DB, &key, || panic!("it is there")).1);
    assert!(locked.remove(DB, &key).is_some() && locked.remove(DB, &key).is_none());
    assert!(locked.find_or_insert(DB, &key, || Value::Int(5)).1);
}

#[test]
fn values_move_between_keys_shards_and_databases() {
    let ks = keyspace(8);
    for (number, expiry) in [(1, ExpiryUpdate::At(99)), (2, ExpiryUpdate::Clear)] {
        set(&ks, DB, &format!("from{number}"), "value", expiry);
    }
    set(&ks, DB, "to", "other", ExpiryUpdate::Clear);
    let (from, to) = (ks.key(b"from1"), ks.key(b"to"));
    let mut locked = ks.lock_keys(&[to.hash, from.hash]);
    assert!(locked.covers(&[from.hash, to.hash]));
    let moved = locked.rename(DB, &from, &to).unwrap();
    assert_eq!(moved.replaced.unwrap().string().unwrap().to_cow().as_ref(), b"other");
    assert_eq!(locked.find(DB, &to).unwrap().expire_at_ms(), Some(99));
    assert!(locked.find(DB, &from).is_none() && locked.rename(DB, &from, &to).is_none());
    assert!(locked.rename(DB, &to, &to).unwrap().replaced.is_none());
    assert!(locked.copy(DB, &to, DB1, &from).unwrap().replaced.is_none());
    assert!(!locked.move_to_db(DB, DB, &to));
    assert!(locked.move_to_db(DB, DB1, &to) && !locked.move_to_db(DB, DB1, &to));
    drop(locked);
    let mut all = ks.lock_all();
    assert_eq!((all.dbsize(DB), all.dbsize(DB1), all.expires(DB1)), (1, 2, 2));
    all.swapdb(DB, DB1);
    assert_eq!((all.dbsize(DB), all.dbsize(DB1)), (2, 1));
    assert_eq!(all.iter(DB).count(), 2);
    let mut rng = Rng::new(1);
    assert!(all.random_entry(DB, &mut rng).is_some() && all.random_entry(DbIndex(2), &mut rng).is_none());
    assert_eq!(all.flush(Some(DB1)).len(), 1);
    assert_eq!(all.flush(None).len(), 2);
    drop(all);
    assert_eq!(get(&ks, DB, "to"), None);
    assert_eq!(ks.stats(DB).keys, 0);
}

#[test]
#[should_panic(expected = "isn't locked")]
fn a_key_of_another_shard_is_refused() {
    let ks = keyspace(16);
    let mut keys = (0..).map(|n: u32| n.to_string());
    let other = keys.find(|key| ks.shard_of(ks.hash(key.as_bytes())) != ShardId(3)).unwrap();
    let key = ks.key(other.as_bytes());
    let locked = ks.lock_one(ShardId(3));
    assert!(!locked.covers(&[key.hash]));
    locked.find(DB, &key);
}

#[test]
fn expiry_steps_are_bounded_and_complete() {
    let ks = keyspace(2);
    for number in 0..10_000i64 {
        set(&ks, DB, &format!("k{number}"), "v", ExpiryUpdate::At(number));
    }
    let mut expired = 0;
    for shard in ks.shard_ids() {
        let mut locked = ks.lock_one(shard);
        loop {
            let step = locked.expire_step(DB, 5000, 100, |entry| {
                assert!(entry.expire_at_ms().unwrap() < 5000);
                expired += 1;
            });
            assert!(step.examined <= 1200, "{step:?}");
            if step.finished {
                break;
            }
        }
    }
    assert_eq!((expired, ks.stats(DB).keys), (5000, 5000));
}

/// A string's bytes.
fn text(entry: &Entry) -> Vec<u8> {
    entry.string().map(|text| text.to_cow().into_owned()).unwrap_or_default()
}

/// Database and key to value and expiry.
type State = BTreeMap<(u32, Vec<u8>), (Vec<u8>, Option<i64>)>;
/// Database, key, value, expiry.
type Row = (u32, Vec<u8>, Vec<u8>, Option<i64>);
type Taken = Arc<Mutex<Vec<Row>>>;
struct Sink {
    taken: Taken,
    /// The entry that comes in parts, as it was at the first, and how many have come.
    parts: Option<(Row, usize)>,
}

impl SnapshotSink for Sink {
    fn take(&mut self, db: DbIndex, entry: &Entry) -> usize {
        let value = text(entry);
        self.taken.lock().push((db.0, entry.key().to_vec(), value, entry.expire_at_ms()));
        1
    }

    fn is_large(&self, entry: &Entry) -> bool {
        text(entry).len() > 6
    }

    fn part(&mut self, db: DbIndex, entry: &Entry) -> Part {
        let now = (db.0, entry.key().to_vec(), text(entry), entry.expire_at_ms());
        let (first, seen) = self.parts.take().unwrap_or_else(|| (now.clone(), 0));
        assert_eq!(first, now, "it changed between its parts");
        let is_last = seen * 3 > first.2.len();
        if is_last {
            self.taken.lock().push(first);
        } else {
            self.parts = Some((first, seen + 1));
        }
        Part { cost: 20, is_last }
    }
}

#[derive(Clone, Debug)]
enum Write {
    Set(u32, u32, Option<i64>),
    SetMany(u32, u32),
    Append(u32, u32),
    Remove(u32, u32),
    RemoveMany(u32, u32),
    Expire(u32, u32, Option<i64>),
    Rename(u32, u32, u32),
    Move(u32, u32, u32),
    Swap(u32, u32),
    Flush(Option<u32>),
    ActiveExpiry(u32, i64),
    Walk(usize),
    /// Somebody wants to change the key and would rather wait.
    Await(u32, u32),
}

fn write() -> impl Strategy<Value = Write> {
    let (db, key) = (0..3u32, 0..600u32);
    let at = proptest::option::of(0..50i64);
    prop_oneof![
        6 => (db.clone(), key.clone(), at.clone()).prop_map(|(d, k, at)| Write::Set(d, k, at)),
        2 => (db.clone(), key.clone()).prop_map(|(d, k)| Write::SetMany(d, k)),
        4 => (db.clone(), key.clone()).prop_map(|(d, k)| Write::Append(d, k)),
        4 => (db.clone(), key.clone()).prop_map(|(d, k)| Write::Remove(d, k)),
        2 => (db.clone(), key.clone()).prop_map(|(d, k)| Write::RemoveMany(d, k)),
        3 => (db.clone(), key.clone(), at).prop_map(|(d, k, at)| Write::Expire(d, k, at)),
        3 => (db.clone(), key.clone(), key.clone()).prop_map(|(d, a, b)| Write::Rename(d, a, b)),
        3 => (db.clone(), db.clone(), key.clone()).prop_map(|(a, b, k)| Write::Move(a, b, k)),
        1 => (db.clone(), db.clone()).prop_map(|(a, b)| Write::Swap(a, b)),
        1 => proptest::option::of(db.clone()).prop_map(Write::Flush),
        1 => (db.clone(), 0..60i64).prop_map(|(d, now)| Write::ActiveExpiry(d, now)),
        12 => (1..80usize).prop_map(Write::Walk),
        3 => (db.clone(), key.clone()).prop_map(|(d, k)| Write::Await(d, k)),
    ]
}

fn apply(ks: &Keyspace, serial: usize, write: &Write) {
    let mut all = ks.lock_all();
    let key = |number: &u32| format!("key{number}").into_bytes();
    let value = format!("{serial}").repeat(serial % 40 + 1);
    match write {
        Write::Set(db, k, at) => {
            let k = key(k);
            all.set_string(DbIndex(*db), &ks.key(&k), value.as_bytes(), ExpiryUpdate::from(*at));
        }
        Write::SetMany(db, first) => {
            for number in *first..first + 400 {
                let k = key(&number);
                all.set_string(DbIndex(*db), &ks.key(&k), value.as_bytes(), ExpiryUpdate::Keep);
            }
        }
        Write::Append(db, k) => {
            if let Some(mut text) = all.string_mut(DbIndex(*db), &ks.key(&key(k))) {
                text.append(b"more");
            }
        }
        Write::Remove(db, k) => drop(all.remove(DbIndex(*db), &ks.key(&key(k)))),
        Write::RemoveMany(db, first) => {
            for number in *first..first + 400 {
                all.remove(DbIndex(*db), &ks.key(&key(&number)));
            }
        }
        Write::Expire(db, k, at) => drop(all.set_expiry(DbIndex(*db), &ks.key(&key(k)), *at)),
        Write::Rename(db, a, b) => drop(all.rename(DbIndex(*db), &ks.key(&key(a)), &ks.key(&key(b)))),
        Write::Move(a, b, k) => drop(all.move_to_db(DbIndex(*a), DbIndex(*b), &ks.key(&key(k)))),
        Write::Swap(a, b) => all.swapdb(DbIndex(*a), DbIndex(*b)),
        Write::Flush(db) => drop(all.flush(db.map(DbIndex))),
        Write::ActiveExpiry(db, now) => drop(all.expire_step(DbIndex(*db), *now, 1, drop)),
        Write::Await(db, k) => {
            if all.await_large(DbIndex(*db), &[ks.key(&key(k))]) {
                all.shards_mut().for_each(|(_, shard)| assert!(shard.snapshot_wanted(usize::MAX)));
            }
        }
        Write::Walk(budget) => all.shards_mut().for_each(|(_, shard)| {
            shard.snapshot_step(*budget);
        }),
    }
}

fn state(ks: &Keyspace) -> State {
    let all = ks.lock_all();
    let mut state = BTreeMap::new();
    for db in 0..3 {
        for entry in all.iter(DbIndex(db)) {
            let value = text(entry);
            state.insert((db, entry.key().to_vec()), (value, entry.expire_at_ms()));
        }
    }
    state
}

fn begin(ks: &Keyspace) -> Taken {
    let taken = Taken::default();
    for (_, shard) in ks.lock_all().shards_mut() {
        shard.begin_snapshot(Box::new(Sink { taken: taken.clone(), parts: None }));
    }
    taken
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// However writes and steps interleave, the sink gets the state at the begin, each key once; also for snapshots
    /// after others that were ended or given up.
    #[test]
    fn a_snapshot_is_the_state_at_its_begin(
        shards in prop_oneof![Just(1usize), Just(4)],
        rounds in proptest::collection::vec((proptest::collection::vec(write(), 0..60), any::<bool>()), 1..5),
    ) {
        let ks = keyspace(shards);
        let mut serial = 0;
        for (writes, give_up) in rounds {
            let expected = state(&ks);
            let taken = begin(&ks);
            for write in &writes {
                serial += 1;
                apply(&ks, serial, write);
            }
            if give_up {
                ks.lock_all().shards_mut().for_each(|(_, shard)| drop(shard.end_snapshot()));
                continue;
            }
            for (_, shard) in ks.lock_all().shards_mut() {
                while !shard.snapshot_step(50) {}
                prop_assert!(shard.snapshot_active());
                prop_assert!(shard.end_snapshot().is_some());
            }
            let mut got = BTreeMap::new();
            for (db, key, value, at) in taken.lock().drain(..) {
                prop_assert!(got.insert((db, key), (value, at)).is_none(), "handed over twice");
            }
            prop_assert_eq!(got, expected);
        }
    }
}

#[test]
fn many_snapshots_given_up_in_a_row() {
    let ks = keyspace(1);
    for number in 0..300 {
        set(&ks, DB, &format!("k{number}"), "v", ExpiryUpdate::Clear);
        begin(&ks);
    }
    let taken = begin(&ks);
    for (_, shard) in ks.lock_all().shards_mut() {
        while !shard.snapshot_step(50) {}
    }
    assert_eq!(taken.lock().len(), 300);
}
