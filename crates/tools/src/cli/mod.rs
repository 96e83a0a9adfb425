//! `kara-cli`: one command and its reply, a prompt, and the modes that watch a server or carry data.

mod docs;
mod format;
mod hints;
mod interactive;
mod keys;
pub mod link;
pub mod options;
mod pipe;
mod replica;
mod session;
pub mod uri;
pub mod usage;
mod watch;
mod words;

use options::{Options, Refusal};
use session::{Exit, Session, emit, emit_line};
use std::io::{IsTerminal, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::ExitCode;

/// Whether a person reads the output. The variable is the reference's own way to test what people see.
fn is_terminal() -> bool {
    std::io::stdout().is_terminal() || std::env::var_os("FAKETTY").is_some()
}

/// The program.
pub fn main(args: &[Vec<u8>]) -> ExitCode {
    if args.first().is_some_and(|word| word == b"migrate") {
        return crate::migrate::main(args.get(1..).unwrap_or_default());
    }
    let environment = |name: &str| std::env::var_os(name).map(OsStringExt::into_vec);
    let options = match Options::parse(args, is_terminal(), environment) {
        Ok(options) => options,
        Err(refusal) => return refuse(&refusal),
    };
    match run(options, args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Exit(code)) => ExitCode::from(code),
    }
}

fn refuse(refusal: &Refusal) -> ExitCode {
    match refusal {
        Refusal::Help => print!("{}", usage::USAGE),
        Refusal::Version => println!("valkey-cli {}", usage::VERSION),
        Refusal::Wrong(message) => {
            eprintln!("{message}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn run(mut options: Options, args: &[Vec<u8>]) -> Result<(), Exit> {
    let from_arguments =
        |word: &Vec<u8>| matches!(word.as_slice(), b"-a" | b"--pass") || word.contains(&b'@');
    let before_command = args.len().saturating_sub(options.command.len());
    let typed = args.get(..before_command).unwrap_or_default();
    if options.target.password.is_some() && !options.no_auth_warning && typed.iter().any(from_arguments) {
        eprintln!(
            "Warning: Using a password with '-a' or '-u' option on the command line interface may not be safe."
        );
    }
    if options.askpass {
        options.target.password = Some(ask_password("Please input password: ")?);
    }
    let modes = options.modes.clone();
    let mut session = Session::new(options);
    if let Some(seconds) = modes.intrinsic_latency_s {
        return watch::intrinsic_latency(seconds);
    }
    if let Some(line) = &modes.test_hint {
        session.connect(true);
        let docs = docs::Docs::of(session.link.as_mut());
        return emit_line(&hints::hint(&docs, line).unwrap_or_else(|| "(null)".into()));
    }
    if let Some(file) = &modes.test_hint_file {
        session.connect(true);
        let docs = docs::Docs::of(session.link.as_mut());
        return test_hints(&docs, file, session.options.verbose);
    }
    if let Some(outcome) = run_mode(&mut session, &modes) {
        return outcome;
    }
    let command = session.options.command.clone();
    if let Some(file) = &modes.eval {
        connected(&mut session)?;
        return eval(&mut session, file, command);
    }
    if command.is_empty() {
        return interactive::run(&mut session);
    }
    session.connect(true);
    one_command(&mut session, command)
}

fn connected(session: &mut Session) -> Result<(), Exit> {
    if session.connect(false) { Ok(()) } else { Err(Exit(1)) }
}

/// What was asked for instead of commands, if anything.
fn run_mode(session: &mut Session, modes: &options::Modes) -> Option<Result<(), Exit>> {
    let plain = options::Modes { eval: modes.eval.clone(), ..options::Modes::default() };
    if *modes == plain {
        return None;
    }
    if let Err(exit) = connected(session) {
        return Some(Err(exit));
    }
    if modes.latency {
        return Some(watch::latency(session));
    }
    if modes.replica {
        return Some(replica::run(session));
    }
    if let Some(file) = &modes.rdb {
        return Some(replica::fetch(session, file, false));
    }
    if let Some(file) = &modes.functions_rdb {
        return Some(replica::fetch(session, file, true));
    }
    if modes.stat {
        return Some(watch::stat(session));
    }
    let options = session.options.clone();
    let link = session.link.as_mut()?;
    Some(if modes.pipe {
        pipe::run(link, options.pipe_timeout_s)
    } else if modes.bigkeys {
        keys::big(link, &options, None)
    } else if let Some(samples) = modes.memkeys {
        keys::big(link, &options, Some(samples))
    } else if let Some(count) = modes.hotkeys {
        keys::hot(link, &options, count)
    } else {
        keys::scan(link, &options)
    })
}

fn one_command(session: &mut Session, mut words: Vec<Vec<u8>>) -> Result<(), Exit> {
    if session.options.quoted_input {
        let unquoted: Option<Vec<_>> = words.iter().map(|word| words::unquote(word)).collect();
        match unquoted {
            Some(unquoted) => words = unquoted,
            None => {
                emit_line("Invalid quoted string")?;
                return Err(Exit(1));
            }
        }
    }
    if session.options.last_from_stdin {
        words.push(standard_input()?);
    } else if let Some(tag) = &session.options.tag_from_stdin {
        match words.iter_mut().find(|word| *word == tag) {
            Some(word) => *word = standard_input()?,
            None => {
                eprintln!("Using -X option but stdin tag not match.");
                return Err(Exit(1));
            }
        }
    }
    let is_help = words.first().is_some_and(|word| word.eq_ignore_ascii_case(b"help") || word == b"?");
    if is_help {
        return interactive::help(session, None, words.get(1..).unwrap_or_default());
    }
    let repeat = session.options.repeat;
    let sent = session.issue(&words, repeat)?;
    session.follow_messages()?;
    if sent { Ok(()) } else { Err(Exit(1)) }
}

fn standard_input() -> Result<Vec<u8>, Exit> {
    let mut text = Vec::new();
    match std::io::stdin().read_to_end(&mut text) {
        Ok(_) => Ok(text),
        Err(fault) => {
            eprintln!("Reading from standard input: {}", link::plain_text(&fault));
            Err(Exit(1))
        }
    }
}

/// `--eval FILE key ... , argument ...`
fn eval(session: &mut Session, file: &[u8], words: Vec<Vec<u8>>) -> Result<(), Exit> {
    let script = std::fs::read(std::ffi::OsStr::from_bytes(file)).map_err(|fault| {
        eprintln!("Can't open file '{}': {}", String::from_utf8_lossy(file), link::plain_text(&fault));
        Exit(1)
    })?;
    let comma = words.iter().position(|word| word == b",");
    let keys = comma.unwrap_or(words.len());
    let mut command = vec![b"EVAL".to_vec(), script, keys.to_string().into_bytes()];
    let is_comma = |at: usize| Some(at) == comma;
    command.extend(words.into_iter().enumerate().filter(|(at, _)| !is_comma(*at)).map(|(_, word)| word));
    let repeat = session.options.repeat;
    if session.issue(&command, repeat)? { Ok(()) } else { Err(Exit(1)) }
}

/// A line that isn't shown while it is typed.
fn ask_password(question: &str) -> Result<Vec<u8>, Exit> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    emit(question.as_bytes())?;
    let stdin = std::io::stdin();
    let before = tcgetattr(&stdin).ok();
    if let Some(before) = &before {
        let mut hidden = before.clone();
        hidden.local_modes -= LocalModes::ECHO;
        let _ = tcsetattr(&stdin, OptionalActions::Now, &hidden);
    }
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    if let Some(before) = &before {
        let _ = tcsetattr(&stdin, OptionalActions::Now, before);
        emit(b"\n")?;
    }
    read.map_err(|_| Exit(1))?;
    Ok(line.trim_end_matches(['\r', '\n']).as_bytes().to_vec())
}

/// A file with a half-typed line and its hint on each line; tells which differ.
fn test_hints(docs: &docs::Docs, file: &[u8], verbose: bool) -> Result<(), Exit> {
    let text = std::fs::read(std::ffi::OsStr::from_bytes(file)).map_err(|fault| {
        eprintln!("Can't open file '{}': {}", String::from_utf8_lossy(file), link::plain_text(&fault));
        Exit(255)
    })?;
    let (mut passed, mut failed) = (0u32, 0u32);
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"#")) {
        // The reference's own file holds words that stick to a quote.
        let Ok(words) = kara_base::text::split_args(line) else { continue };
        let [typed, wanted, ..] = words.as_slice() else { continue };
        let hint = hints::hint(docs, typed).unwrap_or_else(|| "(null)".into());
        let (typed, wanted) = (String::from_utf8_lossy(typed), String::from_utf8_lossy(wanted));
        if verbose {
            emit_line(&format!("Input: '{typed}', Expected: '{wanted}', Hint: '{hint}'"))?;
        }
        if hint.trim_end() == wanted {
            passed += 1;
        } else {
            eprintln!("Test case '{typed}' FAILED: expected '{wanted}', got '{hint}'");
            failed += 1;
        }
    }
    let verdict = if failed == 0 { "SUCCESS" } else { "FAILURE" };
    emit_line(&format!("{verdict}: {passed}/{} passed", passed + failed))?;
    if failed == 0 { Ok(()) } else { Err(Exit(u8::try_from(failed).unwrap_or(255))) }
}
