use super::pop::Multiple;
use super::read::Search;
use super::*;
use kara_keyspace::value::list::List;

#[test]
fn indexes_from_both_ends() {
    for (start, stop, want) in [
        (0, -1, (0, 5)),
        (-2, -1, (3, 2)),
        (1, 100, (1, 4)),
        (-100, 0, (0, 1)),
        (3, 2, (0, 0)),
        (5, 9, (0, 0)),
        (i64::MIN, i64::MAX, (0, 5)),
        (i64::MAX, i64::MIN, (0, 0)),
    ] {
        assert_eq!(span(start, stop, 5), want, "{start} {stop}");
    }
    assert_eq!(span(0, -1, 0), (0, 0));
}

#[test]
fn multiple_pops() {
    let keys: [&[u8]; 2] = [b"a", b"b"];
    let parsed = Multiple::parse(&[b"2", b"a", b"b", b"Right", b"COUNT", b"3"]).map(|m| (m.end, m.count));
    assert_eq!(parsed, Ok((End::Back, 3)));
    assert_eq!(Multiple::parse(&[b"2", keys[0], keys[1], b"left"]).map(|m| m.keys.len()), Ok(2));
    for (args, error) in [
        (&[&b"0"[..], b"a", b"left"][..], "ERR numkeys should be greater than 0"),
        (&[b"x", b"a", b"left"], "ERR numkeys should be greater than 0"),
        (&[b"9223372036854775807", b"a", b"left"], "ERR syntax error"),
        (&[b"2", b"a", b"left"], "ERR syntax error"),
        (&[b"1", b"a", b"up"], "ERR syntax error"),
        (&[b"1", b"a", b"left", b"count"], "ERR syntax error"),
        (&[b"1", b"a", b"left", b"count", b"0"], "ERR count should be greater than 0"),
        (&[b"1", b"a", b"left", b"count", b"1", b"count", b"1"], "ERR syntax error"),
    ] {
        assert_eq!(
            Multiple::parse(args).map_err(|e| e.message().into_owned()),
            Err(error.as_bytes().to_vec())
        );
    }
}

#[test]
fn searches() {
    let limits = ListLimits { max_listpack_size: 2, ..ListLimits::default() };
    let mut list = List::new();
    for text in ["a", "b", "c", "1", "2", "3", "c", "c"] {
        list.push_back(text.as_bytes(), &limits);
    }
    let run = |text: &str, options: &[&[u8]]| Search::parse(options).map(|s| s.run(&list, text.as_bytes()));
    assert_eq!(run("c", &[]), Ok(vec![2]));
    assert_eq!(run("3", &[]), Ok(vec![5]));
    assert_eq!(run("c", &[b"RANK", b"2"]), Ok(vec![6]));
    assert_eq!(run("c", &[b"rank", b"-1"]), Ok(vec![7]));
    assert_eq!(run("c", &[b"count", b"0"]), Ok(vec![2, 6, 7]));
    assert_eq!(run("c", &[b"count", b"2", b"rank", b"-1"]), Ok(vec![7, 6]));
    assert_eq!(run("c", &[b"count", b"0", b"maxlen", b"7"]), Ok(vec![2, 6]));
    assert_eq!(run("c", &[b"count", b"0", b"maxlen", b"2", b"rank", b"-1"]), Ok(vec![7, 6]));
    assert_eq!(run("c", &[b"rank", b"9223372036854775807"]), Ok(vec![]));
    for bad in [&[&b"rank"[..], b"0"][..], &[b"rank"], &[b"count", b"-1"], &[b"maxlen", b"x"], &[b"x", b"1"]]
    {
        assert!(run("c", bad).is_err());
    }
}
