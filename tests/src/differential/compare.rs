//! Whether two replies say the same, under a template's comparison.

use super::template::Comparison;
use crate::reply::Reply;

/// Milliseconds by which clocks of two servers may be apart within one batch.
const NEAR_MS: u64 = 3_000;
/// Seconds by which they may be apart: a clock that is read on both sides of a second's end, on a machine that sleeps.
const NEAR_S: u64 = 3;

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
        Comparison::Near => near(ours, theirs, NEAR_MS),
        Comparison::Seconds => near(ours, theirs, NEAR_S),
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

/// Whether all but integers is the same, and they are at most `apart` from each other.
fn near(ours: &Reply, theirs: &Reply, apart: u64) -> bool {
    match (ours, theirs) {
        // -1 and -2 are answers of their own, no times.
        (Reply::Integer(a), Reply::Integer(b)) => a == b || (*a >= 0 && *b >= 0 && a.abs_diff(*b) <= apart),
        (Reply::Array(a), Reply::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| near(a, b, apart))
        }
        (Reply::Map(a), Reply::Map(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((ak, av), (bk, bv))| ak == bk && near(av, bv, apart))
        }
        _ => ours == theirs,
    }
}

/// Whether a disagreement is one that the README calls deliberate: LSET with an index beyond 32 bits, which the
/// reference cuts to 32 and we refuse. From there on the datasets differ.
pub fn is_deliberate(request: &[Vec<u8>], ours: &Reply, theirs: &Reply) -> bool {
    let [name, _, index, _] = request else { return false };
    let index = std::str::from_utf8(index).ok().and_then(|index| index.parse::<i64>().ok());
    name.eq_ignore_ascii_case(b"LSET")
        && index.is_some_and(|index| i32::try_from(index).is_err())
        && *ours == Reply::Error(b"ERR index out of range".to_vec())
        && *theirs == Reply::Simple(b"OK".to_vec())
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
        assert!(same(&Reply::Integer(1), &Reply::Integer(0), Comparison::Seconds));
        assert!(!same(&Reply::Integer(4), &Reply::Integer(0), Comparison::Seconds));
        let error = Reply::Error(b"ERR a".to_vec());
        assert!(!same(&error, &Reply::Error(b"ERR b".to_vec()), Comparison::Shape));
    }

    #[test]
    fn what_is_deliberate() {
        let lset = |index: &str| [b"lset".to_vec(), b"l".to_vec(), index.into(), b"v".to_vec()];
        let refused = Reply::Error(b"ERR index out of range".to_vec());
        let done = Reply::Simple(b"OK".to_vec());
        assert!(is_deliberate(&lset("4294967296"), &refused, &done));
        assert!(is_deliberate(&lset("-2147483649"), &refused, &done));
        assert!(!is_deliberate(&lset("2147483647"), &refused, &done));
        assert!(!is_deliberate(&lset("x"), &refused, &done));
        assert!(!is_deliberate(&lset("4294967296"), &done, &refused));
    }
}
