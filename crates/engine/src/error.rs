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
    /// A text that quotes what a client sent, which needn't be UTF-8.
    Bytes(Vec<u8>),
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

    /// What EXEC says that can't run because of this.
    pub fn ends_transaction(&self) -> Self {
        let message = self.message();
        let reason = message.strip_prefix(b"ERR ").unwrap_or(&message);
        CommandError::quoting("EXECABORT Transaction discarded because of: {}", &[reason])
    }

    /// An error that quotes a client's words: each `{}` of the template stands for the next of them. A word ends at
    /// its first NUL, as in the reference's replies.
    pub fn quoting(template: &str, words: &[&[u8]]) -> Self {
        let mut text = Vec::with_capacity(template.len());
        let mut words = words.iter();
        for (index, part) in template.split("{}").enumerate() {
            if index > 0 {
                let word = words.next().copied().unwrap_or_default();
                text.extend(word.iter().take_while(|byte| **byte != 0));
            }
            text.extend_from_slice(part.as_bytes());
        }
        CommandError::Bytes(text)
    }

    /// The reply's text, code first.
    pub fn message(&self) -> Cow<'_, [u8]> {
        let text: Cow<'_, str> = match self {
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
            CommandError::Bytes(text) => return Cow::Borrowed(text),
        };
        match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_words_keep_their_bytes_up_to_a_nul() {
        let error = CommandError::quoting("ERR no '{}' in '{}'", &[b"a\xffb", b"c\0d"]);
        assert_eq!(error.message().as_ref(), b"ERR no 'a\xffb' in 'c'");
    }
}
