//! Load that `redis-benchmark` can't make: transactions, and messages to subscribers. A process of its own (`xtask
//! bench-load`), so that it has its own processor.
//!
//! One thread goes round all connections, reads an answer, whose length is known, and sends the next request.

use crate::process::Outcome;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

/// SETs in a transaction.
const SETS: u64 = 10;
/// Who gets each message.
const SUBSCRIBERS: usize = 50;
/// Digits of a key's number, as `redis-benchmark` writes it.
const DIGITS: usize = 12;
const CHANNEL: &str = "channel";

/// What is asked for.
#[derive(Clone, Copy, Debug)]
struct Load {
    port: u16,
    clients: u64,
    pipeline: u64,
    requests: u64,
    keys: u64,
    size: u64,
}

/// `bench-load KIND PORT CLIENTS PIPELINE REQUESTS KEYS SIZE`: prints a line as `redis-benchmark --csv` does.
pub fn run(arguments: &[String]) -> Outcome {
    let wrong = || "bench-load KIND PORT CLIENTS PIPELINE REQUESTS KEYS SIZE".to_owned();
    let [kind, numbers @ ..] = arguments else { return Err(wrong()) };
    let numbers: Vec<u64> = numbers.iter().filter_map(|number| number.parse().ok()).collect();
    let [port, clients, pipeline, requests, keys, size] = numbers[..] else { return Err(wrong()) };
    let load = Load {
        port: u16::try_from(port).map_err(|_| wrong())?,
        clients: clients.max(1),
        pipeline: pipeline.max(1),
        requests,
        keys: keys.max(1),
        size,
    };
    let (seconds, mut latencies) = match kind.as_str() {
        "multi" => load.transactions(),
        "publish" => load.messages(),
        _ => return Err(wrong()),
    }
    .map_err(|fault| format!("{kind}: {fault}"))?;
    latencies.sort_unstable_by(f64::total_cmp);
    let at = |part: f64| latencies.get((latencies.len() as f64 * part) as usize).copied().unwrap_or(0.0);
    let most = latencies.last().copied().unwrap_or(0.0);
    let mean = latencies.iter().sum::<f64>() / latencies.len().max(1) as f64;
    let rate = load.rounds() as f64 * (load.clients * load.pipeline) as f64 / seconds;
    println!(
        "\"{kind}\",\"{rate:.2}\",\"{mean:.3}\",\"{:.3}\",\"{:.3}\",\"{:.3}\",\"{:.3}\",\"{most:.3}\"",
        at(0.0),
        at(0.5),
        at(0.95),
        at(0.99)
    );
    Ok(())
}

fn words(words: &[&str]) -> Vec<u8> {
    let mut wire = Vec::new();
    kara_tests::client::encode(&mut wire, words);
    wire
}

impl Load {
    fn connect(self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn connections(self, many: u64) -> std::io::Result<Vec<TcpStream>> {
        (0..many).map(|_| self.connect()).collect()
    }

    fn rounds(self) -> u64 {
        self.requests.div_ceil(self.clients * self.pipeline)
    }

    /// Seconds, and ms of each round and connection.
    fn transactions(self) -> std::io::Result<(f64, Vec<f64>)> {
        let mut clients = self.connections(self.clients)?;
        let value = "x".repeat(self.size as usize);
        let queued = SETS as usize;
        let answer = 5 + queued * 9 + format!("*{queued}\r\n").len() + queued * 5;
        let mut got = vec![0; answer * self.pipeline as usize];
        let mut seed = 88_172_645_463_325_252u64;
        // What is sent is made once, but for the keys' numbers.
        let set = words(&["SET", &format!("key:{:0DIGITS$}", 0), &value]);
        let in_set = set.windows(4).position(|part| part == b"key:").unwrap_or_default() + 4;
        let (mut request, mut numbers) = (Vec::new(), Vec::new());
        for _ in 0..self.pipeline {
            request.extend(words(&["MULTI"]));
            for _ in 0..SETS {
                numbers.push(request.len() + in_set);
                request.extend(&set);
            }
            request.extend(words(&["EXEC"]));
        }
        let mut write = |client: &mut TcpStream| {
            for &at in &numbers {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                let mut left = seed % self.keys;
                for digit in request[at..at + DIGITS].iter_mut().rev() {
                    *digit = b'0' + (left % 10) as u8;
                    left /= 10;
                }
            }
            client.write_all(&request).map(|()| Instant::now())
        };
        let mut latencies = Vec::new();
        let begun = Instant::now();
        let mut sent = clients.iter_mut().map(&mut write).collect::<std::io::Result<Vec<_>>>()?;
        for round in 1..=self.rounds() {
            for (client, sent) in clients.iter_mut().zip(&mut sent) {
                client.read_exact(&mut got)?;
                latencies.push(sent.elapsed().as_secs_f64() * 1e3);
                if !got.starts_with(b"+OK\r\n+QUEUED\r\n") || !got.ends_with(b"+OK\r\n") {
                    return Err(std::io::Error::other(String::from_utf8_lossy(&got).into_owned()));
                }
                if round < self.rounds() {
                    *sent = write(client)?;
                }
            }
        }
        Ok((begun.elapsed().as_secs_f64(), latencies))
    }

    /// The same for messages: a round ends when all subscribers have theirs.
    fn messages(self) -> std::io::Result<(f64, Vec<f64>)> {
        let mut subscribers = self.connections(SUBSCRIBERS as u64)?;
        let told = format!("*3\r\n$9\r\nsubscribe\r\n$7\r\n{CHANNEL}\r\n:1\r\n");
        for subscriber in &mut subscribers {
            subscriber.write_all(&words(&["SUBSCRIBE", CHANNEL]))?;
            subscriber.read_exact(&mut vec![0; told.len()])?;
        }
        let text = "x".repeat(self.size as usize);
        let message = words(&["message", CHANNEL, &text]);
        let publish = words(&["PUBLISH", CHANNEL, &text]).repeat(self.pipeline as usize);
        let answer = format!(":{SUBSCRIBERS}\r\n").repeat(self.pipeline as usize);
        let mut got = vec![0; answer.len()];
        let mut heard = vec![0; message.len() * (self.pipeline * self.clients) as usize];
        let mut clients = self.connections(self.clients)?;
        let mut latencies = Vec::new();
        let begun = Instant::now();
        for _ in 0..self.rounds() {
            let sent = Instant::now();
            for client in &mut clients {
                client.write_all(&publish)?;
            }
            for client in &mut clients {
                client.read_exact(&mut got)?;
                if got != answer.as_bytes() {
                    return Err(std::io::Error::other(String::from_utf8_lossy(&got).into_owned()));
                }
            }
            for subscriber in &mut subscribers {
                subscriber.read_exact(&mut heard)?;
                latencies.push(sent.elapsed().as_secs_f64() * 1e3);
            }
            if !heard.ends_with(&message) {
                return Err(std::io::Error::other(String::from_utf8_lossy(&heard).into_owned()));
            }
        }
        Ok((begun.elapsed().as_secs_f64(), latencies))
    }
}
