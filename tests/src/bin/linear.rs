//! Records histories of several clients on a running server and checks each: `linear PORT HISTORIES OPERATIONS [SEED]`.
#![forbid(unsafe_code)]

use kara_tests::linear::{Fault, Plan, Verdict, check, record};
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let [port, histories, operations, seed @ ..] = numbers.as_slice() else {
        eprintln!("linear PORT HISTORIES OPERATIONS [SEED]");
        return ExitCode::FAILURE;
    };
    let first = seed.first().copied().unwrap_or(1);
    let start = Instant::now();
    let (mut wrong, mut too_large) = (0, 0);
    for seed in first..first + histories {
        let plan = Plan { clients: 8, operations: *operations as usize, seed, fault: Fault::None };
        let history = match record(*port as u16, plan) {
            Ok(history) => history,
            Err(fault) => {
                eprintln!("seed {seed}: {fault}");
                return ExitCode::FAILURE;
            }
        };
        match check(&history) {
            Verdict::Linearizable => {}
            Verdict::TooLarge => too_large += 1,
            Verdict::Impossible { explained } => {
                wrong += 1;
                println!("seed {seed}: only {explained} steps explained\n{history:#?}");
            }
        }
    }
    println!(
        "{histories} histories of {operations} steps, 8 clients: {wrong} not linearizable, {too_large} too large to tell, {:.0} s",
        start.elapsed().as_secs_f64()
    );
    if wrong + too_large == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
