//! The map against a naive model; sizes; expiry in steps.

use std::collections::HashMap;

use super::*;

const SEED: HashSeed = HashSeed { k0: 1, k1: 2 };
type Model = HashMap<Vec<u8>, (Vec<u8>, Option<i64>)>;

fn assert_same(map: &FieldTable, model: &Model) {
    let all: Model = map.iter().map(|f| (f.field.to_vec(), (f.value.to_vec(), f.expiry_ms))).collect();
    assert_eq!(&all, model);
    assert_eq!(map.len(), model.len());
    let expiries = model.values().filter_map(|v| v.1);
    assert_eq!(map.expiring(), expiries.clone().count());
    match expiries.min() {
        Some(min) => assert!(map.earliest_expiry_ms().unwrap() <= min),
        None => assert_eq!(map.earliest_expiry_ms(), None),
    }
}

#[test]
fn agrees_with_a_model() {
    for seed in 0..6 {
        let mut rng = Rng::new(seed);
        let (mut map, mut model) = (FieldTable::new(SEED), Model::new());
        let mut now = 1_000;
        for (range, steps) in [(20u64, 3_000), (5_000, 30_000), (50, 6_000)] {
            for _ in 0..steps {
                let mut field = rng.below(range).to_string().into_bytes();
                field.resize(field.len() + rng.below(2) as usize * 130, b'f');
                let value = vec![b'v'; [0, 5, 40, 252, 253, 70_000][rng.below(6).min(rng.below(6)) as usize]];
                match rng.below(10) {
                    0..=3 => {
                        let expiry = match rng.below(3) {
                            0 => SetExpiry::Clear,
                            1 => SetExpiry::Keep,
                            _ => SetExpiry::At(now + rng.below(3000) as i64),
                        };
                        let old = model.get(&field).and_then(|v| v.1);
                        let was_due = old.is_some_and(|at| at < now);
                        let at = match expiry {
                            SetExpiry::Clear => None,
                            SetExpiry::Keep => old.filter(|_| !was_due),
                            SetExpiry::At(at) => Some(at),
                        };
                        let is_new = model.insert(field.clone(), (value.clone(), at)).is_none();
                        assert_eq!(map.set(&field, &value, expiry, now), is_new || was_due);
                    }
                    4..=5 => {
                        let at = (rng.below(3) > 0).then(|| now + rng.below(3000) as i64);
                        let known = model.get_mut(&field).map(|v| v.1 = at).is_some();
                        assert_eq!(map.set_expiry(&field, at), known);
                    }
                    6..=7 => assert_eq!(map.remove(&field), model.remove(&field).is_some()),
                    8 => assert_eq!(
                        map.get(&field).map(|f| (f.value.to_vec(), f.expiry_ms)),
                        model.get(&field).cloned()
                    ),
                    _ if rng.below(20) == 0 => {
                        now += rng.below(200) as i64;
                        let limit = 1 + rng.below(300) as usize;
                        let mut gone = Vec::new();
                        let count = map.expire_due(now, limit, |f| gone.push(f.field.to_vec()));
                        assert!(count == gone.len() && count <= limit);
                        for field in &gone {
                            assert!(model.remove(field).unwrap().1.unwrap() < now);
                        }
                        if count < limit {
                            assert!(!model.values().any(|v| v.1.is_some_and(|at| at < now)));
                        }
                    }
                    _ => {}
                }
            }
            assert_same(&map, &model);
            assert_same(&map.clone(), &model);
        }
    }
}

#[test]
fn a_million_fields_of_16_and_16_bytes_take_at_most_62_each() {
    let mut map = FieldTable::new(SEED);
    for i in 0..1_000_000 {
        map.set(
            format!("field:{i:010}").as_bytes(),
            format!("value:{i:010}").as_bytes(),
            SetExpiry::Clear,
            0,
        );
    }
    assert!(map.memory_usage(5) <= 62_000_000, "{}", map.memory_usage(5));
}

#[test]
fn many_due_fields_go_in_steps() {
    let mut map = FieldTable::new(SEED);
    for i in 0..50_000i64 {
        map.set(i.to_string().as_bytes(), b"v", SetExpiry::At(1_000_000 + i), 0);
    }
    assert_eq!(map.earliest_expiry_ms(), Some(1_000_000));
    let mut gone = 0;
    loop {
        let step = map.expire_due(1_040_000, 1_000, |f| assert!(f.is_due(1_040_000)));
        gone += step;
        if step < 1_000 {
            break;
        }
    }
    assert_eq!((gone, map.len()), (40_000, 10_000));
    assert_eq!(map.expire_due(1_040_000, 10, |_| ()), 0);
    assert_eq!(map.earliest_expiry_ms(), Some(1_040_000));
    assert_eq!(map.expire_due(1 << 41, usize::MAX, |_| ()), 10_000);
    assert_eq!((map.len(), map.expiring(), map.earliest_expiry_ms()), (0, 0, None));
}
