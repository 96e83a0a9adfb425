//! INFO: which sections are asked for; the sections themselves stand in the files of this folder.

mod figures;
mod process;
mod roles;
mod saving;
mod usage;

pub(crate) use figures::percentile_ns;

use crate::commands::prelude::*;
use crate::config::Config;
use crate::shared::Shared;
use crate::stats::{Totals, WorkerStats};
use kara_base::alloc::used_memory;
use kara_base::ids::DbIndex;
use kara_keyspace::DbStats;
use std::fmt::{Display, Write as _};

pub(super) const INFO: Spec = Spec {
    name: "info",
    arity: Arity::AtLeast(1),
    flags: Flags::LOADING.union(Flags::STALE),
    acl: Acl::DANGEROUS,
    group: Group::Server,
    since: "1.0.0",
    summary: "Returns figures and facts about the server.",
    complexity: "O(1), but O(N) for N databases, clients and commands in their sections",
    tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
    args: &[Arg { name: "section", kind: ArgKind::String, optional: true, multiple: true, ..Arg::NEW }],
    locks: Locks::Own,
    handler: Some(info),
    ..Spec::NEW
};

/// One section of INFO.
struct Section {
    /// As clients ask for it.
    name: &'static str,
    title: &'static str,
    /// Shown without being asked for.
    by_default: bool,
    /// Not even shown with `all`.
    hidden: bool,
    /// Written from the databases' sizes.
    counts_keys: bool,
    write: fn(&Facts, &mut Page),
}

const fn shown(name: &'static str, title: &'static str, write: fn(&Facts, &mut Page)) -> Section {
    Section { name, title, by_default: true, hidden: false, counts_keys: false, write }
}

const fn asked(name: &'static str, title: &'static str, write: fn(&Facts, &mut Page)) -> Section {
    Section { by_default: false, ..shown(name, title, write) }
}

/// In the order of the reply.
const SECTIONS: &[Section] = &[
    shown("server", "Server", process::server),
    asked("tls", "TLS", roles::tls),
    shown("clients", "Clients", process::clients),
    Section { counts_keys: true, ..shown("memory", "Memory", usage::memory) },
    shown("persistence", "Persistence", saving::persistence),
    shown("stats", "Stats", figures::stats),
    shown("replication", "Replication", roles::replication),
    shown("cpu", "CPU", usage::cpu),
    shown("modules", "Modules", roles::modules),
    asked("commandstats", "Commandstats", figures::commandstats),
    shown("errorstats", "Errorstats", figures::errorstats),
    asked("latencystats", "Latencystats", figures::latencystats),
    shown("cluster", "Cluster", roles::cluster),
    asked("cluster_info", "Cluster Info", roles::cluster_info),
    asked("scriptingengines", "Scripting Engines", roles::scripting_engines),
    Section { counts_keys: true, ..shown("keyspace", "Keyspace", figures::keyspace) },
    Section { hidden: true, ..asked("debug", "Debug", figures::debug) },
];

/// The text under way.
#[derive(Default)]
struct Page(String);

impl Page {
    fn field(&mut self, name: &str, value: impl Display) {
        // Writing to a string doesn't fail.
        let _ = write!(self.0, "{name}:{value}\r\n");
    }

    fn fields<T: Display>(&mut self, fields: &[(&str, T)]) {
        for (name, value) in fields {
            self.field(name, value);
        }
    }

    /// Fields that are zero as long as what they count doesn't exist or doesn't happen here.
    fn zeros(&mut self, names: &[&str]) {
        for name in names {
            self.field(name, 0);
        }
    }

    fn title(&mut self, title: &str) {
        if !self.0.is_empty() {
            self.0.push_str("\r\n");
        }
        let _ = write!(self.0, "# {title}\r\n");
    }
}

/// Where figures come from. Nothing here needs a lock of the keyspace.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub shared: &'a Shared,
    pub config: &'a Config,
    pub now_ms: i64,
    /// The asking thread's counters.
    pub stats: &'a WorkerStats,
}

impl<'a> View<'a> {
    pub fn of(cx: &Cx<'a, '_>) -> Self {
        View { shared: cx.shared, config: cx.config, now_ms: cx.now_ms, stats: cx.stats }
    }
}

/// What the sections are written from.
struct Facts<'a> {
    cx: View<'a>,
    dbs: Vec<DbStats>,
    totals: Totals,
    /// Bytes in use before this page took some itself: at `maxmemory` a page of 8 KB would show more than the limit.
    used: u64,
}

fn info(cx: &mut Cx) -> Outcome {
    let used = used_memory();
    let names = cx.args.get(1..).unwrap_or_default();
    let counts_keys = SECTIONS.iter().any(|section| section.counts_keys && is_wanted(section, names));
    let dbs = if counts_keys { database_stats(cx)? } else { Vec::new() };
    let text = page(View::of(cx), dbs, names, used);
    cx.reply.verbatim("txt", text.as_bytes());
    Ok(Effect::None)
}

/// The same for whoever knows the databases' sizes already.
pub(crate) fn text(view: View, dbs: Vec<DbStats>, names: &[&[u8]]) -> String {
    page(view, dbs, names, used_memory())
}

fn page(view: View, dbs: Vec<DbStats>, names: &[&[u8]], used: u64) -> String {
    let wanted: Vec<&Section> = SECTIONS.iter().filter(|section| is_wanted(section, names)).collect();
    let facts = Facts { totals: view.shared.stats.totals(), dbs, used, cx: view };
    let mut page = Page::default();
    for section in wanted {
        page.title(section.title);
        (section.write)(&facts, &mut page);
    }
    page.0
}

fn is_wanted(section: &Section, names: &[&[u8]]) -> bool {
    let named = |name: &[u8]| {
        let is = |word: &str| name.eq_ignore_ascii_case(word.as_bytes());
        (is("all") || is("everything")) && !section.hidden
            || is("default") && section.by_default
            || is(section.name)
            || is("module_list") && section.name == "modules"
    };
    names.is_empty() && section.by_default || names.iter().any(|name| named(name))
}

/// The sizes of all databases: one moment's within a transaction, otherwise shard after shard, so that nobody waits for
/// who asks.
///
/// # Errors
/// Where a slow script holds a shard.
pub(super) fn database_stats(cx: &mut Cx) -> Result<Vec<DbStats>, CommandError> {
    let databases = || (0..cx.shared.keyspace.databases()).map(|db| DbIndex(db as u32));
    if cx.keys.space.holds_all() {
        return Ok(databases().map(|db| cx.keys.space.stats(db)).collect());
    }
    let mut sums = vec![DbStats::default(); cx.shared.keyspace.databases()];
    for shard in cx.shared.keyspace.shard_ids() {
        if !cx.keys.space.try_relock_shard(shard) {
            return Err(cx.shared.scripts.busy_error());
        }
        for (sum, db) in sums.iter_mut().zip(databases()) {
            *sum = sum.plus(cx.keys.space.stats(db));
        }
    }
    cx.keys.space.release();
    Ok(sums)
}
