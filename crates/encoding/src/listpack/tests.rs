//! Listpacks against a list of values.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => vec(any::<u8>(), 0..70),
        1 => (60usize..70, any::<u8>()).prop_map(|(n, b)| vec![b; n]),
        1 => (120usize..132, any::<u8>()).prop_map(|(n, b)| vec![b; n]),
        1 => (4090usize..4100, any::<u8>()).prop_map(|(n, b)| vec![b; n]),
        1 => (16_370usize..16_390, any::<u8>()).prop_map(|(n, b)| vec![b; n]),
        2 => any::<i64>().prop_map(|n| n.to_string().into_bytes()),
        4 => (any::<i64>(), 0u32..64).prop_map(|(n, s)| (n >> s).to_string().into_bytes()),
        2 => (0u32..63, -2i64..3).prop_map(|(s, d)| ((1i64 << s) + d).to_string().into_bytes()),
        2 => (0u32..63, -2i64..3).prop_map(|(s, d)| (-(1i64 << s) + d).to_string().into_bytes()),
        1 => Just(b"-0".to_vec()),
        1 => Just(b"007".to_vec()),
        1 => Just(b"9223372036854775808".to_vec()),
        1 => Just(b"-9223372036854775808".to_vec()),
    ]
}

#[derive(Clone, Debug)]
enum Op {
    Back(Vec<u8>),
    Front(Vec<u8>),
    Before(usize, Vec<u8>),
    After(usize, Vec<u8>),
    Replace(usize, Vec<u8>),
    Remove(usize, usize),
    DeleteRange(i64, usize),
    SplitAndSwap(usize),
    Extend(Vec<Vec<u8>>, bool),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        text().prop_map(Op::Back),
        text().prop_map(Op::Front),
        (any::<usize>(), text()).prop_map(|(i, t)| Op::Before(i, t)),
        (any::<usize>(), text()).prop_map(|(i, t)| Op::After(i, t)),
        (any::<usize>(), text()).prop_map(|(i, t)| Op::Replace(i, t)),
        (any::<usize>(), 0usize..3).prop_map(|(i, n)| Op::Remove(i, n)),
        (-12i64..12, 0usize..4).prop_map(|(i, n)| Op::DeleteRange(i, n)),
        any::<usize>().prop_map(Op::SplitAndSwap),
        (vec(text(), 0..4), any::<bool>()).prop_map(|(t, front)| Op::Extend(t, front)),
    ]
}

fn apply(list: &mut Listpack, model: &mut Vec<Vec<u8>>, op: Op) {
    let place = |i: usize, model: &Vec<Vec<u8>>| (!model.is_empty()).then(|| i % model.len());
    match op {
        Op::Back(t) => {
            list.push_back(&t).unwrap();
            model.push(t);
        }
        Op::Front(t) => {
            list.push_front(&t).unwrap();
            model.insert(0, t);
        }
        Op::Before(i, t) => {
            let Some(i) = place(i, model) else { return };
            let pos = list.seek(i as i64).unwrap();
            let pos = list.insert_before(pos, &t[..]).unwrap();
            assert!(list.get(pos).eq_bytes(&t));
            model.insert(i, t);
        }
        Op::After(i, t) => {
            let Some(i) = place(i, model) else { return };
            let pos = list.seek(i as i64 - model.len() as i64).unwrap();
            let pos = list.insert_after(pos, &t[..]).unwrap();
            assert!(list.get(pos).eq_bytes(&t));
            model.insert(i + 1, t);
        }
        Op::Replace(i, t) => {
            let Some(i) = place(i, model) else { return };
            let pos = list.seek(i as i64).unwrap();
            list.replace(pos, &t[..]).unwrap();
            model[i] = t;
        }
        Op::Remove(i, n) => {
            let Some(i) = place(i, model) else { return };
            let next = list.remove(list.seek(i as i64).unwrap(), n);
            model.drain(i..(i + n).min(model.len()));
            assert_eq!(next.map(|pos| list.get(pos).to_bytes()), model.get(i).cloned());
        }
        Op::DeleteRange(index, n) => {
            let start = if index < 0 { index + model.len() as i64 } else { index };
            let mut expected = 0;
            if (0..model.len() as i64).contains(&start) {
                let start = start as usize;
                expected = model.drain(start..(start + n).min(model.len())).count();
            }
            assert_eq!(list.delete_range(index, n), expected);
        }
        Op::SplitAndSwap(i) => {
            let i = i % (model.len() + 1);
            let mut tail = list.split_off(i);
            let mut model_tail = model.split_off(i);
            check(list, model);
            check(&tail, &model_tail);
            if i.is_multiple_of(2) {
                tail.append(list).unwrap();
                *list = tail;
                model_tail.append(model);
                *model = model_tail;
            } else {
                list.prepend(&tail).unwrap();
                model_tail.append(model);
                *model = model_tail;
            }
        }
        Op::Extend(texts, front) => {
            let elements = texts.iter().map(|t| Element::Str(t));
            if front {
                list.extend_front(elements).unwrap();
                model.splice(0..0, texts);
            } else {
                list.extend_back(elements).unwrap();
                model.extend(texts);
            }
        }
    }
}

fn check(list: &Listpack, model: &[Vec<u8>]) {
    assert_eq!(list.len(), model.len());
    assert_eq!(list.is_empty(), model.is_empty());
    assert!(list.iter().map(|e| e.to_bytes()).eq(model.iter().cloned()));
    assert!(list.iter().rev().map(|e| e.to_bytes()).eq(model.iter().rev().cloned()));
    for (element, text) in list.iter().zip(model) {
        assert_eq!(element.len(), text.len());
        assert!(element.eq_bytes(text));
    }
    let copy = Listpack::from_bytes_validated(list.as_bytes()).unwrap();
    assert_eq!(&copy, list);
}

proptest! {
    #[test]
    fn behaves_like_a_vector(ops in vec(op(), 1..60)) {
        let mut list = Listpack::new();
        let mut model = Vec::new();
        for op in ops {
            apply(&mut list, &mut model, op);
            check(&list, &model);
        }
        for (i, text) in model.iter().enumerate() {
            let first = model.iter().position(|other| other == text).unwrap();
            let found = list.find(list.first().unwrap(), text, 0).unwrap();
            prop_assert_eq!(found, list.seek(first as i64).unwrap());
            let pos = list.seek(i as i64).unwrap();
            prop_assert_eq!(list.iter_from(pos).count(), model.len() - i);
            prop_assert_eq!(list.iter_to(pos).count(), i + 1);
            if i % 2 == 0 {
                let key = (0..i + 1).step_by(2).find(|&k| &model[k] == text).unwrap();
                prop_assert_eq!(list.find(list.first().unwrap(), text, 1), list.seek(key as i64));
            }
        }
        prop_assert_eq!(list.seek(model.len() as i64), None);
        prop_assert_eq!(list.seek(-(model.len() as i64) - 1), None);
    }

    #[test]
    fn broken_payloads_are_refused_or_sound(
        texts in vec(text(), 0..6), flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in 0usize..4
    ) {
        let list: Listpack = texts.iter().map(|t| Element::Str(t)).collect();
        let mut blob = list.as_bytes().to_vec();
        for (place, value) in flips {
            let place = place.index(blob.len());
            blob[place] = value;
        }
        blob.truncate(blob.len() - cut);
        if let Ok(mut sound) = Listpack::from_bytes_validated(&blob) {
            let forward: Vec<_> = sound.iter().map(|e| e.to_bytes()).collect();
            let mut backward: Vec<_> = sound.iter().rev().map(|e| e.to_bytes()).collect();
            backward.reverse();
            prop_assert_eq!(&forward, &backward);
            prop_assert_eq!(forward.len(), sound.len());
            sound.push_back(b"more").unwrap();
            sound.remove(sound.first().unwrap(), 1);
        }
    }
}

#[test]
fn golden_bytes() {
    let mut list = Listpack::new();
    assert_eq!(list.as_bytes(), [7, 0, 0, 0, 0, 0, 0xff]);
    list.push_back(b"hello").unwrap();
    for value in [5, -1, 4095, 32_767, -8_388_608, 2_147_483_647, i64::MIN] {
        list.push_back_int(value).unwrap();
    }
    #[rustfmt::skip]
    let expected = [
        47, 0, 0, 0, 8, 0,
        0x85, b'h', b'e', b'l', b'l', b'o', 6,
        5, 1,
        0xdf, 0xff, 2,
        0xcf, 0xff, 2,
        0xf1, 0xff, 0x7f, 3,
        0xf2, 0, 0, 0x80, 4,
        0xf3, 0xff, 0xff, 0xff, 0x7f, 5,
        0xf4, 0, 0, 0, 0, 0, 0, 0, 0x80, 9,
        0xff,
    ];
    assert_eq!(list.as_bytes(), expected);

    let mut list = Listpack::new();
    list.push_back(&[b'x'; 64]).unwrap();
    list.push_back(&[b'y'; 4096]).unwrap();
    let blob = list.as_bytes();
    assert_eq!(&blob[6..9], [0xe0, 64, b'x']);
    assert_eq!(&blob[72..78], [66, 0xf0, 0, 0x10, 0, 0]);
    // 4101 = 32 * 128 + 5
    assert_eq!(&blob[blob.len() - 3..], [32, 0x80 | 5, 0xff]);
}

#[test]
fn counts_beyond_the_header() {
    let mut list = Listpack::new();
    for i in 0..70_000i64 {
        list.push_back_int(i).unwrap();
    }
    assert_eq!(list.len(), 70_000);
    assert_eq!(list.as_bytes()[4..6], [0xff, 0xff]);
    assert_eq!(list.get(list.seek(66_000).unwrap()), Element::Int(66_000));
    assert_eq!(list.get(list.seek(-2).unwrap()), Element::Int(69_998));
    assert_eq!(Listpack::from_bytes_validated(list.as_bytes()).unwrap().len(), 70_000);
    let tail = list.split_off(10);
    assert_eq!((list.len(), tail.len()), (10, 69_990));
    assert_eq!(list.delete_range(0, 100), 10);
    assert_eq!(list, Listpack::new());
}

#[test]
fn numbers_in_foreign_encodings_are_found() {
    // 5 in 16 bits, 6 as text.
    let blob = [14, 0, 0, 0, 2, 0, 0xf1, 5, 0, 3, 0x81, b'6', 2, 0xff];
    let list = Listpack::from_bytes_validated(&blob).unwrap();
    let first = list.first().unwrap();
    assert_eq!(list.find(first, b"5", 0), Some(first));
    assert_eq!(list.find(first, b"6", 0), list.last());
    let twice = [15, 0, 0, 0, 2, 0, 0xf1, 6, 0, 3, 0x81, b'6', 2, 0xff];
    assert_eq!(Listpack::from_bytes_unique(&twice), Err(Corrupt), "total is wrong");
    let twice = [14, 0, 0, 0, 2, 0, 0xf1, 6, 0, 3, 0x81, b'6', 2, 0xff];
    assert_eq!(Listpack::from_bytes_unique(&twice), Err(Corrupt));
    assert!(Listpack::from_bytes_unique(&blob).is_ok());
    assert!(Listpack::from_bytes_unique_every(&twice, 2).is_ok());
}

#[test]
fn limit_of_one_gib() {
    let mut list = Listpack::new();
    list.push_back(b"x").unwrap();
    assert!(list.would_fit(MAX_BYTES - list.bytes_len()));
    assert!(!list.would_fit(MAX_BYTES - list.bytes_len() + 1));
    assert!(!list.would_fit(usize::MAX));
}

#[test]
fn is_one_pointer() {
    assert_eq!(size_of::<Option<Listpack>>(), 8);
    assert_eq!(size_of::<Option<Pos>>(), 4);
}

#[test]
fn canonical_integers_only() {
    for text in ["0", "1", "-1", "9223372036854775807", "-9223372036854775808"] {
        assert_eq!(canonical_int(text.as_bytes()), text.parse().ok());
    }
    for text in ["", "-", "-0", "00", "+1", " 1", "1 ", "1a", "9223372036854775808", "-9223372036854775809"] {
        assert_eq!(canonical_int(text.as_bytes()), None, "{text}");
    }
}

/// Every encoding of an element in every other's place, at the front, in the middle and at the end: 7, 13, 16, 24, 32
/// and 64 bits of integer and three lengths of text, at the edges of each.
#[test]
fn every_width_in_place_of_every_other() {
    let ints = [0, 127, -1, 128, 4095, -4096, 4096, -4097, 32_767, -32_768, 32_768, -32_769, 8_388_607]
        .into_iter()
        .chain([-8_388_608, 8_388_608, -8_388_609, i64::from(i32::MAX), i64::from(i32::MIN)])
        .chain([i64::from(i32::MAX) + 1, i64::from(i32::MIN) - 1, i64::MAX, i64::MIN]);
    let texts = [0usize, 1, 63, 64, 4095, 4096].map(|len| vec![b't'; len]);
    let all: Vec<Vec<u8>> = ints.map(|value| value.to_string().into_bytes()).chain(texts).collect();
    let mut widths: Vec<usize> = all.iter().map(|text| Listpack::entry_bytes(text[..].into())).collect();
    widths.sort_unstable();
    widths.dedup();
    assert_eq!(widths, [2, 3, 4, 5, 6, 10, 65, 67, 4099, 4103]);
    for old in &all {
        for new in &all {
            for place in 0..3 {
                let mut list = Listpack::new();
                let mut model = vec![b"left".to_vec(), b"17".to_vec(), b"right".to_vec()];
                model[place].clone_from(old);
                model.iter().for_each(|text| list.push_back(text).unwrap());
                list.replace(list.seek(place as i64).unwrap(), &new[..]).unwrap();
                model[place].clone_from(new);
                check(&list, &model);
                list.remove(list.seek(place as i64).unwrap(), 1);
                model.remove(place);
                check(&list, &model);
            }
        }
    }
}
