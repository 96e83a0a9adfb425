//! Layer 1: bytes and structures: listpack, intset, hash table, B+ tree, stream blocks, HyperLogLog.
//!
//! Each is held against a naive model by random operations. Where that happens, and what changes form or width:
//!
//! | encoding | model test beside it | changes of width | changes of form, tested in `keyspace` (`value/`, `entry`) |
//! |---|---|---|---|
//! | listpack | `listpack` | every element's encoding in every other's place | |
//! | intset | `intset` | 2, 4, 8 bytes, by a value at either end | set: to listpack and table, back from both |
//! | integer table, member table | `int_table`, `member_table`, `large_set` | lengths of 1, 2, 4 bytes | set: from and to intset, listpack |
//! | field table | `field_table` | lengths of 1, 2, 4 bytes, with and without expiry | hash: from listpack, by size, length, expiry |
//! | quicklist | `quicklist` | plain and packed, open and compressed nodes | list: from and to listpack, changed limits |
//! | tree | `btree`, `sorted_set` | | sorted set: from listpack by size and length, back by `compact` |
//! | stream blocks, groups | `stream` | ids and values of every width, wrapping deltas | |
//! | HyperLogLog | `hyperloglog` | | sparse to dense by size and by value |
//! | string | `entry` | | integer, embedded, raw |
//!
//! `persist` loads values that were saved under other limits than the loading server's, in both directions.

pub mod btree;
pub mod field_table;
pub mod geohash;
pub mod hyperloglog;
pub mod int_table;
pub mod intset;
pub mod large_set;
pub mod listpack;
pub mod lzf;
pub mod member_table;
pub mod packed;
pub mod quicklist;
mod raw_bytes;
pub mod size_class;
pub mod sorted_set;
pub mod stream;
pub mod table;
