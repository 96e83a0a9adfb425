//! Entries: every kind through its whole life.

use super::*;
use kara_base::number::parse_i64;
use proptest::prelude::*;

fn text(entry: &Entry) -> Vec<u8> {
    entry.string().unwrap().to_cow().into_owned()
}

#[test]
fn sizes_of_common_entries() {
    let size = |key: usize, value: &[u8], ttl: bool| {
        Entry::new_string(&vec![b'k'; key], StrValue::from_bytes(value), ttl.then_some(1)).memory_usage(0)
    };
    assert_eq!(size(16, b"12345678", false), 32);
    assert_eq!(size(16, b"abcdefgh", false), 32);
    assert_eq!(size(16, &[b'x'; 64], false), 96);
    assert_eq!(size(16, &[b'x'; 64], true), 96);
    assert_eq!(size(16, &[b'x'; 8], true), 48);
}

#[test]
fn canonical_integers_only() {
    for yes in ["0", "7", "-1", "10", "9223372036854775807", "-9223372036854775808"] {
        let number = parse_i64(yes.as_bytes()).unwrap();
        assert_eq!(number.to_string(), yes);
    }
    for no in [
        "",
        "-",
        "+1",
        "01",
        "-0",
        "-01",
        " 1",
        "1 ",
        "1.0",
        "9223372036854775808",
        "-9223372036854775809",
        "12a",
        "99999999999999999999",
    ] {
        assert_eq!(parse_i64(no.as_bytes()), None, "{no}");
    }
}

#[test]
fn shown_encoding_follows_the_reference() {
    // Key length, longest value that the reference shows as embstr; with and without expiry alike.
    for (key, longest) in [(1, 112), (10, 103), (20, 93), (31, 82), (32, 79), (40, 71), (63, 48), (100, 11)] {
        for expiry in [None, Some(1)] {
            let shown = |len: usize| {
                let value = vec![b'x'; len];
                Entry::new_string(&vec![b'k'; key], StrValue::Bytes(&value), expiry)
                    .string_encoding()
                    .unwrap()
            };
            assert_eq!(shown(longest), StringEncoding::Embstr, "{key}");
            assert_eq!(shown(longest + 1), StringEncoding::Raw, "{key}");
        }
    }
    let mut entry = Entry::new_string(b"k", StrValue::from_bytes(b"12"), None);
    assert_eq!(entry.string_encoding(), Some(StringEncoding::Int));
    entry.mark_raw();
    assert_eq!(entry.string_encoding(), Some(StringEncoding::Int));
    entry.string_mut().unwrap().append(b"3");
    assert_eq!(entry.string_encoding(), Some(StringEncoding::Raw));
    assert_eq!((entry.string().unwrap().as_int(), text(&entry)), (Some(123), b"123".to_vec()));
    // Raw stays raw under a new name and in a copy, also if it would fit.
    assert_eq!(entry.duplicate(b"copy").string_encoding(), Some(StringEncoding::Raw));
    assert_eq!(entry.with_key(b"renamed").string_encoding(), Some(StringEncoding::Raw));
    let long = Entry::new_string(&[b'k'; 100], StrValue::Bytes(&[b'x'; 70]), None);
    assert_eq!(long.with_key(b"k").string_encoding(), Some(StringEncoding::Raw));
    let mut entry = Entry::new_string(b"k", StrValue::Bytes(b"abc"), None);
    entry.mark_raw();
    assert_eq!(entry.string_encoding(), Some(StringEncoding::Raw));
    entry.set_string(StrValue::Bytes(b"abc"), None);
    assert_eq!(entry.string_encoding(), Some(StringEncoding::Embstr));
}

#[test]
fn collections_live_in_the_entry() {
    let mut entry = Entry::new(b"key", Value::Set(Default::default()), Some(5));
    assert_eq!((entry.kind(), entry.elements()), (Kind::Set, 0));
    assert!(entry.get::<Set>().is_some() && entry.get_mut::<Hash>().is_none());
    assert!(entry.string().is_none() && entry.string_mut().is_none() && entry.string_encoding().is_none());
    entry.set_lru(0xabcdef);
    let renamed = entry.with_key(&[b'r'; 300]);
    assert_eq!((renamed.kind(), renamed.lru(), renamed.expire_at_ms()), (Kind::Set, 0xabcdef, Some(5)));
    let mut copy = renamed.duplicate(b"copy");
    let old = copy.set_string(StrValue::Bytes(b"text"), None);
    assert!(matches!(old, Some(Value::Set(_))));
    assert_eq!((copy.lru(), text(&copy)), (0xabcdef, b"text".to_vec()));
    assert!(matches!(renamed.into_value(), Value::Set(_)));
    for kind in Kind::ALL {
        assert_eq!(Kind::from_meta(kind as u8), kind);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Set(Vec<u8>, Option<i64>),
    Expire(Option<i64>),
    Append(Vec<u8>),
    WriteAt(usize, Vec<u8>),
    Resize(usize),
    Replace(Vec<u8>),
    Rename(usize),
    Duplicate,
    Lru(u32),
    Tag(u16),
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<i64>().prop_map(|n| n.to_string().into_bytes()),
        proptest::collection::vec(any::<u8>(), 0..40),
        (0..3000usize, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]),
    ]
}

fn key_len() -> impl Strategy<Value = usize> {
    prop_oneof![0..40usize, 250..260usize, 0..3000usize]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (bytes(), any::<Option<i64>>()).prop_map(|(value, at)| Step::Set(value, at)),
        any::<Option<i64>>().prop_map(Step::Expire),
        bytes().prop_map(Step::Append),
        (0..2000usize, bytes()).prop_map(|(at, value)| Step::WriteAt(at, value)),
        (0..3000usize).prop_map(Step::Resize),
        bytes().prop_map(Step::Replace),
        key_len().prop_map(Step::Rename),
        Just(Step::Duplicate),
        (0..1u32 << 24).prop_map(Step::Lru),
        any::<u16>().prop_map(Step::Tag),
    ]
}

proptest! {
    #[test]
    fn behaves_like_a_struct(len in key_len(), value in bytes(), at: Option<i64>, steps in proptest::collection::vec(step(), 0..30)) {
        let mut key: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let (mut value, mut at, mut lru, mut tag) = (value, at, 0, 0);
        let mut entry = Entry::new_string(&key, StrValue::from_bytes(&value), at);
        // A value that was written as a whole is an integer if it reads like one; one that was edited is raw.
        let mut edited = false;
        for step in steps {
            edited = match step {
                Step::Set(..) => false,
                Step::Append(_) | Step::WriteAt(..) | Step::Resize(_) | Step::Replace(_) => true,
                _ => edited,
            };
            let was_raw = entry.string_encoding() == Some(StringEncoding::Raw);
            let is_set = matches!(step, Step::Set(..));
            match step {
                Step::Set(new, expiry) => {
                    prop_assert!(entry.set_string(StrValue::from_bytes(&new), expiry).is_none());
                    (value, at) = (new, expiry);
                }
                Step::Expire(expiry) => {
                    entry.set_expiry(expiry);
                    at = expiry;
                }
                Step::Append(more) => {
                    entry.string_mut().unwrap().append(&more);
                    value.extend_from_slice(&more);
                }
                Step::WriteAt(offset, new) => {
                    entry.string_mut().unwrap().write_at(offset, &new);
                    let end = offset + new.len();
                    if value.len() < end {
                        value.resize(end, 0);
                    }
                    value[offset..end].copy_from_slice(&new);
                }
                Step::Resize(len) => {
                    entry.string_mut().unwrap().resize(len);
                    value.resize(len, 0);
                }
                Step::Replace(new) => {
                    entry.string_mut().unwrap().replace(&new);
                    prop_assert!(entry.string_mut().unwrap().as_slice() == new);
                    value = new;
                }
                Step::Rename(len) => {
                    key = (0..len).map(|i| (i * 7) as u8).collect();
                    entry = entry.with_key(&key);
                    tag = 0;
                }
                Step::Duplicate => {
                    entry = entry.duplicate(&key);
                    tag = 0;
                }
                Step::Lru(clock) => {
                    entry.set_lru(clock);
                    entry.set_epoch(clock as u8);
                    prop_assert_eq!(entry.epoch(), clock as u8);
                    lru = clock;
                }
                Step::Tag(new) => {
                    let tagged = entry.into_tagged(new);
                    entry = Entry(NonNull::new(tagged).unwrap());
                    tag = new;
                }
            }
            let canonical = std::str::from_utf8(&value).ok().and_then(|text| Some((text, text.parse::<i64>().ok()?)));
            let is_int = !edited && canonical.is_some_and(|(text, number)| number.to_string() == text);
            prop_assert_eq!(entry.string_encoding() == Some(StringEncoding::Int), is_int);
            if edited || was_raw && !is_set {
                prop_assert_eq!(entry.string_encoding(), Some(StringEncoding::Raw));
            }
            prop_assert_eq!(entry.key(), &key[..]);
            prop_assert_eq!(text(&entry), &value[..]);
            prop_assert_eq!(entry.string().unwrap().len(), value.len());
            prop_assert_eq!(entry.expire_at_ms(), at);
            prop_assert_eq!(entry.lru(), lru);
            prop_assert_eq!(entry.0.as_ptr().addr() >> ADDR_BITS, usize::from(tag));
        }
    }
}
