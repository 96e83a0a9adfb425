//! Layer 1: bytes and structures: listpack, intset, hash table, B+ tree, stream blocks, HyperLogLog.

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
