//! Replication: our replicas as we see them, and our primary.

use super::exposition::{Exposition, Kind};
use crate::commands::server::View;
use crate::replication::{Link, Upstream};
use std::sync::atomic::Ordering::Relaxed;

/// A replica's place.
struct Place {
    ip: String,
    port: String,
    state: &'static str,
    online: bool,
    acked: u64,
    lag_s: i64,
}

pub(super) fn write(view: &View, page: &mut Exposition) {
    let replication = &view.shared.replication;
    let (primary, places) = replication.with(|state| {
        let place = |member: &std::sync::Arc<crate::replication::Member>| {
            let replica = &member.replica;
            Place {
                ip: replica.address().to_owned(),
                port: replica.conf.listening_port.to_string(),
                state: replica.state_name(),
                online: replica.is_online(),
                acked: replica.acked.load(Relaxed),
                lag_s: if replica.is_online() { replica.lag_s(view.now_ms) } else { 0 },
            }
        };
        (state.primary.clone(), state.replicas.iter().map(place).collect::<Vec<_>>())
    });
    // Behind the look at the replicas: what they have acknowledged was written before.
    let end = replication.backlog.end();
    lag(primary.as_ref(), &places, end, page);
    let mut family = |name: &str, help: &str, value: &dyn Fn(&Place) -> f64| {
        page.family(name, Kind::Gauge, help);
        for place in &places {
            let labels =
                [("slave_ip", &*place.ip), ("slave_port", &*place.port), ("slave_state", place.state)];
            page.sample(name, &labels, value(place));
        }
    };
    family("redis_connected_slave_offset_bytes", "How much of our stream a replica has processed.", &|p| {
        p.acked as f64
    });
    family("redis_connected_slave_lag_seconds", "Since when a replica wasn't heard of.", &|p| p.lag_s as f64);
    if let Some(primary) = &primary {
        of_primary(view, primary, end, page);
    }
}

/// In bytes, for each pair of servers that this one belongs to.
fn lag(primary: Option<&Upstream>, places: &[Place], end: u64, page: &mut Exposition) {
    let name = "valkey_replication_lag";
    let help = "Bytes of the stream that a replica hasn't processed: on a primary for each replica, on a replica what \
                came from its primary and is not applied.";
    page.family(name, Kind::Gauge, help);
    for place in places.iter().filter(|place| place.online) {
        let peer = format!("{}:{}", place.ip, place.port);
        page.sample(name, &[("role", "primary"), ("peer", &peer)], end.saturating_sub(place.acked));
    }
    if let Some(primary) = primary.filter(|primary| primary.link == Link::Connected) {
        let peer = format!("{}:{}", String::from_utf8_lossy(&primary.host), primary.port);
        let behind = primary.read_offset.saturating_sub(end);
        page.sample(name, &[("role", "replica"), ("peer", &peer)], behind);
    }
}

fn of_primary(view: &View, primary: &Upstream, end: u64, page: &mut Exposition) {
    let (host, port) = (String::from_utf8_lossy(&primary.host), primary.port.to_string());
    let labels = [("master_host", &*host), ("master_port", &*port)];
    let up = primary.link == Link::Connected;
    let ago_s = if up { (view.now_ms - primary.heard_ms).max(0) / 1000 } else { -1 };
    let syncing = primary.link == Link::Sync;
    for (name, help, value) in [
        ("redis_master_link_up", "Whether the link to our primary is up.", i64::from(up)),
        ("redis_master_last_io_seconds_ago", "Since when our primary is silent; -1: no link.", ago_s),
        ("redis_master_sync_in_progress", "Whether our primary is sending all data.", i64::from(syncing)),
        (
            "redis_slave_repl_offset",
            "How much of our primary's stream we have processed, bytes.",
            i64::try_from(end).unwrap_or(i64::MAX),
        ),
    ] {
        page.family(name, Kind::Gauge, help);
        page.sample(name, &labels, value);
    }
    let name = "redis_slave_info";
    page.family(name, Kind::Gauge, "Whose replica this is.");
    let read_only = if view.config.replica_read_only { "1" } else { "0" };
    page.sample(name, &[labels[0], labels[1], ("read_only", read_only)], 1);
}
