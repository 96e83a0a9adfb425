//! The command line of `kara-benchmark`.

use crate::cli::options::Target;
use crate::cli::uri;

#[derive(Clone, Debug)]
pub struct BenchOptions {
    pub target: Target,
    pub clients: usize,
    pub requests: u64,
    pub data_size: usize,
    pub resp3: bool,
    pub tracking: bool,
    /// Threads that were asked for; 0: none beside the first.
    pub threads: usize,
    pub keep_alive: bool,
    /// Keys, members and scores are random below that.
    pub random: Option<u64>,
    pub pipeline: u64,
    pub quiet: bool,
    pub csv: bool,
    pub precision: usize,
    pub forever: bool,
    pub tests: Option<Vec<String>>,
    pub idle: bool,
    pub last_from_stdin: bool,
    pub command: Vec<Vec<u8>>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    Help,
    Version,
    Wrong(String),
}

impl BenchOptions {
    pub fn parse(args: &[Vec<u8>]) -> Result<BenchOptions, Refusal> {
        let mut options = BenchOptions {
            target: Target::default(),
            clients: 50,
            requests: 100_000,
            data_size: 3,
            resp3: false,
            tracking: false,
            threads: 0,
            keep_alive: true,
            random: None,
            pipeline: 1,
            quiet: false,
            csv: false,
            precision: 0,
            forever: false,
            tests: None,
            idle: false,
            last_from_stdin: false,
            command: Vec::new(),
        };
        let mut at = 0;
        while let Some(word) = args.get(at) {
            if options.switch(word) {
                at += 1;
            } else if let Some(value) = args.get(at + 1)
                && options.setting(word, value)?
            {
                at += 2;
            } else if word == b"--help" {
                return Err(Refusal::Help);
            } else if word == b"--version" || word == b"-v" {
                return Err(Refusal::Version);
            } else if word.first() == Some(&b'-') {
                let shown = String::from_utf8_lossy(word);
                return Err(Refusal::Wrong(match shown.as_ref() {
                    "--cluster" | "--tls" => format!("{shown} is not supported by kara-benchmark yet"),
                    _ => format!("Invalid option \"{shown}\" or option argument missing"),
                }));
            } else {
                break;
            }
        }
        options.command = args.get(at..).unwrap_or_default().to_vec();
        Ok(options)
    }

    fn switch(&mut self, word: &[u8]) -> bool {
        match word {
            b"-3" => self.resp3 = true,
            b"--enable-tracking" => self.tracking = true,
            b"-q" => self.quiet = true,
            b"--csv" => self.csv = true,
            b"-l" => self.forever = true,
            b"-I" => self.idle = true,
            b"-x" => self.last_from_stdin = true,
            _ => return false,
        }
        true
    }

    fn setting(&mut self, word: &[u8], value: &[u8]) -> Result<bool, Refusal> {
        let number = |least: u64, most: u64| {
            let parsed = std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
            let name = String::from_utf8_lossy(word);
            parsed
                .map(|number| number.clamp(least, most))
                .ok_or_else(|| Refusal::Wrong(format!("{name} takes a number")))
        };
        let size = |least, most| number(least, most).map(|number| usize::try_from(number).unwrap_or(1));
        match word {
            b"-h" => self.target.host = value.to_vec(),
            b"-p" => self.target.port = i64::try_from(number(0, 65_535)?).unwrap_or(0),
            b"-s" => self.target.socket = Some(value.to_vec()),
            b"-a" => self.target.password = Some(value.to_vec()),
            b"--user" => self.target.user = Some(value.to_vec()),
            b"-u" => uri::parse(value, &mut self.target).map_err(Refusal::Wrong)?,
            b"-c" => self.clients = size(1, 100_000)?,
            b"-n" => self.requests = number(1, u64::MAX)?,
            b"-d" => self.data_size = size(1, 1 << 30)?,
            b"--dbnum" => self.target.db = i64::try_from(number(0, 1 << 31)?).unwrap_or(0),
            b"--threads" => self.threads = size(0, 500)?,
            b"-k" => self.keep_alive = number(0, 1)? == 1,
            b"-r" => self.random = Some(number(0, 1 << 62)?).filter(|length| *length > 0),
            b"-P" => self.pipeline = number(1, 1 << 20)?,
            b"--precision" => self.precision = size(0, 3)?,
            b"-t" => {
                let text = String::from_utf8_lossy(value).to_lowercase();
                self.tests = Some(text.split(',').map(str::to_string).collect());
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Whether one of the names was asked for, or none in particular.
    pub fn wants(&self, names: &[&str]) -> bool {
        self.tests.as_ref().is_none_or(|tests| tests.iter().any(|test| names.contains(&test.as_str())))
    }
}

pub const USAGE: &str = "\
Usage: valkey-benchmark [OPTIONS] [COMMAND ARGS...]

 -h <hostname>      Host (127.0.0.1)            -p <port>    Port (6379)
 -s <socket>        Unix socket                 -u <uri>     valkey://user:password@host:port/db
 -a <password>      Password                    --user <username>
 --dbnum <db>       Database                    -3           RESP3
 -c <clients>       Parallel connections (50)   --threads <n>
 -n <requests>      Requests (100000)           -P <n>       Requests on their way per connection (1)
 -d <size>          Bytes of a value (3)        -k <0|1>     Keep connections (1)
 -r <length>        __rand_int__ in arguments becomes 12 digits below that, another each time
 -t <tests>         Only these, comma separated -l           For ever
 -q                 A line per test             --csv        Likewise, as CSV
 -I                 Opens connections and waits -x           The last argument comes from standard input
 --enable-tracking  CLIENT TRACKING ON first    --precision <n>
 --help, --version
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let parse = |line: &str| {
            let args: Vec<_> = line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect();
            BenchOptions::parse(&args)
        };
        let options = parse("-c 5 -n 10 -t SET,get -r 50 lpush x -n").expect("options");
        assert_eq!((options.clients, options.requests, options.random), (5, 10, Some(50)));
        assert!(options.wants(&["set"]) && !options.wants(&["lrange"]));
        assert_eq!(options.command.len(), 3);
        assert_eq!(parse("-n x").err(), Some(Refusal::Wrong("-n takes a number".into())));
        assert!(
            matches!(parse("--what").err(), Some(Refusal::Wrong(text)) if text.starts_with("Invalid option"))
        );
    }
}
