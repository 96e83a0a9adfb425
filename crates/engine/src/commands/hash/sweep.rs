//! Active expiry of fields: the walk that removes fields whose time is over although nobody asks for them.

use super::fields::journal_removal;
use crate::events::Class;
use crate::keys::Keys;
use smallvec::SmallVec;

/// Fields of one HDEL in the journal.
const FIELDS_PER_COMMAND: usize = 64;

/// Goes on with the walk over the hashes of the database in the shards held and removes fields whose time is over,
/// until about `budget` segments, hashes and fields were looked at. Journals (see [`Keys::preceding`]), notifies and
/// counts. True at the end of the walk: what was due when it began is gone.
pub fn expire_due_fields(keys: &mut Keys<'_, '_>, budget: usize) -> bool {
    let (db, now_ms) = (keys.db, keys.now_ms);
    let mut gone: Vec<(Vec<u8>, Vec<Vec<u8>>, bool)> = Vec::new();
    let finished = keys.space.expire_fields_step(db, now_ms, budget, |key, fields, empty| {
        gone.push((key.to_vec(), fields, empty));
    });
    for (key, fields, empty) in gone {
        keys.stats.expired_fields.add(fields.len() as u64);
        if keys.policy.journal_on {
            for chunk in fields.chunks(FIELDS_PER_COMMAND) {
                let names: SmallVec<[&[u8]; 64]> = chunk.iter().map(Vec::as_slice).collect();
                keys.preceding.push((db, journal_removal(&key, &names)));
            }
        }
        keys.touched(&key);
        keys.notify(Class::HASH, "hexpired", &key);
        if empty {
            keys.delete(&key);
            keys.notify(Class::GENERIC, "del", &key);
        }
    }
    finished
}
