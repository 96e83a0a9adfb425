//! Replies of commands as Lua values.

use super::{chars, push as push_text};
use kara_base::number::{parse_f64, parse_i64};
use mlua::ffi::{self, lua_State};
use std::ffi::{CStr, c_int};

/// Deeper replies than this end in nil (no command writes such).
const MAX_DEPTH: u32 = 100;
/// A reply's stated count reserves no more than this.
const RESERVED: i64 = 1 << 16;

/// A place in a reply that is read. Plain data: what raises may jump over it.
#[derive(Clone, Copy)]
struct Reader<'r> {
    bytes: &'r [u8],
    at: usize,
}

impl<'r> Reader<'r> {
    #[inline]
    fn line(&mut self) -> Option<&'r [u8]> {
        let rest = self.bytes.get(self.at..)?;
        let end = memchr::memchr(b'\r', rest)?;
        self.at += end + 2;
        rest.get(..end)
    }

    #[inline]
    fn blob(&mut self, len: i64) -> &'r [u8] {
        let len = usize::try_from(len).unwrap_or(0);
        let blob = self.at.checked_add(len).and_then(|end| self.bytes.get(self.at..end)).unwrap_or_default();
        self.at = self.at.saturating_add(len).saturating_add(2);
        blob
    }
}

fn number(text: &[u8]) -> i64 {
    parse_i64(text).unwrap_or(0)
}

/// Pushes the value of a whole reply; true if it is an error. Raises.
///
/// # Safety
/// 12 slots are free, the bytes stay as they are, and the frames up to the protected call own nothing.
pub(super) unsafe fn push(state: *mut lua_State, bytes: &[u8]) -> bool {
    // SAFETY: as the contract says.
    unsafe {
        if let [b'-', text @ .., b'\r', b'\n'] = bytes {
            push_error(state, text, true);
            return true;
        }
        if !value(state, &mut Reader { bytes, at: 0 }, 0) {
            ffi::lua_pushnil(state);
        }
        false
    }
}

/// Pushes the table that scripts see of an error. Raises.
///
/// # Safety
/// As for [`push`], with four slots.
pub(super) unsafe fn push_error(state: *mut lua_State, text: &[u8], is_counted: bool) {
    // SAFETY: as the contract says.
    unsafe {
        ffi::lua_createtable(state, 0, 4);
        push_text(state, text);
        ffi::lua_setfield(state, -2, chars(c"err"));
        if is_counted {
            ffi::lua_pushboolean(state, 1);
            ffi::lua_setfield(state, -2, chars(c"ignore_error_stats_update"));
        }
    }
}

/// The value on top becomes the one field of a new table.
///
/// # Safety
/// As for [`push`], with three slots.
unsafe fn wrap(state: *mut lua_State, name: &CStr) {
    // SAFETY: as the contract says.
    unsafe {
        ffi::lua_createtable(state, 0, 1);
        ffi::lua_insert(state, -2);
        ffi::lua_setfield(state, -2, chars(name));
    }
}

/// Pushes one value; false for what isn't protocol (which commands don't write).
///
/// # Safety
/// As for [`push`]: at each depth up to the second three of the free slots are taken, from there on they are asked for.
unsafe fn value(state: *mut lua_State, reader: &mut Reader<'_>, depth: u32) -> bool {
    let Some((&kind, text)) = reader.line().and_then(<[u8]>::split_first) else { return false };
    // SAFETY: as the contract says.
    unsafe {
        if depth > MAX_DEPTH || depth > 2 && ffi::lua_checkstack(state, 8) == 0 {
            return false;
        }
        match kind {
            b'$' | b'=' | b'!' | b'*' if text == b"-1" => ffi::lua_pushboolean(state, 0),
            b'$' => push_text(state, reader.blob(number(text))),
            b':' => ffi::lua_pushnumber(state, number(text) as f64),
            b'+' => {
                push_text(state, text);
                wrap(state, c"ok");
            }
            b'-' => push_error(state, text, true),
            b'!' => push_error(state, reader.blob(number(text)), true),
            b'=' => {
                let blob = reader.blob(number(text));
                ffi::lua_createtable(state, 0, 2);
                push_text(state, blob.get(..3).unwrap_or_default());
                ffi::lua_setfield(state, -2, chars(c"format"));
                push_text(state, blob.get(4..).unwrap_or_default());
                ffi::lua_setfield(state, -2, chars(c"string"));
                wrap(state, c"verbatim_string");
            }
            b'_' => ffi::lua_pushnil(state),
            b'#' => ffi::lua_pushboolean(state, c_int::from(text == b"t")),
            b',' => {
                ffi::lua_pushnumber(state, parse_f64(text).unwrap_or(f64::NAN));
                wrap(state, c"double");
            }
            b'(' => {
                push_text(state, text);
                wrap(state, c"big_number");
            }
            b'*' | b'>' => {
                let count = number(text);
                ffi::lua_createtable(state, count.clamp(0, RESERVED) as c_int, 0);
                for at in 1..=count {
                    if !value(state, reader, depth + 1) {
                        break;
                    }
                    ffi::lua_rawseti(state, -2, at);
                }
            }
            b'%' => {
                ffi::lua_createtable(state, 0, number(text).clamp(0, RESERVED) as c_int);
                for _ in 0..number(text) {
                    if !value(state, reader, depth + 1) {
                        break;
                    }
                    if !value(state, reader, depth + 1) {
                        ffi::lua_settop(state, -2);
                        break;
                    }
                    set(state);
                }
                wrap(state, c"map");
            }
            b'~' => {
                ffi::lua_createtable(state, 0, number(text).clamp(0, RESERVED) as c_int);
                for _ in 0..number(text) {
                    if !value(state, reader, depth + 1) {
                        break;
                    }
                    ffi::lua_pushboolean(state, 1);
                    set(state);
                }
                wrap(state, c"set");
            }
            b'|' => {
                // Attributes say nothing to scripts.
                for _ in 0..number(text).saturating_mul(2) {
                    if !value(state, reader, depth + 1) {
                        return false;
                    }
                    ffi::lua_settop(state, -2);
                }
                return value(state, reader, depth + 1);
            }
            _ => return false,
        }
        true
    }
}

/// Puts key and value on top into the table under them; nil is no key.
///
/// # Safety
/// As for [`push`].
unsafe fn set(state: *mut lua_State) {
    // SAFETY: as the contract says; no reply has NaN as a number of its own, so the key is one.
    unsafe {
        if ffi::lua_type(state, -2) == ffi::LUA_TNIL {
            ffi::lua_settop(state, -3);
        } else {
            ffi::lua_rawset(state, -3);
        }
    }
}
