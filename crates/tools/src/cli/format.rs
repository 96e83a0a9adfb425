//! Replies as text: for people (with types and indices), raw, as CSV and as JSON. Byte for byte the reference's forms.

use super::options::Output;
use kara_base::text::push_quoted;
use kara_resp::Value;

/// How replies are separated in raw output.
#[derive(Clone, Debug)]
pub struct Delimiters {
    /// Between the elements of one reply.
    pub elements: Vec<u8>,
    /// Behind each reply.
    pub replies: Vec<u8>,
}

/// A reply in the output's form with its end. `verbatim` is for texts such as INFO's, which are shown as they are.
pub fn reply(value: &Value, output: Output, verbatim: bool, delimiters: &Delimiters) -> Vec<u8> {
    let mut out = Vec::new();
    match output {
        _ if verbatim => raw(&mut out, value, &delimiters.elements),
        Output::Standard => standard(&mut out, value, &mut Vec::new()),
        Output::Raw => {
            raw(&mut out, value, &delimiters.elements);
            out.extend_from_slice(&delimiters.replies);
        }
        Output::Csv => {
            csv(&mut out, value);
            out.push(b'\n');
        }
        Output::Json | Output::QuotedJson => {
            json(&mut out, value, output == Output::QuotedJson);
            out.push(b'\n');
        }
    }
    out
}

/// The message by which a server tells that tracked keys changed, for people.
pub fn invalidation(message: &Value) -> Option<Vec<u8>> {
    let [kind, keys] = message.as_elements()? else { return None };
    let Value::Array(keys) = keys else { return None };
    if !kind.as_bytes()?.starts_with(b"invalidate") {
        return None;
    }
    let mut out = b"-> invalidate: ".to_vec();
    for (at, key) in keys.iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(b", ");
        }
        out.push(b'\'');
        out.extend_from_slice(key.as_bytes()?);
        out.push(b'\'');
    }
    out.push(b'\n');
    Some(out)
}

fn plain(value: &Value) -> &Value {
    match value {
        Value::Attributed { value, .. } => plain(value),
        other => other,
    }
}

fn standard(out: &mut Vec<u8>, value: &Value, indent: &mut Vec<u8>) {
    let line = |out: &mut Vec<u8>, head: &[u8], text: &[u8]| {
        out.extend_from_slice(head);
        out.extend_from_slice(text);
        out.push(b'\n');
    };
    match plain(value) {
        Value::Error(text) => line(out, b"(error) ", text),
        Value::Simple(text) | Value::Verbatim { text, .. } => line(out, b"", text),
        Value::Integer(number) => line(out, b"(integer) ", number.to_string().as_bytes()),
        Value::Double(text) => line(out, b"(double) ", text),
        Value::BigNumber(text) => line(out, b"(big number) ", text),
        Value::Bulk(text) => {
            push_quoted(out, text);
            out.push(b'\n');
        }
        Value::Null | Value::NullBulk | Value::NullArray => line(out, b"(nil)", b""),
        Value::Bool(value) => line(out, if *value { b"(true)" } else { b"(false)" }, b""),
        Value::Array(items) => elements(out, items, b"(empty array)\n", b')', indent),
        Value::Set(items) => elements(out, items, b"(empty set)\n", b'~', indent),
        Value::Push(items) => elements(out, items, b"(empty push)\n", b')', indent),
        Value::Map(pairs) => map(out, pairs, indent),
        Value::Attributed { .. } => {}
    }
}

/// Widens the indent by the width of `count` indices and gives that width.
fn widen(indent: &mut Vec<u8>, count: usize) -> usize {
    let width = count.to_string().len();
    indent.resize(indent.len() + width + 2, b' ');
    width
}

fn elements(out: &mut Vec<u8>, items: &[Value], empty: &[u8], mark: u8, indent: &mut Vec<u8>) {
    if items.is_empty() {
        out.extend_from_slice(empty);
        return;
    }
    let outer = indent.len();
    let width = widen(indent, items.len());
    for (at, item) in items.iter().enumerate() {
        // The first one stands behind its parent's index.
        if at > 0 {
            out.extend_from_slice(indent.get(..outer).unwrap_or_default());
        }
        out.extend_from_slice(format!("{:>width$}{} ", at + 1, char::from(mark)).as_bytes());
        standard(out, item, indent);
    }
    indent.truncate(outer);
}

fn map(out: &mut Vec<u8>, pairs: &[(Value, Value)], indent: &mut Vec<u8>) {
    if pairs.is_empty() {
        out.extend_from_slice(b"(empty hash)\n");
        return;
    }
    let outer = indent.len();
    let width = widen(indent, pairs.len());
    for (at, (key, value)) in pairs.iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(indent.get(..outer).unwrap_or_default());
        }
        out.extend_from_slice(format!("{:>width$}# ", at + 1).as_bytes());
        standard(out, key, indent);
        out.pop();
        out.extend_from_slice(b" => ");
        if takes_lines(value) {
            out.push(b'\n');
            out.extend_from_slice(indent);
        }
        standard(out, value, indent);
    }
    indent.truncate(outer);
}

/// Whether the standard form takes more than one line.
fn takes_lines(value: &Value) -> bool {
    match plain(value) {
        Value::Array(items) | Value::Set(items) | Value::Push(items) => match items.as_slice() {
            [one] => takes_lines(one),
            several => !several.is_empty(),
        },
        Value::Map(pairs) => match pairs.as_slice() {
            [(_, one)] => takes_lines(one),
            several => !several.is_empty(),
        },
        _ => false,
    }
}

fn raw(out: &mut Vec<u8>, value: &Value, delimiter: &[u8]) {
    match plain(value) {
        Value::Null | Value::NullBulk | Value::NullArray | Value::Attributed { .. } => {}
        Value::Error(text) => {
            out.extend_from_slice(text);
            out.push(b'\n');
        }
        Value::Simple(text) | Value::Bulk(text) | Value::Double(text) | Value::BigNumber(text) => {
            out.extend_from_slice(text);
        }
        Value::Verbatim { text, .. } => out.extend_from_slice(text),
        Value::Bool(value) => out.extend_from_slice(if *value { b"(true)" } else { b"(false)" }),
        Value::Integer(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::Array(items) | Value::Set(items) | Value::Push(items) => {
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.extend_from_slice(delimiter);
                }
                raw(out, item, delimiter);
            }
        }
        Value::Map(pairs) => {
            for (at, (key, value)) in pairs.iter().enumerate() {
                if at > 0 {
                    out.extend_from_slice(delimiter);
                }
                raw(out, key, delimiter);
                out.push(b' ');
                raw(out, value, delimiter);
            }
        }
    }
}

fn csv(out: &mut Vec<u8>, value: &Value) {
    match plain(value) {
        Value::Error(text) => {
            out.extend_from_slice(b"ERROR,");
            push_quoted(out, text);
        }
        Value::Simple(text) | Value::Bulk(text) | Value::Verbatim { text, .. } => push_quoted(out, text),
        Value::Integer(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::Double(text) | Value::BigNumber(text) => out.extend_from_slice(text),
        Value::Null | Value::NullBulk | Value::NullArray => out.extend_from_slice(b"NULL"),
        Value::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Value::Array(items) | Value::Set(items) | Value::Push(items) => {
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                csv(out, item);
            }
        }
        // There is no such thing in CSV: a flat list.
        Value::Map(pairs) => {
            for (at, (key, value)) in pairs.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                csv(out, key);
                out.push(b',');
                csv(out, value);
            }
        }
        Value::Attributed { .. } => {}
    }
}

fn json(out: &mut Vec<u8>, value: &Value, ascii: bool) {
    match plain(value) {
        Value::Error(text) => {
            out.extend_from_slice(b"error:");
            json_string(out, text, ascii);
        }
        Value::Simple(text) | Value::Bulk(text) | Value::Verbatim { text, .. } => {
            json_string(out, text, ascii);
        }
        Value::Integer(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::Double(text) | Value::BigNumber(text) => out.extend_from_slice(text),
        Value::Null | Value::NullBulk | Value::NullArray => out.extend_from_slice(b"null"),
        Value::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Value::Array(items) | Value::Set(items) | Value::Push(items) => {
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                json(out, item, ascii);
            }
            out.push(b']');
        }
        Value::Map(pairs) => {
            out.push(b'{');
            for (at, (key, value)) in pairs.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                json_key(out, key, ascii);
                out.push(b':');
                json(out, value, ascii);
            }
            out.push(b'}');
        }
        Value::Attributed { .. } => {}
    }
}

/// JSON's keys are strings; RESP3's may be anything.
fn json_key(out: &mut Vec<u8>, key: &Value, ascii: bool) {
    let is_text =
        matches!(plain(key), Value::Error(_) | Value::Simple(_) | Value::Bulk(_) | Value::Verbatim { .. });
    if is_text {
        json(out, key, ascii);
        return;
    }
    out.push(b'"');
    json(out, key, ascii);
    out.push(b'"');
}

fn json_string(out: &mut Vec<u8>, text: &[u8], ascii: bool) {
    if ascii {
        let mut quoted = Vec::new();
        push_quoted(&mut quoted, text);
        for byte in quoted {
            if byte == b'\\' {
                out.push(b'\\');
            }
            out.push(byte);
        }
        return;
    }
    out.push(b'"');
    for &byte in text {
        match byte {
            b'\\' | b'"' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0..=0x1f => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}
