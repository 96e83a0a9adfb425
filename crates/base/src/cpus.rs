//! Lists of processors as `taskset` writes them (`0,2-5`, `0-7:2`), and keeping a thread on one.

use rustix::thread::{CpuSet, sched_setaffinity};

/// What a list names: `None` where it can't be read, or names a processor that no system has.
fn parse(list: &str) -> Option<CpuSet> {
    let mut set = CpuSet::new();
    for part in list.split(',') {
        let (range, stride) = part.split_once(':').unwrap_or((part, "1"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        let stride: usize = stride.trim().parse().ok()?;
        if first > last || last >= CpuSet::MAX_CPU || stride == 0 {
            return None;
        }
        (first..=last).step_by(stride).for_each(|cpu| set.set(cpu));
    }
    Some(set)
}

/// Keeps the calling thread, and threads that it will start, on these processors. As in the reference an empty list, or one
/// that can't be read or followed, changes nothing.
pub fn keep_to(list: &[u8]) {
    if let Some(set) = std::str::from_utf8(list).ok().and_then(parse) {
        // Refused where none of them is this process's to use.
        let _ = sched_setaffinity(None, &set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(list: &str) -> Option<Vec<usize>> {
        let set = parse(list)?;
        Some((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
    }

    #[test]
    fn lists_of_processors() {
        assert_eq!(members("3"), Some(vec![3]));
        assert_eq!(members("0,2-4"), Some(vec![0, 2, 3, 4]));
        assert_eq!(members("0-7:2, 9"), Some(vec![0, 2, 4, 6, 9]));
        for bad in ["", "a", "4-2", "1-", "1-3:0", "0,,1", "99999999", "18446744073709551616", "-1", "0-1024"]
        {
            assert_eq!(members(bad), None, "{bad}");
        }
    }
}
