//! Native functions: what scripts call by the `server` table, and what the prelude builds on.

use crate::host::{LibraryFunction, host};
use crate::vm::{Inner, Options, keep};
use crate::{libs, number};
use mlua::{Function, Lua, MultiValue, Table, Value, Variadic};
use sha1::{Digest, Sha1};
use std::rc::Rc;

/// An error that a native function raises; the prelude makes a Lua value of it where it is caught.
#[derive(Debug)]
pub(crate) struct Raised {
    /// A table with this as `err`, or a plain text.
    is_table: bool,
    text: Vec<u8>,
}

impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.text))
    }
}

impl std::error::Error for Raised {}

/// An error of a library function: the text with the caller's position before it, as `luaL_error` words it.
pub(crate) fn positioned(lua: &Lua, text: &str) -> mlua::Error {
    let place = lua.inspect_stack(1, |debug| {
        let source = debug.source();
        debug.current_line().map(|line| format!("{}:{line}: ", source.short_src.unwrap_or_default()))
    });
    let text = format!("{}{text}", place.flatten().unwrap_or_default()).into_bytes();
    mlua::Error::external(Raised { is_table: false, text })
}

/// An error of the server's own functions: a table.
fn refuse<R>(text: impl Into<Vec<u8>>) -> mlua::Result<R> {
    Err(mlua::Error::external(Raised { is_table: true, text: text.into() }))
}

/// The Lua value of an error that a native function raised; other values stay.
fn unwrap(lua: &Lua, value: Value) -> mlua::Result<Value> {
    let Value::Error(error) = &value else { return Ok(value) };
    let Some(raised) = raised_in(error) else {
        return Ok(Value::String(lua.create_string(error.to_string().lines().next().unwrap_or_default())?));
    };
    if !raised.is_table {
        return Ok(Value::String(lua.create_string(&raised.text)?));
    }
    let table = lua.create_table_with_capacity(0, 4)?;
    table.raw_set("err", lua.create_string(&raised.text)?)?;
    Ok(Value::Table(table))
}

/// Numbers and names in the `server` table.
pub(crate) fn constants(lua: &Lua, options: &Options) -> mlua::Result<Table> {
    let info = lua.create_table()?;
    let levels = [("LOG_DEBUG", 0), ("LOG_VERBOSE", 1), ("LOG_NOTICE", 2), ("LOG_WARNING", 3)];
    let targets =
        [("REPL_NONE", 0), ("REPL_AOF", 1), ("REPL_SLAVE", 2), ("REPL_REPLICA", 2), ("REPL_ALL", 3)];
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

/// What was raised, from under the traceback that `mlua` wraps around it.
fn raised_in(error: &mlua::Error) -> Option<&Raised> {
    match error {
        mlua::Error::CallbackError { cause, .. } => raised_in(cause),
        other => other.downcast_ref::<Raised>(),
    }
}

/// Functions in Rust that the prelude builds on.
pub(crate) fn table(lua: &Lua, inner: &Rc<Inner>, chunks: &Table) -> mlua::Result<Table> {
    let native = lua.create_table()?;
    native.set("chunks", chunks)?;
    native.set("libraries", libs::tables(lua)?)?;
    native.set("server", server(lua, inner)?)?;
    native.set("unwrap", lua.create_function(unwrap)?)?;
    native.set("where", lua.create_function(|lua, ()| Ok(position(lua)))?)?;
    let state = inner.clone();
    native.set(
        "random",
        lua.create_function(move |lua, args: Variadic<Value>| {
            let r = random(&state);
            let bound = |at: usize| {
                let value = args.get(at);
                let number = value.and_then(|value| libs::to_number(lua, value)).map(f64::floor);
                number.ok_or_else(|| positioned(lua, &libs::bad_argument(at + 1, "random", "number", value)))
            };
            let empty =
                |at: usize| positioned(lua, &format!("bad argument #{at} to 'random' (interval is empty)"));
            match args.len() {
                0 => Ok(r),
                1 => match bound(0)? {
                    high if high >= 1.0 => Ok((r * high).floor() + 1.0),
                    _ => Err(empty(1)),
                },
                2 => match (bound(0)?, bound(1)?) {
                    (low, high) if low <= high => Ok((r * (high - low + 1.0)).floor() + low),
                    _ => Err(empty(2)),
                },
                _ => Err(positioned(lua, "wrong number of arguments")),
            }
        })?,
    )?;
    let state = inner.clone();
    native.set(
        "randomseed",
        lua.create_function(move |_, seed: f64| {
            state.random.set((u64::from(seed as i64 as u32) << 16) | 0x330e);
            Ok(())
        })?,
    )?;
    let (state, chunks) = (inner.clone(), chunks.clone());
    native.set(
        "register_function",
        lua.create_function(move |_, args: MultiValue| match register(&state, &chunks, &args) {
            Ok(()) => Ok(()),
            Err(text) => refuse(text),
        })?,
    )?;
    Ok(native)
}

/// What scripts find in the `server` table.
fn server(lua: &Lua, inner: &Rc<Inner>) -> mlua::Result<Table> {
    let server = lua.create_table()?;
    let (call, pcall) = inner.raw.calls(lua)?;
    server.set("call", call)?;
    server.set("pcall", pcall)?;
    server.set(
        "acl_check_cmd",
        lua.create_function(|_, args: MultiValue| {
            if args.is_empty() {
                return refuse("ERR Please specify at least one argument for this call");
            }
            let Some(words) = words(&args) else { return refuse(NOT_STRINGS) };
            let words: Vec<&[u8]> = words.iter().map(|word| word.as_slice()).collect();
            match host(|host| host.may_run(&words)) {
                Some(Ok(may)) => Ok(may),
                Some(Err(problem)) => refuse(problem),
                None => refuse(OUTSIDE),
            }
        })?,
    )?;
    server.set("log", lua.create_function(|lua, args: Variadic<Value>| log(lua, &args))?)?;
    let state = inner.clone();
    server.set(
        "setresp",
        lua.create_function(move |lua, args: Variadic<Value>| {
            let [version] = &args[..] else { return refuse("ERR server.setresp() requires one argument.") };
            match libs::to_number(lua, version).map(f64::trunc) {
                Some(n) if n == 2.0 || n == 3.0 => state.raw.resp.set(n as u8),
                _ => return refuse("ERR RESP version must be 2 or 3."),
            }
            host(|host| host.set_resp(state.raw.resp.get()));
            Ok(())
        })?,
    )?;
    server.set(
        "set_repl",
        lua.create_function(|lua, args: Variadic<Value>| {
            let [flags] = &args[..] else { return refuse("ERR server.set_repl() requires one argument.") };
            match libs::to_number(lua, flags).map(f64::trunc) {
                Some(n) if (0.0..=3.0).contains(&n) => {
                    let bits = n as u8;
                    host(|host| host.set_repl(bits & 1 != 0, bits & 2 != 0));
                    Ok(())
                }
                _ => refuse(
                    "ERR Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.",
                ),
            }
        })?,
    )?;
    server.set(
        "sha1hex",
        lua.create_function(|_, args: Variadic<Value>| {
            let [text] = &args[..] else { return refuse("ERR wrong number of arguments") };
            let digest = Sha1::digest(text_of(text).unwrap_or_default());
            Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        })?,
    )?;
    Ok(server)
}

/// The 48-bit linear congruential generator of POSIX, between 0 and 1.
fn random(inner: &Inner) -> f64 {
    let next = inner.random.get().wrapping_mul(0x5_deec_e66d).wrapping_add(0xb) & ((1 << 48) - 1);
    inner.random.set(next);
    let number = (next >> 17) % 0x7fff_ffff;
    number as f64 / f64::from(0x7fff_ffff)
}

const NOT_STRINGS: &str = "ERR Command arguments must be strings or integers";
const OUTSIDE: &str = "ERR server.call can only be called inside a script invocation";

/// The words of a command that isn't run.
fn words(args: &MultiValue) -> Option<Vec<Vec<u8>>> {
    args.iter()
        .map(|arg| match arg {
            Value::String(text) => Some(text.as_bytes().to_vec()),
            Value::Integer(_) | Value::Number(_) => {
                let mut digits = number::Digits::new();
                number::put_argument(&mut digits, arg.as_number().unwrap_or(arg.as_integer()? as f64));
                Some(digits.to_vec())
            }
            _ => None,
        })
        .collect()
}

/// The text of a string or number, as Lua converts it.
fn text_of(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Integer(n) => Some(n.to_string().into_bytes()),
        Value::Number(n) => Some(number::general(*n, 14).into_bytes()),
        _ => None,
    }
}

fn log(lua: &Lua, args: &[Value]) -> mlua::Result<()> {
    let [level, words @ ..] = args else {
        return refuse("ERR server.log() requires two arguments or more.");
    };
    if words.is_empty() {
        return refuse("ERR server.log() requires two arguments or more.");
    }
    let Some(level) = libs::to_number(lua, level) else {
        return refuse("ERR First argument must be a number (log level).");
    };
    if !(0.0..4.0).contains(&level) {
        return refuse("ERR Invalid log level.");
    }
    let words: Vec<Vec<u8>> = words.iter().filter_map(text_of).collect();
    host(|host| host.log(level as u8, &words.join(&b' ')));
    Ok(())
}

/// Where the innermost code of a script is: its chunk's name and line. Called by the prelude's message handler.
fn position(lua: &Lua) -> (Option<mlua::String>, Option<i64>) {
    // Levels 0 and 1 are this function and the handler.
    match innermost(lua, 2) {
        Some((source, line)) => (lua.create_string(source).ok(), Some(line)),
        None => (None, None),
    }
}

/// The first script code from a level of the stack on. The prelude's functions stand for native ones.
pub(crate) fn innermost(lua: &Lua, from: usize) -> Option<(Vec<u8>, i64)> {
    for level in from..from + 30 {
        let found = lua.inspect_stack(level, |debug| {
            let source = debug.source();
            let name = source.source.filter(|name| source.what != "C" && name != "=prelude")?;
            Some((name.as_bytes().to_vec(), debug.current_line()? as i64))
        })?;
        if found.is_some() {
            return found;
        }
    }
    None
}

/// `server.register_function`: by position (name, callback) or by names in one table.
fn register(inner: &Rc<Inner>, chunks: &Table, args: &MultiValue) -> Result<(), String> {
    let (function, callback): (LibraryFunction, Function) = libs::register::parse(args.len(), args)?;
    let name = function.name.clone();
    match host(|host| host.register(function)) {
        Some(done) => done?,
        None => return Err("ERR server.register_function can only be called on FUNCTION LOAD command".into()),
    }
    let chunk = keep(inner, chunks, callback).map_err(|error| format!("ERR {error}"))?;
    inner.registered.borrow_mut().push((name, chunk));
    Ok(())
}

impl LibraryFunction {
    pub(crate) fn named(name: Vec<u8>) -> Self {
        LibraryFunction { name, description: None, flags: Vec::new() }
    }
}
