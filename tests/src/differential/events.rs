//! Keyspace notifications, held against the reference's: the same random commands on both servers over connections
//! that listen to all notifications, which therefore stand right behind each command's reply.

use super::template::Family;
use super::values::Mood;
use crate::client::{Client, Request, show};
use crate::{Reply, Server};
use kara_base::rng::Rng;
use std::collections::BTreeMap;
use std::io;

/// What to run.
#[derive(Clone, Debug)]
pub struct EventOptions {
    pub families: Vec<String>,
    pub commands: u64,
    pub seed: u64,
    /// Commands between two FLUSHALL.
    pub round: usize,
    /// Further arguments of our server.
    pub arguments: Vec<String>,
}

/// The kinds of disagreement, each with its first example, and how many commands ran.
#[derive(Debug, Default)]
pub struct EventOutcome {
    pub commands: u64,
    pub events: u64,
    pub findings: BTreeMap<String, String>,
}

/// Runs all of them.
///
/// # Errors
/// Where a family's text is faulty, or a connection is lost.
///
/// # Panics
/// Where one of the servers doesn't start.
pub fn run_events(options: &EventOptions) -> Result<EventOutcome, String> {
    let families: Vec<Family> =
        options.families.iter().map(|name| Family::load(name)).collect::<Result<_, _>>()?;
    let arguments: Vec<&str> = options.arguments.iter().map(String::as_str).collect();
    let (ours, theirs) = (Server::start(&arguments), Server::reference(&[]));
    let mut clients = [listener(&ours), listener(&theirs)];
    let mut outcome = EventOutcome::default();
    for round in 0.. {
        if outcome.commands >= options.commands {
            break;
        }
        let mut rng = Rng::new(options.seed.wrapping_mul(1_000_003).wrapping_add(round));
        let family = &families[(round % families.len() as u64) as usize];
        let mut mood = Mood::new(&mut rng, family.name);
        play_round(family, &mut rng, &mut mood, options.round, &mut clients, &mut outcome)
            .map_err(|fault| format!("family {}, round {round}: {fault}", family.name))?;
    }
    Ok(outcome)
}

/// Classes: all, with those that `A` leaves out.
fn listener(server: &Server) -> Client {
    let mut client = server.client();
    for line in [
        "HELLO 3",
        "CONFIG SET notify-keyspace-events EAmn",
        "DEBUG SET-ACTIVE-EXPIRE 0",
        "PSUBSCRIBE __key*",
    ] {
        let reply = client.run(line);
        assert!(!reply.is_error(), "{line}: {reply:?}");
    }
    client
}

fn play_round(
    family: &Family,
    rng: &mut Rng,
    mood: &mut Mood,
    length: usize,
    clients: &mut [Client; 2],
    outcome: &mut EventOutcome,
) -> io::Result<()> {
    let mut history: Vec<Request> = Vec::new();
    for client in &mut *clients {
        answers(client, &[vec![b"FLUSHALL".to_vec()]])?;
    }
    while history.len() < length {
        let Some(template) = family.pick(rng) else { break };
        let requests = template.make(rng, mood);
        history.extend(requests.iter().cloned());
        outcome.commands += requests.len() as u64;
        let [ours, theirs] = [answers(&mut clients[0], &requests)?, answers(&mut clients[1], &requests)?];
        for (at, (request, (ours, theirs))) in requests.iter().zip(ours.iter().zip(&theirs)).enumerate() {
            outcome.events += theirs.1.len() as u64;
            let name = request.first().map(|w| String::from_utf8_lossy(w).to_uppercase()).unwrap_or_default();
            if ours.1 == theirs.1 || name.starts_with("SORT") && sorted(&ours.1) == sorted(&theirs.1) {
                continue;
            }
            let names = |events: &[(String, Vec<u8>)]| {
                let names: Vec<&str> = events.iter().map(|(event, _)| event.as_str()).take(6).collect();
                names.join(",")
            };
            let kind = format!("{name}: [{}] instead of [{}]", names(&ours.1), names(&theirs.1));
            let upto = history.len() - requests.len() + at + 1;
            outcome.findings.entry(kind).or_insert_with(|| {
                format!(
                    "{}    ours:   {:?} {:?}\n    theirs: {:?} {:?}",
                    related(&history[..upto]),
                    ours.0,
                    shown(&ours.1),
                    theirs.0,
                    shown(&theirs.1)
                )
            });
            // The datasets may differ from here on.
            if ours.0 != theirs.0 {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// An event and its key.
type Event = (String, Vec<u8>);

/// Each request's reply, and the notifications behind it.
fn answers(client: &mut Client, requests: &[Request]) -> io::Result<Vec<(Reply, Vec<Event>)>> {
    let mut sent = requests.to_vec();
    sent.push(vec![b"PING".to_vec()]);
    client.send(&sent)?;
    let mut out: Vec<(Reply, Vec<Event>)> = Vec::new();
    while out.len() < sent.len() {
        match client.read()? {
            Reply::Push(items) => {
                let event = items.get(2).map(Reply::text).unwrap_or_default();
                let event = event.split(':').nth(1).unwrap_or_default().to_owned();
                let key = items.get(3).and_then(Reply::bytes).unwrap_or_default().to_vec();
                // When something expires is a matter of milliseconds.
                if let Some((_, events)) = out.last_mut().filter(|_| !event.contains("expired")) {
                    events.push((event, key));
                }
            }
            reply => out.push((reply, Vec::new())),
        }
    }
    out.pop();
    Ok(out)
}

/// SORT looks at the keys of its patterns in whatever order its algorithm has.
fn sorted(events: &[Event]) -> Vec<Event> {
    let mut events = events.to_vec();
    events.sort();
    events
}

fn shown(events: &[Event]) -> Vec<String> {
    events.iter().take(12).map(|(event, key)| format!("{event} {}", key.escape_ascii())).collect()
}

/// The last commands that share an argument with the last one.
fn related(history: &[Request]) -> String {
    let Some((last, earlier)) = history.split_last() else { return String::new() };
    let shares = |request: &&Request| request.iter().skip(1).any(|word| last[1..].contains(word));
    let mut lines: Vec<String> =
        earlier.iter().rev().filter(shares).take(5).map(|request| show(request)).collect();
    lines.reverse();
    lines.push(show(last));
    lines.iter().fold(String::new(), |text, line| {
        let clipped: String = line.chars().take(200).collect();
        text + "    " + &clipped + "\n"
    })
}
