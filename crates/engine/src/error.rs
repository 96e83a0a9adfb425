//! The errors a command can answer with, in the reference's words.

use std::borrow::Cow;

/// An error reply. The text starts with its code (`ERR`, `WRONGTYPE`, ...), without the protocol's dash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    WrongType,
    Syntax,
    NotInteger,
    NotFloat,
    OutOfRange,
    NoSuchKey,
    /// `ERR wrong number of arguments for '<name>' command`
    Arity(Cow<'static, str>),
    /// `ERR invalid expire time in '<name>' command`
    InvalidExpire(Cow<'static, str>),
    /// A whole text of its own.
    Text(Cow<'static, str>),
}

impl CommandError {
    /// An error with a fixed text, code included.
    pub const fn text(text: &'static str) -> Self {
        CommandError::Text(Cow::Borrowed(text))
    }

    /// An error with a made-up text, code included.
    pub fn owned(text: String) -> Self {
        CommandError::Text(Cow::Owned(text))
    }

    /// The reply's text, code first.
    pub fn message(&self) -> Cow<'_, str> {
        match self {
            CommandError::WrongType => {
                "WRONGTYPE Operation against a key holding the wrong kind of value".into()
            }
            CommandError::Syntax => "ERR syntax error".into(),
            CommandError::NotInteger => "ERR value is not an integer or out of range".into(),
            CommandError::NotFloat => "ERR value is not a valid float".into(),
            CommandError::OutOfRange => "ERR index out of range".into(),
            CommandError::NoSuchKey => "ERR no such key".into(),
            CommandError::Arity(name) => format!("ERR wrong number of arguments for '{name}' command").into(),
            CommandError::InvalidExpire(name) => {
                format!("ERR invalid expire time in '{name}' command").into()
            }
            CommandError::Text(text) => text.as_ref().into(),
        }
    }
}
