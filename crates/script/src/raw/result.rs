//! A script's result as a reply. Nesting is kept in a list rather than on the C stack.

use super::{RESP3, text_at, up, upvalue};
use kara_resp::{Mark, Writer};
use mlua::ffi::{self, lua_State};
use std::ffi::c_int;

/// The text that stands where a value is nested deeper than Lua's stack allows.
const TOO_DEEP: &str = "ERR reached lua stack limit";

/// An aggregate that is being written; its table is on Lua's stack, at `table`.
#[derive(Clone, Copy)]
pub(super) struct Level {
    kind: Kind,
    table: c_int,
}

#[derive(Clone, Copy)]
enum Kind {
    Array {
        next: c_int,
        mark: Mark,
    },
    /// The key of the last pair is above the table; with `value`, its value still above that.
    Map {
        value: bool,
    },
    Set,
}

/// C's conversion: towards zero; what doesn't fit (and NaN) is the smallest number.
fn truncated(number: f64) -> i64 {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if number > -LIMIT && number < LIMIT { number as i64 } else { i64::MIN }
}

/// Writes the value on top of the stack. `resp` is the version that the script chose for itself, which booleans depend on.
/// Raises where Lua's stack can't grow.
///
/// # Safety
/// To be called by the C function `run`, with 8 free slots; `out` and `levels` are nobody else's meanwhile.
pub(super) unsafe fn write(state: *mut lua_State, resp: u8, out: *mut Writer, levels: *mut Vec<Level>) {
    // SAFETY: as the contract says. Nothing here has a destructor; `levels` belongs to the machine. What is written
    // doesn't call Lua.
    unsafe {
        let (out, levels) = (&mut *out, &mut *levels);
        levels.clear();
        one(state, resp, out, levels);
        while let Some(level) = levels.last_mut() {
            let table = level.table;
            match &mut level.kind {
                Kind::Array { next, mark } => {
                    ffi::lua_rawgeti_(state, table, *next);
                    if ffi::lua_type(state, -1) == ffi::LUA_TNIL {
                        out.end_array(*mark, (*next - 1) as usize);
                        ffi::lua_settop(state, table - 1);
                        levels.pop();
                    } else {
                        *next += 1;
                        one(state, resp, out, levels);
                    }
                }
                Kind::Map { value: value @ true } => {
                    *value = false;
                    ffi::lua_pushvalue(state, table + 2);
                    ffi::lua_remove(state, table + 2);
                    one(state, resp, out, levels);
                }
                Kind::Map { value: false } | Kind::Set if ffi::lua_next(state, table) == 0 => {
                    ffi::lua_settop(state, table - 1);
                    levels.pop();
                }
                Kind::Map { value } => {
                    *value = true;
                    ffi::lua_pushvalue(state, table + 1);
                    one(state, resp, out, levels);
                }
                Kind::Set => {
                    ffi::lua_settop(state, -2);
                    ffi::lua_pushvalue(state, table + 1);
                    one(state, resp, out, levels);
                }
            }
        }
    }
}

/// Whether the value on top is an error that a command answered.
///
/// # Safety
/// As for [`write`].
pub(super) unsafe fn is_counted(state: *mut lua_State) -> bool {
    // SAFETY: as the contract says.
    unsafe {
        if ffi::lua_type(state, -1) != ffi::LUA_TTABLE {
            return false;
        }
        field(state, ffi::lua_gettop(state), up::COUNTED);
        let counted = ffi::lua_toboolean(state, -1) != 0;
        ffi::lua_settop(state, -2);
        counted
    }
}

/// Writes the value on top and takes it off, or opens a level for it.
///
/// # Safety
/// As for [`write`].
unsafe fn one(state: *mut lua_State, resp: u8, out: &mut Writer, levels: &mut Vec<Level>) {
    // SAFETY: as the contract says.
    unsafe {
        match ffi::lua_type(state, -1) {
            ffi::LUA_TSTRING => out.bulk(text_at(state, -1).unwrap_or_default()),
            ffi::LUA_TNUMBER => out.integer(truncated(ffi::lua_tonumber(state, -1))),
            ffi::LUA_TBOOLEAN if resp >= RESP3 => out.bool(ffi::lua_toboolean(state, -1) != 0),
            ffi::LUA_TBOOLEAN if ffi::lua_toboolean(state, -1) != 0 => out.integer(1),
            ffi::LUA_TTABLE if ffi::lua_checkstack(state, 4) == 0 => out.error(TOO_DEEP),
            ffi::LUA_TTABLE => {
                if open(state, out, levels) {
                    return;
                }
            }
            _ => out.null(),
        }
        ffi::lua_settop(state, -2);
    }
}

/// A field of the table at a place of the stack, pushed; its type.
///
/// # Safety
/// As for [`write`].
#[inline]
unsafe fn field(state: *mut lua_State, table: c_int, name: i32) -> c_int {
    // SAFETY: no metamethods; the name is there already, so nothing is allocated or raised.
    unsafe {
        ffi::lua_pushvalue(state, upvalue(name));
        ffi::lua_rawget_(state, table);
        ffi::lua_type(state, -1)
    }
}

/// Writes the table on top, or opens a level for it (true).
///
/// # Safety
/// As for [`write`], with four slots.
unsafe fn open(state: *mut lua_State, out: &mut Writer, levels: &mut Vec<Level>) -> bool {
    // SAFETY: as the contract says.
    unsafe {
        let table = ffi::lua_gettop(state);
        if scalar(state, table, out) {
            ffi::lua_settop(state, table);
            return false;
        }
        ffi::lua_settop(state, table);
        for (name, is_map) in [(up::MAP, true), (up::SET, false)] {
            if field(state, table, name) == ffi::LUA_TTABLE {
                // It takes the place of the table that holds it.
                ffi::lua_replace(state, table);
                let count = pairs(state, table);
                let kind = if is_map {
                    out.map(count);
                    Kind::Map { value: false }
                } else {
                    out.set(count);
                    Kind::Set
                };
                ffi::lua_pushnil(state);
                levels.push(Level { kind, table });
                return true;
            }
            ffi::lua_settop(state, table);
        }
        let written = named(state, table, out);
        ffi::lua_settop(state, table);
        if !written {
            let mark = out.defer();
            levels.push(Level { kind: Kind::Array { next: 1, mark }, table });
        }
        !written
    }
}

/// Writes a table that stands for an error, a status or a double; leaves fields on the stack.
///
/// # Safety
/// As for [`write`], with three slots.
unsafe fn scalar(state: *mut lua_State, table: c_int, out: &mut Writer) -> bool {
    // SAFETY: as the contract says.
    unsafe {
        if field(state, table, up::ERR) == ffi::LUA_TSTRING {
            out.error_bytes(text_at(state, -1).unwrap_or_default());
        } else if field(state, table, up::OK) == ffi::LUA_TSTRING {
            out.simple_bytes(text_at(state, -1).unwrap_or_default());
        } else if field(state, table, up::DOUBLE) == ffi::LUA_TNUMBER {
            out.double(ffi::lua_tonumber(state, -1));
        } else {
            return false;
        }
        true
    }
}

/// The same for big numbers and verbatim strings.
///
/// # Safety
/// As for [`scalar`], with four slots in all.
unsafe fn named(state: *mut lua_State, table: c_int, out: &mut Writer) -> bool {
    // SAFETY: as the contract says.
    unsafe {
        if field(state, table, up::BIG_NUMBER) == ffi::LUA_TSTRING {
            big_number(out, text_at(state, -1).unwrap_or_default());
            return true;
        }
        let inner = table + 2;
        if field(state, table, up::VERBATIM) != ffi::LUA_TTABLE {
            return false;
        }
        field(state, inner, up::FORMAT);
        field(state, inner, up::STRING);
        let (Some(format), Some(text)) = (text_at(state, -2), text_at(state, -1)) else { return false };
        out.verbatim(&String::from_utf8_lossy(format), text);
        true
    }
}

fn big_number(out: &mut Writer, text: &[u8]) {
    let digits: Vec<u8> = text.iter().map(|&b| if matches!(b, b'\r' | b'\n') { b' ' } else { b }).collect();
    out.big_number(&digits);
}

/// How many pairs a table has.
///
/// # Safety
/// As for [`write`], with two slots; nobody changes the table meanwhile.
unsafe fn pairs(state: *mut lua_State, table: c_int) -> usize {
    let mut count = 0;
    // SAFETY: as the contract says; each key is one that the table has, so nothing is raised.
    unsafe {
        ffi::lua_pushnil(state);
        while ffi::lua_next(state, table) != 0 {
            ffi::lua_settop(state, -2);
            count += 1;
        }
    }
    count
}
