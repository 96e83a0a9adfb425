//! Requests against the reference's answers, every split of streams, and random bytes.

use super::*;
use proptest::prelude::*;

/// Every request of a stream that arrives in the given pieces, then the error if one ended it.
fn requests_in_pieces(pieces: &[&[u8]], limits: &Limits) -> (Vec<Vec<Vec<u8>>>, Option<ProtocolError>) {
    let (mut state, mut request) = (ParseState::new(), Request::new());
    let (mut found, mut buf) = (Vec::new(), Vec::new());
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            match state.parse(&buf, limits, &mut request) {
                Ok(Step::Complete { consumed }) => {
                    let args: Vec<Vec<u8>> = request.iter(&buf).map(<[u8]>::to_vec).collect();
                    if let Some(sent) = request.as_sent(&buf) {
                        assert_eq!(sent, encode(&args));
                    }
                    found.push(args);
                    buf.drain(..consumed);
                    assert_eq!(state.memory(), 0);
                }
                Ok(Step::NeedMore { consumed, missing }) => {
                    assert!(missing > 0);
                    buf.drain(..consumed);
                    break;
                }
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}

fn requests(stream: &[u8]) -> (Vec<Vec<Vec<u8>>>, Option<ProtocolError>) {
    requests_in_pieces(&[stream], &Limits::default())
}

fn encode(args: &[Vec<u8>]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
    out
}

#[track_caller]
fn assert_requests(stream: &[u8], expected: &[&[&str]]) {
    let expected: Vec<Vec<Vec<u8>>> =
        expected.iter().map(|args| args.iter().map(|arg| arg.as_bytes().to_vec()).collect()).collect();
    assert_eq!(requests(stream), (expected, None), "{:?}", stream.escape_ascii().to_string());
}

#[test]
fn accepted_streams() {
    assert_requests(
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n*1\r\n$4\r\nPING\r\n",
        &[&["SET", "k", ""], &["PING"]],
    );
    assert_requests(
        b"\r\n\n   \r\n*0\r\n*-1\r\n*-10\r\nPING\r\n\tPING\t\r\nPING\r\r\n",
        &[&["PING"], &["PING"], &["PING"]],
    );
    assert_requests(
        b"PING\rfoo\r\nECHO \"a\\x41\" 'b c'\r\n\"\"\r\n",
        &[&["PING", "foo"], &["ECHO", "aA", "b c"], &[""]],
    );
    // Waiting, not wrong.
    for stream in [
        &b"*1\r"[..],
        b"*1",
        b"*1\n\n\n",
        b"*1\r\nx",
        b"*1\r\nxxxxxxxxxx",
        b"*1\r\n$4xxxx",
        b"*2147483647\r\n",
        b"*1\r\n$536870912\r\n",
        b"PING\r",
        b"PING\0\r\n",
        b"\0\r\nPING\r\n",
    ] {
        assert_requests(stream, &[]);
    }
}

#[test]
fn refused_streams() {
    use ProtocolError::*;
    let cases: &[(&[u8], ProtocolError)] = &[
        (b"*2147483648\r\n", MultibulkLength),
        (b"*\r\n", MultibulkLength),
        (b"* 1\r\n", MultibulkLength),
        (b"*+1\r\n", MultibulkLength),
        (b"*01\r\n", MultibulkLength),
        (b"*-0\r\n", MultibulkLength),
        (b"*99999999999999999999999\r\n", MultibulkLength),
        (b"*1\n$4\r\nPING\r\n", MultibulkLength),
        (b"*1\0\r\n", MultibulkLength),
        (b"*1\rX", Crlf),
        (b"*1\r\r\n", Crlf),
        (b"*1\r\n$4\rXPING\r\n", Crlf),
        (b"*1\r\n$4\r\nPINGxx", Crlf),
        (b"*1\r\n$-1\r\n", BulkLength),
        (b"*1\r\n$\r\n", BulkLength),
        (b"*1\r\n$04\r\nPING\r\n", BulkLength),
        (b"*1\r\n$4\nPING\r\n\r\n", BulkLength),
        (b"*1\r\n$536870913\r\n", BulkLength),
        (b"*1\r\n$18446744073709551616\r\n", BulkLength),
        (b"*1\r\nfoo\r\n", ExpectedDollar(b'f')),
        (b"*1\r\n\r\n", ExpectedDollar(b'\r')),
        (b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n", ExpectedDollar(b'f')),
        (b"ECHO \"abc\r\n", UnbalancedQuotes),
    ];
    for (stream, error) in cases {
        assert_eq!(requests(stream), (vec![], Some(*error)), "{:?}", stream.escape_ascii().to_string());
        let bytewise: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(requests_in_pieces(&bytewise, &Limits::default()), (vec![], Some(*error)));
    }
    assert_eq!(ExpectedDollar(0xff).reply(), b"ERR Protocol error: expected '$', got '\xff'");
    assert_eq!(MultibulkLength.to_string(), "Protocol error: invalid multibulk length");
}

#[test]
fn lines_without_end_are_refused_after_64k() {
    for (head, error) in [
        (&b"A"[..], ProtocolError::LongInline),
        (b"\0\n", ProtocolError::LongInline),
        (b"*1\n", ProtocolError::LongMultibulkCount),
        (b"*1\r\n$", ProtocolError::LongBulkCount),
    ] {
        let line = if head.len() == 5 { 4 } else { 0 };
        let mut stream = head.to_vec();
        stream.resize(line + 65536, b'1');
        assert_eq!(requests(&stream), (vec![], None));
        stream.push(b'1');
        assert_eq!(requests(&stream), (vec![], Some(error)));
        let pieces: Vec<&[u8]> = stream.chunks(1000).collect();
        assert_eq!(requests_in_pieces(&pieces, &Limits::default()), (vec![], Some(error)));
    }
    // What has its end is never too long.
    let mut stream = vec![b'A'; 100_000];
    stream.push(b'\n');
    assert_eq!(requests(&stream).0.len(), 1);
}

#[test]
fn unauthenticated_clients_get_little() {
    let limits = Limits { unauthenticated: true, ..Limits::default() };
    let error = |stream: &[u8]| requests_in_pieces(&[stream], &limits).1;
    assert_eq!(error(b"*11\r\n"), Some(ProtocolError::UnauthenticatedMultibulk));
    assert_eq!(error(b"*2147483648\r\n"), Some(ProtocolError::MultibulkLength));
    assert_eq!(error(b"*10\r\n"), None);
    assert_eq!(error(b"*1\r\n$16385\r\n"), Some(ProtocolError::UnauthenticatedBulk));
    assert_eq!(error(b"*1\r\n$536870913\r\n"), Some(ProtocolError::BulkLength));
    assert_eq!(error(b"*1\r\n$16384\r\n"), None);
}

#[test]
fn announced_sizes_reserve_nothing() {
    let (mut state, mut request) = (ParseState::new(), Request::new());
    let limits = Limits { max_bulk_len: i64::MAX, ..Limits::default() };
    let stream = b"*2147483647\r\n$999999999999999999\r\nx";
    let Ok(Step::NeedMore { consumed: 0, missing }) = state.parse(stream, &limits, &mut request) else {
        panic!("must wait");
    };
    assert_eq!(missing, 999_999_999_999_999_999 + 2 - 1);
    assert!(state.memory() == 0 && request.ranges.capacity() < 16);
}

#[test]
fn many_arguments_resume_where_they_stopped() {
    let args: Vec<Vec<u8>> = (0..100_000).map(|i| i.to_string().into_bytes()).collect();
    let stream = encode(&args);
    let (mut state, mut request) = (ParseState::new(), Request::new());
    let limits = Limits::default();
    for end in (1000..stream.len()).step_by(1000) {
        let step = state.parse(&stream[..end], &limits, &mut request);
        assert!(matches!(step, Ok(Step::NeedMore { consumed: 0, .. })));
        let partial = state.partial.as_ref().unwrap();
        assert!(end - partial.pos < 20, "parsed up to the end of what arrived");
        assert!(state.memory() <= end * 16);
    }
    let step = state.parse(&stream, &limits, &mut request);
    assert_eq!(step, Ok(Step::Complete { consumed: stream.len() }));
    assert!(request.iter(&stream).eq(args.iter().map(Vec::as_slice)));
    assert_eq!(request.arg(&stream, 99_999), Some(&b"99999"[..]));
    request.clear();
    assert!(request.ranges.capacity() <= KEPT_RANGES);
}

#[test]
fn every_split_point_of_a_stream() {
    let many: Vec<Vec<u8>> = (0..40).map(|i| vec![b'v'; i]).collect();
    let mut stream = b"\r\n*0\r\n*2\r\n$4\r\nECHO\r\n$12\r\nhello\r\nworld\r\n".to_vec();
    stream.extend_from_slice(b"ECHO 'x y'\r\n*-1\r\n");
    stream.extend_from_slice(&encode(&many));
    stream.extend_from_slice(b"\nPING\n*1\r\n$4\r\nQUIT\r\n");
    let whole = requests(&stream);
    assert_eq!(whole.0.len(), 5);
    for at in 0..=stream.len() {
        let (a, b) = stream.split_at(at);
        assert_eq!(requests_in_pieces(&[a, b], &Limits::default()), whole, "split at {at}");
    }
    for size in 1..10 {
        let pieces: Vec<&[u8]> = stream.chunks(size).collect();
        assert_eq!(requests_in_pieces(&pieces, &Limits::default()), whole, "pieces of {size}");
    }
}

/// What the fuzz target does, a fixed number of times: seeded mutations of valid streams, whole and in pieces.
#[test]
fn mutated_streams_never_panic_and_never_depend_on_pieces() {
    let mut rng = kara_base::rng::Rng::new(42);
    let seeds: [&[u8]; 4] = [
        b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n*1\r\n$4\r\nPING\r\n",
        b"*0\r\n*-1\r\n\r\nPING 'a b' \"\\x41\\n\"\r\nECHO x\r\n",
        b"*20\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n",
        b"*1\r\n$100\r\nxx",
    ];
    let alphabet = b"*$\r\n0123456789-\"'\\ x\0\xff";
    let limits = Limits { max_inline: 40, ..Limits::default() };
    for round in 0..20_000 {
        let mut stream = seeds[round % seeds.len()].to_vec();
        for _ in 0..1 + rng.below(4) {
            let at = rng.below(stream.len() as u64) as usize;
            let byte = alphabet[rng.below(alphabet.len() as u64) as usize];
            match rng.below(3) {
                0 => stream[at] = byte,
                1 => stream.insert(at, byte),
                _ => drop(stream.remove(at)),
            }
        }
        let (a, b) = stream.split_at(rng.below(stream.len() as u64 + 1) as usize);
        let split = requests_in_pieces(&[a, b], &limits);
        let bytewise: Vec<&[u8]> = stream.chunks(1).collect();
        let (whole, bytewise) =
            (requests_in_pieces(&[&stream], &limits), requests_in_pieces(&bytewise, &limits));
        // Whether a line is too long may show earlier when it comes in pieces; all else must agree.
        for pieces in [split, bytewise] {
            let too_long = matches!(
                pieces.1,
                Some(
                    ProtocolError::LongInline
                        | ProtocolError::LongBulkCount
                        | ProtocolError::LongMultibulkCount
                )
            );
            if too_long {
                assert!(whole.0.starts_with(&pieces.0));
            } else {
                assert_eq!(pieces, whole, "{:?}", stream.escape_ascii().to_string());
            }
        }
    }
}

proptest! {
    #[test]
    fn encoded_requests_come_back(
        stream in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..30), 0..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes: Vec<u8> = stream.iter().flat_map(|args| encode(args)).collect();
        let (a, b) = bytes.split_at(cut.index(bytes.len() + 1));
        prop_assert_eq!(requests_in_pieces(&[a, b], &Limits::default()), (stream, None));
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (found, _) = requests(&bytes);
        prop_assert!(found.iter().flatten().map(Vec::len).sum::<usize>() <= bytes.len());
    }
}

#[test]
fn a_request_is_known_as_sent_only_where_encoding_gives_the_same() {
    let long = format!("*2\r\n$3\r\nGET\r\n$1234\r\n{}\r\n", "x".repeat(1234));
    let cases: [(&str, Option<&str>); 7] = [
        ("*1\r\n$4\r\nPING\r\n*1\r\n", Some("*1\r\n$4\r\nPING\r\n")),
        ("*1\r\n$0\r\n\r\n", Some("*1\r\n$0\r\n\r\n")),
        (&long, Some(&long)),
        // Empty requests in front of it are passed over.
        ("\r\n*0\r\n*-1\r\n*1\r\n$4\r\nPING\r\n", Some("*1\r\n$4\r\nPING\r\n")),
        ("PING\r\n", None),
        ("*0\r\nPING\r\n", None),
        ("PING 'a b'\r\n", None),
    ];
    for (stream, wanted) in cases {
        let (mut state, mut request) = (ParseState::new(), Request::new());
        // What it held before doesn't matter.
        for _ in 0..2 {
            let step = state.parse(stream.as_bytes(), &Limits::default(), &mut request);
            assert!(matches!(step, Ok(Step::Complete { .. })), "{stream:?}: {step:?}");
            assert_eq!(request.as_sent(stream.as_bytes()), wanted.map(str::as_bytes), "{stream:?}");
        }
        state.parse(b"*1\r\n$4\r\nPI", &Limits::default(), &mut request).unwrap();
        assert_eq!(request.as_sent(b"*1\r\n$4\r\nPI"), None);
    }
}

/// Not a check but a figure: `cargo test --profile fast -p kara-resp -- --ignored --nocapture speed`.
#[test]
#[ignore = "a measurement"]
fn speed_of_pipelined_sets() {
    let one = encode(&[b"SET".to_vec(), b"key:000000001234".to_vec(), vec![b'x'; 16]]);
    let stream = one.repeat(1000);
    let (mut state, mut request) = (ParseState::new(), Request::new());
    let limits = Limits::default();
    let mut best_ns = u128::MAX;
    for _ in 0..200 {
        let (mut rest, mut bytes) = (&stream[..], 0);
        let start = std::time::Instant::now();
        while let Ok(Step::Complete { consumed }) = state.parse(rest, &limits, &mut request) {
            let mut args: SmallVec<[&[u8]; 8]> = SmallVec::new();
            request.args(rest, &mut args);
            bytes += args.iter().map(|arg| arg.len()).sum::<usize>();
            rest = &rest[consumed..];
        }
        best_ns = best_ns.min(start.elapsed().as_nanos());
        assert_eq!(bytes, 1000 * 35);
    }
    println!("{:.1} ns per SET", best_ns as f64 / 1000.0);
}
