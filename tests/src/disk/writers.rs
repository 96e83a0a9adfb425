//! Clients that write until the server goes, and know what they were answered.

use crate::{Client, Reply, Server};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Counters, each with a client of its own.
const COUNTERS: usize = 4;
/// Accounts between which money is moved.
const ACCOUNTS: u64 = 50;

/// A small generator of its own: what happens is the seed's.
#[derive(Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n.max(1)
    }
}

/// What is known of the data: every answer so far.
#[derive(Debug, Default)]
pub struct Writers {
    /// For each counter, the values answered in the last round, and when.
    answered: [Mutex<Vec<(Instant, u64)>>; COUNTERS],
    /// What each counter had at the beginning of the round.
    before: [u64; COUNTERS],
}

impl Writers {
    /// Writes until every client has lost its server; `meanwhile` runs beside and must end it.
    pub fn run(&mut self, server: &Server, seed: u64, meanwhile: impl FnOnce()) {
        let clients: Vec<Client> = (0..=COUNTERS).map(|_| server.client()).collect();
        let answered = &self.answered;
        std::thread::scope(|scope| {
            for (number, mut client) in clients.into_iter().enumerate() {
                // A server whose disk is gone holds its answers back: then the writer waits for the end like this.
                let _ = client.set_timeout(Duration::from_secs(5));
                scope.spawn(move || match answered.get(number) {
                    Some(answered) => count(&mut client, number, answered),
                    None => transfer(&mut client, seed),
                });
            }
            meanwhile();
        });
    }

    /// Compares what is there with what was answered: nothing is missing but what was answered after `forgiven`, and
    /// nothing is there that nobody asked for.
    ///
    /// # Errors
    /// What is missing or too much.
    pub fn check(&mut self, client: &mut Client, forgiven: Option<Instant>) -> Result<(), String> {
        for (number, before) in self.before.iter_mut().enumerate() {
            let kept: u64 = client.run(&format!("GET n{number}")).text().parse().unwrap_or(0);
            let answered =
                self.answered.get(number).and_then(|a| a.lock().ok()).map(|mut a| std::mem::take(&mut *a));
            let answered = answered.unwrap_or_default();
            let last = answered.last().map_or(*before, |(_, value)| *value);
            let held = answered.iter().rfind(|(at, _)| forgiven.is_none_or(|limit| *at <= limit));
            let least = held.map_or(if forgiven.is_some() { 0 } else { *before }, |(_, value)| *value);
            if kept < least {
                return Err(format!("n{number}: {least} was answered, {kept} is there"));
            }
            // One more may have been done whose answer didn't get out.
            if kept > last + 1 {
                return Err(format!("n{number}: {kept} is there, asked for were {last} and one"));
            }
            *before = kept;
        }
        let sum: i64 = (0..ACCOUNTS)
            .map(|n| client.run(&format!("GET account:{n}")).text().parse::<i64>().unwrap_or(0))
            .sum();
        if sum != 0 {
            return Err(format!("a transaction was done by half: the sum is {sum}"));
        }
        Ok(())
    }
}

fn count(client: &mut Client, number: usize, answered: &Mutex<Vec<(Instant, u64)>>) {
    let key = format!("n{number}");
    // What is refused (MISCONF) is no answer to count on, and the next try comes soon.
    while let Ok(reply) = client.try_call(&["INCR", &key]) {
        match reply {
            Reply::Integer(n) => {
                if let Ok(mut answered) = answered.lock() {
                    answered.push((Instant::now(), n as u64));
                }
            }
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Moves money between random accounts in transactions.
fn transfer(client: &mut Client, seed: u64) {
    let mut dice = Dice(seed | 1);
    loop {
        let (from, to, amount) = (dice.below(ACCOUNTS), dice.below(ACCOUNTS), dice.below(50));
        for line in [
            "MULTI".to_owned(),
            format!("DECRBY account:{from} {amount}"),
            format!("INCRBY account:{to} {amount}"),
            format!("SET filler:{} {amount}", dice.below(2000)),
            "EXEC".to_owned(),
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            if client.try_call(&words).is_err() {
                return;
            }
        }
    }
}
