//! `cjson`: JSON.

use super::{add, bad_argument, to_number, type_name};
use crate::number::general;
use mlua::{IntoLua, IntoLuaMulti, Lua, MultiValue, Table, Value, Variadic};
use std::cell::Cell;
use std::rc::Rc;

type Args = Variadic<Value>;
type Outcome = mlua::Result<Result<MultiValue, String>>;

/// A nesting that no setting exceeds: each level is a frame of the native stack.
const MAX_DEPTH: usize = 2000;

/// What to do with numbers that JSON has no form for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Invalid {
    Refuse,
    Allow,
    Null,
}

/// An instance's settings.
struct Settings {
    sparse_convert: Cell<bool>,
    sparse_ratio: Cell<i32>,
    sparse_safe: Cell<i32>,
    encode_depth: Cell<i32>,
    decode_depth: Cell<i32>,
    precision: Cell<i32>,
    keep_buffer: Cell<bool>,
    encode_invalid: Cell<Invalid>,
    decode_invalid: Cell<bool>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            sparse_convert: Cell::new(false),
            sparse_ratio: Cell::new(2),
            sparse_safe: Cell::new(10),
            encode_depth: Cell::new(1000),
            decode_depth: Cell::new(1000),
            precision: Cell::new(14),
            keep_buffer: Cell::new(true),
            encode_invalid: Cell::new(Invalid::Refuse),
            decode_invalid: Cell::new(true),
        }
    }
}

/// A fresh instance of the library.
/// Name, largest value, field.
type IntegerSetting = (&'static str, i32, fn(&Settings) -> &Cell<i32>);

pub(crate) fn table(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let settings = Rc::new(Settings::default());
    table.set("_NAME", "cjson")?;
    table.set("_VERSION", "2.1.0")?;
    table.set("null", Value::NULL)?;
    let s = settings.clone();
    add(lua, &table, "encode", move |lua, args: Args| {
        if args.len() != 1 {
            return Ok(Err("bad argument #1 to 'encode' (expected 1 argument)".to_string()));
        }
        let mut out = Vec::new();
        match encode(&s, &args[0], 0, &mut out) {
            Ok(()) => Ok(Ok(one(lua.create_string(&out)?.into_lua(lua)?))),
            Err(Fault::Text(text)) => Ok(Err(text)),
            Err(Fault::Lua(error)) => Err(error),
        }
    })?;
    let s = settings.clone();
    add(lua, &table, "decode", move |lua, args: Args| decode_args(lua, &s, &args))?;
    let integers: [IntegerSetting; 3] = [
        ("encode_max_depth", i32::MAX, |s| &s.encode_depth),
        ("decode_max_depth", i32::MAX, |s| &s.decode_depth),
        ("encode_number_precision", 14, |s| &s.precision),
    ];
    for (name, max, field) in integers {
        let s = settings.clone();
        add(lua, &table, name, move |lua, args: Args| {
            if args.len() > 1 {
                return Ok(Err(format!("bad argument #2 to '{name}' (found too many arguments)")));
            }
            if let Err(text) = set_integer(lua, name, &args, 0, 1, max, field(&s)) {
                return Ok(Err(text));
            }
            Ok(Ok(one(Value::Number(f64::from(field(&s).get())))))
        })?;
    }
    let s = settings.clone();
    add(lua, &table, "encode_keep_buffer", move |_, args: Args| {
        Ok(set_choice("encode_keep_buffer", &args, false).map(|choice| {
            if let Some(choice) = choice {
                s.keep_buffer.set(choice == Invalid::Allow);
            }
            one(Value::Boolean(s.keep_buffer.get()))
        }))
    })?;
    let s = settings.clone();
    add(lua, &table, "encode_invalid_numbers", move |lua, args: Args| {
        match set_choice("encode_invalid_numbers", &args, true) {
            Err(text) => return Ok(Err(text)),
            Ok(Some(choice)) => s.encode_invalid.set(choice),
            Ok(None) => {}
        }
        Ok(Ok(match s.encode_invalid.get() {
            Invalid::Refuse => one(Value::Boolean(false)),
            Invalid::Allow => one(Value::Boolean(true)),
            Invalid::Null => "null".into_lua_multi(lua)?,
        }))
    })?;
    let s = settings.clone();
    add(lua, &table, "decode_invalid_numbers", move |_, args: Args| {
        Ok(set_choice("decode_invalid_numbers", &args, false).map(|choice| {
            if let Some(choice) = choice {
                s.decode_invalid.set(choice == Invalid::Allow);
            }
            one(Value::Boolean(s.decode_invalid.get()))
        }))
    })?;
    let s = settings;
    add(lua, &table, "encode_sparse_array", move |lua, args: Args| {
        let name = "encode_sparse_array";
        match set_choice(name, &args[..args.len().min(1)], false) {
            Err(text) => return Ok(Err(text)),
            Ok(Some(choice)) => s.sparse_convert.set(choice == Invalid::Allow),
            Ok(None) => {}
        }
        let set = set_integer(lua, name, &args, 1, 0, i32::MAX, &s.sparse_ratio)
            .and_then(|()| set_integer(lua, name, &args, 2, 0, i32::MAX, &s.sparse_safe));
        Ok(set.map(|()| {
            MultiValue::from_vec(vec![
                Value::Boolean(s.sparse_convert.get()),
                Value::Number(f64::from(s.sparse_ratio.get())),
                Value::Number(f64::from(s.sparse_safe.get())),
            ])
        }))
    })?;
    add(lua, &table, "new", |lua, _: Args| Ok(Ok(one(Value::Table(self::table(lua)?)))))?;
    Ok(table)
}

fn one(value: Value) -> MultiValue {
    MultiValue::from_vec(vec![value])
}

fn set_integer(
    lua: &Lua,
    name: &str,
    args: &[Value],
    at: usize,
    min: i32,
    max: i32,
    field: &Cell<i32>,
) -> Result<(), String> {
    let value = match args.get(at) {
        None | Some(Value::Nil) => return Ok(()),
        Some(value) => value,
    };
    let n = to_number(lua, value).ok_or_else(|| bad_argument(at + 1, name, "number", Some(value)))?;
    if n.trunc() < f64::from(min) || n.trunc() > f64::from(max) {
        return Err(format!(
            "bad argument #{} to '{name}' (expected integer between {min} and {max})",
            at + 1
        ));
    }
    field.set(n as i32);
    Ok(())
}

/// A switch by boolean or by word.
fn set_choice(name: &str, args: &[Value], with_null: bool) -> Result<Option<Invalid>, String> {
    if args.len() > 1 {
        return Err(format!("bad argument #2 to '{name}' (found too many arguments)"));
    }
    match args.first() {
        None | Some(Value::Nil) => Ok(None),
        Some(Value::Boolean(on)) => Ok(Some(if *on { Invalid::Allow } else { Invalid::Refuse })),
        Some(Value::String(word)) => match &*word.as_bytes() {
            b"on" => Ok(Some(Invalid::Allow)),
            b"off" => Ok(Some(Invalid::Refuse)),
            b"null" if with_null => Ok(Some(Invalid::Null)),
            other => Err(format!(
                "bad argument #1 to '{name}' (invalid option '{}')",
                String::from_utf8_lossy(other)
            )),
        },
        other => Err(bad_argument(1, name, "string", other)),
    }
}

enum Fault {
    Text(String),
    Lua(mlua::Error),
}

impl From<mlua::Error> for Fault {
    fn from(error: mlua::Error) -> Self {
        Fault::Lua(error)
    }
}

fn unserialisable(value: &Value, why: &str) -> Fault {
    Fault::Text(format!("Cannot serialise {}: {why}", type_name(value)))
}

fn encode(s: &Settings, value: &Value, depth: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
    match value {
        Value::Nil => out.extend_from_slice(b"null"),
        Value::Boolean(true) => out.extend_from_slice(b"true"),
        Value::Boolean(false) => out.extend_from_slice(b"false"),
        Value::Integer(n) => encode_number(s, value, *n as f64, out)?,
        Value::Number(n) => encode_number(s, value, *n, out)?,
        Value::String(text) => encode_string(&text.as_bytes(), out),
        Value::LightUserData(pointer) if pointer.0.is_null() => out.extend_from_slice(b"null"),
        Value::Table(table) => encode_table(s, table, depth + 1, out)?,
        _ => return Err(unserialisable(value, "type not supported")),
    }
    Ok(())
}

fn encode_number(s: &Settings, value: &Value, n: f64, out: &mut Vec<u8>) -> Result<(), Fault> {
    if !n.is_finite() {
        match s.encode_invalid.get() {
            Invalid::Refuse => return Err(unserialisable(value, "must not be NaN or Inf")),
            Invalid::Null => {
                out.extend_from_slice(b"null");
                return Ok(());
            }
            Invalid::Allow if n.is_nan() => {
                out.extend_from_slice(b"nan");
                return Ok(());
            }
            Invalid::Allow => {}
        }
    }
    out.extend_from_slice(general(n, s.precision.get() as usize).as_bytes());
    Ok(())
}

fn encode_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'/' => out.extend_from_slice(b"\\/"),
            8 => out.extend_from_slice(b"\\b"),
            9 => out.extend_from_slice(b"\\t"),
            10 => out.extend_from_slice(b"\\n"),
            12 => out.extend_from_slice(b"\\f"),
            13 => out.extend_from_slice(b"\\r"),
            0..=31 | 127 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// The length of a table that is an array; `None`: it has other keys. Empty tables are objects.
fn array_len(s: &Settings, table: &Table) -> Result<Option<usize>, Fault> {
    let (mut max, mut count, mut is_array) = (0f64, 0usize, true);
    table.for_each(|key: Value, _: Value| {
        let index = match key {
            Value::Integer(n) => n as f64,
            Value::Number(n) => n,
            _ => 0.0,
        };
        is_array &= index >= 1.0 && index.floor() == index;
        max = max.max(index);
        count += 1;
        Ok(())
    })?;
    if !is_array || count == 0 {
        return Ok(None);
    }
    let (ratio, safe) = (f64::from(s.sparse_ratio.get()), f64::from(s.sparse_safe.get()));
    if ratio > 0.0 && max > count as f64 * ratio && max > safe {
        if !s.sparse_convert.get() {
            return Err(Fault::Text("Cannot serialise table: excessively sparse array".to_string()));
        }
        return Ok(None);
    }
    // Whatever the settings: so many nulls are no result.
    if max > 67_108_864.0 && max > count as f64 * 2.0 {
        return Err(Fault::Text("Cannot serialise table: excessively sparse array".to_string()));
    }
    Ok(Some(max as usize))
}

fn encode_table(s: &Settings, table: &Table, depth: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
    if depth > (s.encode_depth.get() as usize).min(MAX_DEPTH) {
        return Err(Fault::Text(format!("Cannot serialise, excessive nesting ({depth})")));
    }
    if let Some(len) = array_len(s, table)? {
        out.push(b'[');
        for i in 1..=len {
            if i > 1 {
                out.push(b',');
            }
            encode(s, &table.raw_get::<Value>(i)?, depth, out)?;
        }
        out.push(b']');
        return Ok(());
    }
    out.push(b'{');
    let mut first = true;
    let mut problem = None;
    let walked = table.for_each(|key: Value, value: Value| {
        let mut pair = || {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            match &key {
                Value::String(text) => encode_string(&text.as_bytes(), out),
                Value::Integer(_) | Value::Number(_) => {
                    let n = if let Value::Integer(n) = key { n as f64 } else { key.as_f64().unwrap_or(0.0) };
                    out.push(b'"');
                    encode_number(s, &key, n, out)?;
                    out.push(b'"');
                }
                _ => return Err(unserialisable(&key, "table key must be a number or string")),
            }
            out.push(b':');
            encode(s, &value, depth, out)
        };
        pair().map_err(|fault| {
            problem = Some(fault);
            mlua::Error::runtime("stopped")
        })
    });
    if let Some(fault) = problem {
        return Err(fault);
    }
    walked?;
    out.push(b'}');
    Ok(())
}

fn decode_args(lua: &Lua, s: &Settings, args: &[Value]) -> Outcome {
    if args.len() != 1 {
        return Ok(Err("bad argument #1 to 'decode' (expected 1 argument)".to_string()));
    }
    let text = match &args[0] {
        Value::String(text) => text.as_bytes().to_vec(),
        value @ (Value::Integer(_) | Value::Number(_)) => {
            general(to_number(lua, value).unwrap_or(0.0), 14).into_bytes()
        }
        other => return Ok(Err(bad_argument(1, "decode", "string", Some(other)))),
    };
    if text.len() >= 2 && (text[0] == 0 || text[1] == 0) {
        return Ok(Err("JSON parser does not support UTF-16 or UTF-32".to_string()));
    }
    let mut parser = Parser { lua, s, text: &text, at: 0, depth: 0 };
    let outcome = parser.next().and_then(|token| {
        let value = parser.value(token)?;
        match parser.next()? {
            (Token::End, _) => Ok(value),
            token => Err(expected("the end", &token)),
        }
    });
    match outcome {
        Ok(value) => Ok(Ok(one(value))),
        Err(Fault::Text(text)) => Ok(Err(text)),
        Err(Fault::Lua(error)) => Err(error),
    }
}

#[derive(Debug)]
enum Token {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    String(Vec<u8>),
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    Error(&'static str),
}

impl Token {
    fn name(&self) -> &'static str {
        match self {
            Token::ObjectBegin => "T_OBJ_BEGIN",
            Token::ObjectEnd => "T_OBJ_END",
            Token::ArrayBegin => "T_ARR_BEGIN",
            Token::ArrayEnd => "T_ARR_END",
            Token::String(_) => "T_STRING",
            Token::Number(_) => "T_NUMBER",
            Token::Boolean(_) => "T_BOOLEAN",
            Token::Null => "T_NULL",
            Token::Colon => "T_COLON",
            Token::Comma => "T_COMMA",
            Token::End => "T_END",
            Token::Error(what) => what,
        }
    }
}

/// A token and where it begins.
type Placed = (Token, usize);

fn expected(what: &str, token: &Placed) -> Fault {
    Fault::Text(format!("Expected {what} but found {} at character {}", token.0.name(), token.1 + 1))
}

struct Parser<'p> {
    lua: &'p Lua,
    s: &'p Settings,
    text: &'p [u8],
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn next(&mut self) -> Result<Placed, Fault> {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        let start = self.at;
        let Some(&byte) = self.text.get(self.at) else { return Ok((Token::End, start)) };
        self.at += 1;
        let token = match byte {
            b'{' => Token::ObjectBegin,
            b'}' => Token::ObjectEnd,
            b'[' => Token::ArrayBegin,
            b']' => Token::ArrayEnd,
            b',' => Token::Comma,
            b':' => Token::Colon,
            b'"' => return Ok(self.string()),
            b'-' | b'+' | b'0'..=b'9' | b'i' | b'I' | b'N' => self.number(start),
            b'n' if self.word("null") => Token::Null,
            b'n' => self.number(start),
            b't' if self.word("true") => Token::Boolean(true),
            b'f' if self.word("false") => Token::Boolean(false),
            _ => Token::Error("invalid token"),
        };
        Ok((token, start))
    }

    fn word(&mut self, word: &str) -> bool {
        let begins = self.text.get(self.at - 1..).is_some_and(|rest| rest.starts_with(word.as_bytes()));
        if begins {
            self.at += word.len() - 1;
        }
        begins
    }

    /// A number as C's `strtod` reads it, hexadecimal, infinity and NaN included where they are allowed.
    fn number(&mut self, start: usize) -> Token {
        let rest = self.text.get(start..).unwrap_or_default();
        let unsigned = rest.strip_prefix(b"-").or(rest.strip_prefix(b"+")).unwrap_or(rest);
        let has =
            |word: &str| unsigned.get(..word.len()).is_some_and(|w| w.eq_ignore_ascii_case(word.as_bytes()));
        let is_hex = has("0x");
        if (has("inf") || has("nan") || is_hex) && !self.s.decode_invalid.get() {
            return Token::Error("invalid number");
        }
        let (len, number) = if is_hex { hexadecimal(unsigned) } else { decimal(unsigned, &has) };
        if len == 0 {
            let is_word = !matches!(rest.first(), Some(b'-' | b'+' | b'0'..=b'9'));
            return Token::Error(if is_word { "invalid token" } else { "invalid number" });
        }
        self.at = start + (rest.len() - unsigned.len()) + len;
        Token::Number(if rest.starts_with(b"-") { -number } else { number })
    }

    fn string(&mut self) -> Placed {
        let begin = self.at - 1;
        let mut out = Vec::new();
        loop {
            let Some(&byte) = self.text.get(self.at) else {
                return (Token::Error("unexpected end of string"), self.at);
            };
            let at = self.at;
            self.at += 1;
            match byte {
                b'"' => return (Token::String(out), begin),
                b'\\' => {
                    let escape = self.text.get(self.at).copied();
                    self.at += 1;
                    match escape {
                        Some(c @ (b'"' | b'\\' | b'/')) => out.push(c),
                        Some(b'b') => out.push(8),
                        Some(b'f') => out.push(12),
                        Some(b'n') => out.push(10),
                        Some(b'r') => out.push(13),
                        Some(b't') => out.push(9),
                        Some(b'u') => match self.unicode() {
                            Some(c) => {
                                let mut utf8 = [0; 4];
                                out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
                            }
                            None => return (Token::Error("invalid unicode escape code"), at),
                        },
                        _ => return (Token::Error("invalid escape code"), at),
                    }
                }
                _ => out.push(byte),
            }
        }
    }

    fn hex4(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        self.at += 4;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }

    fn unicode(&mut self) -> Option<char> {
        let first = self.hex4()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first);
        }
        if self.text.get(self.at..self.at + 2) != Some(b"\\u") {
            return None;
        }
        self.at += 2;
        let second = self.hex4().filter(|low| (0xdc00..0xe000).contains(low))?;
        char::from_u32(0x10000 + ((first & 0x3ff) << 10) + (second & 0x3ff))
    }

    fn value(&mut self, token: Placed) -> Result<Value, Fault> {
        Ok(match token.0 {
            Token::String(text) => Value::String(self.lua.create_string(text)?),
            Token::Number(n) => Value::Number(n),
            Token::Boolean(b) => Value::Boolean(b),
            Token::Null => Value::NULL,
            Token::ObjectBegin => self.nested(Self::object)?,
            Token::ArrayBegin => self.nested(Self::array)?,
            _ => return Err(expected("value", &token)),
        })
    }

    fn nested(&mut self, parse: impl FnOnce(&mut Self) -> Result<Value, Fault>) -> Result<Value, Fault> {
        self.depth += 1;
        if self.depth > (self.s.decode_depth.get() as usize).min(MAX_DEPTH) {
            return Err(Fault::Text(format!(
                "Found too many nested data structures ({}) at character {}",
                self.depth, self.at
            )));
        }
        let value = parse(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn object(&mut self) -> Result<Value, Fault> {
        let table = self.lua.create_table()?;
        let mut token = self.next()?;
        if matches!(token.0, Token::ObjectEnd) {
            return Ok(Value::Table(table));
        }
        loop {
            let Token::String(key) = token.0 else { return Err(expected("object key string", &token)) };
            let colon = self.next()?;
            if !matches!(colon.0, Token::Colon) {
                return Err(expected("colon", &colon));
            }
            let first = self.next()?;
            let value = self.value(first)?;
            table.raw_set(self.lua.create_string(key)?, value)?;
            let end = self.next()?;
            match end.0 {
                Token::ObjectEnd => return Ok(Value::Table(table)),
                Token::Comma => token = self.next()?,
                _ => return Err(expected("comma or object end", &end)),
            }
        }
    }

    fn array(&mut self) -> Result<Value, Fault> {
        let table = self.lua.create_table()?;
        let mut token = self.next()?;
        if matches!(token.0, Token::ArrayEnd) {
            return Ok(Value::Table(table));
        }
        for i in 1.. {
            let value = self.value(token)?;
            table.raw_set(i, value)?;
            let end = self.next()?;
            match end.0 {
                Token::ArrayEnd => break,
                Token::Comma => token = self.next()?,
                _ => return Err(expected("comma or array end", &end)),
            }
        }
        Ok(Value::Table(table))
    }
}

/// Length and value of a hexadecimal number without sign.
fn hexadecimal(text: &[u8]) -> (usize, f64) {
    let digits = text.iter().skip(2).take_while(|b| b.is_ascii_hexdigit()).count();
    if digits == 0 {
        return (1, 0.0);
    }
    let value = text
        .iter()
        .skip(2)
        .take(digits)
        .fold(0.0, |n, &b| n * 16.0 + f64::from(char::from(b).to_digit(16).unwrap_or(0)));
    (digits + 2, value)
}

/// Length and value of a decimal number without sign, infinity or NaN; length 0 where there is none.
fn decimal(text: &[u8], has: &dyn Fn(&str) -> bool) -> (usize, f64) {
    for (word, value) in [("infinity", f64::INFINITY), ("inf", f64::INFINITY), ("nan", f64::NAN)] {
        if has(word) {
            return (word.len(), value);
        }
    }
    let digits = |from: usize| text.iter().skip(from).take_while(|b| b.is_ascii_digit()).count();
    let whole = digits(0);
    let mut len = whole;
    if text.get(len) == Some(&b'.') {
        let fraction = digits(len + 1);
        if whole + fraction == 0 {
            return (0, 0.0);
        }
        len += 1 + fraction;
    }
    if len == 0 {
        return (0, 0.0);
    }
    if matches!(text.get(len), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(len + 1), Some(b'+' | b'-')));
        let exponent = digits(len + 1 + sign);
        if exponent > 0 {
            len += 1 + sign + exponent;
        }
    }
    let number = std::str::from_utf8(&text[..len]).ok().and_then(|t| t.parse().ok());
    (len, number.unwrap_or(0.0))
}
