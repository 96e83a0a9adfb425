//! Stream blocks against an ordered map of entries.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

const SMALL: BlockLimits = BlockLimits { max_bytes: 200, max_entries: 5 };

fn id(seq: u64) -> StreamId {
    StreamId::new(1, seq)
}

fn add(log: &mut Log, id: StreamId, pairs: &[(&str, &str)], limits: BlockLimits) {
    let fields: Vec<_> = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    assert_eq!(log.append(id, &fields, limits), Ok(()));
}

fn pairs(entry: &Entry<'_>) -> Pairs {
    entry.fields.clone().map(|(name, value)| (name.to_bytes(), value.to_bytes())).collect()
}

fn ids(entries: impl Iterator<Item = StreamId>) -> Vec<u64> {
    entries.map(|id| id.seq).collect()
}

fn all(log: &Log) -> Vec<u64> {
    ids(log.range(StreamId::MIN, StreamId::MAX).map(|entry| entry.id))
}

#[test]
fn golden_block() {
    let mut log = Log::new();
    add(&mut log, StreamId::new(5, 1), &[("a", "1"), ("b", "xy")], BlockLimits::default());
    add(&mut log, StreamId::new(6, 0), &[("a", "-1"), ("b", "300")], BlockLimits::default());
    add(&mut log, StreamId::new(6, 1), &[("c", "z")], BlockLimits::default());
    log.delete(StreamId::new(6, 0));
    let (master, bytes) = log.blocks().next().unwrap();
    assert_eq!(master, StreamId::new(5, 1));
    // Taken from DUMP of a running 9.1.2 after the same commands.
    let want: &[u8] = &[
        66, 0, 0, 0, 25, 0, 2, 1, 1, 1, 2, 1, 0x81, b'a', 2, 0x81, b'b', 2, 0, 1, // master entry
        2, 1, 0, 1, 0, 1, 1, 1, 0x82, b'x', b'y', 3, 5, 1, // 5-1
        3, 1, 1, 1, 0xdf, 0xff, 2, 0xdf, 0xff, 2, 0xc1, 0x2c, 2, 5, 1, // 6-0, deleted
        0, 1, 1, 1, 0, 1, 1, 1, 0x81, b'c', 2, 0x81, b'z', 2, 6, 1, 0xff, // 6-1
    ];
    assert_eq!(bytes, want);
    assert_eq!(log.len(), 2);
}

#[test]
fn blocks_end_where_the_limits_say() {
    let mut log = Log::new();
    for seq in 1..=250 {
        add(&mut log, id(seq), &[("f", "v")], BlockLimits::default());
    }
    assert_eq!(ids(log.blocks().map(|(master, _)| master)), [1, 101, 201]);
    // An entry counts for its block after its deletion, too.
    log.delete(id(250));
    for seq in 251..=301 {
        add(&mut log, id(seq), &[("f", "v")], BlockLimits::default());
    }
    assert_eq!(ids(log.blocks().map(|(master, _)| master)), [1, 101, 201, 301]);
    let mut log = Log::new();
    for seq in 1..=3 {
        add(&mut log, id(seq), &[("f", &"v".repeat(60))], BlockLimits { max_bytes: 100, max_entries: 0 });
    }
    assert_eq!(log.blocks().count(), 3);
}

#[test]
fn approximate_trim_keeps_whole_blocks() {
    let mut log = Log::new();
    for seq in 1..=25 {
        add(&mut log, id(seq), &[("f", "v")], SMALL);
    }
    let trim = |to, approximate, limit| Trim { to, approximate, limit };
    assert_eq!(log.trim(trim(TrimTo::MaxLen(12), true, 0)), 10);
    assert_eq!(log.trim(trim(TrimTo::MaxLen(0), true, 7)), 5);
    assert_eq!(log.trim(trim(TrimTo::MinId(id(18)), true, 0)), 0);
    assert_eq!(log.trim(trim(TrimTo::MinId(id(18)), false, 0)), 2);
    assert_eq!(log.first_id(), id(18));
    assert_eq!(log.trim(trim(TrimTo::MaxLen(1), false, 0)), 7);
    assert_eq!(all(&log), [25]);
    assert_eq!(log.max_deleted_id(), StreamId::MIN);
    assert_eq!(log.trim(trim(TrimTo::MaxLen(0), false, 0)), 1);
    assert_eq!((log.first_id(), log.last_id(), log.len()), (StreamId::MIN, id(25), 0));
    assert_eq!(log.entries_added(), 25);
}

#[test]
fn ids_wrap_within_a_block() {
    let mut log = Log::new();
    let far = [StreamId::new(0, u64::MAX), StreamId::new(1, 0), StreamId::new(u64::MAX, 3), StreamId::MAX];
    for at in far {
        add(&mut log, at, &[("f", "v")], BlockLimits::default());
    }
    assert_eq!(log.blocks().count(), 1);
    assert!(log.range(StreamId::MIN, StreamId::MAX).map(|entry| entry.id).eq(far));
    assert!(log.range_rev(StreamId::MIN, StreamId::MAX).map(|entry| entry.id).eq(far.into_iter().rev()));
    assert_eq!(log.next_id(5), None);
    let copy = Log::from_blocks(log.blocks(), log.state()).unwrap();
    assert!(copy.range(StreamId::MIN, StreamId::MAX).map(|entry| entry.id).eq(far));
}

#[test]
fn memory_per_entry_is_bounded() {
    let mut log = Log::new();
    for seq in 1..=50_000u64 {
        let value = (seq * 7919 % 1_000_000).to_string();
        let fields = [(&b"temperature"[..], value.as_bytes()), (&b"humidity"[..], &b"55"[..])];
        log.append(StreamId::new(1_700_000_000_000 + seq * 13, 0), &fields, BlockLimits::default()).unwrap();
    }
    let per_entry = log.memory_usage(0) as f64 / 50_000.0;
    assert!(per_entry < 24.0, "{per_entry}");
}

#[test]
fn contradictions_are_corrupt() {
    let mut log = Log::new();
    for seq in 1..=7 {
        add(&mut log, id(seq), &[("f", "v")], SMALL);
    }
    log.delete(id(2));
    let blocks: Vec<_> = log.blocks().collect();
    let state = log.state();
    assert!(Log::from_blocks(blocks.clone(), state).is_ok());
    let swapped = [blocks[1], blocks[0]];
    assert!(Log::from_blocks(swapped, state).is_err());
    assert!(Log::from_blocks([blocks[0], blocks[0]], state).is_err());
    assert!(Log::from_blocks(blocks.clone(), LogState { last_id: id(6), ..state }).is_err());
    let empty = crate::listpack::Listpack::new();
    assert!(Log::from_blocks([(id(1), empty.as_bytes())], state).is_err());
    let bytes = blocks[0].1;
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut broken = bytes.to_vec();
            broken[at] ^= 1 << bit;
            // Refused, or sound enough for every operation.
            if let Ok(mut log) =
                Log::from_blocks([(id(1), &broken[..])], LogState { last_id: StreamId::MAX, ..state })
            {
                exercise(&mut log);
            }
        }
    }
}

#[test]
fn ids_turned_back_below_a_tombstone() {
    let mut log = Log::new();
    for seq in [1, 5, 9] {
        add(&mut log, id(seq), &[("f", "v")], SMALL);
    }
    log.delete(id(9));
    log.set_state(LogState { last_id: id(5), max_deleted_id: id(1), ..log.state() });
    add(&mut log, id(7), &[("f", "v")], SMALL);
    assert_eq!(all(&log), [1, 5, 7]);
    let mut copy = Log::from_blocks(log.blocks(), log.state()).unwrap();
    assert!(copy.delete(id(7)));
    assert!(!copy.delete(id(9)));
    log.delete(id(7));
    add(&mut log, id(8), &[("f", "v")], SMALL);
    log.delete(id(8));
    // All live ones go, the tombstone above the threshold keeps its block until the last id is turned back.
    assert_eq!(log.trim(Trim { to: TrimTo::MinId(id(6)), approximate: false, limit: 0 }), 2);
    assert_eq!((log.blocks().count(), log.len(), log.first_id()), (1, 0, StreamId::MIN));
    assert_eq!(Log::from_blocks(log.blocks(), log.state()).unwrap().blocks().count(), 0);
    log.set_state(LogState { last_id: StreamId::MIN, ..log.state() });
    add(&mut log, StreamId::new(0, 5), &[("f", "v")], SMALL);
    assert_eq!(all(&log), [5]);
}

fn exercise(log: &mut Log) {
    let forward: Vec<_> = log.range(StreamId::MIN, StreamId::MAX).map(|e| (e.id, pairs(&e))).collect();
    let mut back: Vec<_> = log.range_rev(StreamId::MIN, StreamId::MAX).map(|e| (e.id, pairs(&e))).collect();
    back.reverse();
    assert_eq!(forward, back);
    assert_eq!(forward.len() as u64, log.len());
    let mut trimmed = log.clone();
    trimmed.trim(Trim { to: TrimTo::MaxLen(1), approximate: false, limit: 0 });
    for (id, _) in forward {
        assert!(log.delete(id));
    }
    assert!(log.is_empty());
}

#[derive(Clone, Debug)]
enum Op {
    Add(u64, Pairs),
    Delete(u64),
    MaxLen(u64, bool),
    MinId(u64, bool),
    Range(u64, u64),
    Reload,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let text = || {
        prop_oneof![
            "[ab]".prop_map(String::into_bytes),
            (any::<i64>(), 0u32..64).prop_map(|(n, s)| (n >> s).to_string().into_bytes()),
            prop::collection::vec(any::<u8>(), 0..90),
        ]
    };
    let names = || prop_oneof![3 => Just(b"f".to_vec()), 1 => text()];
    let op = prop_oneof![
        8 => (1u64..4, prop::collection::vec((names(), text()), 1..4)).prop_map(|(gap, p)| Op::Add(gap, p)),
        3 => (0u64..80).prop_map(Op::Delete),
        1 => (0u64..40, any::<bool>()).prop_map(|(n, a)| Op::MaxLen(n, a)),
        1 => (0u64..80, any::<bool>()).prop_map(|(n, a)| Op::MinId(n, a)),
        2 => (0u64..80, 0u64..80).prop_map(|(a, b)| Op::Range(a, b)),
        1 => Just(Op::Reload),
    ];
    prop::collection::vec(op, 0..120)
}

proptest! {
    #[test]
    fn agrees_with_a_plain_map(ops in ops()) {
        let mut log = Log::new();
        let mut model: BTreeMap<u64, Pairs> = BTreeMap::new();
        let (mut last, mut added, mut max_deleted) = (0, 0, 0);
        for op in ops {
            match op {
                Op::Add(gap, entry) => {
                    last += gap;
                    added += 1;
                    let fields: Vec<_> = entry.iter().map(|(n, v)| (&n[..], &v[..])).collect();
                    prop_assert_eq!(log.append(id(last), &fields, SMALL), Ok(()));
                    prop_assert_eq!(log.append(id(last), &fields, SMALL), Err(AddError::NotAbove));
                    model.insert(last, entry);
                }
                Op::Delete(seq) => {
                    let was = model.remove(&seq).is_some();
                    prop_assert_eq!(log.delete(id(seq)), was);
                    if was {
                        max_deleted = max_deleted.max(seq);
                    }
                }
                Op::MaxLen(keep, approximate) => {
                    let before = model.len() as u64;
                    let gone = log.trim(Trim { to: TrimTo::MaxLen(keep), approximate, limit: 0 });
                    if !approximate {
                        prop_assert_eq!(gone, before.saturating_sub(keep));
                    }
                    prop_assert!(before - gone >= keep.min(before));
                    for _ in 0..gone {
                        model.pop_first();
                    }
                }
                Op::MinId(keep, approximate) => {
                    let below = model.range(..keep).count() as u64;
                    let gone = log.trim(Trim { to: TrimTo::MinId(id(keep)), approximate, limit: 0 });
                    prop_assert!(gone == below || (approximate && gone < below));
                    for _ in 0..gone {
                        model.pop_first();
                    }
                }
                Op::Range(a, b) => {
                    let want: Vec<_> =
                        if a <= b { model.range(a..=b).map(|(k, v)| (*k, v.clone())).collect() } else { vec![] };
                    let have: Vec<_> = log.range(id(a), id(b)).map(|e| (e.id.seq, pairs(&e))).collect();
                    prop_assert_eq!(&have, &want);
                    let mut back: Vec<_> = log.range_rev(id(a), id(b)).map(|e| (e.id.seq, pairs(&e))).collect();
                    back.reverse();
                    prop_assert_eq!(&back, &want);
                    prop_assert_eq!(log.get(id(a)).map(|e| pairs(&e)), model.get(&a).cloned());
                }
                Op::Reload => log = Log::from_blocks(log.blocks(), log.state()).unwrap(),
            }
            let model_ids: Vec<u64> = model.keys().copied().collect();
            prop_assert_eq!(all(&log), model_ids);
            prop_assert_eq!(log.len(), model.len() as u64);
            prop_assert_eq!(log.first_id(), model.keys().next().map_or(StreamId::MIN, |k| id(*k)));
            prop_assert_eq!(log.last_entry_id(), model.keys().next_back().map_or(StreamId::MIN, |k| id(*k)));
            prop_assert_eq!(log.entries_added(), added);
            prop_assert_eq!(log.last_id(), if added > 0 { id(last) } else { StreamId::MIN });
            prop_assert_eq!(log.max_deleted_id(), if max_deleted > 0 { id(max_deleted) } else { StreamId::MIN });
        }
    }

    /// Deltas of every width, in both parts of an id, also such as wrap: ids whose second part goes back.
    #[test]
    fn ids_of_every_width(
        parts in prop::collection::vec((any::<u64>(), 0u32..64, any::<u64>(), 0u32..64), 1..60),
        gone in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        bounds in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 4),
        max_entries in 1u64..30,
    ) {
        let ids: std::collections::BTreeSet<StreamId> =
            parts.into_iter().map(|(ms, a, seq, b)| StreamId::new(ms >> a, seq >> b)).collect();
        let mut model: Vec<StreamId> = ids.into_iter().filter(|id| *id != StreamId::MIN).collect();
        let mut log = Log::new();
        for at in &model {
            add(&mut log, *at, &[("f", &at.seq.to_string())], BlockLimits { max_bytes: 4096, max_entries });
        }
        for place in gone {
            if !model.is_empty() {
                prop_assert!(log.delete(model.remove(place.index(model.len()))));
            }
        }
        let copy = Log::from_blocks(log.blocks(), log.state()).unwrap();
        for log in [&log, &copy] {
            prop_assert!(log.range(StreamId::MIN, StreamId::MAX).map(|e| e.id).eq(model.iter().copied()));
            for entry in log.range(StreamId::MIN, StreamId::MAX) {
                prop_assert_eq!(pairs(&entry), [(b"f".to_vec(), entry.id.seq.to_string().into_bytes())]);
            }
            for (a, b) in &bounds {
                let (Some(a), Some(b)) = (model.get(a.index(model.len() + 1)), model.get(b.index(model.len() + 1)))
                else { continue };
                let inside = model.iter().copied().filter(|id| a <= id && id <= b);
                prop_assert!(log.range(*a, *b).map(|e| e.id).eq(inside.clone()));
                let back: Vec<_> = log.range_rev(*a, *b).map(|e| e.id).collect();
                prop_assert!(back.into_iter().rev().eq(inside));
                prop_assert_eq!(log.get(*a).map(|e| e.id), Some(*a));
            }
        }
    }

    #[test]
    fn broken_blocks_never_panic(flips in prop::collection::vec((0usize..400, any::<u8>()), 1..4)) {
        let mut log = Log::new();
        for seq in 1..=9 {
            let name = if seq % 3 == 0 { "other" } else { "f" };
            add(&mut log, id(seq), &[(name, "v"), ("n", "12345")], BlockLimits::default());
        }
        log.delete(id(4));
        let mut bytes = log.blocks().next().unwrap().1.to_vec();
        for (at, value) in flips {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        let state = LogState { last_id: StreamId::MAX, ..log.state() };
        if let Ok(mut log) = Log::from_blocks([(id(1), &bytes[..])], state) {
            exercise(&mut log);
        }
    }
}
