//! The search for an order (Wing and Gong's, with what was tried before remembered).
//!
//! A position is how many steps of each client are done, and the model's state. From there, any client's next step may
//! come next that was sent before every step that is still to be done was answered. A client that waits arrives with one
//! step, and leaves when it was served, or when its time is over.

use super::model::{Effect, State};
use super::{History, Operation, Outcome};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// What the search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    /// No order explains the answers; the most steps that one explained.
    Impossible {
        explained: usize,
    },
    /// The search was given up.
    TooLarge,
}

/// Positions after which a search is given up.
const LIMIT: usize = 2_000_000;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Position {
    done: Vec<usize>,
    /// The client's next step has arrived, and waits.
    arrived: Vec<bool>,
    state: State,
}

/// Looks for an order of the steps that explains every answer.
pub fn check(history: &History) -> Verdict {
    let clients = history.len();
    let total: usize = history.iter().map(Vec::len).sum();
    let start = Position { done: vec![0; clients], arrived: vec![false; clients], state: State::default() };
    let mut seen: HashSet<u64> = HashSet::new();
    let mut stack = vec![start];
    let mut explained = 0;
    while let Some(position) = stack.pop() {
        let done: usize = position.done.iter().sum();
        explained = explained.max(done);
        if done == total {
            return Verdict::Linearizable;
        }
        if seen.len() > LIMIT {
            return Verdict::TooLarge;
        }
        // The step that was answered first goes on top: mostly it is the right one.
        let mut next: Vec<(u64, Position)> = Vec::new();
        let deadline = deadline(history, &position);
        for (client, steps) in history.iter().enumerate() {
            let Some(operation) = steps.get(position.done[client]) else { continue };
            if operation.sent_ns <= deadline {
                next.extend(follow(&position, client, operation).map(|p| (operation.answered_ns, p)));
            }
        }
        next.sort_by_key(|(answered_ns, _)| std::cmp::Reverse(*answered_ns));
        for (_, position) in next {
            let mut hasher = DefaultHasher::new();
            position.hash(&mut hasher);
            if seen.insert(hasher.finish()) {
                stack.push(position);
            }
        }
    }
    Verdict::Impossible { explained }
}

/// The earliest answer among the steps that are still to be done: what was sent later comes after it.
fn deadline(history: &History, position: &Position) -> u64 {
    let next = history.iter().zip(&position.done).filter_map(|(steps, done)| steps.get(*done));
    next.map(|operation| operation.answered_ns).min().unwrap_or(u64::MAX)
}

/// The position after the client's next step, or after the part of it that can come now.
fn follow(from: &Position, client: usize, operation: &Operation) -> Option<Position> {
    let mut to = from.clone();
    let number = client as u8;
    let outcome = if from.arrived[client] {
        match to.state.take_served(number) {
            Some(outcome) => outcome,
            None if operation.outcome == Outcome::Null && to.state.time_out(number) => Outcome::Null,
            None => return None,
        }
    } else {
        match to.state.step(number, &operation.step) {
            Effect::Answer(outcome) => outcome,
            Effect::Waits => {
                to.arrived[client] = true;
                return Some(to);
            }
        }
    };
    if outcome != operation.outcome {
        return None;
    }
    to.arrived[client] = false;
    to.done[client] += 1;
    Some(to)
}

#[cfg(test)]
mod tests {
    use super::super::Step;
    use super::super::model::Command;
    use super::*;

    fn operation(step: Step, outcome: Outcome, sent_ns: u64, answered_ns: u64) -> Operation {
        Operation { step, outcome, sent_ns, answered_ns }
    }

    #[test]
    fn overlapping_steps_may_come_in_either_order() {
        let set = operation(Step::One(Command::Set(0, 7)), Outcome::Ok, 0, 100);
        for outcome in [Outcome::Null, Outcome::Text(7)] {
            let get = operation(Step::One(Command::Get(0)), outcome, 50, 60);
            assert_eq!(check(&vec![vec![set.clone()], vec![get]]), Verdict::Linearizable);
        }
    }

    #[test]
    fn a_step_sees_what_was_answered_before_it_was_sent() {
        let set = operation(Step::One(Command::Set(0, 7)), Outcome::Ok, 0, 10);
        let get = operation(Step::One(Command::Get(0)), Outcome::Null, 20, 30);
        assert_eq!(check(&vec![vec![set], vec![get]]), Verdict::Impossible { explained: 1 });
    }

    #[test]
    fn a_watched_key_that_changed_ends_the_transaction() {
        let transaction = |outcome| {
            vec![
                vec![
                    operation(Step::Watch(vec![0]), Outcome::Ok, 0, 10),
                    operation(Step::Transaction(vec![Command::Get(0)]), outcome, 100, 110),
                ],
                vec![operation(Step::One(Command::Set(0, 5)), Outcome::Ok, 20, 30)],
            ]
        };
        assert_eq!(check(&transaction(Outcome::Null)), Verdict::Linearizable);
        let ran = Outcome::Several(vec![Outcome::Text(5)]);
        assert!(matches!(check(&transaction(ran)), Verdict::Impossible { .. }));
    }
}
