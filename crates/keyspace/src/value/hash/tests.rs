//! The hash against a naive model, with time passing; the reference's choice of encodings.

use super::*;
use kara_base::rng::Rng;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const CONFIG: HashConfig =
    HashConfig { max_listpack_entries: 512, max_listpack_value: 64, seed: HashSeed { k0: 5, k1: 6 } };

type Model = BTreeMap<Vec<u8>, (Vec<u8>, Option<i64>)>;

fn living(model: &Model, now: i64) -> Model {
    model
        .iter()
        .filter(|(_, v)| v.1.is_none_or(|at| at >= now))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

fn shown<'a>(pairs: impl Iterator<Item = Pair<'a>>, now: i64) -> Model {
    pairs
        .filter(|p| !p.is_due(now))
        .map(|p| (p.field.to_bytes(), (p.value.to_bytes(), p.expiry_ms)))
        .collect()
}

#[test]
fn encodings_are_the_references() {
    let mut hash = Hash::new();
    for n in 0..512 {
        hash.set(n.to_string().as_bytes(), b"v", SetExpiry::Clear, 0, &CONFIG);
    }
    assert_eq!((hash.encoding_name(), hash.len()), ("listpack", 512));
    hash.set(b"x", b"v", SetExpiry::Clear, 0, &CONFIG);
    assert_eq!((hash.encoding_name(), hash.len()), ("hashtable", 513));

    let long = [b'y'; 65];
    for (field, value) in [(&long[..], &b"v"[..]), (b"f", &long), (&long[..64], &long[..64])] {
        let mut hash = Hash::new();
        hash.set(field, value, SetExpiry::Clear, 0, &CONFIG);
        let expected = if field.len().max(value.len()) > 64 { "hashtable" } else { "listpack" };
        assert_eq!(hash.encoding_name(), expected);
    }

    let mut hash = Hash::new();
    hash.expect(std::iter::repeat_n((&b"f"[..], &b"v"[..]), 512), &CONFIG);
    assert_eq!(hash.encoding_name(), "listpack");
    hash.set(b"f", b"v", SetExpiry::Keep, 0, &CONFIG);
    assert!(!hash.set_expiry(b"none", Some(5), 0, &CONFIG) && hash.set_expiry(b"f", None, 0, &CONFIG));
    assert_eq!(hash.encoding_name(), "listpack");
    assert!(hash.set_expiry(b"f", Some(5), 0, &CONFIG) && hash.set_expiry(b"f", None, 0, &CONFIG));
    assert_eq!((hash.encoding_name(), hash.expiring()), ("hashtable", 0));
    let mut hash = Hash::new();
    hash.expect(std::iter::repeat_n((&b"f"[..], &b"v"[..]), 513), &CONFIG);
    assert_eq!(hash.encoding_name(), "hashtable");
}

#[test]
fn agrees_with_a_model_while_time_passes() {
    for seed in 0..9 {
        let mut rng = Rng::new(seed);
        let (mut hash, mut model, mut now) = (Hash::new(), Model::new(), 1_000_000);
        let with_expiries = seed % 3 > 0;
        for step in 0..4000u64 {
            let field = format!("f{}", rng.below(if seed % 2 == 0 { 700 } else { 40 })).into_bytes();
            let value = if rng.below(200) == 0 && step > 2000 {
                vec![b'v'; 100]
            } else {
                step.to_string().into_bytes()
            };
            let alive = living(&model, now);
            let at = now + rng.below(2000) as i64 + 1;
            match rng.below(8) {
                0..=2 => {
                    let expiry = match rng.below(if with_expiries { 3 } else { 2 }) {
                        0 => SetExpiry::Clear,
                        1 => SetExpiry::Keep,
                        _ => SetExpiry::At(at),
                    };
                    let new = match expiry {
                        SetExpiry::Clear => None,
                        SetExpiry::Keep => alive.get(&field).and_then(|v| v.1),
                        SetExpiry::At(at) => Some(at),
                    };
                    assert_eq!(hash.set(&field, &value, expiry, now, &CONFIG), !alive.contains_key(&field));
                    model.insert(field, (value, new));
                }
                3 if with_expiries => {
                    let new = (rng.below(2) == 0).then_some(at);
                    assert_eq!(hash.set_expiry(&field, new, now, &CONFIG), alive.contains_key(&field));
                    if alive.contains_key(&field) {
                        model.entry(field).and_modify(|v| v.1 = new);
                    }
                }
                4 => {
                    assert_eq!(hash.remove(&field, now), alive.contains_key(&field));
                    if alive.contains_key(&field) {
                        model.remove(&field);
                    }
                }
                5 => now += rng.below(20) as i64,
                6 if rng.below(10) == 0 => {
                    let mut gone = BTreeSet::new();
                    let limit = 1 + rng.below(200) as usize;
                    let count = hash.expire_due(now, limit, |f| assert!(gone.insert(f.to_vec())));
                    assert_eq!(count, gone.len());
                    gone.iter().for_each(|f| assert!(model.remove(f).unwrap().1.unwrap() < now));
                    if count < limit {
                        assert_eq!(living(&model, now).len(), model.len());
                    }
                }
                _ => {
                    let got = hash.get(&field, now).map(|p| (p.value.to_bytes(), p.expiry_ms));
                    assert_eq!(got.as_ref(), alive.get(&field));
                    if let Some(pick) = hash.random(now, &mut rng) {
                        assert!(alive.contains_key(&pick.field.to_bytes()));
                    } else {
                        assert!(alive.is_empty());
                    }
                }
            }
            assert_eq!(hash.len(), model.len());
        }
        let alive = living(&model, now);
        assert_eq!(shown(hash.iter(), now), alive);
        assert_eq!(shown(hash.clone().iter(), i64::MIN), model);
        let copy = hash.clone_living(now, &CONFIG);
        assert_eq!(
            (shown(copy.iter(), i64::MIN), copy.encoding_name()),
            (alive.clone(), hash.encoding_name())
        );
        let (mut seen, mut cursor) = (Model::new(), 0);
        loop {
            cursor = hash.scan(cursor, 3, now, |p| {
                let old = seen.insert(p.field.to_bytes(), (p.value.to_bytes(), p.expiry_ms));
                assert_eq!(old, None);
            });
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(seen, alive);
        for count in [1, alive.len() / 10, alive.len() / 2, alive.len() + 3] {
            let mut picked = BTreeSet::new();
            hash.sample(count, now, &mut rng, |p| assert!(picked.insert(p.field.to_bytes())));
            assert_eq!(picked.len(), count.min(alive.len()));
            assert!(picked.iter().all(|f| alive.contains_key(f)));
        }
    }
}

#[test]
fn ten_small_fields_are_one_small_block() {
    let mut hash = Hash::new();
    for n in 0..10 {
        hash.set(
            format!("field:{n}").as_bytes(),
            format!("value:{n}").as_bytes(),
            SetExpiry::Clear,
            0,
            &CONFIG,
        );
    }
    // Of 268 bytes for the whole key.
    assert!(hash.memory_usage(0) <= 224, "{}", hash.memory_usage(0));
}

#[derive(Clone, Debug)]
enum Op {
    Set(Vec<u8>, Vec<u8>, Option<i64>),
    SetExpiry(Vec<u8>, Option<i64>),
    Remove(Vec<u8>),
    Expect(usize, usize),
    Reload,
}

fn op() -> impl Strategy<Value = Op> {
    let field = || {
        prop_oneof![
            4 => "[a-d]{1,2}".prop_map(String::into_bytes),
            2 => (any::<i64>(), 0u32..64).prop_map(|(n, s)| (n >> s).to_string().into_bytes()),
        ]
    };
    let value = prop_oneof![
        2 => (any::<i64>(), 0u32..64).prop_map(|(n, s)| (n >> s).to_string().into_bytes()),
        2 => proptest::collection::vec(any::<u8>(), 0..9),
        1 => (0usize..14).prop_map(|len| vec![b'v'; len]),
    ];
    let expiry = prop_oneof![20 => Just(None), 1 => (1i64..9).prop_map(Some)];
    prop_oneof![
        10 => (field(), value, expiry.clone()).prop_map(|(field, value, at)| Op::Set(field, value, at)),
        2 => (field(), expiry).prop_map(|(field, at)| Op::SetExpiry(field, at)),
        5 => field().prop_map(Op::Remove),
        1 => (0usize..14, 0usize..14).prop_map(|(count, len)| Op::Expect(count, len)),
        1 => Just(Op::Reload),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Listpack to table by number, by length of a field or value, by announcement and by an expiry.
    #[test]
    fn forms_are_what_the_rules_say(
        ops in proptest::collection::vec(op(), 1..120),
        max_listpack_entries in 0usize..16,
        max_listpack_value in 2usize..14,
    ) {
        let config = HashConfig { max_listpack_entries, max_listpack_value, ..CONFIG };
        let mut hash = Hash::new();
        let (mut model, mut table) = (Model::new(), false);
        for op in ops {
            match op {
                Op::Set(field, value, at) => {
                    let is_new = !model.contains_key(&field);
                    let expiry = at.map_or(SetExpiry::Clear, SetExpiry::At);
                    table |= at.is_some() || field.len().max(value.len()) > max_listpack_value;
                    table |= is_new && model.len() >= max_listpack_entries;
                    prop_assert_eq!(hash.set(&field, &value, expiry, 0, &config), is_new);
                    model.insert(field, (value, at));
                }
                Op::SetExpiry(field, at) => {
                    let known = model.get_mut(&field);
                    prop_assert_eq!(hash.set_expiry(&field, at, 0, &config), known.is_some());
                    if let Some(known) = known {
                        table |= at.is_some();
                        known.1 = at;
                    }
                }
                Op::Remove(field) => prop_assert_eq!(hash.remove(&field, 0), model.remove(&field).is_some()),
                Op::Expect(count, len) => {
                    let long = vec![b'f'; len];
                    hash.expect(std::iter::repeat_n((&long[..], &b"v"[..]), count), &config);
                    table |= count > max_listpack_entries || count > 0 && len > max_listpack_value;
                }
                // As a file's blob comes back, which the same limits leave as it is.
                Op::Reload => {
                    if let Form::Small(pairs) = hash.form() {
                        hash = Hash::from_listpack(pairs.clone(), &config);
                    }
                }
            }
            prop_assert_eq!(hash.encoding_name(), if table { "hashtable" } else { "listpack" });
            prop_assert_eq!(shown(hash.iter(), 0), model.clone());
            prop_assert_eq!(hash.len(), model.len());
            prop_assert_eq!(hash.expiring(), model.values().filter(|v| v.1.is_some()).count());
        }
        if let Form::Small(pairs) = hash.form() {
            let smaller = HashConfig { max_listpack_entries: 2, ..config };
            let loaded = Hash::from_listpack(pairs.clone(), &smaller);
            prop_assert_eq!(loaded.encoding_name(), if model.len() > 2 { "hashtable" } else { "listpack" });
            prop_assert_eq!(shown(loaded.iter(), 0), model);
        }
    }
}
