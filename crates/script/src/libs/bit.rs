//! `bit`: operations on 32-bit integers, with numbers taken modulo 2^32 and results signed.

use super::{add, bad_argument, to_number};
use mlua::{IntoLuaMulti, Lua, MultiValue, Table, Value, Variadic};

type Args = Variadic<Value>;
type Unary = (&'static str, fn(u32) -> u32);
type Binary = (&'static str, fn(u32, u32) -> u32);

/// The library.
pub(crate) fn table(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let folds: [Binary; 3] = [("band", |a, b| a & b), ("bor", |a, b| a | b), ("bxor", |a, b| a ^ b)];
    for (name, fold) in folds {
        add(lua, &table, name, move |lua, args: Args| {
            let result = (1..args.len()).try_fold(operand(lua, name, &args, 0), |sum, i| {
                Ok::<_, String>(sum.and_then(|a| operand(lua, name, &args, i).map(|b| fold(a, b))))
            });
            number(lua, result.and_then(|r| r))
        })?;
    }
    let shifts: [Binary; 5] = [
        ("lshift", |a, n| a << n),
        ("rshift", |a, n| a >> n),
        ("arshift", |a, n| (a as i32 >> n) as u32),
        ("rol", u32::rotate_left),
        ("ror", u32::rotate_right),
    ];
    for (name, shift) in shifts {
        add(lua, &table, name, move |lua, args: Args| {
            let result = operand(lua, name, &args, 0)
                .and_then(|a| operand(lua, name, &args, 1).map(|n| shift(a, n & 31)));
            number(lua, result)
        })?;
    }
    let unary: [Unary; 3] = [("tobit", |a| a), ("bnot", |a| !a), ("bswap", u32::swap_bytes)];
    for (name, op) in unary {
        add(lua, &table, name, move |lua, args: Args| {
            let result = operand(lua, name, &args, 0).map(op);
            number(lua, result)
        })?;
    }
    add(lua, &table, "tohex", |lua, args: Args| {
        let digits = match args.get(1) {
            None | Some(Value::Nil) => Ok(8),
            Some(_) => operand(lua, "tohex", &args, 1).map(|n| n as i32),
        };
        Ok(match operand(lua, "tohex", &args, 0).and_then(|a| digits.map(|n| hex(a, n))) {
            Ok(text) => Ok(text.into_lua_multi(lua)?),
            Err(text) => Err(text),
        })
    })?;
    Ok(table)
}

fn number(lua: &Lua, result: Result<u32, String>) -> mlua::Result<Result<MultiValue, String>> {
    Ok(match result {
        Ok(bits) => Ok(f64::from(bits as i32).into_lua_multi(lua)?),
        Err(text) => Err(text),
    })
}

/// An argument as bits: rounded to the nearest even integer, modulo 2^32.
fn operand(lua: &Lua, function: &str, args: &[Value], at: usize) -> Result<u32, String> {
    let value = args.get(at);
    let number = value
        .and_then(|value| to_number(lua, value))
        .ok_or_else(|| bad_argument(at + 1, function, "number", value))?;
    // Adding 2^52 + 2^51 leaves the integer in the low bits of the mantissa.
    Ok((number + 6_755_399_441_055_744.0).to_bits() as u32)
}

/// The lowest hexadecimal digits, 8 at most; a negative count means capitals.
fn hex(bits: u32, digits: i32) -> String {
    let count = digits.unsigned_abs().min(8) as usize;
    let text = if digits < 0 { format!("{bits:08X}") } else { format!("{bits:08x}") };
    text[8 - count..].to_string()
}

#[cfg(test)]
mod tests {
    use super::hex;

    #[test]
    fn extreme_widths() {
        assert_eq!(hex(255, 4), "00ff");
        assert_eq!(hex(0x00ab_cdef, -100), "00ABCDEF");
        assert_eq!(hex(1, i32::MIN), "00000001");
        assert_eq!(hex(1, 0), "");
    }
}
