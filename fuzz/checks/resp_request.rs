//! Any bytes, cut anywhere, give the same requests and the same error as the whole; nothing panics, and memory
//! stays proportional to what arrived. The first byte decides where the cuts are.

use kara_resp::{Limits, ParseState, ProtocolError, Request, Step};

type Outcome = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>);

fn requests(pieces: std::slice::Chunks<'_, u8>, limits: &Limits) -> Outcome {
    let (mut state, mut request) = (ParseState::new(), Request::new());
    let (mut found, mut buf) = (Vec::new(), Vec::new());
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            match state.parse(&buf, limits, &mut request) {
                Ok(Step::Complete { consumed }) => {
                    found.push(request.iter(&buf).map(<[u8]>::to_vec).collect());
                    buf.drain(..consumed);
                }
                Ok(Step::NeedMore { consumed, missing }) => {
                    assert!(missing > 0);
                    buf.drain(..consumed);
                    assert!(state.memory() <= 64 + 16 * buf.len());
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
    for unauthenticated in [false, true] {
        let limits = Limits { unauthenticated, ..Limits::default() };
        let whole = requests(stream.chunks(stream.len().max(1)), &limits);
        let pieces = requests(stream.chunks(usize::from(cut).max(1)), &limits);
        // Lines of more than 64 KiB may be refused earlier when they come in pieces.
        if stream.len() <= limits.max_inline {
            assert_eq!(whole, pieces);
        }
    }
}
