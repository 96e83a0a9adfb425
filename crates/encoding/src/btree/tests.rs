//! The tree against a sorted vector.

use super::*;
use kara_base::rng::Rng;

type Item = (f64, Vec<u8>);
type Model = Vec<Item>;

fn less(a: &Item, b: &Item) -> std::cmp::Ordering {
    score_key(a.0).cmp(&score_key(b.0)).then_with(|| a.1.cmp(&b.1))
}

/// Walks every node: counts, first keys, hints, chain and sizes.
fn check(tree: &Tree, model: &Model) {
    fn walk(node: Node, level: u8, leaves: &mut Vec<*mut Leaf>, bytes: &mut usize) -> u64 {
        // SAFETY: the tree is borrowed and at rest.
        unsafe {
            if level == 0 {
                node.leaf().check();
                leaves.push(node.0.cast());
                *bytes += size_of::<Leaf>();
                return node.leaf().len() as u64;
            }
            let inner = node.inner();
            *bytes += size_of::<Inner>();
            assert!(inner.len() > 0);
            for i in 0..inner.len() {
                assert_eq!(walk(inner.node(i), level - 1, leaves, bytes), inner.count(i));
                assert!(inner.count(i) > 0);
                let child = inner.child(i);
                assert!((child.key, child.first) == first_of(inner.node(i), level - 1));
            }
            inner.total()
        }
    }
    let (mut leaves, mut bytes) = (Vec::new(), 0);
    assert_eq!(walk(tree.root, tree.height, &mut leaves, &mut bytes), tree.len);
    assert_eq!(bytes, tree.node_bytes);
    for (i, &leaf) in leaves.iter().enumerate() {
        // SAFETY: live leaves, as above.
        let (prev, next) = unsafe { ((*leaf).prev, (*leaf).next) };
        assert_eq!(prev, if i == 0 { ptr::null_mut() } else { leaves[i - 1] });
        assert_eq!(next, leaves.get(i + 1).copied().unwrap_or(ptr::null_mut()));
    }
    let got: Model = tree.range(0, usize::MAX, false).map(|(m, s)| (s, m.to_vec())).collect();
    assert_eq!(&got, model);
}

#[derive(Clone, Copy)]
enum Scores {
    Few,
    Equal,
    Wide,
    Close,
    Ascending,
    Descending,
}

fn score(kind: Scores, step: usize, rng: &mut Rng) -> f64 {
    match kind {
        Scores::Equal => 0.0,
        Scores::Few => [f64::NEG_INFINITY, -1.0, -0.0, 0.0, 1.0, 2.0, f64::INFINITY][rng.below(7) as usize],
        Scores::Wide => loop {
            let score = f64::from_bits(rng.next_u64());
            if !score.is_nan() {
                break score;
            }
        },
        Scores::Close => 1.7e12 + rng.below(5000) as f64 / 8.0,
        Scores::Ascending => step as f64,
        Scores::Descending => -(step as f64),
    }
}

fn member(rng: &mut Rng) -> Vec<u8> {
    let len = rng.below(4) + if rng.below(50) == 0 { 200 } else { 0 };
    (0..len).map(|_| rng.next_u64() as u8).collect()
}

fn run(kind: Scores, seed: u64, steps: usize) {
    let mut rng = Rng::new(seed);
    let (mut tree, mut model) = (Tree::new(), Model::new());
    // Phases of growth and of shrinking, so that splits and merges both happen at every height.
    let mut growing = true;
    for step in 0..steps {
        if rng.below(steps as u64 / 6) == 0 {
            growing = !growing;
        }
        match rng.below(20) {
            0..12 if growing => {
                let new = (score(kind, step, &mut rng), member(&mut rng));
                if let Err(at) = model.binary_search_by(|e| less(e, &new)) {
                    tree.insert(new.0, &new.1);
                    model.insert(at, new);
                }
            }
            0..6 => {
                if let Some((s, m)) = model.get(rng.below(model.len() as u64) as usize).cloned() {
                    let at = model.binary_search_by(|e| less(e, &(s, m.clone()))).unwrap();
                    assert!(tree.remove(s, &m));
                    assert!(!tree.remove(s, &m));
                    model.remove(at);
                }
            }
            6..13 if !model.is_empty() => {
                let rank = rng.below(model.len() as u64) as usize;
                let entry = tree.entry_at(rank).unwrap();
                let (old, m) = model[rank].clone();
                // Small steps mostly, to stay inside a leaf's neighbourhood; inf - inf is no score.
                let new = if rng.below(2) == 0 { old + 0.25 } else { score(kind, step, &mut rng) };
                let new = (new, m);
                // Another entry may have that very score and member: not in a set.
                if let Err(at) = model.binary_search_by(|e| less(e, &new)) {
                    // SAFETY: a handle of this tree.
                    unsafe { tree.rescore(entry, new.0) };
                    model.remove(rank);
                    model.insert(at - usize::from(at > rank), new);
                }
            }
            13 if !growing => {
                let start = rng.below(model.len() as u64 + 1) as usize;
                let most = [3, 70, 400][rng.below(3) as usize];
                let n = rng.below(most) as usize;
                let end = (start + n).min(model.len());
                let mut gone = Model::new();
                tree.remove_range(start, n, |m, s| gone.push((s, m.to_vec())));
                assert_eq!(gone, model.drain(start..end).collect::<Model>());
            }
            14 => {
                let (s, m) = (score(kind, step, &mut rng), member(&mut rng));
                let key = score_key(s);
                let before = |f: &dyn Fn(&Item) -> bool| model.iter().filter(|e| f(e)).count();
                assert_eq!(tree.rank_of(&Bound::before_score(s)), before(&|e| score_key(e.0) < key));
                assert_eq!(tree.rank_of(&Bound::after_score(s)), before(&|e| score_key(e.0) <= key));
                let probe = (s, m.clone());
                assert_eq!(tree.rank_of(&Bound::before_entry(s, &m)), before(&|e| less(e, &probe).is_lt()));
                assert_eq!(tree.rank_of(&Bound::after_entry(s, &m)), before(&|e| less(e, &probe).is_le()));
                if matches!(kind, Scores::Equal) && model.iter().all(|e| e.0 == 0.0) {
                    assert_eq!(tree.rank_of(&Bound::before_member(&m)), before(&|e| e.1 < m));
                    assert_eq!(tree.rank_of(&Bound::after_member(&m)), before(&|e| e.1 <= m));
                }
            }
            15 => {
                let start = rng.below(model.len() as u64 + 2) as usize;
                let n = rng.below(200) as usize;
                let want: Model = model.iter().skip(start).take(n).cloned().collect();
                let got: Model = tree.range(start, n, false).map(|(m, s)| (s, m.to_vec())).collect();
                assert_eq!(got, want);
                let mut back: Model = tree.range(start, n, true).map(|(m, s)| (s, m.to_vec())).collect();
                back.reverse();
                assert_eq!(back, want);
                assert_eq!(tree.get(start).map(|(m, s)| (s, m.to_vec())), model.get(start).cloned());
            }
            _ => {}
        }
        assert_eq!(tree.len(), model.len());
        if step % 500 == 0 {
            check(&tree, &model);
            check(&tree.clone(), &model);
        }
    }
    check(&tree, &model);
}

#[test]
fn agrees_with_a_sorted_vector() {
    for (i, kind) in
        [Scores::Few, Scores::Equal, Scores::Wide, Scores::Close, Scores::Ascending, Scores::Descending]
            .into_iter()
            .enumerate()
    {
        run(kind, i as u64, 12_000);
        run(kind, 100 + i as u64, 3_000);
    }
}

#[test]
fn sequential_inserts_fill_the_leaves() {
    for sign in [1.0, -1.0] {
        let mut tree = Tree::new();
        for i in 0..100_000 {
            tree.insert(sign * f64::from(i), b"member");
        }
        let per_member = tree.node_bytes() as f64 / 100_000.0;
        assert!(per_member < 9.5, "{per_member}");
    }
}

#[test]
fn deep_trees_empty_from_either_end() {
    for from_top in [false, true] {
        let mut tree = Tree::from_sorted((0..300_000).map(|i| (f64::from(i), &b"m"[..])));
        assert!(tree.height >= 2);
        let mut next = if from_top { 300_000 } else { 0 };
        while !tree.is_empty() {
            let n = 1 + next as usize % 97;
            let start = if from_top { tree.len().saturating_sub(n) } else { 0 };
            let before = tree.len();
            tree.remove_range(start, n, |_, _| ());
            next = if from_top { tree.len() as i32 } else { next + (before - tree.len()) as i32 };
            assert_eq!(
                tree.get(0).map(|e| e.1),
                (!tree.is_empty()).then_some(if from_top { 0.0 } else { f64::from(next) })
            );
        }
        assert_eq!(tree.node_bytes(), size_of::<Leaf>());
        check(&tree, &Model::new());
        tree.insert(1.0, b"again");
        assert_eq!(tree.get(0), Some((&b"again"[..], 1.0)));
    }
}
