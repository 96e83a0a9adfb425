//! The size of a radix tree that nobody builds: clients read it from XINFO, and it follows from the keys alone.
//!
//! In the reference's tree a run of bytes without a fork is one node, a fork is one node that takes a byte for
//! each way on, and every key ends in a node of its own.

const KEY: usize = 16;

/// The number of nodes for keys that ascend.
pub(super) fn nodes(keys: impl Iterator<Item = [u8; KEY]>) -> usize {
    // Depths of the forks above the current key, outermost first.
    let mut forks: Vec<usize> = Vec::new();
    let mut count = 0;
    let mut previous: Option<[u8; KEY]> = None;
    for key in keys {
        if let Some(before) = previous {
            let common = before.iter().zip(&key).take_while(|(a, b)| a == b).count();
            // The previous key's end hangs below its deepest fork, which may be the one that this key opens.
            let above = forks.last().copied().filter(|&fork| fork > common).unwrap_or(common);
            count += with_run(KEY, Some(above));
            while forks.last().is_some_and(|&fork| fork > common) {
                let fork = forks.pop().unwrap_or(common);
                let parent = forks.last().copied().filter(|&parent| parent > common).unwrap_or(common);
                count += with_run(fork, Some(parent));
            }
            if forks.last() != Some(&common) {
                forks.push(common);
            }
        }
        previous = Some(key);
    }
    if previous.is_none() {
        return 1;
    }
    count += with_run(KEY, forks.last().copied());
    while let Some(fork) = forks.pop() {
        count += with_run(fork, forks.last().copied());
    }
    count
}

/// The node at `depth` and, where bytes lie between it and the fork above, the node of that run.
fn with_run(depth: usize, fork_above: Option<usize>) -> usize {
    let start = fork_above.map_or(0, |fork| fork + 1);
    1 + usize::from(depth > start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(high: u8, low: u8) -> [u8; KEY] {
        let mut key = [0; KEY];
        key[0] = high;
        key[KEY - 1] = low;
        key
    }

    #[test]
    fn counts_runs_forks_and_ends() {
        let count = |keys: &[[u8; KEY]]| nodes(keys.iter().copied());
        assert_eq!(count(&[]), 1);
        // A run and an end.
        assert_eq!(count(&[key(0, 1)]), 2);
        // A run, a fork at the last byte, two ends.
        assert_eq!(count(&[key(0, 1), key(0, 2)]), 4);
        // A fork at the first byte, then a run and an end each.
        assert_eq!(count(&[key(0, 1), key(1, 1)]), 5);
        assert_eq!(count(&[key(0, 1), key(0, 2), key(1, 1)]), 1 + 4 + 2);
        assert_eq!(count(&[key(0, 1), key(1, 1), key(1, 2), key(1, 3)]), 1 + 2 + 5);
    }
}
