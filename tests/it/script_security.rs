//! Attacks on scripting from published advisories, by their number in our list: the server stays up and answers, and nothing
//! of one client's script reaches another's.

use kara_tests::{Client, Reply, Server};
use std::time::Duration;

fn eval(client: &mut Client, script: &str) -> String {
    client.call(&["EVAL", script, "0"]).text()
}

/// The server is as it was: another client's script finds everything in its place.
fn unharmed(server: &Server) {
    let script = "return {type(redis.call), tostring(x), tostring(('').nosuch), type(string.format), type(cjson.encode), \
                  redis.call('PING').ok}";
    let script = script.replace("tostring(x)", "tostring(rawget(_G, 'x'))");
    let expected = ["function", "nil", "nil", "function", "function", "PONG"];
    let expected = expected.map(|text| Reply::Bulk(text.as_bytes().to_vec())).to_vec();
    assert_eq!(server.client().call(&["EVAL", &script, "0"]), Reply::Array(expected));
}

/// Every script ends in an error; then all is well.
fn all_refused(scripts: &[&str]) {
    let server = Server::start(&["--io-threads", "2"]);
    let mut client = server.client();
    for script in scripts {
        let reply = client.call(&["EVAL", script, "0"]);
        assert!(matches!(reply, Reply::Error(_)), "{script}: {reply:?}");
    }
    unharmed(&server);
}

#[test]
fn s01_environment_of_other_users() {
    all_refused(&[
        "x = 1",
        "_G.x = 1",
        "rawset(_G, 'x', 1)",
        "redis.call = function() end",
        "rawset(redis, 'call', 1)",
        "string.format = 1",
        "table.insert(cjson, 1)",
        "setmetatable(_G, nil)",
        "setmetatable(redis, {})",
        "getmetatable(_G).__index = {}",
        "KEYS.x = _G KEYS.x.y = 1",
        "local f, t = pairs(redis) t.call = 1",
        "local t = setmetatable({}, {__index = _G}) t._G.x = 1",
        "setfenv(1, {}) return 1",
    ]);
}

#[test]
fn s02_text_that_leaves_the_script() {
    all_refused(&[
        "return 1 end function f() return 2",
        "return 1 end) (function() return 2",
        "\u{1b}Lua",
        "return loadstring(string.dump(function() return 1 end))()",
        "return load(coroutine.wrap(function() coroutine.yield('\\27Lua') end))()",
        "--[[",
        "return 'unfinished",
    ]);
    let server = Server::start(&[]);
    let mut client = server.client();
    for code in ["#!lua name=a\nend redis.register_function('f', function() end)", "#!lua name=b\n\u{1b}Lua"]
    {
        assert!(matches!(client.call(&["FUNCTION", "LOAD", code]), Reply::Error(_)));
    }
    unharmed(&server);
}

#[test]
fn s03_lengths_in_cjson_and_cmsgpack() {
    all_refused(&[
        "return cjson.decode(string.rep('[', 1000000))",
        "local t = {} for i = 1, 100000 do t = {t} end return cjson.encode(t)",
        "cjson.encode_sparse_array(false, 0) return cjson.encode({[2147483647] = 1})",
        "return cmsgpack.unpack('\\221\\255\\255\\255\\255')",
        "return cmsgpack.unpack('\\223\\255\\255\\255\\255')",
        "return cmsgpack.unpack('\\219\\255\\255\\255\\255x')",
        "return cmsgpack.unpack(string.rep('\\145', 1000000))",
        "return struct.pack('c99999999999999999999', 'x')",
        "return struct.unpack('c2147483647', 'x')",
    ]);
}

#[test]
fn s04_extreme_widths() {
    let server = Server::start(&[]);
    let mut client = server.client();
    assert_eq!(eval(&mut client, "return bit.tohex(65535, -2147483648)"), "0000FFFF");
    assert_eq!(eval(&mut client, "return bit.tohex(65535, 2147483647)"), "0000ffff");
    assert_eq!(eval(&mut client, "return bit.tohex(65535, 0)"), "");
    unharmed(&server);
}

#[test]
fn s05_collector_at_teardown() {
    let server = Server::start(&["--io-threads", "2"]);
    let mut client = server.client();
    for round in 0..30 {
        let script = "local t = setmetatable({}, {__gc = function() redis.call('SET', 'k', 1) end, __mode = 'kv'}) \
                      local co = coroutine.wrap(function() coroutine.yield(t) end) co() collectgarbage() return '1'";
        assert_eq!(eval(&mut client, script), "1", "{round}");
        client.run("SCRIPT FLUSH");
        client.call(&[
            "FUNCTION",
            "LOAD",
            "REPLACE",
            "#!lua name=l\nlocal co = coroutine.create(function() end) \
                      redis.register_function('f', function() return coroutine.resume(co) end)",
        ]);
        client.run("FCALL f 0");
        client.run("FUNCTION FLUSH");
    }
    unharmed(&server);
}

#[test]
fn s06_ranges_of_unpack() {
    all_refused(&[
        "return {unpack({}, 1, 1e9)}",
        "return {unpack({}, 0, 2147483647)}",
        "return {unpack({}, -2147483648, 2147483647)}",
        "return {unpack({}, -2147483648, 0)}",
        "return {unpack({}, 1, 1/0)}",
        "return {unpack({1, 2, 3}, -2, 2147483645)}",
    ]);
}

#[test]
fn s07_metatables_of_basic_types() {
    all_refused(&[
        "getmetatable('').__index = function() return 1 end",
        "getmetatable('').__index.upper = 1",
        "getmetatable('').__concat = 1",
        "rawset(getmetatable(''), '__index', 1)",
        "setmetatable('', {})",
        "setmetatable(getmetatable(''), {})",
        "getmetatable(1).__index = 1",
        "getmetatable(redis.call).__call = 1",
    ]);
}

#[test]
fn s08_long_tokens() {
    let server = Server::start(&[]);
    let mut client = server.client();
    for n in [1usize << 10, 1 << 20] {
        for script in [
            format!("return [{}", "=".repeat(n)),
            format!("return [{}[x", "=".repeat(n)),
            format!("return [{}[x]{}", "=".repeat(n), "=".repeat(n)),
            format!("return '{}", "a".repeat(n)),
            format!("return {}", "9".repeat(n)),
        ] {
            let reply = client.call(&["EVAL", &script, "0"]);
            assert!(matches!(reply, Reply::Error(_) | Reply::Integer(_)), "{n}: {}", &script[..20]);
        }
    }
    unharmed(&server);
}

#[test]
fn s09_the_parsers_strings() {
    let server = Server::start(&["--io-threads", "2"]);
    let mut client = server.client();
    let script = "local n, name = 0, string.rep('n', 1000) .. tostring({}) \
                  local f, e = load(function() collectgarbage() n = n + 1 if n < 50 then return ' local a' .. n .. ' = {} ' \
                  end end, name) name = nil collectgarbage() collectgarbage() return type(f) .. tostring(e)";
    for _ in 0..20 {
        assert_eq!(eval(&mut client, script), "functionnil");
    }
    let broken = "local f, e = load(function() collectgarbage() error('no') end, 'x' .. tostring({})) collectgarbage() \
                  return type(f) .. type(e)";
    assert_eq!(eval(&mut client, broken), "nilstring");
    unharmed(&server);
}

#[test]
fn s10_line_breaks_in_errors() {
    let server = Server::start(&[]);
    let mut client = server.client();
    for script in [
        "return redis.error_reply('E x\\r\\n+OK\\r\\n:1')",
        "return {err = 'E x\\r\\n+OK\\r\\n:1'}",
        "return redis.status_reply('x\\r\\n:1')",
        "return {ok = 'x\\r\\n:1'}",
        "error('x\\r\\n:1\\r\\n')",
        "error({err = 'E x\\r\\n:1'})",
        "return redis.call('x\\r\\n:1')",
        "redis.setresp(3) return {big_number = '1\\r\\n:1'}",
        "redis.setresp(3) return {verbatim_string = {format = 't\\r\\n', string = 'x'}}",
    ] {
        for protocol in ["2", "3"] {
            client.run(&format!("HELLO {protocol}"));
            let reply = client.call(&["EVAL", script, "0"]);
            assert!(!reply.text().contains(['\r', '\n']), "{script}: {reply:?}");
            // One reply, not several.
            assert_eq!(client.run("ECHO next").text(), "next", "{script}");
        }
    }
    unharmed(&server);
}

#[test]
fn s11_full_sync_while_a_script_runs() {
    let primary = Server::start(&["--repl-diskless-sync-delay", "0"]);
    let replica = Server::start(&["--io-threads", "2", "--busy-reply-threshold", "20"]);
    let (mut p, mut r, mut slow) = (primary.client(), replica.client(), replica.client());
    p.run("SET before 1");
    p.call(&["FUNCTION", "LOAD", "#!lua name=l\nredis.register_function('f', function() return 'f' end)"]);
    // The script runs already when the primary's data come: they wait, or the other way round.
    slow.send(&[["EVAL", "while true do end", "0"].map(|word| word.as_bytes().to_vec()).to_vec()]).unwrap();
    while !r.run("GET before").text().starts_with("BUSY") {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(r.run(&format!("REPLICAOF 127.0.0.1 {}", primary.port())).text().starts_with("BUSY"));
    assert_eq!(r.run("SCRIPT KILL").text(), "OK");
    assert!(slow.read().unwrap().text().contains("killed by user"));
    // Full syncs under way, one after the other, while scripts begin.
    r.run(&format!("REPLICAOF 127.0.0.1 {}", primary.port()));
    for _ in 0..20 {
        slow.call(&["EVAL", "local n = 0 for i = 1, 200000 do n = n + i end return n", "0"]);
        r.run("REPLICAOF NO ONE");
        r.run(&format!("REPLICAOF 127.0.0.1 {}", primary.port()));
    }
    for _ in 0..400 {
        if r.run("GET before").text() == "1" && r.run("FCALL_RO f 0").text().starts_with("READONLY") {
            break;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    assert_eq!(r.run("GET before").text(), "1");
    // The primary's library came along; a function without no-writes is refused on a replica, as by the reference.
    assert!(r.run("FCALL_RO f 0").text().starts_with("READONLY"));
}

#[test]
fn s12_no_debugger_to_attack() {
    let server = Server::start(&[]);
    let mut client = server.client();
    for mode in ["YES", "SYNC"] {
        assert!(client.run(&format!("SCRIPT DEBUG {mode}")).text().starts_with("ERR"));
    }
    assert_eq!(client.run("SCRIPT DEBUG NO").text(), "OK");
    assert_eq!(
        eval(&mut client, "return tostring(redis.breakpoint()) .. tostring((redis.debug('x')))"),
        "falsenil"
    );
    unharmed(&server);
}
