//! Active expiry of fields: the walk that removes fields whose time is over although nobody asks for them.

use super::fields::journal_removal;
use crate::events::Class;
use crate::keys::Keys;
use kara_keyspace::ExpireProgress;
use kara_keyspace::value::hash::Hash;

/// Fields that are removed from one hash before its shard's other hashes have their turn.
const FIELDS_PER_HASH: usize = 1024;
/// Fields of one HDEL in the journal.
const FIELDS_PER_COMMAND: usize = 64;

/// Fields of one hash that are gone.
struct Gone {
    key: Vec<u8>,
    fields: Vec<Vec<u8>>,
    /// The hash had no other and is gone as well.
    empty: bool,
}

/// Goes on with the walk over the hashes of `keys.db` in the shards held and removes fields whose time is over, until
/// about `budget` segments and hashes were looked at. Journals (into `keys.preceding`), notifies and counts. A hash
/// with more due fields than a step takes is visited again on the next round.
pub fn expire_due_fields(keys: &mut Keys<'_, '_>, budget: usize) -> ExpireProgress {
    let (db, now_ms) = (keys.db, keys.now_ms);
    let mut all = Vec::new();
    let progress = keys.space.expire_fields_step(db, now_ms, budget, |entry| {
        let key = entry.key().to_vec();
        let Some(hash) = entry.get_mut::<Hash>() else { return };
        let mut fields = Vec::new();
        hash.expire_due(now_ms, FIELDS_PER_HASH, |field| fields.push(field.to_vec()));
        if !fields.is_empty() {
            all.push(Gone { key, fields, empty: hash.is_empty() });
        }
    });
    for gone in all {
        keys.stats.expired_fields.add(gone.fields.len() as u64);
        if keys.policy.journal_on {
            for chunk in gone.fields.chunks(FIELDS_PER_COMMAND) {
                let fields: Vec<&[u8]> = chunk.iter().map(Vec::as_slice).collect();
                keys.preceding.push((db, journal_removal(&gone.key, &fields)));
            }
        }
        keys.changed(&gone.key, Class::HASH, "hexpired");
        if gone.empty {
            keys.notify(Class::GENERIC, "del", &gone.key);
        }
    }
    progress
}
