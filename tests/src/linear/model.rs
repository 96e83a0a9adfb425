//! The model: two strings, two counters and three lists as one client alone would see them, and who waits for a list.

use super::{Outcome, Step};
use std::collections::VecDeque;

/// Numbers of keys: 0 and 1 are strings, 2 and 3 counters, 4 to 6 lists.
pub const STRINGS: [u8; 2] = [0, 1];
pub const COUNTERS: [u8; 2] = [2, 3];
pub const LISTS: [u8; 3] = [4, 5, 6];
const KEYS: usize = 7;

/// One command. Keys are numbers, and so are values: every value is written once in a history.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    Set(u8, u32),
    Get(u8),
    Incr(u8),
    Push {
        key: u8,
        value: u32,
        left: bool,
    },
    Pop {
        key: u8,
        left: bool,
    },
    Len(u8),
    Del(u8),
    /// BLPOP or BRPOP; waits unless it is part of a transaction.
    Take {
        keys: Vec<u8>,
        left: bool,
    },
    /// BLMOVE LEFT RIGHT, likewise.
    Move {
        from: u8,
        to: u8,
    },
}

impl Command {
    /// All keys that it names.
    pub fn keys(&self) -> Vec<u8> {
        match self {
            Command::Set(key, _) | Command::Get(key) | Command::Incr(key) => vec![*key],
            Command::Len(key) | Command::Del(key) => vec![*key],
            Command::Push { key, .. } | Command::Pop { key, .. } => vec![*key],
            Command::Take { keys, .. } => keys.clone(),
            Command::Move { from, to } => vec![*from, *to],
        }
    }

    fn waits_for(&self, list: u8) -> bool {
        match self {
            Command::Take { keys, .. } => keys.contains(&list),
            Command::Move { from, .. } => *from == list,
            _ => false,
        }
    }
}

/// The state between two steps.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct State {
    texts: [Option<u32>; 2],
    counters: [i64; 2],
    lists: [VecDeque<u32>; 3],
    /// Lists that came into being in the step at hand.
    ready: Vec<u8>,
    /// Who waits, in the order of arrival.
    waiting: Vec<(u8, Command)>,
    /// Per client: the keys that it watches, as bits, and whether one of them was touched.
    watched: [(u8, bool); 16],
    /// Answers of clients that were served and whose turn has not come yet.
    served: Vec<(u8, Outcome)>,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Answer(Outcome),
    /// The client waits from now on.
    Waits,
}

impl State {
    /// Runs a client's step. Whoever waits for what it brings is served at its end.
    pub fn step(&mut self, client: u8, step: &Step) -> Effect {
        let answer = match step {
            Step::Watch(keys) => {
                let (watched, _) = &mut self.watched[usize::from(client)];
                *watched |= keys.iter().fold(0, |bits, key| bits | 1 << key);
                Outcome::Ok
            }
            Step::One(command) => match self.run(command) {
                Some(outcome) => outcome,
                None => {
                    self.waiting.push((client, command.clone()));
                    return Effect::Waits;
                }
            },
            Step::Transaction(commands) => {
                let (_, touched) = std::mem::take(&mut self.watched[usize::from(client)]);
                if touched {
                    return Effect::Answer(Outcome::Null);
                }
                self.run_all(commands)
            }
            Step::Script { commands, .. } => self.run_all(commands),
        };
        self.serve();
        Effect::Answer(answer)
    }

    /// Nobody waits in the middle of a step.
    fn run_all(&mut self, commands: &[Command]) -> Outcome {
        Outcome::Several(commands.iter().map(|c| self.run(c).unwrap_or(Outcome::Null)).collect())
    }

    /// The answer of a client that waited, once it was served.
    pub fn take_served(&mut self, client: u8) -> Option<Outcome> {
        let at = self.served.iter().position(|(who, _)| *who == client)?;
        Some(self.served.remove(at).1)
    }

    /// The client's time is over; false where it was served.
    pub fn time_out(&mut self, client: u8) -> bool {
        let Some(at) = self.waiting.iter().position(|(who, _)| *who == client) else { return false };
        self.waiting.remove(at);
        true
    }

    /// Serves whoever waits for the lists that came into being, list by list, each in the order of arrival. A served
    /// client's command looks at all its keys, whichever of them woke it.
    fn serve(&mut self) {
        while !self.ready.is_empty() {
            let key = self.ready.remove(0);
            let mut at = 0;
            while at < self.waiting.len() && !self.list(key).is_empty() {
                let (client, command) = self.waiting[at].clone();
                match command.waits_for(key).then(|| self.run(&command)).flatten() {
                    None => at += 1,
                    Some(outcome) => {
                        self.waiting.remove(at);
                        self.served.push((client, outcome));
                        self.served.sort_by_key(|(client, _)| *client);
                    }
                }
            }
        }
    }

    fn touch(&mut self, key: u8) {
        for (watched, touched) in &mut self.watched {
            *touched |= *watched & 1 << key != 0;
        }
    }

    fn list(&mut self, key: u8) -> &mut VecDeque<u32> {
        &mut self.lists[usize::from(key) - usize::from(LISTS[0])]
    }

    fn pop(&mut self, key: u8, left: bool) -> Option<u32> {
        let list = self.list(key);
        let value = if left { list.pop_front() } else { list.pop_back() };
        if value.is_some() {
            self.touch(key);
        }
        value
    }

    fn push(&mut self, key: u8, value: u32, left: bool) -> i64 {
        let list = self.list(key);
        if left {
            list.push_front(value);
        } else {
            list.push_back(value);
        }
        let len = list.len() as i64;
        if len == 1 {
            self.ready.push(key);
        }
        self.touch(key);
        len
    }

    /// `None`: there is nothing to answer yet.
    fn run(&mut self, command: &Command) -> Option<Outcome> {
        debug_assert_eq!(KEYS, usize::from(LISTS[2]) + 1);
        Some(match command {
            Command::Set(key, value) => {
                self.texts[usize::from(*key)] = Some(*value);
                self.touch(*key);
                Outcome::Ok
            }
            Command::Get(key) => self.texts[usize::from(*key)].map_or(Outcome::Null, Outcome::Text),
            Command::Incr(key) => {
                let counter = &mut self.counters[usize::from(*key - COUNTERS[0])];
                *counter += 1;
                let now = *counter;
                self.touch(*key);
                Outcome::Integer(now)
            }
            Command::Push { key, value, left } => Outcome::Integer(self.push(*key, *value, *left)),
            Command::Pop { key, left } => self.pop(*key, *left).map_or(Outcome::Null, Outcome::Text),
            Command::Len(key) => Outcome::Integer(self.list(*key).len() as i64),
            Command::Del(key) => {
                let there = !std::mem::take(self.list(*key)).is_empty();
                if there {
                    self.touch(*key);
                }
                Outcome::Integer(i64::from(there))
            }
            Command::Take { keys, left } => {
                let key = *keys.iter().find(|key| !self.lists[usize::from(**key - LISTS[0])].is_empty())?;
                Outcome::From(key, self.pop(key, *left)?)
            }
            Command::Move { from, to } => {
                let value = self.pop(*from, true)?;
                self.push(*to, value, false);
                Outcome::Text(value)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_who_waits_is_served_first_and_at_once() {
        let take = || Step::One(Command::Take { keys: vec![LISTS[0], LISTS[1]], left: true });
        let mut state = State::default();
        assert_eq!(state.step(5, &take()), Effect::Waits);
        assert_eq!(state.step(2, &take()), Effect::Waits);
        let push = Command::Push { key: LISTS[1], value: 9, left: true };
        let answer = state.step(0, &Step::Transaction(vec![push, Command::Len(LISTS[1])]));
        // Inside the transaction the value is there; after it, it is not.
        let inside = Outcome::Several(vec![Outcome::Integer(1), Outcome::Integer(1)]);
        assert_eq!(answer, Effect::Answer(inside));
        assert_eq!(state.step(0, &Step::One(Command::Len(LISTS[1]))), Effect::Answer(Outcome::Integer(0)));
        assert_eq!(state.take_served(2), None);
        assert_eq!(state.take_served(5), Some(Outcome::From(LISTS[1], 9)));
        assert!(state.time_out(2) && !state.time_out(5));
    }
}
