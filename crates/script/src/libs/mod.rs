//! Libraries that scripts find ready: bit, cjson, cmsgpack, struct. Errors are raised with the caller's position, as C
//! libraries do.

mod bit;
mod cjson;
mod cmsgpack;
pub(crate) mod register;
mod structs;

use mlua::{FromLuaMulti, Lua, MultiValue, Table, Value};

/// The libraries by name.
pub(crate) fn tables(lua: &Lua) -> mlua::Result<Table> {
    let libraries = lua.create_table()?;
    libraries.set("bit", bit::table(lua)?)?;
    libraries.set("cjson", cjson::table(lua)?)?;
    libraries.set("cmsgpack", cmsgpack::table(lua)?)?;
    libraries.set("struct", structs::table(lua)?)?;
    Ok(libraries)
}

/// Adds a function whose errors are texts.
fn add<A: FromLuaMulti>(
    lua: &Lua,
    table: &Table,
    name: &str,
    f: impl Fn(&Lua, A) -> mlua::Result<Result<MultiValue, String>> + 'static,
) -> mlua::Result<()> {
    let function = lua.create_function(move |lua, args: A| {
        f(lua, args)?.map_err(|text| crate::native::positioned(lua, &text))
    })?;
    table.set(name, function)
}

/// `bad argument ...`, as Lua words it.
pub(crate) fn bad_argument(position: usize, function: &str, expected: &str, got: Option<&Value>) -> String {
    let got = got.map_or("no value", type_name);
    format!("bad argument #{position} to '{function}' ({expected} expected, got {got})")
}

/// What `type()` says.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Boolean(_) => "boolean",
        Value::LightUserData(_) | Value::UserData(_) => "userdata",
        Value::Integer(_) | Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Table(_) => "table",
        Value::Function(_) => "function",
        Value::Thread(_) => "thread",
        _ => "userdata",
    }
}

/// A number, or a text that is one, as `lua_tonumber` takes it.
pub(crate) fn to_number(lua: &Lua, value: &Value) -> Option<f64> {
    match value {
        Value::Integer(n) => Some(*n as f64),
        Value::Number(n) => Some(*n),
        Value::String(_) => lua.coerce_number(value.clone()).ok().flatten(),
        _ => None,
    }
}
