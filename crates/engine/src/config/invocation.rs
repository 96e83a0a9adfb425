//! The command line: what the program is asked to do, and the configuration lines that its flags amount to.

use kara_base::text::{push_quoted, split_args};

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// `-v`, `--version`
    Version,
    /// `-h`, `--help`
    Help,
    /// `--check-system`
    CheckSystem,
    /// `--test-memory <megabytes>`; None: the argument is missing.
    TestMemory(Option<Vec<u8>>),
    /// Start the server.
    Run(Sources),
}

/// Where the configuration comes from, in the order in which it is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The file named first on the command line.
    pub file: Option<Vec<u8>>,
    /// The last argument is `-`: more lines follow on standard input.
    pub stdin: bool,
    /// The flags, as lines of a configuration file.
    pub options: Vec<u8>,
    /// `--sentinel` stands among the arguments.
    pub sentinel: bool,
}

/// Reads the arguments behind the program's name.
pub fn invocation(args: &[Vec<u8>]) -> Invocation {
    match args.first().map(Vec::as_slice) {
        Some(b"-v" | b"--version") => return Invocation::Version,
        Some(b"-h" | b"--help") => return Invocation::Help,
        Some(b"--check-system") => return Invocation::CheckSystem,
        Some(b"--test-memory") => {
            return Invocation::TestMemory(if args.len() == 2 { args.get(1).cloned() } else { None });
        }
        _ => {}
    }
    let sentinel = args.iter().any(|arg| arg == b"--sentinel");
    let (file, flags) = match args.split_first() {
        Some((first, rest)) if !first.starts_with(b"-") => {
            (Some(first.clone()).filter(|name| !name.is_empty()), rest)
        }
        _ => (None, args),
    };
    let (stdin, flags) = match flags.split_last() {
        Some((last, rest)) if last == b"-" => (true, rest),
        _ => (false, flags),
    };
    Invocation::Run(Sources { file, stdin, options: option_lines(flags), sentinel })
}

/// Turns `--name value ...` into lines. The word after a name is its value even if it starts with `--`; a second
/// such word starts the next option.
fn option_lines(flags: &[Vec<u8>]) -> Vec<u8> {
    let mut lines = Vec::new();
    // Whether the option at hand has what it needs, so that `--` starts the next one.
    let mut complete = true;
    for (index, arg) in flags.iter().enumerate() {
        let name = arg.strip_prefix(b"--").filter(|_| complete);
        let Some(name) = name else {
            push_quoted(&mut lines, arg);
            lines.push(b' ');
            complete = true;
            continue;
        };
        if !lines.is_empty() {
            lines.push(b'\n');
        }
        lines.extend_from_slice(name);
        lines.push(b' ');
        let alone = split_args(name).is_ok_and(|words| words.len() == 1);
        let bare_next = flags.get(index + 1).is_none_or(|next| next.starts_with(b"--"));
        if name.eq_ignore_ascii_case(b"save") && bare_next {
            lines.extend_from_slice(b"\"\"");
            complete = true;
        } else {
            complete = !alone || name.eq_ignore_ascii_case(b"sentinel");
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Sources {
        let args: Vec<Vec<u8>> = args.iter().map(|a| a.as_bytes().to_vec()).collect();
        match invocation(&args) {
            Invocation::Run(sources) => sources,
            other => panic!("{other:?}"),
        }
    }

    fn lines(args: &[&str]) -> Vec<String> {
        String::from_utf8(run(args).options).unwrap().split('\n').map(|line| line.trim().to_owned()).collect()
    }

    #[test]
    fn flags_become_lines() {
        assert_eq!(lines(&["--port", "6379", "6380"]), [r#"port "6379" "6380""#]);
        assert_eq!(lines(&["--port", "--loglevel", "verbose"]), [r#"port "--loglevel" "verbose""#]);
        assert_eq!(
            lines(&["--logfile", "--my--log--file", "--loglevel", "--bla"]),
            [r#"logfile "--my--log--file""#, r#"loglevel "--bla""#]
        );
        assert_eq!(lines(&["--maxmemory 700mb", "--hz 5"]), ["maxmemory 700mb", "hz 5"]);
        assert_eq!(lines(&["--save", "--loglevel", "verbose"]), [r#"save """#, r#"loglevel "verbose""#]);
        assert_eq!(lines(&["--hz", "5", "--save"]), [r#"hz "5""#, r#"save """#]);
        assert_eq!(
            lines(&["--proc-title-template", "--save", "--save", "", "--hz", "5"]),
            [r#"proc-title-template "--save""#, r#"save """#, r#"hz "5""#]
        );
        assert_eq!(lines(&["--replicaof", "--127.0.0.1", "--abc"]), [r#"replicaof "--127.0.0.1""#, "abc"]);
    }

    #[test]
    fn file_and_stdin() {
        let sources = run(&["a.conf", "--hz", "5", "-"]);
        assert_eq!(sources.file.as_deref(), Some(b"a.conf".as_slice()));
        assert!(sources.stdin);
        assert_eq!(sources.options, b"hz \"5\" ");
        assert!(run(&["-"]).stdin);
        assert_eq!(run(&[""]).file, None);
        assert!(run(&["a.conf", "--sentinel"]).sentinel);
        assert_eq!(invocation(&[b"-v".to_vec(), b"x".to_vec()]), Invocation::Version);
        assert_eq!(invocation(&[b"--test-memory".to_vec()]), Invocation::TestMemory(None));
    }
}
