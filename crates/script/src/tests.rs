use crate::{Abort, Failure, Host, Kind, LibraryFunction, Options, Vm};
use kara_resp::{Protocol, Writer};

/// A host with one key and no server.
#[derive(Default)]
struct Fake {
    value: Vec<u8>,
    logged: Vec<String>,
    registered: Vec<String>,
    /// How often the run may be interrupted before it is aborted.
    patience: Option<u32>,
    refuse_calls: bool,
}

impl Host for Fake {
    fn call(&mut self, args: &[&[u8]], reply: &mut Writer) -> Result<(), Abort> {
        if self.refuse_calls {
            return Err(Abort);
        }
        match args {
            [b"get"] => reply.bulk(&self.value),
            [b"set", value] => {
                self.value = value.to_vec();
                reply.ok();
            }
            [b"count", rest @ ..] => reply.integer(rest.len() as i64),
            [b"none"] => reply.null(),
            [b"pairs"] => {
                reply.map(1);
                reply.bulk(b"k");
                reply.double(1.5);
            }
            _ => reply.error("ERR no such command"),
        }
        Ok(())
    }

    fn log(&mut self, level: u8, text: &[u8]) {
        self.logged.push(format!("{level} {}", text.escape_ascii()));
    }

    fn may_run(&mut self, args: &[&[u8]]) -> Result<bool, String> {
        Ok(args.first() == Some(&&b"get"[..]))
    }

    fn set_resp(&mut self, _: u8) {}

    fn interrupt(&mut self) -> Result<(), Abort> {
        match &mut self.patience {
            Some(0) => Err(Abort),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn register(&mut self, function: LibraryFunction) -> Result<(), String> {
        self.registered.push(String::from_utf8_lossy(&function.name).into_owned());
        Ok(())
    }
}

fn machine(kind: Kind) -> Vm {
    Vm::new(&Options {
        kind,
        insecure: false,
        memory_limit: 256 << 20,
        redis_version: "7.2.4".into(),
        valkey_version: "9.1.2".into(),
    })
    .expect("a machine")
}

fn eval_on(vm: &Vm, host: &mut Fake, script: &str, protocol: Protocol) -> String {
    let mut reply = Writer::new(protocol);
    let chunk = match vm.compile(script.as_bytes(), "@user_script") {
        Ok(chunk) => chunk,
        Err(problem) => return format!("compile: {problem}"),
    };
    match vm.eval(&chunk, &[b"k1"], &[b"a1", b"a2"], host, &mut reply) {
        None => "aborted".into(),
        Some(Ok(_)) => String::from_utf8_lossy(&reply.take()).replace("\r\n", "|"),
        Some(Err(Failure { text, position, .. })) => {
            let at = position
                .map_or(String::new(), |(source, line)| format!(" @{}:{line}", source.escape_ascii()));
            format!("error: {}{at}", String::from_utf8_lossy(&text))
        }
    }
}

/// On a stack like a worker's.
fn eval(script: &str) -> String {
    let script = script.to_owned();
    let run = move || eval_on(&machine(Kind::Eval), &mut Fake::default(), &script, Protocol::Resp2);
    std::thread::Builder::new().stack_size(16 << 20).spawn(run).expect("a thread").join().expect("no panic")
}

#[test]
fn conversions_of_results() {
    for (script, resp2, resp3) in [
        ("return 3.99", ":3|", ":3|"),
        ("return -3.99", ":-3|", ":-3|"),
        ("return 1e20", ":-9223372036854775808|", ":-9223372036854775808|"),
        ("return 'x'", "$1|x|", "$1|x|"),
        ("return true", ":1|", ":1|"),
        ("return false", "$-1|", "_|"),
        ("redis.setresp(3) return true", ":1|", "#t|"),
        ("return nil", "$-1|", "_|"),
        ("return {1,2,nil,4}", "*2|:1|:2|", "*2|:1|:2|"),
        ("return {err='E x'}", "-E x|", "-E x|"),
        ("return {ok='fine'}", "+fine|", "+fine|"),
        ("return {double=1.5}", "$3|1.5|", ",1.5|"),
        ("return {map={a=1}}", "*2|$1|a|:1|", "%1|$1|a|:1|"),
        ("return {set={a=true}}", "*1|$1|a|", "~1|$1|a|"),
        ("return {big_number='12'}", "$2|12|", "(12|"),
        ("return {verbatim_string={format='txt',string='hi'}}", "$2|hi|", "=6|txt:hi|"),
        ("return {KEYS[1],ARGV[2],#ARGV}", "*3|$2|k1|$2|a2|:2|", "*3|$2|k1|$2|a2|:2|"),
        ("return redis.error_reply('x')", "-ERR x|", "-ERR x|"),
        ("return redis.error_reply('A\\r\\nB c')", "-A  B c|", "-A  B c|"),
    ] {
        let vm = machine(Kind::Eval);
        for (protocol, expected) in [(Protocol::Resp2, resp2), (Protocol::Resp3, resp3)] {
            assert_eq!(eval_on(&vm, &mut Fake::default(), script, protocol), expected, "{script}");
        }
    }
}

#[test]
fn commands_and_their_errors() {
    assert_eq!(eval("return redis.call('count', 1, 2.5, 'x')"), ":3|");
    assert_eq!(eval("return type(redis.call('none'))"), "$7|boolean|");
    assert_eq!(eval("redis.setresp(3) return redis.call('pairs').map.k.double"), ":1|");
    assert_eq!(eval("\nreturn redis.call('nosuch')"), "error: ERR no such command @@user_script:2");
    assert_eq!(eval("return redis.pcall('nosuch')"), "-ERR no such command|");
    assert_eq!(eval("local ok, e = pcall(redis.call, 'nosuch') return e"), "$19|ERR no such command|");
    assert_eq!(
        eval("local ok, e = xpcall(function() redis.call('x') end, function(e) return e.err end) return e"),
        "$19|ERR no such command|"
    );
    assert_eq!(
        eval("return redis.call('count', {})"),
        "error: ERR Command arguments must be strings or integers @@user_script:1"
    );
    let many = "local t = {} for i = 1, 7800 do t[i] = i end return redis.call('count', unpack(t))";
    assert_eq!(eval(many), ":7800|");
}

#[test]
fn the_sandbox_holds() {
    let readonly = "error: ERR user_script:1: Attempt to modify a readonly table @@user_script:1";
    for script in [
        "x = 1",
        "redis = 1",
        "redis.call = 1",
        "_G.x = 1",
        "string.foo = 1",
        "getmetatable('').__index = 1",
        "getmetatable('').__index.foo = 1",
        "getmetatable(_G).__index = 1",
        "cjson.encode = 1",
    ] {
        assert_eq!(eval(script), readonly, "{script}");
    }
    for script in [
        "setmetatable(_G, {})",
        "rawset(_G, 'x', 1)",
        "rawset(redis, 'x', 1)",
        "table.insert(redis, 1)",
        "setmetatable(string, {})",
    ] {
        assert_eq!(eval(script), "error: ERR Attempt to modify a readonly table @@user_script:1", "{script}");
    }
    for name in [
        "print", "dofile", "loadfile", "require", "io", "debug", "package", "setfenv", "getfenv", "newproxy",
        "nosuch",
    ] {
        assert_eq!(
            eval(&format!("return {name}")),
            format!(
                "error: ERR user_script:1: Script attempted to access nonexistent global variable '{name}' \
                 @@user_script:1"
            )
        );
    }
    assert_eq!(
        eval("return type(os.clock()) .. tostring(os.execute) .. tostring(os.exit)"),
        "$12|numbernilnil|"
    );
    // What pairs and next hand out leads to nothing that can be written.
    assert_eq!(eval("for k, v in pairs(redis) do if k == 'call' then return 1 end end"), ":1|");
    assert_eq!(eval("local f, t = pairs(redis) t.call = 1"), readonly);
    assert_eq!(eval("local t = {} setmetatable(t, {__index = _G}) return t.redis == redis"), ":1|");
}

#[test]
fn bytecode_is_text() {
    let script = "local f, e = loadstring(string.dump(function() end)) return {tostring(f), e}";
    assert!(eval(script).contains("unexpected symbol near 'char(27)'"), "{}", eval(script));
    assert!(eval("\u{1b}Lua").starts_with("compile: user_script:1: unexpected symbol near 'char(27)'"));
    let pieces = "local n = 0 local f, e = load(function() n = n + 1 if n == 1 then return '\\27' end if n == 2 then \
                  return 'Lua' end end) return tostring(f)";
    assert_eq!(eval(pieces), "$3|nil|");
}

#[test]
fn parser_runs_no_script_code() {
    // The reader collects garbage and raises: it never runs inside the compiler.
    let script = "local n = 0 local f = load(function() collectgarbage() n = n + 1 return n < 4 and ' ' or nil end, \
                  'name' .. n) return type(f)";
    assert_eq!(eval(script), "$8|function|");
    let raising = "local f, e = load(function() error('boo') end) return {tostring(f), e}";
    assert!(eval(raising).contains("boo"));
}

#[test]
fn ranges_patterns_and_recursion_end_in_errors() {
    for script in [
        "return unpack({}, 1, 1e9)",
        "return {unpack({}, 0, 2147483647)}",
        "return {unpack({}, -2147483648, 2147483647)}",
        "return {unpack({}, 1, 1/0)}",
        "return string.find(string.rep('a', 500000), string.rep('a?', 250000))",
        "return string.match(string.rep('a', 500000), string.rep('(', 9000))",
        "local function f() return coroutine.wrap(f)() end f()",
        "local function f() return (string.gsub('x', 'x', f)) end f()",
        "local function f() f() return 1 end f()",
        "local t = setmetatable({}, {}) getmetatable(t).__index = function(t, k) return t[k] end return t.x",
        "return loadstring(string.rep('(', 100000))()",
        "return loadstring('return ' .. string.rep('{', 100000))()",
        "return string.rep('x', 1e9) .. 'y'",
        "local t = {} while true do t[#t + 1] = string.rep('x', 1e6) .. #t end",
        "local s = 'x' while true do s = s .. s end",
    ] {
        assert!(eval(script).starts_with("error: "), "{script}: {}", &eval(script)[..60]);
    }
    assert!(
        eval("local t = {} for i = 1, 9000 do t = {t} end return t")
            .contains("-ERR reached lua stack limit|")
    );
    assert!(eval("local t = {} t[1] = t return t").contains("-ERR reached lua stack limit|"));
}

#[test]
fn libraries_bound_their_input() {
    for script in [
        "return bit.tohex(1, -2147483648)",
        "return struct.pack('>I2147483648', 10)",
        "return struct.unpack('c2147483647', 'x')",
        "return struct.pack('c99999999999999999999', 'x')",
        "return cmsgpack.unpack('\\221\\255\\255\\255\\255')",
        "return cmsgpack.unpack('\\223\\255\\255\\255\\255')",
        "return cmsgpack.unpack(string.rep('\\145', 100000))",
        "return cjson.decode(string.rep('[', 100000))",
        "cjson.decode_max_depth(2147483647) return cjson.decode(string.rep('[', 100000))",
        "cjson.encode_max_depth(2147483647) local t = {} for i = 1, 100000 do t = {t} end return cjson.encode(t)",
        "cjson.encode_sparse_array(false, 0) return cjson.encode({[2147483647] = 1})",
    ] {
        let outcome = eval(script);
        assert!(outcome.starts_with("error: ") || outcome == "$8|00000001|", "{script}: {outcome:.80}");
    }
    assert_eq!(eval("return cjson.encode({a={1,2.5,'x/y',false}})"), "$26|{\"a\":[1,2.5,\"x\\/y\",false]}|");
    assert_eq!(eval("return cjson.decode('{\"a\":[1,2]}').a[2]"), ":2|");
    assert_eq!(eval("return {cmsgpack.unpack(cmsgpack.pack({1,'x'}, 2))}"), "*2|*2|:1|$1|x|:2|");
    assert_eq!(eval("return {struct.unpack('>I2s', struct.pack('>I2s', 513, 'ab'))}"), "*3|:513|$2|ab|:6|");
}

#[test]
fn an_abort_can_not_be_caught() {
    let vm = machine(Kind::Eval);
    for script in [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "local co = coroutine.create(function() while true do end end) while true do coroutine.resume(co) end",
        "while true do pcall(redis.call, 'get') end",
        "while not pcall(error) do end",
    ] {
        let mut host = Fake { patience: Some(3), ..Fake::default() };
        assert_eq!(eval_on(&vm, &mut host, script, Protocol::Resp2), "aborted", "{script}");
        // The machine goes on as before.
        assert_eq!(
            eval_on(
                &vm,
                &mut Fake::default(),
                "local n = 0 for i = 1, 1e6 do n = i end return n",
                Protocol::Resp2
            ),
            ":1000000|"
        );
    }
    let mut host = Fake { refuse_calls: true, ..Fake::default() };
    let script = "for i = 1, 100 do pcall(redis.call, 'get') end return 1";
    assert_eq!(eval_on(&vm, &mut host, script, Protocol::Resp2), "aborted");
}

#[test]
fn libraries_of_functions() {
    let vm = machine(Kind::Functions);
    let mut host = Fake::default();
    let code = "local n = 40 redis.register_function('f', function(keys, args) n = n + 1 return {n, keys[1], args[1], \
                type(redis.call)} end)";
    let chunk = vm.compile(code.as_bytes(), "@user_function").expect("compiles");
    let functions = vm.load(&chunk, &mut host).expect("loads");
    assert_eq!(host.registered, ["f"]);
    let mut reply = Writer::new(Protocol::Resp2);
    let outcome = vm.call(&functions[0].1, &[b"k"], &[b"a"], &mut host, &mut reply);
    assert_eq!(outcome, Some(Ok(crate::Ended::Result)));
    assert_eq!(reply.take(), b"*4\r\n:41\r\n$1\r\nk\r\n$1\r\na\r\n$8\r\nfunction\r\n");
    let bad = vm.compile(b"redis.call('get')", "@user_function").expect("compiles");
    assert!(
        matches!(vm.load(&bad, &mut host), Err(crate::LoadError::Failed(f)) if f.text.ends_with(b"'call'"))
    );
    drop(functions);
    let many: Vec<_> = (0..20_000).map(|_| vm.compile(b"return 1", "@x").expect("room")).collect();
    assert_eq!(many.len(), 20_000);
}

#[test]
fn tear_down_with_everything_alive() {
    for _ in 0..20 {
        let script = "local co = coroutine.wrap(function() local t = setmetatable({}, {__gc = function() end, __mode = \
                      'kv'}) coroutine.yield(t) end) co() return redis.call('set', tostring(co))";
        assert_eq!(eval(script), "+OK|");
    }
}
