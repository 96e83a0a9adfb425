use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::VecDeque;

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => (0u8..6).prop_map(|n| vec![b'a' + n]),
        4 => (-3i64..200).prop_map(|n| n.to_string().into_bytes()),
        3 => (any::<u8>(), 0usize..300).prop_map(|(b, n)| vec![b; n]),
        1 => (any::<u8>(), 3000usize..4200).prop_map(|(b, n)| vec![b; n]),
    ]
}

#[derive(Clone, Debug)]
enum Op {
    Push(bool, Vec<Vec<u8>>),
    Pop(bool, usize),
    Set(usize, Vec<u8>),
    Insert(Vec<u8>, Vec<u8>, bool),
    Trim(usize, usize),
    Remove(Vec<u8>, usize, bool),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (any::<bool>(), vec(text(), 1..5)).prop_map(|(front, t)| Op::Push(front, t)),
        3 => (any::<bool>(), 0usize..6).prop_map(|(front, n)| Op::Pop(front, n)),
        2 => (any::<usize>(), text()).prop_map(|(i, t)| Op::Set(i, t)),
        3 => (text(), text(), any::<bool>()).prop_map(|(p, t, a)| Op::Insert(p, t, a)),
        1 => (0usize..3, 0usize..30).prop_map(|(i, n)| Op::Trim(i, n)),
        2 => (text(), 1usize..4, any::<bool>()).prop_map(|(t, n, back)| Op::Remove(t, n, back)),
    ]
}

fn collect(mut walk: Walk<'_>) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(element) = walk.next() {
        all.push(element.to_bytes());
    }
    all
}

fn apply(list: &mut List, model: &mut VecDeque<Vec<u8>>, op: Op, limits: &ListLimits) {
    let len = model.len();
    let end = |front| if front { End::Front } else { End::Back };
    match op {
        Op::Push(front, texts) => {
            list.push_all(end(front), texts.iter().map(Vec::as_slice), limits);
            for text in texts {
                if front { model.push_front(text) } else { model.push_back(text) }
            }
        }
        Op::Pop(front, 1) => {
            let expected = if front { model.pop_front() } else { model.pop_back() };
            assert_eq!(list.pop(end(front), limits), expected);
        }
        Op::Pop(front, n) => {
            let n = n.min(len);
            let expected: Vec<_> =
                if front { model.drain(..n).collect() } else { model.drain(len - n..).rev().collect() };
            let mut popped = Vec::new();
            assert_eq!(list.pop_many(end(front), n, limits, |e| popped.push(e.to_bytes())), n);
            assert_eq!(popped, expected);
        }
        Op::Set(i, text) => {
            let i = i % (len + 1);
            assert_eq!(list.set(i, &text, limits), i < len);
            if i < len {
                model[i] = text;
            }
        }
        Op::Insert(pivot, text, after) => {
            let place = model.iter().position(|element| *element == pivot);
            assert_eq!(list.insert(&pivot, &text, after, limits), place.is_some());
            if let Some(place) = place {
                model.insert(place + usize::from(after), text);
            }
        }
        Op::Trim(start, count) => {
            let kept: VecDeque<_> = model.drain(..).skip(start).take(count).collect();
            *model = kept;
            assert_eq!(list.trim(start, count, limits), len - model.len());
        }
        Op::Remove(text, n, back) => {
            let places = model.iter().enumerate().filter(|(_, e)| **e == text).map(|(i, _)| i);
            let mut places: Vec<_> =
                if back { places.rev().take(n).collect() } else { places.take(n).collect() };
            places.sort_unstable();
            for place in places.iter().rev() {
                model.remove(*place);
            }
            assert_eq!(list.remove_equal(&text, n, end(!back), limits), places.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn behaves_like_a_deque(
        ops in vec(op(), 1..80),
        max_listpack_size in prop_oneof![Just(-1), Just(-2), Just(0), Just(1), Just(3), Just(20)],
        compress_depth in 0u32..3,
    ) {
        let limits = ListLimits { max_listpack_size, compress_depth, packed_threshold: 0 };
        let mut list = List::new();
        let mut model = VecDeque::new();
        for op in ops {
            apply(&mut list, &mut model, op, &limits);
            prop_assert_eq!(list.len(), model.len());
            prop_assert!(collect(list.iter()).iter().eq(&model));
            prop_assert!(collect(list.iter_rev()).iter().eq(model.iter().rev()));
        }
        for (i, text) in model.iter().enumerate() {
            prop_assert_eq!(list.with(i, |e| e.eq_bytes(text)), Some(true));
            prop_assert_eq!(list.place(i as i64 - model.len() as i64), Some(i));
            let first = model.iter().position(|other| other == text);
            prop_assert_eq!(list.position(text, 0, End::Back), first);
            let last = model.iter().rposition(|other| other == text);
            prop_assert_eq!(list.position(text, model.len() - 1, End::Front), last);
        }
        prop_assert_eq!(list.place(model.len() as i64), None);
        prop_assert_eq!(list.place(i64::MIN), None);

        let mut loaded = List::new();
        let all: Result<(), listpack::Corrupt> = list.try_for_each_node(|node| {
            match node {
                NodeBytes::Listpack(blob) => {
                    loaded.push_node_listpack(Listpack::from_bytes_validated(blob)?, &limits);
                }
                NodeBytes::Plain(text) => loaded.push_node_plain(text, &limits),
            }
            Ok(())
        });
        prop_assert_eq!(all, Ok(()));
        loaded.settle(&limits);
        prop_assert!(collect(loaded.iter()).iter().eq(&model));
        prop_assert!(collect(list.clone().iter()).iter().eq(&model));
    }
}

fn some_limits() -> impl Strategy<Value = ListLimits> {
    let size = prop_oneof![Just(-1), Just(-2), Just(-5), Just(0), Just(1), Just(3), Just(20)];
    (size, 0u32..3, prop_oneof![4 => Just(0u32), 1 => Just(1), 1 => Just(50)]).prop_map(
        |(max_listpack_size, compress_depth, packed_threshold)| ListLimits {
            max_listpack_size,
            compress_depth,
            packed_threshold,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    /// CONFIG SET between commands: a list made under other limits, of another number of compressed nodes.
    #[test]
    fn limits_may_change_at_any_time(ops in vec((op(), some_limits()), 1..80)) {
        let mut list = List::new();
        let mut model = VecDeque::new();
        for (op, limits) in ops {
            apply(&mut list, &mut model, op, &limits);
            prop_assert!(collect(list.iter()).iter().eq(&model));
            prop_assert!(collect(list.iter_rev()).iter().eq(model.iter().rev()));
        }
        prop_assert!(collect(list.clone().iter()).iter().eq(&model));
    }

    /// With at most `most` elements in a node: what is longer is a quicklist, which goes back to one listpack at half.
    #[test]
    fn forms_are_what_the_rules_say(ops in vec(op(), 1..120), most in 1i32..12) {
        let limits = ListLimits { max_listpack_size: most, compress_depth: 0, packed_threshold: 0 };
        let most = most as usize;
        let mut list = List::new();
        let mut model = VecDeque::new();
        for op in ops {
            apply(&mut list, &mut model, op, &limits);
            if model.is_empty() {
                // Its key would be gone.
                list = List::new();
            }
            // Nodes of few short elements: their bytes are never the limit.
            if model.iter().all(|text| text.len() < 300) {
                if model.len() > most {
                    prop_assert_eq!(list.encoding_name(), "quicklist");
                }
                let mut loaded = list.clone();
                loaded.settle(&limits);
                prop_assert!(collect(loaded.iter()).iter().eq(&model));
                if list.encoding_name() == "listpack" {
                    prop_assert!(model.len() <= most);
                    prop_assert_eq!(loaded.encoding_name(), "listpack");
                }
            }
        }
        // Down to one element, one by one.
        while list.len() > 1 {
            list.pop(End::Front, &limits);
            model.pop_front();
            list.remove_equal(b"no such element", 1, End::Front, &limits);
        }
        if model.iter().all(|text| text.len() < 300) && most > 1 && !model.is_empty() {
            prop_assert_eq!(list.encoding_name(), "listpack");
        }
        prop_assert!(collect(list.iter()).iter().eq(&model));
    }
}

fn build(texts: &[&str], limits: &ListLimits) -> List {
    let mut list = List::new();
    for text in texts {
        list.push_back(text.as_bytes(), limits);
    }
    list
}

/// The encodings that the reference reports along the same steps.
#[test]
fn forms_along_the_way() {
    let three = ListLimits { max_listpack_size: 3, ..ListLimits::default() };
    let mut list = build(&["a", "b", "c"], &three);
    assert_eq!(list.encoding_name(), "listpack");
    list.push_back(b"d", &three);
    assert_eq!(list.encoding_name(), "quicklist");
    assert_eq!(list.pop_many(End::Back, 1, &three, |_| ()), 1);
    assert_eq!(list.encoding_name(), "quicklist", "3 elements are more than half of 3");
    let mut loaded = list.clone();
    loaded.settle(&three);
    assert_eq!(loaded.encoding_name(), "listpack");
    list.trim(1, 1, &three);
    assert_eq!(list.encoding_name(), "listpack");

    let mut list = build(&["a", "a", "a", "d"], &three);
    assert_eq!(list.remove_equal(b"a", 3, End::Front, &three), 3);
    assert_eq!(list.encoding_name(), "listpack");

    let large = "x".repeat(8192);
    let bytes = ListLimits { max_listpack_size: -1, ..ListLimits::default() };
    let mut list = build(&["a", &large], &bytes);
    assert_eq!(list.encoding_name(), "quicklist");
    list.pop(End::Front, &bytes);
    assert_eq!(list.encoding_name(), "quicklist", "one plain node");
    assert!(list.set(0, b"c", &bytes));
    assert_eq!(list.encoding_name(), "listpack");
    assert!(!list.insert(b"none", large.as_bytes(), true, &bytes));
    assert_eq!(list.encoding_name(), "quicklist", "converted before the pivot is looked for");

    let zero = ListLimits { max_listpack_size: 0, ..ListLimits::default() };
    assert_eq!(build(&["a"], &zero).encoding_name(), "listpack");
    assert_eq!(build(&["a", "b"], &zero).encoding_name(), "quicklist");
    let six = ListLimits { max_listpack_size: -6, ..ListLimits::default() };
    let mut list = build(&[&"x".repeat(60_000)], &six);
    assert_eq!(list.encoding_name(), "listpack");
    list.push_back("x".repeat(5536).as_bytes(), &six);
    assert_eq!(list.encoding_name(), "quicklist");
}

#[test]
fn is_send() {
    fn needs_send<T: Send + Sync>(_: T) {}
    needs_send(List::new());
}
