//! `struct`: C's layouts.

use super::{add, bad_argument, to_number};
use mlua::{IntoLua, Lua, MultiValue, Table, Value, Variadic};

/// Widest integer, bytes.
const MAX_INTEGER: usize = 32;
/// What `!` without a number aligns to.
const NATIVE_ALIGNMENT: usize = 8;
/// More results than this don't fit Lua's stack.
const MAX_RESULTS: usize = 7000;
/// A packed text can't grow beyond this, nor can a computed size.
const MAX_LEN: usize = 1 << 30;

type Args = Variadic<Value>;

/// The library.
pub(crate) fn table(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    add(lua, &table, "pack", |lua, args: Args| {
        Ok(match pack(lua, &args) {
            Ok(bytes) => Ok(MultiValue::from_vec(vec![lua.create_string(&bytes)?.into_lua(lua)?])),
            Err(text) => Err(text),
        })
    })?;
    add(lua, &table, "unpack", |lua, args: Args| unpack(lua, &args))?;
    add(lua, &table, "size", |lua, args: Args| {
        Ok(size(lua, &args).map(|n| MultiValue::from_vec(vec![Value::Number(n as f64)])))
    })?;
    Ok(table)
}

/// One item of a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Integer {
        size: usize,
        signed: bool,
    },
    Float,
    Double,
    /// `c<n>`; 0: all of the string, or as many as the number before tells.
    Chars(usize),
    /// Until a zero byte.
    Text,
    Padding,
}

impl Item {
    fn size(self) -> usize {
        match self {
            Item::Integer { size, .. } => size,
            Item::Float => 4,
            Item::Double => 8,
            Item::Chars(n) => n,
            Item::Text => 0,
            Item::Padding => 1,
        }
    }

    /// Strings and padding stand where they come.
    fn is_aligned(self) -> bool {
        matches!(self, Item::Integer { .. } | Item::Float | Item::Double)
    }
}

/// A format that is read.
struct Format<'f> {
    text: &'f [u8],
    at: usize,
    big_endian: bool,
    alignment: usize,
    function: &'static str,
}

impl<'f> Format<'f> {
    fn new(text: &'f [u8], function: &'static str) -> Self {
        Format { text, at: 0, big_endian: cfg!(target_endian = "big"), alignment: 1, function }
    }

    fn number(&mut self) -> Result<Option<usize>, String> {
        let mut number = None::<usize>;
        while let Some(digit) = self.text.get(self.at).filter(|b| b.is_ascii_digit()) {
            self.at += 1;
            let next =
                number.unwrap_or(0).checked_mul(10).and_then(|n| n.checked_add(usize::from(digit - b'0')));
            number = Some(next.filter(|n| *n <= i32::MAX as usize).ok_or("integral size overflow")?);
        }
        Ok(number)
    }

    fn integer_size(&mut self, usual: usize) -> Result<usize, String> {
        match self.number()? {
            None => Ok(usual),
            Some(size) if size > MAX_INTEGER => {
                Err(format!("integral size {size} is larger than limit of {MAX_INTEGER}"))
            }
            Some(size) => Ok(size),
        }
    }

    /// The next item and the padding before it, where `total` bytes precede.
    fn next(&mut self, total: usize) -> Result<Option<(Item, usize)>, String> {
        while let Some(&option) = self.text.get(self.at) {
            self.at += 1;
            let integer = |size, signed| Item::Integer { size, signed };
            let item = match option {
                b'b' => integer(1, true),
                b'B' => integer(1, false),
                b'h' => integer(2, true),
                b'H' => integer(2, false),
                b'l' => integer(8, true),
                b'L' | b'T' => integer(8, false),
                b'i' => integer(self.integer_size(4)?, true),
                b'I' => integer(self.integer_size(4)?, false),
                b'f' => Item::Float,
                b'd' => Item::Double,
                b's' => Item::Text,
                b'c' => Item::Chars(self.number()?.unwrap_or(1)),
                b'x' => Item::Padding,
                b' ' => continue,
                b'<' => {
                    self.big_endian = false;
                    continue;
                }
                b'>' => {
                    self.big_endian = true;
                    continue;
                }
                b'!' => {
                    let alignment = self.number()?.unwrap_or(NATIVE_ALIGNMENT);
                    if !alignment.is_power_of_two() {
                        return Err(format!("alignment {alignment} is not a power of 2"));
                    }
                    self.alignment = alignment;
                    continue;
                }
                other => {
                    return Err(format!(
                        "bad argument #1 to '{}' (invalid format option '{}')",
                        self.function,
                        char::from(other)
                    ));
                }
            };
            let wanted = if item.is_aligned() { item.size().min(self.alignment) } else { 1 };
            let padding = if wanted > 1 { (wanted - (total & (wanted - 1))) & (wanted - 1) } else { 0 };
            return Ok(Some((item, padding)));
        }
        Ok(None)
    }
}

fn text_argument(lua: &Lua, args: &[Value], at: usize, function: &str) -> Result<Vec<u8>, String> {
    match args.get(at) {
        Some(Value::String(text)) => Ok(text.as_bytes().to_vec()),
        Some(value @ (Value::Integer(_) | Value::Number(_))) => {
            Ok(crate::number::general(to_number(lua, value).unwrap_or(0.0), 14).into_bytes())
        }
        other => Err(bad_argument(at + 1, function, "string", other)),
    }
}

/// The low 64 bits of a number as C converts it.
fn bits(n: f64) -> u64 {
    if n < 0.0 { n as i64 as u64 } else { n as u64 }
}

fn pack(lua: &Lua, args: &[Value]) -> Result<Vec<u8>, String> {
    let text = text_argument(lua, args, 0, "pack")?;
    let mut format = Format::new(&text, "pack");
    let mut out = Vec::new();
    let mut at = 1;
    // A missing argument reads as nil here.
    let nil = Value::Nil;
    while let Some((item, padding)) = format.next(out.len())? {
        if out.len() > MAX_LEN {
            return Err("result is too large".to_string());
        }
        out.resize(out.len() + padding, 0);
        let number = || {
            let value = args.get(at).unwrap_or(&nil);
            to_number(lua, value).ok_or_else(|| bad_argument(at + 1, "pack", "number", Some(value)))
        };
        match item {
            Item::Padding => {
                out.push(0);
                continue;
            }
            Item::Integer { size, .. } => {
                let n = number()?;
                put(&mut out, &extended(bits(n), n < 0.0, size), format.big_endian);
            }
            Item::Float => put(&mut out, &(number()? as f32).to_le_bytes(), format.big_endian),
            Item::Double => put(&mut out, &number()?.to_le_bytes(), format.big_endian),
            Item::Chars(n) => {
                let text = text_argument(lua, args, at, "pack")?;
                let n = if n == 0 { text.len() } else { n };
                let part = text
                    .get(..n)
                    .ok_or_else(|| format!("bad argument #{} to 'pack' (string too short)", at + 2))?;
                out.extend_from_slice(part);
            }
            Item::Text => {
                out.extend_from_slice(&text_argument(lua, args, at, "pack")?);
                out.push(0);
            }
        }
        at += 1;
    }
    Ok(out)
}

/// An integer of any width, low byte first: beyond 64 bits nothing but zeros, as in the reference.
fn extended(bits: u64, _negative: bool, size: usize) -> Vec<u8> {
    let mut bytes = bits.to_le_bytes().to_vec();
    bytes.resize(size, 0);
    bytes
}

fn put(out: &mut Vec<u8>, little_endian: &[u8], big_endian: bool) {
    if big_endian {
        out.extend(little_endian.iter().rev());
    } else {
        out.extend_from_slice(little_endian);
    }
}

fn integer(bytes: &[u8], signed: bool, big_endian: bool) -> f64 {
    let mut bits = 0u64;
    let mut add = |byte: &u8| bits = (bits << 8) | u64::from(*byte);
    if big_endian {
        bytes.iter().for_each(&mut add)
    } else {
        bytes.iter().rev().for_each(&mut add)
    }
    if !signed {
        return bits as f64;
    }
    let unused = 64usize.saturating_sub(bytes.len() * 8) as u32;
    if unused >= 64 { 0.0 } else { ((bits << unused) as i64 >> unused) as f64 }
}

fn unpack(lua: &Lua, args: &[Value]) -> mlua::Result<Result<MultiValue, String>> {
    let (text, data) = match (text_argument(lua, args, 0, "unpack"), text_argument(lua, args, 1, "unpack")) {
        (Ok(text), Ok(data)) => (text, data),
        (Err(problem), _) | (_, Err(problem)) => return Ok(Err(problem)),
    };
    let position = match args.get(2) {
        None | Some(Value::Nil) => 1.0,
        Some(value) => match to_number(lua, value) {
            Some(n) => n,
            None => return Ok(Err(bad_argument(3, "unpack", "number", Some(value)))),
        },
    };
    let too_short = || Ok(Err("bad argument #2 to 'unpack' (data string too short)".to_string()));
    if position.trunc() == 0.0 {
        return Ok(Err("bad argument #3 to 'unpack' (offset must be 1 or greater)".to_string()));
    }
    if position < 0.0 || position > data.len() as f64 + 1.0 {
        return too_short();
    }
    let mut at = position as usize - 1;
    let mut format = Format::new(&text, "unpack");
    let mut found: Vec<Value> = Vec::new();
    loop {
        let (item, padding) = match format.next(at) {
            Ok(Some(next)) => next,
            Ok(None) => break,
            Err(problem) => return Ok(Err(problem)),
        };
        at = at.saturating_add(padding);
        if found.len() >= MAX_RESULTS {
            return Ok(Err("too many results to unpack".to_string()));
        }
        let mut size = item.size();
        if item == Item::Chars(0) {
            let Some(Value::Number(n)) = found.pop() else {
                return Ok(Err("format 'c0' needs a previous size".to_string()));
            };
            if n < 0.0 {
                return too_short();
            }
            size = n as usize;
        }
        if item == Item::Text {
            let rest = data.get(at..).unwrap_or_default();
            let Some(len) = rest.iter().position(|&b| b == 0) else {
                return Ok(Err("unfinished string in data".to_string()));
            };
            found.push(lua.create_string(&rest[..len])?.into_lua(lua)?);
            at += len + 1;
            continue;
        }
        let Some(bytes) = at.checked_add(size).and_then(|end| data.get(at..end)) else { return too_short() };
        at += size;
        let ordered = || {
            let mut raw = [0; 8];
            let raw = &mut raw[..size.min(8)];
            raw.copy_from_slice(bytes.get(..raw.len()).unwrap_or_default());
            if format.big_endian {
                raw.reverse();
            }
            let mut whole = [0; 8];
            whole[..raw.len()].copy_from_slice(raw);
            whole
        };
        found.push(match item {
            Item::Integer { signed, .. } => Value::Number(integer(bytes, signed, format.big_endian)),
            Item::Float => {
                let raw = ordered();
                Value::Number(f64::from(f32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]])))
            }
            Item::Double => Value::Number(f64::from_le_bytes(ordered())),
            Item::Chars(_) => lua.create_string(bytes)?.into_lua(lua)?,
            Item::Text | Item::Padding => continue,
        });
    }
    found.push(Value::Number(at as f64 + 1.0));
    Ok(Ok(MultiValue::from_vec(found)))
}

fn size(lua: &Lua, args: &[Value]) -> Result<u64, String> {
    let text = text_argument(lua, args, 0, "size")?;
    let mut format = Format::new(&text, "size");
    let mut total = 0u64;
    while let Some((item, padding)) = format.next(total as usize)? {
        match item {
            Item::Text => return Err("bad argument #1 to 'size' (option 's' has no fixed size)".to_string()),
            Item::Chars(0) => {
                return Err("bad argument #1 to 'size' (option 'c0' has no fixed size)".to_string());
            }
            _ => {}
        }
        total = total
            .checked_add((item.size() + padding) as u64)
            .filter(|n| *n < 1 << 53)
            .ok_or("format result is too large")?;
    }
    Ok(total)
}
