//! `valkey://user:password@host:port/db`, also as `redis://`, and `unix:///path` with `?db=N`.

use super::options::Target;
use super::words::leading_number;

/// Puts what the address says into the target; the rest stays as it is.
pub fn parse(text: &[u8], target: &mut Target) -> Result<(), String> {
    let Some(scheme_end) = text.windows(3).position(|part| part == b"://") else {
        return Err("Invalid URI scheme".into());
    };
    let scheme = text.get(..scheme_end).unwrap_or_default().to_ascii_lowercase();
    let rest = text.get(scheme_end + 3..).unwrap_or_default();
    match scheme.as_slice() {
        b"valkey" | b"redis" => network(rest, target),
        b"unix" | b"redis+unix" | b"valkey+unix" => socket(rest, target),
        b"valkeys" | b"rediss" => {
            Err(format!("{}:// needs TLS, which kara-cli doesn't have yet", String::from_utf8_lossy(&scheme)))
        }
        _ => Err("Invalid URI scheme".into()),
    }
}

fn network(mut rest: &[u8], target: &mut Target) -> Result<(), String> {
    rest = user_info(rest, target)?;
    if rest.is_empty() {
        return Ok(());
    }
    let path = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
    let (authority, db) = rest.split_at(path);
    if !authority.is_empty() {
        let (host, port) = match authority {
            [b'[', tail @ ..] => {
                let end = tail.iter().position(|byte| *byte == b']').unwrap_or(tail.len());
                (&tail[..end], tail.get(end + 1..).and_then(|after| after.strip_prefix(b":")))
            }
            _ => match authority.iter().position(|byte| *byte == b':') {
                Some(colon) => (&authority[..colon], authority.get(colon + 1..)),
                None => (authority, None),
            },
        };
        target.host = host.to_vec();
        if let Some(port) = port {
            target.port = leading_number(port);
            if !(0..=65535).contains(&target.port) {
                return Err("Invalid server port.".into());
            }
        }
    }
    if let Some(db @ [_, ..]) = db.strip_prefix(b"/") {
        target.db = leading_number(db);
    }
    Ok(())
}

fn socket(rest: &[u8], target: &mut Target) -> Result<(), String> {
    let rest = user_info(rest, target)?;
    let query = rest.iter().position(|byte| *byte == b'?').unwrap_or(rest.len());
    let (path, query) = rest.split_at(query);
    if path.is_empty() {
        return Err("unix:// needs a path".into());
    }
    target.socket = Some(percent_decoded(path)?);
    if let Some(db) = query.strip_prefix(b"?db=") {
        target.db = leading_number(db);
    }
    Ok(())
}

/// `user:password@` or `password@`, decoded; gives what follows.
fn user_info<'a>(rest: &'a [u8], target: &mut Target) -> Result<&'a [u8], String> {
    let Some(end) = rest.iter().position(|byte| *byte == b'@') else { return Ok(rest) };
    let (info, after) = (&rest[..end], rest.get(end + 1..).unwrap_or_default());
    let password = match info.iter().position(|byte| *byte == b':') {
        Some(colon) => {
            // `:password@` is what most libraries write for no user.
            target.user = Some(percent_decoded(&info[..colon])?).filter(|user| !user.is_empty());
            info.get(colon + 1..).unwrap_or_default()
        }
        None => info,
    };
    target.password = Some(percent_decoded(password)?);
    Ok(after)
}

fn percent_decoded(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let (Some(&high), Some(&low)) = (bytes.next(), bytes.next()) else {
            return Err("Incomplete URI encoding".into());
        };
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (Some(high), Some(low)) = (digit(high), digit(low)) else {
            return Err("Illegal character in URI encoding".into());
        };
        out.push(high << 4 | low);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Target, String> {
        let mut target = Target::default();
        parse(text.as_bytes(), &mut target).map(|()| target)
    }

    #[test]
    fn addresses() {
        let whole = parsed("valkey://us%65r:p%40ss@host:77/3").expect("an address");
        assert_eq!((whole.host.as_slice(), whole.port, whole.db), (&b"host"[..], 77, 3));
        assert_eq!(whole.user.as_deref(), Some(&b"user"[..]));
        assert_eq!(whole.password.as_deref(), Some(&b"p@ss"[..]));
        let six = parsed("REDIS://[::1]:7").expect("an address");
        assert_eq!((six.host.as_slice(), six.port), (&b"::1"[..], 7));
        assert_eq!(
            parsed("redis://:secret@h").expect("an address").password.as_deref(),
            Some(&b"secret"[..])
        );
        assert_eq!(parsed("redis:///4").expect("an address").db, 4);
        assert_eq!(
            parsed("unix:///tmp/x.sock?db=2").expect("an address").socket.as_deref(),
            Some(&b"/tmp/x.sock"[..])
        );
    }

    #[test]
    fn mistakes() {
        for (text, message) in [
            ("http://x", "Invalid URI scheme"),
            ("x", "Invalid URI scheme"),
            ("redis://a%@h", "Incomplete URI encoding"),
            ("redis://a%4x@h", "Illegal character in URI encoding"),
            ("redis://h:70000", "Invalid server port."),
        ] {
            assert_eq!(parsed(text), Err(message.into()), "{text}");
        }
    }
}
