//! One virtual machine: its sandbox, compiled chunks, and runs.

use crate::host::{Host, with_host};
use crate::native::{self, constants};
use crate::raw::{Entry, Raw, State};
use kara_resp::Writer;
use mlua::{Function, Lua, StdLib, Table, Value};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// So much is collected at once, bytes: a fraction of a millisecond's work.
const SMALL: usize = 512 << 10;
/// The collector begins again when the machine has grown to so many percent of what the last collection left.
const PAUSE: i32 = 400;

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

/// How a run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With a result.
    Result,
    /// With an error as its result that a command answered, and that was counted there.
    Counted,
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
    pub(crate) raw: Raw,
    pub(crate) random: Cell<u64>,
    /// Functions of the library that is being loaded, by name.
    pub(crate) registered: RefCell<Vec<(Vec<u8>, Chunk)>>,
    next_chunk: Cell<usize>,
    /// Chunks that nobody holds any more.
    freed: RefCell<Vec<usize>>,
}

/// A virtual machine. Belongs to one thread.
pub struct Vm {
    reset: Function,
    run_load: Function,
    run_loaded: Function,
    compile: Function,
    chunks: Table,
    lua: Lua,
    // Behind all that refers to it, and before `inner`, which its functions refer to.
    state: State,
    inner: Rc<Inner>,
    /// Something ran since garbage was last looked after.
    ran: Cell<bool>,
}

impl std::fmt::Debug for Vm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vm").field("used_memory", &self.used_memory()).finish_non_exhaustive()
    }
}

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
        let (state, lua) = State::new(wanted, options.memory_limit)
            .ok_or_else(|| mlua::Error::MemoryError("no memory for a machine".to_string()))?;
        let lua = lua?;
        lua.gc_set_pause(PAUSE);
        let inner = Rc::new(Inner::default());
        let chunks = lua.create_table()?;
        let native = native::table(&lua, &inner, &chunks)?;
        let info = constants(&lua, options)?;
        let prelude: Function = lua.load(include_str!("prelude.lua")).set_name("=prelude").into_function()?;
        let run: Table = prelude.call((native, info, options.kind == Kind::Functions, options.insecure))?;
        inner.raw.install(&lua, &run.get("handler")?, &chunks, &run.get("globals")?)?;
        Ok(Vm {
            ran: Cell::new(true),
            reset: run.get("reset")?,
            run_load: run.get("load")?,
            run_loaded: run.get("loaded")?,
            compile: run.get("compile")?,
            chunks,
            lua,
            state,
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
    ) -> Option<Result<Ended, Failure>> {
        self.run(Entry::Script, chunk, keys, args, host, reply)
    }

    /// Calls a library's function with its keys and arguments.
    pub fn call(
        &self,
        function: &Chunk,
        keys: &[&[u8]],
        args: &[&[u8]],
        host: &mut dyn Host,
        reply: &mut Writer,
    ) -> Option<Result<Ended, Failure>> {
        self.run(Entry::Function, function, keys, args, host, reply)
    }

    /// Runs a library's code; returns the functions that it registered.
    pub fn load(&self, chunk: &Chunk, host: &mut dyn Host) -> Result<Vec<(Vec<u8>, Chunk)>, LoadError> {
        self.inner.registered.borrow_mut().clear();
        let raw = &self.inner.raw;
        raw.begin();
        let ran = with_host(host, || self.run_load.call::<(bool, Value)>(chunk.0.id));
        let outcome = if raw.end() {
            None
        } else {
            Some(match ran {
                Ok((true, _)) => Ok(()),
                Ok((false, problem)) => Err(failure(problem)),
                Err(error) => Err(internal(error)),
            })
        };
        if !matches!(outcome, Some(Ok(()))) {
            self.reset();
        }
        self.run_loaded.call::<()>(()).map_err(|error| LoadError::Failed(internal(error)))?;
        let registered = std::mem::take(&mut *self.inner.registered.borrow_mut());
        match outcome {
            None => Err(LoadError::Aborted),
            Some(Err(failure)) => Err(LoadError::Failed(failure)),
            Some(Ok(())) => Ok(registered),
        }
    }

    fn run(
        &self,
        entry: Entry,
        chunk: &Chunk,
        keys: &[&[u8]],
        args: &[&[u8]],
        host: &mut dyn Host,
        reply: &mut Writer,
    ) -> Option<Result<Ended, Failure>> {
        let start = reply.len();
        self.inner.raw.begin();
        self.ran.set(true);
        let ended = self.inner.raw.run(entry, chunk.0.id, keys, args, host, reply);
        if !matches!(ended, Some(Ok(_))) {
            reply.truncate(start);
            self.reset();
        }
        ended
    }

    #[cold]
    fn reset(&self) {
        // It sets a number.
        let _ = self.reset.call::<()>(());
    }

    /// Where the last aborted run was: chunk and line.
    pub fn stopped_at(&self) -> Option<(Vec<u8>, i64)> {
        self.inner.raw.stopped_at()
    }

    /// To be called now and then: collects the garbage of a small machine, so that what it holds is what it needs.
    pub fn tidy_up(&self) {
        if self.ran.take() && self.used_memory() < SMALL {
            self.collect();
        }
    }

    /// Bytes that the machine holds.
    pub fn used_memory(&self) -> usize {
        self.state.used_memory()
    }

    /// The version that the last run chose by `redis.setresp`.
    pub fn resp(&self) -> u8 {
        self.inner.raw.resp.get()
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

/// Puts a function into the machine's table.
pub(crate) fn keep(inner: &Rc<Inner>, chunks: &Table, function: Function) -> mlua::Result<Chunk> {
    let id = inner.next_chunk.get() + 1;
    inner.next_chunk.set(id);
    chunks.raw_set(id, function)?;
    Ok(Chunk(Rc::new(ChunkId { id, inner: inner.clone() })))
}
