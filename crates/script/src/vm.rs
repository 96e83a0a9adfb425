//! One virtual machine: its sandbox, compiled chunks, and runs.

use crate::host::{Abort, Host, host, with_host};
use crate::native::{self, constants};
use crate::reply;
use kara_resp::Writer;
use mlua::{Function, HookTriggers, IntoLuaMulti, Lua, LuaOptions, StdLib, Table, Value, Variadic, VmState};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
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

/// A compiled script or a library's function: its number in the machine's table. (A machine has room for some thousand
/// references from outside, no more.)
#[derive(Clone)]
pub struct Chunk(Rc<ChunkId>);

struct ChunkId {
    id: usize,
    inner: Rc<Inner>,
}

impl Drop for ChunkId {
    fn drop(&mut self) {
        self.inner.freed.borrow_mut().push(self.id);
    }
}

impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Chunk({})", self.0.id)
    }
}

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
pub(crate) struct Inner {
    /// The run is to end: every hook raises.
    aborted: Cell<bool>,
    pub(crate) resp: Cell<u8>,
    pub(crate) random: Cell<u64>,
    pub(crate) scratch: RefCell<Writer>,
    /// Functions of the library that is being loaded, by name.
    pub(crate) registered: RefCell<Vec<(Vec<u8>, Chunk)>>,
    next_chunk: Cell<usize>,
    /// Where the run was when it was aborted.
    stopped_at: RefCell<Option<(Vec<u8>, i64)>>,
    /// Chunks that nobody holds any more.
    freed: RefCell<Vec<usize>>,
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
    chunks: Table,
}

impl std::fmt::Debug for Vm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vm").field("used_memory", &self.used_memory()).finish_non_exhaustive()
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
        let lua = Lua::new_with(wanted, LuaOptions::new().catch_rust_panics(true))?;
        let inner = Rc::new(Inner::default());
        inner.resp.set(2);
        lua.set_memory_limit(options.memory_limit)?;
        let chunks = lua.create_table()?;
        let native = native::table(&lua, &inner, &chunks)?;
        let info = constants(&lua, options)?;
        let prelude: Function = lua.load(include_str!("prelude.lua")).set_name("=prelude").into_function()?;
        let run: Table = prelude.call((native, info, options.kind == Kind::Functions, options.insecure))?;
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
            chunks,
            lua,
            inner,
        })
    }

    /// Compiles source text; the error is Lua's message. `name` as Lua takes it (`@user_script`).
    pub fn compile(&self, source: &[u8], name: &str) -> Result<Chunk, String> {
        let source = self.lua.create_string(source).map_err(|e| e.to_string())?;
        match self.compile.call::<(Value, Value)>((source, name)) {
            Ok((Value::Function(f), _)) => self.keep(f).map_err(|e| e.to_string()),
            Ok((_, Value::String(problem))) => Err(problem.to_string_lossy()),
            Ok(_) => Err("out of memory".to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn keep(&self, function: Function) -> mlua::Result<Chunk> {
        for id in self.inner.freed.take() {
            self.chunks.raw_set(id, Value::Nil)?;
        }
        keep(&self.inner, &self.chunks, function)
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
                Ok((keys, args)) => self.run(&self.run_eval_tables, (chunk.0.id, keys, args), host, reply),
                Err(error) => Some(Err(internal(error))),
            };
        }
        let words: Variadic<&bstr::BStr> =
            keys.iter().chain(args).map(|word| <&bstr::BStr>::from(*word)).collect();
        self.run(&self.run_eval, (chunk.0.id, keys.len(), words), host, reply)
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
            Ok((keys, args)) => self.run(&self.run_call, (function.0.id, keys, args), host, reply),
            Err(error) => Some(Err(internal(error))),
        }
    }

    /// Runs a library's code; returns the functions that it registered.
    pub fn load(&self, chunk: &Chunk, host: &mut dyn Host) -> Result<Vec<(Vec<u8>, Chunk)>, LoadError> {
        self.inner.registered.borrow_mut().clear();
        let outcome = self.guarded(&self.run_load, chunk.0.id, host);
        self.run_loaded.call::<()>(()).map_err(|error| LoadError::Failed(internal(error)))?;
        let registered = std::mem::take(&mut *self.inner.registered.borrow_mut());
        match outcome {
            None => Err(LoadError::Aborted),
            Some(Err(failure)) => Err(LoadError::Failed(failure)),
            Some(Ok(_)) => Ok(registered),
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
        // What would panic is a lack of references; see `Chunk`. The machine is of no further use then, the server is.
        let outcome = catch_unwind(AssertUnwindSafe(|| with_host(host, || runner.call::<Ran>(args))))
            .unwrap_or_else(|_| Err(mlua::Error::runtime("the script holds too many values")));
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
        let _ =
            self.lua.set_global_hook(HookTriggers::new().every_nth_instruction(INTERRUPT), move |lua, _| {
                interrupt(lua, &aborting)
            });
    }

    /// Where the last aborted run was: chunk and line.
    pub fn stopped_at(&self) -> Option<(Vec<u8>, i64)> {
        self.inner.stopped_at.borrow().clone()
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
pub(crate) fn abort(lua: &Lua, inner: &Rc<Inner>) -> mlua::Error {
    if !inner.aborted.replace(true) {
        inner.stopped_at.replace(native::innermost(lua, 0));
    }
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

/// Puts a function into the machine's table.
pub(crate) fn keep(inner: &Rc<Inner>, chunks: &Table, function: Function) -> mlua::Result<Chunk> {
    let id = inner.next_chunk.get() + 1;
    inner.next_chunk.set(id);
    chunks.raw_set(id, function)?;
    Ok(Chunk(Rc::new(ChunkId { id, inner: inner.clone() })))
}
