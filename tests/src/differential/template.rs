//! The little language of `families/*.txt`: how one random command is made.
//!
//! ```text
//! weight comparison template [; follow-up command]
//! ```
//! `{name}` is a random value (see `values.rs`), `[ .. ]` an optional part, `( a | b )` a choice, `( .. )+` one or
//! more times, `#( .. )+` the same after the number of repetitions, `{name}+` and `#{name}+` short for one value.
//! In a follow-up, `$1` is the first command's argument 1. Quotes keep blanks: `'return 1'`.
//! Comparisons: see [`Comparison`]; with a `!` behind it the command is sent as made, without a client's mistakes. Follow-ups bring both sides together again after a random command (`SPOP`).

use super::values::{Mood, value};
use crate::client::Request;
use kara_base::rng::Rng;

/// How the two replies are held against each other. Errors are compared exactly, whatever the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Byte for byte.
    Exact,
    /// Elements in any order, at every depth.
    Unordered,
    /// As `Unordered`, flat arrays taken two by two (field and value).
    Pairs,
    /// Integers may differ by 3,000 (milliseconds that pass), the rest byte for byte.
    Near,
    /// Integers may differ by 3 (seconds that pass), the rest byte for byte.
    Seconds,
    /// Only the kind and the number of elements.
    Shape,
}

/// One line of a family.
#[derive(Debug)]
pub struct Template {
    pub weight: u64,
    pub comparison: Comparison,
    /// Whether arguments may be dropped, doubled or replaced by extremes. Not where a follow-up relies on them or
    /// an extreme would make the reference busy for minutes (SRANDMEMBER).
    pub mutable: bool,
    parts: Vec<Part>,
    follow_ups: Vec<Vec<Part>>,
}

/// A family's templates.
#[derive(Debug)]
pub struct Family {
    pub name: &'static str,
    pub templates: Vec<Template>,
    total: u64,
}

/// The families and their texts.
pub const FAMILIES: &[(&str, &str)] = &[
    ("string", include_str!("families/string.txt")),
    ("bitmap", include_str!("families/bitmap.txt")),
    ("hyperloglog", include_str!("families/hyperloglog.txt")),
    ("list", include_str!("families/list.txt")),
    ("set", include_str!("families/set.txt")),
    ("hash", include_str!("families/hash.txt")),
    ("zset", include_str!("families/zset.txt")),
    ("geo", include_str!("families/geo.txt")),
    ("stream", include_str!("families/stream.txt")),
    ("sort", include_str!("families/sort.txt")),
    ("generic", include_str!("families/generic.txt")),
    ("transaction", include_str!("families/transaction.txt")),
    ("script", include_str!("families/script.txt")),
    ("server", include_str!("families/server.txt")),
];

#[derive(Debug)]
enum Part {
    Literal(Vec<u8>),
    Value(String),
    Back(usize),
    Optional(Vec<Part>),
    Choice(Vec<Vec<Part>>),
    Repeat { counted: bool, body: Vec<Part> },
}

impl Family {
    /// The family called `name`.
    ///
    /// # Errors
    /// Where there is none or a line of its text can't be read.
    pub fn load(name: &str) -> Result<Self, String> {
        let (name, text) = FAMILIES
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| format!("no family {name}; there are: {}", family_names()))?;
        let mut templates = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                templates.push(Template::parse(line).map_err(|why| format!("{name}.txt:{}: {why}", at + 1))?);
            }
        }
        let total = templates.iter().map(|t| t.weight).sum();
        Ok(Self { name, templates, total })
    }

    /// A template by weight.
    pub fn pick(&self, rng: &mut Rng) -> Option<&Template> {
        let mut left = rng.below(self.total);
        self.templates.iter().find(|template| {
            let chosen = left < template.weight;
            left = left.saturating_sub(template.weight);
            chosen
        })
    }
}

/// All names, comma separated.
pub fn family_names() -> String {
    FAMILIES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(",")
}

impl Template {
    fn parse(line: &str) -> Result<Self, String> {
        let (weight, rest) = line.split_once(char::is_whitespace).ok_or("no comparison")?;
        let (comparison, rest) = rest.trim_start().split_once(char::is_whitespace).ok_or("no template")?;
        let (comparison, faithful) =
            comparison.strip_suffix('!').map_or((comparison, false), |name| (name, true));
        let comparison = match comparison {
            "exact" => Comparison::Exact,
            "unordered" => Comparison::Unordered,
            "pairs" => Comparison::Pairs,
            "near" => Comparison::Near,
            "seconds" => Comparison::Seconds,
            "shape" => Comparison::Shape,
            other => return Err(format!("no comparison {other}")),
        };
        let mut commands = Vec::new();
        for text in split_commands(rest) {
            let tokens = tokens(&text)?;
            let mut at = 0;
            let parts = parse_parts(&tokens, &mut at)?;
            if at != tokens.len() {
                return Err(format!("unexpected {:?}", tokens.get(at)));
            }
            commands.push(parts);
        }
        let mut commands = commands.into_iter();
        Ok(Self {
            weight: weight.parse().map_err(|_| format!("no weight: {weight}"))?,
            comparison,
            parts: commands.next().ok_or("no command")?,
            mutable: !faithful && comparison != Comparison::Shape && commands.len() == 0,
            follow_ups: commands.collect(),
        })
    }

    /// The command and its follow-ups.
    pub fn make(&self, rng: &mut Rng, mood: &mut Mood) -> Vec<Request> {
        let mut first = Vec::new();
        emit(&self.parts, rng, mood, &[], &mut first);
        if self.mutable && rng.below(100) < 4 {
            mutate(&mut first, rng, mood);
        }
        let mut requests = vec![first];
        for parts in &self.follow_ups {
            let mut request = Vec::new();
            emit(parts, rng, mood, requests.first().map(Vec::as_slice).unwrap_or_default(), &mut request);
            requests.push(request);
        }
        requests
    }
}

/// What a careless or hostile client would send: one argument too few or too many, an extreme, another case.
fn mutate(request: &mut Request, rng: &mut Rng, mood: &mut Mood) {
    let at = rng.below(request.len() as u64) as usize;
    match rng.below(6) {
        0 if request.len() > 1 => {
            request.pop();
        }
        1 => request.push(value("odd", rng, mood)),
        2 | 3 if at > 0 => {
            if let Some(argument) = request.get_mut(at) {
                *argument = value("odd", rng, mood);
            }
        }
        4 if at > 0 => {
            let copy = request.get(at).cloned().unwrap_or_default();
            request.insert(at, copy);
        }
        _ => {
            if let Some(argument) = request.first_mut() {
                argument.make_ascii_lowercase();
            }
        }
    }
}

fn emit(parts: &[Part], rng: &mut Rng, mood: &mut Mood, first: &[Vec<u8>], out: &mut Request) {
    for part in parts {
        match part {
            Part::Literal(text) => out.push(text.clone()),
            Part::Value(name) => out.push(value(name, rng, mood)),
            Part::Back(at) => out.push(first.get(*at).cloned().unwrap_or_default()),
            Part::Optional(body) => {
                if rng.below(100) < 35 {
                    emit(body, rng, mood, first, out);
                }
            }
            Part::Choice(bodies) => {
                if let Some(body) = bodies.get(rng.below(bodies.len() as u64) as usize) {
                    emit(body, rng, mood, first, out);
                }
            }
            Part::Repeat { counted, body } => {
                let times = mood.repetitions(rng);
                if *counted {
                    // Now and then a number that doesn't fit what follows.
                    let said =
                        if rng.below(50) == 0 { value("odd", rng, mood) } else { times.to_string().into() };
                    out.push(said);
                }
                for _ in 0..times {
                    emit(body, rng, mood, first, out);
                }
            }
        }
    }
}

/// At ` ; `, outside quotes (a Lua body has none with blanks on both sides).
fn split_commands(text: &str) -> Vec<String> {
    text.split(" ; ").map(str::to_string).collect()
}

fn tokens(text: &str) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = if let Some(quoted) = rest.strip_prefix('\'') {
            quoted.find('\'').ok_or("a quote without its end")? + 2
        } else {
            rest.find(char::is_whitespace).unwrap_or(rest.len())
        };
        let (token, after) = rest.split_at_checked(end).ok_or("not ASCII")?;
        found.push(token.to_string());
        rest = after.trim_start();
    }
    Ok(found)
}

fn parse_parts(tokens: &[String], at: &mut usize) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    while let Some(token) = tokens.get(*at) {
        let token = token.as_str();
        if matches!(token, ")" | ")+" | "]" | "|") {
            break;
        }
        *at += 1;
        parts.push(match token {
            "[" => {
                let body = parse_parts(tokens, at)?;
                expect(tokens, at, "]")?;
                Part::Optional(body)
            }
            "(" | "#(" => parse_group(tokens, at, token == "#(")?,
            _ => parse_word(token)?,
        });
    }
    Ok(parts)
}

fn parse_group(tokens: &[String], at: &mut usize, counted: bool) -> Result<Part, String> {
    let mut bodies = vec![parse_parts(tokens, at)?];
    while tokens.get(*at).is_some_and(|token| token == "|") {
        *at += 1;
        bodies.push(parse_parts(tokens, at)?);
    }
    if tokens.get(*at).is_some_and(|token| token == ")+") {
        *at += 1;
        return Ok(Part::Repeat { counted, body: vec![Part::Choice(bodies)] });
    }
    expect(tokens, at, ")")?;
    Ok(Part::Choice(bodies))
}

fn parse_word(token: &str) -> Result<Part, String> {
    if let Some(number) = token.strip_prefix('$').and_then(|n| n.parse().ok()) {
        return Ok(Part::Back(number));
    }
    if let Some(quoted) = token.strip_prefix('\'') {
        return Ok(Part::Literal(quoted.trim_end_matches('\'').into()));
    }
    let (counted, inner) = token.strip_prefix('#').map_or((false, token), |rest| (true, rest));
    let Some(inner) = inner.strip_prefix('{') else { return Ok(Part::Literal(token.into())) };
    let (name, repeated) = match inner.strip_suffix("}+") {
        Some(name) => (name, true),
        None => (inner.strip_suffix('}').ok_or_else(|| format!("no end: {token}"))?, false),
    };
    if !super::values::is_known(name) {
        return Err(format!("no value called {name}"));
    }
    let part = Part::Value(name.into());
    Ok(if repeated { Part::Repeat { counted, body: vec![part] } } else { part })
}

fn expect(tokens: &[String], at: &mut usize, wanted: &str) -> Result<(), String> {
    if tokens.get(*at).is_none_or(|token| token != wanted) {
        return Err(format!("{wanted} is missing"));
    }
    *at += 1;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::show;

    #[test]
    fn all_families_can_be_read_and_make_commands() {
        let mut rng = Rng::new(1);
        for (name, _) in FAMILIES {
            let family = Family::load(name).unwrap();
            let mut mood = Mood::new(&mut rng, name);
            for _ in 0..2000 {
                let made = family.pick(&mut rng).unwrap().make(&mut rng, &mut mood);
                assert!(made.iter().all(|request| !request.is_empty()), "{name}: {made:?}");
            }
        }
    }

    #[test]
    fn the_syntax_does_what_it_says() {
        let template = Template::parse("3 shape A ( B | B ) #( x y )+ 'q r' ; C $1 $0").unwrap();
        assert!(!template.mutable);
        let mut rng = Rng::new(2);
        let mut mood = Mood::new(&mut rng, "string");
        for _ in 0..200 {
            let made = template.make(&mut rng, &mut mood);
            assert!(show(&made[0]).starts_with("A B "));
            assert_eq!(made[0].last().unwrap(), b"q r");
            assert_eq!(show(&made[1]), "C B A");
        }
        assert!(Template::parse("1 exact A ( B").is_err());
        assert!(Template::parse("1 exact {nosuchvalue}").is_err());
        assert!(Template::parse("1 other A").is_err());
    }
}
