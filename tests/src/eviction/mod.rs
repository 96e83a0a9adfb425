//! Eviction on running servers: how many requests of a skewed trace find their key, and what memory does under load.

pub mod stall;

use crate::client::Client;
use crate::reply::Reply;
use crate::server::Server;
use kara_base::rng::Rng;

/// Requests on their way at once.
const BATCH: usize = 50;
const VALUE: [u8; 100] = [b'v'; 100];

/// Keys that are asked for as in Zipf's law: the n-th most popular one by the share of `1 / n^skew`.
#[derive(Debug)]
pub struct Zipf {
    cumulative: Vec<f64>,
    rng: Rng,
}

impl Zipf {
    /// A trace over so many keys; the seed decides it.
    pub fn new(keys: usize, skew: f64, seed: u64) -> Self {
        let mut sum = 0.0;
        let mut cumulative = Vec::with_capacity(keys);
        for n in 1..=keys {
            sum += (n as f64).powf(-skew);
            cumulative.push(sum);
        }
        Zipf { cumulative, rng: Rng::new(seed) }
    }

    /// The next key's rank.
    pub fn draw(&mut self) -> usize {
        let at = self.rng.unit_f64() * self.cumulative.last().copied().unwrap_or(0.0);
        self.cumulative.partition_point(|sum| *sum <= at)
    }
}

/// A server used as a cache that has room for a number of keys, whatever a key costs there.
#[derive(Debug)]
pub struct Cache {
    client: Client,
    hits: u64,
    asked: u64,
}

fn key(rank: usize) -> Vec<u8> {
    format!("key:{rank:010}").into_bytes()
}

fn send(client: &mut Client, requests: &[Vec<Vec<u8>>]) -> Vec<Reply> {
    let replies = client.send(requests).and_then(|()| client.read_many(requests.len()));
    replies.unwrap_or_else(|fault| panic!("the cache: {fault}"))
}

fn set(rank: usize) -> Vec<Vec<u8>> {
    vec![b"SET".to_vec(), key(rank), VALUE.to_vec()]
}

/// INFO's `used_memory`.
///
/// # Panics
/// Where the server doesn't tell.
pub fn used_memory(client: &mut Client) -> u64 {
    figure(client, "memory", "used_memory")
}

/// A number of INFO.
///
/// # Panics
/// Where the server doesn't tell.
pub fn figure(client: &mut Client, section: &str, name: &str) -> u64 {
    let reply = client.call(&["INFO", section]);
    let text = String::from_utf8_lossy(reply.bytes().unwrap_or_default()).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
}

impl Cache {
    /// Measures what a key costs, and leaves room for `keys` of them.
    ///
    /// # Panics
    /// Where the server refuses a command.
    pub fn new(server: &Server, policy: &str, keys: usize) -> Self {
        let mut client = server.client();
        let empty = used_memory(&mut client);
        for from in (0..keys).step_by(BATCH) {
            let requests: Vec<_> = (from..(from + BATCH).min(keys)).map(set).collect();
            send(&mut client, &requests);
        }
        let limit = used_memory(&mut client);
        assert!(limit > empty, "{keys} keys take no memory");
        client.call(&["FLUSHALL", "SYNC"]);
        client.call(&["CONFIG", "SET", "maxmemory", &limit.to_string(), "maxmemory-policy", policy]);
        Cache { client, hits: 0, asked: 0 }
    }

    /// Asks for keys, and stores those that aren't there.
    pub fn ask(&mut self, ranks: &[usize]) {
        for some in ranks.chunks(BATCH) {
            let gets: Vec<_> = some.iter().map(|rank| vec![b"GET".to_vec(), key(*rank)]).collect();
            let replies = send(&mut self.client, &gets);
            let missed: Vec<usize> = some
                .iter()
                .zip(&replies)
                .filter(|(_, reply)| matches!(reply, Reply::NullBulk | Reply::Null))
                .map(|(rank, _)| *rank)
                .collect();
            self.hits += (some.len() - missed.len()) as u64;
            self.asked += some.len() as u64;
            let sets: Vec<_> = missed.into_iter().map(set).collect();
            send(&mut self.client, &sets);
        }
    }

    /// Forgets the counts, once the cache is full.
    pub fn count_from_now(&mut self) {
        (self.hits, self.asked) = (0, 0);
    }

    /// How many keys it holds.
    pub fn keys(&mut self) -> i64 {
        self.client.call(&["DBSIZE"]).integer().unwrap_or(0)
    }

    /// The share of requests that found their key, percent.
    pub fn hit_percent(&self) -> f64 {
        100.0 * self.hits as f64 / self.asked.max(1) as f64
    }
}

/// A trace and a cache for it.
#[derive(Clone, Copy, Debug)]
pub struct Trace {
    pub keys: usize,
    pub room: usize,
    pub requests: usize,
    pub skew: f64,
}

/// The hit ratios (percent) of two servers on the same trace at the same time, after a first quarter that fills them, and
/// the keys that each holds at the end.
pub fn hit_ratios(ours: &Server, theirs: &Server, policy: &str, trace: Trace, seed: u64) -> [(f64, i64); 2] {
    let mut caches = [ours, theirs].map(|server| Cache::new(server, policy, trace.room));
    let mut zipf = Zipf::new(trace.keys, trace.skew, seed);
    let mut done = 0;
    while done < trace.requests {
        let ranks: Vec<usize> = (0..BATCH * 20).map(|_| zipf.draw()).collect();
        caches.iter_mut().for_each(|cache| cache.ask(&ranks));
        let before = done;
        done += ranks.len();
        let warm = trace.requests / 4;
        if before < warm && done >= warm {
            caches.iter_mut().for_each(Cache::count_from_now);
        }
    }
    caches.map(|mut cache| (cache.hit_percent(), cache.keys()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn popular_keys_come_as_often_as_the_law_says() {
        let mut zipf = Zipf::new(1000, 1.0, 7);
        let mut counts = vec![0u32; 1000];
        (0..100_000).for_each(|_| counts[zipf.draw()] += 1);
        // 1 / H(1000) = 13.36 %; the second comes half as often.
        assert!((12_900..13_900).contains(&counts[0]), "{}", counts[0]);
        assert!((6_400..7_000).contains(&counts[1]), "{}", counts[1]);
    }
}
