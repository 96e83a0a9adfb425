//! Whether two replies say the same, under a template's comparison.

use super::template::Comparison;
use crate::reply::Reply;

/// Milliseconds by which clocks of two servers may be apart within one batch.
const NEAR: u64 = 3_000;

/// Whether `ours` is what the reference said.
pub fn same(ours: &Reply, theirs: &Reply, comparison: Comparison) -> bool {
    if ours == theirs {
        return true;
    }
    if ours.is_error() || theirs.is_error() {
        return false;
    }
    match comparison {
        Comparison::Exact => false,
        Comparison::Unordered => sorted(ours, 1) == sorted(theirs, 1),
        Comparison::Pairs => sorted(ours, 2) == sorted(theirs, 2),
        Comparison::Near => near(ours, theirs),
        Comparison::Shape => same_shape(ours, theirs),
    }
}

/// The same reply with its elements in a fixed order. Flat arrays of even length are sorted by groups of `group`.
fn sorted(reply: &Reply, group: usize) -> Reply {
    let each = |items: &[Reply]| items.iter().map(|item| sorted(item, group)).collect::<Vec<_>>();
    match reply {
        Reply::Array(items) => {
            let flat = items.iter().all(|item| item.items().is_empty());
            let size = if flat && items.len() % group == 0 { group } else { 1 };
            let items = each(items);
            let mut groups: Vec<&[Reply]> = items.chunks(size).collect();
            groups.sort();
            Reply::Array(groups.concat())
        }
        Reply::Set(items) => {
            let mut items = each(items);
            items.sort();
            Reply::Set(items)
        }
        Reply::Map(pairs) => {
            let mut pairs: Vec<_> = pairs.iter().map(|(k, v)| (sorted(k, group), sorted(v, group))).collect();
            pairs.sort();
            Reply::Map(pairs)
        }
        other => other.clone(),
    }
}

fn near(ours: &Reply, theirs: &Reply) -> bool {
    match (ours, theirs) {
        // -1 and -2 are answers of their own, no times.
        (Reply::Integer(a), Reply::Integer(b)) => a == b || (*a >= 0 && *b >= 0 && a.abs_diff(*b) <= NEAR),
        (Reply::Array(a), Reply::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| near(a, b)),
        (Reply::Map(a), Reply::Map(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((ak, av), (bk, bv))| ak == bk && near(av, bv))
        }
        _ => ours == theirs,
    }
}

fn same_shape(ours: &Reply, theirs: &Reply) -> bool {
    match (ours, theirs) {
        (Reply::Map(a), Reply::Map(b)) => a.len() == b.len(),
        _ => {
            std::mem::discriminant(ours) == std::mem::discriminant(theirs)
                && ours.items().len() == theirs.items().len()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Reply {
        crate::reply::parse(text.replace(' ', "\r\n").as_bytes()).unwrap().unwrap().0
    }

    #[test]
    fn orders_and_pairs() {
        let (a, b) = (parse("*4 +a +1 +b +2 "), parse("*4 +b +2 +a +1 "));
        let crossed = parse("*4 +a +2 +b +1 ");
        assert!(!same(&a, &b, Comparison::Exact));
        assert!(same(&a, &b, Comparison::Pairs));
        assert!(!same(&a, &crossed, Comparison::Pairs));
        assert!(same(&a, &crossed, Comparison::Unordered));
        assert!(!same(&a, &parse("*3 +b +2 +a "), Comparison::Shape));
    }

    #[test]
    fn times_may_pass_but_nothing_else() {
        let near = |a: i64, b: i64| same(&Reply::Integer(a), &Reply::Integer(b), Comparison::Near);
        assert!(near(1000, 1001) && !near(1000, 9000) && !near(-1, -2) && !near(0, -1));
        let error = Reply::Error(b"ERR a".to_vec());
        assert!(!same(&error, &Reply::Error(b"ERR b".to_vec()), Comparison::Shape));
    }
}
