//! Both forms against a sorted vector, and the reference's rules of conversion.

use super::*;
use kara_base::rng::Rng;
use proptest::prelude::*;

const CONFIG: ZSetConfig =
    ZSetConfig { max_listpack_entries: 128, max_listpack_value: 64, seed: HashSeed { k0: 3, k1: 4 } };

type Model = Vec<(f64, Vec<u8>)>;

fn sort(model: &mut Model) {
    model.sort_by(|a, b| score_key(a.0).cmp(&score_key(b.0)).then_with(|| a.1.cmp(&b.1)));
}

fn collect(iter: Iter<'_>) -> Model {
    let len = iter.len();
    let items: Model = iter.map(|(member, score)| (score, member.to_bytes())).collect();
    assert_eq!(items.len(), len);
    items
}

/// Numbers, texts, bytes that are no text.
fn member(rng: &mut Rng) -> Vec<u8> {
    match rng.below(4) {
        0 => rng.below(60).to_string().into_bytes(),
        1 => format!("m{}", rng.below(60)).into_bytes(),
        2 => vec![0xff, rng.below(40) as u8],
        _ => (-(rng.below(40) as i64)).to_string().into_bytes(),
    }
}

fn score(rng: &mut Rng) -> f64 {
    match rng.below(5) {
        0 => f64::INFINITY,
        1 => f64::NEG_INFINITY,
        2 => rng.below(10) as f64 / 4.0,
        3 => 1e300 * rng.unit_f64(),
        _ => rng.below(10) as f64 - 5.0,
    }
}

#[test]
fn both_forms_agree_with_a_sorted_vector() {
    for (seed, tree) in [(1, false), (2, true)] {
        let config = if tree { CONFIG } else { ZSetConfig { max_listpack_entries: 1000, ..CONFIG } };
        let mut rng = Rng::new(seed);
        let mut set = ZSet::with_hints(if tree { 2000 } else { 1 }, 1, &config);
        let mut model = Model::new();
        for _ in 0..20_000 {
            let (m, s) = (member(&mut rng), score(&mut rng));
            let at = model.iter().position(|e| e.1 == m);
            let bits = rng.below(16);
            match rng.below(8) {
                0..3 => {
                    let flags = AddFlags {
                        nx: bits & 1 != 0 && bits & 12 == 0,
                        xx: bits & 3 == 2,
                        gt: bits & 12 == 4,
                        lt: bits & 12 == 8,
                        incr: rng.below(3) == 0,
                    };
                    let want = match at {
                        None if flags.xx => Ok(Added::Refused),
                        None => {
                            model.push((s, m.clone()));
                            Ok(Added::New(s))
                        }
                        Some(_) if flags.nx => Ok(Added::Refused),
                        Some(at) => {
                            let old = model[at].0;
                            let new = if flags.incr { old + s } else { s };
                            if new.is_nan() {
                                Err(NanScore)
                            } else if flags.gt && new <= old || flags.lt && new >= old {
                                Ok(Added::Refused)
                            } else {
                                model[at].0 = new;
                                Ok(if new == old { Added::Same(new) } else { Added::Changed(new) })
                            }
                        }
                    };
                    assert_eq!(set.add(&m, s, flags, &config), want);
                    sort(&mut model);
                }
                3 => assert_eq!(set.remove(&m), at.map(|at| model.remove(at).0)),
                4 => {
                    let (start, n) = (rng.below(90) as usize, rng.below(4) as usize);
                    let mut gone = Model::new();
                    let removed = set.remove_ranks(start..start + n, |m, s| gone.push((s, m.to_vec())));
                    assert_eq!(removed, gone.len());
                    let (from, to) = (start.min(model.len()), (start + n).min(model.len()));
                    assert_eq!(gone, model.drain(from..to).collect::<Model>());
                }
                5 => {
                    let (min, max) = (s, score(&mut rng));
                    let range =
                        ScoreRange { min, max, min_exclusive: bits & 1 != 0, max_exclusive: bits & 2 != 0 };
                    let inside = |score: f64| {
                        (if range.min_exclusive { score > min } else { score >= min })
                            && (if range.max_exclusive { score < max } else { score <= max })
                    };
                    let want: Model = model.iter().filter(|e| inside(e.0)).cloned().collect();
                    let ranks = set.ranks_by_score(&range);
                    assert_eq!(ranks.len(), want.len());
                    assert_eq!(collect(set.range(ranks.clone(), false)), want);
                    let mut back = collect(set.range(ranks, true));
                    back.reverse();
                    assert_eq!(back, want);
                }
                6 => {
                    let rank = set.rank(&m, false);
                    assert_eq!(rank, at.map(|at| (at, model[at].0)));
                    assert_eq!(set.rank(&m, true).map(|r| r.0), at.map(|at| model.len() - 1 - at));
                    assert_eq!(set.score(&m), at.map(|at| model[at].0));
                    assert_eq!(set.random(&mut rng).is_some(), !model.is_empty());
                }
                _ => {
                    let start = rng.below(100) as usize;
                    let got = set.get(start).map(|(member, score)| (score, member.to_bytes()));
                    assert_eq!(got, model.get(start).cloned());
                    let mut seen = Model::new();
                    let mut cursor = 0;
                    loop {
                        cursor = set.scan(cursor, 5, |m, s| seen.push((s, m.to_vec())));
                        if cursor == 0 {
                            break;
                        }
                    }
                    sort(&mut seen);
                    assert_eq!(seen, model);
                }
            }
            assert_eq!(set.len(), model.len());
            assert_eq!(set.is_empty(), model.is_empty());
        }
        assert_eq!(set.encoding_name(), if tree { "skiplist" } else { "listpack" });
        assert_eq!(collect(set.iter()), model);
        assert_eq!(collect(set.clone().iter()), model);
    }
}

#[test]
fn lex_ranges() {
    for hint in [1, 1000] {
        let mut set = ZSet::with_hints(hint, 1, &CONFIG);
        for m in [&b""[..], b"1", b"10", b"a", b"ab", b"b", b"\xff"] {
            set.add(m, 0.0, AddFlags::default(), &CONFIG).unwrap();
        }
        use LexBound::*;
        for (min, max, want) in [
            (Lowest, Highest, 0..7),
            (Highest, Lowest, 7..7),
            (Inclusive(b"1"), Inclusive(b"a"), 1..4),
            (Exclusive(b"1"), Exclusive(b"a"), 2..3),
            (Inclusive(b"aa"), Highest, 4..7),
            (Lowest, Exclusive(b""), 0..0),
            (Inclusive(b"b"), Inclusive(b"a"), 5..5),
        ] {
            assert_eq!(set.ranks_by_lex(&LexRange { min, max }), want);
        }
    }
}

#[test]
fn forms_change_where_the_reference_changes_them() {
    let add = |set: &mut ZSet, i: usize, member: &[u8]| {
        set.add(member, i as f64, AddFlags::default(), &CONFIG).unwrap();
    };
    let mut set = ZSet::with_hints(1, 1, &CONFIG);
    (0..128).for_each(|i| add(&mut set, i, i.to_string().as_bytes()));
    assert_eq!(set.encoding_name(), "listpack");
    add(&mut set, 500, b"5");
    assert_eq!(set.encoding_name(), "listpack");
    add(&mut set, 128, b"128");
    assert_eq!((set.encoding_name(), set.len()), ("skiplist", 129));
    set.remove(b"128");
    assert_eq!(set.encoding_name(), "skiplist");
    let before = collect(set.iter());
    set.compact(&CONFIG);
    assert_eq!(set.encoding_name(), "listpack");
    assert_eq!(collect(set.iter()), before);

    let mut set = ZSet::with_hints(1, 64, &CONFIG);
    add(&mut set, 1, &[b'x'; 64]);
    assert_eq!(set.encoding_name(), "listpack");
    add(&mut set, 1, &[b'x'; 65]);
    assert_eq!(set.encoding_name(), "skiplist");
    set.compact(&CONFIG);
    assert_eq!(set.encoding_name(), "skiplist");
    set.remove(&[b'x'; 65]);

    let mut set = ZSet::with_hints(1, 1, &CONFIG);
    set.expect(129, 1, &CONFIG);
    assert_eq!(set.encoding_name(), "skiplist");
    assert_eq!(ZSet::with_hints(129, 1, &CONFIG).encoding_name(), "skiplist");
    assert_eq!(ZSet::with_hints(1, 65, &CONFIG).encoding_name(), "skiplist");
}

#[test]
fn scores_in_listpacks() {
    let mut set = ZSet::with_hints(1, 1, &CONFIG);
    for (m, s) in [("a", 1.0), ("b", 1.5), ("c", f64::INFINITY), ("d", -0.0), ("e", 1e20)] {
        set.add(m.as_bytes(), s, AddFlags::default(), &CONFIG).unwrap();
    }
    let list = set.as_listpack().unwrap();
    let want: Vec<Element<'_>> = vec![
        Element::Str(b"d"),
        Element::Int(0),
        Element::Str(b"a"),
        Element::Int(1),
        Element::Str(b"b"),
        Element::Str(b"1.5"),
        Element::Str(b"e"),
        Element::Str(b"1e+20"),
        Element::Str(b"c"),
        Element::Str(b"inf"),
    ];
    assert_eq!(list.iter().collect::<Vec<_>>(), want);
}

#[test]
fn listpacks_from_outside() {
    let list =
        |elements: &[&str]| elements.iter().map(|text| Element::Str(text.as_bytes())).collect::<Listpack>();
    let good = ZSet::from_listpack(list(&["a", "1", "b", "1", "c", "1.5"]), &CONFIG).unwrap();
    assert_eq!((good.len(), good.score(b"c")), (3, Some(1.5)));
    for bad in [
        &["a"][..],
        &["a", "x"],
        &["a", "nan"],
        &["a", "2", "b", "1"],
        &["a", "1", "a", "2"],
        &["b", "1", "a", "1"],
    ] {
        assert!(ZSet::from_listpack(list(bad), &CONFIG).is_err(), "{bad:?}");
    }
    let long: Vec<String> = (0..129).flat_map(|i| [format!("m{i}"), i.to_string()]).collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    assert_eq!(ZSet::from_listpack(list(&long), &CONFIG).unwrap().encoding_name(), "skiplist");
}

#[derive(Clone, Debug)]
enum Op {
    Add(Vec<u8>, f64),
    Remove(Vec<u8>),
    RemoveRanks(usize, usize),
    Expect(usize, usize),
    Compact,
    Rebuild,
}

fn op() -> impl Strategy<Value = Op> {
    let member = || {
        prop_oneof![
            4 => "[a-d]{1,2}".prop_map(String::into_bytes),
            // Listpacks keep these as integers of every width.
            4 => (any::<i64>(), 50u32..64).prop_map(|(n, s)| (n >> s).to_string().into_bytes()),
            1 => (any::<i64>(), 0u32..50).prop_map(|(n, s)| (n >> s).to_string().into_bytes()),
            1 => proptest::collection::vec(any::<u8>(), 0..12),
        ]
    };
    let score = prop_oneof![
        4 => (-8i64..8).prop_map(|n| n as f64),
        3 => (any::<i64>(), 0u32..64).prop_map(|(n, s)| (n >> s) as f64),
        2 => any::<f64>().prop_filter("a number", |score| !score.is_nan()),
        1 => prop_oneof![Just(0.0), Just(-0.0), Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(0.1)],
    ];
    prop_oneof![
        10 => (member(), score).prop_map(|(member, score)| Op::Add(member, score)),
        4 => member().prop_map(Op::Remove),
        1 => (0usize..12, 0usize..8).prop_map(|(from, count)| Op::RemoveRanks(from, count)),
        1 => (0usize..20, 0usize..14).prop_map(|(count, len)| Op::Expect(count, len)),
        1 => Just(Op::Compact),
        1 => Just(Op::Rebuild),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Listpack to tree by number, by length and by announcement, and back, in any order.
    #[test]
    fn forms_are_what_the_rules_say(
        ops in proptest::collection::vec(op(), 1..120),
        max_listpack_entries in 0usize..16,
        max_listpack_value in 2usize..14,
    ) {
        let config = ZSetConfig { max_listpack_entries, max_listpack_value, ..CONFIG };
        let too_large = |model: &Model| {
            model.len() > max_listpack_entries || model.iter().any(|(_, m)| m.len() > max_listpack_value)
        };
        let mut set = ZSet::with_hints(0, 0, &config);
        let (mut model, mut tree) = (Model::new(), false);
        for op in ops {
            match op {
                Op::Add(member, score) => {
                    let added = set.add(&member, score, AddFlags::default(), &config).unwrap();
                    match model.iter_mut().find(|item| item.1 == member) {
                        Some(item) if item.0 == score => prop_assert_eq!(added, Added::Same(item.0)),
                        Some(item) => {
                            prop_assert_eq!(added, Added::Changed(score));
                            item.0 = score;
                        }
                        None => {
                            prop_assert_eq!(added, Added::New(score));
                            tree |= model.len() >= max_listpack_entries || member.len() > max_listpack_value;
                            model.push((score, member));
                        }
                    }
                    sort(&mut model);
                }
                Op::Remove(member) => {
                    let at = model.iter().position(|item| item.1 == member);
                    prop_assert_eq!(set.remove(&member), at.map(|at| model.remove(at).0));
                }
                Op::RemoveRanks(from, count) => {
                    let (start, end) = (from.min(model.len()), (from + count).min(model.len()));
                    let mut gone = Model::new();
                    set.remove_ranks(from..from + count, |m, s| gone.push((s, m.to_vec())));
                    prop_assert_eq!(gone, model.drain(start..end).collect::<Model>());
                }
                Op::Expect(count, len) => {
                    set.expect(count, len, &config);
                    tree |= count > max_listpack_entries || len > max_listpack_value;
                }
                Op::Compact => {
                    set.compact(&config);
                    tree &= too_large(&model);
                }
                Op::Rebuild => {
                    let mut items = model.clone();
                    items.reverse();
                    set = ZSet::from_items(items, &config);
                    tree = too_large(&model);
                }
            }
            prop_assert_eq!(set.encoding_name(), if tree { "skiplist" } else { "listpack" });
            prop_assert_eq!(set.len(), model.len());
            prop_assert_eq!(collect(set.iter()), model.clone());
            for (rank, (score, member)) in model.iter().enumerate() {
                prop_assert_eq!(set.rank(member, false), Some((rank, *score)));
            }
        }
        // As a file's blob comes back, under the same limits and under smaller ones.
        if let Some(list) = set.as_listpack() {
            for max_listpack_entries in [max_listpack_entries, 2] {
                let config = ZSetConfig { max_listpack_entries, ..config };
                let loaded = ZSet::from_listpack(list.clone(), &config).unwrap();
                let form = if model.len() > max_listpack_entries { "skiplist" } else { "listpack" };
                prop_assert_eq!(loaded.encoding_name(), form);
                prop_assert_eq!(collect(loaded.iter()), model.clone());
            }
        }
    }
}
