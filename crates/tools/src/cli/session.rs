//! A user's session: connecting and greeting, sending a command and showing what comes back, and what the client
//! must know of its connection's state (database, transaction, subscriptions, protocol).

use super::format::{self, Delimiters};
use super::link::{Family, Fault, Link, plain_text};
use super::options::{Options, Output, Resp3};
use super::words::leading_number;
use kara_resp::Value;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

/// The program ends with that code. What there was to say has been said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit(pub u8);

/// What happens to out-of-band messages while a reply is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pushes {
    Show,
    Drop,
    /// They are replies: of SUBSCRIBE and its like.
    Replies,
}

#[derive(Debug)]
pub struct Session {
    pub options: Options,
    pub link: Option<Link>,
    /// The fault that ended the last connection, until a new one stands.
    pub fault: Option<Fault>,
    /// A person types: faults are told and survived.
    pub interactive: bool,
    pub db: i64,
    pub in_multi: bool,
    db_before_multi: i64,
    /// Subscribed to something.
    pub subscribed: bool,
    subscriptions: i64,
    shard_subscriptions: i64,
    resp3: bool,
    monitor: bool,
    shutdown: bool,
    pushes: Pushes,
    last: Option<Value>,
    /// Cluster: the command goes again, to where the redirection pointed; with ASKING in front.
    pub reissue: bool,
    pub asking: bool,
    /// Readable once Ctrl-C was pressed.
    pub interrupt: Option<UnixStream>,
}

/// Writes to standard output; who reads no more ends us.
pub fn emit(bytes: &[u8]) -> Result<(), Exit> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|_| Exit(1))
}

pub fn emit_line(text: &str) -> Result<(), Exit> {
    emit(format!("{text}\n").as_bytes())
}

impl Session {
    pub fn new(options: Options) -> Session {
        Session {
            options,
            link: None,
            fault: None,
            interactive: false,
            db: 0,
            in_multi: false,
            db_before_multi: 0,
            subscribed: false,
            subscriptions: 0,
            shard_subscriptions: 0,
            resp3: false,
            monitor: false,
            shutdown: false,
            pushes: Pushes::Drop,
            last: None,
            reissue: false,
            asking: false,
            interrupt: None,
        }
    }

    /// `host:port[db](TX)> `
    pub fn prompt(&self) -> String {
        let target = &self.options.target;
        if self.link.is_none() {
            return "not connected> ".into();
        }
        let host = String::from_utf8_lossy(&target.host);
        let mut prompt = match &target.socket {
            Some(path) => format!("valkey {}", String::from_utf8_lossy(path)),
            None if host.contains(':') => format!("[{host}]:{}", target.port),
            None => format!("{host}:{}", target.port),
        };
        if self.db != 0 {
            prompt.push_str(&format!("[{}]", self.db));
        }
        if self.in_multi {
            prompt.push_str("(TX)");
        }
        if self.subscribed {
            prompt.push_str("(subscribed mode)");
        }
        prompt.push_str("> ");
        prompt
    }

    /// A new connection in place of the old one: greeted, authenticated, in its database. True where it stands.
    pub fn connect(&mut self, quiet: bool) -> bool {
        self.link = None;
        (self.db, self.in_multi, self.subscribed, self.resp3) = (0, false, false, false);
        let family = match (self.options.ipv4, self.options.ipv6) {
            (true, _) => Family::V4,
            (_, true) => Family::V6,
            _ => Family::Any,
        };
        let mut target = self.options.target.clone();
        if self.options.cluster && self.reissue {
            target.socket = None;
        }
        match Link::open(&target, self.options.timeout, family) {
            Ok(link) => self.link = Some(link),
            Err(fault) => {
                if !quiet {
                    let place = match &target.socket {
                        Some(path) => String::from_utf8_lossy(path).into_owned(),
                        None => format!("{}:{}", String::from_utf8_lossy(&target.host), target.port),
                    };
                    eprintln!("Could not connect to Valkey at {place}: {}", plain_text(&fault));
                }
                return false;
            }
        }
        self.fault = None;
        let ready = self.authenticate() && self.select() && self.switch_protocol();
        self.pushes = if self.options.show_pushes { Pushes::Show } else { Pushes::Drop };
        ready
    }

    fn ask(&mut self, words: &[&[u8]]) -> Option<Value> {
        let reply = self.link.as_mut()?.ask(words);
        if reply.is_err() {
            eprintln!("\nI/O error");
        }
        reply.ok()
    }

    fn authenticate(&mut self) -> bool {
        let Some(password) = self.options.target.password.clone() else { return true };
        let reply = match self.options.target.user.clone() {
            Some(user) => self.ask(&[b"AUTH", &user, &password]),
            None => self.ask(&[b"AUTH", &password]),
        };
        told("AUTH failed", reply)
    }

    /// Enters the database that was asked for.
    pub fn select(&mut self) -> bool {
        let db = self.options.target.db;
        if db == self.db {
            return true;
        }
        let reply = self.ask(&[b"SELECT", db.to_string().as_bytes()]);
        let done = told(&format!("SELECT {db} failed"), reply);
        if done {
            self.db = db;
        }
        done
    }

    fn switch_protocol(&mut self) -> bool {
        if self.options.resp3 == Resp3::No || self.options.resp2 {
            return true;
        }
        match self.ask(&[b"HELLO", b"3"]) {
            Some(Value::Error(text)) => {
                eprintln!("HELLO 3 failed: {}", String::from_utf8_lossy(&text));
                self.options.resp3 != Resp3::Demanded
            }
            Some(_) => {
                self.resp3 = true;
                true
            }
            None => false,
        }
    }

    /// Says what ended the connection.
    pub fn print_fault(&self) {
        if let Some(fault) = &self.fault {
            eprintln!("Error: {fault}");
        }
    }

    /// Sends a command (`repeat` times) with whatever connecting that takes. `Ok(false)` where it couldn't be done.
    pub fn issue(&mut self, words: &[Vec<u8>], repeat: i64) -> Result<bool, Exit> {
        loop {
            if (self.link.is_none() || self.fault.is_some() || self.reissue) && !self.connect(false) {
                self.reissue = false;
                return Ok(false);
            }
            self.reissue = false;
            if std::mem::take(&mut self.asking) {
                let reply = self.ask(&[b"ASKING"]);
                if !told("ASKING failed", reply) {
                    return Ok(false);
                }
            }
            if !self.send(words, repeat)? {
                self.print_fault();
                self.link = None;
                return Ok(false);
            }
            if !(self.options.cluster && self.reissue) {
                return Ok(true);
            }
        }
    }

    fn send(&mut self, words: &[Vec<u8>], mut repeat: i64) -> Result<bool, Exit> {
        let command = words.first().map(|word| word.to_ascii_lowercase()).unwrap_or_default();
        let verbatim = is_shown_verbatim(words);
        self.shutdown |= command == b"shutdown";
        self.monitor = command == b"monitor";
        let of_subscriptions = [&b"subscribe"[..], b"psubscribe", b"ssubscribe"]
            .contains(&command.as_slice())
            || [&b"unsubscribe"[..], b"punsubscribe", b"sunsubscribe"].contains(&command.as_slice());
        while repeat != 0 {
            if repeat > 0 {
                repeat -= 1;
            }
            let Some(link) = self.link.as_mut() else { return Ok(true) };
            link.push(words);
            if let Err(fault) = link.flush() {
                return self.lost(fault);
            }
            if self.monitor {
                return self.follow_monitor(verbatim);
            }
            if command == b"sync" || command == b"psync" {
                emit_line("Entering replica output mode...  (press Ctrl-C to quit)")?;
                super::replica::follow(self)?;
                return Ok(false);
            }
            // Each channel is confirmed by a message of its own.
            let mut expected = 0;
            if of_subscriptions {
                expected = if words.len() > 1 { words.len() - 1 } else { 1 };
                self.pushes = Pushes::Replies;
            }
            if !self.await_reply(&command, verbatim, expected)? {
                return Ok(false);
            }
            self.note(&command, words, of_subscriptions);
            if self.reissue {
                break;
            }
            if !self.options.interval.is_zero() {
                std::thread::sleep(self.options.interval);
            }
        }
        Ok(true)
    }

    fn follow_monitor(&mut self, verbatim: bool) -> Result<bool, Exit> {
        while self.monitor {
            if !self.read_reply(verbatim)? {
                self.print_fault();
                return Err(Exit(1));
            }
            if matches!(self.last, Some(Value::Error(_))) {
                self.monitor = false;
            }
        }
        Ok(true)
    }

    /// Reads until the command's own reply, passing messages on.
    fn await_reply(&mut self, command: &[u8], verbatim: bool, mut expected: usize) -> Result<bool, Exit> {
        loop {
            if !self.read_reply(verbatim)? {
                return Ok(false);
            }
            if !self.subscribed && expected == 0 {
                return Ok(true);
            }
            let Some(last) = self.last.take() else { return Ok(true) };
            if let Some(kind) = self.pubsub_kind(&last) {
                let confirms = expected > 0 && kind.eq_ignore_ascii_case(command);
                self.note_subscription(&last);
                self.last = Some(last);
                if !confirms {
                    continue;
                }
                expected -= 1;
                if expected > 0 {
                    continue;
                }
            } else if matches!(last, Value::Push(_)) {
                continue;
            } else {
                self.last = Some(last);
            }
            return Ok(true);
        }
    }

    /// What a command that was answered changed about the connection.
    fn note(&mut self, command: &[u8], words: &[Vec<u8>], of_subscriptions: bool) {
        let failed = matches!(self.last, Some(Value::Error(_)));
        let refused = failed || self.last.as_ref().is_some_and(Value::is_null);
        match (command, words.len()) {
            (b"select", 2) if !failed => {
                self.db = words.get(1).map_or(0, |word| leading_number(word));
                self.options.target.db = self.db;
            }
            (b"auth", 2 | 3) => {
                self.select();
            }
            (b"multi", 1) if !failed => {
                self.in_multi = true;
                self.db_before_multi = self.db;
            }
            (b"exec", 1) if self.in_multi => self.end_multi(refused),
            (b"discard", 1) if !failed => self.end_multi(true),
            (b"reset", 1) if !failed => {
                (self.in_multi, self.subscribed, self.resp3) = (false, false, false);
                (self.db, self.options.target.db) = (0, 0);
                (self.subscriptions, self.shard_subscriptions) = (0, 0);
                if self.options.show_pushes {
                    self.pushes = Pushes::Show;
                }
            }
            (b"hello", _) => match self.last {
                Some(Value::Map(_)) => self.resp3 = true,
                Some(Value::Array(_)) => self.resp3 = false,
                _ => {}
            },
            _ if of_subscriptions && !self.subscribed && self.options.show_pushes => {
                self.pushes = Pushes::Show;
            }
            _ => {}
        }
    }

    fn end_multi(&mut self, back: bool) {
        self.in_multi = false;
        if back {
            self.db = self.db_before_multi;
            self.options.target.db = self.db;
        }
    }

    /// The kind of a message about channels; `None` for every other value.
    fn pubsub_kind<'a>(&self, value: &'a Value) -> Option<&'a [u8]> {
        let items = match value {
            Value::Push(items) if self.resp3 => items,
            Value::Array(items) if !self.resp3 => items,
            _ => return None,
        };
        let Some(Value::Bulk(kind)) = items.first() else { return None };
        let fits = items.len() >= 3 && (kind.ends_with(b"message") || kind.ends_with(b"subscribe"));
        fits.then_some(kind)
    }

    fn note_subscription(&mut self, message: &Value) {
        let Some([kind, _, count, ..]) = message.as_elements() else { return };
        let (Some(kind), Some(count)) = (kind.as_bytes(), count.as_integer()) else { return };
        match kind {
            b"subscribe" | b"psubscribe" | b"unsubscribe" | b"punsubscribe" => self.subscriptions = count,
            b"ssubscribe" | b"sunsubscribe" => self.shard_subscriptions = count,
            _ => {}
        }
        self.subscribed = self.subscriptions + self.shard_subscriptions > 0;
    }

    /// Notes what the reply that was just shown says about subscriptions.
    pub fn note_last(&mut self) {
        if let Some(last) = self.last.take() {
            if self.pubsub_kind(&last).is_some() {
                self.note_subscription(&last);
            }
            self.last = Some(last);
        }
    }

    /// Shows the messages that come until nothing is subscribed (any more).
    pub fn follow_messages(&mut self) -> Result<(), Exit> {
        while self.subscribed {
            if !self.read_reply(false)? {
                self.print_fault();
                return Err(Exit(1));
            }
        }
        Ok(())
    }

    /// Messages that have been read already, shown.
    pub fn drain_messages(&mut self) -> Result<(), Exit> {
        loop {
            let Some(link) = self.link.as_mut() else { return Ok(()) };
            match link.buffered() {
                Ok(Some(value)) => {
                    self.show(&value, false)?;
                    if self.pubsub_kind(&value).is_some() {
                        self.note_subscription(&value);
                    }
                }
                Ok(None) => return Ok(()),
                Err(fault) => {
                    self.fault = Some(fault);
                    self.print_fault();
                    return Err(Exit(1));
                }
            }
        }
    }

    /// Reads one reply and shows it. `Ok(false)` where the connection is gone and a new one may be tried.
    pub fn read_reply(&mut self, verbatim: bool) -> Result<bool, Exit> {
        self.last = None;
        let value = loop {
            let Some(link) = self.link.as_mut() else { return Ok(true) };
            let read = match &self.interrupt {
                Some(interrupt) => link.read_or_interrupt(interrupt.as_fd()),
                None => link.read(),
            };
            match read {
                Ok(value @ Value::Push(_)) if self.pushes == Pushes::Show => self.show_push(&value)?,
                Ok(Value::Push(_)) if self.pushes == Pushes::Drop => {}
                Ok(value) => break value,
                Err(Fault::Interrupted) => return self.interrupted(),
                Err(_) if self.shutdown => {
                    self.link = None;
                    return Ok(true);
                }
                Err(fault) => return self.lost(fault),
            }
        };
        let redirected = match &value {
            Value::Error(text) if self.options.cluster => self.redirect(text)?,
            Value::Error(text) if !self.interactive && self.options.error_code => {
                eprintln!("{}", String::from_utf8_lossy(text));
                return Err(Exit(1));
            }
            _ => false,
        };
        if !redirected {
            self.show(&value, verbatim)?;
        }
        self.last = Some(value);
        Ok(true)
    }

    /// Ctrl-C ends what runs for ever; elsewhere it ends the program.
    fn interrupted(&mut self) -> Result<bool, Exit> {
        if !(self.monitor || self.subscribed) {
            return Err(Exit(1));
        }
        self.take_interrupt();
        (self.monitor, self.subscribed) = (false, false);
        Ok(self.connect(false))
    }

    /// Empties the pipe that Ctrl-C writes to.
    pub fn take_interrupt(&mut self) {
        use std::io::Read;
        if let Some(pipe) = &mut self.interrupt {
            let _ = pipe.read(&mut [0u8; 64]);
        }
    }

    fn lost(&mut self, fault: Fault) -> Result<bool, Exit> {
        let survives = self.interactive && fault.is_lost_link();
        self.fault = Some(fault);
        if survives {
            return Ok(false);
        }
        self.print_fault();
        Err(Exit(1))
    }

    /// MOVED and ASK: notes where the command goes next.
    fn redirect(&mut self, text: &[u8]) -> Result<bool, Exit> {
        let text = String::from_utf8_lossy(text).into_owned();
        let mut words = text.split(' ');
        let (kind, slot, place) = (words.next(), words.next(), words.next());
        let ask = kind == Some("ASK");
        if !ask && kind != Some("MOVED") {
            return Ok(false);
        }
        let (Some(slot), Some((host, port))) = (slot, place.and_then(|place| place.rsplit_once(':'))) else {
            return Ok(false);
        };
        // An empty host means: the one that answered.
        if !host.is_empty() {
            self.options.target.host = host.as_bytes().to_vec();
        }
        self.options.target.port = leading_number(port.as_bytes());
        if self.interactive {
            let host = String::from_utf8_lossy(&self.options.target.host).into_owned();
            emit_line(&format!("-> Redirected to slot [{slot}] located at {host}:{port}"))?;
        }
        self.reissue = true;
        self.asking = ask;
        Ok(true)
    }

    fn show_push(&mut self, value: &Value) -> Result<(), Exit> {
        match format::invalidation(value) {
            Some(text) if self.options.output == Output::Standard => emit(&text),
            _ => self.show(value, false),
        }
    }

    fn show(&self, value: &Value, verbatim: bool) -> Result<(), Exit> {
        let delimiters = Delimiters {
            elements: self.options.elements_delimiter.clone(),
            replies: self.options.replies_delimiter.clone(),
        };
        emit(&format::reply(value, self.options.output, verbatim, &delimiters))
    }
}

/// Whether a step of greeting worked; says why not.
fn told(step: &str, reply: Option<Value>) -> bool {
    match reply {
        Some(Value::Error(text)) => {
            eprintln!("{step}: {}", String::from_utf8_lossy(&text));
            false
        }
        Some(_) => true,
        None => false,
    }
}

/// Replies that are texts for people: shown without quotes.
fn is_shown_verbatim(words: &[Vec<u8>]) -> bool {
    let word = |at: usize| words.get(at).map(|word| word.to_ascii_lowercase()).unwrap_or_default();
    let (command, sub) = (word(0), word(1));
    match (command.as_slice(), sub.as_slice()) {
        (b"info" | b"lolwut", _) => true,
        (b"debug", b"htstats" | b"htstats-key" | b"client-eviction") => true,
        (b"memory", b"malloc-stats" | b"doctor") | (b"client", b"list" | b"info") => true,
        (b"cluster", b"nodes" | b"info") | (b"latency", b"doctor") => words.len() == 2,
        (b"latency", b"graph") => words.len() == 3,
        (b"proxy", b"info") => true,
        _ => false,
    }
}
