//! SHUTDOWN that waits: writes are held back until the replicas have everything, or `shutdown-timeout` is over.
//!
//! Boundary: what is saved and checked before the process ends is [`crate::persist::shutdown`]'s.

use super::Replication;
use crate::clients::ClientInfo;
use crate::config::Config;
use crate::log::Level;
use crate::persist::shutdown;
use crate::shared::{Hold, Message, Shared, ShutdownOptions};
use kara_keyspace::Locked;
use kara_resp::Writer;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The error for clients whose SHUTDOWN didn't come off.
pub const FAILED: &str = "ERR Errors trying to SHUTDOWN. Check logs.";
/// What was written just before the end may take so long to reach the replicas' sockets.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// The shutdown that waits, if one does.
#[derive(Default)]
pub struct Farewell {
    pending: Mutex<Option<Pending>>,
    is_pending: AtomicBool,
    /// A signal has asked for the end, and cron, which would begin it, is paused (DEBUG PAUSE-CRON): what is called
    /// when that is given up.
    scheduled: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

struct Pending {
    options: ShutdownOptions,
    until_ms: i64,
    clients: Vec<Arc<ClientInfo>>,
    /// What is called when it fails or is given up, for a shutdown by signal.
    given_up: Option<Box<dyn FnOnce() + Send>>,
}

/// Who wants the end.
pub enum By {
    Client(Arc<ClientInfo>),
    /// To be called if it doesn't come.
    Signal(Box<dyn FnOnce() + Send>),
}

impl std::fmt::Debug for Farewell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Farewell").field("is_pending", &self.is_pending).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, By::Client(_)) { "Client" } else { "Signal" })
    }
}

impl Farewell {
    /// Milliseconds that are left, while one waits.
    pub fn left_ms(&self, now_ms: i64) -> Option<i64> {
        self.pending.lock().as_ref().map(|pending| (pending.until_ms - now_ms).max(0))
    }

    /// Whether one waits.
    pub fn is_pending(&self) -> bool {
        self.is_pending.load(Relaxed)
    }

    /// A signal came: waits while cron is paused. False: somebody has aborted the shutdown meanwhile, and `given_up` was
    /// called.
    pub fn await_cron(&self, shared: &Shared, given_up: Box<dyn FnOnce() + Send>) -> bool {
        const LOOK: Duration = Duration::from_millis(5);
        if !shared.cron_paused.load(Relaxed) {
            return true;
        }
        *self.scheduled.lock() = Some(given_up);
        while shared.cron_paused.load(Relaxed) && self.scheduled.lock().is_some() {
            std::thread::sleep(LOOK);
        }
        self.scheduled.lock().take().is_some()
    }

    /// Begins to wait, or joins a wait; false where there is nothing to wait for. Every shard must be held.
    pub fn begin(
        &self,
        shared: &Shared,
        config: &Config,
        options: ShutdownOptions,
        by: By,
        now_ms: i64,
    ) -> bool {
        let replication = &shared.replication;
        let mut pending = self.pending.lock();
        if options.now {
            return false;
        }
        if pending.is_none() {
            if config.shutdown_timeout == 0 || replication.lagging() == 0 {
                return false;
            }
            let wait_ms = i64::try_from(config.shutdown_timeout).unwrap_or(i64::MAX).saturating_mul(1000);
            let until_ms = now_ms.saturating_add(wait_ms);
            *pending = Some(Pending { options, until_ms, clients: Vec::new(), given_up: None });
            self.is_pending.store(true, Relaxed);
            shared.pause.hold(Hold::Shutdown, true);
            replication.backlog.append_plain(&[b"REPLCONF", b"GETACK", b"*"]);
            shared.host.log(Level::Notice, "Waiting for replicas before shutting down.");
        }
        if let Some(pending) = &mut *pending {
            match by {
                By::Client(client) => pending.clients.push(client),
                By::Signal(given_up) => pending.given_up = Some(given_up),
            }
        }
        true
    }

    /// SHUTDOWN ABORT; false where none waits.
    pub fn abort(&self, shared: &Shared) -> bool {
        let pending = self.pending.lock().take();
        let scheduled = self.scheduled.lock().take();
        if pending.is_none() && scheduled.is_none() {
            return false;
        }
        shared.host.log(Level::Notice, "Shutdown manually aborted.");
        if let Some(given_up) = scheduled {
            given_up();
        }
        let Some(pending) = pending else { return true };
        self.give_up(shared, pending);
        true
    }

    fn give_up(&self, shared: &Shared, pending: Pending) {
        self.is_pending.store(false, Relaxed);
        shared.pause.hold(Hold::Shutdown, false);
        for client in pending.clients {
            let Some(waiter) = client.waiter.lock().clone() else { continue };
            let Some(claim) = waiter.claim() else { continue };
            claim.end();
            let mut reply = Writer::new(waiter.what.protocol);
            reply.error(FAILED);
            shared.host.post(client.worker, Message::Served { client: client.id, reply: reply.take() });
        }
        if let Some(given_up) = pending.given_up {
            given_up();
        }
        shared.resume_all();
    }

    /// Some times a second: ends the process once the replicas have everything, or the time is over.
    pub(super) fn cron(&self, shared: &Shared, now_ms: i64) {
        if !self.is_pending() {
            return;
        }
        let over = self.left_ms(now_ms) == Some(0);
        if !over && shared.replication.lagging() > 0 {
            return;
        }
        let space = shared.keyspace.lock_all();
        if !over && shared.replication.lagging() > 0 {
            // Somebody had passed before writes were held back.
            return;
        }
        let Some(pending) = self.pending.lock().take() else { return };
        match finish(shared, &space, pending.options) {
            Ok(()) => shared.host.exit(),
            Err(_) => {
                shared.host.log(
                    Level::Warning,
                    "Errors trying to shut down the server. Check the logs for more information.",
                );
                drop(space);
                self.give_up(shared, pending);
            }
        }
    }
}

/// Everything before the end; after `Ok` the process ends with the locks held. Every shard must be held.
pub fn finish(shared: &Shared, space: &Locked<'_>, options: ShutdownOptions) -> Result<(), String> {
    shared.replication.tell_who_lags(shared);
    shutdown::prepare(shared, space, options)?;
    let begun = Instant::now();
    while begun.elapsed() < LAST_WORDS && !shared.replication.all_sent() {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

impl Replication {
    /// Replicas that haven't said yet that they have everything.
    fn lagging(&self) -> usize {
        let end = self.backlog.end();
        let state = self.state.lock();
        state.replicas.iter().filter(|m| m.is_stream() && m.replica.acked.load(Relaxed) < end).count()
    }

    /// Whether everything has been given to the replicas' sockets.
    fn all_sent(&self) -> bool {
        let end = self.backlog.end();
        let state = self.state.lock();
        state
            .replicas
            .iter()
            .filter(|m| m.replica.is_online())
            .all(|m| m.replica.position.load(Relaxed) >= end)
    }

    fn tell_who_lags(&self, shared: &Shared) {
        let end = self.backlog.end();
        let now_ms = crate::persist::save::clock_ms();
        let state = self.state.lock();
        let streams: Vec<_> = state.replicas.iter().filter(|m| m.is_stream()).collect();
        if streams.is_empty() {
            return;
        }
        let mut in_sync = 0;
        for member in &streams {
            let acked = member.replica.acked.load(Relaxed);
            if acked >= end {
                in_sync += 1;
                continue;
            }
            let text = format!(
                "Lagging replica {}:{} reported offset {} behind master, lag={}, state={}.",
                member.replica.address(),
                member.replica.conf.listening_port,
                end - acked,
                member.replica.lag_s(now_ms),
                member.replica.state_name()
            );
            shared.host.log(Level::Notice, &text);
        }
        let text = format!("{in_sync} of {} replicas are in sync when shutting down.", streams.len());
        shared.host.log(Level::Notice, &text);
    }
}
