//! The settings with a grammar of their own: save points, buffer limits, keyspace events, addresses and the like.

use bitflags::bitflags;

use super::choices::one_of;
use super::value::{Any, Fault, Setting, Source, loose_i64, memory_text, quoted, single};
use kara_base::number::{parse_i64, parse_memory};
use kara_base::text::needs_quotes;

/// Joins words with single blanks, the shape in which CONFIG GET shows lists.
fn joined(words: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let words: Vec<Vec<u8>> = words.into_iter().collect();
    words.join(&b' ')
}

/// One word of a line, in quotes where it would otherwise be several words or end the line.
fn word(text: &[u8]) -> Vec<u8> {
    if needs_quotes(text) { quoted(text) } else { text.to_vec() }
}

/// A whole number with an optional sign that fits, unlike `loose_i64`, which saturates.
fn whole(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// One `save` rule: dump after `seconds` when at least `changes` writes happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavePoint {
    pub seconds: i64,
    /// Kept at the reference's width; a negative number (from an overlong argument) is always reached.
    pub changes: i32,
}

/// The `save` rules.
#[derive(Clone, Debug)]
pub struct SavePoints {
    pub points: Vec<SavePoint>,
    /// Still the built-in rules: the first `save` line of a file replaces them, later lines add.
    built_in: bool,
}

impl Default for SavePoints {
    fn default() -> Self {
        let points = [(3600, 1), (300, 100), (60, 10_000)];
        SavePoints {
            points: points.into_iter().map(|(seconds, changes)| SavePoint { seconds, changes }).collect(),
            built_in: true,
        }
    }
}

impl PartialEq for SavePoints {
    fn eq(&self, other: &Self) -> bool {
        self.points == other.points
    }
}

impl Setting for SavePoints {
    type Rule = Any;

    fn assign(&mut self, _: &Any, args: &[&[u8]], source: Source) -> Result<(), Fault> {
        if matches!(args, [] | [b""]) {
            *self = SavePoints { points: Vec::new(), built_in: false };
            return Ok(());
        }
        let mut added = Vec::new();
        for pair in args.chunks(2) {
            let (Some(seconds), Some(changes)) =
                (pair.first().and_then(|a| loose_i64(a)), pair.get(1).and_then(|a| loose_i64(a)))
            else {
                return Err(Fault::Borrowed("Invalid save parameters"));
            };
            if seconds < 1 || changes < 0 {
                return Err(Fault::Borrowed("Invalid save parameters"));
            }
            added.push(SavePoint { seconds, changes: changes as i32 });
        }
        if source == Source::Runtime || self.built_in {
            self.points.clear();
        }
        self.built_in = false;
        self.points.extend(added);
        Ok(())
    }

    fn show(&self) -> Vec<u8> {
        joined(self.points.iter().map(|p| format!("{} {}", p.seconds, p.changes).into_bytes()))
    }

    fn lines(&self, _: &Any) -> Vec<Vec<u8>> {
        // Without rules an empty line must stand there, or the next start would take the built-in ones.
        if self.points.is_empty() { vec![b"\"\"".to_vec()] } else { vec![self.show()] }
    }
}

/// The limits of one class of clients. 0 means none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferLimit {
    pub hard_bytes: u64,
    pub soft_bytes: u64,
    pub soft_seconds: i64,
}

/// `client-output-buffer-limit`: how much output may wait per class of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputBufferLimits {
    pub normal: BufferLimit,
    pub replica: BufferLimit,
    pub pubsub: BufferLimit,
}

impl Default for OutputBufferLimits {
    fn default() -> Self {
        let limit = |hard: u64, soft: u64, soft_seconds| BufferLimit {
            hard_bytes: hard << 20,
            soft_bytes: soft << 20,
            soft_seconds,
        };
        OutputBufferLimits { normal: limit(0, 0, 0), replica: limit(256, 64, 60), pubsub: limit(32, 8, 60) }
    }
}

impl OutputBufferLimits {
    /// The classes by name.
    pub fn named(&self) -> [(&'static str, BufferLimit); 3] {
        [("normal", self.normal), ("replica", self.replica), ("pubsub", self.pubsub)]
    }
}

impl Setting for OutputBufferLimits {
    type Rule = Any;

    fn assign(&mut self, _: &Any, args: &[&[u8]], _: Source) -> Result<(), Fault> {
        const BAD_NUMBER: Fault =
            Fault::Borrowed("Error in hard, soft or soft_seconds setting in buffer limit configuration.");
        let args = if matches!(args, [b""]) { &[] } else { args };
        if !args.len().is_multiple_of(4) {
            return Err(Fault::Borrowed("Wrong number of arguments in buffer limit configuration."));
        }
        let mut limits = *self;
        for group in args.chunks_exact(4) {
            let [class, hard, soft, seconds] = group else { continue };
            let slot = match class.to_ascii_lowercase().as_slice() {
                b"normal" => &mut limits.normal,
                b"replica" | b"slave" => &mut limits.replica,
                b"pubsub" => &mut limits.pubsub,
                _ => {
                    return Err(Fault::Borrowed(
                        "Invalid client class specified in buffer limit configuration.",
                    ));
                }
            };
            let hard_bytes = parse_memory(hard).ok_or(BAD_NUMBER)?;
            let soft_bytes = parse_memory(soft).ok_or(BAD_NUMBER)?;
            let soft_seconds = whole(seconds).filter(|s| *s >= 0).ok_or(BAD_NUMBER)?;
            *slot = BufferLimit { hard_bytes, soft_bytes, soft_seconds };
        }
        *self = limits;
        Ok(())
    }

    fn show(&self) -> Vec<u8> {
        let class = |name: &str, l: &BufferLimit| {
            format!("{name} {} {} {}", l.hard_bytes, l.soft_bytes, l.soft_seconds).into_bytes()
        };
        // The old name: what clients of this reply have matched on since Redis 2.
        joined([class("normal", &self.normal), class("slave", &self.replica), class("pubsub", &self.pubsub)])
    }

    fn lines(&self, _: &Any) -> Vec<Vec<u8>> {
        [("normal", self.normal), ("replica", self.replica), ("pubsub", self.pubsub)]
            .into_iter()
            .map(|(name, limit)| {
                joined([
                    name.as_bytes().to_vec(),
                    memory_text(limit.hard_bytes),
                    memory_text(limit.soft_bytes),
                    limit.soft_seconds.to_string().into_bytes(),
                ])
            })
            .collect()
    }
}

bitflags! {
    /// Which keyspace events are published, and on which channels.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct NotifyFlags: u32 {
        /// `K`: on `__keyspace@<db>__:<key>`
        const KEYSPACE = 1 << 0;
        /// `E`: on `__keyevent@<db>__:<event>`
        const KEYEVENT = 1 << 1;
        /// `g`: commands that aren't bound to a type
        const GENERIC = 1 << 2;
        /// `$`
        const STRING = 1 << 3;
        /// `l`
        const LIST = 1 << 4;
        /// `s`
        const SET = 1 << 5;
        /// `h`
        const HASH = 1 << 6;
        /// `z`
        const ZSET = 1 << 7;
        /// `x`
        const EXPIRED = 1 << 8;
        /// `e`
        const EVICTED = 1 << 9;
        /// `t`
        const STREAM = 1 << 10;
        /// `m`: a key was looked up and isn't there
        const KEY_MISS = 1 << 11;
        /// `d`
        const MODULE = 1 << 12;
        /// `n`: a key came into being
        const NEW = 1 << 13;
        /// `A`: everything except `m` and `n`
        const ALL = Self::GENERIC.bits() | Self::STRING.bits() | Self::LIST.bits() | Self::SET.bits()
            | Self::HASH.bits() | Self::ZSET.bits() | Self::EXPIRED.bits() | Self::EVICTED.bits()
            | Self::STREAM.bits() | Self::MODULE.bits();
    }
}

impl NotifyFlags {
    /// Letters in the order in which CONFIG GET prints them; the last three always follow an `A` too.
    const LETTERS: [(u8, NotifyFlags); 14] = [
        (b'g', Self::GENERIC),
        (b'$', Self::STRING),
        (b'l', Self::LIST),
        (b's', Self::SET),
        (b'h', Self::HASH),
        (b'z', Self::ZSET),
        (b'x', Self::EXPIRED),
        (b'e', Self::EVICTED),
        (b't', Self::STREAM),
        (b'd', Self::MODULE),
        (b'n', Self::NEW),
        (b'K', Self::KEYSPACE),
        (b'E', Self::KEYEVENT),
        (b'm', Self::KEY_MISS),
    ];

    /// The events that `letters` name; None if one of them names nothing.
    pub fn from_letters(letters: &[u8]) -> Option<NotifyFlags> {
        letters.iter().try_fold(Self::empty(), |flags, &letter| {
            let more = match letter {
                b'A' => Self::ALL,
                _ => Self::LETTERS.iter().find(|(l, _)| *l == letter)?.1,
            };
            Some(flags | more)
        })
    }
}

impl Setting for NotifyFlags {
    type Rule = Any;

    fn assign(&mut self, _: &Any, args: &[&[u8]], _: Source) -> Result<(), Fault> {
        *self = Self::from_letters(single(args)?)
            .ok_or(Fault::Borrowed("Invalid event class character. Use 'Ag$lshzxeKEtmdn'."))?;
        Ok(())
    }

    fn show(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let all = self.contains(Self::ALL);
        if all {
            out.push(b'A');
        }
        for (letter, flag) in Self::LETTERS {
            // Next to an `A` the reference leaves `n` out, although `A` doesn't cover it.
            let covered = all && (Self::ALL.contains(flag) || flag == Self::NEW);
            if self.contains(flag) && !covered {
                out.push(letter);
            }
        }
        out
    }

    fn lines(&self, _: &Any) -> Vec<Vec<u8>> {
        vec![quoted(&self.show())]
    }
}

/// A floating point number; "inf" is one, a number too large for the type isn't.
fn float(text: &[u8]) -> Option<f64> {
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    let overflowed = value.is_infinite() && text.iter().any(u8::is_ascii_digit);
    (!value.is_nan() && !overflowed).then_some(value)
}

/// `latency-tracking-info-percentiles`.
#[derive(Clone, Debug, PartialEq)]
pub struct Percentiles(pub Vec<f64>);

impl Default for Percentiles {
    fn default() -> Self {
        Percentiles(vec![50.0, 99.0, 99.9])
    }
}

impl Setting for Percentiles {
    type Rule = Any;

    fn assign(&mut self, _: &Any, args: &[&[u8]], _: Source) -> Result<(), Fault> {
        let args = if matches!(args, [b""]) { &[] } else { args };
        let mut values = Vec::with_capacity(args.len());
        for arg in args {
            let value =
                float(arg).ok_or(Fault::Borrowed("Invalid latency-tracking-info-percentiles parameters"))?;
            if !(0.0..=100.0).contains(&value) {
                return Err(Fault::Borrowed(
                    "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]",
                ));
            }
            values.push(value);
        }
        self.0 = values;
        Ok(())
    }

    fn show(&self) -> Vec<u8> {
        joined(self.0.iter().map(|value| {
            let text = format!("{value:.6}");
            text.trim_end_matches('0').trim_end_matches('.').as_bytes().to_vec()
        }))
    }

    fn lines(&self, _: &Any) -> Vec<Vec<u8>> {
        if self.0.is_empty() { vec![b"\"\"".to_vec()] } else { vec![self.show()] }
    }
}

/// `oom-score-adj-values`: for a primary, a replica and background children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomScores(pub [i32; 3]);

impl Setting for OomScores {
    type Rule = Any;

    fn assign(&mut self, _: &Any, args: &[&[u8]], _: Source) -> Result<(), Fault> {
        let [primary, replica, child] = args else {
            return Err(Fault::Borrowed("wrong number of arguments"));
        };
        let mut scores = [0; 3];
        for (score, arg) in scores.iter_mut().zip([primary, replica, child]) {
            *score = loose_i64(arg)
                .filter(|value| (-2000..=2000).contains(value))
                .and_then(|value| i32::try_from(value).ok())
                .ok_or(Fault::Borrowed(
                    "Invalid oom-score-adj-values, elements must be between -2000 and 2000.",
                ))?;
        }
        self.0 = scores;
        Ok(())
    }

    fn show(&self) -> Vec<u8> {
        joined(self.0.iter().map(|score| score.to_string().into_bytes()))
    }

    fn lines(&self, _: &Any) -> Vec<Vec<u8>> {
        vec![self.show()]
    }
}

/// `bind`: the addresses to listen on. A leading `-` allows an address not to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindAddresses(pub Vec<Vec<u8>>);

impl Default for BindAddresses {
    fn default() -> Self {
        BindAddresses(vec![b"*".to_vec(), b"-::*".to_vec()])
    }
}

impl Setting for BindAddresses {
    type Rule = Any;

    fn assign(&mut self, _: &Any, args: &[&[u8]], _: Source) -> Result<(), Fault> {
        if args.len() > 16 {
            return Err(Fault::Borrowed("Too many bind addresses specified."));
        }
        let none = matches!(args, [b""]);
        self.0 = if none { Vec::new() } else { args.iter().map(|a| a.to_vec()).collect() };
        Ok(())
    }

    fn show(&self) -> Vec<u8> {
        self.0.join(&b' ')
    }

    fn lines(&self, _: &Any) -> Vec<Vec<u8>> {
        if self.0.is_empty() { vec![b"\"\"".to_vec()] } else { vec![joined(self.0.iter().map(|a| word(a)))] }
    }
}

bitflags! {
    /// `shutdown-on-sigint` and `shutdown-on-sigterm`: SHUTDOWN's options; empty means `default`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ShutdownFlags: u8 {
        const SAVE = 1 << 0;
        const NOSAVE = 1 << 1;
        const NOW = 1 << 2;
        const FORCE = 1 << 3;
        const SAFE = 1 << 4;
        const FAILOVER = 1 << 5;
    }
}

impl ShutdownFlags {
    const WORDS: [(&'static str, ShutdownFlags); 7] = [
        ("default", Self::empty()),
        ("save", Self::SAVE),
        ("nosave", Self::NOSAVE),
        ("now", Self::NOW),
        ("force", Self::FORCE),
        ("safe", Self::SAFE),
        ("failover", Self::FAILOVER),
    ];
}

impl Setting for ShutdownFlags {
    type Rule = Any;

    fn assign(&mut self, _: &Any, args: &[&[u8]], _: Source) -> Result<(), Fault> {
        let mut flags = Self::empty();
        let unknown = || one_of(&Self::WORDS.map(|(word, _)| word));
        if args.is_empty() {
            return Err(unknown());
        }
        for arg in args {
            let found = Self::WORDS.iter().find(|(word, _)| word.as_bytes().eq_ignore_ascii_case(arg));
            flags |= found.ok_or_else(unknown)?.1;
        }
        if flags.contains(Self::SAVE | Self::NOSAVE) {
            return Err(Fault::Borrowed("shutdown options SAVE and NOSAVE can't be used simultaneously"));
        }
        *self = flags;
        Ok(())
    }

    fn show(&self) -> Vec<u8> {
        if self.is_empty() {
            return b"default".to_vec();
        }
        let set = Self::WORDS.iter().filter(|(_, flag)| !flag.is_empty() && self.contains(*flag));
        joined(set.map(|(word, _)| word.as_bytes().to_vec()))
    }

    fn lines(&self, _: &Any) -> Vec<Vec<u8>> {
        vec![self.show()]
    }
}

/// `maxmemory-clients`: a size, or a share of `maxmemory`. `Bytes(0)` means no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientsMemory {
    Bytes(u64),
    Percent(u8),
}

impl ClientsMemory {
    /// The limit in bytes under `maxmemory`; None: no limit.
    pub fn limit_bytes(self, maxmemory: u64) -> Option<u64> {
        match self {
            Self::Bytes(0) => None,
            Self::Bytes(bytes) => Some(bytes),
            Self::Percent(_) if maxmemory == 0 => None,
            Self::Percent(share) => {
                u64::try_from(u128::from(maxmemory) * u128::from(share) / 100).ok().filter(|b| *b > 0)
            }
        }
    }
}

impl Setting for ClientsMemory {
    type Rule = Any;

    fn assign(&mut self, _: &Any, args: &[&[u8]], _: Source) -> Result<(), Fault> {
        const BAD: Fault = Fault::Borrowed("argument must be a memory or percent value");
        let arg = single(args)?;
        *self = match arg.split_last() {
            Some((b'%', share)) => {
                let share = parse_i64(share).filter(|share| *share >= 0).ok_or(BAD)?;
                match u8::try_from(share) {
                    Ok(0) => Self::Bytes(0),
                    Ok(share @ 1..=100) => Self::Percent(share),
                    _ => return Err(Fault::Borrowed("percentage argument must be less or equal to 100")),
                }
            }
            _ => Self::Bytes(parse_memory(arg).filter(|b| i64::try_from(*b).is_ok()).ok_or(BAD)?),
        };
        Ok(())
    }

    fn show(&self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.to_string().into_bytes(),
            Self::Percent(share) => format!("{share}%").into_bytes(),
        }
    }

    fn lines(&self, _: &Any) -> Vec<Vec<u8>> {
        vec![match self {
            Self::Bytes(bytes) => memory_text(*bytes),
            Self::Percent(_) => self.show(),
        }]
    }
}

/// `unixsocketperm`: a file mode, written in octal. 0 leaves the umask's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl Setting for FileMode {
    type Rule = Any;

    fn assign(&mut self, _: &Any, args: &[&[u8]], _: Source) -> Result<(), Fault> {
        let arg = single(args)?;
        let digits = arg.strip_prefix(b"-").unwrap_or(arg);
        let octal = !digits.is_empty() && digits.iter().all(|d| (b'0'..=b'7').contains(d));
        if !octal || digits.len() > 20 {
            return Err(Fault::Borrowed("argument couldn't be parsed as an octal number"));
        }
        let mode =
            digits.iter().try_fold(0u32, |mode, d| mode.checked_mul(8)?.checked_add(u32::from(d - b'0')));
        match mode {
            Some(mode) if mode <= 0o777 && (digits.len() == arg.len() || mode == 0) => self.0 = mode,
            _ => return Err(Fault::Borrowed("argument must be between 0 and 777 inclusive")),
        }
        Ok(())
    }

    fn show(&self) -> Vec<u8> {
        format!("{:o}", self.0).into_bytes()
    }

    fn lines(&self, _: &Any) -> Vec<Vec<u8>> {
        vec![self.show()]
    }
}

/// `replicaof`: our primary, if we have one. REPLICAOF and failovers change it behind the file's back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaOf(pub Option<(Vec<u8>, u16)>);

impl Setting for ReplicaOf {
    type Rule = Any;

    fn assign(&mut self, _: &Any, args: &[&[u8]], _: Source) -> Result<(), Fault> {
        let [host, port] = args else {
            return Err(Fault::Borrowed("wrong number of arguments"));
        };
        self.0 = if host.eq_ignore_ascii_case(b"no") && port.eq_ignore_ascii_case(b"one") {
            None
        } else {
            let port = loose_i64(port).filter(|_| !port.is_empty()).and_then(|p| u16::try_from(p).ok());
            Some((host.to_vec(), port.ok_or(Fault::Borrowed("Invalid primary port"))?))
        };
        Ok(())
    }

    fn show(&self) -> Vec<u8> {
        match &self.0 {
            None => Vec::new(),
            Some((host, port)) => joined([host.clone(), port.to_string().into_bytes()]),
        }
    }

    fn lines(&self, _: &Any) -> Vec<Vec<u8>> {
        let line = |(host, port): &(Vec<u8>, u16)| joined([word(host), port.to_string().into_bytes()]);
        self.0.iter().map(line).collect()
    }
}
