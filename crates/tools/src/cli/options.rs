//! The command line's options and the environment's, read once. Says what is wrong; does nothing.

use super::uri;
use super::words::{leading_decimal, leading_number, unquote};
use std::time::Duration;

/// How replies are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Standard,
    Raw,
    Csv,
    Json,
    QuotedJson,
}

/// What the program is asked to be, beside a sender of commands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modes {
    pub latency: bool,
    pub latency_history: bool,
    pub intrinsic_latency_s: Option<u64>,
    pub stat: bool,
    pub scan: bool,
    pub bigkeys: bool,
    /// Samples of MEMORY USAGE; 0 leaves it to the server.
    pub memkeys: Option<u64>,
    /// How many of the keys that are read most.
    pub hotkeys: Option<usize>,
    pub pipe: bool,
    pub replica: bool,
    pub rdb: Option<Vec<u8>>,
    pub functions_rdb: Option<Vec<u8>>,
    pub eval: Option<Vec<u8>>,
    pub test_hint: Option<Vec<u8>>,
    pub test_hint_file: Option<Vec<u8>>,
}

/// RESP3 at the start of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resp3 {
    No,
    /// Asked for by an output that profits from it: a server that doesn't have it will do.
    Preferred,
    Demanded,
}

/// Where the server is and who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub host: Vec<u8>,
    pub port: i64,
    pub socket: Option<Vec<u8>>,
    pub user: Option<Vec<u8>>,
    pub password: Option<Vec<u8>>,
    pub db: i64,
}

impl Default for Target {
    fn default() -> Self {
        Target { host: b"127.0.0.1".to_vec(), port: 6379, socket: None, user: None, password: None, db: 0 }
    }
}

#[derive(Clone, Debug)]
pub struct Options {
    pub target: Target,
    pub timeout: Option<Duration>,
    /// Negative: for ever.
    pub repeat: i64,
    pub interval: Duration,
    pub output: Output,
    pub show_pushes: bool,
    pub elements_delimiter: Vec<u8>,
    pub replies_delimiter: Vec<u8>,
    pub quoted_input: bool,
    pub last_from_stdin: bool,
    pub tag_from_stdin: Option<Vec<u8>>,
    pub askpass: bool,
    pub no_auth_warning: bool,
    pub error_code: bool,
    pub cluster: bool,
    pub resp2: bool,
    pub resp3: Resp3,
    pub ipv4: bool,
    pub ipv6: bool,
    pub verbose: bool,
    pub pattern: Option<Vec<u8>>,
    pub kind: Option<Vec<u8>>,
    pub count: i64,
    pub pipe_timeout_s: i64,
    pub modes: Modes,
    /// The command and its arguments.
    pub command: Vec<Vec<u8>>,
}

/// Why there are no options: the text for the user and the exit code.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    Help,
    Version,
    Wrong(String),
}

fn wrong<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Wrong(message.into()))
}

impl Options {
    /// Defaults; `terminal` says whether a person reads the output.
    pub fn new(terminal: bool) -> Options {
        Options {
            target: Target::default(),
            timeout: None,
            repeat: 1,
            interval: Duration::ZERO,
            output: if terminal { Output::Standard } else { Output::Raw },
            show_pushes: terminal,
            elements_delimiter: b"\n".to_vec(),
            replies_delimiter: b"\n".to_vec(),
            quoted_input: false,
            last_from_stdin: false,
            tag_from_stdin: None,
            askpass: false,
            no_auth_warning: false,
            error_code: false,
            cluster: false,
            resp2: false,
            resp3: Resp3::No,
            ipv4: false,
            ipv6: false,
            verbose: false,
            pattern: None,
            kind: None,
            count: 10,
            pipe_timeout_s: 30,
            modes: Modes::default(),
            command: Vec::new(),
        }
    }

    /// Reads the command line. `environment` looks a variable up.
    pub fn parse(
        args: &[Vec<u8>],
        terminal: bool,
        environment: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<Options, Refusal> {
        let mut options = Options::new(terminal);
        if let Some(host) = environment("VALKEYCLI_HOST") {
            options.target.host = host;
        }
        if let Some(port) = environment("VALKEYCLI_PORT") {
            options.target.port = port_number(&port)?;
        }
        let mut at = 0;
        while let Some(word) = args.get(at) {
            let value = args.get(at + 1);
            if options.switch(word) {
                at += 1;
            } else if let Some(value) = value
                && options.setting(word, value)?
            {
                at += 2;
            } else if word == b"-h" || word == b"--help" {
                return Err(Refusal::Help);
            } else if word == b"-v" || word == b"--version" {
                return Err(Refusal::Version);
            } else if word.first() == Some(&b'-') {
                return wrong(unknown(word));
            } else {
                break;
            }
        }
        options.command = args.get(at..).unwrap_or_default().to_vec();
        options.check()?;
        if options.target.password.is_none() {
            options.target.password = environment("VALKEYCLI_AUTH").or_else(|| environment("REDISCLI_AUTH"));
        }
        Ok(options)
    }

    fn check(&self) -> Result<(), Refusal> {
        let exclusive = |one: bool, other: bool, names: &str| {
            if one && other { wrong(format!("{names} are mutually exclusive.")) } else { Ok(()) }
        };
        exclusive(self.target.socket.is_some(), self.cluster, "Options -c and -s")?;
        exclusive(self.resp2, self.resp3 == Resp3::Demanded, "Options -2 and -3")?;
        let both = self.modes.functions_rdb.is_some() && self.modes.rdb.is_some();
        if both {
            return wrong("Option --functions-rdb and --rdb are mutually exclusive.");
        }
        exclusive(self.last_from_stdin, self.tag_from_stdin.is_some(), "Options -x and -X")?;
        exclusive(self.ipv4, self.ipv6, "Options -4 and -6")
    }

    /// An option without a value; false where the word is none.
    fn switch(&mut self, word: &[u8]) -> bool {
        match word {
            b"-x" => self.last_from_stdin = true,
            b"--no-auth-warning" => self.no_auth_warning = true,
            b"--askpass" => self.askpass = true,
            b"--raw" => self.output = Output::Raw,
            b"--no-raw" => self.output = Output::Standard,
            b"--quoted-input" => self.quoted_input = true,
            b"--csv" => self.output = Output::Csv,
            b"--json" | b"--quoted-json" => {
                if self.resp3 == Resp3::No {
                    self.resp3 = Resp3::Preferred;
                }
                self.output = if word == b"--json" { Output::Json } else { Output::QuotedJson };
            }
            b"--latency" => self.modes.latency = true,
            b"--latency-history" => {
                self.modes.latency = true;
                self.modes.latency_history = true;
            }
            b"--slave" | b"--replica" => self.modes.replica = true,
            b"--stat" => self.modes.stat = true,
            b"--scan" => self.modes.scan = true,
            b"--pipe" => self.modes.pipe = true,
            b"--bigkeys" => self.modes.bigkeys = true,
            b"--memkeys" => self.modes.memkeys = Some(0),
            b"--hotkeys" => self.modes.hotkeys = Some(16),
            b"-c" => self.cluster = true,
            b"-e" => self.error_code = true,
            b"--verbose" => self.verbose = true,
            b"-4" => self.ipv4 = true,
            b"-6" => self.ipv6 = true,
            b"-2" => self.resp2 = true,
            b"-3" => self.resp3 = Resp3::Demanded,
            _ => return false,
        }
        true
    }

    /// An option with its value; false where the word is none.
    fn setting(&mut self, word: &[u8], value: &[u8]) -> Result<bool, Refusal> {
        match word {
            b"-h" => self.target.host = value.to_vec(),
            b"-p" => self.target.port = port_number(value)?,
            b"-t" => self.timeout = Some(timeout(value)?).filter(|timeout| !timeout.is_zero()),
            b"-s" => self.target.socket = Some(value.to_vec()),
            b"-r" => self.repeat = leading_number(value),
            b"-i" => self.interval = seconds(leading_decimal(value).unwrap_or(0.0)),
            b"-n" => self.target.db = leading_number(value),
            b"-a" | b"--pass" => self.target.password = Some(value.to_vec()),
            b"--user" => self.target.user = Some(value.to_vec()),
            b"-u" => uri::parse(value, &mut self.target).map_err(Refusal::Wrong)?,
            b"-X" => self.tag_from_stdin = Some(value.to_vec()),
            b"-d" => self.elements_delimiter = value.to_vec(),
            b"-D" => self.replies_delimiter = value.to_vec(),
            b"--pattern" => self.pattern = Some(value.to_vec()),
            b"--quoted-pattern" => match unquote(value) {
                Some(pattern) => self.pattern = Some(pattern),
                None => return wrong("Invalid quoted string specified for --quoted-pattern."),
            },
            b"--type" => self.kind = Some(value.to_vec()),
            b"--count" => self.count = leading_number(value),
            b"--intrinsic-latency" => {
                self.modes.intrinsic_latency_s = Some(u64::try_from(leading_number(value)).unwrap_or(0));
            }
            b"--rdb" => self.modes.rdb = Some(value.to_vec()),
            b"--functions-rdb" => self.modes.functions_rdb = Some(value.to_vec()),
            b"--pipe-timeout" => self.pipe_timeout_s = leading_number(value),
            b"--memkeys-samples" => {
                self.modes.memkeys = Some(u64::try_from(leading_number(value)).unwrap_or(0));
            }
            b"--hotkeys-count" => {
                let count = usize::try_from(leading_number(value)).ok().filter(|count| *count > 0);
                self.modes.hotkeys = Some(count.unwrap_or(16).min(1 << 20));
            }
            b"--eval" => self.modes.eval = Some(value.to_vec()),
            b"--test_hint" => self.modes.test_hint = Some(value.to_vec()),
            b"--test_hint_file" => self.modes.test_hint_file = Some(value.to_vec()),
            b"--show-pushes" => match value.first().map(u8::to_ascii_lowercase) {
                Some(b'n') => self.show_pushes = false,
                Some(b'y') => self.show_pushes = true,
                _ => {
                    let shown = String::from_utf8_lossy(value);
                    eprintln!("Unknown --show-pushes value '{shown}' (valid: '[y]es', '[n]o')");
                }
            },
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Options of the reference that are not here say so, instead of being no options at all.
fn unknown(word: &[u8]) -> String {
    let shown = String::from_utf8_lossy(word);
    let absent =
        ["--ldb", "--ldb-sync-mode", "--latency-dist", "--lru-test", "--cluster", "--rdma", "--mptcp"];
    let tls = ["--tls", "--sni", "--cacert", "--cacertdir", "--cert", "--key", "--insecure"];
    if absent.contains(&shown.as_ref()) || tls.contains(&shown.as_ref()) || shown.starts_with("--tls-") {
        return format!("{shown} is not supported by kara-cli yet");
    }
    format!("Unrecognized option or bad number of args for: '{shown}'")
}

fn port_number(value: &[u8]) -> Result<i64, Refusal> {
    match leading_number(value) {
        port @ 0..=65535 => Ok(port),
        _ => wrong("Invalid server port."),
    }
}

fn timeout(value: &[u8]) -> Result<Duration, Refusal> {
    let text = std::str::from_utf8(value).unwrap_or_default();
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(seconds(number)),
        _ => wrong("Invalid connection timeout for -t."),
    }
}

/// A duration of that many seconds, to the microsecond; nonsense is none.
fn seconds(number: f64) -> Duration {
    Duration::try_from_secs_f64(number).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, Refusal> {
        let args: Vec<Vec<u8>> = line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect();
        Options::parse(&args, false, |name| (name == "REDISCLI_AUTH").then(|| b"env".to_vec()))
    }

    #[test]
    fn options_end_at_the_command() {
        let options = parse("-p 7 -n 3 --csv set -x 1").expect("options");
        assert_eq!((options.target.port, options.target.db, options.output), (7, 3, Output::Csv));
        assert_eq!(options.command, [b"set".to_vec(), b"-x".to_vec(), b"1".to_vec()]);
        assert_eq!(options.target.password.as_deref(), Some(&b"env"[..]));
        assert_eq!(parse("-a own get").expect("options").target.password.as_deref(), Some(&b"own"[..]));
    }

    #[test]
    fn mistakes() {
        for (line, message) in [
            ("-x -X tag", "Options -x and -X are mutually exclusive."),
            ("-X", "Unrecognized option or bad number of args for: '-X'"),
            ("-p 70000", "Invalid server port."),
            ("-t x", "Invalid connection timeout for -t."),
            ("-2 -3", "Options -2 and -3 are mutually exclusive."),
            ("--ldb", "--ldb is not supported by kara-cli yet"),
        ] {
            assert_eq!(parse(line).err(), Some(Refusal::Wrong(message.into())), "{line}");
        }
        assert_eq!(parse("-h").err(), Some(Refusal::Help));
        assert_eq!(parse("-h x").expect("options").target.host, b"x");
    }
}
