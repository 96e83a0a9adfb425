//! Strings: whole values, ranges, counters and the longest common subsequence.

mod counters;
mod lcs;
mod multi;
pub(crate) mod ranges;
pub(crate) mod values;

use crate::spec::Spec;

/// The family's commands.
pub const COMMANDS: &[Spec] = &[
    ranges::APPEND,
    counters::DECR,
    counters::DECRBY,
    values::DELIFEQ,
    values::GET,
    values::GETDEL,
    values::GETEX,
    ranges::GETRANGE,
    values::GETSET,
    counters::INCR,
    counters::INCRBY,
    counters::INCRBYFLOAT,
    lcs::LCS,
    multi::MGET,
    multi::MSET,
    multi::MSETEX,
    multi::MSETNX,
    values::PSETEX,
    values::SET,
    values::SETEX,
    values::SETNX,
    ranges::SETRANGE,
    ranges::STRLEN,
    ranges::SUBSTR,
];
