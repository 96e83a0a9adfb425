//! Extra conditions on text settings, with the reference's complaints.

use std::net::{Ipv4Addr, Ipv6Addr};

type Checked = Result<(), &'static str>;

pub(super) const NO_RDMA: &str = "No RDMA building support.";

fn file_name(name: &[u8], empty: &'static str, path: &'static str) -> Checked {
    if name.is_empty() {
        Err(empty)
    } else if name.contains(&b'/') {
        Err(path)
    } else {
        Ok(())
    }
}

pub(super) fn dbfilename(name: &[u8]) -> Checked {
    file_name(name, "dbfilename can't be empty", "dbfilename can't be a path, just a filename")
}

pub(super) fn appendfilename(name: &[u8]) -> Checked {
    file_name(name, "appendfilename can't be empty", "appendfilename can't be a path, just a filename")
}

pub(super) fn appenddirname(name: &[u8]) -> Checked {
    file_name(name, "appenddirname can't be empty", "appenddirname can't be a path, just a dirname")
}

pub(super) fn dir(path: &[u8]) -> Checked {
    if path.is_empty() { Err("dir can't be empty") } else { Ok(()) }
}

pub(super) fn hostname(name: &[u8]) -> Checked {
    if name.len() >= 256 {
        return Err("Hostnames must be less than 256 characters");
    }
    if !name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.')) {
        return Err("Hostnames may only contain alphanumeric characters, hyphens or dots");
    }
    Ok(())
}

/// The bytes that may stand in the auxiliary fields of `nodes.conf`.
fn auxiliary(text: &[u8]) -> bool {
    text.iter()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'/' | b':' | b'_' | b'`' | 0x80..))
}

pub(super) fn human_nodename(name: &[u8]) -> Checked {
    if auxiliary(name) { Ok(()) } else { Err("Announced human node name contained invalid character") }
}

pub(super) fn announce_ip(address: &[u8]) -> Checked {
    // What fits the cluster bus's address field beside its terminator.
    if address.len() > 45 {
        return Err("cluster-announce-ip is too long");
    }
    if auxiliary(address) { Ok(()) } else { Err("cluster-announce-ip contains invalid character") }
}

fn parses<T: std::str::FromStr>(text: &[u8]) -> bool {
    text.is_empty() || std::str::from_utf8(text).is_ok_and(|text| text.parse::<T>().is_ok())
}

pub(super) fn ipv4(address: &[u8]) -> Checked {
    if parses::<Ipv4Addr>(address) { Ok(()) } else { Err("Invalid IPv4 address") }
}

pub(super) fn ipv6(address: &[u8]) -> Checked {
    if parses::<Ipv6Addr>(address) { Ok(()) } else { Err("Invalid IPv6 address") }
}

/// Collation is by bytes: the locales that say so are the ones there are.
pub(super) fn locale(name: &[u8]) -> Checked {
    let name = name.to_ascii_lowercase();
    if matches!(name.as_slice(), b"" | b"c" | b"posix" | b"c.utf-8" | b"c.utf8") {
        Ok(())
    } else {
        Err("Invalid locale name")
    }
}

pub(super) fn no_rdma_bind(_: &[u8]) -> Checked {
    Err(NO_RDMA)
}

/// The variables of `proc-title-template`.
pub const TITLE_VARIABLES: [&[u8]; 7] =
    [b"title", b"listen-addr", b"server-mode", b"port", b"tls-port", b"config-file", b"unixsocket"];

pub(super) fn proc_title(template: &[u8]) -> Checked {
    const BAD: &str = "template format is invalid or contains unknown variables";
    // While it is checked the title itself is empty, and a template that gives nothing is refused.
    let known = |name: &[u8]| -> Option<Vec<u8>> {
        TITLE_VARIABLES.contains(&name).then(|| if name == b"title" { Vec::new() } else { b"-".to_vec() })
    };
    match expand_template(template, known) {
        Some(text) if !text.trim_ascii().is_empty() => Ok(()),
        _ => Err(BAD),
    }
}

/// Replaces every `{name}` by what `variable` says; `{{` stands for a brace. None: an open brace or a name
/// that `variable` doesn't know.
pub fn expand_template(template: &[u8], variable: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(template.len());
    let mut rest = template;
    while let Some(open) = memchr::memchr(b'{', rest) {
        let (before, after) = rest.split_at(open);
        out.extend_from_slice(before);
        let after = &after[1..];
        if let Some(escaped) = after.strip_prefix(b"{") {
            out.push(b'{');
            rest = escaped;
            continue;
        }
        let close = memchr::memchr(b'}', after)?;
        out.extend_from_slice(&variable(&after[..close])?);
        rest = &after[close + 1..];
    }
    out.extend_from_slice(rest);
    Some(out)
}
