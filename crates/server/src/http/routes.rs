//! The pages that there are.

use crate::host::ServerHost;
use kara_engine::metrics::{Collector, Format};
use kara_engine::replication::Link;
use kara_engine::shared::Shared;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

const TEXT: &str = "text/plain; charset=utf-8";

/// An answer before it is HTTP.
pub(super) struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub body: String,
}

impl Answer {
    fn text(status: u16, body: impl Into<String>) -> Self {
        Answer { status, content_type: TEXT, body: body.into() }
    }

    /// A refusal.
    pub fn plain(status: u16) -> Self {
        Self::text(status, format!("{status}\n"))
    }
}

pub(super) struct Routes {
    shared: Arc<Shared>,
    host: ServerHost,
    collector: Collector,
}

impl Routes {
    pub fn new(shared: Arc<Shared>, host: ServerHost) -> Self {
        Routes { shared, host, collector: Collector::default() }
    }

    pub fn answer(&mut self, path: &str, accept: Option<&str>) -> Answer {
        match path {
            "/metrics" => {
                let format = Format::accepted(accept.unwrap_or_default());
                let body = self.collector.page(&self.shared, format);
                Answer { status: 200, content_type: format.content_type(), body }
            }
            "/healthz" => Answer::text(200, "ok\n"),
            "/readyz" => match self.unready() {
                None => Answer::text(200, "ok\n"),
                Some(why) => Answer::text(503, format!("{why}\n")),
            },
            "/" => Answer::text(200, "/metrics\n/healthz\n/readyz\n"),
            _ => Answer::plain(404),
        }
    }

    /// Why clients had better go elsewhere for now.
    fn unready(&self) -> Option<&'static str> {
        // What waits for replicas ends soon, too.
        if self.host.is_stopping() || self.shared.replication.shutdown.is_pending() {
            return Some("stopping");
        }
        if self.shared.loading.load(Relaxed) {
            return Some("loading");
        }
        let stale = !self.shared.config.load().replica_serve_stale_data;
        let down = self
            .shared
            .replication
            .with(|state| state.primary.as_ref().is_some_and(|primary| primary.link != Link::Connected));
        (stale && down).then_some("no link to the primary")
    }
}
