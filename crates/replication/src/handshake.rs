//! A replica's handshake with its primary: answers in, requests out.
//!
//! ```text
//! PING -> [AUTH] -> REPLCONF listening-port -> [REPLCONF ip-address] -> REPLCONF capa -> REPLCONF version -> PSYNC
//! ```
//! PSYNC's answer is CONTINUE, FULLRESYNC or an error; what follows it isn't for here, but [`Preamble`] reads the line
//! in front of a data set.

use crate::ids::{ReplId, is_id};

/// What a replica tells of itself.
#[derive(Clone, Debug, Default)]
pub struct Greeting {
    pub user: Vec<u8>,
    pub password: Vec<u8>,
    pub port: u16,
    pub announced_ip: Vec<u8>,
    pub version: String,
    /// The history to go on with, and the offset of the next byte.
    pub resume: Option<(ReplId, u64)>,
    /// The primary shall step back for us.
    pub failover: bool,
    /// A full sync may take two connections.
    pub dual_channel: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Ping,
    Auth,
    Port,
    Ip,
    Capa,
    Version,
    Psync,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    Send(Vec<u8>),
    /// The stream goes on where we were; under a new id, if there is one.
    Continue(Option<ReplId>),
    /// A data set comes, of that history and offset.
    Full(ReplId, u64),
    /// A data set comes, by a connection of its own.
    DualChannel,
    /// The primary can't now: try again later.
    Later(String),
    /// PSYNC isn't known there.
    Unknown(String),
    Fail(String),
}

/// The handshake under way.
#[derive(Debug)]
pub struct Handshake {
    greeting: Greeting,
    stage: Stage,
}

/// A request in the protocol.
pub fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    out
}

impl Handshake {
    /// The handshake and its first request.
    pub fn begin(greeting: Greeting) -> (Handshake, Vec<u8>) {
        (Handshake { greeting, stage: Stage::Ping }, request(&[b"PING"]))
    }

    /// An answer's line, without its end.
    pub fn line(&mut self, line: &[u8]) -> Next {
        let text = || String::from_utf8_lossy(line).into_owned();
        let is_error = line.first() == Some(&b'-');
        match self.stage {
            Stage::Ping => {
                let allowed = ["-NOAUTH", "-NOPERM", "-ERR operation not permitted"];
                if is_error && !allowed.iter().any(|start| line.starts_with(start.as_bytes())) {
                    return Next::Fail(format!("Error reply to PING from primary: '{}'", text()));
                }
                if self.greeting.password.is_empty() { self.port() } else { self.auth() }
            }
            Stage::Auth if is_error => Next::Fail(format!("Unable to AUTH to PRIMARY: {}", text())),
            Stage::Auth => self.port(),
            // What an old primary doesn't know isn't needed.
            Stage::Port if !self.greeting.announced_ip.is_empty() => {
                self.stage = Stage::Ip;
                Next::Send(request(&[b"REPLCONF", b"ip-address", &self.greeting.announced_ip]))
            }
            Stage::Port | Stage::Ip => {
                self.stage = Stage::Capa;
                let mut words: Vec<&[u8]> = vec![b"REPLCONF", b"capa", b"eof", b"capa", b"psync2"];
                if self.greeting.dual_channel {
                    words.extend([b"capa".as_slice(), b"dual-channel"]);
                }
                Next::Send(request(&words))
            }
            Stage::Capa => {
                self.stage = Stage::Version;
                Next::Send(request(&[b"REPLCONF", b"version", self.greeting.version.as_bytes()]))
            }
            Stage::Version => {
                self.stage = Stage::Psync;
                let (id, offset) = match &self.greeting.resume {
                    Some((id, next)) => (id.as_str(), next.to_string()),
                    None => ("?", "-1".to_owned()),
                };
                let mut words: Vec<&[u8]> = vec![b"PSYNC", id.as_bytes(), offset.as_bytes()];
                if self.greeting.failover {
                    words.push(b"FAILOVER");
                }
                Next::Send(request(&words))
            }
            Stage::Psync => Handshake::answer(line),
        }
    }

    fn auth(&mut self) -> Next {
        self.stage = Stage::Auth;
        let Greeting { user, password, .. } = &self.greeting;
        Next::Send(if user.is_empty() {
            request(&[b"AUTH", password])
        } else {
            request(&[b"AUTH", user, password])
        })
    }

    fn port(&mut self) -> Next {
        self.stage = Stage::Port;
        Next::Send(request(&[b"REPLCONF", b"listening-port", self.greeting.port.to_string().as_bytes()]))
    }

    /// What an answer to PSYNC means.
    pub fn answer(line: &[u8]) -> Next {
        let text = String::from_utf8_lossy(line).into_owned();
        let mut words = text.split(' ');
        match words.next() {
            Some("+CONTINUE") => match words.next().map(str::trim) {
                None | Some("") => Next::Continue(None),
                Some(id) if is_id(id.as_bytes()) => Next::Continue(Some(id.to_owned())),
                Some(_) => Next::Fail(format!("Unexpected reply to PSYNC from primary: {text}")),
            },
            Some("+FULLRESYNC") => {
                let id = words.next().filter(|id| is_id(id.as_bytes()));
                let offset = words.next().and_then(|n| n.trim().parse::<u64>().ok());
                match (id, offset) {
                    // Half of all offsets is more than any stream will have.
                    (Some(id), Some(offset)) if offset < u64::MAX / 2 => Next::Full(id.to_owned(), offset),
                    _ => Next::Fail("Primary replied with wrong +FULLRESYNC syntax.".to_owned()),
                }
            }
            Some("+DUALCHANNELSYNC") => Next::DualChannel,
            Some("-NOMASTERLINK" | "-LOADING") => Next::Later(text),
            Some(word) if word.starts_with('-') => Next::Unknown(text),
            _ => Next::Fail(format!("Unexpected reply to PSYNC from primary: {text}")),
        }
    }
}

/// The requests of a connection that a data set shall come by, each to be answered before the next.
pub fn rdb_channel_requests(greeting: &Greeting) -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    if !greeting.password.is_empty() {
        requests.push(if greeting.user.is_empty() {
            request(&[b"AUTH", &greeting.password])
        } else {
            request(&[b"AUTH", &greeting.user, &greeting.password])
        });
    }
    let port = greeting.port.to_string();
    let mut words: Vec<&[u8]> =
        vec![b"REPLCONF", b"capa", b"eof", b"rdb-only", b"1", b"rdb-channel", b"1", b"listening-port"];
    words.push(port.as_bytes());
    if !greeting.announced_ip.is_empty() {
        words.extend([b"ip-address".as_slice(), &greeting.announced_ip]);
    }
    requests.push(request(&words));
    // What an old primary doesn't know would spoil the others.
    requests.push(request(&[b"REPLCONF", b"version", greeting.version.as_bytes()]));
    requests
}

/// What stands in front of a data set that comes by a connection of its own: `$ENDOFF:offset id db client`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndOffset {
    pub offset: u64,
    pub id: ReplId,
    /// What the stream has selected behind the data set; `None`: nothing yet.
    pub db: Option<u32>,
    /// The connection's client at the primary.
    pub client: u64,
}

impl EndOffset {
    pub fn parse(line: &[u8]) -> Option<EndOffset> {
        let text = std::str::from_utf8(line).ok()?.strip_prefix("$ENDOFF:")?;
        let mut words = text.split(' ');
        let offset = words.next()?.parse::<u64>().ok().filter(|offset| *offset < u64::MAX / 2)?;
        let id = words.next().filter(|id| is_id(id.as_bytes()))?.to_owned();
        let db = words.next()?.parse::<i64>().ok()?;
        let client = words.next()?.trim().parse::<u64>().ok()?;
        words.next().is_none().then(|| EndOffset { offset, id, db: u32::try_from(db).ok(), client })
    }
}

/// How a data set is framed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preamble {
    /// So many bytes.
    Bytes(u64),
    /// Up to this mark of 40 bytes.
    Mark([u8; 40]),
}

impl Preamble {
    /// Parses the line in front; an empty one only says that the primary is alive.
    pub fn parse(line: &[u8]) -> Result<Option<Preamble>, String> {
        let text = || String::from_utf8_lossy(line).into_owned();
        match line {
            [] => Ok(None),
            [b'$', b'E', b'O', b'F', b':', mark @ ..] => match <[u8; 40]>::try_from(mark) {
                Ok(mark) => Ok(Some(Preamble::Mark(mark))),
                Err(_) => Err(format!("Bad mark from PRIMARY: {}", text())),
            },
            [b'$', digits @ ..] => {
                let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u64>().ok());
                number.map(|n| Some(Preamble::Bytes(n))).ok_or_else(|| format!("Bad length: {}", text()))
            }
            [b'-', ..] => Err(format!("PRIMARY aborted replication with an error: {}", text())),
            _ => Err(format!(
                "Bad protocol from PRIMARY, the first byte is not '$' (we received '{}'), are you sure the host and \
                 port are right?",
                text()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(next: Next) -> String {
        match next {
            Next::Send(bytes) => String::from_utf8(bytes).unwrap().replace("\r\n", " "),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_whole_handshake() {
        let greeting = Greeting {
            password: b"p".to_vec(),
            port: 7,
            announced_ip: b"h".to_vec(),
            version: "9.1.2".into(),
            ..Greeting::default()
        };
        let (mut shake, first) = Handshake::begin(greeting);
        assert_eq!(first, b"*1\r\n$4\r\nPING\r\n");
        assert!(sent(shake.line(b"-NOAUTH Authentication required.")).contains("AUTH"));
        assert!(sent(shake.line(b"+OK")).contains("listening-port $1 7"));
        assert!(sent(shake.line(b"+OK")).contains("ip-address"));
        assert!(sent(shake.line(b"-ERR what")).contains("psync2"));
        assert!(sent(shake.line(b"+OK")).contains("version"));
        assert!(sent(shake.line(b"+OK")).contains("PSYNC $1 ? $2 -1"));
        let id = "0123456789012345678901234567890123456789";
        assert_eq!(shake.line(format!("+FULLRESYNC {id} 12").as_bytes()), Next::Full(id.to_owned(), 12));
        assert_eq!(shake.line(b"+CONTINUE"), Next::Continue(None));
        assert!(matches!(shake.line(b"+FULLRESYNC x -3"), Next::Fail(_)));
        assert!(matches!(shake.line(b"-NOMASTERLINK no"), Next::Later(_)));
        assert!(matches!(shake.line(b"-ERR unknown"), Next::Unknown(_)));
        assert!(matches!(shake.line(&[0xff, 0]), Next::Fail(_)));
    }

    #[test]
    fn end_offsets() {
        let id = "0123456789012345678901234567890123456789";
        let line = format!("$ENDOFF:12 {id} -1 7");
        let end = EndOffset { offset: 12, id: id.to_owned(), db: None, client: 7 };
        assert_eq!(EndOffset::parse(line.as_bytes()), Some(end.clone()));
        let selected = EndOffset::parse(format!("$ENDOFF:12 {id} 3 7").as_bytes());
        assert_eq!(selected, Some(EndOffset { db: Some(3), ..end }));
        for bad in ["$ENDOFF:-1 x -1 7", "$ENDOFF:1", "+OK", "$ENDOFF:18446744073709551615 x 0 1"] {
            assert_eq!(EndOffset::parse(bad.as_bytes()), None);
        }
        assert_eq!(Handshake::answer(b"+DUALCHANNELSYNC"), Next::DualChannel);
    }

    #[test]
    fn preambles() {
        assert_eq!(Preamble::parse(b""), Ok(None));
        assert_eq!(Preamble::parse(b"$12"), Ok(Some(Preamble::Bytes(12))));
        assert_eq!(
            Preamble::parse(format!("$EOF:{}", "x".repeat(40)).as_bytes()),
            Ok(Some(Preamble::Mark([b'x'; 40])))
        );
        for bad in [&b"$-1"[..], b"$EOF:short", b"-ERR", b"*3", b"$99999999999999999999999"] {
            assert!(Preamble::parse(bad).is_err());
        }
    }
}
