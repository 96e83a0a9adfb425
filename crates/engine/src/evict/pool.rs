//! The eviction pool: the best candidates of the samples taken so far. A worker's own; what other workers remove meanwhile
//! shows when its turn comes.

use kara_base::ids::DbIndex;

/// As many as the reference keeps.
const SIZE: usize = 16;

/// A key that may go.
#[derive(Debug)]
pub(super) struct Candidate {
    /// The higher, the sooner it goes.
    score: u64,
    pub db: DbIndex,
    pub hash: u64,
    pub key: Vec<u8>,
}

/// Candidates, ascending by score.
#[derive(Debug, Default)]
pub(super) struct Pool(Vec<Candidate>);

impl Pool {
    /// Offers a sampled key, which is taken if there is room or a worse one to replace.
    pub fn offer(&mut self, score: u64, db: DbIndex, key: &[u8], hash: impl FnOnce() -> u64) {
        let is_full = self.0.len() >= SIZE;
        if is_full && self.0.first().is_some_and(|worst| score <= worst.score) {
            return;
        }
        let hash = hash();
        if let Some(known) = self.0.iter().position(|c| c.hash == hash && c.db == db && c.key == key) {
            self.0.remove(known);
        } else if is_full {
            self.0.remove(0);
        }
        let at = self.0.partition_point(|candidate| candidate.score < score);
        self.0.insert(at, Candidate { score, db, hash, key: key.to_vec() });
    }

    /// The best candidate.
    pub fn pop(&mut self) -> Option<Candidate> {
        self.0.pop()
    }

    /// Forgets all: scores of another policy mean nothing.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_many_remain_and_a_key_stands_once() {
        let mut pool = Pool::default();
        for n in 0..100u64 {
            let score = n * 37 % 100;
            pool.offer(score, DbIndex(0), score.to_string().as_bytes(), || score);
        }
        // Seen again with another score; another database's key of the same name is another key.
        pool.offer(200, DbIndex(0), b"90", || 90);
        pool.offer(150, DbIndex(1), b"90", || 90);
        let taken: Vec<(u64, u32)> = std::iter::from_fn(|| pool.pop()).map(|c| (c.score, c.db.0)).collect();
        let rest = (85..100).rev().filter(|score| *score != 90).map(|score| (score, 0));
        let expected: Vec<_> = [(200, 0), (150, 1)].into_iter().chain(rest).collect();
        assert!(expected.starts_with(&taken) && taken.len() >= SIZE - 1, "{taken:?}");
    }
}
