//! The registry against the reference's data, and whole files against the loader.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

/// Reads a flat JSON object of strings without escapes, which is all that the golden file is.
fn golden_defaults() -> BTreeMap<String, String> {
    include_str!("../../tests/golden/config-defaults.json")
        .lines()
        .filter_map(|line| {
            let mut parts = line.split('"');
            let name = parts.nth(1)?;
            let value = parts.nth(1)?;
            Some((name.to_owned(), value.to_owned()))
        })
        .collect()
}

/// A file system of a few named texts.
#[derive(Default)]
struct Fake {
    files: BTreeMap<PathBuf, Vec<u8>>,
    defaults: Vec<u8>,
}

impl Surroundings for Fake {
    fn defaults(&mut self) -> Vec<u8> {
        self.defaults.clone()
    }

    fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        self.files.get(path).cloned().ok_or_else(|| io::Error::from_raw_os_error(2))
    }

    fn read_stdin(&mut self) -> io::Result<Vec<u8>> {
        self.read(Path::new("-"))
    }

    fn enter(&mut self, dir: &Path) -> io::Result<PathBuf> {
        if dir == Path::new("/nowhere") {
            Err(io::Error::from_raw_os_error(2))
        } else {
            Ok(dir.to_path_buf())
        }
    }

    fn matching(&mut self, _: &Path) -> Vec<PathBuf> {
        self.files.keys().filter(|path| path.extension().is_some_and(|e| e == "inc")).cloned().collect()
    }

    fn check_log_file(&mut self, path: &Path) -> io::Result<()> {
        if path.starts_with("/nowhere") { Err(io::Error::from_raw_os_error(2)) } else { Ok(()) }
    }
}

#[test]
fn defaults_of_the_environment_give_way() {
    let load_with = |defaults: &str, text: &str| {
        let mut fake = Fake { defaults: defaults.as_bytes().to_vec(), ..Fake::default() };
        fake.files.insert("-".into(), text.as_bytes().to_vec());
        load(&Sources { stdin: true, ..Sources::default() }, &mut fake)
    };
    let loaded = load_with("protected-mode no; metrics-port 9121;", "metrics-port 9000\nhz 20\n").unwrap();
    assert!(!loaded.config.protected_mode);
    assert_eq!((loaded.config.metrics_port, loaded.config.hz), (9000, 20));
    assert_eq!(load_with("metrics-port 9121", "").unwrap().config.metrics_port, 9121);
    assert!(load_with("no-such-name 1", "").is_err());
}

fn load_text(text: &str) -> Result<Loaded, LoadError> {
    let mut fake = Fake::default();
    fake.files.insert("-".into(), text.as_bytes().to_vec());
    fake.files.insert("/loop".into(), b"include /loop\n".to_vec());
    fake.files.insert("/a.inc".into(), b"hz 20\n".to_vec());
    fake.files.insert("/b.inc".into(), b"timeout 7\n".to_vec());
    load(&Sources { stdin: true, ..Sources::default() }, &mut fake)
}

fn get(store: &ConfigStore, name: &str) -> String {
    let found = store.get(&[name.as_bytes()]);
    found.first().map(|(_, value)| String::from_utf8_lossy(value).into_owned()).unwrap_or("(none)".into())
}

fn set(store: &ConfigStore, pairs: &[(&str, &str)]) -> Result<Vec<&'static str>, String> {
    let pairs: Vec<(&[u8], &[u8])> = pairs.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
    store
        .set(&pairs, SetContext::default(), &mut |_, _, _| Ok(()))
        .map(|changes| changes.names().to_vec())
        .map_err(|error| error.to_string())
}

#[test]
fn every_name_is_known_and_has_the_reference_default() {
    let golden = golden_defaults();
    assert_eq!(golden.len(), 237);
    let store = ConfigStore::default();
    let shown: BTreeMap<String, String> = store
        .get(&[b"*"])
        .into_iter()
        .map(|(name, value)| (String::from_utf8(name).unwrap(), String::from_utf8(value).unwrap()))
        .collect();
    let missing: Vec<_> = golden.keys().filter(|name| !shown.contains_key(*name)).collect();
    let extra: Vec<_> = shown.keys().filter(|name| !golden.contains_key(*name)).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing {missing:?}, extra {extra:?}");
    for (name, value) in &golden {
        // One worker per granted CPU, and the directory the test runs in.
        if name != "io-threads" && name != "dir" {
            assert_eq!(&shown[name], value, "{name}");
        }
    }
    assert_eq!(shown["io-threads"], Config::default().io_threads.to_string());
}

#[test]
fn every_default_reads_back_from_its_own_lines() {
    let config = Config::default();
    for directive in DIRECTIVES {
        for line in (directive.lines)(&config) {
            if directive.name == "rdma-bind" {
                continue;
            }
            let text = format!("{} {}\n", directive.name, String::from_utf8_lossy(&line));
            let loaded = load_text(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert!((directive.same)(&config, &loaded.config), "{text}");
        }
    }
}

#[test]
fn numbers_fit_their_fields_at_both_limits() {
    for directive in DIRECTIVES {
        let mut config = Config::default();
        let refused = (directive.assign)(&mut config, &[b"99999999999999999999"], Source::Runtime);
        let Err(_) = refused else { continue };
        let Err(reason) = (directive.assign)(&mut config, &[b"-9223372036854775808"], Source::Runtime) else {
            continue;
        };
        let Some(limits) = reason.strip_prefix("argument must be between ") else { continue };
        let (min, rest) = limits.split_once(" and ").unwrap();
        let max = rest.strip_suffix(" inclusive").unwrap();
        for limit in [min, max] {
            let result = (directive.assign)(&mut config, &[limit.as_bytes()], Source::Runtime);
            if directive.name != "rdma-port" {
                assert_eq!(result, Ok(()), "{} {limit}", directive.name);
            }
        }
    }
}

/// Rows read from the reference: name, value, and either the value read back or `!` and the reason.
#[test]
fn values_are_accepted_refused_and_shown_as_by_the_reference() {
    let rows = include_str!("../../tests/golden/config-set.tsv");
    for row in rows.lines() {
        let [name, value, want] = row.split('\t').collect::<Vec<_>>()[..] else { panic!("{row:?}") };
        let store = ConfigStore::default();
        let context = SetContext { loading: false, protected: true };
        let pair = [(name.as_bytes(), value.as_bytes())];
        let got = match store.set(&pair, context, &mut |_, _, _| Ok(())) {
            Ok(_) => format!("OK {}", get(&store, name)),
            Err(error) => error
                .to_string()
                .replace(&format!("ERR CONFIG SET failed (possibly related to argument '{name}') -"), "!"),
        };
        assert_eq!(got, want, "{name} {value:?}");
    }
    assert!(rows.lines().count() > 700);
}

#[test]
fn gaps_are_known_names() {
    for name in without_effect() {
        assert!(find(name.as_bytes()).is_some(), "{name}");
    }
}

#[test]
fn get_by_name_alias_and_pattern() {
    let store = ConfigStore::default();
    assert_eq!(store.get(&[b"TIMEOUT", b"time*", b"Timeout"]), [(b"TIMEOUT".to_vec(), b"0".to_vec())]);
    assert_eq!(get(&store, "lua-time-limit"), "5000");
    assert_eq!(store.get(&[b"*of"]).len(), 2);
    assert_eq!(get(&store, "key-load-delay"), "0");
    assert!(store.get(&[b"key-load*"]).is_empty());
    assert!(store.get(&[b"nope"]).is_empty());
}

#[test]
fn set_is_all_or_nothing() {
    let store = ConfigStore::default();
    assert_eq!(
        set(&store, &[("maxmemory", "1gb"), ("slowlog-max-len", "7")]).unwrap(),
        ["maxmemory", "commandlog-slow-execution-max-len"]
    );
    assert_eq!(store.generation(), 1);
    assert_eq!(set(&store, &[("maxmemory", "1gb")]).unwrap(), [""; 0]);
    assert_eq!(store.generation(), 1);
    let error = set(&store, &[("maxmemory", "5"), ("maxmemory-clients", "200%"), ("hz", "x")]).unwrap_err();
    assert_eq!(
        error,
        "ERR CONFIG SET failed (possibly related to argument 'maxmemory-clients') - percentage argument must be less or equal to 100"
    );
    assert_eq!(get(&store, "maxmemory"), "1073741824");
    for (pairs, want) in [
        (vec![("a", "b")], "ERR Unknown option or number of arguments for CONFIG SET - 'a'"),
        (
            vec![("hz", "1"), ("HZ", "2")],
            "ERR CONFIG SET failed (possibly related to argument 'HZ') - duplicate parameter",
        ),
        (
            vec![("port", "x"), ("daemonize", "no")],
            "ERR CONFIG SET failed (possibly related to argument 'daemonize') - can't set immutable config",
        ),
        (
            vec![("dbfilename", "x")],
            "ERR CONFIG SET failed (possibly related to argument 'dbfilename') - can't set protected config",
        ),
        (
            vec![("TIMEOUT", "x")],
            "ERR CONFIG SET failed (possibly related to argument 'timeout') - argument couldn't be parsed into an integer",
        ),
    ] {
        assert_eq!(set(&store, &pairs).unwrap_err(), want);
    }
    assert_eq!(
        set(&store, &[("slowlog-max-len", "10"), ("commandlog-slow-execution-max-len", "11")]).unwrap().len(),
        1
    );
    assert_eq!(get(&store, "slowlog-max-len"), "11");
}

#[test]
fn a_failed_apply_is_rolled_back() {
    let store = ConfigStore::default();
    let mut ports = Vec::new();
    let result =
        store.set(&[(b"port", b"7"), (b"hz", b"20")], SetContext::default(), &mut |old, new, changes| {
            assert!(changes.contains("port") && changes.contains_any(&["hz"]));
            ports.push((old.port, new.port));
            Err(ApplyError { name: "port", reason: "Unable to listen on this port".into() })
        });
    assert_eq!(
        result.unwrap_err().to_string(),
        "ERR CONFIG SET failed (possibly related to argument 'port') - Unable to listen on this port"
    );
    assert_eq!(ports, [(6379, 7), (7, 6379)]);
    assert_eq!(store.load().hz, 10);
}

#[test]
fn loading_refuses_what_loading_needs() {
    let store = ConfigStore::default();
    let context = SetContext { loading: true, protected: true };
    let result = store.set(&[(b"appendonly", b"yes")], context, &mut |_, _, _| Ok(()));
    assert_eq!(result.unwrap_err().to_string(), "LOADING Valkey is loading the dataset in memory");
}

#[test]
fn save_lines_replace_the_built_in_rules_and_add_up() {
    let save = |text: &str| get(&ConfigStore::from_loaded(&load_text(text).unwrap()), "save");
    assert_eq!(save(""), "3600 1 300 100 60 10000");
    assert_eq!(save("save 900 1\nsave 100 100\n"), "900 1 100 100");
    assert_eq!(save("save 900 1\nsave ''\n"), "");
    assert_eq!(save("save ''\nsave '5 1'\n"), "5 1");
    assert_eq!(save("save 7 8 9 10\n"), "7 8 9 10");
    assert_eq!(save("save\n"), "");
}

#[test]
fn lines_with_faults() {
    for (text, number, reason) in [
        ("badopt\n", 1, "Bad directive or wrong number of arguments"),
        ("\n# x\nmaxmemory abc\n", 3, "argument must be a memory value"),
        ("maxmemory\n", 1, "wrong number of arguments"),
        ("requirepass a b\n", 1, "wrong number of arguments"),
        ("requirepass 'a\n", 1, "Unbalanced quotes in configuration line"),
        ("sentinel a b\n", 1, "sentinel directive while not in sentinel mode"),
        ("save 1\n", 1, "Invalid save parameters"),
        ("save '5 1' 7 8\n", 1, "Invalid save parameters"),
        ("replicaof a b\n", 1, "Invalid primary port"),
        ("replicaof a\n", 1, "wrong number of arguments"),
        ("dir /nowhere\n", 1, "No such file or directory"),
        ("dir ''\n", 1, "dir can't be empty"),
        ("'' a\n", 1, "Bad directive or wrong number of arguments"),
        ("unixsocketperm 999\n", 1, "argument couldn't be parsed as an octal number"),
        ("unixsocketperm 1000\n", 1, "argument must be between 0 and 777 inclusive"),
        ("unixsocketperm -1\n", 1, "argument must be between 0 and 777 inclusive"),
        ("appenddirname a/b\n", 1, "appenddirname can't be a path, just a dirname"),
        ("notify-keyspace-events\n", 1, "wrong number of arguments"),
        ("include /loop\n", 1, "Too many nested include directives"),
        (
            "shutdown-on-sigterm\n",
            1,
            "argument(s) must be one of the following: default, save, nosave, now, force, safe, failover",
        ),
    ] {
        match load_text(text) {
            Err(LoadError::Line { line, reason: got }) => {
                assert_eq!((line.number, got.as_str()), (number, reason), "{text}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    let error = load_text("maxmemory abc\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "\n*** FATAL CONFIG FILE ERROR (Version 9.1.2) ***\nReading the configuration file, at line 1\n\
         >>> 'maxmemory abc'\nargument must be a memory value\n"
    );
    assert_eq!(
        load_text("cluster-enabled yes\nreplicaof a 1\n").unwrap_err(),
        LoadError::Whole("replicaof directive not allowed in cluster mode".into())
    );
    assert_eq!(
        load_text("logfile /nowhere/x\n").unwrap_err(),
        LoadError::Whole("Can't open the log file: No such file or directory".into())
    );
    assert_eq!(
        load_text("include /missing\n").unwrap_err().to_string(),
        "Fatal error, can't open config file '/missing': No such file or directory"
    );
}

#[test]
fn lines_for_other_parts_and_includes() {
    let loaded = load_text(
        "include /*.inc\nuser alice on >x\nrename-command FLUSHALL ''\nloadmodule /x y\nslaveof 'a 5'\n\
         lua-replicate-commands yes\nbind 127.0.0.1 -::1\nPORT 7\n\"hz\" 30\nsentinel\n",
    )
    .unwrap();
    assert_eq!(loaded.users[0].words.len(), 3);
    assert_eq!(loaded.users[0].line.number, 2);
    assert_eq!(loaded.renames[0].words, [b"FLUSHALL".to_vec(), Vec::new()]);
    assert_eq!(loaded.modules[0].words[0], b"/x");
    let config = &loaded.config;
    assert_eq!(config.replicaof.0, Some((b"a".to_vec(), 5)));
    assert_eq!((config.timeout, config.hz, config.port), (7, 30, 7));
    assert_eq!(config.bind.0, [b"127.0.0.1".to_vec(), b"-::1".to_vec()]);
}

#[test]
fn rewriting_keeps_what_stands_there() {
    let old = "# a comment\nport 28764\nmaxmemory 1gb\n\n  # indented\ntimeout 5\ntimeout 6\nsave 100 1\n\
               save 200 2\nclient-output-buffer-limit normal 1 2 3\nrequirepass \"a b\\x01\"\nslaveof 1.2.3.4 5\n\
               lua-time-limit 700\nrename-command FLUSHALL \"\"\nuser alice on >x ~* +@all\n";
    let mut config = load_text(old).unwrap().config;
    let mut assign = |name: &str, words: &[&str]| {
        let words: Vec<&[u8]> = words.iter().map(|w| w.as_bytes()).collect();
        (find(name.as_bytes()).unwrap().assign)(&mut config, &words, Source::Runtime).unwrap();
    };
    assign("timeout", &["0"]);
    assign("save", &["5", "6"]);
    assign("notify-keyspace-events", &["KEA"]);
    assign("shutdown-on-sigterm", &["now", "nosave"]);
    assign("maxmemory", &["1000000"]);
    assign("repl-backlog-size", &["1000kb"]);
    assign("client-output-buffer-limit", &["slave", "1", "2", "3"]);
    assign("maxmemory-clients", &["5%"]);
    assign("requirepass", &["q w\"e"]);
    assign("dir", &["/x"]);
    let users = [b"alice on #1 ~* +@all".to_vec(), b"default on nopass".to_vec()];
    let new = rewrite::rewritten(old.as_bytes(), &config, Some(&users), false);
    let want = "# a comment\nport 28764\nmaxmemory 1000000\n\n# indented\ntimeout 0\nsave 5 6\n\
                client-output-buffer-limit normal 1 2 3\nrequirepass \"q w\\\"e\"\nreplicaof 1.2.3.4 5\n\
                busy-reply-threshold 700\nrename-command FLUSHALL \"\"\nuser alice on #1 ~* +@all\n\n\
                # Generated by CONFIG REWRITE\nclient-output-buffer-limit replica 1 2 3\ndir \"/x\"\n\
                maxmemory-clients 5%\nnotify-keyspace-events \"AKE\"\nrepl-backlog-size 1000kb\n\
                shutdown-on-sigterm nosave now\nuser default on nopass\n";
    assert_eq!(String::from_utf8(new.clone()).unwrap(), want);
    // A second time nothing moves.
    assert_eq!(rewrite::rewritten(&new, &config, Some(&users), false), new);
    let all = rewrite::rewritten(&new, &config, Some(&users), true);
    let mut fake = Fake::default();
    fake.files.insert("-".into(), all);
    let again = load(&Sources { stdin: true, ..Sources::default() }, &mut fake).unwrap().config;
    assert_eq!(again, config);
}

#[test]
fn rewriting_replaces_the_file() {
    let dir = std::env::temp_dir().join(format!("kara-config-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("a.conf");
    std::fs::write(&path, "hz 20\n").unwrap();
    let store = ConfigStore::new(Config { hz: 30, ..Config::default() }, Some(path.clone()));
    store.rewrite(None, false).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("hz 30\n\n# Generated by CONFIG REWRITE\n"), "{text}");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    std::fs::remove_dir_all(&dir).unwrap();
    let without = ConfigStore::default().rewrite(None, false).unwrap_err();
    assert_eq!(without.to_string(), "The server is running without a config file");
}

proptest! {
    #[test]
    fn any_text_loads_or_is_refused(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut fake = Fake::default();
        fake.files.insert("-".into(), text);
        let _ = load(&Sources { stdin: true, ..Sources::default() }, &mut fake);
    }

    #[test]
    fn any_value_of_any_directive(
        index in 0..DIRECTIVES.len(),
        value in "[-+a-zA-Z0-9 .%{}'\"\\\\]{0,24}|\\PC{0,12}|-?[0-9]{1,25}(kb|mb|gb|%)?",
    ) {
        let store = ConfigStore::default();
        let name = DIRECTIVES[index].name;
        let context = SetContext { loading: false, protected: true };
        let pair = [(name.as_bytes(), value.as_bytes())];
        if store.set(&pair, context, &mut |_, _, _| Ok(())).is_ok() {
            // What is shown can be set again and means the same; `save` at 32 bits is the one that may not.
            let shown = get(&store, name);
            let before = store.load();
            if name != "save" {
                store.set(&[(name.as_bytes(), shown.as_bytes())], context, &mut |_, _, _| Ok(())).unwrap();
                prop_assert_eq!(&*before, &*store.load(), "{} {:?}", name, value);
            }
            let text = rewrite::rewritten(b"", &before, None, false);
            let mut fake = Fake::default();
            fake.files.insert("-".into(), text.clone());
            let again = load(&Sources { stdin: true, ..Sources::default() }, &mut fake);
            // One quoted word of a list is split again when it is read; no such address can be bound.
            if name != "save" && name != "dir" && name != "logfile" && !name.ends_with("bind") {
                prop_assert!((DIRECTIVES[index].same)(&again.unwrap().config, &before), "{} {:?}", name, value);
            }
        }
    }
}
