//! LCS: the longest common subsequence of two strings.

use crate::commands::prelude::*;

/// A run of bytes that both strings share, as inclusive index ranges.
struct Match {
    a: (usize, usize),
    b: (usize, usize),
}

pub(super) const LCS: Spec = Spec {
    name: "lcs",
    arity: Arity::AtLeast(3),
    flags: Flags::READONLY,
    acl: Acl::STRING,
    group: Group::String,
    since: "7.0.0",
    summary: "Finds the longest common subsequence of two string values.",
    complexity: "O(N*M) for strings of N and M bytes",
    key_specs: &[KeySpec::keys(1, 1, KeyFlags::RO.union(KeyFlags::ACCESS))],
    args: &[
        Arg { name: "key1", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "key2", kind: ArgKind::Key, key_spec: Some(0), ..Arg::NEW },
        Arg::word("len", "LEN").optional(),
        Arg::word("idx", "IDX").optional(),
        Arg {
            name: "min-match-len",
            kind: ArgKind::Integer,
            token: Some("MINMATCHLEN"),
            optional: true,
            ..Arg::NEW
        },
        Arg::word("withmatchlen", "WITHMATCHLEN").optional(),
    ],
    handler: Some(lcs),
    ..Spec::NEW
};

fn lcs(cx: &mut Cx) -> Outcome {
    let (mut idx, mut len_only, mut min_match, mut with_len) = (false, false, 0usize, false);
    let a = load(cx, cx.arg(1))?;
    let b = load(cx, cx.arg(2))?;
    let mut words = cx.args[3..].iter();
    while let Some(word) = words.next() {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        if is("IDX") {
            idx = true;
        } else if is("LEN") {
            len_only = true;
        } else if is("WITHMATCHLEN") {
            with_len = true;
        } else if is("MINMATCHLEN") {
            let given = parse_int(words.next().ok_or(CommandError::Syntax)?)?;
            min_match = usize::try_from(given).unwrap_or(0);
        } else {
            return Err(CommandError::Syntax);
        }
    }
    if idx && len_only {
        return Err(CommandError::text("ERR If you want both the length and indexes, please just use IDX."));
    }
    let table = Table::new(&a, &b, cx.config.proto_max_bulk_len)?;
    if len_only {
        cx.reply.integer(i64::from(table.at(a.len(), b.len())));
        return Ok(Effect::None);
    }
    let (common, matches) = table.walk(&a, &b);
    if !idx {
        cx.reply.bulk(&common);
        return Ok(Effect::None);
    }
    cx.reply.map(2);
    cx.reply.bulk(b"matches");
    let mark = cx.reply.defer();
    let mut shown = 0;
    for m in matches {
        let len = m.a.1 - m.a.0 + 1;
        if min_match > 0 && len < min_match {
            continue;
        }
        shown += 1;
        cx.reply.array(2 + usize::from(with_len));
        for (from, to) in [m.a, m.b] {
            cx.reply.array(2);
            cx.reply.integer(from as i64);
            cx.reply.integer(to as i64);
        }
        if with_len {
            cx.reply.integer(len as i64);
        }
    }
    cx.reply.end_array(mark, shown);
    cx.reply.bulk(b"len");
    cx.reply.integer(common.len() as i64);
    Ok(Effect::None)
}

fn load(cx: &mut Cx, key: &[u8]) -> Result<Vec<u8>, CommandError> {
    match cx.keys.read(key) {
        None => Ok(Vec::new()),
        Some(entry) => entry
            .string()
            .map(|value| value.to_cow().into_owned())
            .ok_or(CommandError::text("ERR The specified keys must contain string values")),
    }
}

/// Lengths of the longest common subsequences of all prefixes.
struct Table {
    lengths: Vec<u32>,
    width: usize,
}

impl Table {
    fn new(a: &[u8], b: &[u8], max_bytes: u64) -> Result<Self, CommandError> {
        let too_long = CommandError::text("ERR String too long for LCS");
        if a.len() >= u32::MAX as usize || b.len() >= u32::MAX as usize {
            return Err(too_long);
        }
        let width = b.len() + 1;
        let cells = (a.len() + 1).checked_mul(width).filter(|n| (*n as u64).saturating_mul(4) <= max_bytes);
        let mut lengths = Vec::new();
        let insufficient = || {
            CommandError::text("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len")
        };
        let cells = cells.ok_or_else(insufficient)?;
        lengths.try_reserve_exact(cells).map_err(|_| insufficient())?;
        lengths.resize(cells, 0u32);
        for (i, x) in a.iter().enumerate() {
            for (j, y) in b.iter().enumerate() {
                let at = (i + 1) * width + j + 1;
                lengths[at] = if x == y {
                    lengths[at - width - 1] + 1
                } else {
                    lengths[at - 1].max(lengths[at - width])
                };
            }
        }
        Ok(Table { lengths, width })
    }

    fn at(&self, i: usize, j: usize) -> u32 {
        self.lengths[i * self.width + j]
    }

    /// The subsequence, and its runs from the last to the first.
    fn walk(&self, a: &[u8], b: &[u8]) -> (Vec<u8>, Vec<Match>) {
        let (mut i, mut j) = (a.len(), b.len());
        let mut common = Vec::with_capacity(self.at(i, j) as usize);
        let mut matches: Vec<Match> = Vec::new();
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                common.push(a[i - 1]);
                match matches.last_mut().filter(|m| m.a.0 == i && m.b.0 == j) {
                    Some(run) => (run.a.0, run.b.0) = (i - 1, j - 1),
                    None => matches.push(Match { a: (i - 1, i - 1), b: (j - 1, j - 1) }),
                }
                (i, j) = (i - 1, j - 1);
            } else if self.at(i - 1, j) > self.at(i, j - 1) {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        common.reverse();
        (common, matches)
    }
}
