use super::decode::{DecodeOptions, ValueLimits};
use super::encode::EncodeOptions;
use super::payload::{Payload, dump};
use super::*;
use kara_base::hash::HashSeed;
use kara_encoding::stream::{BlockLimits, Group, StreamId};
use kara_keyspace::value::hash::{Hash, SetExpiry};
use kara_keyspace::value::list::{End, List};
use kara_keyspace::value::set::Set;
use kara_keyspace::value::stream::{NewId, Stream};
use kara_keyspace::value::zset::ZSet;
use kara_keyspace::{Entry, Value};
use proptest::prelude::*;

fn options() -> DecodeOptions {
    let limits = ValueLimits::with_seed(HashSeed { k0: 1, k1: 2 });
    DecodeOptions { limits, version: NEWEST, drop_fields_before_ms: None }
}

/// Everything that can be told of a value, in an order of its own.
fn told(entry: &Entry) -> Vec<String> {
    let text = |bytes: Vec<u8>| bytes.escape_ascii().to_string();
    let mut out = vec![format!("{:?}", entry.kind())];
    if let Some(s) = entry.string() {
        out.push(text(s.to_cow().into_owned()));
    }
    if let Some(list) = entry.get::<List>() {
        out.push(list.encoding_name().into());
        let mut walk = list.iter();
        while let Some(element) = walk.next() {
            out.push(text(element.to_bytes()));
        }
    }
    let from = out.len();
    if let Some(set) = entry.get::<Set>() {
        out.push(set.encoding_name().into());
        out.extend(set.iter().map(|m| text(m.to_bytes())));
    }
    if let Some(set) = entry.get::<ZSet>() {
        out.push(set.encoding_name().into());
        out.extend(set.iter().map(|(m, s)| format!("{} {s:?}", text(m.to_bytes()))));
    }
    if let Some(hash) = entry.get::<Hash>() {
        out.push(hash.encoding_name().into());
        let pair = |p: kara_keyspace::value::hash::Pair<'_>| {
            format!("{} {} {:?}", text(p.field.to_bytes()), text(p.value.to_bytes()), p.expiry_ms)
        };
        out.extend(hash.iter().map(pair));
    }
    out[from..].sort();
    if let Some(stream) = entry.get::<Stream>() {
        for e in stream.log().range(StreamId::MIN, StreamId::MAX) {
            let fields: Vec<_> = e.fields.map(|(f, v)| (text(f.to_bytes()), text(v.to_bytes()))).collect();
            out.push(format!("{} {fields:?}", e.id));
        }
        out.push(format!("{:?}", stream.log().state()));
        for (name, group) in stream.groups() {
            out.push(format!("{} {} {:?}", text(name.to_vec()), group.last_id, group.entries_read));
            for consumer in group.consumers() {
                let id = group.find_consumer(consumer.name()).unwrap();
                let pending: Vec<_> = group
                    .consumer_pending_range(id, StreamId::MIN..=StreamId::MAX)
                    .map(|(id, p)| (id, p.delivered_ms, p.deliveries))
                    .collect();
                out.push(format!(
                    "{:?} {:?} {:?} {pending:?}",
                    consumer.name(),
                    consumer.seen_ms,
                    consumer.active_ms
                ));
            }
        }
    }
    out
}

fn stream(entries: &[(u16, Vec<u8>)], read: usize) -> Stream {
    let mut stream = Stream::new();
    let limits = BlockLimits { max_bytes: 4096, max_entries: 7 };
    for (gap, value) in entries {
        let ms = stream.log().last_id().ms + u64::from(*gap) + 1;
        let id = NewId::Exact(StreamId::new(ms, u64::from(*gap)));
        stream.add(id, &[(b"field", value), (b"n", b"12")], 0, limits).unwrap();
    }
    stream.insert_group(b"group", Group::new(StreamId::MIN, Some(0)));
    let (a, _) = stream.group_mut(b"group").unwrap().get_or_create_consumer(b"a", 77);
    stream.group_mut(b"group").unwrap().get_or_create_consumer(b"idle", 78);
    stream.read_new(b"group", a, read, false, 99, |_, _| {});
    if let Some(id) = stream.log().range(StreamId::MIN, StreamId::MAX).nth(1).map(|e| e.id) {
        stream.delete(id);
    }
    stream
}

fn a_value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "[a-z]{0,6}".prop_map(String::into_bytes),
        any::<i64>().prop_map(|n| n.to_string().into_bytes()),
        any::<i8>().prop_map(|n| n.to_string().into_bytes()),
        proptest::collection::vec(any::<u8>(), 0..90),
        (0usize..300).prop_map(|n| vec![b'x'; n]),
    ];
    let texts = proptest::collection::vec(text.clone(), 1..200);
    let limits = options().limits;
    prop_oneof![
        text.clone().prop_map(Value::from_string),
        texts.clone().prop_map(move |texts| {
            let mut list = List::new();
            texts.iter().for_each(|t| list.push(End::Back, t, &limits.list));
            list.settle(&limits.list);
            Value::List(list)
        }),
        texts.clone().prop_map(move |texts| {
            let mut set = Set::new();
            for text in &texts {
                set.add(text.as_slice(), &limits.set);
            }
            Value::Set(set)
        }),
        proptest::collection::btree_map(text.clone(), any::<f64>(), 1..200).prop_map(move |items| {
            let items = items.into_iter().filter(|(_, s)| !s.is_nan()).map(|(m, s)| (s + 0.0, m));
            let mut items: Vec<_> = items.collect();
            items.push((1.5, b"one at least that no other is".to_vec()));
            Value::ZSet(ZSet::from_items(items, &limits.zset))
        }),
        proptest::collection::btree_map(text.clone(), (text.clone(), any::<Option<u32>>()), 1..150).prop_map(
            move |fields| {
                let mut hash = Hash::new();
                for (field, (value, at)) in &fields {
                    let expiry =
                        at.filter(|at| at % 3 == 0).map_or(SetExpiry::Clear, |at| SetExpiry::At(at.into()));
                    hash.set(field, value, expiry, 0, &limits.hash);
                }
                Value::Hash(hash)
            }
        ),
        (proptest::collection::vec((any::<u16>(), text), 1..40), 0usize..50)
            .prop_map(|(entries, read)| Value::Stream(stream(&entries, read))),
    ]
}

fn reload(payload: &[u8]) -> Result<Entry, RdbError> {
    let (value, _) = Payload::check(payload, false, true).expect("a footer").load(&options())?;
    Ok(Entry::new(b"k", value, None))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_value_comes_back(value in a_value(), compress: bool) {
        let entry = Entry::new(b"k", value, None);
        let version = Version::Valkey80;
        let payload = dump(&entry, EncodeOptions { version, compress }).unwrap();
        prop_assert!(Payload::check(&payload, false, false).is_some());
        prop_assert_eq!(told(&reload(&payload).unwrap()), told(&entry));
    }

    /// Saved under one server's limits, loaded under another's: the same contents, in the form that the loading one's
    /// limits ask for, in both directions.
    #[test]
    fn values_take_the_form_of_the_loading_server(value in a_value(), most in 0usize..220, longest in 1usize..100) {
        let entry = Entry::new(b"k", value, None);
        let payload = dump(&entry, EncodeOptions::default()).unwrap();
        let mut options = options();
        options.limits.set.max_intset_entries = most;
        options.limits.set.max_listpack_entries = most;
        options.limits.set.max_listpack_value = longest;
        options.limits.hash.max_listpack_entries = most;
        options.limits.hash.max_listpack_value = longest;
        options.limits.zset.max_listpack_entries = most;
        options.limits.zset.max_listpack_value = longest;
        let (value, _) = Payload::check(&payload, false, true).expect("a footer").load(&options).unwrap();
        let loaded = Entry::new(b"k", value, None);
        let contents = |entry: &Entry| {
            let mut all = told(entry);
            all.retain(|line| !["intset", "listpack", "hashtable", "skiplist"].contains(&line.as_str()));
            all.sort();
            all
        };
        prop_assert_eq!(contents(&loaded), contents(&entry));
        if let Some(set) = loaded.get::<Set>() {
            let lengths = set.iter().map(|m| m.to_bytes().len()).max().unwrap_or(0);
            let ints = set.iter().all(|m| m.as_int().is_some());
            match set.encoding_name() {
                "intset" => prop_assert!(ints && set.len() <= most),
                "listpack" => prop_assert!(set.len() <= most && lengths <= longest),
                // From a file's table: integers alone, that an intset may hold, become one.
                _ => prop_assert!(set.len() > most || lengths > longest),
            }
        }
        if let Some(hash) = loaded.get::<Hash>() {
            let lengths = hash.iter().map(|p| p.field.len().max(p.value.len())).max().unwrap_or(0);
            let small = hash.len() <= most && lengths <= longest && hash.expiring() == 0;
            prop_assert_eq!(hash.encoding_name(), if small { "listpack" } else { "hashtable" });
        }
        if let Some(zset) = loaded.get::<ZSet>() {
            let lengths = zset.iter().map(|(m, _)| m.to_bytes().len()).max().unwrap_or(0);
            if zset.encoding_name() == "listpack" {
                prop_assert!(zset.len() <= most);
            } else {
                prop_assert!(zset.len() > most || lengths > longest);
            }
        }
    }

    #[test]
    fn mutated_payloads_are_refused_or_load_into_sound_values(
        value in a_value(),
        hits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        kind in proptest::option::of(0u8..30),
        cut in any::<proptest::sample::Index>(),
    ) {
        let entry = Entry::new(b"k", value, None);
        let mut payload = dump(&entry, EncodeOptions::default()).unwrap();
        for (place, bits) in hits {
            let place = place.index(payload.len() - 10);
            payload[place] ^= bits;
        }
        if let Some(kind) = kind {
            payload[0] = kind;
        }
        if cut.index(4) == 0 {
            let at = cut.index(payload.len() - 10);
            payload.drain(at..payload.len() - 10);
        }
        if let Ok(entry) = reload(&payload) {
            let again = dump(&entry, EncodeOptions::default()).unwrap();
            prop_assert_eq!(told(&reload(&again).unwrap()), told(&entry));
        }
    }
}

#[test]
fn lengths_in_all_their_forms() {
    for n in [0, 63, 64, 16383, 16384, u64::from(u32::MAX), u64::from(u32::MAX) + 1, u64::MAX] {
        let mut encoder = encode::Encoder::new(EncodeOptions::default());
        encoder.length(n);
        let mut reader = source::Reader::new(source::Bytes::new(&encoder.out));
        assert_eq!(reader.length().unwrap(), n);
        assert!(reader.source.rest().is_empty());
    }
}

#[test]
fn lying_lengths_allocate_nothing() {
    // Counts and lengths of 2^40 and more, with nothing behind them.
    let huge = b"\x81\x00\x00\x01\x00\x00\x00\x00\x00";
    for kind in [0u8, 1, 2, 3, 4, 5, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22] {
        // A plain string of one byte would be one.
        let first = if kind == 0 { &b"\x20"[..] } else { b"\x01" };
        for body in [huge.to_vec(), [&b"\xc3\x05"[..], huge, b"abcde"].concat(), [first, huge].concat()] {
            let mut reader = source::Reader::new(source::Bytes::new(&body));
            assert!(decode::value(&mut reader, kind, &options()).is_err(), "{kind}");
            let mut reader = source::Reader::new(source::Buffered::new(&body[..], true));
            assert!(decode::value(&mut reader, kind, &options()).is_err(), "{kind}");
        }
    }
}

#[test]
fn pending_entries_have_one_consumer() {
    let payload = dump(
        &Entry::new(b"k", Value::Stream(stream(&[(1, vec![]), (2, vec![]), (9, vec![])], 3)), None),
        EncodeOptions::default(),
    )
    .unwrap();
    assert!(reload(&payload).is_ok());
    // Two consumers in the place of one, both with the same entry: ids stand at the end of each.
    let at = payload.windows(6).position(|w| w == b"\x04idle\x4e").expect("the consumer without entries");
    let mut shared = payload.clone();
    let end = shared.len() - 10;
    assert_eq!(shared[end - 1], 0, "no pending entries");
    shared[end - 1] = 1;
    let first = payload[at - 16..at].to_vec();
    shared.splice(end..end, first);
    assert!(matches!(
        reload(&shared),
        Err(RdbError::Corrupt("Consumer entry not found in group global PEL"))
    ));
}

#[test]
fn foreign_hashes_only_in_foreign_versions() {
    let body = b"\x18\x10\0\0\0\0\0\0\0\x02\x00\x01a\x01b\x05\x01c\x01d";
    let mut payload = body.to_vec();
    payload.extend_from_slice(&12u16.to_le_bytes());
    payload.extend_from_slice(&kara_base::crc64::crc64(0, &payload).to_le_bytes());
    assert!(Payload::check(&payload, false, false).is_none(), "strict");
    let (value, _) = Payload::check(&payload, true, false).unwrap().load(&options()).unwrap();
    let entry = Entry::new(b"k", value, None);
    assert_eq!(told(&entry)[1..], ["a b None", "c d Some(20)", "hashtable"].map(String::from));
    assert!(!decode::is_value_type(24, NEWEST));
}
