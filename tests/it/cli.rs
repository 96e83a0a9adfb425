//! Our client beside the reference's, against the same server (9.1.2; the client is 8.1.8's): what they print, to which output, and how they end, byte
//! for byte.

use kara_tests::{Server, tools};
use std::process::Command;

/// Every kind of value, with bytes that want quoting.
const DATA: &str = r#"flushall
set s hello
set bin "a\x00\xffb\n\"q\\"
set number 12
rpush l a b c d e f g h i j
hset h f v g "w\t"
hset one 1 One
hset odd "K\x00\x01ey" "V\x00\x01alue"
sadd st only
zadd z 1.5 a 2 b
xadd x 1-1 f v
set ttl v px 100000000
"#;

/// Commands whose replies don't change by being asked for.
const COMMANDS: &str = r#"get s
get bin
get none
lrange l 0 -1
lrange none 0 -1
hgetall h
hgetall none
hgetall odd
smembers st
zrange z 0 -1 withscores
zscore z a
xrange x - +
xinfo stream x
nosuch x
get
set s
command info get
ping
echo "a b\t\"c"
config get maxmemory*
cluster nodes
memory doctor
latency doctor
info nosection
object encoding l
acl whoami
debug protocol string
debug protocol integer
debug protocol double
debug protocol null
debug protocol array
debug protocol set
debug protocol map
debug protocol verbatim
debug protocol true
debug protocol false
eval "return {1,{2,3,{}},'x',{err='boo'},false}" 0
eval "return redis.error_reply('CODE text')" 0
multi
get s
hgetall h
discard
multi
exec
select 3
get s
select 0
2 get s
0 get s
unknown "quote
get ""s
get 's's
:set hints
:set what
:get pubsub
:get what
:what
restart
subscribe a b
ping
unsubscribe a b
ssubscribe c
sunsubscribe
get s
"#;

const TERMINAL: (&str, &str) = ("FAKETTY", "1");

fn run(mut command: Command, port: u16, args: &[&str], environment: &[(&str, &str)], input: &str) -> String {
    command.env_remove("REDISCLI_AUTH").env("TERM", "dumb");
    if !args.iter().any(|arg| ["-p", "-u", "-s"].contains(arg)) {
        command.args(["-p", &port.to_string()]);
    }
    let output = tools::with_input(command.args(args).envs(environment.iter().copied()), input.as_bytes());
    format!(
        "{}\n--- stdout\n{}\n--- stderr\n{}",
        output.status,
        output.stdout.escape_ascii().to_string().replace("\\n", "\n"),
        output.stderr.escape_ascii().to_string().replace("\\n", "\n")
    )
}

/// The reference behind both clients: a difference is the client's.
fn filled() -> Server {
    let server = Server::reference(&[]);
    run(tools::reference_cli(), server.port(), &[], &[], DATA);
    server
}

fn same(server: &Server, args: &[&str], environment: &[(&str, &str)], input: &str) -> Option<String> {
    let wanted = run(tools::reference_cli(), server.port(), args, environment, input);
    let said = run(tools::own("kara-cli"), server.port(), args, environment, input);
    (wanted != said).then(|| format!("{args:?} {environment:?}\nthe reference:\n{wanted}\nours:\n{said}\n"))
}

#[test]
fn replies_look_as_the_references_in_every_form() {
    let server = filled();
    let forms: &[&[&str]] = &[
        &[],
        &["--raw"],
        &["--no-raw"],
        &["--csv"],
        &["--json"],
        &["--quoted-json"],
        &["-3"],
        &["-3", "--no-raw"],
        &["-3", "--csv"],
        &["-2", "--json"],
        &["-3", "--quoted-json"],
        &["-d", ", "],
        &["-D", ";"],
        &["-3", "-d", "|", "-D", ""],
        &["-e"],
        &["--no-raw", "--show-pushes", "no", "-3"],
    ];
    let mut faults = Vec::new();
    for form in forms {
        for environment in [&[][..], &[TERMINAL]] {
            faults.extend(same(&server, form, environment, COMMANDS));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Arguments, what stands on standard input, and whether a terminal is feigned.
type Invocation<'a> = (&'a [&'a str], &'a str, bool);

#[test]
fn invocations_end_as_the_references() {
    let server = filled();
    let port = server.port();
    let script = server.folder().join("a.lua");
    std::fs::write(&script, "return {KEYS[1], KEYS[2], ARGV[1]}").expect("a script");
    let script = script.to_string_lossy().into_owned();
    let [at_db, as_user, nowhere] =
        ["valkey://127.0.0.1:PORT/3", "redis://u:p%40@127.0.0.1:PORT", "valkey://[::1]:1/0"]
            .map(|uri| uri.replace("PORT", &port.to_string()));
    let table: &[Invocation<'_>] = &[
        (&["-x", "set", "k"], "from stdin\n", false),
        (&["get", "k"], "", false),
        (&["-X", "tag", "set", "k2", "tag"], "tagged", true),
        (&["get", "k2"], "", true),
        (&["-X", "tag", "set", "k2", "other"], "tagged", false),
        (&["-x", "-X", "tag"], "", false),
        (&["-X"], "", false),
        (&["--nosuch"], "", false),
        (&["-p", "70000", "ping"], "", false),
        (&["-p", "1", "ping"], "", false),
        (&["-t", "x", "ping"], "", false),
        (&["-t", "1", "ping"], "", false),
        (&["-n", "3", "set", "a", "1"], "", false),
        (&["-n", "99", "get", "a"], "", false),
        (&["-u", &at_db, "get", "a"], "", false),
        (&["-u", &as_user, "get", "s"], "", false),
        (&["-u", &nowhere, "get", "s"], "", false),
        (&["-u", "http://x", "ping"], "", false),
        (&["-s", "/no/such.sock", "ping"], "", false),
        (&["-h", "no.such.host.invalid", "ping"], "", false),
        (&["-a", "wrong", "ping"], "", false),
        (&["--no-auth-warning", "--user", "x", "--pass", "wrong", "ping"], "", false),
        (&["-r", "3", "get", "s"], "", false),
        (&["-r", "2", "-i", "0.01", "get", "s"], "", true),
        (&["-r", "0", "get", "s"], "", false),
        (&["--quoted-input", "get", "\"\\x73\""], "", false),
        (&["--quoted-input", "get", "\"s"], "", false),
        (&["--quoted-input", "get", "\"a\" \"b\""], "", false),
        (&["--scan"], "", false),
        (&["--scan"], "", true),
        (&["--scan", "--pattern", "*s*"], "", false),
        (&["--scan", "--quoted-pattern", "\"\\x73\""], "", false),
        (&["--scan", "--quoted-pattern", "\"s"], "", false),
        (&["--scan", "--count", "1000"], "", false),
        (&["--pipe"], "*1\r\n$4\r\nPING\r\nSET a 1\r\nNOSUCH\r\n", false),
        (&["--pipe"], "*1\r\n$4\r\nPING\r\n", false),
        (&["--pipe"], "", false),
        (&["--eval", &script, "k1", "k2", ",", "a1"], "", false),
        (&["--eval", "/no/such.lua"], "", false),
        (&["--bigkeys"], "", false),
        (&["--memkeys"], "", false),
        (&["--memkeys-samples", "5"], "", false),
        (&["--hotkeys"], "", false),
        (&["help", "get"], "", false),
        (&["help", "xadd"], "", true),
        (&["help", "nosuch"], "", false),
        (&["-c", "get", "s"], "", false),
        (&["-c", "-s", "x", "get"], "", false),
        (&["-2", "-3", "get"], "", false),
        (&["-4", "-6", "get"], "", false),
        (&["--rdb", "x", "--functions-rdb", "y"], "", false),
        (&["-3", "--no-raw", "client", "tracking", "on"], "", false),
        (&["-e", "nosuch"], "", false),
        (&["-e", "get", "s"], "", false),
        (&["nosuch"], "", true),
    ];
    let mut faults = Vec::new();
    for (args, input, terminal) in table {
        let environment: &[(&str, &str)] = if *terminal { &[TERMINAL] } else { &[] };
        let compare = || same(&server, args, environment, input);
        let mut fault = compare();
        if args[0].ends_with("keys") || args[0] == "--memkeys-samples" {
            // Between the two calls the reference may have rehashed: then it scans in another order, once.
            fault = fault.and_then(|_| compare()).and_then(|_| compare());
        }
        faults.extend(fault);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Both names of the variable, and only where no argument says otherwise.
#[test]
fn the_password_comes_from_the_environment() {
    let server = Server::start(&["--requirepass", "secret"]);
    for (name, value, wanted) in [
        ("REDISCLI_AUTH", "secret", "PONG\n"),
        ("VALKEYCLI_AUTH", "secret", "PONG\n"),
        ("VALKEYCLI_AUTH", "no", ""),
    ] {
        let mut command = tools::own("valkey-cli");
        command.args(["-p", &server.port().to_string(), "ping"]).env(name, value);
        let output = tools::with_input(&mut command, b"");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            if wanted.is_empty() { said.starts_with("NOAUTH") } else { said == wanted },
            "{name} {value}: {said}"
        );
    }
    let environment = [("VALKEYCLI_HOST", "127.0.0.1"), ("VALKEYCLI_PORT", &server.port().to_string())];
    let mut command = tools::own("redis-cli");
    let output = tools::with_input(command.args(["-a", "secret", "ping"]).envs(environment), b"");
    assert_eq!(output.stdout, b"PONG\n");
}

#[test]
fn keys_of_a_type_and_a_file_from_the_primary() {
    let server = filled();
    let port = server.port().to_string();
    let mut scan = tools::own("kara-cli");
    let output = tools::with_input(scan.args(["-p", &port, "--scan", "--type", "zset"]), b"");
    assert_eq!(output.stdout, b"z\n");
    let file = server.folder().join("fetched.rdb");
    let mut fetch = tools::own("kara-cli");
    let output = tools::with_input(fetch.args(["-p", &port, "--rdb"]).arg(&file), b"");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("Transfer finished with success"), "{said}");
    let mut other = Server::start(&[]);
    other.kill();
    std::fs::copy(&file, other.folder().join("dump.rdb")).expect("the file");
    other.restart();
    assert_eq!(other.client().run("DEBUG DIGEST"), server.client().run("DEBUG DIGEST"));
}

/// The stream that a replica is sent, as CSV, until the primary ends the link.
#[test]
fn what_a_replica_is_sent() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    let server = Server::start(&["--repl-diskless-sync-delay", "0"]);
    let mut command = tools::own("kara-cli");
    command.args(["-p", &server.port().to_string(), "--replica"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("a process");
    let mut client = server.client();
    while !client.run("INFO replication").text().contains("state=online") {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    client.run("SET key value");
    let lines = BufReader::new(child.stdout.take().expect("output")).lines();
    let wanted = "\"set\",\"key\",\"value\"";
    assert!(lines.map_while(Result::ok).any(|line| line.eq_ignore_ascii_case(wanted)));
    client.run("CLIENT KILL TYPE replica");
    assert_eq!(child.wait().expect("an end").code(), Some(1));
}
