//! The set against a naive model, across all conversions; the reference's choice of encodings.

use super::*;
use kara_base::rng::Rng;
use proptest::prelude::*;
use std::collections::{BTreeSet, HashMap};

const CONFIG: SetConfig = SetConfig {
    max_intset_entries: 512,
    max_listpack_entries: 128,
    max_listpack_value: 64,
    seed: HashSeed { k0: 5, k1: 6 },
};

fn of<'a>(members: impl IntoIterator<Item = &'a str>) -> Set {
    let members: Vec<&str> = members.into_iter().collect();
    let mut set = Set::for_members(members[0].as_bytes().into(), members.len(), &CONFIG);
    for member in members {
        set.add(member.as_bytes(), &CONFIG);
    }
    set
}

fn numbers(range: std::ops::Range<i64>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

fn strs(v: &[String]) -> impl Iterator<Item = &str> {
    v.iter().map(String::as_str)
}

#[test]
fn encodings_are_the_references() {
    let mut set = of(strs(&numbers(0..512)));
    assert_eq!(set.encoding_name(), "intset");
    set.add(&b"600"[..], &CONFIG);
    assert_eq!((set.encoding_name(), set.len()), ("hashtable", 513));
    set.remove(b"600");
    assert_eq!(set.encoding_name(), "hashtable");

    let with_string = |count: i64| {
        let mut set = of(strs(&numbers(0..count)));
        set.add(&b"x"[..], &CONFIG);
        (set.encoding_name(), set.len())
    };
    assert_eq!(with_string(2), ("listpack", 3));
    assert_eq!(with_string(127), ("listpack", 128));
    assert_eq!(with_string(128), ("hashtable", 129));

    assert_eq!(of(["y".repeat(64).as_str()]).encoding_name(), "listpack");
    assert_eq!(of(["y".repeat(65).as_str()]).encoding_name(), "hashtable");
    assert_eq!(of(["1", &"y".repeat(65)]).encoding_name(), "hashtable");
    assert_eq!(of(std::iter::repeat_n("x", 200)).encoding_name(), "hashtable");
    assert_eq!(of(std::iter::once("1").chain(std::iter::repeat_n("x", 200))).encoding_name(), "listpack");

    let mut set = of(["1"]);
    set.expect(512, &CONFIG);
    assert_eq!(set.encoding_name(), "intset");
    set.expect(513, &CONFIG);
    assert_eq!(set.encoding_name(), "hashtable");
    set.shrink_to_remainder(&CONFIG);
    assert_eq!(set.encoding_name(), "listpack");

    for (member, len, encoding) in [("5", 301, "intset"), ("x", 301, "hashtable"), ("5", 513, "hashtable")] {
        let mut result = Set::new_listpack();
        numbers(10..9 + len).iter().for_each(|n| assert!(result.add(n.as_bytes(), &CONFIG)));
        result.add(member.as_bytes(), &CONFIG);
        assert_eq!(result.encoding_name(), "hashtable");
        result.compact_integers(&CONFIG);
        assert_eq!((result.encoding_name(), result.len() as i64), (encoding, len));
        assert!(result.contains(b"10") && result.contains(member.as_bytes()));
    }

    let narrow = SetConfig { max_listpack_value: 3, ..CONFIG };
    let mut set = of(["1234", "5"]);
    set.add(&b"x"[..], &narrow);
    assert_eq!(set.encoding_name(), "hashtable");
    let few = SetConfig { max_intset_entries: 0, max_listpack_entries: 0, ..CONFIG };
    assert_eq!(Set::for_members(Element::Int(1), 1, &few).encoding_name(), "hashtable");
}

#[test]
fn agrees_with_a_model_through_all_conversions() {
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let mut set = Set::new();
        let mut model: BTreeSet<Vec<u8>> = BTreeSet::new();
        // First integers only, then short strings too, then long ones.
        for (kinds, steps) in [(1, 400 * (seed % 3)), (2, 300 * (seed % 2)), (3, 1500)] {
            for _ in 0..steps {
                let n = rng.below(900) as i64 - 200;
                let member = match rng.below(kinds) {
                    0 => n.to_string().into_bytes(),
                    1 => format!("m{n}").into_bytes(),
                    _ => format!("{n:0>70}").into_bytes(),
                };
                if rng.below(3) > 0 {
                    assert_eq!(set.add(&member[..], &CONFIG), model.insert(member));
                } else {
                    assert_eq!(set.remove(&member), model.remove(&member));
                }
                assert_eq!(set.len(), model.len());
            }
            let all: BTreeSet<Vec<u8>> = set.iter().map(|m| m.to_bytes()).collect();
            assert_eq!(all, model);
            let copy = set.clone();
            assert!(model.iter().all(|m| copy.contains(m) && copy.contains_element(Element::Str(m))));
            assert_eq!(copy.encoding_name(), set.encoding_name());
        }
    }
}

#[test]
fn samples_are_distinct_and_fair() {
    let mut rng = Rng::new(8);
    let small: Vec<String> = numbers(0..60);
    let large: Vec<String> =
        (0..600).map(|n| if n % 2 == 0 { n.to_string() } else { format!("s{n}") }).collect();
    let listpack: Vec<String> = (0..60).map(|n| format!("s{n}")).collect();
    for members in [small, large, listpack] {
        let set = of(strs(&members));
        for count in [1, members.len() / 10, members.len() / 2, members.len(), members.len() + 5] {
            let rounds = 200;
            let mut hits: HashMap<Vec<u8>, f64> = HashMap::new();
            for _ in 0..rounds {
                let mut seen = BTreeSet::new();
                set.sample(count, &mut rng, |m| {
                    assert!(seen.insert(m.to_bytes()));
                });
                assert_eq!(seen.len(), count.min(members.len()));
                seen.into_iter().for_each(|m| *hits.entry(m).or_default() += 1.0);
            }
            let expected = rounds as f64 * count.min(members.len()) as f64 / members.len() as f64;
            let chi2: f64 = members
                .iter()
                .map(|m| (hits.get(m.as_bytes()).copied().unwrap_or(0.0) - expected).powi(2) / expected)
                .sum();
            let n = members.len() as f64 - 1.0;
            assert!(chi2 < n + 6.0 * (2.0 * n).sqrt(), "{chi2} for {n}");
        }
    }
}

#[test]
fn popping_empties_a_set() {
    let mut rng = Rng::new(8);
    for members in [numbers(0..10), numbers(0..1000), vec!["a".into(), "b".into()]] {
        let mut set = of(strs(&members));
        let mut popped = BTreeSet::new();
        while let Some(member) = set.pop_random(&mut rng) {
            assert!(popped.insert(member));
        }
        assert_eq!((popped.len(), set.len()), (members.len(), 0));
    }
}

#[test]
fn a_scan_shows_what_stays() {
    let mut rng = Rng::new(2);
    let mut set = of(strs(&numbers(0..400)));
    let (mut cursor, mut seen, mut round) = (0, BTreeSet::new(), 0);
    loop {
        cursor = set.scan(cursor, 10, |m| {
            seen.insert(m.to_bytes());
        });
        if cursor == 0 {
            break;
        }
        round += 1;
        for _ in 0..200 {
            set.add(format!("new{}", rng.below(100_000)).as_bytes(), &CONFIG);
            set.add(100_000 + rng.below(100_000) as i64, &CONFIG);
        }
        if round == 1 {
            assert_eq!(set.encoding_name(), "hashtable");
        }
    }
    assert!((0..400).all(|n: i64| seen.contains(n.to_string().as_bytes())));
}

#[test]
fn a_million_integers_take_at_most_20_bytes_each() {
    let mut set = Set::new();
    for n in 0..1_000_000 {
        set.add(n * 7, &CONFIG);
    }
    assert_eq!(set.encoding_name(), "hashtable");
    assert!(set.memory_usage(0) < 11_000_000, "{}", set.memory_usage(0));
}

/// What the reference's rules say the form is, kept beside the members.
struct Rules {
    form: &'static str,
    /// An intset's bytes per member.
    width: usize,
    members: BTreeSet<Vec<u8>>,
    config: SetConfig,
}

fn int(member: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(member).ok()?;
    text.parse::<i64>().ok().filter(|value| value.to_string() == text)
}

fn width(value: i64) -> usize {
    if i64::from(value as i16) == value {
        2
    } else if i64::from(value as i32) == value {
        4
    } else {
        8
    }
}

impl Rules {
    fn longest(&self) -> usize {
        self.members.iter().map(Vec::len).max().unwrap_or(0)
    }

    fn add(&mut self, member: &[u8]) -> bool {
        if self.members.contains(member) {
            return false;
        }
        let fits = self.members.len() < self.config.max_listpack_entries
            && self.longest().max(member.len()) <= self.config.max_listpack_value;
        self.form = match (self.form, int(member)) {
            ("intset", Some(_)) if self.members.len() >= self.config.max_intset_entries => "hashtable",
            ("intset", Some(value)) => {
                self.width = self.width.max(width(value));
                "intset"
            }
            ("intset" | "listpack", _) if fits => "listpack",
            _ => "hashtable",
        };
        self.members.insert(member.to_vec())
    }

    fn expect(&mut self, count: usize) {
        let (ints, others) = (self.config.max_intset_entries, self.config.max_listpack_entries);
        if self.form == "intset" && count > ints || self.form == "listpack" && count > others {
            self.form = "hashtable";
        }
    }

    fn shrink_to_remainder(&mut self) {
        let (entries, value) = (self.config.max_listpack_entries, self.config.max_listpack_value);
        if self.form == "hashtable" && self.members.len() <= entries && self.longest() <= value {
            self.form = "listpack";
        }
    }

    fn compact_integers(&mut self) {
        let values: Option<Vec<i64>> = self.members.iter().map(|member| int(member)).collect();
        if let Some(values) = values
            && self.form != "intset"
            && values.len() <= self.config.max_intset_entries
        {
            self.form = "intset";
            self.width = values.into_iter().map(width).max().unwrap_or(2);
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Add(Vec<u8>),
    Remove(proptest::sample::Index),
    Expect(usize),
    ShrinkToRemainder,
    CompactIntegers,
    Reload,
}

fn op() -> impl Strategy<Value = Op> {
    let member = prop_oneof![
        6 => (-30i64..30).prop_map(|n| n.to_string()),
        3 => (any::<i64>(), 0u32..64).prop_map(|(n, shift)| (n >> shift).to_string()),
        1 => (15u32..63, -2i64..2, any::<bool>())
            .prop_map(|(shift, off, minus)| ((if minus { -1i64 } else { 1 } << shift) + off).to_string()),
        3 => "[a-c]{1,3}",
        1 => "0[0-9]{1,12}",
    ];
    prop_oneof![
        12 => member.prop_map(|text| Op::Add(text.into_bytes())),
        5 => any::<proptest::sample::Index>().prop_map(Op::Remove),
        1 => (0usize..24).prop_map(Op::Expect),
        1 => Just(Op::ShrinkToRemainder),
        1 => Just(Op::CompactIntegers),
        1 => Just(Op::Reload),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Through the six conversions, there and back, and every widening of an intset, in any order.
    #[test]
    fn forms_are_what_the_rules_say(
        ops in proptest::collection::vec(op(), 1..120),
        max_intset_entries in 0usize..20,
        max_listpack_entries in 0usize..16,
        max_listpack_value in 2usize..14,
        first in any::<bool>(),
    ) {
        let config =
            SetConfig { max_intset_entries, max_listpack_entries, max_listpack_value, seed: CONFIG.seed };
        let mut set = if first { Set::new() } else { Set::new_listpack() };
        let form = if first { "intset" } else { "listpack" };
        let mut rules = Rules { form, width: 2, members: BTreeSet::new(), config };
        for op in ops {
            match op {
                Op::Add(member) => prop_assert_eq!(set.add(&member[..], &config), rules.add(&member)),
                Op::Remove(at) if rules.members.is_empty() => prop_assert!(!set.remove(b"1"), "{:?}", at),
                Op::Remove(at) => {
                    let member = rules.members.iter().nth(at.index(rules.members.len())).unwrap().clone();
                    prop_assert!(set.remove(&member) && !set.remove(&member));
                    rules.members.remove(&member);
                }
                Op::Expect(count) => {
                    set.expect(count, &config);
                    rules.expect(count);
                }
                Op::ShrinkToRemainder => {
                    set.shrink_to_remainder(&config);
                    rules.shrink_to_remainder();
                }
                Op::CompactIntegers => {
                    set.compact_integers(&config);
                    rules.compact_integers();
                }
                // As a file's blobs come back, which the same limits leave as they are.
                Op::Reload => set = match set {
                    Set::Intset(ints) => Set::from_intset(ints, &config),
                    Set::Listpack(list) => Set::from_listpack(list, &config),
                    table => table,
                },
            }
            prop_assert_eq!((set.encoding_name(), set.len()), (rules.form, rules.members.len()));
            if let Set::Intset(ints) = &set {
                prop_assert_eq!(ints.width(), rules.width);
            }
            prop_assert!(rules.members.iter().all(|member| set.contains(member)));
            let all: BTreeSet<Vec<u8>> = set.iter().map(|member| member.to_bytes()).collect();
            prop_assert_eq!(&all, &rules.members);
        }
        // Smaller limits than those that it was saved under.
        let smaller = SetConfig { max_intset_entries: 3, max_listpack_entries: 2, ..config };
        let loaded = match set.clone() {
            Set::Intset(ints) => Set::from_intset(ints, &smaller),
            Set::Listpack(list) => Set::from_listpack(list, &smaller),
            table => table,
        };
        let most = match set.encoding_name() { "intset" => 3, "listpack" => 2, _ => usize::MAX };
        let grows = set.len() > most;
        prop_assert_eq!(loaded.encoding_name(), if grows { "hashtable" } else { set.encoding_name() });
        prop_assert!(rules.members.iter().all(|member| loaded.contains(member)));
    }
}
