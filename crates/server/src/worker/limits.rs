//! `client-output-buffer-limit`: who has too much unread output.

use super::End;
use crate::conn::Conn;
use kara_engine::clients::ClientKind;
use kara_engine::config::{BufferLimit, Config};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// Unread replies of a client that has yet to authenticate.
const UNAUTHENTICATED_OUTPUT: usize = 1024;
/// Output that no limit is looked up for: the reference keeps as much in a buffer of each client.
const SMALL_OUTPUT: usize = 16 << 10;

/// Whether so much output can't be beyond a limit.
#[inline]
pub(super) fn is_small(bytes: usize) -> bool {
    bytes <= SMALL_OUTPUT
}

/// The limit of the client's class.
fn limit_of(config: &Config, conn: &Conn) -> Option<BufferLimit> {
    let limits = &config.client_output_buffer_limit;
    match conn.session.info.kind() {
        ClientKind::Replica => Some(limits.replica),
        ClientKind::PubSub => Some(limits.pubsub),
        ClientKind::Normal => Some(limits.normal),
        ClientKind::Primary => None,
    }
}

/// Whether there is a limit for the client at all.
pub(super) fn is_limited(config: &Config, conn: &Conn) -> bool {
    limit_of(config, conn).is_some_and(|limit| limit.hard_bytes > 0 || limit.soft_bytes > 0)
}

/// Whether a reply of so many bytes may be sent: beyond a limit, the client gets nothing of it.
#[inline]
pub(super) fn allow_reply(config: &Config, conn: &mut Conn, bytes: usize) -> bool {
    is_small(bytes) || within(config, conn, conn.unsent() + bytes)
}

/// Unsent output against its limits; a stricter one before AUTH.
pub(super) fn check(config: &Config, conn: &mut Conn) -> End {
    publish(conn);
    let unsent = conn.unsent();
    if unsent == 0 {
        conn.soft_limit_since = None;
        return End::Keep;
    }
    if !conn.session.authenticated && unsent > UNAUTHENTICATED_OUTPUT {
        return End::OutputBuffer;
    }
    if within(config, conn, unsent) { End::Keep } else { End::OutputBuffer }
}

fn within(config: &Config, conn: &mut Conn, bytes: usize) -> bool {
    let Some(limit) = limit_of(config, conn) else { return true };
    let used = bytes as u64;
    if limit.hard_bytes > 0 && used >= limit.hard_bytes {
        return false;
    }
    if limit.soft_bytes == 0 || used < limit.soft_bytes {
        conn.soft_limit_since = None;
        return true;
    }
    let since = *conn.soft_limit_since.get_or_insert_with(Instant::now);
    since.elapsed().as_secs() as i64 <= limit.soft_seconds
}

/// Unsent output, for CLIENT LIST: what the reference has in a client's buffer, and what it lists behind that. Mostly
/// there is none, and was none before.
pub(super) fn publish(conn: &Conn) {
    let (info, unsent) = (&conn.session.info, conn.unsent());
    if unsent > 0 || info.output_bytes.load(Relaxed) > 0 {
        let listed = unsent.saturating_sub(SMALL_OUTPUT);
        info.output_bytes.store((unsent - listed) as u64, Relaxed);
        info.output_list_bytes.store(listed as u64, Relaxed);
        info.output_list_len.store(u64::from(listed > 0), Relaxed);
    }
}
