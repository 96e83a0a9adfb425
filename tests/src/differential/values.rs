//! Random arguments by name. Most are small and collide often, since collisions are where behaviour is; some are
//! extremes that a parser or an addition may trip over.

use kara_base::rng::Rng;

/// What stays the same for a round: which key names and which members are used, so that one round grows big
/// tables of integers and the next one short lists of words.
#[derive(Debug)]
pub struct Mood {
    /// The family's key prefix.
    home: String,
    keys: u64,
    style: u64,
    pool: u64,
    many: u64,
    next_id: u64,
}

const TYPES: &[&str] = &["string", "list", "set", "hash", "zset", "stream", "hll", "geo", "bits"];
const NAMES: &[&str] = &[
    "key", "newkey", "value", "member", "field", "int", "small", "index", "count", "extreme", "odd", "float",
    "score", "bound", "lex", "ttl", "pttl", "at", "pat", "pattern", "bit", "offset", "bitindex", "bitfield",
    "bitvalue", "id", "nextid", "rangeid", "group", "consumer", "lon", "lat", "midlon", "midlat", "farscore",
    "radius", "unit", "db", "word", "big", "positive", "few", "lexset", "rankset", "wordlist",
];

pub fn is_known(name: &str) -> bool {
    TYPES.contains(&name) || NAMES.contains(&name)
}

impl Mood {
    pub fn new(rng: &mut Rng, family: &str) -> Self {
        let home = match family {
            "bitmap" => "bits",
            "hyperloglog" => "hll",
            "sort" => "list",
            "generic" | "transaction" | "script" | "server" => "any",
            other => other,
        };
        Self {
            home: home.into(),
            keys: pick(rng, &[2, 4, 8]),
            style: rng.below(6),
            pool: pick(rng, &[4, 16, 64, 700]),
            many: pick(rng, &[3, 3, 12, 150]),
            next_id: 1,
        }
    }

    /// How often a repeated part stands: mostly once or a few times.
    pub fn repetitions(&self, rng: &mut Rng) -> u64 {
        match rng.below(20) {
            0..=9 => 1,
            10..=17 => 1 + rng.below(4),
            _ => 1 + rng.below(self.many),
        }
    }
}

fn pick<T: Copy + Default>(rng: &mut Rng, from: &[T]) -> T {
    from.get(rng.below(from.len() as u64) as usize).copied().unwrap_or_default()
}

/// A value by its name; unknown names give an empty one (templates are checked when they are read).
pub fn value(name: &str, rng: &mut Rng, mood: &mut Mood) -> Vec<u8> {
    if TYPES.contains(&name) {
        return key(name, rng, mood);
    }
    match name {
        "key" => {
            let kind =
                if mood.home == "any" || rng.below(3) == 0 { pick(rng, TYPES) } else { &mood.home.clone() };
            key(kind, rng, mood)
        }
        "newkey" => format!("new:{}", rng.below(mood.keys)).into(),
        "value" | "member" | "field" => element(rng, mood),
        "word" => pick(rng, &["a", "b", "abc", "hello", "x"]).into(),
        "big" => vec![b'a' + (rng.below(26) as u8); rng.below(20_000) as usize],
        "int" => integer(rng).into(),
        "small" => rng.below(6).to_string().into(),
        "positive" => (1 + rng.below(9)).to_string().into(),
        "index" => (rng.below(24) as i64 - 12).to_string().into(),
        "count" => match rng.below(12) {
            0 => integer(rng).into(),
            1 => "0".into(),
            2 => format!("-{}", rng.below(10)).into(),
            _ => (1 + rng.below(12)).to_string().into(),
        },
        // For counts that may be negative: a big one would keep the reference busy for minutes.
        "few" => match rng.below(16) {
            0 => pick(rng, &["9223372036854775808", "-9223372036854775808", "x", "", "1.5"]).into(),
            _ => (rng.below(30) as i64 - 12).to_string().into(),
        },
        // Keys that hold what their commands can order: members of one score, members of any, words.
        "lexset" | "rankset" | "wordlist" => format!("{name}:{}", rng.below(mood.keys)).into(),
        "extreme" => pick(rng, EXTREMES).into(),
        "odd" => match rng.below(4) {
            0 => integer(rng).into(),
            1 => element(rng, mood),
            2 => key(pick(rng, TYPES), rng, mood),
            _ => pick(rng, EXTREMES).into(),
        },
        "float" | "score" => float(rng).into(),
        "bound" => {
            let open = if rng.below(4) == 0 { "(" } else { "" };
            match rng.below(8) {
                0 => "-inf".into(),
                1 => "+inf".into(),
                _ => format!("{open}{}", float(rng)).into(),
            }
        }
        "lex" => match rng.below(8) {
            0 => "-".into(),
            1 => "+".into(),
            kind => {
                let mut text = vec![if kind < 5 { b'[' } else { b'(' }];
                text.extend(element(rng, mood));
                text
            }
        },
        // Relative times far enough that nothing runs out while the two servers are compared, or gone already.
        "ttl" => pick(rng, &["100", "1000", "5000", "100000", "0", "-1", "9223372036854775"]).into(),
        "pttl" => pick(rng, &["100000", "500000", "99999999", "0", "-5", "9223372036854775807"]).into(),
        "at" => pick(rng, &["4000000000", "4100000000", "1", "0", "-1", "1000000000"]).into(),
        "pat" => pick(rng, &["4000000000000", "4100000000001", "1", "0", "-1", "1000000000000"]).into(),
        "pattern" => pick(rng, PATTERNS).into(),
        "bit" => pick(rng, &["0", "1", "1", "0", "2"]).into(),
        "offset" => match rng.below(12) {
            0 => pick(rng, &["-1", "4294967296", "99999999999", "x", "1.0", " 1"]).into(),
            1 => (8192 + rng.below(50_000)).to_string().into(),
            _ => rng.below(200).to_string().into(),
        },
        "bitindex" => (rng.below(80) as i64 - 40).to_string().into(),
        "bitfield" => bitfield_type(rng).into(),
        "bitvalue" => {
            if rng.below(4) == 0 { integer(rng) } else { (rng.below(600) as i64 - 300).to_string() }.into()
        }
        "nextid" => {
            mood.next_id += rng.below(3);
            let sequence = rng.below(3);
            match rng.below(8) {
                0 => format!("{}-*", mood.next_id).into(),
                1 => mood.next_id.to_string().into(),
                _ => format!("{}-{sequence}", mood.next_id).into(),
            }
        }
        "id" => stream_id(rng, mood).into(),
        "rangeid" => match rng.below(8) {
            0 | 1 => "-".into(),
            2 | 3 => "+".into(),
            4 => format!("({}", stream_id(rng, mood)).into(),
            _ => stream_id(rng, mood).into(),
        },
        "group" => pick(rng, &["g1", "g1", "g2", "g3", "nogroup"]).into(),
        "consumer" => pick(rng, &["alice", "bob", "carol"]).into(),
        "lon" => coordinate(rng, 180.0).into(),
        "lat" => coordinate(rng, 85.0).into(),
        // The reference doesn't find the cells of a polygon whose centre lies beyond 85.05 degrees: these never do.
        "midlon" => format!("{:.6}", (rng.unit_f64() * 2.0 - 1.0) * 80.0).into(),
        "midlat" => format!("{:.6}", (rng.unit_f64() * 2.0 - 1.0) * 60.0).into(),
        // Members at the same place come in an order that the reference's sort doesn't promise.
        "farscore" => ((rng.next_u64() as i64) >> rng.below(20)).to_string().into(),
        "radius" => pick(rng, &["0", "1", "100", "500.5", "5000", "20000", "-1", "1e3"]).into(),
        "unit" => pick(rng, &["m", "km", "ft", "mi", "KM", "mm"]).into(),
        "db" => pick(rng, &["0", "1", "2", "15", "16", "-1", "x"]).into(),
        _ => Vec::new(),
    }
}

const PATTERNS: &[&str] =
    &["*", "*1*", "?:*", "set:*", "[a-z]*", "*[^0-9]", "h\\*", "", "[", "*a*b*c*", "k*:[0-3]"];

const EXTREMES: &[&str] = &[
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "4294967296",
    "2147483648",
    "-2147483649",
    "0",
    "-0",
    "+1",
    " 1",
    "01",
    "1.0",
    "1e5",
    "0x10",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "",
    "99999999999999999999999999",
];

fn integer(rng: &mut Rng) -> String {
    match rng.below(10) {
        0 => pick(rng, EXTREMES).into(),
        1 => (rng.next_u64() as i64).to_string(),
        2 => (rng.below(100_000) as i64 - 50_000).to_string(),
        _ => (rng.below(40) as i64 - 20).to_string(),
    }
}

fn float(rng: &mut Rng) -> String {
    match rng.below(16) {
        0 => pick(rng, EXTREMES).into(),
        1 => pick(rng, &["inf", "-inf", "+inf", "-0.0", "1e-7", "1e21", "3.0e10", "0.1", "5e-324", "1e308"])
            .into(),
        2 => format!("{:.17}", rng.unit_f64()),
        3 => format!("{:e}", (rng.unit_f64() - 0.5) * 1e18),
        4..=7 => format!("{}.{}", rng.below(20) as i64 - 10, rng.below(100)),
        _ => (rng.below(20) as i64 - 10).to_string(),
    }
}

fn key(kind: &str, rng: &mut Rng, mood: &Mood) -> Vec<u8> {
    match rng.below(60) {
        0 => "missing".into(),
        1 => {
            let other = pick(rng, TYPES);
            format!("{other}:{}", rng.below(mood.keys)).into()
        }
        2 => vec![b'k', 0xff, b'\r', b'\n', b' ', 1 + (rng.below(2) as u8)],
        3 if rng.below(8) == 0 => Vec::new(),
        _ => format!("{kind}:{}", rng.below(mood.keys)).into(),
    }
}

fn element(rng: &mut Rng, mood: &Mood) -> Vec<u8> {
    let number = rng.below(mood.pool);
    let style = if rng.below(10) == 0 { rng.below(6) } else { mood.style };
    match style {
        0 => number.to_string().into(),
        1 => (number as i64 * 1_000_003 * (1 - 2 * (number as i64 & 1))).to_string().into(),
        2 => format!("m{number}").into(),
        // Any byte but NUL, at which the reference cuts names in its error texts.
        3 => (0..1 + number % 8).map(|at| ((number * 37 + at * 91) % 255 + 1) as u8).collect(),
        // Around the 64 bytes at which compact encodings give way.
        4 => format!("{number:0>width$}", width = 60 + (number % 8) as usize).into(),
        _ => match rng.below(12) {
            0 => Vec::new(),
            1 => pick(rng, EXTREMES).into(),
            2 if rng.below(10) == 0 => vec![b'z'; 2000 + rng.below(9000) as usize],
            3 => "1.5".into(),
            4 => integer(rng).into(),
            _ => format!("w{number}").into(),
        },
    }
}

fn bitfield_type(rng: &mut Rng) -> String {
    match rng.below(20) {
        0 => pick(rng, &["u64", "i65", "u0", "i0", "x8", "u", "8"]).into(),
        _ if rng.below(2) == 0 => format!("u{}", 1 + rng.below(63)),
        _ => format!("i{}", 1 + rng.below(64)),
    }
}

fn stream_id(rng: &mut Rng, mood: &Mood) -> String {
    match rng.below(16) {
        0 => pick(
            rng,
            &["0", "0-0", "18446744073709551615-18446744073709551615", "18446744073709551615", "x", "1-1-1"],
        )
        .into(),
        1 => rng.below(mood.next_id + 2).to_string(),
        _ => format!("{}-{}", rng.below(mood.next_id + 2), rng.below(3)),
    }
}

fn coordinate(rng: &mut Rng, limit: f64) -> String {
    match rng.below(30) {
        0 => pick(rng, &["181", "-181", "90", "86", "nan", "x", "-85.05112878", "180"]).into(),
        _ => format!("{:.6}", (rng.unit_f64() * 2.0 - 1.0) * limit),
    }
}
