//! The arguments of `server.register_function`.

use crate::host::LibraryFunction;
use mlua::{Function, MultiValue, Table, Value};

const NAME: &str = "server.register_function";

/// By position (name, callback), or by names in one table. Errors are whole texts.
pub(crate) fn parse(count: usize, args: &MultiValue) -> Result<(LibraryFunction, Function), String> {
    match (count, args.front(), args.get(1)) {
        (1, Some(Value::Table(table)), _) => named(table),
        (1, ..) => Err(format!(
            "ERR calling {NAME} with a single argument is only applicable to Lua table (representing named arguments)."
        )),
        (2, Some(name), callback) => {
            let name = text(name).ok_or(format!("ERR first argument to {NAME} must be a string"))?;
            match callback {
                Some(Value::Function(callback)) => Ok((LibraryFunction::named(name), callback.clone())),
                _ => Err(format!("ERR second argument to {NAME} must be a function")),
            }
        }
        _ => Err(format!("ERR wrong number of arguments to {NAME}")),
    }
}

fn named(table: &Table) -> Result<(LibraryFunction, Function), String> {
    let (mut name, mut callback, mut description, mut flags) = (None, None, None, Vec::new());
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair.map_err(|error| format!("ERR {error}"))?;
        let Value::String(key) = key else {
            return Err(match key {
                Value::Integer(_) | Value::Number(_) => format!("ERR unknown argument given to {NAME}"),
                _ => format!("ERR named argument key given to {NAME} is not a string"),
            });
        };
        match &*key.as_bytes() {
            b"function_name" => {
                let given = text(&value)
                    .ok_or(format!("ERR function_name argument given to {NAME} must be a string"))?;
                name = Some(given);
            }
            b"description" => {
                let given = text(&value)
                    .ok_or(format!("ERR description argument given to {NAME} must be a string"))?;
                description = Some(given);
            }
            b"callback" => match value {
                Value::Function(given) => callback = Some(given),
                _ => return Err(format!("ERR callback argument given to {NAME} must be a function")),
            },
            b"flags" => match value {
                Value::Table(given) => flags = flag_names(&given)?,
                _ => {
                    return Err(format!(
                        "ERR flags argument to {NAME} must be a table representing function flags"
                    ));
                }
            },
            _ => return Err(format!("ERR unknown argument given to {NAME}")),
        }
    }
    let name = name.ok_or(format!("ERR {NAME} must get a function name argument"))?;
    let callback = callback.ok_or(format!("ERR {NAME} must get a callback argument"))?;
    Ok((LibraryFunction { name, description, flags }, callback))
}

fn flag_names(table: &Table) -> Result<Vec<Vec<u8>>, String> {
    let mut flags = Vec::new();
    for i in 1.. {
        match table.raw_get::<Value>(i) {
            Ok(Value::Nil) => break,
            Ok(Value::String(flag)) => flags.push(flag.as_bytes().to_vec()),
            _ => return Err("ERR unknown flag given".to_string()),
        }
    }
    Ok(flags)
}

/// A string, or a number as text.
fn text(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Integer(n) => Some(n.to_string().into_bytes()),
        Value::Number(n) => Some(crate::number::general(*n, 14).into_bytes()),
        _ => None,
    }
}
