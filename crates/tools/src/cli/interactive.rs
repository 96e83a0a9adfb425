//! The prompt: lines with history, completion and hints on a terminal, plain lines elsewhere.

use super::docs::Docs;
use super::hints;
use super::session::{Exit, Session, emit, emit_line};
use super::words::{leading_number, split};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{Config, Context, Editor, Helper};
use std::borrow::Cow;
use std::cell::RefCell;
use std::io::{IsTerminal, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A reply that took longer says how long.
const SLOW: Duration = Duration::from_millis(500);

/// What completion and hints know; shared with the editor.
#[derive(Default)]
struct Knowledge {
    docs: Docs,
    hints: bool,
}

struct Assistant(Rc<RefCell<Knowledge>>);

impl Helper for Assistant {}
impl Validator for Assistant {}

impl Highlighter for Assistant {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(format!("\x1b[0;90;49m{hint}\x1b[0m"))
    }
}

impl Hinter for Assistant {
    type Hint = String;

    fn hint(&self, line: &str, at: usize, _: &Context<'_>) -> Option<String> {
        let knowledge = self.0.borrow();
        if !knowledge.hints || at < line.len() {
            return None;
        }
        let hint = hints::hint(&knowledge.docs, line.as_bytes()).filter(|hint| !hint.is_empty())?;
        let blank = if line.ends_with(char::is_whitespace) { "" } else { " " };
        Some(format!("{blank}{hint}"))
    }
}

impl Completer for Assistant {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = line.get(..at).unwrap_or_default();
        Ok(completions(&self.0.borrow().docs, typed))
    }
}

/// Where the word that is completed begins, and what it may become: commands, behind `help` groups too.
fn completions(docs: &Docs, typed: &str) -> (usize, Vec<String>) {
    let is_help = typed.get(..5).is_some_and(|head| head.eq_ignore_ascii_case("help "));
    let start = if is_help { typed.len() - typed.get(5..).unwrap_or_default().trim_start().len() } else { 0 };
    let head = typed.get(start..).unwrap_or_default().to_uppercase();
    let mut found: Vec<String> = Vec::new();
    if is_help {
        let groups = docs.groups().into_iter().map(|group| format!("@{group}"));
        found.extend(groups.filter(|group| group.to_uppercase().starts_with(&head)));
    }
    let names = docs.entries.iter().map(super::docs::Entry::name);
    found.extend(names.filter(|name| name.starts_with(&head)));
    (start, found)
}

/// Where lines come from.
enum Lines {
    Terminal(Box<Editor<Assistant, DefaultHistory>>),
    Plain(Vec<u8>),
}

/// A file in the user's home, unless the environment names another; none where it names /dev/null.
fn dotfile(variables: [&str; 2], name: &str) -> Option<PathBuf> {
    let set =
        variables.iter().find_map(|variable| std::env::var_os(variable).filter(|path| !path.is_empty()));
    match set {
        Some(path) if path == "/dev/null" => None,
        Some(path) => Some(path.into()),
        None => Some(PathBuf::from(std::env::var_os("HOME").filter(|home| !home.is_empty())?).join(name)),
    }
}

struct Prompt<'a> {
    session: &'a mut Session,
    knowledge: Rc<RefCell<Knowledge>>,
    lines: Lines,
    history: Option<PathBuf>,
}

/// Reads and runs lines until the input ends.
pub fn run(session: &mut Session) -> Result<(), Exit> {
    session.interactive = true;
    session.interrupt = interrupts();
    session.connect(false);
    let knowledge = Rc::new(RefCell::new(Knowledge { docs: Docs::default(), hints: true }));
    let mut prompt = Prompt { session, knowledge, lines: Lines::Plain(Vec::new()), history: None };
    if std::io::stdin().is_terminal() {
        prompt.knowledge.borrow_mut().docs = Docs::of(prompt.session.link.as_mut());
        prompt.prepare_terminal()?;
    }
    while let Some(line) = prompt.next_line()? {
        if !prompt.run_line(&line)? {
            return Ok(());
        }
        if prompt.session.subscribed {
            prompt.wait_for_messages_or_input()?;
        }
    }
    Ok(())
}

/// A pipe that becomes readable by Ctrl-C.
fn interrupts() -> Option<std::os::unix::net::UnixStream> {
    let (reader, writer) = std::os::unix::net::UnixStream::pair().ok()?;
    signal_hook::low_level::pipe::register(signal_hook::consts::SIGINT, writer).ok()?;
    reader.set_nonblocking(true).ok()?;
    Some(reader)
}

impl Prompt<'_> {
    fn prepare_terminal(&mut self) -> Result<(), Exit> {
        let config = Config::builder().max_history_size(1000).map(rustyline::config::Builder::build);
        let editor = config.and_then(Editor::<Assistant, DefaultHistory>::with_config);
        match editor {
            Ok(mut editor) => {
                editor.set_helper(Some(Assistant(Rc::clone(&self.knowledge))));
                self.history = dotfile(["VALKEYCLI_HISTFILE", "REDISCLI_HISTFILE"], ".valkeycli_history");
                if let Some(file) = &self.history {
                    let _ = editor.load_history(file);
                }
                self.lines = Lines::Terminal(Box::new(editor));
            }
            Err(fault) => eprintln!("no line editing: {fault}"),
        }
        let Some(file) = dotfile(["VALKEYCLI_RCFILE", "REDISCLI_RCFILE"], ".valkeyclirc") else {
            return Ok(());
        };
        for line in std::fs::read(file).unwrap_or_default().split(|byte| *byte == b'\n') {
            match split(line) {
                Some(words) if !words.is_empty() => self.set_preference(&words, ".valkeyclirc: ")?,
                _ => {}
            }
        }
        Ok(())
    }

    fn next_line(&mut self) -> Result<Option<Vec<u8>>, Exit> {
        loop {
            let shown = self.session.prompt();
            let line = match &mut self.lines {
                Lines::Terminal(editor) => match editor.readline(&shown) {
                    Ok(line) => Some(line.into_bytes()),
                    Err(ReadlineError::Interrupted | ReadlineError::Eof) => None,
                    Err(_) => return Ok(None),
                },
                Lines::Plain(unread) => plain_line(unread, self.session.interrupt.as_ref())?,
            };
            // Leaving once leaves the subscriptions first.
            if line.is_none() && self.session.subscribed && self.session.connect(false) {
                continue;
            }
            return Ok(line);
        }
    }

    /// False where the user wants to leave.
    fn run_line(&mut self, line: &[u8]) -> Result<bool, Exit> {
        if line.is_empty() {
            return Ok(true);
        }
        let Some(words) = split(line) else {
            emit_line("Invalid argument(s)")?;
            self.remember(line, false);
            return Ok(true);
        };
        let Some(first) = words.first() else { return Ok(true) };
        let (repeat, command) = match repeat_count(&words) {
            None => (1, words.as_slice()),
            Some(count) if count > 0 => (count, words.get(1..).unwrap_or_default()),
            Some(_) => {
                emit_line("Invalid valkey-cli repeat command option value.")?;
                return Ok(true);
            }
        };
        self.remember(line, is_sensitive(command));
        match first.to_ascii_lowercase().as_slice() {
            b"quit" | b"exit" => return Ok(false),
            name if name.starts_with(b":") => self.set_preference(&words, "")?,
            b"restart" => emit_line("Use 'restart' only in Lua debugging mode.")?,
            b"connect" if words.len() == 3 => {
                self.session.options.target.host = words[1].clone();
                self.session.options.target.port = leading_number(&words[2]);
                self.session.options.target.socket = None;
                self.session.connect(false);
            }
            b"clear" if words.len() == 1 => emit(b"\x1b[H\x1b[2J")?,
            _ => self.issue(command, repeat)?,
        }
        Ok(true)
    }

    fn issue(&mut self, command: &[Vec<u8>], repeat: i64) -> Result<(), Exit> {
        let name = command.first().map(|word| word.to_ascii_lowercase()).unwrap_or_default();
        if name == b"help" || name == b"?" {
            return help(
                self.session,
                Some(&self.knowledge.borrow().docs),
                command.get(1..).unwrap_or_default(),
            );
        }
        let started = Instant::now();
        self.session.issue(command, repeat)?;
        let took = started.elapsed();
        if took >= SLOW && self.session.options.output == super::options::Output::Standard {
            emit_line(&format!("({:.2}s)", took.as_secs_f64()))?;
        }
        Ok(())
    }

    /// Into the history; what holds a password stays out of the file.
    fn remember(&mut self, line: &[u8], sensitive: bool) {
        let Lines::Terminal(editor) = &mut self.lines else { return };
        let line = String::from_utf8_lossy(line).into_owned();
        if sensitive {
            return;
        }
        let _ = editor.add_history_entry(line);
        if let Some(file) = &self.history {
            let _ = editor.save_history(file);
        }
    }

    fn set_preference(&mut self, words: &[Vec<u8>], place: &str) -> Result<(), Exit> {
        let shown = |at: usize| words.get(at).map(|word| String::from_utf8_lossy(word)).unwrap_or_default();
        let lower = |at: usize| shown(at).to_lowercase();
        match (lower(0).as_str(), words.len()) {
            (":set", 2..) => match lower(1).as_str() {
                "hints" => self.knowledge.borrow_mut().hints = true,
                "nohints" => self.knowledge.borrow_mut().hints = false,
                _ => emit_line(&format!("{place}unknown valkey-cli preference '{}'", shown(1)))?,
            },
            (":get", 2..) => match lower(1).as_str() {
                "pubsub" => emit_line(&u8::from(self.session.subscribed).to_string())?,
                _ => emit_line(&format!("{place}unknown valkey-cli get option '{}'", shown(1)))?,
            },
            _ => emit_line(&format!("{place}unknown valkey-cli internal command '{}'", shown(0)))?,
        }
        Ok(())
    }

    /// Shows messages until a key is pressed.
    fn wait_for_messages_or_input(&mut self) -> Result<(), Exit> {
        let told = self.session.options.output != super::options::Output::Raw && super::is_terminal();
        let coloured = told && std::env::var("TERM").is_ok_and(|term| term.contains("xterm"));
        let _keys = KeyByKey::begin();
        while self.session.subscribed {
            self.session.drain_messages()?;
            if !self.session.subscribed {
                break;
            }
            if told {
                let (on, off) = if coloured { ("\x1b[1;90m", "\x1b[0m") } else { ("", "") };
                let text = "Reading messages... (press Ctrl-C to quit or any key to type command)\r";
                emit(format!("{on}{text}{off}").as_bytes())?;
            }
            let woken = self.wait()?;
            if told {
                emit(b"\x1b[K")?;
            }
            match woken {
                Woken::Interrupt => {
                    self.session.take_interrupt();
                    emit_line("Closing current connection. Ready to reconnect to Valkey server... ")?;
                    if !self.session.connect(false) {
                        return Err(Exit(1));
                    }
                    return Ok(());
                }
                Woken::Message => {
                    if !self.session.read_reply(false)? {
                        self.session.print_fault();
                        return Err(Exit(1));
                    }
                    self.session.note_last();
                }
                Woken::Input => return Ok(()),
                Woken::Nothing => {}
            }
        }
        Ok(())
    }

    fn wait(&self) -> Result<Woken, Exit> {
        let (Some(link), Some(interrupt)) = (&self.session.link, &self.session.interrupt) else {
            return Ok(Woken::Input);
        };
        let stdin = std::io::stdin();
        let mut polled = [interrupt.as_fd(), link.as_fd(), stdin.as_fd()]
            .map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN));
        // Lines that have been read already are input as well.
        let has_lines = matches!(&self.lines, Lines::Plain(unread) if !unread.is_empty());
        let limit = Timespec { tv_sec: if has_lines { 0 } else { 5 }, tv_nsec: 0 };
        match poll(&mut polled, Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Err(Exit(1)),
        }
        let ready = polled.map(|polled| !polled.revents().is_empty());
        Ok(match ready {
            [true, ..] => Woken::Interrupt,
            [_, true, _] => Woken::Message,
            [_, _, true] => Woken::Input,
            _ if has_lines => Woken::Input,
            _ => Woken::Nothing,
        })
    }
}

enum Woken {
    Interrupt,
    Message,
    Input,
    Nothing,
}

/// The terminal gives keys as they are pressed, without showing them; undone when dropped.
struct KeyByKey(Option<rustix::termios::Termios>);

impl KeyByKey {
    fn begin() -> KeyByKey {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let stdin = std::io::stdin();
        let Ok(before) = tcgetattr(&stdin) else { return KeyByKey(None) };
        let mut now = before.clone();
        now.local_modes -= LocalModes::ECHO | LocalModes::ICANON;
        let _ = tcsetattr(&stdin, OptionalActions::Now, &now);
        KeyByKey(Some(before))
    }
}

impl Drop for KeyByKey {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ =
                rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, before);
        }
    }
}

/// A line of standard input that is no terminal; `None` at its end.
fn plain_line(
    unread: &mut Vec<u8>,
    interrupt: Option<&std::os::unix::net::UnixStream>,
) -> Result<Option<Vec<u8>>, Exit> {
    loop {
        if let Some(end) = memchr_newline(unread) {
            let rest = unread.split_off(end + 1);
            let mut line = std::mem::replace(unread, rest);
            line.pop();
            return Ok(Some(line));
        }
        let stdin = std::io::stdin();
        if let Some(interrupt) = interrupt {
            let mut polled = [interrupt.as_fd(), stdin.as_fd()]
                .map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN));
            match poll(&mut polled, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other.map_err(|_| Exit(1))?,
            };
            if !polled[0].revents().is_empty() {
                return Err(Exit(1));
            }
        }
        let mut chunk = [0u8; 4096];
        // Past the standard library's buffer, or poll would not see what that holds.
        match std::fs::File::from(stdin.as_fd().try_clone_to_owned().map_err(|_| Exit(1))?).read(&mut chunk) {
            Ok(0) if unread.is_empty() => return Ok(None),
            Ok(0) => return Ok(Some(std::mem::take(unread))),
            Ok(count) => unread.extend_from_slice(&chunk[..count]),
            Err(fault) if fault.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return Ok(None),
        }
    }
}

fn memchr_newline(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n')
}

/// `5 incr x` runs five times: the leading number of a line with more words.
fn repeat_count(words: &[Vec<u8>]) -> Option<i64> {
    if words.len() < 2 {
        return None;
    }
    let text = std::str::from_utf8(words.first()?).ok()?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(0))
}

/// Commands that hold passwords: they don't go into the history file.
fn is_sensitive(words: &[Vec<u8>]) -> bool {
    let lower: Vec<Vec<u8>> = words.iter().map(|word| word.to_ascii_lowercase()).collect();
    let word = |at: usize| lower.get(at).map(Vec::as_slice).unwrap_or_default();
    let secret = |name: &[u8]| {
        let names: [&[u8]; 7] = [
            b"masterauth",
            b"masteruser",
            b"primaryauth",
            b"primaryuser",
            b"tls-key-file-pass",
            b"tls-client-key-file-pass",
            b"requirepass",
        ];
        names.contains(&name)
    };
    match word(0) {
        b"auth" => true,
        b"acl" => [&b"deluser"[..], b"setuser", b"getuser"].contains(&word(1)),
        b"config" if word(1) == b"set" => lower.iter().skip(2).step_by(2).any(|name| secret(name)),
        b"hello" => lower.iter().skip(2).any(|word| word == b"auth"),
        b"migrate" => {
            let options = lower.iter().skip(6).take_while(|word| *word != b"keys");
            options.into_iter().any(|word| word == b"auth" || word == b"auth2")
        }
        b"sentinel" => lower.iter().any(|word| {
            [&b"sentinel-pass"[..], b"sentinel-user", b"auth-pass", b"auth-user"].contains(&word.as_slice())
        }),
        _ => false,
    }
}

/// `help`, `help @group`, `help command`; needs no server.
pub fn help(session: &mut Session, known: Option<&Docs>, words: &[Vec<u8>]) -> Result<(), Exit> {
    let Some(first) = words.first() else {
        return emit(super::usage::INTERACTIVE_HELP.as_bytes());
    };
    let fetched;
    let docs = match known.filter(|docs| !docs.entries.is_empty()) {
        Some(docs) => docs,
        None => {
            if session.link.is_none() {
                session.connect(true);
            }
            fetched = Docs::of(session.link.as_mut());
            &fetched
        }
    };
    let group = first.strip_prefix(b"@").map(|group| String::from_utf8_lossy(group).to_lowercase());
    let mut out = String::new();
    for entry in &docs.entries {
        let wanted = match &group {
            Some(group) => entry.group == *group,
            None => {
                words.len() <= entry.words.len()
                    && words
                        .iter()
                        .zip(&entry.words)
                        .all(|(typed, own)| typed.eq_ignore_ascii_case(own.as_bytes()))
            }
        };
        if !wanted {
            continue;
        }
        out.push_str(&format!(
            "\r\n  \x1b[1m{}\x1b[0m \x1b[90m{}\x1b[0m\r\n",
            entry.name(),
            hints::synopsis(entry)
        ));
        out.push_str(&format!("  \x1b[33msummary:\x1b[0m {}\r\n", entry.summary));
        out.push_str(&format!("  \x1b[33msince:\x1b[0m {}\r\n", entry.since));
        if group.is_none() {
            out.push_str(&format!("  \x1b[33mgroup:\x1b[0m {}\r\n", entry.group));
        }
    }
    out.push_str("\r\n");
    emit(out.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<u8>> {
        split(line.as_bytes()).unwrap_or_default()
    }

    #[test]
    fn completing() {
        let docs = Docs::own(None);
        assert_eq!(completions(&docs, "getde"), (0, vec!["GETDEL".to_string()]));
        assert_eq!(completions(&docs, "help  @hyp"), (6, vec!["@hyperloglog".to_string()]));
        assert!(completions(&docs, "config g").1.contains(&"CONFIG GET".to_string()));
    }

    #[test]
    fn repeating() {
        assert_eq!(repeat_count(&words("5 incr x")), Some(5));
        assert_eq!(repeat_count(&words("-5 incr x")), Some(-5));
        assert_eq!(repeat_count(&words("5")), None);
        assert_eq!(repeat_count(&words("5x y")), None);
    }

    #[test]
    fn secrets() {
        for line in [
            "AUTH x",
            "acl setuser a on >x",
            "config set maxmemory 1 requirepass x",
            "hello 3 setname a auth u p",
            "migrate h 1 k 0 1 auth p",
            "sentinel set m auth-pass x",
        ] {
            assert!(is_sensitive(&words(line)), "{line}");
        }
        for line in ["set auth x", "config get requirepass", "migrate h 1 k 0 1 keys auth", "acl list"] {
            assert!(!is_sensitive(&words(line)), "{line}");
        }
    }
}
