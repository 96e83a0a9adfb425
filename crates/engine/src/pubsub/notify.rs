//! Keyspace notifications: events of keys as messages on `__keyspace@DB__:KEY` and `__keyevent@DB__:EVENT`.

use super::PubSub;
use crate::events::Class;
use crate::outbox::Outbox;
use kara_base::ids::DbIndex;

/// Publishes one event, in the forms that `classes` asks for.
pub(crate) fn notify(
    pubsub: &PubSub,
    classes: Class,
    db: DbIndex,
    event: &str,
    key: &[u8],
    outbox: &mut Outbox,
) {
    if classes.contains(Class::KEYSPACE) {
        pubsub.publish(&channel("__keyspace@", db, key), event.as_bytes(), outbox);
    }
    if classes.contains(Class::KEYEVENT) {
        pubsub.publish(&channel("__keyevent@", db, event.as_bytes()), key, outbox);
    }
}

fn channel(prefix: &str, db: DbIndex, rest: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(prefix.len() + rest.len() + 16);
    name.extend_from_slice(prefix.as_bytes());
    name.extend_from_slice(itoa::Buffer::new().format(db.0).as_bytes());
    name.extend_from_slice(b"__:");
    name.extend_from_slice(rest);
    name
}
