//! Log lines in the reference's formats, to standard output, a file or syslog. Usable from every thread: whether
//! a line is wanted is one atomic load, a line is one write.

use kara_base::os::{LocalTime, local_time};
use kara_engine::config::{Config, LogFormat, LogLevel, LogTimestamp, SyslogFacility};
use kara_engine::log::{Level, LogSink};
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

/// What a line says of the process that wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    Primary = 0,
    Replica = 1,
    Sentinel = 2,
    /// Background work on a snapshot or an append-only file.
    Background = 3,
}

impl Role {
    fn from_u8(n: u8) -> Self {
        match n {
            1 => Role::Replica,
            2 => Role::Sentinel,
            3 => Role::Background,
            _ => Role::Primary,
        }
    }

    fn letter(self) -> char {
        match self {
            Role::Primary => 'M',
            Role::Replica => 'S',
            Role::Sentinel => 'X',
            Role::Background => 'C',
        }
    }

    fn name(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Replica => "replica",
            Role::Sentinel => "sentinel",
            Role::Background => "RDB/AOF",
        }
    }
}

/// A message longer than this is cut, as in the reference.
const MAX_MESSAGE: usize = 1023;

#[derive(Debug)]
enum Target {
    Stdout,
    /// Opened for each line, so that a rotated or deleted file comes back by itself.
    File(PathBuf),
}

#[derive(Debug)]
struct Syslog {
    socket: UnixDatagram,
    facility: u8,
    ident: String,
}

/// The log.
#[derive(Debug)]
pub struct Log {
    /// Lines below this level are dropped; `LogLevel as u8`.
    level: AtomicU8,
    format: AtomicU8,
    timestamp: AtomicU8,
    role: AtomicU8,
    pid: AtomicU32,
    target: Target,
    syslog: Option<Syslog>,
}

impl Log {
    /// The log that `config` asks for. A syslog that can't be reached is done without.
    pub fn new(config: &Config) -> Self {
        let target = match config.logfile.as_slice() {
            b"" => Target::Stdout,
            path => Target::File(PathBuf::from(std::ffi::OsStr::from_bytes(path))),
        };
        let syslog = config.syslog_enabled.then(|| Syslog::open(config)).flatten();
        let log = Log {
            level: AtomicU8::new(0),
            format: AtomicU8::new(0),
            timestamp: AtomicU8::new(0),
            role: AtomicU8::new(Role::Primary as u8),
            pid: AtomicU32::new(std::process::id()),
            target,
            syslog,
        };
        log.configure(config);
        if config.replicaof.0.is_some() {
            log.set_role(Role::Replica);
        }
        log
    }

    /// Takes over what may change at run time: level and formats.
    pub fn configure(&self, config: &Config) {
        self.level.store(config.loglevel as u8, Relaxed);
        self.format.store(config.log_format as u8, Relaxed);
        self.timestamp.store(config.log_timestamp_format as u8, Relaxed);
    }

    /// What the next lines say of this process.
    pub fn set_role(&self, role: Role) {
        self.role.store(role as u8, Relaxed);
    }

    /// Reads the process's number anew (after a fork).
    pub fn refresh_pid(&self) {
        self.pid.store(std::process::id(), Relaxed);
    }

    /// Whether a line of this level would be written.
    #[inline]
    pub fn is_enabled(&self, level: Level) -> bool {
        configured(level) as u8 >= self.level.load(Relaxed)
    }

    /// Writes a line as another role than the process's.
    pub fn log_as(&self, role: Role, level: Level, text: &str) {
        if self.is_enabled(level) {
            self.write_line(role, level, text);
        }
    }

    /// Writes bytes as they are: the logo, reports. Dropped at `loglevel nothing`.
    pub fn raw(&self, text: &str) {
        if self.level.load(Relaxed) < LogLevel::Nothing as u8 {
            self.write(text.as_bytes());
        }
    }

    /// A line in the words of the signal handler, which has a shape of its own.
    pub fn signal_line(&self, text: &str) {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        self.raw(&format!("{}:signal-handler ({seconds}) {text}\n", self.pid.load(Relaxed)));
    }

    /// Whether lines go to standard output.
    pub fn is_stdout(&self) -> bool {
        matches!(self.target, Target::Stdout)
    }

    /// The log file, where there is one.
    pub fn file(&self) -> Option<&Path> {
        match &self.target {
            Target::Stdout => None,
            Target::File(path) => Some(path),
        }
    }

    #[cold]
    fn write_line(&self, role: Role, level: Level, text: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let local = local_time(i64::try_from(now.as_secs()).unwrap_or_default());
        let style = Style {
            format: format_from_u8(self.format.load(Relaxed)),
            timestamp: timestamp_from_u8(self.timestamp.load(Relaxed)),
        };
        let text = cut(text);
        let line = style.line(self.pid.load(Relaxed), role, level, now.as_millis(), local, text);
        self.write(line.as_bytes());
        if let Some(syslog) = &self.syslog {
            syslog.send(level, local, self.pid.load(Relaxed), text);
        }
    }

    /// A log that can't be written must not take the server down: errors are dropped here.
    fn write(&self, bytes: &[u8]) {
        let _ = match &self.target {
            Target::Stdout => {
                let mut out = std::io::stdout().lock();
                out.write_all(bytes).and_then(|()| out.flush())
            }
            Target::File(path) => OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .and_then(|mut file| file.write_all(bytes)),
        };
    }
}

impl LogSink for Log {
    fn log(&self, level: Level, text: &str) {
        if self.is_enabled(level) {
            self.write_line(Role::from_u8(self.role.load(Relaxed)), level, text);
        }
    }
}

fn configured(level: Level) -> LogLevel {
    match level {
        Level::Debug => LogLevel::Debug,
        Level::Verbose => LogLevel::Verbose,
        Level::Notice => LogLevel::Notice,
        Level::Warning => LogLevel::Warning,
    }
}

fn format_from_u8(n: u8) -> LogFormat {
    LogFormat::ALL.iter().find(|(_, f)| *f as u8 == n).map_or(LogFormat::Legacy, |(_, f)| *f)
}

fn timestamp_from_u8(n: u8) -> LogTimestamp {
    LogTimestamp::ALL.iter().find(|(_, t)| *t as u8 == n).map_or(LogTimestamp::Legacy, |(_, t)| *t)
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_MESSAGE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

fn month_name(month: u8) -> &'static str {
    MONTHS.get(usize::from(month).wrapping_sub(1)).copied().unwrap_or("???")
}

/// How a line looks.
#[derive(Clone, Copy)]
struct Style {
    format: LogFormat,
    timestamp: LogTimestamp,
}

impl Style {
    fn line(self, pid: u32, role: Role, level: Level, now_ms: u128, local: LocalTime, text: &str) -> String {
        let time = self.time(now_ms, local);
        let name = configured(level).as_str();
        match self.format {
            LogFormat::Legacy => {
                let mark = match level {
                    Level::Debug => '.',
                    Level::Verbose => '-',
                    Level::Notice => '*',
                    Level::Warning => '#',
                };
                format!("{pid}:{} {time} {mark} {text}\n", role.letter())
            }
            LogFormat::Logfmt => {
                let text: String = text.chars().map(logfmt_char).collect();
                let role = role.name();
                format!("pid={pid} role={role} timestamp=\"{time}\" level={name} message=\"{text}\"\n")
            }
            LogFormat::Json => {
                let role = role.name();
                let mut line = format!(
                    "{{\"pid\":{pid},\"role\":\"{role}\",\"timestamp\":\"{time}\",\"level\":\"{name}\",\"message\":\""
                );
                text.chars().for_each(|c| push_json(&mut line, c));
                line.push_str("\"}\n");
                line
            }
        }
    }

    fn time(self, now_ms: u128, t: LocalTime) -> String {
        let ms = now_ms % 1000;
        let LocalTime { year, month, day, hour, minute, second, offset_s } = t;
        match self.timestamp {
            LogTimestamp::Legacy => {
                let month = month_name(month);
                format!("{day:02} {month} {year} {hour:02}:{minute:02}:{second:02}.{ms:03}")
            }
            LogTimestamp::Iso8601 => {
                let sign = if offset_s < 0 { '-' } else { '+' };
                let (h, m) = (offset_s.abs() / 3600, offset_s.abs() / 60 % 60);
                format!(
                    "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}{sign}{h:02}:{m:02}"
                )
            }
            LogTimestamp::Milliseconds => now_ms.to_string(),
        }
    }
}

/// A value must stay within its quotes and on its line.
fn logfmt_char(c: char) -> char {
    match c {
        '"' => '\'',
        c if c.is_control() => ' ',
        c => c,
    }
}

fn push_json(line: &mut String, c: char) {
    match c {
        '"' => line.push_str("\\\""),
        '\\' => line.push_str("\\\\"),
        '\n' => line.push_str("\\n"),
        '\r' => line.push_str("\\r"),
        '\t' => line.push_str("\\t"),
        c if c.is_control() => {
            // Writing to a string can't fail.
            let _ = write!(line, "\\u{:04x}", u32::from(c));
        }
        c => line.push(c),
    }
}

impl Syslog {
    fn open(config: &Config) -> Option<Self> {
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect("/dev/log").ok()?;
        // A full socket must not hold up a worker.
        socket.set_nonblocking(true).ok()?;
        let facility = match config.syslog_facility {
            SyslogFacility::User => 1,
            SyslogFacility::Local0 => 16,
            SyslogFacility::Local1 => 17,
            SyslogFacility::Local2 => 18,
            SyslogFacility::Local3 => 19,
            SyslogFacility::Local4 => 20,
            SyslogFacility::Local5 => 21,
            SyslogFacility::Local6 => 22,
            SyslogFacility::Local7 => 23,
        };
        let ident = String::from_utf8_lossy(&config.syslog_ident).into_owned();
        Some(Syslog { socket, facility, ident })
    }

    fn send(&self, level: Level, local: LocalTime, pid: u32, text: &str) {
        let severity = match level {
            Level::Debug => 7,
            Level::Verbose => 6,
            Level::Notice => 5,
            Level::Warning => 4,
        };
        let LocalTime { month, day, hour, minute, second, .. } = local;
        let message = format!(
            "<{}>{} {day:2} {hour:02}:{minute:02}:{second:02} {}[{pid}]: {text}",
            self.facility * 8 + severity,
            month_name(month),
            self.ident,
        );
        let _ = self.socket.send(message.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: LocalTime =
        LocalTime { year: 2026, month: 11, day: 3, hour: 11, minute: 5, second: 22, offset_s: -5 * 3600 };

    fn line(format: LogFormat, timestamp: LogTimestamp, text: &str) -> String {
        Style { format, timestamp }.line(7, Role::Primary, Level::Warning, 1_795_450_522_007, TIME, text)
    }

    /// Shapes as the reference printed them, with our time.
    #[test]
    fn every_format() {
        use {LogFormat as F, LogTimestamp as T};
        let text = "a \"q\" b\\c\nx";
        assert_eq!(line(F::Legacy, T::Legacy, "m"), "7:M 03 Nov 2026 11:05:22.007 # m\n");
        assert_eq!(line(F::Legacy, T::Iso8601, "m"), "7:M 2026-11-03T11:05:22.007-05:00 # m\n");
        assert_eq!(line(F::Legacy, T::Milliseconds, "m"), "7:M 1795450522007 # m\n");
        assert_eq!(
            line(F::Logfmt, T::Legacy, text),
            "pid=7 role=primary timestamp=\"03 Nov 2026 11:05:22.007\" level=warning message=\"a 'q' b\\c x\"\n"
        );
        assert_eq!(
            line(F::Json, T::Milliseconds, text),
            "{\"pid\":7,\"role\":\"primary\",\"timestamp\":\"1795450522007\",\"level\":\"warning\",\
             \"message\":\"a \\\"q\\\" b\\\\c\\nx\"}\n"
        );
    }

    #[test]
    fn levels_change_while_running_and_files_come_back() {
        let path = std::env::temp_dir().join(format!("kara-log-{}", std::process::id()));
        let mut config = Config { logfile: path.as_os_str().as_bytes().to_vec(), ..Config::default() };
        let log = Log::new(&config);
        log.log(Level::Verbose, "hidden");
        log.log(Level::Notice, "first");
        std::fs::remove_file(&path).unwrap();
        config.loglevel = LogLevel::Debug;
        log.configure(&config);
        log.set_role(Role::Replica);
        log.log(Level::Debug, &"x".repeat(5000));
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains(":S ") && text.contains(" . xxx"), "{text}");
        assert_eq!(text.matches('x').count(), MAX_MESSAGE);
        config.loglevel = LogLevel::Nothing;
        log.configure(&config);
        log.log(Level::Warning, "no");
        log.raw("no");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn cutting_respects_characters() {
        let text = "é".repeat(1000);
        assert!(cut(&text).len() <= MAX_MESSAGE && text.starts_with(cut(&text)));
    }
}
