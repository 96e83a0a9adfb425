use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::VecDeque;

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => (0u8..6).prop_map(|n| vec![b'a' + n]),
        4 => (-3i64..200).prop_map(|n| n.to_string().into_bytes()),
        3 => (any::<u8>(), 0usize..200).prop_map(|(b, n)| vec![b; n]),
        3 => vec(any::<u8>(), 0..100),
        1 => (any::<u8>(), 3000usize..4200).prop_map(|(b, n)| vec![b; n]),
        1 => (any::<u8>(), 8000usize..8400).prop_map(|(b, n)| vec![b; n]),
    ]
}

#[derive(Clone, Debug)]
enum Op {
    Push(bool, Vec<u8>),
    Pop(bool),
    Replace(usize, Vec<u8>),
    Insert(usize, Vec<u8>, bool),
    DeleteRange(usize, usize),
    Remove(Vec<u8>, usize, bool),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (any::<bool>(), text()).prop_map(|(front, t)| Op::Push(front, t)),
        2 => any::<bool>().prop_map(Op::Pop),
        3 => (any::<usize>(), text()).prop_map(|(i, t)| Op::Replace(i, t)),
        4 => (any::<usize>(), text(), any::<bool>()).prop_map(|(i, t, a)| Op::Insert(i, t, a)),
        1 => (any::<usize>(), 0usize..8).prop_map(|(i, n)| Op::DeleteRange(i, n)),
        1 => (text(), 1usize..4, any::<bool>()).prop_map(|(t, n, back)| Op::Remove(t, n, back)),
    ]
}

fn end(front: bool) -> End {
    if front { End::Front } else { End::Back }
}

fn collect(list: &Quicklist, index: usize, towards: End) -> Vec<Vec<u8>> {
    let mut cursor = list.cursor(index, towards);
    let mut all = Vec::new();
    while let Some(element) = cursor.next() {
        all.push(element.to_bytes());
    }
    all
}

fn apply(list: &mut Quicklist, model: &mut VecDeque<Vec<u8>>, op: Op) {
    let len = model.len();
    match op {
        Op::Push(front, t) => {
            list.push(end(front), &t);
            if front { model.push_front(t) } else { model.push_back(t) }
        }
        Op::Pop(front) => {
            let expected = if front { model.pop_front() } else { model.pop_back() };
            assert_eq!(list.pop_with(end(front), |e| e.to_bytes()), expected);
        }
        Op::Replace(i, t) => {
            let i = i % (len + 1);
            assert_eq!(list.replace(i, &t), i < len);
            if i < len {
                model[i] = t;
            }
        }
        Op::Insert(i, t, after) => {
            let i = i % (len + 1);
            assert_eq!(list.insert(i, &t, after), i < len);
            if i < len {
                model.insert(i + usize::from(after), t);
            }
        }
        Op::DeleteRange(i, n) => {
            let i = i % (len + 1);
            assert_eq!(list.delete_range(i, n), model.drain(i..(i + n).min(len)).count());
        }
        Op::Remove(t, n, back) => {
            let mut left = n;
            let mut keep = |element: &Vec<u8>| {
                let hit = left > 0 && *element == t;
                left -= usize::from(hit);
                !hit
            };
            let kept: VecDeque<_> = if back {
                let kept: VecDeque<_> = model.drain(..).rev().filter(|e| keep(e)).collect();
                kept.into_iter().rev().collect()
            } else {
                model.drain(..).filter(|e| keep(e)).collect()
            };
            *model = kept;
            assert_eq!(list.remove_equal(&t, n, end(!back)), n - left);
        }
    }
}

fn check(list: &Quicklist, model: &VecDeque<Vec<u8>>, depth: u32) {
    assert_eq!(list.len(), model.len());
    assert!(collect(list, 0, End::Back).iter().eq(model));
    if !model.is_empty() {
        assert!(collect(list, model.len() - 1, End::Front).iter().eq(model.iter().rev()));
    }
    let nodes: Vec<_> = list.seq.iter().collect();
    assert_eq!(nodes.len(), list.nodes());
    assert_eq!(nodes.iter().map(|node| node.count()).sum::<usize>(), model.len());
    for (i, node) in nodes.iter().enumerate() {
        assert!(node.count() > 0, "no empty node");
        let from_end = i.min(nodes.len() - 1 - i);
        if depth == 0 || from_end < depth as usize {
            assert!(!node.is_squeezed(), "the ends are open");
        } else if !node.is_squeezed() {
            let mut tried = Node::clone(node);
            tried.squeeze();
            assert!(!tried.is_squeezed(), "node {i} of {} could be compressed", nodes.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn behaves_like_a_deque(
        ops in vec(op(), 1..150),
        fill in prop_oneof![Just(-1), Just(-2), Just(0), Just(1), Just(2), Just(3), Just(7), Just(100)],
        depth in 0u32..4,
        threshold in prop_oneof![3 => Just(0u32), 1 => Just(1), 1 => Just(50)],
    ) {
        let mut list = Quicklist::new(Fill::new(fill), depth);
        list.set_packed_threshold(threshold);
        let mut model = VecDeque::new();
        for op in ops {
            apply(&mut list, &mut model, op);
            check(&list, &model, depth);
        }
        for (i, text) in model.iter().enumerate() {
            prop_assert_eq!(list.with(i, |e| e.eq_bytes(text)), Some(true));
        }
        prop_assert!(collect(&list, model.len() / 3, End::Back).iter().eq(model.iter().skip(model.len() / 3)));
        prop_assert_eq!(list.with(model.len(), |_| ()), None);
        check(&list.clone(), &model, depth);
    }
}

#[test]
fn many_chunks() {
    let mut list = Quicklist::new(Fill::new(1), 0);
    let mut model = VecDeque::new();
    for i in 0..2000usize {
        let text = i.to_string().into_bytes();
        let at = (i * 7919) % (model.len() + 1);
        if at == model.len() {
            list.push(End::Back, &text);
        } else {
            list.insert(at, &text, false);
        }
        model.insert(at, text);
    }
    check(&list, &model, 0);
    for (i, text) in model.iter().enumerate() {
        assert_eq!(list.with(i, |e| e.eq_bytes(text)), Some(true));
    }
    while model.len() > 3 {
        let at = model.len() / 2;
        assert_eq!(list.delete_range(at, 3), model.drain(at..(at + 3).min(model.len())).count());
        if model.len() % 50 < 3 {
            check(&list, &model, 0);
        }
    }
    check(&list, &model, 0);
}

#[test]
fn a_million_short_elements_in_17_2_bytes_each() {
    let mut list = Quicklist::new(Fill::new(-2), 0);
    for i in 0..1_000_000u32 {
        list.push(End::Back, format!("element:{i:07}").as_bytes());
    }
    let per_element = list.allocated_bytes(0) as f64 / 1e6;
    assert!(per_element < 17.2, "{per_element}");
    assert_eq!(list.with(654_321, |e| e.to_bytes()).as_deref(), Some(&b"element:0654321"[..]));
}

#[test]
fn loaded_nodes_stay_as_they_are() {
    let mut list = Quicklist::new(Fill::new(-2), 1);
    for texts in [&["a", "b"][..], &[], &["c"]] {
        list.push_listpack(texts.iter().map(|t| Element::Str(t.as_bytes())).collect());
    }
    list.push_plain(b"small, but alone");
    assert_eq!((list.len(), list.nodes()), (4, 3));
    let mut seen = Vec::new();
    let all: Result<(), ()> = list.try_for_each_node(|node| {
        seen.push(match node {
            NodeBytes::Listpack(blob) => blob.len(),
            NodeBytes::Plain(text) => text.len(),
        });
        Ok(())
    });
    assert_eq!(all, Ok(()));
    assert_eq!(seen, [13, 10, 16]);
    assert!(!list.fits_listpack(Fill::new(-2), 1));
    list.delete_range(2, 2);
    let list = list.into_listpack(Fill::new(-2), 2).ok().expect("one small node");
    assert_eq!(list.len(), 2);
}

#[test]
fn a_small_element_in_a_large_ones_place_joins_the_node_behind() {
    let mut list = Quicklist::new(Fill::new(-2), 0);
    list.push(End::Back, b"front");
    list.push(End::Back, &[b'x'; 9000]);
    list.push(End::Back, b"behind");
    assert_eq!(list.nodes(), 3);
    assert!(list.replace(1, b"small"));
    assert_eq!(list.nodes(), 2);
    assert_eq!(collect(&list, 0, End::Back), [&b"front"[..], b"small", b"behind"]);
}
