//! Sends random commands to both servers in rounds and reports where they disagree, with the shortest list of
//! commands that still shows it.

use super::compare::{is_deliberate, same};
use super::template::{Comparison, Family};
use super::values::Mood;
use crate::client::{Client, Request, show};
use crate::{Reply, Server};
use kara_base::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

/// Commands that are sent before their replies are read.
const BATCH: usize = 48;
/// Replays that looking for a shorter reproduction may take.
const MAX_REPLAYS: u32 = 800;

/// The kind of a disagreement about the whole dataset.
const DIGESTS_DIFFER: &str = "DEBUG DIGEST differs";

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names of families; a round takes one of them.
    pub families: Vec<String>,
    /// Ends after so many commands ...
    pub commands: u64,
    /// ... or after so long.
    pub time_limit: Option<Duration>,
    pub seed: u64,
    /// Commands between two FLUSHALL.
    pub round: usize,
    /// Further arguments of our server.
    pub arguments: Vec<String>,
    /// Ends after so many different disagreements.
    pub max_findings: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            families: super::FAMILIES.iter().map(|(name, _)| (*name).to_string()).collect(),
            commands: 100_000,
            time_limit: None,
            seed: 1,
            round: 1500,
            arguments: Vec::new(),
            max_findings: 20,
        }
    }
}

/// What a run found.
#[derive(Debug, Default)]
pub struct Outcome {
    pub commands: u64,
    pub rounds: u64,
    /// One report for each kind of disagreement.
    pub findings: BTreeMap<String, String>,
    /// How often each kind came.
    pub counts: BTreeMap<String, u64>,
    /// Rounds that ended at a disagreement that is meant.
    pub deliberate: u64,
    /// Commands that our server doesn't know (yet); they are left out after their first error.
    pub unknown: BTreeSet<String>,
}

/// A command with its follow-ups, which go over one connection without others in between.
#[derive(Clone, Debug)]
struct Step {
    resp3: bool,
    requests: Vec<Request>,
    comparison: Comparison,
}

/// A disagreement within a step.
struct Finding {
    step: usize,
    request: usize,
    ours: String,
    theirs: String,
    kind: String,
    deliberate: bool,
}

enum Fault {
    Found(Finding),
    /// Our server closed the connection or didn't answer.
    Lost(io::Error),
}

struct Pair {
    ours: Server,
    theirs: Server,
    our_clients: [Client; 2],
    their_clients: [Client; 2],
}

/// Runs until the commands, the time or the number of findings is reached.
///
/// # Errors
/// Where a family's text is faulty.
///
/// # Panics
/// Where one of the servers doesn't start.
pub fn run(options: &Options) -> Result<Outcome, String> {
    let families: Vec<Family> =
        options.families.iter().map(|name| Family::load(name)).collect::<Result<_, _>>()?;
    let mut pair = Pair::start(&options.arguments);
    let started = Instant::now();
    let mut outcome = Outcome::default();
    let over = |outcome: &Outcome| {
        outcome.commands >= options.commands
            || outcome.findings.len() >= options.max_findings
            || options.time_limit.is_some_and(|limit| started.elapsed() > limit)
    };
    while !over(&outcome) {
        let seed = options.seed.wrapping_mul(1_000_003).wrapping_add(outcome.rounds);
        let family = &families[(outcome.rounds % families.len() as u64) as usize];
        outcome.rounds += 1;
        pair.round(family, seed, options.round, &mut outcome);
    }
    Ok(outcome)
}

impl Outcome {
    fn note(&mut self, kind: String, report: impl FnOnce() -> String) {
        *self.counts.entry(kind.clone()).or_default() += 1;
        self.findings.entry(kind).or_insert_with(|| {
            let report = report();
            println!("{report}\n");
            report
        });
    }
}

impl Pair {
    fn start(arguments: &[String]) -> Self {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        // Strings stay so short that filling, combining and digesting them takes no time.
        let most = ["--proto-max-bulk-len", "16777216"];
        let (ours, theirs) = (Server::start(&[&most, &arguments[..]].concat()), Server::reference(&most));
        let (our_clients, their_clients) = (clients(&ours), clients(&theirs));
        Self { ours, theirs, our_clients, their_clients }
    }

    /// One round: an empty dataset, random commands, then the datasets compared.
    fn round(&mut self, family: &Family, seed: u64, length: usize, outcome: &mut Outcome) {
        let mut rng = Rng::new(seed);
        let mut mood = Mood::new(&mut rng, family.name);
        if let Err(fault) = self.flush() {
            self.recover(&fault);
        }
        let mut history: Vec<Step> = Vec::new();
        while history.len() < length {
            let mut batch = make_batch(family, &mut rng, &mut mood, &outcome.unknown);
            if history.len() + batch.len() >= length {
                batch.extend(self.dataset_steps());
            }
            outcome.commands += batch.iter().map(|step| step.requests.len() as u64).sum::<u64>();
            let verdict = self.send_batch(&batch);
            let before = history.len();
            history.extend(batch);
            match verdict {
                Ok(()) => {}
                Err(Fault::Found(mut finding)) => {
                    finding.step += before;
                    self.report(family.name, seed, &mut history, &finding, outcome);
                    return;
                }
                Err(Fault::Lost(fault)) => {
                    self.report_loss(family.name, seed, &history, &fault, outcome);
                    return;
                }
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        for client in [&mut self.our_clients[0], &mut self.their_clients[0]] {
            client.try_call(&["FLUSHALL"])?;
        }
        Ok(())
    }

    /// After a lost connection: a new server where it is gone, new connections in any case.
    fn recover(&mut self, fault: &io::Error) {
        if !self.ours.is_alive() || self.ours.client().try_call(&["PING"]).is_err() {
            println!("our server is gone ({fault}); its log:\n{}", self.ours.log_tail());
            self.ours.restart();
        }
        self.our_clients = clients(&self.ours);
        self.their_clients = clients(&self.theirs);
        if let Err(fault) = self.flush() {
            panic!("FLUSHALL on a fresh connection: {fault}");
        }
    }

    fn send_batch(&mut self, batch: &[Step]) -> Result<(), Fault> {
        // Steps of one protocol after each other go out together.
        let mut from = 0;
        for part in batch.chunk_by(|a, b| a.resp3 == b.resp3) {
            self.send_part(part).map_err(|fault| match fault {
                Fault::Found(finding) => Fault::Found(Finding { step: finding.step + from, ..finding }),
                lost @ Fault::Lost(_) => lost,
            })?;
            from += part.len();
        }
        Ok(())
    }

    fn send_part(&mut self, steps: &[Step]) -> Result<(), Fault> {
        let requests: Vec<Request> = steps.iter().flat_map(|step| step.requests.iter().cloned()).collect();
        let which = usize::from(steps.first().is_some_and(|step| step.resp3));
        let (ours, theirs) = (&mut self.our_clients[which], &mut self.their_clients[which]);
        ours.send(&requests).map_err(Fault::Lost)?;
        theirs.send(&requests).unwrap_or_else(|fault| panic!("the reference: {fault}"));
        let mut first = None;
        // All replies are read even after a disagreement: the connections stay usable.
        for (at, step) in steps.iter().enumerate() {
            for (index, request) in step.requests.iter().enumerate() {
                let theirs =
                    theirs.read().unwrap_or_else(|fault| panic!("the reference: {}: {fault}", show(request)));
                let ours = ours.read().map_err(Fault::Lost)?;
                if first.is_none() && !same(&ours, &theirs, step.comparison) {
                    first = Some(Finding {
                        step: at,
                        request: index,
                        kind: kind_of(request, &ours, &theirs),
                        deliberate: is_deliberate(request, &ours, &theirs),
                        ours: format!("{ours:?}"),
                        theirs: format!("{theirs:?}"),
                    });
                }
            }
        }
        first.map_or(Ok(()), |finding| Err(Fault::Found(finding)))
    }

    /// Steps that read the whole dataset: digests of every key and of everything, or every key's value where our server
    /// has no digest.
    fn dataset_steps(&mut self) -> Vec<Step> {
        let step = |comparison, words: &[&[u8]]| Step {
            resp3: true,
            requests: vec![words.iter().map(|word| word.to_vec()).collect()],
            comparison,
        };
        let digest = self.our_clients[1].try_call(&["DEBUG", "DIGEST"]);
        let mut steps = vec![step(Comparison::Exact, &[b"DBSIZE"])];
        if digest.is_ok_and(|reply| !reply.is_error()) {
            for key in self.their_clients[1].call(&["KEYS", "*"]).items() {
                steps.push(step(
                    Comparison::Exact,
                    &[b"DEBUG", b"DIGEST-VALUE", key.bytes().unwrap_or_default()],
                ));
            }
            steps.push(step(Comparison::Exact, &[b"DEBUG", b"DIGEST"]));
            return steps;
        }
        for key in self.their_clients[1].call(&["KEYS", "*"]).items() {
            let key = key.bytes().unwrap_or_default();
            steps.push(step(Comparison::Exact, &[b"TYPE", key]));
            steps.push(step(Comparison::Near, &[b"PTTL", key]));
            let kind = self.their_clients[1].call(&[&b"TYPE"[..], key]).text();
            steps.push(match kind.as_str() {
                "string" => step(Comparison::Exact, &[b"GET", key]),
                "list" => step(Comparison::Exact, &[b"LRANGE", key, b"0", b"-1"]),
                "set" => step(Comparison::Unordered, &[b"SMEMBERS", key]),
                "hash" => step(Comparison::Pairs, &[b"HGETALL", key]),
                "zset" => step(Comparison::Exact, &[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"]),
                _ => step(Comparison::Exact, &[b"XRANGE", key, b"-", b"+"]),
            });
        }
        steps
    }

    /// The keys whose type, value or expiry isn't the same on both sides, each with what both show.
    fn differing_keys(&mut self) -> String {
        let mut report = String::new();
        let keys = self.their_clients[1].call(&["KEYS", "*"]);
        for key in keys.items().iter().filter_map(Reply::bytes) {
            let questions: [&[&[u8]]; 3] =
                [&[b"TYPE", key], &[b"DEBUG", b"DIGEST-VALUE", key], &[b"PEXPIRETIME", key]];
            let ours = questions.map(|question| self.our_clients[1].call(question));
            let theirs = questions.map(|question| self.their_clients[1].call(question));
            if ours != theirs {
                let key = key.escape_ascii();
                report.push_str(&format!("\n  key {key}\n    ours:   {ours:?}\n    theirs: {theirs:?}"));
            }
        }
        report
    }

    fn report(
        &mut self,
        family: &str,
        seed: u64,
        history: &mut Vec<Step>,
        found: &Finding,
        outcome: &mut Outcome,
    ) {
        let command = history.get(found.step).and_then(|step| step.requests.get(found.request));
        let Some(command) = command.cloned() else { return };
        if found.deliberate {
            outcome.deliberate += 1;
            return;
        }
        for (error, name) in
            [("-ERR unknown command", first_word(&command)), ("-ERR unknown subcommand", name_of(&command))]
        {
            if found.ours.starts_with(error) && !found.theirs.starts_with(error) {
                outcome.unknown.insert(name);
                return;
            }
        }
        history.truncate(found.step + 1);
        let culprits = if found.kind == DIGESTS_DIFFER { self.differing_keys() } else { String::new() };
        let known = outcome.findings.contains_key(&found.kind);
        let (shown, ours, theirs) = if known {
            (String::new(), String::new(), String::new())
        } else {
            let (steps, last) = self.shorten(history, &found.kind);
            let found = last.as_ref().unwrap_or(found);
            (script(&steps), found.ours.clone(), found.theirs.clone())
        };
        outcome.note(found.kind.clone(), || {
            format!(
                "=== {} (family {family}, round seed {seed})\n{shown}  ours:   {}\n  theirs: {}{culprits}",
                found.kind,
                clip(&ours),
                clip(&theirs)
            )
        });
    }

    fn report_loss(
        &mut self,
        family: &str,
        seed: u64,
        history: &[Step],
        fault: &io::Error,
        outcome: &mut Outcome,
    ) {
        self.recover(fault);
        let mut culprit = None;
        for step in history {
            let client = &mut self.our_clients[usize::from(step.resp3)];
            if client.send(&step.requests).and_then(|()| client.read_many(step.requests.len())).is_err() {
                culprit = Some(step.clone());
                break;
            }
        }
        self.recover(fault);
        let shown = culprit.as_ref().map_or_else(
            || {
                format!(
                    "not again one by one; the last batch:\n{}",
                    script(&history[history.len().saturating_sub(BATCH)..])
                )
            },
            |step| script(std::slice::from_ref(step)),
        );
        let name = culprit.and_then(|step| step.requests.first().map(name_of)).unwrap_or_default();
        outcome.note(format!("{name}: connection lost"), || {
            format!("=== {name}: connection lost: {fault} (family {family}, round seed {seed})\n{shown}")
        });
    }

    /// The shortest found part of `history` after which its last step still disagrees in the same way.
    fn shorten(&mut self, history: &[Step], kind: &str) -> (Vec<Step>, Option<Finding>) {
        let Some((last, earlier)) = history.split_last() else { return (Vec::new(), None) };
        let mut kept: Vec<Step> = earlier.to_vec();
        let mut proof = None;
        let mut replays = 0;
        let related: Vec<Step> = earlier.iter().filter(|step| shares_argument(step, last)).cloned().collect();
        if let Some(finding) = self.replay(&related, last, kind) {
            kept = related;
            proof = Some(finding);
        }
        let mut size = kept.len().div_ceil(2);
        while size > 0 && replays < MAX_REPLAYS {
            let mut at = 0;
            while at < kept.len() && replays < MAX_REPLAYS {
                let mut fewer = kept.clone();
                fewer.drain(at..(at + size).min(kept.len()));
                replays += 1;
                match self.replay(&fewer, last, kind) {
                    Some(finding) => {
                        proof = Some(finding);
                        kept = fewer;
                    }
                    None => at += size,
                }
            }
            size /= 2;
        }
        kept.push(last.clone());
        (kept, proof)
    }

    fn replay(&mut self, earlier: &[Step], last: &Step, kind: &str) -> Option<Finding> {
        if let Err(fault) = self.flush() {
            self.recover(&fault);
            return None;
        }
        for batch in earlier.chunks(BATCH) {
            if let Err(Fault::Lost(fault)) = self.send_batch(batch) {
                self.recover(&fault);
                return None;
            }
        }
        match self.send_batch(std::slice::from_ref(last)) {
            Err(Fault::Found(finding)) if finding.kind == kind => Some(finding),
            Err(Fault::Lost(fault)) => {
                self.recover(&fault);
                None
            }
            _ => None,
        }
    }
}

/// A RESP2 and a RESP3 connection.
fn clients(server: &Server) -> [Client; 2] {
    let (plain, mut modern) = (server.client(), server.client());
    let hello = modern.call(&["HELLO", "3"]);
    assert!(!hello.is_error(), "HELLO 3: {hello:?}");
    [plain, modern]
}

fn make_batch(family: &Family, rng: &mut Rng, mood: &mut Mood, unknown: &BTreeSet<String>) -> Vec<Step> {
    let resp3 = rng.below(2) == 0;
    let mut steps = Vec::new();
    for _ in 0..BATCH {
        let Some(template) = family.pick(rng) else { break };
        let requests = template.make(rng, mood);
        let is_unknown =
            |request: &Request| unknown.contains(&first_word(request)) || unknown.contains(&name_of(request));
        if !requests.iter().any(is_unknown) {
            steps.push(Step { resp3, requests, comparison: template.comparison });
        }
    }
    steps
}

fn first_word(request: &Request) -> String {
    request.first().map(|word| word.to_ascii_uppercase().escape_ascii().to_string()).unwrap_or_default()
}

/// The command's name; for containers with the subcommand.
fn name_of(request: &Request) -> String {
    let word =
        |at: usize| request.get(at).map(|w| String::from_utf8_lossy(w).to_uppercase()).unwrap_or_default();
    match word(0).as_str() {
        name @ ("OBJECT" | "XGROUP" | "XINFO" | "DEBUG" | "CONFIG" | "CLIENT" | "COMMAND" | "ACL"
        | "SCRIPT" | "FUNCTION" | "MEMORY" | "LATENCY" | "PUBSUB" | "SLOWLOG" | "COMMANDLOG") => {
            format!("{name} {}", word(1))
        }
        name => name.to_string(),
    }
}

/// What makes two disagreements the same one: the command and what kind of reply each side gave.
fn kind_of(request: &Request, ours: &Reply, theirs: &Reply) -> String {
    let kind = |reply: &Reply| match reply {
        Reply::Error(text) => {
            // Numbers, quoted names and bytes vary between instances of one mistake.
            let text = String::from_utf8_lossy(text);
            let unquoted = text.split('\'').next().unwrap_or_default();
            let is_word = |word: &&str| word.chars().all(|c| c.is_ascii_alphabetic() || ",.-:/".contains(c));
            format!("-{}", unquoted.split_whitespace().filter(is_word).collect::<Vec<_>>().join(" "))
        }
        Reply::Simple(text) if text.len() == 40 => "digest".into(),
        Reply::Simple(text) => format!("+{}", String::from_utf8_lossy(text)),
        Reply::Integer(_) => "integer".into(),
        Reply::Array(items) if items.is_empty() => "empty array".into(),
        Reply::Array(_) => "array".into(),
        Reply::Map(_) => "map".into(),
        Reply::Set(_) => "set".into(),
        Reply::Double(_) => "double".into(),
        Reply::Bulk(_) => "bulk".into(),
        other => format!("{other:?}"),
    };
    let name = name_of(request);
    if name == "DEBUG DIGEST" {
        return DIGESTS_DIFFER.into();
    }
    format!("{name}: {} instead of {}", kind(ours), kind(theirs))
}

fn shares_argument(step: &Step, with: &Step) -> bool {
    let wanted: BTreeSet<&Vec<u8>> =
        with.requests.iter().flat_map(|request| request.iter().skip(1)).collect();
    step.requests.iter().flat_map(|request| request.iter().skip(1)).any(|argument| wanted.contains(argument))
}

fn script(steps: &[Step]) -> String {
    let mut text = String::new();
    let skipped = steps.len().saturating_sub(60);
    if skipped > 0 {
        text.push_str(&format!("    ... {skipped} more ...\n"));
    }
    for step in steps.iter().skip(skipped) {
        for request in &step.requests {
            text.push_str(&format!("    {} {}\n", if step.resp3 { "3>" } else { "2>" }, show(request)));
        }
    }
    text
}

fn clip(text: &str) -> String {
    if text.chars().count() <= 600 {
        text.into()
    } else {
        text.chars().take(600).chain("...".chars()).collect()
    }
}
