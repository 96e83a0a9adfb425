//! Replies of commands as Lua values, and a script's result as a reply.

use crate::vm::RESP3;
use kara_resp::Writer;
use mlua::{IntoLua, Lua, Table, Value};

/// A script's value nested deeper than this ends in an error where the depth is reached. The reference's bound is the
/// Lua stack (about 8,000); here every open level holds a reference, of which a machine has as many.
const MAX_DEPTH: usize = 4000;

/// The text that stands where a value is nested too deep.
const TOO_DEEP: &str = "ERR reached lua stack limit";

/// A place in a reply that is read.
struct Reader<'r> {
    bytes: &'r [u8],
    at: usize,
}

impl<'r> Reader<'r> {
    fn line(&mut self) -> Option<&'r [u8]> {
        let rest = self.bytes.get(self.at..)?;
        let end = memchr::memchr(b'\r', rest)?;
        self.at += end + 2;
        rest.get(..end)
    }

    fn blob(&mut self, len: usize) -> Option<&'r [u8]> {
        let blob = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len + 2;
        Some(blob)
    }
}

fn number(text: &[u8]) -> Option<i64> {
    kara_base::number::parse_i64(text)
}

/// An error that left a command as the table that scripts see.
fn error_table(lua: &Lua, text: &[u8]) -> mlua::Result<Table> {
    let table = lua.create_table_with_capacity(0, 4)?;
    table.raw_set("err", lua.create_string(text)?)?;
    table.raw_set("ignore_error_stats_update", true)?;
    Ok(table)
}

/// The Lua value of a whole reply, or an error's text.
pub(crate) fn to_lua(lua: &Lua, bytes: &[u8]) -> mlua::Result<Result<Value, Vec<u8>>> {
    if bytes.first() == Some(&b'-') {
        let end = bytes.len().saturating_sub(2);
        let text = bytes.get(1..end).unwrap_or_default();
        return Ok(Err(text.to_vec()));
    }
    if let [b':', digits @ .., b'\r', b'\n'] = bytes {
        return Ok(Ok(Value::Number(number(digits).unwrap_or(0) as f64)));
    }
    let mut reader = Reader { bytes, at: 0 };
    Ok(Ok(read(lua, &mut reader, 0)?.unwrap_or(Value::Nil)))
}

/// One value; `None` for what isn't protocol (which commands don't write).
fn read(lua: &Lua, reader: &mut Reader<'_>, depth: usize) -> mlua::Result<Option<Value>> {
    let Some((&kind, text)) = reader.line().and_then(<[u8]>::split_first) else { return Ok(None) };
    if depth > 100 {
        return Ok(None);
    }
    let count = || number(text).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let value = match kind {
        b'+' => field(lua, "ok", lua.create_string(text)?)?,
        b'-' => Value::Table(error_table(lua, text)?),
        b':' => Value::Number(number(text).unwrap_or(0) as f64),
        b'$' | b'=' | b'!' if text == b"-1" => Value::Boolean(false),
        b'*' if text == b"-1" => Value::Boolean(false),
        b'$' => Value::String(lua.create_string(reader.blob(count()).unwrap_or_default())?),
        b'!' => Value::Table(error_table(lua, reader.blob(count()).unwrap_or_default())?),
        b'=' => {
            let blob = reader.blob(count()).unwrap_or_default();
            let inner = lua.create_table_with_capacity(0, 2)?;
            inner.raw_set("format", lua.create_string(blob.get(..3).unwrap_or_default())?)?;
            inner.raw_set("string", lua.create_string(blob.get(4..).unwrap_or_default())?)?;
            field(lua, "verbatim_string", inner)?
        }
        b'_' => Value::Nil,
        b'#' => Value::Boolean(text == b"t"),
        b',' => {
            let double = kara_base::number::parse_f64(text).unwrap_or(f64::NAN);
            field(lua, "double", double)?
        }
        b'(' => field(lua, "big_number", lua.create_string(text)?)?,
        b'*' | b'>' => {
            let n = count();
            let table = lua.create_table_with_capacity(n.min(1 << 16), 0)?;
            for i in 1..=n {
                let Some(item) = read(lua, reader, depth + 1)? else { break };
                table.raw_set(i, item)?;
            }
            Value::Table(table)
        }
        b'%' => {
            let table = lua.create_table()?;
            for _ in 0..count() {
                let (Some(key), Some(item)) = (read(lua, reader, depth + 1)?, read(lua, reader, depth + 1)?)
                else {
                    break;
                };
                if !matches!(key, Value::Nil) {
                    table.raw_set(key, item)?;
                }
            }
            field(lua, "map", table)?
        }
        b'~' => {
            let table = lua.create_table()?;
            for _ in 0..count() {
                let Some(item) = read(lua, reader, depth + 1)? else { break };
                if !matches!(item, Value::Nil) {
                    table.raw_set(item, true)?;
                }
            }
            field(lua, "set", table)?
        }
        b'|' => {
            // Attributes say nothing to scripts.
            for _ in 0..count() * 2 {
                read(lua, reader, depth + 1)?;
            }
            return read(lua, reader, depth + 1);
        }
        _ => return Ok(None),
    };
    Ok(Some(value))
}

fn field(lua: &Lua, name: &str, value: impl IntoLua) -> mlua::Result<Value> {
    let table = lua.create_table_with_capacity(0, 1)?;
    table.raw_set(name, value)?;
    Ok(Value::Table(table))
}

/// What is left to write of an aggregate.
enum Open {
    Array { table: Table, next: i64, mark: kara_resp::Mark },
    Items { items: std::vec::IntoIter<Value> },
}

/// Writes a script's result. `resp` is the version that the script chose for itself, which booleans depend on.
pub(crate) fn write(value: Value, resp: u8, reply: &mut Writer) -> mlua::Result<()> {
    let mut open: Vec<Open> = Vec::new();
    write_one(value, resp, reply, &mut open)?;
    while let Some(top) = open.last_mut() {
        match top {
            Open::Array { table, next, mark } => {
                let item: Value = table.raw_get(*next)?;
                if item.is_nil() {
                    reply.end_array(*mark, (*next - 1) as usize);
                    open.pop();
                } else {
                    *next += 1;
                    write_one(item, resp, reply, &mut open)?;
                }
            }
            Open::Items { items } => match items.next() {
                Some(item) => write_one(item, resp, reply, &mut open)?,
                None => {
                    open.pop();
                }
            },
        }
    }
    Ok(())
}

/// C's conversion: towards zero; what doesn't fit (and NaN) is the smallest number.
fn truncated(number: f64) -> i64 {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if number > -LIMIT && number < LIMIT { number as i64 } else { i64::MIN }
}

fn write_one(value: Value, resp: u8, reply: &mut Writer, open: &mut Vec<Open>) -> mlua::Result<()> {
    match value {
        Value::String(text) => reply.bulk(&text.as_bytes()),
        Value::Integer(n) => reply.integer(n),
        Value::Number(n) => reply.integer(truncated(n)),
        Value::Boolean(b) if resp >= RESP3 => reply.bool(b),
        Value::Boolean(true) => reply.integer(1),
        Value::Table(table) => {
            if open.len() >= MAX_DEPTH {
                reply.error(TOO_DEEP);
                return Ok(());
            }
            return write_table(table, reply, open);
        }
        _ => reply.null(),
    }
    Ok(())
}

fn write_table(table: Table, reply: &mut Writer, open: &mut Vec<Open>) -> mlua::Result<()> {
    if let Value::String(text) = table.raw_get("err")? {
        reply.error_bytes(&text.as_bytes());
        return Ok(());
    }
    if let Value::String(text) = table.raw_get("ok")? {
        reply.simple_bytes(&text.as_bytes());
        return Ok(());
    }
    match table.raw_get("double")? {
        Value::Number(n) => {
            reply.double(n);
            return Ok(());
        }
        Value::Integer(n) => {
            reply.double(n as f64);
            return Ok(());
        }
        _ => {}
    }
    if let Value::Table(map) = table.raw_get("map")? {
        let mut items = Vec::new();
        map.for_each(|key: Value, item: Value| {
            items.push(key);
            items.push(item);
            Ok(())
        })?;
        reply.map(items.len() / 2);
        open.push(Open::Items { items: items.into_iter() });
        return Ok(());
    }
    if let Value::Table(set) = table.raw_get("set")? {
        let mut items = Vec::new();
        set.for_each(|key: Value, _: Value| {
            items.push(key);
            Ok(())
        })?;
        reply.set(items.len());
        open.push(Open::Items { items: items.into_iter() });
        return Ok(());
    }
    if let Value::String(text) = table.raw_get("big_number")? {
        let digits: Vec<u8> =
            text.as_bytes().iter().map(|&b| if matches!(b, b'\r' | b'\n') { b' ' } else { b }).collect();
        reply.big_number(&digits);
        return Ok(());
    }
    if let Value::Table(verbatim) = table.raw_get("verbatim_string")?
        && let (Value::String(format), Value::String(text)) =
            (verbatim.raw_get("format")?, verbatim.raw_get("string")?)
    {
        reply.verbatim(&format.to_string_lossy(), &text.as_bytes());
        return Ok(());
    }
    let mark = reply.defer();
    open.push(Open::Array { table, next: 1, mark });
    Ok(())
}
