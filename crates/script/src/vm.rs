//! One virtual machine: its sandbox, compiled chunks, and runs.

use crate::host::{Abort, Host, LibraryFunction, host, with_host};
use crate::{libs, number, reply};
use kara_resp::{Protocol, Writer};
use mlua::{
    FromLua, Function, HookTriggers, IntoLuaMulti, Lua, LuaOptions, MultiValue, StdLib, Table, Value, Variadic,
    VmState,
};
use sha1::{Digest, Sha1};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// The protocol version 3 of `redis.setresp`.
pub(crate) const RESP3: u8 = 3;
/// How many VM instructions pass between two questions to the host whether the script may go on.
const INTERRUPT: u32 = 100_000;
/// More arguments than this travel in tables: the C stack has room for 8,000 values.
const STACK_ARGS: usize = 200;

/// What a machine is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Eval,
    Functions,
}

/// How a machine is set up.
#[derive(Clone, Debug)]
pub struct Options {
    pub kind: Kind,
    /// `lua-enable-insecure-api`: newproxy, getfenv, setfenv.
    pub insecure: bool,
    /// Bytes that Lua code may hold; 0: no limit.
    pub memory_limit: usize,
    pub redis_version: String,
    pub valkey_version: String,
}

/// A compiled script.
#[derive(Clone, Debug)]
pub struct Chunk(Function);

/// A script that ended in an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// With its code (`ERR ...`).
    pub text: Vec<u8>,
    /// Where it happened: the chunk's name as Lua knows it (`@user_script`) and the line.
    pub position: Option<(Vec<u8>, i64)>,
    /// The error came out of a command, and was counted there.
    pub is_counted: bool,
}

/// Why a library could not be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    Failed(Failure),
    Aborted,
}

/// State that native functions share.
#[derive(Default)]
struct Inner {
    /// The run is to end: every hook raises.
    aborted: Cell<bool>,
    resp: Cell<u8>,
    random: Cell<u64>,
    scratch: RefCell<Writer>,
    /// Functions of the library that is being loaded, by name.
    registered: RefCell<Vec<(Vec<u8>, Function)>>,
    memory_limit: Cell<usize>,
}

/// A virtual machine. Belongs to one thread.
pub struct Vm {
    lua: Lua,
    inner: Rc<Inner>,
    run_eval: Function,
    run_eval_tables: Function,
    run_call: Function,
    run_load: Function,
    run_loaded: Function,
    compile: Function,
}

impl std::fmt::Debug for Vm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vm").field("used_memory", &self.used_memory()).finish_non_exhaustive()
    }
}

/// One argument of a command.
enum Arg {
    Bytes(Vec<u8>),
    /// Neither a string nor a number.
    Other,
}

impl FromLua for Arg {
    fn from_lua(value: Value, _: &Lua) -> mlua::Result<Self> {
        Ok(match value {
            Value::String(text) => Arg::Bytes(text.as_bytes().to_vec()),
            Value::Integer(n) => Arg::Bytes(n.to_string().into_bytes()),
            Value::Number(n) => Arg::Bytes(number::argument(n)),
            _ => Arg::Other,
        })
    }
}

/// The outcome of `xpcall`: whether the run went well, and its result or error.
type Ran = (bool, Value);

fn internal(text: impl std::fmt::Display) -> Failure {
    Failure { text: format!("ERR {text}").into_bytes(), ..Failure::default() }
}

impl Vm {
    /// A fresh machine. An error is a lack of memory.
    pub fn new(options: &Options) -> Result<Vm, String> {
        Self::build(options).map_err(|error| error.to_string())
    }

    fn build(options: &Options) -> mlua::Result<Vm> {
        let wanted = StdLib::TABLE | StdLib::STRING | StdLib::MATH | StdLib::OS;
        let lua = Lua::new_with(wanted, LuaOptions::new().catch_rust_panics(false))?;
        let inner = Rc::new(Inner::default());
        inner.resp.set(2);
        inner.memory_limit.set(options.memory_limit);
        let native = native(&lua, &inner)?;
        let info = constants(&lua, options)?;
        let prelude: Function =
            lua.load(include_str!("prelude.lua")).set_name("=prelude").into_function()?;
        let run: Table =
            prelude.call((native, info, options.kind == Kind::Functions, options.insecure))?;
        let aborting = inner.clone();
        lua.set_global_hook(HookTriggers::new().every_nth_instruction(INTERRUPT), move |lua, _| {
            interrupt(lua, &aborting)
        })?;
        Ok(Vm {
            run_eval: run.get("eval")?,
            run_eval_tables: run.get("eval_tables")?,
            run_call: run.get("call")?,
            run_load: run.get("load")?,
            run_loaded: run.get("loaded")?,
            compile: run.get("compile")?,
            lua,
            inner,
        })
    }

    /// Compiles source text; the error is Lua's message. `name` as Lua takes it (`@user_script`).
    pub fn compile(&self, source: &[u8], name: &str) -> Result<Chunk, String> {
        let source = self.lua.create_string(source).map_err(|e| e.to_string())?;
        match self.compile.call::<(Value, Value)>((source, name)) {
            Ok((Value::Function(f), _)) => Ok(Chunk(f)),
            Ok((_, Value::String(problem))) => Err(problem.to_string_lossy()),
            Ok(_) => Err("out of memory".to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Runs a script and writes its result. `None`: the run was aborted by the host, and nothing was written.
    pub fn eval(
        &self,
        chunk: &Chunk,
        keys: &[&[u8]],
        args: &[&[u8]],
        host: &mut dyn Host,
        reply: &mut Writer,
    ) -> Option<Result<(), Failure>> {
        if keys.len() + args.len() > STACK_ARGS {
            let tables = || Ok::<_, mlua::Error>((self.strings(keys)?, self.strings(args)?));
            return match tables() {
                Ok((keys, args)) => self.run(&self.run_eval_tables, (&chunk.0, keys, args), host, reply),
                Err(error) => Some(Err(internal(error))),
            };
        }
        let words: Variadic<&bstr::BStr> =
            keys.iter().chain(args).map(|word| <&bstr::BStr>::from(*word)).collect();
        self.run(&self.run_eval, (&chunk.0, keys.len(), words), host, reply)
    }

    /// Calls a library's function with its keys and arguments.
    pub fn call(
        &self,
        function: &Chunk,
        keys: &[&[u8]],
        args: &[&[u8]],
        host: &mut dyn Host,
        reply: &mut Writer,
    ) -> Option<Result<(), Failure>> {
        let tables = || Ok::<_, mlua::Error>((self.strings(keys)?, self.strings(args)?));
        match tables() {
            Ok((keys, args)) => self.run(&self.run_call, (&function.0, keys, args), host, reply),
            Err(error) => Some(Err(internal(error))),
        }
    }

    /// Runs a library's code; returns the functions that it registered.
    pub fn load(&self, chunk: &Chunk, host: &mut dyn Host) -> Result<Vec<(Vec<u8>, Chunk)>, LoadError> {
        self.inner.registered.borrow_mut().clear();
        let outcome = self.guarded(&self.run_load, &chunk.0, host);
        self.run_loaded.call::<()>(()).map_err(|error| LoadError::Failed(internal(error)))?;
        let registered = std::mem::take(&mut *self.inner.registered.borrow_mut());
        match outcome {
            None => Err(LoadError::Aborted),
            Some(Err(failure)) => Err(LoadError::Failed(failure)),
            Some(Ok(_)) => Ok(registered.into_iter().map(|(name, f)| (name, Chunk(f))).collect()),
        }
    }

    fn strings(&self, words: &[&[u8]]) -> mlua::Result<Table> {
        let table = self.lua.create_table_with_capacity(words.len(), 0)?;
        for (i, word) in words.iter().enumerate() {
            table.raw_set(i + 1, self.lua.create_string(word)?)?;
        }
        Ok(table)
    }

    fn run(
        &self,
        runner: &Function,
        args: impl IntoLuaMulti,
        host: &mut dyn Host,
        reply: &mut Writer,
    ) -> Option<Result<(), Failure>> {
        match self.guarded(runner, args, host)? {
            Err(failure) => Some(Err(failure)),
            Ok(value) => {
                let start = reply.len();
                Some(reply::write(value, self.inner.resp.get(), reply).map_err(|error| {
                    reply.truncate(start);
                    internal(error)
                }))
            }
        }
    }

    /// One run under the machine's limits. `None`: aborted.
    fn guarded(
        &self,
        runner: &Function,
        args: impl IntoLuaMulti,
        host: &mut dyn Host,
    ) -> Option<Result<Value, Failure>> {
        let inner = &*self.inner;
        inner.resp.set(2);
        inner.aborted.set(false);
        let outcome = with_host(host, || runner.call::<Ran>(args));
        if inner.aborted.get() {
            self.disarm();
            return None;
        }
        Some(match outcome {
            Ok((true, value)) => Ok(value),
            Ok((false, problem)) => Err(failure(problem)),
            Err(mlua::Error::MemoryError(_)) => Err(internal("not enough memory")),
            Err(error) => Err(internal(error)),
        })
    }

    /// Back to the usual hook after an abort.
    fn disarm(&self) {
        self.inner.aborted.set(false);
        let aborting = self.inner.clone();
        // Setting a hook allocates nothing that could fail for lack of memory but its callback's box.
        let _ = self.lua.set_global_hook(
            HookTriggers::new().every_nth_instruction(INTERRUPT),
            move |lua, _| interrupt(lua, &aborting),
        );
    }

    /// Bytes that the machine holds.
    pub fn used_memory(&self) -> usize {
        self.lua.used_memory()
    }

    /// The version that the last run chose by `redis.setresp`.
    pub fn resp(&self) -> u8 {
        self.inner.resp.get()
    }

    /// A full collection, after much became garbage.
    pub fn collect(&self) {
        let _ = self.lua.gc_collect();
    }
}

/// The error of a run as its message handler left it.
fn failure(problem: Value) -> Failure {
    let Value::Table(table) = problem else { return internal("unknown error") };
    let text = match table.raw_get("err") {
        Ok(Value::String(text)) => text.as_bytes().to_vec(),
        _ => b"ERR unknown error".to_vec(),
    };
    let source = match table.raw_get("source") {
        Ok(Value::String(source)) => Some(source.as_bytes().to_vec()),
        _ => None,
    };
    let line = match table.raw_get("line") {
        Ok(Value::Integer(line)) => Some(line),
        Ok(Value::Number(line)) => Some(line as i64),
        _ => None,
    };
    let is_counted = matches!(table.raw_get("ignore_error_stats_update"), Ok(Value::Boolean(true)));
    Failure { text, position: source.zip(line), is_counted }
}

/// The run is to end, whatever the script catches: from now on every instruction raises.
fn abort(lua: &Lua, inner: &Rc<Inner>) -> mlua::Error {
    inner.aborted.set(true);
    let aborting = inner.clone();
    let _ = lua.set_global_hook(HookTriggers::new().every_nth_instruction(1), move |lua, _| {
        interrupt(lua, &aborting)
    });
    mlua::Error::runtime("aborted")
}

fn interrupt(lua: &Lua, inner: &Rc<Inner>) -> mlua::Result<VmState> {
    if inner.aborted.get() {
        return Err(abort(lua, inner));
    }
    match host(|host| host.interrupt()) {
        Some(Err(Abort)) => Err(abort(lua, inner)),
        Some(Ok(())) | None => Ok(VmState::Continue),
    }
}

/// Numbers and names in the `server` table.
fn constants(lua: &Lua, options: &Options) -> mlua::Result<Table> {
    let info = lua.create_table()?;
    let levels = [("LOG_DEBUG", 0), ("LOG_VERBOSE", 1), ("LOG_NOTICE", 2), ("LOG_WARNING", 3)];
    let targets = [("REPL_NONE", 0), ("REPL_AOF", 1), ("REPL_SLAVE", 2), ("REPL_REPLICA", 2), ("REPL_ALL", 3)];
    for (name, value) in levels.into_iter().chain(targets) {
        info.set(name, value)?;
    }
    let number = |version: &str| {
        let mut parts = version.split('.').map(|part| part.parse::<i64>().unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        (next() << 16) | (next() << 8) | next()
    };
    info.set("REDIS_VERSION", options.redis_version.as_str())?;
    info.set("REDIS_VERSION_NUM", number(&options.redis_version))?;
    info.set("VALKEY_VERSION", options.valkey_version.as_str())?;
    info.set("VALKEY_VERSION_NUM", number(&options.valkey_version))?;
    info.set("SERVER_NAME", "valkey")?;
    Ok(info)
}

/// Functions in Rust that the prelude builds on.
fn native(lua: &Lua, inner: &Rc<Inner>) -> mlua::Result<Table> {
    let native = lua.create_table()?;
    let state = inner.clone();
    native.set(
        "call",
        lua.create_function(move |lua, (count, a, b, c, d, e, f): (usize, Arg, Arg, Arg, Arg, Arg, Arg)| {
            let args = [a, b, c, d, e, f];
            call(lua, &state, args.get(..count).unwrap_or_default())
        })?,
    )?;
    let state = inner.clone();
    native.set(
        "call_many",
        lua.create_function(move |lua, (count, table): (usize, Table)| call(lua, &state, &list(count, &table)?))?,
    )?;
    native.set(
        "acl_check_cmd",
        lua.create_function(|lua, (count, table): (usize, Table)| {
            let args = list(count, &table)?;
            let Some(words) = words(&args) else {
                return Ok((Some(lua.create_string(NOT_STRINGS)?), false));
            };
            match host(|host| host.may_run(&words)) {
                Some(Ok(may)) => Ok((None, may)),
                Some(Err(problem)) => Ok((Some(lua.create_string(problem)?), false)),
                None => Ok((Some(lua.create_string("ERR no command can run now")?), false)),
            }
        })?,
    )?;
    native.set(
        "log",
        lua.create_function(|_, (level, text): (u8, mlua::String)| {
            host(|host| host.log(level, &text.as_bytes()));
            Ok(())
        })?,
    )?;
    let state = inner.clone();
    native.set(
        "setresp",
        lua.create_function(move |_, version: u8| {
            state.resp.set(version);
            host(|host| host.set_resp(version));
            Ok(())
        })?,
    )?;
    // Effects are what is journaled, and they always are.
    native.set("set_repl", lua.create_function(|_, _: Value| Ok(()))?)?;
    native.set("where", lua.create_function(|lua, ()| Ok(position(lua)))?)?;
    native.set(
        "sha1hex",
        lua.create_function(|_, text: mlua::String| {
            let digest = Sha1::digest(&*text.as_bytes());
            Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        })?,
    )?;
    let state = inner.clone();
    native.set("random", lua.create_function(move |_, ()| Ok(random(&state)))?)?;
    let state = inner.clone();
    native.set(
        "randomseed",
        lua.create_function(move |_, seed: f64| {
            state.random.set((u64::from(seed as i64 as u32) << 16) | 0x330e);
            Ok(())
        })?,
    )?;
    let state = inner.clone();
    native.set(
        "register_function",
        lua.create_function(move |lua, (count, args): (usize, Variadic<Value>)| {
            register(&state, count, args).map_err(|text| lua.create_string(text)).err().transpose()
        })?,
    )?;
    native.set("libraries", libs::tables(lua)?)?;
    Ok(native)
}

/// The 48-bit linear congruential generator of POSIX, between 0 and 1.
fn random(inner: &Inner) -> f64 {
    let next = inner.random.get().wrapping_mul(0x5_deec_e66d).wrapping_add(0xb) & ((1 << 48) - 1);
    inner.random.set(next);
    let number = (next >> 17) % 0x7fff_ffff;
    number as f64 / f64::from(0x7fff_ffff)
}

const NOT_STRINGS: &str = "ERR Command arguments must be strings or integers";

fn list(count: usize, table: &Table) -> mlua::Result<Vec<Arg>> {
    // The table holds what a Lua call passed: its count is no client's claim.
    (1..=count).map(|i| table.raw_get::<Arg>(i)).collect()
}

fn words(args: &[Arg]) -> Option<Vec<&[u8]>> {
    args.iter()
        .map(|arg| match arg {
            Arg::Bytes(bytes) => Some(bytes.as_slice()),
            Arg::Other => None,
        })
        .collect()
}

/// `redis.call` and `redis.pcall`: whether it went well, and the reply or the error's table.
fn call(lua: &Lua, inner: &Rc<Inner>, args: &[Arg]) -> mlua::Result<(bool, Value)> {
    let refuse = |text: &str| {
        let table = lua.create_table_with_capacity(0, 1)?;
        table.raw_set("err", text)?;
        Ok((false, Value::Table(table)))
    };
    if args.is_empty() {
        return refuse("ERR Please specify at least one argument for this call");
    }
    let Some(words) = words(args) else { return refuse(NOT_STRINGS) };
    let mut reply = inner.scratch.take();
    reply.clear();
    reply.set_protocol(if inner.resp.get() >= RESP3 { Protocol::Resp3 } else { Protocol::Resp2 });
    let outcome = host(|host| host.call(&words, &mut reply));
    let result = match outcome {
        Some(Ok(())) => reply::to_lua(lua, reply.as_bytes()).map(|(value, is_error)| (!is_error, value)),
        Some(Err(Abort)) => Err(abort(lua, inner)),
        None => refuse("ERR server.call can only be called inside a script invocation"),
    };
    if reply.buffer().capacity() > 1 << 20 {
        reply = Writer::default();
    }
    inner.scratch.replace(reply);
    result
}

/// Where the innermost code of a script is: its chunk's name and line. Called by the prelude's message handler.
fn position(lua: &Lua) -> (Option<mlua::String>, Option<usize>) {
    // Levels 0 and 1 are this function and the handler. The prelude's functions stand for native ones.
    for level in 2..30 {
        let found = lua.inspect_stack(level, |debug| {
            let source = debug.source();
            let is_script = source.what != "C" && source.source.as_deref().is_some_and(|s| s != "=prelude");
            (is_script, source.source.map(|s| s.into_owned()), debug.current_line())
        });
        match found {
            Some((true, Some(source), Some(line))) => return (lua.create_string(source).ok(), Some(line)),
            Some(_) => {}
            None => break,
        }
    }
    (None, None)
}

/// `redis.register_function`: by position (name, callback) or by names in one table.
fn register(inner: &Inner, count: usize, args: Variadic<Value>) -> Result<(), String> {
    let args: MultiValue = args.into_iter().collect::<Vec<_>>().into();
    let (function, callback) = libs::register::parse(count, &args)?;
    let name = function.name.clone();
    match host(|host| host.register(function)) {
        Some(done) => done?,
        None => return Err("ERR server.register_function can only be called on FUNCTION LOAD command".into()),
    }
    inner.registered.borrow_mut().push((name, callback));
    Ok(())
}

impl LibraryFunction {
    pub(crate) fn named(name: Vec<u8>) -> Self {
        LibraryFunction { name, description: None, flags: Vec::new() }
    }
}
