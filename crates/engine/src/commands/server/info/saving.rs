//! The section about saving and loading.

use super::{Facts, Page};
use crate::persist::jobs::JobKind;
use crate::persist::save::clock_ms;
use std::sync::atomic::Ordering::Relaxed;

pub(super) fn persistence(facts: &Facts, page: &mut Page) {
    let shared = facts.cx.shared;
    let persist = &shared.persist;
    let loading = shared.loading.load(Relaxed);
    let job = persist.job.lock().clone();
    let is = |kind| job.as_ref().is_some_and(|job| job.kind == kind);
    let running_s = |kind| {
        let job = job.as_ref().filter(|job| job.kind == kind);
        job.map_or(-1, |job| i64::try_from(job.started.elapsed().as_secs()).unwrap_or(i64::MAX))
    };
    let word = |ok: bool| if ok { "ok" } else { "err" };
    page.field("loading", u8::from(loading));
    let aside = shared.replication.gate() & crate::replication::gate::ASYNC_LOADING != 0;
    page.field("async_loading", u8::from(aside));
    // What a fork would have copied is here what had to be handed over before it changed.
    let copied = job.as_ref().map_or(0, |job| job.collector.copied());
    page.field("current_cow_peak", copied);
    page.field("current_cow_size", copied);
    page.zeros(&["current_cow_size_age"]);
    let (keys, total) = job.as_ref().map_or((0, 0), |job| (job.collector.keys(), job.keys_total));
    let share = if total == 0 { 0.0 } else { keys as f64 * 100.0 / total as f64 };
    page.field("current_fork_perc", format_args!("{share:.2}"));
    page.field("current_save_keys_processed", keys);
    page.field("current_save_keys_total", total);
    page.field("rdb_changes_since_last_save", persist.dirty(shared).max(0));
    page.field("rdb_bgsave_in_progress", u8::from(is(JobKind::Rdb)));
    page.field("rdb_last_save_time", persist.last_save_s.load(Relaxed));
    page.field("rdb_last_bgsave_status", word(persist.last_bgsave_ok.load(Relaxed)));
    page.field("rdb_last_bgsave_time_sec", persist.last_bgsave_took_s.load(Relaxed));
    page.field("rdb_current_bgsave_time_sec", running_s(JobKind::Rdb));
    page.field("rdb_saves", persist.rdb_saves.load(Relaxed));
    page.field("rdb_last_cow_size", persist.rdb_last_copied.load(Relaxed));
    page.field("rdb_last_load_keys_expired", persist.loading.keys_expired.load(Relaxed));
    page.field("rdb_last_load_keys_loaded", persist.loading.keys_loaded.load(Relaxed));
    let aof = &persist.aof;
    page.field("aof_enabled", u8::from(facts.cx.config.appendonly));
    page.field("aof_rewrite_in_progress", u8::from(is(JobKind::AofRewrite)));
    page.field("aof_rewrite_scheduled", u8::from(aof.rewrite_scheduled.load(Relaxed)));
    page.field("aof_last_rewrite_time_sec", aof.last_rewrite_took_s.load(Relaxed));
    page.field("aof_current_rewrite_time_sec", running_s(JobKind::AofRewrite));
    page.field("aof_last_bgrewrite_status", word(aof.last_rewrite_ok.load(Relaxed)));
    page.field("aof_rewrites", aof.rewrites.load(Relaxed));
    page.field("aof_rewrites_consecutive_failures", aof.rewrite_failures.load(Relaxed));
    page.field("aof_last_write_status", word(aof.last_write_ok.load(Relaxed)));
    page.field("aof_last_cow_size", persist.aof_last_copied.load(Relaxed));
    page.zeros(&["module_fork_in_progress", "module_fork_last_cow_size"]);
    page.zeros(&["slot_migration_fork_in_progress"]);
    if let Some(log) = aof.log() {
        page.field("aof_current_size", aof.current_size());
        page.field("aof_base_size", aof.base_bytes.load(Relaxed));
        page.field("aof_pending_rewrite", 0);
        page.field("aof_buffer_length", log.buffered());
        page.field("aof_pending_bio_fsync", u8::from(log.is_behind(true)));
        page.field("aof_delayed_fsync", aof.delayed_syncs.load(Relaxed));
    }
    if loading {
        progress(facts, page);
    }
}

fn progress(facts: &Facts, page: &mut Page) {
    let figures = &facts.cx.shared.persist.loading;
    let (loaded, total) = (figures.loaded_bytes.load(Relaxed), figures.total_bytes.load(Relaxed));
    let share = if total == 0 { 100.0 } else { loaded as f64 * 100.0 / total as f64 };
    let started_s = figures.started_s.load(Relaxed);
    let elapsed_s = (clock_ms() / 1000 - started_s).max(0) as u64;
    let left = total.saturating_sub(loaded);
    let eta_s = if loaded == 0 { 1 } else { (elapsed_s as f64 * left as f64 / loaded as f64) as u64 };
    page.field("loading_start_time", started_s);
    page.field("loading_total_bytes", total);
    page.field("loading_rdb_used_mem", figures.writer_memory.load(Relaxed));
    page.field("loading_loaded_bytes", loaded);
    page.field("loading_loaded_perc", format_args!("{share:.2}"));
    page.field("loading_eta_seconds", eta_s);
}
