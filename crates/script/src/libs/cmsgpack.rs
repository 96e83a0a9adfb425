//! `cmsgpack`: MessagePack.

use super::{add, bad_argument, to_number, type_name};
use mlua::{IntoLua, Lua, MultiValue, Table, Value, Variadic};

/// Tables nested deeper than this are packed as nil. (Unpacking nests as deep as the input; see `MAX_UNPACK`.)
const MAX_NESTING: usize = 16;
/// Input nested deeper than this is refused: each level is a frame of the native stack.
const MAX_UNPACK: usize = 1000;
/// More results than this don't fit Lua's stack.
const MAX_RESULTS: usize = 7000;

type Args = Variadic<Value>;

/// The library.
pub(crate) fn table(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.set("_NAME", "cmsgpack")?;
    table.set("_VERSION", "lua-cmsgpack 0.4.0")?;
    table.set("_COPYRIGHT", "Kara's authors")?;
    table.set("_DESCRIPTION", "MessagePack for Lua")?;
    add(lua, &table, "pack", |lua, args: Args| {
        if args.is_empty() {
            return Ok(Err("bad argument #0 to 'pack' (MessagePack pack needs input.)".to_string()));
        }
        let mut out = Vec::new();
        for value in args.iter() {
            pack(value, 1, &mut out)?;
        }
        Ok(Ok(one(lua.create_string(&out)?.into_lua(lua)?)))
    })?;
    add(lua, &table, "unpack", |lua, args: Args| unpack_all(lua, &args))?;
    for (name, has_limit) in [("unpack_one", false), ("unpack_limit", true)] {
        add(lua, &table, name, move |lua, args: Args| unpack_some(lua, name, &args, has_limit))?;
    }
    Ok(table)
}

fn one(value: Value) -> MultiValue {
    MultiValue::from_vec(vec![value])
}

fn head(out: &mut Vec<u8>, tag: u8, payload: &[u8]) {
    out.push(tag);
    out.extend_from_slice(payload);
}

fn pack(value: &Value, depth: usize, out: &mut Vec<u8>) -> mlua::Result<()> {
    match value {
        Value::Boolean(b) => out.push(if *b { 0xc3 } else { 0xc2 }),
        Value::Integer(n) => pack_integer(*n, out),
        Value::Number(n) => pack_number(*n, out),
        Value::String(text) => pack_string(&text.as_bytes(), out),
        Value::Table(table) if depth <= MAX_NESTING => pack_table(table, depth, out)?,
        _ => out.push(0xc0),
    }
    Ok(())
}

fn pack_number(n: f64, out: &mut Vec<u8>) {
    // Whole numbers are integers; the others are as short as they can be told exactly.
    if n.floor() == n && n.abs() < 9.223372036854775e18 {
        return pack_integer(n as i64, out);
    }
    let short = n as f32;
    if f64::from(short) == n {
        head(out, 0xca, &short.to_be_bytes());
    } else {
        head(out, 0xcb, &n.to_be_bytes());
    }
}

fn pack_integer(n: i64, out: &mut Vec<u8>) {
    match n {
        0..=0x7f => out.push(n as u8),
        0x80..=0xff => head(out, 0xcc, &[n as u8]),
        0x100..=0xffff => head(out, 0xcd, &(n as u16).to_be_bytes()),
        0x1_0000..=0xffff_ffff => head(out, 0xce, &(n as u32).to_be_bytes()),
        0x1_0000_0000.. => head(out, 0xcf, &n.to_be_bytes()),
        -32..=-1 => out.push(n as u8),
        -128..=-33 => head(out, 0xd0, &[n as u8]),
        -32768..=-129 => head(out, 0xd1, &(n as i16).to_be_bytes()),
        -2147483648..=-32769 => head(out, 0xd2, &(n as i32).to_be_bytes()),
        _ => head(out, 0xd3, &n.to_be_bytes()),
    }
}

fn pack_string(text: &[u8], out: &mut Vec<u8>) {
    match text.len() {
        len @ 0..=31 => out.push(0xa0 | len as u8),
        len @ 32..=0xff => head(out, 0xd9, &[len as u8]),
        len @ 0x100..=0xffff => head(out, 0xda, &(len as u16).to_be_bytes()),
        len => head(out, 0xdb, &(len as u32).to_be_bytes()),
    }
    out.extend_from_slice(text);
}

/// An array where the keys are 1 to n without gaps, else a map.
fn pack_table(table: &Table, depth: usize, out: &mut Vec<u8>) -> mlua::Result<()> {
    let (mut count, mut max, mut is_array) = (0usize, 0f64, true);
    table.for_each(|key: Value, _: Value| {
        count += 1;
        let index = match key {
            Value::Integer(n) => n as f64,
            Value::Number(n) => n,
            _ => 0.0,
        };
        is_array &= index > 0.0 && index.floor() == index;
        max = max.max(index);
        Ok(())
    })?;
    if is_array && max == count as f64 {
        match count {
            0..=15 => out.push(0x90 | count as u8),
            16..=0xffff => head(out, 0xdc, &(count as u16).to_be_bytes()),
            _ => head(out, 0xdd, &(count as u32).to_be_bytes()),
        }
        for i in 1..=count {
            pack(&table.raw_get::<Value>(i)?, depth + 1, out)?;
        }
        return Ok(());
    }
    match count {
        0..=15 => out.push(0x80 | count as u8),
        16..=0xffff => head(out, 0xde, &(count as u16).to_be_bytes()),
        _ => head(out, 0xdf, &(count as u32).to_be_bytes()),
    }
    table.for_each(|key: Value, value: Value| {
        pack(&key, depth + 1, out)?;
        pack(&value, depth + 1, out)
    })
}

/// What is wrong with the input.
enum Fault {
    Missing,
    Bad,
    NilKey,
    Lua(mlua::Error),
}

impl From<mlua::Error> for Fault {
    fn from(error: mlua::Error) -> Self {
        Fault::Lua(error)
    }
}

impl Fault {
    fn into_text<T>(self) -> mlua::Result<Result<T, String>> {
        match self {
            Fault::Missing => Ok(Err("Missing bytes in input.".to_string())),
            Fault::Bad => Ok(Err("Bad data format in input.".to_string())),
            Fault::NilKey => Ok(Err("table index is nil".to_string())),
            Fault::Lua(error) => Err(error),
        }
    }
}

struct Input<'i> {
    bytes: &'i [u8],
    at: usize,
}

impl<'i> Input<'i> {
    fn take(&mut self, len: usize) -> Result<&'i [u8], Fault> {
        let end = self.at.checked_add(len).ok_or(Fault::Missing)?;
        let taken = self.bytes.get(self.at..end).ok_or(Fault::Missing)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        self.take(N)?.try_into().map_err(|_| Fault::Missing)
    }

    fn length(&mut self, bytes: usize) -> Result<usize, Fault> {
        Ok(self.take(bytes)?.iter().fold(0, |n, &b| (n << 8) | usize::from(b)))
    }
}

fn unpack(lua: &Lua, input: &mut Input<'_>, depth: usize) -> Result<Value, Fault> {
    if depth > MAX_UNPACK {
        return Err(Fault::Bad);
    }
    let tag = input.take(1)?.first().copied().ok_or(Fault::Missing)?;
    let number = |n: f64| Ok(Value::Number(n));
    let string =
        |input: &mut Input<'_>, len| Ok::<_, Fault>(Value::String(lua.create_string(input.take(len)?)?));
    match tag {
        0x00..=0x7f => number(f64::from(tag)),
        0xe0..=0xff => number(f64::from(tag as i8)),
        0x80..=0x8f => map(lua, input, usize::from(tag & 15), depth),
        0x90..=0x9f => array(lua, input, usize::from(tag & 15), depth),
        0xa0..=0xbf => string(input, usize::from(tag & 31)),
        0xc0 => Ok(Value::Nil),
        0xc2 => Ok(Value::Boolean(false)),
        0xc3 => Ok(Value::Boolean(true)),
        0xca => number(f64::from(f32::from_be_bytes(input.array()?))),
        0xcb => number(f64::from_be_bytes(input.array()?)),
        0xcc => number(f64::from(u8::from_be_bytes(input.array()?))),
        0xcd => number(f64::from(u16::from_be_bytes(input.array()?))),
        0xce => number(f64::from(u32::from_be_bytes(input.array()?))),
        // As the reference: a number above 2^63 comes out negative.
        0xcf | 0xd3 => number(i64::from_be_bytes(input.array()?) as f64),
        0xd0 => number(f64::from(i8::from_be_bytes(input.array()?))),
        0xd1 => number(f64::from(i16::from_be_bytes(input.array()?))),
        0xd2 => number(f64::from(i32::from_be_bytes(input.array()?))),
        0xd9 => input.length(1).and_then(|len| string(input, len)),
        0xda => input.length(2).and_then(|len| string(input, len)),
        0xdb => input.length(4).and_then(|len| string(input, len)),
        0xdc => input.length(2).and_then(|len| array(lua, input, len, depth)),
        0xdd => input.length(4).and_then(|len| array(lua, input, len, depth)),
        0xde => input.length(2).and_then(|len| map(lua, input, len, depth)),
        0xdf => input.length(4).and_then(|len| map(lua, input, len, depth)),
        _ => Err(Fault::Bad),
    }
}

fn array(lua: &Lua, input: &mut Input<'_>, len: usize, depth: usize) -> Result<Value, Fault> {
    let table = lua.create_table()?;
    for i in 1..=len {
        table.raw_set(i, unpack(lua, input, depth + 1)?)?;
    }
    Ok(Value::Table(table))
}

fn map(lua: &Lua, input: &mut Input<'_>, len: usize, depth: usize) -> Result<Value, Fault> {
    let table = lua.create_table()?;
    for _ in 0..len {
        let key = unpack(lua, input, depth + 1)?;
        let value = unpack(lua, input, depth + 1)?;
        match key {
            Value::Nil => return Err(Fault::NilKey),
            Value::Number(n) if n.is_nan() => return Err(Fault::Bad),
            key => table.raw_set(key, value)?,
        }
    }
    Ok(Value::Table(table))
}

/// A string, or a number as text.
fn bytes_of(lua: &Lua, name: &str, args: &[Value]) -> Result<Vec<u8>, String> {
    let value = args.first();
    match value {
        Some(Value::String(text)) => Ok(text.as_bytes().to_vec()),
        Some(Value::Integer(_) | Value::Number(_)) => {
            let n = value.and_then(|value| to_number(lua, value)).unwrap_or(0.0);
            Ok(crate::number::general(n, 14).into_bytes())
        }
        _ => Err(bad_argument(1, name, "string", value)),
    }
}

fn unpack_all(lua: &Lua, args: &[Value]) -> mlua::Result<Result<MultiValue, String>> {
    let bytes = match bytes_of(lua, "unpack", args) {
        Ok(bytes) => bytes,
        Err(text) => return Ok(Err(text)),
    };
    values(lua, &mut Input { bytes: &bytes, at: 0 }, usize::MAX)
}

fn values(lua: &Lua, input: &mut Input<'_>, limit: usize) -> mlua::Result<Result<MultiValue, String>> {
    let mut found = MultiValue::new();
    while input.at < input.bytes.len() && found.len() < limit {
        if found.len() >= MAX_RESULTS {
            return Ok(Err("too many results to unpack".to_string()));
        }
        match unpack(lua, input, 0) {
            Ok(value) => found.push_back(value),
            Err(fault) => return fault.into_text(),
        }
    }
    Ok(Ok(found))
}

/// `unpack_one(text, offset)` and `unpack_limit(text, limit, offset)`: the offset to go on from (-1 at the end), then the
/// values.
fn unpack_some(
    lua: &Lua,
    name: &str,
    args: &[Value],
    has_limit: bool,
) -> mlua::Result<Result<MultiValue, String>> {
    let bytes = match bytes_of(lua, name, args) {
        Ok(bytes) => bytes,
        Err(text) => return Ok(Err(text)),
    };
    let integer = |at: usize| match args.get(at) {
        None | Some(Value::Nil) if at == 1 && has_limit => Err(bad_argument(2, name, "number", args.get(at))),
        None | Some(Value::Nil) => Ok(None),
        Some(value) => match to_number(lua, value) {
            Some(n) => Ok(Some(n as i64)),
            None => Err(format!(
                "bad argument #{} to '{name}' (number expected, got {})",
                at + 1,
                type_name(value)
            )),
        },
    };
    let (limit, offset) =
        match (if has_limit { integer(1) } else { Ok(Some(1)) }, integer(1 + usize::from(has_limit))) {
            (Ok(limit), Ok(offset)) => (limit.unwrap_or(0), offset.unwrap_or(0)),
            (Err(text), _) | (_, Err(text)) => return Ok(Err(text)),
        };
    let len = bytes.len();
    if offset < 0 || limit < 0 {
        return Ok(Err(format!("Invalid request to unpack with offset of {offset} and limit of {len}.")));
    }
    let at = usize::try_from(offset).unwrap_or(usize::MAX);
    if at > len {
        return Ok(Err(format!("Start offset {offset} greater than input length {len}.")));
    }
    let limit = if limit == 0 { usize::MAX } else { usize::try_from(limit).unwrap_or(usize::MAX) };
    let mut input = Input { bytes: &bytes, at };
    Ok(values(lua, &mut input, limit)?.map(|mut found| {
        let next = if input.at >= len { -1.0 } else { input.at as f64 };
        found.push_front(Value::Number(next));
        found
    }))
}
