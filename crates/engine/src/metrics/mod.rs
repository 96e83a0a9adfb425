//! The page that Prometheus reads: INFO's figures under the names that redis_exporter gives them, so that dashboards and
//! alerts made for it work unchanged, and a few of our own beside them.
//!
//! Boundary: text only, HTTP is the server's. Whoever asks must never wait for long, not even while SAVE holds every
//! shard: of a shard that can't be had at once, the sizes are those of the page before.

mod commands;
mod exposition;
mod fields;
mod own;
mod peers;

pub use exposition::Format;

use crate::commands::server::{View, info_text};
use crate::shared::Shared;
use exposition::{Exposition, Kind};
use kara_base::ids::DbIndex;
use kara_keyspace::DbStats;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long all shards together may keep a page waiting. Busy workers let go of a lock within half of that.
const PATIENCE: Duration = Duration::from_millis(2);
/// With more databases only those with keys are shown.
const MAX_EMPTY_DATABASES: usize = 64;

/// What one page leaves to the next.
#[derive(Debug, Default)]
pub struct Collector {
    dbs: Vec<DbStats>,
    /// Of each shard, as it was last seen.
    shards: Vec<Vec<DbStats>>,
    pages: u64,
    /// How long the last page took.
    last: Duration,
}

/// INFO's fields by name.
type Fields<'a> = HashMap<&'a str, &'a str>;

impl Collector {
    /// The page as of now.
    pub fn page(&mut self, shared: &Shared, format: Format) -> String {
        let begun = Instant::now();
        self.pages += 1;
        self.look_at_databases(shared, begun + PATIENCE);
        let config = shared.config.load();
        let now_ms = crate::persist::save::clock_ms();
        let view = View { shared, config: &config, now_ms, stats: shared.stats.worker(0) };
        let info = info_text(view, self.dbs.clone(), &[b"default", b"cluster_info"]);
        let fields: Fields = info.lines().filter_map(|line| line.split_once(':')).collect();
        let mut page = Exposition::new(format);
        own::write(&view, &mut page);
        self.about_collecting(&mut page);
        fields::write(&fields, &mut page);
        fields::identity(&fields, &mut page);
        self.databases(now_ms, &mut page);
        commands::write(&view, &mut page);
        peers::write(&view, &mut page);
        self.last = begun.elapsed();
        page.finish()
    }

    /// Takes the sizes of all databases, shard after shard; keeps the old ones of those that are held beyond `until`.
    fn look_at_databases(&mut self, shared: &Shared, until: Instant) {
        let keyspace = &shared.keyspace;
        let databases = || (0..keyspace.databases()).map(|number| DbIndex(number as u32));
        let ids: Vec<_> = keyspace.shard_ids().collect();
        self.shards.resize_with(ids.len(), || vec![DbStats::default(); keyspace.databases()]);
        // Each page begins elsewhere: the patience isn't always used up by the same ones.
        let first = self.pages as usize % ids.len().max(1);
        for (at, id) in ids.iter().enumerate().cycle().skip(first).take(ids.len()) {
            if let Some(shard) = keyspace.try_lock_one_until(*id, until) {
                self.shards[at] = databases().map(|db| shard.stats(db)).collect();
            }
        }
        let sum = |db: usize| self.shards.iter().fold(DbStats::default(), |sum, shard| sum.plus(shard[db]));
        self.dbs = (0..keyspace.databases()).map(sum).collect();
    }

    fn about_collecting(&self, page: &mut Exposition) {
        page.single("redis_up", Kind::Gauge, "Whether the server answers: it made this page itself.", 1);
        let text = "Pages of metrics that were made.";
        page.single("redis_exporter_scrapes_total", Kind::Counter, text, self.pages);
        let text = "Time that making the last page took.";
        let name = "redis_exporter_last_scrape_duration_seconds";
        page.single(name, Kind::Gauge, text, self.last.as_secs_f64());
        page.family("redis_exporter_last_scrape_error", Kind::Gauge, "Whether making the last page failed.");
        page.sample("redis_exporter_last_scrape_error", &[("err", "")], 0);
    }

    fn databases(&self, now_ms: i64, page: &mut Exposition) {
        let shown = |db: &DbStats| self.dbs.len() <= MAX_EMPTY_DATABASES || db.keys > 0;
        let each = || self.dbs.iter().enumerate().filter(|(_, db)| shown(db));
        let mut family = |name: &str, help: &str, value: &dyn Fn(&DbStats) -> f64| {
            page.family(name, Kind::Gauge, help);
            for (number, db) in each() {
                page.sample(name, &[("db", &format!("db{number}"))], value(db));
            }
        };
        family("redis_db_keys", "Keys of a database.", &|db| db.keys as f64);
        family("redis_db_keys_expiring", "Keys of a database with an expiry.", &|db| db.expires as f64);
        family("redis_db_avg_ttl_seconds", "Mean time to live of the keys with an expiry.", &|db| {
            db.avg_ttl_ms(now_ms) as f64 / 1000.0
        });
    }
}
