//! Keys of any type, and the keyspace as a whole.

pub(crate) mod expiry;
pub(crate) mod keys;
mod migrate;
pub(crate) mod space;
mod wait;

use crate::spec::Spec;

/// The family's commands.
pub const COMMANDS: &[Spec] = &[
    keys::COPY,
    space::DBSIZE,
    keys::DEL,
    keys::EXISTS,
    expiry::EXPIRE,
    expiry::EXPIREAT,
    expiry::EXPIRETIME,
    space::FLUSHALL,
    space::FLUSHDB,
    space::KEYS,
    migrate::MIGRATE,
    keys::MOVE,
    keys::OBJECT,
    expiry::PERSIST,
    expiry::PEXPIRE,
    expiry::PEXPIREAT,
    expiry::PEXPIRETIME,
    expiry::PTTL,
    space::RANDOMKEY,
    keys::RENAME,
    keys::RENAMENX,
    space::SCAN,
    space::SWAPDB,
    keys::TOUCH,
    expiry::TTL,
    keys::TYPE,
    keys::UNLINK,
    wait::WAIT,
    wait::WAITAOF,
];
