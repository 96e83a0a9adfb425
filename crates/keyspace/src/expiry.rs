//! Active expiry: a walk around the table that skips segments whose hints say that nothing is due.
//!
//! Boundary: says nothing about how often it runs or what a removal means to replicas; the engine journals and
//! notifies from the callback, while the shard is locked.

use kara_base::ids::DbIndex;

use crate::entry::Entry;
use crate::shard::Shard;

/// What an expiry step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpireProgress {
    /// Keys removed; in a walk for fields, hashes shown.
    pub expired: usize,
    /// Work done: segments and entries looked at.
    pub examined: usize,
    /// The walk came to the end of the table: what was due when it began is gone.
    pub finished: bool,
}

impl Shard {
    /// Goes on with the walk and hands out entries whose expiry is before `now_ms` (a key lives
    /// through its last millisecond), already removed. Stops after the
    /// segment (up to about a thousand entries) in which `budget` is used up, or at the end of the table; the next
    /// step begins where this one stopped.
    pub fn expire_step(
        &mut self,
        db: DbIndex,
        now_ms: i64,
        budget: usize,
        mut expired: impl FnMut(Entry),
    ) -> ExpireProgress {
        let (db, guard) = self.parts(db);
        let mut progress = ExpireProgress::default();
        if db.table.expires_len() == 0 {
            db.expiry_at = 0;
            return ExpireProgress { finished: true, ..progress };
        }
        let origin = db.origin;
        while progress.examined < budget {
            let (next, seen) = db.table.expire_segment(
                db.expiry_at,
                now_ms,
                |entry| guard.before_change(origin, entry),
                |entry| {
                    progress.expired += 1;
                    expired(entry);
                },
            );
            progress.examined += seen + 1;
            db.expiry_at = next.unwrap_or(0);
            if next.is_none() {
                progress.finished = true;
                break;
            }
        }
        progress
    }

    /// The same walk for fields of hashes: shows each hash that may have fields due at `now_ms` to `due`, which takes
    /// them out (`Hash::expire_due`). A hash that is empty then is removed; saying so is the callback's business too.
    pub fn expire_fields_step(
        &mut self,
        db: DbIndex,
        now_ms: i64,
        budget: usize,
        mut due: impl FnMut(&mut Entry),
    ) -> ExpireProgress {
        let (db, guard) = self.parts(db);
        let mut progress = ExpireProgress::default();
        if db.table.volatile_len() == 0 {
            db.fields_at = 0;
            return ExpireProgress { finished: true, ..progress };
        }
        let origin = db.origin;
        while progress.examined < budget {
            let (next, seen) = db.table.expire_fields(db.fields_at, now_ms, |entry| {
                guard.before_change(origin, entry);
                progress.expired += 1;
                due(entry);
            });
            progress.examined += seen + 1;
            db.fields_at = next.unwrap_or(0);
            if next.is_none() {
                progress.finished = true;
                break;
            }
        }
        progress
    }
}
