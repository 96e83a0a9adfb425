//! Users and their rights: replies as the reference's, and the failures of access control that are known (S1, S37 to
//! S47 where they concern a single server).

use kara_tests::client::{Client, Request};
use kara_tests::{Reply, Server};
use std::fs;
use std::time::{Duration, Instant};

/// Words by blanks; those in double quotes keep theirs.
fn words(line: &str) -> Request {
    let mut out: Request = Vec::new();
    for (at, part) in line.split('"').enumerate() {
        if at % 2 == 1 {
            out.push(part.as_bytes().to_vec());
        } else {
            out.extend(part.split_whitespace().map(|word| word.as_bytes().to_vec()));
        }
    }
    out
}

fn text(client: &mut Client, line: &str) -> String {
    flat(&client.call(&words(line)))
}

/// The reply's texts; those of an array in brackets.
fn flat(reply: &Reply) -> String {
    match reply {
        Reply::Array(items) | Reply::Push(items) => {
            format!("[{}]", items.iter().map(flat).collect::<Vec<_>>().join(" "))
        }
        other => other.text(),
    }
}

/// Replies without what differs from run to run.
fn steady(reply: &Reply) -> String {
    let shown = format!("{reply:?}");
    shown.split("age-seconds").next().unwrap_or_default().to_owned()
}

const RULES: &[&str] = &[
    "on",
    "off",
    "nopass",
    ">p",
    "<p",
    "<zz",
    "#abc",
    "~foo",
    "%R~x",
    "%W~y",
    "%RW~z",
    "%X~z",
    "%~z",
    "%R",
    "~",
    "&ch",
    "&*",
    "&x",
    "allchannels",
    "resetchannels",
    "~*",
    "~a",
    "allkeys",
    "resetkeys",
    "+get",
    "+@all",
    "+foo",
    "+@foo",
    "-get",
    "+config|get",
    "-config|set",
    "+config|nope",
    "+select|0",
    "-select|0",
    "+select|1",
    "+config|get|x",
    "+@read",
    "-@write",
    "nope",
    "db=0,1",
    "db=",
    "db=x",
    "db=1,1",
    "alldbs",
    "resetdbs",
    "\"(+get ~a)\"",
    "(+set",
    "+set)",
    "(nope)",
    "(on)",
    "()",
    "clearselectors",
    "reset",
    "allcommands",
    "nocommands",
    "+@string",
    "-set",
    "-@all",
    "+GET",
    "+@READ",
    "+client",
    "-client|id",
    "+client|id",
    "NOPASS",
    "resetpass",
    "-@admin",
    "+",
    "-",
    "+@",
    "\"a b\"",
    "\"& x\"",
    "+get|",
    "+get|a|b",
    "(+get ~k (",
    "\"(~k )\"",
];

/// What a restricted user tries, one line each.
const TRIED: &[&str] = &[
    "get a",
    "get x",
    "set a 1",
    "get r1",
    "get w1",
    "append w1 x",
    "copy r1 w1",
    "copy w1 r1",
    "exists x",
    "mget a x",
    "select 1",
    "select 2",
    "get a",
    "select 0",
    "flushall",
    "flushdb",
    "swapdb 0 1",
    "move a 1",
    "move a 2",
    "copy a a2 db 1",
    "copy a a2 db 2 db 1",
    "publish zzz x",
    "publish ch1 x",
    "spublish zz x",
    "subscribe zzz",
    "ssubscribe zz",
    "psubscribe c*",
    "eval \"return 1\" 1 x",
    "eval \"return redis.call('get','x')\" 0",
    "eval \"return redis.pcall('set','a','1')\" 0",
    "eval \"return redis.acl_check_cmd('set','a','1')\" 0",
    "eval \"return redis.acl_check_cmd('get','a')\" 0",
    "eval \"return redis.call('publish','zz','1')\" 0",
    "multi",
    "get x",
    "get a",
    "exec",
    "sort a by x* get y*",
    "sort a by nosort get #",
    "sort_ro a by x*",
    "georadius a 1 1 1 m store x",
    "georadius a 1 1 1 m store a store x",
    "sort a store a store x",
    "object encoding x",
    "memory usage x",
    "xread streams x 0",
    "zunionstore a 2 a x",
    "bitop and x a",
    "lmpop 2 a x left",
    "set r1 1 get",
    "rename a x",
    "watch x",
    "msetex 1 x 1",
    "dump x",
    "restore x 0 z",
    "blmpop 0 1 x left",
    "zdiff 9 a",
    "config get save",
    "acl whoami",
    "acl list",
    "nosuch",
    "config nosuch",
    "get",
];

/// S40 to S43: every rule, and every refusal, as the reference's.
#[test]
fn rules_and_refusals_are_the_references() {
    let (ours, theirs) = (Server::start(&[]), Server::reference(&[]));
    let sides = [&ours, &theirs].map(|server| {
        let mut admin = server.client();
        let mut shown = Vec::new();
        for rule in RULES {
            let mut request = words("acl setuser u");
            request.extend(words(rule));
            shown.push(format!("{rule}: {}", admin.call(&request).text()));
            shown.push(text(&mut admin, "acl list"));
            shown.push(steady(&admin.run("acl getuser u")));
        }
        for set in [
            "reset on >pw ~a* %R~r* %W~w* +@all -set +set &ch* db=0,2",
            "reset on >pw +@read -mget +select (+set ~b* ~r*) (+publish &ch1) ~a*",
            "reset on >pw -@all +eval +multi +exec +get|a +config|get +@connection allkeys resetdbs",
        ] {
            let rules = set.replace("(", "\"(").replace(")", ")\"");
            shown.push(text(&mut admin, &format!("acl setuser u {rules}")));
            shown.push(text(&mut admin, "acl log reset"));
            let mut user = server.client();
            shown.push(text(&mut user, "auth u wrong"));
            shown.push(text(&mut user, "auth u pw"));
            for line in TRIED {
                shown.push(format!("{set}, {line}: {}", steady(&user.call(&words(line)))));
                let dry = [words("acl dryrun u"), words(line)].concat();
                shown.push(format!("{set}, dry {line}: {}", steady(&admin.call(&dry))));
            }
            for entry in admin.run("acl log 30").items() {
                shown.push(steady(entry));
            }
        }
        shown
    });
    for (ours, theirs) in sides[0].iter().zip(&sides[1]) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(sides[0].len(), sides[1].len());
}

/// Changes hold at once, on every worker, for connections that are there.
#[test]
fn a_change_holds_for_every_connection() {
    let server = Server::start(&["--io-threads", "2"]);
    let mut admin = server.client();
    assert_eq!(text(&mut admin, "acl setuser u on nopass ~* &* +@all"), "OK");
    let mut clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
    for client in &mut clients {
        assert_eq!(text(client, "auth u x"), "OK");
        assert_eq!(text(client, "set k v"), "OK");
    }
    // S45: what was queued is judged by the rights of EXEC's moment.
    assert_eq!(text(&mut clients[0], "multi"), "OK");
    assert_eq!(text(&mut clients[0], "set k w"), "QUEUED");
    // Waits for a key that it may not read when it comes.
    clients[3].send(&[words("blpop list 0")]).unwrap();
    while !text(&mut admin, "info clients").contains("blocked_clients:1") {}
    assert_eq!(text(&mut admin, "acl setuser u resetkeys"), "OK");
    for client in &mut clients[1..3] {
        assert_eq!(text(client, "get k"), "NOPERM No permissions to access a key");
    }
    assert!(format!("{:?}", clients[0].run("exec")).contains("ACLs rules changed"), "S45");
    admin.run("lpush list x");
    assert_eq!(clients[3].read().unwrap().text(), "NOPERM No permissions to access a key");
    assert_eq!(text(&mut admin, "lrange list 0 -1"), "[x]");
    assert_eq!(text(&mut admin, "get k"), "v");
}

/// S37: users are removed, and files loaded, while their clients come and go.
#[test]
fn s37_users_go_while_their_clients_close() {
    let folder = tempfile();
    let file = folder.join("users.acl");
    fs::write(&file, "user default on nopass ~* &* +@all\nuser keeps on nopass ~* &* +@all\n").unwrap();
    let server = Server::start(&["--io-threads", "2", "--aclfile", file.to_str().unwrap()]);
    let mut admin = server.client();
    for round in 0..100 {
        admin.run("acl setuser u on nopass ~* &* +@all");
        let mut gone = server.client();
        let mut kept = server.client();
        assert_eq!(text(&mut gone, "auth u x"), "OK");
        assert_eq!(text(&mut kept, "auth keeps x"), "OK");
        gone.send(&[words("subscribe c"), words("ping"), words("blpop k 0")]).unwrap();
        if round % 2 == 0 {
            drop(gone);
            admin.run(if round % 4 == 0 { "acl load" } else { "acl deluser u" });
        } else {
            admin.run(if round % 3 == 0 { "acl load" } else { "acl deluser u" });
            gone.set_timeout(Duration::from_secs(5)).unwrap();
            while gone.read().is_ok() {}
        }
        assert_eq!(text(&mut kept, "ping"), "PONG");
    }
    assert_eq!(text(&mut admin, "acl users"), "[default keeps]");
    fs::remove_dir_all(folder).unwrap();
}

fn tempfile() -> std::path::PathBuf {
    let folder =
        std::env::temp_dir().join(format!("kara-acl-{}-{}", std::process::id(), kara_tests::free_port()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// S41: rules that are cut short, nested or huge are refused, and change nothing.
#[test]
fn s41_malformed_selectors_are_refused() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.run("acl setuser u on >p ~a +get");
    let before = text(&mut client, "acl list");
    let long = "(".repeat(20_000);
    let deep = format!("{}+get{}", "(".repeat(5_000), ")".repeat(5_000));
    for rule in [
        "(",
        "(((",
        "(+get",
        "(+get ~a (+set))",
        "(~a \u{0}b)",
        "(>p)",
        "%",
        "%R~a b",
        "db=4294967296",
        "db=-1",
        &long,
        &deep,
    ] {
        let started = Instant::now();
        let reply = client.call(&["ACL", "SETUSER", "u", rule]).text();
        assert!(reply.starts_with("ERR"), "{} -> {reply}", &rule[..rule.len().min(20)]);
        assert!(started.elapsed() < Duration::from_secs(1));
        assert_eq!(text(&mut client, "acl list"), before);
    }
}

/// S44: who tracks by prefix is not told names of keys that it may not read.
#[test]
fn s44_broadcasts_name_only_what_may_be_read() {
    let server = Server::start(&["--io-threads", "2"]);
    let mut admin = server.client();
    admin.run("acl setuser u on nopass ~open* %W~blind* +@all");
    let mut user = server.client();
    user.run("auth u x");
    user.run("hello 3");
    assert_eq!(text(&mut user, "client tracking on bcast"), "OK");
    for key in ["secret", "blind", "open1", "secret2", "open2"] {
        admin.call(&["SET", key, "v"]);
    }
    let mut told = String::new();
    while !told.contains("open2") {
        told += &flat(&user.read().unwrap());
    }
    assert!(told.contains("open1") && !told.contains("secret") && !told.contains("blind"), "{told}");
}

/// S39: SORT_RO reads no key that the user may not read.
#[test]
fn s39_sort_ro_reads_only_what_the_user_may() {
    let server = Server::start(&[]);
    let mut admin = server.client();
    admin.run("set secret hush");
    admin.run("rpush list secret");
    admin.run("acl setuser u on nopass ~list +@all");
    let mut user = server.client();
    user.run("auth u x");
    for line in
        ["sort_ro list by nosort get *", "sort list by nosort get *", "sort list by *", "sort_ro secret"]
    {
        let reply = text(&mut user, line);
        assert!(
            !reply.contains("hush") && (reply.starts_with("ERR") || reply.starts_with("NOPERM")),
            "{line}: {reply}"
        );
    }
}

/// Users come from the configuration or a file, are written back, and wrong ones keep the server from starting.
#[test]
fn users_are_read_and_written() {
    let folder = tempfile();
    let file = folder.join("users.acl");
    let conf = folder.join("kara.conf");
    fs::write(&conf, "user alice on >secret ~a* +@read\nuser default on >main ~* &* +@all\n").unwrap();
    let server = Server::start_with_file(&conf);
    let mut client = server.client();
    assert!(text(&mut client, "ping").starts_with("NOAUTH"));
    assert_eq!(text(&mut client, "auth main"), "OK");
    assert_eq!(text(&mut client, "acl setuser bob on nopass (+get ~b)"), "OK");
    assert_eq!(text(&mut client, "config rewrite"), "OK");
    let list = text(&mut client, "acl list");
    drop(server);
    // The folder of the first server is gone.
    let rewritten = fs::read_to_string(&conf).unwrap();
    let lines: Vec<&str> = rewritten.lines().filter(|line| !line.starts_with("dir ")).collect();
    fs::write(&conf, lines.join("\n")).unwrap();
    let server = Server::start_with_file(&conf);
    let mut client = server.client();
    assert_eq!(text(&mut client, "auth main"), "OK");
    assert_eq!(text(&mut client, "acl list"), list);
    assert_eq!(text(&mut client, "auth alice secret"), "OK");
    assert!(text(&mut client, "set a 1").starts_with("NOPERM"));
    drop(server);

    fs::write(&file, "user default on nopass ~* &* +@all\n").unwrap();
    let server = Server::start(&["--aclfile", file.to_str().unwrap()]);
    let mut client = server.client();
    client.run("acl setuser eve on >x ~e +get");
    assert_eq!(text(&mut client, "acl save"), "OK");
    let saved = fs::read_to_string(&file).unwrap();
    client.run("acl deluser eve");
    assert_eq!(text(&mut client, "acl load"), "OK");
    assert_eq!(text(&mut client, "acl users"), "[default eve]");
    for (wrong, why) in [
        ("user default on\nuser default off", "WARNING: Duplicate user 'default' found on line 2"),
        ("usr x", ":1 should start with user keyword followed by the username"),
        ("user x +nope", ":1: Error in applying operation '+nope': Unknown command or category name in ACL"),
        ("user x (+get", ":1: Unmatched parenthesis in selector definition"),
    ] {
        fs::write(&file, wrong).unwrap();
        let reply = text(&mut client, "acl load");
        assert!(reply.contains(why), "{wrong}: {reply}");
        assert_eq!(text(&mut client, "acl users"), "[default eve]");
    }
    fs::write(&file, saved).unwrap();
    drop(server);
    fs::remove_dir_all(folder).unwrap();
}
