//! What `cargo xtask bench` can measure: each case's command and the data that it wants to find.
//!
//! Boundary: no server is started and nothing is timed here.

use crate::process::Outcome;
use kara_tests::client::{Client, Request};

/// Elements per command while data are prepared, and commands per batch.
const PER_COMMAND: u64 = 100;
const PER_BATCH: u64 = 50;
const THOUSAND_100: u64 = 100_000;
const MILLION: u64 = 1_000_000;

/// What stands before a kind of our own load generator.
pub const OWN_LOAD: &str = "own ";

/// One thing to measure.
#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    /// Words of the command, `-t NAME` for one that the load generator knows, or a kind of load of our own.
    pub line: &'static str,
    data: Data,
    /// The numbers of `__rand_int__`, where the data fix them.
    pub keys: Option<u64>,
    /// Expensive ones take only so many of a hundred requests.
    pub percent: u64,
}

/// What there must be before a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Data {
    /// Whatever the cases before left.
    AsItIs,
    /// The key isn't there.
    Nothing(&'static str),
    /// The key holds so many elements; 0: as many as there will be requests.
    Filled(&'static str, Shape, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    List,
    Set,
    Hash,
    /// Members `element:000000000042` under their number.
    Scores,
    /// Members under that name, spread over some hundred kilometres.
    Places,
}

use Data::{AsItIs, Filled, Nothing};
use Shape::{Hash, List, Places, Scores, Set};

const fn known(name: &'static str, line: &'static str) -> Case {
    Case { name, line, data: AsItIs, keys: None, percent: 100 }
}

const fn on(name: &'static str, line: &'static str, data: Data) -> Case {
    Case { name, line, data, keys: None, percent: 100 }
}

const fn over(name: &'static str, line: &'static str, shape: Shape, elements: u64, percent: u64) -> Case {
    Case { name, line, data: Filled("big", shape, elements), keys: Some(elements), percent }
}

/// All cases.
pub const CASES: &[Case] = &[
    known("set", "-t set"),
    known("get", "-t get"),
    known("incr", "-t incr"),
    known("mset", "-t mset"),
    known("setex", "SET key:__rand_int__ value EX 600"),
    known("eval", "EVAL redis.call('SET',KEYS[1],ARGV[1]) 1 key:__rand_int__ value"),
    known("multi_10_sets", "own multi"),
    Case { percent: 20, ..known("publish_to_50", "own publish") },
    on("lpush", "-t lpush", Nothing("mylist")),
    on("rpush", "-t rpush", Nothing("mylist")),
    on("lpop", "-t lpop", Filled("mylist", List, 0)),
    on("rpop", "-t rpop", Filled("mylist", List, 0)),
    on("sadd", "-t sadd", Nothing("myset")),
    on("spop", "-t spop", Filled("myset", Set, 0)),
    on("hset", "-t hset", Nothing("myhash")),
    on("hgetall", "HGETALL myhash", Filled("myhash", Hash, 20)),
    on("zadd", "-t zadd", Nothing("myzset")),
    on("zpopmin", "-t zpopmin", Filled("myzset", Scores, 0)),
    Case { percent: 20, ..on("lrange_100", "LRANGE mylist 0 99", Filled("mylist", List, 1000)) },
    Case { percent: 5, ..on("lrange_600", "LRANGE mylist 0 599", Filled("mylist", List, 1000)) },
    on("xadd", "XADD mystream * field __rand_int__", Nothing("mystream")),
    over(
        "geosearch",
        "GEOSEARCH big FROMMEMBER element:__rand_int__ BYRADIUS 5 km",
        Places,
        THOUSAND_100,
        20,
    ),
    over("zrangebyscore", "ZRANGE big __rand_int__ +inf BYSCORE LIMIT 0 10", Scores, THOUSAND_100, 50),
    over("zrank", "ZRANK big element:__rand_int__", Scores, MILLION, 50),
    over("zrange_deep", "ZRANGE big 500000 500009", Scores, MILLION, 50),
    over("zrange_offset", "ZRANGE big 0 +inf BYSCORE LIMIT 500000 10", Scores, MILLION, 2),
    over("lindex_middle", "LINDEX big 500000", List, MILLION, 5),
    over("srandmember", "SRANDMEMBER big 100", Set, MILLION, 5),
    over("srandmember_repeated", "SRANDMEMBER big -100", Set, MILLION, 5),
    over("hrandfield", "HRANDFIELD big 100", Hash, MILLION, 5),
    over("hrandfield_repeated", "HRANDFIELD big -100 WITHVALUES", Hash, MILLION, 5),
];

/// Names of several cases together.
pub const GROUPS: &[(&str, &str)] = &[
    ("strings", "set,get,incr,mset,setex"),
    (
        "types",
        "lpush,rpush,lpop,rpop,sadd,spop,hset,zadd,zpopmin,lrange_100,lrange_600,xadd,geosearch,zrangebyscore",
    ),
    ("messages", "eval,multi_10_sets,publish_to_50"),
    (
        "large",
        "zrank,zrange_deep,zrange_offset,lindex_middle,srandmember,srandmember_repeated,hrandfield,\
         hrandfield_repeated",
    ),
];

/// The cases of a list of names and groups.
pub fn find(names: &str) -> Outcome<Vec<&'static Case>> {
    let mut found = Vec::new();
    for name in names.split(',') {
        match GROUPS.iter().find(|(group, _)| *group == name) {
            Some((_, members)) => found.extend(find(members)?),
            None => found.push(CASES.iter().find(|case| case.name == name).ok_or_else(|| unknown(name))?),
        }
    }
    Ok(found)
}

fn unknown(name: &str) -> String {
    let names = GROUPS.iter().map(|(name, _)| *name).chain(CASES.iter().map(|case| case.name));
    format!("there is no test {name}, but {}", names.collect::<Vec<_>>().join(" "))
}

impl Case {
    /// Makes the data for a measurement of so many requests; texts are `size` bytes.
    pub fn prepare(&self, client: &mut Client, requests: u64, size: u64) -> Outcome {
        let (key, shape, elements) = match self.data {
            AsItIs => return Ok(()),
            Nothing(key) => return delete(client, key),
            Filled(key, shape, 0) => (key, shape, requests),
            Filled(key, shape, elements) => (key, shape, elements),
        };
        delete(client, key)?;
        let mut batch: Vec<Request> = Vec::new();
        let mut from = 0;
        while from < elements {
            let to = elements.min(from + PER_COMMAND);
            batch.push(shape.fill(key, from..to, size));
            from = to;
            if batch.len() as u64 == PER_BATCH || from == elements {
                run(client, &batch)?;
                batch.clear();
            }
        }
        Ok(())
    }
}

fn delete(client: &mut Client, key: &str) -> Outcome {
    run(client, &[vec![b"DEL".to_vec(), key.into()]])
}

fn run(client: &mut Client, batch: &[Request]) -> Outcome {
    client.send(batch).map_err(|fault| fault.to_string())?;
    let replies = client.read_many(batch.len()).map_err(|fault| fault.to_string())?;
    match replies.iter().find(|reply| reply.is_error()) {
        Some(error) => Err(error.text()),
        None => Ok(()),
    }
}

impl Shape {
    /// The command that adds these elements.
    fn fill(self, key: &str, numbers: std::ops::Range<u64>, size: u64) -> Request {
        let name = match self {
            List => "RPUSH",
            Set => "SADD",
            Hash => "HSET",
            Scores => "ZADD",
            Places => "GEOADD",
        };
        let mut words: Request = vec![name.into(), key.into()];
        let text = vec![b'x'; size as usize];
        for number in numbers {
            let member = format!("element:{number:012}").into_bytes();
            match self {
                List => words.push(text.clone()),
                Set => words.push(member),
                Hash => words.extend([member, text.clone()]),
                Scores => words.extend([number.to_string().into_bytes(), member]),
                Places => {
                    let (longitude, latitude) = place(number);
                    words.extend([longitude.into_bytes(), latitude.into_bytes(), member]);
                }
            }
        }
        words
    }
}

/// A point of a region of about 500 by 500 kilometres: neighbours in number are far from each other.
fn place(number: u64) -> (String, String) {
    let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let part = |bits: u64| (bits & 0xffff) as f64 / 65536.0;
    (
        format!("{:.6}", 8.0 + 7.0 * part(scattered >> 16)),
        format!("{:.6}", 46.0 + 4.5 * part(scattered >> 40)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_name_cases_that_exist() {
        for (group, _) in GROUPS {
            assert!(find(group).is_ok_and(|cases| !cases.is_empty()), "{group}");
        }
        assert!(find("set,nothing").is_err());
        for case in CASES.iter().filter(|case| case.line.contains("__rand_int__") && case.keys.is_none()) {
            assert!(!matches!(case.data, Filled(_, _, 1..)), "{}: random over fixed data", case.name);
        }
    }
}
