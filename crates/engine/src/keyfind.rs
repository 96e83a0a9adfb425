//! Which arguments are keys. Extracted once per command; ACL, locking, cluster and execution use this one list.

use crate::spec::{Begin, Find, KeyFlags, KeySpec, Spec};

/// One key argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyAt {
    /// Index among the arguments.
    pub position: usize,
    pub flags: KeyFlags,
}

/// The arguments don't fit the key specs (wrong number of keys and the like).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidKeys;

/// Finds the keys of a command whose arity was checked; `found` is cleared first. Arguments that only name
/// channels or slots (`NOT_KEY`) are left out.
pub fn find_keys(spec: &Spec, args: &[&[u8]], found: &mut Vec<KeyAt>) -> Result<(), InvalidKeys> {
    found.clear();
    if let Some(get_keys) = spec.get_keys {
        let mut positions = Vec::new();
        get_keys(args, &mut positions).map_err(|()| InvalidKeys)?;
        found.extend(
            positions
                .into_iter()
                .filter(|(position, _)| *position < args.len())
                .map(|(position, flags)| KeyAt { position, flags }),
        );
        return Ok(());
    }
    for key_spec in spec.key_specs {
        if !key_spec.flags.contains(KeyFlags::NOT_KEY) {
            by_spec(key_spec, args, found)?;
        }
    }
    Ok(())
}

/// What a command line really does with a key whose spec says that it depends on the options.
pub fn effective_flags(full_name: &str, args: &[&[u8]], flags: KeyFlags) -> KeyFlags {
    if !flags.contains(KeyFlags::VARIABLE_FLAGS) {
        return flags;
    }
    let has =
        |from: usize, word: &str| args.iter().skip(from).any(|arg| arg.eq_ignore_ascii_case(word.as_bytes()));
    let read_and_written = KeyFlags::RW | KeyFlags::ACCESS | KeyFlags::UPDATE;
    match full_name {
        "set" if has(3, "GET") => read_and_written,
        "set" => KeyFlags::OW | KeyFlags::UPDATE,
        "bitfield" if has(2, "SET") || has(2, "INCRBY") => read_and_written,
        "bitfield" => KeyFlags::RO | KeyFlags::ACCESS,
        _ => flags,
    }
}

/// Adds the keys of one spec. A beginning that isn't there means no keys; a count that doesn't fit is an error.
fn by_spec(spec: &KeySpec, args: &[&[u8]], found: &mut Vec<KeyAt>) -> Result<(), InvalidKeys> {
    let first = match spec.begin {
        Begin::Index(index) => usize::from(index),
        Begin::Keyword { keyword, start_from } => match find_keyword(keyword, start_from, args) {
            Some(first) => first,
            None => return Ok(()),
        },
        Begin::Unknown => return Ok(()),
    };
    let (first, last, step) = match spec.find {
        Find::Range { last, step, limit } => {
            let end = if last >= 0 {
                first + last as usize
            } else if limit <= 1 {
                match args.len().checked_sub(usize::from(last.unsigned_abs())) {
                    Some(end) => end,
                    None => return Err(InvalidKeys),
                }
            } else {
                // Half of what follows, as in STREAMS key... id...
                let rest = args.len().saturating_sub(first);
                first + (rest / usize::from(limit)).saturating_sub(1)
            };
            (first, end, usize::from(step).max(1))
        }
        Find::KeyNum { num_index, first: offset, step } => {
            let text = args.get(first + usize::from(num_index)).ok_or(InvalidKeys)?;
            let count =
                std::str::from_utf8(text).ok().and_then(|t| t.parse::<usize>().ok()).ok_or(InvalidKeys)?;
            let step = usize::from(step).max(1);
            let start = first + usize::from(offset);
            // The count comes from outside: it may not exceed the arguments that are there.
            let Some(more) = count.checked_sub(1) else { return Ok(()) };
            let last = more.checked_mul(step).and_then(|n| n.checked_add(start)).ok_or(InvalidKeys)?;
            (start, last, step)
        }
        Find::Unknown => return Ok(()),
    };
    if last >= args.len() || first >= args.len() {
        return Err(InvalidKeys);
    }
    found.extend((first..=last).step_by(step).map(|position| KeyAt { position, flags: spec.flags }));
    Ok(())
}

/// The position after the keyword, searched forwards or (negative start) backwards.
fn find_keyword(keyword: &str, start_from: i16, args: &[&[u8]]) -> Option<usize> {
    let matches = |i: &usize| args[*i].eq_ignore_ascii_case(keyword.as_bytes());
    let at = if start_from >= 0 {
        (start_from as usize..args.len()).find(matches)?
    } else {
        let start = args.len().checked_sub(usize::from(start_from.unsigned_abs()))?;
        (1..=start).rev().find(matches)?
    };
    Some(at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(begin: Begin, find: Find, args: &[&[u8]]) -> Result<Vec<usize>, InvalidKeys> {
        let spec = KeySpec { notes: "", flags: KeyFlags::RO, begin, find };
        let mut found = Vec::new();
        by_spec(&spec, args, &mut found)?;
        Ok(found.iter().map(|k| k.position).collect())
    }

    #[test]
    fn ranges_counts_and_keywords() {
        let range = |last, step, limit| Find::Range { last, step, limit };
        assert_eq!(keys(Begin::Index(1), range(0, 1, 0), &[b"get", b"a"]), Ok(vec![1]));
        assert_eq!(
            keys(Begin::Index(1), range(-1, 2, 0), &[b"mset", b"a", b"1", b"b", b"2"]),
            Ok(vec![1, 3])
        );
        let streams = Begin::Keyword { keyword: "STREAMS", start_from: 1 };
        let args: &[&[u8]] = &[b"xread", b"streams", b"a", b"b", b"0", b"0"];
        assert_eq!(keys(streams, range(-1, 1, 2), args), Ok(vec![2, 3]));
        let keynum = Find::KeyNum { num_index: 0, first: 1, step: 1 };
        assert_eq!(keys(Begin::Index(1), keynum, &[b"lmpop", b"2", b"a", b"b", b"left"]), Ok(vec![2, 3]));
    }

    #[test]
    fn counts_from_outside_are_refused_not_believed() {
        let keynum = Find::KeyNum { num_index: 0, first: 1, step: 1 };
        for count in ["9", "18446744073709551615", "-1", "x", ""] {
            assert_eq!(keys(Begin::Index(1), keynum, &[b"lmpop", count.as_bytes(), b"a"]), Err(InvalidKeys));
        }
    }
}
