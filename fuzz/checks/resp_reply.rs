//! Any bytes, cut anywhere, give the same replies and the same error as the whole, and every reply that was read
//! is written and read again as the same. The first byte decides where the cuts are.

use kara_resp::{ReplyError, ReplyLimits, ReplyParser, ReplyStep, Value};

fn replies(pieces: std::slice::Chunks<'_, u8>) -> (Vec<Value>, Option<ReplyError>) {
    let limits = ReplyLimits { max_values: 10_000, max_depth: 32, ..ReplyLimits::default() };
    let mut parser = ReplyParser::new(limits);
    let (mut found, mut buf) = (Vec::new(), Vec::new());
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            match parser.parse(&buf) {
                Ok(ReplyStep::Complete { consumed, value }) => {
                    buf.drain(..consumed);
                    found.push(value);
                }
                Ok(ReplyStep::NeedMore { consumed, missing }) => {
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

/// One input.
pub fn check(data: &[u8]) {
    let Some((&cut, stream)) = data.split_first() else { return };
    let whole = replies(stream.chunks(stream.len().max(1)));
    let pieces = replies(stream.chunks(usize::from(cut).max(1)));
    // By their debug form, since NaN differs from itself.
    assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
    let mut written = Vec::new();
    whole.0.iter().for_each(|value| value.write_to(&mut written));
    let again = replies(written.chunks(written.len().max(1)));
    assert_eq!(format!("{:?}", (whole.0, None::<ReplyError>)), format!("{again:?}"));
}
