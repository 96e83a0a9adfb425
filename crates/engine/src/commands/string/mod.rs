//! Strings: whole values, ranges, counters and the longest common subsequence.

mod counters;
mod lcs;
pub(crate) mod values;

use crate::spec::Spec;

/// The family's commands.
pub const COMMANDS: &[Spec] = &[
    values::APPEND,
    counters::DECR,
    counters::DECRBY,
    values::DELIFEQ,
    values::GET,
    values::GETDEL,
    values::GETEX,
    values::GETRANGE,
    values::GETSET,
    counters::INCR,
    counters::INCRBY,
    counters::INCRBYFLOAT,
    lcs::LCS,
    values::MGET,
    values::MSET,
    values::MSETEX,
    values::MSETNX,
    values::PSETEX,
    values::SET,
    values::SETEX,
    values::SETNX,
    values::SETRANGE,
    values::STRLEN,
    values::SUBSTR,
];
