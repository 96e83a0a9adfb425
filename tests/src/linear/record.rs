//! Recording histories: clients with random steps against a running server.

use super::model::{COUNTERS, Command, LISTS, STRINGS};
use super::{History, Operation, Outcome, Step};
use crate::client::{Client, Request};
use crate::reply::Reply;
use kara_base::rng::Rng;
use std::io;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Instant;

/// How a history is made.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub clients: usize,
    /// Steps of all clients together.
    pub operations: usize,
    pub seed: u64,
    pub fault: Fault,
}

/// What the clients do wrong on purpose, so that it can be shown that the checker notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// A transaction's commands are sent without MULTI and EXEC.
    TornTransactions,
    /// WATCH is not sent.
    NoWatch,
    /// A value that a waiting client was served with goes back, and is popped and forgotten a little later: as if it
    /// had been seen by others before the waiting client got it.
    LateServing,
}

/// Empties the server and runs one history on it.
///
/// # Errors
/// Where a connection breaks or an answer is of no known shape.
pub fn record(port: u16, plan: Plan) -> io::Result<History> {
    Client::connect(port)?.try_call(&["FLUSHALL"])?;
    let start = Instant::now();
    let values = AtomicU32::new(1);
    let barrier = Barrier::new(plan.clients);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.clients)
            .map(|number| {
                let (values, barrier) = (&values, &barrier);
                scope.spawn(move || {
                    let client = Client::connect(port);
                    barrier.wait();
                    let rng = Rng::new(plan.seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
                    let mut recorder = Recorder { client: client?, rng, values, start, fault: plan.fault };
                    let mut steps = Vec::new();
                    while steps.len() < plan.operations / plan.clients {
                        recorder.some(&mut steps)?;
                    }
                    Ok(steps)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("a client panicked"))))
            .collect()
    })
}

struct Recorder<'a> {
    client: Client,
    rng: Rng,
    values: &'a AtomicU32,
    start: Instant,
    fault: Fault,
}

impl Recorder<'_> {
    fn pick(&mut self, keys: &[u8]) -> u8 {
        keys[self.rng.below(keys.len() as u64) as usize]
    }

    fn value(&self) -> u32 {
        self.values.fetch_add(1, Relaxed)
    }

    /// A command that answers at once.
    fn command(&mut self) -> Command {
        match self.rng.below(12) {
            0 => Command::Set(self.pick(&STRINGS), self.value()),
            1 | 2 => Command::Get(self.pick(&STRINGS)),
            3 => Command::Incr(self.pick(&COUNTERS)),
            4..=7 => {
                Command::Push { key: self.pick(&LISTS), value: self.value(), left: self.rng.below(2) == 0 }
            }
            8 => Command::Pop { key: self.pick(&LISTS), left: self.rng.below(2) == 0 },
            9 => Command::Del(self.pick(&LISTS)),
            _ => Command::Len(self.pick(&LISTS)),
        }
    }

    fn waiting_command(&mut self) -> Command {
        if self.rng.below(4) == 0 {
            return Command::Move { from: self.pick(&LISTS), to: self.pick(&LISTS) };
        }
        let keys = (0..=self.rng.below(2)).map(|_| self.pick(&LISTS)).collect();
        Command::Take { keys, left: self.rng.below(2) == 0 }
    }

    /// Commands that are one step together.
    fn together(&mut self) -> Vec<Command> {
        let count = 2 + self.rng.below(3);
        let command = |this: &mut Self| match this.rng.below(6) {
            0 => this.waiting_command(),
            _ => this.command(),
        };
        (0..count).map(|_| command(self)).collect()
    }

    fn transaction(&mut self) -> Step {
        Step::Transaction(self.together())
    }

    /// One step, or a few that belong together.
    fn some(&mut self, steps: &mut Vec<Operation>) -> io::Result<()> {
        match self.rng.below(10) {
            0..=3 => {
                let command = self.command();
                self.run(Step::One(command), steps)
            }
            4..=6 => {
                let command = self.waiting_command();
                self.run(Step::One(command), steps)
            }
            7 => {
                let transaction = self.transaction();
                self.run(transaction, steps)
            }
            8 => {
                let script = Step::Script { commands: self.together(), declared: self.rng.below(2) == 0 };
                self.run(script, steps)
            }
            _ => {
                let (text, list) = (self.pick(&STRINGS), self.pick(&LISTS));
                self.run(Step::Watch(vec![text, list]), steps)?;
                self.run(Step::One(Command::Get(text)), steps)?;
                let transaction = self.transaction();
                self.run(transaction, steps)
            }
        }
    }

    fn run(&mut self, step: Step, steps: &mut Vec<Operation>) -> io::Result<()> {
        let mut requests = Vec::new();
        match &step {
            Step::One(command) => requests.push(request(command)),
            Step::Watch(_) if self.fault == Fault::NoWatch => requests.push(vec![b"PING".to_vec()]),
            Step::Watch(keys) => {
                requests
                    .push(std::iter::once(b"WATCH".to_vec()).chain(keys.iter().map(|k| key(*k))).collect());
            }
            Step::Script { commands, declared } => requests.push(script(commands, *declared)),
            Step::Transaction(commands) => {
                requests.push(vec![b"MULTI".to_vec()]);
                requests.extend(commands.iter().map(request));
                requests.push(vec![b"EXEC".to_vec()]);
            }
        }
        let torn = self.fault == Fault::TornTransactions && requests.len() > 1;
        let sent_ns = self.now_ns();
        let reply = if torn {
            let commands = &requests[1..requests.len() - 1];
            let replies = commands.iter().map(|request| self.client.try_call(request));
            Reply::Array(replies.collect::<io::Result<Vec<_>>>()?)
        } else {
            self.client.send(&requests)?;
            self.client.read_many(requests.len())?.pop().ok_or(io::ErrorKind::UnexpectedEof)?
        };
        if self.fault == Fault::LateServing
            && let Some([list, value]) = reply.items().first_chunk()
            && matches!(step, Step::One(_))
        {
            let (list, value) = (list.text(), value.text());
            self.client.try_call(&["LPUSH", &list, &value])?;
            self.client.try_call(&["LREM", &list, "1", &value])?;
        }
        let answered_ns = self.now_ns();
        let outcome = match &step {
            Step::Watch(_) => Outcome::Ok,
            Step::One(_) => outcome(&reply),
            Step::Transaction(_) | Step::Script { .. } => match &reply {
                Reply::Array(replies) => Outcome::Several(replies.iter().map(outcome).collect()),
                other => outcome(other),
            },
        };
        steps.push(Operation { step, outcome, sent_ns, answered_ns });
        Ok(())
    }

    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
}

fn key(number: u8) -> Vec<u8> {
    format!("key{number}").into_bytes()
}

fn request(command: &Command) -> Request {
    let side = |left: &bool, of_left: &str, of_right: &str| {
        if *left { of_left.as_bytes().to_vec() } else { of_right.as_bytes().to_vec() }
    };
    // Long enough to be served often, short enough that the clients don't all wait for each other.
    let timeout = || b"0.004".to_vec();
    match command {
        Command::Set(name, value) => vec![b"SET".to_vec(), key(*name), value.to_string().into()],
        Command::Get(name) => vec![b"GET".to_vec(), key(*name)],
        Command::Incr(name) => vec![b"INCR".to_vec(), key(*name)],
        Command::Push { key: name, value, left } => {
            vec![side(left, "LPUSH", "RPUSH"), key(*name), value.to_string().into()]
        }
        Command::Pop { key: name, left } => vec![side(left, "LPOP", "RPOP"), key(*name)],
        Command::Len(name) => vec![b"LLEN".to_vec(), key(*name)],
        Command::Del(name) => vec![b"DEL".to_vec(), key(*name)],
        Command::Take { keys, left } => {
            let names = keys.iter().map(|name| key(*name));
            std::iter::once(side(left, "BLPOP", "BRPOP")).chain(names).chain([timeout()]).collect()
        }
        Command::Move { from, to } => {
            vec![b"BLMOVE".to_vec(), key(*from), key(*to), b"LEFT".to_vec(), b"RIGHT".to_vec(), timeout()]
        }
    }
}

/// A script of these commands. Nil would end the table that it answers with.
fn script(commands: &[Command], declared: bool) -> Request {
    let quoted = |word: &Vec<u8>| format!("'{}'", String::from_utf8_lossy(word));
    let call = |command: &Command| {
        let words: Vec<String> = request(command).iter().map(quoted).collect();
        format!("some(redis.call({}))", words.join(", "))
    };
    let calls: Vec<String> = commands.iter().map(call).collect();
    let some = "local function some(x) if x then return x end return 'nothing' end";
    let text = format!("{some} return {{{}}}", calls.join(", "));
    let mut keys: Vec<u8> =
        if declared { commands.iter().flat_map(Command::keys).collect() } else { Vec::new() };
    keys.sort_unstable();
    keys.dedup();
    let head = [b"EVAL".to_vec(), text.into(), keys.len().to_string().into()];
    head.into_iter().chain(keys.into_iter().map(key)).collect()
}

fn outcome(reply: &Reply) -> Outcome {
    let number = |reply: &Reply| reply.text().parse::<u32>().ok();
    match reply {
        Reply::NullBulk | Reply::NullArray | Reply::Null => Outcome::Null,
        Reply::Simple(_) => Outcome::Ok,
        Reply::Integer(n) => Outcome::Integer(*n),
        Reply::Bulk(text) if text == b"nothing" => Outcome::Null,
        Reply::Bulk(_) => number(reply).map_or(Outcome::Error, Outcome::Text),
        Reply::Array(items) => match items.as_slice() {
            [from, value] => {
                let from = from.text().strip_prefix("key").and_then(|n| n.parse().ok());
                from.zip(number(value)).map_or(Outcome::Error, |(from, value)| Outcome::From(from, value))
            }
            _ => Outcome::Error,
        },
        _ => Outcome::Error,
    }
}
