//! The worker's other connections while one connection's script goes on and on: they are read and answered from inside the
//! script, by what the engine allows then.

use super::group::{Gathered, scatter};
use super::{Conn, READ_CHUNK, WAKE};
use crate::host::{Mail, ServerHost};
use crate::transport::Transport;
use kara_engine::clients::{ClientFlags, ClientId, ClientInfo};
use kara_engine::config::Config;
use kara_engine::scripting::busy::Outside;
use kara_engine::session::Session;
use kara_engine::shared::Shared;
use kara_resp::{Limits, Request, Step, Writer};
use mio::{Events, Poll, Token};
use smallvec::SmallVec;
use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// The parts of a worker that have nothing to do with the command at hand.
pub(super) struct Beside<'w> {
    pub index: usize,
    pub poll: &'w mut Poll,
    pub conns: &'w mut Vec<Option<Box<Conn>>>,
    pub free: &'w mut Vec<usize>,
    pub by_id: &'w mut HashMap<ClientId, usize>,
    /// Connections whose readiness was seen here and is to be looked at when the command is done.
    pub seen: &'w mut Vec<usize>,
    pub later: &'w mut VecDeque<Mail>,
    pub host: &'w ServerHost,
    pub shared: &'w Arc<Shared>,
    pub now_ms: i64,
    /// What a group of connections has sent that was not run yet, and where it is.
    pub gathered: (&'w mut Vec<Gathered>, &'w [u8]),
    /// Nothing was looked at yet.
    pub is_first: bool,
}

type Answer<'a> = &'a mut dyn FnMut(&mut Session, &[&[u8]], &mut Writer);

impl Outside for Beside<'_> {
    fn turn(&mut self, answer: Answer<'_>) {
        let mut events = Events::with_capacity(256);
        if self.poll.poll(&mut events, Some(Duration::ZERO)).is_err() {
            return;
        }
        let config = self.shared.config.load();
        // Events that came together with the slow script's own are in the loop's hands: their connections can't wait.
        let mut accepting = std::mem::take(&mut self.is_first);
        if accepting {
            self.seen.extend(0..self.conns.len());
            scatter(self.gathered.0, self.gathered.1, self.conns);
            // What was answered or told before the script is not to wait for its end.
            for conn in self.conns.iter_mut().flatten().filter(|conn| conn.deferred || conn.told) {
                let _ = conn.flush(&mut 0);
            }
        }
        for event in events.iter() {
            match event.token() {
                WAKE => {}
                Token(slot) if slot < self.conns.len() => self.seen.push(slot),
                _ => accepting = true,
            }
        }
        if self.index == 0 && accepting {
            self.host.sockets().lock().accept(self.host, self.shared, &config);
        }
        while let Some(mail) = self.host.next_mail(self.index) {
            match mail {
                Mail::Connection(transport, addr, laddr) => {
                    let parts = (&mut *self.conns, &mut *self.free, &mut *self.by_id);
                    if let Some(slot) = adopt(
                        parts,
                        self.poll,
                        self.shared,
                        self.index,
                        self.now_ms,
                        (transport, addr, laddr),
                    ) {
                        self.seen.push(slot);
                    }
                }
                mail => self.later.push_back(mail),
            }
        }
        // The next turn of the loop shall come at once: what was seen here is no event any more.
        for at in 0..self.seen.len() {
            let slot = self.seen[at];
            let Some(mut conn) = self.conns.get_mut(slot).and_then(Option::take) else { continue };
            self.serve(&mut conn, &config, answer);
            self.conns[slot] = Some(conn);
        }
        self.seen.sort_unstable();
        self.seen.dedup();
    }
}

impl Beside<'_> {
    /// Answers what a connection has sent. Whatever is out of the ordinary waits until the script is over.
    fn serve(&self, conn: &mut Conn, config: &Config, answer: Answer<'_>) {
        if conn.is_held() || conn.throttled || conn.overrun || conn.session.close_after_reply || conn.eof {
            return;
        }
        let mut reply = Writer::new(conn.session.protocol);
        let mut request = Request::new();
        loop {
            let limits = Limits {
                max_bulk_len: config.proto_max_bulk_len as i64,
                unauthenticated: !conn.session.authenticated,
                ..Limits::default()
            };
            match conn.parse.parse(&conn.input, &limits, &mut request) {
                Ok(Step::Complete { consumed }) => {
                    let input = std::mem::take(&mut conn.input);
                    let mut args: SmallVec<[&[u8]; 8]> = SmallVec::new();
                    request.args(&input, &mut args);
                    answer(&mut conn.session, &args, &mut reply);
                    drop(args);
                    conn.input = input;
                    conn.consume(consumed);
                    if conn.session.close_after_reply || conn.session.close_now {
                        break;
                    }
                }
                Ok(Step::NeedMore { consumed, .. }) => {
                    conn.consume(consumed);
                    if conn.input.len() as u64 > config.client_query_buffer_limit {
                        break;
                    }
                    match conn.read_input(READ_CHUNK) {
                        Ok(1..) => {}
                        Ok(_) => break,
                        Err(e) if e.kind() == ErrorKind::Interrupted => {}
                        Err(_) => break,
                    }
                }
                // The worker's own loop answers that.
                Err(_) => {
                    conn.parse.reset();
                    break;
                }
            }
        }
        if !reply.is_empty() {
            let mut written = 0;
            // A broken connection is found again by the loop.
            let _ = conn.send(reply.as_bytes(), &mut written);
        }
        conn.session.info.last_interaction_ms.store(self.now_ms, Relaxed);
    }
}

/// A worker's connections by slot, its free slots, and where each client is.
type Tables<'a> = (&'a mut Vec<Option<Box<Conn>>>, &'a mut Vec<usize>, &'a mut HashMap<ClientId, usize>);

/// Takes a new connection into a worker's tables; its slot, unless it could not be registered.
pub(super) fn adopt(
    (conns, free, by_id): Tables<'_>,
    poll: &Poll,
    shared: &Arc<Shared>,
    worker: usize,
    now_ms: i64,
    (transport, addr, laddr): (Transport, String, String),
) -> Option<usize> {
    let slot = free.pop().unwrap_or_else(|| {
        conns.push(None);
        conns.len() - 1
    });
    let flags = match transport {
        Transport::Unix(_) => ClientFlags::UNIX_SOCKET,
        Transport::Tcp(_) => ClientFlags::empty(),
    };
    let id = shared.clients.next_id();
    let info = Arc::new(ClientInfo::new(id, worker, addr, laddr, transport.fd(), now_ms, flags));
    let mut session = Session::new(info.clone(), shared.acl.is_open());
    session.log_in(shared.acl.default_account());
    let mut conn = Box::new(Conn::new(transport, session));
    if conn.transport.register(poll.registry(), Token(slot)).is_err() {
        free.push(slot);
        return None;
    }
    info.slot.store(slot as u32, Relaxed);
    shared.clients.insert(info);
    shared.stats.worker(worker).connections_received.add(1);
    by_id.insert(id, slot);
    conns[slot] = Some(conn);
    Some(slot)
}
