//! The hot path by Lua's C interface: a run under one protected call, `server.call` with arguments borrowed from Lua's
//! stack, replies and results that go straight from one form into the other, and the hook that asks whether to go on.
//!
//! Boundary: the crate's only unsafe code; everything else goes by `mlua`. Three rules make it sound:
//! - Lua's errors are long jumps. A function that calls anything that may raise (marked "raises") keeps nothing with a
//!   destructor in its frame while it does; what must outlive the call belongs to [`Raw`].
//! - The engine runs only inside `enter`, which calls nothing that raises and lets no panic out.
//! - Bytes of a Lua string are borrowed only while the string is on the stack.

mod reply;
mod result;
mod state;

pub(crate) use state::State;

use crate::host::{Abort, Host, host, with_host};
use crate::number;
use crate::vm::{Ended, Failure};
use kara_resp::{Protocol, Writer};
use mlua::ffi::{self, lua_Debug, lua_State};
use mlua::{Function, Lua, Table};
use result::Level;
use smallvec::SmallVec;
use std::any::Any;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;

/// The protocol version 3 of `redis.setresp`.
pub(crate) const RESP3: u8 = 3;
/// How many VM instructions pass between two questions to the host whether the script may go on.
const INTERRUPT: c_int = 100_000;
/// Calls within calls (a script that runs scripts): so many replies can be under way.
const NESTED: usize = 8;
/// Replies larger than this aren't kept for the next call, bytes.
const KEPT: usize = 1 << 20;

/// Where code of a script is: the chunk's name and the line.
pub(crate) type Place = (Vec<u8>, i64);

/// What a machine's C functions share.
pub(crate) struct Raw {
    main: Cell<*mut lua_State>,
    /// The state whose code runs, a coroutine perhaps.
    current: Cell<*mut lua_State>,
    runner: Cell<c_int>,
    handler: Cell<c_int>,
    names: Cell<[c_int; 4]>,
    /// The run is to end: every hook and every call raises.
    aborted: Cell<bool>,
    pub(crate) resp: Cell<u8>,
    stopped_at: RefCell<Option<Place>>,
    /// A panic of the engine's on its way past Lua.
    panic: RefCell<Option<Box<dyn Any + Send>>>,
    replies: [UnsafeCell<Writer>; NESTED],
    depth: Cell<usize>,
    levels: UnsafeCell<Vec<Level>>,
    /// The result is an error that was counted already.
    counted: Cell<bool>,
}

impl Default for Raw {
    fn default() -> Self {
        Raw {
            main: Cell::new(ptr::null_mut()),
            current: Cell::new(ptr::null_mut()),
            runner: Cell::new(ffi::LUA_NOREF),
            handler: Cell::new(ffi::LUA_NOREF),
            names: Cell::new([ffi::LUA_NOREF; 4]),
            aborted: Cell::new(false),
            resp: Cell::new(2),
            stopped_at: RefCell::default(),
            panic: RefCell::default(),
            replies: Default::default(),
            depth: Cell::new(0),
            levels: UnsafeCell::default(),
            counted: Cell::new(false),
        }
    }
}

/// What is to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A script: keys and arguments are globals.
    Script,
    /// A library's function: they are its arguments.
    Function,
}

/// One run, as its C function sees it.
struct Run<'a> {
    entry: Entry,
    chunk: usize,
    keys: &'a [&'a [u8]],
    args: &'a [&'a [u8]],
    out: *mut Writer,
}

/// Fields of an error as the message handler leaves it; `names` has their references.
const FAILURE: [&CStr; 4] = [c"err", c"source", c"line", c"ignore_error_stats_update"];

/// The key of [`Raw`] in the registry is this one's address.
static KEY: u8 = 0;

/// Upvalues of the C function that runs: [`Raw`], chunks, globals, and the names of globals and of a result's fields.
mod up {
    pub const RAW: i32 = 1;
    pub const CHUNKS: i32 = 2;
    pub const GLOBALS: i32 = 3;
    pub const KEYS: i32 = 4;
    pub const ARGV: i32 = 5;
    pub const ERR: i32 = 6;
    pub const OK: i32 = 7;
    pub const DOUBLE: i32 = 8;
    pub const MAP: i32 = 9;
    pub const SET: i32 = 10;
    pub const BIG_NUMBER: i32 = 11;
    pub const VERBATIM: i32 = 12;
    pub const FORMAT: i32 = 13;
    pub const STRING: i32 = 14;
    pub const COUNTED: i32 = 15;
    pub const NAMES: [&std::ffi::CStr; 12] = [
        c"KEYS",
        c"ARGV",
        c"err",
        c"ok",
        c"double",
        c"map",
        c"set",
        c"big_number",
        c"verbatim_string",
        c"format",
        c"string",
        c"ignore_error_stats_update",
    ];
}

const fn upvalue(at: i32) -> c_int {
    ffi::lua_upvalueindex(at)
}

impl Raw {
    /// Makes `server.call` and `server.pcall`. This value must outlive the machine and not move.
    pub(crate) fn calls(&self, lua: &Lua) -> mlua::Result<(Function, Function)> {
        let own = ptr::from_ref(self).cast_mut().cast::<c_void>();
        // SAFETY: raises under `exec_raw`'s protection; the closure owns nothing.
        unsafe {
            lua.exec_raw((), |state| {
                for function in [call as ffi::lua_CFunction, pcall] {
                    ffi::lua_pushlightuserdata(state, own);
                    ffi::lua_pushcclosure(state, function, 1);
                }
            })
        }
    }

    /// Sets the machine up: its hook, and what runs take from it.
    pub(crate) fn install(
        &self,
        lua: &Lua,
        handler: &Function,
        chunks: &Table,
        globals: &Table,
    ) -> mlua::Result<()> {
        let own = ptr::from_ref(self).cast_mut().cast::<c_void>();
        // SAFETY: raises under `exec_raw`'s protection; the closure owns nothing. The three arguments are on the stack.
        unsafe {
            lua.exec_raw::<()>((handler, chunks, globals), |state| {
                self.main.set(state);
                self.current.set(state);
                ffi::lua_pushlightuserdata(state, key());
                ffi::lua_pushlightuserdata(state, own);
                ffi::lua_rawset(state, ffi::LUA_REGISTRYINDEX);
                let mut names = [ffi::LUA_NOREF; 4];
                for (name, reference) in FAILURE.iter().zip(&mut names) {
                    ffi::lua_pushstring_(state, name.as_ptr());
                    *reference = ffi::luaL_ref(state, ffi::LUA_REGISTRYINDEX);
                }
                self.names.set(names);
                ffi::lua_pushlightuserdata(state, own);
                ffi::lua_pushvalue(state, 2);
                ffi::lua_pushvalue(state, 3);
                for name in up::NAMES {
                    ffi::lua_pushstring_(state, name.as_ptr());
                }
                ffi::lua_pushcclosure(state, run, up::COUNTED);
                self.runner.set(ffi::luaL_ref(state, ffi::LUA_REGISTRYINDEX));
                ffi::lua_pushvalue(state, 1);
                self.handler.set(ffi::luaL_ref(state, ffi::LUA_REGISTRYINDEX));
                ffi::lua_settop(state, 0);
                ffi::lua_sethook(state, Some(hook), ffi::LUA_MASKCOUNT, INTERRUPT);
            })
        }
    }

    /// Runs a chunk under `host` and writes its result. `None`: the run was aborted. What was written is the caller's to
    /// take back unless all went well.
    pub(crate) fn run(
        &self,
        entry: Entry,
        chunk: usize,
        keys: &[&[u8]],
        args: &[&[u8]],
        host: &mut dyn Host,
        out: &mut Writer,
    ) -> Option<Result<Ended, Failure>> {
        let run = Run { entry, chunk, keys, args, out };
        let (state, depth) = (self.current.get(), self.depth.get());
        let failure = with_host(host, || {
            // SAFETY: the state is the machine's, and nobody else uses it now. A C function has 20 free slots, and outside
            // of one the stack is empty; pushing references and light userdata raises nothing, and the rest is protected.
            // `run` outlives the call.
            unsafe {
                let base = ffi::lua_gettop(state);
                ffi::lua_rawgeti_(state, ffi::LUA_REGISTRYINDEX, self.handler.get());
                ffi::lua_rawgeti_(state, ffi::LUA_REGISTRYINDEX, self.runner.get());
                ffi::lua_pushlightuserdata(state, ptr::from_ref(&run).cast_mut().cast());
                let status = ffi::lua_pcall(state, 1, 0, base + 1);
                let failure = (status != ffi::LUA_OK).then(|| self.failure(state, status));
                ffi::lua_settop(state, base);
                failure
            }
        });
        self.current.set(state);
        self.depth.set(depth);
        let ended = if self.counted.get() { Ended::Counted } else { Ended::Result };
        let ended = failure.map_or(Ok(ended), Err);
        if self.end() { None } else { Some(ended) }
    }

    /// Before a run, through here or through `mlua`.
    pub(crate) fn begin(&self) {
        self.resp.set(2);
        self.counted.set(false);
        self.aborted.set(false);
    }

    /// Behind it: whether it was aborted. A panic goes on from here.
    pub(crate) fn end(&self) -> bool {
        let aborted = self.aborted.replace(false);
        if aborted {
            // SAFETY: setting a hook raises nothing.
            unsafe { ffi::lua_sethook(self.main.get(), Some(hook), ffi::LUA_MASKCOUNT, INTERRUPT) };
        }
        if let Some(panic) = self.panic.take() {
            resume_unwind(panic);
        }
        aborted
    }

    /// Where the last aborted run was.
    pub(crate) fn stopped_at(&self) -> Option<Place> {
        self.stopped_at.borrow().clone()
    }

    /// The error on top of the stack. Raises nothing: names are references, texts are copied only where they are texts.
    ///
    /// # Safety
    /// Three more slots are free.
    unsafe fn failure(&self, state: *mut lua_State, status: c_int) -> Failure {
        // SAFETY: the error is on the stack; tables are read without metamethods.
        unsafe {
            if status == ffi::LUA_ERRMEM {
                return Failure { text: b"ERR not enough memory".to_vec(), ..Failure::default() };
            }
            if ffi::lua_type(state, -1) != ffi::LUA_TTABLE {
                let text = text_at(state, -1).unwrap_or(b"unknown error");
                return Failure { text: [b"ERR ", text].concat(), ..Failure::default() };
            }
            let [err, source, line, counted] = self.names.get().map(|name| {
                ffi::lua_rawgeti_(state, ffi::LUA_REGISTRYINDEX, name);
                ffi::lua_rawget_(state, -2);
                let text = text_at(state, -1).map(<[u8]>::to_vec);
                let number = ffi::lua_type(state, -1) == ffi::LUA_TNUMBER;
                let number = number.then(|| ffi::lua_tonumber(state, -1) as i64);
                let truth = ffi::lua_toboolean(state, -1) != 0;
                ffi::lua_settop(state, -2);
                (text, number, truth)
            });
            Failure {
                text: err.0.unwrap_or_else(|| b"ERR unknown error".to_vec()),
                position: source.0.zip(line.1),
                is_counted: counted.2,
            }
        }
    }

    /// The run is to end, whatever the script catches: from now on every instruction raises.
    ///
    /// # Safety
    /// `state` is the one that runs.
    unsafe fn abort(&self, state: *mut lua_State) {
        // SAFETY: looking at frames and setting hooks raises nothing.
        unsafe {
            if !self.aborted.replace(true) {
                self.stopped_at.replace(innermost(state));
            }
            for each in [self.main.get(), state] {
                ffi::lua_sethook(each, Some(hook), ffi::LUA_MASKCOUNT, 1);
            }
        }
    }
}

fn key() -> *mut c_void {
    ptr::from_ref(&KEY).cast_mut().cast()
}

/// The bytes of a string on the stack; `None` for anything else, numbers included.
///
/// # Safety
/// The bytes are used only while the string stays on the stack.
unsafe fn text_at<'s>(state: *mut lua_State, at: c_int) -> Option<&'s [u8]> {
    // SAFETY: for a string nothing is converted, so nothing is allocated or raised; Lua keeps the bytes in place.
    unsafe {
        if ffi::lua_type(state, at) != ffi::LUA_TSTRING {
            return None;
        }
        let mut len = 0;
        let bytes = ffi::lua_tolstring(state, at, &mut len);
        Some(std::slice::from_raw_parts(bytes.cast(), len))
    }
}

/// Pushes a string; raises.
///
/// # Safety
/// A slot is free, and the frames up to the protected call own nothing.
#[inline]
unsafe fn push(state: *mut lua_State, bytes: &[u8]) {
    // SAFETY: Lua copies the bytes. An empty slice's pointer isn't looked at.
    unsafe { ffi::lua_pushlstring_(state, bytes.as_ptr().cast(), bytes.len()) }
}

/// The first code of a script, from the innermost frame on. The prelude's functions stand for native ones.
///
/// # Safety
/// `state` is the one that runs.
unsafe fn innermost(state: *mut lua_State) -> Option<Place> {
    for level in 0..30 {
        // SAFETY: plain data, filled in by the calls below, which raise nothing for these options.
        unsafe {
            let mut frame: lua_Debug = std::mem::zeroed();
            if ffi::lua_getstack(state, level, &mut frame) == 0 {
                return None;
            }
            ffi::lua_getinfo(state, c"Sl".as_ptr(), &mut frame);
            let source = CStr::from_ptr(frame.source).to_bytes();
            let is_native = CStr::from_ptr(frame.what).to_bytes() == b"C";
            if frame.currentline >= 0 && !is_native && source != b"=prelude" {
                return Some((source.to_vec(), i64::from(frame.currentline)));
            }
        }
    }
    None
}

/// Ends the script's call by an error; raises.
///
/// # Safety
/// As for [`push`].
unsafe fn raise_abort(state: *mut lua_State) -> c_int {
    // SAFETY: as the contract says.
    unsafe {
        push(state, b"aborted");
        ffi::lua_error(state)
    }
}

/// Called every now and then while Lua code runs, and at each instruction of a run that is to end.
unsafe extern "C-unwind" fn hook(state: *mut lua_State, _: *mut lua_Debug) {
    // SAFETY: hooks have 20 free slots. The registry has the machine's `Raw`. What raises does so with nothing owned.
    unsafe {
        ffi::lua_pushlightuserdata(state, key());
        ffi::lua_rawget_(state, ffi::LUA_REGISTRYINDEX);
        let raw = ffi::lua_touserdata(state, -1).cast::<Raw>().cast_const();
        ffi::lua_settop(state, -2);
        let Some(raw) = raw.as_ref() else { return };
        if raw.aborted.get() || !may_go_on(raw) {
            raw.abort(state);
            raise_abort(state);
        } else if ffi::lua_gethookcount(state) != INTERRUPT {
            // A coroutine that outlived an aborted run.
            ffi::lua_sethook(state, Some(hook), ffi::LUA_MASKCOUNT, INTERRUPT);
        }
    }
}

/// Asks the host.
fn may_go_on(raw: &Raw) -> bool {
    match catch_unwind(AssertUnwindSafe(|| host(|host| host.interrupt()))) {
        Ok(answer) => answer != Some(Err(Abort)),
        Err(panic) => {
            raw.panic.replace(Some(panic));
            false
        }
    }
}

/// What became of a command.
#[derive(Clone, Copy)]
enum Called {
    Replied,
    Refused(&'static str),
    Aborted,
}

unsafe extern "C-unwind" fn call(state: *mut lua_State) -> c_int {
    // SAFETY: this is one of the two functions that `Raw::calls` made.
    unsafe { run_command(state, true) }
}

unsafe extern "C-unwind" fn pcall(state: *mut lua_State) -> c_int {
    // SAFETY: as above.
    unsafe { run_command(state, false) }
}

/// `server.call` and `server.pcall`; raises.
///
/// # Safety
/// To be called by a C function whose first upvalue is the machine's [`Raw`].
unsafe fn run_command(state: *mut lua_State, raise: bool) -> c_int {
    // SAFETY: nothing in this frame has a destructor: the reply belongs to `Raw`, where nobody touches it before this call
    // has ended (calls within it have others). 20 slots are free.
    unsafe {
        let raw = &*ffi::lua_touserdata(state, upvalue(up::RAW)).cast::<Raw>().cast_const();
        let depth = raw.depth.get();
        let reply = raw.replies[depth % NESTED].get();
        let is_error = match enter(raw, state, reply) {
            Called::Aborted => return raise_abort(state),
            Called::Refused(text) => {
                reply::push_error(state, text.as_bytes(), false);
                true
            }
            Called::Replied => {
                // While Lua allocates, finalizers may run, and they may call.
                raw.depth.set(depth + 1);
                let is_error = reply::push(state, (*reply).as_bytes());
                raw.depth.set(depth);
                is_error
            }
        };
        if is_error && raise { ffi::lua_error(state) } else { 1 }
    }
}

/// Runs the command whose words are on the stack. Raises nothing.
///
/// # Safety
/// As for [`run_command`]; `reply` is nobody else's.
unsafe fn enter(raw: &Raw, state: *mut lua_State, reply: *mut Writer) -> Called {
    if raw.aborted.get() {
        return Called::Aborted;
    }
    if raw.depth.get() >= NESTED {
        return Called::Refused("ERR calls are nested too deep");
    }
    // SAFETY: `reply` is ours, and the words stay on the stack until the end. For strings and numbers nothing is converted.
    unsafe {
        let count = ffi::lua_gettop(state);
        if count == 0 {
            return Called::Refused("ERR Please specify at least one argument for this call");
        }
        let mut numbers = number::Digits::new();
        let mut words: SmallVec<[&[u8]; 8]> = SmallVec::new();
        let mut ends: SmallVec<[(usize, usize); 4]> = SmallVec::new();
        for at in 1..=count {
            match ffi::lua_type(state, at) {
                ffi::LUA_TSTRING => words.push(text_at(state, at).unwrap_or_default()),
                ffi::LUA_TNUMBER => {
                    number::put_argument(&mut numbers, ffi::lua_tonumber(state, at));
                    ends.push((words.len(), numbers.len()));
                    words.push(b"");
                }
                _ => return Called::Refused("ERR Command arguments must be strings or integers"),
            }
        }
        let mut begin = 0;
        for &(word, end) in &ends {
            if let (Some(word), Some(digits)) = (words.get_mut(word), numbers.get(begin..end)) {
                *word = digits;
            }
            begin = end;
        }
        let reply = &mut *reply;
        if reply.buffer().capacity() > KEPT {
            *reply = Writer::default();
        }
        reply.clear();
        reply.set_protocol(if raw.resp.get() >= RESP3 { Protocol::Resp3 } else { Protocol::Resp2 });
        let (outer, depth) = (raw.current.replace(state), raw.depth.get());
        raw.depth.set(depth + 1);
        let answer = catch_unwind(AssertUnwindSafe(|| host(|host| host.call(&words, reply))));
        raw.depth.set(depth);
        raw.current.set(outer);
        match answer {
            Ok(Some(Ok(()))) => Called::Replied,
            Ok(None) => Called::Refused("ERR server.call can only be called inside a script invocation"),
            Ok(Some(Err(Abort))) => {
                raw.abort(state);
                Called::Aborted
            }
            Err(panic) => {
                raw.panic.replace(Some(panic));
                raw.abort(state);
                Called::Aborted
            }
        }
    }
}

/// The C function of a run: prepares keys and arguments, calls the chunk, writes its result. Raises.
unsafe extern "C-unwind" fn run(state: *mut lua_State) -> c_int {
    // SAFETY: the argument is the `Run` of `Raw::run`, the upvalues are those that `Raw::install` gave. Nothing in this
    // frame has a destructor.
    unsafe {
        let run = &*ffi::lua_touserdata(state, 1).cast::<Run<'_>>().cast_const();
        let raw = &*ffi::lua_touserdata(state, upvalue(up::RAW)).cast::<Raw>().cast_const();
        ffi::lua_rawgeti_(state, upvalue(up::CHUNKS), c_int::try_from(run.chunk).unwrap_or(0));
        match run.entry {
            Entry::Script => {
                for (name, words) in [(up::KEYS, run.keys), (up::ARGV, run.args)] {
                    ffi::lua_pushvalue(state, upvalue(name));
                    push_words(state, words);
                    ffi::lua_rawset(state, upvalue(up::GLOBALS));
                }
                ffi::lua_call(state, 0, 1);
            }
            Entry::Function => {
                push_words(state, run.keys);
                push_words(state, run.args);
                ffi::lua_call(state, 2, 1);
            }
        }
        raw.counted.set(result::is_counted(state));
        result::write(state, raw.resp.get(), run.out, raw.levels.get());
        0
    }
}

/// Pushes a table of strings; raises.
///
/// # Safety
/// As for [`push`], with two slots.
unsafe fn push_words(state: *mut lua_State, words: &[&[u8]]) {
    // SAFETY: as the contract says; a request has less than 2^31 words.
    unsafe {
        ffi::lua_createtable(state, c_int::try_from(words.len()).unwrap_or(0), 0);
        for (at, word) in (1..).zip(words) {
            push(state, word);
            ffi::lua_rawseti_(state, -2, at);
        }
    }
}

/// A name's bytes without their zero, for Lua's `char` pointers.
fn chars(name: &CStr) -> *const c_char {
    name.as_ptr()
}
